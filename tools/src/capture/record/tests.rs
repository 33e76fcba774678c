//! Recordings of a proxy, with real sockets.

use super::pair::{Next, Pair};
use super::receive::Receiver;
use super::recorder::{Limit, Recorder};
use super::{Args, streams};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(30);

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("millstream-{name}-{}", std::process::id())))
    }

    fn recorder(&self, stop: &Arc<AtomicBool>) -> Recorder {
        let args = Args {
            connect: None,
            listen: None,
            to: None,
            udp: None,
            group: Vec::new(),
            output: self.0.clone(),
            force: true,
            duration: None,
            bytes: None,
            compress: false,
            rotate_bytes: None,
            rotate_time: None,
        };
        let limit = Limit { end: None, bytes: None, stop: stop.clone() };
        Recorder::begin(&args, limit).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// The two ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn proxied(stream: TcpStream) -> mio::net::TcpStream {
    stream.set_nonblocking(true).unwrap();
    mio::net::TcpStream::from_std(stream)
}

/// A client sends everything, closes its direction, and then resets the connection while the server
/// still answers.
#[test]
fn a_reset_after_the_end_of_the_same_side_ends_the_connection() {
    let scratch = Scratch::new("reset-after-end");
    let mut recorder = scratch.recorder(&Arc::default());
    let ((client, peer), (server, to_server)) = (connection(), connection());
    let mut pair = Pair::new(0, proxied(peer), Some(proxied(to_server)));
    let (mut receiver, mut buffer) = (Receiver::new(), vec![0; 1 << 16]);
    client.shutdown(Shutdown::Write).unwrap();
    let start = Instant::now();
    let mut pump = || {
        assert!(start.elapsed() < TIMEOUT, "the connection hangs");
        pair.pump(&mut receiver, &mut buffer, &mut recorder).unwrap()
    };
    // The server has the end when the proxy has read it.
    server.set_nonblocking(true).unwrap();
    while !matches!((&server).read(&mut [0; 1]), Ok(0)) {
        assert!(pump() != Next::End);
    }
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    loop {
        // The proxy notices the reset when it forwards an answer.
        drop((&server).write(b"answer\n"));
        if pump() == Next::End {
            break;
        }
    }
}

/// The first address of a name may have no server, as `::1` of `localhost` often has none.
#[test]
fn a_proxy_tries_each_address_of_its_server() {
    let scratch = Scratch::new("addresses");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = closed.local_addr().unwrap();
    drop(closed);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = [refused, server.local_addr().unwrap()];
    // The port is free until the proxy takes it.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let at: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let stop = Arc::<AtomicBool>::default();
    let recorder = scratch.recorder(&stop);
    let proxy = std::thread::spawn(move || {
        streams::listen(&[at], &servers, || Ok(recorder)).map(Recorder::finish).is_ok()
    });
    let start = Instant::now();
    let client = loop {
        match TcpStream::connect(at) {
            Ok(client) => break client,
            Err(error) => assert!(start.elapsed() < TIMEOUT, "{error}"),
        }
        std::thread::yield_now();
    };
    (&client).write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.set_nonblocking(true).unwrap();
    let mut accepted = loop {
        match server.accept() {
            Ok((accepted, _)) => break accepted,
            Err(error) => assert!(start.elapsed() < TIMEOUT, "no connection: {error}"),
        }
        std::thread::yield_now();
    };
    accepted.set_nonblocking(false).unwrap();
    let mut received = String::new();
    accepted.read_to_string(&mut received).unwrap();
    assert_eq!(received, "hello");
    stop.store(true, Ordering::Relaxed);
    assert!(proxy.join().unwrap());
}
