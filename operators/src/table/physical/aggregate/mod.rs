//! Aggregation: hash aggregation, session windows, sliding windows, and partial aggregation before
//! an exchange.

pub(in crate::table::physical) mod hash_aggregate;
pub(in crate::table::physical) mod partial_aggregate;
pub(in crate::table::physical) mod session_window;
pub(in crate::table::physical) mod sliding_window;
