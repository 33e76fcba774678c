//! Rounding functions for all numeric types: `round`, `bround`, `floor` and `ceil`.
//!
//! As in Spark, `round` and `bround` of a float or double apply to its printed decimal digits, not
//! to its exact binary value ([`round_double`]): 2.675 rounded to two digits is 2.68. The result is
//! never -0.0.

use super::math::same;
use super::registry::{Call, Function, Typed, any_nullable, called, expect};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cast::{TWO_63, arithmetic_overflow, rescale, wrapped};
use crate::table::expr::compile::{
    Compiled, DecimalFn, Semantics, decimal_fn, double_fn, failed, fold, long_fn,
};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::text::java_double;
use crate::table::types::DataType;
use crate::table::value::{InlineText, Value};

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "floor",
        "floor(a[, digits]): down to a whole number",
        (1, 2),
        to_whole,
        |args, call| whole(args, &call, f64::floor, Rounding::Down),
    )
    .usage("3.3.0", "floor(-1.5)", "-2"),
    called("ceil", "ceil(a[, digits]): up to a whole number", (1, 2), to_whole, |args, call| {
        whole(args, &call, f64::ceil, Rounding::Up)
    })
    .usage("3.3.0", "ceil(-1.5)", "-1"),
    called("round", "round(a[, digits]): half away from zero", (1, 2), rounding, |args, call| {
        round(args, &call, Rounding::HalfUp)
    })
    .usage("1.5.0", "round(2.5)", "3"),
    called("bround", "bround(a[, digits]): half to even", (1, 2), rounding, |args, call| {
        round(args, &call, Rounding::HalfEven)
    })
    .usage("2.0.0", "bround(2.5)", "2"),
];

/// How a value is rounded when digits are dropped.
#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    Down,
    Up,
    HalfUp,
    HalfEven,
}

/// The value of the argument for the number of digits: 0 if it is not given. `None` if it is NULL
/// or not a literal.
fn wanted(digits: Option<&Resolved>) -> Option<i64> {
    match digits.map(|digits| &digits.node) {
        None => Some(0),
        Some(Node::Literal(Value::Long(digits))) => Some(*digits),
        _ => None,
    }
}

/// Folds a constant expression to a literal. Any other expression is returned unchanged.
fn literal(arg: Resolved) -> Resolved {
    let semantics = Semantics { ansi: Rules::current().ansi, ..Semantics::default() };
    let folded = fold(arg.clone(), semantics);
    if matches!(folded.node, Node::Literal(_)) { folded } else { arg }
}

fn to_whole(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() == 2 {
        let scale = literal(args.remove(1));
        if scale.data_type != DataType::Int || wanted(Some(&scale)).is_none() {
            return Err(PlanError::new(
                "NON_FOLDABLE_ARGUMENT",
                format!("the digits of `{name}` must be a constant whole number"),
                "",
            ));
        }
        args.push(scale);
        // With a number of digits, `floor` and `ceil` convert their argument to a decimal.
        if !matches!(args[0].data_type, DataType::Decimal(..)) {
            let to = match args[0].data_type {
                ref t if t.is_integral() => args[0].data_type.as_decimal().unwrap_or((20, 0)),
                DataType::Float => (14, 7),
                DataType::Double => (30, 15),
                _ => (38, 18),
            };
            let number = expect(name, vec![args.remove(0)], &[DataType::Decimal(to.0, to.1)])?;
            args.splice(0..0, number);
        }
        return rounding(name, args);
    }
    if let DataType::Decimal(precision, scale) = args[0].data_type {
        let nullable = any_nullable(&args);
        return Ok(Typed::new(
            args,
            DataType::Decimal((precision - scale + 1).min(38), 0),
            nullable,
        ));
    }
    let to = if args[0].data_type.is_integral() { DataType::Long } else { DataType::Double };
    let nullable = any_nullable(&args);
    Ok(Typed::new(expect(name, args, &[to])?, DataType::Long, nullable))
}

