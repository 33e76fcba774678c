//! A tasklet that drives a chain of operators from a source.

use crate::checkpoint::offset::Offset;
use crate::epoch::idle_timeout::{IdleTimeout, Idleness};
use crate::epoch::protocol::{Command, EndOffset, ReadLimit, Report};
use crate::error::EngineError;
use crate::event::{Epoch, IDLE, PARTITION_IDLE};
use crate::measure::stall::{Activity, record_activity};
use crate::runtime::stage::{FlushStatus, Io, Stage};
use crate::runtime::tasklet::marker_ack::MarkerAck;
use crate::runtime::tasklet::{Step, StepCx, Tasklet, TaskletPort};
use crossbeam_channel::{Receiver, Sender};

/// The result of polling a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Records were emitted, or the chain became full.
    Emitted,
    /// There is no data now.
    Idle,
    /// The end of the batch's range was reached.
    AtEndOffset,
    /// There is no data now, and there will never be any.
    Exhausted,
}

/// A source of records. `D` is the chain that it pushes into.
pub trait Source<D>: Send {
    /// The name shown in errors and progress reports.
    fn name(&self) -> &str;
    /// Registers sockets with the worker.
    fn attach(&mut self, _io: &mut Io<'_>) -> Result<(), EngineError> {
        Ok(())
    }
    /// Emits available records, at most `cx.budget`, checking `down.is_ready()` before each.
    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError>;
    /// Continuous mode: everything available now must be emitted before the next marker, unless the
    /// query is stopped meanwhile.
    fn begin_drain(&mut self) {}
    /// Whether everything that was available at [`begin_drain`](Self::begin_drain) has been
    /// emitted. By default a source is drained when a poll is idle.
    fn is_drained(&mut self) -> bool {
        false
    }
    /// Whether a drain is over when a poll is idle. False while the source waits for data that was
    /// available at [`begin_drain`](Self::begin_drain).
    fn is_drained_when_idle(&mut self) -> bool {
        true
    }
    /// Whether the position is known. Markers wait for it. A source whose starting position another
    /// thread looks up wakes the worker when it is known.
    fn has_position(&self) -> bool {
        true
    }
    /// The position after the last emitted record.
    fn position(&self) -> Offset;
    /// Records emitted so far in this run.
    fn records_emitted(&self) -> u64;
    /// Resumes after the committed position. Called before [`attach`](Self::attach), unless no
    /// epoch is committed yet.
    fn resume(&mut self, at: &Offset) -> Result<(), EngineError>;
    /// Micro-batch mode: whether [`plan`](Self::plan) has its answer. A source returns false while
    /// another thread looks it up, which wakes the worker when it is done.
    fn can_plan(&mut self, _extent: ReadLimit) -> Result<bool, EngineError> {
        Ok(true)
    }
    /// Micro-batch mode: returns how far the source can read now.
    fn plan(&mut self, extent: ReadLimit, cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError>;
    /// Limits the next polls to this end offset. After [`resume`](Self::resume) the offset may have
    /// been planned by an earlier run. A source that cannot read that range again must not wait for
    /// it; the batch then ends without it.
    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError>;
    /// Reports that everything before this position is committed and will not be requested again.
    fn on_committed(&mut self, _end: &Offset) -> Result<(), EngineError> {
        Ok(())
    }
}

enum SourceState {
    /// Continuous mode: the source is polled while the chain is not blocked.
    Flowing,
    /// Between batches. In continuous mode: until a batch that must be run again is committed.
    Waiting,
    /// Emitting the range of this batch.
    Batch(Epoch),
    /// A marker with `last` was sent. No records follow. Further markers may precede `End`.
    Halted,
    /// `End` was forwarded; the tasklet is done when the chain is flushed.
    Ended,
}

#[derive(Clone, Copy)]
struct PendingMarker {
    epoch: Epoch,
    drain: bool,
    last: bool,
}

/// Drives a chain from a source and inserts the driver's markers.
pub struct SourceTasklet<S, D> {
    name: String,
    id: usize,
    source_index: usize,
    source: S,
    pub(super) down: D,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    state: SourceState,
    mark: Option<PendingMarker>,
    /// A plan that the source has not answered yet.
    planning: Option<ReadLimit>,
    ack: MarkerAck,
    marked: Offset,
    told_exhausted: bool,
    continuous: bool,
    resume: Option<Offset>,
    idle_timeout: IdleTimeout,
    /// The time-out after which an idle partition no longer holds back the other partitions of the
    /// source.
    partition_timeout: IdleTimeout,
    /// Whether the chain was full, so that the source is not idle although it emitted nothing.
    was_blocked: bool,
}

/// A source's connection to the driver.
pub struct SourcePort {
    pub(crate) tasklet: TaskletPort,
    pub(crate) index: usize,
    pub(crate) commands: Receiver<Command>,
    pub(crate) continuous: bool,
    pub(crate) resume: Option<Offset>,
    pub(crate) replays: bool,
    pub(crate) idle_after_ns: Option<u64>,
    pub(crate) partition_idle_after_ns: Option<u64>,
}

impl<S: Source<D>, D: Stage> SourceTasklet<S, D> {
    /// Connects a source to its chain. In continuous mode it starts to read at once, unless a batch
    /// must be run again first; in micro-batch mode it waits for a command.
    pub fn new(port: SourcePort, source: S, down: D) -> Self {
        Self {
            name: format!("source {} ({})", port.index, source.name()),
            id: port.tasklet.id,
            source_index: port.index,
            source,
            down,
            commands: port.commands,
            reports: port.tasklet.reports,
            // An epoch that must be run again precedes all new data.
            state: if port.continuous && !port.replays {
                SourceState::Flowing
            } else {
                SourceState::Waiting
            },
            mark: None,
            planning: None,
            ack: MarkerAck::default(),
            marked: Offset::default(),
            told_exhausted: false,
            continuous: port.continuous,
            resume: port.resume,
            idle_timeout: IdleTimeout::new(port.idle_after_ns.filter(|_| port.continuous)),
            partition_timeout: IdleTimeout::new(
                port.partition_idle_after_ns.filter(|_| port.continuous),
            ),
            was_blocked: false,
        }
    }

