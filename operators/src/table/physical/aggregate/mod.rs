//! TODO: one paragraph.

pub(in crate::table::physical) mod hash_aggregate;
pub(in crate::table::physical) mod partial_aggregate;
pub(in crate::table::physical) mod session_window;
pub(in crate::table::physical) mod sliding_window;
