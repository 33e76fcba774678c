//! Casts to and from VARIANT.

use super::ansi::{OnError, is_allowed};
use crate::table::datetime::{SECOND_US, Tz};
use crate::table::expr::cell::{Cell, elements, field};
use crate::table::expr::compile::{CellFn, Compiled, Cx, EvalError, failed, from_cells};
use crate::table::row::{Map, RowWriter};
use crate::table::text::json::write_variant;
use crate::table::types::{DECIMAL_DIGITS_MAX, DataType, Field};
use crate::table::variant::{BuildError, Builder, Content, LEVELS_MAX, Path, SIZE_MAX, Variant};
use bumpalo::collections::Vec as BumpVec;

use DataType as T;

/// Which nested types are converted to VARIANT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nested {
    /// Arrays, as a cast does.
    Arrays,
    /// Arrays, maps and structs, as `to_variant_object` does.
    All,
}

/// Whether values of a type can be converted to VARIANT.
pub fn is_convertible(from: &DataType, nested: Nested) -> bool {
    match from {
        T::Boolean | T::String | T::Binary | T::Date | T::Timestamp | T::TimestampNtz => true,
        T::Variant => true,
        T::Array(element) => is_convertible(element, nested),
        T::Map(key, value) => {
            nested == Nested::All && **key == T::String && is_convertible(value, nested)
        }
        T::Struct(fields) => {
            nested == Nested::All && fields.iter().all(|f| is_convertible(&f.data_type, nested))
        }
        number => number.is_numeric(),
    }
}

/// Whether a VARIANT can be cast to a type.
pub fn can_be_cast_to(to: &DataType) -> bool {
    is_convertible(to, Nested::All)
}

/// Appends a cell as a VARIANT. NULL becomes JSON's null.
pub fn write_cell(
    cell: Cell<'_>,
    data_type: &DataType,
    out: &mut Builder,
) -> Result<(), BuildError> {
    match (cell, data_type) {
        (Cell::Null, _) => out.null(),
        (Cell::Bool(value), _) => out.boolean(value),
        (Cell::Long(days), T::Date) => out.date(days),
        (Cell::Long(micros), T::Timestamp) => out.timestamp(micros),
        (Cell::Long(micros), T::TimestampNtz) => out.timestamp_ntz(micros),
        (Cell::Long(value), _) => out.long(value),
        (Cell::Double(value), T::Float) => out.float(value as f32),
        (Cell::Double(value), _) => out.double(value),
        (Cell::Decimal(value), T::Decimal(_, scale)) => out.decimal(value, *scale),
        (Cell::Decimal(value), _) => out.decimal(value, 0),
        (Cell::Bytes(bytes), T::Binary) => out.binary(bytes),
        (Cell::Bytes(bytes), T::Variant) => return out.variant(Variant::new(bytes)),
        (Cell::Bytes(_), T::Array(element)) => {
            let start = out.start();
            for value in elements(cell.array(), element) {
                out.element(start);
                write_cell(value, element, out)?;
            }
            return out.end_array(start);
        }
        (Cell::Bytes(bytes), T::Struct(fields)) => {
            let start = out.start();
            for (index, Field { name, data_type, .. }) in fields.iter().enumerate() {
                out.field(start, name.as_bytes());
                write_cell(field(bytes, index, fields.len(), data_type), data_type, out)?;
            }
            return out.end_object(start);
        }
        (Cell::Bytes(bytes), T::Map(key, value)) => {
            let map = Map::new(bytes);
            let start = out.start();
            for (name, of) in elements(map.keys, key).zip(elements(map.values, value)) {
                out.field(start, name.bytes());
                write_cell(of, value, out)?;
            }
            return out.end_object(start);
        }
        (Cell::Bytes(text), _) => out.text(text),
    }
    Ok(())
}

/// A compiled cast from VARIANT.
pub struct FromVariant {
    to: Target,
    data_type: DataType,
    on_error: OnError,
    zone: Tz,
}

/// The target of a cast, or of a part of it.
enum Target {
    Variant,
    Scalar(Box<Scalar>),
    Array(Box<Target>),
    /// A map from STRING.
    Map(Box<Target>),
    /// The names and types of the fields.
    Struct(Vec<(Vec<u8>, Target)>),
}

/// The casts of all types of scalars to one type. `None` if there is no such cast.
struct Scalar {
    to: DataType,
    boolean: Option<CellFn>,
    long: Option<CellFn>,
    double: Option<CellFn>,
    float: Option<CellFn>,
    /// The casts of decimals, by their scale.
    decimals: Vec<Option<CellFn>>,
    date: Option<CellFn>,
    timestamp: Option<CellFn>,
    timestamp_ntz: Option<CellFn>,
    text: Option<CellFn>,
    binary: Option<CellFn>,
}

