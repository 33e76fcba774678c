//! A stream that a query reads more than once: one source, opened once, whose rows are passed to
//! every branch, in both modes, at every parallelism and with restarts.
#![cfg(all(feature = "sql", feature = "columnar"))]

use millstream::session::{DataFrame, Session, StreamingQuery, Trigger};
use millstream::table::expr::{call, col};
use millstream::table::types::Schema;
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use millstream_engine::env::SimEnv;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 2_000_000 };
const TRIGGERS: [Trigger; 2] = [CONTINUOUS, Trigger::AsSoonAsPossible];

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-shared-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn start(frame: &DataFrame, mode: &str, trigger: Trigger, checkpoint: &Path) -> StreamingQuery {
    let writer = frame.write_stream().output_mode(mode).format("memory").query_name("out");
    let writer = writer.option("checkpointLocation", checkpoint.display()).trigger(trigger);
    let config = Config { pin: false, wait: WaitProfile::Park, workers: 3, ..Config::default() };
    writer.config(config).start().unwrap_or_else(|error| panic!("{error}"))
}

/// The rows of the result, sorted, as text.
fn rows(session: &Session) -> Vec<String> {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Long(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let shown = |row: &Vec<Value>| row.iter().map(shown).collect::<Vec<_>>().join(" ");
    let mut rows: Vec<_> = session.table("out").unwrap().rows().iter().map(shown).collect();
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

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_string).collect()
}

fn row(k: &str, n: i64) -> Vec<Value> {
    vec![Value::String(k.to_string()), Value::Long(n)]
}

/// Queries over `rows (k STRING, n BIGINT)`, their output mode, and their result for (a 1), (b 2),
/// (a 3).
const QUERIES: [(&str, &str, &[&str]); 7] = [
    (
        "SELECT * FROM rows UNION ALL SELECT * FROM rows",
        "append",
        &["a 1", "a 1", "a 3", "a 3", "b 2", "b 2"],
    ),
    (
        "SELECT k FROM rows WHERE n > 1 UNION ALL SELECT upper(k) FROM rows UNION ALL \
         SELECT CAST(-n AS STRING) FROM rows",
        "append",
        &["-1", "-2", "-3", "A", "A", "B", "a", "b"],
    ),
    (
        "WITH c AS (SELECT k, n + 1 AS m FROM rows) SELECT m FROM c UNION ALL \
         SELECT m * 10 FROM (SELECT m FROM c WHERE k = 'a')",
        "append",
        &["2", "20", "3", "4", "40"],
    ),
    (
        "SELECT k, count(*) AS c, sum(n) FROM (SELECT * FROM rows UNION ALL SELECT * FROM rows) \
         GROUP BY k",
        "complete",
        &["a 4 8", "b 2 4"],
    ),
    (
        "SELECT k, count(*) AS c FROM rows GROUP BY k UNION ALL SELECT 'all', sum(n) FROM rows",
        "complete",
        &["a 2", "all 6", "b 1"],
    ),
    (
        "SELECT x FROM rows LATERAL VIEW explode(array(n, n * 10)) t AS x WHERE k = 'b' UNION ALL \
         SELECT n FROM (SELECT * FROM rows UNION ALL SELECT * FROM rows WHERE n > 2)",
        "append",
        &["1", "2", "2", "20", "3", "3"],
    ),
    (
        "SELECT r.k, t.v FROM (SELECT * FROM rows UNION ALL SELECT * FROM rows) r \
         JOIN VALUES ('a', 'x') AS t (k, v) ON r.k = t.k",
        "append",
        &["a x", "a x", "a x", "a x"],
    ),
];

