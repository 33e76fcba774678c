//! A borrowed value of any type, the operand of generic functions and aggregates.

use super::functions::order_doubles;
use crate::table::row::{Array, Bytes, Map, Row, RowWriter, Slot, decimal_of};
use crate::table::types::{DataType, Physical};
use crate::table::value::Value;
use std::cmp::Ordering;

/// A borrowed value in its physical representation, or NULL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// A BOOLEAN.
    Bool(bool),
    /// Integers, dates, timestamps and intervals.
    Long(i64),
    /// FLOAT and DOUBLE.
    Double(f64),
    /// The unscaled value of a DECIMAL.
    Decimal(i128),
    /// STRING, BINARY, and the encoded bytes of arrays, maps and structs.
    Bytes(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// Whether the value is NULL.
    #[inline]
    pub fn is_null(self) -> bool {
        self == Cell::Null
    }

    /// Reads a field of a row.
    #[inline]
    pub fn of(row: Row<'a>, slot: Slot, physical: Physical) -> Self {
        if row.is_null(slot) {
            return Self::Null;
        }
        match physical {
            Physical::Bool => Self::Bool(row.long(slot) != 0),
            Physical::Long => Self::Long(row.long(slot)),
            Physical::Double => Self::Double(row.double(slot)),
            Physical::Decimal => Self::Decimal(decimal_of(row.bytes(slot))),
            Physical::Bytes => Self::Bytes(row.bytes(slot)),
        }
    }

    /// The integer; 0 for any other variant.
    #[inline]
    pub fn long(self) -> i64 {
        match self {
            Self::Long(v) => v,
            _ => 0,
        }
    }

    /// The double; 0 for any other variant.
    #[inline]
    pub fn double(self) -> f64 {
        match self {
            Self::Double(v) => v,
            _ => 0.0,
        }
    }

    /// The boolean; false for any other variant.
    #[inline]
    pub fn bool(self) -> bool {
        self == Self::Bool(true)
    }

    /// The unscaled value of a decimal; 0 for any other variant.
    #[inline]
    pub fn decimal(self) -> i128 {
        match self {
            Self::Decimal(v) => v,
            _ => 0,
        }
    }

    /// The bytes; empty for any other variant.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(v) => v,
            _ => &[],
        }
    }

    /// The bytes as text; a single `U+FFFD` if they are not valid UTF-8.
    #[inline]
    pub fn text(self) -> &'a str {
        super::compile::text(self.bytes())
    }

    /// The array; an empty one for any other variant.
    #[inline]
    pub fn array(self) -> Array<'a> {
        match self {
            Self::Bytes(bytes) => Array::new(bytes),
            _ => Array { len: 0, row: Row(&[]) },
        }
    }

    /// The map; `None` for any other variant.
    #[inline]
    pub fn map(self) -> Option<Map<'a>> {
        match self {
            Self::Bytes(bytes) => Some(Map::new(bytes)),
            _ => None,
        }
    }

    /// Writes the value into a field of a row. NULL is not written: the field must be NULL already.
    #[inline]
    pub fn put<B: Bytes>(self, writer: &mut RowWriter<'_, B>, index: usize) {
        match self {
            Self::Null => {}
            Self::Bool(v) => writer.bool(index, v),
            Self::Long(v) => writer.long(index, v),
            Self::Double(v) => writer.double(index, v),
            Self::Decimal(v) => writer.decimal(index, v),
            Self::Bytes(v) => writer.bytes(index, v),
        }
    }

    /// Returns an owned copy, as a value of a type.
    pub fn value(self, data_type: &DataType) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Boolean(v),
            Self::Long(v) => Value::Long(v),
            Self::Double(v) => Value::Double(v),
            Self::Decimal(v) => Value::Decimal(v),
            Self::Bytes(v) => Value::from_bytes(v, data_type),
        }
    }
}

/// The elements of an array, as cells.
pub fn elements<'a>(
    array: Array<'a>,
    element: &DataType,
) -> impl DoubleEndedIterator<Item = Cell<'a>> + ExactSizeIterator + use<'a> {
    let physical = element.physical();
    (0..array.len).map(move |index| Cell::of(array.row, array.slot(index), physical))
}

/// Reads the field at `index` of a struct. `width` is the number of fields of the struct.
#[inline]
pub fn field<'a>(of: &'a [u8], index: usize, width: usize, data_type: &DataType) -> Cell<'a> {
    Cell::of(Row(of), Slot::new(index, width), data_type.physical())
}

/// Compares values of a type in Spark's order: NULL is the smallest, NaN is larger than all
/// numbers, and arrays and structs are compared element by element.
pub fn order(a: Cell<'_>, b: Cell<'_>, data_type: &DataType) -> Ordering {
    match (a, b) {
        (Cell::Null, Cell::Null) => Ordering::Equal,
        (Cell::Null, _) => Ordering::Less,
        (_, Cell::Null) => Ordering::Greater,
        (Cell::Bool(a), Cell::Bool(b)) => a.cmp(&b),
        (Cell::Long(a), Cell::Long(b)) => a.cmp(&b),
        (Cell::Double(a), Cell::Double(b)) => order_doubles(a, b),
        (Cell::Decimal(a), Cell::Decimal(b)) => a.cmp(&b),
        (Cell::Bytes(a), Cell::Bytes(b)) => match data_type {
            DataType::Array(element) => {
                let (a, b) = (Array::new(a), Array::new(b));
                let pairs = elements(a, element).zip(elements(b, element));
                let found = pairs.map(|(a, b)| order(a, b, element)).find(|o| o.is_ne());
                found.unwrap_or(a.len.cmp(&b.len))
            }
            DataType::Struct(fields) => {
                let width = fields.len();
                let by_field = fields.iter().enumerate().map(|(i, f)| {
                    let t = &f.data_type;
                    order(field(a, i, width, t), field(b, i, width, t), t)
                });
                by_field.into_iter().find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
            }
            _ => a.cmp(b),
        },
        _ => Ordering::Equal,
    }
}
