//! Encoders of ORC's run-length encodings: bytes, booleans, and integers of version 2.
//!
//! Enough values with a constant difference become a short-repeat or delta run. Monotonic values
//! become a delta run with packed differences, if these are narrower than the values. All others
//! become a direct run with the width of the largest value. The patched-base encoding is not
//! written.

use crate::connect::columnar::orc::rle_decode::{Sign, packed_width};

/// The maximum number of values in a run.
const RUN: usize = 512;
/// The fewest values with a constant difference that get a run of their own.
const STEPS: usize = 6;

/// Appends run-length encoded bytes.
pub fn bytes(values: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    let same = |at: usize, most: usize| {
        values[at..].iter().take(most).take_while(|byte| **byte == values[at]).count()
    };
    while at < values.len() {
        let run = same(at, 130);
        if run >= 3 {
            out.extend([(run - 3) as u8, values[at]]);
            at += run;
            continue;
        }
        let mut end = at + run;
        while end < values.len() && end - at < 126 {
            let run = same(end, 3);
            if run >= 3 {
                break;
            }
            end += run;
        }
        let end = end.min(at + 128);
        out.push((256 - (end - at)) as u8);
        out.extend_from_slice(&values[at..end]);
        at = end;
    }
}

/// Appends run-length encoded booleans, eight to a byte, most significant bit first.
pub fn bits(values: impl Iterator<Item = bool>, out: &mut Vec<u8>) {
    let (mut packed, mut count) = (Vec::new(), 0usize);
    for value in values {
        if count % 8 == 0 {
            packed.push(0);
        }
        if let Some(last) = packed.last_mut() {
            *last |= u8::from(value) << (7 - count % 8);
        }
        count += 1;
    }
    bytes(&packed, out);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the unscaled value of a decimal as a zigzag varint.
pub fn unscaled(value: i128, out: &mut Vec<u8>) {
    let mut value = ((value << 1) ^ (value >> 127)) as u128;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends integers with the encoding of version 2. Signed values are zigzag encoded; unsigned
/// values must not be negative.
pub fn integers(values: &[i64], sign: Sign, out: &mut Vec<u8>) {
    let mut begin = 0;
    let mut at = 0;
    while at < values.len() {
        let run = steps(&values[at..]);
        if run < STEPS {
            // A shorter run becomes a part of the surrounding run.
            at += run.max(1);
            if at - begin >= RUN {
                others(&values[begin..begin + RUN], sign, out);
                begin += RUN;
            }
            continue;
        }
        others(&values[begin..at], sign, out);
        let run = run.min(RUN);
        let step = values[at + 1].wrapping_sub(values[at]);
        if step == 0 && run <= 10 {
            repeated(values[at], run, sign, out);
        } else {
            head(3, 0, run, out);
            first(values[at], sign, out);
            varint(zigzag(step), out);
        }
        at += run;
        begin = at;
    }
    others(&values[begin..], sign, out);
}

/// The number of leading values with a constant difference, at most one run. A difference that
/// overflows ends them.
fn steps(values: &[i64]) -> usize {
    let [first, second, ..] = values else { return values.len() };
    let Some(step) = second.checked_sub(*first) else { return 1 };
    let along = values.windows(2).take(RUN - 1);
    1 + along.take_while(|pair| pair[0].checked_add(step) == Some(pair[1])).count()
}

/// Appends a run's two-byte header: the encoding, the width code and the length.
fn head(encoding: u8, code: u8, length: usize, out: &mut Vec<u8>) {
    let length = length - 1;
    out.extend([encoding << 6 | code << 1 | (length >> 8) as u8, length as u8]);
}

fn first(value: i64, sign: Sign, out: &mut Vec<u8>) {
    varint(if sign == Sign::Signed { zigzag(value) } else { value as u64 }, out);
}

fn repeated(value: i64, count: usize, sign: Sign, out: &mut Vec<u8>) {
    let value = if sign == Sign::Signed { zigzag(value) } else { value as u64 };
    let bytes = (64 - value.leading_zeros() as usize).div_ceil(8).max(1);
    out.push((bytes as u8 - 1) << 3 | (count as u8 - 3));
    out.extend_from_slice(&value.to_be_bytes()[8 - bytes..]);
}

/// Appends values without a constant difference, as delta or direct runs.
fn others(values: &[i64], sign: Sign, out: &mut Vec<u8>) {
    for values in values.chunks(RUN) {
        let word = |value: i64| if sign == Sign::Signed { zigzag(value) } else { value as u64 };
        let width = |all: u64| packed_width(64 - all.leading_zeros() as usize);
        let direct = width(values.iter().fold(0, |all, value| all | word(*value)));
        if let Some(all) = one_way(values)
            && width(all) < direct
        {
            let width = width(all).max(2);
            head(3, code(width), values.len(), out);
            first(values[0], sign, out);
            varint(zigzag(values[1].wrapping_sub(values[0])), out);
            let deltas = values[1..].windows(2).map(|pair| pair[1].abs_diff(pair[0]));
            pack(deltas, width, out);
            continue;
        }
        head(1, code(direct), values.len(), out);
        pack(values.iter().map(|value| word(*value)), direct, out);
    }
}

/// The bitwise OR of the sizes of all differences of monotonic values. Returns `None` for other
/// values, for fewer than three values, and on overflow.
fn one_way(values: &[i64]) -> Option<u64> {
    let [first, second, _, ..] = values else { return None };
    let falls = second < first;
    let mut all = 0;
    for pair in values.windows(2) {
        // The first difference gives the direction. A first difference of 0 counts as rising.
        if pair[1] != pair[0] && (pair[1] < pair[0]) != falls {
            return None;
        }
        pair[1].checked_sub(pair[0])?;
        all |= pair[1].abs_diff(pair[0]);
    }
    Some(all)
}

/// The five-bit code of a bit width in version 2; the inverse of the decoder's `width_of`.
fn code(width: usize) -> u8 {
    (match width {
        0..=24 => width.max(1) - 1,
        25..=32 => (width - 26) / 2 + 24,
        _ => (width - 40) / 8 + 28,
    }) as u8
}

/// Appends values of `width` bits each, most significant bit first. The last byte is padded with
/// zeros.
fn pack(values: impl Iterator<Item = u64>, width: usize, out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0u128, 0);
    for value in values {
        held = held << width | u128::from(value);
        bits += width;
        while bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push((held << (8 - bits)) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::columnar::orc::rle_decode::{Bits, ByteRuns, Integers};
    use crate::connect::columnar::orc::stream::{ByteSource, Codec, Compression, Stream};

    fn stream(bytes: Vec<u8>) -> Stream {
        let (length, compression) =
            (bytes.len() as u64, Compression { codec: Codec::None, block: 0 });
        Stream::new(ByteSource::Memory(bytes.into()), compression, 0, length)
    }

    fn random(state: &mut u64) -> u64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 11
    }

    fn check(values: &[i64], sign: Sign) {
        let mut out = Vec::new();
        integers(values, sign, &mut out);
        let mut decoder = Integers::new(stream(out), true, sign);
        for (i, value) in values.iter().enumerate() {
            assert_eq!(decoder.next(), Ok(*value), "{i} of {values:?}");
        }
        assert!(decoder.next().is_err());
    }

    #[test]
    fn integers_are_read_as_they_were_written() {
        let extremes = [i64::MIN, i64::MAX, 0, -1, i64::MAX, i64::MIN, 1];
        check(&extremes, Sign::Signed);
        check(&(0..2000).collect::<Vec<_>>(), Sign::Signed);
        check(&(0..2000).map(|i| -i * i).collect::<Vec<_>>(), Sign::Signed);
        check(&[7; 1300], Sign::Unsigned);
        check(&[5, 5, 5, 5, 4], Sign::Signed);
        check(&[3], Sign::Unsigned);
        check(&[], Sign::Signed);
        let seed = 42;
        let mut state = seed;
        for round in 0..2000 {
            let length = random(&mut state) as usize % 1200;
            let bits = random(&mut state) % 63;
            let kind = random(&mut state) % 4;
            let mut sum = 0i64;
            let values: Vec<i64> = (0..length)
                .map(|_| {
                    let value = (random(&mut state) & ((1 << bits) - 1)) as i64;
                    match kind {
                        0 => value,
                        1 => value.wrapping_neg(),
                        2 => {
                            sum = sum.wrapping_add(value);
                            sum
                        }
                        _ => value % 3,
                    }
                })
                .collect();
            check(&values, Sign::Signed);
            if kind != 1 && values.iter().all(|value| *value >= 0) {
                check(&values, Sign::Unsigned);
            }
            assert!(round < 2000, "seed {seed}");
        }
    }

    #[test]
    fn bytes_and_booleans_are_read_as_they_were_written() {
        let mut state = 7;
        for _ in 0..500 {
            let length = random(&mut state) as usize % 700;
            let kinds = 1 + random(&mut state) % 5;
            let values: Vec<u8> = (0..length).map(|_| (random(&mut state) % kinds) as u8).collect();
            let mut out = Vec::new();
            bytes(&values, &mut out);
            let mut decoder = ByteRuns::new(stream(out));
            assert!(values.iter().all(|value| decoder.next() == Ok(*value)), "{values:?}");
            assert!(decoder.next().is_err());
            let mut out = Vec::new();
            bits(values.iter().map(|value| *value == 1), &mut out);
            let mut decoder = Bits::new(stream(out));
            assert!(values.iter().all(|value| decoder.next() == Ok(*value == 1)), "{values:?}");
        }
    }
}
