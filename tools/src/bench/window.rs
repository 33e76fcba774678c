//! `millstream bench window`: windows of event time, open-loop: how soon a result follows the record
//! that closes its window, what a window of many keys costs the records behind, whether sliding
//! windows keep up, and whether any of it drifts.

use super::load::{Measured, Traffic, Under, bare, note, on_last_core, round, start_query, wrong};
use crate::Failure;
use crate::figures::{latency_json, latency_line, median, time};
use crate::say::say;
use clap::{Args as ClapArgs, Subcommand};
use hdrhistogram::Histogram;
use millstream::connect::memory::MemoryStream;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream_engine::cores;
use millstream_engine::latency::{Percentiles, histogram};
use plotters::prelude::{
    BLUE, ChartBuilder, Color, IntoDrawingArea, LineSeries, RED, SVGBackend, WHITE,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench window close\n  \
    millstream bench window sliding --rate 500000\n  \
    millstream bench window hold --keys 1000000\n  \
    millstream bench window soak --minutes 30 --plot soak.svg\n\n\
    Latency counts from the intended time of the record that closes a window, or of the probe. The\n\
    generator spins on the last core, the query's worker is pinned to the first. `close` and `soak`\n\
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
    /// Tumbling windows of a second over sockets, beside a bare loop that does the same
    Close {
        /// Rows a second
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
        rate: u64,
        /// Keys
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        keys: u64,
        /// Length of a round
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(4..=3600))]
        seconds: u64,
        /// Rounds of bare loop and engine
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
        rounds: u64,
        /// Whether both spin while they wait; else both block
        #[arg(long)]
        spin: bool,
    },
    /// Sliding windows over rows from within the process, on one core
    Sliding {
        /// Rows a second
        #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
        rate: u64,
        /// Keys
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        keys: u64,
        /// Length of a window, in milliseconds
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
        width_ms: u64,
        /// From window to window, in milliseconds
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
        slide_ms: u64,
        /// Seconds that are measured, behind two lengths of the window
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
    /// How long records wait while a window with many keys is closed
    Hold {
        /// Keys of the window
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        keys: u64,
        /// From probe to probe, in microseconds
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
        probe_us: u64,
        /// Windows that are closed
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
        rounds: u64,
    },
    /// Sliding windows over sockets for long: memory and latency over time
    Soak {
        /// Length
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        minutes: u64,
        /// Rows a second
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
        rate: u64,
        /// Keys
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        keys: u64,
        /// Where the plot goes
        #[arg(long)]
        plot: Option<PathBuf>,
    },
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.part {
        Part::Close { rate, keys, seconds, rounds, spin } => {
            let load = Load { rate: *rate, keys: *keys, width_s: 1, slide_s: 1, seconds: *seconds };
            close(&load, *rounds, *spin, args.json)
        }
        Part::Sliding { rate, keys, width_ms, slide_ms, seconds } => {
            sliding(*rate, *keys, (*width_ms, *slide_ms), *seconds, args.json)
        }
        Part::Hold { keys, probe_us, rounds } => hold(*keys, *probe_us, *rounds, args.json),
        Part::Soak { minutes, rate, keys, plot } => {
            let seconds = minutes * 60;
            let load = Load { rate: *rate, keys: *keys, width_s: 10, slide_s: 1, seconds };
            soak(&load, plot.as_ref(), args.json)
        }
    }
}

/// Second of event time at which all of them begin: windows before it would be partial ones of
/// nothing.
const BASE_S: u64 = 1_000_000;
/// Seconds at the beginning that are not measured.
const WARM_UP_S: u64 = 2;

/// Rows whose event time is the time at which they are meant to be sent, and the windows over them.
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

    /// Rows of a key that are in a window.
    fn rows_of(&self, end_s: u64, key: u64) -> u64 {
        let before = |second: u64| {
            let rows = (second - BASE_S) * self.rate;
            rows / self.keys + u64::from(rows % self.keys > key)
        };
        before(end_s) - before(end_s.saturating_sub(self.width_s).max(BASE_S))
    }
}

