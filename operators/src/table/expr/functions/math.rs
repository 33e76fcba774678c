//! Arithmetic, with ANSI overflow rules, and rounding.

use super::{Function, MANY, Typed, any_nullable, expect, function, take};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cast::{arithmetic_overflow, rescale, wrapped};
use crate::table::expr::cell::{Cell, order};
use crate::table::expr::coercion::{check_order, unify_without_text};
use crate::table::expr::compile::{
    Compiled, Eval, Semantics, decimal_fn, double_fn, failed, fold, long_fn,
};
use crate::table::expr::resolve::common_type;
use crate::table::expr::rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::types::{DataType, Physical};
use crate::table::value::Value;
use std::cmp::Ordering;

pub(super) static FUNCTIONS: &[Function] = &[
    function("+", "a + b", (2, 2), arithmetic, compile_add),
    function("-", "a - b", (2, 2), arithmetic, compile_sub),
    function("*", "a * b", (2, 2), arithmetic, compile_mul),
    function("/", "a / b: a double, or a decimal for decimals", (2, 2), arithmetic, compile_div),
    function(
        "div",
        "a div b: the quotient without its fraction",
        (2, 2),
        integral,
        compile_int_div,
    ),
    function("%", "a % b: the remainder, with the sign of a", (2, 2), remainder, compile_rem),
    function(
        "pmod",
        "pmod(a, b): the remainder, never negative for b > 0",
        (2, 2),
        remainder,
        compile_pmod,
    ),
    function("negative", "- a", (1, 1), same, compile_negative),
    function("positive", "+ a", (1, 1), positive, |args, _, _| {
        let [a] = take(args);
        a
    }),
    function("abs", "abs(a): without its sign", (1, 1), same, compile_abs),
    function("sign", "sign(a): -1.0, 0.0 or 1.0", (1, 1), to_double, |args, _, _| {
        let [a] = take(args);
        let a = a.double();
        double_fn(move |cx| Ok(a(cx)?.map(|v| if v == 0.0 || v.is_nan() { v } else { v.signum() })))
    }),
    function("sqrt", "sqrt(a): the square root", (1, 1), to_double, |args, _, _| {
        let [a] = take(args);
        let a = a.double();
        double_fn(move |cx| Ok(a(cx)?.map(f64::sqrt)))
    }),
    function(
        "floor",
        "floor(a[, digits]): down to a whole number",
        (1, 2),
        to_whole,
        |args, exprs, to| whole(args, exprs, to, f64::floor, Rounding::Down),
    ),
    function(
        "ceil",
        "ceil(a[, digits]): up to a whole number",
        (1, 2),
        to_whole,
        |args, exprs, to| whole(args, exprs, to, f64::ceil, Rounding::Up),
    ),
    function(
        "round",
        "round(a[, digits]): half away from zero",
        (1, 2),
        rounding,
        |args, exprs, to| round(args, exprs, to, half_up, Rounding::HalfUp),
    ),
    function("bround", "bround(a[, digits]): half to even", (1, 2), rounding, |args, exprs, to| {
        round(args, exprs, to, half_even, Rounding::HalfEven)
    }),
    function(
        "greatest",
        "greatest(a, b, …): the largest that is not NULL",
        (2, MANY),
        extreme,
        |args, _, to| pick(args, to, Ordering::Greater),
    ),
    function(
        "least",
        "least(a, b, …): the smallest that is not NULL",
        (2, MANY),
        extreme,
        |args, _, to| pick(args, to, Ordering::Less),
    ),
];

fn not_numeric(name: &str, data_type: &DataType) -> PlanError {
    PlanError::new(
        "DATATYPE_MISMATCH.BINARY_OP_WRONG_TYPE",
        format!("`{name}` needs numbers, but has {data_type}"),
        "Cast it to a number",
    )
}

/// Both operands as numbers of one type.
fn operands(name: &str, args: Vec<Resolved>) -> PlanResult<(Vec<Resolved>, DataType)> {
    // They come brought to one type, or as decimals of any precision.
    let (a, b) = (&args[0].data_type, &args[1].data_type);
    match common_type(a, b) {
        Some(common) if common.is_numeric() => Ok((args, common)),
        _ => Err(not_numeric(name, a)),
    }
}

