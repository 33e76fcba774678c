//! Event-time windows: adds the columns of `window` and `session_window` to a plan, and determines
//! which columns are event times.

use crate::table::datetime::interval;
use crate::table::datetime::interval::Length;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::coercion::Accepts;
use crate::table::expr::resolve::{Scope, resolve};
use crate::table::expr::{Expr, Node, Resolved, functions, lower};
use crate::table::plan::Plan;
use crate::table::plan::aggregate_function::AggregateCall;
use crate::table::plan::generator::{Generator, GeneratorOutput};
use crate::table::plan::join::qualified;
use crate::table::plan::optimizer::reads;
use crate::table::row::{Row, Slot};
use crate::table::types::DataType;
use crate::table::value::Value;
use std::collections::HashSet;

/// The qualifier of a window's column. The spaces in it avoid collisions with relation names.
const QUALIFIER: &str = "window of the query";
/// The number of days per month in a delay, as in Spark.
const MONTH_DAYS: i64 = 31;
const DAY_US: i64 = 86_400_000_000;

/// The role of an expression in event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The delay of the watermark, in milliseconds, if this is an event time or a window of event
    /// times.
    pub delay_ms: Option<i64>,
    /// Whether the expression is a session window.
    pub session: bool,
}

/// The role of an expression in event time. A column, a window, and the time of a window have the
/// role of their source.
pub fn tag(expr: &Resolved, scope: &Scope) -> Tag {
    match &expr.node {
        Node::Column(index, _) => scope.columns.get(*index).map(|c| c.tag).unwrap_or_default(),
        Node::Call("window" | "windows" | "window_time", args) => {
            Tag { session: false, ..tag(&args[0], scope) }
        }
        Node::Call("session_window", args) => Tag { session: true, ..tag(&args[0], scope) },
        _ => Tag::default(),
    }
}

/// The grouping key that is an event time or a window of event times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKey {
    /// The index of the key among the grouping keys.
    pub index: usize,
    /// Whether the key is a window. A window expires at its end.
    pub window: bool,
}

impl EventKey {
    /// The expiry time of the group with this key row of `width` keys, in microseconds since 1970;
    /// `None` if the event time is NULL.
    #[inline]
    pub fn expires_us(&self, keys: Row<'_>, width: usize) -> Option<i64> {
        let slot = Slot::new(self.index, width);
        if keys.is_null(slot) {
            return None;
        }
        if self.window {
            Some(Row(keys.bytes(slot)).long(Slot::new(1, 2)))
        } else {
            Some(keys.long(slot))
        }
    }
}

/// The grouping key that determines when groups expire; `None` if groups never expire.
pub fn event_key(input: &Plan, keys: &[(Resolved, String)]) -> Option<EventKey> {
    let scope = input.scope();
    let index = keys.iter().position(|(key, _)| tag(key, &scope).delay_ms.is_some())?;
    Some(EventKey { index, window: matches!(keys[index].0.data_type, DataType::Struct(_)) })
}

/// The index of the key that is a session window; `None` if there is none.
pub fn session_key(input: &Plan, keys: &[(Resolved, String)]) -> Option<usize> {
    let scope = input.scope();
    keys.iter().position(|(key, _)| tag(key, &scope).session)
}

/// The length, slide and start of sliding windows, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The length of a window.
    pub width_us: i64,
    /// The distance between the starts of consecutive windows; at most the length.
    pub slide_us: i64,
    /// The start of any one of the windows, relative to 1970.
    pub start_us: i64,
}

impl Lengths {
    /// The latest start of a window that is not after a time.
    fn begin(&self, time_us: i64) -> i64 {
        time_us.saturating_sub(time_us.saturating_sub(self.start_us).rem_euclid(self.slide_us))
    }

    /// The start of the slice that contains a time. Slices are the intervals between consecutive
    /// starts and ends of windows.
    pub fn slice(&self, time_us: i64) -> i64 {
        let begin_us = self.begin(time_us);
        let rest_us = self.width_us % self.slide_us;
        if rest_us > 0 && time_us - begin_us >= rest_us { begin_us + rest_us } else { begin_us }
    }

    /// The end of the slice that starts at `slice_us`.
    pub fn slice_end(&self, slice_us: i64) -> i64 {
        let begin_us = self.begin(slice_us);
        let rest_us = self.width_us % self.slide_us;
        let length_us = if slice_us - begin_us < rest_us { rest_us } else { self.slide_us };
        begin_us.saturating_add(length_us)
    }

