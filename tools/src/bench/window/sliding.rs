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

/// Runs the measurement and prints the results.
pub(super) fn run(
    rate: u64,
    keys: u64,
    (width_ms, slide_ms): (u64, u64),
    seconds: u64,
    json: bool,
) -> Result<(), Failure> {
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
    // ORDERING: relaxed: a count that is read once a second.
    let sink = move |_: &[Value]| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let writer = session.sql(&query).map_err(wrong)?.write_stream().foreach(sink);
    let query = writer.trigger(Trigger::Continuous { interval_ns: 1_000_000_000 }).start()?;
    // Until the windows are full.
    let warm_up = Duration::from_millis(2 * width_ms);
    if let Some(ended) = query.await_termination_timeout(warm_up) {
        ended?;
    }
    let (start, before) = (Instant::now(), results.load(Ordering::Relaxed));
    // For the end of each epoch: its time, the number of records so far, and the delay of the
    // watermark.
    let mut ends: Vec<(i64, u64, i64)> = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        if let Some(ended) = query.await_termination_timeout(Duration::from_secs(1)) {
            ended?;
        }
        if let Some(progress) = query.last_progress() {
            let committed = &progress.committed;
            let ended_us = committed.started_us + committed.duration_ns as i64 / 1000;
            let lag_ms = ended_us / 1000 - committed.watermark_ms;
            ends.push((ended_us, query.totals().records_in, lag_ms));
        }
    }
    let out = (results.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
        return Err(Failure::Failed("no epoch was committed".to_string()));
    };
    let taken = (last.1 - first.1) as f64 / ((last.0 - first.0).max(1) as f64 / 1e6);
    let mut lags_ms: Vec<i64> = ends.iter().map(|(_, _, lag_ms)| *lag_ms).collect();
    let state = query.last_progress().map(|p| p.committed.state).unwrap_or_default();
    let resident_kb = resident_kb();
    query.stop()?;
    let state = state.first().map(|s| (s.rows, s.memory_bytes)).unwrap_or_default();
    lags_ms.sort_unstable();
    let (lag50, lag_max) = (lags_ms[lags_ms.len() / 2], lags_ms[lags_ms.len() - 1]);
    let share = taken / rate as f64;
    let kept_up = share > 0.99 && lag_max < 1000;
    if json {
        say!(
            "{}",
            serde_json::json!({
                "rate": rate, "keys": keys, "width_ms": width_ms, "slide_ms": slide_ms,
                "rows_per_s": taken, "results_per_s": out, "watermark_lag_ms": { "p50": lag50, "max": lag_max },
                "slices": state.0, "memory_bytes": state.1, "resident_kb": resident_kb,
                "kept_up": kept_up,
            })
        );
    } else {
        say!(
            "windows of {width_ms} ms by {slide_ms} ms over {keys} keys, {rate} rows a second offered for {seconds} s, one worker"
        );
        say!("rows a second taken {taken:.0} ({:.1}%), results a second {out:.0}", share * 100.0);
        say!("watermark behind the clock at an epoch's end: p50 {lag50} ms, max {lag_max} ms");
        say!(
            "slices in state {}, about {:.0} MB; the process has {:.0} MB",
            state.0,
            state.1 as f64 / 1e6,
            resident_kb as f64 * 1024.0 / 1e6
        );
        say!("{}", if kept_up { "it keeps up" } else { "it falls behind" });
    }
    if kept_up { Ok(()) } else { Err(Failure::Failed("it falls behind".to_string())) }
}
