//! Conversion of a column's values to another type, by the rules of ORC's schema evolution.
//!
//! Numbers out of range and strings that do not parse become NULL. Conversions between timestamps
//! and local times use the reader's time zone.

use crate::connect::columnar::orc::footer::{Kind, Type};
use crate::table::datetime::{
    DAY_US, Tz, parse_date, parse_timestamp, to_local, to_utc, write_date, write_timestamp,
};
use crate::table::expr::cast::rescale;
use crate::table::text::java_double;
use crate::table::text::java_double::write_double;
use crate::table::text::number;
use crate::table::types::DataType;
use crate::table::value::decimal_text;
use std::fmt::Write;

/// A value as decoded from the file.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'b> {
    /// BOOLEAN.
    Boolean(bool),
    /// TINYINT to BIGINT.
    Long(i64),
    /// FLOAT and DOUBLE.
    Double(f64),
    /// DECIMAL: the unscaled value and the scale.
    Decimal(i128, u8),
    /// STRING, VARCHAR and CHAR.
    Text(&'b str),
    /// BINARY.
    Bytes(&'b [u8]),
    /// DATE, in days since 1970-01-01.
    Day(i64),
    /// TIMESTAMP, in microseconds since 1970.
    Time(i64),
}

/// Whether a column of type `from` can be read as `to`.
pub fn is_readable(from: &Type, to: &DataType) -> bool {
    use DataType as T;
    let marked = |name: &str| from.spark.as_deref() == Some(name);
    match (from.kind, to) {
        (Kind::Union, _) | (_, T::Null) => false,
        (Kind::List, T::Array(element)) => is_readable(&from.children[0].1, element),
        (Kind::Map, T::Map(key, value)) => {
            is_readable(&from.children[0].1, key) && is_readable(&from.children[1].1, value)
        }
        (Kind::Struct, T::Struct(fields)) => fields.iter().all(|field| {
            named(&from.children, &field.name)
                .is_none_or(|i| is_readable(&from.children[i].1, &field.data_type))
        }),
        (Kind::List | Kind::Map | Kind::Struct, _)
        | (_, T::Array(_) | T::Map(..) | T::Struct(_)) => false,
        (Kind::Binary, to) => matches!(to, T::Binary | T::String),
        (Kind::String | Kind::Varchar | Kind::Char, _) => true,
        (_, T::Binary) => false,
        (Kind::Date, to) => matches!(to, T::Date | T::Timestamp | T::String),
        // Spark's attribute distinguishes TIMESTAMP from TIMESTAMP_NTZ. Files of other writers can
        // be read as either.
        (Kind::Timestamp | Kind::TimestampInstant, T::TimestampNtz) => !marked("timestamp"),
        (Kind::Timestamp | Kind::TimestampInstant, _) => true,
        (Kind::Long, T::Timestamp) => !marked("timestamp_ntz"),
        (_, T::Date) => false,
        _ => true,
    }
}

/// The index of the field with a name: an exact match, or else the first match that ignores case.
pub fn named(children: &[(String, Type)], name: &str) -> Option<usize> {
    let exact = children.iter().position(|(own, _)| own == name);
    exact.or_else(|| children.iter().position(|(own, _)| own.to_lowercase() == name.to_lowercase()))
}

/// Converts a value to an integer. Returns `None` if that is not possible.
#[inline]
pub fn long(cell: Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Long(value) | Cell::Day(value) => Some(value),
        Cell::Boolean(value) => Some(i64::from(value)),
        Cell::Double(value) => {
            // The limits are approximate: a value down to -9.3e18 becomes the least BIGINT.
            (value > -9.3e18 && value < 9.223_372_036_854_775e18).then_some(value as i64)
        }
        Cell::Decimal(value, scale) => i64::try_from(value / 10i128.pow(u32::from(scale))).ok(),
        Cell::Text(text) => text.parse().ok(),
        Cell::Bytes(_) => None,
        Cell::Time(micros) => Some(micros.div_euclid(1_000_000)),
    }
}

/// Converts a value to a boolean. Returns `None` if that is not possible.
#[inline]
pub fn boolean(cell: Cell<'_>) -> Option<bool> {
    match cell {
        Cell::Boolean(value) => Some(value),
        Cell::Decimal(value, _) => Some(value != 0),
        cell => long(cell).map(|value| value != 0),
    }
}

