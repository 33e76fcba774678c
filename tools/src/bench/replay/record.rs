//! The cost of the option `record` for a running socket query: rounds of the same query with and
//! without the option alternate. In further rounds a bare thread writes the same number of bytes to
//! a file beside the query without the option: what any recorder costs on this machine. After each
//! recorded round its capture is read and checked: every byte that was sent is in the capture or
//! counted as not recorded.

use crate::bench::figure::{Figure, Goal, Value};
use crate::bench::open_loop::{
    DROP_EVERY, Job, Load as Lines, Measured, SocketQuery, Traffic, WORDS, round,
    start_recorded_query,
};
use crate::bench::scratch::Scratch;
use crate::bench::socket_job::Wait;
use crate::failure::Failure;
use crate::latency_format::{median, median_by};
use crossbeam_channel::Sender;
use millstream_engine::capture::{CaptureReader, Gap, Item, Kind};
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// The parameters of the measurement.
pub(super) struct Load {
    pub wait: Wait,
    /// Seconds of each latency round.
    pub seconds: u64,
    /// Number of lines of each throughput round.
    pub lines: u64,
    pub rounds: u64,
}

/// Lines per second of the latency rounds.
const RATE: u64 = 10_000;
/// Length of a line in the rounds with many bytes per second, in bytes.
const LONG_BYTES: usize = 4096;
/// Size of a write of the bare writer: that of the recorder's buffers.
const PIECE_BYTES: usize = 256 << 10;
const ECHO: &str = "SELECT upper(value) AS value FROM lines WHERE NOT contains(value, 'drop')";
const COUNT: &str = "SELECT value FROM lines WHERE length(value) < 100";

/// Measured values of alternating rounds without and with `record`.
#[derive(Default)]
struct Turns {
    without: Vec<u64>,
    with: Vec<u64>,
}

impl Turns {
    fn middles(&self) -> (f64, f64) {
        (median(self.without.clone()) as f64, median(self.with.clone()) as f64)
    }

    /// The median of the ratios of adjacent rounds, with `record` over without.
    fn ratio(&self) -> f64 {
        let pairs = self.without.iter().zip(&self.with);
        let ratios = pairs.map(|(without, with)| *with as f64 / (*without).max(1) as f64);
        median_by(ratios.collect(), f64::total_cmp)
    }

    fn difference(&self) -> f64 {
        let pairs = self.without.iter().zip(&self.with);
        let differences = pairs.map(|(without, with)| *with as f64 - *without as f64);
        median_by(differences.collect(), f64::total_cmp)
    }
}

/// The events and bytes of all rounds that were not recorded.
#[derive(Default)]
struct Lost {
    events: u64,
    bytes: u64,
}

