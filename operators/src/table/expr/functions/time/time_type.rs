//! Functions and arithmetic of the type TIME, a time of day in nanoseconds.

use super::{or_overflow, out_of_bounds, patterns, zone_of};
use crate::table::datetime::pattern::Unread;
use crate::table::datetime::time_of_day::{
    DAY_NS, SECOND_NS, TIME_DIGITS, TIME_DIGITS_MAX, digit_ns, parse_time, time_of, truncated,
};
use crate::table::datetime::{DAY_US, to_utc};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, Semantics, constant, failed};
use crate::table::expr::functions::registry::{
    Function, Typed, any_nullable, called, cells, expect, take, text_or_null, typed_or_null,
    unexpected,
};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;
use crate::table::value::Value;

use DataType as T;

/// TIME with all its digits.
const TIME: DataType = T::Time(TIME_DIGITS);

pub(in crate::table::expr::functions) static FUNCTIONS: &[Function] = &[
    cells(
        "make_time",
        "make_time(hour, minute, seconds): the time of day of its parts",
        (3, 3),
        |n, a| typed_or_null(n, a, &[T::Int, T::Int, T::Decimal(16, 6)], TIME),
        |a, _, _| {
            let nanos = i64::try_from(a[2].decimal()).ok().and_then(|us| us.checked_mul(1000));
            let time = nanos.and_then(|nanos| time_of(a[0].long(), a[1].long(), nanos));
            time.map_or_else(|| out_of_bounds("there is no such time"), |time| Ok(Cell::Long(time)))
        },
    )
    .usage("4.1.0", "make_time(12, 30, 45.5)", "12:30:45.5"),
    called(
        "to_time",
        "to_time(text[, pattern]): the time of day that the text holds",
        (1, 2),
        resolve_to_time,
        |args, call| {
            patterns::parsed(args, &call, |pattern, text, _| match pattern {
                Some(pattern) => pattern.read_time(text),
                None => parse_time(text).ok_or(Unread::NoMatch),
            })
        },
    )
    .usage("4.1.0", "to_time('12.30', 'HH.mm')", "12:30:00"),
    cells(
        "time_diff",
        "time_diff('HOUR', start, end): whole units between two times of day",
        (3, 3),
        |n, args| {
            let [unit, start, end] = take(args);
            let args = vec![text_or_null(n, unit)?, time(n, start)?, time(n, end)?];
            Ok(Typed::new(args, T::Long, true))
        },
        |a, call, _| Ok(Cell::Long((a[2].long() - a[1].long()) / unit_of(call.name, a[0])?)),
    )
    .usage("4.1.0", "time_diff('MINUTE', time'12:00:00', time'13:30:00')", "90"),
    cells(
        "time_trunc",
        "time_trunc('HOUR', time): down to a unit",
        (2, 2),
        |n, args| {
            let [unit, at] = take(args);
            let at = time(n, at)?;
            let to = at.data_type.clone();
            Ok(Typed::new(vec![text_or_null(n, unit)?, at], to, true))
        },
        |a, call, _| {
            let unit = unit_of(call.name, a[0])?;
            Ok(Cell::Long(a[1].long() / unit * unit))
        },
    )
    .usage("4.1.0", "time_trunc('HOUR', time'12:58:59')", "12:00:00"),
    cells(
        "time_from_seconds",
        "time_from_seconds(seconds): the time of day so long after midnight",
        (1, 1),
        |n, a| from_number(n, a, ("a number", DataType::is_numeric)),
        |a, call, _| {
            let scale = call.data_type(0).as_decimal().map_or(0, |(_, scale)| u32::from(scale));
            time_at(match a[0] {
                Cell::Decimal(v) => {
                    v.checked_mul(i128::from(SECOND_NS)).map(|ns| ns / 10i128.pow(scale))
                }
                Cell::Double(v) if v.is_finite() => Some((v * SECOND_NS as f64) as i128),
                Cell::Long(v) => Some(i128::from(v) * i128::from(SECOND_NS)),
                _ => None,
            })
        },
    )
    .usage("4.2.0", "time_from_seconds(45045.5)", "12:30:45.5"),
    cells(
        "time_from_millis",
        "time_from_millis(milliseconds): the time of day so long after midnight",
        (1, 1),
        |n, a| from_number(n, a, ("an integer", DataType::is_integral)),
        |a, _, _| time_at(Some(i128::from(a[0].long()) * 1_000_000)),
    )
    .usage("4.2.0", "time_from_millis(45045500)", "12:30:45.5"),
    cells(
        "time_from_micros",
        "time_from_micros(microseconds): the time of day so long after midnight",
        (1, 1),
        |n, a| from_number(n, a, ("an integer", DataType::is_integral)),
        |a, _, _| time_at(Some(i128::from(a[0].long()) * 1000)),
    )
    .usage("4.2.0", "time_from_micros(45045500000)", "12:30:45.5"),
    cells(
        "time_to_seconds",
        "time_to_seconds(time): the seconds since midnight, with their fraction",
        (1, 1),
        |n, a| to_number(n, a, T::Decimal(14, 6)),
        |a, _, _| Ok(Cell::Decimal(i128::from((a[0].long() + 500) / 1000))),
    )
    .usage("4.2.0", "time_to_seconds(time'12:30:45.5')", "45045.500000"),
    cells(
        "time_to_millis",
        "time_to_millis(time): the milliseconds since midnight",
        (1, 1),
        |n, a| to_number(n, a, T::Long),
        |a, _, _| Ok(Cell::Long(a[0].long() / 1_000_000)),
    )
    .usage("4.2.0", "time_to_millis(time'12:30:45.5')", "45045500"),
    cells(
        "time_to_micros",
        "time_to_micros(time): the microseconds since midnight",
        (1, 1),
        |n, a| to_number(n, a, T::Long),
        |a, _, _| Ok(Cell::Long(a[0].long() / 1000)),
    )
    .usage("4.2.0", "time_to_micros(time'12:30:45.5')", "45045500000"),
    called("datetime_time_format", "a time as text", (2, 2), super::internal, |args, call| {
        patterns::time_format(args, call)
    }),
    cells("datetime_time_hour", "the hour of a time", (1, 1), super::internal, |a, _, _| {
        Ok(Cell::Long(a[0].long() / (3600 * SECOND_NS)))
    }),
    cells("datetime_time_minute", "the minute of a time", (1, 1), super::internal, |a, _, _| {
        Ok(Cell::Long(a[0].long() / (60 * SECOND_NS) % 60))
    }),
    cells("datetime_time_second", "the second of a time", (1, 1), super::internal, |a, _, _| {
        Ok(Cell::Long(a[0].long() / SECOND_NS % 60))
    }),
    cells(
        "datetime_time_second_fraction",
        "the second of a time, with its fraction",
        (1, 1),
        super::internal,
        |a, call, _| {
            let T::Decimal(_, digits) = call.to else { return Ok(Cell::Null) };
            Ok(Cell::Decimal(i128::from(a[0].long() % (60 * SECOND_NS) / digit_ns(digits))))
        },
    ),
    cells("datetime_time_add", "time + interval", (2, 2), super::internal, |a, call, _| {
        shifted(a[0].long(), Some(a[1].long()), &call.to)
    }),
    cells("datetime_time_subtract", "time - interval", (2, 2), super::internal, |a, call, _| {
        shifted(a[0].long(), a[1].long().checked_neg(), &call.to)
    }),
    cells("datetime_time_between", "time - time", (2, 2), super::internal, |a, _, _| {
        Ok(Cell::Long((a[0].long() - a[1].long()) / 1000))
    }),
    cells(
        "datetime_time_of_day",
        "the time of a timestamp",
        (1, 1),
        super::internal,
        |a, call, _| {
            let nanos = a[0].long().rem_euclid(DAY_US) * 1000;
            Ok(Cell::Long(of_type(nanos, &call.to)))
        },
    ),
    cells("datetime_make_timestamp", "date and time", (2, 3), super::internal, |a, call, _| {
        let days = a[0].long().checked_mul(DAY_US);
        let local = days.and_then(|days| days.checked_add(a[1].long() / 1000));
        let zone = match (a.get(2), &call.to) {
            (Some(name), _) => zone_of(name.text())?,
            (None, T::Timestamp) => call.semantics.zone,
            _ => return or_overflow(local),
        };
        or_overflow(local.map(|local| to_utc(local, zone)))
    }),
];

