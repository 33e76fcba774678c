//! Apache Parquet, by the crate `parquet`.

mod claims;
pub mod read;
pub mod write;
