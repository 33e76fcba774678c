//! The entry of a key table that holds the rows of both sides of a join.

use crate::state::key_bytes::OwnedKey;
use crate::state::key_table::KeyedEntry;
use crate::state::ordered_run::Run;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::measure::operator_state::JoinInput;

/// A key with the rows of both sides, in one cache line.
#[repr(align(64))]
pub(crate) struct KeyedRuns {
    pub key: OwnedKey,
    /// The rows of the left side and of the right side.
    pub runs: [Run; 2],
}

const _: () = assert!(size_of::<KeyedRuns>() == 64);

/// The approximate memory of a row's entry in the run of its key, in bytes.
const RUN_ENTRY: u64 = 10;
/// The approximate memory of a row's entry in an expiry queue, in bytes.
const EXPIRY_ENTRY: u64 = 6;
/// The approximate memory of a key's slot number and of its link in the index, in bytes.
const KEY_LINK: u64 = 23;
/// The approximate memory of a key whose bytes are stored inline. The first row of a key needs no
/// entry in a block, but [`row_entries`] counts one.
const KEY: u64 = size_of::<KeyedRuns>() as u64 + KEY_LINK - RUN_ENTRY;

/// The approximate memory of the entries of a row in the run of its key and in the expiry queue, if
/// the row expires, in bytes.
#[inline]
pub(crate) fn row_entries(expires: bool) -> u64 {
    RUN_ENTRY + if expires { EXPIRY_ENTRY } else { 0 }
}

/// The approximate memory of a number of keys, in bytes. `heap` is that of the keys that are not
/// stored inline.
#[inline]
pub(crate) fn keys_memory(keys: usize, heap: u64) -> u64 {
    keys as u64 * KEY + heap
}

/// Adds the memory of the keys to that of the rows of each side, in proportion to the rows.
pub(crate) fn add_keys(inputs: &mut [JoinInput; 2], bytes: u64) {
    let rows: u64 = inputs.iter().map(|input| input.rows).sum();
    for input in inputs {
        let share = u128::from(bytes) * u128::from(input.rows) / u128::from(rows.max(1));
        input.bytes += share as u64;
    }
}

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
