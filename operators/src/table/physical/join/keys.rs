//! The entries of the key table: a join key, and for each side the run of the rows with this key.

use crate::table::row::{Row, Slot};

pub(super) use crate::state::keyed_runs::KeyedRuns as KeyEntry;

/// Whether a key row contains a NULL that makes a match impossible. `null_safe` tells for each key
/// whether NULL equals NULL.
#[inline]
pub(super) fn is_unmatchable(key: &[u8], null_safe: &[bool]) -> bool {
    let is_null = |i: usize| Row(key).is_null(Slot::new(i, null_safe.len()));
    null_safe.iter().enumerate().any(|(i, safe)| !safe && is_null(i))
}
