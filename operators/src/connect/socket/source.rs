//! The reader of a socket source: lines from a sender that we connect to, as Spark's source does,
//! from the clients of a listener, or from datagrams.
//!
//! *Clients.* A listener serves up to `maxConnections` clients at once on the worker of its tasklet.
//! Those that have bytes have one read each in turn, of 64 KiB at most, so neither a fast nor a
//! silent client holds up another. The lines of a client stay in order; those of different clients
//! are in the order in which they became whole. A client beyond `maxConnections` is accepted and
//! closed at once. A lone connection costs one system call a read; only a listener without bytes to
//! read asks for more clients.
//!
//! *Parts.* With `numPartitions` a listener is served by that many sources, which may run on several
//! workers: the one with the fewest clients takes the next.
//!
//! *Framing.* A line ends with LF, CRLF or a lone CR, or with `lineSep '\n'` with LF alone (see
//! [`line_ends`](super::line_ends)). A CR that is the last byte read ends its line at once; an LF that
//! the next read begins with is dropped. A line longer than `maxLineLength` or with broken UTF-8 is
//! counted and set aside ([`BadRecords`]); the rest of its client's lines are not touched. A last line
//! without an end is a line when the stream ends, unless the peer may come back (`atEnd` is
//! `reconnect`, or we listen): then it is set aside.
//!
//! *Memory.* A connection holds the line under way, and nothing between lines. All of them
//! together hold `maxUnfinishedBytes`; beyond that the longest line under way is set aside.
//!
//! *Offsets* count the bytes of whole lines. Without `durable`, what was received between the last
//! commit and a crash is lost, as in Spark. With it, whole lines go to a [journal](super::journal)
//! before they are looked at, and a restart reads them again from there. What lay unread in the
//! kernel's socket when the process was killed is in no log, nor is the line under way; with
//! `acknowledge` the peer is told, as a decimal number on a line of its own, how many whole lines are
//! kept: on connecting, and after each read. Where there is one sender at a time, the number counts
//! the lines of the log's whole life, and a sender that begins there when the connection comes back
//! loses no line and doubles none. Where there are many, it counts the lines of the connection.
//!
//! *Backpressure.* While the chain is not ready nothing is read, and TCP does the rest.
//!
//! *Threads.* The worker of the source's tasklet; names are resolved and the first attempt to connect
//! is made on the thread that starts the query.

use super::super::bad_records::BadRecords;
use super::connection::{CUT_OFF, Connection, Reading, TOO_LONG};
use super::connections::Connections;
use super::counts::{ConnectionCounts, ConnectionTotals, Ending};
use super::datagrams;
use super::dialer::Dialer;
use super::framing::{Framing, Staged};
use super::journal::{Ingest, Journal};
use super::listener::{Listener, Parts, is_of_client, is_out_of_files};
use super::options::{AtEnd, SocketConfig};
use super::transport::Stream;
use crate::table::row::{Row, RowWriter};
use millstream_engine::capture::Kind;
use millstream_engine::driver::{Extent, Planned};
use millstream_engine::error::EngineError;
use millstream_engine::mio::net::UdpSocket;
use millstream_engine::mio::{Interest, Registry, Token};
use millstream_engine::stage::{Io, Push};
use millstream_engine::tasklet::{Offset, Polled, Source, StepCx};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one read of one of several connections, or of one whose bytes are logged.
const TURN_BYTES: usize = 64 * 1024;
/// Bytes of one read of a lone connection.
const READ_BYTES: usize = 128 * 1024;
/// Bytes that micro-batch mode reads for one batch at most, and turns that it takes for them.
const STAGE_BYTES: usize = 64 * 1024 * 1024;
const STAGE_TURNS: usize = 1 << 18;
/// Reads after which a busy source looks for other clients and connections.
const LOOK_EVERY: u32 = 64;
/// Clients that are accepted at once, before connections are read again.
const ACCEPTED_AT_ONCE: usize = 128;
/// Wait before the next attempt to accept when the process has no file left for it.
const OUT_OF_FILES_NS: u64 = 100_000_000;
/// Checks for silent connections in one `idleTimeout`.
const IDLE_CHECKS: u64 = 16;
/// Clients of which notices tell; the others are only counted.
const TOLD_CLIENTS: u32 = 10;

