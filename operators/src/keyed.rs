//! A table of keys that grows without a pause.
//!
//! A table that doubles moves all it has, which takes tens of milliseconds for a million keys, in
//! which no record goes on. Here entries lie in chunks that never move, and they are found by a
//! [`SplitTable`], which moves little at a time. It has a part of an entry's hash beside its place, so
//! that to grow it need not look at the entries.
//!
//! *Places.* An entry is known by its place until it is [freed](Table::free); then another may have
//! it.

use crate::places::Places;
use millstream_engine::split_table::SplitTable;
use std::ops::{Index, IndexMut};

/// Entries of a chunk; a power of two.
const CHUNK: usize = 1024;

/// An entry that has a key.
pub(crate) trait Keyed {
    /// The hash of its key.
    fn hash(&self) -> u64;
    /// Its key; empty in a place that is free.
    fn key(&self) -> &[u8];
}

/// A part of a hash, and the place of the entry.
#[derive(Clone, Copy)]
struct Link(u32, u32);

impl Link {
    /// What the table goes by.
    #[inline]
    fn hash(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// The table.
pub(crate) struct Table<E> {
    index: SplitTable<Link>,
    chunks: Vec<Vec<E>>,
    free: Places,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Self { index: SplitTable::default(), chunks: Vec::new(), free: Places::default() }
    }
}

impl<E: Keyed> Table<E> {
    /// The place of a key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.find_by(hash, |other| other == key)
    }

    /// The same, of the key that something holds of.
    #[inline]
    pub fn find_by(&self, hash: u64, is_key: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let link = Link(hash as u32, 0);
        let same = |other: &Link| other.0 == link.0 && is_key(self[other.1 as usize].key());
        self.index.find(link.hash(), same).map(|link| link.1 as usize)
    }

    /// Adds an entry whose key is not there. Returns its place: the one that was freed last, if any
    /// is free.
    pub fn insert(&mut self, entry: E) -> usize {
        let hash = entry.hash();
        let at = match self.free.pop() {
            Some(at) => {
                self[at as usize] = entry;
                at as usize
            }
            None => {
                if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    // The first one may stay small.
                    let room = if self.chunks.is_empty() { 0 } else { CHUNK };
                    self.chunks.push(Vec::with_capacity(room));
                    // Now, and not when the place of each of them is freed.
                    self.free.reserve(self.chunks.len() * CHUNK);
                }
                let last = self.chunks.len() - 1;
                self.chunks[last].push(entry);
                last * CHUNK + self.chunks[last].len() - 1
            }
        };
        let link = Link(hash as u32, at as u32);
        self.index.insert_unique(link.hash(), link, |link| link.hash());
        at
    }

    /// Takes an entry out of the index and frees its place, where it stays until another one has it.
    pub fn free(&mut self, at: usize) {
        let hash = self[at].hash();
        let link = Link(hash as u32, at as u32);
        let same = |other: &Link| other.1 == link.1;
        if self.index.remove(link.hash(), same).is_some() {
            self.free.push(at as u32);
        }
    }

    /// Reads what [`free`](Self::free) of some places needs, together, so that memory is waited for
    /// once and not for each in turn.
    #[cfg(feature = "sql")]
    pub fn touch(&self, places: &[u32]) {
        for &at in places {
            let hash = self[at as usize].hash();
            let link = Link(hash as u32, at);
            std::hint::black_box(self.index.find(link.hash(), |other| other.1 == at).is_some());
        }
    }

    /// Places, free ones among them.
    pub fn places(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK + last.len(),
            None => 0,
        }
    }

    /// Keys.
    pub fn len(&self) -> usize {
        self.places() - self.free.len()
    }
}

impl<E> Index<usize> for Table<E> {
    type Output = E;

    #[inline]
    fn index(&self, at: usize) -> &E {
        &self.chunks[at / CHUNK][at % CHUNK]
    }
}

impl<E> IndexMut<usize> for Table<E> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut E {
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::key_group::hash_bytes;
    use proptest::prelude::*;
    use std::collections::HashMap;

    struct Entry(Vec<u8>, u64);

    impl Keyed for Entry {
        fn hash(&self) -> u64 {
            // Few different ones, so that they collide.
            hash_bytes(&self.0) & 0xFF_0000_0007
        }
        fn key(&self) -> &[u8] {
            &self.0
        }
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(steps: Vec<(u16, bool)>) {
            let (mut table, mut model) = (Table::<Entry>::default(), HashMap::new());
            for (number, (key, stays)) in steps.into_iter().enumerate() {
                let entry = Entry((key % 200).to_le_bytes().to_vec(), number as u64);
                let found = table.find(entry.hash(), &entry.0);
                prop_assert_eq!(found.map(|at| table[at].1), model.get(&entry.0).copied());
                match (found, stays) {
                    (Some(at), true) => table[at].1 = number as u64,
                    (Some(at), false) => {
                        table.free(at);
                        table[at].0.clear();
                        model.remove(&entry.0);
                        continue;
                    }
                    (None, _) => drop(table.insert(Entry(entry.0.clone(), entry.1))),
                }
                model.insert(entry.0, number as u64);
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }

    #[test]
    fn places_stay_what_they_are_over_many_chunks() {
        let mut table = Table::default();
        let key = |at: usize| (at as u64).to_le_bytes().to_vec();
        for at in 0..5 * CHUNK {
            assert_eq!(table.insert(Entry(key(at), at as u64)), at);
        }
        for at in 0..5 * CHUNK {
            let entry = Entry(key(at), 0);
            assert_eq!(table.find(entry.hash(), &entry.0), Some(at));
        }
        assert_eq!((table.len(), table.places()), (5 * CHUNK, 5 * CHUNK));
    }
}
