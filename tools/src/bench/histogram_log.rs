//! Recorded measurements: written as a HdrHistogram interval log, which other tools can read, and
//! drawn as percentile plots.

use crate::failure::Failure;
use crate::latency_format::time;
use crate::stdout::say;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use millstream_engine::measure::latency::histogram;
use plotters::prelude::{
    BLACK, BLUE, ChartBuilder, Color, GREEN, IntoDrawingArea, IntoLogRange, LineSeries, RED,
    SVGBackend, SeriesLabelPosition, WHITE,
};
use plotters::style::RGBColor;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The histograms of one name, one per round, in nanoseconds.
pub(super) struct Recorded {
    pub name: String,
    pub rounds: Vec<Histogram<u64>>,
}

impl Recorded {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_string(), rounds: Vec::new() }
    }

    /// The sum of all rounds.
    pub fn sum(&self) -> Histogram<u64> {
        let mut sum = histogram();
        for round in &self.rounds {
            // Values above our maximum of one hour are recorded as one hour.
            for value in round.iter_recorded() {
                sum.saturating_record_n(value.value_iterated_to(), value.count_at_value());
            }
        }
        sum
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

/// Writes an interval log: one line per round, tagged with its name.
pub(super) fn write_log(
    path: &Path,
    comment: &str,
    (begun, round): (SystemTime, Duration),
    all: &[&Recorded],
) -> Result<(), Failure> {
    let file = File::create(path).map_err(|error| failed(path, error))?;
    let (mut out, mut serializer) = (BufWriter::new(file), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment(comment).with_start_time(begun).with_base_time(begun);
    let mut log =
        builder.begin_log_with(&mut out, &mut serializer).map_err(|error| failed(path, error))?;
    let most = all.iter().map(|recorded| recorded.rounds.len()).max().unwrap_or(0);
    for at in 0..most {
        for recorded in all {
            let Some(histogram) = recorded.rounds.get(at) else { continue };
            let tag = Tag::new(&recorded.name);
            log.write_histogram(histogram, round * at as u32, round, tag)
                .map_err(|error| failed(path, format!("{error:?}")))?;
        }
    }
    out.flush().map_err(|error| failed(path, error))
}

/// Reads an interval log, from any program: the histograms by tag, those without a tag as `run`. An
/// error if an entry cannot be decoded, or if there is no histogram.
pub(super) fn read_log(path: &Path) -> Result<Vec<Recorded>, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))?;
    let wrong = |at: usize, reason: String| {
        Failure::Wrong(format!(
            "{}: entry {at}: {reason}. It should be a HdrHistogram interval log, as `bench … --log` \
             writes it",
            path.display()
        ))
    };
    let (mut found, mut deserializer) = (Vec::<Recorded>::new(), Deserializer::new());
    for (at, entry) in IntervalLogIterator::new(&bytes).enumerate() {
        let entry = entry.map_err(|error| wrong(at, format!("{error:?}")))?;
        let LogEntry::Interval(interval) = entry else { continue };
        let encoded = STANDARD.decode(interval.encoded_histogram());
        let encoded = encoded.map_err(|error| wrong(at, error.to_string()))?;
        let histogram = deserializer.deserialize::<u64, _>(&mut encoded.as_slice());
        let histogram = histogram.map_err(|error| wrong(at, format!("{error:?}")))?;
        let name = interval.tag().map_or("run", |tag| tag.as_str());
        match found.iter_mut().find(|recorded| recorded.name == name) {
            Some(recorded) => recorded.rounds.push(histogram),
            None => found.push(Recorded { name: name.to_string(), rounds: vec![histogram] }),
        }
    }
    if found.is_empty() {
        return Err(wrong(0, "it holds no histogram".to_string()));
    }
    Ok(found)
}

