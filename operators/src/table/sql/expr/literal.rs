//! Converts literals: numbers, texts, dates, timestamps and intervals.

use super::data_type;
use crate::table::datetime::time_of_day::{
    TIME_DIGITS, TIME_DIGITS_MAX, fraction_digits, parse_time,
};
use crate::table::datetime::{Tz, interval, names_zone, parse_date, parse_timestamp, special};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::sql::syntax;
use crate::table::text::number;
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use sqlparser::ast::{self};
use std::borrow::Cow;

pub(super) fn literal(value: &ast::Value, here: Place) -> PlanResult<Expr> {
    match value {
        ast::Value::Number(digits, true) => number(&format!("{digits}L"), here),
        ast::Value::Number(digits, false) => number(digits, here),
        ast::Value::SingleQuotedString(text)
        | ast::Value::DoubleQuotedString(text)
        | ast::Value::SingleQuotedRawStringLiteral(text)
        | ast::Value::DoubleQuotedRawStringLiteral(text) => Ok(text.as_str().into()),
        ast::Value::Boolean(value) => Ok((*value).into()),
        ast::Value::Null => Ok(Expr::Literal(Value::Null, DataType::Null)),
        ast::Value::HexStringLiteral(digits) => {
            let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.clone() };
            let byte = |at: usize| u8::from_str_radix(padded.get(at..at + 2)?, 16).ok();
            match (0..padded.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) => Ok(Expr::Literal(Value::Binary(bytes), DataType::Binary)),
                None => Err(PlanError::new(
                    "INVALID_TYPED_LITERAL",
                    format!("X'{digits}' has characters that are not hexadecimal digits"),
                    "",
                )
                .at(here)),
            }
        }
        other => Err(PlanError::not_yet(format_args!("the literal {other}")).at(here)),
    }
}

/// The type suffixes of numbers.
const SUFFIXES: [(&str, DataType); 6] = [
    ("bd", DataType::Decimal(0, 0)),
    ("l", DataType::Long),
    ("s", DataType::Short),
    ("y", DataType::Byte),
    ("d", DataType::Double),
    ("f", DataType::Float),
];

/// Converts a number literal by Spark's rules. A suffix determines the type. Without a suffix, the
/// type is DOUBLE if there is an exponent, otherwise the first of INT, BIGINT and DECIMAL that
/// fits. A number that does not fit its type is an error.
pub(super) fn number(written: &str, here: Place) -> PlanResult<Expr> {
    let lower = written.to_ascii_lowercase();
    let wrong = || {
        PlanError::new(
            "INVALID_NUMERIC_LITERAL_RANGE",
            format!("'{written}' is not a number that fits"),
            "",
        )
        .at(here)
    };
    let suffix = SUFFIXES.iter().find_map(|(suffix, to)| {
        let digits = lower.strip_suffix(suffix)?;
        digits.ends_with(|c: char| c.is_ascii_digit() || c == '.').then_some((digits, to))
    });
    let (digits, to) = match suffix {
        Some((digits, to)) => (digits, to.clone()),
        None if lower.contains('e') => (lower.as_str(), DataType::Double),
        None => match lower.parse::<i64>() {
            Ok(value) => {
                return Ok(i32::try_from(value).map_or_else(|_| value.into(), Into::into));
            }
            Err(_) => (lower.as_str(), DataType::Decimal(0, 0)),
        },
    };
    let value = match &to {
        DataType::Decimal(..) => {
            let (value, to) = number::literal(digits).ok_or_else(wrong)?.map_err(|condition| {
                let reason = format!("'{written}' has more digits than the 38 of a decimal");
                PlanError::new(condition, reason, "Write it as a DOUBLE: with E0").at(here)
            })?;
            return Ok(Expr::Literal(Value::Decimal(value), to));
        }
        DataType::Float | DataType::Double => {
            // A value above the largest FLOAT is an error, even if rounding would give the largest
            // FLOAT.
            let exact = number::double(digits, &DataType::Double).unwrap_or(f64::INFINITY);
            let most = if to == DataType::Float { f64::from(f32::MAX) } else { f64::MAX };
            let value = number::double(digits, &to).map(Value::Double);
            value.filter(|_| exact.abs() <= most)
        }
        to => number::integer(digits, to, number::Fraction::Refused).map(Value::Long),
    };
    Ok(Expr::Literal(value.ok_or_else(wrong)?, to))
}

