//! The watermark stage, and the watermark as an operator sees it. The stage tracks the largest
//! event time of the records that pass; in continuous mode it sends the watermark down the chain.
//!
//! If one tasklet reads several partitions of a source, the watermark in continuous mode is that of
//! the slowest partition. It is then sent at the end of a drain, because finding the slowest one
//! takes a step per partition.

use millstream_engine::epoch::event_time::{BatchTimes, EventTimeReporter, EventTimeStats};
use millstream_engine::epoch::source_partitions::SourcePartitions;
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};

/// The event time of a record, in microseconds since 1970.
pub type EventTimeFn<T> = Box<dyn FnMut(&T) -> i64 + Send>;

/// Creates the event-time function for each instance of an operator.
pub type MakeEventTimeFn<T> = Box<dyn Fn() -> EventTimeFn<T>>;

/// Number of buckets of the out-of-order histogram: 8 per power of two of microseconds, and one per
/// microsecond below 8.
const BUCKETS: usize = 64 * 8;

/// The event times of the partitions of a tasklet's source.
struct PartitionTimes {
    source: SourcePartitions,
    /// The largest event time of each partition; `i64::MIN` before its first record.
    largest_us: Vec<i64>,
    /// Whether each partition is idle, and the source's count of changes at the time of the copy.
    idle: Vec<bool>,
    idle_changes: u64,
    /// Whether records have arrived since the last call of `slowest_us`.
    has_new: bool,
}

impl PartitionTimes {
    fn new(source: SourcePartitions) -> Self {
        let (largest_us, idle) = (Vec::new(), Vec::new());
        // No count of changes is the largest number, so the first look copies the list.
        Self { source, largest_us, idle, idle_changes: u64::MAX, has_new: false }
    }

    /// Adds a record's event time to its partition. Returns the largest time of the partition before
    /// it.
    #[inline]
    fn see(&mut self, time_us: i64) -> Option<i64> {
        let partition = self.source.current();
        if partition >= self.largest_us.len() {
            self.largest_us.resize(partition + 1, i64::MIN);
        }
        self.has_new = true;
        let largest = &mut self.largest_us[partition];
        let before = *largest;
        *largest = before.max(time_us);
        (before > i64::MIN).then_some(before)
    }

    /// Whether the slowest partition may have changed.
    #[inline]
    fn has_changed(&self) -> bool {
        self.has_new || self.idle_changes != self.source.changes()
    }

    /// The largest event time of the slowest partition that is not idle; of the fastest one if all
    /// are idle. `None` if a partition has had no record yet and is not idle.
    fn slowest_us(&mut self) -> Option<i64> {
        self.has_new = false;
        if self.idle_changes != self.source.changes() {
            self.idle_changes = self.source.changes();
            self.source.copy_idle(&mut self.idle);
            self.largest_us.resize(self.idle.len().max(self.largest_us.len()), i64::MIN);
        }
        let times = self.largest_us.iter().copied();
        // A partition that was removed is missing in the list, and counts as idle.
        let is_idle = |index: &usize| self.idle.get(*index).copied().unwrap_or(true);
        let active = times.clone().enumerate().filter(|(index, _)| !is_idle(index));
        let slowest = active.map(|(_, us)| us).min().or_else(|| times.max());
        slowest.filter(|us| *us > i64::MIN)
    }
}

/// The stage. `F` returns a record's event time in microseconds since 1970.
pub(crate) struct WatermarkAssigner<F, D> {
    time: F,
    delay_us: i64,
    continuous: bool,
    seen: EventTimeReporter,
    /// The largest event time; `None` before the first record. With several partitions, that of the
    /// slowest one.
    largest_us: Option<i64>,
    /// Continuous mode: the partitions of the source, if it has several.
    partitions: Option<PartitionTimes>,
    /// The watermark at the end of the previous run.
    resumed_us: i64,
    /// The last watermark that was sent.
    passed_us: i64,
    times: BatchTimes,
    /// Whether the input is idle.
    silent: bool,
    epoch: EventTimeStats,
    sum_us: i128,
    behind: Box<[u32; BUCKETS]>,
    down: D,
}

fn bucket(us: u64) -> usize {
    if us < 8 {
        return us as usize;
    }
    let power = 63 - us.leading_zeros() as usize;
    power * 8 + (us >> (power - 3) & 7) as usize
}

/// The largest value that falls into a bucket.
fn of_bucket(bucket: usize) -> i64 {
    let (power, part) = (bucket / 8, bucket as u64 % 8);
    if bucket < 24 {
        return bucket.min(7) as i64;
    }
    (((8 + part + 1) << (power - 3)) - 1) as i64
}

