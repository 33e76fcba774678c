//! Deduplication passes on only the first of the rows that have equal keys, until the key expires.
//! A table stores the keys that have occurred, each with its expiry time.
//!
//! With an [`EventTimeRule`], late rows are dropped and counted, even if the event time is not
//! among the keys.

use super::stages::{BoxChain, Scratch};
use crate::event_time::pending_watermark::PendingWatermark;
use crate::state::expiry_queue::ExpiryQueue;
use crate::state::key_table::{KeyTable, KeyedEntry, key_heap};
use crate::table::physical::aggregate::hash_aggregate::{Key, write_keys};
use crate::table::physical::late_row::LateRows;
use crate::table::row::{Row, Slot as Field};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};
use millstream_engine::runtime::state_log::{StateLog, StateSlot};
use smallvec::SmallVec;

/// The maximum number of keys removed in one step.
const STEP: usize = 32;
/// The expiry time of a key that never expires.
const NEVER: i64 = i64::MAX;

struct Entry {
    hash: u64,
    key: SmallVec<[u8; 40]>,
    expires_us: i64,
    /// The generation of the log in which a row without an event time added the key; 0 otherwise.
    timeless_since: u32,
}

impl KeyedEntry for Entry {
    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The rules for rows with an event time: when a row is late, and how long its key is kept.
pub(super) struct EventTimeRule {
    /// The slot of the event time in the row.
    pub field: Field,
    /// Whether the event time is a window. Then the window's end is the event time.
    pub window: bool,
    /// How long a key is kept after its event time, in microseconds; `None` for ever.
    pub keep_us: Option<i64>,
    /// Whether a NULL time counts as 1970 for the expiry of its key. Otherwise the key never
    /// expires.
    pub expires_null: bool,
    pub late: LateRows,
}

/// The stage of a deduplication.
pub(super) struct Deduplicate {
    keys: Vec<Key>,
    event: Option<EventTimeRule>,
    continuous: bool,
    entries: KeyTable<Entry>,
    due: ExpiryQueue,
    /// The heap memory of all keys, in bytes.
    key_heap: u64,
    key: Vec<u8>,
    scratch: Scratch,
    log: StateLog,
    /// A watermark whose expired keys have not all been removed yet.
    expiring: PendingWatermark,
    /// Whether [`Stage::flush`] still has to return [`FlushStatus::NextEpoch`] once, because it has
    /// removed expired keys while no marker was pending.
    late_emission: LateEmission,
    /// A marker that is not passed on yet.
    marker: Option<Epoch>,
    down: BoxChain,
}

impl Deduplicate {
    pub fn new(
        keys: Vec<Key>,
        event: Option<EventTimeRule>,
        continuous: bool,
        log: StateLog,
        down: BoxChain,
    ) -> Self {
        Self {
            keys,
            event,
            continuous,
            entries: KeyTable::default(),
            due: ExpiryQueue::default(),
            key_heap: 0,
            key: Vec::new(),
            scratch: Scratch::default(),
            log,
            expiring: PendingWatermark::default(),
            late_emission: LateEmission::default(),
            marker: None,
            down,
        }
    }

    fn restore(&mut self) -> Result<(), EngineError> {
        let Self { log, entries, due, key_heap: heap, .. } = self;
        log.restore(|hash, key, value| {
            let expires_us = match value.map(<[u8; 8]>::try_from) {
                None => None,
                Some(Ok(bytes)) => Some(i64::from_le_bytes(bytes)),
                Some(Err(_)) => {
                    let reason = "a checkpoint entry of a deduplication has no time";
                    return Err(EngineError::operator("CHECKPOINT_DAMAGED", reason, "Begin anew"));
                }
            };
            match (entries.find(hash, key), expires_us) {
                (Some(at), None) => {
                    entries.free(at);
                    *heap -= key_heap(&entries[at].key);
                    (entries[at].expires_us, entries[at].key) = (i64::MIN, SmallVec::new());
                }
                (Some(at), Some(expires_us)) => {
                    entries[at].expires_us = expires_us;
                    due.add(expires_us, at as u32);
                }
                (None, None) => {}
                (None, Some(expires_us)) => {
                    let key = SmallVec::from_slice(key);
                    let entry = Entry { hash, key, expires_us, timeless_since: 0 };
                    *heap += key_heap(&entry.key);
                    add(entry, entries, due);
                }
            }
            Ok(())
        })
    }

