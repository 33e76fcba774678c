//! TODO: one paragraph.

pub(crate) mod expiry_queue;
pub(crate) mod hash_index;
pub(crate) mod key_table;
pub(crate) mod preaggregation;
pub(crate) mod slot_stack;
