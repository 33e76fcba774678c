//! Options of the Kafka source and sink: Spark's names, defaults and checks.

use crate::connect::kafka::client::{Client, Role};
use crate::connect::kafka::offsets::{ByPartition, EARLIEST, LATEST};
use crate::connect::kafka::records;
use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::text::regexp::Regex;
use crate::table::types::Schema;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The topics and partitions that a source reads.
#[derive(Clone, Debug)]
pub enum Subscription {
    /// `subscribe`: these topics.
    Topics(BTreeSet<String>),
    /// `subscribePattern`: topics whose name contains a match of the regular expression.
    Pattern(String, Arc<Regex>),
    /// `assign`: these partitions. A partition that does not exist is ignored.
    Assigned(BTreeMap<String, BTreeSet<i32>>),
}

impl fmt::Display for Subscription {
    /// Formats the subscription as in Spark's progress reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topics(topics) => {
                let topics: Vec<_> = topics.iter().map(String::as_str).collect();
                write!(f, "KafkaV2[Subscribe[{}]]", topics.join(", "))
            }
            Self::Pattern(pattern, _) => write!(f, "KafkaV2[SubscribePattern[{pattern}]]"),
            Self::Assigned(topics) => {
                let each = topics.iter().flat_map(|(topic, partitions)| {
                    partitions.iter().map(move |partition| format!("{topic}-{partition}"))
                });
                write!(f, "KafkaV2[Assign[{}]]", each.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A starting or ending position in every partition.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// The earliest offset of each partition.
    Earliest,
    /// The end of each partition.
    Latest,
    /// An offset per partition, possibly `EARLIEST` or `LATEST`.
    Offsets(ByPartition),
    /// The first record at or after a time, in milliseconds since 1970.
    Time(i64),
    /// Like `Time`, with a separate time per partition.
    Times(ByPartition),
}

/// Where a partition starts if it has no record at or after the starting time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMatch {
    /// The query fails.
    Fail,
    /// The partition is read from its end.
    Latest,
}

/// The parsed options of a Kafka source.
#[derive(Clone, Debug)]
pub struct KafkaSourceConfig {
    pub(super) client: Client,
    pub(super) subscription: Subscription,
    pub(super) start: Place,
    /// Where a batch query ends. A stream has no end.
    pub(super) end: Place,
    pub(super) no_match: NoMatch,
    pub(super) fail_on_data_loss: bool,
    /// `maxOffsetsPerTrigger`: the most offsets per batch.
    pub(super) max_offsets: Option<u64>,
    /// `minOffsetsPerTrigger`: a batch waits for this number of offsets, but at most for
    /// `max_delay_ns`.
    pub(super) min_offsets: Option<u64>,
    pub(super) max_delay_ns: u64,
    pub(super) with_headers: bool,
    pub(super) is_stream: bool,
    /// The prefix of the consumer group's name. Brokers use the name for quotas and authorisation.
    pub(super) group_prefix: String,
    /// `commitOffsets`: whether committed offsets are also committed to the consumer group.
    pub(super) commits_to_group: bool,
}

/// The default of `maxTriggerDelay`: fifteen minutes, as in Spark.
const MAX_TRIGGER_DELAY_NS: u64 = 15 * 60 * 1_000_000_000;

/// Consumer options that may not be set, with the reason.
const REFUSED_OF_CONSUMER: [(&str, &str); 5] = [
    ("auto.offset.reset", "Use startingOffsets, which applies only at the first start"),
    ("key.deserializer", "Keys are BINARY: convert them in the query"),
    ("value.deserializer", "Values are BINARY: convert them in the query"),
    ("enable.auto.commit", "Offsets are in the query's checkpoint"),
    ("interceptor.classes", "Leave it out: it names a class of the Java client"),
];

/// Producer options that may not be set, with the reason.
const REFUSED_OF_PRODUCER: [(&str, &str); 3] = [
    ("transactional.id", "Use transactional 'true': the ids are derived from the query's id"),
    ("key.serializer", "Keys are STRING or BINARY columns: convert them in the query"),
    ("value.serializer", "Values are STRING or BINARY columns: convert them in the query"),
];

