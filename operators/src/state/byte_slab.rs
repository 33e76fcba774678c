//! A slab allocator for byte slots in a few size classes.
//!
//! Slots are in chunks that never move. A freed slot is reused by a later allocation of its class.
//! All chunks have one size, so a chunk that one class has emptied can be reused by any other
//! class. Slots of more than half a chunk are allocated and freed one by one. Chunks that no recent
//! epoch has needed are freed ([`ByteSlab::end_epoch`]).

use crate::state::slot_allocator::Slots;
use millstream_engine::collections::high_water::HighWater;

/// Slot size of the smallest class, in bytes.
const LEAST: usize = 16;
/// Number of classes per doubling of the size.
const STEPS: usize = 4;
const CLASS_BITS: u32 = 6;
/// The class number of slots that are allocated separately.
const LARGE: usize = (1 << CLASS_BITS) - 1;
/// Maximum number of slots of a class.
const SLOTS_MAX: usize = 1 << (32 - CLASS_BITS);
/// Maximum number of chunks freed at the end of an epoch, in addition to a sixteenth of the
/// surplus.
const RELEASE: usize = 4;

/// The class and the number of a slot. Valid until the slot is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId(pub u32);

impl SlotId {
    #[inline]
    fn new(class: usize, slot: usize) -> Self {
        Self(class as u32 | (slot as u32) << CLASS_BITS)
    }
    #[inline]
    fn class(self) -> usize {
        (self.0 & ((1 << CLASS_BITS) - 1)) as usize
    }
    #[inline]
    fn slot(self) -> usize {
        (self.0 >> CLASS_BITS) as usize
    }
}

struct Class {
    /// The size of a slot, in bytes.
    bytes: usize,
    /// The chunks by number. A released chunk is empty.
    chunks: Vec<Box<[u8]>>,
    slots: Slots,
}

impl Class {
    fn memory(&self) -> usize {
        size_of_val(&*self.chunks) + self.slots.memory()
    }
}

/// The chunks that no class uses.
struct Pool {
    chunk_bytes: usize,
    spares: Vec<Box<[u8]>>,
    /// Number of chunks that classes use.
    used: usize,
    needed: HighWater,
}

impl Pool {
    /// Returns a chunk in which all bits are set.
    #[cold]
    fn take(&mut self) -> Box<[u8]> {
        self.used += 1;
        self.needed.note(self.used);
        match self.spares.pop() {
            Some(mut chunk) => {
                chunk.fill(u8::MAX);
                chunk
            }
            None => vec![u8::MAX; self.chunk_bytes].into_boxed_slice(),
        }
    }

    /// Takes a chunk back. The chunk of a slot number beyond the limit is empty: it was never used.
    #[cold]
    fn put(&mut self, chunk: Box<[u8]>) {
        if chunk.is_empty() {
            return;
        }
        self.used -= 1;
        self.spares.push(chunk);
    }

    fn end_epoch(&mut self) {
        let needed = self.needed.end_epoch(self.used) + 1;
        let surplus = (self.used + self.spares.len()).saturating_sub(needed);
        let kept = self.spares.len().saturating_sub(surplus.min(RELEASE + surplus / 16));
        self.spares.truncate(kept);
    }
}

/// A slab allocator for byte slots; see the module.
pub(crate) struct ByteSlab {
    classes: Vec<Class>,
    pool: Pool,
    /// Slots that are allocated separately; a free one is empty.
    large: Vec<Box<[u8]>>,
    large_free: Vec<u32>,
    /// The total size of the slots that are allocated separately, in bytes.
    large_bytes: usize,
    /// The number of slots that a class may have.
    slots_max: usize,
}

/// The size of a class's slots, in bytes.
#[inline]
fn class_bytes(class: usize) -> usize {
    let base = LEAST << (class / STEPS);
    base + base / STEPS * (class % STEPS)
}

/// The smallest class whose slots have at least `bytes` bytes.
#[inline]
fn class_of(bytes: usize) -> usize {
    if bytes <= LEAST {
        return 0;
    }
    // base < bytes <= 2 * base
    let power = ((bytes - 1) / LEAST).ilog2() as usize;
    let base = LEAST << power;
    power * STEPS + (bytes - base).div_ceil(base / STEPS)
}

