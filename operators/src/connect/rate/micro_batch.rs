//! The rate-micro-batch source: the same number of rows `timestamp TIMESTAMP, value BIGINT` in
//! every batch, counting from 0, for reproducible tests. All rows of batch n have the time
//! `startTimestamp` plus n times `advanceMillisPerBatch`.
//!
//! In continuous mode the next batch follows the commit of an epoch, if the last batch has been
//! emitted completely.

use crate::connect::options::OptionReader;
use crate::table::error::PlanResult;
use crate::table::plan::Options;
use crate::table::row::{Row, RowWriter};
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};

/// The parsed options of the rate-micro-batch source.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    rows_per_batch: u64,
    start_ms: u64,
    advance_ms: u64,
}

impl Config {
    /// Reads `rowsPerBatch`, `startTimestamp` (0, in milliseconds), `advanceMillisPerBatch` (1000)
    /// and `numPartitions` (accepted without effect: there is one sequence).
    pub fn read(options: &Options) -> PlanResult<Self> {
        let mut reader = OptionReader::new("source rate-micro-batch", options);
        reader.required("rowsPerBatch", "100")?;
        let rows_per_batch = reader.number("rowsPerBatch", 0, 1, 1 << 40)?;
        let start_ms = reader.number("startTimestamp", 0, 0, 1 << 50)?;
        let advance_ms = reader.number("advanceMillisPerBatch", 1000, 0, 1 << 40)?;
        reader.number("numPartitions", 1, 1, 1024)?;
        reader.finish()?;
        Ok(Self { rows_per_batch, start_ms, advance_ms })
    }
}

/// The rate-micro-batch source.
pub struct RateMicroBatch {
    config: Config,
    /// The first row of this run.
    first: u64,
    next: u64,
    /// The end of the current batch, as a row number.
    end: u64,
    bounded: bool,
    /// Whether the single batch of a run with the available rows has been planned.
    as_of_start: bool,
    row: Vec<u8>,
}

impl RateMicroBatch {
    /// Creates the source at the first row of the sequence.
    pub fn new(config: Config) -> Self {
        let end = config.rows_per_batch;
        Self { config, first: 0, next: 0, end, bounded: false, as_of_start: false, row: Vec::new() }
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for RateMicroBatch {
    fn name(&self) -> &str {
        "rate-micro-batch"
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let (before, now_ns) = (self.next, cx.env.now_ns());
        while self.next < self.end && self.next - before < cx.budget as u64 && down.is_ready() {
            let batch = self.next / self.config.rows_per_batch;
            let time_ms = self.config.start_ms + batch * self.config.advance_ms;
            self.row.clear();
            let mut writer = RowWriter::new(&mut self.row, 2);
            writer.long(0, time_ms as i64 * 1000);
            writer.long(1, self.next as i64);
            down.push(Row(&self.row), now_ns)?;
            self.next += 1;
        }
        if self.bounded && self.next >= self.end {
            self.bounded = false;
            return Ok(Polled::AtEndOffset);
        }
        Ok(if self.next > before { Polled::Emitted } else { Polled::Idle })
    }

    fn position(&self) -> Offset {
        Offset(self.next.to_string())
    }

    fn records_emitted(&self) -> u64 {
        self.next - self.first
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        self.next = at.number()?;
        self.first = self.next;
        // Completes a batch that continuous mode had emitted in part.
        self.end = (self.next / self.config.rows_per_batch + 1) * self.config.rows_per_batch;
        Ok(())
    }

    fn plan(&mut self, extent: ReadLimit, _cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        let done = std::mem::replace(&mut self.as_of_start, extent == ReadLimit::AvailableAtStart);
        let rows = self.config.rows_per_batch;
        let end = if done { self.next } else { (self.next / rows + 1) * rows };
        Ok(EndOffset {
            end: Offset(end.to_string()),
            has_new: end > self.next,
            exhausted: false,
            limited: false,
        })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        (self.end, self.bounded) = (end.number()?, true);
        Ok(())
    }

    fn on_committed(&mut self, _end: &Offset) -> Result<(), EngineError> {
        if self.next == self.end {
            self.end += self.config.rows_per_batch;
        }
        Ok(())
    }
}
