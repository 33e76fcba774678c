//! Dates, timestamps and intervals. Fields of a timestamp are those of the session time zone.

use super::{
    Call, Function, Typed, any_nullable, called, cells, function, made, take, typed, typed_or_null,
    unexpected,
};
use crate::table::datetime::pattern::Pattern;
use crate::table::datetime::{
    DAY_US, SECOND_US, Tz, add_months, date_of_days, days_of_date, days_of_month, parse_date,
    parse_timestamp, to_local, to_utc, zone,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cast::arithmetic_overflow;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, bytes_fn, failed, long_fn, text};
use crate::table::expr::resolve::expect_type;
use crate::table::types::DataType;
use crate::table::value::Value;
use chrono::{Datelike, NaiveDate};

mod arithmetic;
mod units;

use DataType as T;
pub use arithmetic::arithmetic;
use arithmetic::shifted;
use units::{added, difference, months_between, truncated, truncated_date, unit_of};

type Date = fn(NaiveDate) -> i64;

const fn of_date(name: &'static str, help: &'static str, compile: super::Compile) -> Function {
    function(name, help, (1, 1), |n, a| typed(n, a, &[T::Date], T::Int), compile)
}

const fn of_clock(name: &'static str, help: &'static str, compile: super::CompileCall) -> Function {
    called(
        name,
        help,
        (1, 1),
        |n, a| typed(n, timestamp_first(a), &[T::Timestamp], T::Int),
        compile,
    )
}

/// Something else stands in its place when a query is lowered.
const fn of_now(name: &'static str, help: &'static str) -> Function {
    function(
        name,
        help,
        (0, 0),
        |_, args| Ok((args, T::Timestamp, false)),
        |_, _, _| long_fn(|_| Ok(None)),
    )
}

