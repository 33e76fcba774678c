//! Lines from a TCP socket: a client, as Spark's source is, or a listener.
//!
//! *Parts.* With `numPartitions` a listener is served by that many sources, which may run on several
//! workers: a client is taken by the first of them that has none, and is its own until it leaves. All
//! accept from one queue, so no client waits behind a busy part while another is free.
//!
//! *Framing.* A line ends with LF, CRLF or a lone CR, or with `lineSep '\n'` with LF alone (see
//! [`LineEnds`]). A CR that is the last byte read ends its line at once; an LF that the next read
//! begins with is dropped before it is logged or counted. A line longer than `maxLineLength`
//! or with broken UTF-8 is counted and set aside ([`BadRecords`]); what was read of it is never
//! buffered beyond the limit. A last line without an end is a line when the stream ends, unless
//! the peer is to come back (`atEnd` is `reconnect`, or we listen): then it is set aside.
//!
//! *Offsets* count the bytes of lines, not of a line cut off by a lost peer. Without `durable`,
//! what was received between the last commit and a crash is lost, as in Spark. With it, bytes go
//! to a [capture log](millstream_engine::capture) before they are looked at, and a restart reads
//! them again from there. What lay unread in the kernel's socket when the process was killed is in
//! no log; with `acknowledge` the peer is told, as a decimal number on a line of its own, how many
//! whole lines are kept: on connecting, and after each read. A sender that begins there when the
//! connection comes back loses no line and doubles none.
//!
//! *Backpressure.* While the chain is not ready nothing is read, and TCP does the rest.
//!
//! *Threads.* The worker of the source's tasklet; names are resolved and the first connection is
//! made on the thread that starts the query.

use super::super::bad_records::{BadRecords, KEPT_BYTES};
use super::super::options::OptionReader;
use super::line_ends::LineEnds;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::row::{Row, RowWriter};
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::capture::{CaptureLog, Direction, Head, Kind, Replay};
use millstream_engine::driver::{Extent, Planned};
use millstream_engine::error::EngineError;
use millstream_engine::mio::net::{TcpListener, TcpStream};
use millstream_engine::mio::{Interest, Registry, Token};
use millstream_engine::seam::Env;
use millstream_engine::stage::{Io, Push};
use millstream_engine::tasklet::{Offset, Polled, Source, StepCx};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;
/// Bytes that micro-batch mode stages for one batch at most.
const STAGE_BYTES: usize = 64 * 1024 * 1024;
/// Longest wait for the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_FIRST_NS: u64 = 50_000_000;
const BACKOFF_MOST_NS: u64 = 5_000_000_000;

/// What happens when the peer ends the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEnd {
    /// The query stays up, idle, as Spark's does.
    Wait,
    /// The source is exhausted.
    Stop,
    /// Connect again, with back-off.
    Reconnect,
}

/// The options, read.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    host: String,
    port: u16,
    listen: bool,
    include_timestamp: bool,
    max_line: usize,
    at_end: AtEnd,
    durable: bool,
    acknowledge: bool,
    ends: LineEnds,
}

/// What the parts of a listening source have in common.
#[derive(Debug, Default)]
pub struct Shared(Option<(SocketAddr, std::net::TcpListener)>);

