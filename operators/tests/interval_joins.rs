//! Interval joins of typed streams, in both modes and with restarts, compared with a naive model.

use millstream::stream::{
    Context, Either, Flow, Input, ListState, Processor, SimEnv, Sink, TimeOffset, Timer, Ttl,
    TwoInputProcessor, ValueState,
};
use millstream::{Config, EngineError, Trigger, WaitProfile};
use millstream_engine::env::simulated_storage::Fault;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: i64 = 1_000_000;
const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 2_000_000 };

/// Key, time in seconds, number.
type Record = (String, i64, u64);
/// The numbers of a match, or the number of a record without a match.
type Out = (Option<u64>, Option<u64>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    Anti,
}

const KINDS: [Kind; 6] = [Kind::Inner, Kind::Left, Kind::Right, Kind::Full, Kind::Semi, Kind::Anti];

#[derive(Clone, Copy, Debug)]
struct Join {
    kind: Kind,
    /// The lower bound of the right time minus the left time, in seconds.
    lower: i64,
    /// The upper bound of this difference, in seconds.
    upper: i64,
    delay: i64,
    /// Pairs whose numbers have a sum divisible by this are not a match.
    without: u64,
}

impl Join {
    /// The condition on a pair besides key and range.
    fn holds(self, left: &Record, right: &Record) -> bool {
        !(left.2 + right.2).is_multiple_of(self.without)
    }
}

fn offset(seconds: i64) -> TimeOffset {
    let time = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { TimeOffset::before(time) } else { TimeOffset::after(time) }
}

/// The parameters of one run of a flow.
#[derive(Clone, Copy, Debug)]
struct Run {
    trigger: Trigger,
    parallelism: usize,
    seed: u64,
}

/// Runs a join in an environment, from its last checkpoint to the end of the records. Returns its
/// results and the numbers of late records.
fn run(
    world: &Arc<SimEnv>,
    [left, right]: [&[Record]; 2],
    join: Join,
    run: Run,
) -> Result<(Vec<Out>, Vec<u64>), EngineError> {
    let flow = Flow::new("join").parallelism(run.parallelism).checkpoint(Path::new("/c"));
    let (mut left_input, left_stream) = flow.channel::<Record>();
    let (mut right_input, right_stream) = flow.channel::<Record>();
    let out = Arc::new(Mutex::new(Vec::new()));
    let late = Arc::new(Mutex::new(Vec::new()));
    let (seen, late_seen) = (out.clone(), late.clone());
    let delay = Duration::from_secs(join.delay as u64);
    let time = |record: &Record| record.1 * SECOND;
    let left_stream = left_stream.with_watermark(time, delay).key_by(|r| r.0.clone());
    let right_stream = right_stream.with_watermark(time, delay).key_by(|r| r.0.clone());
    let joined = left_stream
        .interval_join(right_stream)
        .between(offset(join.lower), offset(join.upper))
        .condition(move |l, r| join.holds(l, r))
        .late_records(move |record| {
            let (Either::Left(record) | Either::Right(record)) = record;
            late_seen.lock().unwrap().push(record.2);
        });
    let sink = move |result: Out| seen.lock().unwrap().push(result);
    match join.kind {
        Kind::Inner => joined.inner(|l, r| (Some(l.2), Some(r.2))).sink(sink),
        Kind::Left => joined.left_outer(|l, r| (Some(l.2), r.map(|r| r.2))).sink(sink),
        Kind::Right => joined.right_outer(|l, r| (l.map(|l| l.2), Some(r.2))).sink(sink),
        Kind::Full => joined.full_outer(|l, r| (l.map(|l| l.2), r.map(|r| r.2))).sink(sink),
        Kind::Semi => joined.left_semi(|l| (Some(l.2), None)).sink(sink),
        Kind::Anti => joined.left_anti(|l| (Some(l.2), None)).sink(sink),
    }
    left.iter().for_each(|record| left_input.try_push(record.clone()).unwrap());
    right.iter().for_each(|record| right_input.try_push(record.clone()).unwrap());
    drop((left_input, right_input));
    let config = Config { workers: run.parallelism, trigger: run.trigger, ..Config::default() };
    flow.simulate_in(config, world, run.seed)?;
    let sorted = |seen: Arc<Mutex<Vec<Out>>>| {
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort();
        seen
    };
    let mut late = std::mem::take(&mut *late.lock().unwrap());
    late.sort();
    Ok((sorted(out), late))
}

/// A naive model: every record, whether it has had a match, and whether it was emitted without a
/// match.
#[derive(Default)]
struct Model {
    sides: [Vec<(Record, bool, bool)>; 2],
    watermark: i64,
}

