//! The end of a query, as its outputs see it, and outputs that nobody reads.
//!
//! *A full output* holds its query back, which is what backpressure is for. Two things must not wait
//! for a reader who may never come. A query that is stopped puts what does not fit into the ring into
//! a list behind it, where the reader finds it afterwards: this is at most what the records make that
//! were already on their way, since sources give nothing more. And a caller that waits for the query
//! gives up with `OUTPUT_NOT_READ` when an output has been full and unread for a while, unless
//! another thread has waited for its results before: such a reader is merely slow.
//!
//! *Threads.* Any; nothing here is touched for a record.

use millstream_engine::error::EngineError;
use millstream_engine::wake::Waker;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// What an output and its sink share but for the results.
pub(super) struct Outlet {
    /// Whoever waits for results.
    pub reader: Waker,
    /// The worker of the sink, once it runs.
    pub sink: OnceLock<Waker>,
    /// The sink is not to wait for the reader any more.
    released: AtomicBool,
    /// The sink waits for the reader.
    blocked: AtomicBool,
    /// How often the sink has got room when it waited.
    unblocked: AtomicU64,
}

impl Outlet {
    fn new() -> Self {
        Self {
            reader: Waker::thread(),
            sink: OnceLock::new(),
            released: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unblocked: AtomicU64::new(0),
        }
    }

    /// Wakes the sink if it sleeps. Call after what it is to see.
    pub fn wake_sink(&self) {
        // ORDERING: a sink that is attached only after this look fences before it sleeps, and so
        // sees what was stored before this.
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

    pub fn is_released(&self) -> bool {
        // ORDERING: relaxed: a worker fences between its look before it sleeps and the sleep.
        self.released.load(Ordering::Relaxed)
    }

    /// Says whether the sink waits.
    pub fn set_blocked(&self, blocked: bool) {
        // ORDERING: relaxed: looked at from time to time, and nothing else depends on it.
        if !blocked {
            self.unblocked.fetch_add(1, Ordering::Relaxed);
        }
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// While the sink waits and no other thread than this one is known to read: how often it has got
    /// room before.
    fn stuck(&self) -> Option<u64> {
        let waiter = self.reader.last_waiter();
        let unread = waiter.is_none_or(|thread| thread == std::thread::current().id());
        // ORDERING: relaxed: see `set_blocked`.
        let stuck = unread && self.blocked.load(Ordering::Relaxed);
        stuck.then(|| self.unblocked.load(Ordering::Relaxed))
    }
}

/// How a query ended, once it has, and its outputs.
#[derive(Default)]
pub(in crate::stream) struct Ending {
    outcome: OnceLock<Result<(), EngineError>>,
    outlets: Mutex<Vec<Arc<Outlet>>>,
}

impl Ending {
    pub(super) fn outlet(&self) -> Arc<Outlet> {
        let outlet = Arc::new(Outlet::new());
        self.outlets().push(outlet.clone());
        outlet
    }

    /// How the query ended; `None` while it runs.
    pub fn outcome(&self) -> Option<&Result<(), EngineError>> {
        self.outcome.get()
    }

    /// From now on no sink waits for a reader.
    pub fn release_outputs(&self) {
        self.outlets().iter().for_each(|outlet| outlet.release());
    }

    fn finish(&self, outcome: Result<(), EngineError>) {
        if self.outcome.set(outcome).is_ok() {
            self.outlets().iter().for_each(|outlet| outlet.reader.wake());
        }
    }

    fn outlets(&self) -> MutexGuard<'_, Vec<Arc<Outlet>>> {
        self.outlets.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Tells the outputs of a flow how its query ended; dropped without that, that there is no query.
#[derive(Default)]
pub(in crate::stream) struct EndsOutputs(pub Arc<Ending>);

impl EndsOutputs {
    pub fn finish(&self, outcome: &Result<(), EngineError>) {
        self.0.finish(outcome.clone());
    }
}

impl Drop for EndsOutputs {
    fn drop(&mut self) {
        self.0.finish(Ok(()));
    }
}

/// Watches for outputs that hold a query back while somebody waits for the query.
pub(in crate::stream) struct Unread<'a> {
    ending: &'a Ending,
    timeout: Duration,
    /// Of each output: since when it has been stuck without a change.
    stuck: Vec<Option<(u64, Instant)>>,
}

impl<'a> Unread<'a> {
    pub fn new(ending: &'a Ending, timeout: Duration) -> Self {
        Self { ending, timeout, stuck: Vec::new() }
    }

    /// Why to give the wait up, if an output has not been read for long.
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
                    "the query waits for room in an output that is full ({} results) and was not \
                     read for {timeout:?}; it goes on when it is read",
                    super::CAPACITY
                ),
                "Read the output on another thread, or drop it; `stop` ends the query either way",
            )
        })
    }
}
