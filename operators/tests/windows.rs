//! Windows of typed streams, in both modes and with restarts, compared with a naive model.

use millstream::stream::{
    CoGroup, Count, Either, Flow, Reduce, SimEnv, Sum, Window, WindowResult, WindowResults,
};
use millstream::{Config, EngineError, Trigger, WaitProfile};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: i64 = 1_000_000;
const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 2_000_000 };

/// Key, time in seconds, number.
type Record = (String, i64, u64);
/// Key, start and end in seconds, and the numbers of the left and of the right stream.
type Out = (String, (i64, i64), [Vec<u64>; 2]);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Tumbling(i64),
    Sliding(i64, i64),
    Session(i64),
}

#[derive(Clone, Copy, Debug)]
struct Case {
    shape: Shape,
    results: WindowResults,
    delay: i64,
}

/// The result of a window: its numbers, or their sum.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Sum,
    Apply,
    CoGroup,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    trigger: Trigger,
    parallelism: usize,
    seed: u64,
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(n as u64)
}

fn in_seconds(window: Window) -> (i64, i64) {
    (window.start_us / SECOND, window.end_us / SECOND)
}

/// Applies a method of windows to each kind of windows.
macro_rules! in_windows {
    ($stream:expr, $shape:expr, |$windows:ident| $body:expr) => {
        match $shape {
            Shape::Tumbling(size) => {
                let $windows = $stream.tumbling_window(seconds(size));
                $body
            }
            Shape::Sliding(size, slide) => {
                let $windows = $stream.sliding_window(seconds(size), seconds(slide));
                $body
            }
            Shape::Session(gap) => {
                let $windows = $stream.session_window(seconds(gap));
                $body
            }
        }
    };
}

/// Runs windows in an environment, from their last checkpoint to the end of the records. Returns
/// the results and the numbers of late records.
fn run(
    world: &Arc<SimEnv>,
    [left, right]: [&[Record]; 2],
    (operator, case): (Operator, Case),
    run: Run,
) -> Result<(Vec<Out>, Vec<u64>), EngineError> {
    let flow = Flow::new("windows").parallelism(run.parallelism).checkpoint(Path::new("/c"));
    let (mut left_input, left_stream) = flow.channel::<Record>();
    let out: Arc<Mutex<Vec<Out>>> = Arc::default();
    let late: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (seen, seen_late) = (out.clone(), late.clone());
    let push = move |out: Out| seen.lock().unwrap().push(out);
    let push_late = move |record: Record| seen_late.lock().unwrap().push(record.2);
    let delay = seconds(case.delay);
    let time = |record: &Record| record.1 * SECOND;
    let key = |record: &Record| record.0.clone();
    let keyed = left_stream.with_watermark(time, delay).key_by(key);
    let numbers = |records: &[&Record]| records.iter().map(|record| record.2).collect::<Vec<_>>();
    match operator {
        Operator::Sum => in_windows!(keyed, case.shape, |windows| {
            let windows = windows.results(case.results).late_records(push_late);
            windows.aggregate(Sum(|record: &Record| record.2 as i64)).sink(
                move |WindowResult { key, window, value }| {
                    push((key, in_seconds(window), [vec![value as u64], vec![]]));
                },
            );
        }),
        Operator::Apply => in_windows!(keyed, case.shape, |windows| {
            let windows = windows.late_records(push_late);
            let function = move |key: &String, window: Window, records: &[&Record]| {
                Some((key.clone(), in_seconds(window), [numbers(records), vec![]]))
            };
            windows.apply(function).sink(push);
        }),
        Operator::CoGroup => {
            let (mut right_input, right_stream) = flow.channel::<Record>();
            let other = right_stream.with_watermark(time, delay).key_by(key);
            in_windows!(keyed.connect(other), case.shape, |windows| {
                let windows = windows.late_records(move |record| {
                    let (Either::Left(record) | Either::Right(record)) = record;
                    push_late(record);
                });
                let function = move |group: CoGroup<'_, String, Record, Record>| {
                    let sides = [numbers(group.left), numbers(group.right)];
                    Some((group.key.clone(), in_seconds(group.window), sides))
                };
                windows.co_group(function).sink(push);
            });
            right.iter().for_each(|record| right_input.try_push(record.clone()).unwrap());
        }
    }
    left.iter().for_each(|record| left_input.try_push(record.clone()).unwrap());
    drop(left_input);
    let config = Config { workers: run.parallelism, trigger: run.trigger, ..Config::default() };
    flow.simulate_in(config, world, run.seed)?;
    let mut out = std::mem::take(&mut *out.lock().unwrap());
    let mut late = std::mem::take(&mut *late.lock().unwrap());
    out.sort();
    late.sort();
    Ok((out, late))
}

