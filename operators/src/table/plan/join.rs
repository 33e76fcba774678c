//! Analysis of joins: the supported joins, and the names of their columns.

use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::resolve::{Hook, Scope, ScopeColumn, resolve_with};
use crate::table::expr::{Expr, Node, Resolved, functions};
use crate::table::physical::placement;
use crate::table::plan::analyzer::joins_streams;
use crate::table::plan::asof_join;
use crate::table::plan::optimizer::{may_go_into, optimize, substituted};
use crate::table::plan::time_window::has_watermark;
use crate::table::plan::{Join, JoinKind, Plan, Qualifier, Scan};
use crate::table::types::DataType;
use crate::table::value::Value;

/// A join type in SQL or in the DataFrame API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinType {
    /// `JOIN`, `CROSS JOIN` and a comma.
    Inner,
    /// `LEFT JOIN`: left rows without a match are emitted with NULLs.
    LeftOuter,
    /// `RIGHT JOIN`: right rows without a match are emitted with NULLs.
    RightOuter,
    /// `FULL JOIN`: rows of both sides without a match are emitted with NULLs.
    FullOuter,
    /// `LEFT SEMI JOIN`: returns the left rows with a match, each once.
    LeftSemi,
    /// `LEFT ANTI JOIN`: returns the left rows without a match.
    LeftAnti,
}

impl JoinType {
    /// Parses Spark's name of a join type, such as `left_outer`, in any case and with or without
    /// underscores. Any other name is an error.
    pub fn parse(name: &str) -> PlanResult<Self> {
        match name.to_ascii_lowercase().replace('_', "").as_str() {
            "inner" | "cross" => Ok(Self::Inner),
            "left" | "leftouter" => Ok(Self::LeftOuter),
            "right" | "rightouter" => Ok(Self::RightOuter),
            "full" | "outer" | "fullouter" => Ok(Self::FullOuter),
            "semi" | "leftsemi" => Ok(Self::LeftSemi),
            "anti" | "leftanti" => Ok(Self::LeftAnti),
            _ => Err(PlanError::new(
                "UNSUPPORTED_JOIN_TYPE",
                format!("'{name}' is not a join type"),
                "Use inner, cross, left, right, full, left_semi or left_anti",
            )),
        }
    }
}

/// The columns of both scopes, those of the left one first.
pub fn both(left: &Scope, right: &Scope) -> Scope {
    Scope::new(left.columns.iter().chain(&right.columns).cloned().collect())
}

/// Resolves an expression over two inputs. A name that cannot be resolved in `inner` is resolved in
/// `outer`, unless it is ambiguous in `inner`. If that fails too, the error of `inner` is returned.
/// In the result, the columns of `outer` come first.
pub fn resolve_correlated(expr: &Expr, outer: &Scope, inner: &Scope) -> PlanResult<Resolved> {
    let width = outer.columns.len();
    let of_outer = |part: &Expr| resolve_with(part, outer, &mut |_| Ok(None));
    let mut hook = |part: &Expr| -> PlanResult<Option<Resolved>> {
        if !matches!(part, Expr::Column { .. }) {
            return Ok(None);
        }
        match resolve_with(part, inner, &mut |_| Ok(None)) {
            Ok(found) => Ok(Some(shifted(found, width))),
            // Two columns of the subquery have the name, so it is not a name of the outer query.
            Err(error) if error.condition == "AMBIGUOUS_REFERENCE" => Err(error),
            Err(error) => of_outer(part).map(Some).map_err(|_| error),
        }
    };
    let hook: &mut Hook<'_> = &mut hook;
    resolve_with(expr, &both(outer, inner), hook)
}

/// Adds `by` to each column index, for rows that have `by` more columns at their start.
pub fn shifted(expr: Resolved, by: usize) -> Resolved {
    match expr.node {
        Node::Column(index, name) => Resolved { node: Node::Column(index + by, name), ..expr },
        _ => expr.map_children(&mut |child| shifted(child, by)),
    }
}

