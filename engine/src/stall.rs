//! Why the slowest records were slow.
//!
//! A worker keeps the last of its long rounds and sleeps, each with what was done in it and what the
//! system did to the thread meanwhile. When a sink stamps a record that is the slowest of its
//! interval so far, the time from its ingest to its result is laid over those: what is covered by a
//! sleep was waited for a wake-up, what is covered by a round that passed a marker on went into the
//! epoch, and so on. What nothing covers happened before the record came to this worker.
//!
//! *Cost.* One clock read a round of the worker, which is up to [`STEP_BUDGET`] records a tasklet, and
//! one in eight rounds where these are over in no time. The system is asked (`getrusage`) after rounds
//! of more than 20 us only.
//!
//! *Threads.* Each worker has its own, reached through a thread-local: a sink knows no worker. Threads
//! without one, as under simulation, record nothing.
//!
//! [`STEP_BUDGET`]: crate::worker::STEP_BUDGET

use std::cell::{Cell, RefCell};

/// Rounds and sleeps that are remembered.
const REMEMBERED: usize = 256;
/// A round that takes longer is remembered.
pub(crate) const LONG_NS: u64 = 20_000;
/// A record that takes less long is not worth a question.
pub(crate) const SLOW_NS: u64 = 100_000;

/// What a record waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Cause {
    /// The worker was asleep, or being woken.
    LateWake,
    /// Records before it, in the same drain.
    Drain,
    /// Windows or keys that the watermark let go.
    Expiry,
    /// The end of an epoch: its marker, and what goes with it.
    Epoch,
    /// A sink that could take no more.
    BlockedWrite,
    /// Something before this worker: another worker, or a ring.
    Elsewhere,
}

impl Cause {
    /// All of them, in the order of [`Stall::parts_ns`].
    pub const ALL: [Self; 6] = [
        Self::LateWake,
        Self::Drain,
        Self::Expiry,
        Self::Epoch,
        Self::BlockedWrite,
        Self::Elsewhere,
    ];

    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            Self::LateWake => "late wake-up",
            Self::Drain => "long drain",
            Self::Expiry => "expiry",
            Self::Epoch => "end of an epoch",
            Self::BlockedWrite => "blocked write",
            Self::Elsewhere => "before this worker",
        }
    }
}

/// A slow record, explained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// From its ingest to its result.
    pub latency_ns: u64,
    /// When its result was out, on the query's clock.
    pub at_ns: u64,
    /// How much of that each of [`Cause::ALL`] took, in nanoseconds; the sum is the latency.
    pub parts_ns: [u64; 6],
    /// Times in those that the system took the core away.
    pub switches: u64,
    /// Page faults in those.
    pub faults: u64,
}

impl Stall {
    /// What took most of it.
    pub fn cause(&self) -> Cause {
        let most = Cause::ALL.into_iter().zip(self.parts_ns).max_by_key(|(_, ns)| *ns);
        most.map_or(Cause::Elsewhere, |(cause, _)| cause)
    }
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |ns: u64| ns as f64 / 1e3;
        write!(f, "{:.1} us: {}", us(self.latency_ns), self.cause().words())?;
        let parts = Cause::ALL.into_iter().zip(self.parts_ns);
        for (at, (cause, ns)) in parts.filter(|(_, ns)| *ns > 0).enumerate() {
            write!(f, "{}{} {:.1}", if at == 0 { " (" } else { ", " }, cause.words(), us(ns))?;
        }
        write!(f, " us")?;
        if self.switches > 0 {
            write!(f, "; the system took the core away {} times", self.switches)?;
        }
        if self.faults > 0 {
            write!(f, "; {} page faults", self.faults)?;
        }
        write!(f, ")")
    }
}

/// What was done in a round besides taking records; may be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Did {
    Epoch = 1,
    Expiry = 2,
    Blocked = 4,
    Sleep = 8,
}

/// What the system has done to a thread since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    switches: u64,
    faults: u64,
}

