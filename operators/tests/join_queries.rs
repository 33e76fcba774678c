//! Random queries with joins of streams: chains, joins after and before aggregations and
//! deduplications, tables in between, streams joined with themselves. Over streams, in either mode,
//! a query must give the rows that it gives over tables with the same rows.
//!
//! `MILLSTREAM_JOIN_QUERIES` is the number of queries, `MILLSTREAM_JOIN_SEED` the first seed. The
//! seed of a query that fails is printed.
#![cfg(feature = "sql")]

mod two_streams;

use millstream::connect::memory::MemoryStream;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use two_streams::{BATCHES, CONTINUOUS, Event, SECOND, text};

/// The streams. Each has columns `k`, `t` and `v`.
const NAMES: [&str; 3] = ["l", "r", "s"];
const KINDS: [&str; 6] =
    ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"];
/// Rows with a larger number in any column are made by rows that only advance the watermarks.
const ADVANCING: i64 = 900_000;
/// The delay of the watermarks, in seconds. Rows are less than this behind, so none is late.
const DELAY: i64 = 25;
/// Seconds between the rows of one step and those of the next.
const STEP: i64 = 20;

/// A generator of pseudo-random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number from 0 to `end`, without `end`.
    fn below(&mut self, end: i64) -> i64 {
        (self.next() % end as u64) as i64
    }
    fn chance(&mut self, percent: i64) -> bool {
        self.below(100) < percent
    }
    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as i64) as usize]
    }
}

/// A relation of a query.
struct Relation {
    sql: String,
    /// The time is a window, in the column `w`; otherwise a timestamp, in the column `t`.
    is_windowed: bool,
}

/// A join of two relations `a` and `b`.
struct Joined {
    /// The text after FROM, without WHERE.
    from: String,
    kind: &'static str,
    /// A condition for WHERE.
    filter: Option<String>,
    by_using: bool,
}

impl Joined {
    /// The text after FROM, with a further condition.
    fn source(&self, condition: Option<&str>) -> String {
        let conditions: Vec<_> = self.filter.iter().map(String::as_str).chain(condition).collect();
        match conditions.is_empty() {
            true => self.from.clone(),
            false => format!("{} WHERE {}", self.from, conditions.join(" AND ")),
        }
    }
}

/// A random query.
struct Query {
    sql: String,
    /// Whether micro-batch mode refuses the query.
    has_anti: bool,
}

struct Generator {
    random: Random,
    has_anti: bool,
}

impl Generator {
    fn query(seed: u64) -> Query {
        let mut generator = Self { random: Random(seed), has_anti: false };
        let sql = generator.statement();
        Query { sql, has_anti: generator.has_anti }
    }

    /// A stream, or one that is deduplicated, aggregated or joined with a table.
    fn base(&mut self) -> Relation {
        let name = self.random.one_of(&NAMES);
        let (sql, is_windowed) = match self.random.below(10) {
            0 => (format!("(SELECT DISTINCT k, t, v FROM {name})"), false),
            1 => {
                let sql = "SELECT k, window(t, '10 seconds') AS w, count(*) AS v FROM";
                (format!("({sql} {name} GROUP BY k, window(t, '10 seconds'))"), true)
            }
            2 => {
                let kind = self.random.one_of(&["JOIN", "LEFT JOIN"]);
                let on =
                    self.random.one_of(&["x.k = d.k", "x.k <=> d.k", "x.k = d.k AND x.v > d.w"]);
                let columns = "x.k, x.t, x.v + coalesce(d.w, 0L) AS v";
                (format!("(SELECT {columns} FROM {name} x {kind} d ON {on})"), false)
            }
            3 => {
                let kind = self.random.one_of(&["LEFT SEMI JOIN", "LEFT ANTI JOIN"]);
                (format!("(SELECT x.k, x.t, x.v FROM {name} x {kind} d ON x.k = d.k)"), false)
            }
            4 => (format!("(SELECT k, t, v FROM {name} WHERE v <> 3)"), false),
            _ => (name.to_string(), false),
        };
        Relation { sql, is_windowed }
    }

