//! The rows of one key on one side of a join or in a window, ordered by time and then by number.
//!
//! A single row is stored inline, because many keys have only one. Two or more rows are in a block
//! of entries that grows with them. If the block is full, the rows are split into a list of blocks.
//! So inserting an out-of-order row moves few entries, even among a million rows. An entry is the
//! distance of its time from the block's base time, and the row's id. It takes eight bytes if the
//! times of a block are within an hour.

mod block;

use crate::state::byte_slab::{ByteSlab, SlotId};
use block::{Block, BlockMut};
use std::collections::VecDeque;

/// Maximum size of a block, in bytes.
const BLOCK_BYTES: usize = 640;
/// Maximum size of a block of a long list, in bytes. It is larger, so that the list for a hundred
/// million rows is short.
const LONG_BLOCK_BYTES: usize = 5 << 10;
/// Number of blocks from which a list is long.
const LONG: usize = 256;
const CHUNK_BYTES: usize = 16 << 10;
/// Maximum number of empty lists kept for reuse.
const SPARES: usize = 256;

/// The slot of a row in its store. Valid until the row is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowId(pub u32);

/// A store of rows whose numbers ascend in the order of arrival.
pub(crate) trait NumberedRows {
    /// The number of a row. For a removed row, another number: that of a later row in its slot, or
    /// one that no row has.
    fn number(&self, id: RowId) -> u64;
}

/// A row with its time.
// The layout has no padding, so that a run of one row takes 16 bytes.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub time_us: i64,
    pub row: RowId,
}

/// A position in a run. Valid until the run changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    block: usize,
    at: usize,
}

impl Cursor {
    /// Moves to the next row.
    #[inline]
    pub fn advance(&mut self) {
        self.at += 1;
    }
}

/// A block in the list of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedBlock {
    /// The first entry of the block.
    first: Entry,
    block: SlotId,
}

/// The rows of a run.
#[derive(Debug, Default)]
pub(crate) enum Run {
    #[default]
    Empty,
    One(Entry),
    /// Two or more rows in one block.
    Block(SlotId),
    /// A list of blocks, none of which is empty.
    Blocks(BlockList),
}

type BlockList = Box<VecDeque<ListedBlock>>;

/// The blocks of the runs of an operator instance.
pub(crate) struct RunStore {
    slab: ByteSlab,
    /// Empty lists for reuse.
    spares: Vec<BlockList>,
    /// Number of blocks in lists.
    listed: usize,
    /// A buffer for entries that are moved to another block.
    moved: Vec<u8>,
}

/// The error of a store that has more blocks than it can number.
#[derive(Debug)]
pub(crate) struct RunStoreFull;

impl Default for RunStore {
    fn default() -> Self {
        Self { slab: ByteSlab::new(CHUNK_BYTES), spares: Vec::new(), listed: 0, moved: Vec::new() }
    }
}