impl Model {
    /// Processes a record per side, neither of which can make the other one late.
    fn step(&mut self, records: [Option<&Record>; 2], join: Join) -> (Vec<Out>, Vec<u64>) {
        let (mut out, mut late) = (Vec::new(), Vec::new());
        for (side, record) in records.into_iter().enumerate() {
            let Some(record) = record else { continue };
            if record.1 <= self.watermark {
                late.push(record.2);
                continue;
            }
            let mut matched = false;
            for (other, other_matched, _) in &mut self.sides[1 - side] {
                let (left, right) = if side == 0 { (record, &*other) } else { (&*other, record) };
                let in_range = (join.lower..=join.upper).contains(&(right.1 - left.1));
                if left.0 == right.0 && in_range && join.holds(left, right) {
                    let had_match = if side == 0 { matched } else { *other_matched };
                    match join.kind {
                        Kind::Anti => {}
                        Kind::Semi if had_match => {}
                        Kind::Semi => out.push((Some(left.2), None)),
                        _ => out.push((Some(left.2), Some(right.2))),
                    }
                    (matched, *other_matched) = (true, true);
                }
            }
            self.sides[side].push((record.clone(), matched, false));
        }
        if let [Some(left), Some(right)] = records {
            self.watermark = self.watermark.max(left.1.min(right.1) - join.delay);
        }
        let preserves = match join.kind {
            Kind::Inner | Kind::Semi => [false, false],
            Kind::Left | Kind::Anti => [true, false],
            Kind::Right => [false, true],
            Kind::Full => [true, true],
        };
        for (side, last) in [(0, join.upper), (1, -join.lower)] {
            for (record, matched, left) in &mut self.sides[side] {
                if record.1 + last <= self.watermark && !*matched && !*left && preserves[side] {
                    *left = true;
                    let number = Some(record.2);
                    out.push(if side == 0 { (number, None) } else { (None, number) });
                }
            }
        }
        out.sort();
        late.sort();
        (out, late)
    }
}

fn joins() -> impl Strategy<Value = Join> {
    let parts = (0..KINDS.len(), -4i64..5, 0i64..5, 0i64..4, prop_oneof![2u64..5, Just(1000)]);
    parts.prop_map(|(kind, lower, length, delay, without)| Join {
        kind: KINDS[kind],
        lower,
        upper: lower + length,
        delay,
        without,
    })
}

/// Pairs of records, each of which may be missing.
fn steps() -> impl Strategy<Value = Vec<[Option<Record>; 2]>> {
    let record = || (0u8..5, "[ab]", 0i64..6);
    proptest::collection::vec((0i64..4, record(), record()), 1..14).prop_map(|steps| {
        let (mut now, mut number) = (1000, 0);
        let mut records = |ahead: i64, sides: [(u8, String, i64); 2]| {
            now += ahead;
            sides.map(|(there, key, behind)| {
                number += 1;
                (there > 0).then(|| (key, now - behind, number))
            })
        };
        steps.into_iter().map(|(ahead, left, right)| records(ahead, [left, right])).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A join that is restored into new instances after every pair of records, with any
    /// parallelism and in either mode, gives the same results.
    #[test]
    fn a_join_restored_after_every_record(
        steps in steps(), parallelism in proptest::collection::vec(1usize..4, 14),
        modes in proptest::collection::vec(any::<bool>(), 14), join in joins(), seed: u64,
    ) {
        let world = Arc::new(SimEnv::new(seed));
        let mut model = Model::default();
        for (n, step) in steps.iter().enumerate() {
            let trigger = if modes[n] { CONTINUOUS } else { Trigger::AsSoonAsPossible };
            let sides = step.each_ref().map(Option::as_slice);
            let way = Run { trigger, parallelism: parallelism[n], seed };
            let got = run(&world, sides, join, way).unwrap();
            let expected = model.step(step.each_ref().map(Option::as_ref), join);
            prop_assert_eq!(got, expected, "step {}: {:?}, {:?}", n, step, trigger);
        }
    }

    /// If no record is late, a join gives the result of a join of tables, in both modes.
    #[test]
    fn a_stream_join_gives_the_rows_of_a_table_join(
        steps in steps(), join in joins(), parallelism in 1usize..4, seed: u64,
    ) {
        let join = Join { delay: 60, ..join };
        // At the end the watermark passes all records, so that all are emitted or removed.
        let last = |number| Some(("z".to_string(), 2000, number));
        let ends = [last(1000), last(1001)];
        let mut model = Model::default();
        let all = steps.iter().chain([&ends]);
        let mut expected: Vec<Out> =
            all.clone().flat_map(|step| model.step(step.each_ref().map(Option::as_ref), join).0).collect();
        expected.sort();
        let of_side = |side: usize| all.clone().filter_map(|step| step[side].clone()).collect::<Vec<_>>();
        let (left, right) = (of_side(0), of_side(1));
        for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
            let world = Arc::new(SimEnv::new(seed));
            let way = Run { trigger, parallelism, seed };
            let (got, late) = run(&world, [&left, &right], join, way).unwrap();
            prop_assert_eq!((&got, late), (&expected, vec![]), "{:?}", trigger);
        }
    }
}

/// A record with many matches emits them in steps. Records of other keys are processed between the
/// steps, and no match is lost, even if a marker and a watermark arrive between the steps.
#[test]
fn a_record_with_many_matches() {
    let many = 20_000;
    let left: Vec<Record> = (0..many).map(|n| ("a".to_string(), 100, n)).collect();
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let flow = Flow::new("many");
        let (mut left_input, left_stream) = flow.channel::<Record>();
        let (mut right_input, right_stream) = flow.channel::<Record>();
        let (sink, mut output) = flow.output();
        let time = |record: &Record| record.1 * SECOND;
        let delay = Duration::from_secs(5);
        left_stream
            .with_watermark(time, delay)
            .key_by(|record| record.0.clone())
            .interval_join(right_stream.with_watermark(time, delay).key_by(|r| r.0.clone()))
            .between(offset(-1), offset(1))
            .full_outer(|l, r| (l.map(|l| l.2), r.map(|r| r.2)))
            .sink(sink);
        let config = Config { trigger, pin: false, wait: WaitProfile::Park, ..Config::default() };
        let query = flow.start(config).unwrap();
        left.iter().for_each(|record| left_input.push(record.clone()).unwrap());
        query.process_all_available().unwrap();
        right_input.push(("a".to_string(), 100, 1)).unwrap();
        right_input.push(("b".to_string(), 100, 2)).unwrap();
        let last = ("c".to_string(), 200, 3);
        right_input.push(last.clone()).unwrap();
        left_input.push(last).unwrap();
        drop((left_input, right_input));
        let mut seen = Vec::new();
        while let Ok(result) = output.recv() {
            seen.push(result);
        }
        query.await_termination().unwrap();
        let matches = seen.iter().filter(|result| result.1 == Some(1)).count();
        assert_eq!(matches, many as usize, "{trigger:?}");
        assert_eq!(seen.len(), many as usize + 2, "{trigger:?}");
        assert!(seen.contains(&(None, Some(2))) && seen.contains(&(Some(3), Some(3))));
    }
}

