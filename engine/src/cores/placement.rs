//! Chooses the cores to which the workers of a query are pinned.
//!
//! A pinned worker holds its core. The queries of a process share a registry of held cores.
//! Processes of a machine see each other's cores through advisory locks on files, which the system
//! releases however a process ends. Without access to a common lock folder, as in containers with
//! separate folders, each process sees its own cores only.
//!
//! Free cores are chosen in this order: cores whose hyper-thread siblings are free too, cores of
//! the NUMA node of the query's other workers (of its first worker: the node with the most free
//! cores), the smallest number. A worker without a free core, or beyond the CPU quota, is not
//! pinned, and the scheduler places it. If the user has listed cores, the quota does not count, and
//! a worker without a free core shares one of the listed ones instead.

use super::machine::{Cpu, Machine, show_list};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum attempts to enter the critical section in which a process places its workers.
const ENTRY_ATTEMPTS: usize = 1000;

/// Maximum number of bytes of a lock file that are read or written.
const NOTE_BYTES: u64 = 512;

/// A core held by workers of this process.
#[derive(Debug, Default)]
struct HeldCore {
    /// The name of the query of each worker on the core.
    queries: Vec<String>,
    /// Shows other processes that the core is taken; `None` if the lock could not be taken.
    lock: Option<File>,
}

impl HeldCore {
    /// Writes the holder of the core into the lock file. The text is for users only, so errors are
    /// ignored.
    fn write_note(&mut self) {
        if let Some(file) = &mut self.lock {
            let mut queries = self.queries.clone();
            queries.dedup();
            let note = format!("{}\n{}\n", std::process::id(), queries.join(", "));
            let note = &note.as_bytes()[..note.len().min(NOTE_BYTES as usize)];
            drop(file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note)));
        }
    }
}

/// The holder of a core, as read from its lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The core.
    pub core: usize,
    /// The process, if the file names it.
    pub process: Option<u32>,
    /// Names of queries, as written by the process.
    pub queries: String,
}

/// Finds which of the given cores are held by processes of this machine, including this one, as far
/// as the lock files tell.
pub(super) fn holders(folder: &Path, cores: impl Iterator<Item = usize>) -> Vec<Holder> {
    let locks = Locks::enter(folder, cores);
    locks.foreign.iter().map(|core| holder(folder, *core)).collect()
}

fn holder(folder: &Path, core: usize) -> Holder {
    let mut note = Vec::new();
    if let Ok(file) = File::open(lock_path(folder, &core.to_string())) {
        drop(file.take(NOTE_BYTES).read_to_end(&mut note));
    }
    // Any user may have written this file, so the content may be arbitrary bytes.
    let note = String::from_utf8_lossy(&note);
    let mut lines = note.lines().map(|line| line.replace(char::is_control, "?"));
    let process = lines.next().and_then(|line| line.parse().ok());
    Holder { core, process, queries: lines.next().unwrap_or_default() }
}

/// The cores that this process holds.
#[derive(Debug, Default)]
pub(super) struct Registry {
    held: BTreeMap<usize, HeldCore>,
    /// Whether the notice about an unpinned query has been shown.
    notice_shown: bool,
}

/// The registry to which claims return their cores.
pub(super) type Shared = Arc<Mutex<Registry>>;

/// The cores of a query's workers, held until the claim is dropped.
#[derive(Debug)]
pub struct Claim {
    /// For each worker, the core that it is pinned to.
    cores: Vec<Option<usize>>,
    notice: Option<String>,
    query: String,
    registry: Shared,
}

impl Claim {
    /// Assigns the workers to cores of a machine, or to the cores of a list.
    pub(super) fn new(
        registry: &Shared,
        machine: &Machine,
        (query, workers): (&str, usize),
        list: Option<&[usize]>,
    ) -> Self {
        let mut inner = registry.lock().unwrap_or_else(PoisonError::into_inner);
        let (cores, notice) = inner.place(machine, (query, workers), list);
        Self { cores, notice, query: query.to_string(), registry: registry.clone() }
    }

    /// A claim for a query whose workers are not pinned.
    pub(super) fn none() -> Self {
        let (query, registry) = (String::new(), Shared::default());
        Self { cores: Vec::new(), notice: None, query, registry }
    }

    /// The core of a worker, if it is pinned.
    pub fn core(&self, worker: usize) -> Option<usize> {
        self.cores.get(worker).copied().flatten()
    }

    /// A notice for the user: workers share a core, or are not pinned. The second notice is given
    /// once per process.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }
}

/// The cores that a registry holds.
pub(super) fn held(registry: &Shared) -> Vec<usize> {
    registry.lock().unwrap_or_else(PoisonError::into_inner).held.keys().copied().collect()
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.cores.iter().flatten().for_each(|id| registry.release(*id, &self.query));
    }
}

