//! SELECT statements into plans.

use super::expr::{Subqueries, convert, convert_with};
use super::subquery::{Joining, constants};
use super::{Catalog, STREAM_MARK, WATERMARK_MARK, Watermark, place};
use crate::table::analyze::{self, Grouping, has_aggregate};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::compile::{Semantics, fold};
use crate::table::expr::resolve::{Scope, distance, expand_stars, resolve, unify};
use crate::table::expr::user::{UserAggregate, UserFunction};
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::join::{self, Written};
use crate::table::plan::{METADATA, Plan};
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use crate::table::windows;
use sqlparser::ast::{
    self, Distinct, GroupByExpr, LimitClause, OrderByExpr, OrderByKind, OrderBySort, Select,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Spanned,
    TableAlias, TableFactor,
};
use std::sync::Arc;

fn refuse(what: impl std::fmt::Display, at: Place) -> PlanError {
    PlanError::not_yet(what).at(at)
}

/// Plans a query.
pub fn plan(query: &ast::Query, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = place(query.span().start);
    let with;
    let catalog: &dyn Catalog = match &query.with {
        None => catalog,
        Some(ctes) if ctes.recursive => return Err(refuse("`WITH RECURSIVE`", here)),
        Some(ctes) => {
            let mut named = WithViews { views: Vec::new(), outer: catalog };
            for cte in &ctes.cte_tables {
                let made = plan(&cte.query, &named)?;
                let made = renamed(made, &cte.alias)?;
                named.views.push((cte.alias.name.value.clone(), made));
            }
            with = named;
            &with
        }
    };
    if query.fetch.is_some() || !query.locks.is_empty() || !query.pipe_operators.is_empty() {
        return Err(refuse("`FETCH`, `FOR` and pipe syntax", here));
    }
    let (mut plan, select) = body(&query.body, catalog)?;
    if let Some(order_by) = &query.order_by {
        let OrderByKind::Expressions(keys) = &order_by.kind else {
            return Err(refuse("`ORDER BY ALL`", here));
        };
        let constant = constants(catalog);
        let key = |key| sort_key(key, &select, &constant);
        let keys = keys.iter().map(key).collect::<PlanResult<Vec<_>>>()?;
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
                "`OFFSET` has no meaning on a stream",
                "Use LIMIT alone",
            )
            .at(here));
        }
    }
    Ok(plan)
}

/// The views of a WITH clause, before those of the session.
struct WithViews<'c> {
    views: Vec<(String, Plan)>,
    outer: &'c dyn Catalog,
}

impl Catalog for WithViews<'_> {
    fn relation(&self, name: &str) -> Option<Plan> {
        let found = self.views.iter().rev().find(|(view, _)| view.eq_ignore_ascii_case(name));
        found.map(|(_, plan)| plan.clone()).or_else(|| self.outer.relation(name))
    }
    fn names(&self) -> Vec<String> {
        self.views.iter().map(|(name, _)| name.clone()).chain(self.outer.names()).collect()
    }
    fn function(&self, name: &str) -> Option<Arc<UserFunction>> {
        self.outer.function(name)
    }
    fn aggregate(&self, name: &str) -> Option<Arc<UserAggregate>> {
        self.outer.aggregate(name)
    }
    fn watermark(&self, number: usize) -> Option<&Watermark> {
        self.outer.watermark(number)
    }
    fn semantics(&self) -> Semantics {
        self.outer.semantics()
    }
}

/// The columns of a plan under the names that an alias gives them, if it does.
fn renamed(plan: Plan, alias: &TableAlias) -> PlanResult<Plan> {
    if alias.columns.is_empty() {
        return Ok(plan);
    }
    let columns = plan.scope().columns;
    if columns.len() != alias.columns.len() {
        let condition = match plan {
            Plan::Values(..) => "INVALID_INLINE_TABLE.NUM_COLUMNS_MISMATCH",
            _ => "ASSIGNMENT_ARITY_MISMATCH",
        };
        return Err(PlanError::new(
            condition,
            format!("{} columns are named, but there are {}", alias.columns.len(), columns.len()),
            "Name each column, or none",
        )
        .at(place(alias.name.span.start)));
    }
    let named = columns.into_iter().zip(&alias.columns).enumerate().map(|(i, (c, name))| {
        let node = Node::Column(i, c.name);
        (Resolved { node, data_type: c.data_type, nullable: c.nullable }, name.name.value.clone())
    });
    Ok(Plan::Project(Box::new(plan), named.collect()))
}

