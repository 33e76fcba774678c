//! The recipe of a channel's stream.

use crate::stream::channel::{ChannelSource, Receiver};
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::SourceTasklet;

pub(in crate::stream) struct FromChannel<T> {
    pub from: Receiver<T>,
}

impl<T: Send + 'static> Recipe for FromChannel<T> {
    type Item = T;
    fn build<D: Push<T> + 'static>(
        self,
        job: &mut Job,
        _parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let down = chain(job, 0);
        if let Some(Ok(committed)) = job.resumed_offset().map(|at| at.number()) {
            self.from.resume(committed);
        }
        let source = ChannelSource::new(self.from, job.env());
        let port = job.source_port(0);
        job.add_tasklet(0, Box::new(SourceTasklet::new(port, source, down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        kept.add_source("channel");
    }
    fn has_event_time(&self) -> bool {
        false
    }
}
