//! Plans VALUES.

use super::expr::convert_with;
use super::query::plain;
use super::subquery::constants;
use super::{Catalog, refused};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::coercion::{unify_as, widest_without_text};
use crate::table::expr::compile::{Semantics, evaluate, fold};
use crate::table::expr::resolve::{Scope, resolve};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::plan::Plan;
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use sqlparser::ast;
use std::time::SystemTime;

/// Evaluates an expression of VALUES. Fails if the expression is not constant or its evaluation
/// fails.
fn constant_value(expr: Resolved, semantics: Semantics) -> PlanResult<Value> {
    let foldable = expr.is_foldable();
    let folded = fold(expr, semantics);
    if let Node::Literal(value) = folded.node {
        return Ok(value);
    }
    let kind = |kind: &str, reason: &str, fix: &str| {
        let condition = format!("INVALID_INLINE_TABLE.{kind}");
        PlanError::new(condition, format!("`VALUES` holds {reason}"), fix)
    };
    if !foldable {
        let reason = "an expression that is not a constant";
        return Err(kind("CANNOT_EVALUATE_EXPRESSION_IN_INLINE_TABLE", reason, ""));
    }
    evaluate(&folded, semantics).map_err(|error| {
        let reason = format!("an expression that fails: {}: {}", error.condition, error.reason);
        kind("FAILED_SQL_EXPRESSION_EVALUATION", &reason, error.fix)
    })
}

/// The columns of a row in VALUES that is written as a single value: `(struct(a, b))` and `((a,
/// b))` both mean the row `(a, b)`.
fn fields_of(written: &ast::Expr, mut converted: Expr) -> Vec<Expr> {
    let mut written = written;
    while let ast::Expr::Nested(inner) = written {
        written = inner;
    }
    let is_row = match written {
        ast::Expr::Tuple(_) | ast::Expr::Struct { .. } => true,
        ast::Expr::Function(function) => plain(&function.name).eq_ignore_ascii_case("struct"),
        _ => false,
    };
    match &mut converted {
        Expr::Call { name, args, .. } if is_row && name == "struct" => std::mem::take(args),
        // The arguments of `named_struct` alternate between names and values.
        Expr::Call { name, args, .. } if is_row && name == "named_struct" => {
            std::mem::take(args).into_iter().skip(1).step_by(2).collect()
        }
        _ => vec![converted],
    }
}

/// Replaces each call of `current_timestamp` by a time.
fn at_time(expr: Resolved, now_us: i64) -> Resolved {
    match &expr.node {
        Node::Call("current_timestamp", _) => {
            Resolved::literal(Value::Long(now_us), expr.data_type)
        }
        _ => expr.map_children(&mut |child| at_time(child, now_us)),
    }
}

/// Plans `VALUES (1, 'a'), (2, 'b')`, whose columns are named col1, col2 ….
pub(super) fn inline_table(
    values: &ast::Values,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    refused::check_values(values, here)?;
    let semantics = catalog.semantics();
    let convert = |expr: &ast::Expr| convert_with(expr, &constants(catalog));
    let scope = Scope::default();
    let mut columns: Vec<Vec<Resolved>> = Vec::new();
    for row in &values.rows {
        let row = match row.content.as_slice() {
            [one] => fields_of(one, convert(one)?),
            several => several.iter().map(convert).collect::<PlanResult<Vec<_>>>()?,
        };
        let row = row.iter().map(|value| resolve(value, &scope));
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
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_us = i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX);
    for (i, column) in columns.into_iter().enumerate() {
        let condition = "INVALID_INLINE_TABLE.INCOMPATIBLE_TYPES_IN_INLINE_TABLE";
        // As in Spark, the common types are those of legacy mode, except that strings are not cast.
        let rules = Rules { ansi: false, ..Rules::current() };
        let unify = || {
            unify_as(condition, "`VALUES`", column, |all| {
                let mut types = all.iter().map(|value| &value.data_type);
                types.try_fold(DataType::Null, |common, next| widest_without_text(&common, next))
            })
        };
        let column = rules.apply(unify).map_err(|error| error.at(here))?;
        let data_type = column.first().map_or(DataType::Null, |first| first.data_type.clone());
        let nullable = column.iter().any(|value| value.nullable);
        fields.push(Field::new(format!("col{}", i + 1), data_type, nullable));
        for (row, value) in rows.iter_mut().zip(column) {
            let value = at_time(value, now_us);
            row.push(constant_value(value, semantics).map_err(|error| error.at(here))?);
        }
    }
    Ok(Plan::Values(Schema::new(fields), rows))
}
