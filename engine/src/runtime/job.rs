//! A job: tasklets, the rings between them, and the driver. A job runs on pinned threads
//! ([`Job::start`]), or step by step from a seed ([`Job::simulate`]).

use crate::checkpoint::offset::Offset;
use crate::checkpoint::{
    CanCommit, Checkpoint, QueryDescription, Recovery, UnfinishedEpoch, staged_by_another_sink,
};
use crate::cores::{self, Claim, Core};
use crate::env::{Env, RealEnv, SimEnv};
use crate::epoch::committed_epoch::CommittedEpoch;
use crate::epoch::driver::{Driver, DriverParts, Tick};
use crate::epoch::event_time::{BatchTimes, EventTimeReporter, ResumedTime, WatermarkTracker};
use crate::epoch::open_sources::OpenSources;
use crate::epoch::phase::{Phase, PhaseCell};
use crate::epoch::protocol::{Command, Report};
use crate::epoch::sink_log::SinkLog;
use crate::epoch::source_offsets::{MergeOffsets, SourceOffsets};
use crate::epoch::trigger::Trigger;
use crate::epoch::watermark_policy::WatermarkPolicy;
use crate::error::EngineError;
use crate::runtime::exchange::{Inlet, Outbox, connect};
use crate::runtime::simulation;
use crate::runtime::state_log::StateLog;
use crate::runtime::tasklet::{SourcePort, Tasklet, TaskletPort};
use crate::runtime::worker::{EndFlags, WaitProfile, Worker, panic_message};
use crate::sync::waker::Waker;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

/// The configuration of a job: workers, waiting and trigger.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of workers, at least one. [`Job::new`] caps it ([`Config::capped_workers`]).
    pub workers: usize,
    /// Whether workers are pinned to cores.
    pub pin: bool,
    /// The cores to which workers may be pinned; if none of them is free, workers share one.
    /// `None`: all cores that the process may use; a worker without a free core, or beyond the CPU
    /// quota, is not pinned.
    pub cores: Option<Vec<usize>>,
    /// How workers wait when there is no work.
    pub wait: WaitProfile,
    /// The trigger, which decides when epochs happen.
    pub trigger: Trigger,
    /// Whether workers record why the slowest records were slow.
    pub record_stalls: bool,
}

impl Default for Config {
    /// The default: one pinned worker with balanced waiting, and an epoch every second.
    fn default() -> Self {
        Self {
            workers: 1,
            pin: true,
            cores: None,
            wait: WaitProfile::Balanced,
            trigger: Trigger::Continuous { interval_ns: 1_000_000_000 },
            record_stalls: true,
        }
    }
}

impl Config {
    /// The number of workers of a job in the real environment: as configured, but at most the
    /// usable cores and the listed cores.
    pub fn capped_workers(&self) -> usize {
        let listed = self.cores.as_ref().map_or(usize::MAX, Vec::len);
        self.workers.min(cores::usable()).min(listed).max(1)
    }
}

/// The driver of a job and its workers, ready to run.
struct DriverAndSeats {
    driver: Driver,
    seats: Vec<SeatedTasklet>,
    /// The receiving end of the tasklets' reports.
    inbox: Receiver<Report>,
    reports: Sender<Report>,
}

struct SeatedTasklet {
    poll: Option<mio::Poll>,
    waker: Waker,
    tasklets: Vec<Box<dyn Tasklet>>,
}

/// What a join of two streams does when its buffered rows have reached their limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStateLimit {
    /// Continuous mode: pauses the input that is ahead in event time until memory is free or the
    /// other one has caught up. If no rows expire, the query ends with an error. In micro-batch
    /// mode, and if one source feeds both inputs, there is no limit.
    Hold,
    /// Ends the query with an error.
    Fail,
}

/// The limit for the memory of a join's buffered rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimit {
    /// Limit per join, divided equally among its instances, in bytes.
    pub bytes: u64,
    /// What happens at the limit.
    pub then: AtStateLimit,
}

