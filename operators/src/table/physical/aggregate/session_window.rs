//! Session windows: rows of a key that follow each other within a gap belong to one session. A row
//! extends and merges all sessions that it touches. Each session has its own accumulators.
//!
//! *State.* The value of a key is the number of its sessions, and the start, end and accumulators
//! of each session in time order. The value is rewritten at each change, or once per epoch if it is
//! long.

use crate::event_time::pending_watermark::PendingWatermark;
use crate::state::expiry_queue::ExpiryQueue;
use crate::state::key_table::{KeyTable, KeyedEntry, key_heap};
use crate::table::expr::compile::BytesFn;
use crate::table::physical::accumulator::{Accumulator, Function};
use crate::table::physical::aggregate::hash_aggregate::{Key, OutputRules, copy_key, write_keys};
use crate::table::physical::late_row::LateRows;
use crate::table::physical::stages::{BoxChain, Scratch, step};
use crate::table::plan::analyzer::OutputMode;
use crate::table::row::{Row, RowWriter, Slot as Field};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::collections::high_water::{EpochBuffer, shrink_scratch};
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};
use millstream_engine::runtime::state_log::{StateLog, StateSlot, WriteTiming};
use smallvec::SmallVec;

struct Session {
    begin_us: i64,
    end_us: i64,
    accumulators: SmallVec<[Accumulator; 1]>,
}

struct Entry {
    hash: u64,
    key: SmallVec<[u8; 40]>,
    /// The key's sessions, in time order and without overlaps.
    sessions: Vec<Session>,
    slot: StateSlot,
    /// The log generation in which the key's sessions were last counted as updated, and the number
    /// of sessions counted.
    counted: (u32, usize),
    /// The heap memory of the sessions' accumulators, in bytes.
    owned: usize,
    /// The time at which the key is next checked for expiry; [`i64::MAX`] for never. The queue may
    /// also contain other times of this key, which are ignored.
    due_us: i64,
    /// Whether the key was removed and its slot may be reused.
    is_removed: bool,
}

impl Entry {
    fn new(hash: u64, key: &[u8], sessions: Vec<Session>) -> Self {
        let (key, slot) = (SmallVec::from_slice(key), StateSlot::default());
        let (counted, owned, due_us) = ((0, 0), 0, i64::MAX);
        Self { hash, key, sessions, slot, counted, owned, due_us, is_removed: false }
    }
}