/// Records that a join emits without a match are older than the watermark, but they are not late
/// after the join.
#[test]
fn an_unmatched_outer_row_is_not_late_after_its_join() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let flow = Flow::new("chain");
        let (mut left_input, left_stream) = flow.channel::<Record>();
        let (mut right_input, right_stream) = flow.channel::<Record>();
        let out = Arc::new(Mutex::new(Vec::new()));
        let seen = out.clone();
        let time = |record: &Record| record.1 * SECOND;
        left_stream
            .with_watermark(time, Duration::ZERO)
            .key_by(|record| record.0.clone())
            .interval_join(
                right_stream.with_watermark(time, Duration::ZERO).key_by(|r| r.0.clone()),
            )
            .between(TimeOffset::ZERO, Duration::from_secs(10))
            .left_outer(|l, r| (l.1, (Some(l.2), r.map(|r| r.2))))
            .with_event_time(|joined| joined.0 * SECOND)
            .filter(|_| true)
            .key_by(|joined| joined.1.0.unwrap_or(0))
            .process("late?", |states| LateCheck { seen: states.value("seen", Ttl::NONE) })
            .sink(move |out: Out| seen.lock().unwrap().push(out));
        let config = Config { trigger, ..Config::default() };
        let key = || "a".to_string();
        for record in [(key(), 100, 1), (key(), 105, 2), (key(), 130, 3)] {
            left_input.try_push(record).unwrap();
        }
        for record in [(key(), 116, 4), (key(), 140, 5)] {
            right_input.try_push(record).unwrap();
        }
        drop((left_input, right_input));
        flow.simulate(config, 7).unwrap();
        let mut seen = std::mem::take(&mut *out.lock().unwrap());
        seen.sort();
        let expected = [(Some(1), None), (Some(2), None), (Some(3), Some(5))];
        assert_eq!(seen, expected, "{trigger:?}");
    }
}

#[derive(Clone)]
struct LateCheck {
    seen: ValueState<u64>,
}

impl Processor<u64, (i64, Out)> for LateCheck {
    type Output = Out;
    fn record(
        &mut self,
        key: &u64,
        (_, out): (i64, Out),
        cx: &mut Context<'_, Out>,
    ) -> Result<(), EngineError> {
        cx.set_value(self.seen, *key)?;
        cx.emit(out)
    }
}

