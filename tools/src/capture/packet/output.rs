//! The output of an import: events pass the filter and the gap policy, and are sent to a sink with
//! the file's times.

use super::counts::Counts;
use super::filter::Filter;
use millstream_engine::capture::{
    ConnectionInfo, Direction, FLAG_CUT, FLAG_MIDSTREAM, Gap, GapCause, Head, Ignored,
    IgnoredReason, Kind, Protocol, conflict_payload,
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

/// Packets outside the filter's time range are processed like all others, so that connections keep
/// their endpoints, numbers and positions. Their events are not written, and they have counters of
/// their own.
pub(super) struct Output<S> {
    pub sink: S,
    /// The counters of the records that are in the time range, or of those that are not, as the
    /// current record is.
    pub counts: Counts,
    /// The counters of the other records.
    other_counts: Counts,
    pub filter: Filter,
    pub policy: GapPolicy,
    /// Wall-clock time of the current record.
    pub wall_ns: i64,
    pub mono_ns: u64,
    /// Whether the current record is in the filter's time range.
    is_in_range: bool,
    /// The connections that were opened outside the time range and have no event in it so far.
    unopened: HashMap<u32, ConnectionInfo>,
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
        Self {
            sink,
            counts: Counts::default(),
            other_counts: Counts::default(),
            filter,
            policy,
            wall_ns: 0,
            mono_ns: 0,
            is_in_range: true,
            unopened: HashMap::new(),
            left: HashMap::new(),
        }
    }

    /// Starts the record whose times were set.
    pub(super) fn begin_record(&mut self) {
        let is_in_range = self.filter.takes_time(self.wall_ns);
        if is_in_range != self.is_in_range {
            self.is_in_range = is_in_range;
            std::mem::swap(&mut self.counts, &mut self.other_counts);
        }
        self.counts.packets += 1;
    }

    /// The number of records so far.
    pub(super) fn packets(&self) -> u64 {
        self.counts.packets + self.other_counts.packets
    }

    /// The number of bytes that were written so far.
    pub(super) fn data_bytes(&self) -> u64 {
        // The records outside the time range write none.
        self.counts.data_bytes + self.other_counts.data_bytes
    }

    /// Ends the output. Returns the sink, and the counters of the records in the time range, in which
    /// the other records are counted as skipped.
    pub(super) fn finish(self) -> (S, Counts) {
        let (mut counts, outside) = match self.is_in_range {
            true => (self.counts, self.other_counts),
            false => (self.other_counts, self.counts),
        };
        counts.skip_all(&outside);
        (self.sink, counts)
    }

    fn emit(
        &mut self,
        lane: Lane,
        kind: Kind,
        position: u64,
        flags: u16,
        payload: &[u8],
    ) -> Result<(), Ended> {
        if !self.is_in_range {
            return Ok(());
        }
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
        if !self.unopened.is_empty()
            && let Some(info) = self.unopened.remove(&lane.connection)
        {
            self.count_opened(&info);
            let (direction, kind, flags) = (Direction::In, Kind::Open, FLAG_MIDSTREAM);
            let open = Head { position: 0, direction, kind, flags, ..head };
            self.sink.event(&open, &info.encode())?;
        }
        Ok(self.sink.event(&head, payload)?)
    }

    fn count_opened(&mut self, info: &ConnectionInfo) {
        match info.protocol {
            Protocol::Udp => self.counts.udp_flows += 1,
            _ => self.counts.tcp_connections += 1,
        }
    }

    pub(super) fn open(
        &mut self,
        connection: u32,
        info: &ConnectionInfo,
        is_midstream: bool,
    ) -> Result<(), Ended> {
        if !self.is_in_range {
            self.unopened.insert(connection, *info);
            return Ok(());
        }
        self.count_opened(info);
        let lane = Lane { connection, direction: Direction::In };
        let flags = if is_midstream { FLAG_MIDSTREAM } else { 0 };
        self.emit(lane, Kind::Open, 0, flags, &info.encode())
    }

    pub(super) fn close(&mut self, connection: u32) -> Result<(), Ended> {
        let lane = Lane { connection, direction: Direction::In };
        self.emit(lane, Kind::Close, 0, 0, &[])?;
        self.forget(connection);
        Ok(())
    }

    /// Frees the state of a connection that has ended.
    pub(super) fn forget(&mut self, connection: u32) {
        if !self.unopened.is_empty() {
            self.unopened.remove(&connection);
        }
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
            // The rest of a broken line may be in the time range. Nothing else concerns it.
            GapPolicy::Stop | GapPolicy::Fail if !self.is_in_range => {}
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