    /// Sends the watermark [`IDLE`] when the source has emitted nothing for its idle time-out, and
    /// [`PARTITION_IDLE`] after the time-out of a partition. A blocked chain restarts both.
    fn update_idleness(&mut self, polled: Polled, cx: &mut StepCx<'_>) -> Result<(), EngineError> {
        if !self.idle_timeout.is_enabled() && !self.partition_timeout.is_enabled() {
            return Ok(());
        }
        let now_ns = cx.env.now_ns();
        let was_blocked = std::mem::take(&mut self.was_blocked) || !self.down.is_ready();
        if polled == Polled::Emitted || was_blocked {
            self.idle_timeout.restart(now_ns);
            self.partition_timeout.restart(now_ns);
            return Ok(());
        }
        // The longer time-out comes last, so that its mark replaces the other one.
        let timeouts =
            [(&mut self.partition_timeout, PARTITION_IDLE), (&mut self.idle_timeout, IDLE)];
        for (timeout, mark) in timeouts {
            match timeout.update(now_ns) {
                Idleness::Unchanged => {}
                Idleness::CheckAt(at_ns) => cx.wake_at(at_ns),
                Idleness::BecameIdle => self.down.watermark(mark)?,
            }
        }
        Ok(())
    }

    /// Whether the pending marker is sent without a poll: nothing has to be drained before it. A
    /// source that emits nothing more is drained.
    fn is_mark_due(&self, mark: PendingMarker) -> bool {
        let is_drained = matches!(self.state, SourceState::Waiting | SourceState::Halted);
        (!mark.drain || is_drained) && self.source.has_position()
    }

    fn report(&self, report: Report) {
        // The send fails only while the query is being torn down, after the driver has ended.
        drop(self.reports.send(report));
    }

    fn take_commands(&mut self, cx: &mut StepCx<'_>) -> Result<bool, EngineError> {
        let mut any = false;
        while let Ok(command) = self.commands.try_recv() {
            any = true;
            match command {
                Command::EmitMarker { epoch, drain, last } => {
                    if drain {
                        self.source.begin_drain();
                    }
                    self.mark = Some(PendingMarker { epoch, drain, last });
                }
                Command::AbandonDrain => {
                    if let Some(mark) = &mut self.mark {
                        mark.drain = false;
                    }
                }
                Command::Plan(extent) => self.planning = Some(extent),
                Command::Run { epoch, end } => {
                    self.source.set_end_offset(&end)?;
                    self.state = SourceState::Batch(epoch);
                }
                Command::Committed => {
                    self.source.on_committed(&self.marked)?;
                    if self.continuous && matches!(self.state, SourceState::Waiting) {
                        self.state = SourceState::Flowing;
                    }
                }
                Command::End => {
                    self.down.end()?;
                    self.state = SourceState::Ended;
                }
            }
        }
        any |= self.plan(cx)?;
        Ok(any)
    }

