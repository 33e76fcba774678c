//! Latency from ingest to sink, why the slowest records were slow, and metrics of operators.

pub mod latency;
pub mod operator_state;
pub mod stall;
