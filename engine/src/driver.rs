//! Who decides the epochs: a timer in continuous mode, the offsets of a batch in micro-batch
//! mode. One state machine serves both, and the simulation steps the same one.
//!
//! What is durable is written here too, between the reports of one epoch and the orders of the
//! next; see [`checkpoint`](crate::checkpoint) for the order of writes.
//!
//! *Threads.* A thread of its own that sleeps between epochs; it never touches a record.

use crate::checkpoint::{Checkpoint, Mode, Recovery, Unfinished};
use crate::error::EngineError;
use crate::event::Epoch;
use crate::event_time::{EventTime, EventTimes};
use crate::reclaim::Reclaim;
use crate::seam::Env;
use crate::state::Changes;
use crate::storage::Storage;
use crate::tasklet::Offset;
use crate::wake::Waker;
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// When epochs happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Records flow at once; an epoch commits every so often.
    Continuous {
        /// From marker to marker, in nanoseconds.
        interval_ns: u64,
    },
    /// A batch starts as soon as the last one ended and there is something to read.
    AsSoonAsPossible,
    /// A batch starts at multiples of an interval.
    ProcessingTime {
        /// In nanoseconds.
        interval_ns: u64,
    },
    /// One batch of all that is there, then the end. If the last run left a batch unfinished,
    /// that is the one.
    Once,
    /// All that is there when the query starts, in as many batches as rate limits make of it,
    /// then the end.
    AvailableNow,
}

impl Trigger {
    /// Whether records flow without waiting for a batch.
    pub fn is_continuous(self) -> bool {
        matches!(self, Self::Continuous { .. })
    }
}

/// How often micro-batch mode looks for new data when there was none, as Spark does.
const POLLING_DELAY_NS: u64 = 10_000_000;

/// How much of what is there a batch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As much as the source's rate limit allows.
    Limited,
    /// All of it, whatever the limit.
    All,
    /// As much as the limit allows of what was there at the first such plan.
    AsOfStart,
}

/// What the driver tells a source.
#[derive(Clone, Debug)]
pub enum Command {
    /// Continuous: put the marker of an epoch into the stream.
    Mark {
        /// The epoch that ends.
        epoch: Epoch,
        /// First emit all that is there now.
        drain: bool,
        /// Emit nothing after it.
        last: bool,
    },
    /// Micro-batch: say how far you could be read.
    Plan(Extent),
    /// Emit up to `end`, then the marker: a micro-batch, or an epoch that an earlier run planned.
    Run {
        /// The batch.
        epoch: Epoch,
        /// Where it ends in this source.
        end: Offset,
    },
    /// Continuous: put the marker that waits for a drain into the stream at once.
    CutDrain,
    /// The epoch of your last marker is committed.
    Committed,
    /// Pass `End` on.
    End,
}

/// How far a source could be read.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The position to read up to.
    pub end: Offset,
    /// Whether that is past the current position.
    pub has_new: bool,
    /// Whether nothing will ever come after it.
    pub exhausted: bool,
    /// Whether it is held back by a rate limit: there is more now.
    pub limited: bool,
}

