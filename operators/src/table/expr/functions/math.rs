//! Arithmetic with ANSI overflow rules, and `greatest` and `least`.

use super::registry::{Function, MANY, Typed, any_nullable, expect, function, take};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cast::{arithmetic_overflow, wrapped};
use crate::table::expr::cell::{Cell, order};
use crate::table::expr::coercion::{check_order, unify_without_text};
use crate::table::expr::compile::{Compiled, Eval, decimal_fn, double_fn, failed, long_fn};
use crate::table::expr::decimal::{self, Scaled};
use crate::table::expr::resolve::common_type;
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::types::{DataType, Physical};
use crate::table::value::Value;
use std::cmp::Ordering;

pub(super) static FUNCTIONS: &[Function] = &[
    function(
        "+",
        "a + b: the sum, also of a time and an interval",
        (2, 2),
        arithmetic,
        compile_add,
    )
    .usage("1.0.0", "1 + 2", "3"),
    function("-", "a - b: the difference, also of times", (2, 2), arithmetic, compile_sub)
        .usage("1.0.0", "3 - 2", "1"),
    function("*", "a * b: the product", (2, 2), arithmetic, compile_mul)
        .usage("1.0.0", "2 * 3", "6"),
    function("/", "a / b: a double, or a decimal for decimals", (2, 2), arithmetic, compile_div)
        .usage("1.0.0", "3 / 2", "1.5"),
    function(
        "div",
        "a div b: the quotient without its fraction",
        (2, 2),
        integral,
        compile_int_div,
    )
    .usage("3.0.0", "7 div 2", "3"),
    function(
        "%",
        "a % b or mod(a, b): the remainder, with the sign of a",
        (2, 2),
        remainder,
        compile_rem,
    )
    .usage("1.0.0", "-7 % 3", "-1"),
    function(
        "pmod",
        "pmod(a, b): the remainder, never negative for b > 0",
        (2, 2),
        remainder,
        compile_pmod,
    )
    .usage("1.5.0", "pmod(-7, 3)", "2"),
    function("negative", "negative(a) or - a: the opposite number", (1, 1), same, compile_negative)
        .usage("1.0.0", "negative(1)", "-1"),
    function(
        "positive",
        "positive(a) or + a: the number itself",
        (1, 1),
        positive,
        |args, _, _| {
            let [a] = take(args);
            a
        },
    )
    .usage("1.5.0", "positive(-1)", "-1"),
    function("abs", "abs(a): without its sign", (1, 1), same, compile_abs)
        .usage("1.2.0", "abs(-1)", "1"),
    function("sign", "sign(a): -1.0, 0.0 or 1.0", (1, 1), to_double, |args, _, _| {
        let [a] = take(args);
        let a = a.double();
        double_fn(move |cx| Ok(a(cx)?.map(|v| if v == 0.0 || v.is_nan() { v } else { v.signum() })))
    })
    .usage("1.4.0", "sign(-5)", "-1.0"),
    function("sqrt", "sqrt(a): the square root", (1, 1), to_double, |args, _, _| {
        let [a] = take(args);
        let a = a.double();
        double_fn(move |cx| Ok(a(cx)?.map(f64::sqrt)))
    })
    .usage("1.1.1", "sqrt(9)", "3.0"),
    function(
        "greatest",
        "greatest(a, b, …): the largest that is not NULL",
        (2, MANY),
        extreme,
        |args, _, to| pick(args, to, Ordering::Greater),
    )
    .usage("1.5.0", "greatest(1, 3, NULL)", "3"),
    function(
        "least",
        "least(a, b, …): the smallest that is not NULL",
        (2, MANY),
        extreme,
        |args, _, to| pick(args, to, Ordering::Less),
    )
    .usage("1.5.0", "least(1, 3, NULL)", "1"),
];

fn not_numeric(name: &str, data_type: &DataType) -> PlanError {
    PlanError::new(
        "DATATYPE_MISMATCH.BINARY_OP_WRONG_TYPE",
        format!("`{name}` needs numbers, but has {data_type}"),
        "Cast it to a number",
    )
}

