//! Key groups: which of the 256 groups a key belongs to, and which instance owns a group.
//!
//! State is stored by key group, so that a query can restart with another parallelism.
//! [`hash_bytes`] is part of the checkpoint format, and a test pins its values.

use std::hash::{Hash, Hasher};

/// Number of key groups, whatever the parallelism.
pub const KEY_GROUPS: u64 = 256;

/// A hash of bytes that is the same on every machine: 8 bytes a step, multiply and fold, then a
/// final mix.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = StableHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// [`hash_bytes`] of two words followed by bytes, without concatenating them.
#[inline]
pub fn hash_with_prefix(words: [u64; 2], rest: &[u8]) -> u64 {
    let mut hasher = StableHasher::default();
    words.into_iter().for_each(|word| hasher.write_u64(word));
    hasher.write_after(16, rest);
    hasher.finish()
}

/// The key group of a hash: its top 8 bits, which hash tables do not use to choose a bucket.
#[inline]
pub fn group_of(hash: u64) -> u64 {
    hash >> 56
}

/// The instance, of `instances`, that owns the group of a hash.
#[inline]
pub fn instance_of(hash: u64, instances: usize) -> usize {
    (group_of(hash) * instances as u64 / KEY_GROUPS) as usize
}

/// The hash of a typed key.
#[inline]
pub fn hash_key<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = StableHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

const K0: u64 = 0xA076_1D64_78BD_642F;
const K1: u64 = 0xE703_7ED1_A0B4_28DB;

/// The hash function of [`hash_bytes`] as a standard hasher.
#[derive(Clone, Debug)]
pub struct StableHasher(u64);

impl Default for StableHasher {
    fn default() -> Self {
        Self(K1)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// The last, incomplete word, padded with zeros. It is read with at most two loads, which is faster
/// than copying it into a buffer of 8 bytes.
#[inline]
fn tail(bytes: &[u8], length: usize) -> u64 {
    let rest = &bytes[bytes.len() - length..];
    let four = |at: usize| {
        u64::from(u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]))
    };
    match length {
        0 => 0,
        1 => u64::from(rest[0]),
        2 | 3 => {
            let (first, last) = (u16::from_le_bytes([rest[0], rest[1]]), rest[length - 1]);
            u64::from(first) | u64::from(last) << (8 * (length - 1))
        }
        _ => four(0) | four(length - 4) << (8 * (length - 4)),
    }
}

impl StableHasher {
    /// Hashes bytes that follow `before` earlier bytes.
    #[inline]
    fn write_after(&mut self, before: usize, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes([
                chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
            ]);
            self.0 = fold(self.0 ^ word, K0);
        }
        let word = tail(bytes, chunks.remainder().len());
        // The length is hashed too, so that a trailing zero byte counts.
        self.0 = fold(self.0 ^ word, K0 ^ (before + bytes.len()) as u64);
    }
}

impl Hasher for StableHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.write_after(0, bytes);
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value, K0);
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        fold(self.0, K1 ^ (self.0 >> 32))
    }
}

/// Builds [`StableHasher`]s for a `HashMap`.
pub type BuildStableHasher = std::hash::BuildHasherDefault<StableHasher>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_never_changes() {
        assert_eq!(
            [hash_bytes(b""), hash_bytes(b"a"), hash_bytes(b"stream"), hash_bytes(b"millstream!")],
            PINNED
        );
    }
    const PINNED: [u64; 4] = [
        12_956_550_776_546_109_002,
        14_192_557_379_238_311_495,
        12_328_699_745_436_506_165,
        8_231_959_047_923_031_840,
    ];

    /// A tail read in pieces equals the tail read at once, and two words followed by bytes hash
    /// like the concatenated bytes.
    #[test]
    fn hashing_in_pieces_equals_hashing_at_once() {
        let bytes: Vec<u8> = (1..=40).collect();
        for length in 0..24 {
            let mut word = [0u8; 8];
            let rest = length % 8;
            word[..rest].copy_from_slice(&bytes[length - rest..length]);
            assert_eq!(tail(&bytes[..length], rest), u64::from_le_bytes(word), "{length}");
            let words = [bytes[..8].try_into().unwrap(), bytes[8..16].try_into().unwrap()];
            let words = words.map(u64::from_le_bytes);
            let whole = &bytes[..16 + length];
            assert_eq!(hash_with_prefix(words, &whole[16..]), hash_bytes(whole), "{length}");
        }
    }

    #[test]
    fn groups_spread_evenly_over_instances() {
        for instances in [1, 2, 3, 7] {
            let mut counts = vec![0u32; instances];
            for i in 0..30_000u32 {
                counts[instance_of(hash_bytes(format!("key-{i}").as_bytes()), instances)] += 1;
            }
            let fair = 30_000 / instances as u32;
            assert!(counts.iter().all(|&c| c > fair * 9 / 10 && c < fair * 11 / 10), "{counts:?}");
        }
    }
}
