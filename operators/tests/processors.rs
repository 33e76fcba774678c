//! Processors: state and timers for each key, in both modes and with restarts, compared with a
//! naive model.

use millstream::stream::{
    Checkpointed, Context, Flow, ListState, MapState, Processor, SimEnv, Timer, Ttl, ValueState,
};
use millstream::{Config, EngineError, Trigger, WaitProfile};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: i64 = 1_000_000;
const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 2_000_000 };

/// Key, time in seconds, number.
type Record = (String, i64, u64);
type Out = (String, Result<Kept, i64>);
/// The state of a key: number of records, their numbers, sums by remainder.
type Kept = (u64, Vec<u64>, BTreeMap<u8, u64>);

#[derive(Clone)]
struct Keeper {
    count: ValueState<u64>,
    numbers: ListState<u64>,
    sums: MapState<u8, u64>,
}

impl Processor<String, Record> for Keeper {
    type Output = Out;

    fn record(
        &mut self,
        key: &String,
        (_, seconds, number): Record,
        cx: &mut Context<'_, Out>,
    ) -> Result<(), EngineError> {
        let count = cx.value(self.count).copied().unwrap_or(0) + 1;
        cx.set_value(self.count, count)?;
        if number % 5 == 0 {
            cx.clear_list(self.numbers);
        }
        cx.push(self.numbers, number)?;
        let place = (number % 4) as u8;
        if number % 7 == 0 {
            cx.remove(self.sums, &place)?;
        } else if number % 11 == 0 {
            cx.clear_map(self.sums)?;
        } else {
            let sum = cx.get(self.sums, &place).copied().unwrap_or(0) + number;
            cx.insert(self.sums, place, sum)?;
        }
        cx.set_timer(Timer::EventTime((seconds + 3) * SECOND))?;
        if number % 13 == 0 {
            cx.clear_timer(Timer::EventTime((seconds + 3) * SECOND));
        }
        let numbers = cx.list(self.numbers).copied().collect();
        let sums = cx.map(self.sums).map(|(k, v)| (*k, *v)).collect();
        cx.emit((key.clone(), Ok((count, numbers, sums))))
    }

    fn timer(
        &mut self,
        key: &String,
        timer: Timer,
        cx: &mut Context<'_, Out>,
    ) -> Result<(), EngineError> {
        let Timer::EventTime(us) = timer else { panic!("only timers of event time were set") };
        if cx.timers().next().is_none() {
            cx.clear_value(self.count);
            cx.clear_list(self.numbers);
        }
        cx.emit((key.clone(), Err(us / SECOND)))
    }
}

#[derive(Default)]
struct Model {
    keys: BTreeMap<String, (Kept, BTreeSet<i64>)>,
    watermark: i64,
}

impl Model {
    fn record(&mut self, (key, seconds, number): &Record, delay: i64) -> Vec<Out> {
        if *seconds <= self.watermark {
            return Vec::new();
        }
        let ((count, numbers, sums), timers) = self.keys.entry(key.clone()).or_default();
        *count += 1;
        if number % 5 == 0 {
            numbers.clear();
        }
        numbers.push(*number);
        let place = (number % 4) as u8;
        if number % 7 == 0 {
            sums.remove(&place);
        } else if number % 11 == 0 {
            sums.clear();
        } else {
            *sums.entry(place).or_default() += number;
        }
        timers.insert(seconds + 3);
        if number % 13 == 0 {
            timers.remove(&(seconds + 3));
        }
        let mut out = vec![(key.clone(), Ok((*count, numbers.clone(), sums.clone())))];
        self.watermark = self.watermark.max(seconds - delay);
        for (key, ((count, numbers, _), timers)) in &mut self.keys {
            while let Some(first) = timers.first().copied().filter(|t| *t <= self.watermark) {
                timers.remove(&first);
                if timers.is_empty() {
                    *count = 0;
                    numbers.clear();
                }
                out.push((key.clone(), Err(first)));
            }
        }
        out.sort();
        out
    }
}

