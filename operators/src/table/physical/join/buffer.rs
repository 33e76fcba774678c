//! The buffered rows of both sides of a join instance, indexed by key and by time, and their
//! checkpoint entries.
//!
//! *Checkpoint.* Each row has an entry. The entry's key is the join key, the side and the row's
//! number. Its value is the matched flag and the row. Numbers ascend in arrival order, so a restart
//! restores the arrival order. A search that is unfinished when an epoch ends has an entry too,
//! with the time and the number of the last candidate that it has examined.

use super::expiry::{Expiry, ExpiryLanes};
use super::keys::KeyEntry;
use super::rows::{RowId, RowStore, full};
use super::run::{Entry, RunStore, RunStoreFull};
use super::side::JoinSide;
use crate::state::key_table::KeyTable;
use crate::state::keyed_runs::{add_keys, keys_memory, row_entries};
use crate::table::row::Row;
use millstream_engine::checkpoint::key_group::{BuildStableHasher, hash_bytes};
use millstream_engine::collections::high_water::shrink_scratch;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::operator_state::JoinState;
use millstream_engine::runtime::state_log::{StateLog, StateSlot};
use std::collections::HashMap;

/// The number of bytes after the join key in the key of a row's entry: the side and the number.
pub(super) const SUFFIX: usize = 9;
/// A number that is added to the side in the key of a search's entry, to distinguish it from a
/// row's entry.
pub(super) const SEARCH: u8 = 2;

/// The number of removed rows after which entries of removed rows are dropped from the front of the
/// expiry queue.
const REMOVALS: usize = 64;
/// The number of such entries that are dropped at most at the end of an epoch.
const REMOVALS_OF_EPOCH: usize = 1024;

/// A search that was unfinished when the last epoch ended.
pub(super) struct RestoredSearch {
    pub side: JoinSide,
    pub key: usize,
    pub number: u64,
    pub entry: Entry,
    /// The time and the number of the last candidate that the search has examined.
    pub last: (i64, u64),
}

/// The restored rows, by the index of the key and the row's number.
type Restored = HashMap<(usize, u64), (JoinSide, Entry), BuildStableHasher>;

/// The progress of the restored searches, by join key, side and number of the row.
type Searched = HashMap<(Vec<u8>, u8, u64), (i64, u64)>;

/// Finds the row of each unfinished search. `find` returns the index of a join key.
fn restored_searches(
    searched: Searched,
    restored: &Restored,
    find: impl Fn(&[u8]) -> Option<usize>,
) -> Result<Vec<RestoredSearch>, EngineError> {
    let mut searches = Vec::new();
    for ((key, side, number), last) in searched {
        let at = find(&key).ok_or_else(unreadable)?;
        let (row_side, entry) = restored.get(&(at, number)).copied().ok_or_else(unreadable)?;
        if row_side.index() != usize::from(side) {
            return Err(unreadable());
        }
        searches.push(RestoredSearch { side: row_side, key: at, number, entry, last });
    }
    searches.sort_unstable_by_key(|search| search.number);
    Ok(searches)
}

/// A row to be buffered, with its side, number, time and matched flag.
pub(super) struct NewRow<'r> {
    pub side: JoinSide,
    pub row: Row<'r>,
    pub number: u64,
    pub time_us: i64,
    pub matched: bool,
    /// Whether the row is added to the expiry queue of its side, if there is one.
    pub expires: bool,
}

/// The buffered rows of both sides of a join instance.
pub(super) struct Buffer {
    pub rows: RowStore,
    pub keys: KeyTable<KeyEntry>,
    pub runs: RunStore,
    /// The expiry queue of each side; `None` for a side whose rows never expire.
    expiry: [Option<ExpiryLanes>; 2],
    /// The heap memory of all join keys, in bytes.
    key_heap: u64,
    next_number: u64,
    /// The number of rows removed since entries of removed rows were last dropped.
    removals: usize,
    log: StateLog,
    entry_key: Vec<u8>,
    entry_value: Vec<u8>,
    counts: JoinState,
    /// The number of pairs that matched in this epoch.
    pub matches: u64,
}

