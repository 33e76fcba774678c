//! Collections whose operations have a bounded cost, and which give back what a burst needed.

pub mod high_water;
pub mod linear_hash_table;
