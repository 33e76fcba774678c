//! From an incident to a test: a job gives the same rows for a recording as it gave for the
//! recorded traffic.

mod common;

use common::{Scratch, signal, until};
use millstream_engine::capture::{CaptureWriter, Direction, Head, Kind, WriterOptions};
use serde_json::{Value as Json, json};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};

/// Starts a command whose messages are written to a file.
fn start<'s>(scratch: &'s Scratch, name: &str, args: &[&str]) -> Running<'s> {
    let messages = File::create(scratch.path(name)).unwrap();
    let child = scratch.millstream(args).stdout(Stdio::null()).stderr(messages).spawn().unwrap();
    Running { scratch, messages: name.to_string(), child }
}

/// The rows of all files of a sink, one per line.
fn rows(scratch: &Scratch, folder: &str) -> String {
    let entries = std::fs::read_dir(scratch.file(folder)).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|end| end == "json"));
    files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// `millstream test` of the job passes.
fn passes(scratch: &Scratch, args: &[&str]) {
    let output = scratch.millstream(&["test", "job.sql"]).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
}

struct Running<'s> {
    scratch: &'s Scratch,
    messages: String,
    child: Child,
}

impl Running<'_> {
    fn messages(&self) -> String {
        self.scratch.read(&self.messages)
    }

    fn says(&self, part: &str) -> String {
        until(part, || self.messages().contains(part));
        self.messages()
    }

    /// Waits until the command has printed a message that contains `part`. Returns false if it has
    /// ended because its port is taken.
    fn says_or_port_is_taken(&mut self, part: &str) -> bool {
        until(part, || self.messages().contains(part) || self.child.try_wait().unwrap().is_some());
        let said = self.messages();
        assert!(said.contains(part) || said.contains("Address already in use"), "{said}");
        said.contains(part)
    }

    /// Ends the command as Ctrl-C does.
    fn stop(mut self) {
        signal(&self.child, "INT");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}", self.messages());
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A running query, and the ports on which its sources listen.
struct Query<'s> {
    running: Running<'s>,
    ports: Vec<u16>,
}

impl<'s> Query<'s> {
    /// Starts a job in which `$1`, `$2` are replaced by free ports. A port may be taken between its
    /// choice and the start of the job. In that case other ports are tried.
    fn start(scratch: &'s Scratch, sources: usize, sql: &str) -> Self {
        for _ in 0..20 {
            let listeners: Vec<_> =
                (0..sources).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let ports: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
            drop(listeners);
            let mut sql = sql.to_string();
            for (n, port) in ports.iter().enumerate() {
                sql = sql.replace(&format!("${}", n + 1), &port.to_string());
            }
            scratch.write("job.sql", &sql);
            let args = ["run", "job.sql", "--progress", "progress.jsonl"];
            let mut running = start(scratch, "query", &args);
            if running.says_or_port_is_taken("running ") {
                return Self { running, ports };
            }
        }
        panic!("every port is taken");
    }

    /// The sum of a number over all progress reports.
    fn sum(scratch: &Scratch, number: impl Fn(&Json) -> &Json) -> u64 {
        let reports = scratch.read("progress.jsonl");
        let reports = reports.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        reports.map(|report| number(&report).as_u64().unwrap()).sum()
    }

    /// Waits until the query has committed `records` records.
    fn commits(&self, records: u64) {
        let scratch = self.running.scratch;
        until(&format!("{records} records"), || {
            Self::sum(scratch, |report| &report["numInputRows"]) >= records
        });
    }

    /// Stops the query once it has committed `records` records.
    fn stop_after(self, records: u64) {
        self.commits(records);
        self.running.stop();
    }
}