impl ByteSlab {
    /// Creates a slab with chunks of `chunk_bytes` bytes, at most 256 KiB.
    pub fn new(chunk_bytes: usize) -> Self {
        let chunk_bytes = chunk_bytes.min(256 << 10);
        let pool = Pool { chunk_bytes, spares: Vec::new(), used: 0, needed: HighWater::default() };
        let (classes, large) = (Vec::new(), Vec::new());
        let large_free = Vec::new();
        Self { classes, pool, large, large_free, large_bytes: 0, slots_max: SLOTS_MAX }
    }

    /// Takes a slot of at least `bytes` bytes. The content is that of an earlier slot, or all bits
    /// are set. `None` if there are more slots of this size than a [`SlotId`] can number.
    #[inline]
    pub fn take(&mut self, bytes: usize) -> Option<SlotId> {
        if bytes > self.pool.chunk_bytes / 2 {
            return self.take_large(bytes);
        }
        let first = class_of(bytes);
        // If a class has used all its numbers, a larger class is used, up to twice the size. Slots
        // of more than a sixteenth of a chunk have no such alternative.
        let others = if bytes <= self.pool.chunk_bytes / 16 { STEPS } else { 0 };
        (first..=first + others).find_map(|class| self.take_of(class))
    }

    #[inline]
    fn take_of(&mut self, class: usize) -> Option<SlotId> {
        while self.classes.len() <= class {
            let bytes = class_bytes(self.classes.len());
            let slots = Slots::new(self.pool.chunk_bytes / bytes);
            self.classes.push(Class { bytes, chunks: Vec::new(), slots });
        }
        let Class { chunks, slots, .. } = &mut self.classes[class];
        let slot = slots.take();
        let (chunk, _) = slots.place(slot);
        if chunk == chunks.len() {
            chunks.push(Box::default());
        }
        if slot >= self.slots_max {
            slots.free(slot);
            return None;
        }
        if chunks[chunk].is_empty() {
            chunks[chunk] = self.pool.take();
        }
        Some(SlotId::new(class, slot))
    }

    #[cold]
    fn take_large(&mut self, bytes: usize) -> Option<SlotId> {
        self.large_bytes += bytes;
        let made = vec![u8::MAX; bytes].into_boxed_slice();
        let slot = match self.large_free.pop() {
            Some(slot) => {
                self.large[slot as usize] = made;
                slot as usize
            }
            None => {
                self.large.push(made);
                self.large.len() - 1
            }
        };
        if slot >= self.slots_max {
            self.free_large(slot);
            return None;
        }
        Some(SlotId::new(LARGE, slot))
    }

    #[cold]
    fn free_large(&mut self, slot: usize) {
        self.large_bytes -= self.large[slot].len();
        self.large[slot] = Box::default();
        self.large_free.push(slot as u32);
    }

    /// Frees a slot. Its bytes remain until the slot is taken again or its chunk is released. A slot
    /// that was allocated separately is empty at once.
    #[inline]
    pub fn free(&mut self, id: SlotId) {
        let Some(Class { chunks, slots, .. }) = self.classes.get_mut(id.class()) else {
            return self.free_large(id.slot());
        };
        slots.free(id.slot());
        if let Some(chunk) = slots.surplus() {
            self.pool.put(std::mem::take(&mut chunks[chunk]));
        }
    }

    /// The bytes of a slot, which may be more than were taken; empty if its chunk was released.
    #[inline]
    pub fn bytes(&self, id: SlotId) -> &[u8] {
        let Some(class) = self.classes.get(id.class()) else { return &self.large[id.slot()] };
        let (chunk, at) = class.slots.place(id.slot());
        let from = at * class.bytes;
        class.chunks[chunk].get(from..from + class.bytes).unwrap_or_default()
    }

    /// The bytes of a slot, mutable; empty if its chunk was released.
    #[inline]
    pub fn bytes_mut(&mut self, id: SlotId) -> &mut [u8] {
        let Some(class) = self.classes.get_mut(id.class()) else {
            return &mut self.large[id.slot()];
        };
        let (chunk, at) = class.slots.place(id.slot());
        let from = at * class.bytes;
        class.chunks[chunk].get_mut(from..from + class.bytes).unwrap_or_default()
    }

    /// Ends an epoch: frees some chunks that no recent epoch has needed.
    pub fn end_epoch(&mut self) {
        for Class { chunks, slots, .. } in &mut self.classes {
            slots.end_epoch(|number| self.pool.put(std::mem::take(&mut chunks[number])));
        }
        self.pool.end_epoch();
    }

