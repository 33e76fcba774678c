//! Correlated subqueries with aggregates or GROUP BY in EXISTS, IN and LATERAL. The subquery is
//! grouped by its own keys and by the values that the outer row is compared with, so that the groups
//! of an outer row can be looked up by a join.

use super::{Inner, Joining, is_grouped, is_unresolved, plain_select, unshifted};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::resolve::without_stars;
use crate::table::expr::{Expr, Resolved, call, functions};
use crate::table::plan::Plan;
use crate::table::plan::analyzer::has_aggregate;
use crate::table::plan::grouping::Grouping;
use crate::table::plan::join::{and, conjuncts, equality, shifted};
use crate::table::plan::time_window;
use crate::table::sql::expr::convert_with;
use crate::table::sql::group::group_by;
use crate::table::sql::memo;
use crate::table::sql::query::item;
use crate::table::sql::subquery::{constants, negated_if};
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use sqlparser::ast::{self, Query, Select};

/// The rows of a correlated subquery before its aggregation, and the condition that relates them to
/// an outer row.
pub(in crate::table::sql) struct Correlated {
    pub plan: Plan,
    pub condition: Resolved,
    pub match_range: Option<(u64, u64)>,
}

/// A subquery whose result does not depend on the outer row: one row, or none.
fn of_rows(rows: usize) -> Inner {
    let plan = Plan::Values(Schema::default(), vec![Vec::new(); rows]);
    Inner { plan, condition: None, selected: 0, match_range: None }
}

fn refuse(what: &str, here: Place) -> PlanError {
    PlanError::not_yet(format!("a correlated subquery with an aggregate and {what}")).at(here)
}

impl Joining<'_> {
    /// Plans the aggregation of an EXISTS, IN or LATERAL subquery. If `selects`, its selected columns
    /// are those from [`Inner::selected`] on.
    pub(in crate::table::sql) fn aggregated(
        &self,
        correlated: Correlated,
        select: &Select,
        items: &[Expr],
        selects: bool,
    ) -> PlanResult<Inner> {
        let here = super::place(select.select_token.0.span.start);
        let Correlated { plan, condition, match_range } = correlated;
        let (skipped, taken) = match_range.unwrap_or((0, u64::MAX));
        if !selects && select.having.is_none() && !is_grouped(select) {
            // An aggregation without GROUP BY has one row, whatever the outer row is.
            return Ok(of_rows(usize::from(skipped == 0 && taken > 0)));
        }
        if !selects && taken == 0 {
            return Ok(of_rows(0));
        }
        if skipped > 0 || selects && match_range.is_some() {
            return Err(refuse("`LIMIT` or `OFFSET`", here));
        }
        if !is_grouped(select) {
            return Err(refuse("HAVING or several columns", here));
        }
        self.grouped_by_outer(plan, &condition, select, items)
    }

    pub(super) fn grouped_by_outer(
        &self,
        mut plan: Plan,
        condition: &Resolved,
        select: &Select,
        items: &[Expr],
    ) -> PlanResult<Inner> {
        let here = super::place(select.select_token.0.span.start);
        let width = self.scope().columns.len();
        let written = plan.scope();
        let mut of_outer = Vec::new();
        let mut keys = Vec::new();
        for conjunct in conjuncts(condition) {
            let Some((outer, inner)) = equality(conjunct, width) else {
                return Err(refuse("a condition other than an equality with the outer row", here));
            };
            of_outer.push(outer.clone());
            let (scope, inner) = (plan.scope(), unshifted(inner.clone(), width));
            let name = format!("key{}", keys.len());
            keys.push(Expr::Position(plan.width(), vec![name.clone()]));
            plan = time_window::with_column(plan, &scope, inner, &name, None);
        }
        let constant = constants(self.catalog);
        let by = group_by(&select.group_by, &constant, here)?;
        if by.all || by.sets.is_some() {
            return Err(refuse("`GROUP BY ALL` or grouping sets", here));
        }
        let items = without_stars(&written, items)?;
        let count = keys.len();
        let mut selected = keys.clone();
        selected.extend(items.iter().cloned());
        // An ordinal of GROUP BY counts the items that the user wrote.
        let own = by.keys.iter().map(|key| match key {
            Expr::Literal(Value::Long(at), DataType::Int) => {
                Expr::Literal(Value::Long(*at + count as i64), DataType::Int)
            }
            other => other.clone(),
        });
        keys.extend(own);
        let having = select.having.as_ref().map(|e| convert_with(e, &constant)).transpose()?;
        let plan = Grouping::new(plan, &keys, &selected)?.finish(&selected, having.as_ref())?;
        let (scope, mut condition) = (plan.scope(), None);
        for (at, outer) in of_outer.into_iter().enumerate() {
            let equal = functions::resolve("=", vec![outer, shifted(scope.column_at(at), width)])?;
            condition = Some(and(condition, equal)?);
        }
        Ok(Inner { plan, condition, selected: count, match_range: None })
    }

    /// Plans `value IN (SELECT count(*) FROM t WHERE t.k = outer.k)`: an aggregation without GROUP BY
    /// has one row for each outer row, so its value is compared. `None` for other subqueries.
    pub(super) fn in_single_row(
        &self,
        value: &ast::Expr,
        query: &Query,
        negated: bool,
    ) -> PlanResult<Option<Expr>> {
        if !self.has_single_row(query)? {
            return Ok(None);
        }
        let Err(error) = memo::plan(query, self.catalog) else { return Ok(None) };
        if !is_unresolved(&error) {
            return Ok(None);
        }
        let value = self.convert(value)?;
        let found = call("=", [value, self.correlated_scalar(query, error)?]);
        let found = negated_if(negated, found);
        Ok(Some(match self.of_value.get() {
            true => call("coalesce", [found, false.into()]),
            false => found,
        }))
    }

    /// Whether a query is an aggregation to one row with one column.
    pub(super) fn has_single_row(&self, query: &Query) -> PlanResult<bool> {
        let Some((query, select)) = plain_select(query) else { return Ok(false) };
        let is_plain = !is_grouped(select)
            && select.having.is_none()
            && query.limit_clause.is_none()
            && select.distinct.is_none();
        match select.projection.as_slice() {
            [selected] if is_plain => Ok(has_aggregate(&item(selected, self.catalog)?)),
            _ => Ok(false),
        }
    }
}
