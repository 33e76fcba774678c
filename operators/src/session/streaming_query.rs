//! A running query.

use crate::connect::bad_records::BadRecord;
use crate::connect::socket::connection_counts::ConnectionTotals;
use crate::connect::source_counters::SourceCounters;
use crate::session::Session;
use crate::session::progress::{Progress, Recent};
use crate::table::error::PlanError;
use millstream_engine::epoch::phase::Phase;
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::measure::latency::{Latency, Percentiles};
use millstream_engine::measure::stall::Stall;
use millstream_engine::runtime::job::RunningJob;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// An error of a query that was rejected, or that failed while running.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query was rejected before it started.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The query failed while it ran, or while its sources and sink were opened.
    #[error("{0}")]
    Run(#[from] EngineError),
}

impl QueryError {
    /// The stable name of the error condition.
    pub fn condition(&self) -> &str {
        match self {
            Self::Plan(error) => &error.condition,
            Self::Run(error) => error.condition(),
        }
    }
}

impl From<QueryError> for EngineError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Plan(error) => error.into(),
            QueryError::Run(error) => error,
        }
    }
}

/// Totals of the current run of a query.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Totals {
    /// The last committed epoch; `None` before the first.
    pub epoch: Option<u64>,
    /// The number of committed epochs.
    pub epochs: u64,
    /// The number of records read: from sockets, files and captures up to now, from other sources
    /// up to the last epoch.
    pub records_in: u64,
    /// The number of bad records that produced no row.
    pub bad_records: u64,
    /// The number of bad records that produced a row, with NULL for the fields that could not be
    /// read.
    pub permissive_records: u64,
    /// The most recent bad records of both kinds.
    pub last_bad_records: Vec<BadRecord>,
    /// The number of paths that file sources skipped and reported, such as broken links: at most
    /// 10,000 per source.
    pub skipped_paths: u64,
    /// The number of rows dropped because their event time was too far ahead of the clock, up to
    /// the last epoch.
    pub ahead: u64,
    /// The number of rows that stateful operators dropped as late, up to the last epoch.
    pub late: u64,
    /// The stateful operators with rows that are emitted only when the watermark has passed them, as
    /// of the last epoch.
    pub waiting: Vec<WaitingRows>,
    /// The connections of the socket sources; `None` if there are none.
    pub connections: Option<ConnectionTotals>,
    /// The number of rows emitted up to the last epoch.
    pub rows_emitted: u64,
    /// The latency from ingest to sink. It excludes rows of closed windows, which the watermark
    /// releases and not a record.
    pub latency: Percentiles,
    /// Up to three of the slowest rows up to the last epoch and the causes of their delay, slowest
    /// first. Each took more than 100 us, and no two are from the same epoch and sink.
    pub slowest: Vec<Stall>,
}

/// Rows in the state of an operator that wait for the watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingRows {
    /// The operator, as in progress reports.
    pub operator: String,
    /// The number of groups or windows of an aggregation, or of the buffered rows of a join; the
    /// latter includes rows that had a match, which are not emitted again.
    pub rows: u64,
    /// Whether the operator is a join.
    pub is_join: bool,
    /// The watermark of the last epoch, in milliseconds since 1970.
    pub watermark_ms: i64,
}

fn waiting(last: &Progress, releases_by_watermark: &[bool]) -> Vec<WaitingRows> {
    let operators = last.operators.iter().zip(&last.committed.state).zip(releases_by_watermark);
    let waiting = operators.filter(|((_, state), releases)| **releases && state.rows > 0);
    let waiting = waiting.map(|((operator, state), _)| WaitingRows {
        operator: operator.clone(),
        rows: state.rows,
        is_join: state.join.is_some(),
        watermark_ms: last.committed.watermark_ms,
    });
    waiting.collect()
}

/// The state of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunState {
    /// The query is running.
    Running,
    /// The query has ended without an error, for example because it was stopped.
    Stopped,
    /// The query has failed.
    Failed,
}

