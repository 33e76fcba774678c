//! Typed streams: operators that fuse into one monomorphised chain per tasklet.
//!
//! ```
//! use millstream::stream::{Count, Flow};
//! use millstream::{Config, WaitProfile};
//!
//! let flow = Flow::new("words");
//! let (mut input, words) = flow.channel::<&'static str>();
//! let (sink, mut output) = flow.output();
//! words.key_by(|word| *word).aggregate(Count).sink(sink);
//! let query = flow.start(Config { wait: WaitProfile::Park, ..Config::default() })?;
//!
//! input.push("a")?;
//! input.push("b")?;
//! input.push("a")?;
//! query.process_all_available()?;
//! let mut seen = Vec::new();
//! while let Some(update) = output.try_recv() {
//!     seen.push(update);
//! }
//! assert_eq!(seen, [("a", 1), ("b", 1), ("a", 2)]);
//! query.stop()?;
//! # Ok::<(), millstream::EngineError>(())
//! ```
//!
//! *Fusion.* A [`Stream`] does not contain stages. It is a recipe that can be combined with a
//! following chain of type `D` ([`Recipe::build`]). So `map(f).filter(g).sink(h)` becomes one value
//! `Map<F, Filter<G, Sink<H>>>`, which the compiler inlines.
//!
//! *Limits.* Keyed state must fit in memory. The records of one input with the same key are
//! processed in their order.

mod channel;
mod flow;
mod keyed_exchange;
mod keyed_input;
mod keyed_state;
mod keyed_stream;
pub(crate) mod operator;
mod processor_state;
mod query;
mod recipe;
mod sink;
pub(crate) mod source;
mod typed_stream;

pub use crate::stream::keyed_input::Either;
#[doc(hidden)]
pub use crate::stream::keyed_input::{AsLeft, KeyedInput, OneInput, TwoInputs};
pub use crate::stream::keyed_state::{Checkpointed, InMemory, StateBackend};
#[doc(hidden)]
pub use crate::stream::keyed_state::{CheckpointedState, KeyedState, Plain};
pub use crate::stream::operator::aggregate::{Aggregate, Count, Max, Min, Reduce, Sum};
pub use crate::stream::operator::combine::Combine;
pub use crate::stream::operator::interval_join::{BoundedIntervalJoin, IntervalJoin, TimeOffset};
pub use crate::stream::operator::process::{Context, Processor, Timer};
pub use crate::stream::operator::stateless::Call;
pub use crate::stream::operator::two_input_processor::{ConnectedStreams, TwoInputProcessor};
#[doc(hidden)]
pub use crate::stream::operator::window::{
    AlignedWindows, Fold, FoldResult, FoldValue, Merged, Unmerged,
};
pub use crate::stream::operator::window::{
    CoGroup, ConnectedWindows, FoldWindows, Sessions, Sliding, Tumbling, Window, WindowResult,
    WindowResults, WindowedStream, Windows,
};
#[cfg(feature = "sql")]
pub(crate) use crate::stream::processor_state::write as write_kept;
pub use crate::stream::processor_state::{Kept, ListState, MapState, States, Ttl, ValueState};
pub use channel::{ChannelSink, Input, Output, PushError, RecvError, RecvTimeoutError};
#[cfg(feature = "futures")]
pub use channel::{InputSink, OutputStream};
pub use flow::Flow;
pub use keyed_stream::KeyedStream;
pub use millstream_engine::env::SimEnv;
pub use query::Query;
pub use recipe::{CheckpointManifest, Recipe};
pub use sink::Sink;
pub use typed_stream::Stream;
