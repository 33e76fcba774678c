//! The recipe of the union of two streams.

use crate::event_time::watermark::MakeEventTimeFn;
use crate::stream::operator::gather::into_rings;
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::InboxTasklet;

pub(in crate::stream) struct UnionRecipe<L, R> {
    pub left: L,
    pub right: R,
}

impl<L: Recipe, R: Recipe<Item = L::Item>> Recipe for UnionRecipe<L, R> {
    type Item = L::Item;
    fn build<D: Push<L::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let (left_timed, right_timed) = (self.left.has_event_time(), self.right.has_event_time());
        // The chain is built first: operators are numbered from the sinks on.
        let down = chain(job, 0);
        let mut inlets = into_rings(self.left, job, parallelism, 0);
        let of_left = (inlets.len(), left_timed);
        inlets.extend(into_rings(self.right, job, parallelism, 0));
        let timed = [of_left, (inlets.len() - of_left.0, right_timed)];
        let port = job.tasklet_port();
        let inbox = InboxTasklet::new(port, "union".to_string(), inlets, down);
        let inbox = inbox.watermarks(job.watermark_policy(), &timed);
        job.add_tasklet(0, Box::new(inbox));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
    fn watermark_lag_us(&self) -> i64 {
        self.left.watermark_lag_us().max(self.right.watermark_lag_us())
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.left.describe(kept);
        self.right.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.left.has_event_time() || self.right.has_event_time()
    }
    fn event_time(&self) -> Option<MakeEventTimeFn<L::Item>> {
        // The event time of a union is that of its first stream, as in Spark.
        self.left.event_time()
    }
}
