//! Processors: user-defined operators on a keyed stream, with state and timers for each key.
//!
//! Event-time timers fire when the watermark has reached them, processing-time timers when the
//! clock has reached them. In continuous mode they fire at once, in micro-batch mode at the end of
//! a batch, which has a single processing time. If many timers are due, they fire in steps. In
//! continuous mode records are processed between the steps, and the due timers of a key, at most
//! [`STEP`], fire before its next record.
//!
//! Late records are dropped and counted. A record without an event time is never late: `map` and
//! similar operations lose the event time.

use crate::event_time::pending_watermark::PendingWatermark;
use crate::event_time::watermark::{EventTimeFn, OperatorWatermark};
use crate::state::key_table::{KeyTable, KeyedEntry};
use crate::stream::operator::timer_queues::TimerQueues;
use crate::stream::processor_state::{
    Buffer, Cell, Cells, ChangeWriter, Kept, ListState, MapState, NEVER, States, TIMERS,
    ValueState, damaged, split_key, write,
};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::env::Env;
use millstream_engine::epoch::event_time::BatchTimes;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};
use millstream_engine::runtime::state_log::StateLog;
use std::hash::Hash;
use std::sync::Arc;

/// Maximum number of timers that fire in one step.
const STEP: usize = 256;

/// A user-defined operator with state and timers for each key. Each instance has a clone of its
/// own.
pub trait Processor<K, T>: Clone + Send + 'static {
    /// The type of the emitted results.
    type Output: Send + 'static;

    /// Processes a record. An error ends the query.
    fn record(
        &mut self,
        key: &K,
        record: T,
        cx: &mut Context<'_, Self::Output>,
    ) -> Result<(), EngineError>;

    /// Called when a timer of the key has fired. The timer is already removed.
    fn timer(
        &mut self,
        key: &K,
        timer: Timer,
        cx: &mut Context<'_, Self::Output>,
    ) -> Result<(), EngineError> {
        let _ = (key, timer, cx);
        Ok(())
    }
}

/// The time at which a timer fires, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The timer fires when the watermark has reached this time.
    EventTime(i64),
    /// The timer fires when the wall clock has reached this time.
    ProcessingTime(i64),
}

impl Timer {
    fn parts(self) -> (u8, i64) {
        match self {
            Self::EventTime(us) => (0, us),
            Self::ProcessingTime(us) => (1, us),
        }
    }

    fn of_parts(bytes: &[u8]) -> Option<Self> {
        let (kind, time) = bytes.split_first()?;
        let us = i64::from_le_bytes(time.try_into().ok()?);
        match kind {
            0 => Some(Self::EventTime(us)),
            1 => Some(Self::ProcessingTime(us)),
            _ => None,
        }
    }
}

/// The interface of a processor to state, timers and output while it handles a record or a timer.
pub struct Context<'c, O> {
    down: &'c mut dyn Push<O>,
    cells: Cells<'c>,
    timers: &'c mut Vec<Timer>,
    clocks: &'c mut TimerQueues,
    at: u32,
    watermark_us: i64,
    /// Whether the stream has an event time.
    timed: bool,
    ingest_ns: u64,
}