/// Counters that a progress report reads.
#[derive(Clone, Debug, Default)]
pub struct SourceCounters {
    /// Records emitted.
    pub records: Arc<AtomicU64>,
    /// Records set aside.
    pub bad: BadRecords,
    /// Paths passed over: neither files nor folders, or links that lead nowhere.
    pub passed_over: Arc<AtomicU64>,
    /// Of a socket source: its connections.
    pub connections: Option<Arc<ConnectionCounts>>,
}

impl SourceCounters {
    /// Of a socket source: its connections now.
    pub fn connections(&self) -> Option<ConnectionTotals> {
        self.connections.as_ref().map(|counts| counts.totals())
    }
}

/// When line 0, 1, 2 … was meant to be sent, on the query's clock in nanoseconds.
pub type IntendedTimes = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

/// Where connections come from.
pub(super) enum Origin {
    /// We connect.
    Dial(Dialer),
    /// Clients connect.
    Listen(Listening),
    /// There are none.
    Datagrams(UdpSocket),
    /// Nothing will come any more.
    Ended,
}

/// A listener's state.
pub(super) struct Listening {
    pub listener: Listener,
    pub parts: Parts,
    pub part: usize,
    /// A client may wait to be accepted.
    pub waits: bool,
    /// Not before this time, for the process is out of files.
    pub not_before_ns: u64,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Bytes, a client or an end.
    Progress,
    Nothing,
}

/// The source.
pub struct SocketSource {
    config: SocketConfig,
    origin: Origin,
    connections: Connections,
    reading: Reading,
    framing: Framing,
    staged: Staged,
    journal: Option<Journal>,
    registry: Option<Registry>,
    token: Token,
    bound: Option<u64>,
    /// Nothing was read since the checkpoint was taken up.
    resumed: bool,
    planned_once: bool,
    ingest: Ingest,
    /// Reads since the source last looked for other clients and connections.
    reads: u32,
    /// Bytes read in this run, of lines and of what was set aside.
    bytes_read: u64,
    next_idle_check_ns: u64,
    /// What was to be told before anyone listened.
    unsaid: Option<String>,
    told_clients: u32,
    told_out_of_files: bool,
    was_connected: bool,
    row: Vec<u8>,
    counters: SourceCounters,
    counts: Arc<ConnectionCounts>,
    notice: fn(&str),
    intended: Option<IntendedTimes>,
    lines: u64,
}

