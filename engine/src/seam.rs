//! The determinism seam: everything that can differ between two runs of the same input stands
//! behind [`Env`]. Production uses [`RealEnv`]; tests run the same tasklets and drivers in a
//! [`SimEnv`] with a virtual clock, seeded randomness and no threads.

use crate::error::EngineError;
use crate::random::SplitMix;
use crate::sim_storage::SimStorage;
use crate::storage::{FileStorage, Storage};
use crate::wake::Waker;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The stack of a worker: operators evaluate expressions that are nested a thousand levels deep.
/// Only what is used of it takes memory.
const WORKER_STACK: usize = 64 << 20;

/// The outside world as the runtime sees it.
pub trait Env: Send + Sync {
    /// Monotonic time, in nanoseconds since some fixed point.
    fn now_ns(&self) -> u64;
    /// Wall-clock time, in microseconds since 1970-01-01 UTC.
    fn wall_us(&self) -> i64;
    /// A random number.
    fn random(&self) -> u64;
    /// Durable files.
    fn storage(&self) -> &dyn Storage;
    /// Bytes of deltas below which no compaction begins. The simulated world makes it small, so
    /// that what is rare becomes common.
    fn compact_above_bytes(&self) -> u64 {
        256 << 10
    }
    /// Keys that an operator takes in one step at most. The simulated world takes few, so that much
    /// comes between the first and the last of what a watermark lets go.
    fn most_keys_a_step(&self) -> usize {
        usize::MAX
    }
    /// Gives the pages of freed memory back to the system, where that is possible.
    fn release_memory(&self) {}
    /// A worker's sleeping place: a poll for its sockets, and the waker that ends its sleep.
    fn sleeper(&self) -> Result<(Option<mio::Poll>, Waker), EngineError>;
    /// Starts a named thread.
    fn spawn(
        &self,
        name: String,
        run: Box<dyn FnOnce() + Send>,
    ) -> Result<JoinHandle<()>, EngineError>;
}

/// The token under which every worker's waker is registered; sockets count from 0.
pub const WAKE_TOKEN: mio::Token = mio::Token(usize::MAX);

/// The real clock, poller, threads and randomness.
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
        crate::reclaim::trim();
    }

    fn sleeper(&self) -> Result<(Option<mio::Poll>, Waker), EngineError> {
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

/// A world with a clock that moves when told, and randomness from a seed.
pub struct SimEnv {
    now_ns: AtomicU64,
    random: Mutex<SplitMix>,
    storage: SimStorage,
}

impl SimEnv {
    /// A world whose whole behaviour follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            now_ns: AtomicU64::new(1),
            random: Mutex::new(SplitMix(seed)),
            storage: SimStorage::new(seed),
        }
    }

    /// Its file system, to break things in.
    pub fn sim_storage(&self) -> &SimStorage {
        &self.storage
    }

    /// Moves the clock on.
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

    fn compact_above_bytes(&self) -> u64 {
        200
    }

    fn most_keys_a_step(&self) -> usize {
        2
    }

    fn sleeper(&self) -> Result<(Option<mio::Poll>, Waker), EngineError> {
        Ok((None, Waker::silent()))
    }

    fn spawn(
        &self,
        name: String,
        _run: Box<dyn FnOnce() + Send>,
    ) -> Result<JoinHandle<()>, EngineError> {
        Err(EngineError::operator(
            "NO_THREADS_IN_SIMULATION",
            format!("the simulated world was asked to start thread '{name}'"),
            "Run the job with `Job::simulate`",
        ))
    }
}
