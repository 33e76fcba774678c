//! Kafka: a source for streams and batch queries, and a sink. The options, the columns and the
//! offsets in checkpoints are Spark's; the client is librdkafka.

mod batch_delay;
mod client;
mod cluster;
mod consumer;
mod deliveries;
mod hanging_transactions;
mod offsets;
pub mod options;
mod partition;
pub mod probe;
mod records;
mod requests;
pub mod sink;
pub mod source;
mod topic_ids;
pub mod topic_progress;
pub mod transactions;

pub use records::schema;
