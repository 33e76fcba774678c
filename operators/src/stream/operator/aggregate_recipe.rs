//! The recipe of a running aggregate.

use crate::stream::keyed_exchange::{keyed, keyed_workers};
use crate::stream::keyed_state::StateBackend;
use crate::stream::operator::aggregate::{Aggregate, Running};
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::checkpoint::key_group::{hash_key, instance_of};
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use std::hash::Hash;
use std::marker::PhantomData;

pub(in crate::stream) struct AggregateRecipe<R, F, K, A, C> {
    pub up: R,
    pub key: F,
    pub aggregate: A,
    pub types: PhantomData<fn() -> (K, C)>,
}

impl<R, F, K, A, C> Recipe for AggregateRecipe<R, F, K, A, C>
where
    R: Recipe,
    K: Hash + Eq + Clone + Send + 'static,
    F: FnMut(&R::Item) -> K + Clone + Send + 'static,
    A: Aggregate<R::Item>,
    C: StateBackend<K, A::State>,
{
    type Item = (K, A::Output);
    fn build<D: Push<(K, A::Output)> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let (mut key, aggregate) = (self.key, self.aggregate);
        let instances = keyed_workers(&self.up, job, parallelism).len();
        let states = C::states(job, instances).into_iter().enumerate();
        let stage = |(i, states)| Running::new(aggregate.clone(), states, chain(job, i));
        let stages = states.map(stage).collect();
        let pair = move |item: R::Item| (key(&item), item);
        let route = |(key, _): &(K, R::Item), lanes: usize| instance_of(hash_key(key), lanes);
        keyed(self.up, job, parallelism, "aggregate", pair, route, stages);
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        keyed_workers(&self.up, job, parallelism)
    }
    fn watermark_lag_us(&self) -> i64 {
        self.up.watermark_lag_us()
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        C::describe(kept, std::any::type_name::<A>());
        self.up.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.up.has_event_time()
    }
}
