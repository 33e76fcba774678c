//! The operators of typed streams.

pub(in crate::stream) mod aggregate;
pub(in crate::stream) mod combine;
pub(in crate::stream) mod process;
pub(in crate::stream) mod stateless;
