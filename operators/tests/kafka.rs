//! The Kafka source and sink, against librdkafka's mock cluster, which needs no broker.

#![cfg(feature = "kafka")]

use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(topics: &[(&str, i32)]) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).unwrap();
    }
    cluster
}

/// Sends one numbered record per element of `numbers`, round robin over the partitions.
fn produce(cluster: &Cluster, topic: &str, partitions: i32, numbers: std::ops::Range<i64>) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("linger.ms", "0")
        .create()
        .unwrap();
    for number in numbers {
        let value = number.to_string();
        let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).payload(&value);
        producer.send(record.partition((number % i64::from(partitions)) as i32)).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

/// A folder for a checkpoint, deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-kafka-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A query that copies the values of a topic into a table.
struct Copying {
    session: Session,
    query: StreamingQuery,
}

impl Copying {
    fn start(
        cluster: &Cluster,
        topic: &str,
        options: &[(&str, &str)],
        trigger: Trigger,
        checkpoint: &Folder,
    ) -> Self {
        let session = Session::new();
        let mut reader = session
            .read_stream()
            .format("kafka")
            .option("kafka.bootstrap.servers", cluster.bootstrap_servers())
            .option("subscribe", topic);
        for (key, value) in options {
            reader = reader.option(key, value);
        }
        reader.load().unwrap().create_temp_view("input");
        let frame = session.sql("SELECT CAST(CAST(value AS STRING) AS BIGINT) AS n FROM input");
        let query = frame
            .unwrap()
            .write_stream()
            .format("memory")
            .query_name("copied")
            .option("checkpointLocation", checkpoint.0.display())
            .trigger(trigger)
            .config(Config { pin: false, wait: WaitProfile::Park, ..Config::default() })
            .start()
            .unwrap();
        Self { session, query }
    }

    fn numbers(&self) -> Vec<i64> {
        let rows = self.session.table("copied").unwrap().rows();
        let mut numbers: Vec<_> = rows
            .iter()
            .map(|row| match row[0] {
                Value::Long(number) => number,
                ref other => panic!("{other:?}"),
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }
}

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 20_000_000 };

#[test]
fn every_record_is_read_once_in_both_modes_and_after_restarts() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let (cluster, folder) = (cluster(&[("t", 3)]), Folder::new());
        produce(&cluster, "t", 3, 0..500);
        let earliest = [("startingOffsets", "earliest")];
        let copying = Copying::start(&cluster, "t", &earliest, trigger, &folder);
        copying.query.process_all_available().unwrap();
        assert_eq!(copying.numbers(), (0..500).collect::<Vec<_>>(), "{trigger:?}");
        produce(&cluster, "t", 3, 500..700);
        copying.query.process_all_available().unwrap();
        assert_eq!(copying.numbers(), (0..700).collect::<Vec<_>>(), "{trigger:?}");
        copying.query.stop().unwrap();
        produce(&cluster, "t", 3, 700..900);
        let copying = Copying::start(&cluster, "t", &earliest, trigger, &folder);
        copying.query.process_all_available().unwrap();
        assert_eq!(copying.numbers(), (700..900).collect::<Vec<_>>(), "{trigger:?}");
        copying.query.stop().unwrap();
    }
}

#[test]
fn latest_is_resolved_once_and_not_again_after_a_restart() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let (cluster, folder) = (cluster(&[("t", 2)]), Folder::new());
        produce(&cluster, "t", 2, 0..10);
        let copying = Copying::start(&cluster, "t", &[], trigger, &folder);
        copying.query.process_all_available().unwrap();
        copying.query.stop().unwrap();
        assert_eq!(copying.numbers(), [0; 0], "{trigger:?}");
        produce(&cluster, "t", 2, 10..15);
        let copying = Copying::start(&cluster, "t", &[], trigger, &folder);
        copying.query.process_all_available().unwrap();
        copying.query.stop().unwrap();
        assert_eq!(copying.numbers(), [10, 11, 12, 13, 14], "{trigger:?}");
    }
}

#[test]
fn batches_end_at_their_planned_offsets_and_lose_nothing_that_was_read_ahead() {
    for limit in ["1", "7", "100", "5000"] {
        let (cluster, folder) = (cluster(&[("t", 3)]), Folder::new());
        produce(&cluster, "t", 3, 0..90);
        // One partition has many more records than the others.
        produce(&cluster, "t", 1, 90..200);
        let options = [("startingOffsets", "earliest"), ("maxOffsetsPerTrigger", limit)];
        let copying = Copying::start(&cluster, "t", &options, Trigger::AvailableNow, &folder);
        copying.query.await_termination().unwrap();
        assert_eq!(copying.numbers(), (0..200).collect::<Vec<_>>(), "limit {limit}");
    }
}

