//! Casts by ANSI rules: a value that does not fit the target type is an error, or NULL for
//! `try_cast`.

use super::cell::{Cell, elements, field};
use super::compile::{
    Compiled, Cx, Eval, EvalError, bool_fn, bytes_fn, decimal_fn, double_fn, failed, from_cells,
    long_fn, text,
};
use super::decimal;
use crate::table::datetime::{
    DAY_US, SECOND_US, Tz, interval, parse_date, parse_timestamp, to_local, to_utc, trimmed,
};
use crate::table::row::{Array, Map, RowWriter};
use crate::table::text::java_double;
use crate::table::text::java_double::double_text;
use crate::table::text::number;
use crate::table::types::{DataType, Field, Physical};
use crate::table::value::{Short, Value, write_scientific};
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

pub(in crate::table) const FIX: &str = "Use try_cast to get NULL instead";

/// Whether Spark allows this explicit cast under ANSI rules. Casts that are not implemented give
/// false.
pub fn is_allowed(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (a, b) if a == b => true,
        (T::Null, _) => true,
        (_, T::String) => true,
        (T::String, T::Array(_) | T::Map(..) | T::Struct(_) | T::Null) => false,
        (T::String, _) => true,
        (T::Array(a), T::Array(b)) => is_allowed(a, b),
        (T::Map(ak, av), T::Map(bk, bv)) => is_allowed(ak, bk) && is_allowed(av, bv),
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| is_allowed(&a.data_type, &b.data_type))
        }
        (T::DayTimeInterval(..), T::DayTimeInterval(..)) => true,
        (T::YearMonthInterval(..), T::YearMonthInterval(..)) => true,
        (from, to) if from.is_interval() => to.is_integral(),
        (from, to) if to.is_interval() => from.is_integral(),
        (T::Boolean, to) => to.is_numeric(),
        (from, T::Boolean) => from.is_numeric(),
        (T::Date | T::TimestampNtz, T::Timestamp) | (T::Timestamp | T::TimestampNtz, T::Date) => {
            true
        }
        (T::Date | T::Timestamp, T::TimestampNtz) => true,
        (T::Timestamp, to) if to.is_numeric() => true,
        (from, T::Timestamp) if from.is_numeric() => true,
        (from, to) => from.is_numeric() && to.is_numeric(),
    }
}

/// Whether Spark allows this explicit cast, but only with ANSI mode off.
pub fn is_allowed_without_ansi(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (from, T::Binary) => from.is_integral(),
        (T::Boolean, T::Timestamp) | (T::Timestamp, T::Boolean) => true,
        (T::Date, to) => to.is_numeric() || *to == T::Boolean,
        _ => false,
    }
}

/// The big-endian bytes of an integer, in the width of its type.
fn whole_bytes<'a>(value: i64, from: &DataType, arena: &'a Bump) -> &'a [u8] {
    let width = match from {
        DataType::Byte => 1,
        DataType::Short => 2,
        DataType::Int => 4,
        _ => 8,
    };
    arena.alloc_slice_copy(&value.to_be_bytes()[8 - width..])
}

pub(in crate::table) fn invalid<T>(value: &str, to: &DataType) -> Eval<T> {
    failed(
        "CAST_INVALID_INPUT",
        format!("the value '{value}' of type STRING cannot be cast to {to}"),
        FIX,
    )
}

fn overflow<T>(value: impl std::fmt::Display, to: &DataType) -> Eval<T> {
    failed("CAST_OVERFLOW", format!("the value {value} does not fit {to}"), FIX)
}

/// What a failed cast returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// An error.
    Fail,
    /// NULL: `TRY_CAST`.
    Null,
    /// NULL, or for numbers the lower bits that fit (ANSI mode off).
    Wrap,
}

/// Turns errors into NULL unless the cast must fail.
fn soften<T>(result: Eval<T>, on_error: OnError) -> Eval<T> {
    if on_error == OnError::Fail { result } else { Ok(result.unwrap_or(None)) }
}

