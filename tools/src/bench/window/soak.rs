//! Measures whether latency or memory drifts in a long run.

use super::{Contender, Load, resident_kb, windows};
use crate::failure::Failure;
use crate::latency_format::{latency_json, latency_line, median, time};
use crate::stdout::say;
use millstream_engine::measure::latency::Percentiles;
use plotters::prelude::{
    BLUE, ChartBuilder, Color, IntoDrawingArea, LineSeries, RED, SVGBackend, WHITE,
};
use std::path::PathBuf;

/// Length of a measurement interval, in seconds.
const INTERVAL_S: u64 = 10;

struct Interval {
    until_s: u64,
    latency: Percentiles,
    resident_kb: u64,
}

/// Runs the measurement and prints the results.
pub(super) fn run(load: &Load, plot: Option<&PathBuf>, json: bool) -> Result<(), Failure> {
    if !json {
        say!(
            "windows of {} s by {} s over {} keys, {} rows a second for {} min",
            load.width_s,
            load.slide_s,
            load.keys,
            load.rate,
            load.seconds / 60
        );
    }
    let mut intervals: Vec<Interval> = Vec::new();
    let before = &mut intervals;
    let measured = windows(load, Contender::Engine, false, |until_s, measured| {
        if until_s % INTERVAL_S != 0 || measured.latency.is_empty() {
            return;
        }
        let latency = Percentiles::of(&measured.latency);
        measured.latency.reset();
        let resident_kb = resident_kb();
        if !json && until_s % 60 == 0 {
            let memory = resident_kb as f64 / 1024.0;
            say!("{:>4} min  {}  {memory:.1} MiB", until_s / 60, latency_line(&latency));
        }
        before.push(Interval { until_s, latency, resident_kb });
    })?;
    if let Some(path) = plot {
        draw(path, &intervals)
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    }
    // The first tenth is ignored, because buffers are still growing.
    let settled = &intervals[intervals.len() / 10..];
    let half = settled.len() / 2;
    let p99 = |part: &[Interval]| median(part.iter().map(|i| i.latency.p99_ns).collect());
    let memory = |part: &[Interval]| median(part.iter().map(|i| i.resident_kb).collect());
    if half == 0 {
        return Err(Failure::Failed("the run was too short to tell".to_string()));
    }
    let (first, second) = settled.split_at(half);
    let drift = p99(second) as f64 / p99(first) as f64;
    let grown_kb = memory(second) as i64 - memory(first) as i64;
    if json {
        let all = |i: &Interval| serde_json::json!({ "until_s": i.until_s, "latency": latency_json(&i.latency), "resident_kb": i.resident_kb });
        say!(
            "{}",
            serde_json::json!({
                "rate": load.rate, "keys": load.keys, "seconds": load.seconds,
                "results_checked": measured.results, "p99_second_half_to_first": drift,
                "resident_grown_kb": grown_kb, "intervals": intervals.iter().map(all).collect::<Vec<_>>(),
            })
        );
        return Ok(());
    }
    say!("{} results checked: each key of each window once, and correct", measured.results);
    say!(
        "median p99 of an interval: first half {}, second half {} (x{drift:.2}); memory {:.1} MiB and {:.1} MiB",
        time(p99(first)),
        time(p99(second)),
        memory(first) as f64 / 1024.0,
        memory(second) as f64 / 1024.0
    );
    Ok(())
}

fn draw(path: &PathBuf, intervals: &[Interval]) -> Result<(), Box<dyn std::error::Error>> {
    let (upper, lower) =
        SVGBackend::new(path, (900, 600)).into_drawing_area().split_vertically(300);
    let minutes = |i: &Interval| i.until_s as f64 / 60.0;
    let last = intervals.last().map_or(1.0, minutes);
    let us = |ns: u64| ns as f64 / 1e3;
    let most_us = intervals.iter().map(|i| us(i.latency.p99_ns)).fold(1.0, f64::max) * 1.2;
    upper.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&upper);
    chart.caption("latency of 10 s: p50 (blue), p99 (red), us", ("sans-serif", 16)).margin(10);
    chart.x_label_area_size(30).y_label_area_size(70);
    let mut chart = chart.build_cartesian_2d(0.0..last, 0.0..most_us)?;
    chart.configure_mesh().x_desc("min").draw()?;
    let line = |of: fn(&Percentiles) -> u64| {
        intervals.iter().map(move |i| (minutes(i), us(of(&i.latency)))).collect::<Vec<_>>()
    };
    chart.draw_series(LineSeries::new(line(|p| p.p50_ns), BLUE.stroke_width(1)))?;
    chart.draw_series(LineSeries::new(line(|p| p.p99_ns), RED.stroke_width(1)))?;
    lower.fill(&WHITE)?;
    let mib = |i: &Interval| i.resident_kb as f64 / 1024.0;
    let most = intervals.iter().map(mib).fold(1.0, f64::max) * 1.2;
    let mut chart = ChartBuilder::on(&lower);
    chart.caption("memory of the process, MiB", ("sans-serif", 16)).margin(10);
    chart.x_label_area_size(30).y_label_area_size(70);
    let mut chart = chart.build_cartesian_2d(0.0..last, 0.0..most)?;
    chart.configure_mesh().x_desc("min").draw()?;
    let memory = intervals.iter().map(|i| (minutes(i), mib(i)));
    chart.draw_series(LineSeries::new(memory, BLUE.stroke_width(1)))?;
    upper.present()?;
    lower.present()?;
    Ok(())
}
