//! The values of folders named `column=value`: their inferred types, and their conversion to rows.

use crate::connect::file::uri::percent_decoded;
use crate::table::datetime::pattern::{Direction, Pattern};
use crate::table::datetime::{Tz, interval, parse_date, parse_timestamp};
use crate::table::text::number;
use crate::table::types::DataType;
use crate::table::value::Value;
use std::sync::LazyLock;

/// The folder name of rows whose partition column is NULL, as in Hive.
pub const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

static DATE: LazyLock<Option<Pattern>> = LazyLock::new(|| of("yyyy-MM-dd"));
static TIMESTAMP: LazyLock<Option<Pattern>> = LazyLock::new(|| of("yyyy-MM-dd HH:mm:ss[.S]"));

fn of(pattern: &str) -> Option<Pattern> {
    Pattern::new(pattern, Direction::Read).ok()
}

/// The column and the unparsed value of a folder name.
pub fn partition_of(name: &str) -> Option<(String, String)> {
    let (column, value) = name.split_once('=')?;
    (!column.is_empty() && !value.is_empty()).then(|| (percent_decoded(column), value.to_string()))
}

/// How the types of partition columns are inferred.
#[derive(Clone, Copy, Debug)]
pub struct Inference {
    /// The time zone of timestamps that do not name one.
    pub zone: Tz,
    /// Whether types are inferred; otherwise all columns are STRING.
    pub infers_types: bool,
    /// Whether timestamps are TIMESTAMP_NTZ, as `spark.sql.timestampType` says.
    pub times_without_zone: bool,
}

/// The type of a column with these values, by Spark's rules. Each value has the first of these
/// types that fits: INT, BIGINT, DECIMAL, DOUBLE, TIMESTAMP, DATE, STRING. Values without a common
/// type are STRING. VOID if all are NULL. STRING if there are no values, and for values that are
/// not NULL if types are not inferred.
pub fn type_of<'v>(values: impl Iterator<Item = &'v str>, inference: Inference) -> DataType {
    let own = |value: &str| match value {
        NULL_PARTITION => DataType::Null,
        _ if !inference.infers_types => DataType::String,
        value => type_of_value(value, inference),
    };
    values.map(own).reduce(wider).unwrap_or(DataType::String)
}

fn type_of_value(value: &str, inference: Inference) -> DataType {
    if whole(value, i64::from(i32::MIN), i64::from(i32::MAX)).is_some() {
        return DataType::Int;
    }
    if whole(value, i64::MIN, i64::MAX).is_some() {
        return DataType::Long;
    }
    if let Some(precision) = decimal_precision(value) {
        return DataType::Decimal(precision, 0);
    }
    if double(value).is_some() {
        return DataType::Double;
    }
    let unescaped = percent_decoded(value);
    let zone = (!inference.times_without_zone).then_some(inference.zone);
    let timed = TIMESTAMP.as_ref().and_then(|pattern| match zone {
        Some(zone) => pattern.timestamp(&unescaped, zone),
        None => pattern.timestamp_ntz(&unescaped),
    });
    if timed.is_some() && parse_timestamp(&unescaped, zone).is_some() {
        return zone.map_or(DataType::TimestampNtz, |_| DataType::Timestamp);
    }
    let dated = DATE.as_ref().and_then(|pattern| pattern.date(value));
    if dated.is_some() && parse_date(value).is_some() {
        return DataType::Date;
    }
    DataType::String
}

/// Spark's common type for values of two types; STRING if there is no other.
fn wider(a: DataType, b: DataType) -> DataType {
    use DataType::{Date, Decimal, Double, Int, Long, Null, String, Timestamp, TimestampNtz};
    match (a, b) {
        (Null, other) | (other, Null) => other,
        (a, b) if a == b => a,
        (Int, Long) | (Long, Int) => Long,
        (Int, Double) | (Double, Int) => Double,
        (Date, time @ (Timestamp | TimestampNtz)) | (time @ (Timestamp | TimestampNtz), Date) => {
            time
        }
        (Decimal(p, _), Decimal(q, _)) => Decimal(p.max(q), 0),
        (Decimal(p, _), Int) | (Int, Decimal(p, _)) => Decimal(p.max(10), 0),
        (Decimal(p, _), Long) | (Long, Decimal(p, _)) => Decimal(p.max(20), 0),
        _ => String,
    }
}

