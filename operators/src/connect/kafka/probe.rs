//! Examines a cluster: which brokers answer, how long a record takes, how far the clocks differ, and
//! which settings cost latency. `millstream doctor --kafka` prints the report.

use crate::connect::kafka::client::{Client, Role};
use crate::table::plan::Options;
use futures_executor::block_on;
use millstream_engine::error::EngineError;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _, Timestamp};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::util::get_rdkafka_version;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Number of records that are sent before the times are taken: the partition of a new topic has no
/// leader at first.
const WARM_UP: usize = 20;
/// The settings of a broker that can cost latency.
const SETTINGS: [&str; 8] = [
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "default.replication.factor",
    "min.insync.replicas",
    "num.network.threads",
    "num.io.threads",
    "replica.fetch.wait.max.ms",
    "inter.broker.protocol.version",
];

/// A setting of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name, as in the broker's configuration.
    pub name: String,
    /// The value; `None` if it is not set.
    pub value: Option<String>,
    /// Whether the value is the broker's default.
    pub is_default: bool,
}

/// The clock of the broker, compared with the clock of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockDifference {
    /// The broker's time minus the time of this machine, in milliseconds.
    pub ahead_ms: i64,
    /// The largest error of `ahead_ms`, in milliseconds.
    pub error_ms: i64,
}

/// The properties of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterReport {
    /// The addresses of the brokers.
    pub brokers: Vec<String>,
    /// The number of topics that the user may see.
    pub topics: usize,
    /// The version of the client library.
    pub library: String,
    /// For each record: the time from sending it to its acknowledgement, in nanoseconds.
    pub acknowledged_ns: Vec<u64>,
    /// For each record: the time from sending it to reading it, in nanoseconds.
    pub round_trip_ns: Vec<u64>,
    /// `None` if the broker gives records no times.
    pub clock: Option<ClockDifference>,
    /// The settings of the broker that answered first. Empty if they cannot be read.
    pub settings: Vec<Setting>,
}

/// Counts acknowledgements, and keeps the first error.
#[derive(Default)]
struct Acknowledgements {
    count: AtomicU64,
    failed: Mutex<Option<KafkaError>>,
}

#[derive(Clone)]
struct Context(Arc<Acknowledgements>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| error.clone());
        }
        self.0.count.fetch_add(1, Ordering::Release);
    }
}

/// A topic of the examination, deleted at the end.
struct ScratchTopic<'a> {
    admin: &'a AdminClient<DefaultClientContext>,
    name: String,
    options: AdminOptions,
}

impl<'a> ScratchTopic<'a> {
    fn create(
        admin: &'a AdminClient<DefaultClientContext>,
        timeout: Duration,
    ) -> KafkaResult<Self> {
        let micros = wall_us();
        let name = format!("millstream-doctor-{micros}-{}", std::process::id());
        let options = AdminOptions::new().operation_timeout(Some(timeout));
        let new = NewTopic::new(&name, 1, TopicReplication::Fixed(-1))
            .set("message.timestamp.type", "LogAppendTime");
        for made in block_on(admin.create_topics([&new], &options))? {
            made.map_err(|(_, code)| KafkaError::Global(code))?;
        }
        Ok(Self { admin, name, options })
    }
}

impl Drop for ScratchTopic<'_> {
    fn drop(&mut self) {
        // The topic is empty after its retention, if it cannot be deleted.
        drop(block_on(self.admin.delete_topics(&[&self.name], &self.options)));
    }
}

fn wall_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// The times of one record.
struct Trip {
    acknowledged_ns: u64,
    read_ns: u64,
    clock: Option<ClockDifference>,
}

/// Examines the cluster of `kafka.bootstrap.servers`. The options are those of a Kafka sink, such as
/// `kafka.security.protocol`. Sends `records` records after a warm-up, one after the other, to a
/// topic of its own, and reads them. The topic is created before and deleted afterwards.
///
/// # Errors
/// `KAFKA_FAILED` if no broker answers, or if the user may not create, write or read a topic. The
/// condition of the option if one is wrong or missing.
pub fn examine(options: &Options, records: usize) -> Result<ClusterReport, EngineError> {
    let own = options
        .iter()
        .map(|(key, value)| (key.strip_prefix("kafka.").unwrap_or(key).to_string(), value.clone()));
    let client = Client::read("doctor", Role::Producer, own.collect())?;
    let failed = |doing: &'static str| {
        let client = &client;
        move |error: KafkaError| client.failed(doing, &error)
    };
    let timeout = client.timeout;
    let admin: AdminClient<DefaultClientContext> =
        client.connection().create().map_err(failed("start a client"))?;
    let metadata = admin.inner().fetch_metadata(None, timeout);
    let metadata = metadata.map_err(failed("list the topics"))?;
    let address =
        |broker: &rdkafka::metadata::MetadataBroker| format!("{}:{}", broker.host(), broker.port());
    let settings = settings(&admin, metadata.orig_broker_id(), timeout);
    let topic = ScratchTopic::create(&admin, timeout).map_err(failed("create a topic"))?;
    let trips = trips(&client, &topic.name, records).map_err(failed("send and read a record"))?;
    let clock = trips.iter().filter_map(|trip| trip.clock).min_by_key(|clock| clock.error_ms);
    Ok(ClusterReport {
        brokers: metadata.brokers().iter().map(address).collect(),
        topics: metadata.topics().len(),
        library: get_rdkafka_version().1,
        acknowledged_ns: trips.iter().map(|trip| trip.acknowledged_ns).collect(),
        round_trip_ns: trips.iter().map(|trip| trip.read_ns).collect(),
        clock,
        settings,
    })
}

