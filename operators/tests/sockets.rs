//! Real sockets: lines in, lines out, and failures.
#![cfg(feature = "sql")]

mod ports;
mod waiting;

use millstream::engine::env::random::SplitMix;
use millstream::session::{Session, StreamingQuery, Totals, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use ports::free_port;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 5_000_000 };

fn quiet() -> Config {
    Config { pin: false, wait: WaitProfile::Park, ..Config::default() }
}

/// A query over lines from a socket that this test feeds.
fn over_socket(
    session: &Session,
    options: &[(&str, &str)],
    sql: &str,
    mode: &str,
    trigger: Trigger,
) -> (StreamingQuery, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut reader =
        session.read_stream().format("socket").option("host", "127.0.0.1").option("port", port);
    for (key, value) in options {
        reader = reader.option(key, value);
    }
    reader.load().unwrap().create_temp_view("lines");
    let writer = session.sql(sql).unwrap().write_stream().output_mode(mode).format("memory");
    let query = writer.query_name("out").trigger(trigger).config(quiet()).start().unwrap();
    (query, listener)
}

/// Waits for a condition that must become true.
fn until(query: &StreamingQuery, what: &str, mut reached: impl FnMut(&Totals) -> bool) {
    let start = Instant::now();
    while !reached(&query.totals()) {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "never came: {what}; {:?}",
            query.exception()
        );
        std::thread::yield_now();
    }
}

fn values(session: &Session) -> Vec<String> {
    let rows = session.table("out").unwrap().rows().into_iter();
    rows.map(|row| match row.into_iter().next() {
        Some(Value::String(text)) => text,
        other => panic!("{other:?}"),
    })
    .collect()
}

#[test]
fn lines_arrive_whole_however_writes_split_them() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let session = Session::new();
        let (query, listener) = over_socket(
            &session,
            &[("atEnd", "stop")],
            "SELECT value FROM lines",
            "append",
            trigger,
        );
        let (mut sender, _) = listener.accept().unwrap();
        // The pieces are cut within a line end, within a line and within a character.
        for piece in [&b"one\r\nt"[..], b"wo\r", b"\n\nfour \xc3", b"\xa9\nlast without end"] {
            sender.write_all(piece).unwrap();
        }
        drop(sender);
        query.await_termination().unwrap();
        assert_eq!(
            values(&session),
            ["one", "two", "", "four é", "last without end"],
            "{trigger:?}"
        );
    }
}

#[test]
fn a_lone_carriage_return_ends_a_line_at_once() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let session = Session::new();
        let options = [("atEnd", "stop")];
        let (query, listener) =
            over_socket(&session, &options, "SELECT value FROM lines", "append", trigger);
        let (mut sender, _) = listener.accept().unwrap();
        sender.write_all(b"one\rtwo\r").unwrap();
        until(&query, "the line whose end may still become \\r\\n", |t| t.records_in == 2);
        // The first byte belongs to the line end before it. The other bytes contain complete line
        // ends.
        sender.write_all(b"\n").unwrap();
        sender.write_all(b"three\r\n\rfive\n\r\nseven\r").unwrap();
        drop(sender);
        query.await_termination().unwrap();
        let lines = ["one", "two", "three", "", "five", "", "seven"];
        assert_eq!(values(&session), lines, "{trigger:?}");
    }
}

#[test]
fn with_line_feeds_alone_a_carriage_return_is_part_of_its_line() {
    let session = Session::new();
    let options = [("atEnd", "stop"), ("lineSep", "\\n")];
    let (query, listener) =
        over_socket(&session, &options, "SELECT value FROM lines", "append", CONTINUOUS);
    let (mut sender, _) = listener.accept().unwrap();
    sender.write_all(b"one\rtwo\r\nthree\r").unwrap();
    drop(sender);
    query.await_termination().unwrap();
    assert_eq!(values(&session), ["one\rtwo\r", "three\r"]);
    let reader = session.read_stream().format("socket").option("host", "h").option("port", 1);
    let error = reader.option("lineSep", ";").load().err().unwrap();
    assert_eq!(error.condition, "INVALID_OPTION_VALUE");
}

