//! Interval joins: pairs of records of two keyed streams whose event times are in a range.
//!
//! | module | noun |
//! |---|---|
//! | [`range`] | the range between the two event times |
//! | [`pairing`] | the result of two matching records, or of one without a match |
//! | [`work`] | the work of one instance |

mod pairing;
mod range;
mod work;

use crate::event_time::watermark::OperatorWatermark;
use crate::state::state_limit::share;
use crate::stream::keyed_input::{Either, KeyedInput, OneInput, TwoInputs};
use crate::stream::keyed_state::plain_name;
use crate::stream::keyed_stream::KeyedStream;
use crate::stream::operator::stepped::Stepped;
use crate::stream::operator::two_input_processor::ConnectedStreams;
use crate::stream::processor_state::Kept;
use crate::stream::recipe::{CheckpointManifest, Recipe};
use crate::stream::typed_stream::Stream;
use millstream_engine::checkpoint::StateLayout;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::{Job, JoinOrder};
use millstream_engine::runtime::stage::Push;
use pairing::{FullOuter, Inner, LeftAnti, LeftOuter, LeftSemi, Pairing, RightOuter};
use std::hash::Hash;
use std::marker::PhantomData;

use range::IntervalRange;
pub use range::TimeOffset;
use work::{Calls, IntervalWork};

/// Drops a late record, for joins without a side output. The record is only counted.
fn drop_late<T>(_: T) {}

/// The side output of a join that only counts late records.
type Uncollected<L, R> = fn(Either<<L as Recipe>::Item, <R as Recipe>::Item>);

/// The condition of a join that has none besides the key and the range.
type Unconditional<L, R> = fn(&<L as Recipe>::Item, &<R as Recipe>::Item) -> bool;

/// A join with neither a side output nor a further condition.
type PlainJoin<L, F, R, G, C> =
    BoundedIntervalJoin<L, F, R, G, C, Uncollected<L, R>, Unconditional<L, R>>;

/// Two keyed streams to be joined by a range of event times, from [`KeyedStream::interval_join`].
#[must_use = "a join does nothing until it has its range and its kind"]
pub struct IntervalJoin<L, F, R, G, C>(ConnectedStreams<L, F, R, G, C>);

impl<L: Recipe, F, C: 'static> KeyedStream<L, F, C> {
    /// Joins this stream with another one: records of one key whose event times are in a range.
    ///
    /// Both streams need a watermark. The watermark of the join is the lower one of both. A record
    /// at or before it is late. A match is emitted as soon as its second record arrives. A record
    /// of an outer side without a match is emitted as soon as the watermark rules out a match. A
    /// buffered record is removed as soon as the watermark rules out further matches. In
    /// micro-batch mode the watermark of a batch takes effect at the end of the batch.
    ///
    /// ```
    /// use millstream::stream::{Flow, TimeOffset};
    /// use millstream::{Config, WaitProfile};
    /// use std::time::Duration;
    ///
    /// const SECOND: i64 = 1_000_000;
    /// let flow = Flow::new("clicks");
    /// // Each record has a key and a time.
    /// let (mut shown, left) = flow.channel::<(u32, i64)>();
    /// let (mut clicked, right) = flow.channel::<(u32, i64)>();
    /// let (sink, mut output) = flow.output();
    /// let second = Duration::from_secs(1);
    /// let left = left.with_watermark(|record| record.1, second).key_by(|record| record.0);
    /// let right = right.with_watermark(|record| record.1, second).key_by(|record| record.0);
    /// // A click follows its impression by at most ten seconds.
    /// left.interval_join(right)
    ///     .between(TimeOffset::ZERO, Duration::from_secs(10))
    ///     .left_outer(|shown, clicked| (shown.0, clicked.map(|clicked| clicked.1 - shown.1)))
    ///     .sink(sink);
    /// let query = flow.start(Config { wait: WaitProfile::Park, ..Config::default() })?;
    /// shown.push((1, 100 * SECOND))?;
    /// shown.push((2, 101 * SECOND))?;
    /// query.process_all_available()?;
    /// clicked.push((1, 103 * SECOND))?;
    /// query.process_all_available()?;
    /// // Both watermarks advance past the range: the second one was not clicked.
    /// shown.push((3, 150 * SECOND))?;
    /// clicked.push((4, 150 * SECOND))?;
    /// query.process_all_available()?;
    /// assert_eq!(output.try_recv(), Some((1, Some(3 * SECOND))));
    /// assert_eq!(output.try_recv(), Some((2, None)));
    /// query.stop()?;
    /// # Ok::<(), millstream::EngineError>(())
    /// ```
    pub fn interval_join<R: Recipe, G>(
        self,
        right: KeyedStream<R, G, C>,
    ) -> IntervalJoin<L, F, R, G, C> {
        IntervalJoin(self.connect(right))
    }
}

