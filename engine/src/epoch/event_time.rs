//! Event time over the epochs of a query: its statistics, the watermark, and the times of the
//! current batch.
//!
//! *Micro-batch mode.* A batch has two watermarks: rows at or before the previous batch's watermark
//! are late, and state up to the batch's own watermark may be evicted. The next watermark is
//! computed when all tasklets have acknowledged the batch's marker.
//!
//! *Continuous mode.* Watermarks travel in-band ([`Event::Watermark`](crate::event::Event)). The
//! watermark computed here at the end of an epoch is where a restart resumes.

pub use crate::epoch::watermark_policy::WatermarkPolicy;
use crate::event::{IDLE, is_idle};
use crate::measure::operator_state::WatermarkHolder;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// The largest event time of an input before its first record.
const UNSEEN: i64 = i64::MIN;
/// The mark of an input that is not idle.
const ACTIVE: i64 = i64::MIN;
/// The value of `wanted_us` if no batch was requested.
const NEVER: i64 = i64::MAX;

#[derive(Debug)]
struct Times {
    started_us: AtomicI64,
    late_us: AtomicI64,
    watermark_us: AtomicI64,
    /// Micro-batch mode: the wall-clock time at which an operator needs a batch.
    wanted_us: AtomicI64,
    /// Whether continuous mode is running a batch that micro-batch mode planned.
    replays: AtomicBool,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            started_us: AtomicI64::default(),
            late_us: AtomicI64::default(),
            watermark_us: AtomicI64::default(),
            wanted_us: AtomicI64::new(NEVER),
            replays: AtomicBool::default(),
        }
    }
}

/// The times of the current batch, in microseconds since 1970. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct BatchTimes(Arc<Times>);

impl PartialEq for BatchTimes {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl BatchTimes {
    // ORDERING: relaxed: in micro-batch mode the driver writes only while nothing is in flight. The
    // command that starts the batch, or the ring that delivers its records, orders all later reads
    // after the write. In continuous mode records flow while the driver writes; a reader may see
    // either value.

    /// Wall-clock time of the batch; in continuous mode, of the last commit, or of the start of
    /// this run.
    #[inline]
    pub fn started_us(&self) -> i64 {
        self.0.started_us.load(Ordering::Relaxed)
    }

    /// Micro-batch mode: rows at or before this time are late.
    #[inline]
    pub fn late_row_watermark_us(&self) -> i64 {
        self.0.late_us.load(Ordering::Relaxed)
    }

    /// Micro-batch mode: the end of the batch may evict state up to this time. Continuous mode: the
    /// watermark at the start of this run.
    #[inline]
    pub fn watermark_us(&self) -> i64 {
        self.0.watermark_us.load(Ordering::Relaxed)
    }

    /// Whether continuous mode is running a batch that micro-batch mode planned. The batch must
    /// emit the same results as the first time, so its own watermarks apply.
    #[inline]
    pub fn is_replay(&self) -> bool {
        self.0.replays.load(Ordering::Relaxed)
    }

    /// Micro-batch mode: requests a batch at a wall-clock time, even without new records. Call this
    /// before forwarding a marker, or when the query starts. The request holds until the next
    /// batch.
    pub fn request_batch_at(&self, at_us: i64) {
        self.0.wanted_us.fetch_min(at_us, Ordering::Relaxed);
    }

    /// Sets [`is_replay`](Self::is_replay).
    pub fn set_replays(&self, replays: bool) {
        self.0.replays.store(replays, Ordering::Relaxed);
    }

    /// Sets the wall-clock time of the batch.
    pub fn start(&self, started_us: i64) {
        self.0.started_us.store(started_us, Ordering::Relaxed);
    }

    fn set(&self, late_ms: i64, watermark_ms: i64) {
        self.0.late_us.store(late_ms.saturating_mul(1000), Ordering::Relaxed);
        self.0.watermark_us.store(watermark_ms.saturating_mul(1000), Ordering::Relaxed);
    }
}

/// Statistics of an event time in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTimeStats {
    /// Number of records.
    pub count: u64,
    /// The smallest event time, in microseconds since 1970. Meaningless if `count` is 0.
    pub min_us: i64,
    /// The largest event time, in microseconds since 1970.
    pub max_us: i64,
    /// The average event time, in microseconds since 1970.
    pub avg_us: i64,
    /// Out-of-order records only: the median distance to the largest event time before them, in
    /// microseconds.
    pub behind_p50_us: i64,
    /// Out-of-order records only: the 99th percentile of the distance, in microseconds.
    pub behind_p99_us: i64,
    /// Out-of-order records only: the largest distance, in microseconds.
    pub behind_max_us: i64,
    /// Number of out-of-order records.
    pub out_of_order: u64,
    /// Number of records dropped because they were too far ahead of the clock. No other field
    /// includes them.
    pub ahead_of_clock: u64,
}