#[test]
fn bad_lines_are_rejected_and_nothing_else_is_lost() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let session = Session::new();
        let options = [("atEnd", "stop"), ("maxLineLength", "1000")];
        let (query, listener) =
            over_socket(&session, &options, "SELECT value FROM lines", "append", trigger);
        let (mut sender, _) = listener.accept().unwrap();
        sender.write_all(b"good 1\n\xff\xfe broken\n").unwrap();
        sender.write_all(&[b'x'; 1_001]).unwrap();
        sender.write_all(b"\ngood 2\n").unwrap();
        // The line is much longer than any buffer, so it must not be buffered.
        for _ in 0..300 {
            sender.write_all(&[b'y'; 10_000]).unwrap();
        }
        sender.write_all(b"\ngood 3\n").unwrap();
        sender.write_all(&[b'z'; 1_000]).unwrap();
        sender.write_all(b"\n").unwrap();
        drop(sender);
        query.await_termination().unwrap();
        let values = values(&session);
        assert_eq!(values[..3], ["good 1", "good 2", "good 3"]);
        assert_eq!((values.len(), values[3].len()), (4, 1_000), "just the limit is not too long");
        let progress = query.totals();
        assert_eq!(progress.bad_records, 3);
        let reasons: Vec<_> = progress
            .last_bad_records
            .iter()
            .map(|bad| (bad.offset, bad.length, bad.reason))
            .collect();
        assert_eq!(reasons[0], (7, 9, "not UTF-8"));
        assert_eq!(reasons[1].1, 1_001);
        assert_eq!(reasons[2].1, 3_000_000);
        assert_eq!(progress.last_bad_records[0].bytes, b"\xff\xfe broken");
        assert_eq!(
            progress.last_bad_records[2].bytes, [b'y'; 256],
            "the beginning of the longest, too"
        );
    }
}

#[test]
fn random_bytes_lose_no_good_line() {
    let session = Session::new();
    let options = [("atEnd", "stop"), ("maxLineLength", "200")];
    let sql = "SELECT value FROM lines WHERE startswith(value, 'good-')";
    let (query, listener) = over_socket(&session, &options, sql, "append", CONTINUOUS);
    let (mut sender, _) = listener.accept().unwrap();
    let mut seed = 12345u64;
    for n in 0..500 {
        let mut noise = Vec::new();
        for _ in 0..n {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            noise.push((seed >> 56) as u8);
        }
        noise.push(b'\n');
        sender.write_all(&noise).unwrap();
        writeln!(sender, "good-{n}").unwrap();
    }
    drop(sender);
    query.await_termination().unwrap();
    let expected: Vec<_> = (0..500).map(|n| format!("good-{n}")).collect();
    assert_eq!(values(&session), expected);
    assert!(query.totals().bad_records > 0);
}

#[test]
fn a_lost_peer_is_reconnected_and_its_unfinished_line_rejected() {
    let session = Session::new();
    let options = [("atEnd", "reconnect")];
    let (query, listener) =
        over_socket(&session, &options, "SELECT value FROM lines", "append", CONTINUOUS);
    let (mut first, _) = listener.accept().unwrap();
    first.write_all(b"before\nhalf a li").unwrap();
    until(&query, "the first line", |progress| progress.records_in == 1);
    drop(first);
    let (mut second, _) = listener.accept().unwrap();
    second.write_all(b"after\n").unwrap();
    until(&query, "the line after", |progress| progress.records_in == 2);
    query.process_all_available().unwrap();
    assert_eq!(values(&session), ["before", "after"]);
    assert_eq!(query.totals().last_bad_records[0].reason, "connection ended within a line");
    query.stop().unwrap();
}

