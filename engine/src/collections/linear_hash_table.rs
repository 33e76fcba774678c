//! A hash table that grows and shrinks by one small table at a time.
//!
//! A table that doubles moves all its entries at once. For a million entries the move takes tens of
//! milliseconds, in which no record is processed. Here entries are spread over many small tables.
//! Each time the table has grown by `FILL` entries, the next small table in order is split in two
//! (linear hashing). An insert causes at most one split, which moves about `2 * FILL` entries if
//! the hashes are evenly distributed. When there are fewer than `JOIN` entries per small table on
//! average, the small tables are joined in the opposite order, one per `JOIN` removals.
//!
//! *Hashes.* Bits 32 and up choose the small table, which itself uses the lowest and the highest
//! bits.

use hashbrown::HashTable;

/// The average number of entries per small table above which an insert splits the next table.
/// During a round of splits, tables not yet split have up to twice as many.
const FILL: usize = 400;
/// The average number of entries per small table below which the last table is joined to the table
/// that it was split from.
const JOIN: usize = FILL / 4;
/// Capacity of a small table after a split: [`FILL`] entries with their variance, in 512 buckets.
/// It usually doubles once before the next split.
const ROOM: usize = 448;

/// The table. Like [`HashTable`], it takes the hash and the comparison from the caller.
#[derive(Debug)]
pub struct LinearHashTable<T> {
    tables: Vec<HashTable<T>>,
    /// One less than the smallest power of two that is at least the number of tables.
    mask: usize,
    len: usize,
}

impl<T> Default for LinearHashTable<T> {
    fn default() -> Self {
        Self { tables: vec![HashTable::new()], mask: 0, len: 0 }
    }
}

#[inline]
fn bits(hash: u64) -> usize {
    (hash >> 32) as usize
}

impl<T> LinearHashTable<T> {
    /// The index of the small table that holds a hash.
    #[inline]
    fn table(&self, hash: u64) -> usize {
        self.table_of(bits(hash))
    }

    #[inline]
    fn table_of(&self, bits: usize) -> usize {
        let at = bits & self.mask;
        // If the table has not been created in the current round yet, its entries are in the table
        // that will be split.
        if at < self.tables.len() { at } else { at & (self.mask >> 1) }
    }

