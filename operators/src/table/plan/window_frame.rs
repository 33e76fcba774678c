//! Frames of window functions: their default, and the types and the order of their bounds.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::{Semantics, constant};
use crate::table::expr::over::{Frame, FrameBound, FrameUnit, Over};
use crate::table::expr::resolve::{Scope, cast, resolve};
use crate::table::expr::{Node, Resolved, functions};
use crate::table::plan::SortKey;
use crate::table::plan::window_names::is_window_only;
use crate::table::types::DataType;
use crate::table::value::Value;
use FrameBound as B;

/// The frame of a call: the one that is written, or the default of the function. `name` is that of
/// the function, in lower case.
pub(super) fn frame_of(
    name: &str,
    over: &Over,
    order: &[SortKey],
    scope: &Scope,
) -> PlanResult<Frame<Resolved>> {
    let is_ranking = is_window_only(name) && name != "nth_value";
    match &over.frame {
        Some(frame) if is_ranking && !is_own_frame(name, frame) => {
            let shifts = matches!(name, "lag" | "lead");
            let condition =
                if shifts { "_LEGACY_ERROR_TEMP_1035" } else { "_LEGACY_ERROR_TEMP_1036" };
            Err(PlanError::new(
                condition,
                format!("`{name}` has a frame of its own and cannot have another"),
                "Leave ROWS or RANGE out",
            ))
        }
        Some(frame) => resolved_frame(frame, order, scope),
        None => Ok(Frame {
            unit: FrameUnit::Range,
            start: B::UnboundedPreceding,
            end: match order.is_empty() {
                true => B::UnboundedFollowing,
                false => B::CurrentRow,
            },
        }),
    }
}

/// Whether a frame is the one that a ranking function has anyway.
fn is_own_frame(name: &str, frame: &Frame) -> bool {
    let unit = if name == "cume_dist" { FrameUnit::Range } else { FrameUnit::Rows };
    !matches!(name, "lag" | "lead")
        && frame.unit == unit
        && frame.start == FrameBound::UnboundedPreceding
        && frame.end == FrameBound::CurrentRow
}

fn wrong(frame: &Frame, condition: &str, reason: &str, fix: &str) -> PlanError {
    PlanError::new(condition, format!("the frame `{frame}` {reason}"), fix)
}

/// Resolves a frame. The distances of ROWS become constants, negative before the current row. In a
/// RANGE frame the distances become the values of the ordering key at the bounds.
fn resolved_frame(frame: &Frame, order: &[SortKey], scope: &Scope) -> PlanResult<Frame<Resolved>> {
    let key = match (frame.unit, order) {
        (FrameUnit::Range, [key]) => Some(key),
        _ => None,
    };
    let start = offset(&frame.start, frame, key, scope)?;
    let end = offset(&frame.end, frame, key, scope)?;
    check_order(frame, start.as_ref(), end.as_ref())?;
    if frame.unit == FrameUnit::Range {
        check_range(frame, order, start.as_ref().or(end.as_ref()))?;
    }
    let bound = |written: &FrameBound, offset: Option<Resolved>| -> PlanResult<_> {
        let Some(offset) = offset else {
            return Ok(match written {
                B::UnboundedPreceding => B::UnboundedPreceding,
                B::UnboundedFollowing => B::UnboundedFollowing,
                _ => B::CurrentRow,
            });
        };
        let at = match key {
            Some(key) => key_at(offset, key)?,
            // Rows are counted with 64 bits.
            None => Resolved { data_type: DataType::Long, ..offset },
        };
        Ok(if matches!(written, B::Preceding(_)) { B::Preceding(at) } else { B::Following(at) })
    };
    Ok(Frame { unit: frame.unit, start: bound(&frame.start, start)?, end: bound(&frame.end, end)? })
}

/// The constant distance of a bound from the current row, negative before it; `None` if the bound
/// has none. In a RANGE frame it has the type of the ordering key, if the key takes no other types.
fn offset(
    bound: &FrameBound,
    frame: &Frame,
    key: Option<&SortKey>,
    scope: &Scope,
) -> PlanResult<Option<Resolved>> {
    let Some(written) = bound.distance() else { return Ok(None) };
    let mut offset = resolve(written, scope)?;
    if matches!(bound, B::Preceding(_)) {
        offset = functions::resolve("negative", vec![offset])?;
    }
    use DataType as T;
    let of_key = key.map(|key| &key.expr.data_type);
    if let Some(of_key) = of_key.filter(|t| !matches!(t, T::Date | T::Timestamp)) {
        offset = cast(offset.clone(), of_key, false).unwrap_or(offset);
    }
    let is_accepted = match frame.unit {
        FrameUnit::Rows => offset.data_type == T::Int,
        FrameUnit::Range => offset.data_type.is_numeric() || offset.data_type.is_interval(),
    };
    let Some(value) = constant(&offset, Semantics::default())? else {
        let condition = "DATATYPE_MISMATCH.SPECIFIED_WINDOW_FRAME_WITHOUT_FOLDABLE";
        return Err(wrong(frame, condition, "has a bound that is no constant", "Write a constant"));
    };
    if !is_accepted {
        return Err(match frame.unit {
            FrameUnit::Rows => wrong(
                frame,
                "DATATYPE_MISMATCH.SPECIFIED_WINDOW_FRAME_UNACCEPTED_TYPE",
                "counts rows by something else than an INT",
                "Write a whole number",
            ),
            FrameUnit::Range => wrong(
                frame,
                "DATATYPE_MISMATCH.SPECIFIED_WINDOW_FRAME_UNACCEPTED_TYPE",
                "has a distance that the ordering key does not take",
                "Use a distance of the type of the key",
            ),
        });
    }
    if frame.unit == FrameUnit::Rows && value == Value::Null {
        return Err(wrong(
            frame,
            "DATATYPE_MISMATCH.UNEXPECTED_NULL",
            "has a bound that is NULL",
            "Write a number",
        ));
    }
    Ok(Some(Resolved::literal(value, offset.data_type)))
}

