//! The idle time-out of a source. After this time without records the watermark of the source does
//! not hold back the watermark of the query.

/// The idle time-out of one source.
#[derive(Debug, Default)]
pub struct IdleTimeout {
    /// The time-out in nanoseconds; `None` if the source never becomes idle.
    after_ns: Option<u64>,
    last_record_ns: Option<u64>,
    is_idle: bool,
}

/// What a source must do after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idleness {
    /// The source must do nothing.
    Unchanged,
    /// The source must check again at this time, in nanoseconds.
    CheckAt(u64),
    /// The source has become idle and must report it.
    BecameIdle,
}

impl IdleTimeout {
    /// A time-out after `after_ns` nanoseconds; `None` if the source never becomes idle.
    pub fn new(after_ns: Option<u64>) -> Self {
        Self { after_ns, ..Self::default() }
    }

    /// Whether there is a time-out.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.after_ns.is_some()
    }

    /// Restarts the time-out. Call this when the source has emitted records, or was blocked.
    pub fn restart(&mut self, now_ns: u64) {
        (self.last_record_ns, self.is_idle) = (Some(now_ns), false);
    }

    /// Updates the time-out after a poll without records. The first call starts it. `BecameIdle` is
    /// returned once until the next restart; without a time-out the result is always `Unchanged`.
    pub fn update(&mut self, now_ns: u64) -> Idleness {
        let Some(after_ns) = self.after_ns else { return Idleness::Unchanged };
        let due_ns = *self.last_record_ns.get_or_insert(now_ns) + after_ns;
        if self.is_idle {
            return Idleness::Unchanged;
        }
        if now_ns < due_ns {
            return Idleness::CheckAt(due_ns);
        }
        self.is_idle = true;
        Idleness::BecameIdle
    }
}
