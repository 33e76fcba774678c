//! The Kafka sink: writes each row as a record, from the columns `key`, `value`, `topic`,
//! `partition` and `headers`.
//!
//! Delivery is at least once: an epoch is acknowledged when the brokers have acknowledged all of
//! its records. The producer is idempotent, so a partition has the rows in their order. Rows of the
//! next epoch are sent while acknowledgements of the last one are outstanding.
//!
//! *Threads.* The worker passes records to librdkafka, whose threads send them. A thread of the
//! producer receives the acknowledgements.

use crate::connect::kafka::client::{Client, Role};
use crate::connect::kafka::options::client_options;
use crate::connect::kafka::records::is_headers;
use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::row::{Array, Row, Slot};
use crate::table::types::{DataType, Schema};
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use millstream_engine::sync::waker::Waker;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::collections::HashMap;
use std::str;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// The number of unacknowledged records above which the sink blocks.
const MAX_PENDING: u64 = 100_000;
const WHAT: &str = "sink kafka";

/// The indices of the columns in a row.
#[derive(Clone, Copy, Debug)]
struct Columns {
    key: Option<Slot>,
    value: Slot,
    topic: Option<Slot>,
    partition: Option<Slot>,
    headers: Option<Slot>,
}

/// The parsed options of a Kafka sink.
#[derive(Clone, Debug)]
pub struct KafkaSinkConfig {
    client: Client,
    /// The topic of all rows. If `None`, each row names its own topic.
    topic: Option<String>,
}

fn unsupported(reason: String, fix: &str) -> PlanError {
    // Spark has no better condition name for this error.
    PlanError::new("_LEGACY_ERROR_TEMP_3080", format!("{WHAT}: {reason}"), fix)
}

impl KafkaSinkConfig {
    /// Reads the options.
    pub fn read(options: &Options) -> PlanResult<Self> {
        let (client, own) = client_options(WHAT, options, Role::Producer)?;
        let client = Client::read(WHAT, Role::Producer, client)?;
        let mut reader = OptionReader::new(WHAT, &own);
        let topic = reader.get("topic").map(str::to_string);
        // Spark accepts the option for sinks too. The column `headers` decides instead.
        reader.flag("includeHeaders", false)?;
        reader.finish()?;
        Ok(Self { client, topic })
    }

    /// Checks the columns of the rows. Their names are case-sensitive, and other columns are not
    /// written.
    pub fn check(&self, schema: &Schema) -> PlanResult<()> {
        self.columns(schema).map(drop)
    }

    fn columns(&self, schema: &Schema) -> PlanResult<Columns> {
        let width = schema.fields.len();
        let find = |name: &str, fits: fn(&DataType) -> bool, wanted: &str| {
            let Some(index) = schema.fields.iter().position(|field| field.name == name) else {
                return Ok(None);
            };
            let found = &schema.fields[index].data_type;
            if !fits(found) {
                let reason = format!("the column '{name}' is {found} and must be {wanted}");
                return Err(unsupported(reason, "Convert it, for example with CAST"));
            }
            Ok(Some(Slot::new(index, width)))
        };
        let bytes = |found: &DataType| matches!(found, DataType::String | DataType::Binary);
        let topic = match &self.topic {
            Some(_) => None,
            None => find("topic", |found| *found == DataType::String, "STRING")?,
        };
        if topic.is_none() && self.topic.is_none() {
            let reason = "neither the option 'topic' nor a column 'topic' is given".to_string();
            return Err(unsupported(reason, "For example: topic 'orders'"));
        }
        let value = find("value", bytes, "STRING or BINARY")?.ok_or_else(|| {
            let fix = "Name one, for example: SELECT to_json(struct(*)) AS value";
            unsupported("there is no column 'value'".to_string(), fix)
        })?;
        Ok(Columns {
            key: find("key", bytes, "STRING or BINARY")?,
            value,
            topic,
            partition: find("partition", |found| *found == DataType::Int, "INT")?,
            headers: find("headers", is_headers, "ARRAY<STRUCT<key: STRING, value: BINARY>>")?,
        })
    }

    /// The sink's description in progress reports.
    pub fn description(&self) -> String {
        "kafka".to_string()
    }