/// The records of both inputs by key and window, each with its time.
type OpenWindows = BTreeMap<(String, (i64, i64)), [Vec<(i64, u64)>; 2]>;

/// The open windows of each key, with the time and number of the records of each stream.
#[derive(Default)]
struct Model {
    open: OpenWindows,
    watermark: i64,
}

impl Model {
    fn windows(shape: Shape, time: i64) -> Vec<(i64, i64)> {
        match shape {
            Shape::Tumbling(size) => {
                let start = time - time.rem_euclid(size);
                vec![(start, start + size)]
            }
            Shape::Sliding(size, slide) => (time - size + 1..=time)
                .filter(|start| start.rem_euclid(slide) == 0)
                .map(|start| (start, start + size))
                .collect(),
            Shape::Session(gap) => vec![(time, time + gap)],
        }
    }

    /// Merges a session with the sessions that it touches.
    fn merge(&mut self, key: &String, (mut start, mut end): (i64, i64)) -> (i64, i64) {
        let touches =
            |(other, (s, e)): &(String, (i64, i64))| other == key && *s <= end && start <= *e;
        let all: Vec<_> = self.open.keys().filter(|window| touches(window)).cloned().collect();
        let mut records = [Vec::new(), Vec::new()];
        for window in all {
            (start, end) = (start.min(window.1.0), end.max(window.1.1));
            let of_window = self.open.remove(&window).unwrap();
            records.iter_mut().zip(of_window).for_each(|(all, some)| all.extend(some));
        }
        self.open.insert((key.clone(), (start, end)), records);
        (start, end)
    }

    fn shown(
        operator: Operator,
        key: &(String, (i64, i64)),
        records: &[Vec<(i64, u64)>; 2],
    ) -> Out {
        let numbers = records.each_ref().map(|records| {
            let mut records = records.clone();
            records.sort();
            records.into_iter().map(|(_, number)| number).collect::<Vec<_>>()
        });
        let shown = match operator {
            Operator::Sum => [vec![numbers[0].iter().sum()], vec![]],
            Operator::Apply | Operator::CoGroup => numbers,
        };
        (key.0.clone(), key.1, shown)
    }

    /// Processes a record per stream, neither of which can make the other one late.
    fn step(
        &mut self,
        records: [Option<&Record>; 2],
        (operator, case): (Operator, Case),
    ) -> (Vec<Out>, Vec<u64>) {
        let (mut out, mut late) = (Vec::new(), Vec::new());
        let early = operator == Operator::Sum && case.results == WindowResults::EachChange;
        for (side, record) in records.into_iter().enumerate() {
            let Some((key, time, number)) = record else { continue };
            let mut windows = Self::windows(case.shape, *time);
            windows.retain(|(_, end)| *end > self.watermark);
            if windows.is_empty() {
                late.push(*number);
            }
            for mut window in windows {
                if matches!(case.shape, Shape::Session(_)) {
                    window = self.merge(key, window);
                }
                let open = self.open.entry((key.clone(), window)).or_default();
                open[side].push((*time, *number));
                if early {
                    out.push(Self::shown(operator, &(key.clone(), window), open));
                }
            }
        }
        let both = operator == Operator::CoGroup;
        let time = match records {
            [Some(left), Some(right)] if both => Some(left.1.min(right.1)),
            [Some(left), _] if !both => Some(left.1),
            _ => None,
        };
        self.watermark = self.watermark.max(time.map_or(0, |time| time - case.delay));
        let watermark = self.watermark;
        self.open.retain(|window, records| {
            let stays = window.1.1 > watermark;
            if !stays && !early {
                out.push(Self::shown(operator, window, records));
            }
            stays
        });
        out.sort();
        late.sort();
        (out, late)
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (1i64..6).prop_map(Shape::Tumbling),
        (2i64..7, 1i64..7).prop_map(|(size, slide)| Shape::Sliding(size, slide.min(size))),
        (1i64..5).prop_map(Shape::Session),
    ]
}

