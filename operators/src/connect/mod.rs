//! Connectors: where rows come from and where they go.
//!
//! | source | replayable |
//! |---|---|
//! | [`file_source`] | yes |
//! | [`socket_source`] | no |
//! | [`rate`], [`rate_micro_batch`] | yes |
//! | [`memory`] | within its process |
//!
//! | sink | guarantee |
//! |---|---|
//! | [`file_sink`] | exactly once |
//! | [`console`], [`socket_sink`], [`memory`], [`foreach`], [`noop`](foreach::Noop) | at least once |

pub mod bad_records;
pub mod console;
pub mod decode;
pub mod file_log;
pub mod file_sink;
pub mod file_source;
pub mod foreach;
pub mod format;
pub mod memory;
pub mod options;
pub mod rate;
pub mod rate_micro_batch;
pub mod socket_sink;
pub mod socket_source;
