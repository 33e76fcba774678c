//! The static parts of a query: tables that are joined with streams, and subqueries. They are
//! evaluated when the query starts, and replaced by their rows in the plan. A table that may change
//! is reloaded while the query runs ([`table_changes`](super::table_changes)). So is the table of a
//! scalar subquery: the rows of the stream are joined with its single row. A query over constants is
//! evaluated here, without the engine.
//!
//! *Limits.* A scalar subquery in the condition of a join, in the array of an explode, or in a
//! query over tables only, is evaluated once.

use crate::session::Session;
use crate::session::dataframe::DataFrame;
use crate::session::streaming_query::QueryError;
use crate::session::table_changes::live_table;
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::compile::{Semantics, fold};
use crate::table::expr::{Node, Resolved};
use crate::table::physical::too_many;
use crate::table::plan::live_table::LiveTable;
use crate::table::plan::optimizer::optimize;
use crate::table::plan::{Join, JoinKind, Plan, Scan};
use crate::table::sql::query::unknown;
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

/// The format name of a memory sink's result that is read as a table.
pub(super) const MEMORY_TABLE: &str = "memory table";

/// Returns the rows of a plan; if the flag is set, at most one row.
type Rows<'r, E> = dyn FnMut(Arc<Plan>, bool) -> Result<Vec<Vec<Value>>, E> + 'r;

/// Returns how to reload a table that may change while the query runs; `None` if it cannot change.
type Live<'l> = dyn Fn(&Arc<Plan>) -> Option<LiveTable> + 'l;

/// Replaces by its rows each memory table, each scalar subquery that [`with_live_scalars`] leaves,
/// and one side of each join that is not of two streams: the table beside a stream; of two tables
/// the left one in a RIGHT JOIN, the right one otherwise.
fn with_rows<E>(plan: Plan, rows: &mut Rows<'_, E>, live_of: &Live<'_>) -> Result<Plan, E> {
    let plan = match plan {
        Plan::Join(join) if !join.is_of_streams() => {
            let Join { left, right, .. } = *join;
            let is_streaming = left.is_streaming() || right.is_streaming();
            let left_is_held =
                !left.is_streaming() && (right.is_streaming() || join.kind == JoinKind::RightOuter);
            let mut live = None;
            let mut held = |plan: Plan| {
                let (schema, plan) = (plan.schema(), Arc::new(plan));
                if is_streaming {
                    live = live_of(&plan);
                }
                Ok(Plan::Values(schema, rows(plan, false)?))
            };
            let (left, right) = if left_is_held {
                let left = held(left)?;
                (left, with_rows(right, rows, live_of)?)
            } else {
                let right = held(right)?;
                (with_rows(left, rows, live_of)?, right)
            };
            Plan::Join(Box::new(Join { left, right, live, ..*join }))
        }
        Plan::Scan(scan) if scan.format == MEMORY_TABLE => {
            let schema = scan.schema.clone();
            Plan::Values(schema, rows(Arc::new(Plan::Scan(scan)), false)?)
        }
        other => {
            let plan = other.map_inputs(&mut |input| with_rows(input, rows, live_of))?;
            with_live_scalars(plan, rows, live_of)?
        }
    };
    plan.map_exprs(&mut |expr| constant(expr, rows))
}

