//! `millstream bench checkpoint`: the cost of checkpoints for a running count with many keys,
//! measured in alternating rounds with and without them, and the time of a restart.

use crate::bench::open_loop::{Job, Load, exchange, on_last_core, wrong};
use crate::failure::Failure;
use crate::latency_format::{latency_json, time};
use crate::stdout::say;
use clap::Args as ClapArgs;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream_engine::cores;
use millstream_engine::measure::latency::Percentiles;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench checkpoint\n  \
    millstream bench checkpoint --keys 5000000 --rounds 1 --seconds 10\n\n\
    All keys are counted once before the measurement. Latency is measured from the intended send\n\
    time; the generator spins on the last core, the query's worker is pinned to the first. Every result\n\
    is checked.")]
pub(super) struct Args {
    /// Number of keys in the state
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Rows per second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    rate: u64,
    /// Length of a round, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Number of rounds, each without and with checkpoints
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Time between two epochs, in milliseconds
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    interval_ms: u64,
    /// Folder for checkpoints; by default the system's temporary folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

struct Round {
    latency: Percentiles,
    /// The durations of the epochs in the measured time: median and longest.
    epoch_ns: (u64, u64),
    marker_ns: (u64, u64),
}

fn start(
    args: &Args,
    ports: (u16, u16),
    checkpoint: Option<&Path>,
) -> Result<StreamingQuery, Failure> {
    let session = Session::new();
    let lines = session.read_stream().format("socket").option("host", "127.0.0.1");
    let lines = lines.option("port", ports.0).load().map_err(wrong)?;
    lines.create_temp_view("lines");
    let counts = session.sql("SELECT value AS word, count(*) AS n FROM lines GROUP BY value");
    let writer = counts.map_err(wrong)?.write_stream().output_mode("update").format("socket");
    let writer = writer.option("host", "127.0.0.1").option("port", ports.1).option("format", "csv");
    let writer = match checkpoint {
        Some(folder) => writer.option("checkpointLocation", folder.display()),
        None => writer,
    };
    Ok(writer.trigger(Trigger::Continuous { interval_ns: args.interval_ms * 1_000_000 }).start()?)
}

fn middle_and_most(mut values: Vec<u64>) -> (u64, u64) {
    values.sort_unstable();
    let middle = values.get(values.len() / 2).copied().unwrap_or(0);
    (middle, values.last().copied().unwrap_or(0))
}

fn round(args: &Args, checkpoint: Option<&Path>) -> Result<Round, Failure> {
    let (input, output) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let ports = (input.local_addr()?.port(), output.local_addr()?.port());
    let query = start(args, ports, checkpoint)?;
    let (mut to, mut from) = (input.accept()?.0, output.accept()?.0);
    let mut preload = Load {
        job: Job::Wordcount,
        words: args.keys,
        first: 0,
        rate: 0,
        lines: args.keys,
        warm_up: args.keys,
    };
    on_last_core(|| exchange(&mut preload, &mut to, &mut from).map(drop))?;
    query.process_all_available()?;
    let lines = args.rate * args.seconds;
    let mut load =
        Load { first: args.keys, rate: args.rate, lines, warm_up: lines / 10, ..preload };
    let before = query.totals().epoch;
    let measured = on_last_core(|| exchange(&mut load, &mut to, &mut from))?;
    let epochs = query.recent_progress();
    let epochs = epochs.iter().map(|p| &p.committed).filter(|c| Some(c.epoch) > before);
    let (durations, markers) = epochs.map(|c| (c.duration_ns, c.marker_ns)).unzip();
    query.stop()?;
    Ok(Round {
        latency: Percentiles::of(&measured.latency),
        epoch_ns: middle_and_most(durations),
        marker_ns: middle_and_most(markers),
    })
}

/// Time from the start of a query on a checkpoint to its first result, which must continue the
/// count.
fn restart(args: &Args, checkpoint: &Path) -> Result<u64, Failure> {
    let (input, output) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let ports = (input.local_addr()?.port(), output.local_addr()?.port());
    let begin = Instant::now();
    let query = start(args, ports, Some(checkpoint))?;
    let (mut to, mut from) = (input.accept()?.0, output.accept()?.0);
    let mut one = Load {
        job: Job::Wordcount,
        words: args.keys,
        first: args.keys + args.rate * args.seconds,
        rate: 0,
        lines: 1,
        warm_up: 0,
    };
    on_last_core(|| exchange(&mut one, &mut to, &mut from).map(drop))?;
    let took_ns = begin.elapsed().as_nanos() as u64;
    query.stop()?;
    Ok(took_ns)
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Runs the measurement and prints the results.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = dir.join(format!("millstream-bench checkpoint-{}", std::process::id()));
    let outcome = rounds(args, &dir);
    drop(std::fs::remove_dir_all(&dir));
    outcome
}

fn rounds(args: &Args, dir: &Path) -> Result<(), Failure> {
    if !args.json {
        say_header(args);
    }
    let (mut off, mut on, mut last) = (Vec::new(), Vec::new(), None);
    for number in 0..args.rounds {
        let without = round(args, None)?;
        if !args.json {
            say_round("off", &without);
        }
        off.push(without);
        let folder = dir.join(number.to_string());
        let with = round(args, Some(&folder))?;
        if !args.json {
            say_round("on", &with);
        }
        if let Some(old) = last.replace(folder) {
            drop(std::fs::remove_dir_all(old));
        }
        on.push(with);
    }
    let Some(folder) = last else { return Ok(()) };
    let checkpoint_bytes = folder_bytes(&folder);
    let restart_ns = restart(args, &folder)?;
    say_result(args, &Outcome { off, on, checkpoint_bytes, restart_ns });
    Ok(())
}

/// The rounds without and with checkpoints, the size of the last checkpoint, and the time of a
/// restart.
struct Outcome {
    off: Vec<Round>,
    on: Vec<Round>,
    checkpoint_bytes: u64,
    restart_ns: u64,
}

fn say_header(args: &Args) {
    say!(
        "running count over {} keys, {} rows a second for {} s, an epoch every {} ms, {} usable cores",
        args.keys,
        args.rate,
        args.seconds,
        args.interval_ms,
        cores::usable()
    );
    say!(
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}   epoch p50, max      marker p50, max",
        "checkpoints",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max"
    );
}