pub(super) static FUNCTIONS: &[Function] = &[
    of_now("current_timestamp", "current_timestamp() or now(): the time of the batch"),
    of_now("current_date", "current_date(): the day of the batch"),
    of_now("localtimestamp", "localtimestamp(): the local time of the batch"),
    of_date("year", "year(date)", |a, _, _| date_part(a, |d| i64::from(d.year()))),
    of_date("quarter", "quarter(date): 1 to 4", |a, _, _| {
        date_part(a, |d| i64::from(d.month0() / 3 + 1))
    }),
    of_date("month", "month(date): 1 to 12", |a, _, _| date_part(a, |d| i64::from(d.month()))),
    of_date("dayofmonth", "dayofmonth(date) or day(date)", |a, _, _| {
        date_part(a, |d| i64::from(d.day()))
    }),
    of_date("dayofyear", "dayofyear(date)", |a, _, _| date_part(a, |d| i64::from(d.ordinal()))),
    of_date("dayofweek", "dayofweek(date): Sunday is 1", |a, _, _| {
        date_part(a, |d| i64::from(d.weekday().num_days_from_sunday()) + 1)
    }),
    of_date("weekday", "weekday(date): Monday is 0", |a, _, _| {
        date_part(a, |d| i64::from(d.weekday().num_days_from_monday()))
    }),
    of_date("weekofyear", "weekofyear(date): of the ISO year", |a, _, _| {
        date_part(a, |d| i64::from(d.iso_week().week()))
    }),
    function(
        "yearofweek",
        "yearofweek(date): the ISO year",
        (1, 1),
        |n, a| typed(n, a, &[T::Date], T::Int),
        |a, _, _| date_part(a, |d| i64::from(d.iso_week().year())),
    ),
    of_clock("hour", "hour(timestamp)", |a, c| clock_part(a, &c, 3600 * SECOND_US, 24)),
    of_clock("minute", "minute(timestamp)", |a, c| clock_part(a, &c, 60 * SECOND_US, 60)),
    of_clock("second", "second(timestamp)", |a, c| clock_part(a, &c, SECOND_US, 60)),
    called(
        "second_fraction",
        "extract(SECOND FROM timestamp): with its fraction",
        (1, 1),
        |n, a| typed(n, timestamp_first(a), &[T::Timestamp], T::Decimal(8, 6)),
        |a, call| {
            let (local, [at]) = (local_time(&call, 0), take(a));
            let at = at.long();
            crate::table::expr::compile::decimal_fn(move |cx| {
                Ok(at(cx)?.map(|at| i128::from(local(at).rem_euclid(60 * SECOND_US))))
            })
        },
    ),
    cells(
        "monthname",
        "monthname(date): of three letters",
        (1, 1),
        |n, a| typed(n, a, &[T::Date], T::String),
        |a, _, arena| Ok(written(a[0].long(), "MMM", arena)),
    ),
    cells(
        "dayname",
        "dayname(date): of three letters",
        (1, 1),
        |n, a| typed(n, a, &[T::Date], T::String),
        |a, _, arena| Ok(written(a[0].long(), "EEE", arena)),
    ),
    cells(
        "date_add",
        "date_add(date, days)",
        (2, 2),
        |n, a| typed(n, a, &[T::Date, T::Int], T::Date),
        |a, _, _| or_overflow(day(a[0].long() + a[1].long())),
    ),
    cells(
        "date_sub",
        "date_sub(date, days)",
        (2, 2),
        |n, a| typed(n, a, &[T::Date, T::Int], T::Date),
        |a, _, _| or_overflow(day(a[0].long() - a[1].long())),
    ),
    cells(
        "date_diff",
        "date_diff(end, start): days from start to end",
        (2, 2),
        |n, a| typed(n, a, &[T::Date, T::Date], T::Int),
        |a, _, _| Ok(Cell::Long(a[0].long() - a[1].long())),
    ),
    cells(
        "add_months",
        "add_months(date, months)",
        (2, 2),
        |n, a| typed(n, a, &[T::Date, T::Int], T::Date),
        |a, _, _| or_overflow(add_months(a[0].long(), a[1].long())),
    ),
    cells(
        "months_between",
        "months_between(a, b[, rounded]): months from b to a",
        (2, 3),
        |n, a| {
            let types = [T::Timestamp, T::Timestamp, T::Boolean];
            typed(n, a, &types, T::Double)
        },
        |a, call, _| {
            let rounded = a.get(2).is_none_or(|r| r.bool());
            let zone = call.semantics.zone;
            let (a, b) = (to_local(a[0].long(), zone), to_local(a[1].long(), zone));
            Ok(months_between(a, b, rounded).map_or(Cell::Null, Cell::Double))
        },
    ),
    cells(
        "last_day",
        "last_day(date): of its month",
        (1, 1),
        |n, a| typed(n, a, &[T::Date], T::Date),
        |a, _, _| {
            let date = date_of_days(a[0].long());
            let days = date.and_then(|d| Some((d, days_of_month(d.year(), d.month())?)));
            let last = days.map(|(d, days)| a[0].long() + i64::from(days - d.day()));
            Ok(last.map_or(Cell::Null, Cell::Long))
        },
    ),
    cells(
        "next_day",
        "next_day(date, 'Mon'): the first such day after it",
        (2, 2),
        |n, a| typed_or_null(n, a, &[T::Date, T::String], T::Date),
        |a, _, _| match weekday_of(a[1].text()) {
            Some(day) => {
                let days = a[0].long();
                // 1970-01-01 was a Thursday.
                let ahead = (day - (days + 3)).rem_euclid(7);
                Ok(Cell::Long(days + if ahead == 0 { 7 } else { ahead }))
            }
            None => failed(
                "ILLEGAL_DAY_OF_WEEK",
                format!("'{}' is not a day of the week", a[1].text()),
                "Write 'Mon', 'MONDAY' or 'MO'",
            ),
        },
    ),
    cells(
        "make_date",
        "make_date(year, month, day)",
        (3, 3),
        |n, a| typed_or_null(n, a, &[T::Int, T::Int, T::Int], T::Date),
        |a, _, _| match made_date(a) {
            Some(days) => Ok(Cell::Long(days)),
            None => failed(
                "DATETIME_FIELD_OUT_OF_BOUNDS.WITHOUT_SUGGESTION",
                "there is no such date",
                "",
            ),
        },
    ),
    cells(
        "make_timestamp",
        "make_timestamp(year, month, day, hour, minute, seconds[, zone])",
        (6, 7),
        |n, a| {
            let int = T::Int;
            let types = [
                int.clone(),
                int.clone(),
                int.clone(),
                int.clone(),
                int,
                T::Decimal(16, 6),
                T::String,
            ];
            typed_or_null(n, a, &types, T::Timestamp)
        },
        |a, call, _| {
            let zone = match a.get(6) {
                Some(name) => zone_of(name.text())?,
                None => call.semantics.zone,
            };
            match made_timestamp(a) {
                Some(local) => Ok(Cell::Long(to_utc(local, zone))),
                None => out_of_bounds("there is no such time"),
            }
        },
    ),
    cells(
        "make_dt_interval",
        "make_dt_interval([days[, hours[, minutes[, seconds]]]])",
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
            or_overflow(total)
        },
    ),
    cells(
        "make_ym_interval",
        "make_ym_interval([years[, months]])",
        (0, 2),
        |n, a| typed(n, a, &[T::Int, T::Int], T::YearMonthInterval(0, 1)),
        |a, _, _| {
            let part = |i: usize| a.get(i).map_or(0, |v| v.long());
            Ok(Cell::Long(part(0) * 12 + part(1)))
        },
    ),
    cells(
        "date_trunc",
        "date_trunc('HOUR', timestamp): down to a unit; NULL for a word that is none",
        (2, 2),
        |n, mut a| {
            let to = if a[1].data_type == T::TimestampNtz { T::TimestampNtz } else { T::Timestamp };
            a[1] = expect_type(a[1].clone(), &to, "`date_trunc`")?;
            typed_or_null(n, a, &[T::String, to.clone()], to)
        },
        |a, call, _| {
            let ntz = call.to == T::TimestampNtz;
            let zone = if ntz { Tz::UTC } else { call.semantics.zone };
            Ok(truncated(a[0].text(), a[1].long(), zone).map_or(Cell::Null, Cell::Long))
        },
    ),
    cells(
        "trunc",
        "trunc(date, 'MONTH'): down to a unit; NULL for a word that is none",
        (2, 2),
        |n, a| typed_or_null(n, a, &[T::Date, T::String], T::Date),
        |a, _, _| {
            let days = truncated_date(a[1].text(), a[0].long());
            Ok(days.map_or(Cell::Null, Cell::Long))
        },
    ),
    called(
        "to_date",
        "to_date(text[, pattern])",
        (1, 2),
        |n, mut a| {
            if a.len() == 1 {
                return typed_or_null(n, a, &[T::Date], T::Date);
            }
            if a[0].data_type != T::String {
                a.truncate(1);
                return typed_or_null(n, a, &[T::Date], T::Date);
            }
            check_pattern(&a, 1)?;
            typed_or_null(n, a, &[T::String, T::String], T::Date)
        },
        |args, call| {
            if args.len() == 1 {
                let [a] = take(args);
                return a;
            }
            parsed(args, &call, |pattern, text, _| match pattern {
                Some(pattern) => pattern.date(text),
                None => parse_date(text),
            })
        },
    ),
    called("to_timestamp", "to_timestamp(text[, pattern])", (1, 2), to_timestamp, |args, call| {
        if args.len() == 1 && call.data_type(0) != &T::String {
            let [a] = take(args);
            return a;
        }
        parsed(args, &call, |pattern, text, zone| match pattern {
            Some(pattern) => pattern.timestamp(text, zone),
            None => parse_timestamp(text, Some(zone)),
        })
    }),
    called(
        "to_timestamp_ntz",
        "to_timestamp_ntz(text[, pattern])",
        (1, 2),
        |n, a| {
            check_pattern(&a, 1)?;
            typed_or_null(n, a, &[T::String, T::String], T::TimestampNtz)
        },
        |args, call| {
            parsed(args, &call, |pattern, text, _| match pattern {
                Some(pattern) => pattern.timestamp_ntz(text),
                None => parse_timestamp(text, None),
            })
        },
    ),
    called(
        "unix_timestamp",
        "unix_timestamp(timestamp) or unix_timestamp(text[, pattern]): seconds since 1970",
        (1, 2),
        |n, a| {
            check_pattern(&a, 1)?;
            match a[0].data_type {
                T::Timestamp | T::Date | T::TimestampNtz => {
                    typed_or_null(n, a, &[T::Timestamp, T::String], T::Long)
                }
                _ => typed_or_null(n, a, &[T::String, T::String], T::Long),
            }
        },
        |mut args, call| {
            if call.data_type(0) == &T::Timestamp {
                args.truncate(1);
                let [a] = take(args);
                let a = a.long();
                // Toward zero, as Spark has it also before 1970.
                return long_fn(move |cx| Ok(a(cx)?.map(|micros| micros / SECOND_US)));
            }
            let [micros] = take(vec![parsed(args, &call, |pattern, text, zone| {
                let written = Pattern::new("yyyy-MM-dd HH:mm:ss").ok();
                pattern.or(written.as_ref())?.timestamp(text, zone)
            })]);
            let micros = micros.long();
            long_fn(move |cx| Ok(micros(cx)?.map(|micros| micros / SECOND_US)))
        },
    ),
    cells(
        "from_unixtime",
        "from_unixtime(seconds[, pattern]): as text",
        (1, 2),
        |n, a| {
            check_pattern(&a, 1)?;
            typed(n, a, &[T::Long, T::String], T::String)
        },
        |a, call, arena| {
            let Some(micros) = a[0].long().checked_mul(SECOND_US) else {
                return arithmetic_overflow("the timestamp");
            };
            format(micros, a.get(1).map_or("yyyy-MM-dd HH:mm:ss", |p| p.text()), call, arena)
        },
    ),
    called(
        "date_format",
        "date_format(timestamp, pattern): as text",
        (2, 2),
        |n, a| {
            check_pattern(&a, 1)?;
            typed(n, timestamp_first(a), &[T::Timestamp, T::String], T::String)
        },
        date_format,
    ),
    cells(
        "timestamp_seconds",
        "timestamp_seconds(n): of seconds since 1970",
        (1, 1),
        of_seconds,
        |a, _, _| {
            or_overflow(match a[0] {
                Cell::Double(v) => Some((v * 1e6) as i64),
                Cell::Decimal(v) => i64::try_from(v).ok(),
                v => v.long().checked_mul(SECOND_US),
            })
        },
    ),
    cells(
        "timestamp_millis",
        "timestamp_millis(n): of milliseconds since 1970",
        (1, 1),
        |n, a| typed(n, a, &[T::Long], T::Timestamp),
        |a, _, _| or_overflow(a[0].long().checked_mul(1000)),
    ),
    cells(
        "timestamp_micros",
        "timestamp_micros(n): of microseconds since 1970",
        (1, 1),
        |n, a| typed(n, a, &[T::Long], T::Timestamp),
        |a, _, _| Ok(a[0]),
    ),
    cells(
        "unix_seconds",
        "unix_seconds(timestamp): since 1970, rounded down",
        (1, 1),
        |n, a| typed(n, a, &[T::Timestamp], T::Long),
        |a, _, _| Ok(Cell::Long(a[0].long().div_euclid(SECOND_US))),
    ),
    cells(
        "unix_millis",
        "unix_millis(timestamp): since 1970, rounded down",
        (1, 1),
        |n, a| typed(n, a, &[T::Timestamp], T::Long),
        |a, _, _| Ok(Cell::Long(a[0].long().div_euclid(1000))),
    ),
    cells(
        "unix_micros",
        "unix_micros(timestamp): since 1970",
        (1, 1),
        |n, a| typed(n, a, &[T::Timestamp], T::Long),
        |a, _, _| Ok(a[0]),
    ),
    cells(
        "unix_date",
        "unix_date(date): days since 1970-01-01",
        (1, 1),
        |n, a| typed(n, a, &[T::Date], T::Int),
        |a, _, _| Ok(a[0]),
    ),
    cells(
        "date_from_unix_date",
        "date_from_unix_date(days): of days since 1970-01-01",
        (1, 1),
        |n, a| typed(n, a, &[T::Int], T::Date),
        |a, _, _| Ok(a[0]),
    ),
    cells(
        "from_utc_timestamp",
        "from_utc_timestamp(timestamp, zone): the zone's clock at that UTC time",
        (2, 2),
        |n, a| typed(n, a, &[T::Timestamp, T::String], T::Timestamp),
        |a, _, _| Ok(Cell::Long(to_local(a[0].long(), zone_of(a[1].text())?))),
    ),
    cells(
        "to_utc_timestamp",
        "to_utc_timestamp(timestamp, zone): UTC at that time of the zone's clock",
        (2, 2),
        |n, a| typed(n, a, &[T::Timestamp, T::String], T::Timestamp),
        |a, _, _| Ok(Cell::Long(to_utc(a[0].long(), zone_of(a[1].text())?))),
    ),
    cells(
        "convert_timezone",
        "convert_timezone(from, to, timestamp_ntz): from one zone's clock to another's",
        (3, 3),
        |n, a| typed(n, a, &[T::String, T::String, T::TimestampNtz], T::TimestampNtz),
        |a, _, _| {
            let utc = to_utc(a[2].long(), zone_of(a[0].text())?);
            Ok(Cell::Long(to_local(utc, zone_of(a[1].text())?)))
        },
    ),
    cells(
        "current_timezone",
        "current_timezone(): the session time zone",
        (0, 0),
        |n, a| typed(n, a, &[], T::String),
        |_, call, arena| Ok(made(arena, call.semantics.zone.name())),
    ),
    cells(
        "timestampadd",
        "timestampadd(unit, n, timestamp)",
        (3, 3),
        |n, a| {
            unit_of(&a[0])?;
            let to = if a[2].data_type == T::TimestampNtz { T::TimestampNtz } else { T::Timestamp };
            typed(n, a, &[T::String, T::Int, to.clone()], to)
        },
        |a, call, _| {
            let zone = zone_of_type(&call.to, call.semantics.zone);
            or_overflow(added(a[0].text(), a[1].long(), a[2].long(), zone))
        },
    ),
    cells(
        "timestampdiff",
        "timestampdiff(unit, start, end): whole units between them",
        (3, 3),
        |n, a| {
            unit_of(&a[0])?;
            typed(n, a, &[T::String, T::Timestamp, T::Timestamp], T::Long)
        },
        |a, call, _| {
            let found = difference(a[0].text(), a[1].long(), a[2].long(), call.semantics.zone);
            Ok(found.map_or(Cell::Null, Cell::Long))
        },
    ),
    called("datetime_add", "a + interval", (2, 2), internal, |a, c| shifted(a, &c, 1)),
    called("datetime_subtract", "a - interval", (2, 2), internal, |a, c| shifted(a, &c, -1)),
    cells("datetime_between", "a - b", (2, 2), internal, |a, call, _| {
        let unit = if call.to == T::DayTimeInterval(0, 0) { DAY_US } else { 1 };
        let zone = call.semantics.zone;
        let local = |i: usize| match call.data_type(i) {
            T::Timestamp => to_local(a[i].long(), zone),
            _ => a[i].long(),
        };
        or_overflow(local(0).checked_sub(local(1)).and_then(|n| n.checked_mul(unit)))
    }),
    cells("interval_add", "interval + interval", (2, 2), internal, |a, _, _| {
        or_overflow(a[0].long().checked_add(a[1].long()))
    }),
    cells("interval_subtract", "interval - interval", (2, 2), internal, |a, _, _| {
        or_overflow(a[0].long().checked_sub(a[1].long()))
    }),
    cells("interval_negative", "- interval", (1, 1), internal, |a, _, _| {
        or_overflow(a[0].long().checked_neg())
    }),
    cells("interval_multiply", "interval * n", (2, 2), internal, |a, _, _| {
        Ok(Cell::Long(match a[1] {
            Cell::Long(n) => return or_overflow(a[0].long().checked_mul(n)),
            other => (a[0].long() as f64 * other.double()).round() as i64,
        }))
    }),
    cells("interval_divide", "interval / n", (2, 2), internal, |a, _, _| {
        let by = match a[1] {
            Cell::Long(n) => n as f64,
            other => other.double(),
        };
        if by == 0.0 {
            return failed("INTERVAL_DIVIDED_BY_ZERO", "division by zero", "Use nullif(n, 0)");
        }
        Ok(Cell::Long(match a[1] {
            // Exactly, half away from zero.
            Cell::Long(n) => {
                let (a, n) = (i128::from(a[0].long()), i128::from(n));
                let (whole, rest) = (a / n, a % n);
                let up = rest.abs() * 2 >= n.abs();
                (whole + if up { (a.signum()) * n.signum() } else { 0 }) as i64
            }
            _ => (a[0].long() as f64 / by).round() as i64,
        }))
    }),
];

