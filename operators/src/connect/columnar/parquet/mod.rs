//! Apache Parquet, by the crate `parquet`.

mod claims;
mod footer;
mod notes;
pub mod options;
mod projection;
pub mod read;
mod rebase;
mod scalar;
mod shape;
mod thrift;
pub mod write;

pub use options::ReadOptions;
pub use rebase::Mode;
pub use shape::Inference;