/// The locks of a machine's cores.
struct Locks<'m> {
    folder: &'m Path,
    /// The lock of the critical section. Checking a core locks it for a moment. Without the
    /// critical section another process could mistake such a check for a held core.
    _entry: Option<File>,
    /// Cores that other processes hold.
    foreign: BTreeSet<usize>,
}

impl<'m> Locks<'m> {
    /// Enters the critical section and finds which of the cores other processes hold. After
    /// [`ENTRY_ATTEMPTS`] failed attempts it continues without the lock. Cores outside the user's
    /// list are checked too, because a busy hyper-thread sibling affects the choice.
    fn enter(folder: &'m Path, cores: impl Iterator<Item = usize>) -> Self {
        open_folder(folder);
        let entry = open_lock(folder, "placement");
        let has_entered = |file: &File| {
            (0..ENTRY_ATTEMPTS).any(|_| match file.try_lock() {
                Ok(()) => true,
                Err(_) => {
                    std::thread::yield_now();
                    false
                }
            })
        };
        let mut locks =
            Self { folder, _entry: entry.filter(has_entered), foreign: BTreeSet::new() };
        cores.for_each(|id| drop(locks.take(id)));
        locks
    }

    /// Locks a core. `Ok(None)` if its lock file cannot be opened or locked: the core then counts
    /// as free. An error if another process holds the core.
    fn take(&mut self, id: usize) -> Result<Option<File>, ()> {
        let Some(file) = open_lock(self.folder, &id.to_string()) else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                self.foreign.insert(id);
                Err(())
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }
}

/// Creates the lock folder, which all users of the machine may use.
fn open_folder(folder: &Path) {
    if std::fs::create_dir(folder).is_ok() {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            drop(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o1777)));
        }
    }
}

fn lock_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("core-{name}"))
}

fn open_lock(folder: &Path, name: &str) -> Option<File> {
    let path = lock_path(folder, name);
    // Symbolic links that another user may have placed here are not followed.
    if path.is_symlink() || folder.is_symlink() {
        return None;
    }
    let made = File::options().create_new(true).write(true).open(&path);
    match made {
        Ok(file) => {
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                drop(file.set_permissions(std::fs::Permissions::from_mode(0o666)));
            }
            Some(file)
        }
        // Without write permission the file is still locked, but it does not name its holder.
        Err(_) => File::options().write(true).open(&path).or_else(|_| File::open(&path)).ok(),
    }
}

impl Registry {
    fn place(
        &mut self,
        machine: &Machine,
        (query, workers): (&str, usize),
        list: Option<&[usize]>,
    ) -> (Vec<Option<usize>>, Option<String>) {
        let is_listed = |cpu: &&Cpu| list.is_none_or(|list| list.contains(&cpu.id));
        let candidates: Vec<Cpu> = machine.cpus.iter().filter(is_listed).copied().collect();
        let others = machine.cpus.iter().map(|cpu| cpu.id).filter(|id| !self.held.contains_key(id));
        let mut locks = Locks::enter(&machine.locks, others);
        let (mut cores, mut node) = (Vec::new(), None);
        let (mut shared, mut floating) = (BTreeSet::new(), 0);
        for _ in 0..workers {
            let has_quota = list.is_some() || self.held.len() < machine.usable;
            let free = match has_quota {
                true => self.take_free(&machine.cpus, &candidates, &mut locks, node),
                false => None,
            };
            let chosen = free.or_else(|| {
                // If no listed core is free, workers share the listed core that has the fewest
                // workers.
                let workers_on = |cpu: &&Cpu| self.held.get(&cpu.id).map_or(0, |h| h.queries.len());
                list.and(candidates.iter().min_by_key(workers_on)).copied().inspect(|cpu| {
                    shared.insert(cpu.id);
                })
            });
            let Some(cpu) = chosen else {
                floating += 1;
                cores.push(None);
                continue;
            };
            node.get_or_insert(cpu.node);
            let held = self.held.entry(cpu.id).or_default();
            held.queries.push(query.to_string());
            held.write_note();
            cores.push(Some(cpu.id));
        }
        let notice = self.notice(&locks.foreign, &shared, floating, workers);
        (cores, notice)
    }