    /// The condition on the times of `a` and `b`, and whether both sides expire by it. `None` of it
    /// is only for inner joins.
    fn times(&mut self, [a, b]: [&Relation; 2], kind: &str) -> (Option<String>, bool) {
        if a.is_windowed && b.is_windowed {
            return (Some("a.w = b.w".to_string()), true);
        }
        let lower = self.random.below(24) - 12;
        let upper = lower + self.random.below(15);
        let after = self.random.one_of(&[">=", ">"]);
        let before = self.random.one_of(&["<=", "<"]);
        let from = format!("b.t {after} a.t + INTERVAL '{lower}' SECOND");
        let to = format!("b.t {before} a.t + INTERVAL '{upper}' SECOND");
        let one_sided = !matches!(kind, "FULL JOIN");
        match self.random.below(10) {
            0 => (Some("a.t = b.t".to_string()), true),
            2 => {
                let between = format!(
                    "b.t BETWEEN a.t + INTERVAL '{lower}' SECOND AND a.t + INTERVAL '{upper}' SECOND"
                );
                (Some(between), true)
            }
            3 if one_sided && kind == "RIGHT JOIN" => (Some(from), false),
            3 if one_sided => (Some(to), false),
            4 if kind == "JOIN" => (None, false),
            5 => {
                let difference = format!(
                    "unix_seconds(b.t) - unix_seconds(a.t) BETWEEN {lower} AND {upper} AND {from} AND {to}"
                );
                (Some(difference), true)
            }
            _ => (Some(format!("{from} AND {to}")), true),
        }
    }

    /// A join of `a` and `b`. A `nested` one is followed by other operators, so its rows must not be
    /// late for them.
    fn join(&mut self, a: &Relation, b: &Relation, nested: bool) -> Joined {
        let kind = loop {
            let kind = self.random.one_of(&KINDS);
            if !nested || kind != "FULL JOIN" {
                break kind;
            }
        };
        self.has_anti |= kind == "LEFT ANTI JOIN";
        if self.random.chance(15)
            && let Some(joined) = self.join_using(a, b, kind)
        {
            return joined;
        }
        let time = loop {
            let (time, is_bounded) = self.times([a, b], kind);
            if !nested || is_bounded {
                break time;
            }
        };
        let key = match self.random.below(8) {
            0 => "a.k <=> b.k",
            1 => "a.k + 1 = b.k + 1",
            2 => "a.k % 2 = b.k % 2 AND a.k = b.k",
            3 => "a.v = b.v",
            _ => "a.k = b.k",
        };
        let rest = match self.random.below(8) {
            0 => Some("a.v < b.v"),
            1 => Some("a.v > 2"),
            2 => Some("b.v > 2"),
            3 => Some("a.v + b.v <> 7"),
            _ => None,
        };
        let parts = [Some(key.to_string()), time, rest.map(String::from)];
        let on = parts.into_iter().flatten().collect::<Vec<_>>().join(" AND ");
        let from = format!("{} a {kind} {} b ON {on}", a.sql, b.sql);
        Joined { from, kind, filter: None, by_using: false }
    }

    /// A join by USING: of any kind with the time among the columns, or an inner join with a range
    /// in WHERE.
    fn join_using(&mut self, a: &Relation, b: &Relation, kind: &'static str) -> Option<Joined> {
        let (columns, filter) = match (a.is_windowed, b.is_windowed) {
            (true, true) => ("k, w", None),
            (false, false) if kind == "JOIN" && self.random.chance(50) => {
                let (from, to) = (self.random.below(9) - 9, self.random.below(9));
                let range = format!(
                    "b.t BETWEEN a.t + INTERVAL '{from}' SECOND AND a.t + INTERVAL '{to}' SECOND"
                );
                ("k", Some(range))
            }
            (false, false) => ("k, t", None),
            _ => return None,
        };
        let from = format!("{} a {kind} {} b USING ({columns})", a.sql, b.sql);
        Some(Joined { from, kind, filter, by_using: true })
    }

