//! Predicate pushdown: moves conditions from a filter above a join, and from the join itself, into
//! the join's input streams, so that the rows that they drop are not buffered. As in Spark, a
//! condition that does not read the event time is pushed below the watermark.

use crate::table::expr::null_propagation::is_strict;
use crate::table::expr::{Node, Resolved};
use crate::table::plan::join;
use crate::table::plan::join::conjuncts;
use crate::table::plan::optimizer::{
    and, behind, below_watermark, filtered, is_deterministic_expr,
};
use crate::table::plan::time_window::has_watermark;
use crate::table::plan::{Join, JoinKind, Plan};
use crate::table::types::DataType;

/// For the left and the right side: whether a condition in ON that reads only this side may filter
/// the side's rows before the join.
fn drops(kind: JoinKind) -> [bool; 2] {
    match kind {
        JoinKind::Inner | JoinKind::LeftSemi => [true, true],
        JoinKind::RightOuter => [true, false],
        JoinKind::LeftOuter | JoinKind::LeftAnti => [false, true],
        JoinKind::FullOuter | JoinKind::Exists | JoinKind::In | JoinKind::ScalarSubquery => {
            [false, false]
        }
    }
}

/// Pushes conditions on one side into the stream of this side, where the kind of the join allows
/// it: conditions that follow from the join's condition and, in a join of two streams, the parts of
/// it that read only this side.
pub(in crate::table) fn joined(mut join: Join) -> Plan {
    let streams = [join.left.is_streaming(), join.right.is_streaming()];
    let of_streams = streams == [true, true];
    if !is_pushed_into(&join) {
        return below_watermark(join);
    }
    let Some(condition) = join.condition.take() else { return below_watermark(join) };
    let width = join.left.width();
    let dropped = drops(join.kind);
    let goes = [0, 1].map(|side| dropped[side] && streams[side]);
    let mut below: [Vec<Resolved>; 2] = [there(&condition, &join, 0), there(&condition, &join, 1)];
    for side in [0, 1] {
        let known = constraints(if side == 0 { &join.left } else { &join.right });
        below[side].retain(|part| !known.contains(part));
        for part in implied(&condition, &join, side) {
            if !known.contains(&part) && !below[side].contains(&part) {
                below[side].push(part);
            }
        }
    }
    let mut here = Vec::new();
    for part in conjuncts(&condition) {
        match join::reads(part, width) {
            // In a join with a table, the lookup evaluates such conditions itself.
            (true, false) if of_streams && goes[0] && is_deterministic_expr(part) => {
                below[0].push(part.clone())
            }
            (false, true) if of_streams && goes[1] && is_deterministic_expr(part) => {
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

/// IS NOT NULL conditions for columns of one side. They follow from the join condition, which can
/// be true only if these columns are not NULL.
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

/// Calls `mark` with each column for which a NULL makes the whole expression NULL.
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

/// Subtracts `by` from each column index of an expression.
fn moved_back(expr: Resolved, by: usize) -> Resolved {
    match expr.node {
        Node::Column(index, name) => Resolved { node: Node::Column(index - by, name), ..expr },
        _ => expr.map_children(&mut |child| moved_back(child, by)),
    }
}

/// Whether filters are pushed into this join: it joins two streams, or an input has a watermark.
/// The rows that a filter drops would otherwise be buffered or advance the watermark. False for IN,
/// for an ASOF join and for a join with a match range.
pub(in crate::table) fn is_pushed_into(join: &Join) -> bool {
    let plain = join.match_range.is_none() && join.in_operands.is_none();
    let timed = has_watermark(&join.left) || has_watermark(&join.right);
    plain && (join.is_of_streams() || timed)
}

/// Pushes a filter on top of a join with a stream into the join. Conditions on one side are pushed
/// to that side if it is a stream and the kind of the join allows it. In an inner join of two
/// streams, conditions on both sides become part of the join condition. Other conditions stay above
/// the join.
pub(in crate::table) fn filtered_join(mut join: Join, condition: &Resolved) -> Plan {
    let streams = [join.left.is_streaming(), join.right.is_streaming()];
    let width = join.left.width();
    join.kind = without_nulls(join.kind, condition, width);
    // The sides whose rows can be filtered before the join. In an outer join, the columns of the
    // other side may be NULL in the result, so that side is not filtered.
    let kept = match join.kind {
        JoinKind::Inner => [true, true],
        JoinKind::LeftOuter
        | JoinKind::LeftSemi
        | JoinKind::LeftAnti
        | JoinKind::Exists
        | JoinKind::ScalarSubquery => [true, false],
        JoinKind::RightOuter => [false, true],
        JoinKind::FullOuter | JoinKind::In => [false, false],
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
            _ if !is_deterministic_expr(part) => add(&mut here, one),
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
    }
    // A pushed condition may imply a condition on the other side, or allow a stricter join kind.
    behind(joined(join), here)
}

/// The join kind under a filter that drops rows in which one side, or either side, is all NULL. A
/// LEFT or RIGHT join may become an inner join, and a FULL join an inner, LEFT or RIGHT join.
fn without_nulls(kind: JoinKind, condition: &Resolved, width: usize) -> JoinKind {
    let mut needed = [false, false];
    for part in conjuncts(condition) {
        let mut mark = |index: usize| needed[usize::from(index >= width)] = true;
        match &part.node {
            Node::Call("isnotnull", args) => {
                args.iter().for_each(|arg| mark_strict(arg, &mut mark))
            }
            _ => mark_strict(part, &mut mark),
        }
    }
    match (kind, needed) {
        (JoinKind::LeftOuter, [_, true]) | (JoinKind::RightOuter, [true, _]) => JoinKind::Inner,
        (JoinKind::FullOuter, [true, true]) => JoinKind::Inner,
        (JoinKind::FullOuter, [true, false]) => JoinKind::LeftOuter,
        (JoinKind::FullOuter, [false, true]) => JoinKind::RightOuter,
        _ => kind,
    }
}

/// Deterministic conditions that are true for all rows of a plan, over its columns. A filter is
/// found only if nothing but projections, watermarks and other filters is above it.
fn constraints(plan: &Plan) -> Vec<Resolved> {
    match plan {
        Plan::Filter(input, condition) => {
            let mut all = constraints(input);
            all.extend(
                conjuncts(condition)
                    .into_iter()
                    .filter(|part| is_deterministic_expr(part))
                    .cloned(),
            );
            all
        }
        Plan::Watermark { input, .. } => constraints(input),
        Plan::Project(input, exprs) => {
            let place = |index: usize| {
                exprs.iter().position(|(e, _)| matches!(e.node, Node::Column(i, _) if i == index))
            };
            constraints(input).into_iter().filter_map(|part| moved(&part, &place)).collect()
        }
        _ => Vec::new(),
    }
}

/// Renumbers the columns of an expression by `place`; `None` if `place` has no number for a column.
fn moved(expr: &Resolved, place: &dyn Fn(usize) -> Option<usize>) -> Option<Resolved> {
    let mut all_have = true;
    fn of(expr: Resolved, place: &dyn Fn(usize) -> Option<usize>, all: &mut bool) -> Resolved {
        match expr.node {
            Node::Column(index, name) => {
                let to = place(index);
                *all &= to.is_some();
                Resolved { node: Node::Column(to.unwrap_or(index), name), ..expr }
            }
            _ => expr.map_children(&mut |child| of(child, place, all)),
        }
    }
    let made = of(expr.clone(), place, &mut all_have);
    all_have.then_some(made)
}

/// Conditions on one side that follow from its equalities with columns of the other side, and from
/// conditions on these columns. Floating-point and nested columns imply nothing.
fn implied(condition: &Resolved, join: &Join, side: usize) -> Vec<Resolved> {
    let width = join.left.width();
    // Pairs of equal columns: the index in this side, and the index in the other side.
    let mut equal = Vec::new();
    let mut of_other = constraints(if side == 0 { &join.right } else { &join.left });
    for part in conjuncts(condition) {
        if let Some((a, b)) = join::equality(part, width) {
            // Floating-point numbers are left out: 0.0 and -0.0 are equal but other functions tell
            // them apart.
            let exact = !a.data_type.is_nested()
                && !matches!(a.data_type, DataType::Double | DataType::Float);
            if let (true, Node::Column(a, _), Node::Column(b, _)) = (exact, &a.node, &b.node) {
                let (a, b) = (*a, *b - width);
                equal.push(if side == 0 { (a, b) } else { (b, a) });
            }
            continue;
        }
        match (join::reads(part, width), side) {
            ((true, false), 1) if is_deterministic_expr(part) => of_other.push(part.clone()),
            ((false, true), 0) if is_deterministic_expr(part) => {
                of_other.push(moved_back(part.clone(), width))
            }
            _ => {}
        }
    }
    let place = |index: usize| equal.iter().find(|(_, b)| *b == index).map(|(a, _)| *a);
    let reads_any = |part: &Resolved| join::reads(part, usize::MAX).0;
    let of_other = of_other.iter().filter(|part| reads_any(part));
    of_other.filter_map(|part| moved(part, &place)).collect()
}

#[cfg(test)]
mod tests {
    use crate::session::Session;
    use crate::table::plan::optimizer::optimize;

    /// The operators of an optimised plan, one line each, for a query over `l(k, t, v)` and `r(k,
    /// t, v)`.
    fn lines(sql: &str) -> Vec<String> {
        let session = Session::new();
        for name in ["l", "r"] {
            let source = format!("{name}0");
            session.memory_stream(&source, "k BIGINT, t TIMESTAMP, v BIGINT").unwrap();
            let frame = session.view(&source).unwrap().with_watermark("t", "5 seconds").unwrap();
            frame.create_temp_view(name);
        }
        let tree = optimize(&session.sql(sql).unwrap().plan).tree();
        tree.lines().map(|line| line.trim_start_matches([' ', '+', '-']).to_string()).collect()
    }

    #[test]
    fn conditions_are_pushed_into_the_inputs_of_a_join() {
        let on = "ON l.k = r.k AND l.t = r.t";
        for (query, kind, there) in [
            (format!("JOIN r {on}"), "INNER", 4),
            (format!("LEFT JOIN r {on}"), "LEFT OUTER", 2),
            (format!("FULL JOIN r {on}"), "FULL OUTER", 0),
            (format!("LEFT SEMI JOIN r {on}"), "LEFT SEMI", 4),
            // A filter that drops rows with NULLs for one side changes the join kind.
            (format!("LEFT JOIN r {on} WHERE r.v > 1"), "INNER", 4),
            (format!("FULL JOIN r {on} WHERE r.v > 1"), "RIGHT OUTER", 2),
            (format!("FULL JOIN r {on} WHERE r.v IS NULL"), "FULL OUTER", 0),
            (format!("LEFT JOIN r {on} WHERE l.v > 1"), "LEFT OUTER", 2),
        ] {
            let lines = lines(&format!("SELECT 1 FROM l {query}"));
            let join = lines.iter().find(|line| line.starts_with("Join")).unwrap();
            assert!(join.starts_with(&format!("Join {kind} ON")), "{query}: {join}");
            let found: usize = lines.iter().map(|line| line.matches("isnotnull").count()).sum();
            assert_eq!(found, there, "{query}: {lines:#?}");
        }
    }

    #[test]
    fn a_condition_on_a_join_key_is_copied_to_the_other_side() {
        for sql in [
            "SELECT 1 FROM l JOIN r ON l.k = r.k AND l.k <> 7",
            "SELECT 1 FROM (SELECT v, k FROM l WHERE k <> 7) l JOIN r ON l.k = r.k",
            "SELECT 1 FROM l, r WHERE l.k = r.k AND r.k <> 7",
            "SELECT 1 FROM l LEFT JOIN r ON l.k = r.k AND l.t = r.t WHERE l.k <> 7",
        ] {
            let lines = lines(sql);
            let both = lines.iter().filter(|line| line.contains("k <> cast(7 AS BIGINT)")).count();
            assert_eq!(both, 2, "{sql}: {lines:#?}");
        }
    }
}
