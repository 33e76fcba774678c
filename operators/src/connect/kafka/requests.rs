//! The thread that asks the cluster for a source: its partitions, offsets and topic ids. Workers
//! do not wait for its answers; they are woken when one is there.
//!
//! *Threads.* One per source, shared by the source's tasklets. It executes their requests one after
//! another. In between it commits offsets to the consumer group, and in continuous mode looks for
//! new partitions. It ends when the tasklets have ended and all offsets are committed.

use crate::connect::kafka::batch_delay::BatchDelay;
use crate::connect::kafka::client::{ASK_AGAIN, is_transient};
use crate::connect::kafka::cluster::{Cluster, Partitions, TopicError, UNKNOWN, UNKNOWN_TOPIC};
use crate::connect::kafka::offsets::{ByPartition, EARLIEST, LATEST};
use crate::connect::kafka::options::KafkaSourceConfig;
use crate::connect::kafka::topic_ids::{KnownIds, TopicIds};
use millstream_engine::checkpoint::log_entry;
use millstream_engine::env::Env;
use millstream_engine::error::EngineError;
use millstream_engine::sync::waker::Waker;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The interval at which topic ids are compared, and at which continuous mode looks for new
/// partitions.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest time between two commits to the consumer group.
const GROUP_COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The error for lost data, with Spark's condition.
fn data_loss(condition: &str, reason: String) -> EngineError {
    EngineError::operator(
        format!("KAFKA_DATA_LOSS.{condition}"),
        format!("source kafka: {reason}; records may have been lost"),
        "With failOnDataLoss 'false' the query continues with the remaining records",
    )
}

/// How a source reports lost records.
#[derive(Clone, Copy)]
pub struct LossReport {
    /// The option `failOnDataLoss`.
    pub is_error: bool,
    /// Receives what was lost if it is not an error.
    pub notice: fn(&str),
}

impl LossReport {
    /// Fails if `failOnDataLoss` is set. Otherwise reports what was lost in a notice.
    pub fn lost(self, condition: &str, reason: String) -> Result<(), EngineError> {
        if self.is_error {
            return Err(data_loss(condition, reason));
        }
        (self.notice)(&format!("source kafka: {reason}; continuing (failOnDataLoss 'false')"));
        Ok(())
    }
}

impl LossReport {
    /// Reports the partitions that were there before and are not any more.
    fn check_gone(self, before: &Partitions, now: &Partitions) -> Result<(), EngineError> {
        let gone: Vec<_> =
            before.difference(now).map(|(topic, at)| format!("{topic}-{at}")).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.lost(
            "PARTITIONS_DELETED",
            format!("the partitions {} no longer exist", gone.join(", ")),
        )
    }
}

/// When the id of each topic was last compared.
#[derive(Default)]
struct ComparedTopics(BTreeMap<String, Instant>);

impl ComparedTopics {
    /// The partitions whose topic was not compared within [`DISCOVERY_INTERVAL`].
    fn due(&self, partitions: &Partitions, now: Instant) -> Partitions {
        let is_due = |topic: &str| {
            let last = self.0.get(topic);
            last.is_none_or(|last| now.saturating_duration_since(*last) >= DISCOVERY_INTERVAL)
        };
        partitions.iter().filter(|(topic, _)| is_due(topic)).cloned().collect()
    }

    /// Notes a comparison that succeeded.
    fn note(&mut self, partitions: &Partitions, now: Instant) {
        self.0.extend(partitions.iter().map(|(topic, _)| (topic.clone(), now)));
    }
}

/// The offsets of all tasklets that are not committed to the consumer group yet.
#[derive(Default)]
struct GroupCommits {
    waiting: ByPartition,
    last: Option<Instant>,
}

impl GroupCommits {
    /// When the waiting offsets are to be committed; `None` if there are none.
    fn due(&self, now: Instant) -> Option<Instant> {
        if self.waiting.0.is_empty() {
            return None;
        }
        Some(self.last.map_or(now, |last| last + GROUP_COMMIT_INTERVAL))
    }

    fn take(&mut self, now: Instant) -> ByPartition {
        self.last = Some(now);
        std::mem::take(&mut self.waiting)
    }
}

