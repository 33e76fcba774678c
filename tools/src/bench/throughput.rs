//! `millstream bench throughput`: typed records through map, filter and a keyed count on one core,
//! beside the same loop by hand.

use crate::Failure;
use crate::figures::median;
use clap::Args as ClapArgs;
use millstream_benches::throughput::{by_hand, by_stream};
use millstream_engine::cores;
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

/// Records a second, and the sum of all counts; on a thread of its own, pinned to the first core.
fn timed<E: Send>(
    args: &Args,
    job: impl FnOnce(u64, u64) -> Result<u64, E> + Send,
) -> Result<(f64, u64), E> {
    std::thread::scope(|scope| {
        let body = || {
            if let Some(core) = cores::allowed().first().copied() {
                cores::pin(core);
            }
            let start = Instant::now();
            let sum = job(args.records, args.keys)?;
            Ok((args.records as f64 / start.elapsed().as_secs_f64(), sum))
        };
        // A panic of the job is one of ours.
        scope.spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (mut ours, mut hand) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let (fast, sum) = timed(args, by_stream)?;
        let (floor, expected) =
            timed(args, |records, keys| Ok::<_, Failure>(by_hand(records, keys)))?;
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