impl RunStore {
    #[inline]
    fn block(&self, id: SlotId) -> Block<'_> {
        Block::of(self.slab.bytes(id))
    }

    #[inline]
    fn block_mut(&mut self, id: SlotId) -> BlockMut<'_> {
        BlockMut::of(self.slab.bytes_mut(id))
    }

    /// Creates an empty block of at least `bytes` bytes.
    fn make(&mut self, bytes: usize) -> Result<SlotId, RunStoreFull> {
        let id = self.slab.take(bytes).ok_or(RunStoreFull)?;
        self.block_mut(id).clear();
        Ok(id)
    }

    /// Moves the entries of a block from index `from` on to a new block. The new block has at least
    /// `bytes` bytes, and enough for the moved entries. Fails, with the block unchanged, if the store
    /// has no slot for it.
    fn split(&mut self, id: SlotId, from: usize, bytes: usize) -> Result<SlotId, RunStoreFull> {
        let mut moved = std::mem::take(&mut self.moved);
        moved.clear();
        moved.extend_from_slice(self.block(id).bytes_from(from));
        let new = self.slab.take(bytes.max(block::bytes_with(moved.len()))).ok_or(RunStoreFull)?;
        let mut old = self.block_mut(id);
        let (head, len) = (old.head(), old.truncate(from));
        self.block_mut(new).set(head, len, &moved);
        self.moved = moved;
        Ok(new)
    }

    /// Moves the entries of a block to a new block of at least `bytes` bytes, and frees the old
    /// one.
    fn resize(&mut self, id: &mut SlotId, bytes: usize) -> Result<(), RunStoreFull> {
        let new = self.split(*id, 0, bytes)?;
        self.slab.free(std::mem::replace(id, new));
        Ok(())
    }

    /// Inserts an entry into a block, which may grow to `most` bytes; `id` is then its new slot.
    /// Returns false if the block is full. Fails if the store has no slot for the grown block.
    #[inline]
    fn add(
        &mut self,
        id: &mut SlotId,
        at: usize,
        entry: Entry,
        most: usize,
    ) -> Result<bool, RunStoreFull> {
        while !self.block_mut(*id).insert(at, entry) {
            let bytes = self.slab.bytes(*id).len();
            if bytes >= most {
                return Ok(false);
            }
            self.resize(id, bytes + 1)?;
        }
        Ok(true)
    }

    /// Moves a block that is nearly empty to a much smaller one.
    fn shrink(&mut self, id: &mut SlotId) {
        let bytes = self.slab.bytes(*id);
        let (len, bytes) = (Block::of(bytes).len(), bytes.len());
        let needed = block::bytes_of(len + len / 2);
        if needed * 3 < bytes {
            // If no smaller block can be created, the block stays as it is.
            drop(self.resize(id, needed));
        }
    }

    fn take_list(&mut self) -> BlockList {
        self.spares.pop().unwrap_or_default()
    }

    fn put_list(&mut self, list: BlockList) {
        if self.spares.len() < SPARES && list.capacity() <= LONG {
            self.spares.push(list);
        }
    }

    /// Ends an epoch: frees some memory that no recent epoch has needed.
    pub fn end_epoch(&mut self) {
        self.slab.end_epoch();
    }

    /// Approximate memory of the blocks and lists, in bytes.
    pub fn memory(&self) -> usize {
        // A growing list has capacity for one to two times its blocks.
        self.slab.memory() + self.listed * size_of::<ListedBlock>() * 3 / 2
    }
}

