//! Captures: recording, import, inspection, export and replay of traffic.

mod delivery;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod import;
mod merge;
mod open_files;
pub(crate) mod output;
mod packet;
mod packets_out;
pub(crate) mod payload_time;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod show;
pub(crate) mod times;
