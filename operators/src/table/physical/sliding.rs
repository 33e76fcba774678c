//! Sliding windows by slices: a row goes into the one slice of its time, whatever the number of
//! windows that it is in, and a window is combined from its slices when the watermark passes it.
//!
//! *Combining* costs a key about three merges a window, however many slices a window has. Of the
//! slices of a key the older ones (`front`) have the sum of themselves and all younger ones of the
//! front beside them, and the younger ones one sum for all of them (`back`):
//!
//! ```text
//! slices    a    b    c    d  │ e   f  │ g   still to come
//! suffix  abcd  bcd   cd   d  │  back  │
//! ```
//!
//! The window is `suffix[0] + back`. When it moves on, `a` goes with its suffix, and `g` is merged
//! into `back`. When the front is used up, and once in each length of the window at a moment of the
//! key's own, all becomes front anew.
//!
//! *State.* A slice is an entry: the row of the key and the slice's beginning, to the accumulators.
//! One more entry a key, without a beginning, says which window comes next.

use super::accumulator::{Accumulator, Function};
use super::aggregate::{Key, copy_key, write_keys};
use super::late::Late;
use super::stages::{BoxChain, Scratch};
use crate::due::Due;
use crate::table::expr::compile::LongFn;
use crate::table::row::{Row, RowWriter, Slot as Field};
use crate::table::windows::Lengths;
use hashbrown::HashTable;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, IDLE, UNTIMED};
use millstream_engine::key_group::hash_bytes;
use millstream_engine::stage::{Io, Push, Settled, Stage};
use millstream_engine::state::{Slot, StateLog};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Merges in one step of letting windows out, about.
const STEP: usize = 1024;
/// What a window costs beside its merges, in merges.
const WINDOW: usize = 4;
/// No window comes next.
const NONE: i64 = i64::MAX;

type Accumulators = SmallVec<[Accumulator; 1]>;

struct Slice {
    begin_us: i64,
    accumulators: Accumulators,
    slot: Slot,
}

struct Entry {
    hash: u64,
    key: SmallVec<[u8; 40]>,
    /// In order of time.
    slices: VecDeque<Slice>,
    /// For each slice of the front.
    suffix: VecDeque<Accumulators>,
    /// Slices that are in the suffixes or in `back`.
    taken: usize,
    back: Accumulators,
    /// The end of the window that comes next.
    next_us: i64,
    slot: Slot,
}

/// What the stage is made of.
pub(super) struct Parts {
    /// The other keys.
    pub keys: Vec<Key>,
    /// The time of a row.
    pub time: LongFn,
    pub lengths: Lengths,
    /// The place of the window among all keys.
    pub place: usize,
    pub functions: Vec<Function>,
    pub late: Late,
    pub log: StateLog,
}

/// The keys.
#[derive(Default)]
struct Table {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

/// The stage.
pub(super) struct SlidingAggregate {
    parts: Parts,
    table: Table,
    slices: u64,
    due: Due,
    key: Vec<u8>,
    buffers: Buffers,
    scratch: Scratch,
    /// A watermark whose windows are not all out.
    passing_us: Option<i64>,
    marker: Option<Epoch>,
    down: BoxChain,
}

/// What is written before it goes on.
#[derive(Default)]
struct Buffers {
    key: Vec<u8>,
    value: Vec<u8>,
    window: Vec<u8>,
    row: Vec<u8>,
}

fn unreadable() -> EngineError {
    let reason = "an entry of sliding windows does not hold what their functions need";
    EngineError::operator("CHECKPOINT_DAMAGED", reason, "Begin anew")
}

fn starts(functions: &[Function]) -> Accumulators {
    functions.iter().map(Function::start).collect()
}

fn merge(
    functions: &[Function],
    acc: &mut Accumulators,
    later: &Accumulators,
) -> Result<(), EngineError> {
    for (function, (acc, later)) in functions.iter().zip(acc.iter_mut().zip(later)) {
        function.merge(acc, later)?;
    }
    Ok(())
}

/// The row of a key with the beginning of a slice behind it.
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

impl Entry {
    fn new(hash: u64, key: &[u8], functions: &[Function]) -> Self {
        Self {
            hash,
            key: SmallVec::from_slice(key),
            slices: VecDeque::new(),
            suffix: VecDeque::new(),
            taken: 0,
            back: starts(functions),
            next_us: NONE,
            slot: Slot::default(),
        }
    }

    /// Makes all that is taken front.
    fn flip(&mut self, functions: &[Function]) -> Result<(), EngineError> {
        self.suffix.clear();
        let mut sum = starts(functions);
        for slice in self.slices.range(..self.taken).rev() {
            let mut with = slice.accumulators.clone();
            merge(functions, &mut with, &sum)?;
            sum = with.clone();
            self.suffix.push_front(with);
        }
        self.back = starts(functions);
        Ok(())
    }

