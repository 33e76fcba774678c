//! Kafka: a source for streams and batch queries, and a sink. The options, the columns and the
//! offsets in checkpoints are Spark's; the client is librdkafka.

mod client;
mod cluster;
mod consumer;
mod offsets;
pub mod options;
mod records;
pub mod sink;
pub mod source;

pub use records::schema;
