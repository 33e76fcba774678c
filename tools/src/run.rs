//! `millstream run` and `millstream explain`.

use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::stdout::say;
use clap::Args;
use millstream::session::{
    OnQueryFailure, Overrides, QueryError, Session, StreamingQuery, Totals, WaitingRows,
    parse_trigger,
};
use millstream::table::datetime::Tz;
use millstream::table::types::DataType;
use millstream::table::value::Value;
use millstream_engine::cores::parse_list;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Args)]
#[command(after_help = "Example:\n  \
    millstream run wordcount.sql --trigger continuous=200ms --set millstream.wait=spin\n  \
    millstream run wordcount.sql --checkpoint /var/lib/wordcount --progress progress.jsonl")]
pub(crate) struct RunArgs {
    /// The job file; `-` reads standard input
    job: PathBuf,
    /// Override the trigger: continuous=1s, asap, processing-time=500ms, once, available-now
    #[arg(long, value_name = "SPEC")]
    trigger: Option<String>,
    /// A setting, like `SET key = value` in the job; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Checkpoint directory: a restarted job resumes from it. For one query this is its
    /// `checkpointLocation`, for several queries its parent folder
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Run on these cores only, in the syntax of `taskset`: `0-3,6`
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Write a JSON line per committed epoch to this file, with Spark's field names; `-` is
    /// standard error
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
    /// Show no progress on a terminal
    #[arg(long, short)]
    quiet: bool,
}

/// Restricts this process to some cores; on systems other than Linux does nothing.
pub(crate) fn restrict_to(cores: &str) -> Result<(), Failure> {
    let list = parse_list(cores).map_err(|error| {
        Failure::Wrong(format!("--cores {cores}: {error}. Write a list such as 0-3,6"))
    })?;
    Ok(millstream_engine::cores::restrict_to(&list)?)
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// The job file; `-` reads standard input
    job: PathBuf,
    /// A setting, like `SET key = value` in the job; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The maximum size of a job file, in bytes.
const JOB_BYTES_MAX: u64 = 64 << 20;

/// Reads a job from a file, or from standard input for `-`. Fails if it is not UTF-8, or has more
/// than [`JOB_BYTES_MAX`] bytes: a device such as `/dev/zero` would never end.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let fails = |error| Failure::Wrong(format!("JOB_FILE_UNREADABLE: {}: {error}", path.display()));
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(fails)?),
    };
    let mut text = String::new();
    source.take(JOB_BYTES_MAX + 1).read_to_string(&mut text).map_err(fails)?;
    if text.len() as u64 > JOB_BYTES_MAX {
        let reason = format!("it has more than {JOB_BYTES_MAX} bytes");
        return Err(fails(std::io::Error::other(reason)));
    }
    Ok(text)
}

pub(crate) fn overrides(set: &[String], trigger: Option<&str>) -> Result<Overrides, Failure> {
    let mut overrides = Overrides::default();
    if let Some(spec) = trigger {
        overrides.trigger = Some(parse_trigger(spec).map_err(|e| Failure::Wrong(e.to_string()))?);
    }
    for pair in set {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Failure::Wrong(format!("--set {pair}: write KEY=VALUE")));
        };
        overrides.settings.push((key.to_string(), value.to_string()));
    }
    Ok(overrides)
}

fn wrong(path: &std::path::Path, error: impl std::fmt::Display) -> Failure {
    Failure::Wrong(format!("{}: {error}", path.display()))
}

/// Prints schema, plan and layout of each query.
pub(crate) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let (text, session) = (read(&args.job)?, Session::new());
    let overrides = Overrides { explains: true, ..overrides(&args.set, None)? };
    let queries = session.job(&text, &overrides).map_err(|e| wrong(&args.job, e))?;
    for query in &queries {
        say!("== Query {} ==\n{}", query.name(), query.explain()?);
    }
    Ok(())
}

