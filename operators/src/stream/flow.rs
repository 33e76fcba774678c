//! Building a flow and running it.

use super::channel::{
    self, ChannelSink, ChannelSource, Input, Output, OutputParts, QueryEnd, QueryEndNotifier,
    Receiver, UnreadOutputWatch,
};
use crate::event_time::future_skew::{FutureSkewFilter, FutureSkewLimit};
use crate::event_time::watermark::{MakeEventTimeFn, WatermarkAssigner};
use crate::stream::keyed_input::OneInput;
use crate::stream::keyed_state::{Checkpointed, InMemory, StateBackend};
use crate::stream::operator::aggregate::{Aggregate, Running};
use crate::stream::operator::combine::{Combine, CombineRecipe};
use crate::stream::operator::process::Processor;
use crate::stream::operator::processor_recipe::ProcessRecipe;
use crate::stream::operator::stateless::{Call, Filter, FlatMap, Map};
use crate::stream::operator::two_input_processor::one_input;
use crate::stream::processor_state::{Kept, States};
use crate::stream::source::iterator::IteratorSource;
use millstream_engine::checkpoint::QueryDescription;
use millstream_engine::checkpoint::key_group::{hash_key, instance_of};
use millstream_engine::env::{Env, SimEnv};
use millstream_engine::epoch::committed_epoch::CommittedEpoch;
use millstream_engine::error::EngineError;
use millstream_engine::measure::latency::{Latency, Percentiles};
use millstream_engine::measure::stall::Stall;
use millstream_engine::runtime::exchange::Exchange;
use millstream_engine::runtime::job::{Config, Job, RunningJob};
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::{InboxTasklet, SourceTasklet};
use std::cell::RefCell;
use std::hash::Hash;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Builds a chain behind a stream and assigns its tasklets to workers.
///
/// `chain` creates the chain of one instance and is called once per instance.
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
    /// The worker of each instance of a chain behind this stream.
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize>;
    /// Adds to the checkpoint manifest, in the order in which [`build`](Self::build) creates
    /// operators.
    fn describe(&self, kept: &mut CheckpointManifest);
    /// Whether an event time was declared upstream, so that there is a watermark.
    fn has_event_time(&self) -> bool;
    /// The event time of the records; `None` after an operation that changes the record type.
    fn event_time(&self) -> Option<MakeEventTimeFn<Self::Item>> {
        None
    }
    /// How far event times of later records may be behind the watermark that arrives with them, in
    /// microseconds. A join releases rows that are older than the watermark.
    fn watermark_lag_us(&self) -> i64 {
        0
    }
}

/// The checkpoint manifest of a flow: what its checkpoint depends on.
#[derive(Default)]
pub struct CheckpointManifest {
    pub(super) shape: QueryDescription,
    /// Whether an aggregate keeps its state only in memory.
    pub(super) has_unpersisted_state: bool,
    /// Why an operator cannot be started.
    pub(super) refused: Option<EngineError>,
}

/// A stream that ends in a sink.
trait SinkChain {
    fn describe(&self, kept: &mut CheckpointManifest);
    fn build(self: Box<Self>, job: &mut Job, parallelism: usize, latency: &Latency);
}

struct StreamWithSink<R, S> {
    recipe: R,
    sink: S,
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

/// A dataflow under construction. `C` is [`Checkpointed`] if the flow keeps its state in a
/// checkpoint.
pub struct Flow<C = InMemory> {
    name: String,
    parallelism: usize,
    checkpoint: Option<PathBuf>,
    sinks: Rc<RefCell<Vec<Box<dyn SinkChain>>>>,
    ending: QueryEndNotifier,
    unread_timeout: Duration,
    kind: PhantomData<fn() -> C>,
}

/// See [`Flow::unread_output_timeout`].
const UNREAD_TIMEOUT: Duration = Duration::from_secs(5);

impl Flow {
    /// Creates an empty flow. Parallelism is 1: the whole flow is one chain on one thread.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            parallelism: 1,
            checkpoint: None,
            sinks: Rc::default(),
            ending: QueryEndNotifier::default(),
            unread_timeout: UNREAD_TIMEOUT,
            kind: PhantomData,
        }
    }
}

