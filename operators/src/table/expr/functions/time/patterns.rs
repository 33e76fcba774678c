//! Functions that parse and format timestamps by a pattern.

use super::super::registry::{Call, Typed, take, typed_or_null};
use super::super::resolve;
use crate::table::datetime::pattern::{Direction, PATTERN_FIX, Pattern, PatternError, Unread};
use crate::table::datetime::{SECOND_US, Tz};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{
    BytesFn, Compiled, Cx, EvalError, bytes_fn, failed, long_fn, text,
};
use crate::table::expr::resolve::cast;
use crate::table::text::regexp::PatternCache;
use crate::table::types::DataType;
use bumpalo::Bump;
use bumpalo::collections::String as BumpString;
use std::sync::LazyLock;

use DataType as T;

/// Formats the month as its English name with three letters.
pub(super) static MONTH_NAME: LazyLock<Option<Pattern>> = LazyLock::new(|| writing("MMM"));
/// Formats the day of the week as its English name with three letters.
pub(super) static DAY_NAME: LazyLock<Option<Pattern>> = LazyLock::new(|| writing("EEE"));
/// The compiled default pattern, for parsing.
pub(super) static PLAIN_READ: LazyLock<Option<Pattern>> =
    LazyLock::new(|| Pattern::new(PLAIN, Direction::Read).ok());

/// The default pattern of `unix_timestamp` and `from_unixtime`.
const PLAIN: &str = "yyyy-MM-dd HH:mm:ss";

fn writing(pattern: &str) -> Option<Pattern> {
    Pattern::new(pattern, Direction::Write).ok()
}

/// Formats a date by a pattern that was compiled earlier.
pub(super) fn written<'a>(days: i64, pattern: &Option<Pattern>, arena: &'a Bump) -> Cell<'a> {
    let mut out = BumpString::new_in(arena);
    if let Some(pattern) = pattern {
        pattern.date_text(days, Tz::UTC, &mut out);
    }
    Cell::Bytes(out.into_bump_str().as_bytes())
}

/// The error of a malformed pattern, which only a row with a value raises. A `try_` function lets it
/// pass, except for a TIME.
fn refused_pattern<T>(error: PatternError, of_time: bool) -> Result<T, Box<EvalError>> {
    failed(error.condition, error.reason, PATTERN_FIX).map_err(|error: Box<EvalError>| {
        Box::new(EvalError { is_from_operand: !of_time, ..*error })
    })
}

/// Resolves a function as a CAST of its first argument. The cast also accepts words such as
/// `today`.
pub(super) fn by_cast(_: &str, mut args: Vec<Resolved>, to: &DataType) -> PlanResult<Typed> {
    args.truncate(1);
    let args = args.into_iter().map(|arg| cast(arg, to, false));
    Ok(Typed::new(args.collect::<PlanResult<_>>()?, to.clone(), true))
}

pub(super) fn to_timestamp(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() == 1 || args[0].data_type.is_datetime() || args[0].data_type.is_numeric() {
        return by_cast(name, args, &T::Timestamp);
    }
    typed_or_null(name, args, &[T::String, T::String], T::Timestamp)
}

/// Resolves `to_timestamp` when `spark.sql.timestampType` is TIMESTAMP_NTZ.
pub fn to_timestamp_without_zone(mut args: Vec<Resolved>) -> PlanResult<Resolved> {
    if args.first().is_some_and(|arg| arg.data_type.is_datetime()) {
        return cast(args.swap_remove(0), &T::TimestampNtz, false);
    }
    resolve("to_timestamp_ntz", args)
}

/// A pattern argument. A constant pattern is compiled once; patterns from a column are cached.
struct Prepared {
    fixed: Option<Pattern>,
    written: Option<BytesFn>,
    seen: PatternCache<Result<Pattern, PatternError>>,
    compile: fn(&str, Direction) -> Result<Pattern, PatternError>,
    direction: Direction,
    /// Whether the pattern is that of a TIME.
    of_time: bool,
}

impl Prepared {
    fn new(call: &Call, index: usize, written: Option<Compiled>, direction: Direction) -> Self {
        let compile = match (&call.to, call.args.first().map(|arg| &arg.data_type)) {
            (DataType::Time(_), _) => Pattern::of_time,
            (_, Some(DataType::Time(_))) => time_writing,
            _ => Pattern::new,
        };
        let fixed = call.text(index).and_then(|text| compile(text, direction).ok());
        Self {
            fixed,
            compile,
            written: written.map(Compiled::bytes),
            seen: PatternCache::default(),
            direction,
            of_time: matches!(call.to, DataType::Time(_)),
        }
    }

    /// Calls `then` with the pattern for the current row, or with `None` if the call has no
    /// pattern. Returns `None` without calling `then` if the pattern is NULL.
    fn with<'a, R>(
        &self,
        cx: Cx<'a>,
        then: impl FnOnce(Option<&Pattern>) -> Result<Option<R>, Box<EvalError>>,
    ) -> Result<Option<R>, Box<EvalError>> {
        match (&self.fixed, &self.written) {
            (Some(fixed), _) => then(Some(fixed)),
            (None, None) => then(None),
            (None, Some(written)) => match written(cx)? {
                None => Ok(None),
                Some(written) => self.seen.with(
                    text(written),
                    |written| (self.compile)(written, self.direction),
                    |pattern| match pattern {
                        Ok(pattern) => then(Some(pattern)),
                        Err(error) => refused_pattern(error.clone(), self.of_time),
                    },
                ),
            },
        }
    }
}