impl Scalar {
    fn new(to: &DataType, zone: Tz) -> Self {
        let cast = |from: &DataType| {
            // The value is passed as a lambda variable.
            let value = from_cells(from.physical(), |cx| {
                Ok(cx.variables.last().copied().unwrap_or(Cell::Null))
            });
            is_allowed(from, to)
                .then(|| super::compile(value, from, to, OnError::Null, zone).cells())
        };
        Self {
            to: to.clone(),
            boolean: cast(&T::Boolean),
            long: cast(&T::Long),
            double: cast(&T::Double),
            float: cast(&T::Float),
            decimals: (0..=DECIMAL_DIGITS_MAX)
                .map(|scale| cast(&T::Decimal(DECIMAL_DIGITS_MAX, scale)))
                .collect(),
            date: cast(&T::Date),
            timestamp: cast(&T::Timestamp),
            timestamp_ntz: cast(&T::TimestampNtz),
            text: cast(&T::String),
            binary: cast(&T::Binary),
        }
    }

    /// The cast of a value. NULL if the value does not fit.
    fn cast<'a>(
        &self,
        value: Variant<'a>,
        zone: Tz,
        cx: Cx<'a>,
    ) -> Result<Cell<'a>, Box<EvalError>> {
        let (cast, cell) = match value.content() {
            Content::Object(_) | Content::Array(_) => {
                if self.to != T::String {
                    return Ok(Cell::Null);
                }
                let mut text = Vec::new();
                write_variant(value, zone, &mut text);
                return Ok(Cell::Bytes(cx.arena.alloc_slice_copy(&text)));
            }
            // These casts of SQL ignore an overflow, and a VARIANT's does not.
            Content::Long(seconds) if self.to == T::Timestamp => {
                return Ok(seconds.checked_mul(SECOND_US).map_or(Cell::Null, Cell::Long));
            }
            Content::Decimal(seconds, scale) if self.to == T::Timestamp => {
                return Ok(micros_of(seconds, scale).map_or(Cell::Null, Cell::Long));
            }
            Content::Null => return Ok(Cell::Null),
            Content::Boolean(value) => (&self.boolean, Cell::Bool(value)),
            Content::Long(value) => (&self.long, Cell::Long(value)),
            Content::Double(value) => (&self.double, Cell::Double(value)),
            Content::Float(value) => (&self.float, Cell::Double(f64::from(value))),
            Content::Decimal(value, scale) => {
                (&self.decimals[usize::from(scale)], Cell::Decimal(value))
            }
            Content::Date(days) => (&self.date, Cell::Long(days)),
            Content::Timestamp(micros) => (&self.timestamp, Cell::Long(micros)),
            Content::TimestampNtz(micros) => (&self.timestamp_ntz, Cell::Long(micros)),
            Content::Text(text) => (&self.text, Cell::Bytes(text)),
            Content::Binary(bytes) => (&self.binary, Cell::Bytes(bytes)),
        };
        match cast {
            Some(cast) => {
                let variables = cx.arena.alloc_slice_copy(&[cell]);
                cast(cx.with_variables(variables))
            }
            None => Ok(Cell::Null),
        }
    }
}

/// A number of seconds as microseconds; `None` if there are too many.
fn micros_of(seconds: i128, scale: u8) -> Option<i64> {
    let micros = match scale {
        0..=6 => seconds.checked_mul(10i128.pow(u32::from(6 - scale)))?,
        _ => seconds / 10i128.pow(u32::from(scale - 6)),
    };
    i64::try_from(micros).ok()
}

impl Target {
    fn new(to: &DataType, zone: Tz) -> Self {
        match to {
            T::Variant => Self::Variant,
            T::Array(element) => Self::Array(Box::new(Self::new(element, zone))),
            T::Map(_, value) => Self::Map(Box::new(Self::new(value, zone))),
            T::Struct(fields) => {
                let field = |f: &Field| (f.name.as_bytes().to_vec(), Self::new(&f.data_type, zone));
                Self::Struct(fields.iter().map(field).collect())
            }
            scalar => Self::Scalar(Box::new(Scalar::new(scalar, zone))),
        }
    }
}

impl FromVariant {
    /// Compiles a cast. [`can_be_cast_to`] must be true for the type.
    pub fn new(to: &DataType, on_error: OnError, zone: Tz) -> Self {
        Self { to: Target::new(to, zone), data_type: to.clone(), on_error, zone }
    }

