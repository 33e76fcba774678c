//! Search by time: the index of a compressed file, and binary search over its entries.
//!
//! An uncompressed file needs no index: its marks are at fixed offsets. The index has one entry per
//! compressed block up to [`MAX_ENTRIES`]; then every other entry is dropped, and so on. So the
//! index is bounded.

use super::format::{Head, Kind, MAX_PAYLOAD, Summary, u64_at};

/// Maximum number of entries that a writer keeps.
const MAX_ENTRIES: usize = 1 << 16;
/// Encoded size of an entry, in bytes.
const ENTRY_BYTES: usize = 32;
/// Number of entries per index block.
const ENTRIES_PER_BLOCK: usize = MAX_PAYLOAD / ENTRY_BYTES / 8;

/// A mark, and the largest times before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Offset of the mark in the file, in bytes.
    pub offset: u64,
    /// Number of events before the mark.
    pub events: u64,
    pub wall_ns_max: i64,
    pub mono_ns_max: u64,
}

impl Entry {
    pub(super) fn new(offset: u64, before: &Summary) -> Self {
        Self {
            offset,
            events: before.events,
            wall_ns_max: before.wall_ns_max,
            mono_ns_max: before.mono_ns_max,
        }
    }

    /// Whether all events before the mark are earlier than `time`. True for the first mark of a
    /// file, because no event is before it.
    pub(super) fn is_before(&self, time: Time) -> bool {
        self.events == 0
            || match time {
                Time::Wall(ns) => self.wall_ns_max < ns,
                Time::Mono(ns) => self.mono_ns_max < ns,
            }
    }
}

/// The time to search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Wall(i64),
    Mono(u64),
}

/// The index under construction.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// The index contains every `every`-th mark.
    every: u64,
    marks: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self { entries: Vec::new(), every: 1, marks: 0 }
    }
}

impl Index {
    pub(super) fn add(&mut self, entry: Entry) {
        if self.marks.is_multiple_of(self.every) {
            if self.entries.len() == MAX_ENTRIES {
                let mut keep = false;
                self.entries.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.every *= 2;
            }
            if self.marks.is_multiple_of(self.every) {
                self.entries.push(entry);
            }
        }
        self.marks += 1;
    }

    /// Encodes the index as heads and payloads of blocks.
    pub(super) fn blocks(&self, summary: &Summary) -> Vec<(Head, Vec<u8>)> {
        let chunks = self.entries.chunks(ENTRIES_PER_BLOCK);
        let encoded = chunks.map(|chunk| {
            let mut payload = Vec::with_capacity(chunk.len() * ENTRY_BYTES);
            for entry in chunk {
                payload.extend_from_slice(&entry.offset.to_le_bytes());
                payload.extend_from_slice(&entry.events.to_le_bytes());
                payload.extend_from_slice(&entry.wall_ns_max.to_le_bytes());
                payload.extend_from_slice(&entry.mono_ns_max.to_le_bytes());
            }
            (summary.head(Kind::Index, 0), payload)
        });
        encoded.collect()
    }
}

/// Decodes the entries of an index block.
pub(super) fn entries(payload: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    payload.chunks_exact(ENTRY_BYTES).map(|entry| Entry {
        offset: u64_at(entry, 0),
        events: u64_at(entry, 8),
        wall_ns_max: u64_at(entry, 16) as i64,
        mono_ns_max: u64_at(entry, 24),
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_many_marks_stays_bounded_and_evenly_spread() {
        let mut index = Index::default();
        for mark in 0..1_000_000 {
            let events = mark * 3;
            let before = Summary { events, wall_ns_max: mark as i64, ..Summary::default() };
            index.add(Entry::new(mark * 100, &before));
        }
        assert!(index.entries.len() <= MAX_ENTRIES && index.entries.len() > MAX_ENTRIES / 4);
        let step = index.entries[1].offset - index.entries[0].offset;
        assert!(index.entries.windows(2).all(|pair| pair[1].offset - pair[0].offset == step));
        let read: Vec<Entry> = index
            .blocks(&Summary::default())
            .iter()
            .flat_map(|(_, payload)| entries(payload).collect::<Vec<_>>())
            .collect();
        assert_eq!(read, index.entries);
    }
}
