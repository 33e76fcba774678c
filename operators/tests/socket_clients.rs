//! A listening source with many clients, over TCP and Unix sockets, and datagrams.
#![cfg(feature = "sql")]

mod ports;

use millstream::connect::socket::connection_counts::ConnectionTotals;
use millstream::session::{Session, StreamingQuery, Totals, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use ports::free_port;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 5_000_000 };
const TRIGGERS: [Trigger; 2] = [CONTINUOUS, Trigger::AsSoonAsPossible];

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("ms-clients-{}-{number}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A query over the lines of a socket with these options.
fn start(
    session: &Session,
    options: &[(&str, &str)],
    sql: &str,
    trigger: Trigger,
    checkpoint: Option<&str>,
) -> StreamingQuery {
    let mut reader = session.read_stream().format("socket");
    for (key, value) in options {
        reader = reader.option(key, value);
    }
    reader.load().unwrap().create_temp_view("lines");
    let mut writer = session.sql(sql).unwrap().write_stream().format("memory").query_name("out");
    if let Some(folder) = checkpoint {
        writer = writer.option("checkpointLocation", folder);
    }
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    writer.trigger(trigger).config(config).start().unwrap()
}

/// A query over the lines of the clients of a port.
fn listening(
    session: &Session,
    port: u16,
    options: &[(&str, &str)],
    trigger: Trigger,
) -> StreamingQuery {
    let port = port.to_string();
    let mut all = vec![("mode", "listen"), ("host", "127.0.0.1"), ("port", port.as_str())];
    all.extend(options);
    start(session, &all, "SELECT value FROM lines", trigger, None)
}

/// Waits for a condition that must become true.
fn until(query: &StreamingQuery, what: &str, mut reached: impl FnMut(&Totals) -> bool) {
    let start = Instant::now();
    while !reached(&query.totals()) {
        let late = start.elapsed() > Duration::from_secs(120);
        let totals = query.totals();
        assert!(
            !late,
            "never came: {what}; {:?}, {:?}, {} records",
            query.exception(),
            totals.connections,
            totals.records_in
        );
        std::thread::yield_now();
    }
}

fn connections(query: &StreamingQuery) -> ConnectionTotals {
    query.totals().connections.unwrap()
}

fn values(session: &Session) -> Vec<String> {
    let rows = session.table("out").unwrap().rows().into_iter();
    rows.map(|row| match row.into_iter().next() {
        Some(Value::String(text)) => text,
        other => panic!("{other:?}"),
    })
    .collect()
}

/// The lines `CLIENT NUMBER` of each client, in order of arrival.
fn by_client(values: &[String]) -> BTreeMap<usize, Vec<usize>> {
    let mut found = BTreeMap::<usize, Vec<usize>>::new();
    for value in values {
        let (client, number) = value.split_once(' ').unwrap();
        found.entry(client.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    found
}

#[test]
fn the_lines_of_each_client_are_whole_and_in_order() {
    for trigger in TRIGGERS {
        let (session, port) = (Session::new(), free_port());
        let query = listening(&session, port, &[], trigger);
        let mut clients: Vec<_> =
            (0..50).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        for round in 0..20 {
            for (number, client) in clients.iter_mut().enumerate() {
                // The write ends within a line, so that each client has an unfinished line.
                write!(client, "{round}\n{number} ").unwrap();
            }
        }
        drop(clients);
        until(&query, "every line", |totals| totals.records_in == 1_000);
        until(&query, "every end", |totals| totals.connections.unwrap().closed_by_peer == 50);
        query.process_all_available().unwrap();
        let mut values = values(&session);
        // The first line of a client does not contain its name.
        values.retain(|value| value.contains(' '));
        let expected: Vec<_> = (1..20).collect();
        let found = by_client(&values);
        assert_eq!(found.len(), 50);
        assert!(found.values().all(|numbers| *numbers == expected), "{trigger:?}: {found:?}");
        let totals = query.totals();
        assert_eq!((connections(&query).accepted, connections(&query).open), (50, 0));
        assert_eq!(totals.bad_records, 50, "the half lines");
        let report = query.last_progress().unwrap().to_json();
        assert_eq!(report["sources"][0]["metrics"]["connectionsAccepted"], "50", "{report}");
        query.stop().unwrap();
    }
}

#[test]
fn ten_thousand_clients_come_and_go() {
    let (session, port) = (Session::new(), free_port());
    let query = listening(&session, port, &[], CONTINUOUS);
    for client in 0..10_000 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        writeln!(stream, "{client} 0").unwrap();
    }
    until(&query, "every line", |totals| totals.records_in == 10_000);
    until(&query, "every end", |totals| totals.connections.unwrap().open == 0);
    query.process_all_available().unwrap();
    assert_eq!(by_client(&values(&session)).len(), 10_000);
    let found = connections(&query);
    assert_eq!((found.accepted, found.closed_by_peer, found.refused), (10_000, 10_000, 0));
    query.stop().unwrap();
}

#[test]
fn a_thousand_clients_are_open_at_once() {
    for parts in ["1", "3"] {
        let (session, port) = (Session::new(), free_port());
        session.set("millstream.parallelism", "2").unwrap();
        let query = listening(&session, port, &[("numPartitions", parts)], CONTINUOUS);
        let connect = |_| TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut clients: Vec<_> = (0..1_000).map(connect).collect();
        until(&query, "every client", |totals| totals.connections.unwrap().open == 1_000);
        for number in 0..10 {
            for (client, stream) in clients.iter_mut().enumerate() {
                writeln!(stream, "{client} {number}").unwrap();
            }
        }
        until(&query, "every line", |totals| totals.records_in == 10_000);
        query.process_all_available().unwrap();
        let found = by_client(&values(&session));
        assert_eq!(found.len(), 1_000);
        let expected: Vec<_> = (0..10).collect();
        assert!(found.values().all(|numbers| *numbers == expected), "{parts} parts");
        drop(clients);
        until(&query, "every end", |totals| totals.connections.unwrap().open == 0);
        query.stop().unwrap();
    }
}

#[test]
fn a_slow_client_holds_up_no_other() {
    let (session, port) = (Session::new(), free_port());
    let query = listening(&session, port, &[("maxLineLength", "100000")], CONTINUOUS);
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut slow, _silent, mut quick) = (connect(), connect(), connect());
    for n in 0..1_000 {
        // The slow client sends one byte of an unfinished line per turn.
        slow.write_all(b"x").unwrap();
        writeln!(quick, "{n}").unwrap();
        until(&query, "the line of the quick one", |totals| totals.records_in == n + 1);
    }
    slow.write_all(b"\n").unwrap();
    until(&query, "the line of the slow one", |totals| totals.records_in == 1_001);
    query.process_all_available().unwrap();
    assert_eq!(values(&session).last().unwrap().len(), 1_000);
    query.stop().unwrap();
}

#[test]
fn a_client_that_sends_without_end_leaves_room_for_others() {
    let (session, port) = (Session::new(), free_port());
    let text = port.to_string();
    let options = [("mode", "listen"), ("host", "127.0.0.1"), ("port", text.as_str())];
    let sql = "SELECT value FROM lines WHERE value LIKE 'modest%'";
    let query = start(&session, &options, sql, CONTINUOUS, None);
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut greedy = connect();
    let stop = greedy.try_clone().unwrap();
    let feeder = std::thread::spawn(move || {
        let lines = "greedy\n".repeat(1 << 14);
        while greedy.write_all(lines.as_bytes()).is_ok() {}
    });
    let mut modest = connect();
    for n in 1..=20 {
        writeln!(modest, "modest {n}").unwrap();
        until(&query, "the modest line", |_| values(&session).len() == n);
    }
    stop.shutdown(std::net::Shutdown::Both).unwrap();
    feeder.join().unwrap();
    query.stop().unwrap();
}

#[test]
fn a_bad_line_harms_only_its_own_client() {
    for trigger in TRIGGERS {
        let (session, port) = (Session::new(), free_port());
        let options = [("maxLineLength", "1000"), ("maxUnfinishedBytes", "1500")];
        let query = listening(&session, port, &options, trigger);
        let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut clients = [connect(), connect(), connect(), connect()];
        let [broken, long, half, good] = &mut clients;
        good.write_all(b"good begins").unwrap();
        broken.write_all(b"\xff\xfe\nbroken goes on\n").unwrap();
        long.write_all(&[b'x'; 50_000]).unwrap();
        half.write_all(&[b'h'; 900]).unwrap();
        until(&query, "the line behind the broken one", |totals| totals.records_in == 1);
        long.write_all(b"\nlong goes on\n").unwrap();
        until(&query, "the line behind the long one", |totals| totals.records_in == 2);
        // All unfinished lines together now exceed their limit, so the longest is rejected.
        long.write_all(&[b'l'; 700]).unwrap();
        good.write_all(b" and ends\n").unwrap();
        until(&query, "the good line", |totals| totals.records_in == 3);
        half.write_all(b"\nhalf goes on\n").unwrap();
        until(&query, "the line behind the half one", |totals| totals.records_in == 4);
        long.write_all(b"\n").unwrap();
        until(&query, "the other long line", |totals| totals.records_in == 5);
        query.process_all_available().unwrap();
        let mut found = values(&session);
        assert_eq!(found.pop().map(|line| line.len()), Some(700));
        assert_eq!(found[2], "good begins and ends");
        let bad = query.totals().last_bad_records;
        let reasons: Vec<_> = bad.iter().map(|bad| (bad.length, bad.reason)).collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert_eq!(reasons[0], (2, "not UTF-8"));
        assert_eq!(reasons[1], (50_000, "line longer than maxLineLength"));
        assert_eq!(reasons[2].0, 900);
        assert!(reasons[2].1.contains("maxUnfinishedBytes"));
        query.stop().unwrap();
    }
}

#[test]
fn clients_beyond_the_limit_are_closed_at_once_and_counted() {
    let (session, port) = (Session::new(), free_port());
    let query = listening(&session, port, &[("maxConnections", "3")], CONTINUOUS);
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut served: Vec<_> = (0..3).map(|_| connect()).collect();
    until(&query, "three clients", |totals| totals.connections.unwrap().open == 3);
    for _ in 0..5 {
        assert_eq!(connect().read(&mut [0; 1]).unwrap_or(0), 0, "closed at once");
    }
    assert_eq!(connections(&query).refused, 5);
    served.pop();
    until(&query, "room for another", |totals| totals.connections.unwrap().open == 2);
    served.push(connect());
    served.iter_mut().for_each(|client| client.write_all(b"line\n").unwrap());
    until(&query, "their lines", |totals| totals.records_in == 3);
    query.stop().unwrap();
}

#[test]
fn a_reset_within_a_line_ends_that_connection_alone() {
    let (session, port) = (Session::new(), free_port());
    let query = listening(&session, port, &[], CONTINUOUS);
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut broken, mut other) = (connect(), connect());
    broken.write_all(b"whole\nhal").unwrap();
    until(&query, "the whole line", |totals| totals.records_in == 1);
    // Closing with a linger time of zero resets the connection.
    socket2::SockRef::from(&broken).set_linger(Some(Duration::ZERO)).unwrap();
    drop(broken);
    until(&query, "the reset", |totals| totals.connections.unwrap().reset == 1);
    other.write_all(b"other\n").unwrap();
    until(&query, "the other's line", |totals| totals.records_in == 2);
    let totals = query.totals();
    assert_eq!((totals.bad_records, totals.last_bad_records[0].length), (1, 3));
    assert_eq!(connections(&query).open, 1);
    query.stop().unwrap();
}

