//! Apache Parquet, based on the crate `parquet`.

mod declared_sizes;
mod footer;
pub mod options;
mod projection;
pub mod read;
mod rebase;
mod scalar_column;
mod schema;
mod spark_schema;
mod thrift;
pub mod write;

pub use crate::connect::columnar::parquet::schema::Inference;
pub use options::ReadOptions;
pub use rebase::Mode;