/// Truncates an integer to the bits of a type, as with ANSI mode off.
pub fn wrapped(value: i64, to: &DataType) -> i64 {
    match to {
        DataType::Byte => i64::from(value as i8),
        DataType::Short => i64::from(value as i16),
        DataType::Int => i64::from(value as i32),
        _ => value,
    }
}

/// Compiles a cast of `inner` from one type to another. The types must pass [`is_allowed`].
pub fn compile(
    inner: Compiled,
    from: &DataType,
    to: &DataType,
    on_error: OnError,
    zone: Tz,
) -> Compiled {
    if *from == DataType::Null {
        // The value is always NULL, but evaluating it may fail.
        return from_cells(to.physical(), move |cx| inner.cell(cx).map(|_| Cell::Null));
    }
    if *to == DataType::String {
        return to_string(inner, from.clone(), zone, on_error == OnError::Wrap);
    }
    if let (true, DataType::Binary) = (from.is_integral(), to) {
        let (from, value) = (from.clone(), inner.long());
        return bytes_fn(move |cx| Ok(value(cx)?.map(|v| whole_bytes(v, &from, cx.arena))));
    }
    if from.is_nested() && from != to {
        return nested(inner, from, to, on_error, zone);
    }
    if let (DataType::Timestamp, Physical::Double | Physical::Decimal) = (from, to.physical()) {
        // As a number, a timestamp is in seconds, with a fraction.
        let micros = DataType::Decimal(20, 6);
        let seconds = match inner {
            Compiled::Long(f) => decimal_fn(move |cx| Ok(f(cx)?.map(i128::from))),
            other => other,
        };
        return compile(seconds, &micros, to, on_error, zone);
    }
    if *to == DataType::Timestamp && matches!(from.physical(), Physical::Double | Physical::Decimal)
    {
        return to_timestamp(inner, from, on_error);
    }
    // Between intervals and numbers an overflow is an error in every mode.
    let number_of = |a: &DataType, b: &DataType| a.is_interval() && b.is_numeric();
    let on_error = match on_error {
        OnError::Wrap if number_of(from, to) || number_of(to, from) => OnError::Fail,
        other => other,
    };
    let (from, target) = (from.clone(), to.clone());
    match (inner, to.physical()) {
        (Compiled::Bytes(f), Physical::Bytes) => Compiled::Bytes(f),
        (Compiled::Bytes(f), Physical::Bool) => bool_fn(move |cx| {
            let Some(bytes) = f(cx)? else { return Ok(None) };
            soften(parse_bool(text(bytes)), on_error)
        }),
        (Compiled::Bytes(f), Physical::Long) => long_fn(move |cx| {
            let Some(bytes) = f(cx)? else { return Ok(None) };
            let fraction = on_error == OnError::Wrap;
            soften(parse_long(text(bytes), &target, zone, fraction), on_error)
        }),
        (Compiled::Bytes(f), Physical::Double) => double_fn(move |cx| {
            let Some(bytes) = f(cx)? else { return Ok(None) };
            match number::double(text(bytes), &target) {
                Some(value) => Ok(Some(value)),
                None => soften(invalid(text(bytes), &target), on_error),
            }
        }),
        (Compiled::Bytes(f), Physical::Decimal) => decimal_fn(move |cx| {
            let Some(bytes) = f(cx)? else { return Ok(None) };
            soften(number::decimal(text(bytes), &target), on_error)
        }),
        (Compiled::Bool(f), Physical::Bool) => Compiled::Bool(f),
        (Compiled::Bool(f), Physical::Long) => long_fn(move |cx| Ok(f(cx)?.map(i64::from))),
        (Compiled::Bool(f), Physical::Double) => {
            double_fn(move |cx| Ok(f(cx)?.map(|b| f64::from(u8::from(b)))))
        }
        (Compiled::Bool(f), Physical::Decimal) => decimal_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            soften(rescale(i128::from(value), 0, &target), on_error)
        }),
        (Compiled::Long(f), Physical::Long) => long_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            if on_error == OnError::Wrap && from.is_integral() && target.is_integral() {
                return Ok(Some(wrapped(value, &target)));
            }
            soften(long_to_long(value, &from, &target, zone), on_error)
        }),
        (Compiled::Long(f), Physical::Bool) => bool_fn(move |cx| Ok(f(cx)?.map(|v| v != 0))),
        (Compiled::Long(f), Physical::Double) => {
            let single = target == DataType::Float;
            double_fn(move |cx| {
                Ok(f(cx)?.map(|v| if single { f64::from(v as f32) } else { v as f64 }))
            })
        }
        (Compiled::Long(f), Physical::Decimal) => decimal_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            soften(rescale(i128::from(value), 0, &target), on_error)
        }),
        (Compiled::Double(f), Physical::Double) => {
            let single = target == DataType::Float;
            double_fn(move |cx| Ok(f(cx)?.map(|v| if single { f64::from(v as f32) } else { v })))
        }
        (Compiled::Double(f), Physical::Bool) => bool_fn(move |cx| Ok(f(cx)?.map(|v| v != 0.0))),
        (Compiled::Double(f), Physical::Long) => long_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            if on_error == OnError::Wrap && target.is_integral() {
                // As in the JVM, types narrower than a long are converted to an int first.
                return Ok(Some(match target {
                    DataType::Long => value as i64,
                    _ => wrapped(i64::from(value as i32), &target),
                }));
            }
            soften(double_to_long(value, &target), on_error)
        }),
        (Compiled::Double(f), Physical::Decimal) => decimal_fn(move |cx| {
            // NaN and infinity become NULL, in every mode.
            let Some(value) = f(cx)?.filter(|value| value.is_finite()) else { return Ok(None) };
            soften(decimal_of_double(value, &target), on_error)
        }),
        (Compiled::Decimal(f), physical) => from_decimal(f, &from, target, physical, on_error),
        (Compiled::Double(_) | Compiled::Long(_) | Compiled::Bool(_), Physical::Bytes) => {
            unreachable!("the analyser refuses this cast")
        }
    }
}

