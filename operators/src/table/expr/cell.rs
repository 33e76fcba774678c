//! A value that is looked at and not owned: what functions over any type, and aggregates, work on.

use super::functions::order_doubles;
use crate::table::row::{Array, Bytes, Map, Row, RowWriter, Slot, decimal_of};
use crate::table::types::{DataType, Physical};
use crate::table::value::Value;
use std::cmp::Ordering;

/// A value of a kind, or NULL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// BOOLEAN.
    Bool(bool),
    /// Integers, dates, times and intervals.
    Long(i64),
    /// FLOAT and DOUBLE.
    Double(f64),
    /// A decimal's unscaled value.
    Decimal(i128),
    /// Text, bytes, and the layouts of arrays, maps and structs.
    Bytes(&'a [u8]),
}

impl<'a> Cell<'a> {
    /// Whether it is NULL.
    #[inline]
    pub fn is_null(self) -> bool {
        self == Cell::Null
    }

    /// A field of a row.
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

    /// The number; 0 for what is none, which resolution rules out.
    #[inline]
    pub fn long(self) -> i64 {
        match self {
            Self::Long(v) => v,
            _ => 0,
        }
    }

    /// The double; 0 for what is none.
    #[inline]
    pub fn double(self) -> f64 {
        match self {
            Self::Double(v) => v,
            _ => 0.0,
        }
    }

    /// The truth value; false for what is none.
    #[inline]
    pub fn bool(self) -> bool {
        self == Self::Bool(true)
    }

    /// The decimal's unscaled value; 0 for what is none.
    #[inline]
    pub fn decimal(self) -> i128 {
        match self {
            Self::Decimal(v) => v,
            _ => 0,
        }
    }

    /// The bytes; none for what has none.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(v) => v,
            _ => &[],
        }
    }

    /// The text.
    #[inline]
    pub fn text(self) -> &'a str {
        super::compile::text(self.bytes())
    }

    /// The array; an empty one for what is none.
    #[inline]
    pub fn array(self) -> Array<'a> {
        match self {
            Self::Bytes(bytes) => Array::new(bytes),
            _ => Array { len: 0, row: Row(&[]) },
        }
    }

    /// The map, if it is one.
    #[inline]
    pub fn map(self) -> Option<Map<'a>> {
        match self {
            Self::Bytes(bytes) => Some(Map::new(bytes)),
            _ => None,
        }
    }

    /// Writes it as a field.
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

    /// The value, owned.
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

/// The elements of an array.
pub fn elements<'a>(
    array: Array<'a>,
    element: &DataType,
) -> impl DoubleEndedIterator<Item = Cell<'a>> + ExactSizeIterator + use<'a> {
    let physical = element.physical();
    (0..array.len).map(move |index| Cell::of(array.row, array.slot(index), physical))
}

/// A field of a struct of so many fields.
#[inline]
pub fn field<'a>(of: &'a [u8], index: usize, width: usize, data_type: &DataType) -> Cell<'a> {
    Cell::of(Row(of), Slot::new(index, width), data_type.physical())
}

/// How Spark orders values of a type: NULL before all else, NaN behind all numbers, arrays and
/// structs part by part.
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
