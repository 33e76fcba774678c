//! The send time of each event: `start + (t - t0) / speed`, independent of the previous event.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A wait spins for this long at its end, because the system wakes sleeping threads late by about
/// this much.
const SPIN: Duration = Duration::from_micros(150);
/// Maximum length of a sleep, so that a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// The speed of a replay, as a multiple of the recorded speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speed {
    Factor(f64),
    Max,
}

impl Speed {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.trim_end_matches('x').parse::<f64>() {
            Ok(factor) if factor > 0.0 && factor.is_finite() => Ok(Self::Factor(factor)),
            _ => Err(format!("{text} is not a speed: write 1, 0.1, 10 or max")),
        }
    }

    pub(super) fn is_max(self) -> bool {
        self == Self::Max
    }

    /// The time from the start of the replay to a recorded time. `None` at the speed `max`, which
    /// does not wait.
    pub(super) fn scale(self, at_ns: u64) -> Option<u64> {
        match self {
            Self::Max => None,
            // The result is exact at the recorded speed, however long the recording is.
            Self::Factor(1.0) => Some(at_ns),
            Self::Factor(factor) => Some((at_ns as f64 / factor) as u64),
        }
    }
}

pub(super) struct Schedule {
    speed: Speed,
    /// The instant of recorded time 0, set by the first event.
    start: Option<Instant>,
    begun: Instant,
    postponed: Duration,
}

impl Schedule {
    pub(super) fn new(speed: Speed) -> Self {
        Self { speed, start: None, begun: Instant::now(), postponed: Duration::ZERO }
    }

    /// The time since the first event.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.unwrap_or(self.begun).elapsed()
    }

    /// Delays this event and all following ones so that it is due now, after a wait for a peer.
    /// Does nothing if it is not due yet.
    pub(super) fn postpone(&mut self, at_ns: u64) {
        let (Some(start), Some(after_ns)) = (&mut self.start, self.speed.scale(at_ns)) else {
            return;
        };
        let overdue = start.elapsed().saturating_sub(Duration::from_nanos(after_ns));
        *start += overdue;
        self.postponed += overdue;
    }

    /// The total time by which events were postponed.
    pub(super) fn postponed(&self) -> Duration {
        self.postponed
    }

    /// When a recorded time is due. `None` at speed `max`, and before the first wait.
    pub(super) fn due(&self, at_ns: u64) -> Option<Instant> {
        Some(self.start? + Duration::from_nanos(self.speed.scale(at_ns)?))
    }

    /// Waits for a recorded time. Returns the lateness in nanoseconds; 0 at speed `max`, and if
    /// `stop` is set, which ends the wait. The first call starts the schedule.
    pub(super) fn wait(&mut self, at_ns: u64, stop: &AtomicBool) -> u64 {
        let start = *self.start.get_or_insert_with(Instant::now);
        let Some(after_ns) = self.speed.scale(at_ns) else { return 0 };
        let due = start + Duration::from_nanos(after_ns);
        loop {
            let now = Instant::now();
            let Some(left) = due.checked_duration_since(now).filter(|left| !left.is_zero()) else {
                return (now - due).as_nanos() as u64;
            };
            if left > SPIN {
                std::thread::sleep((left - SPIN).min(SLEEP_MAX));
                if stop.load(Ordering::Relaxed) {
                    return 0;
                }
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_factors_or_max() {
        for (text, speed) in [
            ("1", Some(Speed::Factor(1.0))),
            ("0.1", Some(Speed::Factor(0.1))),
            ("10x", Some(Speed::Factor(10.0))),
            ("max", Some(Speed::Max)),
            ("0", None),
            ("-1", None),
            ("fast", None),
            ("inf", None),
        ] {
            assert_eq!(Speed::parse(text).ok(), speed, "{text}");
        }
    }

    #[test]
    fn nothing_is_sent_before_its_time() {
        let (mut schedule, stop) = (Schedule::new(Speed::Factor(2.0)), AtomicBool::new(false));
        schedule.wait(0, &stop);
        let start = schedule.start.unwrap();
        for at_us in [100, 1_000, 1_000, 3_000] {
            let lag_ns = schedule.wait(at_us * 1000, &stop);
            let since = start.elapsed();
            assert!(since >= Duration::from_micros(at_us / 2), "{at_us}: {since:?}, lag {lag_ns}");
        }
    }
}
