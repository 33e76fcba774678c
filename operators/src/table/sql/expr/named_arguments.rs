//! Named arguments of function calls, such as `mask(str => 'a')`: puts them in the order of the
//! parameters. As in Spark, only some functions have names for their parameters.

use crate::table::error::{PlanError, PlanResult};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr};

/// A parameter: its name, and its default as a literal. `None` if it is required.
type Parameter = (&'static str, Option<Option<&'static str>>);

const COLLECTION: &[Parameter] = &[("collection", None)];
const INPUT: &[Parameter] = &[("input", None)];
const MASK: &[Parameter] = &[
    ("str", None),
    ("upperChar", Some(Some("X"))),
    ("lowerChar", Some(Some("x"))),
    ("digitChar", Some(Some("n"))),
    ("otherChar", Some(None)),
];

const VARIANT_SET: &[Parameter] =
    &[("v", None), ("path", None), ("val", None), ("create_if_missing", Some(Some("true")))];
const VARIANT_STRIP_NULLS: &[Parameter] = &[("v", None), ("include_arrays", Some(Some("true")))];

/// The parameters of a function; `None` if they have no names.
fn parameters(function: &str) -> Option<&'static [Parameter]> {
    match function {
        "explode" | "explode_outer" | "posexplode" | "posexplode_outer" => Some(COLLECTION),
        "inline" | "inline_outer" | "variant_explode" | "variant_explode_outer" => Some(INPUT),
        "mask" => Some(MASK),
        "variant_set" | "try_variant_set" => Some(VARIANT_SET),
        "variant_strip_nulls" => Some(VARIANT_STRIP_NULLS),
        _ => None,
    }
}

fn value_of(default: Option<&str>) -> ast::Expr {
    ast::Expr::value(match default {
        Some(text) => ast::Value::SingleQuotedString(text.to_string()),
        None => ast::Value::Null,
    })
}

fn is_named(arg: &FunctionArg) -> bool {
    !matches!(arg, FunctionArg::Unnamed(_))
}

/// The arguments in the order of the parameters, without names; `None` if no argument has a name.
/// Parameters that are left out have their defaults.
pub(super) fn in_order(
    function: &str,
    args: &[FunctionArg],
) -> PlanResult<Option<Vec<FunctionArg>>> {
    let Some(first) = args.iter().position(is_named) else { return Ok(None) };
    let wrong = |condition: &str, reason: String| {
        Err(PlanError::new(condition, reason, "Write the arguments in order, without names"))
    };
    let Some(parameters) = parameters(function) else {
        let reason = format!("the parameters of `{function}` have no names");
        return wrong("NAMED_PARAMETERS_NOT_SUPPORTED", reason);
    };
    let mut values: Vec<Option<FunctionArg>> = args[..first].iter().cloned().map(Some).collect();
    let positional = values.len();
    values.resize(parameters.len().max(positional), None);
    for arg in &args[first..] {
        let (name, value) = match arg {
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                (name.value.clone(), value)
            }
            FunctionArg::Unnamed(_) => {
                let reason = format!("`{function}` has `{arg}` after an argument with a name");
                return wrong("UNEXPECTED_POSITIONAL_ARGUMENT", reason);
            }
            other => return Err(PlanError::not_yet(format_args!("the argument `{other}`"))),
        };
        let found = parameters.iter().position(|(known, _)| known.eq_ignore_ascii_case(&name));
        let Some(at) = found else {
            let reason = format!("`{function}` has no parameter `{name}`");
            return wrong("UNRECOGNIZED_PARAMETER_NAME", reason);
        };
        if values[at].is_some() {
            let kind = match at < positional {
                true => "BOTH_POSITIONAL_AND_NAMED",
                false => "DOUBLE_NAMED_ARGUMENT_REFERENCE",
            };
            let condition = format!("DUPLICATE_ROUTINE_PARAMETER_ASSIGNMENT.{kind}");
            return wrong(&condition, format!("`{function}` has two values for `{name}`"));
        }
        values[at] = Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(value.clone())));
    }
    let mut ordered = Vec::new();
    for (at, value) in values.into_iter().enumerate() {
        let default = || parameters.get(at).and_then(|(_, default)| *default).map(value_of);
        let default = || default().map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value)));
        match value.or_else(default) {
            Some(value) => ordered.push(value),
            None => {
                let reason = format!("`{function}` has no value for `{}`", parameters[at].0);
                return wrong("REQUIRED_PARAMETER_NOT_FOUND", reason);
            }
        }
    }
    Ok(Some(ordered))
}
