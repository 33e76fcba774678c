//! The entries of the key table: a join key, and for each side the run of the rows with this key.

use crate::table::row::{Row, Slot};

pub(super) use crate::state::keyed_runs::KeyedRuns as KeyEntry;

/// Whether a key row with `width` columns contains a NULL.
#[inline]
pub(super) fn has_null(key: &[u8], width: usize) -> bool {
    (0..width).any(|i| Row(key).is_null(Slot::new(i, width)))
}
