//! Plans ORDER BY: by output columns, by their ordinals, or by columns of the SELECT list's input.

use super::Catalog;
use super::expr::convert_with;
use super::place;
use super::subquery::constants;
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::resolve::{Scope, resolve, resolve_with};
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::plan::analyzer::{order_position, refuse_unordered};
use crate::table::plan::grouping::substitute;
use crate::table::plan::join::shifted;
use crate::table::plan::{Plan, SortKey};
use sqlparser::ast::{self, OrderByKind, OrderByOptions, OrderBySort, Spanned};

/// A key of ORDER BY, as the user wrote it.
pub(super) struct Key {
    pub expr: Expr,
    descending: bool,
    nulls_first: Option<bool>,
    place: Place,
    /// Whether the key is one of DISTRIBUTE BY, which is checked and has no effect.
    is_only_checked: bool,
}

/// A parsed ORDER BY clause.
pub(super) enum Order {
    /// A list of keys.
    Keys(Vec<Key>),
    /// ORDER BY ALL: by every output column.
    All { descending: bool, nulls_first: Option<bool> },
}

fn is_descending(options: &OrderByOptions) -> bool {
    matches!(options.sort, Some(OrderBySort::Desc))
}

/// Converts the ORDER BY clause of a query; `None` if the query has none.
pub(super) fn order_by(query: &ast::Query, catalog: &dyn Catalog) -> PlanResult<Option<Order>> {
    let Some(clause) = &query.order_by else { return Ok(None) };
    match &clause.kind {
        OrderByKind::All(options) => {
            let (descending, nulls_first) = (is_descending(options), options.nulls_first);
            Ok(Some(Order::All { descending, nulls_first }))
        }
        OrderByKind::Expressions(keys) => order_of(keys, catalog).map(Some),
    }
}

/// Converts a list of keys.
fn order_of(keys: &[ast::OrderByExpr], catalog: &dyn Catalog) -> PlanResult<Order> {
    let constant = constants(catalog);
    let hook = |expr: &ast::Expr| match expr {
        ast::Expr::Exists { .. } | ast::Expr::In { target: ast::InTarget::Subquery(_), .. } => {
            Err(PlanError::new(
                "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.UNSUPPORTED_IN_EXISTS_SUBQUERY",
                "`IN` and `EXISTS` with a subquery are not allowed in ORDER BY",
                "Select it under a name, and order by that",
            )
            .at(place(expr.span().start)))
        }
        other => constant(other),
    };
    let key = |key: &ast::OrderByExpr| {
        Ok(Key {
            expr: convert_with(&key.expr, &hook)?,
            descending: is_descending(&key.options),
            nulls_first: key.options.nulls_first,
            place: place(key.expr.span().start),
            is_only_checked: false,
        })
    };
    keys.iter().map(key).collect::<PlanResult<Vec<_>>>().map(Order::Keys)
}

/// Converts SORT BY, CLUSTER BY and DISTRIBUTE BY of a SELECT to an order; `None` without these
/// clauses. Fails if they cannot stand together. All rows are in one partition, so they are sorted
/// as a whole. The keys of DISTRIBUTE BY are checked and have no effect.
pub(super) fn arrangement(
    select: &ast::Select,
    catalog: &dyn Catalog,
) -> PlanResult<Option<Order>> {
    let plain = |expr: &ast::Expr| ast::OrderByExpr {
        expr: expr.clone(),
        options: OrderByOptions { sort: None, nulls_first: None },
        with_fill: None,
    };
    let listed = |exprs: &[ast::Expr]| {
        let keys: Vec<_> = exprs.iter().map(plain).collect();
        (!keys.is_empty()).then(|| order_of(&keys, catalog)).transpose()
    };
    let clustered = listed(&select.cluster_by)?;
    let distributed = listed(&select.distribute_by)?;
    let sorted =
        (!select.sort_by.is_empty()).then(|| order_of(&select.sort_by, catalog)).transpose()?;
    if clustered.is_some() && (distributed.is_some() || sorted.is_some()) {
        return Err(not_together(place(select.select_token.0.span.start)));
    }
    let checked = distributed.into_iter().flat_map(Order::into_keys);
    let checked = checked.map(|key| Key { is_only_checked: true, ..key });
    let sorted = clustered.or(sorted).into_iter().flat_map(Order::into_keys);
    let keys: Vec<Key> = sorted.chain(checked).collect();
    Ok((!keys.is_empty()).then_some(Order::Keys(keys)))
}

