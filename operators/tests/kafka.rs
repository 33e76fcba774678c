//! The Kafka source and sink, against librdkafka's mock cluster, which needs no broker.
//!
//! Mistakes that others made, and where each is tested (`broker`: `kafka_broker.rs`; `cases`: the
//! cases of `conformance --kafka`; `torture`: `torture kill-kafka`):
//!
//! | mistake | test |
//! |---|---|
//! | offsets committed before the records are processed | torture |
//! | gaps of markers and aborted records taken for records, or waited for | torture; cases |
//! | `latest` resolved again after a restart | `latest_is_resolved_once_and_not_again_after_a_restart` |
//! | a new partition started at its end | broker, `a_new_partition_is_found_and_read_from_its_first_record` |
//! | a topic recreated under its name | broker, `a_recreated_topic_is_detected_even_if_it_is_longer_than_before` |
//! | deleted offsets skipped in silence | cases |
//! | an idle partition holds the watermark | `an_idle_partition_does_not_hold_back_the_watermark` |
//! | partitions moved by a consumer group | `a_consumer_group_is_never_used` |
//! | a full queue of the producer drops records, or blocks for ever | broker, `many_results_of_one_record_are_all_written_in_their_order` |
//! | a delivery error is only logged | `unreadable_topics_and_failed_writes_are_errors` |
//! | order per key broken by retries | `written_records_keep_the_order_of_a_key_and_go_to_the_partition_of_javas_client`; torture |
//! | another partitioner than Java's client | the same |
//! | a record that is too large is sent for ever | `unreadable_topics_and_failed_writes_are_errors` |
//! | new partitions found late | broker, `a_new_partition_is_found_and_read_from_its_first_record` |
//! | a producer's wrong clock moves the watermark | `with_max_future_skew`, in `event_time.rs` |
//! | lag never shown | `offsets_are_committed_to_the_group_on_request` |

#![cfg(feature = "kafka")]

use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use millstream_engine::checkpoint::{numbered_entries, read_offsets};
use millstream_engine::env::storage::FileStorage;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

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
fn several_tasklets_share_the_partitions_and_a_restart_may_have_another_number() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let (cluster, folder) = (cluster(&[("t", 3)]), Folder::new());
        let mut end = 0;
        for parts in ["3", "1", "2", "5"] {
            let begin = end;
            end += 300;
            produce(&cluster, "t", 3, begin..end);
            // `minPartitions` changes nothing.
            let options =
                [("startingOffsets", "earliest"), ("numPartitions", parts), ("minPartitions", "7")];
            let copying = Copying::start(&cluster, "t", &options, trigger, &folder);
            copying.query.process_all_available().unwrap();
            let expected: Vec<_> = (begin..end).collect();
            assert_eq!(copying.numbers(), expected, "{trigger:?}, {parts} parts");
            copying.query.stop().unwrap();
        }
        let offsets = numbered_entries(&FileStorage, &folder.0.join("offsets")).unwrap();
        for epoch in offsets {
            let path = folder.0.join("offsets").join(epoch.to_string());
            let (_, lines) = read_offsets(&FileStorage, &path).unwrap();
            assert_eq!(lines.len(), 1, "one line for all parts, as in Spark");
        }
    }
}

/// Work for each pair of partitions would take minutes.
#[test]
fn a_topic_of_ten_thousand_partitions_is_read() {
    for trigger in [Trigger::Continuous { interval_ns: 1_000_000_000 }, Trigger::AvailableNow] {
        let (cluster, folder) = (cluster(&[("t", 10_000)]), Folder::new());
        produce(&cluster, "t", 10_000, 0..1000);
        let earliest = [("startingOffsets", "earliest")];
        let copying = Copying::start(&cluster, "t", &earliest, trigger, &folder);
        copying.query.process_all_available().unwrap();
        copying.query.stop().unwrap();
        assert_eq!(copying.numbers(), (0..1000).collect::<Vec<_>>(), "{trigger:?}");
    }
}

