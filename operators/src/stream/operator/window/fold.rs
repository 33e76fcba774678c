//! An aggregate over windows: the state of each open window, and its value.

use super::assigner::{Fold, FoldState, FoldValue, FoldWindows, Window};
use super::open_windows::{Held, NextDue, OpenWindows};
use super::{WindowResult, WindowResults};
use crate::event_time::watermark::{EventTimeFn, OperatorWatermark};
use crate::stream::operator::stepped::{RecordWork, StepWork};
use crate::stream::processor_state::{Kept, damaged, write};
use millstream_engine::checkpoint::key_group::BuildStableHasher;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED};
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::state_log::StateLog;
use std::collections::HashMap;
use std::marker::PhantomData;

/// Maximum number of windows that close in a step.
const STEP: usize = 128;

/// The state of a window, with its last value if values are emitted when the window closes.
struct Folded<S, O> {
    state: S,
    output: Option<O>,
}

impl<S: Kept, O: Kept> Held for Folded<S, O> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), EngineError> {
        write(&self.state, out)?;
        write(&self.output, out)
    }
    fn read(bytes: &[u8]) -> Result<Self, EngineError> {
        let (state, rest) = postcard::take_from_bytes(bytes).map_err(|_| damaged())?;
        let (output, []) = postcard::take_from_bytes(rest).map_err(|_| damaged())? else {
            return Err(damaged());
        };
        Ok(Self { state, output })
    }
}

/// The state of a window of an aggregate.
type FoldedBy<W, T, A> = Folded<FoldState<W, T, A>, FoldValue<W, T, A>>;

/// The window after a record was added, and its value if that is emitted immediately.
type AddedTo<W, T, A> = (Window, Option<FoldValue<W, T, A>>);

/// The state of one instance.
pub(super) struct FoldWork<K, T, W: FoldWindows<T, A>, A, Z> {
    windows: W,
    fold: W::Fold,
    results: WindowResults,
    late: Z,
    time: EventTimeFn<T>,
    open: OpenWindows<K, FoldedBy<W, T, A>, ()>,
    log: StateLog,
    types: PhantomData<fn() -> A>,
}

impl<K, T, W: FoldWindows<T, A>, A, Z> FoldWork<K, T, W, A, Z> {
    pub fn new(
        (windows, fold): (W, W::Fold),
        (results, late): (WindowResults, Z),
        time: EventTimeFn<T>,
        log: StateLog,
    ) -> Self {
        let open = OpenWindows::default();
        Self { windows, fold, results, late, time, open, log, types: PhantomData }
    }
}

impl<K, T, W, A, Z> FoldWork<K, T, W, A, Z>
where
    K: Kept + Clone,
    W: FoldWindows<T, A>,
    W::Fold: Fold<T, State: Kept, Output: Kept>,
{
    /// Adds a record to a window. Returns the resulting window, and its value if that is emitted
    /// immediately.
    #[inline]
    fn add(
        &mut self,
        at: usize,
        window: Window,
        record: T,
    ) -> Result<AddedTo<W, T, A>, EngineError> {
        let Self { fold, open, log, results, .. } = self;
        let new = || Folded { state: Default::default(), output: None };
        let index = if W::MERGES {
            let merge = |into: &mut Folded<_, _>, from: Folded<_, _>| {
                fold.merge(&mut into.state, from.state);
            };
            open.open_session(at, window, new, merge, log).index
        } else {
            open.open(at, window, new).index
        };
        let of_window = &mut open.keys[at].windows[index];
        let window = of_window.window;
        let output = fold.add(&mut of_window.held.state, record);
        let leaves = match results {
            WindowResults::EachChange => Some(output),
            WindowResults::AtWatermark => {
                of_window.held.output = Some(output);
                None
            }
        };
        open.changed(at, index, log)?;
        Ok((window, leaves))
    }
}

impl<K, T, W, A, Z, D> StepWork<D> for FoldWork<K, T, W, A, Z>
where
    K: Kept + Clone,
    T: 'static,
    W: FoldWindows<T, A>,
    W::Fold: Fold<T, State: Kept, Output: Kept>,
    Z: Send,
    D: Push<WindowResult<K, FoldValue<W, T, A>>>,
{
    fn restore(&mut self) -> Result<(), EngineError> {
        let mut entries: HashMap<_, _, BuildStableHasher> = HashMap::default();
        self.log.restore(|_, key, value| {
            match value {
                Some(value) => drop(entries.insert(key.to_vec(), value.to_vec())),
                None => drop(entries.remove(key)),
            }
            Ok(())
        })?;
        entries.iter().try_for_each(|(key, value)| self.open.restore(key, value).map(drop))
    }

    fn release(&mut self, watermark_us: i64, down: &mut D) -> Result<bool, EngineError> {
        for _ in 0..self.log.keys_per_step(STEP) {
            if !down.is_ready() {
                return Ok(false);
            }
            let (at, index) = match self.open.next_due(watermark_us) {
                NextDue::Nothing => return Ok(true),
                NextDue::Later => continue,
                NextDue::Closes(at, index) => (at, index),
            };
            let closed = self.open.remove(at, index, &mut self.log);
            let key = self.open.keys[at].key.clone();
            self.open.release(at);
            let Some((closed, key)) = closed.zip(key) else { continue };
            if let Some(value) = closed.held.output {
                down.push(WindowResult { key, window: closed.window, value }, UNTIMED)?;
            }
        }
        Ok(false)
    }

    fn hand_over(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        let (windows, bytes) = self.open.end_epoch(&mut self.log)?;
        self.log.hand_over(epoch, windows, bytes);
        Ok(())
    }
}

impl<K, T, W, A, Z, D> RecordWork<(K, T), D> for FoldWork<K, T, W, A, Z>
where
    K: Kept + Clone,
    T: 'static,
    W: FoldWindows<T, A>,
    W::Fold: Fold<T, State: Kept, Output: Kept>,
    Z: FnMut(T) + Send,
    D: Push<WindowResult<K, FoldValue<W, T, A>>>,
{
    #[inline]
    fn record(
        &mut self,
        (key, record): (K, T),
        ingest_ns: u64,
        watermarks: &OperatorWatermark,
        down: &mut D,
    ) -> Result<(), EngineError> {
        let time_us = (self.time)(&record);
        let late_us = watermarks.late_row_watermark_us();
        let (windows, mut none) = (self.windows, true);
        // Windows are ordered from the last to the first, so all windows after the first late one
        // are late too.
        let mut windows =
            windows.windows(time_us).take_while(|window| window.end_us > late_us).peekable();
        let (mut record, mut key) = (Some(record), Some(key));
        let at = match (&key, windows.peek()) {
            (Some(key), Some(_)) => self.open.place(key)?,
            _ => 0,
        };
        while let Some(window) = windows.next() {
            none = false;
            let last = windows.peek().is_none();
            let copy = if last { record.take() } else { record.as_ref().and_then(W::copy) };
            let Some(copy) = copy else { break };
            let (window, value) = self.add(at, window, copy)?;
            if let Some(value) = value
                && let Some(key) = if last { key.take() } else { key.clone() }
            {
                down.push(WindowResult { key, window, value }, ingest_ns)?;
            }
        }
        if none && let Some(record) = record {
            self.log.count_late(1);
            (self.late)(record);
        }
        Ok(())
    }
}
