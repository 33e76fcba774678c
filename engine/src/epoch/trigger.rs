//! The trigger of a query: when its epochs happen.

/// The points in time at which epochs start and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Records flow at once; epochs are committed at an interval.
    Continuous {
        /// The usual time between two markers, in nanoseconds.
        interval_ns: u64,
    },
    /// A batch starts as soon as the last one has ended and there is new data, or an operator needs
    /// a batch.
    AsSoonAsPossible,
    /// New data is looked for at the start, at multiples of an interval on the wall clock (in UTC,
    /// since 1970), and when a caller waits for all available data. A batch starts if there is any,
    /// or if an operator needs one.
    ProcessingTime {
        /// The interval, in nanoseconds.
        interval_ns: u64,
    },
    /// One batch of all available data, then the query ends. If the last run left a micro-batch
    /// unfinished, only that batch runs.
    Once,
    /// All data available at start, in as many batches as the rate limits require, then the query
    /// ends.
    AvailableNow,
}

impl Trigger {
    /// Whether records flow without waiting for a batch (continuous mode).
    pub fn is_continuous(self) -> bool {
        matches!(self, Self::Continuous { .. })
    }
}
