//! Entries by the time at which they are due, so that those that are can be taken in small steps.

use crate::places::Places;
use std::collections::BTreeMap;

/// Places of entries, by time. An entry may be here at a time that is no longer its own; who takes
/// it looks.
#[derive(Default)]
pub(crate) struct Due {
    by_time: BTreeMap<i64, Places>,
    /// Those that are empty again.
    spare: Vec<Places>,
}

impl Due {
    /// Adds an entry.
    #[inline]
    pub fn add(&mut self, time_us: i64, entry: u32) {
        let spare = &mut self.spare;
        let of_time = self.by_time.entry(time_us);
        of_time.or_insert_with(|| spare.pop().unwrap_or_default()).push(entry);
    }

    /// Takes one that is due by a time, with its own time.
    pub fn take(&mut self, by_us: i64) -> Option<(i64, u32)> {
        let mut first = self.by_time.first_entry()?;
        let time_us = *first.key();
        if time_us > by_us {
            return None;
        }
        let entry = first.get_mut().pop();
        if first.get().is_empty() {
            self.spare.push(first.remove());
        }
        entry.map(|entry| (time_us, entry))
    }

    /// Some of those that [`take`](Self::take) gives next, at most so many; none if none is due.
    #[cfg(feature = "sql")]
    pub fn ahead(&self, by_us: i64, most: usize) -> &[u32] {
        match self.by_time.first_key_value() {
            Some((time_us, places)) if *time_us <= by_us => places.ahead(most),
            _ => &[],
        }
    }

    /// How many are due at the first of the times by then.
    #[cfg(feature = "sql")]
    pub fn count(&self, by_us: i64) -> usize {
        match self.by_time.first_key_value() {
            Some((time_us, places)) if *time_us <= by_us => places.len(),
            _ => 0,
        }
    }

    /// When the first is due.
    #[inline]
    pub fn first_us(&self) -> Option<i64> {
        self.by_time.first_key_value().map(|(time_us, _)| *time_us)
    }

    /// Whether any is due by a time.
    pub fn any(&self, by_us: i64) -> bool {
        self.first_us().is_some_and(|time_us| time_us <= by_us)
    }
}
