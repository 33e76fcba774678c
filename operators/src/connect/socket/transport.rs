//! One interface for the streams and addresses of TCP and Unix sockets.

use super::options::KeepAlive;
use millstream_engine::mio::event::Source;
use millstream_engine::mio::net::{TcpStream, UnixStream};
use millstream_engine::mio::{Interest, Registry, Token};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A non-blocking stream.
pub enum Stream {
    /// A TCP stream.
    Tcp(TcpStream),
    /// A stream over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    #[inline]
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    /// Whether a connection attempt has succeeded; `None` while it is still in progress.
    pub(super) fn connected(&self) -> io::Result<Option<()>> {
        let Self::Tcp(stream) = self else { return Ok(Some(())) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(Some(())),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(None),
            // macOS reports a connection in progress this way.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The addresses of the peer and of this process, where there are any.
    pub(super) fn ends(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        match self {
            Self::Tcp(stream) => (stream.peer_addr().ok(), stream.local_addr().ok()),
            Self::Unix(_) => (None, None),
        }
    }

    /// Enables keep-alive of a TCP stream, so that it ends if the peer is dead.
    pub(super) fn keep_alive(&self, keep_alive: &KeepAlive) -> io::Result<()> {
        let Self::Tcp(stream) = self else { return Ok(()) };
        let timings = socket2::TcpKeepalive::new()
            .with_time(Duration::from_nanos(keep_alive.after_ns))
            .with_interval(Duration::from_nanos(keep_alive.interval_ns))
            .with_retries(keep_alive.probes);
        socket2::SockRef::from(stream).set_tcp_keepalive(&timings)
    }
}

impl Source for Stream {
    fn register(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(to, token, what),
            Self::Unix(stream) => stream.register(to, token, what),
        }
    }

    fn reregister(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(to, token, what),
            Self::Unix(stream) => stream.reregister(to, token, what),
        }
    }

    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(from),
            Self::Unix(stream) => stream.deregister(from),
        }
    }
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Starts to connect without blocking. A TCP connection may still fail later:
    /// [`connected`](Stream::connected) tells the outcome.
    pub(super) fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => TcpStream::connect(*address).map(Stream::Tcp),
            Self::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        }
    }

    /// Connects, blocking for at most `timeout`.
    pub(super) fn connect_within(&self, timeout: Duration) -> io::Result<Stream> {
        let Self::Tcp(address) = self else { return self.connect() };
        let stream = std::net::TcpStream::connect_timeout(address, timeout)?;
        stream.set_nonblocking(true)?;
        Ok(Stream::Tcp(TcpStream::from_std(stream)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_options_are_set_on_the_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let stream = target.connect_within(Duration::from_secs(10)).unwrap();
        let second_ns = 1_000_000_000;
        let wanted = KeepAlive { after_ns: 30 * second_ns, interval_ns: 10 * second_ns, probes: 3 };
        stream.keep_alive(&wanted).unwrap();
        let Stream::Tcp(tcp) = &stream else { panic!("TCP") };
        let socket = socket2::SockRef::from(tcp);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
