//! Arithmetic on dates, timestamps and intervals.

use super::interval::WITHOUT_SUGGESTION;
use super::zone_of_type;
use super::{calendar_interval, date_overflow, time_type};
use crate::table::datetime::{DAY_US, add_months, add_months_us, on_clock};
use crate::table::error::PlanResult;
use crate::table::expr::coercion::Accepts;
use crate::table::expr::compile::{Compiled, failed, long_fn};
use crate::table::expr::functions::registry::{Call, any_nullable, take, unexpected};
use crate::table::expr::functions::{self};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;

use DataType as T;

/// Compiles the sum of a date or timestamp and an interval. `sign` is -1 for a difference.
pub fn shifted(args: Vec<Compiled>, call: &Call, sign: i64) -> Compiled {
    let zone = zone_of_type(&call.to, call.semantics.zone);
    let of_date = call.to == T::Date;
    if *call.data_type(1) == T::CalendarInterval {
        // A date has the session time zone where a time of day is added to it.
        let zone = if of_date { call.semantics.zone } else { zone };
        return calendar_interval::shifted(args, of_date, zone, call.semantics.ansi, sign);
    }
    let [at, by] = take(args);
    let (at, by) = (at.long(), by.long());
    let months = matches!(call.data_type(1), T::YearMonthInterval(..));
    long_fn(move |cx| {
        let Some(at) = at(cx)? else { return Ok(None) };
        let Some(by) = by(cx)? else { return Ok(None) };
        // As in Spark, a difference negates the interval first, which the smallest one has no room
        // for.
        let smallest = if months { i64::from(i32::MIN) } else { i64::MIN };
        if sign < 0 && by == smallest {
            return failed(WITHOUT_SUGGESTION, "the interval cannot be negated", "");
        }
        let by = sign * by;
        let sum = match (of_date, months) {
            (true, true) => match add_months(at, by) {
                None => return date_overflow(),
                sum => sum,
            },
            // Days outside the range of DATE wrap around, as in Spark.
            (true, false) => Some(i64::from((at + by / DAY_US) as i32)),
            (false, true) => on_clock(at, zone, |local| add_months_us(local, by)),
            // Whole days preserve the local time of day; the rest of the interval is elapsed time.
            (false, false) => on_clock(at, zone, |local| local.checked_add(by - by % DAY_US))
                .and_then(|at| at.checked_add(by % DAY_US)),
        };
        match sum {
            Some(sum) => Ok(Some(sum)),
            None => {
                failed("DATETIME_OVERFLOW", "the timestamp is out of the range of its type", "")
            }
        }
    })
}

/// Resolves `+`, `-`, `*`, `/` and DIV on dates, timestamps and intervals, and the negation,
/// absolute value and sign of an interval. `None` for any other operation or operands.
pub fn arithmetic(name: &str, args: &[Resolved]) -> Option<PlanResult<Resolved>> {
    if let Some(resolved) = calendar_interval::arithmetic(name, args, shift) {
        return Some(resolved);
    }
    if let ("negative", [a]) = (name, args)
        && a.data_type.is_interval()
    {
        return found("interval_negative", vec![a.clone()], a.data_type.clone());
    }
    if let [a] = args
        && a.data_type.is_interval()
    {
        return match name {
            "abs" => found("interval_abs", vec![a.clone()], a.data_type.clone()),
            "sign" | "signum" => found("interval_sign", vec![a.clone()], T::Double),
            _ => None,
        };
    }
    let [a, b] = args else { return None };
    if let Some(resolved) = time_type::arithmetic(name, a, b) {
        return Some(resolved);
    }
    let timed = |t: &DataType| t.is_datetime() || t.is_interval();
    if !timed(&a.data_type) && !timed(&b.data_type) {
        return None;
    }
    let (a, b) = (a.clone(), b.clone());
    match name {
        "+" => sum(a, b),
        "-" => difference(a, b),
        "*" if b.data_type.is_interval() => scaled("interval_multiply", b, a),
        "*" if a.data_type.is_interval() => scaled("interval_multiply", a, b),
        "div" if wider(&a.data_type, &b.data_type).is_some() => {
            found("interval_ratio", vec![a, b], T::Long)
        }
        "/" if a.data_type.is_interval() => scaled("interval_divide", a, b),
        _ => None,
    }
}

fn found(
    name: &'static str,
    args: Vec<Resolved>,
    data_type: DataType,
) -> Option<PlanResult<Resolved>> {
    let nullable = any_nullable(&args);
    Some(Ok(Resolved { node: Node::Call(name, args), data_type, nullable }))
}

fn sum(a: Resolved, b: Resolved) -> Option<PlanResult<Resolved>> {
    let ansi = Rules::current().ansi;
    match (&a.data_type, &b.data_type) {
        (x, y) if x.is_interval() && y.is_interval() && wider(x, y).is_some() => {
            let to = wider(x, y)?;
            found("interval_add", vec![a, b], to)
        }
        (T::Null, y) if y.is_interval() => {
            let to = y.clone();
            found("interval_add", vec![a.coerce(&to), b], to)
        }
        (x, T::Null) if x.is_interval() => {
            let to = x.clone();
            found("interval_add", vec![a, b.coerce(&to)], to)
        }
        (x, T::YearMonthInterval(..)) if x.is_datetime() => shift("datetime_add", a, b),
        (T::YearMonthInterval(..), y) if y.is_datetime() => shift("datetime_add", b, a),
        (_, T::DayTimeInterval(..)) => shift("datetime_add", a, b),
        (T::DayTimeInterval(..), _) => shift("datetime_add", b, a),
        // An untyped NULL next to a date or timestamp counts as an interval.
        (T::Null, y) if y.is_datetime() => {
            shift("datetime_add", b, a.coerce(&T::DayTimeInterval(0, 3)))
        }
        (x, T::Null) if x.is_datetime() => {
            shift("datetime_add", a, b.coerce(&T::DayTimeInterval(0, 3)))
        }
        // A STRING next to a date is cast to DATE, or to a number without ANSI mode. `date_add`
        // accepts neither, so the call fails with Spark's error.
        (T::Date, T::String) => Some(functions::resolve("date_add", vec![a, never_days(b, ansi)])),
        (T::String, T::Date) => Some(functions::resolve("date_add", vec![b, never_days(a, ansi)])),
        (T::Date, _) => Some(functions::resolve("date_add", vec![a, b])),
        (_, T::Date) => Some(functions::resolve("date_add", vec![b, a])),
        _ => None,
    }
}

