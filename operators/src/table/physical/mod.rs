//! From plan to stages: the chain that rows are pushed through.
//!
//! With parallelism 1 and sources in one part a query is one chain on one thread. With more, rows are
//! keyed and exchanged before each aggregation and gathered behind it:
//!
//! ```text
//! source ▸ … ▸ partial ×M ═rings═▶ aggregate ×N ═rings═▶ … ▸ sink
//! ```
//!
//! M is the source's `numPartitions`, N the parallelism.

mod accumulator;
mod aggregate;
mod deduplicate;
mod fork;
#[cfg(test)]
mod harness;
mod join;
mod late;
mod lower;
mod order;
mod partial;
mod session;
mod sliding;
mod stages;
mod values;

pub use accumulator::{PartNumber, part_number, show_state};
pub use join::show_join_row;
pub(crate) use join::too_many;
pub(in crate::table) use join::{placement, pushdown};
pub use late::{LateOutput, LateRow};
pub use lower::{Placed, lower, state_operators};
pub use stages::{BoxChain, RowPush};
