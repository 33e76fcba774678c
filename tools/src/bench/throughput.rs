//! `millstream bench throughput`: typed records through map, filter and a keyed count, on one core
//! or spread over several, compared with hand-written code.

use crate::failure::Failure;
use crate::latency_format::{median, median_by};
use crate::stdout::say;
use clap::Args as ClapArgs;
use millstream::Config;
use millstream_benches::throughput::{
    by_hand, by_stream, by_stream_with, over_workers, threads_by_hand,
};
use millstream_engine::cores;
use std::time::Instant;

#[derive(ClapArgs)]
#[command(after_help = "Example:\n  \
    millstream bench throughput\n  \
    millstream bench throughput --workers 2\n  \
    millstream bench throughput --workers 2 --instances 64\n\n\
    The engine and a hand-written loop take numbers from an iterator, scramble them, drop a quarter,\n\
    count the others by key, and add up all counts; the sums must be equal. Both use the same \
    hash\n\
    function. With --workers the numbers are partitioned over workers, each of which pre-aggregates by\n\
    key before it sends to the key's owner. For comparison one worker does the same job, and so do\n\
    hand-written threads that communicate only at their end. --instances 64 runs the tasklets of 64\n\
    cores on these workers: 64 partitions, each with a ring to and from every other one.")]
pub(super) struct Args {
    /// Records per round
    #[arg(long, default_value_t = 200_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    records: u64,
    /// Number of distinct keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Number of workers to compare with one worker
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=256))]
    workers: Option<u64>,
    /// Number of instances of the job on these workers; by default one per worker. With many, two
    /// cores show what many workers would cost
    #[arg(long, requires = "workers", value_parser = clap::value_parser!(u64).range(2..=256))]
    instances: Option<u64>,
    /// Number of rounds for each
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Records per second, and the sum of all counts, measured on a new thread that is pinned to the
/// first core.
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
        // A panic of the job is re-raised here.
        scope.spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The median, the minimum and the maximum of at least one value.
fn spread(values: &[u64]) -> (u64, u64, u64) {
    let (least, most) = (values.iter().min().copied(), values.iter().max().copied());
    (median(values.to_vec()), least.unwrap_or(0), most.unwrap_or(0))
}

fn million(rate: u64) -> f64 {
    rate as f64 / 1e6
}

fn equal(sum: u64, expected: u64) -> Result<(), Failure> {
    if sum == expected {
        return Ok(());
    }
    Err(Failure::Failed(format!("the counts add up to {sum}, not {expected}")))
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(workers) = args.workers {
        return scale(args, workers as usize, args.instances.unwrap_or(workers) as usize);
    }
    let (mut ours, mut mute, mut hand) = (Vec::new(), Vec::new(), Vec::new());
    let silent = |records, keys| {
        by_stream_with(records, keys, Config { record_stalls: false, ..Config::default() })
    };
    for _ in 0..args.rounds {
        let (fast, sum) = timed(args, by_stream)?;
        let (silent, same) = timed(args, silent)?;
        let (floor, expected) =
            timed(args, |records, keys| Ok::<_, Failure>(by_hand(records, keys)))?;
        equal(sum, expected)?;
        equal(same, expected)?;
        ours.push(fast as u64);
        mute.push(silent as u64);
        hand.push(floor as u64);
    }
    // The cost is computed per pair of adjacent rounds, so that changes of the machine affect both.
    let costs = ours.iter().zip(&mute).map(|(with, without)| *without as f64 / *with as f64 - 1.0);
    let cost = median_by(costs.collect(), f64::total_cmp);
    let ((ours, least, most), (hand, hand_least, hand_most)) = (spread(&ours), spread(&hand));
    let mute = spread(&mute).0;
    let ratio = ours as f64 / hand.max(1) as f64;
    if args.json {
        say!(
            "{}",
            serde_json::json!({
                "job": "throughput", "records": args.records, "keys": args.keys, "rounds": args.rounds,
                "engine": ours, "by_hand": hand, "ratio": ratio,
                "without_slow_records": mute, "cost_of_slow_records": cost,
            })
        );
        return Ok(());
    }
    say!(
        "map, filter, keyed count over {} keys on one core, {} records, median of {} rounds",
        args.keys,
        args.records,
        args.rounds
    );
    say!(
        "engine   {:.1} million a second ({:.1} to {:.1})",
        million(ours),
        million(least),
        million(most)
    );
    say!(
        "by hand  {:.1} million a second ({:.1} to {:.1}): the engine does x{ratio:.2} of it",
        million(hand),
        million(hand_least),
        million(hand_most)
    );
    say!(
        "without the attribution of slow records {:.1} million a second: it costs {:.1}% (median \
        of rounds)",
        million(mute),
        cost * 100.0
    );
    say!("the sums of all counts are equal");
    Ok(())
}

/// Compares one worker with several, and one hand-written thread with several, in alternating
/// rounds.
fn scale(args: &Args, workers: usize, instances: usize) -> Result<(), Failure> {
    let usable = cores::usable();
    if workers > usable {
        return Err(Failure::Wrong(format!(
            "{workers} workers were requested, but this process may use only {usable} cores"
        )));
    }
    let timed = |job: &dyn Fn() -> Result<u64, Failure>| -> Result<(u64, u64), Failure> {
        let start = Instant::now();
        let counted = job()?;
        Ok(((args.records as f64 / start.elapsed().as_secs_f64()) as u64, counted))
    };
    let engine = |workers, instances| {
        let (records, keys) = (args.records, args.keys);
        move || {
            let counted = over_workers(records, keys, (workers, instances));
            counted.map_err(|error| Failure::Failed(error.to_string()))
        }
    };
    let hand = |threads| {
        let (records, keys) = (args.records, args.keys);
        move || Ok(threads_by_hand(records, keys, threads))
    };
    let mut rates: [Vec<u64>; 4] = Default::default();
    for _ in 0..args.rounds {
        let mut expected = None;
        let jobs: [&dyn Fn() -> Result<u64, Failure>; 4] =
            [&engine(1, 1), &engine(workers, instances), &hand(1), &hand(workers)];
        for (job, rates) in jobs.into_iter().zip(&mut rates) {
            let (rate, counted) = timed(job)?;
            equal(counted, *expected.get_or_insert(counted))?;
            rates.push(rate);
        }
    }
    let [one, all, hand_one, hand_all] = rates.map(|rates| spread(&rates));
    let ratio = |all: u64, one: u64| all as f64 / one.max(1) as f64;
    if args.json {
        say!(
            "{}",
            serde_json::json!({
                "job": "throughput", "records": args.records, "keys": args.keys, "rounds": args.rounds,
                "workers": workers, "instances": instances, "one_worker": one.0, "all_workers": all.0,
                "ratio": ratio(all.0, one.0), "one_by_hand": hand_one.0, "all_by_hand": hand_all.0,
                "ratio_by_hand": ratio(hand_all.0, hand_one.0),
            })
        );
        return Ok(());
    }
    say!(
        "map, filter, keyed count over {} keys, {} records, {instances} instances, median of {} rounds, million a second",
        args.keys,
        args.records,
        args.rounds
    );
    let line = |name: &str, one: (u64, u64, u64), all: (u64, u64, u64)| {
        let of = |(middle, least, most): (u64, u64, u64)| {
            format!("{:.1} ({:.1} to {:.1})", million(middle), million(least), million(most))
        };
        say!("{name}  one {}, {workers} {}: x{:.2}", of(one), of(all), ratio(all.0, one.0));
    };
    line("workers          ", one, all);
    line("threads by hand  ", hand_one, hand_all);
    say!("all counts are equal");
    Ok(())
}