/// The activity of a query, with the fields of Spark's `StreamingQueryStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// A description such as `Waiting for data to arrive`.
    pub message: String,
    /// Whether there was data at the last check: in the current batch or, in continuous mode, in
    /// the last epoch.
    pub is_data_available: bool,
    /// Whether a batch is running; always false in continuous mode.
    pub is_trigger_active: bool,
}

/// State that the driver's thread shares with the query's handle.
#[derive(Default)]
pub(super) struct DriverState {
    pub watermark_ms: Option<i64>,
    pub recent: Recent,
    pub epochs: u64,
    /// The number of records of each source in committed epochs.
    pub records: Vec<u64>,
    pub ahead: u64,
    pub late: u64,
}

/// A started query. Dropping the handle requests a stop at the next epoch and does not wait for it;
/// [`stop`](Self::stop) waits.
pub struct StreamingQuery {
    pub(super) id: String,
    pub(super) run_id: String,
    pub(super) name: String,
    pub(super) session: Session,
    pub(super) trigger: Trigger,
    pub(super) running: RunningJob,
    pub(super) latency: Latency,
    pub(super) driver_state: Arc<Mutex<DriverState>>,
    pub(super) counters: Vec<SourceCounters>,
    /// The indices of the captures among the sources of the query's checkpoint.
    pub(super) captures: Vec<usize>,
    /// For each stateful operator, whether its state contains rows that are emitted when the
    /// watermark has passed them.
    pub(super) releases_by_watermark: Vec<bool>,
    /// Set when the query is requested to stop. A sink then waits for its receiver only for a
    /// limited time.
    pub(super) stopping: Arc<AtomicBool>,
}

impl StreamingQuery {
    /// The query's ID, which stays the same after a restart from its checkpoint.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The ID of this run, which is new at each start of the query.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The query's name, which no other query of the session can have until this one has ended.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the query is running, has ended without an error, or has failed.
    pub fn state(&self) -> RunState {
        match self.running.outcome() {
            None => RunState::Running,
            Some(Ok(())) => RunState::Stopped,
            Some(Err(_)) => RunState::Failed,
        }
    }

    /// Whether the query has not ended yet.
    pub fn is_active(&self) -> bool {
        self.state() == RunState::Running
    }

    /// The current activity of the query, with Spark's messages. In continuous mode data counts as
    /// available if the last epoch had records.
    pub fn status(&self) -> Status {
        let status = |message: &str, is_data_available, is_trigger_active| Status {
            message: message.to_string(),
            is_data_available,
            is_trigger_active,
        };
        match self.running.outcome() {
            Some(Ok(())) => return status("Stopped", false, false),
            Some(Err(error)) => {
                return status(&format!("Terminated with exception: {error}"), false, false);
            }
            None => {}
        }
        let had_rows = || self.last_progress().is_some_and(|last| last.num_input_rows() > 0);
        match self.running.phase() {
            Phase::Starting => status("Initializing sources", false, false),
            Phase::Ending => status("Stopping", false, false),
            _ if self.trigger.is_continuous() => status("Running", had_rows(), false),
            Phase::Planning => status("Getting offsets from the sources", false, true),
            Phase::Processing => status("Processing new data", true, true),
            Phase::Waiting if matches!(self.trigger, Trigger::ProcessingTime { .. }) => {
                status("Waiting for next trigger", false, false)
            }
            Phase::Waiting => status("Waiting for data to arrive", false, false),
        }
    }

    /// The error with which the query failed; `None` if it did not.
    pub fn exception(&self) -> Option<EngineError> {
        self.running.outcome().and_then(Result::err)
    }

    /// Blocks until all data that was available at the call is processed and committed. Returns the
    /// outcome of the query if it ends first.
    pub fn process_all_available(&self) -> Result<(), EngineError> {
        self.running.process_all_available()
    }

    /// Like [`process_all_available`](Self::process_all_available), but waits for at most about
    /// `timeout`. Returns `None` if the data is not committed by then.
    pub fn process_all_available_timeout(
        &self,
        timeout: Duration,
    ) -> Option<Result<(), EngineError>> {
        let (begun, mut is_late) = (Instant::now(), false);
        let result = self.running.process_all_unless(|| {
            is_late = begun.elapsed() >= timeout;
            is_late.then(|| EngineError::operator("TIMEOUT", "data is left after the time-out", ""))
        });
        if is_late { None } else { Some(result) }
    }

