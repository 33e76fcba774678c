//! Which sources of a query are open, so that other threads can wait until some of them have ended.
//!
//! *Threads.* The driver's thread writes; any thread may wait. The lock is held only to copy a few
//! flags, and waiting threads are woken only when a flag changes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Debug)]
struct Shared {
    /// For each source, in the order of the checkpoint's offsets, whether it may still have data.
    open: Mutex<Vec<bool>>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<bool>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Which sources may still have data. Clones share the flags.
#[derive(Clone, Debug)]
pub(crate) struct OpenSources(Arc<Shared>);

impl OpenSources {
    /// Creates the flags of this number of sources, all of them open.
    pub fn new(sources: usize) -> Self {
        let open = Mutex::new(vec![true; sources]);
        Self(Arc::new(Shared { open, changed: Condvar::new() }))
    }

    /// Sets whether each source is open.
    pub fn set(&self, open: impl Iterator<Item = bool>) {
        let mut flags = self.0.lock();
        let mut is_new = false;
        for (flag, open) in flags.iter_mut().zip(open) {
            is_new |= *flag != open;
            *flag = open;
        }
        if is_new {
            self.0.changed.notify_all();
        }
    }

    /// Closes all sources, because the query has ended.
    pub fn close(&self) {
        self.0.lock().fill(false);
        self.0.changed.notify_all();
    }

    /// Waits until none of the given sources is open, at most for `timeout`. Returns whether none
    /// is. An index without a source counts as closed.
    pub fn wait(&self, sources: &[usize], timeout: Duration) -> bool {
        let are_open = |open: &[bool]| sources.iter().any(|at| open.get(*at) == Some(&true));
        let guard = self.0.lock();
        let waited = self.0.changed.wait_timeout_while(guard, timeout, |open| are_open(open));
        let (open, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        !are_open(&open)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_wait_is_for_the_named_sources_only() {
        let sources = OpenSources::new(3);
        assert!(!sources.wait(&[1], Duration::ZERO));
        assert!(sources.wait(&[], Duration::ZERO));
        assert!(sources.wait(&[3], Duration::ZERO));
        sources.set([true, false, true].into_iter());
        assert!(sources.wait(&[1], Duration::ZERO));
        assert!(!sources.wait(&[1, 2], Duration::ZERO), "the end of another source is not enough");
    }

    #[test]
    fn a_waiting_thread_is_woken_by_the_end_of_its_source_and_of_the_query() {
        for ends_query in [false, true] {
            let sources = OpenSources::new(2);
            let started = Instant::now();
            let waited = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| sources.wait(&[0], LONG));
                match ends_query {
                    true => sources.close(),
                    false => sources.set([false, true].into_iter()),
                }
                waiting.join()
            });
            assert!(waited.unwrap());
            // Without a wake-up it returns only after the time limit.
            assert!(started.elapsed() < LONG, "ends_query {ends_query}");
        }
    }
}
