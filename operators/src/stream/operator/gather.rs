//! Merges the instances of a stream into one.

use crate::stream::recipe::{Recipe, pass_properties};
use millstream_engine::runtime::exchange::Exchange;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::InboxTasklet;

/// The worker of a merged stream.
pub(in crate::stream) const MERGED_PLACE: usize = 0;

/// Merges all instances into one.
pub(in crate::stream) struct GatherRecipe<R> {
    pub up: R,
}

impl<R: Recipe> Recipe for GatherRecipe<R> {
    type Item = R::Item;
    fn build<D: Push<R::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let down = chain(job, MERGED_PLACE);
        let inlets = into_rings(self.up, job, parallelism, MERGED_PLACE);
        let port = job.tasklet_port();
        job.add_tasklet(
            MERGED_PLACE,
            Box::new(InboxTasklet::new(port, "gather".to_string(), inlets, down)),
        );
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![MERGED_PLACE]
    }
    pass_properties!(up);
}

/// Routes every item to lane 0, for exchanges with one consumer.
fn only_lane<T>(_item: &T, _lanes: usize) -> usize {
    0
}

/// Connects each instance of `up` to worker `consumer` by a ring. Returns the consuming ends.
pub(in crate::stream) fn into_rings<R: Recipe>(
    up: R,
    job: &mut Job,
    parallelism: usize,
    consumer: usize,
) -> Vec<millstream_engine::runtime::exchange::Inlet<R::Item>> {
    let places = up.places(job, parallelism);
    let (outboxes, inlets) = job.rings(&places, &[consumer]);
    let mut outboxes = outboxes.into_iter();
    up.build(job, parallelism, &mut |_, _| match outboxes.next() {
        Some(outbox) => Exchange::new(outbox, only_lane::<R::Item>),
        None => unreachable!("a recipe makes one chain per instance"),
    });
    inlets.into_iter().flatten().collect()
}
