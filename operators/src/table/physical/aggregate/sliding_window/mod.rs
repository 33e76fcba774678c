//! Sliding windows, computed from slices. A row is added to the slice that contains its time, not
//! to each window that contains it. A window is combined from its slices once the watermark has
//! reached the window's end.
//!
//! *Combining* costs about three merges per key and window on average, independent of the number of
//! slices.
//! The slices of a key form a two-stack queue. Each of the older slices (`front`) stores a suffix
//! sum: the sum of itself and all later slices of the front. The younger slices share a single sum
//! (`back`):
//!
//! ```text
//! slices    a    b    c    d  │ e   f  │ g   still to come
//! suffix  abcd  bcd   cd   d  │  back  │
//! ```
//!
//! A window is `suffix[0] + back`. When the window slides, `a` is removed with its suffix sum, and
//! `g` is merged into `back`. All merged slices are moved to the front when the front is empty, and
//! once per window length at a time that differs between keys. A slice of the front needs its own
//! sum only for a checkpoint. A row of a slice that is already merged is also added to the suffix
//! sums that contain the slice, or to `back`.
//!
//! *Memory.* The slices of a key are in one ring, each with its start time. Slices of the front
//! store suffix sums, the others store their own values. If all functions fit in words, slices are
//! stored in words (16 bytes per slice for a count), otherwise as whole accumulators.
//!
//! *State.* Each slice has an entry in the checkpoint. The entry's key is a row of the grouping
//! keys without the window, and the slice's start; its value has the accumulators. One more entry
//! per key, without a start, stores the end of the next window.

mod key_slices;
mod slice_ring;
mod slice_unit;

use crate::event_time::pending_watermark::PendingWatermark;
use crate::state::expiry_queue::ExpiryQueue;
use crate::state::key_table;
use crate::table::expr::compile::LongFn;
use crate::table::physical::accumulator::{Accumulator, Function};
use crate::table::physical::aggregate::hash_aggregate::{Key, copy_key, write_keys};
use crate::table::physical::aggregate::sliding_window::key_slices::{
    FoundSlice, KeySlices, StageConfig,
};
use crate::table::physical::aggregate::sliding_window::slice_unit::{Unit, Values};
use crate::table::physical::late_row::LateRows;
use crate::table::physical::stages::{BoxChain, Scratch};
use crate::table::plan::time_window::Lengths;
use crate::table::row::{Row, RowWriter, Slot as Field};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::collections::high_water::{EpochBuffer, shrink_scratch};
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};
use millstream_engine::runtime::state_log::{StateLog, StateSlot, WriteTiming};
use std::ops::Range;

/// The approximate number of merges in one step of emitting windows.
const STEP: usize = 256;
/// The fixed cost of emitting a window, in merges.
const WINDOW: usize = 4;
/// The number of keys whose entries are prefetched at once.
const AHEAD: usize = 16;
/// The value of `next_us` for a key without a next window.
const NONE: i64 = i64::MAX;

/// The configuration of a sliding window aggregation.
pub(in crate::table::physical) struct SlidingParts {
    /// The grouping keys other than the window.
    pub keys: Vec<Key>,
    /// Computes the event time of a row.
    pub time: LongFn,
    pub lengths: Lengths,
    /// The index of the window among all grouping keys.
    pub place: usize,
    pub functions: Vec<Function>,
    pub late: LateRows,
    pub log: StateLog,
}

/// The slices of all keys, by key.
struct Table<U> {
    entries: key_table::KeyTable<KeySlices<U>>,
    slices: u64,
    /// The heap memory of the entries, in bytes.
    memory: usize,
}

/// The stage of an aggregation over sliding windows.
struct SlidingAggregate<U> {
    keys: Vec<Key>,
    time: LongFn,
    place: usize,
    late: LateRows,
    log: StateLog,
    common: StageConfig<U>,
    table: Table<U>,
    due: ExpiryQueue,
    key: Vec<u8>,
    last_slice: LastSlice,
    buffers: Buffers,
    /// Slices with long values, by the index of the key and the slice's start. They are written
    /// once, at the marker.
    deferred: EpochBuffer<(u32, i64)>,
    /// A buffer for the accumulators of a window.
    sum: Values<U>,
    scratch: Scratch,
    /// A watermark whose expired windows have not all been emitted yet.
    expiring: PendingWatermark,
    /// Whether [`Stage::flush`] still has to return [`FlushStatus::NextEpoch`] once, because it has
    /// worked on expired windows while no marker was pending.
    late_emission: LateEmission,
    marker: Option<Epoch>,
    down: BoxChain,
}

