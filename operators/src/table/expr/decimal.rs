//! Exact decimal arithmetic that is rounded to a type at the end, like Spark's.
//!
//! The product of two decimals of 38 digits has up to 76 digits. Their sum may be as long after
//! scaling. So an operation works on a 256-bit [`Magnitude`] and rounds only once, half up, to the
//! result's scale ([`fit`]). If all values fit in 128 bits, a faster path is used.
//!
//! A quotient is rounded twice, as in Spark: first to 39 decimal places, then to its type.

use crate::table::types::DataType;
use std::cmp::Ordering;

/// The powers of ten that fit in 128 bits.
const POWERS: [u128; 39] = {
    let mut powers = [1u128; 39];
    let mut at = 1;
    while at < 39 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// The number of decimal places to which Spark first rounds a quotient.
const QUOTIENT_SCALE: i32 = 39;

fn power(of: u32) -> Option<u128> {
    POWERS.get(of as usize).copied()
}

/// An unsigned 256-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Magnitude {
    high: u128,
    low: u128,
}

impl From<u128> for Magnitude {
    fn from(low: u128) -> Self {
        Self { high: 0, low }
    }
}

impl Magnitude {
    /// The full product of two 128-bit integers, in 256 bits.
    pub fn product(a: u128, b: u128) -> Self {
        const HALF: u128 = u64::MAX as u128;
        let (a_high, a_low, b_high, b_low) = (a >> 64, a & HALF, b >> 64, b & HALF);
        let low = a_low * b_low;
        let (middle, carry) = (a_high * b_low).overflowing_add(a_low * b_high);
        let (sum, more) = low.overflowing_add(middle << 64);
        let high = a_high * b_high + (middle >> 64) + (u128::from(carry) << 64) + u128::from(more);
        Self { high, low: sum }
    }

    fn checked_add(self, other: Self) -> Option<Self> {
        let (low, carry) = self.low.overflowing_add(other.low);
        let high = self.high.checked_add(other.high)?.checked_add(u128::from(carry))?;
        Some(Self { high, low })
    }

    /// Subtracts `other`, which must not be larger.
    fn minus(self, other: Self) -> Self {
        let (low, borrow) = self.low.overflowing_sub(other.low);
        Self { high: self.high.wrapping_sub(other.high).wrapping_sub(u128::from(borrow)), low }
    }

    /// Multiplies by a 128-bit integer; `None` if the product overflows 256 bits.
    fn checked_times(self, by: u128) -> Option<Self> {
        let low = Self::product(self.low, by);
        let high = self.high.checked_mul(by)?;
        Some(Self { high: low.high.checked_add(high)?, low: low.low })
    }

    fn double(self) -> Self {
        Self { high: self.high << 1 | self.low >> 127, low: self.low << 1 }
    }

    fn bits(self) -> u32 {
        if self.high == 0 {
            128 - self.low.leading_zeros()
        } else {
            256 - self.high.leading_zeros()
        }
    }

    /// Computes quotient and remainder. The divisor must not be 0.
    fn divided(self, by: Self) -> (Self, Self) {
        if self.high == 0 && by.high == 0 {
            return ((self.low / by.low).into(), (self.low % by.low).into());
        }
        let (mut quotient, mut rest) = (Self::from(0), Self::from(0));
        for bit in (0..self.bits()).rev() {
            // A divisor never has 256 bits, so doubling the remainder cannot overflow.
            rest = rest.double();
            let half = if bit < 128 { self.low >> bit } else { self.high >> (bit - 128) };
            rest.low |= half & 1;
            quotient = quotient.double();
            if rest >= by {
                rest = rest.minus(by);
                quotient.low |= 1;
            }
        }
        (quotient, rest)
    }

    /// Divides and rounds half up; `None` on overflow.
    fn rounded(self, by: u128) -> Option<Self> {
        let (quotient, rest) = self.divided(by.into());
        let up = rest.low >= by - rest.low;
        quotient.checked_add(u128::from(up).into())
    }

    /// Converts to a signed unscaled value; `None` if the value has more digits than `precision`.
    fn signed(self, negative: bool, precision: u8) -> Option<i128> {
        let limit = power(u32::from(precision))?;
        if self.high != 0 || self.low >= limit {
            return None;
        }
        let value = self.low as i128;
        Some(if negative { -value } else { value })
    }
}