    /// The end of the first window that contains a slice.
    pub fn first_end(&self, slice_us: i64) -> i64 {
        let begin_us = self.begin(slice_us.saturating_sub(self.width_us));
        begin_us.saturating_add(self.slide_us).saturating_add(self.width_us)
    }

    /// The end of the last window that contains a slice.
    pub fn last_end(&self, slice_us: i64) -> i64 {
        self.begin(slice_us).saturating_add(self.width_us)
    }
}

/// An aggregation over sliding windows that can be computed from slices.
pub struct Sliced<'p> {
    /// The input rows, each only once instead of once per window.
    pub input: &'p Plan,
    /// The expression for the event time of a row.
    pub time: &'p Resolved,
    /// The length, slide and start of the windows.
    pub lengths: Lengths,
    /// The index of the window among the grouping keys.
    pub place: usize,
}

/// Decomposes an aggregation over sliding windows, so that it can be computed from slices. `None`
/// if it cannot: the time must have a watermark, the window must be used only as a key, and the
/// functions must be neither DISTINCT nor user-defined nor depend on the order of rows.
pub fn sliced<'p>(
    mut input: &'p Plan,
    keys: &[(Resolved, String)],
    calls: &[AggregateCall],
) -> Option<Sliced<'p>> {
    let place = event_key(input, keys).filter(|key| key.window)?.index;
    while let Plan::Alias(below, _) | Plan::QualifyFrom(below, ..) | Plan::Qualified(below, _) =
        input
    {
        input = below;
    }
    let Plan::Generate(below, generator) = input else { return None };
    let Node::Call("windows", args) = &generator.array.node else { return None };
    let [time, lengths @ ..] = args.as_slice() else { return None };
    let long = |expr: &Resolved| match expr.node {
        Node::Literal(Value::Long(v)) => Some(v),
        _ => None,
    };
    let [Some(width_us), Some(slide_us), Some(start_us)] = [0, 1, 2].map(|i| long(&lengths[i]))
    else {
        return None;
    };
    let column = below.width();
    if !matches!(keys[place].0.node, Node::Column(index, _) if index == column) {
        return None;
    }
    let others = keys.iter().enumerate().filter(|(i, _)| *i != place).map(|(_, (key, _))| key);
    let parts = calls.iter().flat_map(|call| call.args.iter().chain(&call.filter));
    let reads_window = others.chain(parts).any(|expr| reads(expr, column));
    let ordered = |call: &AggregateCall| {
        call.distinct || call.user.is_some() || !call.function.is_commutative()
    };
    if reads_window || calls.iter().any(ordered) {
        return None;
    }
    let lengths = Lengths { width_us, slide_us, start_us };
    Some(Sliced { input: below, time, lengths, place })
}

/// Whether a plan declares an event time.
pub fn has_watermark(plan: &Plan) -> bool {
    matches!(plan, Plan::Watermark { .. }) || plan.inputs().into_iter().any(has_watermark)
}

/// Parses a duration that is given in an option or an argument.
fn length(text: &str) -> PlanResult<Length> {
    interval::length(text).map_err(|kind| {
        PlanError::new(
            format!("INVALID_INTERVAL_FORMAT.{kind}"),
            format!("'{text}' is not a length of time"),
            "Write it like '10 minutes' or '1 hour 30 minutes'",
        )
    })
}

/// Parses a non-negative duration to milliseconds. A negative duration is an error with the given
/// condition; `what` names the argument.
fn milliseconds(text: &str, condition: &'static str, what: &str) -> PlanResult<i64> {
    let Length { months, micros } = length(text)?;
    let length_us = micros.saturating_add(months.saturating_mul(MONTH_DAYS * DAY_US));
    if length_us < 0 {
        let reason = format!("{what} '{text}' of a watermark is negative");
        return Err(PlanError::new(condition, reason, "The delay must be zero or positive"));
    }
    Ok(length_us / 1000)
}

