//! Casts from STRING.

use super::ansi::{OnError, invalid, soften};
use crate::table::datetime::time_of_day::{parse_time, truncated};
use crate::table::datetime::{
    CalendarInterval, Tz, interval, parse_date, parse_timestamp, trimmed,
};
use crate::table::expr::compile::BytesFn;
use crate::table::expr::compile::{
    Compiled, Eval, bool_fn, bytes_fn, decimal_fn, double_fn, long_fn, text,
};
use crate::table::text::number;
use crate::table::text::number::Fraction;
use crate::table::types::{DataType, Physical};

/// Compiles a cast from STRING. A cast to STRING or BINARY returns the bytes unchanged.
pub(super) fn from_text(f: BytesFn, to: DataType, on_error: OnError, zone: Tz) -> Compiled {
    match to.physical() {
        // A text that is not an interval is NULL, also in ANSI mode.
        Physical::Bytes if to == DataType::CalendarInterval => bytes_fn(move |cx| {
            let Some(bytes) = f(cx)? else { return Ok(None) };
            let interval = CalendarInterval::parse(text(bytes));
            Ok(interval.map(|interval| &*cx.arena.alloc(interval.to_bytes()) as &[u8]))
        }),
        Physical::Bytes => Compiled::Bytes(f),
        Physical::Bool => bool_fn(move |cx| {
            let Some(bytes) = f(cx)? else { return Ok(None) };
            soften(parse_bool(text(bytes)), on_error)
        }),
        Physical::Long => {
            let fraction = match on_error {
                OnError::Wrap => Fraction::Dropped,
                OnError::Fail | OnError::Null => Fraction::Refused,
            };
            long_fn(move |cx| {
                let Some(bytes) = f(cx)? else { return Ok(None) };
                soften(parse_long(text(bytes), &to, zone, fraction), on_error)
            })
        }
        Physical::Double => double_fn(move |cx| {
            let Some(bytes) = f(cx)? else { return Ok(None) };
            match number::double(text(bytes), &to) {
                Some(value) => Ok(Some(value)),
                None => soften(invalid(text(bytes), &to), on_error),
            }
        }),
        Physical::Decimal => decimal_fn(move |cx| {
            let Some(bytes) = f(cx)? else { return Ok(None) };
            soften(number::decimal(text(bytes), &to), on_error)
        }),
    }
}

fn parse_bool(value: &str) -> Eval<bool> {
    match trimmed(value).to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "1" => Ok(Some(true)),
        "f" | "false" | "n" | "no" | "0" => Ok(Some(false)),
        _ => invalid(value, &DataType::Boolean),
    }
}

fn parse_long(value: &str, to: &DataType, zone: Tz, fraction: Fraction) -> Eval<i64> {
    let parsed = match to {
        DataType::Date => parse_date(value),
        DataType::Timestamp => parse_timestamp(value, Some(zone)),
        DataType::TimestampNtz => parse_timestamp(value, None),
        DataType::Time(digits) => parse_time(value).map(|time| truncated(time, *digits)),
        to if to.is_interval() => interval::parse_shown(value, to),
        _ => number::integer(value, to, fraction),
    };
    parsed.map_or_else(|| invalid(value, to), |v| Ok(Some(v)))
}
