//! Windows that collect their records: a function is called with all records of a window when it
//! closes.
//!
//! A record is stored once, even if it is in several windows. It is removed when its last window
//! has closed. Removal happens in steps, and so does the emission of the function's results.
//!
//! *In the checkpoint* a record has an entry of its own. The entry of a window stores whether it
//! has closed and which records it had, until they are removed.
//!
//! *Limits.* The function is called with all records of a window at once.

use super::assigner::{Window, Windows};
use super::open_windows::{Held, KeyWindows, NextDue, OpenWindows, Opened, SUFFIX, WINDOW};
use crate::event_time::watermark::{EventTimeFn, OperatorWatermark};
use crate::state::ordered_run::Run;
use crate::stream::keyed_input::Either;
use crate::stream::operator::sided_records::{KeyBytes, Side, SidedId, SidedRecords};
use crate::stream::operator::stepped::{RecordWork, StepWork};
use crate::stream::processor_state::{Kept, damaged};
use millstream_engine::checkpoint::key_group::BuildStableHasher;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED};
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::state_log::StateLog;
use std::collections::{HashMap, VecDeque};

/// Maximum number of records removed, or of results emitted, in a step.
const STEP: usize = 128;

/// The records of both streams for one key in a window.
#[derive(Debug)]
pub struct CoGroup<'g, K, L, R> {
    /// The key.
    pub key: &'g K,
    /// The window.
    pub window: Window,
    /// The left stream's records, ordered by event time and, for equal times, by arrival.
    pub left: &'g [&'g L],
    /// The right stream's records, ordered likewise.
    pub right: &'g [&'g R],
}

/// Makes the results of a window from its records.
pub(super) trait Apply<K, L, R>: Clone + Send + 'static {
    type Results: Iterator<Item: Send> + Send + 'static;
    fn apply(&mut self, group: CoGroup<'_, K, L, R>) -> Self::Results;
}

/// The bound of the arrival numbers of a closed window's records: the window had the records with
/// smaller numbers. [`OPEN`] while the window is open.
struct Closed(u64);

const OPEN: Closed = Closed(u64::MAX);

impl Held for Closed {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), EngineError> {
        out.extend_from_slice(&self.0.to_le_bytes());
        Ok(())
    }
    fn read(bytes: &[u8]) -> Result<Self, EngineError> {
        Ok(Self(u64::from_le_bytes(bytes.try_into().map_err(|_| damaged())?)))
    }
}

/// A closed window whose records are to be removed.
#[derive(Clone, Copy)]
struct Clearing {
    key: usize,
    start_us: i64,
    times: Window,
    /// Only records with smaller arrival numbers are removed.
    below: u64,
}

/// The state of one instance.
pub(super) struct CollectWork<K, L, R, W, F: Apply<K, L, R>, Z> {
    windows: W,
    apply: F,
    late: Z,
    time: EventTimeFn<Either<L, R>>,
    open: OpenWindows<K, Closed, [Run; 2]>,
    records: SidedRecords<L, R>,
    /// Results of the last closed window that are not emitted yet.
    leaving: Option<F::Results>,
    clearing: VecDeque<Clearing>,
    log: StateLog,
}

