//! How outputs learn of the end of a query, and how unread outputs are detected.
//!
//! *A full output* blocks its query; that is backpressure. Two callers must not wait for a reader
//! that may never come. A query that is stopped puts results that do not fit into the ring into an
//! overflow list, which the reader reads later; its sources emit nothing more. And a caller that
//! waits for the query gets `OUTPUT_NOT_READ` when an output has been full and unread for a while.
//! If another thread has waited for results of the output before, the reader is merely slow and
//! there is no error.
//!
//! *Threads.* Any. This code is not on the hot path.

use millstream_engine::error::EngineError;
use millstream_engine::sync::waker::Waker;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// State shared by an output and its sink, except the results.
pub(super) struct OutputState {
    /// Wakes the thread or task that waits for results.
    pub reader: Waker,
    /// The sink's worker, once it runs.
    pub sink: OnceLock<Waker>,
    /// Whether the sink must stop waiting for the reader.
    released: AtomicBool,
    /// Whether the output was dropped. The sink may not have seen this yet, and still wait.
    dropped: AtomicBool,
    /// Whether the sink is waiting for the reader.
    blocked: AtomicBool,
    /// How often the sink could continue after waiting.
    unblocked: AtomicU64,
}

impl OutputState {
    fn new() -> Self {
        Self {
            reader: Waker::thread(),
            sink: OnceLock::new(),
            released: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unblocked: AtomicU64::new(0),
        }
    }

    /// Wakes the sink if it sleeps. Call this after storing state that the sink must see.
    pub fn wake_sink(&self) {
        // ORDERING: a sink that is attached after this check issues a fence before it sleeps, so it
        // sees everything that was stored before.
        fence(Ordering::SeqCst);
        if let Some(worker) = self.sink.get() {
            worker.wake();
        }
    }

    fn release(&self) {
        // ORDERING: relaxed: `wake_sink` has the fence.
        self.released.store(true, Ordering::Relaxed);
        self.wake_sink();
    }

    /// Records that the output was dropped, and wakes the sink.
    pub fn set_dropped(&self) {
        // ORDERING: relaxed: `wake_sink` has the fence.
        self.dropped.store(true, Ordering::Relaxed);
        self.wake_sink();
    }

    pub fn is_released(&self) -> bool {
        // ORDERING: relaxed: a worker fences between its check before sleeping and the sleep.
        self.released.load(Ordering::Relaxed)
    }

    /// Records whether the sink is waiting.
    pub fn set_blocked(&self, blocked: bool) {
        // ORDERING: relaxed: other threads poll these values, and nothing else depends on them.
        if !blocked {
            self.unblocked.fetch_add(1, Ordering::Relaxed);
        }
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// `Some` if the sink is waiting and no other thread reads the output: how often the sink could
    /// continue so far.
    fn stuck(&self) -> Option<u64> {
        let waiter = self.reader.last_waiter();
        let unread = waiter.is_none_or(|thread| thread == std::thread::current().id());
        // ORDERING: relaxed: see `set_blocked`.
        let stuck =
            unread && self.blocked.load(Ordering::Relaxed) && !self.dropped.load(Ordering::Relaxed);
        stuck.then(|| self.unblocked.load(Ordering::Relaxed))
    }
}

/// The outcome of a query, once it has ended, and its outputs.
#[derive(Default)]
pub(in crate::stream) struct QueryEnd {
    outcome: OnceLock<Result<(), EngineError>>,
    outlets: Mutex<Vec<Arc<OutputState>>>,
}

impl QueryEnd {
    pub(super) fn outlet(&self) -> Arc<OutputState> {
        let outlet = Arc::new(OutputState::new());
        self.outlets().push(outlet.clone());
        outlet
    }

    /// How the query ended; `None` while it runs.
    pub fn outcome(&self) -> Option<&Result<(), EngineError>> {
        self.outcome.get()
    }

    /// Makes all sinks stop waiting for readers.
    pub fn release_outputs(&self) {
        self.outlets().iter().for_each(|outlet| outlet.release());
    }

    fn finish(&self, outcome: Result<(), EngineError>) {
        if self.outcome.set(outcome).is_ok() {
            self.outlets().iter().for_each(|outlet| outlet.reader.wake());
        }
    }

    fn outlets(&self) -> MutexGuard<'_, Vec<Arc<OutputState>>> {
        self.outlets.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Reports the outcome to the outputs of a flow. If the notifier is dropped without an outcome, the
/// outputs end without an error: the flow was never started.
#[derive(Default)]
pub(in crate::stream) struct QueryEndNotifier(pub Arc<QueryEnd>);

impl QueryEndNotifier {
    pub fn finish(&self, outcome: &Result<(), EngineError>) {
        self.0.finish(outcome.clone());
    }
}

impl Drop for QueryEndNotifier {
    fn drop(&mut self) {
        self.0.finish(Ok(()));
    }
}

/// Detects outputs that block a query while a caller waits for the query.
pub(in crate::stream) struct UnreadOutputWatch<'a> {
    ending: &'a QueryEnd,
    timeout: Duration,
    /// For each output that is stuck: the count that [`OutputState::stuck`] returned, and since
    /// when.
    stuck: Vec<Option<(u64, Instant)>>,
}

impl<'a> UnreadOutputWatch<'a> {
    pub fn new(ending: &'a QueryEnd, timeout: Duration) -> Self {
        Self { ending, timeout, stuck: Vec::new() }
    }

    /// The error for the waiting caller, if an output is full and no result of it was taken for
    /// `timeout`, as seen by the calls of this method. `None` otherwise.
    pub fn reason(&mut self) -> Option<EngineError> {
        let (now, outlets) = (Instant::now(), self.ending.outlets());
        self.stuck.resize(outlets.len(), None);
        for (before, outlet) in self.stuck.iter_mut().zip(outlets.iter()) {
            *before = outlet.stuck().map(|unblocked| match *before {
                Some((same, since)) if same == unblocked => (same, since),
                _ => (unblocked, now),
            });
        }
        let timeout = self.timeout;
        let over = |since: Instant| now.saturating_duration_since(since) >= timeout;
        self.stuck.iter().flatten().any(|(_, since)| over(*since)).then(|| {
            EngineError::operator(
                "OUTPUT_NOT_READ",
                format!(
                    "the query is blocked: an output is full ({} results) and was not read for \
                    {timeout:?}. The query continues when the output is read",
                    crate::stream::channel::CAPACITY
                ),
                "Read the output on another thread, or drop it; `stop` ends the query either way",
            )
        })
    }
}
