//! Checks which joins of two streams are supported. An outer join can emit a row without a match
//! only if a watermark rules out future matches. The time zone does not matter here.

use super::condition::{JoinCondition, JoinTime};
use super::side::JoinSide;
use crate::table::datetime::Tz;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::{Closest, Join, JoinKind, Plan};

/// Rejects a join of two streams whose result could never be completed, and a subquery over a
/// second stream.
pub(in crate::table) fn check(join: &Join) -> PlanResult<()> {
    let kind = join.kind;
    if matches!(kind, JoinKind::Exists | JoinKind::In | JoinKind::ScalarSubquery)
        || join.match_range.is_some()
    {
        return Err(PlanError::not_yet("a subquery over a stream beside another stream"));
    }
    if join.closest.is_some() {
        return check_asof(join);
    }
    if kind == JoinKind::Inner {
        return Ok(());
    }
    let condition = JoinCondition::of(join, Tz::UTC);
    if let JoinTime::Key { tagged, .. } = condition.time {
        if tagged == [true, true] {
            return Ok(());
        }
        return Err(PlanError::new(
            "STREAM_STREAM_JOIN_WATERMARK_ON_ONE_SIDE",
            format!(
                "a {} join of two streams by an event time has a watermark on one side only: a row that was emitted without a match could get one later",
                kind.name()
            ),
            "Declare a watermark on the time of the other side too",
        ));
    }
    let expires = |side: JoinSide| condition.time.shift_us(side).is_some();
    let answered = match kind {
        JoinKind::RightOuter => expires(JoinSide::Right),
        JoinKind::FullOuter => expires(JoinSide::Left) && expires(JoinSide::Right),
        _ => expires(JoinSide::Left),
    };
    if answered {
        return Ok(());
    }
    let (other, example) = match kind {
        JoinKind::RightOuter => ("left", "r.time >= l.time"),
        JoinKind::FullOuter => ("other", "r.time >= l.time AND r.time <= l.time + INTERVAL 1 HOUR"),
        _ => ("right", "r.time <= l.time + INTERVAL 1 HOUR"),
    };
    Err(PlanError::new(
        "STREAM_STREAM_JOIN_WITHOUT_WATERMARK",
        format!(
            "a {} join of two streams is not supported without a watermark in the join keys, or one \
             on the {other} side and a range between the times of both: it could never be \
             decided that a row has no match",
            kind.name()
        ),
        format!("Declare watermarks on both sides, and add a range to ON, such as {example}"),
    ))
}

/// Rejects an ASOF join of two streams whose result cannot be computed with bounded state.
fn check_asof(join: &Join) -> PlanResult<()> {
    let condition = JoinCondition::of(join, Tz::UTC);
    if !matches!(condition.time, JoinTime::Range(_)) {
        return Err(PlanError::new(
            "STREAM_STREAM_JOIN_WITHOUT_WATERMARK",
            "an ASOF join of two streams must compare two event times with watermarks: otherwise \
            it could never be decided that no closer row will arrive",
            "Declare a watermark on the compared column of both sides, and compare the columns as \
             they are",
        ));
    }
    if condition.rest.is_some() {
        return Err(PlanError::new(
            "STREAM_STREAM_ASOF_JOIN_UNSUPPORTED",
            "the condition of an ASOF join of two streams has a predicate over both sides that \
            is not an equality: all right rows would have to be kept",
            "Leave it out of ON, and filter the result",
        ));
    }
    Ok(())
}

/// Rejects joins of two streams that are not supported in micro-batch mode, as in Spark.
pub(in crate::table) fn check_batches(plan: &Plan) -> PlanResult<()> {
    if let Plan::Join(join) = plan
        && join.is_of_streams()
        && join.kind == JoinKind::LeftAnti
    {
        return Err(PlanError::new(
            "STREAM_STREAM_LEFT_ANTI_JOIN_UNSUPPORTED",
            "a LEFT ANTI join with a stream on the right is not supported in micro-batch mode, as in \
             Spark",
            "Use continuous mode, or LEFT OUTER JOIN and keep the rows whose right columns are NULL",
        )
        .at(join.place));
    }
    plan.inputs().into_iter().try_for_each(check_batches)
}

/// Rejects joins of two streams in output modes that cannot represent their result.
pub(in crate::table) fn check_mode(plan: &Plan, mode: OutputMode) -> PlanResult<()> {
    if let Plan::Join(join) = plan
        && join.is_of_streams()
        && mode == OutputMode::Append
        && join.kind == JoinKind::LeftOuter
        && let Some(closest @ (Closest::AtOrAfter | Closest::After)) = join.closest
    {
        return Err(PlanError::new(
            "STREAM_STREAM_ASOF_JOIN_UNSUPPORTED",
            format!(
                "a LEFT ASOF join of two streams by `{}` is not supported in output mode append: a \
                right row after a left row may always still arrive, so that it could never be \
                decided that there is none",
                closest.operator()
            ),
            "Use output mode update, or an INNER ASOF JOIN",
        )
        .at(join.place));
    }
    if let Plan::Join(join) = plan
        && join.is_of_streams()
        && mode != OutputMode::Append
    {
        let outer =
            join.closest.is_none() && !matches!(join.kind, JoinKind::Inner | JoinKind::LeftSemi);
        if outer || mode == OutputMode::Complete {
            return Err(PlanError::new(
                "STREAM_STREAM_JOIN_OUTPUT_MODE_UNSUPPORTED",
                format!(
                    "a {} join of two streams is not supported in output mode {}",
                    join.kind.name(),
                    mode.name()
                ),
                "Use output mode append",
            )
            .at(join.place));
        }
        if join.left.has_aggregate() || join.right.has_aggregate() {
            return Err(PlanError::new(
                "STREAMING_STATEFUL_CHAIN_UNSUPPORTED",
                format!(
                    "a join over a running aggregation would emit wrong results in output mode {}",
                    mode.name()
                ),
                "Use output mode append, with a watermark",
            )
            .at(join.place));
        }
    }
    plan.inputs().into_iter().try_for_each(|input| check_mode(input, mode))
}

/// Rejects joins of two streams, other than ASOF joins, without an equality: they would compare
/// every pair of rows. The plan must be optimised, so that conditions are already part of the
/// joins.
pub(in crate::table) fn check_equality(plan: &Plan) -> PlanResult<()> {
    if let Plan::Join(join) = plan
        && join.is_of_streams()
        && join.closest.is_none()
        && JoinCondition::of(join, Tz::UTC).keys.is_empty()
    {
        return Err(PlanError::new(
            "STREAM_STREAM_JOIN_WITHOUT_EQUALITY",
            "a join of two streams without an equality between both sides is not supported: each \
            row would have to be compared with every other one",
            "Add an equality to ON, such as l.key = r.key",
        )
        .at(join.place));
    }
    plan.inputs().into_iter().try_for_each(check_equality)
}
