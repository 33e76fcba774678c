//! TODO: one paragraph.

pub mod latency;
pub mod stall;
