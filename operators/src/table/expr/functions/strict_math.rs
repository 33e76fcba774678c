//! Elementary functions that match Java's `StrictMath`, which Spark calls, to the last bit.
//!
//! `StrictMath` is fdlibm 5.3 (copyright 1993 Sun Microsystems, freely distributable with this
//! notice). The crate `libm` descends from it and gives the same bits for `exp`, `expm1`, `pow` and
//! the inverse trigonometric functions. This module has the functions that `libm` computes
//! differently, by fdlibm's algorithms. Sine, cosine and tangent are not included, because the JVM
//! has its own implementations. The system's functions differ from the JVM's in the last bit for
//! one of several hundred values.

// The coefficients have all the digits that fdlibm has, so that they can be compared.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

/// The upper 32 bits of a double, on which fdlibm's case distinctions are based.
fn high(x: f64) -> i32 {
    (x.to_bits() >> 32) as i32
}

/// Replaces the upper 32 bits of a double.
fn with_high(x: f64, high: i32) -> f64 {
    f64::from_bits(u64::from(high as u32) << 32 | x.to_bits() & 0xFFFF_FFFF)
}

/// The double with these upper 32 bits and zeros in the lower 32 bits.
fn of_high(high: i32) -> f64 {
    with_high(0.0, high)
}

const TWO_54: f64 = 18_014_398_509_481_984.0;

/// Scales a positive number to a normal one if it is subnormal. Returns the scaled number and the
/// exponent of the scaling.
fn normal(x: f64) -> (f64, i32) {
    if high(x) < 0x0010_0000 { (x * TWO_54, -54) } else { (x, 0) }
}

/// The natural logarithm.
pub fn log(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const LG: [f64; 7] = [
        6.666_666_666_666_735e-1,
        3.999_999_999_940_942e-1,
        2.857_142_874_366_239e-1,
        2.222_219_843_214_978_4e-1,
        1.818_357_216_161_805e-1,
        1.531_383_769_920_937_3e-1,
        1.479_819_860_511_658_6e-1,
    ];
    if x.is_nan() || x <= 0.0 || x == f64::INFINITY {
        return x.ln();
    }
    let (x, mut k) = normal(x);
    k += (high(x) >> 20) - 1023;
    let hx = high(x) & 0x000F_FFFF;
    let carry = (hx + 0x95F64) & 0x0010_0000;
    let f = with_high(x, hx | carry ^ 0x3FF0_0000) - 1.0;
    k += carry >> 20;
    let dk = f64::from(k);
    if 0x000F_FFFF & (2 + hx) < 3 {
        let r = f * f * (0.5 - 0.333_333_333_333_333_33 * f);
        return match (f == 0.0, k) {
            (true, _) => dk * LN2_HIGH + dk * LN2_LOW,
            (false, 0) => f - r,
            _ => dk * LN2_HIGH - ((r - dk * LN2_LOW) - f),
        };
    }
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = w * (LG[1] + w * (LG[3] + w * LG[5]));
    let odd = z * (LG[0] + w * (LG[2] + w * (LG[4] + w * LG[6])));
    let r = odd + even;
    if (hx - 0x6147A) | (0x6B851 - hx) > 0 {
        let half = 0.5 * f * f;
        return match k {
            0 => f - (half - s * (half + r)),
            _ => dk * LN2_HIGH - ((half - (s * (half + r) + dk * LN2_LOW)) - f),
        };
    }
    match k {
        0 => f - s * (f - r),
        _ => dk * LN2_HIGH - ((s * (f - r) - dk * LN2_LOW) - f),
    }
}

/// The logarithm to base 10.
pub fn log10(x: f64) -> f64 {
    const IVLN10: f64 = 4.342_944_819_032_518e-1;
    const LOG2_HIGH: f64 = 3.010_299_956_636_117_7e-1;
    const LOG2_LOW: f64 = 3.694_239_077_158_930_8e-13;
    if x.is_nan() || x <= 0.0 || x == f64::INFINITY {
        return x.log10();
    }
    let (x, mut k) = normal(x);
    k += (high(x) >> 20) - 1023;
    let negative = i32::from(k < 0);
    let y = f64::from(k + negative);
    let x = with_high(x, high(x) & 0x000F_FFFF | (0x3FF - negative) << 20);
    let z = y * LOG2_LOW + IVLN10 * log(x);
    z + y * LOG2_HIGH
}

/// The logarithm to base 2, which Spark computes from natural logarithms.
pub fn log2(x: f64) -> f64 {
    log(x) / log(2.0)
}

