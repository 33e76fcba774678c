//! TODO: one paragraph.

pub(in crate::stream) mod batch_buffer;
pub(in crate::stream) mod iterator;
