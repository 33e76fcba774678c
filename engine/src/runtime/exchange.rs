//! The sending side of an exchange between tasklets: one ring per receiving instance.
//!
//! If the ring is full, a record is put into the lane's spill buffer, and the stage is not ready
//! until all spills are empty. So a spill contains at most the output of one input record, and
//! control events.

use crate::error::EngineError;
use crate::event::{Epoch, Event, Record};
use crate::runtime::stage::{FlushStatus, Push, Stage};
use crate::sync::ring::{Consumer, Producer, ring};
use crate::sync::waker::Waker;
use std::collections::VecDeque;

/// Number of events that a ring holds.
pub const RING_CAPACITY: usize = 1024;
/// Initial capacity of a spill buffer, in events.
const SPILL_CAPACITY: usize = 64;

struct Lane<T> {
    ring: Producer<Event<T>>,
    spill: VecDeque<Event<T>>,
    consumer: Waker,
}

/// The rings from one tasklet to the instances of the next.
pub struct Outbox<T> {
    lanes: Vec<Lane<T>>,
    /// Number of events in all spills.
    spilled: usize,
}

/// The consuming end of one ring.
pub struct Inlet<T> {
    pub(crate) ring: Consumer<Event<T>>,
    /// The worker to wake when the ring has free slots again.
    pub(crate) producer: Waker,
}

/// Connects two workers with one ring.
pub fn connect<T: Send>(producer: &Waker, consumer: &Waker) -> (Outbox<T>, Inlet<T>) {
    let (tx, rx) = ring(RING_CAPACITY);
    // The spill buffer is allocated here, so that a record that finds the ring full usually
    // allocates nothing.
    let spill = VecDeque::with_capacity(SPILL_CAPACITY);
    let lane = Lane { ring: tx, spill, consumer: consumer.clone() };
    (Outbox { lanes: vec![lane], spilled: 0 }, Inlet { ring: rx, producer: producer.clone() })
}

impl<T: Send> Outbox<T> {
    /// Combines several outboxes, through which nothing was sent yet, into one with all their
    /// lanes.
    pub fn merge(parts: Vec<Outbox<T>>) -> Self {
        Self { lanes: parts.into_iter().flat_map(|part| part.lanes).collect(), spilled: 0 }
    }

    /// Number of consumers.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Sends an event to one consumer. If its ring is full, the event is spilled, and so are the
    /// next ones until [`Self::flush`] has emptied the spill buffer.
    #[inline]
    pub fn send(&mut self, lane: usize, event: Event<T>) {
        let lane = &mut self.lanes[lane];
        if lane.spill.is_empty() {
            if let Err(event) = lane.ring.push(event) {
                lane.spill.push_back(event);
                self.spilled += 1;
            }
        } else {
            lane.spill.push_back(event);
            self.spilled += 1;
        }
    }

    /// Sends a control event to every consumer.
    pub fn broadcast(&mut self, make: impl Fn() -> Event<T>) {
        for lane in 0..self.lanes.len() {
            self.send(lane, make());
        }
    }

    /// Whether a record may be sent: all spill buffers are empty.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.spilled == 0
    }

    /// Moves spilled events into the rings, publishes the sent events and wakes sleeping consumers.
    /// Returns `Blocked` if spilled events are left because a ring is full, else `Flushed`.
    pub fn flush(&mut self) -> FlushStatus {
        for lane in &mut self.lanes {
            while let Some(event) = lane.spill.pop_front() {
                if let Err(event) = lane.ring.push(event) {
                    lane.spill.push_front(event);
                    break;
                }
                self.spilled -= 1;
            }
            if lane.ring.publish() {
                lane.consumer.wake();
            }
        }
        if self.spilled == 0 { FlushStatus::Flushed } else { FlushStatus::Blocked }
    }
}

/// A stage that sends each record to one of the consumers.
pub struct Exchange<T, R> {
    outbox: Outbox<T>,
    route: R,
}

impl<T: Send, R: FnMut(&T, usize) -> usize + Send> Exchange<T, R> {
    /// `route` returns the lane of a record, given the number of lanes.
    pub fn new(outbox: Outbox<T>, route: R) -> Self {
        Self { outbox, route }
    }
}

impl<T: Send, R: FnMut(&T, usize) -> usize + Send> Stage for Exchange<T, R> {
    #[inline]
    fn is_ready(&mut self) -> bool {
        self.outbox.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::Watermark(micros));
        Ok(())
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::Marker(epoch));
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::End);
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(self.outbox.flush())
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<T: Send, R: FnMut(&T, usize) -> usize + Send> Push<T> for Exchange<T, R> {
    #[inline]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        let lane = (self.route)(&value, self.outbox.lanes());
        self.outbox.send(lane, Event::Record(Record { value, ingest_ns }));
        Ok(())
    }
}