/// A join in which records have many matches. The simulated machine may crash before it ends. In
/// a semi or anti join every fourth left record has no match.
fn many_matches(
    world: &Arc<SimEnv>,
    run: Run,
    kind: Kind,
    seen: &Arc<Mutex<BTreeSet<Out>>>,
) -> Result<(), EngineError> {
    let flow = Flow::new("many").parallelism(run.parallelism).checkpoint("/c");
    // The last record of a side: key, time in seconds, number.
    let last = (9, 1000, 1000);
    let left = (0..300u64).map(|n| (n % 2, 100 + n as i64 / 100, n)).chain([last]);
    let right = (0..24u64).map(|n| (n % 3, 100 + n as i64 / 4, n)).chain([last]);
    let (left, right) = (flow.items(left), flow.items(right));
    let time = |record: &(u64, i64, u64)| record.1 * SECOND;
    let (seen, delay) = (seen.clone(), Duration::from_secs(60));
    let joined = left
        .with_watermark(time, delay)
        .key_by(|record| record.0)
        .interval_join(right.with_watermark(time, delay).key_by(|record| record.0))
        .between(offset(-10), offset(10));
    let condition = |l: &(u64, i64, u64), r: &(u64, i64, u64)| l.2 % 4 != 3 && r.2 > 0;
    let sink = move |out: Out| {
        seen.lock().unwrap().insert(out);
    };
    match kind {
        Kind::Semi => joined.condition(condition).left_semi(|l| (Some(l.2), None)).sink(sink),
        Kind::Anti => joined.condition(condition).left_anti(|l| (Some(l.2), None)).sink(sink),
        _ => joined.full_outer(|l, r| (l.map(|l| l.2), r.map(|r| r.2))).sink(sink),
    }
    let trigger = match run.trigger {
        // Epochs end between the steps of a search.
        Trigger::Continuous { .. } => Trigger::Continuous { interval_ns: 20_000 },
        other => other,
    };
    let config = Config { workers: run.parallelism, trigger, ..Config::default() };
    flow.simulate_in(config, world, run.seed)
}

/// The checkpoint contains records, matched flags and the progress of searches. Whenever a query
/// crashes, no match is lost, and no matched record is emitted as unmatched.
#[test]
fn a_crash_at_any_write_loses_no_row_and_emits_no_wrong_null() {
    // Right records of key 2 have no match.
    crashes_at_any_write(Kind::Full, 300 * 8 + 8 + 1);
}

/// A left record that a match has removed does not come back, and its search does not either.
#[test]
fn a_crash_at_any_write_changes_no_semi_and_no_anti_join() {
    crashes_at_any_write(Kind::Semi, 225 + 1);
    crashes_at_any_write(Kind::Anti, 75);
}

/// Runs a join that crashes at each write in turn and is restarted. `results` is the number of its
/// results without a crash.
fn crashes_at_any_write(kind: Kind, results: usize) {
    let whole = |trigger, kind| {
        let seen = Arc::default();
        let way = Run { trigger, parallelism: 1, seed: 3 };
        many_matches(&Arc::new(SimEnv::new(3)), way, kind, &seen).unwrap();
        Arc::try_unwrap(seen).unwrap().into_inner().unwrap()
    };
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let expected = whole(trigger, kind);
        assert_eq!(expected.len(), results);
        for operations in 0.. {
            let world = Arc::new(SimEnv::new(operations));
            let seen = Arc::default();
            let parallelism = 1 + operations as usize % 3;
            let way = Run { trigger, parallelism, seed: operations };
            world.sim_storage().fault_after(operations, Fault::Crash);
            let ended = many_matches(&world, way, kind, &seen).is_ok();
            world.sim_storage().power_failure();
            world.sim_storage().recover();
            let way = Run { parallelism: 1 + parallelism % 3, ..way };
            many_matches(&world, way, kind, &seen).unwrap();
            let seen = seen.lock().unwrap();
            let invented: Vec<_> = seen.difference(&expected).take(9).collect();
            // After a restart, a side that has ended no longer advances the watermark, so rows
            // without a match may be missing.
            let is_match = |out: &&Out| match kind {
                Kind::Semi => true,
                Kind::Anti => false,
                _ => out.0.is_some() && out.1.is_some(),
            };
            let lost = expected.difference(&seen).filter(is_match);
            let lost: Vec<_> = lost.take(9).collect();
            let place = format!("after {operations} operations, {way:?}");
            assert!(invented.is_empty() && lost.is_empty(), "{invented:?} {lost:?} {place}");
            if ended {
                assert!(operations > 12, "{operations} operations");
                break;
            }
        }
    }
}