impl<O> Context<'_, O> {
    /// Emits a result to the stream that follows.
    pub fn emit(&mut self, output: O) -> Result<(), EngineError> {
        self.down.push(output, self.ingest_ns)
    }

    /// The watermark, in microseconds since 1970. Before the first one it is that of the previous
    /// run, or at most 0.
    pub fn watermark_us(&self) -> i64 {
        self.watermark_us
    }

    /// The wall-clock time, in microseconds since 1970; in micro-batch mode, the time of the batch.
    pub fn processing_time_us(&self) -> i64 {
        self.cells.notes.now_us
    }

    /// The value of the key.
    pub fn value<V: Kept>(&self, state: ValueState<V>) -> Option<&V> {
        self.cells.value(state)
    }

    /// Sets the value of the key.
    pub fn set_value<V: Kept>(
        &mut self,
        state: ValueState<V>,
        value: V,
    ) -> Result<(), EngineError> {
        self.cells.set_value(state, value)
    }

    /// Removes the value of the key.
    pub fn clear_value<V: Kept>(&mut self, state: ValueState<V>) {
        self.cells.clear_value(state);
    }

    /// The list of the key, in insertion order.
    pub fn list<V: Kept>(&self, state: ListState<V>) -> impl Iterator<Item = &V> {
        self.cells.list(state)
    }

    /// Appends to the list of the key.
    pub fn push<V: Kept>(&mut self, state: ListState<V>, value: V) -> Result<(), EngineError> {
        self.cells.push(state, value)
    }

    /// Empties the list of the key.
    pub fn clear_list<V: Kept>(&mut self, state: ListState<V>) {
        self.cells.clear_list(state);
    }

    /// A value in the key's map.
    pub fn get<K: Kept + Hash + Eq, V: Kept>(&self, state: MapState<K, V>, key: &K) -> Option<&V> {
        self.cells.entry(state, key)
    }

    /// The entries of the key's map, in no particular order.
    pub fn map<K: Kept + Hash + Eq, V: Kept>(
        &self,
        state: MapState<K, V>,
    ) -> impl Iterator<Item = (&K, &V)> {
        self.cells.entries(state)
    }

    /// Sets a value in the key's map.
    pub fn insert<K: Kept + Hash + Eq, V: Kept>(
        &mut self,
        state: MapState<K, V>,
        key: K,
        value: V,
    ) -> Result<(), EngineError> {
        self.cells.insert(state, key, value)
    }

    /// Removes an entry from the key's map.
    pub fn remove<K: Kept + Hash + Eq, V: Kept>(
        &mut self,
        state: MapState<K, V>,
        key: &K,
    ) -> Result<(), EngineError> {
        self.cells.remove(state, key)
    }

    /// Empties the key's map.
    pub fn clear_map<K: Kept + Hash + Eq, V: Kept>(
        &mut self,
        state: MapState<K, V>,
    ) -> Result<(), EngineError> {
        self.cells.clear_map(state)
    }

    /// Sets a timer of the key. Setting the same timer again has no effect. A timer in the past
    /// fires as soon as possible. An event-time timer is an error if the stream has no event time.
    pub fn set_timer(&mut self, timer: Timer) -> Result<(), EngineError> {
        if matches!(timer, Timer::EventTime(_)) && !self.timed {
            return Err(EngineError::operator(
                "TIMER_WITHOUT_WATERMARK",
                "an event-time timer was set, but the stream has no event time",
                "Declare it before `key_by`: stream.with_watermark(|record| …, delay)",
            ));
        }
        if let Err(place) = self.timers.binary_search(&timer) {
            self.timers.insert(place, timer);
            let (kind, time_us) = timer.parts();
            self.cells.notes.timer(kind, time_us, true);
            self.clocks.add(timer, self.at);
        }
        Ok(())
    }

    /// Cancels a timer of the key, if it is set.
    pub fn clear_timer(&mut self, timer: Timer) {
        if let Ok(place) = self.timers.binary_search(&timer) {
            self.timers.remove(place);
            let (kind, time_us) = timer.parts();
            self.cells.notes.timer(kind, time_us, false);
            self.clocks.remove(timer, self.at);
        }
    }

    /// The timers of the key.
    pub fn timers(&self) -> impl Iterator<Item = Timer> {
        self.timers.iter().copied()
    }
}

struct Entry<K> {
    key: K,
    hash: u64,
    bytes: Vec<u8>,
    cells: Box<[Box<dyn Cell>]>,
    /// The timers of the key, sorted.
    timers: Vec<Timer>,
    /// A lower bound of the next expiry time of the state, in microseconds since 1970.
    expires_us: i64,
    /// Whether the slot belongs to a key.
    is_present: bool,
}

impl<K> KeyedEntry for Entry<K> {
    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        &self.bytes
    }
}

