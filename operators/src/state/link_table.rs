//! The index of a key table: from the hash of a key to the slot of its entry.
//!
//! Like [`LinearHashTable`](millstream_engine::collections::linear_hash_table), the index consists of
//! many small tables, and grows and shrinks by one of them at a time (linear hashing), so that no
//! insert or removal moves more than one or two thousand links. A small table is an array with linear
//! probing. A link is one word with its hash, so that a search usually reads one cache line, whose
//! address depends on the hash alone: [`LinkTable::prefetch`] has no branch that waits for memory.
//!
//! *Hashes.* The lower half of the key's hash is mixed. The upper half of the product chooses the
//! small table, its highest bits the position in the table.

#[cfg(any(feature = "sql", test))]
use millstream_engine::collections::prefetch::prefetch;

/// Average number of links of a small table when all have been split equally often. The table to
/// be split next has twice as many.
const FILL: usize = 400;
/// When small tables have fewer links than this on average, the last table is joined to the table
/// that it was split from.
const JOIN: usize = FILL / 4;
/// Number of positions of a small table that has been split; a power of two. With twice
/// [`FILL`] links three quarters of them are used.
const ROOM: usize = 1024;
/// Number of positions of the first table at the beginning.
const LEAST: usize = 8;
/// The word of a free position. No link has this slot.
const FREE: u64 = u64::MAX;

/// The lower half of a key's hash, and the slot of its entry.
#[derive(Clone, Copy)]
struct Link(u64);

impl Link {
    #[inline]
    fn new(hash: u32, slot: u32) -> Self {
        Self(u64::from(hash) << 32 | u64::from(slot))
    }
    #[inline]
    fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }
    #[inline]
    fn slot(self) -> u32 {
        self.0 as u32
    }
}

#[inline]
fn mix(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The bits that choose the small table.
#[inline]
fn bits(mixed: u64) -> usize {
    (mixed >> 32) as usize
}

/// A small table.
struct Small {
    words: Box<[u64]>,
    /// 64 minus the number of bits of a position.
    shift: u32,
    len: u32,
}

impl Small {
    fn new(room: usize) -> Self {
        let room = room.max(LEAST).next_power_of_two();
        Self { words: vec![FREE; room].into_boxed_slice(), shift: 64 - room.ilog2(), len: 0 }
    }

    #[inline]
    fn home(&self, mixed: u64) -> usize {
        (mixed >> self.shift) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.words.len() - 1)
    }

    /// The position of the link with this hash for which `is_it` is true.
    #[inline]
    fn position(&self, hash: u32, mixed: u64, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        let mut at = self.home(mixed);
        loop {
            let word = self.words[at];
            if word == FREE {
                return None;
            }
            let link = Link(word);
            if link.hash() == hash && is_it(link.slot()) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    #[inline]
    fn insert(&mut self, link: Link) {
        if (self.len as usize + 1) * 8 > self.words.len() * 7 {
            self.grow();
        }
        let mut at = self.home(mix(link.hash()));
        while self.words[at] != FREE {
            at = self.next(at);
        }
        self.words[at] = link.0;
        self.len += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let mut grown = Self::new(self.words.len() * 2);
        self.links().for_each(|link| grown.insert(link));
        *self = grown;
    }

    /// Removes the link at a position, and moves later links back to the free position, unless that
    /// is before their home.
    #[inline]
    fn remove(&mut self, mut free: usize) {
        let mask = self.words.len() - 1;
        let mut at = free;
        loop {
            at = self.next(at);
            let word = self.words[at];
            if word == FREE {
                break;
            }
            let home = self.home(mix(Link(word).hash()));
            // The distances from the home to the link and to the free position.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(free) & mask) {
                self.words[free] = word;
                free = at;
            }
        }
        self.words[free] = FREE;
        self.len -= 1;
    }

    fn links(&self) -> impl Iterator<Item = Link> + '_ {
        self.words.iter().filter(|word| **word != FREE).map(|word| Link(*word))
    }
}

/// The index; see the module.
pub(crate) struct LinkTable {
    tables: Vec<Small>,
    /// One less than the smallest power of two that is at least the number of tables.
    mask: usize,
    len: usize,
    /// The total number of positions.
    positions: usize,
}

impl Default for LinkTable {
    fn default() -> Self {
        let tables = vec![Small::new(LEAST)];
        Self { tables, mask: 0, len: 0, positions: LEAST }
    }
}

impl LinkTable {
    /// The number of the small table of a hash.
    #[inline]
    fn table(&self, mixed: u64) -> usize {
        self.table_of(bits(mixed))
    }

    #[inline]
    fn table_of(&self, bits: usize) -> usize {
        let at = bits & self.mask;
        // If the table has not been created in the current round yet, its links are in the table
        // that will be split.
        if at < self.tables.len() { at } else { at & (self.mask >> 1) }
    }

    /// Finds the slot of a key by the lower half of its hash. `is_key` is called for the slots whose
    /// hash is the same.
    #[inline]
    pub fn find(&self, hash: u32, is_key: impl Fn(u32) -> bool) -> Option<u32> {
        let mixed = mix(hash);
        let table = &self.tables[self.table(mixed)];
        table.position(hash, mixed, is_key).map(|at| Link(table.words[at]).slot())
    }

    /// Adds a slot that is not in the index.
    #[inline]
    pub fn insert(&mut self, hash: u32, slot: u32) {
        if self.len >= self.tables.len() * FILL {
            self.split();
        }
        self.len += 1;
        let table = self.table(mix(hash));
        self.change(table, |table| table.insert(Link::new(hash, slot)));
    }

