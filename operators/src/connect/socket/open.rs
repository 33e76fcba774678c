//! Creates a source from its options: binds, or makes the first attempt to connect.

use crate::connect::socket::connector::{Connector, Name, look_up};
use crate::connect::socket::durable_log::{DurableLog, Ingest};
use crate::connect::socket::listener::{
    AcceptTurns, Listener, SocketFile, listen_at, make_room_for,
};
use crate::connect::socket::options::{AtEnd, Endpoint, SocketConfig};
use crate::connect::socket::recorder::Recorder;
use crate::connect::socket::source::{Listening, Peers, SocketSource};
use crate::connect::socket::transport::{Stream, Target};
use crate::connect::socket::udp;
use millstream_engine::env::Env;
use millstream_engine::error::EngineError;
use millstream_engine::mio::net::{TcpListener, UdpSocket, UnixListener};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time limit of the first attempt to connect to an address if there is only one attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of the first attempt to connect to an address if it is retried later.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// A bound socket that all parts of a source use.
enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, Arc<SocketFile>),
    Udp(std::net::UdpSocket),
}

impl Bound {
    fn listener(&self) -> io::Result<Option<Listener>> {
        Ok(match self {
            Self::Tcp(listener) => {
                Some(Listener::Tcp(TcpListener::from_std(listener.try_clone()?)))
            }
            Self::Unix(listener, file) => {
                let listener = UnixListener::from_std(listener.try_clone()?);
                Some(Listener::Unix(listener, file.clone()))
            }
            Self::Udp(_) => None,
        })
    }
}

/// State shared by the parts of a listening source.
#[derive(Default)]
pub struct Shared {
    bound: Option<Bound>,
    parts: AcceptTurns,
}

impl SocketConfig {
    /// Connects, listens, or shares the socket of another part. A durable source keeps its log in
    /// `folder`.
    pub fn open(
        &self,
        env: Arc<dyn Env>,
        folder: Option<PathBuf>,
        shared: &mut Shared,
    ) -> Result<SocketSource, EngineError> {
        if self.durable && folder.is_none() {
            return Err(EngineError::operator(
                "CHECKPOINT_LOCATION_MISSING",
                "source socket: durable 'true' needs a checkpoint for its log",
                "Give the query a checkpointLocation, or `run --checkpoint DIR`",
            ));
        }
        let folder = folder.filter(|_| self.durable);
        let ingest = Ingest { ns: env.now_ns(), us: env.wall_us() };
        let journal = folder.map(|folder| DurableLog::new(env.clone(), folder, self.framing()));
        if self.listen {
            return self.listen(journal, &env, shared);
        }
        self.dial(journal, &env, ingest)
    }

    fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, EngineError> {
        let found = (host, port).to_socket_addrs();
        let found = found.map_err(|error| self.fails(error, "Check the host name"))?;
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            return Err(self.fails("the name has no address", "Check the host name"));
        }
        Ok(found)
    }

    fn failed(&self, error: io::Error) -> EngineError {
        let fix = match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound if !self.listen => {
                match self.endpoint {
                    Endpoint::Unix(_) => {
                        "Start the sender first (for example: nc -lkU PATH), let the query wait \
                         for it with atEnd 'reconnect', or use mode 'listen'"
                    }
                    _ => {
                        "Start the sender first (for example: nc -lk 9999), let the query wait \
                         for it with atEnd 'reconnect', or use mode 'listen'"
                    }
                }
            }
            ErrorKind::AddrInUse => match self.endpoint {
                Endpoint::Unix(_) => "Another program listens there: stop it or use another path",
                _ => "Another program uses this port: stop it or use another port",
            },
            ErrorKind::AlreadyExists => "Move the file elsewhere, or use another path",
            _ => match self.endpoint {
                Endpoint::Unix(_) => "Check the path and its permissions",
                _ => "Check host and port",
            },
        };
        self.fails(error, fix)
    }

    /// Creates a source, with a recorder if its options ask for one.
    fn source(
        &self,
        origin: Peers,
        journal: Option<DurableLog>,
        env: &Arc<dyn Env>,
    ) -> Result<SocketSource, EngineError> {
        let mut source = SocketSource::new(self.clone(), origin, journal);
        if let Some(record) = &self.record {
            source.reading.recorder =
                Some(Recorder::start(record, env.clone(), source.counts.clone())?);
        }
        Ok(source)
    }

    // ---- listening ----

    fn bind(&self) -> Result<Bound, EngineError> {
        let (host, port) = match &self.endpoint {
            Endpoint::Unix(path) => {
                let bound = listen_at(path).map_err(|error| self.failed(error))?;
                return Ok(Bound::Unix(bound.0, bound.1));
            }
            Endpoint::Tcp { host, port } | Endpoint::Udp { host, port } => (host, *port),
        };
        let mut failed = None;
        for address in self.addresses(host, port)? {
            let bound = match &self.endpoint {
                Endpoint::Udp { .. } => udp::bind(address, self.receive_buffer).map(Bound::Udp),
                _ => Listener::tcp(address, self.receive_buffer).map(Bound::Tcp),
            };
            match bound {
                Ok(bound) => return Ok(bound),
                Err(error) => failed = Some(error),
            }
        }
        Err(self.failed(failed.unwrap_or_else(|| ErrorKind::NotFound.into())))
    }

    fn listen(
        &self,
        journal: Option<DurableLog>,
        env: &Arc<dyn Env>,
        shared: &mut Shared,
    ) -> Result<SocketSource, EngineError> {
        let is_first = shared.bound.is_none();
        let bound = match shared.bound.take() {
            Some(bound) => bound,
            None => self.bind()?,
        };
        let bound = shared.bound.insert(bound);
        let shares = |error| EngineError::runtime("share a socket", error);
        if let Bound::Udp(socket) = bound {
            let own = socket.try_clone().map_err(shares)?;
            let origin = Peers::Datagrams(UdpSocket::from_std(own));
            let source = self.source(origin, journal, env)?;
            if is_first {
                udp::count_drops(socket, source.counts());
            }
            return Ok(source);
        }
        let Some(listener) = bound.listener().map_err(shares)? else {
            return Err(self.fails("the protocol has no connections", ""));
        };
        let (parts, part) = (shared.parts.clone(), shared.parts.join());
        let listening = Listening { listener, parts, part, waits: true, not_before_ns: 0 };
        let mut source = self.source(Peers::Listen(listening), journal, env)?;
        if part == 0
            && let Some(room) = make_room_for(self.max_connections)
        {
            source.notify_when_attached(format!(
                "socket source: the limit of open files leaves room for {room} clients of \
                 {} (maxConnections); raise it (ulimit -n)",
                self.max_connections
            ));
        }
        Ok(source)
    }

    // ---- connecting ----

    fn dial(
        &self,
        journal: Option<DurableLog>,
        env: &Arc<dyn Env>,
        ingest: Ingest,
    ) -> Result<SocketSource, EngineError> {
        let waits = self.at_end == AtEnd::Reconnect;
        let timeout = if waits { FIRST_ATTEMPT } else { CONNECT_TIMEOUT };
        let mut failed = None;
        let (targets, name) = match &self.endpoint {
            Endpoint::Unix(path) => (vec![Target::Unix(path.clone())], None),
            Endpoint::Tcp { host, port } | Endpoint::Udp { host, port } => {
                let targets = look_up(host, *port).unwrap_or_else(|error| {
                    failed = Some(error);
                    Vec::new()
                });
                if targets.is_empty() && !waits {
                    let none = || ErrorKind::NotFound.into();
                    return Err(self.fails(failed.unwrap_or_else(none), "Check the host name"));
                }
                (targets, Some(Name { host: host.clone(), port: *port, look_up }))
            }
        };
        for (at, target) in targets.iter().enumerate() {
            match target.connect_within(timeout) {
                Ok(stream) => {
                    let connector = Connector::connected(name, targets, at);
                    return self.connected(connector, stream, journal, env, ingest);
                }
                Err(error) => failed = Some(error),
            }
        }
        let error = failed.unwrap_or_else(|| ErrorKind::NotFound.into());
        if !waits {
            return Err(self.failed(error));
        }
        let origin = Peers::Dial(Connector::disconnected(name, targets));
        let mut source = self.source(origin, journal, env)?;
        source.notify_when_attached(format!(
            "socket source: cannot connect to {} yet ({error}): the source retries, and waits at most \
             5 seconds between attempts",
            self.endpoint
        ));
        Ok(source)
    }

    fn connected(
        &self,
        connector: Connector,
        stream: Stream,
        journal: Option<DurableLog>,
        env: &Arc<dyn Env>,
        ingest: Ingest,
    ) -> Result<SocketSource, EngineError> {
        if let (Some(bytes), Stream::Tcp(tcp)) = (self.receive_buffer, &stream) {
            // The kernel may grant less; a smaller buffer blocks the sender earlier.
            drop(socket2::SockRef::from(tcp).set_recv_buffer_size(bytes));
        }
        let mut source = self.source(Peers::Dial(connector), journal, env)?;
        source.opened(stream, ingest)?;
        Ok(source)
    }
}