/// The order of the results of a join of two streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinOrder {
    /// Results are ordered within each instance, not between instances.
    #[default]
    OfInstances,
    /// Results have the order of the rows that complete them, whatever the parallelism.
    OfInput,
}

impl JoinOrder {
    /// Whether a join reads its inputs one after another: in micro-batch mode, if the order is
    /// [`OfInput`](Self::OfInput).
    pub fn reads_one_after_another(self, trigger: Trigger) -> bool {
        self == Self::OfInput && !trigger.is_continuous()
    }
}

type OnEnd = Box<dyn FnOnce(&Result<(), EngineError>) + Send>;

/// A job under construction.
pub struct Job {
    name: String,
    env: Arc<dyn Env>,
    config: Config,
    seats: Vec<SeatedTasklet>,
    sources: Vec<(Sender<Command>, Waker)>,
    source_offsets: SourceOffsets,
    tasklets: usize,
    operators: usize,
    /// For each join of two inputs, its number and the event times of each input.
    joins: Vec<(usize, [Range<usize>; 2])>,
    time: WatermarkTracker,
    idle_after_ns: Option<u64>,
    partition_idle_after_ns: Option<u64>,
    state_limit: Option<StateLimit>,
    join_order: JoinOrder,
    runs_empty_batch: bool,
    checkpoint: Option<Checkpoint>,
    recovery: Recovery,
    sink: Option<Box<dyn SinkLog>>,
    on_commit: Box<dyn FnMut(&CommittedEpoch) + Send>,
    on_end: OnEnd,
    // The channel type is unbounded, but the protocol bounds the messages: one epoch is in flight
    // at a time, and each tasklet sends a few messages per epoch.
    reports: (Sender<Report>, Receiver<Report>),
}

impl Job {
    /// Creates a job without tasklets, in the real environment. The number of workers is capped at
    /// the usable cores and at the listed cores.
    pub fn new(name: &str, config: Config) -> Result<Self, EngineError> {
        let workers = config.capped_workers();
        Self::in_env(name, Config { workers, ..config }, Arc::new(RealEnv::default()))
    }

    /// Creates a job in an environment, with exactly as many workers as configured, at least one.
    pub fn in_env(name: &str, config: Config, env: Arc<dyn Env>) -> Result<Self, EngineError> {
        let workers = config.workers.max(1);
        let seats = (0..workers)
            .map(|_| {
                let (poll, waker) = env.create_poller()?;
                Ok(SeatedTasklet { poll, waker, tasklets: Vec::new() })
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Self {
            name: name.to_string(),
            env,
            config,
            seats,
            sources: Vec::new(),
            source_offsets: SourceOffsets::default(),
            tasklets: 0,
            operators: 0,
            joins: Vec::new(),
            time: WatermarkTracker::default(),
            idle_after_ns: None,
            partition_idle_after_ns: None,
            state_limit: None,
            join_order: JoinOrder::default(),
            runs_empty_batch: false,
            checkpoint: None,
            recovery: Recovery::default(),
            sink: None,
            on_commit: Box::new(|_| {}),
            on_end: Box::new(|_| {}),
            reports: unbounded(),
        })
    }

    /// The environment of the job.
    pub fn env(&self) -> Arc<dyn Env> {
        self.env.clone()
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.seats.len()
    }

    /// The trigger of the job.
    pub fn trigger(&self) -> Trigger {
        self.config.trigger
    }

    /// The waker of a worker, by the worker's number.
    pub fn waker(&self, worker: usize) -> &Waker {
        &self.seats[worker].waker
    }

    /// Opens or creates the checkpoint in a folder. Call this before sources, operators and event
    /// times are added. Fails with `CHECKPOINT_QUERY_CHANGED` if an earlier run's sink has staged
    /// output that is not committed: a job without a transactional sink cannot commit it.
    pub fn open_checkpoint(
        &mut self,
        folder: &Path,
        shape: &QueryDescription,
    ) -> Result<(), EngineError> {
        self.open_checkpoint_of_sink(folder, shape, &mut |prepared| {
            Err(staged_by_another_sink(prepared.epoch, folder, "not transactional"))
        })
    }

    /// Like [`open_checkpoint`](Self::open_checkpoint), for a sink that may have lost the output
    /// that it staged in an epoch whose commit is missing. `can_commit` returns whether the sink
    /// has committed that epoch or can still commit it.
    pub fn open_checkpoint_of_sink(
        &mut self,
        folder: &Path,
        shape: &QueryDescription,
        can_commit: &mut CanCommit<'_>,
    ) -> Result<(), EngineError> {
        let (checkpoint, recovery) = Checkpoint::open(self.env.clone(), folder, shape, can_commit)?;
        self.checkpoint = Some(checkpoint);
        // Operators created after this call start with the watermarks of the earlier run, because a
        // row may reach an operator before its source has reported its event time.
        self.time.resume(ResumedTime {
            last_ms: recovery.watermark_ms,
            next_ms: recovery.next_watermark_ms,
            owes_late_emission: recovery.owes_late_emission,
        });
        self.recovery = recovery;
        Ok(())
    }

    /// The id of the query in the checkpoint; `None` without a checkpoint.
    pub fn checkpoint_id(&self) -> Option<&str> {
        self.checkpoint.as_ref().map(Checkpoint::id)
    }

    /// The first epoch that this run processes.
    pub fn next_epoch(&self) -> u64 {
        self.recovery.next_epoch
    }

    /// The epoch that an earlier run began and did not commit; `None` if there is none.
    pub fn unfinished(&self) -> Option<&UnfinishedEpoch> {
        self.recovery.unfinished.as_ref()
    }

    /// Folder in which the next source keeps its files; `None` without a checkpoint.
    pub fn source_folder(&self) -> Option<PathBuf> {
        self.checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.source_folder(self.source_offsets.count()))
    }

