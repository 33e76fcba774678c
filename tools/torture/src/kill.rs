//! `kill -9` at random moments, over real files and real sockets.
//!
//! *Files, micro-batch.* Numbered rows appear in a folder. One query copies them to files through
//! the sink's log. Another counts them by key and passes each batch's counts to a function that
//! writes a file per batch. Three queries use event time: windows, sessions and deduplication.
//! Outer joins run in both modes. Afterwards the copy must contain every row once, every count must
//! be exact, and the other queries must have written each result once.
//!
//! *Durable socket, continuous.* A sender numbers its lines and starts at the number that the
//! source requests. The query counts by key and writes, per line, its number and its key's count.
//! Afterwards no number may be missing, and every count must be exact for its number. A run may
//! repeat only lines after the last epoch that was committed before the run started.

use crate::kill_joins;
use clap::Args as ClapArgs;
use millstream::connect::file::committed_files;
use millstream::session::{Session, Trigger};
use millstream::table::value::Value;
use millstream_engine::checkpoint::{numbered_entries, read_offsets};
use millstream_engine::env::random::SplitMix;
use millstream_engine::env::storage::{FileStorage, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(ClapArgs)]
pub struct Args {
    /// Number of kills of each kind
    #[arg(long, default_value_t = 200)]
    rounds: u64,
    /// Seed of the random kill times; if not given, a random one is used and printed
    #[arg(long)]
    seed: Option<u64>,
    /// Working folder; by default a new temporary folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(ClapArgs)]
pub struct ChildArgs {
    /// files or socket
    kind: String,
    dir: PathBuf,
    /// Port of the sender that the query connects to
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Run to the end of the available input
    #[arg(long)]
    finish: Option<u64>,
}

const KEYS: u64 = 7;

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// The number of the first of the final rows. Their times are so late that all windows of other
/// rows close.
const END: i64 = 1_000_000_000;

/// A row's time in seconds: up to 3 seconds out of order.
fn time(n: u64) -> u64 {
    100 + n - (n * 7) % 4
}

/// An event-time query from the rows to files.
struct Timed {
    name: &'static str,
    sql: &'static str,
    columns: &'static [&'static str],
    duplicates: bool,
}

macro_rules! timed {
    ($($before:literal)? => $($after:literal)?) => {
        concat!($($before,)? " FROM (SELECT timestamp_seconds(100 + n - (n * 7) % 4) AS ts, k % 3 AS k, n FROM rows) \
            WATERMARK ts DELAY OF INTERVAL 5 SECONDS " $(, $after)?)
    };
}

const TIMED: [Timed; 3] = [
    Timed {
        name: "windows",
        sql: timed!("SELECT unix_seconds(window.start) AS s, k, count(*) AS c, sum(n) AS t" => "GROUP BY window(ts, '10 seconds'), k"),
        columns: &["s", "k", "c", "t"],
        duplicates: false,
    },
    Timed {
        name: "sessions",
        sql: timed!("SELECT unix_seconds(session_window.start) AS s, unix_seconds(session_window.end) AS e, k, count(*) AS c" => "GROUP BY session_window(ts, '2 seconds'), k"),
        columns: &["s", "e", "k", "c"],
        duplicates: false,
    },
    Timed {
        name: "duplicates",
        sql: timed!("SELECT ts, k" =>),
        columns: &["unix_seconds(ts)", "k"],
        duplicates: true,
    },
];

/// The lines that an event-time query must write for these rows.
fn expected_lines(name: &str, rows: u64) -> Vec<String> {
    let all = (0..rows).map(|n| (n, time(n), n % KEYS % 3));
    let mut lines: Vec<String> = match name {
        "windows" => {
            let mut groups: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
            for (n, time, k) in all {
                let group = groups.entry((time / 10 * 10, k)).or_default();
                *group = (group.0 + 1, group.1 + n);
            }
            groups.into_iter().map(|((s, k), (c, t))| format!("{s},{k},{c},{t}")).collect()
        }
        "sessions" => {
            let mut by_key: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            all.for_each(|(_, time, k)| by_key.entry(k).or_default().push(time));
            let mut lines = Vec::new();
            for (k, mut times) in by_key {
                times.sort_unstable();
                for session in times.chunk_by(|a, b| b - a <= 2) {
                    let (begin, end) = (session[0], session[session.len() - 1] + 2);
                    lines.push(format!("{begin},{end},{k},{}", session.len()));
                }
            }
            lines
        }
        _ => {
            let keys: BTreeSet<(u64, u64)> = all.map(|(_, time, k)| (time, k)).collect();
            keys.into_iter().map(|(time, k)| format!("{time},{k}")).collect()
        }
    };
    lines.sort();
    lines
}