impl<C: 'static> Flow<C> {
    /// Sets the number of instances of operators behind a key exchange.
    pub fn parallelism(mut self, instances: usize) -> Self {
        self.parallelism = instances.max(1);
        self
    }

    /// Sets how long [`Query::await_termination`] and [`Query::process_all_available`] wait while
    /// an output is full and unread, before they return `OUTPUT_NOT_READ`. The default is 5
    /// seconds. The query itself continues when the output is read. An output that another thread
    /// has waited for counts as read, however slow that thread is.
    pub fn unread_output_timeout(mut self, timeout: Duration) -> Self {
        self.unread_timeout = timeout;
        self
    }

    /// Keeps the state of aggregates and processors in a checkpoint folder, and resumes from it.
    /// Call this before the first stream is created, because keys and states must then be types
    /// that serde can write. Records that were pushed into a channel but are in no committed epoch
    /// when the process dies must be pushed again; [`Input::committed`] returns how many were
    /// committed.
    ///
    /// The compiler refuses a key that serde cannot read back:
    ///
    /// ```compile_fail,E0277
    /// use millstream::stream::{Count, Flow};
    ///
    /// let flow = Flow::new("words").checkpoint("/var/lib/words");
    /// let (_, words) = flow.channel::<&'static str>();
    /// words.key_by(|word| *word).aggregate(Count).sink(|_| {});
    /// ```
    pub fn checkpoint(self, folder: impl Into<PathBuf>) -> Flow<Checkpointed> {
        let Self { name, parallelism, sinks, ending, unread_timeout, .. } = self;
        let (checkpoint, kind) = (Some(folder.into()), PhantomData);
        Flow { name, parallelism, checkpoint, sinks, ending, unread_timeout, kind }
    }

    /// A source that the service pushes into, with the handle for pushing.
    pub fn channel<T: Send + 'static>(
        &self,
    ) -> (Input<T>, Stream<impl Recipe<Item = T> + use<T, C>, C>) {
        let (input, from) = channel::channel();
        (input, self.stream(FromChannel { from }))
    }

    /// A source that reads an iterator as fast as the query can. The stream ends with the iterator.
    /// A restart from a checkpoint skips the items of committed epochs, so the iterator must yield
    /// the same items again.
    pub fn items<I>(&self, items: I) -> Stream<impl Recipe<Item = I::Item> + use<I, C>, C>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
    {
        self.stream(FromItems(items.into_iter()))
    }

    /// A source in parts: `part` returns an iterator for each number below `parts`. Each part is
    /// read on one worker, as fast as the query can. A restart from a checkpoint needs the same
    /// number of parts, each with the same items.
    pub fn partitions<I, M>(
        &self,
        parts: usize,
        part: M,
    ) -> Stream<impl Recipe<Item = I::Item> + use<I, M, C>, C>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
        M: Fn(usize) -> I + 'static,
    {
        self.stream(FromParts { parts: parts.max(1), part: move |number| part(number).into_iter() })
    }

    /// A sink whose results the service reads, to be passed to [`Stream::sink`].
    pub fn output<T: Send + 'static>(&self) -> (impl Sink<T> + use<T, C>, Output<T>) {
        let (parts, output) = channel::output(&self.ending.0);
        (ChannelSinkParts(Some(parts)), output)
    }

    fn stream<R: Recipe>(&self, recipe: R) -> Stream<R, C> {
        Stream { recipe, sinks: self.sinks.clone(), kind: PhantomData }
    }

    fn assemble(self, mut job: Job) -> Result<(Job, QueryParts), EngineError> {
        let latency = Latency::default();
        let sinks = self.sinks.take();
        let mut kept = CheckpointManifest::default();
        sinks.iter().for_each(|sink| sink.describe(&mut kept));
        if let Some(refused) = kept.refused {
            return Err(refused);
        }
        if let Some(folder) = &self.checkpoint {
            if kept.has_unpersisted_state {
                return Err(EngineError::operator(
                    "STATE_NOT_KEPT",
                    "an aggregate is of a stream that was made before the flow had its checkpoint",
                    "Call `checkpoint` first: Flow::new(\"name\").checkpoint(folder)",
                ));
            }
            job.open_checkpoint(Path::new(folder), &kept.shape)?;
        }
        let committed = Arc::new(Mutex::new(None));
        let (last, gathered) = (committed.clone(), latency.clone());
        job.on_commit(move |epoch| {
            gathered.gather();
            *last.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(epoch.clone());
        });
        for sink in sinks {
            sink.build(&mut job, self.parallelism, &latency);
        }
        let (ending, unread_timeout) = (self.ending.0.clone(), self.unread_timeout);
        let ends = self.ending;
        job.on_end(move |outcome| ends.finish(outcome));
        Ok((job, QueryParts { ending, latency, committed, unread_timeout }))
    }

    /// Starts the flow on its threads.
    pub fn start(self, config: Config) -> Result<Query, EngineError> {
        let workers = config.workers.max(self.parallelism);
        let job = Job::new(&self.name, Config { workers, ..config })?;
        let (job, parts) = self.assemble(job)?;
        let releases = OutputReleaseGuard(parts.ending.clone());
        Ok(Query { _releases: releases, running: job.start()?, parts })
    }

    /// Runs the flow to its end on this thread, in a simulated environment in which `seed`
    /// determines every step. For tests: all inputs must be dropped first, so that the flow has an
    /// end.
    pub fn simulate(self, config: Config, seed: u64) -> Result<(), EngineError> {
        self.simulate_in(config, &Arc::new(SimEnv::new(seed)), seed)
    }

    /// Like [`simulate`](Self::simulate), in an existing environment whose clock and files persist
    /// between runs.
    pub fn simulate_in(
        self,
        config: Config,
        world: &Arc<SimEnv>,
        seed: u64,
    ) -> Result<(), EngineError> {
        let workers = config.workers.max(self.parallelism);
        let job = Job::in_env(&self.name, Config { workers, ..config }, world.clone())?;
        self.assemble(job)?.0.simulate(world, seed)
    }
}

