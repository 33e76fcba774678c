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

/// Runs a case file.
pub fn run_file(path: &Path, servers: &str, number: usize) -> Outcome {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    // Letters and digits only; unique per case.
    let prefix = format!("c{}x{number}x", std::process::id());
    let case: Json = match serde_json::from_str(&text.replace('@', &prefix)) {
        Ok(case) => case,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let outcome = Broker::new(servers).and_then(|broker| run::run(&case, &broker));
    outcome.unwrap_or_else(Outcome::Failed)
}
