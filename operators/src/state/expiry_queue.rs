//! An expiry queue: slots of entries ordered by expiry time, drained in bounded steps.

use crate::state::slot_stack::{Pool, SlotStack};
use std::collections::BTreeMap;

/// Maximum number of empty stacks kept beyond the number of times.
const SPARES: usize = 16;

/// Slots of entries, by time. Entries are not moved when their expiry changes, nor removed when their
/// slot is freed. Callers must compare with the entry's own expiry.
#[derive(Default)]
pub(crate) struct Due {
    by_time: BTreeMap<i64, SlotStack>,
    /// Empty stacks for reuse, at most [`SPARES`] more than there are times.
    spare: Vec<SlotStack>,
    pool: Pool,
}

impl Due {
    /// Adds an entry.
    #[inline]
    pub fn add(&mut self, time_us: i64, entry: u32) {
        let Self { by_time, spare, pool } = self;
        let of_time = by_time.entry(time_us);
        of_time.or_insert_with(|| spare.pop().unwrap_or_default()).push(entry, pool);
    }

    /// Removes and returns an entry that has expired by a time, with the time it was added for.
    pub fn take(&mut self, by_us: i64) -> Option<(i64, u32)> {
        let mut first = self.by_time.first_entry()?;
        let time_us = *first.key();
        if time_us > by_us {
            return None;
        }
        let entry = first.get_mut().pop(&mut self.pool);
        if first.get().is_empty() {
            let empty = first.remove();
            // Memory needed for a burst of distinct times is released afterwards.
            if self.spare.len() < self.by_time.len() + SPARES {
                self.spare.push(empty);
            } else {
                self.spare.pop();
            }
        }
        entry.map(|entry| (time_us, entry))
    }

    /// Some of the entries that [`take`](Self::take) returns next, at most `most`; empty if none
    /// has expired.
    #[cfg(feature = "sql")]
    pub fn ahead(&self, by_us: i64, most: usize) -> &[u32] {
        match self.by_time.first_key_value() {
            Some((time_us, places)) if *time_us <= by_us => places.ahead(most),
            _ => &[],
        }
    }

    /// The number of entries at the earliest time, if that has expired by then.
    #[cfg(feature = "sql")]
    pub fn count(&self, by_us: i64) -> usize {
        match self.by_time.first_key_value() {
            Some((time_us, places)) if *time_us <= by_us => places.len(),
            _ => 0,
        }
    }

    /// An epoch is over: gives back some memory that no recent one has needed.
    pub fn epoch(&mut self) {
        self.pool.epoch();
    }

    /// Memory that it takes, in bytes, about.
    pub fn memory(&self) -> usize {
        // A node of the tree is two thirds full.
        let time = (size_of::<i64>() + size_of::<SlotStack>()) * 3 / 2 + 16;
        self.by_time.len() * time + self.pool.memory()
    }

    /// The earliest expiry time.
    #[inline]
    pub fn first_us(&self) -> Option<i64> {
        self.by_time.first_key_value().map(|(time_us, _)| *time_us)
    }

    /// Whether any entry has expired by a time.
    pub fn any(&self, by_us: i64) -> bool {
        self.first_us().is_some_and(|time_us| time_us <= by_us)
    }
}

#[cfg(test)]
mod tests {
    use super::{Due, SPARES};

    #[test]
    fn a_burst_at_one_time_leaves_no_memory_behind() {
        let mut due = Due::default();
        (0..1_000_000).for_each(|at| due.add(7, at));
        assert!(due.memory() > 4_000_000 - 20_000);
        while due.take(7).is_some() {}
        (0..300).for_each(|_| due.epoch());
        assert_eq!(due.memory(), 0);
    }

    #[test]
    fn a_burst_of_times_leaves_no_memory_behind() {
        let mut due = Due::default();
        (0..100_000).for_each(|at| due.add(i64::from(at), at));
        (0..99_990).for_each(|at| assert_eq!(due.take(i64::MAX), Some((i64::from(at), at))));
        assert!((1..=2 * SPARES).contains(&due.spare.len()), "{}", due.spare.len());
        // What is kept is enough for as many times as there were.
        for at in 100_000..100_100 {
            let spares = due.spare.len();
            due.add(i64::from(at), at);
            assert_eq!(due.spare.len(), spares - 1);
            assert_eq!(due.take(i64::MAX), Some((i64::from(at - 10), at - 10)));
        }
        assert!(due.memory() < 20_000);
        while due.take(i64::MAX).is_some() {}
        assert!((1..=SPARES).contains(&due.spare.len()), "{}", due.spare.len());
    }
}
