//! Recordings of a proxy, with real sockets.

use super::pair::{Next, Pair};
use super::receive::Receiver;
use super::recorder::{Limit, Recorder};
use super::{Args, Force, streams};
use millstream_engine::capture::{CaptureReader, ConnectionInfo, Item, Kind};
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
            force: Force { force: true },
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
    let (client, peer) = connection();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pair = Pair::proxied(ConnectionInfo::default(), proxied(peer));
    assert!(pair.connect(&[server.local_addr().unwrap()]).is_some());
    let (server, _) = server.accept().unwrap();
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

/// An address at which no server listens. Nobody else gets the port while the socket exists.
fn refusing() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A proxy of a server with these addresses, and the address of the proxy.
fn proxy(scratch: &Scratch, servers: Vec<SocketAddr>) -> (impl FnOnce(), SocketAddr) {
    let listener = mio::net::TcpListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let at = listener.local_addr().unwrap();
    let stop = Arc::<AtomicBool>::default();
    let recorder = scratch.recorder(&stop);
    let proxy = std::thread::spawn(move || {
        streams::serve(listener, &servers, recorder).map(Recorder::finish).is_ok()
    });
    let end = move || {
        stop.store(true, Ordering::Relaxed);
        assert!(proxy.join().unwrap());
    };
    (end, at)
}

/// The kinds of the recorded events, and the server's address in the open event.
fn recorded(scratch: &Scratch) -> (Vec<Kind>, Option<SocketAddr>) {
    let (mut kinds, mut server) = (Vec::new(), None);
    let mut reader = CaptureReader::open(&scratch.0).unwrap();
    while let Some(item) = reader.next_item().unwrap() {
        let Item::Event(head, payload) = item else { panic!("damage: {item:?}") };
        if head.kind == Kind::Open {
            server = ConnectionInfo::decode(payload).unwrap().b;
        }
        kinds.push(head.kind);
    }
    (kinds, server)
}

/// The first address of a name may have no server, as `::1` of `localhost` often has none.
#[test]
fn a_proxy_tries_each_address_of_its_server_and_records_the_one_that_is_connected() {
    let scratch = Scratch::new("addresses");
    let (_held, refused) = refusing();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let (end, at) = proxy(&scratch, vec![refused, to]);
    let client = TcpStream::connect(at).unwrap();
    (&client).write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let start = Instant::now();
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
    end();
    let (kinds, server) = recorded(&scratch);
    assert_eq!(kinds[..2], [Kind::Open, Kind::Data]);
    assert_eq!(server, Some(to));
}

#[test]
fn a_client_is_reset_if_no_address_of_the_server_can_be_reached() {
    let scratch = Scratch::new("refused");
    let ((_first, first), (_last, last)) = (refusing(), refusing());
    let (end, at) = proxy(&scratch, vec![first, last]);
    let mut client = TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    end();
    assert_eq!(recorded(&scratch), (vec![Kind::Open, Kind::Reset, Kind::Close], Some(last)));
}
