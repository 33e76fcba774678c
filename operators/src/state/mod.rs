//! Data structures of stateful operators, shared by typed streams and tables: the key table, expiry
//! queues, and pre-aggregation before an exchange.

pub(crate) mod bit_set;
pub(crate) mod byte_slab;
pub(crate) mod expiry_lanes;
pub(crate) mod expiry_queue;
pub(crate) mod hash_index;
pub(crate) mod key_bytes;
pub(crate) mod key_table;
pub(crate) mod keyed_runs;
pub(crate) mod link_table;
pub(crate) mod ordered_run;
pub(crate) mod preaggregation;
pub(crate) mod record_slab;
pub(crate) mod slot_allocator;
pub(crate) mod slot_stack;
pub(crate) mod state_limit;
