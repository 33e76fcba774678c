//! Plans SELECT statements.

use super::expr::convert_with;
use super::group::{GroupBy, group_by};
use super::inline_table::inline_table;
use super::lateral::{is_lateral, lateral};
use super::order::{Order, arrangement, not_together, order_by};
use super::pivot::is_pivot;
use super::range::range;
use super::refused;
use super::set_operation::{from_left, is_union_all, set_operation, union_all};
use super::subquery::{Joining, constants};
use super::table_function::table_function;
use super::views::Views;
use super::windows::{WindowClauses, over_groups, refuse_in_order};
use super::{Catalog, STREAM_MARK, WATERMARK_MARK, Watermark, files, memo, place};
use crate::table::error::{Place, PlanError, PlanResult, counted};
use crate::table::expr::Expr;
use crate::table::expr::compile::constant;
use crate::table::expr::resolve::{
    Scope, expand_stars, into_chosen, nearest, resolve, without_stars,
};
use crate::table::expr::type_rules::Rules;
use crate::table::plan::analyzer;
use crate::table::plan::analyzer::{Unioned, has_aggregate, has_aggregate_itself};
use crate::table::plan::generator::is_generator;
use crate::table::plan::grouping::{Grouping, check_qualify_aggregates, substitute};
use crate::table::plan::input_file::{as_column, calls_input_file, with_input_file};
use crate::table::plan::join;
use crate::table::plan::join::JoinType;
use crate::table::plan::limits::{MAX_NESTING, count_copies, count_select, nested, too_complex};
use crate::table::plan::time_window;
use crate::table::plan::window_function::{has_over, not_in_clause};
use crate::table::plan::{METADATA, Plan};
use crate::table::sql::INPUT_FILE;
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use sqlparser::ast::{
    self, Distinct, JoinConstraint, LimitClause, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Spanned, TableAlias, TableFactor,
};

pub(super) fn refuse(what: impl std::fmt::Display, at: Place) -> PlanError {
    PlanError::not_yet(what).at(at)
}

/// Plans a parsed query: WITH, the body, ORDER BY, OFFSET and LIMIT.
pub fn plan(query: &ast::Query, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = begin(&query.body);
    // An error without a position gets the position of the query's body.
    nested(here, || plan_clauses(query, catalog)).map_err(|error| error.at(here))
}

/// Plans the last branch of a long UNION ALL, and the clauses after it.
pub(super) fn plan_last(
    before: Option<Unioned>,
    query: &ast::Query,
    catalog: &dyn Catalog,
) -> PlanResult<Plan> {
    let here = begin(&query.body);
    let Some(mut union) = before else { return plan(query, catalog) };
    nested(here, || {
        union.add(body(&query.body, catalog)?).map_err(|error| error.at(here))?;
        let mut whole = union.finish();
        clauses(query, catalog, |order| match order {
            Some(order) => order.sort(whole.clone()),
            // Without an order the closure is called only once, so it can move the plan.
            None => Ok(std::mem::replace(&mut whole, Plan::Values(Schema::default(), Vec::new()))),
        })
    })
    .map_err(|error| error.at(here))
}

/// Plans the next branch of a UNION ALL and adds it to `union`.
pub(super) fn branch(
    union: &mut Option<Unioned>,
    written: &SetExpr,
    catalog: &dyn Catalog,
) -> PlanResult<()> {
    let here = begin(written);
    let plan = body(written, catalog).map_err(|error| error.at(here))?;
    match union {
        Some(union) => union.add(plan).map_err(|error| error.at(here))?,
        None => *union = Some(Unioned::new(plan)),
    }
    Ok(())
}

fn plan_clauses(query: &ast::Query, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = begin(&query.body);
    let with;
    let catalog: &dyn Catalog = match &query.with {
        None => catalog,
        Some(ctes) if ctes.recursive => return Err(refuse("`WITH RECURSIVE`", here)),
        Some(ctes) => {
            let mut views = Views::new(catalog);
            ctes.cte_tables.iter().try_for_each(|cte| views.add(cte))?;
            with = views;
            &with
        }
    };
    let sets_from_left = Rules::current().naming.sets_from_left;
    let from_left = sets_from_left.then(|| from_left(&query.body)).flatten();
    let written = from_left.as_ref().unwrap_or(&query.body);
    clauses(query, catalog, |order| match (written, order) {
        (SetExpr::Select(select), order) => self::select(select, catalog, order),
        (other, None) => body(other, catalog),
        (other, Some(order)) => order.sort(body(other, catalog)?),
    })
}