/// What the thread keeps between requests.
pub struct Asker {
    /// The cluster that is asked.
    pub cluster: Cluster,
    config: KafkaSourceConfig,
    env: Arc<dyn Env>,
    /// The source's folder in the checkpoint.
    folder: Option<PathBuf>,
    loss: LossReport,
    ids: KnownIds,
    ids_compared: ComparedTopics,
    /// Continuous mode: the partitions that are read, and those that were found.
    known: Partitions,
    /// Continuous mode: the known partitions that the last look did not find.
    suspected: Partitions,
    /// Micro-batch mode: the partitions that were reported as deleted.
    gone: Partitions,
    /// The listed topics that the last look did not find.
    missing: BTreeSet<String>,
    /// The offsets of the first start.
    first: Option<ByPartition>,
    /// The next offsets of all tasklets' partitions between two batches, as far as they were told
    /// ([`Asker::advance`]).
    positions: ByPartition,
    /// Whether a temporary failure of a commit to the consumer group has been reported.
    has_reported_commit: bool,
    /// Whether the consumer group has refused a commit. Then there are no further ones in this run.
    is_commit_refused: bool,
    /// Whether the current batch waits for `minOffsetsPerTrigger`.
    delay: BatchDelay,
}

/// The offsets that a plan needs, of the tasklet's partitions and possibly of all others.
pub struct Available {
    /// The latest offsets.
    pub latest: ByPartition,
    /// The next offsets of partitions that are read already.
    positions: ByPartition,
    /// The earliest offsets of partitions that are not read yet.
    pub first_of_new: ByPartition,
}

impl Available {
    /// The offsets of partitions that are all read already.
    pub fn new(latest: ByPartition, positions: ByPartition) -> Self {
        Self { latest, positions, first_of_new: ByPartition::default() }
    }

    /// The offset from which a partition is to be read.
    pub fn position(&self, topic: &str, partition: i32) -> i64 {
        let known = self.positions.get(topic, partition);
        known.or_else(|| self.first_of_new.get(topic, partition)).unwrap_or(0)
    }

    /// The number of offsets that are not read yet.
    pub fn backlog(&self) -> u64 {
        let of =
            |(topic, at, end): (&str, i32, i64)| (end - self.position(topic, at)).max(0) as u64;
        self.latest.iter().map(of).sum()
    }
}

impl Asker {
    /// The offsets of the first start: those of the checkpoint, or else the starting offsets, which
    /// are then stored.
    pub fn start(&mut self) -> Result<ByPartition, EngineError> {
        if let Some(first) = &self.first {
            return Ok(first.clone());
        }
        let first = match self.stored_start()? {
            Some(offsets) => offsets,
            None => {
                let partitions = self.cluster.partitions(&self.config.subscription)?;
                let (start, no_match) = (&self.config.start, Some(self.config.no_match));
                let is_stream = self.config.is_stream;
                let offsets = self.cluster.resolve(start, &partitions, no_match, is_stream)?;
                self.store_start(&offsets)?;
                offsets
            }
        };
        self.first = Some(first.clone());
        self.advance(&first);
        Ok(first)
    }

    /// Notes from where partitions, also those of other tasklets, will be read.
    pub fn advance(&mut self, to: &ByPartition) {
        self.positions.extend(to);
    }

