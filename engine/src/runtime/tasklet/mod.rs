//! Tasklets: the units that a worker steps. A step does a bounded amount of work without blocking
//! and reports whether it made progress.
//!
//! There are two kinds. A [`SourceTasklet`] drives a chain from a source. An [`InboxTasklet`]
//! drives a chain from the rings of other tasklets and aligns their markers.

mod marker_alignment;

use crate::checkpoint::offset::Offset;
use crate::env::Env;
use crate::epoch::event_time::WatermarkPolicy;
use crate::epoch::idle_timeout::{IdleTimeout, Idleness};
use crate::epoch::protocol::{Command, EndOffset, ReadLimit, Report};
use crate::error::EngineError;
use crate::event::{Epoch, Event, IDLE};
use crate::measure::stall::{Activity, record_activity};
use crate::runtime::exchange::Inlet;
use crate::runtime::stage::{FlushStatus, Io, Push, Stage};
use crossbeam_channel::{Receiver, Sender};
use marker_alignment::{AlignedInlet, Alignment, InletState};

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something was done; there may be more.
    Progress,
    /// There is nothing to do until a wake-up.
    Idle,
    /// The tasklet has ended and must not be stepped again.
    Done,
}

/// The shortest time between two looks at a chain that is blocked.
const BLOCKED_PAUSE_NS: u64 = 10_000_000;

/// The context of a step.
pub struct StepCx<'a> {
    /// Clock and randomness.
    pub env: &'a dyn Env,
    /// Maximum number of records to process.
    pub budget: usize,
    /// The earliest time at which a tasklet must be stepped even without a wake-up, in nanoseconds.
    pub wake_at_ns: Option<u64>,
}

impl StepCx<'_> {
    /// Requests a step at this time, in nanoseconds, even if nothing else happens.
    pub fn wake_at(&mut self, at_ns: u64) {
        self.wake_at_ns = Some(self.wake_at_ns.map_or(at_ns, |other| other.min(at_ns)));
    }

    /// Requests a step for a chain that is blocked and has a timer. A timer that is due already
    /// may be one that waits for room, so it is checked after a pause.
    fn wake_while_blocked(&mut self, timer_ns: Option<u64>) {
        if let Some(at_ns) = timer_ns {
            self.wake_at(at_ns.max(self.env.now_ns() + BLOCKED_PAUSE_NS));
        }
    }
}

/// A unit of scheduling.
pub trait Tasklet: Send {
    /// The name shown in errors, thread dumps and `explain`.
    fn name(&self) -> &str;
    /// Called once on the worker's thread, before the first step.
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError>;
    /// Does a bounded amount of work without blocking.
    fn step(&mut self, cx: &mut StepCx<'_>) -> Result<Step, EngineError>;
}

/// The result of polling a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Records were emitted, or the chain became full.
    Emitted,
    /// There is no data now.
    Idle,
    /// The end of the batch's range was reached.
    AtEndOffset,
    /// There is no data now and there never will be.
    Exhausted,
}

