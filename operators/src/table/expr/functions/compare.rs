//! Comparisons and three-valued logic.

use super::registry::{Function, MANY, Typed, any_nullable, expect, function, take};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::{self, Cell};
use crate::table::expr::coercion::{check_order, unify, with_equal_names};
use crate::table::expr::compile::{Compiled, Eval, TestFn, bool_fn};
use crate::table::types::DataType;
use std::cmp::Ordering;

pub(super) static FUNCTIONS: &[Function] = &[
    function("=", "a = b or a == b: whether they are equal", (2, 2), comparison, |a, e, _| {
        compare(a, e, Ordering::is_eq)
    })
    .usage("1.0.0", "2 = 2", "true"),
    function("<>", "a <> b or a != b: whether they differ", (2, 2), comparison, |a, e, _| {
        compare(a, e, Ordering::is_ne)
    })
    .usage("1.0.0", "1 <> 2", "true"),
    function("<", "a < b: whether a is less than b", (2, 2), comparison, |a, e, _| {
        compare(a, e, Ordering::is_lt)
    })
    .usage("1.0.0", "1 < 2", "true"),
    function("<=", "a <= b: whether a is at most b", (2, 2), comparison, |a, e, _| {
        compare(a, e, Ordering::is_le)
    })
    .usage("1.0.0", "2 <= 2", "true"),
    function(">", "a > b: whether a is greater than b", (2, 2), comparison, |a, e, _| {
        compare(a, e, Ordering::is_gt)
    })
    .usage("1.0.0", "2 > 1", "true"),
    function(">=", "a >= b: whether a is at least b", (2, 2), comparison, |a, e, _| {
        compare(a, e, Ordering::is_ge)
    })
    .usage("1.0.0", "2 >= 2", "true"),
    function("<=>", "a <=> b: equal, and NULL equals NULL", (2, 2), null_safe, |args, exprs, _| {
        let order = order(args, exprs, RightSide::Evaluated);
        bool_fn(move |cx| {
            Ok(Some(match order(cx)? {
                (Some(order), _) => order.is_eq(),
                (None, both_null) => both_null,
            }))
        })
    })
    .usage("1.1.0", "NULL <=> NULL", "true"),
    function(
        "and",
        "a AND b: true if both are true; NULL is unknown",
        (2, 2),
        logic,
        |args, _, _| connective::<false>(args),
    )
    .usage("1.0.0", "true AND NULL", "NULL"),
    function(
        "or",
        "a OR b: true if either is true; NULL is unknown",
        (2, 2),
        logic,
        |args, _, _| connective::<true>(args),
    )
    .usage("1.0.0", "true OR NULL", "true"),
    function("not", "NOT a: true if a is false", (1, 1), logic, |args, _, _| {
        let [a] = take(args);
        let a = a.bool();
        bool_fn(move |cx| Ok(a(cx)?.map(|v| !v)))
    })
    .usage("1.0.0", "NOT true", "false"),
    function("isnull", "isnull(a) or a IS NULL: whether it is NULL", (1, 1), any, |args, _, _| {
        null_test(args, true)
    })
    .usage("1.0.0", "isnull(NULL)", "true"),
    function(
        "isnotnull",
        "isnotnull(a) or a IS NOT NULL: whether it is not NULL",
        (1, 1),
        any,
        |args, _, _| null_test(args, false),
    )
    .usage("1.0.0", "isnotnull(1)", "true"),
    function("isnan", "isnan(a): whether a number is not a number", (1, 1), nan, |args, _, _| {
        let [a] = take(args);
        let a = a.double();
        bool_fn(move |cx| Ok(Some(a(cx)?.is_some_and(f64::is_nan))))
    })
    .usage("1.5.0", "isnan(double('NaN'))", "true"),
    function("in", "a IN (b, …): whether a equals one of them", (2, MANY), in_list, compile_in)
        .usage("1.0.0", "2 IN (1, 2, 3)", "true"),
];

/// Compiles AND and OR. The result is `DECIDES` if an operand is. Otherwise it is NULL if an operand
/// is NULL.
fn connective<const DECIDES: bool>(args: Vec<Compiled>) -> Compiled {
    let [a, b] = take(args);
    let (a, b) = (a.bool(), b.bool());
    bool_fn(move |cx| {
        let left = a(cx)?;
        if left == Some(DECIDES) {
            return Ok(left);
        }
        Ok(match (left, b(cx)?) {
            (_, Some(right)) if right == DECIDES => Some(DECIDES),
            (Some(_), Some(_)) => Some(!DECIDES),
            _ => None,
        })
    })
}

/// Compares doubles in Spark's order: -0.0 equals 0.0, and NaN equals NaN and is the largest value.
pub fn order_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Resolves a comparison, whose operands have been coerced to one orderable type.
fn comparison(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok(Typed::new(args, DataType::Boolean, nullable))
}

fn null_safe(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let Typed { args, data_type, .. } = comparison(name, args)?;
    Ok(Typed::new(args, data_type, false))
}

fn logic(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    for arg in &args {
        if !matches!(arg.data_type, DataType::Boolean | DataType::Null) {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
                format!("`{name}` needs BOOLEAN, but `{arg}` is {}", arg.data_type),
                "Compare it with something",
            ));
        }
    }
    Ok(Typed::new(expect(name, args, &[DataType::Boolean])?, DataType::Boolean, nullable))
}

