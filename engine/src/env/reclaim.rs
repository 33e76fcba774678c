//! Decides when freed memory is returned to the system.
//!
//! An allocator keeps the memory that a burst has freed. glibc's allocator returns only the end of
//! a heap, so one small live block keeps all free memory below it. `malloc_trim` returns every free
//! page. It holds the heap's lock meanwhile, for which operators that allocate must wait. So the
//! driver's thread calls `malloc_trim` rarely: only after the query has released much memory, and
//! once its memory has been stable for a second.
//!
//! *Limits.* Only state, its changes and their buffers are counted. Without glibc nothing is done.

/// Minimum released memory for a trim, in bytes. It must also be at least a quarter of the maximum.
const LEAST: u64 = 16 << 20;
/// Memory counts as stable if, for `STILL_NS`, it changes by at most this many bytes, or by at most
/// `1 / STILL_PART` of the released memory.
const STILL: u64 = 1 << 20;
const STILL_PART: u64 = 8;
/// How long memory must be stable before a trim, in nanoseconds.
const STILL_NS: u64 = 1_000_000_000;
/// Minimum time between two trims, in nanoseconds.
const PAUSE_NS: u64 = 10_000_000_000;

/// Tracks the memory of a query's epochs and decides when to trim.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    /// The maximum memory since the last trim, in bytes.
    high: u64,
    /// The memory that remained in use after the last epoch, in bytes.
    lasting: u64,
    /// The memory in use when it last changed much, in bytes, and the time of that change.
    level: u64,
    level_at_ns: u64,
    trimmed_at_ns: u64,
}

impl Reclaim {
    /// Records the end of an epoch: `lasting` bytes remain in use, and `transient` bytes were in
    /// use while it was committed. Returns whether to give freed memory back now.
    pub fn end_epoch(&mut self, now_ns: u64, lasting: u64, transient: u64) -> bool {
        self.lasting = lasting;
        let used = lasting + transient;
        self.high = self.high.max(used);
        let released = self.high - used;
        if used.abs_diff(self.level) > STILL.max(released / STILL_PART) {
            (self.level, self.level_at_ns) = (used, now_ns);
        }
        let since_trim_ns = now_ns.saturating_sub(self.trimmed_at_ns);
        let is_still = now_ns.saturating_sub(self.level_at_ns) >= STILL_NS;
        if released < LEAST.max(self.high / 4) || since_trim_ns < PAUSE_NS || !is_still {
            return false;
        }
        (self.high, self.trimmed_at_ns) = (used, now_ns);
        true
    }

    /// Records that no new data was found. Returns whether to give freed memory back now.
    pub fn idle(&mut self, now_ns: u64) -> bool {
        self.end_epoch(now_ns, self.lasting, 0)
    }
}

/// Gives the pages of freed memory back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    // SAFETY: `malloc_trim` may be called at any time, on any thread. It touches free blocks only.
    #[allow(unsafe_code, reason = "there is no other way to it")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Does nothing on other systems.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MB: u64 = 1 << 20;

    /// The times of the trims, in tenths of a second. Each tenth is one epoch.
    fn trims(state: impl Fn(u64) -> u64, transient: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut reclaim = Reclaim::default();
        let due = |epoch: &u64| {
            reclaim.end_epoch(epoch * SECOND / 10, state(*epoch) * MB, transient(*epoch) * MB)
        };
        (1000..1600).filter(due).collect()
    }

    #[test]
    fn freed_memory_is_trimmed_once_after_a_burst() {
        assert_eq!(trims(|_| 100, |_| 0), [] as [u64; 0], "nothing was released");
        let burst = |epoch| if (1100..1150).contains(&epoch) { 200 } else { 20 };
        assert_eq!(trims(burst, |_| 0), [1160]);
        // A burst is followed by a trim also while windows open and close.
        assert_eq!(trims(|epoch| burst(epoch) + epoch % 10, |_| 0), [1160]);
        // The memory shrinks in steps. The trim waits for the last one.
        let slow = |epoch: u64| 220 - epoch.clamp(1100, 1140).saturating_sub(1100) * 5;
        assert_eq!(trims(slow, |_| 0), [1149]);
        // A trim follows one large epoch, whose changes are freed when it ends.
        assert_eq!(trims(|_| 5, |epoch| if epoch == 1200 { 300 } else { 1 }), [1211]);
    }

    #[test]
    fn memory_of_a_state_that_grows_and_shrinks_is_not_trimmed() {
        let windows = |epoch: u64| if epoch % 20 < 5 { 100 } else { 20 + epoch % 20 * 4 };
        assert_eq!(trims(windows, |_| 0), [] as [u64; 0]);
        let minutes = |epoch: u64| if epoch % 200 < 100 { 100 } else { 20 };
        assert_eq!(trims(minutes, |_| 0).len(), 3, "once a turn");
        assert_eq!(trims(|_| 5, |epoch| epoch % 2 * 300), [] as [u64; 0]);
    }

    #[test]
    fn memory_of_a_query_without_new_data_is_trimmed() {
        let mut reclaim = Reclaim::default();
        assert!(!reclaim.end_epoch(100 * SECOND, 5 * MB, 200 * MB));
        assert!(!reclaim.idle(100 * SECOND + 1));
        assert!(reclaim.idle(102 * SECOND));
        assert!(!reclaim.idle(120 * SECOND), "once");
    }
}