/// The conjunction of two conditions, of which the first may be missing.
pub fn and(a: Option<Resolved>, b: Resolved) -> PlanResult<Resolved> {
    match a {
        Some(a) => functions::resolve("and", vec![a, b]),
        None => Ok(b),
    }
}

/// Builds a join with a condition over the columns of both inputs. Fails if the condition is
/// nondeterministic.
pub fn join(
    left: Plan,
    right: Plan,
    written: JoinType,
    condition: Option<Resolved>,
) -> PlanResult<Plan> {
    if !condition.as_ref().is_none_or(Resolved::is_steady) {
        return Err(PlanError::new(
            "INVALID_NON_DETERMINISTIC_EXPRESSIONS",
            "the condition of a join is nondeterministic",
            "Compute it in a SELECT before the join",
        ));
    }
    let kind = match written {
        JoinType::Inner => JoinKind::Inner,
        JoinType::LeftOuter => JoinKind::LeftOuter,
        JoinType::RightOuter => JoinKind::RightOuter,
        JoinType::LeftSemi => JoinKind::LeftSemi,
        JoinType::LeftAnti => JoinKind::LeftAnti,
        JoinType::FullOuter if left.is_streaming() && right.is_streaming() => JoinKind::FullOuter,
        JoinType::FullOuter => return full(left, right, condition),
    };
    let place = Place::default();
    Ok(Plan::Join(Box::new(Join {
        left,
        right,
        kind,
        condition,
        in_operands: None,
        closest: None,
        match_range: None,
        live: None,
        place,
    })))
}

/// Builds a FULL OUTER JOIN of tables: the union of a LEFT OUTER JOIN and the right rows without a
/// match.
fn full(left: Plan, right: Plan, condition: Option<Resolved>) -> PlanResult<Plan> {
    match (left.is_streaming(), right.is_streaming()) {
        (true, false) => {
            return Err(refused(JoinKind::FullOuter, ["a stream", "a table"], &right));
        }
        (false, true) => {
            return Err(refused(JoinKind::FullOuter, ["a table", "a stream"], &left));
        }
        _ => {}
    }
    // Both joins read both tables, so each reading must give the same rows.
    let (left, right) = (left.with_seeds(), right.with_seeds());
    let (of_left, of_right) = (left.scope(), right.scope());
    let (l, r) = (of_left.columns.len(), of_right.columns.len());
    let swapped = condition.clone().map(|condition| {
        fn swap(expr: Resolved, l: usize, r: usize) -> Resolved {
            match expr.node {
                Node::Column(i, name) => {
                    let i = if i < l { i + r } else { i - l };
                    Resolved { node: Node::Column(i, name), ..expr }
                }
                _ => expr.map_children(&mut |child| swap(child, l, r)),
            }
        }
        swap(condition, l, r)
    });
    let alone = Plan::Join(Box::new(Join {
        left: right.clone(),
        right: left.clone(),
        kind: JoinKind::LeftAnti,
        condition: swapped,
        in_operands: None,
        closest: None,
        match_range: None,
        live: None,
        place: Place::default(),
    }));
    let nulls = of_left
        .columns
        .iter()
        .map(|c| (Resolved::literal(Value::Null, c.data_type.clone()), c.name.clone()));
    let rest = (0..r).map(|i| (of_right.column_at(i), of_right.columns[i].name.clone()));
    let alone = Plan::Project(Box::new(alone), nulls.chain(rest).collect());
    let matched = join(left, right, JoinType::LeftOuter, condition)?;
    let names = both(&of_left, &of_right);
    Ok(qualified(Plan::Union(vec![matched, alone]), &names))
}

/// Qualifies the columns of a plan like the columns of a scope.
pub fn qualified(plan: Plan, scope: &Scope) -> Plan {
    let names = scope.columns.iter();
    let names = names.map(|c| Qualifier { relation: c.qualifier.clone(), hidden: c.hidden });
    Plan::Qualified(Box::new(plan), names.collect())
}