fn count(limit: &ast::Expr, here: Place) -> PlanResult<u64> {
    match convert(limit)? {
        Expr::Literal(Value::Long(n), _) if n >= 0 => Ok(n as u64),
        other => Err(PlanError::new(
            "INVALID_LIMIT_LIKE_EXPRESSION",
            format!("`LIMIT` {other} is not a number of rows"),
            "Write LIMIT 10",
        )
        .at(here)),
    }
}

/// An ORDER BY key over the output columns; what stands in the SELECT list is its column there.
fn sort_key(
    key: &OrderByExpr,
    select: &[Expr],
    constants: &Subqueries<'_>,
) -> PlanResult<(Expr, bool, Option<bool>)> {
    let mut expr = convert_with(&key.expr, constants)?;
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
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            let once = matches!(set_quantifier, SetQuantifier::None | SetQuantifier::Distinct);
            if !once {
                return Err(refuse(format_args!("{op} {set_quantifier}"), here));
            }
            let (left, right) = (self::body(left, catalog)?.0, self::body(right, catalog)?.0);
            let decided = match op {
                SetOperator::Union => true,
                SetOperator::Except | SetOperator::Minus => !right.is_streaming(),
                _ => !left.is_streaming() && !right.is_streaming(),
            };
            if decided {
                let made = match op {
                    SetOperator::Union => analyze::union(left, right),
                    SetOperator::Intersect => join::among(left, right, Written::LeftSemi),
                    _ => join::among(left, right, Written::LeftAnti),
                };
                let made = made.map_err(|error| error.at(here))?;
                return Ok((windows::deduplicate(made, &[], false)?, Vec::new()));
            }
            Err(PlanError::new(
                "STREAMING_SET_OPERATION_UNSUPPORTED",
                format!(
                    "`{op}` with a stream on the right can never be decided: a later row may undo it"
                ),
                "Filter with a condition instead",
            )
            .at(here))
        }
        SetExpr::Values(values) => Ok((inline_table(values, catalog, here)?, Vec::new())),
        other => Err(refuse(format_args!("`{other}` as a query"), here)),
    }
}

fn select(select: &Select, catalog: &dyn Catalog) -> PlanResult<(Plan, Vec<Expr>)> {
    let here = place(select.select_token.0.span.start);
    let distinct = match select.distinct {
        Some(Distinct::On(_)) => return Err(refuse("`DISTINCT ON`", here)),
        Some(Distinct::Distinct) => true,
        _ => false,
    };
    if select.qualify.is_some()
        || !select.named_window.is_empty()
        || !select.sort_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
    {
        return Err(refuse(
            "`QUALIFY`, `WINDOW`, `SORT BY`, `CLUSTER BY` and `DISTRIBUTE BY`",
            here,
        ));
    }
    let input = from_clause(select, catalog)?;
    // What subqueries add is no column of `*`.
    let written = input.scope();
    let names_files = select.to_string().to_lowercase().contains(METADATA);
    let input = match input.with_metadata() {
        Some(with) if names_files => with,
        _ => input,
    };
    let joining = Joining::new(input, catalog);
    if let Some(condition) = &select.selection {
        joining.filter(condition)?;
    }
    let constant = constants(catalog);
    let (keys, sets) = grouping(&select.group_by, &constant, here)?;
    let having = select.having.as_ref().map(|e| convert_with(e, &constant)).transpose()?;
    let of_rows = |e: &ast::Expr| joining.convert(e);
    let of_groups = |e: &ast::Expr| convert_with(e, &constant);
    let may_group = !keys.is_empty() || having.is_some();
    let converted = |select_item: &SelectItem| {
        if may_group {
            item_with(select_item, &of_groups)
        } else {
            item_with(select_item, &of_rows)
        }
    };
    let items = select.projection.iter().map(converted).collect::<PlanResult<Vec<_>>>()?;
    let input = joining.into_plan();
    let grouped = may_group || items.iter().any(has_aggregate);
    let done = |plan: Plan| if distinct { analyze::distinct(plan) } else { plan };
    if !grouped {
        let items = if input.width() > written.columns.len() {
            let of_written = |item: &Expr| match item {
                Expr::Star(None) => expand_stars(&written, std::slice::from_ref(item)),
                other => Ok(vec![other.clone()]),
            };
            items.iter().map(of_written).collect::<PlanResult<Vec<_>>>()?.concat()
        } else {
            items
        };
        return Ok((done(analyze::project(input, &items)?), items));
    }
    let items = expand_stars(&written, &items)?;
    let grouping = Grouping::with_sets(input, &keys, sets, &items)?;
    let plan = grouping.finish(&items, having.as_ref())?;
    Ok((done(plan), items))
}