/// Runs a job until it ends.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let (text, session) = (read(&args.job)?, Session::new());
    session.on_notice(progress::notice);
    session.set_console(|| Box::new(progress::Stdout));
    let mut overrides = overrides(&args.set, args.trigger.as_deref())?;
    if let Some(cores) = &args.cores {
        restrict_to(cores)?;
        overrides.settings.push(("millstream.cores".to_string(), cores.clone()));
    }
    overrides.checkpoint = args.checkpoint.clone();
    let jobs = session.job(&text, &overrides).map_err(|e| wrong(&args.job, e))?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // A second Ctrl-C does not wait for the epoch.
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    handler.map_err(|error| Failure::Failed(format!("cannot catch Ctrl-C: {error}")))?;
    let start = Instant::now();
    let on_failure = session.on_query_failure();
    let (mut queries, mut failures) = (Vec::new(), Failures::default());
    let reports = args.progress.as_deref().map(ProgressFile::open).transpose()?;
    for mut job in jobs {
        if let Some(file) = reports.clone() {
            job = job.on_progress(move |progress| file.write(progress));
        }
        let name = job.name().to_string();
        match job.start() {
            Ok(query) => queries.push(query),
            Err(error) => failures.add(&name, error, queries.iter().map(StreamingQuery::name)),
        }
        if !failures.reasons.is_empty() && on_failure == OnQueryFailure::Stop {
            break;
        }
    }
    let stopped = !failures.reasons.is_empty() && on_failure == OnQueryFailure::Stop;
    if stopped {
        queries.iter().for_each(StreamingQuery::request_stop);
    } else {
        eprintln!("running {}; Ctrl-C stops", names(&queries));
    }
    let outcome = wait(&queries, &stop, on_failure, failures, args.quiet);
    for query in &queries {
        summary(query.name(), &query.totals(), start.elapsed(), outcome.is_err());
    }
    if let Some(lost) = reports.map(|file| file.lost()).filter(|lost| *lost > 0) {
        eprintln!("progress: {lost} reports could not be written");
    }
    outcome
}

/// The output of progress reports, shared by all queries.
#[derive(Clone)]
struct ProgressFile(Arc<Mutex<Reports>>);

/// The file of progress reports.
struct Reports {
    file: Box<dyn Write + Send>,
    /// Number of reports that could not be written.
    lost: u64,
}

impl ProgressFile {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self::to(Box::new(progress::Stderr)));
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| {
            Failure::Wrong(format!("PROGRESS_FILE_UNWRITABLE: {}: {error}", path.display()))
        })?;
        Ok(Self::to(Box::new(file)))
    }

    fn to(file: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Reports { file, lost: 0 })))
    }

    /// The number of reports that could not be written.
    fn lost(&self) -> u64 {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).lost
    }

    /// Writes a report. If this fails, the report is lost and counted, and the query continues. The
    /// first failure is printed immediately.
    fn write(&self, progress: &millstream::session::Progress) {
        let mut reports = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // One call of `write_all`, because a disk that fills up between two calls would leave half
        // a line. Within the call that can still happen.
        let line = format!("{}\n", progress.to_json());
        if let Err(error) = reports.file.write_all(line.as_bytes()) {
            if reports.lost == 0 {
                let lost = "a report cannot be written, the query continues";
                progress::notice(&format!("progress: {lost}: {error}"));
            }
            reports.lost += 1;
        }
    }
}

fn names(queries: &[StreamingQuery]) -> String {
    queries.iter().map(StreamingQuery::name).collect::<Vec<_>>().join(", ")
}

/// The queries of a job that have failed.
#[derive(Default)]
struct Failures {
    reasons: Vec<String>,
    /// Whether a query was rejected before it ran.
    refused: bool,
}

impl Failures {
    /// Records a failure. Reports it at once if other queries are still running.
    fn add<'n>(&mut self, name: &str, error: QueryError, running: impl Iterator<Item = &'n str>) {
        let reason = format!("query {name}: {error}");
        let others: Vec<_> = running.filter(|other| *other != name).collect();
        if !others.is_empty() {
            progress::notice(&format!("failed: {reason}"));
        }
        self.refused |= matches!(error, QueryError::Plan(_));
        self.reasons.push(reason);
    }

    fn outcome(self) -> Result<(), Failure> {
        match (self.reasons.is_empty(), self.refused) {
            (true, _) => Ok(()),
            (false, true) => Err(Failure::Wrong(self.reasons.join("\nerror: "))),
            (false, false) => Err(Failure::Failed(self.reasons.join("\nerror: "))),
        }
    }
}

