//! A key table with incremental growth: a hash table whose inserts have a bounded cost.
//!
//! A table that doubles moves all its entries. For a million keys this takes tens of milliseconds,
//! in which no record is processed. Here entries are stored in chunks of at most 1,024, and a
//! [`LinkTable`] of slots finds them; it moves few slots at a time. The index stores a part of the
//! hash with each slot, so growing does not read the entries.
//!
//! *Slots.* The slot of an entry is valid until the entry is [freed](KeyTable::free). Then another
//! entry may use it. A new entry takes a free slot of the first chunk that has one, so the last
//! chunks become empty when the number of keys falls. Empty chunks that no recent epoch has needed
//! are freed, a few at a time ([`KeyTable::end_epoch`]). Callers that keep slots of entries which may
//! have been freed must use [`KeyTable::get`].
//!
//! *Limits.* A chunk is not freed while it contains an entry.

use crate::state::bit_set::BitSet;
use crate::state::link_table::LinkTable;
use millstream_engine::collections::high_water::HighWater;
use std::ops::{Index, IndexMut};

/// Number of entries per chunk; a power of two.
const CHUNK: usize = 1024;
/// Maximum number of chunks freed at the end of an epoch.
const RELEASE: usize = 8;
/// Number of freed keys after which [`KeyTable::release`] tries to free a chunk.
const FREES: usize = 64;

/// An entry of a key table.
pub(crate) trait KeyedEntry {
    /// The hash of the entry's key.
    fn hash(&self) -> u64;
    /// The entry's key; empty in a free slot.
    fn key(&self) -> &[u8];
}

/// A chunk of slots: their entries and the list of free slots.
struct Chunk<E> {
    entries: Vec<E>,
    free: Vec<u16>,
}

impl<E> Chunk<E> {
    const NONE: Self = Self { entries: Vec::new(), free: Vec::new() };

    /// Number of used slots.
    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Stores an entry in a free slot, or in a new slot if none is free. Returns the index of the
    /// slot in the chunk.
    #[inline]
    fn insert(&mut self, entry: E) -> usize {
        if let Some(at) = self.free.pop() {
            self.entries[usize::from(at)] = entry;
            return usize::from(at);
        }
        self.entries.push(entry);
        // Memory is allocated here so that freeing slots never allocates.
        if self.free.capacity() < self.entries.capacity() {
            self.free.reserve_exact(self.entries.capacity());
        }
        self.entries.len() - 1
    }
}

/// A hash table of entries by key; see the module.
pub(crate) struct KeyTable<E> {
    index: LinkTable,
    chunks: Vec<Chunk<E>>,
    /// Chunks with a free slot, including chunks whose memory was freed.
    open: BitSet,
    /// Chunks with memory but without entries.
    empty: BitSet,
    /// Number of chunks with memory.
    held: usize,
    /// The recent maximum number of keys.
    needed: HighWater,
    /// Number of keys freed since [`KeyTable::release`] last tried to free a chunk.
    frees: usize,
}

impl<E> Default for KeyTable<E> {
    fn default() -> Self {
        Self {
            index: LinkTable::default(),
            chunks: Vec::new(),
            open: BitSet::default(),
            empty: BitSet::default(),
            held: 0,
            needed: HighWater::default(),
            frees: 0,
        }
    }
}

