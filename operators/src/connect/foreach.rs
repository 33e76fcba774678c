//! The sinks `foreach`, `foreachBatch` and `noop`.

use crate::table::row::{Row, decode, values};
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};

/// A user's sink. In each epoch `open` is called, then `process` for each row if `open` returned
/// true, then `close`.
pub trait ForeachWriter: Send + 'static {
    /// An epoch starts. Return false to skip its rows.
    fn open(&mut self, _partition: u64, _epoch: Epoch) -> bool {
        true
    }
    /// Processes a row.
    fn process(&mut self, row: &[Value]) -> Result<(), String>;
    /// The epoch has ended, or `process` has failed.
    fn close(&mut self, _error: Option<&str>) {}
}

impl<F: FnMut(&[Value]) + Send + 'static> ForeachWriter for F {
    fn process(&mut self, row: &[Value]) -> Result<(), String> {
        self(row);
        Ok(())
    }
}

/// The sink around a [`ForeachWriter`].
pub struct Foreach {
    writer: Box<dyn ForeachWriter>,
    types: Vec<DataType>,
    /// Buffer for the values of the current row.
    values: Vec<Value>,
    epoch: Epoch,
    /// The result of `open` for this epoch, once it was called.
    opened: Option<bool>,
    latency: LatencyRecorder,
}

impl Foreach {
    /// A sink for rows of this schema, of a query whose first epoch in this run is `epoch`.
    pub fn new(
        writer: Box<dyn ForeachWriter>,
        schema: &Schema,
        epoch: Epoch,
        latency: LatencyRecorder,
    ) -> Self {
        let types = schema.fields.iter().map(|f| f.data_type.clone()).collect();
        Self { writer, types, values: Vec::new(), epoch, opened: None, latency }
    }

    fn open(&mut self) -> bool {
        let (writer, epoch) = (&mut self.writer, self.epoch);
        *self.opened.get_or_insert_with(|| writer.open(0, epoch))
    }
}

impl Stage for Foreach {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.open();
        self.writer.close(None);
        self.opened = None;
        self.epoch = epoch + 1;
        self.latency.record_pending();
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.latency.record_pending();
        Ok(FlushStatus::Flushed)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for Foreach {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        if !self.open() {
            return Ok(());
        }
        self.values.clear();
        self.values.extend(values(row, self.types.iter()));
        if let Err(reason) = self.writer.process(&self.values) {
            self.writer.close(Some(&reason));
            return Err(EngineError::operator("FOREACH_USER_FUNCTION_ERROR", reason, ""));
        }
        self.latency.record(ingest_ns);
        Ok(())
    }
}

/// A user's function for whole batches.
pub type BatchFunction = Box<dyn FnMut(&[Vec<Value>], Epoch) -> Result<(), String> + Send>;

/// Sends each batch's rows to a function, with the batch number; in micro-batch mode only. With a
/// checkpoint, delivery is exactly once if the function stores the number with the rows, and
/// ignores a number that it has stored. Batches without rows are sent too.
pub struct ForeachBatch {
    function: BatchFunction,
    types: Vec<DataType>,
    rows: Vec<Vec<Value>>,
    latency: LatencyRecorder,
}

impl ForeachBatch {
    /// A sink for rows of this schema.
    pub fn new(function: BatchFunction, schema: &Schema, latency: LatencyRecorder) -> Self {
        let types = schema.fields.iter().map(|f| f.data_type.clone()).collect();
        Self { function, types, rows: Vec::new(), latency }
    }
}

impl Stage for ForeachBatch {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        (self.function)(&self.rows, epoch).map_err(|reason| {
            EngineError::operator("FOREACH_BATCH_USER_FUNCTION_ERROR", reason, "")
        })?;
        self.rows.clear();
        self.latency.record_pending();
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(FlushStatus::Flushed)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for ForeachBatch {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.rows.push(decode(row, self.types.iter()));
        self.latency.add_pending(ingest_ns);
        Ok(())
    }
}

/// The sink `noop`: drops rows and records their latency.
pub struct Noop(pub LatencyRecorder);

impl Stage for Noop {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        self.0.record_pending();
        self.0.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.0.record_pending();
        Ok(FlushStatus::Flushed)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for Noop {
    fn push(&mut self, _row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.0.record(ingest_ns);
        Ok(())
    }
}