/// Fails if the frame ends before it starts, or if its distances have different types.
fn check_order(frame: &Frame, start: Option<&Resolved>, end: Option<&Resolved>) -> PlanResult<()> {
    let ends_first = |condition: &str| {
        wrong(frame, condition, "ends before it starts", "Write the earlier bound first")
    };
    if matches!(frame.start, B::UnboundedFollowing) || matches!(frame.end, B::UnboundedPreceding) {
        return Err(ends_first("DATATYPE_MISMATCH.SPECIFIED_WINDOW_FRAME_INVALID_BOUND"));
    }
    let (Some(start), Some(end)) = (start, end) else { return Ok(()) };
    if start.data_type != end.data_type {
        return Err(wrong(
            frame,
            "DATATYPE_MISMATCH.SPECIFIED_WINDOW_FRAME_DIFF_TYPES",
            &format!("has distances of the types {} and {}", start.data_type, end.data_type),
            "Use one type",
        ));
    }
    let is_after = functions::resolve(">", vec![start.clone(), end.clone()])?;
    match constant(&is_after, Semantics::default())? {
        Some(Value::Boolean(true)) => {
            Err(ends_first("DATATYPE_MISMATCH.SPECIFIED_WINDOW_FRAME_WRONG_COMPARISON"))
        }
        _ => Ok(()),
    }
}

/// Fails if a RANGE frame does not fit the order of its window. `distance` is the first one of its
/// bounds, if it has any.
fn check_range(frame: &Frame, order: &[SortKey], distance: Option<&Resolved>) -> PlanResult<()> {
    if order.is_empty() && !frame.is_whole() {
        let fix = "Add ORDER BY to the window";
        return Err(wrong(
            frame,
            "DATATYPE_MISMATCH.RANGE_FRAME_WITHOUT_ORDER",
            "needs an order",
            fix,
        ));
    }
    let Some(distance) = distance else { return Ok(()) };
    let [key] = order else {
        let fix = "Order by one key, or use ROWS";
        return Err(wrong(
            frame,
            "DATATYPE_MISMATCH.RANGE_FRAME_MULTI_ORDER",
            "needs one ordering key",
            fix,
        ));
    };
    use DataType as T;
    let fits = match (&key.expr.data_type, &distance.data_type) {
        (T::Date, T::Int | T::YearMonthInterval(..) | T::DayTimeInterval(0, 0)) => true,
        (T::Timestamp | T::TimestampNtz, distance) => distance.is_interval(),
        (key, distance) => key == distance,
    };
    if fits {
        return Ok(());
    }
    Err(wrong(
        frame,
        "DATATYPE_MISMATCH.RANGE_FRAME_INVALID_TYPE",
        &format!(
            "has a distance of type {}, and its key is {}",
            distance.data_type, key.expr.data_type
        ),
        "Use a distance of the type of the key; of a date, days; of a timestamp, an interval",
    ))
}

/// The value of the ordering key at an offset from that of the current row.
fn key_at(offset: Resolved, key: &SortKey) -> PlanResult<Resolved> {
    if matches!(key.expr.data_type, DataType::Decimal(..)) {
        let offset = match key.descending {
            true => functions::resolve("negative", vec![offset])?,
            false => offset,
        };
        let node = Node::Call("range_bound", vec![key.expr.clone(), offset]);
        let (data_type, nullable) = (key.expr.data_type.clone(), key.expr.nullable);
        return Ok(Resolved { node, data_type, nullable });
    }
    let counts_days = key.expr.data_type == DataType::Date && offset.data_type == DataType::Int;
    let operator = match (counts_days, key.descending) {
        (true, true) => "date_sub",
        (true, false) => "date_add",
        (false, true) => "-",
        (false, false) => "+",
    };
    let of_key = key.expr.data_type.clone();
    Ok(functions::resolve(operator, vec![key.expr.clone(), offset])?.coerce(&of_key))
}
