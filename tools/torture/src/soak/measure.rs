//! The process of a query in a soak test, measured from outside: memory, folder, reports, pauses.

use super::text;
use serde_json::Value as Json;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// The level of a measurement is its maximum within this time, for latency the median of the 99th
/// percentiles.
const WINDOW: Duration = Duration::from_secs(2);
/// Number of samples that a level needs.
const SAMPLES: usize = 10;
/// Growth of resident memory that is always allowed, in bytes. The state's own memory may grow by
/// an eighth of it.
const MEMORY_SLACK: u64 = 32 << 20;
/// Growth of the folder that is always allowed, in bytes.
const FOLDER_SLACK: u64 = 4 << 20;
/// Allowed growth of the 99th percentile, as a factor.
const LATENCY_TIMES: u64 = 3;
/// Allowed growth of the 99th percentile in addition to the factor, in microseconds.
const LATENCY_SLACK_US: u64 = 100_000;
/// Maximum time for a query to end.
const END: Duration = Duration::from_secs(60);

/// The id of the running child process, which the signal handler kills.
static RUNNING: Mutex<Option<u32>> = Mutex::new(None);

fn set_running(pid: Option<u32>) {
    *RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = pid;
}

fn signal(name: &str, pid: u32) -> Result<(), String> {
    let status = Command::new("kill").args([name, &pid.to_string()]).status().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("kill {name} {pid}: {status}")) }
}

/// Makes Ctrl-C kill the child, paused or not, and remove a temporary folder.
pub fn end_on_signal(dir: &Path, is_temporary: bool) -> Result<(), String> {
    let dir = dir.to_path_buf();
    let handler = ctrlc::set_handler(move || {
        if let Some(pid) = *RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            drop(signal("-KILL", pid));
        }
        if is_temporary {
            drop(std::fs::remove_dir_all(&dir));
        }
        std::process::exit(130);
    });
    handler.map_err(|error| format!("cannot catch Ctrl-C: {error}"))
}

/// The measurements at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    at: Instant,
    pub behind_us: i64,
    level: Level,
}

/// The levels of memory, folder and latency.
#[derive(Clone, Debug, Default)]
pub struct Level {
    pub rss: u64,
    /// The state's memory, as reported by the query.
    pub memory: u64,
    pub folder: u64,
    pub p99_us: Option<u64>,
}

impl Level {
    /// Raises each level to the other's, if that is higher.
    pub fn raise(&mut self, other: &Self) {
        self.rss = self.rss.max(other.rss);
        self.memory = self.memory.max(other.memory);
        self.folder = self.folder.max(other.folder);
        self.p99_us = self.p99_us.max(other.p99_us);
    }
}

/// The allowed growth of levels.
pub struct Tolerance {
    pub memory: f64,
    pub folder: f64,
    pub with_latency: bool,
}

fn grown(what: &str, before: u64, after: u64, times: f64, slack: u64) -> Option<String> {
    let allowed = (before as f64 * times) as u64 + slack;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    (after > allowed).then(|| {
        let (before, after, allowed) = (mb(before), mb(after), mb(allowed));
        format!("{what} {before:.1} MB before, {after:.1} MB after, allowed {allowed:.1} MB")
    })
}

impl Tolerance {
    /// Describes the growth of memory, if it exceeds the tolerance.
    pub fn memory_grown(&self, before: &Level, after: &Level) -> Option<String> {
        grown("resident memory", before.rss, after.rss, self.memory, MEMORY_SLACK).or_else(|| {
            grown("memory of the state", before.memory, after.memory, self.memory, MEMORY_SLACK / 8)
        })
    }

    /// Describes the growth of any level that exceeds the tolerance.
    pub fn grown(&self, before: &Level, after: &Level) -> Option<String> {
        let folder =
            || grown("checkpoint folder", before.folder, after.folder, self.folder, FOLDER_SLACK);
        let latency = || {
            let (was, is) = (before.p99_us?, after.p99_us?);
            let allowed = was * LATENCY_TIMES + LATENCY_SLACK_US;
            (self.with_latency && is > allowed)
                .then(|| format!("p99 {} ms before, {} ms after", was / 1000, is / 1000))
        };
        self.memory_grown(before, after).or_else(folder).or_else(latency)
    }
}

/// A started query.
pub struct Process {
    child: Child,
    /// Closed to end the process.
    stdin: Option<ChildStdin>,
    reports: Receiver<String>,
    folder: PathBuf,
    samples: VecDeque<Sample>,
    /// The highest level since the last [`peak`](Self::peak).
    highest: Level,
    wrong: Option<String>,
    end: Option<u64>,
}