#[test]
fn an_unfinished_line_before_a_reset_is_rejected_also_in_its_recording() {
    let path = std::env::temp_dir().join(format!("millstream-reset-{}", std::process::id()));
    drop(std::fs::remove_file(&path));
    let record = path.display().to_string();
    let session = Session::new();
    let options = [("record", record.as_str()), ("atEnd", "stop")];
    let sql = "SELECT value FROM lines";
    let (query, listener) = over_socket(&session, &options, sql, "append", CONTINUOUS);
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"whole\nhalf a li").unwrap();
    until(&query, "the first line", |progress| progress.records_in == 1);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    query.await_termination().unwrap();
    assert_eq!(values(&session), ["whole"]);
    assert_eq!(query.totals().last_bad_records[0].reason, "connection ended within a line");
    drop(query);
    let session = Session::new();
    let reader = session.read_stream().format("capture").option("path", &record);
    reader.load().unwrap().create_temp_view("lines");
    let writer = session.sql(sql).unwrap().write_stream().format("memory");
    let query = writer.query_name("out").trigger(CONTINUOUS).config(quiet()).start().unwrap();
    query.await_termination().unwrap();
    assert_eq!(values(&session), ["whole"]);
    std::fs::remove_file(&path).unwrap();
}

/// A source that counts only the records of committed epochs, such as Kafka, beside one that counts
/// them as they are read.
#[test]
fn records_of_sources_that_count_differently_are_added_up() {
    let session = Session::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let reader = session.read_stream().format("socket").option("host", "127.0.0.1");
    reader.option("port", port).load().unwrap().create_temp_view("lines");
    let stream = session.memory_stream("others", "value STRING").unwrap();
    let both = session.sql("SELECT value FROM lines UNION ALL SELECT value FROM others").unwrap();
    let writer = both.write_stream().format("memory").query_name("out");
    let trigger = Trigger::Continuous { interval_ns: u64::MAX / 4 };
    let query = writer.trigger(trigger).config(quiet()).start().unwrap();
    let (mut sender, _) = listener.accept().unwrap();
    stream.add((0..7).map(|n| vec![Value::String(n.to_string())]));
    query.process_all_available().unwrap();
    sender.write_all(b"a\nb\n").unwrap();
    until(&query, "the lines of an epoch that is not committed", |totals| totals.records_in == 9);
    query.stop().unwrap();
}

#[test]
fn a_query_keeps_running_when_the_peer_disconnects_as_in_spark() {
    let session = Session::new();
    let (query, listener) =
        over_socket(&session, &[], "SELECT value FROM lines", "append", CONTINUOUS);
    let (mut sender, _) = listener.accept().unwrap();
    sender.write_all(b"only\n").unwrap();
    drop(sender);
    until(&query, "the line", |progress| progress.records_in == 1);
    query.process_all_available().unwrap();
    assert!(query.exception().is_none());
    assert!(query.is_active());
    query.stop().unwrap();
}

#[test]
fn listening_source_and_listening_sink_serve_one_client_after_another() {
    let (session, input, output) = (Session::new(), free_port(), free_port());
    let reader =
        session.read_stream().format("socket").option("host", "127.0.0.1").option("mode", "listen");
    reader
        .option("port", input)
        .option("includeTimestamp", true)
        .load()
        .unwrap()
        .create_temp_view("lines");
    let writer = session
        .sql("SELECT upper(value) AS v, timestamp > TIMESTAMP '2020-01-01' AS late FROM lines")
        .unwrap()
        .write_stream();
    let writer = writer.format("socket").option("host", "127.0.0.1").option("port", output);
    let writer = writer.option("mode", "listen").option("format", "json").trigger(CONTINUOUS);
    let query = writer.config(quiet()).start().unwrap();
    let results = TcpStream::connect(("127.0.0.1", output)).unwrap();
    let mut results = BufReader::new(results);
    for client in ["a", "b"] {
        let mut sender = TcpStream::connect(("127.0.0.1", input)).unwrap();
        writeln!(sender, "{client}").unwrap();
        let mut line = String::new();
        results.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{{\"v\":\"{}\",\"late\":true}}\n", client.to_uppercase()));
    }
    query.stop().unwrap();
    assert_eq!(results.read(&mut [0; 1]).unwrap(), 0, "the sink closes at the end");
}

