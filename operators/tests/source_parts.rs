//! Partitioned sources and aggregations over several workers give the same result as one partition
//! and one worker.
#![cfg(feature = "sql")]

use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 2_000_000 };

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-parts-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn config() -> Config {
    Config { pin: false, wait: WaitProfile::Park, ..Config::default() }
}

/// Every row of the result, sorted.
fn rows(session: &Session) -> Vec<String> {
    let table = session.table("out").unwrap();
    let mut rows: Vec<_> = table.rows().iter().map(|row| format!("{row:?}")).collect();
    rows.sort();
    rows
}

fn until(query: &StreamingQuery, what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        let late = start.elapsed() > Duration::from_secs(60);
        assert!(!late, "never came: {what}; {:?}", query.exception());
        std::thread::yield_now();
    }
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
struct Run {
    parts: usize,
    parallelism: usize,
    trigger: Trigger,
}

/// Starts a query over the JSON files of a folder.
fn start(session: &Session, files: &Path, sql: &str, mode: &str, run: Run) -> StreamingQuery {
    session.set("millstream.parallelism", &run.parallelism.to_string()).unwrap();
    let schema = Schema::parse_ddl("ts TIMESTAMP, k STRING, n BIGINT, x DOUBLE").unwrap();
    let reader =
        session.read_stream().format("json").schema(schema).option("path", files.display());
    let reader = reader.option("numPartitions", run.parts);
    reader.load().unwrap().create_temp_view("rows");
    let writer = session.sql(sql).unwrap().write_stream().output_mode(mode).format("memory");
    let checkpoint = files.with_extension("checkpoint");
    let writer = writer.option("checkpointLocation", checkpoint.display());
    let writer = writer.query_name("out").trigger(run.trigger).config(config());
    writer.start().unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The result after all files of two groups have been read, with a restart between them.
fn result(lots: &[Vec<Row>; 2], sql: &str, mode: &str, run: Run) -> Vec<String> {
    let folder = Folder::new();
    let files = folder.0.join("files");
    std::fs::create_dir_all(&files).unwrap();
    let mut all = Vec::new();
    for (lot, records) in lots.iter().enumerate() {
        for (number, records) in records.chunks(5).enumerate() {
            let path = files.join(format!("{lot}-{number}.json"));
            let lines = records.iter().map(|(second, key, n)| {
                let ts = format!("2024-05-01T00:00:{second:02}Z");
                format!("{{\"ts\": \"{ts}\", \"k\": \"k{key}\", \"n\": {n}, \"x\": {n}.5}}\n")
            });
            std::fs::write(path, lines.collect::<String>()).unwrap();
        }
        let session = Session::new();
        let query = start(&session, &files, sql, mode, run);
        if run.trigger == Trigger::AvailableNow {
            query.await_termination().unwrap();
        } else {
            query.process_all_available().unwrap();
            query.stop().unwrap();
        }
        all = rows(&session);
    }
    all
}

/// An input row: second, key, number.
type Row = (u8, u8, i64);

fn lots() -> impl Strategy<Value = [Vec<Row>; 2]> {
    let lot = || proptest::collection::vec((0u8..60, 0u8..6, -50i64..50), 0..60);
    // The table is emitted only if it has changed.
    [lot(), lot()].prop_map(|[first, mut second]| {
        second.push((59, 0, 1));
        [first, second]
    })
}

fn run() -> impl Strategy<Value = Run> {
    let trigger = prop_oneof![Just(CONTINUOUS), Just(Trigger::AvailableNow)];
    (1usize..5, 1usize..4, trigger).prop_map(|(parts, parallelism, trigger)| Run {
        parts,
        parallelism,
        trigger,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_the_same_from_any_parts(lots in lots(), run in run()) {
        let one = Run { parts: 1, parallelism: 1, trigger: Trigger::AvailableNow };
        for sql in [
            "SELECT k, count(*), sum(n), min(n), max(x), avg(n), count(*) FILTER (WHERE n > 0) \
             FROM rows WHERE n % 7 != 0 GROUP BY k",
            "SELECT count(*), sum(n) FROM rows",
            "SELECT k, first(ts), max(k), collect_set(n) FROM rows WHERE n = 3 AND k = 'k9' GROUP BY k",
            "SELECT window.start, k, count(*), sum(x) FROM rows GROUP BY window(ts, '20 seconds'), k",
            "SELECT k, approx_count_distinct(n % 5) AS c FROM rows GROUP BY k ORDER BY c, k LIMIT 3",
        ] {
            let expected = result(&lots, sql, "complete", one);
            prop_assert_eq!(result(&lots, sql, "complete", run), expected, "{}", sql);
        }
    }
}

/// The test has two runs, so that the second one reads the partitions' logs again.
#[test]
fn each_file_is_read_once_by_one_part_over_a_restart() {
    let lots = [0, 1].map(|lot| (0..100).map(|n| (0, 0, lot * 100 + n)).collect::<Vec<Row>>());
    for trigger in [CONTINUOUS, Trigger::AvailableNow] {
        let run = Run { parts: 3, parallelism: 2, trigger };
        let got = result(&lots, "SELECT n, count(*) FROM rows GROUP BY n", "complete", run);
        let mut expected: Vec<_> =
            (0..200).map(|n| format!("{:?}", [Value::Long(n), Value::Long(1)])).collect();
        expected.sort();
        assert_eq!(got, expected, "{trigger:?}");
    }
}

/// Windows do not wait for partitions that have nothing to read.
#[test]
fn a_partition_without_files_does_not_delay_windows() {
    let windows = "SELECT window.start, count(*) FROM (SELECT * FROM rows) \
                   WATERMARK ts DELAY OF INTERVAL 1 SECOND GROUP BY window(ts, '10 seconds')";
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let folder = Folder::new();
        let files = folder.0.join("files");
        std::fs::create_dir_all(&files).unwrap();
        let lines = "{\"ts\": \"2024-05-01T00:00:01Z\"}\n{\"ts\": \"2024-05-01T00:00:02Z\"}\n\
                     {\"ts\": \"2024-05-01T00:00:31Z\"}\n";
        std::fs::write(files.join("one.json"), lines).unwrap();
        let session = Session::new();
        let run = Run { parts: 7, parallelism: 2, trigger };
        let query = start(&session, &files, windows, "append", run);
        until(&query, "the first window", || !rows(&session).is_empty());
        let rows = rows(&session);
        assert!(rows.len() == 1 && rows[0].ends_with("Long(2)]"), "{trigger:?}: {rows:?}");
        query.stop().unwrap();
    }
}

/// The rows of a query over a partitioned rate source, from two runs.
#[test]
fn a_rate_in_parts_is_one_sequence_over_a_restart() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let folder = Folder::new();
        let mut seen = BTreeSet::new();
        for run in 1..=2 {
            let session = Session::new();
            let reader = session.read_stream().format("rate").option("rowsPerSecond", 5_000);
            let reader = reader.option("numPartitions", 3);
            let frame = reader.load().unwrap().select_expr(["value", "timestamp"]).unwrap();
            let writer = frame.write_stream().format("memory").query_name("out").trigger(trigger);
            let writer = writer.option("checkpointLocation", folder.0.join("c").display());
            let query = writer.config(config()).start().unwrap();
            until(&query, "a thousand rows", || session.table("out").unwrap().rows().len() > 1_000);
            query.stop().unwrap();
            for row in session.table("out").unwrap().rows() {
                let [Value::Long(value), Value::Long(micros)] = row[..] else { panic!("{row:?}") };
                // Continuous mode repeats rows that were not committed.
                let new = seen.insert((value, micros));
                assert!(new || matches!(trigger, Trigger::Continuous { .. }), "{value} twice");
            }
            // Each partition has every third row, without gaps. When a run ends, the partitions may
            // have advanced differently.
            for part in 0..3 {
                let of_part =
                    seen.iter().map(|(value, _)| *value).filter(|value| value % 3 == part);
                let first_left_out = of_part.zip((part..).step_by(3)).find(|(is, due)| is != due);
                assert_eq!(first_left_out, None, "run {run}, part {part}, {trigger:?}");
            }
        }
        let start = seen.iter().next().unwrap().1;
        for (value, micros) in &seen {
            assert_eq!(*micros, start + value * 200, "200 us apart");
        }
    }
}

