//! Typed streams, on threads and under the simulated scheduler.

use millstream::stream::{Count, Flow, RecvTimeoutError, Reduce, Sum};
use millstream::{Config, Trigger, WaitProfile};
use millstream_engine::measure::stall::StallCause;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LINES: [&str; 6] =
    ["to be or not to be", "that is the question", "", "be", "or or or", "to the end"];

fn by_hand() -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in LINES.iter().flat_map(|line| line.split(' ')) {
        *counts.entry(word.to_string()).or_insert(0) += 1;
    }
    counts
}

fn config(trigger: Trigger) -> Config {
    let wait = WaitProfile::Park;
    Config { workers: 2, pin: false, wait, trigger, record_stalls: false, ..Config::default() }
}

const TRIGGERS: [Trigger; 4] = [
    Trigger::Continuous { interval_ns: 2_000_000 },
    Trigger::AsSoonAsPossible,
    Trigger::ProcessingTime { interval_ns: 5_000_000 },
    Trigger::Once,
];

/// The word count of `LINES` as a flow whose input is complete. For each word the last update
/// counts.
fn word_count(parallelism: usize) -> (Flow, Arc<Mutex<BTreeMap<String, u64>>>) {
    let flow = Flow::new("words").parallelism(parallelism);
    let (mut left, lines) = flow.channel::<&'static str>();
    let (mut right, more) = flow.channel::<&'static str>();
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let seen = counts.clone();
    lines
        .union(more)
        .flat_map(|line| line.split(' '))
        .key_by(|word| word.to_string())
        .aggregate(Count)
        .map(|update| update)
        .sink(move |(word, count): (String, u64)| {
            let before = seen.lock().unwrap().insert(word, count);
            assert_eq!(before.unwrap_or(0) + 1, count, "updates of a key come in order");
        });
    for (i, line) in LINES.iter().enumerate() {
        let input = if i % 2 == 0 { &mut left } else { &mut right };
        input.try_push(line).unwrap();
    }
    (flow, counts)
}