    /// Two inputs of a join. If one has a window as its time, both have.
    fn inputs(&mut self, of: fn(&mut Self) -> Relation) -> [Relation; 2] {
        let relations = [of(self), of(self)];
        let any = relations.iter().any(|relation| relation.is_windowed) || self.random.chance(10);
        relations.map(|relation| match relation.is_windowed {
            false if any => {
                let sql = &relation.sql;
                let sql = format!("(SELECT k, window(t, '10 seconds') AS w, v FROM {sql})");
                Relation { sql, is_windowed: true }
            }
            _ => relation,
        })
    }

    /// An input of a join: mostly a stream, also a join itself.
    fn input(&mut self) -> Relation {
        if !self.random.chance(25) {
            return self.base();
        }
        let [a, b] = self.inputs(Self::base);
        let joined = self.join(&a, &b, true);
        // The preserved side's columns, which the join does not make NULL.
        let (side, of_side) = match joined.kind {
            "RIGHT JOIN" => ("b", &b),
            _ => ("a", &a),
        };
        let is_windowed = of_side.is_windowed;
        let time = if is_windowed { "w" } else { "t" };
        let from = joined.source(None);
        let sql = format!("(SELECT {side}.k, {side}.{time}, {side}.v FROM {from})");
        Relation { sql, is_windowed }
    }

    fn statement(&mut self) -> String {
        let [a, b] = self.inputs(Self::input);
        let after = self.random.below(10);
        let joined = self.join(&a, &b, after < 3);
        let (kind, from) = (joined.kind, joined.source(None));
        let shown = |side: &str, relation: &Relation| {
            let time = match relation.is_windowed {
                true => format!("unix_seconds({side}.w.start)"),
                false => format!("unix_seconds({side}.t)"),
            };
            format!("{side}.k, {time}, {side}.v")
        };
        let existence = matches!(kind, "LEFT SEMI JOIN" | "LEFT ANTI JOIN");
        let all = match existence {
            true => shown("a", &a),
            false => format!("{}, {}", shown("a", &a), shown("b", &b)),
        };
        let all = if joined.by_using { format!("k, {all}") } else { all };
        let (side, of_side) = if kind == "RIGHT JOIN" { ("b", &b) } else { ("a", &a) };
        if after < 3 && of_side.is_windowed {
            return format!(
                "SELECT {side}.k, unix_seconds({side}.w.start), count(*), sum({side}.v) FROM {from} \
                 GROUP BY {side}.k, {side}.w"
            );
        }
        match after {
            0 | 1 => format!(
                "SELECT {side}.k, unix_seconds(window.start), count(*), max({side}.v) FROM {from} \
                 GROUP BY {side}.k, window({side}.t, '10 seconds')"
            ),
            2 => format!(
                "SELECT k, unix_seconds(t) FROM (SELECT DISTINCT {side}.k, {side}.t FROM {from})"
            ),
            3 => {
                let condition = match existence {
                    true => "a.v <> 4",
                    false => "(a.v IS NULL OR b.v IS NULL OR a.v <> b.v)",
                };
                format!("SELECT {all} FROM {}", joined.source(Some(condition)))
            }
            _ => format!("SELECT {all} FROM {from}"),
        }
    }
}

/// The numbers of the rows of a stream that advance the watermarks. The first one is a key of the
/// table, so that one of them passes every join with the table: Spark applies a semi or anti join
/// with a table before it observes event times.
fn advancing(stream: i64, round: i64) -> [i64; 2] {
    let number = ADVANCING + stream * 10 + round;
    [number, number + 100]
}

/// The table, with columns `k` and `w`. Key 1 has two rows, key 3 none.
fn table() -> String {
    let passing = (0..3).flat_map(|stream| (1..=2).map(move |round| advancing(stream, round)[0]));
    let passing: String = passing.map(|key| format!(", ({key}L, 0L)")).collect();
    format!(
        "SELECT * FROM VALUES (0L, 5L), (1L, 6L), (1L, 7L), (2L, -1L), (CAST(NULL AS BIGINT), 8L){passing} \
         AS d(k, w)"
    )
}