    /// Asks the source for the end of the next batch, and reports it if it is known.
    fn plan(&mut self, cx: &mut StepCx<'_>) -> Result<bool, EngineError> {
        let Some(extent) = self.planning else { return Ok(false) };
        if !self.source.can_plan(extent)? {
            return Ok(false);
        }
        self.planning = None;
        let planned = self.source.plan(extent, cx)?;
        self.report(Report::Planned { source: self.source_index, planned });
        Ok(true)
    }

    fn put_marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        record_activity(Activity::Epoch);
        self.marked = self.source.position();
        self.report(Report::Offset {
            source: self.source_index,
            epoch,
            offset: self.marked.clone(),
            records: self.source.records_emitted(),
        });
        self.down.marker(epoch)?;
        self.ack.expect(epoch);
        Ok(())
    }
}

impl<S: Source<D>, D: Stage> Tasklet for SourceTasklet<S, D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        if let Some(at) = self.resume.take() {
            self.source.resume(&at)?;
        }
        self.source.attach(io)?;
        self.down.attach(io)
    }

    // Longer than other functions: the order of the phases decides which epoch a record belongs to,
    // and the step may stop after each phase.
    fn step(&mut self, cx: &mut StepCx<'_>) -> Result<Step, EngineError> {
        // Results that a watermark releases are emitted in steps; records may be processed in
        // between.
        let status = self.down.flush()?;
        if status == FlushStatus::Blocked {
            record_activity(Activity::Blocked);
            self.was_blocked = true;
            cx.wake_while_blocked(self.down.next_timer_ns());
            return Ok(Step::Idle);
        }
        let clear = status == FlushStatus::Flushed;
        let waits = status == FlushStatus::Waiting;
        if status > FlushStatus::Buffered && !waits {
            record_activity(Activity::Expiry);
        }
        let mut progress = !clear && !waits;
        if let Some(ack) = self.ack.due(status) {
            self.report(ack);
            progress = true;
        }
        if clear && matches!(self.state, SourceState::Ended) {
            self.report(Report::Done { tasklet: self.id });
            return Ok(Step::Done);
        }
        progress |= self.take_commands(cx)?;
        if let Some(mark) = self.mark.filter(|mark| self.is_mark_due(*mark)) {
            self.mark = None;
            self.put_marker(mark.epoch)?;
            if mark.last {
                self.state = SourceState::Halted;
            }
            return Ok(Step::Progress);
        }
        let polled = match self.state {
            SourceState::Flowing | SourceState::Batch(_) => self.source.poll(&mut self.down, cx)?,
            SourceState::Waiting | SourceState::Halted => {
                return Ok(if progress { Step::Progress } else { Step::Idle });
            }
            SourceState::Ended => return Ok(Step::Progress),
        };
        self.update_idleness(polled, cx)?;
        match (polled, &self.state) {
            (Polled::Emitted, SourceState::Flowing) if self.mark.is_some() => {
                if let Some(mark) = self.mark.take_if(|_| self.source.is_drained()) {
                    self.put_marker(mark.epoch)?;
                    if mark.last {
                        self.state = SourceState::Halted;
                    }
                }
                progress = true;
            }
            (Polled::Emitted, _) => {
                progress = true;
            }
            (Polled::AtEndOffset, SourceState::Batch(epoch)) => {
                let epoch = *epoch;
                self.put_marker(epoch)?;
                // In continuous mode the batch's watermarks and time apply until it is committed.
                // They do not apply to later records.
                self.state = SourceState::Waiting;
                progress = true;
            }
            (Polled::Idle | Polled::Exhausted, SourceState::Flowing) => {
                if polled == Polled::Exhausted && !self.told_exhausted {
                    self.told_exhausted = true;
                    self.report(Report::Exhausted { source: self.source_index });
                }
                let source = &mut self.source;
                let may_mark =
                    |_: &mut PendingMarker| source.has_position() && source.is_drained_when_idle();
                if let Some(mark) = self.mark.take_if(may_mark) {
                    self.put_marker(mark.epoch)?;
                    if mark.last {
                        self.state = SourceState::Halted;
                    }
                    progress = true;
                }
            }
            _ => {}
        }
        // Flushes again, so that the output of this poll is sent now and not at the next step.
        let status = self.down.flush()?;
        if let Some(at_ns) = self.down.next_timer_ns() {
            cx.wake_at(at_ns);
        }
        progress |= self.ack.flushed(status);
        Ok(if progress { Step::Progress } else { Step::Idle })
    }
}
