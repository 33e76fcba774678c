//! Stall causes, and a slow record with the share of each cause.

/// A cause of a record's delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum StallCause {
    /// The worker was asleep or waking up.
    LateWake,
    /// The worker processed earlier records in the same drain, or the record itself.
    LongDrain,
    /// The worker processed windows or keys that the watermark had expired.
    Expiry,
    /// The worker ended an epoch: the marker and the work that it causes.
    Epoch,
    /// A sink, or the ring to another worker, could not take more output.
    BlockedWrite,
    /// The scheduler gave the worker's core to another thread.
    Preempted,
    /// The hypervisor gave the core to another guest, or to itself.
    Stolen,
    /// The thread waited in a blocking system call, for a page fault from disk, or for a lock.
    BlockingCall,
    /// The record was in another worker or in a ring before this worker, or the recorded rounds and
    /// sleeps do not reach back to its ingest.
    Upstream,
}

impl StallCause {
    /// Number of causes.
    pub const COUNT: usize = 9;

    /// All causes, in the order of [`Stall::parts_ns`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::LateWake,
        Self::LongDrain,
        Self::Expiry,
        Self::Epoch,
        Self::BlockedWrite,
        Self::Preempted,
        Self::Stolen,
        Self::BlockingCall,
        Self::Upstream,
    ];

    /// The name of the cause for users.
    pub fn label(self) -> &'static str {
        match self {
            Self::LateWake => "late wake-up",
            Self::LongDrain => "long drain",
            Self::Expiry => "expiry",
            Self::Epoch => "end of an epoch",
            Self::BlockedWrite => "blocked write",
            Self::Preempted => "preempted",
            Self::Stolen => "stolen time",
            Self::BlockingCall => "blocking call",
            Self::Upstream => "upstream",
        }
    }
}

/// A slow record with the causes of its delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Time from ingest to result, in nanoseconds.
    pub latency_ns: u64,
    /// Time at which the result was written, on the query's clock, in nanoseconds.
    pub at_ns: u64,
    /// The share of each of [`StallCause::ALL`], in nanoseconds. The sum is the latency.
    pub parts_ns: [u64; StallCause::COUNT],
    /// Involuntary context switches in the recorded rounds that overlap the delay.
    pub switches: u64,
    /// Page faults in the recorded rounds that overlap the delay.
    pub faults: u64,
}

impl Stall {
    /// The cause of the largest share; [`Upstream`](StallCause::Upstream) if there is none.
    pub fn cause(&self) -> StallCause {
        let most = StallCause::ALL.into_iter().zip(self.parts_ns).max_by_key(|(_, ns)| *ns);
        most.map_or(StallCause::Upstream, |(cause, _)| cause)
    }
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |ns: u64| ns as f64 / 1e3;
        write!(f, "{:.1} us: {}", us(self.latency_ns), self.cause().label())?;
        let parts = StallCause::ALL.into_iter().zip(self.parts_ns).filter(|(_, ns)| *ns > 0);
        let parts: Vec<_> =
            parts.map(|(cause, ns)| format!("{} {:.1}", cause.label(), us(ns))).collect();
        let mut notes = Vec::new();
        if !parts.is_empty() {
            notes.push(format!("{} us", parts.join(", ")));
        }
        if self.switches > 0 {
            notes.push(format!("{} involuntary switches", self.switches));
        }
        if self.faults > 0 {
            notes.push(format!("{} page faults", self.faults));
        }
        if notes.is_empty() { Ok(()) } else { write!(f, " ({})", notes.join("; ")) }
    }
}
