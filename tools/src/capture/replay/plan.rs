//! Reads a capture ahead of its replay, as batches of events with times relative to the start.

use super::Speed;
use super::lines::Lines;
use super::shift::{ShiftCounts, Shifter, TimeField};
use crate::capture::events::{Opened, Selection};
use crate::capture::merge;
use crate::failure::Failure;
use crossbeam_channel::{Receiver, Sender, bounded};
use millstream_engine::capture::{
    ConnectionInfo, Damage, Direction, FLAG_REPEATED, Gap, Head, Kind, Protocol,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Payload bytes at which a batch is sent.
const BATCH_BYTES: usize = 256 << 10;
const BATCHES_AHEAD: usize = 16;
/// Maximum number of events per batch.
const BATCH_EVENTS: usize = 4096;
/// If times are moved, the replay fails if no time was found in this number of lines.
const LINES_WITHOUT_TIME: u64 = 1_000;
/// If times are moved, the replay fails if no time was found in this number of bytes.
const BYTES_WITHOUT_TIME: usize = 8 << 20;

/// An event to replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// Time since the first event at the recorded speed, over all loops and with shortened pauses,
    /// in nanoseconds.
    pub at_ns: u64,
    /// The connection's number over all loops.
    pub connection: u64,
    pub kind: Kind,
    pub is_udp: bool,
    from: usize,
    to: usize,
}

impl Event {
    /// A datagram of a connection.
    #[cfg(test)]
    pub(super) fn datagram(connection: u64) -> Self {
        Self { is_udp: true, ..Self::of_stream(connection, Kind::Data) }
    }

    /// An event of a TCP connection.
    #[cfg(test)]
    pub(super) fn of_stream(connection: u64, kind: Kind) -> Self {
        Self { at_ns: 0, connection, kind, is_udp: false, from: 0, to: 0 }
    }
}

/// Events and their payloads.
#[derive(Default)]
pub(super) struct Events {
    events: Vec<Event>,
    bytes: Vec<u8>,
}

impl Events {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Event, &[u8])> {
        self.events.iter().map(|event| (event, &self.bytes[event.from..event.to]))
    }
}

/// The selected events of a capture, and how they are replayed.
pub(super) struct Options {
    pub selection: Selection,
    pub speed: Speed,
    pub loops: u64,
    /// The maximum pause; longer pauses are shortened to it.
    pub max_gap_ns: Option<u64>,
    /// The field of a line whose time is moved.
    pub shift_time: Option<TimeField>,
}

/// The differences between a replay and its capture.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gaps {
    /// The number of shortened pauses.
    pub shortened: u64,
    /// The total time removed from pauses, in nanoseconds.
    pub cut_ns: u64,
    /// Bytes of the selected direction that are missing in the capture, counted in each loop.
    pub missing_bytes: u64,
    /// Datagrams of unknown length that are missing in the capture, counted in each loop.
    pub missing_datagrams: u64,
}

/// The report of a capture's reader at the end: gaps, damage, and the result of moving times.
#[derive(Default)]
pub(super) struct LeftOut {
    pub gaps: Gaps,
    pub damage: Vec<(PathBuf, Damage)>,
    /// The numbers of changed and unchanged lines, if times were moved.
    pub shifted: Option<ShiftCounts>,
}

type Outcome = Result<Box<LeftOut>, Failure>;

pub(super) enum Batch {
    Events(Events),
    End(Outcome),
}

/// The events of a capture in replay order.
pub(super) struct Plan {
    pub batches: Receiver<Batch>,
}

impl Plan {
    /// Starts a thread that reads the files and sends batches of events.
    pub(super) fn start(files: Vec<PathBuf>, options: Options, stop: Arc<AtomicBool>) -> Self {
        let (sender, batches) = bounded(BATCHES_AHEAD);
        let loops = options.loops;
        let field = options.shift_time.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        std::thread::spawn(move || {
            let mut reading = Reading {
                sender,
                selection: options.selection,
                max_gap_ns: options.max_gap_ns,
                speed: options.speed,
                start_wall_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
                lines: field.map(|field| Lines::new(Shifter::new(field))),
                stop,
                batch: Events::default(),
                clock: Clock::default(),
                gaps: Gaps::default(),
                first_connection: 0,
                connections: 0,
                udp: Default::default(),
                is_gone: false,
            };
            let outcome = reading.all(&files, loops);
            reading.send();
            drop(reading.sender.send(Batch::End(outcome)));
        });
        Self { batches }
    }
}

