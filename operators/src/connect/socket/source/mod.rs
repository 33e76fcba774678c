//! The socket source: reads lines from a sender that it connects to (as Spark's source does), from
//! the clients of a listener, or from datagrams.
//!
//! *Clients.* A listener serves up to `maxConnections` clients on the worker of its tasklet.
//! Several readable clients take turns with one read of at most 64 KiB each, so neither a fast nor
//! a silent client blocks another. The lines of a client stay in order. Lines of different clients
//! are in the order in which the source reads their ends. A client beyond `maxConnections` is
//! accepted and closed at once. A listener accepts more clients when no client is readable, and
//! after every 64 reads.
//!
//! *Parts.* With `numPartitions` a listener is served by that many sources, possibly on several
//! workers. A source with the fewest clients accepts the next one.
//!
//! *Framing.* A line ends with LF, CRLF or a lone CR, or with `lineSep '\n'` only with LF (see
//! [`line_ends`](crate::connect::socket::framing::line)). A line that is longer than
//! `maxLineLength` or not UTF-8 is counted and rejected
//! ([`BadRecords`](crate::connect::bad_records::BadRecords)); the other lines of its client are not
//! affected. A last line without an end is a line when the stream ends. If the peer may return
//! (`atEnd` is `reconnect`, or the source listens) the line is dropped instead, and counted as
//! rejected unless the source acknowledges lines. A datagram is a record, or contains lines.
//!
//! *Memory.* A connection buffers only its unfinished line. All unfinished lines together have at
//! most `maxUnfinishedBytes` bytes; beyond that the longest one is rejected.
//!
//! *Offsets* count the bytes of complete lines, or of datagrams with their length fields. Without
//! `durable`, what was received between the last commit and a crash is lost, as in Spark. With
//! `durable`, complete records are written to a
//! [durable log](crate::connect::socket::durable_log) before they are processed, and a restart
//! reads them again. Bytes that were in the kernel's socket buffer when the process died are not
//! logged, nor is the unfinished line. With `acknowledge` the source sends the peer the number of
//! complete lines that it has stored, as a decimal number on a line of its own, on connecting and
//! after each read. With one sender at a time the number counts the lines over the life of the log.
//! A sender that continues at that line after a reconnect loses no line and repeats none. With many
//! senders it counts the lines of the connection.
//!
//! *Backpressure.* While the source does not read, TCP slows the senders down; the kernel drops
//! datagrams when its buffer is full.
//!
//! *Threads.* The source runs on the worker of its tasklet. The first look-up of a name and the
//! first attempt to connect are made on the thread that starts the query.

mod read_loop;
use super::connection::{CUT_OFF, ReadState, TOO_LONG};
use super::framing::{FrameBuffer, Framing};
use super::listener::{AcceptTurns, Listener};
use super::options::{AtEnd, SocketConfig};
use crate::connect::socket::connection_counts::ConnectionCounts;
use crate::connect::socket::connection_set::Connections;
use crate::connect::socket::connector::Connector;
use crate::connect::socket::durable_log::{DurableLog, Ingest};
use crate::connect::socket::source::read_loop::ReadOutcome;
use crate::connect::source_counters::SourceCounters;
use crate::table::row::{Row, RowWriter};
use millstream_engine::capture::Kind;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::mio::net::UdpSocket;
use millstream_engine::mio::{Interest, Registry, Token};
use millstream_engine::runtime::stage::{Io, Push};
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Number of bytes at which a micro-batch reads no more.
const STAGE_BYTES: usize = 64 * 1024 * 1024;
/// Maximum number of turns of the read loop for one micro-batch.
const STAGE_TURNS: usize = 1 << 18;

/// The intended send time of line 0, 1, 2 …, on the query's clock in nanoseconds.
pub type IntendedTimes = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

/// The origin of the source's records.
pub(super) enum Peers {
    /// The source connects to a sender.
    Dial(Connector),
    /// Clients connect to the source.
    Listen(Listening),
    /// The source receives datagrams and has no connections.
    Datagrams(UdpSocket),
    /// The source has ended: there will be no more data.
    Ended,
}

