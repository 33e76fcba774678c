//! Traffic that is captured through the proxy, replayed through it and captured again has the same
//! events and bytes in each connection.
//!
//! `MILLSTREAM_ROUND_TRIP_LINES` sets the number of lines that the clients send. The differences
//! between pauses of the two captures are printed but not checked.

mod common;

use common::{Listening, until};
use millstream_engine::capture::{CaptureReader, Direction, Item, Kind};
use millstream_engine::env::random::SplitMix;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const CLIENTS: u64 = 20;
/// Number of consecutive connections of a client.
const CONNECTIONS: u64 = 5;

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client half-closes the connection and reads the answer.
    HalfClose,
    /// The client resets the connection.
    Reset,
}

/// The longest wait of this test, after which it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of bytes that the server has read of each connection, by its first line.
#[derive(Default)]
struct Received {
    bytes: Mutex<BTreeMap<Vec<u8>, usize>>,
    has_grown: Condvar,
}

impl Received {
    fn set(&self, first_line: &[u8], bytes: usize) {
        self.bytes.lock().unwrap().insert(first_line.to_vec(), bytes);
        self.has_grown.notify_all();
    }

    /// Waits until the server has read so many bytes of a connection.
    fn wait(&self, first_line: &[u8], bytes: usize) {
        let is_short = |read: &mut BTreeMap<Vec<u8>, usize>| {
            read.get(first_line).is_none_or(|read| *read < bytes)
        };
        let read = self.bytes.lock().unwrap();
        let (guard, waited) = self.has_grown.wait_timeout_while(read, PATIENCE, is_short).unwrap();
        drop(guard);
        assert!(!waited.timed_out(), "the server has not read {bytes} bytes");
    }
}

#[cfg(target_os = "linux")]
nix::ioctl_read_bad!(
    /// Reads the number of bytes of a socket that the peer's kernel has not acknowledged.
    unacknowledged_bytes,
    nix::libc::TIOCOUTQ,
    nix::libc::c_int
);

/// Waits until the peer's kernel, which is the proxy's, has acknowledged all bytes. A reset before
/// that would discard some of them, and no proxy could pass them on.
#[cfg(target_os = "linux")]
fn wait_until_acknowledged(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    common::until("the acknowledgement of all bytes", || {
        let mut bytes = 0;
        // SAFETY: the descriptor is open for as long as `stream` is borrowed, and TIOCOUTQ writes
        // one `c_int` to the pointer, which `bytes` is.
        unsafe { unacknowledged_bytes(stream.as_raw_fd(), &mut bytes) }.unwrap();
        bytes == 0
    });
}

/// Sends numbered lines in writes of different sizes, and ends the connection. Some pauses last
/// until the server has read all that was sent. A connection is reset when the proxy's kernel has
/// received all bytes, whether or not the proxy has passed them on.
fn send(
    at: SocketAddr,
    client: u64,
    connection: u64,
    lines: u64,
    received: &Received,
) -> (Vec<u8>, End) {
    let first_line = format!("client {client} connection {connection} line 0");
    let mut random = SplitMix(client << 32 | connection);
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sent, mut write) = (Vec::new(), Vec::new());
    let mut line = 0;
    while line < lines {
        write.clear();
        for _ in 0..=random.below(20).min(lines - line - 1) {
            writeln!(write, "client {client} connection {connection} line {line}").unwrap();
            line += 1;
        }
        // Some writes end in the middle of a line.
        let cut = if random.below(4) == 0 { write.len() / 2 } else { write.len() };
        for part in [&write[..cut], &write[cut..]] {
            stream.write_all(part).unwrap();
        }
        sent.extend_from_slice(&write);
        if random.below(8) == 0 {
            received.wait(first_line.as_bytes(), sent.len());
        }
    }
    if random.below(4) == 0 {
        // Elsewhere neither the client nor the proxy knows what was acknowledged.
        #[cfg(target_os = "linux")]
        wait_until_acknowledged(&stream);
        #[cfg(not(target_os = "linux"))]
        received.wait(first_line.as_bytes(), sent.len());
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        return (sent, End::Reset);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("{} bytes\n", sent.len()));
    (sent, End::HalfClose)
}

/// A server that answers each connection with its number of bytes.
fn serve(received: Arc<Received>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, received) = (stream.unwrap(), received.clone());
            std::thread::spawn(move || {
                let (mut first, mut buffer, mut bytes) = (Vec::new(), [0; 16 << 10], 0);
                // A reset ends the connection without an answer.
                while let Ok(read) = stream.read(&mut buffer) {
                    if read == 0 {
                        drop(writeln!(stream, "{bytes} bytes"));
                        break;
                    }
                    bytes += read;
                    if !first.contains(&b'\n') {
                        first.extend_from_slice(&buffer[..read]);
                    }
                    if let Some(end) = first.iter().position(|byte| *byte == b'\n') {
                        received.set(&first[..end], bytes);
                    }
                }
            });
        }
    });
    at
}

fn start_proxy(to: SocketAddr, capture: &Path) -> Listening {
    let (to, capture) = (to.to_string(), capture.to_str().unwrap());
    Listening::start(&["capture", "--listen", "127.0.0.1:0", "--to", &to, "-o", capture])
}

/// Ends a proxy when it has recorded the end of `connections` connections.
fn stop_proxy(mut proxy: Listening, capture: &Path, connections: u64) {
    until("all ends of connections in the capture", || {
        assert!(proxy.child.try_wait().unwrap().is_none(), "the proxy has ended");
        let all = read(capture);
        all.values().filter(|connection| connection.is_closed).count() as u64 == connections
    });
    proxy.stop();
}