/// What the driver hears, from tasklets, workers and the query's owner.
#[derive(Debug)]
pub enum Report {
    /// A tasklet has passed an epoch's marker on and all before it is out.
    Ack {
        /// The epoch.
        epoch: Epoch,
        /// Whether windows that were over before the marker come only behind it.
        trailing: bool,
        /// Whether some of them have come behind it already.
        trailed: bool,
    },
    /// Where a source put a marker.
    Offset {
        /// The source.
        source: usize,
        /// The marker's epoch.
        epoch: Epoch,
        /// The position.
        offset: Offset,
        /// Records that it has emitted so far in this run.
        records: u64,
    },
    /// What an operator instance changed in an epoch; before its tasklet's [`Ack`](Self::Ack).
    State {
        /// The epoch.
        epoch: Epoch,
        /// The changes.
        changes: Changes,
    },
    /// What a sink has written in an epoch and not yet shown; before its tasklet's `Ack`.
    Staged {
        /// The epoch.
        epoch: Epoch,
        /// In the sink's own words; enough to commit it, now or after a restart.
        staged: Vec<String>,
    },
    /// The answer to [`Command::Plan`].
    Planned {
        /// The source.
        source: usize,
        /// The answer.
        planned: Planned,
    },
    /// A source will never give more.
    Exhausted {
        /// The source.
        source: usize,
    },
    /// A tasklet has ended.
    Done {
        /// The tasklet.
        tasklet: usize,
    },
    /// A tasklet or a worker gave up.
    Failed(EngineError),
    /// The owner wants the query to end at the next epoch.
    Stop,
    /// The owner wants to hear when all that is there now has been processed.
    ProcessAll(Sender<()>),
}

/// The part of a transactional sink that decides: its log of committed epochs.
///
/// *Threads.* The driver's.
pub trait SinkLog: Send {
    /// Makes what was staged durable, but not visible.
    fn sync(&mut self, storage: &dyn Storage, staged: &[String]) -> Result<(), EngineError>;
    /// Makes it visible. An epoch that is in the log already stays as it is: then what was
    /// staged is dropped.
    fn commit(
        &mut self,
        storage: &dyn Storage,
        epoch: Epoch,
        staged: &[String],
    ) -> Result<(), EngineError>;
}

/// What an operator holds at the end of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorState {
    /// Keys.
    pub rows: u64,
    /// Changes in this epoch.
    pub updated: u64,
    /// Keys that the watermark let go in this epoch.
    pub removed: u64,
    /// Records that came too late in this epoch.
    pub late: u64,
    /// Memory in bytes, about.
    pub memory_bytes: u64,
}

/// A committed epoch.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its number.
    pub epoch: Epoch,
    /// Wall-clock time at which it was planned or its markers were ordered, in microseconds
    /// since 1970.
    pub started_us: i64,
    /// Each source's position at its beginning.
    pub starts: Vec<Offset>,
    /// Each source's position at its end.
    pub offsets: Vec<Offset>,
    /// Records that each source gave in it.
    pub records: Vec<u64>,
    /// Asking sources how far they could be read; 0 in continuous mode.
    pub plan_ns: u64,
    /// From the order to put markers (or run the batch) to the last acknowledgement: how long
    /// the marker travelled.
    pub marker_ns: u64,
    /// Writing the offset log.
    pub wal_ns: u64,
    /// Making state and staged output durable, committing the sink, writing the commit log.
    pub commit_ns: u64,
    /// All of it.
    pub duration_ns: u64,
    /// Each stateful operator.
    pub state: Vec<OperatorState>,
    /// The watermark that the batch went by, in milliseconds since 1970. In continuous mode, where it
    /// moves within an epoch, the one at the epoch's end.
    pub batch_watermark_ms: i64,
    /// The watermark for the next epoch, in milliseconds since 1970; 0 before any event time.
    pub watermark_ms: i64,
    /// What was seen of each event time in it.
    pub event_times: Vec<EventTimes>,
}

enum State {
    Idle,
    Planning { plans: Vec<Option<Planned>>, started_ns: u64 },
    Epoch(InFlight),
    Ending,
}

#[derive(Default)]
struct InFlight {
    acks: usize,
    /// Something that was due before the marker comes behind it.
    trailing: bool,
    offsets: Vec<Offset>,
    records: Vec<u64>,
    started_us: i64,
    begun_ns: u64,
    plan_ns: u64,
    wal_ns: u64,
    marked_ns: u64,
    last: bool,
    batch: bool,
    /// A batch that does not hold all that was there when it was planned.
    limited: bool,
    staged: Vec<String>,
    state: Vec<OperatorState>,
    /// For the checkpoint, once the marker is everywhere: nothing waits for it before.
    changes: Vec<Changes>,
    /// Memory that these took, and what of it is kept for the next epochs.
    change_bytes: (u64, u64),
}