/// FROM with its lateral views.
pub(super) fn from_clause(select: &Select, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let mut input: Option<Plan> = None;
    for table in &select.from {
        let right = super::join::relation_with_joins(table, catalog)?;
        input = Some(match input {
            None => right,
            Some(left) => join::join(left, right, Written::Inner, None)?,
        });
    }
    let nothing = || Plan::Values(Schema::default(), vec![Vec::new()]);
    let mut input = input.unwrap_or_else(nothing);
    for view in &select.lateral_views {
        input = lateral_view(input, view, catalog)?;
    }
    Ok(input)
}

pub(super) fn item(item: &SelectItem, catalog: &dyn Catalog) -> PlanResult<Expr> {
    item_with(item, &|expr| convert_with(expr, &constants(catalog)))
}

fn item_with(
    item: &SelectItem,
    convert: &dyn Fn(&ast::Expr) -> PlanResult<Expr>,
) -> PlanResult<Expr> {
    Ok(match item {
        SelectItem::UnnamedExpr(expr) => convert(expr)?,
        SelectItem::ExprWithAlias { expr, alias } => convert(expr)?.alias(&alias.value),
        SelectItem::ExprWithAliases { expr, aliases } => {
            let names = aliases.iter().map(|alias| alias.value.clone()).collect();
            Expr::Aliases(Box::new(convert(expr)?), names)
        }
        SelectItem::Wildcard(options) => star(None, options, place(item.span().start))?,
        SelectItem::QualifiedWildcard(
            SelectItemQualifiedWildcardKind::ObjectName(name),
            options,
        ) => star(Some(plain(name)), options, place(item.span().start))?,
        other => {
            return Err(refuse(
                format_args!("`{other}` in a SELECT list"),
                place(item.span().start),
            ));
        }
    })
}

/// The most sets of keys of one GROUP BY.
const MOST_SETS: usize = 256;

