//! The operators of typed streams.

pub(in crate::stream) mod aggregate;
pub(in crate::stream) mod aggregate_recipe;
pub(in crate::stream) mod combine;
mod event_time;
pub(in crate::stream) mod gather;
pub(in crate::stream) mod interval_join;
pub(crate) mod process;
pub(in crate::stream) mod processor_recipe;
pub(in crate::stream) mod sided_records;
pub(in crate::stream) mod stateless;
pub(in crate::stream) mod stateless_recipe;
pub(in crate::stream) mod stepped;
mod timer_queues;
pub(in crate::stream) mod two_input_processor;
pub(in crate::stream) mod union;
pub(in crate::stream) mod watermark;
pub(in crate::stream) mod window;
