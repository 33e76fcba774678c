//! A typed stream and its operations.

use crate::stream::keyed_state::InMemory;
use crate::stream::keyed_stream::KeyedStream;
use crate::stream::operator::stateless_recipe::{FilterRecipe, FlatMapRecipe, MapRecipe};
use crate::stream::operator::union::UnionRecipe;
use crate::stream::operator::watermark::{WatermarkRecipe, drop_ahead};
use crate::stream::recipe::Recipe;
use crate::stream::sink::{Sink, SinkChain, StreamWithSink};
use std::cell::RefCell;
use std::hash::Hash;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

/// An unbounded sequence of records.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<R, C = InMemory> {
    pub(in crate::stream) recipe: R,
    pub(in crate::stream) sinks: Rc<RefCell<Vec<Box<dyn SinkChain>>>>,
    /// The kind of the flow.
    pub(in crate::stream) kind: PhantomData<fn() -> C>,
}

impl<R: Recipe, C: 'static> Stream<R, C> {
    pub(in crate::stream) fn with<S: Recipe>(self, make: impl FnOnce(R) -> S) -> Stream<S, C> {
        Stream { recipe: make(self.recipe), sinks: self.sinks, kind: PhantomData }
    }

    /// Applies a function to each record.
    pub fn map<U, F>(self, f: F) -> Stream<impl Recipe<Item = U>, C>
    where
        U: Send + 'static,
        F: FnMut(R::Item) -> U + Clone + Send + 'static,
    {
        self.with(|up| MapRecipe { up, f, item: PhantomData })
    }

    /// Keeps the records for which the function returns true.
    pub fn filter<F>(self, f: F) -> Stream<impl Recipe<Item = R::Item>, C>
    where
        F: FnMut(&R::Item) -> bool + Clone + Send + 'static,
    {
        self.with(|up| FilterRecipe { up, f })
    }

    /// Maps each record to any number of records.
    pub fn flat_map<I, F>(self, f: F) -> Stream<impl Recipe<Item = I::Item>, C>
    where
        I: IntoIterator + 'static,
        I::Item: Send + 'static,
        F: FnMut(R::Item) -> I + Clone + Send + 'static,
    {
        self.with(|up| FlatMapRecipe { up, f, item: PhantomData })
    }

    /// Merges the records of both streams. The records of each stream keep their order.
    pub fn union<S: Recipe<Item = R::Item>>(
        self,
        other: Stream<S, C>,
    ) -> Stream<impl Recipe<Item = R::Item>, C> {
        self.with(|left| UnionRecipe { left, right: other.recipe })
    }

    /// Declares the event time of records, in microseconds since 1970. The watermark is the largest
    /// event time minus `delay`, each rounded down to whole milliseconds.
    pub fn with_watermark<F>(
        self,
        time: F,
        delay: Duration,
    ) -> Stream<impl Recipe<Item = R::Item>, C>
    where
        F: FnMut(&R::Item) -> i64 + Clone + Send + 'static,
    {
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let ahead = drop_ahead::<R::Item>;
        self.with(|up| WatermarkRecipe { up, time, delay_ms, skew_ms: None, ahead })
    }

    /// Like [`with_watermark`](Self::with_watermark), with a limit on how far ahead of the clock an
    /// event time may be. A record beyond the limit is dropped and counted
    /// ([`EventTimeStats::ahead_of_clock`](millstream_engine::epoch::event_time::EventTimeStats::ahead_of_clock)).
    /// It does not advance the watermark, because other records would then be late.
    pub fn with_watermark_and_max_skew<F>(
        self,
        time: F,
        delay: Duration,
        max_future_skew: Duration,
    ) -> Stream<impl Recipe<Item = R::Item>, C>
    where
        F: FnMut(&R::Item) -> i64 + Clone + Send + 'static,
    {
        self.with_watermark_and_ahead(time, delay, max_future_skew, drop_ahead::<R::Item>)
    }

    /// Like [`with_watermark_and_max_skew`](Self::with_watermark_and_max_skew), with a side output.
    /// `ahead` is called with each record that is dropped and with the latest event time that is
    /// accepted. It runs on the worker's thread, like a [`sink`](Self::sink). After a restart it is
    /// called again for records that are read again.
    pub fn with_watermark_and_ahead<F, A>(
        self,
        time: F,
        delay: Duration,
        max_future_skew: Duration,
        ahead: A,
    ) -> Stream<impl Recipe<Item = R::Item>, C>
    where
        F: FnMut(&R::Item) -> i64 + Clone + Send + 'static,
        A: FnMut(R::Item, i64) + Clone + Send + 'static,
    {
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let skew_ms = Some(i64::try_from(max_future_skew.as_millis()).unwrap_or(i64::MAX));
        self.with(|up| WatermarkRecipe { up, time, delay_ms, skew_ms, ahead })
    }

    /// Partitions the stream by a key. Records of one key are processed by one instance; those from
    /// one upstream instance keep their order.
    pub fn key_by<K, F>(self, key: F) -> KeyedStream<R, F, C>
    where
        K: Hash + Eq + Clone + Send + 'static,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
    {
        KeyedStream { up: self, key }
    }

    /// Ends the stream in a function, called with each record on the worker's thread, or in an
    /// [`output`](crate::stream::Flow::output).
    pub fn sink<S: Sink<R::Item>>(self, sink: S) {
        self.sinks.borrow_mut().push(Box::new(StreamWithSink { recipe: self.recipe, sink }));
    }
}
