//! The recipe of a stream with a declared event time.

use crate::event_time::future_skew::{FutureSkewFilter, FutureSkewLimit};
use crate::event_time::watermark::{MakeEventTimeFn, WatermarkAssigner};
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;

/// Drops a record that is too far ahead of the clock, for streams without a side output. The record
/// is only counted.
pub(in crate::stream) fn drop_ahead<T>(_: T, _: i64) {}

pub(in crate::stream) struct WatermarkRecipe<R, F, A> {
    pub up: R,
    pub time: F,
    pub delay_ms: i64,
    /// The limit on how far ahead of the clock an event time may be, in milliseconds.
    pub skew_ms: Option<i64>,
    /// The callback for records that are further ahead than the limit.
    pub ahead: A,
}

impl<R, F, A> Recipe for WatermarkRecipe<R, F, A>
where
    R: Recipe,
    F: FnMut(&R::Item) -> i64 + Clone + Send + 'static,
    A: FnMut(R::Item, i64) + Clone + Send + 'static,
{
    type Item = R::Item;
    fn build<D: Push<R::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let Self { up, time, delay_ms, skew_ms, ahead } = self;
        up.build(job, parallelism, &mut |job, i| {
            let down = chain(job, i);
            let seen = job.event_time(delay_ms);
            let resumed_us = job.resumed_watermark_ms().saturating_mul(1000);
            let (times, trigger) = (job.times(), job.trigger());
            let skew =
                skew_ms.map(|ms| FutureSkewLimit::new(ms, job.env(), times.clone(), trigger));
            let (time_of, counts) = (time.clone(), seen.clone());
            let down =
                WatermarkAssigner::new(time_of, delay_ms, trigger, seen, resumed_us, times, down);
            FutureSkewFilter::new(time.clone(), ahead.clone(), skew, counts, down)
        });
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.up.places(job, parallelism)
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.up.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        true
    }
    fn event_time(&self) -> Option<MakeEventTimeFn<R::Item>> {
        let time = self.time.clone();
        Some(Box::new(move || Box::new(time.clone())))
    }
}
