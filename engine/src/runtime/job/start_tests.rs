//! Tests that a job which cannot be started leaves nothing behind.

use super::*;
use crate::env::storage::Storage;
use crate::runtime::stage::Io;
use crate::runtime::tasklet::{Step, StepCx};
use std::sync::atomic::AtomicUsize;

/// The real environment, in which only the first threads can be started.
struct FewThreads {
    real: RealEnv,
    left: AtomicUsize,
    running: Arc<AtomicUsize>,
}

impl Env for FewThreads {
    fn now_ns(&self) -> u64 {
        self.real.now_ns()
    }
    fn wall_us(&self) -> i64 {
        self.real.wall_us()
    }
    fn random(&self) -> u64 {
        self.real.random()
    }
    fn storage(&self) -> &dyn Storage {
        self.real.storage()
    }
    fn create_poller(&self) -> Result<(Option<mio::Poll>, Waker), EngineError> {
        self.real.create_poller()
    }
    fn spawn(
        &self,
        name: String,
        run: Box<dyn FnOnce() + Send>,
    ) -> Result<JoinHandle<()>, EngineError> {
        if self.left.load(Ordering::SeqCst) == 0 {
            let error = std::io::Error::from(std::io::ErrorKind::WouldBlock);
            return Err(EngineError::runtime("start a thread", error));
        }
        self.left.fetch_sub(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = self.running.clone();
        let body = move || {
            run();
            running.fetch_sub(1, Ordering::SeqCst);
        };
        self.real.spawn(name, Box::new(body))
    }
}

/// A tasklet that never ends. `busy`: it always makes progress, so its worker never sleeps.
struct Endless {
    busy: bool,
}

impl Tasklet for Endless {
    fn name(&self) -> &str {
        "endless"
    }
    fn attach(&mut self, _io: &mut Io<'_>) -> Result<(), EngineError> {
        Ok(())
    }
    fn step(&mut self, _cx: &mut StepCx<'_>) -> Result<Step, EngineError> {
        Ok(if self.busy { Step::Progress } else { Step::Idle })
    }
}

#[test]
fn a_job_whose_threads_cannot_all_be_started_ends_the_started_ones() {
    for busy in [true, false] {
        for most in 0..3 {
            let running = Arc::new(AtomicUsize::new(0));
            let left = AtomicUsize::new(most);
            let env = FewThreads { real: RealEnv::default(), left, running: running.clone() };
            let config =
                Config { workers: 2, pin: false, wait: WaitProfile::Park, ..Config::default() };
            let mut job = Job::in_env("few", config, Arc::new(env)).unwrap();
            (0..2).for_each(|worker| job.add_tasklet(worker, Box::new(Endless { busy })));
            assert!(job.start().is_err(), "{most} threads");
            assert_eq!(running.load(Ordering::SeqCst), 0, "{most} threads were started");
        }
    }
}
