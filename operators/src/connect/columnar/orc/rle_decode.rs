//! Decoders of ORC's run-length encodings: bytes, booleans, and integers of versions 1 and 2.
//!
//! A decoder buffers at most one run of 512 values; a run's header cannot declare more.

use crate::connect::columnar::orc::stream::Stream;

/// The maximum number of values in a run.
const RUN: usize = 512;

/// Decodes run-length encoded bytes.
pub struct ByteRuns {
    stream: Stream,
    /// The number of values left in the current run.
    left: usize,
    /// The repeated byte of the current run. `None` in a literal run, whose bytes follow in the
    /// stream.
    repeated: Option<u8>,
}

impl ByteRuns {
    /// Decodes a stream.
    pub fn new(stream: Stream) -> Self {
        Self { stream, left: 0, repeated: None }
    }

    /// The next byte. Fails at the end of the stream.
    #[inline]
    pub fn next(&mut self) -> Result<u8, String> {
        if self.left == 0 {
            let control = self.stream.byte()?;
            if control < 128 {
                self.left = usize::from(control) + 3;
                self.repeated = Some(self.stream.byte()?);
            } else {
                self.left = 256 - usize::from(control);
                self.repeated = None;
            }
        }
        self.left -= 1;
        match self.repeated {
            Some(byte) => Ok(byte),
            None => self.stream.byte(),
        }
    }
}

/// Decodes booleans: bits of run-length encoded bytes, most significant bit first.
pub struct Bits {
    bytes: ByteRuns,
    byte: u8,
    left: u8,
}

impl Bits {
    /// Decodes a stream.
    pub fn new(stream: Stream) -> Self {
        Self { bytes: ByteRuns::new(stream), byte: 0, left: 0 }
    }

    /// The next boolean. Fails at the end of the stream.
    #[inline]
    pub fn next(&mut self) -> Result<bool, String> {
        if self.left == 0 {
            self.byte = self.bytes.next()?;
            self.left = 8;
        }
        self.left -= 1;
        Ok(self.byte >> self.left & 1 == 1)
    }
}

/// Whether integers are zigzag encoded. ORC encodes integers that may be negative this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Zigzag encoded.
    Signed,
    /// Not zigzag encoded.
    Unsigned,
}

/// Decodes run-length encoded integers.
pub struct Integers {
    stream: Stream,
    second_version: bool,
    sign: Sign,
    run: Box<[i64; RUN]>,
    length: usize,
    next: usize,
    /// A buffer for packed bytes that span two windows of the stream.
    spare: Vec<u8>,
}

#[inline]
fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The bit width of a five-bit width code in version 2.
fn width_of(code: u8) -> usize {
    match code {
        0..=23 => usize::from(code) + 1,
        24..=27 => usize::from(code - 24) * 2 + 26,
        28..=31 => usize::from(code - 28) * 8 + 40,
        _ => 64,
    }
}

/// The smallest width of version 2 that is at least `bits`.
pub fn packed_width(bits: usize) -> usize {
    match bits {
        0 => 1,
        1..=24 => bits,
        25..=32 => bits.next_multiple_of(2),
        _ => bits.next_multiple_of(8),
    }
}

impl Integers {
    /// Decodes a stream in version 2 of the encoding, or in version 1. `sign` says whether values
    /// are zigzag encoded.
    pub fn new(stream: Stream, second_version: bool, sign: Sign) -> Self {
        let run = Box::new([0; RUN]);
        Self { stream, second_version, sign, run, length: 0, next: 0, spare: Vec::new() }
    }

    /// The next integer. Fails at the end of the stream.
    #[inline]
    pub fn next(&mut self) -> Result<i64, String> {
        if self.next == self.length {
            self.fill()?;
        }
        self.next += 1;
        Ok(self.run[self.next - 1])
    }

