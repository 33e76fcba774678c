//! Functions on dates, timestamps and intervals. Fields of a TIMESTAMP are in the session time
//! zone.

use super::registry::{
    Call, Function, Typed, called, cells, function, made, take, typed, typed_or_null, unexpected,
};
use crate::table::datetime::calendar::{Date, days_of_month};
use crate::table::datetime::pattern::Unread;
use crate::table::datetime::{
    DAY_US, SECOND_US, Special, Tz, add_months, parse_date, parse_timestamp, to_local, to_utc, zone,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cast::arithmetic_overflow;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, failed, long_fn};
use crate::table::expr::resolve::cast;
use crate::table::types::DataType;
use crate::table::value::Value;

mod arithmetic;
mod bucket;
mod calendar_interval;
mod extract;
mod interval;
mod made;
mod patterns;
mod sequence;
mod time_type;
mod units;

use DataType as T;
pub use arithmetic::arithmetic;
pub use extract::extract;
pub use patterns::to_timestamp_without_zone;
use patterns::{
    DAY_NAME, MONTH_NAME, PLAIN_READ, by_cast, date_format, parsed, to_timestamp, written,
};
pub use sequence::{sequence, sequence_types};
use units::{added, cut, difference, months_between, truncated, truncated_date, unit_of};

type DatePart = fn(Date) -> i64;

const fn of_date(
    name: &'static str,
    help: &'static str,
    compile: super::registry::Compile,
) -> Function {
    function(name, help, (1, 1), |n, a| typed(n, a, &[T::Date], T::Int), compile)
}

const fn of_clock(
    name: &'static str,
    help: &'static str,
    compile: super::registry::CompileCall,
) -> Function {
    called(name, help, (1, 1), |n, a| on_clock(n, a, T::Int), compile)
}

/// Declares a function of the current time. Physical planning replaces its calls by the batch's
/// timestamp.
const fn of_now(name: &'static str, help: &'static str) -> Function {
    function(
        name,
        help,
        (0, 0),
        |_, args| Ok(Typed::new(args, T::Timestamp, false)),
        |_, _, _| long_fn(|_| Ok(None)),
    )
}

pub(super) use calendar_interval::FUNCTIONS as CALENDAR_INTERVAL_FUNCTIONS;
pub(super) use interval::FUNCTIONS as INTERVAL_FUNCTIONS;
pub(super) use made::FUNCTIONS as MADE_FUNCTIONS;
pub(super) use time_type::{FUNCTIONS as TIME_FUNCTIONS, current_time, of_time};

