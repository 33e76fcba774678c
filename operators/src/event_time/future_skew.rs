//! Drops records whose event time is too far ahead of the clock. One such record would move the
//! watermark and make other records late.
//!
//! In micro-batch mode the clock is that of the batch, so a batch that is run again drops the same
//! records. In continuous mode it is the latest arrival time of a record, or the time of the last
//! marker if that is later.

use millstream_engine::env::Env;
use millstream_engine::epoch::event_time::{BatchTimes, EventTimeReporter, EventTimeStats};
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, UNTIMED};
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use std::sync::Arc;

/// The limit on how far ahead of the clock an event time may be.
pub(crate) struct FutureSkewLimit {
    max_us: i64,
    env: Arc<dyn Env>,
    times: BatchTimes,
    continuous: bool,
    /// Offset from the monotonic clock to the wall clock, at the last marker or the start.
    wall_offset_us: i64,
    /// The latest time known: of an arrival, or of the last marker.
    arrived_ns: u64,
}

impl FutureSkewLimit {
    /// Creates a limit of `max_ms` milliseconds. `trigger` selects the clock.
    pub fn new(max_ms: i64, env: Arc<dyn Env>, times: BatchTimes, trigger: Trigger) -> Self {
        let max_us = max_ms.saturating_mul(1000);
        let continuous = trigger.is_continuous();
        let mut skew = Self { max_us, env, times, continuous, wall_offset_us: 0, arrived_ns: 0 };
        skew.read_clock();
        skew
    }

    /// Reads both clocks, once per epoch because the wall clock may be adjusted.
    fn read_clock(&mut self) {
        let now_ns = self.env.now_ns();
        self.arrived_ns = self.arrived_ns.max(now_ns);
        self.wall_offset_us = self.env.wall_us() - (now_ns / 1000) as i64;
    }

    /// The largest acceptable event time of a record. It is relative to the batch's time. In
    /// continuous mode, unless a batch is run again, it is relative to the latest arrival so far or
    /// the last marker. A record whose `ingest_ns` is [`UNTIMED`] has no arrival time.
    #[inline]
    fn limit_us(&mut self, ingest_ns: u64) -> i64 {
        if !self.continuous || self.times.is_replay() {
            return self.times.started_us().saturating_add(self.max_us);
        }
        if ingest_ns != UNTIMED {
            // A record that was pushed before the query started arrived before the clocks were
            // read.
            self.arrived_ns = self.arrived_ns.max(ingest_ns);
        }
        let now_us = (self.arrived_ns / 1000) as i64 + self.wall_offset_us;
        now_us.saturating_add(self.max_us)
    }
}

/// Drops records whose event time is after the limit. It is the stage in front of a
/// [`WatermarkAssigner`](crate::event_time::watermark::WatermarkAssigner). `F` returns a record's
/// event time; `A` receives each dropped record with the limit. Both times are in microseconds
/// since 1970.
pub(crate) struct FutureSkewFilter<F, A, D> {
    time: F,
    aside: A,
    /// Without a limit all records pass.
    skew: Option<FutureSkewLimit>,
    seen: EventTimeReporter,
    /// The number of records dropped in this epoch.
    ahead: u64,
    down: D,
}

impl<F, A, D> FutureSkewFilter<F, A, D> {
    pub fn new(
        time: F,
        aside: A,
        skew: Option<FutureSkewLimit>,
        seen: EventTimeReporter,
        down: D,
    ) -> Self {
        Self { time, aside, skew, seen, ahead: 0, down }
    }
}

impl<F: Send, A: Send, D: Stage> Stage for FutureSkewFilter<F, A, D> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.down.attach(io)
    }
    #[inline]
    fn is_ready(&mut self) -> bool {
        self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.down.watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if let Some(skew) = &mut self.skew {
            skew.read_clock();
        }
        let ahead = std::mem::take(&mut self.ahead);
        if ahead > 0 {
            self.seen.publish_epoch(EventTimeStats {
                ahead_of_clock: ahead,
                ..EventTimeStats::default()
            });
        }
        self.down.marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    #[inline]
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.down.flush()
    }
    #[inline]
    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<T, F, A, D> Push<T> for FutureSkewFilter<F, A, D>
where
    F: FnMut(&T) -> i64 + Send,
    A: FnMut(T, i64) + Send,
    D: Push<T>,
{
    #[inline]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        if let Some(skew) = &mut self.skew {
            let limit_us = skew.limit_us(ingest_ns);
            if (self.time)(&value) > limit_us {
                self.ahead += 1;
                (self.aside)(value, limit_us);
                return Ok(());
            }
        }
        self.down.push(value, ingest_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::env::SimEnv;

    const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 1_000_000_000 };

    const SECOND_NS: u64 = 1_000_000_000;
    const SECOND_US: i64 = 1_000_000;

    #[test]
    fn the_limit_is_relative_to_the_arrival_or_to_the_batch_time() {
        let world = Arc::new(SimEnv::new(0));
        world.advance(100 * SECOND_NS);
        let times = BatchTimes::default();
        let skew = |trigger| FutureSkewLimit::new(60_000, world.clone(), times.clone(), trigger);
        let (mut arrival, mut batch) = (skew(CONTINUOUS), skew(Trigger::AsSoonAsPossible));
        assert_eq!(arrival.limit_us(100 * SECOND_NS), 160 * SECOND_US);
        assert_eq!(arrival.limit_us(UNTIMED), 160 * SECOND_US, "the latest arrival counts");
        // The clock is not read again for a record that arrives later in the epoch.
        assert_eq!(arrival.limit_us(130 * SECOND_NS), 190 * SECOND_US);
        world.advance(50 * SECOND_NS);
        arrival.read_clock();
        assert_eq!(arrival.limit_us(UNTIMED), 210 * SECOND_US);
        times.start(20 * SECOND_US);
        assert_eq!(batch.limit_us(500 * SECOND_NS), 80 * SECOND_US);
        times.set_replays(true);
        assert_eq!(arrival.limit_us(500 * SECOND_NS), 80 * SECOND_US, "a batch is run again");
    }

    #[test]
    fn very_large_limits_do_not_overflow() {
        let world = Arc::new(SimEnv::new(0));
        let mut skew = FutureSkewLimit::new(i64::MAX, world, BatchTimes::default(), CONTINUOUS);
        assert_eq!(skew.limit_us(5), i64::MAX);
    }
}