// ---- the child ----

/// Runs queries until they are killed or, with `finish`, to their end.
pub fn child(args: &ChildArgs) -> Result<(), String> {
    if args.kind == "files" { child_files(args) } else { child_socket(args) }
}

fn child_files(args: &ChildArgs) -> Result<(), String> {
    let (session, dir) = (Session::new(), &args.dir);
    session.set("millstream.pin", "false").map_err(text)?;
    let trigger =
        if args.finish.is_some() { Trigger::AvailableNow } else { Trigger::AsSoonAsPossible };
    let read = || {
        session
            .read_stream()
            .format("json")
            .schema(millstream::table::types::Schema::parse_ddl("k BIGINT, n BIGINT")?)
            .option("path", path(dir, "in"))
            .option("maxFilesPerTrigger", 2)
            .load()
    };
    let before_end = millstream::table::expr::col("n").lt(END);
    let rows = read().map_err(text)?;
    rows.create_temp_view("rows");
    let rows = rows.filter(&before_end).map_err(text)?;
    let copy = rows.write_stream().format("csv").trigger(trigger);
    let copy = copy.option("path", path(dir, "copy")).option("checkpointLocation", path(dir, "c1"));
    let counts = rows.group_by([millstream::table::expr::col("k")]);
    let counts = counts.count().map_err(text)?.write_stream().output_mode("update");
    let out = dir.join("counts");
    std::fs::create_dir_all(&out).map_err(text)?;
    let counts = counts.foreach_batch(move |rows, batch| {
        let lines: String = rows
            .iter()
            .map(|row| match row.as_slice() {
                [Value::Long(k), Value::Long(c)] => format!("{k} {c}\n"),
                other => format!("unexpected {other:?}\n"),
            })
            .collect();
        let written = FileStorage.write_durable(&out.join(batch.to_string()), lines.as_bytes());
        written.map_err(text)
    });
    let counts = counts.trigger(trigger).option("checkpointLocation", path(dir, "c2"));
    let mut queries = vec![copy.start().map_err(text)?, counts.start().map_err(text)?];
    for timed in TIMED {
        let frame = session.sql(timed.sql).map_err(text)?;
        let frame = match timed.duplicates {
            true => frame.drop_duplicates(["ts", "k"]).map_err(text)?,
            false => frame,
        };
        let frame = frame.select_expr(timed.columns.iter().copied()).map_err(text)?;
        let writer = frame.write_stream().format("csv").trigger(trigger);
        let writer = writer.option("path", path(dir, timed.name));
        let checkpoint = format!("c-{}", timed.name);
        let writer = writer.option("checkpointLocation", path(dir, &checkpoint));
        queries.push(writer.start().map_err(text)?);
    }
    let [batches, continuous] = kill_joins::start(&session, dir, trigger)?;
    queries.push(batches);
    if args.finish.is_none() {
        queries.push(continuous);
    } else {
        // The continuous query does not end by itself.
        continuous.process_all_available().map_err(text)?;
        continuous.stop().map_err(text)?;
    }
    queries.iter().try_for_each(|query| query.await_termination().map_err(text))
}

fn child_socket(args: &ChildArgs) -> Result<(), String> {
    let (session, dir) = (Session::new(), &args.dir);
    session.set("millstream.pin", "false").map_err(text)?;
    let lines = session
        .read_stream()
        .format("socket")
        .option("host", "127.0.0.1")
        .option("port", args.port)
        .option("durable", true)
        .option("acknowledge", true)
        .option("atEnd", "reconnect")
        .load()
        .map_err(text)?;
    lines.create_temp_view("lines");
    let out = OpenOptions::new().create(true).append(true).open(dir.join("out")).map_err(text)?;
    let (mut out, last) = (out, Arc::new(AtomicU64::new(u64::MAX)));
    let seen = last.clone();
    let query = session
        .sql(&format!(
            "SELECT k, count(*) AS c, max(n) AS m FROM (SELECT CAST(value AS BIGINT) % {KEYS} AS k, \
             CAST(value AS BIGINT) AS n FROM lines) GROUP BY k"
        ))
        .map_err(text)?
        .write_stream()
        .output_mode("update")
        .trigger(Trigger::Continuous { interval_ns: 30_000_000 })
        .option("checkpointLocation", path(dir, "checkpoint"))
        .foreach(move |row: &[Value]| {
            if let [_, Value::Long(c), Value::Long(m)] = row {
                // The line is written in a single write, so that a kill can only cut off the last
                // line.
                drop(out.write_all(format!("{m} {c}\n").as_bytes()));
                seen.store(*m as u64, Ordering::Release);
            }
        })
        .start()
        .map_err(text)?;
    let Some(finish) = args.finish else { return query.await_termination().map_err(text) };
    loop {
        query.process_all_available().map_err(text)?;
        if last.load(Ordering::Acquire) == finish - 1 {
            return query.stop().map_err(text);
        }
    }
}

