//! Channels for embedding: a service pushes records into a query and receives results, in the same
//! process.
//!
//! *Inputs.* The first [`Input`] of a channel has a ring of its own. Its clones share a
//! multi-producer queue, which the first clone creates, so a channel with one input does not pay
//! for it. The source takes from both in turn.
//!
//! *Outputs.* A ring leads from the sink to the [`Output`]. When the ring is full, the sink waits,
//! and so does the whole query. A query that is stopped waits for no reader: results that do not
//! fit into the ring go to an overflow list (`query_end`).
//!
//! *Waiting.* A thread that waits for free slots or results spins briefly and then sleeps; a task
//! registers its waker. The fast paths only check a flag.
//!
//! *Limits.* Not replayable: records that were pushed but not committed when the process dies are
//! lost.

#[cfg(feature = "futures")]
mod futures;
mod input;
mod output;
mod producer_wait;
mod query_end;
pub(super) mod recipe;
mod sink;
mod source;

pub(super) use crate::stream::channel::query_end::{QueryEnd, QueryEndNotifier, UnreadOutputWatch};
#[cfg(feature = "futures")]
pub use futures::{InputSink, OutputStream};
pub use input::{Input, PushError};
pub use output::{Output, RecvError, RecvTimeoutError};
pub use sink::ChannelSink;
pub(super) use sink::{OutputParts, output};
pub(super) use source::{ChannelSource, Receiver, channel};

/// Capacity of the ring and of the queue of a channel, in records, and of an output, in results.
const CAPACITY: usize = 4096;
