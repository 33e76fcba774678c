//! Reads progress reports that `millstream run --progress FILE` has written: one JSON object per
//! line.

use crate::capture::times;
use crate::failure::Failure;
use serde_json::Value as Json;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Maximum length of a line, in bytes. A longer line is not a report.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// The latency figures of one epoch's report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Report {
    run: u64,
    /// The time at which the epoch's marker was sent or its batch was planned.
    pub marker_ns: i64,
    /// The time from which the epoch's rows were read: the marker of the previous epoch or, in the
    /// first report of a run, computed from the input rate.
    pub start_ns: i64,
    /// The end of the epoch. Its latencies were collected up to this time.
    pub end_ns: i64,
    pub rows_in: u64,
    /// Number of rows whose latency was measured.
    pub count: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
    /// The latency of the slowest explained row. `causes` lists what it waited for.
    pub slowest_ns: u64,
    pub causes: Vec<(String, u64)>,
}

/// The reports of a query, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct QueryReports {
    pub name: String,
    pub reports: Vec<Report>,
}

/// All reports of a file.
#[derive(Debug, Default)]
pub(super) struct ProgressLog {
    pub queries: Vec<QueryReports>,
    /// Number of lines that are not reports, such as a line that a crash has cut off.
    pub others: u64,
}

/// Whether a path is a file whose first byte is `{`, which is taken for JSON lines. Captures and
/// checkpoint files start with other bytes.
pub(super) fn is_progress(path: &Path) -> bool {
    let mut first = [0];
    let read = path.is_file().then(|| File::open(path).ok()?.read_exact(&mut first).ok()).flatten();
    read.is_some() && first == *b"{"
}

impl ProgressLog {
    /// Reads all reports of a file.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let fails = |error: std::io::Error| {
            Failure::Wrong(format!("PROGRESS_UNREADABLE: {}: {error}", path.display()))
        };
        let mut file = BufReader::new(File::open(path).map_err(fails)?);
        let (mut log, mut line) = (Self::default(), Vec::new());
        loop {
            line.clear();
            let read = (&mut file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if read.map_err(fails)? == 0 {
                break;
            }
            log.add(&line);
        }
        if log.queries.is_empty() {
            return Err(Failure::Wrong(format!(
                "NO_PROGRESS: {} has no progress report: `millstream run --progress FILE` writes them",
                path.display()
            )));
        }
        Ok(log)
    }

    fn add(&mut self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let parsed: Option<Json> = serde_json::from_slice(line).ok();
        let Some((name, mut report)) = parsed.as_ref().and_then(Report::parse) else {
            self.others += 1;
            return;
        };
        let at = self.queries.iter().position(|query| query.name == name).unwrap_or_else(|| {
            self.queries.push(QueryReports { name, reports: Vec::new() });
            self.queries.len() - 1
        });
        let reports = &mut self.queries[at].reports;
        if let Some(last) = reports.last().filter(|last| last.run == report.run) {
            report.start_ns = last.marker_ns.min(report.marker_ns);
        }
        reports.push(report);
    }
}

impl Report {
    /// Parses a report and its query's name. The start time is computed from the input rate. It is
    /// replaced if an earlier report of the run is known.
    fn parse(json: &Json) -> Option<(String, Self)> {
        let number = |value: &Json| value.as_u64();
        let latency = json.get("latencyUs")?;
        let us = |name: &str| latency.get(name).and_then(number).map(|us| us.saturating_mul(1000));
        let marker_ns = times::parse_wall_ns(json.get("timestamp")?.as_str()?).ok()?;
        let took_us = json.get("epochDurationUs").and_then(number)?;
        let took_ns = i64::try_from(took_us).ok()?.checked_mul(1000)?;
        let slowest = json.get("slowest").and_then(|slowest| slowest.get(0));
        let slowest_us = slowest.and_then(|slowest| slowest.get("latencyUs")).and_then(number);
        let rows_in = json.get("numInputRows").and_then(number)?;
        let rate = json.get("inputRowsPerSecond").and_then(Json::as_f64).unwrap_or(0.0);
        let before_ns = if rate > 0.0 { (rows_in as f64 * 1e9 / rate) as i64 } else { 0 };
        let report = Self {
            run: hash(json.get("runId").and_then(Json::as_str).unwrap_or_default()),
            marker_ns,
            start_ns: marker_ns.saturating_sub(before_ns),
            // The marker's time is truncated to milliseconds.
            end_ns: marker_ns.checked_add(took_ns)?.checked_add(1_000_000)?,
            rows_in,
            count: latency.get("count").and_then(number)?,
            p99_ns: us("p99")?,
            max_ns: us("max")?,
            slowest_ns: slowest_us.unwrap_or(0).saturating_mul(1000),
            causes: slowest.map(causes).unwrap_or_default(),
        };
        Some((json.get("name")?.as_str()?.to_string(), report))
    }
}

/// The causes of a slow row's latency, the longest first, in nanoseconds.
fn causes(slowest: &Json) -> Vec<(String, u64)> {
    let parts = slowest.get("partsUs").and_then(Json::as_object).into_iter().flatten();
    let parts = parts.filter_map(|(cause, us)| {
        Some((cause.clone(), us.as_u64().filter(|us| *us > 0)?.saturating_mul(1000)))
    });
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    parts
}

fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
pub(super) fn log_of(lines: &[String]) -> ProgressLog {
    let mut log = ProgressLog::default();
    lines.iter().for_each(|line| log.add(line.as_bytes()));
    log
}
