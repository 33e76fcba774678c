//! TODO: one paragraph.

pub(crate) mod future_skew;
pub(crate) mod watermark;