pub(super) static FUNCTIONS: &[Function] =
    &[
        of_now("current_timestamp", "current_timestamp() or now(): the time of the batch").usage(
            "1.5.0",
            "current_timestamp() = now()",
            "true",
        ),
        of_now("current_date", "current_date(): the day of the batch").usage(
            "1.5.0",
            "current_date() = to_date(now())",
            "true",
        ),
        of_now("localtimestamp", "localtimestamp(): the local time of the batch").usage(
            "3.4.0",
            "localtimestamp() = to_timestamp_ntz(now())",
            "true",
        ),
        of_date("year", "year(date): the year of a date", |a, _, _| date_part(a, |d| d.year))
            .usage("1.5.0", "year('2024-02-29')", "2024"),
        of_date("quarter", "quarter(date): 1 to 4", |a, _, _| date_part(a, Date::quarter)).usage(
            "1.5.0",
            "quarter('2024-08-31')",
            "3",
        ),
        of_date("month", "month(date): 1 to 12", |a, _, _| date_part(a, |d| i64::from(d.month)))
            .usage("1.5.0", "month('2024-02-29')", "2"),
        of_date("dayofmonth", "dayofmonth(date) or day(date): 1 to 31", |a, _, _| {
            date_part(a, |d| i64::from(d.day))
        })
        .usage("1.5.0", "dayofmonth('2024-02-29')", "29"),
        of_date("dayofyear", "dayofyear(date): 1 to 366", |a, _, _| date_part(a, Date::ordinal))
            .usage("1.5.0", "dayofyear('2024-03-01')", "61"),
        of_date("dayofweek", "dayofweek(date): Sunday is 1", |a, _, _| {
            date_part(a, |d| (d.weekday() + 1) % 7 + 1)
        })
        .usage("2.3.0", "dayofweek('2024-02-29')", "5"),
        of_date("weekday", "weekday(date): Monday is 0", |a, _, _| date_part(a, Date::weekday))
            .usage("2.4.0", "weekday('2024-02-29')", "3"),
        of_date("weekofyear", "weekofyear(date): of the ISO year", |a, _, _| {
            date_part(a, |d| d.iso_week().1)
        })
        .usage("1.5.0", "weekofyear('2024-02-29')", "9"),
        function(
            "datetime_yearofweek",
            "extract(YEAROFWEEK FROM date): the ISO year",
            (1, 1),
            |n, a| typed(n, a, &[T::Date], T::Int),
            |a, _, _| date_part(a, |d| d.iso_week().0),
        ),
        of_clock("hour", "hour(timestamp): 0 to 23", |a, c| {
            clock_part(a, &c, 3600 * SECOND_US, 24)
        })
        .usage("1.5.0", "hour('2024-02-29 12:58:59')", "12"),
        of_clock("minute", "minute(timestamp): 0 to 59", |a, c| {
            clock_part(a, &c, 60 * SECOND_US, 60)
        })
        .usage("1.5.0", "minute('2024-02-29 12:58:59')", "58"),
        of_clock("second", "second(timestamp): 0 to 59", |a, c| clock_part(a, &c, SECOND_US, 60))
            .usage("1.5.0", "second('2024-02-29 12:58:59')", "59"),
        called(
            "second_fraction",
            "extract(SECOND FROM timestamp): with its fraction",
            (1, 1),
            |n, a| on_clock(n, a, T::Decimal(8, 6)),
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
            |a, _, arena| Ok(written(a[0].long(), &MONTH_NAME, arena)),
        )
        .usage("4.0.0", "monthname('2024-02-29')", "Feb"),
        cells(
            "dayname",
            "dayname(date): of three letters",
            (1, 1),
            |n, a| typed(n, a, &[T::Date], T::String),
            |a, _, arena| Ok(written(a[0].long(), &DAY_NAME, arena)),
        )
        .usage("4.0.0", "dayname('2024-02-29')", "Thu"),
        cells(
            "date_add",
            "date_add(date, days): the date so many days later",
            (2, 2),
            with_days,
            |a, _, _| Ok(Cell::Long(day(a[0].long() + a[1].long()))),
        )
        .usage("1.5.0", "date_add('2024-02-28', 2)", "2024-03-01"),
        cells(
            "date_sub",
            "date_sub(date, days): the date so many days earlier",
            (2, 2),
            with_days,
            |a, _, _| Ok(Cell::Long(day(a[0].long() - a[1].long()))),
        )
        .usage("1.5.0", "date_sub('2024-03-01', 1)", "2024-02-29"),
        cells(
            "date_diff",
            "date_diff(end, start): days from start to end",
            (2, 2),
            |n, a| typed(n, a, &[T::Date, T::Date], T::Int),
            |a, _, _| Ok(Cell::Long(day(a[0].long() - a[1].long()))),
        )
        .usage("3.4.0", "date_diff('2024-03-01', '2024-02-28')", "2"),
        cells(
            "add_months",
            "add_months(date, months): the same day so many months later, or the last of a \
         shorter month",
            (2, 2),
            |n, a| typed(n, a, &[T::Date, T::Int], T::Date),
            |a, _, _| match add_months(a[0].long(), a[1].long()) {
                Some(days) => Ok(Cell::Long(days)),
                None => date_overflow(),
            },
        )
        .usage("1.5.0", "add_months('2024-01-31', 1)", "2024-02-29"),
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
                let months = months_between(a[0].long(), a[1].long(), rounded, call.semantics.zone);
                Ok(Cell::Double(months))
            },
        )
        .usage("1.5.0", "months_between('2024-03-31', '2024-01-31')", "2.0"),
        cells(
            "last_day",
            "last_day(date): the last day of its month",
            (1, 1),
            |n, a| typed(n, a, &[T::Date], T::Date),
            |a, _, _| {
                let date = Date::of_days(a[0].long());
                let left = days_of_month(date.year, date.month) - date.day;
                Ok(Cell::Long(day(a[0].long() + i64::from(left))))
            },
        )
        .usage("1.5.0", "last_day('2024-02-03')", "2024-02-29"),
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
        )
        .usage("1.5.0", "next_day('2024-02-29', 'Mon')", "2024-03-04"),
        called(
            "time_bucket",
            "time_bucket(length, timestamp[, origin]): the start of the bucket of this length",
            (2, 3),
            bucket::resolve,
            bucket::compile,
        )
        .usage(
            "4.2.0",
            "time_bucket(INTERVAL '15' MINUTE, TIMESTAMP'2024-02-29 11:27:00')",
            "2024-02-29 11:15:00",
        ),
        called(
            "date_trunc",
            "date_trunc('HOUR', timestamp): down to a unit; NULL for a word that is none",
            (2, 2),
            // As in Spark, a TIMESTAMP_NTZ is cast to TIMESTAMP first. So the cast moves a local time
            // that a clock change skips.
            |n, a| typed_or_null(n, a, &[T::String, T::Timestamp], T::Timestamp),
            |args, call| {
                let [unit, time] = take(args);
                let zone = call.semantics.zone;
                cut(unit, time, move |unit, at| truncated(unit, at, zone))
            },
        )
        .usage("2.3.0", "date_trunc('HOUR', '2024-02-29 12:58:59')", "2024-02-29 12:00:00"),
        called(
            "trunc",
            "trunc(date, 'MONTH'): down to a unit; NULL for a word that is none",
            (2, 2),
            |n, a| typed_or_null(n, a, &[T::Date, T::String], T::Date),
            |args, _| {
                let [date, unit] = take(args);
                cut(unit, date, truncated_date)
            },
        )
        .usage("1.5.0", "trunc('2024-02-29', 'MONTH')", "2024-02-01"),
        called(
            "to_date",
            "to_date(text[, pattern]): the date that the text holds",
            (1, 2),
            |n, mut a| {
                // Any other type is cast to STRING, and the text is parsed.
                if !matches!(a[0].data_type, T::Date | T::Timestamp | T::TimestampNtz | T::Null) {
                    let text = super::registry::expect(n, vec![a.remove(0)], &[T::String])?;
                    a.splice(0..0, text);
                }
                if a.len() == 1 || a[0].data_type != T::String {
                    a.truncate(1);
                    return by_cast(n, a, &T::Date);
                }
                typed_or_null(n, a, &[T::String, T::String], T::Date)
            },
            |args, call| {
                if args.len() == 1 {
                    let [a] = take(args);
                    return a;
                }
                // A timestamp in another time zone may fall on another day in the session time zone.
                parsed(args, &call, |pattern, text, zone| match pattern {
                    Some(pattern) => {
                        let at = pattern.read_timestamp(text, zone)?;
                        Ok(to_local(at, zone).div_euclid(DAY_US))
                    }
                    None => parse_date(text).ok_or(Unread::NoMatch),
                })
            },
        )
        .usage("1.5.0", "to_date('29.02.2024', 'dd.MM.yyyy')", "2024-02-29"),
        called(
            "to_timestamp",
            "to_timestamp(text[, pattern]): the timestamp that the text holds",
            (1, 2),
            to_timestamp,
            |args, call| {
                if args.len() == 1 {
                    let [a] = take(args);
                    return a;
                }
                parsed(args, &call, |pattern, text, zone| match pattern {
                    Some(pattern) => pattern.read_timestamp(text, zone),
                    None => parse_timestamp(text, Some(zone)).ok_or(Unread::NoMatch),
                })
            },
        )
        .usage("2.2.0", "to_timestamp('2024-02-29 12:30:00')", "2024-02-29 12:30:00"),
        called(
            "to_timestamp_ntz",
            "to_timestamp_ntz(text[, pattern]): the local timestamp that the text holds",
            (1, 2),
            |n, a| typed_or_null(n, a, &[T::String, T::String], T::TimestampNtz),
            |args, call| {
                parsed(args, &call, |pattern, text, _| match pattern {
                    Some(pattern) => pattern.read_timestamp_ntz(text),
                    None => parse_timestamp(text, None).ok_or(Unread::NoMatch),
                })
            },
        )
        .usage("3.4.0", "to_timestamp_ntz('2024-02-29 12:30:00')", "2024-02-29 12:30:00"),
        called(
            "unix_timestamp",
            "unix_timestamp(timestamp) or unix_timestamp(text[, pattern]): seconds since 1970",
            (1, 2),
            |n, a| match a[0].data_type {
                T::TimestampNtz => typed_or_null(n, a, &[T::TimestampNtz, T::String], T::Long),
                T::Timestamp | T::Date => typed_or_null(n, a, &[T::Timestamp, T::String], T::Long),
                _ => typed_or_null(n, a, &[T::String, T::String], T::Long),
            },
            |mut args, call| {
                if call.data_type(0).is_datetime() {
                    args.truncate(1);
                    let [a] = take(args);
                    let a = a.long();
                    // Rounds toward zero also before 1970, as Spark does.
                    return long_fn(move |cx| Ok(a(cx)?.map(|micros| micros / SECOND_US)));
                }
                let [micros] = take(vec![parsed(args, &call, |pattern, text, zone| {
                    pattern
                        .or(PLAIN_READ.as_ref())
                        .ok_or(Unread::NoMatch)?
                        .read_timestamp(text, zone)
                })]);
                let micros = micros.long();
                long_fn(move |cx| Ok(micros(cx)?.map(|micros| micros / SECOND_US)))
            },
        )
        .usage("1.5.0", "unix_timestamp('1970-01-02', 'yyyy-MM-dd')", "86400"),
        called(
            "from_unixtime",
            "from_unixtime(seconds[, pattern]): as text",
            (1, 2),
            |n, a| typed(n, a, &[T::Long, T::String], T::String),
            date_format,
        )
        .usage("1.5.0", "from_unixtime(86400, 'yyyy-MM-dd')", "1970-01-02"),
        called(
            "date_format",
            "date_format(timestamp, pattern): as text",
            (2, 2),
            |n, a| typed(n, timestamp_first(a), &[T::Timestamp, T::String], T::String),
            date_format,
        )
        .usage("1.5.0", "date_format('2024-02-29', 'dd.MM.yy')", "29.02.24"),
        cells(
            "unix_seconds",
            "unix_seconds(timestamp): seconds since 1970-01-01, rounded down",
            (1, 1),
            |n, a| on_clock(n, a, T::Long),
            |a, _, _| Ok(Cell::Long(a[0].long().div_euclid(SECOND_US))),
        )
        .usage("3.1.0", "unix_seconds(timestamp('1970-01-02 00:00:00Z'))", "86400"),
        cells(
            "unix_millis",
            "unix_millis(timestamp): milliseconds since 1970-01-01, rounded down",
            (1, 1),
            |n, a| on_clock(n, a, T::Long),
            |a, _, _| Ok(Cell::Long(a[0].long().div_euclid(1000))),
        )
        .usage("3.1.0", "unix_millis(timestamp('1970-01-01 00:00:01.5Z'))", "1500"),
        cells(
            "unix_micros",
            "unix_micros(timestamp): microseconds since 1970-01-01",
            (1, 1),
            |n, a| on_clock(n, a, T::Long),
            |a, _, _| Ok(a[0]),
        )
        .usage("3.1.0", "unix_micros(timestamp('1970-01-01 00:00:01.5Z'))", "1500000"),
        cells(
            "unix_date",
            "unix_date(date): days since 1970-01-01",
            (1, 1),
            |n, a| typed(n, a, &[T::Date], T::Int),
            |a, _, _| Ok(a[0]),
        )
        .usage("3.1.0", "unix_date(date('1970-01-02'))", "1"),
        cells(
            "from_utc_timestamp",
            "from_utc_timestamp(timestamp, zone): the zone's clock at that UTC time",
            (2, 2),
            |n, a| typed(n, a, &[T::Timestamp, T::String], T::Timestamp),
            |a, _, _| Ok(Cell::Long(to_local(a[0].long(), zone_of(a[1].text())?))),
        )
        .usage(
            "1.5.0",
            "from_utc_timestamp('2024-08-31 12:00:00', 'Asia/Seoul')",
            "2024-08-31 21:00:00",
        ),
        cells(
            "to_utc_timestamp",
            "to_utc_timestamp(timestamp, zone): UTC at that time of the zone's clock",
            (2, 2),
            |n, a| typed(n, a, &[T::Timestamp, T::String], T::Timestamp),
            |a, _, _| Ok(Cell::Long(to_utc(a[0].long(), zone_of(a[1].text())?))),
        )
        .usage(
            "1.5.0",
            "to_utc_timestamp('2024-08-31 12:00:00', 'Asia/Seoul')",
            "2024-08-31 03:00:00",
        ),
        cells(
            "convert_timezone",
            "convert_timezone([from,] to, timestamp_ntz): from one zone's clock to another's",
            (2, 3),
            |n, a| {
                let types = [T::String, T::String, T::TimestampNtz];
                let types = if a.len() == 2 { &types[1..] } else { &types };
                typed(n, a, types, T::TimestampNtz)
            },
            |a, call, _| {
                let (from, to, at) = match a {
                    [from, to, at] => (zone_of(from.text())?, to, at),
                    _ => (call.semantics.zone, &a[0], &a[1]),
                };
                Ok(Cell::Long(to_local(to_utc(at.long(), from), zone_of(to.text())?)))
            },
        )
        .usage(
            "3.4.0",
            "convert_timezone('Europe/Berlin', 'America/New_York', timestamp_ntz'2024-08-31 \
         12:00:00')",
            "2024-08-31 06:00:00",
        ),
        cells(
            "current_timezone",
            "current_timezone(): the session time zone",
            (0, 0),
            |n, a| typed(n, a, &[], T::String),
            |_, call, arena| Ok(made(arena, &call.semantics.zone.name())),
        )
        .usage("3.1.0", "current_timezone()", "UTC"),
        cells(
            "timestampadd",
            "timestampadd(unit, n, timestamp): the timestamp n units later",
            (3, 3),
            |n, a| {
                unit_of(n, &a[0])?;
                let to =
                    if a[2].data_type == T::TimestampNtz { T::TimestampNtz } else { T::Timestamp };
                typed(n, a, &[T::String, T::Long, to.clone()], to)
            },
            |a, call, _| {
                let zone = zone_of_type(&call.to, call.semantics.zone);
                or_overflow(added(a[0].text(), a[1].long(), a[2].long(), zone))
            },
        )
        .usage(
            "3.3.0",
            "timestampadd(HOUR, 8, timestamp_ntz'2024-02-29 20:00:00')",
            "2024-03-01 04:00:00",
        ),
        cells(
            "timestampdiff",
            "timestampdiff(unit, start, end): whole units between them",
            (3, 3),
            |n, a| {
                unit_of(n, &a[0])?;
                typed(n, a, &[T::String, T::Timestamp, T::Timestamp], T::Long)
            },
            |a, call, _| {
                let found = difference(a[0].text(), a[1].long(), a[2].long(), call.semantics.zone);
                or_overflow(found)
            },
        )
        .usage(
            "3.3.0",
            "timestampdiff(MONTH, timestamp_ntz'2024-01-31 00:00:00', \
         timestamp_ntz'2024-03-31 00:00:00')",
            "2",
        ),
    ];