impl KeyedEntry for Entry {
    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The configuration of a [`SessionAggregate`].
pub(in crate::table::physical) struct SessionParts {
    /// The grouping keys other than the window.
    pub keys: Vec<Key>,
    /// Computes the window of a single row.
    pub window: BytesFn,
    /// The index of the window among all grouping keys.
    pub place: usize,
    pub functions: Vec<Function>,
    pub output: OutputRules,
    /// Whether a query that groups only by the window is rejected, at its first row.
    pub needs_key: bool,
    /// How late rows are detected; `None` without a watermark.
    pub late: Option<LateRows>,
    /// Whether sessions are emitted and removed when the watermark reaches their end (append mode).
    pub evicts: bool,
    pub log: StateLog,
}

/// The stage of an aggregation over session windows.
pub(in crate::table::physical) struct SessionAggregate {
    parts: SessionParts,
    entries: KeyTable<Entry>,
    due: ExpiryQueue,
    key: Vec<u8>,
    value: Vec<u8>,
    window: Vec<u8>,
    out: Vec<u8>,
    scratch: Scratch,
    /// A watermark whose expired sessions have not all been emitted yet.
    expiring: PendingWatermark,
    /// Whether [`Stage::flush`] still has to return [`FlushStatus::NextEpoch`] once, because it has
    /// worked on expired sessions while no marker was pending.
    late_emission: LateEmission,
    /// A pending marker, and the next entry to emit before it in complete mode.
    marker: Option<(Epoch, usize)>,
    changed: bool,
    /// Entries with long values, which are written once at the marker.
    deferred: EpochBuffer<u32>,
    /// The number of sessions of all keys.
    kept: u64,
    /// Whether an accumulator may own heap memory.
    owns: bool,
    /// The heap memory of all accumulators, in bytes.
    owned: usize,
    /// The heap memory of all keys, in bytes.
    key_heap: u64,
    down: BoxChain,
}

fn unreadable() -> EngineError {
    let reason = "a checkpoint entry of session windows does not match their functions";
    EngineError::operator("CHECKPOINT_DAMAGED", reason, "Begin anew")
}

fn sessions(functions: &[Function], mut value: &[u8]) -> Option<Vec<Session>> {
    let long = |value: &mut &[u8]| {
        let (head, rest) = value.split_first_chunk::<8>()?;
        *value = rest;
        Some(i64::from_le_bytes(*head))
    };
    let count = usize::try_from(long(&mut value)?).ok()?;
    let mut sessions = Vec::new();
    for _ in 0..count {
        let (begin_us, end_us) = (long(&mut value)?, long(&mut value)?);
        let mut accumulators: SmallVec<[_; 1]> = functions.iter().map(Function::start).collect();
        for accumulator in &mut accumulators {
            accumulator.decode(&mut value)?;
        }
        sessions.push(Session { begin_us, end_us, accumulators });
    }
    Some(sessions)
}

impl SessionAggregate {
    pub fn new(parts: SessionParts, down: BoxChain) -> Self {
        let owns = !parts.functions.iter().all(Function::is_plain);
        Self {
            parts,
            entries: KeyTable::default(),
            due: ExpiryQueue::default(),
            key: Vec::new(),
            value: Vec::new(),
            window: Vec::new(),
            out: Vec::new(),
            scratch: Scratch::default(),
            expiring: PendingWatermark::default(),
            late_emission: LateEmission::default(),
            marker: None,
            changed: false,
            deferred: EpochBuffer::default(),
            kept: 0,
            owns,
            owned: 0,
            key_heap: 0,
            down,
        }
    }

    fn restore(&mut self) -> Result<(), EngineError> {
        let Self { parts, entries, due, key_heap: heap, .. } = self;
        let functions = &parts.functions;
        parts.log.restore(|hash, key, value| {
            let sessions = match value {
                None => None,
                Some(value) => Some(sessions(functions, value).ok_or_else(unreadable)?),
            };
            let first_us = sessions.iter().flatten().next().map(|first| first.end_us);
            let at = match (entries.find(hash, key), sessions) {
                (Some(at), None) => {
                    entries.free(at);
                    *heap -= key_heap(&entries[at].key);
                    (entries[at].is_removed, entries[at].key) = (true, SmallVec::new());
                    entries[at].sessions = Vec::new();
                    return Ok(());
                }
                (Some(at), Some(sessions)) => {
                    entries[at].sessions = sessions;
                    at
                }
                (None, Some(sessions)) => {
                    let entry = Entry::new(hash, key, sessions);
                    *heap += key_heap(&entry.key);
                    entries.insert(entry)
                }
                (None, None) => return Ok(()),
            };
            if let Some(first_us) = first_us.filter(|_| parts.evicts) {
                entries[at].due_us = first_us;
                due.add(first_us, at as u32);
            }
            Ok(())
        })?;
        let slots = 0..self.entries.slots();
        self.kept = slots.clone().map(|at| self.entries[at].sessions.len() as u64).sum();
        if self.owns {
            slots.for_each(|at| self.count_owned(at));
        }
        Ok(())
    }

    /// The index of the entry with the key in `self.key`, created if it is missing.
    fn entry(&mut self) -> usize {
        let hash = hash_bytes(&self.key);
        if let Some(at) = self.entries.find(hash, &self.key) {
            return at;
        }
        let entry = Entry::new(hash, &self.key, Vec::new());
        self.key_heap += key_heap(&entry.key);
        self.entries.insert(entry)
    }