fn call(name: &'static str, args: Vec<Resolved>, data_type: DataType) -> Resolved {
    Resolved { node: Node::Call(name, args), data_type, nullable: true }
}

/// The argument as a TIME: a STRING and an untyped NULL are cast.
fn time(name: &str, arg: Resolved) -> PlanResult<Resolved> {
    match arg.data_type {
        T::Time(_) => Ok(arg),
        T::String | T::Null => Ok(arg.coerce(&TIME)),
        _ => Err(unexpected(name, "a TIME", &arg)),
    }
}

fn resolve_to_time(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let args = args.into_iter().map(|arg| text_or_null(name, arg)).collect::<PlanResult<_>>()?;
    Ok(Typed::new(args, TIME, true))
}

/// Resolves a function of a number, whose type is not cast: what it takes, in words and as a test.
fn from_number(
    name: &str,
    args: Vec<Resolved>,
    (wanted, takes): (&str, fn(&DataType) -> bool),
) -> PlanResult<Typed> {
    let args = args.into_iter().map(|arg| match &arg.data_type {
        T::Null => Ok(arg.coerce(&T::Long)),
        of if takes(of) => Ok(arg),
        _ => Err(unexpected(name, wanted, &arg)),
    });
    Ok(Typed::new(args.collect::<PlanResult<_>>()?, TIME, true))
}

