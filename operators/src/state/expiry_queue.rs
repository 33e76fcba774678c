//! An expiry queue: slots of entries ordered by expiry time, drained in bounded steps.

use crate::state::slot_stack::{Pool, SlotStack};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};

/// Maximum number of spare stacks in addition to as many as are in use.
const SPARES: usize = 16;

/// The slots of the entries that expire at one time. A time with a single slot needs no stack.
enum Slots {
    One(u32),
    Many(Box<SlotStack>),
}

/// Slots ordered by time. An entry stays in the queue when its expiry time changes or its slot is
/// freed. So callers must compare with the entry's own expiry time.
#[derive(Default)]
pub(crate) struct ExpiryQueue {
    by_time: BTreeMap<i64, Slots>,
    /// Number of times that have several slots.
    stacks: usize,
    /// Empty stacks for reuse: at most [`SPARES`] more than are in use.
    #[expect(clippy::vec_box, reason = "a box goes from here to a time and back as it is")]
    spare: Vec<Box<SlotStack>>,
    pool: Pool,
}

impl ExpiryQueue {
    /// Adds the slot of an entry that expires at `time_us`.
    #[inline]
    pub fn add(&mut self, time_us: i64, entry: u32) {
        let Self { by_time, stacks, spare, pool } = self;
        match by_time.entry(time_us) {
            Vacant(vacant) => {
                vacant.insert(Slots::One(entry));
            }
            Occupied(mut occupied) => match occupied.get_mut() {
                Slots::Many(stack) => stack.push(entry, pool),
                slots @ Slots::One(_) => {
                    let mut stack = spare.pop().unwrap_or_default();
                    if let Slots::One(first) = *slots {
                        stack.push(first, pool);
                    }
                    stack.push(entry, pool);
                    *slots = Slots::Many(stack);
                    *stacks += 1;
                }
            },
        }
    }

    /// Removes and returns an entry with the earliest time, if that is at most `by_us`, with the
    /// time. `None` if no entry has expired. The last entry that was added at a time comes first.
    pub fn take(&mut self, by_us: i64) -> Option<(i64, u32)> {
        let mut first = self.by_time.first_entry()?;
        let time_us = *first.key();
        if time_us > by_us {
            return None;
        }
        let entry = match first.get_mut() {
            Slots::One(entry) => Some(*entry),
            Slots::Many(stack) => {
                let entry = stack.pop(&mut self.pool);
                if !stack.is_empty() {
                    return entry.map(|entry| (time_us, entry));
                }
                entry
            }
        };
        if let Slots::Many(empty) = first.remove() {
            self.stacks -= 1;
            // The memory of a burst of distinct times is freed afterwards.
            if self.spare.len() < self.stacks + SPARES {
                self.spare.push(empty);
            } else {
                self.spare.pop();
            }
        }
        entry.map(|entry| (time_us, entry))
    }

    /// Some of the entries that [`take`](Self::take) will return next, at most `most`, all of one
    /// time. May be empty even if entries have expired.
    #[cfg(any(feature = "sql", test))]
    pub fn peek(&self, by_us: i64, most: usize) -> &[u32] {
        match self.by_time.first_key_value() {
            Some((time_us, slots)) if *time_us <= by_us => match slots {
                Slots::One(entry) => &std::slice::from_ref(entry)[..most.min(1)],
                Slots::Many(stack) => stack.peek(most),
            },
            _ => &[],
        }
    }

    /// The number of entries at the earliest time, if that time is at most `by_us`.
    #[cfg(any(feature = "sql", test))]
    pub fn count(&self, by_us: i64) -> usize {
        match self.by_time.first_key_value() {
            Some((time_us, slots)) if *time_us <= by_us => match slots {
                Slots::One(_) => 1,
                Slots::Many(stack) => stack.len(),
            },
            _ => 0,
        }
    }

    /// Ends an epoch: frees some memory that no recent epoch has needed.
    pub fn end_epoch(&mut self) {
        self.pool.end_epoch();
    }

    /// Approximate memory of the queue, in bytes, without the first chunk of each stack and without
    /// spare stacks.
    pub fn memory(&self) -> usize {
        // The nodes of a B-tree are two thirds full on average.
        let time = (size_of::<i64>() + size_of::<Slots>()) * 3 / 2;
        self.by_time.len() * time + self.stacks * size_of::<SlotStack>() + self.pool.memory()
    }

    /// The earliest expiry time.
    #[inline]
    pub fn first_us(&self) -> Option<i64> {
        self.by_time.first_key_value().map(|(time_us, _)| *time_us)
    }

    /// Whether the time of any entry is at most `by_us`.
    #[cfg(feature = "sql")]
    pub fn has_expired(&self, by_us: i64) -> bool {
        self.first_us().is_some_and(|time_us| time_us <= by_us)
    }
}

#[cfg(test)]
mod tests {
    use super::{ExpiryQueue, SPARES};

    #[test]
    fn memory_of_a_burst_at_one_time_is_freed() {
        let mut due = ExpiryQueue::default();
        (0..1_000_000).for_each(|at| due.add(7, at));
        assert!(due.memory() > 4_000_000 - 20_000);
        while due.take(7).is_some() {}
        (0..300).for_each(|_| due.end_epoch());
        assert_eq!(due.memory(), 0);
    }

    #[test]
    fn memory_of_a_burst_of_many_times_is_freed() {
        let mut due = ExpiryQueue::default();
        // There are two entries for each time.
        let twice = |at: i64| [at as u32, 1 + at as u32];
        (0..100_000).for_each(|at| twice(at).into_iter().for_each(|entry| due.add(at, entry)));
        for at in 0..99_990 {
            let [first, second] = twice(at);
            assert_eq!(due.take(i64::MAX), Some((at, second)));
            assert_eq!(due.take(i64::MAX), Some((at, first)));
        }
        assert!((1..=2 * SPARES).contains(&due.spare.len()), "{}", due.spare.len());
        assert!(due.memory() < 20_000);
        // The spare stacks are enough for as many distinct times as before.
        for at in 100_000..100_100 {
            let spares = due.spare.len();
            twice(at).into_iter().for_each(|entry| due.add(at, entry));
            assert_eq!(due.spare.len(), spares - 1);
            assert_eq!((due.take(i64::MAX), due.take(i64::MAX)).1.map(|(us, _)| us), Some(at - 10));
        }
        while due.take(i64::MAX).is_some() {}
        assert!((1..=SPARES).contains(&due.spare.len()), "{}", due.spare.len());
        assert_eq!((due.stacks, due.memory()), (0, 0));
    }

    #[test]
    fn a_single_entry_of_a_time_allocates_nothing() {
        let mut due = ExpiryQueue::default();
        (0..10_000).rev().for_each(|at| due.add(i64::from(at), at));
        assert_eq!(
            (due.stacks, due.spare.len(), due.count(0), due.peek(0, 9)),
            (0, 0, 1, &[0][..])
        );
        for at in 0..10_000 {
            assert_eq!(due.take(i64::from(at)), Some((i64::from(at), at)));
            assert_eq!(due.take(i64::from(at)), None);
        }
    }
}