/// What a query has besides its threads.
struct QueryParts {
    ending: Arc<QueryEnd>,
    latency: Latency,
    committed: Arc<Mutex<Option<CommittedEpoch>>>,
    unread_timeout: Duration,
}

/// Releases the outputs of a dropped query, so that it can end without readers.
struct OutputReleaseGuard(Arc<QueryEnd>);

impl Drop for OutputReleaseGuard {
    fn drop(&mut self) {
        self.0.release_outputs();
    }
}

/// A started flow. Dropping it [stops](Self::stop) it.
pub struct Query {
    // Dropped before the job, which waits for its threads.
    _releases: OutputReleaseGuard,
    running: RunningJob,
    parts: QueryParts,
}

impl Query {
    /// The last committed epoch: positions, record counts, and metrics of each stateful operator.
    pub fn last_epoch(&self) -> Option<CommittedEpoch> {
        self.parts.committed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Stops at the next epoch and waits for it: sources emit nothing more, and everything they
    /// have emitted is processed and committed. It does not wait for room in an output; results
    /// that do not fit can be read afterwards, like the others, until the [`Output`] is dropped.
    /// Records that were pushed but not taken by the query are dropped ([`Input::committed`]
    /// returns how many were committed).
    pub fn stop(&self) -> Result<(), EngineError> {
        self.parts.ending.release_outputs();
        self.running.stop()
    }

    /// Waits for the end: all inputs are dropped, the query is stopped, or it fails.
    ///
    /// Returns `OUTPUT_NOT_READ` if an output is full and unread: see
    /// [`Flow::unread_output_timeout`]. The query continues and can be waited for again.
    pub fn await_termination(&self) -> Result<(), EngineError> {
        let mut unread = self.unread();
        self.running.wait_unless(|| unread.reason())
    }

    /// Like [`await_termination`](Self::await_termination), for at most `timeout`. Returns whether
    /// the query has ended.
    pub fn await_termination_timeout(&self, timeout: Duration) -> Result<bool, EngineError> {
        if let Some(outcome) = self.parts.ending.outcome() {
            return outcome.clone().map(|()| true);
        }
        self.running.wait(Some(timeout)).transpose().map(|ended| ended.is_some())
    }

    /// Blocks until everything that was pushed before the call is processed and committed.
    ///
    /// Returns `OUTPUT_NOT_READ` like [`await_termination`](Self::await_termination).
    pub fn process_all_available(&self) -> Result<(), EngineError> {
        let mut unread = self.unread();
        self.running.process_all_unless(|| unread.reason())
    }

    fn unread(&self) -> UnreadOutputWatch<'_> {
        UnreadOutputWatch::new(&self.parts.ending, self.parts.unread_timeout)
    }

    /// The failure that ended the query, if one did.
    pub fn exception(&self) -> Option<EngineError> {
        // Outputs learn the failure first, so a caller that has seen it there finds it here.
        self.parts.ending.outcome().cloned().and_then(Result::err)
    }

