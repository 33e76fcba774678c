//! Arbitrary state over the rows of a table, by key: `transform_with_state` and
//! `flat_map_groups_with_state`, as in Spark.
//!
//! ```text
//! rows ▸ KeyOutbox ═rings by key═▶ GroupRows ▸ Process ▸ EmitRows ×N ═rings═▶ …
//! ```
//!
//! | module | content |
//! |---|---|
//! | `processor` | a processor of rows, and its handle for state and timers |
//! | `group_state` | the state of `flat_map_groups_with_state`, as a processor of rows |
//! | `node` | the operator in a logical plan |
//!
//! State, timers and checkpoints are implemented by the processors of typed streams.
//!
//! *Batches.* In micro-batch mode the processor is called once per key that has rows in the batch,
//! with all rows of that key. Then the processor is called for the due timers, in time order. In
//! continuous mode the processor is called for each row immediately, and timers fire when they are
//! due.

pub(crate) mod group_state;
pub(crate) mod node;
pub(crate) mod processor;

pub use group_state::{GroupState, GroupStateTimeout};
pub use node::StateOutput;
pub use processor::{
    InputRows, StateDeclarations, StateError, StatefulProcessor, StatefulProcessorHandle, TimeMode,
};
