//! Runs a case in continuous mode and compares it with the rows that micro-batch mode must emit.
//!
//! In continuous mode watermarks travel among the rows, so a row that follows a later one in the
//! same batch may be late. Each partition of a source has its own watermark, so a row that is late
//! in micro-batch mode may be on time. Therefore a case is compared only if no row is late: either
//! the rows of each source are out of order by less than the delay (then the engine must not count
//! late rows), or the engine counts none in either mode. Not compared are cases that must fail;
//! deduplication within the watermark, which removes keys in the middle of a step; several
//! partitioned sources with a watermark, because an idle one is ignored; and sessions over rows
//! that are not in order by this measure, where a row may touch a session that has just closed.
//!
//! | output mode | what is compared |
//! |---|---|
//! | append | the rows of all steps together, after the last step |
//! | update | for each step: its rows are among the output, which has one row per change |
//! | complete | the table after the last step |

use crate::batches::expected;
use crate::case::{Case, LateRows, Prepared, Scratch};
use crate::compare::{is_among, same_rows};
use millstream::session::{StreamingQuery, Trigger};
use millstream::table::datetime::{Tz, interval, parse_timestamp};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 50_000_000 };
/// Maximum wait for expected rows or for a commit: idle partitions of a source hold the watermark
/// back for a while.
const PATIENCE: Duration = Duration::from_secs(20);

/// The outcome of a comparison of both modes.
pub enum Comparison {
    /// The case is not comparable.
    None,
    /// The results are the same.
    Same,
    /// Some rows were late in continuous mode, and may be: the results are not comparable.
    Late,
    /// How the results differ.
    Differs(String),
}

/// Compares the results, given the rows that micro-batch mode counted as late.
pub fn compare(case: &Case, prepared: &Prepared, parts: usize, late: u64) -> Comparison {
    let fails = case.steps().any(|step| !step["error"].is_null());
    if fails || !case.error().is_null() {
        return Comparison::None;
    }
    let timed = case.views().any(|view| !view["watermark"].is_null());
    let within = |view: &Json| !view["drop_duplicates_within_watermark"].is_null();
    let sessions = case.queries().any(|sql| sql.contains("session_window"));
    // Rows of different partitions overtake each other.
    let in_order = !timed || parts == 1 && in_order(case);
    // A source whose partitions are all idle no longer holds back another source.
    if timed && parts > 1 && prepared.streams.len() > 1 {
        return Comparison::None;
    }
    if timed && (case.views().any(within) || (sessions || late > 0) && !in_order) {
        return Comparison::None;
    }
    if late > 0 {
        let why = format!("micro-batch mode counts {late} rows as late, and none is");
        return Comparison::Differs(why);
    }
    let run = Run { case, prepared, late: LateRows::default(), got: Vec::new() };
    match run.steps(in_order) {
        Ok(Verdict::Same) => Comparison::Same,
        Ok(Verdict::Late) => Comparison::Late,
        Err(why) => Comparison::Differs(why),
    }
}

/// Whether no row can be late: each is behind the largest earlier time of its source by less than
/// the smallest delay. False if the fastest of several sources determines the watermark, because a
/// row may then be late because of another source.
fn in_order(case: &Case) -> bool {
    if case.setting("spark.sql.streaming.multipleWatermarkPolicy") == Some("max") {
        return false;
    }
    let delay = |view: &Json| Some(view["watermark"]["delay"].as_str()?.to_string());
    let delays = case.views().filter_map(delay).map(|text| {
        let length = interval::length(&text).ok();
        length.filter(|length| length.months == 0).map_or(0, |length| length.micros)
    });
    let delay_us = delays.min().unwrap_or(0);
    let columns = case.views().filter_map(|view| view["watermark"]["column"].as_str());
    let columns: Vec<_> = columns.collect();
    let mut largest: BTreeMap<&str, i64> = BTreeMap::new();
    for step in case.steps() {
        for (source, rows) in step["add"].as_object().into_iter().flatten() {
            for row in rows.as_array().into_iter().flatten() {
                let text = columns.iter().find_map(|column| row[*column].as_str());
                let Some(us) = text.and_then(|text| parse_timestamp(text, Some(Tz::UTC))) else {
                    return false;
                };
                let before = largest.entry(source).or_insert(0);
                if us <= 0 || *before - us >= delay_us {
                    return false;
                }
                *before = us.max(*before);
            }
        }
    }
    true
}

enum Verdict {
    Same,
    /// Some rows were late, so the case is not comparable.
    Late,
}