/// Applies ORDER BY, OFFSET and LIMIT to the body of a query. `ordered` plans the body, sorted by
/// an order if one is given. OFFSET on a stream is an error.
fn clauses(
    query: &ast::Query,
    catalog: &dyn Catalog,
    mut ordered: impl FnMut(Option<&Order>) -> PlanResult<Plan>,
) -> PlanResult<Plan> {
    let here = begin(&query.body);
    refused::check_query(query, here, catalog)?;
    let order = order_by(query, catalog)?;
    let may_be_all = order.as_ref().is_some_and(Order::may_be_all);
    let made = match may_be_all {
        true => memo::repeatable(|| ordered(order.as_ref())),
        false => ordered(order.as_ref()),
    };
    let mut plan = match (made, order.and_then(Order::into_all)) {
        // If there is a column named `all`, it takes precedence over ORDER BY ALL.
        (Err(error), Some(all)) if error.condition.starts_with("UNRESOLVED_COLUMN") => {
            ordered(Some(&all))?
        }
        (made, _) => made?,
    };
    let (offset, limit) = limits(query, catalog, here)?;
    if let Some(rows) = offset {
        if plan.is_streaming() {
            return Err(PlanError::new(
                "STREAMING_OFFSET_UNSUPPORTED",
                "`OFFSET` has no meaning on a stream",
                "Use LIMIT alone",
            )
            .at(here));
        }
        plan = Plan::Offset(Box::new(plan), rows);
    }
    Ok(match limit {
        Some(rows) => Plan::Limit(Box::new(plan), rows),
        None => plan,
    })
}

/// The row counts of OFFSET and LIMIT; `None` for a missing clause.
pub(super) fn limits(
    query: &ast::Query,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<(Option<u64>, Option<u64>)> {
    let (limit, offset) = match &query.limit_clause {
        None => return Ok((None, None)),
        Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
            if let Some(by) = limit_by.first() {
                let here = place(by.span().start);
                return Err(super::syntax("`LIMIT … BY` is not a clause of Spark SQL", here));
            }
            (limit, offset)
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
            let mut error = super::syntax("`LIMIT` has two numbers", place(offset.span().start));
            error.fix = format!("Write LIMIT {limit} OFFSET {offset}");
            return Err(error);
        }
    };
    if let Some(offset) = offset {
        refused::check_offset(offset.rows, here, catalog)?;
    }
    let offset = offset.as_ref().map(|offset| count(&offset.value, "OFFSET", catalog, here));
    let limit = limit.as_ref().map(|limit| count(limit, "LIMIT", catalog, here));
    Ok((offset.transpose()?, limit.transpose()?))
}

/// The position of a query's body, after the WITH clause.
fn begin(body: &SetExpr) -> Place {
    let mut first = body;
    loop {
        first = match first {
            SetExpr::Select(select) => return place(select.select_token.0.span.start),
            SetExpr::Query(query) => &query.body,
            SetExpr::SetOperation { left, .. } => left,
            // The parser gives `TABLE t` no position of its own.
            SetExpr::Table(table) => {
                let name = table.schema_name.as_ref().or(table.table_name.as_ref());
                return name.map_or(Place::default(), |name| place(name.span.start));
            }
            other => return place(other.span().start),
        }
    }
}

/// The position of a query, from its WITH clause if it has one.
pub(super) fn start(query: &ast::Query) -> Place {
    match &query.with {
        Some(with) => place(with.with_token.0.span.start),
        None => begin(&query.body),
    }
}

