//! Simulated crashes. A seed determines the query, its input and parameters, and the time, number
//! and kind of faults. A failed run prints its seed and can be repeated exactly.
//!
//! There are seven queries. A keyed count and the same aggregate over a typed stream must have
//! exact state; the typed stream uses one level or two. Five queries write files, which must
//! contain each row once: a projection, tumbling windows, sessions, deduplication, and outer joins
//! of a stream with itself. The last four use event time. Each query is restarted after each fault,
//! until it has processed all its input. Each run is in one of the modes, at random, and has one to
//! three instances.

use clap::{Args as ClapArgs, ValueEnum};
use millstream::Config;
use millstream::connect::file::committed_files;
use millstream::connect::memory::MemoryStream;
use millstream::session::{QueryError, Session, Trigger};
use millstream::stream::{Aggregate, Combine, Flow};
use millstream::table::value::Value;
use millstream_engine::env::random::SplitMix;
use millstream_engine::env::simulated_storage::{Fault, PlantedBug};
use millstream_engine::env::{Env, SimEnv};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[derive(ClapArgs)]
pub struct Args {
    /// Number of seeds to run
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Plant a bug and expect it to be found: a skipped fsync of state, of the sink's files or of
    /// the offset log, or a commit that becomes durable before the snapshot
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// Run only this query; by default the seed decides
    #[arg(long, value_enum)]
    query: Option<Query>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Plant {
    StateSync,
    SinkSync,
    OffsetSync,
    CommitBeforeSnapshot,
}

impl Plant {
    const ALL: [Self; 4] =
        [Self::StateSync, Self::SinkSync, Self::OffsetSync, Self::CommitBeforeSnapshot];

    fn bug(self) -> PlantedBug {
        match self {
            Self::StateSync => PlantedBug::SkippedSync("/state/0/"),
            Self::SinkSync => PlantedBug::SkippedSync("/out/part-"),
            Self::OffsetSync => PlantedBug::SkippedSync("/offsets/"),
            Self::CommitBeforeSnapshot => PlantedBug::DelayedSync("/state/0", "/commits"),
        }
    }
}

/// Maximum number of runs of a query. With more, it counts as endless.
const MAX_RUNS: u64 = 60;
const CHECKPOINT: &str = "/sim/checkpoint";
const OUT: &str = "/sim/out";

/// The error of a run with wrong results.
fn wrong(what: String) -> Result<(), String> {
    Err(what)
}

struct World {
    env: Arc<SimEnv>,
    dice: SplitMix,
    session: Session,
    stream: MemoryStream,
    rows: Vec<(String, i64)>,
    /// Number of rows that were passed to the query.
    fed: usize,
    query: Query,
    outer: Outer,
    /// The last value of each key of the typed stream.
    last: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// Count, sum and maximum of a key.
type Known = (i64, i64, i64);

#[derive(Clone)]
struct Knows;

impl Aggregate<(String, i64)> for Knows {
    type State = Known;
    type Output = Known;
    fn add(&self, state: &mut Known, (_, n): (String, i64)) -> Known {
        self.merge(state, (1, n, n))
    }
}

impl Combine<(String, i64)> for Knows {
    fn merge(&self, state: &mut Known, (count, sum, largest): Known) -> Known {
        *state = (state.0 + count, state.1 + sum, state.2.max(largest));
        *state
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Query {
    /// A keyed count in complete mode
    Count,
    /// A keyed aggregate of a typed stream, in one level or two
    Typed,
    /// A projection
    Copy,
    /// Tumbling windows
    Windows,
    /// Session windows
    Sessions,
    /// Deduplication
    Duplicates,
    /// A stream joined with itself: left, right or full outer
    Joined,
}

/// The kind of an outer join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    Left,
    Right,
    Full,
}

impl Outer {
    fn sql(self) -> &'static str {
        match self {
            Self::Left => "LEFT JOIN",
            Self::Right => "RIGHT JOIN",
            Self::Full => "FULL JOIN",
        }
    }
}

/// The number of the last row of queries with windows, sessions or joins. Its time is far later
/// than all others.
const END: i64 = 1_000_000;
/// A row's time in seconds: up to 3 seconds out of order.
fn time(n: i64) -> i64 {
    100 + n - (n * 7) % 4
}

impl Query {
    fn sql(self, outer: Outer) -> String {
        let timed = "(SELECT timestamp_seconds(100 + n - (n * 7) % 4) AS ts, k, n FROM rows) WATERMARK ts \
            DELAY OF INTERVAL 5 SECONDS";
        match self {
            Self::Count | Self::Typed => {
                "SELECT k, count(*) AS c, sum(n) AS s, max(n) AS m FROM rows GROUP BY k".to_string()
            }
            Self::Copy => "SELECT k, n FROM rows WHERE n >= 0".to_string(),
            Self::Windows => format!(
                "SELECT unix_seconds(window.start) AS s, k, count(*), sum(n) FROM {timed} \
                 GROUP BY window(ts, '10 seconds'), k"
            ),
            Self::Sessions => format!(
                "SELECT unix_seconds(session_window.start), unix_seconds(session_window.end), k, \
                 count(*) FROM {timed} GROUP BY session_window(ts, '4 seconds'), k"
            ),
            Self::Duplicates => format!("SELECT ts, k FROM {timed}"),
            Self::Joined => format!(
                "SELECT a.k AS l, unix_seconds(a.ts) AS x, b.k AS r, unix_seconds(b.ts) AS y \
                 FROM {timed} a {} {timed} b ON a.k = b.k AND b.ts BETWEEN a.ts + INTERVAL 1 SECOND \
                 AND a.ts + INTERVAL 9 SECONDS",
                outer.sql()
            ),
        }
    }