/// The slice of the previous row, to which the next row most likely belongs.
struct LastSlice {
    times_us: Range<i64>,
    /// The ends of the first and the last window that contain the slice.
    first_us: i64,
    last_us: i64,
}

impl LastSlice {
    fn of(lengths: Lengths, time_us: i64) -> Self {
        let begin_us = lengths.slice(time_us);
        Self {
            times_us: begin_us..lengths.slice_end(begin_us),
            first_us: lengths.first_end(begin_us),
            last_us: lengths.last_end(begin_us),
        }
    }
}

/// Buffers for encoded entries and rows.
#[derive(Default)]
struct Buffers {
    key: Vec<u8>,
    value: Vec<u8>,
    window: Vec<u8>,
    row: Vec<u8>,
}

fn unreadable() -> EngineError {
    let reason = "a checkpoint entry of sliding windows does not match their functions";
    EngineError::operator("CHECKPOINT_DAMAGED", reason, "Begin anew")
}

/// Writes a checkpoint key: the grouping keys and the start of the slice; without a start, the key
/// of the entry that stores the end of the next window.
fn write_state_key(keys: &[Key], key: &[u8], begin_us: Option<i64>, out: &mut Vec<u8>) {
    out.clear();
    let mut writer = RowWriter::new(out, keys.len() + 1);
    for (i, of) in keys.iter().enumerate() {
        copy_key((Row(key), i, keys.len()), i, of.physical(), &mut writer);
    }
    if let Some(begin_us) = begin_us {
        writer.long(keys.len(), begin_us);
    }
}

impl<U: Unit> Table<U> {
    /// The index of a key's entry, created if it is missing.
    #[inline]
    fn entry(&mut self, key: &[u8], common: &StageConfig<U>, keeps: bool) -> usize {
        let hash = hash_bytes(key);
        if let Some(at) = self.entries.find(hash, key) {
            return at;
        }
        let entry = KeySlices::new(hash, key, common, keeps);
        self.memory += entry.memory();
        self.entries.insert(entry)
    }

    /// The index of a key's slice with a start time, created if it is missing.
    #[inline]
    fn slice(&mut self, at: usize, begin_us: i64, common: &StageConfig<U>) -> usize {
        let entry = &mut self.entries[at];
        let before = entry.memory();
        let FoundSlice { place, is_new } = entry.slice(begin_us, common);
        if is_new {
            self.slices += 1;
            self.memory += entry.memory() - before;
        }
        place
    }

    /// Removes a key, which must have no slices.
    fn remove(&mut self, at: usize, common: &StageConfig<U>) {
        self.entries.free(at);
        self.memory -= self.entries[at].memory();
        self.entries[at] = KeySlices::new(0, &[], common, false);
    }
}

/// Creates the stage. Slices are stored in words if all functions can be stored so.
pub(in crate::table::physical) fn sliding_aggregate(
    parts: SlidingParts,
    down: BoxChain,
) -> BoxChain {
    if parts.functions.iter().all(Function::is_plain) {
        Box::new(SlidingAggregate::<u64>::new(parts, down))
    } else {
        Box::new(SlidingAggregate::<Accumulator>::new(parts, down))
    }
}

impl<U: Unit> SlidingAggregate<U> {
    fn new(parts: SlidingParts, down: BoxChain) -> Self {
        let SlidingParts { keys, time, lengths, place, functions, late, log } = parts;
        Self {
            keys,
            time,
            place,
            late,
            log,
            common: StageConfig::new(functions, lengths),
            table: Table { entries: key_table::KeyTable::default(), slices: 0, memory: 0 },
            due: ExpiryQueue::default(),
            key: Vec::new(),
            last_slice: LastSlice { times_us: 0..0, first_us: 0, last_us: 0 },
            buffers: Buffers::default(),
            deferred: EpochBuffer::default(),
            sum: Values::new(),
            scratch: Scratch::default(),
            expiring: PendingWatermark::default(),
            late_emission: LateEmission::default(),
            marker: None,
            down,
        }
    }

