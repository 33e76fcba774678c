//! A simulated file system in memory with the faults of real ones: it crashes in any modifying
//! operation, loses writes that were not synced, tears writes, fails an fsync and fills up. Tests
//! inject the faults; a seed determines their outcome.

use crate::env::random::SplitMix;
use crate::env::storage::{Storage, StorageLock};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A fault, injected once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops; modifying operations fail until [`SimStorage::recover`].
    Crash,
    /// The next fsync fails and makes nothing durable. A repetition succeeds, but makes nothing
    /// durable either, until the file is written again from its start or [`SimStorage::recover`] is
    /// called.
    FailSync,
    /// The disk is full: writes fail after a random part until [`SimStorage::recover`].
    Full,
}

/// A deliberate bug, to test that the simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Syncs of files whose path contains this text do nothing.
    SkippedSync(&'static str),
    /// Writes in the wrong order: a file whose path contains the first text becomes durable only
    /// after a file whose path contains the second.
    DelayedSync(&'static str, &'static str),
}

#[derive(Debug, Default)]
struct Content {
    /// The content that a running program reads.
    live: Vec<u8>,
    /// The content at the last sync.
    durable: Vec<u8>,
}

/// A change of directory entries that no folder sync has made durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Unlink(PathBuf),
}

impl Change {
    fn touches(&self, test: impl Fn(&Path) -> bool) -> bool {
        match self {
            Self::Link(path, _) | Self::Unlink(path) => test(path),
            Self::Rename(_, to, _) => test(to),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, content) => drop(names.insert(path, content)),
            Self::Rename(from, to, content) => {
                if names.get(&from) == Some(&content) {
                    names.remove(&from);
                }
                names.insert(to, content);
            }
            Self::Unlink(path) => drop(names.remove(&path)),
        }
    }
}

#[derive(Debug)]
struct State {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<Change>,
    locks: BTreeSet<PathBuf>,
    dice: SplitMix,
    operations: u64,
    fault: Option<(u64, Fault)>,
    down: bool,
    full: bool,
    planted: Option<PlantedBug>,
    /// Syncs delayed by [`PlantedBug::DelayedSync`].
    late: Vec<PathBuf>,
    /// Files and folders of which a sync failed. As on Linux, a later sync succeeds without making
    /// the same bytes durable.
    unsyncable: BTreeSet<PathBuf>,
}

/// The simulated file system. Clones share it.
#[derive(Clone, Debug)]
pub struct SimStorage(Arc<Mutex<State>>);

struct SimLock(SimStorage, PathBuf);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.state().locks.remove(&self.1);
    }
}

fn down() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

fn contains(path: &Path, part: &str) -> bool {
    path.to_string_lossy().contains(part)
}

impl State {
    /// Counts a modifying operation. Returns the injected fault, if one is due; a crash and a full
    /// disk last. An error after a crash.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        if self.down {
            return Err(down());
        }
        self.operations += 1;
        let struck = self.fault.filter(|(at, _)| self.operations > *at).map(|(_, fault)| fault);
        match struck {
            Some(Fault::Crash) => self.down = true,
            Some(Fault::Full) => self.full = true,
            Some(Fault::FailSync) | None => {}
        }
        Ok(struck)
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Changes a directory entry, which the next folder sync makes durable.
    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.names);
        self.pending.push(change);
    }

    fn put(&mut self, path: &Path, empty: bool, bytes: &[u8]) -> io::Result<()> {
        let struck = self.operation()?;
        let content = match self.find(path) {
            Ok(content) => content,
            Err(_) => {
                self.contents.push(Content::default());
                let content = self.contents.len() - 1;
                self.change(Change::Link(path.to_path_buf(), content));
                content
            }
        };
        let cut = if struck == Some(Fault::Crash) || self.full {
            self.dice.below(bytes.len() as u64 + 1) as usize
        } else {
            bytes.len()
        };
        let live = &mut self.contents[content].live;
        if empty {
            live.clear();
            // All of the file is written again.
            self.unsyncable.remove(path);
        }
        live.extend_from_slice(&bytes[..cut]);
        match (self.down, self.full) {
            (true, _) => Err(down()),
            (_, true) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            _ => Ok(()),
        }
    }

    /// Makes a file's content, or the names in a folder, durable.
    fn make_durable(&mut self, path: &Path) {
        if self.unsyncable.contains(path) {
            return;
        }
        if let Ok(content) = self.find(path) {
            let content = &mut self.contents[content];
            content.durable.clone_from(&content.live);
            return;
        }
        let (done, left) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| change.touches(|touched| touched.parent() == Some(path)));
        self.pending = left;
        let done: Vec<Change> = done;
        for change in done {
            change.apply(&mut self.durable_names);
        }
    }

    fn sync_any(&mut self, path: &Path) -> io::Result<()> {
        match self.operation()? {
            Some(Fault::Crash) => {
                if self.dice.below(2) == 0 {
                    self.make_durable(path);
                }
                return Err(down());
            }
            Some(Fault::FailSync) => {
                self.fault = None;
                self.unsyncable.insert(path.to_path_buf());
                // Nothing becomes durable. On Linux a failed fsync marks the pages as clean, so a
                // retry must not be relied on.
                return Err(io::Error::other("simulated: fsync failed"));
            }
            Some(Fault::Full) | None => {}
        }
        match self.planted {
            Some(PlantedBug::SkippedSync(part)) if contains(path, part) => return Ok(()),
            Some(PlantedBug::DelayedSync(part, _)) if contains(path, part) => {
                self.late.push(path.to_path_buf());
                return Ok(());
            }
            _ => {}
        }
        self.make_durable(path);
        if let Some(PlantedBug::DelayedSync(_, after)) = self.planted
            && contains(path, after)
            && !crate::env::storage::is_temporary(path)
        {
            for path in std::mem::take(&mut self.late) {
                // The delayed file may have been renamed from its temporary to its final name.
                self.make_durable(&path);
                self.make_durable(&path.with_extension(""));
            }
        }
        Ok(())
    }
}