/// The rows of a batch query over the view `topic`, which contains the records of a topic.
fn read_back(cluster: &Cluster, topic: &str, sql: &str) -> Vec<Vec<Value>> {
    let session = Session::new();
    let reader = session.read().format("kafka").option("subscribe", topic);
    let reader = reader.option("kafka.bootstrap.servers", cluster.bootstrap_servers());
    reader.option("includeHeaders", true).load().unwrap().create_temp_view("topic");
    session.sql(sql).unwrap().collect().unwrap()
}

/// The partitions of the keys k0 to k9 of a topic with four: `murmur2(key) & 0x7fffffff` modulo 4.
const PARTITIONS_OF_JAVA: [i64; 10] = [1, 1, 1, 0, 0, 0, 1, 0, 2, 0];

#[test]
fn written_records_keep_the_order_of_a_key_and_go_to_the_partition_of_javas_client() {
    let cluster = cluster(&[("out", 4)]);
    let session = Session::new();
    let input = session.memory_stream("input", "key STRING, value STRING").unwrap();
    let text = |text: String| Value::String(text);
    input.add((0..1000).map(|n| vec![text(format!("k{}", n % 10)), text(format!("{n:04}"))]));
    let query = session
        .sql("SELECT key, value FROM input")
        .unwrap()
        .write_stream()
        .format("kafka")
        .option("kafka.bootstrap.servers", cluster.bootstrap_servers())
        .option("topic", "out")
        .trigger(Trigger::AvailableNow)
        .start()
        .unwrap();
    query.await_termination().unwrap();
    let sql = "SELECT CAST(key AS STRING), CAST(value AS STRING), partition FROM topic \
               ORDER BY partition, offset";
    let mut by_key: BTreeMap<String, (Value, Vec<String>)> = BTreeMap::new();
    for row in read_back(&cluster, "out", sql) {
        let [Value::String(key), Value::String(value), partition] = &row[..] else {
            panic!("{row:?}")
        };
        let entry = by_key.entry(key.clone()).or_insert((partition.clone(), Vec::new()));
        assert_eq!(entry.0, *partition, "a key has one partition");
        entry.1.push(value.clone());
    }
    assert_eq!(by_key.len(), 10);
    for (key, (_, values)) in &by_key {
        let wanted = (0..1000).filter(|n| format!("k{}", n % 10) == *key);
        assert_eq!(*values, wanted.map(|n| format!("{n:04}")).collect::<Vec<_>>(), "{key}");
    }
    let found: Vec<_> = by_key.values().map(|(partition, _)| partition.clone()).collect();
    assert_eq!(found, PARTITIONS_OF_JAVA.map(Value::Long));
}

#[test]
fn headers_and_nulls_are_read_as_they_were_written() {
    let cluster = cluster(&[("out", 1)]);
    let session = Session::new();
    let input = session.memory_stream("input", "n INT").unwrap();
    input.add((0..3).map(|n| vec![Value::Long(n)]));
    let sql = "SELECT IF(n = 0, NULL, CAST(n AS STRING)) AS key, \
               IF(n = 1, NULL, X'00ff') AS value, \
               IF(n = 2, NULL, array(struct('a' AS key, X'01' AS value), \
                                     struct('a' AS key, CAST(NULL AS BINARY) AS value))) AS headers \
               FROM input";
    let query = session
        .sql(sql)
        .unwrap()
        .write_stream()
        .format("kafka")
        .option("kafka.bootstrap.servers", cluster.bootstrap_servers())
        .option("topic", "out")
        .trigger(Trigger::AvailableNow)
        .start()
        .unwrap();
    query.await_termination().unwrap();
    let read = "SELECT CAST(key AS STRING), hex(value), size(headers), headers[0].key, \
                hex(headers[0].value), headers[1].value IS NULL FROM topic ORDER BY offset";
    let text = |text: &str| Value::String(text.to_string());
    let rows = read_back(&cluster, "out", read);
    assert_eq!(
        rows[0],
        [Value::Null, text("00FF"), Value::Long(2), text("a"), text("01"), Value::Boolean(true)]
    );
    assert_eq!(rows[1][..2], [text("1"), Value::Null]);
    assert_eq!(rows[2][..2], [text("2"), text("00FF")]);
}

