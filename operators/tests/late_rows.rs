//! Which rows are late for aggregates, sessions and deduplication, and the counts of progress
//! reports. In micro-batch mode they equal Spark's, batch by batch.
#![cfg(feature = "sql")]

use millstream::connect::foreach::ForeachWriter;
use millstream::connect::memory::MemoryStream;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

const MINUTE: i64 = 60_000_000;

/// A folder for a checkpoint, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("millstream-late-rows-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&folder));
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A row: time in minutes, a word, a number.
type Event = (i64, &'static str, i64);

enum Step {
    Rows(&'static [Event]),
    Restart,
}

/// The delay of the watermark is 5 minutes. Each step is a batch, which a batch without data may
/// follow.
const STEPS: &[Step] = &[
    Step::Rows(&[(720, "a", 1), (730, "b", 1)]),
    Step::Rows(&[(660, "c", 3), (726, "d", 4)]),
    Step::Restart,
    Step::Rows(&[(690, "x", 3), (740, "d", 4)]),
    Step::Rows(&[(727, "e", 1), (741, "f", 1)]),
];

fn text(row: &[Value]) -> String {
    let one = |value: &Value| match value {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        Value::Long(v) if *v % MINUTE == 0 && *v != 0 => format!("{}m", *v / MINUTE),
        Value::Long(v) => v.to_string(),
        other => format!("{other:?}"),
    };
    row.iter().map(one).collect::<Vec<_>>().join(" ")
}

struct Run {
    session: Session,
    events: MemoryStream,
    query: Option<StreamingQuery>,
    folder: Folder,
    sql: String,
    mode: &'static str,
}

impl Run {
    fn new(name: &str, sql: &str, mode: &'static str) -> Self {
        let session = Session::new();
        let events = session.memory_stream("events", "ts TIMESTAMP, k STRING, n BIGINT").unwrap();
        let e = session.view("events").unwrap().with_watermark("ts", "5 minutes").unwrap();
        e.create_temp_view("e");
        e.drop_duplicates(["k"]).unwrap().create_temp_view("d");
        let (folder, sql) = (Folder::new(name), sql.to_string());
        let mut run = Self { session, events, query: None, folder, sql, mode };
        run.start();
        run
    }

    fn start(&mut self) {
        if let Some(query) = self.query.take() {
            query.stop().unwrap();
        }
        let frame = self.session.sql(&self.sql).unwrap_or_else(|e| panic!("{}: {e}", self.sql));
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = frame.write_stream().output_mode(self.mode).format("memory").query_name("out");
        let writer = writer.option("checkpointLocation", self.folder.0.display());
        self.query =
            Some(writer.trigger(Trigger::AsSoonAsPossible).config(config).start().unwrap());
    }

    /// Executes a step. Returns the output rows, sorted.
    fn step(&mut self, step: &Step) -> Vec<String> {
        let table = self.session.table("out").unwrap();
        table.take();
        match step {
            Step::Restart => self.start(),
            Step::Rows(rows) => self.events.add(rows.iter().map(|(minutes, k, n)| {
                vec![Value::Long(minutes * MINUTE), Value::String(k.to_string()), Value::Long(*n)]
            })),
        }
        let query = self.query.as_ref().unwrap();
        query.process_all_available().unwrap();
        let rows = self.session.table("out").unwrap().rows();
        let mut rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
        rows.sort();
        rows
    }
}

/// The output rows of every step; a restart has none.
fn outputs(name: &str, sql: &str, mode: &'static str) -> Vec<String> {
    let mut run = Run::new(name, sql, mode);
    STEPS.iter().map(|step| run.step(step).join(", ")).collect()
}

/// The expected rows are Spark's for `STEPS`.
#[test]
fn operators_drop_the_rows_that_spark_drops() {
    let cases: &[(&str, &str, &str, [&str; 5])] = &[
        (
            "a-window-that-is-the-only-key",
            "SELECT window.start, count(*) FROM e GROUP BY window(ts, '5 minutes')",
            "update",
            // The window of the row at 690 closed before the restart.
            ["720m 1, 730m 1", "725m 1", "", "740m 1", "740m 2"],
        ),
        (
            "without-the-time-every-row-counts",
            "SELECT k, count(*), sum(n) FROM e GROUP BY k",
            "update",
            ["a 1 1, b 1 1", "c 1 3, d 1 4", "", "d 2 8, x 1 3", "e 1 1, f 1 1"],
        ),
        (
            "a-global-row-also-for-a-batch-without-data",
            "SELECT count(*), sum(n) FROM e",
            "update",
            ["2 2, 2 2", "4 9", "", "6 16, 6 16", "8 18, 8 18"],
        ),
        (
            "sessions-in-mode-complete",
            "SELECT session_window.start, k FROM e GROUP BY session_window(ts, '3 minutes'), k",
            "complete",
            [
                "720m a, 730m b",
                // No additional batch ran for the watermark.
                "660m c, 720m a, 726m d, 730m b",
                "",
                "660m c, 720m a, 726m d, 730m b, 740m d",
                "660m c, 720m a, 726m d, 727m e, 730m b, 740m d, 741m f",
            ],
        ),
        (
            "windows-in-mode-complete",
            "SELECT window.start, count(*) FROM e GROUP BY window(ts, '3 minutes')",
            "complete",
            [
                "720m 1, 729m 1",
                "660m 1, 720m 1, 726m 1, 729m 1",
                "",
                "660m 1, 690m 1, 720m 1, 726m 1, 729m 1, 738m 1",
                "660m 1, 690m 1, 720m 1, 726m 2, 729m 1, 738m 1, 741m 1",
            ],
        ),
        (
            "the-time-is-not-a-key-and-is-read",
            "SELECT ts, k, n FROM d",
            "append",
            ["720m a 1, 730m b 1", "726m d 4", "", "", "741m f 1"],
        ),
        (
            "the-time-is-read-by-a-filter",
            "SELECT k, n FROM d WHERE ts > '1970-01-01'",
            "append",
            ["a 1, b 1", "d 4", "", "", "f 1"],
        ),
        (
            "nobody-reads-the-time",
            "SELECT k, n FROM d",
            "append",
            ["a 1, b 1", "c 3, d 4", "", "x 3", "e 1, f 1"],
        ),
        (
            "nobody-reads-the-time-of-a-view",
            "SELECT k, n FROM (SELECT ts, k, n + 1 AS n FROM d) WHERE n > 0",
            "update",
            ["a 2, b 2", "c 4, d 5", "", "x 4", "e 2, f 2"],
        ),
    ];
    for (name, sql, mode, expected) in cases {
        assert_eq!(outputs(name, sql, mode), expected, "{name}: {sql}");
    }
}

/// Returns for each batch the number of updated keys, of keys in the state after it, and of late
/// rows.
fn counts(name: &str, sql: &str, mode: &'static str) -> Vec<[u64; 3]> {
    let mut run = Run::new(name, sql, mode);
    STEPS[..2].iter().for_each(|step| drop(run.step(step)));
    run.step(&Step::Rows(&[(731, "b", 1), (731, "b", 2), (732, "b", 3), (732, "g", 1)]));
    let reports = run.query.as_ref().unwrap().recent_progress();
    let state = reports.iter().map(|report| &report.committed.state[0]);
    state.map(|state| [state.updated, state.rows, state.late]).collect()
}

/// A key counts once per batch, however many rows it had. Keys that the watermark removes do not
/// count as updated.
#[test]
fn progress_counts_the_keys_that_a_batch_has_written() {
    let by_window = "SELECT window.start, k, count(*) FROM e GROUP BY window(ts, '5 minutes'), k";
    let sessions = "SELECT session_window.start, k, count(*) FROM e GROUP BY session_window(ts, '30 seconds'), k";
    assert_eq!(
        counts("by-key", "SELECT k, count(*) FROM e GROUP BY k", "update"),
        [[2, 2, 0], [0, 2, 0], [2, 4, 0], [2, 5, 0], [0, 5, 0]]
    );
    assert_eq!(
        counts("windows", by_window, "append"),
        [[2, 2, 0], [0, 1, 0], [1, 2, 1], [2, 3, 0], [0, 3, 0]]
    );
    assert_eq!(
        counts("global", "SELECT count(*) FROM e", "update"),
        [[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0]]
    );
    assert_eq!(
        counts("duplicates", "SELECT ts, k FROM d", "append"),
        [[2, 2, 0], [0, 2, 0], [1, 3, 1], [1, 4, 0], [0, 4, 0]]
    );
    // When one session of a key changes, all its sessions count as updated.
    assert_eq!(
        counts("sessions", sessions, "append"),
        [[2, 2, 0], [0, 1, 0], [1, 2, 1], [4, 5, 0], [0, 4, 0]]
    );
}

/// Records the epochs for which it was opened.
struct Opened(Arc<Mutex<Vec<u64>>>);

impl ForeachWriter for Opened {
    fn open(&mut self, _partition: u64, epoch: u64) -> bool {
        self.0.lock().unwrap().push(epoch);
        true
    }
    fn process(&mut self, _row: &[Value]) -> Result<(), String> {
        Ok(())
    }
}

/// A sink that gets rows before an epoch's marker gets the right epoch number with them, also in
/// the first epoch after a restart.
#[test]
fn after_a_restart_a_sink_continues_its_epoch_numbers() {
    let folder = Folder::new("epochs");
    let session = Session::new();
    let events = session.memory_stream("events", "n BIGINT").unwrap();
    for trigger in
        [Trigger::AsSoonAsPossible, Trigger::Continuous { interval_ns: 3_600_000_000_000 }]
    {
        let mut before = None;
        for _ in 0..2 {
            let opened = Arc::new(Mutex::new(Vec::new()));
            let writer = session.sql("SELECT n FROM events").unwrap().write_stream();
            let writer = writer.option("checkpointLocation", folder.0.display());
            let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
            let query = writer.foreach(Opened(opened.clone())).trigger(trigger).config(config);
            let query = query.start().unwrap();
            events.add([vec![Value::Long(1)]]);
            query.process_all_available().unwrap();
            query.stop().unwrap();
            let committed =
                query.recent_progress().iter().map(|p| p.committed.epoch).collect::<Vec<_>>();
            let opened = opened.lock().unwrap().clone();
            assert_eq!(opened, committed, "{trigger:?}");
            assert!(before < opened.first().copied(), "{trigger:?}: {before:?} {opened:?}");
            before = opened.last().copied();
        }
    }
}

/// Captures the output of the console sink.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A restarted continuous query heads the rows on the console with the number of their epoch. The
/// rows are printed before their epoch's marker, so the sink must know the number from the start.
#[test]
fn after_a_restart_the_console_continues_its_epoch_numbers() {
    let (folder, session) = (Folder::new("console"), Session::new());
    let events = session.memory_stream("events", "n BIGINT").unwrap();
    for run in 0..2 {
        let printed = Printed::default();
        let out = printed.clone();
        session.set_console(move || Box::new(out.clone()));
        let writer = session.sql("SELECT n FROM events").unwrap().write_stream().format("console");
        let writer = writer.option("checkpointLocation", folder.0.display());
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let trigger = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
        let query = writer.trigger(trigger).config(config).start().unwrap();
        events.add([vec![Value::Long(run)]]);
        query.process_all_available().unwrap();
        query.stop().unwrap();
        let first = query.recent_progress()[0].committed.epoch;
        let text = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
        let heading = text.lines().find(|line| line.starts_with("Batch: "));
        assert_eq!(heading, Some(format!("Batch: {first}").as_str()), "{text}");
        assert!(run == 0 || first > 0);
    }
}

/// A row that a filter drops does not move the watermark, unless the filter reads the event time.
#[test]
fn rows_dropped_by_a_filter_do_not_move_the_watermark_as_in_spark() {
    for (name, sql, minutes) in [
        ("and", "SELECT ts, k FROM e WHERE ts > '1970-01-01' AND n < 6", 725),
        ("or", "SELECT ts, k FROM e WHERE ts > '1970-01-01' OR n < 6", 745),
        ("computed", "SELECT ts FROM (SELECT ts, upper(k) AS u FROM e) WHERE u <> 'C'", 725),
        (
            "key",
            "SELECT window.start, k FROM e GROUP BY window(ts, '5 minutes'), k \
             HAVING k <> 'c' AND count(*) > 0",
            725,
        ),
    ] {
        let mut run = Run::new(name, sql, "append");
        run.step(&Step::Rows(&[(720, "a", 1), (730, "b", 5), (750, "c", 9)]));
        let watermark_ms = run.query.as_ref().unwrap().watermark_ms();
        assert_eq!(watermark_ms, Some(minutes * MINUTE / 1000), "{sql}");
    }
}
