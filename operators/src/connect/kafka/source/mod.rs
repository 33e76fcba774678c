//! The Kafka source.
//!
//! Each tasklet of a source reads the partitions that are assigned to it through a consumer of its
//! own, whose broker threads wake the worker when records arrive. Offsets are stored in the query's
//! checkpoint, one entry for all tasklets, so that a restart may have another number of them. With
//! a checkpoint, the offsets of the first start are stored before anything is read, so that a
//! restart does not resolve `latest` again. A thread asks the cluster (`requests.rs`), and workers
//! do not wait for it, except if records are missing: then a worker asks where the partition begins
//! and ends, and waits for the answer.
//!
//! *Micro-batch mode.* A batch ends at planned offsets. The consumer reads ahead: records beyond
//! the end of the batch are buffered for the next one. A partition with `MAX_KEPT` buffered
//! records is paused.
//!
//! *Continuous mode.* New partitions are read from their earliest offset. The watermark is that of
//! the slowest partition. A partition that has been at its end without records for 0.1 s is ignored
//! beside the others. Other sources ignore the source as a whole after the session's idle time-out.
//!
//! The ids of the topics are compared with those of the checkpoint, because a topic that was
//! created again may be longer than the old one: in micro-batch mode when a batch is planned, but
//! at most every few seconds, and in continuous mode at the start and every few seconds.

mod assignment;
mod batches;
#[cfg(test)]
mod tests;
mod topic_ends;

pub(crate) use assignment::merge_offsets;
pub use topic_ends::TopicEnds;

use crate::connect::kafka::client::is_transient;
use crate::connect::kafka::cluster::{Cluster, Partitions};
use crate::connect::kafka::consumer::{Consumer, Message};
use crate::connect::kafka::offsets::{ByPartition, EARLIEST, LATEST};
use crate::connect::kafka::options::KafkaSourceConfig;
use crate::connect::kafka::partition::{MAX_KEPT, Partition};
use crate::connect::kafka::records::Columns;
use crate::connect::kafka::requests::{Asker, LossReport, Pending, Requests};
use crate::connect::kafka::source::assignment::Assignment;
use crate::connect::kafka::source::batches::Plan;
use crate::connect::kafka::topic_progress::TopicProgress;
use crate::connect::source_report::SourceProgress;
use crate::table::row::Row;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::Env;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::epoch::source_partitions::SourcePartitions;
use millstream_engine::error::EngineError;
use millstream_engine::event::{IDLE, PARTITION_IDLE};
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

/// What a drain of continuous mode waits for.
enum Drain {
    /// The latest offsets have been asked for.
    Asked(Pending<ByPartition>),
    /// The latest offsets when the drain began.
    To(ByPartition),
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
    assignment: Assignment,
    loss: LossReport,
    // Messages are released before the consumer, whose end waits for them: fields are dropped in
    // this order.
    partitions: Vec<Partition>,
    /// Messages taken from the consumer and not yet processed.
    taken: VecDeque<Message>,
    consumer: Consumer,
    cluster: Cluster,
    requests: Requests,
    /// Indices in `partitions`. A message that is the first one of its partition looks here.
    indices: HashMap<(Arc<str>, i32), usize>,
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
    drain: Option<Drain>,
    /// The lanes of partitions that lost records during the drain, which does not wait for these.
    lost_in_drain: Vec<usize>,
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
    /// The last time at which the chain was full, or the start of the source.
    blocked_ns: u64,
    /// The mark of idleness that the chain was told since the last record.
    idle_mark: Option<i64>,
    progress: Arc<TopicProgress>,
}

