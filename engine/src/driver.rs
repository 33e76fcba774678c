//! Who decides the epochs: a timer in continuous mode, the offsets of a batch in micro-batch
//! mode. One state machine serves both, and the simulation steps the same one.
//!
//! *Threads.* A thread of its own that sleeps between epochs; it never touches a record.

use crate::error::EngineError;
use crate::event::Epoch;
use crate::tasklet::Offset;
use crate::wake::Waker;
use crossbeam_channel::Sender;

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
    /// One batch of all that is there, then the end.
    Once,
    /// All that is there when the query starts, then the end.
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
    Plan,
    /// Micro-batch: emit up to `end`, then the marker.
    Run {
        /// The batch.
        epoch: Epoch,
        /// Where it ends in this source.
        end: Offset,
    },
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
}

/// What the driver hears, from tasklets, workers and the query's owner.
#[derive(Debug)]
pub enum Report {
    /// A tasklet has passed an epoch's marker on and all before it is out.
    Ack {
        /// The epoch.
        epoch: Epoch,
    },
    /// Where a source put a marker.
    Offset {
        /// The source.
        source: usize,
        /// The marker's epoch.
        epoch: Epoch,
        /// The position.
        offset: Offset,
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

/// A committed epoch.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its number.
    pub epoch: Epoch,
    /// Each source's position at its end.
    pub offsets: Vec<Offset>,
    /// From the order to put markers (or run the batch) to the last acknowledgement.
    pub duration_ns: u64,
}

enum State {
    Idle,
    Planning(Vec<Option<Planned>>),
    Epoch { acks: usize, offsets: Vec<Offset>, started_ns: u64, last: bool },
    Ending,
}

/// What the driver wants next.
#[derive(Debug)]
pub enum Tick {
    /// A report, or this time (for ever if `None`).
    Wait(Option<u64>),
    /// Nothing: the query has ended.
    Finished(Result<(), EngineError>),
}

/// The state machine.
pub struct Driver {
    trigger: Trigger,
    sources: Vec<(Sender<Command>, Waker)>,
    tasklets: usize,
    done: usize,
    next_epoch: Epoch,
    state: State,
    exhausted: Vec<bool>,
    stop: bool,
    failed: Option<EngineError>,
    /// Who asked for all data since the last plan or drain began, and who before.
    asked: Vec<Sender<()>>,
    served: Vec<Sender<()>>,
    /// When the next epoch or batch is due; unset before the first look at the clock.
    next_at_ns: Option<u64>,
    on_commit: Box<dyn FnMut(&Committed) + Send>,
}

impl Driver {
    pub(crate) fn new(
        trigger: Trigger,
        sources: Vec<(Sender<Command>, Waker)>,
        tasklets: usize,
        on_commit: Box<dyn FnMut(&Committed) + Send>,
    ) -> Self {
        Self {
            trigger,
            exhausted: vec![false; sources.len()],
            sources,
            tasklets,
            done: 0,
            next_epoch: 0,
            state: State::Idle,
            stop: false,
            failed: None,
            asked: Vec::new(),
            served: Vec::new(),
            next_at_ns: None,
            on_commit,
        }
    }

    fn tell(&self, make: impl Fn(usize) -> Command) {
        for (index, (commands, waker)) in self.sources.iter().enumerate() {
            // A source that is gone has reported why.
            drop(commands.send(make(index)));
            waker.wake();
        }
    }

    fn begin_epoch(&mut self, now_ns: u64, last: bool) {
        self.state = State::Epoch {
            acks: 0,
            offsets: vec![Offset::default(); self.sources.len()],
            started_ns: now_ns,
            last,
        };
    }

    fn end(&mut self) {
        self.tell(|_| Command::End);
        self.state = State::Ending;
    }

    /// Takes a report in.
    pub fn handle(&mut self, report: Report, now_ns: u64) {
        match report {
            Report::Ack { epoch } => {
                debug_assert_eq!(epoch, self.next_epoch, "one epoch is in flight at a time");
                if let State::Epoch { acks, .. } = &mut self.state {
                    *acks += 1;
                    if *acks == self.tasklets {
                        self.commit(now_ns);
                    }
                }
            }
            Report::Offset { source, epoch, offset } => {
                debug_assert_eq!(epoch, self.next_epoch);
                if let State::Epoch { offsets, .. } = &mut self.state {
                    offsets[source] = offset;
                }
            }
            Report::Planned { source, planned } => {
                self.exhausted[source] = planned.exhausted;
                if let State::Planning(plans) = &mut self.state {
                    plans[source] = Some(planned);
                    if plans.iter().all(Option::is_some) {
                        self.planned(now_ns);
                    }
                }
            }
            Report::Exhausted { source } => self.exhausted[source] = true,
            Report::Done { .. } => self.done += 1,
            Report::Failed(error) => self.failed = self.failed.take().or(Some(error)),
            Report::Stop => self.stop = true,
            Report::ProcessAll(reply) => self.asked.push(reply),
        }
    }

