//! Jobs over sockets (`millstream bench echo` and `wordcount`): rounds of the engine alternate with
//! rounds of a bare loop that does the same work over the same two sockets.

use crate::bench::hiccups::Hiccups;
use crate::bench::histogram_log::{Recorded, draw, print_plot, write_log};
use crate::bench::open_loop::{
    Job, Load, Measured, SocketQuery, Target, Traffic, WORDS, bare, round, start_query,
};
use crate::failure::Failure;
use crate::latency_format::{latency_json, median, time};
use crate::stdout::say;
use clap::{Args as ClapArgs, ValueEnum};
use millstream::WaitProfile;
use millstream_engine::cores;
use millstream_engine::measure::latency::Percentiles;
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

// Other jobs add their own examples.
#[derive(ClapArgs)]
#[group(id = "sockets")]
#[command(after_help = "Examples:\n  \
    millstream bench echo --rate 10000 --seconds 10\n  \
    millstream bench wordcount --wait spin --rounds 5 --json\n  \
    millstream bench wordcount --sweep\n\n\
    Latency is measured from the intended send time. The generator spins on the last core; the\n\
    engine's worker, or the bare loop, is pinned to the first. Rounds in which the generator was late\n\
    are marked and not counted; if most are marked, the run is invalid (exit code 1). `hiccup` \
    is the\n\
    largest delay of an idle thread that woke up on the worker's core. Every result is checked: a\n\
    lost, duplicated or wrong one ends the run with exit code 1.")]
pub(super) struct Args {
    /// Lines per second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    rate: u64,
    /// Length of a round, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Number of rounds of bare loop and engine
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How the engine waits; the bare loop spins with `spin` and blocks otherwise
    #[arg(long, value_enum, default_value = "balanced")]
    wait: Wait,
    /// Double the rate each round until the engine does not keep up; without the bare loop
    #[arg(long, conflicts_with_all = ["log", "plot"])]
    sweep: bool,
    /// Write the histograms to this file, as a HdrHistogram interval log
    #[arg(long)]
    log: Option<PathBuf>,
    /// Write a plot by percentile to this file, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Processes a line, and appends its output.
pub(super) type ByHand = Box<dyn FnMut(&[u8], &mut Vec<u8>) + Send>;

/// A job over two sockets.
pub(super) trait SocketJob {
    fn name(&self) -> String;
    /// The traffic of a round at a rate.
    fn traffic(&self, rate: u64, seconds: u64) -> Result<Box<dyn Traffic + Send>, Failure>;
    /// The query over the lines of the view `lines`.
    fn query(&self) -> SocketQuery;
    /// A hand-written implementation of the job.
    fn by_hand(&self) -> ByHand;
}

/// How a worker waits, as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Wait {
    /// Never sleeps
    Spin,
    /// Spins for about the duration of a wake-up, then sleeps
    Balanced,
    /// Sleeps immediately
    Park,
}

impl Wait {
    pub fn word(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Balanced => "balanced",
            Self::Park => "park",
        }
    }
}

impl From<Wait> for WaitProfile {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Spin => Self::Spin,
            Wait::Balanced => Self::Balanced,
            Wait::Park => Self::Park,
        }
    }
}

/// A round, with the machine's hiccups during it.
struct Round {
    latency: Percentiles,
    lag: Percentiles,
    hiccup_ns: u64,
    measured: Measured,
}

impl Round {
    /// Whether the generator's lag was small compared with the latency: at most a quarter of it at
    /// the median, and half of it at the 99th percentile.
    fn is_valid(&self) -> bool {
        is_small(&self.lag, &self.latency)
    }
}

pub(super) fn is_small(lag: &Percentiles, latency: &Percentiles) -> bool {
    lag.p50_ns * 4 <= latency.p50_ns && lag.p99_ns * 2 <= latency.p99_ns
}

fn one_round(
    job: &dyn SocketJob,
    args: &Args,
    traffic: &mut (dyn Traffic + Send),
    is_engine: bool,
) -> Result<Round, Failure> {
    let hiccups = Hiccups::watch()?;
    let measured = round(traffic, |ports| {
        if is_engine {
            return start_query(args.wait.word(), &job.query(), ports);
        }
        bare(args.wait == Wait::Spin, ports, job.by_hand()).map(Target::Bare)
    })?;
    let hiccup_ns = hiccups.end().max();
    let (latency, lag) = (Percentiles::of(&measured.latency), Percentiles::of(&measured.lag));
    Ok(Round { latency, lag, hiccup_ns, measured })
}

fn print_head() {
    say!(
        "{:<9}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}   {:>9}  {:>9}  {:>9}",
        "",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "results/s",
        "lag p99",
        "hiccup"
    );
}

