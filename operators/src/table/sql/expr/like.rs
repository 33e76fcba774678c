//! Converts LIKE and ILIKE, also with ANY, SOME and ALL.

use super::{Subqueries, called, convert_with, not, operand};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::expr::bind::used_repeatedly;
use crate::table::expr::chain::binary;
use crate::table::plan::limits::count_copies;
use crate::table::sql::REWRITTEN;
use crate::table::sql::syntax;
use crate::table::value::Value;
use sqlparser::ast::{self};

/// Converts `s LIKE pattern`. With ANY, SOME or ALL, the pattern is a call: `sql::rewrite` has
/// rewritten the list of patterns.
pub(super) fn like(
    name: &str,
    negated: bool,
    expr: &ast::Expr,
    pattern: &ast::Expr,
    escape: Option<&ast::Expr>,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let convert = |expr: &ast::Expr| convert_with(expr, hook);
    [expr, pattern].into_iter().try_for_each(operand)?;
    let value = convert(expr)?;
    let one = |args: Vec<Expr>| not(negated, called(name, args, here));
    if let Some((all, patterns)) = quantified(pattern) {
        count_copies(value.size().saturating_mul(patterns.len()))?;
        let patterns = patterns.into_iter().map(convert).collect::<PlanResult<Vec<_>>>()?;
        if patterns.is_empty() {
            return Err(PlanError::new(
                "INVALID_SQL_SYNTAX.EMPTY_QUANTIFIED_PATTERN",
                "LIKE with ANY, SOME or ALL needs a pattern",
                "Write: LIKE ANY ('a%', 'b%')",
            )
            .at(here));
        }
        let operator = if all { "and" } else { "or" };
        return Ok(used_repeatedly(value, |value| {
            let tests = patterns.into_iter().map(|pattern| one(vec![value.clone(), pattern]));
            let joined = tests.reduce(|a, b| binary(operator, a, b, Place::default()));
            joined.unwrap_or(value)
        }));
    }
    let mut args = vec![value, convert(pattern)?];
    if let Some(escape) = escape {
        let escape = convert(escape)?;
        match &escape {
            Expr::Literal(Value::String(text), _) if text.encode_utf16().count() == 1 => {}
            Expr::Literal(Value::String(text), _) => {
                let reason = format!("the escape '{text}' is not one character");
                return Err(PlanError::new("INVALID_ESC", reason, "").at(here));
            }
            _ => return Err(syntax("ESCAPE needs a string literal", here)),
        }
        args.push(escape);
    }
    Ok(one(args))
}

/// The patterns of a quantified LIKE, and whether all of them must match; `None` for a plain LIKE.
pub(super) fn quantified(pattern: &ast::Expr) -> Option<(bool, Vec<&ast::Expr>)> {
    let ast::Expr::Function(function) = pattern else { return None };
    let name = function.name.to_string();
    let all = name.strip_prefix(REWRITTEN)? == "like_all";
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let patterns = list.args.iter().map(|arg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some((all, patterns.collect::<Option<_>>()?))
}
