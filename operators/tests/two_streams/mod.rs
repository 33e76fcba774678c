//! A query over two streams `l(k, t, v)` and `r(k, t, v)`, run step by step, with restarts.
#![allow(dead_code, reason = "each test uses a part of it")]

use millstream::connect::memory::MemoryStream;
use millstream::session::{QueryError, Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const SECOND: i64 = 1_000_000;
/// The interval is so long that, after the first batch, one runs only when
/// `process_all_available` waits for it.
pub const BATCHES: Trigger = Trigger::ProcessingTime { interval_ns: u64::MAX / 4 };
pub const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 20_000_000 };

/// A key, a time in seconds, a number.
pub type Event = (Option<i64>, Option<i64>, i64);

/// A row without NULLs.
pub fn event(k: i64, t: i64, v: i64) -> Event {
    (Some(k), Some(t), v)
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-two-streams-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The parameters of a query.
#[derive(Clone)]
pub struct Setup {
    pub sql: String,
    /// The delays of the watermarks, in seconds; `None` if a side has no watermark.
    pub delays: [Option<i64>; 2],
    pub parallelism: usize,
    pub parts: usize,
    pub trigger: Trigger,
    pub mode: &'static str,
    pub workers: usize,
    pub settings: Vec<(&'static str, &'static str)>,
}

impl Setup {
    pub fn new(sql: &str, delay: i64, trigger: Trigger) -> Self {
        let delays = [Some(delay); 2];
        let (parallelism, parts, workers) = (1, 1, 1);
        let (sql, mode, settings) = (sql.to_string(), "append", Vec::new());
        Self { sql, delays, parallelism, parts, trigger, mode, workers, settings }
    }

    /// Makes the join emit its results in the order of the rows that complete them.
    pub fn ordered(mut self) -> Self {
        self.settings.push(("millstream.join.ordered", "true"));
        self
    }

    /// A session with both streams as views, and the streams.
    fn opened(&self) -> (Session, [MemoryStream; 2]) {
        let session = Session::new();
        for (key, value) in &self.settings {
            session.set(key, value).unwrap();
        }
        session.set("spark.sql.join.asofJoin.enabled", "true").unwrap();
        let streams = ["l", "r"].map(|name| {
            let schema = "k BIGINT, t TIMESTAMP, v BIGINT";
            let source = format!("{name}0");
            session.memory_stream_in_parts(&source, schema, self.parts).unwrap()
        });
        for (name, delay) in ["l", "r"].into_iter().zip(self.delays) {
            let frame = session.view(&format!("{name}0")).unwrap();
            let frame = match delay {
                Some(delay) => frame.with_watermark("t", &format!("{delay} seconds")).unwrap(),
                None => frame,
            };
            frame.create_temp_view(name);
        }
        (session, streams)
    }

    /// A session with both streams as views.
    pub fn session(&self) -> Session {
        self.opened().0
    }

    pub fn start(self) -> Result<Run, QueryError> {
        let (session, streams) = self.opened();
        let parallelism = self.parallelism;
        let folder = Folder::new();
        let mut run = Run { session, streams, query: None, folder, setup: self, to_files: false };
        run.restart(parallelism)?;
        Ok(run)
    }

    /// Like [`start`](Self::start), with the results in files.
    pub fn start_files(self) -> Result<Run, QueryError> {
        let (session, streams) = self.opened();
        let parallelism = self.parallelism;
        let folder = Folder::new();
        let mut run = Run { session, streams, query: None, folder, setup: self, to_files: true };
        run.restart(parallelism)?;
        Ok(run)
    }
}

/// A running query.
pub struct Run {
    pub session: Session,
    pub streams: [MemoryStream; 2],
    query: Option<StreamingQuery>,
    folder: Folder,
    pub setup: Setup,
    to_files: bool,
}

impl Run {
    /// Stops the query, if it is running.
    pub fn stop(&mut self) -> Result<(), QueryError> {
        match self.query.take() {
            Some(query) => Ok(query.stop()?),
            None => Ok(()),
        }
    }

    /// Starts the query with a parallelism. A running query is stopped first.
    pub fn restart(&mut self, parallelism: usize) -> Result<(), QueryError> {
        self.stop()?;
        self.session.set("millstream.parallelism", &parallelism.to_string()).unwrap();
        let frame = self.session.sql(&self.setup.sql)?;
        let workers = self.setup.workers;
        let config = Config { pin: false, wait: WaitProfile::Park, workers, ..Config::default() };
        let writer = frame.write_stream().output_mode(self.setup.mode);
        let writer = writer.query_name("out").trigger(self.setup.trigger).config(config);
        let writer = match self.to_files {
            true => writer.format("csv").option("path", self.folder.0.join("files").display()),
            false => writer.format("memory"),
        };
        let checkpoint = self.folder.0.join("checkpoint");
        let writer = writer.option("checkpointLocation", checkpoint.display());
        self.query = Some(writer.start()?);
        Ok(self.query().process_all_available()?)
    }

    pub fn query(&self) -> &StreamingQuery {
        self.query.as_ref().unwrap()
    }

    /// The output since the last call, sorted.
    pub fn take(&self) -> Vec<String> {
        let mut rows = self.take_in_order();
        rows.sort();
        rows
    }

    /// The output since the last call, in the order of emission.
    pub fn take_in_order(&self) -> Vec<String> {
        let rows = self.session.table("out").unwrap().take();
        rows.iter().map(|row| text(row)).collect()
    }

    /// The lines of the output files, sorted.
    pub fn files(&self) -> Vec<String> {
        let folder = self.folder.0.join("files");
        let frame = self.session.read().format("text").option("path", folder.display());
        let rows = frame.load().unwrap().collect().unwrap();
        let line = |row: &Vec<Value>| match &row[0] {
            Value::String(line) => line.clone(),
            other => format!("{other:?}"),
        };
        let mut lines: Vec<_> = rows.iter().map(line).collect();
        lines.sort();
        lines
    }

    /// Waits until an epoch has ended.
    pub fn wait_for_epoch(&self) {
        let epoch = || self.query().last_progress().map(|progress| progress.committed.epoch);
        let (begun, before) = (Instant::now(), epoch());
        while epoch() == before {
            let exception = self.query().exception();
            assert!(begun.elapsed() < Duration::from_secs(60), "no epoch ends: {exception:?}");
            std::thread::yield_now();
        }
    }

    /// Adds rows to both streams at once. Returns the output.
    pub fn step(&self, l: &[Event], r: &[Event]) -> Vec<String> {
        self.add(l, r);
        self.query().process_all_available().unwrap();
        if self.to_files { Vec::new() } else { self.take() }
    }

    /// Adds rows to both streams at once.
    pub fn add(&self, l: &[Event], r: &[Event]) {
        for (stream, rows) in self.streams.iter().zip([l, r]) {
            let long = |v: Option<i64>| v.map_or(Value::Null, Value::Long);
            stream.add(
                rows.iter()
                    .map(|(k, t, v)| vec![long(*k), long(t.map(|t| t * SECOND)), Value::Long(*v)]),
            );
        }
    }

    /// Continuous mode: waits until there are `wanted` rows, for at most 20 seconds. Returns all
    /// rows, sorted.
    pub fn wait_for(&self, mut got: Vec<String>, wanted: usize) -> Vec<String> {
        let begun = Instant::now();
        while got.len() < wanted && begun.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(Duration::from_millis(1));
            got.extend(self.take());
        }
        got.sort();
        got
    }
}

pub fn text(row: &[Value]) -> String {
    let one = |value: &Value| match value {
        Value::Null => "-".to_string(),
        Value::Long(v) => v.to_string(),
        other => format!("{other:?}"),
    };
    row.iter().map(one).collect::<Vec<_>>().join(" ")
}
