//! The Kafka sink: writes each row as a record, from the columns `key`, `value`, `topic`,
//! `partition` and `headers`.
//!
//! Delivery is at least once: an epoch is acknowledged when the brokers have acknowledged all of
//! its records. By default the producer is idempotent, so a partition has the rows in their order.
//! Rows of the next epoch are sent while acknowledgements of the last one are outstanding.
//!
//! With the option `transactional` delivery is exactly once (`transactions.rs`). Rows of the next
//! epoch then wait for the acknowledgements, because another producer sends them.
//!
//! *Threads.* The worker passes records to librdkafka, whose threads send them. A thread of the
//! producer receives the acknowledgements.

use crate::connect::kafka::client::{Client, Role};
use crate::connect::kafka::deliveries::{Context, Deliveries, MAX_PENDING, RecordProducer};
use crate::connect::kafka::options::{client_options, wrong};
use crate::connect::kafka::records::is_headers;
use crate::connect::kafka::transactions::{
    StagedTransaction, TransactionLog, TransactionOptions, Transactions, UseMark,
};
use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::row::{Array, Row, Slot};
use crate::table::types::{DataType, Schema};
use crossbeam_channel::Sender;
use millstream_engine::env::storage::Storage;
use millstream_engine::epoch::protocol::Report;
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use std::collections::{HashMap, VecDeque};
use std::str;
use std::sync::Arc;

const WHAT: &str = "sink kafka";
/// The time that is allowed for the end of a transaction: acknowledgements, state and logs.
const TRANSACTION_MARGIN_MS: u64 = 10_000;

/// The indices of the columns in a row.
#[derive(Clone, Copy, Debug)]
struct Columns {
    key: Option<Slot>,
    value: Slot,
    topic: Option<Slot>,
    partition: Option<Slot>,
    headers: Option<Slot>,
}

/// The transactions of a query whose sink is not open yet, and the acknowledgements of its records.
pub struct OpenTransactions {
    /// The transactions of the query's sink.
    pub transactions: Transactions,
    deliveries: Arc<Deliveries>,
}

/// The parsed options of a Kafka sink.
#[derive(Clone, Debug)]
pub struct KafkaSinkConfig {
    client: Client,
    /// The topic of all rows. If `None`, each row names its own topic.
    topic: Option<Arc<str>>,
    /// The options of exactly-once delivery; `None` for at-least-once delivery.
    transactions: Option<TransactionOptions>,
}

fn unsupported(reason: String, fix: &str) -> PlanError {
    // Spark has no better condition name for this error.
    PlanError::new("_LEGACY_ERROR_TEMP_3080", format!("{WHAT}: {reason}"), fix)
}

impl KafkaSinkConfig {
    /// Parses the options of the sink.
    pub fn read(options: &Options) -> PlanResult<Self> {
        let (client, own) = client_options(WHAT, options, Role::Producer)?;
        let client = Client::read(WHAT, Role::Producer, client)?;
        let mut reader = OptionReader::new(WHAT, &own);
        let topic = reader.get("topic").map(Arc::from);
        // As in Spark, the option is accepted without effect: a sink writes headers if there is a
        // column `headers`.
        reader.flag("includeHeaders", false)?;
        let is_transactional = reader.flag("transactional", false)?;
        let id_prefix = reader.get("transactionalIdPrefix").unwrap_or("millstream").to_string();
        let epoch_topic = reader.get("epochTopic").unwrap_or("millstream-epochs").to_string();
        reader.finish()?;
        let timeout = client.option("transaction.timeout.ms").unwrap_or("60000");
        let timeout_ms = timeout.trim().parse().map_err(|_| {
            let reason = format!("{WHAT}: Kafka option 'transaction.timeout.ms' is '{timeout}'");
            wrong(reason, "Give milliseconds")
        })?;
        let transactions = is_transactional.then(|| {
            let topic = topic.clone();
            TransactionOptions { id_prefix, epoch_topic, topic, timeout_ms }
        });
        Ok(Self { client, topic, transactions })
    }

    /// Whether the option `transactional` is set.
    pub fn is_transactional(&self) -> bool {
        self.transactions.is_some()
    }

