//! A committed epoch, as the driver reports it: offsets, durations, metrics.

use crate::checkpoint::offset::Offset;
use crate::epoch::event_time::EventTimeStats;
use crate::event::Epoch;
use crate::measure::operator_state::OperatorState;

/// A committed epoch.
#[derive(Clone, Debug)]
pub struct CommittedEpoch {
    /// The number of the epoch.
    pub epoch: Epoch,
    /// Wall-clock time at which the planned batch was started or the markers were requested, in
    /// microseconds since 1970.
    pub started_us: i64,
    /// Position of each source at the start of the epoch.
    pub starts: Vec<Offset>,
    /// Position of each source at the end of the epoch.
    pub offsets: Vec<Offset>,
    /// Number of records read from each source in the epoch.
    pub records: Vec<u64>,
    /// Time to plan the batch (the sources report how far they can read), in nanoseconds; 0 in
    /// continuous mode.
    pub plan_ns: u64,
    /// Time from the command to the last acknowledgement of the marker, in nanoseconds. For a batch
    /// this includes the processing of its records.
    pub marker_ns: u64,
    /// Time to write the offset log, in nanoseconds.
    pub wal_ns: u64,
    /// Time to make state and staged output durable, commit the sink and write the commit log, in
    /// nanoseconds.
    pub commit_ns: u64,
    /// Time until the commit, in nanoseconds: from the start of planning or, in continuous mode,
    /// from the request of the markers.
    pub duration_ns: u64,
    /// Metrics of each stateful operator.
    pub state: Vec<OperatorState>,
    /// The watermark of the batch, in milliseconds since 1970. In continuous mode, where the
    /// watermark moves within an epoch, its value at the end.
    pub batch_watermark_ms: i64,
    /// The watermark for the next epoch, in milliseconds since 1970; 0 before any event time.
    pub watermark_ms: i64,
    /// Statistics of each event time in the epoch.
    pub event_times: Vec<EventTimeStats>,
}
