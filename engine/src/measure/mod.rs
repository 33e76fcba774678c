//! Latency from ingest to sink, and why the slowest records were slow.

pub mod latency;
pub mod operator_state;
pub mod stall;
