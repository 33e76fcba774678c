//! `millstream bench kafka`: from Kafka to Kafka, compared with a loop that consumes one record and
//! produces one, with the round trip of the broker, and with other programs in the same run; and the
//! throughput of a count by key.

mod cluster;
mod jobs;
mod latency;
mod rival;
mod throughput;

use crate::bench::figure::{Figure, Goal, Value, print};
use crate::bench::kafka::cluster::Cluster;
use crate::bench::kafka::jobs::Job;
use crate::bench::kafka::latency::{Contender, EngineOptions, Length, Round, round};
use crate::bench::kafka::rival::Rival;
use crate::bench::socket_job::{Wait, is_small};
use crate::failure::Failure;
use crate::latency_format::{latency_json, median, time};
use crate::stdout::say;
use clap::{Args as ClapArgs, ValueEnum};
use millstream_engine::cores;
use millstream_engine::measure::latency::Percentiles;

#[derive(ClapArgs)]
#[group(id = "kafka")]
#[command(after_help = "Examples:\n  \
    tools/kafka/broker start 9092\n  \
    millstream bench kafka\n  \
    millstream bench kafka --job count --rates 10000 --rounds 5\n  \
    millstream bench kafka --part throughput --records 1000000\n  \
    millstream bench kafka --part latency --warm-up 10 --rival streams=tools/kafka/rivals/streams\n\n\
    Latency is measured from the intended send time of a record to the arrival of its result, for a\n\
    window from the record that closes it. Topics have two partitions; every producer has acks=1,\n\
    linger.ms=0 and at most 5 requests in flight. Every result is checked: a lost, duplicated or\n\
    wrong one ends the run with exit code 1. Rounds in which the generator was late are marked.\n\
    The first round warms up the broker, and is not counted.\n\n\
    A rival is started with the arguments SERVERS JOB INPUT-TOPIC OUTPUT-TOPIC. It prints the line\n\
    'ready' when it reads the input, and ends when its standard input does. It exits with 3 if it\n\
    does not do the job. It is started anew for each round, so give it time to warm up.")]
pub(super) struct Args {
    /// The broker: HOST:PORT
    #[arg(long, default_value = "127.0.0.1:9092")]
    servers: String,
    /// What is measured; everything by default
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// The job; all by default
    #[arg(long, value_enum)]
    job: Option<Job>,
    /// Records per second, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000], value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    rates: Vec<u64>,
    /// Length of a round, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Seconds at the beginning of a round that are not measured; by default a ninth of --seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    warm_up: Option<u64>,
    /// Another program to measure in the same run: NAME=COMMAND
    #[arg(long, value_name = "NAME=COMMAND", value_parser = Rival::parse)]
    rival: Vec<Rival>,
    /// Number of rounds for each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Number of records of the throughput's topic
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
    records: u64,
    /// How the engine's worker waits; the engine's default for Kafka if not given
    #[arg(long, value_enum)]
    wait: Option<Wait>,
    /// Do not pin the engine's worker to a core
    #[arg(long)]
    no_pin: bool,
    /// Give the engine's sink its defaults instead of the bare loop's options
    #[arg(long)]
    default_sink: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From the intended send time to the result
    Latency,
    /// A count by key over a topic
    Throughput,
}

/// The goals for the ratio of the engine to the bare loop.
const P50_GOAL: f64 = 1.15;
const P99_GOAL: f64 = 1.5;
/// The goal for the ratio of the engine's throughput to a bare consumer's.
const THROUGHPUT_GOAL: f64 = 0.8;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let cluster = Cluster::connect(&args.servers)?;
    let (mut figures, mut json) = (Vec::new(), Vec::new());
    if args.part != Some(Part::Throughput) {
        latencies(args, &cluster, &mut figures, &mut json)?;
    }
    if args.part != Some(Part::Latency) {
        throughputs(args, &cluster, &mut figures, &mut json)?;
    }
    if args.json {
        let figures: Vec<_> = figures.iter().map(Figure::json).collect();
        say!("{}", serde_json::json!({ "rounds": json, "figures": figures }));
    } else {
        print(&figures);
    }
    Ok(())
}

fn latencies(
    args: &Args,
    cluster: &Cluster,
    figures: &mut Vec<Figure>,
    json: &mut Vec<serde_json::Value>,
) -> Result<(), Failure> {
    let engine = EngineOptions {
        wait: args.wait.map(Wait::word),
        pin: !args.no_pin,
        with_defaults: args.default_sink,
    };
    if !args.json {
        say!(
            "from Kafka to Kafka for {} s a round, wait {}, {} usable cores; from intended send time",
            args.seconds,
            args.wait.map_or("as by default", Wait::word),
            cores::usable()
        );
        say!(
            "{:<28}{:>10}{:>10}{:>10}{:>10}  {:>9}  {:>9}",
            "",
            "p50",
            "p90",
            "p99",
            "max",
            "lag p99",
            "hiccup"
        );
    }
    let mut contenders = vec![Contender::Hop, Contender::Bare, Contender::Engine];
    // Loads the classes of the broker's virtual machine, and lets it compile them.
    for contender in &contenders {
        let length = Length { rate: 5_000, warm_up: 0.0, seconds: 2 };
        round(cluster, Job::Stateless, contender, length, &engine)?;
    }
    contenders.extend(args.rival.iter().cloned().map(Contender::Rival));
    let warm_up = args.warm_up.map_or(args.seconds as f64 / 9.0, |seconds| seconds as f64);
    let jobs = args.job.map_or(vec![Job::Stateless, Job::Count, Job::Window], |job| vec![job]);
    for &rate in &args.rates {
        for &job in &jobs {
            let length = Length { rate, warm_up, seconds: args.seconds };
            let mut measured = vec![Vec::new(); contenders.len()];
            for _ in 0..args.rounds {
                for (contender, measured) in contenders.iter().zip(&mut measured) {
                    let Some(round) = round(cluster, job, contender, length, &engine)? else {
                        continue;
                    };
                    if args.json {
                        json.push(round_json(job, rate, contender, &round));
                    } else {
                        print_round(job, rate, contender, &round);
                    }
                    measured.push(round.latency);
                }
            }
            let name = format!("{} at {rate}/s", job.name());
            compare(&name, &contenders, &measured, figures);
        }
    }
    Ok(())
}