    /// Finds the entry with this hash for which `is_it` is true.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.tables[self.table(hash)].find(hash, is_it)
    }

    /// Like [`find`](Self::find), but the entry is mutable.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let table = self.table(hash);
        self.tables[table].find_mut(hash, is_it)
    }

    /// Inserts an entry that is not in the table. `hash_of` returns the hash of any entry.
    pub fn insert_unique(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) -> &mut T {
        if self.len >= self.tables.len() * FILL {
            self.split(&hash_of);
        }
        self.len += 1;
        let table = self.table(hash);
        self.tables[table].insert_unique(hash, entry, hash_of).into_mut()
    }

    /// Removes the entry with this hash for which `is_it` is true. `hash_of` returns the hash of
    /// any entry.
    pub fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let table = self.table(hash);
        let (entry, _) = self.tables[table].find_entry(hash, is_it).ok()?.remove();
        self.len -= 1;
        if self.tables.len() > 1 && self.len < self.tables.len() * JOIN {
            self.join(&hash_of);
        }
        Some(entry)
    }

    /// Approximate heap memory of the table, in bytes.
    pub fn memory(&self) -> usize {
        // The table stores one byte of the hash with each entry.
        match self.tables.as_slice() {
            [only] => only.capacity() * (size_of::<T>() + 1),
            all => size_of_val(all) + all.len() * ROOM * (size_of::<T>() + 1),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Splits the next table in order.
    #[cold]
    fn split(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let new = self.tables.len();
        self.mask = (new + 1).next_power_of_two() - 1;
        let old = new & (self.mask >> 1);
        let both = std::mem::replace(&mut self.tables[old], HashTable::with_capacity(ROOM));
        self.tables.push(HashTable::with_capacity(ROOM));
        for entry in both {
            let hash = hash_of(&entry);
            let table = if bits(hash) & self.mask == new { new } else { old };
            self.tables[table].insert_unique(hash, entry, hash_of);
        }
    }

    /// Joins the last small table to the one that it was split from. Does nothing if there is none.
    #[cold]
    fn join(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let Some(last) = self.tables.pop() else { return };
        let number = self.tables.len();
        self.mask = number.next_power_of_two() - 1;
        let joined = self.table_of(number);
        let joined = &mut self.tables[joined];
        // The remaining table may have grown beyond the usual size, by chance or before its last
        // split.
        if joined.capacity() > 2 * ROOM && joined.len() + last.len() <= ROOM {
            joined.shrink_to(ROOM, hash_of);
        }
        for entry in last {
            joined.insert_unique(hash_of(&entry), entry, hash_of);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::checkpoint::key_group::hash_key;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::HashMap;

    fn hash_of(entry: &(u64, u64)) -> u64 {
        hash_key(&entry.0)
    }

    fn get(table: &LinearHashTable<(u64, u64)>, key: u64) -> Option<u64> {
        table.find(hash_key(&key), |(other, _)| *other == key).map(|(_, value)| *value)
    }

    #[test]
    fn every_key_is_found_after_growth_and_no_insert_moves_many() {
        let (mut table, moved, mut most) = (LinearHashTable::default(), Cell::new(0), 0);
        let counting = |entry: &(u64, u64)| {
            moved.set(moved.get() + 1);
            hash_of(entry)
        };
        let all = if cfg!(debug_assertions) { 100_000 } else { 2_000_000 };
        for key in 0..all {
            table.insert_unique(hash_key(&key), (key, key + 1), counting);
            most = most.max(moved.take());
        }
        assert_eq!(table.len(), all as usize);
        assert!((0..all).all(|key| get(&table, key) == Some(key + 1)));
        assert_eq!(get(&table, all), None);
        assert!(most < 1200, "{most} in one step");
        for key in (0..all).filter(|key| key % 2 == 0) {
            let taken = table.remove(hash_key(&key), |(other, _)| *other == key, hash_of);
            assert_eq!(taken, Some((key, key + 1)));
        }
        assert_eq!(table.len(), all as usize / 2);
        assert!((0..all).all(|key| get(&table, key).is_some() == (key % 2 == 1)));
        // Inserts and removals in balance do not add tables.
        let tables = table.tables.len();
        for key in all..2 * all {
            table.insert_unique(hash_key(&key), (key, 0), hash_of);
            assert!(table.remove(hash_key(&key), |(other, _)| *other == key, hash_of).is_some());
        }
        assert_eq!(table.tables.len(), tables);
    }

    #[test]
    fn a_table_that_empties_gives_its_memory_back_in_small_steps() {
        let mut table = LinearHashTable::default();
        let all = if cfg!(debug_assertions) { 100_000 } else { 2_000_000 };
        for key in 0..all {
            table.insert_unique(hash_key(&key), (key, key + 1), hash_of);
        }
        let (full, moved, mut most) = (table.memory(), Cell::new(0), 0);
        let counting = |entry: &(u64, u64)| {
            moved.set(moved.get() + 1);
            hash_of(entry)
        };
        for key in 0..all - 1000 {
            let before = table.tables.len();
            assert!(table.remove(hash_key(&key), |(other, _)| *other == key, counting).is_some());
            most = most.max(moved.take());
            assert!(before - table.tables.len() <= 1);
        }
        assert!((all - 1000..all).all(|key| get(&table, key) == Some(key + 1)));
        assert!(most < 1200, "{most} in one step");
        assert!(table.tables.len() <= 11, "{}", table.tables.len());
        assert!(table.memory() < full / 10, "{full} to {}", table.memory());
        let capacity: usize = table.tables.iter().map(HashTable::capacity).sum();
        assert!(capacity <= 11 * 2 * ROOM, "{capacity}");
        // At a constant size no table is split or joined.
        let tables = table.tables.len();
        for key in 0..10_000 {
            table.insert_unique(hash_key(&key), (key, 0), hash_of);
            table.remove(hash_key(&key), |(other, _)| *other == key, hash_of);
            assert_eq!(table.tables.len(), tables);
        }
        for key in all - 1000..all {
            table.remove(hash_key(&key), |(other, _)| *other == key, hash_of);
        }
        assert_eq!((table.tables.len(), table.is_empty()), (1, true));
    }

    proptest! {
        /// Tests also hashes that differ in few bits only.
        #[test]
        fn the_table_behaves_like_a_map(steps: Vec<(u16, bool)>, bits: u64) {
            let hash_of = |key: u16| hash_key(&key) & bits;
            let (mut table, mut model) = (LinearHashTable::<(u16, usize)>::default(), HashMap::new());
            for (number, (key, stays)) in steps.into_iter().enumerate() {
                // Each step covers 50 neighbouring keys, so that the table becomes large.
                for key in key..key.saturating_add(50) {
                    let hash = hash_of(key);
                    let same = |entry: &(u16, usize)| entry.0 == key;
                    let found = table.find_mut(hash, same).map(|entry| &mut entry.1);
                    prop_assert_eq!(found.as_deref().copied(), model.get(&key).copied());
                    match (found, stays) {
                        (Some(value), true) => *value = number,
                        (None, true) => {
                            let all = |entry: &(u16, usize)| hash_of(entry.0);
                            table.insert_unique(hash, (key, number), all);
                        }
                        (_, false) => {
                            let all = |entry: &(u16, usize)| hash_of(entry.0);
                            let taken = table.remove(hash, same, all).map(|entry| entry.1);
                            prop_assert_eq!(taken, model.remove(&key));
                            continue;
                        }
                    }
                    model.insert(key, number);
                }
                prop_assert_eq!((table.len(), table.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