impl Usage {
    #[cfg(target_os = "linux")]
    fn now() -> Self {
        use nix::sys::resource::{UsageWho, getrusage};
        let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return Self::default() };
        Self {
            switches: usage.involuntary_context_switches() as u64,
            faults: (usage.minor_page_faults() + usage.major_page_faults()) as u64,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Self {
        Self::default()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    from_ns: u64,
    to_ns: u64,
    did: u8,
    usage: Usage,
}

impl Span {
    fn cause(&self) -> Cause {
        match self.did {
            did if did & Did::Sleep as u8 != 0 => Cause::LateWake,
            did if did & Did::Epoch as u8 != 0 => Cause::Epoch,
            did if did & Did::Blocked as u8 != 0 => Cause::BlockedWrite,
            did if did & Did::Expiry as u8 != 0 => Cause::Expiry,
            _ => Cause::Drain,
        }
    }
}

struct Recorder {
    spans: Box<[Span; REMEMBERED]>,
    /// Where the next one goes.
    next: usize,
    round_from_ns: u64,
    /// When it was last asked for.
    usage: Usage,
    /// The slowest of this interval.
    slowest: Option<Stall>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
    static DID: Cell<u8> = const { Cell::new(0) };
}

fn with(body: impl FnOnce(&mut Recorder)) {
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(body));
}

/// Makes the calling thread a worker that records.
pub(crate) fn begin(now_ns: u64) {
    let recorder = Recorder {
        spans: Box::new([Span::default(); REMEMBERED]),
        next: 0,
        round_from_ns: now_ns,
        usage: Usage::now(),
        slowest: None,
    };
    RECORDER.set(Some(recorder));
}

/// Something is done in this round.
#[inline]
pub(crate) fn did(what: Did) {
    DID.set(DID.get() | what as u8);
}

/// A round begins, and with it the one before ends.
#[inline]
pub(crate) fn round(now_ns: u64) {
    let did = DID.replace(0);
    with(|recorder| {
        let from_ns = std::mem::replace(&mut recorder.round_from_ns, now_ns);
        if now_ns.saturating_sub(from_ns) > LONG_NS {
            recorder.remember(from_ns, now_ns, did);
        }
    });
}

/// The worker has slept, and its next round begins.
#[inline]
pub(crate) fn slept(from_ns: u64, to_ns: u64) {
    // Until the sink can take more, that is.
    let blocked = DID.replace(0) & Did::Blocked as u8;
    let did = if blocked == 0 { Did::Sleep as u8 } else { blocked };
    with(|recorder| {
        recorder.put(Span { from_ns, to_ns, did, usage: Usage::default() });
        recorder.round_from_ns = to_ns;
    });
}

/// A record that came at `ingest_ns` is out only now, and none of the interval was slower.
#[cold]
pub(crate) fn slow(ingest_ns: u64, now_ns: u64) {
    let did = DID.get();
    with(|recorder| recorder.slowest = Some(recorder.explain(ingest_ns, now_ns, did)));
}

/// The slowest record of the interval, which ends; `None` if all were quick.
pub(crate) fn take() -> Option<Stall> {
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
    fn remember(&mut self, from_ns: u64, to_ns: u64, did: u8) {
        let now = Usage::now();
        let before = std::mem::replace(&mut self.usage, now);
        let usage = Usage {
            switches: now.switches.saturating_sub(before.switches),
            faults: now.faults.saturating_sub(before.faults),
        };
        self.put(Span { from_ns, to_ns, did, usage });
    }

    fn explain(&mut self, ingest_ns: u64, now_ns: u64, did: u8) -> Stall {
        // The round that goes on.
        self.remember(self.round_from_ns, now_ns, did);
        let latency_ns = now_ns - ingest_ns;
        let mut stall = Stall { latency_ns, at_ns: now_ns, ..Stall::default() };
        for span in self.spans.iter() {
            let from_ns = span.from_ns.max(ingest_ns);
            let overlap_ns = span.to_ns.min(now_ns).saturating_sub(from_ns);
            if overlap_ns > 0 {
                stall.parts_ns[span.cause() as usize] += overlap_ns;
                stall.switches += span.usage.switches;
                stall.faults += span.usage.faults;
            }
        }
        // It stands for the rest of its round only, should there be another slow record in it.
        self.round_from_ns = now_ns;
        let known_ns: u64 = stall.parts_ns.iter().sum();
        let rest_ns = latency_ns.saturating_sub(known_ns);
        // Rounds that were not long, one after the other, are a drain.
        let since_ns = self.spans.iter().map(|span| span.to_ns).filter(|to_ns| *to_ns > 0).min();
        let cause = match since_ns {
            Some(since_ns) if since_ns <= ingest_ns && self.was_busy(ingest_ns) => Cause::Drain,
            _ => Cause::Elsewhere,
        };
        stall.parts_ns[cause as usize] += rest_ns;
        stall
    }

    /// Whether the worker was awake and at work at a time.
    fn was_busy(&self, at_ns: u64) -> bool {
        let asleep = |span: &Span| {
            span.did & Did::Sleep as u8 != 0 && span.from_ns <= at_ns && at_ns < span.to_ns
        };
        !self.spans.iter().any(asleep)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const US: u64 = 1_000;

    fn explained(ingest_us: u64, now_us: u64) -> Stall {
        slow(ingest_us * US, now_us * US);
        take().expect("it is slow")
    }

    fn parts_us(stall: &Stall) -> [u64; 6] {
        assert_eq!(stall.parts_ns.iter().sum::<u64>(), stall.latency_ns);
        stall.parts_ns.map(|ns| ns / US)
    }

    #[test]
    fn what_covers_the_time_of_a_record_is_what_it_waited_for() {
        begin(0);
        slept(0, 100 * US);
        round(100 * US);
        did(Did::Epoch);
        round(400 * US);
        round(410 * US);
        did(Did::Expiry);
        round(510 * US);
        // It came while the worker slept, and its round has taken 40 us so far.
        let stall = explained(70, 550);
        assert_eq!(parts_us(&stall), [30, 40, 100, 300, 0, 10]);
        assert_eq!(stall.cause(), Cause::Epoch);
        let text = stall.to_string();
        assert!(
            text.starts_with("480.0 us: end of an epoch (late wake-up 30.0, long drain 40.0"),
            "{text}"
        );
        assert_eq!(take(), None, "an interval has one");
    }

    #[test]
    fn a_blocked_sink_and_a_drain_are_told_apart() {
        begin(0);
        round(1_000 * US);
        did(Did::Blocked);
        round(1_300 * US);
        assert_eq!(explained(1_000, 1_350).cause(), Cause::BlockedWrite);
        did(Did::Blocked);
        slept(1_350 * US, 1_550 * US);
        assert_eq!(explained(1_345, 1_560).cause(), Cause::BlockedWrite, "asleep because of it");
        round(2_000 * US);
        assert_eq!(explained(1_600, 2_010).cause(), Cause::Drain);
    }

    #[test]
    fn other_threads_record_nothing() {
        std::thread::spawn(|| {
            round(5 * US);
            slow(0, 1_000 * US);
            assert_eq!(take(), None);
        })
        .join()
        .unwrap();
    }
}