/// Checks that both operands are numeric, and returns them with their common type.
fn operands(name: &str, args: Vec<Resolved>) -> PlanResult<(Vec<Resolved>, DataType)> {
    // After coercion both have one type, unless one is a decimal.
    let (a, b) = (&args[0].data_type, &args[1].data_type);
    match common_type(a, b) {
        Some(common) if common.is_numeric() => Ok((args, common)),
        _ => Err(not_numeric(name, a)),
    }
}

/// The decimal type of an operand. An integer literal counts as a decimal with its number of
/// digits. A NULL gets the type of the other operand.
fn decimal_of(arg: &Resolved, other: &Resolved) -> Option<(u8, u8)> {
    match (&arg.node, &arg.data_type) {
        (_, DataType::Null) => other.data_type.as_decimal(),
        (Node::Literal(Value::Long(v)), t) if t.is_integral() => {
            Some((v.unsigned_abs().to_string().len() as u8, 0))
        }
        (_, data_type) => data_type.as_decimal(),
    }
}

fn arithmetic(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let (args, common) = operands(name, args)?;
    let mut nullable = any_nullable(&args);
    if matches!(common, DataType::Decimal(..)) {
        let sides = (decimal_of(&args[0], &args[1]), decimal_of(&args[1], &args[0]));
        if let (Some(left), Some(right)) = sides {
            let result = decimal::result_type(name, left, right, Rules::current().precision_loss);
            let coerced = args
                .into_iter()
                .zip([left, right])
                .map(|(a, (p, s))| a.coerce(&DataType::Decimal(p, s)));
            nullable |= name == "/";
            return Ok(Typed::new(coerced.collect(), result, nullable));
        }
    }
    let to = if name == "/" { DataType::Double } else { common };
    Ok(Typed::new(args.into_iter().map(|a| a.coerce(&to)).collect(), to, nullable))
}

/// Resolves `DIV`. The operands are integers or decimals, and the result is a BIGINT.
fn integral(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let (args, common) = operands(name, args)?;
    let nullable = any_nullable(&args);
    let sides = (decimal_of(&args[0], &args[1]), decimal_of(&args[1], &args[0]));
    if let (DataType::Decimal(..), (Some(left), Some(right))) = (&common, sides) {
        let coerced = args
            .into_iter()
            .zip([left, right])
            .map(|(a, (p, s))| a.coerce(&DataType::Decimal(p, s)));
        return Ok(Typed::new(coerced.collect(), DataType::Long, nullable));
    }
    Ok(Typed::new(expect(name, args, &[DataType::Long])?, DataType::Long, nullable))
}

fn remainder(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let (args, common) = operands(name, args)?;
    if matches!(common, DataType::Decimal(..)) {
        return arithmetic(name, args);
    }
    let nullable = any_nullable(&args);
    Ok(Typed::new(args.into_iter().map(|a| a.coerce(&common)).collect(), common, nullable))
}

pub(super) fn same(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let data_type = args[0].data_type.clone();
    let nullable = any_nullable(&args);
    Ok(Typed::new(args, data_type, nullable))
}

fn positive(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    match &args[0].data_type {
        DataType::DayTimeInterval(..)
        | DataType::YearMonthInterval(..)
        | DataType::CalendarInterval => {
            let data_type = args[0].data_type.clone();
            Ok(Typed::new(args, data_type, nullable))
        }
        other if other.is_numeric() || matches!(other, DataType::String | DataType::Null) => {
            same(name, args)
        }
        _ => Err(super::registry::unexpected(name, "a number or an interval", &args[0])),
    }
}

fn to_double(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok(Typed::new(expect(name, args, &[DataType::Double])?, DataType::Double, nullable))
}

fn extreme(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let args = unify_without_text(&format!("`{name}`"), args)?;
    let (data_type, nullable) = (args[0].data_type.clone(), args.iter().all(|a| a.nullable));
    check_order(&format!("`{name}`"), &args[0])?;
    Ok(Typed::new(args, data_type, nullable))
}

