//! Formats DOUBLE and FLOAT exactly as Java 17 does, and so as Spark does.
//!
//! Up to version 18, Java generates digits from the left until they distinguish the number from its
//! neighbours. Its tests for stopping are slightly wrong, so some numbers get one digit more than
//! necessary: 2^63 / 2 prints as `4.6116860184273879E18`. These texts occur in files and keys, so
//! this module reproduces them exactly. It uses Java's algorithm (Steele and White) with Java's
//! tests, in 32-bit, 64-bit or big integers, depending on the scale of the number.
//!
//! For most numbers Java prints the shortest digits, which a faster algorithm computes: see
//! `shortest`.
//!
//! Generating digits allocates nothing: they are in a small array, and big integers have a fixed
//! size.

use std::fmt::{self, Write};

/// Writes a double as Java's `Double.toString` does.
pub fn write_double(value: f64, out: &mut dyn Write) -> fmt::Result {
    if let Some(text) = special(value) {
        return out.write_str(text);
    }
    Digits::of_double(value).write(value < 0.0, out)
}

/// Writes a float as Java's `Float.toString` does.
pub fn write_float(value: f32, out: &mut dyn Write) -> fmt::Result {
    if let Some(text) = special(f64::from(value)) {
        return out.write_str(text);
    }
    let bits = value.abs().to_bits();
    let (exponent, fraction) = ((bits >> 23) as i32, bits & ((1 << 23) - 1));
    let (exponent, fraction, significant) = if exponent == 0 {
        let zeros = fraction.leading_zeros() as i32;
        let shift = zeros - 8;
        (-shift - 126, fraction << shift, 32 - zeros)
    } else {
        (exponent - 127, fraction | 1 << 23, 24)
    };
    let fraction = u64::from(fraction) << (52 - 23);
    Digits::of(Binary { exponent, fraction, significant }).write(value < 0.0, out)
}

/// Returns the text of a double; see [`write_double`].
pub fn double_text(value: f64) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_double(value, &mut out);
    out
}

/// The decimal that a finite double is printed as, without its sign: `digits * 10^exponent`.
pub fn decimal(value: f64) -> (u64, i32) {
    if value == 0.0 {
        return (0, 0);
    }
    let digits = Digits::of_double(value);
    let written = &digits.digits[..digits.length];
    let whole = written.iter().fold(0u64, |value, digit| value * 10 + u64::from(*digit));
    (whole, digits.exponent - digits.length as i32)
}

fn special(value: f64) -> Option<&'static str> {
    match value {
        v if v.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        v if v == 0.0 => Some(if v.is_sign_negative() { "-0.0" } else { "0.0" }),
        _ => None,
    }
}

/// A positive number, `fraction / 2^52 * 2^exponent`. The fraction is at least 2^52. `significant`
/// is the number of the fraction's bits that the double or float stores.
#[derive(Clone, Copy)]
struct Binary {
    exponent: i32,
    fraction: u64,
    significant: i32,
}

