//! Tests aggregations, windows, LIMIT and joins against a naive model. After every record, the
//! state is saved and restored into a new instance. The output is ready only at every second call.

use crate::connect::memory::MemoryStream;
use crate::session::Session;
use crate::table::expr::compile::Semantics;
use crate::table::physical::lower::PlacedChain;
use crate::table::physical::{TableSignal, lower, state_operators};
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::{Plan, Scan};
use crate::table::row::{Row, decode};
use crate::table::types::DataType;
use crate::table::value::Value;
use millstream_engine::checkpoint::QueryDescription;
use millstream_engine::env::SimEnv;
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::job::{Config, Job};
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use millstream_engine::runtime::tasklet::{SourceTasklet, Tasklet};
use proptest::prelude::*;
use std::path::Path;
use std::sync::{Arc, Mutex};

type Rows = Arc<Mutex<Vec<Vec<Value>>>>;

/// A sink that is ready only at every second call.
struct Stutter {
    rows: Rows,
    types: Vec<DataType>,
    full: bool,
    blocked: bool,
}

impl Stage for Stutter {
    fn is_ready(&mut self) -> bool {
        self.full = !self.full;
        !self.full
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.blocked = !self.blocked;
        Ok(if self.blocked { FlushStatus::Blocked } else { FlushStatus::Flushed })
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for Stutter {
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        let row = decode(row, self.types.iter());
        self.rows.lock().unwrap().push(row);
        Ok(())
    }
}

const DDL: &str = "k BIGINT, x BIGINT, y DOUBLE, d DECIMAL(10,2), s STRING, b BOOLEAN";

/// Runs a query over the records and returns the output rows after each record.
fn outputs(
    sql: &str,
    mode: OutputMode,
    trigger: Trigger,
    parallelism: usize,
    records: &[Vec<Value>],
    seed: u64,
) -> Vec<Vec<Vec<Value>>> {
    let session = Session::new();
    session.set("spark.sql.join.asofJoin.enabled", "true").unwrap();
    let stream: MemoryStream = session.memory_stream("rows", DDL).unwrap();
    stream.close();
    let plan: Plan = Arc::unwrap_or_clone(session.sql(sql).unwrap().plan);
    let types: Vec<_> = plan.schema().fields.into_iter().map(|f| f.data_type).collect();
    let (operators, layouts) = state_operators(&plan, mode).into_iter().unzip();
    let shape = QueryDescription { sources: vec!["memory".into()], operators, sink: None, layouts };
    let env = Arc::new(SimEnv::new(seed));
    let one = |record: &Vec<Value>| {
        stream.add([record.clone()]);
        let config = Config { workers: parallelism, trigger, ..Config::default() };
        let mut job = Job::in_env("harness", config, env.clone()).unwrap();
        job.open_checkpoint(Path::new("/c"), &shape).unwrap();
        let rows = Rows::default();
        let sink = Stutter { rows: rows.clone(), types: types.clone(), full: true, blocked: true };
        let mut source = |job: &mut Job, _: &Scan, _: &[bool], chains: Vec<PlacedChain>| {
            let make = |(worker, chain)| {
                let source = stream.source(0, job.env())?;
                let port = job.source_port(worker);
                Ok(Box::new(SourceTasklet::new(port, source, chain)) as Box<dyn Tasklet>)
            };
            chains.into_iter().map(make).collect()
        };
        lower(
            &plan,
            (mode, Semantics::default()),
            parallelism,
            &mut job,
            (Box::new(sink), None, TableSignal::default()),
            &mut source,
        )
        .unwrap();
        job.simulate(&env, seed).unwrap();
        std::mem::take(&mut *rows.lock().unwrap())
    };
    records.iter().map(one).collect()
}

fn least<'r>(column: usize, most: bool, rows: &'r [&'r Vec<Value>]) -> Value {
    let order = |a: &Value, b: &Value| match (a, b) {
        (Value::Long(a), Value::Long(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        other => panic!("{other:?}"),
    };
    let values = rows.iter().map(|row| &row[column]).filter(|v| **v != Value::Null);
    let found =
        if most { values.max_by(|a, b| order(a, b)) } else { values.min_by(|a, b| order(a, b)) };
    found.cloned().unwrap_or(Value::Null)
}

fn longs(rows: &[&Vec<Value>]) -> Vec<i64> {
    rows.iter().filter_map(|r| if let Value::Long(v) = r[1] { Some(v) } else { None }).collect()
}

/// The aggregates over all rows of a key, computed from scratch.
fn model(rows: &[&Vec<Value>]) -> Vec<Value> {
    let x = longs(rows);
    let y = rows.iter().filter_map(|r| if let Value::Double(v) = r[2] { Some(v) } else { None });
    let d = rows.iter().filter_map(|r| if let Value::Decimal(v) = r[3] { Some(v) } else { None });
    let (y, d): (Vec<f64>, Vec<i128>) = (y.collect(), d.collect());
    let or_null = |empty: bool, value: Value| if empty { Value::Null } else { value };
    vec![
        Value::Long(rows.len() as i64),
        Value::Long(x.len() as i64),
        or_null(x.is_empty(), Value::Long(x.iter().sum())),
        or_null(x.is_empty(), Value::Double(x.iter().sum::<i64>() as f64 / x.len() as f64)),
        or_null(y.is_empty(), Value::Double(y.iter().sum())),
        or_null(d.is_empty(), Value::Decimal(d.iter().sum())),
        least(1, false, rows),
        least(2, true, rows),
        least(3, false, rows),
        least(4, true, rows),
        least(5, true, rows),
    ]
}

/// A sliding window is computed from slices only if each window is emitted once and its functions
/// do not depend on the order of rows.
#[test]
fn which_windows_are_combined_from_slices() {
    let timed =
        "(SELECT timestamp_seconds(x) AS ts, k FROM rows) WATERMARK ts DELAY OF INTERVAL 5 SECONDS";
    let slices = |window: &str, call: &str, mode: OutputMode| {
        let session = Session::new();
        session.memory_stream("rows", DDL).unwrap();
        let sql = format!("SELECT {window}, k, {call} FROM {timed} GROUP BY {window}, k");
        let operators = state_operators(&session.sql(&sql).unwrap().plan, mode);
        operators[0].0.contains("slices")
    };
    let sliding = "window(ts, '7 seconds', '3 seconds')";
    assert!(slices(sliding, "count(*), sum(k)", OutputMode::Append));
    assert!(!slices(sliding, "count(*)", OutputMode::Update));
    assert!(!slices(sliding, "count(*), first(k)", OutputMode::Append));
    assert!(!slices(sliding, "count(DISTINCT k)", OutputMode::Append));
    assert!(!slices(sliding, "max(window.end)", OutputMode::Append));
    assert!(!slices("window(ts, '7 seconds')", "count(*)", OutputMode::Append));
}

/// A run of operators is evaluated as a balanced tree, but its state is described by the tree that
/// the user wrote. So checkpoints that were written before this optimisation still match the query.
#[test]
fn a_run_of_operators_is_described_as_it_is_written() {
    let run = |n: usize, operator: &str, operand: &dyn Fn(usize) -> String| {
        (0..n).map(operand).collect::<Vec<_>>().join(&format!(" {operator} "))
    };
    let tree = |n: usize, operator: &str, operand: &dyn Fn(usize) -> String| {
        (1..n).fold(operand(0), |left, i| format!("({left} {operator} {})", operand(i)))
    };
    for n in [2, 3, 64, 65, 66, 67, 100, 128, 129, 200] {
        let test = |i: usize| format!("(x = {i})");
        // The last operand is a parenthesised operation of the same operator.
        let pair = |i: usize| match i + 1 == n {
            true => "((x > 1) AND (x < 9))".to_string(),
            false => format!("(x <> {i})"),
        };
        let (any, all) = (run(n, "OR", &test), run(n, "AND", &pair));
        let texts = run(n, "||", &|_| "s".to_string());
        let call = format!("count(*) FILTER (WHERE {any})");
        let sql = format!("SELECT {call} FROM rows GROUP BY {any}, {all}, {texts}");
        let session = Session::new();
        session.memory_stream("rows", DDL).unwrap();
        let frame = session.sql(&sql).unwrap();
        let described = &state_operators(&frame.plan, OutputMode::Update)[0].0;
        let wide = |text: String| {
            let number = |digits: &str| format!("cast({digits} AS BIGINT)");
            text.split(' ')
                .map(|word| match word.trim_end_matches(')') {
                    digits if digits.parse::<u32>().is_ok() => {
                        word.replacen(digits, &number(digits), 1)
                    }
                    _ => word.to_string(),
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        let (any, all) = (wide(tree(n, "OR", &test)), wide(tree(n, "AND", &pair)));
        let texts = (1..n).fold("s".to_string(), |left, _| format!("concat({left}, s)"));
        let keys = format!("{any} BOOLEAN, {all} BOOLEAN, {texts} STRING");
        assert_eq!(*described, format!("aggregate by ({keys}): count(*) where {any}"), "{n}");
    }
}

const AGGREGATES: &str =
    "count(*), count(x), sum(x), avg(x), sum(y), sum(d), min(x), max(y), min(d), max(s), max(b)";

/// The less common aggregates, computed from scratch.
fn rarer(rows: &[&Vec<Value>]) -> Vec<Value> {
    let column = |at: usize| rows.iter().map(move |row| &row[at]);
    let there = |at: usize| column(at).filter(|v| **v != Value::Null).cloned().collect::<Vec<_>>();
    let bools: Vec<bool> = there(5).iter().map(|b| *b == Value::Boolean(true)).collect();
    let or_null = |empty: bool, value: Value| if empty { Value::Null } else { value };
    let mut x = longs(rows);
    let mut texts = there(4);
    let joined: Vec<String> = texts.iter().map(|t| format!("{t:?}")).collect();
    let joined = joined.iter().map(|t| t[8..t.len() - 2].to_string()).collect::<Vec<_>>().join("+");
    let best = rows.iter().filter(|row| row[1] != Value::Null).max_by_key(|row| match row[1] {
        // Among equal values, the last one wins.
        Value::Long(x) => x,
        _ => i64::MIN,
    });
    let list = x.iter().map(|v| Value::Long(*v)).collect();
    let bits = x.iter().fold(0, |bits, v| bits ^ v);
    let n = x.len() as f64;
    let mean = x.iter().sum::<i64>() as f64 / n;
    let variance = x.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / n;
    let first_text = texts.first().cloned().unwrap_or(Value::Null);
    texts.sort_by_key(|text| format!("{text:?}"));
    texts.dedup();
    x.sort_unstable();
    let half = (x.len() as f64 * 0.5).ceil() as usize;
    let median = x.get(half.saturating_sub(1)).map_or(Value::Null, |v| Value::Long(*v));
    x.dedup();
    vec![
        Value::Long(bools.iter().filter(|b| **b).count() as i64),
        Value::Long(
            rows.iter().filter(|r| r[1] != Value::Null && r[4] != Value::Null).count() as i64
        ),
        rows[0][1].clone(),
        rows[rows.len() - 1][1].clone(),
        first_text,
        best.map_or(Value::Null, |row| row[4].clone()),
        or_null(bools.is_empty(), Value::Boolean(bools.iter().all(|b| *b))),
        or_null(bools.is_empty(), Value::Boolean(bools.iter().any(|b| *b))),
        or_null(x.is_empty(), Value::Long(bits)),
        Value::Array(list),
        or_null(texts.is_empty(), Value::String(joined)),
        Value::Array(texts),
        Value::Long(i64::from(bools.contains(&true)) + i64::from(bools.contains(&false))),
        median,
        or_null(x.is_empty(), Value::Double((variance * 1e6).round() / 1e6)),
    ]
}

const RARER: &str = "count_if(b), count(x, s), first(x), last(x), first(s, true), max_by(s, x), \
                     bool_and(b), bool_or(b), bit_xor(x), collect_list(x), listagg(s, '+'), \
                     sort_array(collect_set(s)), approx_count_distinct(b), \
                     percentile_approx(x, 0.5), round(var_pop(x), 6)";

/// Functions that count values, and others with a state of their own, computed from scratch.
fn counting(rows: &[&Vec<Value>]) -> Vec<Value> {
    let mut x = longs(rows);
    let or_null = |empty: bool, value: Value| if empty { Value::Null } else { value };
    let pairs = rows.iter().filter(|row| row[1] != Value::Null && row[2] != Value::Null).count();
    let mut best: Vec<(i64, Value)> = Vec::new();
    for row in rows {
        if let Value::Long(x) = row[1] {
            best.push((x, row[4].clone()));
        }
    }
    // Among equal values, the first ones win.
    best.sort_by_key(|(x, _)| -x);
    best.truncate(2);
    let best: Vec<Value> = best.into_iter().map(|(_, s)| s).collect();
    let mut texts: Vec<&str> = Vec::new();
    for row in rows {
        if let Value::String(text) = &row[4] {
            texts.push(text);
        }
    }
    texts.sort_unstable_by(|a, b| b.cmp(a));
    let joined = or_null(texts.is_empty(), Value::String(texts.join("+")));
    let bits = x.iter().fold(0u32, |bits, x| bits | 1 << (x + 9));
    let [a, b, c, _] = bits.to_le_bytes();
    let sum = x.iter().sum::<i64>();
    x.sort_unstable();
    let mut counts: Vec<(i64, i64)> = Vec::new();
    for value in &x {
        match counts.last_mut() {
            Some((last, rows)) if last == value => *rows += 1,
            _ => counts.push((*value, 1)),
        }
    }
    let mode = counts.iter().min_by_key(|(value, rows)| (-rows, *value)).map(|(value, _)| *value);
    let middle = x.len().saturating_sub(1);
    let median = x.get(middle / 2).map(|low| (low + x[middle.div_ceil(2)]) as f64 / 2.0);
    let disc = x.get(x.len().div_ceil(2).saturating_sub(1)).map(|v| Value::Double(*v as f64));
    let bins = counts
        .iter()
        .map(|(value, rows)| Value::Struct(vec![Value::Long(*value), Value::Double(*rows as f64)]));
    let bins = Value::Array(bins.collect());
    vec![
        median.map_or(Value::Null, Value::Double),
        disc.unwrap_or(Value::Null),
        mode.map_or(Value::Null, Value::Long),
        or_null(best.is_empty(), Value::Array(best)),
        or_null(x.is_empty(), Value::Long(sum)),
        Value::Long(pairs as i64),
        joined,
        or_null(counts.is_empty(), bins),
        Value::String(format!("{a:02X}{b:02X}{c:02X}")),
        Value::String(format!("{:016X}", x.len())),
    ]
}

const COUNTING: &str = "median(x), percentile_disc(0.5) WITHIN GROUP (ORDER BY x), mode(x, true), \
                        max_by(s, x, 2), try_sum(x), regr_count(y, x), \
                        listagg(s, '+') WITHIN GROUP (ORDER BY s DESC), histogram_numeric(x, 100), \
                        substring(hex(bitmap_construct_agg(x + 9)), 1, 6), \
                        substring(hex(count_min_sketch(x, 0.5d, 0.5d, 1)), 9, 16)";

fn record() -> impl Strategy<Value = Vec<Value>> {
    fn maybe(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
        prop_oneof![1 => Just(Value::Null), 4 => value].boxed()
    }
    (
        maybe((0i64..4).prop_map(Value::Long)),
        maybe((-9i64..9).prop_map(Value::Long)),
        // Sums of these values are exact in any order.
        maybe((-8i32..8).prop_map(|v| Value::Double(f64::from(v) / 4.0))),
        maybe((-500i128..500).prop_map(Value::Decimal)),
        maybe("[a-c]{0,9}".prop_map(Value::String)),
        maybe(any::<bool>().prop_map(Value::Boolean)),
    )
        .prop_map(|(k, x, y, d, s, b)| vec![k, x, y, d, s, b])
}

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        Just(Trigger::Continuous { interval_ns: 1_000_000 }),
        Just(Trigger::AsSoonAsPossible)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_keyed_aggregate_restored_after_every_record(
        records in proptest::collection::vec(record(), 1..14), trigger in trigger(),
        parallelism in 1usize..4, seed: u64,
    ) {
        let sql = format!("SELECT k, {AGGREGATES} FROM rows GROUP BY k");
        let got = outputs(&sql, OutputMode::Update, trigger, parallelism, &records, seed);
        for (n, record) in records.iter().enumerate() {
            let same: Vec<_> = records[..=n].iter().filter(|other| other[0] == record[0]).collect();
            let mut expected = vec![record[0].clone()];
            expected.extend(model(&same));
            prop_assert_eq!(&got[n], &vec![expected], "after record {}", n);
        }
    }

    /// -0.0 and 0.0 are the same key, for any number of instances.
    #[test]
    fn zeros_of_both_signs_are_one_key(parallelism in 1usize..8, trigger in trigger(), seed: u64) {
        let of = |y: f64| {
            let mut record = vec![Value::Null; 6];
            record[2] = Value::Double(y);
            record
        };
        let records = [of(0.0), of(-0.0), of(0.0)];
        let sql = "SELECT y, count(*) FROM rows GROUP BY y";
        let got = outputs(sql, OutputMode::Update, trigger, parallelism, &records, seed);
        for (n, rows) in got.iter().enumerate() {
            prop_assert_eq!(rows, &vec![vec![Value::Double(0.0), Value::Long(n as i64 + 1)]]);
        }
    }

    #[test]
    fn rarer_aggregates_restored_after_every_record(
        records in proptest::collection::vec(record(), 1..14), trigger in trigger(),
        parallelism in 1usize..4, seed: u64,
    ) {
        let sql = format!("SELECT k, {RARER} FROM rows GROUP BY k");
        let got = outputs(&sql, OutputMode::Update, trigger, parallelism, &records, seed);
        for (n, record) in records.iter().enumerate() {
            let same: Vec<_> = records[..=n].iter().filter(|other| other[0] == record[0]).collect();
            let mut expected = vec![record[0].clone()];
            expected.extend(rarer(&same));
            prop_assert_eq!(&got[n], &vec![expected], "after record {}", n);
        }
    }

    #[test]
    fn a_keyed_aggregate_of_counted_values_restored_after_every_record(
        records in proptest::collection::vec(record(), 1..14), trigger in trigger(),
        parallelism in 1usize..4, seed: u64,
    ) {
        let sql = format!("SELECT k, {COUNTING} FROM rows GROUP BY k");
        let got = outputs(&sql, OutputMode::Update, trigger, parallelism, &records, seed);
        for (n, record) in records.iter().enumerate() {
            let same: Vec<_> = records[..=n].iter().filter(|other| other[0] == record[0]).collect();
            let mut expected = vec![record[0].clone()];
            expected.extend(counting(&same));
            prop_assert_eq!(&got[n], &vec![expected], "after record {}", n);
        }
    }

    #[test]
    fn a_global_aggregate_restored_after_every_record(
        records in proptest::collection::vec(record(), 1..14), trigger in trigger(), seed: u64,
    ) {
        let sql = format!("SELECT {AGGREGATES} FROM rows");
        let got = outputs(&sql, OutputMode::Complete, trigger, 1, &records, seed);
        for n in 0..records.len() {
            let all: Vec<_> = records[..=n].iter().collect();
            // A global aggregate has a row even without input, so an earlier epoch may emit it too.
            prop_assert_eq!(got[n].last(), Some(&model(&all)), "after record {}", n);
        }
    }

    #[test]
    fn a_limit_restored_after_every_record(
        records in proptest::collection::vec(record(), 1..14), trigger in trigger(),
        limit in 0usize..16, seed: u64,
    ) {
        let sql = format!("SELECT * FROM rows LIMIT {limit}");
        let got = outputs(&sql, OutputMode::Append, trigger, 1, &records, seed);
        let got: Vec<_> = got.into_iter().flatten().collect();
        prop_assert_eq!(&got[..], &records[..limit.min(records.len())]);
    }

    /// Below an aggregation in complete mode, a limit is one of the whole stream, as in Spark. Over
    /// the aggregation it is one of each table.
    #[test]
    fn a_limit_below_an_aggregation_restored_after_every_record(
        records in proptest::collection::vec(record(), 1..14), trigger in trigger(),
        limit in 0usize..16, seed: u64,
    ) {
        let counts = |sql: String| {
            let got = outputs(&sql, OutputMode::Complete, trigger, 1, &records, seed);
            got.into_iter().map(|rows| rows.last().cloned()).collect::<Vec<_>>()
        };
        let below = format!("SELECT count(*) FROM (SELECT * FROM rows LIMIT {limit})");
        let over = format!("SELECT count(*) FROM rows LIMIT {}", limit.min(1));
        let (below, over) = (counts(below), counts(over));
        for n in 0..records.len() {
            let all = n + 1;
            // Continuous mode emits no table that has not changed.
            let last = below[..=n].iter().flatten().last();
            prop_assert_eq!(last, Some(&vec![Value::Long(all.min(limit) as i64)]));
            let wanted = (limit > 0).then(|| vec![Value::Long(all as i64)]);
            prop_assert_eq!(&over[n], &wanted);
        }
    }

    /// A stream that is joined with itself: each pair and each unmatched row is emitted exactly
    /// once.
    #[test]
    fn a_join_restored_after_every_record(
        steps in proptest::collection::vec((0i64..4, 0i64..5, 0i64..2), 1..10),
        trigger in trigger(), parallelism in 1usize..4, seed: u64,
    ) {
        let mut now = 1000;
        let mut rows: Vec<(i64, i64)> = Vec::new();
        for (ahead, behind, key) in steps {
            now += ahead;
            rows.push((key, now - behind));
        }
        rows.push((98, now + 10_000));
        rows.push((99, now + 20_000));
        let record = |(key, time): &(i64, i64)| {
            let mut record = vec![Value::Null; 6];
            (record[0], record[1]) = (Value::Long(*key), Value::Long(*time));
            record
        };
        let records: Vec<_> = rows.iter().map(record).collect();
        let timed = "(SELECT timestamp_seconds(x) AS ts, k FROM rows) WATERMARK ts DELAY OF INTERVAL 5 SECONDS";
        let sql = format!(
            "SELECT unix_seconds(a.ts), unix_seconds(b.ts) FROM {timed} a FULL JOIN {timed} b ON a.k = b.k \
             AND b.ts BETWEEN a.ts + INTERVAL 1 SECOND AND a.ts + INTERVAL 3 SECONDS"
        );
        let got = outputs(&sql, OutputMode::Append, trigger, parallelism, &records, seed);
        let mut got: Vec<String> = got.into_iter().flatten().map(|row| format!("{row:?}")).collect();
        got.sort();
        let long = |time: Option<&(i64, i64)>| match time {
            Some((_, time)) => format!("Long({time})"),
            None => "Null".to_string(),
        };
        let pair = |a, b| format!("[{}, {}]", long(a), long(b));
        let matches = |a: &(i64, i64), b: &(i64, i64)| a.0 == b.0 && (1..=3).contains(&(b.1 - a.1));
        let mut expected = Vec::new();
        for row in &rows {
            expected.extend(rows.iter().filter(|b| matches(row, b)).map(|b| pair(Some(row), Some(b))));
            // The last row may still find a match, so it is not emitted yet.
            let over = row.0 != 99;
            if over && !rows.iter().any(|b| matches(row, b)) {
                expected.push(pair(Some(row), None));
            }
            if over && !rows.iter().any(|a| matches(a, row)) {
                expected.push(pair(None, Some(row)));
            }
        }
        expected.sort();
        prop_assert_eq!(got, expected);
    }

    /// Each tumbling window, sliding window and session is emitted exactly once, despite the
    /// restores in between.
    #[test]
    fn event_time_restored_after_every_record(
        steps in proptest::collection::vec((0i64..4, 0i64..5, 0i64..3), 1..14),
        trigger in trigger(), parallelism in 1usize..4, seed: u64,
    ) {
        let mut now = 1000;
        let mut rows: Vec<(i64, i64)> = Vec::new();
        for (ahead, behind, key) in steps {
            now += ahead;
            rows.push((key, now - behind));
        }
        let record = |(key, time): &(i64, i64)| {
            let mut record = vec![Value::Null; 6];
            (record[0], record[1]) = (Value::Long(*key), Value::Long(*time));
            record
        };
        let mut records: Vec<_> = rows.iter().map(record).collect();
        // These times are far in the future, so that all windows expire. One more epoch emits the
        // last windows.
        records.push(record(&(99, now + 10_000)));
        records.push(record(&(99, now + 20_000)));
        let timed = "(SELECT timestamp_seconds(x) AS ts, k FROM rows) WATERMARK ts DELAY OF INTERVAL 5 SECONDS";
        let all = |sql: String| {
            let got = outputs(&sql, OutputMode::Append, trigger, parallelism, &records, seed);
            let mut rows: Vec<String> = got.into_iter().flatten().map(|row| format!("{row:?}")).collect();
            rows.retain(|row| !row.contains("Long(99)"));
            rows.sort();
            rows
        };
        let mut windows: std::collections::BTreeMap<(i64, i64), i64> = Default::default();
        for (key, time) in &rows {
            *windows.entry((time.div_euclid(10) * 10, *key)).or_default() += 1;
        }
        let mut expected: Vec<_> = windows.iter().map(|((s, k), c)| format!("[Long({s}), Long({k}), Long({c})]")).collect();
        expected.sort();
        let sql = format!("SELECT unix_seconds(window.start), k, count(*) FROM {timed} GROUP BY window(ts, '10 seconds'), k");
        prop_assert_eq!(all(sql), expected);

        let mut windows: std::collections::BTreeMap<(i64, i64), i64> = Default::default();
        for (key, time) in &rows {
            for start in (time - 6..=*time).filter(|start| start.rem_euclid(3) == 0) {
                *windows.entry((start, *key)).or_default() += 1;
            }
        }
        let mut expected: Vec<_> = windows.iter().map(|((s, k), c)| format!("[Long({s}), Long({k}), Long({c})]")).collect();
        expected.sort();
        let sql = format!("SELECT unix_seconds(window.start), k, count(*) FROM {timed} GROUP BY window(ts, '7 seconds', '3 seconds'), k");
        prop_assert_eq!(all(sql), expected);

        let mut expected = Vec::new();
        for key in 0..3 {
            let mut times: Vec<_> = rows.iter().filter(|(k, _)| *k == key).map(|(_, t)| *t).collect();
            times.sort_unstable();
            for session in times.chunk_by(|a, b| b - a <= 2) {
                let sum: i64 = session.len() as i64;
                expected.push(format!("[Long({}), Long({}), Long({key}), Long({sum})]", session[0], session[session.len() - 1] + 2));
            }
        }
        expected.sort();
        let sql = format!("SELECT unix_seconds(session_window.start), unix_seconds(session_window.end), k, count(*) FROM {timed} GROUP BY session_window(ts, '2 seconds'), k");
        prop_assert_eq!(all(sql), expected);
    }
}

proptest! {
    // Each case runs seven queries.
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// A stream that is joined with itself by a semi, an anti and an ASOF join: each result is emitted
    /// exactly once.
    #[test]
    fn semi_anti_and_asof_joins_restored_after_every_record(
        steps in proptest::collection::vec((0i64..4, 0i64..5, 0i64..2), 1..10),
        parallelism in 1usize..4, seed: u64,
    ) {
        let mut now = 1000;
        let mut rows: Vec<(i64, i64)> = Vec::new();
        for (ahead, behind, key) in steps {
            now += ahead;
            rows.push((key, now - behind));
        }
        rows.push((98, now + 10_000));
        rows.push((99, now + 20_000));
        let record = |(key, time): &(i64, i64)| {
            let mut record = vec![Value::Null; 6];
            (record[0], record[1]) = (Value::Long(*key), Value::Long(*time));
            record
        };
        let records: Vec<_> = rows.iter().map(record).collect();
        let timed = "(SELECT timestamp_seconds(x) AS ts, k FROM rows) WATERMARK ts DELAY OF INTERVAL 5 SECONDS";
        let continuous = Trigger::Continuous { interval_ns: 1_000_000 };
        let all = |sql: String, trigger| {
            let got = outputs(&sql, OutputMode::Append, trigger, parallelism, &records, seed);
            let mut got: Vec<_> = got.into_iter().flatten().collect();
            got.sort_by_key(|row| format!("{row:?}"));
            got
        };
        let matches = |a: &(i64, i64), b: &(i64, i64)| a.0 == b.0 && (1..=3).contains(&(b.1 - a.1));
        // The last row may still find a match, so its result is not known yet.
        let known = || rows.iter().filter(|row| row.0 != 99);
        for (kind, wanted) in [("SEMI", true), ("ANTI", false)] {
            let sql = format!(
                "SELECT unix_seconds(a.ts) FROM {timed} a LEFT {kind} JOIN {timed} b ON a.k = b.k \
                 AND b.ts BETWEEN a.ts + INTERVAL 1 SECOND AND a.ts + INTERVAL 3 SECONDS"
            );
            let of_kind = known().filter(|a| rows.iter().any(|b| matches(a, b)) == wanted);
            let mut expected: Vec<_> = of_kind.map(|a| vec![Value::Long(a.1)]).collect();
            expected.sort_by_key(|row| format!("{row:?}"));
            prop_assert_eq!(&all(sql.clone(), continuous), &expected, "{}", kind);
            if wanted {
                prop_assert_eq!(&all(sql, Trigger::AsSoonAsPossible), &expected, "{}", kind);
            }
        }
        let sql = format!(
            "SELECT unix_seconds(a.ts), unix_seconds(b.ts) FROM {timed} a LEFT ASOF JOIN {timed} b \
             MATCH_CONDITION (a.ts > b.ts) ON a.k = b.k"
        );
        let closest = |a: &(i64, i64)| {
            let before = rows.iter().filter(|b| b.0 == a.0 && b.1 < a.1);
            before.map(|b| b.1).max().map_or(Value::Null, Value::Long)
        };
        let mut expected: Vec<_> = known().map(|a| vec![Value::Long(a.1), closest(a)]).collect();
        expected.sort_by_key(|row| format!("{row:?}"));
        for trigger in [continuous, Trigger::AsSoonAsPossible] {
            prop_assert_eq!(&all(sql.clone(), trigger), &expected, "ASOF");
        }
        let sql = sql.replace("LEFT ASOF", "ASOF").replace("a.ts > b.ts", "a.ts < b.ts");
        let first = |a: &(i64, i64)| {
            let after = rows.iter().filter(|b| b.0 == a.0 && b.1 > a.1);
            Some(vec![Value::Long(a.1), Value::Long(after.map(|b| b.1).min()?)])
        };
        let mut expected: Vec<_> = rows.iter().filter_map(first).collect();
        expected.sort_by_key(|row| format!("{row:?}"));
        for trigger in [continuous, Trigger::AsSoonAsPossible] {
            prop_assert_eq!(&all(sql.clone(), trigger), &expected, "forward ASOF");
        }
    }
}
