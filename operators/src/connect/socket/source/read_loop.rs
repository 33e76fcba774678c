//! The read loop of a socket source. A turn accepts clients, reads once from one connection,
//! receives a datagram, or advances an attempt to connect. Each turn is bounded, and readable
//! connections take turns.

use crate::connect::socket::connection::Connection;
use crate::connect::socket::connection_counts::ConnectionEnd;
use crate::connect::socket::connection_set::Readiness;
use crate::connect::socket::durable_log::Ingest;
use crate::connect::socket::listener::{is_of_client, is_out_of_files};
use crate::connect::socket::options::AtEnd;
use crate::connect::socket::source::{Peers, SocketSource};
use crate::connect::socket::transport::Stream;
use crate::connect::socket::udp;
use millstream_engine::capture::{ConnectionInfo, Opener, Protocol};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::tasklet::StepCx;
use std::io::ErrorKind;

/// Maximum number of bytes of a read if there are several connections or bytes are logged.
const READ_MAX_BYTES: usize = 64 * 1024;
/// Maximum number of bytes of a read of a single connection.
const READ_BYTES: usize = 128 * 1024;
/// Number of reads after which a busy source polls for other clients and connections.
const LOOK_EVERY: u32 = 64;
/// Number of clients that are accepted before connections are read again.
const ACCEPTED_AT_ONCE: usize = 128;
/// Delay before the next attempt to accept when the process is out of file descriptors, in
/// nanoseconds.
const OUT_OF_FILES_NS: u64 = 100_000_000;
/// Maximum number of checks for silent connections per `idleTimeout`.
const IDLE_CHECKS: u64 = 16;
/// Number of clients that are reported in notices; later ones are only counted.
const TOLD_CLIENTS: u32 = 10;

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connect::socket) enum ReadOutcome {
    /// Something happened: bytes were received, or a connection was opened, closed or readable.
    Progress,
    Nothing,
}

impl SocketSource {
    // ---- connections ----

    /// Adds a connection.
    pub(in crate::connect::socket) fn opened(
        &mut self,
        stream: Stream,
        ingest: Ingest,
    ) -> Result<(), EngineError> {
        if let Some(keep_alive) = &self.config.keep_alive {
            // If this fails, a dead peer is detected later or not at all.
            drop(stream.keep_alive(keep_alive));
        }
        let number = match &mut self.durable_log {
            Some(journal) if journal.is_live() => {
                journal.opened(self.staged.end_position(), ingest)?
            }
            _ => 0,
        };
        let recorded = match &mut self.reading.recorder {
            Some(recorder) => {
                let is_client = matches!(self.origin, Peers::Listen(_));
                let opener = if is_client { Opener::A } else { Opener::B };
                let (a, b) = stream.ends();
                recorder.opened(&ConnectionInfo { protocol: Protocol::Tcp, opener, a, b })
            }
            None => 0,
        };
        let mut connection = Connection::new(stream, number, ingest.ns);
        connection.recorded = recorded;
        connection.acknowledges = self.config.acknowledge;
        let slot = self.connections.add(connection)?;
        self.counts.opened();
        self.was_connected = true;
        self.acknowledge(slot);
        Ok(())
    }