/// Checks results, window after window.
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

    /// Takes a result; gives the end of its window.
    fn result(&mut self, line: &[u8]) -> Result<u64, String> {
        let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        let mut parts = text.split(',');
        let mut number = |prefix: &str| {
            let part = parts.next().and_then(|part| part.strip_prefix(prefix));
            part.and_then(|part| part.parse::<u64>().ok())
        };
        let found = (number(""), number("key-"), number(""));
        let (Some(end_s), Some(key), Some(rows)) = found else {
            return Err(format!("'{text}' is no result"));
        };
        let expected = self.load.rows_of(end_s, key);
        if end_s != self.end_s || rows != expected {
            let now = self.end_s;
            return Err(format!("'{text}' is not of the window until {now}, or not {expected}"));
        }
        match self.seen.get_mut(key as usize) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(format!("'{text}' came twice")),
        }
        self.left -= 1;
        if self.left == 0 {
            self.seen.fill(false);
            (self.left, self.end_s) = (self.load.keys, self.end_s + self.load.slide_s);
        }
        Ok(end_s)
    }
}

/// The rows and the results of one round; `each_window` is called with what was measured when a
/// window is complete.
struct Windows<F> {
    load: Load,
    check: Check,
    each_window: F,
}

impl<F: FnMut(u64, &mut Measured)> Traffic for Windows<F> {
    fn lines(&self) -> (u64, u64) {
        // The last closes the last window.
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
            // The record that closes a window is meant to be sent at the window's end.
            note(&mut measured.latency, Duration::from_secs(end_s), arrived);
        }
        if measured.results.is_multiple_of(self.load.keys) {
            (self.each_window)(end_s, measured);
        }
        Ok(())
    }
}

fn start_engine(load: &Load, spin: bool, ports: (u16, u16)) -> Result<Under, Failure> {
    let Load { width_s, slide_s, .. } = load;
    let query = format!(
        "SELECT unix_seconds(window.end) AS end, k, count(*) AS n FROM (SELECT \
         timestamp_micros(CAST(split_part(value, ' ', 1) AS BIGINT)) AS ts, \
         split_part(value, ' ', 2) AS k FROM lines) WATERMARK ts DELAY OF INTERVAL 0 SECONDS \
         GROUP BY window(ts, '{width_s} seconds', '{slide_s} seconds'), k"
    );
    start_query(if spin { "spin" } else { "park" }, (&query, "append", "csv"), ports)
}

/// Tumbling windows of a second by hand: a map of counts for each window.
fn start_bare(spin: bool, ports: (u16, u16)) -> Result<Under, Failure> {
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
    bare(spin, ports, each_line).map(Under::Bare)
}

fn windows(
    load: &Load,
    (is_engine, spin): (bool, bool),
    each_window: impl FnMut(u64, &mut Measured) + Send,
) -> Result<Measured, Failure> {
    let mut traffic = Windows { load: *load, check: Check::new(*load), each_window };
    round(&mut traffic, |ports| match is_engine {
        true => start_engine(load, spin, ports),
        false => start_bare(spin, ports),
    })
}

