//! Random steps with late rows and restarts, in each output mode, with any number of instances and
//! source partitions. In micro-batch mode every step must give the rows of a naive model of the two
//! watermarks, in continuous mode all steps together.
#![cfg(feature = "sql")]

use millstream::connect::memory::MemoryStream;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

const SECOND: i64 = 1_000_000;
const DELAY: i64 = 5;
/// The interval is so long that, after the first batch, one runs only when
/// `process_all_available` waits for it.
const WHEN_AWAITED: Trigger = Trigger::ProcessingTime { interval_ns: u64::MAX / 4 };
const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 20_000_000 };

/// Time in seconds, key, number.
type Event = (i64, i64, i64);

#[derive(Clone, Debug)]
enum Step {
    Rows(Vec<Event>),
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Append,
    Update,
    Complete,
}

#[derive(Clone, Copy, Debug)]
enum Query {
    /// Windows with a length and a slide, by key or without a key.
    Windows { width: i64, slide: i64, by_key: bool, mode: Mode },
    /// Sessions with a gap.
    Sessions { gap: i64, mode: Mode },
    /// The first row of each key. The time is a key, another column, or not read.
    Duplicates(Time),
    /// A running aggregate by key, without event time.
    Running,
    /// A global aggregate, which has one row.
    Global,
    /// Windows over the results of 10 s windows.
    Chain { width: i64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Key,
    Beside,
    Unread,
}

impl Query {
    fn mode(self) -> Mode {
        match self {
            Self::Windows { mode, .. } | Self::Sessions { mode, .. } => mode,
            Self::Running | Self::Global => Mode::Update,
            Self::Duplicates(_) | Self::Chain { .. } => Mode::Append,
        }
    }