    /// Nothing is taken: a slice that was has changed.
    fn reset(&mut self, functions: &[Function]) {
        self.suffix.clear();
        self.taken = 0;
        self.back = starts(functions);
    }

    /// The place of a slice, made if there is none. Most rows are of the last one.
    fn slice(&mut self, begin_us: i64, functions: &[Function]) -> (usize, bool) {
        let mut at = self.slices.len();
        while at > 0 && self.slices[at - 1].begin_us > begin_us {
            at -= 1;
        }
        if at > 0 && self.slices[at - 1].begin_us == begin_us {
            return (at - 1, false);
        }
        let accumulators = starts(functions);
        self.slices.insert(at, Slice { begin_us, accumulators, slot: Slot::default() });
        if at < self.taken {
            self.reset(functions);
        }
        (at, true)
    }
}

impl Table {
    /// The entry of a key.
    fn entry(&mut self, key: &[u8], functions: &[Function]) -> usize {
        let (hash, entries) = (hash_bytes(key), &mut self.entries);
        let same = |&at: &u32| entries[at as usize].key.as_slice() == key;
        if let Some(&at) = self.index.find(hash, same) {
            return at as usize;
        }
        let entry = Entry::new(hash, key, functions);
        let at = match self.free.pop() {
            Some(at) => {
                entries[at as usize] = entry;
                at
            }
            None => {
                entries.push(entry);
                entries.len() as u32 - 1
            }
        };
        self.index.insert_unique(hash, at, |&at| entries[at as usize].hash);
        at as usize
    }

    /// Takes a key out that has no slices.
    fn remove(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        if let Ok(found) = self.index.find_entry(entry.hash, |&other| other as usize == at) {
            found.remove();
        }
        (entry.next_us, entry.key) = (NONE, SmallVec::new());
        self.free.push(at as u32);
    }
}

impl SlidingAggregate {
    pub fn new(parts: Parts, down: BoxChain) -> Self {
        Self {
            parts,
            table: Table::default(),
            slices: 0,
            due: Due::default(),
            key: Vec::new(),
            buffers: Buffers::default(),
            scratch: Scratch::default(),
            passing_us: None,
            marker: None,
            down,
        }
    }

    fn restore(&mut self) -> Result<(), EngineError> {
        let Self { parts, table, slices, key: own, .. } = self;
        let (keys, functions) = (&parts.keys, &parts.functions);
        let width = keys.len() + 1;
        parts.log.restore(|_, key, value| {
            let field = Field::new(keys.len(), width);
            let begin_us = (!Row(key).is_null(field)).then(|| Row(key).long(field));
            own.clear();
            let mut writer = RowWriter::new(own, keys.len());
            for (i, of) in keys.iter().enumerate() {
                copy_key((Row(key), i, width), i, of.physical(), &mut writer);
            }
            let at = table.entry(own, functions);
            let entry = &mut table.entries[at];
            match (begin_us, value) {
                (None, None) => entry.next_us = NONE,
                (None, Some(value)) => {
                    let next = value.last_chunk::<8>().ok_or_else(unreadable)?;
                    entry.next_us = i64::from_le_bytes(*next);
                }
                (Some(begin_us), None) => {
                    let before = entry.slices.len();
                    entry.slices.retain(|slice| slice.begin_us != begin_us);
                    *slices -= (before - entry.slices.len()) as u64;
                }
                (Some(begin_us), Some(mut value)) => {
                    let (place, new) = entry.slice(begin_us, functions);
                    for acc in &mut entry.slices[place].accumulators {
                        acc.decode(&mut value).ok_or_else(unreadable)?;
                    }
                    *slices += u64::from(new);
                }
            }
            Ok(())
        })?;
        for at in 0..self.table.entries.len() {
            match self.table.entries[at].next_us {
                NONE => self.table.remove(at),
                next_us => self.due.add(next_us, at as u32),
            }
        }
        Ok(())
    }

    /// Notes which window of a key comes next.
    fn note_next(&mut self, at: usize) {
        let Self { parts, table, buffers, .. } = self;
        let entry = &mut table.entries[at];
        if !parts.log.is_on() {
            return;
        }
        write_state_key(&parts.keys, &entry.key, None, &mut buffers.key);
        if entry.next_us == NONE {
            return parts.log.erase(entry.hash, &buffers.key);
        }
        let value = &mut buffers.value;
        value.clear();
        // Empty ones, so that it reads as the others do.
        parts.functions.iter().for_each(|function| function.start().encode(value));
        value.extend_from_slice(&entry.next_us.to_le_bytes());
        parts.log.write(&mut entry.slot, entry.hash, &buffers.key, value);
    }

