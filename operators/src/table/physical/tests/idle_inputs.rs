//! Tests what operators do when an input, or a partition of it, becomes idle. Time is simulated.

use crate::session::{DataFrame, Session};
use crate::table::arbitrary_state::{GroupState, GroupStateTimeout, InputRows, StateError};
use crate::table::expr::col;
use crate::table::expr::compile::Semantics;
use crate::table::physical::lower::{BareJoin, PlacedChain};
use crate::table::physical::stages::BoxChain;
use crate::table::physical::{TableSignal, lower};
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::{Plan, Scan};
use crate::table::row::{Row, encode};
use crate::table::types::Schema;
use crate::table::value::Value;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::SimEnv;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, IDLE};
use millstream_engine::runtime::job::{Config, Job};
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use millstream_engine::runtime::tasklet::{Polled, Source, SourceTasklet, StepCx, Tasklet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND_US: i64 = 1_000_000;
const MS_NS: u64 = 1_000_000;
const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 10 * MS_NS };

/// What the end of a chain has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// A row with this number in its last column.
    Row(i64),
    Watermark(i64),
}

/// The end of a chain.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<Given>>>);

impl Keep {
    fn take(&self) -> Vec<Given> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Stage for Keep {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.0.lock().unwrap().push(Given::Watermark(micros));
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(FlushStatus::Flushed)
    }
    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for Keep {
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        let width = 2;
        let number = row.long(crate::table::row::Slot::new(width - 1, width));
        self.0.lock().unwrap().push(Given::Row(number));
        Ok(())
    }
}

/// A session with the streams `a`, which has two partitions, and `b`. Both have the columns
/// `timestamp` and `value`.
fn session() -> Session {
    let session = Session::new();
    for (name, parts) in [("a", 2), ("b", 1)] {
        let reader = session.read_stream().format("rate").option("numPartitions", parts);
        reader.load().unwrap().create_temp_view(name);
    }
    session
}

fn job(workers: usize, env: &Arc<SimEnv>) -> Job {
    let config = Config { workers, trigger: CONTINUOUS, ..Config::default() };
    Job::in_env("idle", config, env.clone()).unwrap()
}

fn row(seconds: i64, value: i64) -> Vec<u8> {
    encode(&[Value::Long(seconds * SECOND_US), Value::Long(value)])
}

/// The chain of a query over one stream, in front of `keep`.
fn chain_of(frame: DataFrame, job: &mut Job, keep: &Keep) -> BoxChain {
    let plan: Plan = Arc::unwrap_or_clone(frame.plan);
    let mut chains: Vec<PlacedChain> = Vec::new();
    let mut source = |_: &mut Job, _: &Scan, _: &[bool], downs: Vec<PlacedChain>| {
        chains.extend(downs);
        Ok(Vec::new())
    };
    let how = (OutputMode::Append, Semantics::default());
    let sink: BoxChain = Box::new(keep.clone());
    lower(&plan, how, 1, job, (sink, None, TableSignal::default()), &mut source).unwrap();
    chains.pop().unwrap().1
}

/// Pushes rows whose watermark releases them all, then says that the input is idle, before the
/// operator has finished. Checks that the operator passes this on last.
fn check_order(what: &str, given: &[Given], rows: usize) {
    let found = given.iter().filter(|given| matches!(given, Given::Row(_))).count();
    assert_eq!(found, rows, "{what}: {given:?}");
    let watermarks: Vec<_> =
        given.iter().filter(|given| matches!(given, Given::Watermark(_))).collect();
    let [.., before, last] = &watermarks[..] else { panic!("{what}: {given:?}") };
    assert_eq!(**last, Given::Watermark(IDLE), "{what}: {given:?}");
    assert_ne!(**before, Given::Watermark(IDLE), "{what}: it is said once: {given:?}");
    assert_eq!(given.last(), Some(*last), "{what}: {given:?}");
}

