//! The optimiser rewrites a plan to a cheaper plan with the same result. Relation names are
//! dropped. A projection may be merged into a projection or an aggregation above it, and filters
//! are pushed towards the sources.

use crate::table::expr::functions::{is_deterministic, is_random};
use crate::table::expr::null_propagation::propagate;
use crate::table::expr::{Node, Resolved};
use crate::table::physical::pushdown::{filtered_join, is_pushed_into, joined};
use crate::table::plan::aggregate_function::AggregateCall;
use crate::table::plan::generator::Generator;
use crate::table::plan::join::conjuncts;
use crate::table::plan::time_window::{has_watermark, session_key};
use crate::table::plan::{Join, JoinKind, Plan, SortKey};
use crate::table::types::{Field, Schema};
use crate::table::value::Value;

/// Rewrites a plan to a cheaper plan with the same result. The plan must be resolved and checked.
pub fn optimize(plan: &Plan) -> Plan {
    match plan {
        Plan::Alias(input, _) | Plan::QualifyFrom(input, ..) | Plan::Qualified(input, _) => {
            optimize(input)
        }
        Plan::Project(input, exprs) => {
            let input = optimize(input);
            let outer: Vec<&Resolved> = exprs.iter().map(|(expr, _)| expr).collect();
            match input {
                Plan::Project(below, inner) if may_go_into(&inner, &outer) => {
                    let exprs = exprs.iter();
                    let exprs = exprs.map(|(e, name)| (substituted(e, &inner), name.clone()));
                    projected(below, exprs.collect())
                }
                input => projected(Box::new(input), exprs.clone()),
            }
        }
        Plan::Aggregate(input, keys, calls) => {
            let input = optimize(input);
            let outer: Vec<&Resolved> = keys
                .iter()
                .map(|(key, _)| key)
                .chain(calls.iter().flat_map(|call| call.args.iter().chain(&call.filter)))
                .collect();
            match input {
                Plan::Project(below, inner) if may_go_into(&inner, &outer) => {
                    let keys = keys.iter().map(|(e, name)| (substituted(e, &inner), name.clone()));
                    let calls = calls.iter().map(|call| AggregateCall {
                        args: call.args.iter().map(|arg| substituted(arg, &inner)).collect(),
                        filter: call.filter.as_ref().map(|filter| substituted(filter, &inner)),
                        ..call.clone()
                    });
                    aggregated(below, keys.collect(), calls.collect())
                }
                input => aggregated(Box::new(input), keys.clone(), calls.clone()),
            }
        }
        Plan::Filter(input, condition) => match optimize(input) {
            input if is_written_out(&input) => filtered(input, condition),
            input => filtered(input, &propagate(condition.clone())),
        },
        Plan::Window(input, windows) => Plan::Window(Box::new(optimize(input)), windows.clone()),
        Plan::Generate(input, generator) => {
            let array = propagate(generator.array.clone());
            Plan::Generate(Box::new(optimize(input)), Generator { array, ..generator.clone() })
        }
        Plan::Union(inputs) => Plan::Union(with_joined_rows(inputs.iter().map(optimize).collect())),
        Plan::Sort(input, keys) => {
            let keys =
                keys.iter().map(|key| SortKey { expr: propagate(key.expr.clone()), ..key.clone() });
            Plan::Sort(Box::new(optimize(input)), keys.collect())
        }
        Plan::Offset(input, rows) => Plan::Offset(Box::new(optimize(input)), *rows),
        Plan::Limit(input, most) => Plan::Limit(Box::new(optimize(input)), *most),
        Plan::Watermark { input, column, delay_ms, skew_ms } => Plan::Watermark {
            input: Box::new(optimize(input)),
            column: *column,
            delay_ms: *delay_ms,
            skew_ms: *skew_ms,
        },
        Plan::Deduplicate { input, keys, within } => Plan::Deduplicate {
            input: Box::new(optimize(input)),
            keys: keys.clone(),
            within: *within,
        },
        Plan::ArbitraryState { input, keys, operator } => Plan::ArbitraryState {
            input: Box::new(optimize(input)),
            keys: *keys,
            operator: operator.clone(),
        },
        Plan::Join(join) => {
            let (left, right) = (optimize(&join.left), optimize(&join.right));
            let condition = join.condition.clone().map(propagate);
            joined(Join { left, right, condition, ..(**join).clone() })
        }
        Plan::Scan(_) | Plan::Values(..) => plan.clone(),
    }
}

/// The most nodes of a condition that is pushed below a projection. Each of many projections can
/// double a condition.
const PUSHED_SIZE_MAX: usize = 10_000;

