//! The Kafka source.
//!
//! Each tasklet of a source reads the partitions that are dealt to it through a consumer of its
//! own, whose broker threads wake the worker when records arrive. Offsets are stored in the query's
//! checkpoint, one entry for all tasklets, so that a restart may have another number of them. With
//! a checkpoint, the offsets of the first start are stored before anything is read, so that a
//! restart does not resolve `latest` again. A thread asks the cluster (`requests.rs`); workers do
//! not wait for it.
//!
//! *Micro-batch mode.* A batch ends at planned offsets. The consumer reads ahead: records beyond
//! the end of the batch are buffered for the next one. A partition with `MAX_KEPT` buffered
//! records is paused.
//!
//! *Continuous mode.* New partitions are read from their earliest offset. The watermark is that of
//! the slowest partition; a partition is passed over if it has been at its end without records for
//! the idle time-out.
//!
//! The ids of the topics are compared with those of the checkpoint, because a topic that was
//! created again may be longer than the old one: in micro-batch mode when a batch is planned, but
//! at most every few seconds, and in continuous mode at the start and every few seconds.

use crate::connect::kafka::client::is_transient;
use crate::connect::kafka::cluster::{Cluster, Partitions};
use crate::connect::kafka::consumer::{Consumer, Message};
use crate::connect::kafka::offsets::{ByPartition, EARLIEST, LATEST};
use crate::connect::kafka::options::{KafkaSourceConfig, Subscription};
use crate::connect::kafka::partition::{MAX_KEPT, Partition};
use crate::connect::kafka::records::Columns;
use crate::connect::kafka::requests::{Asker, Available, LossReport, Pending, Requests};
use crate::connect::kafka::topic_progress::TopicProgress;
use crate::connect::source_report::SourceProgress;
use crate::table::row::Row;
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::Env;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::epoch::source_partitions::SourcePartitions;
use millstream_engine::error::EngineError;
use millstream_engine::event::IDLE;
use millstream_engine::runtime::stage::{Io, Push};
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use millstream_engine::sync::waker::Waker;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Continuous mode: the time without records after which a partition counts as idle, in
/// nanoseconds, unless the session's time is shorter.
const PARTITION_IDLE_NS: u64 = 100_000_000;
/// The shortest time between two commits to the consumer group, in nanoseconds.
const GROUP_COMMIT_NS: u64 = 1_000_000_000;

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

/// Which partitions of a source a tasklet reads. Partitions that appear later are dealt in the same
/// way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deal {
    part: usize,
    parts: usize,
}

impl Deal {
    /// Whether the tasklet reads a partition. Consecutive partitions of a topic go to consecutive
    /// tasklets; the topic decides which is the first.
    fn is_own(self, topic: &str, partition: i32) -> bool {
        let first = hash_bytes(topic.as_bytes()) as usize % self.parts;
        (first + partition as usize) % self.parts == self.part
    }

    /// The partitions that the tasklet reads.
    fn own(self, mut all: ByPartition) -> ByPartition {
        if self.parts > 1 {
            for (topic, partitions) in &mut all.0 {
                partitions.retain(|partition, _| self.is_own(topic, *partition));
            }
            all.0.retain(|_, partitions| !partitions.is_empty());
        }
        all
    }
}

/// Merges the offsets of a source's tasklets.
pub(crate) fn merge_offsets(of_tasklets: &[Offset]) -> Offset {
    let mut all = ByPartition::default();
    for offsets in of_tasklets.iter().filter_map(|offset| ByPartition::parse(&offset.0)) {
        for (topic, partition, at) in offsets.iter() {
            all.set(topic, partition, at);
        }
    }
    Offset(all.to_string())
}

/// What a drain of continuous mode waits for.
enum Drain {
    /// The latest offsets have been asked for.
    Asked(Pending<ByPartition>),
    /// The latest offsets when the drain began.
    To(ByPartition),
}

/// The answer to the request of a plan.
struct Plan {
    /// The first offsets, if the source had not started.
    start: Option<ByPartition>,
    available: Available,
}

