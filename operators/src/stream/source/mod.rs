//! Sources of typed streams inside the process.

pub(in crate::stream) mod batch_buffer;
#[cfg(feature = "sql")]
pub(in crate::stream) mod capture;
pub(in crate::stream) mod iterator;
pub(in crate::stream) mod recipe;
