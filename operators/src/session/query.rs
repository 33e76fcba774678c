//! A started query.

use super::Session;
use crate::connect::bad_records::BadRecord;
use crate::connect::socket_source::SourceCounters;
use crate::table::error::PlanError;
use millstream_engine::driver::Committed;
use millstream_engine::error::EngineError;
use millstream_engine::job::Running;
use millstream_engine::latency::{Latency, Percentiles};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A query that was refused, or that failed while running.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// Refused before it started.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Failed while it ran, or while its sources and sinks were opened.
    #[error("{0}")]
    Run(#[from] EngineError),
}

impl QueryError {
    /// The stable name of the condition.
    pub fn condition(&self) -> &str {
        match self {
            Self::Plan(error) => &error.condition,
            Self::Run(error) => error.condition(),
        }
    }
}

/// What a query has done so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The last committed epoch, if any has been.
    pub epoch: Option<u64>,
    /// Each source's position at its end.
    pub offsets: Vec<String>,
    /// How long it took to commit, in nanoseconds.
    pub epoch_duration_ns: u64,
    /// Records that socket sources have read.
    pub records_in: u64,
    /// Records that were set aside.
    pub bad_records: u64,
    /// The last few of them.
    pub last_bad: Vec<BadRecord>,
    /// Latency from ingest to sink, up to the last epoch; `count` is the number of rows out, of
    /// whole tables only the rows that had changed.
    pub latency: Percentiles,
}

/// Whether a query runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Running,
    /// It was stopped, or its sources have ended.
    Stopped,
    /// It failed.
    Failed,
}

/// A started query. Dropping it stops it at the next epoch.
pub struct StreamingQuery {
    pub(super) name: String,
    pub(super) session: Session,
    pub(super) running: Running,
    pub(super) latency: Latency,
    pub(super) last: Arc<Mutex<Option<Committed>>>,
    pub(super) counters: Vec<SourceCounters>,
}

impl StreamingQuery {
    /// Its name, unique among the session's active queries.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it runs.
    pub fn status(&self) -> Status {
        match self.running.outcome() {
            None => Status::Running,
            Some(Ok(())) => Status::Stopped,
            Some(Err(_)) => Status::Failed,
        }
    }

    /// The failure that ended it, if one did.
    pub fn exception(&self) -> Option<EngineError> {
        self.running.outcome().and_then(Result::err)
    }

    /// Blocks until all that was there at the call has been processed and committed.
    pub fn process_all_available(&self) -> Result<(), EngineError> {
        self.running.process_all_available()
    }

    /// Waits for its end; fails with what ended it.
    pub fn await_termination(&self) -> Result<(), EngineError> {
        self.running.wait(None).unwrap_or(Ok(()))
    }

    /// Waits for its end, at most so long; `None` if it still runs.
    pub fn await_termination_for(&self, timeout: Duration) -> Option<Result<(), EngineError>> {
        self.running.wait(Some(timeout))
    }

    /// Ends it at the next epoch and waits for that.
    pub fn stop(&self) -> Result<(), EngineError> {
        self.running.stop()
    }

    /// Asks for an end at the next epoch without waiting for it.
    pub fn request_stop(&self) {
        self.running.request_stop();
    }

    /// What it has done.
    pub fn last_progress(&self) -> Progress {
        let last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let mut progress = Progress { latency: self.latency.percentiles(), ..Progress::default() };
        if let Some(last) = last {
            progress.epoch = Some(last.epoch);
            progress.offsets = last.offsets.into_iter().map(|offset| offset.0).collect();
            progress.epoch_duration_ns = last.duration_ns;
        }
        for counters in &self.counters {
            // ORDERING: relaxed: a counter that nothing else depends on.
            progress.records_in += counters.records.load(Ordering::Relaxed);
            progress.bad_records += counters.bad.count();
            progress.last_bad.extend(counters.bad.last());
        }
        progress
    }

    /// Forgets the latencies recorded so far: the end of a warm-up.
    pub fn reset_latency(&self) {
        self.latency.reset();
    }
}

impl Drop for StreamingQuery {
    fn drop(&mut self) {
        self.session.lock().active.retain(|name| *name != self.name);
    }
}