/// The state of a listener.
pub(super) struct Listening {
    pub listener: Listener,
    pub parts: AcceptTurns,
    pub part: usize,
    /// Whether a client may be waiting to be accepted.
    pub waits: bool,
    /// Accept no client before this time, because the process is out of file descriptors.
    pub not_before_ns: u64,
}

/// The socket source.
pub struct SocketSource {
    pub(super) config: SocketConfig,
    pub(super) origin: Peers,
    pub(super) connections: Connections,
    pub(super) reading: ReadState,
    pub(super) framing: Framing,
    pub(super) staged: FrameBuffer,
    pub(super) durable_log: Option<DurableLog>,
    pub(super) registry: Option<Registry>,
    pub(super) token: Token,
    pub(super) bound: Option<u64>,
    /// Whether the source was resumed from a checkpoint and nothing has been committed since.
    pub(super) resumed: bool,
    pub(super) planned_once: bool,
    pub(super) ingest: Ingest,
    /// Reads that are staged for a micro-batch: the position after each, and its time.
    pub(super) staged_reads: VecDeque<(u64, Ingest)>,
    /// Number of reads since the source last polled for other clients and connections.
    pub(super) reads: u32,
    /// Bytes read from connections in this run, including rejected lines.
    pub(super) bytes_read: u64,
    pub(super) next_idle_check_ns: u64,
    /// A notice that waits until the callback for notices is set.
    pub(super) pending_notice: Option<String>,
    pub(super) told_clients: u32,
    pub(super) told_out_of_files: bool,
    pub(super) was_connected: bool,
    pub(super) row: Vec<u8>,
    pub(super) counters: SourceCounters,
    pub(super) counts: Arc<ConnectionCounts>,
    pub(super) notice: fn(&str),
    pub(super) intended: Option<IntendedTimes>,
    pub(super) lines: u64,
}

impl SocketSource {
    pub(super) fn new(config: SocketConfig, origin: Peers, journal: Option<DurableLog>) -> Self {
        let counts = Arc::new(ConnectionCounts::default());
        let connections = Some(counts.clone());
        let counters = SourceCounters { connections, ..SourceCounters::default() };
        let framing = config.framing();
        Self {
            reading: ReadState::new(config.ends, config.max_line, counters.bad.clone()),
            staged: FrameBuffer::new(framing),
            config,
            origin,
            connections: Connections::default(),
            framing,
            durable_log: journal,
            registry: None,
            token: Token(0),
            bound: None,
            resumed: false,
            planned_once: false,
            ingest: Ingest::default(),
            staged_reads: VecDeque::new(),
            reads: 0,
            bytes_read: 0,
            next_idle_check_ns: 0,
            pending_notice: None,
            told_clients: 0,
            told_out_of_files: false,
            was_connected: false,
            row: Vec::new(),
            counters,
            counts,
            notice: |_| {},
            intended: None,
            lines: 0,
        }
    }

    /// The counters, to be read from other threads.
    pub fn counters(&self) -> SourceCounters {
        self.counters.clone()
    }

    pub(super) fn counts(&self) -> &ConnectionCounts {
        &self.counts
    }

    /// Sets a callback for notices, such as a peer that connects or disconnects.
    pub fn on_notice(&mut self, notice: fn(&str)) {
        self.notice = notice;
        if let Some(text) = self.pending_notice.take() {
            notice(&text);
        }
    }

    pub(super) fn notify_when_attached(&mut self, text: String) {
        self.pending_notice = Some(text);
    }

    /// Measures latency from these intended send times.
    pub fn intended_times(&mut self, times: IntendedTimes) {
        self.intended = Some(times);
    }

    fn is_datagrams(&self) -> bool {
        matches!(self.origin, Peers::Datagrams(_))
    }

    // ---- the log ----

    fn is_replaying(&self) -> bool {
        self.durable_log.as_ref().is_some_and(|journal| journal.replay.is_some())
    }

