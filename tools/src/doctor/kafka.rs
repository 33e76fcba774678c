//! `millstream doctor --kafka`: what a Kafka cluster adds to latency.

use super::{Finding, Verdict, finding};
use crate::failure::Failure;
use crate::latency_format::time;
use millstream::connect::kafka::probe::{ClockDifference, ClusterReport, Setting, examine};
use millstream_engine::measure::latency::histogram;

/// Number of records that are sent.
const RECORDS: usize = 200;
/// How long an answer is waited for, in milliseconds.
const PATIENCE_MS: &str = "10000";

/// Examines a cluster.
pub(super) fn findings(servers: &str, options: &[String]) -> Result<Vec<Finding>, Failure> {
    let mut all = vec![("bootstrap.servers".to_string(), servers.to_string())];
    all.push(("default.api.timeout.ms".to_string(), PATIENCE_MS.to_string()));
    for option in options {
        let Some((name, value)) = option.split_once('=') else {
            let reason = format!("--kafka-option '{option}': use NAME=VALUE");
            return Err(Failure::Wrong(reason));
        };
        all.push((name.to_string(), value.to_string()));
    }
    let report = examine(&all, RECORDS)?;
    let mut found = vec![brokers(&report), acknowledgement(&report), round_trip(&report)];
    found.extend(report.clock.map(clock));
    found.extend(report.settings.iter().map(setting));
    Ok(found)
}

fn brokers(report: &ClusterReport) -> Finding {
    let ClusterReport { brokers, topics, library, .. } = report;
    let count = brokers.len();
    let found = format!(
        "{count} {} ({}), {topics} topics, librdkafka {library}",
        if count == 1 { "broker" } else { "brokers" },
        brokers.join(", ")
    );
    let means = "with one broker a record is on one machine only";
    finding("kafka", found, Verdict::of(false, count == 1), means)
}

/// The median in nanoseconds, and a text with the median, the 99th percentile and the maximum.
fn percentiles(all_ns: &[u64]) -> (u64, String) {
    let mut times = histogram();
    all_ns.iter().for_each(|ns| times.saturating_record((*ns).max(1)));
    let at = |part| times.value_at_quantile(part);
    let (p50, p99) = (at(0.5), at(0.99));
    let text =
        format!("p50 {}, p99 {}, max {} of {RECORDS}", time(p50), time(p99), time(times.max()));
    (p50, text)
}

fn acknowledgement(report: &ClusterReport) -> Finding {
    let (p50, found) = percentiles(&report.acknowledged_ns);
    let means = "an epoch of a query with a Kafka sink waits for the last acknowledgement; \
                 all replicas in sync must have the record";
    finding("kafka acks=all", found, Verdict::of(false, p50 > 10_000_000), means)
}

fn round_trip(report: &ClusterReport) -> Finding {
    let (p50, found) = percentiles(&report.round_trip_ns);
    let means = "from sending a record to reading it, without an engine: the floor of a query \
                 from Kafka to Kafka is twice this";
    finding("kafka round trip", found, Verdict::of(false, p50 > 10_000_000), means)
}

fn clock(ClockDifference { ahead_ms, error_ms }: ClockDifference) -> Finding {
    let found = format!("the broker is {ahead_ms} ms ahead, within {error_ms} ms");
    let means = "event times that the broker sets (LogAppendTime) differ from this machine's by \
                 this: synchronise the clocks";
    let is_off = ahead_ms.abs() > error_ms + 10;
    finding("kafka clock", found, Verdict::of(false, is_off), means)
}

fn setting(setting: &Setting) -> Finding {
    let Setting { name, value, is_default } = setting;
    let text = value.as_deref().unwrap_or("not set");
    let number = value.as_deref().and_then(|value| value.parse::<i64>().ok());
    let costs = |costs: bool| Verdict::of(false, costs);
    // Without a number there is nothing to judge.
    let judged = |is_costly: &dyn Fn(i64) -> bool| {
        number.map_or(Verdict::Unjudged, |number| costs(is_costly(number)))
    };
    let (verdict, means) = match name.as_str() {
        // A broker without this setting leaves fsync to the system.
        "log.flush.interval.messages" => (
            costs(number.is_some_and(|records| records < 1_000_000)),
            "the broker calls fsync after so many records, and their acknowledgements wait",
        ),
        "log.flush.interval.ms" => (
            costs(number.is_some_and(|ms| ms < 1_000_000_000)),
            "the broker calls fsync so often, and acknowledgements wait",
        ),
        "num.network.threads" | "num.io.threads" => {
            (judged(&|threads| threads < 3), "requests of other clients wait for these threads")
        }
        "replica.fetch.wait.max.ms" => (
            judged(&|ms| ms > 500),
            "a replica that has nothing to fetch asks again after this time",
        ),
        _ => (Verdict::Unjudged, ""),
    };
    let kind = if *is_default { ", the default" } else { "" };
    let found = format!("{name} {text}{kind}");
    finding("kafka setting", found, verdict, means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_syncs_each_record_costs_latency() {
        let verdict = |name: &str, value: Option<&str>| {
            let (name, value) = (name.to_string(), value.map(str::to_string));
            setting(&Setting { name, value, is_default: true }).verdict
        };
        assert_eq!(verdict("log.flush.interval.messages", Some("1")), Verdict::Costs);
        let never = i64::MAX.to_string();
        assert_eq!(verdict("log.flush.interval.messages", Some(&never)), Verdict::Good);
        assert_eq!(verdict("log.flush.interval.ms", None), Verdict::Good);
        assert_eq!(verdict("log.flush.interval.ms", Some("10")), Verdict::Costs);
    }

    #[test]
    fn a_setting_whose_effect_is_unknown_is_not_judged() {
        let verdict = |name: &str, value: Option<&str>| {
            let (name, value) = (name.to_string(), value.map(str::to_string));
            setting(&Setting { name, value, is_default: true }).verdict
        };
        for name in ["default.replication.factor", "inter.broker.protocol.version"] {
            assert_eq!(verdict(name, Some("3")), Verdict::Unjudged, "{name}");
        }
        assert_eq!(verdict("num.io.threads", None), Verdict::Unjudged);
        assert_eq!(verdict("num.io.threads", Some("8")), Verdict::Good);
        assert!(Verdict::Unjudged < Verdict::Good, "it decides nothing");
    }
}
