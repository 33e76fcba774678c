//! Lock-free queues and wake-ups between threads, checked with loom.

pub mod mpsc;
pub(crate) mod primitives;
pub mod ring;
pub mod waker;
