//! Packet captures: from the bytes of a pcap or pcapng file to the events of connections.
//!
//! ```text
//! file ─▶ records ─▶ link ─▶ ip ─▶ fragments ─▶ connections ─▶ half (a direction) ─▶ EventSink
//! ```
//! Each step takes slices of the record that was read and passes slices on; bytes are copied only
//! where they must be kept: out-of-order segments, fragments, and a bounded history for telling
//! whether retransmitted bytes are the same. Nothing here trusts a length that a file states, and
//! all memory is bounded whatever the file holds.

mod connections;
mod counts;
mod filter;
mod fragments;
mod half;
mod history;
mod importer;
mod ip;
mod link;
mod ng;
mod output;
mod records;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use counts::Counts;
use counts::Skip;
pub(crate) use filter::Filter;
pub(crate) use importer::{Importer, Progress};
pub(crate) use output::{Ended, EventSink, GapPolicy};
pub(crate) use records::FileDamage;

/// Bytes of a packet: those that were captured, and how many it had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'p> {
    /// The captured bytes: a prefix.
    pub data: &'p [u8],
    /// Bytes on the wire; never less than were captured.
    pub length: usize,
}

impl<'p> Part<'p> {
    /// The first bytes, all of which must be there.
    fn head(&self, bytes: usize) -> Result<&'p [u8], Skip> {
        if self.length < bytes {
            return Err(Skip::BadLength);
        }
        self.data.get(..bytes).ok_or(Skip::CutHeader)
    }

    /// What follows the first bytes.
    fn after(&self, bytes: usize) -> Self {
        Self {
            data: self.data.get(bytes..).unwrap_or(&[]),
            length: self.length.saturating_sub(bytes),
        }
    }

    /// The first bytes, as far as they were captured.
    fn first(&self, bytes: usize) -> Self {
        let length = bytes.min(self.length);
        Self { data: &self.data[..length.min(self.data.len())], length }
    }
}

/// The big-endian number of 16 bits at an offset; 0 behind the end.
fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// The big-endian number of 32 bits at an offset; 0 behind the end.
fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}
