//! The input of a keyed operator: one keyed stream, or two that are partitioned by the same key.
//!
//! ```text
//! left  ▸ key ▸ Exchange ═rings by key═▶ ┐
//!                                        ├ operator ×N
//! right ▸ key ▸ Exchange ═rings by key═▶ ┘
//! ```
//!
//! The hash of a key's encoding decides the key's instance, and its key group in checkpoints. So
//! all records of a key reach one instance, whichever stream they come from.

use crate::event_time::watermark::MakeEventTimeFn;
use crate::stream::keyed_exchange::{keyed, keyed_workers};
use crate::stream::operator::gather::{GatherRecipe, MERGED_PLACE};
use crate::stream::operator::stateless::Map;
use crate::stream::processor_state::{Kept, write};
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::checkpoint::key_group::{hash_bytes, instance_of};
use millstream_engine::runtime::exchange::{Exchange, Outbox};
use millstream_engine::runtime::job::{Job, JoinOrder};
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::InboxTasklet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::hash::Hash;
use std::marker::PhantomData;

/// A record of one of two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Either<L, R> {
    /// A record of the left stream.
    Left(L),
    /// A record of the right stream.
    Right(R),
}

/// Encodes the record as a `Result`: the left record is `Ok`.
impl<L: Serialize, R: Serialize> Serialize for Either<L, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let either: Result<&L, &R> = match self {
            Self::Left(left) => Ok(left),
            Self::Right(right) => Err(right),
        };
        either.serialize(serializer)
    }
}

impl<'de, L: Deserialize<'de>, R: Deserialize<'de>> Deserialize<'de> for Either<L, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let either: Result<L, R> = Deserialize::deserialize(deserializer)?;
        Ok(match either {
            Ok(left) => Self::Left(left),
            Err(right) => Self::Right(right),
        })
    }
}

/// The streams that a keyed operator reads.
pub trait KeyedInput: Sized + 'static {
    /// The type of the key.
    type Key: Kept + Hash + Eq + Clone;
    /// The records of all streams.
    type Item: Send + 'static;
    /// The workers of the operator's instances.
    fn workers(&self, job: &Job, parallelism: usize) -> Vec<usize>;
    /// Builds the operator's instances from `stages`, one each, and the streams that feed them. An
    /// exchange by key precedes them, unless one instance of a single input has one instance
    /// upstream.
    fn build<S>(self, job: &mut Job, parallelism: usize, name: &str, stages: Vec<S>)
    where
        S: Push<(Self::Key, Self::Item)> + 'static;
    /// Adds the streams to the checkpoint manifest.
    fn describe(&self, kept: &mut CheckpointManifest);
    /// Whether any stream has a watermark.
    fn has_event_time(&self) -> bool;
    /// The event time of the records. A record of a stream without event time is never late.
    fn event_time(&self) -> Option<MakeEventTimeFn<Self::Item>>;
    /// Whether every stream has a watermark and its records have an event time.
    fn is_timed(&self) -> bool;
    /// How far records may be behind the watermark that arrives with them, in microseconds.
    fn watermark_lag_us(&self) -> i64;
}

/// Chooses the instance of a key.
fn route<K: Kept, T>() -> impl FnMut(&(K, T), usize) -> usize + Clone + Send + 'static {
    let mut bytes = Vec::new();
    move |(key, _): &(K, T), lanes: usize| {
        if lanes == 1 {
            return 0;
        }
        bytes.clear();
        // If a key cannot be encoded, the instance that receives it reports the error.
        drop(write(key, &mut bytes));
        instance_of(hash_bytes(&bytes), lanes)
    }
}

/// One keyed stream as the input of an operator.
pub struct OneInput<R, F, K> {
    pub(in crate::stream) up: R,
    pub(in crate::stream) key: F,
    pub(in crate::stream) types: PhantomData<fn() -> K>,
}