#[test]
fn an_epoch_does_not_end_before_the_starting_offsets_are_known() {
    let (cluster, folder) = (cluster(&[("t", 2)]), Folder::new());
    produce(&cluster, "t", 2, 0..10);
    // The first answer takes longer than many epochs.
    cluster.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
    let trigger = Trigger::Continuous { interval_ns: 1_000_000 };
    let copying = Copying::start(&cluster, "t", &[], trigger, &folder);
    copying.query.stop().unwrap();
    let (_, lines) = read_offsets(&FileStorage, &folder.0.join("offsets/0")).unwrap();
    assert_eq!(lines[0].0, r#"{"t":{"0":5,"1":5}}"#);
}

/// A query that counts the records of windows of one second.
fn windows(cluster: &Cluster, parts: &str) -> (Session, StreamingQuery) {
    let session = Session::new();
    let reader = session
        .read_stream()
        .format("kafka")
        .option("kafka.bootstrap.servers", cluster.bootstrap_servers())
        .option("subscribe", "t")
        .option("startingOffsets", "earliest")
        .option("numPartitions", parts);
    let records = reader.load().unwrap().with_watermark("timestamp", "0 seconds").unwrap();
    records.create_temp_view("input");
    let sql = "SELECT unix_millis(window.start) AS start, count(*) AS n FROM input \
               GROUP BY window(timestamp, '1 second')";
    let writer = session.sql(sql).unwrap().write_stream().format("memory").query_name("windows");
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let query = writer.trigger(CONTINUOUS).config(config).start().unwrap();
    (session, query)
}

/// Sends records with these times to a partition, in this order.
fn produce_at(cluster: &Cluster, partition: i32, times_ms: impl IntoIterator<Item = i64>) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for ms in times_ms {
        let record: BaseRecord<'_, str, str> = BaseRecord::to("t").payload("x");
        producer.send(record.partition(partition).timestamp(ms)).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

fn wait_until(what: &str, query: &StreamingQuery, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < TIMEOUT, "never: {what}; {:?}", query.exception());
        std::thread::yield_now();
    }
}

fn counts(session: &Session) -> Vec<(i64, i64)> {
    let rows = session.table("windows").unwrap().rows();
    let pair = |row: &Vec<Value>| match (&row[0], &row[1]) {
        (Value::Long(start), Value::Long(n)) => (*start, *n),
        other => panic!("{other:?}"),
    };
    let mut counts: Vec<_> = rows.iter().map(pair).collect();
    counts.sort_unstable();
    counts
}

#[test]
fn records_of_a_slower_partition_are_not_late() {
    for parts in ["1", "2"] {
        let cluster = cluster(&[("t", 2)]);
        // One partition is read long before the other one.
        produce_at(&cluster, 0, (0..100_000).map(|n| 1_000_000 + n / 10));
        produce_at(&cluster, 1, (0..100_000).map(|n| 1_000_000 + n / 10));
        let (session, query) = windows(&cluster, parts);
        query.process_all_available().unwrap();
        produce_at(&cluster, 0, [1_010_000]);
        produce_at(&cluster, 1, [1_010_000]);
        wait_until("ten windows", &query, || counts(&session).len() == 10);
        let expected: Vec<_> = (0..10).map(|n| (1_000_000 + n * 1_000, 20_000)).collect();
        assert_eq!(counts(&session), expected, "{parts} parts");
        query.stop().unwrap();
    }
}