/// The smallest double above the range of BIGINT.
pub(super) const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// Rounds a decimal to 34 significant digits, half to even, as Spark's multiplication does.
fn of_34_digits(value: i128) -> i128 {
    const MOST: u128 = 10u128.pow(34);
    let mut unit = 1;
    while value.unsigned_abs() / unit >= MOST {
        unit *= 10;
    }
    let (kept, cut) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
    let up = cut * 2 > unit || (cut * 2 == unit && kept % 2 == 1);
    (kept + u128::from(up)) as i128 * unit as i128 * value.signum()
}

/// Converts seconds to microseconds; the rest of the fraction is cut off.
fn to_timestamp(inner: Compiled, from: &DataType, on_error: OnError) -> Compiled {
    let scale = from.as_decimal().map_or(0, |(_, scale)| scale);
    match inner {
        Compiled::Decimal(f) => long_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            let value = of_34_digits(value);
            // Values beyond the range of BIGINT are truncated to their lower 64 bits in every mode,
            // as in Spark.
            let micros = match scale {
                0..=6 => value.wrapping_mul(10i128.pow(u32::from(6 - scale))),
                _ => value / 10i128.pow(u32::from(scale - 6)),
            };
            Ok(Some(micros as i64))
        }),
        other => {
            let f = other.double();
            long_fn(move |cx| {
                let Some(value) = f(cx)? else { return Ok(None) };
                let micros = value * 1e6;
                if !value.is_finite() {
                    return soften(invalid(&double_text(value), &DataType::Timestamp), on_error);
                }
                // Without ANSI mode, values out of range are clamped to the limits.
                if on_error != OnError::Wrap && micros.abs() >= TWO_63 {
                    return soften(overflow(value, &DataType::Timestamp), on_error);
                }
                Ok(Some(micros as i64))
            })
        }
    }
}