#[test]
fn a_client_that_falls_silent_is_closed_after_the_timeout() {
    for trigger in TRIGGERS {
        let (session, port) = (Session::new(), free_port());
        let query = listening(&session, port, &[("idleTimeout", "50ms")], trigger);
        let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
        // One client falls silent within a line, the other sends nothing.
        let mut clients = [connect(), connect()];
        clients[0].write_all(b"line\nhalf").unwrap();
        until(&query, "both are timed out", |totals| totals.connections.unwrap().timed_out == 2);
        for client in &mut clients {
            assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0, "closed");
        }
        assert_eq!(query.totals().records_in, 1);
        assert_eq!(query.totals().last_bad_records[0].reason, "connection ended within a line");
        query.stop().unwrap();
    }
}

#[test]
fn a_listener_that_stops_does_so_when_the_last_client_has_left() {
    for trigger in TRIGGERS {
        for parts in ["1", "2"] {
            let (session, port) = (Session::new(), free_port());
            let options = [("atEnd", "stop"), ("numPartitions", parts)];
            let query = listening(&session, port, &options, trigger);
            let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut first, mut last) = (connect(), connect());
            until(&query, "both", |totals| totals.connections.unwrap().open == 2);
            first.write_all(b"first\n").unwrap();
            drop(first);
            until(&query, "one has left", |totals| totals.connections.unwrap().open == 1);
            last.write_all(b"last\nhalf").unwrap();
            drop(last);
            query.await_termination().unwrap();
            let mut found = values(&session);
            found.sort();
            assert_eq!(found, ["first", "last"], "{trigger:?}, {parts} parts");
        }
    }
}

