//! Late rows: which rows are late, and the side output that receives them.

use crate::event_time::watermark::OperatorWatermark;
use crate::table::row::{Row, decode};
use crate::table::types::Schema;
use crate::table::value::Value;
use millstream_engine::epoch::event_time::BatchTimes;
use std::sync::{Arc, Mutex};

/// A row that is late, or whose event time is too far ahead of the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct LateRow<'l> {
    /// The name of the operator that dropped the row, such as `aggregate`, `join` or `watermark`.
    pub operator: &'l str,
    /// The columns of the rows that the operator receives. With several instances, an aggregation
    /// receives only its keys, its arguments and the conditions of FILTER.
    pub columns: &'l Schema,
    /// The values of the columns. A column that the query does not read may be NULL.
    pub values: Vec<Value>,
    /// The watermark by which the row is late, in microseconds since 1970. Has no meaning for a row
    /// that is too far ahead.
    pub watermark_us: i64,
    /// The latest acceptable event time, in microseconds since 1970, if the row is too far ahead of
    /// the clock; `None` if it is late.
    pub ahead_of_us: Option<i64>,
}

/// The user's function that receives late rows, and rows too far ahead of the clock. All operators
/// of a query share it.
pub type LateOutput = Arc<Mutex<Box<dyn FnMut(&LateRow<'_>) + Send>>>;

/// The side output, and the description of the operator that sends rows to it.
pub(super) struct LateRowOutput {
    pub output: LateOutput,
    pub operator: String,
    pub columns: Schema,
}

/// Decides which rows of an operator are late and which state has expired.
pub(super) struct LateRows {
    watermarks: OperatorWatermark,
    side: Option<LateRowOutput>,
}

impl LateRows {
    pub fn new(times: BatchTimes, continuous: bool, side: Option<LateRowOutput>) -> Self {
        Self { watermarks: OperatorWatermark::new(times, continuous), side }
    }

    /// Lowers the current watermark and those of batches by `lag_us` microseconds, for an operator
    /// whose input emits rows up to this much older. Watermarks that arrive between records are not
    /// lowered.
    pub fn behind(self, lag_us: i64) -> Self {
        Self { watermarks: self.watermarks.behind(lag_us), ..self }
    }

    /// The watermark for late rows, in microseconds: a row at or before this time is late.
    #[inline]
    pub fn late_row_watermark_us(&self) -> i64 {
        self.watermarks.late_row_watermark_us()
    }

    /// Sends a late row to the side output, if there is one.
    #[cold]
    pub fn send_to_side_output(&self, row: Row<'_>) {
        self.give(row, None);
    }

    /// Sends a row that is too far ahead of the clock to the side output, if there is one.
    /// `limit_us` is the latest acceptable event time.
    #[cold]
    pub fn send_ahead_to_side_output(&self, row: Row<'_>, limit_us: i64) {
        self.give(row, Some(limit_us));
    }

    fn give(&self, row: Row<'_>, ahead_of_us: Option<i64>) {
        let Some(LateRowOutput { output, operator, columns }) = &self.side else { return };
        let values = decode(row, columns.fields.iter().map(|field| &field.data_type));
        let watermark_us = self.late_row_watermark_us();
        let late = LateRow { operator, columns, values, watermark_us, ahead_of_us };
        (output.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))(&late);
    }

    /// Whether watermarks currently arrive between records: in continuous mode, except while a
    /// batch is repeated.
    pub fn is_in_band(&self) -> bool {
        self.watermarks.is_in_band()
    }

    /// The watermark for state, in microseconds: state that expires at or before this time may be
    /// removed.
    pub fn watermark_us(&self) -> i64 {
        self.watermarks.watermark_us()
    }

    /// Advances the watermark to one that arrived between records. Ignored in micro-batch mode.
    pub fn advance(&mut self, micros: i64) {
        self.watermarks.advance(micros);
    }
}
