//! The sockets of a replay: opened, written to, half-closed and reset as they were recorded.

use super::LINGER;
use super::drain::Drain;
use super::plan::Event;
use crate::failure::Failure;
use millstream_engine::capture::Kind;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The target of a replay.
pub(super) enum Target {
    Server(SocketAddr),
    Clients(TcpListener),
}

impl Target {
    pub(super) fn listen(at: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind(at).map_err(|error| {
            let fix = "Take another port, or end what has it";
            Failure::Failed(format!("LISTEN_FAILED: {at}: {error}. {fix}"))
        })?;
        eprintln!(
            "listening at {}; the replay begins with the first client",
            listener.local_addr()?
        );
        Ok(Self::Clients(listener))
    }
}

pub(super) struct Peers {
    target: Target,
    streams: HashMap<u64, Arc<TcpStream>>,
    sockets: HashMap<u64, UdpSocket>,
    /// Connections that are not established yet.
    connecting: HashSet<u64>,
    drain: Drain,
    /// Polls for room in a socket, and for clients.
    poll: Poll,
    events: Events,
    opened: u64,
    failed: u64,
}

const LISTENER: Token = Token(0);
const WRITER: Token = Token(1);
/// How often a waiting replay checks whether it was stopped.
const TICK: Duration = Duration::from_millis(100);

