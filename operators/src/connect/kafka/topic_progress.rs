//! A Kafka source's part of progress reports: the latest offsets, and how far the source is behind
//! them.

use crate::connect::kafka::offsets::ByPartition;
use crate::connect::source_report::{SourceProgress, SourceReport};
use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::{Value as Json, json};
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

/// The latest offsets of a source's partitions, shared with the driver.
pub struct TopicProgress {
    description: String,
    consumer: Arc<BaseConsumer>,
    /// Micro-batch mode: the latest offsets of the last plan.
    planned: Mutex<Option<ByPartition>>,
}

impl TopicProgress {
    /// Creates the progress of the partitions that a consumer reads.
    pub fn new(description: String, consumer: Arc<BaseConsumer>) -> Self {
        Self { description, consumer, planned: Mutex::new(None) }
    }

    /// Stores the latest offsets that planning a batch has queried.
    pub fn set_planned(&self, latest: &ByPartition) {
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = Some(latest.clone());
    }

    /// The ends of the partitions as the client knows them from its last answers: no request is
    /// made.
    fn seen(&self, ends: &ByPartition) -> ByPartition {
        let mut latest = ends.clone();
        for (topic, partition, end) in ends.iter() {
            let Ok(name) = CString::new(topic) else { continue };
            let (mut low, mut high) = (0, 0);
            // SAFETY: the client is valid, the name ends with a NUL, and the call writes the two
            // numbers before it returns.
            let error = unsafe {
                let client = self.consumer.client().native_ptr();
                c::rd_kafka_get_watermark_offsets(
                    client,
                    name.as_ptr(),
                    partition,
                    &mut low,
                    &mut high,
                )
            };
            if error == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high > end {
                latest.set(topic, partition, high);
            }
        }
        latest
    }
}

/// The metrics of Spark's Kafka source. Their values are strings, and the mean has one decimal.
fn metrics(latest: &ByPartition, ends: &ByPartition) -> Json {
    let behind = |(topic, partition, latest): (&str, i32, i64)| {
        ends.get(topic, partition).map(|end| (latest - end).max(0))
    };
    let behind: Vec<i64> = latest.iter().filter_map(behind).collect();
    let sum: i64 = behind.iter().sum();
    let mean = sum as f64 / behind.len().max(1) as f64;
    json!({
        "avgOffsetsBehindLatest": format!("{mean:.1}"),
        "maxOffsetsBehindLatest": behind.iter().max().unwrap_or(&0).to_string(),
        "minOffsetsBehindLatest": behind.iter().min().unwrap_or(&0).to_string(),
    })
}

impl SourceProgress for TopicProgress {
    fn report(&self, end: &str) -> SourceReport {
        let ends = ByPartition::parse(end).unwrap_or_default();
        let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let latest = planned.unwrap_or_else(|| self.seen(&ends));
        SourceReport {
            description: self.description.clone(),
            metrics: metrics(&latest, &ends),
            latest_offset: latest.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_strings_as_in_spark() {
        let offsets = |text| ByPartition::parse(text).unwrap();
        let latest = offsets(r#"{"t":{"0":10,"1":7,"2":4}}"#);
        let ends = offsets(r#"{"t":{"0":5,"1":7,"2":0}}"#);
        assert_eq!(
            metrics(&latest, &ends),
            json!({
                "avgOffsetsBehindLatest": "3.0",
                "maxOffsetsBehindLatest": "5",
                "minOffsetsBehindLatest": "0",
            })
        );
        assert_eq!(metrics(&offsets("{}"), &ends)["avgOffsetsBehindLatest"], "0.0");
    }
}
