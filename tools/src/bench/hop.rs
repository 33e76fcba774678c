//! `millstream bench hop`: the latency of passing a value from one pinned thread to another,
//! compared with `rtrb`.

use crate::bench::open_loop::on_last_core;
use crate::failure::Failure;
use crate::latency_format::{median, time};
use crate::stdout::say;
use clap::Args as ClapArgs;
use hdrhistogram::Histogram;
use millstream_engine::cores;
use millstream_engine::measure::latency::{Percentiles, histogram};
use millstream_engine::sync::ring::ring;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[derive(ClapArgs)]
#[command(after_help = "Example:\n  \
    millstream bench hop --rounds 8\n\n\
    Two spinning threads send a value back and forth; a hop is half of a round trip. Rounds of the\n\
    engine's ring alternate with rounds of a ring of the crate `rtrb`.")]
pub(super) struct Args {
    /// Number of rounds for each
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Round trips per round
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pings: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The size of a small record.
type Item = [u64; 8];
const CAPACITY: usize = 1024;

/// Ends the echo when the measuring thread ends, whether with a result or an error.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Measures hops, each as half of a round trip. A thread on the last core calls `send` and
/// `receive`, a thread on the first core `echo`.
fn ping(
    pings: u64,
    mut send: impl FnMut(Item) + Send,
    mut receive: impl FnMut() -> Option<Item> + Send,
    mut echo: impl FnMut() -> bool + Send,
) -> Result<Histogram<u64>, Failure> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(core) = cores::allowed().first().copied() {
                cores::pin(core);
            }
            let mut left = pings;
            while left > 0 && !is_over.load(Ordering::Relaxed) {
                if echo() {
                    left -= 1;
                } else {
                    spin_loop();
                }
            }
        });
        on_last_core(|| {
            let _over = Over(&is_over);
            let mut hops = histogram();
            for i in 0..pings {
                let start = Instant::now();
                send([i; 8]);
                let back = loop {
                    match receive() {
                        Some(back) => break back,
                        None => spin_loop(),
                    }
                };
                hops.saturating_record((start.elapsed().as_nanos() as u64 / 2).max(1));
                if back[0] != i {
                    return Err(format!("{} was received for {i}", back[0]));
                }
            }
            Ok(hops)
        })
    })
}

fn own(pings: u64) -> Result<Histogram<u64>, Failure> {
    let ((mut there, mut at), (mut back, mut home)) = (ring::<Item>(CAPACITY), ring(CAPACITY));
    let send = |item| {
        // One value is in flight at a time.
        let _ = there.push(item);
        there.publish();
    };
    let receive = || {
        let item = home.pop();
        home.release();
        item
    };
    let echo = || {
        let Some(item) = at.pop() else { return false };
        at.release();
        let _ = back.push(item);
        back.publish();
        true
    };
    ping(pings, send, receive, echo)
}

fn peer(pings: u64) -> Result<Histogram<u64>, Failure> {
    let (mut there, mut at) = rtrb::RingBuffer::<Item>::new(CAPACITY);
    let (mut back, mut home) = rtrb::RingBuffer::<Item>::new(CAPACITY);
    let send = |item| {
        let _ = there.push(item);
    };
    let receive = || home.pop().ok();
    let echo = || {
        let Ok(item) = at.pop() else { return false };
        let _ = back.push(item);
        true
    };
    ping(pings, send, receive, echo)
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if cores::usable() < 2 {
        return Err(Failure::Failed("a hop needs two cores, but only one is usable".to_string()));
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        ours.push(Percentiles::of(&own(args.pings)?));
        theirs.push(Percentiles::of(&peer(args.pings)?));
    }
    let middle = |rounds: &[Percentiles], of: fn(&Percentiles) -> u64| {
        median(rounds.iter().map(of).collect())
    };
    let figures = |rounds: &[Percentiles]| {
        (middle(rounds, |p| p.p50_ns), middle(rounds, |p| p.p99_ns), middle(rounds, |p| p.p999_ns))
    };
    let ((o50, o99, o999), (t50, t99, t999)) = (figures(&ours), figures(&theirs));
    let ratio = o50 as f64 / t50.max(1) as f64;
    if args.json {
        let json = |p50: u64, p99: u64, p999: u64| serde_json::json!({ "p50": p50, "p99": p99, "p999": p999 });
        say!(
            "{}",
            serde_json::json!({
                "rounds": args.rounds, "pings": args.pings, "millstream": json(o50, o99, o999),
                "rtrb": json(t50, t99, t999), "p50_ratio": ratio,
            })
        );
        return Ok(());
    }
    say!("a hop of 64 bytes, medians of {} rounds of {}", args.rounds, args.pings);
    say!("millstream  p50 {}  p99 {}  p99.9 {}", time(o50), time(o99), time(o999));
    say!("rtrb        p50 {}  p99 {}  p99.9 {}  (x{ratio:.2})", time(t50), time(t99), time(t999));
    Ok(())
}