/// Rounds a magnitude with a scale half up to a decimal type; `None` if it does not fit.
pub fn fit(value: Magnitude, negative: bool, scale: i32, to: &DataType) -> Option<i128> {
    let DataType::Decimal(precision, to_scale) = *to else { return None };
    let drop = scale - i32::from(to_scale);
    let scaled = if drop <= 0 {
        value.checked_times(power(drop.unsigned_abs())?)?
    } else {
        let mut left = drop.unsigned_abs();
        let mut value = value;
        // Each division removes at most 38 digits. All divisions but the last truncate, which gives
        // the same result as rounding once.
        while left > 38 {
            value = value.divided(POWERS[38].into()).0;
            left -= 38;
        }
        value.rounded(power(left)?)?
    };
    scaled.signed(negative, precision)
}

fn aligned(value: i128, scale: u8, to: u8) -> Magnitude {
    Magnitude::product(value.unsigned_abs(), POWERS[usize::from(to - scale)])
}

/// An unscaled value and its scale.
pub type Scaled = (i128, u8);

/// Adds two decimals; `None` if the sum does not fit the type.
pub fn add((x, s1): Scaled, (y, s2): Scaled, to: &DataType) -> Option<i128> {
    let scale = s1.max(s2);
    let (a, b) = (aligned(x, s1, scale), aligned(y, s2, scale));
    let (negative, sum) = match ((x < 0) == (y < 0), a.cmp(&b)) {
        (true, _) => (x < 0, a.checked_add(b)?),
        (false, Ordering::Less) => (y < 0, b.minus(a)),
        (false, _) => (x < 0, a.minus(b)),
    };
    fit(sum, negative, i32::from(scale), to)
}

/// Multiplies two decimals; `None` if the product does not fit the type.
pub fn multiply((x, s1): Scaled, (y, s2): Scaled, to: &DataType) -> Option<i128> {
    let product = Magnitude::product(x.unsigned_abs(), y.unsigned_abs());
    fit(product, (x < 0) != (y < 0), i32::from(s1) + i32::from(s2), to)
}

/// Divides two decimals; `None` if the quotient does not fit the type. The divisor must not be 0.
pub fn divide((x, s1): Scaled, (y, s2): Scaled, to: &DataType) -> Option<i128> {
    let DataType::Decimal(_, scale) = *to else { return None };
    let negative = (x < 0) != (y < 0);
    let (x, y) = (x.unsigned_abs(), y.unsigned_abs());
    let shift = i32::from(scale) + i32::from(s2) - i32::from(s1);
    // For a small divisor, rounding to 39 decimal places first cannot change the result: no
    // quotient is so close to one half. So the quotient is rounded directly.
    let once = power((QUOTIENT_SCALE - i32::from(scale)).unsigned_abs()).is_some_and(|p| y <= p);
    if once
        && shift >= 0
        && let Some(scaled) = power(shift.unsigned_abs()).and_then(|p| x.checked_mul(p))
    {
        return fit(Magnitude::from(scaled).rounded(y)?, negative, i32::from(scale), to);
    }
    // Long division in steps of at most 38 digits. Each remainder is smaller than the divisor.
    let places = (QUOTIENT_SCALE + i32::from(s2) - i32::from(s1)).unsigned_abs();
    let (mut quotient, mut rest) = (Magnitude::from(x / y), x % y);
    let mut left = places;
    while left > 0 {
        let step = left.min(38);
        let by = power(step)?;
        let (digits, remainder) = Magnitude::product(rest, by).divided(y.into());
        quotient = quotient.checked_times(by)?.checked_add(digits)?;
        (rest, left) = (remainder.low, left - step);
    }
    if rest >= y - rest {
        quotient = quotient.checked_add(1.into())?;
    }
    fit(quotient, negative, QUOTIENT_SCALE, to)
}

/// The integer part of the quotient; `None` if it has more than 38 digits. The divisor must not be
/// 0.
pub fn whole_quotient((x, s1): Scaled, (y, s2): Scaled) -> Option<i128> {
    let scale = s1.max(s2);
    let (quotient, _) = aligned(x, s1, scale).divided(aligned(y, s2, scale));
    quotient.signed((x < 0) != (y < 0), 38)
}