/// What a driver is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No source has been asked for anything yet.
    Starting,
    /// It waits for the next trigger or the next data; in continuous mode data flow meanwhile.
    Waiting,
    /// It asks the sources what there is.
    Planning,
    /// An epoch is under way.
    Processing,
    /// All tasklets are told to end.
    Ending,
}

/// What a driver is at, to be looked at from other threads.
#[derive(Clone, Debug, Default)]
pub struct PhaseCell(Arc<AtomicU8>);

impl PhaseCell {
    fn set(&self, phase: Phase) {
        // ORDERING: relaxed: for people to look at; nothing else depends on it.
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    /// The phase now.
    pub fn get(&self) -> Phase {
        let phases =
            [Phase::Starting, Phase::Waiting, Phase::Planning, Phase::Processing, Phase::Ending];
        // ORDERING: relaxed: see `set`.
        phases[usize::from(self.0.load(Ordering::Relaxed)).min(phases.len() - 1)]
    }
}

/// What the driver wants next.
#[derive(Debug)]
pub enum Tick {
    /// A report, or this time (for ever if `None`).
    Wait(Option<u64>),
    /// Nothing: the query has ended.
    Finished(Result<(), EngineError>),
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub trigger: Trigger,
    pub sources: Vec<(Sender<Command>, Waker)>,
    pub tasklets: usize,
    pub operators: usize,
    pub env: Arc<dyn Env>,
    pub time: EventTime,
    pub checkpoint: Option<Checkpoint>,
    pub recovery: Recovery,
    pub sink: Option<Box<dyn SinkLog>>,
    pub on_commit: Box<dyn FnMut(&Committed) + Send>,
}

/// The state machine.
pub struct Driver {
    trigger: Trigger,
    sources: Vec<(Sender<Command>, Waker)>,
    tasklets: usize,
    operators: usize,
    env: Arc<dyn Env>,
    time: EventTime,
    checkpoint: Option<Checkpoint>,
    sink: Option<Box<dyn SinkLog>>,
    unfinished: Option<Unfinished>,
    /// Positions at the end of the last committed epoch.
    positions: Vec<Offset>,
    /// Records of each source up to there, in this run.
    records: Vec<u64>,
    done: usize,
    next_epoch: Epoch,
    state: State,
    exhausted: Vec<bool>,
    /// Keys that the watermark let go in the last epoch, if there was one in this run.
    removed: Option<u64>,
    /// Something of the last epoch came, or will come, in the one after it.
    trailing: bool,
    stop: bool,
    failed: Option<EngineError>,
    /// Who asked for all data since the last plan or drain began, and who before.
    asked: Vec<Sender<()>>,
    served: Vec<Sender<()>>,
    /// When the next epoch or batch is due; unset before the first look at the clock.
    next_at_ns: Option<u64>,
    reclaim: Reclaim,
    on_commit: Box<dyn FnMut(&Committed) + Send>,
    phase: PhaseCell,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let sources = parts.sources.len();
        let mut positions = parts.recovery.offsets;
        positions.resize(sources, Offset::default());
        let time = parts.time;
        time.times().start(parts.env.wall_us());
        let replays = matches!(parts.recovery.unfinished, Some(Unfinished::Replay(_)));
        time.times().set_replays(replays && parts.trigger.is_continuous());
        Self {
            time,
            trigger: parts.trigger,
            exhausted: vec![false; sources],
            sources: parts.sources,
            tasklets: parts.tasklets,
            operators: parts.operators,
            env: parts.env,
            checkpoint: parts.checkpoint,
            sink: parts.sink,
            unfinished: parts.recovery.unfinished,
            positions,
            records: vec![0; sources],
            done: 0,
            next_epoch: parts.recovery.next_epoch,
            state: State::Idle,
            removed: None,
            trailing: false,
            stop: false,
            failed: None,
            asked: Vec::new(),
            served: Vec::new(),
            next_at_ns: None,
            reclaim: Reclaim::default(),
            on_commit: parts.on_commit,
            phase: PhaseCell::default(),
        }
    }

