//! Plans subqueries in expressions. A scalar subquery that does not depend on the outer row becomes
//! a constant of the query. Most other subqueries become joins. For EXISTS and IN this is a semi or
//! anti join, or a join that adds a column with the result.

mod aggregated;
mod scalar;

pub(super) use self::aggregated::Correlated;
use super::expr::{Subqueries, at, convert_with, plain_args};
use super::order::{Order, arrangement, not_together, order_by};
use super::query::{self, from_clause, item};
use super::{Catalog, memo, place, refused};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::chain::balanced;
use crate::table::expr::compile::{Semantics, fold};
use crate::table::expr::resolve::{Scope, resolve};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Expr, Node, Resolved, call, functions};
use crate::table::plan::analyzer;
use crate::table::plan::analyzer::{boolean, has_aggregate};
use crate::table::plan::join::{always, and, compared, qualified, resolve_correlated, shifted};
use crate::table::plan::limits::count_select;
use crate::table::plan::time_window;
use crate::table::plan::{Join, JoinKind, Plan};
use crate::table::types::DataType;
use crate::table::value::Value;
use sqlparser::ast::{
    self, BinaryOperator, InTarget, Query, Select, SetExpr, Spanned, UnaryOperator,
};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// The plan of a subquery, and the condition that relates its rows to an outer row.
pub(super) struct Inner {
    pub plan: Plan,
    /// The correlation condition, over the columns of the outer row and of `plan`.
    pub condition: Option<Resolved>,
    /// The index of the first column of `plan` that the subquery selects.
    pub selected: usize,
    /// OFFSET and LIMIT of a correlated subquery. They apply to the rows that match an outer row.
    match_range: Option<(u64, u64)>,
}

/// The maximum number of conditions of a WHERE for which each condition gets its own filter.
const MAX_FILTERS: usize = 64;

/// Converts the expressions of a query, and joins subqueries in them to the query's plan.
pub(super) struct Joining<'c> {
    catalog: &'c dyn Catalog,
    plan: RefCell<Option<Plan>>,
    /// Whether the expression is a value and not a condition. As a value, an IN subquery whose
    /// result is unknown is false instead of NULL.
    of_value: Cell<bool>,
    /// In the condition of a join, the number of columns of its left side: a subquery must not
    /// depend on both sides.
    left_width: Option<usize>,
}

fn strip(expr: &ast::Expr) -> &ast::Expr {
    match expr {
        ast::Expr::Nested(inner) => strip(inner),
        other => other,
    }
}

/// The operands of a conjunction; the condition itself if it is not an AND.
pub(super) fn written_conjuncts(expr: &ast::Expr) -> Vec<&ast::Expr> {
    let (mut open, mut conjuncts) = (vec![expr], Vec::new());
    while let Some(expr) = open.pop() {
        match strip(expr) {
            ast::Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.extend([&**right, &**left]);
            }
            other => conjuncts.push(other),
        }
    }
    conjuncts
}

/// Whether a condition is an EXISTS or IN subquery, or the negation of one.
fn is_subquery(conjunct: &ast::Expr) -> bool {
    let positive = match strip(conjunct) {
        ast::Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::BangNot, expr } => strip(expr),
        other => other,
    };
    matches!(
        positive,
        ast::Expr::Exists { .. } | ast::Expr::In { target: InTarget::Subquery(_), .. }
    )
}

/// Whether an IN or EXISTS subquery, or a scalar one, is part of a condition. The condition is
/// converted, so that every kind of expression is searched. False if the conversion fails before.
pub(super) fn has_subquery(condition: &ast::Expr) -> bool {
    let found = Cell::new(false);
    let hook = |part: &ast::Expr| {
        let is_subquery = matches!(
            part,
            ast::Expr::Exists { .. }
                | ast::Expr::Subquery(_)
                | ast::Expr::In { target: InTarget::Subquery(_), .. }
        );
        found.set(found.get() || is_subquery);
        Ok(is_subquery.then(|| Expr::Literal(Value::Null, DataType::Null)))
    };
    // An error is reported by the conversion whose result is used.
    let _ = convert_with(condition, &hook);
    found.get()
}