/// Approximate heap memory of a key: its encoding and the key itself.
fn key_memory<K>(entry: &Entry<K>) -> u64 {
    let copies = if std::mem::needs_drop::<K>() { 2 } else { 1 };
    (entry.bytes.len() * copies) as u64
}

/// The parts from which a stage is built.
pub(crate) struct ProcessorParts {
    pub states: Arc<States>,
    pub times: BatchTimes,
    pub continuous: bool,
    /// Whether the stream has an event time.
    pub timed: bool,
    /// How far records may be behind the watermark, in microseconds.
    pub lag_us: i64,
    /// Whether a timer that is set while timers fire and is already due waits for the next batch.
    /// Has no effect in continuous mode.
    pub defers_timers: bool,
    pub env: Arc<dyn Env>,
    pub log: StateLog,
}

/// The stage of a processor.
pub(crate) struct Process<K, P, D> {
    processor: P,
    parts: ProcessorParts,
    watermarks: OperatorWatermark,
    entries: KeyTable<Entry<K>>,
    clocks: TimerQueues,
    /// Number of state entries.
    kept: u64,
    /// Approximate heap memory of keys and values, in bytes.
    memory: u64,
    buffer: Buffer,
    key: Vec<u8>,
    /// Whether a timer fired after a marker, and the driver does not know it yet.
    late_emission: LateEmission,
    now_us: Option<i64>,
    passing: PendingWatermark,
    marker: Option<Epoch>,
    down: D,
}

/// The cause of a call of the processor.
enum Fired {
    Record,
    Timer(Timer),
}

impl<K, P, D> Process<K, P, D>
where
    K: Kept + Clone,
    D: Stage,
{
    pub fn new(processor: P, parts: ProcessorParts, down: D) -> Self {
        Self {
            processor,
            watermarks: OperatorWatermark::new(parts.times.clone(), parts.continuous)
                .behind(parts.lag_us),
            parts,
            entries: KeyTable::default(),
            clocks: TimerQueues::default(),
            kept: 0,
            memory: 0,
            buffer: Buffer::default(),
            key: Vec::new(),
            late_emission: LateEmission::default(),
            now_us: None,
            passing: PendingWatermark::default(),
            marker: None,
            down,
        }
    }

    /// Counts a record that an operator before this one has dropped as late.
    #[cfg(feature = "sql")]
    pub fn count_late(&mut self) {
        self.parts.log.count_late(1);
    }

    /// The processing time, in microseconds since 1970.
    #[inline]
    fn now_us(&mut self) -> i64 {
        if !self.watermarks.is_in_band() {
            return self.parts.times.started_us();
        }
        let env = &self.parts.env;
        *self.now_us.get_or_insert_with(|| env.wall_us())
    }

    /// The slot of the key whose encoding is in `self.key`.
    fn entry(&mut self, key: &K) -> u32 {
        let hash = hash_bytes(&self.key);
        if let Some(at) = self.entries.find(hash, &self.key) {
            return at as u32;
        }
        let entry = Entry {
            key: key.clone(),
            hash,
            bytes: self.key.clone(),
            cells: self.parts.states.cells(),
            timers: Vec::new(),
            expires_us: NEVER,
            is_present: true,
        };
        self.memory += key_memory(&entry);
        self.entries.insert(entry) as u32
    }

    /// Removes a key that has neither state nor timers.
    fn forget_if_empty(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        let nothing = entry.timers.is_empty() && entry.cells.iter().all(|cell| cell.is_empty());
        if entry.is_present && nothing {
            entry.is_present = false;
            self.memory -= key_memory(entry);
            self.entries.free(at as usize);
            let entry = &mut self.entries[at as usize];
            (entry.bytes, entry.cells, entry.timers) = (Vec::new(), Box::default(), Vec::new());
        }
    }

    fn restore(&mut self) -> Result<(), EngineError> {
        let mut entries = Vec::new();
        self.parts.log.restore(|_, key, value| {
            entries.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            Ok(())
        })?;
        for (bytes, value) in entries {
            let (key, rest) = postcard::take_from_bytes::<K>(&bytes).map_err(|_| damaged())?;
            let own = bytes.len() - rest.len();
            self.key.clear();
            self.key.extend_from_slice(&bytes[..own]);
            let at = self.entry(&key);
            let (state, part) = split_key(rest).ok_or_else(damaged)?;
            let entry = &mut self.entries[at as usize];
            if state == TIMERS {
                let timer = Timer::of_parts(part).ok_or_else(damaged)?;
                match (entry.timers.binary_search(&timer), value) {
                    (Err(place), Some(_)) => {
                        entry.timers.insert(place, timer);
                        self.kept += 1;
                    }
                    (Ok(place), None) => {
                        entry.timers.remove(place);
                        self.kept -= 1;
                    }
                    _ => {}
                }
                continue;
            }
            let cell = entry.cells.get_mut(usize::from(state) - 1).ok_or_else(damaged)?;
            let (parts, memory) = cell.restore(part, value.as_deref())?;
            self.kept = self.kept.saturating_add_signed(parts);
            self.memory = self.memory.saturating_add_signed(memory);
        }
        for at in 0..self.entries.slots() as u32 {
            for timer in self.entries[at as usize].timers.clone() {
                self.clocks.add(timer, at);
            }
            if self.parts.states.expires {
                self.clocks.ttl.add(i64::MIN, at);
                self.entries[at as usize].expires_us = i64::MIN;
            }
            self.forget_if_empty(at);
        }
        self.request_batch_at();
        Ok(())
    }

    /// Micro-batch mode: requests a batch at the time of the next timer.
    fn request_batch_at(&self) {
        if let (false, Some(us)) = (self.parts.continuous, self.clocks.processing.first_us()) {
            self.parts.times.request_batch_at(us);
        }
    }

    fn hand_over(&mut self, epoch: Epoch) {
        self.entries.end_epoch();
        self.clocks.end_epoch();
        let due = self.clocks.memory();
        let cells = size_of::<Box<dyn Cell>>() * self.parts.states.count();
        // A key needs 64 bytes in addition to its list of states, and a state entry needs 48 bytes.
        let keys = self.entries.len() * (cells + 64);
        let bytes = (self.entries.memory() + due + keys) as u64 + self.kept * 48 + self.memory;
        self.parts.log.hand_over(epoch, self.kept, bytes);
    }
}

