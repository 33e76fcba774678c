//! The stall recorder: why the slowest records were slow.
//!
//! A worker keeps its recent long rounds and sleeps (spans): rounds with their activities and the
//! thread's resource usage. When a sink writes a record that took more than 100 us and more than
//! the sink's limit, which such a record raises to its latency and each interval halves, the time
//! from its ingest to its result is matched against the spans. Time covered by a round that
//! processed a marker, less the time off the core, counts as spent on the epoch, and so on.
//! Uncovered time counts as a long drain if the spans reach back to the ingest and the worker was
//! awake then, and otherwise as time before this worker.
//!
//! *Off the core.* A thread was off its core for the part of a long round that exceeds its
//! processor time, if that is at least 5 us. If the system counts an involuntary switch, another
//! thread had the core. If it counts a voluntary one, a system call blocked. If it counts none, the
//! thread stayed on its core and the hypervisor had the core. The last case needs Linux with
//! `CONFIG_PARAVIRT_TIME_ACCOUNTING`, which excludes steal from processor time; elsewhere such time
//! counts as work.
//!
//! *Cost.* One clock read per round of the worker (up to [`STEP_BUDGET`] records per tasklet), or
//! per eight rounds if they are short. `getrusage` and the thread's clock (0.8 us together) are
//! read only after rounds longer than 20 us and for the slowest records, and the thread's clock
//! before a sleep.
//!
//! *Threads.* Each worker has its own recorder in a thread-local, because a sink does not know its
//! worker. Threads without a recorder, as in simulation, record nothing.
//!
//! [`STEP_BUDGET`]: crate::runtime::worker::STEP_BUDGET

mod cause;

pub use cause::{Stall, StallCause};

use std::cell::{Cell, RefCell};

/// Number of rounds and sleeps that are kept.
const REMEMBERED: usize = 256;
/// A round longer than this is kept.
pub(crate) const LONG_NS: u64 = 20_000;
/// Records faster than this are not explained.
pub(crate) const SLOW_NS: u64 = 100_000;

/// Off-core times below this are attributed to clock errors, in nanoseconds.
const OFF_CORE_NS: u64 = 5_000;
/// Sleeps shorter than this do not count as voluntary context switches, in nanoseconds.
const SLEPT_NS: u64 = 5_000;

/// Activities of a round besides taking records; a round may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Activity {
    Epoch = 1,
    Expiry = 2,
    Blocked = 4,
    Sleep = 8,
}

/// Resource usage of a thread since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    /// The processor time of the thread, in nanoseconds; `None` where the system does not report
    /// it.
    cpu_ns: Option<u64>,
    /// Involuntary context switches.
    switches: u64,
    /// Voluntary context switches.
    waits: u64,
    faults: u64,
}

