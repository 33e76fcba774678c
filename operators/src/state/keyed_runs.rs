//! The entry of a join's key table: the rows of both sides for one key.

use crate::state::key_table::KeyedEntry;
use crate::state::ordered_run::Run;
use smallvec::SmallVec;

/// A key with its rows.
pub(crate) struct KeyedRuns {
    pub hash: u64,
    pub key: SmallVec<[u8; 40]>,
    /// The rows of the left side and of the right side.
    pub runs: [Run; 2],
}

impl KeyedRuns {
    pub fn new(hash: u64, key: &[u8]) -> Self {
        Self { hash, key: SmallVec::from_slice(key), runs: [Run::Empty, Run::Empty] }
    }

    /// Whether the key has no rows on either side.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(Run::is_empty)
    }
}

impl KeyedEntry for KeyedRuns {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &[u8] {
        &self.key
    }
}
