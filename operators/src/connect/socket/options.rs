//! The options of the socket source.

use super::super::options::OptionReader;
use super::framing::Framing;
use crate::connect::socket::framing::line::LineEnds;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::capture::Rotation;
use millstream_engine::error::EngineError;
use std::fmt;
use std::path::PathBuf;

/// Default of `maxConnections`.
const CLIENTS: u64 = 1_024;
/// Default of `maxUnfinishedBytes`, unless `maxLineLength` is larger.
const UNFINISHED_BYTES: u64 = 64 << 20;
const SECOND_NS: u64 = 1_000_000_000;

/// The endpoint that provides the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp { host: String, port: u16 },
    Udp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Udp { host, port } => write!(f, "{host}:{port} (UDP)"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What happens when the peer ends the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// The query continues without input, as in Spark. A listener waits for other clients.
    Wait,
    /// The source ends. A listener ends when all its clients have left and there was at least one.
    Stop,
    /// The source reconnects with back-off. A listener waits for other clients.
    Reconnect,
}

/// TCP keep-alive: when the kernel probes a silent peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Time of silence before the first probe, in nanoseconds.
    pub after_ns: u64,
    /// Time between two probes, in nanoseconds.
    pub interval_ns: u64,
    /// Number of unanswered probes after which the connection is closed.
    pub probes: u32,
}

/// The parsed options of a socket source.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    pub(super) endpoint: Endpoint,
    pub(super) listen: bool,
    pub(super) include_timestamp: bool,
    pub(super) max_line: usize,
    pub(super) at_end: AtEnd,
    pub(super) durable: bool,
    pub(super) acknowledge: bool,
    pub(super) ends: LineEnds,
    /// Whether a datagram contains lines instead of being a record.
    pub(super) datagram_lines: bool,
    pub(super) max_connections: usize,
    pub(super) max_unfinished: usize,
    pub(super) idle_timeout_ns: Option<u64>,
    pub(super) keep_alive: Option<KeepAlive>,
    pub(super) receive_buffer: Option<usize>,
    /// Where and how received bytes are recorded.
    pub(super) record: Option<Record>,
}

/// The option `record`, and those that belong to it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub path: PathBuf,
    pub compress: bool,
    pub rotation: Rotation,
}

fn wrong(reason: impl fmt::Display, fix: &str) -> PlanError {
    PlanError::new("INVALID_OPTION_VALUE", format!("source socket: {reason}"), fix)
}

impl SocketConfig {
    /// Parses the options, which docs/src/reference.md lists.
    pub fn read(options: &Options) -> PlanResult<Self> {
        let mut reader = OptionReader::new("source socket", options);
        let endpoint = endpoint(&mut reader)?;
        let udp = matches!(endpoint, Endpoint::Udp { .. });
        let mode = reader.choice("mode", &["connect", "listen"])?;
        let listen = mode == "listen" || (udp && !reader.is_given("mode"));
        let include_timestamp = reader.flag("includeTimestamp", false)?;
        let max_line = reader.number("maxLineLength", 1 << 20, 1, 1 << 30)?;
        let at_end = match reader.choice("atEnd", &["wait", "stop", "reconnect"])? {
            "stop" => AtEnd::Stop,
            "reconnect" => AtEnd::Reconnect,
            _ => AtEnd::Wait,
        };
        let durable = reader.flag("durable", false)?;
        let acknowledge = reader.flag("acknowledge", false)?;
        let parts = reader.number("numPartitions", 1, 1, 256)?;
        let datagram_lines = reader.choice("datagram", &["record", "lines"])? == "lines";
        let max_connections = reader.number("maxConnections", CLIENTS, 1, 1 << 20)?;
        let most = UNFINISHED_BYTES.max(max_line);
        let max_unfinished = reader.number("maxUnfinishedBytes", most, max_line, 1 << 40)?;
        let idle_timeout_ns = reader.duration_ns("idleTimeout")?;
        let keep_alive = keep_alive(&mut reader)?;
        let receive_buffer = reader.number("receiveBufferBytes", 0, 0, 1 << 30)? as usize;
        let record = record(&mut reader)?;
        let ends = line_ends(&mut reader)?;
        let config = Self {
            endpoint,
            listen,
            include_timestamp,
            max_line: max_line as usize,
            at_end,
            durable,
            acknowledge,
            ends,
            datagram_lines,
            max_connections: max_connections as usize,
            max_unfinished: max_unfinished as usize,
            idle_timeout_ns,
            keep_alive,
            receive_buffer: (receive_buffer > 0).then_some(receive_buffer),
            record,
        };
        config.check(&reader, parts)?;
        reader.finish()?;
        Ok(config)
    }

