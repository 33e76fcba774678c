//! Powers, logarithms, trigonometry, bit operations, and the conversion of numbers between bases.

use super::registry::{
    Call, Function, Typed, any_nullable, cells, function, made, take, typed, typed_or_null,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cast::arithmetic_overflow;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, double_fn, failed};
use crate::table::expr::functions::strict_math;
use crate::table::types::DataType;

use DataType as T;
use bumpalo::collections::Vec as BumpVec;

const fn double(
    name: &'static str,
    help: &'static str,
    compile: super::registry::Compile,
) -> Function {
    function(name, help, (1, 1), |n, a| typed(n, a, &[T::Double], T::Double), compile)
}

/// A logarithm is NULL outside its domain, as in Spark.
const fn logarithm(
    name: &'static str,
    help: &'static str,
    compile: super::registry::Compile,
) -> Function {
    function(name, help, (1, 1), |n, a| typed_or_null(n, a, &[T::Double], T::Double), compile)
}

fn map(args: Vec<Compiled>, f: fn(f64) -> f64) -> Compiled {
    let [a] = take(args);
    let a = a.double();
    double_fn(move |cx| Ok(a(cx)?.map(f)))
}

fn above(args: Vec<Compiled>, limit: f64, f: fn(f64) -> f64) -> Compiled {
    let [a] = take(args);
    let a = a.double();
    double_fn(move |cx| Ok(a(cx)?.filter(|v| *v > limit || v.is_nan()).map(f)))
}

