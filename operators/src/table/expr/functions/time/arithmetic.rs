//! `+`, `-`, `*` and `/` where dates, timestamps and intervals take part.

use super::zone_of_type;
use crate::table::datetime::{DAY_US, add_months, add_months_us, to_local, to_utc};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cast::arithmetic_overflow;
use crate::table::expr::compile::{Compiled, long_fn};
use crate::table::expr::functions::{self, Call, any_nullable, take};
use crate::table::expr::resolve::expect_type;
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;

use DataType as T;

/// A date or timestamp and an interval.
pub fn shifted(args: Vec<Compiled>, call: &Call, sign: i64) -> Compiled {
    let [at, by] = take(args);
    let (at, by) = (at.long(), by.long());
    let zone = zone_of_type(&call.to, call.semantics.zone);
    let months = matches!(call.data_type(1), T::YearMonthInterval(..));
    let of_date = call.to == T::Date;
    let in_days = call.data_type(1) == &T::DayTimeInterval(0, 0);
    long_fn(move |cx| {
        let (Some(at), Some(by)) = (at(cx)?, by(cx)?) else { return Ok(None) };
        let by = sign * by;
        let sum = match (of_date, months) {
            (true, true) => add_months(at, by),
            (true, false) => at.checked_add(by / DAY_US),
            (false, true) => add_months_us(to_local(at, zone), by).map(|local| to_utc(local, zone)),
            // Days keep the clock's time; shorter units are lengths of time.
            (false, false) if in_days => {
                to_local(at, zone).checked_add(by).map(|local| to_utc(local, zone))
            }
            (false, false) => at.checked_add(by),
        };
        match sum {
            Some(sum) => Ok(Some(sum)),
            None => arithmetic_overflow("the date or timestamp"),
        }
    })
}

/// `+`, `-`, `*`, `/` where a date, a timestamp or an interval takes part.
pub fn arithmetic(name: &str, args: &[Resolved]) -> Option<PlanResult<Resolved>> {
    let timed = |t: &DataType| t.is_datetime() || t.is_interval();
    let found = |name: &'static str, args: Vec<Resolved>, data_type: DataType| {
        let nullable = any_nullable(&args);
        Some(Ok(Resolved { node: Node::Call(name, args), data_type, nullable }))
    };
    if let ("negative", [a]) = (name, args)
        && a.data_type.is_interval()
    {
        return found("interval_negative", vec![a.clone()], a.data_type.clone());
    }
    let [a, b] = args else { return None };
    if !timed(&a.data_type) && !timed(&b.data_type) {
        return None;
    }
    let (a, b) = (a.clone(), b.clone());
    let days = |n: &Resolved| n.data_type.is_integral() && n.data_type != T::Long;
    match (name, &a.data_type, &b.data_type) {
        ("+", x, y) if x.is_interval() && y.is_interval() => {
            let to = wider(x, y)?;
            found("interval_add", vec![a, b], to)
        }
        ("-", x, y) if x.is_interval() && y.is_interval() => {
            let to = wider(x, y)?;
            found("interval_subtract", vec![a, b], to)
        }
        ("+", x, _) if x.is_interval() && b.data_type.is_datetime() => shift("datetime_add", b, a),
        ("+", _, y) if y.is_interval() => shift("datetime_add", a, b),
        ("-", _, y) if y.is_interval() => shift("datetime_subtract", a, b),
        ("+", T::Date, _) if days(&b) => Some(functions::resolve("date_add", vec![a, b])),
        ("+", _, T::Date) if days(&a) => Some(functions::resolve("date_add", vec![b, a])),
        ("-", T::Date, _) if days(&b) => Some(functions::resolve("date_sub", vec![a, b])),
        ("-", T::Date, T::Date) => found("datetime_between", vec![a, b], T::DayTimeInterval(0, 0)),
        ("-", x, y) if x.is_datetime() && y.is_datetime() || y == &T::String || x == &T::String => {
            let to = if [x, y].contains(&&T::TimestampNtz) && ![x, y].contains(&&T::Timestamp) {
                T::TimestampNtz
            } else {
                T::Timestamp
            };
            let args = [a, b].into_iter().map(|arg| expect_type(arg, &to, "`-`"));
            match args.collect::<PlanResult<Vec<_>>>() {
                Ok(args) => found("datetime_between", args, T::DayTimeInterval(0, 3)),
                Err(error) => Some(Err(error)),
            }
        }
        ("*", x, y) if x.is_interval() && y.is_numeric() => {
            let (b, to) = (factor(b), whole(x));
            found("interval_multiply", vec![a, b], to)
        }
        ("*", x, y) if y.is_interval() && x.is_numeric() => {
            let (a, to) = (factor(a), whole(y));
            found("interval_multiply", vec![b, a], to)
        }
        ("/", x, y) if x.is_interval() && y.is_numeric() => {
            let (b, to) = (factor(b), whole(x));
            found("interval_divide", vec![a, b], to)
        }
        ("+" | "-" | "*" | "/" | "%" | "div", ..) => Some(Err(PlanError::new(
            "DATATYPE_MISMATCH.BINARY_OP_DIFF_TYPES",
            format!("`{name}` cannot combine {} and {}", a.data_type, b.data_type),
            "Intervals are written INTERVAL 5 MINUTES",
        ))),
        _ => None,
    }
}

/// The units of both intervals, if they are of one kind.
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

fn shift(name: &'static str, at: Resolved, by: Resolved) -> Option<PlanResult<Resolved>> {
    let to = match (&at.data_type, &by.data_type) {
        (T::TimestampNtz, _) => T::TimestampNtz,
        (T::Date, T::YearMonthInterval(..) | T::DayTimeInterval(0, 0)) => T::Date,
        _ => T::Timestamp,
    };
    let nullable = at.nullable || by.nullable;
    Some(expect_type(at, &to, "`+`").map(|at| Resolved {
        node: Node::Call(name, vec![at, by]),
        data_type: to,
        nullable,
    }))
}