/// How a source is opened.
pub(crate) struct SourceSetup {
    /// The parsed options.
    pub config: KafkaSourceConfig,
    /// The environment of the job.
    pub env: Arc<dyn Env>,
    /// The source's folder in the checkpoint, which stores the offsets of the first start.
    pub folder: Option<PathBuf>,
    /// Receives notices for the user.
    pub notice: fn(&str),
    /// The number of tasklets.
    pub parts: usize,
    /// The session's idle time-out.
    pub idle_after_ns: Option<u64>,
    /// Which of the source's columns are read.
    pub needed: Vec<bool>,
}

impl SourceSetup {
    /// Opens the source: one for each tasklet.
    pub fn open(&self) -> Result<Vec<KafkaSource>, EngineError> {
        let mut sources: Vec<KafkaSource> = Vec::new();
        for part in 0..self.parts {
            let requests = sources.first().map(|first| first.requests.clone());
            sources.push(KafkaSource::new(self, part, requests)?);
        }
        Ok(sources)
    }
}

/// Reads partitions of a subscription.
pub struct KafkaSource {
    config: KafkaSourceConfig,
    deal: Deal,
    loss: LossReport,
    // Messages are released before the consumer, whose end waits for them: fields are dropped in
    // this order.
    partitions: Vec<Partition>,
    /// Messages taken from the consumer and not yet processed.
    taken: VecDeque<Message>,
    consumer: Consumer,
    cluster: Cluster,
    requests: Requests,
    /// Indices in `partitions`, by [`Message::partition_key`].
    by_key: HashMap<(usize, i32), usize>,
    /// The last entry of `by_key` that was used.
    last_used: Option<((usize, i32), usize)>,
    /// The number of each partition in `shared`, which it keeps.
    lanes: HashMap<(Arc<str>, i32), usize>,
    shared: SourcePartitions,
    /// Whether the starting offsets are known.
    is_started: bool,
    starting: Option<Pending<ByPartition>>,
    is_bounded: bool,
    /// The number of partitions that have not reached the end of the batch.
    open: usize,
    /// The end of a batch that cannot be applied yet, and the first offsets of new partitions if they
    /// have been asked for.
    ending: Option<(ByPartition, Option<Pending<ByPartition>>)>,
    planning: Option<Pending<Plan>>,
    /// The answer for the next call of `plan`.
    planned: Option<Plan>,
    /// The first offsets of partitions that were planned and are not read yet.
    first_of_new: ByPartition,
    /// Trigger available-now: the end offsets of the first plan.
    available_at_start: Option<ByPartition>,
    /// The time of the last plan, on the monotonic clock in nanoseconds.
    planned_ns: Option<u64>,
    drain: Option<Drain>,
    records: u64,
    columns: Columns,
    row: Vec<u8>,
    waker: Option<Waker>,
    discovered: Option<Receiver<Result<Partitions, EngineError>>>,
    /// The first offsets of discovered partitions, asked for.
    adding: Option<Pending<ByPartition>>,
    comparing: Option<Pending<()>>,
    session_idle_ns: Option<u64>,
    /// The earliest time at which a partition may become idle.
    next_idle_ns: u64,
    /// The last time at which the chain was full.
    blocked_ns: u64,
    /// Whether the chain was told that the source is idle.
    is_idle: bool,
    /// The time of the last commit to the consumer group, and the offsets that are not committed
    /// there yet.
    group_commit: (u64, Option<ByPartition>),
    env: Arc<dyn Env>,
    progress: Arc<TopicProgress>,
}