impl<L: Recipe, F, R: Recipe, G, C: 'static> IntervalJoin<L, F, R, G, C> {
    /// Sets the range of the right record's event time, relative to the left record's. Both bounds
    /// are included: a left record at `t` matches right records from `t + lower` to `t + upper`.
    pub fn between(
        self,
        lower: impl Into<TimeOffset>,
        upper: impl Into<TimeOffset>,
    ) -> PlainJoin<L, F, R, G, C> {
        BoundedIntervalJoin {
            streams: self.0,
            range: IntervalRange::new(lower.into(), upper.into()),
            order: JoinOrder::OfInstances,
            max_state_bytes: None,
            late: drop_late::<Either<L::Item, R::Item>>,
            condition: None,
        }
    }
}

/// An interval join with its range, from [`IntervalJoin::between`].
#[must_use = "a join does nothing until it has its kind"]
pub struct BoundedIntervalJoin<L, F, R, G, C, Z, M> {
    streams: ConnectedStreams<L, F, R, G, C>,
    range: IntervalRange,
    order: JoinOrder,
    max_state_bytes: Option<u64>,
    late: Z,
    condition: Option<M>,
}

impl<L: Recipe, F, R: Recipe, G, C: 'static, Z, M> BoundedIntervalJoin<L, F, R, G, C, Z, M> {
    /// Excludes the lower bound.
    pub fn lower_exclusive(mut self) -> Self {
        self.range.lower_us = self.range.lower_us.saturating_add(1);
        self
    }

    /// Excludes the upper bound.
    pub fn upper_exclusive(mut self) -> Self {
        self.range.upper_us = self.range.upper_us.saturating_sub(1);
        self
    }

    /// Sets a side output: `late` is called with each late record of either stream. It runs on the
    /// worker's thread. After a restart it is called again for records that are read again. Without
    /// a side output late records are only counted.
    pub fn late_records<Y>(self, late: Y) -> BoundedIntervalJoin<L, F, R, G, C, Y, M>
    where
        Y: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
    {
        let Self { streams, range, order, max_state_bytes, condition, .. } = self;
        BoundedIntervalJoin { streams, range, order, max_state_bytes, late, condition }
    }

    /// Adds a condition: two records of a key whose times are in the range match only if it is true
    /// for them. In an outer join, a record for which it was true with no other record has no match
    /// and is emitted alone. The condition is called once for each pair of the range; after a
    /// restart it may be called again. A second call of this method replaces the condition.
    ///
    /// ```
    /// use millstream::stream::{Flow, TimeOffset};
    /// use millstream::Config;
    /// use std::time::Duration;
    ///
    /// const SECOND: i64 = 1_000_000;
    /// let flow = Flow::new("unpaid");
    /// // Customer, time, amount.
    /// let orders = flow.items([(1, 100 * SECOND, 40), (1, 101 * SECOND, 70), (2, 900 * SECOND, 1)]);
    /// let payments = flow.items([(1, 105 * SECOND, 50), (2, 901 * SECOND, 1)]);
    /// let delay = Duration::from_secs(1);
    /// let orders = orders.with_watermark(|order| order.1, delay).key_by(|order| order.0);
    /// let payments = payments.with_watermark(|payment| payment.1, delay).key_by(|payment| payment.0);
    /// // The orders that no single payment of the next minute covers.
    /// orders
    ///     .interval_join(payments)
    ///     .between(TimeOffset::ZERO, Duration::from_secs(60))
    ///     .condition(|order, payment| payment.2 >= order.2)
    ///     .left_anti(|order| order.2)
    ///     .sink(|amount| assert_eq!(amount, 70));
    /// flow.start(Config::default())?.await_termination()?;
    /// # Ok::<(), millstream::EngineError>(())
    /// ```
    pub fn condition<Y>(self, condition: Y) -> BoundedIntervalJoin<L, F, R, G, C, Z, Y>
    where
        Y: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
    {
        let Self { streams, range, order, max_state_bytes, late, .. } = self;
        let condition = Some(condition);
        BoundedIntervalJoin { streams, range, order, max_state_bytes, late, condition }
    }

    /// Limits the memory of the buffered records, which grows while one stream is silent. The
    /// instances of the join share the limit equally. When an instance reaches its share, the query
    /// ends with `JOIN_STATE_LIMIT_EXCEEDED`. [`Flow::idle_timeout`](crate::stream::Flow) lets the
    /// join continue without the silent stream instead.
    pub fn max_state_bytes(self, bytes: u64) -> Self {
        Self { max_state_bytes: Some(bytes), ..self }
    }

    /// Emits results in the order of the records that complete them, whatever the parallelism: in
    /// continuous mode the order in which the records reach the join, in micro-batch mode that of a
    /// batch's left records and then of its right ones. While a record is compared with many
    /// others, later records wait. The join then has one instance, on one core.
    pub fn ordered(self) -> Self {
        Self { order: JoinOrder::OfInput, ..self }
    }

    /// An inner join: a result for each match.
    pub fn inner<K, U, J>(self, join: J) -> Stream<impl Recipe<Item = U>, C>
    where
        K: Kept + Hash + Eq + Clone,
        L::Item: Kept,
        R::Item: Kept,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
        M: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
        U: Send + 'static,
        J: FnMut(&L::Item, &R::Item) -> U + Clone + Send + 'static,
    {
        self.paired::<K, _>(Inner(join, PhantomData))
    }

    /// A left outer join: a result for each match, and one for each left record without a match.
    pub fn left_outer<K, U, J>(self, join: J) -> Stream<impl Recipe<Item = U>, C>
    where
        K: Kept + Hash + Eq + Clone,
        L::Item: Kept,
        R::Item: Kept,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
        M: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
        U: Send + 'static,
        J: FnMut(&L::Item, Option<&R::Item>) -> U + Clone + Send + 'static,
    {
        self.paired::<K, _>(LeftOuter(join, PhantomData))
    }

    /// A right outer join: a result for each match, and one for each right record without a match.
    pub fn right_outer<K, U, J>(self, join: J) -> Stream<impl Recipe<Item = U>, C>
    where
        K: Kept + Hash + Eq + Clone,
        L::Item: Kept,
        R::Item: Kept,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
        M: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
        U: Send + 'static,
        J: FnMut(Option<&L::Item>, &R::Item) -> U + Clone + Send + 'static,
    {
        self.paired::<K, _>(RightOuter(join, PhantomData))
    }

    /// A full outer join: a result for each match, and one for each record without a match. At
    /// least one of the two arguments is `Some`.
    pub fn full_outer<K, U, J>(self, join: J) -> Stream<impl Recipe<Item = U>, C>
    where
        K: Kept + Hash + Eq + Clone,
        L::Item: Kept,
        R::Item: Kept,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
        M: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
        U: Send + 'static,
        J: FnMut(Option<&L::Item>, Option<&R::Item>) -> U + Clone + Send + 'static,
    {
        self.paired::<K, _>(FullOuter(join, PhantomData))
    }

    /// A left semi join: one result for each left record with a match, at its first match. The record
    /// is removed then; a few bytes of it stay until it expires, and do not count for
    /// `max_state_bytes`.
    pub fn left_semi<K, U, J>(self, result: J) -> Stream<impl Recipe<Item = U>, C>
    where
        K: Kept + Hash + Eq + Clone,
        L::Item: Kept,
        R::Item: Kept,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
        M: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
        U: Send + 'static,
        J: FnMut(&L::Item) -> U + Clone + Send + 'static,
    {
        self.paired::<K, _>(LeftSemi(result, PhantomData))
    }

    /// A left anti join: one result for each left record without a match, when the watermark rules
    /// out a match. A record is not buffered after its first match.
    pub fn left_anti<K, U, J>(self, result: J) -> Stream<impl Recipe<Item = U>, C>
    where
        K: Kept + Hash + Eq + Clone,
        L::Item: Kept,
        R::Item: Kept,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
        M: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
        U: Send + 'static,
        J: FnMut(&L::Item) -> U + Clone + Send + 'static,
    {
        self.paired::<K, _>(LeftAnti(result, PhantomData))
    }

    fn paired<K, P>(self, pairing: P) -> Stream<impl Recipe<Item = P::Output>, C>
    where
        K: Kept + Hash + Eq + Clone,
        L::Item: Kept,
        R::Item: Kept,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
        M: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
        P: Pairing<L::Item, R::Item>,
    {
        let Self { streams, range, order, max_state_bytes, late, condition } = self;
        streams.into_input(|input: TwoInputs<_, OneInput<R, G, K>>| IntervalJoinRecipe {
            input: TwoInputs { order, ..input },
            range,
            max_state_bytes,
            calls: Calls { pairing, condition, late },
        })
    }
}

