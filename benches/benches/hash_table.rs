//! The cost of growing hash tables to millions of keys: the mean and the longest time of an insert,
//! and the mean time of a lookup. The times of inserts include the clock's own time. `cargo bench
//! -p millstream-benches --bench hash_table`.

use millstream_engine::checkpoint::key_group::{BuildStableHasher, hash_key};
use millstream_engine::collections::linear_hash_table::LinearHashTable;
use std::collections::HashMap;
use std::time::Instant;

const ROUNDS: usize = 5;

/// The mean and the longest time of an insert, in nanoseconds, over `keys` inserts.
fn inserts(keys: u64, mut insert: impl FnMut(u64)) -> (f64, u64) {
    let begun = Instant::now();
    let (mut before, mut longest) = (begun, 0);
    for key in 0..keys {
        insert(key);
        let now = Instant::now();
        longest = longest.max((now - before).as_nanos() as u64);
        before = now;
    }
    (begun.elapsed().as_nanos() as f64 / keys as f64, longest)
}

/// The mean time of a lookup, in nanoseconds, in a table of `keys` keys.
fn found(keys: u64, mut find: impl FnMut(u64) -> Option<u64>) -> f64 {
    let begun = Instant::now();
    let sum: u64 = (0..keys).filter_map(&mut find).sum();
    let nanos = begun.elapsed().as_nanos() as f64 / keys as f64;
    assert_eq!(sum, keys, "each was counted once");
    nanos
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

fn print(name: &str, keys: u64, rounds: &[((f64, u64), f64)]) {
    let each = median(rounds.iter().map(|round| round.0.0).collect()).unwrap_or(0.0);
    let longest = median(rounds.iter().map(|round| round.0.1).collect()).unwrap_or(0);
    let again = median(rounds.iter().map(|round| round.1).collect()).unwrap_or(0.0);
    let longest = longest as f64 / 1e3;
    println!(
        "{name}: {keys} keys: {each:.0} ns a key, the longest {longest:.1} us; again {again:.1} ns"
    );
}

fn main() {
    for keys in [10_000, 100_000, 1_000_000, 4_000_000] {
        let (mut doubling, mut split) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut table = HashMap::<u64, u64, BuildStableHasher>::default();
            let inserted = inserts(keys, |key| *table.entry(key).or_insert(0) += 1);
            doubling.push((inserted, found(keys, |key| table.get(&key).copied())));
            drop(table);
            let mut table = LinearHashTable::<(u64, u64)>::default();
            let inserted = inserts(keys, |key| {
                let hash = hash_key(&key);
                match table.find_mut(hash, |entry| entry.0 == key) {
                    Some(entry) => entry.1 += 1,
                    None => drop(table.insert_unique(hash, (key, 1), |entry| hash_key(&entry.0))),
                }
            });
            let again = found(keys, |key| {
                table.find_mut(hash_key(&key), |entry| entry.0 == key).map(|entry| entry.1)
            });
            split.push((inserted, again));
        }
        print("a table that doubles ", keys, &doubling);
        print("one that splits      ", keys, &split);
    }
}