impl Binary {
    /// Decomposes a finite, non-zero double. The sign is dropped.
    fn of(value: f64) -> Self {
        let bits = value.abs().to_bits();
        let (exponent, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
        if exponent == 0 {
            let zeros = fraction.leading_zeros() as i32;
            let shift = zeros - 11;
            Self { exponent: -shift - 1022, fraction: fraction << shift, significant: 64 - zeros }
        } else {
            Self { exponent: exponent - 1023, fraction: fraction | 1 << 52, significant: 53 }
        }
    }
}

/// The decimal digits of a number: `0.d1d2d3… * 10^exponent`.
struct Digits {
    digits: [u8; 24],
    length: usize,
    exponent: i32,
}

/// A number as the fraction `b / s`, and half the distance to its neighbours as `m / s`. The fields
/// are the exponents of two and five in `b`, `s` and `m`.
struct Scale {
    /// The exponent of two in `b`, in addition to the odd part of the number.
    b2: i32,
    b5: i32,
    s2: i32,
    s5: i32,
    m2: i32,
}

/// Parses the exponent of a printed double: an optional sign and ASCII digits. Without digits the
/// result is 0. More than nine digits may overflow.
fn signed(text: impl Iterator<Item = u8>) -> i32 {
    let (mut value, mut negative) = (0, false);
    for byte in text {
        match byte {
            b'0'..=b'9' => value = value * 10 + i32::from(byte - b'0'),
            sign => negative = sign == b'-',
        }
    }
    if negative { -value } else { value }
}

/// The bit length of a power of five: 0 for 5^0 as in Java, exact up to 5^26, and an upper bound
/// above.
fn bits_of_five(power: i32) -> i32 {
    match power {
        0 => 0,
        1..=26 => power * 2_321_928 / 1_000_000 + 1,
        _ => power * 3,
    }
}

/// Generates the digits in machine integers, which wrap around on overflow as in Java.
macro_rules! develop_in {
    ($name:ident, $int:ty) => {
        fn $name(mut self, odd: u64, scale: &Scale) -> Self {
            let five = |power: i32| <$int>::wrapping_pow(5, power as u32);
            let mut b = (odd as $int).wrapping_mul(five(scale.b5)) << scale.b2;
            let s = five(scale.s5) << scale.s2;
            let mut m = five(scale.b5).wrapping_shl(scale.m2 as u32);
            let tens = s.wrapping_mul(10);
            let mut begun = false;
            let (low, high) = loop {
                let digit = (b / s) as u8;
                b = 10 * (b % s);
                m = m.wrapping_mul(10);
                // If `m` has overflowed, both tests are true, as in Java.
                let (low, high) =
                    if m > 0 || !begun { (b < m, b.wrapping_add(m) > tens) } else { (true, true) };
                let go_on = if begun {
                    self.push(digit);
                    false
                } else {
                    begun = true;
                    self.first(digit, high)
                };
                if (low || high) && !go_on {
                    break (low, high);
                }
            };
            self.rounded(low, high, i64::from(b.wrapping_shl(1).wrapping_sub(tens)))
        }
    };
}

impl Digits {
    /// The digits of a finite, non-zero double, without its sign.
    fn of_double(value: f64) -> Self {
        Self::shortest(value.abs()).unwrap_or_else(|| Self::of(Binary::of(value)))
    }

    /// Returns the shortest digits that identify a number, or `None` if Java may print other
    /// digits.
    ///
    /// Java's result differs for powers of two, whose lower neighbour is nearer than the upper one.
    /// It differs for subnormal numbers, which have less precision. It also differs for decimals
    /// exactly halfway between two doubles. A halfway decimal needs 54 bits, and with at most 17
    /// digits that is only possible above 2^52.
    fn shortest(value: f64) -> Option<Self> {
        const BELOW: f64 = (1u64 << 52) as f64;
        let power_of_two = value.to_bits().trailing_zeros() >= 52;
        if power_of_two || !(f64::MIN_POSITIVE..BELOW).contains(&value) {
            return None;
        }
        let mut buffer = zmij::Buffer::new();
        let (mut digits, mut length, mut point, mut seen) = ([0; 24], 0, 0, false);
        let mut text = buffer.format_finite(value).bytes();
        while let Some(byte) = text.next() {
            match byte {
                b'.' => seen = true,
                b'e' => {
                    point += signed(text);
                    break;
                }
                // Leading zeros are not significant digits.
                b'0' if length == 0 => point -= i32::from(seen),
                digit => {
                    *digits.get_mut(length)? = digit - b'0';
                    length += 1;
                    point += i32::from(!seen);
                }
            }
        }
        while length > 1 && digits[length - 1] == 0 {
            length -= 1;
        }
        // A number below 10^-3 is printed with an exponent, and then Java has at least two digits.
        if length == 1 && point < -2 {
            length = 2;
        }
        Some(Self { digits, length, exponent: point })
    }

