//! Parses numbers from text as Spark's CAST does.
//!
//! Doubles may end with `d` or `f` and may be hexadecimal, as in Java. Decimals may use the digits
//! of other scripts. With ANSI mode off, integers may have a fraction, which is dropped.

use crate::table::datetime::trimmed;
use crate::table::expr::compile::{Eval, failed};
use crate::table::types::DataType;

use crate::table::expr::cast::{FIX, invalid, rescale};

/// Trims like Java's `String.trim`, which Spark uses for DOUBLE and DECIMAL.
fn java_trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

/// How digits after the decimal point of an integer are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fraction {
    /// The text is not a valid integer.
    Refused,
    /// The digits are dropped.
    Dropped,
}

/// Parses an integer of a type. `None` if the text is not an integer or is out of range.
pub fn integer(text: &str, to: &DataType, fraction: Fraction) -> Option<i64> {
    let trimmed = trimmed(text);
    let whole = match trimmed.split_once('.') {
        Some((whole, behind))
            if fraction == Fraction::Dropped && behind.bytes().all(|b| b.is_ascii_digit()) =>
        {
            if matches!(whole, "" | "+" | "-") {
                return Some(0);
            }
            whole
        }
        Some(_) => return None,
        None => trimmed,
    };
    let (low, high) = to.integral_range();
    whole.parse().ok().filter(|v| (low..=high).contains(v))
}

/// Parses a DOUBLE or a FLOAT. The value is rounded once, directly to the bits of its type.
pub fn double(text: &str, to: &DataType) -> Option<f64> {
    let trimmed = java_trim(text);
    if let Some(value) = special(trimmed) {
        return Some(value);
    }
    let digits = trimmed.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(trimmed);
    let signless = trimmed.trim_start_matches(['+', '-']);
    if signless.starts_with("0x") || signless.starts_with("0X") {
        return hexadecimal(trimmed, *to == DataType::Float);
    }
    // Rust also parses words such as "inf". The words that are valid here were handled before.
    if !digits.ends_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if *to == DataType::Float {
        digits.parse::<f32>().ok().map(f64::from)
    } else {
        digits.parse().ok()
    }
}

fn special(text: &str) -> Option<f64> {
    if matches!(text, "+NaN" | "-NaN") {
        return Some(f64::NAN);
    }
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    let word = text.bytes().find(|b| !matches!(b, b'+' | b'-'));
    match word.map(|b| b.to_ascii_lowercase()) {
        Some(b'n') if is("nan") => Some(f64::NAN),
        Some(b'i') if ["inf", "+inf", "infinity", "+infinity"].into_iter().any(is) => {
            Some(f64::INFINITY)
        }
        Some(b'i') if is("-inf") || is("-infinity") => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Parses a hexadecimal number with a binary exponent, such as `0x1.8p3`. A FLOAT if `single`.
fn hexadecimal(text: &str, single: bool) -> Option<f64> {
    let text = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, power) = rest.get(2..)?.split_once(['p', 'P'])?;
    let mut power = power.parse::<i32>().ok()?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mut value, mut sticky) = (0u64, false);
    for (i, digit) in whole.chars().chain(fraction.chars()).enumerate() {
        let digit = u64::from(digit.to_digit(16)?);
        let behind = i >= whole.len();
        if value >> 58 == 0 {
            value = value << 4 | digit;
            power = power.saturating_sub(if behind { 4 } else { 0 });
        } else {
            sticky |= digit != 0;
            power = power.saturating_add(if behind { 0 } else { 4 });
        }
    }
    // The lowest bit is set if a dropped bit was set (a sticky bit), so that rounding is correct.
    // Digits are dropped only if the value has more bits than a mantissa.
    let value = value | u64::from(sticky);
    let (bits, least) = if single { (24, -149) } else { (53, -1074) };
    let (mantissa, power) = rounded(value, power, bits, least);
    let magnitude = scaled(mantissa, power);
    let magnitude = if single { f64::from(magnitude as f32) } else { magnitude };
    Some(if negative { -magnitude } else { magnitude })
}

