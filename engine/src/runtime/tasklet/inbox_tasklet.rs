//! A tasklet that drives a chain of operators from the rings of other tasklets.

use crate::epoch::protocol::Report;
use crate::epoch::watermark_policy::WatermarkPolicy;
use crate::error::EngineError;
use crate::event::{Epoch, Event, IDLE, is_idle};
use crate::measure::stall::{Activity, record_activity};
use crate::runtime::exchange::Inlet;
use crate::runtime::stage::{FlushStatus, Io, Push};
use crate::runtime::tasklet::marker_ack::MarkerAck;
use crate::runtime::tasklet::marker_alignment::{AlignedInlet, Alignment, InletState};
use crate::runtime::tasklet::{Step, StepCx, Tasklet, TaskletPort};
use crossbeam_channel::Sender;
use std::ops::Range;

/// The number of events between a record and its announcement to the chain.
const AHEAD: usize = 8;

/// The order in which a tasklet reads its inlets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InletOrder {
    /// Reads what is available in each inlet in turn.
    InTurn,
    /// Reads each inlet up to its marker before the next inlet.
    OneAfterAnother,
}

/// The watermarks of an input, of which each partition has an inlet.
struct Input {
    inlets: Range<usize>,
    /// Whether the input has an event time. Without one it never decides the combined watermark:
    /// its inlets may deliver marks of idleness, or the watermark of another event time.
    has_event_time: bool,
    /// The largest watermark of any of the inlets.
    furthest_us: i64,
}

impl Input {
    fn new(inlets: Range<usize>, has_event_time: bool) -> Self {
        Self { inlets, has_event_time, furthest_us: i64::MIN }
    }

    /// The smallest watermark of the active inlets. If all are idle, the largest one so far, so
    /// that the order in which they become idle does not matter; [`IDLE`] if the input is idle too.
    fn watermark_us<T>(&self, inlets: &[AlignedInlet<T>]) -> i64 {
        let watermarks = inlets[self.inlets.clone()].iter().map(|inlet| inlet.watermark_us);
        if watermarks.clone().all(|watermark_us| watermark_us == IDLE) {
            return IDLE;
        }
        let active = watermarks.filter(|watermark_us| !is_idle(*watermark_us));
        active.min().unwrap_or(self.furthest_us)
    }
}

/// Drives a chain from the rings of other tasklets, and aligns their markers
/// (`marker_alignment.rs`).
pub struct InboxTasklet<T, D> {
    name: String,
    id: usize,
    inlets: Vec<AlignedInlet<T>>,
    inputs: Vec<Input>,
    policy: WatermarkPolicy,
    pub(super) down: D,
    reports: Sender<Report>,
    ack: MarkerAck,
    /// The inlet that [`InletOrder::InTurn`] reads first. It rotates, so that no inlet starves.
    turn: usize,
    inlet_order: InletOrder,
    watermark: i64,
    /// Whether [`IDLE`] was forwarded after the watermark.
    has_passed_idle: bool,
    ended: bool,
}

impl<T: Send, D: Push<T>> InboxTasklet<T, D> {
    /// Connects rings to a chain.
    pub fn new(port: TaskletPort, name: String, inlets: Vec<Inlet<T>>, down: D) -> Self {
        Self {
            name,
            id: port.id,
            inputs: vec![Input::new(0..inlets.len(), true)],
            inlets: inlets.into_iter().map(AlignedInlet::new).collect(),
            policy: WatermarkPolicy::Min,
            down,
            reports: port.reports,
            ack: MarkerAck::default(),
            turn: 0,
            inlet_order: InletOrder::InTurn,
            watermark: i64::MIN,
            has_passed_idle: false,
            ended: false,
        }
    }

    /// Sets how the watermarks of several inputs are combined. `inputs` has the number of inlets of
    /// each input, one per partition, and whether the input has a watermark. Without this call, all
    /// inlets belong to one input.
    pub fn watermarks(mut self, policy: WatermarkPolicy, inputs: &[(usize, bool)]) -> Self {
        self.policy = policy;
        self.inputs.clear();
        let mut first = 0;
        for (count, has_event_time) in inputs {
            let inlets = first..first + count;
            first = inlets.end;
            self.inputs.push(Input::new(inlets, *has_event_time));
        }
        debug_assert_eq!(first, self.inlets.len(), "each inlet belongs to an input");
        self
    }

    /// Reads each inlet up to its marker before the next inlet. No source may feed two of the
    /// inlets: it would block on the full ring of the later inlet, while the tasklet waits for its
    /// marker in the earlier inlet.
    pub fn one_after_another(self) -> Self {
        Self { inlet_order: InletOrder::OneAfterAnother, ..self }
    }