impl KafkaSource {
    fn new(
        setup: &SourceSetup,
        part: usize,
        requests: Option<Requests>,
    ) -> Result<Self, EngineError> {
        let (config, env) = (setup.config.clone(), setup.env.clone());
        let now_ns = env.now_ns();
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
            assignment: Assignment { part, parts: setup.parts },
            progress: Arc::new(progress),
            session_idle_ns: setup.idle_after_ns,
            config,
            loss,
            consumer,
            cluster,
            requests,
            partitions: Vec::new(),
            indices: HashMap::new(),
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
            drain: None,
            lost_in_drain: Vec::new(),
            records: 0,
            row: Vec::new(),
            waker: None,
            discovered: None,
            adding: None,
            comparing: None,
            next_idle_ns: u64::MAX,
            blocked_ns: now_ns,
            idle_mark: None,
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
                let own = self.assignment.own(offsets);
                self.go_to(&own)?;
            }
            None => self.starting = Some(starting),
        }
        Ok(self.is_started)
    }

    /// The offsets of the tasklet's partitions in a stored offset. A plan of another tasklet may need
    /// the offsets, so the thread for requests is told.
    fn take_stored(&self, at: &Offset) -> Result<ByPartition, EngineError> {
        let offsets = self.parse(at)?;
        let own = self.assignment.own(offsets.clone());
        if self.plans_with_others() {
            drop(self.requests.ask(None, move |asker| {
                asker.advance(&offsets);
                Ok(())
            }));
        }
        Ok(own)
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
        // The client keeps a partition paused although it is assigned again.
        self.resume_paused()?;
        self.taken.clear();
        self.by_key.clear();
        self.indices.clear();
        self.last_used = None;
        self.partitions.clear();
        self.push_partitions(offsets);
        let assigned = self.consumer.assign(offsets.iter());
        assigned.map_err(|error| self.failed("read partitions", &error))
    }

    /// Resumes the partitions that were paused because of their buffered records.
    fn resume_paused(&mut self) -> Result<(), EngineError> {
        for index in 0..self.partitions.len() {
            let partition = &mut self.partitions[index];
            if std::mem::take(&mut partition.is_paused) {
                let resumed =
                    self.consumer.set_paused(&partition.topic, partition.partition, false);
                resumed.map_err(|error| self.failed("resume a partition", &error))?;
            }
        }
        Ok(())
    }

    fn push_partitions(&mut self, offsets: &ByPartition) {
        for (topic, partition, next) in offsets.iter() {
            let topic: Arc<str> = topic.into();
            let count = self.lanes.len();
            let lane = *self.lanes.entry((topic.clone(), partition)).or_insert(count);
            self.indices.insert((topic.clone(), partition), self.partitions.len());
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
        self.indices.contains_key(&(Arc::from(topic), partition))
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
        let index = *self.indices.get(&(Arc::from(message.topic()), key.1))?;
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
        self.idle_mark = None;
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
                self.partitions[index].at_end_ns.get_or_insert(now_ns);
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
            self.note_lost(index);
            return self.move_to(index, latest);
        }
        self.move_to(index, next)
    }

    /// A drain that is going on does not wait for a partition's records, which were lost.
    fn note_lost(&mut self, index: usize) {
        if self.drain.is_some() {
            self.lost_in_drain.push(self.partitions[index].lane);
        }
    }

    fn partitions_deleted(&mut self, message: &Message) -> Result<(), EngineError> {
        let Some(index) = self.index_of(message) else { return Ok(()) };
        let partition = &self.partitions[index];
        let reason =
            format!("partition {} of topic {} was deleted", partition.partition, partition.topic);
        self.loss.lost("PARTITIONS_DELETED", reason)?;
        self.note_lost(index);
        let partition = &mut self.partitions[index];
        if self.is_bounded && !partition.is_done {
            partition.is_done = true;
            self.open -= 1;
        }
        Ok(())
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
        // The partitions of the last look are all; a loss may have been reported before them.
        let found = self.discovered.as_ref();
        let found = found.map(|found| found.try_iter().collect::<Result<Vec<_>, _>>());
        let Some(found) = found.transpose()?.and_then(|mut found| found.pop()) else {
            return Ok(true);
        };
        let is_gone =
            |known: &&Partition| !found.contains(&(known.topic.to_string(), known.partition));
        if self.drain.is_some() {
            let gone = self.partitions.iter().filter(is_gone).map(|known| known.lane);
            self.lost_in_drain.extend(gone);
        }
        let fresh = |(topic, at): &&(String, i32)| {
            self.assignment.is_own(topic, *at) && !self.is_known(topic, *at)
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

    /// Continuous mode: finds partitions that have been at their end for the time-out of a
    /// partition. Time in which the chain was full does not count.
    fn update_idleness<D: for<'a> Push<Row<'a>>>(
        &mut self,
        now_ns: u64,
        down: &mut D,
        cx: &mut StepCx<'_>,
    ) -> Result<(), EngineError> {
        let is_one_of_several = self.assignment.parts > 1 || self.partitions.len() > 1;
        let of_partition = is_one_of_several.then_some(PARTITION_IDLE_NS);
        let Some(after_ns) = self.session_idle_ns.into_iter().chain(of_partition).min() else {
            return Ok(());
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
                let due_ns = at_end_ns.max(self.blocked_ns).saturating_add(after_ns);
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
        self.pass_idle_mark(now_ns, down, cx)
    }

    /// If all partitions are idle, tells the chain so, once for each mark. Other inputs ignore the
    /// source only after the time-out of the session. Until then it counts as a partition that is
    /// idle, like those of the other tasklets.
    fn pass_idle_mark<D: for<'a> Push<Row<'a>>>(
        &mut self,
        now_ns: u64,
        down: &mut D,
        cx: &mut StepCx<'_>,
    ) -> Result<(), EngineError> {
        let is_idle = self.partitions.iter().all(|known| known.is_idle);
        if !is_idle || self.idle_mark == Some(IDLE) {
            return Ok(());
        }
        let at_end = self.partitions.iter().filter_map(|known| known.at_end_ns).max();
        let since_ns = at_end.unwrap_or(0).max(self.blocked_ns);
        let due_ns = self.session_idle_ns.map(|after_ns| since_ns.saturating_add(after_ns));
        let mark = match due_ns {
            Some(due_ns) if due_ns <= now_ns => Some(IDLE),
            _ => (self.assignment.parts > 1).then_some(PARTITION_IDLE),
        };
        if let Some(due_ns) = due_ns.filter(|_| mark != Some(IDLE)) {
            cx.wake_at(due_ns);
        }
        match mark.filter(|_| self.idle_mark != mark) {
            Some(mark) => {
                self.idle_mark = Some(mark);
                down.watermark(mark)
            }
            None => Ok(()),
        }
    }

    /// Takes the end of the drain once it is known. If the cluster does not tell it, the query fails:
    /// a drain that ends without it would leave out records.
    fn take_drain_end(&mut self) -> Result<(), EngineError> {
        if let Some(Drain::Asked(pending)) = &self.drain
            && let Some(ends) = pending.take()?
        {
            self.drain = Some(Drain::To(ends));
        }
        Ok(())
    }

    /// Whether everything up to the end of the drain has been emitted. Ends the drain.
    fn ends_drain(&mut self) -> bool {
        if matches!(self.drain, Some(Drain::Asked(_))) {
            return false;
        }
        if let Some(Drain::To(ends)) = &self.drain {
            let is_behind = |known: &Partition| {
                ends.get(&known.topic, known.partition).is_some_and(|end| known.next < end)
                    && !self.lost_in_drain.contains(&known.lane)
            };
            if self.partitions.iter().any(is_behind) {
                return false;
            }
            self.drain = None;
        }
        true
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
            self.take_drain_end()?;
            if !self.start()? {
                return Ok(Polled::Idle);
            }
            self.leave_batch()?;
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
        self.lost_in_drain.clear();
        // A tasklet that has not started drains what was available at its start.
        if self.is_started {
            let own = self.offsets();
            self.drain = Some(Drain::Asked(self.ask(move |asker| asker.latest(&own))));
        } else {
            let assignment = self.assignment;
            self.drain = Some(Drain::Asked(self.ask(move |asker| {
                let start = assignment.own(asker.start()?);
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
        let offsets = self.take_stored(at)?;
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

    fn plan(&mut self, extent: ReadLimit, _: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        match (self.planned.take(), &self.available_at_start) {
            (Some(plan), _) => self.end_of_batch(plan, extent),
            (None, end) => {
                let end = self.assignment.own(end.clone().unwrap_or_default());
                let end = Offset(end.to_string());
                Ok(EndOffset { end, has_new: false, exhausted: true, limited: false })
            }
        }
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        let ends = self.take_stored(end)?;
        self.is_bounded = true;
        self.ending = Some((ends, None));
        self.apply_end()?;
        Ok(())
    }

    fn on_committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        if self.config.commits_to_group {
            self.requests.commit_to_group(self.assignment.own(self.parse(end)?));
        }
        Ok(())
    }
}