impl<R, F, K> KeyedInput for OneInput<R, F, K>
where
    R: Recipe,
    K: Kept + Hash + Eq + Clone,
    F: FnMut(&R::Item) -> K + Clone + Send + 'static,
{
    type Key = K;
    type Item = R::Item;
    fn workers(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        keyed_workers(&self.up, job, parallelism)
    }
    fn build<S>(self, job: &mut Job, parallelism: usize, name: &str, stages: Vec<S>)
    where
        S: Push<(K, R::Item)> + 'static,
    {
        let mut key = self.key;
        let pair = move |item: R::Item| (key(&item), item);
        keyed(self.up, job, parallelism, name, pair, route(), stages);
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.up.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.up.has_event_time()
    }
    fn event_time(&self) -> Option<MakeEventTimeFn<R::Item>> {
        self.up.event_time()
    }
    fn is_timed(&self) -> bool {
        self.up.has_event_time() && self.up.event_time().is_some()
    }
    fn watermark_lag_us(&self) -> i64 {
        self.up.watermark_lag_us()
    }
}

/// One keyed stream as the left input of a two-input operator.
pub struct AsLeft<I>(pub(in crate::stream) I);

impl<I: KeyedInput> KeyedInput for AsLeft<I> {
    type Key = I::Key;
    type Item = Either<I::Item, ()>;
    fn workers(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.0.workers(job, parallelism)
    }
    fn build<S>(self, job: &mut Job, parallelism: usize, name: &str, stages: Vec<S>)
    where
        S: Push<(I::Key, Self::Item)> + 'static,
    {
        let as_left = |down| Map { f: |(key, item)| (key, Either::Left(item)), down };
        self.0.build(job, parallelism, name, stages.into_iter().map(as_left).collect());
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.0.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.0.has_event_time()
    }
    fn event_time(&self) -> Option<MakeEventTimeFn<Self::Item>> {
        let make = self.0.event_time()?;
        Some(Box::new(move || {
            let mut time = make();
            Box::new(move |item| match item {
                Either::Left(item) => time(item),
                Either::Right(()) => i64::MAX,
            })
        }))
    }
    fn is_timed(&self) -> bool {
        self.0.is_timed()
    }
    fn watermark_lag_us(&self) -> i64 {
        self.0.watermark_lag_us()
    }
}

/// Two keyed streams with the same key type.
pub struct TwoInputs<A, B> {
    pub(in crate::stream) left: A,
    pub(in crate::stream) right: B,
    /// The order of the operator's results.
    pub(in crate::stream) order: JoinOrder,
}

/// Builds one side of a two-input operator.
struct SideBuilder<R, F, K> {
    input: OneInput<R, F, K>,
    /// Whether the instances of the stream are merged into one.
    is_merged: bool,
    /// The workers that send the side's records.
    producers: Vec<usize>,
}

impl<R, F, K> SideBuilder<R, F, K>
where
    R: Recipe,
    K: Kept,
    F: FnMut(&R::Item) -> K + Clone + Send + 'static,
{
    /// `merges`: several instances of the stream are merged into one.
    fn new(input: OneInput<R, F, K>, job: &Job, parallelism: usize, merges: bool) -> Self {
        let producers = input.up.places(job, parallelism);
        let is_merged = merges && producers.len() > 1;
        let producers = if is_merged { vec![MERGED_PLACE] } else { producers };
        Self { input, is_merged, producers }
    }

    /// Builds the stream, which sends its records to `outboxes`.
    fn build<T: Send + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        outboxes: Vec<Outbox<(K, T)>>,
        wrap: fn(R::Item) -> T,
    ) {
        let OneInput { up, key, .. } = self.input;
        let mut outboxes = outboxes.into_iter();
        let mut chain = |_: &mut Job, _| match outboxes.next() {
            Some(outbox) => {
                let mut key = key.clone();
                let f = move |item| (key(&item), wrap(item));
                Map { f, down: Exchange::new(outbox, route()) }
            }
            None => unreachable!("a recipe makes one chain per instance"),
        };
        match self.is_merged {
            true => GatherRecipe { up }.build(job, parallelism, &mut chain),
            false => up.build(job, parallelism, &mut chain),
        }
    }
}

