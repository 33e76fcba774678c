//! The Kafka source.
//!
//! One tasklet reads all partitions of a source through one consumer, whose broker threads wake the
//! worker when records arrive. Offsets are stored in the query's checkpoint, never in Kafka. The
//! offsets of the first start are stored before anything is read, so that a restart does not
//! resolve `latest` again.
//!
//! *Micro-batch mode.* A batch ends at planned offsets. The consumer reads ahead: records beyond
//! the end of the batch are buffered for the next one. A partition with `MAX_KEPT` buffered
//! records is paused.
//!
//! *Continuous mode.* A thread discovers new partitions, which are read from their earliest offset.
//!
//! In both modes the ids of the topics are compared with those of the checkpoint at the start and
//! every few seconds: a topic that was created again may be longer than the old one.

use crate::connect::kafka::client::is_transient;
use crate::connect::kafka::cluster::{Cluster, Partitions};
use crate::connect::kafka::consumer::{Consumer, Message};
use crate::connect::kafka::offsets::{ByPartition, EARLIEST, LATEST};
use crate::connect::kafka::options::{KafkaSourceConfig, Subscription};
use crate::connect::kafka::records;
use crate::connect::kafka::topic_ids::{KnownIds, TopicIds};
use crate::connect::kafka::topic_progress::TopicProgress;
use crate::connect::source_report::SourceProgress;
use crate::table::row::Row;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::checkpoint::log_entry;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::Env;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::{Io, Push};
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use millstream_engine::sync::waker::Waker;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// The number of buffered records beyond the batch's end from which on a partition is paused.
const MAX_KEPT: usize = 4096;
/// The interval at which continuous mode looks for new partitions.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);

/// The state of a partition.
struct Partition {
    topic: Arc<str>,
    partition: i32,
    /// The offset of the next record to emit.
    next: i64,
    /// The end offset of the current batch; `i64::MAX` outside of a batch.
    end: i64,
    /// Whether the partition has reached the end of the batch.
    is_done: bool,
    /// All records below this offset were taken from the consumer.
    reached: i64,
    /// Buffered records beyond the end of the batch.
    kept: VecDeque<Message>,
    /// The number of buffered records that were put back into [`KafkaSource::taken`]. They are the
    /// partition's next records.
    requeued: usize,
    is_paused: bool,
}

/// The latest offsets of topics that a query reads as a table.
pub struct TopicEnds {
    subscription: Subscription,
    cluster: Cluster,
}

impl TopicEnds {
    /// Creates a client of the cluster, which connects in the background. Fails only if the client
    /// refuses its options.
    pub fn new(config: &KafkaSourceConfig) -> Result<Self, EngineError> {
        let mut client = config.client.config();
        client.set("group.id", &config.group_prefix);
        let consumer = client.create();
        let consumer = consumer.map_err(|error| config.client.failed("start a client", &error))?;
        let cluster = Cluster { client: config.client.clone(), consumer: Arc::new(consumer) };
        Ok(Self { subscription: config.subscription.clone(), cluster })
    }

    /// A hash of the latest offsets. It changes when records arrive or partitions are added. Fails
    /// if the broker cannot be asked.
    pub fn version(&self) -> Result<u64, EngineError> {
        let partitions = self.cluster.partitions(&self.subscription)?;
        let ends = self.cluster.offsets_at(&partitions, LATEST)?;
        Ok(hash_bytes(ends.to_string().as_bytes()))
    }
}

