//! Formats numbers like Java's `Formatter`.

use super::{Flags, Outcome, Specifier};
use crate::table::text::java_double::decimal;

impl Specifier {
    /// The width that remains for sign and digits, without the closing parenthesis.
    fn room(&self, negative: bool) -> usize {
        let width = self.width.unwrap_or(0);
        width.saturating_sub(usize::from(self.flags.parentheses && negative))
    }
}

fn leading_sign(flags: Flags, negative: bool, out: &mut String) {
    match (negative, flags) {
        (true, Flags { parentheses: true, .. }) => out.push('('),
        (true, _) => out.push('-'),
        (false, Flags { plus: true, .. }) => out.push('+'),
        (false, Flags { space: true, .. }) => out.push(' '),
        _ => {}
    }
}

/// Appends digits with grouping commas. The flag `0` pads them with zeros after the sign up to
/// `width`.
fn magnitude(digits: &str, flags: Flags, width: usize, out: &mut String) {
    let begin = out.len();
    let point = digits.find('.').unwrap_or(digits.len());
    for (i, c) in digits.char_indices() {
        out.push(c);
        if flags.group && i + 1 < point && (point - i) % 3 == 1 {
            out.push(',');
        }
    }
    if flags.zero && out.len() < width {
        out.insert_str(begin, &"0".repeat(width - out.len()));
    }
}

/// Appends an integer of `bits` bits, for `%d`, `%o` and `%x`.
pub fn integer(spec: &Specifier, value: i64, bits: u32, out: &mut String) -> Outcome<()> {
    let flags = spec.flags;
    let mut text = String::new();
    if spec.conversion == 'd' {
        leading_sign(flags, value < 0, &mut text);
        magnitude(&value.unsigned_abs().to_string(), flags, spec.room(value < 0), &mut text);
        if value < 0 && flags.parentheses {
            text.push(')');
        }
    } else {
        spec.refuse(flags.parentheses, '(')?;
        spec.refuse(flags.space, ' ')?;
        spec.refuse(flags.plus, '+')?;
        let value = value as u64 & (u64::MAX >> (64 - bits));
        let (prefix, digits) = match (spec.conversion, flags.upper) {
            ('o', _) => ("0", format!("{value:o}")),
            (_, false) => ("0x", format!("{value:x}")),
            (_, true) => ("0X", format!("{value:X}")),
        };
        if flags.alternate {
            text.push_str(prefix);
        }
        if flags.zero {
            let zeros = spec.room(false).saturating_sub(text.len() + digits.len());
            text.push_str(&"0".repeat(zeros));
        }
        text.push_str(&digits);
    }
    spec.fill(&text, out);
    Ok(())
}

/// Appends a double, for `%e`, `%f`, `%g` and `%a`, padded to the width. NaN has no sign, and -0.0
/// is negative.
pub fn real(spec: &Specifier, value: f64, out: &mut String) {
    let flags = spec.flags;
    let mut text = String::new();
    if value.is_nan() {
        text.push_str(if flags.upper { "NAN" } else { "NaN" });
    } else {
        let negative = value.is_sign_negative();
        leading_sign(flags, negative, &mut text);
        if value.is_infinite() {
            text.push_str(if flags.upper { "INFINITY" } else { "Infinity" });
        } else {
            finite(spec, value.abs(), negative, &mut text);
        }
        if negative && flags.parentheses {
            text.push(')');
        }
    }
    spec.fill(&text, out);
}

fn finite(spec: &Specifier, value: f64, negative: bool, out: &mut String) {
    let flags = spec.flags;
    let wanted = spec.precision.unwrap_or(6);
    let (mut mantissa, exponent) = match spec.conversion {
        'a' => return hexadecimal(spec, value, negative, out),
        'e' => {
            let (mantissa, exponent) = Digits::of(value).scientific(wanted);
            (mantissa, Some(exponent))
        }
        'f' => (Digits::of(value).plain(wanted), None),
        _ => general(value, if wanted == 0 { 1 } else { wanted }),
    };
    if flags.alternate && !mantissa.contains('.') {
        mantissa.push('.');
    }
    let exponent = exponent.map(|e| {
        let sign = if e < 0 { '-' } else { '+' };
        format!("{}{sign}{:02}", if flags.upper { 'E' } else { 'e' }, e.unsigned_abs())
    });
    let behind = exponent.as_ref().map_or(0, String::len);
    magnitude(&mantissa, flags, spec.room(negative).saturating_sub(behind), out);
    out.push_str(exponent.as_deref().unwrap_or(""));
}

/// Formats for `%g`: plain notation from 10^-4 up to 10^precision, else scientific notation. The
/// exponent is returned only in scientific notation.
fn general(value: f64, precision: usize) -> (String, Option<i64>) {
    if value == 0.0 {
        return (Digits::of(0.0).plain(precision - 1), None);
    }
    let mut rounded = Digits::of(value);
    rounded.keep(precision as i64);
    // The power of ten of the first digit.
    let power = rounded.point - 1;
    if power < -4 || power >= precision as i64 {
        let (mantissa, exponent) = rounded.scientific(precision - 1);
        return (mantissa, Some(exponent));
    }
    (rounded.plain((precision as i64 - 1 - power) as usize), None)
}

