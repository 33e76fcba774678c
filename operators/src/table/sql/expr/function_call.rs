//! Converts function calls.

use super::literal::{datetime_literal, interval_literal};
use super::named_arguments;
use super::structure;
use super::{Subqueries, called, column, convert_with};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::expr::resolve::COLUMN_OR_FUNCTION;
use crate::table::sql::REWRITTEN;
use crate::table::sql::refused;
use crate::table::sql::table_function::{is_list, not_a_scalar};
use crate::table::types::DataType;
use crate::table::value::Value;
use sqlparser::ast::{self, DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArguments};

/// The error condition of a window function, `OVER (…)`.
pub(in crate::table::sql) const OVER: &str = "NON_TIME_WINDOW_NOT_SUPPORTED_IN_STREAMING";

pub(super) fn function_call(
    function: &ast::Function,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    let name = function.name.to_string().replace('`', "").to_ascii_lowercase();
    if function.over.is_some() {
        return Err(PlanError::new(
            OVER,
            format!("`{name} OVER (…)` needs rows that have not arrived, or all earlier rows"),
            "Aggregate with GROUP BY",
        )
        .at(here));
    }
    if let Some(rest) = name.strip_prefix(REWRITTEN) {
        return rewritten(rest, function, here);
    }
    let list = match &function.args {
        FunctionArguments::List(list) => list,
        FunctionArguments::None => return Ok(without_parentheses(function, name, here)),
        FunctionArguments::Subquery(_) => {
            return Err(PlanError::not_yet("a subquery as an argument").at(here));
        }
    };
    let ignores = refused::check_call(function, &name, here)?;
    if !list.clauses.is_empty() {
        return Err(PlanError::not_yet(format_args!("these clauses of `{name}`")).at(here));
    }
    let ordered = named_arguments::in_order(&name, &list.args).map_err(|error| error.at(here))?;
    let written = ordered.as_deref().unwrap_or(&list.args);
    if is_list(&name) {
        return Err(not_a_scalar(&name, here));
    }
    let args = written.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => convert(expr),
        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => Ok(Expr::Star(None)),
        other => Err(PlanError::not_yet(format_args!("the argument `{other}`")).at(here)),
    });
    let mut args = args.collect::<PlanResult<Vec<_>>>()?;
    if ignores {
        args.push(true.into());
    }
    // In `timestampadd(MINUTE, …)` the parser takes the unit for a column.
    let by_unit = matches!(name.as_str(), "timestampadd" | "timestampdiff" | "timediff")
        || args.len() == 3
            && matches!(name.as_str(), "date_add" | "dateadd" | "date_diff" | "datediff");
    let mut name = name;
    if by_unit && matches!(args.first(), Some(Expr::Literal(Value::String(_), _))) {
        return Err(PlanError::new(
            "INVALID_PARAMETER_VALUE.DATETIME_UNIT",
            format!("the unit of `{name}` is a word without quotes"),
            "timestampdiff(HOUR, start, end)",
        )
        .at(here));
    }
    if by_unit && let Some(Expr::Column { parts, .. }) = args.first() {
        args[0] = parts.join(".").as_str().into();
        name = if name.contains("diff") { "timestampdiff" } else { "timestampadd" }.to_string();
    }
    if name == "struct"
        && list.args.iter().any(|arg| {
            matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Named { .. })))
        })
    {
        let values: Vec<ast::Expr> = list
            .args
            .iter()
            .filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
                _ => None,
            })
            .collect();
        return structure(&values, here, hook);
    }
    Ok(Expr::Call {
        name,
        args,
        distinct: matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct)),
        filter: function.filter.as_ref().map(|f| convert(f).map(Box::new)).transpose()?,
        place: here,
    })
}

/// Converts a name that the parser takes for a function without parentheses. `current_date`,
/// `current_time` and `current_timestamp` become a column if the scope has a column of this name,
/// otherwise a call. Any other name is a column.
fn without_parentheses(function: &ast::Function, name: String, here: Place) -> Expr {
    let idents = function.name.0.iter().filter_map(|part| part.as_ident().cloned());
    let column = column(&idents.collect::<Vec<_>>());
    match name.as_str() {
        "current_date" | "current_time" | "current_timestamp" => {
            called(COLUMN_OR_FUNCTION, vec![column, called(&name, Vec::new(), here)], here)
        }
        _ => column,
    }
}

/// Converts a literal that the parser does not support. `sql::rewrite` has rewritten the literal as
/// a call.
fn rewritten(what: &str, function: &ast::Function, here: Place) -> PlanResult<Expr> {
    let written = match &function.args {
        FunctionArguments::List(list) => list.args.first().map(ToString::to_string),
        _ => None,
    };
    let written = written.unwrap_or_default();
    let quoted = written.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let text = quoted.unwrap_or(&written).replace("''", "'");
    match what {
        "timestamp_ltz" => datetime_literal(&text, DataType::Timestamp, here),
        "interval" => interval_literal(&text).map_err(|error| error.at(here)),
        _ => Err(PlanError::not_yet(format_args!("`{what}`")).at(here)),
    }
}