/// A source of records. `D` is the chain that it pushes into.
pub trait Source<D>: Send {
    /// For errors and progress reports.
    fn name(&self) -> &str;
    /// Registers sockets with the worker.
    fn attach(&mut self, _io: &mut Io<'_>) -> Result<(), EngineError> {
        Ok(())
    }
    /// Emits available records, at most `cx.budget`, checking `down.is_ready()` before each.
    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError>;
    /// Continuous mode: everything available now must be emitted before the next marker.
    fn begin_drain(&mut self) {}
    /// Whether everything that was available at [`begin_drain`](Self::begin_drain) has been
    /// emitted. By default a source is drained when a poll is idle.
    fn is_drained(&mut self) -> bool {
        false
    }
    /// The position after the last emitted record.
    fn position(&self) -> Offset;
    /// Records emitted so far in this run.
    fn records_emitted(&self) -> u64;
    /// Resumes after a committed position. Called before all other methods, and not at the first
    /// start.
    fn resume(&mut self, at: &Offset) -> Result<(), EngineError>;
    /// Micro-batch mode: how far the source can read now.
    fn plan(&mut self, extent: ReadLimit, cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError>;
    /// Limits the next polls to this planned position. After [`resume`](Self::resume) an earlier
    /// run may have planned it. A source that cannot read that range again reports it and moves to
    /// the position at once.
    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError>;
    /// Everything before this position is committed and will not be requested again.
    fn on_committed(&mut self, _end: &Offset) -> Result<(), EngineError> {
        Ok(())
    }
}

enum SourceState {
    /// Continuous mode: poll whenever there is room.
    Flowing,
    /// Micro-batch: between batches.
    Waiting,
    /// Micro-batch: emitting the range of this batch.
    Batch(Epoch),
    /// The last marker is out; only `End` follows.
    Halted,
    /// `End` was passed on.
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
    down: D,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    state: SourceState,
    mark: Option<PendingMarker>,
    ack: Option<Epoch>,
    /// Whether results were emitted after the marker that is to be acknowledged.
    emitted_late: bool,
    marked: Offset,
    told_exhausted: bool,
    continuous: bool,
    resume: Option<Offset>,
    idle_timeout: IdleTimeout,
    /// Whether the chain was full, so that the source is not idle although it emitted nothing.
    was_blocked: bool,
}

/// A tasklet's connection to the driver.
pub struct TaskletPort {
    pub(crate) id: usize,
    pub(crate) reports: Sender<Report>,
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
}

impl<S: Source<D>, D: Stage> SourceTasklet<S, D> {
    /// Joins a source to its chain.
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
            ack: None,
            emitted_late: false,
            marked: Offset::default(),
            told_exhausted: false,
            continuous: port.continuous,
            resume: port.resume,
            idle_timeout: IdleTimeout::new(port.idle_after_ns.filter(|_| port.continuous)),
            was_blocked: false,
        }
    }

    /// Marks the source as idle after its idle time-out.
    fn update_idleness(&mut self, polled: Polled, cx: &mut StepCx<'_>) -> Result<(), EngineError> {
        if !self.idle_timeout.is_enabled() {
            return Ok(());
        }
        let now_ns = cx.env.now_ns();
        let was_blocked = std::mem::take(&mut self.was_blocked) || !self.down.is_ready();
        if polled == Polled::Emitted || was_blocked {
            self.idle_timeout.restart(now_ns);
            return Ok(());
        }
        match self.idle_timeout.update(now_ns) {
            Idleness::Unchanged => Ok(()),
            Idleness::CheckAt(at_ns) => {
                cx.wake_at(at_ns);
                Ok(())
            }
            Idleness::BecameIdle => self.down.watermark(IDLE),
        }
    }

    fn report(&self, report: Report) {
        // The driver is gone only when the query is being torn down.
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
                Command::Plan(extent) => {
                    let planned = self.source.plan(extent, cx)?;
                    self.report(Report::Planned { source: self.source_index, planned });
                }
                Command::Run { epoch, end } => {
                    self.source.set_end_offset(&end)?;
                    self.state = SourceState::Batch(epoch);
                }
                Command::Committed => self.source.on_committed(&self.marked)?,
                Command::End => {
                    self.down.end()?;
                    self.state = SourceState::Ended;
                }
            }
        }
        Ok(any)
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
        self.ack = Some(epoch);
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

    fn step(&mut self, cx: &mut StepCx<'_>) -> Result<Step, EngineError> {
        // Results that a watermark releases are emitted in steps, with records between them.
        let status = self.down.flush()?;
        if status == FlushStatus::Blocked {
            record_activity(Activity::Blocked);
            self.was_blocked = true;
            cx.wake_while_blocked(self.down.next_timer_ns());
            return Ok(Step::Idle);
        }
        let clear = status == FlushStatus::Flushed;
        if status > FlushStatus::Buffered {
            record_activity(Activity::Expiry);
        }
        let mut progress = !clear;
        if status <= FlushStatus::NextEpoch
            && let Some(epoch) = self.ack.take()
        {
            let owes_late_emission = status == FlushStatus::NextEpoch;
            let emitted_late = std::mem::take(&mut self.emitted_late);
            self.report(Report::Ack { epoch, owes_late_emission, emitted_late });
            progress = true;
        }
        if clear && matches!(self.state, SourceState::Ended) {
            self.report(Report::Done { tasklet: self.id });
            return Ok(Step::Done);
        }
        progress |= self.take_commands(cx)?;
        if let Some(mark) = self.mark.filter(|mark| !mark.drain) {
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
                self.state =
                    if self.continuous { SourceState::Flowing } else { SourceState::Waiting };
                progress = true;
            }
            (Polled::Idle | Polled::Exhausted, SourceState::Flowing) => {
                if polled == Polled::Exhausted && !self.told_exhausted {
                    self.told_exhausted = true;
                    self.report(Report::Exhausted { source: self.source_index });
                }
                if let Some(mark) = self.mark.take() {
                    self.put_marker(mark.epoch)?;
                    if mark.last {
                        self.state = SourceState::Halted;
                    }
                    progress = true;
                }
            }
            _ => {}
        }
        // The output of this drain leaves now, not at the next step.
        let status = self.down.flush()?;
        if let Some(at_ns) = self.down.next_timer_ns() {
            cx.wake_at(at_ns);
        }
        self.emitted_late |= self.ack.is_some() && status == FlushStatus::NextEpoch;
        match status {
            FlushStatus::Buffered | FlushStatus::NextEpoch | FlushStatus::Pending => {
                progress = true
            }
            FlushStatus::Flushed if self.ack.is_some() => progress = true,
            FlushStatus::Flushed | FlushStatus::Blocked => {}
        }
        Ok(if progress { Step::Progress } else { Step::Idle })
    }
}