/// Renames the columns of a plan if the alias lists column names.
pub(super) fn renamed(plan: Plan, alias: &TableAlias) -> PlanResult<Plan> {
    refused::check_alias(alias)?;
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
            format!(
                "the alias names {}, but there are {}",
                counted(alias.columns.len(), "column"),
                columns.len()
            ),
            "Name each column, or none",
        )
        .at(place(alias.name.span.start)));
    }
    Ok(plan.renamed(alias.columns.iter().map(|column| column.name.value.clone()).collect()))
}

/// Evaluates the row count of LIMIT, OFFSET or TABLESAMPLE, which must be a constant that is not
/// negative, of type INT, SMALLINT or TINYINT.
fn count(written: &ast::Expr, clause: &str, catalog: &dyn Catalog, here: Place) -> PlanResult<u64> {
    let wrong = |kind: &str, what: &str| {
        PlanError::new(
            format!("INVALID_LIMIT_LIKE_EXPRESSION.{kind}"),
            format!("`{clause} {written}` is {what}"),
            format!("Write {clause} 10"),
        )
        .at(here)
    };
    let unfoldable = || wrong("IS_UNFOLDABLE", "no constant");
    let expr = convert_with(written, &constants(catalog))?;
    if has_over(&expr) {
        return Err(unfoldable());
    }
    let resolved = resolve(&expr, &Scope::default());
    let resolved = match resolved {
        Err(error) if error.condition.starts_with("UNRESOLVED_COLUMN") => {
            return Err(unfoldable());
        }
        other => other?,
    };
    if !resolved.is_foldable() {
        return Err(unfoldable());
    }
    if !matches!(resolved.data_type, DataType::Int | DataType::Short | DataType::Byte) {
        return Err(wrong("DATA_TYPE", "no INT"));
    }
    match constant(&resolved, catalog.semantics()).map_err(|error| error.at(here))? {
        Some(Value::Long(rows)) => {
            u64::try_from(rows).map_err(|_| wrong("IS_NEGATIVE", "negative"))
        }
        Some(_) => Err(wrong("IS_NULL", "NULL")),
        None => Err(unfoldable()),
    }
}

pub(super) fn body(body: &SetExpr, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = begin(body);
    nested(here, || body_at(body, catalog, here))
}

fn body_at(body: &SetExpr, catalog: &dyn Catalog, here: Place) -> PlanResult<Plan> {
    match body {
        all if is_union_all(all).is_some() => union_all(all, catalog, here),
        SetExpr::Select(select) => self::select(select, catalog, None),
        SetExpr::Query(query) => plan(query, catalog),
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            set_operation(*op, *set_quantifier, (left, right), catalog, here)
        }
        SetExpr::Values(values) => inline_table(values, catalog, here),
        SetExpr::Table(table) => {
            let parts = table.schema_name.iter().chain(&table.table_name);
            let name = parts.map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
            let found = named(&name, catalog, here)?;
            Ok(Plan::Alias(Box::new(found), name))
        }
        other => Err(refuse(format_args!("`{other}` as a query"), here)),
    }
}

/// Plans a SELECT and its SORT BY, DISTRIBUTE BY and CLUSTER BY, sorted by `order` if one is given.
fn select(select: &Select, catalog: &dyn Catalog, order: Option<&Order>) -> PlanResult<Plan> {
    let arrangement = arrangement(select, catalog)?;
    if order.is_some() && arrangement.is_some() {
        return Err(not_together(place(select.select_token.0.span.start)));
    }
    select_ordered(select, catalog, order.or(arrangement.as_ref()))
}

/// Adds the file metadata column to the rows of FROM, if the text of a SELECT names it or calls a
/// function of a row's file, or if ORDER BY calls one.
fn with_file(input: Plan, select: &str, order: Option<&Order>) -> PlanResult<Plan> {
    let mut keys = order.map_or(&[][..], Order::exprs).iter();
    let with = match select.contains(INPUT_FILE) || keys.any(|key| calls_input_file(&key.expr)) {
        true => with_input_file(&input)?,
        false if select.contains(METADATA) => input.with_metadata(),
        false => None,
    };
    Ok(with.unwrap_or(input))
}