fn unreadable() -> EngineError {
    let reason = "a checkpoint entry of a join is not one of its rows";
    EngineError::operator("CHECKPOINT_DAMAGED", reason, "Start over with an empty checkpoint")
}

fn too_many_runs(_: RunStoreFull) -> EngineError {
    full("more rows of keys than it can number")
}

/// Decodes the progress of a search: the time and the number of its last candidate.
fn search_of(value: &[u8]) -> Result<(i64, u64), EngineError> {
    let (time_us, number) = value.split_first_chunk().ok_or_else(unreadable)?;
    let number = number.first_chunk().ok_or_else(unreadable)?;
    Ok((i64::from_le_bytes(*time_us), u64::from_le_bytes(*number)))
}

impl Buffer {
    /// Creates an empty buffer. `expires` tells for each side whether its rows expire.
    pub fn new(expires: [bool; 2], log: StateLog) -> Self {
        Self {
            rows: RowStore::default(),
            keys: KeyTable::default(),
            runs: RunStore::default(),
            expiry: expires.map(|expires| expires.then(ExpiryLanes::default)),
            key_heap: 0,
            next_number: 0,
            removals: 0,
            log,
            entry_key: Vec::new(),
            entry_value: Vec::new(),
            counts: JoinState::default(),
            matches: 0,
        }
    }

    /// Assigns the number of a row that has arrived.
    #[inline]
    pub fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// The number of the next row.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Counts a row that has arrived, whether it is late, is buffered or neither.
    #[inline]
    pub fn count_received(&mut self, side: JoinSide) {
        self.counts.inputs[side.index()].received += 1;
    }

    /// The number of rows to process in a step. Tests may reduce `wanted`.
    #[inline]
    pub fn step(&self, wanted: usize) -> usize {
        self.log.keys_per_step(wanted)
    }

    /// Counts a row that has expired.
    #[inline]
    pub fn count_evicted(&mut self, side: JoinSide) {
        self.counts.inputs[side.index()].evicted += 1;
    }

    /// The memory of the buffered rows, in bytes: their slots, entries and keys. Unlike
    /// [`Self::state`] it falls as soon as rows are removed.
    #[inline]
    pub fn row_bytes(&self) -> u64 {
        let [left, right] = &self.counts.inputs;
        left.bytes + right.bytes + self.key_bytes()
    }

    #[inline]
    fn key_bytes(&self) -> u64 {
        keys_memory(self.keys.len(), self.key_heap)
    }

    /// The memory of a row's entries in its run and in the expiry queue, in bytes.
    #[inline]
    fn entry_bytes(&self, side: JoinSide) -> u64 {
        row_entries(self.expiry[side.index()].is_some())
    }

    /// Counts a late row.
    pub fn count_late(&mut self) {
        self.log.count_late(1);
    }

    /// Returns `found`, the index of a key in the key table. If it is `None`, inserts the key.
    #[inline]
    pub fn find_or_insert_key(&mut self, found: Option<usize>, hash: u64, key: &[u8]) -> usize {
        found.unwrap_or_else(|| {
            let entry = KeyEntry::new(key);
            self.key_heap += entry.key.heap();
            self.keys.insert_hashed(hash, entry)
        })
    }

    /// Buffers a row under the key with the index `key`.
    pub fn insert(&mut self, key: usize, new: NewRow<'_>) -> Result<RowId, EngineError> {
        let NewRow { side, row, number, time_us, matched, expires } = new;
        let id = self.rows.insert(row, number, matched)?;
        let bytes = self.rows.slot_bytes(id) + self.entry_bytes(side);
        let counts = &mut self.counts.inputs[side.index()];
        counts.rows += 1;
        counts.bytes += bytes;
        let entry = Entry { time_us, row: id };
        let run = &mut self.keys[key].runs[side.index()];
        run.insert(entry, &self.rows, &mut self.runs).map_err(too_many_runs)?;
        if let Some(queue) = self.expiry[side.index()].as_mut().filter(|_| expires) {
            queue.push(Expiry { time_us, number, slot: key as u32 });
        }
        if self.log.is_on() {
            self.write_entry(key, side, id, number);
            let hash = self.keys[key].hash();
            self.log.put(&mut StateSlot::default(), hash, &self.entry_key, &self.entry_value);
        } else {
            self.log.put(&mut StateSlot::default(), 0, &[], &[]);
        }
        Ok(id)
    }