/// Runs a flow over records in an environment, from its last checkpoint to the end of the records.
fn run(
    world: &Arc<SimEnv>,
    records: &[Record],
    trigger: Trigger,
    parallelism: usize,
    delay: i64,
    seed: u64,
) -> Result<Vec<Out>, EngineError> {
    let flow = Flow::new("keeper").parallelism(parallelism).checkpoint(Path::new("/c"));
    let (mut input, stream) = flow.channel::<Record>();
    let out = Arc::new(Mutex::new(Vec::new()));
    let seen = out.clone();
    stream
        .with_watermark(|record| record.1 * SECOND, Duration::from_secs(delay as u64))
        .key_by(|record| record.0.clone())
        .process("keeper", |states| Keeper {
            count: states.value("count", Ttl::NONE),
            numbers: states.list("numbers", Ttl::NONE),
            sums: states.map("sums", Ttl::NONE),
        })
        .sink(move |update| seen.lock().unwrap().push(update));
    for record in records {
        input.try_push(record.clone()).unwrap();
    }
    drop(input);
    let config = Config { workers: parallelism, trigger, ..Config::default() };
    flow.simulate_in(config, world, seed)?;
    let mut out = std::mem::take(&mut *out.lock().unwrap());
    out.sort();
    Ok(out)
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let step = ("[a-c]", 0i64..4, 0i64..6, 1u64..60);
    proptest::collection::vec(step, 1..16).prop_map(|steps| {
        let mut now = 1000;
        let record = |(key, ahead, behind, number)| {
            now += ahead;
            (key, now - behind, number)
        };
        steps.into_iter().map(record).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A processor that is restored into a new instance after every record, with any
    /// parallelism and in either mode, gives the same results.
    #[test]
    fn a_processor_restored_after_every_record(
        records in records(), parallelism in proptest::collection::vec(1usize..4, 16),
        modes in proptest::collection::vec(any::<bool>(), 16), delay in 0i64..4, seed: u64,
    ) {
        let world = Arc::new(SimEnv::new(seed));
        let mut model = Model::default();
        for (n, record) in records.iter().enumerate() {
            let trigger = if modes[n] { CONTINUOUS } else { Trigger::AsSoonAsPossible };
            let got = run(&world, std::slice::from_ref(record), trigger, parallelism[n], delay, seed);
            let expected = model.record(record, delay);
            prop_assert_eq!(got.unwrap(), expected, "record {}: {:?}, {:?}", n, record, trigger);
        }
    }

    /// All records in one run: all are processed, and each timer fires once.
    #[test]
    fn timers_fire_once_in_both_modes(records in records(), parallelism in 1usize..4, seed: u64) {
        let mut model = Model::default();
        // No record is late. With less delay some would be late in continuous mode, but none in a
        // single batch.
        let delay = 6;
        let expected = records.iter().flat_map(|record| model.record(record, delay));
        let mut expected: Vec<_> = expected.filter(|(_, what)| what.is_err()).collect();
        expected.sort();
        // If a record sets a timer again for a past time, the timer fires again in continuous mode,
        // but not in a single batch.
        prop_assume!(expected.windows(2).all(|pair| pair[0] != pair[1]));
        prop_assume!(records.iter().all(|record| record.2 % 13 != 0));
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let world = Arc::new(SimEnv::new(seed));
            let mut got = run(&world, &records, trigger, parallelism, delay, seed).unwrap();
            got.retain(|(_, what)| what.is_err());
            prop_assert_eq!(&got, &expected, "{:?}", trigger);
        }
    }
}

/// A record that was mapped after its event time was declared has none, so it is never late.
#[test]
fn a_mapped_record_is_not_late() {
    let records = [("a", 20, 1), ("a", 5, 2), ("a", 30, 3), ("b", 26, 4)];
    let run = |mapped: bool| {
        let flow = Flow::new("keeper");
        let (mut input, stream) = flow.channel::<Record>();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let out = seen.clone();
        let keep = |states: &mut millstream::stream::States| Keeper {
            count: states.value("count", Ttl::NONE),
            numbers: states.list("numbers", Ttl::NONE),
            sums: states.map("sums", Ttl::NONE),
        };
        let take = move |(key, what): Out| {
            if let Ok((_, numbers, _)) = what {
                out.lock().unwrap().push((key, numbers.len()));
            }
        };
        let stream = stream.with_watermark(|record| record.1 * SECOND, Duration::from_secs(4));
        let stream = stream.filter(|record| record.2 < 100);
        if mapped {
            let stream = stream.map(|record| record).key_by(|record| record.0.clone());
            stream.process("keeper", keep).sink(take);
        } else {
            stream.key_by(|record| record.0.clone()).process("keeper", keep).sink(take);
        }
        for (key, seconds, number) in records {
            input.try_push((key.to_string(), seconds, number)).unwrap();
        }
        drop(input);
        flow.simulate(Config { trigger: CONTINUOUS, ..Config::default() }, 1).unwrap();
        let seen = seen.lock().unwrap();
        seen.iter().map(|(key, numbers)| format!("{key}{numbers}")).collect::<Vec<_>>()
    };
    // At the second record the watermark is 16, and at the last one 26.
    assert_eq!(run(true), ["a1", "a2", "a3", "b1"]);
    assert_eq!(run(false), ["a1", "a2"]);
}

/// Emits its state of the last 10 s of processing time.
#[derive(Clone)]
struct Recent(ValueState<u64>, ListState<u64>, MapState<u64, u64>);

impl Processor<u64, (u64, u64)> for Recent {
    type Output = (Option<u64>, Vec<u64>, Vec<u64>);

    fn record(
        &mut self,
        _key: &u64,
        (_, number): (u64, u64),
        cx: &mut Context<'_, Self::Output>,
    ) -> Result<(), EngineError> {
        let list = cx.list(self.1).copied().collect();
        let mut map: Vec<_> = cx.map(self.2).map(|(key, _)| *key).collect();
        map.sort_unstable();
        cx.emit((cx.value(self.0).copied(), list, map))?;
        cx.set_value(self.0, number)?;
        cx.push(self.1, number)?;
        cx.insert(self.2, number, number)
    }
}

/// Runs a flow over one record, from its last checkpoint.
fn recent(
    world: &Arc<SimEnv>,
    record: (u64, u64),
    trigger: Trigger,
) -> Vec<<Recent as Processor<u64, (u64, u64)>>::Output> {
    let flow = Flow::new("recent").checkpoint("/c");
    let (mut input, stream) = flow.channel::<(u64, u64)>();
    let out = Arc::new(Mutex::new(Vec::new()));
    let seen = out.clone();
    let ttl = Ttl::after(Duration::from_secs(10));
    stream
        .key_by(|record| record.0)
        .process("recent", |states| {
            Recent(states.value("last", ttl), states.list("list", ttl), states.map("map", ttl))
        })
        .sink(move |update| seen.lock().unwrap().push(update));
    input.try_push(record).unwrap();
    drop(input);
    let config = Config { trigger, ..Config::default() };
    flow.simulate_in(config, world, 1).unwrap();
    std::mem::take(&mut *out.lock().unwrap())
}

#[test]
fn a_value_is_not_visible_after_its_time_to_live() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let world = Arc::new(SimEnv::new(3));
        let after = |seconds: u64| world.advance(seconds * 1_000_000_000);
        after(1000);
        assert_eq!(recent(&world, (1, 5), trigger), [(None, vec![], vec![])]);
        after(6);
        assert_eq!(recent(&world, (1, 6), trigger), [(Some(5), vec![5], vec![5])]);
        after(6);
        assert_eq!(recent(&world, (1, 7), trigger), [(Some(6), vec![6], vec![6])]);
        after(60);
        assert_eq!(recent(&world, (2, 8), trigger), [(None, vec![], vec![])]);
        assert_eq!(recent(&world, (1, 9), trigger), [(None, vec![], vec![])]);
    }
}

