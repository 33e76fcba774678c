//! Packet captures: from the bytes of a pcap or pcapng file to the events of connections.
//!
//! ```text
//! file ─▶ records ─▶ link ─▶ ip ─▶ fragments ─▶ connections ─▶ half (a direction) ─▶ EventSink
//! ```
//! The steps pass slices of the current record. Bytes are copied only if they must be kept:
//! out-of-order segments, fragments, and a bounded history to compare retransmitted bytes with.
//! Lengths in a file are never trusted, and memory is bounded whatever the file contains.

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

/// A part of a packet: its captured bytes, and its length on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'p> {
    /// The captured bytes, which are a prefix.
    pub data: &'p [u8],
    /// Length on the wire; never less than the number of captured bytes.
    pub length: usize,
}

impl<'p> Part<'p> {
    /// The first bytes; an error if they were not all captured.
    fn head(&self, bytes: usize) -> Result<&'p [u8], Skip> {
        if self.length < bytes {
            return Err(Skip::BadLength);
        }
        self.data.get(..bytes).ok_or(Skip::CutHeader)
    }

    /// The part after the first bytes.
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

/// The big-endian 16-bit number at an offset; 0 beyond the end.
fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// The big-endian 32-bit number at an offset; 0 beyond the end.
fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}