    /// Records that a row has a match. The first match is also written to the checkpoint.
    pub fn set_matched(&mut self, key: usize, side: JoinSide, id: RowId) {
        if self.rows.set_matched(id) && self.log.is_on() {
            self.write_entry(key, side, id, self.rows.number(id));
            let hash = self.keys[key].hash();
            self.log.put_uncounted(
                &mut StateSlot::default(),
                hash,
                &self.entry_key,
                &self.entry_value,
            );
        }
    }

    /// Removes a row. The key stays in the table until [`release`](Self::release) is called.
    pub fn remove(&mut self, key: usize, side: JoinSide, entry: Entry) {
        self.keys[key].runs[side.index()].remove(entry, &self.rows, &mut self.runs);
        self.remove_from_rows(key, side, entry);
        self.removals += 1;
        if self.removals >= REMOVALS {
            self.removals = 0;
            self.skip_removed(side, 2 * REMOVALS);
        }
    }

    /// Drops up to `most` entries at the front of a side's expiry queue whose rows were removed
    /// before they expired.
    fn skip_removed(&mut self, side: JoinSide, most: usize) {
        if let Some(mut queue) = self.expiry[side.index()].take() {
            queue.skip(most, |expiry| self.find_expired(side, expiry).is_none());
            self.expiry[side.index()] = Some(queue);
        }
    }

    /// Removes a row that is the first one of its key and side, which is faster than
    /// [`remove`](Self::remove).
    #[inline]
    pub fn remove_first(&mut self, key: usize, side: JoinSide, entry: Entry) {
        self.keys[key].runs[side.index()].remove_first(&mut self.runs);
        self.remove_from_rows(key, side, entry);
    }

    #[inline]
    fn remove_from_rows(&mut self, key: usize, side: JoinSide, entry: Entry) {
        if self.log.is_on() {
            self.write_entry_key(key, side, self.rows.number(entry.row));
            self.log.delete(&mut StateSlot::default(), self.keys[key].hash(), &self.entry_key);
        } else {
            self.log.count_removed();
        }
        let bytes = self.rows.slot_bytes(entry.row) + self.entry_bytes(side);
        self.rows.remove(entry.row);
        let counts = &mut self.counts.inputs[side.index()];
        counts.rows -= 1;
        counts.bytes -= bytes;
    }

    /// Whether neither side has rows of a key.
    #[inline]
    pub fn is_unused(&self, key: usize) -> bool {
        self.keys[key].is_empty()
    }

    /// Frees a key if neither side has rows of it.
    pub fn release(&mut self, key: usize) {
        if self.is_unused(key) {
            self.keys.free(key);
            self.key_heap -= std::mem::take(&mut self.keys[key].key).heap();
        }
    }

    /// Takes the next row of a side from the expiry queue, if it expires at or before `by_us`.
    #[inline]
    pub fn next_expired(&mut self, side: JoinSide, by_us: i64) -> Option<Expiry> {
        self.expiry[side.index()].as_mut()?.pop(by_us)
    }

    /// Takes up to `most` rows of a side that expire at or before `by_us` from the expiry queue.
    /// Prefetches the memory that removing them accesses.
    pub fn take_expired(
        &mut self,
        side: JoinSide,
        by_us: i64,
        most: usize,
        taken: &mut Vec<Expiry>,
    ) {
        taken.clear();
        while taken.len() < most
            && let Some(expiry) = self.next_expired(side, by_us)
        {
            taken.push(expiry);
        }
        for &Expiry { slot, .. } in &*taken {
            let Some(KeyEntry { runs, .. }) = self.keys.get(slot as usize) else { continue };
            let Some(first) = runs[side.index()].first(&self.runs) else { continue };
            std::hint::black_box(self.rows.number(first.row));
            if runs[side.index()].is_single() && runs[side.other().index()].is_empty() {
                self.keys.touch(slot as usize);
            }
        }
    }

