//! A limit of the memory of an operator's state.

/// The share of one of `instances` instances in a limit, in bytes. The instances share it equally.
pub(crate) fn share(bytes: u64, instances: usize) -> u64 {
    (bytes / instances.max(1) as u64).max(1)
}