/// In a projection, filter, aggregation or sort of a stream, replaces the scalar subqueries whose
/// tables may change by columns of joins. Other operators are unchanged.
fn with_live_scalars<E>(
    mut plan: Plan,
    rows: &mut Rows<'_, E>,
    live_of: &Live<'_>,
) -> Result<Plan, E> {
    let output = plan.schema();
    let (Plan::Project(input, _)
    | Plan::Filter(input, _)
    | Plan::Aggregate(input, ..)
    | Plan::Sort(input, _)) = &mut plan
    else {
        return Ok(plan);
    };
    if !input.is_streaming() {
        return Ok(plan);
    }
    let width = input.width();
    let found = plan.scalar_subqueries();
    let mut live_scalars = Vec::new();
    for scalar in found {
        if let Some(live) = live_of(&scalar) {
            let table = Plan::Values(scalar.schema(), rows(scalar.clone(), true)?);
            live_scalars.push((scalar, table, live));
        }
    }
    if live_scalars.is_empty() {
        return Ok(plan);
    }
    let columns: Vec<_> = live_scalars.iter().map(|(scalar, ..)| scalar.clone()).collect();
    let mut joined = |mut input: Plan| {
        for (_, right, live) in live_scalars.drain(..) {
            input = Plan::Join(Box::new(Join {
                left: input,
                right,
                kind: JoinKind::ScalarSubquery,
                condition: None,
                in_operands: None,
                closest: None,
                match_range: None,
                live: Some(live),
                place: Place::default(),
            }));
        }
        Ok(input)
    };
    plan = plan.map_inputs(&mut joined)?;
    plan = plan.map_exprs(&mut |expr| Ok(with_columns(expr, &columns, width)))?;
    if !matches!(plan, Plan::Filter(..) | Plan::Sort(..)) {
        return Ok(plan);
    }
    // The added columns are dropped again.
    let columns = plan.scope().columns.into_iter().zip(output.fields).enumerate();
    let columns = columns.map(|(at, (column, field))| {
        let node = Node::Column(at, column.name);
        let column = Resolved { node, data_type: column.data_type, nullable: column.nullable };
        (column, field.name)
    });
    let columns = columns.collect();
    Ok(Plan::Project(Box::new(plan), columns))
}

/// Replaces each of the scalar subqueries by a column: that of the first one has the index `first`.
fn with_columns(expr: Resolved, subqueries: &[Arc<Plan>], first: usize) -> Resolved {
    let column = match &expr.node {
        Node::Scalar(plan) => subqueries.iter().position(|other| other == plan),
        _ => return expr.map_children(&mut |child| with_columns(child, subqueries, first)),
    };
    match column {
        Some(at) => Resolved { node: Node::Column(first + at, "subquery".to_string()), ..expr },
        None => expr,
    }
}

fn constant<E>(expr: Resolved, rows: &mut Rows<'_, E>) -> Result<Resolved, E> {
    if let Node::Scalar(plan) = expr.node {
        let value =
            rows(plan, true)?.pop().and_then(|row| row.into_iter().next()).unwrap_or(Value::Null);
        return Ok(Resolved { node: Node::Literal(value), ..expr });
    }
    let mut outcome = Ok(());
    let made = expr.map_children(&mut |child| match (&outcome, child) {
        (Err(_), child) => child,
        (Ok(()), child) => match constant(child, rows) {
            Ok(made) => made,
            // The plan is discarded because of the error, so any expression will do.
            Err(error) => {
                outcome = Err(error);
                Resolved::literal(Value::Null, DataType::Null)
            }
        },
    });
    outcome.map(|()| made)
}

/// Whether a plan contains parts that are evaluated when the query starts. True for any join,
/// because [`with_rows`] finds out whether it is one of two streams.
fn has_tables(plan: &Plan) -> bool {
    fn reads(expr: &Resolved) -> bool {
        matches!(expr.node, Node::Scalar(_)) || expr.children().into_iter().any(reads)
    }
    let own = match plan {
        Plan::Join(_) => true,
        Plan::Scan(scan) => scan.format == MEMORY_TABLE,
        _ => plan.exprs().any(reads),
    };
    own || plan.inputs().into_iter().any(has_tables)
}

/// Replaces the tables of the plan, and its scalar subqueries, by their current rows: see
/// [`with_rows`]. A scalar subquery with several rows is an error.
pub(super) fn read<'p>(plan: &'p Plan, session: &Session) -> Result<Cow<'p, Plan>, QueryError> {
    if !has_tables(plan) {
        return Ok(Cow::Borrowed(plan));
    }
    let mut rows = |plan: Arc<Plan>, single| -> Result<_, QueryError> {
        if let Plan::Scan(scan) = &*plan
            && scan.format == MEMORY_TABLE
        {
            return Ok(memory_rows(session, scan)?);
        }
        let rows = DataFrame::new(session.clone(), plan).collect()?;
        if single && rows.len() > 1 { Err(too_many().into()) } else { Ok(rows) }
    };
    let live = |plan: &Arc<Plan>| live_table(session, plan);
    with_rows(plan.clone(), &mut rows, &live).map(Cow::Owned)
}