impl SocketSource {
    pub(super) fn new(config: SocketConfig, origin: Origin, journal: Option<Journal>) -> Self {
        let counts = Arc::new(ConnectionCounts::default());
        let connections = Some(counts.clone());
        let counters = SourceCounters { connections, ..SourceCounters::default() };
        let framing = config.framing();
        Self {
            reading: Reading::new(config.ends, config.max_line, counters.bad.clone()),
            staged: Staged::new(framing),
            config,
            origin,
            connections: Connections::default(),
            framing,
            journal,
            registry: None,
            token: Token(0),
            bound: None,
            resumed: false,
            planned_once: false,
            ingest: Ingest::default(),
            reads: 0,
            bytes_read: 0,
            next_idle_check_ns: 0,
            unsaid: None,
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

    /// Calls this with a line of text when a peer comes, or ends its stream.
    pub fn on_notice(&mut self, notice: fn(&str)) {
        self.notice = notice;
        if let Some(text) = self.unsaid.take() {
            notice(&text);
        }
    }

    pub(super) fn say_later(&mut self, text: String) {
        self.unsaid = Some(text);
    }

    /// Counts latency from these times.
    pub fn intended_times(&mut self, times: IntendedTimes) {
        self.intended = Some(times);
    }

    // ---- connections ----

    /// Takes a connection up. `stream` is registered with the worker if we have made it.
    pub(super) fn opened(&mut self, stream: Stream, ingest: Ingest) -> Result<(), EngineError> {
        if let Some(keep_alive) = &self.config.keep_alive {
            // Without it a dead peer is noticed later.
            drop(stream.keep_alive(keep_alive));
        }
        let number = match &mut self.journal {
            Some(journal) if journal.is_live() => {
                journal.opened(self.staged.end_position(), ingest)?
            }
            _ => 0,
        };
        let slot = self.connections.add(Connection::new(stream, number, ingest.ns))?;
        self.counts.opened();
        self.was_connected = true;
        self.acknowledge(slot);
        Ok(())
    }

    /// Tells a peer how many of its lines are kept.
    fn acknowledge(&mut self, slot: usize) {
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.is_live()) else {
            return;
        };
        if !self.config.acknowledge {
            return;
        }
        let (all, total) = (self.config.acknowledges_all(), journal.lines);
        if let Some(connection) = self.connections.get(slot) {
            let lines = if all { total } else { connection.lines };
            connection.acknowledge(lines);
        }
    }

    /// A connection is over.
    fn ended(&mut self, slot: usize, how: Ending, cx: &mut StepCx<'_>) -> Result<(), EngineError> {
        let Some(mut connection) = self.connections.remove(slot) else { return Ok(()) };
        self.counts.ended(how);
        if self.config.returns() {
            let (position, sent_again) = (self.staged.end_position(), self.config.acknowledge);
            connection.set_aside(position, sent_again, &mut self.reading);
        } else {
            let staged = connection.finish(&mut self.staged, &mut self.reading);
            self.keep(connection.number, staged, 0)?;
        }
        if let Some(journal) = &mut self.journal {
            journal.closed(connection.number, self.staged.end_position(), self.ingest)?;
        }
        let how = match how {
            Ending::Closed => "ended the stream",
            Ending::Reset => "broke the connection",
            Ending::TimedOut => "was silent for longer than idleTimeout",
        };
        match &mut self.origin {
            Origin::Dial(dialer) => {
                let then = match self.config.at_end {
                    AtEnd::Reconnect => "connecting again",
                    AtEnd::Stop => "the source is at its end",
                    AtEnd::Wait => "no more rows will come (atEnd 'reconnect' would connect again)",
                };
                let peer = dialer.target();
                (self.notice)(&format!("socket source: the peer of {peer} {how}; {then}"));
                if self.config.at_end == AtEnd::Reconnect {
                    dialer.back_off(cx);
                } else {
                    self.origin = Origin::Ended;
                }
            }
            Origin::Listen(listening) => {
                listening.parts.leave(listening.part);
                if self.told_clients <= TOLD_CLIENTS {
                    (self.notice)(&format!(
                        "socket source: a client {how} after {} bytes; {} open",
                        connection.bytes,
                        self.connections.len()
                    ));
                }
            }
            Origin::Datagrams(_) | Origin::Ended => {}
        }
        Ok(())
    }

    /// A listener that stops at the end does so when its clients have left.
    fn stop_if_all_left(&mut self) {
        if let Origin::Listen(listening) = &self.origin
            && self.config.at_end == AtEnd::Stop
            && listening.parts.all_left()
        {
            self.origin = Origin::Ended;
        }
    }

    /// Looks for clients, and for connections that have bytes.
    fn look(&mut self, cx: &mut StepCx<'_>) -> Result<Turn, EngineError> {
        self.reads = 0;
        let (mut any, waits) = self.connections.look()?;
        if let Origin::Listen(listening) = &mut self.origin {
            listening.waits |= waits;
            if listening.waits {
                any |= self.accept(cx)?;
            }
        }
        any |= self.close_silent(cx)?;
        self.stop_if_all_left();
        Ok(if any { Turn::Progress } else { Turn::Nothing })
    }

    /// Accepts the clients that wait. Returns whether any did.
    fn accept(&mut self, cx: &mut StepCx<'_>) -> Result<bool, EngineError> {
        let mut any = false;
        for _ in 0..ACCEPTED_AT_ONCE {
            let Origin::Listen(listening) = &mut self.origin else { return Ok(any) };
            let not_before_ns = std::mem::take(&mut listening.not_before_ns);
            if not_before_ns > cx.env.now_ns() {
                listening.not_before_ns = not_before_ns;
                cx.wake_at(not_before_ns);
                return Ok(any);
            }
            if !listening.parts.is_turn(listening.part) {
                return Ok(any);
            }
            // Of those just accepted it is not known yet. Clients that have left make room first.
            let may_make_room = any || self.connections.has_closing();
            if may_make_room && listening.parts.is_full(self.config.max_connections) {
                return Ok(true);
            }
            match listening.listener.accept() {
                Ok((stream, peer)) => {
                    any = true;
                    if listening.parts.admit(listening.part, self.config.max_connections) {
                        self.tell_of_client(&peer);
                        let ingest = Ingest { ns: cx.env.now_ns(), us: cx.env.wall_us() };
                        self.opened(stream, ingest)?;
                    } else {
                        self.refuse(&peer);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    listening.waits = false;
                    return Ok(any);
                }
                Err(error) if is_out_of_files(&error) => {
                    listening.not_before_ns = cx.env.now_ns() + OUT_OF_FILES_NS;
                    cx.wake_at(listening.not_before_ns);
                    if !std::mem::replace(&mut self.told_out_of_files, true) {
                        (self.notice)(&format!(
                            "socket source: a client of {} waits, for it cannot be accepted: {error}. \
                             Raise the limit of open files (ulimit -n), or lower maxConnections",
                            self.config.endpoint
                        ));
                    }
                    return Ok(any);
                }
                Err(error) if is_of_client(&error) => any = true,
                Err(error) => return Err(self.config.fails(error, "")),
            }
        }
        Ok(any)
    }

    fn tell_of_client(&mut self, peer: &str) {
        if self.told_clients > TOLD_CLIENTS {
            return;
        }
        self.told_clients += 1;
        if self.told_clients <= TOLD_CLIENTS {
            (self.notice)(&format!("socket source: {peer} connected"));
        } else {
            (self.notice)("socket source: other clients are counted, and not told of");
        }
    }

    /// A client beyond the limit, whose stream is dropped and so closed.
    fn refuse(&mut self, peer: &str) {
        if self.counts.totals().refused == 0 {
            (self.notice)(&format!(
                "socket source: {peer} was refused: there are {} clients (maxConnections). Others are \
                 counted, and not told of",
                self.config.max_connections
            ));
        }
        self.counts.refused();
    }

    /// Closes connections that were silent for longer than `idleTimeout`. Returns whether any was.
    fn close_silent(&mut self, cx: &mut StepCx<'_>) -> Result<bool, EngineError> {
        let Some(timeout_ns) = self.config.idle_timeout_ns else { return Ok(false) };
        if self.connections.len() == 0 {
            return Ok(false);
        }
        let now_ns = cx.env.now_ns();
        if now_ns < self.next_idle_check_ns {
            cx.wake_at(self.next_idle_check_ns);
            return Ok(false);
        }
        let mut silent = Vec::new();
        let since_ns = now_ns.saturating_sub(timeout_ns);
        let oldest_ns = self.connections.silent_since(since_ns, &mut silent).unwrap_or(now_ns);
        let due_ns = oldest_ns + timeout_ns;
        self.next_idle_check_ns = due_ns.max(now_ns + timeout_ns / IDLE_CHECKS);
        cx.wake_at(self.next_idle_check_ns);
        let any = !silent.is_empty();
        silent.into_iter().try_for_each(|slot| self.ended(slot, Ending::TimedOut, cx))?;
        Ok(any)
    }

    // ---- reading ----

    /// Reads once, or moves towards being able to.
    fn turn(&mut self, cx: &mut StepCx<'_>) -> Result<Turn, EngineError> {
        match &mut self.origin {
            Origin::Dial(_) => {
                if self.connections.len() == 0 && !self.dial(cx)? {
                    return Ok(Turn::Nothing);
                }
                match self.read(0, cx)? {
                    Turn::Nothing => self.close_silent(cx).map(|any| match any {
                        true => Turn::Progress,
                        false => Turn::Nothing,
                    }),
                    progress => Ok(progress),
                }
            }
            Origin::Listen(_) => self.turn_of_clients(cx),
            Origin::Datagrams(_) => self.receive(cx),
            // Another part may have ended first, with clients of ours still open: it cannot.
            Origin::Ended => Ok(Turn::Nothing),
        }
    }

    fn turn_of_clients(&mut self, cx: &mut StepCx<'_>) -> Result<Turn, EngineError> {
        if let Some(slot) = self.connections.lone() {
            if self.reads >= LOOK_EVERY {
                self.look(cx)?;
            }
            // It may be the only one no more; then its turn comes with the others'.
            if self.connections.lone() != Some(slot) || self.read(slot, cx)? == Turn::Progress {
                return Ok(Turn::Progress);
            }
            return self.look(cx);
        }
        let mut looked = Turn::Nothing;
        if self.reads >= LOOK_EVERY || !self.connections.has_ready() {
            looked = self.look(cx)?;
        }
        while let Some(slot) = self.connections.next_ready() {
            if self.read(slot, cx)? == Turn::Progress {
                return Ok(Turn::Progress);
            }
        }
        Ok(looked)
    }

    /// Moves towards a connection to the sender. Returns whether there is one.
    fn dial(&mut self, cx: &mut StepCx<'_>) -> Result<bool, EngineError> {
        let Origin::Dial(dialer) = &mut self.origin else { return Ok(false) };
        let worker = self.registry.as_ref().map(|registry| (registry, self.token));
        let connected = dialer.advance(cx, worker);
        let stream = connected.map_err(|error| EngineError::runtime("register a socket", error))?;
        let Some(stream) = stream else { return Ok(false) };
        let again = if self.was_connected { " again" } else { "" };
        (self.notice)(&format!("socket source: connected to {}{again}", dialer.target()));
        let ingest = Ingest { ns: cx.env.now_ns(), us: cx.env.wall_us() };
        self.opened(stream, ingest)?;
        Ok(true)
    }

    /// Reads once from a connection.
    fn read(&mut self, slot: usize, cx: &mut StepCx<'_>) -> Result<Turn, EngineError> {
        let is_lone = self.connections.len() == 1;
        let most = if is_lone && self.journal.is_none() { READ_BYTES } else { TURN_BYTES };
        let Some(connection) = self.connections.get(slot) else { return Ok(Turn::Nothing) };
        let outcome = connection.read(&mut self.staged, most, &mut self.reading);
        match outcome {
            Ok(Some(received)) => {
                // A read that was not full has emptied the socket, unless its end is behind it.
                let more = received.bytes == most || connection.read_closed;
                self.ingest.ns = cx.env.now_ns();
                if self.config.include_timestamp || self.journal.is_some() {
                    self.ingest.us = cx.env.wall_us();
                }
                connection.last_ns = self.ingest.ns;
                self.reads += 1;
                self.bytes_read += received.bytes as u64;
                if self.journal.is_some() {
                    let number = connection.number;
                    let lines = self.keep(number, received.staged, received.skipped)?;
                    if let Some(connection) = self.connections.get(slot) {
                        connection.lines += lines;
                    }
                    self.acknowledge(slot);
                }
                self.limit_unfinished();
                if more && !is_lone {
                    self.connections.mark_ready(slot);
                }
                Ok(Turn::Progress)
            }
            Ok(None) => self.ended(slot, Ending::Closed, cx).map(|()| Turn::Progress),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                self.connections.goes_on(slot);
                Ok(Turn::Nothing)
            }
            // A reset is the end of this connection, not of the query.
            Err(_) => self.ended(slot, Ending::Reset, cx).map(|()| Turn::Progress),
        }
    }

    /// Logs the last `staged` bytes, which a connection has brought, and counts them and `skipped`
    /// others as kept. Returns how many lines that makes.
    fn keep(&mut self, number: u32, staged: usize, skipped: u64) -> Result<u64, EngineError> {
        let Some(journal) = &mut self.journal else { return Ok(0) };
        let position = self.staged.end_position() - staged as u64;
        journal.keep(number, skipped, position, self.staged.last(staged), self.ingest)
    }

    /// Sets the longest line under way aside while all of them together are too much.
    fn limit_unfinished(&mut self) {
        while self.reading.unfinished > self.config.max_unfinished {
            let Some(connection) = self.connections.longest() else { return };
            connection.give_up(&mut self.reading);
        }
    }

    /// Receives a datagram.
    fn receive(&mut self, cx: &mut StepCx<'_>) -> Result<Turn, EngineError> {
        let Origin::Datagrams(socket) = &self.origin else { return Ok(Turn::Nothing) };
        let staged = match datagrams::receive(socket, &mut self.staged, self.framing) {
            Ok(staged) => staged,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(Turn::Nothing);
            }
            Err(error) => return Err(self.config.fails(error, "")),
        };
        self.counts.datagram();
        self.ingest = Ingest { ns: cx.env.now_ns(), us: cx.env.wall_us() };
        if let Some(journal) = &mut self.journal {
            let position = self.staged.end_position() - staged as u64;
            journal.keep(0, 0, position, self.staged.last(staged), self.ingest)?;
        }
        Ok(Turn::Progress)
    }

