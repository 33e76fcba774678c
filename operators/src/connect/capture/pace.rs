//! When records of a recording are emitted: at `start + (t - t0) / speed`.
//!
//! The schedule is absolute, so that delays do not add up. If its start is given, a checkpoint
//! stores the recorded time that it has reached, and a restarted run continues at that time.

use millstream_engine::measure::latency::{NsHistogram, histogram};
use std::sync::{Arc, Mutex};

/// A histogram of the send lag: how much later than scheduled records were emitted, in nanoseconds.
pub type SendLag = Arc<Mutex<NsHistogram>>;

/// The number of measurements after which the local histogram is merged into the shared one.
const UNSHARED: u32 = 512;

/// The emission schedule of a run.
pub(super) struct Pace {
    speed: f64,
    /// The recorded time at which the schedule starts. `None`: the schedule starts at the time of
    /// the first record.
    first_ns: Option<u64>,
    /// The start of the schedule: the query's monotonic time and the recorded time, both in
    /// nanoseconds. `None` before the first record.
    start: Option<(u64, u64)>,
    /// The monotonic time of the last call of [`Self::due_ns`].
    asked_ns: u64,
    lag: NsHistogram,
    unshared: u32,
    shared: SendLag,
}

impl Pace {
    pub(super) fn new(speed: f64, first_ns: Option<u64>) -> Self {
        let shared = Arc::new(Mutex::new(histogram()));
        Self { speed, first_ns, start: None, asked_ns: 0, lag: histogram(), unshared: 0, shared }
    }

    /// The measured send lag, for other threads.
    pub(super) fn send_lag(&self) -> SendLag {
        self.shared.clone()
    }

    /// The recorded time that the schedule has reached, in nanoseconds: the given start until the
    /// first record is asked for. `None` if the start of the schedule is not given.
    pub(super) fn reached_ns(&self) -> Option<u64> {
        let given_ns = self.first_ns?;
        let Some((start_ns, first_ns)) = self.start else { return Some(given_ns) };
        let after_ns = self.asked_ns.saturating_sub(start_ns);
        let after_ns = match self.speed {
            1.0 => after_ns,
            speed => (after_ns as f64 * speed) as u64,
        };
        Some(first_ns.saturating_add(after_ns))
    }

    /// Continues the schedule of an earlier run, which had reached this recorded time.
    pub(super) fn resume(&mut self, reached_ns: u64) {
        self.first_ns = self.first_ns.map(|_| reached_ns);
    }

    /// The monotonic time at which a record of this recorded time is due. The first call starts the
    /// schedule: its record is due immediately, unless the start of the schedule is given. Records
    /// from before the start are due at the start.
    pub(super) fn due_ns(&mut self, recorded_ns: u64, now_ns: u64) -> u64 {
        let first_ns = self.first_ns.unwrap_or(recorded_ns);
        let (start_ns, first_ns) = *self.start.get_or_insert((now_ns, first_ns));
        self.asked_ns = now_ns;
        let after_ns = recorded_ns.saturating_sub(first_ns);
        // At the recorded speed integer arithmetic keeps the schedule exact, however long the
        // recording is.
        let after_ns = match self.speed {
            1.0 => after_ns,
            speed => (after_ns as f64 / speed) as u64,
        };
        start_ns.saturating_add(after_ns)
    }

    /// Measures the lag of records that were due at `due_ns` and are emitted at `now_ns`.
    pub(super) fn emitted(&mut self, due_ns: u64, now_ns: u64) {
        self.lag.saturating_record(now_ns.saturating_sub(due_ns));
        self.unshared += 1;
        if self.unshared >= UNSHARED {
            self.share();
        }
    }

    /// Merges the local measurements into the shared histogram.
    pub(super) fn share(&mut self) {
        if self.unshared == 0 {
            return;
        }
        self.unshared = 0;
        let mut shared = self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Merging cannot fail: both histograms have the bounds of `histogram`.
        let _ = shared.add(&self.lag);
        self.lag.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_is_due_at_once_unless_the_start_is_given() {
        let mut pace = Pace::new(2.0, None);
        assert_eq!((pace.due_ns(500, 10_000), pace.due_ns(700, 11_000)), (10_000, 10_100));
        let mut pace = Pace::new(2.0, Some(300));
        assert_eq!((pace.due_ns(500, 10_000), pace.due_ns(700, 11_000)), (10_100, 10_200));
        // A record from before the start of the schedule is due at once.
        assert_eq!(Pace::new(2.0, Some(900)).due_ns(500, 10_000), 10_000);
    }
}