fn cases() -> impl Strategy<Value = (Operator, Case)> {
    let operators =
        prop_oneof![Just(Operator::Sum), Just(Operator::Apply), Just(Operator::CoGroup)];
    (operators, shapes(), any::<bool>(), 0i64..4).prop_map(|(operator, shape, early, delay)| {
        let results = if early { WindowResults::EachChange } else { WindowResults::AtWatermark };
        (operator, Case { shape, results, delay })
    })
}

/// Pairs of records, each of which may be missing. Their numbers are ascending powers of two, so
/// that a sum identifies its numbers.
fn steps() -> impl Strategy<Value = Vec<[Option<Record>; 2]>> {
    let record = || (0u8..5, "[ab]", 0i64..7);
    proptest::collection::vec((0i64..4, record(), record()), 1..14).prop_map(|steps| {
        let (mut now, mut bit) = (1000, 0);
        let mut records = |ahead: i64, sides: [(u8, String, i64); 2]| {
            now += ahead;
            sides.map(|(there, key, behind)| {
                bit += 1;
                (there > 0).then(|| (key, now - behind, 1 << bit))
            })
        };
        steps.into_iter().map(|(ahead, left, right)| records(ahead, [left, right])).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Windows that are restored into new instances after every pair of records, with any
    /// parallelism and in either mode, give the same results.
    #[test]
    fn windows_restored_after_every_record(
        steps in steps(), parallelism in proptest::collection::vec(1usize..4, 14),
        modes in proptest::collection::vec(any::<bool>(), 14), case in cases(), seed: u64,
    ) {
        let world = Arc::new(SimEnv::new(seed));
        let mut model = Model::default();
        for (n, step) in steps.iter().enumerate() {
            let mut step = step.clone();
            if case.0 != Operator::CoGroup {
                step[1] = None;
            }
            let trigger = if modes[n] { CONTINUOUS } else { Trigger::AsSoonAsPossible };
            let way = Run { trigger, parallelism: parallelism[n], seed };
            let got = run(&world, step.each_ref().map(Option::as_slice), case, way).unwrap();
            let expected = model.step(step.each_ref().map(Option::as_ref), case);
            prop_assert_eq!(got, expected, "step {}: {:?}, {:?}", n, step, trigger);
        }
    }

    /// If no record is late, each window is emitted once with all its records, in both modes.
    #[test]
    fn a_window_has_all_its_records(
        steps in steps(), (operator, case) in cases(), parallelism in 1usize..4, seed: u64,
    ) {
        let case = (operator, Case { delay: 60, results: WindowResults::AtWatermark, ..case });
        let last = || Some(("z".to_string(), 5000, 1 << 40));
        let ends = [last(), last()];
        let all = || steps.iter().chain([&ends]);
        let mut of_side = [0, 1].map(|side| all().filter_map(|step| step[side].clone()).collect::<Vec<_>>());
        if operator != Operator::CoGroup {
            of_side[1].clear();
        }
        let mut model = Model::default();
        let mut expected = Vec::new();
        for step in all() {
            let right = step[1].as_ref().filter(|_| operator == Operator::CoGroup);
            expected.extend(model.step([step[0].as_ref(), right], case).0);
        }
        expected.sort();
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let world = Arc::new(SimEnv::new(seed));
            let way = Run { trigger, parallelism, seed };
            let got = run(&world, of_side.each_ref().map(Vec::as_slice), case, way).unwrap();
            prop_assert_eq!(&got, &(expected.clone(), vec![]), "{:?}", trigger);
        }
    }
}

/// A function with many results per window emits each of them once, and the state of the closed
/// windows is removed.
#[test]
fn a_window_with_many_records() {
    let many = 20_000;
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let flow = Flow::new("many");
        let (mut input, stream) = flow.channel::<Record>();
        let (sink, mut output) = flow.output();
        stream
            .with_watermark(|record| record.1 * SECOND, Duration::ZERO)
            .key_by(|record| record.0.clone())
            .sliding_window(seconds(10), seconds(5))
            .apply(|_: &String, window: Window, records: &[&Record]| {
                let (window, many) = (in_seconds(window), records.len() as u64);
                (0..many).map(move |n| (window, n))
            })
            .sink(sink);
        let config = Config { trigger, pin: false, wait: WaitProfile::Park, ..Config::default() };
        let query = flow.start(config).unwrap();
        (0..many).for_each(|n| input.push(("a".to_string(), 100, n)).unwrap());
        input.push(("b".to_string(), 200, 0)).unwrap();
        drop(input);
        let mut seen = Vec::new();
        while let Ok(result) = output.recv() {
            seen.push(result);
        }
        query.await_termination().unwrap();
        let of_window = |start: i64| {
            seen.iter().filter(|(window, _)| *window == (start, start + 10)).count() as u64
        };
        assert_eq!([of_window(95), of_window(100), of_window(195)], [many, many, 0], "{trigger:?}");
        let rows = query.last_epoch().map(|epoch| epoch.state.iter().map(|s| s.rows).sum::<u64>());
        assert_eq!(rows, Some(1), "{trigger:?}");
    }
}