/// Parses a folder's value as a column's type; [`NULL_PARTITION`] is NULL. Fails if it does not fit
/// the type, and for a type that folders cannot have.
pub fn value_of(value: &str, data_type: &DataType, zone: Tz) -> Result<Value, ()> {
    if value == NULL_PARTITION {
        return Ok(Value::Null);
    }
    let found = match data_type {
        DataType::String => Some(Value::String(percent_decoded(value))),
        DataType::Binary => Some(Value::Binary(value.as_bytes().to_vec())),
        DataType::Boolean => match value.to_ascii_lowercase().as_str() {
            "true" => Some(Value::Boolean(true)),
            "false" => Some(Value::Boolean(false)),
            _ => None,
        },
        DataType::Byte | DataType::Short | DataType::Int | DataType::Long => {
            let (low, high) = data_type.integral_range();
            whole(value, low, high).map(Value::Long)
        }
        DataType::Float => double(value).map(|v| Value::Double(f64::from(v as f32))),
        DataType::Double => double(value).map(Value::Double),
        DataType::Decimal(..) => {
            number::decimal(value, data_type).ok().flatten().map(Value::Decimal)
        }
        DataType::Date => parse_date(&percent_decoded(value)).map(Value::Long),
        DataType::Timestamp => {
            parse_timestamp(&percent_decoded(value), Some(zone)).map(Value::Long)
        }
        DataType::TimestampNtz => parse_timestamp(&percent_decoded(value), None).map(Value::Long),
        interval if interval.is_interval() => {
            interval::parse(&percent_decoded(value), interval).map(Value::Long)
        }
        _ => None,
    };
    found.ok_or(())
}

/// Parses an integer like Java's `parseLong`: a sign and digits, in ASCII or other scripts. `None`
/// if it is outside `low..=high`.
fn whole(value: &str, low: i64, high: i64) -> Option<i64> {
    let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit() || c.is_numeric()) {
        return None;
    }
    let ascii = if value.is_ascii() { value.to_string() } else { number::ascii_digits(value)? };
    ascii.parse().ok().filter(|v| (low..=high).contains(v))
}

fn double(value: &str) -> Option<f64> {
    // Spark's casts accept more special words than Java's `parseDouble`.
    let word = value.trim_matches(|c: char| c <= ' ').trim_start_matches(['+', '-']);
    if word.starts_with(|c: char| c.is_alphabetic()) && !matches!(word, "NaN" | "Infinity") {
        return None;
    }
    number::double(value, &DataType::Double)
}