fn internal(name: &str, _: Vec<Resolved>) -> PlanResult<Typed> {
    Err(PlanError::new("UNRESOLVED_ROUTINE", format!("`{name}` is internal"), "Write a + b"))
}

/// A first argument that is no timestamp is cast to one, unless it has no zone.
fn timestamp_first(mut args: Vec<Resolved>) -> Vec<Resolved> {
    if args[0].data_type == T::TimestampNtz {
        args[0] = args[0].clone().coerce(&T::Timestamp);
    }
    args
}

fn date_part(args: Vec<Compiled>, part: Date) -> Compiled {
    let [a] = take(args);
    let a = a.long();
    long_fn(move |cx| Ok(a(cx)?.and_then(date_of_days).map(part)))
}

fn local_time(call: &Call, _: usize) -> impl Fn(i64) -> i64 + Send + use<> {
    let zone = call.semantics.zone;
    move |at| to_local(at, zone)
}

fn clock_part(args: Vec<Compiled>, call: &Call, unit_us: i64, most: i64) -> Compiled {
    let (local, [a]) = (local_time(call, 0), take(args));
    let a = a.long();
    long_fn(move |cx| Ok(a(cx)?.map(|at| local(at).div_euclid(unit_us).rem_euclid(most))))
}

/// A day number, if it is one of a date.
fn day(days: i64) -> Option<i64> {
    i32::try_from(days).ok().map(i64::from)
}

