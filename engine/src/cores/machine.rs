//! The CPUs of a machine with their hyper-thread siblings and NUMA nodes, and the CPU quota of this
//! process.
//!
//! Topology and quota are read below a root folder, so that tests can provide a machine; the caller
//! passes the affinity mask. Where a file cannot be read or parsed, the simplest machine is
//! assumed: the CPU is on node 0 and has no siblings, and there is no quota.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A CPU. `id` is the system's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cpu {
    pub id: usize,
    /// The lowest-numbered CPU of its physical core, which hyper-thread siblings share.
    pub physical: usize,
    /// The NUMA node of the CPU.
    pub node: usize,
}

/// A machine as one process sees it.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// The CPUs of the affinity mask, in order.
    pub cpus: Vec<Cpu>,
    /// Number of cores that may be busy at once: the CPUs of the mask, capped by the quota; at
    /// least one.
    pub usable: usize,
    /// The folder of lock files by which processes see each other's cores.
    pub locks: PathBuf,
}

impl Machine {
    /// Reads the machine below a root folder (`/` except in tests), restricted to the CPUs of a
    /// mask.
    pub fn read(root: &Path, mask: &[usize], locks: PathBuf) -> Self {
        let nodes = nodes(root);
        let cpu = |id: &usize| Cpu {
            id: *id,
            physical: physical_core(root, *id),
            node: nodes.get(id).copied().unwrap_or(0),
        };
        let cpus: Vec<Cpu> = mask.iter().map(cpu).collect();
        let usable = quota(root).map_or(cpus.len(), |cores| cores.min(cpus.len())).max(1);
        Self { cpus, usable, locks }
    }
}

fn physical_core(root: &Path, id: usize) -> usize {
    let path = format!("sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list");
    let siblings = std::fs::read_to_string(root.join(path)).ok();
    siblings.and_then(|list| parse_list(list.trim()).ok()?.first().copied()).unwrap_or(id)
}

/// The NUMA node of each CPU. CPUs without a readable node are missing.
fn nodes(root: &Path) -> BTreeMap<usize, usize> {
    let mut nodes = BTreeMap::new();
    let folder = root.join("sys/devices/system/node");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        let Some(number) = number else { continue };
        let list = std::fs::read_to_string(entry.path().join("cpulist")).unwrap_or_default();
        for id in parse_list(list.trim()).unwrap_or_default() {
            nodes.insert(id, number);
        }
    }
    nodes
}

/// The CPU quota of this process in whole cores: the smallest of its cgroup and all cgroups above.
/// `None` if there is no quota.
pub(super) fn quota(root: &Path) -> Option<usize> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mount = root.join("sys/fs/cgroup");
    let mut least = quota_v2(&mount);
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = Path::new(path.trim_start_matches('/'));
        let of_cpu = controllers.split(',').any(|controller| controller == "cpu");
        // The limits of all enclosing groups apply. In a container the path may be the host's path,
        // which does not exist there. Then the root of the mount is the process's own group.
        for group in path.ancestors() {
            let found = match controllers {
                "" => quota_v2(&mount.join(group)),
                _ if of_cpu => [controllers, "cpu"]
                    .into_iter()
                    .find_map(|name| quota_v1(&mount.join(name).join(group))),
                _ => None,
            };
            least = [least, found].into_iter().flatten().min();
        }
    }
    least
}

fn quota_v2(group: &Path) -> Option<usize> {
    let line = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let mut words = line.split_whitespace();
    whole_cores(words.next()?, words.next()?)
}

fn quota_v1(group: &Path) -> Option<usize> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    whole_cores(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
}

/// The quota per period in whole cores, rounded down, at least 1. `None` if there is no quota
/// (`max` or -1) or if a text is not a number.
fn whole_cores(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| ((quota / period) as usize).max(1))
}

/// The largest CPU number that a list may contain.
const CPU_MAX: usize = 8191;