impl<K, P, D> Process<K, P, D>
where
    K: Kept + Clone,
    D: Stage,
{
    /// Calls the processor with a record or a timer.
    fn call<T>(
        &mut self,
        at: u32,
        what: Fired,
        record: Option<T>,
        ingest_ns: u64,
    ) -> Result<(), EngineError>
    where
        P: Processor<K, T>,
        D: Push<P::Output>,
    {
        let now_us = self.now_us();
        let watermark_us = self.watermarks.watermark_us();
        let entry = &mut self.entries[at as usize];
        let notes = ChangeWriter {
            log: &mut self.parts.log,
            parts: &mut self.kept,
            memory: &mut self.memory,
            hash: entry.hash,
            key: &entry.bytes,
            now_us,
            buffer: &mut self.buffer,
        };
        let mut cx = Context {
            down: &mut self.down,
            cells: Cells { cells: &mut entry.cells, notes, expires_us: NEVER },
            timers: &mut entry.timers,
            clocks: &mut self.clocks,
            at,
            watermark_us,
            timed: self.parts.timed,
            ingest_ns,
        };
        match (what, record) {
            (Fired::Timer(timer), _) => {
                cx.clear_timer(timer);
                self.processor.timer(&entry.key, timer, &mut cx)?;
            }
            (Fired::Record, Some(record)) => {
                self.processor.record(&entry.key, record, &mut cx)?;
            }
            (Fired::Record, None) => {}
        }
        let expires_us = cx.cells.expires_us;
        if expires_us < entry.expires_us {
            entry.expires_us = expires_us;
            self.clocks.ttl.add(expires_us, at);
        }
        self.forget_if_empty(at);
        Ok(())
    }

    /// Fires the first due timer of a key. Returns whether there was one.
    fn fire_first<T>(&mut self, at: u32, event_us: i64, now_us: i64) -> Result<bool, EngineError>
    where
        P: Processor<K, T>,
        D: Push<P::Output>,
    {
        let entry = &self.entries[at as usize];
        let due = |timer: &&Timer| match timer {
            Timer::EventTime(us) => *us <= event_us,
            Timer::ProcessingTime(us) => *us <= now_us,
        };
        let Some(timer) = entry.timers.iter().find(due).copied().filter(|_| entry.is_present)
        else {
            return Ok(false);
        };
        self.call::<T>(at, Fired::Timer(timer), None, UNTIMED)?;
        Ok(true)
    }

    /// Fires some of the due timers, and removes values whose time to live has passed. Returns
    /// whether all are done. False if the chain is not ready, or after a bounded number of steps.
    fn fire<T>(&mut self, event_us: i64) -> Result<bool, EngineError>
    where
        P: Processor<K, T>,
        D: Push<P::Output>,
    {
        let now_us = self.now_us();
        if self.parts.defers_timers && !self.watermarks.is_in_band() {
            self.clocks.defers_by_us = Some((event_us, now_us));
        }
        for _ in 0..self.parts.log.keys_per_step(STEP) {
            if !self.down.is_ready() {
                return Ok(false);
            }
            let next = match self.clocks.event.take(event_us) {
                Some((us, at)) => Some((Timer::EventTime(us), at)),
                None => {
                    let next = self.clocks.processing.take(now_us);
                    next.map(|(us, at)| (Timer::ProcessingTime(us), at))
                }
            };
            let Some((timer, at)) = next else {
                match self.clocks.ttl.take(now_us) {
                    None => return Ok(true),
                    Some((us, at)) => self.expire(at, us, now_us)?,
                }
                self.entries.release();
                continue;
            };
            // A timer that waited for this batch may have been cancelled, or its slot may belong to
            // another key now.
            let entry = self.entries.get(at as usize);
            if entry
                .is_some_and(|entry| entry.is_present && entry.timers.binary_search(&timer).is_ok())
            {
                self.call::<T>(at, Fired::Timer(timer), None, UNTIMED)?;
            }
            self.entries.release();
        }
        Ok(false)
    }

    /// Removes expired state of a key.
    fn expire(&mut self, at: u32, due_us: i64, now_us: i64) -> Result<(), EngineError> {
        let Some(entry) = self.entries.get_mut(at as usize) else { return Ok(()) };
        if !entry.is_present || entry.expires_us != due_us {
            return Ok(());
        }
        let mut notes = ChangeWriter {
            log: &mut self.parts.log,
            parts: &mut self.kept,
            memory: &mut self.memory,
            hash: entry.hash,
            key: &entry.bytes,
            now_us,
            buffer: &mut self.buffer,
        };
        entry.expires_us = NEVER;
        for (state, cell) in entry.cells.iter_mut().enumerate() {
            let next_us = cell.expire(state, &mut notes)?;
            entry.expires_us = entry.expires_us.min(next_us);
        }
        if entry.expires_us != NEVER {
            self.clocks.ttl.add(entry.expires_us, at);
        }
        self.forget_if_empty(at);
        Ok(())
    }

    /// Fires some of the due timers. When all have fired, forwards the pending watermark, in
    /// continuous mode only, and then the pending marker.
    fn continue_expiry<T>(&mut self) -> Result<(), EngineError>
    where
        P: Processor<K, T>,
        D: Push<P::Output>,
    {
        if !self.fire::<T>(self.watermarks.watermark_us())? {
            return Ok(());
        }
        self.passing.pass(self.watermarks.is_in_band(), 0, &mut self.down)?;
        if let Some(epoch) = self.marker.take() {
            self.clocks.begin_batch();
            self.hand_over(epoch);
            self.request_batch_at();
            self.down.marker(epoch)?;
        }
        Ok(())
    }

    /// Whether a timer is due, or a watermark or a marker waits for timers. Reads the clock only if
    /// a timer depends on it.
    fn any_due(&mut self) -> bool {
        if self.passing.is_waiting() || self.marker.is_some() {
            return true;
        }
        // In micro-batch mode the watermark waits for the marker.
        if !self.watermarks.is_in_band() {
            return false;
        }
        let event_us = self.watermarks.watermark_us();
        let clocks = &self.clocks;
        if clocks.event.has_expired(event_us) {
            return true;
        }
        let next_us = [clocks.processing.first_us(), clocks.ttl.first_us()];
        match next_us.into_iter().flatten().min() {
            None => false,
            Some(next_us) => next_us <= self.now_us(),
        }
    }
}