    /// Returns an error for options that contradict each other.
    fn check(&self, reader: &OptionReader<'_>, parts: u64) -> PlanResult<()> {
        if matches!(self.endpoint, Endpoint::Udp { .. }) {
            self.check_udp(reader)?;
        } else if reader.is_given("datagram") {
            return Err(wrong("datagram without protocol 'udp'", "Leave out one of them"));
        }
        if matches!(self.endpoint, Endpoint::Unix(_)) {
            let tcp_only = ["keepAlive", "keepAliveInterval", "keepAliveProbes"];
            if let Some(name) = tcp_only.iter().find(|name| reader.is_given(name)) {
                let reason = format!("{name} with a Unix socket, whose peer cannot be lost");
                return Err(wrong(reason, "Leave it out"));
            }
        }
        if !self.listen && reader.is_given("maxConnections") {
            return Err(wrong(
                "maxConnections without mode 'listen': the source connects once",
                "Let the senders connect to the source: mode 'listen'",
            ));
        }
        if parts > 1 && !self.listen {
            return Err(wrong(
                format!("numPartitions '{parts}', but a client has one connection"),
                "Let the senders connect to the source: mode 'listen'",
            ));
        }
        if parts > 1 && self.record.is_some() {
            return Err(wrong(
                "record with numPartitions: a capture has one writer, and a query cannot read \
                 captures that overlap in time",
                "Leave out one of them",
            ));
        }
        if parts > 1 && self.acknowledge {
            return Err(wrong(
                "acknowledge 'true' with numPartitions: a sender that reconnects may be assigned \
                to another partition, which has persisted another number of lines",
                "Leave out one of them",
            ));
        }
        if self.acknowledge && !self.durable {
            return Err(wrong(
                "acknowledge 'true' needs durable 'true'",
                "Only persisted lines can be acknowledged",
            ));
        }
        Ok(())
    }

    fn check_udp(&self, reader: &OptionReader<'_>) -> PlanResult<()> {
        if !self.listen {
            return Err(wrong(
                "mode 'connect' with protocol 'udp', which has no connections",
                "Let the senders send to the source: mode 'listen'",
            ));
        }
        if self.at_end != AtEnd::Wait {
            return Err(wrong(
                "atEnd with protocol 'udp', which has no connections that could end",
                "Leave out atEnd, or use protocol 'tcp'",
            ));
        }
        if self.acknowledge {
            return Err(wrong(
                "acknowledge 'true' with protocol 'udp', over which datagrams may be lost",
                "Leave out acknowledge, or use protocol 'tcp'",
            ));
        }
        let of_connections = [
            "maxConnections",
            "maxUnfinishedBytes",
            "idleTimeout",
            "keepAlive",
            "keepAliveInterval",
            "keepAliveProbes",
        ];
        if let Some(name) = of_connections.iter().find(|name| reader.is_given(name)) {
            let reason = format!("{name} with protocol 'udp', which has no connections");
            return Err(wrong(reason, "Leave it out"));
        }
        if !self.datagram_lines && reader.is_given("lineSep") {
            return Err(wrong(
                "lineSep with datagrams that are records",
                "Let each datagram be split into lines: datagram 'lines'",
            ));
        }
        Ok(())
    }

    /// The columns `value STRING` and, with `includeTimestamp`, `timestamp TIMESTAMP`.
    pub fn schema(&self) -> Schema {
        let mut fields = vec![Field::new("value", DataType::String, true)];
        if self.include_timestamp {
            fields.push(Field::new("timestamp", DataType::Timestamp, true));
        }
        Schema::new(fields)
    }

    pub(super) fn framing(&self) -> Framing {
        match self.endpoint {
            Endpoint::Udp { .. } if !self.datagram_lines => Framing::Sized,
            _ => Framing::Lines(self.ends),
        }
    }

