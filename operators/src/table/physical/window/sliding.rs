//! Aggregates over frames.
//!
//! The bounds of frames never move backwards. A frame that only grows is one running accumulator. A
//! frame that also shrinks is kept as two stacks: for each of its first rows an accumulator of this
//! row and those after it up to a middle, and one accumulator of the rows behind the middle. A row
//! that leaves the frame pops an accumulator. When there is none left, the stack is built again
//! from the rows behind the middle, so that each row is added twice and merged once on average.
//!
//! Small frames are computed anew: for floating-point numbers this gives the digits of Spark, which
//! adds the rows of each frame in order.

use super::HeldRow;
use super::frame::{Frames, Keys};
use crate::table::physical::accumulator::{Accumulator, Function};
use crate::table::physical::stages::Scratch;
use crate::table::row::Row;
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::ops::Range;

/// The largest frame that is computed anew for each row.
const SMALL: usize = 32;

/// The rows, their keys and the frames.
type Partition<'p> = (&'p [HeldRow], &'p Keys<'p>, &'p Frames);

/// The running state over the frames.
struct Running<'f> {
    function: &'f Function,
    rows: &'f [HeldRow],
    /// The rows that the state contains.
    frame: Range<usize>,
    /// The accumulators of the first rows, the first row last.
    first: Vec<Accumulator>,
    /// The accumulator of the rows behind them.
    rest: Accumulator,
    /// The first row of `rest`.
    middle: usize,
}

/// The results of an aggregate for the rows of a partition. `merges` tells whether accumulators can
/// be merged cheaply.
pub(super) fn aggregates(
    function: &Function,
    merges: bool,
    (rows, keys, frames): Partition<'_>,
    scratch: &mut Scratch,
) -> Result<Vec<Value>, EngineError> {
    let mut running = Running::new(function, rows);
    let mut results: Vec<Value> = Vec::with_capacity(rows.len());
    let mut before = 0..0;
    for row in 0..rows.len() {
        let frame = frames.next(&before, row, keys, scratch)?;
        scratch.reset();
        if let (true, Some(last)) = (before == frame, results.last()) {
            results.push(last.clone());
            continue;
        }
        let shrinks = frame.start > running.frame.start;
        if shrinks && (!merges || frame.len() <= SMALL) {
            running.restart(frame.clone(), scratch)?;
        } else {
            running.move_to(frame.clone(), scratch)?;
        }
        results.push(running.result()?);
        before = frame;
    }
    Ok(results)
}

impl<'f> Running<'f> {
    fn new(function: &'f Function, rows: &'f [HeldRow]) -> Self {
        let rest = function.start();
        Self { function, rows, frame: 0..0, first: Vec::new(), rest, middle: 0 }
    }

    fn add(
        function: &Function,
        accumulator: &mut Accumulator,
        row: &HeldRow,
        scratch: &mut Scratch,
    ) -> Result<(), EngineError> {
        scratch.reset();
        Ok(function.add(accumulator, scratch.cx(Row(&row.row)))?)
    }

    /// Computes the frame anew.
    fn restart(&mut self, frame: Range<usize>, scratch: &mut Scratch) -> Result<(), EngineError> {
        self.first.clear();
        self.rest = self.function.start();
        self.middle = frame.start;
        self.frame = frame.start..frame.start;
        self.move_to(frame, scratch)
    }

    /// Moves both bounds forward.
    fn move_to(&mut self, frame: Range<usize>, scratch: &mut Scratch) -> Result<(), EngineError> {
        if frame.start >= self.frame.end {
            // No row stays.
            self.first.clear();
            self.rest = self.function.start();
            (self.middle, self.frame) = (frame.start, frame.start..frame.start);
        }
        for row in self.frame.end..frame.end {
            Self::add(self.function, &mut self.rest, &self.rows[row], scratch)?;
        }
        self.frame.end = frame.end;
        if frame.start > self.middle {
            self.build(frame.start, scratch)?;
        }
        self.first.truncate(self.middle.saturating_sub(frame.start));
        self.frame.start = frame.start;
        Ok(())
    }

    /// Builds the accumulators of the rows from `start` on, and moves the middle to the end.
    fn build(&mut self, start: usize, scratch: &mut Scratch) -> Result<(), EngineError> {
        self.first.clear();
        for row in (start..self.frame.end).rev() {
            let mut accumulator = self.function.start();
            Self::add(self.function, &mut accumulator, &self.rows[row], scratch)?;
            if let Some(later) = self.first.last() {
                self.function.merge(&mut accumulator, later)?;
            }
            self.first.push(accumulator);
        }
        self.middle = self.frame.end;
        self.rest = self.function.start();
        Ok(())
    }

    fn result(&self) -> Result<Value, EngineError> {
        let whole;
        let accumulator = match self.first.last() {
            None => &self.rest,
            Some(first) => {
                let mut merged = first.clone();
                self.function.merge(&mut merged, &self.rest)?;
                whole = merged;
                &whole
            }
        };
        Ok(self.function.value(accumulator)?)
    }
}
