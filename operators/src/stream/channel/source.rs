//! The source of a channel: reads the first input's ring and the queue of the other inputs.

use super::CAPACITY;
use super::input::{Input, Shared, Stamped};
use crate::stream::source::batch_buffer::BatchBuffer;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::Env;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::{Io, Push};
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use millstream_engine::sync::waker::SpaceNotifier;
use millstream_engine::sync::{mpsc, ring};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The popping side of a channel. Dropping it closes the channel.
pub(in crate::stream) struct Receiver<T> {
    ring: ring::Consumer<Stamped<T>>,
    ring_room: SpaceNotifier,
    /// The queue of cloned inputs, if there are any.
    others: Option<SharedQueue<T>>,
    shared: Arc<Shared<T>>,
}

/// The queue of all inputs but the first.
struct SharedQueue<T> {
    queue: mpsc::Consumer<Stamped<T>>,
    room: SpaceNotifier,
}

/// Numbers of records: of the first input, and of all others.
#[derive(Clone, Copy, Default)]
struct Backlog {
    ring: usize,
    others: usize,
}

/// Why a poll stopped reading a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PollStop {
    /// The queue was empty.
    Empty,
    /// The poll has used its share; the next poll continues.
    Budget,
    /// The chain is full, or the batch is complete.
    Stopped,
}

/// Creates both sides of a channel.
pub(in crate::stream) fn channel<T: Send>() -> (Input<T>, Receiver<T>) {
    let (tx, ring) = ring::ring(CAPACITY);
    let shared = Arc::new(Shared::new());
    let ring_room = SpaceNotifier::new(ring.capacity());
    let input = Input::first(tx, shared.clone());
    (input, Receiver { ring, ring_room, others: None, shared })
}

impl<T: Send> Receiver<T> {
    /// Sets the number of records in committed epochs of earlier runs.
    pub fn resume(&self, committed: u64) {
        // ORDERING: pairs with the acquire load in `Input::committed`.
        self.shared.committed.store(committed, Ordering::Release);
    }

    /// Starts to read the queue of cloned inputs once it exists.
    #[inline]
    fn poll_arrival(&mut self) {
        // ORDERING: pairs with the release store in `Shared::queue`.
        if self.others.is_none() && self.shared.arrived.load(Ordering::Acquire) {
            self.take_others();
        }
    }

    #[cold]
    fn take_others(&mut self) {
        let consumer = &self.shared.consumer;
        let queue = consumer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        self.others = queue.map(|queue| {
            let room = SpaceNotifier::new(queue.capacity());
            SharedQueue { queue, room }
        });
    }

    /// Releases the slots of popped values, and wakes the inputs that wait for free slots if that is
    /// due. After a poll that used up its budget it is not due, because the next poll follows.
    #[inline]
    fn release_slots(
        &mut self,
        (ring, ring_left): (usize, PollStop),
        (others, others_left): (usize, PollStop),
    ) {
        self.ring.release();
        self.ring_room.popped(ring);
        let mut due =
            ring_left != PollStop::Budget && self.ring_room.is_due(ring_left == PollStop::Empty);
        if let Some(other) = &mut self.others {
            other.room.popped(others);
            due |= others_left != PollStop::Budget
                && other.room.is_due(others_left == PollStop::Empty);
        }
        if due {
            self.shared.waiting.wake();
        }
    }

    /// The number of records that are available now.
    fn backlog(&mut self) -> Backlog {
        self.poll_arrival();
        let others = self.others.as_ref().map_or(0, |others| others.queue.claimed());
        Backlog { ring: self.ring.available(), others }
    }

    /// Whether all inputs are dropped and the channel is empty. Then it stays empty.
    fn is_exhausted(&mut self) -> bool {
        // ORDERING: pairs with the release decrement when an input is dropped. An input is created
        // only from an existing one, so once there is none there will be none.
        if self.shared.inputs.load(Ordering::Acquire) > 0 {
            return false;
        }
        let Backlog { ring, others } = self.backlog();
        ring == 0 && others == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // ORDERING: relaxed: `wake` issues a fence before it checks for waiting producers, and
        // waiting producers issue one before they check this.
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.waiting.wake();
    }
}

pub(in crate::stream) struct ChannelSource<T> {
    from: Receiver<T>,
    env: Arc<dyn Env>,
    emitted: u64,
    /// Records emitted in earlier runs.
    resumed: u64,
    /// The records that were available when a drain began and are not emitted yet.
    drain: Backlog,
    /// Micro-batch mode: records taken by a plan and not emitted yet.
    staged: BatchBuffer<Stamped<T>>,
}