fn print_round(name: &str, round: &Round) {
    let p = &round.latency;
    say!(
        "{name:<9}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}   {:>9.0}  {:>9}  {:>9}{}",
        time(p.p50_ns),
        time(p.p90_ns),
        time(p.p99_ns),
        time(p.p999_ns),
        time(p.p9999_ns),
        time(p.max_ns),
        round.measured.achieved,
        time(round.lag.p99_ns),
        time(round.hiccup_ns),
        if round.is_valid() { "" } else { "  INVALID: the generator was late" }
    );
}

/// Runs the measurement and prints the results. Fails if a result was wrong, or unless most rounds
/// of the bare loop and most of the engine were valid.
pub(super) fn run(job: &dyn SocketJob, args: &Args) -> Result<(), Failure> {
    if args.sweep {
        return sweep(job, args);
    }
    if !args.json {
        say!(
            "{}, {} lines a second for {} s, wait {}, {} usable cores; from intended send time",
            job.name(),
            args.rate,
            args.seconds,
            args.wait.word(),
            cores::usable()
        );
        print_head();
    }
    let mut traffic = job.traffic(args.rate, args.seconds)?;
    let begun = SystemTime::now();
    let (mut bare, mut engine) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        for is_engine in [false, true] {
            let round = one_round(job, args, &mut *traffic, is_engine)?;
            let (name, rounds) =
                if is_engine { ("engine", &mut engine) } else { ("bare", &mut bare) };
            if !args.json {
                print_round(name, &round);
            }
            rounds.push(round);
        }
    }
    let recorded = [("bare", &bare), ("engine", &engine)].map(|(name, rounds)| {
        let rounds = rounds.iter().map(|round: &Round| round.measured.latency.clone()).collect();
        Recorded { rounds, ..Recorded::new(name) }
    });
    let both = [&recorded[0], &recorded[1]];
    let what = format!("{}, {} lines a second, wait {}", job.name(), args.rate, args.wait.word());
    if let Some(path) = &args.log {
        let comment = format!("millstream bench: {what}; nanoseconds");
        write_log(path, &comment, (begun, Duration::from_secs(args.seconds)), &both)?;
    }
    if let Some(path) = &args.plot {
        draw(path, &what, &both)?;
    }
    if !args.json {
        print_plot(&both);
    }
    report(job, args, &bare, &engine)
}

/// The conclusion of a sweep: the last rate that the engine kept up with, and the rate that it did
/// not keep up with, in lines per second.
fn conclusion(kept_up: Option<u64>, missed: Option<u64>) -> String {
    match (kept_up, missed) {
        (Some(kept_up), Some(missed)) => {
            format!("the engine keeps up with {kept_up} lines a second, but not with {missed}")
        }
        (Some(kept_up), None) => {
            format!("the engine keeps up with {kept_up} lines a second, the highest rate measured")
        }
        (None, Some(missed)) => {
            format!("the engine does not keep up with {missed} lines a second, the lowest rate")
        }
        (None, None) => "no rate was measured".to_string(),
    }
}

/// Measures rates from 1,000 on, each twice the previous one, until results arrive at less than 97%
/// of the rate that was offered, or a rate is above 4,000,000.
fn sweep(job: &dyn SocketJob, args: &Args) -> Result<(), Failure> {
    const KEEPS_UP: f64 = 0.97;
    if !args.json {
        say!("{}, {} s a rate, wait {}", job.name(), args.seconds, args.wait.word());
        print_head();
    }
    let (mut rate, mut rows) = (1_000, Vec::new());
    let (mut kept_up, mut missed) = (None, None);
    while missed.is_none() && kept_up.is_none_or(|rate| rate <= 4_000_000) {
        let mut traffic = job.traffic(rate, args.seconds)?;
        let round = one_round(job, args, &mut *traffic, true)?;
        let offered = rate as f64 * traffic.results() as f64 / traffic.lines().1 as f64;
        // The run ends with the last result, slightly after the last line.
        let share = round.measured.achieved / offered;
        if !args.json {
            print_round(&rate.to_string(), &round);
        }
        rows.push(serde_json::json!({
            "rate": rate, "achieved": round.measured.achieved, "share": share,
            "latency": latency_json(&round.latency), "valid": round.is_valid(),
        }));
        match share < KEEPS_UP {
            true => missed = Some(rate),
            false => kept_up = Some(rate),
        }
        rate *= 2;
    }
    if args.json {
        say!("{}", serde_json::json!({ "wait": args.wait.word(), "rates": rows }));
    } else {
        say!("{}", conclusion(kept_up, missed));
    }
    Ok(())
}

/// The median over the valid rounds; 0 if there is none.
fn middle(rounds: &[Round], of: fn(&Percentiles) -> u64) -> u64 {
    let valid = rounds.iter().filter(|round| round.is_valid());
    let values: Vec<_> = valid.map(|round| of(&round.latency)).collect();
    if values.is_empty() { 0 } else { median(values) }
}