/// Parses a CPU list in the syntax of `taskset`: `0-3,6`, or with a step `0-6:2`. The result is
/// sorted, without duplicates. Fails for any other syntax, an empty part, a number above 8191, a
/// descending range and the step 0.
pub fn parse_list(text: &str) -> Result<Vec<usize>, String> {
    let number = |digits: &str| match digits.trim().parse::<usize>() {
        Ok(number) if number <= CPU_MAX => Ok(number),
        _ => Err(format!("'{digits}' is not the number of a core")),
    };
    let mut found = Vec::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once(':') {
            Some((range, step)) => (range, number(step)?),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        if first > last || step == 0 {
            return Err(format!("'{part}' is not a range of cores"));
        }
        found.extend((first..=last).step_by(step));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Formats ascending CPUs as a list: `0-3,6`.
pub(super) fn show_list(cpus: impl Iterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for id in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    let show = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A root folder for tests, removed when dropped.
    pub struct Root(pub PathBuf);

    impl Root {
        pub fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("millstream-{name}-{}", std::process::id()));
            drop(std::fs::remove_dir_all(&root));
            std::fs::create_dir_all(&root).unwrap();
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self(root)
        }

        /// A machine with two hyper-threads per core and `per_node` CPUs per NUMA node.
        pub fn with_siblings(name: &str, cpus: usize, per_node: usize) -> Self {
            let root = Self::new(name, &[]);
            for id in 0..cpus {
                let folder = format!("sys/devices/system/cpu/cpu{id}/topology");
                let first = id % (cpus / 2);
                root.put(
                    &folder,
                    "thread_siblings_list",
                    &format!("{first},{}\n", first + cpus / 2),
                );
            }
            for node in 0..cpus / per_node {
                let of_node = (0..cpus).filter(|id| id % (cpus / 2) * 2 / per_node == node);
                let list = show_list(of_node);
                root.put(&format!("sys/devices/system/node/node{node}"), "cpulist", &list);
            }
            root
        }

        pub fn put(&self, folder: &str, name: &str, text: &str) {
            std::fs::create_dir_all(self.0.join(folder)).unwrap();
            std::fs::write(self.0.join(folder).join(name), text).unwrap();
        }

        pub fn machine(&self, mask: &[usize]) -> Machine {
            Machine::read(&self.0, mask, self.0.join("locks"))
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn lists_are_those_of_taskset() {
        assert_eq!(parse_list("0-3,6"), Ok(vec![0, 1, 2, 3, 6]));
        assert_eq!(parse_list("6, 1-7:3,1"), Ok(vec![1, 4, 6, 7]));
        for wrong in ["", "a", "3-1", "0-4:0", "1,,2", "99999", "-1", "0-8191000000"] {
            assert!(parse_list(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_list([0, 1, 2, 3, 6].into_iter()), "0-3,6");
        assert_eq!(show_list([].into_iter()), "");
    }

    #[test]
    fn siblings_and_nodes_are_read() {
        let root = Root::with_siblings("topology", 8, 4);
        let machine = root.machine(&[0, 2, 4, 7]);
        let cpus: Vec<_> = machine.cpus.iter().map(|c| (c.id, c.physical, c.node)).collect();
        assert_eq!(cpus, [(0, 0, 0), (2, 2, 1), (4, 0, 0), (7, 3, 1)]);
        let bare = Root::new("bare", &[]);
        let cpus = bare.machine(&[0, 3]).cpus;
        assert_eq!(cpus[1], Cpu { id: 3, physical: 3, node: 0 });
    }

    #[test]
    fn the_smallest_quota_of_the_groups_counts() {
        let usable = |files: &[(&str, &str)]| {
            Root::new("quota", files).machine(&[0, 1, 2, 3, 4, 5, 6, 7]).usable
        };
        let in_group = ("proc/self/cgroup", "0::/app/worker\n");
        let worker = |text| ("sys/fs/cgroup/app/worker/cpu.max", text);
        let app = |text| ("sys/fs/cgroup/app/cpu.max", text);
        assert_eq!(usable(&[]), 8);
        assert_eq!(usable(&[in_group, worker("max 100000\n"), app("350000 100000\n")]), 3);
        assert_eq!(usable(&[in_group, worker("200000 100000\n"), app("350000 100000\n")]), 2);
        assert_eq!(usable(&[in_group, worker("50000 100000\n")]), 1, "at least one");
        // In a container, the path of the host's group does not exist. The mount's root is the
        // process's own group.
        assert_eq!(usable(&[in_group, ("sys/fs/cgroup/cpu.max", "400000 100000")]), 4);
        let v1 = ("proc/self/cgroup", "5:cpuset:/\n2:cpu,cpuacct:/box\n");
        let quota = |text| ("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", text);
        let period = ("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
        assert_eq!(usable(&[v1, quota("250000\n"), period]), 2);
        assert_eq!(usable(&[v1, quota("-1\n"), period]), 8);
        assert_eq!(usable(&[("sys/fs/cgroup/cpu.max", "nonsense")]), 8);
    }
}
