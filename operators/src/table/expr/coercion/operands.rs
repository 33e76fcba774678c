//! The types of operators' operands. Operands are first cast to a common type that the operator
//! accepts, if there is one. If their types still differ, the error condition is
//! BINARY_OP_DIFF_TYPES. If the types are equal but not accepted, it is BINARY_OP_WRONG_TYPE.
//! Operators with a special meaning on dates, timestamps and intervals are resolved earlier.

use super::{Accepts, Rules, T, of_decimals, of_text, tightest};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::types::DataType;

const INTERVALS: [Accepts; 2] = [Accepts::YearMonthInterval, Accepts::DayTimeInterval];

/// The types that an operator accepts once both operands have the same type. `None` for any other
/// name, also for `||`, which is a function here.
fn accepted(operator: &str) -> Option<Accepts> {
    Some(match operator {
        "+" | "-" => Accepts::OneOf(&[Accepts::Number, INTERVALS[0], INTERVALS[1]]),
        "*" | "%" | "pmod" => Accepts::Number,
        "/" => Accepts::OneOf(&[Accepts::Double, Accepts::Decimal]),
        "div" => Accepts::OneOf(&[Accepts::Long, Accepts::Decimal, INTERVALS[0], INTERVALS[1]]),
        "&" | "|" | "^" => Accepts::Integral,
        "and" | "or" => Accepts::Boolean,
        "=" | "<>" | "<" | "<=" | ">" | ">=" | "<=>" => Accepts::Any,
        _ => return None,
    })
}

fn is_comparison(operator: &str) -> bool {
    accepted(operator) == Some(Accepts::Any)
}

/// Casts the operands of an operator to types that the operator accepts, or fails. Other calls are
/// returned unchanged.
pub fn bring(operator: &str, args: Vec<Resolved>) -> PlanResult<Vec<Resolved>> {
    let Some(accepted) = accepted(operator) else { return Ok(args) };
    let args = if is_comparison(operator) { super::with_equal_names(args) } else { args };
    let (a, b) = match <[Resolved; 2]>::try_from(args) {
        Ok([a, b]) => (a, b),
        Err(args) => return Ok(args),
    };
    let (a, b) = promote_text(operator, a, b);
    let (a, b) = for_operator(operator, a, b);
    let (a, b) = to_one_type(operator, accepted, a, b);
    // Operators compute with decimals of different precision and scale, so these are not cast.
    let decimals = accepted.takes(&T::Decimal(1, 0)) && both_decimal(&a.data_type, &b.data_type);
    if !decimals && !has_same_shape(&a.data_type, &b.data_type) {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.BINARY_OP_DIFF_TYPES",
            format!("`{operator}` cannot combine {} and {}", a.data_type, b.data_type),
            "Cast one of them",
        ));
    }
    if !decimals && !accepted.takes(&a.data_type) {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.BINARY_OP_WRONG_TYPE",
            format!("`{operator}` does not take {}", a.data_type),
            "Cast both operands",
        ));
    }
    if is_comparison(operator) {
        super::check_order(&format!("`{operator}`"), &a)?;
    }
    Ok(vec![a, b])
}

/// Casts a STRING operand to a type that depends on the type of the other operand.
fn promote_text(operator: &str, a: Resolved, b: Resolved) -> (Resolved, Resolved) {
    let (x, y) = (&a.data_type, &b.data_type);
    if *x != T::String && *y != T::String {
        return (a, b);
    }
    if Rules::current().ansi {
        return match of_text(x, y) {
            Some(to) => (a.coerce(&to), b.coerce(&to)),
            None => (a, b),
        };
    }
    if matches!(operator, "and" | "or") {
        return (a, b);
    }
    if !is_comparison(operator) {
        let interval = x.is_interval() || y.is_interval();
        let number = |arg: Resolved| match arg.data_type {
            T::String if !interval => arg.coerce(&T::Double),
            _ => arg,
        };
        return (number(a), number(b));
    }
    let to = match if *x == T::String { y } else { x } {
        T::Decimal(..) => T::Double,
        T::Null => T::String,
        T::CalendarInterval => return (a, b),
        other if other.is_nested() || other.is_interval() => return (a, b),
        other => other.clone(),
    };
    (a.coerce(&to), b.coerce(&to))
}

