//! The cores that this process may use, and the assignment of workers to them.

mod cooperative_yield;
mod machine;
mod placement;

pub(crate) use cooperative_yield::{YieldBudget, yield_to_worker};
pub use machine::parse_list;
pub use placement::{Claim, Holder};

use crate::error::EngineError;
use machine::{Machine, quota, show_list};
use placement::Shared;
use std::path::Path;
use std::sync::OnceLock;

/// A core that a worker may be pinned to.
pub type Core = core_affinity::CoreId;

/// The cores of this process's affinity mask, in order. Empty if the system does not report it.
pub fn allowed() -> Vec<Core> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// Pins the calling thread to a core. Returns whether the system agreed.
pub fn pin(core: Core) -> bool {
    core_affinity::set_for_current(core)
}

/// Subfolder of the system's temporary folder with the lock files by which processes see each
/// other's cores.
const LOCKS: &str = "millstream-cores";

/// Number of cores that this process may use at once: the size of the affinity mask (without one,
/// what the standard library reports), capped by the quota of its cgroups (rounded down, at least
/// 1).
pub fn usable() -> usize {
    let allowed = allowed().len();
    let allowed = if allowed == 0 {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    } else {
        allowed
    };
    quota(Path::new("/")).map_or(allowed, |cores| cores.clamp(1, allowed))
}

/// Reserves cores for the workers of a query, from the affinity mask or from a list: cores to which
/// no other query is known to have pinned workers. If none is free, workers share a listed core, or
/// without a list are not pinned. The reservation ends when the claim is dropped. An error if the
/// list is empty or has cores outside the affinity mask.
pub fn claim(query: &str, workers: usize, list: Option<&[usize]>) -> Result<Claim, EngineError> {
    let mask: Vec<usize> = allowed().into_iter().map(|core| core.id).collect();
    if let Some(list) = list {
        check(list, &mask)?;
    }
    let machine = Machine::read(Path::new("/"), &mask, std::env::temp_dir().join(LOCKS));
    Ok(Claim::new(registry(), &machine, (query, workers), list))
}

/// The cores of this process's affinity mask that workers of any Millstream process of this machine
/// hold, and their holders.
pub fn holders() -> Vec<Holder> {
    let mask = allowed().into_iter().map(|core| core.id);
    placement::holders(&std::env::temp_dir().join(LOCKS), mask)
}

/// The registry of this process.
fn registry() -> &'static Shared {
    static REGISTRY: OnceLock<Shared> = OnceLock::new();
    REGISTRY.get_or_init(Shared::default)
}

/// The cores to which this process has pinned workers, in order.
pub fn held() -> Vec<usize> {
    placement::held(registry())
}

/// A claim for workers that are not pinned.
pub fn unpinned() -> Claim {
    Claim::none()
}

/// Returns an error if the list is empty or has cores outside `mask`.
fn check(list: &[usize], mask: &[usize]) -> Result<(), EngineError> {
    let others: Vec<usize> = list.iter().copied().filter(|id| !mask.contains(id)).collect();
    if others.is_empty() && !list.is_empty() {
        return Ok(());
    }
    let (others, mask) = (show_list(others.into_iter()), show_list(mask.iter().copied()));
    let reason = match others.is_empty() {
        true => "no core is listed".to_string(),
        false => format!("this process may not use the cores {others}"),
    };
    Err(EngineError::operator("CORES_NOT_ALLOWED", reason, format!("Choose cores of {mask}")))
}

/// Restricts the calling thread, and the threads that it starts afterwards, to some cores. An error
/// if the list is empty or has cores outside the affinity mask, or if the system refuses.
#[cfg(target_os = "linux")]
pub fn restrict_to(list: &[usize]) -> Result<(), EngineError> {
    use nix::sched::{CpuSet, sched_setaffinity};
    let mask: Vec<usize> = allowed().into_iter().map(|core| core.id).collect();
    check(list, &mask)?;
    let mut set = CpuSet::new();
    let set_all = list.iter().try_for_each(|id| set.set(*id));
    let done = set_all.and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    done.map_err(|error| EngineError::runtime("restrict the process to cores", error.into()))
}

/// Does nothing on systems other than Linux.
#[cfg(not(target_os = "linux"))]
pub fn restrict_to(_list: &[usize]) -> Result<(), EngineError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_that_the_process_may_not_use_are_refused() {
        assert!(usable() >= 1);
        assert!(check(&[1, 2], &[0, 1, 2, 3]).is_ok());
        for (list, reason) in [
            (&[2, 7, 8][..], "this process may not use the cores 7-8. Choose cores of 0-3"),
            (&[], "no core is listed. Choose cores of 0-3"),
        ] {
            let error = check(list, &[0, 1, 2, 3]).unwrap_err();
            assert_eq!(error.to_string(), format!("CORES_NOT_ALLOWED: {reason}"));
        }
    }
}
