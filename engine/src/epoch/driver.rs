//! The driver starts, ends and commits the epochs, in continuous and in micro-batch mode, and
//! writes the checkpoint. [`checkpoint`](crate::checkpoint) documents the order of writes.
//!
//! *Threads.* Its own; in simulation the thread of the simulation. The driver never touches a
//! record.

use crate::checkpoint::changes::StateChanges;
use crate::checkpoint::offset::Offset;
use crate::checkpoint::{Checkpoint, EpochMode, Recovery, UnfinishedEpoch};
use crate::env::Env;
use crate::env::reclaim::Reclaim;
use crate::epoch::committed_epoch::CommittedEpoch;
use crate::epoch::event_time::WatermarkTracker;
use crate::epoch::open_sources::OpenSources;
use crate::epoch::phase::{Phase, PhaseCell};
use crate::epoch::protocol::{Command, EndOffset, ReadLimit, Report};
use crate::epoch::sink_log::SinkLog;
use crate::epoch::source_offsets::SourceOffsets;
use crate::epoch::trigger::Trigger;
use crate::error::EngineError;
use crate::event::Epoch;
use crate::measure::operator_state::{JoinWait, OperatorState, WatermarkHolder};
use crate::sync::waker::Waker;
use crossbeam_channel::Sender;
use std::ops::Range;
use std::sync::Arc;

/// The pause of [`Trigger::AsSoonAsPossible`] after a check that found no new data, in nanoseconds;
/// as in Spark.
const POLLING_DELAY_NS: u64 = 10_000_000;
/// The longest wait for a tick of trigger processing-time before the wall clock is read again, in
/// nanoseconds.
const MAX_WAIT_NS: u64 = 1_000_000_000;

/// The interval of trigger processing-time, in microseconds; at least 1.
fn tick_interval_us(interval_ns: u64) -> i64 {
    i64::try_from(interval_ns / 1000).unwrap_or(i64::MAX).max(1)
}

enum State {
    Idle,
    Planning { plans: Vec<Option<EndOffset>>, started_ns: u64 },
    Epoch(InFlight),
    Ending,
}

#[derive(Default)]
struct InFlight {
    acks: usize,
    /// Whether results of this epoch are emitted after its marker.
    owes_late_emission: bool,
    offsets: Vec<Offset>,
    records: Vec<u64>,
    started_us: i64,
    begun_ns: u64,
    plan_ns: u64,
    wal_ns: u64,
    marked_ns: u64,
    last: bool,
    batch: bool,
    /// Whether the batch leaves out data that was available when it was planned.
    limited: bool,
    staged: Vec<String>,
    state: Vec<OperatorState>,
    /// Changes for the checkpoint, written once every tasklet has acknowledged.
    changes: Vec<StateChanges>,
    /// Memory of the chunks of `changes`, and of the spare chunks that are kept, in bytes.
    change_bytes: (u64, u64),
}

/// The result of [`Driver::tick`]: what the caller must do next.
#[derive(Debug)]
pub enum Tick {
    /// Wait for a report, at most until this time in nanoseconds; `None` is no time limit.
    Wait(Option<u64>),
    /// Stop: the query has ended with this result.
    Finished(Result<(), EngineError>),
}

/// The parts from which a driver is built.
pub(crate) struct DriverParts {
    pub trigger: Trigger,
    pub runs_empty_batch: bool,
    pub sources: Vec<(Sender<Command>, Waker)>,
    pub source_offsets: SourceOffsets,
    pub tasklets: usize,
    pub operators: usize,
    /// For each join of two inputs, its number and the event times of each input.
    pub joins: Vec<(usize, [Range<usize>; 2])>,
    pub env: Arc<dyn Env>,
    pub time: WatermarkTracker,
    pub checkpoint: Option<Checkpoint>,
    pub recovery: Recovery,
    pub sink: Option<Box<dyn SinkLog>>,
    pub on_commit: Box<dyn FnMut(&CommittedEpoch) + Send>,
}

