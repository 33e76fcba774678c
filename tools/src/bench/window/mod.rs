//! `millstream bench window`: open-loop measurements of event-time windows. They show how soon a
//! result follows the record that closes its window, how long a window with many keys delays
//! records, whether sliding windows keep up, and whether latency or memory drifts.

mod close;
mod pause;
mod sliding;
mod soak;

use crate::bench::open_loop::{
    Measured, SocketQuery, Target, Traffic, bare, note, round, start_query,
};
use crate::failure::Failure;
use clap::{Args as ClapArgs, Subcommand};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench window close\n  \
    millstream bench window sliding --rate 500000\n  \
    millstream bench window hold --keys 1000000\n  \
    millstream bench window soak --minutes 30 --plot soak.svg\n\n\
    Latency is measured from the intended time of the record that closes a window, or of the probe.\n\
    The generator spins on the last core, the query's worker is pinned to the first. `close` and `soak`\n\
    check every result; `sliding` and `hold` count them.")]
pub(super) struct Args {
    #[command(subcommand)]
    part: Part,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Part {
    /// Tumbling windows of one second over sockets, compared with a bare loop that does the same
    Close {
        /// Rows per second
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
        rate: u64,
        /// Number of keys
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        keys: u64,
        /// Length of a round, in seconds
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(4..=3600))]
        seconds: u64,
        /// Number of rounds of bare loop and engine
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
        rounds: u64,
        /// Spin while waiting; otherwise both block
        #[arg(long)]
        spin: bool,
    },
    /// Sliding windows over rows from this process, on one core
    Sliding {
        /// Rows per second
        #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
        rate: u64,
        /// Number of keys
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        keys: u64,
        /// Length of a window, in milliseconds
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
        width_ms: u64,
        /// Slide of the windows, in milliseconds
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
        slide_ms: u64,
        /// Seconds to measure, after two window lengths
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
    /// How long records wait while a window with many keys closes
    Hold {
        /// Number of keys in the window
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        keys: u64,
        /// Time between two probes, in microseconds
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
        probe_us: u64,
        /// Number of windows to close
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
        rounds: u64,
    },
    /// Sliding windows over sockets for a long time: measures the drift of memory and latency
    Soak {
        /// Length of the run, in minutes
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        minutes: u64,
        /// Rows per second
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
        rate: u64,
        /// Number of keys
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        keys: u64,
        /// Write a plot to this file, as SVG
        #[arg(long)]
        plot: Option<PathBuf>,
    },
}

/// Runs the measurement and prints the results.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.part {
        Part::Close { rate, keys, seconds, rounds, spin } => {
            let load = Load { rate: *rate, keys: *keys, width_s: 1, slide_s: 1, seconds: *seconds };
            close::run(&load, *rounds, *spin, args.json)
        }
        Part::Sliding { rate, keys, width_ms, slide_ms, seconds } => {
            let (rate, keys, width_ms, slide_ms) = (*rate, *keys, *width_ms, *slide_ms);
            let load = sliding::Load { rate, keys, width_ms, slide_ms, seconds: *seconds };
            sliding::run(&load, args.json)
        }
        Part::Hold { keys, probe_us, rounds } => pause::run(*keys, *probe_us, *rounds, args.json),
        Part::Soak { minutes, rate, keys, plot } => {
            let seconds = minutes * 60;
            let load = Load { rate: *rate, keys: *keys, width_s: 10, slide_s: 1, seconds };
            soak::run(&load, plot.as_ref(), args.json)
        }
    }
}

/// Event time of the first row, in seconds.
const BASE_S: u64 = 1_000_000;
/// Seconds at the start that are not measured.
const WARM_UP_S: u64 = 2;

/// Rows whose event time is their intended send time, and the windows over them.
#[derive(Clone, Copy)]
struct Load {
    rate: u64,
    keys: u64,
    width_s: u64,
    slide_s: u64,
    seconds: u64,
}

impl Load {
    fn write_line(&self, seq: u64, out: &mut Vec<u8>) {
        let us = BASE_S * 1_000_000 + seq * 1_000_000 / self.rate;
        // Writing into memory does not fail.
        let _ = writeln!(out, "{us} key-{}", seq % self.keys);
    }

    /// The number of rows of a key in a window.
    fn rows_of(&self, end_s: u64, key: u64) -> u64 {
        let before = |second: u64| {
            let rows = (second - BASE_S) * self.rate;
            rows / self.keys + u64::from(rows % self.keys > key)
        };
        before(end_s) - before(end_s.saturating_sub(self.width_s).max(BASE_S))
    }
}

/// Checks the results, window by window.
struct Check {
    load: Load,
    end_s: u64,
    seen: Vec<bool>,
    left: u64,
}

impl Check {
    fn new(load: Load) -> Self {
        let seen = vec![false; load.keys as usize];
        Self { load, end_s: BASE_S + load.slide_s, seen, left: load.keys }
    }

