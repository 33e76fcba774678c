//! Joins of two streams work in bounded steps: a row with very many matches, and a watermark by
//! which very many rows expire. The tests count the output between two other rows, so no clock
//! affects them.
#![cfg(feature = "sql")]

mod two_streams;

use millstream::connect::file::committed_files;
use millstream::session::{DataFrame, QueryError, Session, Trigger};
use millstream::stream::SimEnv;
use millstream::table::physical::BareJoin;
use millstream::table::row::{Row, encode};
use millstream::table::value::Value;
use millstream_engine::env::Env;
use millstream_engine::env::simulated_storage::Fault;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::{Config, Job};
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use two_streams::{CONTINUOUS, Event, Setup, event};

const SECOND: i64 = 1_000_000;
/// The number of rows of one key, and of rows that expire at once.
const MANY: i64 = 100_000;
/// The number of rows that a join examines or removes in one step.
const STEP: u64 = 64;
/// The maximum number of steps between two other rows.
const STEPS: u64 = 16;

/// Counters of a join's output.
#[derive(Clone, Default)]
struct Counts {
    rows: Arc<AtomicU64>,
    markers: Arc<AtomicU64>,
    watermark: Arc<AtomicU64>,
}

impl Counts {
    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

impl Stage for Counts {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.watermark.store(micros as u64, Ordering::Relaxed);
        Ok(())
    }
    fn marker(&mut self, _epoch: u64) -> Result<(), EngineError> {
        self.markers.fetch_add(1, Ordering::Relaxed);
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

impl<'a> Push<Row<'a>> for Counts {
    fn push(&mut self, _row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        self.rows.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A session with two streams `l` and `r`.
fn session() -> Session {
    let session = Session::new();
    for name in ["l", "r"] {
        let source = format!("{name}0");
        session.memory_stream(&source, "k BIGINT, t TIMESTAMP, v BIGINT").unwrap();
        let frame = session.sql(&format!("SELECT * FROM {source}")).unwrap();
        frame.with_watermark("t", "0 seconds").unwrap().create_temp_view(name);
    }
    session
}

/// The join of a query without the query, and the counters of its output.
fn bare(query: &DataFrame) -> (BareJoin, Counts) {
    let config = Config { pin: false, ..Config::default() };
    let mut job = Job::new("steps", config).unwrap();
    let counts = Counts::default();
    let join = BareJoin::new(query.plan(), &mut job, Box::new(counts.clone())).unwrap();
    (join, counts)
}

fn join(kind: &str) -> (BareJoin, Counts) {
    join_on(kind, "r.t >= l.t AND r.t <= l.t + INTERVAL 1 HOUR")
}

fn join_on(kind: &str, on: &str) -> (BareJoin, Counts) {
    let sql = format!("SELECT l.v, r.v FROM l {kind} JOIN r ON l.k = r.k AND {on}");
    bare(&session().sql(&sql).unwrap())
}

fn row(k: i64, t: i64, v: i64) -> Vec<u8> {
    encode(&[Value::Long(k), Value::Long(t * SECOND), Value::Long(v)])
}

#[test]
fn a_row_with_very_many_matches_is_joined_in_steps_without_blocking_other_keys() {
    let (mut join, counts) = join("INNER");
    for v in 0..MANY {
        join.push(true, &row(1, 1000, v)).unwrap();
    }
    let (_, bytes) = join.state();
    join.push(false, &row(1, 1001, -1)).unwrap();
    assert!(counts.rows() <= STEP, "{}", counts.rows());
    let mut others = 0;
    while join.flush().unwrap() {
        let before = counts.rows();
        join.push(true, &row(2 + others, 1000, 0)).unwrap();
        join.push(false, &row(2 + others, 1000, 0)).unwrap();
        others += 1;
        assert_eq!(counts.rows() - before, 1, "the pair of another key leaves at once");
        assert!(counts.rows() <= (STEP * STEPS + 1) * (others as u64 + 2), "{others}");
        if others == 10 {
            join.end_epoch(0).unwrap();
            let passed = counts.markers.load(Ordering::Relaxed);
            assert_eq!(passed, 1, "nor does an epoch wait");
        }
    }
    assert!(others > 90, "{others}");
    assert_eq!(counts.rows(), (MANY + others) as u64);
    let (rows, more_bytes) = join.state();
    assert_eq!(rows, (MANY + 1 + 2 * others) as u64);
    // Matches are not buffered: the additional memory is that of the other keys' rows.
    assert!(more_bytes - bytes < 400 * (1 + 2 * others as u64) + (1 << 18), "{bytes} {more_bytes}");
}

#[test]
fn several_rows_with_very_many_matches_take_turns() {
    let (mut join, counts) = join("LEFT");
    let rows = MANY / 10;
    for v in 0..rows {
        join.push(true, &row(1, 1000, v)).unwrap();
    }
    for v in 0..50 {
        join.push(false, &row(1, 1001, v)).unwrap();
        let before = counts.rows();
        assert!(join.flush().unwrap());
        assert!(counts.rows() - before <= STEP * STEPS, "{v}");
    }
    while join.flush().unwrap() {}
    assert_eq!(counts.rows(), rows as u64 * 50);
    // All rows have a match, so none is emitted with NULLs.
    join.watermark(10_000 * SECOND).unwrap();
    while join.flush().unwrap() {}
    assert_eq!((counts.rows(), join.state().0), (rows as u64 * 50, 0));
}

#[test]
fn a_watermark_by_which_very_many_rows_expire_frees_them_in_steps() {
    for (kind, leave) in [("INNER", 0), ("LEFT", MANY as u64), ("FULL", MANY as u64)] {
        let (mut join, counts) = join(kind);
        for v in 0..MANY {
            join.push(true, &row(v, 1000, v)).unwrap();
        }
        let after = 10_000;
        join.watermark(after * SECOND).unwrap();
        let (mut others, mut rows) = (0, MANY as u64);
        while join.flush().unwrap() {
            let left = join.state().0 - 2 * others;
            assert!(rows - left <= 2 * STEP, "{kind}: {rows} to {left}");
            rows = left;
            let before = counts.rows();
            let key = MANY + others as i64;
            join.push(true, &row(key, after + 1, 0)).unwrap();
            join.push(false, &row(key, after + 1, 0)).unwrap();
            others += 1;
            assert_eq!(counts.rows() - before, 1, "{kind}: another key goes on");
            let passed = counts.watermark.load(Ordering::Relaxed);
            assert_eq!(passed > 0, left == 0, "the watermark follows the rows that it lets out");
            if others == 5 {
                join.end_epoch(0).unwrap();
                assert_eq!(counts.markers.load(Ordering::Relaxed), 1, "nor does an epoch wait");
            }
        }
        assert!(others > 100, "{kind}: {others}");
        assert_eq!(join.state().0, 2 * others, "{kind}");
        assert_eq!(counts.rows(), leave + others, "{kind}");
        assert!(counts.watermark.load(Ordering::Relaxed) > 0);
    }
}

/// A backlog in which each row has so many matches that searches are never all finished.
#[test]
fn rows_expire_while_new_searches_keep_starting() {
    for kind in ["INNER", "FULL"] {
        let (mut join, counts) = join(kind);
        let (many, first) = (1000, 50_000);
        for v in 0..many {
            join.push(true, &row(1, first, v)).unwrap();
        }
        // Old rows of other keys, which the first watermark removes.
        for v in 0..many {
            join.push(true, &row(2 + v, 1000, v)).unwrap();
        }
        for round in 0..20 {
            join.push(false, &row(1, first, round)).unwrap();
        }
        let mut pushed = 20;
        for round in 0..200 {
            for v in 0..3 {
                join.push(false, &row(1, first + round, v)).unwrap();
            }
            pushed += 3;
            join.watermark((20_000 + round) * SECOND).unwrap();
            assert!(join.flush().unwrap(), "{kind}: searches are unfinished");
            if round % 16 == 15 {
                join.end_epoch(round as u64).unwrap();
            }
        }
        assert_eq!(join.state().0 as i64, many + pushed, "{kind}: the old rows are gone");
        let passed = counts.watermark.load(Ordering::Relaxed) as i64;
        assert!(passed > 10_000 * SECOND, "{kind}: the watermark {passed} went on");
        while join.flush().unwrap() {}
        let alone = if kind == "FULL" { many } else { 0 };
        assert_eq!(counts.rows() as i64, many * pushed + alone, "{kind}: each match once");
    }
}

/// Rows that have expired on arrival have many matches each. They are removed at the end of their
/// searches, and do not keep the rows of their key that expire meanwhile.
#[test]
fn a_row_that_is_expired_on_arrival_finds_all_its_matches() {
    let on = "r.t >= l.t - INTERVAL 12 SECONDS AND r.t <= l.t - INTERVAL 10 SECONDS";
    let (mut join, counts) = join_on("FULL", on);
    for v in 0..1000 {
        join.push(false, &row(1, 91, v)).unwrap();
    }
    for v in 0..10 {
        join.push(false, &row(1, 95, v)).unwrap();
    }
    // Future right rows, after 95 s, match left rows after 105 s.
    join.watermark(95 * SECOND).unwrap();
    while join.flush().unwrap() {}
    for v in 0..10 {
        join.push(true, &row(1, 102, v)).unwrap();
    }
    // Left rows of the same key without a match.
    for v in 0..10 {
        join.push(true, &row(1, 104, v)).unwrap();
    }
    assert!(join.flush().unwrap(), "the left rows at 102 s still search");
    assert_eq!(join.state().0, 1010 + 10, "the left rows at 104 s have gone before them");
    while join.flush().unwrap() {}
    assert_eq!((counts.rows(), join.state().0), (10_000 + 10, 1010));
    join.watermark(1000 * SECOND).unwrap();
    while join.flush().unwrap() {}
    assert_eq!((counts.rows(), join.state().0), (10_000 + 20, 0), "the rows at 95 s had no match");
}

/// In update mode of an ASOF join, a right row may be the closest one of very many left rows.
#[test]
fn left_rows_of_an_asof_join_are_emitted_again_in_steps() {
    let session = session();
    session.set("spark.sql.join.asofJoin.enabled", "true").unwrap();
    let sql = "SELECT l.v, r.v FROM l ASOF JOIN r MATCH_CONDITION (l.t >= r.t) ON l.k = r.k";
    let (mut join, counts) = bare(&session.sql(sql).unwrap());
    for v in 0..MANY {
        join.push(true, &row(1, 1000 + v % 10, v)).unwrap();
    }
    join.push(false, &row(1, 1000, 1)).unwrap();
    assert!(counts.rows() <= STEP, "{}", counts.rows());
    assert!(!join.is_ready(), "other rows wait");
    join.watermark(2000 * SECOND).unwrap();
    join.end_epoch(0).unwrap();
    let mut before = counts.rows();
    while counts.rows() < MANY as u64 {
        assert_eq!(counts.watermark.load(Ordering::Relaxed), 0, "the watermark waits");
        assert_eq!(counts.markers.load(Ordering::Relaxed), 0, "the marker waits");
        assert!(join.flush().unwrap());
        assert!(counts.rows() - before <= STEP * STEPS, "{before} to {}", counts.rows());
        before = counts.rows();
    }
    while join.flush().unwrap() {}
    assert_eq!(counts.rows(), MANY as u64);
    assert_eq!(counts.markers.load(Ordering::Relaxed), 1);
    assert_eq!(join.state().0, 1, "the last right row is kept");
}

/// Wherever a query is stopped, the sink's files contain each match once, because the checkpoint
/// contains the progress of searches.
#[test]
fn an_unfinished_search_continues_after_a_restart() {
    let setup = Setup::new("SELECT l.v AS a, r.v AS b FROM l JOIN r ON l.k = r.k", 0, CONTINUOUS);
    let many = 20_000;
    for pauses in 0..8 {
        let mut run = setup.clone().start_files().unwrap();
        let l: Vec<Event> = (0..many).map(|v| event(1, 100, v)).collect();
        run.step(&l, &[]);
        run.add(&[], &[event(1, 100, -1), event(1, 100, -2)]);
        for _ in 0..pauses {
            run.wait_for_epoch();
        }
        for parallelism in [2, 1] {
            run.restart(parallelism).unwrap();
        }
        let lines = run.files();
        assert_eq!(lines.len() as i64, 2 * many, "after {pauses} epochs");
        let mut once = lines.clone();
        once.dedup();
        assert_eq!(once.len(), lines.len(), "each pair is there once");
    }
}

/// Rows that have expired on arrival and are restored in the middle of their searches find all their
/// matches, also if another such row arrives after the restart.
#[test]
fn a_restored_search_is_finished_before_its_row_expires() {
    let sql = "SELECT l.v AS a, r.v AS b FROM l JOIN r ON l.k = r.k \
               AND r.t >= l.t - INTERVAL 12 SECONDS AND r.t <= l.t - INTERVAL 10 SECONDS";
    let (rights, lefts) = (20_000, 4);
    for pauses in 0..4 {
        let mut run = Setup::new(sql, 0, CONTINUOUS).start_files().unwrap();
        let matched: Vec<Event> = (0..rights).map(|v| event(1, 91, v)).collect();
        run.step(&[], &matched);
        // Left rows until 105 s are expired on arrival.
        run.step(&[event(9, 95, 0)], &[event(9, 95, 0)]);
        run.add(&(0..lefts).map(|v| event(1, 102, v)).collect::<Vec<_>>(), &[]);
        for _ in 0..pauses {
            run.wait_for_epoch();
        }
        run.stop().unwrap();
        run.add(&[event(2, 102, -1)], &[]);
        run.restart(1).unwrap();
        let lines = run.files();
        assert_eq!(lines.len() as i64, lefts * rights, "after {pauses} epochs");
    }
}

/// A join whose simulated storage can crash.
struct Struck {
    world: Arc<SimEnv>,
    session: Session,
    sql: &'static str,
}

const LEFTS: i64 = 400;
const RIGHTS: i64 = 6;

impl Struck {
    /// A full join. Key 1 has many matches, key 9 has one, keys 2 and 3 have none.
    fn full(seed: u64) -> Self {
        let l = (0..LEFTS).map(|v| (1, 100, v)).chain([(2, 100, -1), (9, 9000, -9)]);
        let r = (0..RIGHTS).map(|v| (1, 101, v)).chain([(3, 100, -2), (9, 9000, -9)]);
        let sql = "SELECT l.v AS a, r.v AS b FROM l FULL JOIN r ON l.k = r.k AND r.t >= l.t \
                   AND r.t <= l.t + INTERVAL 10 SECONDS";
        Self::new(seed, sql, [l.collect(), r.collect()])
    }

    fn new(seed: u64, sql: &'static str, [l, r]: [Vec<(i64, i64, i64)>; 2]) -> Self {
        let (world, session) = (Arc::new(SimEnv::new(seed)), Session::new());
        let rows = |rows: Vec<(i64, i64, i64)>| {
            rows.into_iter().map(|(k, t, v)| [k, t * SECOND, v].map(Value::Long).to_vec())
        };
        for (name, added) in [("l", l), ("r", r)] {
            let source = format!("{name}0");
            let stream = session.memory_stream(&source, "k BIGINT, t TIMESTAMP, v BIGINT").unwrap();
            stream.add(rows(added));
            stream.close();
            let frame = session.view(&source).unwrap();
            frame.with_watermark("t", "50 seconds").unwrap().create_temp_view(name);
        }
        Self { world, session, sql }
    }

    /// Runs the query until the streams end or the storage crashes.
    fn run(&self, trigger: Trigger, parallelism: usize, seed: u64) -> Result<(), QueryError> {
        self.session.set("millstream.parallelism", &parallelism.to_string())?;
        let frame = self.session.sql(self.sql)?;
        let writer = frame.write_stream().trigger(trigger).format("csv").option("path", "/out");
        writer.option("checkpointLocation", "/c").simulate(&self.world, seed)
    }

    /// The lines of the committed files, sorted.
    fn lines(&self) -> Vec<String> {
        let storage = self.world.storage();
        let files = committed_files(storage, Path::new("/out")).unwrap().unwrap_or_default();
        let texts =
            files.iter().map(|path| String::from_utf8(storage.read(path).unwrap()).unwrap());
        let mut lines: Vec<String> =
            texts.flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>()).collect();
        lines.sort();
        lines
    }
}

/// Wherever a query crashes, the committed files contain each match once, and no matched row is
/// emitted as unmatched. This holds if the second run has another mode and parallelism.
#[test]
fn an_interrupted_search_continues_in_either_mode_and_at_another_parallelism() {
    const BUSY: Trigger = Trigger::Continuous { interval_ns: 20_000 };
    const ASAP: Trigger = Trigger::AsSoonAsPossible;
    let mut pairs: Vec<String> =
        (0..LEFTS).flat_map(|a| (0..RIGHTS).map(move |b| format!("{a},{b}"))).collect();
    pairs.sort();
    for [first, then] in [[BUSY, BUSY], [BUSY, ASAP], [ASAP, BUSY], [ASAP, ASAP]] {
        let mut under_way = 0;
        for operations in (0..).step_by(11) {
            let struck = Struck::full(operations);
            let storage = struck.world.sim_storage();
            storage.fault_after(operations, Fault::Crash);
            let parallelism = 1 + operations as usize % 3;
            let ended = struck.run(first, parallelism, operations).is_ok();
            storage.power_failure();
            storage.recover();
            let before = struck.lines().iter().filter(|line| !line.ends_with(',')).count();
            under_way += usize::from((1..pairs.len()).contains(&before));
            struck.run(then, 1 + parallelism % 3, operations + 1).unwrap();
            let (alone, matched): (Vec<_>, Vec<_>) =
                struck.lines().into_iter().partition(|line| line.split(',').any(str::is_empty));
            let of_keys = matched.into_iter().filter(|line| line != "-9,-9").collect::<Vec<_>>();
            assert_eq!(of_keys, pairs, "after {operations} operations, {first:?}, then {then:?}");
            let is_expected = |line: &String| ["-1,", ",-2"].contains(&line.as_str());
            assert!(alone.iter().all(is_expected) && alone.len() <= 2, "{alone:?}");
            if ended {
                break;
            }
        }
        // In micro-batch mode a marker waits for the end of a search, so a crash never leaves a
        // part of its matches.
        assert_eq!(under_way > 0, first == BUSY, "{first:?}: {under_way} struck in a search");
    }
}

/// While left rows of a semi join search, a right row removes them. A checkpoint then contains neither
/// the rows nor their searches, and can be restored.
#[test]
fn a_checkpoint_has_no_search_of_a_row_that_was_removed() {
    let on = "l.k = r.k AND l.v < r.v AND r.t >= l.t AND r.t <= l.t + INTERVAL '10' SECOND";
    let sql = format!("SELECT l.v FROM l LEFT SEMI JOIN r ON {on}");
    let (lefts, rights) = (1000, 3000);
    for _ in 0..4 {
        let mut run = Setup::new(&sql, 50, CONTINUOUS).start().unwrap();
        // These right rows match no left row.
        run.step(&[], &(0..rights).map(|_| event(1, 100, -1)).collect::<Vec<_>>());
        run.add(&(0..lefts).map(|v| event(1, 100, v)).collect::<Vec<_>>(), &[]);
        run.wait_for_epoch();
        run.add(&[], &[event(1, 100, 9999)]);
        // The right row has removed the first left rows, and most of them still search.
        assert!(!run.wait_for(Vec::new(), 1).is_empty());
        for parallelism in [2, 1] {
            run.restart(parallelism).unwrap();
        }
        run.step(&[event(2, 120, 1)], &[event(2, 120, 0)]);
        let rows = || run.query().last_progress().map(|progress| progress.committed.state[0].rows);
        while rows() != Some(rights as u64 + 3) {
            assert!(run.query().exception().is_none());
            run.wait_for_epoch();
        }
    }
}
