//! Plans LATERAL relations, which may refer to the relations before them: generators such as
//! `LATERAL explode(a)`, and subqueries, which are decorrelated to joins, generators or columns.

use super::Catalog;
use super::expr::convert_with;
use super::memo;
use super::order::arrangement;
use super::query::{self, from_clause, item, plain};
use super::subquery::{
    Correlated, Joining, constants, is_grouped, plain_select, refuse_arrangement,
};
use super::table_function::call_of;
use crate::table::error::{Place, PlanError, PlanResult, counted};
use crate::table::expr::bind::is_random;
use crate::table::expr::compile::constant;
use crate::table::expr::resolve::{Scope, resolve, without_stars};
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::plan::analyzer::{generate, has_aggregate, unaliased};
use crate::table::plan::generator::is_generator;
use crate::table::plan::join::{self, JoinType, always, qualified, resolve_correlated};
use crate::table::plan::{Plan, time_window};
use crate::table::value::Value;
use sqlparser::ast::{
    self, FunctionArg, JoinConstraint, Query, Select, SelectItem, SetExpr, TableAlias, TableFactor,
};

/// Whether a relation may refer to the relations before it.
pub(super) fn is_lateral(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. }
    )
}

/// Whether a condition is a constant that is true.
fn is_always(on: &ast::Expr, catalog: &dyn Catalog) -> bool {
    let value = || {
        let expr = convert_with(on, &constants(catalog))?;
        constant(&resolve(&expr, &Scope::default())?, catalog.semantics())
    };
    value().is_ok_and(|value| value == Some(Value::Boolean(true)))
}

fn refuse(what: &str, here: Place) -> PlanError {
    PlanError::not_yet(format!("a LATERAL subquery with {what}")).at(here)
}

/// The call of a generator in FROM; `None` for other functions.
fn generator_call(
    name: &ast::ObjectName,
    args: &[FunctionArg],
    catalog: &dyn Catalog,
) -> PlanResult<Option<Expr>> {
    let call = call_of(name, args, catalog)?;
    Ok(is_generator(&call).then_some(call))
}

/// The names of the columns in an alias.
fn column_names(alias: Option<&TableAlias>) -> Vec<String> {
    let columns = alias.iter().flat_map(|alias| &alias.columns);
    columns.map(|column| column.name.value.clone()).collect()
}

/// Joins a LATERAL relation to the relations before it.
pub(super) fn lateral(
    left: Plan,
    factor: &TableFactor,
    kind: JoinType,
    constraint: &JoinConstraint,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    if !matches!(kind, JoinType::Inner | JoinType::LeftOuter) {
        return Err(PlanError::new(
            "INVALID_LATERAL_JOIN_TYPE",
            "a LATERAL relation is joined by an inner, cross or left join",
            "Write JOIN LATERAL or LEFT JOIN LATERAL",
        )
        .at(here));
    }
    let on = match constraint {
        JoinConstraint::None => None,
        JoinConstraint::On(condition) => Some(condition),
        _ => {
            return Err(PlanError::new(
                "UNSUPPORTED_FEATURE.LATERAL_JOIN_USING",
                "a LATERAL relation is joined without USING and NATURAL",
                "Write ON",
            )
            .at(here));
        }
    };
    let on = on.filter(|on| !is_always(on, catalog));
    if on.is_some() && kind == JoinType::LeftOuter {
        return Err(PlanError::not_yet("ON of a LEFT JOIN LATERAL").at(here));
    }
    let outer = kind == JoinType::LeftOuter;
    let joined = match factor {
        TableFactor::Function { name, args, alias, with_ordinality: false, .. } => {
            let Some(call) = generator_call(name, args, catalog)? else {
                let what = format!("the table function `{}`", plain(name));
                return Err(PlanError::not_yet(what).at(here));
            };
            // As in Spark, a LEFT join to a function without a condition is an inner one.
            let outer = outer && !matches!(constraint, JoinConstraint::None);
            let width = left.width();
            let made = generate(left, &call, outer, &column_names(alias.as_ref()))?;
            let name = alias.as_ref().map_or_else(|| plain(name), |alias| alias.name.value.clone());
            Plan::QualifyFrom(Box::new(made), width, name)
        }
        TableFactor::Derived { subquery, alias, sample: None, .. } => {
            Lateral { query: subquery, alias: alias.as_ref(), outer, catalog, here }.plan(left)?
        }
        other => return Err(PlanError::not_yet(format_args!("`{other}` in FROM")).at(here)),
    };
    match on {
        None => Ok(joined),
        Some(condition) => {
            if let Ok(expr) = convert_with(condition, &constants(catalog))
                && !resolve(&expr, &joined.scope())?.is_steady()
            {
                return Err(PlanError::new(
                    "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.LATERAL_JOIN_CONDITION_NON_DETERMINISTIC",
                    "the condition of a LATERAL join is nondeterministic",
                    "Compute it in a SELECT before the join",
                )
                .at(here));
            }
            let filtered = Joining::new(joined, catalog);
            filtered.filter(condition)?;
            Ok(filtered.into_plan())
        }
    }
}