/// [`with_joined_rows`] leaves a union with at most this many branches unchanged.
const FEW_BRANCHES: usize = 64;

/// In a union with many branches, combines consecutive branches of one constant row each and equal
/// types, such as `SELECT 1, 'a'`, to a single list of rows.
fn with_joined_rows(inputs: Vec<Plan>) -> Vec<Plan> {
    if inputs.len() <= FEW_BRANCHES {
        return inputs;
    }
    let mut joined = Vec::new();
    for input in inputs {
        match (constant_row(input), joined.last_mut()) {
            (Ok((schema, row)), Some(Plan::Values(first, rows)))
                if !first.fields.is_empty() && has_types(first, &schema) =>
            {
                rows.push(row);
            }
            (Ok((schema, row)), _) => joined.push(Plan::Values(schema, vec![row])),
            (Err(input), _) => joined.push(*input),
        }
    }
    joined
}

fn has_types(first: &Schema, other: &Schema) -> bool {
    let types = |schema: &Schema| {
        schema.fields.iter().map(|field| field.data_type.clone()).collect::<Vec<_>>()
    };
    types(first) == types(other)
}

/// The row of a `SELECT` of literals without `FROM`. Any other plan, also one without columns, is
/// returned as the error value.
fn constant_row(plan: Plan) -> Result<(Schema, Vec<Value>), Box<Plan>> {
    match plan {
        Plan::Project(input, exprs)
            if matches!(&*input, Plan::Values(schema, rows)
                if schema.fields.is_empty() && rows.len() == 1)
                && !exprs.is_empty()
                && exprs.iter().all(|(expr, _)| matches!(expr.node, Node::Literal(_))) =>
        {
            let (mut fields, mut row) = (Vec::new(), Vec::new());
            for (expr, name) in exprs {
                if let Node::Literal(value) = expr.node {
                    fields.push(Field::new(name, expr.data_type, true));
                    row.push(value);
                }
            }
            Ok((Schema::new(fields), row))
        }
        other => Err(Box::new(other)),
    }
}

/// Builds an aggregation. Operations on a constant NULL in its expressions are replaced by NULL.
fn aggregated(input: Box<Plan>, keys: Vec<(Resolved, String)>, calls: Vec<AggregateCall>) -> Plan {
    let keys = keys.into_iter().map(|(key, name)| (propagate(key), name)).collect();
    let calls = calls.into_iter().map(|call| AggregateCall {
        args: call.args.into_iter().map(propagate).collect(),
        filter: call.filter.map(propagate),
        ..call
    });
    Plan::Aggregate(input, keys, calls.collect())
}

/// Builds a projection. Operations on a constant NULL in its expressions are replaced by NULL,
/// except over constant rows.
fn projected(input: Box<Plan>, mut exprs: Vec<(Resolved, String)>) -> Plan {
    if !is_written_out(&input) {
        exprs = exprs.into_iter().map(|(expr, name)| (propagate(expr), name)).collect();
    }
    Plan::Project(input, exprs)
}

/// Whether a plan is a list of constant rows (VALUES), or computes each row from such a list. A
/// `SELECT` without `FROM` does not count.
fn is_written_out(plan: &Plan) -> bool {
    match plan {
        Plan::Values(schema, _) => !schema.fields.is_empty(),
        Plan::Project(input, _) | Plan::Filter(input, _) | Plan::Limit(input, _) => {
            is_written_out(input)
        }
        _ => false,
    }
}