fn select_ordered(
    select: &Select,
    catalog: &dyn Catalog,
    order: Option<&Order>,
) -> PlanResult<Plan> {
    let here = place(select.select_token.0.span.start);
    count_select(here)?;
    let distinct = matches!(select.distinct, Some(Distinct::Distinct));
    let input = from_clause(select, catalog)?;
    // This scope is taken before subqueries add columns, which are not part of `*`.
    let written = input.scope();
    let input = match catalog.may_name_files() {
        true => with_file(input, &select.to_string().to_lowercase(), order)?,
        false => input,
    };
    let joining = Joining::new(input, catalog);
    if let Some(condition) = &select.selection {
        joining.filter(condition)?;
    }
    let constant = constants(catalog);
    let group_by = group_by(&select.group_by, &constant, here)?;
    let having_as_where = catalog.semantics().naming.having_as_where && !group_by.is_written();
    if let Some(condition) = select.having.as_ref().filter(|_| having_as_where) {
        joining.filter(condition)?;
    }
    let having = select.having.as_ref().filter(|_| !having_as_where);
    let having = having.map(|e| convert_with(e, &constant)).transpose()?;
    let of_rows = |e: &ast::Expr| joining.convert_value(e);
    let of_groups = |e: &ast::Expr| convert_with(e, &constant);
    let may_group = group_by.is_written() || having.is_some();
    let converted = |select_item: &SelectItem| match may_group {
        true => item_with(select_item, &of_groups),
        false => item_with(select_item, &of_rows),
    };
    let of_qualify: &dyn Fn(&ast::Expr) -> PlanResult<Expr> =
        if may_group { &of_groups } else { &of_rows };
    let windows = WindowClauses::new(select, of_qualify, catalog, here)?;
    let items = match select.flavor {
        SelectFlavor::FromFirstNoSelect => vec![Expr::Star(None)],
        SelectFlavor::Standard | SelectFlavor::FromFirst => {
            select.projection.iter().map(converted).collect::<PlanResult<Vec<_>>>()?
        }
    };
    // A name without parentheses is a column if the scope has one of this name, otherwise a
    // function call.
    let items: Vec<Expr> = items.into_iter().map(|item| into_chosen(item, &written)).collect();
    let input = joining.into_plan();
    let below = if distinct { input.scope() } else { Scope::default() };
    let grouped = may_group || items.iter().any(has_aggregate);
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
        if let Some(condition) = windows.qualify() {
            check_qualify_aggregates(condition)?;
            windows.check_qualify(&items)?;
        }
        if windows.are_used(&items) {
            windows.check_aliases(&items, &input.scope())?;
            order.map_or(Ok(()), refuse_in_order)?;
            let windows = windows.without_aliases(&items, &input.scope());
            return windows.plan(input, &items, order, distinct);
        }
        let plan = analyzer::project(input, &items)?;
        return match (distinct, order) {
            (false, None) => Ok(plan),
            (false, Some(order)) => {
                // The functions of a row's file are called below the projection.
                order.map_exprs(&mut |key| Ok(as_column(key)))?.sort_selected(plan, &items)
            }
            (true, order) => distinct_of(plan, (&items, &below), order),
        };
    }
    let group_by = by_column_named_all(group_by, &input);
    group_by.check_star(&items)?;
    let items = without_stars(&written, &items)?.into_owned();
    windows.check_aliases(&items, &input.scope())?;
    let items = with_lateral_aliases(items, &input.scope())?;
    let keys = if group_by.all { group_by.keys_of_all(&items)? } else { group_by.keys.clone() };
    if having.as_ref().is_some_and(has_over) {
        return Err(not_in_clause("HAVING", here));
    }
    if windows.are_used(&items) || windows.qualify().is_some() {
        let group_by = GroupBy { keys, ..group_by };
        let having = having.as_ref();
        return over_groups(&windows, input, &items, (group_by, having), order, distinct);
    }
    let grouping = Grouping::with_sets(input, &keys, group_by.sets, &items)?;
    let by: &[_] = if distinct { &[] } else { order.map_or(&[], Order::exprs) };
    let by: Vec<&Expr> = by.iter().map(|key| &key.expr).collect();
    let (plan, places) = grouping.finish_ordered(&items, having.as_ref(), &by)?;
    match (distinct, order) {
        (true, order) => distinct_of(plan, (&items, &below), order),
        (false, None) => Ok(plan),
        (false, Some(order)) => order.sort_by_columns(plan, items.len(), &places),
    }
}

