//! A chain for tests of sources: collects the rows that a source emits.

use crate::table::row::Row;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};

/// The rows that a source emitted, each converted to `T`.
pub(super) struct CollectedRows<T> {
    pub rows: Vec<T>,
    /// The number of rows that the chain still takes; `None` if there is no limit.
    pub room: Option<usize>,
    /// Converts a row and its time of receipt in nanoseconds.
    convert: fn(Row<'_>, u64) -> T,
}

impl<T> CollectedRows<T> {
    pub fn new(convert: fn(Row<'_>, u64) -> T) -> Self {
        Self { rows: Vec::new(), room: None, convert }
    }
}

impl<T: Send> Stage for CollectedRows<T> {
    fn is_ready(&mut self) -> bool {
        self.room.is_none_or(|room| room > 0)
    }
    fn watermark(&mut self, _: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _: Epoch) -> Result<(), EngineError> {
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

impl<'a, T: Send> Push<Row<'a>> for CollectedRows<T> {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.rows.push((self.convert)(row, ingest_ns));
        self.room = self.room.map(|room| room - 1);
        Ok(())
    }
}