    fn stored_start(&self) -> Result<Option<ByPartition>, EngineError> {
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

    fn store_start(&self, offsets: &ByPartition) -> Result<(), EngineError> {
        let Some(folder) = self.folder.as_deref().filter(|_| self.config.is_stream) else {
            return Ok(());
        };
        let storage = self.env.storage();
        let made = storage.create_folder(folder);
        made.map_err(|error| log_entry::write_failed(folder, &error))?;
        log_entry::write(storage, &folder.join("0"), [offsets.to_string().as_str()])
    }

    /// The end offsets of a batch query that starts at `from`.
    pub fn batch_end(&self, from: &ByPartition) -> Result<ByPartition, EngineError> {
        let partitions: Partitions =
            from.iter().map(|(topic, at, _)| (topic.to_string(), at)).collect();
        let end = self.cluster.resolve(&self.config.end, &partitions, None, false)?;
        for (topic, partition, from) in from.iter() {
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

    /// The latest offsets, after looking for new and deleted partitions and for topics that were
    /// created again. `own` are the next offsets of the tasklet's partitions, and `is_planned` tells
    /// which others count. At the first start a listed topic that does not exist is an error.
    pub fn available(
        &mut self,
        own: &ByPartition,
        is_first_start: bool,
        is_planned: impl Fn(&str, i32) -> bool,
    ) -> Result<Available, EngineError> {
        let until = Instant::now() + UNKNOWN_TOPIC;
        let (found, latest) = loop {
            let found = match is_first_start {
                true => self.cluster.partitions(&self.config.subscription)?,
                false => self.existing()?,
            };
            self.check_own(own, &found)?;
            let planned: Partitions =
                found.iter().filter(|(topic, at)| is_planned(topic, *at)).cloned().collect();
            match self.cluster.offsets_at(&planned, LATEST) {
                // A topic was deleted after it was found.
                Err(error) if error.condition() == UNKNOWN && Instant::now() < until => {
                    thread::sleep(ASK_AGAIN);
                }
                latest => break (found, latest?),
            }
        };
        for (topic, partition, next) in own.iter() {
            if let Some(end) = latest.get(topic, partition).filter(|end| *end < next) {
                let reason = format!(
                    "partition {partition} of topic {topic} ends at offset {end}, before offset \
                     {next}"
                );
                self.loss.lost("PARTITION_OFFSET_CHANGED", reason)?;
            }
        }
        self.compare_ids(&found)?;
        self.fixed(latest, own)
    }

    fn existing(&mut self) -> Result<Partitions, TopicError> {
        self.cluster.existing(&self.config.subscription, &mut self.missing)
    }

    /// Reports partitions of a tasklet that do not exist any more, each once.
    fn check_own(&mut self, own: &ByPartition, found: &Partitions) -> Result<(), EngineError> {
        let own = own.iter().map(|(topic, at, _)| (topic.to_string(), at));
        let own: Partitions = own.filter(|partition| !self.gone.contains(partition)).collect();
        self.loss.check_gone(&own, found)?;
        self.gone.extend(own);
        self.gone.retain(|partition| !found.contains(partition));
        Ok(())
    }

    /// The offsets for a plan up to offsets that are known already.
    pub fn fixed(&self, latest: ByPartition, own: &ByPartition) -> Result<Available, EngineError> {
        let mut positions = self.positions.clone();
        positions.extend(own);
        let first_of_new = self.first_of_new(&latest, &positions)?;
        Ok(Available { latest, positions, first_of_new })
    }

    /// The earliest offsets of partitions in `ends` that are not in `own`.
    pub fn first_of_new(
        &self,
        ends: &ByPartition,
        own: &ByPartition,
    ) -> Result<ByPartition, EngineError> {
        let fresh = ends.iter().filter(|(topic, at, _)| own.get(topic, *at).is_none());
        self.cluster.offsets(fresh.map(|(topic, at, _)| (topic, at, EARLIEST)))
    }

    /// The latest offsets of those partitions that still exist.
    pub fn latest(&mut self, of: &ByPartition) -> Result<ByPartition, EngineError> {
        let mut of: Partitions = of.iter().map(|(topic, at, _)| (topic.to_string(), at)).collect();
        let until = Instant::now() + UNKNOWN_TOPIC;
        loop {
            match self.cluster.offsets_at(&of, LATEST) {
                Err(error) if error.condition() == UNKNOWN && Instant::now() < until => {
                    let found = self.existing()?;
                    of.retain(|partition| found.contains(partition));
                    thread::sleep(ASK_AGAIN);
                }
                latest => return latest,
            }
        }
    }

    /// Whether a tasklet's plan waits for `minOffsetsPerTrigger`. `backlog` is that of the source.
    pub fn delays(&mut self, part: usize, backlog: u64) -> bool {
        let Some(min) = self.config.min_offsets else { return false };
        self.delay.delays(part, backlog < min, self.config.max_delay_ns, self.env.now_ns())
    }

    /// Commits the waiting offsets to the consumer group. After a temporary failure they wait again.
    /// A refusal ends the commits of this run: repeating them would not help. The first failure of
    /// each kind is reported in a notice.
    fn commit_to_group(&mut self, commits: &mut GroupCommits, now: Instant) {
        let offsets = commits.take(now);
        if self.is_commit_refused {
            return;
        }
        let Err(error) = self.cluster.commit(&offsets) else { return };
        let reason = self.config.client.failed("commit to the consumer group", &error);
        if error.rdkafka_error_code().is_some_and(may_commit_later) {
            commits.waiting.extend(&offsets);
            if !std::mem::replace(&mut self.has_reported_commit, true) {
                (self.loss.notice)(&format!("{reason}; the query continues, and tries again"));
            }
        } else {
            self.is_commit_refused = true;
            let outcome = "the query continues, without committing offsets until it is restarted";
            (self.loss.notice)(&format!("{reason}; {outcome}"));
        }
    }

    /// Compares the ids of topics with the known ones, each at most every few seconds. Tasklets read
    /// different topics, so the comparison for one of them says nothing about the topics of others.
    pub fn compare_ids(&mut self, partitions: &Partitions) -> Result<(), EngineError> {
        self.known.extend(partitions.iter().cloned());
        let due = self.ids_compared.due(partitions, Instant::now());
        if due.is_empty() {
            return Ok(());
        }
        let ids = self.cluster.topic_ids(&due)?;
        self.take_ids(ids)?;
        // A comparison that failed is repeated.
        self.ids_compared.note(&due, Instant::now());
        Ok(())
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
            self.loss.lost("PARTITIONS_DELETED", reason)?;
        }
        self.ids.update(self.env.storage(), ids)
    }
}

/// Whether a commit to the consumer group that failed with this error can succeed later: the error
/// is temporary, or a member of the group is active and may leave it.
fn may_commit_later(error: RDKafkaErrorCode) -> bool {
    is_transient(error)
        || matches!(
            error,
            RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
        )
}

type Request = Box<dyn FnOnce(&mut Asker) + Send>;

/// A tasklet of continuous mode that wants to know all partitions.
struct Listener {
    found: Sender<Result<Partitions, EngineError>>,
    waker: Waker,
}

enum Message {
    Execute(Request),
    Listen(Listener),
    Commit(ByPartition),
}

/// The connection of a tasklet to the thread.
#[derive(Clone)]
pub struct Requests(Sender<Message>);

/// An answer that may not be there yet.
pub struct Pending<T>(Receiver<Result<T, EngineError>>);

fn ended() -> EngineError {
    EngineError::operator("KAFKA_FAILED", "source kafka: the thread for requests has ended", "")
}

impl<T> Pending<T> {
    /// The answer; `None` if it is not there yet.
    pub fn take(&self) -> Result<Option<T>, EngineError> {
        match self.0.try_recv() {
            Ok(answer) => answer.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            // A request that panicked; the panic was printed.
            Err(TryRecvError::Disconnected) => Err(ended()),
        }
    }
}

impl Requests {
    /// Starts the thread. `folder` is the source's folder in the checkpoint.
    pub fn start(
        cluster: Cluster,
        config: KafkaSourceConfig,
        env: Arc<dyn Env>,
        folder: Option<PathBuf>,
        loss: LossReport,
    ) -> Result<Self, EngineError> {
        let stored = folder.as_deref().filter(|_| config.is_stream);
        let ids = KnownIds::new(stored);
        let asker = Asker {
            cluster,
            config,
            env,
            folder,
            loss,
            ids,
            ids_compared: ComparedTopics::default(),
            known: Partitions::new(),
            suspected: Partitions::new(),
            gone: Partitions::new(),
            missing: BTreeSet::new(),
            first: None,
            positions: ByPartition::default(),
            has_reported_commit: false,
            is_commit_refused: false,
            delay: BatchDelay::default(),
        };
        let (sender, receiver) = channel();
        let thread = thread::Builder::new().name("kafka-requests".to_string());
        let spawned = thread.spawn(move || serve(asker, &receiver, DISCOVERY_INTERVAL));
        spawned.map_err(|error| EngineError::runtime("start a thread", error))?;
        Ok(Self(sender))
    }

    /// Executes a request on the thread, and then wakes the worker.
    pub fn ask<T: Send + 'static>(
        &self,
        waker: Option<&Waker>,
        request: impl FnOnce(&mut Asker) -> Result<T, EngineError> + Send + 'static,
    ) -> Pending<T> {
        let (answer, pending) = channel();
        let waker = waker.cloned();
        let request: Request = Box::new(move |asker| {
            // A tasklet that has ended takes no answer.
            drop(answer.send(request(asker)));
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        // If the thread has ended, the answer is an error.
        drop(self.0.send(Message::Execute(request)));
        Pending(pending)
    }

    /// Commits offsets to the consumer group, at most once per [`GROUP_COMMIT_INTERVAL`]. The caller
    /// does not wait, and the source may be idle or ended by then.
    pub fn commit_to_group(&self, offsets: ByPartition) {
        drop(self.0.send(Message::Commit(offsets)));
    }

    /// Continuous mode: the partitions of the subscription, at the next look and then whenever they
    /// have changed. Fails if a topic was created again.
    pub fn listen(&self, waker: Waker) -> Receiver<Result<Partitions, EngineError>> {
        let (found, partitions) = channel();
        drop(self.0.send(Message::Listen(Listener { found, waker })));
        partitions
    }
}

/// `look_interval` is the time between two looks for new partitions.
fn serve(mut asker: Asker, messages: &Receiver<Message>, look_interval: Duration) {
    let (mut listeners, mut last): (Vec<Listener>, _) = (Vec::new(), None);
    let mut commits = GroupCommits::default();
    let mut next_look = Instant::now() + look_interval;
    loop {
        let look = (!listeners.is_empty()).then_some(next_look);
        let due = [look, commits.due(Instant::now())].into_iter().flatten().min();
        let message = match due {
            None => messages.recv().map_err(RecvTimeoutError::from),
            Some(due) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match message {
            Ok(Message::Execute(request)) => request(&mut asker),
            Ok(Message::Listen(listener)) => {
                listeners.push(listener);
                // The new listener has not been told what the others know.
                last = None;
            }
            Ok(Message::Commit(offsets)) => commits.waiting.extend(&offsets),
            Err(RecvTimeoutError::Disconnected) => {
                if !commits.waiting.0.is_empty() {
                    asker.commit_to_group(&mut commits, Instant::now());
                }
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        if commits.due(now).is_some_and(|due| due <= now) {
            asker.commit_to_group(&mut commits, now);
        }
        if !listeners.is_empty() && next_look <= now {
            let found = asker.discover(&mut last);
            listeners.retain(|listener| match &found {
                Ok(None) => true,
                Ok(Some(partitions)) => listener.tell(Ok(partitions.clone())),
                Err(error) => listener.tell(Err(error.clone())),
            });
            next_look = Instant::now() + look_interval;
        }
    }
}

impl Listener {
    /// Returns whether the tasklet still listens.
    fn tell(&self, found: Result<Partitions, EngineError>) -> bool {
        let listens = self.found.send(found).is_ok();
        self.waker.wake();
        listens
    }
}

impl Asker {
    /// The partitions of the subscription, if they or the topics' ids are not those of the last
    /// call. An error for a topic that was deleted, created again, or is refused: an unreachable
    /// broker is reported by the consumer. A partition counts as deleted if two looks in a row do not find it,
    /// because a broker may not know a new topic yet.
    fn discover(
        &mut self,
        last: &mut Option<(Partitions, TopicIds)>,
    ) -> Result<Option<Partitions>, EngineError> {
        let partitions = match self.existing() {
            Ok(partitions) => partitions,
            // The consumer does not report this: it only stops to fetch.
            Err(TopicError::Refused(error)) => return Err(error),
            // The next look may reach the cluster.
            Err(_) => return Ok(None),
        };
        let mut lacking: Partitions = self.known.difference(&partitions).cloned().collect();
        let suspected = std::mem::take(&mut self.suspected);
        let gone: Partitions = lacking.intersection(&suspected).cloned().collect();
        lacking.retain(|partition| !gone.contains(partition));
        // Partitions that are gone are not known any more, so they are reported once.
        self.known = partitions.union(&lacking).cloned().collect();
        self.suspected = lacking;
        self.loss.check_gone(&gone, &partitions)?;
        let Ok(ids) = self.cluster.topic_ids(&partitions) else { return Ok(None) };
        let found = (partitions, ids);
        if last.as_ref() == Some(&found) {
            return Ok(None);
        }
        *last = Some(found.clone());
        self.take_ids(found.1)?;
        Ok(Some(found.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::env::SimEnv;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    fn partitions(topics: &[&str]) -> Partitions {
        topics.iter().map(|topic| (topic.to_string(), 0)).collect()
    }

    fn asker(servers: &str, topics: &str) -> Asker {
        let options = [
            ("kafka.bootstrap.servers", servers),
            ("kafka.default.api.timeout.ms", "1000"),
            ("subscribe", topics),
        ];
        let options = options.map(|(key, value)| (key.to_string(), value.to_string()));
        let config = KafkaSourceConfig::read(&options.into(), true).unwrap();
        let mut client = config.client.config();
        let consumer = client.set("group.id", "g").create().unwrap();
        let cluster = Cluster { client: config.client.clone(), consumer: Arc::new(consumer) };
        Asker {
            cluster,
            config,
            env: Arc::new(SimEnv::new(0)),
            folder: None,
            loss: LossReport { is_error: true, notice: |_| {} },
            ids: KnownIds::default(),
            ids_compared: ComparedTopics::default(),
            known: Partitions::new(),
            suspected: Partitions::new(),
            gone: Partitions::new(),
            missing: BTreeSet::new(),
            first: None,
            positions: ByPartition::default(),
            has_reported_commit: false,
            is_commit_refused: false,
            delay: BatchDelay::default(),
        }
    }

    #[test]
    fn topics_are_compared_although_those_of_another_tasklet_just_were() {
        let (mut compared, now) = (ComparedTopics::default(), Instant::now());
        compared.note(&partitions(&["a"]), now);
        assert_eq!(compared.due(&partitions(&["a", "b"]), now), partitions(&["b"]));
        compared.note(&partitions(&["b"]), now + Duration::from_secs(1));
        let later = now + DISCOVERY_INTERVAL;
        assert_eq!(compared.due(&partitions(&["a", "b"]), later), partitions(&["a"]));
    }

    #[test]
    fn a_comparison_of_topic_ids_that_failed_is_repeated() {
        let mut asker = asker("127.0.0.1:1", "a");
        for attempt in 0..2 {
            let error = asker.compare_ids(&partitions(&["a"])).err();
            assert!(error.is_some(), "attempt {attempt} did not ask the cluster");
        }
    }

    /// The second tasklet starts after the first has been told.
    #[test]
    fn a_listener_that_comes_later_learns_the_partitions_too() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("a", 2, 1).unwrap();
        let asker = asker(&cluster.bootstrap_servers(), "a");
        let (sender, receiver) = channel();
        let thread = thread::spawn(move || serve(asker, &receiver, Duration::from_millis(10)));
        let requests = Requests(sender);
        for listener in ["the first", "the second"] {
            let found = requests.listen(Waker::noop()).recv_timeout(Duration::from_secs(30));
            assert_eq!(found.unwrap().unwrap().len(), 2, "{listener}");
        }
        drop(requests);
        thread.join().unwrap();
    }

    /// If the client learns it from the metadata, it stops to fetch, and reports no error to the source.
    #[test]
    fn continuous_mode_reports_a_permission_that_was_withdrawn() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("a", 1, 1).unwrap();
        let mut asker = asker(&cluster.bootstrap_servers(), "a");
        let mut last = None;
        assert!(asker.discover(&mut last).unwrap().is_some());
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        cluster.topic_error("a", refused).unwrap();
        let error = asker.discover(&mut last).unwrap_err();
        assert_eq!(error.condition(), "KAFKA_FAILED");
        assert!(error.to_string().contains("authorization failed"), "{error}");
        // A broker that does not answer is not a refusal.
        drop(cluster);
        assert_eq!(asker.discover(&mut last).unwrap(), None);
    }

    const DELETED: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    const THERE: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

    #[test]
    fn continuous_mode_reports_a_topic_that_two_looks_do_not_find_and_waits_for_it_once() {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["a", "b"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let mut asker = asker(&cluster.bootstrap_servers(), "a,b");
        let mut last = None;
        assert_eq!(asker.discover(&mut last).unwrap(), Some(partitions(&["a", "b"])));
        for error in [DELETED, THERE, DELETED] {
            cluster.topic_error("b", error).unwrap();
            asker.discover(&mut last).unwrap();
        }
        let start = Instant::now();
        let error = asker.discover(&mut last).unwrap_err();
        assert_eq!(error.condition(), "KAFKA_DATA_LOSS.PARTITIONS_DELETED");
        assert!(start.elapsed() < UNKNOWN_TOPIC, "waited for a topic that was missing before");
        assert!(asker.discover(&mut last).is_ok(), "reported twice");
        cluster.topic_error("b", THERE).unwrap();
        asker.discover(&mut last).unwrap();
        assert!(asker.missing.is_empty() && asker.known == partitions(&["a", "b"]));
    }

    #[test]
    fn a_tasklet_without_partitions_fails_for_an_unknown_topic_only_at_the_first_start() {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["a", "b"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        cluster.topic_error("b", DELETED).unwrap();
        let mut asker = asker(&cluster.bootstrap_servers(), "a,b");
        let none = ByPartition::default();
        let first = asker.available(&none, true, |_, _| false).err();
        assert_eq!(first.unwrap().condition(), UNKNOWN);
        let available = asker.available(&none, false, |_, _| false).unwrap();
        assert_eq!(available.latest, none);
    }

    #[test]
    fn the_end_of_a_drain_leaves_out_a_deleted_topic() {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["a", "b"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        cluster.topic_error("b", DELETED).unwrap();
        let mut asker = asker(&cluster.bootstrap_servers(), "a,b");
        let own = ByPartition::parse(r#"{"a":{"0":0},"b":{"0":0}}"#).unwrap();
        assert_eq!(asker.latest(&own).unwrap().to_string(), r#"{"a":{"0":0}}"#);
    }

    #[test]
    fn a_partition_without_a_leader_is_not_a_deleted_one() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("a", 1, 1).unwrap();
        cluster.partition_leader("a", 0, None).unwrap();
        let asker = asker(&cluster.bootstrap_servers(), "a");
        let error = asker.cluster.offsets_at(&partitions(&["a"]), LATEST).unwrap_err();
        assert_eq!(error.condition(), "KAFKA_FAILED", "{error}");

        let no_leader = RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
        cluster.topic_error("a", no_leader).unwrap();
        let error = asker.cluster.partitions(&asker.config.subscription).unwrap_err();
        assert_eq!(error.condition(), "KAFKA_FAILED", "{error}");
    }

    /// The committed offset of partition 0 of topic a; `None` if there is none.
    fn committed(asker: &Asker) -> Option<i64> {
        let mut wanted = rdkafka::TopicPartitionList::new();
        wanted.add_partition("a", 0);
        let found = rdkafka::consumer::Consumer::committed_offsets(
            &*asker.cluster.consumer,
            wanted,
            Duration::from_secs(30),
        );
        match found.unwrap().elements()[0].offset() {
            rdkafka::Offset::Offset(at) => Some(at),
            _ => None,
        }
    }

    #[test]
    fn a_refused_commit_to_the_group_is_not_repeated_but_a_failed_one_is() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("a", 1, 1).unwrap();
        let mut asker = asker(&cluster.bootstrap_servers(), "a");
        let (mut commits, now) = (GroupCommits::default(), Instant::now());
        let offsets = |at: i64| ByPartition::parse(&format!(r#"{{"a":{{"0":{at}}}}}"#)).unwrap();
        let member = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[member]);
        commits.waiting.extend(&offsets(5));
        asker.commit_to_group(&mut commits, now);
        assert_eq!(commits.waiting.to_string(), offsets(5).to_string());
        asker.commit_to_group(&mut commits, now);
        assert_eq!((commits.due(now), committed(&asker)), (None, Some(5)));

        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[refused]);
        for at in [6, 7] {
            commits.waiting.extend(&offsets(at));
            asker.commit_to_group(&mut commits, now);
            assert_eq!((commits.due(now), committed(&asker)), (None, Some(5)), "offset {at}");
        }
    }

    #[test]
    fn offsets_of_all_tasklets_wait_for_one_commit() {
        let (mut commits, now) = (GroupCommits::default(), Instant::now());
        let offsets = |text: &str| ByPartition::parse(text).unwrap();
        assert_eq!(commits.due(now), None);
        commits.waiting.extend(&offsets(r#"{"t":{"0":5}}"#));
        assert_eq!(commits.due(now), Some(now));
        assert_eq!(commits.take(now).to_string(), r#"{"t":{"0":5}}"#);
        commits.waiting.extend(&offsets(r#"{"t":{"0":6}}"#));
        commits.waiting.extend(&offsets(r#"{"t":{"1":2}}"#));
        assert_eq!(commits.due(now), Some(now + GROUP_COMMIT_INTERVAL));
        assert_eq!(commits.take(now).to_string(), r#"{"t":{"0":6,"1":2}}"#);
    }
}