impl<K, L, R, W, F, Z> CollectWork<K, L, R, W, F, Z>
where
    K: Kept + Clone,
    L: Kept,
    R: Kept,
    W: Windows,
    F: Apply<K, L, R>,
{
    pub fn new(
        windows: W,
        (apply, late): (F, Z),
        time: EventTimeFn<Either<L, R>>,
        log: StateLog,
    ) -> Self {
        Self {
            windows,
            apply,
            late,
            time,
            open: OpenWindows::default(),
            records: SidedRecords::default(),
            leaving: None,
            clearing: VecDeque::new(),
            log,
        }
    }

    /// Closes a window and calls the function with its records. The records that are in no later
    /// window are marked for removal. Does nothing for a freed key.
    fn close(&mut self, at: usize, index: usize) -> Result<(), EngineError> {
        let KeyWindows { key, windows, more: runs, .. } = &self.open.keys[at];
        let window = windows[index].window;
        let Some(key) = key else { return Ok(()) };
        let ids = |side: Side| {
            let run = &runs[side.index()];
            let store = self.records.runs();
            let mut cursor = run.seek(window.start_us, store);
            std::iter::from_fn(move || {
                let entry = run.get(&mut cursor, store)?;
                if entry.time_us >= window.end_us {
                    return None;
                }
                cursor.advance();
                Some(entry.row)
            })
        };
        let left: Vec<&L> = ids(Side::Left).filter_map(|id| self.records.left(id)).collect();
        let right: Vec<&R> = ids(Side::Right).filter_map(|id| self.records.right(id)).collect();
        let group = CoGroup { key, window, left: &left, right: &right };
        self.leaving = Some(self.apply.apply(group));
        let below = self.records.next_number();
        // The window's entry stores which records are to be removed.
        self.open.keys[at].windows[index].held = Closed(below);
        self.open.changed(at, index, &mut self.log)?;
        self.open.take(at, index);
        self.clear_later(at, window, below);
        Ok(())
    }

    fn clear_later(&mut self, key: usize, window: Window, below: u64) {
        let times = self.windows.own_times(window);
        self.clearing.push_back(Clearing { key, start_us: window.start_us, times, below });
    }

    /// The first record of a closed window to remove; `None` if all are removed.
    fn first_to_clear(&self, clearing: &Clearing) -> Option<SidedId> {
        let runs = &self.open.keys.get(clearing.key)?.more;
        Side::BOTH.into_iter().find_map(|side| {
            let run = &runs[side.index()];
            let mut cursor = run.seek(clearing.times.start_us, self.records.runs());
            loop {
                let entry = run.get(&mut cursor, self.records.runs())?;
                if entry.time_us >= clearing.times.end_us {
                    return None;
                }
                if self.records.number(side, entry.row) < clearing.below {
                    return Some(SidedId { side, id: entry.row });
                }
                cursor.advance();
            }
        })
    }

    /// Removes the records of closed windows, at most `left`. Returns how many more may be removed
    /// in this step.
    fn clear(&mut self, mut left: usize) -> usize {
        while let Some(clearing) = self.clearing.front().copied() {
            while let Some(record) = self.first_to_clear(&clearing) {
                if left == 0 {
                    return 0;
                }
                left -= 1;
                let KeyWindows { hash, bytes, more: runs, .. } = &mut self.open.keys[clearing.key];
                let key = KeyBytes { hash: *hash, bytes };
                self.records.remove(record, key, &mut runs[record.side.index()], &mut self.log);
            }
            self.open.erase_entry(clearing.key, clearing.start_us, &mut self.log);
            self.clearing.pop_front();
            left = left.saturating_sub(1);
            let is_last = self.clearing.iter().all(|other| other.key != clearing.key);
            if is_last && self.open.keys[clearing.key].more.iter().all(Run::is_empty) {
                self.open.release(clearing.key);
            }
        }
        left
    }

    /// Restores the records from the checkpoint.
    fn restore_records(
        &mut self,
        entries: HashMap<Vec<u8>, Vec<u8>, BuildStableHasher>,
    ) -> Result<(), EngineError> {
        for restored in SidedRecords::restored(entries)? {
            let time_us = (self.time)(&restored.record);
            let at = self.open.restore_key(&restored.key)?;
            let run = &mut self.open.keys[at].more[restored.record.side().index()];
            self.records.put_back(restored, time_us, (at as u32, run))?;
        }
        Ok(())
    }
}

