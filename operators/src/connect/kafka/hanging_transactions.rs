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

/// The partitions that have an open transaction of any producer: readers with `read_committed` end
/// before their last record. `topic` is the topic to look at; if `None`, all topics that are not
/// Kafka's own. Makes two requests per partition.
pub fn partitions_with_open_transaction(
    client: &Client,
    topic: Option<&str>,
) -> Result<Vec<(String, i32)>, EngineError> {
    let failed = |error: KafkaError| client.failed("look for hanging transactions", &error);
    let start = |isolation: &str| -> Result<BaseConsumer, EngineError> {
        let mut config = client.connection();
        config.set("isolation.level", isolation);
        config.create().map_err(failed)
    };
    let (committed, all) = (start("read_committed")?, start("read_uncommitted")?);
    let metadata =
        retried(client.timeout, |left| all.fetch_metadata(topic, left)).map_err(failed)?;
    let mut found = Vec::new();
    for listed in metadata.topics().iter().filter(|topic| !topic.name().starts_with("__")) {
        for partition in listed.partitions() {
            let end = |consumer: &BaseConsumer| {
                let (name, id) = (listed.name(), partition.id());
                retried(client.timeout, |left| consumer.fetch_watermarks(name, id, left))
                    .map(|(_, end)| end)
                    .map_err(failed)
            };
            // The end for `read_committed` is asked for first: records that are written between the
            // two requests only cause a superfluous find.
            if end(&committed)? < end(&all)? {
                found.push((listed.name().to_string(), partition.id()));
            }
        }
    }
    Ok(found)
}
