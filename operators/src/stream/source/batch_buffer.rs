//! The batch buffer of an in-process source.

use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::Polled;
use std::collections::VecDeque;

/// Records taken by a plan, emitted when the batch runs.
pub(in crate::stream) struct BatchBuffer<T> {
    records: VecDeque<T>,
    /// While a batch runs, the number of its records that are not emitted yet.
    left: Option<usize>,
}

impl<T> BatchBuffer<T> {
    pub fn new() -> Self {
        Self { records: VecDeque::new(), left: None }
    }

    pub fn add(&mut self, record: T) {
        self.records.push_back(record);
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Starts a batch that ends after the first `records` records of the buffer.
    pub fn begin(&mut self, records: usize) {
        self.left = Some(records.min(self.records.len()));
    }

    /// Whether a batch is running.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.left.is_some()
    }

    /// Emits up to `budget` records of the batch. `timed` returns a record's value and its ingest
    /// time. `emitted` is increased by the number of emitted records.
    ///
    /// Never inlined, so that the loop in a source's `poll` contains only the code of continuous
    /// mode.
    #[inline(never)]
    pub fn poll<U, D: Push<U>>(
        &mut self,
        down: &mut D,
        (budget, emitted): (usize, &mut u64),
        timed: impl Fn(T) -> (U, u64),
    ) -> Result<Polled, EngineError> {
        for _ in 0..budget {
            if self.left == Some(0) {
                self.left = None;
                return Ok(Polled::AtEndOffset);
            }
            if !down.is_ready() {
                break;
            }
            let Some(record) = self.records.pop_front() else { break };
            let (value, ingest_ns) = timed(record);
            down.push(value, ingest_ns)?;
            self.left = self.left.map(|left| left - 1);
            *emitted += 1;
        }
        Ok(Polled::Emitted)
    }
}