/// Limits how far event times may be ahead of the clock. The plan's top operator must be the
/// watermark.
pub fn with_max_future_skew(plan: Plan, skew: &str) -> PlanResult<Plan> {
    match plan {
        Plan::Watermark { input, column, delay_ms, .. } => {
            let skew_ms = milliseconds(skew, "MAX_FUTURE_SKEW_NEGATIVE", "the future skew")?;
            Ok(Plan::Watermark { input, column, delay_ms, skew_ms: Some(skew_ms) })
        }
        _ => Err(PlanError::new(
            "MAX_FUTURE_SKEW_WITHOUT_WATERMARK",
            "a future skew is set, but no watermark is declared",
            "Declare the watermark right before: with_watermark(\"time\", \"10 minutes\")",
        )),
    }
}

/// Sets the limit for every watermark that has no limit itself.
pub fn with_default_skew(plan: Plan, default_ms: i64) -> Plan {
    let of_inputs = plan.map_inputs(&mut |input| {
        Ok::<_, std::convert::Infallible>(with_default_skew(input, default_ms))
    });
    match of_inputs {
        Ok(Plan::Watermark { input, column, delay_ms, skew_ms: None }) => {
            Plan::Watermark { input, column, delay_ms, skew_ms: Some(default_ms) }
        }
        Ok(plan) => plan,
    }
}

/// Declares the event time of a table and the delay of its watermark. Fails if `column` is not a
/// column of type TIMESTAMP, TIMESTAMP_NTZ or a window, or if the delay is negative or not a
/// duration.
pub fn with_watermark(input: Plan, column: &Expr, delay: &str) -> PlanResult<Plan> {
    let delay_ms = milliseconds(delay, "WATERMARK_DELAY_NEGATIVE", "the delay")?;
    let scope = input.scope();
    let resolved = resolve(column, &scope)?;
    let Node::Column(index, _) = resolved.node else {
        return Err(PlanError::new(
            "EVENT_TIME_MUST_BE_TOP_LEVEL_COLUMN",
            format!("the event time `{column}` is a field, not a column"),
            "Select it as a column first: SELECT s.time AS time, …",
        )
        .at(column.place()));
    };
    let is_time = |t: &DataType| matches!(t, DataType::Timestamp | DataType::TimestampNtz);
    let fits = match &resolved.data_type {
        DataType::Struct(fields) => {
            fields.len() == 2 && fields[1].name == "end" && is_time(&fields[1].data_type)
        }
        other => is_time(other),
    };
    if !fits {
        return Err(PlanError::new(
            "EVENT_TIME_IS_NOT_ON_TIMESTAMP_TYPE",
            format!("the event time `{column}` is {}", resolved.data_type),
            "Use a TIMESTAMP, for example to_timestamp(text) AS time",
        )
        .at(column.place()));
    }
    Ok(Plan::Watermark { input: Box::new(input), column: index, delay_ms, skew_ms: None })
}

/// Collects the calls of window functions in an expression.
fn calls<'e>(expr: &'e Expr, found: &mut Vec<&'e Expr>) {
    match expr {
        Expr::Call { name, .. } if matches!(&*lower(name), "window" | "session_window") => {
            found.push(expr);
        }
        Expr::Call { args, filter, .. } => {
            args.iter().chain(filter.as_deref()).for_each(|arg| calls(arg, found));
        }
        Expr::Cast { expr, .. }
        | Expr::Alias(expr, _)
        | Expr::Aliases(expr, _)
        | Expr::Field(expr, _)
        | Expr::Lambda(_, expr) => calls(expr, found),
        Expr::User(_, args, _) | Expr::UserAggregate(_, args, _) => {
            args.iter().for_each(|arg| calls(arg, found));
        }
        Expr::Chain(chain) => chain.operands().for_each(|operand| calls(operand, found)),
        Expr::Case { branches, otherwise } => {
            for (when, then) in branches {
                calls(when, found);
                calls(then, found);
            }
            otherwise.iter().for_each(|otherwise| calls(otherwise, found));
        }
        Expr::WithinGroup(..) | Expr::Over(_) => expr.each_part(&mut |part| calls(part, found)),
        _ => {}
    }
}

/// The window of a query, which is computed as a column of the query's input.
#[derive(Clone, Debug)]
pub struct Window {
    text: String,
    name: &'static str,
}

impl Window {
    /// Replaces each call of the window function by the window's column, and `window.start` by a
    /// field of the column. In a lambda, a parameter of that name hides the column.
    pub fn rewrite(&self, expr: &Expr) -> Expr {
        self.rewrite_in(expr, false)
    }

