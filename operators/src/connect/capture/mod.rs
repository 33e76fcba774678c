//! The capture source: replays recorded socket traffic as if it came from the sockets.
//!
//! *Records.* Each connection and direction is split into records as the [socket
//! source](crate::connect::socket) splits it: a stream into lines, a datagram into one record or
//! into lines. A record that is too long, not UTF-8 or incomplete is counted and rejected; the last
//! line of a closed connection is incomplete only with `lastLine` `reject`.
//!
//! *Times.* A record has the time of the event that completed it. With `speed` it is emitted at
//! `start + (t - t0) / speed`, where t0 is the recorded time at which the schedule starts. Latency
//! is measured from that intended time. With `speed 'max'`, the default, records are emitted
//! without waiting.
//!
//! *Offsets* name a record exactly (see [`offset`]), so that a restart continues with the next one,
//! in both modes. Records and their order depend on the file and the options alone.
//!
//! *Limits.* One tasklet reads a recording. A file that grows is read up to the length that it has
//! when it is opened.

pub mod config;
pub(in crate::connect::capture) mod framer;
pub(in crate::connect::capture) mod input;
pub mod offset;
pub mod pace;
pub mod source;
pub(in crate::connect::capture) mod staged;
mod stream;
#[cfg(test)]
mod tests;

pub use stream::{Capture, CapturedRecord};
