//! Collections whose operations have bounded cost, and which give back the memory of a burst.

pub mod high_water;
pub mod linear_hash_table;