/// The rows of a table in memory. Fails if it has been dropped since the plan was made, and if a new
/// table of its name has other columns, because the plan refers to columns by their index.
pub(super) fn memory_rows(session: &Session, scan: &Scan) -> PlanResult<Vec<Vec<Value>>> {
    let inner = session.lock();
    let Some((_, table)) = inner.memory_table(&scan.name) else {
        return Err(unknown(&scan.name, &*inner));
    };
    let (planned, own) = (&scan.schema.fields, &table.schema().fields);
    let is_same = |(planned, own): (&Field, &Field)| {
        planned.name.eq_ignore_ascii_case(&own.name)
            && planned.data_type == own.data_type
            && (planned.nullable || !own.nullable)
    };
    if planned.len() != own.len() || !planned.iter().zip(own).all(is_same) {
        return Err(PlanError::new(
            "INCOMPATIBLE_VIEW_SCHEMA_CHANGE",
            format!(
                "the table `{}` has other columns than when the view or query over it was planned:\n\
                 {}",
                scan.name,
                table.schema().tree()
            ),
            "Create the view, or plan the query, again",
        ));
    }
    let table = table.clone();
    drop(inner);
    Ok(table.rows())
}

/// Replaces the tables and the initial states of the plan by empty ones, for checks before the
/// query starts.
pub(super) fn with_empty_tables(plan: &Plan) -> Cow<'_, Plan> {
    let mut plan = Cow::Borrowed(plan);
    if has_tables(&plan) {
        let mut none = |_, _| Ok::<_, Infallible>(Vec::new());
        let Ok(empty) = with_rows(plan.into_owned(), &mut none, &|_| None);
        plan = Cow::Owned(empty);
    }
    if has_initial_state(&plan) {
        let Ok(empty) = without_initial_states(plan.into_owned());
        plan = Cow::Owned(empty);
    }
    plan
}

fn has_initial_state(plan: &Plan) -> bool {
    let own = matches!(plan, Plan::ArbitraryState { operator, .. } if operator.initial.is_some());
    own || plan.inputs().into_iter().any(has_initial_state)
}

fn without_initial_states(mut plan: Plan) -> Result<Plan, Infallible> {
    if let Plan::ArbitraryState { operator, .. } = &mut plan {
        operator.initial = None;
    }
    plan.map_inputs(&mut without_initial_states)
}

/// A query with fewer expressions may be evaluated without the engine. If the attempt fails, the
/// query is planned a second time.
const MOST_CONSTANT: usize = 1 << 10;

/// Whether a plan computes its columns from a single row without columns, with fewer than `left`
/// expressions. `left` is reduced by their number.
fn is_of_nothing(plan: &Plan, left: &mut usize) -> bool {
    fn fits(expr: &Resolved, left: &mut usize) -> bool {
        *left = left.saturating_sub(1);
        *left > 0 && expr.children().into_iter().all(|child| fits(child, left))
    }
    match plan {
        Plan::Alias(input, _) => is_of_nothing(input, left),
        Plan::Project(input, exprs) => {
            exprs.iter().all(|(expr, _)| fits(expr, left)) && is_of_nothing(input, left)
        }
        Plan::Values(schema, rows) => schema.fields.is_empty() && rows.len() == 1,
        _ => false,
    }
}

/// The rows of a query that reads nothing and computes constants only, such as `SELECT 1`. No engine
/// and no threads are needed for it. `None` for other queries, for long ones, and if an expression
/// has no constant value, such as one that fails.
pub(super) fn constant_rows(plan: &Plan, semantics: Semantics) -> Option<Vec<Vec<Value>>> {
    if !is_of_nothing(plan, &mut MOST_CONSTANT.clone()) {
        return None;
    }
    let Plan::Project(input, exprs) = optimize(plan) else { return None };
    if !matches!(*input, Plan::Values(..)) {
        return None;
    }
    let constant = |(expr, _)| match fold(expr, semantics).node {
        Node::Literal(value) => Some(value),
        _ => None,
    };
    Some(vec![exprs.into_iter().map(constant).collect::<Option<_>>()?])
}
