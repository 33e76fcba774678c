//! Latency from ingest to sink, recorded where records leave.
//!
//! A sink notes the ingest time of each record as it takes it and stamps the whole drain with
//! one clock read once the output is really out. Histograms are merged at markers, so nothing is
//! shared while records flow.

use crate::event::UNTIMED;
use crate::seam::Env;
use hdrhistogram::Histogram;
use std::sync::{Arc, Mutex};

/// Longest latency that is told apart: one hour. What is longer is recorded as this.
const MAX_NS: u64 = 3_600_000_000_000;
/// Records between two clock reads within one long drain.
const STAMP_EVERY: usize = 1024;

/// An empty histogram of nanoseconds, three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NS, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// A query's latency, merged from its sinks at every epoch.
#[derive(Clone)]
pub struct Latency(Arc<Mutex<Histogram<u64>>>);

impl Default for Latency {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(histogram())))
    }
}

/// Percentiles of a histogram, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Number of records.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Longest.
    pub max: u64,
}

impl Percentiles {
    /// Reads a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl Latency {
    /// A recorder for one sink instance.
    pub fn recorder(&self, env: Arc<dyn Env>) -> LatencyRecorder {
        LatencyRecorder {
            env,
            shared: self.clone(),
            interval: histogram(),
            pending: Vec::with_capacity(STAMP_EVERY),
        }
    }

    /// All latencies up to the last marker that every sink has passed.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles::of(&self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Forgets what was recorded so far: the warm-up's end.
    pub fn reset(&self) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).reset();
    }
}

/// One sink instance's side of [`Latency`].
pub struct LatencyRecorder {
    env: Arc<dyn Env>,
    shared: Latency,
    interval: Histogram<u64>,
    pending: Vec<u64>,
}

impl LatencyRecorder {
    /// A record with this ingest time was taken and will be out at the next stamp. What is
    /// pending is bounded by what the sink buffers.
    #[inline]
    pub fn note(&mut self, ingest_ns: u64) {
        if ingest_ns != UNTIMED {
            self.pending.push(ingest_ns);
        }
    }

    /// A record with this ingest time is out already; a long drain is stamped now and then.
    #[inline]
    pub fn note_out(&mut self, ingest_ns: u64) {
        if self.pending.len() == STAMP_EVERY {
            self.stamp();
        }
        self.note(ingest_ns);
    }

    /// All noted records are out now.
    #[inline]
    pub fn stamp(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let now_ns = self.env.now_ns();
        for ingest_ns in self.pending.drain(..) {
            self.interval.saturating_record(now_ns.saturating_sub(ingest_ns).max(1));
        }
    }

    /// Merges this interval's latencies into the query's: at a marker, and at the end.
    pub fn publish(&mut self) {
        let mut shared = self.shared.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Both have the same bounds, so the sum cannot fail.
        let _ = shared.add(&self.interval);
        drop(shared);
        self.interval.reset();
    }
}
