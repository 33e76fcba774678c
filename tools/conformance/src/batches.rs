//! Runs a case in micro-batch mode, step by step, with a given distribution over workers.

use crate::case::{Case, LateRows, Outcome, Prepared, Scratch, judge_error, query_watermark};
use crate::compare::same_rows;
use millstream::session::{StreamingQuery, Trigger};
use serde_json::Value as Json;
use std::path::Path;

/// A batch is planned only when the step waits for it. So a step's rows are one batch, even if
/// several sources or partitions read them.
const WHEN_AWAITED: Trigger = Trigger::ProcessingTime { interval_ns: u64::MAX / 4 };

/// Runs the case, with a checkpoint if requested or if it has restarts, and counts its late rows.
pub fn run(case: &Case, prepared: &Prepared, checkpoint: bool, late: &LateRows) -> Outcome {
    let folder = Scratch::new();
    let checkpoint = (checkpoint || case.has_restarts()).then_some(folder.0.as_path());
    match start(case, prepared, checkpoint, late) {
        Err(outcome) => outcome,
        Ok(_) if !case.error().is_null() => {
            Outcome::Failed(format!("started, but must be refused with {}", case.error()))
        }
        Ok(query) => {
            steps(case, prepared, (query, late), checkpoint).unwrap_or_else(Outcome::Failed)
        }
    }
}

fn start(
    case: &Case,
    prepared: &Prepared,
    checkpoint: Option<&Path>,
    late: &LateRows,
) -> Result<StreamingQuery, Outcome> {
    let query = prepared.start(case.mode(), WHEN_AWAITED, checkpoint, late.clone());
    query.map_err(|error| case.judge_refusal(&error))
}

fn steps(
    case: &Case,
    prepared: &Prepared,
    (mut query, late): (StreamingQuery, &LateRows),
    checkpoint: Option<&Path>,
) -> Result<Outcome, String> {
    // The first batch is planned immediately.
    query.process_all_available().map_err(|error| error.to_string())?;
    for (number, step) in case.steps().enumerate() {
        if step["restart"].as_bool() == Some(true) {
            query.stop().map_err(|error| format!("step {number}: {error}"))?;
            drop(query);
            query = match start(case, prepared, checkpoint, late) {
                Ok(query) => query,
                Err(Outcome::Failed(why) | Outcome::Skipped(why)) => {
                    return Err(format!("step {number}: restart: {why}"));
                }
                Err(Outcome::Passed) => unreachable!("a query that starts is not refused"),
            };
            query.process_all_available().map_err(|error| format!("step {number}: {error}"))?;
            let rows = prepared.rows();
            if !rows.is_empty() {
                return Err(format!("step {number}: the restart gives {}", Json::Array(rows)));
            }
            continue;
        }
        prepared.take_rows();
        prepared.add(step).map_err(|reason| format!("step {number}: {reason}"))?;
        let processed = query.process_all_available();
        if !step["error"].is_null() {
            return match processed {
                Err(error) => {
                    Ok(judge_error(&step["error"], error.condition(), &error.to_string()))
                }
                Ok(()) => Err(format!("step {number}: no error, but {}", step["error"])),
            };
        }
        processed.map_err(|error| format!("step {number}: {error}"))?;
        if let Some(wanted) = step["watermark"].as_str()
            && wanted != query_watermark(&query)
        {
            let got = query_watermark(&query);
            return Err(format!("step {number}: watermark {got}, expected {wanted}"));
        }
        let (expected, got) = (expected(step), prepared.rows());
        if !same_rows(&expected, &got, case.is_ordered()) {
            let (expected, got) = (Json::Array(expected), Json::Array(got));
            let mode = if case.mode() == "complete" { "complete" } else { "rows" };
            return Err(format!("step {number} ({mode}): expected {expected}, got {got}"));
        }
    }
    Ok(Outcome::Passed)
}

/// The rows that a step must emit.
pub fn expected(step: &Json) -> Vec<Json> {
    step["expect"].as_array().cloned().unwrap_or_default()
}
