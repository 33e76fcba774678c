//! Tells an empty result from an unchanged one, in output mode complete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set in each epoch in which an aggregation emits its whole result in mode complete. In continuous
/// mode an unchanged result is not always emitted again. So a sink that got no rows in an epoch uses
/// the signal to tell an empty result from an unchanged one. Clones share the signal.
#[derive(Clone, Debug, Default)]
pub struct TableSignal(Arc<AtomicBool>);

// ORDERING: relaxed: the sink asks when it has the marker of the epoch, which the aggregation passes
// on after it has set the signal: on the same thread, or through a ring. The next epoch begins only
// after the sink has acknowledged this one.
impl TableSignal {
    /// Records that the whole result of the epoch is emitted.
    pub(in crate::table::physical) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether the whole result was emitted since the last call. Call this at the marker.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}
