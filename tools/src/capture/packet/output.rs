//! The output of an import: events pass the filter and the gap policy, and are sent to a sink with
//! the file's times.

use super::counts::Counts;
use super::filter::Filter;
use millstream_engine::capture::{
    ConnectionInfo, Direction, FLAG_CUT, FLAG_MIDSTREAM, Gap, GapCause, Head, Ignored,
    IgnoredReason, Kind, conflict_payload,
};
use std::collections::HashMap;
use std::io;

/// Receives the events of an import.
pub(crate) trait EventSink {
    /// Starts a file, whose times have this precision.
    fn begin_file(&mut self, precision_ns: u32);
    /// Receives an event.
    fn event(&mut self, head: &Head, payload: &[u8]) -> io::Result<()>;
}

/// What happens to the data of a TCP stream after a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GapPolicy {
    /// The data after the gap is kept.
    #[default]
    Keep,
    /// All later data of this direction of the connection is dropped.
    Stop,
    /// The data continues at the next line.
    SkipLine,
    /// The import fails.
    Fail,
}

/// The data that the gap policy drops from a direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Rest,
    Line,
}

/// Why an import ended early.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The sink failed.
    Sink(io::Error),
    /// There is a gap, and the policy is to fail.
    Gap(String),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Sink(error)
    }
}

pub(super) struct Output<S> {
    pub sink: S,
    pub counts: Counts,
    pub filter: Filter,
    pub policy: GapPolicy,
    /// Wall-clock time of the current record.
    pub wall_ns: i64,
    pub mono_ns: u64,
    left: HashMap<(u32, bool), Left>,
}

/// One direction of a connection.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    pub connection: u32,
    pub direction: Direction,
}

impl<S: EventSink> Output<S> {
    pub(super) fn new(sink: S, filter: Filter, policy: GapPolicy) -> Self {
        let (counts, left) = (Counts::default(), HashMap::new());
        Self { sink, counts, filter, policy, wall_ns: 0, mono_ns: 0, left }
    }

    fn emit(
        &mut self,
        lane: Lane,
        kind: Kind,
        position: u64,
        flags: u16,
        payload: &[u8],
    ) -> Result<(), Ended> {
        let is_data = !matches!(kind, Kind::Open | Kind::Close);
        if !self.filter.takes_event(lane.connection, lane.direction, is_data) {
            if kind == Kind::Data {
                self.counts.left_out_bytes += payload.len() as u64;
            }
            return Ok(());
        }
        if kind == Kind::Data {
            self.counts.data_bytes += payload.len() as u64;
        }
        let head = Head {
            position,
            lines: 0,
            mono_ns: self.mono_ns,
            wall_ns: self.wall_ns,
            connection: lane.connection,
            direction: lane.direction,
            kind,
            flags,
        };
        Ok(self.sink.event(&head, payload)?)
    }

    pub(super) fn open(
        &mut self,
        connection: u32,
        info: &ConnectionInfo,
        is_midstream: bool,
    ) -> Result<(), Ended> {
        let lane = Lane { connection, direction: Direction::In };
        let flags = if is_midstream { FLAG_MIDSTREAM } else { 0 };
        self.emit(lane, Kind::Open, 0, flags, &info.encode())
    }

    pub(super) fn close(&mut self, connection: u32) -> Result<(), Ended> {
        self.forget(connection);
        let lane = Lane { connection, direction: Direction::In };
        self.emit(lane, Kind::Close, 0, 0, &[])
    }

    /// Frees the state of a connection that has ended.
    pub(super) fn forget(&mut self, connection: u32) {
        if !self.left.is_empty() {
            self.left.remove(&(connection, false));
            self.left.remove(&(connection, true));
        }
    }

    pub(super) fn data(&mut self, lane: Lane, at: u64, data: &[u8]) -> Result<(), Ended> {
        if self.left.is_empty() {
            return self.emit(lane, Kind::Data, at, 0, data);
        }
        self.data_behind_gap(lane, at, data)
    }

