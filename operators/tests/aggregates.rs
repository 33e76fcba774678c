//! Aggregates of typed streams and their checkpoints: restarts after a few records, in both modes,
//! at any parallelism, with one level and with two, and crashes at every write.

use millstream::stream::{
    Aggregate, Checkpointed, Combine, Count, Flow, Max, Min, Reduce, SimEnv, Sum,
};
use millstream::{Config, EngineError, Trigger, WaitProfile};
use millstream_engine::env::simulated_storage::Fault;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 2_000_000 };

/// A key and a number.
type Record = (String, i64);

/// The state of a key: count, sum, minimum, maximum, and the numbers by remainder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    count: u64,
    sum: i128,
    range: Option<(i64, i64)>,
    by_remainder: BTreeMap<u8, Vec<i64>>,
}

#[derive(Clone)]
struct Knows;

impl Aggregate<Record> for Knows {
    type State = Known;
    type Output = Known;
    fn add(&self, state: &mut Known, (_, number): Record) -> Known {
        let by_remainder = BTreeMap::from([((number.rem_euclid(3)) as u8, vec![number])]);
        let (sum, range) = (i128::from(number), Some((number, number)));
        self.merge(state, Known { count: 1, sum, range, by_remainder })
    }
}

impl Combine<Record> for Knows {
    fn merge(&self, state: &mut Known, other: Known) -> Known {
        state.count += other.count;
        state.sum += other.sum;
        state.range = match (state.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
        for (remainder, numbers) in other.by_remainder {
            let all = state.by_remainder.entry(remainder).or_default();
            all.extend(numbers);
            all.sort_unstable();
        }
        state.clone()
    }
}

#[derive(Clone, Copy, Debug)]
struct Run {
    records: usize,
    parallelism: usize,
    continuous: bool,
    seed: u64,
}

fn config(run: Run) -> Config {
    let trigger = if run.continuous { CONTINUOUS } else { Trigger::AsSoonAsPossible };
    Config { workers: run.parallelism, trigger, ..Config::default() }
}

/// Runs an aggregate over records, starting from its checkpoint. Returns the output.
fn aggregated<A: Combine<Record, State = Known, Output = Known>>(
    world: &Arc<SimEnv>,
    records: &[Record],
    run: Run,
    (aggregate, in_two_levels): (A, bool),
) -> Vec<(String, Known)> {
    let flow = Flow::new("known").parallelism(run.parallelism).checkpoint("/c");
    let (mut input, stream) = flow.channel::<Record>();
    let out = Arc::new(Mutex::new(Vec::new()));
    let seen = out.clone();
    let keyed = stream.key_by(|record| record.0.clone());
    let sink = move |update| seen.lock().unwrap().push(update);
    if in_two_levels {
        keyed.combine(aggregate).sink(sink);
    } else {
        keyed.aggregate(aggregate).sink(sink);
    }
    records.iter().for_each(|record| input.try_push(record.clone()).unwrap());
    drop(input);
    flow.simulate_in(config(run), world, run.seed).unwrap_or_else(|e| panic!("{run:?}: {e}"));
    std::mem::take(&mut *out.lock().unwrap())
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let run = (1usize..4, 1usize..4, any::<bool>(), any::<u64>());
    let run = run.prop_map(|(records, parallelism, continuous, seed)| Run {
        records,
        parallelism,
        continuous,
        seed,
    });
    proptest::collection::vec(run, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// Each run has one to three records, and starts from the checkpoint of the run before it.
    #[test]
    fn a_restart_after_every_record_changes_nothing(
        numbers in proptest::collection::vec((0u8..5, -20i64..20), 36..37),
        runs in runs(),
        in_two_levels: bool,
    ) {
        let world = Arc::new(SimEnv::new(1));
        let mut known = BTreeMap::<String, Known>::new();
        let mut records = numbers.into_iter().map(|(key, number)| (format!("k{key}"), number));
        for run in runs {
            let of_run: Vec<Record> = records.by_ref().take(run.records).collect();
            let mut expected = BTreeMap::<String, Vec<Known>>::new();
            for record in &of_run {
                let state = known.entry(record.0.clone()).or_default();
                let after = Knows.add(state, record.clone());
                expected.entry(record.0.clone()).or_default().push(after);
            }
            let mut got = BTreeMap::<String, Vec<Known>>::new();
            for (key, after) in aggregated(&world, &of_run, run, (Knows, in_two_levels)) {
                got.entry(key).or_default().push(after);
            }
            if in_two_levels {
                // Intermediate values may be missing.
                for values in got.values_mut().chain(expected.values_mut()) {
                    *values = values.pop().into_iter().collect();
                }
            }
            prop_assert_eq!(got, expected, "{:?}", run);
            world.sim_storage().power_failure();
            world.sim_storage().recover();
        }
    }
}

/// Runs a flow over partitions of numbers. Stores the last count of each key in `last`. Fails if
/// the simulated machine crashes before the flow ends.
fn counted(
    world: &Arc<SimEnv>,
    run: Run,
    in_two_levels: bool,
    last: &Arc<Mutex<BTreeMap<u64, u64>>>,
) -> Result<(), EngineError> {
    let flow = Flow::new("counts").parallelism(run.parallelism).checkpoint("/c");
    let numbers = flow.partitions(2, |part| (0..400u64).map(move |n| 2 * n + part as u64));
    let keyed = numbers.key_by(|n| n % 7);
    let seen = last.clone();
    let sink = move |(key, count): (u64, u64)| {
        seen.lock().unwrap().insert(key, count);
    };
    if in_two_levels {
        keyed.combine(Count).sink(sink);
    } else {
        keyed.aggregate(Count).sink(sink);
    }
    flow.simulate_in(config(run), world, run.seed)
}

/// Partial aggregates of a worker are flushed before the marker, or belong to the next epoch.
#[test]
fn a_crash_at_any_write_loses_nothing_and_counts_nothing_twice() {
    for (in_two_levels, continuous) in [(true, true), (true, false), (false, true), (false, false)]
    {
        let mut operations = 0;
        loop {
            let world = Arc::new(SimEnv::new(operations));
            let last = Arc::new(Mutex::new(BTreeMap::new()));
            let (parallelism, seed) = (1 + operations as usize % 3, operations);
            let run = Run { records: 0, parallelism, continuous, seed };
            world.sim_storage().fault_after(operations, Fault::Crash);
            let ended = counted(&world, run, in_two_levels, &last).is_ok();
            world.sim_storage().power_failure();
            world.sim_storage().recover();
            // The next run has another parallelism and the other mode.
            let run = Run { parallelism: 1 + parallelism % 3, continuous: !continuous, ..run };
            let again = counted(&world, run, in_two_levels, &last);
            again.unwrap_or_else(|error| panic!("after {operations} operations: {error}"));
            let expected = (0..7).map(|key| (key, 115 - u64::from(key > 1))).collect();
            assert_eq!(*last.lock().unwrap(), expected, "after {operations} operations, {run:?}");
            if ended {
                assert!(operations > 12, "{operations} operations");
                break;
            }
            operations += 1;
        }
    }
}

/// Runs a flow that `first` builds, and then a flow that `second` builds on the same checkpoint.
/// Returns the error of the second run.
fn second<T>(
    first: impl FnOnce(&Flow<Checkpointed>) -> T,
    second: impl FnOnce(&Flow<Checkpointed>),
) -> Result<(), String> {
    let world = Arc::new(SimEnv::new(1));
    let flow = Flow::new("first").checkpoint("/c");
    drop(first(&flow));
    flow.simulate_in(Config::default(), &world, 1).unwrap();
    let flow = Flow::new("second").checkpoint("/c");
    second(&flow);
    flow.simulate_in(Config::default(), &world, 1).map_err(|error| error.to_string())
}

#[test]
fn the_state_of_another_aggregate_is_refused_at_restart() {
    let number = |n: &i64| *n;
    let numbers = |flow: &Flow<_>| flow.items([1i64, 2, 3, 4]);
    let minimum = |flow: &Flow<_>| {
        numbers(flow).key_by(|n| n % 2).aggregate(Min(number)).sink(|_| {});
    };
    let refused = second(minimum, |flow| {
        numbers(flow).key_by(|n| n % 2).aggregate(Max(number)).sink(|_| {});
    });
    let refused = refused.unwrap_err();
    assert!(refused.contains("aggregate by i64: Min with state Option<i64>"), "{refused}");
    assert!(refused.contains("aggregate by i64: Max with state Option<i64>"), "{refused}");
    let refused = second(minimum, |flow| {
        numbers(flow).key_by(|n| (n % 2).to_string()).aggregate(Min(number)).sink(|_| {});
    });
    assert!(refused.unwrap_err().contains("aggregate by String: Min"));
    // The same aggregate in two levels continues from the checkpoint.
    second(minimum, |flow| {
        numbers(flow).key_by(|n| n % 2).combine(Min(number)).sink(|_| {});
    })
    .unwrap();
}

#[test]
fn every_kind_of_aggregate_continues_after_a_restart() {
    let world = Arc::new(SimEnv::new(1));
    let mut last = BTreeMap::new();
    for run in 0..3i64 {
        let flow = Flow::new("all").parallelism(1 + run as usize % 2).checkpoint("/c");
        let out = Arc::new(Mutex::new(BTreeMap::new()));
        let mut inputs = Vec::new();
        let mut stream = |name: &'static str| {
            let (input, stream) = flow.channel::<i64>();
            inputs.push(input);
            let seen = out.clone();
            let sink = move |(key, value): (i64, String)| {
                seen.lock().unwrap().insert((name, key), value);
            };
            (stream.key_by(|n| n % 2), sink)
        };
        let text = |(key, value): (i64, i128)| (key, value.to_string());
        let (keyed, sink) = stream("sum");
        keyed.aggregate(Sum(|n: &i64| *n)).map(text).sink(sink);
        let (keyed, sink) = stream("max");
        keyed.combine(Max(|n: &i64| *n)).map(|(key, value)| (key, value.to_string())).sink(sink);
        let (keyed, sink) = stream("set");
        let set = |set: &mut BTreeSet<i64>, n: i64| {
            set.insert(n);
            format!("{set:?}")
        };
        keyed.aggregate(Reduce::new(set)).sink(sink);
        // The query aggregates the output of an aggregate.
        let (keyed, sink) = stream("counts");
        let counts = keyed.aggregate(Count).key_by(|(_, count)| (count % 2) as i64);
        counts.aggregate(Count).map(|(key, value)| (key, value.to_string())).sink(sink);
        for input in &mut inputs {
            (1..=2).for_each(|n| input.try_push(10 * run + n).unwrap());
        }
        drop(inputs);
        flow.simulate_in(Config { workers: 2, ..Config::default() }, &world, run as u64).unwrap();
        last = out.lock().unwrap().clone();
    }
    // The two keys' counts were 1 in the first run, 2 in the second, and 3 in the last.
    let expected = [
        (("counts", 1), "4"),
        (("max", 0), "22"),
        (("max", 1), "21"),
        (("set", 0), "{2, 12, 22}"),
        (("set", 1), "{1, 11, 21}"),
        (("sum", 0), "36"),
        (("sum", 1), "33"),
    ];
    assert_eq!(last, expected.map(|(key, value)| (key, value.to_string())).into());
}

/// Equal keys reach the same instance, even if they are encoded differently.
#[test]
fn equal_keys_that_are_written_differently_are_one() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Caseless(String);
    impl PartialEq for Caseless {
        fn eq(&self, other: &Self) -> bool {
            self.0.eq_ignore_ascii_case(&other.0)
        }
    }
    impl Eq for Caseless {}
    impl Hash for Caseless {
        fn hash<H: Hasher>(&self, hasher: &mut H) {
            self.0.to_ascii_lowercase().hash(hasher);
        }
    }
    let world = Arc::new(SimEnv::new(1));
    let mut most = BTreeMap::new();
    for (run, words) in [["a", "B", "A"], ["b", "A", "c"], ["C", "B", "a"]].into_iter().enumerate()
    {
        let flow = Flow::new("words").parallelism(3 - run).checkpoint("/c");
        let (mut input, stream) = flow.channel::<&'static str>();
        let out = Arc::new(Mutex::new(BTreeMap::new()));
        let seen = out.clone();
        stream.key_by(|word| Caseless(word.to_string())).aggregate(Count).sink(
            move |(key, count): (Caseless, u64)| {
                seen.lock().unwrap().insert(key.0.to_ascii_lowercase(), count);
            },
        );
        words.into_iter().for_each(|word| input.try_push(word).unwrap());
        drop(input);
        let config = Config { workers: 3, ..Config::default() };
        flow.simulate_in(config, &world, 1).unwrap();
        most.extend(out.lock().unwrap().clone());
    }
    assert_eq!(
        most,
        BTreeMap::from([("a", 4), ("b", 3), ("c", 2)].map(|(k, n)| (k.to_string(), n)))
    );
}

