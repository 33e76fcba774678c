//! What travels through rings, in order.

/// The number of an epoch, the unit of commit. The first epoch of a query is 0.
pub type Epoch = u64;

/// The ingest time of a row that answers no record, such as a row of a whole table that did not
/// change: its latency means nothing and is not recorded.
pub const UNTIMED: u64 = u64::MAX;

/// The watermark of an input that has been silent for long: it holds no other back. The next one
/// of it counts again.
pub const IDLE: i64 = i64::MAX;

/// A value with the time at which it entered the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// The value.
    pub value: T,
    /// Ingest time on the query's monotonic clock, in nanoseconds; for a replay, intended time.
    pub ingest_ns: u64,
}

/// A record, or a control event in its place among the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// Data.
    Record(Record<T>),
    /// No record behind this one is older than this event time (microseconds since 1970), unless
    /// it is late.
    Watermark(i64),
    /// Everything before this belongs to the epoch or an earlier one, everything behind to a
    /// later one.
    Marker(Epoch),
    /// Nothing follows.
    End,
}