#[test]
fn each_branch_has_every_row_and_the_stream_is_read_once() {
    for (sql, mode, expected) in QUERIES {
        for (run, trigger) in
            [CONTINUOUS, Trigger::AsSoonAsPossible, CONTINUOUS].into_iter().enumerate()
        {
            let folder = Folder::new();
            let session = Session::new();
            session.set("millstream.parallelism", &(1 + run).to_string()).unwrap();
            let parts = [1, 3, 2][run];
            let schema = "k STRING, n BIGINT";
            let stream = session.memory_stream_in_parts("rows", schema, parts).unwrap();
            let frame = session.sql(sql).unwrap();
            stream.add([row("a", 1), row("b", 2), row("a", 3)]);
            let query = start(&frame, mode, trigger, &folder.path("c"));
            query.process_all_available().unwrap();
            assert_eq!(rows(&session), expected, "{sql}, {trigger:?}, run {run}");
            let progress = query.recent_progress();
            let counted: u64 = progress.iter().map(|epoch| epoch.num_input_rows()).sum();
            assert_eq!(counted, 3, "{sql}: a row is counted once");
            assert!(progress.iter().all(|epoch| epoch.committed.offsets.len() == parts), "{sql}");
            let sources = progress[0].to_json()["sources"].as_array().unwrap().len();
            assert_eq!(sources, parts, "{sql}");
            query.stop().unwrap();
        }
    }
}

#[test]
fn a_query_that_reads_its_stream_twice_continues_after_restarts() {
    let folder = Folder::new();
    let session = Session::new();
    let stream = session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
    let sql = "SELECT k, count(*), sum(n) FROM (SELECT k, n FROM rows UNION ALL \
               SELECT k, n * 100 FROM rows WHERE n > 0) GROUP BY k";
    let mut sums = BTreeMap::<i64, (i64, i64)>::new();
    for run in 0..6i64 {
        session.set("millstream.parallelism", &(1 + run % 3).to_string()).unwrap();
        for n in 0..20 {
            stream.add([row(&format!("k{}", n % 4), n * run)]);
            let (count, sum) = sums.entry(n % 4).or_default();
            *count += 1 + i64::from(n * run > 0);
            *sum += n * run * 101;
        }
        let frame = session.sql(sql).unwrap();
        let query = start(&frame, "complete", TRIGGERS[run as usize % 2], &folder.path("c"));
        query.process_all_available().unwrap();
        query.stop().unwrap();
        let expected: Vec<_> = sums.iter().map(|(k, (c, s))| format!("k{k} {c} {s}")).collect();
        assert_eq!(rows(&session), expected, "run {run}");
    }
    let files = std::fs::read_dir(folder.path("c").join("offsets")).unwrap();
    let name = |file: std::fs::DirEntry| file.file_name().into_string().unwrap();
    let last = files.filter_map(|file| name(file.unwrap()).parse::<u64>().ok()).max().unwrap();
    let offsets = folder.path("c").join("offsets").join(last.to_string());
    let offsets = std::fs::read_to_string(offsets).unwrap();
    assert_eq!(offsets.lines().nth(2), Some("120"), "one offset");
    assert!(offsets.lines().nth(3).is_some_and(|line| line.starts_with("crc32")), "{offsets}");
}

/// A DataFrame query can use a frame, a clone of it and a view of it, which are one source.
#[test]
fn a_data_frame_can_be_reused() {
    for trigger in TRIGGERS {
        let (folder, session) = (Folder::new(), Session::new());
        let stream = session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
        let frame = session.view("rows").unwrap();
        frame.create_temp_view("same");
        let upper = frame.clone().select([call("upper", [col("k")]).alias("k"), col("n")]).unwrap();
        let some = session.sql("SELECT * FROM same").unwrap().filter_expr("n = 2").unwrap();
        let distinct = frame.drop_duplicates(["k"]).unwrap();
        let all = frame.union(&distinct).unwrap().union(&upper).unwrap().union(&some).unwrap();
        stream.add([row("a", 1), row("b", 2), row("a", 1)]);
        let query = start(&all, "append", trigger, &folder.path("c"));
        query.process_all_available().unwrap();
        query.stop().unwrap();
        let expected = ["A 1", "A 1", "B 2", "a 1", "a 1", "a 1", "b 2", "b 2", "b 2"];
        assert_eq!(rows(&session), expected, "{trigger:?}");
    }
}