pub(super) static FUNCTIONS: &[Function] = &[
    double("exp", "exp(x): e to the power of x", |a, _, _| map(a, libm::exp))
        .usage("1.4.0", "exp(0)", "1.0"),
    double("expm1", "expm1(x): exp(x) - 1", |a, _, _| map(a, libm::expm1))
        .usage("1.4.0", "expm1(0)", "0.0"),
    logarithm("ln", "ln(x): the natural logarithm", |a, _, _| above(a, 0.0, strict_math::log))
        .usage("1.4.0", "ln(1)", "0.0"),
    logarithm("log2", "log2(x): the logarithm to base 2", |a, _, _| {
        above(a, 0.0, strict_math::log2)
    })
    .usage("1.4.0", "log2(8)", "3.0"),
    logarithm("log10", "log10(x): the logarithm to base 10", |a, _, _| {
        above(a, 0.0, strict_math::log10)
    })
    .usage("1.4.0", "log10(1000)", "3.0"),
    logarithm("log1p", "log1p(x): ln(1 + x)", |a, _, _| above(a, -1.0, libm::log1p))
        .usage("1.4.0", "log1p(0)", "0.0"),
    cells(
        "log",
        "log([base, ]x): the natural one without a base",
        (1, 2),
        |n, a| typed_or_null(n, a, &[T::Double], T::Double),
        |a, _, _| {
            let value = a[a.len() - 1].double();
            let base = if a.len() == 2 { a[0].double() } else { std::f64::consts::E };
            if value <= 0.0 || base <= 0.0 {
                return Ok(Cell::Null);
            }
            let log = strict_math::log(value);
            Ok(Cell::Double(if a.len() == 2 { log / strict_math::log(base) } else { log }))
        },
    )
    .usage("1.5.0", "log(2, 8)", "3.0"),
    cells(
        "pow",
        "pow(x, y): x to the power of y",
        (2, 2),
        |n, a| typed(n, a, &[T::Double], T::Double),
        |a, _, _| Ok(Cell::Double(power(a[0].double(), a[1].double()))),
    )
    .usage("1.4.0", "pow(2, 3)", "8.0"),
    double("cbrt", "cbrt(x): the cube root", |a, _, _| map(a, strict_math::cbrt))
        .usage("1.4.0", "cbrt(27)", "3.0"),
    double("sin", "sin(x): the sine of an angle in radians", |a, _, _| map(a, f64::sin))
        .usage("1.4.0", "sin(0)", "0.0"),
    double("cos", "cos(x): the cosine of an angle in radians", |a, _, _| map(a, f64::cos))
        .usage("1.4.0", "cos(0)", "1.0"),
    double("tan", "tan(x): the tangent of an angle in radians", |a, _, _| map(a, f64::tan))
        .usage("1.4.0", "tan(0)", "0.0"),
    double("cot", "cot(x): the cotangent of an angle in radians", |a, _, _| {
        map(a, |v| 1.0 / v.tan())
    })
    .usage("2.3.0", "cot(1)", "0.6420926159343306"),
    double("sec", "sec(x): the secant of an angle in radians", |a, _, _| map(a, |v| 1.0 / v.cos()))
        .usage("3.3.0", "sec(0)", "1.0"),
    double("csc", "csc(x): the cosecant of an angle in radians", |a, _, _| {
        map(a, |v| 1.0 / v.sin())
    })
    .usage("3.3.0", "csc(1)", "1.1883951057781212"),
    double("asin", "asin(x): the angle whose sine is x, in radians", |a, _, _| map(a, libm::asin))
        .usage("1.4.0", "asin(0)", "0.0"),
    double("acos", "acos(x): the angle whose cosine is x, in radians", |a, _, _| {
        map(a, libm::acos)
    })
    .usage("1.4.0", "acos(1)", "0.0"),
    double("atan", "atan(x): the angle whose tangent is x, in radians", |a, _, _| {
        map(a, libm::atan)
    })
    .usage("1.4.0", "atan(0)", "0.0"),
    double("sinh", "sinh(x): the hyperbolic sine", |a, _, _| map(a, strict_math::sinh))
        .usage("1.4.0", "sinh(0)", "0.0"),
    double("cosh", "cosh(x): the hyperbolic cosine", |a, _, _| map(a, strict_math::cosh))
        .usage("1.4.0", "cosh(0)", "1.0"),
    double("tanh", "tanh(x): the hyperbolic tangent", |a, _, _| map(a, strict_math::tanh))
        .usage("1.4.0", "tanh(0)", "0.0"),
    double("asinh", "asinh(x): the inverse hyperbolic sine", |a, _, _| map(a, libm::asinh))
        .usage("3.0.0", "asinh(0)", "0.0"),
    double("acosh", "acosh(x): the inverse hyperbolic cosine", |a, _, _| map(a, libm::acosh))
        .usage("3.0.0", "acosh(1)", "0.0"),
    double("atanh", "atanh(x): the inverse hyperbolic tangent", |a, _, _| {
        map(a, |x| 0.5 * (libm::log1p(x) - libm::log1p(-x)))
    })
    .usage("3.0.0", "atanh(0)", "0.0"),
    double("degrees", "degrees(x): an angle in radians as degrees", |a, _, _| {
        map(a, f64::to_degrees)
    })
    .usage("1.4.0", "degrees(pi())", "180.0"),
    double("radians", "radians(x): an angle in degrees as radians", |a, _, _| {
        map(a, f64::to_radians)
    })
    .usage("1.4.0", "radians(180)", "3.141592653589793"),
    double("rint", "rint(x): the nearest whole number, half to even", |a, _, _| {
        map(a, f64::round_ties_even)
    })
    .usage("1.4.0", "rint(2.5)", "2.0"),
    cells(
        "atan2",
        "atan2(y, x): the angle of the point (x, y) from the x axis, in radians",
        (2, 2),
        |n, a| typed(n, a, &[T::Double], T::Double),
        // Adding 0.0 drops the sign of a zero, as Spark does.
        |a, _, _| Ok(Cell::Double(libm::atan2(a[0].double() + 0.0, a[1].double() + 0.0))),
    )
    .usage("1.4.0", "atan2(0, 1)", "0.0"),
    cells(
        "hypot",
        "hypot(a, b): sqrt(a² + b²)",
        (2, 2),
        |n, a| typed(n, a, &[T::Double], T::Double),
        |a, _, _| Ok(Cell::Double(strict_math::hypot(a[0].double(), a[1].double()))),
    )
    .usage("1.4.0", "hypot(3, 4)", "5.0"),
    cells(
        "pi",
        "pi(): the number π",
        (0, 0),
        |n, a| typed(n, a, &[], T::Double),
        |_, _, _| Ok(Cell::Double(std::f64::consts::PI)),
    )
    .usage("1.5.0", "pi()", "3.141592653589793"),
    cells(
        "e",
        "e(): Euler's number",
        (0, 0),
        |n, a| typed(n, a, &[], T::Double),
        |_, _, _| Ok(Cell::Double(std::f64::consts::E)),
    )
    .usage("1.5.0", "e()", "2.718281828459045"),
    function(
        "nanvl",
        "nanvl(a, b): b if a is not a number",
        (2, 2),
        |n, a| {
            let float = |arg: &Resolved| matches!(arg.data_type, T::Float | T::Null);
            let both = a.iter().all(float) && a.iter().any(|arg| arg.data_type == T::Float);
            let to = if both { T::Float } else { T::Double };
            typed_or_null(n, a, std::slice::from_ref(&to), to.clone())
        },
        // The second argument is evaluated only if the first is NaN.
        |a, _, _| {
            let [a, b] = take(a);
            let (a, b) = (a.double(), b.double());
            double_fn(move |cx| match a(cx)? {
                Some(x) if x.is_nan() => b(cx),
                x => Ok(x),
            })
        },
    )
    .usage("1.5.0", "nanvl(double('NaN'), 1.5)", "1.5"),
    cells(
        "factorial",
        "factorial(n): n!; NULL outside of 0 to 20",
        (1, 1),
        |n, a| typed_or_null(n, a, &[T::Int], T::Long),
        |a, _, _| match a[0].long() {
            n @ 0..=20 => Ok(Cell::Long((1..=n).product())),
            _ => Ok(Cell::Null),
        },
    )
    .usage("1.5.0", "factorial(5)", "120"),
    cells("&", "a & b: the bits that are set in both", (2, 2), bits, |a, _, _| {
        Ok(Cell::Long(a[0].long() & a[1].long()))
    })
    .usage("1.4.0", "6 & 3", "2"),
    cells("|", "a | b: the bits that are set in either", (2, 2), bits, |a, _, _| {
        Ok(Cell::Long(a[0].long() | a[1].long()))
    })
    .usage("1.4.0", "6 | 3", "7"),
    cells("^", "a ^ b: the bits that are set in one of them", (2, 2), bits, |a, _, _| {
        Ok(Cell::Long(a[0].long() ^ a[1].long()))
    })
    .usage("1.4.0", "6 ^ 3", "5"),
    cells("~", "~ a: the bits that are not set", (1, 1), bits, |a, _, _| {
        Ok(Cell::Long(!a[0].long()))
    })
    .usage("1.4.0", "~ 0", "-1"),
    cells(
        "shiftleft",
        "shiftleft(a, n) or a << n: the bits moved up by n",
        (2, 2),
        shifts,
        |a, call, _| Ok(shifted(a, call, i64::wrapping_shl, i32::wrapping_shl)),
    )
    .usage("1.5.0", "shiftleft(1, 4)", "16"),
    cells(
        "shiftright",
        "shiftright(a, n) or a >> n: the bits moved down by n; keeps the sign",
        (2, 2),
        shifts,
        |a, call, _| Ok(shifted(a, call, i64::wrapping_shr, i32::wrapping_shr)),
    )
    .usage("1.5.0", "shiftright(-16, 2)", "-4"),
    cells(
        "shiftrightunsigned",
        "shiftrightunsigned(a, n) or a >>> n: the bits moved down by n, filled with zeros",
        (2, 2),
        shifts,
        |a, call, _| {
            let long = |a: i64, by| (a as u64).wrapping_shr(by) as i64;
            Ok(shifted(a, call, long, |a, by| (a as u32).wrapping_shr(by) as i32))
        },
    )
    .usage("1.5.0", "shiftrightunsigned(16, 2)", "4"),
    cells(
        "bit_count",
        "bit_count(a): how many bits are set",
        (1, 1),
        |n, a| {
            let to = if a[0].data_type == T::Boolean { T::Boolean } else { T::Long };
            typed(n, a, &[to], T::Int)
        },
        |a, _, _| {
            Ok(Cell::Long(match a[0] {
                Cell::Bool(bit) => i64::from(bit),
                other => i64::from(other.long().count_ones()),
            }))
        },
    )
    .usage("3.0.0", "bit_count(7)", "3"),
    cells(
        "bit_get",
        "bit_get(a, n): the bit n of a, from the lowest, which is 0",
        (2, 2),
        |n, a| {
            let integral = a[0].data_type.is_integral();
            let of = if integral { a[0].data_type.clone() } else { T::Long };
            typed(n, a, &[of, T::Int], T::Byte)
        },
        |a, call, _| match a[1].long() {
            n if (0..i64::from(bits_of(call.data_type(0)))).contains(&n) => {
                Ok(Cell::Long(a[0].long() >> n & 1))
            }
            n => failed(
                "INVALID_PARAMETER_VALUE.BIT_POSITION_RANGE",
                format!("there is no bit {n}"),
                "",
            ),
        },
    )
    .usage("3.2.0", "bit_get(6, 1)", "1"),
    cells(
        "bin",
        "bin(n): in base 2",
        (1, 1),
        |n, a| typed(n, a, &[T::Long], T::String),
        |a, _, arena| Ok(made(arena, &format!("{:b}", a[0].long()))),
    )
    .usage("1.5.0", "bin(6)", "110"),
    cells(
        "hex",
        "hex(n or s): in base 16",
        (1, 1),
        |n, a| {
            let to = match a[0].data_type {
                T::Binary => T::Binary,
                ref t if t.is_numeric() => T::Long,
                _ => T::String,
            };
            typed(n, a, &[to], T::String)
        },
        |a, _, arena| {
            Ok(match a[0] {
                Cell::Long(n) => made(arena, &format!("{n:X}")),
                other => {
                    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                    let bytes = other.bytes();
                    let mut text = BumpVec::with_capacity_in(2 * bytes.len(), arena);
                    for byte in bytes {
                        let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                        text.extend_from_slice_copy(&[DIGITS[high], DIGITS[low]]);
                    }
                    Cell::Bytes(text.into_bump_slice())
                }
            })
        },
    )
    .usage("1.5.0", "hex(255)", "FF"),
    cells(
        "conv",
        "conv(n, from, to): the digits of n in another base",
        (3, 3),
        |n, a| typed_or_null(n, a, &[T::String, T::Int, T::Int], T::String),
        |a, call, arena| {
            let (from, to) = (a[1].long(), a[2].long());
            Ok(match converted(a[0].text(), from, to) {
                Some(number) if number.overflows && call.semantics.ansi => {
                    return arithmetic_overflow("a number of more than 64 bits");
                }
                Some(number) => made(arena, &number.digits),
                None => Cell::Null,
            })
        },
    )
    .usage("1.5.0", "conv('ff', 16, 10)", "255"),
    cells(
        "width_bucket",
        "width_bucket(value, low, high, n): which of n equal parts between low and high \
         holds the value",
        (4, 4),
        buckets,
        |a, _, _| {
            let number = |cell: Cell<'_>| match cell {
                Cell::Long(interval) => interval as f64,
                cell => cell.double(),
            };
            let (value, low, high, count) = (number(a[0]), number(a[1]), number(a[2]), a[3].long());
            let valid = count > 0 && count < i64::MAX && low != high;
            if !valid || value.is_nan() || !low.is_finite() || !high.is_finite() {
                return Ok(Cell::Null);
            }
            let below = if low < high { value < low } else { value > low };
            let above = if low < high { value >= high } else { value <= high };
            Ok(Cell::Long(match (below, above) {
                (true, _) => 0,
                (_, true) => count + 1,
                _ => (count as f64 * (value - low) / (high - low)) as i64 + 1,
            }))
        },
    )
    .usage("3.1.0", "width_bucket(5.3, 0.2, 10.6, 5)", "3"),
];

