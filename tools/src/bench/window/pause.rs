//! How long records wait while a window with many keys closes.

use crate::bench::open_loop::{on_last_core, wrong};
use crate::failure::Failure;
use crate::latency_format::{latency_json, latency_line, median, time};
use crate::stdout::say;
use hdrhistogram::Histogram;
use millstream::connect::memory::MemoryStream;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream::table::value::Value;
use millstream_engine::measure::latency::{Percentiles, histogram};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const HOUR_US: i64 = 3_600_000_000;

/// Runs the measurement and prints the results.
///
/// A probe is a late row, which the query passes to its side output immediately. It contains its
/// actual and its intended send time.
pub(super) fn run(keys: u64, probe_us: u64, rounds: u64, json: bool) -> Result<(), Failure> {
    let session = Session::new();
    session.set("millstream.wait", "spin").map_err(wrong)?;
    let rows = session.memory_stream("rows", "ts TIMESTAMP, k BIGINT, n BIGINT").map_err(wrong)?;
    let query = "SELECT window.end, k, count(*) FROM rows WATERMARK ts DELAY OF INTERVAL 0 SECONDS \
                 GROUP BY window(ts, '1 hour'), k";
    let (closed, base) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let counter = closed.clone();
    // ORDERING: relaxed: counts and latencies, which are read when no other access depends on their
    // order.
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
        // The floor is measured with 2,000 probes while no window closes.
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
    say!("  without time off the core {}", latency_line(&calm_own));
    say!("a probe's wait, while it closes    {}", latency_line(&busy));
    say!("  without time off the core {}", latency_line(&busy_own));
    say!(
        "time off the core: the probe was sent late, or the system ran another thread on the \
    worker's core"
    );
    Ok(())
}

/// Sends probes while the callback asks for more. Returns their number.
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

/// Histograms of the probes' waits.
struct Waits {
    all: Histogram<u64>,
    /// The waits from the actual send time, without the time in which the worker was runnable but
    /// not running.
    own: Histogram<u64>,
}

impl Waits {
    fn new() -> Self {
        Self { all: histogram(), own: histogram() }
    }
}

/// The times at which the calling thread was runnable but not running, as reported by Linux; empty
/// on other systems.
#[derive(Default)]
struct OffCore {
    file: Option<File>,
    looked_ns: u64,
    total_ns: u64,
    /// Start, end, and time off the core between them.
    gaps: VecDeque<(u64, u64, u64)>,
}

impl OffCore {
    /// The minimum time off the core since `since_ns`, in nanoseconds. `since_ns` must not decrease
    /// from call to call.
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
            // Up to this much of the gap may have been before `since_ns`.
            gap_ns.saturating_sub(since_ns.saturating_sub(*from_ns))
        };
        self.gaps.iter().map(within).sum()
    }

    /// Reads the second number of the file: the nanoseconds for which this thread waited for a
    /// core.
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

/// Collects the waits of the probes that were sent.
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
        return Err(Failure::Failed(format!("{count} of {sent} probes were received")));
    }
    let added = into.all.add(&found.all).and_then(|()| into.own.add(&found.own));
    added.map_err(|error| Failure::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_off_core_time_after_a_moment_is_subtracted() {
        let of = |gaps: &[(u64, u64, u64)]| OffCore {
            gaps: gaps.iter().copied().collect(),
            ..OffCore::default()
        };
        // The test reads this thread's own waiting time too. With this total, that time adds
        // nothing.
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
}
