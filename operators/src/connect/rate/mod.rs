//! The rate source: rows `timestamp TIMESTAMP, value BIGINT` at a steady rate, counting from 0, for
//! trying things out.
//!
//! Row k has the time `k / rowsPerSecond` after the start. In continuous mode it is emitted at that
//! time, not at the end of its second as in Spark. A checkpoint keeps the start time, so a query
//! that was down catches up, as in Spark.

pub mod micro_batch;
use super::options::OptionReader;
use crate::table::error::PlanResult;
use crate::table::plan::Options;
use crate::table::row::{Row, RowWriter};
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::checkpoint::log_entry;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::Env;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use std::path::Path;

/// One part of the rate source.
pub struct RateSource {
    rows_per_second: u64,
    /// The index of this part, out of `parts`. It emits the rows whose number modulo `parts` is
    /// `part`. The fields below count rows within the part.
    part: u64,
    parts: u64,
    /// The wall-clock time of the first row, in microseconds since 1970.
    start_us: i64,
    /// The monotonic time of the first row, in nanoseconds; after a restart it may be negative.
    start_ns: i128,
    opened_ns: u64,
    /// The first row of this run.
    first: u64,
    next: u64,
    bound: Option<u64>,
    as_of_start: Option<u64>,
    row: Vec<u8>,
}

/// Reads `rowsPerSecond` (1) and `numPartitions` (1), which [`Scan::partitions`] returns.
///
/// [`Scan::partitions`]: crate::table::plan::Scan::partitions
pub fn read(options: &Options) -> PlanResult<u64> {
    let mut reader = OptionReader::new("source rate", options);
    let rows_per_second = reader.number("rowsPerSecond", 1, 1, 1_000_000_000)?;
    reader.number("numPartitions", 1, 1, 1024)?;
    reader.finish()?;
    Ok(rows_per_second)
}

/// The source's columns.
pub fn schema() -> Schema {
    Schema::new(vec![
        Field::new("timestamp", DataType::Timestamp, true),
        Field::new("value", DataType::Long, true),
    ])
}

/// The start time of the sequence: the one kept in `folder`, or now, which is then kept there.
/// Without a folder it is always now. A damaged file is an error.
pub fn start_us(env: &dyn Env, folder: Option<&Path>) -> Result<i64, EngineError> {
    let Some(folder) = folder else { return Ok(env.wall_us()) };
    let path = folder.join("0");
    let storage = env.storage();
    match log_entry::read(storage, &path) {
        Ok(lines) => {
            let line = lines.first().and_then(|line| line.parse().ok());
            line.ok_or_else(|| log_entry::damaged(&path, "it holds no start time"))
        }
        Err(error) if error.condition() == "CHECKPOINT_FILE_MISSING" => {
            let now_us = env.wall_us();
            let folder_made = storage.create_folder(folder);
            folder_made.map_err(|error| log_entry::write_failed(folder, &error))?;
            log_entry::write(storage, &path, [now_us.to_string().as_str()])?;
            Ok(now_us)
        }
        Err(error) => Err(error),
    }
}

impl RateSource {
    /// Creates a part of the sequence that started at a time ([`start_us`]).
    pub fn new(
        rows_per_second: u64,
        (part, parts): (usize, usize),
        env: &dyn Env,
        start_us: i64,
    ) -> Self {
        let opened_ns = env.now_ns();
        let ago_us = i128::from(env.wall_us() - start_us);
        Self {
            rows_per_second,
            part: part as u64,
            parts: parts as u64,
            start_us,
            start_ns: i128::from(opened_ns) - ago_us * 1000,
            opened_ns,
            first: 0,
            next: 0,
            bound: None,
            as_of_start: None,
            row: Vec::new(),
        }
    }

    fn due(&self, cx: &StepCx<'_>) -> u64 {
        let since_ns = (i128::from(cx.env.now_ns()) - self.start_ns).max(0);
        let of_all = (since_ns * i128::from(self.rows_per_second) / 1_000_000_000) as u64 + 1;
        (of_all + self.parts - 1 - self.part) / self.parts
    }

    /// The number of a row of this part within the whole sequence.
    fn number(&self, row: u64) -> u64 {
        row * self.parts + self.part
    }

    fn after(&self, rows: u64, unit_per_second: u128) -> u64 {
        (u128::from(rows) * unit_per_second / u128::from(self.rows_per_second)) as u64
    }

    /// The monotonic time at which a row is due. Overdue rows of a restart are due at its start.
    fn due_ns(&self, row: u64) -> u64 {
        let after_ns = self.after(self.number(row), 1_000_000_000);
        let due_ns = self.start_ns + i128::from(after_ns);
        due_ns.max(i128::from(self.opened_ns)) as u64
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for RateSource {
    fn name(&self) -> &str {
        "rate"
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let until = self.bound.unwrap_or_else(|| self.due(cx));
        let before = self.next;
        while self.next < until && self.next - before < cx.budget as u64 && down.is_ready() {
            let number = self.number(self.next);
            let timestamp_us = self.start_us + self.after(number, 1_000_000) as i64;
            self.row.clear();
            let mut writer = RowWriter::new(&mut self.row, 2);
            writer.long(0, timestamp_us);
            writer.long(1, number as i64);
            down.push(Row(&self.row), self.due_ns(self.next))?;
            self.next += 1;
        }
        if self.bound.is_some_and(|bound| self.next >= bound) {
            self.bound = None;
            return Ok(Polled::AtEndOffset);
        }
        if self.next > before {
            return Ok(Polled::Emitted);
        }
        if self.bound.is_none() {
            cx.wake_at(self.due_ns(self.next) + 1);
        }
        Ok(Polled::Idle)
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
        Ok(())
    }

    fn plan(&mut self, extent: ReadLimit, cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        let due = self.due(cx);
        let end = match extent {
            ReadLimit::AvailableAtStart => *self.as_of_start.get_or_insert(due),
            ReadLimit::All | ReadLimit::RateLimited => due,
        };
        let end = end.max(self.next);
        Ok(EndOffset {
            end: Offset(end.to_string()),
            has_new: end > self.next,
            exhausted: false,
            limited: false,
        })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.bound = Some(end.number()?);
        Ok(())
    }
}