/// Applies the casts that only some operators need.
fn for_operator(operator: &str, a: Resolved, b: Resolved) -> (Resolved, Resolved) {
    let whole = |arg: Resolved| match arg.data_type {
        T::Byte | T::Short | T::Int => arg.coerce(&T::Long),
        _ => arg,
    };
    let boolean = |t: &DataType| *t == T::Boolean;
    match operator {
        "div" => {
            let decimal = |t: &DataType| matches!(t, T::Decimal(..));
            if decimal(&a.data_type) || decimal(&b.data_type) {
                (a, b)
            } else {
                (whole(a), whole(b))
            }
        }
        // With ANSI mode off, a BOOLEAN that is compared with a number counts as 1 or 0.
        "=" | "<>" | "<=>" if !Rules::current().ansi => {
            let (x, y) = (a.data_type.clone(), b.data_type.clone());
            if boolean(&x) && y.is_numeric() {
                (a.coerce(&y), b)
            } else if boolean(&y) && x.is_numeric() {
                (a, b.coerce(&x))
            } else {
                (a, b)
            }
        }
        _ => (a, b),
    }
}

fn to_one_type(
    operator: &str,
    accepted: Accepts,
    a: Resolved,
    b: Resolved,
) -> (Resolved, Resolved) {
    let (x, y) = (&a.data_type, &b.data_type);
    if *x == T::Null && *y == T::Null && !is_comparison(operator) {
        let to = accepted.default_type();
        return (a.coerce(&to), b.coerce(&to));
    }
    let number = |t: &DataType| t.is_numeric() || *t == T::Null;
    // NULL divided by a decimal is a DOUBLE, while a decimal divided by NULL is not.
    if operator == "/" && *x == T::Null && y.is_numeric() {
        return (a.coerce(&T::Double), b.coerce(&T::Double));
    }
    if both_decimal(x, y) {
        return match of_decimals(x, y) {
            Some(to) if is_comparison(operator) => (a.coerce(&to), b.coerce(&to)),
            _ if accepted.takes(&T::Decimal(1, 0)) => (a, b),
            _ => (as_decimal(a), as_decimal(b)),
        };
    }
    if let (Some(T::Double), false) = (of_decimals(x, y), *x == T::Null || *y == T::Null) {
        let double = |arg: Resolved| match arg.data_type {
            T::Decimal(..) => arg.coerce(&T::Double),
            _ => arg,
        };
        return to_one_type(operator, accepted, double(a), double(b));
    }
    let decimal = matches!(x, T::Decimal(..)) || matches!(y, T::Decimal(..));
    if operator == "/" && number(x) && number(y) && !decimal {
        return (a.coerce(&T::Double), b.coerce(&T::Double));
    }
    match tightest(x, y) {
        Some(to) if accepted.takes(&to) => (a.coerce(&to), b.coerce(&to)),
        _ => (a, b),
    }
}

/// Whether both types are integers or decimals, and at least one is a DECIMAL.
fn both_decimal(a: &DataType, b: &DataType) -> bool {
    of_decimals(a, b).is_some_and(|to| matches!(to, T::Decimal(..)))
}

fn as_decimal(arg: Resolved) -> Resolved {
    match arg.data_type.as_decimal() {
        Some((p, s)) => arg.coerce(&T::Decimal(p, s)),
        None => arg,
    }
}

/// Whether two types differ at most in field names and nullability.
pub fn has_same_shape(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (T::Array(a), T::Array(b)) => has_same_shape(a, b),
        (T::Map(ak, av), T::Map(bk, bv)) => has_same_shape(ak, bk) && has_same_shape(av, bv),
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| has_same_shape(&a.data_type, &b.data_type))
        }
        (a, b) => a == b,
    }
}
