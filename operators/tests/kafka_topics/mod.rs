//! Queries that copy one Kafka topic to another at a real broker, for tests.

// Not every test that includes this module uses all of it.
#![allow(dead_code, reason = "see above")]

use futures_executor::block_on;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::{Config, WaitProfile};
use millstream_engine::checkpoint::{numbered_entries, read_offsets};
use millstream_engine::env::storage::FileStorage;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A record's key and value.
pub type Record = (Option<Vec<u8>>, Option<Vec<u8>>);
pub const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 20_000_000 };

/// Two topics of one partition, and a folder for checkpoints that is deleted at the end.
pub struct Fixture {
    pub servers: String,
    pub input: String,
    pub output: String,
    pub folder: PathBuf,
}

/// The parts of a query that tests change.
pub struct Parts {
    pub sql: &'static str,
    pub fails_on_data_loss: bool,
    pub is_transactional: bool,
    /// The capacity of the producer's queue.
    pub queue_records: Option<u32>,
    /// The number of the source's tasklets.
    pub parts: u32,
    pub starts_at: &'static str,
    /// Further options of the source and of the sink.
    pub source: Vec<(&'static str, String)>,
    pub sink: Vec<(&'static str, String)>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            sql: "SELECT value FROM input",
            fails_on_data_loss: true,
            is_transactional: true,
            queue_records: None,
            parts: 1,
            starts_at: "earliest",
            source: Vec::new(),
            sink: Vec::new(),
        }
    }
}

impl Fixture {
    /// Creates the topics at the broker that the environment names.
    pub fn new() -> Self {
        let servers = std::env::var("MILLSTREAM_KAFKA_SERVERS");
        Self::at(servers.expect("MILLSTREAM_KAFKA_SERVERS must name a broker"))
    }

    /// Creates the topics at a broker.
    pub fn at(servers: String) -> Self {
        let fixture = Self::without_broker(servers);
        fixture.create_topic(&fixture.input);
        fixture.create_topic(&fixture.output);
        fixture
    }

    /// Names of topics that are not created.
    pub fn without_broker(servers: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let started = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let name = format!("test-{started}-{}-{number}", std::process::id());
        let (input, output) = (format!("{name}-in"), format!("{name}-out"));
        let folder = std::env::temp_dir().join(format!("millstream-kafka-{name}"));
        Self { servers, input, output, folder }
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config.create().unwrap()
    }