// ---- the parent ----

fn spawn(kind: &str, dir: &Path, port: u16, finish: Option<u64>) -> Result<Child, String> {
    let mut command = Command::new(std::env::current_exe().map_err(text)?);
    command.args(["child", kind]).arg(dir).args(["--port", &port.to_string()]);
    if let Some(finish) = finish {
        command.args(["--finish", &finish.to_string()]);
    }
    command.stdin(Stdio::null()).spawn().map_err(text)
}

/// Lets a child run for a random time, then kills it. A child that ended by itself has failed.
pub fn kill_soon(mut child: Child, dice: &mut SplitMix, round: u64) -> Result<(), String> {
    let until = Instant::now() + Duration::from_micros(10_000 + dice.below(250_000));
    while Instant::now() < until {
        if let Some(status) = child.try_wait().map_err(text)? {
            return Err(format!("round {round}: the query ended by itself: {status}"));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    child.kill().map_err(text)?;
    child.wait().map(drop).map_err(text)
}

/// Kills queries over files and over a socket repeatedly, and prints the results.
pub fn run(args: &Args) -> Result<(), String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(text)?;
    let seed = args.seed.unwrap_or(now.as_nanos() as u64);
    let dir = args.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("millstream-torture-{}", std::process::id()))
    });
    println!("seed {seed}, folder {}", dir.display());
    let start = Instant::now();
    files(&dir.join("files"), args.rounds, &mut SplitMix(seed))?;
    println!("{:.1} s", start.elapsed().as_secs_f64());
    socket(&dir.join("socket"), args.rounds, &mut SplitMix(seed ^ 1))?;
    println!("{:.1} s", start.elapsed().as_secs_f64());
    if args.dir.is_none() {
        std::fs::remove_dir_all(&dir).map_err(text)?;
    }
    Ok(())
}

/// Runs queries over the same files in a child process that is killed in each round, and then
/// checks the results of each query: a copy, counts, aggregates by event time, and joins.
fn files(dir: &Path, rounds: u64, dice: &mut SplitMix) -> Result<(), String> {
    let Written { rows, files } = run_over_files(dir, rounds, dice)?;
    check_copy(dir, rows)?;
    let batches = check_counts(dir, rows)?;
    println!(
        "files, micro-batch: {rounds} kills, {rows} rows in {files} files, {batches} batches: \
         each row copied once, every count exact"
    );
    for timed in TIMED {
        check_timed(dir, timed.name, rows)?;
    }
    kill_joins::check(dir, (rows, END as u64), |n| n % KEYS, time)
}

/// The input of a query over files.
struct Written {
    rows: u64,
    files: u64,
}

/// Writes files while the child runs, kills the child in each round, and at the end lets it process
/// all files.
fn run_over_files(dir: &Path, rounds: u64, dice: &mut SplitMix) -> Result<Written, String> {
    let input = dir.join("in");
    std::fs::create_dir_all(&input).map_err(text)?;
    let (mut rows, mut written) = (0u64, 0u64);
    for round in 0..rounds {
        let child = spawn("files", dir, 0, None)?;
        for _ in 0..1 + dice.below(4) {
            let count = dice.below(300);
            let lines: String = (rows..rows + count)
                .map(|n| format!("{{\"k\":{},\"n\":{n}}}\n", n % KEYS))
                .collect();
            rows += count;
            let hidden = input.join(format!(".{written}"));
            std::fs::write(&hidden, lines).map_err(text)?;
            std::fs::rename(&hidden, input.join(format!("{written:06}.json"))).map_err(text)?;
            written += 1;
        }
        kill_soon(child, dice, round)?;
    }
    // The file has one row for each side of a join. Both rows are later than all others.
    let last = format!("{{\"k\":0,\"n\":{END}}}\n{{\"k\":0,\"n\":{}}}\n", END + 5);
    std::fs::write(input.join(format!("{written:06}.json")), last).map_err(text)?;
    let status = spawn("files", dir, 0, Some(0))?.wait().map_err(text)?;
    if !status.success() {
        return Err(format!("the last run failed: {status}"));
    }
    Ok(Written { rows, files: written })
}