/// The decimal that holds an operand: of a whole number that is written, only its digits.
fn decimal_of(arg: &Resolved) -> Option<(u8, u8)> {
    match (&arg.node, &arg.data_type) {
        (Node::Literal(Value::Long(v)), t) if t.is_integral() => {
            Some((v.unsigned_abs().to_string().len() as u8, 0))
        }
        (_, data_type) => data_type.as_decimal(),
    }
}

fn arithmetic(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let (args, common) = operands(name, args)?;
    let mut nullable = any_nullable(&args);
    let decimal = args.iter().any(|a| matches!(a.data_type, DataType::Decimal(..)));
    if decimal && matches!(common, DataType::Decimal(..)) {
        let sides: Vec<_> = args.iter().filter_map(decimal_of).collect();
        if let [(p1, s1), (p2, s2)] = sides[..] {
            let result = decimal_result(name, (p1, s1), (p2, s2));
            let coerced =
                args.into_iter().zip(sides).map(|(a, (p, s))| a.coerce(&DataType::Decimal(p, s)));
            nullable |= name == "/";
            return Ok((coerced.collect(), result, nullable));
        }
    }
    let to = if name == "/" { DataType::Double } else { common };
    Ok((args.into_iter().map(|a| a.coerce(&to)).collect(), to, nullable))
}

/// Spark's precision and scale of a decimal operation, at most 38 digits.
fn decimal_result(name: &str, (p1, s1): (u8, u8), (p2, s2): (u8, u8)) -> DataType {
    let (p1, s1, p2, s2) = (i32::from(p1), i32::from(s1), i32::from(p2), i32::from(s2));
    let (precision, scale) = match name {
        "*" => (p1 + p2 + 1, s1 + s2),
        "/" => {
            let scale = (s1 + p2 + 1).max(6);
            (p1 - s1 + s2 + scale, scale)
        }
        "%" | "pmod" => ((p1 - s1).min(p2 - s2) + s1.max(s2), s1.max(s2)),
        _ => ((p1 - s1).max(p2 - s2) + s1.max(s2) + 1, s1.max(s2)),
    };
    if precision <= 38 {
        return DataType::Decimal(precision as u8, scale as u8);
    }
    // Digits before the point are kept; of those behind it, at least 6.
    let whole = precision - scale;
    let scale = (38 - whole).max(scale.min(6));
    DataType::Decimal(38, scale as u8)
}

fn integral(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let (args, _) = operands(name, args)?;
    let nullable = any_nullable(&args);
    Ok((expect(name, args, &[DataType::Long])?, DataType::Long, nullable))
}

fn remainder(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let (args, common) = operands(name, args)?;
    if matches!(common, DataType::Decimal(..)) {
        return arithmetic(name, args);
    }
    let nullable = any_nullable(&args);
    Ok((args.into_iter().map(|a| a.coerce(&common)).collect(), common, nullable))
}

fn same(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let data_type = args[0].data_type.clone();
    let nullable = any_nullable(&args);
    Ok((args, data_type, nullable))
}

fn positive(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    match &args[0].data_type {
        DataType::DayTimeInterval(..) | DataType::YearMonthInterval(..) => {
            let data_type = args[0].data_type.clone();
            Ok((args, data_type, nullable))
        }
        other if other.is_numeric() || matches!(other, DataType::String | DataType::Null) => {
            same(name, args)
        }
        _ => Err(super::unexpected(name, "a number or an interval", &args[0])),
    }
}

fn to_double(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok((expect(name, args, &[DataType::Double])?, DataType::Double, nullable))
}

fn to_whole(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() == 2 {
        // To digits: of a double as of the decimal that it prints as.
        let mut args = args;
        if !matches!(args[0].data_type, DataType::Decimal(..)) {
            let to = match args[0].data_type {
                ref t if t.is_integral() => args[0].data_type.as_decimal().unwrap_or((20, 0)),
                DataType::Float => (14, 7),
                _ => (30, 15),
            };
            args[0] = args[0].clone().coerce(&DataType::Decimal(to.0, to.1));
        }
        return rounding(name, args);
    }
    if let DataType::Decimal(precision, scale) = args[0].data_type {
        let nullable = any_nullable(&args);
        return Ok((args, DataType::Decimal((precision - scale + 1).min(38), 0), nullable));
    }
    let to = if args[0].data_type.is_integral() { DataType::Long } else { DataType::Double };
    let nullable = any_nullable(&args);
    Ok((expect(name, args, &[to])?, DataType::Long, nullable))
}