impl SocketConfig {
    /// Reads `host`, `port`, `mode`, `includeTimestamp`, `maxLineLength`, `atEnd`, `durable`,
    /// `acknowledge`, `lineSep` and `numPartitions`.
    pub fn read(options: &Options) -> PlanResult<Self> {
        let mut reader = OptionReader::new("source socket", options);
        let host = reader.required("host", "localhost")?.to_string();
        reader.required("port", "9999")?;
        let port = reader.number("port", 0, 0, 65535)? as u16;
        let listen = reader.choice("mode", &["connect", "listen"])? == "listen";
        let include_timestamp = reader.flag("includeTimestamp", false)?;
        let max_line = reader.number("maxLineLength", 1 << 20, 1, 1 << 30)? as usize;
        let at_end = match reader.choice("atEnd", &["wait", "stop", "reconnect"])? {
            "stop" => AtEnd::Stop,
            "reconnect" => AtEnd::Reconnect,
            _ => AtEnd::Wait,
        };
        let durable = reader.flag("durable", false)?;
        let acknowledge = reader.flag("acknowledge", false)?;
        let parts = reader.number("numPartitions", 1, 1, 256)?;
        let ends = line_ends(&mut reader)?;
        reader.finish()?;
        if parts > 1 && !listen {
            return Err(PlanError::new(
                "INVALID_OPTION_VALUE",
                format!("source socket: numPartitions '{parts}', but a client has one connection"),
                "Let the senders connect to us: mode 'listen'",
            ));
        }
        if parts > 1 && acknowledge {
            return Err(PlanError::new(
                "INVALID_OPTION_VALUE",
                "source socket: acknowledge 'true' with numPartitions: a sender that comes back may meet \
                 another part, whose number of kept lines is not its own",
                "Leave out one of them",
            ));
        }
        if acknowledge && !durable {
            return Err(PlanError::new(
                "INVALID_OPTION_VALUE",
                "source socket: acknowledge 'true' needs durable 'true'",
                "What is not kept cannot be acknowledged",
            ));
        }
        Ok(Self {
            host,
            port,
            listen,
            include_timestamp,
            max_line,
            at_end,
            durable,
            acknowledge,
            ends,
        })
    }

    /// `value STRING`, and with `includeTimestamp` also `timestamp TIMESTAMP`.
    pub fn schema(&self) -> Schema {
        let mut fields = vec![Field::new("value", DataType::String, true)];
        if self.include_timestamp {
            fields.push(Field::new("timestamp", DataType::Timestamp, true));
        }
        Schema::new(fields)
    }

    fn fails(&self, reason: impl std::fmt::Display, fix: &str) -> EngineError {
        let what = if self.listen { "listen on" } else { "connect to" };
        let reason = format!("cannot {what} {}:{}: {reason}", self.host, self.port);
        EngineError::operator("SOCKET_SOURCE_FAILED", reason, fix)
    }

    /// Whether received bytes outlive the process.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Connects, or begins to listen, or listens where another part does. A durable source keeps its
    /// log in `folder`.
    pub fn open(
        &self,
        env: Arc<dyn Env>,
        folder: Option<PathBuf>,
        shared: &mut Shared,
    ) -> Result<SocketSource, EngineError> {
        if self.durable && folder.is_none() {
            return Err(EngineError::operator(
                "CHECKPOINT_LOCATION_MISSING",
                "source socket: durable 'true' keeps its log in the query's checkpoint",
                "Give the query a checkpointLocation, or `run --checkpoint DIR`",
            ));
        }
        let durable = folder.filter(|_| self.durable).map(|folder| Durable::new(env, folder));

        let addresses: Vec<SocketAddr> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| self.fails(error, "Check the host name"))?
            .collect();
        let mut last = None;
        for address in &addresses {
            let opened = if self.listen {
                shared.listen(*address).map(|listener| Link::Listening { listener })
            } else {
                std::net::TcpStream::connect_timeout(address, CONNECT_TIMEOUT).and_then(|stream| {
                    stream.set_nonblocking(true)?;
                    Ok(Link::Open { stream: TcpStream::from_std(stream), listener: None })
                })
            };
            match opened {
                Ok(link) => return Ok(SocketSource::new(self.clone(), *address, link, durable)),
                Err(error) => last = Some(error),
            }
        }
        let fix = match last.as_ref().map(std::io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => {
                "Start the sender first (for example: nc -lk 9999), or use mode 'listen'"
            }
            Some(ErrorKind::AddrInUse) => "Another program has this port: stop it or take another",
            _ => "Check host and port",
        };
        match last {
            Some(error) => Err(self.fails(error, fix)),
            None => Err(self.fails("the name has no address", fix)),
        }
    }
}