fn rounding(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() == 2 && !args[1].is_foldable() {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            format!("the digits of `{name}` must be a constant"),
            "",
        ));
    }
    let digits = args.drain(1..).collect::<Vec<_>>();
    let Typed { mut args, data_type, is_nullable: nullable } = same(name, args)?;
    let digits: Vec<_> = expect(name, digits, &[DataType::Int])?.into_iter().map(literal).collect();
    let mut to = data_type;
    if let DataType::Decimal(precision, scale) = to {
        let whole = i64::from(precision - scale) + 1;
        let wanted = wanted(digits.first()).unwrap_or(0);
        let kept = wanted.clamp(0, i64::from(scale));
        let precision = if wanted < 0 { whole.max(1 - wanted) } else { whole + kept };
        to = DataType::Decimal(precision.clamp(1, 38) as u8, kept as u8);
    }
    let nullable = nullable || any_nullable(&digits);
    args.extend(digits);
    Ok(Typed::new(args, to, nullable))
}

/// Whether rounding increments the quotient of a division by `unit`. `rest` is the remainder, and
/// `odd` tells whether the quotient is odd.
fn goes_up(rest: u128, unit: u128, odd: bool, negative: bool, rounding: Rounding) -> bool {
    let (over_half, half) = (rest > unit - rest, rest == unit - rest);
    match rounding {
        Rounding::Down => negative && rest > 0,
        Rounding::Up => !negative && rest > 0,
        Rounding::HalfUp => over_half || half,
        Rounding::HalfEven => over_half || half && odd,
    }
}

/// Divides by 10^`drop` and rounds.
fn divided(value: i128, drop: u32, rounding: Rounding) -> i128 {
    let magnitude = value.unsigned_abs();
    let (quotient, up) = match 10u128.checked_pow(drop) {
        Some(unit) => {
            let (quotient, rest) = (magnitude / unit, magnitude % unit);
            (quotient, goes_up(rest, unit, quotient % 2 == 1, value < 0, rounding))
        }
        // 10^`drop` exceeds 128 bits, so the value is less than half of it.
        None => (0, goes_up(u128::from(value != 0), 10, false, value < 0, rounding)),
    };
    let rounded = (quotient + u128::from(up)) as i128;
    if value < 0 { -rounded } else { rounded }
}

/// Rounds a decimal to `digits` digits after the decimal point. A negative `digits` rounds before
/// the decimal point.
fn round_decimal(value: i128, scale: u8, digits: i64, rounding: Rounding) -> Option<(i128, u8)> {
    let drop = i64::from(scale) - digits;
    if drop <= 0 {
        return Some((value, scale));
    }
    let rounded = divided(value, u32::try_from(drop).ok()?, rounding);
    if digits >= 0 || rounded == 0 {
        return Some((rounded, digits.max(0) as u8));
    }
    let zeros = u32::try_from(-digits).ok()?;
    Some((rounded.checked_mul(10i128.checked_pow(zeros)?)?, 0))
}

fn rounded_decimal(
    a: DecimalFn,
    from: &DataType,
    to: &DataType,
    digits: i64,
    rounding: Rounding,
) -> Compiled {
    let (scale, to) = (from.as_decimal().map_or(0, |(_, scale)| scale), to.clone());
    decimal_fn(move |cx| {
        let Some(value) = a(cx)? else { return Ok(None) };
        let rounded = round_decimal(value, scale, digits, rounding);
        match rounded.and_then(|(value, scale)| rescale(value, scale, &to).ok().flatten()) {
            Some(value) => Ok(Some(value)),
            None => failed(
                "NUMERIC_VALUE_OUT_OF_RANGE.WITHOUT_SUGGESTION",
                format!("a decimal rounded to {digits} digits does not fit {to}"),
                "",
            ),
        }
    })
}

fn whole(args: Vec<Compiled>, call: &Call, round: fn(f64) -> f64, rounding: Rounding) -> Compiled {
    let Some(a) = args.into_iter().next() else { unreachable!("resolution counted") };
    let ansi = call.semantics.ansi;
    match a {
        Compiled::Decimal(a) => {
            let digits = wanted(call.args.get(1)).unwrap_or(0);
            rounded_decimal(a, &call.args[0].data_type, &call.to, digits, rounding)
        }
        Compiled::Double(a) => long_fn(move |cx| {
            let Some(value) = a(cx)? else { return Ok(None) };
            let rounded = round(value);
            if ansi && rounded.abs() >= TWO_63 && rounded != -TWO_63 {
                return arithmetic_overflow(&format!("rounding {value} to BIGINT"));
            }
            Ok(Some(rounded as i64))
        }),
        other => other,
    }
}