fn say_round(checkpoints: &str, measured: &Round) {
    let p = &measured.latency;
    say!(
        "{checkpoints:<12}{:>10}{:>10}{:>10}{:>10}{:>10}   {}, {}   {}, {}",
        time(p.p50_ns),
        time(p.p90_ns),
        time(p.p99_ns),
        time(p.p999_ns),
        time(p.max_ns),
        time(measured.epoch_ns.0),
        time(measured.epoch_ns.1),
        time(measured.marker_ns.0),
        time(measured.marker_ns.1),
    );
}

fn say_result(args: &Args, Outcome { off, on, checkpoint_bytes, restart_ns }: &Outcome) {
    let p99 = |rounds: &[Round]| {
        middle_and_most(rounds.iter().map(|round| round.latency.p99_ns).collect()).0
    };
    let (off99, on99) = (p99(off), p99(on));
    let ratio = on99 as f64 / off99 as f64;
    if args.json {
        let all = |rounds: &[Round]| {
            rounds.iter().map(|round| latency_json(&round.latency)).collect::<Vec<_>>()
        };
        say!(
            "{}",
            serde_json::json!({
                "keys": args.keys, "rate": args.rate, "seconds": args.seconds, "interval_ms": args.interval_ms,
                "off": all(off), "on": all(on), "p99_ratio": ratio,
                "checkpoint_bytes": checkpoint_bytes, "restart_ns": restart_ns,
            })
        );
        return;
    }
    say!(
        "medians of {} rounds: p99 off {}, on {} (x{ratio:.2})",
        args.rounds,
        time(off99),
        time(on99)
    );
    say!(
        "checkpoint {:.1} MB; restart to the first result {}",
        *checkpoint_bytes as f64 / 1e6,
        time(*restart_ns)
    );
}