    /// The lines that the query's files must contain.
    fn expected(self, outer: Outer, rows: &[(String, i64)]) -> Vec<String> {
        let mut lines: Vec<String> = match self {
            Self::Count | Self::Typed | Self::Copy => {
                rows.iter().map(|(k, n)| format!("{k},{n}")).collect()
            }
            Self::Windows => {
                let mut groups: BTreeMap<(i64, &str), (i64, i64)> = BTreeMap::new();
                for (k, n) in rows.iter().filter(|(_, n)| *n != END) {
                    let begin = time(*n).div_euclid(10) * 10;
                    let group = groups.entry((begin, k)).or_default();
                    *group = (group.0 + 1, group.1 + n);
                }
                let line = |((begin, k), (count, sum))| format!("{begin},{k},{count},{sum}");
                groups.into_iter().map(line).collect()
            }
            Self::Sessions => {
                let mut by_key: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
                for (k, n) in rows.iter().filter(|(_, n)| *n != END) {
                    by_key.entry(k).or_default().push(time(*n));
                }
                let mut lines = Vec::new();
                for (k, mut times) in by_key {
                    times.sort_unstable();
                    for session in times.chunk_by(|a, b| b - a <= 4) {
                        let (begin, end) = (session[0], session[session.len() - 1] + 4);
                        lines.push(format!("{begin},{end},{k},{}", session.len()));
                    }
                }
                lines
            }
            Self::Duplicates => {
                let all: BTreeSet<(i64, &str)> =
                    rows.iter().map(|(k, n)| (time(*n), k.as_str())).collect();
                all.into_iter().map(|(time, k)| format!("{time},{k}")).collect()
            }
            Self::Joined => {
                let rows: Vec<_> = rows.iter().filter(|(_, n)| *n != END).collect();
                let matches = |a: &(String, i64), b: &(String, i64)| {
                    a.0 == b.0 && (1..=9).contains(&(time(b.1) - time(a.1)))
                };
                let mut lines = Vec::new();
                for a in &rows {
                    let (k, t) = (&a.0, time(a.1));
                    let pairs = rows.iter().filter(|b| matches(a, b));
                    lines.extend(pairs.map(|b| format!("{k},{t},{k},{}", time(b.1))));
                    if outer != Outer::Right && !rows.iter().any(|b| matches(a, b)) {
                        lines.push(format!("{k},{t},,"));
                    }
                    if outer != Outer::Left && !rows.iter().any(|b| matches(b, a)) {
                        lines.push(format!(",,{k},{t}"));
                    }
                }
                lines
            }
        };
        lines.sort();
        lines
    }
}

impl World {
    fn new(seed: u64, only: Option<Query>) -> Result<Self, String> {
        let mut dice = SplitMix(seed ^ 0x5EED);
        let session = Session::new();
        let text = |error: millstream::table::error::PlanError| error.to_string();
        let stream = session.memory_stream("rows", "k STRING, n BIGINT").map_err(text)?;
        let rows = (0..dice.below(120)).map(|n| (format!("k{}", dice.below(12)), n as i64));
        let mut rows: Vec<_> = rows.collect();
        let query = match dice.below(12) {
            10 | 11 => Query::Joined,
            0..3 => Query::Count,
            8 | 9 => Query::Typed,
            3 | 4 => Query::Copy,
            5 => Query::Windows,
            6 => Query::Sessions,
            _ => Query::Duplicates,
        };
        let query = only.unwrap_or(query);
        let outer = match seed % 3 {
            0 => Outer::Left,
            1 => Outer::Right,
            _ => Outer::Full,
        };
        if matches!(query, Query::Windows | Query::Sessions | Query::Joined) {
            rows.push(("end".to_string(), END));
        }
        let (env, last) = (Arc::new(SimEnv::new(seed)), Arc::default());
        Ok(Self { env, dice, session, stream, rows, fed: 0, query, outer, last })
    }

