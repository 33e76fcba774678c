//! A table of keys that grows and shrinks without a pause.
//!
//! A table that doubles moves all it has, which takes tens of milliseconds for a million keys, in
//! which no record goes on. Here entries lie in chunks that never move, and they are found by a
//! [`LinearHashTable`], which moves little at a time. It has a part of an entry's hash beside its slot, so
//! that to grow it need not look at the entries.
//!
//! *Slots.* An entry is known by its slot until it is [freed](KeyTable::free); then another may have
//! it. A new entry takes a free slot of the first chunk that has one, so that the last chunks empty
//! when the keys get fewer. Chunks without an entry that no recent epoch has needed are given back
//! ([`KeyTable::epoch`]), a few at a time. Their slots are gone then: whoever keeps slots of entries that
//! may have been freed uses [`KeyTable::get`].
//!
//! *Limits.* A chunk stays as long as one of its entries does.

use crate::state::bit_set::BitSet;
use millstream_engine::collections::high_water::HighWater;
use millstream_engine::collections::linear_hash_table::LinearHashTable;
use std::ops::{Index, IndexMut};

/// Entries of a chunk; a power of two.
const CHUNK: usize = 1024;
/// Chunks that are given back at the end of an epoch at most.
const RELEASE: usize = 8;
/// Keys that are freed for each chunk that is given back at once.
const FREES: usize = 64;

/// An entry with a key.
pub(crate) trait KeyedEntry {
    /// The hash of its key.
    fn hash(&self) -> u64;
    /// Its key; empty in a slot that is free.
    fn key(&self) -> &[u8];
}

/// A part of a hash, and the slot of the entry.
#[derive(Clone, Copy)]
struct HashLink(u32, u32);