fn bits(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let args = crate::table::expr::resolve::unify(&format!("`{name}`"), args)?;
    let data_type = args[0].data_type.clone();
    if !data_type.is_integral() {
        return Err(super::registry::unexpected(name, "integers", &args[0]));
    }
    let nullable = any_nullable(&args);
    Ok(Typed::new(args, data_type, nullable))
}

/// Resolves `width_bucket`, whose first three arguments are numbers or intervals of one kind.
fn buckets(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let kind = |arg: &Resolved| match arg.data_type {
        T::DayTimeInterval(..) => T::DayTimeInterval(0, 3),
        T::YearMonthInterval(..) => T::YearMonthInterval(0, 1),
        _ => T::Double,
    };
    let first = kind(&args[0]);
    if let Some(other) = args[..3].iter().find(|arg| kind(arg) != first) {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.DATA_DIFF_TYPES",
            format!(
                "`{name}` has `{}`, which is {}, and `{other}`, which is {}",
                args[0], args[0].data_type, other.data_type
            ),
            "Cast them to one type",
        ));
    }
    typed_or_null(name, args, &[first.clone(), first.clone(), first, T::Long], T::Long)
}

fn shifts(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let to = if args[0].data_type == T::Long { T::Long } else { T::Int };
    typed(name, args, &[to.clone(), T::Int], to)
}

