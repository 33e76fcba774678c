//! The socket sink: writes one line per row to a TCP peer. It connects, or listens for one client
//! at a time.
//!
//! If the peer does not read, the buffer fills up and blocks the query, including its sources. If
//! the sink has connected and the peer disconnects, a later write fails the query. If it listens,
//! it waits for the next client; rows that were written to the previous client, also in part, are
//! lost if it had not read them. The next client starts with a whole row. Delivery is at least once
//! only to a peer that stays connected.
//!
//! When a query is stopped, its sink waits for the peer for a bounded time. If lines are left in
//! the sink's buffer by then, the query fails and their epoch is not committed.

use super::super::file::line_options;
use super::super::options::OptionReader;
use crate::connect::format_settings::FormatSettings;
use crate::connect::line_format::{LineFormat, LineOptions, LineWriter};
use crate::table::error::PlanResult;
use crate::table::plan::Options;
use crate::table::row::Row;
use crate::table::types::Schema;
use millstream_engine::env::Env;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::mio::net::{TcpListener, TcpStream};
use millstream_engine::mio::{Interest, Registry, Token};
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes buffered for a slow peer before the query is blocked.
const BUFFER_BYTES: usize = 1 << 20;
/// Number of rows in the buffer for which there is room from the start.
const BUFFER_ROWS: usize = 1 << 14;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stopping query waits for its receiver, in nanoseconds.
const STOP_WAIT_NS: u64 = 5_000_000_000;
/// How long the sink waits without writing a byte before a notice is shown, in nanoseconds.
const NOTICE_AFTER_NS: u64 = 2_000_000_000;
/// How often a waiting sink checks whether `stop` was called, in nanoseconds.
const LOOK_AGAIN_NS: u64 = 100_000_000;

/// The parsed options of a socket sink.
#[derive(Clone, Debug)]
pub struct SocketSinkConfig {
    host: String,
    port: u16,
    listen: bool,
    format: LineFormat,
    lines: Box<LineOptions>,
}

impl SocketSinkConfig {
    /// Reads `host`, `port`, `mode`, `format` and the options of that format. Fails without host or
    /// port, and for a wrong value or an unknown option. The mode is `connect` and the format `text`
    /// if they are not given.
    pub fn read(options: &Options, settings: &FormatSettings) -> PlanResult<Self> {
        let mut reader = OptionReader::with_settings("sink socket", options, settings);
        let host = reader.required("host", "localhost")?.to_string();
        reader.required("port", "9998")?;
        let port = reader.number("port", 0, 0, 65535)? as u16;
        let listen = reader.choice("mode", &["connect", "listen"])? == "listen";
        let format = match reader.choice("format", &["text", "json", "csv"])? {
            "json" => LineFormat::Json,
            "csv" => LineFormat::Csv,
            _ => LineFormat::Text,
        };
        let (lines, _) = line_options(format, &mut reader)?;
        let lines = Box::new(lines);
        reader.finish()?;
        Ok(Self { host, port, listen, format, lines })
    }

    fn fails(&self, reason: impl std::fmt::Display, fix: &str) -> EngineError {
        let what = if self.listen { "listen on" } else { "connect to" };
        let reason = format!("cannot {what} {}:{}: {reason}", self.host, self.port);
        EngineError::operator("SOCKET_SINK_FAILED", reason, fix)
    }

    /// Creates a line writer for this schema; an error if the format does not support it.
    pub fn writer(&self, schema: &Schema) -> PlanResult<LineWriter> {
        LineWriter::without(self.format, (*self.lines).clone(), schema, &[])
    }

    /// Connects, or starts to listen.
    pub fn open(
        &self,
        writer: LineWriter,
        latency: LatencyRecorder,
        wait: ReceiverWait,
    ) -> Result<SocketSink, EngineError> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let addresses = addresses.map_err(|error| self.fails(error, "Check the host name"))?;
        let mut last = self.fails("the name has no address", "Check the host name");
        for address in addresses {
            let link = if self.listen {
                TcpListener::bind(address)
                    .map(|listener| Link { listener: Some(listener), stream: None })
            } else {
                std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).and_then(|stream| {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    Ok(Link { listener: None, stream: Some(TcpStream::from_std(stream)) })
                })
            };
            match link {
                Ok(link) => {
                    return Ok(SocketSink {
                        config: self.clone(),
                        address,
                        link,
                        registry: None,
                        token: Token(0),
                        writer,
                        buffer: Vec::with_capacity(BUFFER_BYTES / 4),
                        written: 0,
                        rows: VecDeque::with_capacity(BUFFER_ROWS),
                        row_start: 0,
                        latency,
                        wait,
                    });
                }
                Err(error) => {
                    let fix = match error.kind() {
                        ErrorKind::ConnectionRefused => {
                            "Start the receiver first, or use mode 'listen'"
                        }
                        ErrorKind::AddrInUse => {
                            "Another program uses this port: stop it or use another port"
                        }
                        _ => "Check host and port",
                    };
                    last = self.fails(error, fix);
                }
            }
        }
        Err(last)
    }
}