/// Drives a chain from the rings of other tasklets.
///
/// It aligns their markers (`marker_alignment.rs`).
pub struct InboxTasklet<T, D> {
    name: String,
    id: usize,
    inlets: Vec<AlignedInlet<T>>,
    policy: WatermarkPolicy,
    /// Whether an inlet has a watermark.
    has_event_time: bool,
    down: D,
    reports: Sender<Report>,
    ack: Option<Epoch>,
    /// Something has come behind the marker that is to be acknowledged.
    emitted_late: bool,
    /// The inlet to read first, which rotates so that none starves.
    turn: usize,
    watermark: i64,
    /// The largest watermark of any inlet.
    furthest: i64,
    ended: bool,
}

impl<T: Send, D: Push<T>> InboxTasklet<T, D> {
    /// Joins rings to a chain.
    pub fn new(port: TaskletPort, name: String, inlets: Vec<Inlet<T>>, down: D) -> Self {
        Self {
            name,
            id: port.id,
            inlets: inlets.into_iter().map(AlignedInlet::new).collect(),
            policy: WatermarkPolicy::Min,
            has_event_time: true,
            down,
            reports: port.reports,
            ack: None,
            emitted_late: false,
            turn: 0,
            watermark: i64::MIN,
            furthest: i64::MIN,
            ended: false,
        }
    }

    /// Sets how the watermarks of the inlets are combined, and which inlets never have one.
    pub fn watermarks(mut self, policy: WatermarkPolicy, has_event_time: &[bool]) -> Self {
        (self.policy, self.has_event_time) = (policy, false);
        for (inlet, has_event_time) in self.inlets.iter_mut().zip(has_event_time) {
            self.has_event_time |= has_event_time;
            if !has_event_time {
                // An inlet without a watermark never decides the combined one.
                inlet.watermark_us =
                    if policy == WatermarkPolicy::Min { i64::MAX } else { i64::MIN };
            }
        }
        self
    }

    fn advance_watermark(&mut self) -> Result<(), EngineError> {
        // An inlet that has ended still counts. All inlets end together, after the marker of the
        // last epoch; results that the watermark released between their ends would be emitted again
        // after a restart.
        let watermarks = self.inlets.iter().map(|inlet| inlet.watermark_us);
        let silent = self.has_event_time && watermarks.clone().all(|watermark| watermark == IDLE);
        let found = match self.policy {
            // The watermark of the furthest input, so that the order in which inputs become idle
            // does not matter.
            _ if silent => Some(self.furthest),
            WatermarkPolicy::Min => watermarks.min().filter(|lowest| *lowest < IDLE),
            WatermarkPolicy::Max => watermarks.filter(|watermark| *watermark < IDLE).max(),
        };
        let found = found.unwrap_or(self.watermark);
        if found > self.watermark {
            self.watermark = found;
            self.down.watermark(found)?;
        }
        if silent { self.down.watermark(IDLE) } else { Ok(()) }
    }

    /// Passes on a marker or the end if all inlets are waiting for it.
    fn align(&mut self, epoch: Option<Epoch>) -> Result<bool, EngineError> {
        match Alignment::of(&self.inlets) {
            Alignment::Incomplete => return Ok(false),
            Alignment::Ended => {
                self.down.end()?;
                self.ended = true;
            }
            Alignment::Marker => {
                if let Some(epoch) = epoch {
                    self.inlets.iter_mut().for_each(AlignedInlet::reopen);
                    record_activity(Activity::Epoch);
                    self.down.marker(epoch)?;
                    self.ack = Some(epoch);
                }
            }
        }
        Ok(true)
    }

