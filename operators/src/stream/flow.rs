//! Building a flow and running it.

use super::aggregate::{Aggregate, Running};
use super::channel::{self, ChannelSink, ChannelSource, Input, Output, OutputParts};
use super::ops::{Call, Filter, FlatMap, Map};
use millstream_engine::error::EngineError;
use millstream_engine::exchange::Exchange;
use millstream_engine::job::{Config, Job, Running as RunningJob};
use millstream_engine::key_group::{hash_key, instance_of};
use millstream_engine::latency::{Latency, Percentiles};
use millstream_engine::seam::{Env, SimEnv};
use millstream_engine::stage::Push;
use millstream_engine::tasklet::{InboxTasklet, SourceTasklet};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::Hash;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

/// Puts a chain behind a stream and seats the tasklets, once per instance of the chain.
///
/// `chain` makes the chain of one instance; it is called once for each.
pub trait Recipe: 'static {
    /// The records.
    type Item: Send + 'static;
    /// Adds the tasklets to `job`.
    fn build<D: Push<Self::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    );
    /// The workers that instances of a chain behind this stream run on.
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize>;
}

type Deferred = Box<dyn FnOnce(&mut Job, usize, &Latency)>;

/// A dataflow under construction: its sinks, and through them all that leads there.
pub struct Flow {
    name: String,
    parallelism: usize,
    sinks: Rc<RefCell<Vec<Deferred>>>,
}

impl Flow {
    /// An empty flow. Parallelism is 1: the whole flow is one chain on one thread.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_string(), parallelism: 1, sinks: Rc::default() }
    }

    /// Runs what stands behind a key exchange in this many instances.
    pub fn parallelism(mut self, instances: usize) -> Self {
        self.parallelism = instances.max(1);
        self
    }

    /// A source that the service pushes into.
    pub fn channel<T: Send + 'static>(&self) -> (Input<T>, Stream<impl Recipe<Item = T> + use<T>>) {
        let (input, start, ring) = channel::channel();
        (input, self.stream(FromChannel { ring, start }))
    }

    /// A sink that the service reads results from, to be given to [`Stream::sink`].
    pub fn output<T: Send + 'static>(&self) -> (impl Sink<T> + use<T>, Output<T>) {
        let (parts, output) = channel::output();
        (ChannelSinkParts(Some(parts)), output)
    }

    fn stream<R: Recipe>(&self, recipe: R) -> Stream<R> {
        Stream { recipe, sinks: self.sinks.clone() }
    }

    fn assemble(self, mut job: Job) -> (Job, Latency) {
        let latency = Latency::default();
        for sink in self.sinks.take() {
            sink(&mut job, self.parallelism, &latency);
        }
        (job, latency)
    }

    /// Starts the flow on its threads.
    pub fn start(self, config: Config) -> Result<Query, EngineError> {
        let workers = config.workers.max(self.parallelism);
        let job = Job::new(&self.name, Config { workers, ..config })?;
        let (job, latency) = self.assemble(job);
        Ok(Query { running: job.start()?, latency })
    }

    /// Runs the flow to its end on this thread, in a world where every step follows from `seed`.
    /// For tests: all inputs must be dropped before, so that the flow has an end.
    pub fn simulate(self, config: Config, seed: u64) -> Result<(), EngineError> {
        let world = Arc::new(SimEnv::new(seed));
        let workers = config.workers.max(self.parallelism);
        let job = Job::in_env(&self.name, Config { workers, ..config }, world.clone())?;
        self.assemble(job).0.simulate(&world, seed)
    }
}

/// A started flow. Dropping it stops it at the next epoch.
pub struct Query {
    running: RunningJob,
    latency: Latency,
}

impl Query {
    /// Stops at the next epoch and waits for it.
    pub fn stop(&self) -> Result<(), EngineError> {
        self.running.stop()
    }

    /// Waits for the end: all inputs dropped, a stop, or a failure.
    pub fn await_termination(&self) -> Result<(), EngineError> {
        self.running.wait(None).unwrap_or(Ok(()))
    }

    /// Blocks until all that was pushed before the call is processed and committed.
    pub fn process_all_available(&self) -> Result<(), EngineError> {
        self.running.process_all_available()
    }

    /// The failure that ended the query, if one did.
    pub fn exception(&self) -> Option<EngineError> {
        self.running.outcome().and_then(Result::err)
    }

    /// Latency from push to sink, up to the last epoch.
    pub fn latency(&self) -> Percentiles {
        self.latency.percentiles()
    }
}

