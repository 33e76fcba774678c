//! Which of 256 key groups a key belongs to, and which instance owns a group.
//!
//! State is kept by group, so that a query restarts with another parallelism. The hash is part
//! of the checkpoint format: it is fixed here, does not depend on the machine, and a test pins
//! its values.

use std::hash::{Hash, Hasher};

/// Number of key groups, whatever the parallelism.
pub const KEY_GROUPS: u64 = 256;

/// A hash of bytes that never changes: 8 bytes a step, multiply and fold, then a final mix.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = FixedHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// The group of a hash: its top 8 bits, which the tables below do not use for their buckets.
#[inline]
pub fn group_of(hash: u64) -> u64 {
    hash >> 56
}

/// The instance, of `instances`, that owns the group of a hash.
#[inline]
pub fn instance_of(hash: u64, instances: usize) -> usize {
    (group_of(hash) * instances as u64 / KEY_GROUPS) as usize
}

/// The group hash of any key.
#[inline]
pub fn hash_key<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = FixedHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

const K0: u64 = 0xA076_1D64_78BD_642F;
const K1: u64 = 0xE703_7ED1_A0B4_28DB;

/// [`hash_bytes`] as a standard hasher; also builds hash tables.
#[derive(Clone, Debug)]
pub struct FixedHasher(u64);

impl Default for FixedHasher {
    fn default() -> Self {
        Self(K1)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

impl Hasher for FixedHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes([
                chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
            ]);
            self.0 = fold(self.0 ^ word, K0);
        }
        let rest = chunks.remainder();
        let mut word = [0u8; 8];
        word[..rest.len()].copy_from_slice(rest);
        // The length goes in too, so that a trailing zero byte counts.
        self.0 = fold(self.0 ^ u64::from_le_bytes(word), K0 ^ bytes.len() as u64);
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

/// Builds [`FixedHasher`]s for a `HashMap`.
pub type BuildFixed = std::hash::BuildHasherDefault<FixedHasher>;

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
