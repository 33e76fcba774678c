//! Requests about topics: their partitions, and the earliest and latest offsets. All requests block
//! until they are answered or time out.

use crate::connect::kafka::client::{ASK_AGAIN, Client, is_transient, retried};
use crate::connect::kafka::offsets::{ByPartition, EARLIEST, LATEST};
use crate::connect::kafka::options::{NoMatch, Place, Subscription};
use crate::connect::kafka::topic_ids::{self, TopicIds};
use millstream_engine::error::EngineError;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Partitions by topic.
pub type Partitions = BTreeSet<(String, i32)>;

/// How long a subscribed topic may be unknown before the query fails. A new topic takes a while to
/// become known to all brokers.
pub(super) const UNKNOWN_TOPIC: Duration = Duration::from_secs(3);
/// The condition of the error of a topic that does not exist.
pub(super) const UNKNOWN: &str = "KAFKA_UNKNOWN_TOPIC";
/// How long the client may take to answer a request for the ids of topics.
const ASK_IDS: Duration = Duration::from_secs(5);

/// Why the partitions of a topic are not known.
#[derive(Debug)]
pub enum TopicError {
    /// The topic does not exist.
    Unknown(EngineError),
    /// The cluster refuses to answer, for example because a permission is missing.
    Refused(EngineError),
    /// The cluster does not answer.
    Unreachable(EngineError),
}

impl From<TopicError> for EngineError {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Unknown(error)
            | TopicError::Refused(error)
            | TopicError::Unreachable(error) => error,
        }
    }
}

/// Requests to a cluster.
#[derive(Clone)]
pub struct Cluster {
    pub(super) client: Client,
    pub(super) consumer: Arc<BaseConsumer>,
}

impl Cluster {
    fn retried<T>(&self, request: impl Fn(Duration) -> KafkaResult<T>) -> KafkaResult<T> {
        retried(self.client.timeout, request)
    }

    /// The partitions that a subscription selects. A listed topic that does not exist is an error.
    /// Of assigned partitions only the existing ones are selected.
    pub fn partitions(&self, subscription: &Subscription) -> Result<Partitions, EngineError> {
        Ok(self.selected(subscription)?)
    }

    fn selected(&self, subscription: &Subscription) -> Result<Partitions, TopicError> {
        let mut partitions = Partitions::new();
        let mut add = |topic: &MetadataTopic| {
            let all = topic.partitions().iter().map(|partition| partition.id());
            partitions.extend(all.map(|partition| (topic.name().to_string(), partition)));
        };
        match subscription {
            Subscription::Topics(topics) => {
                for topic in topics {
                    self.topic(topic, UNKNOWN_TOPIC, &mut add)?;
                }
            }
            Subscription::Pattern(_, pattern) => {
                let metadata =
                    self.retried(|left| self.consumer.client().fetch_metadata(None, left));
                let metadata = metadata.map_err(|error| {
                    TopicError::Unreachable(self.client.failed("list the topics", &error))
                })?;
                // A pattern that exceeds the regex engine's step limit does not match.
                let matches = |topic: &&MetadataTopic| pattern.is_match(topic.name()) == Ok(true);
                metadata.topics().iter().filter(matches).for_each(add);
            }
            Subscription::Assigned(topics) => {
                for (topic, wanted) in topics {
                    let known = self.topic(topic, Duration::ZERO, &mut |found| {
                        let all = found.partitions().iter().map(|partition| partition.id());
                        let all = all.filter(|partition| wanted.contains(partition));
                        partitions.extend(all.map(|partition| (topic.clone(), partition)));
                    });
                    match known {
                        Err(TopicError::Unknown(_)) => {}
                        known => known?,
                    }
                }
            }
        }
        Ok(partitions)
    }