impl Peers {
    pub(super) fn new(mut target: Target) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        if let Target::Clients(listener) = &mut target {
            poll.registry().register(listener, LISTENER, Interest::READABLE)?;
        }
        Ok(Self {
            target,
            streams: HashMap::new(),
            sockets: HashMap::new(),
            connecting: HashSet::new(),
            drain: Drain::start()?,
            poll,
            events: Events::with_capacity(16),
            opened: 0,
            failed: 0,
        })
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// Number of events whose peer had disconnected.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    pub(super) fn received(&self) -> u64 {
        self.drain.received()
    }

    pub(super) fn waits_for_clients(&self) -> bool {
        matches!(self.target, Target::Clients(_))
    }

    /// Waits for a client. Returns the duration of the wait, or `None` if the replay was stopped.
    pub(super) fn accept(
        &mut self,
        connection: u64,
        stop: &AtomicBool,
    ) -> Result<Option<Duration>, Failure> {
        let start = Instant::now();
        loop {
            let Target::Clients(listener) = &self.target else { return Ok(Some(Duration::ZERO)) };
            match listener.accept() {
                Ok((stream, _)) => {
                    self.add(connection, stream)?;
                    return Ok(Some(start.elapsed()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Failure::Failed(format!("ACCEPT_FAILED: {error}"))),
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.wait()?;
        }
    }

    /// Executes an event.
    pub(super) fn act(
        &mut self,
        event: &Event,
        payload: &[u8],
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        if event.is_udp {
            return self.act_udp(event, payload);
        }
        if !self.streams.contains_key(&event.connection)
            && matches!(event.kind, Kind::Open | Kind::Data)
        {
            self.open(event, stop)?;
        }
        let Some(stream) = self.streams.get(&event.connection).cloned() else { return Ok(()) };
        // Ending a connection requires that it is established. Writing data waits for that anyway.
        if event.kind != Kind::Open
            && self.connecting.remove(&event.connection)
            && event.kind != Kind::Data
        {
            self.wait_until_connected(&stream, stop)?;
        }
        match event.kind {
            Kind::Data if !self.write(&stream, payload, stop)? => {
                self.failed += 1;
                self.forget(event.connection);
            }
            Kind::HalfClose => drop(stream.shutdown(Shutdown::Write)),
            Kind::Reset => {
                drop(SockRef::from(&*stream).set_linger(Some(Duration::ZERO)));
                drop(stream);
                self.forget(event.connection);
            }
            Kind::Close => {
                // The peer may still answer, so the socket is closed when the peer has closed too.
                drop(stream.shutdown(Shutdown::Write));
                self.streams.remove(&event.connection);
                self.drain.close_at_end(event.connection);
            }
            _ => {}
        }
        Ok(())
    }

    fn act_udp(&mut self, event: &Event, payload: &[u8]) -> Result<(), Failure> {
        let Target::Server(to) = self.target else {
            let fix = "Give --to, or leave them out with --connection";
            let reason = "the capture has datagrams, which --listen cannot play";
            return Err(Failure::Wrong(format!("DATAGRAMS_NEED_A_TARGET: {reason}. {fix}")));
        };
        match event.kind {
            Kind::Close => drop(self.sockets.remove(&event.connection)),
            Kind::Open | Kind::Data => {
                let socket = match self.sockets.entry(event.connection) {
                    std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        let any: SocketAddr = match to {
                            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
                        };
                        self.opened += 1;
                        let socket = UdpSocket::bind(any)?;
                        socket.connect(to)?;
                        entry.insert(socket)
                    }
                };
                // A missing receiver is not an error: datagrams can get lost.
                if event.kind == Kind::Data && socket.send(payload).is_err() {
                    self.failed += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, event: &Event, stop: &AtomicBool) -> Result<(), Failure> {
        let to = match self.target {
            Target::Server(to) => to,
            Target::Clients(_) => {
                // The connection was opened before the selected part of the capture.
                return self.accept(event.connection, stop).map(drop);
            }
        };
        // The first connection shows whether there is a server. Later connections are opened
        // without waiting, so that they delay no other events.
        let stream = if self.opened == 0 {
            let stream = std::net::TcpStream::connect_timeout(&to, LINGER).map_err(|error| {
                let fix = "Start the server first, or give another --to";
                Failure::Failed(format!("CONNECT_FAILED: {to}: {error}. {fix}"))
            })?;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        } else {
            self.connecting.insert(event.connection);
            TcpStream::connect(to)?
        };
        self.add(event.connection, stream)
    }

    /// Waits until a connection is established or refused.
    fn wait_until_connected(
        &mut self,
        stream: &TcpStream,
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        let end = Instant::now() + LINGER;
        while stream.peer_addr().is_err()
            && matches!(stream.take_error(), Ok(None))
            && !stop.load(Ordering::Relaxed)
            && Instant::now() < end
        {
            self.wait_for_room(stream)?;
        }
        Ok(())
    }

    fn add(&mut self, connection: u64, stream: TcpStream) -> Result<(), Failure> {
        drop(stream.set_nodelay(true));
        let stream = Arc::new(stream);
        self.drain.add(connection, stream.clone())?;
        self.streams.insert(connection, stream);
        self.opened += 1;
        Ok(())
    }

    fn forget(&mut self, connection: u64) {
        self.streams.remove(&connection);
        self.drain.remove(connection);
    }

    /// Writes a complete payload. Returns whether the peer accepts it.
    fn write(
        &mut self,
        stream: &TcpStream,
        mut payload: &[u8],
        stop: &AtomicBool,
    ) -> Result<bool, Failure> {
        let mut writer = stream;
        while !payload.is_empty() {
            match writer.write(payload) {
                Ok(bytes) => payload = &payload[bytes..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(true);
                    }
                    self.wait_for_room(stream)?;
                }
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    #[cfg(unix)]
    fn wait_for_room(&mut self, stream: &TcpStream) -> Result<(), Failure> {
        use mio::unix::SourceFd;
        use std::os::fd::AsRawFd;
        let fd = stream.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), WRITER, Interest::WRITABLE)?;
        let waited = self.wait();
        self.poll.registry().deregister(&mut SourceFd(&fd))?;
        waited
    }

    #[cfg(not(unix))]
    fn wait_for_room(&mut self, _: &TcpStream) -> Result<(), Failure> {
        std::thread::yield_now();
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, Some(TICK)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Ends the replay: half-closes open connections, and waits for their peers for a limited time.
    pub(super) fn finish(&mut self) {
        for (connection, stream) in self.streams.drain() {
            drop(stream.shutdown(Shutdown::Write));
            self.drain.close_at_end(connection);
        }
        self.drain.finish(LINGER);
    }
}