impl EventTimeStats {
    /// Adds the statistics of another part of the input. Percentiles cannot be added, so each
    /// becomes the larger of the two values.
    fn add(&mut self, other: &Self) {
        let ahead = self.ahead_of_clock + other.ahead_of_clock;
        if self.count == 0 || other.count == 0 {
            if self.count == 0 {
                *self = *other;
            }
            self.ahead_of_clock = ahead;
            return;
        }
        self.ahead_of_clock = ahead;
        let sum = |times: &Self| i128::from(times.avg_us) * i128::from(times.count);
        let count = self.count + other.count;
        self.avg_us = ((sum(self) + sum(other)) / i128::from(count)) as i64;
        self.count = count;
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
        self.behind_p50_us = self.behind_p50_us.max(other.behind_p50_us);
        self.behind_p99_us = self.behind_p99_us.max(other.behind_p99_us);
        self.behind_max_us = self.behind_max_us.max(other.behind_max_us);
        self.out_of_order += other.out_of_order;
    }
}

#[derive(Debug)]
struct SeenInner {
    largest_us: AtomicI64,
    /// Continuous mode: the mark of the idle input or partition, whose watermark is ignored;
    /// [`ACTIVE`] if it is not idle.
    idle_mark: AtomicI64,
    epoch: Mutex<EventTimeStats>,
}

/// The connection through which an operator that declares an event time reports to the driver.
#[derive(Clone, Debug)]
pub struct EventTimeReporter(Arc<SeenInner>);

impl EventTimeReporter {
    /// Reports the largest event time so far, in microseconds since 1970. Call this before
    /// forwarding the marker.
    #[inline]
    pub fn publish(&self, largest_us: i64) {
        // ORDERING: relaxed: the acknowledgement of the marker orders this store before the
        // driver's read. `fetch_max` is used because the partitions of a source share a reporter.
        self.0.largest_us.fetch_max(largest_us, Ordering::Relaxed);
    }

    /// Continuous mode: reports that the input or partition is idle, by the mark
    /// [`IDLE`] or [`PARTITION_IDLE`](crate::event::PARTITION_IDLE); `None` if
    /// it is active.
    pub fn set_idle(&self, mark: Option<i64>) {
        // ORDERING: relaxed: the acknowledgement of the marker orders this store before the
        // driver's read.
        self.0.idle_mark.store(mark.unwrap_or(ACTIVE), Ordering::Relaxed);
    }

    /// Reports the statistics of an epoch. Call this before forwarding the epoch's marker.
    pub fn publish_epoch(&self, times: EventTimeStats) {
        self.0.epoch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(&times);
    }
}

/// The watermarks from which a run resumes.
pub struct ResumedTime {
    /// The watermark of the last committed epoch, in milliseconds since 1970.
    pub last_ms: i64,
    /// The watermark of the epoch after it, in milliseconds since 1970.
    pub next_ms: i64,
    /// Whether results that the last watermark releases may still have to be emitted.
    pub owes_late_emission: bool,
}

/// The driver's view of event time: computes the watermark of the query.
#[derive(Debug, Default)]
pub struct WatermarkTracker {
    times: BatchTimes,
    policy: WatermarkPolicy,
    inputs: Vec<Input>,
    /// Whether an operator evicts state or emits rows when the watermark advances.
    releases: bool,
    /// Whether batches without new records are disabled.
    only_batches_with_data: bool,
    /// The watermark of the last batch.
    last_ms: i64,
    /// The watermark of the next batch.
    next_ms: i64,
    /// Whether results that the watermark of the previous run releases may still have to be
    /// emitted.
    owes_late_emission: bool,
}

#[derive(Debug)]
struct Input {
    /// The source whose partition this is. The partitions of a source are adjacent.
    source: usize,
    delay_ms: i64,
    seen: Arc<SeenInner>,
    /// The input's watermark; `None` before the end of the first epoch of this run.
    watermark_ms: Option<i64>,
}

