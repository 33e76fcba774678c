//! The machine's own hiccups: how much later than asked a thread that does nothing wakes up on the
//! core of what is measured. What such a thread waits, nobody's code there can avoid.

use hdrhistogram::Histogram;
use millstream_engine::cores;
use millstream_engine::latency::histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So seldom that it takes nothing from what is measured.
const PAUSE: Duration = Duration::from_millis(5);

/// A watcher on the first core.
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
            // ORDERING: relaxed: a flag and nothing else.
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

    /// How late it woke up.
    pub fn end(self) -> Histogram<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| histogram())
    }
}