    /// The memory of the slab, in bytes.
    pub fn memory(&self) -> usize {
        let chunks = self.pool.used + self.pool.spares.len();
        let classes: usize = self.classes.iter().map(Class::memory).sum();
        chunks * self.pool.chunk_bytes + classes + self.large_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_slot_fits_its_bytes_and_wastes_little() {
        let mut slab = ByteSlab::new(64 << 10);
        for bytes in 1..40_000 {
            let id = slab.take(bytes).unwrap();
            let slot = slab.bytes(id).len();
            slab.free(id);
            assert!(slot >= bytes, "{bytes} in {slot}");
            assert!(bytes <= LEAST || slot <= bytes + bytes / STEPS + 1, "{bytes} in {slot}");
        }
    }

    #[test]
    fn slots_are_freed_after_a_class_has_used_all_its_numbers() {
        let mut slab = ByteSlab::new(4 << 10);
        slab.slots_max = 64;
        // Ends within a chunk for some sizes, and with a chunk for others.
        for bytes in [16, 32, 40, 100, 256, 1024, 4000] {
            let mut taken = Vec::new();
            while let Some(id) = slab.take(bytes) {
                slab.bytes_mut(id).fill(bytes as u8);
                taken.push(id);
            }
            assert!(taken.len() >= 64, "{} of {bytes} bytes", taken.len());
            assert_eq!(slab.take(bytes).map(|id| id.0), None);
            for id in taken {
                assert_eq!(slab.bytes(id)[bytes - 1], bytes as u8);
                slab.free(id);
            }
            (0..100).for_each(|_| slab.end_epoch());
        }
        assert_eq!((slab.pool.used <= 7 * 2 * STEPS, slab.large_bytes), (true, 0));
    }

    proptest! {
        #[test]
        fn bytes_of_a_slot_are_not_changed_by_other_slots(steps: Vec<(u16, u8, bool)>) {
            let (mut slab, mut model) = (ByteSlab::new(4 << 10), BTreeMap::new());
            for (length, fill, frees) in steps {
                if frees && let Some((id, _)) = model.pop_first() {
                    slab.free(SlotId(id));
                    continue;
                }
                let length = usize::from(length);
                let id = slab.take(length).unwrap();
                let slot = slab.bytes_mut(id);
                prop_assert!(slot.len() >= length);
                slot.fill(fill);
                prop_assert!(model.insert(id.0, (fill, slot.len())).is_none());
            }
            for (id, (fill, length)) in &model {
                prop_assert_eq!(slab.bytes(SlotId(*id)), &vec![*fill; *length][..]);
            }
            let used: usize = model.values().map(|(_, length)| length).sum();
            prop_assert!(slab.memory() >= used);
        }
    }

    #[test]
    fn freed_slots_are_reused() {
        let mut slab = ByteSlab::new(16 << 10);
        let mut memory = Vec::new();
        for _ in 0..10 {
            let ids: Vec<_> = (0..5000).map(|_| slab.take(100).unwrap()).collect();
            memory.push(slab.memory());
            ids.into_iter().for_each(|id| slab.free(id));
        }
        assert_eq!(memory, [memory[0]; 10]);
    }

    #[test]
    fn memory_of_a_burst_is_freed() {
        let mut slab = ByteSlab::new(16 << 10);
        let ids: Vec<_> = (0..50_000).map(|n| slab.take(50 + n % 400).unwrap()).collect();
        slab.bytes_mut(ids[0]).fill(7);
        let full = slab.memory();
        ids[1..].iter().for_each(|id| slab.free(*id));
        (0..300).for_each(|_| slab.end_epoch());
        assert!(slab.memory() < full / 10, "{full} to {}", slab.memory());
        assert!(slab.bytes(ids[0]).iter().all(|byte| *byte == 7));
        assert!((0..50_000).all(|n| slab.take(50 + n % 400).is_some()));
    }

    #[test]
    fn chunks_that_one_class_has_emptied_are_reused_by_others() {
        let mut slab = ByteSlab::new(16 << 10);
        // The slots of all entries grow at the same time.
        let mut ids: Vec<_> = (0..5000).map(|_| slab.take(32).unwrap()).collect();
        for bytes in (40..1000).step_by(8) {
            for id in &mut ids {
                let larger = slab.take(bytes).unwrap();
                slab.free(std::mem::replace(id, larger));
            }
        }
        assert!(slab.memory() < 5000 * 1024 * 5 / 4, "{}", slab.memory());
    }
}