    fn restore(&mut self) -> Result<(), EngineError> {
        let Self { keys, common, table, key: own, log, .. } = self;
        let (width, keeps) = (keys.len() + 1, log.is_on());
        log.restore(|_, key, value| {
            let field = Field::new(keys.len(), width);
            let begin_us = (!Row(key).is_null(field)).then(|| Row(key).long(field));
            own.clear();
            let mut writer = RowWriter::new(own, keys.len());
            for (i, of) in keys.iter().enumerate() {
                copy_key((Row(key), i, width), i, of.physical(), &mut writer);
            }
            let at = table.entry(own, common, keeps);
            match (begin_us, value) {
                (None, None) => table.entries[at].next_us = NONE,
                (None, Some(value)) => {
                    let next = value.last_chunk::<8>().ok_or_else(unreadable)?;
                    table.entries[at].next_us = i64::from_le_bytes(*next);
                }
                (Some(begin_us), None) => {
                    let before = table.entries[at].memory();
                    table.slices -= u64::from(table.entries[at].remove(begin_us, common));
                    table.memory = table.memory + table.entries[at].memory() - before;
                }
                (Some(begin_us), Some(mut value)) => {
                    let place = table.slice(at, begin_us, common);
                    let values = table.entries[at].values(place, common);
                    U::decode(&common.functions, values, &mut value).ok_or_else(unreadable)?;
                }
            }
            Ok(())
        })?;
        for at in 0..self.table.entries.slots() {
            let entry = &mut self.table.entries[at];
            let before = entry.memory();
            entry.count_owned(&self.common);
            self.table.memory = self.table.memory + entry.memory() - before;
            match entry.next_us {
                NONE => self.table.remove(at, &self.common),
                next_us => self.due.add(next_us, at as u32),
            }
        }
        Ok(())
    }

    /// Records the end of a key's next window in the checkpoint, or that there is none.
    fn note_next(&mut self, at: usize) {
        let Self { keys, log, common, table, buffers, .. } = self;
        let entry = &mut table.entries[at];
        let (hash, next_us) = (entry.hash, entry.next_us);
        if !log.is_on() {
            return;
        }
        write_state_key(keys, &entry.key, None, &mut buffers.key);
        let Some(slot) = entry.slot() else { return };
        if next_us == NONE {
            return log.delete_uncounted(slot, hash, &buffers.key);
        }
        let value = &mut buffers.value;
        value.clear();
        // Empty accumulators come first, so that the entry starts like those of slices.
        common.functions.iter().for_each(|function| function.start().encode(value));
        value.extend_from_slice(&next_us.to_le_bytes());
        log.put_uncounted(slot, hash, &buffers.key, value);
    }

    /// Records a slice in the checkpoint.
    #[inline]
    fn note(&mut self, at: usize, place: usize, begin_us: i64) {
        let Self { keys, log, common, table, buffers, .. } = self;
        let entry = &mut table.entries[at];
        if !log.is_on() {
            return log.count_updated(entry.counted(begin_us));
        }
        let hash = entry.hash;
        write_state_key(keys, &entry.key, Some(begin_us), &mut buffers.key);
        let Some((sum, slot)) = entry.kept(place, common) else { return };
        if let WriteTiming::AtMarker { first } = log.when_to_put(slot) {
            if first {
                self.deferred.push((at as u32, begin_us));
            }
            return;
        }
        buffers.value.clear();
        U::encode(&common.functions, sum, &mut buffers.value);
        log.put(slot, hash, &buffers.key, &buffers.value);
    }

    /// Writes the long slices that changed in this epoch. Removed slices are skipped.
    fn write_deferred(&mut self) {
        let Self { keys, log, common, table, buffers, .. } = self;
        self.deferred.drain_epoch(|(at, begin_us)| {
            let Some(entry) = table.entries.get_mut(at as usize) else { return };
            let Some(place) = entry.find(begin_us, common) else { return };
            let hash = entry.hash;
            write_state_key(keys, &entry.key, Some(begin_us), &mut buffers.key);
            let Some((sum, slot)) = entry.kept(place, common) else { return };
            buffers.value.clear();
            U::encode(&common.functions, sum, &mut buffers.value);
            log.put_uncounted(slot, hash, &buffers.key, &buffers.value);
        });
    }

