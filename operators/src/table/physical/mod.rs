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
pub(crate) mod aggregate;
mod deduplicate;
mod fan_out;
mod join;
mod late_row;
mod lower;
mod sort;
mod stages;
#[cfg(test)]
mod tests;
mod values_source;

pub use crate::table::physical::late_row::{LateOutput, LateRow};
pub use accumulator::{PartNumber, part_number, show_state};
pub use join::show_join_row;
pub(crate) use join::too_many;
pub(in crate::table) use join::{placement, pushdown};
#[doc(hidden)]
pub use lower::BareJoin;
pub use lower::{PlacedChain, lower, state_operators};
pub use stages::{BoxChain, RowPush};