/// The keys of GROUP BY, and for ROLLUP, CUBE and GROUPING SETS which of them each set has.
#[expect(clippy::type_complexity, reason = "keys, and sets of their places")]
fn grouping(
    group_by: &GroupByExpr,
    constants: &Subqueries<'_>,
    here: Place,
) -> PlanResult<(Vec<Expr>, Option<Vec<Vec<usize>>>)> {
    let GroupByExpr::Expressions(written, modifiers) = group_by else {
        return Err(refuse("`GROUP BY ALL`", here));
    };
    let mut keys: Vec<Expr> = Vec::new();
    // Each part of the clause has its sets; all of one with all of the next.
    let mut sets: Vec<Vec<usize>> = vec![Vec::new()];
    let mut any = false;
    let place = |keys: &mut Vec<Expr>, expr: &ast::Expr| -> PlanResult<usize> {
        let key = convert_with(expr, constants)?;
        Ok(keys.iter().position(|other| *other == key).unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        }))
    };
    let of_groups = |keys: &mut Vec<Expr>, groups: &[Vec<ast::Expr>]| {
        let group = |group: &Vec<ast::Expr>| group.iter().map(|e| place(keys, e)).collect();
        groups.iter().map(group).collect::<PlanResult<Vec<Vec<usize>>>>()
    };
    let rollup = |groups: Vec<Vec<usize>>| -> Vec<Vec<usize>> {
        (0..=groups.len()).rev().map(|n| groups[..n].concat()).collect()
    };
    let cube = |groups: Vec<Vec<usize>>| -> Vec<Vec<usize>> {
        let chosen = |bits: usize| {
            let there = |i: &usize| bits >> (groups.len() - 1 - i) & 1 == 0;
            (0..groups.len()).filter(there).flat_map(|i| groups[i].clone()).collect()
        };
        (0..1usize << groups.len().min(12)).map(chosen).collect()
    };
    for expr in written {
        let part = match expr {
            ast::Expr::Rollup(groups) => rollup(of_groups(&mut keys, groups)?),
            ast::Expr::Cube(groups) => cube(of_groups(&mut keys, groups)?),
            ast::Expr::GroupingSets(groups) => of_groups(&mut keys, groups)?,
            key => {
                let at = place(&mut keys, key)?;
                sets.iter_mut().for_each(|set| set.push(at));
                continue;
            }
        };
        any = true;
        let with = |set: &Vec<usize>| {
            part.iter().map(|more| [&set[..], more].concat()).collect::<Vec<_>>()
        };
        sets = sets.iter().flat_map(with).collect();
    }
    for modifier in modifiers {
        let groups = (0..keys.len()).map(|key| vec![key]).collect();
        sets = match modifier {
            ast::GroupByWithModifier::Rollup => rollup(groups),
            ast::GroupByWithModifier::Cube => cube(groups),
            other => return Err(refuse(format_args!("`GROUP BY` … {other}"), here)),
        };
        any = true;
    }
    if sets.len() > MOST_SETS || keys.len() > 62 {
        return Err(PlanError::new(
            "GROUPING_SIZE_LIMIT_EXCEEDED",
            format!("`GROUP BY` has {} sets of {} keys", sets.len(), keys.len()),
            format!("At most {MOST_SETS} sets: each row is in a group of each"),
        )
        .at(here));
    }
    Ok((keys, any.then_some(sets)))
}

/// `*`, perhaps without some columns.
fn star(
    table: Option<String>,
    options: &ast::WildcardAdditionalOptions,
    here: Place,
) -> PlanResult<Expr> {
    let odd = options.opt_ilike.is_some()
        || options.opt_replace.is_some()
        || options.opt_rename.is_some()
        || options.opt_exclude.is_some();
    if odd {
        return Err(refuse("* with more than EXCEPT", here));
    }
    let Some(except) = &options.opt_except else { return Ok(Expr::Star(table)) };
    let dropped = std::iter::once(&except.first_element).chain(&except.additional_elements);
    Ok(Expr::StarExcept(table, dropped.map(|name| name.value.clone()).collect(), here))
}

/// A name without quotes.
pub(super) fn plain(name: &ast::ObjectName) -> String {
    let parts =
        name.0.iter().map(|part| part.as_ident().map_or(part.to_string(), |i| i.value.clone()));
    parts.collect::<Vec<_>>().join(".")
}

fn aliased(plan: Plan, alias: Option<&TableAlias>, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let Some(alias) = alias else { return Ok(plan) };
    let number = alias.name.value.strip_prefix(WATERMARK_MARK).and_then(|n| n.parse().ok());
    if let Some(watermark) = number.and_then(|number| catalog.watermark(number)) {
        let plan = watermarked(plan, watermark).map_err(|error| error.at(watermark.place))?;
        return Ok(match &watermark.alias {
            Some(alias) => Plan::Alias(Box::new(plan), alias.clone()),
            None => plan,
        });
    }
    let plan = renamed(plan, alias)?;
    Ok(Plan::Alias(Box::new(plan), alias.name.value.clone()))
}

/// A relation with a WATERMARK clause; a time that is no column becomes one.
fn watermarked(plan: Plan, watermark: &Watermark) -> PlanResult<Plan> {
    let Watermark { time, name, delay, .. } = watermark;
    if let (Expr::Column { .. }, None) = (time, name) {
        return windows::with_watermark(plan, time, delay);
    }
    let Some(name) = name else {
        return Err(PlanError::new(
            "REQUIRES_EXPLICIT_NAME_IN_WATERMARK_CLAUSE",
            format!("the event time `{time}` is an expression and has no name"),
            "Write: WATERMARK to_timestamp(text) AS time DELAY OF …",
        ));
    };
    let scope = plan.scope();
    let made = resolve(time, &scope)?;
    let plan = windows::with_column(plan, &scope, made, name, None);
    let column = Expr::Column { parts: vec![name.clone()], place: watermark.place };
    windows::with_watermark(plan, &column, delay)
}