    /// Runs the query until it ends or a fault occurs, with a random parallelism and trigger.
    fn start(&mut self) -> Result<(), QueryError> {
        let parallelism = 1 + self.dice.below(3) as usize;
        self.session.set("millstream.parallelism", &parallelism.to_string())?;
        let interval_ns = 1 + self.dice.below(40_000_000);
        let trigger = match self.dice.below(4) {
            0 => Trigger::AsSoonAsPossible,
            1 => Trigger::ProcessingTime { interval_ns },
            _ => Trigger::Continuous { interval_ns },
        };
        if std::env::var_os("TORTURE_DEBUG").is_some() {
            eprintln!("{:?}, {trigger:?}, parallelism {parallelism}", self.query);
        }
        if self.query == Query::Typed {
            return self.start_typed(parallelism, trigger);
        }
        let mut frame = self.session.sql(&self.query.sql(self.outer))?;
        if self.query == Query::Duplicates {
            frame = frame.drop_duplicates(["ts", "k"])?;
            frame = frame.select_expr(["unix_seconds(ts) AS s", "k"])?;
        }
        let writer = frame.write_stream().trigger(trigger);
        let writer = writer.option("checkpointLocation", CHECKPOINT);
        let writer = if self.query == Query::Count {
            writer.output_mode("complete").format("memory").query_name("out")
        } else {
            writer.output_mode("append").format("csv").option("path", OUT)
        };
        writer.simulate(&self.env, self.dice.next())
    }

    /// Runs the query over a typed stream until it ends or a fault occurs, with one level or two.
    fn start_typed(&mut self, parallelism: usize, trigger: Trigger) -> Result<(), QueryError> {
        let flow = Flow::new("typed").parallelism(parallelism).checkpoint(CHECKPOINT);
        let keyed = flow.items(self.rows[..self.fed].to_vec()).key_by(|(key, _)| key.clone());
        let last = self.last.clone();
        let sink = move |(key, known): (String, Known)| {
            last.lock().unwrap_or_else(|p| p.into_inner()).insert(key, known);
        };
        if self.dice.below(2) == 0 {
            keyed.aggregate(Knows).sink(sink);
        } else {
            keyed.combine(Knows).sink(sink);
        }
        let config = Config { workers: parallelism, trigger, ..Config::default() };
        Ok(flow.simulate_in(config, &self.env, self.dice.next())?)
    }