/// The precision of a decimal number without fractional digits, up to 38; `1e3` is one. `None` for
/// other text.
fn decimal_precision(value: &str) -> Option<u8> {
    let unsigned = value.strip_prefix(['+', '-']).unwrap_or(value);
    let (number, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (before, behind) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(before) || !is_digits(behind) || before.len() + behind.len() == 0 {
        return None;
    }
    let scale = i32::try_from(behind.len()).ok()?.checked_sub(exponent)?;
    if scale > 0 {
        return None;
    }
    let zeros = before.len() - before.trim_start_matches('0').len();
    let significant = if zeros == before.len() {
        behind.trim_start_matches('0').len()
    } else {
        before.len() - zeros + behind.len()
    };
    let precision = significant.max(1) + usize::try_from(scale.unsigned_abs()).ok()?;
    (precision <= 38).then_some(precision as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_york() -> Tz {
        Tz::named("America/New_York").unwrap()
    }

    /// The expected types were inferred by Spark.
    #[test]
    fn types_of_partition_values_are_inferred() {
        let inference =
            Inference { zone: new_york(), infers_types: true, times_without_zone: false };
        for (values, data_type) in [
            ("7", "INT"),
            ("007", "INT"),
            ("+5", "INT"),
            ("٣", "INT"),
            ("12345678901", "BIGINT"),
            ("9223372036854775808", "DECIMAL(19,0)"),
            ("123456789012345678901234567890", "DECIMAL(30,0)"),
            ("1234567890123456789012345678901234567890", "DOUBLE"),
            ("2e3", "DECIMAL(4,0)"),
            ("12e2", "DECIMAL(4,0)"),
            ("3.", "DECIMAL(1,0)"),
            ("0e5", "DECIMAL(6,0)"),
            ("1e40", "DOUBLE"),
            ("1.5", "DOUBLE"),
            ("100e-2", "DOUBLE"),
            ("00.00", "DOUBLE"),
            ("NaN", "DOUBLE"),
            ("-Infinity", "DOUBLE"),
            ("inf", "STRING"),
            ("1d", "DOUBLE"),
            ("1L", "STRING"),
            ("0x1F", "STRING"),
            ("0x1p3", "DOUBLE"),
            ("true", "STRING"),
            ("%31", "STRING"),
            ("2024-05-06", "DATE"),
            ("+12345-05-06", "DATE"),
            ("2024-5-6", "STRING"),
            ("2024-05", "STRING"),
            ("2024-02-30", "STRING"),
            ("2024-05-06 10%3A00%3A00", "TIMESTAMP"),
            ("2024-05-06 10:00:00.5", "TIMESTAMP"),
            ("2024-05-06 10%3A00%3A00.123", "STRING"),
            ("2024-05-06 10%3A00", "STRING"),
            ("2024-05-06T10%3A00%3A00", "STRING"),
            ("__HIVE_DEFAULT_PARTITION__", "VOID"),
            ("7|2.5", "DOUBLE"),
            ("7|12345678901", "BIGINT"),
            ("12345678901|2.5", "STRING"),
            ("7|123456789012345678901", "DECIMAL(21,0)"),
            ("2e3|1", "DECIMAL(10,0)"),
            ("1.5|123456789012345678901", "STRING"),
            ("2024-05-06|2024-05-06 10:00:00", "TIMESTAMP"),
            ("2024-05-06|7", "STRING"),
            ("7|__HIVE_DEFAULT_PARTITION__", "INT"),
        ] {
            let found = type_of(values.split('|'), inference);
            assert_eq!(found.to_string().replace(", ", ","), data_type, "{values}");
            let without_zone = Inference { times_without_zone: true, ..inference };
            let found = type_of(values.split('|'), without_zone);
            let data_type = data_type.replace("TIMESTAMP", "TIMESTAMP_NTZ");
            assert_eq!(found.to_string().replace(", ", ","), data_type, "{values}");
        }
        let texts = Inference { infers_types: false, ..inference };
        assert_eq!(type_of(["7"].into_iter(), texts), DataType::String);
    }

    #[test]
    fn partition_values_are_parsed_by_their_type() {
        let of = |value: &str, ddl: DataType| value_of(value, &ddl, new_york());
        assert_eq!(of("a%2Fb", DataType::String), Ok(Value::String("a/b".to_string())));
        assert_eq!(of("a%2F", DataType::Binary), Ok(Value::Binary(b"a%2F".to_vec())));
        assert_eq!(of("300", DataType::Byte), Err(()));
        assert_eq!(of("1.5", DataType::Decimal(5, 2)), Ok(Value::Decimal(150)));
        let at = of("1970-01-01 00%3A00%3A01", DataType::Timestamp);
        assert_eq!(at, Ok(Value::Long((5 * 3600 + 1) * 1_000_000)));
        let local = of("1970-01-01 00%3A00%3A01", DataType::TimestampNtz);
        assert_eq!(local, Ok(Value::Long(1_000_000)));
        assert_eq!(of(NULL_PARTITION, DataType::Int), Ok(Value::Null));
    }
}