impl Input {
    fn idle_mark(&self) -> i64 {
        self.seen.idle_mark.load(Ordering::Relaxed)
    }
}

/// Returns the watermark of a source, and whether the source is idle, so that it does not hold back
/// other sources. The watermark is the smallest of the active partitions; if all are idle, the
/// largest.
fn combined(partitions: &[Input]) -> (Option<i64>, bool) {
    let active = partitions.iter().filter(|input| !is_idle(input.idle_mark()));
    let smallest = active.filter_map(|input| input.watermark_ms).min();
    let largest = partitions.iter().filter_map(|input| input.watermark_ms).max();
    let silent = partitions.iter().all(|input| input.idle_mark() == IDLE);
    (smallest.or(largest), silent)
}

impl WatermarkTracker {
    /// The times of the current batch, shared with the operators.
    pub fn times(&self) -> BatchTimes {
        self.times.clone()
    }

    /// Sets how the watermarks of several inputs are combined.
    pub fn set_policy(&mut self, policy: WatermarkPolicy) {
        self.policy = policy;
    }

    /// How the watermarks of several inputs are combined.
    pub fn policy(&self) -> WatermarkPolicy {
        self.policy
    }

    /// Registers that an operator evicts state or emits rows when the watermark advances.
    pub fn request_no_data_batches(&mut self) {
        self.releases = true;
    }

    /// Disables batches without new records. Rows that the watermark or a timer releases are then
    /// emitted by the next batch that has records.
    pub fn disable_no_data_batches(&mut self) {
        self.only_batches_with_data = true;
    }

    /// Whether an operator evicts state or emits rows when the watermark advances.
    pub fn wants_no_data_batches(&self) -> bool {
        self.releases
    }

    /// Adds an input. Its watermark is the largest event time minus `delay_ms`.
    pub fn input(&mut self, delay_ms: i64) -> EventTimeReporter {
        let source = self.inputs.last().map_or(0, |last| last.source + 1);
        self.add(source, delay_ms)
    }

    /// Adds a partition, with a watermark of its own, to the last input.
    pub fn partition(&mut self, delay_ms: i64) -> EventTimeReporter {
        let source = self.inputs.last().map_or(0, |last| last.source);
        self.add(source, delay_ms)
    }

    fn add(&mut self, source: usize, delay_ms: i64) -> EventTimeReporter {
        let seen = Arc::new(SeenInner {
            largest_us: AtomicI64::new(UNSEEN),
            idle_mark: AtomicI64::new(ACTIVE),
            epoch: Mutex::new(EventTimeStats::default()),
        });
        self.inputs.push(Input { source, delay_ms, seen: seen.clone(), watermark_ms: None });
        EventTimeReporter(seen)
    }

    /// Resumes from an earlier run.
    pub fn resume(&mut self, resumed: ResumedTime) {
        let ResumedTime { last_ms, next_ms, owes_late_emission } = resumed;
        (self.last_ms, self.next_ms, self.owes_late_emission) =
            (last_ms, next_ms, owes_late_emission);
        self.times.set(last_ms, next_ms);
    }

    /// The number of inputs and partitions.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Which side of a join holds back the watermark. `sides` has the inputs of each side.
    pub(crate) fn holder(&self, sides: &[Range<usize>; 2]) -> WatermarkHolder {
        if self.policy == WatermarkPolicy::Max {
            return WatermarkHolder::None;
        }
        let of_side = |side: &Range<usize>| {
            let inputs = self.inputs.get(side.clone()).unwrap_or_default();
            let sources = inputs.chunk_by(|a, b| a.source == b.source).map(combined);
            sources.filter(|(_, silent)| !silent).filter_map(|(watermark_ms, _)| watermark_ms).min()
        };
        match (of_side(&sides[0]), of_side(&sides[1])) {
            (Some(left), Some(right)) => match left.cmp(&right) {
                std::cmp::Ordering::Less => WatermarkHolder::Input(0),
                std::cmp::Ordering::Greater => WatermarkHolder::Input(1),
                std::cmp::Ordering::Equal => WatermarkHolder::Both,
            },
            _ => WatermarkHolder::None,
        }
    }

    /// Takes the statistics of each input in the epoch that has ended, and resets them.
    pub fn seen(&self) -> Vec<EventTimeStats> {
        let of = |input: &Input| {
            std::mem::take(&mut *input.seen.epoch.lock().unwrap_or_else(|p| p.into_inner()))
        };
        self.inputs.iter().map(of).collect()
    }