/// The state machine that starts and commits epochs.
pub struct Driver {
    trigger: Trigger,
    /// Whether the first micro-batch runs even if no source has a record.
    runs_empty_batch: bool,
    /// The tasklets of the sources.
    sources: Vec<(Sender<Command>, Waker)>,
    source_offsets: SourceOffsets,
    tasklets: usize,
    operators: usize,
    env: Arc<dyn Env>,
    time: WatermarkTracker,
    checkpoint: Option<Checkpoint>,
    sink: Option<Box<dyn SinkLog>>,
    unfinished: Option<UnfinishedEpoch>,
    /// Position of each source tasklet at the end of the last committed epoch.
    positions: Vec<Offset>,
    /// Records read from each source in this run, up to the source's entry in `positions`.
    records: Vec<u64>,
    done: usize,
    next_epoch: Epoch,
    state: State,
    /// Whether each source tasklet has reported its end.
    exhausted: Vec<bool>,
    /// The sources that have an entry of `exhausted` that is false, for other threads.
    open_sources: OpenSources,
    /// Number of state rows removed in the last epoch; `None` before the first epoch of this run and
    /// after a batch.
    removed: Option<u64>,
    /// Whether results of the last epoch are emitted in the next one.
    owes_late_emission: bool,
    /// For each stateful operator, when the inputs of a join last received rows.
    join_waits: Vec<JoinWait>,
    /// For each join of two inputs, its number and the event times of each input.
    joins: Vec<(usize, [Range<usize>; 2])>,
    stop: bool,
    failed: Option<EngineError>,
    /// Callers that wait for all available data. No plan or drain has covered them yet.
    asked: Vec<Sender<()>>,
    /// Callers that the last plan or drain covers. They wait for its commit.
    served: Vec<Sender<()>>,
    /// Time of the next epoch or batch; `None` at the start.
    next_at_ns: Option<u64>,
    /// Trigger processing-time: the wall-clock time of the next tick, in microseconds since 1970;
    /// `None` before the first batch.
    next_tick_us: Option<i64>,
    reclaim: Reclaim,
    on_commit: Box<dyn FnMut(&CommittedEpoch) + Send>,
    phase: PhaseCell,
}

impl Driver {
    pub(crate) fn new(parts: DriverParts) -> Self {
        let sources = parts.sources.len();
        let mut positions = parts.source_offsets.by_tasklet(&parts.recovery.offsets);
        positions.resize(sources, Offset::default());
        let time = parts.time;
        time.times().start(parts.env.wall_us());
        let replays = matches!(parts.recovery.unfinished, Some(UnfinishedEpoch::Rerun(_)));
        time.times().set_replays(replays && parts.trigger.is_continuous());
        Self {
            time,
            trigger: parts.trigger,
            runs_empty_batch: parts.runs_empty_batch,
            exhausted: vec![false; sources],
            open_sources: OpenSources::new(parts.source_offsets.count()),
            sources: parts.sources,
            source_offsets: parts.source_offsets,
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
            owes_late_emission: false,
            join_waits: vec![JoinWait::default(); parts.operators],
            joins: parts.joins,
            stop: false,
            failed: None,
            asked: Vec::new(),
            served: Vec::new(),
            next_at_ns: None,
            next_tick_us: None,
            reclaim: Reclaim::default(),
            on_commit: parts.on_commit,
            phase: PhaseCell::default(),
        }
    }

    /// The driver's phase, for other threads.
    pub(crate) fn phase(&self) -> PhaseCell {
        self.phase.clone()
    }

    /// The sources that may still have data, for other threads.
    pub(crate) fn open_sources(&self) -> OpenSources {
        self.open_sources.clone()
    }

    fn set_exhausted(&mut self, source: usize, exhausted: bool) {
        self.exhausted[source] = exhausted;
        self.open_sources.set(self.source_offsets.open(&self.exhausted));
    }