    /// Notes a slice.
    fn note(&mut self, at: usize, place: usize) {
        let Self { parts, table, buffers, .. } = self;
        let Entry { hash, key, slices, .. } = &mut table.entries[at];
        let slice = &mut slices[place];
        if parts.log.is_on() {
            write_state_key(&parts.keys, key, Some(slice.begin_us), &mut buffers.key);
            buffers.value.clear();
            slice.accumulators.iter().for_each(|acc| acc.encode(&mut buffers.value));
        }
        parts.log.put(&mut slice.slot, *hash, &buffers.key, &buffers.value);
    }

    /// Lets the next window of a key out, and then what no window needs any more. Returns what it
    /// cost, in merges.
    fn let_out(&mut self, at: usize) -> Result<usize, EngineError> {
        let Lengths { width_us, slide_us, .. } = self.parts.lengths;
        let functions = &self.parts.functions;
        let entry = &mut self.table.entries[at];
        let end_us = entry.next_us;
        let mut cost = WINDOW;
        while let Some(slice) = entry.slices.get(entry.taken)
            && slice.begin_us < end_us
        {
            merge(functions, &mut entry.back, &slice.accumulators)?;
            entry.taken += 1;
            cost += 1;
        }
        // Once in each length of the window, and not all keys at once.
        let moment = (end_us / slide_us).wrapping_add((entry.hash >> 8) as i64 & 0xFFFF);
        if moment.rem_euclid(width_us / slide_us) == 0 {
            entry.flip(functions)?;
            cost += entry.taken;
        }
        if entry.taken > 0 {
            self.emit(at, end_us)?;
            self.parts.log.count_removed();
        }
        cost += self.evict(at, end_us - width_us + slide_us)?;
        let (lengths, entry) = (self.parts.lengths, &mut self.table.entries[at]);
        let next_us = entry.slices.front().map_or(NONE, |first| {
            lengths.first_end(first.begin_us).max(end_us.saturating_add(slide_us))
        });
        entry.next_us = next_us;
        self.note_next(at);
        match next_us {
            NONE => self.table.remove(at),
            next_us => self.due.add(next_us, at as u32),
        }
        Ok(cost)
    }

    /// Lets slices go that begin before a time.
    fn evict(&mut self, at: usize, before_us: i64) -> Result<usize, EngineError> {
        let Self { parts, table, buffers, slices, .. } = self;
        let entry = &mut table.entries[at];
        let mut cost = 0;
        while entry.slices.front().is_some_and(|first| first.begin_us < before_us) {
            if entry.suffix.is_empty() {
                entry.flip(&parts.functions)?;
                cost += entry.taken;
            }
            entry.suffix.pop_front();
            entry.taken -= 1;
            *slices -= 1;
            if let Some(slice) = entry.slices.pop_front()
                && parts.log.is_on()
            {
                let begin_us = Some(slice.begin_us);
                write_state_key(&parts.keys, &entry.key, begin_us, &mut buffers.key);
                parts.log.erase(entry.hash, &buffers.key);
            }
        }
        Ok(cost)
    }

    fn emit(&mut self, at: usize, end_us: i64) -> Result<(), EngineError> {
        let Self { parts, table, buffers, down, .. } = self;
        let entry = &table.entries[at];
        let sum = match entry.suffix.front() {
            None => None,
            Some(suffix) => {
                let mut sum = suffix.clone();
                merge(&parts.functions, &mut sum, &entry.back)?;
                Some(sum)
            }
        };
        buffers.window.clear();
        let mut window = RowWriter::new(&mut buffers.window, 2);
        window.long(0, end_us - parts.lengths.width_us);
        window.long(1, end_us);
        let keys = parts.keys.len() + 1;
        buffers.row.clear();
        let mut writer = RowWriter::new(&mut buffers.row, keys + parts.functions.len());
        writer.bytes(parts.place, &buffers.window);
        for (i, key) in parts.keys.iter().enumerate() {
            let to = i + usize::from(i >= parts.place);
            copy_key((Row(&entry.key), i, parts.keys.len()), to, key.physical(), &mut writer);
        }
        let values = sum.as_ref().unwrap_or(&entry.back);
        for (i, (function, acc)) in parts.functions.iter().zip(values).enumerate() {
            function.write(acc, &mut writer, keys + i)?;
        }
        down.push(Row(&buffers.row), UNTIMED)
    }