    /// Checks a result. Returns the end of its window.
    fn result(&mut self, line: &[u8]) -> Result<u64, String> {
        let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        let mut parts = text.split(',');
        let mut number = |prefix: &str| {
            let part = parts.next().and_then(|part| part.strip_prefix(prefix));
            part.and_then(|part| part.parse::<u64>().ok())
        };
        let found = (number(""), number("key-"), number(""));
        let (Some(end_s), Some(key), Some(rows)) = found else {
            return Err(format!("'{text}' is not a result"));
        };
        let expected = self.load.rows_of(end_s, key);
        if end_s != self.end_s || rows != expected {
            let now = self.end_s;
            return Err(format!(
                "'{text}' is not in the window that ends at {now}, or is not \
            {expected}"
            ));
        }
        match self.seen.get_mut(key as usize) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(format!("'{text}' was received twice")),
        }
        self.left -= 1;
        if self.left == 0 {
            self.seen.fill(false);
            (self.left, self.end_s) = (self.load.keys, self.end_s + self.load.slide_s);
        }
        Ok(end_s)
    }
}

/// The rows and the results of a round. `each_window` is called with the measurements when a window
/// is complete.
struct Windows<F> {
    load: Load,
    check: Check,
    each_window: F,
}

impl<F: FnMut(u64, &mut Measured)> Traffic for Windows<F> {
    fn lines(&self) -> (u64, u64) {
        // The additional row closes the last window.
        (self.load.rate, self.load.rate * self.load.seconds + 1)
    }
    fn results(&self) -> u64 {
        self.load.seconds / self.load.slide_s * self.load.keys
    }
    fn write_line(&self, seq: u64, out: &mut Vec<u8>) {
        self.load.write_line(seq, out);
    }
    fn is_measured(&self, seq: u64) -> bool {
        seq >= WARM_UP_S * self.load.rate
    }
    fn result(
        &mut self,
        line: &[u8],
        arrived: Duration,
        measured: &mut Measured,
    ) -> Result<(), String> {
        let end_s = self.check.result(line)? - BASE_S;
        if end_s > WARM_UP_S {
            // The intended send time of the record that closes a window is the window's end.
            note(&mut measured.latency, Duration::from_secs(end_s), arrived);
        }
        if measured.results.is_multiple_of(self.load.keys) {
            (self.each_window)(end_s, measured);
        }
        Ok(())
    }
}

fn start_engine(load: &Load, spin: bool, ports: (u16, u16)) -> Result<Target, Failure> {
    let Load { width_s, slide_s, .. } = load;
    let query = format!(
        "SELECT unix_seconds(window.end) AS end, k, count(*) AS n FROM (SELECT \
         timestamp_micros(CAST(split_part(value, ' ', 1) AS BIGINT)) AS ts, \
         split_part(value, ' ', 2) AS k FROM lines) WATERMARK ts DELAY OF INTERVAL 0 SECONDS \
         GROUP BY window(ts, '{width_s} seconds', '{slide_s} seconds'), k"
    );
    start_query(
        if spin { "spin" } else { "park" },
        &SocketQuery::sql(query, "append", "csv"),
        ports,
    )
}

/// Hand-written tumbling windows of one second: one hash map of counts per window.
fn start_bare(spin: bool, ports: (u16, u16)) -> Result<Target, Failure> {
    let mut windows: BTreeMap<u64, HashMap<Vec<u8>, u64>> = BTreeMap::new();
    let each_line = move |line: &[u8], out: &mut Vec<u8>| {
        let Some(space) = line.iter().position(|b| *b == b' ') else { return };
        let digits = line[..space].iter();
        let us = digits.fold(0u64, |us, digit| us * 10 + u64::from(digit - b'0'));
        let (end_s, key) = (us / 1_000_000 + 1, &line[space + 1..]);
        while windows.first_key_value().is_some_and(|(end, _)| end * 1_000_000 <= us) {
            let Some((end, counts)) = windows.pop_first() else { break };
            for (key, count) in counts {
                // Writing into memory does not fail.
                let _ = write!(out, "{end},");
                out.extend_from_slice(&key);
                let _ = writeln!(out, ",{count}");
            }
        }
        let counts = windows.entry(end_s).or_default();
        match counts.get_mut(key) {
            Some(count) => *count += 1,
            None => drop(counts.insert(key.to_vec(), 1)),
        }
    };
    bare(spin, ports, each_line).map(Target::Bare)
}

/// The system that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    /// A loop that does the same work without an engine.
    Bare,
    Engine,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Engine => "engine",
        }
    }
}

fn windows(
    load: &Load,
    contender: Contender,
    spin: bool,
    each_window: impl FnMut(u64, &mut Measured) + Send,
) -> Result<Measured, Failure> {
    let mut traffic = Windows { load: *load, check: Check::new(*load), each_window };
    round(&mut traffic, |ports| match contender {
        Contender::Engine => start_engine(load, spin, ports),
        Contender::Bare => start_bare(spin, ports),
    })
}

/// Resident memory of this process, in KiB; 0 if the system does not report it.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_doubled_or_wrong_result_is_found() {
        let load = Load { rate: 100, keys: 2, width_s: 10, slide_s: 5, seconds: 20 };
        let mut check = Check::new(load);
        let line = |end_s: u64, key: u64, rows: u64| format!("{},key-{key},{rows}", BASE_S + end_s);
        let mut result = |end_s, key, rows| check.result(line(end_s, key, rows).as_bytes());
        assert_eq!(result(5, 0, 250), Ok(BASE_S + 5));
        assert!(result(5, 0, 250).is_err(), "twice");
        assert!(result(10, 1, 500).is_err(), "one is missing before");
        assert!(result(5, 1, 249).is_err(), "a row is missing");
        assert_eq!(result(5, 1, 250), Ok(BASE_S + 5));
        assert_eq!(result(10, 1, 500), Ok(BASE_S + 10));
    }
}