    /// The watermark of the last batch, in milliseconds since 1970.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// The watermark of the next batch or epoch, in milliseconds since 1970.
    pub fn next_ms(&self) -> i64 {
        self.next_ms
    }

    /// Whether a batch without new records is needed at a wall-clock time (Spark's no-data batch).
    pub fn is_batch_due(&self, now_us: i64) -> bool {
        if self.only_batches_with_data {
            return false;
        }
        let wanted_us = self.times.0.wanted_us.load(Ordering::Relaxed);
        self.releases && (self.next_ms > self.last_ms || self.owes_late_emission)
            || now_us >= wanted_us
    }

    /// Starts a batch. Its wall-clock time and watermark may come from an earlier run.
    pub fn begin(&mut self, timestamp_ms: i64, watermark_ms: i64) {
        self.times.start(timestamp_ms.saturating_mul(1000));
        self.times.0.wanted_us.store(NEVER, Ordering::Relaxed);
        self.times.set(self.last_ms, watermark_ms);
        self.owes_late_emission = false;
        self.last_ms = watermark_ms;
        self.next_ms = self.next_ms.max(watermark_ms);
    }

    /// Ends a batch or an epoch. Its event times count for the next watermark, which never moves
    /// back. Idle inputs are ignored unless all are idle.
    pub fn end(&mut self) {
        for input in &mut self.inputs {
            let seen_us = input.seen.largest_us.load(Ordering::Relaxed);
            let own = if seen_us == UNSEEN {
                None
            } else {
                Some(seen_us.div_euclid(1000).saturating_sub(input.delay_ms))
            };
            // An input that has had no record yet has the watermark 0. With policy `Min` the
            // query's watermark then does not advance, unless the input is idle.
            let before = input.watermark_ms;
            input.watermark_ms = own.max(before).or(Some(0));
        }
        let sources = || self.inputs.chunk_by(|a, b| a.source == b.source).map(combined);
        let all_silent = sources().all(|(_, silent)| silent);
        let counting = sources().filter(|(_, silent)| all_silent || !silent);
        let of_inputs = counting.filter_map(|(watermark_ms, _)| watermark_ms);
        let found = match self.policy {
            // If all inputs are idle, the largest watermark counts, as if the input that is
            // furthest ahead had become idle last.
            _ if all_silent => of_inputs.max(),
            WatermarkPolicy::Min => of_inputs.min(),
            WatermarkPolicy::Max => of_inputs.max(),
        };
        self.next_ms = found.map_or(self.next_ms, |found| found.max(self.next_ms));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::event::PARTITION_IDLE;

    #[test]
    fn no_batch_is_due_without_records_if_such_batches_are_disabled() {
        let mut time = WatermarkTracker::default();
        time.request_no_data_batches();
        time.disable_no_data_batches();
        let (seen, times) = (time.input(0), time.times());
        time.begin(7, time.next_ms());
        seen.publish(100_000);
        time.end();
        times.request_batch_at(8_000);
        assert!(time.next_ms() > time.last_ms() && !time.is_batch_due(9_000));
    }

    #[test]
    fn a_batch_has_its_own_and_the_previous_watermark() {
        let mut time = WatermarkTracker::default();
        time.request_no_data_batches();
        let (seen, times) = (time.input(10), time.times());
        time.begin(7, time.next_ms());
        seen.publish(100_000);
        assert!(!time.is_batch_due(0));
        time.end();
        assert_eq!((time.next_ms(), times.watermark_us(), times.started_us()), (90, 0, 7000));
        assert!(time.is_batch_due(0));
        time.begin(8, time.next_ms());
        assert_eq!((times.late_row_watermark_us(), times.watermark_us()), (0, 90_000));
        time.end();
        assert!(!time.is_batch_due(0));
        time.begin(9, time.next_ms());
        assert_eq!((times.late_row_watermark_us(), times.watermark_us()), (90_000, 90_000));
        times.request_batch_at(7_000);
        times.request_batch_at(8_000);
        assert!(time.is_batch_due(7_000) && !time.is_batch_due(6_999));
        time.begin(9, time.next_ms());
        assert!(!time.is_batch_due(9_000));
        time.resume(ResumedTime { last_ms: 90, next_ms: 90, owes_late_emission: true });
        assert!(
            time.is_batch_due(0),
            "windows of an epoch of continuous mode may be still to come"
        );
        time.begin(10, time.next_ms());
        assert_eq!((times.late_row_watermark_us(), times.watermark_us()), (90_000, 90_000));
        time.end();
        assert!(!time.is_batch_due(0));
    }

    #[test]
    fn the_policy_takes_the_smallest_or_the_largest_watermark() {
        for (policy, wanted) in
            [(WatermarkPolicy::Min, [0, 5, 5]), (WatermarkPolicy::Max, [50, 50, 50])]
        {
            let mut time = WatermarkTracker::default();
            time.set_policy(policy);
            let (a, b) = (time.input(0), time.input(0));
            let mut end = |a_us: Option<i64>, b_us: Option<i64>| {
                a_us.into_iter().for_each(|us| a.publish(us));
                b_us.into_iter().for_each(|us| b.publish(us));
                time.end();
                time.next_ms()
            };
            let got = [end(Some(50_000), None), end(None, Some(5_000)), end(Some(1_000), None)];
            assert_eq!(got, wanted);
        }
    }

    #[test]
    fn an_idle_input_does_not_hold_the_watermark_back() {
        let mut time = WatermarkTracker::default();
        let (a, b) = (time.input(0), time.input(0));
        let mut end = |a_us: i64, b_silent: bool| {
            a.publish(a_us);
            b.set_idle(b_silent.then_some(IDLE));
            time.end();
            time.next_ms()
        };
        assert_eq!([end(10_000, false), end(20_000, true), end(30_000, false)], [0, 20, 20]);
        a.set_idle(Some(IDLE));
        b.set_idle(Some(IDLE));
        time.end();
        assert_eq!(time.next_ms(), 30, "nobody speaks");
    }

    /// A source whose partitions are all idle holds back other sources until it is idle itself.
    #[test]
    fn an_idle_partition_is_ignored_only_beside_its_siblings() {
        for policy in [WatermarkPolicy::Min, WatermarkPolicy::Max] {
            let mut time = WatermarkTracker::default();
            time.set_policy(policy);
            let (a, b, other) = (time.input(0), time.partition(0), time.input(0));
            for (of, us) in [(&a, 30_000), (&b, 10_000), (&other, 20_000)] {
                of.publish(us);
            }
            let mut end = || {
                time.end();
                time.next_ms()
            };
            let (first, of_source) =
                if policy == WatermarkPolicy::Min { (10, 20) } else { (20, 30) };
            assert_eq!(end(), first, "the slowest partition counts");
            b.set_idle(Some(PARTITION_IDLE));
            assert_eq!(end(), of_source);
            a.set_idle(Some(PARTITION_IDLE));
            other.publish(90_000);
            assert_eq!(end(), if policy == WatermarkPolicy::Min { 30 } else { 90 });
            [&a, &b].iter().for_each(|of| of.set_idle(Some(IDLE)));
            assert_eq!(end(), 90);
        }
    }

    #[test]
    fn statistics_of_the_partitions_of_an_input_are_summed() {
        let mut time = WatermarkTracker::default();
        let one = time.input(0);
        let other = one.clone();
        one.publish(7_000);
        other.publish(5_000);
        let times = |count, min_us, max_us, avg_us| EventTimeStats {
            count,
            min_us,
            max_us,
            avg_us,
            ..EventTimeStats::default()
        };
        one.publish_epoch(times(3, 10, 20, 14));
        other.publish_epoch(EventTimeStats::default());
        other.publish_epoch(times(1, 2, 18, 18));
        one.publish_epoch(EventTimeStats { ahead_of_clock: 2, ..EventTimeStats::default() });
        other.publish_epoch(EventTimeStats { ahead_of_clock: 1, ..EventTimeStats::default() });
        assert_eq!(time.seen(), [EventTimeStats { ahead_of_clock: 3, ..times(4, 2, 20, 15) }]);
        assert_eq!(time.seen(), [EventTimeStats::default()]);
        time.end();
        assert_eq!(time.next_ms(), 7);
    }

    #[test]
    fn a_restart_continues_at_its_watermark_and_waits_for_all_inputs() {
        let mut time = WatermarkTracker::default();
        let (a, b) = (time.input(0), time.input(0));
        time.resume(ResumedTime { last_ms: 30, next_ms: 40, owes_late_emission: false });
        a.publish(90_000);
        time.end();
        assert_eq!(time.next_ms(), 40);
        b.publish(60_000);
        time.end();
        assert_eq!(time.next_ms(), 60);
    }
}