impl Usage {
    #[cfg(target_os = "linux")]
    fn now() -> Self {
        use nix::sys::resource::{UsageWho, getrusage};
        let cpu_ns = Self::cpu_ns();
        let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return Self::default() };
        Self {
            cpu_ns,
            switches: usage.involuntary_context_switches() as u64,
            waits: usage.voluntary_context_switches() as u64,
            faults: (usage.minor_page_faults() + usage.major_page_faults()) as u64,
        }
    }

    #[cfg(target_os = "linux")]
    fn cpu_ns() -> Option<u64> {
        use nix::time::{ClockId, clock_gettime};
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
        Some(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Self {
        Self::default()
    }

    #[cfg(not(target_os = "linux"))]
    fn cpu_ns() -> Option<u64> {
        None
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    from_ns: u64,
    to_ns: u64,
    did: u8,
    /// Time off the core within the span.
    off_ns: u64,
    off: Option<StallCause>,
    switches: u64,
    faults: u64,
}

impl Span {
    fn cause(&self) -> StallCause {
        match self.did {
            did if did & Activity::Sleep as u8 != 0 => StallCause::LateWake,
            did if did & Activity::Epoch as u8 != 0 => StallCause::Epoch,
            did if did & Activity::Blocked as u8 != 0 => StallCause::BlockedWrite,
            did if did & Activity::Expiry as u8 != 0 => StallCause::Expiry,
            _ => StallCause::LongDrain,
        }
    }

    /// The off-core time that falls into an overlap. Only the total of the span is known, so the
    /// off-core time is assumed to be spread evenly.
    fn off_of(&self, overlap_ns: u64) -> u64 {
        let whole_ns = u128::from(self.to_ns - self.from_ns).max(1);
        (u128::from(self.off_ns) * u128::from(overlap_ns) / whole_ns) as u64
    }
}

/// The resource usage at the last query, and the time it was queried at.
#[derive(Clone, Copy, Debug, Default)]
struct UsageBaseline {
    usage: Usage,
    /// Time of the last query, in nanoseconds.
    at_ns: u64,
    /// Sleeps since the last query. Each is one voluntary context switch.
    sleeps: u64,
}

impl UsageBaseline {
    /// Ends a span now. Its resource usage is the difference to the last query of the system. Time
    /// off the core below [`OFF_CORE_NS`], or with an unknown processor time, is not attributed.
    fn span(&mut self, (from_ns, to_ns): (u64, u64), did: u8, now: Usage) -> Span {
        let before = std::mem::replace(self, Self { usage: now, at_ns: to_ns, sleeps: 0 });
        let (switches, waits) = (
            now.switches.saturating_sub(before.usage.switches),
            now.waits.saturating_sub(before.usage.waits).saturating_sub(before.sleeps),
        );
        let off_ns = match (now.cpu_ns, before.usage.cpu_ns) {
            (Some(now), Some(then)) => {
                let passed_ns = to_ns.saturating_sub(before.at_ns);
                passed_ns.saturating_sub(now.saturating_sub(then)).min(to_ns - from_ns)
            }
            _ => 0,
        };
        let off = (off_ns >= OFF_CORE_NS).then_some(match (switches, waits) {
            (0, 0) => StallCause::Stolen,
            (0, _) => StallCause::BlockingCall,
            _ => StallCause::Preempted,
        });
        Span {
            from_ns,
            to_ns,
            did,
            off_ns: off.map_or(0, |_| off_ns),
            off,
            switches,
            faults: now.faults.saturating_sub(before.usage.faults),
        }
    }
}

struct Recorder {
    /// Reads the thread's resource usage from the system.
    read_usage: fn() -> Usage,
    spans: Box<[Span; REMEMBERED]>,
    /// Index at which the next span is stored.
    next: usize,
    round_from_ns: u64,
    asked: UsageBaseline,
    /// The slowest record of this interval.
    slowest: Option<Stall>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
    static DID: Cell<u8> = const { Cell::new(0) };
}

fn with(body: impl FnOnce(&mut Recorder)) {
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(body));
}

/// Installs a recorder on the calling worker thread.
pub(crate) fn install_recorder(now_ns: u64) {
    begin_asking(now_ns, Usage::now);
}

fn begin_asking(now_ns: u64, read_usage: fn() -> Usage) {
    let recorder = Recorder {
        read_usage,
        spans: Box::new([Span::default(); REMEMBERED]),
        next: 0,
        round_from_ns: now_ns,
        asked: UsageBaseline { usage: read_usage(), at_ns: now_ns, sleeps: 0 },
        slowest: None,
    };
    RECORDER.set(Some(recorder));
}

/// Records an activity of the current round.
#[inline]
pub(crate) fn record_activity(activity: Activity) {
    DID.set(DID.get() | activity as u8);
}

/// Starts a round and ends the previous one.
#[inline]
pub(crate) fn begin_round(now_ns: u64) {
    let did = DID.replace(0);
    with(|recorder| {
        let from_ns = std::mem::replace(&mut recorder.round_from_ns, now_ns);
        if now_ns.saturating_sub(from_ns) > LONG_NS {
            recorder.remember((from_ns, now_ns), did, (recorder.read_usage)());
        }
    });
}

/// Ends the round before a sleep; what it did stays recorded for [`after_sleep`]. The processor
/// time is read before the sleep, because records may be waiting after it.
pub(crate) fn before_sleep(now_ns: u64) {
    let did = DID.get();
    with(|recorder| {
        let from_ns = std::mem::replace(&mut recorder.round_from_ns, now_ns);
        if now_ns.saturating_sub(from_ns) > LONG_NS {
            recorder.remember((from_ns, now_ns), did, (recorder.read_usage)());
        } else {
            recorder.asked.usage.cpu_ns = Usage::cpu_ns();
        }
    });
}

/// Records a sleep, as a blocked write if the chain was blocked, and starts the next round.
#[inline]
pub(crate) fn after_sleep(from_ns: u64, to_ns: u64) {
    // A worker that sleeps because its sink is full, or a ring to another worker, sleeps until that
    // can take more. Such a sleep counts as a blocked write.
    let blocked = DID.replace(0) & Activity::Blocked as u8;
    let did = if blocked == 0 { Activity::Sleep as u8 } else { blocked };
    with(|recorder| {
        recorder.put(Span { from_ns, to_ns, did, ..Span::default() });
        recorder.round_from_ns = to_ns;
        // The baseline time moves to the end of the sleep, so that the sleep does not count as
        // off-core time. The few microseconds of processor time that falling asleep and waking up
        // take count for the next round.
        recorder.asked.at_ns = to_ns;
        recorder.asked.sleeps += u64::from(to_ns.saturating_sub(from_ns) > SLEPT_NS);
    });
}

/// Records that a record with this ingest time was written only now, later after its ingest than
/// any other record that this sink wrote in the interval. Does nothing if another sink of the
/// worker wrote a slower one.
#[cold]
pub(crate) fn record_slow(ingest_ns: u64, now_ns: u64) {
    let did = DID.get();
    with(|recorder| {
        let latency_ns = now_ns - ingest_ns;
        if recorder.slowest.is_some_and(|slowest| slowest.latency_ns >= latency_ns) {
            return;
        }
        let usage = (recorder.read_usage)();
        recorder.slowest = Some(recorder.explain((ingest_ns, now_ns), did, usage));
    });
}

/// Ends this thread's interval and returns its slowest record; `None` if none was recorded.
pub(crate) fn take_slowest() -> Option<Stall> {
    let mut slowest = None;
    with(|recorder| slowest = recorder.slowest.take());
    slowest
}

impl Recorder {
    #[inline]
    fn put(&mut self, span: Span) {
        self.spans[self.next] = span;
        self.next = (self.next + 1) % REMEMBERED;
    }

    #[cold]
    fn remember(&mut self, times_ns: (u64, u64), did: u8, now: Usage) {
        let span = self.asked.span(times_ns, did, now);
        self.put(span);
    }

    fn explain(&mut self, (ingest_ns, now_ns): (u64, u64), did: u8, now: Usage) -> Stall {
        // The current round has not ended, but its part so far becomes a span.
        self.remember((self.round_from_ns, now_ns), did, now);
        let latency_ns = now_ns - ingest_ns;
        let mut stall = Stall { latency_ns, at_ns: now_ns, ..Stall::default() };
        for span in self.spans.iter() {
            let from_ns = span.from_ns.max(ingest_ns);
            let overlap_ns = span.to_ns.min(now_ns).saturating_sub(from_ns);
            if overlap_ns > 0 {
                let off_ns = span.off_of(overlap_ns);
                stall.parts_ns[span.cause() as usize] += overlap_ns - off_ns;
                stall.parts_ns[span.off.unwrap_or(StallCause::LongDrain) as usize] += off_ns;
                stall.switches += span.switches;
                stall.faults += span.faults;
            }
        }
        // The rest of the current round is measured on its own.
        self.round_from_ns = now_ns;
        let known_ns: u64 = stall.parts_ns.iter().sum();
        let rest_ns = latency_ns.saturating_sub(known_ns);
        // Time without a span is consecutive short rounds if the worker was running. They count as
        // one drain.
        let since_ns = self.spans.iter().map(|span| span.to_ns).filter(|to_ns| *to_ns > 0).min();
        let cause = match since_ns {
            Some(since_ns) if since_ns <= ingest_ns && self.was_busy(ingest_ns) => {
                StallCause::LongDrain
            }
            _ => StallCause::Upstream,
        };
        stall.parts_ns[cause as usize] += rest_ns;
        stall
    }

    /// Whether the worker was awake at `at_ns`, as far as the kept spans tell.
    fn was_busy(&self, at_ns: u64) -> bool {
        let asleep = |span: &Span| {
            span.did & Activity::Sleep as u8 != 0 && span.from_ns <= at_ns && at_ns < span.to_ns
        };
        !self.spans.iter().any(asleep)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const US: u64 = 1_000;

    /// Starts a recorder for a worker whose resource usage is unknown.
    fn begin(now_ns: u64) {
        begin_asking(now_ns, Usage::default);
    }

    fn explained(ingest_us: u64, now_us: u64) -> Stall {
        record_slow(ingest_us * US, now_us * US);
        take_slowest().expect("it is slow")
    }

    fn parts_us(stall: &Stall) -> [u64; StallCause::COUNT] {
        assert_eq!(stall.parts_ns.iter().sum::<u64>(), stall.latency_ns);
        stall.parts_ns.map(|ns| ns / US)
    }

    #[test]
    fn the_wait_of_a_record_is_attributed_to_overlapping_spans() {
        begin(0);
        after_sleep(0, 100 * US);
        begin_round(100 * US);
        record_activity(Activity::Epoch);
        begin_round(400 * US);
        begin_round(410 * US);
        record_activity(Activity::Expiry);
        begin_round(510 * US);
        // The record was ingested while the worker slept, and the round has taken 40 us so far.
        let stall = explained(70, 550);
        assert_eq!(parts_us(&stall), [30, 40, 100, 300, 0, 0, 0, 0, 10]);
        assert_eq!(stall.cause(), StallCause::Epoch);
        let text = stall.to_string();
        assert!(
            text.starts_with("480.0 us: end of an epoch (late wake-up 30.0, long drain 40.0"),
            "{text}"
        );
        assert_eq!(take_slowest(), None, "an interval has one");
    }

    /// The clock may not have been read since the last sleep.
    #[test]
    fn a_long_round_before_a_sleep_is_kept() {
        begin(0);
        before_sleep(10 * US);
        after_sleep(10 * US, 100 * US);
        record_activity(Activity::Epoch);
        before_sleep(400 * US);
        after_sleep(400 * US, 500 * US);
        begin_round(500 * US);
        assert_eq!(parts_us(&explained(150, 520)), [100, 20, 0, 250, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn blocked_writes_and_long_drains_are_distinguished() {
        begin(0);
        begin_round(1_000 * US);
        record_activity(Activity::Blocked);
        begin_round(1_300 * US);
        assert_eq!(explained(1_000, 1_350).cause(), StallCause::BlockedWrite);
        record_activity(Activity::Blocked);
        after_sleep(1_350 * US, 1_550 * US);
        assert_eq!(
            explained(1_345, 1_560).cause(),
            StallCause::BlockedWrite,
            "asleep because of it"
        );
        begin_round(2_000 * US);
        assert_eq!(explained(1_600, 2_010).cause(), StallCause::LongDrain);
    }

    /// The off-core cause of a round of 100 us with the given processor time, involuntary switches
    /// and voluntary switches.
    fn off(cpu_us: u64, switches: u64, waits: u64) -> Option<(StallCause, u64)> {
        // Two sleeps happened since the baseline. Their voluntary switches do not count for the
        // round.
        let usage = Usage { cpu_ns: Some(7 * US), switches: 1, waits: 1, faults: 0 };
        let mut asked = UsageBaseline { usage, at_ns: 1_000 * US, sleeps: 2 };
        let now = Usage {
            cpu_ns: Some((7 + cpu_us) * US),
            switches: 1 + switches,
            waits: 3 + waits,
            faults: 0,
        };
        let span = asked.span((1_000 * US, 1_100 * US), 0, now);
        assert_eq!((asked.usage, asked.at_ns, asked.sleeps), (now, 1_100 * US, 0));
        span.off.map(|cause| (cause, span.off_ns / US))
    }

    #[test]
    fn preemption_and_stolen_time_are_distinguished() {
        assert_eq!(off(100, 0, 0), None);
        assert_eq!(off(97, 0, 0), None, "the clocks are not read at once");
        assert_eq!(off(130, 0, 0), None, "some of it was used while falling asleep");
        assert_eq!(off(30, 0, 0), Some((StallCause::Stolen, 70)));
        assert_eq!(off(30, 2, 0), Some((StallCause::Preempted, 70)));
        assert_eq!(off(30, 1, 1), Some((StallCause::Preempted, 70)));
        assert_eq!(off(30, 0, 1), Some((StallCause::BlockingCall, 70)));
    }

    #[test]
    fn off_core_time_of_a_round_is_spread_evenly_over_the_round() {
        begin(0);
        with(|recorder| {
            recorder.asked.usage.cpu_ns = Some(0);
            let usage = Usage { cpu_ns: Some(100 * US), ..Usage::default() };
            recorder.remember((0, 400 * US), Activity::Epoch as u8, usage);
            recorder.round_from_ns = 400 * US;
            let usage = Usage { cpu_ns: Some(120 * US), ..usage };
            let stall = recorder.explain((200 * US, 420 * US), 0, usage);
            assert_eq!(parts_us(&stall), [0, 20, 0, 50, 0, 0, 150, 0, 0]);
            assert_eq!(stall.cause(), StallCause::Stolen);
        });
    }

    /// Two threads compete for one core.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_worker_on_a_shared_core_yields() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let over = AtomicBool::new(false);
        let core = crate::cores::allowed()[0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                crate::cores::pin(core);
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let worker = scope.spawn(|| {
                crate::cores::pin(core);
                let began = std::time::Instant::now();
                let now_ns = || began.elapsed().as_nanos() as u64;
                super::install_recorder(now_ns());
                // Loops until the other thread has had its time slice.
                let stall = loop {
                    let from_ns = now_ns();
                    while now_ns() - from_ns < 20_000 * US {
                        std::hint::spin_loop();
                    }
                    record_slow(from_ns, now_ns());
                    let stall = take_slowest().expect("it is slow");
                    if stall.parts_ns[StallCause::Preempted as usize] > 0
                        || now_ns() > 60_000_000 * US
                    {
                        break stall;
                    }
                };
                over.store(true, Ordering::Relaxed);
                stall
            });
            let stall = worker.join().unwrap();
            assert!(stall.parts_ns[StallCause::Preempted as usize] > 0, "{stall}");
            assert!(stall.switches > 0, "{stall}");
            assert_eq!(stall.parts_ns.iter().sum::<u64>(), stall.latency_ns);
        });
    }

    #[test]
    fn a_faster_record_of_another_sink_does_not_replace_the_slowest() {
        begin(0);
        begin_round(1_000 * US);
        record_slow(0, 5_000 * US);
        record_slow(4_800 * US, 5_000 * US);
        assert_eq!(take_slowest().map(|stall| stall.latency_ns), Some(5_000 * US));
        assert_eq!(take_slowest(), None, "an interval has one");
    }

    #[test]
    fn a_stall_is_shown_with_the_shares_that_it_has() {
        let mut stall = Stall { latency_ns: 150 * US, ..Stall::default() };
        assert_eq!(stall.to_string(), "150.0 us: upstream");
        stall.switches = 2;
        assert_eq!(stall.to_string(), "150.0 us: upstream (2 involuntary switches)");
        stall.parts_ns[StallCause::Epoch as usize] = 150 * US;
        stall.faults = 1;
        assert_eq!(
            stall.to_string(),
            "150.0 us: end of an epoch (end of an epoch 150.0 us; 2 involuntary switches; 1 page \
             faults)"
        );
    }

    #[test]
    fn other_threads_record_nothing() {
        std::thread::spawn(|| {
            begin_round(5 * US);
            record_slow(0, 1_000 * US);
            assert_eq!(take_slowest(), None);
        })
        .join()
        .unwrap();
    }
}