    /// What it is at, to be looked at from other threads.
    pub(crate) fn phase(&self) -> PhaseCell {
        self.phase.clone()
    }

    fn tell(&self, make: impl Fn(usize) -> Command) {
        for (index, (commands, waker)) in self.sources.iter().enumerate() {
            // A source that is gone has reported why.
            drop(commands.send(make(index)));
            waker.wake();
        }
    }

    fn fail(&mut self, error: EngineError) {
        self.failed = self.failed.take().or(Some(error));
    }

    fn flight(&self, begun_ns: u64) -> InFlight {
        InFlight {
            offsets: vec![Offset::default(); self.sources.len()],
            records: vec![0; self.sources.len()],
            started_us: self.env.wall_us(),
            begun_ns,
            marked_ns: self.env.now_ns(),
            state: vec![OperatorState::default(); self.operators],
            ..InFlight::default()
        }
    }

    fn end(&mut self) {
        self.tell(|_| Command::End);
        self.state = State::Ending;
    }

    /// Takes a report in.
    pub fn handle(&mut self, report: Report, now_ns: u64) {
        match report {
            Report::Ack { epoch, trailing, trailed } => {
                debug_assert_eq!(epoch, self.next_epoch, "one epoch is in flight at a time");
                if let State::Epoch(flight) = &mut self.state {
                    flight.acks += 1;
                    // What a batch lets go goes before its marker.
                    flight.trailing |= trailing || trailed && !flight.batch;
                    if flight.acks == self.tasklets {
                        self.commit(now_ns);
                    }
                }
            }
            Report::Offset { source, epoch, offset, records } => {
                debug_assert_eq!(epoch, self.next_epoch);
                if let State::Epoch(flight) = &mut self.state {
                    flight.offsets[source] = offset;
                    flight.records[source] = records;
                }
            }
            Report::State { epoch, changes } => {
                debug_assert_eq!(epoch, self.next_epoch);
                self.changed(changes);
            }
            Report::Staged { epoch, staged } => {
                debug_assert_eq!(epoch, self.next_epoch);
                if let State::Epoch(flight) = &mut self.state {
                    flight.staged.extend(staged);
                }
            }
            Report::Planned { source, planned } => {
                self.exhausted[source] = planned.exhausted;
                if let State::Planning { plans, started_ns } = &mut self.state {
                    let started_ns = *started_ns;
                    plans[source] = Some(planned);
                    if plans.iter().all(Option::is_some) {
                        self.planned(started_ns, now_ns);
                    }
                }
            }
            Report::Exhausted { source } => self.exhausted[source] = true,
            Report::Done { .. } => self.done += 1,
            Report::Failed(error) => self.fail(error),
            Report::Stop => self.stop(),
            Report::ProcessAll(reply) => self.asked.push(reply),
        }
    }

    /// An input that is filled all the time would never be drained.
    fn stop(&mut self) {
        self.stop = true;
        if matches!(&self.state, State::Epoch(flight) if !flight.batch) {
            self.tell(|_| Command::CutDrain);
        }
    }

    fn changed(&mut self, changes: Changes) {
        if let State::Epoch(flight) = &mut self.state {
            let state = &mut flight.state[changes.operator];
            state.rows += changes.rows;
            state.updated += changes.updated;
            state.removed += changes.removed;
            state.late += changes.late;
            state.memory_bytes += changes.memory_bytes;
            let (taken, kept) = changes.chunk_bytes();
            flight.change_bytes.0 += taken;
            flight.change_bytes.1 += kept;
            flight.changes.push(changes);
        }
    }

