//! The recipe of a processor.

use crate::event_time::watermark::MakeEventTimeFn;
use crate::stream::keyed_input::KeyedInput;
use crate::stream::operator::process::{Process, Processor, ProcessorParts, Typed};
use crate::stream::processor_state::States;
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::checkpoint::StateLayout;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use std::sync::Arc;

/// Builds the instances of a processor after its inputs.
pub(in crate::stream) struct ProcessRecipe<I, P> {
    pub input: I,
    pub name: String,
    pub states: Arc<States>,
    pub processor: P,
}

impl<I, P> Recipe for ProcessRecipe<I, P>
where
    I: KeyedInput,
    P: Processor<I::Key, I::Item>,
{
    type Item = P::Output;
    fn build<D: Push<P::Output> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let Self { input, name, states, processor } = self;
        let (timed, time) = (input.has_event_time(), input.event_time());
        if timed {
            job.request_no_data_batches();
        }
        let logs = job.operator(input.workers(job, parallelism).len());
        let stages = logs.into_iter().enumerate().map(|(i, log)| {
            let down = chain(job, i);
            let parts = ProcessorParts {
                states: states.clone(),
                times: job.times(),
                continuous: job.trigger().is_continuous(),
                timed,
                lag_us: input.watermark_lag_us(),
                defers_timers: false,
                env: job.env(),
                log,
            };
            Typed(Process::new(processor.clone(), parts, down), time.as_ref().map(|make| make()))
        });
        let stages = stages.collect();
        input.build(job, parallelism, &name, stages);
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.input.workers(job, parallelism)
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        let Self { name, states, .. } = self;
        kept.shape.operators.push(format!("process {name}: {}", states.description()));
        kept.shape.layouts.push(StateLayout::default());
        self.input.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.input.has_event_time()
    }
    fn event_time(&self) -> Option<MakeEventTimeFn<P::Output>> {
        None
    }
    fn watermark_lag_us(&self) -> i64 {
        self.input.watermark_lag_us()
    }
}
