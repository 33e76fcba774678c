//! Finds partitions with a hanging transaction: one whose end a broker has lost.
//!
//! Starting a producer aborts the open transaction of its earlier run. If the broker is killed
//! meanwhile, it may take the abort for complete after its restart without having written it to the
//! partitions (Kafka 4.3 logs "these partitions are likely deleted already"). Readers with
//! `read_committed` then wait at the first record of that transaction. The next transaction that
//! the producer commits in such a partition would commit these records too, and so repeat rows;
//! one that it aborts ends them.

use crate::connect::kafka::client::Client;
use crate::connect::kafka::cluster::Cluster;
use crate::connect::kafka::offsets::LATEST;
use crate::connect::kafka::options::Subscription;
use millstream_engine::error::EngineError;
use std::sync::Arc;

/// The partitions of a topic that have an open transaction of any producer: readers with
/// `read_committed` end before their last record. None if there is no such topic.
pub fn partitions_with_open_transaction(
    client: &Client,
    topic: &str,
) -> Result<Vec<i32>, EngineError> {
    let start = |isolation: &str| -> Result<Cluster, EngineError> {
        let mut config = client.connection();
        config.set("isolation.level", isolation);
        let consumer = config.create();
        let failed = |error| client.failed("look for hanging transactions", &error);
        Ok(Cluster { client: client.clone(), consumer: Arc::new(consumer.map_err(failed)?) })
    };
    let (committed, all) = (start("read_committed")?, start("read_uncommitted")?);
    let partitions = match all.partitions(&Subscription::Topics([topic.to_string()].into())) {
        Err(error) if error.condition() == "KAFKA_UNKNOWN_TOPIC" => return Ok(Vec::new()),
        partitions => partitions?,
    };
    // The end for `read_committed` is asked for first: records that are written between the two
    // requests only cause a superfluous find.
    let committed = committed.offsets_at(&partitions, LATEST)?;
    let ends = all.offsets_at(&partitions, LATEST)?;
    let is_open = |(topic, partition, end): &(&str, i32, i64)| {
        committed.get(topic, *partition).is_some_and(|committed| committed < *end)
    };
    Ok(ends.iter().filter(is_open).map(|(_, partition, _)| partition).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::kafka::client::Role;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use std::time::Duration;

    /// The simulated cluster has no ends for `read_committed`.
    #[test]
    fn topics_without_a_transaction_and_missing_topics_have_no_hanging_one() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 2, 1).unwrap();
        let servers = [("bootstrap.servers".to_string(), cluster.bootstrap_servers())];
        let client = Client::read("sink kafka", Role::Producer, servers.into()).unwrap();
        let producer: BaseProducer = client.config().create().unwrap();
        producer.send(BaseRecord::<[u8], [u8]>::to("t").payload(b"value").partition(1)).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();
        assert_eq!(partitions_with_open_transaction(&client, "t").unwrap(), [0; 0]);
        assert_eq!(partitions_with_open_transaction(&client, "other").unwrap(), [0; 0]);
    }
}