    fn tell(&self, make: impl Fn(usize) -> Command) {
        for (index, (commands, waker)) in self.sources.iter().enumerate() {
            // A source whose receiver is gone has ended and has already reported why.
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

    /// Applies a report to the state machine. The last acknowledgement of an epoch commits it.
    pub fn handle(&mut self, report: Report, now_ns: u64) {
        match report {
            Report::Ack { epoch, owes_late_emission, emitted_late } => {
                debug_assert_eq!(epoch, self.next_epoch, "one epoch is in flight at a time");
                if let State::Epoch(flight) = &mut self.state {
                    flight.acks += 1;
                    // A batch emits the results that its watermark releases before its marker.
                    flight.owes_late_emission |=
                        owes_late_emission || emitted_late && !flight.batch;
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
                self.set_exhausted(source, planned.exhausted);
                if let State::Planning { plans, started_ns } = &mut self.state {
                    let started_ns = *started_ns;
                    plans[source] = Some(planned);
                    if plans.iter().all(Option::is_some) {
                        self.planned(started_ns, now_ns);
                    }
                }
            }
            Report::Exhausted { source } => self.set_exhausted(source, true),
            Report::Done { .. } => self.done += 1,
            Report::Failed(error) => self.fail(error),
            Report::Stop => self.stop(),
            Report::ProcessAll(reply) => self.asked.push(reply),
        }
    }

    /// Ends the query after the current epoch, and a drain at once: while an input always has data,
    /// the drain would never end.
    fn stop(&mut self) {
        self.stop = true;
        if matches!(&self.state, State::Epoch(flight) if !flight.batch) {
            self.tell(|_| Command::AbandonDrain);
        }
    }

    fn changed(&mut self, changes: StateChanges) {
        if let State::Epoch(flight) = &mut self.state {
            let state = &mut flight.state[changes.operator];
            state.rows += changes.rows;
            state.updated += changes.updated;
            state.removed += changes.removed;
            state.late += changes.late;
            state.memory_bytes += changes.memory_bytes;
            if let Some(join) = &changes.join {
                state.join.get_or_insert_default().add(join);
            }
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
        let plans: Vec<EndOffset> = plans.into_iter().flatten().collect();
        let runs_empty = std::mem::take(&mut self.runs_empty_batch);
        if runs_empty
            || plans.iter().any(|plan| plan.has_new)
            || self.time.is_batch_due(self.env.wall_us())
        {
            let limited = plans.iter().any(|plan| plan.limited);
            let ends: Vec<Offset> = plans.into_iter().map(|plan| plan.end).collect();
            let times = (self.env.wall_us() / 1000, self.time.next_ms());
            if let Some(checkpoint) = &self.checkpoint {
                let (epoch, mode) = (self.next_epoch, EpochMode::MicroBatch);
                let merged = self.source_offsets.merged(&ends);
                let written = checkpoint.write_offsets(epoch, &merged, mode, times, Vec::new());
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
        // `limited` is true until the batch's plan is stored. A batch that an earlier run planned
        // has no new plan, and data may be available after its end.
        let limited = true;
        self.state = State::Epoch(InFlight { batch: true, limited, ..self.flight(begun_ns) });
        self.tell(|source| Command::Run { epoch, end: ends[source].clone() });
    }

    /// Whether a caller waits for all available data.
    fn is_awaited(&self) -> bool {
        !self.asked.is_empty() || !self.served.is_empty()
    }

    fn all_exhausted(&self) -> bool {
        self.exhausted.iter().all(|&exhausted| exhausted)
    }

    /// Makes the epoch durable, as far as the query has a checkpoint and a transactional sink, and
    /// commits it. Returns the time that writing the offset log took, in nanoseconds: in
    /// micro-batch mode before the batch, in continuous mode here.
    fn make_durable(&mut self, flight: &mut InFlight) -> Result<u64, EngineError> {
        let (epoch, env) = (self.next_epoch, self.env.clone());
        let storage = env.storage();
        let mut wal_ns = flight.wal_ns;
        if let Some(checkpoint) = &mut self.checkpoint {
            flight.changes.drain(..).for_each(|changes| checkpoint.add_changes(changes));
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
                &self.source_offsets.merged(&flight.offsets),
                EpochMode::Continuous,
                (env.wall_us() / 1000, self.time.next_ms()),
                flight.staged.clone(),
            )?;
            wal_ns = env.now_ns() - before_ns;
        }
        self.commit_staged(epoch, &flight.staged)?;
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.write_commit(epoch, self.time.next_ms())?;
        }
        Ok(wal_ns)
    }

    /// Makes staged output visible. Fails if there is output, but no log to commit it to.
    fn commit_staged(&mut self, epoch: Epoch, staged: &[String]) -> Result<(), EngineError> {
        match &mut self.sink {
            Some(sink) => sink.commit(self.env.storage(), epoch, staged),
            None if staged.is_empty() => Ok(()),
            None => {
                let reason = format!("epoch {epoch} has staged output, and no sink can commit it");
                let fix = "Run the query with the sink that staged the output";
                Err(EngineError::operator("CHECKPOINT_QUERY_CHANGED", reason, fix))
            }
        }
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
        self.owes_late_emission = flight.owes_late_emission;
        // A batch goes by the watermark from before its rows. What they release is removed only by
        // the next epoch.
        let removed = flight.state.iter().map(|state| state.removed).sum();
        self.removed = (!flight.batch).then_some(removed);
        for (at, (wait, state)) in self.join_waits.iter_mut().zip(&mut flight.state).enumerate() {
            let sides = self.joins.iter().find(|(operator, _)| *operator == at);
            let holder =
                sides.map_or(WatermarkHolder::Unknown, |(_, sides)| self.time.holder(sides));
            wait.note(state, flight.started_us, holder);
        }
        let state: u64 = flight.state.iter().map(|state| state.memory_bytes).sum();
        let buffers = self.checkpoint.as_ref().map_or(0, Checkpoint::buffer_bytes);
        // The changes take memory twice: as received, and in the buffers of the state files.
        let (taken, kept) = flight.change_bytes;
        let releases = self.reclaim.end_epoch(end_ns, state + buffers + kept, taken * 2);
        let committed = CommittedEpoch {
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
        let limited = flight.limited || flight.owes_late_emission;
        if !(limited || flight.batch && self.time.is_batch_due(self.env.wall_us())) {
            for reply in self.served.drain(..) {
                let _ = reply.send(());
            }
        }
        match self.trigger {
            Trigger::Continuous { interval_ns } => {
                self.next_at_ns = Some((flight.begun_ns + interval_ns).max(end_ns));
                // The last epoch may have advanced the watermark, for example if it ran again.
                // Emitting the released results takes one more epoch.
                let owes_late_emission = flight.owes_late_emission && !self.stop;
                if flight.last && !owes_late_emission {
                    self.end();
                }
            }
            Trigger::Once => self.end(),
            Trigger::AsSoonAsPossible | Trigger::AvailableNow => self.next_at_ns = Some(end_ns),
            Trigger::ProcessingTime { .. } => {}
        }
    }

    /// Finishes the epoch that an earlier run began, if there is one: runs its batch again, or
    /// commits it. Returns whether the batch is in flight afterwards. A failed commit fails the
    /// query.
    fn take_up(&mut self, now_ns: u64) -> bool {
        match self.unfinished.take() {
            None => false,
            Some(UnfinishedEpoch::Rerun(replay)) => {
                let times = (replay.timestamp_ms, replay.watermark_ms);
                let ends = self.source_offsets.by_tasklet(&replay.ends);
                self.run_batch(&ends, times, now_ns);
                true
            }
            Some(UnfinishedEpoch::Commit(staged)) => {
                let epoch = self.next_epoch - 1;
                let done =
                    self.commit_staged(epoch, &staged).and_then(|()| match &mut self.checkpoint {
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

    /// Runs everything that is due at `now_ns`. Returns what to wait for.
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
            // In continuous mode records are processed all the time, also while a marker is in
            // flight.
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

    /// Runs a compaction step, if there is work for one, and returns `Wait` until now, so that the
    /// driver continues at once. Otherwise returns `tick`.
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
        // Results that the last watermark releases may be emitted after the marker of its epoch.
        let released = self.owes_late_emission || self.removed != Some(0);
        let flushing =
            ends && (self.owes_late_emission || self.time.wants_no_data_batches() && released);
        let last = self.stop || (ends && !flushing);
        // A caller keeps waiting if results were still pending at the end of the last epoch. Then
        // this epoch drains the sources again.
        let drain = self.is_awaited() && !self.stop;
        let due_ns = *self.next_at_ns.get_or_insert(now_ns + interval_ns);
        if !last && !drain && !flushing && now_ns < due_ns {
            return Tick::Wait(Some(due_ns));
        }
        self.served.append(&mut self.asked);
        let epoch = self.next_epoch;
        self.state = State::Epoch(InFlight { last, ..self.flight(now_ns) });
        self.tell(|_| Command::EmitMarker { epoch, drain, last });
        Tick::Wait(None)
    }

    /// The monotonic time at which to check whether the next tick of trigger processing-time has
    /// come. Ticks are multiples of the interval on the wall clock, as in Spark. The first batch
    /// starts at once. The driver waits by the monotonic clock, which stands still while the machine
    /// is suspended. Therefore it reads the wall clock at least every [`MAX_WAIT_NS`]. If the wall
    /// clock was set back, a batch runs, and the ticks are computed again.
    fn next_tick_ns(&self, now_ns: u64, interval_ns: u64) -> u64 {
        let Some(next_us) = self.next_tick_us else { return now_ns };
        let left_us = next_us.saturating_sub(self.env.wall_us());
        if left_us <= 0 || left_us > tick_interval_us(interval_ns) {
            return now_ns;
        }
        now_ns + (left_us as u64).saturating_mul(1000).min(MAX_WAIT_NS)
    }

    fn tick_batch(&mut self, now_ns: u64) -> Tick {
        if self.stop {
            self.end();
            return Tick::Wait(None);
        }
        let due_ns = match self.trigger {
            Trigger::ProcessingTime { interval_ns } => self.next_tick_ns(now_ns, interval_ns),
            _ => self.next_at_ns.unwrap_or(now_ns),
        };
        if !self.is_awaited() && now_ns < due_ns {
            return Tick::Wait(Some(due_ns));
        }
        if let Trigger::ProcessingTime { interval_ns } = self.trigger {
            // Missed ticks are skipped, not queued.
            let interval_us = tick_interval_us(interval_ns);
            let ticks = self.env.wall_us().div_euclid(interval_us);
            self.next_tick_us = Some(ticks.saturating_add(1).saturating_mul(interval_us));
        }
        let extent = match self.trigger {
            Trigger::Once => ReadLimit::All,
            Trigger::AvailableNow => ReadLimit::AvailableAtStart,
            _ => ReadLimit::RateLimited,
        };
        self.served.append(&mut self.asked);
        self.state = State::Planning { plans: vec![None; self.sources.len()], started_ns: now_ns };
        self.tell(|_| Command::Plan(extent));
        Tick::Wait(None)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::env::SimEnv;
    use crate::env::storage::Storage;
    use crossbeam_channel::unbounded;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::thread::JoinHandle;

    /// An environment whose two clocks move apart, as while the machine is suspended.
    #[derive(Default)]
    struct Clocks {
        now_ns: AtomicI64,
        wall_us: AtomicI64,
    }

    impl Env for Clocks {
        fn now_ns(&self) -> u64 {
            self.now_ns.load(Ordering::Relaxed) as u64
        }
        fn wall_us(&self) -> i64 {
            self.wall_us.load(Ordering::Relaxed)
        }
        fn random(&self) -> u64 {
            0
        }
        fn storage(&self) -> &dyn Storage {
            unreachable!("the query has no checkpoint")
        }
        fn create_poller(&self) -> Result<(Option<mio::Poll>, Waker), EngineError> {
            SimEnv::new(0).create_poller()
        }
        fn spawn(
            &self,
            name: String,
            run: Box<dyn FnOnce() + Send>,
        ) -> Result<JoinHandle<()>, EngineError> {
            SimEnv::new(0).spawn(name, run)
        }
    }

    /// Ticks are full hours of the wall clock.
    #[test]
    fn a_batch_is_due_by_the_wall_clock_also_after_a_suspension() {
        const MINUTE_US: i64 = 60_000_000;
        let clocks = Arc::new(Clocks::default());
        clocks.wall_us.store(30 * MINUTE_US, Ordering::Relaxed);
        let (commands, told) = unbounded();
        let mut source_offsets = SourceOffsets::default();
        source_offsets.add();
        let mut driver = Driver::new(DriverParts {
            trigger: Trigger::ProcessingTime { interval_ns: 3_600_000_000_000 },
            runs_empty_batch: false,
            sources: vec![(commands, Waker::noop())],
            source_offsets,
            tasklets: 1,
            operators: 0,
            joins: Vec::new(),
            env: clocks.clone(),
            time: WatermarkTracker::default(),
            checkpoint: None,
            recovery: Recovery::default(),
            sink: None,
            on_commit: Box::new(|_| {}),
        });
        // Whether new data is looked for after both clocks have moved, and how long to wait if not.
        let mut after = |mono_ns: i64, wall_us: i64| {
            clocks.now_ns.fetch_add(mono_ns, Ordering::Relaxed);
            clocks.wall_us.fetch_add(wall_us, Ordering::Relaxed);
            let now_ns = clocks.now_ns();
            let tick = driver.tick(now_ns);
            if told.try_iter().any(|command| matches!(command, Command::Plan(_))) {
                let end = Offset::default();
                let planned = EndOffset { end, has_new: false, exhausted: false, limited: false };
                driver.handle(Report::Planned { source: 0, planned }, now_ns);
                return Err("looked");
            }
            match tick {
                Tick::Wait(Some(until_ns)) => Ok(until_ns - now_ns),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(after(0, 0), Err("looked"), "the first batch starts at once");
        assert_eq!(after(0, 0), Ok(MAX_WAIT_NS), "the wall clock is read again");
        assert_eq!(after(1_000, 30 * MINUTE_US - 5), Ok(5_000), "until the full hour");
        assert_eq!(after(5_000, 5), Err("looked"));
        assert_eq!(after(1_000, 59 * MINUTE_US), Ok(MAX_WAIT_NS));
        assert_eq!(after(1_000, 200 * MINUTE_US), Err("looked"), "missed ticks are skipped");
        assert_eq!(after(1_000, 0), Ok(MAX_WAIT_NS));
        assert_eq!(after(1_000, -180 * MINUTE_US), Err("looked"), "the clock was set back");
        assert_eq!(after(1_000, 0), Ok(MAX_WAIT_NS));
    }
}
