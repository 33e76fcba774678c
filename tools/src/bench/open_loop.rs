//! Open-loop load over two sockets.

use crate::failure::Failure;
use hdrhistogram::Histogram;
use millstream::connect::socket::connection_counts::ConnectionTotals;
use millstream::session::{DataFrame, Session, StreamingQuery, Trigger};
use millstream::table::error::{PlanError, PlanResult};
use millstream_engine::cores;
use millstream_engine::measure::latency::histogram;
use millstream_engine::measure::stall::Stall;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Runs `body` on a new thread that is pinned to the last core. The calling thread is not pinned,
/// because threads that it starts later would inherit its core.
pub(super) fn on_last_core<T: Send>(
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

/// The jobs of `bench echo` and `bench wordcount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Echo: lines without the word "drop" are returned in upper case
    Echo,
    /// Word count: each word's running count is returned
    Wordcount,
}

/// Number of distinct words.
pub(super) const WORDS: u64 = 1_000;
/// Every n-th line of `echo` is filtered out.
pub(super) const DROP_EVERY: u64 = 10;
/// Maximum wait for missing results.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lines that are sent, and the expected results.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// The job that processes the lines.
    pub job: Job,
    /// Number of distinct words. Consecutive lines have distant words.
    pub words: u64,
    /// The number of the first line.
    pub first: u64,
    /// Lines per second; 0 for as fast as possible.
    pub rate: u64,
    /// Number of lines.
    pub lines: u64,
    /// Number of lines at the start that are not measured.
    pub warm_up: u64,
}

/// The distance between the words of consecutive lines, modulo the number of words. In `words`
/// lines each word occurs once, because the number is prime, unless `words` is a multiple of it.
const STRIDE: u64 = 1_000_003;

impl Load {
    fn word(&self, seq: u64) -> u64 {
        (seq % self.words) * STRIDE % self.words
    }

