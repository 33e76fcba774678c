//! Whole queries in this process: from the intended time of the row that completes a match to its
//! arrival at the sink, and how many rows a second one core takes.

use super::by_hand::HashJoin;
use super::query::{Range, joined, write_row};
use super::{Figure, Unit};
use crate::Failure;
use crate::bench::open_loop::{intended, note, on_last_core};
use hdrhistogram::Histogram;
use millstream::WaitProfile;
use millstream::table::expr::compile::Semantics;
use millstream::table::physical::{BoxChain, PlacedChain, lower, state_operators};
use millstream::table::plan::Scan;
use millstream::table::plan::analyzer::OutputMode;
use millstream::table::row::{Row, Slot};
use millstream_engine::checkpoint::QueryDescription;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::cores;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::{Percentiles, histogram};
use millstream_engine::runtime::job::{Config, Job};
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use millstream_engine::runtime::tasklet::{Polled, Source, SourceTasklet, StepCx, Tasklet};
use millstream_engine::sync::ring::{Consumer, Producer, ring};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The time of the first row, in microseconds.
const BASE_US: i64 = 3_600_000_000;
/// Rows on the way from the generator to a source.
const RING: usize = 4096;
/// Keys are spread by this odd number.
const SCRAMBLE: i64 = 0x9E37_79B9_7F4A_7C15_u64 as i64;

type LongRow = [i64; 3];

/// Where a source of the measurement gets its rows.
trait Rows: Send {
    /// The next row, if there is one now.
    fn next(&mut self) -> Option<LongRow>;
    /// Whether there will be none any more.
    fn is_over(&mut self) -> bool;
}

/// Rows of a generator on another thread.
struct FromRing {
    rows: Consumer<LongRow>,
    over: Arc<AtomicBool>,
}

impl Rows for FromRing {
    #[inline]
    fn next(&mut self) -> Option<LongRow> {
        let row = self.rows.pop();
        self.rows.release();
        row
    }
    fn is_over(&mut self) -> bool {
        // ORDERING: acquire: what was pushed before is seen.
        self.over.load(Ordering::Acquire) && self.rows.is_empty()
    }
}

/// Rows made where they are read.
struct Counted {
    next: i64,
    rows: i64,
}

fn counted(i: i64) -> LongRow {
    [i.wrapping_mul(SCRAMBLE), BASE_US + i, i]
}

impl Rows for Counted {
    #[inline]
    fn next(&mut self) -> Option<LongRow> {
        (self.next < self.rows).then(|| {
            self.next += 1;
            counted(self.next - 1)
        })
    }
    fn is_over(&mut self) -> bool {
        self.next == self.rows
    }
}

/// The source of a side.
struct Side<R> {
    rows: R,
    emitted: u64,
    row: Vec<u8>,
}

impl<R: Rows> Source<BoxChain> for Side<R> {
    fn name(&self) -> &str {
        "bench"
    }
    fn poll(&mut self, down: &mut BoxChain, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let before = self.emitted;
        while self.emitted - before < cx.budget as u64 && down.is_ready() {
            let Some(row) = self.rows.next() else { break };
            write_row(row, &mut self.row);
            self.emitted += 1;
            down.push(Row(&self.row), 0)?;
        }
        Ok(match self.emitted > before {
            true => Polled::Emitted,
            false if self.rows.is_over() => Polled::Exhausted,
            false => Polled::Idle,
        })
    }
    fn position(&self) -> Offset {
        Offset(self.emitted.to_string())
    }
    fn records_emitted(&self) -> u64 {
        self.emitted
    }
    fn resume(&mut self, _at: &Offset) -> Result<(), EngineError> {
        Ok(())
    }
    fn plan(&mut self, _extent: ReadLimit, _cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        let end = self.position();
        Ok(EndOffset { end, has_new: false, exhausted: true, limited: false })
    }
    fn set_end_offset(&mut self, _end: &Offset) -> Result<(), EngineError> {
        Ok(())
    }
}

/// What a sink is told of each match: the numbers of the left and of the right row.
trait Pairs: Send {
    fn pair(&mut self, left: i64, right: i64);
}

