//! Tasklets: the units that a worker steps. A step does a bounded amount of work without blocking
//! and reports whether it made progress.
//!
//! There are two kinds. A [`SourceTasklet`] drives a chain from a source. An [`InboxTasklet`]
//! drives a chain from the rings of other tasklets and aligns their markers.

mod inbox_tasklet;
mod marker_ack;
mod marker_alignment;
mod source_tasklet;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::env::Env;
use crate::epoch::protocol::Report;
use crate::error::EngineError;
use crate::runtime::stage::Io;
pub use crate::runtime::tasklet::inbox_tasklet::InboxTasklet;
pub use crate::runtime::tasklet::source_tasklet::{Polled, Source, SourcePort, SourceTasklet};
use crossbeam_channel::Sender;

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The step made progress; there may be more work.
    Progress,
    /// There is no work until a wake-up or the time in [`StepCx::wake_at_ns`].
    Idle,
    /// The tasklet has ended and must not be stepped again.
    Done,
}

/// Minimum pause before a blocked chain is stepped for its timer, in nanoseconds. A wake-up steps
/// it sooner.
const BLOCKED_PAUSE_NS: u64 = 10_000_000;

/// The context of a step.
pub struct StepCx<'a> {
    /// The environment, with clock and randomness.
    pub env: &'a dyn Env,
    /// Maximum number of records and control events to take.
    pub budget: usize,
    /// The earliest time at which a tasklet must be stepped even without a wake-up, in nanoseconds.
    pub wake_at_ns: Option<u64>,
}

impl StepCx<'_> {
    /// Requests a step at this time, in nanoseconds, even if nothing else happens.
    pub fn wake_at(&mut self, at_ns: u64) {
        self.wake_at_ns = Some(self.wake_at_ns.map_or(at_ns, |other| other.min(at_ns)));
    }

    /// Requests a step for a blocked chain with a timer. An expired timer may itself be blocked by
    /// a full ring, so the step comes after a pause at the earliest.
    fn wake_while_blocked(&mut self, timer_ns: Option<u64>) {
        if let Some(at_ns) = timer_ns {
            self.wake_at(at_ns.max(self.env.now_ns() + BLOCKED_PAUSE_NS));
        }
    }
}

/// A unit of scheduling: a piece of a job that one worker steps.
pub trait Tasklet: Send {
    /// The name shown in errors and `explain`.
    fn name(&self) -> &str;
    /// Called once on the worker's thread, before the first step.
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError>;
    /// Does a bounded amount of work without blocking.
    fn step(&mut self, cx: &mut StepCx<'_>) -> Result<Step, EngineError>;
}

/// A tasklet's connection to the driver.
pub struct TaskletPort {
    pub(crate) id: usize,
    pub(crate) reports: Sender<Report>,
}
