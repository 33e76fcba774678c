//! The environment: clock, storage, randomness, pollers and threads, behind [`Env`]. Production
//! uses [`RealEnv`]. Tests run the same tasklets and drivers in a [`SimEnv`] with a virtual clock,
//! seeded randomness and no threads.

pub mod random;
pub(crate) mod reclaim;
pub mod simulated_storage;
pub mod storage;

use crate::env::random::SplitMix;
use crate::env::simulated_storage::SimStorage;
use crate::env::storage::{FileStorage, Storage};
use crate::error::EngineError;
use crate::sync::waker::Waker;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Stack size of a thread: workers evaluate deeply nested expressions. Only the pages in use take
/// memory.
const WORKER_STACK: usize = 64 << 20;

/// Clock, storage, randomness, pollers and threads.
pub trait Env: Send + Sync {
    /// Monotonic time, in nanoseconds since an arbitrary point.
    fn now_ns(&self) -> u64;
    /// Wall-clock time, in microseconds since 1970-01-01 UTC.
    fn wall_us(&self) -> i64;
    /// Returns a random number.
    fn random(&self) -> u64;
    /// The storage for durable files.
    fn storage(&self) -> &dyn Storage;
    /// The size of the deltas, in bytes, below which their size starts no compaction. The
    /// simulation makes it small, so that compaction is common there.
    fn min_compaction_bytes(&self) -> u64 {
        256 << 10
    }
    /// Maximum number of keys that an operator processes in one step. The simulation makes it
    /// small, so that other events happen between the keys that a watermark expires.
    fn max_keys_per_step(&self) -> usize {
        usize::MAX
    }
    /// Gives the pages of freed memory back to the system, if the system supports it.
    fn release_memory(&self) {}
    /// Creates what a worker blocks on: a poll for its sockets, and the waker that interrupts it.
    /// No poll in simulation.
    fn create_poller(&self) -> Result<(Option<mio::Poll>, Waker), EngineError>;
    /// Starts a named thread. An error if the system cannot start it.
    fn spawn(
        &self,
        name: String,
        run: Box<dyn FnOnce() + Send>,
    ) -> Result<JoinHandle<()>, EngineError>;
}

/// The token under which every worker's waker is registered; sockets count from 0.
pub const WAKE_TOKEN: mio::Token = mio::Token(usize::MAX);

/// The real clock, storage, poller, threads and randomness.
pub struct RealEnv {
    start: Instant,
}

impl Default for RealEnv {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Env for RealEnv {
    #[inline]
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn wall_us(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        }
    }

    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(self.now_ns())
    }

    fn storage(&self) -> &dyn Storage {
        &FileStorage
    }

    fn release_memory(&self) {
        crate::env::reclaim::trim();
    }

    fn create_poller(&self) -> Result<(Option<mio::Poll>, Waker), EngineError> {
        let poll = mio::Poll::new().map_err(|e| EngineError::runtime("create a poll", e))?;
        let waker = mio::Waker::new(poll.registry(), WAKE_TOKEN)
            .map_err(|e| EngineError::runtime("create a waker", e))?;
        Ok((Some(poll), Waker::poll(waker)))
    }

    fn spawn(
        &self,
        name: String,
        run: Box<dyn FnOnce() + Send>,
    ) -> Result<JoinHandle<()>, EngineError> {
        std::thread::Builder::new()
            .name(name)
            .stack_size(WORKER_STACK)
            .spawn(run)
            .map_err(|e| EngineError::runtime("start a thread", e))
    }
}

/// A simulated environment: a virtual clock, simulated storage and seeded randomness.
pub struct SimEnv {
    now_ns: AtomicU64,
    random: Mutex<SplitMix>,
    storage: SimStorage,
}

impl SimEnv {
    /// A simulated environment. `seed` determines its random numbers and the outcome of its faults.
    pub fn new(seed: u64) -> Self {
        Self {
            now_ns: AtomicU64::new(1),
            random: Mutex::new(SplitMix(seed)),
            storage: SimStorage::new(seed),
        }
    }

    /// The simulated file system, into which tests inject faults.
    pub fn sim_storage(&self) -> &SimStorage {
        &self.storage
    }

    /// Advances the virtual clock.
    pub fn advance(&self, by_ns: u64) {
        self.now_ns.fetch_add(by_ns, Ordering::Relaxed);
    }
}

impl Env for SimEnv {
    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn wall_us(&self) -> i64 {
        (self.now_ns() / 1_000) as i64
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next()
    }

    fn storage(&self) -> &dyn Storage {
        &self.storage
    }

    fn min_compaction_bytes(&self) -> u64 {
        200
    }

    fn max_keys_per_step(&self) -> usize {
        2
    }

    fn create_poller(&self) -> Result<(Option<mio::Poll>, Waker), EngineError> {
        Ok((None, Waker::noop()))
    }

    fn spawn(
        &self,
        name: String,
        _run: Box<dyn FnOnce() + Send>,
    ) -> Result<JoinHandle<()>, EngineError> {
        Err(EngineError::operator(
            "NO_THREADS_IN_SIMULATION",
            format!("an operator of a simulated job tried to start thread '{name}'"),
            "Run the job with `Job::simulate`",
        ))
    }
}