/// Binds a stage to the type of its records, which the control side needs, and to their event time
/// if they have one.
pub(crate) struct Typed<T, S>(pub S, pub Option<EventTimeFn<T>>);

impl<K, T, P, D> Stage for Typed<T, Process<K, P, D>>
where
    T: 'static,
    K: Kept + Clone,
    P: Processor<K, T>,
    D: Push<P::Output>,
{
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.0.restore()?;
        self.0.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.0.marker.is_none() && self.0.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if !is_idle(micros) {
            self.0.watermarks.advance(micros);
        }
        self.0.passing.arrive(micros);
        self.0.continue_expiry::<T>()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if self.0.watermarks.is_in_band() {
            // Timers that have not fired yet fire in the next epoch.
            self.0.hand_over(epoch);
            return self.0.down.marker(epoch);
        }
        self.0.marker = Some(epoch);
        self.0.continue_expiry::<T>()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.0.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        let any_due = self.0.any_due();
        if !any_due && !self.0.late_emission.is_owed() {
            self.0.now_us = None;
            return self.0.down.flush();
        }
        if any_due && self.0.marker.is_none() {
            self.0.late_emission.note();
        }
        self.0.continue_expiry::<T>()?;
        let any_due = self.0.any_due();
        self.0.now_us = None;
        let below = self.0.down.flush()?;
        Ok(self.0.late_emission.combine(below, self.0.marker.is_some(), any_due))
    }
    fn next_timer_ns(&self) -> Option<u64> {
        let (stage, below) = (&self.0, self.0.down.next_timer_ns());
        if !stage.watermarks.is_in_band() {
            return below;
        }
        let next_us = [stage.clocks.processing.first_us(), stage.clocks.ttl.first_us()];
        let own = next_us.into_iter().flatten().min().map(|next_us| {
            let env = &stage.parts.env;
            let wait_us = next_us.saturating_sub(env.wall_us()).max(0) as u64;
            env.now_ns().saturating_add(wait_us.saturating_mul(1000))
        });
        [own, below].into_iter().flatten().min()
    }
}