    /// Adds a stateful operator; operators are numbered in the order of these calls. Returns a
    /// state log for each instance.
    pub fn operator(&mut self, instances: usize) -> Vec<StateLog> {
        let operator = self.operators;
        self.operators += 1;
        let log = |instance| {
            let snapshot = self.checkpoint.as_ref().map(|checkpoint| checkpoint.snapshot(operator));
            let log =
                StateLog::new(operator, (instance, instances), snapshot, self.reports.0.clone());
            log.with_max_keys_per_step(self.env.max_keys_per_step())
        };
        (0..instances).map(log).collect()
    }

    /// The number of stateful operators so far, which is the number of the next one.
    pub fn operators(&self) -> usize {
        self.operators
    }

    /// The number of event times so far: of inputs, and of partitions with a watermark of their own.
    pub fn event_times(&self) -> usize {
        self.time.inputs()
    }

    /// Declares which event times the inputs of a join have, for its metrics: for each input, a range
    /// of the numbers in the order in which the event times were added.
    pub fn set_join_event_times(&mut self, operator: usize, inputs: [Range<usize>; 2]) {
        self.joins.retain(|(other, _)| *other != operator);
        self.joins.push((operator, inputs));
    }

    /// The times of the current batch.
    pub fn times(&self) -> BatchTimes {
        self.time.times()
    }

    /// Sets how the watermarks of several inputs are combined.
    pub fn set_watermark_policy(&mut self, policy: WatermarkPolicy) {
        self.time.set_policy(policy);
    }

    /// Sets after how long without records a source counts as idle in continuous mode; `None` is
    /// never. Call this before sources are created.
    pub fn set_idle_timeout(&mut self, after_ns: Option<u64>) {
        self.idle_after_ns = after_ns;
    }

    /// Sets the time without records after which a partition no longer holds back the watermark of
    /// its source, in continuous mode. It must be shorter than the idle time-out. Call this
    /// before the source is created.
    pub fn set_partition_idle_timeout(&mut self, after_ns: Option<u64>) {
        self.partition_idle_after_ns = after_ns;
    }

    /// Sets the order of the results of joins. Call this before joins are created.
    pub fn set_join_order(&mut self, order: JoinOrder) {
        self.join_order = order;
    }