/// Removes hidden columns, which only a qualified name can refer to.
pub fn shown(plan: Plan) -> Plan {
    let scope = plan.scope();
    if scope.columns.iter().all(|column| !column.hidden) {
        return plan;
    }
    let (mut columns, mut names) = (Vec::new(), Vec::new());
    for (i, shown) in scope.columns.iter().enumerate().filter(|(_, c)| !c.hidden) {
        columns.push((scope.column_at(i), shown.name.clone()));
        names.push(shown.clone());
    }
    qualified(Plan::Project(Box::new(plan), columns), &Scope::new(names))
}

/// Builds the semi or anti join of INTERSECT and EXCEPT, which compares whole rows. NULLs are
/// equal. Both sides must have the same columns.
pub fn set_difference_join(left: Plan, right: Plan, written: JoinType) -> PlanResult<Plan> {
    let (of_left, of_right) = (left.scope(), right.scope());
    let width = of_left.columns.len();
    let mut condition = None;
    for i in 0..width {
        let sides = vec![of_left.column_at(i), shifted(of_right.column_at(i), width)];
        condition = Some(and(condition, functions::resolve("<=>", sides)?)?);
    }
    join(left, right, written, condition)
}

/// The index of a USING column on one side. Fails if the side has no such column, or several.
fn using_column(scope: &Scope, name: &str, side: &str) -> PlanResult<usize> {
    let missing = || {
        let shown = scope.columns.iter().filter(|c| !c.hidden);
        let names: Vec<_> = shown.map(|c| format!("`{}`", c.name)).collect();
        PlanError::new(
            "UNRESOLVED_USING_COLUMN_FOR_JOIN",
            format!("`USING ({name})`: there is no column of that name on the {side} side"),
            format!("Its columns are: {}", names.join(", ")),
        )
    };
    let expr = Expr::Column { parts: vec![name.to_string()], place: Place::default() };
    match resolve_with(&expr, scope, &mut |_| Ok(None)) {
        Ok(Resolved { node: Node::Column(index, _), .. }) => Ok(index),
        Err(error) if error.condition == "AMBIGUOUS_REFERENCE" => Err(error),
        _ => Err(missing()),
    }
}

/// Builds a USING join. The joined columns come first and appear only once. The columns that they
/// replace become hidden columns at the end.
pub fn join_using(
    left: Plan,
    right: Plan,
    written: JoinType,
    names: &[String],
) -> PlanResult<Plan> {
    let (of_left, of_right) = (left.scope(), right.scope());
    let width = of_left.columns.len();
    let mut condition = None;
    let mut pairs = Vec::new();
    for name in names {
        let l = using_column(&of_left, name, "left")?;
        let r = using_column(&of_right, name, "right")?;
        let (a, b) = (of_left.column_at(l), shifted(of_right.column_at(r), width));
        condition = Some(and(condition, functions::resolve("=", vec![a, b])?)?);
        pairs.push((l, width + r));
    }
    let joined = join(left, right, written, condition)?;
    let scope = joined.scope();
    let mut columns = Vec::new();
    let mut named = Vec::new();
    let mut put = |expr: Resolved, like: ScopeColumn| {
        columns.push((expr, like.name.clone()));
        named.push(like);
    };
    let existence = matches!(written, JoinType::LeftSemi | JoinType::LeftAnti);
    let mut hidden = Vec::new();
    for &(l, r) in &pairs {
        match written {
            JoinType::RightOuter => {
                put(scope.column_at(r), scope.columns[r].clone());
                hidden.push(l);
            }
            JoinType::FullOuter => {
                let either = vec![scope.column_at(l), scope.column_at(r)];
                let either = functions::resolve("coalesce", either)?;
                put(either, ScopeColumn { qualifier: None, ..scope.columns[l].clone() });
            }
            _ => {
                put(scope.column_at(l), scope.columns[l].clone());
                hidden.extend((!existence).then_some(r));
            }
        }
    }
    if written == JoinType::FullOuter {
        hidden = pairs.iter().map(|(l, _)| *l).chain(pairs.iter().map(|(_, r)| *r)).collect();
    }
    let is_key = |i: usize| pairs.iter().any(|&(l, r)| i == l || i == r);
    for (i, other) in scope.columns.iter().enumerate() {
        if !is_key(i) && !other.hidden {
            put(scope.column_at(i), other.clone());
        }
    }
    let before = (0..scope.columns.len()).filter(|i| scope.columns[*i].hidden);
    for i in hidden.into_iter().chain(before) {
        put(scope.column_at(i), ScopeColumn { hidden: true, ..scope.columns[i].clone() });
    }
    Ok(qualified(Plan::Project(Box::new(joined), columns), &Scope::new(named)))
}