    /// Takes the best of the free candidates, in the order that the module describes. A core that
    /// another process has reserved meanwhile is passed over. `None` if none is free.
    fn take_free(
        &mut self,
        all: &[Cpu],
        candidates: &[Cpu],
        locks: &mut Locks<'_>,
        node: Option<usize>,
    ) -> Option<Cpu> {
        loop {
            let is_held = |id: usize| self.held.contains_key(&id) || locks.foreign.contains(&id);
            let busy_siblings = |cpu: &Cpu| {
                all.iter().filter(|c| c.physical == cpu.physical && is_held(c.id)).count()
            };
            let of_node = |node: usize| {
                candidates.iter().filter(|c| c.node == node && !is_held(c.id)).count()
            };
            // If the query has no node yet, the node with the most free cores is chosen.
            let node = node.or_else(|| {
                let nodes = candidates.iter().map(|c| c.node);
                nodes.max_by_key(|node| (of_node(*node), std::cmp::Reverse(*node)))
            });
            let rank = |cpu: &&Cpu| (busy_siblings(cpu), Some(cpu.node) != node, cpu.id);
            let best = *candidates.iter().filter(|c| !is_held(c.id)).min_by_key(rank)?;
            if let Ok(lock) = locks.take(best.id) {
                self.held.insert(best.id, HeldCore { queries: Vec::new(), lock });
                return Some(best);
            }
        }
    }

    fn notice(
        &mut self,
        foreign: &BTreeSet<usize>,
        shared: &BTreeSet<usize>,
        floating: usize,
        workers: usize,
    ) -> Option<String> {
        if !shared.is_empty() {
            let shared = show_list(shared.iter().copied());
            return Some(format!(
                "pinned workers share the cores {shared}: each waits while another one runs. \
                List more cores, or use fewer workers"
            ));
        }
        if floating == 0 || std::mem::replace(&mut self.notice_shown, true) {
            return None;
        }
        let own = show_list(self.held.keys().copied());
        let mut held = format!("this process holds {}", if own.is_empty() { "none" } else { &own });
        if !foreign.is_empty() {
            let foreign = show_list(foreign.iter().copied());
            held.push_str(&format!(", other Millstream processes hold {foreign}"));
        }
        Some(format!(
            "{floating} of {workers} workers are not pinned, because no core is free ({held}): \
             the system may schedule them on any core. An explicit list of cores pins them in any \
             case"
        ))
    }