    /// The order of the results of joins.
    pub fn join_order(&self) -> JoinOrder {
        self.join_order
    }

    /// Sets the limit for the memory of a join's buffered rows. Call this before joins are created.
    pub fn set_state_limit(&mut self, limit: Option<StateLimit>) {
        self.state_limit = limit;
    }

    /// The limit for the memory of a join's buffered rows.
    pub fn state_limit(&self) -> Option<StateLimit> {
        self.state_limit
    }

    /// The idle time-out, in nanoseconds; `None` is never.
    pub fn idle_timeout(&self) -> Option<u64> {
        self.idle_after_ns
    }

    /// How the watermarks of several inputs are combined.
    pub fn watermark_policy(&self) -> WatermarkPolicy {
        self.time.policy()
    }

    /// Adds an input with an event time, whose watermark is delayed by `delay_ms`.
    pub fn event_time(&mut self, delay_ms: i64) -> EventTimeReporter {
        self.time.input(delay_ms)
    }

    /// Adds a partition, with a watermark of its own, to the input that was added last.
    pub fn event_time_of_partition(&mut self, delay_ms: i64) -> EventTimeReporter {
        self.time.partition(delay_ms)
    }

    /// Registers that an operator emits rows or evicts state when the watermark advances.
    /// Micro-batch mode then runs batches without new records for it.
    pub fn request_no_data_batches(&mut self) {
        self.time.request_no_data_batches();
    }

    /// Disables micro-batches without new records, also those that operators have requested.
    pub fn disable_no_data_batches(&mut self) {
        self.time.disable_no_data_batches();
    }

    /// Runs the first micro-batch that this run plans even if no source has a record. A query over
    /// bounded tables needs this, because an aggregation without keys has one row even for empty
    /// input.
    pub fn run_empty_batch(&mut self) {
        self.runs_empty_batch = true;
    }

    /// The watermark with which the next epoch starts, as recorded by the last committed epoch, in
    /// milliseconds since 1970; 0 without an earlier run.
    pub fn resumed_watermark_ms(&self) -> i64 {
        self.recovery.next_watermark_ms
    }

    /// Sets the log of the transactional sink. The sink sends [`Report::Staged`] through the
    /// returned channel.
    pub fn sink_log(&mut self, log: Box<dyn SinkLog>) -> Sender<Report> {
        self.sink = Some(log);
        self.reports.0.clone()
    }

    /// Sets a callback for the epochs that this run processes and commits, called on the driver's
    /// thread.
    pub fn on_commit(&mut self, call: impl FnMut(&CommittedEpoch) + Send + 'static) {
        self.on_commit = Box::new(call);
    }

    /// Sets a callback for the end of the job, called once after its workers have ended. A job that
    /// could not be started does not call it.
    pub fn on_end(&mut self, call: impl FnOnce(&Result<(), EngineError>) + Send + 'static) {
        self.on_end = Box::new(call);
    }

    /// Creates the rings from each of `producers` to each of `consumers` (both worker numbers).
    /// Returns an outbox per producer, and the inlets of each consumer.
    pub fn rings<T: Send>(
        &self,
        producers: &[usize],
        consumers: &[usize],
    ) -> (Vec<Outbox<T>>, Vec<Vec<Inlet<T>>>) {
        let mut inlets: Vec<Vec<Inlet<T>>> = consumers.iter().map(|_| Vec::new()).collect();
        let outboxes = producers.iter().map(|&producer| {
            let lanes = consumers.iter().enumerate().map(|(index, &consumer)| {
                let (outbox, inlet) = connect(self.waker(producer), self.waker(consumer));
                inlets[index].push(inlet);
                outbox
            });
            Outbox::merge(lanes.collect())
        });
        let outboxes = outboxes.collect();
        (outboxes, inlets)
    }

    /// A new tasklet's connection to the driver.
    pub fn tasklet_port(&mut self) -> TaskletPort {
        self.tasklets += 1;
        TaskletPort { id: self.tasklets - 1, reports: self.reports.0.clone() }
    }

