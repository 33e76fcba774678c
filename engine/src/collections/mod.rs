//! TODO: one paragraph.

pub mod linear_hash_table;