/// A key whose hash has changed would be searched for in the wrong instance.
#[test]
fn a_key_that_hashes_otherwise_is_refused() {
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Key(u64);
    static SALT: AtomicU64 = AtomicU64::new(0);
    impl Hash for Key {
        fn hash<H: Hasher>(&self, hasher: &mut H) {
            (self.0 ^ SALT.load(Ordering::Relaxed)).hash(hasher);
        }
    }
    let count = |flow: &Flow<Checkpointed>| {
        flow.items([1u64, 2, 3]).key_by(|n| Key(*n)).aggregate(Count).sink(|_| {});
    };
    let refused = second(count, |flow| {
        SALT.store(7, Ordering::Relaxed);
        count(flow);
    });
    assert!(refused.unwrap_err().starts_with("STATE_NOT_READABLE"));
}

/// Without a checkpoint, types need not support serde. With one, the flow must be configured for it
/// before its first stream is created.
#[test]
fn a_checkpoint_must_be_set_before_the_first_stream_is_created() {
    #[derive(Default)]
    struct Opaque(u64);
    let flow = Flow::new("opaque");
    let (mut input, stream) = flow.channel::<&'static str>();
    let (sink, mut output) = flow.output();
    let fold = |state: &mut u64, _: &'static str| {
        *state += Opaque(1).0;
        *state
    };
    stream.key_by(|word| *word).aggregate(Reduce::new(fold)).sink(sink);
    ["a", "b", "a"].into_iter().for_each(|word| input.try_push(word).unwrap());
    drop(input);
    flow.simulate(Config::default(), 1).unwrap();
    let seen: Vec<_> = std::iter::from_fn(|| output.try_recv()).collect();
    assert_eq!(seen, [("a", 1), ("b", 1), ("a", 2)]);

    let flow = Flow::new("late");
    let (_, stream) = flow.channel::<u64>();
    stream.key_by(|n| *n).aggregate(Count).sink(|_| {});
    let refused = flow.checkpoint("/late").simulate(Config::default(), 1).unwrap_err();
    assert!(refused.to_string().starts_with("STATE_NOT_KEPT"), "{refused}");
}