/// The remainder, with the sign of the dividend. The divisor must not be 0.
pub fn remainder((x, s1): Scaled, (y, s2): Scaled, to: &DataType) -> Option<i128> {
    let scale = s1.max(s2);
    let (_, rest) = aligned(x, s1, scale).divided(aligned(y, s2, scale));
    fit(rest, x < 0, i32::from(scale), to)
}

/// `pmod`: the remainder `r`, or `(r + divisor) % divisor` if `r` is negative.
pub fn positive_remainder((x, s1): Scaled, (y, s2): Scaled, to: &DataType) -> Option<i128> {
    let scale = s1.max(s2);
    let divisor = aligned(y, s2, scale);
    let (_, rest) = aligned(x, s1, scale).divided(divisor);
    if x >= 0 || rest == Magnitude::from(0) {
        return fit(rest, x < 0, i32::from(scale), to);
    }
    let (sum, negative) = match (y < 0, divisor >= rest) {
        (true, _) => (divisor.checked_add(rest)?, true),
        (false, true) => (divisor.minus(rest), false),
        (false, false) => (rest.minus(divisor), true),
    };
    fit(sum.divided(divisor).1, negative, i32::from(scale), to)
}

/// The negated value. As in Spark, it is rounded half to even to 34 significant digits.
pub fn negated(value: i128) -> i128 {
    const DIGITS: u32 = 34;
    let magnitude = value.unsigned_abs();
    let drop = magnitude.checked_ilog10().map_or(0, |log| (log + 1).saturating_sub(DIGITS));
    if drop == 0 {
        return -value;
    }
    let unit = POWERS[drop as usize];
    let (quotient, rest) = (magnitude / unit, magnitude % unit);
    let up = rest > unit / 2 || rest == unit / 2 && quotient % 2 == 1;
    let rounded = ((quotient + u128::from(up)) * unit) as i128;
    if value < 0 { rounded } else { -rounded }
}

/// The precision and scale of an operation's result, by Spark's rules. With `precision_loss`, the
/// scale is reduced if more than 38 digits are needed, but at least six decimal places are kept if
/// there are as many. Without it, precision and scale are limited to 38.
pub fn result_type(
    name: &str,
    (p1, s1): (u8, u8),
    (p2, s2): (u8, u8),
    precision_loss: bool,
) -> DataType {
    let (p1, s1, p2, s2) = (i32::from(p1), i32::from(s1), i32::from(p2), i32::from(s2));
    let (precision, scale) = match name {
        "*" => (p1 + p2 + 1, s1 + s2),
        "/" if precision_loss => {
            let scale = (s1 + p2 + 1).max(6);
            (p1 - s1 + s2 + scale, scale)
        }
        "/" => {
            let (mut whole, mut scale) = ((p1 - s1 + s2).min(38), (s1 + p2 + 1).clamp(6, 38));
            let excess = whole + scale - 38;
            if excess > 0 {
                scale -= excess / 2 + 1;
                whole = 38 - scale;
            }
            (whole + scale, scale)
        }
        "%" | "pmod" => ((p1 - s1).min(p2 - s2) + s1.max(s2), s1.max(s2)),
        _ => ((p1 - s1).max(p2 - s2) + s1.max(s2) + 1, s1.max(s2)),
    };
    if precision_loss { adjusted(precision, scale) } else { bounded(precision, scale) }
}

fn bounded(precision: i32, scale: i32) -> DataType {
    DataType::Decimal(precision.min(38) as u8, scale.min(38) as u8)
}