/// Whether a condition tests the result of an IN or EXISTS subquery for NULL.
pub(super) fn tests_subquery(condition: &ast::Expr) -> bool {
    match condition {
        ast::Expr::BinaryOp { left, right, op } => match op {
            BinaryOperator::And | BinaryOperator::Or => {
                tests_subquery(left) || tests_subquery(right)
            }
            _ => has_subquery(condition),
        },
        ast::Expr::Nested(inner) | ast::Expr::UnaryOp { expr: inner, .. } => tests_subquery(inner),
        ast::Expr::Exists { .. } | ast::Expr::In { target: InTarget::Subquery(_), .. } => false,
        other => has_subquery(other),
    }
}

fn is_unresolved(error: &PlanError) -> bool {
    error.condition.starts_with("UNRESOLVED_COLUMN")
}

/// A hook for expressions to whose plan nothing can be joined: it converts scalar subqueries that
/// do not depend on the outer row, and calls of user-defined functions.
pub(super) fn constants(
    catalog: &dyn Catalog,
) -> impl Fn(&ast::Expr) -> PlanResult<Option<Expr>> + '_ {
    |expr| constant(expr, catalog)
}

fn constant(expr: &ast::Expr, catalog: &dyn Catalog) -> PlanResult<Option<Expr>> {
    match expr {
        ast::Expr::Subquery(query) => {
            let plan = memo::plan(query, catalog)?;
            scalar(plan, query::start(query)).map(Some)
        }
        ast::Expr::Function(function) => {
            user_call(function, catalog, &|part| constant(part, catalog))
        }
        _ => Ok(None),
    }
}

/// Converts a call of a user-defined function; `None` for any other function.
fn user_call(
    function: &ast::Function,
    catalog: &dyn Catalog,
    hook: &Subqueries<'_>,
) -> PlanResult<Option<Expr>> {
    let name = query::plain(&function.name);
    let (scalar, aggregate) = (catalog.function(&name), catalog.aggregate(&name));
    if scalar.is_none() && aggregate.is_none() {
        return Ok(None);
    }
    let here = place(function.span().start);
    let Some(args) = plain_args(function, hook)? else {
        let what = format!("DISTINCT, FILTER or OVER of the user-defined function `{name}`");
        return Err(PlanError::not_yet(what).at(here));
    };
    Ok(match (scalar, aggregate) {
        (Some(function), _) => Some(Expr::User(function, args, here)),
        (None, Some(function)) => Some(Expr::UserAggregate(function, args, here)),
        (None, None) => None,
    })
}

/// The fix for EXISTS and IN over a stream, and for their negations.
const AS_SEMI_JOIN: &str = "Write IN and EXISTS as LEFT SEMI JOIN, NOT EXISTS as LEFT ANTI JOIN, \
    with watermarks and a range: FROM a LEFT SEMI JOIN b ON a.k = b.k AND b.time <= a.time + \
    INTERVAL 1 HOUR. A subquery may read a table: a view over files without STREAM, or VALUES";
/// The fix for a scalar subquery over a stream.
const AS_JOIN: &str = "Join the stream, or aggregate it in a query of its own. A subquery may read \
    a table: a view over files without STREAM, or VALUES";

/// Fails if a subquery reads a stream, with a fix.
fn table_only(plan: Plan, fix: &str, here: Place) -> PlanResult<Plan> {
    if plan.is_streaming() {
        return Err(PlanError::new(
            "INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY",
            "a subquery reads a stream, whose answer changes with every row",
            fix,
        )
        .at(here));
    }
    Ok(plan)
}

fn scalar(plan: Plan, here: Place) -> PlanResult<Expr> {
    let plan = table_only(plan, AS_JOIN, here)?;
    one_column(&plan, here)?;
    Ok(Expr::Scalar(Arc::new(plan), here))
}

fn one_column(plan: &Plan, here: Place) -> PlanResult<()> {
    if plan.width() == 1 {
        return Ok(());
    }
    Err(PlanError::new(
        "INVALID_SUBQUERY_EXPRESSION.SCALAR_SUBQUERY_RETURN_MORE_THAN_ONE_OUTPUT_COLUMN",
        format!("a scalar subquery has {} columns", plan.width()),
        "Select one",
    )
    .at(here))
}

