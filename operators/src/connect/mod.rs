//! Connectors: where rows come from and where they go.
//!
//! | source | replayable |
//! |---|---|
//! | [`socket_source`] | no |
//! | [`rate`] | yes |
//! | [`memory`] | no |
//!
//! | sink | guarantee |
//! |---|---|
//! | [`console`], [`socket_sink`], [`memory`], [`foreach`], [`noop`](foreach::Noop) | at least once |

pub mod bad_records;
pub mod console;
pub mod foreach;
pub mod format;
pub mod memory;
pub mod options;
pub mod rate;
pub mod socket_sink;
pub mod socket_source;