impl<T: Send> ChannelSource<T> {
    pub fn new(from: Receiver<T>, env: Arc<dyn Env>) -> Self {
        let drain = Backlog::default();
        Self { from, env, emitted: 0, resumed: 0, drain, staged: BatchBuffer::new() }
    }

    /// Reads at most `budget` records of the queue of cloned inputs. Returns their number, and why
    /// reading stopped.
    #[cold]
    #[inline(never)]
    fn poll_others<D: Push<T>>(
        &mut self,
        down: &mut D,
        budget: usize,
    ) -> Result<(usize, PollStop), EngineError> {
        let Some(others) = &mut self.from.others else { return Ok((0, PollStop::Empty)) };
        let mut taken = 0;
        while taken < budget && down.is_ready() {
            let Some((value, ingest_ns)) = others.queue.pop() else {
                return Ok((taken, PollStop::Empty));
            };
            down.push(value, ingest_ns)?;
            taken += 1;
        }
        Ok((taken, if down.is_ready() { PollStop::Budget } else { PollStop::Stopped }))
    }
}

impl<T: Send, D: Push<T>> Source<D> for ChannelSource<T> {
    fn name(&self) -> &str {
        "channel"
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        // Set only once, because a flow starts only once.
        drop(self.from.shared.start.set((self.env.clone(), io.waker.clone())));
        Ok(())
    }

    #[inline]
    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        if self.staged.is_running() {
            return self.staged.poll(down, (cx.budget, &mut self.emitted), |record| record);
        }
        self.from.poll_arrival();
        let shares = self.from.others.is_some();
        let budget = if shares { cx.budget.div_ceil(2) } else { cx.budget };
        let (mut taken, mut left) = (0, PollStop::Budget);
        while taken < budget && down.is_ready() {
            let Some((value, ingest_ns)) = self.from.ring.pop() else {
                left = PollStop::Empty;
                break;
            };
            down.push(value, ingest_ns)?;
            taken += 1;
        }
        let others =
            if shares { self.poll_others(down, cx.budget - taken)? } else { (0, PollStop::Empty) };
        if left == PollStop::Budget && !down.is_ready() {
            left = PollStop::Stopped;
        }
        let all = taken + others.0;
        self.emitted += all as u64;
        self.drain.ring = self.drain.ring.saturating_sub(taken);
        self.drain.others = self.drain.others.saturating_sub(others.0);
        self.from.release_slots((taken, left), others);
        if all > 0 || left != PollStop::Empty || others.1 != PollStop::Empty {
            Ok(Polled::Emitted)
        } else if self.from.is_exhausted() {
            Ok(Polled::Exhausted)
        } else {
            Ok(Polled::Idle)
        }
    }

    fn begin_drain(&mut self) {
        self.drain = self.from.backlog();
    }

    fn is_drained(&mut self) -> bool {
        self.drain.ring == 0 && self.drain.others == 0
    }

    fn position(&self) -> Offset {
        Offset(self.emitted.to_string())
    }

    fn records_emitted(&self) -> u64 {
        self.emitted - self.resumed
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        self.emitted = at.number()?;
        self.resumed = self.emitted;
        Ok(())
    }

    /// Takes the records that are available now, at most a full channel. So a caller that waits for
    /// its own records does not wait for records that others push meanwhile.
    fn plan(&mut self, _: ReadLimit, _cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        let there = self.from.backlog();
        let (mut ring, mut others) = (0, 0);
        while ring < there.ring {
            let Some(record) = self.from.ring.pop() else { break };
            self.staged.add(record);
            ring += 1;
        }
        while others < there.others {
            let Some(record) = self.from.others.as_mut().and_then(|from| from.queue.pop()) else {
                break;
            };
            self.staged.add(record);
            others += 1;
        }
        // Inputs may have pushed more records meanwhile. They must still be notified of the freed
        // slots.
        self.from.release_slots((ring, PollStop::Stopped), (others, PollStop::Stopped));
        let end = self.emitted + self.staged.len() as u64;
        Ok(EndOffset {
            end: Offset(end.to_string()),
            has_new: self.staged.len() > 0,
            exhausted: self.from.is_exhausted(),
            limited: others < there.others,
        })
    }

    fn set_end_offset(&mut self, _end: &Offset) -> Result<(), EngineError> {
        self.staged.begin(self.staged.len());
        Ok(())
    }

    fn on_committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.from.resume(end.number()?);
        Ok(())
    }
}
