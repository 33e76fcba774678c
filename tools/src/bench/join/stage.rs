//! Measures the join's stage alone, without sources, rings and sinks: the cost per row, per search
//! and per expired row.

use super::by_hand::HashJoin;
use super::query::{Range, joined, write_row};
use crate::bench::figure::{Figure, Goal, Value};
use crate::failure::Failure;
use hdrhistogram::Histogram;
use millstream::table::physical::BareJoin;
use millstream::table::row::Row;
use millstream_engine::error::EngineError;
use millstream_engine::measure::latency::{Percentiles, histogram};
use millstream_engine::runtime::job::{Config, Job};
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// An hour.
const HOUR_US: i64 = 3_600_000_000;
/// The time of the first row.
const BASE_US: i64 = 1_000 * HOUR_US;
/// The goal for the memory that a buffered row takes besides its own bytes.
const ROW_BYTES: f64 = 24.0;
/// The distance between the keys of consecutive rows.
const STRIDE: i64 = 1_000_003;

/// Counts the output rows.
struct Counter(Arc<AtomicU64>);

impl Stage for Counter {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _epoch: u64) -> Result<(), EngineError> {
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

impl<'a> Push<Row<'a>> for Counter {
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        black_box(row);
        // ORDERING: relaxed: read on the same thread.
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }
}

/// The stage, with a counter of its output.
struct Measured {
    stage: BareJoin,
    rows_out: Arc<AtomicU64>,
    row: Vec<u8>,
}

impl Measured {
    fn new(range: Range) -> Result<Self, Failure> {
        let frame = joined(range)?;
        let mut job = Job::new("bench", Config { pin: false, ..Config::default() })?;
        let rows_out = Arc::new(AtomicU64::new(0));
        let down = Box::new(Counter(rows_out.clone()));
        let stage = BareJoin::new(frame.plan(), &mut job, down);
        let stage = stage.ok_or_else(|| Failure::Failed("the query has no join".to_string()))?;
        Ok(Self { stage, rows_out, row: Vec::new() })
    }

    #[inline]
    fn push(&mut self, is_left: bool, row: [i64; 3]) -> Result<(), EngineError> {
        write_row(row, &mut self.row);
        self.stage.push(is_left, &self.row)
    }

    fn rows_out(&self) -> u64 {
        self.rows_out.load(Ordering::Relaxed)
    }
}

fn key_of(i: i64, keys: i64) -> i64 {
    i * STRIDE % keys
}

fn ns_each(took: Duration, count: u64) -> f64 {
    took.as_nanos() as f64 / count.max(1) as f64
}

fn expect(what: &str, found: u64, expected: u64) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(Failure::Failed(format!("{what}: {found} rows were emitted, not {expected}")))
}

/// Measures a row that finds its match among `keys` keys and is then buffered.
pub(super) fn probe_and_insert(keys: i64, figures: &mut Vec<Figure>) -> Result<(), Failure> {
    let range = Range { before_us: HOUR_US, after_us: HOUR_US };
    let left = |i: i64| [key_of(i, keys), BASE_US + i, i];
    // Right rows probe the keys in another order.
    let right = |i: i64| [key_of(i + keys / 2, keys), BASE_US + i, i];
    let (mut join, mut hand) = (Measured::new(range)?, HashJoin::new(HOUR_US, HOUR_US));
    let begun = Instant::now();
    for i in 0..keys {
        join.push(true, left(i))?;
    }
    let new_key = begun.elapsed();
    let (rows, bytes) = join.stage.state();
    let begun = Instant::now();
    for i in 0..keys {
        join.push(false, right(i))?;
    }
    let matched = begun.elapsed();
    expect("probe and insert", join.rows_out(), keys as u64)?;
    let (begun, mut pairs) = (Instant::now(), 0u64);
    for i in 0..keys {
        hand.push(true, left(i), |_, _| pairs += 1);
    }
    let hand_new = begun.elapsed();
    let begun = Instant::now();
    for i in 0..keys {
        hand.push(false, right(i), |_, _| pairs += 1);
    }
    let hand_matched = begun.elapsed();
    expect("probe and insert, hand-written", pairs, keys as u64)?;
    let count = keys as u64;
    figures.push(Figure::compared(
        format!("probe, match and insert, {keys} keys"),
        Value::Ns(ns_each(matched, count)),
        Some(Value::Ns(ns_each(hand_matched, count))),
        Goal::AtMost(Value::Ns(500.0)),
    ));
    figures.push(Figure::compared(
        format!("probe and insert of a new key, {keys} keys"),
        Value::Ns(ns_each(new_key, count)),
        Some(Value::Ns(ns_each(hand_new, count))),
        Goal::AtMost(Value::Ns(500.0)),
    ));
    figures.push(Figure::compared(
        format!("memory of a row of {} bytes, one of its key", join.row.len()),
        Value::Bytes(bytes as f64 / rows as f64),
        None,
        Goal::AtMost(Value::Bytes(join.row.len() as f64 + ROW_BYTES)),
    ));
    Ok(())
}