    /// Adds some of the input to the stream.
    fn feed(&mut self, fed: &mut usize) {
        let more = self.dice.below(self.rows.len() as u64 + 1) as usize;
        let to = (*fed + more).min(self.rows.len());
        let rows = self.rows[*fed..to].iter();
        self.stream.add(rows.map(|(k, n)| vec![Value::String(k.clone()), Value::Long(*n)]));
        *fed = to;
        self.fed = to;
    }

    fn check_counts(&self) -> Result<(), String> {
        let mut expected: BTreeMap<String, Known> = BTreeMap::new();
        for (key, n) in &self.rows {
            let entry = expected.entry(key.clone()).or_insert((0, 0, i64::MIN));
            *entry = (entry.0 + 1, entry.1 + n, entry.2.max(*n));
        }
        if self.query == Query::Typed {
            let got = self.last.lock().unwrap_or_else(|p| p.into_inner()).clone();
            return if got == expected {
                Ok(())
            } else {
                wrong(format!("expected {expected:?}, got {got:?}"))
            };
        }
        let table = self.session.table("out").ok_or("the sink has no table")?;
        let got: BTreeMap<String, Known> = table
            .rows()
            .into_iter()
            .filter_map(|row| match row.as_slice() {
                [Value::String(k), Value::Long(c), Value::Long(s), Value::Long(m)] => {
                    Some((k.clone(), (*c, *s, *m)))
                }
                _ => None,
            })
            .collect();
        // In continuous mode, a run without new input prints nothing.
        if got == expected || (got.is_empty() && !self.rows.is_empty()) {
            Ok(())
        } else {
            wrong(format!("expected {expected:?}, got {got:?}"))
        }
    }

    /// Checks all state: one more run over one more row emits every value.
    fn last_row(&mut self) -> Result<(), String> {
        self.env.sim_storage().recover();
        self.rows.push(("last".into(), 1));
        self.stream.add([vec![Value::String("last".into()), Value::Long(1)]]);
        if self.query == Query::Typed {
            // The query emits values only for keys in its input.
            let keys: BTreeSet<String> = self.rows.iter().map(|(key, _)| key.clone()).collect();
            self.rows.extend(keys.into_iter().map(|key| (key, 1)));
            self.fed = self.rows.len();
        }
        self.start().map_err(|error| format!("last run: {error}"))?;
        self.check_counts()
    }

    fn check_files(&self) -> Result<(), String> {
        let storage = self.env.storage();
        let files = committed_files(storage, Path::new(OUT)).map_err(|e| e.to_string())?;
        let mut got = Vec::new();
        for path in files.unwrap_or_default() {
            let bytes = storage.read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let text = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_string())?;
            got.extend(text.lines().map(str::to_string));
        }
        got.sort();
        let expected = self.query.expected(self.outer, &self.rows);
        if got == expected { Ok(()) } else { wrong(format!("expected {expected:?}, got {got:?}")) }
    }
}

/// The totals of one seed, or of several.
#[derive(Default)]
struct Outcome {
    runs: u64,
    faults: u64,
    /// Number of seeds that ended with a compacted state.
    compacted: u64,
}

fn one(seed: u64, only: Option<Query>, plant: Option<Plant>) -> Result<Outcome, String> {
    let mut world = World::new(seed, only)?;
    let storage = world.env.sim_storage().clone();
    if let Some(plant) = plant {
        storage.plant(plant.bug());
    }
    let (mut fed, mut outcome) = (0, Outcome::default());
    loop {
        outcome.runs += 1;
        if outcome.runs > MAX_RUNS {
            return Err(format!("no end after {MAX_RUNS} runs"));
        }
        world.feed(&mut fed);
        // Without a fault, each run ends when it has read its input.
        world.stream.close();
        if outcome.runs < MAX_RUNS / 2 && world.dice.below(8) != 0 {
            let fault = match world.dice.below(8) {
                0 => Fault::FailSync,
                1 => Fault::Full,
                _ => Fault::Crash,
            };
            storage.fault_after(world.dice.below(40), fault);
        }
        let started = world.start();
        if std::env::var_os("TORTURE_DEBUG").is_some() {
            eprintln!("run {} fed {fed} of {}: {started:?}", outcome.runs, world.rows.len());
        }
        match started {
            Ok(()) if fed == world.rows.len() => break,
            Ok(()) => {}
            Err(error) => {
                outcome.faults += 1;
                let text = error.to_string();
                let expected = ["simulated", "CHECKPOINT_WRITE_FAILED"];
                if !expected.iter().any(|part| text.contains(part)) {
                    return Err(text);
                }
            }
        }
        // Either only the process died, or the whole machine failed.
        if world.dice.below(3) != 0 {
            storage.power_failure();
        }
        storage.recover();
    }
    storage.recover();
    let is_snapshot = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "snapshot");
    outcome.compacted = u64::from(storage.files().iter().any(is_snapshot));
    if matches!(world.query, Query::Count | Query::Typed) {
        world.check_counts()?;
        if world.dice.below(2) == 0 {
            storage.power_failure();
        }
        world.last_row()?;
    } else {
        if world.dice.below(2) == 0 {
            storage.power_failure();
        }
        world.check_files()?;
    }
    Ok(outcome)
}

