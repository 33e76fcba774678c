//! Functions and operators on an INTERVAL of months, days and microseconds.

use super::{date_overflow, internal};
use crate::table::datetime::{
    CalendarInterval, DAY_US, SECOND_US, Tz, add_interval, add_interval_us, to_local, to_utc,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cast::arithmetic_overflow;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, failed, long_fn};
use crate::table::expr::functions::registry::{
    Call, Function, Typed, any_nullable, cells, take, typed_or_null, unexpected,
};
use crate::table::expr::{Node, Resolved};
use crate::table::types::{DataType, DataType as T};
use bumpalo::Bump;

const HOUR_US: i64 = 3600 * SECOND_US;
const MINUTE_US: i64 = 60 * SECOND_US;

pub(in crate::table::expr::functions) static FUNCTIONS: &[Function] = &[
    cells(
        "make_interval",
        "make_interval([years[, months[, weeks[, days[, hours[, mins[, secs]]]]]]]): an INTERVAL \
         of months, days and microseconds",
        (0, 7),
        made_types,
        |a, call, arena| match made(a) {
            None if call.semantics.ansi => arithmetic_overflow("the interval"),
            made => Ok(encoded(made, arena)),
        },
    )
    .usage(
        "3.0.0",
        "make_interval(100, 11, 1, 1, 12, 30, 1.5)",
        "100 years 11 months 8 days 12 hours 30 minutes 1.5 seconds",
    ),
    cells(
        "try_make_interval",
        "try_make_interval(years[, months[, weeks[, days[, hours[, mins[, secs]]]]]]): \
         make_interval, but NULL if it overflows",
        (1, 7),
        made_types,
        |a, _, arena| Ok(encoded(made(a), arena)),
    )
    .usage("4.0.0", "try_make_interval(178956970, 8)", "NULL"),
    cells("calendar_interval_add", "interval + interval", (2, 2), internal, |a, call, arena| {
        let (a, b) = (interval(a[0]), interval(a[1]));
        checked(a.checked_add(b), || a.wrapping_add(b), call, arena)
    }),
    cells(
        "calendar_interval_subtract",
        "interval - interval",
        (2, 2),
        internal,
        |a, call, arena| {
            let (a, b) = (interval(a[0]), interval(a[1]));
            checked(a.checked_sub(b), || a.wrapping_add(b.wrapping_neg()), call, arena)
        },
    ),
    cells("calendar_interval_negative", "- interval", (1, 1), internal, |a, call, arena| {
        let a = interval(a[0]);
        checked(a.checked_neg(), || a.wrapping_neg(), call, arena)
    }),
    cells("calendar_interval_multiply", "interval * n", (2, 2), internal, |a, call, arena| {
        let (a, by) = (interval(a[0]), a[1].double());
        checked(a.checked_map(|part| part * by), || a.map(|part| part * by), call, arena)
    }),
    cells("calendar_interval_divide", "interval / n", (2, 2), internal, |a, call, arena| {
        let (a, by) = (interval(a[0]), a[1].double());
        match by == 0.0 {
            true if !call.semantics.ansi => Ok(Cell::Null),
            true => failed("INTERVAL_DIVIDED_BY_ZERO", "division by zero", "Use nullif(n, 0)"),
            false => {
                checked(a.checked_map(|part| part / by), || a.map(|part| part / by), call, arena)
            }
        }
    }),
    cells("calendar_interval_part", "a field of an interval", (2, 2), internal, |a, call, _| {
        part(interval(a[0]), a[1].text(), &call.to)
    }),
];

fn interval(cell: Cell<'_>) -> CalendarInterval {
    CalendarInterval::from_bytes(cell.bytes())
}

fn encoded(value: Option<CalendarInterval>, arena: &Bump) -> Cell<'_> {
    value.map_or(Cell::Null, |value| Cell::Bytes(arena.alloc(value.to_bytes())))
}

/// The result of an operator: an error if it overflows, or with ANSI mode off another value.
fn checked<'a>(
    value: Option<CalendarInterval>,
    without_ansi: impl Fn() -> CalendarInterval,
    call: &Call,
    arena: &'a Bump,
) -> Result<Cell<'a>, Box<EvalError>> {
    match value {
        None if call.semantics.ansi => arithmetic_overflow("the interval"),
        value => Ok(encoded(value.or_else(|| Some(without_ansi())), arena)),
    }
}

fn made_types(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let mut types = vec![T::Int; 6];
    types.push(T::Decimal(18, 6));
    typed_or_null(name, args, &types, T::CalendarInterval)
}

/// The interval of years, months, weeks, days, hours, minutes and seconds; `None` if it overflows.
fn made(args: &[Cell<'_>]) -> Option<CalendarInterval> {
    let part = |i: usize| args.get(i).map_or(0, |cell| cell.long());
    let seconds_us = args.get(6).map_or(0, |cell| cell.decimal());
    let micros = i128::from(part(4)) * i128::from(HOUR_US)
        + i128::from(part(5)) * i128::from(MINUTE_US)
        + seconds_us;
    Some(CalendarInterval {
        months: i32::try_from(part(0) * 12 + part(1)).ok()?,
        days: i32::try_from(part(2) * 7 + part(3)).ok()?,
        micros: i64::try_from(micros).ok()?,
    })
}

/// A field of an interval. Whole days of the microseconds count as days.
fn part<'a>(
    value: CalendarInterval,
    field: &str,
    to: &DataType,
) -> Result<Cell<'a>, Box<EvalError>> {
    let CalendarInterval { months, days, micros } = value;
    if let T::Decimal(..) = to {
        return Ok(Cell::Decimal(i128::from(micros % MINUTE_US)));
    }
    Ok(Cell::Long(match field {
        "YEAR" => i64::from(months / 12),
        "MONTH" => i64::from(months % 12),
        "DAY" => match i32::try_from(i64::from(days) + micros / DAY_US) {
            Ok(days) => days.into(),
            Err(_) => return arithmetic_overflow("the number of days"),
        },
        "HOUR" => micros % DAY_US / HOUR_US,
        _ => micros % HOUR_US / MINUTE_US,
    }))
}