pub(super) fn run(
    scratch: &Scratch,
    load: &Load,
    figures: &mut Vec<Figure>,
) -> Result<(), Failure> {
    let (mut p50, mut p99, mut rate, mut long) =
        (Turns::default(), Turns::default(), Turns::default(), Turns::default());
    let (mut lost, mut bare_writer) = (Lost::default(), Turns::default());
    for _ in 0..load.rounds {
        for is_recorded in [false, true] {
            let path = scratch.path("record.capture");
            let record = is_recorded.then_some(&*path);
            let side = |turns: &mut Turns, value: u64| match is_recorded {
                true => turns.with.push(value),
                false => turns.without.push(value),
            };
            let paced = echo(load.wait, RATE, RATE * load.seconds, record, &mut lost)?;
            side(&mut p50, paced.latency.value_at_quantile(0.5));
            side(&mut p99, paced.latency.value_at_quantile(0.99));
            let fast = echo(load.wait, 0, load.lines, record, &mut lost)?;
            side(&mut rate, fast.achieved as u64);
            side(&mut long, long_lines(load, record, &mut lost)?);
        }
        bare_writer.without.extend(rate.without.last());
        bare_writer.with.push(beside_a_bare_writer(load, &scratch.path("bare"))?.achieved as u64);
    }
    let (wait, seconds) = (load.wait.word(), load.seconds);
    let ((bare50, with50), (bare99, with99)) = (p50.middles(), p99.middles());
    let name =
        |what: &str| format!("query that records, {RATE} lines/s, {seconds} s, {wait}: {what}");
    figures.push(Figure::new(name("p50"), Value::Ns(with50)).floor(Value::Ns(bare50)));
    let added = Figure::new(name("added p50"), Value::Ns(p50.difference()));
    figures.push(added.goal(Goal::AtMost(Value::Ns(1e3))));
    figures.push(Figure::new(name("p99"), Value::Ns(with99)).floor(Value::Ns(bare99)));
    let (bare, with) = rate.middles();
    let name = |what: &str| format!("query that records, at full speed: {what}");
    figures.push(Figure::new(name("lines/s"), Value::Rate(with)).floor(Value::Rate(bare)));
    let ratio = Figure::new(name("throughput beside the floor"), Value::Times(rate.ratio()));
    figures.push(ratio.goal(Goal::AtLeast(Value::Times(0.97))));
    let name = |what: &str| format!("query beside a bare writer of the same bytes: {what}");
    let (bare, with) = bare_writer.middles();
    figures.push(Figure::new(name("lines/s"), Value::Rate(with)).floor(Value::Rate(bare)));
    let ratio = Value::Times(bare_writer.ratio());
    figures.push(Figure::new(name("throughput beside the floor"), ratio));
    let same = Turns { without: bare_writer.with, with: rate.with };
    let name = |what: &str| format!("query that records, at full speed: {what}");
    let ratio = Value::Times(same.ratio());
    figures.push(Figure::new(name("throughput beside the bare writer"), ratio));
    let (bare, with) = long.middles();
    let long = format!("lines of {LONG_BYTES} bytes");
    figures.push(Figure::new(name(&long), Value::ByteRate(with)).floor(Value::ByteRate(bare)));
    figures
        .push(Figure::new(name("events not recorded, counted"), Value::Count(lost.events as f64)));
    figures.push(Figure::new(name("bytes not recorded, counted"), Value::Bytes(lost.bytes as f64)));
    Ok(())
}

/// The lines of the query that returns them in upper case. A `rate` of 0 sends as fast as the query
/// reads.
fn echo_lines(rate: u64, lines: u64) -> Lines {
    // The last line must come back, because it marks the end of the round.
    let lines = lines / DROP_EVERY * DROP_EVERY + 1;
    Lines { job: Job::Echo, words: WORDS, first: 0, rate, lines, warm_up: lines / 10 }
}

/// Measures a query that returns lines in upper case.
fn echo(
    wait: Wait,
    rate: u64,
    lines: u64,
    record: Option<&Path>,
    lost: &mut Lost,
) -> Result<Measured, Failure> {
    let query = SocketQuery::sql(ECHO, "append", "text");
    recorded(&mut echo_lines(rate, lines), wait, &query, record, lost)
}

/// Measures a query without `record`. For each [`PIECE_BYTES`] bytes of lines that are sent,
/// another thread writes as many bytes, always the same, to a file.
fn beside_a_bare_writer(load: &Load, path: &Path) -> Result<Measured, Failure> {
    let (pieces, sent) = crossbeam_channel::unbounded::<()>();
    let mut file = File::create(path)?;
    let writer = std::thread::spawn(move || {
        let piece = vec![b'x'; PIECE_BYTES];
        sent.iter().try_for_each(|()| file.write_all(&piece))
    });
    let mut traffic = Counted { traffic: echo_lines(0, load.lines), bytes: Cell::new(0), pieces };
    let query = SocketQuery::sql(ECHO, "append", "text");
    let measured = recorded(&mut traffic, load.wait, &query, None, &mut Lost::default());
    // Dropping the sender ends the writer.
    drop(traffic);
    let written = writer.join().map_err(|_| Failure::Failed("the writer panicked".into()))?;
    std::fs::remove_file(path)?;
    written?;
    measured
}

/// Lines that are counted as they are sent.
struct Counted {
    traffic: Lines,
    bytes: Cell<usize>,
    pieces: Sender<()>,
}