fn close(load: &Load, rounds: u64, spin: bool, json: bool) -> Result<(), Failure> {
    if !json {
        say!(
            "windows of 1 s over {} keys, {} rows a second for {} s, {}, {} usable cores; from the \
             intended time of the record that closes a window to each result",
            load.keys,
            load.rate,
            load.seconds,
            if spin { "spinning" } else { "blocking" },
            cores::usable()
        );
    }
    let (mut bare, mut engine, mut results) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        for is_engine in [false, true] {
            let measured = windows(load, (is_engine, spin), |_, _| {})?;
            let p = Percentiles::of(&measured.latency);
            if !json {
                let lag = time(Percentiles::of(&measured.lag).p99);
                let name = if is_engine { "engine" } else { "bare" };
                say!("{name:<8}{}  lag p99 {lag}", latency_line(&p));
            }
            if is_engine {
                results += measured.results;
                engine.push(p);
            } else {
                bare.push(p);
            }
        }
    }
    let middle = |rounds: &[Percentiles], of: fn(&Percentiles) -> u64| {
        median(rounds.iter().map(of).collect())
    };
    let (b50, e50) = (middle(&bare, |p| p.p50), middle(&engine, |p| p.p50));
    let (b99, e99) = (middle(&bare, |p| p.p99), middle(&engine, |p| p.p99));
    let (r50, r99) = (e50 as f64 / b50 as f64, e99 as f64 / b99 as f64);
    if json {
        let all = |rounds: &[Percentiles]| rounds.iter().map(latency_json).collect::<Vec<_>>();
        say!(
            "{}",
            serde_json::json!({
                "keys": load.keys, "rate": load.rate, "seconds": load.seconds, "spin": spin,
                "results_checked": results, "bare": all(&bare), "engine": all(&engine),
                "p50_ratio": r50, "p99_ratio": r99,
            })
        );
        return Ok(());
    }
    say!("{results} results of the engine checked: each key of each window once, and right");
    say!(
        "medians of {rounds} rounds: p50 bare {}, engine {} (x{r50:.2}); p99 bare {}, engine {} (x{r99:.2})",
        time(b50),
        time(e50),
        time(b99),
        time(e99)
    );
    Ok(())
}