/// Compiles a checked integer operation. A result outside the range of its type is an error.
fn long_op(
    args: Vec<Compiled>,
    to: &DataType,
    what: &'static str,
    op: fn(i64, i64) -> Option<i64>,
) -> Compiled {
    let [a, b] = take(args);
    let (a, b, (low, high)) = (a.long(), b.long(), to.integral_range());
    let narrow = matches!(to, DataType::Byte | DataType::Short);
    long_fn(move |cx| {
        let Some(x) = a(cx)? else { return Ok(None) };
        let Some(y) = b(cx)? else { return Ok(None) };
        match op(x, y) {
            Some(v) if v >= low && v <= high => Ok(Some(v)),
            _ if narrow => failed(
                "BINARY_ARITHMETIC_OVERFLOW",
                format!("{x} {what} {y} overflows"),
                "Cast to a wider type",
            ),
            _ => arithmetic_overflow(&format!("{x} {what} {y}")),
        }
    })
}

/// Compiles an integer operation that wraps around on overflow, as without ANSI mode. For any other
/// operation, returns the arguments as the error value, so that the caller can compile them.
pub fn wrapping(name: &str, args: Vec<Compiled>, to: &DataType) -> Result<Compiled, Vec<Compiled>> {
    let op: fn(i64, i64) -> Option<i64> = match name {
        "+" => |a, b| Some(a.wrapping_add(b)),
        "-" => |a, b| Some(a.wrapping_sub(b)),
        "*" => |a, b| Some(a.wrapping_mul(b)),
        // `div` on decimals also returns a BIGINT, so the operands' type must be tested.
        "div" if matches!(args.first(), Some(Compiled::Long(_))) => {
            |a, b| (b != 0).then(|| a.wrapping_div(b))
        }
        "negative" => |a, _| Some(a.wrapping_neg()),
        "abs" => |a, _| Some(a.wrapping_abs()),
        _ => return Err(args),
    };
    let to = to.clone();
    let mut args = args.into_iter().map(Compiled::long);
    let (Some(a), b) = (args.next(), args.next()) else { return Err(Vec::new()) };
    Ok(long_fn(move |cx| {
        let Some(x) = a(cx)? else { return Ok(None) };
        let y = match &b {
            Some(b) => b(cx)?,
            None => Some(0),
        };
        Ok(y.and_then(|y| op(x, y)).map(|v| wrapped(v, &to)))
    }))
}

fn double_op(args: Vec<Compiled>, to: &DataType, op: fn(f64, f64) -> f64) -> Compiled {
    let [a, b] = take(args);
    let (a, b, single) = (a.double(), b.double(), *to == DataType::Float);
    double_fn(move |cx| {
        let Some(x) = a(cx)? else { return Ok(None) };
        let Some(y) = b(cx)? else { return Ok(None) };
        let v = op(x, y);
        Ok(Some(if single { f64::from(v as f32) } else { v }))
    })
}

/// An operation on decimals, which returns `None` if the result does not fit the type.
type DecimalOp = fn(Scaled, Scaled, &DataType) -> Option<i128>;

fn decimal_op(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType, op: DecimalOp) -> Compiled {
    let (s1, s2, to) = (scale(&exprs[0]), scale(&exprs[1]), to.clone());
    let [a, b] = take(args);
    let (a, b) = (a.decimal(), b.decimal());
    decimal_fn(move |cx| {
        let Some(x) = a(cx)? else { return Ok(None) };
        let Some(y) = b(cx)? else { return Ok(None) };
        match op((x, s1), (y, s2), &to) {
            Some(v) => Ok(Some(v)),
            None => no_room(x, &to),
        }
    })
}

fn scale(of: &Resolved) -> u8 {
    of.data_type.as_decimal().map_or(0, |(_, scale)| scale)
}

/// The error for a decimal result that does not fit its type.
#[cold]
fn no_room<T>(of: i128, to: &DataType) -> Eval<T> {
    failed(
        "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
        format!("the result of an operation on the digits {of} does not fit {to}"),
        "Cast to a narrower decimal before, or use a try_ function to get NULL",
    )
}

fn compile_add(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Long => long_op(args, to, "+", i64::checked_add),
        Physical::Double => double_op(args, to, |x, y| x + y),
        _ => decimal_op(args, exprs, to, decimal::add),
    }
}