    fn planned(&mut self, started_ns: u64, now_ns: u64) {
        let State::Planning { plans, .. } = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let plans: Vec<Planned> = plans.into_iter().flatten().collect();
        if plans.iter().any(|plan| plan.has_new) || self.time.wants_batch(self.env.wall_us()) {
            let limited = plans.iter().any(|plan| plan.limited);
            let ends: Vec<Offset> = plans.into_iter().map(|plan| plan.end).collect();
            let times = (self.env.wall_us() / 1000, self.time.next_ms());
            if let Some(checkpoint) = &self.checkpoint {
                let (epoch, mode) = (self.next_epoch, Mode::MicroBatch);
                let written = checkpoint.write_offsets(epoch, &ends, mode, times, Vec::new());
                if let Err(error) = written {
                    return self.fail(error);
                }
            }
            let wal_ns = self.env.now_ns().saturating_sub(now_ns);
            self.run_batch(&ends, times, started_ns);
            if let State::Epoch(flight) = &mut self.state {
                (flight.plan_ns, flight.wal_ns) = (now_ns - started_ns, wal_ns);
                flight.limited = limited;
            }
            return;
        }
        for reply in self.served.drain(..) {
            let _ = reply.send(());
        }
        if self.reclaim.idle(now_ns) {
            self.env.release_memory();
        }
        let at_most_once = matches!(self.trigger, Trigger::Once | Trigger::AvailableNow);
        if at_most_once || self.all_exhausted() {
            self.end();
        } else if let Trigger::AsSoonAsPossible = self.trigger {
            self.next_at_ns = Some(now_ns + POLLING_DELAY_NS);
        }
    }

    fn run_batch(
        &mut self,
        ends: &[Offset],
        (timestamp_ms, watermark_ms): (i64, i64),
        begun_ns: u64,
    ) {
        let epoch = self.next_epoch;
        self.time.begin(timestamp_ms, watermark_ms);
        // Until its plan says otherwise: an epoch of an earlier run holds nothing that is new.
        let limited = true;
        self.state = State::Epoch(InFlight { batch: true, limited, ..self.flight(begun_ns) });
        self.tell(|source| Command::Run { epoch, end: ends[source].clone() });
    }

    /// Whether someone waits for all that is there.
    fn is_awaited(&self) -> bool {
        !self.asked.is_empty() || !self.served.is_empty()
    }

    fn all_exhausted(&self) -> bool {
        self.exhausted.iter().all(|&exhausted| exhausted)
    }

    /// Writes what makes the epoch durable. Returns the time that the offset log took.
    fn make_durable(&mut self, flight: &mut InFlight) -> Result<u64, EngineError> {
        let (epoch, env) = (self.next_epoch, self.env.clone());
        let storage = env.storage();
        let mut wal_ns = flight.wal_ns;
        if let Some(checkpoint) = &mut self.checkpoint {
            flight.changes.drain(..).for_each(|changes| checkpoint.change(changes));
            checkpoint.write_state(epoch)?;
        }
        if let Some(sink) = &mut self.sink {
            sink.sync(storage, &flight.staged)?;
        }
        if let Some(checkpoint) = &self.checkpoint
            && !flight.batch
        {
            let before_ns = env.now_ns();
            checkpoint.write_offsets(
                epoch,
                &flight.offsets,
                Mode::Continuous,
                (env.wall_us() / 1000, self.time.next_ms()),
                flight.staged.clone(),
            )?;
            wal_ns = env.now_ns() - before_ns;
        }
        if let Some(sink) = &mut self.sink {
            sink.commit(storage, epoch, &flight.staged)?;
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.write_commit(epoch, self.time.next_ms())?;
        }
        Ok(wal_ns)
    }

