//! A started flow.

use crate::stream::channel::{QueryEnd, UnreadOutputWatch};
use millstream_engine::epoch::committed_epoch::CommittedEpoch;
use millstream_engine::error::EngineError;
use millstream_engine::measure::latency::{Latency, Percentiles};
use millstream_engine::measure::stall::Stall;
use millstream_engine::runtime::job::RunningJob;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The parts of a query besides its running job.
pub(in crate::stream) struct QueryParts {
    pub ending: Arc<QueryEnd>,
    pub latency: Latency,
    pub committed: Arc<Mutex<Option<CommittedEpoch>>>,
    pub unread_timeout: Duration,
}

/// Releases the outputs of a dropped query, so that it can end without readers.
pub(in crate::stream) struct OutputReleaseGuard(pub Arc<QueryEnd>);

impl Drop for OutputReleaseGuard {
    fn drop(&mut self) {
        self.0.release_outputs();
    }
}

/// A started flow. Dropping the handle [stops](Self::stop) the query.
pub struct Query {
    // Dropped before the job, which waits for its threads.
    pub(in crate::stream) _releases: OutputReleaseGuard,
    pub(in crate::stream) running: RunningJob,
    pub(in crate::stream) parts: QueryParts,
}

impl Query {
    /// The last committed epoch: positions, record counts, and metrics of each stateful operator.
    pub fn last_epoch(&self) -> Option<CommittedEpoch> {
        self.parts.committed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Stops at the next epoch and waits for it: sources emit nothing more, and everything they
    /// have emitted is processed and committed. The call does not wait for a reader of a full
    /// output: results that do not fit can be read afterwards, like the others, until the
    /// [`Output`](crate::stream::Output) is dropped. Records that were pushed but not taken by the
    /// query are dropped ([`Input::committed`](crate::stream::Input::committed) returns how many
    /// were committed).
    pub fn stop(&self) -> Result<(), EngineError> {
        self.parts.ending.release_outputs();
        self.running.stop()
    }

    /// Waits until the query has ended: all its sources have ended, it was stopped, or it failed.
    ///
    /// Returns `OUTPUT_NOT_READ` if an output is full and unread: see
    /// [`Flow::unread_output_timeout`](crate::stream::Flow::unread_output_timeout). The query
    /// continues and can be waited for again.
    pub fn await_termination(&self) -> Result<(), EngineError> {
        let mut unread = self.unread();
        self.running.wait_unless(|| unread.reason())
    }

    /// Waits for the end for at most `timeout`. Returns whether the query has ended, or its error.
    /// An unread output is not an error here.
    pub fn await_termination_timeout(&self, timeout: Duration) -> Result<bool, EngineError> {
        if let Some(outcome) = self.parts.ending.outcome() {
            return outcome.clone().map(|()| true);
        }
        self.running.wait(Some(timeout)).transpose().map(|ended| ended.is_some())
    }

    /// Blocks until everything that was pushed before the call is processed and committed.
    ///
    /// Returns `OUTPUT_NOT_READ` like [`await_termination`](Self::await_termination).
    pub fn process_all_available(&self) -> Result<(), EngineError> {
        let mut unread = self.unread();
        self.running.process_all_unless(|| unread.reason())
    }

    fn unread(&self) -> UnreadOutputWatch<'_> {
        UnreadOutputWatch::new(&self.parts.ending, self.parts.unread_timeout)
    }

    /// The failure that ended the query, if one did.
    pub fn exception(&self) -> Option<EngineError> {
        // The outcome is read from the shared end of the query, which outputs read too. So a caller
        // that has learned of the failure from an output finds it here.
        self.parts.ending.outcome().cloned().and_then(Result::err)
    }

    /// A notice about cores: pinned workers share one, or workers are not pinned because none is
    /// free.
    pub fn core_notice(&self) -> Option<&str> {
        self.running.core_notice()
    }

    /// Latency of records from source to sink, up to the last epoch.
    pub fn latency(&self) -> Percentiles {
        self.parts.latency.percentiles()
    }

    /// Up to three of the slowest records up to the last marker, slowest first, with the causes:
    /// from different epochs or sinks, each slower than 100 us.
    pub fn slowest(&self) -> Vec<Stall> {
        self.parts.latency.slowest()
    }
}

#[cfg(test)]
mod tests {
    use crate::stream::flow::Flow;
    use millstream_engine::epoch::trigger::Trigger;
    use millstream_engine::runtime::job::Config;

    #[test]
    fn latencies_of_epochs_are_collected_whether_or_not_they_are_read() {
        let flow = Flow::new("unasked");
        let (mut input, numbers) = flow.channel::<u64>();
        numbers.sink(|_: u64| {});
        let trigger = Trigger::AsSoonAsPossible;
        let query = flow.start(Config { pin: false, trigger, ..Config::default() }).unwrap();
        for n in 0..30 {
            input.push(n).unwrap();
            query.process_all_available().unwrap();
            assert!(query.parts.latency.waiting() <= 1, "{n}");
        }
        assert_eq!(query.latency().count, 30);
        query.stop().unwrap();
    }
}
