//! The process that `torture soak` pauses and continues: it runs one query and prints a line of
//! JSON about it at short intervals. It exits when its standard input is closed, and so with its
//! parent, or when a result is wrong.

use super::check::{Checker, Covered};
use super::operators::{Kind, Operator, named};
use clap::Args as ClapArgs;
use millstream::session::{Session, StreamingQuery, Trigger, parse_trigger};
use millstream::stream::{
    Aggregate, Combine, Context, Flow, Input, ListState, MapState, Processor, PushError, Query,
    Timer, Ttl, ValueState,
};
use millstream::table::expr::user_function::UserAggregate;
use millstream::table::types::DataType;
use millstream::table::value::Value;
use millstream::{Config, EngineError, WaitProfile};
use serde_json::json;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time between two reports.
const REPORT: Duration = Duration::from_millis(100);
const SECOND_US: i64 = 1_000_000;

#[derive(ClapArgs)]
pub struct ChildArgs {
    operator: String,
    dir: PathBuf,
    #[arg(long)]
    rate: u64,
    #[arg(long)]
    trigger: String,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as i64
}

/// The checker, shared with the sink.
#[derive(Clone)]
struct Shared(Arc<Mutex<Checker>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Checker> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A started query of either kind.
enum Started {
    Sql(StreamingQuery),
    Typed { query: Query, generator: JoinHandle<u64> },
}

impl Started {
    fn failed(&self) -> Option<String> {
        match self {
            Self::Sql(query) => query.exception().map(text),
            Self::Typed { query, .. } => query.exception().map(text),
        }
    }

    /// Number of rows in committed epochs, and the memory of the state.
    fn rows_and_memory(&self) -> (u64, u64) {
        let (rows, committed) = match self {
            Self::Sql(query) => {
                (query.totals().records_in, query.last_progress().map(|last| last.committed))
            }
            Self::Typed { query, .. } => {
                let last = query.last_epoch();
                let end = last.as_ref().and_then(|last| last.offsets.first()?.number().ok());
                (end.unwrap_or(0), last)
            }
        };
        let state = committed.iter().flat_map(|committed| &committed.state);
        (rows, state.map(|operator| operator.memory_bytes).sum())
    }

    /// Ends the query. Returns the number of rows that were sent.
    fn finish(self) -> Result<u64, String> {
        match self {
            Self::Sql(query) => {
                query.stop().map_err(text)?;
                Ok(query.totals().records_in)
            }
            Self::Typed { query, generator } => {
                let sent = generator.join().map_err(|_| "the generator panicked".to_string())?;
                query.await_termination().map_err(text)?;
                Ok(sent)
            }
        }
    }
}

/// Runs a query until standard input ends.
pub fn run(args: &ChildArgs) -> Result<(), String> {
    let operator = named(&args.operator)?;
    let trigger = parse_trigger(&args.trigger).map_err(text)?;
    let checker = Shared(Arc::new(Mutex::new(Checker::new(operator))));
    let stop = Arc::new(AtomicBool::new(false));
    let started = match operator.kind {
        Kind::Aggregate | Kind::Combine | Kind::Processor => {
            start_typed(operator, args, trigger, &checker, &stop)?
        }
        _ => Started::Sql(start_sql(operator, args, trigger, &checker)?),
    };
    let start_us = now_us();
    let (ended, end) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let mut ignored = Vec::new();
        drop(std::io::stdin().lock().read_to_end(&mut ignored));
        drop(ended);
    });
    let mut out = std::io::stdout().lock();
    while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(REPORT) {
        let (rows, memory) = started.rows_and_memory();
        let behind_us =
            now_us() - start_us - (rows as i64).saturating_mul(SECOND_US) / args.rate as i64;
        let mut checker = checker.lock();
        let (p99_us, wrong) = (checker.take_p99_us(), checker.wrong().map(str::to_string));
        drop(checker);
        let wrong = started.failed().or(wrong);
        let report = json!({
            "rows": rows, "memory": memory, "behind_us": behind_us, "p99_us": p99_us, "wrong": wrong,
        });
        writeln!(out, "{report}").map_err(text)?;
        if wrong.is_some() {
            break;
        }
    }
    // ORDERING: relaxed: the generator reads it again soon.
    stop.store(true, Ordering::Relaxed);
    let outcome =
        started.finish().and_then(|sent| checker.lock().finish(sent, args.rate).map(|()| sent));
    let report = match outcome {
        Ok(sent) => json!({ "end": sent }),
        Err(reason) => json!({ "end": 0, "wrong": reason }),
    };
    writeln!(out, "{report}").map_err(text)
}

