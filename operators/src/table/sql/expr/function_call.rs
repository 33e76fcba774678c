//! Converts function calls.

use super::literal::{datetime_literal, interval_literal};
use super::named_arguments;
use super::structure;
use super::{Subqueries, called, column, convert_with};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::over::{Frame, FrameBound, FrameUnit, Over};
use crate::table::expr::resolve::COLUMN_OR_FUNCTION;
use crate::table::expr::{Expr, SortOrder};
use crate::table::plan::generator::is_table_only;
use crate::table::plan::window_function::is_window_only;
use crate::table::sql::REWRITTEN;
use crate::table::sql::refused;
use crate::table::sql::table_function::{IN_FROM, is_list, not_a_scalar};
use crate::table::types::DataType;
use crate::table::value::Value;
use sqlparser::ast::{
    self, DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    NullTreatment, OrderBySort, WindowFrameBound, WindowFrameUnits, WindowType,
};

pub(super) fn function_call(
    function: &ast::Function,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    let name = function.name.to_string().replace('`', "").to_ascii_lowercase();
    if let Some(over) = &function.over {
        return windowed_call(function, over, &name, here, hook);
    }
    if let Some(rest) = name.strip_prefix(REWRITTEN) {
        return rewritten(rest, function, here);
    }
    let (in_from, name) = match name.strip_prefix(IN_FROM) {
        Some(rest) => (true, rest.to_string()),
        None => (false, name),
    };
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
    if is_list(&name) || is_table_only(&name) && !in_from {
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
    let call = Expr::Call {
        name,
        args,
        distinct: matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct)),
        filter: function.filter.as_ref().map(|f| convert(f).map(Box::new)).transpose()?,
        place: here,
    };
    if function.within_group.is_empty() {
        return Ok(call);
    }
    let keys = function.within_group.iter().map(|key| sort_order(key, hook));
    Ok(Expr::WithinGroup(Box::new(call), keys.collect::<PlanResult<_>>()?))
}

/// Converts a call with OVER.
fn windowed_call(
    function: &ast::Function,
    over: &WindowType,
    name: &str,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let ignores = matches!(function.null_treatment, Some(NullTreatment::IgnoreNulls));
    let is_own = is_window_only(name);
    let mut plain = function.clone();
    plain.over = None;
    if is_own {
        plain.null_treatment = None;
    }
    let call = function_call(&plain, here, hook)?;
    let mut over = match over {
        WindowType::NamedWindow(name) => {
            Over { base: Some(name.value.clone()), ..definition(None, here, hook)? }
        }
        WindowType::WindowSpec(spec) => definition(Some(spec), here, hook)?,
    };
    (over.call, over.ignores_nulls) = (call, is_own && ignores);
    Ok(Expr::Over(Box::new(over)))
}

/// Converts the definition of a window, without a call.
pub(in crate::table::sql) fn definition(
    spec: Option<&ast::WindowSpec>,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Over> {
    let mut over = Over {
        call: Expr::Star(None),
        ignores_nulls: false,
        base: None,
        partition: Vec::new(),
        order: Vec::new(),
        frame: None,
        place: here,
    };
    let Some(spec) = spec else { return Ok(over) };
    over.base = spec.window_name.as_ref().map(|name| name.value.clone());
    if over.base.is_some() && !(spec.partition_by.is_empty() && spec.order_by.is_empty()) {
        return Err(PlanError::not_yet("a window that extends a named window").at(here));
    }
    let key = |key: &ast::Expr| convert_with(key, hook);
    over.partition = spec.partition_by.iter().map(key).collect::<PlanResult<_>>()?;
    over.order =
        spec.order_by.iter().map(|key| sort_order(key, hook)).collect::<PlanResult<_>>()?;
    let Some(frame) = &spec.window_frame else { return Ok(over) };
    let unit = match frame.units {
        WindowFrameUnits::Rows => FrameUnit::Rows,
        WindowFrameUnits::Range => FrameUnit::Range,
        WindowFrameUnits::Groups => {
            return Err(PlanError::new(
                "PARSE_SYNTAX_ERROR",
                "a frame has ROWS or RANGE, not GROUPS",
                "Use RANGE",
            )
            .at(here));
        }
    };
    let bound = |bound: &WindowFrameBound| -> PlanResult<_> {
        Ok(match bound {
            WindowFrameBound::CurrentRow => FrameBound::CurrentRow,
            WindowFrameBound::Preceding(None) => FrameBound::UnboundedPreceding,
            WindowFrameBound::Following(None) => FrameBound::UnboundedFollowing,
            WindowFrameBound::Preceding(Some(at)) => FrameBound::Preceding(key(at)?),
            WindowFrameBound::Following(Some(at)) => FrameBound::Following(key(at)?),
        })
    };
    let end = frame.end_bound.as_ref().map_or(Ok(FrameBound::CurrentRow), bound)?;
    over.frame = Some(Frame { unit, start: bound(&frame.start_bound)?, end });
    Ok(over)
}

/// Converts a key of an ORDER BY inside an expression.
fn sort_order(key: &ast::OrderByExpr, hook: &Subqueries<'_>) -> PlanResult<SortOrder> {
    let descending = matches!(key.options.sort, Some(OrderBySort::Desc));
    let nulls_first = key.options.nulls_first;
    Ok(SortOrder { expr: convert_with(&key.expr, hook)?, descending, nulls_first })
}

/// Converts a name that the parser takes for a function without parentheses. `current_date`,
/// `current_timestamp` and its like become a column if the scope has a column of this name,
/// otherwise a call. Any other name is a column.
fn without_parentheses(function: &ast::Function, name: String, here: Place) -> Expr {
    let idents = function.name.0.iter().filter_map(|part| part.as_ident().cloned());
    let column = column(&idents.collect::<Vec<_>>());
    if is_called_alone(&name) { column_or_function(column, &name, here) } else { column }
}

/// Whether a function can be called without parentheses. In Spark `user` can, too; here it is a
/// frequent name of columns.
fn is_called_alone(name: &str) -> bool {
    matches!(
        name,
        "current_date"
            | "current_time"
            | "current_timestamp"
            | "current_user"
            | "localtime"
            | "session_user"
    )
}

/// A column, or a call of the function with its name if there is no such column.
fn column_or_function(column: Expr, name: &str, here: Place) -> Expr {
    called(COLUMN_OR_FUNCTION, vec![column, called(name, Vec::new(), here)], here)
}

/// Converts a name without parentheses.
pub(super) fn name_alone(ident: &Ident, here: Place) -> Expr {
    let column = column(std::slice::from_ref(ident));
    let name = ident.value.to_ascii_lowercase();
    match ident.quote_style.is_none() && is_called_alone(&name) {
        true => column_or_function(column, &name, here),
        false => column,
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
