//! The rows of a table that a stream is joined with, and a hash index from keys to rows.

use super::closest_row::{SortedRows, ValueOf};
use super::keys::is_unmatchable;
use crate::table::physical::aggregate::hash_aggregate::{Key, write_keys};
use crate::table::physical::stages::Scratch;
use crate::table::row::Row;
use hashbrown::HashTable;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;

/// Marks the end of a linked list of rows.
pub(super) const NONE: u32 = u32::MAX;

/// The rows of the table and an index from keys to rows.
pub(super) struct Table {
    pub rows: Vec<Vec<u8>>,
    /// For each key, its hash and the index of its first row.
    index: HashTable<(u64, u32)>,
    keys: Vec<Vec<u8>>,
    /// For each row, the index of the next row with the same key, or [`NONE`].
    pub next: Vec<u32>,
    /// Whether any row is missing in the index, because it has a NULL key.
    pub has_null_keys: bool,
    /// For an ASOF join: the rows sorted by key and value.
    pub sorted: SortedRows,
}

/// The expressions by which a table is indexed.
pub(super) struct IndexBy {
    pub keys: Vec<Key>,
    /// For each key, whether NULL equals NULL.
    pub null_safe: Vec<bool>,
    /// For an ASOF join: computes the value by which the rows of a key are sorted. `None` for other
    /// joins, whose rows are not sorted.
    pub value_of: Option<ValueOf>,
}

impl Table {
    /// The index of the first row with a key, or [`NONE`].
    pub fn first(&self, key: &[u8]) -> u32 {
        let same = |&(_, at): &(u64, u32)| self.keys[at as usize] == key;
        self.index.find(hash_bytes(key), same).map_or(NONE, |&(_, at)| at)
    }
}

/// Indexes rows by their keys. A row that never matches, because it has a NULL key, is not in the
/// index.
pub(super) fn index(rows: Vec<Vec<u8>>, by: &mut IndexBy) -> Result<Table, EngineError> {
    let keys = &by.keys;
    let (mut index, mut of_rows) = (HashTable::<(u64, u32)>::new(), Vec::new());
    let mut next = vec![NONE; rows.len()];
    // For each key, the last row so far, stored at the index of the key's first row.
    let mut last: Vec<u32> = vec![NONE; rows.len()];
    let (mut scratch, mut has_null_keys) = (Scratch::default(), false);
    for (at, row) in rows.iter().enumerate() {
        let mut key = Vec::new();
        scratch.reset();
        write_keys(keys, &scratch, Row(row), &mut key)?;
        of_rows.push(key);
        if is_unmatchable(&of_rows[at], &by.null_safe) {
            has_null_keys = true;
            continue;
        }
        let (hash, at) = (hash_bytes(&of_rows[at]), at as u32);
        let same = |&(_, other): &(u64, u32)| of_rows[other as usize] == of_rows[at as usize];
        match index.find(hash, same) {
            Some(&(_, first)) => {
                let before = std::mem::replace(&mut last[first as usize], at);
                next[before as usize] = at;
            }
            None => {
                index.insert_unique(hash, (hash, at), |&(hash, _)| hash);
                last[at as usize] = at;
            }
        }
    }
    let sorted = match &mut by.value_of {
        Some(value_of) => {
            let mut firsts: Vec<u32> = index.iter().map(|&(_, first)| first).collect();
            firsts.sort_unstable();
            SortedRows::new(&rows, (firsts.into_iter(), &next), value_of)?
        }
        None => SortedRows::default(),
    };
    Ok(Table { rows, index, keys: of_rows, next, has_null_keys, sorted })
}
