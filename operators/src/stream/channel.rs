//! The embedding edge: a service pushes records into a query and gets results back, in process.
//!
//! Both ends are a ring. [`Input`] is pushed by one service thread; [`Output`] is read by one.
//! Not replayable: what was pushed but not committed when the process dies is gone.

use super::staged::Staged;
use crossbeam_utils::Backoff;
use millstream_engine::driver::{Extent, Planned};
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::latency::LatencyRecorder;
use millstream_engine::ring::{Consumer, Producer, ring};
use millstream_engine::seam::Env;
use millstream_engine::stage::{Io, Push, Settled, Stage};
use millstream_engine::tasklet::{Offset, Polled, Source, StepCx};
use millstream_engine::wake::Waker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Records that a channel holds.
const CAPACITY: usize = 4096;

/// Why a record was not taken; it is given back.
#[derive(Debug, thiserror::Error)]
pub enum PushError<T> {
    /// The query is behind: try again, or slow down.
    #[error("CHANNEL_FULL: the query is behind by a whole channel; try again later")]
    Full(T),
    /// The query has ended.
    #[error("CHANNEL_CLOSED: the query has ended")]
    Closed(T),
}

impl<T> From<PushError<T>> for EngineError {
    fn from(error: PushError<T>) -> Self {
        let (condition, reason) = match error {
            PushError::Full(_) => ("CHANNEL_FULL", "the query is behind by a whole channel"),
            PushError::Closed(_) => ("CHANNEL_CLOSED", "the query has ended"),
        };
        Self::operator(condition, reason, "")
    }
}

/// Set when the query starts: its clock and the worker to wake.
pub(super) type Start = Arc<OnceLock<(Arc<dyn Env>, Waker)>>;

/// The pushing end of a channel source. Dropping it ends the stream.
pub struct Input<T> {
    ring: Producer<(T, u64)>,
    start: Start,
    committed: Arc<AtomicU64>,
}

impl<T: Send> Input<T> {
    /// Pushes a record, stamped with the present time. Does not block.
    #[inline]
    pub fn try_push(&mut self, value: T) -> Result<(), PushError<T>> {
        let now_ns = self.start.get().map_or(0, |(env, _)| env.now_ns());
        self.try_push_at(value, now_ns)
    }

    /// Pushes a record with its intended time on the query's clock, for open-loop measurements.
    #[inline]
    pub fn try_push_at(&mut self, value: T, ingest_ns: u64) -> Result<(), PushError<T>> {
        if self.ring.is_abandoned() {
            return Err(PushError::Closed(value));
        }
        self.ring.push((value, ingest_ns)).map_err(|(value, _)| PushError::Full(value))?;
        self.ring.publish();
        if let Some((_, waker)) = self.start.get() {
            waker.wake();
        }
        Ok(())
    }

    /// Pushes a record; while the channel is full it spins, then yields the core.
    pub fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        let backoff = Backoff::new();
        let mut value = value;
        loop {
            match self.try_push(value) {
                Err(PushError::Full(back)) => {
                    value = back;
                    backoff.snooze();
                }
                other => return other,
            }
        }
    }

    /// Records of this input that are in a committed epoch, those of earlier runs of the flow with
    /// the same checkpoint too. Behind a restart, push again what follows them.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// The query's clock, for [`try_push_at`](Self::try_push_at); 0 before the start.
    pub fn now_ns(&self) -> u64 {
        self.start.get().map_or(0, |(env, _)| env.now_ns())
    }
}

impl<T> Drop for Input<T> {
    fn drop(&mut self) {
        self.ring.publish();
        if let Some((_, waker)) = self.start.get() {
            waker.wake();
        }
    }
}

pub(super) struct ChannelSource<T> {
    ring: Consumer<(T, u64)>,
    start: Start,
    committed: Arc<AtomicU64>,
    env: Arc<dyn Env>,
    emitted: u64,
    /// Of them in earlier runs.
    resumed: u64,
    /// Micro-batch: records taken out of the ring by a plan, not yet emitted.
    staged: Staged<(T, u64)>,
}

/// Both ends of a channel source, and what they share.
pub(super) type Channel<T> = (Input<T>, Start, Arc<AtomicU64>, Consumer<(T, u64)>);

pub(super) fn channel<T: Send>() -> Channel<T> {
    let (tx, rx) = ring(CAPACITY);
    let (start, committed) = (Start::default(), Arc::new(AtomicU64::new(0)));
    let input = Input { ring: tx, start: start.clone(), committed: committed.clone() };
    (input, start, committed, rx)
}

impl<T: Send> ChannelSource<T> {
    pub(super) fn new(
        ring: Consumer<(T, u64)>,
        start: Start,
        committed: Arc<AtomicU64>,
        env: Arc<dyn Env>,
    ) -> Self {
        Self { ring, start, committed, env, emitted: 0, resumed: 0, staged: Staged::new() }
    }
}

impl<T: Send, D: Push<T>> Source<D> for ChannelSource<T> {
    fn name(&self) -> &str {
        "channel"
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        // Set once: a flow starts once.
        drop(self.start.set((self.env.clone(), io.waker.clone())));
        Ok(())
    }