/// Splits off the options for the client, which start with `kafka.`, without that prefix.
pub(super) fn client_options(
    what: &str,
    options: &Options,
    role: Role,
) -> PlanResult<(Options, Options)> {
    let (mut client, mut own) = (Options::new(), Options::new());
    let refused: &[(&str, &str)] = match role {
        Role::Consumer => &REFUSED_OF_CONSUMER,
        Role::Producer => &REFUSED_OF_PRODUCER,
    };
    for (key, value) in options {
        let lower = key.to_ascii_lowercase();
        let Some(name) = lower.strip_prefix("kafka.") else {
            own.push((key.clone(), value.clone()));
            continue;
        };
        if let Some((name, fix)) = refused.iter().find(|(refused, _)| *refused == name) {
            return Err(wrong(format!("{what}: Kafka option '{name}' is not supported"), fix));
        }
        client.push((name.to_string(), value.clone()));
    }
    Ok((client, own))
}

pub(super) fn wrong(reason: String, fix: &str) -> PlanError {
    PlanError::new("INVALID_OPTION_VALUE", reason, fix)
}

const WHAT: &str = "source kafka";
const OFFSETS_EXAMPLE: &str = r#"For example {"topicA":{"0":23,"1":-1},"topicB":{"0":-2}}"#;
const TIMES_EXAMPLE: &str = r#"For example {"topicA":{"0":1704067200000,"1":1704067260000}}"#;