fn round(args: Vec<Compiled>, call: &Call, rounding: Rounding) -> Compiled {
    let (exprs, to) = (&call.args, &call.to);
    let Some(value) = args.into_iter().next() else { unreachable!("resolution counted") };
    let Some(digits) = wanted(exprs.get(1)) else {
        return match value {
            Compiled::Decimal(_) => decimal_fn(|_| Ok(None)),
            Compiled::Double(_) => double_fn(|_| Ok(None)),
            _ => long_fn(|_| Ok(None)),
        };
    };
    match value {
        Compiled::Decimal(a) => rounded_decimal(a, &exprs[0].data_type, to, digits, rounding),
        Compiled::Double(a) => {
            let single = *to == DataType::Float;
            double_fn(move |cx| {
                let Some(x) = a(cx)? else { return Ok(None) };
                let rounded = round_double(x, digits, rounding, single);
                Ok(Some(rounded))
            })
        }
        Compiled::Long(a) if digits < 0 => {
            let ((low, high), to, ansi) = (to.integral_range(), to.clone(), call.semantics.ansi);
            long_fn(move |cx| {
                let Some(x) = a(cx)? else { return Ok(None) };
                match round_decimal(i128::from(x), 0, digits, rounding) {
                    Some((rounded, _))
                        if rounded >= i128::from(low) && rounded <= i128::from(high) =>
                    {
                        Ok(Some(rounded as i64))
                    }
                    Some((rounded, _)) if !ansi => Ok(Some(wrapped(rounded as i64, &to))),
                    _ => arithmetic_overflow(&format!("rounding {x}")),
                }
            })
        }
        other => other,
    }
}

/// Rounds a double by its printed decimal digits, as Spark does.
fn round_double(x: f64, digits: i64, rounding: Rounding, single: bool) -> f64 {
    if !x.is_finite() {
        return x;
    }
    let (value, exponent) = java_double::decimal(x);
    let drop = -i64::from(exponent) - digits;
    // Adding 0.0 turns -0.0 into 0.0.
    if drop <= 0 {
        return x + 0.0;
    }
    let rounded = divided(i128::from(value), u32::try_from(drop).unwrap_or(u32::MAX), rounding);
    // This cannot fail: 39 digits, a sign and an exponent fit the buffer.
    let Ok(text) = InlineText::format(format_args!("{rounded}e{}", -digits)) else { return x };
    let text = text.text();
    let sign = if x < 0.0 && rounded != 0 { -1.0 } else { 1.0 };
    let parsed = if single { text.parse::<f32>().map(f64::from) } else { text.parse::<f64>() };
    sign * parsed.unwrap_or(x.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_to_the_given_digits() {
        let half_up = |value, digits| round_decimal(value, 2, digits, Rounding::HalfUp).unwrap();
        assert_eq!(half_up(250, 0), (3, 0));
        assert_eq!(half_up(-250, 0), (-3, 0));
        assert_eq!(half_up(-249, 0), (-2, 0));
        assert_eq!(half_up(12_345, -2), (100, 0));
        assert_eq!(half_up(12_345, -60), (0, 0));
        assert_eq!(round_decimal(250, 2, 0, Rounding::HalfEven), Some((2, 0)));
        assert_eq!(round_decimal(-250, 2, 0, Rounding::HalfEven), Some((-2, 0)));
        assert_eq!(round_decimal(-201, 2, 0, Rounding::Up), Some((-2, 0)));
        assert_eq!(round_decimal(-201, 2, 0, Rounding::Down), Some((-3, 0)));
    }

    #[test]
    fn doubles_round_as_they_print() {
        let half_up = |x, digits| round_double(x, digits, Rounding::HalfUp, false);
        assert_eq!(half_up(2.675, 2), 2.68);
        assert_eq!(half_up(-2.5, 0), -3.0);
        assert_eq!(half_up(1234.0, -2), 1200.0);
        assert_eq!(half_up(1e300, 2), 1e300);
        assert_eq!(half_up(1.5e300, -400), 0.0);
        assert!(half_up(-0.4, 0).is_sign_positive());
        assert_eq!(round_double(2.5, 0, Rounding::HalfEven, false), 2.0);
        let single = round_double(f64::from(2.675f32), 2, Rounding::HalfUp, true);
        assert_eq!(single, f64::from(2.67f32));
    }
}