    fn of(binary: Binary) -> Self {
        let zeros = binary.fraction.trailing_zeros() as i32;
        let odd_bits = 53 - zeros;
        // The number of bits to the right of the binary point.
        let behind = (odd_bits - binary.exponent - 1).max(0);
        if (-21..=62).contains(&binary.exponent) && behind == 0 {
            return Self::whole(binary);
        }
        let estimate = Self::estimate(binary);
        let scale = Scale::new(binary, estimate, behind, odd_bits);
        let odd = binary.fraction >> zeros;
        let b_bits = odd_bits + scale.b2 + bits_of_five(scale.b5);
        let ten_s_bits = scale.s2 + 1 + bits_of_five(scale.s5 + 1);
        let empty = Self { digits: [0; 24], length: 0, exponent: estimate };
        if b_bits < 32 && ten_s_bits < 32 {
            empty.develop_32(odd, &scale)
        } else if b_bits < 64 && ten_s_bits < 64 {
            empty.develop_64(odd, &scale)
        } else {
            empty.develop_big(odd, &scale)
        }
    }

    /// Estimates the power of ten of the first digit; the result may be one too high.
    #[expect(clippy::approx_constant, reason = "Java's constants decide which it is")]
    fn estimate(binary: Binary) -> i32 {
        let fraction = f64::from_bits(1023 << 52 | binary.fraction & ((1 << 52) - 1));
        let log = (fraction - 1.5) * 0.289529654
            + 0.176091259
            + f64::from(binary.exponent) * 0.301029995663981;
        log.floor() as i32
    }

    /// The digits of an integer below 2^63. Digits beyond the precision of the number are not
    /// printed.
    fn whole(binary: Binary) -> Self {
        let mut value = match binary.exponent - 52 {
            up @ 0.. => binary.fraction << up,
            down => binary.fraction >> -down,
        };
        let mut exponent = 0;
        let beyond = binary.exponent - binary.significant - 1;
        if binary.exponent > binary.significant && beyond > 1 {
            let insignificant = (f64::from(beyond) * std::f64::consts::LOG10_2) as u32;
            let unit = 10u64.pow(insignificant);
            let rest = value % unit;
            value = value / unit + u64::from(insignificant > 0 && rest >= unit / 2);
            exponent = insignificant as i32;
        }
        while value.is_multiple_of(10) {
            value /= 10;
            exponent += 1;
        }
        let mut digits = [0; 24];
        let length = value.ilog10() as usize + 1;
        for slot in digits[..length].iter_mut().rev() {
            *slot = (value % 10) as u8;
            value /= 10;
        }
        Self { digits, length, exponent: exponent + length as i32 }
    }

    fn push(&mut self, digit: u8) {
        if let Some(slot) = self.digits.get_mut(self.length) {
            *slot = digit;
            self.length += 1;
        }
    }

    /// Adds the first digit, unless it is a zero because the estimate was one too high. Returns
    /// whether a second digit is required, because a text with an exponent has at least two digits.
    fn first(&mut self, digit: u8, high: bool) -> bool {
        if digit == 0 && !high {
            self.exponent -= 1;
        } else {
            self.push(digit);
        }
        self.exponent < -3 || self.exponent >= 8
    }

    develop_in!(develop_32, i32);
    develop_in!(develop_64, i64);

    fn develop_big(mut self, odd: u64, scale: &Scale) -> Self {
        let mut b = Big::new(odd, scale.b5, scale.b2);
        let s = Big::new(1, scale.s5, scale.s2);
        let mut m = Big::new(1, scale.b5, scale.m2);
        let mut tens = s.clone();
        tens.times(10);
        let mut begun = false;
        let (low, high) = loop {
            let digit = b.take_multiples(&s);
            b.times(10);
            m.times(10);
            // As in Java, equality with the upper bound suffices here, unlike in machine integers.
            let (low, high) = (b < m, b.plus(&m) >= tens);
            let go_on = if begun {
                self.push(digit);
                false
            } else {
                begun = true;
                self.first(digit, high)
            };
            if (low || high) && !go_on {
                break (low, high);
            }
        };
        b.times(2);
        self.rounded(low, high, b.cmp(&tens) as i64)
    }