/// Runs seeds on all cores. Returns the first that failed, if any, and totals.
fn many(args: &Args, plant: Option<Plant>) -> (Option<(u64, String)>, Outcome, u64) {
    let Args { first, seeds, query, .. } = *args;
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let totals = Mutex::new((None::<(u64, String)>, Outcome::default(), 0u64));
    let cores = millstream_engine::cores::usable();
    let say = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let result = std::panic::catch_unwind(|| one(seed, query, plant))
                        .unwrap_or_else(|_| Err("panicked".to_string()));
                    let mut totals = totals.lock().unwrap_or_else(|p| p.into_inner());
                    totals.2 += 1;
                    match result {
                        Ok(outcome) => {
                            totals.1.runs += outcome.runs;
                            totals.1.faults += outcome.faults;
                            totals.1.compacted += outcome.compacted;
                        }
                        Err(reason) => {
                            stop.store(true, Ordering::Relaxed);
                            if totals.0.as_ref().is_none_or(|(other, _)| seed < *other) {
                                totals.0 = Some((seed, reason));
                            }
                        }
                    }
                    if totals.2.is_multiple_of(1000) && plant.is_none() {
                        eprintln!("{} seeds in {:.0} s", totals.2, say.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap_or_else(|p| p.into_inner())
}

/// Runs the seeds, and then each planted bug until it is found; with `--plant` only that bug. A
/// single seed, or a single query, runs without planted bugs. An error if a seed fails or a planted
/// bug is not found.
pub fn run(args: &Args) -> Result<(), String> {
    let start = Instant::now();
    if args.plant.is_none() {
        let (failed, totals, ran) = many(args, None);
        if let Some((seed, reason)) = failed {
            let only = args.query.and_then(|query| query.to_possible_value());
            let only = only.map_or(String::new(), |query| format!(" --query {}", query.get_name()));
            return Err(format!(
                "seed {seed}: {reason}\nreproduce: torture simulate --first {seed} --seeds 1{only}"
            ));
        }
        println!(
            "simulation: {ran} seeds, {} runs, {} faults, {} compactions, nothing lost or doubled, {:.1} s",
            totals.runs,
            totals.faults,
            totals.compacted,
            start.elapsed().as_secs_f64()
        );
    }
    // Planted bugs are searched in all queries, because a bug may affect only some of them.
    if args.plant.is_none() && (args.seeds == 1 || args.query.is_some()) {
        return Ok(());
    }
    for plant in Plant::ALL.into_iter().filter(|p| args.plant.is_none_or(|wanted| wanted == *p)) {
        match many(args, Some(plant)) {
            (Some((seed, reason)), _, ran) => {
                let reason: String = reason.chars().take(160).collect();
                println!("planted {plant:?}: found after {ran} seeds, by seed {seed}: {reason}");
            }
            (None, ..) => {
                return Err(format!("planted {plant:?}: not found in {} seeds", args.seeds));
            }
        }
    }
    Ok(())
}
