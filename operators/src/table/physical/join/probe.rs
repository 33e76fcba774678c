//! A row's search for its matches among the buffered rows of the other side.
//!
//! A step examines a bounded number of candidates. A longer search continues later, between other
//! records, after the last candidate that it has examined. A search skips candidates that arrived
//! after the searching row, because such a candidate has itself searched for the row.

use super::buffer::Buffer;
use super::output::Pairs;
use super::rows::RowId;
use super::side::JoinSide;
use crate::table::expr::compile::BoolFn;
use crate::table::physical::stages::{BoxChain, Scratch};
use crate::table::plan::JoinKind;
use crate::table::row::Row;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;

/// The maximum number of candidates that a search examines in one step.
pub(super) const STEP: usize = 64;

/// The state of a row's search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    pub side: JoinSide,
    /// The index of the row's join key in the key table.
    pub key: usize,
    /// The number of the searching row.
    pub number: u64,
    /// The inclusive range of the other side's times that the row may match.
    pub times_us: (i64, i64),
    /// The time and the number of the last candidate examined; `None` before the first step.
    pub last: Option<(i64, u64)>,
    pub ingest_ns: u64,
    pub matched: bool,
}

/// An unfinished search, and the buffered row that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub search: Search,
    pub row: RowId,
    pub time_us: i64,
    /// Whether the row had expired when it arrived. It is then not in the expiry queue.
    pub is_expired: bool,
    /// Whether the progress of the search is in the checkpoint.
    pub is_saved: bool,
}

/// The parts of a join that a search accesses.
pub(super) struct Prober<'j> {
    pub kind: JoinKind,
    pub buffer: &'j mut Buffer,
    pub pairs: &'j mut Pairs,
    pub rest: &'j Option<BoolFn>,
    pub scratch: &'j mut Scratch,
    /// For each side, whether its unmatched rows are emitted.
    pub preserves: [bool; 2],
    pub down: &'j mut BoxChain,
}

impl Prober<'_> {
    /// Whether only the left row is emitted, at most once (LEFT SEMI and LEFT ANTI).
    fn is_existence(&self) -> bool {
        matches!(self.kind, JoinKind::LeftSemi | JoinKind::LeftAnti)
    }

    /// Runs one step of a search. Returns whether the search is finished.
    pub fn step(&mut self, row: Row<'_>, search: &mut Search) -> Result<bool, EngineError> {
        let (side, other, key) = (search.side, search.side.other(), search.key);
        let existence = self.is_existence();
        let pairs = !existence || self.rest.is_some();
        if pairs {
            self.pairs.begin(side, row);
        }
        let run = &self.buffer.keys[key].runs[other.index()];
        let mut cursor = match search.last {
            None => run.seek(search.times_us.0, &self.buffer.runs),
            Some(last) => run.seek_behind(last, &self.buffer.rows, &self.buffer.runs),
        };
        for _ in 0..self.buffer.step(STEP) {
            let run = &self.buffer.keys[key].runs[other.index()];
            let entry = run.get(&mut cursor, &self.buffer.runs);
            let entry = entry.filter(|entry| entry.time_us <= search.times_us.1);
            let Some(entry) = entry else { return Ok(true) };
            let number = self.buffer.rows.number(entry.row);
            search.last = Some((entry.time_us, number));
            cursor.advance();
            if number > search.number {
                continue;
            }
            let candidate = self.buffer.rows.row(entry.row);
            if pairs {
                self.pairs.complete(other, candidate);
            }
            if let Some(rest) = self.rest {
                self.scratch.reset();
                if rest(self.scratch.cx(self.pairs.row()))? != Some(true) {
                    continue;
                }
            }
            search.matched = true;
            self.buffer.matches += 1;
            match (existence, side) {
                (false, _) => {
                    self.down.push(self.pairs.row(), search.ingest_ns)?;
                    if self.preserves[other.index()] {
                        self.buffer.set_matched(key, other, entry.row);
                    }
                }
                (true, JoinSide::Left) => {
                    if self.kind == JoinKind::LeftSemi {
                        self.down.push(row, search.ingest_ns)?;
                    }
                    return Ok(true);
                }
                (true, JoinSide::Right) => {
                    if self.kind == JoinKind::LeftSemi {
                        self.down.push(candidate, search.ingest_ns)?;
                    }
                    self.buffer.remove(key, JoinSide::Left, entry);
                    let run = &self.buffer.keys[key].runs[other.index()];
                    let (rows, runs) = (&self.buffer.rows, &self.buffer.runs);
                    cursor = run.seek_behind((entry.time_us, number), rows, runs);
                }
            }
        }
        Ok(false)
    }
}
