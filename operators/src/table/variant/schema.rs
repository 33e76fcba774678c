//! The types of VARIANT values, as `schema_of_variant` prints them.

use super::{Content, Variant};
use crate::table::deep_recursion::on_stack;
use crate::table::types::{DECIMAL_DIGITS_MAX, DataType, Field, quoted_if_needed};
use std::fmt::{self, Write};

/// The text of a type of VARIANT values.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'t>(pub &'t DataType);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_type(self.0, f)
    }
}

fn write_type(data_type: &DataType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match data_type {
        DataType::Struct(fields) => {
            f.write_str("OBJECT<")?;
            for (index, field) in fields.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                write!(f, "{comma}{}: ", quoted_if_needed(&field.name))?;
                on_stack(|| write_type(&field.data_type, f))?;
            }
            f.write_char('>')
        }
        DataType::Array(element) => {
            f.write_str("ARRAY<")?;
            on_stack(|| write_type(element, f))?;
            f.write_char('>')
        }
        plain => write!(f, "{plain}"),
    }
}

/// The type of a value. A STRUCT is an object, whose fields are sorted by name; VARIANT is the type
/// of elements or fields of several types.
pub fn type_of(value: Variant<'_>) -> DataType {
    match value.content() {
        Content::Null => DataType::Null,
        Content::Boolean(_) => DataType::Boolean,
        Content::Long(_) => DataType::Long,
        Content::Double(_) => DataType::Double,
        Content::Float(_) => DataType::Float,
        Content::Decimal(unscaled, scale) => decimal_type(unscaled, scale),
        Content::Date(_) => DataType::Date,
        Content::Timestamp(_) => DataType::Timestamp,
        Content::TimestampNtz(_) => DataType::TimestampNtz,
        Content::Text(_) => DataType::String,
        Content::Binary(_) => DataType::Binary,
        Content::Array(elements) => {
            let merged = elements.values().fold(DataType::Null, |merged, element| {
                merge_types(merged, on_stack(|| type_of(element)))
            });
            DataType::Array(Box::new(merged))
        }
        Content::Object(fields) => {
            let field = |(name, value): (&[u8], Variant<'_>)| {
                let name = String::from_utf8_lossy(name);
                Field::new(name, on_stack(|| type_of(value)), true)
            };
            DataType::Struct(fields.fields().map(field).collect())
        }
    }
}

/// The narrowest type of a decimal.
pub(super) fn decimal_type(unscaled: i128, scale: u8) -> DataType {
    let digits = unscaled.unsigned_abs().checked_ilog10().map_or(1, |log| log as u8 + 1);
    DataType::Decimal(digits.max(scale), scale)
}

/// The type of values of either type.
pub fn merge_types(a: DataType, b: DataType) -> DataType {
    use DataType as T;
    match (a, b) {
        (a, b) if a == b => a,
        (T::Null, other) | (other, T::Null) => other,
        (T::Struct(a), T::Struct(b)) => T::Struct(merge_fields(a, b)),
        (T::Array(a), T::Array(b)) => T::Array(Box::new(on_stack(|| merge_types(*a, *b)))),
        (T::Decimal(..), T::Double) | (T::Double, T::Decimal(..)) => T::Double,
        (T::Long | T::Float | T::Double, T::Double) | (T::Double, T::Long | T::Float) => T::Double,
        (T::Long, T::Float) | (T::Float, T::Long) => T::Float,
        (T::Timestamp, T::Date | T::TimestampNtz) | (T::Date | T::TimestampNtz, T::Timestamp) => {
            T::Timestamp
        }
        (T::Date, T::TimestampNtz) | (T::TimestampNtz, T::Date) => T::TimestampNtz,
        (a, b) => match (a.as_decimal(), b.as_decimal()) {
            (Some(a), Some(b)) => merge_decimals(a, b),
            _ => T::Variant,
        },
    }
}

/// A decimal of all values of two decimal types, or DOUBLE if it had too many digits.
fn merge_decimals((p1, s1): (u8, u8), (p2, s2): (u8, u8)) -> DataType {
    let scale = s1.max(s2);
    let digits = (p1 - s1).max(p2 - s2) + scale;
    if digits > DECIMAL_DIGITS_MAX { DataType::Double } else { DataType::Decimal(digits, scale) }
}

/// Merges the fields of two objects, which are sorted by name.
fn merge_fields(a: Vec<Field>, b: Vec<Field>) -> Vec<Field> {
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    let mut merged = Vec::with_capacity(a.len().max(b.len()));
    while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
        let order = super::order_names(left.name.as_bytes(), right.name.as_bytes());
        let left = if order.is_le() { a.next() } else { None };
        let right = if order.is_ge() { b.next() } else { None };
        merged.extend(match (left, right) {
            (Some(left), Some(right)) => {
                let data_type = on_stack(|| merge_types(left.data_type, right.data_type));
                Some(Field { data_type, ..right })
            }
            (left, right) => left.or(right),
        });
    }
    merged.extend(a);
    merged.extend(b);
    merged
}