fn adjusted(precision: i32, scale: i32) -> DataType {
    if precision <= 38 {
        return bounded(precision, scale);
    }
    let whole = precision - scale;
    DataType::Decimal(38, (38 - whole).max(scale.min(6)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const D38_0: DataType = DataType::Decimal(38, 0);

    #[test]
    fn operations_are_exact_before_they_are_fitted() {
        let nines = 10i128.pow(38) - 1;
        let to = DataType::Decimal(38, 6);
        // The exact square of 1.000000000000000001 is 1.000000000000000002000000000000000001.
        let one = 10i128.pow(18) + 1;
        assert_eq!(multiply((one, 18), (one, 18), &to), Some(1_000_000));
        assert_eq!(multiply((nines, 38), (nines, 38), &to), Some(1_000_000));
        assert_eq!(multiply((nines, 0), (-1, 0), &D38_0), Some(-nines));
        assert_eq!(multiply((nines, 0), (2, 0), &D38_0), None);
        assert_eq!(multiply((nines, 38), (5, 1), &DataType::Decimal(38, 38)), Some(nines / 2 + 1));
        assert_eq!(add((nines, 0), (1, 0), &D38_0), None);
        assert_eq!(add((nines, 0), (-1, 38), &D38_0), Some(nines));
        assert_eq!(add((1, 0), (-1, 38), &DataType::Decimal(38, 37)), Some(10i128.pow(37)));
        assert_eq!(add((-5, 1), (3, 1), &DataType::Decimal(3, 1)), Some(-2));
    }

    #[test]
    fn quotients_round_half_up() {
        let to = DataType::Decimal(38, 6);
        assert_eq!(divide((1, 0), (3, 0), &to), Some(333_333));
        assert_eq!(divide((-2, 0), (3, 0), &to), Some(-666_667));
        assert_eq!(divide((10i128.pow(37), 37), (3 * 10i128.pow(37), 37), &to), Some(333_333));
        assert_eq!(divide((1, 0), (1, 38), &D38_0), None);
        assert_eq!(whole_quotient((75, 1), (-2, 0)), Some(-3));
        assert_eq!(whole_quotient((10i128.pow(37), 0), (1, 38)), None);
    }

    #[test]
    fn remainders_have_the_sign_of_the_dividend_or_none() {
        let to = DataType::Decimal(38, 1);
        assert_eq!(remainder((-75, 1), (2, 0), &to), Some(-15));
        assert_eq!(positive_remainder((-75, 1), (2, 0), &to), Some(5));
        assert_eq!(positive_remainder((-75, 1), (-2, 0), &to), Some(-15));
        let nines = 10i128.pow(38) - 1;
        assert_eq!(remainder((nines, 0), (3, 37), &DataType::Decimal(38, 37)), Some(0));
    }

    #[test]
    fn negatives_have_34_digits() {
        let digits = 12_345_678_901_234_567_890_123_456_789_012_345_678;
        assert_eq!(negated(digits), -12_345_678_901_234_567_890_123_456_789_012_350_000);
        assert_eq!(negated(-5), 5);
        assert_eq!(negated(1 - 10i128.pow(38)), 10i128.pow(38));
    }

    #[test]
    fn results_have_precision_and_scale_as_in_spark() {
        let sized = |name: &str, a, b| result_type(name, a, b, true);
        assert_eq!(sized("+", (10, 2), (5, 3)), DataType::Decimal(12, 3));
        assert_eq!(sized("*", (10, 2), (5, 3)), DataType::Decimal(16, 5));
        assert_eq!(sized("/", (10, 2), (5, 3)), DataType::Decimal(19, 8));
        assert_eq!(sized("*", (38, 18), (38, 18)), DataType::Decimal(38, 6));
        assert_eq!(result_type("*", (38, 18), (38, 18), false), DataType::Decimal(38, 36));
    }

    proptest::proptest! {
        /// Values that fit in 128 bits give the same results as integer arithmetic.
        #[test]
        fn small_values_agree_with_plain_integers(
            x in -1_000_000_000_000i128..1_000_000_000_000,
            y in 1i128..1_000_000_000_000,
        ) {
            let to = DataType::Decimal(38, 4);
            proptest::prop_assert_eq!(multiply((x, 2), (y, 2), &to), Some(x * y));
            proptest::prop_assert_eq!(add((x, 4), (y, 2), &to), Some(x + y * 100));
            let exact = (x.abs() * 20_000 + y) / (2 * y) * x.signum();
            proptest::prop_assert_eq!(divide((x, 2), (y, 2), &to), Some(exact));
            proptest::prop_assert_eq!(remainder((x, 4), (y, 4), &to), Some(x % y));
            proptest::prop_assert_eq!(whole_quotient((x, 2), (y, 2)), Some(x / y));
        }
    }
}
