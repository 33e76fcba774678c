//! Arbitrary state over the rows of a table, by key: `transform_with_state` and
//! `flat_map_groups_with_state`, as in Spark.
//!
//! ```text
//! rows ▸ KeyOutbox ═rings by key═▶ GroupRows ▸ Process ▸ EmitRows ×N ═rings═▶ …
//! ```
//!
//! | module | noun |
//! |---|---|
//! | `processor` | a processor of rows, and what it can use |
//! | `group_state` | the state of `flat_map_groups_with_state`, as a processor of rows |
//! | `node` | the operator of a plan |
//!
//! State, timers and checkpoints are those of the processors of typed streams.
//!
//! *Batches.* In micro-batch mode a processor is called once for each key with rows in the batch,
//! with all of them, and then for the timers that are due, in time order. In continuous mode it is
//! called with each row at once, and timers fire when they are due.

pub(crate) mod group_state;
pub(crate) mod node;
pub(crate) mod processor;

pub use group_state::{GroupState, GroupStateTimeout};
pub use node::StateOutput;
pub use processor::{
    InputRows, StateDeclarations, StateError, StatefulProcessor, StatefulProcessorHandle, TimeMode,
};
