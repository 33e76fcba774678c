//! Latency from ingest to sink, recorded when records leave the query.
//!
//! A sink notes the ingest time of each record. When the output is written, it records the
//! latencies of all records noted so far with one clock read. Histograms are handed over at
//! markers, so nothing is shared while records flow.

use crate::env::Env;
use crate::event::UNTIMED;
use crate::measure::stall;
use crate::measure::stall::{SLOW_NS, Stall};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use hdrhistogram::Histogram;
use std::sync::{Arc, Mutex, MutexGuard};

/// The longest latency that is recorded: one hour. Longer ones are recorded as one hour.
const MAX_NS: u64 = 3_600_000_000_000;
/// Number of records between two clock reads within a long drain.
const STAMP_EVERY: usize = 1024;

/// Maximum number of intervals in the queue. At this number a sink merges the queued intervals
/// itself.
const MOST_WAITING: usize = 256;
/// Maximum number of empty histograms kept for sinks.
const SPARES: usize = 8;

/// A histogram of nanoseconds.
pub type NsHistogram = Histogram<u64>;

/// Creates an empty histogram of nanoseconds with three significant digits.
pub fn histogram() -> NsHistogram {
    Histogram::new_with_bounds(1, MAX_NS, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// The measurements of one sink in one interval.
struct FullHistogram {
    rows: u64,
    latencies: Box<Histogram<u64>>,
    slowest: Option<Stall>,
}

/// An empty histogram for reuse.
type EmptyHistogram = Box<Histogram<u64>>;

/// Number of slowest records kept per interval.
const SLOWEST: usize = 3;

struct Shared {
    full: Receiver<FullHistogram>,
    /// Latencies since the last [`Latency::take_epoch`].
    epoch: Histogram<u64>,
    /// Latencies before the last [`Latency::take_epoch`].
    total: Histogram<u64>,
    /// Number of rows since the last [`Latency::take_epoch`], including those without a latency.
    epoch_rows: u64,
    total_rows: u64,
    /// The slowest records since the last [`Latency::take_epoch`], slowest first. `slowest_before`
    /// contains those of earlier intervals.
    slowest: Vec<Stall>,
    slowest_before: Vec<Stall>,
}

impl Shared {
    /// The slowest records of all intervals, slowest first.
    fn slowest(&self) -> Vec<Stall> {
        let mut all = self.slowest_before.clone();
        self.slowest.iter().for_each(|stall| keep_slowest(&mut all, *stall));
        all
    }
}

fn keep_slowest(all: &mut Vec<Stall>, stall: Stall) {
    let at = all.partition_point(|other| other.latency_ns >= stall.latency_ns);
    all.insert(at, stall);
    all.truncate(SLOWEST);
}

/// The latency of a query. Sinks hand their histograms over at markers; readers merge them.
#[derive(Clone)]
pub struct Latency {
    shared: Arc<Mutex<Shared>>,
    hand_over: Sender<FullHistogram>,
    spare: (Sender<EmptyHistogram>, Receiver<EmptyHistogram>),
}

impl Default for Latency {
    fn default() -> Self {
        // The channel has no limit of its own. `gather` empties it at each commit, and a sink
        // empties it when it contains `MOST_WAITING` intervals.
        let (hand_over, full) = unbounded();
        let shared = Shared {
            full,
            epoch: histogram(),
            total: histogram(),
            epoch_rows: 0,
            total_rows: 0,
            slowest: Vec::new(),
            slowest_before: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)), hand_over, spare: bounded(SPARES) }
    }
}

/// Percentiles of a histogram, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Number of records.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// 99.99th percentile.
    pub p9999_ns: u64,
    /// Longest latency.
    pub max_ns: u64,
}

/// What a query emitted between two calls of [`Latency::take_epoch`].
pub struct EpochLatency {
    /// The number of rows emitted, including rows without a latency.
    pub rows: u64,
    /// Latency of the rows that a record caused.
    pub latency: Percentiles,
    /// Up to three of the slowest rows, slowest first; none faster than 100 us.
    pub slowest: Vec<Stall>,
}

impl Percentiles {
    /// The percentiles of a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            p9999_ns: histogram.value_at_quantile(0.9999),
            max_ns: histogram.max(),
        }
    }
}

impl Latency {
    /// Creates a recorder for one sink instance.
    pub fn recorder(&self, env: Arc<dyn Env>) -> LatencyRecorder {
        LatencyRecorder {
            env,
            query: self.clone(),
            interval: Box::new(histogram()),
            rows: 0,
            pending: Vec::with_capacity(STAMP_EVERY),
            noted: 0,
            slowest_ns: SLOW_NS,
        }
    }

