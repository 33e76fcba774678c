//! Finds the slow periods in recorded progress, and prints the commands that replay them.
//!
//! A report is slow if its p99 is above a limit: `--slow`, or [`FACTOR`] times the median p99 of
//! the query's reports. Consecutive slow reports form a period; reports without latencies do not
//! end one.
//!
//! Rows that left the query in a period may have been read before it, by at most the largest
//! latency in it. The range of the commands begins that much earlier.

use super::progress_log::{ProgressLog, QueryReports, Report};
use crate::capture::times::{show_ns, show_wall_arg, show_wall_ns};
use crate::failure::Failure;
use crate::sparkline::sparkline;
use crate::stdout::say;
use std::path::Path;

/// Without a given limit, a report is slow above this multiple of the median p99.
const FACTOR: u64 = 3;
/// Maximum number of bars in the chart of latency over time.
const STEPS: usize = 60;

/// The parameters of the output.
pub(super) struct Question<'a> {
    /// A p99 above this is slow, in nanoseconds.
    pub limit_ns: Option<u64>,
    /// The maximum number of periods to print for each query.
    pub most: usize,
    /// The capture of the same period, with the times of its first and last event.
    pub capture: Option<(&'a Path, Option<(i64, i64)>)>,
}

/// A period of consecutive slow reports.
#[derive(Debug, PartialEq)]
pub(super) struct Period<'r> {
    pub reports: &'r [Report],
    /// All reports before the period.
    pub before: &'r [Report],
    pub p99_ns: u64,
    pub max_ns: u64,
}

impl Period<'_> {
    fn start_ns(&self) -> i64 {
        self.reports.first().map_or(0, |first| first.start_ns)
    }

    fn end_ns(&self) -> i64 {
        self.reports.last().map_or(0, |last| last.end_ns)
    }

    /// The earliest time at which a row of the period may have been read, if its latency was measured.
    fn first_intended_ns(&self) -> i64 {
        self.start_ns().saturating_sub(i64::try_from(self.max_ns).unwrap_or(i64::MAX))
    }
}

/// The median p99 of the reports that have latencies.
fn median_p99_ns(reports: &[Report]) -> Option<u64> {
    let mut all: Vec<u64> =
        reports.iter().filter(|report| report.count > 0).map(|report| report.p99_ns).collect();
    all.sort_unstable();
    // Of two middle values the lower one is the median. So if one of two reports is slow, it is
    // found.
    all.get(all.len().saturating_sub(1) / 2).copied()
}

/// The slow periods, in the order of time.
pub(super) fn slow_periods(reports: &[Report], limit_ns: u64) -> Vec<Period<'_>> {
    let is_slow = |report: &Report| report.count > 0 && report.p99_ns > limit_ns;
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(first) = reports[at..].iter().position(is_slow).map(|next| at + next) {
        let mut last = first;
        for (next, report) in reports.iter().enumerate().skip(first + 1) {
            if is_slow(report) {
                last = next;
            } else if report.count > 0 {
                break;
            }
        }
        let (before, reports) = (&reports[..first], &reports[first..=last]);
        let most = |of: fn(&Report) -> u64| reports.iter().map(of).max().unwrap_or(0);
        let (p99_ns, max_ns) = (most(|report| report.p99_ns), most(|report| report.max_ns));
        found.push(Period { reports, before, p99_ns, max_ns });
        at = last + 1;
    }
    found
}

/// Prints the slow periods of each query.
pub(super) fn run(path: &Path, question: &Question<'_>) -> Result<(), Failure> {
    let log = ProgressLog::read(path)?;
    say!("progress     {}", path.display());
    if log.others > 0 {
        say!("             {} lines are no report", log.others);
    }
    for query in &log.queries {
        print_query(query, question);
    }
    Ok(())
}