    fn sql(self) -> String {
        match self {
            Self::Windows { width, slide, by_key, .. } => {
                let key = if by_key { "k" } else { "0" };
                let group = if by_key { ", k" } else { "" };
                format!(
                    "SELECT unix_seconds(window.start), {key}, count(*), sum(n) FROM e \
                     GROUP BY window(ts, '{width} seconds', '{slide} seconds'){group}"
                )
            }
            Self::Sessions { gap, .. } => format!(
                "SELECT unix_seconds(session_window.start), unix_seconds(session_window.end), k, \
                 count(*), sum(n) FROM e GROUP BY session_window(ts, '{gap} seconds'), k"
            ),
            Self::Duplicates(Time::Unread) => "SELECT k FROM d".to_string(),
            Self::Duplicates(_) => "SELECT unix_seconds(ts), k FROM d".to_string(),
            Self::Running => "SELECT k, count(*), sum(n) FROM e GROUP BY k".to_string(),
            Self::Global => "SELECT count(*), sum(n) FROM e".to_string(),
            Self::Chain { width } => format!(
                "SELECT unix_seconds(window.start), 0, sum(c), sum(t) FROM (SELECT window_time(w) AS ts, \
                 c, t FROM (SELECT window AS w, k, count(*) AS c, sum(n) AS t FROM e \
                 GROUP BY window(ts, '10 seconds'), k)) GROUP BY window(ts, '{width} seconds')"
            ),
        }
    }
}

/// The starts of the windows that contain a time, the last one first.
fn windows(time: i64, width: i64, slide: i64) -> impl Iterator<Item = i64> {
    let last = time.div_euclid(slide) * slide;
    (0..).map(move |i| last - i * slide).take_while(move |begin| time < begin + width)
}

/// A session: start, end, number of rows, their sum.
type Session4 = (i64, i64, i64, i64);

/// A naive model of Spark's rules.
struct Model {
    query: Query,
    /// The watermark of the last batch.
    last: i64,
    /// The watermark of the next batch.
    next: i64,
    groups: BTreeMap<(i64, i64), (i64, i64)>,
    outer: BTreeMap<(i64, i64), (i64, i64)>,
    sessions: BTreeMap<i64, Vec<Session4>>,
    seen: BTreeSet<(i64, i64)>,
}

impl Model {
    fn new(query: Query) -> Self {
        Self {
            query,
            last: 0,
            next: 0,
            groups: BTreeMap::new(),
            outer: BTreeMap::new(),
            sessions: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// The output rows of a step: those of its batch, and of the following batch without data.
    fn step(&mut self, rows: &[Event]) -> Vec<Vec<i64>> {
        let mut out = self.batch(rows);
        if self.query.mode() != Mode::Complete && self.next > self.last {
            out.extend(self.batch(&[]));
        }
        out.sort();
        out
    }

    fn batch(&mut self, rows: &[Event]) -> Vec<Vec<i64>> {
        let (late, evict) = (self.last, self.next);
        let out = match self.query {
            Query::Windows { width, slide, by_key, mode } => {
                let mut touched = BTreeSet::new();
                for (time, k, n) in rows {
                    for begin in windows(*time, width, slide) {
                        if begin + width <= late && mode != Mode::Complete {
                            continue;
                        }
                        let key = (begin, if by_key { *k } else { 0 });
                        let group = self.groups.entry(key).or_default();
                        *group = (group.0 + 1, group.1 + n);
                        touched.insert(key);
                    }
                }
                let over = |(begin, _): &(i64, i64)| begin + width <= evict;
                let shown = |key: &(i64, i64)| match mode {
                    Mode::Append => over(key),
                    Mode::Update => touched.contains(key),
                    Mode::Complete => true,
                };
                let out = rows_of(self.groups.iter().filter(|(key, _)| shown(key)));
                if mode != Mode::Complete {
                    self.groups.retain(|key, _| !over(key));
                }
                out
            }
            Query::Sessions { gap, mode } => self.sessions(rows, gap, mode, late, evict),
            Query::Duplicates(time) => {
                let mut out = Vec::new();
                for (at, k, _) in rows {
                    let key = if time == Time::Key { (*at, *k) } else { (0, *k) };
                    if *at <= late && time != Time::Unread || !self.seen.insert(key) {
                        continue;
                    }
                    out.push(if time == Time::Unread { vec![*k] } else { vec![*at, *k] });
                }
                if time == Time::Key {
                    self.seen.retain(|(at, _)| *at > evict);
                }
                out
            }
            Query::Running | Query::Global => {
                let global = matches!(self.query, Query::Global);
                let mut touched: BTreeSet<i64> = if global { [0].into() } else { [].into() };
                for (_, k, n) in rows {
                    let k = if global { 0 } else { *k };
                    let group = self.groups.entry((0, k)).or_default();
                    *group = (group.0 + 1, group.1 + n);
                    touched.insert(k);
                }
                let group = |k: i64| {
                    let (count, sum) = self.groups.get(&(0, k)).copied().unwrap_or_default();
                    if global { vec![count, sum] } else { vec![k, count, sum] }
                };
                touched.into_iter().map(group).collect()
            }
            Query::Chain { width } => {
                for (time, k, n) in rows {
                    let begin = time.div_euclid(10) * 10;
                    if begin + 10 > late {
                        let group = self.groups.entry((begin, *k)).or_default();
                        *group = (group.0 + 1, group.1 + n);
                    }
                }
                let over = |begin: i64, width: i64| begin + width <= evict;
                for ((begin, _), (count, sum)) in &self.groups {
                    // The last microsecond of the window is not a whole second, but it is in the
                    // same outer window.
                    let outer = begin.div_euclid(width) * width;
                    if over(*begin, 10) && outer + width > late {
                        let group = self.outer.entry((outer, 0)).or_default();
                        *group = (group.0 + count, group.1 + sum);
                    }
                }
                self.groups.retain(|(begin, _), _| !over(*begin, 10));
                let out = rows_of(self.outer.iter().filter(|((begin, _), _)| over(*begin, width)));
                self.outer.retain(|(begin, _), _| !over(*begin, width));
                out
            }
        };
        self.last = evict;
        let seen = rows.iter().map(|(time, ..)| time - DELAY).max();
        self.next = self.next.max(seen.unwrap_or(0));
        out
    }

    fn sessions(
        &mut self,
        rows: &[Event],
        gap: i64,
        mode: Mode,
        late: i64,
        evict: i64,
    ) -> Vec<Vec<i64>> {
        for (time, k, n) in rows.iter().filter(|(time, ..)| time + gap > late) {
            let list = self.sessions.entry(*k).or_default();
            list.push((*time, time + gap, 1, *n));
            list.sort_unstable();
            let mut merged: Vec<Session4> = Vec::new();
            for next in list.drain(..) {
                match merged.last_mut() {
                    Some(last) if next.0 <= last.1 => {
                        let end = last.1.max(next.1);
                        *last = (last.0, end, last.2 + next.2, last.3 + next.3);
                    }
                    _ => merged.push(next),
                }
            }
            *list = merged;
        }
        let shown = |session: &Session4| mode == Mode::Complete || session.1 <= evict;
        let row = |(k, (begin, end, count, sum)): (i64, Session4)| vec![begin, end, k, count, sum];
        let all = self.sessions.iter().flat_map(|(k, list)| list.iter().map(|s| (*k, *s)));
        let out = all.filter(|(_, session)| shown(session)).map(row).collect();
        if mode == Mode::Append {
            self.sessions.values_mut().for_each(|list| list.retain(|session| !shown(session)));
        }
        out
    }
}

fn rows_of<'g>(groups: impl Iterator<Item = (&'g (i64, i64), &'g (i64, i64))>) -> Vec<Vec<i64>> {
    groups.map(|((begin, k), (count, sum))| vec![*begin, *k, *count, *sum]).collect()
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-late-model-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

struct Run {
    session: Session,
    events: MemoryStream,
    query: Option<StreamingQuery>,
    folder: Folder,
    sql: String,
    mode: String,
    trigger: Trigger,
}

impl Run {
    fn new(query: Query, parallelism: usize, parts: usize, trigger: Trigger) -> Self {
        let session = Session::new();
        session.set("millstream.parallelism", &parallelism.to_string()).unwrap();
        let schema = "ts TIMESTAMP, k BIGINT, n BIGINT";
        let events = session.memory_stream_in_parts("events", schema, parts).unwrap();
        let e = session.view("events").unwrap();
        let e = e.with_watermark("ts", &format!("{DELAY} seconds")).unwrap();
        e.create_temp_view("e");
        if let Query::Duplicates(time) = query {
            let keys: &[&str] = if time == Time::Key { &["ts", "k"] } else { &["k"] };
            e.drop_duplicates(keys.iter().copied()).unwrap().create_temp_view("d");
        }
        let (folder, mode) = (Folder::new(), format!("{:?}", query.mode()));
        let sql = query.sql();
        let mut run = Self { session, events, query: None, folder, sql, mode, trigger };
        run.start();
        run
    }

    fn start(&mut self) {
        if let Some(query) = self.query.take() {
            query.stop().unwrap();
        }
        let frame = self.session.sql(&self.sql).unwrap_or_else(|e| panic!("{}: {e}", self.sql));
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = frame.write_stream().output_mode(&self.mode).format("memory");
        let writer = writer.query_name("out").trigger(self.trigger).config(config);
        let writer = writer.option("checkpointLocation", self.folder.0.display());
        self.query = Some(writer.start().unwrap_or_else(|e| panic!("{}: {e}", self.sql)));
        self.wait();
    }

    fn wait(&self) {
        self.query.as_ref().unwrap().process_all_available().unwrap();
    }

    fn take(&self) -> Vec<Vec<i64>> {
        let long = |value: &Value| match value {
            Value::Long(v) => *v,
            other => panic!("{other:?}"),
        };
        let rows = self.session.table("out").unwrap().take();
        let mut rows: Vec<Vec<i64>> =
            rows.iter().map(|row| row.iter().map(long).collect()).collect();
        rows.sort();
        rows
    }

    fn step(&mut self, step: &Step) -> Vec<Vec<i64>> {
        drop(self.take());
        match step {
            Step::Restart => self.start(),
            Step::Rows(rows) => self.events.add(rows.iter().map(|(time, k, n)| {
                vec![Value::Long(time * SECOND), Value::Long(*k), Value::Long(*n)]
            })),
        }
        self.wait();
        self.take()
    }
}

/// Steps whose rows are at most `disorder` seconds behind the largest earlier time.
fn steps(disorder: i64) -> impl Strategy<Value = Vec<Step>> {
    let row = (0i64..5, 0..=disorder, 0i64..3, 0i64..50);
    let rows = proptest::collection::vec(row, 1..7);
    let step = prop_oneof![5 => rows.prop_map(Some), 2 => Just(None)];
    // Some sequences of steps begin before 1970.
    let begin = prop_oneof![4 => Just(1000i64), 1 => Just(-20i64)];
    (begin, proptest::collection::vec(step, 1..7)).prop_map(|(begin, steps)| {
        let mut now = begin;
        let mut made: Vec<Step> = steps
            .into_iter()
            .map(|step| match step {
                None => Step::Restart,
                Some(rows) => Step::Rows(
                    rows.into_iter()
                        .map(|(ahead, behind, k, n)| {
                            now += ahead;
                            (now - behind, k, n)
                        })
                        .collect(),
                ),
            })
            .collect();
        made.push(Step::Rows(vec![(now + 1000, 25, 0)]));
        made
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Append), Just(Mode::Update), Just(Mode::Complete)]
}

fn query() -> impl Strategy<Value = Query> {
    let time = prop_oneof![Just(Time::Key), Just(Time::Beside), Just(Time::Unread)];
    let session_mode = prop_oneof![Just(Mode::Append), Just(Mode::Complete)];
    prop_oneof![
        4 => (1i64..12, 0i64..15, any::<bool>(), any::<bool>(), mode()).prop_map(
            |(slide, more, tumbling, by_key, mode)| {
                let width = if tumbling { slide } else { slide + more };
                Query::Windows { width, slide, by_key, mode }
            }
        ),
        2 => (1i64..6, session_mode).prop_map(|(gap, mode)| Query::Sessions { gap, mode }),
        2 => time.prop_map(Query::Duplicates),
        1 => Just(Query::Running),
        1 => Just(Query::Global),
        2 => prop_oneof![Just(20i64), Just(30i64)].prop_map(|width| Query::Chain { width }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn each_step_gives_the_rows_of_the_model(
        query in query(), steps in steps(30), parallelism in 1usize..4, parts in 1usize..4,
    ) {
        // Which row of a key is the first depends on the order of the rows.
        let parts = if matches!(query, Query::Duplicates(Time::Beside)) { 1 } else { parts };
        let mut model = Model::new(query);
        let mut run = Run::new(query, parallelism, parts, WHEN_AWAITED);
        for (number, step) in steps.iter().enumerate() {
            let expected = match step {
                Step::Restart => Vec::new(),
                Step::Rows(rows) => model.step(rows),
            };
            prop_assert_eq!(run.step(step), expected, "step {}: {:?}", number, step);
        }
    }

    /// With disorder below the delay no row is late, and continuous mode emits every row of the
    /// model once, also with restarts.
    #[test]
    fn continuous_mode_gives_the_same_through_restarts(
        query in query(), steps in steps(DELAY - 1), parallelism in 1usize..4,
    ) {
        prop_assume!(query.mode() == Mode::Append);
        let rows = steps.iter().filter_map(|step| match step {
            Step::Rows(rows) => Some(rows),
            Step::Restart => None,
        });
        prop_assume!(rows.flatten().all(|(time, ..)| *time > 100));
        let (mut model, mut run) = (Model::new(query), Run::new(query, parallelism, 1, CONTINUOUS));
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        for step in &steps {
            if let Step::Rows(rows) = step {
                expected.extend(model.step(rows));
            }
            got.extend(run.step(step));
        }
        expected.sort();
        got.sort();
        prop_assert_eq!(got, expected);
    }
}
