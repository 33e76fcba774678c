//! Storage of the buffered rows of both sides.
//!
//! Each row is stored in a [slot](crate::state::byte_slab) after a header of eight bytes. The
//! header contains the row's number, whether the row has had a match, and the number of unused
//! bytes of the slot.

use crate::state::byte_slab::{ByteSlab, SlotId};
use crate::state::ordered_run::NumberedRows;
pub(super) use crate::state::ordered_run::RowId;
use crate::table::row::Row;
use millstream_engine::error::EngineError;

/// The size of the header in bytes.
const HEAD: usize = 8;
/// The number of bits of a row number. A million rows a second use up all numbers in 17 years.
const NUMBER_BITS: u32 = 49;
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;
/// The number of bits for the number of unused bytes.
const UNUSED_BITS: u32 = 14;
const MATCHED: u64 = 1 << (NUMBER_BITS + UNUSED_BITS);
/// The maximum size of a row, in bytes.
const ROW_MAX: usize = 1 << 30;
/// The row number in the header of a free slot. All its bits are set, as in a new chunk.
const FREE: u64 = NUMBER;
const CHUNK_BYTES: usize = 64 << 10;

/// Stores rows in slots of a slab. A [`RowId`] identifies the slot of a row.
pub(super) struct RowStore {
    slab: ByteSlab,
    len: usize,
}

impl Default for RowStore {
    fn default() -> Self {
        Self { slab: ByteSlab::new(CHUNK_BYTES), len: 0 }
    }
}

#[cold]
pub(super) fn full(what: &str) -> EngineError {
    EngineError::operator(
        "JOIN_STATE_TOO_LARGE",
        format!("a join buffers {what}"),
        "Declare a watermark on both sides and a range between their times, so that rows expire",
    )
}

/// The header of a slot. If the chunk of the slot was freed, the result is the header of a free
/// slot.
#[inline]
fn head(slot: &[u8]) -> u64 {
    slot.first_chunk().map_or(FREE, |word| u64::from_le_bytes(*word))
}

/// The bytes of the row in a slot.
#[inline]
fn row_of(slot: &[u8]) -> &[u8] {
    let unused = (head(slot) & (MATCHED - 1)) >> NUMBER_BITS;
    &slot[HEAD..slot.len() - unused as usize]
}

impl RowStore {
    #[inline]
    fn slot(&self, id: RowId) -> &[u8] {
        self.slab.bytes(SlotId(id.0))
    }

    #[inline]
    fn slot_mut(&mut self, id: RowId) -> &mut [u8] {
        self.slab.bytes_mut(SlotId(id.0))
    }

    /// Adds a row with its number. `matched` is the initial value of [`Self::is_matched`]. Fails
    /// with `JOIN_STATE_TOO_LARGE` if the row has [`ROW_MAX`] bytes or more, if the number is
    /// [`FREE`] or more, or if all slots of the row's size are in use.
    #[inline]
    pub fn insert(
        &mut self,
        row: Row<'_>,
        number: u64,
        matched: bool,
    ) -> Result<RowId, EngineError> {
        let length = row.0.len();
        if length >= ROW_MAX {
            return Err(full(&format!("a row of {length} bytes, more than {ROW_MAX}")));
        }
        if number >= FREE {
            return Err(full(&format!("row {number}, and numbers only {FREE}")));
        }
        let slot = self.slab.take(HEAD + length);
        let id = slot.ok_or_else(|| full("more rows of one size than it can number"))?;
        let matched = if matched { MATCHED } else { 0 };
        let slot = self.slab.bytes_mut(id);
        let unused = (slot.len() - HEAD - length) as u64;
        slot[..HEAD].copy_from_slice(&(number | unused << NUMBER_BITS | matched).to_le_bytes());
        slot[HEAD..HEAD + length].copy_from_slice(row.0);
        self.len += 1;
        Ok(RowId(id.0))
    }

    /// Ends an epoch: frees a part of the memory that no recent epoch has needed.
    pub fn end_epoch(&mut self) {
        self.slab.end_epoch();
    }

    /// The memory of a row's slot, in bytes.
    #[inline]
    pub fn slot_bytes(&self, id: RowId) -> u64 {
        self.slot(id).len() as u64
    }

    /// Removes a row and frees its slot for another row of its size.
    #[inline]
    pub fn remove(&mut self, id: RowId) {
        let slot = self.slot_mut(id);
        if let Some(word) = slot.first_chunk_mut() {
            *word = FREE.to_le_bytes();
        }
        self.len -= 1;
        self.slab.free(SlotId(id.0));
    }

