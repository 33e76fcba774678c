//! The Kafka source and sink against a real broker: the mock cluster stores no offsets of
//! transactions, fences no producer and deletes no topic. `cargo test` omits these tests
//! (`test = false` in Cargo.toml). `MILLSTREAM_KAFKA_SERVERS=HOST:PORT cargo test --workspace
//! --test kafka_broker` runs them, and they fail without a broker.

#![cfg(feature = "kafka")]

mod kafka_topics;

use futures_executor::block_on;
use kafka_topics::{CONTINUOUS, Fixture, Parts, TIMEOUT, finish};
use millstream::connect::kafka::probe::examine;
use millstream::session::Trigger;
use millstream_engine::checkpoint::offset::Offset as Position;
use millstream_engine::checkpoint::{Checkpoint, EpochMode, read_metadata};
use millstream_engine::env::RealEnv;
use millstream_engine::env::storage::FileStorage;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::time::Instant;

#[test]
fn an_epoch_whose_transaction_was_committed_is_not_written_again() {
    for trigger in [CONTINUOUS, Trigger::AvailableNow] {
        let fixture = Fixture::new();
        fixture.produce(0..100);
        fixture.run(trigger);
        fixture.undo_commit(trigger);
        fixture.produce(100..120);
        fixture.run(trigger);
        assert_eq!(fixture.written(), (0..120).collect::<Vec<_>>(), "{trigger:?}");
    }
}

#[test]
fn an_epoch_whose_transaction_was_not_committed_is_processed_again() {
    let fixture = Fixture::new();
    fixture.produce(0..100);
    fixture.run(CONTINUOUS);
    fixture.produce(100..120);
    let (folder, env) = (fixture.checkpoint(), Arc::new(RealEnv::default()));
    let (_, shape) = read_metadata(&FileStorage, &folder).unwrap();
    let opened = Checkpoint::open(env, &folder, &shape, &mut |_| Ok(true)).unwrap();
    let (checkpoint, recovery) = opened;
    // The checkpoint says that an epoch has read the new records. Its transaction was never
    // committed.
    let ends = [Position(format!("{{\"{}\":{{\"0\":120}}}}", fixture.input))];
    let staged = format!("{{\"producer\":0,\"epoch\":{}}}", recovery.next_epoch);
    let mode = EpochMode::Continuous;
    checkpoint.write_offsets(recovery.next_epoch, &ends, mode, (0, 0), vec![staged]).unwrap();
    drop(checkpoint);
    // A sink without transactions cannot tell whether the epoch was written.
    let plain = Parts { is_transactional: false, ..Parts::default() };
    let error = fixture.start_with(CONTINUOUS, &folder, &plain).err().unwrap();
    assert!(error.starts_with("CHECKPOINT_QUERY_CHANGED"), "{error}");
    fixture.run(CONTINUOUS);
    assert_eq!(fixture.written(), (0..120).collect::<Vec<_>>());
}

/// A restarted query cannot tell the open transaction of another producer from one of its own whose
/// abort the broker has lost. It aborts a record of its own in that partition.
#[test]
fn a_restart_aborts_a_transaction_in_a_partition_that_has_an_open_one() {
    let fixture = Fixture::new();
    fixture.produce(0..100);
    fixture.run(CONTINUOUS);
    let aborted = || {
        let records = fixture.read("read_uncommitted");
        records.iter().filter(|(key, value)| key.as_deref() == Some(b"") && value.is_none()).count()
    };
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &fixture.servers)
        .set("transactional.id", format!("{}-other", fixture.output))
        .create()
        .unwrap();
    other.init_transactions(TIMEOUT).unwrap();
    fixture.produce(100..120);
    fixture.run(CONTINUOUS);
    assert_eq!(aborted(), 0, "no transaction is open");
    other.begin_transaction().unwrap();
    let record: BaseRecord<'_, str, str> = BaseRecord::to(&fixture.output).payload("77");
    other.send(record).map_err(|(error, _)| error).unwrap();
    other.flush(TIMEOUT).unwrap();
    fixture.produce(120..140);
    fixture.run(CONTINUOUS);
    assert_eq!(aborted(), 2, "one of each producer");
    other.abort_transaction(TIMEOUT).unwrap();
    assert_eq!(fixture.written(), (0..140).collect::<Vec<_>>());
}

/// A stage may push all results of a record at once, more than the producer's queue takes.
#[test]
fn many_results_of_one_record_are_all_written_in_their_order() {
    for (trigger, is_transactional) in
        [(CONTINUOUS, false), (CONTINUOUS, true), (Trigger::AvailableNow, true)]
    {
        let fixture = Fixture::new();
        fixture.produce(0..20);
        let sql = "SELECT CAST(n AS STRING) AS value FROM (SELECT explode(sequence(v * 1000, v * \
                   1000 + 999)) AS n FROM (SELECT CAST(CAST(value AS STRING) AS BIGINT) AS v FROM \
                   input))";
        let parts = Parts { sql, is_transactional, queue_records: Some(10), ..Parts::default() };
        let query = fixture.start_with(trigger, &fixture.checkpoint(), &parts).unwrap();
        finish(&query, trigger);
        let written = fixture.written();
        assert!(written == (0..20_000).collect::<Vec<_>>(), "{trigger:?}: {}", written.len());
    }
}