    /// Emits the next window of a key, and removes the slices that no later window contains.
    /// Returns the cost in merges.
    fn emit_expired(&mut self, at: usize) -> Result<usize, EngineError> {
        let Lengths { width_us, slide_us, .. } = self.common.lengths;
        let entry = &mut self.table.entries[at];
        let (end_us, before) = (entry.next_us, entry.memory());
        let mut cost = WINDOW + entry.take(end_us, &self.common)?;
        if self.emit(at, end_us)? {
            self.log.count_removed();
        }
        cost += self.evict(at, end_us - width_us + slide_us)?;
        let (lengths, entry) = (self.common.lengths, &mut self.table.entries[at]);
        self.table.memory = self.table.memory + entry.memory() - before;
        let next_us = match entry.first_us(&self.common) {
            None => NONE,
            // The first slice also belongs to the window after the emitted one.
            Some(first_us) if first_us < end_us => end_us.saturating_add(slide_us),
            Some(first_us) => lengths.first_end(first_us),
        };
        entry.next_us = next_us;
        self.note_next(at);
        match next_us {
            NONE => self.table.remove(at, &self.common),
            next_us => self.due.add(next_us, at as u32),
        }
        Ok(cost)
    }

    /// Removes the slices of a key that start before `before_us`. Returns the cost in merges.
    fn evict(&mut self, at: usize, before_us: i64) -> Result<usize, EngineError> {
        let Self { keys, log, common, table, buffers, .. } = self;
        let entry = &mut table.entries[at];
        let mut cost = 0;
        while let Some(begin_us) = entry.first_us(common)
            && begin_us < before_us
        {
            cost += entry.pop(common)?;
            table.slices -= 1;
            if log.is_on() {
                write_state_key(keys, &entry.key, Some(begin_us), &mut buffers.key);
                // The log position was stored with the slice, which is already removed.
                log.delete_uncounted(&mut StateSlot::default(), entry.hash, &buffers.key);
            }
        }
        Ok(cost)
    }

    /// Emits the window of a key that ends at `end_us`. Returns whether the window has rows.
    fn emit(&mut self, at: usize, end_us: i64) -> Result<bool, EngineError> {
        let Self { keys, place, common, table, buffers, sum, down, .. } = self;
        let entry = &table.entries[at];
        let Some(values) = entry.window(common, sum)? else { return Ok(false) };
        buffers.window.clear();
        let mut window = RowWriter::new(&mut buffers.window, 2);
        window.long(0, end_us - common.lengths.width_us);
        window.long(1, end_us);
        let width = keys.len() + 1;
        buffers.row.clear();
        let mut writer = RowWriter::new(&mut buffers.row, width + common.functions.len());
        writer.bytes(*place, &buffers.window);
        for (i, key) in keys.iter().enumerate() {
            let to = i + usize::from(i >= *place);
            copy_key((Row(&entry.key), i, keys.len()), to, key.physical(), &mut writer);
        }
        U::write(&common.functions, values, &mut writer, width)?;
        down.push(Row(&buffers.row), UNTIMED)?;
        Ok(true)
    }

    /// Emits a bounded number of windows that end at or before `by_us`. Returns whether all such
    /// windows are emitted.
    fn expire(&mut self, by_us: i64) -> Result<bool, EngineError> {
        let (mut cost, mut touched, step) = (0, 0, self.log.keys_per_step(STEP));
        while cost < step {
            if !self.down.is_ready() {
                return Ok(!self.due.has_expired(by_us));
            }
            if touched == 0 {
                let (ahead, common) = (self.due.peek(by_us, AHEAD), &self.common);
                touched = ahead.len();
                // Several keys are prefetched together, so that the cache misses overlap.
                let entries = ahead.iter().filter_map(|&at| self.table.entries.get(at as usize));
                entries.for_each(|entry| entry.prefetch(common));
            }
            touched = touched.saturating_sub(1);
            let Some((due_us, at)) = self.due.take(by_us) else { return Ok(true) };
            // The key's next window may have changed after the entry was added to the queue.
            let entry = self.table.entries.get(at as usize);
            cost += if entry.is_some_and(|entry| entry.next_us == due_us) {
                self.emit_expired(at as usize)?
            } else {
                1
            };
            self.table.entries.release();
        }
        Ok(!self.due.has_expired(by_us))
    }

