//! Rows at a steady rate: `timestamp TIMESTAMP, value BIGINT` from 0, for trying things out.
//!
//! Row k is due `k / rowsPerSecond` after the start and bears that time. In continuous mode it
//! goes out when it is due, not at the end of its second as in Spark.

use super::options::OptionReader;
use crate::table::error::PlanResult;
use crate::table::plan::Options;
use crate::table::row::{Row, RowWriter};
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::driver::Planned;
use millstream_engine::error::EngineError;
use millstream_engine::stage::Push;
use millstream_engine::tasklet::{Offset, Polled, Source, StepCx};

/// The source.
pub struct RateSource {
    rows_per_second: u64,
    /// Start on the monotonic and the wall clock, set at the first poll.
    start: Option<(u64, i64)>,
    next: u64,
    bound: Option<u64>,
    row: Vec<u8>,
}

impl RateSource {
    /// Reads `rowsPerSecond` (1) and `numPartitions` (taken and without effect: one sequence).
    pub fn read(options: &Options) -> PlanResult<Self> {
        let mut reader = OptionReader::new("source rate", options);
        let rows_per_second = reader.number("rowsPerSecond", 1, 1, 1_000_000_000)?;
        reader.number("numPartitions", 1, 1, 1024)?;
        reader.finish()?;
        Ok(Self { rows_per_second, start: None, next: 0, bound: None, row: Vec::new() })
    }

    /// The source's columns.
    pub fn schema() -> Schema {
        Schema::new(vec![
            Field::new("timestamp", DataType::Timestamp, true),
            Field::new("value", DataType::Long, true),
        ])
    }

    fn due(&mut self, cx: &StepCx<'_>) -> (u64, i64, u64) {
        let now_ns = cx.env.now_ns();
        let (start_ns, start_us) = *self.start.get_or_insert((now_ns, cx.env.wall_us()));
        let due = u128::from(now_ns - start_ns) * u128::from(self.rows_per_second) / 1_000_000_000;
        (start_ns, start_us, due as u64 + 1)
    }

    fn after(&self, rows: u64, unit_per_second: u128) -> u64 {
        (u128::from(rows) * unit_per_second / u128::from(self.rows_per_second)) as u64
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for RateSource {
    fn name(&self) -> &str {
        "rate"
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let (start_ns, start_us, due) = self.due(cx);
        let until = self.bound.unwrap_or(due);
        let before = self.next;
        while self.next < until && self.next - before < cx.budget as u64 && down.ready() {
            let timestamp_us = start_us + self.after(self.next, 1_000_000) as i64;
            self.row.clear();
            let mut writer = RowWriter::new(&mut self.row, 2);
            writer.long(0, timestamp_us);
            writer.long(1, self.next as i64);
            let intended_ns = start_ns + self.after(self.next, 1_000_000_000);
            down.push(Row(&self.row), intended_ns)?;
            self.next += 1;
        }
        if self.bound == Some(self.next) {
            self.bound = None;
            return Ok(Polled::AtBound);
        }
        if self.next > before {
            return Ok(Polled::Some);
        }
        if self.bound.is_none() {
            cx.wake_at(start_ns + self.after(self.next, 1_000_000_000) + 1);
        }
        Ok(Polled::Idle)
    }

    fn position(&self) -> Offset {
        Offset(self.next.to_string())
    }

    fn plan(&mut self, cx: &mut StepCx<'_>) -> Result<Planned, EngineError> {
        let (_, _, due) = self.due(cx);
        Ok(Planned { end: Offset(due.to_string()), has_new: due > self.next, exhausted: false })
    }

    fn bound(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.bound = Some(end.0.parse().unwrap_or(self.next));
        Ok(())
    }
}