#[test]
fn two_streams_that_are_loaded_alike_are_two_sources() {
    let session = Session::new();
    let load = || session.read_stream().format("rate-micro-batch").option("rowsPerBatch", 2);
    let (one, other) = (load().load().unwrap(), load().load().unwrap());
    for (frame, sources) in [(one.union(&other).unwrap(), 2), (one.union(&one).unwrap(), 1)] {
        let folder = Folder::new();
        let frame = frame.select([col("value")]).unwrap();
        let query = start(&frame, "append", Trigger::Once, &folder.path("c"));
        query.await_termination().unwrap();
        let progress = query.last_progress().unwrap();
        assert_eq!(progress.committed.offsets.len(), sources);
        assert_eq!(progress.num_input_rows(), 2 * sources as u64);
        assert_eq!(rows(&session), words("0 0 1 1"));
    }
}

#[test]
fn an_explanation_shows_that_a_stream_is_read_once() {
    let session = Session::new();
    session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
    session.memory_stream("more", "k STRING, n BIGINT").unwrap();
    let sql = "SELECT * FROM rows UNION ALL SELECT * FROM more UNION ALL SELECT * FROM rows";
    let frame = session.sql(sql).unwrap();
    let text = frame.write_stream().format("noop").explain().unwrap();
    let scan = "Scan rows USING memory [k, n], read once for 2 branches\n";
    assert_eq!(text.matches(scan).count(), 2, "{text}");
    assert!(text.contains("Scan more USING memory [k, n]\n"), "{text}");
    assert_eq!(text.matches("source rows").count(), 1, "{text}");
    assert!(text.find("source rows") < text.find("source more"), "in the order of reading");
}

/// Writes rows `{"k": …, "n": …}` of one run to files of a format.
fn write_files(format: &str, path: &Path, run: i64) {
    let session = Session::new();
    let stream = session.memory_stream("made", "k STRING, n BIGINT").unwrap();
    stream.add((0..10).map(|n| row(&format!("k{n}"), run * 10 + n)));
    stream.close();
    let sql =
        if format == "text" { "SELECT concat(k, ' ', n) FROM made" } else { "SELECT * FROM made" };
    let frame = session.sql(sql).unwrap();
    let checkpoint = path.with_extension(format!("made{run}"));
    let writer = frame.write_stream().format(format).trigger(Trigger::Once);
    let writer = writer.option("checkpointLocation", checkpoint.display());
    let made = path.with_extension(format!("files{run}"));
    writer.option("path", made.display()).start().unwrap().await_termination().unwrap();
    for file in std::fs::read_dir(made).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if file.file_type().unwrap().is_file() && !name.starts_with(['.', '_']) {
            std::fs::rename(file.path(), path.join(format!("{run}-{name}"))).unwrap();
        }
    }
}

