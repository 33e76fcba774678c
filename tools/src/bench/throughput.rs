//! `millstream bench throughput`: typed records through map, filter and a keyed count on one core,
//! beside the same loop by hand.

use crate::Failure;
use crate::figures::median;
use clap::Args as ClapArgs;
use millstream::stream::{Count, Flow};
use millstream::{Config, WaitProfile};
use millstream_engine::cores;
use millstream_engine::key_group::BuildFixed;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(ClapArgs)]
#[command(after_help = "Example:\n  \
    millstream bench throughput --records 20000000\n\n\
    Both take numbers from an iterator, scramble them, drop a quarter, count the others by key, and\n\
    add all counts up; the sums must be equal. The loop by hand uses the same hash function.")]
pub(super) struct Args {
    /// Records of a round
    #[arg(long, default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    records: u64,
    /// Different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Rounds of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[inline]
fn scramble(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

#[inline]
fn keeps(number: &u64) -> bool {
    number % 4 != 3
}

/// A sum that is handed over when its owner goes.
#[derive(Clone)]
struct Sum(u64, Arc<AtomicU64>);

impl Sum {
    #[inline]
    fn add(&mut self, count: u64) {
        self.0 = self.0.wrapping_add(count);
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        // ORDERING: relaxed: read after the query's threads are joined.
        self.1.fetch_add(self.0, Ordering::Relaxed);
    }
}

/// Records a second, and the sum of all counts.
fn engine(args: &Args) -> Result<(f64, u64), Failure> {
    let total = Arc::new(AtomicU64::new(0));
    let (keys, mut sum) = (args.keys, Sum(0, total.clone()));
    let flow = Flow::new("throughput");
    let counts = flow.items(0..args.records).map(scramble).filter(keeps);
    let counts = counts.key_by(move |number| number % keys).aggregate(Count);
    counts.sink(move |(_, count): (u64, u64)| sum.add(count));
    let start = Instant::now();
    let query = flow.start(Config { wait: WaitProfile::Spin, ..Config::default() })?;
    query.await_termination()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(query);
    Ok((args.records as f64 / seconds, total.load(Ordering::Relaxed)))
}

fn by_hand(args: &Args) -> (f64, u64) {
    let (records, keys) = (args.records, args.keys);
    let body = move || {
        if let Some(core) = cores::allowed().first().copied() {
            cores::pin(core);
        }
        let (start, mut sum) = (Instant::now(), 0u64);
        let mut counts = HashMap::<u64, u64, BuildFixed>::default();
        for number in black_box(0..records).map(scramble).filter(keeps) {
            let count = counts.entry(number % keys).or_insert(0);
            *count += 1;
            sum = sum.wrapping_add(*count);
        }
        (records as f64 / start.elapsed().as_secs_f64(), sum)
    };
    std::thread::spawn(body).join().unwrap_or((0.0, 0))
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (mut ours, mut hand) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let ((fast, sum), (floor, expected)) = (engine(args)?, by_hand(args));
        if sum != expected {
            return Err(Failure::Failed(format!("the counts add up to {sum}, not {expected}")));
        }
        ours.push(fast as u64);
        hand.push(floor as u64);
    }
    let spread = |values: &[u64]| {
        let (least, most) = (values.iter().min().copied(), values.iter().max().copied());
        (median(values.to_vec()), least.unwrap_or(0), most.unwrap_or(0))
    };
    let ((ours, least, most), (hand, hand_least, hand_most)) = (spread(&ours), spread(&hand));
    let ratio = ours as f64 / hand.max(1) as f64;
    if args.json {
        println!(
            "{}",
            serde_json::json!({
                "job": "throughput", "records": args.records, "keys": args.keys, "rounds": args.rounds,
                "engine": ours, "by_hand": hand, "ratio": ratio,
            })
        );
        return Ok(());
    }
    let million = |rate: u64| rate as f64 / 1e6;
    println!(
        "map, filter, keyed count over {} keys on one core, {} records, median of {} rounds",
        args.keys, args.records, args.rounds
    );
    println!(
        "engine   {:.1} million a second ({:.1} to {:.1})",
        million(ours),
        million(least),
        million(most)
    );
    println!(
        "by hand  {:.1} million a second ({:.1} to {:.1}): the engine does x{ratio:.2} of it",
        million(hand),
        million(hand_least),
        million(hand_most)
    );
    println!("the sums of all counts are equal");
    Ok(())
}
