//! What makes a plan cheaper and changes nothing in its result: names of relations are dropped, and
//! projections go into what stands above them where that computes nothing twice.

use super::aggregates::AggregateCall;
use super::expr::functions::is_deterministic;
use super::expr::nulls::{is_strict, propagate};
use super::expr::{Node, Resolved};
use super::generate::Generator;
use super::join::{self, conjuncts};
use super::plan::{Join, JoinKind, Plan, SortKey};
use super::types::{DataType, Field, Schema};
use super::value::Value;
use super::windows::has_watermark;

/// The plan to be run.
pub fn optimize(plan: &Plan) -> Plan {
    match plan {
        Plan::Alias(input, _) | Plan::AliasFrom(input, ..) | Plan::Qualified(input, _) => {
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
        Plan::Join(join) => {
            let (left, right) = (optimize(&join.left), optimize(&join.right));
            let condition = join.condition.clone().map(propagate);
            joined(Join { left, right, condition, ..(**join).clone() })
        }
        Plan::Scan(_) | Plan::Values(..) => plan.clone(),
    }
}

/// Branches of a union that are left apart, whatever they are.
const FEW_BRANCHES: usize = 64;

/// The branches of a union; of many, those that stand behind each other and are one constant row
/// each, as `SELECT 1, 'a'` is, become one list of rows.
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

/// The row of a `SELECT` of constants without `FROM`; another plan as it is.
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

/// An aggregation, with NULL for what is an operation on NULL.
fn aggregated(input: Box<Plan>, keys: Vec<(Resolved, String)>, calls: Vec<AggregateCall>) -> Plan {
    let keys = keys.into_iter().map(|(key, name)| (propagate(key), name)).collect();
    let calls = calls.into_iter().map(|call| AggregateCall {
        args: call.args.into_iter().map(propagate).collect(),
        filter: call.filter.map(propagate),
        ..call
    });
    Plan::Aggregate(input, keys, calls.collect())
}

/// A projection, with NULL for what is an operation on NULL.
fn projected(input: Box<Plan>, mut exprs: Vec<(Resolved, String)>) -> Plan {
    if !is_written_out(&input) {
        exprs = exprs.into_iter().map(|(expr, name)| (propagate(expr), name)).collect();
    }
    Plan::Project(input, exprs)
}

/// Whether it is a list of rows, or made of one row by row. `SELECT` without `FROM` is none.
fn is_written_out(plan: &Plan) -> bool {
    match plan {
        Plan::Values(schema, _) => !schema.fields.is_empty(),
        Plan::Project(input, _) | Plan::Filter(input, _) | Plan::Limit(input, _) => {
            is_written_out(input)
        }
        _ => false,
    }
}

/// Whether a condition on one side alone that stands in a join drops rows of that side: `[left, right]`.
fn drops(kind: JoinKind) -> [bool; 2] {
    match kind {
        JoinKind::Inner | JoinKind::LeftSemi => [true, true],
        JoinKind::RightOuter => [true, false],
        JoinKind::LeftOuter | JoinKind::LeftAnti => [false, true],
        JoinKind::FullOuter | JoinKind::Exists | JoinKind::In | JoinKind::Single => [false, false],
    }
}

/// A join, its streams without the rows that can have no match: these are not buffered, and do not move
/// the watermark, as in Spark.
fn joined(mut join: Join) -> Plan {
    let streams = [join.left.is_streaming(), join.right.is_streaming()];
    let of_streams = streams == [true, true];
    if !has_watermark_or_streams(&join) {
        return below_watermark(join);
    }
    let Some(condition) = join.condition.take() else { return below_watermark(join) };
    let width = join.left.width();
    let dropped = drops(join.kind);
    let goes = [0, 1].map(|side| dropped[side] && streams[side]);
    let mut below: [Vec<Resolved>; 2] = [there(&condition, &join, 0), there(&condition, &join, 1)];
    let mut here = Vec::new();
    for part in conjuncts(&condition) {
        match join::reads(part, width) {
            // A table is looked up by its own conditions.
            (true, false) if of_streams && goes[0] && repeatable(part) => {
                below[0].push(part.clone())
            }
            (false, true) if of_streams && goes[1] && repeatable(part) => {
                below[1].push(moved_back(part.clone(), width));
            }
            _ => here.push(part.clone()),
        }
    }
    join.condition = here.into_iter().reduce(and);
    let [left, right] = below;
    if let Some(condition) = left.into_iter().reduce(and).filter(|_| goes[0]) {
        join.left = filtered(join.left, &condition);
    }
    if let Some(condition) = right.into_iter().reduce(and).filter(|_| goes[1]) {
        join.right = filtered(join.right, &condition);
    }
    below_watermark(join)
}

/// That the columns of one side are there which a condition of a join needs to hold.
fn there(condition: &Resolved, join: &Join, side: usize) -> Vec<Resolved> {
    let width = join.left.width();
    let scope = if side == 0 { join.left.scope() } else { join.right.scope() };
    let from = if side == 0 { 0 } else { width };
    let mut needed = vec![false; scope.columns.len()];
    for part in conjuncts(condition) {
        mark_strict(part, &mut |index| {
            if let Some(needed) = index.checked_sub(from).and_then(|i| needed.get_mut(i)) {
                *needed = true;
            }
        });
    }
    let columns = scope.columns.iter().enumerate().zip(needed);
    let nullable = columns.filter(|((_, column), needed)| *needed && column.nullable);
    let there = nullable.map(|((i, column), _)| Resolved {
        node: Node::Call(
            "isnotnull",
            vec![Resolved {
                node: Node::Column(i, column.name.clone()),
                data_type: column.data_type.clone(),
                nullable: true,
            }],
        ),
        data_type: DataType::Boolean,
        nullable: false,
    });
    there.collect()
}

/// Calls `mark` with each column without which an expression is NULL.
fn mark_strict(expr: &Resolved, mark: &mut dyn FnMut(usize)) {
    match &expr.node {
        Node::Column(index, _) => mark(*index),
        Node::Call(name, args) if is_strict(name) || name.starts_with("datetime_") => {
            args.iter().for_each(|arg| mark_strict(arg, mark));
        }
        Node::Cast(inner, _) => mark_strict(inner, mark),
        _ => {}
    }
}

/// An expression over the columns behind the first ones, as one over these alone.
fn moved_back(expr: Resolved, by: usize) -> Resolved {
    match expr.node {
        Node::Column(index, name) => Resolved { node: Node::Column(index - by, name), ..expr },
        _ => expr.map_children(&mut |child| moved_back(child, by)),
    }
}

/// Whether it matters where a condition over a join is tested: rows that it drops may move a watermark,
/// or be buffered.
fn has_watermark_or_streams(join: &Join) -> bool {
    let plain = join.window.is_none() && join.among.is_none();
    let timed = has_watermark(&join.left) || has_watermark(&join.right);
    plain && (join.is_of_streams() || timed)
}

/// A filter over a join with a stream: what it says of one side goes there, and what it says of both
/// into the condition.
fn filtered_join(mut join: Join, condition: &Resolved) -> Plan {
    let streams = [join.left.is_streaming(), join.right.is_streaming()];
    let width = join.left.width();
    // Rows of a side whose rows all leave; beside those of an outer join's other side there are NULLs.
    let kept = match join.kind {
        JoinKind::Inner => [true, true],
        JoinKind::LeftOuter | JoinKind::LeftSemi | JoinKind::LeftAnti => [true, false],
        JoinKind::RightOuter => [false, true],
        _ => [false, false],
    };
    let inner = join.kind == JoinKind::Inner && streams == [true, true];
    let (mut left, mut right) = (None, None);
    let (mut both, mut here) = (None, None);
    let add = |to: &mut Option<Resolved>, part: Resolved| {
        *to = Some(match to.take() {
            Some(before) => and(before, part),
            None => part,
        });
    };
    for part in conjuncts(condition) {
        let one = part.clone();
        match join::reads(part, width) {
            _ if !repeatable(part) => add(&mut here, one),
            (true, false) if kept[0] && streams[0] => add(&mut left, one),
            (false, true) if kept[1] && streams[1] => add(&mut right, moved_back(one, width)),
            (true, true) if inner => add(&mut both, one),
            _ => add(&mut here, one),
        }
    }
    if let Some(part) = left {
        join.left = filtered(join.left, &part);
    }
    if let Some(part) = right {
        join.right = filtered(join.right, &part);
    }
    if let Some(part) = both {
        join.condition = Some(match join.condition.take() {
            Some(before) => and(before, part),
            None => part,
        });
        return behind(joined(join), here);
    }
    behind(Plan::Join(Box::new(join)), here)
}

/// A semi or anti join of a stream with a table as near to the source as it can be: a row that it
/// drops does not move the watermark, as in Spark.
fn below_watermark(join: Join) -> Plan {
    let drops = matches!(join.kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
    let drops = drops && !join.right.is_streaming();
    let repeats = join.condition.as_ref().is_none_or(repeatable);
    if !drops || !repeats || join.window.is_some() || !has_watermark(&join.left) {
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
        Plan::Project(input, exprs) if exprs.iter().all(|(expr, _)| repeatable(expr)) => {
            // The columns of the table stand behind those of the left side.
            let width = input.width();
            let condition = join.condition.map(|condition| over_left(condition, &exprs, width));
            let below = Join { left: *input, condition, ..join };
            Plan::Project(Box::new(below_watermark(below)), exprs)
        }
        left => Plan::Join(Box::new(Join { left, ..join })),
    }
}

/// A join's condition over what a projection of the left side is made of.
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

/// A filter as near to the source as it can be: rows that it drops are not computed on, and what
/// only they need is not read.
fn filtered(input: Plan, condition: &Resolved) -> Plan {
    match input {
        // What gives other values for other rows keeps its rows.
        Plan::Project(below, exprs)
            if reads_only_columns(condition, &exprs)
                && exprs.iter().all(|(expr, _)| repeatable(expr)) =>
        {
            let inner = substituted(condition, &exprs);
            Plan::Project(Box::new(filtered(*below, &inner)), exprs)
        }
        // What it drops does not move the watermark, as in Spark: of a conjunction the parts that do
        // not read the event time go below.
        Plan::Watermark { input, column, delay_ms, skew_ms } => {
            let goes = |part: &Resolved| !reads(part, column) && repeatable(part);
            let (below, here) = split(condition, goes);
            let input = Box::new(match below {
                Some(part) => filtered(*input, &part),
                None => *input,
            });
            behind(Plan::Watermark { input, column, delay_ms, skew_ms }, here)
        }
        // Conditions that stand behind each other are one, of which each part goes its own way.
        Plan::Filter(below, first) if has_watermark(&below) => {
            filtered(*below, &and(first, condition.clone()))
        }
        // A projection that computes what is read costs that twice, but keeps the watermark back.
        Plan::Project(below, exprs)
            if has_watermark(&below)
                && repeatable(condition)
                && exprs.iter().all(|(expr, _)| repeatable(expr)) =>
        {
            let inner = substituted(condition, &exprs);
            Plan::Project(Box::new(filtered(*below, &inner)), exprs)
        }
        // Groups that are dropped by their keys are dropped as rows.
        Plan::Aggregate(input, keys, calls)
            if has_watermark(&input) && keys.iter().all(|(key, _)| repeatable(key)) =>
        {
            let goes = |part: &Resolved| highest(part) < Some(keys.len()) && repeatable(part);
            let (below, here) = split(condition, |part| highest(part).is_some() && goes(part));
            let below = below.map(|part| substituted(&part, &keys));
            let input = Box::new(match below {
                Some(part) => filtered(*input, &part),
                None => *input,
            });
            behind(Plan::Aggregate(input, keys, calls), here)
        }
        Plan::Join(join) if has_watermark_or_streams(&join) => filtered_join(*join, condition),
        Plan::Union(inputs) => {
            Plan::Union(inputs.into_iter().map(|input| filtered(input, condition)).collect())
        }
        Plan::Generate(below, generator)
            if highest(condition) < Some(below.width()) && repeatable(&generator.array) =>
        {
            Plan::Generate(Box::new(filtered(*below, condition)), generator)
        }
        input => Plan::Filter(Box::new(input), condition.clone()),
    }
}

/// The parts of a conjunction for which something holds, and the others.
fn split(
    condition: &Resolved,
    holds: impl Fn(&Resolved) -> bool,
) -> (Option<Resolved>, Option<Resolved>) {
    let parts = conjuncts(condition).into_iter().cloned();
    let (some, others): (Vec<_>, Vec<_>) = parts.partition(|part| holds(part));
    (some.into_iter().reduce(and), others.into_iter().reduce(and))
}

/// Both conditions, the first one before the other.
fn and(a: Resolved, b: Resolved) -> Resolved {
    Resolved {
        data_type: a.data_type.clone(),
        nullable: a.nullable || b.nullable,
        node: Node::Call("and", vec![a, b]),
    }
}

/// A filter that goes no further.
fn behind(input: Plan, condition: Option<Resolved>) -> Plan {
    match condition {
        Some(condition) => Plan::Filter(Box::new(input), condition),
        None => input,
    }
}

/// Whether what a condition reads of a projection are columns and constants, and it gives the same
/// before it.
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

/// The last column that an expression reads.
fn highest(expr: &Resolved) -> Option<usize> {
    match &expr.node {
        Node::Column(index, _) => Some(*index),
        _ => expr.children().into_iter().filter_map(highest).max(),
    }
}

/// Whether each projected expression that is read is a column or a constant, or is read once.
fn may_go_into(inner: &[(Resolved, String)], outer: &[&Resolved]) -> bool {
    let mut reads = vec![0u32; inner.len()];
    outer.iter().for_each(|expr| count(expr, &mut reads));
    inner.iter().zip(reads).all(|((expr, _), reads)| {
        let free = matches!(expr.node, Node::Column(..) | Node::Literal(_));
        reads == 0 || free || reads == 1 && repeatable(expr)
    })
}

/// Whether an expression gives the same each time for the same row.
pub fn repeatable(expr: &Resolved) -> bool {
    let same = !matches!(&expr.node, Node::Call(name, _) if !is_deterministic(name));
    same && expr.children().into_iter().all(repeatable)
}

fn count(expr: &Resolved, reads: &mut [u32]) {
    if let Node::Column(index, _) = &expr.node {
        reads[*index] += 1;
    }
    // A lambda's body is computed for each element.
    let times = if matches!(expr.node, Node::Lambda(..)) { 2 } else { 1 };
    for _ in 0..times {
        expr.children().into_iter().for_each(|child| count(child, reads));
    }
}

fn substituted(expr: &Resolved, inner: &[(Resolved, String)]) -> Resolved {
    fn of_columns(expr: Resolved, inner: &[(Resolved, String)]) -> Resolved {
        match &expr.node {
            Node::Column(index, _) => inner[*index].0.clone(),
            _ => expr.map_children(&mut |child| of_columns(child, inner)),
        }
    }
    of_columns(expr.clone(), inner)
}
