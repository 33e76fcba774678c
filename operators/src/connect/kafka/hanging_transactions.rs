//! Finds partitions with a hanging transaction: one whose end a broker has lost.
//!
//! Starting a producer aborts the open transaction of its earlier run. If the broker is killed
//! meanwhile, it may take the abort for complete after its restart without having written it to the
//! partitions (Kafka 4.3 logs "these partitions are likely deleted already"). Readers with
//! `read_committed` then wait at the first record of that transaction. The next transaction that
//! the producer commits in such a partition would commit these records too, and so repeat rows;
//! one that it aborts ends them.

use crate::connect::kafka::client::Client;
use crate::connect::kafka::transactions::retried;
use millstream_engine::error::EngineError;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;

/// The partitions of a topic that have an open transaction of any producer: readers with
/// `read_committed` end before their last record. Makes two requests per partition.
pub fn partitions_with_open_transaction(
    client: &Client,
    topic: &str,
) -> Result<Vec<i32>, EngineError> {
    let failed = |error: KafkaError| client.failed("look for hanging transactions", &error);
    let start = |isolation: &str| -> Result<BaseConsumer, EngineError> {
        let mut config = client.connection();
        config.set("isolation.level", isolation);
        config.create().map_err(failed)
    };
    let (committed, all) = (start("read_committed")?, start("read_uncommitted")?);
    let metadata =
        retried(client.timeout, |left| all.fetch_metadata(Some(topic), left)).map_err(failed)?;
    let mut found = Vec::new();
    for partition in metadata.topics().iter().flat_map(|listed| listed.partitions()) {
        let end = |consumer: &BaseConsumer| {
            let ends = |left| consumer.fetch_watermarks(topic, partition.id(), left);
            retried(client.timeout, ends).map(|(_, end)| end).map_err(failed)
        };
        // The end for `read_committed` is asked for first: records that are written between the
        // two requests only cause a superfluous find.
        if end(&committed)? < end(&all)? {
            found.push(partition.id());
        }
    }
    Ok(found)
}