/// The record counts of an epoch do not include the records of earlier runs.
#[test]
fn records_are_counted_from_the_restart_on() {
    let folder = std::env::temp_dir().join(format!("millstream-counted-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    for run in 1..=3u64 {
        let flow = Flow::new("counts").checkpoint(&folder);
        let (mut input, stream) = flow.channel::<u64>();
        let items = flow.items(0..5 * run);
        stream.union(items).key_by(|n| n % 2).aggregate(Count).sink(|_| {});
        (0..7).for_each(|n| input.try_push(n).unwrap());
        drop(input);
        let config = Config { pin: false, trigger: Trigger::Once, ..Config::default() };
        let query = flow.start(config).unwrap();
        query.await_termination().unwrap();
        assert_eq!(query.last_epoch().unwrap().records, [7, 5], "run {run}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The query runs on threads and writes real files. The last epoch reports the number of keys.
#[test]
fn a_count_continues_on_threads() {
    let folder = std::env::temp_dir().join(format!("millstream-aggregates-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    for run in 1..=4u64 {
        let flow = Flow::new("counts").parallelism(1 + run as usize % 2).checkpoint(&folder);
        let (mut input, stream) = flow.channel::<String>();
        let (sink, mut output) = flow.output();
        stream.key_by(String::clone).aggregate(Count).sink(sink);
        let wait = WaitProfile::Park;
        let config = Config {
            workers: 2,
            pin: false,
            cores: None,
            wait,
            trigger: CONTINUOUS,
            record_stalls: false,
        };
        let query = flow.start(config).unwrap();
        assert_eq!(input.committed(), 3 * (run - 1));
        ["a", "b", "a"].into_iter().for_each(|word| input.push(word.to_string()).unwrap());
        query.process_all_available().unwrap();
        let epoch = query.last_epoch().unwrap();
        assert_eq!(epoch.state.iter().map(|state| state.rows).sum::<u64>(), 2);
        assert!(epoch.state[0].memory_bytes > 0);
        query.stop().unwrap();
        let seen: BTreeMap<_, _> = std::iter::from_fn(|| output.try_recv()).collect();
        assert_eq!(seen, BTreeMap::from([("a".to_string(), 2 * run), ("b".to_string(), run)]));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