fn compile_sub(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Long => long_op(args, to, "-", i64::checked_sub),
        Physical::Double => double_op(args, to, |x, y| x - y),
        _ => decimal_op(args, exprs, to, |a, (y, scale), to| decimal::add(a, (-y, scale), to)),
    }
}

fn compile_mul(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Long => long_op(args, to, "*", i64::checked_mul),
        Physical::Double => double_op(args, to, |x, y| x * y),
        _ => decimal_op(args, exprs, to, decimal::multiply),
    }
}

#[cold]
fn by_zero<T>(condition: &'static str) -> Eval<T> {
    failed(condition, "division by zero", "Use nullif(divisor, 0) to get NULL instead")
}

fn compile_div(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    if let DataType::Decimal(..) = *to {
        return nonzero_decimal(args, exprs, to, "DIVIDE_BY_ZERO", decimal::divide);
    }
    let [a, b] = take(args);
    let (a, b) = (a.double(), b.double());
    double_fn(move |cx| {
        let Some(y) = b(cx)? else { return Ok(None) };
        let Some(x) = a(cx)? else { return Ok(None) };
        if y == 0.0 { by_zero("DIVIDE_BY_ZERO") } else { Ok(Some(x / y)) }
    })
}

fn compile_int_div(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    if exprs[0].data_type.physical() != Physical::Decimal {
        return nonzero(args, to, "DIVIDE_BY_ZERO", i64::checked_div);
    }
    let quotient =
        nonzero_decimal(args, exprs, to, "DIVIDE_BY_ZERO", |a, b, _| decimal::whole_quotient(a, b));
    let quotient = quotient.decimal();
    // A quotient beyond the range of BIGINT is truncated to its lower 64 bits, as in Spark.
    long_fn(move |cx| Ok(quotient(cx)?.map(|v| v as i64)))
}

/// Compiles a decimal operation that fails if the second operand is zero.
fn nonzero_decimal(
    args: Vec<Compiled>,
    exprs: &[Resolved],
    to: &DataType,
    condition: &'static str,
    op: DecimalOp,
) -> Compiled {
    let (s1, s2, to) = (scale(&exprs[0]), scale(&exprs[1]), to.clone());
    let [a, b] = take(args);
    let (a, b) = (a.decimal(), b.decimal());
    decimal_fn(move |cx| {
        let Some(y) = b(cx)? else { return Ok(None) };
        let Some(x) = a(cx)? else { return Ok(None) };
        if y == 0 {
            return by_zero(condition);
        }
        match op((x, s1), (y, s2), &to) {
            Some(v) => Ok(Some(v)),
            None => no_room(x, &to),
        }
    })
}

/// Compiles an integer operation that fails if the second operand is zero.
fn nonzero(
    args: Vec<Compiled>,
    to: &DataType,
    condition: &'static str,
    op: fn(i64, i64) -> Option<i64>,
) -> Compiled {
    let [a, b] = take(args);
    let (a, b, (low, high)) = (a.long(), b.long(), to.integral_range());
    long_fn(move |cx| {
        let Some(y) = b(cx)? else { return Ok(None) };
        let Some(x) = a(cx)? else { return Ok(None) };
        if y == 0 {
            return by_zero(condition);
        }
        match op(x, y) {
            Some(v) if v >= low && v <= high => Ok(Some(v)),
            _ => arithmetic_overflow(&format!("{x} divided by {y}")),
        }
    })
}

fn compile_rem(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Decimal => {
            nonzero_decimal(args, exprs, to, "REMAINDER_BY_ZERO", decimal::remainder)
        }
        // The remainder by -1 is 0, even where the quotient overflows.
        Physical::Long => nonzero(args, to, "REMAINDER_BY_ZERO", |x, y| Some(x.wrapping_rem(y))),
        _ => double_rem(args, |x, y| x % y),
    }
}

