//! The scripts that a session runs: how far their statements have read, and their cancellation.
//!
//! Each script has a token. The session handle of its statements, and of the DataFrames that it
//! shows, carries the token. Therefore queries of other handles are neither counted nor cancelled.

use crate::connect::source_counters::SourceCounters;
use crate::session::Session;
use crate::session::dataframe::DataFrame;
use crate::session::streaming_query::QueryError;
use crate::table::plan::limits::on_large_stack;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::RunningJob;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How often a waiting statement checks whether it is cancelled.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a script shares with its jobs, and with the session that cancels it.
#[derive(Default)]
pub(super) struct ScriptToken {
    cancelled: AtomicBool,
    records: Mutex<Records>,
}

/// The records that the sources of the current statement have read.
#[derive(Default)]
struct Records {
    /// The records of the jobs that have ended.
    of_ended: u64,
    /// The counters of the jobs that run.
    running: Vec<SourceCounters>,
}

fn read(counters: &SourceCounters) -> u64 {
    // ORDERING: relaxed: each count is shown alone.
    counters.records.load(Ordering::Relaxed)
}

impl ScriptToken {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is_cancelled(&self) -> bool {
        // ORDERING: relaxed: the flag is polled, and nothing else depends on it.
        self.cancelled.load(Ordering::Relaxed)
    }

    fn set_cancelled(&self, cancelled: bool) {
        // ORDERING: relaxed: see `is_cancelled`.
        self.cancelled.store(cancelled, Ordering::Relaxed);
    }

    /// Starts to count the records of a job's sources.
    fn count(&self, sources: &[SourceCounters]) {
        self.records().running.extend_from_slice(sources);
    }

    /// Keeps the number of records of a job that has ended, without its counters. A statement may
    /// run any number of jobs, because a table is loaded again when it changes.
    fn add_ended(&self, sources: &[SourceCounters]) {
        let mut records = self.records();
        for ended in sources {
            let is_it = |other: &SourceCounters| Arc::ptr_eq(&other.records, &ended.records);
            // A job of an earlier statement is no longer counted.
            if let Some(at) = records.running.iter().position(is_it) {
                records.running.swap_remove(at);
                records.of_ended += read(ended);
            }
        }
    }

    fn total(&self) -> u64 {
        let records = self.records();
        records.of_ended + records.running.iter().map(read).sum::<u64>()
    }
}

fn cancelled() -> EngineError {
    EngineError::operator("OPERATION_CANCELED", "the statement was cancelled", "")
}

/// A script that has begun. [`Session::cancel_script`] also cancels it before it
/// [runs](Self::run). It ends when it has run or is dropped.
pub struct Script {
    /// A handle of the session that carries the token of this script.
    session: Session,
    token: Arc<ScriptToken>,
}

impl Script {
    /// Executes the statements: see [`Session::script`].
    pub fn run(
        self,
        text: &str,
        show: &mut dyn FnMut(DataFrame) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        // A single stack is used for all statements.
        on_large_stack(|| self.session.statements(text, show))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.session.lock().scripts.retain(|other| !Arc::ptr_eq(other, &self.token));
        // DataFrames that the script has shown may be used after its end.
        self.token.set_cancelled(false);
    }
}

impl Session {
    /// Begins a script, so that it can be cancelled from now on.
    pub fn begin_script(&self) -> Script {
        let token = Arc::new(ScriptToken::default());
        self.lock().scripts.push(token.clone());
        Script { session: Self { script: Some(token.clone()), ..self.clone() }, token }
    }

    /// Cancels the scripts of this session that have begun, from another thread: the current
    /// statement and the script fail with `OPERATION_CANCELED`, unless it ends first. Statements
    /// without a job are not interrupted. Has no effect on later scripts and on queries outside of
    /// scripts.
    pub fn cancel_script(&self) {
        self.lock().scripts.iter().for_each(|script| script.set_cancelled(true));
    }

    /// The number of records that the sources of the running statements of scripts have read. A
    /// source that does not count while it reads counts as 0.
    pub fn statement_records(&self) -> u64 {
        self.lock().scripts.iter().map(|script| script.total()).sum()
    }

    /// Starts to count the records of the script's next statement. Fails if the script is
    /// cancelled.
    pub(super) fn begin_statement(&self) -> Result<(), EngineError> {
        let Some(script) = &self.script else { return Ok(()) };
        *script.records() = Records::default();
        if script.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Waits for the end of a job. If it belongs to a script, counts the records of its `sources`
    /// meanwhile, and aborts the job when the script is cancelled. `stopping` tells the job's sink to
    /// wait no longer for its receiver.
    pub(super) fn wait_for(
        &self,
        job: &RunningJob,
        sources: &[SourceCounters],
        stopping: &AtomicBool,
    ) -> Result<(), EngineError> {
        let Some(script) = &self.script else { return job.wait(None).unwrap_or(Ok(())) };
        script.count(sources);
        let outcome = loop {
            if let Some(outcome) = job.wait(Some(LOOK_AGAIN)) {
                break outcome;
            }
            if script.is_cancelled() {
                // ORDERING: relaxed: the sink polls the flag, and nothing else depends on it.
                stopping.store(true, Ordering::Relaxed);
                job.abort(cancelled());
                break job.wait(None).unwrap_or(Ok(()));
            }
        };
        script.add_ended(sources);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_a_job_are_kept_only_while_it_runs() {
        let script = ScriptToken::default();
        let first = SourceCounters::default();
        script.count(std::slice::from_ref(&first));
        for _ in 0..1000 {
            let reload = [SourceCounters::default(), SourceCounters::default()];
            script.count(&reload);
            reload[0].records.fetch_add(2, Ordering::Relaxed);
            script.add_ended(&reload);
        }
        first.records.fetch_add(5, Ordering::Relaxed);
        assert_eq!(script.total(), 2005);
        assert_eq!(script.records().running.len(), 1);
        *script.records() = Records::default();
        script.add_ended(&[first]);
        assert_eq!(script.total(), 0, "a job of an earlier statement");
    }
}