/// Converts a value to a 64-bit float. Returns `None` if that is not possible.
#[inline]
pub fn double(cell: Cell<'_>) -> Option<f64> {
    match cell {
        Cell::Double(value) => Some(value),
        Cell::Boolean(value) => Some(f64::from(u8::from(value))),
        Cell::Long(value) | Cell::Day(value) => Some(value as f64),
        Cell::Decimal(value, scale) => decimal_text(value, scale).parse().ok(),
        Cell::Text(text) => number::double(text, &DataType::Double),
        Cell::Bytes(_) => None,
        Cell::Time(micros) => Some(micros as f64 / 1e6),
    }
}

/// Converts a value to a 32-bit float. Returns `None` if [`double`] does.
#[inline]
pub fn float(cell: Cell<'_>) -> Option<f32> {
    match cell {
        Cell::Long(value) => Some(value as f32),
        cell => double(cell).map(|value| value as f32),
    }
}

/// Converts a value to the unscaled value of the decimal type `to`. Returns `None` if it does not
/// fit, and for NaN, infinity, bytes and text that is not a number.
pub fn decimal(cell: Cell<'_>, to: &DataType) -> Option<i128> {
    let scaled = |value, scale| rescale(value, scale, to).ok().flatten();
    match cell {
        Cell::Decimal(value, scale) => scaled(value, scale),
        Cell::Boolean(value) => scaled(i128::from(value), 0),
        Cell::Long(value) | Cell::Day(value) => scaled(i128::from(value), 0),
        Cell::Double(value) if value.is_finite() => {
            let (digits, exponent) = java_double::decimal(value.abs());
            let sign = if value < 0.0 { "-" } else { "" };
            number::decimal(&format!("{sign}{digits}E{exponent}"), to).ok().flatten()
        }
        Cell::Text(text) => number::decimal(text, to).ok().flatten(),
        Cell::Time(micros) => scaled(i128::from(micros), 6),
        Cell::Double(_) | Cell::Bytes(_) => None,
    }
}

/// Converts a value to a date, in days. Returns `None` if that is not possible.
#[inline]
pub fn day(cell: Cell<'_>, zone: Tz) -> Option<i64> {
    match cell {
        Cell::Day(value) => Some(value),
        Cell::Time(micros) => Some(to_local(micros, zone).div_euclid(DAY_US)),
        Cell::Text(text) if text.len() == 10 => parse_date(text),
        _ => None,
    }
}

/// Converts a value to a timestamp, in microseconds; numbers are seconds. Returns `None` if that is
/// not possible.
#[inline]
pub fn time(cell: Cell<'_>, zone: Tz) -> Option<i64> {
    match cell {
        Cell::Time(micros) => Some(micros),
        Cell::Day(days) => Some(to_utc(days.checked_mul(DAY_US)?, zone)),
        Cell::Boolean(value) => Some(i64::from(value) * 1_000_000),
        Cell::Long(seconds) => seconds.checked_mul(1_000_000),
        Cell::Double(seconds) => {
            // The result has millisecond precision.
            let millis = (seconds * 1000.0 + 0.5).floor();
            (millis.abs() < 9.2e15).then(|| millis as i64 * 1000)
        }
        Cell::Decimal(value, scale) => {
            let micros = if scale <= 6 {
                value.checked_mul(10i128.pow(6 - u32::from(scale)))?
            } else {
                value.div_euclid(10i128.pow(u32::from(scale) - 6))
            };
            i64::try_from(micros).ok()
        }
        Cell::Text(text) if text.len() >= 19 && text.as_bytes()[10] == b' ' => {
            parse_timestamp(text, Some(zone))
        }
        Cell::Text(_) | Cell::Bytes(_) => None,
    }
}