    fn rewrite_in(&self, expr: &Expr, is_hidden: bool) -> Expr {
        let column = |rest: &[String], place| {
            let parts = [QUALIFIER.to_string(), self.name.to_string()];
            Expr::Column { parts: parts.into_iter().chain(rest.iter().cloned()).collect(), place }
        };
        match expr {
            Expr::Call { name, place, .. }
                if self.text.starts_with(name.as_str()) && expr.to_string() == self.text =>
            {
                column(&[], *place)
            }
            Expr::Column { parts, place }
                if !is_hidden && parts[0].eq_ignore_ascii_case(self.name) =>
            {
                column(&parts[1..], *place)
            }
            Expr::Lambda(names, _) => {
                let hides = names.iter().any(|name| name.eq_ignore_ascii_case(self.name));
                expr.map_children(&mut |body| self.rewrite_in(body, is_hidden || hides))
            }
            other => other.map_children(&mut |part| self.rewrite_in(part, is_hidden)),
        }
    }
}

/// Adds a column for the window function that the expressions call, and describes the call; without
/// a call the input is returned unchanged. Fails if they call several different windows, or for
/// wrong arguments.
pub fn windowed<'e>(
    input: Plan,
    exprs: impl IntoIterator<Item = &'e Expr>,
) -> PlanResult<(Plan, Option<Window>)> {
    let mut found = Vec::new();
    exprs.into_iter().for_each(|expr| calls(expr, &mut found));
    // Equal calls, for example in GROUP BY and SELECT, denote the same window.
    let mut texts = HashSet::new();
    found.retain(|call| texts.insert(call.to_string()));
    match found.as_slice() {
        [] => Ok((input, None)),
        [call @ Expr::Call { name, args, .. }] => {
            let made = if name.eq_ignore_ascii_case("window") {
                with_window(input, args).map(|plan| (plan, "window"))
            } else {
                with_session(input, args).map(|plan| (plan, "session_window"))
            };
            let (plan, name) = made.map_err(|error| error.at(call.place()))?;
            Ok((plan, Some(Window { text: call.to_string(), name })))
        }
        [_] => unreachable!("what was found is a call"),
        [_, second, ..] => Err(PlanError::new(
            "MULTIPLE_TIME_WINDOWS",
            "a query has several windows, so each row would be in each combination of them",
            "Use one, or aggregate again by the other one",
        )
        .at(second.place())),
    }
}

/// Resolves the time argument of a window. If the argument contains another window, that window is
/// added as a column after those of the input.
fn with_time(input: Plan, time: &Expr) -> PlanResult<(Plan, Resolved)> {
    let (input, inner) = windowed(input, [time])?;
    let time = match inner {
        Some(inner) => time_of(&inner.rewrite(time), &input.scope())?,
        None => time_of(time, &input.scope())?,
    };
    Ok((input, time))
}

/// Resolves a time argument. It is a timestamp, a value that can be cast to one, or a window; of a
/// window the last instant is used.
fn time_of(arg: &Expr, scope: &Scope) -> PlanResult<Resolved> {
    let resolved = resolve(arg, scope)?;
    match &resolved.data_type {
        DataType::Timestamp | DataType::TimestampNtz => Ok(resolved),
        DataType::Struct(_) => functions::resolve("window_time", vec![resolved]),
        other => match Accepts::AnyTimestamp.convert(other) {
            Some(to) => Ok(resolved.coerce(&to)),
            None => Err(PlanError::new(
                "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
                format!("the time of a window is `{resolved}`, which is {other}"),
                "Use a TIMESTAMP column",
            )),
        },
    }
}

fn constant_us(arg: &Expr, what: &str) -> PlanResult<i64> {
    let not_constant = || {
        PlanError::new(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            format!("the {what} `{arg}` of a window is not a constant length of time"),
            "Write it like '10 minutes'",
        )
    };
    match arg {
        Expr::Literal(Value::String(text), _) => {
            let Length { months, micros } = length(text)?;
            if months != 0 {
                return Err(PlanError::new(
                    "_LEGACY_ERROR_TEMP_3231",
                    format!("Intervals greater than a month is not supported ({text})."),
                    "Months have no fixed length; use days",
                ));
            }
            Ok(micros)
        }
        Expr::Literal(Value::Long(micros), DataType::DayTimeInterval(..)) => Ok(*micros),
        _ => Err(not_constant()),
    }
}