    /// Rounds the last digit. `beyond` is the sign of the difference between the remainder and one
    /// half.
    fn rounded(mut self, low: bool, high: bool, beyond: i64) -> Self {
        self.exponent += 1;
        let odd = self.length > 0 && self.digits[self.length - 1] % 2 == 1;
        if high && (!low || beyond > 0 || beyond == 0 && odd) {
            self.round_up();
        }
        self
    }

    fn round_up(&mut self) {
        for digit in self.digits[..self.length].iter_mut().rev() {
            if *digit < 9 {
                *digit += 1;
                return;
            }
            *digit = 0;
        }
        self.digits[0] = 1;
        self.exponent += 1;
    }

    fn write(&self, negative: bool, out: &mut dyn Write) -> fmt::Result {
        let mut text = [b'0'; 40];
        let mut at = 0;
        let mut put = |byte: u8| {
            text[at] = byte;
            at += 1;
        };
        if negative {
            put(b'-');
        }
        let digits = self.digits[..self.length].iter().map(|digit| b'0' + digit);
        let mut power = 0;
        match self.exponent {
            1..=7 => {
                let whole = self.exponent as usize;
                digits.clone().chain(std::iter::repeat(b'0')).take(whole).for_each(&mut put);
                put(b'.');
                if self.length > whole {
                    digits.skip(whole).for_each(&mut put);
                } else {
                    put(b'0');
                }
            }
            -2..=0 => {
                b"0.".iter().copied().for_each(&mut put);
                (self.exponent..0).for_each(|_| put(b'0'));
                digits.for_each(&mut put);
            }
            exponent => {
                digits.clone().take(1).for_each(&mut put);
                put(b'.');
                if self.length > 1 {
                    digits.skip(1).for_each(&mut put);
                } else {
                    put(b'0');
                }
                power = exponent - 1;
            }
        }
        // The buffer contains only ASCII, so the conversion cannot fail.
        out.write_str(std::str::from_utf8(&text[..at]).unwrap_or_default())?;
        if power == 0 { Ok(()) } else { write!(out, "E{power}") }
    }
}

impl Scale {
    fn new(binary: Binary, estimate: i32, behind: i32, odd_bits: i32) -> Self {
        let b5 = (-estimate).max(0);
        let mut b2 = b5 + behind + binary.exponent;
        let s5 = estimate.max(0);
        let mut s2 = s5 + behind;
        let mut m2 = b2 - binary.significant;
        b2 -= odd_bits - 1;
        let common = b2.min(s2);
        b2 -= common;
        s2 -= common;
        m2 -= common;
        // The neighbour below a power of two is only half as far away.
        if odd_bits == 1 {
            m2 -= 1;
        }
        if m2 < 0 {
            b2 -= m2;
            s2 -= m2;
            m2 = 0;
        }
        Self { b2, b5, s2, s5, m2 }
    }
}

const LIMBS: usize = 40;

/// An unsigned integer of 1280 bits, least significant limb first. A double needs fewer than 900.
#[derive(Clone, PartialEq, Eq)]
struct Big([u32; LIMBS]);

impl Big {
    /// Creates `value * 5^fives * 2^twos`.
    fn new(value: u64, fives: i32, twos: i32) -> Self {
        let mut big = Self([0; LIMBS]);
        big.0[0] = value as u32;
        big.0[1] = (value >> 32) as u32;
        let mut fives = fives;
        while fives > 0 {
            let step = fives.min(13);
            big.times(5u32.pow(step as u32));
            fives -= step;
        }
        let (limbs, bits) = (twos as usize / 32, twos as u32 % 32);
        big.times(1 << bits);
        big.0.copy_within(..LIMBS - limbs, limbs);
        big.0[..limbs].fill(0);
        big
    }

    fn times(&mut self, by: u32) {
        let mut carry = 0u64;
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(by);
            *limb = carry as u32;
            carry >>= 32;
        }
    }