    /// Position from which the next source resumes; `None` if no epoch is committed yet.
    pub fn resumed_offset(&self) -> Option<&Offset> {
        self.recovery.offsets.get(self.source_offsets.count())
    }

    /// A new source tasklet's connection to the driver.
    pub fn source_port(&mut self, worker: usize) -> SourcePort {
        self.source_offsets.add();
        self.tasklet_of_source(worker)
    }

    /// The connections of the tasklets of a source, one per worker in the list, whose offsets are
    /// merged to one in the checkpoint. A restart may have another number of tasklets, each of which
    /// resumes from the merged offset.
    pub fn source_ports(&mut self, workers: &[usize], merge: MergeOffsets) -> Vec<SourcePort> {
        self.source_offsets.add_merged(workers.len(), merge);
        workers.iter().map(|worker| self.tasklet_of_source(*worker)).collect()
    }

    /// Connects a tasklet of the last source.
    fn tasklet_of_source(&mut self, worker: usize) -> SourcePort {
        let (commands, inbox) = unbounded();
        self.sources.push((commands, self.waker(worker).clone()));
        let index = self.sources.len() - 1;
        SourcePort {
            index,
            tasklet: self.tasklet_port(),
            commands: inbox,
            continuous: self.config.trigger.is_continuous(),
            resume: self.recovery.offsets.get(self.source_offsets.count() - 1).cloned(),
            idle_after_ns: self.idle_after_ns,
            partition_idle_after_ns: self.partition_idle_after_ns,
            replays: matches!(self.recovery.unfinished, Some(UnfinishedEpoch::Rerun(_))),
        }
    }

    /// Assigns a tasklet to a worker.
    pub fn add_tasklet(&mut self, worker: usize, tasklet: Box<dyn Tasklet>) {
        self.seats[worker].tasklets.push(tasklet);
    }

    /// The tasklets' names by worker, for `explain`.
    pub fn layout(&self) -> Vec<Vec<String>> {
        let names =
            |seat: &SeatedTasklet| seat.tasklets.iter().map(|t| t.name().to_string()).collect();
        self.seats.iter().map(names).collect()
    }

    fn into_driver(self) -> DriverAndSeats {
        let driver = Driver::new(DriverParts {
            trigger: self.config.trigger,
            runs_empty_batch: self.runs_empty_batch,
            sources: self.sources,
            source_offsets: self.source_offsets,
            tasklets: self.tasklets,
            operators: self.operators,
            joins: self.joins,
            env: self.env,
            time: self.time,
            checkpoint: self.checkpoint,
            recovery: self.recovery,
            sink: self.sink,
            on_commit: self.on_commit,
        });
        let (reports, inbox) = self.reports;
        DriverAndSeats { driver, seats: self.seats, inbox, reports }
    }

