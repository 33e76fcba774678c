//! The ends of typed streams: functions and channels.

use crate::stream::channel::{ChannelSink, OutputParts};
use crate::stream::operator::gather::GatherRecipe;
use crate::stream::operator::stateless::Call;
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::env::Env;
use millstream_engine::measure::latency::Latency;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use std::sync::Arc;

/// The end of a stream: a function or an output.
pub trait Sink<T>: 'static {
    /// The last stage of the chain.
    type Stage: Push<T> + 'static;
    /// Creates the stage of one instance. There is one instance unless the sink is parallel.
    fn stage(&mut self, latency: &Latency, env: Arc<dyn Env>) -> Self::Stage;
    /// Whether every instance of the chain may have a sink stage of its own.
    fn is_parallel(&self) -> bool;
}

impl<T, F: FnMut(T) + Clone + Send + 'static> Sink<T> for F {
    type Stage = Call<F>;
    fn stage(&mut self, latency: &Latency, env: Arc<dyn Env>) -> Call<F> {
        Call { f: self.clone(), latency: latency.recorder(env) }
    }
    fn is_parallel(&self) -> bool {
        true
    }
}

/// The parts of a channel sink until its single stage is created.
pub(in crate::stream) struct ChannelSinkParts<T>(pub Option<OutputParts<T>>);

impl<T: Send + 'static> Sink<T> for ChannelSinkParts<T> {
    type Stage = ChannelSink<T>;
    fn stage(&mut self, latency: &Latency, env: Arc<dyn Env>) -> ChannelSink<T> {
        let Some(parts) = self.0.take() else { unreachable!("a channel sink has one instance") };
        parts.stage(latency.recorder(env))
    }
    fn is_parallel(&self) -> bool {
        false
    }
}

/// A stream that ends in a sink.
pub(in crate::stream) trait SinkChain {
    fn describe(&self, kept: &mut CheckpointManifest);
    fn build(self: Box<Self>, job: &mut Job, parallelism: usize, latency: &Latency);
}

pub(in crate::stream) struct StreamWithSink<R, S> {
    pub recipe: R,
    pub sink: S,
}

impl<R: Recipe, S: Sink<R::Item>> SinkChain for StreamWithSink<R, S> {
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.recipe.describe(kept);
    }
    fn build(self: Box<Self>, job: &mut Job, parallelism: usize, latency: &Latency) {
        let Self { recipe, mut sink } = *self;
        if sink.is_parallel() || recipe.places(job, parallelism).len() == 1 {
            recipe.build(job, parallelism, &mut |job, _| sink.stage(latency, job.env()));
        } else {
            let gather = GatherRecipe { up: recipe };
            gather.build(job, parallelism, &mut |job, _| sink.stage(latency, job.env()));
        }
    }
}
