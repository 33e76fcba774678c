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
//! key's own, all becomes front. A slice of the front needs no sum of its own any more: a row that
//! is late for some of its windows goes into the suffixes.
//!
//! *Memory.* The slices of a key lie in rings: one of beginnings, one of suffixes and one of sums,
//! with as many accumulators a slice as there are functions. A result reads the fronts of the first
//! two and the end of the third; it allocates only for accumulators that own memory.
//!
//! *State.* A slice is an entry: the row of the key and the slice's beginning, to the accumulators.
//! One more entry a key, without a beginning, says which window comes next.

use super::accumulator::{Accumulator, Function};
use super::aggregate::{Key, copy_key, write_keys};
use super::late::Late;
use super::stages::{BoxChain, Scratch};
use crate::due::Due;
use crate::places::Places;
use crate::table::expr::compile::{Cx, LongFn};
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
use std::hint::black_box;
use std::mem::discriminant;
use std::ops::Range;

/// Merges in one step of letting windows out, about.
const STEP: usize = 256;
/// What a window costs beside its merges, in merges.
const WINDOW: usize = 4;
/// Keys that are read at once, ahead of their windows.
const AHEAD: usize = 16;
/// No window comes next.
const NONE: i64 = i64::MAX;

/// One for each function.
type Accumulators = SmallVec<[Accumulator; 2]>;

struct Entry {
    hash: u64,
    key: SmallVec<[u8; 40]>,
    /// Where slices begin, in order of time.
    begins: VecDeque<i64>,
    /// Where the last of them begins: most rows are of it, or of the next.
    last_us: i64,
    /// Where their last changes stand, if changes are kept.
    slots: VecDeque<Slot>,
    /// Slices of the front, and a suffix for each.
    front: usize,
    suffixes: Ring,
    /// What is in the others; in those of the front too if changes are kept.
    sums: Ring,
    /// Slices that are in the suffixes or in `back`.
    taken: usize,
    back: Accumulators,
    /// The end of the window at which all becomes front, if it is known.
    flip_us: i64,
    /// The end of the window that comes next.
    next_us: i64,
    slot: Slot,
}

/// Accumulators of slices, one for each function beside each other.
#[derive(Default)]
struct Ring(VecDeque<Accumulator>);

impl Ring {
    fn of(&self, place: usize, width: usize) -> impl Iterator<Item = &Accumulator> {
        self.0.range(place * width..(place + 1) * width)
    }

    fn of_mut(&mut self, place: usize, width: usize) -> impl Iterator<Item = &mut Accumulator> {
        self.0.range_mut(place * width..(place + 1) * width)
    }

    fn insert(&mut self, place: usize, slice: impl ExactSizeIterator<Item = Accumulator>) {
        let at = place * slice.len();
        for (i, accumulator) in slice.enumerate() {
            self.0.insert(at + i, accumulator);
        }
    }

    fn pop_front(&mut self, width: usize) {
        drop(self.0.drain(..width));
    }
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
    free: Places,
}

/// The stage.
pub(super) struct SlidingAggregate {
    parts: Parts,
    table: Table,
    slices: u64,
    due: Due,
    key: Vec<u8>,
    recent: Recent,
    buffers: Buffers,
    /// Of no rows.
    start: Accumulators,
    /// Of a window.
    sum: Accumulators,
    scratch: Scratch,
    /// A watermark whose windows are not all out.
    passing_us: Option<i64>,
    marker: Option<Epoch>,
    down: BoxChain,
}

/// The slice of the last row, which the next row is most likely of too.
struct Recent {
    times_us: Range<i64>,
    /// The ends of the first and of the last window that have it.
    first_us: i64,
    last_us: i64,
}

impl Recent {
    fn of(lengths: Lengths, time_us: i64) -> Self {
        let begin_us = lengths.slice(time_us);
        Self {
            times_us: begin_us..lengths.slice_end(begin_us),
            first_us: lengths.first_end(begin_us),
            last_us: lengths.last_end(begin_us),
        }
    }
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

fn add<'a>(
    functions: &[Function],
    to: impl Iterator<Item = &'a mut Accumulator>,
    cx: Cx<'_>,
) -> Result<(), EngineError> {
    for (function, acc) in functions.iter().zip(to) {
        function.add(acc, cx)?;
    }
    Ok(())
}