/// The lines of the files that a sink has committed.
fn committed_lines(folder: &Path) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let committed = committed_files(&FileStorage, folder).map_err(text)?;
    for path in committed.ok_or("the sink has no log")? {
        let file = std::fs::read_to_string(&path).map_err(text)?;
        lines.extend(file.lines().map(str::to_string));
    }
    Ok(lines)
}

/// Checks that the copy has each row once.
fn check_copy(dir: &Path, rows: u64) -> Result<(), String> {
    let mut copied = Vec::new();
    for line in committed_lines(&dir.join("copy"))? {
        let number = line.split_once(',').and_then(|(_, n)| n.parse::<u64>().ok());
        copied.push(number.ok_or_else(|| format!("a line of the copy is {line:?}"))?);
    }
    copied.sort_unstable();
    if copied != (0..rows).collect::<Vec<_>>() {
        return Err(format!("the copy has {} rows, not {rows}, or other ones", copied.len()));
    }
    Ok(())
}

/// Checks that the counts grow from batch to batch and end at the number of rows of each key.
/// Returns the number of batches.
fn check_counts(dir: &Path, rows: u64) -> Result<u64, String> {
    let mut batches = 0;
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for batch in numbered_entries(&FileStorage, &dir.join("counts")).map_err(text)? {
        batches += 1;
        let lines = std::fs::read_to_string(dir.join("counts").join(batch.to_string()));
        for line in lines.map_err(text)?.lines() {
            let pair =
                line.split_once(' ').and_then(|(k, c)| Some((k.parse().ok()?, c.parse().ok()?)));
            let (key, count) = pair.ok_or_else(|| format!("a line of the counts is {line:?}"))?;
            let before = counts.insert(key, count).unwrap_or(0);
            if count <= before {
                return Err(format!("batch {batch}: key {key} went from {before} to {count}"));
            }
        }
    }
    let expected: BTreeMap<u64, u64> =
        (0..KEYS.min(rows)).map(|k| (k, (rows - k).div_ceil(KEYS))).collect();
    if counts != expected {
        return Err(format!("expected counts {expected:?}, got {counts:?}"));
    }
    Ok(batches)
}

/// Checks that a query with event time has written each expected row once.
fn check_timed(dir: &Path, name: &str, rows: u64) -> Result<(), String> {
    let mut got = committed_lines(&dir.join(name))?;
    got.sort();
    // Removes the results of the final rows. Their windows never close, so only deduplication emits
    // them.
    let own = |line: &String| line.starts_with(&(END + 100).to_string()[..8]);
    got.retain(|line| !own(line));
    let expected = expected_lines(name, rows);
    if got != expected {
        let extra: Vec<_> = got.iter().filter(|line| !expected.contains(line)).take(5).collect();
        let missing: Vec<_> = expected.iter().filter(|line| !got.contains(line)).take(5).collect();
        return Err(format!(
            "{name}: {} lines, expected {}; extra {extra:?}, missing {missing:?}",
            got.len(),
            expected.len()
        ));
    }
    println!("{name}, micro-batch: {} rows, each once", got.len());
    Ok(())
}

/// Sends numbered lines to each peer that connects, starting at the number that it requests.
struct Sender {
    listener: TcpListener,
    sent: AtomicU64,
    /// The sender sends up to this number and then waits.
    limit: AtomicU64,
    stop: AtomicBool,
}

