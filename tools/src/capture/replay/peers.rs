//! The sockets of a replay: opened, written to, half-closed and reset as they were recorded.

use super::LINGER;
use super::drain::{Drain, Sent, write_now};
use super::outgoing::{Due, Lateness};
use super::plan::Event;
use crate::capture::open_files::{fix, is_limit};
use crate::capture::record::first_of;
use crate::failure::Failure;
use millstream_engine::capture::Kind;
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The target of a replay.
pub(super) enum Target {
    /// The addresses of a server. The first one that can be reached is used.
    Server(Vec<SocketAddr>),
    Clients(Clients),
}

/// The sockets that clients of the replay connect or send to: TCP and UDP at the same port.
pub(super) struct Clients {
    listener: TcpListener,
    /// The UDP socket, or the error of binding it. The error is reported only if the capture has
    /// datagrams.
    datagrams: io::Result<UdpSocket>,
}

impl Target {
    pub(super) fn listen(at: &[SocketAddr]) -> Result<Self, Failure> {
        let listener = first_of(at, TcpListener::bind).map_err(|(at, error)| {
            let fix = "Use another port, or stop the program that uses it";
            Failure::Failed(format!("LISTEN_FAILED: {at}: {error}. {fix}"))
        })?;
        let at = listener.local_addr()?;
        let datagrams = UdpSocket::bind(at);
        eprintln!("listening at {at}; the replay begins with the first client");
        Ok(Self::Clients(Clients { listener, datagrams }))
    }
}

pub(super) struct Peers {
    target: Target,
    /// The address of the server that the first TCP connection has reached.
    server: Option<SocketAddr>,
    streams: HashMap<u64, Arc<TcpStream>>,
    sockets: HashMap<u64, DatagramSocket>,
    /// The index of the server's address that the last datagram was sent to.
    datagram_server: usize,
    /// For each recorded connection, the client that its datagrams are sent to.
    receivers: HashMap<u64, SocketAddr>,
    /// Connections that are not established yet, or whose peers did not take all data. `drain` sends
    /// their data.
    stalled: HashSet<u64>,
    drain: Drain,
    /// Polls the listening sockets.
    poll: Poll,
    events: Events,
    opened: u64,
    /// Connections whose peer has gone. Their later events are not sent.
    gone: HashSet<u64>,
    failed: u64,
    lost_datagrams: u64,
    /// Whether an event has waited for a client.
    has_waited: bool,
}