/// Each partition has its own log of received lines and continues after it.
#[test]
fn durable_partitions_continue_after_restarts() {
    let folder = Folder::new();
    let mut lines = 0;
    for run in 0..4 {
        let session = Session::new();
        session.set("millstream.parallelism", "2").unwrap();
        let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reader = session.read_stream().format("socket").option("mode", "listen");
        let reader = reader.option("host", "127.0.0.1").option("port", address.port());
        let reader = reader.option("numPartitions", 2).option("durable", true);
        reader.load().unwrap().create_temp_view("lines");
        let frame = session.sql("SELECT value, count(*) FROM lines GROUP BY value").unwrap();
        let writer = frame.write_stream().output_mode("complete").format("memory");
        let writer = writer.option("checkpointLocation", folder.0.join("c").display());
        let query = writer.query_name("out").trigger(CONTINUOUS).config(config()).start().unwrap();
        let clients: Vec<_> = (0..2)
            .map(|client| {
                let mut stream = TcpStream::connect(address).unwrap();
                (0..50).for_each(|n| writeln!(stream, "{run} {client} {n}").unwrap());
                stream
            })
            .collect();
        lines += 100;
        until(&query, "the lines of all runs", || rows(&session).len() == lines);
        assert!(rows(&session).iter().all(|row| row.ends_with("Long(1)]")), "once each");
        query.stop().unwrap();
        drop(clients);
    }
}