fn start_sql(
    operator: Operator,
    args: &ChildArgs,
    trigger: Trigger,
    checker: &Shared,
) -> Result<StreamingQuery, String> {
    let session = Session::new();
    session.set("millstream.pin", "false").map_err(text)?;
    session.set("millstream.wait", "park").map_err(text)?;
    session.register_aggregate(kept());
    let rate = session.read_stream().format("rate").option("rowsPerSecond", args.rate);
    rate.load().map_err(text)?.create_temp_view("rate");
    let view = |name: &str, sql: &str| {
        session.sql(sql).map(|frame| frame.create_temp_view(name)).map_err(text)
    };
    view("rows", "SELECT timestamp AS ts, value AS n FROM rate")?;
    view("keys", "SELECT explode(sequence(0L, 99L)) AS id")?;
    // Each row occurs twice in succession.
    let twice =
        "SELECT n, ts, n % 20000 AS key FROM (SELECT n, ts, explode(array(1, 2)) AS e FROM rows)";
    let marked = format!("SELECT n, ts FROM ({twice}) WATERMARK ts DELAY OF INTERVAL 1 SECOND");
    let (mode, frame) = match operator.kind {
        Kind::Sql(mode, sql) => (mode, session.sql(&sql.replace("{rate}", &args.rate.to_string()))),
        Kind::Deduplicate(columns) if columns.contains(&"ts") => (
            "append",
            session.sql(&marked).and_then(|f| f.drop_duplicates(columns.iter().copied())),
        ),
        Kind::Deduplicate(columns) => {
            ("append", session.sql(twice).and_then(|f| f.drop_duplicates(columns.iter().copied())))
        }
        _ => {
            let within =
                |f: millstream::session::DataFrame| f.drop_duplicates_within_watermark(["n"]);
            ("append", session.sql(&marked).and_then(within))
        }
    };
    let mut frame = frame.map_err(text)?;
    if !matches!(operator.kind, Kind::Sql(..)) {
        let columns =
            ["0L AS g", "n AS lo", "n AS hi", "1L AS c", "unix_micros(ts) AS at", "true AS ok"];
        frame = frame.select_expr(columns).map_err(text)?;
    }
    let checker = checker.clone();
    let sink = move |row: &[Value]| {
        if let [
            Value::Long(group),
            Value::Long(lo),
            Value::Long(hi),
            Value::Long(count),
            Value::Long(at_us),
            Value::Boolean(ok),
        ] = *row
        {
            checker.lock().add(Covered { group, lo, hi, count, at_us, ok }, now_us());
        } else {
            let nothing = Covered { group: -1, lo: 0, hi: 0, count: 0, at_us: 0, ok: false };
            checker.lock().add(nothing, now_us());
        }
    };
    let writer = frame.write_stream().output_mode(mode).trigger(trigger).query_name("soak");
    let writer = writer.option("checkpointLocation", args.dir.join("checkpoint").display());
    writer.foreach(sink).start().map_err(text)
}

/// A user-defined aggregate that keeps all values and returns their number.
fn kept() -> UserAggregate {
    let list = DataType::Array(Box::new(DataType::Long));
    UserAggregate::new(
        "kept",
        [DataType::Long],
        DataType::Long,
        [(list, Value::Array(Vec::new()))],
        |state, args| match (state, args) {
            ([Value::Array(values)], [value]) => {
                values.push(value.clone());
                Ok(())
            }
            _ => Err("one list and one value".to_string()),
        },
        |state| match state {
            [Value::Array(values)] => Ok(Value::Long(values.len() as i64)),
            _ => Err("one list".to_string()),
        },
    )
}

// ---- typed flows ----

/// A row's number and its time.
type Record = (u64, i64);

/// Counts rows and keeps the last one.
#[derive(Clone, Copy)]
struct Last;

impl Aggregate<Record> for Last {
    type State = (u64, u64, i64);
    type Output = (u64, u64, i64);
    fn add(&self, state: &mut Self::State, (n, at_us): Record) -> Self::Output {
        self.merge(state, (1, n, at_us))
    }
}

impl Combine<Record> for Last {
    fn merge(&self, state: &mut Self::State, other: Self::State) -> Self::Output {
        *state = (state.0 + other.0, state.1.max(other.1), state.2.max(other.2));
        *state
    }
}

