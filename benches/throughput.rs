//! Numbers from an iterator, scrambled, a quarter dropped, the others counted by key, all running
//! counts added up: as a typed stream, and by hand. `millstream bench throughput` and the bench
//! `throughput` measure it.

use millstream::stream::{Count, Flow};
use millstream::{Config, EngineError, WaitProfile};
use millstream_engine::key_group::BuildFixed;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is done to a number first.
#[inline]
pub fn scramble(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

/// Whether a number is counted.
#[inline]
pub fn keeps(number: &u64) -> bool {
    number % 4 != 3
}

/// A sum that is handed over when its owner goes.
#[derive(Clone)]
pub struct Sum(u64, Arc<AtomicU64>);

impl Sum {
    /// An empty sum, and where it is handed over.
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

/// The sum of all counts of numbers up to `records` over `keys`, by a typed stream.
pub fn by_stream(records: u64, keys: u64) -> Result<u64, EngineError> {
    let (mut sum, total) = Sum::new();
    let flow = Flow::new("throughput");
    let counts = flow.items(0..records).map(scramble).filter(keeps);
    let counts = counts.key_by(move |number| number % keys).aggregate(Count);
    counts.sink(move |(_, count): (u64, u64)| sum.add(count));
    let query = flow.start(Config { wait: WaitProfile::Spin, ..Config::default() })?;
    query.await_termination()?;
    drop(query);
    Ok(total.load(Ordering::Relaxed))
}

/// The same in a loop by hand, with the same hash function.
pub fn by_hand(records: u64, keys: u64) -> u64 {
    let mut sum = 0u64;
    let mut counts = HashMap::<u64, u64, BuildFixed>::default();
    for number in black_box(0..records).map(scramble).filter(keeps) {
        let count = counts.entry(number % keys).or_insert(0);
        *count += 1;
        sum = sum.wrapping_add(*count);
    }
    sum
}