/// Replaces GROUP BY ALL by the column named `all`, which takes precedence, if there is one.
fn by_column_named_all(group_by: GroupBy, input: &Plan) -> GroupBy {
    let named_all = Expr::Column { parts: vec!["all".to_string()], place: Place::default() };
    match group_by.all && resolve(&named_all, &input.scope()).is_ok() {
        true => GroupBy { keys: vec![named_all], sets: None, all: false },
        false => group_by,
    }
}

/// Replaces, in the SELECT list of an aggregation, names that are not columns by the expressions of
/// earlier items with these aliases.
fn with_lateral_aliases(items: Vec<Expr>, scope: &Scope) -> PlanResult<Vec<Expr>> {
    let mut aliases: Vec<Expr> = Vec::new();
    let mut made = Vec::with_capacity(items.len());
    for item in items {
        let replaced = match aliases.is_empty() {
            true => item.clone(),
            false => with_aliases(&item, &aliases, scope)?,
        };
        let is_named = matches!(item, Expr::Alias(..));
        if is_named {
            aliases.push(replaced.clone());
        }
        let name = (!is_named && replaced != item).then(|| item.output_name());
        made.push(name.map_or_else(|| replaced.clone(), |name| replaced.clone().alias(&name)));
    }
    Ok(made)
}

/// Replaces aliases in an expression, except in the arguments of an aggregate, where Spark has none.
fn with_aliases(expr: &Expr, aliases: &[Expr], scope: &Scope) -> PlanResult<Expr> {
    if matches!(expr, Expr::Column { .. } | Expr::Lambda(..)) {
        return Ok(substitute(expr, aliases, scope));
    }
    let is_over = matches!(expr, Expr::Over(_));
    if is_over || has_aggregate_itself(expr) {
        let condition = match is_over {
            true => "UNSUPPORTED_FEATURE.LATERAL_COLUMN_ALIAS_IN_WINDOW",
            false => "UNSUPPORTED_FEATURE.LATERAL_COLUMN_ALIAS_IN_AGGREGATE_FUNC",
        };
        return match substitute(expr, aliases, scope) == *expr {
            true => Ok(expr.clone()),
            false => Err(PlanError::new(
                condition,
                format!("`{expr}` has an alias of the same SELECT list"),
                "Write the expression itself, or compute it in a subquery",
            )
            .at(expr.place())),
        };
    }
    let mut outcome = Ok(());
    let made = expr.map_children(&mut |part| match with_aliases(part, aliases, scope) {
        Ok(made) => made,
        Err(error) => {
            outcome = Err(error);
            part.clone()
        }
    });
    outcome.map(|()| made)
}

/// Plans SELECT DISTINCT: the distinct rows of a SELECT list, sorted if an order is given. `input`
/// is the scope of the list's input.
pub(super) fn distinct_of(
    plan: Plan,
    (items, input): (&[Expr], &Scope),
    order: Option<&Order>,
) -> PlanResult<Plan> {
    analyzer::refuse_incomparable(&plan)?;
    let plan = analyzer::distinct(plan);
    match order {
        None => Ok(plan),
        Some(order) => order.sort_distinct(plan, items, input),
    }
}

/// Plans FROM and its lateral views.
pub(super) fn from_clause(select: &Select, catalog: &dyn Catalog) -> PlanResult<Plan> {
    refused::check_select(select, catalog)?;
    let here = place(select.select_token.0.span.start);
    memo::from_clause(select, here, || relations(select, catalog, here))
}

