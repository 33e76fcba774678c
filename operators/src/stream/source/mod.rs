//! Sources of typed streams inside the process.

pub(in crate::stream) mod batch_buffer;
pub(in crate::stream) mod iterator;
pub(in crate::stream) mod recipe;
