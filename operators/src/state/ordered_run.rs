//! The rows of one key and one side of a join or a window, ordered by time and, for equal times, by
//! arrival number.
//!
//! Up to two rows are stored inline, because most keys have no more. More rows are stored in
//! chunks, so inserting an out-of-order row moves at most one chunk, even among a million rows.

use std::collections::VecDeque;

/// Maximum number of rows per chunk.
const CHUNK: usize = 128;
/// Maximum number of spare chunks.
const SPARES: usize = 256;
/// Number of rows stored inline.
const INLINE: usize = 2;

/// The slot of a row in its store. Valid until the row is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowId(pub u32);

/// A row store that numbers rows in the order of arrival.
pub(crate) trait NumberedRows {
    /// The arrival number of a row. A removed row returns a number that no row has.
    fn number(&self, id: RowId) -> u64;
}

/// A row with its time.
// Without padding, because there is one per buffered row.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub time_us: i64,
    pub row: RowId,
}

/// A position in a run. Valid until the run changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    chunk: usize,
    at: usize,
}

impl Cursor {
    /// Moves to the next row.
    #[inline]
    pub fn advance(&mut self) {
        self.at += 1;
    }
}

/// A list of rows, ordered by time and arrival.
#[derive(Debug, Default)]
pub(crate) enum Run {
    #[default]
    Empty,
    One([Entry; 1]),
    Two([Entry; INLINE]),
    /// No chunk is empty.
    Many(Chunks),
}

type Chunks = Box<VecDeque<Vec<Entry>>>;

/// Spare chunk lists for reuse, each with one empty chunk.
#[derive(Default)]
pub(crate) struct Spares(Vec<Chunks>);

impl Spares {
    fn take(&mut self) -> Chunks {
        self.0.pop().unwrap_or_else(|| Box::new(VecDeque::from([Vec::with_capacity(4)])))
    }

    fn put(&mut self, chunks: Chunks) {
        if self.0.len() < SPARES {
            self.0.push(chunks);
        }
    }
}

impl Run {
    fn chunk(&self, chunk: usize) -> &[Entry] {
        match self {
            Self::Empty => &[],
            Self::One(entries) if chunk == 0 => entries,
            Self::Two(entries) if chunk == 0 => entries,
            Self::Many(chunks) => chunks.get(chunk).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    #[cfg(test)]
    fn chunks(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) | Self::Two(_) => 1,
            Self::Many(chunks) => chunks.len(),
        }
    }

    /// Whether there are no rows.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The position of the first row for which `holds` is false. `holds` must be true for all rows
    /// before it.
    fn first_not(&self, holds: impl Fn(&Entry) -> bool) -> Cursor {
        let chunk = match self {
            Self::Many(chunks) => chunks.partition_point(|chunk| chunk.last().is_some_and(&holds)),
            _ => 0,
        };
        Cursor { chunk, at: self.chunk(chunk).partition_point(holds) }
    }

    /// The position of the first row at or after a time.
    #[inline]
    pub fn seek(&self, time_us: i64) -> Cursor {
        self.first_not(|entry| entry.time_us < time_us)
    }

    /// The position of the first row after the one with this time and number.
    pub fn seek_behind(&self, (time_us, number): (i64, u64), rows: &impl NumberedRows) -> Cursor {
        self.first_not(|entry| (entry.time_us, rows.number(entry.row)) <= (time_us, number))
    }

    /// The row at a cursor; `None` after the last row. The cursor may point after the end of a chunk.
    #[inline]
    pub fn get(&self, cursor: &mut Cursor) -> Option<Entry> {
        let chunk = self.chunk(cursor.chunk);
        match chunk.get(cursor.at) {
            Some(entry) => Some(*entry),
            None => {
                *cursor = Cursor { chunk: cursor.chunk + 1, at: 0 };
                self.chunk(cursor.chunk).first().copied()
            }
        }
    }

    /// The row before a position.
    #[cfg(feature = "sql")]
    pub fn before(&self, cursor: Cursor) -> Option<Entry> {
        match cursor.at.checked_sub(1) {
            Some(at) => self.chunk(cursor.chunk).get(at).copied(),
            None => self.chunk(cursor.chunk.checked_sub(1)?).last().copied(),
        }
    }

    /// Inserts a row in order.
    pub fn insert(&mut self, entry: Entry, rows: &impl NumberedRows, spares: &mut Spares) {
        let order = |e: &Entry| (e.time_us, rows.number(e.row));
        match self {
            Self::Empty => *self = Self::One([entry]),
            Self::One([other]) => {
                let first = order(other) <= order(&entry);
                *self = Self::Two(if first { [*other, entry] } else { [entry, *other] });
            }
            Self::Two(entries) => {
                let mut chunks = spares.take();
                chunks[0].extend_from_slice(entries);
                *self = Self::Many(chunks);
                self.insert(entry, rows, spares);
            }
            Self::Many(chunks) => {
                let number = rows.number(entry.row);
                let time_us = entry.time_us;
                let behind = |e: &Entry| match { e.time_us }.cmp(&time_us) {
                    std::cmp::Ordering::Equal => rows.number(e.row) < number,
                    order => order.is_lt(),
                };
                // Most rows arrive in order.
                let last = chunks.len() - 1;
                let at = if chunks[last].last().is_some_and(behind) {
                    Cursor { chunk: last, at: chunks[last].len() }
                } else {
                    self.first_not(behind)
                };
                self.insert_at(at, entry);
            }
        }
    }

