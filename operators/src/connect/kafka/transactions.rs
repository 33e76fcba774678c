//! Transactions of the Kafka sink: one per epoch.
//!
//! Kafka cannot prepare a transaction so that it survives its client. The transaction of an epoch
//! therefore also commits an offset of the query's own consumer group: the number of written epochs.
//! An epoch ends in these steps:
//!
//! 1. The broker has acknowledged all records.
//! 2. The offset is added to the transaction.
//! 3. State and `offsets/N` of the checkpoint are written (in micro-batch mode `offsets/N` before 1).
//! 4. The transaction is committed.
//! 5. `commits/N` is written.
//!
//! After a crash between 3 and 5 the group's offset tells whether the transaction was committed. If it
//! was not, the epoch is processed again.
//!
//! Two producers alternate, so that rows of the next epoch are sent while a transaction is being
//! committed. Each has a transactional id that is derived from the query's id. Starting a producer
//! aborts the open transaction of an earlier run, and fences that run if it still exists. If a broker
//! has lost such an abort, it is repeated (`hanging_transactions.rs`). The metadata of the group's
//! offset name the producer of the last written epoch, whose commit may be what was lost.
//!
//! *Threads.* The worker begins transactions; the driver commits them.

use crate::connect::kafka::client::{Client, retried};
use crate::connect::kafka::deliveries::{Context, Deliveries, RecordProducer};
use crate::connect::kafka::hanging_transactions::partitions_with_open_transaction;
use futures_executor::block_on;
use millstream_engine::checkpoint::log_entry;
use millstream_engine::env::storage::Storage;
use millstream_engine::epoch::sink_log::SinkLog;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the end of a query waits for the abort of its open transaction.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The parsed options of transactions.
#[derive(Clone, Debug)]
pub struct TransactionOptions {
    /// The prefix of the query's transactional ids and of its consumer group.
    pub id_prefix: String,
    /// The topic of the consumer group's offset. It contains no records.
    pub epoch_topic: String,
    /// The topic of all rows. If `None`, each row names its own topic.
    pub topic: Option<Arc<str>>,
    /// `transaction.timeout.ms`: how long the broker keeps a transaction open.
    pub timeout_ms: u64,
}

/// The transaction of an epoch, as stored in the checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct StagedTransaction {
    /// The producer: 0 or 1.
    pub producer: usize,
    /// The epoch.
    pub epoch: Epoch,
}

/// A file in the checkpoint that records that the query has committed a transaction.
pub struct UseMark {
    path: PathBuf,
}

impl UseMark {
    /// The mark of the checkpoint in this folder.
    pub fn new(checkpoint: &Path) -> Self {
        Self { path: checkpoint.join("sinks").join("0").join("transactions") }
    }