/// The error of an outer, semi or anti join of a stream and a table, whose sides are described in
/// `sides`, that preserves rows of the table.
fn refused(kind: JoinKind, [left, right]: [&str; 2], table: &Plan) -> PlanError {
    let put = match kind {
        JoinKind::FullOuter => "Use LEFT or RIGHT JOIN with the stream on the preserved side",
        _ => "Put the stream on the preserved side",
    };
    PlanError::new(
        "STREAM_STATIC_JOIN_UNSUPPORTED",
        format!(
            "{} join with {left} on the left and {right} on the right is not supported: \
             whether a row of the table ever has a match can never be decided",
            kind.with_article()
        ),
        format!("{put}{}", or_as_stream(table)),
    )
}

/// Notices for tables that have a watermark and are joined with a stream: the keyword STREAM was
/// probably forgotten.
pub fn watermarks_without_effect(plan: &Plan) -> Vec<String> {
    let mut notices = Vec::new();
    if let Plan::Join(join) = plan {
        let table = match (join.left.is_streaming(), join.right.is_streaming()) {
            (true, false) => Some(&join.right),
            (false, true) => Some(&join.left),
            _ => None,
        };
        let table = table.filter(|table| has_watermark(table));
        notices.extend(table.and_then(|table| table.scans().first().copied()).map(|scan| {
            format!(
                "the WATERMARK of `{0}` has no effect, because it is joined as a table. To read it \
                 as a stream: STREAM {0}",
                scan.name
            )
        }));
    }
    for input in plan.inputs() {
        notices.extend(watermarks_without_effect(input));
    }
    notices
}

/// A hint for a table that can be read as a stream; empty for any other.
pub fn or_as_stream(table: &Plan) -> String {
    let is_source = |scan: &&&Scan| !scan.streaming;
    match table.scans().iter().find(is_source) {
        Some(scan) => {
            format!(", or read `{0}` as a stream, too, if it is one: STREAM {0}", scan.name)
        }
        None => String::new(),
    }
}

/// Sets the query position of the outermost join of a plan.
pub fn placed(mut plan: Plan, place: Place) -> Plan {
    match &mut plan {
        Plan::Join(join) => join.place = place,
        Plan::QualifyFrom(input, ..) | Plan::Qualified(input, _) | Plan::Project(input, _) => {
            let inner = std::mem::replace(&mut **input, Plan::Union(Vec::new()));
            **input = placed(inner, place);
        }
        _ => {}
    }
    plan
}

/// Fails if the plan has a join that is not supported on a stream, or a union of a stream and a
/// table.
pub fn check(plan: &Plan) -> PlanResult<()> {
    check_below(plan, Vec::new())
}

/// Like [`check`]. `filters` are the conditions of WHERE over the plan's rows.
fn check_below(plan: &Plan, mut filters: Vec<Resolved>) -> PlanResult<()> {
    match plan {
        Plan::Join(join) => {
            check_sides(join, &filters).map_err(|error| error.at(join.place))?;
        }
        Plan::Filter(input, condition) => {
            filters.push(condition.clone());
            return check_below(input, filters);
        }
        Plan::Alias(input, _) | Plan::QualifyFrom(input, ..) | Plan::Qualified(input, _) => {
            return check_below(input, filters);
        }
        Plan::Project(input, columns) => {
            // The conditions only explain an error, so those that would grow are left out.
            filters.retain(|filter| may_go_into(columns, &[filter]));
            let below = filters.iter().map(|filter| substituted(filter, columns));
            return check_below(input, below.collect());
        }
        _ => {}
    }
    if let Plan::Union(inputs) = plan
        && inputs.iter().any(Plan::is_streaming)
        && !inputs.iter().all(Plan::is_streaming)
    {
        return Err(PlanError::new(
            "STREAMING_UNION_WITH_TABLE_UNSUPPORTED",
            "a union of a stream and a table is not supported",
            "Read the table's files as a stream: FROM STREAM view",
        ));
    }
    plan.inputs().into_iter().try_for_each(|input| check_below(input, Vec::new()))
}