    /// The line that caused result number `at`, if the result is right.
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

/// The measurements of one run.
pub(super) struct Measured {
    /// Latency from intended send time to the arrival of the result, without the warm-up.
    pub latency: Histogram<u64>,
    /// The generator's lag: from intended to actual send time.
    pub lag: Histogram<u64>,
    /// Number of received results.
    pub results: u64,
    /// Results per second over the whole run.
    pub achieved: f64,
    /// The slowest rows in the engine after its first epoch, with their causes.
    pub slowest: Vec<Stall>,
    /// The counters of the engine's socket source.
    pub connections: ConnectionTotals,
}

impl Measured {
    fn new() -> Self {
        Self {
            latency: histogram(),
            lag: histogram(),
            results: 0,
            achieved: 0.0,
            slowest: Vec::new(),
            connections: ConnectionTotals::default(),
        }
    }
}

/// The traffic over the two sockets.
pub(super) trait Traffic {
    /// Lines per second (0 for as fast as possible), and the number of lines.
    fn lines(&self) -> (u64, u64);
    /// The number of expected results.
    fn results(&self) -> u64;
    fn write_line(&self, seq: u64, out: &mut Vec<u8>);
    /// Whether the lag of a line is measured.
    fn is_measured(&self, seq: u64) -> bool;
    /// Checks the next result, which arrived at this time after the start, and records its latency
    /// in `measured`.
    fn result(
        &mut self,
        line: &[u8],
        arrived: Duration,
        measured: &mut Measured,
    ) -> Result<(), String>;
}

/// The intended send time of a line, relative to the start.
pub(super) fn intended(seq: u64, rate: u64) -> Duration {
    let ns = (u128::from(seq) * 1_000_000_000).checked_div(u128::from(rate));
    Duration::from_nanos(ns.unwrap_or(0) as u64)
}

/// Records the time between two moments, at least 1 ns.
pub(super) fn note(histogram: &mut Histogram<u64>, from: Duration, to: Duration) {
    histogram.saturating_record(to.saturating_sub(from).as_nanos().max(1) as u64);
}

/// Sends lines at a rate, each at its intended time, and receives every result. Spins on the
/// calling thread.
pub(super) fn exchange(
    traffic: &mut dyn Traffic,
    to: &mut TcpStream,
    from: &mut TcpStream,
) -> Result<Measured, String> {
    let failed = |error: std::io::Error| error.to_string();
    to.set_nodelay(true).map_err(failed)?;
    to.set_nonblocking(true).map_err(failed)?;
    from.set_nonblocking(true).map_err(failed)?;
    let ((rate, lines), expected) = (traffic.lines(), traffic.results());
    let (mut measured, mut sent) = (Measured::new(), 0);
    let (mut out, mut written) = (Vec::with_capacity(1 << 16), 0);
    let (mut input, mut filled) = (vec![0u8; 1 << 16], 0);
    let start = Instant::now() + Duration::from_millis(20);
    // The last bytes that were sent or received: results may come long after their lines.
    let mut last_progress = Instant::now();
    while measured.results < expected {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(start);
        while sent < lines && now >= start && out.len() < 1 << 16 {
            let due = intended(sent, rate);
            if due > elapsed {
                break;
            }
            traffic.write_line(sent, &mut out);
            if traffic.is_measured(sent) {
                note(&mut measured.lag, due, elapsed);
            }
            sent += 1;
        }
        if written < out.len() {
            match to.write(&out[written..]) {
                Ok(count) => {
                    written += count;
                    last_progress = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("sending: {error}")),
            }
            if written == out.len() {
                out.clear();
                written = 0;
            }
        }
        match from.read(&mut input[filled..]) {
            Ok(0) => {
                return Err(format!("the results ended after {} of {expected}", measured.results));
            }
            Ok(count) => {
                filled += count;
                let arrived = start.elapsed();
                let mut begin = 0;
                while let Some(at) = input[begin..filled].iter().position(|b| *b == b'\n') {
                    measured.results += 1;
                    traffic.result(&input[begin..begin + at], arrived, &mut measured)?;
                    begin += at + 1;
                }
                input.copy_within(begin..filled, 0);
                filled -= begin;
                last_progress = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if sent == lines && last_progress.elapsed() > PATIENCE {
                    let missing = expected - measured.results;
                    return Err(format!("{missing} of {expected} results are missing"));
                }
            }
            Err(error) => return Err(format!("receiving: {error}")),
        }
    }
    measured.achieved = measured.results as f64 / start.elapsed().as_secs_f64();
    Ok(measured)
}

impl Traffic for Load {
    fn lines(&self) -> (u64, u64) {
        (self.rate, self.lines)
    }
    fn results(&self) -> u64 {
        match self.job {
            Job::Echo => self.lines - self.lines / DROP_EVERY,
            Job::Wordcount => self.lines,
        }
    }
    fn write_line(&self, seq: u64, out: &mut Vec<u8>) {
        let seq = self.first + seq;
        // Writing into memory does not fail.
        let _ = match self.job {
            Job::Echo if seq % DROP_EVERY == DROP_EVERY - 1 => {
                writeln!(out, "{seq} drop this line of text")
            }
            Job::Echo => writeln!(out, "{seq} pass this line of text"),
            Job::Wordcount => writeln!(out, "word-{}", self.word(seq)),
        };
    }
    fn is_measured(&self, seq: u64) -> bool {
        seq >= self.warm_up
    }
    /// Checks that no result is lost, duplicated or out of order.
    fn result(
        &mut self,
        line: &[u8],
        arrived: Duration,
        measured: &mut Measured,
    ) -> Result<(), String> {
        let seq = self.line_of(measured.results - 1, line)?;
        if self.is_measured(seq) {
            note(&mut measured.latency, intended(seq, self.rate), arrived);
        }
        Ok(())
    }
}

/// The floor: a hand-written loop with one thread on the first core, two sockets, and one buffer in
/// each direction. It ends with its input.
pub(super) fn bare(
    spin: bool,
    (input, output): (u16, u16),
    mut each_line: impl FnMut(&[u8], &mut Vec<u8>) + Send + 'static,
) -> Result<JoinHandle<std::io::Result<()>>, Failure> {
    let mut from = TcpStream::connect(("127.0.0.1", input))?;
    let mut to = TcpStream::connect(("127.0.0.1", output))?;
    to.set_nodelay(true)?;
    from.set_nonblocking(spin)?;
    let first = cores::allowed().first().copied();
    let body = move || {
        if let Some(core) = first {
            cores::pin(core);
        }
        let (mut buffer, mut filled) = (vec![0u8; 1 << 16], 0);
        let mut out = Vec::with_capacity(1 << 16);
        loop {
            match from.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::hint::spin_loop();
                    continue;
                }
                Err(_) => return Ok(()),
            }
            let mut begin = 0;
            while let Some(at) = buffer[begin..filled].iter().position(|b| *b == b'\n') {
                each_line(&buffer[begin..begin + at], &mut out);
                begin += at + 1;
            }
            buffer.copy_within(begin..filled, 0);
            filled -= begin;
            if !out.is_empty() {
                to.write_all(&out)?;
                out.clear();
            }
        }
    };
    std::thread::Builder::new().name("bare".into()).spawn(body).map_err(Failure::from)
}