/// The cube root.
pub fn cbrt(x: f64) -> f64 {
    const B1: i32 = 715_094_163;
    const B2: i32 = 696_219_795;
    let a = x.abs();
    if !a.is_finite() || a == 0.0 {
        return x;
    }
    let hx = high(a);
    // An estimate with 5 correct bits, refined to 23 bits, then one Newton step.
    let t =
        if hx < 0x0010_0000 { of_high(high(a * TWO_54) / 3 + B2) } else { of_high(hx / 3 + B1) };
    let r = t * t / a;
    let s = 5.428_571_428_571_428_2e-1 + r * t;
    let t = t
        * (3.571_428_571_428_571_5e-1
            + 1.607_142_857_142_857_2
                / (s + 1.414_285_714_285_714_4 + -7.053_061_224_489_796e-1 / s));
    let t = of_high(high(t).wrapping_add(1));
    let s = t * t;
    let r = a / s;
    let r = (r - t) / (t + t + r);
    (t + t * r).copysign(x)
}

/// The hyperbolic sine.
pub fn sinh(x: f64) -> f64 {
    let (a, half) = (x.abs(), 0.5f64.copysign(x));
    if !x.is_finite() {
        return x;
    }
    if a < 22.0 {
        if high(a) < 0x3E30_0000 {
            return x;
        }
        let t = libm::expm1(a);
        return if a < 1.0 {
            half * (2.0 * t - t * t / (t + 1.0))
        } else {
            half * (t + t / (t + 1.0))
        };
    }
    half_exp(a).copysign(x)
}

/// The hyperbolic cosine.
pub fn cosh(x: f64) -> f64 {
    let a = x.abs();
    if !x.is_finite() {
        return a;
    }
    if high(a) < 0x3FD6_2E43 {
        let t = libm::expm1(a);
        let w = 1.0 + t;
        return if high(a) < 0x3C80_0000 { w } else { 1.0 + (t * t) / (w + w) };
    }
    if a < 22.0 {
        let t = libm::exp(a);
        return 0.5 * t + 0.5 / t;
    }
    half_exp(a)
}

/// `exp(a) / 2`, which does not overflow where `exp(a)` does.
fn half_exp(a: f64) -> f64 {
    if high(a) < 0x4086_2E42 {
        return 0.5 * libm::exp(a);
    }
    let w = libm::exp(0.5 * a);
    (0.5 * w) * w
}

/// The hyperbolic tangent.
pub fn tanh(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() {
        return x;
    }
    let z = if a >= 22.0 {
        1.0
    } else if high(a) < 0x3C80_0000 {
        return x * (1.0 + x);
    } else if a >= 1.0 {
        1.0 - 2.0 / (libm::expm1(2.0 * a) + 2.0)
    } else {
        let t = libm::expm1(-2.0 * a);
        -t / (t + 2.0)
    };
    z.copysign(x)
}

/// The Euclidean length of the vector (x, y).
pub fn hypot(x: f64, y: f64) -> f64 {
    if x.is_infinite() || y.is_infinite() {
        return f64::INFINITY;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    let (mut a, mut b) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
    if high(a) - high(b) > 0x03C0_0000 || b == 0.0 {
        return a + b;
    }
    // Both are scaled so that their squares neither overflow nor underflow.
    let scale = match (high(a), high(b)) {
        (0x5F30_0001.., _) => 600,
        (_, ..0x20B0_0000) => -600,
        _ => 0,
    };
    (a, b) = (a * power(-scale), b * power(-scale));
    let (ha, hb) = (high(a), high(b));
    let w = a - b;
    let w = if w > b {
        let t1 = of_high(ha);
        let t2 = a - t1;
        (t1 * t1 - (b * -b - t2 * (a + t1))).sqrt()
    } else {
        let a = a + a;
        let y1 = of_high(hb);
        let y2 = b - y1;
        let t1 = of_high(ha + 0x0010_0000);
        let t2 = a - t1;
        (t1 * y1 - (w * -w - (t1 * y2 + t2 * b))).sqrt()
    };
    w * power(scale)
}

fn power(of_two: i32) -> f64 {
    of_high((1023 + of_two) << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are from Java. For them the system's functions give the adjacent double.
    #[test]
    fn results_are_those_of_javas_strict_math() {
        assert_eq!(cbrt(2.5), 1.3572088082974532);
        assert_eq!(cbrt(-27.0), -3.0);
        assert_eq!(log2(1.005), 0.007195501404203767);
        assert_eq!(libm::exp(1.0), 2.7182818284590455);
        assert_eq!(log10(1000.0), 3.0);
        assert_eq!(hypot(3.0, 4.0), 5.0);
        assert_eq!(hypot(3e200, 4e200), 4.9999999999999995e200);
        assert_eq!(hypot(3e-200, 4e-200), 5e-200);
        assert_eq!(cbrt(5e-324), 1.7031839360032603e-108);
        assert_eq!(log(5e-324), -744.4400719213812);
        assert_eq!(sinh(710.2), 1.3643036845527107e308);
        assert_eq!(cosh(-710.3), 1.5077887555909707e308);
        assert_eq!(sinh(1000.0), f64::INFINITY);
        assert_eq!(tanh(-30.0), -1.0);
    }
}