    #[cold]
    fn data_behind_gap(&mut self, lane: Lane, at: u64, data: &[u8]) -> Result<(), Ended> {
        let key = (lane.connection, lane.direction == Direction::Out);
        let skipped = match self.left.get(&key) {
            None => 0,
            Some(Left::Rest) => data.len(),
            Some(Left::Line) => match data.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.left.remove(&key);
                    end + 1
                }
                None => data.len(),
            },
        };
        if skipped > 0 {
            self.counts.left_out_bytes += skipped as u64;
            let gap = Gap::of_bytes(skipped as u64, GapCause::Skipped);
            self.emit(lane, Kind::Gap, at, 0, &gap.encode())?;
        }
        if skipped == data.len() {
            return Ok(());
        }
        self.emit(lane, Kind::Data, at + skipped as u64, 0, &data[skipped..])
    }

    pub(super) fn gap(&mut self, lane: Lane, at: u64, gap: Gap) -> Result<(), Ended> {
        if !self.filter.takes_event(lane.connection, lane.direction, true) {
            return Ok(());
        }
        self.counts.gaps += 1;
        match gap.cause {
            GapCause::Cut => self.counts.gap_bytes_cut += gap.bytes,
            _ => self.counts.gap_bytes_lost += gap.bytes,
        }
        let key = (lane.connection, lane.direction == Direction::Out);
        match self.policy {
            GapPolicy::Keep => {}
            GapPolicy::Stop => drop(self.left.insert(key, Left::Rest)),
            GapPolicy::SkipLine => drop(self.left.entry(key).or_insert(Left::Line)),
            GapPolicy::Fail => {
                return Err(Ended::Gap(format!(
                    "connection {}, {} byte {at}: {} bytes are missing ({})",
                    lane.connection,
                    if lane.direction == Direction::In { "to the service," } else { "from it," },
                    gap.bytes,
                    gap.cause.name(),
                )));
            }
        }
        self.emit(lane, Kind::Gap, at, 0, &gap.encode())
    }

    pub(super) fn half_close(&mut self, lane: Lane, at: u64) -> Result<(), Ended> {
        self.emit(lane, Kind::HalfClose, at, 0, &[])
    }

    pub(super) fn reset(&mut self, lane: Lane, at: u64) -> Result<(), Ended> {
        self.emit(lane, Kind::Reset, at, 0, &[])
    }

    pub(super) fn conflict(&mut self, lane: Lane, at: u64, bytes: u64) -> Result<(), Ended> {
        self.counts.conflicts += 1;
        self.counts.conflict_bytes += bytes;
        self.emit(lane, Kind::Conflict, at, 0, &conflict_payload(bytes))
    }

    pub(super) fn ignored(
        &mut self,
        lane: Lane,
        at: u64,
        bytes: u64,
        reason: IgnoredReason,
    ) -> Result<(), Ended> {
        match reason {
            IgnoredReason::AfterFin => self.counts.ignored_after_fin += 1,
            IgnoredReason::AfterReset => self.counts.ignored_after_reset += 1,
        }
        self.emit(lane, Kind::Ignored, at, 0, &Ignored { bytes, reason }.encode())
    }

    /// Writes a datagram of `length` bytes, of which `data` was captured. If that is shorter, the
    /// rest becomes a gap, and both events are marked as cut.
    pub(super) fn datagram(
        &mut self,
        lane: Lane,
        at: u64,
        data: &[u8],
        length: usize,
    ) -> Result<(), Ended> {
        self.counts.datagrams += 1;
        if data.len() == length {
            return self.emit(lane, Kind::Data, at, 0, data);
        }
        self.counts.cut_datagrams += 1;
        self.counts.gap_bytes_cut += (length - data.len()) as u64;
        self.emit(lane, Kind::Data, at, FLAG_CUT, data)?;
        let gap = Gap::of_bytes((length - data.len()) as u64, GapCause::Cut);
        self.emit(lane, Kind::Gap, at + data.len() as u64, FLAG_CUT, &gap.encode())
    }
}
