//! Hash aggregation: a hash table maps each group key to accumulators.
//!
//! The output mode and the execution mode decide when rows are emitted:
//!
//! | mode | continuous | micro-batch |
//! |---|---|---|
//! | update | the key's new row after every record | each touched key once, at the marker |
//! | complete | the table at a marker, if it changed; with several instances, or in a union, at every marker, because an instance does not know whether the others changed | the table at every marker |
//! | append | a group's row when it expires, once | the same, at the marker |
//!
//! Each change is recorded for the checkpoint as it happens, except that long values are recorded
//! once, at the marker ([`StateLog`]).
//!
//! In modes append and update a group with an event time expires when the watermark reaches its
//! expiry time; late rows are dropped and counted. In continuous mode expiry starts when the
//! watermark arrives and continues in bounded steps between the records that follow; in micro-batch
//! mode groups expire at the marker. In mode complete no group expires and no row is late.
//!
//! Rows that are due at a marker are emitted before the marker, in bounded steps
//! ([`Stage::flush`]).

use crate::event_time::pending_watermark::PendingWatermark;
use crate::state::expiry_queue::ExpiryQueue;
use crate::state::key_table::{KeyTable, KeyedEntry, key_heap};
use crate::table::expr::compile::{Compiled, write_field};
use crate::table::expr::functions::canonical_double;
use crate::table::physical::accumulator::{
    Accumulator, Buffers, Function, Group, GroupParts, Restored, split_key,
};
use crate::table::physical::late_row::LateRows;
use crate::table::physical::stages::{BoxChain, Scratch, step};
use crate::table::physical::table_signal::TableSignal;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::time_window::EventKey;
use crate::table::row::{self, Row, RowWriter};
use crate::table::types::{DataType, Physical};
use millstream_engine::checkpoint::key_group::{hash_bytes, hash_with_prefix};
use millstream_engine::collections::high_water::{EpochBuffer, shrink_scratch};
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};
use millstream_engine::runtime::state_log::{StateLog, StateSlot, WriteTiming};
use smallvec::SmallVec;

struct Entry {
    hash: u64,
    /// The encoded key row. Short keys are stored inline.
    key: SmallVec<[u8; 40]>,
    /// A single accumulator is stored inline, so it is read with the rest of the entry.
    accumulators: SmallVec<[Accumulator; 1]>,
    /// The ingest time of the group's last input row.
    ingest_ns: u64,
    touched: bool,
    /// The log position of the entry's last change.
    slot: StateSlot,
    /// Whether the group was removed, so that its slot may be reused.
    is_removed: bool,
    /// The memory of `parts` and the heap memory that the accumulators own, in bytes.
    owned: usize,
    /// The checkpoint parts of growing values; `None` if no function has a growing value, or
    /// without a checkpoint.
    parts: Option<Box<GroupParts>>,
}

impl KeyedEntry for Entry {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The grouping key that contains the event time, and the watermark that decides when groups
/// expire.
pub(in crate::table::physical) struct EventTimeKey {
    pub key: EventKey,
    pub late: LateRows,
}

/// The source of a grouping key's value.
pub(in crate::table::physical) enum Key {
    /// The value of an input column, copied without evaluating an expression.
    Column(row::Slot, Physical),
    Computed(Compiled),
}

impl Key {
    /// A key that is a column of rows with `width` columns.
    pub fn column(index: usize, width: usize, data_type: &DataType) -> Self {
        Self::Column(row::Slot::new(index, width), data_type.physical())
    }

    /// A key that is computed by an expression.
    pub fn computed(compiled: Compiled) -> Self {
        Self::Computed(compiled)
    }