fn rounding(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() == 2 && !args[1].is_constant() {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            format!("the digits of `{name}` must be a constant"),
            "",
        ));
    }
    let digits = args.drain(1..).collect::<Vec<_>>();
    let (mut args, data_type, nullable) = same(name, args)?;
    let semantics = Semantics { ansi: Rules::current().ansi, ..Semantics::default() };
    let digits = expect(name, digits, &[DataType::Int])?;
    let digits: Vec<_> = digits.into_iter().map(|digits| fold(digits, semantics)).collect();
    let mut to = data_type;
    if let DataType::Decimal(precision, scale) = to {
        let whole = i64::from(precision - scale) + 1;
        let wanted = match digits.first().map(|digits| &digits.node) {
            Some(Node::Literal(Value::Long(wanted))) => *wanted,
            _ => 0,
        };
        let kept = wanted.clamp(0, i64::from(scale));
        let precision = if wanted < 0 { whole.max(1 - wanted) } else { whole + kept };
        to = DataType::Decimal(precision.clamp(1, 38) as u8, kept as u8);
    }
    args.extend(digits);
    Ok((args, to, nullable))
}

fn extreme(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let args = unify_without_text(&format!("`{name}`"), args)?;
    let (data_type, nullable) = (args[0].data_type.clone(), args.iter().all(|a| a.nullable));
    check_order(&format!("`{name}`"), &args[0])?;
    Ok((args, data_type, nullable))
}

/// A checked operation on integers of a type.
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
        let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
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

/// The operations on integers of which an overflow wraps around with ANSI mode off; another one
/// gives its arguments back.
pub fn wrapping(name: &str, args: Vec<Compiled>, to: &DataType) -> Result<Compiled, Vec<Compiled>> {
    let op: fn(i64, i64) -> i64 = match name {
        "+" => i64::wrapping_add,
        "-" => i64::wrapping_sub,
        "*" => i64::wrapping_mul,
        "negative" => |a, _| a.wrapping_neg(),
        "abs" => |a, _| a.wrapping_abs(),
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
        Ok(y.map(|y| wrapped(op(x, y), &to)))
    }))
}

fn double_op(args: Vec<Compiled>, to: &DataType, op: fn(f64, f64) -> f64) -> Compiled {
    let [a, b] = take(args);
    let (a, b, single) = (a.double(), b.double(), *to == DataType::Float);
    double_fn(move |cx| {
        let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
        let v = op(x, y);
        Ok(Some(if single { f64::from(v as f32) } else { v }))
    })
}

/// Two unscaled values with their scales into one, or `None` if it does not fit.
type DecimalOp = fn(i128, u8, i128, u8) -> Option<(i128, u8)>;

/// An operation on decimals: `op` works at scale `at`, then the result is brought to the type's.
fn decimal_op(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType, op: DecimalOp) -> Compiled {
    let scale = |e: &Resolved| e.data_type.as_decimal().map_or(0, |(_, s)| s);
    let (s1, s2, to) = (scale(&exprs[0]), scale(&exprs[1]), to.clone());
    let [a, b] = take(args);
    let (a, b) = (a.decimal(), b.decimal());
    decimal_fn(move |cx| {
        let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
        match op(x, s1, y, s2) {
            Some((v, scale)) => rescale(v, scale, &to),
            None => arithmetic_overflow("the decimal operation"),
        }
    })
}

fn align(x: i128, s1: u8, y: i128, s2: u8) -> Option<(i128, i128, u8)> {
    let scale = s1.max(s2);
    let up = |v: i128, s: u8| v.checked_mul(10i128.pow(u32::from(scale - s)));
    Some((up(x, s1)?, up(y, s2)?, scale))
}

fn compile_add(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Long => long_op(args, to, "+", i64::checked_add),
        Physical::Double => double_op(args, to, |x, y| x + y),
        _ => decimal_op(args, exprs, to, |x, s1, y, s2| {
            let (x, y, scale) = align(x, s1, y, s2)?;
            Some((x.checked_add(y)?, scale))
        }),
    }
}

