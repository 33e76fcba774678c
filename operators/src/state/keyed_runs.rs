//! The entry of a key table that holds the rows of both sides of a join.

use crate::state::key_bytes::OwnedKey;
use crate::state::key_table::KeyedEntry;
use crate::state::ordered_run::Run;
use millstream_engine::checkpoint::key_group::hash_bytes;

/// A key with the rows of both sides, in one cache line.
#[repr(align(64))]
pub(crate) struct KeyedRuns {
    pub key: OwnedKey,
    /// The rows of the left side and of the right side.
    pub runs: [Run; 2],
}

const _: () = assert!(size_of::<KeyedRuns>() == 64);

impl KeyedRuns {
    pub fn new(key: &[u8]) -> Self {
        Self { key: OwnedKey::new(key), runs: [Run::Empty, Run::Empty] }
    }

    /// Whether the key has no rows on either side.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(Run::is_empty)
    }

    /// Computes the hash of the key. The hash is not stored, because computing it is cheaper.
    #[inline]
    pub fn hash(&self) -> u64 {
        hash_bytes(&self.key)
    }
}

impl KeyedEntry for KeyedRuns {
    #[inline]
    fn hash(&self) -> u64 {
        Self::hash(self)
    }
    #[inline]
    fn key(&self) -> &[u8] {
        &self.key
    }
}