/// The report of an epoch contains the metrics of each side.
#[test]
fn a_join_reports_the_state_of_each_side() {
    let flow = Flow::new("reports");
    let (mut left_input, left) = flow.channel::<Record>();
    let (mut right_input, right) = flow.channel::<Record>();
    let time = |record: &Record| record.1 * SECOND;
    left.with_watermark(time, Duration::ZERO)
        .key_by(|record| record.0.clone())
        .interval_join(right.with_watermark(time, Duration::ZERO).key_by(|r| r.0.clone()))
        .between(TimeOffset::ZERO, Duration::from_secs(10))
        .inner(|l, r| l.2 + r.2)
        .sink(|_: u64| {});
    let trigger = Trigger::AsSoonAsPossible;
    let query = flow.start(Config { trigger, pin: false, ..Config::default() }).unwrap();
    let key = || "a".to_string();
    left_input.push((key(), 100, 1)).unwrap();
    left_input.push((key(), 103, 2)).unwrap();
    right_input.push((key(), 104, 3)).unwrap();
    drop((left_input, right_input));
    query.await_termination().unwrap();
    let epoch = query.last_epoch().unwrap();
    let join = epoch.state.iter().find_map(|state| state.join).unwrap();
    // The watermark is 103.
    assert_eq!(join.inputs.map(|input| input.rows), [2, 1]);
    assert_eq!(join.inputs.map(|input| input.oldest_us), [Some(100 * SECOND), Some(104 * SECOND)]);
    assert!(join.inputs.iter().all(|input| input.bytes > 0));
}

/// A left record that waits is compared with right ones as they arrive, and is gone after its first
/// match.
#[test]
fn a_join_reports_matches_expired_records_and_the_stream_that_it_waits_for() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let flow = Flow::new("reports");
        let (mut left_input, left) = flow.channel::<Record>();
        let (mut right_input, right) = flow.channel::<Record>();
        let (sink, mut output) = flow.output::<u64>();
        let time = |record: &Record| record.1 * SECOND;
        left.with_watermark(time, Duration::ZERO)
            .key_by(|record| record.0.clone())
            .interval_join(right.with_watermark(time, Duration::ZERO).key_by(|r| r.0.clone()))
            .between(TimeOffset::ZERO, Duration::from_secs(10))
            .left_semi(|l| l.2)
            .sink(sink);
        let config = Config { trigger, pin: false, wait: WaitProfile::Park, ..Config::default() };
        let query = flow.start(config).unwrap();
        let join = || {
            query.process_all_available().unwrap();
            query.last_epoch().unwrap().state.iter().find_map(|state| state.join).unwrap()
        };
        let record = |time, number| ("a".to_string(), time, number);
        left_input.push(record(100, 1)).unwrap();
        left_input.push(record(103, 2)).unwrap();
        let state = join();
        assert_eq!(state.inputs.map(|input| input.rows), [2, 0], "{trigger:?}");
        let waited_for = state.waiting_for.unwrap();
        assert!(waited_for.input == 1 && waited_for.since_us > 0, "{waited_for:?}, {trigger:?}");
        right_input.push(record(104, 3)).unwrap();
        let state = join();
        assert_eq!(state.inputs.map(|input| input.rows), [0, 1], "{trigger:?}");
        assert_eq!(state.inputs[0].oldest_us, None, "{trigger:?}");
        let mut got = [output.recv().unwrap(), output.recv().unwrap()];
        got.sort();
        assert_eq!(got, [1, 2]);
        left_input.push(record(200, 4)).unwrap();
        right_input.push(record(300, 5)).unwrap();
        let mut state = join();
        if trigger == Trigger::AsSoonAsPossible {
            // The batch after the one with the records.
            assert_eq!(state.inputs.map(|input| input.evicted), [0, 1]);
        }
        while state.inputs.map(|input| input.rows) != [1, 1] {
            state = join();
        }
        assert_eq!(state.inputs.map(|input| input.oldest_us), [200, 300].map(|s| Some(s * SECOND)));
        query.stop().unwrap();
    }
}

/// The stream with the lower watermark is waited for, also if it was the last one to have records.
#[test]
fn a_join_waits_for_the_stream_that_holds_back_the_watermark() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let flow = Flow::new("waits");
        let (mut left_input, left) = flow.channel::<Record>();
        let (mut right_input, right) = flow.channel::<Record>();
        let time = |record: &Record| record.1 * SECOND;
        left.with_watermark(time, Duration::ZERO)
            .key_by(|record| record.0.clone())
            .interval_join(right.with_watermark(time, Duration::ZERO).key_by(|r| r.0.clone()))
            .between(TimeOffset::ZERO, Duration::from_secs(10))
            .inner(|l, _| l.2)
            .sink(|_| {});
        let config = Config { trigger, pin: false, wait: WaitProfile::Park, ..Config::default() };
        let query = flow.start(config).unwrap();
        let waits_for = || {
            query.process_all_available().unwrap();
            let epoch = query.last_epoch().unwrap();
            let join = epoch.state.iter().find_map(|state| state.join).unwrap();
            join.waiting_for.map(|waited| waited.input)
        };
        let record = |time| ("a".to_string(), time, 1);
        left_input.push(record(500)).unwrap();
        waits_for();
        right_input.push(record(100)).unwrap();
        waits_for();
        // The last epoch has no records.
        assert_eq!(waits_for(), Some(1), "{trigger:?}");
        query.stop().unwrap();
    }
}

