//! Storage of the buffered rows of both sides, in slabs.
//!
//! A row is in a slot of the next larger size class. Slots are in chunks that never move. A freed
//! slot is reused by the next row of its class, so a join in steady state allocates nothing. A row
//! larger than the largest class is allocated separately. Chunks that no recent epoch has needed
//! are freed ([`RowStore::epoch`]).
//!
//! A slot starts with a header: the row's number, the index of its key, its length and its flags.

use crate::state::ordered_run::NumberedRows;
pub(super) use crate::state::ordered_run::RowId;
use crate::state::slot_allocator::Slots;
use crate::table::row::Row;
use millstream_engine::error::EngineError;

/// The size of the header: number 8 bytes, key 4, length and flags 4.
pub(super) const HEAD: usize = 16;
const CHUNK_BYTES: usize = 64 << 10;
/// The slot size of the smallest class in bytes, including the header.
const LEAST: usize = 32;
/// The number of classes per doubling of the slot size.
const STEPS: usize = 4;
/// The number of size classes. Larger rows belong to an additional class.
const CLASSES: usize = 10 * STEPS;
const CLASS_BITS: u32 = 6;
/// The maximum number of slots of a class.
const SLOTS_MAX: u32 = 1 << (32 - CLASS_BITS);
const MATCHED: u32 = 1 << 31;
/// The maximum size of a row, in bytes.
const ROW_MAX: usize = 1 << 30;
/// The row number of a free slot.
const FREE: u64 = u64::MAX;

impl RowId {
    fn new(class: usize, slot: u32) -> Self {
        Self(class as u32 | slot << CLASS_BITS)
    }
    fn class(self) -> usize {
        (self.0 & ((1 << CLASS_BITS) - 1)) as usize
    }
    fn slot(self) -> u32 {
        self.0 >> CLASS_BITS
    }
}

struct Class {
    /// A chunk that was freed is empty.
    chunks: Vec<Box<[u8]>>,
    slots: Slots,
}

impl Class {
    fn new(number: usize) -> Self {
        let in_chunk = CHUNK_BYTES / slot_bytes(number);
        Self { chunks: Vec::new(), slots: Slots::new(in_chunk as u16) }
    }
}

/// Stores rows in slots of a few size classes. A row is found by its [`RowId`].
#[derive(Default)]
pub(super) struct RowStore {
    classes: Vec<Class>,
    /// Rows that are larger than the largest class.
    large: Vec<Box<[u8]>>,
    large_free: Vec<u32>,
    len: usize,
    /// The total size of rows larger than the largest class, in bytes.
    large_bytes: usize,
}

/// The slot size of a class, in bytes.
fn slot_bytes(class: usize) -> usize {
    let base = LEAST << (class / STEPS);
    base + base / STEPS * (class % STEPS)
}

/// The smallest class for `bytes` bytes; [`CLASSES`] for larger rows.
fn class_of(bytes: usize) -> usize {
    if bytes <= LEAST {
        return 0;
    }
    // base < bytes <= 2 * base
    let power = usize::BITS - 1 - ((bytes - 1) / LEAST).leading_zeros();
    let base = LEAST << power;
    let step = (bytes - base).div_ceil(base / STEPS);
    (power as usize * STEPS + step).min(CLASSES)
}

#[cold]
fn full(what: &str) -> EngineError {
    EngineError::operator(
        "JOIN_STATE_TOO_LARGE",
        format!("a join buffers {what}"),
        "Declare a watermark on both sides and a range between their times, so that rows expire",
    )
}

impl RowStore {
    /// The bytes of a row's slot; empty if its chunk was freed.
    #[inline]
    fn slot(&self, id: RowId) -> &[u8] {
        let (class, slot) = (id.class(), id.slot() as usize);
        if class == CLASSES {
            return &self.large[slot];
        }
        let bytes = slot_bytes(class);
        let in_chunk = CHUNK_BYTES / bytes;
        let at = slot % in_chunk * bytes;
        self.classes[class].chunks[slot / in_chunk].get(at..at + bytes).unwrap_or_default()
    }

