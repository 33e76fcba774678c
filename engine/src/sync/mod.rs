//! TODO: one paragraph.

pub mod mpsc;
pub(crate) mod primitives;
pub mod ring;
pub mod waker;
