//! An allocator of slot numbers in a growing list of chunks.
//!
//! The first free slot is taken, so that the last chunks become empty when the number of used slots
//! falls. Empty chunks that no recent epoch has needed are released, a few at a time. The numbers
//! of their slots are reused later.

use crate::state::bit_set::BitSet;
use millstream_engine::collections::high_water::HighWater;

/// Maximum number of chunks released at the end of an epoch, in addition to a sixteenth of the
/// surplus.
const RELEASE: usize = 4;

/// The slots of a chunk, with a bit for each slot. A released chunk has no bits.
#[derive(Default)]
struct Chunk {
    /// The bits of free slots are set.
    free: Box<[u64]>,
    used: u16,
    /// Index of the first word that can have a free slot.
    first: u16,
}

impl Chunk {
    fn new(slots: usize) -> Self {
        let word =
            |i: usize| if slots >= (i + 1) * 64 { u64::MAX } else { (1 << (slots % 64)) - 1 };
        Self { free: (0..slots.div_ceil(64)).map(word).collect(), used: 0, first: 0 }
    }

    /// Takes the first free slot of the chunk, which must have one.
    #[inline]
    fn take(&mut self) -> usize {
        let mut at = usize::from(self.first);
        while self.free[at] == 0 {
            at += 1;
        }
        let bit = self.free[at].trailing_zeros() as usize;
        self.free[at] &= self.free[at] - 1;
        self.first = at as u16;
        self.used += 1;
        at * 64 + bit
    }

    #[inline]
    fn free(&mut self, slot: usize) {
        self.free[slot / 64] |= 1 << (slot % 64);
        self.first = self.first.min((slot / 64) as u16);
        self.used -= 1;
    }
}

/// The slots of all chunks.
pub(crate) struct Slots {
    in_chunk: usize,
    /// Number of low bits of a slot number that are the slot's index in its chunk. If a chunk has
    /// fewer slots than these bits can number, some numbers are unused.
    chunk_bits: u32,
    chunks: Vec<Chunk>,
    /// Chunks with a free slot.
    open: BitSet,
    /// Chunks that are not released and have no used slot.
    empty: BitSet,
    held: usize,
    /// The number of empty chunks.
    empties: usize,
    len: usize,
    needed: HighWater,
}

impl Slots {
    /// Creates an allocator for chunks of `in_chunk` slots, at most 32,768.
    pub fn new(in_chunk: usize) -> Self {
        let in_chunk = in_chunk.clamp(1, 1 << 15);
        Self {
            in_chunk,
            chunk_bits: in_chunk.next_power_of_two().ilog2(),
            chunks: Vec::new(),
            open: BitSet::default(),
            empty: BitSet::default(),
            held: 0,
            empties: 0,
            len: 0,
            needed: HighWater::default(),
        }
    }

    /// The chunk of a slot, and the slot's index in the chunk.
    #[inline]
    pub fn place(&self, slot: usize) -> (usize, usize) {
        (slot >> self.chunk_bits, slot & ((1 << self.chunk_bits) - 1))
    }

    /// Takes the first free slot.
    #[inline]
    pub fn take(&mut self) -> usize {
        let number = self.open.first().unwrap_or(self.chunks.len());
        if number == self.chunks.len() {
            self.chunks.push(Chunk::default());
            self.open.insert(number);
        }
        let chunk = &mut self.chunks[number];
        if chunk.used == 0 {
            if chunk.free.is_empty() {
                *chunk = Chunk::new(self.in_chunk);
                self.held += 1;
            } else {
                self.empty.remove(number);
                self.empties -= 1;
            }
        }
        let at = chunk.take();
        if usize::from(chunk.used) == self.in_chunk {
            self.open.remove(number);
        }
        self.len += 1;
        self.needed.note(self.len);
        (number << self.chunk_bits) + at
    }

    /// Frees a used slot.
    #[inline]
    pub fn free(&mut self, slot: usize) {
        let (number, at) = self.place(slot);
        let chunk = &mut self.chunks[number];
        if usize::from(chunk.used) == self.in_chunk {
            self.open.insert(number);
        }
        chunk.free(at);
        if chunk.used == 0 {
            self.empty.insert(number);
            self.empties += 1;
        }
        self.len -= 1;
    }

    /// Ends an epoch. Calls `release` with the numbers of some empty chunks that no recent epoch
    /// has needed.
    pub fn end_epoch(&mut self, mut release: impl FnMut(usize)) {
        let needed = match self.needed.end_epoch(self.len) {
            0 => 0,
            // One spare chunk, so that a size that varies around a chunk boundary releases and
            // takes none.
            slots => slots.div_ceil(self.in_chunk) + 1,
        };
        let surplus = self.held.saturating_sub(needed);
        for _ in 0..surplus.min(RELEASE + surplus / 16) {
            let Some(number) = self.empty.last() else { return };
            self.give_back(number);
            release(number);
        }
    }

    /// Releases an empty chunk and returns its number, if more than an eighth of the chunks, plus
    /// one, are empty. Call this after freeing a slot if released chunks are reused elsewhere.
    #[inline]
    pub fn surplus(&mut self) -> Option<usize> {
        if self.empties <= 1 + self.held / 8 {
            return None;
        }
        let number = self.empty.last()?;
        self.give_back(number);
        Some(number)
    }

    fn give_back(&mut self, number: usize) {
        self.empty.remove(number);
        self.empties -= 1;
        self.chunks[number] = Chunk::default();
        self.held -= 1;
    }

    /// Memory of the allocator itself, in bytes.
    pub fn memory(&self) -> usize {
        self.chunks.len() * size_of::<Chunk>() + self.held * self.in_chunk.div_ceil(64) * 8
    }

    /// Number of chunks that are not released.
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
        fn a_slot_is_not_allocated_twice(steps: Vec<(u8, u16)>, in_chunk in 1usize..200) {
            let (mut slots, mut used) = (Slots::new(in_chunk), BTreeSet::new());
            let numbers = in_chunk.next_power_of_two();
            for (kind, at) in steps {
                match kind % 5 {
                    0..=1 => {
                        let slot = slots.take();
                        prop_assert!(slots.place(slot).1 < in_chunk && used.insert(slot));
                    }
                    2..=3 => {
                        let nth = usize::from(at) % used.len().max(1);
                        if let Some(slot) = used.iter().copied().nth(nth) {
                            used.remove(&slot);
                            slots.free(slot);
                        }
                        if at % 3 == 0 && let Some(number) = slots.surplus() {
                            let first = number * numbers;
                            prop_assert!(used.range(first..first + numbers).next().is_none());
                        }
                    }
                    _ => slots.end_epoch(|number| {
                        let first = number * numbers;
                        assert!(used.range(first..first + numbers).next().is_none());
                    }),
                }
                prop_assert_eq!(slots.len, used.len());
                prop_assert!(slots.held() * in_chunk >= used.len());
            }
        }
    }

    #[test]
    fn chunks_of_a_burst_are_released() {
        let mut slots = Slots::new(128);
        (0..128_000).for_each(|slot| assert_eq!(slots.take(), slot));
        (50..128_000).for_each(|slot| slots.free(slot));
        let mut released = BTreeSet::new();
        for _ in 0..300 {
            let mut now = 0;
            slots.end_epoch(|number| {
                now += 1;
                released.insert(number);
            });
            assert!(now <= RELEASE + 1000 / 16, "{now} at once");
        }
        assert_eq!((slots.held(), released.len()), (2, 998));
        assert_eq!(slots.take(), 50, "the first one that is free");
    }
}
