//! The simulated scheduler. It runs a job on one thread, and a seed picks the interleaving of
//! tasklet steps, driver ticks and clock movements. Timers are ignored: every tasklet is stepped
//! again and again.

use crate::env::SimEnv;
use crate::env::random::SplitMix;
use crate::epoch::driver::{Driver, Tick};
use crate::epoch::protocol::Report;
use crate::error::EngineError;
use crate::runtime::stage::Io;
use crate::runtime::tasklet::{Step, StepCx, Tasklet};
use crate::runtime::worker::guard;
use crate::sync::waker::Waker;
use crossbeam_channel::Receiver;

/// Steps after which a run counts as stuck.
const MAX_STEPS: u64 = 20_000_000;
/// The clock's longest jump, in nanoseconds.
const MAX_JUMP_NS: u64 = 3_000_000;

pub(crate) fn run(
    mut driver: Driver,
    mut tasklets: Vec<Box<dyn Tasklet>>,
    inbox: &Receiver<Report>,
    world: &SimEnv,
    seed: u64,
) -> Result<(), EngineError> {
    use crate::env::Env;
    let mut dice = SplitMix(seed);
    let (waker, mut next_token) = (Waker::noop(), 0);
    for tasklet in &mut tasklets {
        let mut io =
            Io { registry: None, waker: &waker, partitions: None, next_token: &mut next_token };
        guard(tasklet, |tasklet| tasklet.attach(&mut io))?;
    }
    for _ in 0..MAX_STEPS {
        // The driver is one more participant, and handles at most one report per turn.
        let pick = dice.below(tasklets.len() as u64 + 1) as usize;
        if pick == tasklets.len() {
            if let Tick::Finished(result) = driver.tick(world.now_ns()) {
                return result;
            }
            if let Ok(report) = inbox.try_recv() {
                driver.handle(report, world.now_ns());
            }
            world.advance(dice.below(MAX_JUMP_NS));
            continue;
        }
        let budget = 1 + dice.below(8) as usize;
        let mut cx = StepCx { env: world, budget, wake_at_ns: None };
        match guard(&mut tasklets[pick], |tasklet| tasklet.step(&mut cx)) {
            Ok(Step::Done) => drop(tasklets.swap_remove(pick)),
            Ok(Step::Progress | Step::Idle) => {}
            Err(error) => {
                drop(tasklets.swap_remove(pick));
                driver.handle(Report::Failed(error), world.now_ns());
            }
        }
    }
    Err(EngineError::Stuck { seed, steps: MAX_STEPS })
}
