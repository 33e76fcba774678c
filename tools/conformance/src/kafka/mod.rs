//! Kafka cases, run against a real broker: `conformance --kafka HOST:PORT DIR…`.
//!
//! A case describes the content of topics before and between the steps of a query, and the expected
//! rows, batches, offsets and records. Topic names get a prefix per case, so that cases do not
//! affect each other.

mod broker;
mod run;

use crate::case::Outcome;
use broker::Broker;
use serde_json::Value as Json;
use std::path::Path;

/// Cases in whose last step Millstream fails deliberately where Spark continues, with the error
/// condition.
const ON_PURPOSE: [(&str, &str); 1] = [
    // Spark does not compare topic ids, so it continues at the old offset of a recreated topic.
    ("topic_recreated_unnoticed", "KAFKA_DATA_LOSS.PARTITIONS_DELETED"),
];

/// Replaces the expected result of a case where Millstream differs deliberately.
fn with_own_answer(mut case: Json) -> Json {
    let own = ON_PURPOSE.iter().find(|(name, _)| case["name"] == *name);
    if let Some((_, condition)) = own
        && let Some(step) = case["steps"].as_array_mut().and_then(|steps| steps.last_mut())
    {
        step["error"] = serde_json::json!({ "condition": condition });
    }
    case
}

/// Runs a case file.
pub fn run_file(path: &Path, servers: &str, number: usize) -> Outcome {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    // The prefix is unique per case and consists of letters and digits.
    let prefix = format!("c{}x{number}x", std::process::id());
    let case: Json = match serde_json::from_str(&text.replace('@', &prefix)) {
        Ok(case) => with_own_answer(case),
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let outcome = Broker::new(servers).and_then(|broker| run::run(&case, &broker));
    outcome.unwrap_or_else(Outcome::Failed)
}