/// Appends a value as a string. Returns `None` if that is not possible; `out` may then have been
/// extended.
pub fn text(cell: Cell<'_>, zone: Tz, out: &mut String) -> Option<()> {
    match cell {
        Cell::Boolean(value) => out.push_str(if value { "TRUE" } else { "FALSE" }),
        Cell::Long(value) => write!(out, "{value}").ok()?,
        Cell::Double(value) if value.is_nan() => return None,
        Cell::Double(value) => write_double(value, out).ok()?,
        Cell::Decimal(value, scale) => {
            let text = decimal_text(value, scale);
            let short = if scale > 0 { text.trim_end_matches('0') } else { &text };
            out.push_str(short.strip_suffix('.').unwrap_or(short));
        }
        Cell::Text(text) => out.push_str(text),
        Cell::Bytes(bytes) => {
            for (i, byte) in bytes.iter().enumerate() {
                let blank = if i == 0 { "" } else { " " };
                write!(out, "{blank}{byte:02x}").ok()?;
            }
        }
        Cell::Day(days) => write_date(days, out).ok()?,
        Cell::Time(micros) => write_timestamp(micros, zone, out).ok()?,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cut_and_must_fit() {
        let cases = [
            (Cell::Double(-3.99), Some(-3)),
            (Cell::Double(f64::NAN), None),
            (Cell::Double(1e20), None),
            (Cell::Decimal(12_345_678_901, 5), Some(123_456)),
            (Cell::Decimal(-5, 2), Some(0)),
            (Cell::Text("+7"), Some(7)),
            (Cell::Text(" 12.75 "), None),
            (Cell::Time(-1_500_000), Some(-2)),
        ];
        for (cell, expected) in cases {
            assert_eq!(long(cell), expected, "{cell:?}");
        }
        let decimals = [
            (Cell::Decimal(12_345, 2), DataType::Decimal(10, 0), Some(123)),
            (Cell::Decimal(123_456_789, 3), DataType::Decimal(10, 0), Some(123_457)),
            (Cell::Decimal(123_456_789, 3), DataType::Decimal(7, 2), None),
            (Cell::Double(1.5), DataType::Decimal(10, 0), Some(2)),
            (Cell::Text("1e3"), DataType::Decimal(7, 2), Some(100_000)),
            (Cell::Time(1_710_088_496_789_123), DataType::Decimal(10, 0), Some(1_710_088_497)),
        ];
        for (cell, to, expected) in decimals {
            assert_eq!(decimal(cell, &to), expected, "{cell:?}");
        }
        assert_eq!(boolean(Cell::Double(0.5)), Some(false));
        assert_eq!(boolean(Cell::Decimal(-5, 2)), Some(true));
        assert_eq!(boolean(Cell::Text("true")), None);
    }

    #[test]
    fn values_become_strings_as_in_the_java_reader() {
        let cases = [
            (Cell::Boolean(true), Some("TRUE")),
            (Cell::Double(1e7), Some("1.0E7")),
            (Cell::Double(f64::NAN), None),
            (Cell::Decimal(150, 2), Some("1.5")),
            (Cell::Decimal(200, 2), Some("2")),
            (Cell::Bytes(b"abc"), Some("61 62 63")),
            (Cell::Day(0), Some("1970-01-01")),
            (Cell::Time(500_000), Some("1970-01-01 00:00:00.5")),
        ];
        for (cell, expected) in cases {
            let mut out = String::new();
            let found = text(cell, Tz::UTC, &mut out).map(|()| out.as_str());
            assert_eq!(found, expected, "{cell:?}");
        }
    }

    #[test]
    fn times_are_seconds_or_texts() {
        let cases = [
            (Cell::Long(70_000), Some(70_000_000_000)),
            (Cell::Long(i64::MAX), None),
            (Cell::Double(1.0 / 3.0), Some(333_000)),
            (Cell::Double(-3.99), Some(-3_990_000)),
            (Cell::Decimal(-5, 2), Some(-50_000)),
            (Cell::Day(1), Some(DAY_US)),
            (Cell::Text("1970-01-01 00:00:01.5"), Some(1_500_000)),
            (Cell::Text("2024-03-10"), None),
            (Cell::Text("2024-03-10T12:34:56"), None),
        ];
        for (cell, expected) in cases {
            assert_eq!(time(cell, Tz::UTC), expected, "{cell:?}");
        }
        assert_eq!(day(Cell::Text("2024-03-10"), Tz::UTC), Some(19_792));
        assert_eq!(day(Cell::Text("2024-3-1"), Tz::UTC), None);
    }
}