    /// Removes a bounded number of expired keys. Returns true only if all expired keys are removed;
    /// after a full step it returns false, even if no key is left.
    fn forget(&mut self, watermark_us: i64) -> bool {
        let step = self.log.keys_per_step(STEP);
        self.entries.prefetch(self.due.peek(watermark_us, step));
        for _ in 0..step {
            let Some((_, at)) = self.due.take(watermark_us) else { return true };
            // The key may have been removed already, or its expiry time may have changed.
            let entry = self.entries.get(at as usize);
            if !entry.is_some_and(|entry| (i64::MIN + 1..=watermark_us).contains(&entry.expires_us))
            {
                continue;
            }
            self.entries.free(at as usize);
            let entry = &mut self.entries[at as usize];
            self.log.delete(&mut StateSlot::default(), entry.hash, &entry.key);
            self.key_heap -= key_heap(&entry.key);
            entry.expires_us = i64::MIN;
            entry.key = SmallVec::new();
            self.entries.release();
        }
        false
    }

    /// Continues the expiry of the current watermark. When it is complete, passes on the watermark,
    /// if watermarks arrive between records, and a pending marker.
    fn continue_expiry(&mut self) -> Result<(), EngineError> {
        if let Some(watermark_us) = self.expiring.us()
            && !self.forget(watermark_us)
        {
            return Ok(());
        }
        let in_band = self.event.as_ref().map_or(self.continuous, |event| event.late.is_in_band());
        self.expiring.pass(in_band, 0, &mut self.down)?;
        match self.marker.take() {
            Some(epoch) => {
                self.entries.end_epoch();
                self.due.end_epoch();
                let bytes = (self.entries.memory() + self.due.memory()) as u64 + self.key_heap;
                self.log.hand_over(epoch, self.entries.len() as u64, bytes);
                self.down.marker(epoch)
            }
            None => Ok(()),
        }
    }
}

fn add(entry: Entry, entries: &mut KeyTable<Entry>, due: &mut ExpiryQueue) {
    let expires_us = entry.expires_us;
    let at = entries.insert(entry);
    if expires_us != NEVER {
        due.add(expires_us, at as u32);
    }
}

impl Stage for Deduplicate {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.restore()?;
        self.down.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.marker.is_none() && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if let Some(event) = self.event.as_mut().filter(|_| !is_idle(micros)) {
            event.late.advance(micros);
        }
        self.expiring.arrive(micros);
        self.continue_expiry()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        let is_in_band =
            self.event.as_ref().map_or(self.continuous, |event| event.late.is_in_band());
        if let (Some(event), false) = (&self.event, is_in_band) {
            self.expiring.begin_batch(Some(event.late.watermark_us()));
        }
        self.marker = Some(epoch);
        if is_in_band {
            // Expired keys that are not removed yet are removed in the next epoch, so their
            // watermark is set aside while the marker is passed on.
            let passing = std::mem::take(&mut self.expiring);
            self.continue_expiry()?;
            self.expiring = passing;
            return Ok(());
        }
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

impl<'a> Push<Row<'a>> for Deduplicate {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        let mut expires_us = NEVER;
        let time = self.event.as_ref().map(|event| (event, row.is_null(event.field)));
        let mut timeless_since = 0;
        if let Some((event, true)) = time
            && event.expires_null
        {
            // Such a row is not late. Its key may have expired already, but counts until it is
            // removed at the end of the epoch.
            expires_us = event.keep_us.unwrap_or(NEVER);
            timeless_since = self.log.generation();
        }
        if let Some((event, false)) = time {
            let time_us = if event.window {
                Row(row.bytes(event.field)).long(Field::new(1, 2))
            } else {
                row.long(event.field)
            };
            if time_us <= event.late.late_row_watermark_us() {
                event.late.send_to_side_output(row);
                self.log.count_late(1);
                return Ok(());
            }
            expires_us = event.keep_us.map_or(NEVER, |keep_us| time_us.saturating_add(keep_us));
        }
        self.key.clear();
        self.scratch.reset();
        write_keys(&self.keys, &self.scratch, row, &mut self.key)?;
        let hash = hash_bytes(&self.key);
        if let Some(at) = self.entries.find(hash, &self.key) {
            let late_us =
                self.event.as_ref().map_or(i64::MIN, |event| event.late.late_row_watermark_us());
            let entry = &self.entries[at];
            if entry.expires_us > late_us || entry.timeless_since == self.log.generation() {
                return Ok(());
            }
            // The key has expired but is still in the table, so this row counts as the first.
            self.log.delete(&mut StateSlot::default(), hash, &self.key);
            self.log.put(&mut StateSlot::default(), hash, &self.key, &expires_us.to_le_bytes());
            self.entries[at].expires_us = expires_us;
            self.entries[at].timeless_since = timeless_since;
            self.due.add(expires_us, at as u32);
            return self.down.push(row, ingest_ns);
        }
        self.log.put(&mut StateSlot::default(), hash, &self.key, &expires_us.to_le_bytes());
        let key = SmallVec::from_slice(&self.key);
        let entry = Entry { hash, key, expires_us, timeless_since };
        self.key_heap += key_heap(&entry.key);
        add(entry, &mut self.entries, &mut self.due);
        self.down.push(row, ingest_ns)
    }
}