    fn hand_over(&mut self, epoch: Epoch) {
        self.write_deferred();
        self.table.entries.end_epoch();
        self.due.end_epoch();
        let Buffers { key, value, window, row } = &mut self.buffers;
        shrink_scratch([key, value, window, row]);
        let bytes = self.table.entries.memory() + self.due.memory() + self.table.memory;
        self.log.hand_over(epoch, self.table.slices, bytes as u64);
    }

    /// Continues the expiry of the current watermark. When it is complete, passes on the watermark,
    /// if watermarks arrive between records, and a pending marker.
    fn continue_expiry(&mut self) -> Result<(), EngineError> {
        if let Some(by_us) = self.expiring.us()
            && !self.expire(by_us)?
        {
            return Ok(());
        }
        self.expiring.pass(self.late.is_in_band(), 0, &mut self.down)?;
        let Some(epoch) = self.marker.take() else { return Ok(()) };
        self.hand_over(epoch);
        self.down.marker(epoch)
    }
}

impl<U: Unit> Stage for SlidingAggregate<U> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.restore()?;
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.marker.is_none() && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if !is_idle(micros) {
            self.late.advance(micros);
        }
        self.expiring.arrive(micros);
        self.continue_expiry()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if self.late.is_in_band() {
            // Expired windows that are not emitted yet are emitted in the next epoch.
            self.hand_over(epoch);
            return self.down.marker(epoch);
        }
        self.marker = Some(epoch);
        self.expiring.begin_batch(Some(self.late.watermark_us()));
        self.continue_expiry()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        let has_results = self.expiring.is_waiting();
        if !has_results && self.marker.is_none() && !self.late_emission.is_owed() {
            return self.down.flush();
        }
        if has_results && self.marker.is_none() {
            self.late_emission.note();
        }
        self.continue_expiry()?;
        let below = self.down.flush()?;
        let has_results = self.expiring.is_waiting();
        Ok(self.late_emission.combine(below, self.marker.is_some(), has_results))
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<'a, U: Unit> Push<Row<'a>> for SlidingAggregate<U> {
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        // A row without an event time belongs to no window.
        let Some(time_us) = (self.time)(self.scratch.cx(row))? else { return Ok(()) };
        let (lengths, late_us) = (self.common.lengths, self.late.late_row_watermark_us());
        if !self.last_slice.times_us.contains(&time_us) {
            self.last_slice = LastSlice::of(lengths, time_us);
        }
        let LastSlice { times_us: Range { start: begin_us, .. }, first_us, last_us } =
            self.last_slice;
        if first_us <= late_us {
            let missed = (late_us.min(last_us) - first_us) / lengths.slide_us + 1;
            self.log.count_late(missed as u64);
            self.late.send_to_side_output(row);
            if last_us <= late_us {
                return Ok(());
            }
        }
        self.key.clear();
        write_keys(&self.keys, &self.scratch, row, &mut self.key)?;
        let keeps = self.log.is_on();
        let mut at = self.table.entry(&self.key, &self.common, keeps);
        // The row is late for windows that end by `late_us`, so these are emitted before it is
        // added.
        while self.table.entries[at].next_us <= late_us {
            self.emit_expired(at)?;
            if self.table.entries[at].next_us == NONE {
                at = self.table.entry(&self.key, &self.common, keeps);
            }
        }
        let place = self.table.slice(at, begin_us, &self.common);
        let entry = &mut self.table.entries[at];
        let before = entry.owned();
        entry.add(place, &self.common, self.scratch.cx(row))?;
        self.table.memory = self.table.memory + entry.owned() - before;
        let next_us = match late_us.checked_sub(first_us) {
            Some(behind_us @ 0..) => {
                first_us + (behind_us / lengths.slide_us + 1) * lengths.slide_us
            }
            _ => first_us,
        };
        if next_us < entry.next_us {
            entry.next_us = next_us;
            self.due.add(next_us, at as u32);
            self.note_next(at);
        }
        self.note(at, place, begin_us);
        Ok(())
    }
}