/// A LATERAL subquery.
struct Lateral<'q> {
    query: &'q Query,
    alias: Option<&'q TableAlias>,
    /// Whether a row without a match is kept, with NULLs.
    outer: bool,
    catalog: &'q dyn Catalog,
    here: Place,
}

impl Lateral<'_> {
    fn plan(&self, left: Plan) -> PlanResult<Plan> {
        let error = match memo::plan(self.query, self.catalog) {
            Ok(plan) => {
                self.check_steady(plan_is_steady(&plan))?;
                let plan = query::aliased(plan, self.alias, self.catalog)?;
                let kind = if self.outer { JoinType::LeftOuter } else { JoinType::Inner };
                let condition = self.outer.then(always);
                return join::join(left, plan, kind, condition);
            }
            Err(error) => error,
        };
        let is_unresolved = error.condition.starts_with("UNRESOLVED_COLUMN");
        let select = plain_select(self.query).filter(|_| is_unresolved);
        let Some((query, select)) = select else { return Err(error) };
        if query.limit_clause.is_some() || select.distinct.is_some() {
            return Err(refuse("LIMIT, OFFSET or DISTINCT", self.here));
        }
        if select.qualify.is_some() {
            return Err(refuse("QUALIFY", self.here));
        }
        let items = select.projection.iter().map(|selected| item(selected, self.catalog));
        let items = items.collect::<PlanResult<Vec<_>>>()?;
        self.check_steady(!items.iter().any(is_random))?;
        let grouped = select.having.is_some() || is_grouped(select);
        let aggregates = grouped || items.iter().any(has_aggregate);
        if aggregates || select.from.is_empty() {
            refuse_arrangement(select, self.here)?;
        }
        match (select.from.is_empty(), aggregates) {
            (true, false) if select.lateral_views.is_empty() => self.columns(left, select, &items),
            (false, false) => self.joined(left, select, &items, error),
            (false, true) if grouped => self.grouped(left, select, &items, error),
            (false, true) => self.aggregated(left, query, select, &items, error),
            _ => Err(refuse("an aggregate and without FROM", self.here)),
        }
    }

    /// Fails for a subquery with random values: it is not clear how often it would be evaluated.
    fn check_steady(&self, is_steady: bool) -> PlanResult<()> {
        if is_steady {
            return Ok(());
        }
        Err(PlanError::new(
            "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.NON_DETERMINISTIC_LATERAL_SUBQUERIES",
            "a LATERAL subquery is nondeterministic",
            "Compute the value in the SELECT list",
        )
        .at(self.here))
    }

    /// Adds values to the left columns, under the subquery's alias.
    fn with_values(
        &self,
        plan: Plan,
        left: &Scope,
        values: Vec<(Resolved, String)>,
    ) -> PlanResult<Plan> {
        let mut columns: Vec<_> = (0..left.columns.len())
            .map(|at| (left.column_at(at), left.columns[at].name.clone()))
            .collect();
        self.check_steady(values.iter().all(|(value, _)| value.is_steady()))?;
        let names = column_names(self.alias);
        if !names.is_empty() && names.len() != values.len() {
            return Err(PlanError::new(
                "ASSIGNMENT_ARITY_MISMATCH",
                format!(
                    "the alias names {}, but there are {}",
                    counted(names.len(), "column"),
                    values.len()
                ),
                "Name each column, or none",
            )
            .at(self.here));
        }
        let mut names = names.into_iter();
        columns.extend(values.into_iter().map(|(value, name)| {
            let name = names.next().unwrap_or(name);
            (value, name)
        }));
        let made = Plan::Project(Box::new(plan), columns);
        let mut scope = made.scope();
        for (at, column) in scope.columns.iter_mut().enumerate() {
            let own = left.columns.get(at);
            column.qualifier = match own {
                Some(own) => own.qualifier.clone(),
                None => self.alias.map(|alias| alias.name.value.clone()),
            };
            column.hidden = own.is_some_and(|own| own.hidden);
        }
        Ok(qualified(made, &scope))
    }

    /// A subquery without FROM: its items are columns of the left rows.
    fn columns(&self, left: Plan, select: &Select, items: &[Expr]) -> PlanResult<Plan> {
        if select.selection.is_some() && self.outer {
            return Err(refuse("WHERE in a LEFT JOIN and without FROM", self.here));
        }
        let of_left = left.scope();
        let rows = Joining::new(left, self.catalog);
        if let Some(condition) = &select.selection {
            let written = convert_with(condition, &constants(self.catalog));
            self.check_steady(!written.as_ref().is_ok_and(is_random))?;
            rows.filter(condition)?;
        }
        let mut plan = rows.into_plan();
        let [single] = items else {
            let values = items.iter().map(|item| self.value(item, &plan));
            let values = values.collect::<PlanResult<Vec<_>>>()?;
            return self.with_values(plan, &of_left, values);
        };
        if !is_generator(unaliased(single)) {
            let value = self.value(single, &plan)?;
            return self.with_values(plan, &of_left, vec![value]);
        }
        let names = match single {
            Expr::Alias(_, name) => vec![name.clone()],
            Expr::Aliases(_, names) => names.clone(),
            _ => Vec::new(),
        };
        let width = plan.width();
        plan = generate(plan, unaliased(single), self.outer, &names)?;
        let made = plan.scope();
        let values = (width..made.columns.len())
            .map(|at| (made.column_at(at), made.columns[at].name.clone()));
        self.with_values(plan, &of_left, values.collect())
    }

    fn value(&self, item: &Expr, plan: &Plan) -> PlanResult<(Resolved, String)> {
        if matches!(item, Expr::Star(_) | Expr::StarExcept(..)) || is_generator(unaliased(item)) {
            return Err(refuse("`*` or several generators and without FROM", self.here));
        }
        Ok((resolve(item, &plan.scope())?, item.output_name()))
    }

    /// A subquery without aggregates: a join with its rows.
    fn joined(
        &self,
        left: Plan,
        select: &Select,
        items: &[Expr],
        error: PlanError,
    ) -> PlanResult<Plan> {
        let of_left = left.scope();
        let rows = Joining::new(left.clone(), self.catalog);
        let (plan, condition) = match rows.correlated(select, error) {
            Ok((plan, condition)) => (plan, Some(condition)),
            // Only the items refer to the left rows.
            Err(error) if error.condition.starts_with("UNRESOLVED_COLUMN") => {
                let rows = Joining::new(from_clause(select, self.catalog)?, self.catalog);
                if let Some(condition) = &select.selection {
                    rows.filter(condition)?;
                }
                (rows.into_plan(), None)
            }
            Err(error) => return Err(error),
        };
        self.check_steady(plan_is_steady(&plan))?;
        self.check_steady(condition.as_ref().is_none_or(Resolved::is_steady))?;
        if let Some(order) = arrangement(select, self.catalog)? {
            // The rows of a join have no order; only the names of the keys are checked.
            order.sort_below(plan.clone(), items)?;
        }
        let width = of_left.columns.len();
        let scope = plan.scope();
        let items = without_stars(&scope, items)?;
        let there = width + plan.width();
        let plan = time_window::with_column(plan, &scope, always(), "there", None);
        let (kind, condition) = match self.outer {
            true => (JoinType::LeftOuter, Some(condition.unwrap_or_else(always))),
            false => (JoinType::Inner, condition),
        };
        let joined = join::join(left, plan, kind, condition)?;
        let there = joined.scope().column_at(there);
        let value = |item: &Expr| {
            if is_generator(unaliased(item)) {
                return Err(refuse("a generator and FROM", self.here));
            }
            let expr = behind(unaliased(item), width);
            let value = resolve_correlated(&expr, &of_left, &scope)?;
            let value = match self.outer {
                false => value,
                true => {
                    let null = Resolved::literal(Value::Null, value.data_type.clone());
                    Resolved {
                        data_type: value.data_type.clone(),
                        nullable: true,
                        node: Node::Case(vec![(there.clone(), value)], Some(Box::new(null))),
                    }
                }
            };
            Ok((value, item.output_name()))
        };
        let values = items.iter().map(value).collect::<PlanResult<Vec<_>>>()?;
        self.with_values(joined, &of_left, values)
    }

    /// A subquery with GROUP BY: a join with its groups.
    fn grouped(
        &self,
        left: Plan,
        select: &Select,
        items: &[Expr],
        error: PlanError,
    ) -> PlanResult<Plan> {
        let of_left = left.scope();
        let rows = Joining::new(left.clone(), self.catalog);
        let (plan, condition) = rows.correlated(select, error)?;
        self.check_steady(plan_is_steady(&plan) && condition.is_steady())?;
        let correlated = Correlated { plan, condition, match_range: None };
        let inner = rows.aggregated(correlated, select, items, true)?;
        self.check_steady(plan_is_steady(&inner.plan))?;
        let width = of_left.columns.len();
        let first = width + inner.selected;
        let kind = if self.outer { JoinType::LeftOuter } else { JoinType::Inner };
        let joined = join::join(left, inner.plan, kind, inner.condition)?;
        let made = joined.scope();
        let values = (first..made.columns.len())
            .map(|at| (made.column_at(at), made.columns[at].name.clone()));
        self.with_values(joined, &of_left, values.collect())
    }

    /// Fails if an item beside aggregates reads a column: of the subquery, because it is not
    /// grouped, or of the left rows, because Spark has no such references.
    fn check_beside_aggregate(&self, item: &Expr, inner: &Scope) -> PlanResult<()> {
        if resolve(item, &Scope::default()).is_ok() {
            return Ok(());
        }
        let (condition, reason) = match resolve(item, inner) {
            Ok(_) => ("MISSING_GROUP_BY", "reads a column of the subquery"),
            Err(_) => (
                "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.CORRELATED_REFERENCE",
                "reads a column of the relations before it",
            ),
        };
        Err(PlanError::new(
            condition,
            format!("`{item}` beside an aggregate {reason}"),
            "Aggregate it: max(x)",
        )
        .at(self.here))
    }

    /// A subquery with aggregates and without GROUP BY has one row for each left row: each of its
    /// items is a scalar subquery.
    fn aggregated(
        &self,
        left: Plan,
        query: &Query,
        select: &Select,
        items: &[Expr],
        error: PlanError,
    ) -> PlanResult<Plan> {
        let of_left = left.scope();
        let rows = Joining::new(left, self.catalog);
        let (plan, condition) = rows.correlated(select, error.clone())?;
        self.check_steady(plan_is_steady(&plan) && condition.is_steady())?;
        let mut values = Vec::new();
        for (selected, item) in select.projection.iter().zip(items) {
            let one = |selected: &SelectItem| {
                let select = Select { projection: vec![selected.clone()], ..select.clone() };
                Query {
                    body: Box::new(SetExpr::Select(Box::new(select))),
                    order_by: None,
                    ..query.clone()
                }
            };
            if !has_aggregate(item) {
                self.check_beside_aggregate(item, &plan.scope())?;
                values.push((unaliased(item).clone(), item.output_name()));
                continue;
            }
            let value = rows.correlated_scalar(&one(selected), error.clone())?;
            values.push((value, item.output_name()));
        }
        let plan = rows.into_plan();
        let scope = plan.scope();
        let resolved =
            values.iter().map(|(value, name)| Ok((resolve(value, &scope)?, name.clone())));
        let resolved = resolved.collect::<PlanResult<Vec<_>>>()?;
        self.with_values(plan, &of_left, resolved)
    }
}

/// Whether every evaluation of a plan over the same tables has the same rows.
fn plan_is_steady(plan: &Plan) -> bool {
    plan.exprs().all(Resolved::is_steady) && plan.inputs().into_iter().all(plan_is_steady)
}

/// Adds `by` to the columns that `*` stands for.
fn behind(expr: &Expr, by: usize) -> Expr {
    match expr {
        Expr::Position(at, name) => Expr::Position(at + by, name.clone()),
        other => other.map_children(&mut |part| behind(part, by)),
    }
}
