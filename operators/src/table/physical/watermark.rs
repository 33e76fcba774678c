//! Where an event time is declared: rows pass, the largest time is kept, and in continuous mode the
//! watermark goes on among the rows.

use super::stages::BoxChain;
use crate::table::row::{Row, Slot};
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, IDLE};
use millstream_engine::event_time::{BatchTimes, EventTimes, Seen};
use millstream_engine::stage::{Io, Push, Settled, Stage};

/// Buckets of how far rows are behind: 8 for each power of two of microseconds.
const BUCKETS: usize = 64 * 8;

/// The stage.
pub(super) struct Watermark {
    slot: Slot,
    /// The column is a window, and its end is the time.
    window: bool,
    delay_us: i64,
    continuous: bool,
    seen: Seen,
    /// The largest time; `None` before any.
    largest_us: Option<i64>,
    /// Where an earlier run has ended.
    resumed_us: i64,
    /// The watermark that was passed on.
    passed_us: i64,
    times: BatchTimes,
    /// Nothing has come for long.
    silent: bool,
    epoch: EventTimes,
    sum_us: i128,
    behind: Box<[u32; BUCKETS]>,
    down: BoxChain,
}

fn bucket(us: u64) -> usize {
    if us < 8 {
        return us as usize;
    }
    let power = 63 - us.leading_zeros() as usize;
    power * 8 + (us >> (power - 3) & 7) as usize
}

/// The largest value of a bucket.
fn of_bucket(bucket: usize) -> i64 {
    let (power, part) = (bucket / 8, bucket as u64 % 8);
    if bucket < 24 {
        return bucket.min(7) as i64;
    }
    ((8 + part + 1) << (power - 3)) as i64 - 1
}

impl Watermark {
    /// `resumed_us` is the watermark that an earlier run has ended with.
    pub fn new(
        (slot, window): (Slot, bool),
        delay_ms: i64,
        continuous: bool,
        seen: Seen,
        (resumed_us, times): (i64, BatchTimes),
        down: BoxChain,
    ) -> Self {
        Self {
            slot,
            window,
            delay_us: delay_ms.saturating_mul(1000),
            continuous,
            seen,
            largest_us: None,
            resumed_us,
            passed_us: i64::MIN,
            times,
            silent: false,
            epoch: EventTimes::default(),
            sum_us: 0,
            behind: Box::new([0; BUCKETS]),
            down,
        }
    }

    #[inline]
    fn time(&self, row: Row<'_>) -> i64 {
        match (row.is_null(self.slot), self.window) {
            // As Spark counts it.
            (true, _) => 0,
            (false, true) => Row(row.bytes(self.slot)).long(Slot::new(1, 2)) - 1,
            (false, false) => row.long(self.slot),
        }
    }

    #[inline]
    fn see(&mut self, time_us: i64) {
        let epoch = &mut self.epoch;
        if epoch.count == 0 {
            (epoch.min_us, epoch.max_us) = (time_us, time_us);
        }
        epoch.count += 1;
        self.sum_us += i128::from(time_us);
        epoch.max_us = epoch.max_us.max(time_us);
        epoch.min_us = epoch.min_us.min(time_us);
        match self.largest_us {
            Some(largest) if time_us < largest => {
                let behind = largest.saturating_sub(time_us);
                epoch.behind += 1;
                epoch.behind_max_us = epoch.behind_max_us.max(behind);
                self.behind[bucket(behind as u64)] += 1;
            }
            _ => self.largest_us = Some(time_us),
        }
    }

    /// Passes the watermark on if it has moved; in whole milliseconds, as in micro-batch mode.
    #[inline]
    fn advance(&mut self) -> Result<(), EngineError> {
        if !self.continuous || self.silent || self.times.replays() {
            return Ok(());
        }
        let largest = self.largest_us.unwrap_or(i64::MIN);
        let seen_us = largest.div_euclid(1000).saturating_mul(1000).saturating_sub(self.delay_us);
        let watermark = seen_us.max(self.resumed_us);
        if watermark > self.passed_us {
            self.passed_us = watermark;
            self.down.watermark(watermark)?;
        }
        Ok(())
    }

    /// Says what was seen in an epoch.
    fn publish(&mut self) {
        if let Some(largest) = self.largest_us {
            self.seen.publish(largest);
        }
        let mut epoch = std::mem::take(&mut self.epoch);
        if epoch.count > 0 {
            let average = std::mem::take(&mut self.sum_us) / i128::from(epoch.count);
            epoch.avg_us = average as i64;
        }
        if epoch.behind > 0 {
            let at = |fraction: u64| {
                let wanted = (epoch.behind * fraction).div_ceil(100);
                let mut so_far = 0;
                let reached = self.behind.iter().position(|count| {
                    so_far += u64::from(*count);
                    so_far >= wanted
                });
                reached.map_or(0, of_bucket).min(epoch.behind_max_us)
            };
            (epoch.behind_p50_us, epoch.behind_p99_us) = (at(50), at(99));
            self.behind.fill(0);
        }
        self.seen.publish_epoch(epoch);
    }
}

impl Stage for Watermark {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.down.attach(io)?;
        // What an earlier run has let go must not be taken up again.
        self.advance()
    }
    fn ready(&mut self) -> bool {
        self.down.ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        // An event time that was declared before is not the one from here on.
        if micros != IDLE || !self.continuous {
            return Ok(());
        }
        // With the next row it says anew where it is.
        self.passed_us = i64::MIN;
        self.silent = true;
        self.down.watermark(IDLE)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.advance()?;
        self.publish();
        self.down.marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn settle(&mut self) -> Result<Settled, EngineError> {
        self.down.settle()
    }
}

impl<'a> Push<Row<'a>> for Watermark {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        let time_us = self.time(row);
        self.silent = false;
        self.see(time_us);
        // Behind the row, which it may concern.
        self.down.push(row, ingest_ns)?;
        self.advance()
    }
}
