//! Tests tasklets with chains and sources made for the tests.

use crate::checkpoint::offset::Offset;
use crate::env::SimEnv;
use crate::epoch::protocol::{Command, EndOffset, ReadLimit, Report};
use crate::epoch::watermark_policy::WatermarkPolicy;
use crate::error::EngineError;
use crate::event::{Epoch, Event, IDLE, PARTITION_IDLE, Record};
use crate::runtime::exchange::connect;
use crate::runtime::stage::{FlushStatus, Push, Stage};
use crate::runtime::tasklet::{
    InboxTasklet, Polled, Source, SourcePort, SourceTasklet, Step, StepCx, Tasklet, TaskletPort,
};
use crate::sync::waker::Waker;
use crossbeam_channel::{Receiver, Sender, unbounded};

/// A chain with background work, of which each flush does one unit.
struct Busy {
    work: usize,
    /// Whether the remaining results belong to the next epoch.
    emitted_late: bool,
    /// For each record, the work that was left when the record arrived.
    work_left: Vec<usize>,
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

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl Push<u64> for Busy {
    fn push(&mut self, _: u64, _: u64) -> Result<(), EngineError> {
        self.work_left.push(self.work);
        Ok(())
    }
}

/// A source that emits the numbers from 1 on, or nothing.
struct Numbers {
    last: u64,
    quiet: bool,
    /// The last number of the batch that is run again.
    end: Option<u64>,
}

impl<D: Push<u64>> Source<D> for Numbers {
    fn name(&self) -> &str {
        "numbers"
    }
    fn poll(&mut self, down: &mut D, _cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        if self.quiet {
            return Ok(Polled::Idle);
        }
        if self.end.take_if(|end| *end == self.last).is_some() {
            return Ok(Polled::AtEndOffset);
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
    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.end = Some(end.number()?);
        Ok(())
    }
}

/// Returns a source tasklet that never ends, with the driver's ends of its channels.
fn numbers<D: Push<u64>>(
    down: D,
    quiet: bool,
) -> (SourceTasklet<Numbers, D>, Sender<Command>, Receiver<Report>) {
    restarted_numbers(down, quiet, false)
}

/// Like [`numbers`]. `replays`: a planned batch must be run again first.
fn restarted_numbers<D: Push<u64>>(
    down: D,
    quiet: bool,
    replays: bool,
) -> (SourceTasklet<Numbers, D>, Sender<Command>, Receiver<Report>) {
    let (commands, inbox) = unbounded();
    let (reports, told) = unbounded();
    let port = SourcePort {
        tasklet: TaskletPort { id: 0, reports },
        index: 0,
        commands: inbox,
        continuous: true,
        resume: None,
        replays,
        idle_after_ns: quiet.then_some(100),
        partition_idle_after_ns: quiet.then_some(40),
    };
    (SourceTasklet::new(port, Numbers { last: 0, quiet, end: None }, down), commands, told)
}

fn step(tasklet: &mut SourceTasklet<Numbers, Busy>) -> Step {
    let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
    tasklet.step(&mut cx).unwrap()
}

#[test]
fn records_are_pushed_between_steps_of_background_work() {
    let down = Busy { work: 1000, emitted_late: false, work_left: Vec::new() };
    let (mut tasklet, commands, told) = numbers(down, false);
    drop(commands.send(Command::EmitMarker { epoch: 0, drain: false, last: false }));
    for _ in 0..10 {
        assert_eq!(step(&mut tasklet), Step::Progress);
    }
    assert_eq!(tasklet.down.work_left.len(), 9, "all steps but that of the marker");
    assert!(tasklet.down.work_left.iter().all(|work| *work > 900));
    let acknowledged = || told.try_iter().any(|report| matches!(report, Report::Ack { .. }));
    assert!(!acknowledged(), "not before all that was pushed is out");
    while tasklet.down.work > 0 {
        step(&mut tasklet);
    }
    step(&mut tasklet);
    assert!(acknowledged());
}

/// The watermarks and the time of the batch apply until it is committed, and would make new records
/// late.
#[test]
fn new_records_wait_until_a_batch_that_is_run_again_is_committed() {
    let down = Busy { work: 0, emitted_late: false, work_left: Vec::new() };
    let (mut tasklet, commands, _told) = restarted_numbers(down, false, true);
    step(&mut tasklet);
    assert!(tasklet.down.work_left.is_empty(), "the batch comes first");
    drop(commands.send(Command::Run { epoch: 4, end: Offset("3".into()) }));
    (0..20).for_each(|_| assert_ne!(step(&mut tasklet), Step::Done));
    assert_eq!(tasklet.down.work_left.len(), 3, "the records of the batch");
    drop(commands.send(Command::Committed));
    (0..20).for_each(|_| assert_ne!(step(&mut tasklet), Step::Done));
    assert!(tasklet.down.work_left.len() > 3);
}

#[test]
fn an_epoch_does_not_wait_for_results_of_the_next_one() {
    let down = Busy { work: usize::MAX, emitted_late: true, work_left: Vec::new() };
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

/// After the last marker a source emits nothing more, so a drain has nothing to wait for.
#[test]
fn a_source_that_has_sent_its_last_marker_answers_a_drain() {
    let down = Busy { work: 0, emitted_late: false, work_left: Vec::new() };
    let (mut tasklet, commands, told) = numbers(down, false);
    drop(commands.send(Command::EmitMarker { epoch: 0, drain: false, last: true }));
    (0..5).for_each(|_| assert_ne!(step(&mut tasklet), Step::Done));
    let emitted = tasklet.down.work_left.len();
    for drain in [true, false] {
        let epoch = u64::from(drain) + 1;
        drop(commands.send(Command::EmitMarker { epoch, drain, last: false }));
        (0..5).for_each(|_| assert_ne!(step(&mut tasklet), Step::Done));
        let acknowledged =
            |report| matches!(report, Report::Ack { epoch: found, .. } if found == epoch);
        assert!(told.try_iter().any(acknowledged), "drain {drain}");
    }
    assert_eq!(tasklet.down.work_left.len(), emitted);
}

/// A chain that records what it receives, and may be full for a time.
struct Full {
    status: FlushStatus,
    ready: bool,
    watermarks: Vec<i64>,
    records: Vec<u64>,
}

impl Full {
    fn new() -> Self {
        let (watermarks, records) = (Vec::new(), Vec::new());
        Self { status: FlushStatus::Flushed, ready: true, watermarks, records }
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

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl Push<u64> for Full {
    fn push(&mut self, record: u64, _: u64) -> Result<(), EngineError> {
        self.records.push(record);
        Ok(())
    }
}

/// Checks that the combined watermark is the largest one, in whichever order the inputs become
/// idle.
#[test]
fn the_watermark_does_not_depend_on_the_order_in_which_inputs_become_idle() {
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
        // An input that becomes active again has its own watermark, but the combined watermark does
        // not decrease. It is sent again, because the stages below ignore this tasklet until then.
        assert_eq!(send(1, 20), [30]);
        assert!(send(1, 25).is_empty());
        assert_eq!(send(1, 40), [40]);
        assert_eq!(send(1, IDLE), [IDLE]);
        assert_eq!(send(0, 30), [40]);
    }
}

/// The partitions of one input, and another input.
#[test]
fn an_idle_partition_is_ignored_only_beside_its_siblings() {
    let waker = Waker::noop();
    let (mut outboxes, inlets): (Vec<_>, Vec<_>) =
        (0..3).map(|_| connect::<u64>(&waker, &waker)).unzip();
    let (reports, _told) = unbounded();
    let port = TaskletPort { id: 0, reports };
    let inbox = InboxTasklet::new(port, String::new(), inlets, Full::new());
    let mut inbox = inbox.watermarks(WatermarkPolicy::Min, &[(2, true), (1, true)]);
    let mut send = |inlet: usize, micros: i64| {
        outboxes[inlet].send(0, Event::Watermark(micros));
        outboxes[inlet].flush();
        let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
        inbox.step(&mut cx).unwrap();
        std::mem::take(&mut inbox.down.watermarks)
    };
    send(0, 20);
    send(1, 10);
    assert_eq!(send(2, 90), [10]);
    assert_eq!(send(1, PARTITION_IDLE), [20], "the other partition counts");
    assert!(send(0, PARTITION_IDLE).is_empty(), "the input still counts");
    assert_eq!(send(0, 30), [30]);
    assert!(send(0, IDLE).is_empty(), "the other partition is not idle for so long");
    assert_eq!(send(1, IDLE), [90], "now the input is ignored");
    assert_eq!(send(2, IDLE), [IDLE]);
}

/// The second input has no event time. Its source has partitions, so it reports idle ones.
#[test]
fn an_input_without_event_time_never_decides_the_watermark() {
    for policy in [WatermarkPolicy::Min, WatermarkPolicy::Max] {
        for untimed in [PARTITION_IDLE, IDLE, 5, 500] {
            let waker = Waker::noop();
            let (mut outboxes, inlets): (Vec<_>, Vec<_>) =
                (0..2).map(|_| connect::<u64>(&waker, &waker)).unzip();
            let (reports, _told) = unbounded();
            let port = TaskletPort { id: 0, reports };
            let inbox = InboxTasklet::new(port, String::new(), inlets, Full::new());
            let mut inbox = inbox.watermarks(policy, &[(1, true), (1, false)]);
            let mut send = |inlet: usize, micros: i64| {
                outboxes[inlet].send(0, Event::Watermark(micros));
                outboxes[inlet].flush();
                let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
                inbox.step(&mut cx).unwrap();
                std::mem::take(&mut inbox.down.watermarks)
            };
            let what = format!("{policy:?}, {untimed}");
            assert!(send(1, untimed).is_empty(), "{what}");
            assert_eq!(send(0, 20), [20], "{what}");
            assert!(send(1, untimed).is_empty(), "{what}");
            assert_eq!(send(0, IDLE), [IDLE], "{what}: all that have an event time are idle");
            assert!(send(1, untimed).is_empty(), "{what}");
            assert_eq!(send(0, 30), [30], "{what}");
        }
    }
}

/// Only partitions of one input, as in front of a union of inputs.
#[test]
fn idle_partitions_alone_do_not_make_their_input_idle() {
    let waker = Waker::noop();
    let (mut outboxes, inlets): (Vec<_>, Vec<_>) =
        (0..2).map(|_| connect::<u64>(&waker, &waker)).unzip();
    let (reports, _told) = unbounded();
    let port = TaskletPort { id: 0, reports };
    let mut inbox = InboxTasklet::new(port, String::new(), inlets, Full::new());
    let mut send = |inlet: usize, micros: i64| {
        outboxes[inlet].send(0, Event::Watermark(micros));
        outboxes[inlet].flush();
        let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
        inbox.step(&mut cx).unwrap();
        std::mem::take(&mut inbox.down.watermarks)
    };
    send(0, 20);
    assert_eq!(send(1, 10), [10]);
    assert!(send(0, PARTITION_IDLE).is_empty());
    assert_eq!(send(1, PARTITION_IDLE), [20], "the largest of them");
    assert!(send(0, IDLE).is_empty());
    assert_eq!(send(1, IDLE), [IDLE]);
}

/// Inlets end one after the other when a query stops, after the marker of its last epoch.
#[test]
fn an_inlet_that_ends_does_not_move_the_watermark() {
    for policy in [WatermarkPolicy::Min, WatermarkPolicy::Max] {
        let waker = Waker::noop();
        let (mut outboxes, inlets): (Vec<_>, Vec<_>) =
            (0..3).map(|_| connect::<u64>(&waker, &waker)).unzip();
        let (reports, _told) = unbounded();
        let port = TaskletPort { id: 0, reports };
        let inbox = InboxTasklet::new(port, String::new(), inlets, Full::new());
        let mut inbox = inbox.watermarks(policy, &[(1, true); 3]);
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

/// With `one_after_another`, an inlet is not read before the inlets before it have delivered their
/// markers, even if no other inlet has records.
#[test]
fn inlets_are_drained_in_turn_up_to_their_markers() {
    let waker = Waker::noop();
    let (mut outboxes, inlets): (Vec<_>, Vec<_>) =
        (0..2).map(|_| connect::<u64>(&waker, &waker)).unzip();
    let (reports, told) = unbounded();
    let port = TaskletPort { id: 0, reports };
    let inbox = InboxTasklet::new(port, String::new(), inlets, Full::new());
    let mut inbox = inbox.one_after_another();
    let mut send = |input: usize, event: Event<u64>| {
        outboxes[input].send(0, event);
        outboxes[input].flush();
        for _ in 0..4 {
            let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
            inbox.step(&mut cx).unwrap();
        }
        std::mem::take(&mut inbox.down.records)
    };
    let record = |value| Event::Record(Record { value, ingest_ns: 0 });
    for epoch in 0..2 {
        assert!(send(1, record(10)).is_empty(), "epoch {epoch}");
        assert_eq!(send(0, record(1)), [1]);
        assert!(send(1, record(11)).is_empty());
        assert!(send(1, Event::Marker(epoch)).is_empty());
        assert_eq!(send(0, record(2)), [2]);
        assert_eq!(send(0, Event::Marker(epoch)), [10, 11], "the second inlet is read now");
        let acknowledged =
            |report| matches!(report, Report::Ack { epoch: found, .. } if found == epoch);
        assert!(told.try_iter().any(acknowledged));
    }
}

/// While a broker's acknowledgements are outstanding, the worker may park, and records are taken.
#[test]
fn a_chain_that_waits_for_acknowledgements_is_idle_and_takes_records() {
    let waker = Waker::noop();
    let (mut outbox, inlet) = connect::<u64>(&waker, &waker);
    let (reports, told) = unbounded();
    let port = TaskletPort { id: 0, reports };
    let mut inbox = InboxTasklet::new(port, String::new(), vec![inlet], Full::new());
    let mut step = |status: FlushStatus, event: Option<Event<u64>>| {
        if let Some(event) = event {
            outbox.send(0, event);
            outbox.flush();
        }
        inbox.down.status = status;
        let mut cx = StepCx { env: &SimEnv::new(0), budget: 8, wake_at_ns: None };
        let step = inbox.step(&mut cx).unwrap();
        (step, std::mem::take(&mut inbox.down.records))
    };
    let record = |value| Some(Event::Record(Record { value, ingest_ns: 0 }));
    assert_eq!(step(FlushStatus::Flushed, Some(Event::Marker(1))), (Step::Progress, vec![]));
    assert_eq!(step(FlushStatus::Waiting, None), (Step::Idle, vec![]));
    assert_eq!(step(FlushStatus::Waiting, record(5)), (Step::Progress, vec![5]));
    assert_eq!(step(FlushStatus::Waiting, None), (Step::Idle, vec![]));
    assert!(told.try_iter().next().is_none(), "records of the epoch are not acknowledged");
    step(FlushStatus::Flushed, None);
    assert!(matches!(told.try_iter().next(), Some(Report::Ack { epoch: 1, .. })));
}

/// If the blocked source became idle, the records that it reads next would be late.
#[test]
fn a_blocked_source_does_not_become_idle() {
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
    assert!(after(39, FlushStatus::Flushed, true).is_empty());
    assert!(after(1_000, FlushStatus::Flushed, false).is_empty(), "nor may it push now");
    assert!(after(39, FlushStatus::Flushed, true).is_empty());
    assert_eq!(after(1, FlushStatus::Flushed, true), [PARTITION_IDLE]);
    assert!(after(59, FlushStatus::Flushed, true).is_empty());
    assert_eq!(after(1, FlushStatus::Flushed, true), [IDLE]);
    assert!(after(1_000, FlushStatus::Flushed, true).is_empty(), "it is said once");
}
