//! The events that travel through rings, in order.

/// The number of an epoch, the unit of commit. The first epoch of a query is 0.
pub type Epoch = u64;

/// The ingest time of a row that no single record caused, such as an unchanged row of a whole
/// result table. Its latency is not recorded.
pub const UNTIMED: u64 = u64::MAX;

/// The watermark of an idle input, which is ignored when watermarks are combined, unless all inputs
/// are idle. Any later watermark of the input counts again.
pub const IDLE: i64 = i64::MAX;

/// The watermark of an idle partition of a source. It is ignored while another partition of the
/// source is active. If all are idle, the source's watermark is the largest of their watermarks.
pub const PARTITION_IDLE: i64 = i64::MAX - 1;

/// Whether a watermark is a mark of idleness, not a time: [`IDLE`] or [`PARTITION_IDLE`].
#[inline]
pub fn is_idle(watermark_us: i64) -> bool {
    watermark_us >= PARTITION_IDLE
}

/// A value with the time at which it entered the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// The value that the record carries.
    pub value: T,
    /// Ingest time on the query's monotonic clock, in nanoseconds. In a replay it is the intended
    /// time.
    pub ingest_ns: u64,
}

/// A record or a control event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// A record with its ingest time.
    Record(Record<T>),
    /// Event time has advanced to this time, in microseconds since 1970. Later records with an
    /// earlier or equal event time may be late. [`IDLE`] says that the input is idle,
    /// [`PARTITION_IDLE`] that a partition of it is.
    Watermark(i64),
    /// The end of an epoch: everything before it belongs to this epoch or an earlier one,
    /// everything after it to a later one.
    Marker(Epoch),
    /// The end of the stream: no event follows.
    End,
}