impl<'c> Joining<'c> {
    pub fn new(plan: Plan, catalog: &'c dyn Catalog) -> Self {
        Self {
            catalog,
            plan: RefCell::new(Some(plan)),
            of_value: Cell::new(false),
            left_width: None,
        }
    }

    /// For the condition of a join whose left side has a number of columns.
    pub fn of_join(plan: Plan, left_width: usize, catalog: &'c dyn Catalog) -> Self {
        Self { left_width: Some(left_width), ..Self::new(plan, catalog) }
    }

    /// Fails if a subquery in the condition of a join depends on both sides of the join.
    fn check_sides(&self, condition: &Resolved, here: Place) -> PlanResult<()> {
        fn sides(expr: &Resolved, left: usize, outer: usize, found: &mut (bool, bool)) {
            match &expr.node {
                Node::Column(at, _) if *at < left => found.0 = true,
                Node::Column(at, _) if *at < outer => found.1 = true,
                _ => expr.children().into_iter().for_each(|part| sides(part, left, outer, found)),
            }
        }
        let Some(left) = self.left_width else { return Ok(()) };
        let mut found = (false, false);
        sides(condition, left, self.scope().columns.len(), &mut found);
        if found != (true, true) {
            return Ok(());
        }
        Err(PlanError::new(
            "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.UNSUPPORTED_CORRELATED_EXPRESSION_IN_JOIN_CONDITION",
            "a subquery in the condition of a join depends on both sides of the join",
            "Write the condition in WHERE",
        )
        .at(here))
    }

    fn take(&self) -> Plan {
        let Some(plan) = self.plan.borrow_mut().take() else {
            unreachable!("it is put back before anything else is done")
        };
        plan
    }

    fn scope(&self) -> Scope {
        self.plan.borrow().as_ref().map_or(Scope::default(), Plan::scope)
    }

    /// Returns the plan with the joins of all converted subqueries.
    pub fn into_plan(self) -> Plan {
        self.take()
    }