pub(super) fn typed_string(typed: &ast::TypedString, here: Place) -> PlanResult<Expr> {
    if typed.uses_odbc_syntax {
        let mut error = syntax("Spark SQL has no literals in braces", here);
        error.fix = "Write DATE '2024-01-31' or TIMESTAMP '2024-01-31 12:00:00'".to_string();
        return Err(error);
    }
    let to = data_type(&typed.data_type)?;
    let text = match &typed.value.value {
        ast::Value::SingleQuotedString(text) | ast::Value::DoubleQuotedString(text) => text,
        other => return Err(PlanError::not_yet(format_args!("the literal {other}")).at(here)),
    };
    // A literal with a time zone is a TIMESTAMP with a time zone, even if the type name TIMESTAMP
    // means TIMESTAMP_NTZ.
    let with_zone = matches!(typed.data_type, ast::DataType::Timestamp(..)) && names_zone(text);
    datetime_literal(text, if with_zone { DataType::Timestamp } else { to }, here)
}

/// Converts a literal of a date or timestamp. Fails if the text is invalid.
pub(super) fn datetime_literal(text: &str, to: DataType, here: Place) -> PlanResult<Expr> {
    if to.is_datetime() && special(text).is_some() {
        return Ok(Expr::from(text).cast(to));
    }
    let value = match to {
        DataType::Date => parse_date(text),
        // The session time zone is not known during parsing, so the text is cast later.
        DataType::Timestamp if parse_timestamp(text, Some(Tz::UTC)).is_some() => {
            return Ok(Expr::from(text).cast(to));
        }
        DataType::Timestamp => None,
        DataType::TimestampNtz => parse_timestamp(text, None),
        DataType::Time(_) => return time_literal(text, here),
        _ => return Err(PlanError::not_yet(format_args!("a literal of type {to}")).at(here)),
    };
    match value {
        Some(value) => Ok(Expr::Literal(Value::Long(value), to)),
        None => Err(PlanError::new(
            "INVALID_TYPED_LITERAL",
            format!("'{text}' is not a {to}"),
            "Write DATE '2024-01-31' or TIMESTAMP '2024-01-31 12:00:00'",
        )
        .at(here)),
    }
}

/// Converts a literal of a TIME. Its type has as many digits as the literal, and at least six.
fn time_literal(text: &str, here: Place) -> PlanResult<Expr> {
    let digits = fraction_digits(text).max(usize::from(TIME_DIGITS));
    let condition = match (parse_time(text), u8::try_from(digits)) {
        (Some(value), Ok(digits)) if digits <= TIME_DIGITS_MAX => {
            return Ok(Expr::Literal(Value::Long(value), DataType::Time(digits)));
        }
        (Some(_), _) => "INVALID_TIME_LITERAL_PRECISION",
        (None, _) => "INVALID_TYPED_LITERAL",
    };
    let fix = "Write TIME '12:30:45.123': a time has at most nine fractional digits";
    Err(PlanError::new(condition, format!("'{text}' is not a TIME"), fix).at(here))
}

/// Moves each sign before a quoted number into the quotes: `-'5' DAY` becomes `'-5' DAY`, and
/// `-'-5' DAY` becomes `'5' DAY`.
fn signs_moved_inside(text: &str) -> String {
    let mut parts: Vec<Cow<'_, str>> = text.split('\'').map(Cow::Borrowed).collect();
    for at in (1..parts.len()).step_by(2) {
        if let Some(before) = parts[at - 1].strip_suffix('-').map(str::to_string) {
            let number = parts[at].trim_start();
            parts[at] = match number.strip_prefix('-') {
                Some(positive) => Cow::Owned(positive.to_string()),
                None => Cow::Owned(format!("-{number}")),
            };
            parts[at - 1] = Cow::Owned(before);
        }
    }
    parts.join("'").trim().to_string()
}

