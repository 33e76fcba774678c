//! `millstream bench`: the engine beside a bare loop that does the same work over the same two
//! sockets, in alternating rounds of one run.

use crate::Failure;
use crate::load::{
    Job, Load, Measured, Under, WORDS, bare, latency_json, median, round, start_query, time,
};
use clap::{Args as ClapArgs, ValueEnum};
use millstream_engine::cores;
use millstream_engine::latency::Percentiles;
use std::collections::HashMap;
use std::io::Write;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench echo --rate 10000 --seconds 10\n  \
    millstream bench wordcount --wait spin --rounds 5 --json\n\n\
    Latency counts from the intended send time. The generator spins on the last core; the engine's\n\
    worker, or the bare loop, is pinned to the first. `added` is the engine's median less the bare\n\
    loop's. Every result is checked: a lost, doubled or wrong one ends the run with exit code 1.")]
pub(crate) struct Args {
    /// What is measured
    #[arg(value_enum)]
    job: Job,
    /// Lines a second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    rate: u64,
    /// Length of a round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Rounds of bare loop and engine
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How the engine waits; the bare loop spins with `spin` and blocks otherwise
    #[arg(long, value_enum, default_value = "balanced")]
    wait: Wait,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wait {
    Spin,
    Balanced,
    Park,
}

impl Wait {
    fn word(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Balanced => "balanced",
            Self::Park => "park",
        }
    }
}

/// Measures, prints, and fails if a result was wrong.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let lines = args.rate * args.seconds;
    if !args.json {
        println!(
            "{:?}, {} lines a second for {} s, wait {}, {} usable cores; ns from intended send time",
            args.job,
            args.rate,
            args.seconds,
            args.wait.word(),
            cores::usable()
        );
        println!(
            "{:<8}{:>10}{:>10}{:>10}{:>10}{:>10}   {:>9}  lag p99",
            "round", "p50", "p90", "p99", "p99.9", "max", "results/s"
        );
    }
    let (mut bare, mut engine) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        for is_engine in [false, true] {
            let (job, rate) = (args.job, args.rate);
            let mut load = Load { job, words: WORDS, first: 0, rate, lines, warm_up: lines / 10 };
            let start = if is_engine { start_engine } else { start_bare };
            let measured = round(&mut load, |ports| start(args, ports))?;
            let (p, lag) = (Percentiles::of(&measured.latency), Percentiles::of(&measured.lag));
            if !args.json {
                println!(
                    "{:<8}{:>10}{:>10}{:>10}{:>10}{:>10}   {:>9.0}  {}",
                    if is_engine { "engine" } else { "bare" },
                    time(p.p50),
                    time(p.p90),
                    time(p.p99),
                    time(p.p999),
                    time(p.max),
                    measured.achieved,
                    time(lag.p99)
                );
            }
            if is_engine { engine.push((p, measured)) } else { bare.push((p, measured)) }
        }
    }
    report(args, &bare, &engine);
    Ok(())
}

fn middle(rounds: &[(Percentiles, Measured)], of: fn(&Percentiles) -> u64) -> u64 {
    median(rounds.iter().map(|(p, _)| of(p)).collect())
}

fn report(args: &Args, bare: &[(Percentiles, Measured)], engine: &[(Percentiles, Measured)]) {
    let (b50, e50) = (middle(bare, |p| p.p50), middle(engine, |p| p.p50));
    let (b99, e99) = (middle(bare, |p| p.p99), middle(engine, |p| p.p99));
    let added = e50 as i64 - b50 as i64;
    let results: u64 = engine.iter().map(|(_, measured)| measured.results).sum();
    if args.json {
        let rounds = |rounds: &[(Percentiles, Measured)]| {
            rounds.iter().map(|(p, _)| latency_json(p)).collect::<Vec<_>>()
        };
        let report = serde_json::json!({
            "job": format!("{:?}", args.job).to_lowercase(), "rate": args.rate, "seconds": args.seconds,
            "wait": args.wait.word(), "results_checked": results, "bare": rounds(bare), "engine": rounds(engine),
            "p50_added_ns": added, "p50_ratio": e50 as f64 / b50 as f64, "p99_ratio": e99 as f64 / b99 as f64,
        });
        println!("{report}");
        return;
    }
    println!("{results} results of the engine checked: none lost, doubled or out of order");
    println!(
        "medians of {} rounds: p50 bare {}, engine {}, added {:.1} us (x{:.2}); p99 bare {}, engine {} (x{:.2})",
        args.rounds,
        time(b50),
        time(e50),
        added as f64 / 1e3,
        e50 as f64 / b50 as f64,
        time(b99),
        time(e99),
        e99 as f64 / b99 as f64
    );
}

fn start_engine(args: &Args, ports: (u16, u16)) -> Result<Under, Failure> {
    let query = match args.job {
        Job::Echo => (
            "SELECT upper(value) AS value FROM lines WHERE NOT contains(value, 'drop')",
            "append",
            "text",
        ),
        Job::Wordcount => (
            "SELECT word, count(*) AS n FROM (SELECT explode(split(value, ' ')) AS word FROM lines) GROUP BY word",
            "update",
            "csv",
        ),
    };
    start_query(args.wait.word(), query, ports)
}

/// The same work by hand.
fn start_bare(args: &Args, ports: (u16, u16)) -> Result<Under, Failure> {
    let (job, mut counts) = (args.job, HashMap::new());
    let each_line = move |line: &[u8], out: &mut Vec<u8>| bare_line(job, line, &mut counts, out);
    bare(args.wait == Wait::Spin, ports, each_line).map(Under::Bare)
}

fn bare_line(job: Job, line: &[u8], counts: &mut HashMap<Vec<u8>, u64>, out: &mut Vec<u8>) {
    match job {
        Job::Echo => {
            if !line.windows(4).any(|window| window == b"drop") {
                out.extend(line.iter().map(u8::to_ascii_uppercase));
                out.push(b'\n');
            }
        }
        Job::Wordcount => {
            for word in line.split(|b| *b == b' ') {
                let count = match counts.get_mut(word) {
                    Some(count) => count,
                    None => counts.entry(word.to_vec()).or_insert(0),
                };
                *count += 1;
                out.extend_from_slice(word);
                // Writing into memory does not fail.
                let _ = writeln!(out, ",{count}");
            }
        }
    }
}