fn compile_sub(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Long => long_op(args, to, "-", i64::checked_sub),
        Physical::Double => double_op(args, to, |x, y| x - y),
        _ => decimal_op(args, exprs, to, |x, s1, y, s2| {
            let (x, y, scale) = align(x, s1, y, s2)?;
            Some((x.checked_sub(y)?, scale))
        }),
    }
}

fn compile_mul(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Long => long_op(args, to, "*", i64::checked_mul),
        Physical::Double => double_op(args, to, |x, y| x * y),
        _ => decimal_op(args, exprs, to, |x, s1, y, s2| Some((x.checked_mul(y)?, s1 + s2))),
    }
}

fn divided_by_zero<T>() -> Eval<T> {
    failed("DIVIDE_BY_ZERO", "division by zero", "Use nullif(divisor, 0) to get NULL instead")
}

fn compile_div(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    if let DataType::Decimal(_, scale) = *to {
        let of = |e: &Resolved| e.data_type.as_decimal().map_or(0, |(_, s)| s);
        let (s1, s2, to) = (of(&exprs[0]), of(&exprs[1]), to.clone());
        let [a, b] = take(args);
        let (a, b) = (a.decimal(), b.decimal());
        return decimal_fn(move |cx| {
            let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
            if y == 0 {
                return divided_by_zero();
            }
            // One digit more than asked for, so that the rounding is right.
            let shift = i32::from(scale) + 1 + i32::from(s2) - i32::from(s1);
            let quotient = if shift >= 0 {
                x.checked_mul(10i128.pow(shift as u32)).map(|x| x / y)
            } else {
                Some(x / y / 10i128.pow(shift.unsigned_abs()))
            };
            match quotient {
                Some(v) => rescale(v, scale + 1, &to),
                None => arithmetic_overflow("the decimal division"),
            }
        });
    }
    let [a, b] = take(args);
    let (a, b) = (a.double(), b.double());
    double_fn(move |cx| {
        let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
        if y == 0.0 { divided_by_zero() } else { Ok(Some(x / y)) }
    })
}

fn compile_int_div(args: Vec<Compiled>, _: &[Resolved], to: &DataType) -> Compiled {
    nonzero(args, to, "DIVIDE_BY_ZERO", i64::checked_div)
}

/// An operation on integers that fails for a second operand of zero.
fn nonzero(
    args: Vec<Compiled>,
    to: &DataType,
    condition: &'static str,
    op: fn(i64, i64) -> Option<i64>,
) -> Compiled {
    let [a, b] = take(args);
    let (a, b, (low, high)) = (a.long(), b.long(), to.integral_range());
    long_fn(move |cx| {
        let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
        if y == 0 {
            return failed(
                condition,
                "division by zero",
                "Use nullif(divisor, 0) to get NULL instead",
            );
        }
        match op(x, y) {
            Some(v) if v >= low && v <= high => Ok(Some(v)),
            _ => arithmetic_overflow(&format!("{x} divided by {y}")),
        }
    })
}

/// A remainder of decimals, brought to one scale.
fn decimal_rem(
    args: Vec<Compiled>,
    exprs: &[Resolved],
    to: &DataType,
    op: fn(i128, i128) -> i128,
) -> Compiled {
    let scale = |e: &Resolved| e.data_type.as_decimal().map_or(0, |(_, s)| s);
    let (s1, s2, to) = (scale(&exprs[0]), scale(&exprs[1]), to.clone());
    let [a, b] = take(args);
    let (a, b) = (a.decimal(), b.decimal());
    decimal_fn(move |cx| {
        let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
        if y == 0 {
            return failed("REMAINDER_BY_ZERO", "remainder by zero", "Use nullif(divisor, 0)");
        }
        match align(x, s1, y, s2) {
            Some((x, y, scale)) => rescale(op(x, y), scale, &to),
            None => arithmetic_overflow("the remainder"),
        }
    })
}

fn compile_rem(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Decimal => decimal_rem(args, exprs, to, |x, y| x % y),
        // The remainder by -1 is 0 also where the quotient would overflow.
        Physical::Long => nonzero(args, to, "REMAINDER_BY_ZERO", |x, y| Some(x.wrapping_rem(y))),
        _ => double_rem(args, |x, y| x % y),
    }
}

