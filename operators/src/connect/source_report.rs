//! Source-specific entries of progress reports.

use serde_json::Value as Json;

/// The source-specific entries of a progress report.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// The source's description.
    pub description: String,
    /// The latest offset that is available to the source.
    pub latest_offset: String,
    /// The source's metrics: a JSON object of strings.
    pub metrics: Json,
}

/// A source with more to report than its offsets. Called on the driver's thread.
pub trait SourceProgress: Send + Sync {
    /// Reports about an epoch that ended at this offset.
    fn report(&self, end: &str) -> SourceReport;
}
