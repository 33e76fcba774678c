//! When records of a recording are emitted: at `start + (t - t0) / speed`.
//!
//! The schedule is absolute, so that delays do not add up.

use millstream_engine::measure::latency::{NsHistogram, histogram};
use std::sync::{Arc, Mutex};

/// How much later than intended records were emitted, in nanoseconds.
pub type SendLag = Arc<Mutex<NsHistogram>>;

/// Number of measurements that are kept before they are shared.
const UNSHARED: u32 = 512;

/// The schedule of a run.
pub(super) struct Pace {
    speed: f64,
    /// Time of the query's clock, and of the recording, at which it starts.
    start: Option<(u64, u64)>,
    lag: NsHistogram,
    unshared: u32,
    shared: SendLag,
}

impl Pace {
    pub(super) fn new(speed: f64) -> Self {
        let shared = Arc::new(Mutex::new(histogram()));
        Self { speed, start: None, lag: histogram(), unshared: 0, shared }
    }

    /// The measured lag, to be read from other threads.
    pub(super) fn send_lag(&self) -> SendLag {
        self.shared.clone()
    }

    /// When a record of this recorded time is due. The first one is due now.
    pub(super) fn due_ns(&mut self, mono_ns: u64, now_ns: u64) -> u64 {
        let (start_ns, first_ns) = *self.start.get_or_insert((now_ns, mono_ns));
        let after_ns = mono_ns.saturating_sub(first_ns);
        // Exact at the speed of the recording, whatever its length.
        let after_ns = match self.speed {
            1.0 => after_ns,
            speed => (after_ns as f64 / speed) as u64,
        };
        start_ns.saturating_add(after_ns)
    }

    /// Notes that records are emitted which were due at a time.
    pub(super) fn emitted(&mut self, due_ns: u64, now_ns: u64) {
        self.lag.saturating_record(now_ns.saturating_sub(due_ns));
        self.unshared += 1;
        if self.unshared >= UNSHARED {
            self.share();
        }
    }

    /// Shares what was measured.
    pub(super) fn share(&mut self) {
        if self.unshared == 0 {
            return;
        }
        self.unshared = 0;
        let mut shared = self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Both have the bounds of `histogram`.
        let _ = shared.add(&self.lag);
        self.lag.reset();
    }
}
