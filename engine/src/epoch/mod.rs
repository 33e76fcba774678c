//! Epochs: the driver that starts, ends and commits them, and event time over epochs.

pub mod committed_epoch;
pub mod driver;
pub mod event_time;
pub mod idle_timeout;
pub(crate) mod open_sources;
pub mod phase;
pub mod protocol;
pub mod sink_log;
pub mod source_offsets;
pub mod source_partitions;
pub mod trigger;
pub mod watermark_policy;
