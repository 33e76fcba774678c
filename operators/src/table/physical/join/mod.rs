//! Joins: of a stream's rows with a table, and of two streams.
//!
//! ```text
//! left  ▸ SideOutbox ═rings by key═▶ ┐
//!                                    ├ StreamJoin ×N ═rings═▶ …
//! right ▸ SideOutbox ═rings by key═▶ ┘
//! ```
//!
//! | module | noun |
//! |---|---|
//! | [`table_lookup`] | a stream joined with the rows of a table |
//! | [`table_refresh`] | a table that changes while it is joined |
//! | [`closest_row`] | the closest row of a table, for ASOF joins |
//! | [`condition`] | a join condition, taken apart |
//! | [`bounds`] | the range between two event times, and the state watermarks that follow |
//! | [`placement`] | which joins of streams can be answered |
//! | [`pushdown`] | conditions that go into the streams of a join |
//! | [`side`] | the sides, and their rows on the way to an instance |
//! | [`rows`] | the buffered rows, in slabs |
//! | [`run`](crate::state::ordered_run) | the rows of one key and side, by time |
//! | [`keys`] | the key table of both sides |
//! | [`expiry`](crate::state::expiry_lanes) | the rows of a side by the time at which they expire |
//! | [`output`] | the rows that a join gives |
//! | [`probe`] | a row's search for its matches |
//! | [`buffer`] | the buffered rows of an instance, and their entries in a checkpoint |
//! | [`state`] | what an entry of a checkpoint says, as text |
//! | [`stage`] | the stage of one instance |
//! | [`asof`] | the same of an ASOF join |

mod asof;
mod bounds;
mod buffer;
mod closest_row;
mod condition;
mod keys;
mod output;
pub(in crate::table) mod placement;
mod probe;
pub(in crate::table) mod pushdown;
mod rows;
mod side;
mod stage;
mod state;
mod table_lookup;
mod table_refresh;

use crate::state::{expiry_lanes as expiry, ordered_run as run};
pub(crate) use crate::table::physical::join::table_lookup::too_many;
pub(super) use crate::table::physical::join::table_lookup::{TableJoin, TableJoinParts};
pub(super) use asof::{AsofJoin, Results};
pub(super) use condition::{JoinCondition, JoinTime, describe_join, watermark_lag_us};
pub(super) use side::{LateRowOutput, SideOutbox, SidedRow};
pub(super) use stage::{Config, SideConfig, StreamJoin};
pub use state::show_join_row;