pub(super) fn internal(name: &str, _: Vec<Resolved>) -> PlanResult<Typed> {
    Err(PlanError::new("UNRESOLVED_ROUTINE", format!("`{name}` is internal"), "Write a + b"))
}

/// Casts the first argument to TIMESTAMP if it is a TIMESTAMP_NTZ.
fn timestamp_first(mut args: Vec<Resolved>) -> Vec<Resolved> {
    if args[0].data_type == T::TimestampNtz {
        args[0] = args[0].clone().coerce(&T::Timestamp);
    }
    args
}

fn date_part(args: Vec<Compiled>, part: DatePart) -> Compiled {
    let [a] = take(args);
    let a = a.long();
    long_fn(move |cx| Ok(a(cx)?.map(Date::of_days).map(part)))
}

/// Resolves a function of a local time: of a TIMESTAMP in the session time zone, or of a
/// TIMESTAMP_NTZ.
fn on_clock(name: &str, args: Vec<Resolved>, to: DataType) -> PlanResult<Typed> {
    let from = if args[0].data_type == T::TimestampNtz { T::TimestampNtz } else { T::Timestamp };
    typed(name, args, &[from], to)
}

fn local_time(call: &Call, index: usize) -> impl Fn(i64) -> i64 + Send + use<> {
    let zone = zone_of_type(call.data_type(index), call.semantics.zone);
    move |at| to_local(at, zone)
}