/// Those of [`SETTINGS`] that a broker has. Empty if they cannot be read, for example without the
/// right `DESCRIBE_CONFIGS`.
fn settings(
    admin: &AdminClient<DefaultClientContext>,
    broker: i32,
    timeout: Duration,
) -> Vec<Setting> {
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let asked = block_on(admin.describe_configs([&ResourceSpecifier::Broker(broker)], &options));
    let found = asked.unwrap_or_default().into_iter().find_map(Result::ok);
    let Some(found) = found else { return Vec::new() };
    let setting = |name: &&str| {
        found.get(name).map(|entry| Setting {
            name: entry.name.clone(),
            value: entry.value.clone(),
            is_default: entry.is_default,
        })
    };
    SETTINGS.iter().filter_map(setting).collect()
}

fn trips(client: &Client, topic: &str, records: usize) -> KafkaResult<Vec<Trip>> {
    let mut config = client.connection();
    config.set("group.id", "millstream-doctor").set("enable.auto.commit", "false");
    config.set("fetch.min.bytes", "1").set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    let acknowledgements = Arc::<Acknowledgements>::default();
    let context = Context(acknowledgements.clone());
    let producer = BaseProducer::from_config_and_context(&client.config(), context)?;
    let mut trips = Vec::with_capacity(records);
    for number in 0..(WARM_UP + records) as u64 {
        let payload = number.to_be_bytes();
        let (sent, sent_us) = (Instant::now(), wall_us());
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).payload(&payload);
        producer.send(record).map_err(|(error, _)| error)?;
        let (mut acknowledged, mut read, mut clock) = (None, None, None);
        while acknowledged.is_none() || read.is_none() {
            producer.poll(Duration::ZERO);
            if acknowledged.is_none() && acknowledgements.count.load(Ordering::Acquire) > number {
                let failed = acknowledgements.failed.lock();
                if let Some(error) = failed.unwrap_or_else(PoisonError::into_inner).take() {
                    return Err(error);
                }
                acknowledged = Some(sent.elapsed());
            }
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) if message.payload() == Some(&payload) => {
                    read = Some(sent.elapsed());
                    if let Timestamp::LogAppendTime(broker_ms) = message.timestamp() {
                        clock = Some(broker_ms);
                    }
                }
                // The partition has no leader for a moment after its creation.
                Some(_) | None => {}
            }
            if sent.elapsed() > client.timeout {
                return Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut));
            }
        }
        let nanos = |time: Option<Duration>| time.unwrap_or_default().as_nanos() as u64;
        let (acknowledged_ns, read_ns) = (nanos(acknowledged), nanos(read));
        let clock = clock.map(|broker_ms| difference(sent_us, acknowledged_ns, broker_ms));
        if number >= WARM_UP as u64 {
            trips.push(Trip { acknowledged_ns, read_ns, clock });
        }
    }
    Ok(trips)
}

/// Compares clocks by a record that the broker received between its sending and its
/// acknowledgement. The broker's time has whole milliseconds.
fn difference(sent_us: i64, acknowledged_ns: u64, broker_ms: i64) -> ClockDifference {
    let half_us = (acknowledged_ns / 2000) as i64;
    let ahead_us = broker_ms * 1000 + 500 - (sent_us + half_us);
    ClockDifference {
        ahead_ms: (ahead_us as f64 / 1000.0).round() as i64,
        error_ms: (half_us + 500) / 1000 + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_at_the_middle_of_the_round_trip() {
        let compared = |sent_us, ns, broker_ms| {
            let ClockDifference { ahead_ms, error_ms } = difference(sent_us, ns, broker_ms);
            (ahead_ms, error_ms)
        };
        assert_eq!(compared(1_000_000, 2_000_000, 1001), (1, 2));
        assert_eq!(compared(1_000_000, 2_000_000, 6001), (5001, 2));
        assert_eq!(compared(1_000_000, 400_000_000, 200), (-1000, 201));
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_an_error_with_its_address() {
        let options =
            [("kafka.bootstrap.servers", "127.0.0.1:1"), ("kafka.default.api.timeout.ms", "100")];
        let options = options.map(|(key, value)| (key.to_string(), value.to_string()));
        let error = examine(&options.to_vec(), 1).unwrap_err();
        assert_eq!(error.condition(), "KAFKA_FAILED");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
