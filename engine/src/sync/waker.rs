//! Parking and waking threads, with a wake-up only if the thread really sleeps.
//!
//! A consumer announces that it is about to block ([`ParkFlag::prepare_park`]), checks for work
//! once more, and blocks. A producer publishes its work and then calls [`ParkFlag::claim_wakeup`];
//! only if the flag is set does it pay for a wake-up (about 15 us on a virtual machine). Each side
//! has a full fence between its store and its load. So it cannot happen that the producer misses
//! the flag *and* the consumer misses the work. `engine/tests/loom.rs` checks this.
//!
//! *Threads.* Any thread may call `claim_wakeup`. If several threads call `prepare_park`, none may
//! call `cancel_park`.

use crate::sync::primitives::{Arc, AtomicBool, Ordering, fence};
use std::sync::{Mutex, MutexGuard};
use std::thread::{Thread, ThreadId};

/// The flag shared by a sleeping thread and its wakers.
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
    /// Announces that the thread is about to block. The thread must check for work once more after
    /// this.
    pub fn prepare_park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        // ORDERING: pairs with the fence in `claim_wakeup`. Either the waker's load sees this
        // store, or the sleeper's later look for work sees what the waker published before its
        // fence.
        fence(Ordering::SeqCst);
    }

    /// Withdraws the announcement: the thread is awake again, or found work after all.
    pub fn cancel_park(&self) {
        // ORDERING: relaxed is enough: a waker that still sees the flag sends one wake-up too
        // many, which costs time and no correctness.
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Called by a waker after publishing work. Returns whether the waker must wake the thread;
    /// true for at most one waker per announcement.
    pub fn claim_wakeup(&self) -> bool {
        // ORDERING: pairs with the fence in `prepare_park`.
        fence(Ordering::SeqCst);
        // ORDERING: the first load keeps the cache line shared while no thread sleeps; the swap
        // makes sure that only one of several wakers wakes the thread.
        self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed)
    }
}

/// The target of a wake-up: a worker's poll, or the thread or task that waited last.
#[derive(Debug)]
enum WakeTarget {
    Poll(mio::Waker),
    Caller(Mutex<Option<Caller>>),
    /// In simulation nothing sleeps, so nothing is woken.
    Silent,
}

/// The sleeper of a [`Waker`]: a thread that is parked in [`Waker::park`], or an async task that
/// [`Waker::register`] has stored.
#[derive(Debug)]
enum Caller {
    Thread(Thread),
    Task(std::task::Waker, ThreadId),
}

#[derive(Debug)]
struct Shared {
    flag: ParkFlag,
    bell: WakeTarget,
}

