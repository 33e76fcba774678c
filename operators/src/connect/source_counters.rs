//! What a source counts for progress reports.

use crate::connect::bad_records::BadRecords;
use crate::connect::socket::connection_counts::{ConnectionCounts, ConnectionTotals};
use crate::connect::source_report::SourceProgress;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Counters of a source for progress reports.
#[derive(Clone, Default)]
pub struct SourceCounters {
    /// Records emitted.
    pub records: Arc<AtomicU64>,
    /// Bad records.
    pub bad: BadRecords,
    /// Number of skipped paths: neither files nor folders, or broken links.
    pub skipped_paths: Arc<AtomicU64>,
    /// Of a socket source: its connections.
    pub connections: Option<Arc<ConnectionCounts>>,
    /// Of a source with more to report than its offsets.
    pub progress: Option<Arc<dyn SourceProgress>>,
}

impl SourceCounters {
    /// Of a socket source: its connections now.
    pub fn connections(&self) -> Option<ConnectionTotals> {
        self.connections.as_ref().map(|counts| counts.totals())
    }
}
