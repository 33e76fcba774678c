//! The same job in three engines and in hand-written code, on one core, in alternating rounds.
//! Numbers from an iterator are scrambled, a quarter is dropped, the others are counted by key, and
//! all running counts are summed.
//!
//! `cargo bench -p millstream-benches --features peers --bench throughput [-- RECORDS [KEYS
//! [ROUNDS]]]`
//!
//! Each engine is used as its documentation recommends: timely with a hash map in an operator,
//! renoir with its keyed stream and batches of 1024. All must emit every running count.

use millstream_benches::throughput::{Sum, by_hand, by_stream, is_counted, scramble};
use millstream_engine::checkpoint::key_group::BuildStableHasher;
use millstream_engine::cores;
use renoir::prelude::{BatchMode, RuntimeConfig, StreamContext};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::vec::{Filter, Map, ToStream};
use timely::dataflow::operators::{Inspect, Operator};

fn ours(records: u64, keys: u64) -> u64 {
    by_stream(records, keys).expect("it runs to its end")
}

fn timely_dataflow(records: u64, keys: u64) -> u64 {
    let (sum, total) = Sum::new();
    timely::execute_directly(move |worker| {
        worker.dataflow::<u64, _, _>(|scope| {
            let mut sum = sum;
            (0..records)
                .to_stream(scope)
                .map(scramble)
                .filter(is_counted)
                .unary(Exchange::new(move |number: &u64| number % keys), "count", |_, _| {
                    let mut counts = HashMap::<u64, u64, BuildStableHasher>::default();
                    move |input, output| {
                        input.for_each_stamp(|cap, data| {
                            let mut session = output.session(&cap);
                            for number in data.flat_map(|batch| batch.drain(..)) {
                                let key = number % keys;
                                let count = counts.entry(key).or_insert(0);
                                *count += 1;
                                session.give((key, *count));
                            }
                        });
                    }
                })
                .container::<Vec<_>>()
                .inspect(move |(_, count)| sum.add(*count));
        });
    });
    total.load(Ordering::Relaxed)
}

fn renoir_stream(records: u64, keys: u64) -> u64 {
    let (mut sum, total) = Sum::new();
    let env = StreamContext::new(RuntimeConfig::local(1).expect("one core"));
    env.stream_iter(0..records)
        .batch_mode(BatchMode::fixed(1024))
        .map(scramble)
        .filter(is_counted)
        .group_by(move |number| number % keys)
        .rich_map({
            let mut count = 0u64;
            move |_| {
                count += 1;
                count
            }
        })
        .for_each(move |(_, count)| sum.add(count));
    env.execute_blocking();
    total.load(Ordering::Relaxed)
}

/// Takes the numbers of records and keys, and returns the sum of all counts.
type Job = fn(u64, u64) -> u64;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let get = |at: usize, otherwise: u64| numbers.get(at).copied().unwrap_or(otherwise);
    let (records, keys, rounds) = (get(0, 10_000_000), get(1, 10_000), get(2, 7));
    let jobs: [(&str, Job); 4] = [
        ("by hand", by_hand),
        ("millstream", ours),
        ("timely 0.32", timely_dataflow),
        ("renoir 0.6", renoir_stream),
    ];
    let mut rates = vec![Vec::new(); jobs.len()];
    for _ in 0..rounds {
        let mut sums = Vec::new();
        for ((_, job), rates) in jobs.iter().zip(&mut rates) {
            // The job runs on a thread that is pinned to one core, which all threads of the job
            // inherit.
            let run = *job;
            let body = move || {
                if let Some(core) = cores::allowed().first().copied() {
                    cores::pin(core);
                }
                let start = Instant::now();
                let sum = run(records, keys);
                (records as f64 / start.elapsed().as_secs_f64() / 1e6, sum)
            };
            let (rate, sum) = std::thread::spawn(body).join().expect("it runs");
            rates.push(rate);
            sums.push(sum);
        }
        assert!(sums.iter().all(|sum| *sum == sums[0]), "the counts differ: {sums:?}");
    }
    println!("{records} records, {keys} keys, one core, median of {rounds} alternating rounds");
    for ((name, _), rates) in jobs.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let (least, most) = (rates[0], rates[rates.len() - 1]);
        println!(
            "{name:12} {:7.1} million a second ({least:.1} to {most:.1})",
            rates[rates.len() / 2]
        );
    }
}