fn compile_pmod(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    let single = *to == DataType::Float;
    match to.physical() {
        Physical::Decimal => {
            nonzero_decimal(args, exprs, to, "REMAINDER_BY_ZERO", decimal::positive_remainder)
        }
        Physical::Long => nonzero(args, to, "REMAINDER_BY_ZERO", |x, y| {
            let r = x.wrapping_rem(y);
            Some(if r < 0 { (r.wrapping_add(y)).wrapping_rem(y) } else { r })
        }),
        _ => double_rem(args, move |x, y| {
            let r = x % y;
            let sum = if single { f64::from((r + y) as f32) } else { r + y };
            if r < 0.0 { sum % y } else { r }
        }),
    }
}

fn double_rem(args: Vec<Compiled>, op: impl Fn(f64, f64) -> f64 + Send + 'static) -> Compiled {
    let [a, b] = take(args);
    let (a, b) = (a.double(), b.double());
    double_fn(move |cx| {
        let Some(y) = b(cx)? else { return Ok(None) };
        let Some(x) = a(cx)? else { return Ok(None) };
        if y == 0.0 { by_zero("REMAINDER_BY_ZERO") } else { Ok(Some(op(x, y))) }
    })
}

/// Compiles a unary operation on numbers that keeps their type.
fn unary(
    args: Vec<Compiled>,
    to: &DataType,
    long: fn(i64) -> Option<i64>,
    double: fn(f64) -> f64,
    decimal: fn(i128) -> i128,
) -> Compiled {
    let [a] = take(args);
    let (low, high) = to.integral_range();
    match a {
        Compiled::Long(a) => long_fn(move |cx| {
            let Some(x) = a(cx)? else { return Ok(None) };
            match long(x) {
                Some(v) if v >= low && v <= high => Ok(Some(v)),
                _ => arithmetic_overflow(&format!("the negative of {x}")),
            }
        }),
        Compiled::Double(a) => double_fn(move |cx| Ok(a(cx)?.map(double))),
        Compiled::Decimal(a) => {
            let DataType::Decimal(precision, _) = *to else { unreachable!("of its type") };
            let limit = 10u128.pow(u32::from(precision));
            decimal_fn(move |cx| match a(cx)?.map(decimal) {
                Some(v) if v.unsigned_abs() >= limit => failed(
                    "NUMERIC_VALUE_OUT_OF_RANGE.WITHOUT_SUGGESTION",
                    format!("the negative of a decimal has more than {precision} digits"),
                    "",
                ),
                v => Ok(v),
            })
        }
        Compiled::Bool(_) | Compiled::Bytes(_) => unreachable!("resolved to a number"),
    }
}

fn compile_negative(args: Vec<Compiled>, _: &[Resolved], to: &DataType) -> Compiled {
    unary(args, to, i64::checked_neg, |x| -x, decimal::negated)
}

fn compile_abs(args: Vec<Compiled>, _: &[Resolved], to: &DataType) -> Compiled {
    let abs = |x: i128| if x < 0 { decimal::negated(x) } else { x };
    unary(args, to, i64::checked_abs, f64::abs, abs)
}

fn pick(args: Vec<Compiled>, to: &DataType, want: Ordering) -> Compiled {
    macro_rules! extreme {
        ($make:ident, $unwrap:ident, $cmp:expr) => {{
            let args: Vec<_> = args.into_iter().map(Compiled::$unwrap).collect();
            $make(move |cx| {
                let mut best = None;
                for arg in &args {
                    if let Some(v) = arg(cx)? {
                        best = match best {
                            Some(b) if $cmp(&v, &b) != want => Some(b),
                            _ => Some(v),
                        };
                    }
                }
                Ok(best)
            })
        }};
    }
    use crate::table::expr::compile::{bool_fn, bytes_fn};
    match to.physical() {
        Physical::Bool => extreme!(bool_fn, bool, bool::cmp),
        Physical::Long => extreme!(long_fn, long, i64::cmp),
        Physical::Double => {
            extreme!(double_fn, double, |a: &f64, b: &f64| super::compare::order_doubles(*a, *b))
        }
        Physical::Decimal => extreme!(decimal_fn, decimal, i128::cmp),
        Physical::Bytes => {
            let of = to.clone();
            extreme!(bytes_fn, bytes, |a: &&[u8], b: &&[u8]| order(
                Cell::Bytes(a),
                Cell::Bytes(b),
                &of
            ))
        }
    }
}