    /// As [`partitions`](Self::partitions), but a listed topic that does not exist any more has none.
    /// `missing` keeps such topics between calls: only the first call without a topic waits for it.
    pub fn existing(
        &self,
        subscription: &Subscription,
        missing: &mut BTreeSet<String>,
    ) -> Result<Partitions, TopicError> {
        let Subscription::Topics(topics) = subscription else {
            return self.selected(subscription);
        };
        let mut all = Partitions::new();
        for topic in topics {
            let patience = if missing.contains(topic) { Duration::ZERO } else { UNKNOWN_TOPIC };
            let found = self.topic(topic, patience, &mut |found| {
                let numbers = found.partitions().iter().map(|partition| partition.id());
                all.extend(numbers.map(|partition| (topic.clone(), partition)));
            });
            match found {
                Ok(()) => drop(missing.remove(topic)),
                Err(TopicError::Unknown(_)) => drop(missing.insert(topic.clone())),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Calls `found` with the metadata of a topic. Retries for a while if the topic is unknown.
    fn topic(
        &self,
        name: &str,
        patience: Duration,
        found: &mut dyn FnMut(&MetadataTopic),
    ) -> Result<(), TopicError> {
        let until = Instant::now() + patience;
        loop {
            let metadata = self.retried(|left| {
                let metadata = self.consumer.client().fetch_metadata(Some(name), left)?;
                let topic = metadata.topics().iter().find(|topic| topic.name() == name);
                // A topic without leaders exists.
                match topic.and_then(|topic| topic.error()) {
                    Some(error) if is_transient(error.into()) => {
                        Err(KafkaError::MetadataFetch(error.into()))
                    }
                    _ => Ok(metadata),
                }
            });
            let failed = |e| self.client.failed(&format!("read the topic {name}"), &e);
            let metadata = metadata.map_err(|e| TopicError::Unreachable(failed(e)))?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            match topic.map(|topic| (topic, topic.error())) {
                Some((topic, None)) if !topic.partitions().is_empty() => {
                    found(topic);
                    return Ok(());
                }
                Some((_, Some(error))) if !is_unknown(error.into()) => {
                    let error = KafkaError::MetadataFetch(error.into());
                    return Err(TopicError::Refused(failed(error)));
                }
                _ if Instant::now() >= until => {
                    return Err(TopicError::Unknown(EngineError::operator(
                        UNKNOWN,
                        format!("source kafka: there is no topic '{name}' at {}", self.servers()),
                        "Create it, or correct the name",
                    )));
                }
                _ => thread::sleep(ASK_AGAIN),
            }
        }
    }

    /// The ids of the partitions' topics.
    pub fn topic_ids(&self, partitions: &Partitions) -> Result<TopicIds, EngineError> {
        let mut topics: Vec<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
        topics.dedup();
        // The client sometimes never answers this request, so it is repeated.
        let ask = |left: Duration| topic_ids::ask(&self.consumer, &topics, left.min(ASK_IDS));
        let asked = self.retried(ask);
        asked.map_err(|error| self.client.failed("read the ids of the topics", &error))
    }

    fn servers(&self) -> &str {
        self.client.servers()
    }

    /// Resolves an offset for each partition: [`EARLIEST`], [`LATEST`], or the first one at or
    /// after a time in milliseconds. A partition without such a record gets [`LATEST`].
    pub fn offsets<'t>(
        &self,
        of: impl IntoIterator<Item = (&'t str, i32, i64)>,
    ) -> Result<ByPartition, EngineError> {
        let failed = |e: KafkaError| self.client.failed("read offsets", &e);
        let mut wanted = TopicPartitionList::new();
        for (topic, partition, at) in of {
            let at = match at {
                EARLIEST => Offset::Beginning,
                LATEST => Offset::End,
                ms => Offset::Offset(ms),
            };
            wanted.add_partition_offset(topic, partition, at).map_err(failed)?;
        }
        let mut offsets = ByPartition::default();
        if wanted.count() == 0 {
            return Ok(offsets);
        }
        let found = self.retried(|left| {
            let found = self.consumer.offsets_for_times(wanted.clone(), left)?;
            found.elements().iter().try_for_each(|found| found.error())?;
            Ok(found)
        });
        let found = found.map_err(|error| match error.rdkafka_error_code() {
            Some(code) if is_unknown(code) => {
                let reason = format!("source kafka: a topic does not exist any more: {error}");
                EngineError::operator(UNKNOWN, reason, "")
            }
            _ => failed(error),
        });
        for found in found?.elements() {
            let at = match found.offset() {
                Offset::Offset(at) => at,
                _ => LATEST,
            };
            offsets.set(found.topic(), found.partition(), at);
        }
        Ok(offsets)
    }

    /// Commits offsets to the consumer group of the client.
    pub fn commit(&self, offsets: &ByPartition) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, at) in offsets.iter() {
            list.add_partition_offset(topic, partition, Offset::Offset(at))?;
        }
        self.consumer.commit(&list, CommitMode::Sync)
    }

    /// Resolves `at` in all partitions. `at` has the same meaning as in [`offsets`](Self::offsets).
    pub fn offsets_at(&self, of: &Partitions, at: i64) -> Result<ByPartition, EngineError> {
        self.offsets(of.iter().map(|(topic, partition)| (topic.as_str(), *partition, at)))
    }

    /// Resolves a [`Place`] in all partitions. `no_match` decides about a partition without a
    /// record at or after the time; it is `None` for an ending place. `is_stream` selects the
    /// condition of the error for missing or additional partitions.
    pub fn resolve(
        &self,
        place: &Place,
        partitions: &Partitions,
        no_match: Option<NoMatch>,
        is_stream: bool,
    ) -> Result<ByPartition, EngineError> {
        match place {
            Place::Earliest => self.offsets_at(partitions, EARLIEST),
            Place::Latest => self.offsets_at(partitions, LATEST),
            Place::Offsets(given) => {
                let condition = match is_stream {
                    true => "KAFKA_OFFSETS_INCOMPLETE",
                    false => "KAFKA_START_OFFSET_DOES_NOT_MATCH_ASSIGNED",
                };
                check_same(given, partitions, condition)?;
                let special = given.iter().filter(|(.., at)| *at < 0);
                let resolved = self.offsets(special)?;
                let mut all = given.clone();
                for (topic, partition, at) in resolved.iter() {
                    all.set(topic, partition, at);
                }
                Ok(all)
            }
            Place::Time(ms) => {
                let times = partitions.iter().map(|(topic, at)| (topic.as_str(), *at, *ms));
                self.at_times(times, partitions, no_match)
            }
            Place::Times(given) => {
                let condition = "KAFKA_TIMESTAMP_OFFSET_DOES_NOT_MATCH_ASSIGNED";
                check_same(given, partitions, condition)?;
                self.at_times(given.iter(), partitions, no_match)
            }
        }
    }

    fn at_times<'t>(
        &self,
        times: impl Iterator<Item = (&'t str, i32, i64)>,
        partitions: &Partitions,
        no_match: Option<NoMatch>,
    ) -> Result<ByPartition, EngineError> {
        let found = self.offsets(times)?;
        let none = found.iter().find(|(.., at)| *at < 0);
        if let (Some((topic, partition, _)), Some(NoMatch::Fail)) = (none, no_match) {
            return Err(EngineError::operator(
                "KAFKA_NO_OFFSET_AT_TIME",
                format!(
                    "source kafka: partition {partition} of topic {topic} has no record at or \
                     after the starting time"
                ),
                "Start earlier, or with startingOffsetsByTimestampStrategy 'latest'",
            ));
        }
        let ends = self.offsets_at(partitions, LATEST)?;
        let mut all = ends;
        for (topic, partition, at) in found.iter().filter(|(.., at)| *at >= 0) {
            all.set(topic, partition, at);
        }
        Ok(all)
    }
}

fn is_unknown(error: RDKafkaErrorCode) -> bool {
    matches!(error, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
}

fn check_same(
    given: &ByPartition,
    partitions: &Partitions,
    condition: &str,
) -> Result<(), EngineError> {
    let named: Partitions =
        given.iter().map(|(topic, partition, _)| (topic.to_string(), partition)).collect();
    if named == *partitions {
        return Ok(());
    }
    let shown = |partitions: Vec<&(String, i32)>| {
        let each = partitions.iter().map(|(topic, partition)| format!("{topic}-{partition}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let missing = shown(partitions.difference(&named).collect());
    let extra = shown(named.difference(partitions).collect());
    Err(EngineError::operator(
        condition,
        format!(
            "source kafka: the option does not match the topic's partitions: without a value \
             [{missing}], unknown [{extra}]"
        ),
        "Give a value for each partition; -2 is its first offset, and -1 its end",
    ))
}