/// Fails if a join is supported only in continuous mode.
pub fn check_batches(plan: &Plan) -> PlanResult<()> {
    placement::check_batches(plan)
}

/// Fails if a join of streams, other than an ASOF join, has no equality. The plan is optimised
/// first, because then the join conditions include pushed conditions of WHERE.
pub fn check_optimized(plan: &Plan) -> PlanResult<()> {
    if joins_streams(plan) { placement::check_equality(&optimize(plan)) } else { Ok(()) }
}

fn check_sides(join: &Join, filters: &[Resolved]) -> PlanResult<()> {
    asof_join::check(join)?;
    match (join.left.is_streaming(), join.right.is_streaming()) {
        (true, true) => return placement::check(join, filters),
        (true, false) if join.kind == JoinKind::RightOuter => {
            return Err(refused(join.kind, ["a stream", "a table"], &join.right));
        }
        (false, true) if !matches!(join.kind, JoinKind::Inner | JoinKind::RightOuter) => {
            return Err(refused(join.kind, ["a table", "a stream"], &join.left));
        }
        _ => {}
    }
    Ok(())
}

/// The operands of a conjunction; the condition itself if it is not an AND.
pub fn conjuncts(condition: &Resolved) -> Vec<&Resolved> {
    match &condition.node {
        Node::Call("and", args) => args.iter().flat_map(conjuncts).collect(),
        Node::Run(_, inner) => conjuncts(inner),
        _ => vec![condition],
    }
}

/// Whether an expression reads the left input (the first `width` columns), and whether it reads the
/// right input.
pub fn reads(expr: &Resolved, width: usize) -> (bool, bool) {
    if let Node::Column(index, _) = &expr.node {
        return (*index < width, *index >= width);
    }
    let either = |(a, b): (bool, bool), (c, d): (bool, bool)| (a || c, b || d);
    expr.children().into_iter().map(|child| reads(child, width)).fold((false, false), either)
}

/// The operands of a condition that compares a left with a right expression for equality, the left
/// one first. `None` for any other condition.
pub fn equality(condition: &Resolved, width: usize) -> Option<(&Resolved, &Resolved)> {
    let Node::Call("=", args) = &condition.node else { return None };
    of_both(args, width)
}

/// Like [`equality`], for `<=>`.
pub fn null_safe_equality(condition: &Resolved, width: usize) -> Option<(&Resolved, &Resolved)> {
    let Node::Call("<=>", args) = &condition.node else { return None };
    of_both(args, width)
}

/// The operands of a comparison in the order left, right. `None` unless each operand reads exactly
/// one side.
fn of_both(args: &[Resolved], width: usize) -> Option<(&Resolved, &Resolved)> {
    let [a, b] = args else { return None };
    match (reads(a, width), reads(b, width)) {
        ((true, false), (false, true)) => Some((a, b)),
        ((false, true), (true, false)) => Some((b, a)),
        _ => None,
    }
}

/// Casts both operands of a comparison to a common type. Fails if they have none, or if it cannot
/// be compared.
pub fn compared(a: Resolved, b: Resolved) -> PlanResult<(Resolved, Resolved)> {
    match functions::resolve("=", vec![a, b])?.node {
        Node::Call(_, args) => match <[Resolved; 2]>::try_from(args) {
            Ok([a, b]) => Ok((a, b)),
            Err(_) => unreachable!("a comparison has two sides"),
        },
        _ => unreachable!("a comparison is a call"),
    }
}

/// A literal TRUE.
pub fn always() -> Resolved {
    Resolved::literal(Value::Boolean(true), DataType::Boolean)
}