struct Sink<P>(P);

impl<P: Pairs> Stage for Sink<P> {
    fn is_ready(&mut self) -> bool {
        true
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
        Ok(FlushStatus::Flushed)
    }
}

impl<'a, P: Pairs> Push<Row<'a>> for Sink<P> {
    #[inline]
    fn push(&mut self, row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        self.0.pair(row.long(Slot::new(0, 2)), row.long(Slot::new(1, 2)));
        Ok(())
    }
}

/// Runs the join over rows of both sides to their end, on one pinned worker that spins.
fn run_query<R: Rows + 'static>(
    (range, checkpoint): (Range, Option<&Path>),
    sides: [R; 2],
    pairs: impl Pairs + 'static,
    meanwhile: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let frame = joined(range)?;
    let config = Config {
        wait: WaitProfile::Spin,
        trigger: Trigger::Continuous { interval_ns: 1_000_000_000 },
        cores: cores::allowed().first().map(|core| vec![core.id]),
        ..Config::default()
    };
    let mut job = Job::new("bench join", config)?;
    if let Some(folder) = checkpoint {
        let sources = vec!["l".to_string(), "r".to_string()];
        let stateful = state_operators(frame.plan(), OutputMode::Append);
        let (operators, layouts) = stateful.into_iter().unzip();
        job.open_checkpoint(folder, &QueryDescription { sources, operators, sink: None, layouts })?;
    }
    let mut sides = sides.map(Some);
    let mut make = |job: &mut Job, scan: &Scan, _: &[bool], chains: Vec<PlacedChain>| {
        let side = usize::from(scan.name.starts_with('r'));
        let one = |(worker, chain)| {
            let rows = sides[side].take().ok_or_else(|| {
                EngineError::operator("INTERNAL_ERROR", "a side is read twice", "")
            })?;
            let source = Side { rows, emitted: 0, row: Vec::new() };
            let tasklet = SourceTasklet::new(job.source_port(worker), source, chain);
            Ok(Box::new(tasklet) as Box<dyn Tasklet>)
        };
        chains.into_iter().map(one).collect()
    };
    let meaning = (OutputMode::Append, Semantics::default());
    lower(frame.plan(), meaning, 1, &mut job, (Box::new(Sink(pairs)), None), &mut make)?;
    let running = job.start()?;
    let outcome = meanwhile();
    if outcome.is_err() {
        running.request_stop();
    }
    running.wait(None).unwrap_or(Ok(()))?;
    outcome
}

/// Latencies, and how many matches there were.
type Found = (Histogram<u64>, u64);

/// Latencies, and how many matches there were, handed over when their owner goes.
struct Latencies {
    load: Load,
    base: Instant,
    histogram: Histogram<u64>,
    pairs: u64,
    out: Arc<Mutex<Option<Found>>>,
}

impl Pairs for Latencies {
    #[inline]
    fn pair(&mut self, _left: i64, right: i64) {
        self.pairs += 1;
        if let Some(due) = self.load.due(right) {
            note(&mut self.histogram, due, self.base.elapsed());
        }
    }
}

impl Drop for Latencies {
    fn drop(&mut self) {
        let found = (self.histogram.clone(), self.pairs);
        *self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(found);
    }
}

/// Rows of both sides: first as many as are buffered, as fast as they are taken, then at a rate. A
/// right row matches the left one that came half of these rows earlier.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Of a side.
    pub buffered: i64,
    /// Of a side, a second.
    pub rate: i64,
    pub seconds: i64,
}

/// Seconds at the rate that are not measured.
const WARM_UP_S: i64 = 1;

impl Load {
    fn rows(&self) -> i64 {
        self.buffered + self.rate * (WARM_UP_S + self.seconds)
    }

    fn lag(&self) -> i64 {
        self.buffered / 2
    }

    /// Each row's time is its place at the rate.
    fn row(&self, is_left: bool, i: i64) -> LongRow {
        let key = if is_left { i } else { i - self.lag() };
        [key.wrapping_mul(SCRAMBLE), BASE_US + i * 1_000_000 / self.rate, i]
    }