    /// Joins a subquery to the plan. Returns the index of the first new column. The new columns have
    /// no name that a query could use; expressions refer to them by their index.
    fn join(
        &self,
        kind: JoinKind,
        inner: Inner,
        in_operands: Option<(Resolved, Resolved)>,
    ) -> usize {
        let left = self.take();
        let width = left.width();
        let Inner { plan: right, condition, match_range, .. } = inner;
        let (live, place) = (None, Place::default());
        let joined = Plan::Join(Box::new(Join {
            left,
            right,
            kind,
            condition,
            in_operands,
            closest: None,
            match_range,
            live,
            place,
        }));
        let hidden = match kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => joined,
            _ => {
                let mut scope = joined.scope();
                for column in scope.columns.iter_mut().skip(width) {
                    (column.qualifier, column.hidden) = (None, true);
                }
                qualified(joined, &scope)
            }
        };
        *self.plan.borrow_mut() = Some(hidden);
        width
    }

    /// A column of the plan. `join` is the index of the first column of its subquery, for the
    /// column's displayed name.
    fn column(&self, index: usize, join: usize) -> Expr {
        let name = self.scope().columns[index].name.clone();
        Expr::Position(index, vec![format!("subquery_{join}"), name])
    }

    /// Adds a hidden column to the plan, which is shown as `shown` in an expression.
    fn hidden_column(&self, value: Resolved, shown: String) -> Expr {
        let plan = self.take();
        let (scope, at) = (plan.scope(), plan.width());
        let plan = time_window::with_column(plan, &scope, value, &shown, None);
        let mut scope = plan.scope();
        (scope.columns[at].qualifier, scope.columns[at].hidden) = (None, true);
        *self.plan.borrow_mut() = Some(qualified(plan, &scope));
        Expr::Position(at, vec![shown])
    }

    /// Converts an expression and joins its subqueries to the plan.
    pub fn convert(&self, expr: &ast::Expr) -> PlanResult<Expr> {
        convert_with(expr, &|part| self.subquery(part))
    }

    /// Like [`Self::convert`], for an expression that is used as a value.
    pub fn convert_value(&self, expr: &ast::Expr) -> PlanResult<Expr> {
        self.of_value.set(true);
        let converted = self.convert(expr);
        self.of_value.set(false);
        converted
    }

    /// Converts a condition that contains subqueries, adds its value to the plan as a hidden column
    /// and returns the column. If this fails, the plan is unchanged: subqueries that were already
    /// joined to it are removed again.
    pub fn condition_column(&self, condition: &ast::Expr) -> PlanResult<Expr> {
        let before = self.plan.borrow().clone();
        let made = self.convert(condition).and_then(|expr| {
            let value = analyzer::condition(&expr, &self.scope())?;
            Ok(self.hidden_column(value, expr.to_string()))
        });
        if made.is_err() {
            *self.plan.borrow_mut() = before;
        }
        made
    }

    /// Adds a filter by a condition, which may contain subqueries.
    pub fn filter(&self, condition: &ast::Expr) -> PlanResult<()> {
        let conjuncts = written_conjuncts(condition);
        // Each condition gets its own filter, unless so many filters would make the plan too deep.
        let one_by_one = conjuncts.len() <= MAX_FILTERS;
        let mut together = Vec::new();
        for conjunct in conjuncts {
            if is_subquery(conjunct) {
                self.filter_together(&mut together)?;
            }
            if self.filter_by_subquery(conjunct)? {
                continue;
            }
            let expr = self.convert(conjunct)?;
            if one_by_one {
                let plan = analyzer::filter(self.take(), &expr)?;
                *self.plan.borrow_mut() = Some(plan);
            } else {
                together.push(analyzer::condition(&expr, &self.scope())?);
            }
        }
        self.filter_together(&mut together)
    }

    /// Filters by several conditions at once, with the same effect as consecutive filters: a
    /// condition is evaluated only if those before it are true.
    fn filter_together(&self, conditions: &mut Vec<Resolved>) -> PlanResult<()> {
        if conditions.is_empty() {
            return Ok(());
        }
        let no = || Resolved::literal(Value::Boolean(false), DataType::Boolean);
        let known = conditions.drain(..).map(|condition| match condition.nullable {
            true => functions::resolve("coalesce", vec![condition, no()]),
            false => Ok(condition),
        });
        let condition = balanced("and", known.collect::<PlanResult<_>>()?)?;
        *self.plan.borrow_mut() = Some(Plan::Filter(Box::new(self.take()), condition));
        Ok(())
    }

    /// Filters by a condition that consists only of a subquery, by a semi or anti join that adds no
    /// column. Returns false if the condition cannot be planned like this, as for NOT IN.
    fn filter_by_subquery(&self, conjunct: &ast::Expr) -> PlanResult<bool> {
        let (conjunct, flipped) = match conjunct {
            ast::Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::BangNot, expr } => {
                (strip(expr), true)
            }
            other => (other, false),
        };
        match conjunct {
            ast::Expr::Exists { subquery, negated } => {
                let inner = self.inner(subquery, false)?;
                let anti = *negated != flipped;
                let kind = if anti { JoinKind::LeftAnti } else { JoinKind::LeftSemi };
                self.join(kind, inner, None);
                Ok(true)
            }
            ast::Expr::In { expr, target: InTarget::Subquery(query), negated: false, .. }
                if !flipped
                    && (matches!(strip(expr), ast::Expr::Tuple(_))
                        || !self.has_single_row(query)?) =>
            {
                let needles = match strip(expr) {
                    ast::Expr::Tuple(values) => values.iter().collect(),
                    one => vec![one],
                };
                if self.is_limited(query) {
                    return Ok(false);
                }
                let needles: Vec<Expr> =
                    needles.into_iter().map(|one| self.convert(one)).collect::<PlanResult<_>>()?;
                // The needles' own subqueries have added columns, which the inner plan's indices
                // follow.
                let mut inner = self.inner(query, true)?;
                self.equal_to_needles(&mut inner, &needles, query::start(query), |equal| {
                    Ok(equal)
                })?;
                self.join(JoinKind::LeftSemi, inner, None);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether a query is correlated and has LIMIT or OFFSET: these apply to all correlated rows,
    /// not only to the rows with an equal value.
    fn is_limited(&self, query: &Query) -> bool {
        let has_limit = plain_select(query).is_some_and(|(query, _)| query.limit_clause.is_some());
        has_limit && memo::plan(query, self.catalog).is_err_and(|error| is_unresolved(&error))
    }

    fn subquery(&self, expr: &ast::Expr) -> PlanResult<Option<Expr>> {
        let here = at(expr);
        match expr {
            ast::Expr::Function(function) => {
                user_call(function, self.catalog, &|part| self.subquery(part))
            }
            ast::Expr::Subquery(query) => match memo::plan(query, self.catalog) {
                Ok(plan) => scalar(plan, here).map(Some),
                Err(error) if is_unresolved(&error) => {
                    self.correlated_scalar(query, error).map(Some)
                }
                Err(error) => Err(error),
            },
            ast::Expr::Exists { subquery, negated } => {
                let at = self.join(JoinKind::Exists, self.inner(subquery, false)?, None);
                Ok(Some(negated_if(*negated, self.column(at, at))))
            }
            ast::Expr::In { expr, target: InTarget::Subquery(query), negated, .. } => {
                if let ast::Expr::Tuple(values) = strip(expr) {
                    return self.tuple_in(values, query, *negated, here).map(Some);
                }
                if let Some(found) = self.in_single_row(expr, query, *negated)? {
                    return Ok(Some(found));
                }
                let value = resolve(&self.convert(expr)?, &self.scope())?;
                let inner = self.inner(query, true)?;
                let scope = inner.plan.scope();
                if scope.columns.len() - inner.selected != 1 {
                    let found = scope.columns.len() - inner.selected;
                    return Err(wrong_number(1, found, here));
                }
                if Rules::current().null_in_empty_list && is_constant_null(&value) {
                    return Ok(Some(Expr::Literal(Value::Null, DataType::Boolean)));
                }
                let width = self.scope().columns.len();
                let in_operands = compared(value, shifted(scope.column_at(inner.selected), width))?;
                let at = self.join(JoinKind::In, inner, Some(in_operands));
                let found = negated_if(*negated, self.column(at, at));
                if self.of_value.get() {
                    return Ok(Some(call("coalesce", [found, false.into()])));
                }
                Ok(Some(found))
            }
            _ => Ok(None),
        }
    }

    /// Plans `(a, b) IN (SELECT …)` as a value: whether a row with equal values exists. In NOT IN,
    /// a comparison whose result is NULL counts as equal.
    fn tuple_in(
        &self,
        values: &[ast::Expr],
        query: &Query,
        negated: bool,
        here: Place,
    ) -> PlanResult<Expr> {
        let needles: Vec<Expr> =
            values.iter().map(|value| self.convert(value)).collect::<PlanResult<_>>()?;
        let mut inner = self.inner(query, true)?;
        if inner.match_range.is_some() {
            let what = "several columns before IN and `LIMIT` in a correlated subquery";
            return Err(PlanError::not_yet(what).at(here));
        }
        self.equal_to_needles(&mut inner, &needles, here, |equal| match negated {
            true => functions::resolve("coalesce", vec![equal, always()]),
            false => Ok(equal),
        })?;
        let at = self.join(JoinKind::Exists, inner, None);
        Ok(negated_if(negated, self.column(at, at)))
    }

    /// Adds to the condition of an IN subquery that its selected columns equal the needles.
    /// `change` may change each comparison. Fails if the numbers of columns and needles differ.
    fn equal_to_needles(
        &self,
        inner: &mut Inner,
        needles: &[Expr],
        here: Place,
        change: impl Fn(Resolved) -> PlanResult<Resolved>,
    ) -> PlanResult<()> {
        let (outer, scope) = (self.scope(), inner.plan.scope());
        let found = scope.columns.len() - inner.selected;
        if found != needles.len() {
            return Err(wrong_number(needles.len(), found, here));
        }
        for (i, needle) in needles.iter().enumerate() {
            let other = shifted(scope.column_at(inner.selected + i), outer.columns.len());
            let equal = functions::resolve("=", vec![resolve(needle, &outer)?, other])?;
            inner.condition = Some(and(inner.condition.take(), change(equal)?)?);
        }
        Ok(())
    }

    /// Plans an EXISTS or IN subquery. If `selects`, its selected columns are those from
    /// [`Inner::selected`] on.
    fn inner(&self, query: &Query, selects: bool) -> PlanResult<Inner> {
        let here = query::start(query);
        match memo::plan(query, self.catalog) {
            Ok(plan) => {
                let plan = table_only(plan, AS_SEMI_JOIN, here)?;
                Ok(Inner { plan, condition: None, selected: 0, match_range: None })
            }
            Err(error) if is_unresolved(&error) => {
                // ORDER BY and LIMIT are those of the query without its parentheses.
                let (query, select) = plain_select(query).ok_or(error.clone())?;
                let (plan, condition) = self.correlated(select, error)?;
                let match_range = self.match_range(query, here)?;
                let once = match_range.is_some() && select.distinct.is_some();
                let reads_inner =
                    crate::table::plan::join::reads(&condition, self.scope().columns.len()).1;
                if once && reads_inner {
                    let what = "`DISTINCT` with `LIMIT` in a correlated subquery";
                    return Err(PlanError::not_yet(what).at(here));
                }
                let grouped = select.having.is_some() || is_grouped(select);
                let items: Vec<Expr> = select
                    .projection
                    .iter()
                    .map(|selected| item(selected, self.catalog))
                    .collect::<PlanResult<_>>()?;
                if grouped || items.iter().any(has_aggregate) {
                    refuse_arrangement(select, here)?;
                    let correlated = Correlated { plan, condition, match_range };
                    return self.aggregated(correlated, select, &items, selects);
                }
                let condition = Some(condition);
                if once {
                    let input = plan.scope();
                    let plan = analyzer::distinct(analyzer::project(plan, &items)?);
                    let plan = match self.order(query, select)? {
                        Some(order) => order.sort_distinct(plan, &items, &input)?,
                        None => plan,
                    };
                    return Ok(Inner { plan, condition, selected: 0, match_range });
                }
                let plan = self.ordered(plan, (query, select), &items, match_range.is_some())?;
                if !selects {
                    return Ok(Inner { plan, condition, selected: 0, match_range });
                }
                let scope = plan.scope();
                let mut columns: Vec<_> = (0..scope.columns.len())
                    .map(|i| (scope.column_at(i), scope.columns[i].name.clone()))
                    .collect();
                let selected = columns.len();
                for item in &items {
                    columns.push((resolve(item, &scope)?, item.output_name()));
                }
                let plan = Plan::Project(Box::new(plan), columns);
                Ok(Inner { plan, condition, selected, match_range })
            }
            Err(error) => Err(error),
        }
    }

    /// The OFFSET and LIMIT of a correlated subquery; `None` if it has neither.
    fn match_range(&self, query: &Query, here: Place) -> PlanResult<Option<(u64, u64)>> {
        refused::check_query(query, here, self.catalog)?;
        let (offset, limit) = query::limits(query, self.catalog, here)?;
        Ok((offset.is_some() || limit.is_some())
            .then(|| (offset.unwrap_or(0), limit.unwrap_or(u64::MAX))))
    }

    /// The order of a subquery's rows: that of ORDER BY, or of SORT BY and its like.
    fn order(&self, query: &Query, select: &Select) -> PlanResult<Option<Order>> {
        match (order_by(query, self.catalog)?, arrangement(select, self.catalog)?) {
            (Some(_), Some(_)) => Err(not_together(place(select.select_token.0.span.start))),
            (order, arranged) => Ok(order.or(arranged)),
        }
    }

    /// Sorts the rows of a subquery if their order matters. Otherwise the plan is unchanged, and
    /// the keys of SORT BY and its like are only checked.
    fn ordered(
        &self,
        plan: Plan,
        (query, select): (&Query, &Select),
        items: &[Expr],
        matters: bool,
    ) -> PlanResult<Plan> {
        let order = match matters {
            true => self.order(query, select)?,
            false => arrangement(select, self.catalog)?,
        };
        match order {
            Some(order) if matters => order.sort_below(plan, items),
            Some(order) => order.sort_below(plan.clone(), items).map(|_| plan),
            None => Ok(plan),
        }
    }

    /// Plans a correlated subquery: its rows, filtered by the conditions that do not depend on the
    /// outer row, and the conjunction of the other conditions.
    pub fn correlated(&self, select: &Select, error: PlanError) -> PlanResult<(Plan, Resolved)> {
        let here = place(select.select_token.0.span.start);
        count_select(here)?;
        if select.qualify.is_some() {
            let what = "`QUALIFY` in a correlated subquery";
            return Err(PlanError::not_yet(what).at(here));
        }
        let mut plan = table_only(from_clause(select, self.catalog)?, AS_SEMI_JOIN, here)?;
        let (outer, inner) = (self.scope(), plan.scope());
        let mut condition = None;
        for conjunct in select.selection.iter().flat_map(written_conjuncts) {
            if has_subquery(conjunct) {
                // A subquery in it that does not depend on the outer row is joined to the rows.
                let joining = Joining::new(plan.clone(), self.catalog);
                if joining.filter(conjunct).is_ok() {
                    plan = joining.into_plan();
                    continue;
                }
            }
            let expr = convert_with(conjunct, &constants(self.catalog))?;
            match resolve(&expr, &inner) {
                Ok(_) => plan = analyzer::filter(plan, &expr)?,
                Err(error) if is_unresolved(&error) => {
                    let found = resolve_correlated(&expr, &outer, &inner)
                        .map_err(|wrong| if is_unresolved(&wrong) { error } else { wrong })?;
                    condition = Some(and(condition, boolean(found, &expr, "WHERE")?)?);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(condition) = &condition {
            self.check_sides(condition, here)?;
        }
        // Without such a condition, the unknown name in `error` is not a reference to the outer
        // row.
        condition.map(|condition| (plan, condition)).ok_or(error)
    }
}

/// Subtracts `by` from each column index; the inverse of [`shifted`].
fn unshifted(expr: Resolved, by: usize) -> Resolved {
    match expr.node {
        Node::Column(index, name) => Resolved { node: Node::Column(index - by, name), ..expr },
        _ => expr.map_children(&mut |child| unshifted(child, by)),
    }
}

/// Fails for SORT BY, CLUSTER BY and DISTRIBUTE BY of a correlated subquery whose keys cannot be
/// checked.
pub(super) fn refuse_arrangement(select: &Select, here: Place) -> PlanResult<()> {
    let written = [select.sort_by.len(), select.cluster_by.len(), select.distribute_by.len()];
    if written == [0, 0, 0] {
        return Ok(());
    }
    let what = "SORT BY, CLUSTER BY or DISTRIBUTE BY in such a correlated subquery";
    Err(PlanError::not_yet(what).at(here))
}

fn negated_if(negated: bool, expr: Expr) -> Expr {
    if negated { call("not", [expr]) } else { expr }
}

fn wrong_number(wanted: usize, found: usize, here: Place) -> PlanError {
    PlanError::new(
        "DATATYPE_MISMATCH.IN_SUBQUERY_LENGTH_MISMATCH",
        format!("{wanted} values precede IN, but the subquery selects {found}"),
        "Select as many columns",
    )
    .at(here)
}

/// The query without its parentheses, and its SELECT. `None` for a query with set operations or
/// WITH, and for a query in parentheses that are followed by ORDER BY or LIMIT.
pub(super) fn plain_select(query: &Query) -> Option<(&Query, &Select)> {
    match &*query.body {
        _ if query.with.is_some() => None,
        SetExpr::Select(select) => Some((query, select)),
        SetExpr::Query(inner) if query.order_by.is_none() && query.limit_clause.is_none() => {
            plain_select(inner)
        }
        _ => None,
    }
}

pub(super) fn is_grouped(select: &Select) -> bool {
    match &select.group_by {
        ast::GroupByExpr::Expressions(keys, modifiers) => !keys.is_empty() || !modifiers.is_empty(),
        ast::GroupByExpr::All(_) => true,
    }
}

/// Whether an expression is a constant NULL.
fn is_constant_null(value: &Resolved) -> bool {
    value.is_foldable()
        && matches!(fold(value.clone(), Semantics::default()).node, Node::Literal(Value::Null))
}