    /// Removes a slot. Returns false if it is not in the index.
    #[inline]
    pub fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let mixed = mix(hash);
        let table = self.table(mixed);
        let table = &mut self.tables[table];
        let Some(at) = table.position(hash, mixed, |other| other == slot) else { return false };
        table.remove(at);
        self.len -= 1;
        if self.tables.len() > 1 && self.len < self.tables.len() * JOIN {
            self.join();
        }
        true
    }

    /// Loads the memory that a search for this hash reads first into the cache, so that the cache
    /// misses of several searches overlap.
    #[cfg(any(feature = "sql", test))]
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        let mixed = mix(hash);
        let table = &self.tables[self.table(mixed)];
        prefetch(&table.words[table.home(mixed)]);
    }

    /// Changes a small table, which may grow.
    #[inline]
    fn change(&mut self, table: usize, change: impl FnOnce(&mut Small)) {
        let table = &mut self.tables[table];
        let before = table.words.len();
        change(table);
        self.positions += table.words.len() - before;
    }

    /// Heap memory of the index, in bytes.
    pub fn memory(&self) -> usize {
        self.tables.capacity() * size_of::<Small>() + self.positions * size_of::<u64>()
    }

    /// Number of links.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Splits the next table in order.
    #[cold]
    fn split(&mut self) {
        let new = self.tables.len();
        self.mask = (new + 1).next_power_of_two() - 1;
        let old = new & (self.mask >> 1);
        let both = std::mem::replace(&mut self.tables[old], Small::new(ROOM));
        self.tables.push(Small::new(ROOM));
        self.positions = self.positions + 2 * ROOM - both.words.len();
        for link in both.links() {
            let table = if bits(mix(link.hash())) & self.mask == new { new } else { old };
            self.change(table, |table| table.insert(link));
        }
    }

    /// Joins the last small table to the one that it was split from. Does nothing if there is none.
    #[cold]
    fn join(&mut self) {
        let Some(last) = self.tables.pop() else { return };
        let number = self.tables.len();
        self.mask = number.next_power_of_two() - 1;
        self.positions -= last.words.len();
        let joined = self.table_of(number);
        let both = (self.tables[joined].len + last.len) as usize;
        // The remaining table may have grown beyond the usual size, by chance or before its last
        // split.
        if self.tables[joined].words.len() > ROOM && both <= ROOM / 2 {
            let large = std::mem::replace(&mut self.tables[joined], Small::new(ROOM));
            self.positions = self.positions + ROOM - large.words.len();
            large.links().for_each(|link| self.change(joined, |table| table.insert(link)));
        }
        for link in last.links() {
            self.change(joined, |table| table.insert(link));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn positions(table: &LinkTable) -> usize {
        table.tables.iter().map(|table| table.words.len()).sum()
    }

    #[test]
    fn memory_follows_the_number_of_links_in_small_steps() {
        let all: u32 = if cfg!(debug_assertions) { 100_000 } else { 2_000_000 };
        let hash = |slot: u32| slot.wrapping_mul(0x85EB_CA6B) ^ slot >> 13;
        let mut table = LinkTable::default();
        for slot in 0..all {
            let before = table.tables.len();
            table.insert(hash(slot), slot);
            assert!(table.tables.len() - before <= 1);
        }
        assert!((0..all).all(|slot| table.find(hash(slot), |other| other == slot).is_some()));
        assert_eq!((table.len(), table.positions), (all as usize, positions(&table)));
        let full = table.memory();
        assert!(full / (all as usize) < 28, "{full}");
        for slot in 0..all - 1000 {
            let before = table.tables.len();
            assert!(table.remove(hash(slot), slot) && !table.remove(hash(slot), slot));
            assert!(before - table.tables.len() <= 1);
        }
        let stay = all - 1000..all;
        assert!(stay.clone().all(|slot| table.find(hash(slot), |other| other == slot).is_some()));
        assert!(table.tables.len() <= 11, "{}", table.tables.len());
        assert!(table.memory() < full / 10, "{full} to {}", table.memory());
        // At a constant size no table is split or joined.
        let tables = table.tables.len();
        for slot in 0..10_000 {
            table.insert(hash(slot), slot);
            table.remove(hash(slot), slot);
            assert_eq!(table.tables.len(), tables);
        }
        stay.for_each(|slot| assert!(table.remove(hash(slot), slot)));
        assert_eq!((table.tables.len(), table.len()), (1, 0));
        assert_eq!(table.positions, positions(&table));
    }

    proptest! {
        /// Tests also hashes that differ in few bits only, and equal ones.
        #[test]
        fn the_index_behaves_like_a_map(steps: Vec<(u16, bool)>, bits: u32) {
            let hash = |slot: u32| slot.wrapping_mul(0x9E37_79B1) & (bits | 0xFFF);
            let (mut table, mut model) = (LinkTable::default(), BTreeMap::new());
            for (slot, stays) in steps {
                // Each step covers 50 neighbouring slots, so that the index becomes large.
                for slot in u32::from(slot)..u32::from(slot) + 50 {
                    let found = table.find(hash(slot), |other| other == slot);
                    prop_assert_eq!(found, model.get(&slot).copied());
                    match (found, stays) {
                        (None, true) => {
                            table.insert(hash(slot), slot);
                            model.insert(slot, slot);
                        }
                        (_, true) => table.prefetch(hash(slot)),
                        (_, false) => {
                            prop_assert_eq!(table.remove(hash(slot), slot), model.remove(&slot).is_some());
                        }
                    }
                }
                prop_assert_eq!((table.len(), table.positions), (model.len(), positions(&table)));
            }
        }
    }
}