/// Where a stream can end.
pub trait Sink<T>: 'static {
    /// The last stage.
    type Stage: Push<T> + 'static;
    /// Makes the stage of one instance. There is one instance unless the sink can be copied.
    fn stage(&mut self, latency: &Latency, env: Arc<dyn Env>) -> Self::Stage;
    /// Whether every instance of the chain may have its own.
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

/// The parts of a channel sink, until its one stage is made.
struct ChannelSinkParts<T>(Option<OutputParts<T>>);

impl<T: Send + 'static> Sink<T> for ChannelSinkParts<T> {
    type Stage = ChannelSink<T>;
    fn stage(&mut self, latency: &Latency, env: Arc<dyn Env>) -> ChannelSink<T> {
        let Some(OutputParts { ring, reader, producer }) = self.0.take() else {
            unreachable!("a channel sink has one instance")
        };
        let latency = latency.recorder(env);
        ChannelSink { ring, reader, producer, spill: VecDeque::new(), latency }
    }
    fn is_parallel(&self) -> bool {
        false
    }
}

/// An unbounded sequence of records.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<R> {
    recipe: R,
    sinks: Rc<RefCell<Vec<Deferred>>>,
}

impl<R: Recipe> Stream<R> {
    fn with<S: Recipe>(self, make: impl FnOnce(R) -> S) -> Stream<S> {
        Stream { recipe: make(self.recipe), sinks: self.sinks }
    }

    /// Each record through a function.
    pub fn map<U, F>(self, f: F) -> Stream<impl Recipe<Item = U>>
    where
        U: Send + 'static,
        F: FnMut(R::Item) -> U + Clone + Send + 'static,
    {
        self.with(|up| MapRecipe { up, f, item: PhantomData })
    }

    /// The records for which the function is true.
    pub fn filter<F>(self, f: F) -> Stream<impl Recipe<Item = R::Item>>
    where
        F: FnMut(&R::Item) -> bool + Clone + Send + 'static,
    {
        self.with(|up| FilterRecipe { up, f })
    }

    /// Each record into any number of records.
    pub fn flat_map<I, F>(self, f: F) -> Stream<impl Recipe<Item = I::Item>>
    where
        I: IntoIterator + 'static,
        I::Item: Send + 'static,
        F: FnMut(R::Item) -> I + Clone + Send + 'static,
    {
        self.with(|up| FlatMapRecipe { up, f, item: PhantomData })
    }

    /// The records of both streams, each stream's in its own order.
    pub fn union<S: Recipe<Item = R::Item>>(
        self,
        other: Stream<S>,
    ) -> Stream<impl Recipe<Item = R::Item>> {
        self.with(|left| UnionRecipe { left, right: other.recipe })
    }

    /// Gives each record a key; records of one key are processed in one place, in order.
    pub fn key_by<K, F>(self, key: F) -> KeyedStream<R, F>
    where
        K: Hash + Eq + Clone + Send + 'static,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
    {
        KeyedStream { up: self, key }
    }

    /// Ends the stream: in a function called with each record on the worker's thread, or in an
    /// [`output`](Flow::output).
    pub fn sink<S: Sink<R::Item>>(self, mut sink: S) {
        let recipe = self.recipe;
        self.sinks.borrow_mut().push(Box::new(move |job, parallelism, latency| {
            if sink.is_parallel() || recipe.places(job, parallelism).len() == 1 {
                recipe.build(job, parallelism, &mut |job, _| sink.stage(latency, job.env()));
            } else {
                let gather = GatherRecipe { up: recipe };
                gather.build(job, parallelism, &mut |job, _| sink.stage(latency, job.env()));
            }
        }));
    }
}

/// A stream whose records have keys.
#[must_use = "a keyed stream does nothing until it is aggregated"]
pub struct KeyedStream<R, F> {
    up: Stream<R>,
    key: F,
}

impl<R: Recipe, F> KeyedStream<R, F> {
    /// A running aggregate: after each record, its key and the key's new value.
    pub fn aggregate<K, A>(self, aggregate: A) -> Stream<impl Recipe<Item = (K, A::Output)>>
    where
        K: Hash + Eq + Clone + Send + 'static,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        A: Aggregate<R::Item>,
    {
        let key = self.key;
        self.up.with(|up| AggregateRecipe { up, key, aggregate, types: PhantomData })
    }
}

struct FromChannel<T> {
    ring: millstream_engine::ring::Consumer<(T, u64)>,
    start: channel::Start,
}