/// A sender that receives the number of its persisted lines.
struct Sender {
    client: usize,
    /// Number of acknowledged lines, over all its connections.
    kept: usize,
    stream: BufReader<TcpStream>,
    /// Number of lines that were acknowledged before this connection.
    before: usize,
}

impl Sender {
    fn connect(client: usize, kept: usize, port: u16) -> Self {
        let stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
        let mut sender = Self { client, kept, stream, before: kept };
        assert_eq!(sender.acknowledged(), 0, "a new connection");
        sender
    }

    fn acknowledged(&mut self) -> usize {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    /// Sends lines up to a number, and waits until they are acknowledged.
    fn send_up_to(&mut self, end: usize) {
        let lines: String = (self.kept..end).map(|n| format!("{} {n}\n", self.client)).collect();
        self.stream.get_mut().write_all(lines.as_bytes()).unwrap();
        while self.kept < end {
            self.kept = self.before + self.acknowledged();
        }
    }
}

#[test]
fn acknowledged_lines_of_many_senders_are_neither_lost_nor_duplicated() {
    for trigger in TRIGGERS {
        let (scratch, port) = (Scratch::new(), free_port());
        let text = port.to_string();
        let options = [
            ("mode", "listen"),
            ("host", "127.0.0.1"),
            ("port", text.as_str()),
            ("durable", "true"),
            ("acknowledge", "true"),
        ];
        let session = Session::new();
        let sql = "SELECT IF(value = 'end', raise_error('it ends'), value) AS value FROM lines";
        let folder = scratch.path("checkpoint");
        let query = start(&session, &options, sql, trigger, Some(&folder));
        let mut senders: Vec<_> = (0..20).map(|n| Sender::connect(n, 0, port)).collect();
        for end in [1, 7, 100] {
            senders.iter_mut().for_each(|sender| sender.send_up_to(end));
        }
        // Sends a partial line, which is not acknowledged and is sent again.
        senders[3].stream.get_mut().write_all(b"3 10").unwrap();
        let mut last = TcpStream::connect(("127.0.0.1", port)).unwrap();
        last.write_all(b"end\n").unwrap();
        query.await_termination().unwrap_err();
        let before = session.table("out").unwrap().rows().len();
        let committed = query.totals().records_in;
        drop((query, last));

        let session = Session::new();
        let sql = "SELECT value FROM lines WHERE value <> 'end'";
        let query = start(&session, &options, sql, trigger, Some(&folder));
        let kept: Vec<_> = senders.into_iter().map(|sender| sender.kept).collect();
        let connect = |(client, kept)| Sender::connect(client, kept, port);
        let mut senders: Vec<_> = kept.into_iter().enumerate().map(connect).collect();
        senders.iter_mut().for_each(|sender| sender.send_up_to(150));
        until(&query, "the last line", |_| {
            values(&session).iter().filter(|value| value.ends_with(" 149")).count() == 20
        });
        query.process_all_available().unwrap();
        let found = by_client(&values(&session));
        for (client, numbers) in &found {
            // Lines that an earlier run has committed are not emitted again.
            let expected: Vec<_> = (numbers[0]..150).collect();
            assert_eq!(*numbers, expected, "client {client}, {trigger:?}: {before}, {committed}");
            assert!(numbers[0] <= 100);
        }
        assert_eq!(found.len(), 20);
        query.stop().unwrap();
    }
}

#[test]
fn a_datagram_is_a_record_or_lines() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 2] = [
        (&[], &["one", "two\nthree", "", "four"]),
        (&[("datagram", "lines")], &["one", "two", "three", "four"]),
    ];
    for (options, expected) in cases {
        for trigger in TRIGGERS {
            let (session, port) = (Session::new(), {
                let free = UdpSocket::bind("127.0.0.1:0").unwrap();
                free.local_addr().unwrap().port()
            });
            let all: Vec<_> = [("protocol", "udp"), ("maxLineLength", "1000")]
                .iter()
                .chain(options)
                .copied()
                .collect();
            let query = listening(&session, port, &all, trigger);
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.connect(("127.0.0.1", port)).unwrap();
            let long = [b'x'; 60_000];
            for datagram in [&b"one\n"[..], b"two\nthree", b"", b"\xff", &long, b"four\r\n"] {
                sender.send(datagram).unwrap();
            }
            let count = expected.len() as u64;
            until(&query, "every record", |totals| totals.records_in == count);
            query.process_all_available().unwrap();
            assert_eq!(values(&session), expected, "{options:?}, {trigger:?}");
            let totals = query.totals();
            let lengths: Vec<_> = totals.last_bad_records.iter().map(|bad| bad.length).collect();
            assert_eq!(lengths, [1, 60_000]);
            assert_eq!(totals.connections.unwrap().datagrams, 6);
            query.stop().unwrap();
        }
    }
}

