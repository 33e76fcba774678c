//! Correlated scalar subqueries, which become joins with the groups of the subquery, or with its
//! first rows.

use super::{
    Inner, Joining, constants, is_grouped, plain_select, refuse_arrangement, unshifted,
    wrong_number,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::{Semantics, evaluate, fold};
use crate::table::expr::resolve::resolve;
use crate::table::expr::{Expr, Node, Resolved, functions};
use crate::table::physical::value_of_no_rows;
use crate::table::plan::analyzer::has_aggregate;
use crate::table::plan::grouping::Grouping;
use crate::table::plan::join::{always, and, conjuncts, equality, shifted};
use crate::table::plan::{JoinKind, Plan, time_window};
use crate::table::sql::group::group_by;
use crate::table::sql::place;
use crate::table::sql::query::{self, item};
use crate::table::value::Value;
use sqlparser::ast::{Query, Select};

impl Joining<'_> {
    /// Whether the rows that match an outer row are of one group: whether each key of GROUP BY is
    /// compared with a value of the outer row.
    fn has_one_group(
        &self,
        plan: &Plan,
        condition: &Resolved,
        select: &Select,
    ) -> PlanResult<bool> {
        let here = place(select.select_token.0.span.start);
        let by = group_by(&select.group_by, &constants(self.catalog), here)?;
        let (width, scope) = (self.scope().columns.len(), plan.scope());
        let compared: Vec<_> = conjuncts(condition)
            .into_iter()
            .filter_map(|conjunct| equality(conjunct, width))
            .map(|(_, inner)| unshifted(inner.clone(), width))
            .collect();
        let is_compared =
            |key: &Expr| resolve(key, &scope).is_ok_and(|key| compared.contains(&key));
        Ok(!by.all && by.sets.is_none() && by.keys.iter().all(is_compared))
    }

    /// Plans a correlated scalar subquery such as `(SELECT max(x) FROM t WHERE t.k = outer.k)`. A
    /// subquery with an aggregate is grouped by the compared columns, and a join looks up the group
    /// of an outer row. So is one with GROUP BY whose rows of an outer row are one group. Any other
    /// subquery needs LIMIT 1 or 0.
    pub(in crate::table::sql) fn correlated_scalar(
        &self,
        query: &Query,
        error: PlanError,
    ) -> PlanResult<Expr> {
        let here = query::start(query);
        let (query, select) = plain_select(query).ok_or(error.clone())?;
        let (plan, condition) = self.correlated(select, error)?;
        let items: Vec<Expr> = select
            .projection
            .iter()
            .map(|selected| item(selected, self.catalog))
            .collect::<PlanResult<_>>()?;
        let [selected] = items.as_slice() else {
            return Err(wrong_number(1, items.len(), here));
        };
        let match_range = self.match_range(query, here)?;
        let alone = is_grouped(select) || select.having.is_some() || select.distinct.is_some();
        if !alone && !has_aggregate(selected) && match_range.is_some_and(|(_, most)| most <= 1) {
            let plan = self.ordered(plan, (query, select), &items, true)?;
            let value = resolve(selected, &plan.scope())?;
            let (data_type, at) = (value.data_type.clone(), plan.width());
            let plan = time_window::with_column(plan.clone(), &plan.scope(), value, "value", None);
            let name = scalar_name(&condition, self.scope().columns.len());
            let inner = Inner { plan, condition: Some(condition), selected: at, match_range };
            let first = self.join(JoinKind::ScalarSubquery, inner, None);
            let found = Expr::Position(first + at, vec![name]);
            debug_assert_eq!(self.scope().columns[first + at].data_type, data_type);
            return Ok(found);
        }
        refuse_arrangement(select, here)?;
        if is_grouped(select)
            && match_range.is_none()
            && select.distinct.is_none()
            && self.has_one_group(&plan, &condition, select)?
        {
            let name = scalar_name(&condition, self.scope().columns.len());
            let inner = self.grouped_by_outer(plan, &condition, select, &items)?;
            let selected = inner.selected;
            let first = self.join(JoinKind::ScalarSubquery, inner, None);
            return Ok(Expr::Position(first + selected, vec![name]));
        }
        if is_grouped(select) || select.having.is_some() || !has_aggregate(selected) {
            return Err(PlanError::new(
                "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.MUST_AGGREGATE_CORRELATED_SCALAR_SUBQUERY",
                "a correlated scalar subquery may return several rows",
                "Aggregate in it: (SELECT max(x) FROM t WHERE t.k = outer.k)",
            )
            .at(here));
        }
        let nothing = match_range.is_some_and(|(skipped, taken)| skipped > 0 || taken == 0);
        let outer = self.scope();
        let width = outer.columns.len();
        let mut keys = Vec::new();
        for conjunct in conjuncts(&condition) {
            let Some((of_outer, of_inner)) = equality(conjunct, width) else {
                return Err(PlanError::new(
                    "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.CORRELATED_COLUMN_IS_NOT_ALLOWED_IN_PREDICATE",
                    format!("`{conjunct}` is not an equality of an inner and an outer value"),
                    "Compare with = only",
                )
                .at(here));
            };
            keys.push((of_outer.clone(), unshifted(of_inner.clone(), width)));
        }
        let name = scalar_name(&condition, width);
        let semantics = self.catalog.semantics();
        let (plan, default) = grouped(plan, &keys, selected, semantics)?;
        if nothing {
            // OFFSET or LIMIT removes the single row of the aggregation, so the result is NULL.
            return Ok(Expr::Literal(Value::Null, plan.scope().columns[0].data_type.clone()));
        }
        // The plan's columns are the value, a flag that the group exists, and the keys.
        let mut condition = None;
        let scope = plan.scope();
        for (i, (of_outer, _)) in keys.iter().enumerate() {
            let key = shifted(scope.column_at(2 + i), width);
            let equal = functions::resolve("=", vec![of_outer.clone(), key])?;
            condition = Some(and(condition, equal)?);
        }
        let at = self.join(
            JoinKind::ScalarSubquery,
            Inner { plan, condition, selected: 0, match_range: None },
            None,
        );
        let scope = self.scope();
        let (value, there) = (scope.column_at(at), scope.column_at(at + 1));
        let (data_type, nullable) = (value.data_type.clone(), value.nullable || default.nullable);
        let node = Node::Case(vec![(there, value)], Some(Box::new(default)));
        Ok(self.hidden_column(Resolved { node, data_type, nullable }, name))
    }
}

