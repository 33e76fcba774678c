//! `millstream bench channel`: the latency that a service sees, from the push of a record to its
//! key's running count in the same process.

use super::hiccups::Hiccups;
use crate::bench::open_loop::{note, on_last_core};
use crate::bench::socket_job::Wait;
use crate::failure::Failure;
use crate::latency_format::{latency_json, latency_line, median, median_by, time};
use crate::stdout::say;
use clap::Args as ClapArgs;
use hdrhistogram::Histogram;
use millstream::stream::{Count, Flow};
use millstream::{Config, WaitProfile};
use millstream_engine::cores;
use millstream_engine::measure::latency::{Percentiles, histogram};
use millstream_engine::sync::waker::Waker;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench channel --wait spin --rate 100000\n  \
    millstream bench channel --wait balanced --rate 100            # each record from idle\n  \
    millstream bench channel --rate 0.1 --records 50 --rounds 1    # after 10 s of silence\n\n\
    Latency is measured from the intended time of a push until the same, spinning thread receives the\n\
    result. For comparison the machine's raw wake-up latency is measured at the same rate: a thread\n\
    blocks in a poll, as a worker does, and records when it wakes up.")]
pub(super) struct Args {
    /// Records per second
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    /// Records per round
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000_000))]
    records: u64,
    /// Number of distinct keys
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Number of rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How the worker waits
    #[arg(long, value_enum, default_value = "balanced")]
    wait: Wait,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Maximum wait for a missing result.
const PATIENCE: Duration = Duration::from_secs(20);

struct Round {
    latency: Histogram<u64>,
    lag: Histogram<u64>,
    wake: Histogram<u64>,
    hiccups: Histogram<u64>,
    /// CPU time of all threads except the generator's, as a share of one core.
    cpu_share: Option<f64>,
}

impl Args {
    fn intended(&self, seq: u64) -> Duration {
        Duration::from_secs_f64(seq as f64 / self.rate)
    }
}

/// The CPU time of the threads of this process, except the calling one; `None` if the system does
/// not report it.
fn others_ran_ns() -> Option<u64> {
    let ran = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let own = ran(std::path::Path::new("/proc/thread-self"))?;
    let mut all = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        all += ran(&task.ok()?.path())?;
    }
    Some(all.saturating_sub(own))
}

