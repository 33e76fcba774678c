//! Functions that make dates, timestamps and intervals of numbers.

use super::interval::{WITHOUT_SUGGESTION, interval_or_overflow};
use super::{date_overflow, or_overflow, out_of_bounds, zone_of};
use crate::table::datetime::calendar::Date;
use crate::table::datetime::{DAY_US, SECOND_US, to_utc};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::expr::functions::registry::{
    Function, Typed, any_nullable, cells, typed, typed_or_null, unexpected,
};
use crate::table::types::{DataType, DataType as T};

pub(in crate::table::expr::functions) static FUNCTIONS: &[Function] = &[
    cells(
        "make_date",
        "make_date(year, month, day): the date of its parts",
        (3, 3),
        |n, a| typed_or_null(n, a, &[T::Int, T::Int, T::Int], T::Date),
        |a, _, _| {
            let days = made_date(a)?;
            match i32::try_from(days) {
                Ok(_) => Ok(Cell::Long(days)),
                Err(_) => date_overflow(),
            }
        },
    )
    .usage("3.0.0", "make_date(2024, 2, 29)", "2024-02-29"),
    cells(
        "make_timestamp",
        "make_timestamp(year, month, day, hour, minute, seconds[, zone]): the timestamp \
         of its parts",
        (6, 7),
        |n, a| time_parts(n, a, T::Timestamp),
        |a, call, _| {
            let zone = match a.get(6) {
                Some(name) => zone_of(name.text())?,
                None => call.semantics.zone,
            };
            or_overflow(made_timestamp(a)?.map(|local| to_utc(local, zone)))
        },
    )
    .usage("3.0.0", "make_timestamp(2024, 2, 29, 12, 30, 45.5)", "2024-02-29 12:30:45.5"),
    cells(
        "make_timestamp_ntz",
        "make_timestamp_ntz(year, month, day, hour, minute, seconds): the local \
         timestamp of its parts",
        (6, 6),
        |n, a| time_parts(n, a, T::TimestampNtz),
        |a, _, _| or_overflow(made_timestamp(a)?),
    )
    .usage("3.4.0", "make_timestamp_ntz(2024, 2, 29, 12, 30, 45)", "2024-02-29 12:30:45"),
    cells(
        "make_dt_interval",
        "make_dt_interval([days[, hours[, minutes[, seconds]]]]): an interval of days to seconds",
        (0, 4),
        |n, a| {
            let types = [T::Int, T::Int, T::Int, T::Decimal(18, 6)];
            typed(n, a, &types, T::DayTimeInterval(0, 3))
        },
        |a, _, _| {
            let part = |i: usize, unit: i64| {
                a.get(i).map_or(Some(0), |v| match v {
                    Cell::Decimal(v) => i64::try_from(*v).ok(),
                    v => v.long().checked_mul(unit),
                })
            };
            let parts = [(0, DAY_US), (1, 3600 * SECOND_US), (2, 60 * SECOND_US), (3, SECOND_US)];
            let total =
                parts.into_iter().try_fold(0i64, |sum, (i, unit)| sum.checked_add(part(i, unit)?));
            interval_or_overflow(total, &T::DayTimeInterval(0, 3), WITHOUT_SUGGESTION)
        },
    )
    .usage(
        "3.2.0",
        "make_dt_interval(1, 12, 30, 1.5)",
        "INTERVAL '1 12:30:01.5' DAY TO SECOND",
    ),
    cells(
        "make_ym_interval",
        "make_ym_interval([years[, months]]): an interval of years to months",
        (0, 2),
        |n, a| typed(n, a, &[T::Int, T::Int], T::YearMonthInterval(0, 1)),
        |a, _, _| {
            let part = |i: usize| a.get(i).map_or(0, |v| v.long());
            let months = Some(part(0) * 12 + part(1));
            interval_or_overflow(months, &T::YearMonthInterval(0, 1), WITHOUT_SUGGESTION)
        },
    )
    .usage("3.2.0", "make_ym_interval(1, 2)", "INTERVAL '1-2' YEAR TO MONTH"),
    cells(
        "timestamp_seconds",
        "timestamp_seconds(n): the timestamp n seconds after 1970-01-01",
        (1, 1),
        of_seconds,
        |a, call, _| {
            or_overflow(match a[0] {
                Cell::Double(v) if !v.is_finite() => return Ok(Cell::Null),
                Cell::Double(v) => Some((v * 1e6) as i64),
                Cell::Decimal(v) => return decimal_seconds(v, call.data_type(0)),
                v => v.long().checked_mul(SECOND_US),
            })
        },
    )
    .usage("3.1.0", "timestamp_seconds(86400)", "1970-01-02 00:00:00"),
    cells(
        "timestamp_millis",
        "timestamp_millis(n): the timestamp n milliseconds after 1970-01-01",
        (1, 1),
        |n, a| typed(n, a, &[T::Long], T::Timestamp),
        |a, _, _| or_overflow(a[0].long().checked_mul(1000)),
    )
    .usage("3.1.0", "timestamp_millis(86400500)", "1970-01-02 00:00:00.5"),
    cells(
        "timestamp_micros",
        "timestamp_micros(n): the timestamp n microseconds after 1970-01-01",
        (1, 1),
        |n, a| typed(n, a, &[T::Long], T::Timestamp),
        |a, _, _| Ok(a[0]),
    )
    .usage("3.1.0", "timestamp_micros(86400000000)", "1970-01-02 00:00:00"),
    cells(
        "date_from_unix_date",
        "date_from_unix_date(days): the date so many days after 1970-01-01",
        (1, 1),
        |n, a| typed(n, a, &[T::Int], T::Date),
        |a, _, _| Ok(a[0]),
    )
    .usage("3.1.0", "date_from_unix_date(1)", "1970-01-02"),
];