impl<K, L, R, W, F, Z, D> StepWork<D> for CollectWork<K, L, R, W, F, Z>
where
    K: Kept + Clone,
    L: Kept,
    R: Kept,
    W: Windows,
    F: Apply<K, L, R>,
    Z: Send,
    D: Push<<F::Results as Iterator>::Item>,
{
    fn restore(&mut self) -> Result<(), EngineError> {
        let mut records: HashMap<_, _, BuildStableHasher> = HashMap::default();
        let mut windows: HashMap<_, _, BuildStableHasher> = HashMap::default();
        self.log.restore(|_, key, value| {
            let mark = key.len().checked_sub(SUFFIX).and_then(|at| key.get(at));
            let entries = if mark == Some(&WINDOW) { &mut windows } else { &mut records };
            match value {
                Some(value) => drop(entries.insert(key.to_vec(), value.to_vec())),
                None => drop(entries.remove(key)),
            }
            Ok(())
        })?;
        self.restore_records(records)?;
        for (key, value) in windows {
            let (at, index) = self.open.restore(&key, &value)?;
            let open = &self.open.keys[at].windows[index];
            let (window, below) = (open.window, open.held.0);
            if below != OPEN.0 {
                self.open.take(at, index);
                self.clear_later(at, window, below);
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.leaving.is_some()
    }

    fn is_unfinished(&self) -> bool {
        self.leaving.is_some()
    }

    /// Emits results of the last closed window. Returns whether all are emitted.
    fn finish(&mut self, down: &mut D) -> Result<bool, EngineError> {
        let Some(leaving) = &mut self.leaving else { return Ok(true) };
        for _ in 0..STEP {
            if !down.is_ready() {
                return Ok(false);
            }
            match leaving.next() {
                Some(result) => down.push(result, UNTIMED)?,
                None => {
                    self.leaving = None;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn release(&mut self, watermark_us: i64, down: &mut D) -> Result<bool, EngineError> {
        let mut left = self.log.keys_per_step(STEP);
        loop {
            // A later session may cover the times of a closed one, so the records of the closed one
            // are removed first.
            left = self.clear(left);
            if left == 0 || !down.is_ready() {
                return Ok(false);
            }
            left -= 1;
            match self.open.next_due(watermark_us) {
                NextDue::Nothing => return Ok(true),
                NextDue::Later => {}
                NextDue::Closes(at, index) => {
                    self.close(at, index)?;
                    if !self.finish(down)? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn hand_over(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        let (_, bytes) = self.open.end_epoch(&mut self.log)?;
        let bytes = bytes + self.records.end_epoch();
        self.log.hand_over(epoch, self.records.len() as u64, bytes);
        Ok(())
    }
}

impl<K, L, R, W, F, Z, D> RecordWork<(K, Either<L, R>), D> for CollectWork<K, L, R, W, F, Z>
where
    K: Kept + Clone,
    L: Kept,
    R: Kept,
    W: Windows,
    F: Apply<K, L, R>,
    Z: FnMut(Either<L, R>) + Send,
    D: Push<<F::Results as Iterator>::Item>,
{
    #[inline]
    fn record(
        &mut self,
        (key, record): (K, Either<L, R>),
        _ingest_ns: u64,
        watermarks: &OperatorWatermark,
        _down: &mut D,
    ) -> Result<(), EngineError> {
        let time_us = (self.time)(&record);
        let late_us = watermarks.late_row_watermark_us();
        // Windows are ordered from the last to the first, so all windows after the first late one
        // are late too.
        let windows = self.windows;
        let mut windows =
            windows.windows(time_us).take_while(|window| window.end_us > late_us).peekable();
        if windows.peek().is_none() {
            self.log.count_late(1);
            (self.late)(record);
            return Ok(());
        }
        let at = self.open.place(&key)?;
        for window in windows {
            let Self { open, log, .. } = self;
            let Opened { index, has_changed } = if W::MERGES {
                open.open_session(at, window, || OPEN, |_, _| (), log)
            } else {
                open.open(at, window, || OPEN)
            };
            if has_changed {
                open.changed(at, index, log)?;
            }
        }
        let record = self.records.store(record, time_us)?;
        let KeyWindows { hash, bytes, more: runs, .. } = &mut self.open.keys[at];
        let key = (at as u32, KeyBytes { hash: *hash, bytes });
        self.records.buffer(record, key, &mut runs[record.side.index()], &mut self.log)?;
        Ok(())
    }
}
