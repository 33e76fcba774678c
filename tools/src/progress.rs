//! The progress line on standard error, which is shown only on a terminal and only for what takes
//! more than a second. Other output of the process is printed above it.

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(250);
/// After what time the line is shown.
const DELAY: Duration = Duration::from_secs(1);

/// The line that is shown; `None` if there is none.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Prints something to standard error while the progress line is hidden. Without a line, no lock is
/// held, so a write that blocks does not delay other threads.
fn aside<T>(print: impl FnOnce() -> T) -> T {
    let shown = shown();
    if let Some(line) = &*shown {
        return line.suspend(print);
    }
    drop(shown);
    print()
}

/// Prints something to standard output while the progress line is hidden. If standard output is a pipe
/// or a file, the line is not hidden: the line is on the terminal, and a slow reader of the pipe must
/// not delay it.
pub(crate) fn to_stdout<T>(print: impl FnOnce() -> T) -> T {
    static IS_TERMINAL: OnceLock<bool> = OnceLock::new();
    let is_terminal = *IS_TERMINAL.get_or_init(|| std::io::stdout().is_terminal());
    beside(is_terminal, print)
}

fn beside<T>(is_terminal: bool, print: impl FnOnce() -> T) -> T {
    if is_terminal { aside(print) } else { print() }
}

/// Prints a line to standard error.
pub(crate) fn notice(line: &str) {
    aside(|| eprintln!("{line}"));
}

/// Standard output, in whose writes the progress line is hidden.
pub(crate) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        to_stdout(|| std::io::stdout().write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        to_stdout(|| std::io::stdout().write_all(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        to_stdout(|| std::io::stdout().flush())
    }
}

/// Standard error, in whose writes the progress line is hidden.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        aside(|| std::io::stderr().write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        aside(|| std::io::stderr().write_all(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Computes the text of the progress line from a count that grows.
struct Rate {
    begun: Instant,
    last: (Instant, u64),
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { begun: now, last: (now, 0) }
    }

    /// The count, its growth per second since the last call, and the time since the start.
    fn text(&mut self, now: Instant, count: u64) -> String {
        let (before, counted) = std::mem::replace(&mut self.last, (now, count));
        let seconds = now.duration_since(before).as_secs_f64().max(1e-3);
        // A script's next statement counts from 0.
        let new = count.checked_sub(counted).unwrap_or(count);
        let per_second = (new as f64 / seconds).round() as u64;
        let elapsed = now.duration_since(self.begun).as_secs();
        if count == 0 {
            return format!("running, {elapsed} s");
        }
        format!("{} records, {}/s, {elapsed} s", HumanCount(count), HumanCount(per_second))
    }
}

/// The progress of something. Dropping it removes the line.
pub(crate) struct Progress {
    rate: Rate,
    /// When the line changes next; `None` if it is not shown at all.
    next: Option<Instant>,
}

impl Progress {
    /// Starts to measure. Shows nothing if `quiet`, or if standard error is not a terminal.
    pub fn start(quiet: bool) -> Self {
        let now = Instant::now();
        let is_shown = !quiet && std::io::stderr().is_terminal();
        Self { rate: Rate::new(now), next: is_shown.then(|| now + DELAY) }
    }

    /// Shows the number of records, if the line is to change.
    pub fn show(&mut self, records: impl FnOnce() -> u64) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + INTERVAL);
        let text = self.rate.text(now, records());
        shown().get_or_insert_with(line).set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(line) = shown().take() {
            line.finish_and_clear();
        }
    }
}

fn line() -> ProgressBar {
    let line = ProgressBar::new_spinner();
    line.set_style(ProgressStyle::with_template("{msg}").unwrap_or(ProgressStyle::default_bar()));
    line
}

/// A thread that shows the progress of something. Dropping it removes the line.
pub(crate) struct Watch {
    ended: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Shows the number of records that `records` returns. Does nothing if `quiet`, or if standard
    /// error is not a terminal.
    pub fn start(quiet: bool, records: impl Fn() -> u64 + Send + 'static) -> Self {
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let progress = Progress::start(quiet);
        if progress.next.is_none() {
            return Self { ended, thread: None };
        }
        let shared = ended.clone();
        let thread = std::thread::Builder::new()
            .name("progress".to_string())
            .spawn(move || watch(&shared, progress, records));
        // If the thread cannot be started, the command runs without a progress line.
        Self { ended, thread: thread.ok() }
    }
}

fn watch(ended: &(Mutex<bool>, Condvar), mut progress: Progress, records: impl Fn() -> u64) {
    loop {
        let guard = ended.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waited = ended.1.wait_timeout_while(guard, INTERVAL, |ended| !*ended);
        if *waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0 {
            return;
        }
        progress.show(&records);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.ended.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        self.ended.1.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Whether a thread can print to standard error while the write of another one blocks, which
    /// goes to a terminal or not.
    fn others_can_print(is_terminal: bool) -> bool {
        let (entered, entering) = channel();
        let (release, released) = channel();
        let blocked = std::thread::spawn(move || {
            beside(is_terminal, || {
                entered.send(()).unwrap();
                released.recv().unwrap();
            });
        });
        entering.recv().unwrap();
        let (done, printed) = channel();
        let other = std::thread::spawn(move || aside(|| done.send(()).unwrap()));
        let can_print = printed.recv_timeout(Duration::from_secs(10)).is_ok();
        release.send(()).unwrap();
        blocked.join().unwrap();
        other.join().unwrap();
        can_print
    }

    #[test]
    fn a_write_that_blocks_holds_up_no_other_thread() {
        assert!(others_can_print(true), "no line is shown");
        *shown() = Some(ProgressBar::hidden());
        let can_print = others_can_print(false);
        *shown() = None;
        assert!(can_print, "the write is not to a terminal");
    }

    #[test]
    fn the_line_has_the_count_its_rate_and_the_time() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.text(at(1), 1_500), "1,500 records, 1,500/s, 1 s");
        assert_eq!(rate.text(at(3), 2_500_000), "2,500,000 records, 1,249,250/s, 3 s");
        // The next statement begins to count again.
        assert_eq!(rate.text(at(4), 700), "700 records, 700/s, 4 s");
        assert_eq!(rate.text(at(5), 0), "running, 5 s");
    }
}
