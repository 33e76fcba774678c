//! Conditional functions.

use super::registry::{Function, MANY, Typed, function, take};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::compile::{
    Compiled, bool_fn, bytes_fn, decimal_fn, double_fn, errors_to_null, long_fn,
};
use crate::table::expr::resolve::{expect_type, unify};
use crate::table::types::{DataType, Physical};

pub(super) static FUNCTIONS: &[Function] =
    &[
        function(
            "coalesce",
            "coalesce(a, b, …): the first that is not NULL",
            (1, MANY),
            coalesce,
            |args, _, to| first_not_null(args, to),
        )
        .usage("1.0.0", "coalesce(NULL, 2, 3)", "2"),
        function(
            "if",
            "if(condition, a, b): a if the condition is true, else b",
            (3, 3),
            if_,
            compile_if,
        )
        .usage("1.0.0", "if(1 < 2, 'yes', 'no')", "yes"),
        function("try", "try(x): x, or NULL where it fails", (1, 1), attempt, |args, _, _| {
            let [a] = take(args);
            errors_to_null(a)
        }),
        function(
            super::properties::TRY_RESULT,
            "x, or NULL where the operation itself fails",
            (1, 1),
            attempt,
            |args, _, _| {
                let [a] = take(args);
                errors_to_null(a)
            },
        ),
        function("nullif", "nullif(a, b): NULL if a = b, else a", (2, 2), nullif, compile_if)
            .usage("2.0.0", "nullif(2, 2)", "NULL"),
        function(
            "nullifzero",
            "nullifzero(a): NULL if a = 0, else a",
            (1, 1),
            |n, args| nullif(n, with_zero(args)),
            compile_if,
        )
        .usage("4.0.0", "nullifzero(0)", "NULL"),
        function(
            "zeroifnull",
            "zeroifnull(a): 0 if a is NULL, else a",
            (1, 1),
            |n, args| coalesce(n, with_zero(args)),
            |args, _, to| first_not_null(args, to),
        )
        .usage("4.0.0", "zeroifnull(NULL)", "0"),
        function("nvl2", "nvl2(a, b, c): b if a is not NULL, else c", (3, 3), nvl2, compile_if)
            .usage("2.0.0", "nvl2(NULL, 2, 3)", "3"),
    ];

fn attempt(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let data_type = args[0].data_type.clone();
    Ok(Typed::new(args, data_type, true))
}

fn coalesce(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let args = unify("`coalesce`", args)?;
    let (data_type, nullable) = (args[0].data_type.clone(), args.iter().all(|a| a.nullable));
    Ok(Typed::new(args, data_type, nullable))
}

/// Resolves `if(condition, a, b)`, with `a` and `b` coerced to one type.
fn choice(condition: Resolved, a: Resolved, b: Resolved) -> PlanResult<Typed> {
    let condition = expect_type(condition, &DataType::Boolean, "`if`")?;
    let mut args = vec![condition];
    args.extend(unify("`if`", vec![a, b])?);
    let (data_type, nullable) = (args[1].data_type.clone(), args[1].nullable || args[2].nullable);
    Ok(Typed::new(args, data_type, nullable))
}

/// Resolves `decode(x, a, for_a, b, for_b, otherwise)` to a CASE, which returns the result of the
/// first key that equals `x`.
pub(super) fn decode(args: Vec<Resolved>) -> PlanResult<Resolved> {
    use crate::table::expr::Node;
    let mut args = args.into_iter();
    let Some(x) = args.next() else { unreachable!("resolution counted") };
    let mut rest: Vec<Resolved> = args.collect();
    let otherwise = if rest.len() % 2 == 1 { rest.pop() } else { None };
    let mut values = Vec::new();
    let mut whens = Vec::new();
    let mut pairs = rest.into_iter();
    while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
        whens.push(super::resolve("<=>", vec![x.clone(), key])?);
        values.push(value);
    }
    let null = || Resolved::literal(crate::table::value::Value::Null, DataType::Null);
    values.push(otherwise.unwrap_or_else(null));
    let mut values = unify("`decode`", values)?;
    let (data_type, nullable) = (values[0].data_type.clone(), values.iter().any(|v| v.nullable));
    let otherwise = values.pop().map(Box::new);
    let branches = whens.into_iter().zip(values).collect();
    Ok(Resolved { node: Node::Case(branches, otherwise), data_type, nullable })
}

fn three(args: Vec<Resolved>) -> [Resolved; 3] {
    match <[Resolved; 3]>::try_from(args) {
        Ok(args) => args,
        Err(_) => unreachable!("resolution counted the arguments"),
    }
}

fn if_(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let [condition, a, b] = three(args);
    choice(condition, a, b)
}

fn nullif(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let a = args[0].clone();
    let null = Resolved::literal(crate::table::value::Value::Null, a.data_type.clone());
    choice(super::resolve("=", args)?, null, a)
}

/// Adds the number 0 to the arguments.
fn with_zero(mut args: Vec<Resolved>) -> Vec<Resolved> {
    args.push(Resolved::literal(crate::table::value::Value::Long(0), DataType::Int));
    args
}

fn nvl2(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let [test, a, b] = three(args);
    choice(super::resolve("isnotnull", vec![test])?, a, b)
}

fn first_not_null(args: Vec<Compiled>, to: &DataType) -> Compiled {
    macro_rules! first {
        ($make:ident, $unwrap:ident) => {{
            let args: Vec<_> = args.into_iter().map(Compiled::$unwrap).collect();
            $make(move |cx| {
                for arg in &args {
                    if let Some(v) = arg(cx)? {
                        return Ok(Some(v));
                    }
                }
                Ok(None)
            })
        }};
    }
    match to.physical() {
        Physical::Bool => first!(bool_fn, bool),
        Physical::Long => first!(long_fn, long),
        Physical::Double => first!(double_fn, double),
        Physical::Decimal => first!(decimal_fn, decimal),
        Physical::Bytes => first!(bytes_fn, bytes),
    }
}

fn compile_if(args: Vec<Compiled>, _: &[Resolved], _: &DataType) -> Compiled {
    let [condition, a, b] = take(args);
    let condition = condition.bool();
    macro_rules! choose {
        ($make:ident, $a:ident, $b:ident) => {
            $make(move |cx| if condition(cx)? == Some(true) { $a(cx) } else { $b(cx) })
        };
    }
    match (a, b) {
        (Compiled::Bool(a), Compiled::Bool(b)) => choose!(bool_fn, a, b),
        (Compiled::Long(a), Compiled::Long(b)) => choose!(long_fn, a, b),
        (Compiled::Double(a), Compiled::Double(b)) => choose!(double_fn, a, b),
        (Compiled::Decimal(a), Compiled::Decimal(b)) => choose!(decimal_fn, a, b),
        (Compiled::Bytes(a), Compiled::Bytes(b)) => choose!(bytes_fn, a, b),
        _ => unreachable!("resolution brought both to one type"),
    }
}