fn or_overflow<'a>(value: Option<i64>) -> Result<Cell<'a>, Box<EvalError>> {
    match value {
        Some(value) => Ok(Cell::Long(value)),
        None => arithmetic_overflow("the date, time or interval"),
    }
}

fn out_of_bounds<'a>(reason: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed("DATETIME_FIELD_OUT_OF_BOUNDS.WITH_SUGGESTION", reason, "Use try_make_timestamp")
}

fn zone_of(name: &str) -> Result<Tz, Box<EvalError>> {
    match zone(name) {
        Ok(zone) => Ok(zone),
        Err(error) => {
            failed("INVALID_TIMEZONE", error.reason, "Use a region such as Europe/Berlin")
        }
    }
}

fn zone_of_type(data_type: &DataType, session: Tz) -> Tz {
    if *data_type == T::Timestamp { session } else { Tz::UTC }
}

fn written<'a>(days: i64, pattern: &str, arena: &'a bumpalo::Bump) -> Cell<'a> {
    let mut out = String::new();
    if let Ok(pattern) = Pattern::new(pattern) {
        pattern.text(days.saturating_mul(DAY_US), Tz::UTC, &mut out);
    }
    made(arena, &out)
}

fn weekday_of(name: &str) -> Option<i64> {
    let days = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];
    let name = name.trim().to_ascii_uppercase();
    let found = days.iter().position(|day| *day == name || day[..2] == name || day[..3] == name);
    found.map(|at| at as i64)
}