fn report(
    job: &dyn SocketJob,
    args: &Args,
    bare: &[Round],
    engine: &[Round],
) -> Result<(), Failure> {
    let all = || bare.iter().chain(engine);
    let valid = |rounds: &[Round]| rounds.iter().filter(|round| round.is_valid()).count();
    let is_valid = valid(bare) * 2 > bare.len() && valid(engine) * 2 > engine.len();
    let (b50, e50) = (middle(bare, |p| p.p50_ns), middle(engine, |p| p.p50_ns));
    let (b99, e99) = (middle(bare, |p| p.p99_ns), middle(engine, |p| p.p99_ns));
    let hiccup_ns = all().map(|round| round.hiccup_ns).max().unwrap_or(0);
    let added = e50 as i64 - b50 as i64;
    let results: u64 = engine.iter().map(|round| round.measured.results).sum();
    let ratio = |engine: u64, bare: u64| engine as f64 / bare.max(1) as f64;
    if args.json {
        let rounds = |rounds: &[Round]| {
            let one = |round: &Round| {
                serde_json::json!({
                    "latency": latency_json(&round.latency), "lag": latency_json(&round.lag),
                    "achieved": round.measured.achieved, "hiccup": round.hiccup_ns,
                    "valid": round.is_valid(),
                })
            };
            rounds.iter().map(one).collect::<Vec<_>>()
        };
        let report = serde_json::json!({
            "job": job.name(), "rate": args.rate, "seconds": args.seconds,
            "wait": args.wait.word(), "results_checked": results, "valid": is_valid,
            "bare": rounds(bare), "engine": rounds(engine), "p50_added_ns": added,
            "p50_ratio": ratio(e50, b50), "p99_ratio": ratio(e99, b99), "hiccup": hiccup_ns,
        });
        say!("{report}");
    } else {
        say!("{results} results of the engine checked: none lost, doubled or out of order");
        let (bare_rounds, engine_rounds) = (valid(bare), valid(engine));
        if bare_rounds == 0 || engine_rounds == 0 {
            say!("{bare_rounds} and {engine_rounds} valid rounds: nothing to compare");
        } else {
            say!(
                "medians of {bare_rounds} and {engine_rounds} valid rounds: p50 bare {}, engine {}, \
                 added {:.1} us (x{:.2}); p99 bare {}, engine {} (x{:.2})",
                time(b50),
                time(e50),
                added as f64 / 1e3,
                ratio(e50, b50),
                time(b99),
                time(e99),
                ratio(e99, b99)
            );
        }
        let mut slowest: Vec<_> = engine.iter().flat_map(|round| &round.measured.slowest).collect();
        slowest.sort_by_key(|stall| std::cmp::Reverse(stall.latency_ns));
        say!("the slowest rows within the engine, from reading to writing:");
        slowest.iter().take(5).for_each(|stall| say!("  {stall}"));
        if slowest.is_empty() {
            say!("  no row took 100 us");
        }
    }
    if is_valid {
        return Ok(());
    }
    let reason = "the run is invalid: the generator was late in most rounds, so the latencies \
    are not meaningful. Run it on two free cores (`millstream doctor`)";
    Err(Failure::Failed(reason.to_string()))
}

impl SocketJob for Job {
    fn name(&self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn traffic(&self, rate: u64, seconds: u64) -> Result<Box<dyn Traffic + Send>, Failure> {
        let (job, lines) = (*self, rate * seconds);
        Ok(Box::new(Load { job, words: WORDS, first: 0, rate, lines, warm_up: lines / 10 }))
    }

    fn query(&self) -> SocketQuery {
        let (text, mode, format) = match self {
            Self::Echo => (
                "SELECT upper(value) AS value FROM lines WHERE NOT contains(value, 'drop')",
                "append",
                "text",
            ),
            Self::Wordcount => (
                "SELECT word, count(*) AS n FROM (SELECT explode(split(value, ' ')) AS word FROM lines) GROUP BY word",
                "update",
                "csv",
            ),
        };
        SocketQuery::sql(text, mode, format)
    }

    fn by_hand(&self) -> ByHand {
        let (job, mut counts) = (*self, HashMap::new());
        Box::new(move |line, out| bare_line(job, line, &mut counts, out))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conclusion_of_a_sweep_names_only_measured_rates() {
        let both = "the engine keeps up with 2000 lines a second, but not with 4000";
        assert_eq!(conclusion(Some(2000), Some(4000)), both);
        assert!(!conclusion(Some(4_096_000), None).contains("not"));
        assert!(!conclusion(None, Some(1000)).contains("500"));
        assert!(conclusion(None, Some(1000)).contains("does not keep up with 1000"));
    }

    #[test]
    fn a_late_generator_makes_a_round_invalid() {
        let of = |p50, p99| Percentiles { p50_ns: p50, p99_ns: p99, ..Percentiles::default() };
        assert!(is_small(&of(10, 100), &of(40, 200)));
        assert!(!is_small(&of(11, 100), &of(40, 200)), "in the median");
        assert!(!is_small(&of(10, 101), &of(40, 200)), "in the tail");
    }
}