/// Pushes a semi or anti join of a stream with a table towards the source, if the stream has a
/// watermark and the condition is deterministic. So the rows that the join drops do not advance the
/// watermark, as in Spark. Other joins stay where they are.
pub(in crate::table) fn below_watermark(join: Join) -> Plan {
    let drops = matches!(join.kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
    let drops = drops && !join.right.is_streaming();
    let repeats = join.condition.as_ref().is_none_or(is_deterministic_expr);
    if !drops || !repeats || join.match_range.is_some() || !has_watermark(&join.left) {
        return Plan::Join(Box::new(join));
    }
    match join.left {
        Plan::Watermark { input, column, delay_ms, skew_ms } => {
            let input = Box::new(below_watermark(Join { left: *input, ..join }));
            Plan::Watermark { input, column, delay_ms, skew_ms }
        }
        Plan::Filter(input, filter) => {
            Plan::Filter(Box::new(below_watermark(Join { left: *input, ..join })), filter)
        }
        Plan::Project(input, exprs)
            if exprs.iter().all(|(expr, _)| is_deterministic_expr(expr)) =>
        {
            // The table's columns follow the left columns, so their indices change with the left
            // width.
            let width = input.width();
            let condition = join.condition.map(|condition| over_left(condition, &exprs, width));
            let below = Join { left: *input, condition, ..join };
            Plan::Project(Box::new(below_watermark(below)), exprs)
        }
        left => Plan::Join(Box::new(Join { left, ..join })),
    }
}

/// Rewrites a join condition, so that it reads the input of a left projection instead of its
/// output.
fn over_left(condition: Resolved, left: &[(Resolved, String)], width: usize) -> Resolved {
    match &condition.node {
        Node::Column(index, _) if *index < left.len() => left[*index].0.clone(),
        Node::Column(index, name) => {
            let node = Node::Column(index - left.len() + width, name.clone());
            Resolved { node, ..condition }
        }
        _ => condition.map_children(&mut |child| over_left(child, left, width)),
    }
}

/// Pushes a filter towards the source, as far as this is possible.
pub(in crate::table) fn filtered(input: Plan, condition: &Resolved) -> Plan {
    match input {
        // The condition must be deterministic, and so must all expressions of the projection.
        Plan::Project(below, exprs)
            if reads_only_columns(condition, &exprs)
                && exprs.iter().all(|(expr, _)| is_deterministic_expr(expr)) =>
        {
            let inner = substituted(condition, &exprs);
            Plan::Project(Box::new(filtered(*below, &inner)), exprs)
        }
        // As in Spark, dropped rows do not advance the watermark. The parts of the condition that
        // do not read the event time are pushed below the watermark.
        Plan::Watermark { input, column, delay_ms, skew_ms } => {
            let goes = |part: &Resolved| !reads(part, column) && is_deterministic_expr(part);
            let (below, here) = split(condition, goes);
            let input = Box::new(match below {
                Some(part) => filtered(*input, &part),
                None => *input,
            });
            behind(Plan::Watermark { input, column, delay_ms, skew_ms }, here)
        }
        // Consecutive filters are combined, then each part of the condition is pushed on its own.
        Plan::Filter(below, first) if has_watermark(&below) => {
            filtered(*below, &and(first, condition.clone()))
        }
        // Below the projection, the condition computes projected expressions a second time. In
        // return, the dropped rows do not advance the watermark.
        Plan::Project(below, exprs)
            if has_watermark(&below)
                && is_deterministic_expr(condition)
                && exprs.iter().all(|(expr, _)| is_deterministic_expr(expr))
                && substituted_size(condition, &exprs) <= PUSHED_SIZE_MAX =>
        {
            let inner = substituted(condition, &exprs);
            Plan::Project(Box::new(filtered(*below, &inner)), exprs)
        }
        // Conditions on grouping keys are applied to the input rows instead of to the groups. A
        // session is not yet a key of the input rows: each row has a window of its own there.
        Plan::Aggregate(input, keys, calls)
            if has_watermark(&input) && keys.iter().all(|(key, _)| is_deterministic_expr(key)) =>
        {
            let session = session_key(&input, &keys);
            let goes = |part: &Resolved| {
                highest(part) < Some(keys.len())
                    && session.is_none_or(|session| !reads(part, session))
                    && is_deterministic_expr(part)
            };
            let (below, here) = split(condition, |part| highest(part).is_some() && goes(part));
            let below = below.map(|part| substituted(&part, &keys));
            let input = Box::new(match below {
                Some(part) => filtered(*input, &part),
                None => *input,
            });
            behind(Plan::Aggregate(input, keys, calls), here)
        }
        Plan::Join(join) if is_pushed_into(&join) => filtered_join(*join, condition),
        Plan::Union(inputs) => {
            Plan::Union(inputs.into_iter().map(|input| filtered(input, condition)).collect())
        }
        Plan::Generate(below, generator)
            if highest(condition) < Some(below.width())
                && is_deterministic_expr(condition)
                && is_deterministic_expr(&generator.array) =>
        {
            Plan::Generate(Box::new(filtered(*below, condition)), generator)
        }
        input => Plan::Filter(Box::new(input), condition.clone()),
    }
}

/// Splits a conjunction into the conditions for which `holds` is true, and the others. Each is
/// `None` if it has no condition.
fn split(
    condition: &Resolved,
    holds: impl Fn(&Resolved) -> bool,
) -> (Option<Resolved>, Option<Resolved>) {
    let parts = conjuncts(condition).into_iter().cloned();
    let (some, others): (Vec<_>, Vec<_>) = parts.partition(|part| holds(part));
    (some.into_iter().reduce(and), others.into_iter().reduce(and))
}

/// The conjunction of two conditions, evaluated from left to right.
pub(in crate::table) fn and(a: Resolved, b: Resolved) -> Resolved {
    Resolved {
        data_type: a.data_type.clone(),
        nullable: a.nullable || b.nullable,
        node: Node::Call("and", vec![a, b]),
    }
}

/// Adds a filter directly above `input`, without pushing it down. Without a condition the input is
/// returned unchanged.
pub(in crate::table) fn behind(input: Plan, condition: Option<Resolved>) -> Plan {
    match condition {
        Some(condition) => Plan::Filter(Box::new(input), condition),
        None => input,
    }
}

/// Whether a condition is deterministic and reads only columns and constants of a projection. Such
/// a condition can be evaluated before the projection.
fn reads_only_columns(condition: &Resolved, exprs: &[(Resolved, String)]) -> bool {
    match &condition.node {
        Node::Column(index, _) => {
            matches!(exprs[*index].0.node, Node::Column(..) | Node::Literal(_))
        }
        Node::Call(name, _) if !is_deterministic(name) => false,
        _ => condition.children().into_iter().all(|child| reads_only_columns(child, exprs)),
    }
}

/// Whether an expression reads a column.
pub fn reads(expr: &Resolved, column: usize) -> bool {
    match &expr.node {
        Node::Column(index, _) => *index == column,
        _ => expr.children().into_iter().any(|child| reads(child, column)),
    }
}

/// The highest column index that an expression reads; `None` if it reads no column.
fn highest(expr: &Resolved) -> Option<usize> {
    match &expr.node {
        Node::Column(index, _) => Some(*index),
        _ => expr.children().into_iter().filter_map(highest).max(),
    }
}

/// Whether a projection `inner` can be merged into the expressions above it. Each of its
/// expressions must be a column or a constant, be read never, or be deterministic and read once.
pub(super) fn may_go_into(inner: &[(Resolved, String)], outer: &[&Resolved]) -> bool {
    let mut reads = vec![0u32; inner.len()];
    outer.iter().for_each(|expr| count(expr, &mut reads));
    inner.iter().zip(reads).all(|((expr, _), reads)| {
        let free = matches!(expr.node, Node::Column(..) | Node::Literal(_));
        reads == 0 || free || reads == 1 && is_deterministic_expr(expr)
    })
}

/// The number of nodes that a condition has once the expressions of a projection replace its columns.
fn substituted_size(condition: &Resolved, inner: &[(Resolved, String)]) -> usize {
    fn size(expr: &Resolved) -> usize {
        1 + expr.children().into_iter().map(size).sum::<usize>()
    }
    let mut reads = vec![0u32; inner.len()];
    count(condition, &mut reads);
    let copies = inner.iter().zip(reads);
    let copies = copies.map(|((expr, _), reads)| size(expr).saturating_mul(reads as usize));
    copies.fold(size(condition), usize::saturating_add)
}

/// Whether an expression calls no nondeterministic function. User-defined functions are assumed to
/// be deterministic.
pub fn is_deterministic_expr(expr: &Resolved) -> bool {
    let same = !matches!(&expr.node, Node::Call(name, _) if !is_deterministic(name));
    same && expr.children().into_iter().all(is_deterministic_expr)
}

/// Whether an expression calls a function that returns random values. Unlike such a function, the
/// current time has one value in a query, so Spark counts it as deterministic.
pub fn has_random_value(expr: &Resolved) -> bool {
    matches!(&expr.node, Node::Call(name, _) if is_random(name))
        || expr.children().into_iter().any(has_random_value)
}

fn count(expr: &Resolved, reads: &mut [u32]) {
    if let Node::Column(index, _) = &expr.node {
        reads[*index] += 1;
    }
    // A lambda's body is evaluated once per element, so a read in it counts as several reads.
    let times = if matches!(expr.node, Node::Lambda(..)) { 2 } else { 1 };
    for _ in 0..times {
        expr.children().into_iter().for_each(|child| count(child, reads));
    }
}

pub(super) fn substituted(expr: &Resolved, inner: &[(Resolved, String)]) -> Resolved {
    fn of_columns(expr: Resolved, inner: &[(Resolved, String)]) -> Resolved {
        match &expr.node {
            Node::Column(index, _) => inner[*index].0.clone(),
            _ => expr.map_children(&mut |child| of_columns(child, inner)),
        }
    }
    of_columns(expr.clone(), inner)
}