/// Casts a STRING next to a date to the type that Spark assumes. `date_add` rejects this type.
fn never_days(text: Resolved, ansi: bool) -> Resolved {
    text.coerce(if ansi { &T::Date } else { &T::Double })
}

fn difference(a: Resolved, b: Resolved) -> Option<PlanResult<Resolved>> {
    let ansi = Rules::current().ansi;
    let is_timestamp = |t: &DataType| matches!(t, T::Timestamp | T::TimestampNtz);
    match (&a.data_type, &b.data_type) {
        (x, y) if x.is_interval() && y.is_interval() && wider(x, y).is_some() => {
            let to = wider(x, y)?;
            found("interval_subtract", vec![a, b], to)
        }
        (T::Null, y) if y.is_interval() => {
            let to = y.clone();
            found("interval_subtract", vec![a.coerce(&to), b], to)
        }
        (x, T::Null) if x.is_interval() => {
            let to = x.clone();
            found("interval_subtract", vec![a, b.coerce(&to)], to)
        }
        (x, T::YearMonthInterval(..)) if x.is_datetime() => shift("datetime_subtract", a, b),
        (_, T::DayTimeInterval(..)) => shift("datetime_subtract", a, b),
        (x, y) if is_timestamp(x) || is_timestamp(y) => {
            // If one timestamp has no time zone, the difference is between local times.
            let ntz = *x == T::TimestampNtz || *y == T::TimestampNtz;
            let to = if ntz { T::TimestampNtz } else { T::Timestamp };
            between(a, b, &to, T::DayTimeInterval(0, 3))
        }
        (_, T::Date) | (T::Date, T::Null) => between(a, b, &T::Date, T::DayTimeInterval(0, 0)),
        (T::Date, T::String) if ansi => between(a, b, &T::Date, T::DayTimeInterval(0, 0)),
        (T::Date, T::String) => Some(functions::resolve("date_sub", vec![a, never_days(b, ansi)])),
        (T::Date, _) => Some(functions::resolve("date_sub", vec![a, b])),
        _ => None,
    }
}

fn between(a: Resolved, b: Resolved, of: &DataType, to: DataType) -> Option<PlanResult<Resolved>> {
    let kind = if *of == T::Date { Accepts::Date } else { Accepts::AnyTimestamp };
    let ansi = Rules::current().ansi;
    for arg in [&a, &b] {
        // Without ANSI mode a STRING is not accepted as a timestamp.
        let refused = !ansi && arg.data_type == T::String && kind == Accepts::AnyTimestamp;
        if refused || kind.convert(&arg.data_type).is_none() {
            return Some(Err(unexpected("-", "a date or a timestamp on both sides", arg)));
        }
    }
    found("datetime_between", vec![a.coerce(of), b.coerce(of)], to)
}

/// Resolves an interval times a number, or divided by a number.
fn scaled(name: &'static str, interval: Resolved, by: Resolved) -> Option<PlanResult<Resolved>> {
    let Some(number) = Accepts::Number.convert(&by.data_type) else {
        return Some(Err(unexpected(name, "a number", &by)));
    };
    let to = whole(&interval.data_type);
    found(name, vec![interval, factor(by.coerce(&number))], to)
}

/// The interval type that covers the units of both types; `None` if one has months and the other
/// days.
fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (T::DayTimeInterval(a, b), T::DayTimeInterval(c, d)) => {
            Some(T::DayTimeInterval(*a.min(c), *b.max(d)))
        }
        (T::YearMonthInterval(a, b), T::YearMonthInterval(c, d)) => {
            Some(T::YearMonthInterval(*a.min(c), *b.max(d)))
        }
        _ => None,
    }
}

fn whole(interval: &DataType) -> DataType {
    match interval {
        T::DayTimeInterval(..) => T::DayTimeInterval(0, 3),
        _ => T::YearMonthInterval(0, 1),
    }
}

fn factor(number: Resolved) -> Resolved {
    let to = if number.data_type.is_integral() { T::Long } else { T::Double };
    number.coerce(&to)
}

/// Resolves a date or timestamp plus or minus an interval. A STRING is cast to a timestamp, and the
/// result is cast back to STRING.
fn shift(name: &'static str, at: Resolved, by: Resolved) -> Option<PlanResult<Resolved>> {
    let written = at.data_type.clone();
    let to = match (&written, &by.data_type) {
        (T::Date, T::YearMonthInterval(..) | T::DayTimeInterval(0, 0)) => T::Date,
        (T::Date, T::CalendarInterval) => T::Date,
        (other, _) => match Accepts::AnyTimestamp.convert(other) {
            Some(to) => to,
            None => return Some(Err(unexpected("+", "a date or a timestamp", &at))),
        },
    };
    let nullable = at.nullable || by.nullable;
    let node = Node::Call(name, vec![at.coerce(&to), by]);
    let shifted = Resolved { node, data_type: to, nullable };
    Some(Ok(if written == T::String { shifted.coerce(&T::String) } else { shifted }))
}