    fn is_there(&self, storage: &dyn Storage) -> Result<bool, EngineError> {
        match log_entry::read(storage, &self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.condition() == "CHECKPOINT_FILE_MISSING" => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn set(&self, storage: &dyn Storage, group: &str) -> Result<(), EngineError> {
        if let Some(folder) = self.path.parent() {
            let made = storage.create_folder(folder);
            made.map_err(|error| log_entry::write_failed(folder, &error))?;
        }
        log_entry::write(storage, &self.path, [group])
    }
}

/// The transactions of a sink.
pub struct Transactions {
    client: Client,
    options: TransactionOptions,
    /// The name of the consumer group. A transactional id is this name followed by the producer's
    /// number.
    name: String,
    producers: [RecordProducer; 2],
    is_open: [AtomicBool; 2],
    /// The epoch of each producer's last transaction whose records are all acknowledged, plus one.
    /// 0 if this run has none.
    staged: [AtomicU64; 2],
    /// When each producer's last transaction began, in nanoseconds since `started`.
    begun_ns: [AtomicU64; 2],
    started: Instant,
    group: ConsumerGroupMetadata,
    /// The number of written epochs at the start, from the group's offset. `None` if it has no
    /// offset.
    written_at_start: Option<u64>,
    /// The producer of the last written epoch, from the metadata of the group's offset. `None` if
    /// an older version wrote it.
    last_producer: Option<usize>,
    /// Counts the records of the transactions that end hanging ones.
    deliveries: Arc<Deliveries>,
    /// The number of written epochs.
    written: AtomicU64,
    /// Whether an earlier run has committed a transaction.
    was_used: bool,
}

impl Transactions {
    /// Starts the producers, which ends every transaction of an earlier run, and reads the number
    /// of written epochs.
    pub fn open(
        client: &Client,
        options: &TransactionOptions,
        query_id: &str,
        deliveries: &Arc<Deliveries>,
        (storage, mark): (&dyn Storage, &UseMark),
    ) -> Result<Self, EngineError> {
        let was_used = mark.is_there(storage)?;
        let name = format!("{}-{query_id}", options.id_prefix);
        let start = |number: usize| {
            let mut config = client.config();
            config.set("transactional.id", format!("{name}-{number}"));
            config.set("transaction.timeout.ms", options.timeout_ms.to_string());
            let context = Context(deliveries.clone());
            let producer = RecordProducer::from_config_and_context(&config, context)
                .map_err(|error| client.failed("start a producer", &error))?;
            // A transaction that the broker cannot abort at once ends at its time-out.
            let patience = client.timeout + Duration::from_millis(options.timeout_ms);
            retried(patience, |left| producer.init_transactions(left)).map_err(|error| {
                explained(client, &name, &producer, "take over the transactions", &error)
            })?;
            Ok::<_, EngineError>(producer)
        };
        let producers = [start(0)?, start(1)?];
        let (consumer, last) = read_group(client, options, &name)?;
        let written_at_start = last.as_ref().map(|last| last.epochs);
        let group = consumer.group_metadata().ok_or_else(|| {
            let none = KafkaError::ClientCreation("the client has no group".to_string());
            client.failed("read the group of the query", &none)
        })?;
        Ok(Self {
            client: client.clone(),
            options: options.clone(),
            name,
            producers,
            is_open: [AtomicBool::new(false), AtomicBool::new(false)],
            staged: [AtomicU64::new(0), AtomicU64::new(0)],
            begun_ns: [AtomicU64::new(0), AtomicU64::new(0)],
            started: Instant::now(),
            group,
            written_at_start,
            last_producer: last.and_then(|last| last.producer),
            deliveries: deliveries.clone(),
            written: AtomicU64::new(written_at_start.unwrap_or(0)),
            was_used,
        })
    }

    /// Whether the transaction of an epoch of an earlier run was committed; false if the query has
    /// never committed one. Fails if the group's offset is missing although a transaction was
    /// committed.
    pub fn is_written(&self, epoch: Epoch) -> Result<bool, EngineError> {
        match self.written_at_start {
            Some(written) => Ok(written > epoch),
            None if !self.was_used => Ok(false),
            None => Err(EngineError::operator(
                "KAFKA_TRANSACTION_UNKNOWN",
                format!(
                    "sink kafka: the group {} has no offset any more, so nothing tells whether \
                     epoch {epoch} was written",
                    self.name
                ),
                "Kafka removes the offsets of a group after offsets.retention.minutes, and with \
                 its topic. Compare the topic with the checkpoint, then begin with a new one",
            )),
        }
    }

    /// Prepares for the first epoch of this run. `next_epoch` is the first one that the checkpoint
    /// has not committed, and `replays` says whether an earlier run has planned it. Fails with
    /// `KAFKA_SINK_AHEAD` if the topic has epochs that the checkpoint does not know.
    pub fn begin_run(
        &mut self,
        next_epoch: Epoch,
        replays: bool,
        (storage, mark): (&dyn Storage, &UseMark),
    ) -> Result<(), EngineError> {
        if replays {
            self.is_written(next_epoch)?;
        }
        match self.written_at_start {
            Some(written) if written > next_epoch + u64::from(replays) => {
                return Err(EngineError::operator(
                    "KAFKA_SINK_AHEAD",
                    format!(
                        "sink kafka: {written} epochs of this query are written, but its \
                         checkpoint goes only to {next_epoch}"
                    ),
                    "The checkpoint is an old copy: take the one that belongs to the topic",
                ));
            }
            Some(_) => {}
            None => {
                // The transaction also shows at the start whether the query has all the rights that
                // it needs.
                self.begin(0)?;
                self.add_offset(0, next_epoch)?;
                self.commit(0)?;
                self.set_written(next_epoch);
            }
        }
        if self.was_used { Ok(()) } else { mark.set(storage, &self.name) }
    }

    /// Ends hanging transactions of an earlier run: aborts a transaction of each producer that may
    /// have one, with a record in each partition concerned. Such a record has an empty key and no
    /// value, and only readers with `read_uncommitted` see it.
    ///
    /// `is_recent` says whether the last written epoch is not committed in the checkpoint: the end
    /// that a broker has lost may then be its commit, and its producer's transaction is left to the
    /// next commit.
    ///
    /// Does nothing if each row names its own topic, because it is not known which ones were
    /// written.
    pub fn end_hanging(&self, is_recent: bool) -> Result<(), EngineError> {
        let producers = producers_to_abort(self.last_producer, is_recent);
        let Some(topic) = self.options.topic.as_deref().filter(|_| !producers.is_empty()) else {
            return Ok(());
        };
        let partitions = partitions_with_open_transaction(&self.client, topic)?;
        if partitions.is_empty() {
            return Ok(());
        }
        for generation in producers.iter().copied() {
            self.begin(generation)?;
            let doing = "end a hanging transaction";
            for partition in &partitions {
                let record: BaseRecord<'_, [u8], [u8], usize> =
                    BaseRecord::with_opaque_to(topic, generation)
                        .key(b"".as_slice())
                        .partition(*partition);
                self.deliveries.add(generation);
                if let Err((error, _)) = self.producers[generation].send(record) {
                    self.deliveries.remove(generation);
                    return Err(self.failed(generation, doing, &error));
                }
            }
            let sent = self.producers[generation].flush(self.client.timeout);
            sent.map_err(|error| self.failed(generation, doing, &error))?;
            if let Some(reason) = self.deliveries.failure() {
                return Err(self.undelivered(&reason));
            }
            self.abort(generation)?;
        }
        Ok(())
    }

    /// One of the two producers, which alternate from epoch to epoch.
    #[inline]
    pub fn producer(&self, generation: usize) -> &RecordProducer {
        &self.producers[generation]
    }

    /// Whether a producer has an open transaction.
    pub fn is_open(&self, generation: usize) -> bool {
        // ORDERING: acquire: pairs with the release of whoever begins or ends the transaction.
        self.is_open[generation].load(Ordering::Acquire)
    }

    fn set_open(&self, generation: usize, is_open: bool) {
        // ORDERING: release: pairs with the acquire in `is_open`.
        self.is_open[generation].store(is_open, Ordering::Release);
    }

    fn set_written(&self, epochs: u64) {
        self.written.store(epochs, Ordering::Relaxed);
    }

    /// Notes that all records of an epoch's transaction are acknowledged. Call this before the
    /// driver is told.
    pub fn stage(&self, generation: usize, epoch: Epoch) {
        // ORDERING: relaxed: the driver reads it after the report, whose channel orders both.
        self.staged[generation].store(epoch + 1, Ordering::Relaxed);
    }

    /// Whether the open transaction of a producer belongs to this epoch. After a crash the driver
    /// finishes an epoch of the earlier run, while the worker may have begun the transaction of the
    /// next epoch with the same producer.
    fn is_staged(&self, staged: &StagedTransaction) -> bool {
        // ORDERING: relaxed: see `stage`.
        let last = self.staged[staged.producer].load(Ordering::Relaxed);
        last == staged.epoch + 1 && self.is_open(staged.producer)
    }

    /// Whether the broker's time limit of a producer's open transaction has passed.
    fn is_overdue(&self, generation: usize) -> bool {
        // ORDERING: relaxed: it decides only the text of an error.
        let begun_ns = self.begun_ns[generation].load(Ordering::Relaxed);
        let open_ms = self.started.elapsed().saturating_sub(Duration::from_nanos(begun_ns));
        self.is_open(generation) && open_ms.as_millis() >= u128::from(self.options.timeout_ms)
    }

    /// Begins a transaction.
    pub fn begin(&self, generation: usize) -> Result<(), EngineError> {
        // ORDERING: relaxed: see `is_overdue`.
        let now_ns = self.started.elapsed().as_nanos() as u64;
        self.begun_ns[generation].store(now_ns, Ordering::Relaxed);
        let begun = self.producers[generation].begin_transaction();
        begun.map_err(|error| self.failed(generation, "begin a transaction", &error))?;
        self.set_open(generation, true);
        Ok(())
    }

    fn add_offset(&self, generation: usize, epochs: u64) -> Result<(), EngineError> {
        let mut offsets = TopicPartitionList::new();
        let at = Offset::Offset(epochs as i64);
        let producer = &self.producers[generation];
        let mut entry = offsets.add_partition(&self.options.epoch_topic, 0);
        entry.set_metadata(generation.to_string());
        let added = entry.set_offset(at).and_then(|()| {
            retried(self.client.timeout, |left| {
                producer.send_offsets_to_transaction(&offsets, &self.group, left)
            })
        });
        added.map_err(|error| self.failed(generation, "write the epoch's number", &error))
    }

    fn commit(&self, generation: usize) -> Result<(), EngineError> {
        let producer = &self.producers[generation];
        let done = retried(self.client.timeout, |left| producer.commit_transaction(left));
        done.map_err(|error| self.failed(generation, "commit a transaction", &error))?;
        self.set_open(generation, false);
        Ok(())
    }

    fn abort(&self, generation: usize) -> Result<(), EngineError> {
        let producer = &self.producers[generation];
        let done = retried(self.client.timeout, |left| producer.abort_transaction(left));
        done.map_err(|error| self.failed(generation, "abort a transaction", &error))?;
        self.set_open(generation, false);
        Ok(())
    }

    /// The error of a record that was not delivered.
    pub fn undelivered(&self, reason: &str) -> EngineError {
        let doing = format!("write {reason}");
        let is_fatal = |producer: &&RecordProducer| producer.client().fatal_error().is_some();
        let fatal = self.producers.iter().position(|producer| is_fatal(&producer));
        let error = KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue);
        match fatal {
            Some(generation) => self.failed(generation, &doing, &error),
            None => EngineError::operator(
                "KAFKA_WRITE_FAILED",
                format!("sink kafka: cannot {doing}{}", self.cause_of_abort()),
                "The transaction is aborted: start the query again, and its epoch is written anew",
            ),
        }
    }

    /// Why the open transaction must be aborted. The delivery reports of its records may tell only
    /// that they were dropped.
    fn cause_of_abort(&self) -> String {
        let open = (0..self.producers.len()).filter(|generation| self.is_open(*generation));
        // To begin a transaction within another one changes nothing, and fails with the cause.
        let mut causes = open.filter_map(|at| match self.producers[at].begin_transaction() {
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => Some(error),
            _ => None,
        });
        causes.next().map_or(String::new(), |error| format!(": {error}"))
    }

    /// The error of a producer.
    pub fn failed(&self, generation: usize, doing: &str, error: &KafkaError) -> EngineError {
        if is_fenced(&self.producers[generation], error) && self.is_overdue(generation) {
            let limit_ms = self.options.timeout_ms;
            return EngineError::operator(
                "KAFKA_TRANSACTION_TIMED_OUT",
                format!(
                    "sink kafka: cannot {doing}: the epoch took longer than \
                     kafka.transaction.timeout.ms ({limit_ms} ms), and the broker has aborted its \
                     transaction"
                ),
                "Raise kafka.transaction.timeout.ms (most brokers allow 15 minutes), or make \
                 epochs shorter: by the trigger's interval, or by a limit of the batch's size",
            );
        }
        explained(&self.client, &self.name, &self.producers[generation], doing, error)
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        // Aborts open transactions. Otherwise readers with `read_committed` would wait for their
        // time-outs.
        for generation in 0..self.producers.len() {
            if self.is_open(generation) {
                drop(self.producers[generation].abort_transaction(ABORT_TIMEOUT));
            }
        }
    }
}

/// The producers whose open transactions are ended at a start. `last` is the producer of the last
/// written epoch; `None` if an older version wrote it. A producer may have begun a transaction after
/// its last commit: the producers alternate from marker to marker, also over epochs without rows, and
/// each run begins with the first one.
fn producers_to_abort(last: Option<usize>, is_recent: bool) -> &'static [usize] {
    match (last, is_recent) {
        (None, _) => &[],
        (Some(_), false) => &[0, 1],
        (Some(0), true) => &[1],
        (Some(_), true) => &[0],
    }
}

