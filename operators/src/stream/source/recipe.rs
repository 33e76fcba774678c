//! The recipes of sources that read one iterator, or one iterator per partition.

use crate::stream::recipe::{CheckpointManifest, Recipe};
use crate::stream::source::iterator::IteratorSource;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::SourceTasklet;

pub(in crate::stream) struct FromItems<I>(pub I);

impl<I: Iterator<Item: Send> + Send + 'static> Recipe for FromItems<I> {
    type Item = I::Item;
    fn build<D: Push<I::Item> + 'static>(
        self,
        job: &mut Job,
        _parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let down = chain(job, 0);
        let port = job.source_port(0);
        job.add_tasklet(0, Box::new(SourceTasklet::new(port, IteratorSource::new(self.0), down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        kept.add_source("items");
    }
    fn has_event_time(&self) -> bool {
        false
    }
}

pub(in crate::stream) struct FromParts<M> {
    pub parts: usize,
    pub part: M,
}

impl<I, M> Recipe for FromParts<M>
where
    I: Iterator<Item: Send> + Send + 'static,
    M: Fn(usize) -> I + 'static,
{
    type Item = I::Item;
    fn build<D: Push<I::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        for (number, worker) in self.places(job, parallelism).into_iter().enumerate() {
            let down = chain(job, number);
            let port = job.source_port(worker);
            let source = IteratorSource::new((self.part)(number));
            job.add_tasklet(worker, Box::new(SourceTasklet::new(port, source, down)));
        }
    }
    fn places(&self, job: &Job, _parallelism: usize) -> Vec<usize> {
        (0..self.parts).map(|number| number % job.workers()).collect()
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        let part = |number| format!("items, part {number} of {}", self.parts);
        kept.shape.sources.extend((0..self.parts).map(part));
    }
    fn has_event_time(&self) -> bool {
        false
    }
}
