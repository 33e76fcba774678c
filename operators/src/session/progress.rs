//! Progress reports: what a query did in each epoch, with Spark's field names.

use crate::connect::socket::connection_counts::ConnectionTotals;
use crate::connect::source_report::SourceReport;
use millstream_engine::epoch::committed_epoch::CommittedEpoch;
use millstream_engine::epoch::event_time::EventTimeStats;
use millstream_engine::measure::latency::Percentiles;
use millstream_engine::measure::operator_state::{JoinState, WaitedInput};
use millstream_engine::measure::stall::{Stall, StallCause};
use serde_json::{Value as Json, json};
use std::collections::VecDeque;

/// The number of progress reports that a query keeps.
pub(super) const KEPT: usize = 100;

/// The progress report of one committed epoch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The query's ID, which stays the same after a restart from its checkpoint.
    pub id: String,
    /// The ID of this run, which is new at each start of the query.
    pub run_id: String,
    /// The query's name.
    pub name: String,
    /// The driver's report on the committed epoch.
    pub committed: CommittedEpoch,
    /// Rows emitted in this epoch.
    pub rows_emitted: u64,
    /// The latency from ingest to sink of rows that a record caused directly; rows of closed
    /// windows are excluded.
    pub latency: Percentiles,
    /// Up to three of the slowest rows that a record caused directly, slowest first, with the
    /// causes. Each is slower than 100 us.
    pub slowest: Vec<Stall>,
    /// Time since the previous epoch or the start of the run, in nanoseconds, for computing rates.
    pub interval_ns: u64,
    /// Each source's description.
    pub sources: Vec<String>,
    /// For each source, the connections if it is a socket.
    pub connections: Vec<Option<ConnectionTotals>>,
    /// For each source, its report on itself if it is Kafka.
    pub reports: Vec<Option<SourceReport>>,
    /// The sink's description.
    pub sink: String,
    /// Each stateful operator's kind.
    pub operators: Vec<String>,
    /// Whether the query declares an event time.
    pub timed: bool,
}

/// The names of both sides of a join.
const SIDES: [&str; 2] = ["left", "right"];

/// Formats the counts of a join and of each of its sides, and the side that it waits for, if any.
fn join_json(join: &JoinState) -> Json {
    let mut report = json!({ "matches": join.matches });
    for (name, input) in SIDES.iter().zip(&join.inputs) {
        report[*name] = json!({
            "numRows": input.rows,
            "bytes": input.bytes,
            "oldestEventTime": input.oldest_us.map(iso),
            "numInputRows": input.received,
            "numRowsEvicted": input.evicted,
            "isHeld": input.is_held,
        });
    }
    if let Some(WaitedInput { input, since_us }) = join.waiting_for {
        report["waitingFor"] = json!({ "side": SIDES[input], "since": iso(since_us) });
    }
    report
}

fn millis(ns: u64) -> u64 {
    ns / 1_000_000
}

fn per_second(rows: u64, ns: u64) -> Json {
    let rate = rows as f64 * 1e9 / ns as f64;
    if rate.is_finite() { Json::from(rate) } else { Json::Null }
}

/// Formats an offset: as JSON if it is valid JSON, otherwise as a string. An empty offset, before
/// the first epoch, is null.
fn position(text: &str) -> Json {
    if text.is_empty() {
        return Json::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Json::from(text))
}

fn iso(us: i64) -> String {
    match chrono::DateTime::from_timestamp_micros(us) {
        Some(time) => time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        None => us.to_string(),
    }
}

/// Formats a slow record: latency, main cause, and the share of each cause in microseconds.
fn stall(stall: &Stall) -> Json {
    let parts = StallCause::ALL.into_iter().zip(stall.parts_ns).filter(|(_, ns)| *ns > 0);
    let parts = parts.map(|(cause, ns)| (cause.label().to_string(), Json::from(ns / 1000)));
    json!({
        "latencyUs": stall.latency_ns / 1000,
        "cause": stall.cause().label(),
        "partsUs": parts.collect::<serde_json::Map<_, _>>(),
        "involuntarySwitches": stall.switches,
        "pageFaults": stall.faults,
    })
}

/// Formats the connections of a socket. Numbers are strings, as in the `metrics` of Spark's
/// sources.
fn metrics(connections: &ConnectionTotals) -> Json {
    let named = connections.named().into_iter();
    let named = named.map(|(name, count)| (name.to_string(), Json::from(count.to_string())));
    Json::Object(named.collect())
}

impl Progress {
    /// The number of records read from all sources.
    pub fn num_input_rows(&self) -> u64 {
        self.committed.records.iter().sum()
    }

    /// The number of rows that stateful operators dropped as late.
    pub fn num_rows_late(&self) -> u64 {
        self.committed.state.iter().map(|state| state.late).sum()
    }

    /// The number of rows dropped because their event time was too far ahead of the clock.
    pub fn num_rows_in_future(&self) -> u64 {
        self.committed.event_times.iter().map(|times| times.ahead_of_clock).sum()
    }

