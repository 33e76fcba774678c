//! `WITHIN GROUP (ORDER BY …)`: the order of an aggregate's values.

use crate::table::error::{PlanError, PlanResult, counted};
use crate::table::expr::resolve::{Scope, resolve};
use crate::table::expr::{Expr, Node, Resolved, SortOrder};
use crate::table::plan::aggregate_function::AggregateFunction as F;
use crate::table::plan::analyzer::refuse_unordered;
use crate::table::types::DataType;
use crate::table::value::Value;

/// The direction of a key of WITHIN GROUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueOrder {
    /// Whether the largest value comes first.
    pub descending: bool,
    /// Whether NULLs come first.
    pub nulls_first: bool,
}

/// The arguments of a call with the keys of its WITHIN GROUP.
pub(super) struct Ordered {
    pub args: Vec<Resolved>,
    pub order: Vec<ValueOrder>,
}

/// The number of keys that a function requires: none, one, or any number. `None` if the function
/// does not take WITHIN GROUP.
enum Keys {
    None,
    /// The values themselves are the key.
    One,
    /// The values are an argument, and the keys are optional.
    Any,
}

fn wrong(condition: &str, name: &str, reason: &str) -> PlanError {
    PlanError::new(
        condition,
        format!("`{name}` {reason}"),
        format!("Write for example {name}(…) WITHIN GROUP (ORDER BY x)"),
    )
}

/// Adds the keys of WITHIN GROUP to the resolved arguments of a call. For `listagg` they become
/// its last arguments, after the separator. For `mode`, `percentile_cont` and `percentile_disc`
/// the key becomes the first argument, the values. `name` is that of the call, in lower case.
pub(super) fn ordered_arguments(
    (function, name, distinct): (F, &str, bool),
    mut args: Vec<Resolved>,
    keys: &[SortOrder],
    scope: &Scope,
) -> PlanResult<Ordered> {
    let takes = match (function, name, args.len()) {
        (F::ListAgg, ..) => Keys::Any,
        (F::Mode, _, 0) | (F::PercentileDiscrete, ..) | (F::Percentile, "percentile_cont", _) => {
            Keys::One
        }
        _ => Keys::None,
    };
    let is_once_only =
        matches!(function, F::Mode | F::PercentileDiscrete) || name == "percentile_cont";
    if distinct && is_once_only {
        return Err(wrong(
            "INVALID_WITHIN_GROUP_EXPRESSION.DISTINCT_UNSUPPORTED",
            name,
            "does not take DISTINCT",
        ));
    }
    match takes {
        Keys::None if keys.is_empty() => return Ok(Ordered { args, order: Vec::new() }),
        Keys::None if function == F::Mode => {
            let reason = "with an argument takes no WITHIN GROUP";
            return Err(wrong("INVALID_WITHIN_GROUP_EXPRESSION.WRONG_NUM_ORDERINGS", name, reason));
        }
        Keys::None => {
            return Err(PlanError::new(
                "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
                format!("`{name}` does not take WITHIN GROUP"),
                "Sort in a subquery, or use listagg",
            ));
        }
        Keys::One if args.len() > 1 => {
            return Err(PlanError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                format!("`{name}` has {}, but needs 1", counted(args.len(), "argument")),
                format!("Write {name}(0.5) WITHIN GROUP (ORDER BY x)"),
            ));
        }
        Keys::One if keys.is_empty() => {
            return Err(wrong(
                "INVALID_WITHIN_GROUP_EXPRESSION.WITHIN_GROUP_MISSING",
                name,
                "needs WITHIN GROUP",
            ));
        }
        Keys::One if keys.len() > 1 => {
            return Err(wrong(
                "INVALID_WITHIN_GROUP_EXPRESSION.WRONG_NUM_ORDERINGS",
                name,
                "takes one key in WITHIN GROUP",
            ));
        }
        Keys::One | Keys::Any => {}
    }
    let order = keys.iter().map(|key| ValueOrder {
        descending: key.descending,
        nulls_first: key.nulls_first.unwrap_or(!key.descending),
    });
    let order: Vec<ValueOrder> = order.collect();
    let keys = keys.iter().map(|key| resolve(&key.expr, scope)).collect::<PlanResult<Vec<_>>>()?;
    keys.iter().try_for_each(refuse_unordered)?;
    if let Keys::One = takes {
        args.splice(0..0, keys);
        return Ok(Ordered { args, order });
    }
    if distinct {
        check_distinct_order(name, &args, &keys)?;
    }
    if args.len() == 1 && !keys.is_empty() {
        args.push(Resolved::literal(Value::Null, DataType::String));
    }
    args.extend(keys);
    Ok(Ordered { args, order })
}

/// Fails unless the only key of a call with DISTINCT is the distinct value: the first argument as a
/// string, or the operand of its cast to a string. Values that are equal before the cast must be
/// equal after it, and the other way round.
fn check_distinct_order(name: &str, args: &[Resolved], keys: &[Resolved]) -> PlanResult<()> {
    use DataType as T;
    let Some(value) = args.first().filter(|_| !keys.is_empty()) else { return Ok(()) };
    let value = match value.data_type {
        T::String | T::Binary => value.clone(),
        _ => value.clone().coerce(&T::String),
    };
    let [key] = keys else { return Err(other_order(name)) };
    if *key == value {
        return Ok(());
    }
    let operand = match &value.node {
        Node::Cast(operand, _) => &**operand,
        // An untyped NULL becomes a NULL of the type without a cast.
        Node::Literal(Value::Null) if key.is_null_literal() => key,
        _ => return Err(other_order(name)),
    };
    if key != operand {
        return Err(other_order(name));
    }
    // -0.0 equals 0.0, and one local time may stand for two instants.
    if matches!(operand.data_type, T::Float | T::Double | T::Timestamp | T::Null) {
        return Err(wrong(
            "INVALID_WITHIN_GROUP_EXPRESSION.MISMATCH_WITH_DISTINCT_INPUT_UNSAFE_CAST",
            name,
            &format!("with DISTINCT is not ordered by values of type {}", operand.data_type),
        ));
    }
    Ok(())
}

fn other_order(name: &str) -> PlanError {
    wrong(
        "INVALID_WITHIN_GROUP_EXPRESSION.MISMATCH_WITH_DISTINCT_INPUT",
        name,
        "with DISTINCT is ordered by its own values only",
    )
}

/// The call inside a WITHIN GROUP, and the keys; none for any other expression.
pub(in crate::table) fn parts(written: &Expr) -> (&Expr, &[SortOrder]) {
    match written {
        Expr::WithinGroup(call, keys) => (call, keys),
        other => (other, &[]),
    }
}