    /// Takes events from one inlet. Returns their number, and whether the step must stop here.
    fn drain(&mut self, index: usize, budget: usize) -> Result<(usize, bool), EngineError> {
        let mut taken = 0;
        while taken < budget && self.inlets[index].state == InletState::Open && self.down.is_ready()
        {
            let Some(event) = self.inlets[index].inlet.ring.pop() else { break };
            taken += 1;
            match event {
                Event::Record(record) => self.down.push(record.value, record.ingest_ns)?,
                Event::Watermark(micros) => {
                    let before = &mut self.inlets[index].watermark_us;
                    // An idle input that becomes active counts with its own watermark again.
                    *before = if *before == IDLE { micros } else { micros.max(*before) };
                    if micros < IDLE {
                        self.furthest = self.furthest.max(micros);
                    }
                    self.advance_watermark()?;
                }
                Event::Marker(epoch) => {
                    self.inlets[index].state = InletState::Aligned;
                    if self.align(Some(epoch))? {
                        return Ok((taken, true));
                    }
                }
                Event::End => {
                    self.inlets[index].state = InletState::Ended;
                    // An inlet never ends between the markers of one epoch: sources end only after
                    // all tasklets have acknowledged the last epoch.
                    if self.align(None)? {
                        return Ok((taken, true));
                    }
                }
            }
        }
        Ok((taken, false))
    }
}