/// What stands in FROM before any JOIN.
pub(super) fn relation(factor: &TableFactor, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = place(factor.span().start);
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let name = plain(name);
            let (name, marked) = match name.strip_prefix(STREAM_MARK) {
                Some(name) => (name.to_string(), true),
                None => (name, false),
            };
            let found = catalog.relation(&name).ok_or_else(|| unknown(&name, catalog).at(here))?;
            let found = if marked { as_stream(found, &name, here)? } else { found };
            aliased(Plan::Alias(Box::new(found), name), alias.as_ref(), catalog)
        }
        TableFactor::NestedJoin { table_with_joins, alias } => aliased(
            super::join::relation_with_joins(table_with_joins, catalog)?,
            alias.as_ref(),
            catalog,
        ),
        TableFactor::Derived { lateral: false, subquery, alias, .. } => {
            aliased(plan(subquery, catalog)?, alias.as_ref(), catalog)
        }
        other => Err(refuse(format_args!("`{other}` in FROM"), here)),
    }
}

/// `STREAM name`.
fn as_stream(found: Plan, name: &str, here: Place) -> PlanResult<Plan> {
    let found = found.into_stream();
    if found.is_streaming() {
        return Ok(found);
    }
    Err(PlanError::new(
        "NOT_A_STREAM",
        format!("`{name}` holds constant rows and cannot be read as a stream"),
        "Leave STREAM out",
    )
    .at(here))
}

/// `VALUES (1, 'a'), (2, 'b')`: columns col1, col2 … of constants.
fn inline_table(values: &ast::Values, catalog: &dyn Catalog, here: Place) -> PlanResult<Plan> {
    let semantics = catalog.semantics();
    let convert = |expr: &ast::Expr| convert_with(expr, &constants(catalog));
    let scope = Scope::default();
    let mut columns: Vec<Vec<Resolved>> = Vec::new();
    for row in &values.rows {
        let row = row.content.iter().map(|value| resolve(&convert(value)?, &scope));
        let row = row.collect::<PlanResult<Vec<_>>>()?;
        if columns.is_empty() {
            columns = vec![Vec::new(); row.len()];
        }
        if row.len() != columns.len() {
            return Err(PlanError::new(
                "INVALID_INLINE_TABLE.NUM_COLUMNS_MISMATCH",
                format!("a row has {} values, another {}", row.len(), columns.len()),
                "",
            )
            .at(here));
        }
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let mut fields = Vec::new();
    let mut rows = vec![Vec::new(); values.rows.len()];
    for (i, column) in columns.into_iter().enumerate() {
        let column = unify("VALUES", column).map_err(|error| error.at(here))?;
        let data_type = column.first().map_or(DataType::Null, |first| first.data_type.clone());
        let nullable = column.iter().any(|value| value.nullable);
        fields.push(Field::new(format!("col{}", i + 1), data_type, nullable));
        for (row, value) in rows.iter_mut().zip(column) {
            match fold(value, semantics).node {
                Node::Literal(value) => row.push(value),
                _ => {
                    return Err(PlanError::new(
                        "INVALID_INLINE_TABLE.CANNOT_EVALUATE_EXPRESSION_IN_INLINE_TABLE",
                        "`VALUES` holds an expression that is no constant",
                        "",
                    )
                    .at(here));
                }
            }
        }
    }
    Ok(Plan::Values(Schema::new(fields), rows))
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

fn lateral_view(input: Plan, view: &ast::LateralView, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = place(view.lateral_view.span().start);
    let call = convert_with(&view.lateral_view, &constants(catalog))?;
    if !crate::table::generate::is_generator(&call) {
        return Err(refuse(
            format_args!("`LATERAL VIEW` of `{call}`, which is no generator"),
            here,
        ));
    }
    let names: Vec<String> = view.lateral_col_alias.iter().map(|name| name.value.clone()).collect();
    let width = input.width();
    let made = analyze::generate(input, &call, view.outer, &names)?;
    // Its columns may be named with the view's name.
    Ok(Plan::AliasFrom(Box::new(made), width, plain(&view.lateral_view_name)))
}
