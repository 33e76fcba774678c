//! The recipes of window operators.

use super::assigner::{Fold, FoldWindows, Windows};
use super::collect::{Apply, CoGroup, CollectWork};
use super::fold::FoldWork;
use super::{WindowResult, WindowResults};
use crate::event_time::watermark::{MakeEventTimeFn, OperatorWatermark};
use crate::stream::keyed_input::{Either, KeyedInput};
use crate::stream::keyed_state::plain_name;
use crate::stream::operator::stepped::{RecordWork, Stepped};
use crate::stream::processor_state::Kept;
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::checkpoint::StateLayout;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::state_log::StateLog;
use std::marker::PhantomData;

/// The aggregate of a window operator, and when its values are emitted.
pub(super) struct Contents<F, A> {
    pub fold: F,
    pub results: WindowResults,
    /// The type name of the aggregate.
    pub aggregate: &'static str,
    pub types: PhantomData<fn() -> A>,
}

/// The recipe of an aggregate over windows.
pub(super) struct WindowRecipe<I, W, F, A, Z> {
    pub input: I,
    pub windows: W,
    pub contents: Contents<F, A>,
    pub late: Z,
}

/// Builds the instances of a window operator. `work` creates the state of one instance from its
/// event time and its log.
fn build_windows<I, W, D>(
    input: I,
    (job, parallelism): (&mut Job, usize),
    chain: &mut dyn FnMut(&mut Job, usize) -> D,
    mut work: impl FnMut(crate::event_time::watermark::EventTimeFn<I::Item>, StateLog) -> W,
) where
    I: KeyedInput,
    W: RecordWork<(I::Key, I::Item), D> + 'static,
    D: millstream_engine::runtime::stage::Stage + 'static,
{
    job.request_no_data_batches();
    let Some(time) = input.event_time() else {
        unreachable!("windows without event time are refused when they are described")
    };
    let logs = job.operator(input.workers(job, parallelism).len());
    let stages = logs.into_iter().enumerate().map(|(i, log)| {
        let down = chain(job, i);
        let watermarks = OperatorWatermark::new(job.times(), job.trigger().is_continuous());
        Stepped::new(work(time(), log), watermarks.behind(input.watermark_lag_us()), down)
    });
    let stages = stages.collect();
    input.build(job, parallelism, "window", stages);
}

/// Adds a window operator to the checkpoint manifest.
fn describe_windows<I: KeyedInput>(input: &I, kept: &mut CheckpointManifest, contents: &str) {
    if !input.is_timed() {
        kept.refused.get_or_insert_with(without_event_time);
    }
    let key = plain_name(std::any::type_name::<I::Key>());
    kept.shape.operators.push(format!("window by {key}: {contents}"));
    kept.shape.layouts.push(StateLayout::default());
    input.describe(kept);
}

fn without_event_time() -> EngineError {
    EngineError::operator(
        "EVENT_TIME_MISSING",
        "a stream in windows has no event time",
        "Declare it before `key_by`: stream.with_watermark(|record| …, delay), or, for records that \
         were mapped since, stream.with_event_time(|record| …)",
    )
}

impl<I, W, A, Z> Recipe for WindowRecipe<I, W, W::Fold, A, Z>
where
    I: KeyedInput,
    A: 'static,
    W: FoldWindows<I::Item, A>,
    W::Fold: Fold<I::Item, State: Kept, Output: Kept>,
    Z: FnMut(I::Item) + Clone + Send + 'static,
{
    type Item = WindowResult<I::Key, <W::Fold as Fold<I::Item>>::Output>;
    fn build<D: Push<Self::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let Self { input, windows, contents: Contents { fold, results, .. }, late } = self;
        build_windows(input, (job, parallelism), chain, |time, log| {
            FoldWork::new((windows, fold.clone()), (results, late.clone()), time, log)
        });
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.input.workers(job, parallelism)
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        let Contents { aggregate, results, .. } = &self.contents;
        let aggregate = plain_name(aggregate);
        let name = aggregate.split('<').next().unwrap_or_default();
        let state = plain_name(std::any::type_name::<<W::Fold as Fold<I::Item>>::State>());
        let windows = self.windows.name();
        let contents = format!("{windows}, {name} with state {state}, {results:?}");
        describe_windows(&self.input, kept, &contents);
    }
    fn has_event_time(&self) -> bool {
        true
    }
    fn event_time(&self) -> Option<MakeEventTimeFn<Self::Item>> {
        Some(Box::new(|| Box::new(|result| result.window.end_us.saturating_sub(1))))
    }
    fn watermark_lag_us(&self) -> i64 {
        self.input.watermark_lag_us()
    }
}

/// Calls a function with all records of a window.
pub(super) struct Grouped<F, I>(pub F, pub PhantomData<fn() -> I>);

impl<F: Clone, I> Clone for Grouped<F, I> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<K, L, R, F, I> Apply<K, L, R> for Grouped<F, I>
where
    F: FnMut(CoGroup<'_, K, L, R>) -> I + Clone + Send + 'static,
    I: IntoIterator<IntoIter: Send, Item: Send> + 'static,
{
    type Results = I::IntoIter;
    fn apply(&mut self, group: CoGroup<'_, K, L, R>) -> I::IntoIter {
        (self.0)(group).into_iter()
    }
}

/// The recipe of a function of all records of a window.
pub(super) struct CollectRecipe<I, W, F, Z, S> {
    pub input: I,
    pub windows: W,
    pub apply: F,
    pub late: Z,
    pub sides: PhantomData<S>,
}

impl<I, L, R, W, F, Z> Recipe for CollectRecipe<I, W, F, Z, fn() -> (L, R)>
where
    I: KeyedInput<Item = Either<L, R>>,
    L: Kept,
    R: Kept,
    W: Windows,
    F: Apply<I::Key, L, R>,
    Z: FnMut(Either<L, R>) + Clone + Send + 'static,
{
    type Item = <F::Results as Iterator>::Item;
    fn build<D: Push<Self::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let Self { input, windows, apply, late, .. } = self;
        build_windows(input, (job, parallelism), chain, |time, log| {
            CollectWork::new(windows, (apply.clone(), late.clone()), time, log)
        });
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.input.workers(job, parallelism)
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        let contents = format!("{}, records", self.windows.name());
        describe_windows(&self.input, kept, &contents);
    }
    fn has_event_time(&self) -> bool {
        true
    }
    fn watermark_lag_us(&self) -> i64 {
        self.input.watermark_lag_us()
    }
}