fn made_date(args: &[Cell<'_>]) -> Option<i64> {
    let year = i32::try_from(args[0].long()).ok()?;
    let (month, day) = (u32::try_from(args[1].long()).ok()?, u32::try_from(args[2].long()).ok()?);
    NaiveDate::from_ymd_opt(year, month, day).map(days_of_date)
}

fn made_timestamp(args: &[Cell<'_>]) -> Option<i64> {
    let midnight = made_date(args)? * DAY_US;
    let (hour, minute) = (args[3].long(), args[4].long());
    let seconds = i64::try_from(args[5].decimal()).ok()?;
    // A second 60 without a fraction is the next minute's first.
    let fits = (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60 * SECOND_US).contains(&seconds);
    fits.then(|| midnight + (hour * 60 + minute) * 60 * SECOND_US + seconds)
}

fn check_pattern(args: &[Resolved], index: usize) -> PlanResult<()> {
    match args.get(index).and_then(Resolved::literal_text).map(Pattern::new) {
        Some(Err(reason)) => Err(PlanError::new(
            "INVALID_DATETIME_PATTERN",
            reason,
            "Write a pattern like yyyy-MM-dd HH:mm:ss; text stands in single quotes",
        )),
        _ => Ok(()),
    }
}

fn to_timestamp(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    check_pattern(&args, 1)?;
    if args[0].data_type.is_datetime() || args[0].data_type.is_numeric() {
        let cast = crate::table::expr::resolve::cast(args[0].clone(), &T::Timestamp, false)?;
        return Ok((vec![cast], T::Timestamp, true));
    }
    typed_or_null(name, args, &[T::String, T::String], T::Timestamp)
}

/// Reads text by a pattern, which is prepared once where it is constant.
fn parsed(
    args: Vec<Compiled>,
    call: &Call,
    read: fn(Option<&Pattern>, &str, Tz) -> Option<i64>,
) -> Compiled {
    let fixed = call.text(1).and_then(|text| Pattern::new(text).ok());
    let zone = call.semantics.zone;
    let mut args = args.into_iter().map(Compiled::bytes);
    let (Some(value), pattern) = (args.next(), args.next()) else { unreachable!("counted") };
    let to = call.to.clone();
    long_fn(move |cx| {
        let Some(bytes) = value(cx)? else { return Ok(None) };
        let made;
        let pattern = match (&fixed, &pattern) {
            (Some(fixed), _) => Some(fixed),
            (None, None) => None,
            (None, Some(pattern)) => {
                let Some(pattern) = pattern(cx)? else { return Ok(None) };
                match Pattern::new(text(pattern)) {
                    Ok(pattern) => {
                        made = pattern;
                        Some(&made)
                    }
                    Err(reason) => return failed("INVALID_DATETIME_PATTERN", reason, ""),
                }
            }
        };
        match read(pattern, text(bytes), zone) {
            Some(value) => Ok(Some(value)),
            None => failed(
                if pattern.is_some() { "CANNOT_PARSE_TIMESTAMP" } else { "CAST_INVALID_INPUT" },
                format!("'{}' cannot be read as {to}", text(bytes)),
                "Use try_to_timestamp to get NULL instead",
            ),
        }
    })
}

fn format<'a>(
    micros: i64,
    pattern: &str,
    call: &Call,
    arena: &'a bumpalo::Bump,
) -> Result<Cell<'a>, Box<EvalError>> {
    match Pattern::new(pattern) {
        Ok(pattern) => {
            let mut out = String::new();
            pattern.text(micros, call.semantics.zone, &mut out);
            Ok(made(arena, &out))
        }
        Err(reason) => failed("INVALID_DATETIME_PATTERN", reason, ""),
    }
}