/// The last epoch that was written, from the group's offset.
struct LastWritten {
    /// The number of written epochs.
    epochs: u64,
    /// The producer of the last one. `None` if an older version wrote it.
    producer: Option<usize>,
}

/// Creates the topic of the group's offset if it does not exist, and reads the offset.
fn read_group(
    client: &Client,
    options: &TransactionOptions,
    name: &str,
) -> Result<(BaseConsumer, Option<LastWritten>), EngineError> {
    let topic = options.epoch_topic.as_str();
    let failed = |doing: &str, error: KafkaError| client.failed(doing, &error);
    let mut config = client.connection();
    config.set("group.id", name).set("enable.auto.commit", "false");
    // Reading the offset then waits for transactions that are being committed.
    config.set("isolation.level", "read_committed");
    let consumer: BaseConsumer =
        config.create().map_err(|error| failed("start a client", error))?;
    let metadata = retried(client.timeout, |left| consumer.client().fetch_metadata(None, left));
    let metadata = metadata.map_err(|error| failed("list the topics", error))?;
    if !metadata.topics().iter().any(|known| known.name() == topic) {
        create_topic(client, topic)?;
    }
    let mut one = TopicPartitionList::new();
    one.add_partition(topic, 0);
    let last = retried(client.timeout, |left| {
        let committed = consumer.committed_offsets(one.clone(), left)?;
        let Some(found) = committed.find_partition(topic, 0) else { return Ok(None) };
        found.error()?;
        let epochs = match found.offset() {
            Offset::Offset(epochs) => u64::try_from(epochs).ok(),
            _ => None,
        };
        let producer = found.metadata().parse().ok().filter(|producer| *producer < 2);
        Ok(epochs.map(|epochs| LastWritten { epochs, producer }))
    });
    let last = last.map_err(|error| failed("read the group of the query", error))?;
    Ok((consumer, last))
}

