//! Records TCP connections: one outgoing connection, or accepted ones.

use super::first_of;
use super::pair::{Next, Pair};
use super::receive::{Receiver, Stamp, ask_for_times, is_not_now};
use super::recorder::{Recorder, TICK};
use crate::failure::Failure;
use millstream_engine::capture::{ConnectionInfo, Opener, Protocol};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Maximum number of bytes per read.
const READ_BYTES: usize = 64 << 10;
/// How often connections are looked at that wait until bytes are acknowledged.
const SOON: Duration = Duration::from_millis(1);
const LISTENER: Token = Token(usize::MAX - 1);
/// Maximum number of concurrent connections.
const CONNECTIONS_MAX: usize = 60_000;

/// Records the data that a server sends, until the connection ends or the limit is reached.
pub(super) fn connect(
    to: &[SocketAddr],
    begin: impl FnOnce() -> Result<Recorder, Failure>,
) -> Result<Recorder, Failure> {
    let stream = std::net::TcpStream::connect(to)
        .map_err(|error| Failure::Failed(format!("CONNECT_FAILED: {}: {error}", to[0])))?;
    stream.set_nonblocking(true)?;
    let (a, b) = (stream.peer_addr().ok(), stream.local_addr().ok());
    let mut streams = Streams::new(begin()?, &[])?;
    let info = ConnectionInfo { protocol: Protocol::Tcp, opener: Opener::B, a, b };
    streams.add(&info, TcpStream::from_std(stream), None)?;
    streams.run(None, true)
}

/// Records the data that clients send, and the answers of the server if `to` has its addresses.
pub(super) fn listen(
    at: &[SocketAddr],
    to: &[SocketAddr],
    begin: impl FnOnce() -> Result<Recorder, Failure>,
) -> Result<Recorder, Failure> {
    let mut listener = first_of(at, TcpListener::bind).map_err(|(at, error)| {
        Failure::Failed(format!(
            "LISTEN_FAILED: {at}: {error}. Use another port, or stop the program that uses it"
        ))
    })?;
    // Connections inherit the option, so that even their first bytes have the kernel's time.
    ask_for_times(&listener);
    let streams = Streams::new(begin()?, to)?;
    streams.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    eprintln!("listening at {}; Ctrl-C stops", listener.local_addr()?);
    streams.run(Some(&listener), false)
}

/// Polls a socket of a connection.
fn watch(poll: &Poll, token: usize, socket: &mut TcpStream) -> Result<(), Failure> {
    ask_for_times(socket);
    drop(socket.set_nodelay(true));
    let interest = Interest::READABLE | Interest::WRITABLE;
    Ok(poll.registry().register(socket, Token(token), interest)?)
}

struct Streams {
    poll: Poll,
    recorder: Recorder,
    /// The addresses of the server; empty without a server.
    servers: Vec<SocketAddr>,
    pairs: HashMap<usize, Pair>,
    next_slot: usize,
    /// Connections that have more to do without waiting.
    again: VecDeque<usize>,
    /// Connections whose reset waits until bytes are acknowledged, which no event reports.
    soon: Vec<usize>,
    /// Whether a client that could not be accepted may be waiting.
    accepts_again: bool,
    receiver: Receiver,
    buffer: Vec<u8>,
}

