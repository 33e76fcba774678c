//! SELECT statements into plans.

use super::expr::convert;
use super::{Catalog, place};
use crate::table::analyze::{self, Grouping, has_aggregate};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::expr::resolve::distance;
use crate::table::plan::Plan;
use crate::table::value::Value;
use sqlparser::ast::{
    self, Distinct, GroupByExpr, LimitClause, OrderByExpr, OrderByKind, OrderBySort, Select,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Spanned,
    TableAlias, TableFactor,
};

fn refuse(what: impl std::fmt::Display, at: Place) -> PlanError {
    PlanError::not_yet(what).at(at)
}

/// Plans a query.
pub fn plan(query: &ast::Query, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = place(query.span().start);
    if query.with.is_some() {
        return Err(refuse("WITH", here));
    }
    if query.fetch.is_some() || !query.locks.is_empty() || !query.pipe_operators.is_empty() {
        return Err(refuse("FETCH, FOR and pipe syntax", here));
    }
    let (mut plan, select) = body(&query.body, catalog)?;
    if let Some(order_by) = &query.order_by {
        let OrderByKind::Expressions(keys) = &order_by.kind else {
            return Err(refuse("ORDER BY ALL", here));
        };
        let keys = keys.iter().map(|key| sort_key(key, &select)).collect::<PlanResult<Vec<_>>>()?;
        plan = analyze::sort(plan, &keys)?;
    }
    match &query.limit_clause {
        None | Some(LimitClause::LimitOffset { limit: None, offset: None, .. }) => {}
        Some(LimitClause::LimitOffset { limit: Some(limit), offset: None, limit_by })
            if limit_by.is_empty() =>
        {
            plan = Plan::Limit(Box::new(plan), count(limit, here)?);
        }
        Some(_) => {
            return Err(PlanError::new(
                "STREAMING_OFFSET_UNSUPPORTED",
                "OFFSET has no meaning on a stream",
                "Use LIMIT alone",
            )
            .at(here));
        }
    }
    Ok(plan)
}

fn count(limit: &ast::Expr, here: Place) -> PlanResult<u64> {
    match convert(limit)? {
        Expr::Literal(Value::Long(n), _) if n >= 0 => Ok(n as u64),
        other => Err(PlanError::new(
            "INVALID_LIMIT_LIKE_EXPRESSION",
            format!("LIMIT {other} is not a number of rows"),
            "Write LIMIT 10",
        )
        .at(here)),
    }
}

/// An ORDER BY key over the output columns; what stands in the SELECT list is its column there.
fn sort_key(key: &OrderByExpr, select: &[Expr]) -> PlanResult<(Expr, bool, Option<bool>)> {
    let mut expr = convert(&key.expr)?;
    let strip = |e: &Expr| match e {
        Expr::Alias(inner, _) => inner.to_string(),
        other => other.to_string(),
    };
    if let Some(same) = select.iter().find(|item| strip(item) == expr.to_string()) {
        expr = Expr::Column { parts: vec![same.output_name()], place: expr.place() };
    }
    let descending = matches!(key.options.sort, Some(OrderBySort::Desc));
    Ok((expr, descending, key.options.nulls_first))
}

fn body(body: &SetExpr, catalog: &dyn Catalog) -> PlanResult<(Plan, Vec<Expr>)> {
    let here = place(body.span().start);
    match body {
        SetExpr::Select(select) => self::select(select, catalog),
        SetExpr::Query(query) => Ok((plan(query, catalog)?, Vec::new())),
        SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier: SetQuantifier::All,
            left,
            right,
        } => {
            let (left, right) = (self::body(left, catalog)?.0, self::body(right, catalog)?.0);
            Ok((analyze::union(left, right).map_err(|error| error.at(here))?, Vec::new()))
        }
        SetExpr::SetOperation { op: SetOperator::Union, .. } => {
            Err(refuse("UNION without ALL, which drops duplicates,", here))
        }
        SetExpr::SetOperation { op, left, right, .. } => {
            // Both sides are planned first, so that a mistake in them is named before this.
            self::body(left, catalog)?;
            self::body(right, catalog)?;
            Err(PlanError::new(
                "STREAMING_SET_OPERATION_UNSUPPORTED",
                format!(
                    "{op} with a stream on the right can never be decided: a later row may undo it"
                ),
                "Filter with a condition instead",
            )
            .at(here))
        }
        other => Err(refuse(format_args!("`{other}` as a query"), here)),
    }
}

