//! A slab of typed records in slots that never move.
//!
//! A freed slot is reused by a later record, so that a slab of constant size allocates nothing.
//! Chunks that no recent epoch has needed are freed ([`RecordSlab::end_epoch`]).

use crate::state::ordered_run::{NumberedRows, RowId};
use crate::state::slot_allocator::Slots;

/// Number of slots of a chunk; a power of two.
const CHUNK: usize = 256;
/// The number of a free slot.
const FREE: u64 = u64::MAX;

/// A record with its time, key and match.
pub(crate) struct Stored<T> {
    /// The number of the record, which ascends in the order of arrival.
    pub number: u64,
    pub time_us: i64,
    /// The slot of the record's key in the key table.
    pub key: u32,
    /// The approximate heap memory of the record, in bytes.
    pub heap: u32,
    /// Whether the record has had a match.
    pub matched: bool,
    /// `None` in a free slot.
    pub record: Option<T>,
}

/// A slab of typed records; see the module.
pub(crate) struct RecordSlab<T> {
    /// The chunks by number. A freed chunk is empty.
    chunks: Vec<Vec<Stored<T>>>,
    slots: Slots,
    len: usize,
    heap: u64,
}

impl<T> Default for RecordSlab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), slots: Slots::new(CHUNK), len: 0, heap: 0 }
    }
}

impl<T> RecordSlab<T> {
    /// Adds a record and returns its id. `None` if there are more records than an id can number.
    #[inline]
    pub fn insert(&mut self, stored: Stored<T>) -> Option<RowId> {
        let slot = self.slots.take();
        let (number, at) = (slot / CHUNK, slot % CHUNK);
        while self.chunks.len() <= number {
            self.chunks.push(Vec::new());
        }
        let Ok(id) = u32::try_from(slot) else {
            self.slots.free(slot);
            return None;
        };
        let chunk = &mut self.chunks[number];
        if chunk.capacity() == 0 {
            chunk.reserve_exact(CHUNK);
        }
        self.len += 1;
        self.heap += u64::from(stored.heap);
        match chunk.get_mut(at) {
            Some(free) => *free = stored,
            // The slots of a new chunk are first taken in order.
            None => chunk.push(stored),
        }
        Some(RowId(id))
    }

    /// Removes and returns a record. `None` if the slot is free.
    #[inline]
    pub fn remove(&mut self, id: RowId) -> Option<T> {
        let stored = self.get_mut(id)?;
        let record = stored.record.take()?;
        stored.number = FREE;
        let heap = stored.heap;
        self.heap -= u64::from(heap);
        self.len -= 1;
        self.slots.free(id.0 as usize);
        Some(record)
    }

    /// The content of a slot, which may be free. `None` if its chunk was freed.
    #[inline]
    pub fn get(&self, id: RowId) -> Option<&Stored<T>> {
        self.chunks.get(id.0 as usize / CHUNK)?.get(id.0 as usize % CHUNK)
    }

    /// The content of a slot, mutable; see [`get`](Self::get).
    #[inline]
    pub fn get_mut(&mut self, id: RowId) -> Option<&mut Stored<T>> {
        self.chunks.get_mut(id.0 as usize / CHUNK)?.get_mut(id.0 as usize % CHUNK)
    }

    /// The record in a slot; `None` if the slot is free.
    #[inline]
    pub fn record(&self, id: RowId) -> Option<&T> {
        self.get(id)?.record.as_ref()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Ends an epoch: frees some chunks that no recent epoch has needed.
    pub fn end_epoch(&mut self) {
        let chunks = &mut self.chunks;
        self.slots.end_epoch(|number| chunks[number] = Vec::new());
    }

    /// Approximate memory of the records alone, without that of free slots, in bytes.
    pub fn record_bytes(&self) -> u64 {
        (self.len * size_of::<Stored<T>>()) as u64 + self.heap
    }

    /// Approximate memory of the slab, in bytes.
    pub fn memory(&self) -> u64 {
        (self.slots.held() * CHUNK * size_of::<Stored<T>>()) as u64 + self.heap
    }
}

impl<T> NumberedRows for RecordSlab<T> {
    #[inline]
    fn number(&self, id: RowId) -> u64 {
        self.get(id).map_or(FREE, |stored| stored.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn stored(number: u64, record: String) -> Stored<String> {
        let heap = record.len() as u32;
        Stored { number, time_us: 0, key: 0, heap, matched: false, record: Some(record) }
    }

    proptest! {
        #[test]
        fn the_slab_behaves_like_a_map(steps: Vec<(u8, bool)>) {
            let (mut slab, mut model) = (RecordSlab::default(), BTreeMap::new());
            for (number, (length, removes)) in (0..).zip(steps) {
                if removes && let Some((id, record)) = model.pop_first() {
                    prop_assert_eq!(slab.remove(RowId(id)), Some(record));
                    prop_assert_eq!(slab.number(RowId(id)), FREE);
                    prop_assert_eq!(slab.remove(RowId(id)), None);
                    slab.end_epoch();
                    continue;
                }
                let record = "x".repeat(length.into());
                let id = slab.insert(stored(number, record.clone())).unwrap();
                prop_assert_eq!(slab.number(id), number);
                prop_assert!(model.insert(id.0, record).is_none());
            }
            prop_assert_eq!(slab.len(), model.len());
            for (id, record) in &model {
                prop_assert_eq!(slab.record(RowId(*id)), Some(record));
            }
        }
    }

    #[test]
    fn memory_of_a_burst_is_freed() {
        let mut slab = RecordSlab::default();
        let ids: Vec<_> =
            (0..50_000).map(|n| slab.insert(stored(n, "record".to_string())).unwrap()).collect();
        let full = slab.memory();
        ids[1..].iter().for_each(|id| drop(slab.remove(*id)));
        (0..300).for_each(|_| slab.end_epoch());
        assert!(slab.memory() < full / 10, "{full} to {}", slab.memory());
        assert_eq!(slab.record(ids[0]).map(String::as_str), Some("record"));
        assert!(ids[1..].iter().all(|id| slab.number(*id) == FREE));
        assert!((0..50_000).all(|n| slab.insert(stored(n, String::new())).is_some()));
    }
}
