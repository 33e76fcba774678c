//! How many cores this process may really use: the affinity mask and the cgroup's CPU quota.

/// A core that a worker may be pinned to.
pub type Core = core_affinity::CoreId;

/// The cores of this process's affinity mask, in order; empty if the system does not tell.
pub fn allowed() -> Vec<Core> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// Pins the calling thread. Returns whether the system agreed.
pub fn pin(core: Core) -> bool {
    core_affinity::set_for_current(core)
}

/// Lets a worker run that has been woken on this core. Linux lets a thread that has slept much
/// run on for about a millisecond even when a worker, which has slept less, has a record; so work
/// behind the scenes asks for itself to be interrupted.
pub(crate) fn give_way() {
    std::thread::yield_now();
}

/// Gives way once in so many changes, keys and the like: some tens of microseconds of work.
#[derive(Default)]
pub(crate) struct Breath(usize);

impl Breath {
    const ITEMS: usize = 256;

    /// Another item is done.
    pub fn item(&mut self) {
        self.0 += 1;
        if self.0 == Self::ITEMS {
            self.0 = 0;
            give_way();
        }
    }
}

/// Cores that this process may use at once: the affinity mask, capped by the cgroup quota
/// (rounded down, at least 1).
pub fn usable() -> usize {
    let allowed = allowed().len();
    let allowed = if allowed == 0 {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    } else {
        allowed
    };
    let quota = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok();
    quota.as_deref().and_then(quota_cores).map_or(allowed, |cores| cores.clamp(1, allowed))
}

/// Whole cores of a cgroup v2 `cpu.max` line, `None` for no limit.
fn quota_cores(line: &str) -> Option<usize> {
    let mut words = line.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next()?.parse().ok()?;
    (period > 0).then(|| (quota / period) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_quota_as_the_kernel_writes_it() {
        assert_eq!(quota_cores("max 100000\n"), None);
        assert_eq!(quota_cores("150000 100000\n"), Some(1));
        assert_eq!(quota_cores("400000 100000"), Some(4));
        assert_eq!(quota_cores("nonsense"), None);
        assert!(usable() >= 1);
    }
}