    /// Checks that there is a checkpoint, which exactly once needs, and in continuous mode that a
    /// transaction can be as long as an epoch. The length of a micro-batch is not known.
    pub fn check_transactions(&self, trigger: Trigger, has_checkpoint: bool) -> PlanResult<()> {
        let Some(options) = &self.transactions else { return Ok(()) };
        if !has_checkpoint {
            let reason = format!("{WHAT}: transactional 'true' needs a checkpoint");
            return Err(wrong(reason, "Give the query a checkpointLocation"));
        }
        let Trigger::Continuous { interval_ns } = trigger else { return Ok(()) };
        let interval_ms = interval_ns / 1_000_000;
        // The transaction also contains the wait for acknowledgements and the checkpoint's writes.
        if 2 * interval_ms + TRANSACTION_MARGIN_MS > options.timeout_ms {
            return Err(wrong(
                format!(
                    "{WHAT}: a transaction is as long as the checkpoint interval ({interval_ms} \
                     ms), but the broker aborts it after kafka.transaction.timeout.ms ({} ms)",
                    options.timeout_ms
                ),
                "Raise kafka.transaction.timeout.ms to two intervals and ten seconds or more (most \
                 brokers allow 15 minutes), or shorten the interval",
            ));
        }
        Ok(())
    }

    /// Takes over the transactions of the query's earlier runs. Call this only if
    /// [`is_transactional`](Self::is_transactional).
    pub fn open_transactions(
        &self,
        query_id: &str,
        storage: &dyn Storage,
        mark: &UseMark,
    ) -> Result<OpenTransactions, EngineError> {
        let Some(options) = &self.transactions else { unreachable!("the caller has checked it") };
        let deliveries = Arc::new(Deliveries::default());
        let (client, storage) = (&self.client, (storage, mark));
        let transactions = Transactions::open(client, options, query_id, &deliveries, storage)?;
        Ok(OpenTransactions { transactions, deliveries })
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

    /// Opens the sink, which delivers at least once.
    pub fn open(
        &self,
        schema: &Schema,
        latency: LatencyRecorder,
    ) -> Result<KafkaSink, EngineError> {
        let deliveries = Arc::new(Deliveries::default());
        let config = self.client.config();
        let made = RecordProducer::from_config_and_context(&config, Context(deliveries.clone()));
        let producer = made.map_err(|error| self.client.failed("start a producer", &error))?;
        self.sink(schema, Producers::Plain(producer), deliveries, latency)
    }

    /// Opens the sink, which delivers exactly once. `report_to` gives the log to the
    /// driver, which commits the transactions.
    pub fn open_transactional(
        &self,
        schema: &Schema,
        open: OpenTransactions,
        report_to: impl FnOnce(TransactionLog) -> Sender<Report>,
        latency: LatencyRecorder,
    ) -> Result<KafkaSink, EngineError> {
        let transactions = Arc::new(open.transactions);
        let reports = report_to(TransactionLog(transactions.clone()));
        let producers = Producers::Transactional { transactions, reports };
        self.sink(schema, producers, open.deliveries, latency)
    }

    fn sink(
        &self,
        schema: &Schema,
        producers: Producers,
        deliveries: Arc<Deliveries>,
        latency: LatencyRecorder,
    ) -> Result<KafkaSink, EngineError> {
        let columns = self.columns(schema)?;
        Ok(KafkaSink {
            config: self.clone(),
            columns,
            producers,
            deliveries,
            generation: 0,
            flushing: None,
            refused: VecDeque::new(),
            awaits_room: false,
            partitions: HashMap::new(),
            latency,
        })
    }
}

/// The producers that send the records.
enum Producers {
    /// One producer for all epochs.
    Plain(RecordProducer),
    /// Two producers that alternate from epoch to epoch, with a transaction per epoch.
    Transactional { transactions: Arc<Transactions>, reports: Sender<Report> },
}

impl Producers {
    #[inline]
    fn of(&self, generation: usize) -> &RecordProducer {
        match self {
            Self::Plain(producer) => producer,
            Self::Transactional { transactions, .. } => transactions.producer(generation),
        }
    }

