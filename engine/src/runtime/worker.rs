//! A worker: a thread that steps its tasklets round robin. When none makes progress it spins or
//! sleeps, according to its [`WaitProfile`].

use crate::cores::{self, Core};
use crate::env::Env;
use crate::epoch::protocol::Report;
use crate::error::EngineError;
use crate::measure::stall;
use crate::runtime::stage::Io;
use crate::runtime::tasklet::{Step, StepCx, Tasklet};
use crate::sync::waker::Waker;
use crossbeam_channel::Sender;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How a worker waits when no tasklet makes progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitProfile {
    /// Never sleeps: lowest latency, a whole core per worker.
    Spin,
    /// Spins for 60 us without progress, then sleeps.
    #[default]
    Balanced,
    /// Sleeps at once: least CPU.
    Park,
}

impl WaitProfile {
    fn spin_ns(self) -> u64 {
        match self {
            Self::Spin => u64::MAX,
            Self::Balanced => 60_000,
            Self::Park => 0,
        }
    }
}

/// Maximum number of records and control events that a tasklet takes in one step.
pub const STEP_BUDGET: usize = 256;
/// Maximum number of events that one poll returns.
const POLL_EVENTS: usize = 64;

/// When a worker reads the clock for the stall recorder: once per round, or once per eight rounds
/// if the last ones were so short that eight stay below the length of a recorded round.
#[derive(Default)]
struct ClockSampler {
    last_ns: u64,
    /// Rounds between two clock reads, and how many of them are left.
    rounds: u64,
    left: u64,
}

impl ClockSampler {
    /// Maximum number of rounds between two clock reads.
    const MOST: u64 = 8;

    #[inline]
    fn is_due(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    #[inline]
    fn looked(&mut self, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(std::mem::replace(&mut self.last_ns, now_ns));
        let is_quick = took_ns * Self::MOST < stall::LONG_NS * self.rounds;
        self.rounds = if is_quick { Self::MOST } else { 1 };
        self.left = self.rounds;
    }
}

/// The flags that tell a job's workers that the job ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndFlags {
    /// Set when the driver has ended: the worker stops without further work.
    pub halt: Arc<AtomicBool>,
    /// Set when a stop is requested. The current epoch is still completed.
    pub stopping: Arc<AtomicBool>,
}

thread_local! {
    /// The flags of the worker on this thread.
    static FLAGS: RefCell<Option<EndFlags>> = const { RefCell::new(None) };
}

/// Fails if the worker on this thread is to halt, because its job has ended. An operator that makes
/// many rows of one calls this from time to time: a worker looks at the flag only between steps.
pub fn check_running() -> Result<(), EngineError> {
    // ORDERING: relaxed: see `Worker::run_tasklets`.
    let halts = |flags: &EndFlags| flags.halt.load(Ordering::Relaxed);
    match FLAGS.with_borrow(|flags| flags.as_ref().is_some_and(halts)) {
        true => Err(EngineError::operator("OPERATION_CANCELED", "the job has ended", "")),
        false => Ok(()),
    }
}

/// Whether the job of the worker on this thread was asked to stop. The job still completes its epoch,
/// so only an operator that waits for another system checks this, and fails instead of waiting on.
pub fn is_stopping() -> bool {
    // ORDERING: relaxed: the flag carries no data.
    let stops = |flags: &EndFlags| flags.stopping.load(Ordering::Relaxed);
    FLAGS.with_borrow(|flags| flags.as_ref().is_some_and(stops))
}

/// Whether this thread is a worker of a job.
pub fn is_worker() -> bool {
    FLAGS.with_borrow(Option::is_some)
}

/// The state of a worker thread.
pub(crate) struct Worker {
    pub tasklets: Vec<Box<dyn Tasklet>>,
    pub poll: Option<mio::Poll>,
    pub waker: Waker,
    pub core: Option<Core>,
    pub wait: WaitProfile,
    /// Whether the worker records why slow records were slow.
    pub record_stalls: bool,
    pub env: Arc<dyn Env>,
    pub reports: Sender<Report>,
    pub flags: EndFlags,
}

impl Worker {
    /// The body of the thread. Runs until every tasklet is done, a tasklet or a system call has
    /// failed, or the driver has ended.
    pub fn run(mut self) {
        if let Some(core) = self.core {
            // Without the core the worker may be slower, but its results are the same.
            cores::pin(core);
        }
        FLAGS.set(Some(self.flags.clone()));
        let outcome = self.attach().and_then(|()| self.run_tasklets());
        if let Err(error) = outcome {
            drop(self.reports.send(Report::Failed(error)));
        }
    }

    fn attach(&mut self) -> Result<(), EngineError> {
        let mut next_token = 0;
        for tasklet in &mut self.tasklets {
            let mut io = Io {
                registry: self.poll.as_ref().map(mio::Poll::registry),
                waker: &self.waker,
                partitions: None,
                next_token: &mut next_token,
            };
            guard(tasklet, |tasklet| tasklet.attach(&mut io))?;
        }
        Ok(())
    }