/// Decimal digits with a decimal point. The point is before the digit with index `point`: 0.00123
/// has the digits 123 and the point -2.
#[derive(Clone, Debug)]
struct Digits {
    digits: Vec<u8>,
    point: i64,
}

impl Digits {
    /// The digits that Java prints for a double.
    fn of(value: f64) -> Self {
        let (digits, exponent) = decimal(value);
        let digits = digits.to_string().into_bytes();
        Self { point: digits.len() as i64 + i64::from(exponent), digits }
    }

    /// Rounds half up to `count` digits. With a count of 0 or less, the result is 0, or a single 1
    /// after a carry.
    fn keep(&mut self, count: i64) {
        let Ok(count) = usize::try_from(count) else {
            *self = Self { digits: vec![b'0'], point: 1 };
            return;
        };
        if self.digits.len() <= count {
            return;
        }
        let up = self.digits[count] >= b'5';
        self.digits.truncate(count);
        if up {
            for digit in self.digits.iter_mut().rev() {
                if *digit < b'9' {
                    *digit += 1;
                    return;
                }
                *digit = b'0';
            }
            self.digits.insert(0, b'1');
            self.digits.truncate(count.max(1));
            self.point += 1;
        } else if count == 0 {
            *self = Self { digits: vec![b'0'], point: 1 };
        }
    }

    fn digit(&self, at: i64) -> char {
        let digit = usize::try_from(at).ok().and_then(|at| self.digits.get(at));
        char::from(digit.copied().unwrap_or(b'0'))
    }

    /// Formats in plain notation with `behind` digits after the decimal point.
    fn plain(mut self, behind: usize) -> String {
        self.keep(self.point + behind as i64);
        let mut out: String = (0..self.point.max(0)).map(|at| self.digit(at)).collect();
        if out.is_empty() {
            out.push('0');
        }
        if behind > 0 {
            out.push('.');
            out.extend((self.point..self.point + behind as i64).map(|at| self.digit(at)));
        }
        out
    }

    /// Formats in scientific notation with `behind` digits after the decimal point. Returns the
    /// mantissa and the exponent.
    fn scientific(mut self, behind: usize) -> (String, i64) {
        self.keep(1 + behind as i64);
        let zero = self.digits.iter().all(|d| *d == b'0');
        let mut out = String::from(self.digit(0));
        if behind > 0 {
            out.push('.');
            out.extend((1..=behind as i64).map(|at| self.digit(at)));
        }
        (out, if zero { 0 } else { self.point - 1 })
    }
}

/// Formats for `%a`: like Java's `Double.toHexString`, rounded half to even to the precision.
fn hexadecimal(spec: &Specifier, value: f64, negative: bool, out: &mut String) {
    let flags = spec.flags;
    let precision = spec.precision.map_or(0, |p| p.max(1));
    let bits = value.to_bits();
    let (mut fraction, field) = (bits & ((1 << 52) - 1), (bits >> 52) as i64);
    let (mut lead, mut exponent) = if field == 0 { (0, -1022) } else { (1, field - 1023) };
    if value == 0.0 {
        exponent = 0;
    } else if (1..13).contains(&precision) {
        if lead == 0 {
            // A subnormal number is normalised to 1.x before it is rounded.
            let shift = fraction.leading_zeros() - 11;
            fraction = fraction << shift & ((1 << 52) - 1);
            (lead, exponent) = (1, -1022 - i64::from(shift));
        }
        let cut = 52 - 4 * precision as u32;
        let (kept, rest, half) = (fraction >> cut, fraction & ((1 << cut) - 1), 1 << (cut - 1));
        let odd = if cut == 52 { lead & 1 } else { kept & 1 };
        let up = rest > half || rest == half && odd == 1;
        let all = (lead << 52 | kept << cut) + if up { 1 << cut } else { 0 };
        if all >> 53 > 0 {
            exponent += 1;
            fraction = (all >> 1) & ((1 << 52) - 1);
        } else {
            fraction = all & ((1 << 52) - 1);
        }
    }
    let mut digits = format!("{fraction:013x}").trim_end_matches('0').to_string();
    if digits.is_empty() {
        digits.push('0');
    }
    let mut body = format!("{lead}.{digits:0<precision$}");
    if flags.upper {
        body.make_ascii_uppercase();
    }
    let tail = format!("{}{exponent}", if flags.upper { 'P' } else { 'p' });
    out.push_str(if flags.upper { "0X" } else { "0x" });
    if flags.zero {
        let sign = usize::from(negative || flags.plus || flags.space);
        let have = body.len() + tail.len() + 2 + sign;
        out.push_str(&"0".repeat(spec.width.unwrap_or(0).saturating_sub(have)));
    }
    out.push_str(&body);
    out.push_str(&tail);
}