/// Sends lines from several clients at once, in pieces that do not end with lines.
fn send(port: u16, clients: Vec<Vec<String>>) {
    let clients = clients.into_iter().enumerate().map(|(client, lines)| {
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut bytes, mut piece) = (Vec::new(), 7 + client);
            for line in lines {
                writeln!(bytes, "{line}").unwrap();
                piece = piece * 31 % 97;
                let whole = bytes.len().min(piece);
                stream.write_all(&bytes[..whole]).unwrap();
                bytes.drain(..whole);
            }
            stream.write_all(&bytes).unwrap();
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
}

/// Lines `second,word` of a client, out of order by a few seconds.
fn events(client: usize, count: usize) -> Vec<String> {
    let line = |n: usize| {
        let second = n / 2 + n * 17 % 5;
        format!("2026-03-01 10:{:02}:{:02},w{}", second / 60, second % 60, (n + client) % 4)
    };
    (0..count).map(line).collect()
}

#[test]
fn a_stateless_job_gives_the_same_rows_with_the_same_times() {
    let scratch = Scratch::new("incident-stateless");
    for trigger in ["continuous 100 milliseconds", "processing-time 50 milliseconds"] {
        let sql = format!(
            "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host '127.0.0.1', port '$1', mode \
             'listen', includeTimestamp 'true', record 'lines.capture');\n\
             CREATE STREAMING TABLE kept USING json OPTIONS (path 'out', trigger '{trigger}', \
             checkpointLocation 'state') AS SELECT upper(value) AS line, timestamp FROM STREAM lines \
             WHERE value NOT LIKE '%w3';\n"
        );
        let query = Query::start(&scratch, 1, &sql);
        let to = format!("127.0.0.1:{}", query.ports[0]);
        let args = ["capture", "--listen", "127.0.0.1:0", "--to", &to, "-o", "proxy.capture"];
        let proxy = start(&scratch, "proxy", &args);
        let said = proxy.says(";");
        let port = said.strip_prefix("listening at 127.0.0.1:").unwrap().split(';').next().unwrap();
        send(port.parse().unwrap(), (0..5).map(|client| events(client, 200)).collect());
        query.stop_after(1000);
        proxy.stop();
        let rows = rows(&scratch, "out");
        assert_eq!(rows.lines().count(), 750, "{trigger}");
        std::fs::write(scratch.path("rows.jsonl"), &rows).unwrap();
        passes(&scratch, &["--replay", "lines.capture", "--expect", "rows.jsonl"]);
        // The proxy has recorded the same bytes with other times.
        let others = ["--replay", "proxy.capture", "--expect", "rows.jsonl", "--tolerance", "1h"];
        passes(&scratch, &others);
        for name in ["out", "state"] {
            std::fs::remove_dir_all(scratch.path(name)).unwrap();
        }
        for name in ["lines.capture", "proxy.capture", "progress.jsonl"] {
            std::fs::remove_file(scratch.path(name)).unwrap();
        }
    }
}

#[test]
fn a_windowed_job_drops_the_same_late_rows() {
    let scratch = Scratch::new("incident-windowed");
    let query = Query::start(
        &scratch,
        1,
        "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host '127.0.0.1', port '$1', mode \
         'listen', record 'lines.capture');\n\
         CREATE TEMPORARY VIEW events AS SELECT CAST(split(value, ',')[0] AS TIMESTAMP) AS time, \
         split(value, ',')[1] AS word FROM STREAM lines;\n\
         CREATE STREAMING TABLE counts USING json OPTIONS (path 'out', checkpointLocation 'state', \
         outputMode 'append', trigger 'continuous 100 milliseconds') AS\n\
         SELECT window.start AS start, word, count(*) AS n FROM STREAM events WATERMARK time DELAY \
         OF INTERVAL 2 SECONDS AS e GROUP BY window(time, '10 seconds'), word;\n",
    );
    // The watermark of the first client's rows is between 10:03:20 and 10:03:30. When it has
    // passed, the rows of the others from before 10:03:20 are late.
    send(query.ports[0], vec![events(0, 400)]);
    query.commits(400);
    send(query.ports[0], (1..4).map(|client| events(client, 400)).collect());
    query.stop_after(1600);
    let is_over = |line: &&String| &line[..19] < "2026-03-01 10:03:20";
    let on_time = events(0, 400).iter().filter(is_over).count() as u64;
    let late: u64 =
        (1..4).map(|client| events(client, 400).iter().filter(is_over).count() as u64).sum();
    let rows = rows(&scratch, "out");
    let counted: u64 = rows
        .lines()
        .map(|row| serde_json::from_str::<Json>(row).unwrap()["n"].as_u64().unwrap())
        .sum();
    let dropped =
        Query::sum(&scratch, |report| &report["stateOperators"][0]["numRowsDroppedByWatermark"]);
    assert_eq!((counted, dropped), (on_time, late));
    std::fs::write(scratch.path("rows.jsonl"), rows).unwrap();
    passes(&scratch, &["--replay", "lines.capture", "--expect", "rows.jsonl"]);
    passes(&scratch, &["--replay", "lines.capture", "--expect", "rows.jsonl", "--speed", "20"]);
}

#[test]
fn a_job_with_two_sources_gives_the_same_rows() {
    let scratch = Scratch::new("incident-sources");
    let source = |name: &str, port: &str| {
        format!(
            "CREATE TEMPORARY VIEW {name}_lines USING socket OPTIONS (host '127.0.0.1', port \
             '{port}', mode 'listen', record '{name}.capture');\n\
             CREATE TEMPORARY VIEW {name} AS SELECT CAST(split(value, ',')[0] AS TIMESTAMP) AS time, \
             split(value, ',')[1] AS word FROM STREAM {name}_lines;\n"
        )
    };
    let sql = source("orders", "$1")
        + &source("payments", "$2")
        + "CREATE STREAMING TABLE paid USING json OPTIONS (path 'out', checkpointLocation 'state', \
           trigger 'continuous 100 milliseconds') AS SELECT o.word, o.time AS ordered, p.time AS paid \
           FROM STREAM orders WATERMARK time DELAY OF INTERVAL 10 SECONDS AS o JOIN STREAM payments \
           WATERMARK time DELAY OF INTERVAL 10 SECONDS AS p ON o.word = p.word AND p.time BETWEEN \
           o.time AND o.time + INTERVAL 3 SECONDS;\n";
    let query = Query::start(&scratch, 2, &sql);
    send(query.ports[0], vec![events(0, 300)]);
    send(query.ports[1], vec![events(1, 300)]);
    query.stop_after(600);
    let rows = rows(&scratch, "out");
    assert!(rows.lines().count() > 300, "{rows}");
    std::fs::write(scratch.path("rows.jsonl"), rows).unwrap();
    let sources = [
        "--source=orders_lines=orders.capture",
        "--source=payments_lines=payments.capture",
        "--expect=rows.jsonl",
    ];
    passes(&scratch, &sources);
    passes(&scratch, &[&sources[..], &["--speed", "20"]].concat());
}

#[test]
fn datagrams_give_the_same_rows() {
    let scratch = Scratch::new("incident-datagrams");
    let query = Query::start(
        &scratch,
        1,
        "CREATE TEMPORARY VIEW quotes USING socket OPTIONS (host '127.0.0.1', port '$1', protocol \
         'udp', includeTimestamp 'true', record 'quotes.capture');\n\
         CREATE STREAMING TABLE kept USING json OPTIONS (path 'out', checkpointLocation 'state', \
         trigger 'continuous 100 milliseconds') AS SELECT value, timestamp FROM STREAM quotes;\n",
    );
    let senders = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    for n in 0..200 {
        let quote = format!("quote {n}\nof two lines\n");
        senders[n % 2].send_to(quote.as_bytes(), ("127.0.0.1", query.ports[0])).unwrap();
    }
    query.stop_after(200);
    std::fs::write(scratch.path("rows.jsonl"), rows(&scratch, "out")).unwrap();
    passes(&scratch, &["--replay", "quotes.capture", "--expect", "rows.jsonl"]);
}

#[test]
fn recordings_of_a_restarted_job_are_one_folder() {
    let scratch = Scratch::new("incident-restarted");
    std::fs::create_dir(scratch.path("recorded")).unwrap();
    let sql = "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host '127.0.0.1', port '$1', mode \
         'listen', includeTimestamp 'true', record 'recorded/lines.capture');\n\
         CREATE STREAMING TABLE kept USING json OPTIONS (path 'out', checkpointLocation 'state', \
         trigger 'continuous 100 milliseconds') AS SELECT value, timestamp FROM STREAM lines;\n";
    for run in 1..=11 {
        let query = Query::start(&scratch, 1, sql);
        send(query.ports[0], vec![events(run, 20)]);
        query.stop_after(20 * run as u64);
    }
    let rows = rows(&scratch, "out");
    assert_eq!(rows.lines().count(), 220);
    // The rows are sorted by time, which is also the order of the runs.
    let mut rows: Vec<_> =
        rows.lines().map(|row| serde_json::from_str::<Json>(row).unwrap()).collect();
    rows.sort_by_key(|row| row["timestamp"].as_str().unwrap().to_string());
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(scratch.path("rows.jsonl"), rows).unwrap();
    let args = ["--replay", "recorded", "--expect", "rows.jsonl", "--compare", "per-key"];
    passes(&scratch, &[&args[..], &["--key", "timestamp"]].concat());
    passes(&scratch, &[&args[..4], &["--speed", "1000"]].concat());
    let times = scratch.millstream(&["export", "recorded", "--format", "json"]).output().unwrap();
    let times = String::from_utf8(times.stdout).unwrap();
    let times: Vec<_> = times
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap())
        .filter(|event| event["kind"] == "data")
        .map(|event| event["t"].as_i64().unwrap())
        .collect();
    assert!(times.len() >= 11 && times.is_sorted(), "{times:?}");
}