/// The percentiles in plots and comparisons.
pub(super) const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Draws percentiles in the terminal: one bar per percentile and name, with a logarithmic length.
pub(super) fn print_plot(all: &[&Recorded]) {
    const WIDTH: f64 = 40.0;
    let sums: Vec<_> = all.iter().map(|recorded| (&recorded.name, recorded.sum())).collect();
    let longest = sums.iter().map(|(_, sum)| sum.max()).max().unwrap_or(1).max(2);
    let least = sums.iter().map(|(_, sum)| sum.min()).min().unwrap_or(1).clamp(1, longest - 1);
    let span = (longest as f64 / least as f64).log10();
    for (label, quantile) in QUANTILES {
        for (name, sum) in &sums {
            let ns = sum.value_at_quantile(quantile).max(1);
            let part = ((ns as f64 / least as f64).log10() / span).clamp(0.0, 1.0);
            let bar = "#".repeat(1 + (part * WIDTH) as usize);
            say!("{label:>7} {name:<8} {bar:<42} {}", time(ns));
        }
    }
}

/// Draws percentiles as SVG, with a logarithmic scale of nines to the right.
pub(super) fn draw(path: &Path, caption: &str, all: &[&Recorded]) -> Result<(), Failure> {
    draw_into(path, caption, all).map_err(|error| failed(path, error))
}

fn draw_into(
    path: &Path,
    caption: &str,
    all: &[&Recorded],
) -> Result<(), Box<dyn std::error::Error>> {
    const COLOURS: [RGBColor; 4] = [BLUE, RED, GREEN, BLACK];
    let sums: Vec<_> = all.iter().map(|recorded| (&recorded.name, recorded.sum())).collect();
    let us = |ns: u64| ns.max(1) as f64 / 1e3;
    let count = sums.iter().map(|(_, sum)| sum.len()).max().unwrap_or(1).max(10);
    let nines = (count as f64).log10();
    let most = sums.iter().map(|(_, sum)| us(sum.max())).fold(1.0, f64::max) * 1.5;
    let least = sums.iter().map(|(_, sum)| us(sum.min())).fold(most, f64::min) / 1.5;
    let area = SVGBackend::new(path, (900, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area);
    chart.caption(caption, ("sans-serif", 16)).margin(10);
    chart.x_label_area_size(35).y_label_area_size(70);
    let mut chart = chart.build_cartesian_2d(0.0..nines, (least..most).log_scale())?;
    let percentile = |nines: &f64| match *nines {
        n if n < 0.5 => "0%".to_string(),
        n => {
            format!("{:.*}%", (n.round() as usize).saturating_sub(2), 100.0 - 100.0 / 10f64.powf(n))
        }
    };
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("percentile").y_desc("us").x_label_formatter(&percentile);
    mesh.x_labels(nines.ceil() as usize + 1).draw()?;
    for (at, (name, sum)) in sums.iter().enumerate() {
        let steps = (0..=(nines * 40.0) as u32).map(|step| f64::from(step) / 40.0);
        let line = steps.map(|n| (n, us(sum.value_at_quantile(1.0 - 10f64.powf(-n)))));
        let colour = COLOURS[at % COLOURS.len()];
        let series = LineSeries::new(line, colour.stroke_width(2));
        chart.draw_series(series)?.label(name.as_str()).legend(move |(x, y)| {
            plotters::element::PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(2))
        });
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let (mut bare, mut engine) = (Recorded::new("bare"), Recorded::new("engine"));
        for round in 1..4u64 {
            for recorded in [&mut bare, &mut engine] {
                let mut values = histogram();
                values.record(round * 1_000_000).unwrap();
                recorded.rounds.push(values);
            }
        }
        let path = std::env::temp_dir().join(format!("millstream-log-{}.hlog", std::process::id()));
        let times = (SystemTime::UNIX_EPOCH, Duration::from_secs(5));
        write_log(&path, "a test", times, &[&bare, &engine]).expect("it is written");
        let found = read_log(&path).expect("it is read");
        assert_eq!(found.len(), 2);
        for (found, written) in found.iter().zip([bare, engine]) {
            assert_eq!(found.name, written.name);
            assert_eq!(found.rounds, written.rounds);
            assert_eq!(found.sum().len(), 3);
        }
        std::fs::write(&path, "1,2,3,no histogram\n").unwrap();
        assert!(matches!(read_log(&path), Err(Failure::Wrong(_))), "a wrong file is refused");
        std::fs::remove_file(&path).unwrap();
    }
}
