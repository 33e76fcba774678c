//! Plans UNION, INTERSECT and EXCEPT.

use super::Catalog;
use super::query::{body, refuse};
use super::views::Views;
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::functions::canonicalized;
use crate::table::expr::{Node, Resolved};
use crate::table::plan::analyzer::{self, Unioned};
use crate::table::plan::join::{self, JoinType};
use crate::table::plan::{Plan, time_window};
use sqlparser::ast::{SetExpr, SetOperator, SetQuantifier};

/// The two operands of a UNION ALL; `None` for any other query body.
pub(super) fn is_union_all(body: &SetExpr) -> Option<(&SetExpr, &SetExpr)> {
    match body {
        SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier: SetQuantifier::All,
            left,
            right,
        } => Some((left, right)),
        _ => None,
    }
}

/// Plans a UNION ALL in a loop, because it may have a hundred thousand branches.
pub(super) fn union_all(body: &SetExpr, catalog: &dyn Catalog, here: Place) -> PlanResult<Plan> {
    let (mut first, mut others) = (body, Vec::new());
    while let Some((left, right)) = is_union_all(first) {
        others.push(right);
        first = left;
    }
    let mut union = Unioned::new(self::body(first, catalog)?);
    for other in others.into_iter().rev() {
        union.add(self::body(other, catalog)?).map_err(|error| error.at(here))?;
    }
    Ok(union.finish())
}

/// Plans a set operation other than UNION ALL. Fails if later rows of a stream could change its
/// result.
pub(super) fn set_operation(
    op: SetOperator,
    set_quantifier: SetQuantifier,
    (left, right): (&SetExpr, &SetExpr),
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    let once = matches!(set_quantifier, SetQuantifier::None | SetQuantifier::Distinct);
    let of_all = set_quantifier == SetQuantifier::All && op != SetOperator::Union;
    if !once && !of_all {
        return Err(refuse(format_args!("`{op} {set_quantifier}`"), here));
    }
    let (left, right) = (body(left, catalog)?, body(right, catalog)?);
    if of_all && !left.is_streaming() && !right.is_streaming() {
        return set_operation_of_all(op, left, right, catalog, here);
    }
    if of_all {
        return Err(refuse(format_args!("`{op} ALL` over a stream"), here));
    }
    let decided = match op {
        SetOperator::Union => true,
        SetOperator::Except | SetOperator::Minus => !right.is_streaming(),
        _ => !left.is_streaming() && !right.is_streaming(),
    };
    if decided {
        let made = match op {
            SetOperator::Union => analyzer::union(left, right),
            SetOperator::Intersect => set_difference(op, left, right, JoinType::LeftSemi),
            _ => set_difference(op, left, right, JoinType::LeftAnti),
        };
        let made = made.map_err(|error| error.at(here))?;
        analyzer::refuse_incomparable(&made).map_err(|error| error.at(here))?;
        let made = of_equals(made);
        return time_window::deduplicate(made, &[], false);
    }
    let (reason, fix) = match (op, left.is_streaming(), right.is_streaming()) {
        (SetOperator::Intersect, true, false) => (
            format!("`{op}` with a stream on the left is not supported"),
            "Write LEFT SEMI JOIN with the table on the right",
        ),
        (SetOperator::Intersect, true, true) => {
            (format!("`{op}` of two streams is not supported"), "Join the streams")
        }
        _ => (
            format!(
                "`{op}` with a stream on the right can never be decided: a later row may \
                change the result"
            ),
            "Filter with a condition instead",
        ),
    };
    Err(PlanError::new("STREAMING_SET_OPERATION_UNSUPPORTED", reason, fix).at(here))
}

/// Plans INTERSECT or EXCEPT: the left rows that occur, or do not occur, among the right rows. Both
/// sides are cast to common types.
fn set_difference(op: SetOperator, left: Plan, right: Plan, written: JoinType) -> PlanResult<Plan> {
    let (left, right) = analyzer::widened(&op.to_string(), left, right)?;
    analyzer::refuse_incomparable(&left)?;
    join::set_difference_join(left, right, written)
}

/// Converts all columns to canonical form, so that equal rows have equal bytes.
fn of_equals(plan: Plan) -> Plan {
    let columns = plan.scope().columns.into_iter().enumerate().map(|(i, c)| {
        let node = Node::Column(i, c.name.clone());
        (Resolved { node, data_type: c.data_type, nullable: c.nullable }, c.name)
    });
    let columns: Vec<_> = columns.map(|(column, name)| (canonicalized(column), name)).collect();
    if columns.iter().all(|(column, _)| matches!(column.node, Node::Column(..))) {
        return plan;
    }
    Plan::Project(Box::new(plan), columns)
}

/// Re-associates a chain of set operations, so that they are evaluated from left to right, without
/// precedence of INTERSECT. `None` if the body is not a set operation.
pub(super) fn from_left(body: &SetExpr) -> Option<SetExpr> {
    fn chain<'b>(
        body: &'b SetExpr,
        out: &mut Vec<(&'b SetExpr, Option<(SetOperator, SetQuantifier)>)>,
    ) {
        match body {
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                chain(left, out);
                let from = out.len();
                chain(right, out);
                out[from].1 = Some((*op, *set_quantifier));
            }
            other => out.push((other, None)),
        }
    }
    let SetExpr::SetOperation { .. } = body else { return None };
    let mut parts = Vec::new();
    chain(body, &mut parts);
    let mut parts = parts.into_iter();
    let first = parts.next()?.0.clone();
    Some(parts.fold(first, |left, (right, op)| match op {
        Some((op, set_quantifier)) => SetExpr::SetOperation {
            op,
            set_quantifier,
            left: Box::new(left),
            right: Box::new(right.clone()),
        },
        None => left,
    }))
}

/// The number of copies of a row that are made at once.
const CHUNK: u64 = 1 << 14;

/// Plans `EXCEPT ALL` or `INTERSECT ALL` of two tables: each row as often as it occurs on the left
/// more than on the right, or as often as it occurs on both sides.
fn set_operation_of_all(
    op: SetOperator,
    left: Plan,
    right: Plan,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    let names: Vec<String> = left.scope().columns.into_iter().map(|column| column.name).collect();
    let widened = analyzer::widened(&format!("{op} ALL"), left, right);
    let (left, right) = widened.map_err(|error| error.at(here))?;
    analyzer::refuse_incomparable(&left).map_err(|error| error.at(here))?;
    let numbered: Vec<String> = (0..names.len()).map(|at| format!("c{at}")).collect();
    let columns = numbered.join(", ");
    let mut views = Views::of_generated(catalog);
    views.insert("l", left.renamed(numbered.clone()));
    views.insert("r", right.renamed(numbered));
    let times = match op {
        SetOperator::Intersect => "least(count_if(n > 0), count_if(n < 0))",
        _ => "sum(n)",
    };
    let sql = format!(
        "SELECT {columns} FROM (SELECT {columns}, {times} AS times FROM \
         (SELECT {columns}, 1L AS n FROM l UNION ALL SELECT {columns}, -1L AS n FROM r) \
         GROUP BY {columns}) \
         LATERAL VIEW explode(CASE WHEN times > 0 THEN \
         sequence(0L, (times - 1L) div {CHUNK}L) END) chunks AS chunk \
         LATERAL VIEW explode(sequence(1L, least({CHUNK}L, times - chunk * {CHUNK}L))) copies AS copy"
    );
    Ok(views.plan_generated(&sql, here)?.renamed(names))
}