/// The results of windows have an event time, so that further windows can follow.
#[test]
fn windows_of_windows() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let flow = Flow::new("chain");
        let (mut input, stream) = flow.channel::<Record>();
        let out = Arc::new(Mutex::new(Vec::new()));
        let seen = out.clone();
        stream
            .with_watermark(|record| record.1 * SECOND, Duration::ZERO)
            .key_by(|record| record.0.clone())
            .tumbling_window(seconds(5))
            .aggregate(Count)
            .key_by(|_| 0u8)
            .tumbling_window(seconds(10))
            .aggregate(Reduce::new(|sum: &mut u64, result: WindowResult<String, u64>| {
                *sum += result.value;
                *sum
            }))
            .sink(move |result: WindowResult<u8, u64>| {
                seen.lock().unwrap().push((in_seconds(result.window), result.value));
            });
        for second in [1, 2, 4, 6, 9, 11, 12, 25] {
            input.try_push(("a".to_string(), 1000 + second, 0)).unwrap();
        }
        drop(input);
        flow.simulate(Config { trigger, ..Config::default() }, 3).unwrap();
        let seen = std::mem::take(&mut *out.lock().unwrap());
        assert_eq!(seen, [((1000, 1010), 5), ((1010, 1020), 2)], "{trigger:?}");
    }
}

#[test]
fn windows_without_event_time_are_refused() {
    let flow = Flow::new("refused");
    let (_input, stream) = flow.channel::<Record>();
    let windows = stream.key_by(|record| record.0.clone()).tumbling_window(seconds(1));
    windows.aggregate(Count).sink(|_: WindowResult<String, u64>| {});
    let error = flow.start(Config { pin: false, ..Config::default() }).err().unwrap();
    assert_eq!(error.condition(), "EVENT_TIME_MISSING");
}
