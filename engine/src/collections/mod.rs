//! Collections whose operations have bounded cost, and which free the memory of a burst.

pub mod high_water;
pub mod linear_hash_table;