/// Compiles the pattern by which `date_format` formats a TIME.
pub(super) fn time_writing(text: &str, direction: Direction) -> Result<Pattern, PatternError> {
    let pattern = Pattern::of_time(text, direction);
    match Pattern::new(text, direction) {
        Err(_) => pattern,
        // The pattern is valid, but not for a TIME.
        Ok(_) => pattern.map_err(|error| PatternError {
            condition: "INVALID_PARAMETER_VALUE.PATTERN",
            ..error
        }),
    }
}

/// A description of the function's result type, for error messages.
fn target_of(call: &Call) -> String {
    match &call.to {
        DataType::Long => "a timestamp".to_string(),
        to => format!("{to}"),
    }
}

/// The suggested fix for a text that does not match its pattern.
fn fix_of(call: &Call, pattern: Option<&str>) -> &'static str {
    match pattern {
        Some(pattern) if pattern.contains('%') => {
            "Patterns have letters instead of %: yyyy-MM-dd HH:mm:ss for %Y-%m-%d %H:%M:%S"
        }
        Some(pattern) if pattern.contains("DD") => {
            "D is the day of the year and d that of the month: dd.MM.yyyy"
        }
        _ if call.to == DataType::Long => {
            "To get NULL instead, write unix_timestamp(try_to_timestamp(text, pattern))"
        }
        _ if call.to == DataType::Date => {
            "To get NULL instead, write CAST(try_to_timestamp(text, pattern) AS DATE)"
        }
        _ if matches!(call.to, DataType::Time(_)) => "Use try_to_time to get NULL instead",
        _ => "Use try_to_timestamp to get NULL instead",
    }
}

/// Compiles a function that parses text by a pattern.
pub(super) fn parsed(
    args: Vec<Compiled>,
    call: &Call,
    read: fn(Option<&Pattern>, &str, Tz) -> Result<i64, Unread>,
) -> Compiled {
    let zone = call.semantics.zone;
    let mut args = args.into_iter();
    let Some(value) = args.next() else { unreachable!("counted") };
    let value = value.bytes();
    let pattern = Prepared::new(call, 1, args.next(), Direction::Read);
    let to = call.to.clone();
    let written = call.text(1).map(str::to_string);
    let (target, fix) = (target_of(call), fix_of(call, written.as_deref()));
    let plain =
        if call.name == "unix_timestamp" { "CANNOT_PARSE_TIMESTAMP" } else { "CAST_INVALID_INPUT" };
    long_fn(move |cx| {
        let Some(bytes) = value(cx)? else { return Ok(None) };
        pattern.with(cx, |pattern| match read(pattern, text(bytes), zone) {
            Ok(value) => Ok(Some(value)),
            // An overflow is an error in every mode, even in a `try_` function.
            Err(Unread::Overflow) => failed(
                "DATETIME_OVERFLOW",
                format!("'{}' is beyond the range of {to}", text(bytes)),
                "",
            )
            .map_err(|error: Box<EvalError>| {
                Box::new(EvalError { is_from_operand: true, ..*error })
            }),
            Err(Unread::NoMatch) => failed(
                match &to {
                    DataType::Time(_) => "CANNOT_PARSE_TIME",
                    _ if pattern.is_some() => "CANNOT_PARSE_TIMESTAMP",
                    _ => plain,
                },
                match (&written, pattern) {
                    (Some(pattern), Some(_)) => {
                        format!("'{}' cannot be read as {target} by '{pattern}'", text(bytes))
                    }
                    _ => format!("'{}' cannot be read as {target}", text(bytes)),
                },
                fix,
            ),
        })
    })
}

/// Compiles `date_format` of a TIME.
pub(super) fn time_format(args: Vec<Compiled>, call: Call) -> Compiled {
    let [at, pattern] = take(args);
    let (at, pattern) = (at.long(), Prepared::new(&call, 1, Some(pattern), Direction::Write));
    bytes_fn(move |cx| {
        let Some(at) = at(cx)? else { return Ok(None) };
        pattern.with(cx, |pattern| {
            let mut out = BumpString::new_in(cx.arena);
            if let Some(pattern) = pattern {
                pattern.time_text(at, &mut out);
            }
            Ok(Some(out.into_bump_str().as_bytes()))
        })
    })
}

/// Compiles a function that formats a timestamp, given in microseconds or in seconds, by a pattern.
pub(super) fn date_format(args: Vec<Compiled>, call: Call) -> Compiled {
    let zone = call.semantics.zone;
    let of_seconds = call.name == "from_unixtime";
    let mut args = args.into_iter();
    let Some(at) = args.next() else { unreachable!("counted") };
    let at = at.long();
    let mut pattern = Prepared::new(&call, 1, args.next(), Direction::Write);
    if pattern.written.is_none() {
        pattern.fixed = writing(PLAIN);
    }
    bytes_fn(move |cx| {
        let Some(at) = at(cx)? else { return Ok(None) };
        // A number of seconds outside the range of TIMESTAMP wraps around, as in Spark.
        let at = if of_seconds { at.wrapping_mul(SECOND_US) } else { at };
        pattern.with(cx, |pattern| {
            let mut out = BumpString::new_in(cx.arena);
            if let Some(pattern) = pattern {
                pattern.text(at, zone, &mut out);
            }
            Ok(Some(out.into_bump_str().as_bytes()))
        })
    })
}