    fn is_transactional(&self) -> bool {
        matches!(self, Self::Transactional { .. })
    }

    /// Begins the transaction of an epoch before its first record.
    #[inline]
    fn begin(&self, generation: usize) -> Result<(), EngineError> {
        match self {
            Self::Transactional { transactions, .. } if !transactions.is_open(generation) => {
                transactions.begin(generation)
            }
            _ => Ok(()),
        }
    }

    /// Handles the end of an epoch whose records are all acknowledged: passes its transaction to
    /// the driver.
    fn ended(&self, generation: usize, epoch: Epoch) {
        let Self::Transactional { transactions, reports } = self else { return };
        if transactions.is_open(generation) {
            transactions.stage(generation, epoch);
            let staged = StagedTransaction { producer: generation, epoch };
            let line =
                serde_json::to_string(&staged).unwrap_or_else(|_| unreachable!("plain data"));
            // Sending fails only if the driver has ended, because the query is being torn down.
            drop(reports.send(Report::Staged { epoch, staged: vec![line] }));
        }
    }
}

/// A row that waits because the producer's queue was full.
struct Refused {
    /// The generation of the row's epoch: 0 or 1.
    generation: usize,
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
    producers: Producers,
    deliveries: Arc<Deliveries>,
    /// The current epoch's counter and, with transactions, its producer: 0 or 1.
    generation: usize,
    /// The previous epoch while acknowledgements of it are outstanding.
    flushing: Option<Epoch>,
    /// Rows that wait because the producer's queue was full, in their order. A stage may push all
    /// results of one record after `is_ready`, so there can be several.
    refused: VecDeque<Refused>,
    /// Whether acknowledgements wake the worker because the producer's queue is full.
    awaits_room: bool,
    /// The number of partitions of each topic to which rows with an explicit partition were sent.
    partitions: HashMap<String, usize>,
    latency: LatencyRecorder,
}

impl KafkaSink {
    fn failed(&self, reason: String) -> EngineError {
        EngineError::operator("KAFKA_WRITE_FAILED", format!("{WHAT}: {reason}"), "")
    }

    /// The error of a record that was not delivered.
    fn undelivered(&self, reason: String) -> EngineError {
        match &self.producers {
            Producers::Plain(_) => self.failed(reason),
            Producers::Transactional { transactions, .. } => transactions.undelivered(&reason),
        }
    }

    /// Hands a record to the producer. Returns false, without having sent it, if the producer's
    /// queue is full. Any other failure is an error.
    fn send(
        &self,
        generation: usize,
        record: BaseRecord<'_, [u8], [u8], usize>,
    ) -> Result<bool, EngineError> {
        self.producers.begin(generation)?;
        self.deliveries.add(generation);
        let Err((error, record)) = self.producers.of(generation).send(record) else {
            return Ok(true);
        };
        self.deliveries.remove(generation);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            return Ok(false);
        }
        let at = record.partition.map_or(String::new(), |at| format!(", partition {at}"));
        let doing = format!("send a record to topic {}{at}", record.topic);
        Err(match &self.producers {
            Producers::Plain(_) => self.failed(format!("cannot {doing}: {error}")),
            Producers::Transactional { transactions, .. } => {
                transactions.failed(generation, &doing, &error)
            }
        })
    }