    fn merged(&self) -> MutexGuard<'_, Shared> {
        let mut shared = self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while let Ok(FullHistogram { rows, mut latencies, slowest }) = shared.full.try_recv() {
            shared.epoch_rows += rows;
            // All histograms have the same bounds, so adding them cannot fail.
            let _ = shared.epoch.add(&*latencies);
            latencies.reset();
            drop(self.spare.0.try_send(latencies));
            if let Some(stall) = slowest {
                keep_slowest(&mut shared.slowest, stall);
            }
        }
        shared
    }

    /// Merges the histograms that sinks have handed over, so that they can be reused. Call this at
    /// each commit.
    pub fn gather(&self) {
        drop(self.merged());
    }

    /// Number of intervals in the queue.
    pub fn waiting(&self) -> usize {
        self.hand_over.len()
    }

    /// Percentiles of all latencies that sinks have published at markers.
    pub fn percentiles(&self) -> Percentiles {
        let shared = self.merged();
        let mut all = shared.total.clone();
        let _ = all.add(&shared.epoch);
        Percentiles::of(&all)
    }

    /// Up to three of the slowest records that sinks have published, slowest first, with the
    /// causes. At most one per worker and epoch, none faster than 100 us.
    pub fn slowest(&self) -> Vec<Stall> {
        self.merged().slowest()
    }

    /// Number of rows that sinks have published, including rows without a latency, such as results
    /// of a closed window.
    pub fn rows(&self) -> u64 {
        let shared = self.merged();
        shared.total_rows + shared.epoch_rows
    }

    /// Returns the latencies of the rows emitted since the last call.
    pub fn take_epoch(&self) -> EpochLatency {
        let mut guard = self.merged();
        let shared = &mut *guard;
        let latency = Percentiles::of(&shared.epoch);
        let _ = shared.total.add(&shared.epoch);
        shared.epoch.reset();
        let rows = std::mem::take(&mut shared.epoch_rows);
        shared.total_rows += rows;
        shared.slowest_before = shared.slowest();
        EpochLatency { rows, latency, slowest: std::mem::take(&mut shared.slowest) }
    }

    /// Discards the latencies and row counts published so far, for example after a warm-up.
    pub fn reset(&self) {
        let mut shared = self.merged();
        shared.epoch.reset();
        shared.total.reset();
        (shared.epoch_rows, shared.total_rows) = (0, 0);
        shared.slowest.clear();
        shared.slowest_before.clear();
    }
}

/// Records the latencies of one sink instance and publishes them to [`Latency`].
pub struct LatencyRecorder {
    env: Arc<dyn Env>,
    query: Latency,
    interval: Box<Histogram<u64>>,
    /// Rows since the last marker.
    rows: u64,
    /// Ingest times of pending records, run-length encoded: all records of one read have the same
    /// ingest time.
    pending: Vec<(u64, u64)>,
    /// Number of records in `pending`.
    noted: usize,
    /// Only a record slower than this is explained, in nanoseconds: than the slowest one of the
    /// interval so far, at least [`SLOW_NS`].
    slowest_ns: u64,
}

impl LatencyRecorder {
    /// Adds a record that the sink has accepted but not written yet. The sink's buffer bounds the
    /// number of pending records.
    #[inline]
    pub fn add_pending(&mut self, ingest_ns: u64) {
        self.rows += 1;
        if ingest_ns == UNTIMED {
            return;
        }
        self.noted += 1;
        match self.pending.last_mut() {
            Some((last_ns, records)) if *last_ns == ingest_ns => *records += 1,
            _ => self.pending.push((ingest_ns, 1)),
        }
    }

    /// Like [`add_pending`](Self::add_pending), for a record that is already written. Records the
    /// pending ones from time to time.
    #[inline]
    pub fn record(&mut self, ingest_ns: u64) {
        if self.noted >= STAMP_EVERY {
            self.record_pending();
        }
        self.add_pending(ingest_ns);
    }

    /// Records all pending records as written now. If the oldest of them is slower than
    /// `slowest_ns`, its delay is explained.
    #[inline]
    pub fn record_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let now_ns = self.env.now_ns();
        let mut oldest_ns = now_ns;
        self.noted = 0;
        for (ingest_ns, records) in self.pending.drain(..) {
            oldest_ns = oldest_ns.min(ingest_ns);
            let latency_ns = now_ns.saturating_sub(ingest_ns).max(1);
            self.interval.saturating_record_n(latency_ns, records);
        }
        if now_ns - oldest_ns > self.slowest_ns {
            self.slowest_ns = now_ns - oldest_ns;
            stall::record_slow(oldest_ns, now_ns);
        }
    }

    /// Hands the histogram and the slowest row of this interval over, unless the interval has no
    /// rows. Call this at a marker and at the end.
    pub fn publish(&mut self) {
        if self.rows == 0 {
            return;
        }
        let empty = self.query.spare.1.try_recv().unwrap_or_else(|_| Box::new(histogram()));
        let latencies = std::mem::replace(&mut self.interval, empty);
        // Each interval has its own slowest row, however slow the earlier ones were.
        self.slowest_ns = SLOW_NS;
        // The receiver belongs to the same query, so it exists.
        let rows = std::mem::take(&mut self.rows);
        drop(self.query.hand_over.send(FullHistogram {
            rows,
            latencies,
            slowest: stall::take_slowest(),
        }));
        if self.query.waiting() >= MOST_WAITING {
            self.query.gather();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::env::SimEnv;

    #[test]
    fn each_epoch_explains_its_slowest_row_whatever_the_epochs_before_took() {
        let (latency, env) = (Latency::default(), Arc::new(SimEnv::new(0)));
        stall::install_recorder(env.now_ns());
        let mut recorder = latency.recorder(env.clone());
        for took_ns in [1_000_000_000, 150_000, 50_000] {
            recorder.add_pending(env.now_ns());
            env.advance(took_ns);
            recorder.record_pending();
            recorder.publish();
            let slowest: Vec<_> =
                latency.take_epoch().slowest.iter().map(|stall| stall.latency_ns).collect();
            let expected = if took_ns > SLOW_NS { vec![took_ns] } else { Vec::new() };
            assert_eq!(slowest, expected);
        }
    }

    #[test]
    fn latencies_that_are_never_read_take_bounded_memory() {
        let (latency, env) = (Latency::default(), Arc::new(SimEnv::new(0)));
        let mut recorder = latency.recorder(env);
        for _ in 0..1000 {
            recorder.add_pending(1);
            recorder.record_pending();
            recorder.publish();
            assert!(latency.waiting() < MOST_WAITING);
        }
        latency.gather();
        assert_eq!((latency.waiting(), latency.rows()), (0, 1000));
    }
}