fn sliding(
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
    // Until windows are as full as they get.
    let warm_up = Duration::from_millis(2 * width_ms);
    if let Some(ended) = query.await_termination_for(warm_up) {
        ended?;
    }
    let (start, before) = (Instant::now(), results.load(Ordering::Relaxed));
    // At the end of each epoch: when it was, the records up to then, how far the watermark is behind.
    let mut ends: Vec<(i64, u64, i64)> = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        if let Some(ended) = query.await_termination_for(Duration::from_secs(1)) {
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

const HOUR_US: i64 = 3_600_000_000;

/// A probe is a row that is late, which the query gives away on the spot; it has the time at which it
/// was sent and the time at which it was meant to be.
fn hold(keys: u64, probe_us: u64, rounds: u64, json: bool) -> Result<(), Failure> {
    let session = Session::new();
    session.set("millstream.wait", "spin").map_err(wrong)?;
    let rows = session.memory_stream("rows", "ts TIMESTAMP, k BIGINT, n BIGINT").map_err(wrong)?;
    let query = "SELECT window.end, k, count(*) FROM rows WATERMARK ts DELAY OF INTERVAL 0 SECONDS \
                 GROUP BY window(ts, '1 hour'), k";
    let (closed, base) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let counter = closed.clone();
    // ORDERING: relaxed: counts and latencies, each read when nothing depends on their order.
    let sink = move |_: &[Value]| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let waits = Arc::new(Mutex::new(Waits::new()));
    let noted = waits.clone();
    let mut off_core = OffCore::default();
    let writer = session.sql(query).map_err(wrong)?.write_stream().foreach(sink);
    let writer = writer.on_late(move |late| {
        let [_, Value::Long(sent_ns), Value::Long(intended_ns)] = late.values.as_slice() else {
            return;
        };
        let (sent_ns, now_ns) = (*sent_ns as u64, base.elapsed().as_nanos() as u64);
        let wait_ns = now_ns.saturating_sub(*intended_ns as u64);
        let own_ns = now_ns.saturating_sub(sent_ns + off_core.since(sent_ns, now_ns));
        let mut waits = noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        waits.all.saturating_record(wait_ns.max(1));
        waits.own.saturating_record(own_ns.max(1));
    });
    let query = writer.trigger(Trigger::Continuous { interval_ns: 1_000_000_000 }).start()?;
    let row = |ts: i64, k: i64, n: i64| vec![Value::Long(ts), Value::Long(k), Value::Long(n)];
    let (mut calm, mut busy, mut took) = (Waits::new(), Waits::new(), Vec::new());
    let mut hour = 10;
    rows.add([row(hour * HOUR_US, 0, 0)]);
    query.process_all_available()?;
    for _ in 0..rounds {
        for from in (0..keys as i64).step_by(10_000) {
            let to = (from + 10_000).min(keys as i64);
            rows.add((from..to).map(|key| row(hour * HOUR_US, key, 0)));
            query.process_all_available()?;
        }
        let before = closed.load(Ordering::Relaxed);
        // As many probes with nothing to close as there will be with.
        let sent = probes(&rows, probe_us, base, |sent| sent < 2_000)?;
        gather(&waits, &query, sent, &mut calm)?;
        hour += 1;
        rows.add([row(hour * HOUR_US, 0, 0)]);
        let begin = Instant::now();
        let open = |_| closed.load(Ordering::Relaxed) - before < keys && query.is_active();
        let sent = probes(&rows, probe_us, base, open)?;
        took.push(begin.elapsed().as_nanos() as u64);
        gather(&waits, &query, sent, &mut busy)?;
    }
    query.stop()?;
    let took = median(took);
    let [calm, calm_own, busy, busy_own] =
        [&calm.all, &calm.own, &busy.all, &busy.own].map(Percentiles::of);
    if json {
        say!(
            "{}",
            serde_json::json!({
                "keys": keys, "probe_us": probe_us, "rounds": rounds, "closing_ns": took,
                "calm": latency_json(&calm), "calm_own": latency_json(&calm_own),
                "closing": latency_json(&busy), "closing_own": latency_json(&busy_own),
            })
        );
        return Ok(());
    }
    say!(
        "a window of {keys} keys closed {rounds} times, {} each; a probe every {probe_us} us",
        time(took)
    );
    say!("a probe's wait, nothing to close   {}", latency_line(&calm));
    say!("  without what is not the worker's {}", latency_line(&calm_own));
    say!("a probe's wait, while it closes    {}", latency_line(&busy));
    say!("  without what is not the worker's {}", latency_line(&busy_own));
    say!("not the worker's: the probe was sent late, or the system ran something else on its core");
    Ok(())
}

/// Sends probes as long as they are wanted. Returns how many.
fn probes(
    rows: &MemoryStream,
    probe_us: u64,
    base: Instant,
    wanted: impl Fn(u64) -> bool + Sync,
) -> Result<u64, Failure> {
    on_last_core(|| {
        let (start, mut sent) = (base.elapsed(), 0);
        while wanted(sent) {
            let due = start + Duration::from_micros(sent * probe_us);
            while base.elapsed() < due {
                std::hint::spin_loop();
            }
            let long = |time: Duration| Value::Long(time.as_nanos() as i64);
            rows.add([vec![Value::Long(HOUR_US), long(base.elapsed()), long(due)]]);
            sent += 1;
        }
        Ok(sent)
    })
}

/// How long probes waited.
struct Waits {
    all: Histogram<u64>,
    /// From when they were really sent, without the time in which the worker wanted its core and
    /// did not have it.
    own: Histogram<u64>,
}

impl Waits {
    fn new() -> Self {
        Self { all: histogram(), own: histogram() }
    }
}

/// When the calling thread wanted its core and did not have it, as Linux counts it; never, where
/// the system does not say.
#[derive(Default)]
struct OffCore {
    file: Option<File>,
    looked_ns: u64,
    total_ns: u64,
    /// From, to, and how long somewhere between.
    gaps: VecDeque<(u64, u64, u64)>,
}

impl OffCore {
    /// Nanoseconds since a time, at least. Times do not go back from call to call.
    fn since(&mut self, since_ns: u64, now_ns: u64) -> u64 {
        let total_ns = self.read().unwrap_or(0);
        let gap_ns = total_ns.saturating_sub(self.total_ns);
        if gap_ns > 0 && self.total_ns > 0 {
            self.gaps.push_back((self.looked_ns, now_ns, gap_ns));
        }
        (self.looked_ns, self.total_ns) = (now_ns, total_ns);
        while self.gaps.front().is_some_and(|(_, to_ns, _)| *to_ns <= since_ns) {
            self.gaps.pop_front();
        }
        let within = |(from_ns, _, gap_ns): &(u64, u64, u64)| {
            // What fits before the time may have been before it.
            gap_ns.saturating_sub(since_ns.saturating_sub(*from_ns))
        };
        self.gaps.iter().map(within).sum()
    }

    /// The second of three numbers.
    fn read(&mut self) -> Option<u64> {
        if self.file.is_none() {
            self.file = File::open("/proc/thread-self/schedstat").ok();
        }
        let (file, mut text) = (self.file.as_mut()?, [0; 64]);
        file.rewind().ok()?;
        let length = file.read(&mut text).ok()?;
        std::str::from_utf8(&text[..length]).ok()?.split(' ').nth(1)?.parse().ok()
    }
}

/// Takes the waits of probes that were sent.
fn gather(
    waits: &Mutex<Waits>,
    query: &StreamingQuery,
    sent: u64,
    into: &mut Waits,
) -> Result<(), Failure> {
    query.process_all_available()?;
    let mut waits = waits.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let found = std::mem::replace(&mut *waits, Waits::new());
    let count = found.all.len();
    if count != sent {
        return Err(Failure::Failed(format!("{count} of {sent} probes came")));
    }
    let added = into.all.add(&found.all).and_then(|()| into.own.add(&found.own));
    added.map_err(|error| Failure::Failed(error.to_string()))
}

/// Seconds of an interval of a soak.
const INTERVAL_S: u64 = 10;

struct Interval {
    until_s: u64,
    latency: Percentiles,
    resident_kb: u64,
}

/// Memory that this process has, in KiB; 0 where the system does not say.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

fn soak(load: &Load, plot: Option<&PathBuf>, json: bool) -> Result<(), Failure> {
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
    let measured = windows(load, (true, false), |until_s, measured| {
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
    // The first tenth is for buffers that grow to what is needed.
    let settled = &intervals[intervals.len() / 10..];
    let half = settled.len() / 2;
    let p99 = |part: &[Interval]| median(part.iter().map(|i| i.latency.p99).collect());
    let memory = |part: &[Interval]| median(part.iter().map(|i| i.resident_kb).collect());
    if half == 0 {
        return Err(Failure::Failed("it was too short to tell".to_string()));
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
    say!("{} results checked: each key of each window once, and right", measured.results);
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
    let most_us = intervals.iter().map(|i| us(i.latency.p99)).fold(1.0, f64::max) * 1.2;
    upper.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&upper);
    chart.caption("latency of 10 s: p50 (blue), p99 (red), us", ("sans-serif", 16)).margin(10);
    chart.x_label_area_size(30).y_label_area_size(70);
    let mut chart = chart.build_cartesian_2d(0.0..last, 0.0..most_us)?;
    chart.configure_mesh().x_desc("min").draw()?;
    let line = |of: fn(&Percentiles) -> u64| {
        intervals.iter().map(move |i| (minutes(i), us(of(&i.latency)))).collect::<Vec<_>>()
    };
    chart.draw_series(LineSeries::new(line(|p| p.p50), BLUE.stroke_width(1)))?;
    chart.draw_series(LineSeries::new(line(|p| p.p99), RED.stroke_width(1)))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_off_the_core_behind_a_moment_counts_for_it() {
        let of = |gaps: &[(u64, u64, u64)]| OffCore {
            gaps: gaps.iter().copied().collect(),
            ..OffCore::default()
        };
        // So high that what the thread itself has waited adds nothing.
        let since = |gaps: &[(u64, u64, u64)], since_ns| {
            let mut off_core = of(gaps);
            off_core.total_ns = u64::MAX;
            off_core.since(since_ns, 1000)
        };
        assert_eq!(since(&[], 100), 0);
        assert_eq!(since(&[(200, 300, 50)], 100), 50, "all of it");
        assert_eq!(since(&[(200, 300, 50)], 230), 20, "30 may have been before");
        assert_eq!(since(&[(200, 300, 50)], 280), 0);
        assert_eq!(since(&[(0, 90, 80), (200, 300, 50), (300, 400, 7)], 100), 57);
    }

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