/// The first argument, shifted by the second one: with 64 bits if the result is a BIGINT, otherwise
/// with 32.
fn shifted<'a>(
    args: &[Cell<'_>],
    call: &Call,
    long: fn(i64, u32) -> i64,
    int: fn(i32, u32) -> i32,
) -> Cell<'a> {
    let (bits, by) = (args[0].long(), args[1].long() as u32);
    Cell::Long(match call.to {
        T::Long => long(bits, by),
        _ => i64::from(int(bits as i32, by)),
    })
}

/// The width of an integer type in bits.
fn bits_of(data_type: &DataType) -> u32 {
    match data_type {
        T::Byte => 8,
        T::Short => 16,
        T::Int => 32,
        _ => 64,
    }
}

/// Java's `pow`. Unlike C's, it is NaN for 1 to the power NaN, and for ±1 to an infinite power.
fn power(base: f64, exponent: f64) -> f64 {
    let undefined = exponent.is_nan() || base.abs() == 1.0 && exponent.is_infinite();
    if undefined { f64::NAN } else { libm::pow(base, exponent) }
}

/// A number converted to another base.
#[derive(Debug, PartialEq, Eq)]
struct Converted {
    /// The digits, after a sign if the number is negative.
    digits: String,
    /// Whether the number exceeds 64 bits. In this case the largest 64-bit number is converted.
    overflows: bool,
}