/// Clients of one listener are served by parts on several workers.
#[test]
fn clients_are_spread_over_the_parts_of_a_listener() {
    let session = Session::new();
    session.set("millstream.parallelism", "2").unwrap();
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reader = session.read_stream().format("socket").option("mode", "listen");
    let reader = reader.option("host", "127.0.0.1").option("port", address.port());
    let reader = reader.option("numPartitions", 3);
    reader.load().unwrap().create_temp_view("lines");
    let sql = "SELECT value, count(*) FROM lines GROUP BY value";
    let writer = session.sql(sql).unwrap().write_stream().output_mode("complete").format("memory");
    let writer = writer.query_name("out").trigger(CONTINUOUS).config(config());
    let query = writer.start().unwrap();
    // All clients are served concurrently: the rows of all are counted before any disconnects.
    let clients: Vec<_> = (0..3)
        .map(|client| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(format!("own {client}\nall\n").as_bytes()).unwrap();
            stream
        })
        .collect();
    let expected = ["all", "own 0", "own 1", "own 2"].map(|value| {
        let count = if value == "all" { 3 } else { 1 };
        format!("{:?}", [Value::String(value.to_string()), Value::Long(count)])
    });
    until(&query, "the rows of all clients", || rows(&session) == expected);
    drop(clients);
    // Partitions that have lost their clients serve new ones.
    for client in 0..5 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("later {client}\n").as_bytes()).unwrap();
    }
    until(&query, "the rows of those who came later", || rows(&session).len() == 9);
    query.stop().unwrap();
}

/// A batch of files has the rows that it would have with one partition: a row is late, and a row of
/// an outer join is emitted without a match, in the same cases.
#[test]
fn limited_batches_have_the_same_files_with_any_number_of_partitions() {
    let of_parts = |parts: usize, restarts: bool| {
        let folder = Folder::new();
        let files = folder.0.join("files");
        std::fs::create_dir_all(&files).unwrap();
        for number in 0..24u64 {
            let path = files.join(format!("{number:02}.json"));
            let second = number * 10;
            let row = format!("{{\"t\": {second}, \"k\": {number}}}\n");
            std::fs::write(&path, row).unwrap();
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + number);
            std::fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(modified)
                .unwrap();
        }
        let mut all = Vec::new();
        let mut late = 0;
        for _ in 0..if restarts { 4 } else { 1 } {
            let session = Session::new();
            let schema = Schema::parse_ddl("t BIGINT, k BIGINT").unwrap();
            let reader = session.read_stream().format("json").schema(schema);
            let reader = reader.option("path", files.display()).option("numPartitions", parts);
            reader.option("maxFilesPerTrigger", 2).load().unwrap().create_temp_view("f");
            let sql = "SELECT window.start, count(*) AS n FROM (SELECT timestamp_seconds(t) AS t FROM f) \
                       WATERMARK t DELAY OF INTERVAL 0 SECONDS GROUP BY window(t, '15 seconds')";
            // One batch of files for each run, if the query is restarted.
            let trigger = if restarts { Trigger::Once } else { Trigger::AvailableNow };
            let writer = session.sql(sql).unwrap().write_stream().output_mode("append");
            let writer = writer.format("memory").query_name("out").trigger(trigger);
            let writer = writer.option("checkpointLocation", folder.0.join("c").display());
            let query = writer.config(config()).start().unwrap();
            query.await_termination().unwrap();
            late += query.totals().late;
            all.extend(rows(&session));
        }
        (all, late)
    };
    for restarts in [false, true] {
        let (expected, late) = of_parts(1, restarts);
        assert!(late == 0 && !expected.is_empty());
        for parts in [2, 3, 5] {
            assert_eq!(of_parts(parts, restarts), (expected.clone(), 0), "{parts} partitions");
        }
    }
}