    /// Half of the buffered rows are matched, half have been.
    fn range(&self) -> Range {
        let us = self.buffered * 1_000_000 / self.rate;
        Range { before_us: us, after_us: us }
    }

    fn matches(&self) -> u64 {
        (self.rows() - self.lag()).max(0) as u64
    }

    /// When a row that is sent at the rate is meant to be sent: right rows halfway between left ones.
    fn sent(&self, is_left: bool, i: i64) -> Duration {
        let half = u64::from(!is_left);
        intended((i - self.buffered) as u64 * 2 + half, self.rate as u64 * 2)
    }

    /// When a right row is meant to be sent, if it is measured.
    fn due(&self, right: i64) -> Option<Duration> {
        let is_measured = right >= self.buffered + self.rate * WARM_UP_S;
        is_measured.then(|| self.sent(false, right) + self.start())
    }

    /// From the moment at which the buffered rows are on their way to the first row at the rate.
    fn start(&self) -> Duration {
        Duration::from_secs(self.buffered as u64 / 100_000 + 1)
    }
}

/// Sends the rows. Returns how late it was itself.
fn generate(
    load: &Load,
    base: Instant,
    mut sides: [Producer<LongRow>; 2],
    over: &AtomicBool,
) -> Result<Histogram<u64>, Failure> {
    let lag = on_last_core(|| {
        let mut lag = histogram();
        let mut push = |side: usize, row: LongRow| {
            let mut row = row;
            while let Err(back) = sides[side].push(row) {
                if sides[side].is_abandoned() {
                    return Err("the query has ended".to_string());
                }
                row = back;
                std::hint::spin_loop();
            }
            sides[side].publish();
            Ok(())
        };
        for i in 0..load.rows() {
            for (side, is_left) in [true, false].into_iter().enumerate() {
                if i >= load.buffered {
                    let due = load.sent(is_left, i) + load.start();
                    while base.elapsed() < due {
                        std::hint::spin_loop();
                    }
                    if i >= load.buffered + load.rate * WARM_UP_S {
                        note(&mut lag, due, base.elapsed());
                    }
                }
                push(side, load.row(is_left, i))?;
            }
        }
        Ok(lag)
    });
    // ORDERING: release: whoever sees it sees all rows.
    over.store(true, Ordering::Release);
    lag
}

/// A run of the generator against a query or the join by hand.
struct Run {
    latency: Percentiles,
    lag: Percentiles,
}

impl Run {
    fn of(load: &Load, lag: &Histogram<u64>, found: Option<Found>) -> Result<Self, Failure> {
        let Some((latency, pairs)) = found else {
            return Err(Failure::Failed("the join gave nothing".to_string()));
        };
        if pairs != load.matches() {
            let expected = load.matches();
            return Err(Failure::Failed(format!("{pairs} matches came, not {expected}")));
        }
        Ok(Self { latency: Percentiles::of(&latency), lag: Percentiles::of(lag) })
    }
}

fn by_query(load: &Load, checkpoint: Option<&Path>) -> Result<Run, Failure> {
    let ((left, l), (right, r)) = (ring(RING), ring(RING));
    let over = Arc::new(AtomicBool::new(false));
    let sides = [l, r].map(|rows| FromRing { rows, over: over.clone() });
    let out = Arc::new(Mutex::new(None));
    let base = Instant::now();
    let latencies =
        Latencies { load: *load, base, histogram: histogram(), pairs: 0, out: out.clone() };
    let mut lag = histogram();
    run_query((load.range(), checkpoint), sides, latencies, || {
        lag = generate(load, base, [left, right], &over)?;
        Ok(())
    })?;
    let found = out.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    Run::of(load, &lag, found)
}