/// While a query is between two batches, nobody reads its sockets, and the kernel drops datagrams.
/// The partitions of a source share a socket, whose datagrams count once.
#[cfg(target_os = "linux")]
#[test]
fn datagrams_dropped_at_several_sockets_are_added_up() {
    let session = Session::new();
    let ports = ["a", "b"].map(|view| {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let reader = session.read_stream().format("socket").option("protocol", "udp");
        let reader = reader.option("mode", "listen").option("host", "127.0.0.1");
        let reader = reader.option("port", port).option("receiveBufferBytes", 4096);
        reader.option("numPartitions", 2).load().unwrap().create_temp_view(view);
        port
    });
    let union = session.sql("SELECT value FROM a UNION ALL SELECT value FROM b").unwrap();
    let hourly = Trigger::ProcessingTime { interval_ns: 3_600_000_000_000 };
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let query = union.write_stream().format("noop").trigger(hourly).config(config).start().unwrap();
    let is_between = || query.status().message == "Waiting for next trigger";
    until(&query, "the first batch was planned", |_| is_between());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |port: u16, count: usize| {
        for _ in 0..count {
            sender.send_to(&[b'x'; 1000], ("127.0.0.1", port)).unwrap();
        }
    };
    send(ports[0], 200);
    let dropped = || connections(&query).datagrams_dropped;
    until(&query, "most of the first are dropped", |_| dropped() > 150);
    let first = dropped();
    assert!(first <= 200, "{first} of 200");
    send(ports[1], 100);
    until(&query, "most of the second are dropped", |_| dropped() > first + 50);
    assert!(dropped() <= first + 100, "{} of 300", dropped());
    query.stop().unwrap();
}

