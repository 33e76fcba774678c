//! The stages that declare an event time. Typed streams and tables share them.

pub(crate) mod future_skew;
pub(crate) mod pending_watermark;
pub(crate) mod watermark;
pub(crate) mod watermark_queue;