/// The error of clauses that arrange the same rows in different ways.
pub(super) fn not_together(at: Place) -> PlanError {
    PlanError::new(
        "UNSUPPORTED_FEATURE.COMBINATION_QUERY_RESULT_CLAUSES",
        "of ORDER BY, SORT BY, DISTRIBUTE BY and CLUSTER BY only SORT BY and DISTRIBUTE BY may \
         stand together",
        "Keep one of them",
    )
    .at(at)
}

fn sort_key(expr: Resolved, descending: bool, nulls_first: Option<bool>) -> SortKey {
    // The default of Spark: NULLs first in ascending order, last in descending order.
    SortKey { expr, descending, nulls_first: nulls_first.unwrap_or(!descending) }
}

/// The index of the first SELECT item that has the same text as `expr`, apart from an alias. `None`
/// if there is none, and for a literal.
fn same_item(expr: &Expr, items: &[Expr]) -> Option<usize> {
    if matches!(expr, Expr::Literal(..)) {
        return None;
    }
    let text = expr.to_string();
    items.iter().position(|item| match item {
        Expr::Alias(inner, _) => inner.to_string() == text,
        Expr::Literal(..) => false,
        other => other.to_string() == text,
    })
}

/// Rewrites an expression over a SELECT list's output, followed by the list's input, so that it
/// reads only the input.
fn below_list(expr: Resolved, columns: &[(Resolved, String)]) -> Resolved {
    match expr.node {
        Node::Column(index, name) => match columns.get(index) {
            Some((made, _)) => made.clone(),
            None => Resolved { node: Node::Column(index - columns.len(), name), ..expr },
        },
        _ => expr.map_children(&mut |child| below_list(child, columns)),
    }
}

/// The index of the first SELECT item without an alias that is the same column, or the same field of
/// a struct, as a key such as `t.a`. Both are resolved in the scope of the list's input.
fn same_column(key: &Expr, items: &[Expr], input: &Scope) -> Option<usize> {
    let is_name = |expr: &Expr| matches!(expr, Expr::Column { .. } | Expr::Position(..));
    let named = |expr: &Expr| is_name(expr).then(|| resolve(expr, input).ok()).flatten();
    let key = match key {
        Expr::Column { parts, .. } if parts.len() > 1 => named(key)?,
        _ => return None,
    };
    items.iter().position(|item| named(item).is_some_and(|item| item == key))
}

impl Order {
    /// Creates the sort keys from their resolved expressions over `scope`. Fails if a key cannot be
    /// ordered.
    fn by_places(&self, scope: &Scope, places: &[Resolved]) -> PlanResult<Vec<SortKey>> {
        let keys: Vec<SortKey> = match self {
            Self::All { descending, nulls_first } => {
                let shown = (0..scope.columns.len()).filter(|at| !scope.columns[*at].hidden);
                let keys = shown.map(|at| scope.column_at(at));
                keys.map(|key| sort_key(key, *descending, *nulls_first)).collect()
            }
            Self::Keys(keys) => {
                let keys = keys.iter().zip(places);
                keys.map(|(key, at)| sort_key(at.clone(), key.descending, key.nulls_first))
                    .collect()
            }
        };
        keys.iter().try_for_each(|key| refuse_unordered(&key.expr))?;
        let is_effective = |at: usize| self.exprs().get(at).is_none_or(|key| !key.is_only_checked);
        Ok(keys
            .into_iter()
            .enumerate()
            .filter(|(at, _)| is_effective(*at))
            .map(|(_, k)| k)
            .collect())
    }

    fn into_keys(self) -> Vec<Key> {
        match self {
            Self::Keys(keys) => keys,
            Self::All { .. } => Vec::new(),
        }
    }

    /// The keys; empty for ORDER BY ALL.
    pub fn exprs(&self) -> &[Key] {
        match self {
            Self::Keys(keys) => keys,
            Self::All { .. } => &[],
        }
    }

    /// Replaces the expressions of the keys by the results of `change`.
    pub fn map_exprs(&self, change: &mut dyn FnMut(&Expr) -> PlanResult<Expr>) -> PlanResult<Self> {
        let keys = match self {
            Self::Keys(keys) => keys,
            Self::All { descending, nulls_first } => {
                return Ok(Self::All { descending: *descending, nulls_first: *nulls_first });
            }
        };
        let one = |key: &Key| {
            let expr = change(&key.expr).map_err(|error| error.at(key.place))?;
            Ok(Key { expr, ..*key })
        };
        keys.iter().map(one).collect::<PlanResult<Vec<_>>>().map(Self::Keys)
    }