fn compile_pmod(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    match to.physical() {
        Physical::Decimal => decimal_rem(args, exprs, to, |x, y| {
            let r = x % y;
            if r < 0 { (r + y) % y } else { r }
        }),
        Physical::Long => nonzero(args, to, "REMAINDER_BY_ZERO", |x, y| {
            let r = x.wrapping_rem(y);
            Some(if r < 0 { (r.wrapping_add(y)).wrapping_rem(y) } else { r })
        }),
        _ => double_rem(args, |x, y| {
            let r = x % y;
            if r < 0.0 { (r + y) % y } else { r }
        }),
    }
}

fn double_rem(args: Vec<Compiled>, op: fn(f64, f64) -> f64) -> Compiled {
    let [a, b] = take(args);
    let (a, b) = (a.double(), b.double());
    double_fn(move |cx| {
        let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
        if y == 0.0 {
            return failed("REMAINDER_BY_ZERO", "remainder by zero", "Use nullif(divisor, 0)");
        }
        Ok(Some(op(x, y)))
    })
}

/// A function of one number that keeps its type.
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
        Compiled::Decimal(a) => decimal_fn(move |cx| Ok(a(cx)?.map(decimal))),
        Compiled::Bool(_) | Compiled::Bytes(_) => unreachable!("resolved to a number"),
    }
}

fn compile_negative(args: Vec<Compiled>, _: &[Resolved], to: &DataType) -> Compiled {
    unary(args, to, i64::checked_neg, |x| -x, |x| -x)
}

fn compile_abs(args: Vec<Compiled>, _: &[Resolved], to: &DataType) -> Compiled {
    unary(args, to, i64::checked_abs, f64::abs, i128::abs)
}

/// How a digit that is cut off changes the one before it.
#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    Down,
    Up,
    HalfUp,
    HalfEven,
}

/// A decimal's digits cut to a scale, perhaps a negative one.
fn round_decimal(value: i128, scale: u8, digits: i64, rounding: Rounding) -> Option<(i128, u8)> {
    let drop = i64::from(scale) - digits;
    if drop <= 0 {
        return Some((value, scale));
    }
    let Some(unit) = u32::try_from(drop).ok().and_then(|drop| 10i128.checked_pow(drop)) else {
        return Some((0, 0));
    };
    let (whole, rest) = (value.div_euclid(unit), value.rem_euclid(unit));
    let up = match rounding {
        Rounding::Down => false,
        Rounding::Up => rest > 0,
        // Away from zero: below it, half is the larger one's.
        Rounding::HalfUp => rest * 2 > unit || rest * 2 == unit && value >= 0,
        Rounding::HalfEven => rest * 2 > unit || rest * 2 == unit && whole % 2 != 0,
    };
    let rounded = whole + i128::from(up);
    if digits >= 0 {
        return Some((rounded, digits as u8));
    }
    let zeros = u32::try_from(-digits).ok()?;
    Some((rounded.checked_mul(10i128.checked_pow(zeros)?)?, 0))
}

fn rounded_decimal(
    a: crate::table::expr::compile::DecimalFn,
    from: &DataType,
    to: &DataType,
    digits: i64,
    rounding: Rounding,
) -> Compiled {
    let (scale, to) = (from.as_decimal().map_or(0, |(_, scale)| scale), to.clone());
    decimal_fn(move |cx| {
        let Some(value) = a(cx)? else { return Ok(None) };
        match round_decimal(value, scale, digits, rounding) {
            Some((value, scale)) => rescale(value, scale, &to),
            None => arithmetic_overflow("rounding"),
        }
    })
}

fn digits_of(exprs: &[Resolved]) -> i64 {
    match exprs.get(1).map(|e| &e.node) {
        Some(Node::Literal(Value::Long(digits))) => (*digits).clamp(-38, 38),
        _ => 0,
    }
}

fn whole(
    args: Vec<Compiled>,
    exprs: &[Resolved],
    to: &DataType,
    round: fn(f64) -> f64,
    rounding: Rounding,
) -> Compiled {
    let Some(a) = args.into_iter().next() else { unreachable!("resolution counted") };
    match a {
        Compiled::Decimal(a) => {
            rounded_decimal(a, &exprs[0].data_type, to, digits_of(exprs), rounding)
        }
        Compiled::Double(a) => long_fn(move |cx| Ok(a(cx)?.map(|v| round(v) as i64))),
        other => other,
    }
}