#[test]
fn a_thousand_random_schedules_give_the_same_answer() {
    for seed in 0..1_000 {
        let (flow, counts) = word_count(1 + seed as usize % 3);
        let trigger = TRIGGERS[seed as usize % TRIGGERS.len()];
        flow.simulate(config(trigger), seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(*counts.lock().unwrap(), by_hand(), "seed {seed}, {trigger:?}");
    }
}

#[test]
fn threads_give_the_same_answer_under_every_trigger_and_end_by_themselves() {
    for trigger in TRIGGERS {
        for parallelism in 1..3 {
            let (flow, counts) = word_count(parallelism);
            flow.start(config(trigger)).unwrap().await_termination().unwrap();
            assert_eq!(*counts.lock().unwrap(), by_hand(), "{trigger:?} x {parallelism}");
        }
    }
}

/// The word count of `LINES` at a parallelism, with a two-level aggregation.
fn combined(parallelism: usize, parts: usize) -> (Flow, Arc<Mutex<BTreeMap<String, u64>>>) {
    let flow = Flow::new("words").parallelism(parallelism);
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let seen = counts.clone();
    let part = move |number| LINES.into_iter().skip(number).step_by(parts);
    let words = flow.partitions(parts, part).flat_map(|line| line.split(' '));
    words.key_by(|word| word.to_string()).combine(Count).sink(move |(word, count)| {
        let before = seen.lock().unwrap().insert(word, count);
        assert!(before < Some(count), "values of a key come in order");
    });
    (flow, counts)
}

#[test]
fn two_level_aggregation_gives_the_same_on_every_schedule() {
    for seed in 0..1_000 {
        let (parallelism, parts) = (1 + seed as usize % 3, 1 + seed as usize % 4);
        let (flow, counts) = combined(parallelism, parts);
        let trigger = TRIGGERS[seed as usize % TRIGGERS.len()];
        flow.simulate(config(trigger), seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(*counts.lock().unwrap(), by_hand(), "seed {seed}, {trigger:?}");
    }
}

#[test]
fn parts_are_read_on_all_workers_and_no_record_waits_for_others() {
    let flow = Flow::new("sums").parallelism(2);
    let (mut input, numbers) = flow.channel::<i64>();
    let (sink, mut output) = flow.output();
    numbers.key_by(|n| n % 2).combine(Sum(|n: &i64| *n)).sink(sink);
    // No epoch ends during this test, so partial sums are flushed only because input is idle.
    let trigger = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    let query = flow.start(config(trigger)).unwrap();
    let mut sums = [0, 0];
    for n in 1..50 {
        input.push(n).unwrap();
        sums[n as usize % 2] += i128::from(n);
        let got = output.recv_timeout(Duration::from_secs(60));
        assert_eq!(got.unwrap(), (n % 2, sums[n as usize % 2]));
    }
    query.stop().unwrap();
}

#[test]
fn results_come_back_in_order_and_latency_is_recorded() {
    let flow = Flow::new("sums");
    let (mut input, numbers) = flow.channel::<i64>();
    let (sink, mut output) = flow.output();
    numbers.filter(|n| n % 2 == 0).key_by(|n| n % 4).aggregate(Sum(|n: &i64| *n)).sink(sink);
    let query = flow.start(config(TRIGGERS[0])).unwrap();
    for n in 0..6 {
        input.push(n).unwrap();
    }
    let wait = Duration::from_secs(60);
    let got: Vec<_> = (0..3).map(|_| output.recv_timeout(wait).unwrap()).collect();
    assert_eq!(got, [(0, 0), (2, 2), (0, 4)]);
    query.process_all_available().unwrap();
    assert_eq!(query.latency().count, 3);
    query.stop().unwrap();
    let ended = output.recv_timeout(wait);
    assert!(matches!(ended, Err(RecvTimeoutError::Ended)), "{ended:?}");
    assert!(input.push(7).is_err(), "the query has ended");
}

#[test]
fn a_full_output_pushes_back_to_the_input_and_loses_nothing() {
    let flow = Flow::new("full").parallelism(2);
    let (mut input, numbers) = flow.channel::<u64>();
    let (sink, mut output) = flow.output();
    numbers.flat_map(|n| [n, n]).key_by(|n| *n).aggregate(Count).sink(sink);
    let query = flow.start(config(TRIGGERS[0])).unwrap();
    // No thread reads the output. When the buffers before it are full, the input becomes full.
    let mut pushed = 0;
    while input.try_push(pushed).is_ok() || !full_for_good(&mut input, pushed) {
        pushed += 1;
        assert!(pushed < 1_000_000, "the input never filled up");
    }
    let mut got = 0;
    while got < 2 * pushed {
        output.recv_timeout(Duration::from_secs(60)).expect("an update per copy");
        got += 1;
    }
    query.stop().unwrap();
}

/// Whether the input stays full although the workers have time to process it. If it does not, the
/// value is pushed.
fn full_for_good(input: &mut millstream::stream::Input<u64>, value: u64) -> bool {
    (0..20_000).all(|_| {
        std::thread::yield_now();
        input.try_push(value).is_err()
    })
}

#[test]
fn a_panic_in_an_operator_ends_the_query_with_its_message() {
    for parallelism in [1, 2] {
        let flow = Flow::new("panics").parallelism(parallelism);
        let (mut input, numbers) = flow.channel::<u64>();
        let fold = Reduce::<_, u64>::new(|_: &mut u64, n: u64| assert!(n < 3, "three is too many"));
        numbers.key_by(|n| *n).aggregate(fold).sink(|_| {});
        let query = flow.start(config(TRIGGERS[0])).unwrap();
        for n in 0..4 {
            // The query may have ended before the last push.
            let _ = input.push(n);
        }
        let error = query.await_termination().unwrap_err();
        assert_eq!(error.condition(), "OPERATOR_PANICKED");
        assert!(error.to_string().contains("three is too many"), "{error}");
        assert_eq!(query.exception().unwrap().condition(), "OPERATOR_PANICKED");
    }
}

/// An iterator as the source: every item once, in every mode and at any parallelism.
#[test]
fn items_are_counted_to_their_end() {
    for (at, trigger) in TRIGGERS.into_iter().enumerate() {
        let flow = Flow::new("items").parallelism(1 + at % 2);
        let (sum, seen) = (Arc::new(Mutex::new(BTreeMap::new())), 10_000u64);
        let counts = sum.clone();
        let kept = flow.items(0..seen).filter(|n| n % 3 != 0).key_by(|n| n % 7).aggregate(Count);
        kept.sink(move |(key, count): (u64, u64)| {
            counts.lock().unwrap().insert(key, count);
        });
        if trigger == Trigger::Once {
            // The trigger `once` takes the available items as one batch and ends.
            flow.simulate(config(trigger), 7).unwrap();
            assert_eq!(sum.lock().unwrap().len(), 7, "{trigger:?}");
            continue;
        }
        flow.start(config(trigger)).unwrap().await_termination().unwrap();
        let expected = (0..7)
            .map(|key| (key, (0..seen).filter(|n| n % 3 != 0 && n % 7 == key).count() as u64));
        assert_eq!(*sum.lock().unwrap(), expected.collect(), "{trigger:?}");
    }
}

/// The causes of a slow record are reported. Here, the user's function is slow.
#[test]
fn a_slow_record_is_explained() {
    let flow = Flow::new("slow");
    let busy = |n: u64| {
        let begun = std::time::Instant::now();
        while n == 100 && begun.elapsed() < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        n
    };
    flow.items(0..1_000u64).map(busy).sink(|_: u64| {});
    let query = flow.start(Config { record_stalls: true, ..config(TRIGGERS[0]) }).unwrap();
    query.await_termination().unwrap();
    let slowest = query.slowest();
    let stall = slowest.first().expect("a record was slow");
    assert!(stall.latency_ns >= 4_000_000, "{stall}");
    // The function ran for all that time, or one of these causes kept it from its core.
    let own = [
        StallCause::LongDrain,
        StallCause::Preempted,
        StallCause::Stolen,
        StallCause::BlockingCall,
    ];
    let own_ns: u64 = own.iter().map(|cause| stall.parts_ns[*cause as usize]).sum();
    assert!(own_ns >= 4_000_000, "{stall}");
    assert_eq!(stall.parts_ns.iter().sum::<u64>(), stall.latency_ns);
    let flow = Flow::new("not asked for");
    flow.items(0..1_000u64).map(busy).sink(|_: u64| {});
    let query = flow.start(config(TRIGGERS[0])).unwrap();
    query.await_termination().unwrap();
    assert!(query.slowest().is_empty());
}