    /// A notice about cores: pinned workers share one, or workers are not pinned because none is
    /// free.
    pub fn core_notice(&self) -> Option<&str> {
        self.running.core_notice()
    }

    /// Latency from push to sink, up to the last epoch.
    pub fn latency(&self) -> Percentiles {
        self.parts.latency.percentiles()
    }

    /// The slowest records up to the last marker, slowest first, with the causes: at most three,
    /// from different epochs or sinks, each slower than 100 us.
    pub fn slowest(&self) -> Vec<Stall> {
        self.parts.latency.slowest()
    }
}

/// Where a stream can end.
pub trait Sink<T>: 'static {
    /// The last stage.
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
struct ChannelSinkParts<T>(Option<OutputParts<T>>);

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

/// An unbounded sequence of records.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<R, C = InMemory> {
    pub(super) recipe: R,
    sinks: Rc<RefCell<Vec<Box<dyn SinkChain>>>>,
    /// Of the flow.
    kind: PhantomData<fn() -> C>,
}

impl<R: Recipe, C: 'static> Stream<R, C> {
    pub(super) fn with<S: Recipe>(self, make: impl FnOnce(R) -> S) -> Stream<S, C> {
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

    /// The records of both streams. Each stream's records keep their order.
    pub fn union<S: Recipe<Item = R::Item>>(
        self,
        other: Stream<S, C>,
    ) -> Stream<impl Recipe<Item = R::Item>, C> {
        self.with(|left| UnionRecipe { left, right: other.recipe })
    }

    /// Declares the event time of records, in microseconds since 1970. The watermark is the largest
    /// event time minus `delay`. A record at or before the watermark is late.
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

    /// Declares the event time as [`with_watermark`](Self::with_watermark) does, with a limit of how
    /// far ahead of the clock it may be. A record that is further ahead is taken out and counted
    /// ([`EventTimeStats::ahead_of_clock`](millstream_engine::epoch::event_time::EventTimeStats::ahead_of_clock)): it does not move
    /// the watermark, which would make all other records late.
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

    /// As [`with_watermark_and_max_skew`](Self::with_watermark_and_max_skew), with a side output:
    /// `ahead` is called with each record that is taken out, and with the latest event time that was
    /// accepted. It runs on the worker's thread, as a [`sink`](Self::sink) does, and again with
    /// the records that a restart reads again.
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

    /// Partitions the stream by a key. Records of one key are processed by one instance, in order.
    pub fn key_by<K, F>(self, key: F) -> KeyedStream<R, F, C>
    where
        K: Hash + Eq + Clone + Send + 'static,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
    {
        KeyedStream { up: self, key }
    }

    /// Ends the stream in a function, called with each record on the worker's thread, or in an
    /// [`output`](Flow::output).
    pub fn sink<S: Sink<R::Item>>(self, sink: S) {
        self.sinks.borrow_mut().push(Box::new(StreamWithSink { recipe: self.recipe, sink }));
    }
}

/// A stream whose records have keys.
#[must_use = "a keyed stream does nothing until it is aggregated"]
pub struct KeyedStream<R, F, C = InMemory> {
    pub(super) up: Stream<R, C>,
    pub(super) key: F,
}

impl<R: Recipe, F, C: 'static> KeyedStream<R, F, C> {
    /// A running aggregate: emits the key and its new value after each record.
    pub fn aggregate<K, A>(self, aggregate: A) -> Stream<impl Recipe<Item = (K, A::Output)>, C>
    where
        K: Hash + Eq + Clone + Send + 'static,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        A: Aggregate<R::Item>,
        C: StateBackend<K, A::State>,
    {
        let key = self.key;
        self.up.with(|up| AggregateRecipe::<_, _, K, A, C> {
            up,
            key,
            aggregate,
            types: PhantomData,
        })
    }

    /// A running aggregate that may skip intermediate values. With several instances, each instance
    /// pre-aggregates its records by key while more input is available, and sends the partial state
    /// on, so few records cross between workers. With one instance it is
    /// [`aggregate`](Self::aggregate).
    pub fn combine<K, A>(self, aggregate: A) -> Stream<impl Recipe<Item = (K, A::Output)>, C>
    where
        K: Hash + Eq + Clone + Send + 'static,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        A: Combine<R::Item>,
        C: StateBackend<K, A::State>,
    {
        let key = self.key;
        self.up.with(|up| CombineRecipe::<_, _, K, A, C> { up, key, aggregate, types: PhantomData })
    }

    /// Applies a user-defined operator with state and timers for each key. `make` declares the
    /// states and creates the processor that uses them. `name` identifies the operator in
    /// checkpoints.
    pub fn process<K, P>(
        self,
        name: &str,
        make: impl FnOnce(&mut States) -> P,
    ) -> Stream<impl Recipe<Item = P::Output>, C>
    where
        K: Kept + Hash + Eq + Clone,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        P: Processor<K, R::Item>,
    {
        let mut states = States::default();
        let processor = make(&mut states);
        let (name, states) = (name.to_string(), Arc::new(states));
        one_input(self, |input: OneInput<_, _, K>| ProcessRecipe { input, name, states, processor })
    }
}

