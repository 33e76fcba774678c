//! TODO: one paragraph.

pub mod driver;
pub mod event_time;