/// Resolves a function of a TIME that gives a number. Only an untyped NULL is cast.
fn to_number(name: &str, args: Vec<Resolved>, to: DataType) -> PlanResult<Typed> {
    let args = args.into_iter().map(|arg| match arg.data_type {
        T::String => Err(unexpected(name, "a TIME", &arg)),
        _ => time(name, arg),
    });
    Ok(Typed::new(args.collect::<PlanResult<_>>()?, to, true))
}

/// The length of a unit in nanoseconds.
fn unit_of(name: &str, unit: Cell<'_>) -> Result<i64, Box<EvalError>> {
    let units = [
        ("HOUR", 3600 * SECOND_NS),
        ("MINUTE", 60 * SECOND_NS),
        ("SECOND", SECOND_NS),
        ("MILLISECOND", 1_000_000),
        ("MICROSECOND", 1000),
    ];
    match units.iter().find(|(word, _)| unit.text().eq_ignore_ascii_case(word)) {
        Some((_, nanos)) => Ok(*nanos),
        None => failed(
            "INVALID_PARAMETER_VALUE.TIME_UNIT",
            format!("`{name}` has no unit '{}'", unit.text()),
            "Units: HOUR, MINUTE, SECOND, MILLISECOND, MICROSECOND",
        ),
    }
}

/// A time in nanoseconds; an error if it is not within a day.
fn time_at<'a>(nanos: Option<i128>) -> Result<Cell<'a>, Box<EvalError>> {
    match nanos.and_then(|nanos| i64::try_from(nanos).ok()) {
        Some(nanos) if (0..DAY_NS).contains(&nanos) => Ok(Cell::Long(nanos)),
        _ => out_of_bounds("a time of day is less than 24 hours after midnight"),
    }
}

/// A time without the digits that its type does not have.
fn of_type(nanos: i64, data_type: &DataType) -> i64 {
    match data_type {
        T::Time(digits) => truncated(nanos, *digits),
        _ => nanos,
    }
}

