//! The job of the throughput measurements, as a typed stream and in hand-written code. Numbers from
//! an iterator are scrambled, a quarter is dropped, the others are counted by key, and the counts
//! are summed: all running counts, or over several workers the last count of each key. `millstream
//! bench throughput` and the bench `throughput` measure it.

use millstream::stream::{Count, Flow};
use millstream::{Config, EngineError, WaitProfile};
use millstream_engine::checkpoint::key_group::BuildStableHasher;
use millstream_engine::cores;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maps each number to a pseudo-random one.
#[inline]
pub fn scramble(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

/// Whether a number is counted.
#[inline]
pub fn is_counted(number: &u64) -> bool {
    number % 4 != 3
}

/// A sum that is added to the shared total when it is dropped.
#[derive(Clone)]
pub struct Sum(u64, Arc<AtomicU64>);

impl Sum {
    /// Returns a sum that starts at 0, and the total to which it is added when it is dropped.
    pub fn new() -> (Self, Arc<AtomicU64>) {
        let total = Arc::new(AtomicU64::new(0));
        (Self(0, total.clone()), total)
    }

    /// Adds a count.
    #[inline]
    pub fn add(&mut self, count: u64) {
        self.0 = self.0.wrapping_add(count);
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        // ORDERING: relaxed: read after the threads are joined.
        self.1.fetch_add(self.0, Ordering::Relaxed);
    }
}

/// The sum of all counts of the numbers up to `records` over `keys` keys, computed by a typed
/// stream.
pub fn by_stream(records: u64, keys: u64) -> Result<u64, EngineError> {
    by_stream_with(records, keys, Config::default())
}

/// Like [`by_stream`], with a given configuration. The configuration's `wait` is ignored.
pub fn by_stream_with(records: u64, keys: u64, config: Config) -> Result<u64, EngineError> {
    let (mut sum, total) = Sum::new();
    let flow = Flow::new("throughput");
    let counts = flow.items(0..records).map(scramble).filter(is_counted);
    let counts = counts.key_by(move |number| number % keys).aggregate(Count);
    counts.sink(move |(_, count): (u64, u64)| sum.add(count));
    let query = flow.start(Config { wait: WaitProfile::Spin, ..config })?;
    query.await_termination()?;
    drop(query);
    Ok(total.load(Ordering::Relaxed))
}

/// The last count of each key. Dropping it adds the counts to the total.
struct Last {
    counts: Vec<u64>,
    total: Arc<AtomicU64>,
}

impl Last {
    fn new(keys: u64) -> (Self, Arc<AtomicU64>) {
        let total = Arc::new(AtomicU64::new(0));
        (Self { counts: vec![0; keys as usize], total: total.clone() }, total)
    }
}

impl Clone for Last {
    fn clone(&self) -> Self {
        // A clone starts with counts of 0: each instance counts its own keys.
        Self { counts: vec![0; self.counts.len()], total: self.total.clone() }
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        // ORDERING: relaxed: read after the threads are joined.
        self.total.fetch_add(self.counts.iter().sum(), Ordering::Relaxed);
    }
}

/// Part `number` of the numbers up to `records`, which are divided into `of` parts.
fn part(records: u64, number: u64, of: u64) -> std::ops::Range<u64> {
    records * number / of..records * (number + 1) / of
}

/// How many of the numbers up to `records` are counted over `keys` keys, computed by a typed stream
/// with several instances that are spread over workers. Each instance reads a part of the numbers
/// and owns a part of the keys.
pub fn over_workers(
    records: u64,
    keys: u64,
    (workers, instances): (usize, usize),
) -> Result<u64, EngineError> {
    let (mut last, total) = Last::new(keys);
    let flow = Flow::new("throughput").parallelism(instances);
    let numbers = flow.partitions(instances, move |n| part(records, n as u64, instances as u64));
    let counts = numbers.map(scramble).filter(is_counted);
    let counts = counts.key_by(move |number| number % keys).combine(Count);
    counts.sink(move |(key, count): (u64, u64)| last.counts[key as usize] = count);
    let query = flow.start(Config { workers, wait: WaitProfile::Spin, ..Config::default() })?;
    query.await_termination()?;
    drop(query);
    Ok(total.load(Ordering::Relaxed))
}

/// How many of the numbers up to `records` are counted over `keys` keys, computed by hand-written
/// code. Its threads share nothing until all of them have counted.
pub fn threads_by_hand(records: u64, keys: u64, threads: usize) -> u64 {
    let count = |numbers: std::ops::Range<u64>| {
        let mut counts = HashMap::<u64, u64, BuildStableHasher>::default();
        for number in black_box(numbers).map(scramble).filter(is_counted) {
            *counts.entry(number % keys).or_insert(0) += 1;
        }
        counts
    };
    std::thread::scope(|scope| {
        let of = |n: usize| part(records, n as u64, threads as u64);
        let run = |n: usize| {
            let body = move || {
                if let Some(core) = cores::allowed().get(n).copied() {
                    cores::pin(core);
                }
                count(of(n))
            };
            scope.spawn(body)
        };
        let threads: Vec<_> = (0..threads).map(run).collect();
        let mut all = HashMap::<u64, u64, BuildStableHasher>::default();
        for thread in threads {
            let counts = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            counts.into_iter().for_each(|(key, count)| *all.entry(key).or_insert(0) += count);
        }
        all.values().sum()
    })
}

/// The sum of all counts, computed by a hand-written loop with the same hash function.
pub fn by_hand(records: u64, keys: u64) -> u64 {
    let mut sum = 0u64;
    let mut counts = HashMap::<u64, u64, BuildStableHasher>::default();
    for number in black_box(0..records).map(scramble).filter(is_counted) {
        let count = counts.entry(number % keys).or_insert(0);
        *count += 1;
        sum = sum.wrapping_add(*count);
    }
    sum
}