/// Emits its key when a timer of processing time has fired.
#[derive(Clone)]
struct Later;

impl Processor<u64, u64> for Later {
    type Output = u64;

    fn record(
        &mut self,
        _key: &u64,
        wait_us: u64,
        cx: &mut Context<'_, u64>,
    ) -> Result<(), EngineError> {
        let now_us = cx.processing_time_us();
        cx.set_timer(Timer::ProcessingTime(now_us + wait_us as i64))
    }

    fn timer(
        &mut self,
        key: &u64,
        timer: Timer,
        cx: &mut Context<'_, u64>,
    ) -> Result<(), EngineError> {
        let Timer::ProcessingTime(us) = timer else { panic!("no other was set") };
        assert!(cx.processing_time_us() >= us, "it fired before its time");
        cx.emit(*key)
    }
}

#[test]
fn a_processing_time_timer_wakes_a_query_without_input() {
    let hour = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    for trigger in [hour, Trigger::AsSoonAsPossible] {
        let flow = Flow::new("later");
        let (mut input, stream) = flow.channel::<u64>();
        let (sink, mut output) = flow.output();
        stream.key_by(|wait| *wait).process("later", |_| Later).sink(sink);
        let config = Config { pin: false, wait: WaitProfile::Park, trigger, ..Config::default() };
        let query = flow.start(config).unwrap();
        input.push(20_000).unwrap();
        input.push(1_000).unwrap();
        let wait = Duration::from_secs(60);
        assert_eq!(output.recv_timeout(wait).unwrap(), 1_000, "{trigger:?}");
        assert_eq!(output.recv_timeout(wait).unwrap(), 20_000, "{trigger:?}");
        query.stop().unwrap();
    }
}