impl HashLink {
    /// The part of the hash that the index uses.
    #[inline]
    fn hash(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// Entries, and which of their slots are free.
struct Chunk<E> {
    entries: Vec<E>,
    free: Vec<u16>,
}

impl<E> Chunk<E> {
    const NONE: Self = Self { entries: Vec::new(), free: Vec::new() };

    /// Slots with an entry.
    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Puts an entry into a free slot.
    #[inline]
    fn insert(&mut self, entry: E) -> usize {
        if let Some(at) = self.free.pop() {
            self.entries[usize::from(at)] = entry;
            return usize::from(at);
        }
        self.entries.push(entry);
        // Now, and not when the slots are freed.
        if self.free.capacity() < self.entries.capacity() {
            self.free.reserve_exact(self.entries.capacity());
        }
        self.entries.len() - 1
    }
}

/// The key table.
pub(crate) struct KeyTable<E> {
    index: LinearHashTable<HashLink>,
    chunks: Vec<Chunk<E>>,
    /// Chunks that can take an entry, those among them whose memory was given back.
    open: BitSet,
    /// Chunks that have memory and no entry.
    empty: BitSet,
    /// Chunks that have memory.
    held: usize,
    /// Of keys.
    needed: HighWater,
    /// Keys freed since a chunk was given back.
    frees: usize,
}

impl<E> Default for KeyTable<E> {
    fn default() -> Self {
        Self {
            index: LinearHashTable::default(),
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
    /// The slot of a key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.find_by(hash, |other| other == key)
    }

    /// Like [`find`](Self::find), with a predicate instead of the key's bytes.
    #[inline]
    pub fn find_by(&self, hash: u64, is_key: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let link = HashLink(hash as u32, 0);
        let same = |other: &HashLink| other.0 == link.0 && is_key(self[other.1 as usize].key());
        self.index.find(link.hash(), same).map(|link| link.1 as usize)
    }

    /// Adds an entry whose key is not there. Returns its slot.
    pub fn insert(&mut self, entry: E) -> usize {
        let hash = entry.hash();
        let number = self.open.first().unwrap_or(self.chunks.len());
        if number == self.chunks.len() {
            self.chunks.push(Chunk::NONE);
            self.open.insert(number);
        }
        let chunk = &mut self.chunks[number];
        if chunk.len() == 0 {
            if chunk.entries.capacity() == 0 {
                // The first one may stay small.
                chunk.entries.reserve_exact(if number == 0 { 1 } else { CHUNK });
                self.held += 1;
            }
            self.empty.remove(number);
        }
        let at = number * CHUNK + chunk.insert(entry);
        if chunk.len() == CHUNK {
            self.open.remove(number);
        }
        let link = HashLink(hash as u32, at as u32);
        self.index.insert_unique(link.hash(), link, |link| link.hash());
        self.needed.note(self.index.len());
        at
    }

    /// Takes an entry out of the index and frees its slot. What owns memory in it should be taken out
    /// too: it stays until another entry has the slot.
    pub fn free(&mut self, at: usize) {
        let Some(entry) = self.get(at) else { return };
        let link = HashLink(entry.hash() as u32, at as u32);
        let same = |other: &HashLink| other.1 == link.1;
        if self.index.remove(link.hash(), same, |link| link.hash()).is_none() {
            return;
        }
        let (number, chunk) = (at / CHUNK, &mut self.chunks[at / CHUNK]);
        chunk.free.push((at % CHUNK) as u16);
        if chunk.len() == 0 {
            self.empty.insert(number);
        }
        self.open.insert(number);
        self.frees += 1;
    }

    /// Gives back a chunk, if more are held than recent epochs needed, after many keys were freed. To
    /// be called when freed entries are no longer read.
    pub fn release(&mut self) {
        if self.frees >= FREES {
            self.frees = 0;
            self.release_chunk();
        }
    }

    /// An epoch is over: gives back some chunks that no recent one has needed.
    pub fn epoch(&mut self) {
        self.needed.epoch(self.index.len());
        for _ in 0..RELEASE {
            if !self.release_chunk() {
                break;
            }
        }
    }

    fn release_chunk(&mut self) -> bool {
        // One more, so that a size near the end of a chunk takes none.
        if self.held <= self.needed.mark().div_ceil(CHUNK) + 1 {
            return false;
        }
        let Some(number) = self.empty.last() else { return false };
        self.empty.remove(number);
        self.chunks[number] = Chunk::NONE;
        self.held -= 1;
        true
    }

    /// Reads what [`free`](Self::free) of some slots needs, together, so that memory is waited for
    /// once and not for each in turn.
    #[cfg(any(feature = "sql", test))]
    pub fn prefetch(&self, slots: &[u32]) {
        for &at in slots {
            let Some(entry) = self.get(at as usize) else { continue };
            let link = HashLink(entry.hash() as u32, at);
            std::hint::black_box(self.index.find(link.hash(), |other| other.1 == at).is_some());
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.index.len()
    }
}

impl<E> KeyTable<E> {
    /// What is in a slot: its entry, or the last one that was there. `None` if its chunk was given back.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&E> {
        self.chunks.get(at / CHUNK)?.entries.get(at % CHUNK)
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut E> {
        self.chunks.get_mut(at / CHUNK)?.entries.get_mut(at % CHUNK)
    }

    /// Slots, free ones among them and those that were given back: from 0 up to here.
    pub fn slots(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK + last.entries.len(),
            None => 0,
        }
    }

    /// Memory that it takes, in bytes, without what entries own apart.
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

/// Memory that a key owns apart from its entry.
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
            let (mut table, mut model) = (KeyTable::<Entry>::default(), HashMap::new());
            for (number, (key, stays)) in steps.into_iter().enumerate() {
                if number % 8 == 0 {
                    table.epoch();
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

    /// A key that collides with no other.
    struct Number(u64, [u8; 8]);

    impl KeyedEntry for Number {
        fn hash(&self) -> u64 {
            hash_bytes(&self.1)
        }
        fn key(&self) -> &[u8] {
            &self.1
        }
    }

    /// Adds some keys. Returns their slots.
    fn fill(table: &mut KeyTable<Number>, keys: std::ops::Range<u64>) -> Vec<usize> {
        keys.map(|n| table.insert(Number(n, n.to_le_bytes()))).collect()
    }

    #[test]
    fn chunks_that_a_burst_needed_are_given_back_a_few_at_a_time() {
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
            table.epoch();
            assert!(held - table.held <= RELEASE);
            held = table.held;
        }
        assert_eq!((table.len(), table[stays].0), (1, stays as u64));
        assert!(table.held <= 3, "{}", table.held);
        assert!(table.memory() < full / 20, "{full} to {}", table.memory());
        // Freed slots belong to no key, and the next keys use them again.
        assert!(table.get(150 * CHUNK).is_none());
        table.free(150 * CHUNK);
        table.prefetch(&[150 * CHUNK as u32]);
        let again = fill(&mut table, 1_000_000..1_000_000 + 200 * CHUNK as u64);
        assert!(again.iter().all(|at| *at <= 200 * CHUNK && *at != stays));
        assert_eq!(table.len(), 200 * CHUNK + 1);
    }

    #[test]
    fn keys_that_come_and_go_take_no_new_chunk() {
        let mut table = KeyTable::default();
        let mut window = std::collections::VecDeque::new();
        let mut chunks = Vec::new();
        // Two windows of keys overlap for a time.
        for turn in 0..40u64 {
            window.push_back(fill(&mut table, turn * 5000..turn * 5000 + 5000));
            if window.len() > 2 {
                window.pop_front().into_iter().flatten().for_each(|at| {
                    table.free(at);
                    table.release();
                });
            }
            (0..20).for_each(|_| table.epoch());
            chunks.push((table.chunks.len(), table.held));
        }
        assert!(chunks[3..].windows(2).all(|two| two[0] == two[1]), "{chunks:?}");
    }

    #[test]
    fn slots_stay_what_they_are_over_many_chunks() {
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