/// Resolves `+`, `-`, `*` and `/` with an INTERVAL of months, days and microseconds, and its
/// negation. `None` for any other operation or operands. `shift` resolves a date or timestamp plus
/// or minus an interval.
pub(super) fn arithmetic(
    name: &str,
    args: &[Resolved],
    shift: fn(&'static str, Resolved, Resolved) -> Option<PlanResult<Resolved>>,
) -> Option<PlanResult<Resolved>> {
    let is_interval = |arg: &Resolved| arg.data_type == T::CalendarInterval;
    match (name, args) {
        ("negative", [a]) if is_interval(a) => found("calendar_interval_negative", vec![a.clone()]),
        ("+" | "-", [a, b]) if is_interval(a) && is_interval(b) => {
            let sum = name == "+";
            let name = if sum { "calendar_interval_add" } else { "calendar_interval_subtract" };
            found(name, vec![a.clone(), b.clone()])
        }
        ("-", [a, b]) if is_interval(a) && b.data_type == T::Null => {
            found("calendar_interval_subtract", vec![a.clone(), b.clone().coerce(&a.data_type)])
        }
        ("+", [at, by]) | ("-", [at, by]) | ("+", [by, at])
            if is_interval(by) && at.data_type == T::Null =>
        {
            Some(Err(PlanError::new(
                "DATATYPE_MISMATCH.CAST_WITHOUT_SUGGESTION",
                format!("`{at}` is an untyped NULL, to which `{by}` cannot be added"),
                "Cast it: CAST(NULL AS TIMESTAMP)",
            )))
        }
        ("+", [at, by]) if is_interval(by) => shift("datetime_add", at.clone(), by.clone()),
        ("+", [by, at]) if is_interval(by) => shift("datetime_add", at.clone(), by.clone()),
        ("-", [at, by]) if is_interval(by) => shift("datetime_subtract", at.clone(), by.clone()),
        ("*", [by, n]) | ("*", [n, by]) if is_interval(by) => {
            scaled("calendar_interval_multiply", by, n)
        }
        ("/", [by, n]) if is_interval(by) => scaled("calendar_interval_divide", by, n),
        _ => None,
    }
}

fn found(name: &'static str, args: Vec<Resolved>) -> Option<PlanResult<Resolved>> {
    let nullable = any_nullable(&args) || name == "calendar_interval_divide";
    let node = Node::Call(name, args);
    Some(Ok(Resolved { node, data_type: T::CalendarInterval, nullable }))
}

fn scaled(name: &'static str, by: &Resolved, n: &Resolved) -> Option<PlanResult<Resolved>> {
    let is_number = n.data_type.is_numeric() || matches!(n.data_type, T::String | T::Null);
    if !is_number {
        return Some(Err(unexpected(name, "a number", n)));
    }
    found(name, vec![by.clone(), n.clone().coerce(&T::Double)])
}

/// Compiles a date or timestamp plus or minus an interval.
pub(super) fn shifted(
    args: Vec<Compiled>,
    of_date: bool,
    zone: Tz,
    ansi: bool,
    sign: i64,
) -> Compiled {
    let [at, by] = take(args);
    let (at, by) = (at.long(), by.bytes());
    long_fn(move |cx| {
        let Some(at) = at(cx)? else { return Ok(None) };
        let Some(by) = by(cx)? else { return Ok(None) };
        let by = CalendarInterval::from_bytes(by);
        let by = match (sign < 0, by.checked_neg()) {
            (false, _) => by,
            (true, Some(negative)) => negative,
            (true, None) if ansi => return arithmetic_overflow("the negated interval"),
            (true, None) => by.wrapping_neg(),
        };
        if of_date {
            return date_plus(at, by, zone, ansi);
        }
        match add_interval_us(at, by, zone) {
            None => {
                failed("DATETIME_OVERFLOW", "the timestamp is out of the range of its type", "")
            }
            sum => Ok(sum),
        }
    })
}

fn date_plus(
    days: i64,
    by: CalendarInterval,
    zone: Tz,
    ansi: bool,
) -> Result<Option<i64>, Box<EvalError>> {
    let sum = match by.micros {
        0 => add_interval(days, by),
        _ if ansi => {
            return failed(
                "INVALID_INTERVAL_WITH_MICROSECONDS_ADDITION",
                format!("the interval {by} has a time, which cannot be added to a date"),
                "Cast the date to TIMESTAMP",
            );
        }
        _ => days
            .checked_mul(DAY_US)
            .and_then(|local| add_interval_us(to_utc(local, zone), by, zone))
            .map(|at| to_local(at, zone).div_euclid(DAY_US)),
    };
    match sum {
        None => date_overflow(),
        sum => Ok(sum),
    }
}