#[test]
fn unsupported_flows_are_refused() {
    let world = Arc::new(SimEnv::new(1));
    let condition = |flow: Flow<Checkpointed>| {
        let refused = flow.simulate_in(Config::default(), &world, 1);
        refused.unwrap_err().to_string()
    };

    let flow = Flow::new("timeless").checkpoint("/timeless");
    let (mut input, stream) = flow.channel::<Record>();
    stream
        .key_by(|record| record.0.clone())
        .process("keeper", |states| Keeper {
            count: states.value("count", Ttl::NONE),
            numbers: states.list("numbers", Ttl::NONE),
            sums: states.map("sums", Ttl::NONE),
        })
        .sink(|_| {});
    input.try_push(("a".to_string(), 1, 1)).unwrap();
    drop(input);
    assert!(condition(flow).contains("TIMER_WITHOUT_WATERMARK"));

    // Another processor does not use the state of this one.
    let world = Arc::new(SimEnv::new(1));
    run(&world, &[("a".to_string(), 1, 1)], CONTINUOUS, 1, 0, 1).unwrap();
    let flow = Flow::new("other").checkpoint("/c");
    let (_, stream) = flow.channel::<u64>();
    stream.key_by(|n| *n).process("later", |_| Later).sink(|_| {});
    let refused = flow.simulate_in(Config::default(), &world, 1).unwrap_err().to_string();
    assert!(refused.contains("process keeper: value count, list numbers, map sums"), "{refused}");
}

/// After a restart the query reports how many pushed records were committed and need not be
/// pushed again.
#[test]
fn a_service_learns_how_much_of_its_input_is_committed() {
    let folder = std::env::temp_dir().join(format!("millstream-process-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    let run = |pushed: u64| {
        let flow = Flow::new("keeper").checkpoint(&folder);
        let (mut input, stream) = flow.channel::<Record>();
        stream
            .with_watermark(|record| record.1 * SECOND, Duration::from_secs(1))
            .key_by(|record| record.0.clone())
            .process("keeper", |states| Keeper {
                count: states.value("count", Ttl::NONE),
                numbers: states.list("numbers", Ttl::NONE),
                sums: states.map("sums", Ttl::NONE),
            })
            .sink(|_| {});
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let query = flow.start(config).unwrap();
        let before = input.committed();
        for number in 0..pushed {
            input.push(("a".to_string(), 1, number)).unwrap();
        }
        query.process_all_available().unwrap();
        let epoch = query.last_epoch().unwrap();
        query.stop().unwrap();
        // The rows of state: a count, the numbers since the list was last emptied, the sums and a
        // timer.
        (before, input.committed(), epoch.state[0].rows)
    };
    assert_eq!(run(3), (0, 3, 1 + 3 + 2 + 1));
    assert_eq!(run(4), (3, 7, 1 + 7 - 3 + 3 + 1));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A record of a sender whose clock is ahead is passed to the side output, in both modes.
#[test]
fn a_record_far_in_the_future_goes_to_the_side_output() {
    for seed in 0..20 {
        for (trigger, parallelism) in [(CONTINUOUS, 1), (Trigger::AvailableNow, 2)] {
            let world = Arc::new(SimEnv::new(seed));
            world.advance(1000 * SECOND as u64 * 1000);
            let flow = Flow::new("skew").parallelism(parallelism);
            let (mut input, stream) = flow.channel::<i64>();
            let out = Arc::new(Mutex::new(Vec::new()));
            let seen = out.clone();
            let ahead = Arc::new(Mutex::new(Vec::new()));
            let aside = ahead.clone();
            let (delay, skew) = (Duration::from_secs(1), Duration::from_secs(60));
            stream
                .with_watermark_and_ahead(
                    |second| second * SECOND,
                    delay,
                    skew,
                    move |second, limit_us| aside.lock().unwrap().push((second, limit_us / SECOND)),
                )
                .key_by(|second| *second)
                .process("pass", |_| Pass)
                .sink(move |second| seen.lock().unwrap().push(second));
            for second in [1000, 1_000_000, 1000, 1001, 1100, 1010] {
                input.try_push(second).unwrap();
            }
            drop(input);
            let config = Config { workers: parallelism, trigger, ..Config::default() };
            flow.simulate_in(config, &world, seed).unwrap();
            let mut out = std::mem::take(&mut *out.lock().unwrap());
            out.sort_unstable();
            assert_eq!(out, [1000, 1000, 1001, 1010], "seed {seed}, {trigger:?}");
            // The side output also gets the largest event time that would have been accepted.
            let ahead = ahead.lock().unwrap();
            assert_eq!(*ahead, [(1_000_000, 1060), (1100, 1060)], "seed {seed}, {trigger:?}");
        }
    }
}

#[derive(Clone)]
struct Pass;

impl Processor<i64, i64> for Pass {
    type Output = i64;

    fn record(
        &mut self,
        _key: &i64,
        second: i64,
        cx: &mut Context<'_, i64>,
    ) -> Result<(), EngineError> {
        cx.emit(second)
    }
}