struct Link {
    listener: Option<TcpListener>,
    stream: Option<TcpStream>,
}

/// How long the sink has waited for its receiver.
pub struct ReceiverWait {
    env: Arc<dyn Env>,
    /// Whether `stop` was called on the query.
    stopping: Arc<AtomicBool>,
    notice: fn(&str),
    since_ns: Option<u64>,
    told: bool,
    give_up_ns: Option<u64>,
    look_ns: Option<u64>,
}

impl ReceiverWait {
    /// Starts without waiting. The query sets `stopping` when `stop` is called.
    pub fn new(env: Arc<dyn Env>, stopping: Arc<AtomicBool>, notice: fn(&str)) -> Self {
        Self { env, stopping, notice, since_ns: None, told: false, give_up_ns: None, look_ns: None }
    }

    /// Ends the wait: the receiver has taken something.
    fn end(&mut self) {
        (self.since_ns, self.told, self.look_ns) = (None, false, None);
    }

    /// Continues the wait. Returns false if the query must not wait any longer.
    fn goes_on(&mut self, has_receiver: bool, address: SocketAddr) -> bool {
        let now_ns = self.env.now_ns();
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        if !self.told && now_ns >= since_ns + NOTICE_AFTER_NS {
            self.told = true;
            (self.notice)(&if has_receiver {
                format!("sink socket: the receiver at {address} does not read: the query waits")
            } else {
                format!("sink socket: the query waits for a receiver on {address}")
            });
        }
        if self.look_ns.is_none_or(|look_ns| look_ns <= now_ns) {
            self.look_ns = Some(now_ns + LOOK_AGAIN_NS);
        }
        if !self.stopping.load(Ordering::Relaxed) {
            return true;
        }
        now_ns < *self.give_up_ns.get_or_insert(now_ns + STOP_WAIT_NS)
    }
}

/// The socket sink: buffers lines and writes them to its peer.
pub struct SocketSink {
    config: SocketSinkConfig,
    address: SocketAddr,
    link: Link,
    registry: Option<Registry>,
    token: Token,
    writer: LineWriter,
    buffer: Vec<u8>,
    /// The number of bytes at the front of `buffer` that are written.
    written: usize,
    /// The lengths of the rows in `buffer` from `row_start` on, in bytes. A line end does not tell
    /// where a row ends, because a row may have several lines.
    rows: VecDeque<u32>,
    /// The position in `buffer` at which the first of `rows` begins.
    row_start: usize,
    latency: LatencyRecorder,
    wait: ReceiverWait,
}

impl SocketSink {
    /// The address that the sink listens on or is connected to.
    pub fn address(&self) -> SocketAddr {
        let listening = self.link.listener.as_ref().and_then(|l| l.local_addr().ok());
        listening.unwrap_or(self.address)
    }

    fn accept(&mut self) -> Result<(), EngineError> {
        let Some(listener) = &self.link.listener else { return Ok(()) };
        match listener.accept() {
            Ok((mut stream, _)) => {
                // Disables Nagle's algorithm. Otherwise a small line may wait for a TCP
                // acknowledgement.
                let _ = stream.set_nodelay(true);
                if let Some(registry) = &self.registry {
                    registry
                        .register(&mut stream, self.token, Interest::WRITABLE)
                        .map_err(|error| EngineError::runtime("register a socket", error))?;
                }
                self.link.stream = Some(stream);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(self.config.fails(error, "")),
        }
    }

    fn write_out(&mut self) -> Result<FlushStatus, EngineError> {
        while self.written < self.buffer.len() {
            if self.link.stream.is_none() {
                self.accept()?;
            }
            let Some(stream) = &mut self.link.stream else { return Ok(FlushStatus::Blocked) };
            match stream.write(&self.buffer[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    self.wait.end();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.drop_written();
                    return Ok(FlushStatus::Blocked);
                }
                Err(_) if self.link.listener.is_some() => self.lose_client(),
                Err(error) => {
                    let fix = "Start the query again when the receiver is back";
                    return Err(self
                        .config
                        .fails(format!("the receiver has disconnected: {error}"), fix));
                }
            }
        }
        self.buffer.clear();
        self.rows.clear();
        (self.written, self.row_start) = (0, 0);
        Ok(FlushStatus::Flushed)
    }

    /// Forgets the rows that are written entirely.
    fn forget_written_rows(&mut self) {
        while let Some(length) = self.rows.front()
            && self.row_start + *length as usize <= self.written
        {
            self.row_start += *length as usize;
            self.rows.pop_front();
        }
    }

    /// The error of a query that stops while its receiver has not read all rows.
    fn undelivered(&mut self) -> EngineError {
        self.forget_written_rows();
        let lines = self.rows.len();
        let seconds = STOP_WAIT_NS / 1_000_000_000;
        let receiver = match &self.link.stream {
            Some(_) => "the receiver does not read",
            None => "no receiver is connected",
        };
        EngineError::operator(
            "SOCKET_SINK_UNDELIVERED",
            format!(
                "{receiver} at {}: {lines} lines not delivered within {seconds} s of the stop, \
                 and their epoch is not committed",
                self.address()
            ),
            "With a checkpoint the query delivers them at its next start",
        )
    }

    /// Drops the connection, and the rest of a row that was written in part: the next client must
    /// not start in the middle of a row.
    fn lose_client(&mut self) {
        self.link.stream = None;
        self.forget_written_rows();
        if self.row_start < self.written {
            let rest = self.rows.front().map_or(0, |length| *length as usize);
            self.written = self.row_start + rest;
        }
    }

    /// Removes the rows that are written entirely from the buffer once they are large enough, so
    /// that the buffer stays small. A row that is written in part stays.
    fn drop_written(&mut self) {
        if self.written >= BUFFER_BYTES / 2 {
            self.forget_written_rows();
            self.buffer.drain(..self.row_start);
            self.written -= self.row_start;
            self.row_start = 0;
        }
    }
}

impl Stage for SocketSink {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.token = io.token();
        let Some(registry) = io.registry else { return Ok(()) };
        let fails = |error| EngineError::runtime("register a socket", error);
        self.registry = Some(registry.try_clone().map_err(fails)?);
        if let Some(listener) = &mut self.link.listener {
            registry.register(listener, io.token(), Interest::READABLE).map_err(fails)?;
        }
        if let Some(stream) = &mut self.link.stream {
            registry.register(stream, self.token, Interest::WRITABLE).map_err(fails)?;
        }
        Ok(())
    }

