//! Whole files, written durably: the storage side of the determinism seam.
//!
//! A file is written whole or not at all: under a temporary name, fsync, rename, fsync of the
//! folder. A failed fsync is an error that must end the query; it is never tried again, since the
//! kernel may have dropped the pages it failed to write.
//!
//! *Limits.* No appends and no memory maps; those come with the logs that need them.

use crate::random::SplitMix;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Durable whole files.
pub trait Storage: Send + Sync {
    /// Puts a file in place of what was there. After an error either the old content or the new
    /// one is there, never a part.
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// A file's content.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The files of a folder, by name; what a crash left half-written is not among them.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Ends the name of a file that is not in place yet.
const TEMPORARY: &str = "tmp";

/// The file system.
#[derive(Debug, Default)]
pub struct FileStorage;

impl Storage for FileStorage {
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_added_extension(TEMPORARY);
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() && path.extension().is_none_or(|extension| extension != TEMPORARY) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// Files in memory, with a crash that a test can set.
#[derive(Debug)]
pub struct SimStorage {
    state: Mutex<SimState>,
}

#[derive(Debug)]
struct SimState {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Writes and removals until the crash.
    left: Option<u64>,
    dice: SplitMix,
}

impl SimStorage {
    /// Empty storage that never crashes.
    pub fn new(seed: u64) -> Self {
        let state = SimState { files: BTreeMap::new(), left: None, dice: SplitMix(seed) };
        Self { state: Mutex::new(state) }
    }

    /// The writes and removals after the next `operations` ones fail; the first of those may
    /// still take effect, as when power fails between the rename and the report.
    pub fn crash_after(&self, operations: u64) {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).left = Some(operations);
    }

    /// The machine is up again: what is durable is there, and operations succeed.
    pub fn recover(&self) {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).left = None;
    }

    fn change(&self, apply: impl FnOnce(&mut BTreeMap<PathBuf, Vec<u8>>)) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let crashed = || Err(io::Error::other("the simulated machine has crashed"));
        match state.left {
            None => apply(&mut state.files),
            Some(0) => {
                state.left = Some(u64::MAX);
                if state.dice.below(2) == 0 {
                    apply(&mut state.files);
                }
                return crashed();
            }
            Some(u64::MAX) => return crashed(),
            Some(left) => {
                state.left = Some(left - 1);
                apply(&mut state.files);
            }
        }
        Ok(())
    }
}

impl Storage for SimStorage {
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|files| drop(files.insert(path.to_path_buf(), bytes.to_vec())))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.files.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(state.files.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.read(path)?;
        self.change(|files| drop(files.remove(path)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::seam::{Env, RealEnv, SimEnv};

    /// Both worlds keep the same promises.
    fn keeps_promises(env: &dyn Env, folder: &Path) {
        let (storage, a, b) = (env.storage(), folder.join("a"), folder.join("b"));
        assert_eq!(storage.read(&a).unwrap_err().kind(), io::ErrorKind::NotFound);
        storage.write_durable(&b, b"2").unwrap();
        storage.write_durable(&a, b"1").unwrap();
        storage.write_durable(&a, b"new").unwrap();
        assert_eq!(storage.read(&a).unwrap(), b"new");
        assert_eq!(storage.list(folder).unwrap(), [a.clone(), b.clone()]);
        storage.remove(&b).unwrap();
        assert_eq!(storage.list(folder).unwrap(), [a]);
        assert_eq!(storage.remove(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_and_simulation_behave_alike() {
        keeps_promises(&SimEnv::new(1), Path::new("/sim"));
        let folder =
            std::env::temp_dir().join(format!("millstream-storage-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // What a crash left is not taken for a file.
        std::fs::write(folder.join("c.tmp"), b"half").unwrap();
        keeps_promises(&RealEnv::default(), &folder);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_crash_leaves_the_old_content_or_the_new_and_both_happen() {
        let (path, mut seen) = (Path::new("/sim/x"), std::collections::BTreeSet::new());
        for seed in 0..32 {
            let storage = SimStorage::new(seed);
            storage.write_durable(path, b"old").unwrap();
            storage.crash_after(0);
            assert!(storage.write_durable(path, b"new").is_err());
            assert!(storage.write_durable(path, b"later").is_err(), "it stays down");
            storage.recover();
            seen.insert(storage.read(path).unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [b"new".to_vec(), b"old".to_vec()]);
    }
}