fn clock_part(args: Vec<Compiled>, call: &Call, unit_us: i64, most: i64) -> Compiled {
    let (local, [a]) = (local_time(call, 0), take(args));
    let a = a.long();
    long_fn(move |cx| Ok(a(cx)?.map(|at| local(at).div_euclid(unit_us).rem_euclid(most))))
}

/// Truncates a day count to 32 bits, so that days outside the range of DATE wrap around, as in
/// Spark.
fn day(days: i64) -> i64 {
    i64::from(days as i32)
}

/// Resolves a function of a date and a number of days. Numbers wider than INT are rejected.
fn with_days(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let wide = matches!(
        args[1].data_type,
        T::Long | T::Float | T::Double | T::Decimal(..) | T::Boolean | T::Date | T::Timestamp
    );
    if wide {
        return Err(unexpected(name, "an INT, SMALLINT or TINYINT", &args[1]));
    }
    typed(name, args, &[T::Date, T::Int], T::Date)
}

fn or_overflow<'a>(value: Option<i64>) -> Result<Cell<'a>, Box<EvalError>> {
    match value {
        Some(value) => Ok(Cell::Long(value)),
        None => failed(OVERFLOW, "the date or time is out of the range of its type", ""),
    }
}

/// The error of a date that is out of range. It is the same with and without ANSI mode.
fn date_overflow<T>() -> Result<T, Box<EvalError>> {
    arithmetic_overflow("the date")
        .map_err(|error: Box<EvalError>| Box::new(EvalError { is_of_both_modes: true, ..*error }))
}