#[test]
fn a_slow_receiver_holds_the_sender_back_and_loses_nothing() {
    let (session, sink) = (Session::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, out) = (listener.local_addr().unwrap().port(), sink.local_addr().unwrap().port());
    let reader =
        session.read_stream().format("socket").option("host", "127.0.0.1").option("port", port);
    reader.option("atEnd", "stop").load().unwrap().create_temp_view("lines");
    session.set("millstream.parallelism", "2").unwrap();
    let sql = "SELECT k, count(*) AS c FROM (SELECT length(value) % 3 AS k FROM lines) GROUP BY k";
    let writer = session.sql(sql).unwrap().write_stream().output_mode("update").format("socket");
    let writer = writer.option("host", "127.0.0.1").option("port", out).option("format", "csv");
    let query = writer.trigger(CONTINUOUS).config(quiet()).start().unwrap();
    let (mut sender, _) = listener.accept().unwrap();
    let (receiver, _) = sink.accept().unwrap();
    const LINES: usize = 200_000;
    // The lines are meant to exceed all buffers on their way, so that the sender must wait for the
    // receiver.
    let feeder = std::thread::spawn(move || {
        let line = [b'x'; 100];
        for n in 0..LINES {
            let mut line = line[..n % 100].to_vec();
            line.push(b'\n');
            sender.write_all(&line).unwrap();
        }
    });
    let mut counts = std::collections::HashMap::new();
    for line in BufReader::new(receiver).lines().take(LINES) {
        let line = line.unwrap();
        let (key, count) = line.split_once(',').unwrap();
        let before = counts.insert(key.to_string(), count.parse::<usize>().unwrap()).unwrap_or(0);
        assert_eq!(counts[key], before + 1, "each update once and in order");
    }
    assert_eq!(counts.values().sum::<usize>(), LINES);
    feeder.join().unwrap();
    query.await_termination().unwrap();
}