    /// The first row of a key and side, if it is the row that an element of the expiry queue refers
    /// to. `None` if that row was removed before it expired.
    #[inline]
    pub fn first_expired(&self, side: JoinSide, expiry: Expiry) -> Option<Entry> {
        let entry = self.keys.get(expiry.slot as usize)?;
        let first = entry.runs[side.index()].first(&self.runs)?;
        (self.rows.number(first.row) == expiry.number).then_some(first)
    }

    /// The row that an element of the expiry queue refers to, wherever it is in its run, and
    /// whether it is the first one. `None` if the row was removed before it expired.
    pub fn find_expired(&self, side: JoinSide, expiry: Expiry) -> Option<(Entry, bool)> {
        if let Some(first) = self.first_expired(side, expiry) {
            return Some((first, true));
        }
        let run = &self.keys.get(expiry.slot as usize)?.runs[side.index()];
        let mut cursor = match expiry.number.checked_sub(1) {
            Some(before) => run.seek_behind((expiry.time_us, before), &self.rows, &self.runs),
            None => run.seek(expiry.time_us, &self.runs),
        };
        let entry = run.get(&mut cursor, &self.runs)?;
        (self.rows.number(entry.row) == expiry.number).then_some((entry, false))
    }

    /// The expiry time at the front of a side's expiry queue. The row may already have been
    /// removed.
    pub fn first_expiry_us(&self, side: JoinSide) -> Option<i64> {
        self.expiry[side.index()].as_ref().and_then(ExpiryLanes::first_us)
    }

    /// Whether a side may have rows that expire at or before `by_us`.
    pub fn has_expired(&self, side: JoinSide, by_us: i64) -> bool {
        self.first_expiry_us(side).is_some_and(|first_us| first_us <= by_us)
    }

    /// Writes the progress of a search to the checkpoint, if there is one.
    pub fn save_search(&mut self, key: usize, (side, number): (JoinSide, u64), last: (i64, u64)) {
        if !self.log.is_on() {
            return;
        }
        self.write_search_key(key, side, number);
        self.entry_value.clear();
        self.entry_value.extend_from_slice(&last.0.to_le_bytes());
        self.entry_value.extend_from_slice(&last.1.to_le_bytes());
        let hash = self.keys[key].hash();
        self.log.put_uncounted(&mut StateSlot::default(), hash, &self.entry_key, &self.entry_value);
    }

    /// Removes the progress of a search from the checkpoint.
    pub fn erase_search(&mut self, key: usize, side: JoinSide, number: u64) {
        self.write_search_key(key, side, number);
        self.log.delete_uncounted(
            &mut StateSlot::default(),
            self.keys[key].hash(),
            &self.entry_key,
        );
    }

    fn write_search_key(&mut self, key: usize, side: JoinSide, number: u64) {
        self.write_entry_key(key, side, number);
        let at = self.entry_key.len() - SUFFIX;
        self.entry_key[at] += SEARCH;
    }

    fn write_entry_key(&mut self, key: usize, side: JoinSide, number: u64) {
        self.entry_key.clear();
        self.entry_key.extend_from_slice(&self.keys[key].key);
        self.entry_key.push(side.index() as u8);
        self.entry_key.extend_from_slice(&number.to_le_bytes());
    }

    fn write_entry(&mut self, key: usize, side: JoinSide, id: RowId, number: u64) {
        self.write_entry_key(key, side, number);
        self.entry_value.clear();
        self.entry_value.push(u8::from(self.rows.is_matched(id)));
        self.entry_value.extend_from_slice(self.rows.row(id).0);
    }