/// While one stream is silent, the records of the other one stay buffered: up to a limit, or until
/// the silent stream counts as idle.
#[test]
fn a_silent_stream_ends_the_query_at_the_limit_or_is_ignored_after_the_idle_timeout() {
    let time = |record: &Record| record.1 * SECOND;
    let config =
        Config { trigger: CONTINUOUS, pin: false, wait: WaitProfile::Park, ..Config::default() };
    for idle in [false, true] {
        let flow = Flow::new("silent");
        let flow = if idle { flow.idle_timeout(Duration::from_millis(20)) } else { flow };
        let (mut left_input, left) = flow.channel::<Record>();
        let (right_input, right) = flow.channel::<Record>();
        let (sink, mut output) = flow.output::<Out>();
        let joined = left
            .with_watermark(time, Duration::ZERO)
            .key_by(|record| record.0.clone())
            .interval_join(right.with_watermark(time, Duration::ZERO).key_by(|r| r.0.clone()))
            .between(TimeOffset::ZERO, Duration::from_secs(10));
        let joined = if idle { joined } else { joined.max_state_bytes(100_000) };
        joined.left_outer(|l, r| (Some(l.2), r.map(|r| r.2))).sink(sink);
        let query = flow.start(config.clone()).unwrap();
        for number in 0..if idle { 300 } else { 10_000 } {
            let record = ("a".to_string(), 100 + number as i64, number);
            if left_input.push(record).is_err() {
                break;
            }
        }
        if idle {
            // The records of the last ten seconds wait for a later watermark.
            for number in 0..280 {
                let result = output.recv_timeout(Duration::from_secs(60));
                assert_eq!(result.unwrap(), (Some(number), None));
            }
            query.stop().unwrap();
        } else {
            let error = query.await_termination().unwrap_err();
            assert_eq!(error.condition(), "JOIN_STATE_LIMIT_EXCEEDED");
        }
        drop(right_input);
    }
}

/// The limit is one of the buffered records, not of the memory that is reserved for more of them.
#[test]
fn a_small_limit_admits_a_few_records() {
    let time = |record: &Record| record.1 * SECOND;
    let config =
        Config { trigger: CONTINUOUS, pin: false, wait: WaitProfile::Park, ..Config::default() };
    let flow = Flow::new("few").parallelism(1);
    let (mut left_input, left) = flow.channel::<Record>();
    let (right_input, right) = flow.channel::<Record>();
    let (sink, _output) = flow.output::<Out>();
    left.with_watermark(time, Duration::ZERO)
        .key_by(|record| record.0.clone())
        .interval_join(right.with_watermark(time, Duration::ZERO).key_by(|r| r.0.clone()))
        .between(TimeOffset::ZERO, Duration::from_secs(10))
        .max_state_bytes(4096)
        .left_outer(|l, r| (Some(l.2), r.map(|r| r.2)))
        .sink(sink);
    let query = flow.start(config).unwrap();
    for number in 0..10 {
        left_input.push(("a".to_string(), 100, number)).unwrap();
    }
    query.process_all_available().unwrap();
    for number in 0..1000 {
        if left_input.push(("a".to_string(), 100, number)).is_err() {
            break;
        }
    }
    let error = query.await_termination().unwrap_err();
    assert_eq!(error.condition(), "JOIN_STATE_LIMIT_EXCEEDED");
    drop(right_input);
}

/// Adds an ordered join to a flow, which passes the number of the right record of each match to
/// `sink`. Returns the inputs.
fn ordered_join(flow: &Flow, sink: impl Sink<u64>) -> [Input<Record>; 2] {
    let (left_input, left) = flow.channel::<Record>();
    let (right_input, right) = flow.channel::<Record>();
    let time = |record: &Record| record.1 * SECOND;
    let delay = Duration::from_secs(9000);
    left.with_watermark(time, delay)
        .key_by(|record| record.0.clone())
        .interval_join(right.with_watermark(time, delay).key_by(|record| record.0.clone()))
        .between(offset(-900), offset(900))
        .ordered()
        .inner(|_, right| right.2)
        .sink(sink);
    [left_input, right_input]
}

/// The results belong to many keys, so several instances would mix their order.
#[test]
fn an_ordered_join_keeps_the_order_of_the_records_that_complete_matches() {
    let flow = Flow::new("ordered").parallelism(3);
    let (sink, mut output) = flow.output();
    let [mut left_input, mut right_input] = ordered_join(&flow, sink);
    let config = Config { pin: false, workers: 2, wait: WaitProfile::Park, ..Config::default() };
    let query = flow.start(config).unwrap();
    let records: Vec<Record> = (0..300).map(|n| ((n * 7 % 300).to_string(), 1000, n)).collect();
    records.iter().for_each(|record| left_input.push(record.clone()).unwrap());
    query.process_all_available().unwrap();
    records.iter().for_each(|record| right_input.push(record.clone()).unwrap());
    query.process_all_available().unwrap();
    let got: Vec<u64> = std::iter::from_fn(|| output.try_recv()).collect();
    assert_eq!(got, (0..300).collect::<Vec<_>>());
    query.stop().unwrap();
}

