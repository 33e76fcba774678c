//! A stream as a recipe. Given the chain that follows the stream, a recipe adds both to a job.

use crate::event_time::watermark::MakeEventTimeFn;
use millstream_engine::checkpoint::QueryDescription;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;

/// Builds a stream and the chain that follows it, and assigns their tasklets to workers.
///
/// `chain` creates the chain of one instance and is called once per instance.
pub trait Recipe: 'static {
    /// The type of the records.
    type Item: Send + 'static;
    /// Adds the tasklets to `job`.
    fn build<D: Push<Self::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    );
    /// The worker of each instance of the chain that follows this stream.
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize>;
    /// Adds the stream's sources and operators to the checkpoint manifest, in the order in which
    /// [`build`](Self::build) creates operators.
    fn describe(&self, kept: &mut CheckpointManifest);
    /// Whether an event time was declared upstream, so that there is a watermark.
    fn has_event_time(&self) -> bool;
    /// The event time of the records; `None` if it is not known, for example after `map`.
    fn event_time(&self) -> Option<MakeEventTimeFn<Self::Item>> {
        None
    }
    /// How far event times of later records may be behind the watermark that arrives with them, in
    /// microseconds. A join releases rows that are older than the watermark.
    fn watermark_lag_us(&self) -> i64 {
        0
    }
}

/// The checkpoint manifest of a flow: what its checkpoint depends on.
#[derive(Default)]
pub struct CheckpointManifest {
    pub(in crate::stream) shape: QueryDescription,
    /// Whether an aggregate keeps its state only in memory.
    pub(in crate::stream) has_unpersisted_state: bool,
    /// Why an operator cannot be started.
    pub(in crate::stream) refused: Option<EngineError>,
}

impl CheckpointManifest {
    /// Adds a source.
    pub(crate) fn add_source(&mut self, description: &str) {
        self.shape.sources.push(description.to_string());
    }
}

/// Implements the properties of a stream by forwarding to the stream in a field.
macro_rules! pass_properties {
    ($up:ident) => {
        fn watermark_lag_us(&self) -> i64 {
            self.$up.watermark_lag_us()
        }
        fn describe(&self, kept: &mut $crate::stream::recipe::CheckpointManifest) {
            self.$up.describe(kept);
        }
        fn has_event_time(&self) -> bool {
            self.$up.has_event_time()
        }
    };
}
pub(in crate::stream) use pass_properties;
