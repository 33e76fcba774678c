//! The timers of a processor's keys, ordered by time.

use crate::state::expiry_queue::ExpiryQueue;
use crate::stream::operator::process::Timer;
use std::collections::BTreeSet;

/// The timers of one kind, each with the slot of its key. A cancelled timer is removed at once: a
/// processor may cancel a timer that is far off, and set a new one, with every record.
#[derive(Default)]
pub(super) struct TimerQueue(BTreeSet<(i64, u32)>);

impl TimerQueue {
    fn add(&mut self, time_us: i64, at: u32) {
        self.0.insert((time_us, at));
    }

    fn remove(&mut self, time_us: i64, at: u32) {
        self.0.remove(&(time_us, at));
    }

    /// Removes and returns the earliest timer, if it is due at `by_us`.
    pub fn take(&mut self, by_us: i64) -> Option<(i64, u32)> {
        if self.has_expired(by_us) { self.0.pop_first() } else { None }
    }

    /// The time of the earliest timer.
    #[inline]
    pub fn first_us(&self) -> Option<i64> {
        self.0.first().map(|(time_us, _)| *time_us)
    }

    /// Whether a timer is due at `by_us`.
    pub fn has_expired(&self, by_us: i64) -> bool {
        self.first_us().is_some_and(|time_us| time_us <= by_us)
    }

    /// Approximate memory, in bytes. The nodes of a B-tree are two thirds full on average.
    fn memory(&self) -> usize {
        self.0.len() * size_of::<(i64, u32)>() * 3 / 2
    }
}

/// The timers of all keys, and the expiry times of their state.
#[derive(Default)]
pub(super) struct TimerQueues {
    pub event: TimerQueue,
    pub processing: TimerQueue,
    /// Expiry times of state with a time to live.
    pub ttl: ExpiryQueue,
    /// While timers of a batch fire: new timers up to this watermark and this processing time wait
    /// for the next batch.
    pub defers_by_us: Option<(i64, i64)>,
    /// Timers that wait for the next batch, with the slot of their key. A cancelled one is removed at
    /// once, so that their number is bounded by that of the timers that are set.
    deferred: BTreeSet<(Timer, u32)>,
}

impl TimerQueues {
    /// Adds a timer for the key in a slot.
    pub fn add(&mut self, timer: Timer, at: u32) {
        let waits = self.defers_by_us.is_some_and(|(event_us, now_us)| match timer {
            Timer::EventTime(us) => us <= event_us,
            Timer::ProcessingTime(us) => us <= now_us,
        });
        if waits {
            self.deferred.insert((timer, at));
            return;
        }
        let (due, time_us) = self.of(timer);
        due.add(time_us, at);
    }

    /// Removes a timer of the key in a slot.
    pub fn remove(&mut self, timer: Timer, at: u32) {
        if self.deferred.remove(&(timer, at)) {
            return;
        }
        let (due, time_us) = self.of(timer);
        due.remove(time_us, at);
    }

    /// Starts a batch: sets the timers that have waited for it.
    pub fn begin_batch(&mut self) {
        self.defers_by_us = None;
        while let Some((timer, at)) = self.deferred.pop_first() {
            self.add(timer, at);
        }
    }

    /// Ends an epoch: frees some memory that no recent epoch has needed.
    pub fn end_epoch(&mut self) {
        self.ttl.end_epoch();
    }

    /// Approximate memory of the queues, in bytes.
    pub fn memory(&self) -> usize {
        let deferred = self.deferred.len() * size_of::<(Timer, u32)>() * 3 / 2;
        self.event.memory() + self.processing.memory() + self.ttl.memory() + deferred
    }

    fn of(&mut self, timer: Timer) -> (&mut TimerQueue, i64) {
        match timer {
            Timer::EventTime(us) => (&mut self.event, us),
            Timer::ProcessingTime(us) => (&mut self.processing, us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session of each key ends an hour after its last record.
    #[test]
    fn timers_that_are_moved_with_every_record_need_no_more_memory() {
        let mut queues = TimerQueues::default();
        for record in 0..10_000 {
            let at = record as u32 % 10;
            for timer in [Timer::EventTime, Timer::ProcessingTime] {
                queues.remove(timer(record - 10), at);
                queues.add(timer(record), at);
            }
        }
        assert_eq!((queues.event.0.len(), queues.processing.0.len()), (10, 10));
        assert_eq!(
            queues.event.first_us(),
            Some(9_990),
            "no batch is requested for a cancelled one"
        );
        assert!(queues.memory() < 1_000, "{}", queues.memory());
        // While the timers of a batch fire, each record moves a timer of the past.
        queues.defers_by_us = Some((20_000, 20_000));
        for record in 10_000..20_000 {
            for timer in [Timer::EventTime, Timer::ProcessingTime] {
                queues.remove(timer(record - 1), 42);
                queues.add(timer(record), 42);
            }
        }
        assert!(queues.memory() < 1_000, "{}", queues.memory());
        queues.begin_batch();
        assert_eq!((queues.event.0.len(), queues.processing.0.len()), (11, 11));
        let taken: Vec<_> = std::iter::from_fn(|| queues.event.take(9_992)).collect();
        assert_eq!(taken, [(9_990, 0), (9_991, 1), (9_992, 2)]);
    }
}
