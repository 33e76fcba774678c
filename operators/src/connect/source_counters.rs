//! The counters of a source, for progress reports.

use crate::connect::bad_records::BadRecords;
use crate::connect::socket::connection_counts::{ConnectionCounts, ConnectionTotals};
use crate::connect::source_report::SourceProgress;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The counters of a source, shared with the driver for progress reports.
#[derive(Clone, Default)]
pub struct SourceCounters {
    /// Number of emitted records.
    pub records: Arc<AtomicU64>,
    /// The bad records of the source.
    pub bad: BadRecords,
    /// Number of paths that were skipped and reported, such as broken links.
    pub skipped_paths: Arc<AtomicU64>,
    /// The connection counters of a socket source; `None` for other sources.
    pub connections: Option<Arc<ConnectionCounts>>,
    /// Reports more than the offset; `None` for a source that has no more to report.
    pub progress: Option<Arc<dyn SourceProgress>>,
}

impl SourceCounters {
    /// The connection counters of a socket source at this moment; `None` for other sources.
    pub fn connections(&self) -> Option<ConnectionTotals> {
        self.connections.as_ref().map(|counts| counts.totals())
    }
}