    fn slot_mut(&mut self, id: RowId) -> &mut [u8] {
        let (class, slot) = (id.class(), id.slot() as usize);
        if class == CLASSES {
            return &mut self.large[slot];
        }
        let bytes = slot_bytes(class);
        let in_chunk = CHUNK_BYTES / bytes;
        let at = slot % in_chunk * bytes;
        &mut self.classes[class].chunks[slot / in_chunk][at..at + bytes]
    }

    fn word(&self, id: RowId, at: usize) -> u32 {
        let slot = self.slot(id);
        u32::from_le_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]])
    }

    /// Adds a row of a key, with its number.
    pub fn insert(
        &mut self,
        row: Row<'_>,
        (key, number): (u32, u64),
        matched: bool,
    ) -> Result<RowId, EngineError> {
        let length = row.0.len();
        if length >= ROW_MAX {
            return Err(full(&format!("a row of {length} bytes, more than {ROW_MAX}")));
        }
        let id = self.take_slot(HEAD + length)?;
        let flags = if matched { MATCHED } else { 0 };
        let slot = self.slot_mut(id);
        slot[..8].copy_from_slice(&number.to_le_bytes());
        slot[8..12].copy_from_slice(&key.to_le_bytes());
        slot[12..16].copy_from_slice(&(length as u32 | flags).to_le_bytes());
        slot[HEAD..HEAD + length].copy_from_slice(row.0);
        self.len += 1;
        Ok(id)
    }

    /// Allocates a slot for `bytes` bytes.
    fn take_slot(&mut self, bytes: usize) -> Result<RowId, EngineError> {
        let class = class_of(bytes);
        if class == CLASSES {
            self.large_bytes += bytes;
            let made = vec![0; bytes].into_boxed_slice();
            let at = match self.large_free.pop() {
                Some(at) => {
                    self.large[at as usize] = made;
                    at
                }
                None => {
                    self.large.push(made);
                    self.large.len() as u32 - 1
                }
            };
            return Ok(RowId::new(class, at));
        }
        if self.classes.len() <= class {
            self.classes.extend((self.classes.len()..=class).map(Class::new));
        }
        let of = &mut self.classes[class];
        let slot = of.slots.take();
        if slot >= SLOTS_MAX as usize {
            return Err(full(&format!("more than {SLOTS_MAX} rows of one size")));
        }
        let chunk = slot / (CHUNK_BYTES / slot_bytes(class));
        if chunk == of.chunks.len() {
            of.chunks.push(Box::default());
        }
        if of.chunks[chunk].is_empty() {
            of.chunks[chunk] = vec![0; CHUNK_BYTES].into_boxed_slice();
        }
        Ok(RowId::new(class, slot as u32))
    }

    /// Ends an epoch: frees some chunks that no recent epoch has needed.
    pub fn epoch(&mut self) {
        for Class { chunks, slots } in &mut self.classes {
            slots.epoch(|number| chunks[number] = Box::default());
        }
    }

    /// Removes a row and frees its slot for another row of the class.
    pub fn remove(&mut self, id: RowId) {
        self.slot_mut(id)[..8].copy_from_slice(&FREE.to_le_bytes());
        self.len -= 1;
        let class = id.class();
        if class == CLASSES {
            self.large_bytes -= self.large[id.slot() as usize].len();
            // The number stays, to mark the slot as free.
            self.large[id.slot() as usize] = FREE.to_le_bytes().into();
            self.large_free.push(id.slot());
            return;
        }
        self.classes[class].slots.free(id.slot() as usize);
    }

    /// The bytes of a row.
    #[inline]
    pub fn row(&self, id: RowId) -> Row<'_> {
        let slot = self.slot(id);
        let length = u32::from_le_bytes([slot[12], slot[13], slot[14], slot[15]]) & !MATCHED;
        Row(&slot[HEAD..HEAD + length as usize])
    }

    /// The number of a row. Numbers ascend in arrival order. The slot of a removed row
    /// contains a number that no row has.
    #[inline]
    pub fn number(&self, id: RowId) -> u64 {
        self.slot(id).first_chunk().map_or(FREE, |word| u64::from_le_bytes(*word))
    }

    /// The index of the row's key in the key table.
    #[inline]
    pub fn key(&self, id: RowId) -> usize {
        self.word(id, 8) as usize
    }

    /// Whether the row has had a match.
    #[inline]
    pub fn is_matched(&self, id: RowId) -> bool {
        self.word(id, 12) & MATCHED != 0
    }

    /// Records a match. Returns whether it is the row's first.
    #[inline]
    pub fn set_matched(&mut self, id: RowId) -> bool {
        let word = self.word(id, 12);
        self.slot_mut(id)[12..16].copy_from_slice(&(word | MATCHED).to_le_bytes());
        word & MATCHED == 0
    }

    /// The number of rows of both sides.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The memory allocated for the rows, in bytes.
    pub fn memory(&self) -> usize {
        let held: usize = self.classes.iter().map(|class| class.slots.held()).sum();
        held * CHUNK_BYTES + self.large_bytes
    }
}

