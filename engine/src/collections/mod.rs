//! A hash table that grows in bounded steps, and buffers that free the memory of a burst.

pub mod high_water;
pub mod linear_hash_table;
pub mod prefetch;