fn create_topic(client: &Client, topic: &str) -> Result<(), EngineError> {
    let doing = format!("create the topic {topic} (option 'epochTopic')");
    let failed = |error: KafkaError| client.failed(&doing, &error);
    let admin: AdminClient<DefaultClientContext> = client.connection().create().map_err(failed)?;
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
    let timeout = AdminOptions::new().operation_timeout(Some(client.timeout));
    for made in block_on(admin.create_topics([&new], &timeout)).map_err(failed)? {
        match made {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, error)) => return Err(failed(KafkaError::Global(error))),
        }
    }
    Ok(())
}

/// Whether the broker accepts no more requests of a producer, because another one has its id or
/// because its transaction has timed out.
fn is_fenced(producer: &RecordProducer, error: &KafkaError) -> bool {
    matches!(
        code(producer, error),
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    )
}

/// The code of a producer's fatal error, otherwise of `error`; `None` if that has no code.
fn code(producer: &RecordProducer, error: &KafkaError) -> Option<RDKafkaErrorCode> {
    let fatal = producer.client().fatal_error();
    fatal.map(|(code, _)| code).or(match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    })
}

/// The error of a producer. If another run has fenced the producer, the error says so.
fn explained(
    client: &Client,
    name: &str,
    producer: &RecordProducer,
    doing: &str,
    error: &KafkaError,
) -> EngineError {
    match code(producer, error) {
        _ if is_fenced(producer, error) => EngineError::operator(
            "KAFKA_SINK_FENCED",
            format!(
                "sink kafka: another run of this query has taken over its transactions ({name}): \
                 cannot {doing}"
            ),
            "Run the query once: two runs have a checkpoint with the same id",
        ),
        Some(RDKafkaErrorCode::InvalidTransactionTimeout) => EngineError::operator(
            "KAFKA_FAILED",
            format!("sink kafka: cannot {doing}: {error}"),
            "Lower kafka.transaction.timeout.ms: the broker's transaction.max.timeout.ms is less",
        ),
        _ => match producer.client().fatal_error() {
            Some((_, reason)) => client.failed(&format!("{doing} ({reason})"), error),
            None => client.failed(doing, error),
        },
    }
}

