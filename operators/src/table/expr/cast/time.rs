//! Casts between dates, timestamps, intervals and numbers.

use super::ansi::{OnError, invalid, overflow, soften};
use super::numeric::TWO_63;
use crate::table::datetime::time_of_day::{SECOND_NS, truncated};
use crate::table::datetime::{DAY_US, SECOND_US, Tz, interval, to_local, to_utc};
use crate::table::expr::compile::{Compiled, Eval, failed, long_fn};
use crate::table::text::java_double::double_text;
use crate::table::types::DataType;

pub(super) fn long_to_long(value: i64, from: &DataType, to: &DataType, zone: Tz) -> Eval<i64> {
    use DataType as T;
    Ok(Some(match (from, to) {
        (T::Date, T::Timestamp | T::TimestampNtz) => match value.checked_mul(DAY_US) {
            Some(micros) if *to == T::Timestamp => to_utc(micros, zone),
            Some(micros) => micros,
            None => {
                return failed(
                    "DATETIME_OVERFLOW",
                    format!("the date is out of the range of {to}"),
                    "",
                );
            }
        },
        (T::Timestamp, T::Date) => to_local(value, zone).div_euclid(DAY_US),
        (T::TimestampNtz, T::Date) => value.div_euclid(DAY_US),
        (T::Timestamp, T::TimestampNtz) => to_local(value, zone),
        (T::TimestampNtz, T::Timestamp) => to_utc(value, zone),
        (T::Timestamp, to) if to.is_integral() => {
            return long_to_long(value.div_euclid(SECOND_US), &T::Long, to, zone);
        }
        (T::Time(_), T::Time(digits)) => truncated(value, *digits),
        (T::Timestamp, T::Time(digits)) => {
            truncated(to_local(value, zone).rem_euclid(DAY_US) * 1000, *digits)
        }
        (T::TimestampNtz, T::Time(digits)) => truncated(value.rem_euclid(DAY_US) * 1000, *digits),
        (T::Time(_), to) if to.is_integral() => {
            return long_to_long(value / SECOND_NS, &T::Long, to, zone);
        }
        // Seconds have a fraction.
        (T::DayTimeInterval(..), T::DayTimeInterval(_, 3)) => value,
        (T::DayTimeInterval(..), T::DayTimeInterval(_, unit)) => {
            let unit = interval::unit_us(*unit);
            value / unit * unit
        }
        (T::YearMonthInterval(..), T::YearMonthInterval(_, 0)) => value / 12 * 12,
        (T::YearMonthInterval(..), T::YearMonthInterval(..)) => value,
        (T::DayTimeInterval(_, unit), to) if to.is_integral() => {
            return long_to_long(value / interval::unit_us(*unit), &T::Long, to, zone);
        }
        (T::YearMonthInterval(_, unit), to) if to.is_integral() => {
            return long_to_long(if *unit == 0 { value / 12 } else { value }, &T::Long, to, zone);
        }
        (_, T::DayTimeInterval(_, unit)) => match value.checked_mul(interval::unit_us(*unit)) {
            Some(micros) => micros,
            None => return overflow(value, to),
        },
        (_, T::YearMonthInterval(_, unit)) => {
            // Year-month intervals have 32 bits.
            match value.checked_mul(if *unit == 0 { 12 } else { 1 }).map(i32::try_from) {
                Some(Ok(months)) => i64::from(months),
                _ => return overflow(value, to),
            }
        }
        // Seconds outside the range of TIMESTAMP are clamped to its limits.
        (from, T::Timestamp) if from.is_integral() => value.saturating_mul(SECOND_US),
        _ => {
            let (low, high) = to.integral_range();
            if value < low || value > high {
                return overflow(value, to);
            }
            value
        }
    }))
}

/// Compiles a cast of a fractional number of seconds to TIMESTAMP. Fractions of a microsecond are
/// truncated. NaN and infinity are errors or NULL by `on_error`, and so are doubles out of range,
/// except that [`OnError::Wrap`] clamps them. Decimals out of range wrap around.
pub(super) fn to_timestamp(inner: Compiled, from: &DataType, on_error: OnError) -> Compiled {
    let scale = from.as_decimal().map_or(0, |(_, scale)| scale);
    match inner {
        Compiled::Decimal(f) => long_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            let value = of_34_digits(value);
            // In every mode, values outside the range of BIGINT are truncated to their lower 64
            // bits, as in Spark.
            let micros = match scale {
                0..=6 => value.wrapping_mul(10i128.pow(u32::from(6 - scale))),
                _ => value / 10i128.pow(u32::from(scale - 6)),
            };
            Ok(Some(micros as i64))
        }),
        other => {
            let f = other.double();
            long_fn(move |cx| {
                let Some(value) = f(cx)? else { return Ok(None) };
                let micros = value * 1e6;
                if !value.is_finite() {
                    return soften(invalid(&double_text(value), &DataType::Timestamp), on_error);
                }
                // Without ANSI mode, values out of range are clamped to the limits.
                if on_error != OnError::Wrap && micros.abs() >= TWO_63 {
                    return soften(overflow(value, &DataType::Timestamp), on_error);
                }
                Ok(Some(micros as i64))
            })
        }
    }
}

/// Rounds a decimal to 34 significant digits, half to even, as Spark's multiplication does.
fn of_34_digits(value: i128) -> i128 {
    const MOST: u128 = 10u128.pow(34);
    let mut unit = 1;
    while value.unsigned_abs() / unit >= MOST {
        unit *= 10;
    }
    let (kept, cut) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
    let up = cut * 2 > unit || (cut * 2 == unit && kept % 2 == 1);
    (kept + u128::from(up)) as i128 * unit as i128 * value.signum()
}