/// Returns a client that has sent any datagram and is not a receiver yet. Returns `None` if no
/// datagram of such a client is waiting. Fails if the socket could not be opened or read.
fn accept_datagrams(
    clients: &Clients,
    receivers: &HashMap<u64, SocketAddr>,
) -> Result<Option<SocketAddr>, Failure> {
    let fails = |error: &io::Error| {
        let fix = "Use another port, or stop the program that uses it";
        Failure::Failed(format!("LISTEN_FAILED: the port cannot be used for UDP: {error}. {fix}"))
    };
    let socket = clients.datagrams.as_ref().map_err(fails)?;
    loop {
        match socket.recv_from(&mut [0; 1]) {
            Ok((_, from)) if !receivers.values().any(|known| *known == from) => {
                return Ok(Some(from));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // Neither is a fault of this socket: a signal interrupted the call, or the system reports
            // that the port of an earlier receiver is closed (Linux does not).
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => return Err(Failure::Failed(format!("ACCEPT_FAILED: {error}"))),
        }
    }
}

/// A socket that sends datagrams to this address.
fn connected_socket(to: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

/// A socket that sends the datagrams of a connection to a server.
struct DatagramSocket {
    socket: std::net::UdpSocket,
    /// The index of the server's address.
    server: usize,
    has_sent: bool,
}

impl DatagramSocket {
    /// A socket for the first address, from an index on and around, for which the system has a
    /// route.
    fn open(servers: &[SocketAddr], from: usize) -> Result<Self, Failure> {
        let (before, after) = servers.split_at(from);
        let mut indexes = (from..servers.len()).chain(0..from);
        let connected = first_of(&[after, before].concat(), |to| {
            let server = indexes.next().unwrap_or(from);
            Ok(Self { socket: connected_socket(to)?, server, has_sent: false })
        });
        connected.map_err(|(to, error)| unreachable_target(to, &error))
    }

    /// Sends a datagram, and returns whether that was possible. If the system reports that nobody
    /// receives at an address, the datagram is sent to the next one, at most once to each. The
    /// report of the first datagram is there at once if the address is one of this machine. Over a
    /// network it comes late, so the datagrams before it are lost.
    fn send(&mut self, servers: &[SocketAddr], payload: &[u8]) -> Result<bool, Failure> {
        for left in (0..servers.len()).rev() {
            let mut sent = self.socket.send(payload).map(drop);
            if sent.is_ok() && !std::mem::replace(&mut self.has_sent, true) && left > 0 {
                sent = self.socket.take_error().and_then(|error| error.map_or(Ok(()), Err));
            }
            match sent {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && left > 0 => {
                    *self = Self::open(servers, (self.server + 1) % servers.len())?;
                }
                sent => return Ok(sent.is_ok()),
            }
        }
        Ok(false)
    }
}

fn unreachable_target(to: SocketAddr, error: &io::Error) -> Failure {
    let otherwise = match to.ip().is_multicast() {
        true => "A multicast group needs a route: `ip route add 224.0.0.0/4 dev INTERFACE`",
        false => "Give another --to",
    };
    let fix = fix(error, otherwise);
    Failure::Failed(format!("SEND_FAILED: {to}: {error}. {fix}"))
}

fn connect_failed(to: SocketAddr, error: &io::Error) -> Failure {
    let fix = fix(error, "Start the server first, or give another --to");
    Failure::Failed(format!("CONNECT_FAILED: {to}: {error}. {fix}"))
}

const LISTENER: Token = Token(0);
const DATAGRAMS: Token = Token(1);
/// How often a waiting replay checks whether it was stopped.
const TICK: Duration = Duration::from_millis(100);

impl Peers {
    pub(super) fn new(mut target: Target) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        if let Target::Clients(Clients { listener, datagrams }) = &mut target {
            poll.registry().register(listener, LISTENER, Interest::READABLE)?;
            if let Ok(socket) = datagrams {
                poll.registry().register(socket, DATAGRAMS, Interest::READABLE)?;
            }
        }
        Ok(Self {
            target,
            server: None,
            streams: HashMap::new(),
            sockets: HashMap::new(),
            datagram_server: 0,
            receivers: HashMap::new(),
            stalled: HashSet::new(),
            drain: Drain::start()?,
            poll,
            events: Events::with_capacity(16),
            opened: 0,
            gone: HashSet::new(),
            failed: 0,
            lost_datagrams: 0,
            has_waited: false,
        })
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// The number of events that could not be sent, because the peer of their connection had gone.
    pub(super) fn failed(&self) -> u64 {
        self.failed + self.drain.failed()
    }

    /// The lateness of the data that peers did not take at once. Call this at the end.
    pub(super) fn take_lateness(&self) -> Lateness {
        self.drain.take_lateness()
    }

    /// The number of datagrams that the system refused to send, because nobody receives them.
    pub(super) fn lost_datagrams(&self) -> u64 {
        self.lost_datagrams
    }

    /// Whether an event has waited for a client since the last call.
    pub(super) fn take_waited(&mut self) -> bool {
        std::mem::take(&mut self.has_waited)
    }

    pub(super) fn received(&self) -> u64 {
        self.drain.received()
    }

    pub(super) fn waits_for_clients(&self) -> bool {
        matches!(self.target, Target::Clients(_))
    }

    /// Waits until a client has connected or sent a datagram, if the replay waits for clients,
    /// without accepting it. Returns false if the replay was stopped.
    pub(super) fn wait_for_client(&mut self, stop: &AtomicBool) -> Result<bool, Failure> {
        let is_there =
            |events: &Events| events.iter().any(|e| matches!(e.token(), LISTENER | DATAGRAMS));
        while self.waits_for_clients() && !is_there(&self.events) {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.wait()?;
        }
        Ok(true)
    }

    /// Waits for a client. Returns false if the replay was stopped.
    pub(super) fn accept(&mut self, event: &Event, stop: &AtomicBool) -> Result<bool, Failure> {
        loop {
            let accepted = match &self.target {
                Target::Server(_) => return Ok(true),
                Target::Clients(clients) if event.is_udp => {
                    let accepted = accept_datagrams(clients, &self.receivers)?;
                    accepted.map(|from| {
                        self.receivers.insert(event.connection, from);
                    })
                }
                Target::Clients(clients) => match clients.listener.accept() {
                    Ok((stream, _)) => Some(self.add(event.connection, stream)?),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                    Err(error) => {
                        let fix = fix(&error, "Start the replay again");
                        return Err(Failure::Failed(format!("ACCEPT_FAILED: {error}. {fix}")));
                    }
                },
            };
            if accepted.is_some() {
                self.opened += u64::from(event.is_udp);
                return Ok(true);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.has_waited = true;
            self.wait()?;
        }
    }

    /// Executes an event, which is due at this time. Returns false if its data is sent later,
    /// because the peer does not take it now.
    pub(super) fn act(
        &mut self,
        event: &Event,
        payload: &[u8],
        due: Due,
        stop: &AtomicBool,
    ) -> Result<bool, Failure> {
        if event.is_udp {
            match self.target {
                Target::Server(_) => self.send_datagram(event, payload)?,
                Target::Clients(_) => self.answer_datagram(event, payload, stop)?,
            }
            return Ok(true);
        }
        let connection = event.connection;
        if self.gone.contains(&connection) {
            self.failed += u64::from(event.kind == Kind::Data);
            if event.kind == Kind::Close {
                self.gone.remove(&connection);
            }
            return Ok(true);
        }
        if !self.streams.contains_key(&connection) && matches!(event.kind, Kind::Open | Kind::Data)
        {
            self.open(event, stop)?;
        }
        let Some(stream) = self.streams.get(&connection) else { return Ok(true) };
        match event.kind {
            Kind::Data => {
                let sent = match self.stalled.contains(&connection) {
                    true => self.drain.send(connection, payload, due, stop),
                    false => match write_now(stream, payload) {
                        Ok(bytes) if bytes == payload.len() => return Ok(true),
                        Ok(bytes) => self.drain.send(connection, &payload[bytes..], due, stop),
                        Err(_) => Sent::Not,
                    },
                };
                self.note(connection, sent);
                return Ok(sent != Sent::Later);
            }
            Kind::HalfClose if self.stalled.contains(&connection) => {
                self.drain.half_close(connection);
            }
            Kind::HalfClose => drop(stream.shutdown(Shutdown::Write)),
            Kind::Reset => {
                // Waiting for the peer here would delay the events of other connections.
                self.forget(connection);
                self.drain.reset_when_delivered(connection);
            }
            Kind::Close => {
                // The peer may still answer, so the socket is closed when the peer has closed too.
                self.forget(connection);
                self.drain.close_at_end(connection);
            }
            _ => {}
        }
        Ok(true)
    }

    /// Notes what became of the data of a connection.
    fn note(&mut self, connection: u64, sent: Sent) {
        match sent {
            Sent::All => drop(self.stalled.remove(&connection)),
            Sent::Later => drop(self.stalled.insert(connection)),
            Sent::Not => {
                self.failed += 1;
                self.forget(connection);
                self.drain.remove(connection);
                self.gone.insert(connection);
            }
        }
    }

    /// Leaves a connection to `drain`.
    fn forget(&mut self, connection: u64) {
        self.streams.remove(&connection);
        self.stalled.remove(&connection);
    }

    /// Sends a datagram to the server. Each recorded connection has a socket of its own.
    fn send_datagram(&mut self, event: &Event, payload: &[u8]) -> Result<(), Failure> {
        let Target::Server(servers) = &self.target else { return Ok(()) };
        match event.kind {
            Kind::Close => drop(self.sockets.remove(&event.connection)),
            Kind::Open | Kind::Data => {
                let socket = match self.sockets.entry(event.connection) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => {
                        self.opened += 1;
                        entry.insert(DatagramSocket::open(servers, self.datagram_server)?)
                    }
                };
                if event.kind == Kind::Data {
                    // A missing receiver is not an error: datagrams can get lost.
                    self.lost_datagrams += u64::from(!socket.send(servers, payload)?);
                }
                self.datagram_server = socket.server;
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends a datagram to the client that was accepted for the recorded connection. Accepts a
    /// client first if there is none.
    fn answer_datagram(
        &mut self,
        event: &Event,
        payload: &[u8],
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        if event.kind == Kind::Close {
            self.receivers.remove(&event.connection);
        }
        if event.kind != Kind::Data {
            return Ok(());
        }
        if !self.receivers.contains_key(&event.connection) {
            self.accept(event, stop)?;
        }
        let Target::Clients(Clients { datagrams: Ok(socket), .. }) = &self.target else {
            return Ok(());
        };
        let Some(to) = self.receivers.get(&event.connection).copied() else { return Ok(()) };
        loop {
            match socket.send_to(payload, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                sent => {
                    self.lost_datagrams += u64::from(sent.is_err());
                    return Ok(());
                }
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    fn open(&mut self, event: &Event, stop: &AtomicBool) -> Result<(), Failure> {
        let servers = match &self.target {
            Target::Server(servers) => servers,
            Target::Clients(_) => {
                // The connection was opened before the selected part of the capture.
                return self.accept(event, stop).map(drop);
            }
        };
        // The first connection shows which address has a server. Later connections are opened
        // without waiting, so that they delay no other events.
        let stream = match self.server {
            Some(to) => {
                self.stalled.insert(event.connection);
                loop {
                    match TcpStream::connect(to) {
                        Ok(stream) => break stream,
                        // Connections that have ended in the capture wait for their peers to close.
                        Err(error) if is_limit(&error) && self.drain.wait_for_an_end(LINGER) => {}
                        Err(error) => return Err(connect_failed(to, &error)),
                    }
                }
            }
            None => {
                let connect = |to| {
                    let stream = std::net::TcpStream::connect_timeout(&to, LINGER)?;
                    stream.set_nonblocking(true)?;
                    Ok((to, TcpStream::from_std(stream)))
                };
                let connected = first_of(servers, connect);
                let (to, stream) = connected.map_err(|(to, error)| connect_failed(to, &error))?;
                self.server = Some(to);
                stream
            }
        };
        self.add(event.connection, stream)
    }

    fn add(&mut self, connection: u64, stream: TcpStream) -> Result<(), Failure> {
        drop(stream.set_nodelay(true));
        let stream = Arc::new(stream);
        let is_connecting = self.stalled.contains(&connection);
        self.drain.add(connection, stream.clone(), is_connecting)?;
        self.streams.insert(connection, stream);
        self.opened += 1;
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, Some(TICK)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Ends the replay: half-closes open connections behind their data, and then waits for their peers
    /// for a limited time.
    pub(super) fn finish(&mut self, stop: &AtomicBool) {
        for (connection, _) in self.streams.drain() {
            self.drain.close_at_end(connection);
        }
        self.drain.finish(LINGER, stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::replay::outgoing::CONNECTION_BYTES_MAX;
    use std::io::Read;
    use std::time::Instant;

    fn now() -> Due {
        Due::At(Instant::now())
    }

    /// A replay to a server that accepts two connections, 0 and 1, and has not read from them.
    fn two_connections() -> (Peers, [std::net::TcpStream; 2]) {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peers = Peers::new(Target::Server(vec![server.local_addr().unwrap()])).unwrap();
        let streams = [0, 1].map(|connection| {
            let open = Event::of_stream(connection, Kind::Open);
            peers.act(&open, &[], now(), &AtomicBool::new(false)).unwrap();
            server.accept().unwrap().0
        });
        (peers, streams)
    }

    /// A piece of the data of connection 0.
    fn piece(number: usize) -> Vec<u8> {
        (0..60_000).map(|at| (number * 31 + at) as u8).collect()
    }

    /// Sends data on connection 0 until its peer does not take it. Returns the number of pieces.
    fn stall(peers: &mut Peers, stop: &AtomicBool) -> usize {
        let data = Event::of_stream(0, Kind::Data);
        (0..).take_while(|at| peers.act(&data, &piece(*at), now(), stop).unwrap()).count() + 1
    }

    #[test]
    fn a_peer_that_does_not_read_delays_no_other_connection() {
        let (mut peers, [mut first, mut second]) = two_connections();
        let stop = AtomicBool::new(false);
        let sent = stall(&mut peers, &stop);
        peers.act(&Event::of_stream(0, Kind::HalfClose), &[], now(), &stop).unwrap();
        // The first peer has read nothing.
        let data = Event::of_stream(1, Kind::Data);
        for n in 0..100u8 {
            peers.act(&data, &[n], now(), &stop).unwrap();
            let mut byte = [0];
            second.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [n]);
        }
        peers.act(&Event::of_stream(1, Kind::Close), &[], now(), &stop).unwrap();
        assert_eq!(second.read(&mut [0]).unwrap(), 0);
        drop(second);
        // All its data arrives in order, and then the end.
        let reader = std::thread::spawn(move || {
            let mut found = Vec::new();
            first.read_to_end(&mut found).unwrap();
            found
        });
        peers.finish(&stop);
        assert!(reader.join().unwrap() == (0..sent).flat_map(piece).collect::<Vec<u8>>());
        let late = peers.take_lateness();
        assert_eq!((late.lags.len(), peers.failed()), (1, 0));
        let lines = late.lines();
        assert!(lines.len() == 1 && lines[0].starts_with("connection 0: 1 event ("), "{lines:?}");
    }

    #[test]
    fn a_queue_is_bounded_and_the_replay_waits_when_it_is_full() {
        let (mut peers, [mut first, _second]) = two_connections();
        let stop = AtomicBool::new(true);
        stall(&mut peers, &stop);
        // A replay that is stopped does not wait: what does not fit into the queue is left out.
        let data = Event::of_stream(0, Kind::Data);
        let queued = |peers: &Peers| peers.drain.queued();
        while queued(&peers) + 60_000 <= CONNECTION_BYTES_MAX {
            peers.act(&data, &[b'q'; 60_000], now(), &stop).unwrap();
        }
        let before = queued(&peers);
        peers.act(&data, &[b'x'; 60_000], now(), &stop).unwrap();
        assert_eq!(queued(&peers), before);
        // Otherwise it waits until the peer reads.
        let reader = std::thread::spawn(move || {
            let mut found = Vec::new();
            first.read_to_end(&mut found).unwrap();
            found
        });
        let stop = AtomicBool::new(false);
        peers.act(&data, &[b'y'; 60_000], now(), &stop).unwrap();
        peers.finish(&stop);
        let found = reader.join().unwrap();
        assert!(found.ends_with(&[b'y'; 60_000]) && !found.ends_with(&[b'y'; 60_001]));
    }

    #[test]
    fn queued_data_whose_peer_goes_away_is_counted() {
        let (mut peers, [first, _second]) = two_connections();
        let stop = AtomicBool::new(false);
        stall(&mut peers, &stop);
        let data = Event::of_stream(0, Kind::Data);
        for _ in 0..3 {
            peers.act(&data, b"more", now(), &stop).unwrap();
        }
        // Unread data makes this a reset.
        drop(first);
        peers.finish(&stop);
        assert_eq!(peers.failed(), 4);
    }

    /// The first address of a name may have no receiver, as `::1` of `localhost` often has none.
    #[test]
    fn datagrams_are_sent_to_the_first_address_that_has_a_receiver() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        // Connected to itself, the socket keeps its port and refuses datagrams of others.
        closed.connect(closed.local_addr().unwrap()).unwrap();
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let servers = [closed.local_addr().unwrap(), receiver.local_addr().unwrap()];
        let mut peers = Peers::new(Target::Server(servers.to_vec())).unwrap();
        for connection in [1, 2, 1] {
            let event = Event::datagram(connection);
            peers.act(&event, b"datagram", now(), &AtomicBool::new(false)).unwrap();
            let mut bytes = [0; 16];
            assert_eq!(receiver.recv(&mut bytes).unwrap(), 8, "connection {connection}");
        }
        assert_eq!((peers.opened(), peers.failed()), (2, 0));
    }

    #[test]
    fn a_receiver_that_starts_again_gets_datagrams_again() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        closed.connect(closed.local_addr().unwrap()).unwrap();
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let mut peers =
            Peers::new(Target::Server(vec![address, closed.local_addr().unwrap()])).unwrap();
        let mut send = || {
            let event = Event::datagram(1);
            peers.act(&event, b"datagram", now(), &AtomicBool::new(false)).unwrap();
        };
        send();
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 8);
        drop(receiver);
        // The first one is lost. The second one is refused by both addresses.
        (0..2).for_each(|_| send());
        let receiver = std::net::UdpSocket::bind(address).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (0..2).for_each(|_| send());
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 8);
    }
}
