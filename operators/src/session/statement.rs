//! The statement that a script runs: how far its sources have read, and its cancellation.

use crate::connect::source_counters::SourceCounters;
use crate::session::Session;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::RunningJob;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a waiting statement checks whether it is cancelled.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The statement that a script of the session runs.
#[derive(Clone, Default)]
pub(super) struct RunningStatement {
    /// Whether a script is running.
    is_running: bool,
    /// Whether the script is to end. Shared with the sessions in which parts of a statement run.
    cancelled: Arc<AtomicBool>,
    /// The counters of the sources that the statement has opened.
    sources: Vec<SourceCounters>,
}

fn cancelled() -> EngineError {
    EngineError::operator("OPERATION_CANCELED", "the statement was cancelled", "")
}

impl RunningStatement {
    /// A statement in another session, which is cancelled together with this one.
    pub(super) fn part(&self) -> Self {
        Self { cancelled: self.cancelled.clone(), ..Self::default() }
    }
}

impl Session {
    /// Cancels the script that [`script`](Self::script) is running, from another thread: its
    /// current statement and the script fail with `OPERATION_CANCELED`. Has no effect on later
    /// scripts.
    pub fn cancel_script(&self) {
        // ORDERING: relaxed: nothing else depends on the flag, which is polled.
        self.lock().statement.cancelled.store(true, Ordering::Relaxed);
    }

    /// The number of records that the sources of the running statement of a script have read. A
    /// source that does not count while it reads counts as 0.
    pub fn statement_records(&self) -> u64 {
        let of = |counters: &SourceCounters| counters.records.load(Ordering::Relaxed);
        // ORDERING: relaxed: each count is shown alone.
        self.lock().statement.sources.iter().map(of).sum()
    }

    pub(super) fn begin_script(&self) {
        let mut inner = self.lock();
        inner.statement.is_running = true;
        inner.statement.cancelled.store(false, Ordering::Relaxed);
    }

    pub(super) fn end_script(&self) {
        let mut inner = self.lock();
        inner.statement.is_running = false;
        inner.statement.sources.clear();
        inner.statement.cancelled.store(false, Ordering::Relaxed);
    }

    /// Starts to count the records of the next statement. Fails if the script is cancelled.
    pub(super) fn begin_statement(&self) -> Result<(), EngineError> {
        let mut inner = self.lock();
        inner.statement.sources.clear();
        match inner.statement.cancelled.load(Ordering::Relaxed) {
            true => Err(cancelled()),
            false => Ok(()),
        }
    }

    /// Counts the records of these sources as read by the running statement, if there is one.
    pub(super) fn count_sources(&self, sources: &[SourceCounters]) {
        let mut inner = self.lock();
        if inner.statement.is_running {
            inner.statement.sources.extend_from_slice(sources);
        }
    }

    /// Waits for the end of a job of the running statement. Aborts the job if the script is
    /// cancelled. `stopping` tells the job's sink to wait no longer for its receiver.
    pub(super) fn wait_for(
        &self,
        job: &RunningJob,
        stopping: &AtomicBool,
    ) -> Result<(), EngineError> {
        let flag = self.lock().statement.cancelled.clone();
        loop {
            if let Some(outcome) = job.wait(Some(LOOK_AGAIN)) {
                return outcome;
            }
            if flag.load(Ordering::Relaxed) {
                stopping.store(true, Ordering::Relaxed);
                job.abort(cancelled());
                return job.wait(None).unwrap_or(Ok(()));
            }
        }
    }
}