impl SimStorage {
    /// Creates an empty file system. `seed` determines the outcome of faults.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            contents: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            locks: BTreeSet::new(),
            dice: SplitMix(seed),
            operations: 0,
            fault: None,
            down: false,
            full: false,
            planted: None,
            late: Vec::new(),
            unsyncable: BTreeSet::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Injects a fault at the first operation that it applies to after `operations` more
    /// operations.
    pub fn fault_after(&self, operations: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + operations, fault));
    }

    /// Plants a bug, in place of a bug planted before.
    pub fn plant(&self, bug: PlantedBug) {
        self.state().planted = Some(bug);
    }

    /// Number of modifying operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Simulates a power failure: the seed decides whether unsynced data is kept, torn or lost, and
    /// which unsynced changes of names survive. Locks are released.
    pub fn power_failure(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut names = std::mem::take(&mut state.durable_names);
        for change in std::mem::take(&mut state.pending) {
            if state.dice.below(2) == 0 {
                change.apply(&mut names);
            }
        }
        for content in &mut state.contents {
            if content.live == content.durable {
                continue;
            }
            match state.dice.below(4) {
                0 => {}
                1 => content.durable.clone_from(&content.live),
                // A torn write: only a prefix was written.
                2 => {
                    let cut = state.dice.below(content.live.len() as u64 + 1) as usize;
                    content.durable = content.live[..cut].to_vec();
                }
                // A torn write: the size is right, but a range is zeros.
                _ => {
                    content.durable.clone_from(&content.live);
                    let length = content.live.len() as u64;
                    let (from, to) = (state.dice.below(length + 1), state.dice.below(length + 1));
                    content.durable[from.min(to) as usize..from.max(to) as usize].fill(0);
                }
            }
            content.live.clone_from(&content.durable);
        }
        state.names.clone_from(&names);
        state.durable_names = names;
        state.late.clear();
        state.locks.clear();
    }

    /// Restarts the machine: clears the fault and frees disk space.
    pub fn recover(&self) {
        let mut state = self.state();
        (state.fault, state.down, state.full) = (None, false, false);
        state.unsyncable.clear();
    }

    /// Changes a file's content, live and durable, for tests of damage. An error if the file does
    /// not exist.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.state();
        let content = state.find(path)?;
        let content = &mut state.contents[content];
        change(&mut content.live);
        content.durable.clone_from(&content.live);
        Ok(())
    }

    /// The paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }
}

impl Storage for SimStorage {
    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        // Folders exist implicitly, as parts of the paths of files.
        if self.state().down { Err(down()) } else { Ok(()) }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.state().put(path, true, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.state().put(path, false, bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path)?;
        state.sync_any(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let content = state.find(from)?;
        let struck = state.operation()?;
        if struck != Some(Fault::Crash) || state.dice.below(2) == 0 {
            state.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), content));
        }
        if state.down { Err(down()) } else { Ok(()) }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.state().sync_any(folder)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.contents[state.find(path)?].live.clone())
    }

    fn append_range(
        &self,
        path: &Path,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let state = self.state();
        let live = &state.contents[state.find(path)?].live;
        let range = (offset as usize).min(live.len())..offset as usize + length;
        out.extend_from_slice(live.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.contents[state.find(path)?].live.len() as u64)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        Ok(state.names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path)?;
        let struck = state.operation()?;
        if struck != Some(Fault::Crash) || state.dice.below(2) == 0 {
            state.change(Change::Unlink(path.to_path_buf()));
        }
        if state.down { Err(down()) } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<StorageLock>> {
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        let free = state.locks.insert(path.to_path_buf());
        drop(state);
        Ok(free.then(|| Box::new(SimLock(self.clone(), path.to_path_buf())) as StorageLock))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_crash_in_a_durable_write_leaves_the_old_content_or_the_new() {
        let path = Path::new("/sim/x");
        let mut seen = BTreeSet::new();
        for seed in 0..256 {
            let storage = SimStorage::new(seed);
            storage.write_durable(path, b"old").unwrap();
            storage.fault_after(seed % 4, Fault::Crash);
            assert!(storage.write_durable(path, b"new").is_err(), "seed {seed}");
            assert!(storage.write_durable(path, b"later").is_err(), "it stays down");
            storage.power_failure();
            storage.recover();
            seen.insert(storage.read(path).unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [b"new".to_vec(), b"old".to_vec()]);
    }

    /// A test of the simulation: without fsync, a power failure leaves torn files.
    #[test]
    fn a_skipped_sync_shows_as_torn_files() {
        let path = Path::new("/sim/x");
        let torn = (0..64).filter(|seed| {
            let storage = SimStorage::new(*seed);
            storage.plant(PlantedBug::SkippedSync("x.tmp"));
            storage.write_durable(path, b"content").unwrap();
            storage.power_failure();
            storage.read(path).unwrap() != b"content"
        });
        assert!(torn.count() > 16);
    }

    #[test]
    fn a_failed_sync_and_a_full_disk_are_errors() {
        let storage = SimStorage::new(1);
        storage.fault_after(0, Fault::FailSync);
        assert!(storage.write_durable(Path::new("/a"), b"1").is_err());
        storage.fault_after(0, Fault::Full);
        let error = storage.write_durable(Path::new("/b"), b"1").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