impl<E: KeyedEntry> KeyTable<E> {
    /// The slot of a key; `None` if the key is not in the table.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.find_by(hash, |other| other == key)
    }

    /// Like [`find`](Self::find), with a predicate instead of the key's bytes. It is called for the
    /// keys whose hash agrees in its lower 32 bits.
    #[inline]
    pub fn find_by(&self, hash: u64, is_key: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let found = self.index.find(hash as u32, |slot| is_key(self[slot as usize].key()));
        found.map(|slot| slot as usize)
    }

    /// Adds an entry whose key is not in the table. Returns its slot.
    pub fn insert(&mut self, entry: E) -> usize {
        let hash = entry.hash();
        self.insert_hashed(hash, entry)
    }

    /// Like [`insert`](Self::insert), for an entry whose key has the given hash.
    #[inline]
    pub fn insert_hashed(&mut self, hash: u64, entry: E) -> usize {
        let number = self.open.first().unwrap_or(self.chunks.len());
        if number == self.chunks.len() {
            self.chunks.push(Chunk::NONE);
            self.open.insert(number);
        }
        let chunk = &mut self.chunks[number];
        if chunk.len() == 0 {
            if chunk.entries.capacity() == 0 {
                // The first chunk starts small and grows.
                chunk.entries.reserve_exact(if number == 0 { 1 } else { CHUNK });
                self.held += 1;
            }
            self.empty.remove(number);
        }
        let at = number * CHUNK + chunk.insert(entry);
        if chunk.len() == CHUNK {
            self.open.remove(number);
        }
        self.index.insert(hash as u32, at as u32);
        self.needed.note(self.index.len());
        at
    }

    /// Removes an entry from the index and frees its slot. The caller should also drop heap memory
    /// that the entry owns, because the entry itself is dropped only when the slot is reused or its
    /// chunk is freed.
    pub fn free(&mut self, at: usize) {
        let Some(entry) = self.get(at) else { return };
        if !self.index.remove(entry.hash() as u32, at as u32) {
            return;
        }
        let (number, chunk) = (at / CHUNK, &mut self.chunks[at / CHUNK]);
        if chunk.len() == CHUNK {
            self.open.insert(number);
        }
        chunk.free.push((at % CHUNK) as u16);
        if chunk.len() == 0 {
            self.empty.insert(number);
        }
        self.frees += 1;
    }

    /// Frees a chunk if many keys have been freed and there are more chunks than recent epochs
    /// needed. Call this when freed entries are no longer read.
    pub fn release(&mut self) {
        if self.frees >= FREES {
            self.frees = 0;
            self.release_chunk();
        }
    }

    /// Ends an epoch: frees some chunks that no recent epoch has needed.
    pub fn end_epoch(&mut self) {
        self.needed.end_epoch(self.index.len());
        for _ in 0..RELEASE {
            if !self.release_chunk() {
                break;
            }
        }
    }

    fn release_chunk(&mut self) -> bool {
        // One spare chunk, so that a size that varies around a chunk boundary allocates nothing.
        if self.held <= self.needed.mark().div_ceil(CHUNK) + 1 {
            return false;
        }
        let Some(number) = self.empty.last() else { return false };
        self.empty.remove(number);
        self.chunks[number] = Chunk::NONE;
        self.held -= 1;
        true
    }

    /// Loads the memory that [`free`](Self::free) will read for these slots into the cache, so that
    /// the cache misses overlap.
    #[cfg(any(feature = "sql", test))]
    pub fn prefetch(&self, slots: &[u32]) {
        slots.iter().for_each(|at| self.touch(*at as usize));
    }

    /// Loads the memory that a search for a hash will read into the cache.
    #[cfg(feature = "sql")]
    #[inline]
    pub fn prefetch_hash(&self, hash: u64) {
        self.index.prefetch(hash as u32);
    }

    /// Loads the memory that [`free`](Self::free) of a slot will read into the cache.
    #[cfg(any(feature = "sql", test))]
    #[inline]
    pub fn touch(&self, at: usize) {
        if let Some(entry) = self.get(at) {
            self.index.prefetch(entry.hash() as u32);
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.index.len()
    }
}

impl<E> KeyTable<E> {
    /// The entry in a slot. If the slot is free, the entry that was freed. `None` if the chunk was
    /// freed.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&E> {
        self.chunks.get(at / CHUNK)?.entries.get(at % CHUNK)
    }

    /// Like [`get`](Self::get), but the entry is mutable.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut E> {
        self.chunks.get_mut(at / CHUNK)?.entries.get_mut(at % CHUNK)
    }

    /// The upper bound of slot numbers, which includes free slots.
    pub fn slots(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK + last.entries.len(),
            None => 0,
        }
    }

    /// Memory of the table in bytes, without heap memory owned by entries.
    pub fn memory(&self) -> usize {
        let entries = match self.chunks.as_slice() {
            [only] => only.entries.capacity(),
            _ => self.held * CHUNK,
        };
        entries * (size_of::<E>() + size_of::<u16>()) + self.index.memory()
    }
}

impl<E> Index<usize> for KeyTable<E> {
    type Output = E;

    #[inline]
    fn index(&self, at: usize) -> &E {
        &self.chunks[at / CHUNK].entries[at % CHUNK]
    }
}