    /// Schedules the next expiry check of an entry.
    fn look_at(&mut self, at: usize, due_us: i64) {
        self.entries[at].due_us = due_us;
        self.due.add(due_us, at as u32);
    }

    /// Records the new value of an entry in the checkpoint, or its deletion if it has no sessions.
    /// A long value is written at the marker.
    fn note(&mut self, at: usize) {
        if self.owns {
            self.count_owned(at);
        }
        let entry = &mut self.entries[at];
        if entry.sessions.is_empty() {
            self.parts.log.delete_uncounted(&mut entry.slot, entry.hash, &entry.key);
            return;
        }
        match self.parts.log.when_to_write(&mut entry.slot) {
            WriteTiming::Immediately => self.write(at),
            WriteTiming::AtMarker { first: true } => self.deferred.push(at as u32),
            WriteTiming::AtMarker { first: false } => {}
        }
    }

    /// Updates the total heap memory after an entry has changed.
    fn count_owned(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        let values = entry.sessions.iter().flat_map(|session| &session.accumulators);
        let owned = values.map(Accumulator::owned_bytes).sum::<usize>();
        self.owned = self.owned + owned - std::mem::replace(&mut entry.owned, owned);
    }

    fn write(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        if self.parts.log.is_on() {
            self.value.clear();
            self.value.extend_from_slice(&(entry.sessions.len() as u64).to_le_bytes());
            for session in &entry.sessions {
                self.value.extend_from_slice(&session.begin_us.to_le_bytes());
                self.value.extend_from_slice(&session.end_us.to_le_bytes());
                session.accumulators.iter().for_each(|acc| acc.encode(&mut self.value));
            }
        }
        self.parts.log.put_uncounted(&mut entry.slot, entry.hash, &entry.key, &self.value);
    }

    /// Counts the sessions of an entry as updated. As in Spark, a session counts once per epoch.
    fn count_updated(&mut self, at: usize) {
        let (entry, log) = (&mut self.entries[at], &mut self.parts.log);
        let (generation, counted) = entry.counted;
        let before = if generation == log.generation() { counted } else { 0 };
        log.recount_updated(before, entry.sessions.len());
        entry.counted = (log.generation(), entry.sessions.len());
    }

    fn emit(&mut self, at: usize, session: usize) -> Result<(), EngineError> {
        let (parts, entry) = (&self.parts, &self.entries[at]);
        let session = &entry.sessions[session];
        let keys = parts.keys.len() + 1;
        self.out.clear();
        self.window.clear();
        let mut of_window = RowWriter::new(&mut self.window, 2);
        of_window.long(0, session.begin_us);
        of_window.long(1, session.end_us);
        let mut writer = RowWriter::new(&mut self.out, keys + parts.functions.len());
        writer.bytes(parts.place, &self.window);
        for (i, key) in parts.keys.iter().enumerate() {
            let to = i + usize::from(i >= parts.place);
            copy_key((Row(&entry.key), i, parts.keys.len()), to, key.physical(), &mut writer);
        }
        for (i, (function, acc)) in parts.functions.iter().zip(&session.accumulators).enumerate() {
            function.write(acc, &mut writer, keys + i)?;
        }
        self.down.push(Row(&self.out), UNTIMED)
    }

    /// Emits and removes a key's sessions that end at or before `by_us`.
    fn emit_expired(&mut self, at: usize, by_us: i64) -> Result<(), EngineError> {
        let over = |session: &Session| session.end_us <= by_us;
        let count = self.entries[at].sessions.iter().take_while(|s| over(s)).count();
        if count > 0 {
            for session in 0..count {
                self.emit(at, session)?;
            }
            self.entries[at].sessions.drain(..count);
            self.kept -= count as u64;
            (0..count).for_each(|_| self.parts.log.count_removed());
            self.note(at);
        }
        Ok(())
    }

