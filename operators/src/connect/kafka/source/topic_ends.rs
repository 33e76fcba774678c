//! The latest offsets of topics that a query reads as a table.

use crate::connect::kafka::cluster::Cluster;
use crate::connect::kafka::offsets::LATEST;
use crate::connect::kafka::options::{KafkaSourceConfig, Subscription};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::error::EngineError;
use std::sync::Arc;

/// The latest offsets of topics that a query reads as a table.
pub struct TopicEnds {
    subscription: Subscription,
    cluster: Cluster,
}

impl TopicEnds {
    /// Creates a client of the cluster, which connects in the background. Fails only if the client
    /// refuses its options.
    pub fn new(config: &KafkaSourceConfig) -> Result<Self, EngineError> {
        let mut client = config.client.config();
        client.set("group.id", &config.group_prefix);
        let consumer = client.create();
        let consumer = consumer.map_err(|error| config.client.failed("start a client", &error))?;
        let cluster = Cluster { client: config.client.clone(), consumer: Arc::new(consumer) };
        Ok(Self { subscription: config.subscription.clone(), cluster })
    }

    /// A hash of the latest offsets. It changes when records arrive or partitions are added. Fails
    /// if the broker cannot be asked.
    pub fn version(&self) -> Result<u64, EngineError> {
        let partitions = self.cluster.partitions(&self.subscription)?;
        let ends = self.cluster.offsets_at(&partitions, LATEST)?;
        Ok(hash_bytes(ends.to_string().as_bytes()))
    }
}
