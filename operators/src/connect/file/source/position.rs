//! The position of a file source in its log, as its offsets contain it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::connect::file::source) struct Position {
    pub log_offset: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub file: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub byte: u64,
    /// The number of emitted rows of the record at `byte`. Only a JSON array has several rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub row: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
pub(in crate::connect::file::source) fn is_zero(n: &u64) -> bool {
    *n == 0
}
