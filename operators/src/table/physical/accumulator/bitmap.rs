//! Bitmaps of fixed size, for `bitmap_construct_agg`, `bitmap_or_agg` and `bitmap_and_agg`, and the
//! count-min sketch of `count_min_sketch` in Spark's serialized form. Both are kept as the bytes of
//! the result.

use crate::table::expr::functions::murmur_bytes;
use crate::table::physical::accumulator::java_random::JavaRandom;

/// The size of a bitmap in bytes.
pub const BITMAP_BYTES: usize = 4096;

/// How a bitmap is made from the values of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bitmap {
    /// The values are positions of bits to set.
    Construct,
    /// The values are bitmaps; a bit is set if one has it.
    Or,
    /// The values are bitmaps; a bit is set if all have it.
    And,
}

impl Bitmap {
    /// The bitmap of a group without values.
    pub fn start(self) -> Vec<u8> {
        vec![if self == Self::And { u8::MAX } else { 0 }; BITMAP_BYTES]
    }

    /// Combines a bitmap with another, which may be longer or shorter than a bitmap: bytes that it
    /// has not are 0, and those beyond a bitmap are ignored.
    pub fn combine(self, bitmap: &mut [u8], other: &[u8]) {
        for (i, byte) in bitmap.iter_mut().enumerate() {
            let of_other = other.get(i).copied().unwrap_or(0);
            match self {
                Self::And => *byte &= of_other,
                Self::Construct | Self::Or => *byte |= of_other,
            }
        }
    }

    /// Sets a bit. Returns false if the position is not in the bitmap.
    pub fn set(bitmap: &mut [u8], position: i64) -> bool {
        let byte = usize::try_from(position).ok().and_then(|at| bitmap.get_mut(at / 8));
        let Some(byte) = byte else { return false };
        *byte |= 1 << (position % 8);
        true
    }
}

/// The shape of a count-min sketch: `depth` rows of `width` counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountMin {
    pub depth: usize,
    pub width: usize,
}

/// The modulus of the hash functions, a Mersenne prime.
const PRIME: i64 = (1 << 31) - 1;
/// The bytes before the seeds of the hash functions: version, number of values, depth and width.
const HEADER: usize = 4 + 8 + 4 + 4;

impl CountMin {
    /// The shape for a relative error and a confidence.
    pub fn new(eps: f64, confidence: f64) -> Self {
        let depth = (-(1.0 - confidence).ln() / 2f64.ln()).ceil() as usize;
        Self { depth, width: (2.0 / eps).ceil() as usize }
    }

    /// The size of a sketch in bytes.
    pub fn bytes(self) -> usize {
        HEADER.saturating_add(self.depth.saturating_mul(self.width.saturating_add(1) * 8))
    }

    /// The empty sketch.
    pub fn start(self, seed: i64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
        out.extend_from_slice(&0i64.to_be_bytes());
        out.extend_from_slice(&(self.depth as i32).to_be_bytes());
        out.extend_from_slice(&(self.width as i32).to_be_bytes());
        let mut random = JavaRandom::new(seed);
        for _ in 0..self.depth {
            out.extend_from_slice(&i64::from(random.below(i32::MAX as u32)).to_be_bytes());
        }
        out.resize(self.bytes(), 0);
        out
    }

    fn long(bytes: &[u8], at: usize) -> i64 {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        word.map_or(0, |word| i64::from_be_bytes(*word))
    }

    fn increase(bytes: &mut [u8], at: usize, by: i64) {
        let sum = Self::long(bytes, at).wrapping_add(by);
        if let Some(word) = bytes.get_mut(at..at + 8) {
            word.copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// The offset of a counter.
    fn counter(self, row: usize, bucket: usize) -> usize {
        HEADER + (self.depth + row * self.width + bucket) * 8
    }

    /// Adds a whole number.
    pub fn add_long(self, sketch: &mut [u8], value: i64) {
        for row in 0..self.depth {
            let mut hash = Self::long(sketch, HEADER + row * 8).wrapping_mul(value);
            hash = hash.wrapping_add(hash >> 32);
            let bucket = (hash & PRIME) as usize % self.width;
            Self::increase(sketch, self.counter(row, bucket), 1);
        }
        Self::increase(sketch, 4, 1);
    }

    /// Adds a string or binary value.
    pub fn add_bytes(self, sketch: &mut [u8], value: &[u8]) {
        let first = murmur_bytes(value, 0);
        let second = murmur_bytes(value, first);
        for row in 0..self.depth {
            let hash = first.wrapping_add((row as u32).wrapping_mul(second)) as i32;
            let bucket = (i64::from(hash) % self.width as i64).unsigned_abs() as usize;
            Self::increase(sketch, self.counter(row, bucket), 1);
        }
        Self::increase(sketch, 4, 1);
    }

    /// Adds the counters of another sketch of the same shape.
    pub fn merge(self, sketch: &mut [u8], other: &[u8]) {
        Self::increase(sketch, 4, Self::long(other, 4));
        for at in (self.counter(0, 0)..self.bytes()).step_by(8) {
            Self::increase(sketch, at, Self::long(other, at));
        }
    }
}
