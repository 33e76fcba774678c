//! Declares the event time of derived records.

use crate::event_time::watermark::MakeEventTimeFn;
use crate::stream::recipe::{Recipe, pass_properties};
use crate::stream::typed_stream::Stream;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;

impl<R: Recipe, C: 'static> Stream<R, C> {
    /// Declares the event time of derived records, in microseconds since 1970. The watermark of the
    /// upstream streams is not changed. So the event time of a record should not be earlier than
    /// the event times of the records from which it was derived.
    ///
    /// Windows and interval joins need this after a `map`, a processor or a join. It has no effect
    /// on a stream without a watermark.
    pub fn with_event_time<F>(self, time: F) -> Stream<impl Recipe<Item = R::Item>, C>
    where
        F: FnMut(&R::Item) -> i64 + Clone + Send + 'static,
    {
        self.with(|up| EventTimeRecipe { up, time })
    }
}

struct EventTimeRecipe<R, F> {
    up: R,
    time: F,
}

impl<R, F> Recipe for EventTimeRecipe<R, F>
where
    R: Recipe,
    F: FnMut(&R::Item) -> i64 + Clone + Send + 'static,
{
    type Item = R::Item;
    fn build<D: Push<R::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        self.up.build(job, parallelism, chain);
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.up.places(job, parallelism)
    }
    pass_properties!(up);
    fn event_time(&self) -> Option<MakeEventTimeFn<R::Item>> {
        if !self.up.has_event_time() {
            return None;
        }
        let time = self.time.clone();
        Some(Box::new(move || Box::new(time.clone())))
    }
}