/// Keeps a key's rows of one second in a list, a map and a value, and emits them when a timer
/// fires.
#[derive(Clone)]
struct Collect {
    numbers: ListState<u64>,
    last: MapState<u64, u64>,
    count: ValueState<u64>,
}

impl Processor<u64, Record> for Collect {
    type Output = Covered;

    fn record(
        &mut self,
        _: &u64,
        (n, at_us): Record,
        cx: &mut Context<'_, Covered>,
    ) -> Result<(), EngineError> {
        let count = cx.value(self.count).copied().unwrap_or(0) + 1;
        cx.set_value(self.count, count)?;
        cx.push(self.numbers, n)?;
        cx.insert(self.last, count % 7, n)?;
        cx.set_timer(Timer::EventTime((at_us / SECOND_US + 1) * SECOND_US))
    }

    fn timer(
        &mut self,
        key: &u64,
        timer: Timer,
        cx: &mut Context<'_, Covered>,
    ) -> Result<(), EngineError> {
        let (Timer::EventTime(us) | Timer::ProcessingTime(us)) = timer;
        let numbers: Vec<u64> = cx.list(self.numbers).copied().collect();
        let (Some(lo), Some(hi)) = (numbers.first(), numbers.last()) else { return Ok(()) };
        let count = numbers.len() as u64;
        let is_last = cx.get(self.last, &(count % 7)) == Some(hi);
        let covered = Covered {
            group: *key as i64,
            lo: *lo as i64,
            hi: *hi as i64,
            count: count as i64,
            at_us: us + SECOND_US,
            ok: is_last && cx.value(self.count) == Some(&count),
        };
        cx.clear_list(self.numbers);
        cx.clear_map(self.last)?;
        cx.clear_value(self.count);
        cx.emit(covered)
    }
}

fn start_typed(
    operator: Operator,
    args: &ChildArgs,
    trigger: Trigger,
    checker: &Shared,
    stop: &Arc<AtomicBool>,
) -> Result<Started, String> {
    let instances = if let Kind::Combine = operator.kind { 2 } else { 1 };
    let folder: &Path = &args.dir.join("checkpoint");
    let flow = Flow::new("soak").parallelism(instances).checkpoint(folder);
    let (input, rows) = flow.channel::<Record>();
    let stride = operator.stride;
    let by_key = move |record: &Record| record.0 % stride;
    let sink = {
        let checker = checker.clone();
        move |covered: Covered| checker.lock().add(covered, now_us())
    };
    let running = {
        let sink = sink.clone();
        move |(key, (count, hi, at_us)): (u64, (u64, u64, i64))| {
            let (group, lo) = (key as i64, key as i64);
            sink(Covered { group, lo, hi: hi as i64, count: count as i64, at_us, ok: true });
        }
    };
    match operator.kind {
        Kind::Aggregate => rows.key_by(by_key).aggregate(Last).sink(running),
        Kind::Combine => rows.key_by(by_key).combine(Last).sink(running),
        _ => rows
            .with_watermark(|record| record.1, Duration::from_secs(1))
            .key_by(by_key)
            .process("collect", |states| Collect {
                numbers: states.list("numbers", Ttl::NONE),
                last: states.map("last", Ttl::NONE),
                count: states.value("count", Ttl::NONE),
            })
            .sink(sink),
    }
    let config = Config {
        workers: instances,
        pin: false,
        wait: WaitProfile::Park,
        trigger,
        ..Config::default()
    };
    let query = flow.start(config).map_err(text)?;
    let (rate, stop) = (args.rate, stop.clone());
    let generator = std::thread::spawn(move || generate(input, rate, &stop));
    Ok(Started::Typed { query, generator })
}

/// Pushes rows at their intended times until it is stopped. Returns their number.
fn generate(mut input: Input<Record>, rate: u64, stop: &AtomicBool) -> u64 {
    let (start_us, start_ns) = (now_us(), input.now_ns());
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let since_ns = input.now_ns().saturating_sub(start_ns);
        let due = (u128::from(since_ns) * u128::from(rate) / 1_000_000_000) as u64;
        while next < due {
            let after_ns = (u128::from(next) * 1_000_000_000 / u128::from(rate)) as u64;
            let record = (next, start_us + (after_ns / 1000) as i64);
            match input.try_push_at(record, start_ns + after_ns) {
                Ok(()) => next += 1,
                Err(PushError::Full(_)) => break,
                Err(_) => return next,
            }
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    next
}