    /// Sends a peer the number of stored lines, with the option `acknowledge`. It counts the lines
    /// of this connection, or of all connections if there is one at a time.
    pub(in crate::connect::socket) fn acknowledge(&mut self, slot: usize) {
        let Some(journal) = self.durable_log.as_ref().filter(|journal| journal.is_live()) else {
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

    /// Handles the end of a connection.
    fn ended(
        &mut self,
        slot: usize,
        how: ConnectionEnd,
        cx: &mut StepCx<'_>,
    ) -> Result<(), EngineError> {
        let Some(mut connection) = self.connections.remove(slot) else { return Ok(()) };
        self.counts.ended(how);
        // A last line without an end becomes a record now, unless the peer may return, or broke the
        // connection and so has not ended the line.
        self.ingest = match &mut self.reading.recorder {
            Some(recorder) => {
                recorder.ended(connection.recorded, how == ConnectionEnd::Reset);
                recorder.last()
            }
            None => Ingest { ns: cx.env.now_ns(), us: cx.env.wall_us() },
        };
        if self.config.returns() || how == ConnectionEnd::Reset {
            let position = self.staged.end_position();
            let sent_again = self.config.returns() && self.config.acknowledge;
            connection.reject_partial(position, sent_again, &mut self.reading);
        } else {
            let staged = connection.finish(&mut self.staged, &mut self.reading);
            self.keep(connection.number, staged, 0)?;
        }
        if let Some(journal) = &mut self.durable_log {
            journal.closed(connection.number, self.staged.end_position(), self.ingest)?;
        }
        let how = match how {
            ConnectionEnd::Closed => "ended the stream",
            ConnectionEnd::Reset => "broke the connection",
            ConnectionEnd::TimedOut => "was silent for longer than idleTimeout",
        };
        match &mut self.origin {
            Peers::Dial(dialer) => {
                let then = match self.config.at_end {
                    AtEnd::Reconnect => "connecting again",
                    AtEnd::Stop => "the source has ended",
                    AtEnd::Wait => "no more rows will come (atEnd 'reconnect' would connect again)",
                };
                let peer = &self.config.endpoint;
                (self.notice)(&format!("socket source: the peer of {peer} {how}; {then}"));
                if self.config.at_end == AtEnd::Reconnect {
                    dialer.back_off(cx);
                } else {
                    self.origin = Peers::Ended;
                }
            }
            Peers::Listen(listening) => {
                listening.parts.leave(listening.part);
                if self.told_clients <= TOLD_CLIENTS {
                    (self.notice)(&format!(
                        "socket source: a client {how} after {} bytes; {} open",
                        connection.bytes,
                        self.connections.len()
                    ));
                }
            }
            Peers::Datagrams(_) | Peers::Ended => {}
        }
        Ok(())
    }

    /// With `atEnd 'stop'`: ends the listener when all its clients have left.
    fn stop_if_all_left(&mut self) {
        if let Peers::Listen(listening) = &self.origin
            && self.config.at_end == AtEnd::Stop
            && listening.parts.all_left()
        {
            self.origin = Peers::Ended;
        }
    }

    /// Polls for clients and readable connections, accepts clients and closes idle connections.
    /// Returns `Progress` if there was anything to do.
    pub(in crate::connect::socket) fn poll_connections(
        &mut self,
        cx: &mut StepCx<'_>,
    ) -> Result<ReadOutcome, EngineError> {
        self.reads = 0;
        let Readiness { has_readable: mut any, client_waits } =
            self.connections.poll_connections()?;
        if let Peers::Listen(listening) = &mut self.origin {
            listening.waits |= client_waits;
            if listening.waits {
                any |= self.accept(cx)?;
            }
        }
        any |= self.close_silent(cx)?;
        self.stop_if_all_left();
        Ok(if any { ReadOutcome::Progress } else { ReadOutcome::Nothing })
    }

    /// Accepts waiting clients while it is this part's turn. Returns whether there were any.
    fn accept(&mut self, cx: &mut StepCx<'_>) -> Result<bool, EngineError> {
        let mut any = false;
        for _ in 0..ACCEPTED_AT_ONCE {
            let Peers::Listen(listening) = &mut self.origin else { return Ok(any) };
            let not_before_ns = std::mem::take(&mut listening.not_before_ns);
            if not_before_ns > cx.env.now_ns() {
                listening.not_before_ns = not_before_ns;
                cx.wake_at(not_before_ns);
                return Ok(any);
            }
            if !listening.parts.is_turn(listening.part) {
                return Ok(any);
            }
            // A client that was accepted in this loop may already have closed its connection, which
            // is not known yet. Closed clients must make room before others are refused.
            let may_make_room = any || self.connections.has_closing();
            if may_make_room && listening.parts.is_full(self.config.max_connections) {
                return Ok(true);
            }
            match listening.listener.accept() {
                Ok((stream, peer)) => {
                    any = true;
                    if listening.parts.try_admit(listening.part, self.config.max_connections) {
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
                            "socket source: a client of {} waits because it cannot be accepted: \
                            {error}. \
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
            (self.notice)("socket source: further clients are counted without a notice");
        }
    }

    /// Refuses a client beyond the limit: dropping its stream closes it.
    fn refuse(&mut self, peer: &str) {
        if self.counts.totals().refused == 0 {
            (self.notice)(&format!(
                "socket source: {peer} was rejected: {} clients are connected (maxConnections). \
                Further ones are counted without a notice",
                self.config.max_connections
            ));
        }
        self.counts.refused();
    }

    /// Closes connections that exceeded `idleTimeout`, if a check is due. Returns whether there were
    /// any.
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
        silent.into_iter().try_for_each(|slot| self.ended(slot, ConnectionEnd::TimedOut, cx))?;
        Ok(any)
    }

    // ---- reading ----

    /// Performs one turn: reads once, or accepts clients or advances a connection attempt if that
    /// must come first.
    pub(in crate::connect::socket) fn poll_once(
        &mut self,
        cx: &mut StepCx<'_>,
    ) -> Result<ReadOutcome, EngineError> {
        match &mut self.origin {
            Peers::Dial(_) => {
                if self.connections.len() == 0 && !self.dial(cx)? {
                    return Ok(ReadOutcome::Nothing);
                }
                match self.read(0, cx)? {
                    ReadOutcome::Nothing => self.close_silent(cx).map(|any| match any {
                        true => ReadOutcome::Progress,
                        false => ReadOutcome::Nothing,
                    }),
                    progress => Ok(progress),
                }
            }
            Peers::Listen(_) => self.poll_clients(cx),
            Peers::Datagrams(_) => self.receive(cx),
            // Another part may have ended the source. It cannot do so while this part has clients.
            Peers::Ended => Ok(ReadOutcome::Nothing),
        }
    }

    fn poll_clients(&mut self, cx: &mut StepCx<'_>) -> Result<ReadOutcome, EngineError> {
        if let Some(slot) = self.connections.only_connection() {
            let turn = self.read(slot, cx)?;
            if turn == ReadOutcome::Progress && self.reads < LOOK_EVERY {
                return Ok(turn);
            }
            let looked = self.poll_connections(cx)?;
            return Ok(if turn == ReadOutcome::Progress { turn } else { looked });
        }
        let mut looked = ReadOutcome::Nothing;
        if self.reads >= LOOK_EVERY || !self.connections.has_ready() {
            looked = self.poll_connections(cx)?;
        }
        while let Some(slot) = self.connections.next_ready() {
            if self.read(slot, cx)? == ReadOutcome::Progress {
                return Ok(ReadOutcome::Progress);
            }
        }
        Ok(looked)
    }

    /// Advances the connection attempt. Returns whether it has made a connection. False for a source
    /// that listens.
    fn dial(&mut self, cx: &mut StepCx<'_>) -> Result<bool, EngineError> {
        let Peers::Dial(dialer) = &mut self.origin else { return Ok(false) };
        let worker = self.registry.as_ref().map(|registry| (registry, self.token));
        let connected = dialer.advance(cx, worker);
        let stream = connected.map_err(|error| EngineError::runtime("register a socket", error))?;
        let Some(stream) = stream else { return Ok(false) };
        let again = if self.was_connected { " again" } else { "" };
        (self.notice)(&format!("socket source: connected to {}{again}", self.config.endpoint));
        let ingest = Ingest { ns: cx.env.now_ns(), us: cx.env.wall_us() };
        self.opened(stream, ingest)?;
        Ok(true)
    }

    /// Reads once from a connection.
    fn read(&mut self, slot: usize, cx: &mut StepCx<'_>) -> Result<ReadOutcome, EngineError> {
        let is_lone = self.connections.len() == 1;
        let most = if is_lone && self.durable_log.is_none() { READ_BYTES } else { READ_MAX_BYTES };
        let Some(connection) = self.connections.get(slot) else { return Ok(ReadOutcome::Nothing) };
        let outcome = connection.read(&mut self.staged, most, &mut self.reading);
        match outcome {
            Ok(Some(received)) => {
                // A read that did not fill its buffer has emptied the socket, unless the peer has
                // closed the connection.
                let more = received.bytes == most || connection.read_closed;
                match &self.reading.recorder {
                    Some(recorder) => self.ingest = recorder.last(),
                    None => {
                        self.ingest.ns = cx.env.now_ns();
                        if self.config.include_timestamp || self.durable_log.is_some() {
                            self.ingest.us = cx.env.wall_us();
                        }
                    }
                }
                connection.last_ns = self.ingest.ns;
                self.reads += 1;
                self.bytes_read += received.bytes as u64;
                if self.durable_log.is_some() {
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
                Ok(ReadOutcome::Progress)
            }
            Ok(None) => self.ended(slot, ConnectionEnd::Closed, cx).map(|()| ReadOutcome::Progress),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                if connection.owes_acknowledgement() {
                    self.acknowledge(slot);
                }
                self.connections.goes_on(slot);
                Ok(ReadOutcome::Nothing)
            }
            // A reset is the end of this connection, not of the query.
            Err(_) => self.ended(slot, ConnectionEnd::Reset, cx).map(|()| ReadOutcome::Progress),
        }
    }

    /// Logs the last `staged` bytes, which a connection has received. Their lines and the `skipped`
    /// rejected lines count as stored. Returns the number of these lines; 0 without a durable log.
    fn keep(&mut self, number: u32, staged: usize, skipped: u64) -> Result<u64, EngineError> {
        let Some(journal) = &mut self.durable_log else { return Ok(0) };
        let position = self.staged.end_position() - staged as u64;
        journal.keep(number, skipped, position, self.staged.last(staged), self.ingest)
    }

    /// Rejects the longest unfinished lines while all of them together exceed the limit.
    fn limit_unfinished(&mut self) {
        while self.reading.unfinished > self.config.max_unfinished {
            let Some(connection) = self.connections.longest() else { return };
            connection.give_up(&mut self.reading);
        }
    }

    /// Receives a datagram.
    fn receive(&mut self, cx: &mut StepCx<'_>) -> Result<ReadOutcome, EngineError> {
        let Peers::Datagrams(socket) = &self.origin else { return Ok(ReadOutcome::Nothing) };
        let recorder = self.reading.recorder.as_mut();
        let staged = match udp::receive(socket, &mut self.staged, self.framing, recorder) {
            Ok(staged) => staged,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(ReadOutcome::Nothing);
            }
            Err(error) => return Err(self.config.fails(error, "")),
        };
        self.counts.datagram();
        self.ingest = match &self.reading.recorder {
            Some(recorder) => recorder.last(),
            None => Ingest { ns: cx.env.now_ns(), us: cx.env.wall_us() },
        };
        if let Some(journal) = &mut self.durable_log {
            let position = self.staged.end_position() - staged as u64;
            journal.keep(0, 0, position, self.staged.last(staged), self.ingest)?;
        }
        Ok(ReadOutcome::Progress)
    }
}