    fn run_tasklets(&mut self) -> Result<(), EngineError> {
        let mut events = mio::Events::with_capacity(POLL_EVENTS);
        let (mut idle_since_ns, mut glances) = (None, ClockSampler::default());
        if self.record_stalls {
            let now_ns = self.env.now_ns();
            stall::install_recorder(now_ns);
            glances.last_ns = now_ns;
        }
        // ORDERING: relaxed: the flag carries no data, and the waker makes a sleeper check it
        // again.
        while !self.tasklets.is_empty() && !self.flags.halt.load(Ordering::Relaxed) {
            let began_ns = (self.record_stalls && glances.is_due()).then(|| self.env.now_ns());
            if let Some(now_ns) = began_ns {
                glances.looked(now_ns);
                stall::begin_round(now_ns);
            }
            let (progress, _) = self.round()?;
            if progress {
                idle_since_ns = None;
                continue;
            }
            let now_ns = began_ns.unwrap_or_else(|| self.env.now_ns());
            let since_ns = *idle_since_ns.get_or_insert(now_ns);
            if now_ns - since_ns < self.wait.spin_ns() {
                std::hint::spin_loop();
                continue;
            }
            self.sleep(&mut events)?;
            idle_since_ns = None;
        }
        Ok(())
    }

    /// Steps every tasklet once. Returns whether any made progress, and the earliest time at which
    /// one must be stepped without a wake-up.
    fn round(&mut self) -> Result<(bool, Option<u64>), EngineError> {
        let mut cx = StepCx { env: &*self.env, budget: STEP_BUDGET, wake_at_ns: None };
        let (mut progress, mut index) = (false, 0);
        while index < self.tasklets.len() {
            match guard(&mut self.tasklets[index], |tasklet| tasklet.step(&mut cx))? {
                Step::Progress => progress = true,
                Step::Idle => {}
                Step::Done => {
                    progress = true;
                    drop(self.tasklets.remove(index));
                    continue;
                }
            }
            index += 1;
        }
        Ok((progress, cx.wake_at_ns))
    }

    fn sleep(&mut self, events: &mut mio::Events) -> Result<(), EngineError> {
        self.waker.flag().prepare_park();
        // Checks for work once more, now that producers can see the announcement.
        let (progress, wake_at_ns) = self.round()?;
        if !progress && !self.flags.halt.load(Ordering::Relaxed) {
            let is_timed = self.record_stalls || wake_at_ns.is_some();
            let now_ns = if is_timed { self.env.now_ns() } else { 0 };
            let timeout =
                wake_at_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(now_ns)));
            if let Some(poll) = &mut self.poll {
                if self.record_stalls {
                    stall::before_sleep(now_ns);
                }
                match poll.poll(events, timeout) {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(EngineError::runtime("wait for sockets", e)),
                }
                if self.record_stalls {
                    stall::after_sleep(now_ns, self.env.now_ns());
                }
            }
        }
        self.waker.flag().cancel_park();
        Ok(())
    }
}

/// Runs a tasklet's code. A panic becomes an error that ends the query.
pub(crate) fn guard<R>(
    tasklet: &mut Box<dyn Tasklet>,
    run: impl FnOnce(&mut Box<dyn Tasklet>) -> Result<R, EngineError>,
) -> Result<R, EngineError> {
    // A tasklet that panicked is never stepped again, so its broken state is never used.
    catch_unwind(AssertUnwindSafe(|| run(tasklet))).unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        Err(EngineError::Panic { tasklet: tasklet.name().to_string(), message })
    })
}

/// Returns the message of a panic; `no message` if it is not a text.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The number of clock reads over `rounds` rounds that take `round_ns` each.
    fn looks(rounds: u64, round_ns: u64) -> u64 {
        let mut glances = ClockSampler::default();
        let due = |round: &u64| {
            let is_due = glances.is_due();
            if is_due {
                glances.looked(round * round_ns);
            }
            is_due
        };
        (0..rounds).filter(due).count() as u64
    }

    #[test]
    fn short_rounds_are_measured_together() {
        assert_eq!(looks(8_000, stall::LONG_NS), 8_000);
        assert_eq!(looks(8_000, stall::LONG_NS / 8), 8_000, "eight of them would be a long one");
        assert_eq!(looks(8_000, 1_000), 1_001);
    }

    #[test]
    fn after_a_long_round_the_clock_is_read_every_round() {
        let mut glances = ClockSampler::default();
        let mut now_ns = 0;
        let mut round = |took_ns: u64| {
            now_ns += took_ns;
            let is_due = glances.is_due();
            if is_due {
                glances.looked(now_ns);
            }
            is_due
        };
        let due: Vec<_> = (0..10).map(|_| round(1_000)).collect();
        assert_eq!(due.iter().filter(|due| **due).count(), 3, "the first two, and one of eight");
        let (mut long, mut rounds) = (false, 0);
        while !std::mem::replace(&mut long, round(100_000)) {
            rounds += 1;
        }
        assert!(rounds <= 8 && round(100_000) && round(1_000), "{rounds}");
    }
}
