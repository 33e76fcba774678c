//! Latency limits, and the floor of the machine that they are compared with.

use super::junit::{Case, Verdict};
use crate::capture::times::{parse_ns, show_ns};
use hdrhistogram::Histogram;
use millstream_engine::measure::latency::{NsHistogram, Percentiles, histogram};
use std::time::{Duration, Instant};

/// Duration of the measurement of the floor.
const FLOOR_TIME: Duration = Duration::from_millis(300);
/// The simulated interval between records in this measurement.
const FLOOR_STEP: Duration = Duration::from_micros(100);

/// A latency limit, such as `p99<200us`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    text: String,
    percentile: Percentile,
    most_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Percentile {
    P50,
    P90,
    P99,
    P999,
    P9999,
    Max,
}

impl Percentile {
    fn of(self, latency: &Percentiles) -> u64 {
        match self {
            Self::P50 => latency.p50_ns,
            Self::P90 => latency.p90_ns,
            Self::P99 => latency.p99_ns,
            Self::P999 => latency.p999_ns,
            Self::P9999 => latency.p9999_ns,
            Self::Max => latency.max_ns,
        }
    }
}

/// Parses limits, separated by commas.
pub(super) fn limits(text: &str) -> Result<Vec<Limit>, String> {
    text.split(',').map(|limit| one_limit(limit.trim())).collect()
}

fn one_limit(text: &str) -> Result<Limit, String> {
    let wrong = || format!("'{text}' is not a limit: write 'p99<200us', 'p50<50us,max<5ms'");
    let (name, most) = text.split_once('<').ok_or_else(wrong)?;
    let percentile = match name.trim() {
        "p50" => Percentile::P50,
        "p90" => Percentile::P90,
        "p99" => Percentile::P99,
        "p999" | "p99.9" => Percentile::P999,
        "p9999" | "p99.99" => Percentile::P9999,
        "max" => Percentile::Max,
        _ => {
            return Err(format!("'{name}': limits are of p50, p90, p99, p99.9, p99.99 and max"));
        }
    };
    let most = most.trim();
    if !most.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(wrong());
    }
    let most_ns = parse_ns(most).map_err(|_| wrong())?;
    Ok(Limit { text: text.to_string(), percentile, most_ns })
}

/// Measures the floor: how late a bare loop is that only waits for its next time.
pub(super) fn floor() -> NsHistogram {
    let (mut lag, start) = (histogram(), Instant::now());
    let mut due = start;
    while due < start + FLOOR_TIME {
        let now = loop {
            let now = Instant::now();
            if now >= due {
                break now;
            }
            std::hint::spin_loop();
        };
        lag.saturating_record((now - due).as_nanos() as u64);
        due += FLOOR_STEP;
    }
    lag
}

/// The measurements of a test.
pub(super) struct Measured {
    /// The latency of each query from the intended times of its records.
    pub queries: Vec<(String, Percentiles)>,
    pub send_lag: NsHistogram,
    /// The floor before and after the run.
    pub floors: [NsHistogram; 2],
    pub lag_max_ns: u64,
}

fn shown(lag: &Histogram<u64>) -> String {
    let at = |quantile| show_ns(lag.value_at_quantile(quantile));
    format!("p50 {}, p99 {}, max {}", at(0.5), at(0.99), show_ns(lag.max()))
}

impl Measured {
    /// Checks the limits. They are invalid if the machine cannot even keep the pace of a bare loop,
    /// and fail in any case if no row was measured.
    pub(super) fn judge(&self, limits: &[Limit]) -> Vec<Case> {
        let floor = self.floors.iter().max_by_key(|floor| floor.value_at_quantile(0.99));
        let floor_ns = floor.map_or(0, |floor| floor.value_at_quantile(0.99));
        let beside = format!(
            "send lag {}; floor of this machine {}",
            shown(&self.send_lag),
            floor.map(shown).unwrap_or_default()
        );
        let mut cases = Vec::new();
        for (query, latency) in &self.queries {
            for limit in limits {
                let found = limit.percentile.of(latency);
                let name = format!("{query} latency {}", limit.text);
                let value = show_ns(found);
                // On a slow machine rows are late, but not missing.
                let (verdict, text) = if latency.count == 0 {
                    (Verdict::Failed, "no row has a latency".to_string())
                } else if floor_ns > self.lag_max_ns {
                    let most = show_ns(self.lag_max_ns);
                    let reason = format!("{value}; the floor is above --max-lag {most}; {beside}");
                    (Verdict::Invalid, reason)
                } else if found < limit.most_ns {
                    (Verdict::Passed, format!("{value}; {beside}"))
                } else {
                    (Verdict::Failed, format!("{value}; {beside}"))
                };
                cases.push(Case { name, verdict, text });
            }
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_without_measured_rows_fails_on_a_busy_machine_too() {
        let floor = |ns| {
            let mut floor = histogram();
            floor.saturating_record(ns);
            floor
        };
        let verdict = |count, p99_ns, floor_ns| {
            let latency = Percentiles { count, p99_ns, ..Percentiles::default() };
            let measured = Measured {
                queries: vec![("counts".to_string(), latency)],
                send_lag: histogram(),
                floors: [floor(1), floor(floor_ns)],
                lag_max_ns: 1_000_000,
            };
            measured.judge(&limits("p99<200us").unwrap()).remove(0).verdict
        };
        let (quiet, busy) = (1_000, 2_000_000);
        assert!(verdict(10, 100_000, quiet) == Verdict::Passed);
        assert!(verdict(10, 200_000, quiet) == Verdict::Failed);
        assert!(verdict(10, 100_000, busy) == Verdict::Invalid);
        assert!(verdict(0, 0, quiet) == Verdict::Failed);
        assert!(verdict(0, 0, busy) == Verdict::Failed);
    }
}
