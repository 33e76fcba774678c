//! Formats latencies.

use millstream_engine::measure::latency::Percentiles;
use std::cmp::Ordering;

/// Formats percentiles as one line of text.
pub(crate) fn latency_line(p: &Percentiles) -> String {
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        time(p.p50_ns),
        time(p.p90_ns),
        time(p.p99_ns),
        time(p.p999_ns),
        time(p.max_ns)
    )
}

/// The percentiles as JSON, in nanoseconds.
pub(crate) fn latency_json(p: &Percentiles) -> serde_json::Value {
    serde_json::json!({
        "count": p.count, "p50": p.p50_ns, "p90": p.p90_ns, "p99": p.p99_ns, "p999": p.p999_ns,
        "p9999": p.p9999_ns, "max": p.max_ns,
    })
}

/// Formats a duration with a suitable unit.
pub(crate) fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}

/// The median of at least one value.
pub(crate) fn median(values: Vec<u64>) -> u64 {
    median_by(values, Ord::cmp)
}

/// The median of at least one value, by the comparison `order`. Of two middle values it is the
/// larger one.
pub(crate) fn median_by<T: Copy>(mut values: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> T {
    values.sort_unstable_by(order);
    values[values.len() / 2]
}