    fn is_datagrams(&self) -> bool {
        matches!(self.origin, Origin::Datagrams(_))
    }

    fn is_replaying(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.replay.is_some())
    }

    /// Stages the next block of the log as if it came from a socket.
    fn read_log(&mut self, cx: &StepCx<'_>) -> Result<(), EngineError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
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
                    self.ingest.us = head.wall_us;
                    let room = self.staged.room(payload.len());
                    room.copy_from_slice(payload);
                    if let Framing::Lines(ends) = self.framing {
                        ends.close(room);
                    }
                    self.staged.add(payload.len());
                }
            },
        }
        if let Some(journal) = &mut self.journal {
            journal.replay = Some(replay);
        }
        Ok(())
    }

    /// The log has been read to its end; connections that were made before go on.
    fn end_replay(&mut self, cx: &StepCx<'_>) -> Result<(), EngineError> {
        self.drop_partial();
        self.ingest.us = cx.env.wall_us();
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let position = self.staged.end_position();
        if let Some(connection) = self.connections.get(0) {
            connection.number = journal.opened(position, self.ingest)?;
            self.acknowledge(0);
        } else {
            // A later replay must drop here what this one has dropped.
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

    /// Emits staged records. Returns how many.
    fn emit<D>(&mut self, down: &mut D, budget: usize) -> Result<usize, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let mut emitted = 0;
        while emitted < budget && down.ready() {
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

    #[inline]
    fn emit_record<D>(
        &mut self,
        down: &mut D,
        range: std::ops::Range<usize>,
    ) -> Result<(), EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
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
            writer.long(1, self.ingest.us);
        }
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.fetch_add(1, Ordering::Relaxed);
        let ingest_ns = match &self.intended {
            Some(times) => times(self.lines),
            None => self.ingest.ns,
        };
        self.lines += 1;
        down.push(Row(&self.row), ingest_ns)
    }

    /// An epoch of an earlier run ends behind what there is: its bytes died with that run.
    fn lose_up_to(&mut self, end: u64) {
        (self.notice)(&format!(
            "socket source: {} bytes that were received before the restart are lost; option durable \
             'true' keeps what is received",
            end - self.staged.position
        ));
        self.staged.position = end;
    }

    fn is_exhausted(&self) -> bool {
        matches!(self.origin, Origin::Ended)
            && self.config.at_end == AtEnd::Stop
            && self.staged.is_empty()
    }

    /// Emits up to the end of a batch.
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
        if emitted == 0 && self.staged.position < bound && down.ready() {
            if self.is_replaying() {
                self.read_log(cx)?;
            } else if self.resumed {
                self.lose_up_to(bound);
            }
        }
        if self.staged.position < bound {
            return Ok(Polled::Some);
        }
        self.bound = None;
        Ok(Polled::AtBound)
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
        if let Some(journal) = &mut self.journal
            && let Some(torn) = journal.open(self.staged.position)?
        {
            (self.notice)(&format!(
                "socket source: the capture log was torn at {torn} and goes on before it"
            ));
        }
        let worker = self.registry.as_ref().map(|registry| (registry, self.token));
        match (&mut self.origin, worker) {
            (Origin::Listen(listening), worker) => {
                listening.parts.set_waker(listening.part, io.waker.clone());
                self.connections.watch(&mut listening.listener, worker)?;
            }
            (Origin::Dial(_), Some((registry, token))) => {
                if let Some(connection) = self.connections.get(0) {
                    let stream = &mut connection.stream;
                    registry.register(stream, token, Interest::READABLE).map_err(fails)?;
                }
            }
            (Origin::Datagrams(socket), Some((registry, token))) => {
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
        if emitted > 0 || !down.ready() {
            return Ok(if emitted > 0 { Polled::Some } else { Polled::Idle });
        }
        if self.is_replaying() {
            self.read_log(cx)?;
            return Ok(Polled::Some);
        }
        // A read without a complete line is progress too: there may be more in the socket.
        let mut turns = 0;
        while self.turn(cx)? == Turn::Progress {
            turns += 1;
            emitted += self.emit(down, cx.budget - emitted)?;
            let is_full = emitted >= cx.budget || !self.staged.is_empty() || turns >= cx.budget;
            if is_full || !(self.connections.has_ready() || self.is_datagrams()) {
                break;
            }
        }
        if turns > 0 {
            return Ok(Polled::Some);
        }
        self.staged.shrink();
        Ok(if self.is_exhausted() { Polled::Exhausted } else { Polled::Idle })
    }

    fn position(&self) -> Offset {
        Offset(self.staged.position.to_string())
    }

    fn records(&self) -> u64 {
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.load(Ordering::Relaxed)
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        self.staged.position = at.number()?;
        self.resumed = true;
        Ok(())
    }

    fn plan(&mut self, extent: Extent, cx: &mut StepCx<'_>) -> Result<Planned, EngineError> {
        if extent == Extent::AsOfStart && std::mem::replace(&mut self.planned_once, true) {
            let end = Offset(self.staged.position.to_string());
            return Ok(Planned { end, has_new: false, exhausted: false, limited: false });
        }
        let until = self.bytes_read + STAGE_BYTES as u64;
        let mut turns = 0;
        let is_limited = loop {
            // Bytes that are set aside, and clients that come and go, end a batch too.
            let is_enough = self.bytes_read >= until || turns >= STAGE_TURNS;
            if is_enough || self.staged.len() >= STAGE_BYTES {
                break true;
            }
            turns += 1;
            if self.is_replaying() {
                self.read_log(cx)?;
            } else if self.turn(cx)? == Turn::Nothing {
                break false;
            }
        };
        self.reading.aside.tell_up_to(self.staged.position);
        let end = self.staged.whole_position();
        if end == self.staged.position {
            self.staged.shrink();
        }
        Ok(Planned {
            end: Offset(end.to_string()),
            has_new: end > self.staged.position,
            exhausted: matches!(self.origin, Origin::Ended) && self.config.at_end == AtEnd::Stop,
            limited: is_limited,
        })
    }

    fn bound(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.bound = Some(end.number()?);
        Ok(())
    }

    fn committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.resumed = false;
        if let Some(journal) = &mut self.journal {
            journal.committed(end.number()?);
        }
        Ok(())
    }
}
