//! The pushing side of a channel.

use super::CAPACITY;
use crate::stream::channel::producer_wait::{WaitingProducers, sleep, this_thread};
use crossbeam_utils::Backoff;
use millstream_engine::env::Env;
use millstream_engine::error::EngineError;
use millstream_engine::sync::waker::Waker;
use millstream_engine::sync::{mpsc, ring};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A record and its ingest time, in nanoseconds.
pub(super) type Stamped<T> = (T, u64);

/// The reason why a record was not accepted, with the record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError<T> {
    /// The channel is full: try again later, or slow down.
    #[error("CHANNEL_FULL: the channel is full because the query is behind; try again later")]
    Full(T),
    /// The query has ended.
    #[error("CHANNEL_CLOSED: the query has ended")]
    Closed(T),
}

impl<T> PushError<T> {
    /// Returns the rejected record.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

impl<T> From<PushError<T>> for EngineError {
    fn from(error: PushError<T>) -> Self {
        let (condition, reason) = match error {
            PushError::Full(_) => {
                ("CHANNEL_FULL", "the channel is full because the query is behind")
            }
            PushError::Closed(_) => ("CHANNEL_CLOSED", "the query has ended"),
        };
        Self::operator(condition, reason, "")
    }
}

/// State shared by the inputs of a channel and its source.
pub(super) struct Shared<T> {
    /// Set when the query starts: its clock, and the worker to wake.
    pub start: OnceLock<(Arc<dyn Env>, Waker)>,
    /// Whether the source has been dropped.
    pub closed: AtomicBool,
    /// Number of inputs that have not been dropped.
    pub inputs: AtomicUsize,
    /// The number that the next clone gets.
    next_input: AtomicU64,
    pub committed: AtomicU64,
    pub waiting: WaitingProducers,
    /// The queue of cloned inputs, created with the first clone.
    queue: OnceLock<mpsc::Producer<Stamped<T>>>,
    /// Set when the queue is created. Its other half is then in `consumer`, until the source takes
    /// it.
    pub arrived: AtomicBool,
    pub consumer: Mutex<Option<mpsc::Consumer<Stamped<T>>>>,
}

impl<T: Send> Shared<T> {
    pub fn new() -> Self {
        Self {
            start: OnceLock::new(),
            closed: AtomicBool::new(false),
            inputs: AtomicUsize::new(1),
            next_input: AtomicU64::new(1),
            committed: AtomicU64::new(0),
            waiting: WaitingProducers::default(),
            queue: OnceLock::new(),
            arrived: AtomicBool::new(false),
            consumer: Mutex::new(None),
        }
    }

    fn queue(&self) -> mpsc::Producer<Stamped<T>> {
        let make = || {
            let (producer, consumer) = mpsc::queue(CAPACITY);
            *self.consumer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(consumer);
            // ORDERING: pairs with the acquire load in `Receiver::poll_arrival`.
            self.arrived.store(true, Ordering::Release);
            producer
        };
        self.queue.get_or_init(make).clone()
    }
}

enum Lane<T> {
    /// The lane of the first input.
    Ring(ring::Producer<Stamped<T>>),
    /// The shared lane of all other inputs.
    Queue(mpsc::Producer<Stamped<T>>),
}

/// The pushing side of a channel source. The stream ends when all inputs of the channel are
/// dropped.
///
/// A clone is another producer, for another thread or task. The records of one input keep their
/// order; records of different inputs are interleaved in any order. The first input has a ring of
/// its own and is slightly faster than its clones.
pub struct Input<T> {
    lane: Lane<T>,
    number: u64,
    shared: Arc<Shared<T>>,
}

impl<T: Send> Input<T> {
    pub(super) fn first(ring: ring::Producer<Stamped<T>>, shared: Arc<Shared<T>>) -> Self {
        Self { lane: Lane::Ring(ring), number: 0, shared }
    }

    /// Pushes a record, stamped with the query's clock ([`now_ns`](Self::now_ns)). Does not block.
    #[inline]
    pub fn try_push(&mut self, value: T) -> Result<(), PushError<T>> {
        let now_ns = self.shared.start.get().map_or(0, |(env, _)| env.now_ns());
        self.try_push_at(value, now_ns)
    }