/// Reads the partitions of a subscription.
pub struct KafkaSource {
    config: KafkaSourceConfig,
    env: Arc<dyn Env>,
    folder: Option<PathBuf>,
    notice: fn(&str),
    // Messages are released before the consumer, whose end waits for them: fields are dropped in
    // this order.
    partitions: Vec<Partition>,
    /// Messages taken from the consumer and not yet processed.
    taken: VecDeque<Message>,
    consumer: Consumer,
    cluster: Cluster,
    /// Indices in `partitions`, by [`Message::partition_key`].
    by_key: HashMap<(usize, i32), usize>,
    /// Whether the starting offsets are known.
    is_started: bool,
    is_bounded: bool,
    /// The number of partitions that have not reached the end of the batch.
    open: usize,
    /// Trigger available-now: the end offsets of the first plan.
    available_at_start: Option<ByPartition>,
    /// The time of the last plan, on the monotonic clock in nanoseconds.
    planned_ns: Option<u64>,
    /// While draining: the latest offsets when the drain began.
    drain: Option<ByPartition>,
    records: u64,
    row: Vec<u8>,
    waker: Option<Waker>,
    discovery: Option<Discovery>,
    ids: KnownIds,
    /// The time of the last comparison of topic ids, on the monotonic clock in nanoseconds.
    ids_compared_ns: Option<u64>,
    progress: Arc<TopicProgress>,
}

/// The partitions and topic ids that the discovery thread has found.
struct Discovered {
    partitions: Partitions,
    ids: TopicIds,
}

/// The thread that discovers new partitions. Dropping this struct ends the thread.
struct Discovery {
    found: Receiver<Discovered>,
    _stop: Sender<()>,
}

impl Discovery {
    fn start(
        cluster: Cluster,
        subscription: Subscription,
        waker: Waker,
    ) -> Result<Self, EngineError> {
        let (stop, stopped) = channel::<()>();
        let (tell, found) = channel();
        let run = move || {
            let mut last = None;
            let find = || {
                let partitions = cluster.partitions(&subscription)?;
                let ids = cluster.topic_ids(&partitions)?;
                Ok::<_, EngineError>((partitions, ids))
            };
            while stopped.recv_timeout(DISCOVERY_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // An unreachable broker is reported by the consumer.
                let Ok(found) = find() else { continue };
                if last.as_ref() != Some(&found) {
                    let (partitions, ids) = found.clone();
                    last = Some(found);
                    if tell.send(Discovered { partitions, ids }).is_err() {
                        return;
                    }
                    waker.wake();
                }
            }
        };
        let thread = thread::Builder::new().name("kafka-partitions".to_string());
        thread.spawn(run).map_err(|error| EngineError::runtime("start a thread", error))?;
        Ok(Self { found, _stop: stop })
    }
}

/// The error for lost data, with Spark's condition.
fn data_loss(condition: &str, reason: String) -> EngineError {
    EngineError::operator(
        format!("KAFKA_DATA_LOSS.{condition}"),
        format!("source kafka: {reason}; records may have been lost"),
        "With failOnDataLoss 'false' the query continues with the remaining records",
    )
}

impl KafkaSource {
    /// Creates the source. `folder` stores the offsets of the first start.
    pub fn new(
        config: KafkaSourceConfig,
        env: Arc<dyn Env>,
        folder: Option<PathBuf>,
        notice: fn(&str),
    ) -> Result<Self, EngineError> {
        let mut client = config.client.config();
        if client.get("group.id").is_none() {
            client.set("group.id", format!("{}-{:016x}", config.group_prefix, env.random()));
        }
        let consumer = Consumer::new(&client);
        let consumer = consumer.map_err(|error| config.client.failed("start a client", &error))?;
        let cluster =
            Cluster { client: config.client.clone(), consumer: consumer.client().clone() };
        let description = config.description();
        let progress = TopicProgress::new(description, consumer.client().clone());
        let stored = folder.as_deref().filter(|_| config.is_stream);
        Ok(Self {
            ids: KnownIds::new(stored),
            ids_compared_ns: None,
            progress: Arc::new(progress),
            config,
            env,
            folder,
            notice,
            consumer,
            cluster,
            partitions: Vec::new(),
            by_key: HashMap::new(),
            taken: VecDeque::new(),
            is_started: false,
            is_bounded: false,
            open: 0,
            available_at_start: None,
            planned_ns: None,
            drain: None,
            records: 0,
            row: Vec::new(),
            waker: None,
            discovery: None,
        })
    }

