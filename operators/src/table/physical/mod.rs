//! Physical operators: the stages through which rows are pushed, and the lowering of a plan to
//! chains of stages.
//!
//! Without joins and unions, with parallelism 1 and a source of one partition, a query is one chain
//! on one thread. With a higher parallelism, rows are exchanged by key before an aggregation, and
//! its results are gathered:
//!
//! ```text
//! source ▸ … ▸ partial ×M ═rings═▶ aggregate ×N ═rings═▶ … ▸ sink
//! ```
//!
//! M is the number of partitions of the input, and N is the parallelism. Not every aggregation has
//! partial aggregates, and some have a single instance, for example one without keys.

mod accumulator;
pub(crate) mod aggregate;
pub(in crate::table) mod arbitrary_state;
mod deduplicate;
mod fan_out;
mod filter;
mod generate;
mod join;
mod late_row;
mod lower;
mod project;
mod row_exchange;
mod sort;
mod stages;
mod table_signal;
#[cfg(test)]
mod tests;
mod values_source;
mod window;

pub use crate::table::physical::late_row::{LateOutput, LateRow};
pub(in crate::table) use accumulator::value_of_no_rows;
pub use accumulator::{PartNumber, part_number, show_state};
pub(crate) use join::too_many;
pub(in crate::table) use join::{placement, pushdown};
pub use join::{show_join_row, show_join_sides, show_retention, unbounded_joins};
#[doc(hidden)]
pub use lower::BareJoin;
pub use lower::{PlacedChain, lower, state_operators};
pub use stages::{BoxChain, RowPush};
pub use table_signal::TableSignal;
