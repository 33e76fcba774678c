//! The machine's own hiccups: how late an idle thread wakes up on the core under test. Code on that
//! core cannot avoid such delays.

use hdrhistogram::Histogram;
use millstream_engine::cores;
use millstream_engine::measure::latency::histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two wake-ups. It is long, so that the thread does not affect the measurement.
const PAUSE: Duration = Duration::from_millis(5);

/// A thread that measures hiccups on the first core.
pub(super) struct Hiccups {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Histogram<u64>>,
}

impl Hiccups {
    pub fn watch() -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let body = move || {
            if let Some(core) = cores::allowed().first().copied() {
                cores::pin(core);
            }
            let mut late = histogram();
            // ORDERING: relaxed: the flag carries no data.
            while !stopped.load(Ordering::Relaxed) {
                let asleep = Instant::now();
                std::thread::sleep(PAUSE);
                let over = asleep.elapsed().saturating_sub(PAUSE);
                late.saturating_record(over.as_nanos().max(1) as u64);
            }
            late
        };
        let thread = std::thread::Builder::new().name("hiccups".into()).spawn(body)?;
        Ok(Self { stop, thread })
    }

    /// Ends the measurement and returns the delays; none if the measuring thread has panicked.
    pub fn end(self) -> Histogram<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| histogram())
    }
}
