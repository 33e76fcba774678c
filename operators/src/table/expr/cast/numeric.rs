//! Casts from booleans and numbers to booleans and numbers.

use super::ansi::{FIX, OnError, overflow, soften, wrapped};
use super::time::long_to_long;
use crate::table::datetime::Tz;
use crate::table::expr::compile::{BoolFn, DecimalFn, DoubleFn, LongFn};
use crate::table::expr::compile::{
    Compiled, Eval, bool_fn, decimal_fn, double_fn, failed, long_fn,
};
use crate::table::expr::decimal;
use crate::table::text::java_double;
use crate::table::text::java_double::double_text;
use crate::table::types::{DataType, Physical};
use crate::table::value::InlineText;
use crate::table::value::decimal_text;
use bumpalo::Bump;

/// The big-endian bytes of an integer, as many as its type has.
pub(super) fn whole_bytes<'a>(value: i64, from: &DataType, arena: &'a Bump) -> &'a [u8] {
    let width = match from {
        DataType::Byte => 1,
        DataType::Short => 2,
        DataType::Int => 4,
        _ => 8,
    };
    arena.alloc_slice_copy(&value.to_be_bytes()[8 - width..])
}

/// 2^63: the smallest double above the range of BIGINT.
pub(in crate::table::expr) const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// The width of a floating-point type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FloatWidth {
    F32,
    F64,
}

impl FloatWidth {
    /// `F32` for FLOAT, `F64` for any other type.
    pub fn of(data_type: &DataType) -> Self {
        if *data_type == DataType::Float { Self::F32 } else { Self::F64 }
    }
}

/// Compiles a cast from BOOLEAN.
pub(super) fn from_bool(f: BoolFn, to: DataType, on_error: OnError) -> Compiled {
    match to.physical() {
        Physical::Bool => Compiled::Bool(f),
        Physical::Long => long_fn(move |cx| Ok(f(cx)?.map(i64::from))),
        Physical::Double => double_fn(move |cx| Ok(f(cx)?.map(|b| f64::from(u8::from(b))))),
        Physical::Decimal => decimal_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            soften(rescale(i128::from(value), 0, &to), on_error)
        }),
        Physical::Bytes => unreachable!("the analyser refuses this cast"),
    }
}

/// Compiles a cast from an integer, a date, a timestamp or an interval.
pub(super) fn from_long(
    f: LongFn,
    from: DataType,
    to: DataType,
    on_error: OnError,
    zone: Tz,
) -> Compiled {
    match to.physical() {
        Physical::Bool => bool_fn(move |cx| Ok(f(cx)?.map(|v| v != 0))),
        Physical::Long => long_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            if on_error == OnError::Wrap && from.is_integral() && to.is_integral() {
                return Ok(Some(wrapped(value, &to)));
            }
            soften(long_to_long(value, &from, &to, zone), on_error)
        }),
        Physical::Double => {
            let single = to == DataType::Float;
            double_fn(move |cx| {
                Ok(f(cx)?.map(|v| if single { f64::from(v as f32) } else { v as f64 }))
            })
        }
        Physical::Decimal => decimal_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            soften(rescale(i128::from(value), 0, &to), on_error)
        }),
        Physical::Bytes => unreachable!("the analyser refuses this cast"),
    }
}

/// Compiles a cast from FLOAT or DOUBLE.
pub(super) fn from_double(f: DoubleFn, to: DataType, on_error: OnError) -> Compiled {
    match to.physical() {
        Physical::Bool => bool_fn(move |cx| Ok(f(cx)?.map(|v| v != 0.0))),
        Physical::Long => long_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            if on_error == OnError::Wrap && to.is_integral() {
                // A type narrower than BIGINT is reached by way of INT, as on the JVM.
                return Ok(Some(match to {
                    DataType::Long => value as i64,
                    _ => wrapped(i64::from(value as i32), &to),
                }));
            }
            soften(double_to_long(value, &to), on_error)
        }),
        Physical::Double => {
            let single = to == DataType::Float;
            double_fn(move |cx| Ok(f(cx)?.map(|v| if single { f64::from(v as f32) } else { v })))
        }
        Physical::Decimal => decimal_fn(move |cx| {
            // NaN and infinity become NULL in every mode.
            let Some(value) = f(cx)?.filter(|value| value.is_finite()) else { return Ok(None) };
            soften(decimal_of_double(value, &to), on_error)
        }),
        Physical::Bytes => unreachable!("the analyser refuses this cast"),
    }
}