fn date_format(args: Vec<Compiled>, call: Call) -> Compiled {
    let fixed = call.text(1).and_then(|text| Pattern::new(text).ok());
    let zone = call.semantics.zone;
    let [at, pattern] = take(args);
    let (at, pattern) = (at.long(), pattern.bytes());
    bytes_fn(move |cx| {
        let (Some(at), Some(written)) = (at(cx)?, pattern(cx)?) else { return Ok(None) };
        let made = match &fixed {
            Some(_) => None,
            None => match Pattern::new(text(written)) {
                Ok(pattern) => Some(pattern),
                Err(reason) => return failed("INVALID_DATETIME_PATTERN", reason, ""),
            },
        };
        let mut out = String::new();
        if let Some(pattern) = fixed.as_ref().or(made.as_ref()) {
            pattern.text(at, zone, &mut out);
        }
        Ok(Some(cx.arena.alloc_str(&out).as_bytes()))
    })
}

fn of_seconds(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let to = match &args[0].data_type {
        T::Float | T::Double => T::Double,
        T::Decimal(..) => T::Decimal(38, 6),
        _ => T::Long,
    };
    let nullable = any_nullable(&args);
    let args = args.into_iter().map(|arg| {
        if !arg.data_type.is_numeric() && arg.data_type != T::Null {
            return Err(unexpected(name, "a number", &arg));
        }
        Ok(arg.coerce(&to))
    });
    Ok((args.collect::<PlanResult<_>>()?, T::Timestamp, nullable))
}

