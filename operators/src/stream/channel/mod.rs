//! The embedding edge: a service pushes records into a query and gets results back, in process.
//!
//! *Inputs.* The first [`Input`] of a channel has a ring of its own. Its clones share a queue of
//! many producers, which the first of them makes; a channel with one input does not pay for it. The
//! source takes from both in turn.
//!
//! *Outputs.* A ring from the sink to the [`Output`]. When it is full the sink waits, and with it
//! the query. A query that is stopped waits for no reader: what does not fit into the ring goes to
//! a list behind it ([`ending`]).
//!
//! *Waiting.* Whoever waits for room or for results spins for a moment and then sleeps, or leaves
//! the waker of its task. The fast paths only look at a flag.
//!
//! *Limits.* Not replayable: what was pushed but not committed when the process dies is gone.

mod ending;
#[cfg(feature = "futures")]
mod futures;
mod input;
mod output;
mod sink;
mod source;
mod waiting;

pub(super) use ending::{Ending, EndsOutputs, Unread};
#[cfg(feature = "futures")]
pub use futures::{InputSink, OutputStream};
pub use input::{Input, PushError};
pub use output::{Output, RecvError, RecvTimeoutError};
pub use sink::ChannelSink;
pub(super) use sink::{OutputParts, output};
pub(super) use source::{ChannelSource, Receiver, channel};

/// Records that a channel holds, and results that an output holds.
const CAPACITY: usize = 4096;