/// Rounds `value * 2^power` half to even, to a mantissa of at most `bits` bits whose unit is at
/// least `2^least`. So a subnormal number is rounded once, too.
fn rounded(value: u64, power: i32, bits: i32, least: i32) -> (u64, i32) {
    let length = (u64::BITS - value.leading_zeros()) as i32;
    let unit = power.saturating_add(length - bits).max(least);
    match unit.saturating_sub(power) {
        ..=0 => (value, power),
        dropped @ 1..=64 => {
            let (value, half) = (u128::from(value), 1u128 << (dropped - 1));
            let (kept, rest) = (value >> dropped, value & (2 * half - 1));
            let up = rest > half || rest == half && kept & 1 == 1;
            (kept as u64 + u64::from(up), unit)
        }
        _ => (0, unit),
    }
}

/// Computes `value * 2^power` in steps, so that only the last one can overflow or underflow.
fn scaled(value: u64, power: i32) -> f64 {
    let mut result = value as f64;
    let mut left = power.clamp(-2200, 2200);
    while left != 0 && result != 0.0 && result.is_finite() {
        let step = left.clamp(-1000, 1000);
        result *= 2f64.powi(step);
        left -= step;
    }
    result
}

/// The zeros of the decimal digits outside ASCII. As in Java, digits beyond U+FFFF do not count.
const ZEROS: [u32; 36] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6,
    0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50,
    0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
];

/// Replaces the decimal digits of other scripts, up to U+FFFF, by ASCII digits. `None` if the text
/// has any other non-ASCII character.
pub fn ascii_digits(text: &str) -> Option<String> {
    let ascii =
        |c: char| if c.is_ascii() { Some(c) } else { digit(c).map(|d| char::from(b'0' + d)) };
    text.chars().map(ascii).collect()
}

fn digit(c: char) -> Option<u8> {
    if c.is_ascii() {
        return c.to_digit(10).map(|digit| digit as u8);
    }
    let point = c as u32;
    ZEROS
        .iter()
        .find(|zero| (**zero..**zero + 10).contains(&point))
        .map(|zero| (point - zero) as u8)
}

/// A parsed decimal: its digits, of which the last `scale` are after the decimal point.
struct Written {
    negative: bool,
    digits: smallvec::SmallVec<[u8; 48]>,
    scale: i64,
}

impl Written {
    fn of(text: &str) -> Option<Self> {
        let text = java_trim(text);
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, rest) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (mut digits, mut behind, mut point) = (smallvec::SmallVec::new(), 0i64, false);
        for c in rest.chars() {
            if c == '.' && !point {
                point = true;
                continue;
            }
            let digit = digit(c)?;
            behind += i64::from(point);
            // Leading zeros are not significant.
            if digit != 0 || !digits.is_empty() {
                digits.push(digit);
            } else if rest.len() == 1 {
                break;
            }
        }
        let any = rest.chars().any(|c| c != '.');
        any.then_some(Self { negative, digits, scale: behind - i64::from(exponent) })
    }

    /// The unscaled value at a scale, rounded half up; `None` if it does not fit in 128 bits.
    fn at(&self, scale: u8) -> Option<i128> {
        let drop = self.scale - i64::from(scale);
        let kept = usize::try_from(self.digits.len() as i64 - drop.max(0)).unwrap_or(0);
        let mut value = 0i128;
        for digit in &self.digits[..kept] {
            value = value.checked_mul(10)?.checked_add(i128::from(*digit))?;
        }
        for _ in drop..0 {
            if value == 0 {
                break;
            }
            value = value.checked_mul(10)?;
        }
        // Half up: the first dropped digit decides. If the value is less than a tenth of a unit, it
        // is rounded to 0.
        let first = self.digits.len() as i64 >= drop && drop > 0;
        let up = first && self.digits.get(kept).is_some_and(|digit| *digit >= 5);
        let value = value + i128::from(up);
        Some(if self.negative { -value } else { value })
    }
}