impl KafkaSource {
    fn new(
        setup: &SourceSetup,
        part: usize,
        requests: Option<Requests>,
    ) -> Result<Self, EngineError> {
        let (config, env) = (setup.config.clone(), setup.env.clone());
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
        let loss = LossReport { is_error: config.fail_on_data_loss, notice: setup.notice };
        let requests = match requests {
            Some(requests) => requests,
            None => {
                let (cluster, config, folder) =
                    (cluster.clone(), config.clone(), setup.folder.clone());
                Requests::start(cluster, config, env.clone(), folder, loss)?
            }
        };
        Ok(Self {
            columns: Columns::new(&setup.needed, config.with_headers),
            deal: Deal { part, parts: setup.parts },
            progress: Arc::new(progress),
            session_idle_ns: setup.idle_after_ns,
            config,
            loss,
            consumer,
            cluster,
            requests,
            env,
            partitions: Vec::new(),
            by_key: HashMap::new(),
            last_used: None,
            lanes: HashMap::new(),
            shared: SourcePartitions::default(),
            taken: VecDeque::new(),
            is_started: false,
            starting: None,
            is_bounded: false,
            open: 0,
            ending: None,
            planning: None,
            planned: None,
            first_of_new: ByPartition::default(),
            available_at_start: None,
            planned_ns: None,
            drain: None,
            records: 0,
            row: Vec::new(),
            waker: None,
            discovered: None,
            adding: None,
            comparing: None,
            next_idle_ns: u64::MAX,
            blocked_ns: 0,
            is_idle: false,
            group_commit: (0, None),
        })
    }

    fn failed(&self, doing: &str, error: &KafkaError) -> EngineError {
        self.config.client.failed(doing, error)
    }