struct FromChannel<T> {
    from: Receiver<T>,
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
        if let Some(Ok(committed)) = job.resumed_offset().map(|at| at.number()) {
            self.from.resume(committed);
        }
        let source = ChannelSource::new(self.from, job.env());
        let port = job.source_port(0);
        job.add_tasklet(0, Box::new(SourceTasklet::new(port, source, down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        kept.shape.sources.push("channel".to_string());
    }
    fn has_event_time(&self) -> bool {
        false
    }
}

struct FromItems<I>(I);

impl<I: Iterator<Item: Send> + Send + 'static> Recipe for FromItems<I> {
    type Item = I::Item;
    fn build<D: Push<I::Item> + 'static>(
        self,
        job: &mut Job,
        _parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let down = chain(job, 0);
        let port = job.source_port(0);
        job.add_tasklet(0, Box::new(SourceTasklet::new(port, IteratorSource::new(self.0), down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        kept.shape.sources.push("items".to_string());
    }
    fn has_event_time(&self) -> bool {
        false
    }
}

struct FromParts<M> {
    parts: usize,
    part: M,
}

impl<I, M> Recipe for FromParts<M>
where
    I: Iterator<Item: Send> + Send + 'static,
    M: Fn(usize) -> I + 'static,
{
    type Item = I::Item;
    fn build<D: Push<I::Item> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        for (number, worker) in self.places(job, parallelism).into_iter().enumerate() {
            let down = chain(job, number);
            let port = job.source_port(worker);
            let source = IteratorSource::new((self.part)(number));
            job.add_tasklet(worker, Box::new(SourceTasklet::new(port, source, down)));
        }
    }
    fn places(&self, job: &Job, _parallelism: usize) -> Vec<usize> {
        (0..self.parts).map(|number| number % job.workers()).collect()
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        let part = |number| format!("items, part {number} of {}", self.parts);
        kept.shape.sources.extend((0..self.parts).map(part));
    }
    fn has_event_time(&self) -> bool {
        false
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
    fn watermark_lag_us(&self) -> i64 {
        self.up.watermark_lag_us()
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.up.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.up.has_event_time()
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
    fn event_time(&self) -> Option<MakeEventTimeFn<R::Item>> {
        self.up.event_time()
    }
    fn watermark_lag_us(&self) -> i64 {
        self.up.watermark_lag_us()
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.up.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.up.has_event_time()
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
    fn watermark_lag_us(&self) -> i64 {
        self.up.watermark_lag_us()
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.up.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.up.has_event_time()
    }
}

/// Routes every item to lane 0, for exchanges with one consumer.
fn only_lane<T>(_item: &T, _lanes: usize) -> usize {
    0
}

/// Puts an exchange behind `up`, one ring per instance, that ends at the tasklet on `consumer`.
fn into_rings<R: Recipe>(
    up: R,
    job: &mut Job,
    parallelism: usize,
    consumer: usize,
) -> Vec<millstream_engine::runtime::exchange::Inlet<R::Item>> {
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
        let mut timed = Vec::new();
        let (left_timed, right_timed) = (self.left.has_event_time(), self.right.has_event_time());
        // The chain is built first: operators are numbered from the sinks on.
        let down = chain(job, 0);
        let mut inlets = into_rings(self.left, job, parallelism, 0);
        timed.resize(inlets.len(), left_timed);
        inlets.extend(into_rings(self.right, job, parallelism, 0));
        timed.resize(inlets.len(), right_timed);
        let port = job.tasklet_port();
        let inbox = InboxTasklet::new(port, "union".to_string(), inlets, down);
        let inbox = inbox.watermarks(job.watermark_policy(), &timed);
        job.add_tasklet(0, Box::new(inbox));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
    fn watermark_lag_us(&self) -> i64 {
        self.left.watermark_lag_us().max(self.right.watermark_lag_us())
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.left.describe(kept);
        self.right.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.left.has_event_time() || self.right.has_event_time()
    }
    fn event_time(&self) -> Option<MakeEventTimeFn<L::Item>> {
        // The event time of a union is that of its first stream, as in Spark.
        self.left.event_time()
    }
}

/// Merges all instances into one.
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
        let down = chain(job, 0);
        let inlets = into_rings(self.up, job, parallelism, 0);
        let port = job.tasklet_port();
        job.add_tasklet(0, Box::new(InboxTasklet::new(port, "gather".to_string(), inlets, down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
    fn watermark_lag_us(&self) -> i64 {
        self.up.watermark_lag_us()
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.up.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.up.has_event_time()
    }
}

pub(super) struct AggregateRecipe<R, F, K, A, C> {
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

/// The workers of the instances of a keyed operator.
pub(super) fn keyed_workers<R: Recipe>(up: &R, job: &Job, parallelism: usize) -> Vec<usize> {
    match up.places(job, 1) {
        // One instance on either side: no exchange is needed.
        place if parallelism == 1 && place.len() == 1 => place,
        _ => (0..parallelism).map(|i| i % job.workers()).collect(),
    }
}

/// Builds the instances of a keyed operator. If there are several, an exchange by key precedes
/// them; `pair` adds the key to a record, `route` chooses the instance.
pub(super) fn keyed<R, K, M, S>(
    up: R,
    job: &mut Job,
    parallelism: usize,
    name: &str,
    pair: M,
    route: impl FnMut(&(K, R::Item), usize) -> usize + Clone + Send + 'static,
    stages: Vec<S>,
) where
    R: Recipe,
    K: Send + 'static,
    M: FnMut(R::Item) -> (K, R::Item) + Clone + Send + 'static,
    S: Push<(K, R::Item)> + 'static,
{
    let mut stages = stages.into_iter();
    if parallelism == 1 && up.places(job, 1).len() == 1 {
        up.build(job, parallelism, &mut |_, _| match stages.next() {
            Some(down) => Map { f: pair.clone(), down },
            None => unreachable!("a recipe makes as many chains as it has places"),
        });
        return;
    }
    let places: Vec<usize> = (0..parallelism).map(|i| i % job.workers()).collect();
    let producers = up.places(job, parallelism);
    let (outboxes, inlets) = job.rings::<(K, R::Item)>(&producers, &places);
    for (i, (inlets, down)) in inlets.into_iter().zip(stages).enumerate() {
        let port = job.tasklet_port();
        let name = format!("{name} {i}");
        job.add_tasklet(places[i], Box::new(InboxTasklet::new(port, name, inlets, down)));
    }
    let mut outboxes = outboxes.into_iter();
    up.build(job, parallelism, &mut |_, _| match outboxes.next() {
        Some(outbox) => Map { f: pair.clone(), down: Exchange::new(outbox, route.clone()) },
        None => unreachable!("a recipe makes as many chains as it has places"),
    });
}

/// Records that are too far ahead of the clock are only counted.
fn drop_ahead<T>(_: T, _: i64) {}

struct WatermarkRecipe<R, F, A> {
    up: R,
    time: F,
    delay_ms: i64,
    /// The limit on how far ahead of the clock an event time may be, in milliseconds.
    skew_ms: Option<i64>,
    /// Where records that are further ahead go.
    ahead: A,
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
            let resumed = (resumed_us, job.times());
            let continuous = job.trigger().is_continuous();
            let skew =
                skew_ms.map(|ms| FutureSkewLimit::new(ms, job.env(), job.times(), continuous));
            let counts = seen.clone();
            let down =
                WatermarkAssigner::new(time.clone(), delay_ms, continuous, seen, resumed, down);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epochs_latencies_are_taken_up_whether_anybody_asks_for_them_or_not() {
        let flow = Flow::new("unasked");
        let (mut input, numbers) = flow.channel::<u64>();
        numbers.sink(|_: u64| {});
        let trigger = millstream_engine::epoch::trigger::Trigger::AsSoonAsPossible;
        let query = flow.start(Config { pin: false, trigger, ..Config::default() }).unwrap();
        for n in 0..30 {
            input.push(n).unwrap();
            query.process_all_available().unwrap();
            assert!(query.parts.latency.waiting() <= 1, "{n}");
        }
        assert_eq!(query.latency().count, 30);
        query.stop().unwrap();
    }
}