/// The system under test.
pub(super) enum Target {
    /// A hand-written loop.
    Bare(JoinHandle<std::io::Result<()>>),
    /// A query.
    Engine(Box<StreamingQuery>),
}

/// Starts the system under test between two sockets, and runs the load.
pub(super) fn round(
    traffic: &mut (dyn Traffic + Send),
    start: impl FnOnce((u16, u16)) -> Result<Target, Failure>,
) -> Result<Measured, Failure> {
    let (input, output) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let under = start((input.local_addr()?.port(), output.local_addr()?.port()))?;
    let (mut to, mut from) = (input.accept()?.0, output.accept()?.0);
    let measured = on_last_core(|| exchange(traffic, &mut to, &mut from));
    let mut measured = measured.map_err(|failure| match (failure, &under) {
        (Failure::Failed(reason), Target::Engine(query)) => {
            let why = query.exception().map(|error| format!(" ({error})")).unwrap_or_default();
            Failure::Failed(format!("{reason}{why}"))
        }
        (failure, _) => failure,
    })?;
    // Closing its sockets ends the bare loop.
    drop((to, from));
    match under {
        Target::Bare(thread) => drop(thread.join()),
        Target::Engine(query) => {
            query.stop()?;
            // The first epoch belongs to the warm-up.
            let epochs = query.recent_progress().into_iter().skip(1);
            measured.slowest = epochs.flat_map(|epoch| epoch.slowest).collect();
            measured.connections = query.totals().connections.unwrap_or_default();
        }
    }
    Ok(measured)
}

/// Starts a query over the lines of one socket (the view `lines`), whose results are sent to
/// another.
pub(super) fn start_query(
    wait: &str,
    query: &SocketQuery,
    ports: (u16, u16),
) -> Result<Target, Failure> {
    start_recorded_query(wait, query, None, ports)
}

/// A query over the view `lines`, its output mode and the format of its results.
pub(super) struct SocketQuery {
    pub text: String,
    pub mode: &'static str,
    pub format: &'static str,
    /// The part of the query that is not SQL, if any. It gets the result of `text`.
    pub then: Option<fn(&DataFrame) -> PlanResult<DataFrame>>,
}

impl SocketQuery {
    /// A query in SQL alone.
    pub fn sql(text: impl Into<String>, mode: &'static str, format: &'static str) -> Self {
        Self { text: text.into(), mode, format, then: None }
    }
}

/// Starts a query as [`start_query`] does. If `record` is given, the query's source records its
/// input to that path.
pub(super) fn start_recorded_query(
    wait: &str,
    query: &SocketQuery,
    record: Option<&Path>,
    (input, output): (u16, u16),
) -> Result<Target, Failure> {
    let session = Session::new();
    session.set("millstream.wait", wait).map_err(wrong)?;
    let mut lines = session.read_stream().format("socket").option("host", "127.0.0.1");
    if let Some(path) = record {
        lines = lines.option("record", path.display().to_string());
    }
    let lines = lines.option("port", input).option("atEnd", "stop").load().map_err(wrong)?;
    lines.create_temp_view("lines");
    let frame = session.sql(&query.text).map_err(wrong)?;
    let frame = query.then.map_or(Ok(frame.clone()), |then| then(&frame)).map_err(wrong)?;
    let writer = frame.write_stream().output_mode(query.mode);
    let writer = writer.format("socket").option("format", query.format);
    let writer = writer.option("host", "127.0.0.1").option("port", output);
    let query = writer.trigger(Trigger::Continuous { interval_ns: 1_000_000_000 }).start()?;
    Ok(Target::Engine(Box::new(query)))
}

/// The error of a built-in job that the engine rejects.
pub(super) fn wrong(error: PlanError) -> Failure {
    Failure::Wrong(error.to_string())
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
