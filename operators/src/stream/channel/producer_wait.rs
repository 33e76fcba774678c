//! Producers (threads and tasks) that wait for free slots in a channel.

use millstream_engine::sync::waker::ParkFlag;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// The waiting producers, at most one per input.
#[derive(Default)]
pub(super) struct WaitingProducers {
    flag: ParkFlag,
    tasks: Mutex<HashMap<u64, Waker>>,
}

impl WaitingProducers {
    /// Registers a waker to be woken once. The caller must check for free slots once more after
    /// this.
    pub fn register(&self, input: u64, task: &Waker) {
        let mut tasks = self.tasks();
        tasks.insert(input, task.clone());
        // The flag is set while the lock is held, because a thread that claims the flag also takes
        // the entries.
        self.flag.prepare_park();
    }

    pub fn remove(&self, input: u64) {
        self.tasks().remove(&input);
    }

    /// Wakes all waiting producers. Call this after freeing slots. The call costs a fence if no
    /// producer waits.
    #[inline]
    pub fn wake(&self) {
        if self.flag.claim_wakeup() {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        let tasks = std::mem::take(&mut *self.tasks());
        tasks.into_values().for_each(Waker::wake);
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.tasks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A waiting thread, which can be woken like a task.
struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Creates a waker of the calling thread.
pub(super) fn this_thread() -> Waker {
    Waker::from(Arc::new(Sleeper(std::thread::current())))
}

/// Sleeps until this thread is woken or the deadline passes. Returns false if the deadline had
/// passed before the call.
pub(super) fn sleep(deadline: Option<Instant>) -> bool {
    let Some(deadline) = deadline else {
        std::thread::park();
        return true;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left > Duration::ZERO {
        std::thread::park_timeout(left);
    }
    left > Duration::ZERO
}
