//! Tests of `capture` and `replay` over real sockets: a service receives the same bytes from a
//! replay as from the recorded traffic.

mod common;

use common::{Listening, Scratch, signal, until};
use millstream_engine::capture::{
    CaptureReader, CaptureWriter, ConnectionInfo, Direction, Gap, GapCause, Head, Item, Kind,
    Opener, Protocol, WriterOptions,
};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn millstream() -> Command {
    let mut command = common::millstream();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a server received over a connection.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    bytes: Vec<u8>,
    was_reset: bool,
}

/// A server that answers each connection with its number of bytes when the client has closed.
fn serve() -> (SocketAddr, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, (sender, seen)) = (listener.local_addr().unwrap(), channel());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let was_reset = stream.read_to_end(&mut bytes).is_err();
                drop(writeln!(stream, "{} bytes", bytes.len()));
                drop(stream);
                drop(sender.send(Seen { bytes, was_reset }));
            });
        }
    });
    (at, seen)
}

fn take(seen: &Receiver<Seen>, count: usize) -> Vec<Seen> {
    let mut found: Vec<Seen> =
        (0..count).map(|_| seen.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
    found.sort();
    found
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn replay(args: &[&str]) -> String {
    // The lag on a busy machine does not affect this test.
    let output = millstream().arg("replay").args(args).args(["--max-lag", "1h"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

fn export(path: &str, args: &[&str]) -> Vec<String> {
    let output = millstream().args(["export", path]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect()
}

/// The number of events of a kind in a capture.
fn count(lines: &[String], kind: &str) -> usize {
    let kind = format!("{{\"kind\":\"{kind}\"");
    lines.iter().filter(|line| line.starts_with(&kind)).count()
}

#[test]
fn a_replay_sends_a_service_the_bytes_that_it_got_through_the_proxy() {
    const CLIENTS: usize = 12;
    let (scratch, (server, seen)) = (Scratch::new("record-proxy"), serve());
    let (to, path) = (server.to_string(), scratch.path("first.capture"));
    let proxy = Listening::start(&["capture", "--listen", "127.0.0.1:0", "--to", &to, "-o", &path]);
    let at = proxy.at;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(at).unwrap();
                for line in 0..n * 50 {
                    writeln!(stream, "client {n} line {line}").unwrap();
                }
                if n % 4 == 3 {
                    let socket = socket2::SockRef::from(&stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.ends_with(" bytes\n"), "{answer}");
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let first = take(&seen, CLIENTS);
    assert!(proxy.stop().contains(&format!("connections  {CLIENTS}")));
    let lines = export(&path, &[]);
    let resets = first.iter().filter(|seen| seen.was_reset).count();
    assert_eq!((count(&lines, "open"), count(&lines, "close")), (CLIENTS, CLIENTS));
    assert_eq!((count(&lines, "reset"), resets), (3, 3));
    assert_eq!(count(&lines, "half-close"), 2 * (CLIENTS - 3));
    // Bytes of a client that resets its connection may be lost, for the proxy as for any receiver.
    let whole = |seen: Vec<Seen>| {
        let bytes = seen.into_iter().filter(|seen| !seen.was_reset).map(|seen| seen.bytes);
        bytes.collect::<Vec<_>>()
    };
    let first = whole(first);
    for args in [&["--speed", "max"][..], &["--speed", "2"], &["--speed", "max", "--loop", "2"]] {
        let rounds = if args.len() > 2 { 2 } else { 1 };
        let said = replay(&[&[path.as_str(), "--to", &to], args].concat());
        assert!(said.contains(&format!("connections  {}", rounds * CLIENTS)), "{said}");
        let again = take(&seen, rounds * CLIENTS);
        assert_eq!(again.iter().filter(|seen| seen.was_reset).count(), rounds * 3, "{args:?}");
        let mut wanted = [first.clone(), first.clone()].concat();
        wanted.truncate(rounds * first.len());
        wanted.sort();
        assert!(whole(again) == wanted, "{args:?}");
    }
}

/// A listener whose connections have a small receive buffer.
fn listen_with_small_buffer() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}

/// More bytes than such a connection receives without a read, and fewer than its sender buffers.
const MANY_BYTES: usize = 128 << 10;

fn read_to_reset(mut stream: TcpStream) -> Seen {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let was_reset = stream
        .read_to_end(&mut bytes)
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    Seen { bytes, was_reset }
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The number of data bytes of a direction in a capture that is being written, and the number of
/// its resets.
fn recorded(path: &str, wanted: Direction) -> (usize, usize) {
    let (mut reader, mut found) = (CaptureReader::open(Path::new(path)).unwrap(), (0, 0));
    while let Some(Item::Event(head, payload)) = reader.next_item().unwrap() {
        found.0 += payload.len() * usize::from((head.kind, head.direction) == (Kind::Data, wanted));
        found.1 += usize::from(head.kind == Kind::Reset);
    }
    found
}

#[cfg(target_os = "linux")]
#[test]
fn a_reset_that_waits_for_its_peer_delays_no_other_connection() {
    let scratch = Scratch::new("replay-reset");
    let path = scratch.path("reset.capture");
    let mut writer =
        CaptureWriter::new(std::fs::File::create(&path).unwrap(), &WriterOptions::default())
            .unwrap();
    let info = ConnectionInfo { protocol: Protocol::Tcp, opener: Opener::A, a: None, b: None };
    let many = vec![b'x'; MANY_BYTES];
    let events: [(u32, Kind, &[u8]); 7] = [
        (0, Kind::Open, &info.encode()),
        (0, Kind::Data, &many),
        (0, Kind::Reset, b""),
        (1, Kind::Open, &info.encode()),
        (1, Kind::Data, b"other"),
        (1, Kind::HalfClose, b""),
        (1, Kind::Close, b""),
    ];
    for (connection, kind, payload) in events {
        let (direction, mono_ns, wall_ns) = (Direction::In, 1, 1);
        let head =
            Head { position: 0, lines: 0, mono_ns, wall_ns, connection, direction, kind, flags: 0 };
        writer.append(&head, payload).unwrap();
    }
    writer.finish().unwrap();
    let server = listen_with_small_buffer();
    let to = server.local_addr().unwrap().to_string();
    let player = millstream().args(["replay", &path, "--to", &to, "--max-lag", "1h"]).spawn();
    let first = server.accept().unwrap().0;
    let mut other = String::new();
    server.accept().unwrap().0.read_to_string(&mut other).unwrap();
    assert_eq!(other, "other");
    // The first connection is read only now, so its reset has waited all the time.
    assert!(read_to_reset(first) == Seen { bytes: many, was_reset: true });
    let output = player.unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[cfg(target_os = "linux")]
#[test]
fn the_proxy_passes_on_what_was_sent_before_a_reset() {
    let scratch = Scratch::new("record-reset");
    let (path, server) = (scratch.path("reset.capture"), listen_with_small_buffer());
    let to = server.local_addr().unwrap().to_string();
    let proxy = Listening::start(&["capture", "--listen", "127.0.0.1:0", "--to", &to, "-o", &path]);
    let mut client = TcpStream::connect(proxy.at).unwrap();
    let at_server = server.accept().unwrap().0;
    client.write_all(&[b'x'; MANY_BYTES]).unwrap();
    until("all bytes in the capture", || recorded(&path, Direction::In).0 == MANY_BYTES);
    reset(client);
    until("the reset in the capture", || recorded(&path, Direction::In).1 == 1);
    // The server reads only now. The proxy's reset must not have discarded anything.
    let seen = read_to_reset(at_server);
    assert_eq!((seen.bytes.len(), seen.was_reset), (MANY_BYTES, true));
    proxy.stop();
}

/// The proxy notices the reset when it writes to the server, before it has read the server's
/// answer.
#[cfg(target_os = "linux")]
#[test]
fn the_proxy_passes_on_the_answer_of_a_server_that_can_no_longer_be_written() {
    let scratch = Scratch::new("record-broken");
    let (path, server) = (scratch.path("broken.capture"), listen_with_small_buffer());
    let to = server.local_addr().unwrap().to_string();
    let proxy = Listening::start(&["capture", "--listen", "127.0.0.1:0", "--to", &to, "-o", &path]);
    let mut client = TcpStream::connect(proxy.at).unwrap();
    client.write_all(b"question").unwrap();
    let mut at_server = server.accept().unwrap().0;
    at_server.read_exact(&mut [0; 8]).unwrap();
    let pid = proxy.child.id();
    signal(&proxy.child, "STOP");
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    until("the stop", || stat().contains(") T "));
    at_server.write_all(b"answer").unwrap();
    reset(at_server);
    client.write_all(b"again").unwrap();
    signal(&proxy.child, "CONT");
    assert_eq!(read_to_reset(client), Seen { bytes: b"answer".to_vec(), was_reset: true });
    proxy.stop();
    assert_eq!(recorded(&path, Direction::Out), (6, 1));
}

#[test]
fn bytes_from_a_server_are_replayed_to_a_client() {
    let scratch = Scratch::new("record-listen");
    let path = scratch.path("feed.capture");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let from = listener.local_addr().unwrap().to_string();
    let feed: String = (0..1000).map(|n| format!("tick {n}\n")).collect();
    let text_of_feed = feed.clone();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(text_of_feed.as_bytes()).unwrap();
    });
    let output = millstream().args(["capture", "--connect", &from, "-o", &path]).output().unwrap();
    server.join().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(export(&path, &["--format", "text"]).join("\n") + "\n", feed);
    let player = Listening::start(&["replay", &path, "--listen", "127.0.0.1:0", "--speed", "max"]);
    let mut found = String::new();
    TcpStream::connect(player.at).unwrap().read_to_string(&mut found).unwrap();
    assert_eq!(found, feed);
    assert!(player.end().contains("connections  1"));
}

#[test]
fn datagrams_are_recorded_one_by_one_and_played_as_such() {
    let scratch = Scratch::new("record-udp");
    let path = scratch.path("market.capture");
    let args = ["capture", "--udp", "127.0.0.1:0", "-o", &path, "--bytes", "300"];
    let recorder = Listening::start(&args);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..30 {
        sender.send_to(format!("quote {n:03}\n").as_bytes(), recorder.at).unwrap();
    }
    assert!(recorder.end().contains("connections  1"));
    assert_eq!(count(&export(&path, &[]), "data"), 30);
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let to = receiver.local_addr().unwrap().to_string();
    replay(&[&path, "--to", &to, "--max-gap", "1ms"]);
    let mut buffer = [0; 100];
    for n in 0..30 {
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], format!("quote {n:03}\n").as_bytes());
    }
}

#[test]
fn recorded_datagrams_are_replayed_to_clients_that_send_first() {
    let scratch = Scratch::new("record-udp-listen");
    let path = scratch.path("market.capture");
    let args = ["capture", "--udp", "127.0.0.1:0", "-o", &path, "--bytes", "200"];
    let recorder = Listening::start(&args);
    let senders = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    for n in 0..20 {
        senders[n % 2].send_to(format!("quote {n:03}\n").as_bytes(), recorder.at).unwrap();
    }
    recorder.end();
    let player = Listening::start(&["replay", &path, "--listen", "127.0.0.1:0", "--speed", "max"]);
    let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut found = Vec::new();
    for client in &clients {
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.send_to(b"", player.at).unwrap();
        // The replay continues when the next client has sent a datagram. The first datagram that
        // this client receives shows that it was accepted.
        let mut buffer = [0; 100];
        let length = client.recv(&mut buffer).unwrap();
        found.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    for client in &clients {
        for _ in 1..10 {
            let mut buffer = [0; 100];
            let length = client.recv(&mut buffer).unwrap();
            found.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    found.sort();
    let wanted: Vec<String> = (0..20).map(|n| format!("quote {n:03}\n")).collect();
    assert_eq!(found, wanted);
    let said = player.end();
    assert!(said.contains("connections  2") && !said.contains("refused"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn datagrams_that_the_kernel_dropped_are_gaps() {
    const BYTES: usize = 1000;
    let scratch = Scratch::new("record-dropped");
    let path = scratch.path("market.capture");
    let recorder = Listening::start(&["capture", "--udp", "127.0.0.1:0", "-o", &path]);
    let (pid, sender) = (recorder.child.id(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut sent = 0;
    let mut send = |first: u8| {
        let mut datagram = [b'.'; BYTES];
        datagram[0] = first;
        sender.send_to(&datagram, recorder.at).unwrap();
        sent += 1;
    };
    send(b'a');
    until("the first datagram", || export(&path, &[]).iter().any(|line| line.contains("\"a...")));
    // The recorder is stopped until its buffer is full. The buffer has at most 8 MiB, plus the
    // kernel's overhead.
    signal(&recorder.child, "STOP");
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    until("the stop", || stat().contains(") T "));
    (0..40_000).for_each(|_| send(b'.'));
    signal(&recorder.child, "CONT");
    until("a datagram after the dropped ones", || {
        send(b'z');
        export(&path, &[]).iter().any(|line| line.contains("\"z..."))
    });
    let said = recorder.stop();
    let lines = export(&path, &[]);
    let dropped = |line: &String| {
        let (_, count) = line.split_once("\"datagrams\":")?;
        count.trim_end_matches('}').parse::<usize>().ok()
    };
    let dropped: usize = lines.iter().filter_map(dropped).sum();
    assert!(dropped > 0, "{said}");
    assert_eq!(count(&lines, "data") + dropped, sent);
    assert!(said.contains(&format!("dropped      {dropped} datagrams")), "{said}");
    let output = millstream().args(["inspect", &path]).output().unwrap();
    assert!(text(&output).contains(&format!("{dropped} datagrams dropped")), "{}", text(&output));
}

#[test]
fn a_multicast_group_is_recorded_and_played_to() {
    let group = "239.255.77.1";
    // The test is skipped if this machine has no route for multicast.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let joined = probe.join_multicast_v4(&group.parse().unwrap(), &[0, 0, 0, 0].into());
    probe.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let to = format!("{group}:{}", probe.local_addr().unwrap().port());
    let sent = UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", &to);
    if joined.is_err() || sent.is_err() || probe.recv(&mut [0; 8]).is_err() {
        eprintln!("LEFT OUT: this machine has no multicast");
        return;
    }
    let scratch = Scratch::new("record-multicast");
    let (path, again) = (scratch.path("market.capture"), scratch.path("again.capture"));
    let record = |path: &str| {
        Listening::start(&["capture", "--udp", "0", "--group", group, "-o", path, "--bytes", "100"])
    };
    let recorder = record(&path);
    let (to, sender) = ((group, recorder.at.port()), UdpSocket::bind("0.0.0.0:0").unwrap());
    for n in 0..10 {
        sender.send_to(format!("quote {n:03}\n").as_bytes(), to).unwrap();
    }
    recorder.end();
    let recorder = record(&again);
    replay(&[&path, "--to", &format!("{group}:{}", recorder.at.port())]);
    recorder.end();
    let texts = [&path, &again].map(|path| export(path, &["--format", "text"]));
    assert_eq!(texts[0].len(), 10);
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn times_in_the_payload_are_moved_to_now() {
    let scratch = Scratch::new("record-shift");
    let (path, (server, seen)) = (scratch.path("trades.capture"), serve());
    let feed = "id,at\n1,2020-02-28T23:59:59.500Z\n2,2020-02-29T00:00:01.250Z\nno time\n";
    let recorder = Listening::start(&["capture", "--listen", "127.0.0.1:0", "-o", &path]);
    let mut client = TcpStream::connect(recorder.at).unwrap();
    client.write_all(feed.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    drop(client.read_to_end(&mut Vec::new()));
    recorder.stop();
    let to = server.to_string();
    let before = std::time::SystemTime::now();
    for field in ["at", "2", r"^\d+,(.*)Z"] {
        let said = replay(&[&path, "--to", &to, "--shift-time", field]);
        let without = if field == "at" { 1 } else { 2 };
        assert!(said.contains("times moved  2 lines"), "{said}");
        assert!(said.contains(&format!("{without} lines have no time")), "{said}");
        let found = String::from_utf8(take(&seen, 1).remove(0).bytes).unwrap();
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!((found.len(), lines[0], lines[3]), (feed.len(), "id,at", "no time"));
        let second = |line: &str| -> u64 {
            let date = line.split(',').nth(1).unwrap();
            let output = Command::new("date").args(["-d", date, "+%s%3N"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
        };
        assert_eq!(second(lines[2]) - second(lines[1]), 1750, "{found}");
        let since = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!((since..since + 600_000).contains(&second(lines[1])), "{found}");
    }
    for (field, part) in
        [("price", "SHIFT_TIME_NOT_FOUND"), ("0", "from 1"), ("(a)(b)", "2 groups")]
    {
        let args = ["replay", &path, "--to", &to, "--shift-time", field];
        let output = millstream().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(part), "{}", text(&output));
    }
}

/// Incomplete lines remain before and after a gap and at the end of the recording.
#[test]
fn times_of_incomplete_lines_are_not_moved() {
    let (scratch, (server, seen)) = (Scratch::new("record-shift-gap"), serve());
    let path = scratch.path("trades.capture");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = CaptureWriter::new(file, &WriterOptions::default()).unwrap();
    let info = ConnectionInfo { protocol: Protocol::Tcp, opener: Opener::A, a: None, b: None };
    let gap = Gap::of_bytes(20, GapCause::Lost).encode();
    let events: [(u32, Kind, &[u8]); 10] = [
        (0, Kind::Open, &info.encode()),
        (0, Kind::Data, b"1700000000,a\n1700000001,b"),
        (0, Kind::Gap, &gap),
        (0, Kind::Data, b"1700000002,c\n1700000003,d\n1700000004,e"),
        (1, Kind::Open, &info.encode()),
        (1, Kind::Data, b"1700000005,f\n1700000006,g"),
        (0, Kind::HalfClose, b""),
        (0, Kind::Close, b""),
        // This connection and the previous one were still open when the recording ended.
        (2, Kind::Open, &info.encode()),
        (2, Kind::Data, b"1700000007"),
    ];
    let mut mono_ns = 0;
    for (connection, kind, payload) in events {
        mono_ns += 1;
        let (direction, wall_ns) = (Direction::In, mono_ns as i64);
        let head =
            Head { position: 0, lines: 0, mono_ns, wall_ns, connection, direction, kind, flags: 0 };
        writer.append(&head, payload).unwrap();
    }
    writer.finish().unwrap();
    let said = replay(&[&path, "--to", &server.to_string(), "--shift-time", "1"]);
    for part in ["times moved  4 lines", "3 lines have no time"] {
        assert!(said.contains(part), "{said}");
    }
    let text = |seen: Seen| String::from_utf8(seen.bytes).unwrap();
    let found: Vec<String> = take(&seen, 3).into_iter().map(text).collect();
    // The texts of the connections are sorted. The time of the incomplete line was not moved, so it
    // is the smallest.
    assert_eq!(found[0], "1700000007");
    let lines: Vec<&str> = found[1].lines().collect();
    assert_eq!(lines[1], "1700000001,b1700000002,c");
    let second = |line: &str| -> u64 { line.split(',').next().unwrap().parse().unwrap() };
    let first = second(lines[0]);
    assert!(first > 1_700_000_007);
    assert_eq!([second(lines[2]), second(lines[3])], [first + 3, first + 4]);
    assert_eq!(found[2], format!("{},f\n1700000006,g", first + 5));
}

#[test]
fn unusable_captures_and_addresses_are_errors() {
    let scratch = Scratch::new("record-errors");
    let (path, missing) = (scratch.path("x.capture"), scratch.path("missing.capture"));
    std::fs::write(&path, b"no capture").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let nowhere = Path::new("/nowhere/x").to_str().unwrap();
    for (args, code, part) in [
        (&["replay", &path, "--to", &taken][..], 1, "NOT_A_CAPTURE"),
        (&["replay", &missing, "--to", &taken], 1, "missing.capture"),
        (&["replay", &path], 2, "--to"),
        (&["replay", &path, "--to", "127.0.0.1:1", "--speed", "0"], 2, "0.1, 10 or max"),
        (&["capture", "-o", &path], 2, "NOTHING_TO_CAPTURE"),
        (&["capture", "--listen", &taken, "-o", &path], 1, "LISTEN_FAILED"),
        (&["capture", "--connect", "127.0.0.1:1", "-o", &path], 1, "CONNECT_FAILED"),
        (&["capture", "--listen", "127.0.0.1:0", "-o", nowhere], 2, "CAPTURE_WRITE_FAILED"),
    ] {
        let output = millstream().args(args).output().unwrap();
        let said = text(&output);
        assert!(said.contains(part), "{args:?}: {said}");
        let exit_code = output.status.code();
        assert!(exit_code == Some(code) || (code == 1 && exit_code == Some(2)), "{args:?}: {said}");
    }
}

#[test]
fn a_replay_sends_nothing_behind_the_end_of_its_peer() {
    let (scratch, (server, seen)) = (Scratch::new("replay-gone"), serve());
    let (to, path) = (server.to_string(), scratch.path("long.capture"));
    let proxy = Listening::start(&["capture", "--listen", "127.0.0.1:0", "--to", &to, "-o", &path]);
    let mut client = TcpStream::connect(proxy.at).unwrap();
    for line in 0..2_000 {
        writeln!(client, "{line:>4000}").unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_string(&mut String::new()).unwrap();
    take(&seen, 1);
    proxy.stop();
    // A service that reads a little of one connection and goes away.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let rude = listener.local_addr().unwrap().to_string();
    let accepted = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
        drop(stream);
        // Nobody connects again: a later connection would get the middle of the stream.
        listener.set_nonblocking(true).unwrap();
        move || listener.accept().is_ok()
    });
    let output = millstream().args(["replay", &path, "--to", &rude, "--speed", "max"]).output();
    let output = output.unwrap();
    let is_connected_again = accepted.join().unwrap();
    assert!(!is_connected_again(), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("REPLAY_INVALID"), "{}", text(&output));
    assert!(text(&output).contains("connections  1"), "{}", text(&output));
}

#[test]
fn a_replay_whose_later_connection_is_refused_ends() {
    let scratch = Scratch::new("replay-refused");
    let path = scratch.path("two.capture");
    let kinds = [Kind::Open, Kind::Data, Kind::HalfClose, Kind::Close];
    let events: Vec<_> = (0..2).flat_map(|n| kinds.map(|kind| (n, kind))).collect();
    // The listener is gone long before the second connection is opened.
    write_capture_at(&path, &events, |connection| 1 + u64::from(connection) * 2_000_000_000);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let output = millstream().args(["replay", &path, "--to", &to]).output().unwrap();
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

/// Runs a replay with limits of open files.
#[cfg(target_os = "linux")]
fn replay_with_limits(limits: &str, args: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_millstream")]);
    command.args(["replay", "--speed", "max"]).args(args).output().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_replay_of_many_connections_raises_the_limit_of_open_files_or_names_it() {
    let scratch = Scratch::new("limit");
    let path = scratch.path("many.capture");
    let events = (0..100).flat_map(|number| [(number, Kind::Open), (number, Kind::Data)]);
    write_capture(&path, &events.collect::<Vec<_>>());
    let (at, seen) = serve();
    let to = at.to_string();
    // Only the soft limit is too low.
    let output = replay_with_limits("ulimit -Sn 64", &[&path, "--to", &to]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(take(&seen, 100).iter().all(|one| one.bytes == b"line\n"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let output = replay_with_limits("ulimit -n 90", &[&path, "--to", &to]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output);
    assert!(error.contains("TOO_MANY_CONNECTIONS: 100 connections"), "{error}");
    assert!(error.contains("90 open files") && error.contains("ulimit -Hn"), "{error}");
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nothing was sent");
    // Fewer connections can be selected.
    let selected = ["--connection", "3", "--connection", "4"];
    let (at, seen) = serve();
    let to = at.to_string();
    let args = [&[path.as_str(), "--to", &to][..], &selected].concat();
    let output = replay_with_limits("ulimit -n 90", &args);
    assert!(output.status.success(), "{}", text(&output));
    take(&seen, 2);
}

#[test]
#[cfg(target_os = "linux")]
fn a_replay_reuses_the_sockets_of_connections_that_have_ended() {
    let scratch = Scratch::new("reuse");
    let path = scratch.path("many.capture");
    let kinds = [Kind::Open, Kind::Data, Kind::HalfClose, Kind::Close];
    let events = (0..300).flat_map(|number| kinds.map(|kind| (number, kind)));
    write_capture(&path, &events.collect::<Vec<_>>());
    let (at, seen) = serve();
    let output = replay_with_limits("ulimit -n 64", &[&path, "--to", &at.to_string()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(take(&seen, 300).iter().all(|one| one.bytes == b"line\n"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_recorder_says_that_clients_wait_for_the_limit_of_open_files() {
    let scratch = Scratch::new("recorder-limit");
    let path = scratch.path("many.capture");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_millstream")]);
    command.args(["capture", "--listen", "127.0.0.1:0", "-o", &path]);
    let mut recorder = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(recorder.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let at = first.strip_prefix("listening at ").and_then(|rest| rest.split(';').next()).unwrap();
    let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(at).unwrap()).collect();
    let said = lines.next().unwrap().unwrap();
    assert!(said.contains("may have 40 open files") && said.contains("ulimit -Hn"), "{said}");
    // The waiting clients are accepted when others have closed.
    drop(clients);
    until("all clients", || {
        let lines = export(&path, &[]);
        count(&lines, "open") == 60 && count(&lines, "close") == 60
    });
    signal(&recorder, "INT");
    assert!(recorder.wait().unwrap().success());
}

/// Writes a capture with these events, whose data is a line.
#[cfg(target_os = "linux")]
fn write_capture(path: &str, events: &[(u32, Kind)]) {
    write_capture_at(path, events, |_| 1);
}

/// Writes a capture whose events have the times of their connections, in nanoseconds.
fn write_capture_at(path: &str, events: &[(u32, Kind)], at_ns: fn(u32) -> u64) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = CaptureWriter::new(file, &WriterOptions::default()).unwrap();
    let info = ConnectionInfo { protocol: Protocol::Tcp, ..ConnectionInfo::default() }.encode();
    for (connection, kind) in events.iter().copied() {
        let (position, lines, direction, flags) = (0, 0, Direction::In, 0);
        let (mono_ns, wall_ns) = (at_ns(connection), at_ns(connection) as i64);
        #[rustfmt::skip]
        let head = Head { position, lines, mono_ns, wall_ns, connection, direction, kind, flags };
        let payload = match kind {
            Kind::Open => &info[..],
            Kind::Data => b"line\n",
            _ => b"",
        };
        writer.append(&head, payload).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn a_replay_of_nothing_is_an_error() {
    let (scratch, (server, seen)) = (Scratch::new("replay-nothing"), serve());
    let (to, path) = (server.to_string(), scratch.path("one.capture"));
    let proxy = Listening::start(&["capture", "--listen", "127.0.0.1:0", "--to", &to, "-o", &path]);
    let mut client = TcpStream::connect(proxy.at).unwrap();
    writeln!(client, "line").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_string(&mut String::new()).unwrap();
    take(&seen, 1);
    proxy.stop();
    for wrong in [&["--from", "2100-01-01T00:00:00Z"][..], &["--connection", "9"]] {
        let output =
            millstream().args(["replay", &path, "--to", &to]).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("CAPTURE_SELECTS_NOTHING"), "{}", text(&output));
    }
    let output = millstream().args(["replay", &path, "--to", &to, "--loop", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    // All data is damaged, so nothing of it can be replayed.
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|bytes| bytes == b"line\n").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output =
        millstream().args(["replay", &path, "--to", &to, "--direction", "in"]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let [damage, nothing] = ["CAPTURE_DAMAGED", "no data of the capture"].map(|s| said.find(s));
    assert!(damage.is_some() && damage < nothing, "{said}");
}
