//! The sink side of an output.

use super::CAPACITY;
use super::output::Output;
use crate::stream::channel::query_end::{OutputState, QueryEnd};
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use millstream_engine::sync::ring::{Producer, ring};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The overflow list: results of a stopped query that did not fit into the ring.
pub(super) struct Overflow<T> {
    used: AtomicBool,
    results: Mutex<VecDeque<T>>,
}

impl<T> Overflow<T> {
    fn new() -> Self {
        Self { used: AtomicBool::new(false), results: Mutex::default() }
    }

    /// Whether results have been put into this list. From then on all results are put here.
    #[inline]
    pub fn is_used(&self) -> bool {
        // ORDERING: pairs with the release store in `extend`: a reader that sees it also sees
        // everything that was put into the ring before.
        self.used.load(Ordering::Acquire)
    }

    pub fn has_some(&self) -> bool {
        self.is_used() && !self.results().is_empty()
    }

    pub fn pop(&self) -> Option<T> {
        self.results().pop_front()
    }

    fn extend(&self, results: &mut VecDeque<T>) {
        self.results().append(results);
        // ORDERING: pairs with the acquire load in `is_used`.
        self.used.store(true, Ordering::Release);
    }

    fn results(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.results.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The sink side of an [`Output`].
pub struct ChannelSink<T> {
    ring: Producer<T>,
    /// Results that did not fit into the ring.
    spill: VecDeque<T>,
    /// Whether results may go into the ring: no earlier result is waiting.
    direct: bool,
    outlet: Arc<OutputState>,
    behind: Arc<Overflow<T>>,
    latency: LatencyRecorder,
}

pub(in crate::stream) struct OutputParts<T> {
    ring: Producer<T>,
    outlet: Arc<OutputState>,
    behind: Arc<Overflow<T>>,
}

/// Creates both sides of an output of the flow with this `ending`.
pub(in crate::stream) fn output<T: Send>(ending: &Arc<QueryEnd>) -> (OutputParts<T>, Output<T>) {
    let (tx, rx) = ring(CAPACITY);
    let (outlet, behind) = (ending.outlet(), Arc::new(Overflow::new()));
    let output = Output::new(rx, behind.clone(), outlet.clone(), ending.clone());
    (OutputParts { ring: tx, outlet, behind }, output)
}

impl<T> OutputParts<T> {
    pub fn stage(self, latency: LatencyRecorder) -> ChannelSink<T> {
        let Self { ring, outlet, behind } = self;
        ChannelSink { ring, spill: VecDeque::new(), direct: true, outlet, behind, latency }
    }
}

impl<T: Send> ChannelSink<T> {
    /// Moves waiting results to the ring, or to the overflow list if the query is stopped.
    /// `Blocked` if some results must still wait.
    #[cold]
    fn flush_spill(&mut self) -> FlushStatus {
        if self.behind.is_used() || self.outlet.is_released() {
            // No more results are put into the ring, so the order is preserved.
            self.ring.publish();
            self.behind.extend(&mut self.spill);
            self.outlet.set_blocked(false);
            self.outlet.reader.wake();
            return FlushStatus::Flushed;
        }
        let waited = self.spill.len();
        while let Some(value) = self.spill.pop_front() {
            if let Err(value) = self.ring.push(value) {
                self.spill.push_front(value);
                break;
            }
        }
        self.direct = self.spill.is_empty();
        if self.spill.len() < waited {
            self.outlet.set_blocked(false);
        }
        if self.direct {
            return FlushStatus::Flushed;
        }
        self.outlet.set_blocked(true);
        FlushStatus::Blocked
    }
}

impl<T: Send> Stage for ChannelSink<T> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        drop(self.outlet.sink.set(io.waker.clone()));
        Ok(())
    }
    #[inline]
    fn is_ready(&mut self) -> bool {
        self.spill.is_empty()
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        self.flush()?;
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.flush()?;
        self.latency.publish();
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if self.ring.is_abandoned() {
            // The reader was dropped, so the results are discarded.
            self.spill.clear();
        }
        let status = if self.spill.is_empty() { FlushStatus::Flushed } else { self.flush_spill() };
        if self.ring.publish() {
            self.outlet.reader.wake();
        }
        self.latency.record_pending();
        Ok(status)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<T: Send> Push<T> for ChannelSink<T> {
    #[inline]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        if self.ring.is_abandoned() {
            return Ok(());
        }
        if !self.direct {
            self.spill.push_back(value);
        } else if let Err(value) = self.ring.push(value) {
            self.direct = false;
            self.spill.push_back(value);
        }
        self.latency.add_pending(ingest_ns);
        Ok(())
    }
}