    /// Starts the threads: one per worker that has tasklets, and the driver's.
    pub fn start(mut self) -> Result<RunningJob, EngineError> {
        let on_end = std::mem::replace(&mut self.on_end, Box::new(|_| {}));
        let (env, config, name) = (self.env.clone(), self.config.clone(), self.name.clone());
        let DriverAndSeats { driver, seats, inbox, reports } = self.into_driver();
        let (phase, open_sources) = (driver.phase(), driver.open_sources());
        let flags = EndFlags::default();
        let busy = seats.iter().filter(|seat| !seat.tasklets.is_empty()).count();
        let claim = match config.pin {
            true => cores::claim(&name, busy, config.cores.as_deref())?,
            false => cores::unpinned(),
        };
        let core_notice = claim.notice().map(str::to_string);
        let wakers: Vec<Waker> = seats.iter().map(|seat| seat.waker.clone()).collect();
        // Declared last, and so dropped first if a thread cannot be started: the workers end before
        // the cores and the checkpoint's lock are released.
        let mut workers = WorkerThreads { threads: Vec::new(), halt: flags.halt.clone(), wakers };
        for (index, seat) in seats.into_iter().enumerate() {
            if seat.tasklets.is_empty() {
                continue;
            }
            let worker = Worker {
                tasklets: seat.tasklets,
                poll: seat.poll,
                waker: seat.waker,
                core: claim.core(workers.threads.len()).map(|id| Core { id }),
                wait: config.wait,
                record_stalls: config.record_stalls,
                env: env.clone(),
                reports: reports.clone(),
                flags: flags.clone(),
            };
            let thread = env.spawn(format!("{name}-w{index}"), Box::new(|| worker.run()))?;
            workers.threads.push(thread);
        }
        let outcome = Arc::new((Mutex::new(None), Condvar::new()));
        let threads = workers.threads.iter();
        let mut own: Vec<ThreadId> = threads.map(|thread| thread.thread().id()).collect();
        let started = StartedJob { _workers: workers, driver, _claim: claim };
        let (shared, open) = (outcome.clone(), open_sources.clone());
        let clock = env.clone();
        let thread = env.spawn(
            format!("{name}-epochs"),
            Box::new(move || {
                let mut started = started;
                let result = drive_guarded(&mut started.driver, &inbox, &*clock);
                drop(started);
                on_end(&result);
                let (slot, changed) = &*shared;
                *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(result);
                changed.notify_all();
                open.close();
            }),
        )?;
        own.push(thread.thread().id());
        let thread = Mutex::new(Some(thread));
        let stopping = flags.stopping;
        let handle = RunningJob {
            reports,
            stopping,
            outcome,
            phase,
            open_sources,
            core_notice,
            own,
            thread,
        };
        Ok(handle)
    }

    /// Runs the job in the simulated environment `world` to its end, on this thread. `seed`
    /// determines the order of the steps.
    pub fn simulate(mut self, world: &SimEnv, seed: u64) -> Result<(), EngineError> {
        let on_end = std::mem::replace(&mut self.on_end, Box::new(|_| {}));
        let DriverAndSeats { driver, seats, inbox, reports: _reports } = self.into_driver();
        let tasklets = seats.into_iter().flat_map(|seat| seat.tasklets).collect();
        let result = simulation::run(driver, tasklets, &inbox, world, seed);
        on_end(&result);
        result
    }
}

/// The started workers. Dropping them ends them.
struct WorkerThreads {
    threads: Vec<JoinHandle<()>>,
    halt: Arc<AtomicBool>,
    wakers: Vec<Waker>,
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        // ORDERING: relaxed: see `Worker::run_tasklets`.
        self.halt.store(true, Ordering::Relaxed);
        self.wakers.iter().for_each(Waker::wake);
        for thread in self.threads.drain(..) {
            // Workers catch their operators' panics; a panic of the worker itself was printed by
            // the panic hook.
            drop(thread.join());
        }
    }
}

/// What the driver's thread owns. The order of the fields is that in which they are dropped: the
/// driver holds the checkpoint's lock, and the claim holds the workers' cores, so both outlive the
/// workers. That applies also if the driver's thread cannot be started.
struct StartedJob {
    _workers: WorkerThreads,
    driver: Driver,
    _claim: Claim,
}

/// Drives the job to its end. A panic on this thread ends the job like one on a worker.
fn drive_guarded(
    driver: &mut Driver,
    inbox: &Receiver<Report>,
    env: &dyn Env,
) -> Result<(), EngineError> {
    // A driver that panicked is dropped, so its broken state is never used.
    let run = AssertUnwindSafe(|| drive(driver, inbox, env));
    catch_unwind(run).unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        Err(EngineError::Panic { tasklet: "epochs".to_string(), message })
    })
}