/// An operator that still removes state for a watermark passes this watermark on later. If it said
/// at once that its input is idle, the watermark would make the input active again for ever.
#[test]
fn idleness_does_not_overtake_the_watermark_before_it() {
    const OF_B: &str = "(SELECT * FROM b WATERMARK timestamp DELAY OF INTERVAL 10 SECONDS)";
    let session = session();
    let frame = |sql: String| session.sql(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let windows = |window: &str| {
        frame(format!("SELECT count(*), value FROM {OF_B} GROUP BY {window}, value"))
    };
    let distinct = frame(format!("SELECT * FROM {OF_B}"));
    let distinct = distinct.drop_duplicates_within_watermark(["value"]).unwrap();
    let cases = [
        ("groups", windows("window(timestamp, '10 seconds')"), 9),
        ("slices", windows("window(timestamp, '10 seconds', '5 seconds')"), 18),
        ("sessions", windows("session_window(timestamp, '5 seconds')"), 9),
        // The row that moves the watermark is passed on too.
        ("duplicates", distinct, 10),
    ];
    for (what, frame, rows) in cases {
        let env = Arc::new(SimEnv::new(1));
        let (mut job, keep) = (job(1, &env), Keep::default());
        let mut chain = chain_of(frame, &mut job, &keep);
        (0..9).for_each(|key| chain.push(Row(&row(1, key)), 0).unwrap());
        chain.push(Row(&row(1_000, 99)), 0).unwrap();
        chain.watermark(IDLE).unwrap();
        while chain.flush().unwrap() > FlushStatus::Buffered {}
        check_order(what, &keep.take(), rows);
        // The input becomes active and idle again while nothing is pending.
        chain.push(Row(&row(1_001, 99)), 0).unwrap();
        chain.watermark(IDLE).unwrap();
        while chain.flush().unwrap() > FlushStatus::Buffered {}
        assert_eq!(keep.take().last(), Some(&Given::Watermark(IDLE)), "{what}");
    }
}

/// Timers of processing time take steps of their own, so the mark waits although no watermark does.
/// The number of timers is a multiple of those of a step.
#[test]
fn idleness_is_passed_on_after_the_last_timer() {
    let session = session();
    let frame = session.sql("SELECT * FROM b WATERMARK timestamp DELAY OF INTERVAL 10 SECONDS");
    let function = |key: &[Value],
                    _rows: InputRows<'_>,
                    state: &mut GroupState<'_, i64>|
     -> Result<_, StateError> {
        if state.has_timed_out() {
            state.remove();
            return Ok(vec![vec![key[0].clone(), key[0].clone()]]);
        }
        state.update(0)?;
        state.set_timeout_duration(Duration::from_secs(1))?;
        Ok(Vec::new())
    };
    let output = Schema::parse_ddl("k BIGINT, n BIGINT").unwrap();
    let grouped = frame.unwrap().group_by([col("value")]);
    let timeout = GroupStateTimeout::ProcessingTimeTimeout;
    let frame = grouped.flat_map_groups_with_state(output, timeout, function).unwrap();
    let env = Arc::new(SimEnv::new(1));
    let (mut job, keep) = (job(1, &env), Keep::default());
    let mut chain = chain_of(frame, &mut job, &keep);
    (0..8).for_each(|key| chain.push(Row(&row(1, key)), 0).unwrap());
    while chain.flush().unwrap() > FlushStatus::Buffered {}
    keep.take();
    env.advance(2_000 * MS_NS);
    chain.watermark(IDLE).unwrap();
    while chain.flush().unwrap() > FlushStatus::Buffered {}
    let given = keep.take();
    let rows = given.iter().filter(|given| matches!(given, Given::Row(_))).count();
    assert_eq!((rows, given.last()), (8, Some(&Given::Watermark(IDLE))), "{given:?}");
}

#[test]
fn idleness_does_not_overtake_the_watermark_of_a_join() {
    let session = session();
    let sql = "SELECT va, vb FROM \
        (SELECT timestamp AS ta, value AS va FROM a WATERMARK timestamp DELAY OF INTERVAL 0 SECONDS) \
        LEFT JOIN \
        (SELECT timestamp AS tb, value AS vb FROM b WATERMARK timestamp DELAY OF INTERVAL 0 SECONDS) \
        ON va = vb AND tb >= ta AND tb <= ta + INTERVAL 1 SECOND";
    let plan: Plan = Arc::unwrap_or_clone(session.sql(sql).unwrap().plan);
    let env = Arc::new(SimEnv::new(1));
    let (mut job, keep) = (job(1, &env), Keep::default());
    let mut join = BareJoin::new(&plan, &mut job, Box::new(keep.clone())).unwrap();
    (0..9).for_each(|key| join.push(true, &row(1, key)).unwrap());
    join.watermark(1_000 * SECOND_US).unwrap();
    join.watermark(IDLE).unwrap();
    while join.flush().unwrap() {}
    check_order("join", &keep.take(), 9);
}

/// A source that emits rows at given times of the simulated clock.
struct Timed {
    /// The time in milliseconds, and the event time in seconds.
    rows: Vec<(u64, i64)>,
    next: usize,
}

impl Source<BoxChain> for Timed {
    fn name(&self) -> &str {
        "timed"
    }
    fn poll(&mut self, down: &mut BoxChain, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        match self.rows.get(self.next) {
            None => Ok(Polled::Exhausted),
            Some((at_ms, seconds)) if cx.env.now_ns() >= at_ms * MS_NS && down.is_ready() => {
                self.next += 1;
                down.push(Row(&row(*seconds, 0)), 0).map(|()| Polled::Emitted)
            }
            Some(_) => Ok(Polled::Idle),
        }
    }
    fn position(&self) -> Offset {
        Offset::default()
    }
    fn records_emitted(&self) -> u64 {
        self.next as u64
    }
    fn resume(&mut self, _at: &Offset) -> Result<(), EngineError> {
        Ok(())
    }
    fn plan(&mut self, _: ReadLimit, _: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        unreachable!("the test is in continuous mode")
    }
    fn set_end_offset(&mut self, _end: &Offset) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Without an idle time-out, a source that pauses holds back the watermark of a union, also if it
/// has several partitions.
#[test]
fn a_source_whose_partitions_pause_holds_back_other_sources() {
    let sql = "SELECT window.start, count(*) FROM \
        (SELECT timestamp FROM a WATERMARK timestamp DELAY OF INTERVAL 0 SECONDS \
        UNION ALL SELECT timestamp FROM b WATERMARK timestamp DELAY OF INTERVAL 0 SECONDS) \
        GROUP BY window(timestamp, '10 seconds')";
    // The idle time-out in milliseconds, the rows of the window, and the late rows.
    for (idle_ms, count, wanted_late) in [(None, 4, 0), (Some(200), 3, 1), (Some(50), 3, 1)] {
        for seed in 0..4 {
            let plan: Plan = Arc::unwrap_or_clone(session().sql(sql).unwrap().plan);
            let env = Arc::new(SimEnv::new(seed));
            let (mut job, keep) = (job(1, &env), Keep::default());
            job.set_idle_timeout(idle_ms.map(|ms: u64| ms * MS_NS));
            let late = Arc::new(Mutex::new(0));
            let sum = late.clone();
            job.on_commit(move |epoch| {
                *sum.lock().unwrap() += epoch.state.iter().map(|state| state.late).sum::<u64>();
            });
            let mut source = |job: &mut Job, _: &Scan, _: &[bool], chains: Vec<PlacedChain>| {
                let is_a = chains.len() == 2;
                let make = |(part, (worker, chain)): (usize, PlacedChain)| {
                    let rows = match (is_a, part) {
                        (true, 0) => vec![(0, 1), (500, 2), (510, 100)],
                        (true, _) => vec![(0, 1), (510, 100)],
                        (false, _) => vec![(0, 1), (0, 50), (490, 51)],
                    };
                    let port = job.source_port(worker);
                    let tasklet = SourceTasklet::new(port, Timed { rows, next: 0 }, chain);
                    Ok(Box::new(tasklet) as Box<dyn Tasklet>)
                };
                chains.into_iter().enumerate().map(make).collect()
            };
            let how = (OutputMode::Append, Semantics::default());
            let sink: BoxChain = Box::new(keep.clone());
            lower(&plan, how, 1, &mut job, (sink, None, TableSignal::default()), &mut source)
                .unwrap();
            job.simulate(&env, seed).unwrap();
            let of = format!("{idle_ms:?}, seed {seed}");
            let given = keep.take();
            let first = given.iter().find(|given| matches!(given, Given::Row(_)));
            assert_eq!(first, Some(&Given::Row(count)), "{of}: {given:?}");
            assert_eq!(*late.lock().unwrap(), wanted_late, "{of}");
        }
    }
}
