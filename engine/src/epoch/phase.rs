//! The phase of the driver: what it is doing now, readable from other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What the driver is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The driver has not started yet. A batch of an earlier run that runs again also shows this
    /// phase, until its first report.
    Starting,
    /// Waiting for the next trigger or for data. In continuous mode records flow meanwhile, and
    /// epochs are committed.
    Waiting,
    /// Asking the sources how far they can read.
    Planning,
    /// A batch is being processed or committed.
    Processing,
    /// The sources have been told to end.
    Ending,
}

/// The driver's phase, readable from other threads.
#[derive(Clone, Debug, Default)]
pub struct PhaseCell(Arc<AtomicU8>);

impl PhaseCell {
    pub(super) fn set(&self, phase: Phase) {
        // ORDERING: relaxed: the phase is only displayed; nothing else depends on it.
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    /// Returns the current phase.
    pub fn get(&self) -> Phase {
        let phases =
            [Phase::Starting, Phase::Waiting, Phase::Planning, Phase::Processing, Phase::Ending];
        // ORDERING: relaxed: the phase is only displayed; nothing else depends on it.
        phases[usize::from(self.0.load(Ordering::Relaxed)).min(phases.len() - 1)]
    }
}