struct IntervalJoinRecipe<I, P, M, Z> {
    input: I,
    range: IntervalRange,
    max_state_bytes: Option<u64>,
    calls: Calls<P, M, Z>,
}

impl<L, F, R, G, K, P, M, Z> Recipe
    for IntervalJoinRecipe<TwoInputs<OneInput<L, F, K>, OneInput<R, G, K>>, P, M, Z>
where
    L: Recipe<Item: Kept>,
    R: Recipe<Item: Kept>,
    K: Kept + Hash + Eq + Clone,
    F: FnMut(&L::Item) -> K + Clone + Send + 'static,
    G: FnMut(&R::Item) -> K + Clone + Send + 'static,
    P: Pairing<L::Item, R::Item>,
    M: FnMut(&L::Item, &R::Item) -> bool + Clone + Send + 'static,
    Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
{
    type Item = P::Output;
    fn build<D: Push<P::Output> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let places = self.places(job, parallelism);
        let Self { input, range, max_state_bytes, calls } = self;
        let share = max_state_bytes.map(|bytes| share(bytes, places.len()));
        let is_ordered = input.order == JoinOrder::OfInput;
        job.request_no_data_batches();
        let Some(times) = input.event_times() else {
            unreachable!("a join without event times is refused when it is described")
        };
        let logs = job.operator(places.len());
        let stages = logs.into_iter().enumerate().map(|(i, log)| {
            let down = chain(job, i);
            let times = ((times.0)(), (times.1)());
            let work = IntervalWork::new(calls.clone(), times, range, log);
            let work = work.ordered(is_ordered).limited(share);
            let watermarks = OperatorWatermark::new(job.times(), job.trigger().is_continuous());
            Stepped::new(work, watermarks.behind(input.watermark_lag_us()), down)
        });
        let stages = stages.collect();
        input.build(job, parallelism, "interval join", stages);
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.input.workers(job, parallelism)
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        if !self.input.is_timed() {
            kept.refused.get_or_insert_with(without_event_time);
        }
        if self.range.is_empty() {
            kept.refused.get_or_insert_with(|| {
                EngineError::operator(
                    "INTERVAL_JOIN_RANGE_EMPTY",
                    "the lower bound of an interval join is greater than its upper bound",
                    "Exchange the bounds: .between(lower, upper)",
                )
            });
        }
        let key = plain_name(std::any::type_name::<K>());
        kept.shape.operators.push(format!("interval join by {key}: {}", P::NAME));
        kept.shape.layouts.push(StateLayout::default());
        self.input.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        true
    }
    fn watermark_lag_us(&self) -> i64 {
        self.input.watermark_lag_us().saturating_add(self.range.lag_us())
    }
}

fn without_event_time() -> EngineError {
    EngineError::operator(
        "EVENT_TIME_MISSING",
        "a stream of an interval join has no event time",
        "Declare it before `key_by`: stream.with_watermark(|record| …, delay), or, for records that \
         were mapped since, stream.with_event_time(|record| …)",
    )
}