fn print_query(query: &QueryReports, question: &Question<'_>) {
    let reports = &query.reports;
    let (Some(first), Some(last)) = (reports.first(), reports.last()) else { return };
    say!("\nquery        {}", query.name);
    say!(
        "reports      {}, {} to {}",
        reports.len(),
        show_wall_ns(first.start_ns),
        show_wall_ns(last.end_ns)
    );
    let Some(median_ns) = median_p99_ns(reports) else {
        say!("latency      not measured: no row left the query");
        return;
    };
    let (line, peak_ns) = latency_chart(reports);
    say!("latency      {line}");
    say!("             p99 over time, at most {}, median {}", show_ns(peak_ns), show_ns(median_ns));
    let limit_ns = question.limit_ns.unwrap_or(median_ns.saturating_mul(FACTOR));
    let mut slow = slow_periods(reports, limit_ns);
    if slow.is_empty() {
        let limit = show_ns(limit_ns);
        say!("slow         never: no p99 is above {limit} (--slow DURATION for another limit)");
        return;
    }
    let count = slow.len();
    slow.sort_by_key(|period| std::cmp::Reverse(period.max_ns));
    slow.truncate(question.most);
    for period in &slow {
        print_period(period, reports, question);
    }
    if count > slow.len() {
        say!(
            "\n({} more periods are slower than {}: --periods N)",
            count - slow.len(),
            show_ns(limit_ns)
        );
    }
}

fn print_period(period: &Period<'_>, all: &[Report], question: &Question<'_>) {
    let (start_ns, end_ns) = (period.start_ns(), period.end_ns());
    say!("\nslow         {} to {}", show_wall_ns(start_ns), show_wall_ns(end_ns));
    let before = period.before.iter().rev().find(|report| report.count > 0);
    let before = before.map_or("no report".to_string(), |report| show_ns(report.p99_ns));
    say!("p99          {}; before: {before}", show_ns(period.p99_ns));
    say!("max          {}", show_ns(period.max_ns));
    say!("rate         {}; over all: {}", rate(period.reports), rate(all));
    let slowest = period.reports.iter().max_by_key(|report| report.slowest_ns);
    if let Some(slowest) = slowest.filter(|report| !report.causes.is_empty()) {
        let causes = slowest.causes.iter().map(|(cause, ns)| format!("{cause} {}", show_ns(*ns)));
        let causes: Vec<_> = causes.collect();
        say!("cause        of {}: {}", show_ns(slowest.slowest_ns), causes.join(", "));
    }
    let (from_ns, place) = (period.first_intended_ns(), question.capture);
    if let Some((path, span)) = place
        && span.is_none_or(|(first, last)| end_ns <= first || from_ns > last)
    {
        say!("play it      {} has no events of that time", path.display());
        return;
    }
    let path = place.map_or("CAPTURE".to_string(), |(path, _)| shell_word(path));
    let range = format!("--from {} --to-time {}", show_wall_arg(from_ns), show_wall_arg(end_ns));
    say!("play it      millstream replay {path} {range} --to HOST:PORT");
    say!("test it      millstream test JOB --replay {path} {range} --expect EXPECTED");
}

/// A path as a word of a shell command.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Formats the number of rows per second of a period; empty without reports. The period lasts from
/// its first epoch's start to the marker of its last one, or to that one's end if it has no other
/// duration.
fn rate(reports: &[Report]) -> String {
    let rows: u64 = reports.iter().map(|report| report.rows_in).sum();
    let (Some(first), Some(last)) = (reports.first(), reports.last()) else { return String::new() };
    let ns = match last.marker_ns.saturating_sub(first.start_ns) {
        0 => last.end_ns.saturating_sub(first.start_ns),
        ns => ns,
    };
    format!("{:.0} rows/s", rows as f64 * 1e9 / (ns as f64).max(1.0))
}