    #[inline]
    fn is_ready(&mut self) -> bool {
        self.buffer.len() - self.written < BUFFER_BYTES
    }

    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }

    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        self.latency.publish();
        Ok(())
    }

    fn end(&mut self) -> Result<(), EngineError> {
        self.latency.publish();
        Ok(())
    }

    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if self.buffer.is_empty() {
            return Ok(FlushStatus::Flushed);
        }
        let settled = self.write_out()?;
        match settled {
            FlushStatus::Flushed => self.latency.record_pending(),
            _ if !self.wait.goes_on(self.link.stream.is_some(), self.address()) => {
                return Err(self.undelivered());
            }
            _ => {}
        }
        Ok(settled)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.wait.look_ns
    }
}

impl<'a> Push<Row<'a>> for SocketSink {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        let before = self.buffer.len();
        self.writer.write(row, &mut self.buffer);
        self.rows.push_back((self.buffer.len() - before) as u32);
        self.latency.add_pending(ingest_ns);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::encode;
    use crate::table::value::Value;
    use millstream_engine::env::RealEnv;
    use millstream_engine::measure::latency::Latency;

    /// A listening sink with these options and 700 rows of a thousand digits each.
    fn sink(options: &[(&str, &str)]) -> SocketSink {
        let all = [("host", "127.0.0.1"), ("port", "0"), ("mode", "listen")];
        let all = all.iter().chain(options);
        let all: Options = all.map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let config = SocketSinkConfig::read(&all, &FormatSettings::default()).unwrap();
        let writer = config.writer(&Schema::parse_ddl("n STRING").unwrap()).unwrap();
        let env: Arc<dyn Env> = Arc::new(RealEnv::default());
        let wait = ReceiverWait::new(env.clone(), Arc::default(), |_| {});
        let mut sink = config.open(writer, Latency::default().recorder(env), wait).unwrap();
        for n in 0..700 {
            sink.push(Row(&encode(&[Value::String(format!("{n:01000}"))])), 0).unwrap();
        }
        sink
    }

    /// A client disconnects within a row, also after the rows before it were removed from the
    /// buffer. The next client starts with the next row, whatever ends the rows.
    #[test]
    fn the_next_client_starts_with_a_whole_row() {
        for options in [
            &[("format", "json")][..],
            &[("format", "json"), ("lineSep", ";")],
            &[("format", "json"), ("pretty", "true")],
        ] {
            let whole = sink(options);
            let row_ends = whole.rows.iter().scan(0, |end, length| {
                *end += *length as usize;
                Some(*end)
            });
            let row_ends: Vec<usize> = row_ends.collect();
            let far = row_ends.iter().position(|end| *end > BUFFER_BYTES / 2).unwrap();
            for row in [5, far] {
                for within in [0, 1, 4] {
                    let mut sink = sink(options);
                    sink.written = row_ends[row] + within;
                    sink.drop_written();
                    sink.lose_client();
                    let next = if within == 0 { row } else { row + 1 };
                    let rest = &whole.buffer[row_ends[next]..];
                    assert!(sink.buffer[sink.written..] == *rest, "{options:?}: {row}, {within}");
                    let lines = format!("{} lines", row_ends.len() - next - 1);
                    let error = sink.undelivered().to_string();
                    assert!(error.contains(&lines), "{error}");
                }
            }
        }
    }
}
