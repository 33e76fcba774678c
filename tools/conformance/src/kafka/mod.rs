//! Kafka cases, run against a real broker: `conformance --kafka HOST:PORT DIR…`.
//!
//! A case says what is in the topics before and between the steps of a query, and which rows,
//! batches, offsets and records must come of it. Names of topics get a prefix of their own, so
//! cases do not see each other's.

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
    // Letters and digits: a part of a name that no other case has.
    let prefix = format!("c{}x{number}x", std::process::id());
    let case: Json = match serde_json::from_str(&text.replace('@', &prefix)) {
        Ok(case) => case,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let outcome = Broker::new(servers).and_then(|broker| run::run(&case, &broker));
    outcome.unwrap_or_else(Outcome::Failed)
}
