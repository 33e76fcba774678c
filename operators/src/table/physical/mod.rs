//! From plan to stages: the chain that rows are pushed through.
//!
//! With parallelism 1 a query is one chain on one thread. With more, rows are keyed and exchanged
//! before each aggregation and gathered behind it:
//!
//! ```text
//! source ▸ … ▸ partial ═rings═▶ aggregate × N ═rings═▶ … ▸ sink
//! ```

mod accumulator;
mod aggregate;
mod deduplicate;
#[cfg(test)]
mod harness;
mod join;
mod keyed;
mod late;
mod lower;
mod order;
mod session;
mod sliding;
mod stages;
mod values;

pub use accumulator::show_state;
pub(crate) use join::too_many;
pub use late::{LateOutput, LateRow};
pub use lower::{lower, state_operators};
pub use stages::{BoxChain, RowPush};