    fn insert_at(&mut self, Cursor { mut chunk, mut at }: Cursor, entry: Entry) {
        let Self::Many(chunks) = self else { return };
        if chunks[chunk].len() == CHUNK {
            let at_end = at == CHUNK;
            // If rows arrive in order, chunks stay full. Otherwise a full chunk is split in half.
            let from = if at_end { CHUNK } else { CHUNK / 2 };
            let mut upper = Vec::with_capacity(CHUNK);
            upper.extend_from_slice(&chunks[chunk][from..]);
            chunks[chunk].truncate(from);
            chunks.insert(chunk + 1, upper);
            if at >= from && (at_end || at > from) {
                (chunk, at) = (chunk + 1, at - from);
            }
        }
        chunks[chunk].insert(at, entry);
    }

    fn remove_at(&mut self, cursor: Cursor, spares: &mut Spares) {
        match self {
            Self::Empty => {}
            Self::One(_) => *self = Self::Empty,
            Self::Two([first, second]) => {
                *self = Self::One([if cursor.at == 0 { *second } else { *first }]);
            }
            Self::Many(chunks) => {
                chunks[cursor.chunk].remove(cursor.at);
                if !chunks[cursor.chunk].is_empty() {
                    return;
                }
                if chunks.len() > 1 {
                    chunks.remove(cursor.chunk);
                } else if let Self::Many(chunks) = std::mem::take(self) {
                    spares.put(chunks);
                }
            }
        }
    }

    /// Removes a row. Returns whether it was found.
    pub fn remove(&mut self, entry: Entry, rows: &impl NumberedRows, spares: &mut Spares) -> bool {
        let number = rows.number(entry.row);
        let mut at = self.first_not(|e| (e.time_us, rows.number(e.row)) < (entry.time_us, number));
        let found = self.get(&mut at) == Some(entry);
        if found {
            self.remove_at(at, spares);
        }
        found
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        (0..self.chunks()).map(|chunk| self.chunk(chunk).len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A store of rows that have only numbers.
    #[derive(Default)]
    struct Numbers(Vec<u64>);

    impl Numbers {
        fn add(&mut self, number: u64) -> RowId {
            self.0.push(number);
            RowId(self.0.len() as u32 - 1)
        }
    }

    impl NumberedRows for Numbers {
        fn number(&self, id: RowId) -> u64 {
            self.0[id.0 as usize]
        }
    }

    fn all(run: &Run) -> Vec<Entry> {
        let mut cursor = run.seek(i64::MIN);
        let mut found = Vec::new();
        while let Some(entry) = run.get(&mut cursor) {
            found.push(entry);
            cursor.advance();
        }
        found
    }

    proptest! {
        #[test]
        fn a_run_is_sorted(steps in proptest::collection::vec((0i64..50, 0u8..4), 0..900)) {
            let (mut run, mut rows) = (Run::default(), Numbers::default());
            let mut spares = Spares::default();
            let mut model: Vec<(i64, u64, RowId)> = Vec::new();
            for (number, (time_us, what)) in steps.into_iter().enumerate() {
                let number = number as u64;
                if what == 0 && !model.is_empty() {
                    let (time_us, _, row) = model.remove(time_us as usize % model.len());
                    let was_there = run.remove(Entry { time_us, row }, &rows, &mut spares);
                    prop_assert!(was_there);

                    continue;
                }
                // Rows in order, and rows in any order.
                let time_us = if what == 1 { 40 } else { time_us };
                let row = rows.add(number);
                run.insert(Entry { time_us, row }, &rows, &mut spares);
                model.push((time_us, number, row));
            }
            model.sort_by_key(|(time, number, _)| (*time, *number));
            let wanted: Vec<_> =
                model.iter().map(|(time_us, _, row)| Entry { time_us: *time_us, row: *row }).collect();
            prop_assert_eq!(&all(&run), &wanted);
            prop_assert_eq!(run.len(), wanted.len());
            prop_assert_eq!(run.is_empty(), wanted.is_empty());
            for time in 0..50 {
                let mut at = run.seek(time);
                prop_assert_eq!(run.get(&mut at), wanted.iter().find(|e| e.time_us >= time).copied());
                #[cfg(feature = "sql")]
                prop_assert_eq!(
                    run.before(run.seek(time)),
                    wanted.iter().rev().find(|e| e.time_us < time).copied()
                );
            }
            for (i, (time, number, _)) in model.iter().enumerate() {
                let mut at = run.seek_behind((*time, *number), &rows);
                prop_assert_eq!(run.get(&mut at), wanted.get(i + 1).copied());
            }
        }
    }
}
