//! `millstream test`: runs a job over files or a capture, and compares its rows with expected ones.
//!
//! The job file is the production job: its sources are replaced, the rows of its sinks are
//! collected in this process, and its checkpoint is not used. With `--latency`, the latency from
//! the intended time of each record is checked too. The check is invalid if the p99 of this
//! machine's floor, measured before and after the run, is above `--max-lag`.

mod compare;
mod difference;
mod expected;
mod json_value;
mod junit;
mod latency;
mod sources;

use crate::capture::events::Selection;
use crate::capture::times;
use crate::failure::Failure;
use crate::stdout::say;
use clap::Args as ClapArgs;
use compare::{Comparison, Mode};
use expected::Expected;
use junit::{Case, Verdict};
use latency::Limit;
use millstream::session::{JobQuery, Session, StreamingQuery, is_capture};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The default limit for the 99th percentile of the machine's floor. If the floor is above it, the
/// checks of latencies are invalid.
const LAG_MAX: &str = "1ms";

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream test counts.sql --source lines=lines.txt --expect counts.jsonl --update\n  \
    millstream test counts.sql --source lines=lines.txt --expect counts.jsonl\n  \
    millstream test counts.sql --replay tuesday.capture --expect counts.jsonl --latency \
    'p99<200us'\n  \
    millstream test counts.sql --replay tuesday.capture --expect counts.jsonl \\\n    \
    --compare last-per-key --key word --junit report.xml\n\n\
    Exit codes: 0 passed, 1 failed, 2 invalid job or command line, 3 invalid: the machine could not keep \
    the pace.")]
pub(crate) struct Args {
    /// The job file; `-` reads standard input
    job: PathBuf,
    /// Read the job's socket from this capture
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Read a source of the job from this file or folder; may be repeated
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    source: Vec<(String, PathBuf)>,
    /// The expected rows as JSON lines: a file if the job has one query, otherwise a folder with
    /// QUERY.jsonl for each query
    #[arg(long, value_name = "EXPECTED")]
    expect: PathBuf,
    /// Write the rows to EXPECTED instead of comparing them
    #[arg(long)]
    update: bool,
    /// How rows are compared
    #[arg(long, value_enum, default_value_t = Mode::Multiset)]
    compare: Mode,
    /// The key columns, for per-key and last-per-key
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    key: Vec<String>,
    /// Allowed difference of numbers (1e-9) or times (5ms); may be repeated
    #[arg(long, value_name = "NUMBER|DURATION", value_parser = compare::tolerance)]
    tolerance: Vec<compare::Tolerance>,
    /// Limits for the latency from the intended time to the sink, such as 'p50<50us,p99<200us'
    #[arg(long, value_name = "LIMITS", value_parser = latency::limits)]
    latency: Option<std::vec::Vec<Limit>>,
    /// Replay speed of captures: max, or a factor. The default is max, or 1 with --latency
    #[arg(long, value_name = "SPEED", value_parser = speed)]
    speed: Option<String>,
    /// Limit for the 99th percentile of this machine's floor; above it latencies are not judged
    #[arg(long, value_name = "DURATION", value_parser = times::parse_ns, default_value = LAG_MAX)]
    max_lag: u64,
    #[command(flatten)]
    selection: Selection,
    /// Override the trigger: continuous=1s, asap, processing-time=500ms, once, available-now
    #[arg(long, value_name = "SPEC")]
    trigger: Option<String>,
    /// A setting, like `SET key = value` in the job; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Fail if the job has not processed all data after this time
    #[arg(long, value_name = "DURATION", value_parser = times::parse_ns, default_value = "10m")]
    timeout: u64,
    /// Number of differences to print per query
    #[arg(long, value_name = "N", default_value_t = 20)]
    differences: usize,
    /// Write the verdict to this file, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_string(), PathBuf::from(file)))
        }
        _ => Err("write NAME=FILE, where NAME is the view of the source in the job".to_string()),
    }
}

fn speed(text: &str) -> Result<String, String> {
    crate::capture::replay::Speed::parse(text).map(|_| text.to_string())
}

