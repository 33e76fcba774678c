//! Replaces the functions of the current time with the time of the batch; in continuous mode with
//! that of the last commit, or of the start of the run.

use crate::table::expr::{Node, Resolved};
use crate::table::plan::Plan;
use millstream_engine::epoch::event_time::BatchTimes;
use std::convert::Infallible;

/// Replaces each call of `current_timestamp` in the plan with [`Node::BatchTime`].
pub(super) fn with_batch_time(plan: Plan, times: &BatchTimes) -> Plan {
    fn of_batch(expr: Resolved, times: &BatchTimes) -> Resolved {
        match &expr.node {
            Node::Call("current_timestamp", _) => {
                Resolved { node: Node::BatchTime(times.clone()), ..expr }
            }
            _ => expr.map_children(&mut |child| of_batch(child, times)),
        }
    }
    fn reads_clock(expr: &Resolved) -> bool {
        matches!(&expr.node, Node::Call("current_timestamp", _))
            || expr.children().into_iter().any(reads_clock)
    }
    let timed_here = plan.exprs().any(reads_clock);
    let exprs = match timed_here {
        true => plan.map_exprs(&mut |expr| Ok::<_, Infallible>(of_batch(expr, times))),
        false => Ok(plan),
    };
    let made =
        exprs.and_then(|plan| plan.map_inputs(&mut |input| Ok(with_batch_time(input, times))));
    match made {
        Ok(plan) => plan,
    }
}
