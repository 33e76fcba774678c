//! Builds a flow and starts it.

use crate::stream::channel::recipe::FromChannel;
use crate::stream::channel::{self, Input, Output, QueryEndNotifier};
use crate::stream::keyed_state::{Checkpointed, InMemory};
use crate::stream::query::{OutputReleaseGuard, Query, QueryParts};
use crate::stream::recipe::{CheckpointManifest, Recipe};
use crate::stream::sink::{ChannelSinkParts, Sink, SinkChain};
use crate::stream::source::recipe::{FromItems, FromParts};
use crate::stream::typed_stream::Stream;
use millstream_engine::env::SimEnv;
use millstream_engine::error::EngineError;
use millstream_engine::measure::latency::Latency;
use millstream_engine::runtime::job::{Config, Job};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A dataflow under construction. `C` is [`Checkpointed`] if the flow keeps its state in a
/// checkpoint.
pub struct Flow<C = InMemory> {
    name: String,
    parallelism: usize,
    checkpoint: Option<PathBuf>,
    sinks: Rc<RefCell<Vec<Box<dyn SinkChain>>>>,
    ending: QueryEndNotifier,
    unread_timeout: Duration,
    idle_timeout: Option<Duration>,
    kind: PhantomData<fn() -> C>,
}

/// The default of [`Flow::unread_output_timeout`].
const UNREAD_TIMEOUT: Duration = Duration::from_secs(5);

impl Flow {
    /// Creates an empty flow with parallelism 1. A flow with one source, of one partition, is then
    /// one chain on one thread.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            parallelism: 1,
            checkpoint: None,
            sinks: Rc::default(),
            ending: QueryEndNotifier::default(),
            unread_timeout: UNREAD_TIMEOUT,
            idle_timeout: None,
            kind: PhantomData,
        }
    }
}

impl<C: 'static> Flow<C> {
    /// Sets the number of instances of operators after a key exchange.
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

    /// Sets after how long without a record a source counts as idle, in continuous mode. An operator
    /// with several inputs then ignores the watermark of the idle one, whose next records may be
    /// late. By default a source never counts as idle, so a join waits for a silent side for ever.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Stores the flow's state and offsets in a checkpoint folder, and resumes from it. Call this
    /// before the first stream is created, because keys and states must then be types that serde
    /// can write. Records that were pushed into a channel but are in no committed epoch when the
    /// process dies must be pushed again; [`Input::committed`] returns how many were committed.
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
        let Self { name, parallelism, sinks, ending, unread_timeout, idle_timeout, .. } = self;
        let (checkpoint, kind) = (Some(folder.into()), PhantomData);
        Flow { name, parallelism, checkpoint, sinks, ending, unread_timeout, idle_timeout, kind }
    }

    /// Creates a source into which the embedding program pushes records. Returns its stream and the
    /// handle for pushing.
    pub fn channel<T: Send + 'static>(
        &self,
    ) -> (Input<T>, Stream<impl Recipe<Item = T> + use<T, C>, C>) {
        let (input, from) = channel::channel();
        (input, self.stream(FromChannel { from }))
    }

    /// Creates a source that reads an iterator as fast as the query can. The stream ends with the
    /// iterator. A restart from a checkpoint skips the items of committed epochs, so the iterator
    /// must yield the same items again.
    pub fn items<I>(&self, items: I) -> Stream<impl Recipe<Item = I::Item> + use<I, C>, C>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
    {
        self.stream(FromItems(items.into_iter()))
    }

    /// Creates a partitioned source: `part` returns an iterator for each number below `parts`. Each
    /// partition is read on one worker, as fast as the query can. A restart from a checkpoint needs
    /// the same number of partitions, each with the same items.
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

    /// Creates a sink whose results the embedding program reads. Returns the sink, to be passed to
    /// [`Stream::sink`], and the output to read from.
    pub fn output<T: Send + 'static>(&self) -> (impl Sink<T> + use<T, C>, Output<T>) {
        let (parts, output) = channel::output(&self.ending.0);
        (ChannelSinkParts(Some(parts)), output)
    }

    /// Creates the stream of a source.
    pub(crate) fn stream<R: Recipe>(&self, recipe: R) -> Stream<R, C> {
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
                    "an aggregate was added before the flow had a checkpoint",
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
        let saturated = |timeout: Duration| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        job.set_idle_timeout(self.idle_timeout.map(saturated));
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