#[test]
fn an_idle_partition_does_not_hold_back_the_watermark() {
    for parts in ["1", "2", "3"] {
        let cluster = cluster(&[("t", 2)]);
        let (session, query) = windows(&cluster, parts);
        // The other partition never has a record.
        produce_at(&cluster, 0, [1_000_000, 1_000_500, 1_001_000]);
        wait_until("a window", &query, || !counts(&session).is_empty());
        assert_eq!(counts(&session), [(1_000_000, 2)], "{parts} parts");
        query.stop().unwrap();
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

/// One partition has a backlog of 310 records, two have 10 each.
#[test]
fn the_limit_of_a_batch_does_not_depend_on_the_number_of_tasklets() {
    let cluster = cluster(&[("t", 3)]);
    produce(&cluster, "t", 3, 0..30);
    produce(&cluster, "t", 1, 30..330);
    for limit in ["20", "100"] {
        let ends = |parts: &str| -> Vec<String> {
            let folder = Folder::new();
            let options = [
                ("startingOffsets", "earliest"),
                ("maxOffsetsPerTrigger", limit),
                ("numPartitions", parts),
            ];
            let copying = Copying::start(&cluster, "t", &options, Trigger::AvailableNow, &folder);
            copying.query.await_termination().unwrap();
            assert_eq!(copying.numbers(), (0..330).collect::<Vec<_>>(), "{parts} parts");
            let log = folder.0.join("offsets");
            let batches = numbered_entries(&FileStorage, &log).unwrap().into_iter();
            let end = |batch: u64| {
                let (_, lines) = read_offsets(&FileStorage, &log.join(batch.to_string())).unwrap();
                lines[0].0.clone()
            };
            batches.map(end).collect()
        };
        let of_one = ends("1");
        for parts in ["2", "3", "5"] {
            assert_eq!(ends(parts), of_one, "limit {limit}, {parts} parts");
        }
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
    // The client's limit is 1 MB. It is no reason to try again for ever.
    input.add([vec![Value::String("a".into()), Value::Long(0)]]);
    let large = write("SELECT repeat(value, 10000000) AS value FROM input", Some("t"));
    assert!(large.contains("topic t") && large.contains("too large"), "{large}");
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
fn offsets_are_committed_to_the_group_on_request() {
    // With the last trigger nothing is asked of the source after the batch that a caller waits for.
    let awaited = Trigger::ProcessingTime { interval_ns: u64::MAX / 4 };
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible, awaited] {
        let (cluster, folder) = (cluster(&[("t", 2)]), Folder::new());
        produce(&cluster, "t", 2, 0..10);
        let own = [("startingOffsets", "earliest"), ("commitOffsets", "true")];
        let options = [&own[..], &[("kafka.group.id", "own-group")]].concat();
        let copying = Copying::start(&cluster, "t", &options, trigger, &folder);
        copying.query.process_all_available().unwrap();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "own-group")
            .create()
            .unwrap();
        let committed = |offset: i64| {
            let mut list = rdkafka::TopicPartitionList::new();
            list.add_partition_range("t", 0, 1);
            let committed = consumer.committed_offsets(list, TIMEOUT).unwrap();
            committed.elements().iter().all(|one| one.offset() == rdkafka::Offset::Offset(offset))
        };
        wait_until("the offsets are committed", &copying.query, || committed(5));
        // Offsets that come within a second of the last commit wait, although no batch follows.
        produce(&cluster, "t", 2, 10..20);
        copying.query.process_all_available().unwrap();
        wait_until("the last offsets are committed", &copying.query, || committed(10));
        copying.query.stop().unwrap();
    }
    let session = Session::new();
    let reader = session.read_stream().format("kafka").option("subscribe", "t");
    let reader = reader.option("kafka.bootstrap.servers", "localhost:1");
    let error = reader.option("commitOffsets", "true").load().err().unwrap().to_string();
    assert!(error.contains("kafka.group.id"), "{error}");
}

#[test]
fn a_batch_query_appends_and_has_no_other_save_mode() {
    let cluster = cluster(&[("t", 1)]);
    let session = Session::new();
    let save = |mode: &str| {
        let frame = session.sql("SELECT 'k' AS key, 'v' AS value").unwrap();
        let writer = frame.write().format("kafka").mode(mode).option("topic", "t");
        writer.option("kafka.bootstrap.servers", cluster.bootstrap_servers()).save()
    };
    for mode in ["append", "errorifexists"] {
        save(mode).unwrap();
    }
    for mode in ["overwrite", "Ignore"] {
        let error = save(mode).err().unwrap().to_string();
        assert!(error.contains("_LEGACY_ERROR_TEMP_3081"), "{error}");
    }
    let rows = read_back(&cluster, "t", "SELECT CAST(value AS STRING) FROM topic");
    assert_eq!(rows.len(), 2);
}

#[test]
fn records_of_every_compression_are_written_and_read() {
    let cluster = cluster(&[("none", 1), ("gzip", 1), ("snappy", 1), ("lz4", 1), ("zstd", 1)]);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let session = Session::new();
        // A client sends a batch as it is if compression makes it no smaller.
        let frame =
            session.sql("SELECT repeat(string(id), 1000) AS value FROM range(100)").unwrap();
        let writer = frame.write().format("kafka").mode("append").option("topic", codec);
        let writer = writer.option("kafka.bootstrap.servers", cluster.bootstrap_servers());
        writer.option("kafka.compression.type", codec).save().unwrap();
        let sum = "SELECT count(*), sum(length(CAST(value AS STRING))) FROM topic";
        assert_eq!(
            read_back(&cluster, codec, sum),
            [[Value::Long(100), Value::Long(190_000)]],
            "{codec}"
        );
    }
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

/// Starts a query of the view `topic`, which has the records of the topic `in`, and waits until all
/// of them are written to another topic.
fn copy_to(cluster: &Cluster, topic: &str, sql: &str, checkpoint: &Folder) {
    let session = Session::new();
    let reader = session.read_stream().format("kafka").option("subscribe", "in");
    let reader = reader.option("kafka.bootstrap.servers", cluster.bootstrap_servers());
    let reader = reader.option("startingOffsets", "earliest");
    reader.load().unwrap().create_temp_view("topic");
    let query = session
        .sql(sql)
        .unwrap()
        .write_stream()
        .format("kafka")
        .option("kafka.bootstrap.servers", cluster.bootstrap_servers())
        .option("topic", topic)
        .option("checkpointLocation", checkpoint.0.display())
        .trigger(Trigger::AvailableNow)
        .start()
        .unwrap();
    query.await_termination().unwrap();
}

/// Records that cannot be decoded, as they are, with their origin and the reason in the headers.
fn bad_records(decoded: &str, error: &str) -> String {
    format!(
        "SELECT key, value, array(
           struct('topic' AS key, CAST(topic AS BINARY) AS value),
           struct('partition' AS key, CAST(CAST(partition AS STRING) AS BINARY) AS value),
           struct('offset' AS key, CAST(CAST(offset AS STRING) AS BINARY) AS value),
           struct('reason' AS key, CAST({error} AS BINARY) AS value)) AS headers
         FROM (SELECT *, {decoded} AS o FROM topic) WHERE {error} IS NOT NULL"
    )
}

/// A format of records.
struct Format {
    /// The expression that decodes the column `value`.
    decoded: &'static str,
    /// The expression that is not NULL for a bad record.
    error: &'static str,
    good: &'static [u8],
    /// Bad records, and what the error says of each.
    bad: [(&'static [u8], &'static str); 2],
}

#[test]
fn records_that_cannot_be_decoded_go_to_a_topic_of_their_own() {
    const AVRO: &str = r#"from_avro(value, '{"type": "record", "name": "R", "fields": [{"name": "id", "type": "int"}]}',
        map('mode', 'PERMISSIVE', 'columnNameOfError', '_error'))"#;
    const PROTOBUF: &str = "from_protobuf(value, 'M', X'0A140A016D220F0A014D120A0A026964180120012805', \
        map('mode', 'PERMISSIVE', 'columnNameOfError', '_error'))";
    const JSON: &str = "from_json(CAST(value AS STRING), 'id INT, _corrupt_record STRING')";
    let ends = "byte 0: the data ends within an integer";
    let mut formats = vec![
        Format {
            decoded: AVRO,
            error: "o._error",
            good: &[4],
            bad: [(&[], ends), (&[0x80], ends)],
        },
        Format {
            decoded: JSON,
            error: "o._corrupt_record",
            good: b"{\"id\": 2}",
            bad: [(b"{\"id\": 2", "{\"id\": 2"), (b"no", "no")],
        },
    ];
    if cfg!(feature = "protobuf") {
        formats.push(Format {
            decoded: PROTOBUF,
            error: "o._error",
            good: &[8, 2],
            bad: [
                (&[8], "byte 1: the data ends within an integer"),
                (&[0], "byte 1: a field has the number 0"),
            ],
        });
    }
    for Format { decoded, error, good, bad } in formats {
        let cluster = cluster(&[("in", 2), ("good", 1), ("bad", 1)]);
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .unwrap();
        let send = |key: &str, partition: i32, value: Option<&[u8]>| {
            let record = BaseRecord::<str, [u8]>::to("in").key(key).partition(partition);
            let record = match value {
                Some(value) => record.payload(value),
                None => record,
            };
            producer.send(record).unwrap();
        };
        send("a", 0, Some(good));
        send("b", 0, Some(bad[0].0));
        send("c", 1, None);
        send("d", 1, Some(good));
        send("e", 1, Some(bad[1].0));
        producer.flush(TIMEOUT).unwrap();
        let is_good = format!("{error} IS NULL AND o IS NOT NULL");
        let of_good = format!(
            "SELECT key, CAST(o.id AS STRING) AS value FROM (SELECT *, {decoded} AS o FROM topic) WHERE {is_good}"
        );
        let (first, second) = (Folder::new(), Folder::new());
        copy_to(&cluster, "good", &of_good, &first);
        copy_to(&cluster, "bad", &bad_records(decoded, error), &second);
        let sql = "SELECT CAST(key AS STRING), CAST(value AS STRING) FROM topic ORDER BY 1";
        let text = |text: &str| Value::String(text.to_string());
        let found = read_back(&cluster, "good", sql);
        assert_eq!(found, [[text("a"), text("2")], [text("d"), text("2")]], "{decoded}");
        let sql = "SELECT CAST(key AS STRING), value, \
                   CAST(transform(headers, h -> CAST(h.value AS STRING)) AS STRING) FROM topic ORDER BY 1";
        let found = read_back(&cluster, "bad", sql);
        let wanted = |key: &str, at: usize, origin: &str| {
            let headers = format!("[in, {origin}, {}]", bad[at].1);
            vec![text(key), Value::Binary(bad[at].0.to_vec()), text(&headers)]
        };
        assert_eq!(found, [wanted("b", 0, "0, 1"), wanted("e", 1, "1, 2")], "{decoded}");
    }
}