    /// Passes the next `count` integers to `take`, in slices of at most one run. Fails at the end
    /// of the stream.
    #[inline]
    pub fn each(&mut self, mut count: usize, mut take: impl FnMut(&[i64])) -> Result<(), String> {
        while count > 0 {
            if self.next == self.length {
                self.fill()?;
            }
            let end = self.length.min(self.next + count);
            take(&self.run[self.next..end]);
            count -= end - self.next;
            self.next = end;
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), String> {
        self.next = 0;
        self.length = 0;
        if self.second_version { self.second() } else { self.first() }
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.stream.byte()?;
            value |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("an integer has too many bytes".to_string())
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.varint()?;
        Ok(if self.sign == Sign::Signed { zigzag(value) } else { value as i64 })
    }

    fn first(&mut self) -> Result<(), String> {
        let control = self.stream.byte()?;
        if control < 128 {
            let step = i64::from(self.stream.byte()? as i8);
            let mut value = self.number()?;
            self.length = usize::from(control) + 3;
            for i in 0..self.length {
                self.run[i] = value;
                value = value.wrapping_add(step);
            }
            return Ok(());
        }
        self.length = 256 - usize::from(control);
        for i in 0..self.length {
            self.run[i] = self.number()?;
        }
        Ok(())
    }

    fn second(&mut self) -> Result<(), String> {
        let head = self.stream.byte()?;
        match head >> 6 {
            0 => self.repeated(head),
            1 => {
                let (width, length) = self.header(head)?;
                self.unpack(0, length, width)?;
                if self.sign == Sign::Signed {
                    self.run[..length].iter_mut().for_each(|v| *v = zigzag(*v as u64));
                }
                self.length = length;
                Ok(())
            }
            2 => self.patched(head),
            _ => self.deltas(head),
        }
    }

    /// Reads the rest of a run's two-byte header: the bit width and the number of values.
    fn header(&mut self, head: u8) -> Result<(usize, usize), String> {
        let low = self.stream.byte()?;
        Ok((width_of(head >> 1 & 31), (usize::from(head & 1) << 8 | usize::from(low)) + 1))
    }

    fn big_endian(&mut self, bytes: usize) -> Result<u64, String> {
        let mut value = 0;
        for _ in 0..bytes {
            value = value << 8 | u64::from(self.stream.byte()?);
        }
        Ok(value)
    }

    fn repeated(&mut self, head: u8) -> Result<(), String> {
        let value = self.big_endian(usize::from(head >> 3 & 7) + 1)?;
        let value = if self.sign == Sign::Signed { zigzag(value) } else { value as i64 };
        self.length = usize::from(head & 7) + 3;
        self.run[..self.length].fill(value);
        Ok(())
    }

    /// Unpacks `count` values of `width` bits into the run buffer, from index `from` on.
    fn unpack(&mut self, from: usize, count: usize, width: usize) -> Result<(), String> {
        let Self { stream, spare, run, .. } = self;
        let bytes = stream.slice((count * width).div_ceil(8), spare)?;
        unpack(bytes, width, &mut run[from..from + count]);
        Ok(())
    }

    fn patched(&mut self, head: u8) -> Result<(), String> {
        let (width, length) = self.header(head)?;
        let (third, fourth) = (self.stream.byte()?, self.stream.byte()?);
        let base_bytes = usize::from(third >> 5) + 1;
        let patch_width = width_of(third & 31);
        let gap_width = usize::from(fourth >> 5) + 1;
        let patches = usize::from(fourth & 31);
        let base = self.big_endian(base_bytes)?;
        let sign = 1u64 << (base_bytes * 8 - 1);
        let size = (base & (sign - 1)) as i64;
        let base = if base & sign == 0 { size } else { size.wrapping_neg() };
        self.unpack(0, length, width)?;
        if gap_width + patch_width > 64 {
            return Err("a patch is too wide".to_string());
        }
        let mut entries = [0i64; 32];
        let entry_width = packed_width(gap_width + patch_width);
        let bytes = (patches * entry_width).div_ceil(8);
        let packed = self.stream.slice(bytes, &mut self.spare)?;
        unpack(packed, entry_width, &mut entries[..patches]);
        let mut at = 0;
        for entry in &entries[..patches] {
            let entry = *entry as u64;
            let patch = if patch_width == 64 { entry } else { entry & ((1 << patch_width) - 1) };
            at += entry.checked_shr(patch_width as u32).unwrap_or(0) as usize;
            let value =
                self.run[..length].get_mut(at).ok_or("a patch is beyond the end of its run")?;
            *value |= patch.checked_shl(width as u32).unwrap_or(0) as i64;
        }
        self.run[..length].iter_mut().for_each(|v| *v = v.wrapping_add(base));
        self.length = length;
        Ok(())
    }

    fn deltas(&mut self, head: u8) -> Result<(), String> {
        let (width, length) = self.header(head)?;
        let width = if head >> 1 & 31 == 0 { 0 } else { width };
        let first = self.number()?;
        let step = zigzag(self.varint()?);
        self.run[0] = first;
        let mut value = first;
        if width == 0 {
            for i in 1..length {
                value = value.wrapping_add(step);
                self.run[i] = value;
            }
        } else if length > 1 {
            self.unpack(2, length.max(2) - 2, width)?;
            value = value.wrapping_add(step);
            self.run[1] = value;
            for i in 2..length {
                let delta = self.run[i];
                value =
                    if step < 0 { value.wrapping_sub(delta) } else { value.wrapping_add(delta) };
                self.run[i] = value;
            }
        }
        self.length = length;
        Ok(())
    }
}

/// Unpacks values of `width` bits each, most significant bit first. The width is one of
/// [`packed_width`]. If `bytes` is too short, the missing bits are 0, or the last values are
/// unchanged.
fn unpack(bytes: &[u8], width: usize, values: &mut [i64]) {
    match width {
        8 => values.iter_mut().zip(bytes).for_each(|(v, b)| *v = i64::from(*b)),
        16 | 24 | 32 | 40 | 48 | 56 | 64 => {
            let whole = bytes.chunks_exact(width / 8);
            for (value, bytes) in values.iter_mut().zip(whole) {
                *value = bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)) as i64;
            }
        }
        // These widths are below 33, so the bits of a value and of a started byte fit.
        width => {
            let (mut held, mut bits, mut next) = (0u64, 0usize, bytes.iter());
            let mask = (1u64 << width) - 1;
            for value in values {
                while bits < width {
                    held = held << 8 | u64::from(next.next().copied().unwrap_or(0));
                    bits += 8;
                }
                bits -= width;
                *value = (held >> bits & mask) as i64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::columnar::orc::stream::{ByteSource, Codec, Compression};

    fn stream(bytes: &[u8]) -> Stream {
        let compression = Compression { codec: Codec::None, block: 0 };
        let file = ByteSource::Memory(bytes.to_vec().into());
        Stream::new(file, compression, 0, bytes.len() as u64)
    }

    fn read(bytes: &[u8], second: bool, sign: Sign, count: usize) -> Result<Vec<i64>, String> {
        let mut integers = Integers::new(stream(bytes), second, sign);
        (0..count).map(|_| integers.next()).collect()
    }

    #[test]
    fn examples_of_the_specification_are_read() {
        // Each example is taken from the ORC specification, one per encoding.
        assert_eq!(read(&[0x61, 0, 7], false, Sign::Unsigned, 100), Ok(vec![7; 100]));
        assert_eq!(
            read(&[0x61, 0xFF, 0x64], false, Sign::Unsigned, 100),
            Ok((1..=100).rev().collect::<Vec<_>>())
        );
        assert_eq!(
            read(&[0xFB, 2, 3, 6, 7, 11], false, Sign::Unsigned, 5),
            Ok(vec![2, 3, 6, 7, 11])
        );
        assert_eq!(read(&[0x0A, 0x27, 0x10], true, Sign::Unsigned, 5), Ok(vec![10000; 5]));
        let direct = [0x5E, 0x03, 0x5C, 0xA1, 0xAB, 0x1E, 0xDE, 0xAD, 0xBE, 0xEF];
        assert_eq!(read(&direct, true, Sign::Unsigned, 4), Ok(vec![23713, 43806, 57005, 48879]));
        let patched = [
            0x8E, 0x13, 0x2B, 0x21, 0x07, 0xD0, 0x1E, 0x00, 0x14, 0x70, 0x28, 0x32, 0x3C, 0x46,
            0x50, 0x5A, 0x64, 0x6E, 0x78, 0x82, 0x8C, 0x96, 0xA0, 0xAA, 0xB4, 0xBE, 0xFC, 0xE8,
        ];
        let mut expected = vec![2030, 2000, 2020, 1_000_000];
        expected.extend((2040..=2190).step_by(10));
        assert_eq!(read(&patched, true, Sign::Unsigned, 20), Ok(expected));
        let deltas = [0xC6, 0x09, 0x02, 0x02, 0x22, 0x42, 0x42, 0x46];
        let primes = vec![2, 3, 5, 7, 11, 13, 17, 19, 23, 29];
        assert_eq!(read(&deltas, true, Sign::Unsigned, 10), Ok(primes));
    }

    #[test]
    fn bytes_and_booleans_are_read() {
        let mut bytes = ByteRuns::new(stream(&[0x61, 0x00, 0xFE, 0x44, 0x45]));
        assert!((0..100).all(|_| bytes.next() == Ok(0)));
        assert_eq!((bytes.next(), bytes.next()), (Ok(0x44), Ok(0x45)));
        assert!(bytes.next().is_err());
        let mut bits = Bits::new(stream(&[0xFF, 0x80]));
        assert_eq!(bits.next(), Ok(true));
        assert!((0..7).all(|_| bits.next() == Ok(false)));
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let forms = [(false, Sign::Unsigned), (true, Sign::Unsigned), (true, Sign::Signed)];
            for (second, sign) in forms {
                let _ = read(&bytes, second, sign, 600);
            }
        }
    }
}