#[test]
fn datagrams_of_a_durable_source_come_again_after_a_failure() {
    let (scratch, port) = (Scratch::new(), free_port());
    let text = port.to_string();
    let options =
        [("protocol", "udp"), ("host", "127.0.0.1"), ("port", text.as_str()), ("durable", "true")];
    let folder = scratch.path("checkpoint");
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let session = Session::new();
    let hourly = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    let sql = "SELECT IF(value = 'end', raise_error('it ends'), value) AS value FROM lines";
    let query = start(&session, &options, sql, hourly, Some(&folder));
    for n in 0..100 {
        sender.send_to(format!("{n}\nof it").as_bytes(), ("127.0.0.1", port)).unwrap();
    }
    until(&query, "every datagram", |totals| totals.records_in == 100);
    sender.send_to(b"end", ("127.0.0.1", port)).unwrap();
    query.await_termination().unwrap_err();
    drop(query);
    let session = Session::new();
    let query = start(&session, &options, "SELECT value FROM lines", CONTINUOUS, Some(&folder));
    until(&query, "every datagram again", |totals| totals.records_in == 101);
    query.process_all_available().unwrap();
    let expected: Vec<_> = (0..100).map(|n| format!("{n}\nof it")).collect();
    assert_eq!(values(&session)[..100], expected);
    query.stop().unwrap();
}

