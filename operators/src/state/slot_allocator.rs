//! A slot allocator: which slots of a growing list of chunks are free.
//!
//! The first free slot is taken, so the last chunks become empty when fewer slots are used. Empty
//! chunks that no recent epoch has needed are freed, a few at a time. Their slot numbers are reused
//! later.

use crate::state::bit_set::BitSet;
use millstream_engine::collections::high_water::HighWater;

/// Minimum number of chunks freed at the end of an epoch. If more are unneeded, a fraction of those
/// is freed too.
const RELEASE: usize = 4;

#[derive(Default)]
struct Chunk {
    /// Number of slots used since the chunk was allocated. The others are free.
    made: u16,
    free: Vec<u16>,
    is_held: bool,
}

impl Chunk {
    fn len(&self) -> usize {
        usize::from(self.made) - self.free.len()
    }
}

/// The slot allocator.
pub(crate) struct Slots {
    in_chunk: u16,
    chunks: Vec<Chunk>,
    /// Chunks with a free slot.
    open: BitSet,
    /// Chunks with memory but without used slots.
    empty: BitSet,
    held: usize,
    len: usize,
    needed: HighWater,
}

impl Slots {
    /// Creates an allocator for chunks of `in_chunk` slots.
    pub fn new(in_chunk: u16) -> Self {
        Self {
            in_chunk: in_chunk.max(1),
            chunks: Vec::new(),
            open: BitSet::default(),
            empty: BitSet::default(),
            held: 0,
            len: 0,
            needed: HighWater::default(),
        }
    }

    /// Takes a free slot.
    pub fn take(&mut self) -> usize {
        let number = self.open.first().unwrap_or(self.chunks.len());
        if number == self.chunks.len() {
            self.chunks.push(Chunk::default());
            self.open.insert(number);
        }
        let chunk = &mut self.chunks[number];
        if !chunk.is_held {
            chunk.is_held = true;
            // Memory is allocated here so that freeing slots never allocates.
            chunk.free.reserve_exact(usize::from(self.in_chunk));
            self.held += 1;
        } else if chunk.len() == 0 {
            self.empty.remove(number);
        }
        let at = chunk.free.pop().unwrap_or_else(|| {
            chunk.made += 1;
            chunk.made - 1
        });
        if chunk.len() == usize::from(self.in_chunk) {
            self.open.remove(number);
        }
        self.len += 1;
        self.needed.note(self.len);
        number * usize::from(self.in_chunk) + usize::from(at)
    }

    /// Frees a slot.
    pub fn free(&mut self, slot: usize) {
        let (number, at) = (slot / usize::from(self.in_chunk), slot % usize::from(self.in_chunk));
        let chunk = &mut self.chunks[number];
        chunk.free.push(at as u16);
        if chunk.len() == 0 {
            self.empty.insert(number);
        }
        self.open.insert(number);
        self.len -= 1;
    }

    /// Ends an epoch: calls `release` with the numbers of some chunks that no recent epoch has
    /// needed.
    pub fn epoch(&mut self, mut release: impl FnMut(usize)) {
        let needed = self.needed.epoch(self.len).div_ceil(usize::from(self.in_chunk)) + 1;
        let surplus = self.held.saturating_sub(needed);
        for _ in 0..surplus.min(RELEASE + surplus / 16) {
            let Some(number) = self.empty.last() else { return };
            self.empty.remove(number);
            self.chunks[number] = Chunk::default();
            self.held -= 1;
            release(number);
        }
    }

    /// Number of chunks with memory.
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_slot_is_taken_once(steps: Vec<(u8, u16)>, in_chunk in 1u16..5) {
            let (mut slots, mut used) = (Slots::new(in_chunk), BTreeSet::new());
            for (kind, at) in steps {
                match kind % 5 {
                    0..=1 => prop_assert!(used.insert(slots.take())),
                    2..=3 => {
                        let nth = usize::from(at) % used.len().max(1);
                        if let Some(slot) = used.iter().copied().nth(nth) {
                            used.remove(&slot);
                            slots.free(slot);
                        }
                    }
                    _ => slots.epoch(|number| {
                        let first = number * usize::from(in_chunk);
                        assert!(used.range(first..first + usize::from(in_chunk)).next().is_none());
                    }),
                }
                prop_assert_eq!(slots.len, used.len());
                prop_assert!(slots.held() * usize::from(in_chunk) >= used.len());
            }
        }
    }

    #[test]
    fn chunks_that_a_burst_needed_are_given_back() {
        let mut slots = Slots::new(100);
        (0..100_000).for_each(|slot| assert_eq!(slots.take(), slot));
        (50..100_000).for_each(|slot| slots.free(slot));
        let mut released = BTreeSet::new();
        for _ in 0..300 {
            let mut now = 0;
            slots.epoch(|number| {
                now += 1;
                released.insert(number);
            });
            assert!(now <= RELEASE + 1000 / 16, "{now} at once");
        }
        assert_eq!((slots.held(), released.len()), (2, 998));
        assert_eq!(slots.take(), 99, "the one that was freed last in the first chunk");
    }
}