    /// Takes a watermark or a mark of idleness from an inlet.
    fn take_watermark(&mut self, index: usize, micros: i64) -> Result<(), EngineError> {
        let own = self.inputs.iter_mut().find(|input| input.inlets.contains(&index));
        let Some(input) = own.filter(|input| input.has_event_time) else { return Ok(()) };
        let before = &mut self.inlets[index].watermark_us;
        // An idle input that becomes active counts with its own watermark again.
        *before = if is_idle(*before) { micros } else { micros.max(*before) };
        if !is_idle(micros) {
            input.furthest_us = input.furthest_us.max(micros);
        }
        self.advance_watermark()
    }

    /// Forwards the combined watermark of the inputs that have an event time. At least one input has
    /// an event time.
    fn advance_watermark(&mut self) -> Result<(), EngineError> {
        // The watermark of an inlet that has ended still counts. Inlets end one after the other,
        // after the marker of the last epoch. If the watermark advanced in between, the released
        // results would be emitted again after a restart.
        let timed = self.inputs.iter().filter(|input| input.has_event_time);
        let watermarks = timed.clone().map(|input| input.watermark_us(&self.inlets));
        let silent = watermarks.clone().all(|watermark| watermark == IDLE);
        let found = match self.policy {
            // If all inputs are idle, the largest watermark counts, so that the order in which
            // inputs become idle does not matter.
            _ if silent => timed.map(|input| input.furthest_us).max(),
            WatermarkPolicy::Min => watermarks.min().filter(|lowest| *lowest < IDLE),
            WatermarkPolicy::Max => watermarks.filter(|watermark| *watermark < IDLE).max(),
        };
        let found = found.unwrap_or(self.watermark);
        // The first watermark after IDLE may be an old one. It is forwarded, because the stages
        // below ignore this input until then.
        let wakes = std::mem::replace(&mut self.has_passed_idle, silent) && !silent;
        if found > self.watermark || wakes {
            self.watermark = found.max(self.watermark);
            self.down.watermark(self.watermark)?;
        }
        if silent { self.down.watermark(IDLE) } else { Ok(()) }
    }

    /// Forwards the end if all inlets have ended, or the marker if all that have not ended have
    /// delivered it. Returns false if an inlet is still open. `epoch` is that of a marker that has
    /// just arrived; without it no marker is forwarded.
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
                    self.ack.expect(epoch);
                }
            }
        }
        Ok(true)
    }

    /// Takes at most `budget` events from one inlet, up to its marker, while the chain is ready.
    /// Returns their number, and whether a marker or the end was forwarded, after which the step
    /// must stop.
    fn drain(&mut self, index: usize, budget: usize) -> Result<(usize, bool), EngineError> {
        let mut taken = 0;
        while taken < budget && self.inlets[index].state == InletState::Open && self.down.is_ready()
        {
            let Some(event) = self.inlets[index].inlet.ring.pop() else { break };
            taken += 1;
            if let Some(Event::Record(next)) = self.inlets[index].inlet.ring.peek(AHEAD) {
                self.down.prefetch(&next.value);
            }
            match event {
                Event::Record(record) => self.down.push(record.value, record.ingest_ns)?,
                Event::Watermark(micros) => self.take_watermark(index, micros)?,
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
        let waits = status == FlushStatus::Waiting;
        if status > FlushStatus::Buffered && !waits {
            record_activity(Activity::Expiry);
        }
        let mut progress = !clear && !waits;
        if let Some(ack) = self.ack.due(status) {
            drop(self.reports.send(ack));
            progress = true;
        }
        if clear && self.ended {
            drop(self.reports.send(Report::Done { tasklet: self.id }));
            return Ok(Step::Done);
        }
        let inlets = self.inlets.len();
        let mut budget = cx.budget;
        for i in 0..inlets {
            let index = match self.inlet_order {
                InletOrder::InTurn => (self.turn + i) % inlets,
                InletOrder::OneAfterAnother => i,
            };
            let (taken, stop) = self.drain(index, budget)?;
            if taken > 0 {
                progress = true;
                budget -= taken;
                let inlet = &mut self.inlets[index].inlet;
                if inlet.ring.release() {
                    inlet.producer.wake();
                }
            }
            let is_open = self.inlets[index].state == InletState::Open;
            let is_in_turn = is_open && self.inlet_order == InletOrder::OneAfterAnother;
            if stop || is_in_turn || budget == 0 {
                break;
            }
        }
        self.turn = (self.turn + 1) % inlets.max(1);
        let status = self.down.flush()?;
        if let Some(at_ns) = self.down.next_timer_ns() {
            cx.wake_at(at_ns);
        }
        progress |= self.ack.flushed(status) || status == FlushStatus::Flushed && self.ended;
        Ok(if progress { Step::Progress } else { Step::Idle })
    }
}