/// Waits until all queries have ended. When one fails, the others stop or continue, depending on a
/// setting.
fn wait(
    queries: &[StreamingQuery],
    stop: &AtomicBool,
    on_failure: OnQueryFailure,
    mut failures: Failures,
    quiet: bool,
) -> Result<(), Failure> {
    let mut told = false;
    let mut progress = Progress::start(quiet);
    let mut running: Vec<&StreamingQuery> = queries.iter().collect();
    loop {
        let mut ended = Vec::new();
        running.retain(|query| {
            let outcome = query.await_termination_timeout(Duration::from_millis(50));
            let runs = outcome.is_none();
            ended.extend(outcome.map(|outcome| (query.name(), outcome)));
            runs
        });
        for (name, outcome) in ended {
            let Err(error) = outcome else { continue };
            failures.add(name, error.into(), running.iter().map(|query| query.name()));
            if on_failure == OnQueryFailure::Stop {
                running.iter().for_each(|query| query.request_stop());
            }
        }
        progress.show(|| queries.iter().map(|query| query.totals().records_in).sum());
        if running.is_empty() {
            return failures.outcome();
        }
        if stop.load(Ordering::Relaxed) && !std::mem::replace(&mut told, true) {
            // First the stop: the notice may block.
            queries.iter().for_each(StreamingQuery::request_stop);
            progress::notice("stopping at the next epoch (Ctrl-C again: at once)");
        }
    }
}

/// A number of things, such as `1 row` or `2 rows`.
fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn counts(name: &str, progress: &Totals, elapsed: Duration) {
    // Scripts read this line, so the words do not depend on the numbers.
    eprintln!(
        "{name}: {} records in, {} rows out, {} rejected, {} epochs in {:.1} s",
        progress.records_in,
        progress.rows_emitted,
        progress.bad_records,
        progress.epochs,
        elapsed.as_secs_f64()
    );
}

/// The rows that an operator has not emitted when the query ended, and why.
fn waiting_line(waiting: &WaitingRows) -> String {
    let WaitingRows { operator, rows, is_join, watermark_ms, .. } = waiting;
    let watermark = Value::Long(watermark_ms.saturating_mul(1000));
    let at = match watermark.display(&DataType::Timestamp, Tz::UTC) {
        Some(time) if *watermark_ms > 0 => format!("it is at {time} UTC"),
        _ => "it has not advanced yet".to_string(),
    };
    let what = match (is_join, rows) {
        (true, 1) => "1 row of a join is buffered, and its matches are known only",
        (true, _) => "rows of a join are buffered, and their matches are known only",
        (false, 1) => "1 group is not final, and is emitted only",
        (false, _) => "groups are not final, and are emitted only",
    };
    let count = if *rows == 1 { String::new() } else { format!("{rows} ") };
    let them = if *rows == 1 { "it" } else { "them" };
    format!("{count}{what} when the watermark has passed {them} ({at}): {operator}")
}

fn summary(name: &str, progress: &Totals, elapsed: Duration, failed: bool) {
    let latency = &progress.latency;
    if failed && progress.epochs == 0 {
        // The counts are those of committed epochs.
        let seconds = elapsed.as_secs_f64();
        eprintln!("{name}: ended after {seconds:.1} s, before an epoch was committed");
    } else {
        counts(name, progress, elapsed);
    }
    if progress.skipped_paths > 0 {
        let skipped = counted(progress.skipped_paths, "path");
        eprintln!("{name}: {skipped} skipped: not a file");
    }
    if progress.late > 0 {
        let dropped = counted(progress.late, "row");
        eprintln!("{name}: {dropped} dropped as late: the watermark had passed their times");
    }
    for waiting in &progress.waiting {
        eprintln!("{name}: {}", waiting_line(waiting));
    }
    if progress.ahead > 0 {
        let ahead = counted(progress.ahead, "row");
        eprintln!("{name}: {ahead} ahead of the clock by more than maxFutureSkew");
    }
    if progress.permissive_records > 0 {
        let kept = progress.permissive_records;
        let kept = counted(kept, "record");
        eprintln!("{name}: {kept} kept with NULL for fields that could not be read");
    }
    if let Some(connections) = &progress.connections {
        let named = connections.named().into_iter().filter(|(_, count)| *count > 0);
        let named: Vec<_> = named.map(|(name, count)| format!("{name} {count}")).collect();
        if !named.is_empty() {
            eprintln!("{name}: {}", named.join(", "));
        }
    }
    if latency.count > 0 {
        eprintln!(
            "{name}: latency from arrival to sink: {}",
            crate::latency_format::latency_line(latency)
        );
    }
    for stall in &progress.slowest {
        eprintln!("{name}: slow: {stall}");
    }
    for bad in &progress.last_bad_records {
        eprintln!("{name}: {bad}");
    }
}