    fn commit(&mut self, now_ns: u64) {
        let State::Epoch(mut flight) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        self.time.end();
        self.time.times().set_replays(false);
        if !flight.batch {
            self.time.times().start(self.env.wall_us());
        }
        let wal_ns = match self.make_durable(&mut flight) {
            Ok(wal_ns) => wal_ns,
            Err(error) => return self.fail(error),
        };
        let end_ns = self.env.now_ns();
        let in_commit_ns = if flight.batch { 0 } else { wal_ns };
        let before = std::mem::replace(&mut self.records, flight.records.clone());
        let records = flight.records.iter().zip(&before).map(|(now, before)| now - before);
        self.trailing = flight.trailing;
        self.removed = Some(flight.state.iter().map(|state| state.removed).sum());
        let state: u64 = flight.state.iter().map(|state| state.memory_bytes).sum();
        let buffers = self.checkpoint.as_ref().map_or(0, Checkpoint::buffer_bytes);
        // The changes as they came, and as a file.
        let (taken, kept) = flight.change_bytes;
        let releases = self.reclaim.epoch(end_ns, state + buffers + kept, taken * 2);
        let committed = Committed {
            records: records.collect(),
            epoch: self.next_epoch,
            started_us: flight.started_us,
            starts: std::mem::replace(&mut self.positions, flight.offsets.clone()),
            offsets: flight.offsets,
            plan_ns: flight.plan_ns,
            marker_ns: now_ns.saturating_sub(flight.marked_ns),
            wal_ns,
            commit_ns: end_ns.saturating_sub(now_ns + in_commit_ns),
            duration_ns: end_ns.saturating_sub(flight.begun_ns),
            state: flight.state,
            batch_watermark_ms: if flight.batch {
                self.time.last_ms()
            } else {
                self.time.next_ms()
            },
            watermark_ms: self.time.next_ms(),
            event_times: self.time.seen(),
        };
        self.next_epoch += 1;
        (self.on_commit)(&committed);
        self.tell(|_| Command::Committed);
        if releases {
            self.env.release_memory();
        }
        let limited = flight.limited || flight.trailing;
        if !(limited || flight.batch && self.time.wants_batch(self.env.wall_us())) {
            for reply in self.served.drain(..) {
                let _ = reply.send(());
            }
        }
        match self.trigger {
            Trigger::Continuous { interval_ns } => {
                self.next_at_ns = Some((flight.begun_ns + interval_ns).max(end_ns));
                // With its marker the last one may have moved the watermark, behind an epoch that was
                // run again for one: what that lets out needs one more.
                let owes = flight.trailing && self.time.releases() && !self.stop;
                if flight.last && !owes {
                    self.end();
                }
            }
            Trigger::Once => self.end(),
            Trigger::AsSoonAsPossible | Trigger::AvailableNow => self.next_at_ns = Some(end_ns),
            Trigger::ProcessingTime { .. } => {}
        }
    }

    /// Finishes what an earlier run has left. Returns whether an epoch is in flight now.
    fn take_up(&mut self, now_ns: u64) -> bool {
        match self.unfinished.take() {
            None => false,
            Some(Unfinished::Replay(replay)) => {
                let times = (replay.timestamp_ms, replay.watermark_ms);
                self.run_batch(&replay.ends, times, now_ns);
                true
            }
            Some(Unfinished::Commit(staged)) => {
                let (epoch, env) = (self.next_epoch - 1, self.env.clone());
                let sink = match &mut self.sink {
                    Some(sink) => sink.commit(env.storage(), epoch, &staged),
                    None => Ok(()),
                };
                let done = sink.and_then(|()| match &mut self.checkpoint {
                    Some(checkpoint) => checkpoint.write_commit(epoch, self.time.next_ms()),
                    None => Ok(()),
                });
                if let Err(error) = done {
                    self.fail(error);
                }
                false
            }
        }
    }