impl<K, T, P, D> Push<(K, T)> for Typed<T, Process<K, P, D>>
where
    T: 'static,
    K: Kept + Clone,
    P: Processor<K, T>,
    D: Push<P::Output>,
{
    #[inline]
    fn push(&mut self, (key, record): (K, T), ingest_ns: u64) -> Result<(), EngineError> {
        let Self(stage, time) = self;
        if let Some(time) = time
            && time(&record) <= stage.watermarks.late_row_watermark_us()
        {
            stage.parts.log.count_late(1);
            return Ok(());
        }
        stage.key.clear();
        write(&key, &mut stage.key)?;
        let at = stage.entry(&key);
        if stage.watermarks.is_in_band() && !stage.entries[at as usize].timers.is_empty() {
            let (event_us, now_us) = (stage.watermarks.watermark_us(), stage.now_us());
            let mut left = STEP;
            // The number is limited, so a timer that sets itself again for a past time cannot block
            // the record forever.
            while left > 0 && stage.fire_first::<T>(at, event_us, now_us)? {
                left -= 1;
            }
        }
        // The key's timers may have cleared all its state, which removes the key.
        let at = if stage.entries[at as usize].is_present { at } else { stage.entry(&key) };
        stage.call(at, Fired::Record, Some(record), ingest_ns)
    }
}