fn drive(driver: &mut Driver, inbox: &Receiver<Report>, env: &dyn Env) -> Result<(), EngineError> {
    loop {
        let now_ns = env.now_ns();
        let wait_ns = match driver.tick(now_ns) {
            Tick::Finished(result) => return result,
            Tick::Wait(until_ns) => until_ns.map(|at_ns| at_ns.saturating_sub(now_ns)),
        };
        let report = match wait_ns {
            Some(wait_ns) => inbox.recv_timeout(Duration::from_nanos(wait_ns)),
            None => inbox.recv().map_err(RecvTimeoutError::from),
        };
        match report {
            Ok(report) => driver.handle(report, env.now_ns()),
            Err(RecvTimeoutError::Timeout) => {}
            // The handle and all tasklets have been dropped, so nothing else can end this query.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// The outcome of a job, with a condition variable for the callers that wait for it.
type Outcome = (Mutex<Option<Result<(), EngineError>>>, Condvar);

/// Tells whether a job has ended, also after its [`RunningJob`] was dropped.
#[derive(Clone)]
pub struct JobEnd(Arc<Outcome>);

impl JobEnd {
    /// Whether the job has ended, with or without an error.
    pub fn has_ended(&self) -> bool {
        self.0.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_some()
    }
}

/// A started job. Dropping it stops the job after the current epoch and waits for its threads,
/// except on a thread of the job itself and after [`detach`](Self::detach).
pub struct RunningJob {
    reports: Sender<Report>,
    stopping: Arc<AtomicBool>,
    outcome: Arc<Outcome>,
    phase: PhaseCell,
    open_sources: OpenSources,
    core_notice: Option<String>,
    /// The ids of the job's threads.
    own: Vec<ThreadId>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How often a waiting call checks whether to give up.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl RunningJob {
    /// A notice about cores: pinned workers share cores, or workers are not pinned because no core
    /// is free. The second notice is given once per process.
    pub fn core_notice(&self) -> Option<&str> {
        self.core_notice.as_deref()
    }

    /// What the driver is doing.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Waits until the given sources have reported their end or the job has ended, at most for
    /// `timeout`. Returns whether they have. `sources` are indices in the order of
    /// [`QueryDescription::sources`]. On a thread of the job the sources cannot make progress
    /// meanwhile.
    pub fn wait_for_sources(&self, sources: &[usize], timeout: Duration) -> bool {
        self.open_sources.wait(sources, timeout)
    }

    /// Makes a later drop of this handle request the stop without waiting for it.
    pub fn detach(&self) {
        drop(self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    }

    /// Requests a stop after the current epoch, without waiting for it.
    pub fn request_stop(&self) {
        // ORDERING: relaxed: the flag carries no data.
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.reports.send(Report::Stop));
    }

    /// Ends the job with an error, without completing the current epoch and without waiting. A job
    /// with a checkpoint resumes as after a failure.
    pub fn abort(&self, reason: EngineError) {
        drop(self.reports.send(Report::Failed(reason)));
    }

    /// Stops after the current epoch, waits for the end and returns the job's outcome. On a thread
    /// of the job itself it requests the stop, but returns an error instead of waiting.
    pub fn stop(&self) -> Result<(), EngineError> {
        self.request_stop();
        self.refuse_own_thread()?;
        self.wait(None).unwrap_or(Ok(()))
    }

    /// Returns an error on a thread of the job, which would wait for itself.
    fn refuse_own_thread(&self) -> Result<(), EngineError> {
        if !self.is_own_thread() {
            return Ok(());
        }
        Err(EngineError::operator(
            "WAIT_IN_OPERATOR",
            "an operator of the query waits for the query's end, and would wait for itself",
            "Wait on another thread; if the call was `stop`, the stop was requested",
        ))
    }

    fn is_own_thread(&self) -> bool {
        self.own.contains(&std::thread::current().id())
    }

    /// Blocks until all data that was available at the call is processed and committed. If the job
    /// ends first, returns its outcome. In continuous mode a stop ends the wait early, without an
    /// error. Fails on a thread of the job itself.
    pub fn process_all_available(&self) -> Result<(), EngineError> {
        self.process_all_unless(|| None)
    }

    /// Like [`process_all_available`](Self::process_all_available), but calls `give_up` every 50 ms
    /// and returns its error if there is one.
    pub fn process_all_unless(
        &self,
        mut give_up: impl FnMut() -> Option<EngineError>,
    ) -> Result<(), EngineError> {
        self.refuse_own_thread()?;
        let (reply, done) = crossbeam_channel::bounded(1);
        drop(self.reports.send(Report::ProcessAll(reply)));
        loop {
            match done.recv_timeout(LOOK_AGAIN) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(outcome) = self.outcome() {
                        return outcome;
                    }
                    if let Some(reason) = give_up() {
                        return Err(reason);
                    }
                }
                // The driver has ended, so no reply follows. The outcome follows when the workers
                // have ended too.
                Err(RecvTimeoutError::Disconnected) => return self.wait_unless(give_up),
            }
        }
    }

    /// Waits for the end and returns the job's outcome, but calls `give_up` every 50 ms and returns
    /// its error if there is one. Fails on a thread of the job itself.
    pub fn wait_unless(
        &self,
        mut give_up: impl FnMut() -> Option<EngineError>,
    ) -> Result<(), EngineError> {
        self.refuse_own_thread()?;
        loop {
            if let Some(outcome) = self.wait(Some(LOOK_AGAIN)) {
                return outcome;
            }
            if let Some(reason) = give_up() {
                return Err(reason);
            }
        }
    }

    /// Waits for the end, at most for `timeout` if it is given, and returns the job's outcome.
    /// `None` if the job is still running. Without a `timeout`, a call on a thread of the job never
    /// returns.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Result<(), EngineError>> {
        let (slot, changed) = &*self.outcome;
        let guard = slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match timeout {
            None => {
                let guard = changed.wait_while(guard, |outcome| outcome.is_none());
                guard.unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
            }
            Some(timeout) => {
                let waited = changed.wait_timeout_while(guard, timeout, |o| o.is_none());
                waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.clone()
            }
        }
    }

    /// A handle that tells whether the job has ended.
    pub fn end(&self) -> JobEnd {
        JobEnd(self.outcome.clone())
    }

    /// How the job ended; `None` while it runs.
    pub fn outcome(&self) -> Option<Result<(), EngineError>> {
        self.outcome.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        self.request_stop();
        if self.is_own_thread() {
            // An operator has dropped the handle on a thread of the job, which must not wait for
            // itself. The job's threads end on their own.
            return;
        }
        let thread = self.thread.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(thread) = thread {
            drop(thread.join());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod start_tests;
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::runtime::stage::Io;
    use crate::runtime::tasklet::{Step, StepCx};
    use std::time::Instant;

    /// A tasklet that fails when it is told to.
    struct FailsLater(Arc<AtomicBool>);

    impl Tasklet for FailsLater {
        fn name(&self) -> &str {
            "fails later"
        }
        fn attach(&mut self, _io: &mut Io<'_>) -> Result<(), EngineError> {
            Ok(())
        }
        fn step(&mut self, _cx: &mut StepCx<'_>) -> Result<Step, EngineError> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(EngineError::operator("TEST", "it was told to", "")),
                false => Ok(Step::Progress),
            }
        }
    }

    /// After the driver has dropped the caller's channel, the job may take long to end.
    #[test]
    fn a_caller_that_waits_for_all_data_sleeps_until_a_failed_job_has_ended() {
        let mut job = Job::new("fails", Config { pin: false, ..Config::default() }).unwrap();
        let (fails, ending) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (release, released) = crossbeam_channel::bounded(1);
        job.tasklet_port();
        job.add_tasklet(0, Box::new(FailsLater(fails.clone())));
        let is_ending = ending.clone();
        job.on_end(move |_| {
            is_ending.store(true, Ordering::Relaxed);
            released.recv().unwrap();
        });
        let running = job.start().unwrap();
        let mut looks = Vec::new();
        let ended = running.process_all_unless(|| {
            fails.store(true, Ordering::Relaxed);
            if ending.load(Ordering::Relaxed) {
                looks.push(Instant::now());
                if looks.len() == 3 {
                    release.send(()).unwrap();
                }
            }
            None
        });
        assert_eq!(ended.unwrap_err().condition(), "TEST");
        assert!(looks[2] - looks[0] >= LOOK_AGAIN, "it looked again without a pause");
    }
}