    fn plus(&self, other: &Self) -> Self {
        let (mut sum, mut carry) = (self.clone(), 0u64);
        for (limb, more) in sum.0.iter_mut().zip(&other.0) {
            carry += u64::from(*limb) + u64::from(*more);
            *limb = carry as u32;
            carry >>= 32;
        }
        sum
    }

    /// Divides by `of`. Returns the quotient, a single digit; `self` becomes the remainder.
    fn take_multiples(&mut self, of: &Self) -> u8 {
        let mut quotient = 0;
        while *self >= *of {
            let mut borrow = 0i64;
            for (limb, less) in self.0.iter_mut().zip(&of.0) {
                borrow += i64::from(*limb) - i64::from(*less);
                *limb = borrow as u32;
                borrow >>= 32;
            }
            quotient += 1;
        }
        quotient
    }
}

impl PartialOrd for Big {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Big {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected texts were printed by Java 17. Some of them are not the shortest.
    #[test]
    fn doubles_are_formatted_as_in_java() {
        for (value, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (100.0, "100.0"),
            (1e7, "1.0E7"),
            (9_999_999.5, "9999999.5"),
            (0.001, "0.001"),
            (9.99e-4, "9.99E-4"),
            (2e-3, "0.002"),
            (1e23, "9.999999999999999E22"),
            (2e23, "1.9999999999999998E23"),
            (4.9e-324, "4.9E-324"),
            (9.9e-324, "1.0E-323"),
            (f64::MIN_POSITIVE, "2.2250738585072014E-308"),
            (f64::MAX, "1.7976931348623157E308"),
            (4_611_686_018_427_387_904.0, "4.6116860184273879E18"),
            (9_223_372_036_854_775_807.0, "9.223372036854776E18"),
            (f64::from_bits(0x183), "1.91E-321"),
            (f64::from_bits(0x4ae0_0000_0000_0000), "4.7890485652059027E52"),
        ] {
            assert_eq!(double_text(value), text);
        }
    }

    /// Checks that the fast algorithm gives the same digits as Java's algorithm.
    fn check_shortest(value: f64) {
        let value = value.abs();
        if let Some(fast) = Digits::shortest(value) {
            let exact = Digits::of(Binary::of(value));
            let shown =
                |digits: &Digits| (digits.digits[..digits.length].to_vec(), digits.exponent);
            assert_eq!(shown(&fast), shown(&exact), "{value:e}");
        }
    }

    /// Checks numbers with few bits, which lie halfway between decimals, and short decimals, which
    /// lie next to doubles.
    fn check_kinds(seed: u64) {
        check_shortest(f64::from_bits(seed >> 1));
        let small = seed % 1_000_000_007;
        for power in 0..26 {
            check_shortest(small as f64 / 10f64.powi(power));
            check_shortest((small % 1000) as f64 * 10f64.powi(power - 30));
            check_shortest((seed >> 11) as f64 / 2f64.powi(power));
            check_shortest((seed >> (12 + power)) as f64 / 2f64.powi(power + 1));
        }
    }

    #[test]
    fn the_shortest_digits_are_javas_where_they_are_taken() {
        let many = if cfg!(debug_assertions) { 1_000 } else { 40_000 };
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..many {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            check_kinds(state);
        }
        for quarter in (1..4000).step_by(2) {
            check_shortest((1u64 << 51) as f64 / 4.0 + f64::from(quarter) / 4.0);
        }
    }

    #[test]
    fn floats_are_formatted_as_in_java() {
        let text = |value: f32| {
            let mut out = String::new();
            write_float(value, &mut out).unwrap();
            out
        };
        assert_eq!(text(0.1), "0.1");
        assert_eq!(text(1e10), "1.0E10");
        assert_eq!(text(2_147_483_648.0), "2.14748365E9");
        assert_eq!(text(99_999_999_999.0), "9.9999998E10");
        assert_eq!(text(f32::from_bits(0x80)), "1.794E-43");
        assert_eq!(text(f32::MIN_POSITIVE), "1.17549435E-38");
        assert_eq!(text(-f32::MAX), "-3.4028235E38");
    }
}