    /// Stages the next block of the log as if it came from a socket, without bytes that are staged
    /// already. After the last block, ends the replay. Does nothing if no log is replayed.
    fn read_log(&mut self, cx: &StepCx<'_>) -> Result<(), EngineError> {
        let Some(journal) = &mut self.durable_log else { return Ok(()) };
        let Some(mut replay) = journal.replay.take() else { return Ok(()) };
        self.ingest.ns = cx.env.now_ns();
        match replay.next_block()? {
            None => return self.end_replay(cx),
            Some((head, payload)) => match head.kind {
                Kind::Open | Kind::Close => self.drop_partial(),
                Kind::Data => {
                    let wanted = self.staged.end_position();
                    let known = wanted.saturating_sub(head.position).min(payload.len() as u64);
                    let payload = &payload[known as usize..];
                    self.ingest.us = head.wall_ns.div_euclid(1000);
                    let room = self.staged.room(payload.len());
                    room.copy_from_slice(payload);
                    if let Framing::Lines(ends) = self.framing {
                        ends.close(room);
                    }
                    self.staged.add(payload.len());
                }
                // A durable source logs no other kinds of events.
                _ => {}
            },
        }
        if let Some(journal) = &mut self.durable_log {
            journal.replay = Some(replay);
        }
        Ok(())
    }

    /// Ends the replay of the log and starts reading from connections.
    fn end_replay(&mut self, cx: &StepCx<'_>) -> Result<(), EngineError> {
        self.drop_partial();
        self.ingest.us = cx.env.wall_us();
        let Some(journal) = &mut self.durable_log else { return Ok(()) };
        let position = self.staged.end_position();
        if let Some(connection) = self.connections.get(0) {
            connection.number = journal.opened(position, self.ingest)?;
            self.acknowledge(0);
        } else {
            // Logs the end of the connection, so that a later replay drops the same bytes.
            journal.closed(0, position, self.ingest)?;
        }
        Ok(())
    }

    /// Drops the beginning of a line whose end was not logged.
    fn drop_partial(&mut self) {
        if let Some((offset, bytes)) = self.staged.cut_partial()
            && !self.config.acknowledge
        {
            self.reading.aside.add(offset, bytes.len() as u64, CUT_OFF, bytes);
        }
    }

    // ---- emitting ----

    /// Passes the recorded events to the recorder's thread if they have waited long enough. Called
    /// when nothing is read.
    fn hand_recording_over(&mut self, cx: &mut StepCx<'_>) {
        if let Some(recorder) = &mut self.reading.recorder
            && let Some(due_ns) = recorder.idle(cx.env.now_ns())
        {
            cx.wake_at(due_ns);
        }
    }