impl Sender {
    fn serve(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.listener.accept() {
                // A killed peer ends its connection, and the next one connects.
                Ok((stream, _)) => drop(self.send(stream)),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn send(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        let mut acks = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        acks.read_line(&mut first)?;
        let Ok(mut next) = first.trim().parse::<u64>() else { return Ok(()) };
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut out = stream;
        let mut ignored = [0u8; 4096];
        while !self.stop.load(Ordering::Relaxed) {
            let to = (next + 40).min(self.limit.load(Ordering::Relaxed)).max(next);
            let lines: String = (next..to).map(|n| format!("{n}\n")).collect();
            out.write_all(lines.as_bytes())?;
            next = to;
            self.sent.fetch_max(next, Ordering::Relaxed);
            match acks.read(&mut ignored) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The number at a byte offset of the stream "0\n1\n2\n…".
fn number_at(mut position: u64) -> u64 {
    let (mut digits, mut first, mut count) = (1, 0, 10);
    while position >= count * (digits + 1) {
        position -= count * (digits + 1);
        first += count;
        digits += 1;
        count = if first == 10 { 90 } else { count * 10 };
    }
    first + position / (digits + 1)
}

/// The number after the last epoch that the next start will treat as committed.
fn committed_number(checkpoint: &Path) -> Result<u64, String> {
    // In continuous mode an epoch is committed once it has an entry in the offset log.
    let offsets = numbered_entries(&FileStorage, &checkpoint.join("offsets")).map_err(text)?;
    let Some(last) = offsets.last() else { return Ok(0) };
    let path = checkpoint.join("offsets").join(last.to_string());
    let (_, positions) = read_offsets(&FileStorage, &path).map_err(text)?;
    let position = positions.first().ok_or("no position")?;
    Ok(number_at(position.number().map_err(text)?))
}

fn socket(dir: &Path, rounds: u64, dice: &mut SplitMix) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(text)?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let port = listener.local_addr().map_err(text)?.port();
    listener.set_nonblocking(true).map_err(text)?;
    let sender = Arc::new(Sender {
        listener,
        sent: AtomicU64::new(0),
        limit: AtomicU64::new(u64::MAX),
        stop: AtomicBool::new(false),
    });
    let serving = sender.clone();
    let thread = std::thread::spawn(move || serving.serve());
    let outcome = socket_rounds(dir, rounds, dice, port, &sender);
    sender.stop.store(true, Ordering::Relaxed);
    thread.join().map_err(|_| "the sender panicked".to_string())?;
    println!("{}", outcome?);
    Ok(())
}

fn socket_rounds(
    dir: &Path,
    rounds: u64,
    dice: &mut SplitMix,
    port: u16,
    sender: &Sender,
) -> Result<String, String> {
    let (checkpoint, out) = (dir.join("checkpoint"), dir.join("out"));
    File::create(&out).map_err(text)?;
    let (mut seen, mut checked, mut repeated) = (BTreeSet::new(), 0usize, 0u64);
    for round in 0..=rounds {
        let from = committed_number(&checkpoint)?;
        if round < rounds {
            kill_soon(spawn("socket", dir, port, None)?, dice, round)?;
        } else {
            let limit = sender.sent.load(Ordering::Relaxed).max(1);
            sender.limit.store(limit, Ordering::Relaxed);
            let status = spawn("socket", dir, port, Some(limit))?.wait().map_err(text)?;
            if !status.success() {
                return Err(format!("the last run failed: {status}"));
            }
        }
        let bytes = std::fs::read(&out).map_err(text)?;
        let new = &bytes[checked..];
        // The kill may have cut the last line, which is not checked. The next run's output follows
        // it.
        let whole = new.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines = String::from_utf8_lossy(&new[..whole]);
        for (expected, line) in (from..).zip(lines.lines()) {
            let pair =
                line.split_once(' ').and_then(|(m, c)| Some((m.parse().ok()?, c.parse().ok()?)));
            let (number, count): (u64, u64) =
                pair.ok_or_else(|| format!("round {round}: a line of the output is {line:?}"))?;
            if number != expected {
                return Err(format!("round {round}: expected number {expected}, got {number}"));
            }
            if count != number / KEYS + 1 {
                return Err(format!("round {round}: number {number} was counted as {count}"));
            }
            repeated += u64::from(!seen.insert(number));
        }
        checked = bytes.len();
    }
    let total = sender.limit.load(Ordering::Relaxed);
    if seen.len() as u64 != total {
        return Err(format!("{} of {total} numbers came through", seen.len()));
    }
    Ok(format!(
        "durable socket, continuous: {rounds} kills, {total} lines: none missing, {repeated} repeated, \
         each from after the committed epoch; every count exact"
    ))
}

#[cfg(test)]
mod tests {
    use super::number_at;

    #[test]
    fn positions_and_numbers() {
        let mut position = 0;
        for number in 0..20_000u64 {
            assert_eq!(number_at(position), number);
            position += number.to_string().len() as u64 + 1;
        }
    }
}