impl Run {
    /// Whether the run has no rows.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Whether the run has one row, stored inline. False for a list of blocks of which one row is
    /// left.
    #[cfg(feature = "sql")]
    #[inline]
    pub fn is_single(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// The first row of the run; `None` if the run is empty.
    #[cfg(any(feature = "sql", test))]
    #[inline]
    pub fn first(&self, store: &RunStore) -> Option<Entry> {
        match self {
            Self::Empty => None,
            Self::One(entry) => Some(*entry),
            Self::Block(id) => Some(store.block(*id).get(0)),
            Self::Blocks(list) => list.front().map(|block| block.first),
        }
    }

    /// The entry at a cursor; `None` if the cursor is after the end of its block.
    #[inline]
    fn entry(&self, Cursor { block, at }: Cursor, store: &RunStore) -> Option<Entry> {
        match self {
            Self::Empty => None,
            Self::One(entry) => (block == 0 && at == 0).then_some(*entry),
            Self::Block(id) if block == 0 => store.block(*id).entry(at),
            Self::Block(_) => None,
            Self::Blocks(list) => store.block(list.get(block)?.block).entry(at),
        }
    }

    /// The position of the first entry for which `holds` is false. `holds` must be true for all
    /// entries before it and false for all entries after it.
    #[inline]
    fn first_not(&self, store: &RunStore, holds: impl Fn(&Entry) -> bool) -> Cursor {
        match self {
            Self::Empty => Cursor { block: 0, at: 0 },
            Self::One(entry) => Cursor { block: 0, at: usize::from(holds(entry)) },
            Self::Block(id) => Cursor { block: 0, at: store.block(*id).first_not(holds) },
            Self::Blocks(list) => {
                let behind = list.partition_point(|block| holds(&block.first));
                // The entry is in the block before, or the position is the end of that block.
                let Some(block) = behind.checked_sub(1) else { return Cursor { block: 0, at: 0 } };
                Cursor { block, at: store.block(list[block].block).first_not(holds) }
            }
        }
    }

    /// The position of the first row at or after a time.
    #[inline]
    pub fn seek(&self, time_us: i64, store: &RunStore) -> Cursor {
        self.first_not(store, |entry| entry.time_us < time_us)
    }

    /// The position of the first row after the given time and number.
    pub fn seek_behind(
        &self,
        (time_us, number): (i64, u64),
        rows: &impl NumberedRows,
        store: &RunStore,
    ) -> Cursor {
        self.first_not(store, |entry| (entry.time_us, rows.number(entry.row)) <= (time_us, number))
    }

    /// The row at a cursor; `None` after the last row. A cursor after the end of a block moves to
    /// the start of the next one.
    #[inline]
    pub fn get(&self, cursor: &mut Cursor, store: &RunStore) -> Option<Entry> {
        let found = self.entry(*cursor, store);
        if found.is_some() || !matches!(self, Self::Blocks(_)) {
            return found;
        }
        *cursor = Cursor { block: cursor.block + 1, at: 0 };
        self.entry(*cursor, store)
    }

    /// The row before a cursor; `None` if there is none.
    #[cfg(feature = "sql")]
    pub fn before(&self, cursor: Cursor, store: &RunStore) -> Option<Entry> {
        match (cursor.at.checked_sub(1), self) {
            (Some(at), _) => self.entry(Cursor { at, ..cursor }, store),
            (None, Self::Blocks(list)) => {
                store.block(list.get(cursor.block.checked_sub(1)?)?.block).last()
            }
            (None, _) => None,
        }
    }

    /// Inserts a row in order.
    #[inline]
    pub fn insert(
        &mut self,
        entry: Entry,
        rows: &impl NumberedRows,
        store: &mut RunStore,
    ) -> Result<(), RunStoreFull> {
        match self {
            Self::Empty => {
                *self = Self::One(entry);
                Ok(())
            }
            _ => self.insert_beside(entry, rows, store),
        }
    }

    /// Inserts a row into a run that has at least one.
    fn insert_beside(
        &mut self,
        entry: Entry,
        rows: &impl NumberedRows,
        store: &mut RunStore,
    ) -> Result<(), RunStoreFull> {
        if let Self::One(other) = *self {
            let id = store.make(block::bytes_of(2))?;
            store.block_mut(id).append(other);
            *self = Self::Block(id);
        }
        let number = rows.number(entry.row);
        let time_us = entry.time_us;
        let before = |e: &Entry| match { e.time_us }.cmp(&time_us) {
            std::cmp::Ordering::Equal => rows.number(e.row) < number,
            order => order.is_lt(),
        };
        if let Self::Block(id) = self {
            let block = store.block(*id);
            // Most rows arrive in order.
            let is_last = block.last().is_some_and(|last| before(&last));
            let at = if is_last { block.len() } else { block.first_not(before) };
            if store.add(id, at, entry, BLOCK_BYTES)? {
                return Ok(());
            }
            let first = store.block(*id).get(0);
            let mut list = store.take_list();
            list.push_back(ListedBlock { first, block: *id });
            store.listed += 1;
            *self = Self::Blocks(list);
        }
        let Self::Blocks(list) = self else { return Ok(()) };
        let last = list.len() - 1;
        let at_end = store.block(list[last].block).last().is_some_and(|last| before(&last));
        let at = match at_end {
            true => Cursor { block: last, at: store.block(list[last].block).len() },
            false => self.first_not(store, before),
        };
        self.insert_at(at, entry, store)
    }

    /// Inserts a row into a list of blocks, at a cursor. A full block is split, or a new one is added
    /// beside it. Fails if the store has no slot for a block.
    fn insert_at(
        &mut self,
        Cursor { mut block, mut at }: Cursor,
        entry: Entry,
        store: &mut RunStore,
    ) -> Result<(), RunStoreFull> {
        let Self::Blocks(list) = self else { return Ok(()) };
        let most = if list.len() < LONG { BLOCK_BYTES } else { LONG_BLOCK_BYTES };
        if !store.add(&mut list[block].block, at, entry, most)? {
            let len = store.block(list[block].block).len();
            // Rows that arrive in order start a new block, so that full blocks stay full. Otherwise
            // the block is split in half.
            let from = if at == 0 || at == len { at } else { len / 2 };
            let new = match from == 0 || from == len {
                true => store.make(block::bytes_of(2))?,
                false => store.split(list[block].block, from, block::bytes_of(len - from + 2))?,
            };
            let first = store.block(new).entry(0).unwrap_or(entry);
            list.insert(block + usize::from(from > 0), ListedBlock { first, block: new });
            store.listed += 1;
            if from > 0 && at >= from {
                (block, at) = (block + 1, at - from);
            }
            // The block is new or half full, so it has room or grows.
            store.add(&mut list[block].block, at, entry, usize::MAX)?;
        }
        if at == 0 {
            list[block].first = entry;
        }
        Ok(())
    }

    fn remove_at(&mut self, Cursor { block, at }: Cursor, store: &mut RunStore) {
        match self {
            Self::Empty => {}
            Self::One(_) => *self = Self::Empty,
            Self::Block(id) => {
                store.block_mut(*id).remove(at);
                let block = store.block(*id);
                if block.len() > 1 {
                    return store.shrink(id);
                }
                let last = block.get(0);
                store.slab.free(*id);
                *self = Self::One(last);
            }
            Self::Blocks(list) => {
                let listed = &mut list[block];
                store.block_mut(listed.block).remove(at);
                if let Some(first) = store.block(listed.block).entry(0) {
                    listed.first = first;
                    store.shrink(&mut listed.block);
                    return;
                }
                store.slab.free(listed.block);
                list.remove(block);
                store.listed -= 1;
                if list.is_empty()
                    && let Self::Blocks(list) = std::mem::take(self)
                {
                    store.put_list(list);
                }
            }
        }
    }

    /// Removes the first row.
    #[cfg(any(feature = "sql", test))]
    #[inline]
    pub fn remove_first(&mut self, store: &mut RunStore) {
        match self {
            Self::One(_) => *self = Self::Empty,
            _ => self.remove_at(Cursor { block: 0, at: 0 }, store),
        }
    }

    /// Removes a row. Returns whether the run contained it.
    pub fn remove(&mut self, entry: Entry, rows: &impl NumberedRows, store: &mut RunStore) -> bool {
        let number = rows.number(entry.row);
        let before = |e: &Entry| ({ e.time_us }, rows.number(e.row)) < ({ entry.time_us }, number);
        let mut at = self.first_not(store, before);
        let found = self.get(&mut at, store) == Some(entry);
        if found {
            self.remove_at(at, store);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A store of rows that consist of their numbers only.
    #[derive(Default)]
    struct Numbers(Vec<u64>);

    impl Numbers {
        fn add(&mut self, number: u64) -> RowId {
            self.0.push(number);
            RowId(self.0.len() as u32 - 1)
        }
    }

    impl NumberedRows for Numbers {
        fn number(&self, id: RowId) -> u64 {
            self.0[id.0 as usize]
        }
    }

    /// A run and a sorted list with the rows that the run should have.
    #[derive(Default)]
    struct Checked {
        run: Run,
        rows: Numbers,
        store: RunStore,
        model: Vec<(i64, u64, RowId)>,
    }

    impl Checked {
        fn insert(&mut self, time_us: i64) {
            let number = self.rows.0.len() as u64;
            let row = self.rows.add(number);
            self.run.insert(Entry { time_us, row }, &self.rows, &mut self.store).unwrap();
            let at = self.model.partition_point(|(time, ..)| *time <= time_us);
            self.model.insert(at, (time_us, number, row));
        }

        fn remove(&mut self, nth: usize) {
            let (time_us, _, row) = self.model.remove(nth);
            assert!(self.run.remove(Entry { time_us, row }, &self.rows, &mut self.store));
        }

        fn remove_first(&mut self) {
            let (time_us, _, row) = self.model.remove(0);
            assert_eq!(self.run.first(&self.store), Some(Entry { time_us, row }));
            self.run.remove_first(&mut self.store);
        }

        fn wanted(&self) -> Vec<Entry> {
            self.model
                .iter()
                .map(|(time_us, _, row)| Entry { time_us: *time_us, row: *row })
                .collect()
        }

        fn all(&self) -> Vec<Entry> {
            let mut cursor = self.run.seek(i64::MIN, &self.store);
            let mut found = Vec::new();
            while let Some(entry) = self.run.get(&mut cursor, &self.store) {
                found.push(entry);
                cursor.advance();
            }
            found
        }

        /// Compares the run with the list: all rows, and searches at some times.
        fn check(&self, times: impl Iterator<Item = i64>) {
            let Self { run, rows, store, .. } = self;
            let wanted = self.wanted();
            assert_eq!(self.all(), wanted);
            assert_eq!(run.is_empty(), wanted.is_empty());
            assert_eq!(run.first(store), wanted.first().copied());
            for time in times {
                let mut at = run.seek(time, store);
                let first = wanted.partition_point(|e| e.time_us < time);
                assert_eq!(run.get(&mut at, store), wanted.get(first).copied());
                #[cfg(feature = "sql")]
                assert_eq!(
                    run.before(run.seek(time, store), store),
                    first.checked_sub(1).map(|at| wanted[at])
                );
            }
            for (i, (time, number, _)) in self.model.iter().enumerate() {
                let mut at = run.seek_behind((*time, *number), rows, store);
                assert_eq!(run.get(&mut at, store), wanted.get(i + 1).copied());
            }
        }
    }

    /// Returns times that are far apart for some kinds, so that a block cannot cover them.
    fn time(kind: u8, small: i64) -> i64 {
        match kind % 8 {
            0 => 40,
            1 => i64::MIN + small,
            2 => i64::MAX - small,
            3 => small << 38,
            4 => -(small << 30),
            _ => small,
        }
    }

    proptest! {
        #[test]
        fn a_run_is_sorted(
            steps in proptest::collection::vec((0i64..50, 0u8..7), 0..900),
            distant: bool,
        ) {
            let mut checked = Checked::default();
            for (small, what) in steps {
                match what {
                    0 if !checked.model.is_empty() => checked.remove(small as usize % checked.model.len()),
                    1 if !checked.model.is_empty() => checked.remove_first(),
                    _ => checked.insert(if distant { time(what, small) } else { small }),
                }
            }
            checked.check(0..50);
            checked.check((0..50).map(|small| time(3, small)));
            while !checked.model.is_empty() {
                checked.remove_first();
            }
            assert!(checked.run.is_empty());
        }
    }

    #[test]
    fn long_runs_are_sorted_in_any_order_of_arrival() {
        let rows = 30_000i64;
        let orders: [fn(i64) -> i64; 3] = [|i| i, |i| -i, |i| i * 7919 % 30_011];
        for order in orders {
            let mut checked = Checked::default();
            (0..rows).for_each(|i| checked.insert(order(i) * 1000));
            assert!(matches!(&checked.run, Run::Blocks(list) if list.len() >= LONG));
            checked.check((0..100).map(|i| i * 300_000));
            // A sliding window: each new row replaces the first one.
            (0..1000).for_each(|i| {
                checked.remove_first();
                checked.insert(order(rows + i) * 1000);
            });
            assert_eq!(checked.all(), checked.wanted());
            while !checked.model.is_empty() {
                checked.remove(checked.model.len() / 2);
            }
            assert!(checked.run.is_empty());
        }
    }

    #[test]
    fn an_entry_takes_little_more_than_its_eight_bytes() {
        // Inserts a hundred rows for each of a thousand keys.
        let (mut rows, mut store) = (Numbers::default(), RunStore::default());
        let mut runs: Vec<Run> = (0..1000).map(|_| Run::Empty).collect();
        for number in 0..100_000u64 {
            let entry = Entry { time_us: number as i64, row: rows.add(number) };
            runs[number as usize % 1000].insert(entry, &rows, &mut store).unwrap();
        }
        // The limit includes a chunk for each size class that the blocks have grown through.
        let most = 100_000 * 19 / 2 + 20 * CHUNK_BYTES;
        assert!(store.memory() < most, "{}", store.memory());
        let mut window = Run::Empty;
        for number in 100_000..400_000u64 {
            let entry = Entry { time_us: number as i64, row: rows.add(number) };
            window.insert(entry, &rows, &mut store).unwrap();
            if number >= 100_050 {
                window.remove_first(&mut store);
            }
        }
        assert!(matches!(window, Run::Block(_)), "50 rows are in one block, wherever it has begun");
        assert_eq!(size_of::<Run>(), 16);
    }

    #[test]
    fn memory_of_a_long_run_is_freed() {
        let mut checked = Checked::default();
        (0..50_000).for_each(|i| checked.insert(i));
        let full = checked.store.memory();
        while checked.model.len() > 2 {
            let (time_us, _, row) = checked.model.pop().unwrap();
            let entry = Entry { time_us, row };
            assert!(checked.run.remove(entry, &checked.rows, &mut checked.store));
        }
        (0..300).for_each(|_| checked.store.end_epoch());
        assert!(checked.store.memory() < full / 2, "{full} to {}", checked.store.memory());
        checked.check(0..3);
    }
}
