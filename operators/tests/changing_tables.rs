//! Tables that change while a stream is joined with them, in both modes and through restarts.
#![cfg(feature = "sql")]

use millstream::connect::memory::MemoryStream;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The interval is so long that, after the first batch, one runs only when
/// `process_all_available` waits for it.
const BATCHES: Trigger = Trigger::ProcessingTime { interval_ns: u64::MAX / 4 };
const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 10_000_000 };

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-changing-{}-{number}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(folder.table()).unwrap();
        folder
    }

    fn table(&self) -> PathBuf {
        self.0.join("table")
    }

    fn write(&self, name: &str, text: &str) {
        // The file is replaced atomically.
        let temporary = self.0.join("new");
        std::fs::write(&temporary, text).unwrap();
        let place = self.table().join(name);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::rename(temporary, place).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.table().join(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A query that joins the stream `e(w)` with the view `dim`.
struct Joined {
    session: Session,
    stream: MemoryStream,
    query: Option<StreamingQuery>,
    sql: String,
    trigger: Trigger,
    checkpoint: PathBuf,
}

impl Joined {
    fn start(session: Session, sql: &str, trigger: Trigger, folder: &Path) -> Self {
        let stream = session.memory_stream("e", "w STRING").unwrap();
        let (sql, checkpoint) = (sql.to_string(), folder.join("checkpoint"));
        let mut joined = Self { session, stream, query: None, sql, trigger, checkpoint };
        joined.restart();
        joined
    }

    fn restart(&mut self) {
        if let Some(query) = self.query.take() {
            query.stop().unwrap();
        }
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = self.session.sql(&self.sql).unwrap().write_stream().format("memory");
        let writer = writer.query_name("out").trigger(self.trigger).config(config);
        let writer = writer.option("checkpointLocation", self.checkpoint.display());
        self.query = Some(writer.start().unwrap());
    }

    /// The current matches of the keys, sorted.
    fn look_up(&self, keys: &[&str]) -> Vec<String> {
        self.stream.add(keys.iter().map(|key| vec![Value::String((*key).to_string())]));
        self.query.as_ref().unwrap().process_all_available().unwrap();
        let rows = self.session.table("out").unwrap().take();
        let mut rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
        rows.sort();
        rows
    }

    /// Waits until the keys have these matches. In continuous mode a change is detected soon, in
    /// micro-batch mode by the next batch.
    fn expect(&self, keys: &[&str], expected: &[&str]) {
        let mut got = self.look_up(keys);
        let begun = Instant::now();
        while self.trigger != BATCHES
            && got != expected
            && begun.elapsed() < Duration::from_secs(20)
        {
            got = self.look_up(keys);
        }
        assert_eq!(got, expected, "{}", self.sql);
    }
}

fn text(row: &[Value]) -> String {
    let one = |value: &Value| match value {
        Value::Null => "-".to_string(),
        Value::Long(v) => v.to_string(),
        Value::String(v) => v.clone(),
        Value::Boolean(v) => v.to_string(),
        other => format!("{other:?}"),
    };
    row.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn session_of(ddl: &str, format: &str, options: &str, folder: &Folder) -> Session {
    let session = Session::new();
    let path = folder.table();
    let view = format!(
        "CREATE TEMPORARY VIEW dim ({ddl}) USING {format} OPTIONS (path '{}' {options})",
        path.display()
    );
    session.script(&view, &mut |_| Ok(())).unwrap();
    session
}

/// A scalar subquery in a condition or a projection is computed again when its table changes.
#[test]
fn a_scalar_subquery_sees_the_changed_table() {
    for trigger in [BATCHES, CONTINUOUS] {
        for (sql, first, second) in [
            ("SELECT w FROM e WHERE w < (SELECT max(k) FROM dim)", vec!["a"], vec!["a", "b"]),
            (
                "SELECT w, (SELECT max(k) FROM dim) || '!', (SELECT count(*) FROM dim) FROM e",
                vec!["a b! 2", "b b! 2", "x b! 2"],
                vec!["a c! 1", "b c! 1", "x c! 1"],
            ),
        ] {
            let folder = Folder::new();
            folder.write("a.csv", "a,1\nb,2\n");
            let session = session_of("k STRING, v INT", "csv", "", &folder);
            let mut joined = Joined::start(session, sql, trigger, &folder.0);
            joined.expect(&["a", "b", "x"], &first);
            folder.write("a.csv", "c,3\n");
            joined.expect(&["a", "b", "x"], &second);
            folder.write("a.csv", "a,1\nb,2\n");
            joined.restart();
            joined.expect(&["a", "b", "x"], &first);
            joined.query.take().unwrap().stop().unwrap();
        }
    }
}

/// The subqueries are in the argument and the filter of an aggregate, in a HAVING and in a sort
/// key. The aggregate's state has the values of the earlier batches.
#[test]
fn a_scalar_subquery_in_an_aggregation_sees_the_changed_table() {
    let folder = Folder::new();
    folder.write("a.csv", "a,1\n");
    let session = session_of("k STRING, v INT", "csv", "", &folder);
    let stream = session.memory_stream("e", "w STRING").unwrap();
    let sql = "SELECT w, sum((SELECT max(v) FROM dim)) AS s, \
               count(*) FILTER (WHERE w = (SELECT max(k) FROM dim)) AS n \
               FROM e GROUP BY w HAVING count(*) < (SELECT 10 * max(v) FROM dim) \
               ORDER BY s + (SELECT max(v) FROM dim)";
    let writer = session.sql(sql).unwrap().write_stream().format("memory").output_mode("complete");
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let query = writer.query_name("out").trigger(BATCHES).config(config).start().unwrap();
    let batch = |keys: &[&str]| {
        stream.add(keys.iter().map(|key| vec![Value::String((*key).to_string())]));
        query.process_all_available().unwrap();
        let rows = session.table("out").unwrap().rows();
        rows.iter().map(|row| text(row)).collect::<Vec<_>>()
    };
    assert_eq!(batch(&["a", "b", "b"]), ["a 1 1", "b 2 0"]);
    folder.write("a.csv", "b,7\n");
    assert_eq!(batch(&["a", "b"]), ["a 8 1", "b 9 1"]);
    folder.write("a.csv", "c,0\n");
    assert!(batch(&["a"]).is_empty(), "no count is below 0");
    query.stop().unwrap();
}

/// A subquery must have one row at most, also after its table has changed.
#[test]
fn a_scalar_subquery_that_gets_a_second_row_fails() {
    let folder = Folder::new();
    folder.write("a.csv", "a,1\n");
    let session = session_of("k STRING, v INT", "csv", "", &folder);
    let sql = "SELECT w, (SELECT k FROM dim) FROM e";
    let joined = Joined::start(session, sql, BATCHES, &folder.0);
    joined.expect(&["x"], &["x a"]);
    folder.write("a.csv", "");
    joined.expect(&["x"], &["x -"]);
    folder.write("a.csv", "a,1\nb,2\n");
    joined.stream.add([vec![Value::String("x".to_string())]]);
    let error = joined.query.as_ref().unwrap().process_all_available().unwrap_err();
    assert!(error.to_string().contains("SCALAR_SUBQUERY_TOO_MANY_ROWS"), "{error}");
}

const ALL: &str = "SELECT w, v FROM e LEFT JOIN dim ON w = k";

#[test]
fn files_that_are_added_replaced_and_removed_are_seen() {
    for trigger in [BATCHES, CONTINUOUS] {
        let folder = Folder::new();
        folder.write("a.csv", "a,1\n");
        let session = session_of("k STRING, v INT", "csv", "", &folder);
        let mut joined = Joined::start(session, ALL, trigger, &folder.0);
        joined.expect(&["a", "b"], &["a 1", "b -"]);
        folder.write("b.csv", "b,2\n");
        joined.expect(&["a", "b"], &["a 1", "b 2"]);
        // The file has the same size, and perhaps the same modification time in milliseconds.
        folder.write("a.csv", "a,7\n");
        joined.expect(&["a", "b"], &["a 7", "b 2"]);
        folder.remove("b.csv");
        joined.expect(&["a", "b"], &["a 7", "b -"]);
        folder.write("b.csv", "b,3\nb,4\n");
        joined.restart();
        joined.expect(&["a", "b"], &["a 7", "b 3", "b 4"]);
        folder.write("a.csv", "");
        folder.remove("b.csv");
        joined.expect(&["a", "b"], &["a -", "b -"]);
    }
}

#[test]
fn changes_are_seen_in_every_format_and_in_partitions() {
    let cases = [
        ("k STRING, v INT", "json", "", "{\"k\":\"a\",\"v\":1}", "{\"k\":\"a\",\"v\":2}", ALL),
        ("k STRING, v INT", "csv", "", "a,1", "a,2", ALL),
        ("value STRING", "text", "", "a", "b", "SELECT w, value FROM e LEFT JOIN dim ON w = value"),
    ];
    for (ddl, format, options, first, second, sql) in cases {
        let folder = Folder::new();
        folder.write("f", first);
        let session = session_of(ddl, format, options, &folder);
        let joined = Joined::start(session, sql, BATCHES, &folder.0);
        let before = joined.look_up(&["a", "b"]);
        folder.write("f", second);
        let after = joined.look_up(&["a", "b"]);
        assert_ne!(before, after, "{format}");
    }
    let folder = Folder::new();
    folder.write("k=a/f", "1\n");
    let session = session_of("v INT, k STRING", "csv", "", &folder);
    let joined = Joined::start(session, ALL, BATCHES, &folder.0);
    joined.expect(&["a", "b"], &["a 1", "b -"]);
    folder.write("k=b/f", "2\n");
    joined.expect(&["a", "b"], &["a 1", "b 2"]);
}

/// Writes a file of rows in a columnar format and moves it to this name in the table's folder.
#[cfg(feature = "columnar")]
fn write_columns(folder: &Folder, format: &str, name: &str, sql: &str) {
    let session = Session::new();
    let table = session.sql(sql).unwrap();
    let stream = session.memory_stream_of("rows", table.schema()).unwrap();
    stream.add(table.collect().unwrap());
    stream.close();
    let made = folder.0.join("made");
    drop(std::fs::remove_dir_all(&made));
    let writer = session.view("rows").unwrap().write_stream().format(format);
    let writer = writer.option("path", made.join("out").display());
    let writer = writer.option("checkpointLocation", made.join("checkpoint").display());
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let query = writer.trigger(Trigger::AvailableNow).config(config).start().unwrap();
    query.await_termination().unwrap();
    let mut files = std::fs::read_dir(made.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|of| of == format)).unwrap();
    std::fs::rename(file, folder.table().join(name)).unwrap();
}

#[cfg(feature = "columnar")]
#[test]
fn columnar_files_that_are_added_replaced_and_removed_are_seen() {
    for format in ["parquet", "orc"] {
        for trigger in [BATCHES, CONTINUOUS] {
            let folder = Folder::new();
            let write = |name: &str, sql: &str| write_columns(&folder, format, name, sql);
            write("a", "SELECT 'a' AS k, 1 AS v");
            let session = session_of("k STRING, v INT", format, "", &folder);
            let mut joined = Joined::start(session, ALL, trigger, &folder.0);
            joined.expect(&["a", "b"], &["a 1", "b -"]);
            write("b", "SELECT 'b' AS k, 2 AS v");
            joined.expect(&["a", "b"], &["a 1", "b 2"]);
            write("a", "SELECT 'a' AS k, 7 AS v");
            joined.expect(&["a", "b"], &["a 7", "b 2"]);
            folder.remove("b");
            joined.restart();
            joined.expect(&["a", "b"], &["a 7", "b -"]);
        }
    }
}

#[test]
fn each_kind_of_join_sees_the_table_as_it_is() {
    let cases = [
        ("SELECT w, v FROM e JOIN dim ON w = k", ["a 1", "b 2"]),
        ("SELECT w FROM e LEFT SEMI JOIN dim ON w = k", ["a", "b"]),
        ("SELECT w FROM e LEFT ANTI JOIN dim ON w = k", ["b", "a"]),
        ("SELECT w, v FROM dim RIGHT JOIN e ON w = k WHERE v > 0", ["a 1", "b 2"]),
        ("SELECT w FROM e WHERE w IN (SELECT k FROM dim)", ["a", "b"]),
        ("SELECT w FROM e WHERE EXISTS (SELECT 1 FROM dim WHERE k = w)", ["a", "b"]),
        (
            "SELECT w, n FROM e JOIN (SELECT k, count(*) AS n FROM dim GROUP BY k) d ON w = k",
            ["a 1", "b 1"],
        ),
    ];
    for (sql, expected) in cases {
        let folder = Folder::new();
        folder.write("f", "a,1\n");
        let session = session_of("k STRING, v INT", "csv", "", &folder);
        let joined = Joined::start(session, sql, BATCHES, &folder.0);
        joined.expect(&["a", "b"], &expected[..1]);
        folder.write("f", "b,2\n");
        joined.expect(&["a", "b"], &expected[1..]);
    }
}

/// `NOT IN` matches nothing while the table contains a NULL.
#[test]
fn not_in_follows_a_null_that_is_added_and_removed() {
    let folder = Folder::new();
    folder.write("f", "{\"k\":\"a\"}");
    let session = session_of("k STRING", "json", "", &folder);
    let sql = "SELECT w FROM e WHERE w NOT IN (SELECT k FROM dim)";
    let joined = Joined::start(session, sql, BATCHES, &folder.0);
    joined.expect(&["a", "b"], &["b"]);
    folder.write("g", "{\"k\":null}");
    joined.expect(&["a", "b"], &[]);
    folder.remove("g");
    joined.expect(&["a", "b"], &["b"]);
}

/// The result of another query in memory can be the table.
#[test]
fn a_result_in_memory_that_grows_is_seen() {
    for trigger in [BATCHES, CONTINUOUS] {
        let folder = Folder::new();
        let session = Session::new();
        let source = session.memory_stream("d", "k STRING, v BIGINT").unwrap();
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = session.sql("SELECT k, v FROM d").unwrap().write_stream().format("memory");
        let filling = writer.query_name("dim").config(config).start().unwrap();
        let joined = Joined::start(session, ALL, trigger, &folder.0);
        joined.expect(&["a"], &["a -"]);
        source.add([vec![Value::String("a".to_string()), Value::Long(5)]]);
        filling.process_all_available().unwrap();
        joined.expect(&["a"], &["a 5"]);
        filling.stop().unwrap();
    }
}

/// A table that can no longer be read ends the query with an error.
#[test]
fn a_table_that_is_damaged_is_an_error() {
    let folder = Folder::new();
    folder.write("f", "a,1\n");
    let session = session_of("k STRING, v INT", "csv", ", mode 'FAILFAST'", &folder);
    let joined = Joined::start(session, ALL, BATCHES, &folder.0);
    joined.expect(&["a"], &["a 1"]);
    folder.write("f", "a,x\n");
    joined.stream.add([vec![Value::String("a".to_string())]]);
    let error = joined.query.as_ref().unwrap().process_all_available().unwrap_err();
    assert!(
        error.to_string().contains("FAILFAST") || error.condition().contains("MALFORMED"),
        "{error}"
    );
}
