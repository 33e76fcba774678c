//! Apache Parquet, by the crate `parquet`.

mod claims;
mod notes;
pub mod options;
mod projection;
pub mod read;
mod rebase;
mod scalar;
mod shape;
pub mod write;
