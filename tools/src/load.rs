//! Open-loop load over two sockets, and how latencies are printed.

use crate::Failure;
use hdrhistogram::Histogram;
use millstream_engine::cores;
use millstream_engine::latency::{Percentiles, histogram};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// One line of percentiles.
pub(crate) fn latency_line(p: &Percentiles) -> String {
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        time(p.p50),
        time(p.p90),
        time(p.p99),
        time(p.p999),
        time(p.max)
    )
}

/// The percentiles as JSON, in nanoseconds.
pub(crate) fn latency_json(p: &Percentiles) -> serde_json::Value {
    serde_json::json!({ "p50": p.p50, "p90": p.p90, "p99": p.p99, "p999": p.p999, "max": p.max })
}

/// A duration with a fitting unit.
pub(crate) fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}

/// On a thread of its own: what is started from a pinned thread inherits its core.
pub(crate) fn on_last_core<T: Send>(
    body: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(core) = cores::allowed().last().copied() {
                cores::pin(core);
            }
            body()
        });
        let outcome = thread.join().unwrap_or_else(|_| Err("the generator panicked".into()));
        outcome.map_err(Failure::Failed)
    })
}

/// The two jobs that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Job {
    /// Lines in; those without the word "drop" out, in capitals
    Echo,
    /// Words in; each word's running count out
    Wordcount,
}

/// Different words of the count.
pub(crate) const WORDS: u64 = 1_000;
/// Every so many-th line of `echo` is to be filtered out.
pub(crate) const DROP_EVERY: u64 = 10;
/// Longest wait for results that do not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is sent and expected back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The job.
    pub job: Job,
    /// Different words of the count; they come in an order that jumps about among them.
    pub words: u64,
    /// The first line's number.
    pub first: u64,
    /// Lines a second; as fast as they are taken if 0.
    pub rate: u64,
    /// Lines.
    pub lines: u64,
    /// Of these, the ones that are not measured.
    pub warm_up: u64,
}

/// No two lines in a row have neighbouring words, and each word comes once in `words` lines.
const STRIDE: u64 = 1_000_003;

impl Load {
    fn word(&self, seq: u64) -> u64 {
        (seq % self.words) * STRIDE % self.words
    }

    fn write_line(&self, seq: u64, out: &mut Vec<u8>) {
        // Writing into memory does not fail.
        let _ = match self.job {
            Job::Echo if seq % DROP_EVERY == DROP_EVERY - 1 => {
                writeln!(out, "{seq} drop this line of text")
            }
            Job::Echo => writeln!(out, "{seq} pass this line of text"),
            Job::Wordcount => writeln!(out, "word-{}", self.word(seq)),
        };
    }

    /// Results that the lines must give.
    fn results(&self) -> u64 {
        match self.job {
            Job::Echo => self.lines - self.lines / DROP_EVERY,
            Job::Wordcount => self.lines,
        }
    }

    /// The line that result number `at` must come from, if the result is right.
    fn line_of(&self, at: u64, result: &[u8]) -> Result<u64, String> {
        let text = std::str::from_utf8(result).map_err(|error| error.to_string())?;
        let expected = match self.job {
            Job::Echo => {
                let seq = at / (DROP_EVERY - 1) * DROP_EVERY + at % (DROP_EVERY - 1);
                (seq, format!("{seq} PASS THIS LINE OF TEXT"))
            }
            Job::Wordcount => {
                let seq = self.first + at;
                (at, format!("word-{},{}", self.word(seq), seq / self.words + 1))
            }
        };
        if text == expected.1 {
            Ok(expected.0)
        } else {
            Err(format!("result {at} is '{text}', not '{}'", expected.1))
        }
    }
}

/// What one run measured.
pub(crate) struct Measured {
    /// From intended send time to the result's arrival, warm-up cut.
    pub latency: Histogram<u64>,
    /// From intended send time to the send: the generator's own lag.
    pub lag: Histogram<u64>,
    /// Results received.
    pub results: u64,
    /// Results a second over the whole run.
    pub achieved: f64,
}

/// Sends lines at a rate, each at its intended time, and checks every result: none lost, none
/// doubled, none out of order. Spins on the calling thread.
pub(crate) fn drive(
    load: &Load,
    to: &mut TcpStream,
    from: &mut TcpStream,
) -> Result<Measured, String> {
    let Load { rate, lines, warm_up, first, .. } = *load;
    let failed = |error: std::io::Error| error.to_string();
    to.set_nodelay(true).map_err(failed)?;
    to.set_nonblocking(true).map_err(failed)?;
    from.set_nonblocking(true).map_err(failed)?;
    let (mut latency, mut lag) = (histogram(), histogram());
    let (mut sent, mut got, expected) = (0, 0, load.results());
    let (mut out, mut written) = (Vec::with_capacity(1 << 16), 0);
    let (mut input, mut filled) = (vec![0u8; 1 << 16], 0);
    let start = Instant::now() + Duration::from_millis(20);
    let intended = |seq: u64| {
        let ns = (u128::from(seq) * 1_000_000_000).checked_div(u128::from(rate));
        Duration::from_nanos(ns.unwrap_or(0) as u64)
    };
    let mut last_result = Instant::now();
    while got < expected {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(start);
        while sent < lines && now >= start && intended(sent) <= elapsed && out.len() < 1 << 16 {
            load.write_line(first + sent, &mut out);
            if sent >= warm_up {
                lag.saturating_record((elapsed - intended(sent)).as_nanos().max(1) as u64);
            }
            sent += 1;
        }
        if written < out.len() {
            match to.write(&out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("sending: {error}")),
            }
            if written == out.len() {
                out.clear();
                written = 0;
            }
        }
        match from.read(&mut input[filled..]) {
            Ok(0) => return Err(format!("the results ended after {got} of {expected}")),
            Ok(count) => {
                filled += count;
                let arrived = start.elapsed();
                let mut begin = 0;
                while let Some(at) = input[begin..filled].iter().position(|b| *b == b'\n') {
                    let seq = load.line_of(got, &input[begin..begin + at])?;
                    begin += at + 1;
                    got += 1;
                    if seq >= warm_up {
                        latency.saturating_record(
                            arrived.saturating_sub(intended(seq)).as_nanos().max(1) as u64,
                        );
                    }
                }
                input.copy_within(begin..filled, 0);
                filled -= begin;
                last_result = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if sent == lines && last_result.elapsed() > PATIENCE {
                    return Err(format!("{} of {expected} results are missing", expected - got));
                }
            }
            Err(error) => return Err(format!("receiving: {error}")),
        }
    }
    let achieved = got as f64 / start.elapsed().as_secs_f64();
    Ok(Measured { latency, lag, results: got, achieved })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_doubled_or_wrong_result_is_found() {
        let load = |job| Load { job, words: 1000, first: 0, rate: 1, lines: 20, warm_up: 0 };
        let (echo, count) = (load(Job::Echo), load(Job::Wordcount));
        assert_eq!(echo.results(), 18);
        assert_eq!(echo.line_of(9, b"10 PASS THIS LINE OF TEXT"), Ok(10));
        assert!(echo.line_of(9, b"9 DROP THIS LINE OF TEXT").is_err());
        assert_eq!(count.line_of(1001, b"word-3,2"), Ok(1001));
        assert!(count.line_of(1001, b"word-3,3").is_err());
        let mut words: Vec<_> = (0..1000).map(|seq| count.word(seq)).collect();
        words.sort_unstable();
        assert_eq!(words, (0..1000).collect::<Vec<_>>(), "each word comes once");
    }
}
