//! What a source adds to progress reports.

use serde_json::Value as Json;

/// What a source adds to a progress report.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// Its description.
    pub description: String,
    /// The latest offset that there is.
    pub latest_offset: String,
    /// Numbers of the source, as texts.
    pub metrics: Json,
}

/// A source with more to report than its offsets. Called on the driver's thread.
pub trait SourceProgress: Send + Sync {
    /// Reports about an epoch that ended at this offset.
    fn report(&self, end: &str) -> SourceReport;
}
