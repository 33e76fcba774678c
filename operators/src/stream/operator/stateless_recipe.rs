//! The recipes of `map`, `filter` and `flat_map`.

use crate::event_time::watermark::MakeEventTimeFn;
use crate::stream::operator::stateless::{Filter, FlatMap, Map};
use crate::stream::recipe::{Recipe, pass_properties};
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use std::marker::PhantomData;

pub(in crate::stream) struct MapRecipe<R, F, U> {
    pub up: R,
    pub f: F,
    pub item: PhantomData<fn() -> U>,
}

impl<R, U, F> Recipe for MapRecipe<R, F, U>
where
    R: Recipe,
    U: Send + 'static,
    F: FnMut(R::Item) -> U + Clone + Send + 'static,
{
    type Item = U;
    fn build<D: Push<U> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let f = self.f;
        self.up.build(job, parallelism, &mut |job, i| Map { f: f.clone(), down: chain(job, i) });
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.up.places(job, parallelism)
    }
    pass_properties!(up);
}

pub(in crate::stream) struct FilterRecipe<R, F> {
    pub up: R,
    pub f: F,
}

impl<R: Recipe, F: FnMut(&R::Item) -> bool + Clone + Send + 'static> Recipe for FilterRecipe<R, F> {
    type Item = R::Item;
    fn build<D: Push<R::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let f = self.f;
        self.up.build(job, parallelism, &mut |job, i| Filter { f: f.clone(), down: chain(job, i) });
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.up.places(job, parallelism)
    }
    pass_properties!(up);
    fn event_time(&self) -> Option<MakeEventTimeFn<R::Item>> {
        self.up.event_time()
    }
}

pub(in crate::stream) struct FlatMapRecipe<R, F, I> {
    pub up: R,
    pub f: F,
    pub item: PhantomData<fn() -> I>,
}

impl<R, I, F> Recipe for FlatMapRecipe<R, F, I>
where
    R: Recipe,
    I: IntoIterator + 'static,
    I::Item: Send + 'static,
    F: FnMut(R::Item) -> I + Clone + Send + 'static,
{
    type Item = I::Item;
    fn build<D: Push<I::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let f = self.f;
        let mut with_f = |job: &mut Job, i| FlatMap { f: f.clone(), down: chain(job, i) };
        self.up.build(job, parallelism, &mut with_f);
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.up.places(job, parallelism)
    }
    pass_properties!(up);
}