    /// Does what is due at this time.
    pub fn tick(&mut self, now_ns: u64) -> Tick {
        if let Some(error) = self.failed.take() {
            return Tick::Finished(Err(error));
        }
        if matches!(self.state, State::Idle) && self.take_up(now_ns) {
            return Tick::Wait(None);
        }
        if let Some(error) = self.failed.take() {
            return Tick::Finished(Err(error));
        }
        let tick = self.advance(now_ns);
        self.phase.set(match &self.state {
            State::Idle => Phase::Waiting,
            State::Planning { .. } => Phase::Planning,
            State::Epoch(flight) if flight.batch => Phase::Processing,
            // Data flow whether an epoch is being marked or not.
            State::Epoch(_) => Phase::Waiting,
            State::Ending => Phase::Ending,
        });
        match tick {
            Tick::Wait(_) => self.background(now_ns, tick),
            finished => finished,
        }
    }

    fn advance(&mut self, now_ns: u64) -> Tick {
        match &self.state {
            State::Ending if self.done == self.tasklets => Tick::Finished(Ok(())),
            State::Ending => Tick::Wait(None),
            State::Planning { .. } | State::Epoch(_) => Tick::Wait(None),
            State::Idle => match self.trigger {
                Trigger::Continuous { interval_ns } => self.tick_continuous(now_ns, interval_ns),
                _ => self.tick_batch(now_ns),
            },
        }
    }

    /// A bounded step of compaction while nothing is to be done at once.
    fn background(&mut self, now_ns: u64, tick: Tick) -> Tick {
        let (Some(checkpoint), Some(committed)) =
            (&mut self.checkpoint, self.next_epoch.checked_sub(1))
        else {
            return tick;
        };
        if !checkpoint.has_background_work() {
            return tick;
        }
        match checkpoint.background_step(committed) {
            Ok(()) => Tick::Wait(Some(now_ns)),
            Err(error) => Tick::Finished(Err(error)),
        }
    }

    fn tick_continuous(&mut self, now_ns: u64, interval_ns: u64) -> Tick {
        let ends = self.all_exhausted();
        // What the last watermark lets out may come behind the marker of its epoch.
        let released = self.trailing || self.removed != Some(0);
        let flushing = ends && self.time.releases() && released;
        let last = self.stop || (ends && !flushing);
        // Who was not served by the last epoch, since something of it is still to come, is now.
        let drain = self.is_awaited() && !self.stop;
        let due_ns = *self.next_at_ns.get_or_insert(now_ns + interval_ns);
        if !last && !drain && !flushing && now_ns < due_ns {
            return Tick::Wait(Some(due_ns));
        }
        self.served.append(&mut self.asked);
        let epoch = self.next_epoch;
        self.state = State::Epoch(InFlight { last, ..self.flight(now_ns) });
        self.tell(|_| Command::Mark { epoch, drain, last });
        Tick::Wait(None)
    }

    fn tick_batch(&mut self, now_ns: u64) -> Tick {
        if self.stop {
            self.end();
            return Tick::Wait(None);
        }
        // The first batch starts at once, not at the next tick.
        let due_ns = self.next_at_ns.unwrap_or(now_ns);
        if !self.is_awaited() && now_ns < due_ns {
            return Tick::Wait(Some(due_ns));
        }
        if let Trigger::ProcessingTime { interval_ns } = self.trigger {
            // From the start of this batch: ticks that it overruns are skipped, not queued.
            let interval_ns = interval_ns.max(1);
            self.next_at_ns = Some((now_ns / interval_ns + 1) * interval_ns);
        }
        let extent = match self.trigger {
            Trigger::Once => Extent::All,
            Trigger::AvailableNow => Extent::AsOfStart,
            _ => Extent::Limited,
        };
        self.served.append(&mut self.asked);
        self.state = State::Planning { plans: vec![None; self.sources.len()], started_ns: now_ns };
        self.tell(|_| Command::Plan(extent));
        Tick::Wait(None)
    }
}
