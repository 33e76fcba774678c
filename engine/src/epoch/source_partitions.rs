//! The partitions of a source that one tasklet reads, as the watermark stage of its chain sees them.
//!
//! A tasklet that reads several partitions emits their records in the order of arrival. If one
//! partition is behind, for example because its records are fetched later, its records are not late:
//! the watermark is that of the slowest partition. The source names the partition of each record
//! before it pushes the record, and tells which partitions are idle.
//!
//! *Threads.* The worker's, after the chain is attached. Source and stage are in one tasklet.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct Inner {
    /// The partition of the record that is pushed next.
    current: AtomicUsize,
    /// The number of changes of `idle`.
    changes: AtomicU64,
    /// Whether each partition is idle.
    idle: Mutex<Vec<bool>>,
}

/// A handle to the partitions. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct SourcePartitions(Arc<Inner>);

impl SourcePartitions {
    // ORDERING: relaxed: one thread uses both ends. Atomics make the handle `Send` without a lock
    // per record.

    /// Sets the partition of the next record.
    #[inline]
    pub fn set_current(&self, partition: usize) {
        self.0.current.store(partition, Ordering::Relaxed);
    }

    /// The partition of the record that is being pushed.
    #[inline]
    pub fn current(&self) -> usize {
        self.0.current.load(Ordering::Relaxed)
    }

    /// Replaces the list of partitions; the values tell whether each is idle. Call this only when
    /// something has changed.
    pub fn set_idle(&self, idle: impl IntoIterator<Item = bool>) {
        let mut own = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        own.clear();
        own.extend(idle);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of calls of [`set_idle`](Self::set_idle).
    #[inline]
    pub fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Relaxed)
    }

    /// Copies whether each partition is idle.
    pub fn copy_idle(&self, into: &mut Vec<bool>) {
        into.clone_from(&self.0.idle.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