/// The captured events of a connection.
#[derive(Default)]
struct Connection {
    bytes: [Vec<u8>; 2],
    /// How the direction towards the service ended, with the stream offset.
    ends: Vec<(Kind, u64)>,
    is_closed: bool,
    /// For each event towards the service, the stream offset after it and its time.
    times: Vec<(usize, u64)>,
}

/// The connections of a capture, by their first line.
fn read(path: &Path) -> BTreeMap<String, Connection> {
    let (mut reader, mut found) = (CaptureReader::open(path).unwrap(), BTreeMap::new());
    while let Some(item) = reader.next_item().unwrap() {
        // The last block of a file that is being written may be incomplete.
        let Item::Event(head, payload) = item else { break };
        let connection: &mut Connection = found.entry(head.connection).or_default();
        let side = usize::from(head.direction == Direction::Out);
        match head.kind {
            Kind::Data => {
                assert_eq!(head.position, connection.bytes[side].len() as u64);
                connection.bytes[side].extend_from_slice(payload);
                if side == 0 {
                    connection.times.push((connection.bytes[0].len(), head.mono_ns));
                }
            }
            Kind::HalfClose | Kind::Reset if side == 0 => {
                connection.ends.push((head.kind, head.position));
            }
            Kind::Close => connection.is_closed = true,
            _ => {}
        }
    }
    let first_line = |connection: &Connection| {
        let bytes = &connection.bytes[0];
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    };
    found.into_values().map(|connection| (first_line(&connection), connection)).collect()
}

/// Prints how much the pauses between events differ between the two captures.
fn print_pauses(first: &BTreeMap<String, Connection>, again: &BTreeMap<String, Connection>) {
    let (mut differences, mut events, mut events_again) = (Vec::new(), 0, 0);
    for (name, connection) in first {
        let times_again = &again[name].times;
        events += connection.times.len();
        events_again += times_again.len();
        // The time in the second capture of the last byte of an event in the first one.
        let came_again = |end: usize| {
            let at = times_again.partition_point(|(position, _)| *position < end);
            times_again.get(at).map(|(_, ns)| *ns)
        };
        for pair in connection.times.windows(2) {
            let [(end0, ns0), (end1, ns1)] = [pair[0], pair[1]];
            if let (Some(again0), Some(again1)) = (came_again(end0), came_again(end1)) {
                differences.push((again1 - again0).abs_diff(ns1 - ns0));
            }
        }
    }
    if differences.is_empty() {
        return;
    }
    differences.sort_unstable();
    let at = |part: f64| differences[((differences.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    eprintln!(
        "{events} data events, again {events_again}; pauses differ by p50 {:.1} us, p99 {:.1} us, max \
         {:.1} us",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[test]
fn a_replay_through_the_proxy_is_captured_as_the_traffic_was() {
    let lines: u64 = std::env::var("MILLSTREAM_ROUND_TRIP_LINES")
        .map_or(20_000, |lines| lines.parse().expect("a number of lines"));
    let name = format!("millstream-round-trip-{}", std::process::id());
    let folder: PathBuf = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let (path, path_again) = (folder.join("first.capture"), folder.join("again.capture"));
    let (received, received_again) = (Arc::<Received>::default(), Arc::<Received>::default());
    let server = serve(received.clone());
    let each = (lines / (CLIENTS * CONNECTIONS)).max(1);

    let proxy = start_proxy(server, &path);
    let at = proxy.at;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let received = received.clone();
            std::thread::spawn(move || {
                let send = |n| send(at, client, n, each, &received);
                (0..CONNECTIONS).map(send).collect::<Vec<_>>()
            })
        })
        .collect();
    let sent: Vec<(Vec<u8>, End)> = clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
    stop_proxy(proxy, &path, CLIENTS * CONNECTIONS);
    let first = read(&path);

    let proxy = start_proxy(serve(received_again.clone()), &path_again);
    let output = common::millstream()
        .args(["replay", path.to_str().unwrap(), "--to", &proxy.at.to_string(), "--max-lag", "1h"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stop_proxy(proxy, &path_again, CLIENTS * CONNECTIONS);
    let again = read(&path_again);
    std::fs::remove_dir_all(&folder).unwrap();

    assert_eq!(first.len() as u64, CLIENTS * CONNECTIONS);
    let resets = sent.iter().filter(|(_, end)| *end == End::Reset).count();
    assert!(resets > 10 && resets < sent.len() - 10, "{resets} resets");
    for (bytes, end) in &sent {
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
        let name = String::from_utf8(line.to_vec()).unwrap();
        let (one, two) = (&first[&name], &again[&name]);
        let [all, again] = [one, two].map(|connection| &connection.bytes[0]);
        assert!(all == bytes, "{name}: {} of {}", all.len(), bytes.len());
        // Only Linux says whether all bytes before a reset are acknowledged.
        if *end == End::Reset && !cfg!(target_os = "linux") {
            continue;
        }
        for received in [&received, &received_again] {
            received.wait(name.as_bytes(), bytes.len());
        }
        assert!(again == bytes, "{name}: {} of {}", again.len(), bytes.len());
        let kind = if *end == End::Reset { Kind::Reset } else { Kind::HalfClose };
        assert_eq!(one.ends, [(kind, all.len() as u64)], "{name}");
        assert_eq!(two.ends, one.ends, "{name}");
        assert_eq!(one.bytes[1], two.bytes[1], "{name}: what the server answered");
    }
    print_pauses(&first, &again);
}
