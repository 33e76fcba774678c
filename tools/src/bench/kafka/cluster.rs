//! The cluster of `bench kafka`: topics that are deleted at the end, and clients with the options
//! that decide about latency.

use crate::bench::kafka::jobs::PARTITIONS;
use crate::failure::Failure;
use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::cell::RefCell;
use std::time::Duration;

/// Time limit of a request to the cluster.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// The options of every producer, including the engine's: a record leaves at once, and under load
/// records are batched by the limit for requests in flight.
pub(super) const PRODUCER: [(&str, &str); 4] = [
    ("acks", "1"),
    ("linger.ms", "0"),
    ("max.in.flight.requests.per.connection", "5"),
    ("enable.idempotence", "false"),
];

/// A cluster, and the topics of this run. They are deleted when this is dropped.
pub(super) struct Cluster {
    pub servers: String,
    admin: AdminClient<DefaultClientContext>,
    topics: RefCell<Vec<String>>,
}

/// The error of a request.
pub(super) fn failed(doing: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("cannot {doing}: {error}"))
}

impl Cluster {
    /// Connects to a cluster. Fails if it does not answer.
    pub(super) fn connect(servers: &str) -> Result<Self, Failure> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers);
        let admin: AdminClient<DefaultClientContext> =
            config.create().map_err(|error| failed("start a client", error))?;
        let answer = admin.inner().fetch_metadata(None, Duration::from_secs(10));
        answer.map_err(|error| failed(&format!("reach Kafka at {servers}"), error))?;
        Ok(Self { servers: servers.to_string(), admin, topics: RefCell::default() })
    }

    /// Creates a topic with [`PARTITIONS`] partitions. Records are kept whatever their timestamps
    /// are.
    pub(super) fn create_topic(&self, what: &str) -> Result<String, Failure> {
        let number = self.topics.borrow().len();
        let name = format!("millstream-bench-{}-{number}-{what}", std::process::id());
        let new = NewTopic::new(&name, PARTITIONS as i32, TopicReplication::Fixed(1));
        let new = [new.set("retention.ms", "-1")];
        let made = block_on(self.admin.create_topics(&new, &AdminOptions::new()));
        let made = made.map_err(|error| failed("create a topic", error))?;
        for made in made {
            made.map_err(|(topic, error)| failed(&format!("create the topic {topic}"), error))?;
        }
        self.topics.borrow_mut().push(name.clone());
        Ok(name)
    }

    /// The options of a producer without an engine.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("socket.nagle.disable", "true");
        config.set("partitioner", "murmur2_random");
        for (name, value) in PRODUCER {
            config.set(name, value);
        }
        config
    }

    /// A consumer without an engine that reads a topic from its beginning.
    pub(super) fn consumer(
        &self,
        topic: &str,
        reports_ends: bool,
    ) -> Result<BaseConsumer, Failure> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("group.id", "millstream-bench");
        config.set("enable.auto.commit", "false").set("socket.nagle.disable", "true");
        config.set("fetch.min.bytes", "1");
        // By default a consumer whose queue was full fetches nothing for a second.
        config.set("fetch.queue.backoff.ms", "10");
        config.set("enable.partition.eof", if reports_ends { "true" } else { "false" });
        let consumer: BaseConsumer =
            config.create().map_err(|error| failed("start a consumer", error))?;
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS as i32 {
            let added = list.add_partition_offset(topic, partition, Offset::Beginning);
            added.map_err(|error| failed("read a topic", error))?;
        }
        consumer.assign(&list).map_err(|error| failed("read a topic", error))?;
        Ok(consumer)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let topics = self.topics.borrow();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        if !topics.is_empty() {
            // A topic that is left behind is not an error of the measurement.
            drop(block_on(self.admin.delete_topics(&topics, &AdminOptions::new())));
        }
    }
}