fn merge<'a>(
    functions: &[Function],
    acc: impl IntoIterator<Item = &'a mut Accumulator>,
    later: impl IntoIterator<Item = &'a Accumulator>,
) -> Result<(), EngineError> {
    for (function, (acc, later)) in functions.iter().zip(acc.into_iter().zip(later)) {
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
    fn new(hash: u64, key: &[u8], start: &Accumulators) -> Self {
        Self {
            hash,
            key: SmallVec::from_slice(key),
            begins: VecDeque::new(),
            last_us: i64::MIN,
            slots: VecDeque::new(),
            sums: Ring::default(),
            front: 0,
            suffixes: Ring::default(),
            taken: 0,
            back: start.clone(),
            flip_us: NONE,
            next_us: NONE,
            slot: Slot::default(),
        }
    }

    /// Reads what the next window needs. It was last used a window's length ago.
    fn touch(&self, width: usize, keeps: bool) {
        let next = (self.taken - self.without_sum(keeps)) * width;
        let kinds = (self.suffixes.0.front(), self.sums.0.get(next));
        let begins = (self.begins.front().copied(), self.begins.get(self.taken).copied());
        black_box((kinds.0.map(discriminant), kinds.1.map(discriminant), begins));
    }

    /// Slices at the front that have no sum of their own.
    fn without_sum(&self, keeps: bool) -> usize {
        if keeps { 0 } else { self.front }
    }

    /// Makes all that is taken front.
    fn flip(&mut self, functions: &[Function], keeps: bool) -> Result<(), EngineError> {
        let (width, front) = (functions.len(), self.front * functions.len());
        let suffixes = &mut self.suffixes.0;
        if keeps {
            suffixes.extend(self.sums.0.range(front..self.taken * width).cloned());
        } else {
            suffixes.extend(self.sums.0.drain(..self.taken * width - front));
        }
        self.front = self.taken;
        self.back = starts(functions);
        let suffixes = suffixes.make_contiguous();
        for at in (front..suffixes.len().saturating_sub(width)).rev() {
            let (slice, later) = suffixes.split_at_mut(at + width);
            functions[at % width].merge(&mut slice[at], &later[0])?;
        }
        let (before, behind) = suffixes.split_at_mut(front);
        for (at, suffix) in before.iter_mut().enumerate() {
            if let Some(later) = behind.get(at % width) {
                functions[at % width].merge(suffix, later)?;
            }
        }
        Ok(())
    }

    /// The place of a slice, made if there is none.
    fn slice(&mut self, begin_us: i64, start: &Accumulators, keeps: bool) -> (usize, bool) {
        if begin_us == self.last_us {
            return (self.begins.len() - 1, false);
        }
        if begin_us > self.last_us {
            self.last_us = begin_us;
            self.begins.push_back(begin_us);
            if keeps {
                self.slots.push_back(Slot::default());
            }
            self.sums.0.extend(start.iter().cloned());
            return (self.begins.len() - 1, true);
        }
        self.earlier_slice(begin_us, start, keeps)
    }

    #[cold]
    fn earlier_slice(&mut self, begin_us: i64, start: &Accumulators, keeps: bool) -> (usize, bool) {
        let mut at = self.begins.len();
        while at > 0 && self.begins[at - 1] > begin_us {
            at -= 1;
        }
        if at > 0 && self.begins[at - 1] == begin_us {
            return (at - 1, false);
        }
        self.begins.insert(at, begin_us);
        if keeps {
            self.slots.insert(at, Slot::default());
        }
        if at < self.front {
            // Nothing yet, and all behind it.
            let suffix: Accumulators = self.suffixes.of(at, start.len()).cloned().collect();
            self.suffixes.insert(at, suffix.into_iter());
            self.front += 1;
        }
        if let Some(at) = at.checked_sub(self.without_sum(keeps)) {
            self.sums.insert(at, start.iter().cloned());
        }
        self.taken += usize::from(at < self.taken);
        (at, true)
    }

    /// Takes a row in.
    fn add(
        &mut self,
        place: usize,
        functions: &[Function],
        keeps: bool,
        cx: Cx<'_>,
    ) -> Result<(), EngineError> {
        let width = functions.len();
        if place < self.front {
            let mut row = starts(functions);
            add(functions, row.iter_mut(), cx)?;
            for at in 0..=place {
                merge(functions, self.suffixes.of_mut(at, width), &row)?;
            }
        } else if place < self.taken {
            add(functions, self.back.iter_mut(), cx)?;
        }
        match place.checked_sub(self.without_sum(keeps)) {
            Some(at) => add(functions, self.sums.of_mut(at, width), cx),
            None => Ok(()),
        }
    }

    /// Removes a slice; none is taken yet, and all have sums.
    fn remove(&mut self, begin_us: i64, functions: &[Function]) -> bool {
        let Ok(at) = self.begins.binary_search(&begin_us) else { return false };
        self.begins.remove(at);
        self.last_us = self.begins.back().copied().unwrap_or(i64::MIN);
        self.slots.remove(at);
        drop(self.sums.0.drain(at * functions.len()..(at + 1) * functions.len()));
        true
    }
}

impl Table {
    /// The entry of a key.
    fn entry(&mut self, key: &[u8], start: &Accumulators) -> usize {
        let (hash, entries) = (hash_bytes(key), &mut self.entries);
        let same = |&at: &u32| entries[at as usize].key.as_slice() == key;
        if let Some(&at) = self.index.find(hash, same) {
            return at as usize;
        }
        let entry = Entry::new(hash, key, start);
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
            start: starts(&parts.functions),
            parts,
            table: Table::default(),
            slices: 0,
            due: Due::default(),
            key: Vec::new(),
            recent: Recent { times_us: 0..0, first_us: 0, last_us: 0 },
            buffers: Buffers::default(),
            sum: Accumulators::new(),
            scratch: Scratch::default(),
            passing_us: None,
            marker: None,
            down,
        }
    }

    fn restore(&mut self) -> Result<(), EngineError> {
        let Self { parts, table, slices, start, key: own, .. } = self;
        let (keys, functions) = (&parts.keys, &parts.functions);
        let (width, keeps) = (keys.len() + 1, parts.log.is_on());
        parts.log.restore(|_, key, value| {
            let field = Field::new(keys.len(), width);
            let begin_us = (!Row(key).is_null(field)).then(|| Row(key).long(field));
            own.clear();
            let mut writer = RowWriter::new(own, keys.len());
            for (i, of) in keys.iter().enumerate() {
                copy_key((Row(key), i, width), i, of.physical(), &mut writer);
            }
            let at = table.entry(own, start);
            let entry = &mut table.entries[at];
            match (begin_us, value) {
                (None, None) => entry.next_us = NONE,
                (None, Some(value)) => {
                    let next = value.last_chunk::<8>().ok_or_else(unreadable)?;
                    entry.next_us = i64::from_le_bytes(*next);
                }
                (Some(begin_us), None) => {
                    *slices -= u64::from(entry.remove(begin_us, functions));
                }
                (Some(begin_us), Some(mut value)) => {
                    let (place, new) = entry.slice(begin_us, start, keeps);
                    for acc in entry.sums.of_mut(place, functions.len()) {
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
        let Entry { hash, key, begins, slots, sums, .. } = &mut table.entries[at];
        if !parts.log.is_on() {
            return parts.log.count_updated();
        }
        write_state_key(&parts.keys, key, Some(begins[place]), &mut buffers.key);
        buffers.value.clear();
        let sums = sums.of(place, parts.functions.len());
        sums.for_each(|acc| acc.encode(&mut buffers.value));
        parts.log.put(&mut slots[place], *hash, &buffers.key, &buffers.value);
    }

    /// Lets the next window of a key out, and then what no window needs any more. Returns what it
    /// cost, in merges.
    fn let_out(&mut self, at: usize) -> Result<usize, EngineError> {
        let Lengths { width_us, slide_us, .. } = self.parts.lengths;
        let (functions, keeps) = (&self.parts.functions, self.parts.log.is_on());
        let entry = &mut self.table.entries[at];
        let end_us = entry.next_us;
        let mut cost = WINDOW;
        while let Some(begin_us) = entry.begins.get(entry.taken)
            && *begin_us < end_us
        {
            let at = entry.taken - entry.without_sum(keeps);
            merge(functions, &mut entry.back, entry.sums.of(at, functions.len()))?;
            entry.taken += 1;
            cost += 1;
        }
        if entry.flip_us <= end_us {
            entry.flip(functions, keeps)?;
            entry.flip_us = end_us.saturating_add(width_us);
            cost += entry.taken;
        } else if entry.flip_us == NONE {
            // Not all keys at once.
            let moment = (entry.hash >> 8) as i64 % (width_us / slide_us);
            entry.flip_us = end_us.saturating_add(moment * slide_us);
        }
        if entry.taken > 0 {
            self.emit(at, end_us)?;
            self.parts.log.count_removed();
        }
        cost += self.evict(at, end_us - width_us + slide_us)?;
        let (lengths, entry) = (self.parts.lengths, &mut self.table.entries[at]);
        let next_us = match entry.begins.front() {
            None => NONE,
            // A part of the next window already.
            Some(&first_us) if first_us < end_us => end_us.saturating_add(slide_us),
            Some(&first_us) => lengths.first_end(first_us),
        };
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
        let (entry, keeps) = (&mut table.entries[at], parts.log.is_on());
        let mut cost = 0;
        while let Some(&begin_us) = entry.begins.front()
            && begin_us < before_us
        {
            if entry.front == 0 {
                entry.flip(&parts.functions, keeps)?;
                cost += entry.taken;
            }
            entry.suffixes.pop_front(parts.functions.len());
            entry.begins.pop_front();
            if entry.begins.is_empty() {
                entry.last_us = i64::MIN;
            }
            (entry.front, entry.taken) = (entry.front - 1, entry.taken - 1);
            *slices -= 1;
            if keeps {
                entry.sums.pop_front(parts.functions.len());
                entry.slots.pop_front();
                write_state_key(&parts.keys, &entry.key, Some(begin_us), &mut buffers.key);
                parts.log.erase(entry.hash, &buffers.key);
            }
        }
        Ok(cost)
    }

    fn emit(&mut self, at: usize, end_us: i64) -> Result<(), EngineError> {
        let Self { parts, table, buffers, sum, down, .. } = self;
        let entry = &table.entries[at];
        sum.clear();
        if entry.front > 0 {
            sum.extend(entry.suffixes.of(0, parts.functions.len()).cloned());
            merge(&parts.functions, sum.iter_mut(), &entry.back)?;
        }
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
        let values = if entry.front > 0 { &*sum } else { &entry.back };
        for (i, (function, acc)) in parts.functions.iter().zip(values).enumerate() {
            function.write(acc, &mut writer, keys + i)?;
        }
        down.push(Row(&buffers.row), UNTIMED)
    }

    /// A step of letting windows out that are over. Returns whether all are.
    fn expire(&mut self, by_us: i64) -> Result<bool, EngineError> {
        let (width, keeps) = (self.parts.functions.len(), self.parts.log.is_on());
        let (mut cost, mut touched) = (0, 0);
        while cost < STEP {
            if !self.down.ready() {
                return Ok(!self.due.any(by_us));
            }
            if touched == 0 {
                let ahead = self.due.ahead(by_us, AHEAD);
                touched = ahead.len();
                // Together, so that memory is waited for once and not for each in turn.
                ahead.iter().for_each(|&at| self.table.entries[at as usize].touch(width, keeps));
            }
            touched = touched.saturating_sub(1);
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
        let slice = size_of::<i64>() as u64 + accumulators;
        let kept = if self.parts.log.is_on() { size_of::<Slot>() as u64 + accumulators } else { 0 };
        let slices = self.slices * (slice + kept);
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
        Ok(Settled::over(below, self.marker.is_some(), self.passing_us.is_some()))
    }
}

impl<'a> Push<Row<'a>> for SlidingAggregate {
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        // A row without a time is in no window.
        let Some(time_us) = (self.parts.time)(self.scratch.cx(row))? else { return Ok(()) };
        let (lengths, late_us) = (self.parts.lengths, self.parts.late.late_us());
        if !self.recent.times_us.contains(&time_us) {
            self.recent = Recent::of(lengths, time_us);
        }
        let Recent { times_us: Range { start: begin_us, .. }, first_us, last_us } = self.recent;
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
        let at = self.table.entry(&self.key, &self.start);
        // The row is late for these, and must not be in them.
        while self.table.entries[at].next_us <= late_us {
            self.let_out(at)?;
            if self.table.entries[at].next_us == NONE {
                let again = self.table.entry(&self.key, &self.start);
                debug_assert_eq!(again, at, "the place that was freed last is taken first");
            }
        }
        let (functions, start) = (&self.parts.functions, &self.start);
        let entry = &mut self.table.entries[at];
        let keeps = self.parts.log.is_on();
        let (place, new) = entry.slice(begin_us, start, keeps);
        entry.add(place, functions, keeps, self.scratch.cx(row))?;
        self.slices += u64::from(new);
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
        self.note(at, place);
        Ok(())
    }
}
