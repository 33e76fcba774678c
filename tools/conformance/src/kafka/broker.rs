//! The parts of a case that act on the broker: topics, records and transactions.

use base64::prelude::{BASE64_STANDARD, Engine};
use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Map, Value as Json, json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(60);

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The broker connection of a case.
pub struct Broker {
    pub servers: String,
    admin: AdminClient<DefaultClientContext>,
    producer: BaseProducer,
    consumer: BaseConsumer,
    /// Open transactions with the partitions that they wrote to.
    transactions: RefCell<HashMap<String, Transaction>>,
}

/// An open transaction's producer and the partitions that it wrote to.
type Transaction = (BaseProducer, Vec<(String, i32)>);

impl Broker {
    pub fn new(servers: &str) -> Result<Self, String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers);
        let admin = config.create().map_err(text)?;
        let producer = config.clone().set("linger.ms", "0").create().map_err(text)?;
        let consumer = config
            .set("group.id", "conformance")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .map_err(text)?;
        let transactions = RefCell::default();
        Ok(Self { servers: servers.to_string(), admin, producer, consumer, transactions })
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
        let until = Instant::now() + TIMEOUT;
        while !is_so() {
            if Instant::now() > until {
                return Err(format!("the broker did not {what}"));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The number of partitions of a topic, 0 if there is no such topic; `None` if the broker did
    /// not answer.
    fn partition_count(&self, topic: &str) -> Option<usize> {
        let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT).ok()?;
        Some(metadata.topics().first().map_or(0, |topic| topic.partitions().len()))
    }

    /// Creates topics: name -> partitions and configuration.
    pub fn create_topics(&self, topics: &Json) -> Result<(), String> {
        for (name, topic) in topics.as_object().into_iter().flatten() {
            let partitions = topic["partitions"].as_i64().unwrap_or(1) as i32;
            let mut new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
            new = new.set("retention.ms", "-1");
            let config: Vec<(String, String)> = topic["config"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| {
                    (key.clone(), value.as_str().map_or(value.to_string(), str::to_string))
                })
                .collect();
            for (key, value) in &config {
                new = new.set(key, value);
            }
            // A topic that was just deleted may still exist. After a creation request without an
            // answer, a topic that exists is the new one.
            let mut is_unanswered = false;
            self.wait_until("create a topic", || {
                match block_on(self.admin.create_topics([&new], &AdminOptions::new())) {
                    Ok(made) => made.iter().all(|made| match made {
                        Ok(_) => true,
                        Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => is_unanswered,
                        Err((_, RDKafkaErrorCode::RequestTimedOut)) => {
                            is_unanswered = true;
                            false
                        }
                        Err(_) => false,
                    }),
                    Err(_) => {
                        is_unanswered = true;
                        false
                    }
                }
            })?;
            self.wait_until("have a topic", || {
                self.partition_count(name) == Some(partitions as usize)
            })?;
        }
        Ok(())
    }

    pub fn delete_topics(&self, topics: &Json) -> Result<(), String> {
        let names: Vec<&str> =
            topics.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        if names.is_empty() {
            return Ok(());
        }
        block_on(self.admin.delete_topics(&names, &AdminOptions::new())).map_err(text)?;
        self.wait_until("delete a topic", || {
            names.iter().all(|name| self.partition_count(name) == Some(0))
        })
    }

    pub fn add_partitions(&self, totals: &Json) -> Result<(), String> {
        for (name, total) in totals.as_object().into_iter().flatten() {
            let total = total.as_u64().unwrap_or(1) as usize;
            let new = NewPartitions::new(name, total);
            block_on(self.admin.create_partitions([&new], &AdminOptions::new())).map_err(text)?;
            self.wait_until("add partitions", || self.partition_count(name) == Some(total))?;
        }
        Ok(())
    }

    pub fn delete_records(&self, before: &Json) -> Result<(), String> {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in before.as_object().into_iter().flatten() {
            for (partition, offset) in partitions.as_object().into_iter().flatten() {
                let (partition, offset) = (partition.parse().map_err(text)?, offset.as_i64());
                let offset = Offset::Offset(offset.unwrap_or(0));
                list.add_partition_offset(topic, partition, offset).map_err(text)?;
            }
        }
        if list.count() > 0 {
            block_on(self.admin.delete_records(&list, &AdminOptions::new())).map_err(text)?;
        }
        Ok(())
    }

    /// The end of a partition. A partition that was just made has no leader for a moment, and a
    /// busy broker may not answer in time: the question is repeated.
    fn end(&self, topic: &str, partition: i32) -> Result<i64, String> {
        let mut end = 0;
        self.wait_until("tell the end of a partition", || {
            let answer = self.consumer.fetch_watermarks(topic, partition, TIMEOUT);
            answer.map(|(_, high)| end = high).is_ok()
        })?;
        Ok(end)
    }

    /// Executes the entries of a list in order, each completely before the next: sends a record, in
    /// the transaction `txn` if it names one; commits or aborts a transaction; or waits until a
    /// topic is compacted.
    pub fn produce(&self, records: &Json) -> Result<(), String> {
        for record in records.as_array().into_iter().flatten() {
            if let Some(name) = record["commit"].as_str().or(record["abort"].as_str()) {
                self.end_transaction(name, record["commit"].is_string())?;
            } else if let Some(topic) = record["compact"].as_str() {
                self.compact(topic, record["to"].as_i64().unwrap_or(0))?;
            } else if let Some(name) = record["txn"].as_str() {
                let mut all = self.transactions.borrow_mut();
                if !all.contains_key(name) {
                    all.insert(name.to_string(), (self.transaction(name)?, Vec::new()));
                }
                let Some((producer, wrote)) = all.get_mut(name) else { continue };
                wrote.push(self.send(producer, record)?);
            } else {
                self.send(&self.producer, record)?;
            }
        }
        Ok(())
    }

    fn transaction(&self, name: &str) -> Result<BaseProducer, String> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("transactional.id", format!("{name}-{}-{number}", std::process::id()))
            .set("transaction.timeout.ms", "600000")
            .create()
            .map_err(text)?;
        producer.init_transactions(TIMEOUT).map_err(text)?;
        producer.begin_transaction().map_err(text)?;
        Ok(producer)
    }

    fn end_transaction(&self, name: &str, commits: bool) -> Result<(), String> {
        let found = self.transactions.borrow_mut().remove(name);
        let (producer, wrote) = found.ok_or_else(|| format!("no transaction {name}"))?;
        let before: Vec<i64> =
            wrote.iter().map(|(topic, at)| self.end(topic, *at)).collect::<Result<_, _>>()?;
        if commits {
            producer.commit_transaction(TIMEOUT).map_err(text)?;
        } else {
            producer.abort_transaction(TIMEOUT).map_err(text)?;
        }
        self.wait_until("end a transaction", || {
            let mut all = wrote.iter().zip(&before);
            all.all(|((topic, at), before)| self.end(topic, *at).is_ok_and(|end| end > *before))
        })
    }

    fn compact(&self, topic: &str, left: i64) -> Result<(), String> {
        // The broker closes the segment when it reaches its maximum age.
        let until = Instant::now() + Duration::from_millis(300);
        self.wait_until("wait", || Instant::now() >= until)?;
        let roll = json!({"topic": topic, "partition": 0, "key": "roll", "value": "roll"});
        self.send(&self.producer, &roll)?;
        self.wait_until("compact a topic", || {
            self.records(topic, &HashMap::new()).is_ok_and(|records| records.len() as i64 == left)
        })
    }

    fn send(&self, producer: &BaseProducer, record: &Json) -> Result<(String, i32), String> {
        let topic = record["topic"].as_str().unwrap_or_default();
        let partition = record["partition"].as_i64().unwrap_or(0) as i32;
        let (key, value) = (bytes(&record["key"])?, bytes(&record["value"])?);
        let mut headers = OwnedHeaders::new();
        for header in record["headers"].as_array().into_iter().flatten() {
            let value = bytes(&header[1])?;
            let key = header[0].as_str().unwrap_or_default();
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut made: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        (made.key, made.payload) = (key.as_deref(), value.as_deref());
        made.timestamp = record["timestamp"].as_i64();
        made.headers = (headers.count() > 0).then_some(headers);
        let until = Instant::now() + TIMEOUT;
        while let Err((error, again)) = producer.send(made) {
            // The producer does not know a partition that was just added.
            let unknown = error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition);
            if !unknown || Instant::now() > until {
                return Err(text(error));
            }
            drop(producer.client().fetch_metadata(Some(topic), TIMEOUT));
            made = again;
        }
        producer.flush(TIMEOUT).map_err(text)?;
        Ok((topic.to_string(), partition))
    }

    /// The end of each partition of a topic.
    pub fn ends(&self, topic: &str) -> Result<HashMap<i32, i64>, String> {
        let mut count = 0;
        self.wait_until("tell the partitions of a topic", || {
            self.partition_count(topic).map(|found| count = found as i32).is_some()
        })?;
        (0..count).map(|partition| Ok((partition, self.end(topic, partition)?))).collect()
    }

    /// Reads the records of a topic from the given offsets on, in order per partition.
    pub fn records(&self, topic: &str, from: &HashMap<i32, i64>) -> Result<Vec<Json>, String> {
        let mut all = Vec::new();
        for (partition, end) in self.ends(topic)? {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &self.servers)
                .set("group.id", "conformance-records")
                .set("enable.auto.commit", "false")
                .set("enable.partition.eof", "true")
                .set("auto.offset.reset", "earliest")
                .create()
                .map_err(text)?;
            let start = from.get(&partition).copied().unwrap_or(0);
            if start >= end {
                continue;
            }
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(start)).map_err(text)?;
            consumer.assign(&list).map_err(text)?;
            loop {
                match consumer.poll(TIMEOUT) {
                    Some(Ok(message)) => {
                        let mut record = Map::new();
                        record.insert("partition".into(), Json::from(partition));
                        record.insert("key".into(), json_bytes(message.key()));
                        record.insert("value".into(), json_bytes(message.payload()));
                        if let Some(headers) = message.headers().filter(|h| h.count() > 0) {
                            let each = headers.iter().map(|h| json!([h.key, json_bytes(h.value)]));
                            record.insert("headers".into(), each.collect());
                        }
                        all.push(Json::Object(record));
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => break,
                    Some(Err(error)) => return Err(text(error)),
                    None => return Err("no record came".to_string()),
                }
            }
        }
        Ok(all)
    }
}

/// Parses a key or value: NULL, text, or base64.
fn bytes(json: &Json) -> Result<Option<Vec<u8>>, String> {
    match json {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(text.clone().into_bytes())),
        other => {
            let encoded = other["base64"].as_str().unwrap_or_default();
            BASE64_STANDARD.decode(encoded).map(Some).map_err(text)
        }
    }
}

/// Formats a key or value as in cases.
fn json_bytes(bytes: Option<&[u8]>) -> Json {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Json::Null,
        Some((_, Ok(text))) => Json::from(text),
        Some((bytes, Err(_))) => json!({"base64": BASE64_STANDARD.encode(bytes)}),
    }
}