    /// Emits the expired sessions of a bounded number of keys, while the chain is ready. Returns
    /// whether all are emitted.
    fn expire(&mut self, by_us: i64) -> Result<bool, EngineError> {
        let step = self.parts.log.keys_per_step(step(self.due.count(by_us)));
        self.entries.prefetch(self.due.peek(by_us, step));
        for _ in 0..step {
            if !self.down.is_ready() {
                return Ok(!self.due.has_expired(by_us));
            }
            let Some((due_us, at)) = self.due.take(by_us) else { return Ok(true) };
            let at = at as usize;
            // The slot may belong to another key in the meantime, or the key's next check has
            // another time.
            if self.entries.get(at).is_none_or(|entry| entry.is_removed || entry.due_us != due_us) {
                continue;
            }
            self.emit_expired(at, by_us)?;
            match self.entries[at].sessions.first().map(|first| first.end_us) {
                Some(first_us) => self.look_at(at, first_us),
                None => {
                    self.entries.free(at);
                    let entry = &mut self.entries[at];
                    self.key_heap -= key_heap(&entry.key);
                    (entry.is_removed, entry.key, entry.sessions) =
                        (true, SmallVec::new(), Vec::new());
                    self.entries.release();
                }
            }
        }
        Ok(!self.due.has_expired(by_us))
    }

    fn hand_over(&mut self, epoch: Epoch) {
        let mut deferred = std::mem::take(&mut self.deferred);
        deferred.drain_epoch(|at| {
            let entry = self.entries.get(at as usize);
            if entry.is_some_and(|entry| !entry.sessions.is_empty()) {
                self.write(at as usize);
            }
        });
        self.deferred = deferred;
        self.entries.end_epoch();
        self.due.end_epoch();
        shrink_scratch([&mut self.value, &mut self.out, &mut self.key]);
        // The memory of the sessions is estimated: a key's list has a capacity of at least four.
        let (keys, sessions) = (self.entries.len(), self.kept as usize);
        let lists = sessions.max(keys * 4) * size_of::<Session>();
        let functions = self.parts.functions.len();
        let apart = if functions > 1 { functions * sessions } else { 0 };
        let tables = self.entries.memory() + self.due.memory() + lists;
        let bytes = tables + apart * size_of::<Accumulator>() + self.owned;
        self.parts.log.hand_over(epoch, self.kept, bytes as u64 + self.key_heap);
    }