/// The option `lineSep`: line feeds alone, or what ends a line in Spark.
fn line_ends(reader: &mut OptionReader<'_>) -> PlanResult<LineEnds> {
    match reader.get("lineSep") {
        None => Ok(LineEnds::Any),
        Some("\n" | "\\n") => Ok(LineEnds::Lf),
        Some(other) => Err(PlanError::new(
            "INVALID_OPTION_VALUE",
            format!("source socket: option 'lineSep' is '{}'", other.escape_default()),
            "Write '\\n' for lines that nothing but a line feed ends; leave it out for lines that \
             \\n, \\r\\n or \\r ends",
        )),
    }
}

impl Shared {
    fn listen(&mut self, address: SocketAddr) -> std::io::Result<TcpListener> {
        let listener = match &self.0 {
            Some((known, listener)) if *known == address => listener.try_clone()?,
            _ => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let other = listener.try_clone()?;
                self.0 = Some((address, listener));
                other
            }
        };
        Ok(TcpListener::from_std(listener))
    }
}

enum Link {
    Listening { listener: TcpListener },
    Open { stream: TcpStream, listener: Option<TcpListener> },
    Connecting { stream: TcpStream },
    Waiting { until_ns: u64 },
    Ended,
}

/// Counters that a progress report reads.
#[derive(Clone, Debug, Default)]
pub struct SourceCounters {
    /// Records emitted.
    pub records: Arc<AtomicU64>,
    /// Records set aside.
    pub bad: BadRecords,
    /// Paths passed over: neither files nor folders, or links that lead nowhere.
    pub passed_over: Arc<AtomicU64>,
}

/// When line 0, 1, 2 … was meant to be sent, on the query's clock in nanoseconds.
pub type IntendedTimes = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

/// The source.
pub struct SocketSource {
    config: SocketConfig,
    address: SocketAddr,
    link: Link,
    durable: Option<Durable>,
    registry: Option<Registry>,
    token: Token,
    /// Bytes read and not yet consumed: `buffer[start..end]`, of which up to `scanned` hold no
    /// line end.
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
    end: usize,
    /// Offset of `buffer[start]` in the stream.
    position: u64,
    /// Inside a line that is too long: its offset, its length so far, and its first bytes.
    skipping: Option<(u64, u64, Vec<u8>)>,
    /// The last byte read was a CR, which has ended its line.
    after_cr: bool,
    bound: Option<u64>,
    /// Nothing was read since the checkpoint was taken up.
    resumed: bool,
    planned_once: bool,
    ingest_ns: u64,
    ingest_us: i64,
    backoff_ns: u64,
    row: Vec<u8>,
    counters: SourceCounters,
    notice: fn(&str),
    intended: Option<IntendedTimes>,
    lines: u64,
}

/// What a durable source has besides.
struct Durable {
    env: Arc<dyn Env>,
    folder: PathBuf,
    /// Open from the first step on.
    log: Option<CaptureLog>,
    /// What an earlier run has logged and not committed.
    replay: Option<Replay>,
    connection: u32,
    next_connection: u32,
    /// Whole lines in the log, in all of its life.
    lines: u64,
    /// Of an acknowledgement, what the peer's socket had no room for.
    unsent: Vec<u8>,
}

impl Durable {
    fn new(env: Arc<dyn Env>, folder: PathBuf) -> Self {
        Self {
            env,
            folder,
            log: None,
            replay: None,
            connection: 0,
            next_connection: 0,
            lines: 0,
            unsent: Vec::with_capacity(32),
        }
    }

    /// Opens the log to go on at `position`. Says where it was torn, if it was.
    fn open(&mut self, position: u64, ends: LineEnds) -> Result<Option<String>, EngineError> {
        let count = |payload: &[u8]| ends.count(payload);
        let (log, tail, replay) = CaptureLog::open(&*self.env, &self.folder, position, count)?;
        (self.log, self.replay) = (Some(log), Some(replay));
        (self.lines, self.next_connection) = (tail.lines, tail.connections);
        Ok(tail.torn)
    }
}