fn half_up(x: f64) -> f64 {
    x.round()
}

fn half_even(x: f64) -> f64 {
    x.round_ties_even()
}

fn round(
    args: Vec<Compiled>,
    exprs: &[Resolved],
    to: &DataType,
    round: fn(f64) -> f64,
    rounding: Rounding,
) -> Compiled {
    let digits = match exprs.get(1).map(|e| &e.node) {
        Some(Node::Literal(Value::Long(digits))) => (*digits).clamp(-18, 18) as i32,
        _ => 0,
    };
    let Some(value) = args.into_iter().next() else { unreachable!("resolution counted") };
    match value {
        Compiled::Decimal(a) => {
            rounded_decimal(a, &exprs[0].data_type, to, digits_of(exprs), rounding)
        }
        Compiled::Double(a) => double_fn(move |cx| {
            let Some(x) = a(cx)? else { return Ok(None) };
            Ok(Some(round_double(x, digits, round)))
        }),
        Compiled::Long(a) if digits < 0 => {
            let (unit, (low, high)) = (10i128.pow(digits.unsigned_abs()), to.integral_range());
            long_fn(move |cx| {
                let Some(x) = a(cx)? else { return Ok(None) };
                let rounded = round(x as f64 / unit as f64) as i128 * unit;
                if rounded < i128::from(low) || rounded > i128::from(high) {
                    return arithmetic_overflow(&format!("rounding {x}"));
                }
                Ok(Some(rounded as i64))
            })
        }
        other => other,
    }
}

/// Rounds the decimal that the double prints as, as Spark does, not its binary value: 2.675 to
/// two digits is 2.68.
fn round_double(x: f64, digits: i32, round: fn(f64) -> f64) -> f64 {
    if !x.is_finite() {
        return x;
    }
    let unit = 10f64.powi(digits.abs());
    let scaled = if digits >= 0 { format!("{x:?}") } else { format!("{:?}", x / unit) };
    if digits <= 0 {
        return if digits == 0 { round(x) } else { round(x / unit) * unit };
    }
    let shifted: f64 = match scaled.split_once('e') {
        Some((m, e)) => {
            let power = e.parse::<i32>().unwrap_or(0) + digits;
            format!("{m}e{power}").parse().unwrap_or(x * unit)
        }
        None => format!("{scaled}e{digits}").parse().unwrap_or(x * unit),
    };
    if shifted.abs() >= 9e15 {
        x
    } else {
        format!("{}e-{digits}", round(shifted)).parse().unwrap_or(x)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round() {
        let half_up = |value, digits| round_decimal(value, 2, digits, Rounding::HalfUp).unwrap();
        assert_eq!(half_up(250, 0), (3, 0));
        assert_eq!(half_up(-250, 0), (-3, 0));
        assert_eq!(half_up(-249, 0), (-2, 0));
        assert_eq!(half_up(12_345, -2), (100, 0));
        assert_eq!(round_decimal(250, 2, 0, Rounding::HalfEven), Some((2, 0)));
        assert_eq!(round_decimal(-250, 2, 0, Rounding::HalfEven), Some((-2, 0)));
        assert_eq!(round_decimal(-201, 2, 0, Rounding::Up), Some((-2, 0)));
        assert_eq!(round_decimal(-201, 2, 0, Rounding::Down), Some((-3, 0)));
    }

    #[test]
    fn doubles_round_as_they_print() {
        assert_eq!(round_double(2.675, 2, half_up), 2.68);
        assert_eq!(round_double(-2.5, 0, half_up), -3.0);
        assert_eq!(round_double(2.5, 0, half_even), 2.0);
        assert_eq!(round_double(1234.0, -2, half_up), 1200.0);
        assert_eq!(round_double(1e300, 2, half_up), 1e300);
    }

    #[test]
    fn decimal_results_as_spark_sizes_them() {
        assert_eq!(decimal_result("+", (10, 2), (5, 3)), DataType::Decimal(12, 3));
        assert_eq!(decimal_result("*", (10, 2), (5, 3)), DataType::Decimal(16, 5));
        assert_eq!(decimal_result("/", (10, 2), (5, 3)), DataType::Decimal(19, 8));
        assert_eq!(decimal_result("*", (38, 18), (38, 18)), DataType::Decimal(38, 6));
    }
}
