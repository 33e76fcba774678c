//! Plans PIVOT, which turns values of a column into columns. It applies to all relations before it
//! in FROM. The groups are those of the columns that neither the pivot column nor an aggregate
//! reads.
//!
//! As in Spark, aggregates that are all numbers or booleans are computed for each group and value
//! of the pivot column, and a second aggregation turns the values into columns: a value without
//! rows gives NULL, also for `count`. Other aggregates are computed for each value by a filter.

use super::expr::convert_with;
use super::query::{aliased, plain};
use super::subquery::constants;
use super::unpivot::unpivot;
use super::{Catalog, PIVOT_MARK, place, syntax};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::compile::evaluate;
use crate::table::expr::resolve::{Scope, cast, resolve};
use crate::table::expr::{Expr, Node, Resolved, call};
use crate::table::plan::Plan;
use crate::table::plan::analyzer::has_aggregate_itself;
use crate::table::plan::grouping::{Grouping, named_columns};
use crate::table::types::DataType;
use crate::table::value::Value;
use sqlparser::ast::{self, JoinConstraint, JoinOperator, PivotValueSource, Spanned, TableFactor};
use std::collections::BTreeSet;

/// A value of the pivot column, and the name of its columns.
struct PivotValue {
    value: Expr,
    name: String,
}

/// The columns of the input that an expression reads.
pub(super) fn columns_read(
    expr: &Expr,
    scope: &Scope,
    read: &mut BTreeSet<usize>,
) -> PlanResult<()> {
    fn note(resolved: &Resolved, read: &mut BTreeSet<usize>) {
        if let Node::Column(at, _) = &resolved.node {
            read.insert(*at);
        }
        resolved.children().into_iter().for_each(|child| note(child, read));
    }
    let mut names = Vec::new();
    named_columns(expr, &mut names);
    for name in names {
        note(&resolve(name, scope)?, read);
    }
    Ok(())
}

/// A column of a plan, by its index.
pub(super) fn position(scope: &Scope, at: usize) -> Expr {
    Expr::Position(at, vec![scope.columns[at].name.clone()])
}

/// Fails if an aggregate of PIVOT reads a column that is in no aggregate function.
fn check_aggregate(aggregate: &Expr) -> PlanResult<()> {
    fn outside(expr: &Expr) -> bool {
        match expr {
            Expr::Column { .. } => true,
            Expr::UserAggregate(..) => false,
            _ if has_aggregate_itself(expr) => false,
            _ => {
                let mut found = false;
                expr.each_part(&mut |part| found = found || outside(part));
                found
            }
        }
    }
    if !outside(aggregate) {
        return Ok(());
    }
    Err(PlanError::new(
        "_LEGACY_ERROR_TEMP_1006",
        format!("`{aggregate}` in PIVOT reads a column outside of an aggregate function"),
        "Aggregate it: PIVOT (sum(x) FOR …)",
    ))
}

/// The pivot column: a column, or a struct of several.
fn pivot_column(columns: &[ast::Expr], catalog: &dyn Catalog) -> PlanResult<Expr> {
    let convert = |column: &ast::Expr| convert_with(column, &constants(catalog));
    match columns {
        [one] => convert(one),
        several => Ok(call("struct", several.iter().map(convert).collect::<PlanResult<Vec<_>>>()?)),
    }
}

/// Evaluates a value of the list after IN, as a value of the pivot column.
fn pivot_value(
    written: &ast::ExprWithAlias,
    column: &Resolved,
    scope: &Scope,
    catalog: &dyn Catalog,
) -> PlanResult<PivotValue> {
    let semantics = catalog.semantics();
    let expr = convert_with(&written.expr, &constants(catalog))?;
    let resolved = resolve(&expr, scope)?;
    if !resolved.is_foldable() {
        return Err(PlanError::new(
            "NON_LITERAL_PIVOT_VALUES",
            format!("`{expr}` in the list of PIVOT is no constant"),
            "Write the values: FOR year IN (2012, 2013)",
        ));
    }
    let name = match &written.alias {
        Some(alias) => alias.value.clone(),
        None => {
            let text = cast(resolved.clone(), &DataType::String, false)?;
            match evaluate(&text, semantics)? {
                Value::String(text) => text,
                _ => "null".to_string(),
            }
        }
    };
    let value = cast(resolved.clone(), &column.data_type, false).map_err(|_| {
        PlanError::new(
            "PIVOT_VALUE_DATA_TYPE_MISMATCH",
            format!(
                "`{expr}` in the list of PIVOT is {}, and the column is {}",
                resolved.data_type, column.data_type
            ),
            "Write values of the column's type; of several columns: IN (('a', 1), ('b', 2))",
        )
    })?;
    let value = Expr::Literal(evaluate(&value, semantics)?, column.data_type.clone());
    Ok(PivotValue { value, name })
}

/// Whether Spark turns values of this type into columns by a second aggregation.
fn is_plain(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Boolean) || data_type.is_numeric()
}

/// Adds a filter to the aggregate functions of an expression.
fn filtered(expr: &Expr, condition: &Expr) -> Expr {
    match expr {
        Expr::Call { name, args, distinct, filter, place } if has_aggregate_itself(expr) => {
            let both = match filter {
                Some(filter) => call("and", [(**filter).clone(), condition.clone()]),
                None => condition.clone(),
            };
            Expr::Call {
                name: name.clone(),
                args: args.clone(),
                distinct: *distinct,
                filter: Some(Box::new(both)),
                place: *place,
            }
        }
        other => other.map_children(&mut |part| filtered(part, condition)),
    }
}