/// What a read came to.
enum ReadOutcome {
    Bytes,
    Nothing,
    Eof,
}

impl SocketSource {
    fn new(
        config: SocketConfig,
        address: SocketAddr,
        link: Link,
        durable: Option<Durable>,
    ) -> Self {
        Self {
            config,
            address,
            link,
            durable,
            registry: None,
            token: Token(0),
            buffer: vec![0; READ_BYTES * 2],
            start: 0,
            scanned: 0,
            end: 0,
            position: 0,
            skipping: None,
            after_cr: false,
            bound: None,
            resumed: false,
            planned_once: false,
            ingest_ns: 0,
            ingest_us: 0,
            backoff_ns: BACKOFF_FIRST_NS,
            row: Vec::new(),
            counters: SourceCounters::default(),
            notice: |_| {},
            intended: None,
            lines: 0,
        }
    }

    /// The counters, to be read from other threads.
    pub fn counters(&self) -> SourceCounters {
        self.counters.clone()
    }

    /// Calls this with a line of text when the peer ends the stream or comes back.
    pub fn on_notice(&mut self, notice: fn(&str)) {
        self.notice = notice;
    }

    /// Counts latency from these times.
    pub fn intended_times(&mut self, times: IntendedTimes) {
        self.intended = Some(times);
    }

    /// The port that it listens on or is connected to.
    pub fn address(&self) -> SocketAddr {
        match &self.link {
            Link::Listening { listener } => listener.local_addr().unwrap_or(self.address),
            _ => self.address,
        }
    }

    fn register(&mut self) -> Result<(), EngineError> {
        let Some(registry) = &self.registry else { return Ok(()) };
        let registered = match &mut self.link {
            Link::Listening { listener } => {
                registry.register(listener, self.token, Interest::READABLE)
            }
            Link::Open { stream, .. } => registry.register(stream, self.token, Interest::READABLE),
            Link::Connecting { stream } => {
                registry.register(stream, self.token, Interest::READABLE | Interest::WRITABLE)
            }
            Link::Waiting { .. } | Link::Ended => Ok(()),
        };
        registered.map_err(|error| EngineError::runtime("register a socket", error))
    }

    /// Moves a link that is not open towards open. Returns whether it is.
    fn advance(&mut self, cx: &mut StepCx<'_>) -> Result<bool, EngineError> {
        match std::mem::replace(&mut self.link, Link::Ended) {
            open @ Link::Open { .. } => {
                self.link = open;
                return Ok(true);
            }
            Link::Ended => {}
            Link::Listening { listener } => match listener.accept() {
                Ok((stream, peer)) => {
                    (self.notice)(&format!("socket source: {peer} connected"));
                    if let Some(registry) = &self.registry {
                        let mut stream = stream;
                        registry
                            .register(&mut stream, Token(self.token.0), Interest::READABLE)
                            .map_err(|error| EngineError::runtime("register a socket", error))?;
                        self.link = Link::Open { stream, listener: Some(listener) };
                        self.opened(cx)?;
                        return Ok(true);
                    }
                    self.link = Link::Open { stream, listener: Some(listener) };
                    self.opened(cx)?;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.link = Link::Listening { listener };
                }
                Err(error) => return Err(self.config.fails(error, "")),
            },
            Link::Waiting { until_ns } if cx.env.now_ns() < until_ns => {
                cx.wake_at(until_ns);
                self.link = Link::Waiting { until_ns };
            }
            Link::Waiting { .. } => match TcpStream::connect(self.address) {
                Ok(stream) => {
                    self.link = Link::Connecting { stream };
                    self.register()?;
                }
                Err(_) => self.back_off(cx),
            },
            Link::Connecting { stream } => match (stream.take_error(), stream.peer_addr()) {
                (Ok(None), Ok(_)) => {
                    (self.notice)(&format!("socket source: connected to {} again", self.address));
                    self.backoff_ns = BACKOFF_FIRST_NS;
                    self.link = Link::Open { stream, listener: None };
                    self.opened(cx)?;
                    return Ok(true);
                }
                (Ok(None), Err(error))
                    if error.kind() == ErrorKind::NotConnected
                        || error.raw_os_error() == Some(115) =>
                {
                    self.link = Link::Connecting { stream };
                }
                _ => self.back_off(cx),
            },
        }
        Ok(false)
    }