/// Parses a decimal of at most 18 digits, with or without a sign and a point, that needs no
/// rounding and at most 18 more zeros. `None` for any other text, and for a value that does not fit
/// the type. This is a fast path for most decimals in files.
pub fn short_decimal(text: &str, to: &DataType) -> Option<i128> {
    let DataType::Decimal(precision, scale) = *to else { return None };
    let (negative, rest) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] | rest => (false, rest),
    };
    let (mut value, mut digits, mut behind, mut point) = (0u64, 0usize, 0usize, false);
    for byte in rest {
        match byte {
            b'0'..=b'9' => {
                value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
                digits += 1;
                behind += usize::from(point);
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    let missing = usize::from(scale).checked_sub(behind)?;
    // At most 18 digits were added up, so the value has not overflowed 64 bits.
    if digits == 0 || digits > 18 || missing > 18 {
        return None;
    }
    let unscaled = i128::from(value) * i128::from(10u64.pow(missing as u32));
    let fits = unscaled.unsigned_abs() < 10u128.pow(u32::from(precision));
    fits.then_some(if negative { -unscaled } else { unscaled })
}

/// Parses a decimal of any length and rounds it to the type's scale. Fails if the text is not a
/// number or the result does not fit the type.
pub fn decimal(text: &str, to: &DataType) -> Eval<i128> {
    match short_decimal(text, to) {
        Some(unscaled) => Ok(Some(unscaled)),
        None => any_decimal(text, to),
    }
}

fn any_decimal(text: &str, to: &DataType) -> Eval<i128> {
    let DataType::Decimal(_, scale) = *to else { return Ok(None) };
    let Some(written) = Written::of(text) else { return invalid(text, to) };
    if !written.digits.is_empty() && written.digits.len() as i64 - written.scale > 38 {
        return failed(
            "NUMERIC_OUT_OF_SUPPORTED_RANGE",
            format!("the value '{text}' has more than 38 digits in front of its point"),
            FIX,
        );
    }
    match written.at(scale) {
        Some(unscaled) => rescale(unscaled, scale, to),
        None => failed(
            "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
            format!("the value '{text}' does not fit {to}"),
            FIX,
        ),
    }
}

/// Parses a decimal literal, which may have an exponent. The digits determine its type. `None` if
/// the text is not a number; an error condition if it has more than 38 digits.
pub fn literal(text: &str) -> Option<Result<(i128, DataType), &'static str>> {
    const TOO_LONG: &str = "DECIMAL_PRECISION_EXCEEDS_MAX_PRECISION";
    let written = Written::of(text)?;
    let digits = (written.digits.len() as i64).max(1);
    // A negative scale becomes trailing zeros. The zeros of a fraction count towards the precision.
    let (precision, scale) = if written.scale < 0 {
        (digits - written.scale, 0)
    } else {
        (digits.max(written.scale), written.scale)
    };
    if precision > 38 {
        return Some(Err(TOO_LONG));
    }
    let (precision, scale) = (precision as u8, scale as u8);
    let value = written.at(scale).map(|value| (value, DataType::Decimal(precision, scale)));
    Some(value.ok_or(TOO_LONG))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The fast parser returns the result of the general parser, or `None`.
        #[test]
        fn the_fast_decimal_parser_agrees_with_the_general_one(
            text in "[-+]?[0-9]{0,20}[.]?[0-9]{0,12}[e. ]?", precision in 1u8..39, scale in 0u8..20,
        ) {
            let to = DataType::Decimal(precision.max(scale), scale);
            if let Some(short) = short_decimal(&text, &to) {
                prop_assert_eq!(any_decimal(&text, &to).ok().flatten(), Some(short));
            }
        }
    }

    #[test]
    fn short_decimals_use_the_fast_parser() {
        for text in ["0", "-1.5", "+12.25", "7.", ".5", "9999.99"] {
            assert!(short_decimal(text, &DataType::Decimal(6, 2)).is_some(), "{text}");
        }
    }

    #[test]
    fn special_words_are_parsed_as_doubles() {
        let read = |text: &str| double(text, &DataType::Double).map(f64::to_bits);
        for (text, value) in [
            ("nAn", Some(f64::NAN)),
            ("-NaN", Some(f64::NAN)),
            ("-nan", None),
            ("+INF", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("--inf", None),
            ("in", None),
            ("-", None),
        ] {
            assert_eq!(read(text), value.map(f64::to_bits), "{text}");
        }
    }

    #[test]
    fn decimals_round_half_up_and_must_fit() {
        let to = DataType::Decimal(6, 2);
        let read = |text: &str| decimal(text, &to).ok().flatten();
        assert_eq!(read("1.005"), Some(101));
        assert_eq!(read("-1.005"), Some(-101));
        assert_eq!(read("12e2"), Some(120_000));
        assert_eq!(read("1e-9"), Some(0));
        assert_eq!(read("5e-3"), Some(1));
        assert_eq!(read("5e-4"), Some(0));
        assert_eq!(read("0e400"), Some(0));
        assert_eq!(read("9999.99"), Some(999_999));
        assert_eq!(read("9999.995"), None, "ten thousand has seven digits");
        assert_eq!(read("٣.5"), Some(350));
        for bad in ["", ".", "1.2.3", "x", "1e", "--1", "+", "1d"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let condition = |text: &str| decimal(text, &to).unwrap_err().condition;
        assert_eq!(condition("1e38"), "NUMERIC_OUT_OF_SUPPORTED_RANGE");
        assert_eq!(condition("1e37"), "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION");
        assert_eq!(condition("one"), "CAST_INVALID_INPUT");
    }

    #[test]
    fn doubles_have_javas_grammar() {
        let read = |text: &str| double(text, &DataType::Double);
        for (text, value) in [
            ("1d", 1.0),
            ("1.5F ", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("0x1p3", 8.0),
            ("-0x1.8P-1", -0.75),
            ("1e400", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("+Infinity", f64::INFINITY),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for bad in ["", " ", ".", "e5", "1e", "-nan", "1_0", "0x1", "d", "infinit", "1dd"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let single = double("1.00000017881393432617187499", &DataType::Float);
        assert_eq!(single, Some(f64::from(1.000_000_1_f32)), "rounded once");
        let single = double("0x1.00000100000001p0", &DataType::Float);
        assert_eq!(single, Some(f64::from(1.000_000_1_f32)), "rounded once");
        for (text, value) in [
            ("0x1.8p-1074", 1e-323),
            ("0x1.7fffffffffffffp-1074", 5e-324),
            ("0x0.8p-1074", 0.0),
            ("0x0.80000000000000001p-1074", 5e-324),
            ("0x0.fffffffffffff8p-1022", f64::MIN_POSITIVE),
            ("0x1.fffffffffffff7p1023", f64::MAX),
            ("0x1.fffffffffffff8p1023", f64::INFINITY),
            ("0x1p-99999", 0.0),
            ("0x1p99999", f64::INFINITY),
            ("0x123456789abcdef01p0", 20_988_295_479_420_645_121.0),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        let single = |text: &str| double(text, &DataType::Float);
        assert_eq!(single("0x1p-150"), Some(0.0));
        assert_eq!(single("0x1.000001p-150"), Some(f64::from(f32::from_bits(1))));
        assert_eq!(single("0x1.ffffffp127"), Some(f64::INFINITY));
    }

    #[test]
    fn digits_after_the_point_are_dropped_or_refused() {
        let read = |text: &str| integer(text, &DataType::Int, Fraction::Dropped);
        for (text, value) in [("1.9", 1), ("-1.9", -1), (".", 0), ("-.5", 0), ("1.", 1)] {
            assert_eq!(read(text), Some(value), "{text}");
            assert_eq!(integer(text, &DataType::Int, Fraction::Refused), None, "{text}");
        }
        for bad in ["", "1e2", "1.x", "1.9.9", "2147483648.0", "- 5"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn written_decimals_have_the_type_of_their_digits() {
        let read = |text: &str| literal(text).unwrap();
        assert_eq!(read("1.0E-10"), Ok((10, DataType::Decimal(11, 11))));
        assert_eq!(read("1e3"), Ok((1000, DataType::Decimal(4, 0))));
        assert_eq!(read("0E5"), Ok((0, DataType::Decimal(6, 0))));
        assert_eq!(read("1.50e1"), Ok((150, DataType::Decimal(3, 1))));
        assert_eq!(read("00.50"), Ok((50, DataType::Decimal(2, 2))));
        assert_eq!(read("-0.0"), Ok((0, DataType::Decimal(1, 1))));
        assert!(read("1.20E-38").is_err());
        assert!(read("1E40").is_err());
        assert_eq!(literal("1.2.3"), None);
    }
}