/// A time moved by microseconds; an error if it is not on the same day.
fn shifted<'a>(time: i64, by_us: Option<i64>, to: &DataType) -> Result<Cell<'a>, Box<EvalError>> {
    let moved = by_us.and_then(|by| by.checked_mul(1000)).and_then(|by| time.checked_add(by));
    match moved {
        Some(moved) if (0..DAY_NS).contains(&moved) => Ok(Cell::Long(of_type(moved, to))),
        _ => failed("DATETIME_OVERFLOW", "the time is not within the same day", ""),
    }
}

/// Resolves `+`, `-`, `*` and `/` with a TIME; `None` for any other operation or operands.
pub(super) fn arithmetic(name: &str, a: &Resolved, b: &Resolved) -> Option<PlanResult<Resolved>> {
    let is_time = |arg: &Resolved| matches!(arg.data_type, T::Time(_));
    if !is_time(a) && !is_time(b) || !matches!(name, "+" | "-" | "*" | "/") {
        return None;
    }
    // A date and a TIME have no sum: `date_add` refuses the TIME.
    if [a, b].iter().any(|arg| arg.data_type == T::Date) && name != "*" && name != "/" {
        return None;
    }
    let nullable = a.nullable || b.nullable;
    let found = |name, args, data_type| {
        Some(Ok(Resolved { node: Node::Call(name, args), data_type, nullable }))
    };
    let ansi = Rules::current().ansi;
    let is_operand = |data_type: &DataType| match data_type {
        T::Time(_) | T::Null => true,
        data_type => ansi && *data_type == T::String,
    };
    let (a, b) = (a.clone(), b.clone());
    match (name, &a.data_type, &b.data_type) {
        ("+", T::Time(digits), T::DayTimeInterval(_, unit)) => {
            let to = after(*digits, *unit);
            found("datetime_time_add", vec![a, b], to)
        }
        ("+", T::DayTimeInterval(_, unit), T::Time(digits)) => {
            let to = after(*digits, *unit);
            found("datetime_time_add", vec![b, a], to)
        }
        ("-", T::Time(digits), T::DayTimeInterval(_, unit)) => {
            let to = after(*digits, *unit);
            found("datetime_time_subtract", vec![a, b], to)
        }
        ("+", T::Time(digits), T::Null) => {
            let to = after(*digits, 3);
            found("datetime_time_add", vec![a, b.coerce(&T::DayTimeInterval(0, 3))], to)
        }
        ("+", T::Null, T::Time(digits)) => {
            let to = after(*digits, 3);
            found("datetime_time_add", vec![b, a.coerce(&T::DayTimeInterval(0, 3))], to)
        }
        // Without ANSI mode a STRING is not cast to TIME.
        ("-", x, y) if is_operand(x) && is_operand(y) => {
            let as_time = |arg: Resolved| if is_time(&arg) { arg } else { arg.coerce(&TIME) };
            let args = vec![as_time(a), as_time(b)];
            found("datetime_time_between", args, T::DayTimeInterval(1, 3))
        }
        _ => {
            let kind = match a.data_type == b.data_type {
                true => "BINARY_OP_WRONG_TYPE",
                false => "BINARY_OP_DIFF_TYPES",
            };
            Some(Err(PlanError::new(
                format!("DATATYPE_MISMATCH.{kind}"),
                format!("`{a} {name} {b}` is of {} and {}", a.data_type, b.data_type),
                "Add an interval of hours to seconds, or subtract two times",
            )))
        }
    }
}

/// The type of a TIME that is moved by an interval with this smallest unit.
fn after(digits: u8, unit: u8) -> DataType {
    T::Time(if unit == 3 { digits.max(TIME_DIGITS) } else { digits })
}

