//! Records per second from a topic: a count by key in the trigger `available-now`, compared with a
//! consumer that only reads and with one that counts by hand.

use crate::bench::kafka::cluster::{Cluster, TIMEOUT, failed};
use crate::bench::kafka::jobs::PARTITIONS;
use crate::failure::Failure;
use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The size of a record's value.
const VALUE: usize = 100;
/// Number of distinct keys.
const KEYS: u64 = 10_000;

/// Writes the records into a new topic, and returns its name.
pub(super) fn fill(cluster: &Cluster, records: u64) -> Result<String, Failure> {
    let topic = cluster.create_topic("records")?;
    let mut config = cluster.producer();
    config.set("linger.ms", "20").set("batch.size", "1000000");
    let producer: BaseProducer =
        config.create().map_err(|error| failed("start a producer", error))?;
    let value = [b'v'; VALUE];
    for seq in 0..records {
        let key = (seq % KEYS).to_string();
        let mut record = BaseRecord::to(&topic).key(key.as_str()).payload(&value[..]);
        record = record.partition((seq % PARTITIONS) as i32);
        while let Err((error, refused)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(failed("write records", error));
            }
            producer.poll(Duration::from_millis(10));
            record = refused;
        }
        if seq % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(TIMEOUT).map_err(|error| failed("write records", error))?;
    Ok(topic)
}

/// Reads the topic without an engine. Returns records per second.
pub(super) fn bare(
    cluster: &Cluster,
    topic: &str,
    records: u64,
    counts: bool,
) -> Result<f64, Failure> {
    let start = Instant::now();
    let consumer = cluster.consumer(topic, true)?;
    let (mut open, mut read, mut by_key) = (PARTITIONS, 0, HashMap::<Vec<u8>, u64>::new());
    while open > 0 {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => {
                read += 1;
                let Some(key) = message.key().filter(|_| counts) else { continue };
                match by_key.get_mut(key) {
                    Some(count) => *count += 1,
                    None => drop(by_key.insert(key.to_vec(), 1)),
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(failed("read records", error)),
            None => return Err(failed("read records", "no answer")),
        }
    }
    let took = start.elapsed();
    let counted: u64 = by_key.values().sum();
    if read != records || counts && counted != records {
        let reason = format!("read {read} and counted {counted} of {records} records");
        return Err(Failure::Failed(reason));
    }
    Ok(records as f64 / took.as_secs_f64())
}

/// Counts the records by key in a query. Returns records per second.
pub(super) fn engine(cluster: &Cluster, topic: &str, records: u64) -> Result<f64, Failure> {
    let wrong = |error: millstream::table::error::PlanError| Failure::Wrong(error.to_string());
    let start = Instant::now();
    let session = Session::new();
    let reader = session
        .read_stream()
        .format("kafka")
        .option("kafka.bootstrap.servers", &cluster.servers)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest");
    reader.load().map_err(wrong)?.create_temp_view("input");
    let sql = "SELECT key, count(*) AS n FROM input GROUP BY key";
    let writer = session.sql(sql).map_err(wrong)?.write_stream().output_mode("complete");
    let writer = writer.format("memory").query_name("counts").trigger(Trigger::AvailableNow);
    writer.start()?.await_termination()?;
    let took = start.elapsed();
    let table = session.table("counts").ok_or_else(|| failed("find", "the counts"))?;
    let number = |row: &Vec<Value>| match row.get(1) {
        Some(Value::Long(count)) => *count as u64,
        _ => 0,
    };
    let counted: u64 = table.rows().iter().map(number).sum();
    if counted != records {
        return Err(Failure::Failed(format!("counted {counted} of {records} records")));
    }
    Ok(records as f64 / took.as_secs_f64())
}
