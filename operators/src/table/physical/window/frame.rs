//! The frames of the rows of a partition.

use super::{Direction, Expression, HeldRow, compare, compare_keys};
use crate::table::expr::over::{Frame, FrameBound, FrameUnit};
use crate::table::expr::{Node, Resolved};
use crate::table::physical::stages::Scratch;
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::cmp::Ordering;
use std::ops::Range;

/// The ordering keys of a partition: for each row the range of the rows with an equal key.
pub(super) struct Keys<'r> {
    rows: &'r [HeldRow],
    directions: &'r [Direction],
    peers: Vec<Range<usize>>,
}

impl<'r> Keys<'r> {
    pub fn new(rows: &'r [HeldRow], directions: &'r [Direction]) -> Self {
        let (mut peers, mut start) = (Vec::with_capacity(rows.len()), 0);
        while start < rows.len() {
            let same = |other: &HeldRow| {
                compare_keys(&rows[start].order, &other.order, directions) == Ordering::Equal
            };
            let end = start + rows[start..].partition_point(same);
            peers.extend(std::iter::repeat_n(start..end, end - start));
            start = end;
        }
        Self { rows, directions, peers }
    }

    /// The rows with the key of a row.
    pub fn peers(&self, row: usize) -> &Range<usize> {
        &self.peers[row]
    }

    /// The rows whose key equals a value of the only ordering key.
    fn rows_at(&self, key: &Value) -> Range<usize> {
        let Some(direction) = self.directions.first() else { return 0..self.rows.len() };
        let order = |row: &HeldRow| compare(&row.order[0], key, *direction);
        let start = self.rows.partition_point(|row| order(row) == Ordering::Less);
        let rest = &self.rows[start..];
        start..start + rest.partition_point(|row| order(row) == Ordering::Equal)
    }
}

/// A compiled bound.
enum Bound {
    First,
    Last,
    /// A number of rows after the current row.
    Rows(i64),
    /// The current row and those with an equal key.
    Peers,
    /// The rows with a value of the ordering key.
    Key(Expression),
}

/// A compiled frame.
pub(super) struct Frames {
    start: Bound,
    end: Bound,
}

impl Frames {
    pub fn new(frame: &Frame<Resolved>, compile: &dyn Fn(&Resolved) -> Expression) -> Self {
        let bound = |bound: &FrameBound<Resolved>| match (bound, frame.unit) {
            (FrameBound::UnboundedPreceding, _) => Bound::First,
            (FrameBound::UnboundedFollowing, _) => Bound::Last,
            (FrameBound::CurrentRow, FrameUnit::Rows) => Bound::Rows(0),
            (FrameBound::CurrentRow, FrameUnit::Range) => Bound::Peers,
            (FrameBound::Preceding(at) | FrameBound::Following(at), FrameUnit::Rows) => {
                match at.node {
                    Node::Literal(Value::Long(rows)) => Bound::Rows(rows),
                    _ => Bound::Rows(0),
                }
            }
            (FrameBound::Preceding(at) | FrameBound::Following(at), FrameUnit::Range) => {
                Bound::Key(compile(at))
            }
        };
        Self { start: bound(&frame.start), end: bound(&frame.end) }
    }

    /// The frame of a row, as a range of indices of the partition's rows. `before` is the frame of
    /// the row before it, or an empty range. As in Spark, a bound does not move back, even if its
    /// key overflows and wraps around.
    pub fn next(
        &self,
        before: &Range<usize>,
        row: usize,
        keys: &Keys<'_>,
        scratch: &Scratch,
    ) -> Result<Range<usize>, EngineError> {
        let count = keys.rows.len();
        let at = |offset: i64| (row as i64).saturating_add(offset).clamp(0, count as i64) as usize;
        let key = |expression: &Expression| expression.value(scratch, &keys.rows[row].row);
        let start = match &self.start {
            Bound::First => 0,
            Bound::Last => count,
            Bound::Rows(offset) => at(*offset),
            Bound::Peers => keys.peers(row).start,
            Bound::Key(expression) => keys.rows_at(&key(expression)?).start,
        };
        let end = match &self.end {
            Bound::First => 0,
            Bound::Last => count,
            Bound::Rows(offset) => at(offset.saturating_add(1)),
            Bound::Peers => keys.peers(row).end,
            Bound::Key(expression) => keys.rows_at(&key(expression)?).end,
        };
        let start = start.max(before.start);
        Ok(start..end.max(start).max(before.end))
    }
}