    /// The report as Spark's JSON, with further fields such as the latency.
    pub fn to_json(&self) -> Json {
        let epoch = &self.committed;
        let rows = self.num_input_rows();
        let sources = self.sources.iter().enumerate().map(|(i, description)| {
            let mut source = json!({
                "description": description,
                "startOffset": position(&epoch.starts[i].0),
                "endOffset": position(&epoch.offsets[i].0),
                "numInputRows": epoch.records[i],
                "inputRowsPerSecond": per_second(epoch.records[i], self.interval_ns),
                "processedRowsPerSecond": per_second(epoch.records[i], epoch.duration_ns),
            });
            if let Some(Some(connections)) = self.connections.get(i) {
                source["metrics"] = metrics(connections);
            }
            if let Some(Some(report)) = self.reports.get(i) {
                source["description"] = Json::from(report.description.as_str());
                source["latestOffset"] = position(&report.latest_offset);
                source["metrics"] = report.metrics.clone();
            }
            source
        });
        let operators = self.operators.iter().zip(&epoch.state);
        let operators = operators.map(|(name, state)| {
            let mut operator = json!({
                "operatorName": name,
                "numRowsTotal": state.rows,
                "numRowsUpdated": state.updated,
                "numRowsRemoved": state.removed,
                "numRowsDroppedByWatermark": state.late,
                "memoryUsedBytes": state.memory_bytes,
            });
            if let Some(join) = &state.join {
                operator["join"] = join_json(join);
            }
            operator
        });
        let mut report = json!({
            "id": self.id,
            "runId": self.run_id,
            "name": self.name,
            "timestamp": iso(epoch.started_us),
            "batchId": epoch.epoch,
            "batchDuration": millis(epoch.duration_ns),
            "numInputRows": rows,
            "inputRowsPerSecond": per_second(rows, self.interval_ns),
            "processedRowsPerSecond": per_second(rows, epoch.duration_ns),
            "durationMs": {
                "triggerExecution": millis(epoch.duration_ns),
                "latestOffset": millis(epoch.plan_ns),
                "walCommit": millis(epoch.wal_ns),
                "addBatch": millis(epoch.marker_ns),
                "commitOffsets": millis(epoch.commit_ns),
            },
            "stateOperators": operators.collect::<Vec<_>>(),
            "sources": sources.collect::<Vec<_>>(),
            "sink": { "description": self.sink, "numOutputRows": self.rows_emitted },
            "epochDurationUs": epoch.duration_ns / 1000,
            "markerTravelUs": epoch.marker_ns / 1000,
            "latencyUs": {
                "count": self.latency.count,
                "p50": self.latency.p50_ns / 1000,
                "p90": self.latency.p90_ns / 1000,
                "p99": self.latency.p99_ns / 1000,
                "p999": self.latency.p999_ns / 1000,
                "max": self.latency.max_ns / 1000,
            },
            "slowest": self.slowest.iter().map(stall).collect::<Vec<_>>(),
        });
        if self.timed {
            report["eventTime"] = self.event_time();
        }
        report
    }

    /// Formats the watermark and the event time statistics, combined over all inputs. The statistics
    /// are missing for an epoch without event times.
    fn event_time(&self) -> Json {
        let epoch = &self.committed;
        let mut report = json!({ "watermark": iso(epoch.batch_watermark_ms * 1000) });
        if self.num_rows_in_future() > 0 {
            report["numRowsAheadOfClock"] = self.num_rows_in_future().into();
        }
        let seen: Vec<_> = epoch.event_times.iter().filter(|times| times.count > 0).collect();
        let count: u64 = seen.iter().map(|times| times.count).sum();
        if count == 0 {
            return report;
        }
        let sum: i128 =
            seen.iter().map(|times| i128::from(times.avg_us) * i128::from(times.count)).sum();
        let min = seen.iter().map(|times| times.min_us).min().unwrap_or(0);
        let max = seen.iter().map(|times| times.max_us).max().unwrap_or(0);
        report["min"] = iso(min).into();
        report["max"] = iso(max).into();
        report["avg"] = iso((sum / i128::from(count)) as i64).into();
        let longest =
            |of: fn(&EventTimeStats) -> i64| seen.iter().map(|t| of(t)).max().unwrap_or(0);
        report["behindUs"] = json!({
            "count": seen.iter().map(|times| times.out_of_order).sum::<u64>(),
            "p50": longest(|times| times.behind_p50_us),
            "p99": longest(|times| times.behind_p99_us),
            "max": longest(|times| times.behind_max_us),
        });
        report
    }
}

/// The last reports, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Progress>);

impl Recent {
    pub fn add(&mut self, progress: Progress) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(progress);
    }

    pub fn last(&self) -> Option<Progress> {
        self.0.back().cloned()
    }

    pub fn all(&self) -> Vec<Progress> {
        self.0.iter().cloned().collect()
    }
}
