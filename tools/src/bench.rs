//! `millstream bench`: the engine beside a bare loop that does the same work over the same two
//! sockets, in alternating rounds of one run.

use crate::Failure;
use crate::load::{Job, Load, Measured, WORDS, drive, latency_json, time};
use clap::{Args as ClapArgs, ValueEnum};
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream_engine::cores;
use millstream_engine::latency::Percentiles;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

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
            let measured = round(args, lines, is_engine)?;
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

fn median(rounds: &[(Percentiles, Measured)], of: fn(&Percentiles) -> u64) -> u64 {
    let mut values: Vec<u64> = rounds.iter().map(|(p, _)| of(p)).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn report(args: &Args, bare: &[(Percentiles, Measured)], engine: &[(Percentiles, Measured)]) {
    let (b50, e50) = (median(bare, |p| p.p50), median(engine, |p| p.p50));
    let (b99, e99) = (median(bare, |p| p.p99), median(engine, |p| p.p99));
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

enum Under {
    Bare(JoinHandle<std::io::Result<()>>),
    Engine(Box<StreamingQuery>),
}

fn round(args: &Args, lines: u64, is_engine: bool) -> Result<Measured, Failure> {
    let (input, output) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let ports = (input.local_addr()?.port(), output.local_addr()?.port());
    let under = if is_engine {
        Under::Engine(Box::new(start_engine(args, ports)?))
    } else {
        Under::Bare(start_bare(args, ports)?)
    };
    let (mut to, mut from) = (input.accept()?.0, output.accept()?.0);
    let (job, rate) = (args.job, args.rate);
    let load = Load { job, words: WORDS, first: 0, rate, lines, warm_up: lines / 10 };
    let last = cores::allowed().last().copied();
    // A thread of its own: what is started from a pinned thread inherits its core.
    let generator = std::thread::Builder::new().name("generator".into()).spawn(move || {
        if let Some(core) = last {
            cores::pin(core);
        }
        drive(&load, &mut to, &mut from)
    })?;
    let measured = generator.join().unwrap_or_else(|_| Err("the generator panicked".into()));
    let measured = measured.map_err(|reason| {
        let why = match &under {
            Under::Engine(query) => query.exception().map(|error| format!(" ({error})")),
            Under::Bare(_) => None,
        };
        Failure::Failed(format!("{reason}{}", why.unwrap_or_default()))
    })?;
    // Both sockets are closed now: the bare loop ends with its input.
    match under {
        Under::Bare(thread) => drop(thread.join()),
        Under::Engine(query) => query.stop()?,
    }
    Ok(measured)
}

fn start_engine(args: &Args, (input, output): (u16, u16)) -> Result<StreamingQuery, Failure> {
    let session = Session::new();
    let wrong = |error: millstream::table::error::PlanError| Failure::Wrong(error.to_string());
    session.set("millstream.wait", args.wait.word()).map_err(wrong)?;
    let lines = session.read_stream().format("socket").option("host", "127.0.0.1");
    let lines = lines.option("port", input).option("atEnd", "stop").load().map_err(wrong)?;
    lines.create_temp_view("lines");
    let (query, mode, format) = match args.job {
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
    let writer =
        session.sql(query).map_err(wrong)?.write_stream().output_mode(mode).format("socket");
    let writer = writer.option("host", "127.0.0.1").option("port", output).option("format", format);
    Ok(writer.trigger(Trigger::Continuous { interval_ns: 1_000_000_000 }).start()?)
}

/// The same work by hand: one thread, two sockets, one buffer each way.
fn start_bare(
    args: &Args,
    (input, output): (u16, u16),
) -> Result<JoinHandle<std::io::Result<()>>, Failure> {
    let mut from = TcpStream::connect(("127.0.0.1", input))?;
    let to = TcpStream::connect(("127.0.0.1", output))?;
    to.set_nodelay(true)?;
    let spin = args.wait == Wait::Spin;
    from.set_nonblocking(spin)?;
    let job = args.job;
    let first = cores::allowed().first().copied();
    let body = move || {
        if let Some(core) = first {
            cores::pin(core);
        }
        let mut to = to;
        let (mut buffer, mut filled, mut out) =
            (vec![0u8; 1 << 16], 0, Vec::with_capacity(1 << 16));
        let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
        loop {
            match from.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::hint::spin_loop();
                    continue;
                }
                Err(_) => return Ok(()),
            }
            let mut begin = 0;
            while let Some(at) = buffer[begin..filled].iter().position(|b| *b == b'\n') {
                bare_line(job, &buffer[begin..begin + at], &mut counts, &mut out);
                begin += at + 1;
            }
            buffer.copy_within(begin..filled, 0);
            filled -= begin;
            if !out.is_empty() {
                to.write_all(&out)?;
                out.clear();
            }
        }
    };
    std::thread::Builder::new().name("bare".into()).spawn(body).map_err(Failure::from)
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