    fn planned(&mut self, now_ns: u64) {
        let State::Planning(plans) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let plans: Vec<Planned> = plans.into_iter().flatten().collect();
        if plans.iter().any(|plan| plan.has_new) {
            let epoch = self.next_epoch;
            self.tell(|source| Command::Run { epoch, end: plans[source].end.clone() });
            self.begin_epoch(now_ns, false);
            return;
        }
        for reply in self.served.drain(..) {
            let _ = reply.send(());
        }
        let at_most_once = matches!(self.trigger, Trigger::Once | Trigger::AvailableNow);
        if at_most_once || self.all_exhausted() {
            self.end();
        } else if let Trigger::AsSoonAsPossible = self.trigger {
            self.next_at_ns = Some(now_ns + POLLING_DELAY_NS);
        }
    }

    fn all_exhausted(&self) -> bool {
        self.exhausted.iter().all(|&exhausted| exhausted)
    }

    fn commit(&mut self, now_ns: u64) {
        let State::Epoch { offsets, started_ns, last, .. } =
            std::mem::replace(&mut self.state, State::Idle)
        else {
            return;
        };
        let committed =
            Committed { epoch: self.next_epoch, offsets, duration_ns: now_ns - started_ns };
        self.next_epoch += 1;
        (self.on_commit)(&committed);
        self.tell(|_| Command::Committed);
        match self.trigger {
            Trigger::Continuous { interval_ns } => {
                for reply in self.served.drain(..) {
                    let _ = reply.send(());
                }
                self.next_at_ns = Some((started_ns + interval_ns).max(now_ns));
                if last {
                    self.end();
                }
            }
            Trigger::Once | Trigger::AvailableNow => self.end(),
            Trigger::AsSoonAsPossible => self.next_at_ns = Some(now_ns),
            Trigger::ProcessingTime { .. } => {}
        }
    }

    /// Does what is due at this time.
    pub fn tick(&mut self, now_ns: u64) -> Tick {
        if let Some(error) = self.failed.take() {
            return Tick::Finished(Err(error));
        }
        match &self.state {
            State::Ending if self.done == self.tasklets => Tick::Finished(Ok(())),
            State::Ending | State::Planning(_) | State::Epoch { .. } => Tick::Wait(None),
            State::Idle => match self.trigger {
                Trigger::Continuous { interval_ns } => self.tick_continuous(now_ns, interval_ns),
                _ => self.tick_batch(now_ns),
            },
        }
    }

    fn tick_continuous(&mut self, now_ns: u64, interval_ns: u64) -> Tick {
        let last = self.stop || self.all_exhausted();
        let drain = !self.asked.is_empty() && !self.stop;
        let due_ns = *self.next_at_ns.get_or_insert(now_ns + interval_ns);
        if !last && !drain && now_ns < due_ns {
            return Tick::Wait(Some(due_ns));
        }
        self.served.append(&mut self.asked);
        let epoch = self.next_epoch;
        self.begin_epoch(now_ns, last);
        self.tell(|_| Command::Mark { epoch, drain, last });
        Tick::Wait(None)
    }

    fn tick_batch(&mut self, now_ns: u64) -> Tick {
        if self.stop {
            self.end();
            return Tick::Wait(None);
        }
        let waiting = !self.asked.is_empty() || !self.served.is_empty();
        // The first batch starts at once, not at the next tick.
        let due_ns = self.next_at_ns.unwrap_or(now_ns);
        if !waiting && now_ns < due_ns {
            return Tick::Wait(Some(due_ns));
        }
        if let Trigger::ProcessingTime { interval_ns } = self.trigger {
            // From the start of this batch: ticks that it overruns are skipped, not queued.
            let interval_ns = interval_ns.max(1);
            self.next_at_ns = Some((now_ns / interval_ns + 1) * interval_ns);
        }
        self.served.append(&mut self.asked);
        self.state = State::Planning(vec![None; self.sources.len()]);
        self.tell(|_| Command::Plan);
        Tick::Wait(None)
    }
}
