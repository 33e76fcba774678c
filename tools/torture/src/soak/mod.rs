//! Runs every stateful operator at a constant rate, pauses it (SIGSTOP) and continues it, like a
//! laptop that sleeps or a virtual machine that is suspended. Rows are due at fixed times, so the
//! missed rows arrive in a burst. Soon after, memory, checkpoint folder and latency must return to
//! their previous levels, and no row may be lost.
//!
//! Each query runs in its own process, which reports on its standard output. If the machine
//! cannot reach the rate, the query runs again with half the rate, and the table says so.

mod check;
mod child;
mod measure;
mod operators;

pub use child::{ChildArgs, run as child};

use clap::Args as ClapArgs;
use measure::{Level, Process, Sample, Tolerance};
use millstream_engine::env::random::SplitMix;
use operators::{OPERATORS, Operator, named};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    torture soak                                   # ten minutes, stops of 20 s\n  \
    torture soak --operators collect_list,processor --stop-seconds 60\n  \
    torture soak --seconds 60 --rate 10000 --stop-seconds 1 --print-latency-only\n  \
    torture soak --trigger asap                    # micro-batches\n\n\
    Memory is `VmRSS`, and the state's own figure (`memory_bytes`). A level is the highest of 2 s.\n\
    Exit code 1 if an operator lost a row, or did not return to its levels.")]
pub struct Args {
    /// Approximate total duration; each operator is paused at least once
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Rows per second, sent at fixed times whether or not the query keeps up
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    rate: u64,
    /// How long a process is paused, in seconds
    #[arg(long, default_value_t = 20.0)]
    stop_seconds: f64,
    /// Within how many seconds after a pause all levels must have recovered
    #[arg(long, default_value_t = 30)]
    recover_seconds: u64,
    /// Seconds before the first pause
    #[arg(long, default_value_t = 6.0)]
    warm_up_seconds: f64,
    /// Operators to run, separated by commas; by default all
    #[arg(long, value_delimiter = ',')]
    operators: Vec<String>,
    /// The trigger, as for `millstream run --trigger`
    #[arg(long, default_value = "continuous=100ms")]
    trigger: String,
    /// Print latency and recovery time without judging them, for a busy machine
    #[arg(long)]
    print_latency_only: bool,
    /// Allowed memory after a pause, as a multiple of the memory before, plus 32 MB
    #[arg(long, default_value_t = 1.5)]
    memory_tolerance: f64,
    /// Allowed checkpoint folder after a pause, as a multiple of the size before, plus 4 MB
    #[arg(long, default_value_t = 1.5)]
    folder_tolerance: f64,
    /// Seed that decides when within an epoch a pause begins; printed if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Working folder; by default a new temporary folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The result of one operator.
struct Outcome {
    rate: u64,
    rows: u64,
    before: Level,
    /// The highest level between a pause and the recovery.
    peak: Level,
    after: Level,
    /// The longest time from SIGCONT to the recovery.
    recovery: Duration,
    stops: u64,
    /// A description of the levels that did not recover.
    wrong: Option<String>,
}

/// Why an operator could not be measured.
enum Ended {
    /// The machine does not reach the rate.
    TooSlow(String),
    Failed(String),
}

impl From<String> for Ended {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs each operator and prints a table.
pub fn run(args: &Args) -> Result<(), String> {
    let chosen = match args.operators.as_slice() {
        [] => OPERATORS.to_vec(),
        names => names.iter().map(|name| named(name.trim())).collect::<Result<_, _>>()?,
    };
    let seconds = [args.stop_seconds, args.warm_up_seconds];
    if !seconds.iter().all(|seconds| (0.01..=86_400.0).contains(seconds)) {
        return Err("--stop-seconds and --warm-up-seconds are between 0.01 and 86400".to_string());
    }
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    let dir = args.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("millstream-soak-{}", std::process::id()))
    });
    std::fs::create_dir_all(&dir).map_err(text)?;
    measure::end_on_signal(&dir, args.dir.is_none())?;
    println!("seed {seed}, folder {}, trigger {}", dir.display(), args.trigger);
    println!("before / peak / after a stop; rss and state in MB, folder in MB, p99 in ms");
    println!(
        "| operator | rows/s | rows | stops | rss | state | folder | p99 | recovery | verdict |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---|"
    );
    let mut dice = SplitMix(seed);
    let each = Duration::from_secs(args.seconds) / chosen.len().max(1) as u32;
    let mut failures = Vec::new();
    for operator in chosen {
        let folder = dir.join(operator.name);
        let outcome = soak_at_some_rate(operator, args, each, &folder, &mut dice)?;
        println!("{}", line(operator, args, &outcome));
        if let Some(wrong) = outcome.wrong {
            failures.push(format!("{}: {wrong}", operator.name));
        }
    }
    if args.dir.is_none() {
        std::fs::remove_dir_all(&dir).map_err(text)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n       ")) }
}

/// Halves the rate until the machine reaches it, down to 1,000 to 2,000 rows per second.
fn soak_at_some_rate(
    operator: Operator,
    args: &Args,
    each: Duration,
    folder: &Path,
    dice: &mut SplitMix,
) -> Result<Outcome, String> {
    let mut rate = args.rate;
    loop {
        drop(std::fs::remove_dir_all(folder));
        std::fs::create_dir_all(folder).map_err(text)?;
        let outcome = soak(operator, args, rate, each, folder, dice);
        let kept = args.dir.is_some() && !matches!(&outcome, Err(Ended::TooSlow(_)));
        if !kept {
            drop(std::fs::remove_dir_all(folder));
        }
        match outcome {
            Ok(outcome) => return Ok(outcome),
            Err(Ended::TooSlow(why)) if rate >= 2000 => {
                eprintln!("{}: {why}; again with half of {rate} rows a second", operator.name);
                rate /= 2;
            }
            Err(Ended::TooSlow(why) | Ended::Failed(why)) => {
                let level = Level::default();
                let (before, peak, after) = (level.clone(), level.clone(), level);
                let (recovery, wrong) = (Duration::ZERO, Some(why));
                return Ok(Outcome {
                    rate,
                    rows: 0,
                    before,
                    peak,
                    after,
                    recovery,
                    stops: 0,
                    wrong,
                });
            }
        }
    }
}