impl<F, D: Stage> WatermarkAssigner<F, D> {
    /// Creates the stage. `resumed_us` is the watermark at the end of the previous run.
    pub fn new(
        time: F,
        delay_ms: i64,
        trigger: Trigger,
        seen: EventTimeReporter,
        resumed_us: i64,
        times: BatchTimes,
        down: D,
    ) -> Self {
        Self {
            time,
            delay_us: delay_ms.saturating_mul(1000),
            continuous: trigger.is_continuous(),
            seen,
            largest_us: None,
            partitions: None,
            resumed_us,
            passed_us: i64::MIN,
            times,
            silent: false,
            epoch: EventTimeStats::default(),
            sum_us: 0,
            behind: Box::new([0; BUCKETS]),
            down,
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
        let before = match &mut self.partitions {
            Some(partitions) => partitions.see(time_us),
            None => {
                let before = self.largest_us;
                self.largest_us = before.max(Some(time_us));
                before
            }
        };
        if let Some(largest) = before.filter(|largest| time_us < *largest) {
            let behind = largest.saturating_sub(time_us);
            epoch.out_of_order += 1;
            epoch.behind_max_us = epoch.behind_max_us.max(behind);
            self.behind[bucket(behind as u64)] += 1;
        }
    }

    /// Looks for the slowest partition, if records have arrived or partitions became idle, and sends
    /// its watermark.
    fn advance_partitions(&mut self) -> Result<(), EngineError> {
        let Some(partitions) = self.partitions.as_mut().filter(|all| all.has_changed()) else {
            return Ok(());
        };
        self.largest_us = partitions.slowest_us().max(self.largest_us);
        self.advance()
    }

    /// Sends the watermark if it has advanced. As in micro-batch mode, it is rounded down to whole
    /// milliseconds before the delay is subtracted. Does nothing in a batch, and while the input is
    /// idle.
    #[inline]
    fn advance(&mut self) -> Result<(), EngineError> {
        if !self.continuous || self.silent || self.times.is_replay() {
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

    /// Reports the largest event time so far, and the statistics of the epoch, which are then reset.
    /// Without records, or without records out of order, their statistics stay 0.
    fn publish(&mut self) {
        if let Some(largest) = self.largest_us {
            self.seen.publish(largest);
        }
        let mut epoch = std::mem::take(&mut self.epoch);
        if epoch.count > 0 {
            let average = std::mem::take(&mut self.sum_us) / i128::from(epoch.count);
            epoch.avg_us = average as i64;
        }
        if epoch.out_of_order > 0 {
            let at = |fraction: u64| {
                let wanted = (epoch.out_of_order * fraction).div_ceil(100);
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

impl<F: Send, D: Stage> Stage for WatermarkAssigner<F, D> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        if self.continuous {
            self.partitions = io.partitions.clone().map(PartitionTimes::new);
        }
        self.down.attach(io)?;
        // Sends the watermark of the previous run first, because state that it has evicted must not
        // be created again.
        self.advance()
    }
    fn is_ready(&mut self) -> bool {
        self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        // The watermark of an event time that was declared upstream is not passed on.
        if !is_idle(micros) || !self.continuous {
            return Ok(());
        }
        // The next row sends the watermark again.
        self.passed_us = i64::MIN;
        self.silent = true;
        self.seen.set_idle(Some(micros));
        self.down.watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.advance_partitions()?;
        self.advance()?;
        self.publish();
        self.down.marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.advance_partitions()?;
        self.down.flush()
    }
    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<T, F: FnMut(&T) -> i64 + Send, D: Push<T>> Push<T> for WatermarkAssigner<F, D> {
    #[inline]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        let time_us = (self.time)(&value);
        if std::mem::replace(&mut self.silent, false) {
            self.seen.set_idle(None);
        }
        self.see(time_us);
        // The record goes before the watermark that it causes, because that watermark may be later
        // than the record.
        self.down.push(value, ingest_ns)?;
        if self.partitions.is_some() { Ok(()) } else { self.advance() }
    }
}

/// The watermark as an operator sees it. In continuous mode it arrives in-band; in micro-batch mode
/// it is a property of the batch.
pub(crate) struct OperatorWatermark {
    times: BatchTimes,
    /// Continuous mode: the last watermark that arrived.
    in_band_us: Option<i64>,
    /// Micro-batch mode: how far this watermark is behind the batch's, in microseconds.
    lag_us: i64,
}

impl OperatorWatermark {
    pub fn new(times: BatchTimes, continuous: bool) -> Self {
        // The watermark starts at that of the previous run, or at 1970, as in micro-batch mode.
        let in_band_us = continuous.then(|| times.watermark_us());
        Self { times, in_band_us, lag_us: 0 }
    }

    /// The watermark for an operator downstream of one that emits rows up to `lag_us` older than
    /// the watermark.
    pub fn behind(self, lag_us: i64) -> Self {
        let in_band_us = self.in_band_us.map(|us| us.saturating_sub(lag_us));
        Self { in_band_us, lag_us, ..self }
    }

    /// A record at or before this time is late.
    #[inline]
    pub fn late_row_watermark_us(&self) -> i64 {
        match self.in_band_us {
            Some(watermark) if !self.times.is_replay() => watermark,
            _ => self.times.late_row_watermark_us().saturating_sub(self.lag_us),
        }
    }

    /// Whether watermarks arrive in-band now.
    pub fn is_in_band(&self) -> bool {
        self.in_band_us.is_some() && !self.times.is_replay()
    }

    /// State that expires at or before this time may be evicted: the last watermark of the input in
    /// continuous mode, the batch's, less the operator's lag, in micro-batch mode and in a batch that
    /// is run again.
    pub fn watermark_us(&self) -> i64 {
        match self.in_band_us {
            Some(watermark) if !self.times.is_replay() => watermark,
            _ => self.times.watermark_us().saturating_sub(self.lag_us),
        }
    }

    /// Updates the in-band watermark.
    pub fn advance(&mut self, micros: i64) {
        if let Some(watermark) = &mut self.in_band_us {
            *watermark = micros.max(*watermark);
        }
    }
}