/// The maximum number of windows to which one row may belong.
const WINDOWS_MAX: i64 = 1 << 20;

fn with_window(input: Plan, args: &[Expr]) -> PlanResult<Plan> {
    let (time, lengths) = match args {
        [time, lengths @ ..] if (1..=3).contains(&lengths.len()) => (time, lengths),
        _ => {
            return Err(PlanError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                format!("`window` takes 2 to 4 arguments, but has {}", args.len()),
                "window(time, length[, slide[, start]])",
            ));
        }
    };
    let width_us = constant_us(&lengths[0], "length")?;
    let slide_us = lengths.get(1).map_or(Ok(width_us), |arg| constant_us(arg, "slide"))?;
    let start_us = lengths.get(2).map_or(Ok(0), |arg| constant_us(arg, "start"))?;
    if width_us <= 0 || slide_us <= 0 {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE",
            "the length and the slide of a window must be longer than zero",
            "",
        ));
    }
    if slide_us > width_us || start_us.unsigned_abs() >= slide_us.unsigned_abs() {
        let (reason, fix) = if slide_us > width_us {
            (
                "the slide of a window is longer than the window",
                "Rows between two windows would be in none",
            )
        } else {
            ("the start of a window is not within its slide", "Use less than the slide")
        };
        let condition = "DATATYPE_MISMATCH.PARAMETER_CONSTRAINT_VIOLATION";
        return Err(PlanError::new(condition, reason, fix));
    }
    if width_us / slide_us > WINDOWS_MAX {
        let count = width_us / slide_us;
        return Err(PlanError::new(
            "COLLECTION_SIZE_LIMIT_EXCEEDED",
            format!("each time is in {count} windows, more than {WINDOWS_MAX}"),
            "Use a longer slide, or a shorter window",
        ));
    }
    let scope = input.scope();
    let (input, time) = with_time(input, time)?;
    let long = |v| Resolved::literal(Value::Long(v), DataType::Long);
    let lengths = [long(width_us), long(slide_us), long(start_us)];
    let args: Vec<_> = std::iter::once(time.clone()).chain(lengths).collect();
    if slide_us == width_us {
        let made = functions::resolve("window", args)?;
        let input = where_there(input, &time)?;
        return Ok(with_column(input, &scope, made, "window", Some(QUALIFIER)));
    }
    let generator = Generator {
        array: functions::resolve("windows", args)?,
        output: GeneratorOutput::Element,
        with_position: false,
        outer: false,
        names: vec!["window".to_string()],
        name: "window".to_string(),
    };
    let width = input.width();
    let made = Plan::Generate(Box::new(input), generator);
    if width > scope.columns.len() {
        let column = &made.scope().columns[width];
        let node = Node::Column(width, column.name.clone());
        let (data_type, nullable) = (column.data_type.clone(), column.nullable);
        let column = Resolved { node, data_type, nullable };
        return Ok(with_column(made, &scope, column, "window", Some(QUALIFIER)));
    }
    Ok(Plan::QualifyFrom(Box::new(made), width, QUALIFIER.to_string()))
}

fn with_session(input: Plan, args: &[Expr]) -> PlanResult<Plan> {
    let [time, gap] = args else {
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`session_window` takes 2 arguments, but has {}", args.len()),
            "session_window(time, gap)",
        ));
    };
    let scope = input.scope();
    let (input, time) = with_time(input, time)?;
    let gap_us = match constant_us(gap, "gap") {
        Ok(micros) => Resolved::literal(Value::Long(micros), DataType::Long),
        Err(error) if error.condition != "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT" => {
            return Err(error);
        }
        Err(_) => functions::resolve("length_us", vec![resolve(gap, &scope)?])?,
    };
    let nothing = Resolved::literal(Value::Long(0), DataType::Long);
    let input = where_there(input, &time)?;
    let longer = functions::resolve(">", vec![gap_us.clone(), nothing])?;
    // The condition also reads the event time, so that it is not pushed below the watermark. So
    // rows without a session still advance the watermark, as in Spark.
    let there = functions::resolve("isnotnull", vec![time.clone()])?;
    let no = Resolved::literal(Value::Boolean(false), DataType::Boolean);
    let (data_type, nullable) = (longer.data_type.clone(), longer.nullable);
    let node = Node::Case(vec![(there, longer)], Some(Box::new(no)));
    let longer = Resolved { node, data_type, nullable };
    let input = Plan::Filter(Box::new(input), longer);
    let made = functions::resolve("session_window", vec![time, gap_us])?;
    Ok(with_column(input, &scope, made, "session_window", Some(QUALIFIER)))
}