/// The SQL of the how-to, in `docs/src/kafka.md`, does what the page says.
#[test]
fn the_how_to_for_bad_records_can_be_run() {
    let page = include_str!("../../docs/src/kafka.md");
    let (_, section) = page.split_once("## Records that cannot be decoded").unwrap();
    let (_, sql) = section.split_once("```sql\n").unwrap();
    let (sql, _) = sql.split_once("```").unwrap();
    let cluster = cluster(&[("orders", 1), ("good-orders", 1), ("bad-orders", 1)]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("linger.ms", "0")
        .create()
        .unwrap();
    for value in [b"\x02", b"\x80"] {
        producer.send(BaseRecord::<str, [u8]>::to("orders").payload(value.as_slice())).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    let sql = sql.replace("127.0.0.1:9092", &cluster.bootstrap_servers());
    let sql = sql.replace("orders')\n  AS", "orders', trigger 'available-now')\n  AS");
    Session::new().script(&sql, &mut |_| Ok(())).unwrap();
    let sql = "SELECT hex(value), CAST(transform(headers, h -> CAST(h.value AS STRING)) AS STRING) FROM topic";
    let text = |text: &str| Value::String(text.to_string());
    assert_eq!(read_back(&cluster, "good-orders", sql), [[text("7B226964223A317D"), Value::Null]]);
    let headers = "[orders, 0, 1, byte 0: the data ends within an integer]";
    assert_eq!(read_back(&cluster, "bad-orders", sql), [[text("80"), text(headers)]]);
}

#[cfg(not(feature = "kafka-tls"))]
#[test]
fn encryption_names_the_feature_that_it_needs() {
    let options = [
        ("kafka.security.protocol", "SSL", "`kafka-tls`"),
        ("kafka.security.protocol", "sasl_ssl", "`kafka-tls`"),
        ("kafka.sasl.mechanism", "SCRAM-SHA-512", "`kafka-tls`"),
        ("kafka.ssl.ca.location", "/etc/ca.pem", "`kafka-tls`"),
        ("kafka.ssl.truststore.password", "s3cret", "`kafka-tls`"),
    ];
    for (option, value, wanted) in options {
        let reader = Session::new().read_stream().format("kafka").option("subscribe", "t");
        let reader = reader.option("kafka.bootstrap.servers", "127.0.0.1:1").option(option, value);
        let error = reader.load().err().expect(value).to_string();
        assert!(error.contains("UNSUPPORTED_OPTION") && error.contains(wanted), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