/// Converts the decimal that a finite double prints as to a DECIMAL type, rounded.
fn decimal_of_double(value: f64, to: &DataType) -> Eval<i128> {
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

/// The double, or with `single` the float, nearest to a decimal.
fn double_of_decimal(value: i128, scale: u8, single: bool) -> f64 {
    let exact = |bits: u32, powers: u8| value.unsigned_abs() >> bits == 0 && scale <= powers;
    // Both operands are exact, so the quotient is rounded only once.
    if single && exact(24, 10) {
        return f64::from(value as f32 / 10f32.powi(i32::from(scale)));
    }
    if !single && exact(53, 22) {
        return value as f64 / 10f64.powi(i32::from(scale));
    }
    // Cannot fail: 39 digits, a sign and an exponent fit, and the text is a number.
    let Ok(text) = Short::of(format_args!("{value}e-{scale}")) else { return f64::NAN };
    if single {
        text.text().parse::<f32>().map_or(f64::NAN, f64::from)
    } else {
        text.text().parse().unwrap_or(f64::NAN)
    }
}

fn from_decimal(
    f: super::compile::DecimalFn,
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
            let single = to == DataType::Float;
            double_fn(move |cx| Ok(f(cx)?.map(|v| double_of_decimal(v, scale, single))))
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

/// Compiles a cast to STRING. `exponents` says whether small decimals are written with an exponent,
/// as without ANSI mode.
fn to_string(inner: Compiled, from: DataType, zone: Tz, exponents: bool) -> Compiled {
    fn put<'a>(arena: &'a Bump, value: Value, from: &DataType, zone: Tz) -> Eval<&'a [u8]> {
        if value == Value::Null {
            return Ok(None);
        }
        let mut out = bumpalo::collections::String::new_in(arena);
        // Writing to memory does not fail.
        let _ = value.write_text(from, zone, "null", &mut out);
        Ok(Some(out.into_bump_str().as_bytes()))
    }
    match inner {
        Compiled::Bytes(f) if matches!(from, DataType::String | DataType::Binary) => {
            Compiled::Bytes(f)
        }
        Compiled::Bytes(f) => bytes_fn(move |cx| match f(cx)? {
            Some(bytes) => put(cx.arena, Value::from_bytes(bytes, &from), &from, zone),
            None => Ok(None),
        }),
        Compiled::Long(f) if from.is_integral() => bytes_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            Ok(Some(digits(value, cx.arena)))
        }),
        Compiled::Bool(f) => bytes_fn(move |cx| {
            Ok(f(cx)?.map(|v| -> &[u8] {
                if v { b"true" } else { b"false" }
            }))
        }),
        Compiled::Long(f) => {
            bytes_fn(move |cx| put(cx.arena, f(cx)?.map_or(Value::Null, Value::Long), &from, zone))
        }
        Compiled::Double(f) => bytes_fn(move |cx| {
            put(cx.arena, f(cx)?.map_or(Value::Null, Value::Double), &from, zone)
        }),
        Compiled::Decimal(f) if exponents => bytes_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            let scale = from.as_decimal().map_or(0, |(_, scale)| scale);
            let mut out = bumpalo::collections::String::new_in(cx.arena);
            // Writing to memory does not fail.
            let _ = write_scientific(value, scale, &mut out);
            Ok(Some(out.into_bump_str().as_bytes()))
        }),
        Compiled::Decimal(f) => bytes_fn(move |cx| {
            put(cx.arena, f(cx)?.map_or(Value::Null, Value::Decimal), &from, zone)
        }),
    }
}