/// Adds a filter that drops rows without an event time, which belong to no window.
fn where_there(input: Plan, time: &Resolved) -> PlanResult<Plan> {
    if !time.nullable {
        return Ok(input);
    }
    let there = functions::resolve("isnotnull", vec![time.clone()])?;
    Ok(Plan::Filter(Box::new(input), there))
}

/// Adds a column after those of `scope`, optionally with a qualifier. Any further columns of the
/// input are dropped.
pub fn with_column(
    input: Plan,
    scope: &Scope,
    made: Resolved,
    name: &str,
    qualifier: Option<&str>,
) -> Plan {
    let columns = scope.columns.iter().enumerate().map(|(i, c)| {
        let node = Node::Column(i, c.name.clone());
        let (data_type, nullable) = (c.data_type.clone(), c.nullable);
        (Resolved { node, data_type, nullable }, c.name.clone())
    });
    let columns = columns.chain([(made, name.to_string())]).collect();
    let plan = qualified(Plan::Project(Box::new(input), columns), scope);
    match qualifier {
        Some(name) => Plan::QualifyFrom(Box::new(plan), scope.columns.len(), name.to_string()),
        None => plan,
    }
}

/// Passes on only the first of the rows that are equal in the columns `names`, or in all columns if
/// `names` is empty. If `within`, a key is forgotten when the watermark reaches the event time of
/// its first row plus the delay.
pub fn deduplicate(input: Plan, names: &[&str], within: bool) -> PlanResult<Plan> {
    let scope = input.scope();
    let place = |name: &&str| {
        let expr = Expr::Column { parts: vec![name.to_string()], place: Default::default() };
        match resolve(&expr, &scope)?.node {
            Node::Column(index, _) => Ok(index),
            _ => unreachable!("a name of one part is a column"),
        }
    };
    let keys: Vec<usize> = match names {
        [] => (0..scope.columns.len()).collect(),
        names => names.iter().map(place).collect::<PlanResult<Vec<_>>>()?,
    };
    let of_keys = |keys: &Vec<usize>| {
        let key = |at: &usize| {
            let column = &scope.columns[*at];
            let node = Node::Column(*at, column.name.clone());
            let (data_type, nullable) = (column.data_type.clone(), column.nullable);
            (Resolved { node, data_type, nullable }, column.name.clone())
        };
        Plan::Project(Box::new(input.clone()), keys.iter().map(key).collect())
    };
    crate::table::plan::analyzer::refuse_incomparable(&of_keys(&keys))?;
    Ok(Plan::Deduplicate { input: Box::new(input), keys, within })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Each slice is completely inside or completely outside of a window, and `first_end` and
        /// `last_end` are the ends of its first and last window.
        #[test]
        fn slices_are_in_the_windows_of_their_times(
            time_us in -200i64..200, slide_us in 1i64..12, more_us in 0i64..30, start in 0i64..12,
        ) {
            let start_us = start % slide_us;
            let lengths = Lengths { width_us: slide_us + more_us, slide_us, start_us };
            let windows = |time: i64| -> Vec<i64> {
                let begins = (-300..300).filter(|b| (b - start_us).rem_euclid(slide_us) == 0);
                begins.filter(|b| *b <= time && time < b + lengths.width_us).collect()
            };
            let (slice_us, of_time) = (lengths.slice(time_us), windows(time_us));
            prop_assert!(slice_us <= time_us);
            prop_assert_eq!(&windows(slice_us), &of_time);
            let end_us = lengths.slice_end(slice_us);
            prop_assert!(time_us < end_us && lengths.slice(end_us) == end_us);
            prop_assert_eq!(lengths.slice(end_us - 1), slice_us);
            let (first, last) = (of_time[0], of_time[of_time.len() - 1]);
            prop_assert_eq!(lengths.first_end(slice_us), first + lengths.width_us);
            prop_assert_eq!(lengths.last_end(slice_us), last + lengths.width_us);
        }
    }
}