struct Run<'c> {
    case: &'c Case,
    prepared: &'c Prepared,
    /// The number of late rows.
    late: LateRows,
    /// The output; in mode complete the last table, in mode update that of the current step.
    got: Vec<Json>,
}

/// Waits until an epoch is committed whose marker was sent after this call.
fn commit_all(query: &StreamingQuery) -> Result<(), String> {
    let committed = || query.last_progress().map_or(0, |progress| progress.committed.epoch + 1);
    // The marker of the current epoch may have passed already; that of the next epoch has not.
    let wanted = committed() + 2;
    let begun = Instant::now();
    while committed() < wanted {
        if begun.elapsed() > PATIENCE {
            return Err(format!("no epoch commits within {PATIENCE:?}"));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

impl Run<'_> {
    fn start(&self, checkpoint: Option<&Path>) -> Result<StreamingQuery, String> {
        let late = self.late.clone();
        let query = self.prepared.start(self.case.mode(), CONTINUOUS, checkpoint, late);
        query.map_err(|error| error.to_string())
    }

    /// Takes the rows from the sink.
    fn take(&mut self) {
        let rows = self.prepared.take_rows();
        match self.case.mode() {
            "complete" if rows.is_empty() => {}
            "complete" => self.got = rows,
            _ => self.got.extend(rows),
        }
    }

    fn steps(mut self, in_order: bool) -> Result<Verdict, String> {
        let folder = Scratch::new();
        let checkpoint = self.case.has_restarts().then_some(folder.0.as_path());
        let mut query = self.start(checkpoint)?;
        let mut wanted = Vec::new();
        let complete = self.case.mode() == "complete";
        for (number, step) in self.case.steps().enumerate() {
            if step["restart"].as_bool() == Some(true) {
                // Rows that are emitted after the last committed marker would be emitted again
                // after the restart, because the sink is not transactional.
                if self.case.mode() == "append" {
                    self.wait(&wanted);
                    commit_all(&query)?;
                }
                query.stop().map_err(|error| format!("step {number}: {error}"))?;
                self.take();
                drop(query);
                query = self.start(checkpoint)?;
                continue;
            }
            self.prepared.add(step)?;
            query.process_all_available().map_err(|error| format!("step {number}: {error}"))?;
            self.take();
            let expected = expected(step);
            match self.case.mode() {
                "update" => {
                    // After a batch that only the watermark caused, a row may be repeated.
                    wanted = expected;
                    self.wait(&wanted);
                    if let Some(verdict) = self.verdict(number, &wanted, in_order)? {
                        return Ok(verdict);
                    }
                    self.got.clear();
                }
                "complete" if expected.is_empty() => {}
                "complete" => wanted = expected,
                _ => wanted.extend(expected),
            }
        }
        if self.case.mode() == "update" {
            return Ok(Verdict::Same);
        }
        self.wait(&wanted);
        if complete && !wanted.is_empty() {
            self.take();
        }
        let last = self.case.steps().count() - 1;
        Ok(self.verdict(last, &wanted, in_order)?.unwrap_or(Verdict::Same))
    }

    /// `None` if the rows are as expected and none was late.
    fn verdict(
        &self,
        step: usize,
        wanted: &[Json],
        in_order: bool,
    ) -> Result<Option<Verdict>, String> {
        let late = self.late.rows();
        match (late, in_order) {
            (0, _) if self.is_same(wanted) => Ok(None),
            (1.., false) => Ok(Some(Verdict::Late)),
            (1.., true) => Err(format!("step {step}: {late} rows count as late, and none is")),
            (0, _) => {
                let (wanted, got) = (Json::Array(wanted.to_vec()), Json::Array(self.got.clone()));
                Err(format!("step {step}: micro-batch mode gives {wanted}, continuous mode {got}"))
            }
        }
    }

    fn is_same(&self, wanted: &[Json]) -> bool {
        match self.case.mode() {
            "update" => wanted.iter().all(|row| is_among(row, &self.got)),
            _ => same_rows(wanted, &self.got, self.case.is_ordered()),
        }
    }

    /// Waits for the expected rows, until a row counts as late or [`PATIENCE`] is over.
    fn wait(&mut self, wanted: &[Json]) {
        let begun = Instant::now();
        while !self.is_same(wanted) && self.late.rows() == 0 && begun.elapsed() < PATIENCE {
            std::thread::park_timeout(Duration::from_millis(1));
            self.take();
        }
    }
}