    /// Waits until the captures among the sources are read to their end or the query has ended, at
    /// most for `timeout`. Returns whether they are. A capture that is read at a pace has more data
    /// later, for which [`process_all_available`](Self::process_all_available) does not wait.
    pub fn await_captures(&self, timeout: Duration) -> bool {
        self.running.wait_for_sources(&self.captures, timeout)
    }

    /// Waits for the end of the query. Returns the error if the query failed.
    pub fn await_termination(&self) -> Result<(), EngineError> {
        self.running.wait(None).unwrap_or(Ok(()))
    }

    /// Waits for the end of the query for at most `timeout`. Returns `None` if it is still running.
    pub fn await_termination_timeout(&self, timeout: Duration) -> Option<Result<(), EngineError>> {
        self.running.wait(Some(timeout))
    }

    /// Stops the query at the next epoch and waits for its end. Returns the error if it failed.
    pub fn stop(&self) -> Result<(), EngineError> {
        self.stopping.store(true, Ordering::Relaxed);
        self.running.stop()
    }

    /// Requests a stop at the next epoch without waiting for it.
    pub fn request_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.running.request_stop();
    }

    /// The watermark of the next epoch, in milliseconds since 1970. Before the first event time it
    /// is that of the previous run, or 0. `None` if the query declares no event time.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.driver_state().watermark_ms
    }

    fn driver_state(&self) -> MutexGuard<'_, DriverState> {
        self.driver_state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The progress report of the last committed epoch of this run; `None` before the first.
    pub fn last_progress(&self) -> Option<Progress> {
        self.driver_state().recent.last()
    }

    /// The progress reports of the last 100 committed epochs of this run, oldest first.
    pub fn recent_progress(&self) -> Vec<Progress> {
        self.driver_state().recent.all()
    }

    /// The totals of this run. Records include those of the epoch that is not yet committed, if the
    /// sources count them; epochs and late rows are those of committed epochs.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            rows_emitted: self.latency.rows(),
            latency: self.latency.percentiles(),
            slowest: self.latency.slowest(),
            ..Totals::default()
        };
        let driver_state = self.driver_state();
        totals.epoch = driver_state.recent.last().map(|last| last.committed.epoch);
        totals.epochs = driver_state.epochs;
        let committed = driver_state.records.clone();
        totals.ahead = driver_state.ahead;
        totals.late = driver_state.late;
        if let Some(last) = driver_state.recent.last() {
            totals.waiting = waiting(&last, &self.releases_by_watermark);
        }
        drop(driver_state);
        for (i, counters) in self.counters.iter().enumerate() {
            // ORDERING: relaxed, because nothing else depends on this counter. It stays 0 for a
            // source that does not count.
            let live = counters.records.load(Ordering::Relaxed);
            totals.records_in += live.max(committed.get(i).copied().unwrap_or(0));
            totals.bad_records += counters.bad.count();
            totals.skipped_paths += counters.skipped_paths.load(Ordering::Relaxed);
            totals.permissive_records += counters.bad.permissive();
            totals.last_bad_records.extend(counters.bad.last());
            if let Some(connections) = counters.connections() {
                totals.connections.get_or_insert_default().add(&connections);
            }
        }
        totals
    }

    /// Reports bad records as notices; see [`Session::on_notice`].
    pub(super) fn report_bad_records(&self) {
        let notice = self.session.lock().notice;
        self.counters.iter().for_each(|counters| counters.bad.report(notice));
    }

    /// Discards the latencies recorded so far, for example after a warm-up.
    pub fn reset_latency(&self) {
        self.latency.reset();
    }
}

impl Drop for StreamingQuery {
    fn drop(&mut self) {
        // The name stays in use until the job has ended: see `Inner::is_active`.
        self.request_stop();
        self.running.detach();
    }
}