fn subscription(reader: &mut OptionReader<'_>) -> PlanResult<Subscription> {
    let topics = reader.get("subscribe");
    let pattern = reader.get("subscribePattern");
    let assign = reader.get("assign");
    match (topics, pattern, assign) {
        (None, None, None) => Err(PlanError::new(
            "MISSING_OPTION",
            format!("{WHAT}: one of 'subscribe', 'subscribePattern' and 'assign' is required"),
            "For example: subscribe 'orders'",
        )),
        (Some(topics), None, None) => {
            let named = topics.split(',').map(str::trim).filter(|topic| !topic.is_empty());
            let topics: BTreeSet<_> = named.map(str::to_string).collect();
            if topics.is_empty() {
                let reason = format!("{WHAT}: option 'subscribe' names no topic");
                return Err(wrong(reason, "For example: subscribe 'orders,returns'"));
            }
            Ok(Subscription::Topics(topics))
        }
        (None, Some(pattern), None) => {
            let pattern = pattern.trim();
            if pattern.is_empty() {
                let reason = format!("{WHAT}: option 'subscribePattern' is empty");
                return Err(wrong(reason, "For example: subscribePattern 'orders-.*'"));
            }
            let compiled = Regex::new(pattern).map_err(|error| {
                let reason = format!("{WHAT}: option 'subscribePattern': {error}");
                wrong(reason, "It is a regular expression of Java")
            })?;
            Ok(Subscription::Pattern(pattern.to_string(), Arc::new(compiled)))
        }
        (None, None, Some(text)) => {
            let assigned: Option<BTreeMap<String, BTreeSet<i32>>> = serde_json::from_str(text).ok();
            match assigned {
                Some(assigned) if assigned.values().any(|partitions| !partitions.is_empty()) => {
                    Ok(Subscription::Assigned(assigned))
                }
                _ => {
                    let reason = format!("{WHAT}: option 'assign' is '{text}'");
                    Err(wrong(reason, r#"For example: assign '{"topicA":[0,1],"topicB":[2]}'"#))
                }
            }
        }
        _ => Err(wrong(
            format!(
                "{WHAT}: only one of 'subscribe', 'subscribePattern' and 'assign' may be given"
            ),
            "Leave the others out",
        )),
    }
}

/// The three options of a starting or ending position, in order of precedence.
struct PlaceOptions {
    timestamp: &'static str,
    by_timestamp: &'static str,
    offsets: &'static str,
}

const START: PlaceOptions = PlaceOptions {
    timestamp: "startingTimestamp",
    by_timestamp: "startingOffsetsByTimestamp",
    offsets: "startingOffsets",
};
const END: PlaceOptions = PlaceOptions {
    timestamp: "endingTimestamp",
    by_timestamp: "endingOffsetsByTimestamp",
    offsets: "endingOffsets",
};

fn place(reader: &mut OptionReader<'_>, names: &PlaceOptions, default: Place) -> PlanResult<Place> {
    let timestamp = reader.get(names.timestamp);
    let by_timestamp = reader.get(names.by_timestamp);
    let offsets = reader.get(names.offsets);
    let is = |name: &str, value: &str| format!("{WHAT}: option '{name}' is '{value}'");
    if let Some(text) = timestamp {
        let time = text.trim().parse().map_err(|_| {
            wrong(is(names.timestamp, text), "Give milliseconds since 1970, such as 1704067200000")
        })?;
        return Ok(Place::Time(time));
    }
    if let Some(text) = by_timestamp {
        let times = ByPartition::parse(text);
        let times = times.ok_or_else(|| wrong(is(names.by_timestamp, text), TIMES_EXAMPLE))?;
        return Ok(Place::Times(times));
    }
    let Some(text) = offsets else { return Ok(default) };
    match text.trim().to_ascii_lowercase().as_str() {
        "earliest" => Ok(Place::Earliest),
        "latest" => Ok(Place::Latest),
        _ => {
            let offsets = ByPartition::parse(text);
            let valid = |offsets: &ByPartition| offsets.iter().all(|(.., at)| at >= EARLIEST);
            let offsets = offsets.filter(valid);
            let offsets = offsets.ok_or_else(|| wrong(is(names.offsets, text), OFFSETS_EXAMPLE))?;
            Ok(Place::Offsets(offsets))
        }
    }
}

fn check_batch(start: &Place, end: &Place) -> PlanResult<()> {
    let has = |place: &Place, special: i64| match place {
        Place::Earliest => special == EARLIEST,
        Place::Latest => special == LATEST,
        Place::Offsets(offsets) => offsets.iter().any(|(.., at)| at == special),
        _ => false,
    };
    if has(start, LATEST) {
        let reason = format!("{WHAT}: a batch query cannot start at the latest offset");
        return Err(wrong(reason, "Use startingOffsets 'earliest', or an offset"));
    }
    if has(end, EARLIEST) {
        let reason = format!("{WHAT}: a batch query cannot end at the earliest offset");
        return Err(wrong(reason, "Use endingOffsets 'latest', or an offset"));
    }
    if let (Place::Offsets(start), Place::Offsets(end)) = (start, end) {
        for (topic, partition, from) in start.iter().filter(|(.., from)| *from >= 0) {
            let to = end.get(topic, partition).filter(|to| *to >= 0);
            if let Some(to) = to.filter(|to| from > *to) {
                return Err(PlanError::new(
                    "UNRESOLVED_START_OFFSET_GREATER_THAN_END_OFFSET",
                    format!(
                        "{WHAT}: the start offset {from} is greater than the end offset {to} of \
                         partition {partition} of topic {topic}"
                    ),
                    "Start at or before the end",
                ));
            }
        }
    }
    Ok(())
}

impl KafkaSourceConfig {
    /// Reads and checks the options of a view, which queries may read as a stream or as a table. It
    /// is enough that one of the two accepts the options: `startingOffsets 'latest'` is for streams
    /// only, `endingOffsets` for tables only.
    pub fn read_view(options: &Options) -> PlanResult<Self> {
        Self::read(options, false).or_else(|_| Self::read(options, true))
    }

    /// Reads and checks the options of a stream or of a batch query.
    pub fn read(options: &Options, is_stream: bool) -> PlanResult<Self> {
        let (client, own) = client_options(WHAT, options, Role::Consumer)?;
        let client = Client::read(WHAT, Role::Consumer, client)?;
        let mut reader = OptionReader::new(WHAT, &own);
        let subscription = subscription(&mut reader)?;
        let default = if is_stream { Place::Latest } else { Place::Earliest };
        let start = place(&mut reader, &START, default)?;
        let end = if is_stream {
            // As in Spark, an ending timestamp of a stream is ignored; the other ending options are
            // errors.
            reader.get(END.timestamp);
            for name in [END.offsets, END.by_timestamp] {
                if reader.get(name).is_some() {
                    let reason = format!("{WHAT}: option '{name}' is not for a stream");
                    return Err(wrong(reason, "Leave it out: a stream has no end"));
                }
            }
            Place::Latest
        } else {
            let end = place(&mut reader, &END, Place::Latest)?;
            check_batch(&start, &end)?;
            end
        };
        let no_match = reader.choice("startingOffsetsByTimestampStrategy", &["error", "latest"])?;
        let no_match = if no_match == "latest" { NoMatch::Latest } else { NoMatch::Fail };
        let fail_on_data_loss = reader.flag("failOnDataLoss", true)?;
        let mut count = |name| {
            let given = reader.get(name).is_some();
            let number = reader.number(name, 1, 1, i64::MAX as u64)?;
            Ok::<_, PlanError>(given.then_some(number))
        };
        let max_offsets = count("maxOffsetsPerTrigger")?;
        let min_offsets = count("minOffsetsPerTrigger")?;
        // These two options are accepted without effect: one tasklet reads a partition, so ranges
        // are not split.
        count("minPartitions")?;
        count("maxRecordsPerPartition")?;
        if let (Some(min), Some(max)) = (min_offsets, max_offsets)
            && min > max
        {
            let reason = format!(
                "{WHAT}: minOffsetsPerTrigger ({min}) is above maxOffsetsPerTrigger ({max})"
            );
            return Err(wrong(reason, "Lower the one or raise the other"));
        }
        let max_delay_ns = reader.duration_ns("maxTriggerDelay")?.unwrap_or(MAX_TRIGGER_DELAY_NS);
        let with_headers = reader.flag("includeHeaders", false)?;
        let group_prefix = reader.get("groupIdPrefix").unwrap_or("spark-kafka-source").to_string();
        let commits_to_group = reader.flag("commitOffsets", false)?;
        if commits_to_group && client.option("group.id").is_none() {
            let reason = format!("{WHAT}: commitOffsets 'true' needs the name of a consumer group");
            return Err(wrong(reason, "Give it as kafka.group.id"));
        }
        reader.number("numPartitions", 1, 1, 256)?;
        // Timeouts and retries of Spark's consumer are accepted without effect: librdkafka has its
        // own.
        for name in ["kafkaConsumer.pollTimeoutMs", "fetchOffset.retryIntervalMs"] {
            reader.number(name, 0, 0, i64::MAX as u64)?;
        }
        reader.number("fetchOffset.numRetries", 3, 0, 1000)?;
        reader.finish()?;
        Ok(Self {
            client,
            subscription,
            start,
            end,
            no_match,
            fail_on_data_loss,
            max_offsets,
            min_offsets,
            max_delay_ns,
            with_headers,
            is_stream,
            group_prefix,
            commits_to_group,
        })
    }

    /// The columns of the source.
    pub fn schema(&self) -> Schema {
        records::schema(self.with_headers)
    }

    /// The source's description in progress reports.
    pub fn description(&self) -> String {
        self.subscription.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)], is_stream: bool) -> Result<KafkaSourceConfig, String> {
        let servers = [("kafka.bootstrap.servers", "127.0.0.1:1")];
        let all = servers.iter().chain(options);
        let options = all.map(|(key, value)| (key.to_string(), value.to_string())).collect();
        KafkaSourceConfig::read(&options, is_stream).map_err(|error| error.to_string())
    }

    #[test]
    fn descriptions_are_those_of_spark() {
        let described = |key, value| read(&[(key, value)], true).unwrap().description();
        assert_eq!(described("subscribe", "b, a,,b"), "KafkaV2[Subscribe[a, b]]");
        assert_eq!(described("subscribePattern", "p.*"), "KafkaV2[SubscribePattern[p.*]]");
        let assign = r#"{"t":[11,0],"s":[]}"#;
        assert_eq!(described("assign", assign), "KafkaV2[Assign[t-0, t-11]]");
    }

    #[test]
    fn a_timestamp_option_takes_precedence_over_an_offset_option() {
        let options = [
            ("subscribe", "t"),
            ("startingOffsets", "earliest"),
            ("startingOffsetsByTimestamp", r#"{"t":{"0":5}}"#),
            ("startingTimestamp", "7"),
        ];
        assert_eq!(read(&options, true).unwrap().start, Place::Time(7));
        assert!(matches!(read(&options[..3], true).unwrap().start, Place::Times(_)));
        assert_eq!(read(&options[..2], true).unwrap().start, Place::Earliest);
        assert_eq!(read(&options[..1], true).unwrap().start, Place::Latest);
        assert_eq!(read(&options[..1], false).unwrap().start, Place::Earliest);
    }

    #[test]
    fn wrong_options_are_refused_with_their_name() {
        /// A test case: the options, whether they belong to a stream, and a substring of the error.
        type Wrong<'a> = (&'a [(&'a str, &'a str)], bool, &'a str);
        let wrong: &[Wrong<'_>] = &[
            (&[], true, "subscribePattern"),
            (&[("subscribe", " , ")], true, "names no topic"),
            (&[("subscribe", "t"), ("assign", "{}")], true, "only one of"),
            (&[("subscribePattern", "[a-")], true, "subscribePattern"),
            (&[("assign", "{\"t\": 0}")], true, "assign"),
            (&[("subscribe", "t"), ("startingOffsets", "first")], true, "startingOffsets"),
            (&[("subscribe", "t"), ("startingOffsets", r#"{"t":{"0":-3}}"#)], true, "-3"),
            (&[("subscribe", "t"), ("startingTimestamp", "noon")], true, "noon"),
            (&[("subscribe", "t"), ("startingOffsets", "latest")], false, "latest"),
            (&[("subscribe", "t"), ("startingOffsets", r#"{"t":{"0":-1}}"#)], false, "latest"),
            (&[("subscribe", "t"), ("endingOffsets", "earliest")], false, "earliest"),
            (&[("subscribe", "t"), ("endingOffsets", "latest")], true, "not for a stream"),
            (&[("subscribe", "t"), ("maxOffsetsPerTrigger", "0")], true, "maxOffsetsPerTrigger"),
            (&[("subscribe", "t"), ("minPartitions", "0")], false, "minPartitions"),
            (&[("subscribe", "t"), ("startingOffsetsByTimestampStrategy", "first")], true, "first"),
            (&[("subscribe", "t"), ("kafka.auto.offset.reset", "earliest")], true, "auto.offset"),
            (&[("subscribe", "t"), ("kafka.Enable.Auto.Commit", "true")], true, "auto.commit"),
            (&[("subscribe", "t"), ("subscibe", "u")], true, "subscibe"),
        ];
        for (options, is_stream, part) in wrong {
            let error = read(options, *is_stream).unwrap_err();
            assert!(error.contains(part), "{options:?}: {error}");
        }
        let limits = [("minOffsetsPerTrigger", "5"), ("maxOffsetsPerTrigger", "4")];
        let limits = [&[("subscribe", "t")][..], &limits].concat();
        assert!(read(&limits, true).unwrap_err().contains("(5) is above"));
        let range = [
            ("subscribe", "t"),
            ("startingOffsets", r#"{"t":{"0":3}}"#),
            ("endingOffsets", r#"{"t":{"0":1}}"#),
        ];
        let error = read(&range, false).unwrap_err();
        assert!(error.starts_with("UNRESOLVED_START_OFFSET_GREATER_THAN_END_OFFSET"), "{error}");
    }
}
