//! A stack of slot indices in fixed-size chunks, so that growing never copies more than one chunk.
//!
//! A growing `Vec` copies all its elements. For a million slots this takes milliseconds, in which
//! no record is processed. Here a new chunk is started when the last one is full. Stacks share a
//! [`Pool`] of empty chunks.

use millstream_engine::collections::high_water::HighWater;

/// Number of slots per chunk. Growing the stack copies at most one chunk.
const CHUNK: usize = 4096;
/// Maximum number of chunks freed at the end of an epoch, in addition to a sixteenth of the
/// surplus.
const RELEASE: usize = 8;

/// A stack of slot indices.
#[derive(Default)]
pub(crate) struct SlotStack {
    full: Vec<Vec<u32>>,
    top: Vec<u32>,
}

/// The empty chunks that stacks share. The pool keeps as many as the stacks have needed recently.
#[derive(Default)]
pub(crate) struct Pool {
    spares: Vec<Vec<u32>>,
    /// Number of chunks that stacks use, except the first of each.
    used: usize,
    needed: HighWater,
}

impl Pool {
    fn take(&mut self) -> Vec<u32> {
        self.used += 1;
        self.needed.note(self.used);
        self.spares.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn put(&mut self, chunk: Vec<u32>) {
        self.used -= 1;
        self.spares.push(chunk);
    }

    /// Ends an epoch: frees some chunks that no recent epoch has needed.
    pub fn end_epoch(&mut self) {
        let needed = self.needed.end_epoch(self.used);
        let surplus = (self.used + self.spares.len()).saturating_sub(needed);
        let kept = self.spares.len().saturating_sub(surplus.min(RELEASE + surplus / 16));
        self.spares.truncate(kept);
    }

    /// Memory of all chunks except the first of each stack, in bytes.
    pub fn memory(&self) -> usize {
        (self.used + self.spares.len()) * CHUNK * size_of::<u32>()
    }
}

impl SlotStack {
    #[inline]
    pub fn push(&mut self, slot: u32, pool: &mut Pool) {
        if self.top.len() == CHUNK {
            self.full.push(std::mem::replace(&mut self.top, pool.take()));
        }
        self.top.push(slot);
    }

    #[inline]
    pub fn pop(&mut self, pool: &mut Pool) -> Option<u32> {
        if self.top.is_empty() {
            pool.put(std::mem::replace(&mut self.top, self.full.pop()?));
        }
        self.top.pop()
    }

    #[cfg(any(feature = "sql", test))]
    pub fn len(&self) -> usize {
        self.full.len() * CHUNK + self.top.len()
    }

    pub fn is_empty(&self) -> bool {
        self.top.is_empty() && self.full.is_empty()
    }

    /// Some of the indices that [`pop`](Self::pop) returns next, at most `most`, the next one last.
    #[cfg(any(feature = "sql", test))]
    pub fn peek(&self, most: usize) -> &[u32] {
        &self.top[self.top.len().saturating_sub(most)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_stack_behaves_like_a_stack() {
        let (mut places, mut pool) = (SlotStack::default(), Pool::default());
        let mut model = Vec::new();
        // Grows and shrinks across chunk boundaries, and grows more than it shrinks.
        for round in 0..40u32 {
            for place in 0..1000 {
                places.push(round * 1000 + place, &mut pool);
                model.push(round * 1000 + place);
            }
            for _ in 0..(round * 37 % 1000) {
                assert_eq!(places.pop(&mut pool), model.pop());
            }
            assert_eq!(places.is_empty(), model.is_empty());
        }
        while let Some(place) = model.pop() {
            assert_eq!(places.pop(&mut pool), Some(place));
        }
        assert!(places.is_empty() && places.pop(&mut pool).is_none());
        assert_eq!(pool.used, 0);
    }

    #[test]
    fn chunks_of_a_burst_are_freed() {
        let (mut places, mut pool) = (SlotStack::default(), Pool::default());
        let mut epoch = |slots: usize| {
            (0..slots).for_each(|slot| places.push(slot as u32, &mut pool));
            let most = pool.used + pool.spares.len();
            while places.pop(&mut pool).is_some() {}
            pool.end_epoch();
            (most, pool.spares.len())
        };
        assert_eq!(epoch(100 * CHUNK), (99, 99), "the next burst may come soon");
        let after: Vec<_> = (0..300).map(|_| epoch(3 * CHUNK)).collect();
        assert_eq!(after[299], (2, 2));
        assert_eq!(pool.memory(), 2 * CHUNK * 4);
    }
}