/// The rows of a query, in the order in which its sink receives them; in complete mode those of the
/// last epoch that has any.
#[derive(Default)]
struct Rows {
    lines: Vec<String>,
    epoch: u64,
}

/// A query of the job, with its collected rows.
struct Taken {
    name: String,
    columns: Vec<String>,
    rows: Arc<Mutex<Rows>>,
}

/// Runs the job and checks its rows and its latency.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    check(args)?;
    let start = Instant::now();
    let session = Session::new();
    let queries = sources::prepare(args, &session)?;
    let expected = Expected::new(&args.expect, queries.iter().map(JobQuery::name), args.update)?;
    let floor = args.latency.as_ref().map(|_| latency::floor());
    let (taken, started) = start_all(queries)?;
    wait(args, &session, &started)?;
    let mut cases = Vec::new();
    for taken in &taken {
        cases.push(answer(args, taken, &expected)?);
    }
    if let (Some(limits), Some(before)) = (&args.latency, floor) {
        let measured = latency::Measured {
            queries: started.iter().map(|q| (q.name().to_string(), q.totals().latency)).collect(),
            send_lag: session.send_lag(),
            floors: [before, latency::floor()],
            lag_max_ns: args.max_lag,
        };
        cases.extend(measured.judge(limits));
    }
    report(args, &cases, start.elapsed())
}

/// Rejects arguments that contradict each other, a source that is named twice, a file that is
/// missing or empty, and a `--replay` that is not a capture.
fn check(args: &Args) -> Result<(), Failure> {
    let wrong = |reason: &str| Err(Failure::Wrong(reason.to_string()));
    let by_key = matches!(args.compare, Mode::PerKey | Mode::LastPerKey);
    if by_key && args.key.is_empty() {
        return wrong("--compare per-key and last-per-key need --key COLUMNS");
    }
    if !by_key && !args.key.is_empty() {
        return wrong("--key needs --compare per-key or last-per-key");
    }
    if args.latency.is_some() && args.speed.as_deref() == Some("max") {
        return wrong("--latency needs a pace: at --speed max no record has an intended time");
    }
    let files = args.replay.iter().chain(args.source.iter().map(|(_, file)| file));
    if let Some(missing) = files.clone().find(|file| !file.exists()) {
        return wrong(&format!("{} does not exist", missing.display()));
    }
    let is_empty = |file: &&PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.len() == 0);
    if let Some(empty) = files.clone().find(is_empty) {
        return wrong(&format!("{} is empty: a source would have no record", empty.display()));
    }
    let mut names: Vec<_> = args.source.iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return wrong(&format!("--source {} is given twice: a source reads one file", twice[0]));
    }
    if let Some(replay) = args.replay.as_ref().filter(|file| !is_capture(file)) {
        return wrong(&format!(
            "--replay {} is not a capture; --source NAME=FILE reads lines, and `millstream \
            import-pcap` \
             converts pcap",
            replay.display()
        ));
    }
    let has_capture = files.clone().any(|file| is_capture(file));
    let selects = args.selection.from.is_some()
        || args.selection.to_time.is_some()
        || args.selection.direction.is_some()
        || !args.selection.connection.is_empty();
    if !has_capture && (selects || args.speed.is_some() || args.latency.is_some()) {
        return wrong(
            "--speed, --latency, --from, --to-time, --direction and --connection need a capture: \
             give --replay FILE, or a capture to --source",
        );
    }
    Ok(())
}

/// Starts all queries. Their rows are collected in this process.
fn start_all(queries: Vec<JobQuery>) -> Result<(Vec<Taken>, Vec<StreamingQuery>), Failure> {
    let (mut all, mut started) = (Vec::new(), Vec::new());
    for query in queries {
        let (name, columns) = (query.name().to_string(), query.columns());
        let (rows, is_complete) = (Arc::new(Mutex::new(Rows::default())), query.is_complete_mode());
        let kept = rows.clone();
        let query = query.take_rows(move |epoch, line| {
            let mut rows = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            // In mode complete an epoch with rows, or without a line, is the whole result.
            if is_complete && (rows.epoch != epoch || line.is_none()) {
                rows.lines.clear();
            }
            rows.epoch = epoch;
            rows.lines.extend(line.map(str::to_string));
        });
        let query = query.map_err(|error| Failure::Wrong(error.to_string()))?;
        started.push(query.start()?);
        all.push(Taken { name, columns, rows });
    }
    Ok((all, started))
}

