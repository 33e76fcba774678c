//! The durable log of a source: complete records are logged before they are processed.

use crate::connect::socket::framing::Framing;
use millstream_engine::capture::{CaptureLog, Direction, Head, Kind, Replay};
use millstream_engine::env::Env;
use millstream_engine::error::EngineError;
use std::path::PathBuf;
use std::sync::Arc;

/// Maximum number of bytes of records per block.
const BLOCK_BYTES: usize = 1 << 20;

/// The time of receipt on the query's clock and on the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingest {
    /// The monotonic time, in nanoseconds.
    pub ns: u64,
    /// The wall-clock time, in microseconds since 1970.
    pub us: i64,
}

/// The log of a source.
pub struct DurableLog {
    env: Arc<dyn Env>,
    folder: PathBuf,
    framing: Framing,
    /// The log; opened in the first step.
    log: Option<CaptureLog>,
    /// Reader of the blocks that an earlier run logged but did not commit.
    pub(super) replay: Option<Replay>,
    next_connection: u32,
    /// Number of records received since the log was created, rejected lines included.
    pub(super) lines: u64,
}

impl DurableLog {
    pub(super) fn new(env: Arc<dyn Env>, folder: PathBuf, framing: Framing) -> Self {
        let (log, replay) = (None, None);
        Self { env, folder, framing, log, replay, next_connection: 0, lines: 0 }
    }

    /// Opens the log at a stream offset. Returns a description of the damage if its end was torn.
    pub(super) fn open(&mut self, position: u64) -> Result<Option<String>, EngineError> {
        let count = |payload: &[u8]| self.framing.count(payload);
        let (log, tail, replay) = CaptureLog::open(&*self.env, &self.folder, position, count)?;
        (self.log, self.replay) = (Some(log), Some(replay));
        (self.lines, self.next_connection) = (tail.lines, tail.connections);
        Ok(tail.torn)
    }

    /// Whether received bytes are logged now: the log is open and its replay is complete.
    pub(super) fn is_live(&self) -> bool {
        self.log.is_some() && self.replay.is_none()
    }

    fn append(
        &mut self,
        (kind, connection): (Kind, u32),
        position: u64,
        payload: &[u8],
        ingest: Ingest,
    ) -> Result<(), EngineError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let head = Head {
            position,
            lines: self.lines,
            mono_ns: ingest.ns,
            wall_ns: ingest.us.saturating_mul(1000),
            connection,
            direction: Direction::In,
            kind,
            flags: 0,
        };
        log.append(&head, payload)
    }

    /// Logs the start of a connection. Returns its number.
    pub(super) fn opened(&mut self, position: u64, ingest: Ingest) -> Result<u32, EngineError> {
        let connection = self.next_connection;
        self.next_connection += 1;
        self.append((Kind::Open, connection), position, &[], ingest)?;
        Ok(connection)
    }

    /// Logs the end of a connection.
    pub(super) fn closed(
        &mut self,
        connection: u32,
        position: u64,
        ingest: Ingest,
    ) -> Result<(), EngineError> {
        self.append((Kind::Close, connection), position, &[], ingest)
    }

    /// Logs complete records. `skipped` lines before them were received but rejected. They count as
    /// stored, because their sender must not send them again. Returns the number of stored lines,
    /// rejected ones included.
    pub(super) fn keep(
        &mut self,
        connection: u32,
        skipped: u64,
        position: u64,
        records: &[u8],
        ingest: Ingest,
    ) -> Result<u64, EngineError> {
        let before = self.lines;
        self.lines += skipped;
        if records.is_empty() && skipped > 0 {
            self.append((Kind::Data, connection), position, &[], ingest)?;
        }
        let (mut at, mut rest) = (position, records);
        while !rest.is_empty() {
            let mut length = rest.len().min(BLOCK_BYTES);
            if length < rest.len() && rest[length - 1] == b'\r' {
                // A line feed that follows belongs to the same line end, so it must be in the same
                // block.
                length -= 1;
            }
            let (block, others) = rest.split_at(length);
            self.append((Kind::Data, connection), at, block, ingest)?;
            self.lines += self.framing.count(block);
            (at, rest) = (at + length as u64, others);
        }
        Ok(self.lines - before)
    }

    /// Removes the bytes before `position`, which are committed.
    pub(super) fn committed(&mut self, position: u64) {
        // Blocks that are still being replayed are kept, committed or not.
        if let (Some(log), None) = (&mut self.log, &self.replay) {
            log.committed(position);
        }
    }
}
