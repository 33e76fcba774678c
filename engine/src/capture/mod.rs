//! Captures: the bytes that crossed sockets, with timestamps, in files that can be searched by
//! time.
//!
//! One file format, described byte by byte in `docs/src/capture-format.md`, with two writers:
//!
//! - [`CaptureLog`]: a memory-mapped log of a durable source. Each event outlives the process as
//!   soon as it is appended.
//! - [`CaptureWriter`]: a buffered stream for recordings and imports, optionally compressed;
//!   [`Recording`] adds rotation by size and time.
//!
//! [`CaptureReader`] reads the files of both, and files of version 1. It does not need a footer. It
//! reports damaged parts of a file as [`Item::Damage`] and continues after them.

mod event_buffer;
mod format;
mod index;
mod log;
mod reader;
mod recording;
mod segment;
#[cfg(all(test, not(loom)))]
mod tests;
mod timeline;
mod writer;

pub use event_buffer::EventBuffer;
pub use format::{
    Clock, ConnectionInfo, Direction, Endpoint, FLAG_CUT, FLAG_MIDSTREAM, FLAG_MORE, FLAG_REPEATED,
    FileHeader, Gap, GapCause, Head, Ignored, IgnoredReason, Kind, MAX_EVENT_BYTES, MAX_PAYLOAD,
    Opener, Protocol, STRIDE_BYTES, Summary, conflict_bytes, conflict_payload,
};
pub use log::{CaptureLog, MAX_LOG_PAYLOAD, Replay, SEGMENT_BYTES, Tail};
pub use reader::{CaptureReader, Damage, Item, Place};
pub use recording::{Existing, Recording, Rotation, capture_files, existing_file};
pub use segment::{Content, Tear, Verdict, blocks, segments, verdict};
pub use timeline::Timeline;
pub use writer::{CaptureWriter, Unwritten, WriterOptions};