    /// Whether the clause may mean ORDER BY ALL, unless there is a column named `all`.
    pub fn may_be_all(&self) -> bool {
        match self {
            Self::Keys(keys) => matches!(
                keys.as_slice(),
                [Key { expr: Expr::Column { parts, .. }, .. }]
                    if parts.len() == 1 && parts[0].eq_ignore_ascii_case("all")
            ),
            Self::All { .. } => true,
        }
    }

    /// Interprets the clause as ORDER BY ALL. `None` if it has keys other than the single name
    /// `all`.
    pub fn into_all(self) -> Option<Self> {
        let is_all = self.may_be_all();
        match self {
            Self::Keys(keys) => {
                let key = keys.into_iter().next().filter(|_| is_all)?;
                Some(Self::All { descending: key.descending, nulls_first: key.nulls_first })
            }
            all => Some(all),
        }
    }

    /// Sorts a plan by keys over its columns.
    pub fn sort(&self, plan: Plan) -> PlanResult<Plan> {
        let scope = plan.scope();
        let place_of = |key: &Key| match order_position(&key.expr, scope.columns.len()) {
            Some(at) => at.map(|at| scope.column_at(at)).map_err(|error| error.at(key.place)),
            None => resolve(&key.expr, &scope).map_err(|error| error.at(key.place)),
        };
        let places = self.exprs().iter().map(place_of).collect::<PlanResult<Vec<_>>>()?;
        let keys = self.by_places(&scope, &places)?;
        Ok(sorted(plan, keys))
    }

    /// Sorts the result of a SELECT list. A name that is not an output column refers to a column of
    /// the list's input.
    pub fn sort_selected(&self, plan: Plan, items: &[Expr]) -> PlanResult<Plan> {
        let Plan::Project(below, columns) = plan else { return self.sort(plan) };
        let width = columns.len();
        let outer = Plan::Project(below.clone(), columns.clone()).scope();
        let inner = below.scope();
        let mut hook = |part: &Expr| -> PlanResult<Option<Resolved>> {
            let named = match part {
                Expr::Column { .. } => part,
                _ => return Ok(None),
            };
            let unknown = |error: PlanError| {
                let condition = "UNRESOLVED_COLUMN.WITH_SUGGESTION".to_string();
                PlanError { condition, ..error }
            };
            match resolve(named, &outer) {
                Ok(found) => Ok(Some(found)),
                Err(error) if error.condition == "AMBIGUOUS_REFERENCE" => {
                    let same = one_of_equals(named, &columns, &outer, items);
                    let below = || resolve(named, &inner).map(|found| shifted(found, width));
                    same.map_or_else(below, Ok).map(Some).map_err(|_| unknown(error))
                }
                Err(error) => match resolve(named, &inner) {
                    Ok(found) => Ok(Some(shifted(found, width))),
                    Err(other) if other.condition == "AMBIGUOUS_REFERENCE" => Err(other),
                    Err(_) => Err(error),
                },
            }
        };
        let mut places = Vec::new();
        for key in self.exprs() {
            if let Some(at) = order_position(&key.expr, width) {
                places.push(outer.column_at(at.map_err(|error| error.at(key.place))?));
                continue;
            }
            let resolved = resolve_with(&key.expr, &outer, &mut hook);
            // A key that is written like an item need not be computed again, unless its names are
            // those of other output columns, as in `SELECT a AS b, b AS a … ORDER BY a`.
            let same = same_item(&key.expr, items).filter(|at| {
                let is_same = |key: &Resolved| below_list(key.clone(), &columns) == columns[*at].0;
                items.len() == width && resolved.as_ref().map_or(true, is_same)
            });
            places.push(match same {
                Some(at) => outer.column_at(at),
                None => resolved.map_err(|error| error.at(key.place))?,
            });
        }
        self.sort_beside(below, columns, places)
    }

    /// Sorts the input of a SELECT list. A key may also be an alias of the list or an ordinal.
    pub fn sort_below(&self, plan: Plan, items: &[Expr]) -> PlanResult<Plan> {
        let scope = plan.scope();
        let mut places = Vec::new();
        for key in self.exprs() {
            let expr = match order_position(&key.expr, items.len()) {
                Some(at) => items[at.map_err(|error| error.at(key.place))?].clone(),
                // An alias takes precedence over a column of the input.
                None => substitute(&key.expr, items, &Scope::default()),
            };
            places.push(resolve(&expr, &scope).map_err(|error| error.at(key.place))?);
        }
        let keys = self.by_places(&scope, &places)?;
        Ok(sorted(plan, keys))
    }