/// A handle by which any thread can wake one sleeper.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// Creates a waker for a worker that blocks in its poll.
    pub fn poll(waker: mio::Waker) -> Self {
        Self(Arc::new(Shared { flag: ParkFlag::default(), bell: WakeTarget::Poll(waker) }))
    }

    /// Creates a waker for the thread that calls [`park`](Self::park) on it, or for the async task
    /// that was [registered](Self::register) last.
    pub fn thread() -> Self {
        Self(Arc::new(Shared {
            flag: ParkFlag::default(),
            bell: WakeTarget::Caller(Mutex::default()),
        }))
    }

    /// Creates a waker without effect, for simulation.
    pub fn noop() -> Self {
        Self(Arc::new(Shared { flag: ParkFlag::default(), bell: WakeTarget::Silent }))
    }

    /// The flag with which the sleeper announces that it is about to block.
    pub fn flag(&self) -> &ParkFlag {
        &self.0.flag
    }

    /// Whether both handles wake the same sleeper.
    pub fn is_same(&self, other: &Waker) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Wakes the sleeper if it is asleep. Call this after publishing work.
    #[inline]
    pub fn wake(&self) {
        if self.0.flag.claim_wakeup() {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        match &self.0.bell {
            // If the wake fails, the poll and its thread have ended.
            WakeTarget::Poll(waker) => drop(waker.wake()),
            WakeTarget::Caller(caller) => {
                // The task is woken outside the lock, because an executor may run it immediately on
                // this thread.
                let task = match &*locked(caller) {
                    Some(Caller::Thread(thread)) => return thread.unpark(),
                    Some(Caller::Task(task, _)) => task.clone(),
                    None => return,
                };
                task.wake();
            }
            WakeTarget::Silent => {}
        }
    }

    /// Blocks the calling thread until a wake-up, at most for `timeout`; without one, for any time.
    /// Returns at once if `has_work` finds work, and may return without a wake-up. Only for handles
    /// from [`thread`](Self::thread).
    pub fn park(&self, timeout: Option<std::time::Duration>, mut has_work: impl FnMut() -> bool) {
        if let WakeTarget::Caller(caller) = &self.0.bell {
            *locked(caller) = Some(Caller::Thread(std::thread::current()));
        }
        self.0.flag.prepare_park();
        if !has_work() {
            match timeout {
                Some(timeout) => std::thread::park_timeout(timeout),
                None => std::thread::park(),
            }
        }
        self.0.flag.cancel_park();
    }

    /// Stores an async task for the next wake-up. Returns false if `has_work` finds work: then the
    /// task must not wait, because no wake-up may follow. Only for handles from
    /// [`thread`](Self::thread).
    pub fn register(&self, task: &std::task::Waker, has_work: impl FnOnce() -> bool) -> bool {
        if let WakeTarget::Caller(caller) = &self.0.bell {
            let mut caller = locked(caller);
            let thread = std::thread::current().id();
            *caller = match caller.take() {
                Some(Caller::Task(same, _)) if same.will_wake(task) => {
                    Some(Caller::Task(same, thread))
                }
                _ => Some(Caller::Task(task.clone(), thread)),
            };
        }
        self.0.flag.prepare_park();
        let waits = !has_work();
        if !waits {
            self.0.flag.cancel_park();
        }
        waits
    }

    /// The thread that last called [`park`](Self::park) or [`register`](Self::register). `None` if
    /// none has, and for handles that wake a poller or nobody.
    pub fn last_waiter(&self) -> Option<ThreadId> {
        match &self.0.bell {
            WakeTarget::Caller(caller) => locked(caller).as_ref().map(|caller| match caller {
                Caller::Thread(thread) => thread.id(),
                Caller::Task(_, thread) => *thread,
            }),
            WakeTarget::Poll(_) | WakeTarget::Silent => None,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Decides when the consumer of a bounded queue must notify producers that wait for space.
///
/// A notification costs the consumer a full fence, without which a waiting producer could be
/// missed. A drain that empties the queue does not need a notification each time: after a fence, a
/// producer can find the queue full again only after a whole capacity of pushes. So a consumer that
/// has popped less than that and finds the queue empty need not notify. A consumer that stops with
/// values left must always check.
///
/// *Threads.* The consumer's.
#[derive(Debug)]
pub struct SpaceNotifier {
    capacity: usize,
    /// Values popped since the last fence.
    popped: usize,
}

impl SpaceNotifier {
    /// A notifier for a queue of this capacity.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, popped: 0 }
    }

    /// Counts values whose slots have been released.
    #[inline]
    pub fn popped(&mut self, values: usize) {
        self.popped += values;
    }

    /// Returns whether a consumer that stops popping must call [`Waker::wake`] or
    /// [`ParkFlag::claim_wakeup`] for waiting producers: after a whole queue of pops, or if it has
    /// popped anything and stops with values left. `emptied`: the queue was found empty.
    #[inline]
    pub fn is_due(&mut self, emptied: bool) -> bool {
        let due = self.popped >= self.capacity || (!emptied && self.popped > 0);
        if due {
            self.popped = 0;
        }
        due
    }
}