/// Resolves `hour`, `minute` and `second` of a TIME, and `make_timestamp` of a date and a TIME;
/// `None` for any other call.
pub(in crate::table::expr::functions) fn of_time(
    name: &str,
    args: &[Resolved],
) -> Option<PlanResult<Resolved>> {
    let is_time = |arg: &Resolved| matches!(arg.data_type, T::Time(_));
    if let [at] = args
        && is_time(at)
    {
        let (function, to) = match name {
            "hour" => ("datetime_time_hour", T::Int),
            "minute" => ("datetime_time_minute", T::Int),
            "second" => ("datetime_time_second", T::Int),
            "second_fraction" => {
                let digits = digits_of(&at.data_type);
                ("datetime_time_second_fraction", T::Decimal(digits + 2, digits))
            }
            _ => return None,
        };
        return Some(Ok(call(function, vec![at.clone()], to)));
    }
    if let ("date_format", [at, pattern]) = (name, args)
        && is_time(at)
    {
        return Some(format(at, pattern));
    }
    let to = match name.strip_prefix("try_").unwrap_or(name) {
        "make_timestamp" | "make_timestamp_ltz" => T::Timestamp,
        "make_timestamp_ntz" if args.len() == 2 => T::TimestampNtz,
        _ => return None,
    };
    matches!(args.len(), 2 | 3).then(|| with_date(name, args, to))
}

fn digits_of(time: &DataType) -> u8 {
    match time {
        T::Time(digits) => *digits,
        _ => TIME_DIGITS,
    }
}

/// Resolves `date_format(time, pattern)`.
fn format(at: &Resolved, pattern: &Resolved) -> PlanResult<Resolved> {
    let mut args = expect("date_format", vec![pattern.clone()], &[T::String])?;
    args.insert(0, at.clone());
    Ok(call("datetime_time_format", args, T::String))
}

/// Resolves `make_timestamp(date, time[, zone])`. Nothing else is cast to a date or a time.
fn with_date(name: &str, args: &[Resolved], to: DataType) -> PlanResult<Resolved> {
    let mut resolved = Vec::new();
    for (arg, wanted) in args.iter().zip([T::Date, TIME, T::String]) {
        let fits = match (&arg.data_type, &wanted) {
            (T::Null, _) | (T::Time(_), T::Time(_)) => true,
            (given, wanted) => given == wanted,
        };
        if !fits {
            return Err(unexpected(name, &wanted.to_string(), arg));
        }
        let keeps = matches!(arg.data_type, T::Time(_));
        resolved.push(if keeps { arg.clone() } else { arg.clone().coerce(&wanted) });
    }
    let nullable = to == T::TimestampNtz || any_nullable(&resolved);
    Ok(Resolved { node: Node::Call("datetime_make_timestamp", resolved), data_type: to, nullable })
}

/// Resolves `current_time([digits])` from the current local timestamp.
pub(in crate::table::expr::functions) fn current_time(
    now: Resolved,
    digits: Option<&Resolved>,
) -> PlanResult<Resolved> {
    let digits = match digits {
        None => i64::from(TIME_DIGITS),
        Some(arg) => {
            let number = crate::table::expr::resolve::cast(arg.clone(), &T::Int, false)?;
            match constant(&number, Semantics::default())? {
                Some(Value::Long(digits)) => digits,
                None => {
                    return Err(PlanError::new(
                        "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
                        format!("`{arg}`, the number of digits of `current_time`, is no constant"),
                        "Write 0 to 9",
                    ));
                }
                Some(_) => {
                    return Err(PlanError::new(
                        "DATATYPE_MISMATCH.UNEXPECTED_NULL",
                        "the number of digits of `current_time` is NULL",
                        "Use 0 to 9",
                    ));
                }
            }
        }
    };
    match u8::try_from(digits) {
        Ok(digits) if digits <= TIME_DIGITS_MAX => {
            let nullable = now.nullable;
            let to = T::Time(digits);
            Ok(Resolved { nullable, ..call("datetime_time_of_day", vec![now], to) })
        }
        _ => Err(PlanError::new(
            "DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE",
            format!("`current_time` has no {digits} digits"),
            "Use 0 to 9",
        )),
    }
}