fn soak(
    operator: Operator,
    args: &Args,
    rate: u64,
    each: Duration,
    folder: &Path,
    dice: &mut SplitMix,
) -> Result<Outcome, Ended> {
    let begun = Instant::now();
    let mut process = Process::start(operator.name, folder, rate, &args.trigger)?;
    let warm_up = Duration::from_secs_f64(args.warm_up_seconds);
    process.watch(warm_up)?;
    // Rows that arrived during the start-up may still be queued.
    let behind = |process: &Process| process.last().map_or(i64::MAX, |sample| sample.behind_us);
    while behind(&process) > 1_000_000 {
        if begun.elapsed() > warm_up * 4 {
            let behind_s = behind(&process) / 1_000_000;
            return Err(Ended::TooSlow(format!("{behind_s} s behind after the warm-up")));
        }
        process.watch(Duration::from_millis(500))?;
    }
    let before = process.level();
    let tolerance = Tolerance {
        memory: args.memory_tolerance,
        folder: args.folder_tolerance,
        with_latency: !args.print_latency_only,
    };
    let mut outcome = Outcome {
        rate,
        rows: 0,
        before: before.clone(),
        peak: Level::default(),
        after: Level::default(),
        recovery: Duration::ZERO,
        stops: 0,
        wrong: None,
    };
    let stop = Duration::from_secs_f64(args.stop_seconds);
    while outcome.wrong.is_none() && (outcome.stops == 0 || begun.elapsed() + stop < each) {
        // The pause begins at a random moment within an epoch.
        process.watch(Duration::from_micros(dice.below(200_000)))?;
        process.pause(stop)?;
        outcome.stops += 1;
        recover(&mut process, args, &tolerance, &mut outcome)?;
    }
    match process.finish() {
        Ok(rows) => outcome.rows = rows,
        Err(reason) => outcome.wrong = Some(reason),
    }
    Ok(outcome)
}

/// Waits until all levels have returned to those before the pause, or until the time limit, and
/// records which it was in `outcome`.
fn recover(
    process: &mut Process,
    args: &Args,
    tolerance: &Tolerance,
    outcome: &mut Outcome,
) -> Result<(), Ended> {
    let continued = Instant::now();
    let limit = Duration::from_secs(args.recover_seconds);
    // A busy machine has additional time to process the missed rows, and then the usual time to
    // recover.
    let mut since = continued;
    let catch_up = if args.print_latency_only { limit * 4 } else { limit };
    let mut peak = Level::default();
    loop {
        let enough = process.watch(Duration::from_millis(200)).map(|()| process.is_level_known());
        outcome.peak.raise(&process.peak());
        peak.raise(&process.peak());
        let is_behind = process.last().is_none_or(|sample: &Sample| sample.behind_us > 1_000_000);
        if is_behind {
            since = Instant::now();
        }
        let after = process.level();
        let grown = tolerance.grown(&outcome.before, &after);
        if enough? && !is_behind && grown.is_none() {
            outcome.recovery = outcome.recovery.max(continued.elapsed());
            outcome.after = after;
            return Ok(());
        }
        let is_over = match args.print_latency_only {
            true => since.elapsed() > limit || continued.elapsed() > catch_up,
            false => continued.elapsed() > limit,
        };
        if is_over {
            outcome.recovery = continued.elapsed();
            let seconds = continued.elapsed().as_secs();
            // Being too slow is distinguished from growing memory.
            let memory = tolerance.memory_grown(&outcome.before, &peak);
            if is_behind && memory.is_none() {
                let behind_s = process.last().map_or(0, |sample| sample.behind_us / 1_000_000);
                return Err(Ended::TooSlow(format!(
                    "still {behind_s} s behind {seconds} s after a stop"
                )));
            }
            outcome.after = after;
            let what = grown.or(memory).unwrap_or_else(|| "it reports nothing".to_string());
            outcome.wrong = Some(format!("{seconds} s after a stop: {what}"));
            return Ok(());
        }
    }
}

fn line(operator: Operator, args: &Args, outcome: &Outcome) -> String {
    let Outcome { before, peak, after, .. } = outcome;
    let three =
        |of: &dyn Fn(&Level) -> String| format!("{} / {} / {}", of(before), of(peak), of(after));
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let p99 = |level: &Level| {
        level.p99_us.map_or_else(|| "-".to_string(), |us| format!("{:.1}", us as f64 / 1000.0))
    };
    let verdict = match &outcome.wrong {
        Some(wrong) => format!("FAILED: {wrong}"),
        None if outcome.rate < args.rate => "ok, at a lower rate: a slow machine".to_string(),
        None => "ok".to_string(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {:.1} s | {verdict} |",
        operator.name,
        outcome.rate,
        outcome.rows,
        outcome.stops,
        three(&|level| megabytes(level.rss)),
        three(&|level| megabytes(level.memory)),
        three(&|level| megabytes(level.folder)),
        three(&p99),
        outcome.recovery.as_secs_f64(),
    )
}
