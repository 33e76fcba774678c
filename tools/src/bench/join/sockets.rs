//! A join of two streams over one socket, compared with a bare loop that does the same and with the
//! keyed count.

use super::by_hand::HashJoin;
use crate::bench::figure::{Figure, Goal, Value};
use crate::bench::open_loop::{
    Job, Load, Measured, SocketQuery, Target, Traffic, WORDS, bare, intended, note, round,
    start_query,
};
use crate::bench::socket_job::SocketJob;
use crate::failure::Failure;
use crate::latency_format::median;
use millstream_engine::measure::latency::Percentiles;
use std::io::Write;
use std::time::Duration;

/// Consecutive lines match: `l KEY NUMBER MICROSECONDS`, and the same for `r`.
struct Matched {
    rate: u64,
    lines: u64,
}

/// The time of the first row, in microseconds.
const BASE_US: u64 = 3_600_000_000;

impl Traffic for Matched {
    fn lines(&self) -> (u64, u64) {
        (self.rate, self.lines)
    }
    fn results(&self) -> u64 {
        self.lines / 2
    }
    fn write_line(&self, seq: u64, out: &mut Vec<u8>) {
        let side = if seq.is_multiple_of(2) { 'l' } else { 'r' };
        let us = BASE_US + seq * 1_000_000 / self.rate;
        // Writing into memory does not fail.
        let _ = writeln!(out, "{side} {} {seq} {us}", seq / 2);
    }
    fn is_measured(&self, seq: u64) -> bool {
        seq >= self.lines / 10
    }
    fn result(
        &mut self,
        line: &[u8],
        arrived: Duration,
        measured: &mut Measured,
    ) -> Result<(), String> {
        let seq = (measured.results - 1) * 2;
        let expected = format!("{seq},{}", seq + 1);
        if line != expected.as_bytes() {
            return Err(format!("'{}' was received, not '{expected}'", line.escape_ascii()));
        }
        if self.is_measured(seq + 1) {
            note(&mut measured.latency, intended(seq + 1, self.rate), arrived);
        }
        Ok(())
    }
}

fn query() -> String {
    let side = |name: char| {
        format!(
            "(SELECT CAST(split_part(value, ' ', 2) AS BIGINT) AS k, \
             CAST(split_part(value, ' ', 3) AS BIGINT) AS n, \
             timestamp_micros(CAST(split_part(value, ' ', 4) AS BIGINT)) AS t \
             FROM lines WHERE startswith(value, '{name}')) WATERMARK t DELAY OF INTERVAL 0 SECONDS"
        )
    };
    format!(
        "SELECT l.n, r.n FROM {} AS l JOIN {} AS r ON l.k = r.k \
         AND r.t >= l.t - INTERVAL 10 SECONDS AND r.t <= l.t + INTERVAL 10 SECONDS",
        side('l'),
        side('r')
    )
}

fn start_bare(spin: bool, ports: (u16, u16)) -> Result<Target, Failure> {
    let mut join = HashJoin::new(10_000_000, 10_000_000);
    let each_line = move |line: &[u8], out: &mut Vec<u8>| {
        let mut numbers = [0i64; 3];
        for (number, part) in numbers.iter_mut().zip(line.split(|b| *b == b' ').skip(1)) {
            *number = part.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
        }
        let [key, number, time] = numbers;
        join.push(line.first() == Some(&b'l'), [key, time, number], |l, r| {
            // Writing into memory does not fail.
            let _ = writeln!(out, "{l},{r}");
        });
        join.expire(time);
    };
    bare(spin, ports, each_line).map(Target::Bare)
}

/// Runs alternating rounds and adds their medians to `figures`.
pub(super) fn run(
    rate: u64,
    seconds: u64,
    rounds: u64,
    figures: &mut Vec<Figure>,
) -> Result<(), Failure> {
    let mut p50s: [Vec<u64>; 3] = Default::default();
    let query = SocketQuery::sql(query(), "append", "csv");
    for _ in 0..rounds {
        let lines = rate * seconds;
        let matched = || Matched { rate, lines };
        let hand = round(&mut matched(), |ports| start_bare(true, ports))?;
        let ours = round(&mut matched(), |ports| start_query("spin", &query, ports))?;
        let count = Job::Wordcount.query();
        let mut words =
            Load { job: Job::Wordcount, words: WORDS, first: 0, rate, lines, warm_up: lines / 10 };
        let counted = round(&mut words, |ports| start_query("spin", &count, ports))?;
        for (p50s, measured) in p50s.iter_mut().zip([&hand, &ours, &counted]) {
            p50s.push(Percentiles::of(&measured.latency).p50_ns);
        }
    }
    let [hand, ours, counted] = p50s.map(|p50s| median(p50s) as f64);
    let name = |what: &str| format!("sockets, {rate} lines/s, {what}, p50");
    // A match may take 10 us longer than a keyed count.
    let (goal, hand) = (Goal::AtMost(Value::Ns(counted + 10e3)), Some(Value::Ns(hand)));
    figures.push(Figure::compared(name("two streams matched"), Value::Ns(ours), hand, goal));
    figures.push(Figure::compared(name("keyed count"), Value::Ns(counted), None, None));
    Ok(())
}