    /// Whether an acknowledgement counts the lines of all senders. True if the source has one
    /// sender at a time, which may reconnect.
    pub(super) fn acknowledges_all(&self) -> bool {
        !self.listen || self.max_connections == 1
    }

    /// Whether the peer may return after it has ended the stream.
    pub(super) fn returns(&self) -> bool {
        self.listen || self.at_end == AtEnd::Reconnect
    }

    pub(super) fn fails(&self, reason: impl fmt::Display, fix: &str) -> EngineError {
        let what = if self.listen { "listen on" } else { "connect to" };
        let reason = format!("cannot {what} {}: {reason}", self.endpoint);
        EngineError::operator("SOCKET_SOURCE_FAILED", reason, fix)
    }
}

fn endpoint(reader: &mut OptionReader<'_>) -> PlanResult<Endpoint> {
    let protocol = reader.choice("protocol", &["tcp", "udp", "unix"])?;
    let path = reader.get("path");
    if let Some(path) = path {
        for name in ["host", "port"] {
            if reader.get(name).is_some() {
                let reason = format!("path and {name}: a Unix socket has only a path");
                return Err(wrong(reason, "Leave out path, or host and port"));
            }
        }
        if reader.is_given("protocol") && protocol != "unix" {
            let reason = format!("path with protocol '{protocol}', which has host and port");
            return Err(wrong(reason, "Leave out one of them"));
        }
        if path.is_empty() {
            return Err(wrong("option 'path' is empty", "For example: path '/run/lines.sock'"));
        }
        return Ok(Endpoint::Unix(PathBuf::from(path)));
    }
    if protocol == "unix" {
        reader.required("path", "/run/lines.sock")?;
    }
    let host = reader.required("host", "localhost")?.to_string();
    reader.required("port", "9999")?;
    let port = reader.number("port", 0, 0, 65535)? as u16;
    Ok(match protocol {
        "udp" => Endpoint::Udp { host, port },
        _ => Endpoint::Tcp { host, port },
    })
}

/// Parses `keepAlive`, `keepAliveInterval` and `keepAliveProbes`. By default a dead peer is
/// detected after a minute.
fn keep_alive(reader: &mut OptionReader<'_>) -> PlanResult<Option<KeepAlive>> {
    let after_ns = match reader.get("keepAlive") {
        Some(off) if ["false", "off"].iter().any(|word| off.eq_ignore_ascii_case(word)) => None,
        Some(on) if on.eq_ignore_ascii_case("true") => Some(30 * SECOND_NS),
        _ => Some(reader.duration_ns("keepAlive")?.unwrap_or(30 * SECOND_NS)),
    };
    let interval_ns = reader.duration_ns("keepAliveInterval")?.unwrap_or(10 * SECOND_NS);
    let probes = reader.number("keepAliveProbes", 3, 1, 127)? as u32;
    for (name, ns) in [("keepAlive", after_ns), ("keepAliveInterval", Some(interval_ns))] {
        if ns.is_some_and(|ns| !(SECOND_NS..=32_767 * SECOND_NS).contains(&ns)) {
            let reason = format!("{name} must be from 1 second to 32767 seconds");
            return Err(wrong(reason, "For example: '30 seconds'"));
        }
    }
    Ok(after_ns.map(|after_ns| KeepAlive { after_ns, interval_ns, probes }))
}

/// The option `lineSep`: `\n` alone ends a line, or by default each of Spark's line ends.
fn line_ends(reader: &mut OptionReader<'_>) -> PlanResult<LineEnds> {
    match reader.get("lineSep") {
        None => Ok(LineEnds::Any),
        Some("\n" | "\\n") => Ok(LineEnds::Lf),
        Some(other) => Err(wrong(
            format!("option 'lineSep' is '{}'", other.escape_default()),
            "Write '\\n' if only \\n ends a line; omit it if \\n, \\r\\n and \\r end lines",
        )),
    }
}