fn any(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    Ok(Typed::new(args, DataType::Boolean, false))
}

fn nan(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    Ok(Typed::new(expect(name, args, &[DataType::Double])?, DataType::Boolean, false))
}

fn in_list(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let args = unify("`IN`", with_equal_names(args))?;
    check_order("`IN`", &args[0])?;
    Ok(Typed::new(args, DataType::Boolean, nullable))
}

/// Whether the right operand is evaluated if the left operand is NULL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RightSide {
    Evaluated,
    SkippedAfterNull,
}

type OrderFn = TestFn<(Option<Ordering>, bool)>;

/// Compiles the comparison of two values. The closure returns their order (`None` if either is
/// NULL), and whether both are NULL.
fn order(args: Vec<Compiled>, exprs: &[Resolved], right: RightSide) -> OrderFn {
    let skips = right == RightSide::SkippedAfterNull;
    let data_type = exprs[0].data_type.clone();
    let [a, b] = take(args);
    macro_rules! by {
        ($a:ident, $b:ident, $cmp:expr) => {
            Box::new(move |cx| {
                let left = $a(cx)?;
                if skips && left.is_none() {
                    return Ok((None, false));
                }
                Ok(match (left, $b(cx)?) {
                    (Some(x), Some(y)) => (Some($cmp(x, y)), false),
                    (x, y) => (None, x.is_none() && y.is_none()),
                })
            })
        };
    }
    match (a, b) {
        (Compiled::Bool(a), Compiled::Bool(b)) => by!(a, b, |x: bool, y: bool| x.cmp(&y)),
        (Compiled::Long(a), Compiled::Long(b)) => by!(a, b, |x: i64, y: i64| x.cmp(&y)),
        (Compiled::Double(a), Compiled::Double(b)) => by!(a, b, order_doubles),
        (Compiled::Decimal(a), Compiled::Decimal(b)) => by!(a, b, |x: i128, y: i128| x.cmp(&y)),
        (Compiled::Bytes(a), Compiled::Bytes(b)) if data_type.is_nested() => {
            by!(a, b, |x, y| cell::order(Cell::Bytes(x), Cell::Bytes(y), &data_type))
        }
        (Compiled::Bytes(a), Compiled::Bytes(b)) => by!(a, b, |x: &[u8], y: &[u8]| x.cmp(y)),
        _ => unreachable!("resolution brought both to one type"),
    }
}

fn compare(args: Vec<Compiled>, exprs: &[Resolved], test: fn(Ordering) -> bool) -> Compiled {
    let [a, b] = take(args);
    // Values represented as `i64`, the most common ones, have their own closure, which avoids the
    // tuple that `order` returns.
    match (a, b) {
        (Compiled::Long(a), Compiled::Long(b)) => bool_fn(move |cx| {
            let Some(x) = a(cx)? else { return Ok(None) };
            let Some(y) = b(cx)? else { return Ok(None) };
            Ok(Some(test(x.cmp(&y))))
        }),
        (a, b) => {
            let order = order(vec![a, b], exprs, RightSide::SkippedAfterNull);
            bool_fn(move |cx| Ok(order(cx)?.0.map(test)))
        }
    }
}

fn null_test(args: Vec<Compiled>, want_null: bool) -> Compiled {
    let [a] = take(args);
    let is_null = is_null(a);
    bool_fn(move |cx| Ok(Some(is_null(cx)? == want_null)))
}

/// Compiles a test for NULL on a value of any type.
pub fn is_null(value: Compiled) -> TestFn<bool> {
    match value {
        Compiled::Bool(f) => Box::new(move |cx| Ok(f(cx)?.is_none())),
        Compiled::Long(f) => Box::new(move |cx| Ok(f(cx)?.is_none())),
        Compiled::Double(f) => Box::new(move |cx| Ok(f(cx)?.is_none())),
        Compiled::Decimal(f) => Box::new(move |cx| Ok(f(cx)?.is_none())),
        Compiled::Bytes(f) => Box::new(move |cx| Ok(f(cx)?.is_none())),
    }
}

fn compile_in(args: Vec<Compiled>, exprs: &[Resolved], _: &DataType) -> Compiled {
    let data_type = exprs[0].data_type.clone();
    macro_rules! member {
        ($unwrap:ident, $eq:expr) => {{
            let mut args: Vec<_> = args.into_iter().map(Compiled::$unwrap).collect();
            let needle = args.remove(0);
            bool_fn(move |cx| -> Eval<bool> {
                let Some(x) = needle(cx)? else { return Ok(None) };
                let mut null = false;
                for arg in &args {
                    match arg(cx)? {
                        Some(y) if $eq(x, y) => return Ok(Some(true)),
                        Some(_) => {}
                        None => null = true,
                    }
                }
                Ok(if null { None } else { Some(false) })
            })
        }};
    }
    match &args[0] {
        Compiled::Bool(_) => member!(bool, |x, y| x == y),
        Compiled::Long(_) => member!(long, |x, y| x == y),
        Compiled::Double(_) => member!(double, |x, y| order_doubles(x, y).is_eq()),
        Compiled::Decimal(_) => member!(decimal, |x, y| x == y),
        Compiled::Bytes(_) if data_type.is_nested() => {
            member!(bytes, |x, y| cell::order(Cell::Bytes(x), Cell::Bytes(y), &data_type).is_eq())
        }
        Compiled::Bytes(_) => member!(bytes, |x, y| x == y),
    }
}