    /// Pushes a record with its intended time on the query's clock, for open-loop measurements.
    /// Returns the record if the channel is full, or closed because the query has ended.
    #[inline]
    pub fn try_push_at(&mut self, value: T, ingest_ns: u64) -> Result<(), PushError<T>> {
        // ORDERING: relaxed: if the source is dropped during the push, the record is dropped with
        // it.
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(PushError::Closed(value));
        }
        let pushed = match &mut self.lane {
            Lane::Ring(ring) => {
                let pushed = ring.push((value, ingest_ns));
                ring.publish();
                pushed
            }
            Lane::Queue(queue) => queue.push((value, ingest_ns)),
        };
        pushed.map_err(|(value, _)| PushError::Full(value))?;
        if let Some((_, waker)) = self.shared.start.get() {
            waker.wake();
        }
        Ok(())
    }

    /// Pushes a record. While the channel is full the call spins briefly and then sleeps. An error
    /// means that the query has ended.
    ///
    /// The call waits forever if the query itself waits for results that only this thread reads. In
    /// that case use [`try_push`](Self::try_push) or [`push_timeout`](Self::push_timeout).
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        match self.try_push(value) {
            Err(PushError::Full(value)) => self.push_waiting(value, None),
            other => other,
        }
    }

    /// Pushes a record, waiting for at most `timeout` while the channel is full. After the time-out
    /// the call returns the record ([`PushError::Full`]), and when the query has ended
    /// ([`PushError::Closed`]).
    #[inline]
    pub fn push_timeout(&mut self, value: T, timeout: Duration) -> Result<(), PushError<T>> {
        match self.try_push(value) {
            Err(PushError::Full(value)) => {
                self.push_waiting(value, Instant::now().checked_add(timeout))
            }
            other => other,
        }
    }

    #[cold]
    fn push_waiting(&mut self, value: T, deadline: Option<Instant>) -> Result<(), PushError<T>> {
        let (backoff, mut value) = (Backoff::new(), value);
        while !backoff.is_completed() {
            backoff.snooze();
            match self.try_push(value) {
                Err(PushError::Full(back)) => value = back,
                other => return other,
            }
        }
        let (task, mut in_time) = (this_thread(), true);
        while in_time {
            value = match self.push_or_register(value, &task) {
                Err(PushError::Full(back)) => back,
                other => return other,
            };
            in_time = sleep(deadline);
        }
        self.shared.waiting.remove(self.number);
        self.try_push(value)
    }

    /// Pushes a record. If the channel is full, registers a waker that is woken once when there may
    /// be a free slot.
    pub(super) fn push_or_register(
        &mut self,
        value: T,
        task: &std::task::Waker,
    ) -> Result<(), PushError<T>> {
        self.shared.waiting.register(self.number, task);
        let pushed = self.try_push(value);
        if !matches!(pushed, Err(PushError::Full(_))) {
            self.shared.waiting.remove(self.number);
        }
        pushed
    }

    /// The number of records of this channel, from all its inputs, that are in a committed epoch.
    /// Records of earlier runs with the same checkpoint count too. After a restart, push all
    /// records again that are not committed: with one input, everything after the first
    /// `committed()` records.
    pub fn committed(&self) -> u64 {
        // ORDERING: pairs with the release store of the source.
        self.shared.committed.load(Ordering::Acquire)
    }

    /// Whether the query has ended, so that records are no longer accepted.
    pub fn is_closed(&self) -> bool {
        // ORDERING: relaxed: see `try_push_at`.
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// The query's clock, in nanoseconds, for [`try_push_at`](Self::try_push_at); 0 before the
    /// start.
    pub fn now_ns(&self) -> u64 {
        self.shared.start.get().map_or(0, |(env, _)| env.now_ns())
    }
}

impl<T: Send> Clone for Input<T> {
    fn clone(&self) -> Self {
        let shared = self.shared.clone();
        // ORDERING: relaxed: the drop of this input decrements the count with release, so a thread
        // that sees the decrement also sees this increment.
        shared.inputs.fetch_add(1, Ordering::Relaxed);
        let number = shared.next_input.fetch_add(1, Ordering::Relaxed);
        Self { lane: Lane::Queue(shared.queue()), number, shared }
    }
}

impl<T> Drop for Input<T> {
    fn drop(&mut self) {
        self.shared.waiting.remove(self.number);
        // ORDERING: pairs with the acquire load in `Receiver::is_exhausted`: a source that sees the
        // drop of the last input also sees all pushed records.
        self.shared.inputs.fetch_sub(1, Ordering::Release);
        if let Some((_, waker)) = self.shared.start.get() {
            waker.wake();
        }
    }
}