/// Reads the option `record`, and those that belong to it.
fn record(reader: &mut OptionReader<'_>) -> PlanResult<Option<Record>> {
    let compress = reader.choice("recordCompression", &["none", "zstd"])? == "zstd";
    let bytes = reader.number("recordRotateBytes", 0, 1 << 16, 1 << 50)?;
    let rotation = Rotation {
        bytes: (bytes > 0).then_some(bytes),
        ns: reader.duration_ns("recordRotateInterval")?,
    };
    match reader.get("record") {
        Some("") => {
            let example = "For example: record '/data/lines.capture'";
            return Err(wrong("option 'record' is empty", example));
        }
        Some(_) if compress && !cfg!(feature = "compression") => {
            return Err(wrong(
                "recordCompression 'zstd': this program was built without the feature `compression`",
                "Leave it out, or build with the feature",
            ));
        }
        Some(path) => return Ok(Some(Record { path: PathBuf::from(path), compress, rotation })),
        None => {}
    }
    let others = ["recordCompression", "recordRotateBytes", "recordRotateInterval"];
    match others.iter().find(|name| reader.is_given(name)) {
        Some(name) => Err(wrong(
            format!("{name} without record"),
            "Name the capture: record '/data/lines.capture'",
        )),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> PlanResult<SocketConfig> {
        let own = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        SocketConfig::read(&options.iter().map(own).collect::<Vec<_>>())
    }

    #[test]
    fn contradicting_options_are_refused() {
        let tcp = [("host", "h"), ("port", "1")];
        let refused: [(&[(&str, &str)], &str); 17] = [
            (&[("protocol", "udp"), ("mode", "connect")], "no connections"),
            (&[("protocol", "udp"), ("atEnd", "reconnect")], "could end"),
            (&[("protocol", "udp"), ("durable", "true"), ("acknowledge", "true")], "may be lost"),
            (&[("protocol", "udp"), ("maxConnections", "5")], "maxConnections"),
            (&[("protocol", "udp"), ("idleTimeout", "5s")], "idleTimeout"),
            (&[("protocol", "udp"), ("keepAlive", "off")], "keepAlive"),
            (&[("protocol", "udp"), ("lineSep", "\n")], "datagram 'lines'"),
            (&[("datagram", "lines")], "protocol 'udp'"),
            (&[("path", "/x")], "only a path"),
            (&[("maxConnections", "5")], "mode 'listen'"),
            (&[("numPartitions", "5")], "one connection"),
            (&[("idleTimeout", "5")], "a duration"),
            (&[("keepAlive", "5ms")], "1 second"),
            (&[("maxUnfinishedBytes", "5")], "from 1048576"),
            (&[("recordRotateBytes", "65536")], "without record"),
            (&[("record", "x"), ("recordRotateBytes", "5")], "from 65536"),
            (&[("record", "x"), ("recordCompression", "gzip")], "zstd"),
        ];
        for (options, part) in refused {
            let all: Vec<_> = tcp.iter().chain(options).copied().collect();
            let error = read(&all).unwrap_err();
            assert_eq!(error.condition, "INVALID_OPTION_VALUE", "{options:?}");
            let text = error.to_string();
            assert!(text.contains(part) || error.fix.contains(part), "{options:?}: {text}");
        }
        let error = read(&[("path", "/x"), ("protocol", "udp")]).unwrap_err();
        assert!(error.reason.contains("protocol 'udp'"), "{error}");
        let error = read(&[("path", "/x"), ("keepAlive", "off")]).unwrap_err();
        assert!(error.reason.contains("Unix socket"), "{error}");
        assert_eq!(read(&[("protocol", "unix")]).unwrap_err().condition, "MISSING_OPTION");
        assert_eq!(read(&[("port", "1")]).unwrap_err().condition, "MISSING_OPTION");
    }

    #[test]
    fn options_have_defaults() {
        let config = read(&[("host", "h"), ("port", "1"), ("mode", "listen")]).unwrap();
        assert_eq!((config.max_connections, config.idle_timeout_ns), (1_024, None));
        assert_eq!(config.keep_alive.map(|keep| keep.probes), Some(3));
        let config = read(&[("host", "h"), ("port", "1"), ("protocol", "UDP")]).unwrap();
        assert!(config.listen, "UDP has no other mode");
        assert_eq!(config.framing(), Framing::Sized);
        let config = read(&[("path", "/run/x.sock"), ("idleTimeout", "5 minutes")]).unwrap();
        assert_eq!(config.endpoint.to_string(), "/run/x.sock");
        assert_eq!(config.idle_timeout_ns, Some(300 * SECOND_NS));
        let config = read(&[("host", "h"), ("port", "1"), ("keepAlive", "off")]).unwrap();
        assert_eq!(config.keep_alive, None);
    }
}