    fn failed(&self, doing: &str, error: &KafkaError) -> EngineError {
        self.config.client.failed(doing, error)
    }

    /// The source's part of progress reports.
    pub fn progress(&self) -> Arc<dyn SourceProgress> {
        self.progress.clone()
    }

    /// Compares the ids of the topics with the known ones, at most every few seconds.
    fn compare_ids(&mut self, now_ns: u64) -> Result<(), EngineError> {
        let interval_ns = DISCOVERY_INTERVAL.as_nanos() as u64;
        if self.ids_compared_ns.is_some_and(|last_ns| now_ns < last_ns + interval_ns) {
            return Ok(());
        }
        self.ids_compared_ns = Some(now_ns);
        let partitions = self.offsets();
        let partitions: Partitions =
            partitions.iter().map(|(topic, at, _)| (topic.to_string(), at)).collect();
        let ids = self.cluster.topic_ids(&partitions)?;
        self.take_ids(ids)
    }

    fn take_ids(&mut self, ids: TopicIds) -> Result<(), EngineError> {
        let again = self.ids.changed(self.env.storage(), &ids)?;
        if !again.is_empty() {
            let reason = format!(
                "{} was deleted and created again under its name: its offsets are not those of \
                 the checkpoint",
                again.join(", ")
            );
            // If this fails, the new ids stay unknown, so that a restart fails again.
            self.lost("PARTITIONS_DELETED", reason)?;
        }
        self.ids.update(self.env.storage(), ids)
    }

    // ---- offsets ----

    /// The next offset of each partition.
    fn offsets(&self) -> ByPartition {
        let mut offsets = ByPartition::default();
        for partition in &self.partitions {
            offsets.set(&partition.topic, partition.partition, partition.next);
        }
        offsets
    }

    /// Loads the starting offsets, or resolves and stores them at the first start. Returns false,
    /// and does nothing, if the source has started already in this run.
    fn start(&mut self) -> Result<bool, EngineError> {
        if self.is_started {
            return Ok(false);
        }
        let offsets = match self.first_offsets()? {
            Some(offsets) => offsets,
            None => {
                let partitions = self.cluster.partitions(&self.config.subscription)?;
                let (start, no_match) = (&self.config.start, Some(self.config.no_match));
                let is_stream = self.config.is_stream;
                let offsets = self.cluster.resolve(start, &partitions, no_match, is_stream)?;
                self.keep_first_offsets(&offsets)?;
                offsets
            }
        };
        self.go_to(&offsets)?;
        Ok(true)
    }