/// The rows of each step, by stream.
fn steps(random: &mut Random) -> Vec<[Vec<Event>; 3]> {
    let count = 1 + random.below(4);
    let step = |number: i64, random: &mut Random| {
        [0, 1, 2].map(|_| {
            let rows = random.below(6);
            let row = |_| {
                let key = if random.chance(10) { None } else { Some(random.below(4)) };
                (key, Some(100 + number * STEP + random.below(STEP)), random.below(9))
            };
            (0..rows).map(row).collect()
        })
    };
    (0..count).map(|number| step(number, random)).collect()
}

/// The rows of a query over tables.
fn over_tables(sql: &str, steps: &[[Vec<Event>; 3]]) -> Vec<String> {
    let session = Session::new();
    for (stream, name) in NAMES.iter().enumerate() {
        let long = |value: Option<i64>| match value {
            Some(value) => format!("{value}L"),
            None => "CAST(NULL AS BIGINT)".to_string(),
        };
        let rows = steps.iter().flat_map(|step| &step[stream]);
        let rows: Vec<_> =
            rows.map(|(k, t, v)| format!("({}, {}, {v}L)", long(*k), long(*t))).collect();
        let (rows, only) = match rows.is_empty() {
            true => ("(0L, 0L, 0L)".to_string(), "WHERE false"),
            false => (rows.join(", "), ""),
        };
        let view = format!(
            "SELECT k, timestamp_seconds(t) AS t, v \
             FROM VALUES {rows} AS x(k, t, v) {only}"
        );
        session.sql(&view).unwrap().create_temp_view(name);
    }
    session.sql(&table()).unwrap().create_temp_view("d");
    let frame = session.sql(sql).unwrap_or_else(|error| panic!("over tables: {error}\n{sql}"));
    let rows = frame.collect().unwrap_or_else(|error| panic!("over tables: {error}\n{sql}"));
    let mut rows: Vec<_> = rows.iter().map(|row| text(row)).collect();
    rows.sort();
    rows
}

/// A query over streams, which is restarted at times.
struct Run<'q> {
    sql: &'q str,
    session: Session,
    streams: [MemoryStream; 3],
    query: Option<StreamingQuery>,
    folder: PathBuf,
    got: Vec<String>,
}

impl<'q> Run<'q> {
    fn new(sql: &'q str, parts: usize, folder: PathBuf) -> Self {
        drop(std::fs::remove_dir_all(&folder));
        let session = Session::new();
        let streams = NAMES.map(|name| {
            let source = format!("{name}0");
            let schema = "k BIGINT, t TIMESTAMP, v BIGINT";
            let stream = session.memory_stream_in_parts(&source, schema, parts).unwrap();
            let frame = session.view(&source).unwrap();
            let delay = format!("{DELAY} seconds");
            frame.with_watermark("t", &delay).unwrap().create_temp_view(name);
            stream
        });
        session.sql(&table()).unwrap().create_temp_view("d");
        Self { sql, session, streams, query: None, folder, got: Vec::new() }
    }

    /// Starts the query; before that, stops it if it runs. Returns the condition of a refusal.
    fn start(&mut self, trigger: Trigger, parallelism: usize) -> Result<(), String> {
        if let Some(query) = self.query.take() {
            query.stop().unwrap();
            self.take();
        }
        self.session.set("millstream.parallelism", &parallelism.to_string()).unwrap();
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let frame = self.session.sql(self.sql).map_err(|error| error.condition)?;
        let writer = frame.write_stream().query_name("out").format("memory");
        let writer = writer.trigger(trigger).config(config);
        let writer = writer.option("checkpointLocation", self.folder.display());
        self.query = Some(writer.start().map_err(|error| error.condition().to_string())?);
        self.settle();
        Ok(())
    }