#[test]
fn a_second_run_of_a_query_fences_the_first() {
    let fixture = Fixture::new();
    fixture.produce(0..10);
    fixture.run(Trigger::AvailableNow);
    let first = fixture.start(CONTINUOUS, &fixture.checkpoint()).unwrap();
    first.process_all_available().unwrap();
    let copy = fixture.copy_checkpoint("copy");
    let second = fixture.start(CONTINUOUS, &copy).unwrap();
    fixture.produce(10..20);
    let error = first.await_termination().unwrap_err();
    assert_eq!(error.condition(), "KAFKA_SINK_FENCED", "{error}");
    second.process_all_available().unwrap();
    second.stop().unwrap();
    assert_eq!(fixture.written(), (0..20).collect::<Vec<_>>());
}

#[test]
fn an_old_copy_of_the_checkpoint_is_refused() {
    let fixture = Fixture::new();
    fixture.produce(0..10);
    fixture.run(Trigger::AvailableNow);
    let old = fixture.copy_checkpoint("old");
    for until in [20, 30] {
        fixture.produce(until - 10..until);
        fixture.run(Trigger::AvailableNow);
    }
    let error = fixture.start(Trigger::AvailableNow, &old).err().unwrap();
    assert!(error.starts_with("KAFKA_SINK_AHEAD"), "{error}");
    assert_eq!(fixture.written(), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_recreated_topic_is_detected_even_if_it_is_longer_than_before() {
    for trigger in [CONTINUOUS, Trigger::AvailableNow] {
        let fixture = Fixture::new();
        fixture.produce(0..10);
        fixture.run(trigger);
        fixture.create_input_again();
        fixture.produce(100..120);
        // A query that is started again after the error fails again.
        for _ in 0..2 {
            let query = fixture.start(trigger, &fixture.checkpoint()).unwrap();
            let error = query.await_termination().unwrap_err();
            assert_eq!(error.condition(), "KAFKA_DATA_LOSS.PARTITIONS_DELETED", "{error}");
            assert!(error.to_string().contains("created again"), "{error}");
            assert_eq!(fixture.written(), (0..10).collect::<Vec<_>>(), "{trigger:?}");
        }
        // Without `failOnDataLoss` the query continues at its offset, as in Spark.
        let parts = Parts { fails_on_data_loss: false, ..Parts::default() };
        let query = fixture.start_with(trigger, &fixture.checkpoint(), &parts).unwrap();
        finish(&query, trigger);
        let written = (0..10).chain(110..120).collect::<Vec<_>>();
        assert_eq!(fixture.written(), written, "{trigger:?}");
    }
}

#[test]
fn a_new_partition_is_found_and_read_from_its_first_record() {
    for parts in [1, 2] {
        let fixture = Fixture::new();
        let parts = Parts { parts, starts_at: "latest", ..Parts::default() };
        let query = fixture.start_with(CONTINUOUS, &fixture.checkpoint(), &parts).unwrap();
        query.process_all_available().unwrap();
        let more = NewPartitions::new(&fixture.input, 2);
        let made = block_on(fixture.admin().create_partitions([&more], &AdminOptions::new()));
        made.unwrap().into_iter().for_each(|made| drop(made.unwrap()));
        fixture.produce_to(1, 0..10);
        let start = Instant::now();
        while fixture.written() != (0..10).collect::<Vec<_>>() {
            assert!(start.elapsed() < TIMEOUT, "never found; {:?}", query.exception());
        }
        query.stop().unwrap();
    }
}

#[test]
fn progress_names_the_topics_and_how_far_the_query_is_behind() {
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible] {
        let fixture = Fixture::new();
        fixture.produce(0..10);
        let query = fixture.start(trigger, &fixture.checkpoint()).unwrap();
        query.process_all_available().unwrap();
        let all = query.recent_progress();
        query.stop().unwrap();
        let report = all.iter().rfind(|report| report.num_input_rows() > 0).unwrap().to_json();
        let source = &report["sources"][0];
        let offsets = serde_json::json!({ fixture.input.as_str(): { "0": 10 } });
        let description = format!("KafkaV2[Subscribe[{}]]", fixture.input);
        assert_eq!(source["description"], description.as_str());
        assert_eq!((&source["endOffset"], &source["latestOffset"]), (&offsets, &offsets));
        assert_eq!(source["metrics"]["avgOffsetsBehindLatest"], "0.0");
        assert_eq!(source["metrics"]["maxOffsetsBehindLatest"], "0");
        assert_eq!(all[0].to_json()["sources"][0]["startOffset"], serde_json::Value::Null);
    }
}

#[test]
fn a_cluster_is_examined_and_left_as_it_was() {
    let fixture = Fixture::new();
    let options = vec![("kafka.bootstrap.servers".to_string(), fixture.servers.clone())];
    let report = examine(&options, 20).unwrap();
    assert_eq!((report.acknowledged_ns.len(), report.round_trip_ns.len()), (20, 20));
    assert!(report.topics >= 2, "those of the fixture");
    let clock = report.clock.unwrap();
    assert!(clock.ahead_ms.abs() <= clock.error_ms, "the broker is on this machine: {clock:?}");
    let flush = report.settings.iter().find(|one| one.name == "log.flush.interval.messages");
    assert!(flush.unwrap().value.is_some());
    let metadata = fixture.admin().inner().fetch_metadata(None, TIMEOUT).unwrap();
    let left = metadata.topics().iter().filter(|topic| topic.name().contains("millstream-doctor"));
    assert_eq!(left.count(), 0);
}