    /// Restores the committed rows. `time_of` computes the time of a row from its side, the row and
    /// its join key. Returns the unfinished searches.
    pub fn restore(
        &mut self,
        time_of: impl Fn(JoinSide, Row<'_>, &[u8]) -> Option<i64>,
    ) -> Result<Vec<RestoredSearch>, EngineError> {
        let Self { rows, keys, runs, key_heap: heap, next_number, log, .. } = self;
        let mut restored = Restored::default();
        let mut searched = Searched::new();
        log.restore(|_, entry_key, value| {
            let (key, suffix) = match entry_key.len().checked_sub(SUFFIX) {
                Some(at) => entry_key.split_at(at),
                None => return Err(unreadable()),
            };
            let number = suffix[1..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            if let Some(side) = suffix[0].checked_sub(SEARCH) {
                let search = (key.to_vec(), side, number);
                match value {
                    Some(value) => drop(searched.insert(search, search_of(value)?)),
                    None => drop(searched.remove(&search)),
                }
                return Ok(());
            }
            let side = match suffix[0] {
                0 => JoinSide::Left,
                1 => JoinSide::Right,
                _ => return Err(unreadable()),
            };
            let hash = hash_bytes(key);
            let found = keys.find(hash, key);
            // The entry of a row is written again at its first match, and the later entry wins.
            if let Some(at) = found
                && let Some((side, entry)) = restored.remove(&(at, number))
            {
                keys[at].runs[side.index()].remove(entry, rows, runs);
                rows.remove(entry.row);
            }
            let Some(value) = value else {
                if let Some(at) = found
                    && keys[at].is_empty()
                {
                    keys.free(at);
                    *heap -= std::mem::take(&mut keys[at].key).heap();
                }
                return Ok(());
            };
            let (matched, row) = value.split_first().ok_or_else(unreadable)?;
            let time_us = time_of(side, Row(row), key).ok_or_else(unreadable)?;
            let at = found.unwrap_or_else(|| {
                let entry = KeyEntry::new(key);
                *heap += entry.key.heap();
                keys.insert_hashed(hash, entry)
            });
            let entry = Entry { time_us, row: rows.insert(Row(row), number, *matched == 1)? };
            let run = &mut keys[at].runs[side.index()];
            run.insert(entry, rows, runs).map_err(too_many_runs)?;
            restored.insert((at, number), (side, entry));
            *next_number = (*next_number).max(number + 1);
            Ok(())
        })?;
        let searches =
            restored_searches(searched, &restored, |key| keys.find(hash_bytes(key), key))?;
        self.count_restored(restored);
        Ok(searches)
    }

    /// Counts the restored rows and adds them to the expiry queues.
    fn count_restored(&mut self, restored: Restored) {
        // The rows are added in time order, so that the queue needs few lanes.
        let mut restored: Vec<_> = restored.into_iter().collect();
        restored.sort_unstable_by_key(|((_, number), (_, entry))| (entry.time_us, *number));
        for ((key, number), (side, Entry { time_us, row })) in restored {
            let bytes = self.rows.slot_bytes(row) + self.entry_bytes(side);
            let counts = &mut self.counts.inputs[side.index()];
            counts.rows += 1;
            counts.bytes += bytes;
            if let Some(queue) = &mut self.expiry[side.index()] {
                queue.push(Expiry { time_us, number, slot: key as u32 });
            }
        }
    }

    /// The number of buffered rows, and the memory for them in bytes.
    pub fn state(&self) -> (u64, u64) {
        let queues = self.expiry.iter().flatten().map(ExpiryLanes::memory).sum::<usize>();
        let of_rows = self.rows.memory() + self.runs.memory() + queues;
        (self.rows.len() as u64, (of_rows + self.keys.memory()) as u64 + self.key_heap)
    }

    /// Hands the changes of an epoch to the checkpoint. `held` tells for each side whether it is
    /// paused.
    pub fn hand_over(&mut self, epoch: Epoch, held: [bool; 2]) {
        let mut counts = self.counts;
        for side in JoinSide::BOTH {
            self.skip_removed(side, REMOVALS_OF_EPOCH);
            let input = &mut counts.inputs[side.index()];
            input.oldest_us = self.first_expiry_us(side).filter(|_| input.rows > 0);
            input.is_held = held[side.index()];
            let counted = &mut self.counts.inputs[side.index()];
            (counted.received, counted.evicted) = (0, 0);
        }
        add_keys(&mut counts.inputs, self.key_bytes());
        counts.matches = std::mem::take(&mut self.matches);
        self.log.set_join_state(counts);
        self.rows.end_epoch();
        self.runs.end_epoch();
        self.keys.end_epoch();
        shrink_scratch([&mut self.entry_key, &mut self.entry_value]);
        let (rows, bytes) = self.state();
        self.log.hand_over(epoch, rows, bytes);
    }
}