/// In a batch an ordered join reads all left records before the right ones, so that the order of
/// its results does not depend on the schedule.
#[test]
fn an_ordered_join_reads_a_batch_side_by_side() {
    for seed in 0..20 {
        let flow = Flow::new("ordered").parallelism(3);
        let got = Arc::new(Mutex::new(Vec::new()));
        let seen = got.clone();
        let sink = move |number| seen.lock().unwrap().push(number);
        let [mut left_input, mut right_input] = ordered_join(&flow, sink);
        for number in 0..300 {
            right_input.push((number.to_string(), 1000, number)).unwrap();
            left_input.push(((299 - number).to_string(), 1000, 299 - number)).unwrap();
        }
        drop((left_input, right_input));
        let config = Config { trigger: Trigger::AvailableNow, workers: 2, ..Config::default() };
        flow.simulate(config, seed).unwrap();
        assert_eq!(*got.lock().unwrap(), (0..300).collect::<Vec<_>>(), "seed {seed}");
    }
}

/// A simulated step examines two records, so each right record needs several.
#[test]
fn an_ordered_join_keeps_the_order_over_several_steps() {
    for seed in 0..20 {
        let flow = Flow::new("ordered").parallelism(3);
        let got = Arc::new(Mutex::new(Vec::new()));
        let seen = got.clone();
        let sink = move |number| seen.lock().unwrap().push(number);
        let [mut left_input, mut right_input] = ordered_join(&flow, sink);
        for number in 0..11 {
            left_input.push(("k".to_string(), 1000, number)).unwrap();
        }
        for number in 100..105 {
            right_input.push(("k".to_string(), 1000, number)).unwrap();
        }
        drop((left_input, right_input));
        let config = Config { trigger: Trigger::AvailableNow, workers: 2, ..Config::default() };
        flow.simulate(config, seed).unwrap();
        let expected: Vec<u64> = (100..105).flat_map(|number| [number; 11]).collect();
        assert_eq!(*got.lock().unwrap(), expected, "seed {seed}");
    }
}

/// The sides of a batch are also read one after another if several instances send the records of a
/// side.
#[test]
fn an_ordered_join_of_several_instances_reads_a_batch_side_by_side() {
    const PARTS: usize = 3;
    let numbers = |part: usize| {
        let record = move |n: u64| {
            let number = n * PARTS as u64 + part as u64;
            (number.to_string(), 1000, number)
        };
        (0..100).map(record)
    };
    for seed in 0..20 {
        let flow = Flow::new("ordered").parallelism(3);
        let got = Arc::new(Mutex::new(Vec::new()));
        let seen = got.clone();
        let left = flow.partitions(PARTS, move |part| numbers(part).rev());
        let right = flow.partitions(PARTS, numbers);
        let time = |record: &Record| record.1 * SECOND;
        let delay = Duration::from_secs(9000);
        left.with_watermark(time, delay)
            .key_by(|record| record.0.clone())
            .interval_join(right.with_watermark(time, delay).key_by(|record| record.0.clone()))
            .between(offset(-900), offset(900))
            .ordered()
            .inner(|_, right| right.2)
            .sink(move |number| seen.lock().unwrap().push(number));
        let config = Config { trigger: Trigger::AvailableNow, workers: 2, ..Config::default() };
        flow.simulate(config, seed).unwrap();
        // All matches are completed by right records, in their order.
        let got = got.lock().unwrap();
        for part in 0..PARTS {
            let of_part = |number: &u64| *number as usize % PARTS == part;
            let of_part: Vec<_> = got.iter().copied().filter(of_part).collect();
            assert!(of_part.len() == 100 && of_part.is_sorted(), "seed {seed}: {of_part:?}");
        }
    }
}

#[test]
fn an_unsupported_join_is_refused() {
    let refusal = |timed: bool, lower: i64| {
        let flow = Flow::new("refused");
        let (_left_input, left) = flow.channel::<Record>();
        let (_right_input, right) = flow.channel::<Record>();
        let time = |record: &Record| record.1 * SECOND;
        let left = left.with_watermark(time, Duration::ZERO);
        let sink = |_: u64| {};
        if timed {
            let right = right.with_watermark(time, Duration::ZERO).key_by(|r| r.0.clone());
            let joined = left.key_by(|r| r.0.clone()).interval_join(right);
            joined.between(offset(lower), offset(3)).inner(|l, r| l.2 + r.2).sink(sink);
        } else {
            let joined = left.key_by(|r| r.0.clone()).interval_join(right.key_by(|r| r.0.clone()));
            joined.between(offset(lower), offset(3)).inner(|l, r| l.2 + r.2).sink(sink);
        }
        let error = flow.start(Config { pin: false, ..Config::default() }).err().unwrap();
        error.condition().to_string()
    };
    assert_eq!(refusal(true, 4), "INTERVAL_JOIN_RANGE_EMPTY");
    assert_eq!(refusal(false, 0), "EVENT_TIME_MISSING");
}