/// `extract(field FROM source)`.
pub fn extract(field: &str, source: Resolved) -> PlanResult<Resolved> {
    let name = match field.to_ascii_uppercase().as_str() {
        "YEAR" | "Y" | "YEARS" | "YR" | "YRS" => "year",
        "YEAROFWEEK" => "yearofweek",
        "QUARTER" | "QTR" => "quarter",
        "MONTH" | "MON" | "MONS" | "MONTHS" => "month",
        "WEEK" | "W" | "WEEKS" => "weekofyear",
        "DAY" | "D" | "DAYS" => "dayofmonth",
        "DAYOFWEEK" | "DOW" => "dayofweek",
        "DAYOFWEEK_ISO" | "DOW_ISO" => {
            let day = super::resolve("weekday", vec![source])?;
            let one = Resolved::literal(Value::Long(1), T::Int);
            return super::resolve("+", vec![day, one]);
        }
        "DOY" => "dayofyear",
        "HOUR" | "H" | "HOURS" | "HR" | "HRS" => "hour",
        "MINUTE" | "M" | "MIN" | "MINS" | "MINUTES" => "minute",
        "SECOND" | "S" | "SEC" | "SECONDS" | "SECS" => "second_fraction",
        _ => {
            return Err(PlanError::new(
                "INVALID_EXTRACT_FIELD",
                format!("`{field}` cannot be extracted from {}", source.data_type),
                "Fields: YEAR, QUARTER, MONTH, WEEK, DAY, DOW, DOY, HOUR, MINUTE, SECOND",
            ));
        }
    };
    super::resolve(name, vec![source])
}