    fn back_off(&mut self, cx: &mut StepCx<'_>) {
        let until_ns = cx.env.now_ns() + self.backoff_ns;
        self.backoff_ns = (self.backoff_ns * 2).min(BACKOFF_MOST_NS);
        cx.wake_at(until_ns);
        self.link = Link::Waiting { until_ns };
    }

    /// Makes room for a read: moves what is left to the front, and grows up to the line limit.
    fn make_room(&mut self, most: usize) {
        if self.start == self.end {
            (self.start, self.scanned, self.end) = (0, 0, 0);
        } else if self.buffer.len() - self.end < READ_BYTES && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < READ_BYTES && self.buffer.len() < most {
            self.buffer.resize((self.buffer.len() * 2).min(most), 0);
        }
    }

    fn read(&mut self, cx: &StepCx<'_>, most: usize) -> Result<ReadOutcome, EngineError> {
        self.make_room(most);
        if self.is_replaying() {
            return self.read_log(cx);
        }
        let Link::Open { stream, .. } = &mut self.link else { return Ok(ReadOutcome::Nothing) };
        if self.end == self.buffer.len() {
            return Ok(ReadOutcome::Nothing);
        }
        let to = if self.durable.is_some() {
            (self.end + READ_BYTES).min(self.buffer.len())
        } else {
            self.buffer.len()
        };
        match stream.read(&mut self.buffer[self.end..to]) {
            Ok(0) => Ok(ReadOutcome::Eof),
            Ok(count) => {
                let count = self.without_split_end(count);
                self.ingest_ns = cx.env.now_ns();
                if self.config.include_timestamp || self.durable.is_some() {
                    self.ingest_us = cx.env.wall_us();
                }
                self.end += count;
                if self.durable.is_some() && count > 0 {
                    self.keep(Kind::Data, count)?;
                }
                Ok(ReadOutcome::Bytes)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(ReadOutcome::Nothing)
            }
            // A reset is the end of this connection, not of the query.
            Err(_) => Ok(ReadOutcome::Eof),
        }
    }

    /// Drops an LF that comes behind a CR in a read of its own: the CR has ended the line. Returns
    /// how many of the bytes that were read remain.
    #[inline]
    fn without_split_end(&mut self, count: usize) -> usize {
        if self.config.ends != LineEnds::Any {
            return count;
        }
        let (begin, end) = (self.end, self.end + count);
        let is_rest = self.after_cr && self.buffer[begin] == b'\n';
        self.after_cr = self.buffer[end - 1] == b'\r';
        if is_rest {
            self.buffer.copy_within(begin + 1..end, begin);
        }
        count - usize::from(is_rest)
    }