    /// The physical type of the key's values.
    pub fn physical(&self) -> Physical {
        match self {
            Self::Column(_, physical) => *physical,
            Self::Computed(Compiled::Bool(_)) => Physical::Bool,
            Self::Computed(Compiled::Long(_)) => Physical::Long,
            Self::Computed(Compiled::Double(_)) => Physical::Double,
            Self::Computed(Compiled::Decimal(_)) => Physical::Decimal,
            Self::Computed(Compiled::Bytes(_)) => Physical::Bytes,
        }
    }
}

/// Appends the grouping keys of a row to `out`, as a row that has only the keys. Equal doubles get
/// equal bytes: -0.0 is written as 0.0, and all NaNs alike.
pub(in crate::table::physical) fn write_keys(
    keys: &[Key],
    scratch: &Scratch,
    row: Row<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EngineError> {
    let mut writer = RowWriter::new(out, keys.len());
    for (index, key) in keys.iter().enumerate() {
        match key {
            Key::Column(slot, _) if row.is_null(*slot) => {}
            Key::Column(slot, Physical::Double) => {
                writer.double(index, canonical_double(row.double(*slot)));
            }
            Key::Column(slot, Physical::Bool | Physical::Long) => {
                writer.long(index, row.long(*slot));
            }
            Key::Column(slot, _) => writer.bytes(index, row.bytes(*slot)),
            Key::Computed(Compiled::Double(f)) => {
                if let Some(v) = f(scratch.cx(row))? {
                    writer.double(index, canonical_double(v));
                }
            }
            Key::Computed(key) => write_field(key, scratch.cx(row), &mut writer, index)?,
        }
    }
    Ok(())
}

impl Entry {
    fn new(hash: u64, key: SmallVec<[u8; 40]>, accumulators: SmallVec<[Accumulator; 1]>) -> Self {
        Self {
            hash,
            key,
            accumulators,
            ingest_ns: UNTIMED,
            touched: false,
            slot: StateSlot::default(),
            is_removed: false,
            owned: 0,
            parts: None,
        }
    }
}

/// Encodes the accumulators of an entry. A value that is written in parts is encoded as a mark.
fn encode(entry: &Entry, out: &mut Vec<u8>) {
    out.clear();
    match entry.parts {
        Some(_) => entry.accumulators.iter().for_each(|acc| acc.encode_beside_parts(out)),
        None => entry.accumulators.iter().for_each(|acc| acc.encode(out)),
    }
}

fn unreadable() -> EngineError {
    let reason = "a checkpoint entry of an aggregation does not match its functions";
    EngineError::operator("CHECKPOINT_DAMAGED", reason, "Begin anew")
}

/// The number of rows in a partial aggregate, which is its first word.
fn rows_of(words: &[u8]) -> u64 {
    words.first_chunk().map_or(0, |rows| u64::from_le_bytes(*rows))
}

struct Emission {
    next: usize,
    epoch: Epoch,
    /// Whether all rows of the mode have been emitted and groups are now being expired.
    expiring: bool,
}

/// The rules that decide which results are emitted, and when.
#[derive(Clone, Debug)]
pub(in crate::table::physical) struct OutputRules {
    pub mode: OutputMode,
    /// Whether epochs end at markers between records (continuous mode) instead of between batches.
    pub continuous: bool,
    /// Whether the result consists only of this instance's rows: there is no other instance, and no
    /// union adds other rows.
    pub is_only_instance: bool,
    /// Tells the sink that the whole result is emitted.
    pub table: TableSignal,
}

/// The stage of a hash aggregation.
pub(in crate::table::physical) struct HashAggregate {
    keys: Vec<Key>,
    functions: Vec<Function>,
    output: OutputRules,
    entries: KeyTable<Entry>,
    touched: EpochBuffer<u32>,
    /// The grouping key with the event time; `None` if no key has one, and in complete mode.
    event: Option<EventTimeKey>,
    due: ExpiryQueue,
    /// A watermark whose expired groups have not all been removed yet.
    expiring: PendingWatermark,
    /// Whether [`Stage::flush`] still has to return [`FlushStatus::NextEpoch`] once, because it has
    /// worked on expired groups while no marker was pending.
    late_emission: LateEmission,
    emission: Option<Emission>,
    scratch: Scratch,
    /// Whether a key or a function evaluates an expression for each record.
    computes: bool,
    /// Whether the fast path [`text_entry`](Self::text_entry) applies: the only key is a column of
    /// bytes, and no row can be late.
    by_bytes: bool,
    /// The column with the accumulators' words, if the input rows are partial aggregates of
    /// [`PartialAggregate`](super::partial_aggregate::PartialAggregate).
    partials: Option<row::Slot>,
    words: Vec<u64>,
    key: Vec<u8>,
    out: Vec<u8>,
    log: StateLog,
    value: Vec<u8>,
    /// Whether a function has a growing value, which is written in parts.
    grows: bool,
    buffers: Buffers,
    /// Entries with long values, which are written once at the marker.
    deferred: EpochBuffer<u32>,
    /// Whether an accumulator may own heap memory.
    owns: bool,
    /// The sum of [`Entry::owned`] over all groups.
    heap_bytes: usize,
    /// The heap memory of all keys, in bytes.
    key_heap: u64,
    down: BoxChain,
}

impl HashAggregate {
    pub fn new(
        keys: Vec<Key>,
        functions: Vec<Function>,
        output: OutputRules,
        event: Option<EventTimeKey>,
        log: StateLog,
        down: BoxChain,
    ) -> Self {
        let computes = keys.iter().any(|key| matches!(key, Key::Computed(_)))
            || functions.iter().any(Function::computes);
        // Complete mode never removes groups.
        let event = event.filter(|_| output.mode != OutputMode::Complete);
        // A window is represented as bytes too, but the fast path does not check for late rows.
        let of_bytes = matches!(keys.as_slice(), [Key::Column(_, Physical::Bytes)]);
        Self {
            computes,
            by_bytes: of_bytes && event.is_none(),
            grows: functions.iter().any(Function::grows),
            buffers: Buffers::default(),
            deferred: EpochBuffer::default(),
            owns: !functions.iter().all(Function::is_plain),
            heap_bytes: 0,
            partials: None,
            words: Vec::new(),
            keys,
            functions,
            output,
            entries: KeyTable::default(),
            touched: EpochBuffer::default(),
            event,
            due: ExpiryQueue::default(),
            expiring: PendingWatermark::default(),
            late_emission: LateEmission::default(),
            emission: None,
            scratch: Scratch::default(),
            key: Vec::new(),
            out: Vec::new(),
            log,
            value: Vec::new(),
            key_heap: 0,
            down,
        }
    }

    /// Makes this stage merge partial aggregates: rows of the keys, and of a column with the number
    /// of rows and the accumulators' words.
    pub fn of_partials(self) -> Self {
        let keys = self.keys.len();
        Self { computes: false, partials: Some(row::Slot::new(keys, keys + 1)), ..self }
    }

    /// Adds a row to the group with the index `at`, or merges the partial aggregates in the row.
    #[inline]
    fn add(&mut self, at: usize, row: Row<'_>) -> Result<(), EngineError> {
        let accumulators = &mut self.entries[at].accumulators;
        let Some(slot) = self.partials else {
            for (function, acc) in self.functions.iter().zip(accumulators) {
                function.add(acc, self.scratch.cx(row))?;
            }
            return Ok(());
        };
        self.words.clear();
        let (words, _) = row.bytes(slot).as_chunks::<8>();
        self.words.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        // The first word is the number of rows.
        let mut words = &self.words[1..];
        for (function, acc) in self.functions.iter().zip(accumulators) {
            function.merge(acc, &function.load(words))?;
            words = &words[function.words()..];
        }
        Ok(())
    }

    fn at_once(&self) -> bool {
        self.output.continuous && self.output.mode == OutputMode::Update
    }

    /// Whether watermarks arrive between records (continuous mode).
    fn is_in_band(&self) -> bool {
        self.output.continuous && self.event.as_ref().is_none_or(|event| event.late.is_in_band())
    }

    /// Whether a group's row is emitted when the group expires (append mode).
    fn by_watermark(&self) -> bool {
        self.output.mode == OutputMode::Append
    }

    /// The expiry time of a group; `None` if the group never expires.
    #[inline]
    fn expires_us(&self, key: &[u8]) -> Option<i64> {
        self.event.as_ref()?.key.expires_us(Row(key), self.keys.len())
    }

    /// The index of the group with the key in `self.key`, created if it is missing.
    #[inline]
    fn entry(&mut self, hash: u64) -> usize {
        if let Some(at) = self.entries.find(hash, &self.key) {
            return at;
        }
        let mut accumulators: SmallVec<[_; 1]> =
            self.functions.iter().map(Function::start).collect();
        let in_parts = self.grows && self.log.is_on();
        let parts = in_parts.then(|| Box::new(GroupParts::new(&mut accumulators)));
        let key = SmallVec::from_slice(&self.key);
        let entry = Entry { parts, ..Entry::new(hash, key, accumulators) };
        self.key_heap += key_heap(&entry.key);
        let at = self.entries.insert(entry);
        if let Some(expires_us) = self.expires_us(&self.entries[at].key) {
            self.due.add(expires_us, at as u32);
        }
        at
    }

    /// Removes a group from the table and from the checkpoint.
    fn forget(&mut self, at: usize) {
        self.entries.free(at);
        let entry = &mut self.entries[at];
        self.log.delete(&mut entry.slot, entry.hash, &entry.key);
        if let Some(mut parts) = entry.parts.take() {
            let group = Group { hash: entry.hash, key: &entry.key };
            parts.erase(group, &mut self.log, &mut self.buffers);
        }
        self.heap_bytes -= std::mem::take(&mut entry.owned);
        self.key_heap -= key_heap(&entry.key);
        (entry.is_removed, entry.touched, entry.key) = (true, false, SmallVec::new());
        entry.accumulators = SmallVec::new();
        self.entries.release();
    }

    /// Removes a bounded number of groups that expire at or before `by_us`, and in append mode
    /// emits their rows. Returns whether all such groups are removed.
    fn expire(&mut self, by_us: i64) -> Result<bool, EngineError> {
        let step = self.log.keys_per_step(step(self.due.count(by_us)));
        self.entries.prefetch(self.due.peek(by_us, step));
        for _ in 0..step {
            if !self.down.is_ready() {
                return Ok(!self.due.has_expired(by_us));
            }
            let Some((_, at)) = self.due.take(by_us) else { return Ok(true) };
            if self.by_watermark() {
                let ingest_ns = self.entries[at as usize].ingest_ns;
                let ingest_ns = if self.output.continuous { UNTIMED } else { ingest_ns };
                self.emit(at as usize, ingest_ns)?;
            }
            self.forget(at as usize);
        }
        Ok(!self.due.has_expired(by_us))
    }

    /// Continues the expiry that a watermark between records has started. When all expired groups
    /// are removed, the watermark is passed on.
    fn continue_expiry(&mut self) -> Result<(), EngineError> {
        if let Some(by_us) = self.expiring.us()
            && !self.expire(by_us)?
        {
            return Ok(());
        }
        self.expiring.pass(true, 0, &mut self.down)
    }

    /// The index of the group whose only key has the bytes `text`, created if it is missing. The
    /// key row consists of two words and these bytes.
    #[inline]
    fn text_entry(&mut self, text: &[u8]) -> usize {
        let words = [0, 16 | (text.len() as u64) << 32];
        let hash = hash_with_prefix(words, text);
        // The prefixes need no comparison: they are equal if both keys are non-NULL and of the same
        // length.
        let is_text =
            |key: &[u8]| key.len() == 16 + text.len() && key[0] == 0 && key[16..] == *text;
        if let Some(at) = self.entries.find_by(hash, is_text) {
            return at;
        }
        self.key.clear();
        words.iter().for_each(|word| self.key.extend_from_slice(&word.to_le_bytes()));
        self.key.extend_from_slice(text);
        self.entry(hash)
    }

    /// Records the new value of a group in the checkpoint. A long value is deferred to the marker.
    #[inline]
    fn note(&mut self, at: usize) {
        if self.grows {
            self.note_added(at);
        }
        if self.owns {
            self.count_owned(at);
        }
        let entry = &mut self.entries[at];
        if let WriteTiming::AtMarker { first } = self.log.when_to_put(&mut entry.slot) {
            if first {
                self.deferred.push(at as u32);
            }
            return;
        }
        if self.log.is_on() {
            encode(entry, &mut self.value);
        }
        self.log.put(&mut entry.slot, entry.hash, &entry.key, &self.value);
    }

    /// Updates the total heap memory after the group's accumulators have changed.
    #[inline(never)]
    fn count_owned(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        let parts = entry.parts.as_ref().map_or(0, |parts| parts.memory());
        let owned = entry.accumulators.iter().map(Accumulator::owned_bytes).sum::<usize>() + parts;
        self.heap_bytes = self.heap_bytes + owned - std::mem::replace(&mut entry.owned, owned);
    }

    /// Records the additions to the group's growing values in the checkpoint.
    #[inline(never)]
    fn note_added(&mut self, at: usize) {
        let Self { entries, log, buffers, .. } = self;
        let Entry { hash, key, accumulators, parts, .. } = &mut entries[at];
        if let Some(parts) = parts {
            parts.write(Group { hash: *hash, key }, accumulators, log, buffers);
        }
    }

    /// Writes the long values of groups that changed in this epoch, except of removed groups.
    fn write_deferred(&mut self) {
        let Self { deferred, entries, value, log, .. } = self;
        deferred.drain_epoch(|at| {
            let Some(entry) = entries.get_mut(at as usize) else { return };
            if !entry.is_removed {
                encode(entry, value);
                log.put_uncounted(&mut entry.slot, entry.hash, &entry.key, value);
            }
        });
    }

    /// Restores the groups from the committed checkpoint.
    fn restore(&mut self) -> Result<(), EngineError> {
        let Self { log, entries, functions, key_heap: heap, keys, grows, .. } = self;
        let mut parts = Restored::default();
        log.restore(|hash, key, value| {
            if *grows {
                let physical = keys.iter().map(Key::physical);
                let split = row::length(key, physical).and_then(|bytes| split_key(key, bytes));
                if let (group, Some(part)) = split.ok_or_else(unreadable)? {
                    parts.put(group, part, value);
                    return Ok(());
                }
            }
            let Some(mut value) = value else {
                if let Some(at) = entries.find(hash, key) {
                    entries.free(at);
                    *heap -= key_heap(&entries[at].key);
                    (entries[at].is_removed, entries[at].key) = (true, SmallVec::new());
                }
                return Ok(());
            };
            let mut accumulators: SmallVec<[_; 1]> =
                functions.iter().map(Function::start).collect();
            for accumulator in &mut accumulators {
                accumulator.decode(&mut value).ok_or_else(unreadable)?;
            }
            if let Some(at) = entries.find(hash, key) {
                entries[at].accumulators = accumulators;
                return Ok(());
            }
            let entry = Entry::new(hash, SmallVec::from_slice(key), accumulators);
            *heap += key_heap(&entry.key);
            entries.insert(entry);
            Ok(())
        })?;
        let in_parts = self.grows && self.log.is_on();
        for at in 0..self.entries.slots() {
            let entry = &mut self.entries[at];
            if entry.is_removed {
                continue;
            }
            if in_parts {
                let taken = parts.take(&entry.key, &mut entry.accumulators);
                let taken = taken.ok_or_else(unreadable)?;
                entry.parts = Some(Box::new(taken));
            }
            if self.owns {
                self.count_owned(at);
            }
            if let Some(expires_us) = self.expires_us(&self.entries[at].key) {
                self.due.add(expires_us, at as u32);
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, epoch: Epoch) {
        self.write_deferred();
        self.entries.end_epoch();
        self.due.end_epoch();
        shrink_scratch([&mut self.value, &mut self.out, &mut self.key]);
        let rows = self.entries.len();
        // A single accumulator is stored in its entry, several are stored on the heap.
        let apart = if self.functions.len() > 1 { self.functions.len() * rows } else { 0 };
        let tables = self.entries.memory() + self.due.memory() + apart * size_of::<Accumulator>();
        let bytes = (tables + self.heap_bytes) as u64 + self.key_heap;
        self.log.hand_over(epoch, rows as u64, bytes);
    }

    fn emit(&mut self, at: usize, ingest_ns: u64) -> Result<(), EngineError> {
        if self.grows {
            self.entries[at].accumulators.iter_mut().for_each(Accumulator::merge_buffered);
        }
        let (keys, entry) = (self.keys.len(), &self.entries[at]);
        self.out.clear();
        let mut writer = RowWriter::new(&mut self.out, keys + self.functions.len());
        let key = Row(&entry.key);
        for (index, column) in self.keys.iter().enumerate() {
            copy_key((key, index, keys), index, column.physical(), &mut writer);
        }
        for (index, (function, acc)) in self.functions.iter().zip(&entry.accumulators).enumerate() {
            function.write(acc, &mut writer, keys + index)?;
        }
        self.down.push(Row(&self.out), ingest_ns)
    }

    /// Marks the row of a global aggregation for output, because it is emitted even without input.
    fn touch_global(&mut self) {
        if self.keys.is_empty() && self.entries.slots() == 0 {
            self.key.clear();
            RowWriter::new(&mut self.key, 0);
            let at = self.entry(hash_bytes(&self.key));
            self.note(at);
            self.mark_touched(at);
        } else if self.keys.is_empty() {
            if !self.output.continuous {
                self.note(0);
            }
            self.mark_touched(0);
        }
    }

    fn mark_touched(&mut self, at: usize) {
        if !std::mem::replace(&mut self.entries[at].touched, true) {
            self.touched.push(at as u32);
        }
    }

    /// Runs one bounded step of emission at a marker: emits the groups that the output mode shows,
    /// removes expired ones, and then passes the marker on. Returns whether that is done; true if
    /// no marker is pending.
    fn emit_step(&mut self) -> Result<bool, EngineError> {
        let Some(mut emission) = self.emission.take() else { return Ok(true) };
        let complete = self.output.mode == OutputMode::Complete;
        let total = match self.output.mode {
            OutputMode::Complete => self.entries.slots(),
            OutputMode::Update => self.touched.len(),
            OutputMode::Append => 0,
        };
        let mut budget = if emission.expiring { 0 } else { self.log.keys_per_step(step(total)) };
        while emission.next < total && budget > 0 && self.down.is_ready() {
            let at = if complete { emission.next } else { self.touched[emission.next] as usize };
            // Groups may have been removed, and their slots freed, because the checkpoint may be from
            // a run in another output mode.
            if let Some(entry) = self.entries.get(at).filter(|entry| !entry.is_removed) {
                let ingest_ns = if entry.touched { entry.ingest_ns } else { UNTIMED };
                self.emit(at, ingest_ns)?;
            }
            emission.next += 1;
            budget -= 1;
        }
        if emission.next < total {
            self.emission = Some(emission);
            return Ok(false);
        }
        emission.expiring = true;
        let Self { touched, entries, .. } = self;
        touched.drain_epoch(|at| entries[at as usize].touched = false);
        // With watermarks between records, groups are removed when the watermark arrives, not here.
        if let (Some(event), false) = (&self.event, self.is_in_band())
            && !self.expire(event.late.watermark_us())?
        {
            self.emission = Some(emission);
            return Ok(false);
        }
        self.hand_over(emission.epoch);
        self.down.marker(emission.epoch)?;
        Ok(true)
    }
}

/// Copies a key column of a group to an output row.
pub(in crate::table::physical) fn copy_key(
    (key, from, width): (Row<'_>, usize, usize),
    index: usize,
    physical: Physical,
    writer: &mut RowWriter<'_, Vec<u8>>,
) {
    let slot = row::Slot::new(from, width);
    if key.is_null(slot) {
        return;
    }
    match physical {
        Physical::Bool | Physical::Long => writer.long(index, key.long(slot)),
        Physical::Double => writer.double(index, key.double(slot)),
        Physical::Decimal | Physical::Bytes => writer.bytes(index, key.bytes(slot)),
    }
}

impl Stage for HashAggregate {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.restore()?;
        self.down.attach(io)
    }

    fn is_ready(&mut self) -> bool {
        self.emission.is_none() && self.down.is_ready()
    }

    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        let Some(event) = &mut self.event else { return self.down.watermark(micros) };
        if !is_idle(micros) {
            event.late.advance(micros);
        }
        self.expiring.arrive(micros);
        self.continue_expiry()
    }

    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if self.at_once() || (self.is_in_band() && self.by_watermark()) {
            // Expired groups that are not removed yet are removed in the next epoch.
            self.hand_over(epoch);
            return self.down.marker(epoch);
        }
        if !self.output.continuous || self.entries.slots() == 0 {
            self.touch_global();
        }
        if self.is_in_band() && self.output.is_only_instance && self.touched.is_empty() {
            self.hand_over(epoch);
            return self.down.marker(epoch);
        }
        if self.output.mode == OutputMode::Complete {
            self.output.table.set();
        }
        self.emission = Some(Emission { next: 0, epoch, expiring: false });
        self.emit_step()?;
        Ok(())
    }

    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }

    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        let has_results = self.expiring.is_waiting();
        if self.emission.is_none() && !has_results && !self.late_emission.is_owed() {
            return self.down.flush();
        }
        if has_results && self.emission.is_none() {
            self.late_emission.note();
        }
        self.continue_expiry()?;
        self.emit_step()?;
        let below = self.down.flush()?;
        let has_results = self.expiring.is_waiting();
        Ok(self.late_emission.combine(below, self.emission.is_some(), has_results))
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<'a> Push<Row<'a>> for HashAggregate {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        if self.computes {
            self.scratch.reset();
        }
        let at = match self.keys.as_slice() {
            [Key::Column(slot, _)] if self.by_bytes && !row.is_null(*slot) => {
                self.text_entry(row.bytes(*slot))
            }
            _ => {
                self.key.clear();
                write_keys(&self.keys, &self.scratch, row, &mut self.key)?;
                if let (Some(expires_us), Some(event)) = (self.expires_us(&self.key), &self.event)
                    && expires_us <= event.late.late_row_watermark_us()
                {
                    event.late.send_to_side_output(row);
                    let rows = self.partials.map_or(1, |slot| rows_of(row.bytes(slot)));
                    self.log.count_late(rows);
                    return Ok(());
                }
                self.entry(hash_bytes(&self.key))
            }
        };
        self.entries[at].ingest_ns = ingest_ns;
        self.add(at, row)?;
        self.note(at);
        match (self.output.continuous, self.output.mode) {
            (true, OutputMode::Update) => return self.emit(at, ingest_ns),
            (_, OutputMode::Append) => {}
            _ => self.mark_touched(at),
        }
        Ok(())
    }
}