impl<T: Send, D: Push<T>> Tasklet for InboxTasklet<T, D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.down.attach(io)
    }

    fn step(&mut self, cx: &mut StepCx<'_>) -> Result<Step, EngineError> {
        let status = self.down.flush()?;
        if status == FlushStatus::Blocked {
            record_activity(Activity::Blocked);
            cx.wake_while_blocked(self.down.next_timer_ns());
            return Ok(Step::Idle);
        }
        let clear = status == FlushStatus::Flushed;
        if status > FlushStatus::Buffered {
            record_activity(Activity::Expiry);
        }
        let mut progress = !clear;
        if status <= FlushStatus::NextEpoch
            && let Some(epoch) = self.ack.take()
        {
            let owes_late_emission = status == FlushStatus::NextEpoch;
            let emitted_late = std::mem::take(&mut self.emitted_late);
            drop(self.reports.send(Report::Ack { epoch, owes_late_emission, emitted_late }));
            progress = true;
        }
        if clear && self.ended {
            drop(self.reports.send(Report::Done { tasklet: self.id }));
            return Ok(Step::Done);
        }
        let inlets = self.inlets.len();
        let mut budget = cx.budget;
        for i in 0..inlets {
            let index = (self.turn + i) % inlets;
            let (taken, stop) = self.drain(index, budget)?;
            if taken > 0 {
                progress = true;
                budget -= taken;
                let inlet = &mut self.inlets[index].inlet;
                if inlet.ring.release() {
                    inlet.producer.wake();
                }
            }
            if stop || budget == 0 {
                break;
            }
        }
        self.turn = (self.turn + 1) % inlets.max(1);
        let status = self.down.flush()?;
        if let Some(at_ns) = self.down.next_timer_ns() {
            cx.wake_at(at_ns);
        }
        self.emitted_late |= self.ack.is_some() && status == FlushStatus::NextEpoch;
        match status {
            FlushStatus::Buffered | FlushStatus::NextEpoch | FlushStatus::Pending => {
                progress = true
            }
            FlushStatus::Flushed if self.ack.is_some() || self.ended => progress = true,
            FlushStatus::Flushed | FlushStatus::Blocked => {}
        }
        Ok(if progress { Step::Progress } else { Step::Idle })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::env::SimEnv;
    use crate::runtime::exchange::connect;
    use crate::sync::waker::Waker;
    use crossbeam_channel::unbounded;

    /// A chain with work of its own, which says in which step a record has come.
    struct Busy {
        work: usize,
        /// What is left is of the next epoch.
        emitted_late: bool,
        came_before: Vec<usize>,
    }

    impl Stage for Busy {
        fn is_ready(&mut self) -> bool {
            true
        }
        fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
            Ok(())
        }
        fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
            Ok(())
        }
        fn end(&mut self) -> Result<(), EngineError> {
            Ok(())
        }
        fn flush(&mut self) -> Result<FlushStatus, EngineError> {
            self.work = self.work.saturating_sub(1);
            Ok(match (self.work, self.emitted_late) {
                (0, _) => FlushStatus::Flushed,
                (_, true) => FlushStatus::NextEpoch,
                (_, false) => FlushStatus::Pending,
            })
        }
    }

    impl Push<u64> for Busy {
        fn push(&mut self, _: u64, _: u64) -> Result<(), EngineError> {
            self.came_before.push(self.work);
            Ok(())
        }
    }

    /// Numbers from 1 on, or nothing at all.
    struct Numbers {
        last: u64,
        quiet: bool,
    }

    impl<D: Push<u64>> Source<D> for Numbers {
        fn name(&self) -> &str {
            "numbers"
        }
        fn poll(&mut self, down: &mut D, _cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
            if self.quiet {
                return Ok(Polled::Idle);
            }
            self.last += 1;
            down.push(self.last, 0).map(|()| Polled::Emitted)
        }
        fn position(&self) -> Offset {
            Offset::default()
        }
        fn records_emitted(&self) -> u64 {
            self.last
        }
        fn resume(&mut self, _at: &Offset) -> Result<(), EngineError> {
            Ok(())
        }
        fn plan(&mut self, _: ReadLimit, _: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
            unreachable!("the test is in continuous mode")
        }
        fn set_end_offset(&mut self, _end: &Offset) -> Result<(), EngineError> {
            unreachable!("the test is in continuous mode")
        }
    }

    /// A source that never ends in front of a chain, and what it is told and reports.
    fn numbers<D: Push<u64>>(
        down: D,
        quiet: bool,
    ) -> (SourceTasklet<Numbers, D>, Sender<Command>, Receiver<Report>) {
        let (commands, inbox) = unbounded();
        let (reports, told) = unbounded();
        let port = SourcePort {
            tasklet: TaskletPort { id: 0, reports },
            index: 0,
            commands: inbox,
            continuous: true,
            resume: None,
            replays: false,
            idle_after_ns: quiet.then_some(100),
        };
        (SourceTasklet::new(port, Numbers { last: 0, quiet }, down), commands, told)
    }

    fn step(tasklet: &mut SourceTasklet<Numbers, Busy>) -> Step {
        let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
        tasklet.step(&mut cx).unwrap()
    }

    #[test]
    fn records_come_between_the_steps_of_a_chains_own_work() {
        let down = Busy { work: 1000, emitted_late: false, came_before: Vec::new() };
        let (mut tasklet, commands, told) = numbers(down, false);
        drop(commands.send(Command::EmitMarker { epoch: 0, drain: false, last: false }));
        for _ in 0..10 {
            assert_eq!(step(&mut tasklet), Step::Progress);
        }
        assert_eq!(tasklet.down.came_before.len(), 9, "all steps but that of the marker");
        assert!(tasklet.down.came_before.iter().all(|work| *work > 900));
        let acknowledged = || told.try_iter().any(|report| matches!(report, Report::Ack { .. }));
        assert!(!acknowledged(), "not before all that was pushed is out");
        while tasklet.down.work > 0 {
            step(&mut tasklet);
        }
        step(&mut tasklet);
        assert!(acknowledged());
    }

    #[test]
    fn an_epoch_does_not_wait_for_what_is_of_the_next_one() {
        let down = Busy { work: usize::MAX, emitted_late: true, came_before: Vec::new() };
        let (mut tasklet, commands, told) = numbers(down, false);
        drop(commands.send(Command::EmitMarker { epoch: 7, drain: false, last: false }));
        (0..3).for_each(|_| assert_eq!(step(&mut tasklet), Step::Progress));
        let emitted_late =
            |report| matches!(report, Report::Ack { epoch: 7, owes_late_emission: true, .. });
        assert!(told.try_iter().any(emitted_late), "there will always be some of the next one");
        drop(commands.send(Command::End));
        (0..10).for_each(|_| assert_eq!(step(&mut tasklet), Step::Progress));
        tasklet.down.work = 1;
        assert_eq!(step(&mut tasklet), Step::Done, "only when all is out");
    }

    /// A chain that keeps the watermarks that reach it, and may take nothing for a time.
    struct Full {
        status: FlushStatus,
        ready: bool,
        watermarks: Vec<i64>,
    }

    impl Full {
        fn new() -> Self {
            Self { status: FlushStatus::Flushed, ready: true, watermarks: Vec::new() }
        }
    }

    impl Stage for Full {
        fn is_ready(&mut self) -> bool {
            self.ready
        }
        fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
            self.watermarks.push(micros);
            Ok(())
        }
        fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
            Ok(())
        }
        fn end(&mut self) -> Result<(), EngineError> {
            Ok(())
        }
        fn flush(&mut self) -> Result<FlushStatus, EngineError> {
            Ok(self.status)
        }
    }

    impl Push<u64> for Full {
        fn push(&mut self, _: u64, _: u64) -> Result<(), EngineError> {
            Ok(())
        }
    }

    /// In whichever order inputs fall silent, what came of the one that was ahead counts.
    #[test]
    fn a_watermark_is_the_same_in_any_order_of_falling_silent() {
        for order in [[0, 1], [1, 0]] {
            let waker = Waker::noop();
            let (mut outboxes, inlets): (Vec<_>, Vec<_>) =
                (0..2).map(|_| connect::<u64>(&waker, &waker)).unzip();
            let (reports, _told) = unbounded();
            let port = TaskletPort { id: 0, reports };
            let mut inbox = InboxTasklet::new(port, String::new(), inlets, Full::new());
            let mut send = |input: usize, micros: i64| {
                outboxes[input].send(0, Event::Watermark(micros));
                outboxes[input].flush();
                let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
                inbox.step(&mut cx).unwrap();
                std::mem::take(&mut inbox.down.watermarks)
            };
            assert!(send(0, 30).is_empty());
            assert_eq!(send(1, 10), [10]);
            let silent = order.map(|input| send(input, IDLE)).concat();
            assert_eq!(silent, [30, IDLE], "{order:?}");
            // One that speaks again is where it says, and takes nothing back.
            assert!(send(1, 20).is_empty());
            assert_eq!(send(1, 40), [40]);
        }
    }

    /// Inlets end one after the other when a query stops, behind the marker of its last epoch.
    #[test]
    fn an_inlet_that_ends_moves_no_watermark() {
        for policy in [WatermarkPolicy::Min, WatermarkPolicy::Max] {
            let waker = Waker::noop();
            let (mut outboxes, inlets): (Vec<_>, Vec<_>) =
                (0..3).map(|_| connect::<u64>(&waker, &waker)).unzip();
            let (reports, _told) = unbounded();
            let port = TaskletPort { id: 0, reports };
            let inbox = InboxTasklet::new(port, String::new(), inlets, Full::new());
            let mut inbox = inbox.watermarks(policy, &[true; 3]);
            let mut send = |input: usize, event: Event<u64>| {
                outboxes[input].send(0, event);
                outboxes[input].flush();
                let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
                inbox.step(&mut cx).unwrap();
                std::mem::take(&mut inbox.down.watermarks)
            };
            for (input, micros) in [(0, 30), (1, 10), (2, 20)] {
                send(input, Event::Watermark(micros));
            }
            for input in [1, 2, 0] {
                assert!(send(input, Event::End).is_empty(), "{policy:?}, input {input}");
            }
        }
    }

    /// Were it taken for silent, what it reads next would be late.
    #[test]
    fn a_source_that_may_not_push_is_not_silent() {
        let (mut tasklet, _commands, _told) = numbers(Full::new(), true);
        let env = SimEnv::new(0);
        let mut after = |ns: u64, status: FlushStatus, ready: bool| {
            env.advance(ns);
            (tasklet.down.status, tasklet.down.ready) = (status, ready);
            let mut cx = StepCx { env: &env, budget: 8, wake_at_ns: None };
            tasklet.step(&mut cx).unwrap();
            std::mem::take(&mut tasklet.down.watermarks)
        };
        assert!(after(0, FlushStatus::Flushed, true).is_empty());
        assert!(after(1_000, FlushStatus::Blocked, false).is_empty());
        assert!(after(1_000, FlushStatus::Flushed, true).is_empty(), "it was blocked until now");
        assert!(after(99, FlushStatus::Flushed, true).is_empty());
        assert!(after(1_000, FlushStatus::Flushed, false).is_empty(), "nor may it push now");
        assert!(after(99, FlushStatus::Flushed, true).is_empty());
        assert_eq!(after(1, FlushStatus::Flushed, true), [IDLE]);
        assert!(after(1_000, FlushStatus::Flushed, true).is_empty(), "it is said once");
    }
}