/// Compiles a cast of an array, map or struct, element by element.
fn nested(
    inner: Compiled,
    from: &DataType,
    to: &DataType,
    on_error: OnError,
    zone: Tz,
) -> Compiled {
    let cast = NestedCast::new(from, to, on_error, zone);
    let inner = inner.bytes();
    bytes_fn(move |cx| {
        let Some(bytes) = inner(cx)? else { return Ok(None) };
        match cast.cell(Cell::Bytes(bytes), cx)? {
            Cell::Bytes(bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    })
}

/// A cast of a nested value's part, which is passed to [`Compiled`] as the only column of a row.
enum NestedCast {
    Same,
    Scalar(Compiled),
    Array(Box<NestedCast>, DataType),
    Map(Box<NestedCast>, Box<NestedCast>, DataType, DataType),
    Struct(Vec<(NestedCast, DataType)>),
}

impl NestedCast {
    fn new(from: &DataType, to: &DataType, on_error: OnError, zone: Tz) -> Self {
        let below = |from: &DataType, to: &DataType| Self::new(from, to, on_error, zone);
        match (from, to) {
            (from, to) if from == to => Self::Same,
            (DataType::Array(a), DataType::Array(b)) => {
                Self::Array(Box::new(below(a, b)), (**a).clone())
            }
            (DataType::Map(ak, av), DataType::Map(bk, bv)) => Self::Map(
                Box::new(below(ak, bk)),
                Box::new(below(av, bv)),
                (**ak).clone(),
                (**av).clone(),
            ),
            (DataType::Struct(a), DataType::Struct(b)) => {
                let fields = a.iter().zip(b);
                let one = |(a, b): (&Field, &Field)| {
                    (below(&a.data_type, &b.data_type), a.data_type.clone())
                };
                Self::Struct(fields.map(one).collect())
            }
            (from, to) => {
                let value = from_cells(from.physical(), |cx| {
                    Ok(cx.variables.last().copied().unwrap_or(Cell::Null))
                });
                Self::Scalar(compile(value, from, to, on_error, zone))
            }
        }
    }

    fn cell<'a>(&self, value: Cell<'a>, cx: Cx<'a>) -> Result<Cell<'a>, Box<EvalError>> {
        if value.is_null() {
            return Ok(Cell::Null);
        }
        let array = |cast: &Self, array: Array<'a>, element: &DataType| {
            let mut out = BumpVec::new_in(cx.arena);
            let mut writer = RowWriter::array(&mut out, array.len);
            for (i, value) in elements(array, element).enumerate() {
                cast.cell(value, cx)?.put(&mut writer, i);
            }
            Ok::<_, Box<EvalError>>(out.into_bump_slice() as &'a [u8])
        };
        Ok(match self {
            Self::Same => value,
            Self::Scalar(cast) => {
                let variables = cx.arena.alloc_slice_copy(&[value]);
                cast.cell(Cx { variables, ..cx })?
            }
            Self::Array(cast, element) => Cell::Bytes(array(cast, value.array(), element)?),
            Self::Map(key, of_value, key_type, value_type) => {
                let Some(map) = value.map() else { return Ok(Cell::Null) };
                let keys = array(key, map.keys, key_type)?;
                let values = array(of_value, map.values, value_type)?;
                let mut out = BumpVec::new_in(cx.arena);
                Map::write(keys, values, &mut out);
                Cell::Bytes(out.into_bump_slice())
            }
            Self::Struct(fields) => {
                let mut out = BumpVec::new_in(cx.arena);
                let mut writer = RowWriter::new(&mut out, fields.len());
                for (i, (cast, data_type)) in fields.iter().enumerate() {
                    let value = field(value.bytes(), i, fields.len(), data_type);
                    cast.cell(value, cx)?.put(&mut writer, i);
                }
                Cell::Bytes(out.into_bump_slice())
            }
        })
    }
}

fn digits(value: i64, arena: &Bump) -> &[u8] {
    let (mut buffer, mut at) = ([0u8; 20], 20);
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    arena.alloc_slice_copy(&buffer[at..])
}

/// Converts an unscaled decimal to another scale, rounded half up. Fails if it does not fit the
/// type.
pub fn rescale(value: i128, scale: u8, to: &DataType) -> Eval<i128> {
    let DataType::Decimal(precision, to_scale) = *to else { return Ok(Some(value)) };
    let scaled = if to_scale >= scale {
        value.checked_mul(10i128.pow(u32::from(to_scale - scale)))
    } else {
        let unit = 10i128.pow(u32::from(scale - to_scale));
        let (whole, rest) = (value / unit, value % unit);
        Some(if rest.abs() * 2 >= unit { whole + value.signum() } else { whole })
    };
    match scaled {
        Some(scaled) if scaled.unsigned_abs() < 10u128.pow(u32::from(precision)) => {
            Ok(Some(scaled))
        }
        _ => failed(
            "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
            format!("{} does not fit {to}", crate::table::value::decimal_text(value, scale)),
            FIX,
        ),
    }
}

fn long_to_long(value: i64, from: &DataType, to: &DataType, zone: Tz) -> Eval<i64> {
    use DataType as T;
    Ok(Some(match (from, to) {
        (T::Date, T::Timestamp | T::TimestampNtz) => match value.checked_mul(DAY_US) {
            Some(micros) if *to == T::Timestamp => to_utc(micros, zone),
            Some(micros) => micros,
            None => {
                return failed(
                    "DATETIME_OVERFLOW",
                    format!("the date is beyond what {to} holds"),
                    "",
                );
            }
        },
        (T::Timestamp, T::Date) => to_local(value, zone).div_euclid(DAY_US),
        (T::TimestampNtz, T::Date) => value.div_euclid(DAY_US),
        (T::Timestamp, T::TimestampNtz) => to_local(value, zone),
        (T::TimestampNtz, T::Timestamp) => to_utc(value, zone),
        (T::Timestamp, to) if to.is_integral() => {
            return long_to_long(value.div_euclid(SECOND_US), &T::Long, to, zone);
        }
        (T::DayTimeInterval(..), T::DayTimeInterval(_, unit)) => {
            let unit = interval::unit_us(*unit);
            value / unit * unit
        }
        (T::YearMonthInterval(..), T::YearMonthInterval(_, 0)) => value / 12 * 12,
        (T::YearMonthInterval(..), T::YearMonthInterval(..)) => value,
        (T::DayTimeInterval(_, unit), to) if to.is_integral() => {
            return long_to_long(value / interval::unit_us(*unit), &T::Long, to, zone);
        }
        (T::YearMonthInterval(_, unit), to) if to.is_integral() => {
            return long_to_long(if *unit == 0 { value / 12 } else { value }, &T::Long, to, zone);
        }
        (_, T::DayTimeInterval(_, unit)) => match value.checked_mul(interval::unit_us(*unit)) {
            Some(micros) => micros,
            None => return overflow(value, to),
        },
        (_, T::YearMonthInterval(_, unit)) => {
            // Year-month intervals have 32 bits.
            match value.checked_mul(if *unit == 0 { 12 } else { 1 }).map(i32::try_from) {
                Some(Ok(months)) => i64::from(months),
                _ => return overflow(value, to),
            }
        }
        // Seconds beyond the range of TIMESTAMP are clamped to its limits.
        (from, T::Timestamp) if from.is_integral() => value.saturating_mul(SECOND_US),
        _ => {
            let (low, high) = to.integral_range();
            if value < low || value > high {
                return overflow(value, to);
            }
            value
        }
    }))
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

fn parse_bool(value: &str) -> Eval<bool> {
    match trimmed(value).to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "1" => Ok(Some(true)),
        "f" | "false" | "n" | "no" | "0" => Ok(Some(false)),
        _ => invalid(value, &DataType::Boolean),
    }
}

/// Parses a number, date or timestamp. With `fraction`, a whole number may have a fraction, which
/// is dropped.
fn parse_long(value: &str, to: &DataType, zone: Tz, fraction: bool) -> Eval<i64> {
    let parsed = match to {
        DataType::Date => parse_date(value),
        DataType::Timestamp => parse_timestamp(value, Some(zone)),
        DataType::TimestampNtz => parse_timestamp(value, None),
        to if to.is_interval() => interval::parse_shown(value, to),
        _ => number::integer(value, to, fraction),
    };
    parsed.map_or_else(|| invalid(value, to), |v| Ok(Some(v)))
}

/// The error of an arithmetic overflow; `what` names the result.
pub fn arithmetic_overflow<T>(what: &str) -> Result<T, Box<EvalError>> {
    failed("ARITHMETIC_OVERFLOW", format!("{what} overflows"), "Cast to a wider type")
}