/// The name of a correlated scalar subquery, as in Spark: it lists each use of a column of the outer
/// row in the condition. The indices of these columns are below `width`.
fn scalar_name(condition: &Resolved, width: usize) -> String {
    fn collect<'r>(expr: &'r Resolved, width: usize, names: &mut Vec<&'r str>) {
        match &expr.node {
            Node::Column(index, name) if *index < width => names.push(name),
            _ => expr.children().into_iter().for_each(|child| collect(child, width, names)),
        }
    }
    let mut names = Vec::new();
    collect(condition, width, &mut names);
    format!("scalarsubquery({})", names.join(", "))
}

/// Groups a subquery by the keys that the outer row is compared with. Also returns the value for
/// outer rows without a group. Fails if that value is a constant whose evaluation fails, whether or
/// not there is such a row, as in Spark.
fn grouped(
    plan: Plan,
    keys: &[(Resolved, Resolved)],
    selected: &Expr,
    semantics: Semantics,
) -> PlanResult<(Plan, Resolved)> {
    let grouping = Grouping::new(plan, &[], std::slice::from_ref(selected))?;
    let Plan::Project(aggregate, columns) =
        grouping.finish(std::slice::from_ref(selected), None)?
    else {
        unreachable!("a grouping ends in a projection")
    };
    let Plan::Aggregate(input, _, calls) = *aggregate else {
        unreachable!("a grouping aggregates")
    };
    let keyed = keys.iter().enumerate().map(|(i, (_, key))| (key.clone(), format!("key{i}")));
    let (value, _) = &columns[0];
    let none = calls.iter().map(|call| value_of_no_rows(call, input.width(), semantics));
    let none = none.collect::<Result<Vec<_>, _>>()?;
    let default = fold(of_nothing(value.clone(), &none), semantics);
    let is_known = matches!(default.node, Node::Literal(_));
    if !is_known && default.is_foldable() && !default.reads_clock() {
        evaluate(&default, semantics)?;
    }
    let mut made = vec![
        (shifted(value.clone(), keys.len()), "value".to_string()),
        (always(), "there".to_string()),
    ];
    for (i, (_, key)) in keys.iter().enumerate() {
        let node = Node::Column(i, format!("key{i}"));
        let (data_type, nullable) = (key.data_type.clone(), key.nullable);
        made.push((Resolved { node, data_type, nullable }, format!("key{i}")));
    }
    let aggregate = Plan::Aggregate(input, keyed.collect(), calls);
    Ok((Plan::Project(Box::new(aggregate), made), default))
}

/// An expression over aggregates with these values.
fn of_nothing(expr: Resolved, values: &[Value]) -> Resolved {
    match &expr.node {
        Node::Column(index, _) => Resolved::literal(values[*index].clone(), expr.data_type),
        _ => expr.map_children(&mut |child| of_nothing(child, values)),
    }
}