/// 2026-03-01T12:30:00Z, in nanoseconds since 1970.
const START_NS: i64 = 1_772_368_200_000_000_000;

/// Writes a capture of ten seconds with a line per 100 ms, and progress in which the seventh second
/// is slow.
fn slow_second(scratch: &Scratch) {
    let file = File::create(scratch.path("tuesday.capture")).unwrap();
    let mut writer = CaptureWriter::new(file, &WriterOptions::default()).unwrap();
    for n in 0..100 {
        let wall_ns = START_NS + n * 100_000_000;
        let (mono_ns, connection) = (1 + n as u64 * 100_000_000, n as u32 % 2);
        let (direction, kind) = (Direction::In, Kind::Data);
        let head =
            Head { position: 0, lines: 0, mono_ns, wall_ns, connection, direction, kind, flags: 0 };
        writer.append(&head, format!("{n}\n").as_bytes()).unwrap();
    }
    writer.finish().unwrap();
    let mut progress = String::new();
    // The report of the seventh second arrives a second late.
    for (second, before) in
        [1, 2, 3, 4, 5, 6, 8, 9, 10].into_iter().zip([0, 1, 2, 3, 4, 5, 6, 8, 9])
    {
        let is_slow = second == 8;
        let rows = 1000 * (second - before);
        let [p99, max] = if is_slow { [812_000, 900_000] } else { [1_000, 2_000] };
        let slowest = json!({
            "latencyUs": max,
            "partsUs": {"end of an epoch": 20_000, "blocked write": max - 20_000},
        });
        let report = json!({
            "runId": "r",
            "name": "counts",
            "timestamp": format!("2026-03-01T12:30:{second:02}.000Z"),
            "epochDurationUs": 5_000,
            "numInputRows": rows,
            "inputRowsPerSecond": 1000.0,
            "latencyUs": {"count": rows, "p99": p99, "max": max},
            "slowest": if is_slow { vec![slowest] } else { vec![] },
        });
        progress += &format!("{report}\n");
    }
    std::fs::write(scratch.path("progress.jsonl"), progress).unwrap();
}