    fn first_offsets(&self) -> Result<Option<ByPartition>, EngineError> {
        let Some(folder) = self.folder.as_deref().filter(|_| self.config.is_stream) else {
            return Ok(None);
        };
        let path = folder.join("0");
        match log_entry::read(self.env.storage(), &path) {
            Ok(lines) => {
                let offsets = lines.first().and_then(|line| ByPartition::parse(line));
                let damaged = || log_entry::damaged(&path, "it holds no offsets");
                offsets.map(Some).ok_or_else(damaged)
            }
            Err(error) if error.condition() == "CHECKPOINT_FILE_MISSING" => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn keep_first_offsets(&self, offsets: &ByPartition) -> Result<(), EngineError> {
        let Some(folder) = self.folder.as_deref().filter(|_| self.config.is_stream) else {
            return Ok(());
        };
        let storage = self.env.storage();
        let made = storage.create_folder(folder);
        made.map_err(|error| log_entry::write_failed(folder, &error))?;
        log_entry::write(storage, &folder.join("0"), [offsets.to_string().as_str()])
    }

    fn parse(&self, at: &Offset) -> Result<ByPartition, EngineError> {
        ByPartition::parse(&at.0).ok_or_else(|| {
            EngineError::operator(
                "INVALID_OFFSET",
                format!("'{}' is not an offset of a Kafka source", at.0),
                "The checkpoint was written by another source: start over with an empty one",
            )
        })
    }

    /// Reads exactly these partitions from these offsets. Drops records that were read ahead.
    fn go_to(&mut self, offsets: &ByPartition) -> Result<(), EngineError> {
        self.is_started = true;
        self.taken.clear();
        self.by_key.clear();
        self.partitions.clear();
        for (topic, partition, next) in offsets.iter() {
            self.partitions.push(Partition::new(topic, partition, next));
        }
        let assigned = self.consumer.assign(offsets.iter());
        assigned.map_err(|error| self.failed("read partitions", &error))
    }

    /// Adds partitions to those that are read.
    fn add(&mut self, offsets: &ByPartition) -> Result<(), EngineError> {
        for (topic, partition, next) in offsets.iter() {
            self.partitions.push(Partition::new(topic, partition, next));
        }
        let assigned = self.consumer.assign_more(offsets.iter());
        assigned.map_err(|error| self.failed("read new partitions", &error))
    }

    fn is_known(&self, topic: &str, partition: i32) -> bool {
        self.partitions.iter().any(|known| &*known.topic == topic && known.partition == partition)
    }

    /// Seeks a partition to an offset other than the consumer's next one.
    fn move_to(&mut self, index: usize, next: i64) -> Result<(), EngineError> {
        self.partitions[index].next = next;
        let offsets = self.offsets();
        let ends: Vec<_> = self.partitions.iter().map(|p| (p.end, p.is_done)).collect();
        self.go_to(&offsets)?;
        for (partition, (end, is_done)) in self.partitions.iter_mut().zip(ends) {
            (partition.end, partition.is_done) = (end, is_done);
        }
        self.close_reached(index);
        Ok(())
    }

    /// Marks a partition as done if it has reached the end of the batch.
    fn close_reached(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        if !partition.is_done && partition.next >= partition.end {
            partition.is_done = true;
            self.open -= 1;
        }
    }

    // ---- messages ----

    fn index_of(&mut self, message: &Message) -> Option<usize> {
        let key = message.partition_key();
        if let Some(index) = self.by_key.get(&key) {
            return Some(*index);
        }
        let topic = message.topic();
        let is_it = |known: &Partition| &*known.topic == topic && known.partition == key.1;
        let index = self.partitions.iter().position(is_it)?;
        self.by_key.insert(key, index);
        Some(index)
    }

    /// Emits a record if it belongs to the batch. Returns whether it was emitted. A record after the
    /// batch's end is kept for later, and one that was emitted already is dropped.
    #[inline]
    fn record<D: for<'a> Push<Row<'a>>>(
        &mut self,
        message: Message,
        now_ns: u64,
        down: &mut D,
    ) -> Result<bool, EngineError> {
        let Some(index) = self.index_of(&message) else { return Ok(false) };
        let (offset, with_headers) = (message.offset(), self.config.with_headers);
        let partition = &mut self.partitions[index];
        partition.requeued = partition.requeued.saturating_sub(1);
        if offset < partition.next {
            return Ok(false);
        }
        partition.reached = partition.reached.max(offset + 1);
        if offset >= partition.end {
            partition.kept.push_back(message);
            // Records of the partition are ordered, so all below the end have been emitted.
            partition.next = partition.next.max(partition.end);
            let pauses = partition.kept.len() >= MAX_KEPT && !partition.is_paused;
            self.close_reached(index);
            if pauses {
                self.pause(index)?;
            }
            return Ok(false);
        }
        records::write(&message, &partition.topic, with_headers, &mut self.row);
        partition.next = offset + 1;
        partition.skip_to_reached();
        self.records += 1;
        down.push(Row(&self.row), now_ns)?;
        self.close_reached(index);
        Ok(true)
    }

    fn pause(&mut self, index: usize) -> Result<(), EngineError> {
        let partition = &mut self.partitions[index];
        partition.is_paused = true;
        let paused = self.consumer.set_paused(&partition.topic, partition.partition, true);
        paused.map_err(|error| self.failed("pause a partition", &error))
    }

    /// Handles an event: a message that is not a record, but the end of a partition or an error.
    /// Temporary errors are only reported to the user.
    fn event(&mut self, error: RDKafkaErrorCode, message: &Message) -> Result<(), EngineError> {
        let index = self.index_of(message);
        match (error, index) {
            (RDKafkaErrorCode::PartitionEOF, Some(index)) => self.at_end(index, message.offset()),
            (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange, Some(at)) => {
                self.out_of_range(at)
            }
            (
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
                _,
            ) => self.partitions_deleted(message),
            // The client reconnects by itself.
            (error, _) if is_transient(error) => {
                (self.notice)(&format!("source kafka: {}; trying again", message.error_text()));
                Ok(())
            }
            _ => {
                let doing = format!("read ({})", message.error_text());
                Err(self.failed(&doing, &KafkaError::MessageConsumption(error)))
            }
        }
    }

    /// Handles the end of a partition: all messages before `end` were taken.
    fn at_end(&mut self, index: usize, end: i64) -> Result<(), EngineError> {
        let partition = &mut self.partitions[index];
        partition.reached = partition.reached.max(end);
        partition.skip_to_reached();
        self.close_reached(index);
        let partition = &self.partitions[index];
        if !self.is_bounded || partition.is_done || partition.requeued > 0 {
            return Ok(());
        }
        // The batch's end is beyond the partition's end: data was lost, unless records have arrived
        // in the meantime.
        let of = (&*partition.topic.clone(), partition.partition, LATEST);
        let latest = self.cluster.offsets([of])?.get(of.0, of.1).unwrap_or(LATEST);
        let end = self.partitions[index].end;
        if latest >= end {
            return Ok(());
        }
        let reason = format!(
            "partition {} of topic {} ends at offset {latest}, before offset {end}",
            of.1, of.0
        );
        self.lost("COULD_NOT_READ_OFFSET_RANGE", reason)?;
        self.partitions[index].next = end;
        self.close_reached(index);
        Ok(())
    }

    /// Fails if `failOnDataLoss` is set. Otherwise reports what was lost in a notice.
    fn lost(&self, condition: &str, reason: String) -> Result<(), EngineError> {
        if self.config.fail_on_data_loss {
            return Err(data_loss(condition, reason));
        }
        (self.notice)(&format!("source kafka: {reason}; continuing (failOnDataLoss 'false')"));
        Ok(())
    }

    /// Handles a missing next record: it was deleted, or the partition was truncated. That is an
    /// error, unless the options accept lost data. Then, or if the record exists after all, reading
    /// continues at the nearest existing offset.
    fn out_of_range(&mut self, index: usize) -> Result<(), EngineError> {
        let partition = &self.partitions[index];
        let (topic, number, next) = (partition.topic.clone(), partition.partition, partition.next);
        let at = |at| -> Result<i64, EngineError> {
            let found = self.cluster.offsets([(&*topic, number, at)])?;
            Ok(found.get(&topic, number).unwrap_or(next))
        };
        let (earliest, latest) = (at(EARLIEST)?, at(LATEST)?);
        if next < earliest {
            let reason = format!(
                "the offsets from {next} to {earliest} of partition {number} of topic {topic} were \
                 deleted"
            );
            self.lost("COULD_NOT_READ_OFFSET_RANGE", reason)?;
            return self.move_to(index, earliest);
        }
        if next > latest {
            let reason = format!(
                "partition {number} of topic {topic} ends at offset {latest}, before offset {next}"
            );
            self.lost("PARTITION_OFFSET_CHANGED", reason)?;
            return self.move_to(index, latest);
        }
        self.move_to(index, next)
    }

    fn partitions_deleted(&mut self, message: &Message) -> Result<(), EngineError> {
        let Some(index) = self.index_of(message) else { return Ok(()) };
        let partition = &self.partitions[index];
        let reason =
            format!("partition {} of topic {} was deleted", partition.partition, partition.topic);
        self.lost("PARTITIONS_DELETED", reason)?;
        let partition = &mut self.partitions[index];
        if self.is_bounded && !partition.is_done {
            partition.is_done = true;
            self.open -= 1;
        }
        Ok(())
    }

    /// Switches to continuous mode after a batch that an earlier run had planned. Partitions then
    /// have no end offset.
    fn leave_batch(&mut self) {
        for partition in self.partitions.iter_mut().filter(|known| known.end != i64::MAX) {
            (partition.end, partition.is_done) = (i64::MAX, false);
            partition.requeue(&mut self.taken);
        }
    }

    /// Starts reading the partitions that the discovery thread has found.
    fn take_discovered(&mut self) -> Result<(), EngineError> {
        let Some(found) = self.discovery.as_ref().and_then(|d| d.found.try_iter().last()) else {
            return Ok(());
        };
        let fresh = |(topic, at): &&(String, i32)| !self.is_known(topic, *at);
        let fresh: Partitions = found.partitions.iter().filter(fresh).cloned().collect();
        if !fresh.is_empty() {
            let offsets = self.cluster.offsets_at(&fresh, EARLIEST)?;
            self.add(&offsets)?;
        }
        self.take_ids(found.ids)
    }

    // ---- planning ----

    /// Resolves the end offsets of a batch query.
    fn batch_end(&self) -> Result<ByPartition, EngineError> {
        let offsets = self.offsets();
        let partitions: Partitions =
            offsets.iter().map(|(topic, at, _)| (topic.to_string(), at)).collect();
        let end = self.cluster.resolve(&self.config.end, &partitions, None, false)?;
        for (topic, partition, from) in offsets.iter() {
            if let Some(to) = end.get(topic, partition).filter(|to| from > *to) {
                return Err(EngineError::operator(
                    "RESOLVED_START_OFFSET_GREATER_THAN_END_OFFSET",
                    format!(
                        "source kafka: the start offset {from} is greater than the end offset {to} \
                         of partition {partition} of topic {topic}"
                    ),
                    "Start at or before the end",
                ));
            }
        }
        Ok(end)
    }

    /// Queries the latest offsets of all partitions, after looking for new and deleted ones.
    fn latest(&mut self) -> Result<ByPartition, EngineError> {
        let found = self.cluster.partitions(&self.config.subscription)?;
        let own = self.offsets();
        let gone = |(topic, at, _): &(&str, i32, i64)| !found.contains(&(topic.to_string(), *at));
        let gone: Vec<_> =
            own.iter().filter(gone).map(|(topic, at, _)| format!("{topic}-{at}")).collect();
        if !gone.is_empty() {
            let reason = format!("the partitions {} no longer exist", gone.join(", "));
            self.lost("PARTITIONS_DELETED", reason)?;
        }
        let latest = self.cluster.offsets_at(&found, LATEST)?;
        for (topic, partition, next) in own.iter() {
            if let Some(end) = latest.get(topic, partition).filter(|end| *end < next) {
                let reason = format!(
                    "partition {partition} of topic {topic} ends at offset {end}, before offset \
                     {next}"
                );
                self.lost("PARTITION_OFFSET_CHANGED", reason)?;
            }
        }
        Ok(latest)
    }

    /// The earliest offsets of partitions that are planned but not read yet.
    fn first_of_new(&self, ends: &ByPartition) -> Result<ByPartition, EngineError> {
        let fresh = ends.iter().filter(|(topic, at, _)| !self.is_known(topic, *at));
        self.cluster.offsets(fresh.map(|(topic, at, _)| (topic, at, EARLIEST)))
    }

    /// Reduces a batch to `maxOffsetsPerTrigger`, each partition in proportion to its backlog.
    fn limited(&self, latest: &ByPartition, first_of_new: &ByPartition) -> ByPartition {
        let Some(limit) = self.config.max_offsets else { return latest.clone() };
        let own = self.offsets();
        let from = |topic: &str, at: i32| {
            own.get(topic, at).or_else(|| first_of_new.get(topic, at)).unwrap_or(0)
        };
        let backlog = |topic: &str, at: i32, end: i64| (end - from(topic, at)).max(0) as u64;
        let total: u64 = latest.iter().map(|(topic, at, end)| backlog(topic, at, end)).sum();
        if total <= limit {
            return latest.clone();
        }
        let mut ends = ByPartition::default();
        for (topic, at, end) in latest.iter() {
            let size = backlog(topic, at, end);
            let share = limit as f64 * size as f64 / total as f64;
            let share = if share < 1.0 && size > 0 { 1 } else { share as i64 };
            let end = if size > 0 { (from(topic, at) + share).min(end) } else { end };
            ends.set(topic, at, end);
        }
        ends
    }
}

impl Partition {
    fn new(topic: &str, partition: i32, next: i64) -> Self {
        Self {
            topic: topic.into(),
            partition,
            next,
            end: i64::MAX,
            is_done: false,
            reached: next,
            kept: VecDeque::new(),
            requeued: 0,
            is_paused: false,
        }
    }

    /// Puts the buffered records in front of all other taken messages.
    fn requeue(&mut self, taken: &mut VecDeque<Message>) {
        self.requeued += self.kept.len();
        for message in self.kept.drain(..).rev() {
            taken.push_front(message);
        }
    }

    /// Advances the next offset past transaction markers and deleted records, which are never
    /// delivered. Stops at the end of the batch.
    fn skip_to_reached(&mut self) {
        if self.requeued == 0 {
            self.next = self.next.max(self.reached.min(self.end));
        }
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for KafkaSource {
    fn name(&self) -> &str {
        "kafka"
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        let waker = io.waker.clone();
        self.waker = Some(waker.clone());
        self.consumer.on_message(move || waker.wake());
        Ok(())
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        if !self.is_bounded {
            self.start()?;
            self.leave_batch();
            if self.discovery.is_none()
                && let Some(waker) = self.waker.clone()
            {
                self.compare_ids(cx.env.now_ns())?;
                let subscription = self.config.subscription.clone();
                let started = Discovery::start(self.cluster.clone(), subscription, waker);
                self.discovery = Some(started?);
            }
            self.take_discovered()?;
        }
        let now_ns = cx.env.now_ns();
        let (mut emitted, mut handled) = (0, 0);
        while handled < cx.budget && down.is_ready() && !(self.is_bounded && self.open == 0) {
            let Some(message) = self.taken.pop_front() else {
                if self.consumer.take(&mut self.taken) == 0 {
                    break;
                }
                continue;
            };
            handled += 1;
            match message.error() {
                None => emitted += usize::from(self.record(message, now_ns, down)?),
                Some(error) => self.event(error, &message)?,
            }
        }
        if self.is_bounded && self.open == 0 {
            self.is_bounded = false;
            return Ok(Polled::AtEndOffset);
        }
        if self.drain.is_some() && !Source::<D>::is_drained(self) {
            // Records of the drain are still in flight; the marker waits for them.
            return Ok(Polled::Emitted);
        }
        let is_busy = emitted > 0 || handled == cx.budget || !down.is_ready();
        Ok(if is_busy { Polled::Emitted } else { Polled::Idle })
    }

    fn begin_drain(&mut self) {
        let own = self.offsets();
        let ends = own.iter().map(|(topic, partition, _)| (topic, partition, LATEST));
        // If the cluster does not answer, the drain covers only what has arrived.
        self.drain = self.cluster.offsets(ends).ok();
    }

    fn is_drained(&mut self) -> bool {
        let Some(ends) = &self.drain else { return false };
        let is_behind = |known: &Partition| {
            ends.get(&known.topic, known.partition).is_some_and(|end| known.next < end)
        };
        if self.partitions.iter().any(is_behind) {
            return false;
        }
        self.drain = None;
        true
    }

    fn position(&self) -> Offset {
        Offset(self.offsets().to_string())
    }

    fn records_emitted(&self) -> u64 {
        self.records
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        let offsets = self.parse(at)?;
        self.go_to(&offsets)
    }

    fn plan(&mut self, extent: ReadLimit, cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        let is_first = self.start()?;
        let own = self.offsets();
        if !self.config.is_stream {
            let end = match self.available_at_start.take() {
                Some(end) => end,
                None => self.batch_end()?,
            };
            self.available_at_start = Some(end.clone());
            let end = Offset(end.to_string());
            return Ok(EndOffset { end, has_new: is_first, exhausted: true, limited: false });
        }
        let latest = match (&self.available_at_start, extent) {
            (Some(ends), ReadLimit::AvailableAtStart) => ends.clone(),
            _ => self.latest()?,
        };
        if extent == ReadLimit::AvailableAtStart {
            self.available_at_start = Some(latest.clone());
        }
        self.compare_ids(cx.env.now_ns())?;
        self.progress.set_planned(&latest);
        let first_of_new = self.first_of_new(&latest)?;
        let from = |topic: &str, at: i32| {
            own.get(topic, at).or_else(|| first_of_new.get(topic, at)).unwrap_or(0)
        };
        let backlog: i64 =
            latest.iter().map(|(topic, at, end)| (end - from(topic, at)).max(0)).sum();
        let now_ns = cx.env.now_ns();
        if let (Some(min), Some(planned_ns)) = (self.config.min_offsets, self.planned_ns)
            && (backlog as u64) < min
            && now_ns < planned_ns.saturating_add(self.config.max_delay_ns)
            && !is_first
        {
            let end = Offset(own.to_string());
            return Ok(EndOffset { end, has_new: false, exhausted: false, limited: false });
        }
        let end = match extent {
            ReadLimit::All => latest.clone(),
            ReadLimit::RateLimited | ReadLimit::AvailableAtStart => {
                self.limited(&latest, &first_of_new)
            }
        };
        let has_new = is_first || end != own;
        if has_new || self.planned_ns.is_none() {
            self.planned_ns = Some(now_ns);
        }
        let limited = end != latest;
        Ok(EndOffset { end: Offset(end.to_string()), has_new, exhausted: false, limited })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        let ends = self.parse(end)?;
        self.start()?;
        let first_of_new = self.first_of_new(&ends)?;
        if !first_of_new.0.is_empty() {
            self.add(&first_of_new)?;
        }
        let is_gone = |known: &Partition| ends.get(&known.topic, known.partition).is_none();
        if self.partitions.iter().any(is_gone) {
            let mut offsets = ByPartition::default();
            for known in self.partitions.iter().filter(|known| !is_gone(known)) {
                offsets.set(&known.topic, known.partition, known.next);
            }
            self.go_to(&offsets)?;
        }
        self.is_bounded = true;
        self.open = 0;
        let mut to_move = Vec::new();
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let end = ends.get(&partition.topic, partition.partition).unwrap_or(partition.next);
            partition.end = end;
            if end < partition.next {
                to_move.push((index, end));
            }
            partition.requeue(&mut self.taken);
            partition.skip_to_reached();
            partition.is_done = partition.next >= end;
            self.open += usize::from(!partition.is_done);
        }
        // Buffered records are processed again, and partitions that were paused for them resume.
        for index in 0..self.partitions.len() {
            let partition = &mut self.partitions[index];
            if std::mem::take(&mut partition.is_paused) {
                let resumed =
                    self.consumer.set_paused(&partition.topic, partition.partition, false);
                resumed.map_err(|error| self.failed("resume a partition", &error))?;
            }
        }
        for (index, end) in to_move {
            self.move_to(index, end)?;
        }
        Ok(())
    }
}