#[test]
fn unreadable_topics_and_failed_writes_are_errors() {
    let cluster = cluster(&[("t", 1)]);
    let session = Session::new();
    let read = |topic: &str, servers: &str| {
        let reader = session.read().format("kafka").option("subscribe", topic);
        let reader = reader.option("kafka.bootstrap.servers", servers);
        let reader = reader.option("kafka.default.api.timeout.ms", 1000);
        reader.load().unwrap().collect().unwrap_err().to_string()
    };
    let down = read("t", "127.0.0.1:1");
    assert!(down.starts_with("KAFKA_FAILED") && down.contains("127.0.0.1:1"), "{down}");
    assert!(down.contains("Check that the broker runs"), "{down}");

    let input = session.memory_stream("input", "value STRING, partition INT").unwrap();
    let write = |sql: &str, topic: Option<&str>| {
        let frame = session.sql(sql).unwrap();
        let writer = frame.write_stream().format("kafka").trigger(Trigger::AvailableNow);
        let writer = writer.option("kafka.bootstrap.servers", cluster.bootstrap_servers());
        let writer = match topic {
            Some(topic) => writer.option("topic", topic),
            None => writer,
        };
        let ended = writer.start().and_then(|query| Ok(query.await_termination()?));
        ended.unwrap_err().to_string()
    };
    let no_topic = write("SELECT value FROM input", None);
    assert!(no_topic.contains("option 'topic'"), "{no_topic}");
    let no_value = write("SELECT value AS VALUE FROM input", Some("t"));
    assert!(no_value.contains("no column 'value'"), "{no_value}");
    let wrong = write("SELECT 1 AS value FROM input", Some("t"));
    assert!(wrong.contains("INT") && wrong.contains("BINARY"), "{wrong}");
    input.add([vec![Value::String("a".into()), Value::Long(9)]]);
    let partition = write("SELECT value, partition FROM input", Some("t"));
    assert!(partition.contains("partition 9 of topic t"), "{partition}");
}

#[test]
fn a_consumer_group_is_never_used() {
    let (cluster, folder) = (cluster(&[("t", 1)]), Folder::new());
    produce(&cluster, "t", 1, 0..10);
    let options = [("startingOffsets", "earliest"), ("kafka.group.id", "own-group")];
    let copying = Copying::start(&cluster, "t", &options, Trigger::AvailableNow, &folder);
    copying.query.await_termination().unwrap();
    assert_eq!(copying.numbers().len(), 10);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "own-group")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition("t", 0);
    let committed = consumer.committed_offsets(list, TIMEOUT).unwrap();
    assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Invalid);
}

#[test]
fn unsupported_transactions_are_refused_at_the_start() {
    let cluster = cluster(&[("t", 1)]);
    let session = Session::new();
    session.memory_stream("input", "value STRING").unwrap();
    let start = |options: &[(&str, &str)], trigger: Trigger| {
        let frame = session.sql("SELECT value FROM input").unwrap();
        let writer = frame.write_stream().format("kafka").trigger(trigger).option("topic", "t");
        let mut writer = writer.option("kafka.bootstrap.servers", cluster.bootstrap_servers());
        for (key, value) in options {
            writer = writer.option(key, value);
        }
        writer.start().err().unwrap().to_string()
    };
    let no_checkpoint = start(&[("transactional", "true")], CONTINUOUS);
    assert!(no_checkpoint.contains("checkpointLocation"), "{no_checkpoint}");
    let folder = Folder::new();
    let checkpoint = folder.0.display().to_string();
    let transactional = ("transactional", "true");
    let options = [transactional, ("checkpointLocation", checkpoint.as_str())];
    let timeout = ("kafka.transaction.timeout.ms", "5000");
    let long = Trigger::Continuous { interval_ns: 5_000_000_000 };
    let too_long = start(&[&options[..], &[timeout]].concat(), long);
    assert!(too_long.contains("5000 ms"), "{too_long}");
    assert!(too_long.contains("transaction.timeout.ms"), "{too_long}");
    let own_id = start(&[&options[..], &[("kafka.transactional.id", "x")]].concat(), CONTINUOUS);
    assert!(own_id.contains("transactional.id"), "{own_id}");
}