    /// Fails if the partition is negative, or if the topic exists and does not have it. The broker is
    /// asked again if the known number of partitions is too small.
    fn check_partition(&mut self, topic: &str, partition: i32) -> Result<(), EngineError> {
        if partition < 0 {
            let reason = format!("a row has the partition {partition} of topic {topic}");
            return Err(self.failed(reason));
        }
        if self.partitions.get(topic).is_none_or(|count| partition as usize >= *count) {
            let timeout = self.config.client.timeout;
            let metadata =
                self.producers.of(self.generation).client().fetch_metadata(Some(topic), timeout);
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

    /// Sets whether acknowledgements wake the worker because the producer's queue is full. At the end
    /// of an epoch they do anyway.
    fn await_room(&mut self, is_awaited: bool) {
        self.awaits_room = is_awaited;
        for generation in 0..2 {
            let is_flushing = self.flushing.is_some() && generation == 1 - self.generation;
            self.deliveries.set_awaited(generation, is_awaited || is_flushing);
        }
    }

    /// Sends the refused rows. Returns whether all of them are sent.
    fn send_refused(&mut self) -> Result<bool, EngineError> {
        while let Some(row) = self.refused.front() {
            let mut record = BaseRecord::with_opaque_to(&row.topic, row.generation);
            (record.partition, record.headers) = (row.partition, row.headers.clone());
            (record.key, record.payload) = (row.key.as_deref(), row.value.as_deref());
            if !self.send(row.generation, record)? {
                return Ok(false);
            }
            self.refused.pop_front();
        }
        Ok(true)
    }
}

/// The headers of a row. A NULL header is left out, and a NULL name is empty.
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
        self.deliveries.wake(io.waker.clone());
        Ok(())
    }

    #[inline]
    fn is_ready(&mut self) -> bool {
        // With transactions, each epoch has another producer. Rows keep their order only if the
        // previous producer has sent all of its rows first.
        let is_in_turn = self.flushing.is_none() || !self.producers.is_transactional();
        is_in_turn
            && self.refused.is_empty()
            && self.deliveries.pending(self.generation) < MAX_PENDING
    }

    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }

    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.flushing = Some(epoch);
        self.deliveries.set_awaited(self.generation, true);
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
            return Err(self.undelivered(reason));
        }
        if !self.send_refused()? {
            self.await_room(true);
            // Acknowledgements may have made room before the flags were set.
            if !self.send_refused()? {
                return Ok(FlushStatus::Blocked);
            }
        }
        if std::mem::replace(&mut self.awaits_room, false) {
            self.await_room(false);
        }
        self.latency.record_pending();
        if let Some(epoch) = self.flushing {
            if self.deliveries.pending(1 - self.generation) > 0 {
                // The last acknowledgement wakes the worker. With transactions no row is taken
                // before, because another producer sends it.
                let takes_rows = !self.producers.is_transactional();
                return Ok(if takes_rows { FlushStatus::Waiting } else { FlushStatus::Blocked });
            }
            if let Some(reason) = self.deliveries.failure() {
                return Err(self.undelivered(reason));
            }
            self.flushing = None;
            self.deliveries.set_awaited(1 - self.generation, false);
            self.producers.ended(1 - self.generation, epoch);
        }
        if self.deliveries.pending(self.generation) >= MAX_PENDING {
            return Ok(FlushStatus::Blocked);
        }
        Ok(FlushStatus::Flushed)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for KafkaSink {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        let columns = self.columns;
        let bytes = |slot: Slot| (!row.is_null(slot)).then(|| row.bytes(slot));
        let (key, value) = (columns.key.and_then(bytes), bytes(columns.value));
        let own =
            columns.topic.and_then(bytes).map(|name| str::from_utf8(name).unwrap_or_default());
        let fixed = self.config.topic.clone();
        let Some(topic) = fixed.as_deref().or(own) else {
            return Err(EngineError::operator(
                "KAFKA_NULL_TOPIC_IN_DATA",
                format!("{WHAT}: the topic of a row is NULL"),
                "Give the option 'topic', or filter such rows",
            ));
        };
        let partition = columns.partition.filter(|slot| !row.is_null(*slot));
        let partition = partition.map(|slot| row.long(slot) as i32);
        if let Some(partition) = partition {
            self.check_partition(topic, partition)?;
        }
        let headers = columns.headers.and_then(bytes).map(Array::new);
        let headers = headers.filter(|array| array.len > 0).map(headers_of);
        let generation = self.generation;
        let mut record = BaseRecord::with_opaque_to(topic, generation);
        (record.partition, record.key, record.payload) = (partition, key, value);
        record.headers = headers.clone();
        // A row must not overtake an earlier row that was refused.
        if !self.refused.is_empty() || !self.send(generation, record)? {
            let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
            let topic = topic.to_string();
            self.refused.push_back(Refused { generation, topic, partition, key, value, headers });
        }
        self.latency.add_pending(ingest_ns);
        Ok(())
    }
}