fn select(select: &Select, catalog: &dyn Catalog) -> PlanResult<(Plan, Vec<Expr>)> {
    let here = place(select.select_token.0.span.start);
    if matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))) {
        return Err(refuse("SELECT DISTINCT", here));
    }
    if select.qualify.is_some()
        || !select.named_window.is_empty()
        || !select.sort_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
    {
        return Err(refuse("QUALIFY, WINDOW, SORT BY, CLUSTER BY and DISTRIBUTE BY", here));
    }
    let mut input = match select.from.as_slice() {
        [one] if one.joins.is_empty() => relation(&one.relation, catalog)?,
        [] => return Err(refuse("SELECT without FROM", here)),
        [one, ..] => {
            let at = one.joins.first().map_or(here, |join| place(join.relation.span().start));
            return Err(refuse("a join", at));
        }
    };
    for view in &select.lateral_views {
        input = lateral_view(input, view)?;
    }
    if let Some(condition) = &select.selection {
        input = analyze::filter(input, &convert(condition)?)?;
    }
    let items = select.projection.iter().map(item).collect::<PlanResult<Vec<_>>>()?;
    let keys = match &select.group_by {
        GroupByExpr::Expressions(keys, modifiers) if modifiers.is_empty() => {
            keys.iter().map(convert).collect::<PlanResult<Vec<_>>>()?
        }
        _ => return Err(refuse("GROUP BY ALL, ROLLUP and CUBE", here)),
    };
    let having = select.having.as_ref().map(convert).transpose()?;
    let grouped = !keys.is_empty() || having.is_some() || items.iter().any(has_aggregate);
    if !grouped {
        return Ok((analyze::project(input, &items)?, items));
    }
    let items = analyze::expand_stars(&input.scope(), &items)?;
    let plan = Grouping::new(input, &keys, &items)?.finish(&items, having.as_ref())?;
    Ok((plan, items))
}

fn item(item: &SelectItem) -> PlanResult<Expr> {
    Ok(match item {
        SelectItem::UnnamedExpr(expr) => convert(expr)?,
        SelectItem::ExprWithAlias { expr, alias } => convert(expr)?.alias(&alias.value),
        SelectItem::Wildcard(options) => {
            if options.opt_except.is_some() || options.opt_exclude.is_some() {
                return Err(refuse("* EXCEPT", place(item.span().start)));
            }
            Expr::Star(None)
        }
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            Expr::Star(Some(plain(name)))
        }
        other => {
            return Err(refuse(
                format_args!("`{other}` in a SELECT list"),
                place(item.span().start),
            ));
        }
    })
}

/// A name without quotes.
fn plain(name: &ast::ObjectName) -> String {
    let parts =
        name.0.iter().map(|part| part.as_ident().map_or(part.to_string(), |i| i.value.clone()));
    parts.collect::<Vec<_>>().join(".")
}

fn aliased(plan: Plan, alias: Option<&TableAlias>) -> PlanResult<Plan> {
    let Some(alias) = alias else { return Ok(plan) };
    if !alias.columns.is_empty() {
        return Err(refuse("column names in a table alias", place(alias.name.span.start)));
    }
    Ok(Plan::Alias(Box::new(plan), alias.name.value.clone()))
}

fn relation(factor: &TableFactor, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = place(factor.span().start);
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let name = plain(name);
            let found = catalog.relation(&name).ok_or_else(|| unknown(&name, catalog).at(here))?;
            aliased(Plan::Alias(Box::new(found), name), alias.as_ref())
        }
        TableFactor::Derived { lateral: false, subquery, alias, .. } => {
            aliased(plan(subquery, catalog)?, alias.as_ref())
        }
        other => Err(refuse(format_args!("`{other}` in FROM"), here)),
    }
}

fn unknown(name: &str, catalog: &dyn Catalog) -> PlanError {
    let mut near: Vec<_> = catalog.names().into_iter().map(|n| (distance(name, &n), n)).collect();
    near.sort();
    let near: Vec<_> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    let fix = if near.is_empty() {
        "Create it first: CREATE TEMPORARY VIEW … USING socket OPTIONS (…)".to_string()
    } else {
        format!("Did you mean one of: {}", near.join(", "))
    };
    PlanError::new("TABLE_OR_VIEW_NOT_FOUND", format!("there is no table or view `{name}`"), fix)
}

fn lateral_view(input: Plan, view: &ast::LateralView) -> PlanResult<Plan> {
    let here = place(view.lateral_view.span().start);
    let call = convert(&view.lateral_view)?;
    let (array, column) = match (&call, view.lateral_col_alias.as_slice()) {
        (Expr::Call { name, args, .. }, [column])
            if name == "explode" && args.len() == 1 && !view.outer =>
        {
            (&args[0], column.value.clone())
        }
        _ => return Err(refuse(format_args!("LATERAL VIEW other than `explode(…) t AS x`"), here)),
    };
    analyze::explode(input, array, column)
}