    /// Starts the producer.
    pub fn open(
        &self,
        schema: &Schema,
        latency: LatencyRecorder,
    ) -> Result<KafkaSink, EngineError> {
        let columns = self
            .columns(schema)
            .map_err(|error| EngineError::operator(error.condition, error.reason, error.fix))?;
        let deliveries = Arc::new(Deliveries::default());
        let config = self.client.config();
        let made = ThreadedProducer::from_config_and_context(&config, Context(deliveries.clone()));
        let producer = made.map_err(|error| self.client.failed("start a producer", &error))?;
        Ok(KafkaSink {
            config: self.clone(),
            columns,
            producer,
            deliveries,
            generation: 0,
            is_flushing: false,
            refused: None,
            partitions: HashMap::new(),
            latency,
        })
    }
}

/// Counters of acknowledgements, updated by the producer's thread.
#[derive(Default)]
struct Deliveries {
    /// The number of unacknowledged records of even and of odd epochs.
    pending: [AtomicU64; 2],
    failed: Mutex<Option<String>>,
    waker: OnceLock<Waker>,
}

impl Deliveries {
    fn pending(&self, generation: usize) -> u64 {
        // ORDERING: acquire: pairs with the release of the producer's thread, whose error is seen.
        self.pending[generation].load(Ordering::Acquire)
    }

    fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

struct Context(Arc<Deliveries>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, generation: Self::DeliveryOpaque) {
        let mut failed = false;
        if let Err((error, record)) = result {
            failed = true;
            let mut first = self.0.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            first.get_or_insert_with(|| {
                let (topic, partition) = (record.topic(), record.partition());
                let size = record.payload().map_or(0, <[u8]>::len);
                format!(
                    "a record of {size} bytes for topic {topic}, partition {partition}: {error}"
                )
            });
        }
        // ORDERING: release: pairs with the acquire of the sink.
        let before = self.0.pending[*generation].fetch_sub(1, Ordering::Release);
        if (before == 1 || failed || before == MAX_PENDING / 2)
            && let Some(waker) = self.0.waker.get()
        {
            waker.wake();
        }
    }
}

/// A row for which the producer's queue was full.
struct Refused {
    topic: String,
    partition: Option<i32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Option<OwnedHeaders>,
}

/// Writes rows as records.
pub struct KafkaSink {
    config: KafkaSinkConfig,
    columns: Columns,
    producer: ThreadedProducer<Context>,
    deliveries: Arc<Deliveries>,
    /// Which counter the current epoch uses: 0 or 1.
    generation: usize,
    /// Whether acknowledgements of the previous epoch are outstanding.
    is_flushing: bool,
    refused: Option<Refused>,
    /// The number of partitions of each topic to which rows with an explicit partition were sent.
    partitions: HashMap<String, usize>,
    latency: LatencyRecorder,
}

impl KafkaSink {
    fn failed(&self, reason: String) -> EngineError {
        EngineError::operator("KAFKA_WRITE_FAILED", format!("{WHAT}: {reason}"), "")
    }

    /// Sends a record. Returns false if the producer's queue is full.
    fn send(
        &mut self,
        topic: &str,
        partition: Option<i32>,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: Option<&OwnedHeaders>,
    ) -> Result<bool, EngineError> {
        let mut record: BaseRecord<'_, [u8], [u8], Box<usize>> =
            BaseRecord::with_opaque_to(topic, Box::new(self.generation));
        (record.partition, record.key, record.payload) = (partition, key, value);
        record.headers = headers.cloned();
        // Counted before sending, because the acknowledgement may arrive at once.
        self.deliveries.pending[self.generation].fetch_add(1, Ordering::Relaxed);
        let Err((error, _)) = self.producer.send(record) else { return Ok(true) };
        self.deliveries.pending[self.generation].fetch_sub(1, Ordering::Relaxed);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            return Ok(false);
        }
        let partition = partition.map_or(String::new(), |at| format!(", partition {at}"));
        Err(self.failed(format!("cannot send a record to topic {topic}{partition}: {error}")))
    }

    /// Fails if the topic does not have the partition.
    fn check_partition(&mut self, topic: &str, partition: i32) -> Result<(), EngineError> {
        if partition < 0 {
            let reason = format!("a row has the partition {partition} of topic {topic}");
            return Err(self.failed(reason));
        }
        if self.partitions.get(topic).is_none_or(|count| partition as usize >= *count) {
            let timeout = self.config.client.timeout;
            let metadata = self.producer.client().fetch_metadata(Some(topic), timeout);
            let failed = |e: KafkaError| self.config.client.failed("read a topic", &e);
            let metadata = metadata.map_err(failed)?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            self.partitions.insert(topic.to_string(), count);
            if partition as usize >= count && count > 0 {
                return Err(self.failed(format!(
                    "a row has the partition {partition} of topic {topic}, which has {count}"
                )));
            }
        }
        Ok(())
    }

    fn send_refused(&mut self) -> Result<bool, EngineError> {
        let Some(row) = self.refused.take() else { return Ok(true) };
        let bytes = (row.key.as_deref(), row.value.as_deref());
        let sent = self.send(&row.topic, row.partition, bytes, row.headers.as_ref())?;
        if !sent {
            self.refused = Some(row);
        }
        Ok(sent)
    }
}

