//! The key table: each join key once for both sides, with the runs of its rows.

use super::run::Run;
use crate::state::key_table::KeyedEntry;
use crate::table::row::{Row, Slot};
use smallvec::SmallVec;

/// A key and its rows.
pub(super) struct KeyEntry {
    pub hash: u64,
    pub key: SmallVec<[u8; 40]>,
    /// Of the left side and of the right side.
    pub runs: [Run; 2],
}

impl KeyEntry {
    pub fn new(hash: u64, key: &[u8]) -> Self {
        Self { hash, key: SmallVec::from_slice(key), runs: [Run::Empty, Run::Empty] }
    }

    /// Whether it has no rows on either side.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(Run::is_empty)
    }
}

impl KeyedEntry for KeyEntry {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Whether a row of so many keys has a NULL.
#[inline]
pub(super) fn has_null(key: &[u8], width: usize) -> bool {
    (0..width).any(|i| Row(key).is_null(Slot::new(i, width)))
}