/// The parts of a PIVOT over a planned input.
struct Pivot {
    input: Plan,
    column: Expr,
    /// The columns of the groups.
    keys: Vec<Expr>,
    /// The aggregates, without aliases, and the ends of their columns' names.
    aggregates: Vec<(Expr, String)>,
    values: Vec<PivotValue>,
}

impl Pivot {
    fn column_name(&self, value: &PivotValue, suffix: &str) -> String {
        match self.aggregates.len() {
            1 => value.name.clone(),
            _ => format!("{}_{suffix}", value.name),
        }
    }

    /// Aggregates in two steps if the aggregates' types allow it; see the module.
    fn plan(self) -> PlanResult<Plan> {
        let mut keys = self.keys.clone();
        keys.push(self.column.clone());
        let mut items: Vec<Expr> = keys.clone();
        items.extend(self.aggregates.iter().map(|(aggregate, _)| aggregate.clone()));
        let first = Grouping::new(self.input.clone(), &keys, &[])?.finish(&items, None)?;
        let (scope, begin) = (first.scope(), self.keys.len());
        if !scope.columns[begin + 1..].iter().all(|column| is_plain(&column.data_type)) {
            return self.plan_by_filters();
        }
        let keys: Vec<Expr> = (0..begin).map(|at| position(&scope, at)).collect();
        let column = position(&scope, begin);
        let mut items = keys.clone();
        for value in &self.values {
            let is_value = call("<=>", [column.clone(), value.value.clone()]);
            for (at, (_, suffix)) in self.aggregates.iter().enumerate() {
                // There is at most one row of the group and the value.
                let only = call("max", [position(&scope, begin + 1 + at)]).filter(is_value.clone());
                items.push(only.alias(&self.column_name(value, suffix)));
            }
        }
        Grouping::new(first, &keys, &[])?.finish(&items, None)
    }

    fn plan_by_filters(self) -> PlanResult<Plan> {
        let mut items = self.keys.clone();
        for value in &self.values {
            let is_value = call("<=>", [self.column.clone(), value.value.clone()]);
            for (aggregate, suffix) in &self.aggregates {
                let made = filtered(aggregate, &is_value);
                items.push(made.alias(&self.column_name(value, suffix)));
            }
        }
        Grouping::new(self.input, &self.keys, &[])?.finish(&items, None)
    }
}

/// Whether a join is a PIVOT or UNPIVOT of all relations before it.
pub(super) fn is_pivot(join: &ast::Join) -> bool {
    match &join.relation {
        TableFactor::Pivot { table, .. } | TableFactor::Unpivot { table, .. } => {
            matches!(&**table, TableFactor::Table { name, .. } if plain(name) == PIVOT_MARK)
        }
        _ => false,
    }
}

/// Applies PIVOT or UNPIVOT, which is parsed as a join, to the relations before it.
pub(super) fn pivoted(input: Plan, join: &ast::Join, catalog: &dyn Catalog) -> PlanResult<Plan> {
    let here = place(join.relation.span().start);
    if !matches!(&join.join_operator, JoinOperator::CrossJoin(JoinConstraint::None)) {
        return Err(syntax("a condition of a join stands behind PIVOT or UNPIVOT", here));
    }
    match &join.relation {
        TableFactor::Unpivot { .. } => unpivot(input, &join.relation, catalog, here),
        _ => pivot(input, &join.relation, catalog, here),
    }
}

fn pivot(
    input: Plan,
    factor: &TableFactor,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    let TableFactor::Pivot {
        table: _,
        aggregate_functions,
        value_column,
        value_source,
        default_on_null,
        alias,
    } = factor
    else {
        return Err(PlanError::not_yet(format_args!("`{factor}` in FROM")).at(here));
    };
    let values = match value_source {
        PivotValueSource::List(values) if default_on_null.is_none() => values,
        _ => {
            let mut error = syntax("PIVOT of Spark SQL has a list of values after IN", here);
            error.fix = "Write FOR year IN (2012, 2013)".to_string();
            return Err(error);
        }
    };
    let scope = input.scope();
    let made = || -> PlanResult<Plan> {
        let column = pivot_column(value_column, catalog)?;
        let resolved = resolve(&column, &scope)?;
        if !resolved.data_type.is_orderable() {
            return Err(PlanError::new(
                "INCOMPARABLE_PIVOT_COLUMN",
                format!("`{column}` is {}, whose values cannot be compared", resolved.data_type),
                "Pivot by a column without a map",
            ));
        }
        let mut read = BTreeSet::new();
        columns_read(&column, &scope, &mut read)?;
        let mut aggregates = Vec::new();
        for written in aggregate_functions {
            let aggregate = convert_with(&written.expr, &constants(catalog))?;
            check_aggregate(&aggregate)?;
            columns_read(&aggregate, &scope, &mut read)?;
            let named = written.alias.as_ref().map(|alias| alias.value.clone());
            let suffix = named.unwrap_or_else(|| aggregate.output_name());
            aggregates.push((aggregate, suffix));
        }
        let is_key = |at: &usize| !read.contains(at) && !scope.columns[*at].hidden;
        let keys = (0..scope.columns.len()).filter(is_key).map(|at| position(&scope, at)).collect();
        let values = values.iter().map(|value| pivot_value(value, &resolved, &scope, catalog));
        let values = values.collect::<PlanResult<Vec<_>>>()?;
        Pivot { input: input.clone(), column, keys, aggregates, values }.plan()
    };
    let made = made().map_err(|error| error.at(here))?;
    aliased(made, alias.as_ref(), catalog)
}