/// Converts an unscaled decimal to the scale of the type `to`, rounded half up. Fails if the result
/// does not fit `to`.
pub fn rescale(value: i128, scale: u8, to: &DataType) -> Eval<i128> {
    let DataType::Decimal(precision, to_scale) = *to else { return Ok(Some(value)) };
    let scaled = if to_scale >= scale {
        value.checked_mul(10i128.pow(u32::from(to_scale - scale)))
    } else {
        let unit = 10i128.pow(u32::from(scale - to_scale));
        let (whole, rest) = (value / unit, value % unit);
        // Not `rest * 2 >= unit`: twice a rest below 10^38 may overflow.
        let up = rest.abs() >= unit - rest.abs();
        Some(if up { whole + value.signum() } else { whole })
    };
    match scaled {
        Some(scaled) if scaled.unsigned_abs() < 10u128.pow(u32::from(precision)) => {
            Ok(Some(scaled))
        }
        _ => failed(
            "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
            format!("{} does not fit {to}", decimal_text(value, scale)),
            FIX,
        ),
    }
}

fn double_to_long(value: f64, to: &DataType) -> Eval<i64> {
    let (low, high) = to.integral_range();
    let whole = value.trunc();
    // `i64::MAX as f64` rounds up to 2^63, which is not a BIGINT, so the test is `>=`.
    if value.is_nan() || whole < low as f64 || whole >= high as f64 + 1.0 {
        return overflow(value, to);
    }
    Ok(Some(whole as i64))
}

/// Converts a finite double to a DECIMAL type, rounded. The exact value of the double does not
/// matter, only the shortest decimal text that denotes it.
pub(in crate::table) fn decimal_of_double(value: f64, to: &DataType) -> Eval<i128> {
    let (digits, exponent) = java_double::decimal(value);
    let digits = decimal::Magnitude::from(u128::from(digits));
    match decimal::fit(digits, value < 0.0, -exponent, to) {
        Some(unscaled) => Ok(Some(unscaled)),
        None => failed(
            "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
            format!("{} does not fit {to}", double_text(value)),
            FIX,
        ),
    }
}

/// The FLOAT or DOUBLE nearest to a decimal, according to `width`.
fn double_of_decimal(value: i128, scale: u8, width: FloatWidth) -> f64 {
    let exact = |bits: u32, powers: u8| value.unsigned_abs() >> bits == 0 && scale <= powers;
    // Both operands are exact, so the quotient is rounded only once.
    if width == FloatWidth::F32 && exact(24, 10) {
        return f64::from(value as f32 / 10f32.powi(i32::from(scale)));
    }
    if width == FloatWidth::F64 && exact(53, 22) {
        return value as f64 / 10f64.powi(i32::from(scale));
    }
    // This cannot fail: 39 digits, a sign and an exponent fit the buffer, and the text is a number.
    let Ok(text) = InlineText::format(format_args!("{value}e-{scale}")) else { return f64::NAN };
    if width == FloatWidth::F32 {
        text.text().parse::<f32>().map_or(f64::NAN, f64::from)
    } else {
        text.text().parse().unwrap_or(f64::NAN)
    }
}

pub(super) fn from_decimal(
    f: DecimalFn,
    from: &DataType,
    to: DataType,
    physical: Physical,
    on_error: OnError,
) -> Compiled {
    let scale = match from {
        DataType::Decimal(_, scale) => *scale,
        _ => 0,
    };
    let unit = 10i128.pow(u32::from(scale));
    match physical {
        Physical::Decimal => decimal_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            soften(rescale(value, scale, &to), on_error)
        }),
        Physical::Double => {
            let width = FloatWidth::of(&to);
            double_fn(move |cx| Ok(f(cx)?.map(|v| double_of_decimal(v, scale, width))))
        }
        Physical::Long => long_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            let (low, high) = to.integral_range();
            let whole = value / unit;
            if on_error == OnError::Wrap && to.is_integral() {
                return Ok(Some(wrapped(whole as i64, &to)));
            }
            if whole < i128::from(low) || whole > i128::from(high) {
                return soften(overflow(whole, &to), on_error);
            }
            Ok(Some(whole as i64))
        }),
        _ => bool_fn(move |cx| Ok(f(cx)?.map(|v| v != 0))),
    }
}
