//! Java's and Scala's `hashCode` of the values that Spark stores in a row. Spark's `%h` shows it, and
//! the order of its hash tables depends on it.

use super::hash::{finish, mix, murmur_bytes};
use crate::table::expr::cell::Cell;
use crate::table::types::DataType;
use crate::table::value::decimal_text;

use DataType as T;

/// The hash of a value; `None` for NULL, BINARY and nested values, whose hash is that of an address
/// or of Spark's internal layout.
pub(in crate::table) fn java_hash(cell: Cell<'_>, data_type: &DataType) -> Option<u32> {
    Some(match (cell, data_type) {
        (Cell::Bool(v), _) => boolean(v),
        (Cell::Long(v), T::Byte | T::Short | T::Int | T::Date | T::YearMonthInterval(..)) => {
            v as u32
        }
        (Cell::Long(v), _) => long(v),
        (Cell::Double(v), T::Float) => float(v as f32),
        (Cell::Double(v), _) => double(v),
        (Cell::Decimal(v), t) => decimal(v, t.as_decimal().map_or(0, |(_, scale)| scale)),
        (Cell::Bytes(text), T::String) => bytes(text),
        _ => return None,
    })
}

pub(super) fn boolean(value: bool) -> u32 {
    if value { 1231 } else { 1237 }
}

pub(super) fn long(value: i64) -> u32 {
    let bits = value as u64;
    (bits ^ bits >> 32) as u32
}

/// All NaNs have one hash.
pub(super) fn float(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

/// All NaNs have one hash.
pub(super) fn double(value: f64) -> u32 {
    let bits = if value.is_nan() { 0x7FF8_0000_0000_0000 } else { value.to_bits() };
    long(bits as i64)
}

/// The hash of Spark's `UTF8String`.
pub(super) fn bytes(text: &[u8]) -> u32 {
    murmur_bytes(text, 42)
}

/// The hash of Scala's `BigDecimal`: that of an integer or a floating-point number if one has the
/// same value.
pub(super) fn decimal(unscaled: i128, scale: u8) -> u32 {
    let unit = 10i128.pow(u32::from(scale));
    if unscaled % unit == 0 {
        let whole = unscaled / unit;
        return match (i32::try_from(whole), i64::try_from(whole)) {
            (Ok(whole), _) => whole as u32,
            (_, Ok(whole)) => long(whole),
            _ => big_integer(whole),
        };
    }
    let text = decimal_text(unscaled, scale);
    let shortened = text.trim_end_matches('0');
    if let Ok(value) = text.parse::<f64>()
        && is_written_as(value, shortened)
    {
        let small = value as f32;
        return if f64::from(small) == value { float(small) } else { double(value) };
    }
    let zeros = (text.len() - shortened.len()) as u32;
    let hash = big_integer(unscaled / 10i128.pow(zeros));
    mix_last(hash, u32::from(scale) - zeros)
}

/// Whether the shortest text of a floating-point number is a decimal number without trailing zeros.
fn is_written_as(value: f64, decimal: &str) -> bool {
    value.to_string() == decimal
}

/// The hash of Java's `BigInteger`.
fn big_integer(value: i128) -> u32 {
    let magnitude = value.unsigned_abs();
    let words = (0..4).rev().map(|i| (magnitude >> (32 * i)) as u32);
    let hash = words.fold(0u32, |hash, word| hash.wrapping_mul(31).wrapping_add(word));
    if value < 0 { hash.wrapping_neg() } else { hash }
}

/// The last step of Scala's `MurmurHash3`.
fn mix_last(hash: u32, data: u32) -> u32 {
    hash ^ data.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

/// The position of a hash in Spark's `OpenHashSet`, before it is masked.
pub(in crate::table) fn spread(hash: u32) -> u32 {
    finish(mix(0, hash), 4)
}
