//! Waking a thread that has nothing to do, only if it really sleeps.
//!
//! A consumer announces that it is about to block ([`ParkFlag::announce`]), looks for work once
//! more, and blocks. A producer publishes its work and then asks [`ParkFlag::take`]: only when
//! the flag is up does it pay for a wake-up (about 15 us on a virtual machine). A full fence on
//! each side, between its store and its load, makes it impossible that both look away: the
//! producer missing the flag *and* the consumer missing the work. `engine/tests/loom.rs` checks
//! just that.
//!
//! *Threads.* One thread announces; any number may take.

use crate::sync::{Arc, AtomicBool, Ordering, fence};

/// The flag between one sleeper and its wakers.
#[derive(Debug)]
pub struct ParkFlag {
    parked: AtomicBool,
}

impl Default for ParkFlag {
    fn default() -> Self {
        Self { parked: AtomicBool::new(false) }
    }
}

impl ParkFlag {
    /// The sleeper says that it is about to block. It must look for work once more after this.
    pub fn announce(&self) {
        self.parked.store(true, Ordering::Relaxed);
        // ORDERING: pairs with the fence in `take`. Either the waker's load sees this store, or
        // the sleeper's later look for work sees what the waker published before its fence.
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake again, or found work after all.
    pub fn retract(&self) {
        // ORDERING: relaxed is enough: a waker that still sees the flag sends one wake-up too
        // many, which costs time and no correctness.
        self.parked.store(false, Ordering::Relaxed);
    }

    /// A waker, after publishing work, asks whether it must wake the sleeper. True for one waker.
    pub fn take(&self) -> bool {
        // ORDERING: pairs with the fence in `announce`.
        fence(Ordering::SeqCst);
        // ORDERING: the first load keeps the cache line shared when nobody sleeps; the swap makes
        // sure that of several wakers one pays.
        self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed)
    }
}

/// What ends a sleep: a poll's waker, or a thread that called `park`.
#[derive(Debug)]
enum Bell {
    Poll(mio::Waker),
    Thread(std::sync::Mutex<Option<std::thread::Thread>>),
    /// Under simulation nothing sleeps.
    Silent,
}

#[derive(Debug)]
struct Shared {
    flag: ParkFlag,
    bell: Bell,
}

/// A handle with which any thread wakes one sleeper.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// Wakes a worker out of its poll.
    pub fn poll(waker: mio::Waker) -> Self {
        Self(Arc::new(Shared { flag: ParkFlag::default(), bell: Bell::Poll(waker) }))
    }

    /// Wakes the thread that calls [`park`](Self::park) on it.
    pub fn thread() -> Self {
        Self(Arc::new(Shared { flag: ParkFlag::default(), bell: Bell::Thread(Default::default()) }))
    }

    /// Wakes nobody: for tasklets under the simulated scheduler.
    pub fn silent() -> Self {
        Self(Arc::new(Shared { flag: ParkFlag::default(), bell: Bell::Silent }))
    }

    /// The flag, for the sleeper's side.
    pub fn flag(&self) -> &ParkFlag {
        &self.0.flag
    }

    /// Whether both handles wake the same sleeper.
    pub fn same(&self, other: &Waker) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Wakes the sleeper if it sleeps. Call after publishing the work.
    #[inline]
    pub fn wake(&self) {
        if self.0.flag.take() {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        match &self.0.bell {
            // A wake that fails means the poll is gone, and its thread with it.
            Bell::Poll(waker) => drop(waker.wake()),
            Bell::Thread(thread) => {
                let thread = thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if let Some(thread) = &*thread {
                    thread.unpark();
                }
            }
            Bell::Silent => {}
        }
    }

    /// Blocks the calling thread until a wake, unless `has_work` finds some first, for at most
    /// `timeout`. For handles from [`thread`](Self::thread).
    pub fn park(&self, timeout: Option<std::time::Duration>, mut has_work: impl FnMut() -> bool) {
        if let Bell::Thread(thread) = &self.0.bell {
            let mut thread = thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *thread = Some(std::thread::current());
        }
        self.0.flag.announce();
        if !has_work() {
            match timeout {
                Some(timeout) => std::thread::park_timeout(timeout),
                None => std::thread::park(),
            }
        }
        self.0.flag.retract();
    }
}