/// The median over the rounds.
fn middle(rounds: &[Percentiles], of: fn(&Percentiles) -> u64) -> u64 {
    median(rounds.iter().map(of).collect())
}

/// Adds the medians over the rounds. The first three contenders are the hop, the bare loop and the
/// engine; the engine is to be ahead of all others.
fn compare(
    name: &str,
    contenders: &[Contender],
    measured: &[Vec<Percentiles>],
    figures: &mut Vec<Figure>,
) {
    type Of = fn(&Percentiles) -> u64;
    let values: [(&str, Of, Option<f64>); 3] = [
        ("p50", |p| p.p50_ns, Some(P50_GOAL)),
        ("p99", |p| p.p99_ns, Some(P99_GOAL)),
        ("max", |p| p.max_ns, None),
    ];
    for (value, of, goal) in values {
        let [hop, bare, ours] = [0, 1, 2].map(|index: usize| middle(&measured[index], of));
        let ns = |ns: u64| Value::Ns(ns as f64);
        figures.push(Figure::new(format!("{name}: one hop {value}"), ns(hop)));
        figures.push(Figure::new(format!("{name}: engine {value}"), ns(ours)).floor(ns(bare)));
        if let Some(goal) = goal {
            let ratio = Value::Times(ours as f64 / bare.max(1) as f64);
            let figure = Figure::new(format!("{name}: engine / bare loop, {value}"), ratio);
            figures.push(figure.goal(Goal::AtMost(Value::Times(goal))));
        }
        let rivals = contenders.iter().zip(measured).skip(3);
        for (rival, rounds) in rivals.filter(|(_, rounds)| !rounds.is_empty()) {
            let (rival, theirs) = (rival.name(), middle(rounds, of));
            let figure = Figure::new(format!("{name}: {rival} {value}"), ns(theirs));
            figures.push(figure.goal(Goal::AtLeast(ns(ours))));
        }
    }
}

fn is_valid(round: &Round) -> bool {
    is_small(&round.lag, &round.latency)
}

fn print_round(job: Job, rate: u64, contender: &Contender, round: &Round) {
    let p = &round.latency;
    say!(
        "{:<28}{:>10}{:>10}{:>10}{:>10}  {:>9}  {:>9}{}",
        format!("{} {rate}/s {}", job.name(), contender.name()),
        time(p.p50_ns),
        time(p.p90_ns),
        time(p.p99_ns),
        time(p.max_ns),
        time(round.lag.p99_ns),
        time(round.hiccup_ns),
        if is_valid(round) { "" } else { "  the generator was late" }
    );
}

fn round_json(job: Job, rate: u64, contender: &Contender, round: &Round) -> serde_json::Value {
    serde_json::json!({
        "job": job.name(), "rate": rate, "contender": contender.name(),
        "latency": latency_json(&round.latency), "lag": latency_json(&round.lag),
        "hiccup": round.hiccup_ns, "results_checked": round.results, "valid": is_valid(round),
    })
}

fn throughputs(
    args: &Args,
    cluster: &Cluster,
    figures: &mut Vec<Figure>,
    json: &mut Vec<serde_json::Value>,
) -> Result<(), Failure> {
    let topic = throughput::fill(cluster, args.records)?;
    let (mut reads, mut counts, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    // The first reading brings the topic into the page cache.
    throughput::bare(cluster, &topic, args.records, false)?;
    for _ in 0..args.rounds {
        let read = throughput::bare(cluster, &topic, args.records, false)?;
        let count = throughput::bare(cluster, &topic, args.records, true)?;
        let engine = throughput::engine(cluster, &topic, args.records)?;
        if args.json {
            json.push(serde_json::json!({
                "records": args.records, "bare": read, "bare_count": count, "engine": engine,
            }));
        } else {
            say!(
                "{} records of 100 bytes: bare consumer {read:.0}/s, with a count by hand \
                 {count:.0}/s, engine {engine:.0}/s",
                args.records
            );
        }
        reads.push(read as u64);
        counts.push(count as u64);
        ours.push(engine as u64);
    }
    let (read, count, ours) = (median(reads), median(counts), median(ours));
    let rate = |rate: u64| Value::Rate(rate as f64);
    figures.push(Figure::new("count by key from a topic", rate(ours)).floor(rate(read)));
    figures.push(Figure::new("the same by hand", rate(count)).floor(rate(read)));
    let ratio = Value::Times(ours as f64 / read.max(1) as f64);
    let goal = Goal::AtLeast(Value::Times(THROUGHPUT_GOAL));
    figures.push(Figure::new("count by key / bare consumer", ratio).goal(goal));
    Ok(())
}