    /// The source's part of progress reports.
    pub fn progress(&self) -> Arc<dyn SourceProgress> {
        self.progress.clone()
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Asker) -> Result<T, EngineError> + Send + 'static,
    ) -> Pending<T> {
        self.requests.ask(self.waker.as_ref(), request)
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

    /// Loads the starting offsets, or resolves and stores them at the first start. Returns false as
    /// long as they are not known.
    fn start(&mut self) -> Result<bool, EngineError> {
        if self.is_started {
            return Ok(true);
        }
        let starting = match self.starting.take() {
            Some(starting) => starting,
            None => self.ask(|asker| asker.start()),
        };
        match starting.take()? {
            Some(offsets) => {
                let own = self.deal.own(offsets);
                self.go_to(&own)?;
            }
            None => self.starting = Some(starting),
        }
        Ok(self.is_started)
    }

    fn parse(&self, at: &Offset) -> Result<ByPartition, EngineError> {
        let offsets = ByPartition::parse(&at.0).ok_or_else(|| {
            EngineError::operator(
                "INVALID_OFFSET",
                format!("'{}' is not an offset of a Kafka source", at.0),
                "The checkpoint was written by another source: start over with an empty one",
            )
        })?;
        Ok(self.deal.own(offsets))
    }

    /// Reads exactly these partitions from these offsets. Drops records that were read ahead.
    fn go_to(&mut self, offsets: &ByPartition) -> Result<(), EngineError> {
        self.is_started = true;
        self.taken.clear();
        self.by_key.clear();
        self.last_used = None;
        self.partitions.clear();
        self.push_partitions(offsets);
        let assigned = self.consumer.assign(offsets.iter());
        assigned.map_err(|error| self.failed("read partitions", &error))
    }

    fn push_partitions(&mut self, offsets: &ByPartition) {
        for (topic, partition, next) in offsets.iter() {
            let topic: Arc<str> = topic.into();
            let count = self.lanes.len();
            let lane = *self.lanes.entry((topic.clone(), partition)).or_insert(count);
            self.partitions.push(Partition::new(topic, partition, next, lane));
        }
        self.share_idleness();
    }

    /// Adds partitions to those that are read.
    fn add(&mut self, offsets: &ByPartition) -> Result<(), EngineError> {
        self.push_partitions(offsets);
        let assigned = self.consumer.assign_more(offsets.iter());
        assigned.map_err(|error| self.failed("read new partitions", &error))
    }

    fn is_known(&self, topic: &str, partition: i32) -> bool {
        self.partitions.iter().any(|known| &*known.topic == topic && known.partition == partition)
    }

    /// Seeks a partition to an offset other than the consumer's next one.
    fn move_to(&mut self, index: usize, next: i64) -> Result<(), EngineError> {
        self.partitions[index].next = next;
        let lane = self.partitions[index].lane;
        let offsets = self.offsets();
        let ends: HashMap<usize, (i64, bool)> =
            self.partitions.iter().map(|p| (p.lane, (p.end, p.is_done))).collect();
        // This may change the order of the partitions.
        self.go_to(&offsets)?;
        for partition in &mut self.partitions {
            if let Some(end) = ends.get(&partition.lane) {
                (partition.end, partition.is_done) = *end;
            }
        }
        if let Some(index) = self.partitions.iter().position(|known| known.lane == lane) {
            self.close_reached(index);
        }
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
        if let Some((_, index)) = self.last_used.filter(|(last, _)| *last == key) {
            return Some(index);
        }
        if let Some(index) = self.by_key.get(&key) {
            self.last_used = Some((key, *index));
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
        let offset = message.offset();
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
        self.columns.write(&message, &partition.topic, &mut self.row);
        partition.next = offset + 1;
        partition.skip_to_reached();
        self.records += 1;
        partition.at_end_ns = None;
        self.is_idle = false;
        self.shared.set_current(partition.lane);
        if std::mem::replace(&mut partition.is_idle, false) {
            self.share_idleness();
        }
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
    fn event(
        &mut self,
        error: RDKafkaErrorCode,
        message: &Message,
        now_ns: u64,
    ) -> Result<(), EngineError> {
        let index = self.index_of(message);
        match (error, index) {
            (RDKafkaErrorCode::PartitionEOF, Some(index)) => {
                self.partitions[index].at_end_ns = Some(now_ns);
                self.next_idle_ns = self.next_idle_ns.min(now_ns);
                self.at_end(index, message.offset())
            }
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
                (self.loss.notice)(&format!(
                    "source kafka: {}; trying again",
                    message.error_text()
                ));
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
        self.loss.lost("COULD_NOT_READ_OFFSET_RANGE", reason)?;
        self.partitions[index].next = end;
        self.close_reached(index);
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
            self.loss.lost("COULD_NOT_READ_OFFSET_RANGE", reason)?;
            return self.move_to(index, earliest);
        }
        if next > latest {
            let reason = format!(
                "partition {number} of topic {topic} ends at offset {latest}, before offset {next}"
            );
            self.loss.lost("PARTITION_OFFSET_CHANGED", reason)?;
            return self.move_to(index, latest);
        }
        self.move_to(index, next)
    }

    fn partitions_deleted(&mut self, message: &Message) -> Result<(), EngineError> {
        let Some(index) = self.index_of(message) else { return Ok(()) };
        let partition = &self.partitions[index];
        let reason =
            format!("partition {} of topic {} was deleted", partition.partition, partition.topic);
        self.loss.lost("PARTITIONS_DELETED", reason)?;
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

    // ---- continuous mode ----

    /// Starts reading the partitions that have been discovered. Returns false as long as the topics'
    /// ids have not been compared with those of the checkpoint: until then offsets may be those of
    /// another topic.
    fn take_discovered(&mut self) -> Result<bool, EngineError> {
        if self.discovered.is_none() {
            self.discover();
        }
        if let Some(comparing) = &self.comparing {
            if comparing.take()?.is_none() {
                return Ok(false);
            }
            self.comparing = None;
        }
        if let Some(adding) = &self.adding {
            if let Some(offsets) = adding.take()? {
                self.adding = None;
                self.add(&offsets)?;
            }
            return Ok(true);
        }
        let found = self.discovered.as_ref().and_then(|found| found.try_iter().last());
        let Some(found) = found.transpose()? else { return Ok(true) };
        let fresh = |(topic, at): &&(String, i32)| {
            self.deal.is_own(topic, *at) && !self.is_known(topic, *at)
        };
        let fresh: Partitions = found.iter().filter(fresh).cloned().collect();
        if !fresh.is_empty() {
            self.adding = Some(self.ask(move |asker| asker.cluster.offsets_at(&fresh, EARLIEST)));
        }
        Ok(true)
    }

    /// Begins to look for new partitions and for topics that were created again.
    fn discover(&mut self) {
        let Some(waker) = self.waker.clone() else { return };
        self.discovered = Some(self.requests.listen(waker));
        let partitions: Partitions =
            self.offsets().iter().map(|(topic, at, _)| (topic.to_string(), at)).collect();
        self.comparing = Some(self.ask(move |asker| asker.compare_ids(&partitions)));
    }

    /// Tells the watermark stage which partitions are idle.
    fn share_idleness(&self) {
        let mut idle = vec![true; self.lanes.len()];
        for partition in &self.partitions {
            idle[partition.lane] = partition.is_idle;
        }
        self.shared.set_idle(idle);
    }

    /// Continuous mode: finds partitions that have been at their end for the idle time-out. Time in
    /// which the chain was full does not count. If the whole source is idle, the chain is told so.
    fn update_idleness<D: for<'a> Push<Row<'a>>>(
        &mut self,
        now_ns: u64,
        down: &mut D,
        cx: &mut StepCx<'_>,
    ) -> Result<(), EngineError> {
        let is_one_of_several = self.deal.parts > 1 || self.partitions.len() > 1;
        let of_partition = is_one_of_several.then_some(PARTITION_IDLE_NS);
        let after_ns = match (self.session_idle_ns, of_partition) {
            (Some(own), Some(other)) => own.min(other),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Ok(()),
        };
        if !self.taken.is_empty() || !down.is_ready() {
            self.blocked_ns = now_ns;
            return Ok(());
        }
        if now_ns >= self.next_idle_ns {
            self.next_idle_ns = u64::MAX;
            let mut has_changed = false;
            for partition in self.partitions.iter_mut().filter(|partition| !partition.is_idle) {
                let Some(at_end_ns) = partition.at_end_ns else { continue };
                let due_ns = at_end_ns.max(self.blocked_ns) + after_ns;
                if due_ns <= now_ns {
                    partition.is_idle = true;
                    has_changed = true;
                } else {
                    self.next_idle_ns = self.next_idle_ns.min(due_ns);
                }
            }
            if has_changed {
                self.share_idleness();
            }
        }
        if self.next_idle_ns < u64::MAX {
            cx.wake_at(self.next_idle_ns);
        }
        let may_be_idle = self.deal.parts > 1 || self.session_idle_ns.is_some();
        if may_be_idle && !self.is_idle && self.partitions.iter().all(|known| known.is_idle) {
            self.is_idle = true;
            down.watermark(IDLE)?;
        }
        Ok(())
    }

    /// Whether everything up to the end of the drain has been emitted. Ends the drain.
    fn ends_drain(&mut self) -> bool {
        if let Some(Drain::Asked(pending)) = &self.drain {
            match pending.take() {
                Ok(None) => return false,
                Ok(Some(ends)) => self.drain = Some(Drain::To(ends)),
                // If the cluster does not answer, the drain covers only what has arrived.
                Err(_) => self.drain = None,
            }
        }
        if let Some(Drain::To(ends)) = &self.drain {
            let is_behind = |known: &Partition| {
                ends.get(&known.topic, known.partition).is_some_and(|end| known.next < end)
            };
            if self.partitions.iter().any(is_behind) {
                return false;
            }
            self.drain = None;
        }
        true
    }

    // ---- planning ----

    /// Reduces a batch to `maxOffsetsPerTrigger`, each partition in proportion to its backlog. A
    /// partition with a backlog gets at least one offset, so a batch may exceed the limit.
    fn limited(&self, latest: &ByPartition, first_of_new: &ByPartition) -> ByPartition {
        let Some(limit) = self.config.max_offsets else { return latest.clone() };
        let limit = (limit / self.deal.parts as u64).max(1);
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

    /// Asks for what a plan needs.
    fn ask_plan(&self, extent: ReadLimit) -> Pending<Plan> {
        let (deal, is_stream) = (self.deal, self.config.is_stream);
        let known = self.is_started.then(|| self.offsets());
        let fixed = match extent {
            ReadLimit::AvailableAtStart => self.available_at_start.clone(),
            _ => None,
        };
        self.ask(move |asker| {
            let (own, start) = match known {
                Some(own) => (own, None),
                None => {
                    let start = deal.own(asker.start()?);
                    (start.clone(), Some(start))
                }
            };
            let available = match (fixed, is_stream) {
                (_, false) => {
                    let first_of_new = ByPartition::default();
                    Available { latest: asker.batch_end(&own)?, first_of_new }
                }
                (Some(latest), true) => {
                    let first_of_new = asker.first_of_new(&latest, &own)?;
                    Available { latest, first_of_new }
                }
                (None, true) => {
                    asker.available(&own, |topic, partition| deal.is_own(topic, partition))?
                }
            };
            Ok(Plan { start, available })
        })
    }

    fn end_of_batch(
        &mut self,
        plan: Plan,
        extent: ReadLimit,
        now_ns: u64,
    ) -> Result<EndOffset, EngineError> {
        let is_first = plan.start.is_some();
        if let Some(start) = plan.start {
            self.go_to(&start)?;
        }
        let Available { latest, first_of_new } = plan.available;
        if !self.config.is_stream || extent == ReadLimit::AvailableAtStart {
            self.available_at_start = Some(latest.clone());
        }
        if !self.config.is_stream {
            let end = Offset(latest.to_string());
            return Ok(EndOffset { end, has_new: is_first, exhausted: true, limited: false });
        }
        self.progress.set_planned(&latest);
        let own = self.offsets();
        let from = |topic: &str, at: i32| {
            own.get(topic, at).or_else(|| first_of_new.get(topic, at)).unwrap_or(0)
        };
        let backlog: i64 =
            latest.iter().map(|(topic, at, end)| (end - from(topic, at)).max(0)).sum();
        if let (Some(min), Some(planned_ns)) = (self.config.min_offsets, self.planned_ns)
            && (backlog as u64) < (min / self.deal.parts as u64).max(1)
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
        self.first_of_new = first_of_new;
        let has_new = is_first || end != own;
        if has_new || self.planned_ns.is_none() {
            self.planned_ns = Some(now_ns);
        }
        let limited = end != latest;
        Ok(EndOffset { end: Offset(end.to_string()), has_new, exhausted: false, limited })
    }

    /// Applies the end of a batch once the first offsets of its new partitions are known. Returns
    /// whether it is applied.
    fn apply_end(&mut self) -> Result<bool, EngineError> {
        if self.ending.is_none() {
            return Ok(true);
        }
        if !self.start()? {
            return Ok(false);
        }
        let Some((ends, asked)) = self.ending.take() else { return Ok(true) };
        let mut fresh = ByPartition::default();
        let mut is_complete = true;
        for (topic, at, _) in ends.iter().filter(|(topic, at, _)| !self.is_known(topic, *at)) {
            match self.first_of_new.get(topic, at) {
                Some(first) => fresh.set(topic, at, first),
                None => is_complete = false,
            }
        }
        if !is_complete {
            let asked = asked.unwrap_or_else(|| {
                let (ends, own) = (ends.clone(), self.offsets());
                self.ask(move |asker| asker.first_of_new(&ends, &own))
            });
            match asked.take()? {
                Some(first) => fresh = first,
                None => {
                    self.ending = Some((ends, Some(asked)));
                    return Ok(false);
                }
            }
        }
        if !fresh.0.is_empty() {
            self.add(&fresh)?;
        }
        self.begin_batch(&ends)?;
        Ok(true)
    }

    /// Limits the partitions to the end of a batch. All partitions in `ends` are known.
    fn begin_batch(&mut self, ends: &ByPartition) -> Result<(), EngineError> {
        let is_gone = |known: &Partition| ends.get(&known.topic, known.partition).is_none();
        if self.partitions.iter().any(is_gone) {
            let mut offsets = ByPartition::default();
            for known in self.partitions.iter().filter(|known| !is_gone(known)) {
                offsets.set(&known.topic, known.partition, known.next);
            }
            self.go_to(&offsets)?;
        }
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

    // ---- consumer group ----

    /// Commits offsets to the consumer group, for tools that show its lag. A failed commit is
    /// reported once and does not end the query.
    fn commit_to_group(&mut self, now_ns: u64) {
        let (last_ns, waiting) = &mut self.group_commit;
        if now_ns < last_ns.saturating_add(GROUP_COMMIT_NS) && *last_ns > 0 {
            return;
        }
        if let Some(offsets) = waiting.take() {
            *last_ns = now_ns;
            self.send_group_commit(offsets);
        }
    }

    fn send_group_commit(&self, offsets: ByPartition) {
        // The query does not wait for the commit. The thread executes it even after its end.
        drop(self.requests.ask(None, move |asker| {
            asker.commit_to_group(&offsets);
            Ok(())
        }));
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        if let Some(offsets) = self.group_commit.1.take() {
            self.send_group_commit(offsets);
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
        io.partitions = Some(self.shared.clone());
        Ok(())
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        if self.is_bounded {
            if !self.apply_end()? {
                return Ok(Polled::Idle);
            }
        } else {
            if !self.start()? {
                return Ok(Polled::Idle);
            }
            self.leave_batch();
            if !self.take_discovered()? {
                return Ok(Polled::Idle);
            }
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
                Some(error) => self.event(error, &message, now_ns)?,
            }
        }
        if self.is_bounded && self.open == 0 {
            self.is_bounded = false;
            return Ok(Polled::AtEndOffset);
        }
        if !self.is_bounded {
            self.update_idleness(now_ns, down, cx)?;
        }
        let is_busy = emitted > 0 || handled == cx.budget || !down.is_ready();
        Ok(if is_busy { Polled::Emitted } else { Polled::Idle })
    }

    fn has_position(&self) -> bool {
        self.is_started
    }

    fn begin_drain(&mut self) {
        // A tasklet that has not started drains what was available at its start.
        if self.is_started {
            let own = self.offsets();
            self.drain = Some(Drain::Asked(self.ask(move |asker| asker.latest(&own))));
        } else {
            let deal = self.deal;
            self.drain = Some(Drain::Asked(self.ask(move |asker| {
                let start = deal.own(asker.start()?);
                asker.latest(&start)
            })));
        }
    }

    fn is_drained(&mut self) -> bool {
        self.drain.is_some() && self.ends_drain()
    }

    fn is_drained_when_idle(&mut self) -> bool {
        self.ends_drain()
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

    fn can_plan(&mut self, extent: ReadLimit) -> Result<bool, EngineError> {
        // A batch query has one batch.
        if !self.config.is_stream && self.available_at_start.is_some() {
            return Ok(true);
        }
        let planning = self.planning.take().unwrap_or_else(|| self.ask_plan(extent));
        self.planned = planning.take()?;
        if self.planned.is_none() {
            self.planning = Some(planning);
        }
        Ok(self.planned.is_some())
    }

    fn plan(&mut self, extent: ReadLimit, cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        match (self.planned.take(), &self.available_at_start) {
            (Some(plan), _) => self.end_of_batch(plan, extent, cx.env.now_ns()),
            (None, end) => {
                let end = Offset(end.clone().unwrap_or_default().to_string());
                Ok(EndOffset { end, has_new: false, exhausted: true, limited: false })
            }
        }
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        let ends = self.parse(end)?;
        self.is_bounded = true;
        self.ending = Some((ends, None));
        self.apply_end()?;
        Ok(())
    }

    fn on_committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        if self.config.commits_to_group {
            self.group_commit.1 = Some(self.parse(end)?);
            self.commit_to_group(self.env.now_ns());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_dealt_to_one_tasklet_and_a_topic_evenly() {
        for parts in 1..5 {
            for topic in ["a", "orders", "x-1"] {
                let mut own = vec![0; parts];
                for partition in 0..(parts as i32 * 3) {
                    let readers: Vec<usize> = (0..parts)
                        .filter(|part| Deal { part: *part, parts }.is_own(topic, partition))
                        .collect();
                    assert_eq!(readers.len(), 1, "{topic}-{partition} of {parts}");
                    own[readers[0]] += 1;
                }
                assert_eq!(own, vec![3; parts]);
            }
        }
    }

    #[test]
    fn offsets_of_tasklets_are_merged_to_those_of_one() {
        let whole = Offset(r#"{"a":{"0":5,"1":6,"2":7},"b":{"0":1}}"#.to_string());
        let all = ByPartition::parse(&whole.0).unwrap();
        for parts in 1..4 {
            let own: Vec<_> = (0..parts)
                .map(|part| Offset(Deal { part, parts }.own(all.clone()).to_string()))
                .collect();
            assert_eq!(merge_offsets(&own), whole);
        }
    }
}