#[test]
fn files_of_every_format_are_read_once_for_two_branches() {
    for (at, format) in ["text", "csv", "json", "parquet", "orc"].into_iter().enumerate() {
        for trigger in TRIGGERS {
            let folder = Folder::new();
            let files = folder.path("in");
            std::fs::create_dir_all(&files).unwrap();
            for run in 0..3i64 {
                write_files(format, &files, run);
                let session = Session::new();
                session.set("millstream.parallelism", &(1 + run % 3).to_string()).unwrap();
                let reader = session.read_stream().format(format).option("path", files.display());
                let reader = reader.option("numPartitions", 1 + at % 3);
                let text = format == "text";
                let schema = Schema::parse_ddl("k STRING, n BIGINT").unwrap();
                let reader = if text { reader } else { reader.schema(schema) };
                reader.load().unwrap().create_temp_view("files");
                let one_by_name = "CAST(length(_metadata.file_name) > 0 AS BIGINT)";
                // One branch needs a column that the other does not.
                let columns = if text {
                    ["split_part(value, ' ', 1)", "CAST(split_part(value, ' ', 2) AS BIGINT)", "1L"]
                } else {
                    ["k", "n", if format == "csv" { "1L" } else { one_by_name }]
                };
                let [k, n, one] = columns;
                let sql = format!(
                    "SELECT k, count(*), sum(x) FROM (SELECT {k} AS k, {n} AS x FROM files \
                     UNION ALL SELECT {k}, {one} FROM files) GROUP BY k"
                );
                let query =
                    start(&session.sql(&sql).unwrap(), "complete", trigger, &folder.path("c"));
                query.process_all_available().unwrap();
                query.stop().unwrap();
                let sum = |n: i64| (0..=run).map(|run| run * 10 + n + 1).sum::<i64>();
                let expected: Vec<_> =
                    (0..10).map(|n| format!("k{n} {} {}", 2 * (run + 1), sum(n))).collect();
                assert_eq!(rows(&session), expected, "{format}, run {run}, {trigger:?}");
            }
        }
    }
}

#[test]
fn a_socket_is_connected_to_once_for_two_branches() {
    for (at, trigger) in TRIGGERS.into_iter().enumerate() {
        let (folder, session) = (Folder::new(), Session::new());
        session.set("millstream.parallelism", &(1 + at).to_string()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reader = session.read_stream().format("socket").option("host", "127.0.0.1");
        let reader = reader.option("port", listener.local_addr().unwrap().port());
        reader.load().unwrap().create_temp_view("lines");
        let sql = "SELECT value FROM lines UNION ALL SELECT upper(value) FROM lines";
        let query = start(&session.sql(sql).unwrap(), "append", trigger, &folder.path("c"));
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"a\nb\n").unwrap();
        until(&query, "four rows", || rows(&session).len() == 4);
        peer.write_all(b"c\n").unwrap();
        until(&query, "six rows", || rows(&session).len() == 6);
        assert_eq!(rows(&session), words("A B C a b c"), "{trigger:?}");
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "no other connection");
        assert_eq!(query.totals().records_in, 3);
        query.stop().unwrap();
    }
}

#[test]
fn a_rate_is_one_sequence_for_two_branches_over_a_restart() {
    for (at, trigger) in TRIGGERS.into_iter().enumerate() {
        let folder = Folder::new();
        let mut seen = BTreeMap::<i64, [u64; 2]>::new();
        for run in 1..=2 {
            let session = Session::new();
            let reader = session.read_stream().format("rate").option("rowsPerSecond", 5_000);
            let reader = reader.option("numPartitions", 1 + 2 * at);
            reader.load().unwrap().create_temp_view("rate");
            let sql = "SELECT value, 0L FROM rate UNION ALL SELECT value, 1L FROM rate";
            let query = start(&session.sql(sql).unwrap(), "append", trigger, &folder.path("c"));
            let table = session.table("out").unwrap();
            until(&query, "a thousand rows", || table.rows().len() > 1_000);
            query.stop().unwrap();
            for row in table.rows() {
                let [Value::Long(value), Value::Long(branch)] = row[..] else { panic!("{row:?}") };
                seen.entry(value).or_default()[branch as usize] += 1;
            }
            let unlike = seen.iter().find(|(_, [one, other])| one != other);
            assert_eq!(unlike, None, "run {run}, {trigger:?}: both branches have the same");
        }
    }
}

const WINDOWS: &str = "SELECT CAST(window.start AS LONG) AS s, count(*) AS c FROM ( \
     SELECT * FROM (SELECT timestamp_seconds(n) AS ts FROM rows) WATERMARK ts DELAY OF INTERVAL 1 SECOND \
     UNION ALL \
     SELECT * FROM (SELECT timestamp_seconds(n) AS ts FROM rows) WATERMARK ts DELAY OF INTERVAL 10 SECONDS) \
     GROUP BY window(ts, '5 seconds')";