/// Converts an interval: `1 DAY 2 HOURS`, `'1-2' YEAR TO MONTH` or `'10 minutes'`.
pub fn interval_literal(text: &str) -> PlanResult<Expr> {
    let text = &signs_moved_inside(text);
    let wrong = |condition: &str| {
        PlanError::new(
            condition,
            format!("`INTERVAL` {text} is not a length of time"),
            "Write INTERVAL 10 MINUTES, INTERVAL '1 02:03:04' DAY TO SECOND or INTERVAL 1 YEAR",
        )
    };
    // If the units are a range, such as `DAY TO SECOND`, the quoted text is parsed by this range.
    if let Some(rest) = text.strip_prefix('\'')
        && let Some((quoted, units)) = rest.split_once('\'')
        && units.trim().to_ascii_uppercase().contains(" TO ")
    {
        let to = Schema::parse_ddl(&format!("t INTERVAL {units}"))
            .map_err(|_| wrong("INVALID_INTERVAL_FORMAT.UNSUPPORTED_FROM_TO_EXPRESSION"))?;
        let to = to.fields.into_iter().next().map_or(DataType::Null, |field| field.data_type);
        let value = interval::parse(quoted, &to).ok_or_else(|| {
            wrong(match (interval::has_shape(quoted, &to), &to) {
                (true, _) => "INVALID_INTERVAL_FORMAT.INTERVAL_PARSING",
                (false, DataType::YearMonthInterval(..)) => {
                    "INVALID_INTERVAL_FORMAT.UNMATCHED_FORMAT_STRING"
                }
                _ => "INVALID_INTERVAL_FORMAT.UNMATCHED_FORMAT_STRING_WITH_NOTICE",
            })
        })?;
        return Ok(Expr::Literal(Value::Long(value), to));
    }
    let mut parts = text.split('\'');
    let units: String = parts.clone().step_by(2).collect();
    let all_quoted = text.starts_with('\'') && units.trim().is_empty();
    let malformed = if all_quoted { "INVALID_TYPED_LITERAL" } else { "INVALID_INTERVAL_FORMAT" };
    // Before an unquoted unit, the quoted text must be a single number.
    let numbers = parts.by_ref().skip(1).step_by(2);
    let single = |part: &str| part.replace("- ", "-").split_whitespace().count() == 1;
    if !all_quoted && !numbers.into_iter().all(single) {
        return Err(wrong(malformed));
    }
    let cleaned = text.replace('\'', " ").replace("- ", "-");
    let words: Vec<&str> = cleaned.split_whitespace().collect();
    if words.is_empty() || words.len() % 2 == 1 {
        return Err(wrong(malformed));
    }
    let overflow = "INTERVAL_ARITHMETIC_OVERFLOW.WITHOUT_SUGGESTION";
    let (mut total, mut kind, mut first, mut last) = (0i64, None, u8::MAX, 0);
    for pair in words.chunks(2) {
        let (value, months, place) =
            interval::of_unit(pair[0], pair[1]).ok_or_else(|| wrong(malformed))?;
        if kind.is_some_and(|kind| kind != months) {
            return Err(PlanError::new(
                "_LEGACY_ERROR_TEMP_0029",
                format!("Cannot mix year-month and day-time fields: INTERVAL {text}"),
                "Write make_interval(1, 0, 0, 2) for a year and two days",
            ));
        }
        kind = Some(months);
        (first, last) = (first.min(place), last.max(place));
        total = total.checked_add(value).ok_or_else(|| wrong(overflow))?;
    }
    let data_type = if kind == Some(true) {
        DataType::YearMonthInterval(first, last)
    } else {
        DataType::DayTimeInterval(first, last)
    };
    if kind == Some(true) && i32::try_from(total).is_err() {
        return Err(wrong(overflow));
    }
    Ok(Expr::Literal(Value::Long(total), data_type))
}