impl Streams {
    fn new(recorder: Recorder, servers: &[SocketAddr]) -> Result<Self, Failure> {
        Ok(Self {
            poll: Poll::new()?,
            recorder,
            servers: servers.to_vec(),
            pairs: HashMap::new(),
            next_slot: 0,
            again: VecDeque::new(),
            soon: Vec::new(),
            accepts_again: false,
            receiver: Receiver::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    fn run(
        mut self,
        listener: Option<&TcpListener>,
        ends_with_last: bool,
    ) -> Result<Recorder, Failure> {
        let mut events = Events::with_capacity(1024);
        while !self.recorder.is_over()? {
            let wait = match (self.again.is_empty(), self.soon.is_empty()) {
                (false, _) => Duration::ZERO,
                (true, false) => SOON,
                (true, true) => TICK,
            };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => {
                        if let Some(listener) = listener {
                            self.accept(listener)?;
                        }
                    }
                    Token(token) => self.pump(token / 2)?,
                }
            }
            if let Some(listener) = listener.filter(|_| self.accepts_again) {
                self.accept(listener)?;
            }
            for slot in std::mem::take(&mut self.soon) {
                self.pump(slot)?;
            }
            for _ in 0..self.again.len() {
                if let Some(slot) = self.again.pop_front() {
                    self.pump(slot)?;
                }
            }
            if ends_with_last && self.pairs.is_empty() {
                break;
            }
        }
        Ok(self.recorder)
    }

    fn accept(&mut self, listener: &TcpListener) -> Result<(), Failure> {
        loop {
            let (peer, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The process may be out of file descriptors; another connection will end.
                    self.accepts_again = !is_not_now(&error);
                    return Ok(());
                }
            };
            if self.pairs.len() >= CONNECTIONS_MAX {
                // Dropping the socket closes the connection of a client beyond the limit.
                continue;
            }
            let (attempts, server) = self.connect_from(0);
            if server.is_none() && !self.servers.is_empty() {
                eprintln!("CONNECT_FAILED: {:?}", self.servers);
                drop(SockRef::from(&peer).set_linger(Some(Duration::ZERO)));
                continue;
            }
            let b = match attempts.checked_sub(1) {
                Some(last) => self.servers.get(last).copied(),
                None => peer.local_addr().ok(),
            };
            let info =
                ConnectionInfo { protocol: Protocol::Tcp, opener: Opener::A, a: Some(address), b };
            self.add(&info, peer, server.map(|server| (server, attempts)))?;
        }
    }

    /// Begins to connect to the first address of the server, from number `tried` on, for which that
    /// is possible. Returns the number of addresses tried, and the socket if there is one.
    fn connect_from(&self, tried: usize) -> (usize, Option<TcpStream>) {
        for (at, address) in self.servers.iter().enumerate().skip(tried) {
            if let Ok(stream) = TcpStream::connect(*address) {
                return (at + 1, Some(stream));
            }
        }
        (self.servers.len(), None)
    }

    /// Tries the next address of the server for a connection whose last attempt was refused. If none
    /// is left, the peer is reset.
    fn try_next_server(&mut self, slot: usize) -> Result<Next, Failure> {
        let Some(tried) = self.pairs.get(&slot).map(|pair| pair.attempts) else {
            return Ok(Next::Wait);
        };
        let (attempts, server) = self.connect_from(tried);
        let Some(pair) = self.pairs.get_mut(&slot) else { return Ok(Next::Wait) };
        let Some(mut server) = server else { return pair.refuse(&mut self.recorder) };
        watch(&self.poll, slot * 2 + 1, &mut server)?;
        pair.attempts = attempts;
        pair.try_server(server);
        Ok(Next::Again)
    }

    fn add(
        &mut self,
        info: &ConnectionInfo,
        peer: TcpStream,
        server: Option<(TcpStream, usize)>,
    ) -> Result<(), Failure> {
        let number = self.recorder.open(info, Stamp::now())?;
        let slot = self.next_slot;
        self.next_slot += 1;
        let (server, attempts) = server.unzip();
        let mut pair = Pair::new(number, peer, server);
        pair.attempts = attempts.unwrap_or(0);
        for (side, socket) in pair.sockets() {
            watch(&self.poll, slot * 2 + side, socket)?;
        }
        self.pairs.insert(slot, pair);
        self.again.push_back(slot);
        Ok(())
    }

    fn pump(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(pair) = self.pairs.get_mut(&slot) else { return Ok(()) };
        let next = pair.pump(&mut self.receiver, &mut self.buffer, &mut self.recorder)?;
        let next = if next == Next::Refused { self.try_next_server(slot)? } else { next };
        match next {
            Next::Wait | Next::Refused => {}
            Next::Again => self.again.push_back(slot),
            Next::Soon if self.soon.contains(&slot) => {}
            Next::Soon => self.soon.push(slot),
            Next::End => drop(self.pairs.remove(&slot)),
        }
        Ok(())
    }
}
