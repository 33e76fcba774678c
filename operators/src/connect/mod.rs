//! Connectors: the sources that rows come from and the sinks that they go to.
//!
//! | source | replayable |
//! |---|---|
//! | [`mod@file`] | yes |
//! | [`mod@socket`] | no; with `durable` yes |
//! | [`rate`], [`rate::micro_batch`] | yes |
//! | [`mod@capture`] | yes |
//! | [`memory`] | within its process |
//! | `kafka` (feature `kafka`) | yes |
//!
//! | sink | guarantee with a checkpoint and replayable sources |
//! |---|---|
//! | [`mod@file`] | exactly once |
//! | [`console`], [`memory`], [`foreach`], [`noop`](foreach::Noop) | at least once |
//! | [`socket::sink`] | at least once, to a peer that stays connected |
//! | `kafka` (feature `kafka`) | at least once; exactly once with `transactional` |

pub mod bad_records;
pub mod capture;
#[cfg(test)]
mod collected_rows;
#[cfg(feature = "columnar")]
pub mod columnar;
pub mod console;
pub mod file;
pub mod foreach;
pub mod format_settings;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod line_format;
pub mod memory;
pub mod options;
pub mod rate;
pub mod socket;
pub mod source_counters;
pub mod source_report;
