//! Measures whether one worker keeps up with sliding windows.

use super::resident_kb;
use crate::bench::open_loop::wrong;
use crate::failure::Failure;
use crate::stdout::say;
use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The windows and the load.
pub(super) struct Load {
    /// Rows per second.
    pub rate: u64,
    pub keys: u64,
    pub width_ms: u64,
    pub slide_ms: u64,
    pub seconds: u64,
}

/// Runs the measurement and prints the results.
pub(super) fn run(load: &Load, json: bool) -> Result<(), Failure> {
    let measured = measure(load)?;
    if json {
        say!("{}", measured.json(load));
    } else {
        measured.say(load);
    }
    match measured.keeps_up(load) {
        true => Ok(()),
        false => Err(Failure::Failed("it falls behind".to_string())),
    }
}

/// The state at the end of an epoch.
struct EpochEnd {
    at_us: i64,
    /// The records taken up to the end of the epoch.
    records: u64,
    /// The time by which the watermark lags the clock.
    lag_ms: i64,
}

fn measure(load: &Load) -> Result<Measured, Failure> {
    let Load { rate, keys, width_ms, slide_ms, seconds } = *load;
    let session = Session::new();
    let rows = session.read_stream().format("rate").option("rowsPerSecond", rate);
    rows.load().map_err(wrong)?.create_temp_view("r");
    let query = format!(
        "SELECT window.end, k, count(*), sum(value) FROM (SELECT timestamp AS ts, value % {keys} AS \
         k, value FROM r) WATERMARK ts DELAY OF INTERVAL 0 SECONDS GROUP BY window(ts, \
         '{width_ms} milliseconds', '{slide_ms} milliseconds'), k"
    );
    let results = Arc::new(AtomicU64::new(0));
    let counter = results.clone();
    // ORDERING: relaxed: a count on which no other access depends.
    let sink = move |_: &[Value]| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let writer = session.sql(&query).map_err(wrong)?.write_stream().foreach(sink);
    let query = writer.trigger(Trigger::Continuous { interval_ns: 1_000_000_000 }).start()?;
    // The windows are full after this time.
    let warm_up = Duration::from_millis(2 * width_ms);
    if let Some(ended) = query.await_termination_timeout(warm_up) {
        ended?;
    }
    let (start, before) = (Instant::now(), results.load(Ordering::Relaxed));
    let mut ends: Vec<EpochEnd> = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        if let Some(ended) = query.await_termination_timeout(Duration::from_secs(1)) {
            ended?;
        }
        if let Some(progress) = query.last_progress() {
            let committed = &progress.committed;
            let at_us = committed.started_us + committed.duration_ns as i64 / 1000;
            let lag_ms = at_us / 1000 - committed.watermark_ms;
            ends.push(EpochEnd { at_us, records: query.totals().records_in, lag_ms });
        }
    }
    let results = (results.load(Ordering::Relaxed) - before) as f64;
    let results_per_s = results / start.elapsed().as_secs_f64();
    let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
        return Err(Failure::Failed("no epoch was committed".to_string()));
    };
    let took_s = (last.at_us - first.at_us).max(1) as f64 / 1e6;
    let rows_per_s = (last.records - first.records) as f64 / took_s;
    let mut lags_ms: Vec<i64> = ends.iter().map(|end| end.lag_ms).collect();
    lags_ms.sort_unstable();
    let state = query.last_progress().map(|p| p.committed.state).unwrap_or_default();
    let state = state.first().map(|s| (s.rows, s.memory_bytes)).unwrap_or_default();
    let resident_kb = resident_kb();
    query.stop()?;
    Ok(Measured {
        rows_per_s,
        results_per_s,
        lag_p50_ms: lags_ms[lags_ms.len() / 2],
        lag_max_ms: lags_ms[lags_ms.len() - 1],
        slices: state.0,
        memory_bytes: state.1,
        resident_kb,
    })
}

struct Measured {
    rows_per_s: f64,
    results_per_s: f64,
    lag_p50_ms: i64,
    lag_max_ms: i64,
    slices: u64,
    memory_bytes: u64,
    resident_kb: u64,
}

impl Measured {
    fn taken_share(&self, load: &Load) -> f64 {
        self.rows_per_s / load.rate as f64
    }

    fn keeps_up(&self, load: &Load) -> bool {
        self.taken_share(load) > 0.99 && self.lag_max_ms < 1000
    }

    fn json(&self, load: &Load) -> serde_json::Value {
        let Load { rate, keys, width_ms, slide_ms, .. } = *load;
        serde_json::json!({
            "rate": rate, "keys": keys, "width_ms": width_ms, "slide_ms": slide_ms,
            "rows_per_s": self.rows_per_s, "results_per_s": self.results_per_s,
            "watermark_lag_ms": { "p50": self.lag_p50_ms, "max": self.lag_max_ms },
            "slices": self.slices, "memory_bytes": self.memory_bytes,
            "resident_kb": self.resident_kb, "kept_up": self.keeps_up(load),
        })
    }

    fn say(&self, load: &Load) {
        let Load { rate, keys, width_ms, slide_ms, seconds } = *load;
        say!(
            "windows of {width_ms} ms by {slide_ms} ms over {keys} keys, {rate} rows a second offered for {seconds} s, one worker"
        );
        say!(
            "rows a second taken {:.0} ({:.1}%), results a second {:.0}",
            self.rows_per_s,
            self.taken_share(load) * 100.0,
            self.results_per_s
        );
        say!(
            "watermark behind the clock at an epoch's end: p50 {} ms, max {} ms",
            self.lag_p50_ms,
            self.lag_max_ms
        );
        say!(
            "slices in state {}, about {:.0} MB; the process has {:.0} MB",
            self.slices,
            self.memory_bytes as f64 / 1e6,
            self.resident_kb as f64 * 1024.0 / 1e6
        );
        say!("{}", if self.keeps_up(load) { "it keeps up" } else { "it falls behind" });
    }
}