/// Measures the memory of rows, with a hundred rows per key.
pub(super) fn memory(rows: i64, figures: &mut Vec<Figure>) -> Result<(), Failure> {
    let mut join = Measured::new(Range { before_us: HOUR_US, after_us: HOUR_US })?;
    for i in 0..rows {
        join.push(true, [i % (rows / 100).max(1), BASE_US + i, i])?;
    }
    let (rows, bytes) = join.stage.state();
    figures.push(Figure::compared(
        format!("memory of a row of {} bytes, one of 100 of its key", join.row.len()),
        Value::Bytes(bytes as f64 / rows as f64),
        None,
        Goal::AtMost(Value::Bytes(join.row.len() as f64 + ROW_BYTES)),
    ));
    Ok(())
}

/// Measures a row that finds its single match by time among all rows of one key.
pub(super) fn probe_by_range(rows: i64, figures: &mut Vec<Figure>) -> Result<(), Failure> {
    let (step, near) = (1_000, 400);
    let range = Range { before_us: 0, after_us: near };
    let left = |i: i64| [7, BASE_US + i * step, i];
    let right = |i: i64| [7, BASE_US + (i * STRIDE % rows) * step + near / 2, i];
    let (mut join, mut hand) = (Measured::new(range)?, HashJoin::new(0, near));
    for i in 0..rows {
        join.push(true, left(i))?;
        hand.push(true, left(i), |_, _| {});
    }
    let probes = rows.min(100_000);
    let begun = Instant::now();
    for i in 0..probes {
        join.push(false, right(i))?;
    }
    let ours = begun.elapsed();
    expect("probe by range", join.rows_out(), probes as u64)?;
    // The hand-written join appends a row without sorting it by time, because only the search is
    // measured.
    let (begun, mut pairs) = (Instant::now(), 0u64);
    for i in 0..probes {
        hand.push(false, right(i), |_, _| pairs += 1);
    }
    let by_hand = begun.elapsed();
    expect("probe by range, hand-written", pairs, probes as u64)?;
    figures.push(Figure::compared(
        format!("probe by range of a key with {rows} rows, one match, and insert"),
        Value::Ns(ns_each(ours, probes as u64)),
        Some(Value::Ns(ns_each(by_hand, probes as u64))),
        Goal::AtMost(Value::Ns(1e3)),
    ));
    Ok(())
}

/// Measures two kinds of watermarks: those by which no row expires, and one by which all rows
/// expire.
pub(super) fn expiry(rows: i64, figures: &mut Vec<Figure>) -> Result<(), Failure> {
    let range = Range { before_us: HOUR_US, after_us: HOUR_US };
    let row = |i: i64| [key_of(i, rows), BASE_US + i, i];
    let (mut join, mut hand) = (Measured::new(range)?, HashJoin::new(HOUR_US, HOUR_US));
    for i in 0..rows {
        join.push(true, row(i))?;
        hand.push(true, row(i), |_, _| {});
    }
    let moves = 1_000_000.min(rows);
    let begun = Instant::now();
    for i in 0..moves {
        join.stage.watermark(BASE_US - moves + i)?;
    }
    let nothing_due = begun.elapsed();
    let all_us = BASE_US + rows + 2 * HOUR_US;
    let begun = Instant::now();
    join.stage.watermark(all_us)?;
    while join.stage.flush()? {}
    let freed = begun.elapsed();
    if join.stage.state().0 != 0 {
        return Err(Failure::Failed("rows that expired are still buffered".to_string()));
    }
    let begun = Instant::now();
    hand.expire(all_us);
    let hand_freed = begun.elapsed();
    figures.push(Figure::compared(
        format!("a watermark that expires none of {rows} rows"),
        Value::Ns(ns_each(nothing_due, moves as u64)),
        None,
        None,
    ));
    figures.push(Figure::compared(
        "expiry of a row".to_string(),
        Value::Ns(ns_each(freed, rows as u64)),
        Some(Value::Ns(ns_each(hand_freed, rows as u64))),
        Goal::AtMost(Value::Ns(60.0)),
    ));
    beside_expiry(rows, hand_freed, figures)
}

/// Measures how long a row waits that arrives while all buffered rows expire.
fn beside_expiry(
    rows: i64,
    hand_freed: Duration,
    figures: &mut Vec<Figure>,
) -> Result<(), Failure> {
    let mut join = Measured::new(Range { before_us: HOUR_US, after_us: HOUR_US })?;
    for i in 0..rows {
        join.push(true, [key_of(i, rows), BASE_US + i, i])?;
    }
    let after_us = BASE_US + rows + 2 * HOUR_US;
    let begun = Instant::now();
    join.stage.watermark(after_us)?;
    let (mut waits, mut last, mut i): (Histogram<u64>, _, _) = (histogram(), begun, 0);
    while join.stage.flush()? {
        join.push(false, [rows + i, after_us + 1 + i, i])?;
        i += 1;
        let now = Instant::now();
        waits.saturating_record((now - last).as_nanos().max(1) as u64);
        last = now;
    }
    let waits = Percentiles::of(&waits);
    let hand = Some(Value::Ns(hand_freed.as_nanos() as f64));
    let name = |part: &str| format!("wait of another row while {rows} rows expire, {part}");
    let goal = Goal::AtMost(Value::Ns(200e3));
    figures.push(Figure::compared(name("p50"), Value::Ns(waits.p50_ns as f64), None, None));
    figures.push(Figure::compared(name("p99.9"), Value::Ns(waits.p999_ns as f64), None, goal));
    figures.push(Figure::compared(name("max"), Value::Ns(waits.max_ns as f64), hand, goal));
    Ok(())
}