/// Converts a number between bases. The result is signed if `to` is negative, otherwise unsigned.
/// `None` for an invalid base or an empty text.
fn converted(text: &str, from: i64, to: i64) -> Option<Converted> {
    let fits = |base: i64| (2..=36).contains(&base.abs());
    let trimmed = text.trim_matches(' ');
    if !fits(from) || from < 0 || !fits(to) || trimmed.is_empty() {
        return None;
    }
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed),
    };
    let base = from.unsigned_abs();
    let (mut value, mut overflows) = (0u64, false);
    for c in digits.chars() {
        let Some(digit) = c.to_digit(base as u32) else { break };
        match value.checked_mul(base).and_then(|v| v.checked_add(u64::from(digit))) {
            Some(more) => value = more,
            None => {
                (value, overflows) = (u64::MAX, true);
                break;
            }
        };
    }
    // On overflow the value stays the largest number, even if the text is negative.
    if negative && !overflows {
        let signed_too_large = to > 0 && (value as i64) < 0;
        value = if signed_too_large { u64::MAX } else { value.wrapping_neg() };
    }
    let mut sign = "";
    if to < 0 && (value as i64) < 0 {
        value = value.wrapping_neg();
        sign = "-";
    }
    let base = to.unsigned_abs();
    let mut out = Vec::new();
    loop {
        out.push(char::from_digit((value % base) as u32, base as u32)?.to_ascii_uppercase());
        value /= base;
        if value == 0 {
            break;
        }
    }
    Some(Converted { digits: sign.chars().chain(out.into_iter().rev()).collect(), overflows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_converted_between_bases() {
        let text = |text: &str, from, to| converted(text, from, to).map(|number| number.digits);
        assert_eq!(text("100", 2, 10).as_deref(), Some("4"));
        assert_eq!(text("-10", 16, -10).as_deref(), Some("-16"));
        assert_eq!(text("-1", 10, 16).as_deref(), Some("FFFFFFFFFFFFFFFF"));
        assert_eq!(text("x", 10, 16).as_deref(), Some("0"));
        assert_eq!(text("-9223372036854775809", 10, 16).as_deref(), Some("FFFFFFFFFFFFFFFF"));
        assert_eq!(text("1", 1, 16), None);
        let largest = Converted { digits: "F".repeat(16), overflows: true };
        assert_eq!(converted("18446744073709551616", 10, 16), Some(largest));
    }
}