fn relations(select: &Select, catalog: &dyn Catalog, here: Place) -> PlanResult<Plan> {
    if select.from.len().max(select.lateral_views.len()) > MAX_NESTING {
        return Err(too_complex(format!("FROM has more than {MAX_NESTING} relations"), here));
    }
    let nothing = || Plan::Values(Schema::default(), vec![Vec::new()]);
    let mut input: Option<Plan> = None;
    for table in &select.from {
        if is_lateral(&table.relation) {
            let left = input.unwrap_or_else(nothing);
            let on = JoinConstraint::None;
            let left = lateral(left, &table.relation, JoinType::Inner, &on, catalog, here);
            let left = left.map_err(|error| error.at(here))?;
            input = Some(super::join::joined_to(left, &table.joins, catalog)?);
            continue;
        }
        // PIVOT and UNPIVOT apply to all relations before them, also to those before a comma.
        let first = table.joins.iter().position(is_pivot).unwrap_or(table.joins.len());
        let right = relation(&table.relation, catalog)?;
        let right = super::join::joined_to(right, &table.joins[..first], catalog)?;
        let left = match input {
            None => right,
            Some(left) => join::join(left, right, JoinType::Inner, None)?,
        };
        input = Some(super::join::joined_to(left, &table.joins[first..], catalog)?);
    }
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

/// Converts `*`, which may have an EXCEPT clause.
fn star(
    table: Option<String>,
    options: &ast::WildcardAdditionalOptions,
    here: Place,
) -> PlanResult<Expr> {
    refused::check_star(options, here)?;
    let Some(except) = &options.opt_except else { return Ok(Expr::Star(table)) };
    let dropped = std::iter::once(&except.first_element).chain(&except.additional_elements);
    Ok(Expr::StarExcept(table, dropped.map(|name| name.value.clone()).collect(), here))
}

/// The text of a name, without quotes.
pub(super) fn plain(name: &ast::ObjectName) -> String {
    let parts =
        name.0.iter().map(|part| part.as_ident().map_or(part.to_string(), |i| i.value.clone()));
    parts.collect::<Vec<_>>().join(".")
}

pub(super) fn aliased(
    plan: Plan,
    alias: Option<&TableAlias>,
    catalog: &dyn Catalog,
) -> PlanResult<Plan> {
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

/// Applies a WATERMARK clause to a relation. If the clause names the event time (`AS name`), a
/// column of this name is added to the relation. Fails if the event time is neither a column nor
/// named.
fn watermarked(plan: Plan, watermark: &Watermark) -> PlanResult<Plan> {
    let Watermark { time, name, delay, .. } = watermark;
    let limited = |plan: Plan| match &watermark.skew {
        Some(skew) => time_window::with_max_future_skew(plan, skew),
        None => Ok(plan),
    };
    if let (Expr::Column { .. }, None) = (time, name) {
        return limited(time_window::with_watermark(plan, time, delay)?);
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
    let plan = time_window::with_column(plan, &scope, made, name, None);
    let column = Expr::Column { parts: vec![name.clone()], place: watermark.place };
    limited(time_window::with_watermark(plan, &column, delay)?)
}

/// Plans a relation of FROM, without its JOINs.
pub(super) fn relation(factor: &TableFactor, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = match factor {
        TableFactor::Derived { subquery, .. } => start(subquery),
        other => place(other.span().start),
    };
    refused::check_relation(factor, here, catalog)?;
    match factor {
        TableFactor::Table { name, alias, args: None, sample, with_hints, .. } => {
            let files = files::named(name, with_hints, catalog, here)?;
            let name = plain(name);
            let (name, marked) = match name.strip_prefix(STREAM_MARK) {
                Some(name) => (name.to_string(), true),
                None => (name, false),
            };
            let found = match files {
                Some(files) => files,
                None => {
                    refused::check_hints(with_hints, here, catalog)?;
                    named(&name, catalog, here)?
                }
            };
            let found = if marked { as_stream(found, &name, here)? } else { found };
            let found = match sample {
                Some(sample) => sampled(found, sample, catalog, here)?,
                None => found,
            };
            aliased(Plan::Alias(Box::new(found), name), alias.as_ref(), catalog)
        }
        TableFactor::Table { name, alias, args: Some(args), sample: None, .. }
            if plain(name).eq_ignore_ascii_case("range") && args.settings.is_none() =>
        {
            let made = range(&args.args, catalog, here)?;
            aliased(Plan::Alias(Box::new(made), "range".to_string()), alias.as_ref(), catalog)
        }
        TableFactor::Table { name, alias, args: Some(args), sample, with_hints, .. }
            if args.settings.is_none() && is_read_files(name) =>
        {
            refused::check_hints(with_hints, here, catalog)?;
            let made = files::read_files(args, catalog, here)?;
            let made = match plain(name).starts_with(STREAM_MARK) {
                true => as_stream(made, "read_files", here)?,
                false => made,
            };
            let made = match sample {
                Some(sample) => sampled(made, sample, catalog, here)?,
                None => made,
            };
            aliased(Plan::Alias(Box::new(made), "read_files".to_string()), alias.as_ref(), catalog)
        }
        TableFactor::Table { name, alias, args: Some(args), sample: None, with_hints, .. }
            if args.settings.is_none() =>
        {
            refused::check_hints(with_hints, here, catalog)?;
            table_function(name, &args.args, alias.as_ref(), catalog, here)
        }
        TableFactor::NestedJoin { table_with_joins, alias } => aliased(
            super::join::relation_with_joins(table_with_joins, catalog)?,
            alias.as_ref(),
            catalog,
        ),
        TableFactor::Derived { lateral: false, subquery, alias, sample } => {
            let made = plan(subquery, catalog)?;
            let made = match sample {
                Some(sample) => sampled(made, sample, catalog, here)?,
                None => made,
            };
            aliased(made, alias.as_ref(), catalog)
        }
        other => Err(refuse(format_args!("`{other}` in FROM"), here)),
    }
}

/// Whether a table function is `read_files`, which may be read as a stream.
fn is_read_files(name: &ast::ObjectName) -> bool {
    let name = plain(name);
    name.strip_prefix(STREAM_MARK).unwrap_or(&name).eq_ignore_ascii_case("read_files")
}

/// The plan of a view or table. Fails if there is none of this name.
fn named(name: &str, catalog: &dyn Catalog, here: Place) -> PlanResult<Plan> {
    let found = catalog.relation(name).ok_or_else(|| unknown(name, catalog).at(here))?;
    count_copies(found.size()).map_err(|error| error.at(here))?;
    Ok(found)
}

/// Plans `TABLESAMPLE (n ROWS)`, which returns the first n rows.
fn sampled(
    plan: Plan,
    sample: &ast::TableSampleKind,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    let rows = refused::sample_rows(sample, here, catalog)?;
    let rows = count(rows, "TABLESAMPLE", catalog, here)?;
    Ok(Plan::Limit(Box::new(plan), rows))
}

/// Plans `STREAM name`: reads the tables of `found` as streams. Fails if it has none, only constant
/// rows.
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

/// The error for a name without a table and view, with similar names.
pub(crate) fn unknown(name: &str, catalog: &dyn Catalog) -> PlanError {
    if let Some(files) = files::meant(name) {
        return PlanError::new(
            "TABLE_OR_VIEW_NOT_FOUND",
            format!("there is no table or view `{name}`"),
            format!("A file is named by its format and path: FROM {files}"),
        );
    }
    let names = catalog.names();
    let near = nearest(name, names.iter().map(String::as_str));
    let near: Vec<_> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    let fix = if near.is_empty() {
        "Create it first: CREATE TEMPORARY VIEW v USING csv OPTIONS (path '…')".to_string()
    } else {
        format!("Did you mean one of: {}", near.join(", "))
    };
    PlanError::new("TABLE_OR_VIEW_NOT_FOUND", format!("there is no table or view `{name}`"), fix)
}

fn lateral_view(input: Plan, view: &ast::LateralView, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = place(view.lateral_view.span().start);
    let call = convert_with(&view.lateral_view, &constants(catalog))?;
    if !is_generator(&call) {
        return Err(refuse(
            format_args!("`LATERAL VIEW` of `{call}`, which is not a generator"),
            here,
        ));
    }
    let names: Vec<String> = view.lateral_col_alias.iter().map(|name| name.value.clone()).collect();
    let width = input.width();
    let made = analyzer::generate(input, &call, view.outer, &names)?;
    // The new columns can also be qualified by the name of the lateral view.
    Ok(Plan::QualifyFrom(Box::new(made), width, plain(&view.lateral_view_name)))
}