/// With two watermarks over one stream the lower one counts, as in Spark.
#[test]
fn two_watermarks_of_one_stream_are_those_of_two_branches() {
    for (at, trigger) in TRIGGERS.into_iter().enumerate() {
        let (folder, session) = (Folder::new(), Session::new());
        session.set("millstream.parallelism", &(1 + 2 * at).to_string()).unwrap();
        let stream = session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
        let query = start(&session.sql(WINDOWS).unwrap(), "append", trigger, &folder.path("c"));
        stream.add([10, 20, 30].map(|n| row("a", n)));
        until(&query, "the first window", || !rows(&session).is_empty());
        query.process_all_available().unwrap();
        assert_eq!(rows(&session), ["10 2"], "{trigger:?}");
        assert_eq!(query.watermark_ms(), Some(20_000));
        query.stop().unwrap();
        drop(query);
        let query = start(&session.sql(WINDOWS).unwrap(), "append", trigger, &folder.path("c"));
        // The row at 12 is late on both branches, by the watermark at the end of the first run.
        stream.add([45, 12].map(|n| row("a", n)));
        until(&query, "the windows behind it", || rows(&session).len() > 1);
        query.process_all_available().unwrap();
        assert_eq!(rows(&session), ["20 2", "30 2"], "{trigger:?}");
        query.stop().unwrap();
    }
}

/// Markers and watermarks are aligned again after branches of different lengths, in random
/// schedules.
#[test]
fn branches_meet_again_on_every_schedule() {
    let sql = "SELECT n AS s, count(*) AS c FROM rows GROUP BY n UNION ALL \
               SELECT 1000L, count(*) FROM rows UNION ALL \
               SELECT n + 100, count(*) FROM (SELECT * FROM rows UNION ALL \
               SELECT * FROM rows WHERE k = 'k1') GROUP BY n + 100";
    for seed in 0..150u64 {
        let session = Session::new();
        session.set("millstream.parallelism", &(1 + seed % 3).to_string()).unwrap();
        let schema = "k STRING, n BIGINT";
        let parts = 1 + seed as usize / 6 % 3;
        let stream = session.memory_stream_in_parts("rows", schema, parts).unwrap();
        stream.add((0..300).map(|n| row(&format!("k{}", n % 3), n % 7)));
        stream.close();
        let frame = session.sql(sql).unwrap();
        let writer = frame.write_stream().output_mode("complete").format("memory");
        let writer = writer.query_name("out").trigger(TRIGGERS[seed as usize / 3 % 2]);
        writer.simulate(&Arc::new(SimEnv::new(seed)), seed).unwrap();
        let mut expected = BTreeMap::<i64, u64>::new();
        for n in 0..300 {
            *expected.entry(n % 7).or_default() += 1;
            *expected.entry(1000).or_default() += 1;
            *expected.entry(n % 7 + 100).or_default() += if n % 3 == 1 { 2 } else { 1 };
        }
        let mut expected: Vec<_> = expected.iter().map(|(s, c)| format!("{s} {c}")).collect();
        expected.sort();
        assert_eq!(rows(&session), expected, "seed {seed}");
    }
}

#[test]
fn a_stream_is_joined_with_itself() {
    for trigger in TRIGGERS {
        let (session, folder) = (Session::new(), Folder::new());
        let stream = session.memory_stream("rows", "k STRING, n BIGINT").unwrap();
        for n in 0..6 {
            stream.add([row(&format!("k{}", n % 2), n)]);
        }
        stream.close();
        let sql = "SELECT a.n AS x, b.n AS y FROM rows a JOIN rows b ON a.k = b.k WHERE a.n < b.n";
        let frame = session.sql(sql).unwrap();
        start(&frame, "append", trigger, &folder.path("c")).await_termination().unwrap();
        assert_eq!(rows(&session), ["0 2", "0 4", "1 3", "1 5", "2 4", "3 5"], "{trigger:?}");
    }
}
