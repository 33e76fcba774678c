//! Records TCP connections: one outgoing connection, or accepted ones.

use super::first_of;
use super::pair::{Next, Pair};
use super::receive::{Receiver, ask_for_times, is_not_now};
use super::recorder::{Recorder, TICK};
use crate::capture::open_files::{fix, is_limit, raise};
use crate::failure::Failure;
use millstream_engine::capture::{ConnectionInfo, Opener, Protocol};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
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
    let stream = first_of(to, std::net::TcpStream::connect).map_err(|(to, error)| {
        let fix = "Start the server first, or give another --connect";
        Failure::Failed(format!("CONNECT_FAILED: {to}: {error}. {fix}"))
    })?;
    stream.set_nonblocking(true)?;
    let (a, b) = (stream.peer_addr().ok(), stream.local_addr().ok());
    let mut streams = Streams::new(begin()?, &[])?;
    let info = ConnectionInfo { protocol: Protocol::Tcp, opener: Opener::B, a, b };
    streams.add(info, TcpStream::from_std(stream))?;
    streams.run(None, true)
}

/// Records the data that clients send, and the answers of the server if `to` has its addresses.
pub(super) fn listen(
    at: &[SocketAddr],
    to: &[SocketAddr],
    begin: impl FnOnce() -> Result<Recorder, Failure>,
) -> Result<Recorder, Failure> {
    let listener = first_of(at, TcpListener::bind).map_err(|(at, error)| {
        Failure::Failed(format!(
            "LISTEN_FAILED: {at}: {error}. Use another port, or stop the program that uses it"
        ))
    })?;
    // Connections inherit the option, so that even their first bytes have the kernel's time.
    ask_for_times(&listener);
    serve(listener, to, begin()?)
}

/// Records the connections of a listener.
pub(super) fn serve(
    mut listener: TcpListener,
    to: &[SocketAddr],
    recorder: Recorder,
) -> Result<Recorder, Failure> {
    let mut streams = Streams::new(recorder, to)?;
    streams.files_max = raise();
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
    /// The maximum number of open files of the process.
    files_max: u64,
    /// Whether the user was told that clients wait for a limit of open files.
    is_limit_said: bool,
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
            files_max: u64::MAX,
            is_limit_said: false,
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
                    if is_limit(&error) && !std::mem::replace(&mut self.is_limit_said, true) {
                        eprintln!(
                            "clients wait until others have closed: this process may have {} open \
                            files. {}",
                            self.files_max,
                            fix(&error, "")
                        );
                    }
                    return Ok(());
                }
            };
            if self.pairs.len() >= CONNECTIONS_MAX {
                // Dropping the socket closes the connection of a client beyond the limit.
                continue;
            }
            let (a, b) = (Some(address), peer.local_addr().ok());
            let info = ConnectionInfo { protocol: Protocol::Tcp, opener: Opener::A, a, b };
            self.add(info, peer)?;
        }
    }

    /// Adds a connection. If there is a server, the connection is passed on to it.
    fn add(&mut self, info: ConnectionInfo, mut peer: TcpStream) -> Result<(), Failure> {
        let slot = self.next_slot;
        self.next_slot += 1;
        watch(&self.poll, slot * 2, &mut peer)?;
        let pair = match self.servers.is_empty() {
            true => Pair::recorded(info, peer, &mut self.recorder)?,
            false => Pair::proxied(info, peer),
        };
        self.pairs.insert(slot, pair);
        self.again.push_back(slot);
        Ok(())
    }

    fn pump(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(pair) = self.pairs.get_mut(&slot) else { return Ok(()) };
        let next = pair.pump(&mut self.receiver, &mut self.buffer, &mut self.recorder)?;
        let next = match next {
            Next::Connect => match pair.connect(&self.servers) {
                Some(server) => {
                    watch(&self.poll, slot * 2 + 1, server)?;
                    Next::Again
                }
                None => pair.refuse(self.servers.last().copied(), &mut self.recorder)?,
            },
            next => next,
        };
        match next {
            Next::Wait | Next::Connect => {}
            Next::Again => self.again.push_back(slot),
            Next::Soon if self.soon.contains(&slot) => {}
            Next::Soon => self.soon.push(slot),
            Next::End => drop(self.pairs.remove(&slot)),
        }
        Ok(())
    }
}
