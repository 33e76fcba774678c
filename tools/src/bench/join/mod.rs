//! `millstream bench join`: joins of two streams. Measures the stage alone, whole queries in this
//! process, and queries over sockets, and compares them with a hand-written symmetric hash join in
//! the same run.

mod by_hand;
mod jobs;
mod query;
mod sockets;
mod stage;

use crate::bench::figure::{self, Figure};
use crate::failure::Failure;
use crate::stdout::say;
use clap::{Args as ClapArgs, ValueEnum};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench join\n  \
    millstream bench join --part stage\n  \
    millstream bench join --quick --json\n\n\
    Each figure is compared with a hand-written join: a hash table of both sides' rows, without\n\
    expressions, late rows, checkpoints and bounded steps. Every match is counted; a wrong number of\n\
    matches ends the run.")]
pub(super) struct Args {
    /// The part to measure; by default all
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Use 1% of the rows and one second per rate, to check that everything works
    #[arg(long)]
    quick: bool,
    /// Buffered rows per side
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(1_000..=100_000_000))]
    rows: i64,
    /// Rows per second and side of the latency measurement in this process
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(100..=5_000_000))]
    rate: i64,
    /// Seconds per rate
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=3600))]
    seconds: i64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The stage alone: probe, insert, expiry, memory
    Stage,
    /// Latency from the row that completes a match to the sink, in this process
    Latency,
    /// Rows per second on one core
    Throughput,
    /// Two streams over sockets
    Sockets,
}

/// Runs the measurement and prints the results.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (rows, seconds) =
        if args.quick { (args.rows.min(10_000), 1) } else { (args.rows, args.seconds) };
    let wanted = |part: Part| args.part.is_none_or(|only| only == part);
    let mut figures = Vec::new();
    if wanted(Part::Stage) {
        on_first_core(|| {
            stage::probe_and_insert(rows, &mut figures)?;
            stage::memory(rows, &mut figures)?;
            stage::probe_by_range((rows / 10).max(1_000), &mut figures)?;
            stage::expiry(rows, &mut figures)
        })?;
    }
    if wanted(Part::Latency) {
        let rate = if args.quick { args.rate.min(5_000) } else { args.rate };
        jobs::latency(&jobs::Load { buffered: rows, rate, seconds }, &mut figures)?;
    }
    if wanted(Part::Throughput) {
        jobs::throughput(rows * 5, &mut figures)?;
    }
    if wanted(Part::Sockets) {
        let (rate, rounds) = if args.quick { (1_000, 1) } else { (10_000, 3) };
        sockets::run(rate, seconds as u64, rounds, &mut figures)?;
    }
    if args.json {
        let figures: Vec<_> = figures.iter().map(Figure::json).collect();
        say!("{}", serde_json::json!({ "job": "join", "rows": rows, "figures": figures }));
        return Ok(());
    }
    figure::print(&figures);
    say!("every match was counted");
    Ok(())
}

/// Runs `body` on a new thread that is pinned to the first core that the process may use, and
/// returns its result. A panic is passed on.
fn on_first_core(body: impl FnOnce() -> Result<(), Failure> + Send) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let pinned = || {
            if let Some(core) = millstream_engine::cores::allowed().first().copied() {
                millstream_engine::cores::pin(core);
            }
            body()
        };
        // A panic of the measurement is re-raised here.
        scope.spawn(pinned).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