impl NumberedRows for RowStore {
    #[inline]
    fn number(&self, id: RowId) -> u64 {
        Self::number(self, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_class_holds_its_rows_and_wastes_little() {
        for bytes in 1..40_000 {
            let class = class_of(bytes);
            if class < CLASSES {
                let slot = slot_bytes(class);
                assert!(slot >= bytes, "{bytes} in {slot}");
                assert!(bytes <= LEAST || slot <= bytes + bytes / STEPS + 1, "{bytes} in {slot}");
            } else {
                assert!(bytes > slot_bytes(CLASSES - 1), "{bytes}");
            }
        }
    }

    proptest! {
        #[test]
        fn rows_stay_what_they_are(steps: Vec<(u16, u8, bool)>) {
            let (mut store, mut model) = (RowStore::default(), BTreeMap::new());
            for (number, (length, fill, removes)) in steps.into_iter().enumerate() {
                if removes && let Some((id, _)) = model.pop_first() {
                    let id = RowId(id);
                    store.remove(id);
                    prop_assert_ne!(store.number(id), number as u64);
                    continue;
                }
                let row = vec![fill; usize::from(length)];
                let id = store.insert(Row(&row), (7, number as u64), false).unwrap();
                prop_assert!(model.insert(id.0, (row, number as u64)).is_none());
                prop_assert!(fill % 2 == 0 || store.set_matched(id) && !store.set_matched(id));
            }
            for (id, (row, number)) in &model {
                let id = RowId(*id);
                prop_assert_eq!(store.row(id).0, &row[..]);
                prop_assert_eq!((store.number(id), store.key(id)), (*number, 7));
                prop_assert!(row.is_empty() || store.is_matched(id) == (row[0] % 2 == 1));
            }
            prop_assert_eq!(store.len(), model.len());
        }
    }

    #[test]
    fn freed_slots_are_used_again() {
        let mut store = RowStore::default();
        for round in 0..10u64 {
            let add = |number| store.insert(Row(&[1; 100]), (0, number), false).unwrap();
            let ids: Vec<_> = (0..5000).map(|n| round * 5000 + n).map(add).collect();
            ids.into_iter().for_each(|id| store.remove(id));
        }
        assert_eq!(store.len(), 0);
        let held: usize = store.classes.iter().map(|class| class.slots.held()).sum();
        assert_eq!(held, 5000usize.div_ceil(CHUNK_BYTES / slot_bytes(class_of(HEAD + 100))));
    }

    #[test]
    fn rows_that_a_burst_needed_leave_no_memory_behind() {
        let mut store = RowStore::default();
        let row = |n: u64| vec![1; 50 + n as usize % 400];
        let add = |n| store.insert(Row(&row(n)), (0, n), false).unwrap();
        let ids: Vec<_> = (0..50_000).map(add).collect();
        let full = store.memory();
        ids[1..].iter().for_each(|id| store.remove(*id));
        (0..300).for_each(|_| store.epoch());
        assert!(store.memory() < full / 10, "{full} to {}", store.memory());
        assert_eq!((store.number(ids[0]), store.row(ids[0]).0), (0, &row(0)[..]));
        // Rows that have expired may still be looked up by their numbers.
        assert!((1..).zip(&ids[1..]).all(|(n, id)| store.number(*id) != n));
        let ids: Vec<_> =
            (0..50_000).map(|n| store.insert(Row(&row(n)), (0, n), false).unwrap()).collect();
        assert!((0..).zip(&ids).all(|(n, id)| store.number(*id) == n));
    }
}
