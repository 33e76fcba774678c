//! The descriptions of a query's stateful operators. A checkpoint stores them, and a restart
//! compares them with those of the restarted query.

use super::limit_restarts;
use crate::table::expr::Resolved;
use crate::table::expr::compile::Semantics;
use crate::table::expr::functions::record_options::for_checkpoint;
use crate::table::physical::accumulator::{Function, SESSIONS, TIME};
use crate::table::physical::join::{describe_join, is_of_join, join_names};
use crate::table::plan::Plan;
use crate::table::plan::aggregate_function::AggregateCall;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::optimizer::optimize;
use crate::table::plan::time_window::{session_key, sliced};
use millstream_engine::checkpoint::StateLayout;

/// Describes each stateful operator of a query, in the order in which [`lower`](super::lower)
/// numbers them. An operator can restore only state that was stored under the same description.
pub fn state_operators(plan: &Plan, mode: OutputMode) -> Vec<(String, StateLayout)> {
    let mut operators = Vec::new();
    if joins_streams(plan) {
        // The optimised plan is described, because optimisation may move conditions into the join.
        describe(&optimize(plan), mode, &mut operators);
        let of_joins = operators.iter_mut().filter(|(_, layout)| is_of_join(layout));
        for ((_, layout), name) in of_joins.zip(join_names(plan)) {
            layout.name = name;
        }
    } else {
        describe(plan, mode, &mut operators);
    }
    operators
}

/// Whether the plan joins two streams.
fn joins_streams(plan: &Plan) -> bool {
    matches!(plan, Plan::Join(join) if join.is_of_streams())
        || plan.inputs().into_iter().any(joins_streams)
}

fn describe(plan: &Plan, mode: OutputMode, out: &mut Vec<(String, StateLayout)>) {
    let typed = |expr: &Resolved| format!("{} {}", for_checkpoint(expr), expr.data_type);
    match plan {
        Plan::Limit(input, _) if !limit_restarts(input, mode) => {
            let layout =
                StateLayout { values: vec!["count".to_string()], ..StateLayout::default() };
            out.push(("limit".to_string(), layout));
        }
        Plan::Aggregate(input, keys, calls) => {
            let column =
                |(i, (key, _)): (usize, &(Resolved, String))| format!("k{i} {}", key.data_type);
            let mut columns: Vec<_> = keys.iter().enumerate().map(column).collect();
            let session = session_key(input, keys);
            let slices = match optimize(plan) {
                Plan::Aggregate(input, keys, calls) if mode == OutputMode::Append => {
                    sliced(&input, &keys, &calls).map(|sliced| sliced.place)
                }
                _ => None,
            };
            if let Some(place) = session.or(slices) {
                columns.remove(place);
            }
            if slices.is_some() {
                columns.push("slice TIMESTAMP".to_string());
            }
            let kind = |call| {
                let function = Function::new(call, input.width(), Semantics::default());
                function.start().kind().to_string()
            };
            let kinds = calls.iter().map(kind);
            let values = session.map(|_| SESSIONS.to_string()).into_iter().chain(kinds).collect();
            let layout = StateLayout {
                keys: columns.join(", "),
                values,
                releases_by_watermark: mode == OutputMode::Append,
                ..StateLayout::default()
            };
            let keys: Vec<_> = keys.iter().map(|(key, _)| typed(key)).collect();
            let call = |call: &AggregateCall| {
                let args: Vec<_> = call.args.iter().map(typed).collect();
                let arg = if args.is_empty() { "*".to_string() } else { args.join(", ") };
                let filter = call.filter.as_ref().map(|f| format!(" where {}", for_checkpoint(f)));
                let name = match &call.user {
                    Some(user) => format!("{user:?}"),
                    None => format!("{:?}", call.function).to_lowercase(),
                };
                let distinct = if call.distinct { "distinct " } else { "" };
                format!("{name}({distinct}{arg}){}", filter.unwrap_or_default())
            };
            let calls: Vec<_> = calls.iter().map(call).collect();
            let by = if slices.is_some() { "aggregate by slices of" } else { "aggregate by" };
            let what = format!("{by} ({}): {}", keys.join(", "), calls.join(", "));
            out.push((what, layout));
        }
        Plan::Deduplicate { input, keys, within } => {
            let columns = input.scope().columns;
            let column = |(i, key): (usize, &usize)| format!("k{i} {}", columns[*key].data_type);
            let keys_of: Vec<_> = keys.iter().enumerate().map(column).collect();
            let layout = StateLayout {
                keys: keys_of.join(", "),
                values: vec![TIME.to_string()],
                ..StateLayout::default()
            };
            let names: Vec<_> = keys.iter().map(|key| columns[*key].name.clone()).collect();
            let within = if *within { " within the watermark" } else { "" };
            out.push((format!("deduplicate by ({}){within}", names.join(", ")), layout));
        }
        Plan::ArbitraryState { input, keys, operator } => {
            let columns = input.scope().columns;
            let types: Vec<_> =
                columns[..*keys].iter().map(|column| column.data_type.to_string()).collect();
            let what = operator.method.name();
            out.push((
                format!("{what} by ({}): {}", types.join(", "), operator.states),
                StateLayout::default(),
            ));
        }
        Plan::Join(join) if join.is_of_streams() => out.push(describe_join(join, mode)),
        _ => {}
    }
    plan.inputs().into_iter().for_each(|input| describe(input, mode, out));
}