    /// Emits staged records and rejects bad ones. Returns their number.
    fn emit<D>(&mut self, down: &mut D, budget: usize) -> Result<usize, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let mut emitted = 0;
        while emitted < budget && down.is_ready() {
            if self.bound.is_some_and(|bound| self.staged.position >= bound) {
                break;
            }
            let Some(frame) = self.staged.first() else { break };
            let range = frame.at..frame.at + frame.length;
            if frame.length > self.config.max_line {
                let (position, length) = (self.staged.position, frame.length as u64);
                self.reading.aside.tell_up_to(position);
                self.counters.bad.add(
                    None,
                    (position, length),
                    TOO_LONG,
                    &self.staged.bytes()[range],
                );
            } else {
                self.emit_record(down, range)?;
            }
            self.staged.consume(frame.whole);
            emitted += 1;
        }
        self.reading.aside.tell_up_to(self.staged.position);
        Ok(emitted)
    }

    /// The time of the read that completed the first staged record of a micro-batch.
    fn staged_ingest(&mut self) -> Ingest {
        while let Some((end, ingest)) = self.staged_reads.front().copied() {
            if self.staged.position < end {
                return ingest;
            }
            self.staged_reads.pop_front();
        }
        self.ingest
    }

    #[inline]
    fn emit_record<D>(
        &mut self,
        down: &mut D,
        range: std::ops::Range<usize>,
    ) -> Result<(), EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let ingest = match self.staged_reads.is_empty() {
            true => self.ingest,
            false => self.staged_ingest(),
        };
        let line = &self.staged.bytes()[range];
        if std::str::from_utf8(line).is_err() {
            let length = line.len() as u64;
            self.reading.aside.tell_up_to(self.staged.position);
            self.counters.bad.add(None, (self.staged.position, length), "not UTF-8", line);
            return Ok(());
        }
        self.row.clear();
        let width = if self.config.include_timestamp { 2 } else { 1 };
        let mut writer = RowWriter::new(&mut self.row, width);
        writer.bytes(0, line);
        if self.config.include_timestamp {
            writer.long(1, ingest.us);
        }
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.fetch_add(1, Ordering::Relaxed);
        let ingest_ns = match &self.intended {
            Some(times) => times(self.lines),
            None => ingest.ns,
        };
        self.lines += 1;
        down.push(Row(&self.row), ingest_ns)
    }

    /// Ends an epoch of an earlier run after the available bytes, because the rest was lost with
    /// that run.
    fn lose_up_to(&mut self, end: u64) {
        (self.notice)(&format!(
            "socket source: {} bytes that were received before the restart are lost; option \
             durable 'true' keeps what is received",
            end - self.staged.position
        ));
        self.staged.position = end;
    }

    fn is_exhausted(&self) -> bool {
        matches!(self.origin, Peers::Ended)
            && self.config.at_end == AtEnd::Stop
            && self.staged.is_empty()
    }

    /// Continues a batch that ends at `bound`, of which this step has emitted `emitted` records.
    /// Takes records from the log while it is replayed.
    fn poll_bound<D>(
        &mut self,
        bound: u64,
        emitted: usize,
        down: &mut D,
        cx: &StepCx<'_>,
    ) -> Result<Polled, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        if emitted == 0 && self.staged.position < bound && down.is_ready() {
            if self.is_replaying() {
                self.read_log(cx)?;
            } else if self.resumed {
                self.lose_up_to(bound);
            }
        }
        if self.staged.position < bound {
            return Ok(Polled::Emitted);
        }
        self.bound = None;
        Ok(Polled::AtEndOffset)
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for SocketSource {
    fn name(&self) -> &str {
        "socket"
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        let fails = |error| EngineError::runtime("register a socket", error);
        if let Some(registry) = io.registry {
            let owned = registry.try_clone();
            self.registry =
                Some(owned.map_err(|error| EngineError::runtime("share a poll", error))?);
        }
        self.token = io.token();
        if let Some(journal) = &mut self.durable_log
            && let Some(torn) = journal.open(self.staged.position)?
        {
            (self.notice)(&format!(
                "socket source: the end of the capture log was damaged; it was truncated at {torn}"
            ));
        }
        let worker = self.registry.as_ref().map(|registry| (registry, self.token));
        match (&mut self.origin, worker) {
            (Peers::Listen(listening), worker) => {
                listening.parts.set_waker(listening.part, io.waker.clone());
                self.connections.watch(&mut listening.listener, worker)?;
            }
            (Peers::Dial(_), Some((registry, token))) => {
                if let Some(connection) = self.connections.get(0) {
                    let interest = connection.interest();
                    registry.register(&mut connection.stream, token, interest).map_err(fails)?;
                }
            }
            (Peers::Datagrams(socket), Some((registry, token))) => {
                registry.register(socket, token, Interest::READABLE).map_err(fails)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let mut emitted = self.emit(down, cx.budget)?;
        if let Some(bound) = self.bound {
            return self.poll_bound(bound, emitted, down, cx);
        }
        if emitted > 0 || !down.is_ready() {
            return Ok(if emitted > 0 { Polled::Emitted } else { Polled::Idle });
        }
        if self.is_replaying() {
            self.read_log(cx)?;
            return Ok(Polled::Emitted);
        }
        // A read without a complete line is progress too, because there may be more bytes in the
        // socket.
        let mut turns = 0;
        while self.poll_once(cx)? == ReadOutcome::Progress {
            turns += 1;
            emitted += self.emit(down, cx.budget - emitted)?;
            let is_full = emitted >= cx.budget || !self.staged.is_empty() || turns >= cx.budget;
            if is_full || !(self.connections.has_ready() || self.is_datagrams()) {
                break;
            }
        }
        if turns > 0 {
            return Ok(Polled::Emitted);
        }
        self.hand_recording_over(cx);
        self.staged.shrink();
        Ok(if self.is_exhausted() { Polled::Exhausted } else { Polled::Idle })
    }

    fn position(&self) -> Offset {
        Offset(self.staged.position.to_string())
    }

    fn records_emitted(&self) -> u64 {
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.load(Ordering::Relaxed)
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        self.staged.position = at.number()?;
        self.resumed = true;
        Ok(())
    }

    fn plan(&mut self, extent: ReadLimit, cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        if extent == ReadLimit::AvailableAtStart && std::mem::replace(&mut self.planned_once, true)
        {
            let end = Offset(self.staged.position.to_string());
            return Ok(EndOffset { end, has_new: false, exhausted: false, limited: false });
        }
        let until = self.bytes_read + STAGE_BYTES as u64;
        let mut turns = 0;
        let is_limited = loop {
            // Rejected bytes, and clients that connect and disconnect, count for the limits too.
            let is_enough = self.bytes_read >= until || turns >= STAGE_TURNS;
            if is_enough || self.staged.len() >= STAGE_BYTES {
                break true;
            }
            turns += 1;
            let before = self.staged.end_position();
            if self.is_replaying() {
                self.read_log(cx)?;
            } else if self.poll_once(cx)? == ReadOutcome::Nothing {
                self.hand_recording_over(cx);
                break false;
            }
            let end = self.staged.end_position();
            if end > before {
                self.staged_reads.push_back((end, self.ingest));
            }
        };
        self.reading.aside.tell_up_to(self.staged.position);
        let end = self.staged.whole_position();
        if end == self.staged.position {
            self.staged.shrink();
        }
        Ok(EndOffset {
            end: Offset(end.to_string()),
            has_new: end > self.staged.position,
            exhausted: matches!(self.origin, Peers::Ended) && self.config.at_end == AtEnd::Stop,
            limited: is_limited,
        })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.bound = Some(end.number()?);
        Ok(())
    }

    fn on_committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.resumed = false;
        if let Some(journal) = &mut self.durable_log {
            journal.committed(end.number()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::collected_rows::CollectedRows;
    use crate::connect::socket::open::Shared;
    use millstream_engine::env::{Env, SimEnv};
    use std::io::Write;
    use std::time::{Duration, Instant};

    type IngestTimes = CollectedRows<u64>;

    #[test]
    fn each_record_of_a_batch_has_the_time_of_its_read() {
        let sender = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = sender.local_addr().unwrap().port().to_string();
        let options = [("host", "127.0.0.1"), ("port", port.as_str())];
        let options = options.map(|(name, value)| (name.to_string(), value.to_string()));
        let config = SocketConfig::read(&options.to_vec()).unwrap();
        let env = Arc::new(SimEnv::new(0));
        let mut source = config.open(env.clone(), None, &mut Shared::default()).unwrap();
        let (mut peer, _) = sender.accept().unwrap();
        let (mut read_ns, mut end) = (Vec::new(), Offset::default());
        for line in [b"a\n", b"b\n"] {
            env.advance(1_000);
            read_ns.push(env.now_ns());
            peer.write_all(line).unwrap();
            let (begun, before) = (Instant::now(), source.staged.end_position());
            while source.staged.end_position() == before {
                assert!(begun.elapsed() < Duration::from_secs(60), "the line does not arrive");
                let mut cx = StepCx { env: &*env, budget: 10, wake_at_ns: None };
                let extent = ReadLimit::RateLimited;
                let planned = Source::<IngestTimes>::plan(&mut source, extent, &mut cx);
                end = planned.unwrap().end;
            }
        }
        env.advance(1_000);
        let mut times = IngestTimes::new(|_, ingest_ns| ingest_ns);
        Source::<IngestTimes>::set_end_offset(&mut source, &end).unwrap();
        let mut cx = StepCx { env: &*env, budget: 10, wake_at_ns: None };
        while source.poll(&mut times, &mut cx).unwrap() != Polled::AtEndOffset {}
        assert_eq!(times.rows, read_ns);
    }
}