/// Converts recorded times to replay times: shortens pauses, and continues over loops.
#[derive(Default)]
struct Clock {
    last_ns: Option<u64>,
    at_ns: u64,
}

struct Reading {
    sender: Sender<Batch>,
    selection: Selection,
    max_gap_ns: Option<u64>,
    speed: Speed,
    /// The wall-clock time at which the replay began.
    start_wall_ns: i64,
    /// Changes the times in lines.
    lines: Option<Lines<Event>>,
    stop: Arc<AtomicBool>,
    batch: Events,
    clock: Clock,
    gaps: Gaps,
    /// The number of connection 0 in this loop.
    first_connection: u64,
    /// The number of connections in this loop so far.
    connections: u64,
    /// Connections that consist of datagrams.
    udp: std::collections::HashSet<u64>,
    is_gone: bool,
}

impl Reading {
    fn all(&mut self, files: &[PathBuf], loops: u64) -> Outcome {
        let mut damage = Vec::new();
        for round in 0..loops {
            // A loop starts at the time at which the previous one ended.
            self.clock.last_ns = None;
            self.first_connection += self.connections;
            self.connections = 0;
            let selection = Selection { direction: None, ..self.selection.clone() };
            let take = |_, head: &Head, payload: &[u8]| {
                self.add(head, payload)?;
                if self.is_gone || self.stop.load(Ordering::Relaxed) {
                    return Err(Failure::Failed("interrupted".to_string()));
                }
                Ok(())
            };
            let found = merge::read(files, &selection, Opened::WithOpen, take)?;
            if round == 0 {
                damage = found;
            }
            self.end_lines();
        }
        let shifted = self.lines.as_mut().map(|lines| lines.shifter().counts);
        if shifted.is_some_and(|shifted| shifted.moved == 0 && shifted.lines() > 0) {
            return Err(self.no_time());
        }
        Ok(Box::new(LeftOut { gaps: self.gaps, damage, shifted }))
    }

    fn add(&mut self, head: &Head, payload: &[u8]) -> Result<(), Failure> {
        let connection = self.first_connection + u64::from(head.connection);
        // A repeated open event is not played, but tells the protocol if the part of the capture
        // that is replayed begins after the first one.
        if head.kind == Kind::Open
            && let Some(info) = ConnectionInfo::decode(payload)
            && info.protocol == Protocol::Udp
        {
            self.udp.insert(connection);
        }
        let is_played = match head.kind {
            Kind::Open => head.flags & FLAG_REPEATED == 0,
            Kind::Close => true,
            // A reset by either side ends the connection.
            Kind::Reset => true,
            Kind::Data | Kind::HalfClose | Kind::Gap => head.direction == self.direction(),
            _ => false,
        };
        if !is_played {
            return Ok(());
        }
        self.connections = self.connections.max(u64::from(head.connection) + 1);
        if head.kind == Kind::Gap {
            if let Some(gap) = Gap::decode(payload) {
                self.gaps.missing_bytes += gap.bytes;
                self.gaps.missing_datagrams += u64::from(gap.datagrams);
            }
            // The end of a datagram ends its last line, so a gap leaves no incomplete line.
            if let Some(lines) = self.lines.as_mut().filter(|_| !self.udp.contains(&connection)) {
                lines.pass_line(connection);
            }
            return Ok(());
        }
        let at_ns = self.advance(head.mono_ns);
        let is_udp = self.udp.contains(&connection);
        if head.kind == Kind::Close {
            self.udp.remove(&connection);
        }
        let event = Event { at_ns, connection, kind: head.kind, is_udp, from: 0, to: 0 };
        let data = if head.kind == Kind::Data { payload } else { &[] };
        if self.lines.is_none() {
            self.put(event, data);
            return Ok(());
        }
        self.shift(event, data)
    }

