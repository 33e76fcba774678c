//! Apache ORC, by the crate `orc-rust`.

pub mod read;
pub mod write;