/// Pairs records of a key from both sides, in order of arrival. A record without a partner after
/// five seconds is emitted alone.
#[derive(Clone)]
struct Pair {
    waiting: ListState<Either<u64, u64>>,
}

impl Pair {
    fn take(
        &self,
        record: &Record,
        of_left: bool,
        cx: &mut Context<'_, Out>,
    ) -> Result<(), EngineError> {
        let mine = if of_left { Either::Left(record.2) } else { Either::Right(record.2) };
        let mut waiting: Vec<_> = cx.list(self.waiting).copied().collect();
        let partner = waiting
            .iter()
            .position(|other| matches!(other, Either::Left(_)) != of_left)
            .map(|at| waiting.remove(at));
        cx.clear_list(self.waiting);
        if partner.is_none() {
            waiting.push(mine);
            cx.set_timer(Timer::EventTime((record.1 + 5) * SECOND))?;
        }
        waiting.into_iter().try_for_each(|other| cx.push(self.waiting, other))?;
        match (mine, partner) {
            (Either::Left(l), Some(Either::Right(r))) => cx.emit((Some(l), Some(r))),
            (Either::Right(r), Some(Either::Left(l))) => cx.emit((Some(l), Some(r))),
            _ => Ok(()),
        }
    }
}

impl TwoInputProcessor<String, Record, Record> for Pair {
    type Output = Out;
    fn left(
        &mut self,
        _: &String,
        r: Record,
        cx: &mut Context<'_, Out>,
    ) -> Result<(), EngineError> {
        self.take(&r, true, cx)
    }
    fn right(
        &mut self,
        _: &String,
        r: Record,
        cx: &mut Context<'_, Out>,
    ) -> Result<(), EngineError> {
        self.take(&r, false, cx)
    }
    fn timer(
        &mut self,
        _: &String,
        _: Timer,
        cx: &mut Context<'_, Out>,
    ) -> Result<(), EngineError> {
        let waiting: Vec<_> = cx.list(self.waiting).copied().collect();
        cx.clear_list(self.waiting);
        waiting.into_iter().try_for_each(|one| match one {
            Either::Left(number) => cx.emit((Some(number), None)),
            Either::Right(number) => cx.emit((None, Some(number))),
        })
    }
}

/// State and timers belong to a key, whichever stream its records come from, also after restarts
/// with other instances in another mode.
#[test]
fn a_processor_of_two_streams_shares_state_and_timers() {
    let world = Arc::new(SimEnv::new(11));
    let mut all = Vec::new();
    let record = |key: &str, time, number| (key.to_string(), time, number);
    let runs: [[Vec<Record>; 2]; 5] = [
        [vec![record("a", 100, 1), record("b", 100, 2)], vec![]],
        [vec![], vec![record("a", 101, 3), record("c", 101, 4)]],
        [vec![record("c", 102, 5)], vec![]],
        // The watermark passes the timer of `b`, because both sides have records in this run.
        [vec![record("d", 120, 6)], vec![record("d", 120, 7)]],
        [vec![record("e", 140, 8)], vec![record("f", 140, 9)]],
    ];
    for (n, [left, right]) in runs.into_iter().enumerate() {
        let flow = Flow::new("pairs").parallelism(1 + n % 3).checkpoint(Path::new("/c"));
        let (mut left_input, left_stream) = flow.channel::<Record>();
        let (mut right_input, right_stream) = flow.channel::<Record>();
        let out = Arc::new(Mutex::new(Vec::new()));
        let seen = out.clone();
        let time = |record: &Record| record.1 * SECOND;
        let delay = Duration::from_secs(10);
        left_stream
            .with_watermark(time, delay)
            .key_by(|record| record.0.clone())
            .connect(right_stream.with_watermark(time, delay).key_by(|r| r.0.clone()))
            .process("pairs", |states| Pair { waiting: states.list("waiting", Ttl::NONE) })
            .sink(move |out: Out| seen.lock().unwrap().push(out));
        left.into_iter().for_each(|record| left_input.try_push(record).unwrap());
        right.into_iter().for_each(|record| right_input.try_push(record).unwrap());
        drop((left_input, right_input));
        let trigger = if n % 2 == 0 { CONTINUOUS } else { Trigger::AsSoonAsPossible };
        let config = Config { workers: 1 + n % 3, trigger, ..Config::default() };
        flow.simulate_in(config, &world, n as u64).unwrap();
        all.push(std::mem::take(&mut *out.lock().unwrap()));
    }
    let expected = [
        vec![],
        vec![(Some(1), Some(3))],
        vec![(Some(5), Some(4))],
        vec![(Some(6), Some(7)), (Some(2), None)],
        vec![],
    ];
    all[3].sort_by_key(|out| std::cmp::Reverse(*out));
    assert_eq!(all, expected);
}