    fn take(&mut self) {
        let rows = self.session.table("out").unwrap().take();
        let is_advancing = |row: &[Value]| {
            row.iter().any(|value| matches!(value, Value::Long(v) if *v >= ADVANCING))
        };
        self.got.extend(rows.iter().filter(|row| !is_advancing(row)).map(|row| text(row)));
    }

    /// Processes what was added.
    fn settle(&mut self) {
        self.query.as_ref().unwrap().process_all_available().unwrap();
        self.take();
    }

    fn add(&mut self, rows: &[Vec<Event>; 3]) {
        let long = |v: Option<i64>| v.map_or(Value::Null, Value::Long);
        for (stream, rows) in self.streams.iter().zip(rows) {
            let row =
                |(k, t, v): &Event| vec![long(*k), long(t.map(|t| t * SECOND)), Value::Long(*v)];
            stream.add(rows.iter().map(row));
        }
        self.settle();
    }

    /// Lets the watermarks pass all rows, and waits for at least so many results.
    fn finish(&mut self, wanted: usize) -> Vec<String> {
        for round in 1..=2 {
            let row = |stream: i64| {
                let time = Some(ADVANCING * round + stream);
                advancing(stream, round).map(|number| (Some(number), time, number)).to_vec()
            };
            self.add(&[row(0), row(1), row(2)]);
        }
        let begun = Instant::now();
        while self.got.len() < wanted && begun.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
            self.take();
        }
        self.settle();
        self.query.take().unwrap().stop().unwrap();
        self.take();
        self.got.sort();
        std::mem::take(&mut self.got)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        drop(self.query.take());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Runs a query over streams, with restarts at another parallelism and in another mode. Returns the
/// condition of a refusal.
fn over_streams(
    query: &Query,
    steps: &[[Vec<Event>; 3]],
    (trigger, parts, random): (Trigger, usize, &mut Random),
    wanted: usize,
) -> Result<Vec<String>, String> {
    let folder = format!("millstream-join-queries-{}", std::process::id());
    let mut run = Run::new(&query.sql, parts, std::env::temp_dir().join(folder));
    run.start(trigger, 1 + random.below(3) as usize)?;
    for step in steps {
        run.add(step);
        if random.chance(30) {
            let other = !query.has_anti && random.chance(40);
            let trigger = if other { random.one_of(&[BATCHES, CONTINUOUS]) } else { trigger };
            run.start(trigger, 1 + random.below(3) as usize)?;
        }
    }
    Ok(run.finish(wanted))
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn a_query_over_streams_gives_the_rows_of_tables() {
    let first = setting("MILLSTREAM_JOIN_SEED", 1);
    let count = setting("MILLSTREAM_JOIN_QUERIES", 60);
    let (mut refused, mut failed) = (BTreeMap::<String, u64>::new(), Vec::new());
    let mut runs = 0;
    for seed in first..first + count {
        let query = Generator::query(seed);
        let mut random = Random(seed ^ u64::MAX);
        let steps = steps(&mut random);
        let expected = over_tables(&query.sql, &steps);
        for trigger in [BATCHES, CONTINUOUS] {
            if query.has_anti && trigger == BATCHES {
                continue;
            }
            let parts = 1 + random.below(2) as usize;
            match over_streams(&query, &steps, (trigger, parts, &mut random), expected.len()) {
                Err(condition) => *refused.entry(condition).or_default() += 1,
                Ok(got) if got == expected => runs += 1,
                Ok(got) => failed.push(format!(
                    "seed {seed}, {trigger:?}, {parts} parts\n{}\nrows {steps:?}\n\
                     got      {got:?}\nexpected {expected:?}",
                    query.sql
                )),
            }
        }
        assert!(failed.len() < 9, "{}", failed.join("\n\n"));
    }
    println!("{runs} runs gave the rows of tables; refused: {refused:?}");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(runs > count, "{runs} runs, refused: {refused:?}");
}