#[test]
fn a_socket_that_cannot_be_opened_is_an_error_at_start() {
    let start = |port: u16, host: &str, mode: &str| {
        let session = Session::new();
        let reader =
            session.read_stream().format("socket").option("host", host).option("port", port);
        let frame = reader.option("mode", mode).load().unwrap();
        match frame.write_stream().format("noop").config(quiet()).start() {
            Ok(_) => panic!("started"),
            Err(error) => error.to_string(),
        }
    };
    let refused = start(free_port(), "127.0.0.1", "connect");
    assert!(refused.starts_with("SOCKET_SOURCE_FAILED") && refused.contains("nc -lk"), "{refused}");
    let unknown = start(1, "no-such-host.invalid", "connect");
    assert!(unknown.contains("no-such-host.invalid") && unknown.contains("host name"), "{unknown}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = start(taken.local_addr().unwrap().port(), "127.0.0.1", "listen");
    assert!(in_use.contains("Another program uses this port"), "{in_use}");
}

#[test]
fn a_query_that_stops_does_not_wait_for_a_receiver_for_ever() {
    let session = Session::new();
    let input = session.memory_stream("events", "word STRING").unwrap();
    input.add(["a", "b"].map(|word| vec![Value::String(word.into())]));
    let query = session
        .sql("SELECT word FROM events")
        .unwrap()
        .write_stream()
        .format("socket")
        .option("host", "127.0.0.1")
        .option("port", free_port())
        .option("mode", "listen")
        .trigger(Trigger::AvailableNow)
        .config(quiet())
        .start()
        .unwrap();
    let message = || query.status().message;
    waiting::until("the batch", message, |message| message == "Processing new data");
    let error = query.stop().expect_err("nobody takes the lines");
    assert_eq!(error.condition(), "SOCKET_SINK_UNDELIVERED");
    assert!(error.to_string().contains("2 lines"), "{error}");
}

#[test]
fn a_recording_that_rotates_and_is_compressed_gives_the_same_lines_again() {
    let folder = std::env::temp_dir().join(format!("millstream-rotated-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir(&folder).unwrap();
    let record = folder.join("lines.capture").display().to_string();
    let compression = if cfg!(feature = "compression") { "zstd" } else { "none" };
    let mut all = Vec::new();
    // The second query finds the files of the first one.
    for start in 0..2 {
        let session = Session::new();
        let options = [
            ("record", record.as_str()),
            ("recordRotateBytes", "65536"),
            ("recordRotateInterval", "1 hour"),
            ("recordCompression", compression),
            ("atEnd", "stop"),
        ];
        let sql = "SELECT value FROM lines";
        let (query, listener) = over_socket(&session, &options, sql, "append", CONTINUOUS);
        let (mut peer, _) = listener.accept().unwrap();
        let mut noise = SplitMix(start);
        for n in 0..20_000 {
            // Lines that do not become much smaller.
            writeln!(peer, "{start} line {n} {:x} {:x}", noise.next(), noise.next()).unwrap();
        }
        drop(peer);
        query.await_termination().unwrap();
        let (lines, counts) = (values(&session), query.totals().connections.unwrap());
        assert_eq!((lines.len(), counts.record_dropped), (20_000, 0));
        all.extend(lines);
    }
    let names = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    for first in ["lines.00000.capture", "lines.00001.capture", "lines.2.00001.capture"] {
        assert!(names.iter().any(|name| name == first), "{first}: {names:?}");
    }
    let session = Session::new();
    let path = folder.display().to_string();
    session
        .read_stream()
        .format("capture")
        .option("path", &path)
        .load()
        .unwrap()
        .create_temp_view("lines");
    let writer = session.sql("SELECT value FROM lines").unwrap().write_stream().format("memory");
    let query = writer.query_name("out").trigger(CONTINUOUS).config(quiet()).start().unwrap();
    query.await_termination().unwrap();
    assert!(values(&session) == all, "the recordings have other lines");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_recorded_source_gives_the_same_lines_again() {
    let path = std::env::temp_dir().join(format!("millstream-recorded-{}", std::process::id()));
    drop(std::fs::remove_file(&path));
    let record = path.display().to_string();
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let session = Session::new();
        let options = [("record", record.as_str()), ("atEnd", "stop")];
        let sql = "SELECT value FROM lines";
        let (query, listener) = over_socket(&session, &options, sql, "append", trigger);
        let (mut peer, _) = listener.accept().unwrap();
        for n in 0..20_000 {
            write!(peer, "line {n}\r\n{}", if n % 7 == 0 { "\n" } else { "" }).unwrap();
        }
        peer.write_all(b"not ended").unwrap();
        drop(peer);
        query.await_termination().unwrap();
        let (lines, counts) = (values(&session), query.totals().connections.unwrap());
        assert_eq!(lines.len(), 20_000 + 20_000 / 7 + 2);
        drop(query);
        assert_eq!((counts.record_dropped, counts.record_dropped_bytes), (0, 0));

        let session = Session::new();
        let reader = session.read_stream().format("capture").option("path", &record);
        reader.load().unwrap().create_temp_view("lines");
        let writer = session.sql(sql).unwrap().write_stream().format("memory");
        let query = writer.query_name("out").trigger(trigger).config(quiet()).start().unwrap();
        query.await_termination().unwrap();
        assert!(values(&session) == lines, "the recording has other lines");
        std::fs::remove_file(&path).unwrap();
    }
}