impl Process {
    pub fn start(operator: &str, folder: &Path, rate: u64, trigger: &str) -> Result<Self, String> {
        let mut command = Command::new(std::env::current_exe().map_err(text)?);
        command.arg("soak-child").arg(operator).arg(folder);
        command.args(["--rate", &rate.to_string(), "--trigger", trigger]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(text)?;
        set_running(Some(child.id()));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().ok_or("no output")?);
        // The output of a paused child was read already, so the child never blocks on writing.
        let (lines, reports) = sync_channel(1024);
        std::thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| lines.send(line))
        });
        let folder = folder.to_path_buf();
        let (samples, highest) = (VecDeque::new(), Level::default());
        Ok(Self { child, stdin, reports, folder, samples, highest, wrong: None, end: None })
    }

    /// Collects reports and samples for some time. Returns an error if the query has ended, or has
    /// reported a wrong result.
    pub fn watch(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(line) => self.take(&line)?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().map_err(text)?;
                    return Err(format!("the query ended by itself: {status}"));
                }
            }
            if let Some(wrong) = &self.wrong {
                return Err(wrong.clone());
            }
        }
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let report: Json =
            serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
        if let Some(wrong) = report["wrong"].as_str() {
            self.wrong.get_or_insert_with(|| wrong.to_string());
        }
        if let Some(end) = report["end"].as_u64() {
            self.end = Some(end);
            return Ok(());
        }
        let level = Level {
            rss: resident(self.child.id()),
            memory: report["memory"].as_u64().unwrap_or(0),
            folder: size(&self.folder),
            p99_us: report["p99_us"].as_u64(),
        };
        self.highest.raise(&level);
        let (at, behind_us) = (Instant::now(), report["behind_us"].as_i64().unwrap_or(i64::MAX));
        self.samples.push_back(Sample { at, behind_us, level });
        while self.samples.front().is_some_and(|first| at - first.at > WINDOW) {
            self.samples.pop_front();
        }
        Ok(())
    }

    /// The last sample.
    pub fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// Whether the window of [`WINDOW`] has enough samples ([`SAMPLES`]) for [`Self::level`]. A
    /// pause discards all samples.
    pub fn is_level_known(&self) -> bool {
        self.samples.len() >= SAMPLES
    }

    /// The highest values of the last seconds; for latency the median of its 99th percentiles.
    pub fn level(&self) -> Level {
        let mut level = Level::default();
        self.samples.iter().for_each(|sample| level.raise(&sample.level));
        let mut p99s: Vec<u64> =
            self.samples.iter().filter_map(|sample| sample.level.p99_us).collect();
        p99s.sort_unstable();
        level.p99_us = p99s.get(p99s.len() / 2).copied();
        level
    }

    /// The highest level since the last call or pause, with the resident memory now.
    pub fn peak(&mut self) -> Level {
        let mut highest = std::mem::take(&mut self.highest);
        highest.rss = highest.rss.max(resident(self.child.id()));
        highest
    }

    /// Pauses the process for some time, and discards all samples.
    pub fn pause(&mut self, time: Duration) -> Result<(), String> {
        let pid = self.child.id();
        signal("-STOP", pid)?;
        std::thread::sleep(time);
        signal("-CONT", pid)?;
        self.samples.clear();
        self.highest = Level::default();
        Ok(())
    }

    /// Ends the query. Returns the number of rows that were sent. An error if a result was wrong or
    /// missing.
    pub fn finish(mut self) -> Result<u64, String> {
        self.stdin = None;
        let until = Instant::now() + END;
        loop {
            match self.reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(&line)?,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the query did not end within {} s", END.as_secs()));
                }
            }
        }
        match (self.wrong.take(), self.end) {
            (Some(wrong), _) => Err(wrong),
            (None, Some(rows)) => Ok(rows),
            (None, None) => Err("the query ended without a result".to_string()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        set_running(None);
    }
}

/// The process's resident memory; 0 if the system does not report it.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Total size of the files in a folder and its subfolders. A file that is removed meanwhile is not
/// counted.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance { memory: 1.5, folder: 1.5, with_latency: true };

    fn level(rss: u64, folder: u64, p99_us: u64) -> Level {
        Level { rss, memory: rss / 2, folder, p99_us: Some(p99_us) }
    }

    #[test]
    fn the_measurement_that_grew_is_named() {
        let before = level(100 << 20, 20 << 20, 2000);
        let grown = |after: Level| TOLERANCE.grown(&before, &after);
        assert_eq!(grown(level(150 << 20, 30 << 20, 100_000)), None);
        assert!(grown(level(200 << 20, 20 << 20, 2000)).unwrap().contains("resident memory"));
        assert!(grown(level(100 << 20, 60 << 20, 2000)).unwrap().contains("checkpoint folder"));
        assert!(grown(level(100 << 20, 20 << 20, 200_000)).unwrap().contains("p99"));
        let calm = Tolerance { with_latency: false, ..TOLERANCE };
        assert_eq!(calm.grown(&before, &level(100 << 20, 20 << 20, 200_000)), None);
    }

    #[test]
    fn an_operator_without_latencies_is_judged_by_the_rest() {
        let without = Level { p99_us: None, ..level(1 << 20, 1 << 20, 0) };
        assert_eq!(TOLERANCE.grown(&without, &without), None);
    }
}