/// Waits until all available data is processed, at most until the time-out.
fn wait(args: &Args, session: &Session, queries: &[StreamingQuery]) -> Result<(), Failure> {
    let limit = Duration::from_nanos(args.timeout);
    let start = Instant::now();
    let left = || limit.saturating_sub(start.elapsed());
    let ends = session.job_sources().iter().all(|source| source.ends);
    for query in queries {
        // A folder that is read as a stream never ends. A capture with a pace does not have all its
        // data at the start, but it ends.
        let processed = match ends {
            true => Some(Ok(())),
            false if !query.await_captures(left()) => None,
            false => query.process_all_available_timeout(left()),
        };
        if !ends && processed.is_some() {
            query.request_stop();
        }
        match processed.and_then(|done| Some(done.and(query.await_termination_timeout(left())?))) {
            Some(ended) => ended?,
            None => {
                let reason = format!("query {} is not done after --timeout", query.name());
                return Err(Failure::Failed(reason));
            }
        }
    }
    for query in queries {
        let totals = query.totals();
        if totals.bad_records > 0 {
            eprintln!("{}: {} records rejected", query.name(), totals.bad_records);
        }
        totals.last_bad_records.iter().for_each(|bad| eprintln!("{}: {bad}", query.name()));
    }
    Ok(())
}

/// Compares the rows of a query with the expected ones, or with `--update` writes them, which always
/// passes. A key that is not a column is an error.
fn answer(args: &Args, taken: &Taken, expected: &Expected) -> Result<Case, Failure> {
    let rows = taken.rows.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let name = format!("{} answer", taken.name);
    if let Some(missing) = args.key.iter().find(|key| !taken.columns.contains(key)) {
        return Err(Failure::Wrong(format!(
            "--key {missing}: query {} has the columns {}",
            taken.name,
            taken.columns.join(", ")
        )));
    }
    if args.update {
        let kept = compare::kept(args.compare, &args.key, &rows.lines);
        let changed = expected.write(&taken.name, &kept)?;
        let what = if changed { "written" } else { "unchanged" };
        let text = format!("{} rows, {what}", kept.len());
        return Ok(Case { name, verdict: Verdict::Passed, text });
    }
    let comparison = Comparison::new(args.compare, &args.key, &args.tolerance);
    let wanted = expected.read(&taken.name)?;
    let found = comparison.compare(&wanted, &rows.lines);
    let (verdict, text) = match found.is_empty() {
        true => (Verdict::Passed, format!("{} rows", rows.lines.len())),
        false => (Verdict::Failed, difference::text(&found, args.differences)),
    };
    Ok(Case { name, verdict, text })
}

/// Prints the verdict, and chooses the exit code.
fn report(args: &Args, cases: &[Case], elapsed: Duration) -> Result<(), Failure> {
    for case in cases {
        say!("{} {}: {}", case.verdict.word(), case.name, case.text.trim_end());
    }
    if let Some(path) = &args.junit {
        let job = args.job.display().to_string();
        std::fs::write(path, junit::document(&job, cases, elapsed))
            .map_err(|error| Failure::Wrong(format!("--junit {}: {error}", path.display())))?;
    }
    let count = |verdict: Verdict| cases.iter().filter(|case| case.verdict == verdict).count();
    match (count(Verdict::Failed), count(Verdict::Invalid)) {
        (0, 0) => Ok(()),
        (0, _) => {
            Err(Failure::Invalid("TEST_INVALID: this machine could not keep the pace".into()))
        }
        (failed, _) => {
            Err(Failure::Failed(format!("TEST_FAILED: {failed} of {} checks", cases.len())))
        }
    }
}