    fn release(&mut self, id: usize, query: &str) {
        let Some(held) = self.held.get_mut(&id) else { return };
        if let Some(at) = held.queries.iter().position(|other| other == query) {
            held.queries.remove(at);
        }
        match held.queries.is_empty() {
            true => drop(self.held.remove(&id)),
            false => held.write_note(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::Root;
    use super::*;

    fn cores(claim: &Claim) -> Vec<Option<usize>> {
        claim.cores.clone()
    }

    #[test]
    fn queries_of_a_process_get_cores_of_their_own_until_none_is_free() {
        let root = Root::new("four", &[]);
        let (machine, registry) = (root.machine(&[0, 1, 2, 3]), Shared::default());
        let claim = |workers| Claim::new(&registry, &machine, ("q", workers), None);
        let (first, second, third) = (claim(1), claim(2), claim(1));
        assert_eq!(cores(&first), [Some(0)]);
        assert_eq!(cores(&second), [Some(1), Some(2)]);
        assert_eq!(cores(&third), [Some(3)]);
        assert!([&first, &second, &third].iter().all(|claim| claim.notice().is_none()));
        let fourth = claim(1);
        assert_eq!(cores(&fourth), [None]);
        assert!(fourth.notice().unwrap().contains("this process holds 0-3"));
        assert!(claim(1).notice().is_none(), "once is enough");
        drop(second);
        assert_eq!(cores(&claim(3)), [Some(1), Some(2), None]);
    }

    #[test]
    fn processes_see_each_others_cores() {
        let root = Root::new("two-processes", &[]);
        let machine = root.machine(&[0, 1, 2]);
        let (one, other) = (Shared::default(), Shared::default());
        let first = Claim::new(&one, &machine, ("q", 2), None);
        let second = Claim::new(&other, &machine, ("q", 2), None);
        assert_eq!((cores(&first), cores(&second)), (vec![Some(0), Some(1)], vec![Some(2), None]));
        let notice = second.notice().unwrap();
        assert!(notice.contains("other Millstream processes hold 0-1"), "{notice}");
        // When a process ends, closing its files releases its locks.
        drop(first);
        assert_eq!(cores(&Claim::new(&other, &machine, ("q", 1), None)), [Some(0)]);
    }

    #[test]
    fn reserved_cores_name_the_queries_that_reserved_them() {
        let root = Root::new("holders", &[]);
        let machine = root.machine(&[0, 1, 2, 3]);
        let (one, other) = (Shared::default(), Shared::default());
        let first = Claim::new(&one, &machine, ("words", 2), None);
        let second = Claim::new(&other, &machine, ("lines\u{1b}[2J", 1), Some(&[2]));
        let held = |core: usize, queries: &str| Holder {
            core,
            process: Some(std::process::id()),
            queries: queries.to_string(),
        };
        let holders = || holders(&machine.locks, 0..4);
        assert_eq!(holders(), [held(0, "words"), held(1, "words"), held(2, "lines?[2J")]);
        // A list can make two queries share a core.
        let third = Claim::new(&one, &machine, ("pairs", 1), Some(&[1]));
        assert_eq!(holders()[1], held(1, "words, pairs"));
        drop(first);
        assert_eq!(holders(), [held(1, "pairs"), held(2, "lines?[2J")]);
        drop((second, third));
        assert_eq!(holders(), []);
        // Any user may write a lock file, so invalid content is ignored.
        let _claim = Claim::new(&one, &machine, ("words", 1), None);
        std::fs::write(lock_path(&machine.locks, "0"), [0xff; 10_000]).unwrap();
        assert!(holders()[0].process.is_none() && holders()[0].queries.is_empty());
    }

    #[test]
    fn siblings_stay_free_as_long_as_there_are_whole_cores() {
        let root = Root::with_siblings("siblings", 8, 8);
        let (machine, registry) = (root.machine(&[0, 1, 2, 3, 4, 5, 6, 7]), Shared::default());
        let claim = |workers| Claim::new(&registry, &machine, ("q", workers), None);
        let first = claim(3);
        assert_eq!(cores(&first), [Some(0), Some(1), Some(2)]);
        assert_eq!(cores(&claim(3)), [Some(3), Some(4), Some(5)]);
        drop(first);
        let mask = [1, 4, 5, 6];
        let machine = root.machine(&mask);
        let found = Claim::new(&registry, &machine, ("q", 3), None);
        assert_eq!(cores(&found), [Some(1), Some(4), Some(6)], "5 is a sibling of 1");
    }

    #[test]
    fn the_siblings_of_other_processes_cores_come_last() {
        let root = Root::with_siblings("foreign-siblings", 8, 8);
        let machine = root.machine(&[0, 1, 2, 3, 4, 5, 6, 7]);
        let _other = Claim::new(&Shared::default(), &machine, ("q", 1), Some(&[5]));
        let registry = Shared::default();
        let claim = |workers, list| Claim::new(&registry, &machine, ("q", workers), list);
        assert_eq!(cores(&claim(3, None)), [Some(0), Some(2), Some(3)], "5 is a sibling of 1");
        assert_eq!(cores(&claim(1, Some(&[1, 6][..]))), [Some(6)]);
    }

    #[test]
    fn the_workers_of_a_query_stay_in_a_node() {
        let root = Root::with_siblings("nodes", 8, 4);
        let (machine, registry) = (root.machine(&[0, 1, 2, 3, 4, 5, 6, 7]), Shared::default());
        let claim = |workers| Claim::new(&registry, &machine, ("q", workers), None);
        let first = claim(1);
        assert_eq!(cores(&first), [Some(0)]);
        // Node 1 has more free cores: cores 2 and 3 and their siblings.
        assert_eq!(cores(&claim(2)), [Some(2), Some(3)]);
    }

    #[test]
    fn a_quota_limits_the_pinned_workers_of_a_process() {
        let root = Root::new("limited", &[("sys/fs/cgroup/cpu.max", "200000 100000")]);
        let (machine, registry) = (root.machine(&[0, 1, 2, 3]), Shared::default());
        let claim = Claim::new(&registry, &machine, ("q", 3), None);
        assert_eq!(cores(&claim), [Some(0), Some(1), None]);
    }

    #[test]
    fn listed_cores_are_shared_with_a_warning() {
        let root = Root::new("listed", &[]);
        let (machine, registry) = (root.machine(&[0, 1, 2, 3]), Shared::default());
        let first = Claim::new(&registry, &machine, ("q", 1), Some(&[3]));
        assert_eq!((cores(&first), first.notice()), (vec![Some(3)], None));
        let second = Claim::new(&registry, &machine, ("q", 2), Some(&[2, 3]));
        assert_eq!(cores(&second), [Some(2), Some(2)]);
        assert!(second.notice().unwrap().contains("share the cores 2:"));
        drop(first);
        assert_eq!(cores(&Claim::new(&registry, &machine, ("q", 1), Some(&[2, 3]))), [Some(3)]);
        // A core held by two workers is free only when both have released it.
        drop(second);
        assert_eq!(cores(&Claim::new(&registry, &machine, ("q", 1), Some(&[2]))), [Some(2)]);
        assert!(held(&registry).is_empty());
    }

    #[test]
    fn without_a_lock_folder_a_process_counts_its_own() {
        let root = Root::new("no-locks", &[]);
        let mut machine = root.machine(&[0, 1]);
        machine.locks = root.0.join("not/there");
        let registry = Shared::default();
        let _first = Claim::new(&registry, &machine, ("q", 1), None);
        assert_eq!(cores(&Claim::new(&registry, &machine, ("q", 1), None)), [Some(1)]);
    }
}
