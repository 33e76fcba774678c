//! Epochs: the driver that starts, ends and commits them, and event time over epochs.

pub mod driver;
pub mod event_time;
