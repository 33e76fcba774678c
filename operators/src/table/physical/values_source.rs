//! The source of VALUES: constant rows of the query, which are read once.

use crate::table::row::{Row, encode};
use crate::table::value::Value;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};

/// A source of constant rows.
pub(super) struct ValuesSource {
    rows: Vec<Vec<u8>>,
    next: usize,
    first: usize,
    end: usize,
    bounded: bool,
}

impl ValuesSource {
    pub fn new(rows: &[Vec<Value>]) -> Self {
        let rows: Vec<_> = rows.iter().map(|row| encode(row)).collect();
        Self { end: rows.len(), rows, next: 0, first: 0, bounded: false }
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for ValuesSource {
    fn name(&self) -> &str {
        "values"
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let (before, now_ns) = (self.next, cx.env.now_ns());
        while self.next < self.end && self.next - before < cx.budget && down.is_ready() {
            down.push(Row(&self.rows[self.next]), now_ns)?;
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
        (self.next - self.first) as u64
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        self.next = (at.number()? as usize).min(self.rows.len());
        self.first = self.next;
        Ok(())
    }

    fn plan(&mut self, _: ReadLimit, _: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        Ok(EndOffset {
            end: Offset(self.rows.len().to_string()),
            has_new: self.next < self.rows.len(),
            exhausted: true,
            limited: false,
        })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        (self.end, self.bounded) = ((end.number()? as usize).min(self.rows.len()), true);
        Ok(())
    }
}