/// The event times of both sides, if both have one.
type BothTimes<L, R> = Option<(MakeEventTimeFn<L>, MakeEventTimeFn<R>)>;

impl<L, F, R, G, K> TwoInputs<OneInput<L, F, K>, OneInput<R, G, K>>
where
    L: Recipe,
    R: Recipe,
{
    /// The event times of both sides; `None` if a side has none.
    pub(in crate::stream) fn event_times(&self) -> BothTimes<L::Item, R::Item> {
        Some((self.left.up.event_time()?, self.right.up.event_time()?))
    }
}

impl<L, F, R, G, K> KeyedInput for TwoInputs<OneInput<L, F, K>, OneInput<R, G, K>>
where
    L: Recipe,
    R: Recipe,
    K: Kept + Hash + Eq + Clone,
    F: FnMut(&L::Item) -> K + Clone + Send + 'static,
    G: FnMut(&R::Item) -> K + Clone + Send + 'static,
{
    type Key = K;
    type Item = Either<L::Item, R::Item>;
    fn workers(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        let instances = match self.order {
            JoinOrder::OfInstances => parallelism,
            JoinOrder::OfInput => 1,
        };
        (0..instances).map(|i| i % job.workers()).collect()
    }
    fn build<S>(self, job: &mut Job, parallelism: usize, name: &str, stages: Vec<S>)
    where
        S: Push<(K, Self::Item)> + 'static,
    {
        let timed = [self.left.has_event_time(), self.right.has_event_time()];
        // The operator of the stages was added last.
        let operator = job.operators().saturating_sub(1);
        let places = self.workers(job, parallelism);
        // A stream has one consumer, so no source feeds both inputs. But the producers of one side
        // may have a source in common. If inputs are read one after another, it would block on the
        // full ring of the later one, so each side is first merged into one ring.
        let one_after_another = self.order.reads_one_after_another(job.trigger());
        let left = SideBuilder::new(self.left, job, parallelism, one_after_another);
        let right = SideBuilder::new(self.right, job, parallelism, one_after_another);
        let (left_outboxes, left_inlets) = job.rings::<(K, Self::Item)>(&left.producers, &places);
        let (right_outboxes, right_inlets) =
            job.rings::<(K, Self::Item)>(&right.producers, &places);
        let inlets = left_inlets.into_iter().zip(right_inlets);
        for (i, ((mut inlets, others), down)) in inlets.zip(stages).enumerate() {
            let timed = [(inlets.len(), timed[0]), (others.len(), timed[1])];
            inlets.extend(others);
            let port = job.tasklet_port();
            let inbox = InboxTasklet::new(port, format!("{name} {i}"), inlets, down);
            let inbox = inbox.watermarks(job.watermark_policy(), &timed);
            let inbox = if one_after_another { inbox.one_after_another() } else { inbox };
            job.add_tasklet(places[i], Box::new(inbox));
        }
        let begin = job.event_times();
        left.build(job, parallelism, left_outboxes, Either::Left);
        let middle = job.event_times();
        right.build(job, parallelism, right_outboxes, Either::Right);
        job.set_join_event_times(operator, [begin..middle, middle..job.event_times()]);
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.left.describe(kept);
        self.right.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.left.has_event_time() || self.right.has_event_time()
    }
    fn event_time(&self) -> Option<MakeEventTimeFn<Self::Item>> {
        let (left, right) = (self.left.up.event_time(), self.right.up.event_time());
        if left.is_none() && right.is_none() {
            return None;
        }
        Some(Box::new(move || {
            let mut left = left.as_ref().map(|make| make());
            let mut right = right.as_ref().map(|make| make());
            Box::new(move |item| match item {
                Either::Left(item) => left.as_mut().map_or(i64::MAX, |time| time(item)),
                Either::Right(item) => right.as_mut().map_or(i64::MAX, |time| time(item)),
            })
        }))
    }
    fn is_timed(&self) -> bool {
        self.left.is_timed() && self.right.is_timed()
    }
    fn watermark_lag_us(&self) -> i64 {
        self.left.watermark_lag_us().max(self.right.watermark_lag_us())
    }
}