impl<E> IndexMut<usize> for KeyTable<E> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut E {
        &mut self.chunks[at / CHUNK].entries[at % CHUNK]
    }
}

/// Heap memory of a key that is not stored inline, in bytes.
pub(crate) fn key_heap(key: &smallvec::SmallVec<[u8; 40]>) -> u64 {
    if key.spilled() { key.capacity() as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::checkpoint::key_group::hash_bytes;
    use proptest::prelude::*;
    use std::collections::HashMap;

    struct Entry(Vec<u8>, u64);

    impl KeyedEntry for Entry {
        fn hash(&self) -> u64 {
            // Few different hashes, so that keys collide.
            hash_bytes(&self.0) & 0xFF_0000_0007
        }
        fn key(&self) -> &[u8] {
            &self.0
        }
    }

    proptest! {
        #[test]
        fn the_table_behaves_like_a_map(steps: Vec<(u16, bool)>) {
            let (mut table, mut model) = (KeyTable::<Entry>::default(), HashMap::new());
            for (number, (key, stays)) in steps.into_iter().enumerate() {
                if number % 8 == 0 {
                    table.end_epoch();
                }
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

    /// A key without hash collisions.
    struct Number(u64, [u8; 8]);

    impl KeyedEntry for Number {
        fn hash(&self) -> u64 {
            hash_bytes(&self.1)
        }
        fn key(&self) -> &[u8] {
            &self.1
        }
    }

    /// Adds a range of keys. Returns their slots.
    fn fill(table: &mut KeyTable<Number>, keys: std::ops::Range<u64>) -> Vec<usize> {
        keys.map(|n| table.insert(Number(n, n.to_le_bytes()))).collect()
    }

    #[test]
    fn chunks_of_a_burst_are_freed_a_few_at_a_time() {
        let mut table = KeyTable::default();
        let slots = fill(&mut table, 0..200 * CHUNK as u64);
        let stays = slots[100 * CHUNK + 5];
        let (full, mut held) = (table.memory(), table.held);
        for at in slots.into_iter().filter(|at| *at != stays) {
            table.free(at);
            table.release();
            assert!(held - table.held <= 1);
            held = table.held;
        }
        for _ in 0..300 {
            table.end_epoch();
            assert!(held - table.held <= RELEASE);
            held = table.held;
        }
        assert_eq!((table.len(), table[stays].0), (1, stays as u64));
        assert!(table.held <= 3, "{}", table.held);
        assert!(table.memory() < full / 20, "{full} to {}", table.memory());
        // Freed slots belong to no key, and new keys reuse them.
        assert!(table.get(150 * CHUNK).is_none());
        table.free(150 * CHUNK);
        table.prefetch(&[150 * CHUNK as u32]);
        let again = fill(&mut table, 1_000_000..1_000_000 + 200 * CHUNK as u64);
        assert!(again.iter().all(|at| *at <= 200 * CHUNK && *at != stays));
        assert_eq!(table.len(), 200 * CHUNK + 1);
    }

    #[test]
    fn chunks_are_reused_as_keys_come_and_go() {
        let mut table = KeyTable::default();
        let mut window = std::collections::VecDeque::new();
        let mut chunks = Vec::new();
        // The keys of two consecutive windows overlap for a time.
        for turn in 0..40u64 {
            window.push_back(fill(&mut table, turn * 5000..turn * 5000 + 5000));
            if window.len() > 2 {
                window.pop_front().into_iter().flatten().for_each(|at| {
                    table.free(at);
                    table.release();
                });
            }
            (0..20).for_each(|_| table.end_epoch());
            chunks.push((table.chunks.len(), table.held));
        }
        assert!(chunks[3..].windows(2).all(|two| two[0] == two[1]), "{chunks:?}");
    }

    #[test]
    fn slots_keep_their_entries_as_the_table_grows() {
        let mut table = KeyTable::default();
        let key = |at: usize| (at as u64).to_le_bytes().to_vec();
        for at in 0..5 * CHUNK {
            assert_eq!(table.insert(Entry(key(at), at as u64)), at);
        }
        for at in 0..5 * CHUNK {
            let entry = Entry(key(at), 0);
            assert_eq!(table.find(entry.hash(), &entry.0), Some(at));
        }
        assert_eq!((table.len(), table.slots()), (5 * CHUNK, 5 * CHUNK));
    }
}