    /// Continues the expiry of the current watermark. When it is complete, passes on the watermark,
    /// if watermarks arrive between records. Then a pending marker is passed on, in mode complete
    /// after the table, which is emitted in bounded steps if it may have changed.
    fn continue_expiry(&mut self) -> Result<(), EngineError> {
        if let Some(by_us) = self.expiring.us()
            && !self.expire(by_us)?
        {
            return Ok(());
        }
        let in_band = self.parts.late.as_ref().is_some_and(LateRows::is_in_band);
        self.expiring.pass(in_band, 0, &mut self.down)?;
        let Some((epoch, mut next)) = self.marker.take() else { return Ok(()) };
        let shows =
            self.changed || !self.parts.output.continuous || !self.parts.output.is_only_instance;
        if self.parts.output.mode == OutputMode::Complete && shows {
            self.parts.output.table.set();
            let mut budget = self.parts.log.keys_per_step(step(self.entries.slots()));
            while next < self.entries.slots() && budget > 0 && self.down.is_ready() {
                // The slot may be free if the checkpoint is from a run in another output mode.
                let sessions = self.entries.get(next).map_or(0, |entry| entry.sessions.len());
                for session in 0..sessions {
                    self.emit(next, session)?;
                }
                (next, budget) = (next + 1, budget - 1);
            }
            if next < self.entries.slots() {
                self.marker = Some((epoch, next));
                return Ok(());
            }
        }
        self.changed = false;
        self.hand_over(epoch);
        self.down.marker(epoch)
    }
}

impl Stage for SessionAggregate {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.restore()?;
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.marker.is_none() && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        let Some(late) = &mut self.parts.late else { return self.down.watermark(micros) };
        if !is_idle(micros) {
            late.advance(micros);
        }
        if !self.parts.evicts {
            return self.down.watermark(micros);
        }
        self.expiring.arrive(micros);
        self.continue_expiry()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.marker = Some((epoch, 0));
        if self.parts.late.as_ref().map_or(self.parts.output.continuous, LateRows::is_in_band) {
            // Expired sessions that are not emitted yet are emitted in the next epoch, so their
            // watermark is set aside while the marker is passed on.
            let passing = std::mem::take(&mut self.expiring);
            self.continue_expiry()?;
            self.expiring = passing;
            return Ok(());
        }
        let late = self.parts.late.as_ref().filter(|_| self.parts.evicts);
        self.expiring.begin_batch(late.map(LateRows::watermark_us));
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

impl<'a> Push<Row<'a>> for SessionAggregate {
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        if self.parts.needs_key && self.parts.keys.is_empty() {
            return Err(EngineError::operator(
                "SESSION_WINDOW_GLOBAL_AGGREGATION_UNSUPPORTED",
                "Global aggregation with session window in streaming query is not supported",
                "Group by another column too, for example a constant",
            ));
        }
        let Some(window) = (self.parts.window)(self.scratch.cx(row))? else { return Ok(()) };
        let window = Row(window);
        let (begin_us, end_us) = (window.long(Field::new(0, 2)), window.long(Field::new(1, 2)));
        if let Some(late) =
            self.parts.late.as_ref().filter(|late| end_us <= late.late_row_watermark_us())
        {
            late.send_to_side_output(row);
            self.parts.log.count_late(1);
            return Ok(());
        }
        self.key.clear();
        write_keys(&self.parts.keys, &self.scratch, row, &mut self.key)?;
        let at = self.entry();
        let late = self.parts.late.as_ref().filter(|_| self.parts.evicts);
        if let Some(late_us) = late.map(LateRows::late_row_watermark_us) {
            // A row must not extend an expired session, even one that is not emitted yet.
            self.emit_expired(at, late_us)?;
        }
        let functions = &self.parts.functions;
        let list = &mut self.entries[at].sessions;
        let (before, count) = (list.first().map(|first| first.end_us), list.len());
        // The sessions that the row touches are adjacent in the list, from `from` to `to`.
        let from = list.partition_point(|session| session.end_us < begin_us);
        let to = list.partition_point(|session| session.begin_us <= end_us);
        let cx = self.scratch.cx(row);
        let grows = to - from == 1 && list[from].begin_us <= begin_us;
        if grows {
            list[from].end_us = list[from].end_us.max(end_us);
        } else {
            // The accumulators of the merged sessions must be merged in time order.
            let accumulators = functions.iter().map(Function::start).collect();
            let at = from + list[from..to].partition_point(|other| other.begin_us <= begin_us);
            list.insert(at, Session { begin_us, end_us, accumulators });
            for (function, acc) in functions.iter().zip(&mut list[at].accumulators) {
                function.add(acc, cx)?;
            }
            let (first, rest) = list[from..=to].split_at_mut(1);
            for other in rest {
                first[0].end_us = first[0].end_us.max(other.end_us);
                let pairs = first[0].accumulators.iter_mut().zip(&other.accumulators);
                for (function, (acc, later)) in functions.iter().zip(pairs) {
                    function.merge(acc, later)?;
                }
            }
            list.drain(from + 1..=to);
        }
        if grows {
            for (function, acc) in functions.iter().zip(&mut list[from].accumulators) {
                function.add(acc, cx)?;
            }
        }
        let first = list.first().map(|first| first.end_us);
        self.kept = self.kept - count as u64 + list.len() as u64;
        if let (Some(first), true) = (first, self.parts.evicts)
            && before.is_none_or(|before| first < before)
        {
            self.look_at(at, first);
        }
        self.changed = true;
        self.note(at);
        self.count_updated(at);
        Ok(())
    }
}
