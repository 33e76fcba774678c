//! Checks which joins of two streams are supported. An outer join can emit a row without a match
//! only if a watermark rules out future matches. The time zone does not matter here.

use super::condition::{JoinCondition, JoinTime};
use super::missing_bound::missing_bound;
use super::side::JoinSide;
use crate::table::datetime::Tz;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::time_window::event_key;
use crate::table::plan::{Closest, Join, JoinKind, Plan};

/// Rejects a join of two streams whose result could never be completed, and a subquery over a
/// second stream. `filters` are the conditions of WHERE over the result of the join; they only
/// explain an error.
pub(in crate::table) fn check(join: &Join, filters: &[Resolved]) -> PlanResult<()> {
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
                "{} join of two streams by an event time has a watermark on one side only: a row that was emitted without a match could get one later",
                kind.with_article()
            ),
            "Declare a watermark on the time of the other side too",
        ));
    }
    let sides: &[JoinSide] = match kind {
        JoinKind::RightOuter => &[JoinSide::Right],
        JoinKind::FullOuter => &JoinSide::BOTH,
        _ => &[JoinSide::Left],
    };
    let unbounded = sides.iter().find(|side| condition.time.shift_us(**side).is_none());
    let Some(&side) = unbounded else { return Ok(()) };
    let missing = missing_bound(join, side, filters);
    Err(PlanError::new(
        "STREAM_STREAM_JOIN_WITHOUT_WATERMARK",
        format!(
            "{} join of two streams needs a watermark in the join keys, or one on the {} side and \
             a range between the times of both: otherwise it could never be decided that a {} row \
             has no match. Here {}",
            kind.with_article(),
            side.other().name(),
            side.name(),
            missing.reason
        ),
        missing.fix,
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
            "Declare a watermark on the compared column of both sides, such as WATERMARK time DELAY \
             OF INTERVAL 10 SECONDS, and compare the columns as they are: MATCH_CONDITION (l.time \
             >= r.time)",
        ));
    }
    if condition.rest.is_some() {
        return Err(PlanError::new(
            "STREAM_STREAM_ASOF_JOIN_UNSUPPORTED",
            "the condition of an ASOF join of two streams has a predicate over both sides that \
            is not an equality: all right rows would have to be kept",
            "Leave it out of ON, and filter the result in WHERE, also to limit the age of a match: \
             WHERE l.time - r.time <= INTERVAL 1 MINUTE",
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
    check_mode_of(plan, mode, has_final_aggregates(plan))
}

/// Whether every aggregation of a plan can have final results: it has an event time with a
/// watermark among its keys, so that output mode append is supported.
fn has_final_aggregates(plan: &Plan) -> bool {
    let own = match plan {
        Plan::Aggregate(input, keys, _) => event_key(input, keys).is_some(),
        _ => true,
    };
    own && plan.inputs().into_iter().all(has_final_aggregates)
}

/// The fix for a query whose join and whose aggregation support no common output mode.
pub(in crate::table) const IN_TWO_QUERIES: &str = "Group by an event time with a watermark, or a \
    window of it, in output mode append. For other keys write the joined rows to a topic or to \
    files, and aggregate them in a second query";

/// Whether a plan has a join of two streams that supports output mode append only.
pub(in crate::table) fn needs_append(plan: &Plan) -> bool {
    matches!(plan, Plan::Join(join) if join.is_of_streams() && !supports_update(join))
        || plan.inputs().into_iter().any(needs_append)
}

fn supports_update(join: &Join) -> bool {
    join.closest.is_some() || matches!(join.kind, JoinKind::Inner | JoinKind::LeftSemi)
}

fn check_mode_of(plan: &Plan, mode: OutputMode, has_append: bool) -> PlanResult<()> {
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
        if !supports_update(join) || mode == OutputMode::Complete {
            let fix = match (has_append, supports_update(join)) {
                (true, _) => "Use output mode append",
                (false, true) => "Use output mode update",
                (false, false) => IN_TWO_QUERIES,
            };
            return Err(PlanError::new(
                "STREAM_STREAM_JOIN_OUTPUT_MODE_UNSUPPORTED",
                format!(
                    "{} join of two streams is not supported in output mode {}",
                    join.kind.with_article(),
                    mode.name()
                ),
                fix,
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
    plan.inputs().into_iter().try_for_each(|input| check_mode_of(input, mode, has_append))
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
