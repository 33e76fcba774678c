//! Encoded events on their way to a writer in another thread.
//!
//! The thread that records copies the bytes once, into the blocks of the file's format. In an
//! uncompressed recording without rotation, the thread that writes adds the CRCs and writes the
//! blocks from this buffer (see
//! [`CaptureWriter::append_buffer`](super::CaptureWriter::append_buffer)).

use super::format::{
    HEAD_BYTES, Head, MAX_EVENT_BYTES, block_bytes, decode_head, push_unsealed, u32_at,
};

/// A buffer of events.
#[derive(Debug, Default)]
pub struct EventBuffer {
    /// Blocks without their CRC.
    pub(super) blocks: Vec<u8>,
    events: usize,
}

impl EventBuffer {
    /// Appends an event, whose payload may have at most [`MAX_EVENT_BYTES`]; a longer one is cut.
    pub fn push(&mut self, head: &Head, payload: &[u8]) {
        debug_assert!(head.kind.is_event() && payload.len() <= MAX_EVENT_BYTES);
        let payload = &payload[..payload.len().min(MAX_EVENT_BYTES)];
        push_unsealed(head, payload, &mut self.blocks);
        self.events += 1;
    }

    /// Appends the events of another buffer.
    pub fn extend(&mut self, other: &Self) {
        self.blocks.extend_from_slice(&other.blocks);
        self.events += other.events;
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.events
    }

    /// Size of the encoded events, in bytes.
    pub fn bytes(&self) -> usize {
        self.blocks.len()
    }

    /// Removes all events and keeps the memory.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.events = 0;
    }

    /// The events and their payloads.
    pub fn iter(&self) -> impl Iterator<Item = (Head, &[u8])> {
        let mut rest = &self.blocks[..];
        std::iter::from_fn(move || {
            let length = payload_length(rest)?;
            let head = decode_head(rest, 2)?;
            let payload = &rest[HEAD_BYTES..HEAD_BYTES + length];
            rest = &rest[block_bytes(length)..];
            Some((head, payload))
        })
    }
}

/// The length of the payload of the first block; `None` if there is no block.
pub(super) fn payload_length(blocks: &[u8]) -> Option<usize> {
    if blocks.is_empty() { None } else { (u32_at(blocks, 0) as usize).checked_sub(1) }
}
