//! Plans UNPIVOT, which turns columns into rows: a generator makes a row for each column, or for
//! each set of columns, after IN.

use super::Catalog;
use super::expr::convert_with;
use super::pivot::{columns_read, position};
use super::query::aliased;
use super::subquery::constants;
use super::syntax;
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::coercion::widest_without_text;
use crate::table::expr::resolve::{Scope, resolve};
use crate::table::expr::{Expr, Node, call};
use crate::table::plan::Plan;
use crate::table::plan::analyzer::{filter, generate, project};
use crate::table::types::DataType;
use sqlparser::ast::{self, NullInclusion, TableFactor};
use std::collections::BTreeSet;

/// A column or a set of columns after IN: the indices in the input, and the name of its rows.
struct ColumnSet {
    columns: Vec<usize>,
    name: String,
}

/// The operands of a list in parentheses; the expression itself without parentheses.
fn parts(written: &ast::Expr) -> Vec<&ast::Expr> {
    match written {
        ast::Expr::Tuple(parts) => parts.iter().collect(),
        ast::Expr::Nested(one) => vec![one],
        one => vec![one],
    }
}

/// The names of the value columns: `value` or `(value, …)`.
fn value_names(written: &ast::Expr, here: Place) -> PlanResult<Vec<String>> {
    let name = |part: &ast::Expr| match part {
        ast::Expr::Identifier(name) => Ok(name.value.clone()),
        other => {
            let mut error = syntax(format!("`{other}` is no name of a column"), here);
            error.fix = "Write UNPIVOT (value FOR name IN (a, b))".to_string();
            Err(error)
        }
    };
    parts(written).into_iter().map(name).collect()
}

fn column_set(
    written: &ast::ExprWithAlias,
    width: usize,
    scope: &Scope,
    catalog: &dyn Catalog,
) -> PlanResult<ColumnSet> {
    let mut columns = Vec::new();
    for part in parts(&written.expr) {
        let expr = convert_with(part, &constants(catalog))?;
        let Node::Column(at, _) = resolve(&expr, scope)?.node else {
            return Err(PlanError::new(
                "UNPIVOT_REQUIRES_ATTRIBUTES",
                format!("`{expr}` in the list of UNPIVOT is no column"),
                "Compute it in a subquery",
            ));
        };
        columns.push(at);
    }
    if columns.len() != width {
        return Err(PlanError::new(
            "UNPIVOT_VALUE_SIZE_MISMATCH",
            format!(
                "UNPIVOT has {width} value columns, and `{}` has {}",
                written.expr,
                columns.len()
            ),
            "Write UNPIVOT ((v, w) FOR name IN ((a, b), (c, d)))",
        ));
    }
    let name = match &written.alias {
        Some(alias) => alias.value.clone(),
        None => {
            let names = columns.iter().map(|at| scope.columns[*at].name.as_str());
            names.collect::<Vec<_>>().join("_")
        }
    };
    Ok(ColumnSet { columns, name })
}

/// The type of the value column with an index: the common type of its columns.
fn value_type(sets: &[ColumnSet], value: usize, scope: &Scope) -> PlanResult<DataType> {
    let mut types = sets.iter().map(|set| &scope.columns[set.columns[value]].data_type);
    let common = types.try_fold(DataType::Null, |common, next| widest_without_text(&common, next));
    common.ok_or_else(|| {
        let shown = sets.iter().map(|set| {
            let column = &scope.columns[set.columns[value]];
            format!("`{}` is {}", column.name, column.data_type)
        });
        PlanError::new(
            "UNPIVOT_VALUE_DATA_TYPE_MISMATCH",
            format!(
                "columns of UNPIVOT have no common type: {}",
                shown.collect::<Vec<_>>().join(", ")
            ),
            "Cast them in a subquery",
        )
    })
}

/// The generator of the rows: an array of structs of the name and the values.
fn rows_of(sets: &[ColumnSet], types: &[DataType], scope: &Scope) -> Expr {
    let row = |set: &ColumnSet| {
        let mut fields: Vec<Expr> = vec!["name".into(), set.name.as_str().into()];
        for (i, (at, data_type)) in set.columns.iter().zip(types).enumerate() {
            let column = position(scope, *at);
            fields.push(format!("value{i}").as_str().into());
            fields.push(match scope.columns[*at].data_type == *data_type {
                true => column,
                false => column.cast(data_type.clone()),
            });
        }
        call("named_struct", fields)
    };
    call("inline", [call("array", sets.iter().map(row))])
}

/// Applies UNPIVOT to a plan.
pub(super) fn unpivot(
    input: Plan,
    factor: &TableFactor,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    let TableFactor::Unpivot { table: _, value, name, columns, null_inclusion, alias } = factor
    else {
        return Err(PlanError::not_yet(format_args!("`{factor}` in FROM")).at(here));
    };
    let values = value_names(value, here)?;
    let (scope, width) = (input.scope(), input.width());
    let made = || -> PlanResult<Plan> {
        let sets = columns.iter().map(|set| column_set(set, values.len(), &scope, catalog));
        let sets = sets.collect::<PlanResult<Vec<_>>>()?;
        let types = (0..values.len()).map(|value| value_type(&sets, value, &scope));
        let types = types.collect::<PlanResult<Vec<_>>>()?;
        let mut read = BTreeSet::new();
        for at in sets.iter().flat_map(|set| &set.columns) {
            columns_read(&position(&scope, *at), &scope, &mut read)?;
        }
        let names: Vec<String> = std::iter::once(&name.value).chain(&values).cloned().collect();
        let mut plan = generate(input, &rows_of(&sets, &types, &scope), false, &names)?;
        let made = plan.scope();
        if !matches!(null_inclusion, Some(NullInclusion::IncludeNulls)) {
            let is_given = |at: usize| position(&made, at).is_not_null();
            let given = (width + 1..made.columns.len()).map(is_given);
            if let Some(any) = given.reduce(|any, one| call("or", [any, one])) {
                plan = filter(plan, &any)?;
            }
        }
        let is_kept = |at: &usize| *at >= width || !read.contains(at) && !scope.columns[*at].hidden;
        let kept = (0..made.columns.len()).filter(is_kept).map(|at| position(&made, at));
        project(plan, &kept.collect::<Vec<_>>())
    };
    let made = made().map_err(|error| error.at(here))?;
    aliased(made, alias.as_ref(), catalog)
}
