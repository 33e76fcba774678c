//! Converts expressions with keywords between their arguments: CASE, CAST, BETWEEN, TRIM, EXTRACT
//! and similar expressions.

use super::{Subqueries, called, convert_with, data_type, not, operand};
use crate::table::error::{Place, PlanResult};
use crate::table::expr::bind::used_repeatedly;
use crate::table::expr::{Expr, call};
use crate::table::plan::limits::count_copies;
use crate::table::sql::syntax;
use sqlparser::ast::{self, CastKind, TrimWhereField};

pub(super) fn in_list(
    expr: &ast::Expr,
    list: &[ast::Expr],
    negated: bool,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    operand(expr)?;
    let needle = convert_with(expr, hook)?;
    let list = list.iter().map(|one| convert_with(one, hook)).collect::<PlanResult<Vec<_>>>()?;
    Ok(not(negated, called("in", std::iter::once(needle).chain(list).collect(), here)))
}

pub(super) fn between(
    expr: &ast::Expr,
    low: &ast::Expr,
    high: &ast::Expr,
    negated: bool,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    [expr, low, high].into_iter().try_for_each(operand)?;
    let value = convert_with(expr, hook)?;
    let (low, high) = (convert_with(low, hook)?, convert_with(high, hook)?);
    count_copies(value.size())?;
    let within = used_repeatedly(value, |value| {
        call("and", [call(">=", [value.clone(), low]), call("<=", [value, high])])
    });
    Ok(not(negated, within))
}

pub(super) fn cast(
    kind: &CastKind,
    expr: &ast::Expr,
    to: &ast::DataType,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    if *kind == CastKind::DoubleColon {
        operand(expr)?;
    }
    let lenient = matches!(kind, CastKind::TryCast | CastKind::SafeCast);
    let to = data_type(to).map_err(|error| error.at(here))?;
    Ok(Expr::Cast { expr: Box::new(convert_with(expr, hook)?), to, lenient })
}

pub(super) fn case(
    operand: Option<&ast::Expr>,
    conditions: &[ast::CaseWhen],
    otherwise: Option<&ast::Expr>,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let operand = operand.map(|operand| convert_with(operand, hook)).transpose()?;
    let branches = conditions.iter().map(|branch| {
        let when = convert_with(&branch.condition, hook)?;
        let when = match &operand {
            Some(operand) => {
                count_copies(operand.size())?;
                call("=", [operand.clone(), when])
            }
            None => when,
        };
        Ok((when, convert_with(&branch.result, hook)?))
    });
    let branches = branches.collect::<PlanResult<Vec<_>>>()?;
    let otherwise = otherwise.map(|e| convert_with(e, hook).map(Box::new)).transpose()?;
    Ok(Expr::Case { branches, otherwise })
}

pub(super) fn trim(
    expr: &ast::Expr,
    side: Option<&TrimWhereField>,
    what: Option<&ast::Expr>,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let name = match side {
        Some(TrimWhereField::Leading) => "ltrim",
        Some(TrimWhereField::Trailing) => "rtrim",
        _ => "trim",
    };
    // The characters to trim come first, as in `trim(characters, text)`.
    let what = what.map(|what| convert_with(what, hook)).transpose()?;
    let args = what.into_iter().chain([convert_with(expr, hook)?]).collect();
    Ok(called(name, args, here))
}

pub(super) fn extract(
    field: &ast::DateTimeField,
    expr: &ast::Expr,
    written: &ast::ExtractSyntax,
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    if *written == ast::ExtractSyntax::Comma {
        let mut error = syntax("EXTRACT has a comma instead of FROM", here);
        error.fix = "Write extract(YEAR FROM time) or date_part('YEAR', time)".to_string();
        return Err(error);
    }
    let field = field.to_string().replace('\'', "");
    Ok(called("extract", vec![field.as_str().into(), convert_with(expr, hook)?], here))
}

/// Creates a call of the function `name` with the arguments that are present.
pub(super) fn all_of<const N: usize>(
    name: &str,
    args: [Option<&ast::Expr>; N],
    here: Place,
    hook: &Subqueries<'_>,
) -> PlanResult<Expr> {
    let args = args.into_iter().flatten().map(|arg| convert_with(arg, hook));
    Ok(called(name, args.collect::<PlanResult<_>>()?, here))
}