#[test]
fn the_second_in_which_latency_rose_is_found_and_played_alone() {
    let scratch = Scratch::new("incident-slow");
    slow_second(&scratch);
    let inspect = |args: &[&str]| {
        let output = scratch.millstream(&[&["inspect"], args].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let found = inspect(&["tuesday.capture", "--progress", "progress.jsonl"]);
    // The output must be the one that the documentation page on replay shows.
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/replay.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, shown) = page.split_once("```text\nslow ").unwrap();
    let shown = format!("slow {}", shown.split_once("```").unwrap().0);
    assert!(found.contains(&shown), "{found}\nand not\n{shown}");
    assert_eq!(found.matches("play it").count(), 1, "{found}");
    // Runs the commands that the output suggests.
    let command = |name: &str| {
        let line = found.lines().find(|line| line.starts_with(name)).unwrap();
        let words = line.strip_prefix(name).unwrap().split_whitespace().skip(1);
        words.map(str::to_string).collect::<Vec<_>>()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let mut play = command("play it");
    *play.last_mut().unwrap() = to;
    play.extend(["--speed".to_string(), "max".to_string()]);
    let peer = std::thread::spawn(move || {
        let streams = [listener.accept().unwrap().0, listener.accept().unwrap().0];
        streams.map(|mut stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    });
    let play: Vec<_> = play.iter().map(String::as_str).collect();
    let output = scratch.millstream(&play).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<u32> =
        peer.join().unwrap().concat().lines().map(|line| line.parse().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, (51..=80).collect::<Vec<_>>());
    let job = "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host 'localhost', port '9');\n\
         CREATE STREAMING TABLE t USING noop AS SELECT CAST(value AS INT) AS n FROM STREAM lines;\n";
    std::fs::write(scratch.path("JOB"), job).unwrap();
    let rows: String = (51..=80).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    std::fs::write(scratch.path("EXPECTED"), rows).unwrap();
    let test = command("test it");
    let test: Vec<_> = test.iter().map(String::as_str).collect();
    let output = scratch.millstream(&test).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The progress file is inspected without a capture, and with other limits.
    let alone = inspect(&["progress.jsonl"]);
    assert!(alone.contains("millstream replay CAPTURE --from 2026-03-01T12:30:05.1Z"), "{alone}");
    assert!(inspect(&["progress.jsonl", "--slow", "1s"]).contains("slow         never"));
    let all = inspect(&["progress.jsonl", "--slow", "500us"]);
    assert!(all.contains("slow         2026-03-01 12:30:00Z to 2026-03-01 12:30:10.006Z"), "{all}");
}

#[test]
fn unreadable_progress_reports_are_an_error() {
    let scratch = Scratch::new("incident-inspect");
    slow_second(&scratch);
    std::fs::write(scratch.path("other.jsonl"), "{\"a\":1}\n{\"name\":\n").unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&["tuesday.capture", "--slow", "5ms"], "--progress"),
        (&["other.jsonl"], "NO_PROGRESS"),
        (&["tuesday.capture", "--progress", "other.jsonl"], "NO_PROGRESS"),
        (&["tuesday.capture", "--progress", "none.jsonl"], "PROGRESS_UNREADABLE"),
        (&["progress.jsonl", "--progress", "progress.jsonl"], "is for a capture"),
    ];
    for (args, part) in cases {
        let output = scratch.millstream(&[&["inspect"], args].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
}
