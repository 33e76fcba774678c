//! Which rows come too late, and where they go.

use crate::stream::watermark::Watermarks;
use crate::table::row::{Row, decode};
use crate::table::types::Schema;
use crate::table::value::Value;
use millstream_engine::event_time::BatchTimes;
use std::sync::{Arc, Mutex};

/// A row that came too late, or whose event time is too far ahead of the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct LateRow<'l> {
    /// The operator that did not take it, as `explain` and progress name it.
    pub operator: &'l str,
    /// The columns of its input.
    pub columns: &'l Schema,
    /// Their values.
    pub values: Vec<Value>,
    /// The watermark that it missed, in microseconds since 1970.
    pub watermark_us: i64,
    /// Not late, but too far ahead of the clock: the latest event time that was accepted, in
    /// microseconds since 1970.
    pub ahead_of_us: Option<i64>,
}

/// Takes rows that came too late. Instances of an operator share it.
pub type LateOutput = Arc<Mutex<Box<dyn FnMut(&LateRow<'_>) + Send>>>;

/// The output with what it says of a row.
pub(super) struct Side {
    pub output: LateOutput,
    pub operator: String,
    pub columns: Schema,
}

/// What tells an operator which rows come too late, and what may go.
pub(super) struct Late {
    watermarks: Watermarks,
    side: Option<Side>,
}

impl Late {
    pub fn new(times: BatchTimes, continuous: bool, side: Option<Side>) -> Self {
        Self { watermarks: Watermarks::new(times, continuous), side }
    }

    /// Of an operator behind one that lets rows leave which are older than the watermark by so much.
    pub fn behind(self, lag_us: i64) -> Self {
        Self { watermarks: self.watermarks.behind(lag_us), ..self }
    }

    /// A row at or before this time is late.
    #[inline]
    pub fn late_us(&self) -> i64 {
        self.watermarks.late_us()
    }

    /// Gives a row that is late to the side output, if there is one.
    #[cold]
    pub fn put_aside(&self, row: Row<'_>) {
        self.give(row, None);
    }

    /// Gives a row to the side output whose event time is after a limit.
    #[cold]
    pub fn put_aside_ahead(&self, row: Row<'_>, limit_us: i64) {
        self.give(row, Some(limit_us));
    }

    fn give(&self, row: Row<'_>, ahead_of_us: Option<i64>) {
        let Some(Side { output, operator, columns }) = &self.side else { return };
        let values = decode(row, columns.fields.iter().map(|field| &field.data_type));
        let watermark_us = self.late_us();
        let late = LateRow { operator, columns, values, watermark_us, ahead_of_us };
        (output.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))(&late);
    }

    /// Whether watermarks come in-band now.
    pub fn in_band(&self) -> bool {
        self.watermarks.in_band()
    }

    /// What was over by this time may go.
    pub fn watermark_us(&self) -> i64 {
        self.watermarks.watermark_us()
    }

    /// Takes an in-band watermark.
    pub fn advance(&mut self, micros: i64) {
        self.watermarks.advance(micros);
    }
}