    fn is_replaying(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| durable.replay.is_some())
    }

    /// Logs the last `count` bytes of the buffer, before anyone looks at them.
    fn keep(&mut self, kind: Kind, count: usize) -> Result<(), EngineError> {
        let position = self.position + (self.end - self.start - count) as u64;
        let Some(durable) = &mut self.durable else { return Ok(()) };
        let Some(log) = &mut durable.log else { return Ok(()) };
        let payload = &self.buffer[self.end - count..self.end];
        let head = Head {
            position,
            lines: durable.lines,
            mono_ns: self.ingest_ns,
            wall_us: self.ingest_us,
            connection: durable.connection,
            direction: Direction::In,
            kind,
        };
        log.append(&head, payload)?;
        durable.lines += self.config.ends.count(payload);
        if self.config.acknowledge {
            self.acknowledge();
        }
        Ok(())
    }

    /// Tells the peer how many whole lines are kept. What does not fit into its socket is told
    /// with the next.
    fn acknowledge(&mut self) {
        let Some(durable) = &mut self.durable else { return };
        let Link::Open { stream, .. } = &mut self.link else { return };
        if durable.unsent.is_empty() {
            // Writing into memory does not fail.
            let _ = writeln!(durable.unsent, "{}", durable.lines);
        }
        // A peer that is gone shows in the next read.
        let written = stream.write(&durable.unsent).unwrap_or(0);
        durable.unsent.drain(..written);
    }

    /// A connection has begun.
    fn opened(&mut self, cx: &StepCx<'_>) -> Result<(), EngineError> {
        (self.ingest_ns, self.ingest_us) = (cx.env.now_ns(), cx.env.wall_us());
        self.after_cr = false;
        if let Some(durable) = &mut self.durable {
            durable.connection = durable.next_connection;
            durable.next_connection += 1;
            durable.unsent.clear();
        }
        self.keep(Kind::Open, 0)
    }

    /// Drops the beginning of a line whose connection is gone.
    fn drop_partial(&mut self) {
        let last = self.config.ends.last(&self.buffer[self.start..self.end]);
        let whole = last.map_or(0, |at| at + 1);
        let rest_at = self.start + whole;
        let rest = self.end - rest_at;
        if whole == 0 && self.skipping.is_some() {
            let Some((offset, length, first)) = self.skipping.take() else { return };
            let length = length + rest as u64;
            self.counters.bad.add(None, (offset, length), "line longer than maxLineLength", &first);
            self.consume(rest);
        } else if rest > 0 {
            // A peer that is told what is kept sends the line again.
            if !self.config.acknowledge {
                let (offset, range) = (self.position + whole as u64, rest_at..self.end);
                self.set_aside(offset, rest as u64, "connection ended within a line", range);
            }
            self.end = rest_at;
            self.scanned = self.scanned.min(self.end);
        }
    }

    /// Reads the next block of the log as if it came from the socket.
    fn read_log(&mut self, cx: &StepCx<'_>) -> Result<ReadOutcome, EngineError> {
        let Some(mut replay) = self.durable.as_mut().and_then(|durable| durable.replay.take())
        else {
            return Ok(ReadOutcome::Nothing);
        };
        self.ingest_ns = cx.env.now_ns();
        match replay.next_block()? {
            None => {
                self.drop_partial();
                if matches!(self.link, Link::Open { .. }) {
                    self.opened(cx)?;
                }
                return Ok(ReadOutcome::Bytes);
            }
            Some((head, payload)) => match head.kind {
                Kind::Open | Kind::Close => self.drop_partial(),
                Kind::Data => {
                    let wanted = self.position + (self.end - self.start) as u64;
                    let known = wanted.saturating_sub(head.position).min(payload.len() as u64);
                    let payload = &payload[known as usize..];
                    self.ingest_us = head.wall_us;
                    if self.buffer.len() - self.end < payload.len() {
                        self.buffer.resize(self.end + payload.len(), 0);
                    }
                    self.buffer[self.end..self.end + payload.len()].copy_from_slice(payload);
                    self.end += payload.len();
                }
            },
        }
        if let Some(durable) = &mut self.durable {
            durable.replay = Some(replay);
        }
        Ok(ReadOutcome::Bytes)
    }

    fn set_aside(
        &mut self,
        offset: u64,
        length: u64,
        reason: &'static str,
        at: std::ops::Range<usize>,
    ) {
        self.counters.bad.add(None, (offset, length), reason, &self.buffer[at]);
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.position += bytes as u64;
        self.scanned = self.scanned.max(self.start);
    }

    /// The connection is over.
    fn ended(&mut self, cx: &mut StepCx<'_>) -> Result<(), EngineError> {
        let returns = self.config.listen || self.config.at_end == AtEnd::Reconnect;
        let unended = self.end > self.start && !self.config.ends.is_end(self.buffer[self.end - 1]);
        if returns || self.skipping.is_some() || !unended {
            // Whole lines may still wait for their batch; the rest is what follows them.
            self.drop_partial();
            self.keep(Kind::Close, 0)?;
        } else {
            // The last line has no end: give it one.
            if self.end == self.buffer.len() {
                self.buffer.push(0);
            }
            self.buffer[self.end] = b'\n';
            self.end += 1;
            self.keep(Kind::Data, 1)?;
        }
        let link = std::mem::replace(&mut self.link, Link::Ended);
        let text = match (&self.config.at_end, self.config.listen) {
            (_, true) => "waiting for the next client",
            (AtEnd::Reconnect, _) => "connecting again",
            (AtEnd::Stop, _) => "the source is at its end",
            (AtEnd::Wait, _) => "no more rows will come (atEnd 'reconnect' would connect again)",
        };
        (self.notice)(&format!(
            "socket source: the peer of {} ended the stream; {text}",
            self.address
        ));
        match link {
            Link::Open { listener: Some(listener), .. } if self.config.at_end != AtEnd::Stop => {
                self.link = Link::Listening { listener };
            }
            _ if self.config.at_end == AtEnd::Reconnect && !self.config.listen => self.back_off(cx),
            _ => {}
        }
        Ok(())
    }

    /// Emits complete lines from the buffer. Returns how many.
    fn emit<D>(&mut self, down: &mut D, budget: usize) -> Result<usize, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let mut emitted = 0;
        while emitted < budget && down.ready() {
            if self.bound.is_some_and(|bound| self.position >= bound) {
                break;
            }
            let Some(at) = self.config.ends.first(&self.buffer[self.scanned..self.end]) else {
                self.scanned = self.end;
                self.cut_long_line();
                break;
            };
            let line_end = self.scanned + at;
            let length = line_end - self.start;
            let end_length = LineEnds::length(&self.buffer[..self.end], line_end);
            if let Some((offset, before, first)) = self.skipping.take() {
                let whole = before + length as u64;
                self.counters.bad.add(
                    None,
                    (offset, whole),
                    "line longer than maxLineLength",
                    &first,
                );
            } else if length > self.config.max_line {
                let range = self.start..line_end;
                self.set_aside(
                    self.position,
                    length as u64,
                    "line longer than maxLineLength",
                    range,
                );
            } else {
                self.emit_line(down, line_end)?;
            }
            self.consume(length + end_length);
            self.scanned = self.start;
            emitted += 1;
        }
        Ok(emitted)
    }

    /// Drops what was read of a line that has become too long, keeping the count.
    fn cut_long_line(&mut self) {
        let rest = self.end - self.start;
        match &mut self.skipping {
            Some((_, length, _)) => {
                *length += rest as u64;
                self.consume(rest);
            }
            None if rest > self.config.max_line => {
                let first = &self.buffer[self.start..self.end.min(self.start + KEPT_BYTES)];
                self.skipping = Some((self.position, rest as u64, first.to_vec()));
                self.consume(rest);
            }
            None => {}
        }
    }

    #[inline]
    fn emit_line<D>(&mut self, down: &mut D, line_end: usize) -> Result<(), EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let line = &self.buffer[self.start..line_end];
        if std::str::from_utf8(line).is_err() {
            let length = line.len() as u64;
            self.counters.bad.add(None, (self.position, length), "not UTF-8", line);
            return Ok(());
        }
        self.row.clear();
        let width = if self.config.include_timestamp { 2 } else { 1 };
        let mut writer = RowWriter::new(&mut self.row, width);
        writer.bytes(0, line);
        if self.config.include_timestamp {
            writer.long(1, self.ingest_us);
        }
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.fetch_add(1, Ordering::Relaxed);
        let ingest_ns = match &self.intended {
            Some(times) => times(self.lines),
            None => self.ingest_ns,
        };
        self.lines += 1;
        down.push(Row(&self.row), ingest_ns)
    }

    /// An epoch of an earlier run ends behind what there is: its bytes died with that run.
    fn lose_up_to(&mut self, end: u64) {
        (self.notice)(&format!(
            "socket source: {} bytes that were received before the restart are lost; option durable \
             'true' keeps what is received",
            end - self.position
        ));
        self.position = end;
    }

    fn is_exhausted(&self) -> bool {
        matches!(self.link, Link::Ended)
            && self.config.at_end == AtEnd::Stop
            && self.start == self.end
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for SocketSource {
    fn name(&self) -> &str {
        "socket"
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        if let Some(registry) = io.registry {
            let owned = registry.try_clone();
            self.registry =
                Some(owned.map_err(|error| EngineError::runtime("share a poll", error))?);
        }
        self.token = io.token();
        if let Some(durable) = &mut self.durable {
            let torn = durable.open(self.position, self.config.ends)?;
            if let Some(torn) = torn {
                (self.notice)(&format!(
                    "socket source: the capture log was torn at {torn} and goes on before it"
                ));
            }
        }
        self.register()
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let mut emitted = self.emit(down, cx.budget)?;
        if let Some(bound) = self.bound {
            if emitted == 0 && self.position < bound && down.ready() {
                if self.is_replaying() {
                    self.read(cx, self.config.max_line + 2 * READ_BYTES)?;
                } else if self.resumed {
                    self.lose_up_to(bound);
                }
            }
            let reached = self.position >= bound;
            if reached {
                self.bound = None;
            }
            return Ok(if reached { Polled::AtBound } else { Polled::Some });
        }
        if emitted > 0 || !down.ready() {
            return Ok(if emitted > 0 { Polled::Some } else { Polled::Idle });
        }
        if !self.is_replaying() && !self.advance(cx)? {
            let exhausted = self.is_exhausted();
            return Ok(if exhausted { Polled::Exhausted } else { Polled::Idle });
        }
        match self.read(cx, self.config.max_line + 2 * READ_BYTES)? {
            ReadOutcome::Nothing => return Ok(Polled::Idle),
            ReadOutcome::Bytes => {}
            ReadOutcome::Eof => self.ended(cx)?,
        }
        emitted += self.emit(down, cx.budget)?;
        // A read without a complete line is progress too: there may be more in the socket.
        let _ = emitted;
        Ok(Polled::Some)
    }

    fn position(&self) -> Offset {
        Offset(self.position.to_string())
    }

    fn records(&self) -> u64 {
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.load(Ordering::Relaxed)
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        self.position = at.number()?;
        self.resumed = true;
        Ok(())
    }

    fn plan(&mut self, extent: Extent, cx: &mut StepCx<'_>) -> Result<Planned, EngineError> {
        if extent == Extent::AsOfStart && std::mem::replace(&mut self.planned_once, true) {
            let end = Offset(self.position.to_string());
            return Ok(Planned { end, has_new: false, exhausted: false, limited: false });
        }
        while self.end - self.start < STAGE_BYTES && (self.is_replaying() || self.advance(cx)?) {
            match self.read(cx, STAGE_BYTES + 2 * READ_BYTES)? {
                ReadOutcome::Bytes => {}
                ReadOutcome::Nothing => break,
                ReadOutcome::Eof => {
                    self.ended(cx)?;
                    break;
                }
            }
        }
        let last_line = self.config.ends.last(&self.buffer[self.start..self.end]);
        if last_line.is_none() {
            self.scanned = self.end;
            self.cut_long_line();
        }
        let end = self.position + last_line.map_or(0, |at| at as u64 + 1);
        Ok(Planned {
            end: Offset(end.to_string()),
            has_new: end > self.position,
            exhausted: matches!(self.link, Link::Ended) && self.config.at_end == AtEnd::Stop,
            limited: self.end - self.start >= STAGE_BYTES,
        })
    }

    fn bound(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.bound = Some(end.number()?);
        Ok(())
    }

    fn committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.resumed = false;
        // What is still being read again stays, committed or not.
        if let Some(Durable { log: Some(log), replay: None, .. }) = &mut self.durable {
            log.committed(end.number()?);
        }
        Ok(())
    }
}
