//! Joins: of a stream's rows with a table, and of two streams.
//!
//! ```text
//! left  ▸ SideOutbox ═rings by key═▶ ┐
//!                                    ├ StreamJoin ×N ═rings═▶ …
//! right ▸ SideOutbox ═rings by key═▶ ┘
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`table_lookup`] | the join of a stream with the rows of a table |
//! | [`table_index`] | the rows of a table and their index |
//! | [`table_refresh`] | reloading a table that changes while it is joined |
//! | [`closest_row`] | the closest row of a table, for ASOF joins |
//! | [`condition`] | decomposition of a join condition |
//! | [`bounds`] | the allowed range between two event times, and the resulting state watermarks |
//! | [`placement`] | which joins of streams are supported |
//! | [`missing_bound`] | why the rows of a side never expire, for errors |
//! | [`retention`] | how long each side keeps its rows, for `explain` |
//! | [`pushdown`] | moving conditions from a join to its inputs |
//! | [`side`] | the two sides, and the exchange of their rows by key |
//! | [`rows`] | storage of the buffered rows |
//! | [`run`](crate::state::ordered_run) | the rows of one key and side, ordered by time |
//! | [`keys`] | the key table of both sides |
//! | [`expiry`](crate::state::expiry_lanes) | the expiry queue of a side |
//! | [`output`] | the output rows of a join |
//! | [`probe`] | a row's search for its matches |
//! | [`buffer`] | the buffered rows of an instance, and their checkpoint entries |
//! | [`state_limit`] | pausing a side or failing when the buffered rows reach a limit |
//! | [`state`] | checkpoint entries as text, for `inspect` |
//! | [`stage`] | the stage of one instance |
//! | [`asof`] | the stage of one instance of an ASOF join of two streams |

mod asof;
mod bounds;
mod buffer;
mod closest_row;
mod condition;
mod keys;
mod missing_bound;
mod output;
pub(in crate::table) mod placement;
mod probe;
pub(in crate::table) mod pushdown;
mod retention;
mod rows;
mod side;
mod stage;
mod state;
mod state_limit;
mod table_index;
mod table_lookup;
mod table_refresh;

use crate::state::{expiry_lanes as expiry, ordered_run as run};
pub(crate) use crate::table::physical::join::table_lookup::too_many;
pub(super) use crate::table::physical::join::table_lookup::{TableJoin, TableJoinParts};
pub(super) use asof::{AsofJoin, Results};
pub(super) use condition::{JoinCondition, JoinTime, describe_join, is_of_join, watermark_lag_us};
pub(super) use retention::join_names;
pub use retention::{show_retention, unbounded_joins};
pub(super) use side::{JoinSide, SideOutbox, SidedRow};
pub(super) use stage::{Config, SideConfig, StreamJoin};
pub use state::{show_join_row, show_join_sides};
pub(super) use state_limit::{SideFlow, StateGuard};