impl Traffic for Counted {
    fn lines(&self) -> (u64, u64) {
        self.traffic.lines()
    }
    fn results(&self) -> u64 {
        self.traffic.results()
    }
    fn write_line(&self, seq: u64, out: &mut Vec<u8>) {
        let before = out.len();
        self.traffic.write_line(seq, out);
        let bytes = self.bytes.get() + out.len() - before;
        if bytes >= PIECE_BYTES {
            // If the writer has ended, its error is reported after the round.
            let _ = self.pieces.send(());
        }
        self.bytes.set(bytes % PIECE_BYTES);
    }
    fn is_measured(&self, seq: u64) -> bool {
        self.traffic.is_measured(seq)
    }
    fn result(
        &mut self,
        line: &[u8],
        arrived: Duration,
        measured: &mut Measured,
    ) -> Result<(), String> {
        self.traffic.result(line, arrived, measured)
    }
}

/// Measures a query over long lines. Returns bytes per second.
fn long_lines(load: &Load, record: Option<&Path>, lost: &mut Lost) -> Result<u64, Failure> {
    let lines = (load.lines / 10).max(1);
    let mut lines = LongLines { lines };
    let query = SocketQuery::sql(COUNT, "append", "text");
    let measured = recorded(&mut lines, load.wait, &query, record, lost)?;
    Ok((measured.achieved * (lines.lines * LONG_BYTES as u64) as f64) as u64)
}

/// Runs one round. With `record` it also checks the capture.
fn recorded(
    traffic: &mut (dyn Traffic + Send),
    wait: Wait,
    query: &SocketQuery,
    record: Option<&Path>,
    lost: &mut Lost,
) -> Result<Measured, Failure> {
    let sent: u64 = match record {
        Some(_) => {
            let (mut line, mut sent) = (Vec::new(), 0);
            for seq in 0..traffic.lines().1 {
                line.clear();
                traffic.write_line(seq, &mut line);
                sent += line.len() as u64;
            }
            sent
        }
        None => 0,
    };
    let measured = round(traffic, |ports| start_recorded_query(wait.word(), query, record, ports))?;
    let Some(path) = record else { return Ok(measured) };
    let (bytes, missing) = content(path)?;
    std::fs::remove_file(path)?;
    let counted = measured.connections.record_dropped_bytes;
    if bytes + counted != sent || missing > counted {
        return Err(Failure::Failed(format!(
            "of {sent} bytes {bytes} are in the capture and {missing} in its gaps, and {counted} were \
             counted as not recorded"
        )));
    }
    lost.events += measured.connections.record_dropped;
    lost.bytes += counted;
    Ok(measured)
}

/// Returns the number of data bytes in a capture and the number of bytes that its gap events report
/// as missing. Damage is an error.
fn content(path: &Path) -> Result<(u64, u64), Failure> {
    let (mut reader, mut bytes, mut missing) = (CaptureReader::open(path)?, 0, 0);
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(head, payload) if head.kind == Kind::Data => bytes += payload.len() as u64,
            Item::Event(head, payload) if head.kind == Kind::Gap => {
                missing += Gap::decode(payload).map_or(0, |gap| gap.bytes);
            }
            Item::Event(..) => {}
            Item::Damage(damage) => {
                return Err(Failure::Failed(format!("the recording is damaged: {damage:?}")));
            }
        }
    }
    Ok((bytes, missing))
}

/// Long lines, which the query filters out, and a short last line, which it returns.
struct LongLines {
    lines: u64,
}

impl Traffic for LongLines {
    fn lines(&self) -> (u64, u64) {
        (0, self.lines + 1)
    }
    fn results(&self) -> u64 {
        1
    }
    fn write_line(&self, seq: u64, out: &mut Vec<u8>) {
        match seq < self.lines {
            true => out.resize(out.len() + LONG_BYTES - 1, b'x'),
            false => out.extend_from_slice(b"end"),
        }
        out.push(b'\n');
    }
    fn is_measured(&self, _: u64) -> bool {
        false
    }
    fn result(&mut self, line: &[u8], _: Duration, _: &mut Measured) -> Result<(), String> {
        if line == b"end" {
            return Ok(());
        }
        Err(format!("a line of {} bytes came back", line.len()))
    }
}