impl<T: Send + 'static> Recipe for FromChannel<T> {
    type Item = T;
    fn build<D: Push<T> + 'static>(
        self,
        job: &mut Job,
        _parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let down = chain(job, 0);
        let source = ChannelSource::new(self.ring, self.start, job.env());
        let port = job.source_port(0);
        job.seat(0, Box::new(SourceTasklet::new(port, source, down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
}

struct MapRecipe<R, F, U> {
    up: R,
    f: F,
    item: PhantomData<fn() -> U>,
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
}

struct FilterRecipe<R, F> {
    up: R,
    f: F,
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
}

struct FlatMapRecipe<R, F, I> {
    up: R,
    f: F,
    item: PhantomData<fn() -> I>,
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
}

/// Any item to lane 0: for rings that have one consumer.
fn only_lane<T>(_item: &T, _lanes: usize) -> usize {
    0
}

/// Puts a queue behind `up`, one ring per instance, ending at the tasklet on `consumer`.
fn into_rings<R: Recipe>(
    up: R,
    job: &mut Job,
    parallelism: usize,
    consumer: usize,
) -> Vec<millstream_engine::exchange::Inlet<R::Item>> {
    let places = up.places(job, parallelism);
    let (outboxes, inlets) = job.rings(&places, &[consumer]);
    let mut outboxes = outboxes.into_iter();
    up.build(job, parallelism, &mut |_, _| match outboxes.next() {
        Some(outbox) => Exchange::new(outbox, only_lane::<R::Item>),
        None => unreachable!("a recipe makes as many chains as it has places"),
    });
    inlets.into_iter().flatten().collect()
}

struct UnionRecipe<L, R> {
    left: L,
    right: R,
}

impl<L: Recipe, R: Recipe<Item = L::Item>> Recipe for UnionRecipe<L, R> {
    type Item = L::Item;
    fn build<D: Push<L::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let mut inlets = into_rings(self.left, job, parallelism, 0);
        inlets.extend(into_rings(self.right, job, parallelism, 0));
        let down = chain(job, 0);
        let port = job.tasklet_port();
        job.seat(0, Box::new(InboxTasklet::new(port, "union".to_string(), inlets, down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
}

/// Brings all instances together in one.
struct GatherRecipe<R> {
    up: R,
}

impl<R: Recipe> Recipe for GatherRecipe<R> {
    type Item = R::Item;
    fn build<D: Push<R::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let inlets = into_rings(self.up, job, parallelism, 0);
        let down = chain(job, 0);
        let port = job.tasklet_port();
        job.seat(0, Box::new(InboxTasklet::new(port, "gather".to_string(), inlets, down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
}

struct AggregateRecipe<R, F, K, A> {
    up: R,
    key: F,
    aggregate: A,
    types: PhantomData<fn() -> K>,
}

impl<R, F, K, A> Recipe for AggregateRecipe<R, F, K, A>
where
    R: Recipe,
    K: Hash + Eq + Clone + Send + 'static,
    F: FnMut(&R::Item) -> K + Clone + Send + 'static,
    A: Aggregate<R::Item>,
{
    type Item = (K, A::Output);
    fn build<D: Push<(K, A::Output)> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let (key, aggregate) = (self.key, self.aggregate);
        let mut running = |job: &mut Job, i| {
            let down = chain(job, i);
            Running { aggregate: aggregate.clone(), states: Default::default(), down }
        };
        let with_key = move |mut key: F| move |item: R::Item| (key(&item), item);
        if parallelism == 1 && self.up.places(job, 1).len() == 1 {
            // One instance on either side: no exchange, so no queue.
            let mut chain =
                |job: &mut Job, i| Map { f: with_key(key.clone()), down: running(job, i) };
            self.up.build(job, parallelism, &mut chain);
            return;
        }
        let places: Vec<usize> = (0..parallelism).map(|i| i % job.workers()).collect();
        let producers = self.up.places(job, parallelism);
        let (outboxes, inlets) = job.rings::<(K, R::Item)>(&producers, &places);
        for (i, inlets) in inlets.into_iter().enumerate() {
            let down = running(job, i);
            let port = job.tasklet_port();
            let name = format!("aggregate {i}");
            job.seat(places[i], Box::new(InboxTasklet::new(port, name, inlets, down)));
        }
        let mut outboxes = outboxes.into_iter();
        self.up.build(job, parallelism, &mut |_, _| match outboxes.next() {
            Some(outbox) => Map {
                f: with_key(key.clone()),
                down: Exchange::new(outbox, |item: &(K, R::Item), lanes| {
                    instance_of(hash_key(&item.0), lanes)
                }),
            },
            None => unreachable!("a recipe makes as many chains as it has places"),
        });
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        (0..parallelism).map(|i| i % job.workers()).collect()
    }
}