/// Spark's error condition for a date or timestamp that is out of range. It is the same with and
/// without ANSI mode.
const OVERFLOW: &str = "DATETIME_OVERFLOW";

fn out_of_bounds<T>(reason: &str) -> Result<T, Box<EvalError>> {
    failed("DATETIME_FIELD_OUT_OF_BOUNDS.WITHOUT_SUGGESTION", reason, "")
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

fn weekday_of(name: &str) -> Option<i64> {
    let days = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];
    let name = name.trim().to_ascii_uppercase();
    let found = days.iter().position(|day| *day == name || day[..2] == name || day[..3] == name);
    found.map(|at| at as i64)
}

/// Resolves a special value such as `today` to an expression. The current time is that of the
/// batch.
pub fn of_word(word: Special, to: &DataType) -> PlanResult<Resolved> {
    let now = || super::resolve("current_timestamp", Vec::new());
    match word {
        Special::Epoch => Ok(Resolved::literal(Value::Long(0), to.clone())),
        Special::Now => cast(now()?, to, false),
        Special::Day(ahead) => {
            let today = cast(now()?, &T::Date, false)?;
            let ahead = Resolved::literal(Value::Long(ahead), T::Int);
            cast(super::resolve("date_add", vec![today, ahead])?, to, false)
        }
    }
}