fn time_parts(name: &str, args: Vec<Resolved>, to: DataType) -> PlanResult<Typed> {
    let mut types = vec![T::Int; 5];
    types.extend([T::Decimal(16, 6), T::String]);
    typed_or_null(name, args, &types, to)
}

fn made_date(args: &[Cell<'_>]) -> Result<i64, Box<EvalError>> {
    let part = |i: usize| u32::try_from(args[i].long()).ok();
    let year = args[0].long();
    let date = match (part(1), part(2)) {
        (Some(month), Some(day)) if year.abs() <= 999_999_999 => Date::new(year, month, day),
        _ => None,
    };
    match date {
        Some(date) => Ok(date.days()),
        None => out_of_bounds("there is no such date"),
    }
}

/// Computes a timestamp from local date and time fields. `None` if the result overflows 64 bits. A
/// field that is out of range is an error.
fn made_timestamp(args: &[Cell<'_>]) -> Result<Option<i64>, Box<EvalError>> {
    let days = made_date(args)?;
    let (hour, minute, seconds) = (args[3].long(), args[4].long(), args[5].decimal());
    let minute_us = i128::from(60 * SECOND_US);
    if !(0..24).contains(&hour)
        || !(0..60).contains(&minute)
        || !(0..minute_us + 1_000_000).contains(&seconds)
    {
        return out_of_bounds("there is no such time");
    }
    if seconds > minute_us {
        return failed(
            "INVALID_FRACTION_OF_SECOND",
            "the second 60 has a fraction",
            "Only 60 itself is the next minute's first second",
        );
    }
    let time = i128::from(hour * 60 + minute) * minute_us + seconds;
    Ok(i64::try_from(i128::from(days) * i128::from(DAY_US) + time).ok())
}

/// Converts DECIMAL seconds to microseconds. More than six decimal places are an error.
fn decimal_seconds<'a>(value: i128, from: &DataType) -> Result<Cell<'a>, Box<EvalError>> {
    let scale = from.as_decimal().map_or(0, |(_, scale)| u32::from(scale));
    let unit = 10i128.pow(scale.saturating_sub(6));
    if value % unit != 0 {
        return failed(
            "NUMERIC_VALUE_OUT_OF_RANGE.WITHOUT_SUGGESTION",
            "the seconds have more than six digits behind the point",
            "Round them first",
        );
    }
    let micros = (value / unit).checked_mul(10i128.pow(6u32.saturating_sub(scale)));
    or_overflow(micros.and_then(|micros| i64::try_from(micros).ok()))
}

fn of_seconds(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let to = match &args[0].data_type {
        T::Float | T::Double => T::Double,
        decimal @ T::Decimal(..) => decimal.clone(),
        _ => T::Long,
    };
    let nullable = any_nullable(&args);
    let args = args.into_iter().map(|arg| {
        if !arg.data_type.is_numeric() && arg.data_type != T::Null {
            return Err(unexpected(name, "a number", &arg));
        }
        Ok(arg.coerce(&to))
    });
    Ok(Typed::new(args.collect::<PlanResult<_>>()?, T::Timestamp, nullable))
}