/// Commits the transactions of a sink.
pub struct TransactionLog(pub Arc<Transactions>);

fn parse(staged: &[String]) -> Result<Vec<StagedTransaction>, EngineError> {
    let parse = |line: &String| {
        let parsed = serde_json::from_str::<StagedTransaction>(line);
        parsed.ok().filter(|staged| staged.producer < 2).ok_or_else(|| {
            EngineError::operator(
                "CHECKPOINT_DAMAGED",
                format!("sink kafka: the checkpoint has staged output of another sink: {line}"),
                "Run the query with the sink that it had, until it has committed an epoch",
            )
        })
    };
    staged.iter().map(parse).collect()
}

impl SinkLog for TransactionLog {
    fn sync(&mut self, _storage: &dyn Storage, staged: &[String]) -> Result<(), EngineError> {
        let written = self.0.written.load(Ordering::Relaxed);
        for staged in parse(staged)?.iter().filter(|staged| staged.epoch >= written) {
            self.0.add_offset(staged.producer, staged.epoch + 1)?;
        }
        Ok(())
    }

    fn commit(
        &mut self,
        _storage: &dyn Storage,
        epoch: Epoch,
        staged: &[String],
    ) -> Result<(), EngineError> {
        let is_written = epoch < self.0.written.load(Ordering::Relaxed);
        for staged in parse(staged)?.iter().filter(|staged| self.0.is_staged(staged)) {
            // The batch was processed again, but an earlier run has already written it.
            if is_written {
                self.0.abort(staged.producer)?
            } else {
                self.0.commit(staged.producer)?
            }
        }
        if !is_written && !staged.is_empty() {
            self.0.set_written(epoch + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Producer 0 writes an epoch, the next epoch has no rows, and producer 0 begins the one after.
    #[test]
    fn the_producer_of_the_last_commit_is_spared_only_while_that_commit_is_recent() {
        for last in [0, 1] {
            assert_eq!(producers_to_abort(Some(last), false), [0, 1]);
            assert_eq!(producers_to_abort(Some(last), true), [1 - last]);
        }
        assert!(producers_to_abort(None, false).is_empty(), "written by an older version");
    }
}