    /// The bytes of a row.
    #[inline]
    pub fn row(&self, id: RowId) -> Row<'_> {
        Row(row_of(self.slot(id)))
    }

    /// The number of a row. Numbers ascend in arrival order. The id of a removed row gives [`FREE`],
    /// which no row has, or the number of a later row that reuses the slot.
    #[inline]
    pub fn number(&self, id: RowId) -> u64 {
        head(self.slot(id)) & NUMBER
    }

    /// Whether a match of the row has been recorded.
    #[inline]
    pub fn is_matched(&self, id: RowId) -> bool {
        head(self.slot(id)) & MATCHED != 0
    }

    /// Records a match of a row. Returns whether it is the row's first match. Does nothing and
    /// returns false if the row's chunk was released.
    #[inline]
    pub fn set_matched(&mut self, id: RowId) -> bool {
        let Some(word) = self.slot_mut(id).first_chunk_mut() else { return false };
        let head = u64::from_le_bytes(*word);
        *word = (head | MATCHED).to_le_bytes();
        head & MATCHED == 0
    }

    /// The number of rows of both sides.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The memory allocated for the rows, in bytes.
    pub fn memory(&self) -> usize {
        self.slab.memory()
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

    proptest! {
        #[test]
        fn rows_are_not_changed_by_inserts_and_removals(steps: Vec<(u16, u8, bool)>) {
            let (mut store, mut model) = (RowStore::default(), BTreeMap::new());
            for (number, (length, fill, removes)) in steps.into_iter().enumerate() {
                if removes && let Some((id, _)) = model.pop_first() {
                    let id = RowId(id);
                    store.remove(id);
                    prop_assert_ne!(store.number(id), number as u64);
                    continue;
                }
                let row = vec![fill; usize::from(length)];
                let id = store.insert(Row(&row), number as u64, false).unwrap();
                prop_assert!(model.insert(id.0, (row, number as u64)).is_none());
                prop_assert!(fill % 2 == 0 || store.set_matched(id) && !store.set_matched(id));
            }
            for (id, (row, number)) in &model {
                let id = RowId(*id);
                prop_assert_eq!(store.row(id).0, &row[..]);
                prop_assert_eq!(store.number(id), *number);
                prop_assert!(row.is_empty() || store.is_matched(id) == (row[0] % 2 == 1));
            }
            prop_assert_eq!(store.len(), model.len());
        }
    }

    #[test]
    fn the_unused_length_of_a_slot_fits_in_the_header() {
        let mut slab = ByteSlab::new(CHUNK_BYTES);
        for bytes in 1..100_000 {
            let id = slab.take(bytes).unwrap();
            // The size of a small slot may be up to twice the requested size.
            let slot = slab.bytes(id).len() * if bytes <= CHUNK_BYTES / 16 { 2 } else { 1 };
            assert!(slot - bytes < 1 << UNUSED_BITS, "{bytes} in {slot}");
            slab.free(id);
        }
    }

    #[test]
    fn the_largest_row_number_is_accepted_and_the_next_one_refused() {
        let mut store = RowStore::default();
        let last = store.insert(Row(&[1; 40]), FREE - 1, true).unwrap();
        assert_eq!((store.number(last), store.is_matched(last)), (FREE - 1, true));
        assert_eq!(store.row(last).0, &[1; 40]);
        assert!(store.insert(Row(&[1; 40]), FREE, true).is_err());
    }

    #[test]
    fn memory_of_a_burst_is_freed() {
        let mut store = RowStore::default();
        let row = |n: u64| vec![1; 50 + n as usize % 400];
        let add = |n| store.insert(Row(&row(n)), n, false).unwrap();
        let ids: Vec<_> = (0..50_000).map(add).collect();
        let full = store.memory();
        ids[1..].iter().for_each(|id| store.remove(*id));
        (0..300).for_each(|_| store.end_epoch());
        assert!(store.memory() < full / 10, "{full} to {}", store.memory());
        assert_eq!((store.number(ids[0]), store.row(ids[0]).0), (0, &row(0)[..]));
        // Callers may still look up the number of an expired row.
        assert!((1..).zip(&ids[1..]).all(|(n, id)| store.number(*id) != n));
        let ids: Vec<_> =
            (0..50_000).map(|n| store.insert(Row(&row(n)), n, false).unwrap()).collect();
        assert!((0..).zip(&ids).all(|(n, id)| store.number(*id) == n));
    }
}