    pub fn create_topic(&self, name: &str) {
        let new = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        let made = block_on(self.admin().create_topics(&[new], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
    }

    pub fn create_input_again(&self) {
        let options = AdminOptions::new();
        let deleted = block_on(self.admin().delete_topics(&[&self.input], &options)).unwrap();
        deleted.into_iter().for_each(|deleted| drop(deleted.unwrap()));
        self.create_topic(&self.input);
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    pub fn produce(&self, numbers: std::ops::Range<i64>) {
        self.produce_to(0, numbers);
    }

    pub fn produce_to(&self, partition: i32, numbers: std::ops::Range<i64>) {
        // The broker may be gone for a while.
        self.send_to(partition, numbers).flush(5 * TIMEOUT).unwrap();
    }

    /// Hands records to a producer. It repeats none if the broker ends meanwhile.
    pub fn send_to(&self, partition: i32, numbers: std::ops::Range<i64>) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("linger.ms", "0");
        config.set("enable.idempotence", "true");
        let producer: BaseProducer = config.create().unwrap();
        let start = Instant::now();
        for number in numbers {
            let value = number.to_string();
            let record = || {
                let record: BaseRecord<'_, str, str> = BaseRecord::to(&self.input).payload(&value);
                record.partition(partition)
            };
            // A partition that was just made is not known at once.
            while producer.send(record()).is_err() {
                assert!(start.elapsed() < TIMEOUT, "partition {partition} is never known");
                producer.poll(Duration::from_millis(10));
            }
        }
        producer
    }

    /// Starts a query that copies each record of the input to the output once.
    pub fn start(&self, trigger: Trigger, checkpoint: &Path) -> Result<StreamingQuery, String> {
        self.start_with(trigger, checkpoint, &Parts::default())
    }

    pub fn start_with(
        &self,
        trigger: Trigger,
        checkpoint: &Path,
        parts: &Parts,
    ) -> Result<StreamingQuery, String> {
        let session = Session::new();
        let mut reader = session
            .read_stream()
            .format("kafka")
            .option("kafka.bootstrap.servers", &self.servers)
            .option("subscribe", &self.input)
            .option("failOnDataLoss", parts.fails_on_data_loss)
            .option("numPartitions", parts.parts)
            .option("startingOffsets", parts.starts_at);
        for (key, value) in &parts.source {
            reader = reader.option(key, value);
        }
        let loaded = reader.load().map_err(|error| error.to_string())?;
        loaded.create_temp_view("input");
        let mut writer = session
            .sql(parts.sql)
            .unwrap()
            .write_stream()
            .format("kafka")
            .option("kafka.bootstrap.servers", &self.servers)
            .option("topic", &self.output)
            .option("transactional", parts.is_transactional)
            .option("checkpointLocation", checkpoint.display());
        if let Some(records) = parts.queue_records {
            writer = writer.option("kafka.queue.buffering.max.messages", records);
        }
        for (key, value) in &parts.sink {
            writer = writer.option(key, value);
        }
        let started = writer
            .trigger(trigger)
            .config(Config { pin: false, wait: WaitProfile::Park, ..Config::default() })
            .start();
        started.map_err(|error| error.to_string())
    }

    /// Processes all available records and stops.
    pub fn run(&self, trigger: Trigger) {
        finish(&self.start(trigger, &self.checkpoint()).unwrap(), trigger);
    }

    /// The numbers in the output that a reader with `read_committed` gets.
    pub fn written(&self) -> Vec<i64> {
        let number = |(_, value): (_, Option<Vec<u8>>)| {
            String::from_utf8(value.unwrap()).unwrap().parse().unwrap()
        };
        self.read("read_committed").into_iter().map(number).collect()
    }

    /// The records of the output.
    pub fn read(&self, isolation: &str) -> Vec<Record> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", "test")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.output, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let mut records = Vec::new();
        loop {
            match consumer.poll(TIMEOUT).expect("the topic cannot be read") {
                Ok(message) => records.push((owned(message.key()), owned(message.payload()))),
                Err(KafkaError::PartitionEOF(_)) => return records,
                // The broker restarts.
                Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
                )) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn entries(&self, log: &str) -> Vec<u64> {
        numbered_entries(&FileStorage, &self.checkpoint().join(log)).unwrap()
    }

    /// Removes the last epoch that wrote records from the commit log, and later epochs from both
    /// logs. A crash between the commit of the transaction and its entry in the log leaves this
    /// state.
    pub fn undo_commit(&self, trigger: Trigger) {
        let path = |log: &str, epoch: u64| self.checkpoint().join(log).join(epoch.to_string());
        let has_written = |epoch: &u64| {
            let (header, _) = read_offsets(&FileStorage, &path("offsets", *epoch)).unwrap();
            trigger == Trigger::AvailableNow || !header.sink.is_empty()
        };
        let last = self.entries("offsets").into_iter().rfind(has_written).unwrap();
        for epoch in self.entries("offsets").into_iter().filter(|epoch| *epoch > last) {
            std::fs::remove_file(path("offsets", epoch)).unwrap();
        }
        for epoch in self.entries("commits").into_iter().filter(|epoch| *epoch >= last) {
            std::fs::remove_file(path("commits", epoch)).unwrap();
        }
    }

    pub fn copy_checkpoint(&self, name: &str) -> PathBuf {
        let (from, to) = (self.checkpoint(), self.folder.join(name));
        // A running query may rename a file while it is copied.
        let start = Instant::now();
        let copy = || std::process::Command::new("cp").arg("-r").args([&from, &to]).status();
        while !copy().unwrap().success() {
            assert!(start.elapsed() < TIMEOUT, "the checkpoint cannot be copied");
            std::fs::remove_dir_all(&to).unwrap();
        }
        to
    }
}

/// Waits until a query has processed all available records, and stops it.
pub fn finish(query: &StreamingQuery, trigger: Trigger) {
    if trigger == CONTINUOUS {
        query.process_all_available().unwrap();
        query.stop().unwrap();
    } else {
        query.await_termination().unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
