//! The receiving side of an output.

use super::sink::Overflow;
use crate::stream::channel::query_end::{OutputState, QueryEnd};
use crossbeam_utils::Backoff;
use millstream_engine::error::EngineError;
use millstream_engine::sync::ring::Consumer;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why there will be no more results.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The query has ended, and all its results have been read; or the flow was never started.
    #[error("OUTPUT_ENDED: the query has ended and all its results have been read")]
    Ended,
    /// The query has failed. All results from before the failure have been read.
    #[error("{0}")]
    Failed(Box<EngineError>),
}

/// Why no result was returned.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// No result arrived within the time-out. A result may arrive later.
    #[error("OUTPUT_TIMED_OUT: no result arrived in time; the query continues")]
    Timeout,
    /// The query has ended, and all its results have been read; or the flow was never started.
    #[error("OUTPUT_ENDED: the query has ended and all its results have been read")]
    Ended,
    /// The query has failed. All results from before the failure have been read.
    #[error("{0}")]
    Failed(Box<EngineError>),
}

impl From<RecvError> for RecvTimeoutError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Ended => Self::Ended,
            RecvError::Failed(error) => Self::Failed(error),
        }
    }
}

impl From<RecvError> for EngineError {
    fn from(error: RecvError) -> Self {
        RecvTimeoutError::from(error).into()
    }
}

impl From<RecvTimeoutError> for EngineError {
    fn from(error: RecvTimeoutError) -> Self {
        let (condition, reason) = match error {
            RecvTimeoutError::Timeout => ("OUTPUT_TIMED_OUT", "no result arrived in time"),
            RecvTimeoutError::Ended => ("OUTPUT_ENDED", "the query has ended"),
            RecvTimeoutError::Failed(error) => return *error,
        };
        Self::operator(condition, reason, "")
    }
}

/// The receiving side of an output. If the output is dropped, the query continues without a reader.
pub struct Output<T> {
    ring: Consumer<T>,
    behind: Arc<Overflow<T>>,
    pub(super) outlet: Arc<OutputState>,
    ending: Arc<QueryEnd>,
    // Dropped after the ring, so that the woken sink sees that the ring has no reader.
    _wakes: WakesSink,
}

struct WakesSink(Arc<OutputState>);

impl Drop for WakesSink {
    fn drop(&mut self) {
        self.0.set_dropped();
    }
}

impl<T> Output<T> {
    pub(super) fn new(
        ring: Consumer<T>,
        behind: Arc<Overflow<T>>,
        outlet: Arc<OutputState>,
        ending: Arc<QueryEnd>,
    ) -> Self {
        Self { ring, behind, outlet: outlet.clone(), ending, _wakes: WakesSink(outlet) }
    }
}

impl<T: Send> Output<T> {
    /// The oldest available result. Does not block.
    #[inline]
    pub fn try_recv(&mut self) -> Option<T> {
        let value = self.ring.pop();
        if value.is_none() { self.refill() } else { value }
    }

    /// Releases the ring's slots, so that the sink can fill them. If the overflow list is in use,
    /// takes the next result from the ring or from the list. Returns `None` otherwise, and if both
    /// are empty.
    #[inline]
    fn refill(&mut self) -> Option<T> {
        if self.ring.release()
            && let Some(sink) = self.outlet.sink.get()
        {
            sink.wake();
        }
        if self.behind.is_used() { self.recv_behind() } else { None }
    }

    #[cold]
    fn recv_behind(&mut self) -> Option<T> {
        // The ring comes first: the sink filled it before the overflow list.
        self.ring.pop().or_else(|| self.behind.pop())
    }

    /// Waits for a result: spins briefly, then sleeps. An error means that the query has ended or
    /// failed and all its results have been read.
    pub fn recv(&mut self) -> Result<T, RecvError> {
        match self.wait(None) {
            Some(result) => result,
            None => unreachable!("a wait without a deadline is not cut short"),
        }
    }

    /// Waits for a result for at most `timeout`. The error tells the time-out, the end and the failure
    /// of the query apart; results that are already there are returned first.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        if let Some(value) = self.try_recv() {
            return Ok(value);
        }
        match self.wait(Instant::now().checked_add(timeout)) {
            Some(result) => result.map_err(RecvTimeoutError::from),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// How the query ended; `None` while it runs. Results of an ended query can still be read.
    pub fn outcome(&self) -> Option<Result<(), EngineError>> {
        self.ending.outcome().cloned()
    }

    /// Whether the query has ended and all its results have been read.
    pub fn is_ended(&mut self) -> bool {
        self.ending.outcome().is_some() && !self.has_result()
    }

    /// Waits for a result or the end of the query; `None` after the deadline.
    fn wait(&mut self, deadline: Option<Instant>) -> Option<Result<T, RecvError>> {
        let backoff = Backoff::new();
        loop {
            if let Some(value) = self.try_recv() {
                return Some(Ok(value));
            }
            if let Some(end) = self.end() {
                // The end is reported only after the last result, which may have arrived after the
                // first check.
                return Some(self.try_recv().ok_or(end));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            if !backoff.is_completed() {
                backoff.snooze();
                continue;
            }
            let Self { ring, behind, outlet, ending, .. } = self;
            let arrived = || !ring.is_empty() || behind.has_some() || ending.outcome().is_some();
            outlet.reader.park(left, arrived);
        }
    }

    /// The end of the query as an error; `None` while it runs. Results may still be unread.
    pub(super) fn end(&self) -> Option<RecvError> {
        self.ending.outcome().map(|outcome| match outcome {
            Ok(()) => RecvError::Ended,
            Err(error) => RecvError::Failed(Box::new(error.clone())),
        })
    }

    /// Registers an async task to wake at the next result or the end. Returns false if there is one
    /// now: then the task must not wait.
    #[cfg(feature = "futures")]
    pub(super) fn register(&mut self, task: &std::task::Waker) -> bool {
        let Self { ring, behind, outlet, ending, .. } = self;
        let arrived = || !ring.is_empty() || behind.has_some() || ending.outcome().is_some();
        outlet.reader.register(task, arrived)
    }

    fn has_result(&mut self) -> bool {
        !self.ring.is_empty() || self.behind.has_some()
    }
}