    /// A step of letting windows out that are over. Returns whether all are.
    fn expire(&mut self, by_us: i64) -> Result<bool, EngineError> {
        let mut cost = 0;
        while cost < STEP {
            if !self.down.ready() {
                return Ok(!self.due.any(by_us));
            }
            let Some((due_us, at)) = self.due.take(by_us) else { return Ok(true) };
            // It may have another next window than when it was added.
            cost += if self.table.entries[at as usize].next_us == due_us {
                self.let_out(at as usize)?
            } else {
                1
            };
        }
        Ok(!self.due.any(by_us))
    }

    fn hand_over(&mut self, epoch: Epoch) {
        let keys = (self.table.entries.len() - self.table.free.len()) as u64;
        let accumulators = (size_of::<Accumulator>() * self.parts.functions.len()) as u64;
        // Most slices have a suffix too.
        let slices = self.slices * (size_of::<Slice>() as u64 + 2 * accumulators);
        let bytes = keys * (size_of::<Entry>() as u64 + accumulators) + slices;
        self.parts.log.hand_over(epoch, self.slices, bytes);
    }

    /// Goes on with a watermark, and with a marker behind it.
    fn go_on(&mut self) -> Result<(), EngineError> {
        if let Some(by_us) = self.passing_us {
            if !self.expire(by_us)? {
                return Ok(());
            }
            self.passing_us = None;
            if self.parts.late.in_band() {
                self.down.watermark(by_us)?;
            }
        }
        let Some(epoch) = self.marker.take() else { return Ok(()) };
        self.hand_over(epoch);
        self.down.marker(epoch)
    }
}

impl Stage for SlidingAggregate {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.restore()?;
        self.down.attach(io)
    }
    fn ready(&mut self) -> bool {
        self.marker.is_none() && self.down.ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if micros == IDLE {
            return self.down.watermark(IDLE);
        }
        self.parts.late.advance(micros);
        self.passing_us = self.passing_us.max(Some(micros));
        self.go_on()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if self.parts.late.in_band() {
            // What is still to go goes in the next epoch.
            self.hand_over(epoch);
            return self.down.marker(epoch);
        }
        self.marker = Some(epoch);
        self.passing_us = Some(self.parts.late.watermark_us());
        self.go_on()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn settle(&mut self) -> Result<Settled, EngineError> {
        if self.passing_us.is_none() && self.marker.is_none() {
            return self.down.settle();
        }
        self.go_on()?;
        let below = self.down.settle()?;
        let more = self.passing_us.is_some() || self.marker.is_some();
        Ok(if more && below != Settled::Blocked { Settled::More } else { below })
    }
}

impl<'a> Push<Row<'a>> for SlidingAggregate {
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        // A row without a time is in no window.
        let Some(time_us) = (self.parts.time)(self.scratch.cx(row))? else { return Ok(()) };
        let (lengths, late_us) = (self.parts.lengths, self.parts.late.late_us());
        let begin_us = lengths.slice(time_us);
        let (first_us, last_us) = (lengths.first_end(begin_us), lengths.last_end(begin_us));
        if first_us <= late_us {
            let missed = (late_us.min(last_us) - first_us) / lengths.slide_us + 1;
            self.parts.log.count_late_windows(missed as u64);
            self.parts.late.put_aside(row);
            if last_us <= late_us {
                return Ok(());
            }
        }
        self.key.clear();
        write_keys(&self.parts.keys, &self.scratch, row, &mut self.key)?;
        let at = self.table.entry(&self.key, &self.parts.functions);
        // The row is late for these, and must not be in them.
        while self.table.entries[at].next_us <= late_us {
            self.let_out(at)?;
            if self.table.entries[at].next_us == NONE {
                let again = self.table.entry(&self.key, &self.parts.functions);
                debug_assert_eq!(again, at, "the place that was freed last is taken first");
            }
        }
        let functions = &self.parts.functions;
        let entry = &mut self.table.entries[at];
        let (place, new) = entry.slice(begin_us, functions);
        let cx = self.scratch.cx(row);
        let acc = &mut entry.slices[place].accumulators;
        for (function, acc) in functions.iter().zip(acc) {
            function.add(acc, cx)?;
        }
        if place < entry.suffix.len() {
            entry.reset(functions);
        } else if place < entry.taken {
            for (function, acc) in functions.iter().zip(&mut entry.back) {
                function.add(acc, cx)?;
            }
        }
        self.slices += u64::from(new);
        let behind_late = (late_us - first_us).div_euclid(lengths.slide_us) + 1;
        let next_us = first_us + behind_late.max(0) * lengths.slide_us;
        if next_us < entry.next_us {
            entry.next_us = next_us;
            self.due.add(next_us, at as u32);
            self.note_next(at);
        }
        self.note(at, place);
        Ok(())
    }
}