fn engine(args: &Args, round: &mut Round) -> Result<(), Failure> {
    let flow = Flow::new("channel");
    let (mut input, keys) = flow.channel::<u64>();
    let (sink, mut output) = flow.output();
    keys.key_by(|key| *key).aggregate(Count).sink(sink);
    let wait: WaitProfile = args.wait.into();
    let query = flow.start(Config { wait, ..Config::default() })?;
    let warm_up = args.records / 10;
    let (latency, lag) = (&mut round.latency, &mut round.lag);
    let mut ran = None;
    on_last_core(|| {
        let start = Instant::now() + Duration::from_millis(20);
        let (mut sent, mut received) = (0, 0);
        let mut last = Instant::now();
        let ran_before = others_ran_ns();
        let begun = Instant::now();
        while received < args.records {
            if sent < args.records {
                let (due, now) = (args.intended(sent), start.elapsed());
                if Instant::now() >= start && due <= now {
                    match input.try_push(sent % args.keys) {
                        Ok(()) => {
                            if sent >= warm_up {
                                note(lag, due, now);
                            }
                            sent += 1;
                        }
                        // The record is retried at once, and its lateness is measured.
                        Err(millstream::stream::PushError::Full(_)) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
            while let Some((key, count)) = output.try_recv() {
                let arrived = start.elapsed();
                let expected = (received % args.keys, received / args.keys + 1);
                if (key, count) != expected {
                    return Err(format!("result {received} is {key}, {count}, not {expected:?}"));
                }
                if received >= warm_up {
                    note(latency, args.intended(received), arrived);
                }
                received += 1;
                last = Instant::now();
            }
            if sent == args.records && last.elapsed() > PATIENCE {
                return Err(format!("{} results are missing", args.records - received));
            }
            spin_loop();
        }
        let ran_ns = others_ran_ns().zip(ran_before).map(|(after, before)| after - before);
        ran = ran_ns.map(|ns| ns as f64 / begun.elapsed().as_nanos() as f64);
        Ok(())
    })?;
    round.cpu_share = ran;
    drop(input);
    query.await_termination()?;
    Ok(())
}

/// Measures wake-ups alone, at the same rate: from the intended time of a call of a poll's waker to
/// the moment at which the woken thread runs.
fn raw_wake(args: &Args, wakes: u64) -> Result<Histogram<u64>, Failure> {
    const TOKEN: mio::Token = mio::Token(0);
    let mut poll = mio::Poll::new()?;
    let waker = Waker::poll(mio::Waker::new(poll.registry(), TOKEN)?);
    let (base, rung, seen) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    let mut latency = histogram();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(core) = cores::allowed().first().copied() {
                cores::pin(core);
            }
            let (mut events, mut done) = (mio::Events::with_capacity(8), 0);
            while done < wakes {
                waker.flag().prepare_park();
                if rung.load(Ordering::Acquire) == done {
                    // A failed poll is retried; the wake-up is not lost.
                    drop(poll.poll(&mut events, None));
                }
                waker.flag().cancel_park();
                if rung.load(Ordering::Acquire) > done {
                    done += 1;
                    seen.store(base.elapsed().as_nanos() as u64, Ordering::Release);
                }
            }
        });
        on_last_core(|| {
            let start = base.elapsed() + Duration::from_millis(20);
            for at in 0..wakes {
                let due = start + args.intended(at);
                while base.elapsed() < due {
                    spin_loop();
                }
                seen.store(0, Ordering::Release);
                rung.store(at + 1, Ordering::Release);
                waker.wake();
                let arrived = loop {
                    match seen.load(Ordering::Acquire) {
                        0 => spin_loop(),
                        ns => break ns,
                    }
                };
                note(&mut latency, due, Duration::from_nanos(arrived));
            }
            Ok(())
        })
    })?;
    Ok(latency)
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if !(args.rate > 0.0 && args.rate <= 5e6) {
        return Err(Failure::Wrong("--rate is more than 0 and at most 5000000".to_string()));
    }
    // At a rate at which a thread cannot wake up and sleep again, the raw wake-up is not
    // meaningful.
    let wakes = if args.rate <= 2_000.0 { args.records.min(2_000) } else { 0 };
    let mut rounds = Vec::new();
    if !args.json {
        say!(
            "push to result, {} records a second, {} a round, {} keys, wait {}",
            args.rate,
            args.records,
            args.keys,
            args.wait.word()
        );
    }
    for _ in 0..args.rounds {
        let mut round = Round {
            latency: histogram(),
            lag: histogram(),
            wake: raw_wake(args, wakes)?,
            hiccups: histogram(),
            cpu_share: None,
        };
        let hiccups = Hiccups::watch()?;
        engine(args, &mut round)?;
        round.hiccups = hiccups.end();
        if !args.json {
            say!("{}", latency_line(&Percentiles::of(&round.latency)));
        }
        rounds.push(round);
    }
    let middle = |of: fn(&Round) -> &Histogram<u64>, quantile: f64| {
        median(rounds.iter().map(|round| of(round).value_at_quantile(quantile)).collect())
    };
    let (p50, p99) = (middle(|r| &r.latency, 0.5), middle(|r| &r.latency, 0.99));
    let lag = middle(|r| &r.lag, 0.5);
    let (wake, hiccup) = (middle(|r| &r.wake, 0.5), middle(|r| &r.hiccups, 1.0));
    let shares: Vec<f64> = rounds.iter().filter_map(|round| round.cpu_share).collect();
    let share = (!shares.is_empty()).then(|| median_by(shares, f64::total_cmp));
    if args.json {
        let all: Vec<_> =
            rounds.iter().map(|round| latency_json(&Percentiles::of(&round.latency))).collect();
        say!(
            "{}",
            serde_json::json!({
                "job": "channel", "rate": args.rate, "records": args.records, "keys": args.keys,
                "wait": args.wait.word(), "rounds": all, "p50": p50, "p99": p99,
                "lag_p50": lag, "raw_wake_p50": (wakes > 0).then_some(wake), "hiccup_max": hiccup,
                "cpu_share": share,
            })
        );
        return Ok(());
    }
    say!(
        "medians of {} rounds: p50 {}, p99 {}; all results checked",
        args.rounds,
        time(p50),
        time(p99)
    );
    say!("the generator's lag p50 {}; the machine's longest hiccup {}", time(lag), time(hiccup));
    if wakes > 0 {
        say!("a raw wake-up p50 {} (x{:.2})", time(wake), p50 as f64 / wake.max(1) as f64);
    }
    if let Some(share) = share {
        say!("the query's threads took {:.2}% of a core", share * 100.0);
    }
    Ok(())
}