/// A chart with the largest p99 of each time step, and the largest p99 of all.
fn latency_chart(reports: &[Report]) -> (String, u64) {
    let first_ns = reports.iter().map(|report| report.start_ns).min().unwrap_or(0);
    let last_ns = reports.iter().map(|report| report.end_ns).max().unwrap_or(0);
    let span_ns = i128::from(last_ns) - i128::from(first_ns) + 1;
    let mut steps = vec![0; STEPS.min(reports.len())];
    for report in reports.iter().filter(|report| report.count > 0) {
        let since_ns = i128::from(report.end_ns) - i128::from(first_ns);
        let step = (since_ns * steps.len() as i128 / span_ns) as usize;
        let last = steps.len() - 1;
        let step: &mut u64 = &mut steps[step.min(last)];
        *step = report.p99_ns.max(*step);
    }
    sparkline(&steps)
}

#[cfg(test)]
mod tests {
    use super::super::progress_log::log_of;
    use super::*;

    /// A report that ends at a second, with the given p99 and count.
    fn line(second: i64, p99_us: u64, count: u64) -> String {
        let max_us = p99_us * 2;
        format!(
            r#"{{"runId":"r","name":"q","timestamp":"{}","epochDurationUs":5000,
            "numInputRows":{count},"latencyUs":{{"count":{count},"p99":{p99_us},"max":{max_us}}},
            "slowest":[{{"latencyUs":{max_us},"partsUs":{{"expiry":1,"blocked write":{p99_us}}}}}]}}"#,
            show_wall_arg(second * 1_000_000_000)
        )
        .replace('\n', " ")
    }

    fn reports(p99s_us: &[u64]) -> Vec<Report> {
        let lines = p99s_us.iter().enumerate();
        let lines: Vec<_> = lines.map(|(n, us)| line(n as i64, *us, u64::from(*us > 0))).collect();
        let mut log = log_of(&lines);
        assert_eq!((log.others, log.queries.len()), (0, 1));
        log.queries.remove(0).reports
    }

    #[test]
    fn the_second_in_which_latency_rose_is_reported_as_a_slow_period() {
        let reports = reports(&[50, 60, 50, 900, 50, 55]);
        assert_eq!(median_p99_ns(&reports), Some(50_000));
        let found = slow_periods(&reports, 150_000);
        assert_eq!(found.len(), 1);
        // The period starts at the marker of the previous report. Its first rows may have been read
        // 1.8 ms earlier.
        assert_eq!((found[0].start_ns(), found[0].end_ns()), (2_000_000_000, 3_006_000_000));
        assert_eq!(found[0].first_intended_ns(), 2_000_000_000 - 1_800_000);
        assert_eq!((found[0].p99_ns, found[0].max_ns), (900_000, 1_800_000));
        assert_eq!(found[0].reports[0].causes[0], ("blocked write".to_string(), 900_000));
    }

    #[test]
    fn reports_without_rows_do_not_end_a_period_and_usual_ones_do() {
        let reports = reports(&[50, 900, 0, 800, 50, 50, 50, 700, 0]);
        let found: Vec<_> =
            slow_periods(&reports, 150_000).iter().map(|s| (s.reports.len(), s.p99_ns)).collect();
        assert_eq!(found, [(3, 900_000), (1, 700_000)]);
        assert!(slow_periods(&reports, 900_000).is_empty());
    }

    #[test]
    fn an_invalid_report_is_counted_and_a_restart_starts_a_new_series() {
        let second = line(100, 70, 5).replace("\"r\"", "\"other\"");
        let log = log_of(&[line(0, 50, 5), "{\"name\":".to_string(), second]);
        assert_eq!((log.others, log.queries[0].reports.len()), (1, 2));
        assert_eq!(log.queries[0].reports[1].start_ns, 100_000_000_000);
        // The start of a run's first report follows from its input rate.
        let first = line(100, 70, 5).replace("\"name\"", "\"inputRowsPerSecond\":2.5,\"name\"");
        assert_eq!(log_of(&[first]).queries[0].reports[0].start_ns, 98_000_000_000);
    }

    #[test]
    fn the_highest_bar_is_where_latency_is_highest() {
        let (line, peak_ns) = latency_chart(&reports(&[100, 100, 800, 0]));
        assert_eq!((line.as_str(), peak_ns), ("▁▁█ ", 800_000));
    }
}
