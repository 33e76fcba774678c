//! The two sides of a join, and the exchange that sends their rows to the instances that own the
//! keys.

use super::super::stages::Scratch;
use super::state_limit::SideFlow;
use crate::table::physical::aggregate::hash_aggregate::{Key, write_keys};
use crate::table::row::{Row, RowBuf};
use millstream_engine::checkpoint::key_group::{hash_bytes, instance_of};
use millstream_engine::error::EngineError;
use millstream_engine::event::{Event, Record};
use millstream_engine::runtime::exchange::Outbox;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use std::sync::Arc;

/// A side of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum JoinSide {
    Left,
    Right,
}

impl JoinSide {
    /// Both sides, the left side first.
    pub const BOTH: [JoinSide; 2] = [JoinSide::Left, JoinSide::Right];

    /// The index of the side in arrays with a value per side: 0 is left, 1 is right.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The opposite side.
    #[inline]
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    /// The name of the side in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

/// A row on its way to an instance, with the side that it belongs to.
pub(in super::super) struct SidedRow {
    pub side: JoinSide,
    /// The hash of the join key, for prefetching.
    pub hash: u64,
    pub row: RowBuf,
}

/// Sends the rows of one side to the instances that own their keys.
pub(in super::super) struct SideOutbox {
    side: JoinSide,
    /// The side's flow control and the index of this outbox in it; `None` if the join's state is
    /// not limited.
    flow: Option<(Arc<SideFlow>, usize)>,
    keys: Vec<Key>,
    key: Vec<u8>,
    scratch: Scratch,
    outbox: Outbox<SidedRow>,
}

impl SideOutbox {
    pub fn new(side: JoinSide, keys: Vec<Key>, outbox: Outbox<SidedRow>) -> Self {
        Self { side, flow: None, keys, key: Vec::new(), scratch: Scratch::default(), outbox }
    }

    /// Sets the flow control. While it pauses the side, the outbox accepts no rows.
    pub fn with_flow(self, flow: Option<(Arc<SideFlow>, usize)>) -> Self {
        Self { flow, ..self }
    }
}

impl Stage for SideOutbox {
    fn is_ready(&mut self) -> bool {
        self.flow.as_ref().is_none_or(|(flow, _)| !flow.is_held()) && self.outbox.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if let Some((flow, outbox)) = &self.flow {
            flow.set_watermark(*outbox, micros);
        }
        self.outbox.broadcast(|| Event::Watermark(micros));
        Ok(())
    }
    fn marker(&mut self, epoch: u64) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::Marker(epoch));
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::End);
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(self.outbox.flush())
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for SideOutbox {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        let lanes = self.outbox.lanes();
        self.key.clear();
        self.scratch.reset();
        let hash = match write_keys(&self.keys, &self.scratch, row, &mut self.key) {
            Ok(()) => hash_bytes(&self.key),
            // The instance reports the error, unless it needs no key of the row.
            Err(_) if lanes == 1 => 0,
            Err(error) => return Err(error),
        };
        let lane = instance_of(hash, lanes);
        let value = SidedRow { side: self.side, hash, row: RowBuf::from_slice(row.0) };
        self.outbox.send(lane, Event::Record(Record { value, ingest_ns }));
        Ok(())
    }
}