    /// Sorts the result of SELECT DISTINCT. The keys can only refer to output columns, also by the
    /// name of a column of `input`, the scope of the SELECT list's input, that is selected.
    pub fn sort_distinct(&self, plan: Plan, items: &[Expr], input: &Scope) -> PlanResult<Plan> {
        let scope = plan.scope();
        let width = scope.columns.len();
        let mut places = Vec::new();
        for key in self.exprs() {
            let at = match order_position(&key.expr, width) {
                Some(at) => Some(at.map_err(|error| error.at(key.place))?),
                None => None,
            };
            places.push(match at {
                Some(at) => scope.column_at(at),
                None => resolve(&key.expr, &scope).or_else(|error| {
                    let same = same_column(&key.expr, items, input);
                    let same = same.filter(|_| items.len() == width);
                    same.map(|at| scope.column_at(at)).ok_or_else(|| error.at(key.place))
                })?,
            });
        }
        let keys = self.by_places(&scope, &places)?;
        Ok(sorted(plan, keys))
    }

    /// Sorts by expressions over the output columns of a projection and the columns of its input.
    fn sort_beside(
        &self,
        below: Box<Plan>,
        mut columns: Vec<(Resolved, String)>,
        places: Vec<Resolved>,
    ) -> PlanResult<Plan> {
        let width = columns.len();
        let inner = below.scope();
        let mut added: Vec<usize> = Vec::new();
        let places: Vec<_> = places.into_iter().map(|key| moved(key, width, &mut added)).collect();
        for at in &added {
            columns.push((inner.column_at(*at), inner.columns[*at].name.clone()));
        }
        let plan = Plan::Project(below, columns);
        let scope = plan.scope();
        let keys = self.by_places(&scope, &places)?;
        Ok(without_added(sorted(plan, keys), width))
    }

    /// Sorts by columns of a projection, and then drops all but its first `width` columns.
    pub fn sort_by_columns(&self, plan: Plan, width: usize, places: &[usize]) -> PlanResult<Plan> {
        let scope = plan.scope();
        let places: Vec<_> = places.iter().map(|at| scope.column_at(*at)).collect();
        let keys = self.by_places(&scope, &places)?;
        Ok(without_added(sorted(plan, keys), width))
    }
}

/// Sorts a plan by keys. Without keys, returns the plan unchanged.
fn sorted(plan: Plan, keys: Vec<SortKey>) -> Plan {
    match keys.is_empty() {
        true => plan,
        false => Plan::Sort(Box::new(plan), keys),
    }
}

/// Rewrites an expression over a projection's output and input, so that it reads only the output.
/// For each input column that it reads, a column is to be added to the projection; `added` collects
/// their indices.
fn moved(expr: Resolved, width: usize, added: &mut Vec<usize>) -> Resolved {
    match expr.node {
        Node::Column(index, name) if index >= width => {
            let at = added.iter().position(|other| *other == index - width);
            let at = at.unwrap_or_else(|| {
                added.push(index - width);
                added.len() - 1
            });
            Resolved { node: Node::Column(width + at, name), ..expr }
        }
        _ => expr.map_children(&mut |child| moved(child, width, added)),
    }
}

/// Drops all but the first `width` columns of a plan.
fn without_added(plan: Plan, width: usize) -> Plan {
    let scope = plan.scope();
    if scope.columns.len() == width {
        return plan;
    }
    let columns = (0..width).map(|at| (scope.column_at(at), scope.columns[at].name.clone()));
    Plan::Project(Box::new(plan), columns.collect())
}

/// Resolves a name that output columns have. `None` unless there are some, and they all are the
/// same input column without an alias.
fn one_of_equals(
    named: &Expr,
    columns: &[(Resolved, String)],
    outer: &Scope,
    items: &[Expr],
) -> Option<Resolved> {
    // An alias is a new column, even for the same expression.
    let is_alias = |at: usize| matches!(items.get(at), Some(Expr::Alias(..)));
    let Expr::Column { parts, .. } = named else { return None };
    let [name] = parts.as_slice() else { return None };
    let mut found = columns.iter().enumerate().filter(|(_, (_, n))| n.eq_ignore_ascii_case(name));
    let (at, (first, _)) = found.next()?;
    let is_column = matches!(first.node, Node::Column(..)) && !is_alias(at);
    let same = found.all(|(other, (expr, _))| expr == first && !is_alias(other));
    (is_column && same).then(|| outer.column_at(at))
}