    #[inline]
    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        if self.staged.is_running() {
            return self.staged.poll(down, (cx.budget, &mut self.emitted), |record| record);
        }
        let mut taken = 0;
        while taken < cx.budget && down.ready() {
            let Some((value, ingest_ns)) = self.ring.pop() else { break };
            down.push(value, ingest_ns)?;
            taken += 1;
        }
        self.emitted += taken as u64;
        self.ring.release();
        if taken > 0 {
            Ok(Polled::Some)
        } else if self.ring.is_abandoned() && self.ring.is_empty() {
            Ok(Polled::Exhausted)
        } else {
            Ok(Polled::Idle)
        }
    }

    fn position(&self) -> Offset {
        Offset(self.emitted.to_string())
    }

    fn records(&self) -> u64 {
        self.emitted - self.resumed
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        self.emitted = at.number()?;
        self.resumed = self.emitted;
        Ok(())
    }

    fn plan(&mut self, _: Extent, _cx: &mut StepCx<'_>) -> Result<Planned, EngineError> {
        while self.staged.len() < CAPACITY {
            let Some(record) = self.ring.pop() else { break };
            self.staged.add(record);
        }
        self.ring.release();
        let end = self.emitted + self.staged.len() as u64;
        Ok(Planned {
            end: Offset(end.to_string()),
            has_new: self.staged.len() > 0,
            exhausted: self.ring.is_abandoned() && self.ring.is_empty(),
            limited: self.staged.len() == CAPACITY,
        })
    }

    fn bound(&mut self, _end: &Offset) -> Result<(), EngineError> {
        self.staged.begin(self.staged.len());
        Ok(())
    }

    fn committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.committed.store(end.number()?, Ordering::Release);
        Ok(())
    }
}

/// The receiving end of a channel sink.
pub struct Output<T> {
    ring: Consumer<T>,
    reader: Waker,
    producer: Arc<OnceLock<Waker>>,
}

impl<T: Send> Output<T> {
    /// The oldest result, if there is one.
    #[inline]
    pub fn try_recv(&mut self) -> Option<T> {
        let value = self.ring.pop();
        if value.is_none() {
            self.give_back();
        }
        value
    }

    fn give_back(&mut self) {
        if self.ring.release()
            && let Some(producer) = self.producer.get()
        {
            producer.wake();
        }
    }

    /// Waits for a result, at most `timeout`: spins for a moment, then sleeps. `None` when the
    /// time is over or the query has ended.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<T> {
        let (start, backoff) = (std::time::Instant::now(), Backoff::new());
        loop {
            if let Some(value) = self.try_recv() {
                return Some(value);
            }
            let waited = start.elapsed();
            if waited >= timeout || (self.ring.is_abandoned() && self.ring.is_empty()) {
                return self.try_recv();
            }
            if backoff.is_completed() {
                let ring = &mut self.ring;
                self.reader.park(Some(timeout - waited), || !ring.is_empty());
            } else {
                backoff.snooze();
            }
        }
    }
}

/// The sink side of an [`Output`].
pub struct ChannelSink<T> {
    pub(super) ring: Producer<T>,
    pub(super) reader: Waker,
    pub(super) producer: Arc<OnceLock<Waker>>,
    pub(super) spill: VecDeque<T>,
    pub(super) latency: LatencyRecorder,
}

pub(super) struct OutputParts<T> {
    pub ring: Producer<T>,
    pub reader: Waker,
    pub producer: Arc<OnceLock<Waker>>,
}

pub(super) fn output<T: Send>() -> (OutputParts<T>, Output<T>) {
    let (tx, rx) = ring(CAPACITY);
    let (reader, producer) = (Waker::thread(), Arc::new(OnceLock::new()));
    (
        OutputParts { ring: tx, reader: reader.clone(), producer: producer.clone() },
        Output { ring: rx, reader, producer },
    )
}

impl<T: Send> Stage for ChannelSink<T> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        drop(self.producer.set(io.waker.clone()));
        Ok(())
    }
    #[inline]
    fn ready(&mut self) -> bool {
        self.spill.is_empty()
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        self.settle()?;
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.settle()?;
        self.latency.publish();
        Ok(())
    }
    fn settle(&mut self) -> Result<Settled, EngineError> {
        if self.ring.is_abandoned() {
            // Nobody reads any more: results are dropped, as the service chose.
            self.spill.clear();
        }
        while let Some(value) = self.spill.pop_front() {
            if let Err(value) = self.ring.push(value) {
                self.spill.push_front(value);
                break;
            }
        }
        if self.ring.publish() {
            self.reader.wake();
        }
        self.latency.stamp();
        Ok(if self.spill.is_empty() { Settled::Clear } else { Settled::Blocked })
    }
}

impl<T: Send> Push<T> for ChannelSink<T> {
    #[inline]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        if self.ring.is_abandoned() {
            return Ok(());
        }
        if let Err(value) = self.ring.push(value) {
            self.spill.push_back(value);
        }
        self.latency.note(ingest_ns);
        Ok(())
    }
}
