//! The changes of keyed state that an operator instance hands to the checkpoint at a marker.
//!
//! A change is an entry in a chunk of memory: hash, key length, value length, capacity for the
//! value, key, value. The state log writes the entries; the driver reads them and returns the
//! chunks.

use crate::measure::operator_state::JoinState;
use crossbeam_channel::{Receiver, Sender};

/// Bytes of a chunk. A longer entry has a chunk of its own.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Maximum number of free chunks kept for reuse.
pub(crate) const SPARE_CHUNKS: usize = 256;

/// Entry header: hash, key length, value length, capacity for the value.
pub(crate) const HEAD: usize = 8 + 4 + 4 + 4;

/// The value length of a deleted key.
pub(crate) const TOMBSTONE: u32 = u32::MAX;

/// The changes of an operator instance in an epoch.
#[derive(Debug)]
pub struct StateChanges {
    /// The number of the operator.
    pub operator: usize,
    /// Number of state rows in this instance. Depending on the operator these are keys, windows,
    /// buffered rows or state entries.
    pub rows: u64,
    /// Number of state rows written in this epoch. A row that is written several times counts once,
    /// unless it is deleted in between. A deletion does not count.
    pub updated: u64,
    /// Number of state rows removed in this epoch, for example because the watermark passed them.
    pub removed: u64,
    /// Number of late records in this epoch. A record that is late for several windows may be
    /// counted for each.
    pub late: u64,
    /// Approximate memory of the instance's state, in bytes.
    pub memory_bytes: u64,
    /// Metrics of the inputs, if the operator is a join.
    pub join: Option<JoinState>,
    pub(crate) chunks: Vec<Vec<u8>>,
    pub(crate) back: Sender<Vec<u8>>,
    /// The receiving end of `back`: chunks to reuse.
    pub(crate) spare: Receiver<Vec<u8>>,
    /// Maximum number of spare chunks worth keeping.
    pub(crate) keep: usize,
}

impl StateChanges {
    /// Memory of the chunks of these changes, and of the spare chunks that are kept at most, in
    /// bytes.
    pub(crate) fn chunk_bytes(&self) -> (u64, u64) {
        let taken = self.chunks.iter().map(|chunk| chunk.capacity() as u64).sum();
        (taken, (self.keep.min(SPARE_CHUNKS) * CHUNK_BYTES) as u64)
    }

    /// Calls `apply` with hash, key and value of every change, oldest first, then returns the
    /// chunks for reuse.
    pub fn drain(self, mut apply: impl FnMut(u64, &[u8], Option<&[u8]>)) {
        for mut chunk in self.chunks {
            let mut rest = chunk.as_slice();
            while let Some((head, body)) = rest.split_at_checked(HEAD) {
                let half = |at: usize| {
                    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
                };
                let hash = u64::from(half(0)) | u64::from(half(4)) << 32;
                let (key, length, room) = (half(8) as usize, half(12), half(16) as usize);
                let value = if length == TOMBSTONE {
                    None
                } else {
                    Some(&body[key..key + length as usize])
                };
                apply(hash, &body[..key], value);
                rest = &body[key + room..];
            }
            chunk.clear();
            // The memory of a chunk for one long entry is freed. The other chunks are returned,
            // unless the operator has enough spare chunks.
            if chunk.capacity() <= CHUNK_BYTES && self.spare.len() < self.keep {
                drop(self.back.try_send(chunk));
            }
        }
        while self.spare.len() > self.keep && self.spare.try_recv().is_ok() {}
    }
}