/// The headers of a row. NULL names are empty.
fn headers_of(array: Array<'_>) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(array.len);
    for index in 0..array.len {
        let slot = array.slot(index);
        if array.row.is_null(slot) {
            continue;
        }
        let header = Row(array.row.bytes(slot));
        let (name, value) = (Slot::new(0, 2), Slot::new(1, 2));
        let key = if header.is_null(name) {
            ""
        } else {
            str::from_utf8(header.bytes(name)).unwrap_or_default()
        };
        let value = (!header.is_null(value)).then(|| header.bytes(value));
        headers = headers.insert(Header { key, value });
    }
    headers
}

impl Stage for KafkaSink {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        // Fails only if it was set before, and this is the only call.
        drop(self.deliveries.waker.set(io.waker.clone()));
        Ok(())
    }

    #[inline]
    fn is_ready(&mut self) -> bool {
        self.refused.is_none() && self.deliveries.pending(self.generation) < MAX_PENDING
    }

    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }

    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        self.is_flushing = true;
        self.generation = 1 - self.generation;
        self.latency.publish();
        Ok(())
    }

    fn end(&mut self) -> Result<(), EngineError> {
        self.latency.publish();
        Ok(())
    }

    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if let Some(reason) = self.deliveries.failure() {
            return Err(self.failed(reason));
        }
        if !self.send_refused()? {
            return Ok(FlushStatus::Blocked);
        }
        self.latency.record_pending();
        if self.is_flushing {
            if self.deliveries.pending(1 - self.generation) > 0 {
                return Ok(FlushStatus::Pending);
            }
            if let Some(reason) = self.deliveries.failure() {
                return Err(self.failed(reason));
            }
            self.is_flushing = false;
        }
        if self.deliveries.pending(self.generation) >= MAX_PENDING {
            return Ok(FlushStatus::Blocked);
        }
        Ok(FlushStatus::Flushed)
    }
}

impl<'a> Push<Row<'a>> for KafkaSink {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        let columns = self.columns;
        let bytes = |slot: Slot| (!row.is_null(slot)).then(|| row.bytes(slot));
        let (key, value) = (columns.key.and_then(bytes), bytes(columns.value));
        let own =
            columns.topic.and_then(bytes).map(|name| str::from_utf8(name).unwrap_or_default());
        let topic = match (&self.config.topic, own) {
            (Some(topic), _) => topic.clone(),
            (None, Some(own)) => own.to_string(),
            (None, None) => {
                return Err(EngineError::operator(
                    "KAFKA_NULL_TOPIC_IN_DATA",
                    format!("{WHAT}: the topic of a row is NULL"),
                    "Give the option 'topic', or filter such rows",
                ));
            }
        };
        let partition = columns.partition.filter(|slot| !row.is_null(*slot));
        let partition = partition.map(|slot| row.long(slot) as i32);
        if let Some(partition) = partition {
            self.check_partition(&topic, partition)?;
        }
        let headers = columns.headers.and_then(bytes).map(Array::new);
        let headers = headers.filter(|array| array.len > 0).map(headers_of);
        if !self.send(&topic, partition, (key, value), headers.as_ref())? {
            let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
            self.refused = Some(Refused { topic, partition, key, value, headers });
        }
        self.latency.add_pending(ingest_ns);
        Ok(())
    }
}