    /// Casts the part of a value that a path leads to. NULL if there is none.
    pub fn cast_at<'a>(
        &self,
        value: Variant<'a>,
        path: &Path,
        cx: Cx<'a>,
    ) -> Result<Cell<'a>, Box<EvalError>> {
        value.at(path).map_or(Ok(Cell::Null), |part| self.cast(part, cx))
    }

    /// Casts a value.
    pub fn cast<'a>(&self, value: Variant<'a>, cx: Cx<'a>) -> Result<Cell<'a>, Box<EvalError>> {
        self.part(value, &self.to, cx)
    }

    fn part<'a>(
        &self,
        value: Variant<'a>,
        to: &Target,
        cx: Cx<'a>,
    ) -> Result<Cell<'a>, Box<EvalError>> {
        if let Target::Variant = to {
            let mut out = BumpVec::new_in(cx.arena);
            // A part is not longer than its whole, whose length was checked.
            let _ = Builder::with(&mut out, |builder| builder.variant(value));
            return Ok(Cell::Bytes(out.into_bump_slice()));
        }
        let mut out = BumpVec::new_in(cx.arena);
        match (to, value.content()) {
            (_, Content::Null) => return Ok(Cell::Null),
            (Target::Scalar(scalar), _) => {
                let cell = scalar.cast(value, self.zone, cx)?;
                return if cell.is_null() { self.misfit(value) } else { Ok(cell) };
            }
            (Target::Array(to), Content::Array(elements)) => {
                let mut writer = RowWriter::array(&mut out, elements.len);
                for (index, element) in elements.values().enumerate() {
                    self.part(element, to, cx)?.put(&mut writer, index);
                }
            }
            (Target::Map(to), Content::Object(fields)) => {
                let (mut keys, mut values) = (BumpVec::new_in(cx.arena), BumpVec::new_in(cx.arena));
                let mut names = RowWriter::array(&mut keys, fields.len);
                let mut writer = RowWriter::array(&mut values, fields.len);
                for (index, (name, value)) in fields.fields().enumerate() {
                    names.bytes(index, name);
                    self.part(value, to, cx)?.put(&mut writer, index);
                }
                Map::write(&keys, &values, &mut out);
            }
            (Target::Struct(targets), Content::Object(fields)) => {
                let mut writer = RowWriter::new(&mut out, targets.len());
                for (index, (name, to)) in targets.iter().enumerate() {
                    let cell = match fields.find(name) {
                        Some(value) => self.part(value, to, cx)?,
                        None => Cell::Null,
                    };
                    cell.put(&mut writer, index);
                }
            }
            _ => return self.misfit(value),
        }
        Ok(Cell::Bytes(out.into_bump_slice()))
    }

    /// The result for a value that cannot be cast.
    fn misfit<'a>(&self, value: Variant<'_>) -> Result<Cell<'a>, Box<EvalError>> {
        if self.on_error != OnError::Fail {
            return Ok(Cell::Null);
        }
        let mut text = Vec::new();
        write_variant(value, self.zone, &mut text);
        let text = String::from_utf8_lossy(&text);
        failed(
            "INVALID_VARIANT_CAST",
            format!("the value {text} of a VARIANT cannot be cast to {}", self.data_type),
            "Use try_variant_get or try_cast to get NULL instead",
        )
    }
}

/// The error of a value that is too long.
#[cold]
pub fn too_large<'a>() -> Result<Cell<'a>, Box<EvalError>> {
    failed(
        "VARIANT_SIZE_LIMIT",
        format!("a VARIANT is longer than {SIZE_MAX} bytes or deeper than {LEVELS_MAX} levels"),
        "Split it into several rows",
    )
}

/// Compiles a conversion to VARIANT.
pub fn to_variant(value: Compiled, from: DataType) -> Compiled {
    let value = value.cells();
    from_cells(T::Variant.physical(), move |cx| {
        let cell = value(cx)?;
        if cell.is_null() {
            return Ok(Cell::Null);
        }
        let mut out = BumpVec::new_in(cx.arena);
        match Builder::with(&mut out, |builder| write_cell(cell, &from, builder)) {
            Ok(()) => Ok(Cell::Bytes(out.into_bump_slice())),
            Err(BuildError::TooLarge) => too_large(),
            Err(BuildError::DuplicateName(name)) => failed(
                "VARIANT_DUPLICATE_KEY",
                format!("an object would have two fields `{name}`"),
                "Rename one of them",
            ),
        }
    })
}

/// Compiles a cast from VARIANT.
pub fn from_variant(value: Compiled, to: &DataType, on_error: OnError, zone: Tz) -> Compiled {
    let cast = FromVariant::new(to, on_error, zone);
    let value = value.bytes();
    from_cells(to.physical(), move |cx| match value(cx)? {
        Some(bytes) => cast.cast(Variant::new(bytes), cx),
        None => Ok(Cell::Null),
    })
}