    /// Moves the times of lines that the event completes, and passes on the events before the first
    /// incomplete line. Fails if no time has been found in the first [`LINES_WITHOUT_TIME`] lines
    /// or [`BYTES_WITHOUT_TIME`] bytes. Does nothing without `--shift-time`.
    fn shift(&mut self, event: Event, data: &[u8]) -> Result<(), Failure> {
        let played_ns = self.played_ns(event.at_ns);
        let Some(lines) = &mut self.lines else { return Ok(()) };
        match event.kind {
            Kind::HalfClose | Kind::Close => lines.end(event.connection, played_ns),
            Kind::Reset => lines.cut(event.connection),
            _ => {}
        }
        if matches!(event.kind, Kind::Reset | Kind::Close) {
            lines.shifter().end_stream(event.connection);
        }
        lines.push(event, event.connection, data, played_ns);
        if event.is_udp {
            lines.end(event.connection, played_ns);
        }
        self.put_lines();
        let Some(lines) = &mut self.lines else { return Ok(()) };
        let counts = lines.shifter().counts;
        let is_enough =
            counts.lines() >= LINES_WITHOUT_TIME || self.batch.bytes.len() > BYTES_WITHOUT_TIME;
        if counts.moved == 0 && is_enough {
            return Err(self.no_time());
        }
        Ok(())
    }

    /// Ends all streams at the end of a loop.
    fn end_lines(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.cut_all();
            lines.shifter().begin_loop();
        }
        self.put_lines();
    }

    fn put_lines(&mut self) {
        while let Some(waiting) = self.lines.as_mut().and_then(Lines::pop) {
            self.put(waiting.event, &waiting.bytes);
        }
    }

    /// The wall-clock time at which an event is played.
    fn played_ns(&self, at_ns: u64) -> i64 {
        let after_ns = self.speed.scale(at_ns).unwrap_or(0);
        self.start_wall_ns.saturating_add(i64::try_from(after_ns).unwrap_or(i64::MAX))
    }

    fn no_time(&mut self) -> Failure {
        let Some(shifter) = self.lines.as_mut().map(Lines::shifter) else {
            return Failure::Failed("no times are moved".to_string());
        };
        let (field, counts) = (shifter.field(), shifter.counts);
        Failure::Wrong(format!(
            "SHIFT_TIME_NOT_FOUND: none of the first {} lines has a time that can be moved in {field}. \
             A time is a date such as 2026-03-01T12:30:00.25Z, or a number of seconds, milliseconds, \
             microseconds or nanoseconds since 1970. Look at the lines with `millstream export \
             --format text`",
            counts.lines()
        ))
    }

    fn put(&mut self, event: Event, data: &[u8]) {
        let from = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(data);
        let to = self.batch.bytes.len();
        self.batch.events.push(Event { from, to, ..event });
        if to >= BATCH_BYTES || self.batch.events.len() >= BATCH_EVENTS {
            self.send();
        }
    }

    fn direction(&self) -> Direction {
        self.selection.direction.map_or(Direction::In, |direction| direction.direction())
    }

    fn advance(&mut self, mono_ns: u64) -> u64 {
        // An event without a time follows the one before it.
        if mono_ns == 0 {
            return self.clock.at_ns;
        }
        let last_ns = self.clock.last_ns.unwrap_or(mono_ns);
        // The clock of a log may have been set back between two starts; then there is no pause.
        let mut pause_ns = mono_ns.saturating_sub(last_ns);
        if let Some(most) = self.max_gap_ns.filter(|most| pause_ns > *most) {
            self.gaps.shortened += 1;
            self.gaps.cut_ns += pause_ns - most;
            pause_ns = most;
        }
        self.clock.last_ns = Some(mono_ns);
        self.clock.at_ns += pause_ns;
        self.clock.at_ns
    }

    /// Sends the batch to the replaying thread. If times are moved, nothing is sent from the first
    /// line on until a time was found.
    fn send(&mut self) {
        let counts = self.lines.as_mut().map(|lines| lines.shifter().counts);
        if counts.is_some_and(|counts| counts.moved == 0 && counts.lines() > 0) {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if !batch.events.is_empty() {
            self.is_gone |= self.sender.send(Batch::Events(batch)).is_err();
        }
    }
}