#[test]
fn clients_of_a_unix_socket_are_served_like_those_of_tcp() {
    let scratch = Scratch::new();
    let path = scratch.path("lines.sock");
    // A killed process leaves such a socket file: no process listens on it.
    drop(UnixListener::bind(&path).unwrap());
    for trigger in TRIGGERS {
        let session = Session::new();
        let options = [("path", path.as_str()), ("mode", "listen")];
        let query = start(&session, &options, "SELECT value FROM lines", trigger, None);
        let mut clients: Vec<_> = (0..10).map(|_| UnixStream::connect(&path).unwrap()).collect();
        for number in 0..10 {
            for (client, stream) in clients.iter_mut().enumerate() {
                writeln!(stream, "{client} {number}").unwrap();
            }
        }
        until(&query, "every line", |totals| totals.records_in == 100);
        query.process_all_available().unwrap();
        let expected: Vec<_> = (0..10).collect();
        let found = by_client(&values(&session));
        assert!(found.len() == 10 && found.values().all(|numbers| *numbers == expected));
        query.stop().unwrap();
        drop(query);
        until_gone(&path);
    }
    std::fs::write(&path, "a file").unwrap();
    let session = Session::new();
    let reader = session.read_stream().format("socket").option("mode", "listen");
    let frame = reader.option("path", &path).load().unwrap();
    let error = frame.write_stream().format("noop").start().err().unwrap().to_string();
    assert!(error.contains("is not a socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

/// Waits until a socket file is removed. A worker removes it when it ends.
fn until_gone(path: &str) {
    let start = Instant::now();
    while std::path::Path::new(path).exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{path} stays");
        std::thread::yield_now();
    }
}

static NOTICES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn noted(part: &str) -> usize {
    NOTICES.lock().unwrap().iter().filter(|notice| notice.contains(part)).count()
}

#[test]
fn a_sender_that_is_not_there_yet_is_waited_for() {
    let (scratch, port) = (Scratch::new(), free_port());
    let (path, text) = (scratch.path("sender.sock"), port.to_string());
    let cases: [(&[(&str, &str)], &str); 2] =
        [(&[("host", "127.0.0.1"), ("port", &text)], &text), (&[("path", &path)], &path)];
    for (options, name) in cases {
        let session = Session::new();
        session.on_notice(|text| NOTICES.lock().unwrap().push(text.to_string()));
        let options: Vec<_> = options.iter().copied().chain([("atEnd", "reconnect")]).collect();
        let query = start(&session, &options, "SELECT value FROM lines", CONTINUOUS, None);
        assert_eq!((noted(name), noted("the source retries")), (1, 1));
        assert!(query.is_active());
        if name == path {
            let listener = UnixListener::bind(&path).unwrap();
            listener.accept().unwrap().0.write_all(b"line\n").unwrap();
        } else {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            listener.accept().unwrap().0.write_all(b"line\n").unwrap();
        }
        until(&query, "the line", |totals| totals.records_in == 1);
        assert_eq!(noted("connected to"), 1, "once: {:?}", NOTICES.lock().unwrap());
        query.stop().unwrap();
        NOTICES.lock().unwrap().clear();
    }
    // Without `atEnd 'reconnect'` the query does not start.
    let session = Session::new();
    let reader = session.read_stream().format("socket").option("path", scratch.path("none"));
    let frame = reader.load().unwrap();
    let error = frame.write_stream().format("noop").start().err().unwrap().to_string();
    assert!(error.contains("reconnect"), "{error}");
}