fn by_hand(load: &Load) -> Result<Run, Failure> {
    let ((left, l), (right, r)) = (ring(RING), ring(RING));
    let over = Arc::new(AtomicBool::new(false));
    let mut sides = [l, r].map(|rows| FromRing { rows, over: over.clone() });
    let out = Arc::new(Mutex::new(None));
    let base = Instant::now();
    let mut latencies =
        Latencies { load: *load, base, histogram: histogram(), pairs: 0, out: out.clone() };
    let Range { before_us, after_us } = load.range();
    let body = move || {
        if let Some(core) = cores::allowed().first().copied() {
            cores::pin(core);
        }
        let mut join = HashJoin::new(before_us, after_us);
        let mut times = [0; 2];
        while !sides.iter_mut().all(Rows::is_over) {
            for (side, rows) in sides.iter_mut().enumerate() {
                if let Some(row) = rows.next() {
                    times[side] = row[1];
                    join.push(side == 0, row, |l, r| latencies.pair(l, r));
                    join.expire(times[0].min(times[1]));
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("by hand".into()).spawn(body)?;
    let lag = generate(load, base, [left, right], &over)?;
    thread.join().map_err(|_| Failure::Failed("the join by hand panicked".to_string()))?;
    let found = out.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    Run::of(load, &lag, found)
}

/// A folder for checkpoints, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("millstream-bench-join-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// How long a match takes, without and with checkpoints.
pub(super) fn latency(load: &Load, figures: &mut Vec<Figure>) -> Result<(), Failure> {
    let hand = by_hand(load)?;
    let plain = by_query(load, None)?;
    let folder = Folder::new();
    let kept = by_query(load, Some(&folder.0))?;
    let (rate, buffered) = (load.rate, load.buffered);
    let name = |part: &str| format!("match, {rate} rows/s and {buffered} buffered a side, {part}");
    let time = |ns: u64| Unit::Ns(ns as f64);
    let mut add = |part: &str, ours: u64, hand: u64, goal: &'static str| {
        figures.push(Figure::new(name(part), time(ours), Some(time(hand)), goal));
    };
    add("p50", plain.latency.p50_ns, hand.latency.p50_ns, "<= 2 us");
    add("p99", plain.latency.p99_ns, hand.latency.p99_ns, "<= 10 us");
    add("p99.9", plain.latency.p999_ns, hand.latency.p999_ns, "");
    add("p99, checkpoints each second", kept.latency.p99_ns, hand.latency.p99_ns, "");
    let ratio = kept.latency.p99_ns as f64 / plain.latency.p99_ns.max(1) as f64;
    let what = "p99 with checkpoints, as a multiple of without".to_string();
    figures.push(Figure::new(what, Unit::Times(ratio), None, "<= 1.3"));
    let lag = hand.lag.p99_ns.max(plain.lag.p99_ns).max(kept.lag.p99_ns);
    let what = "the generator's own lateness, p99".to_string();
    figures.push(Figure::new(what, time(lag), None, "small"));
    Ok(())
}

/// Counts the matches.
struct Counter(Arc<Mutex<u64>>, u64);

impl Pairs for Counter {
    #[inline]
    fn pair(&mut self, _left: i64, _right: i64) {
        self.1 += 1;
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = self.1;
    }
}

/// Rows a second of each side that one core takes, each of a key of its own.
pub(super) fn throughput(rows: i64, figures: &mut Vec<Figure>) -> Result<(), Failure> {
    // Half a million rows of each side are buffered.
    let range = Range { before_us: 500_000, after_us: 500_000 };
    let out = Arc::new(Mutex::new(0));
    let begun = Instant::now();
    let sides = [0, 0].map(|next| Counted { next, rows });
    run_query((range, None), sides, Counter(out.clone(), 0), || Ok(()))?;
    let ours = rows as f64 / begun.elapsed().as_secs_f64();
    let found = *out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut pairs = 0u64;
    let begun = Instant::now();
    let mut hand = HashJoin::new(range.before_us, range.after_us);
    for i in 0..rows {
        for is_left in [true, false] {
            hand.push(is_left, counted(i), |_, _| pairs += 1);
        }
        hand.expire(BASE_US + i);
    }
    let by_hand = rows as f64 / begun.elapsed().as_secs_f64();
    if found != pairs {
        return Err(Failure::Failed(format!("{found} matches came, not {pairs}")));
    }
    figures.push(Figure::new(
        format!("rows a second of a side, one core, {rows} rows, unique keys"),
        Unit::Rate(ours),
        Some(Unit::Rate(by_hand)),
        ">= 1,000,000/s",
    ));
    Ok(())
}
