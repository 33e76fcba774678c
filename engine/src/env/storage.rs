//! Storage: the file operations of the environment.
//!
//! The operations are small, so that the simulated storage can crash, tear and lose writes between
//! any two steps. Logs and state are written under a temporary name, then fsync, rename, fsync of
//! the folder ([`Storage::write_durable`]). A failed fsync must end the query and is never retried,
//! because the kernel may have dropped the pages.
//!
//! *Limits.* Memory maps bypass the storage: see `capture`.

use crate::cores::yield_to_worker;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Maximum number of bytes written by one system call.
const PIECE_BYTES: usize = 64 << 10;

/// A file lock, released when it is dropped or its process ends.
pub type StorageLock = Box<dyn Send + Sync>;

/// The file operations of the runtime.
pub trait Storage: Send + Sync {
    /// Creates a folder and its parents, durably. The folder may exist.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Creates or truncates a file and writes it. Not durable.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Appends to a file, which is created if it is missing. Not durable.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's content durable, but not its name.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing an existing one. Not durable.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Reads a file's content.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Appends a range of a file's content to a buffer. On failure the buffer is unchanged.
    fn append_range(
        &self,
        path: &Path,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()>;
    /// Returns a file's size in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// The paths of the files in a folder, including half-written ones ([`is_temporary`]).
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Removes a file. Not durable: a crash may bring it back.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, which is created if it is missing. `None` if the lock is held already, by this
    /// process or another one.
    fn lock(&self, path: &Path) -> io::Result<Option<StorageLock>>;

    /// Reads a range of a file's content.
    fn read_range(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append_range(path, offset, length, &mut bytes)?;
        Ok(bytes)
    }

    /// Replaces a file atomically and durably. After an error or a crash the file has either the
    /// old content or the new one, never a part.
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = temporary(path);
        self.write(&temporary, bytes)?;
        self.put_in_place(&temporary, path)
    }

    /// The second half of [`write_durable`](Self::write_durable), for a file that was written in
    /// pieces under its [`temporary`] name.
    fn put_in_place(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        self.sync(temporary)?;
        self.rename(temporary, path)?;
        self.sync_folder(path.parent().unwrap_or(Path::new("")))
    }
}

/// The temporary name of a file that is being written.
pub fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension("tmp")
}

/// Whether a file has a temporary name: it is being written, or a crash has left it half-written.
pub fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

/// The real file system.
#[derive(Debug, Default)]
pub struct FileStorage;

/// The path of a folder. An empty path is the current folder.
fn folder_path(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Maximum number of folders whose names are known to be durable. Beyond that one is forgotten for
/// each new one.
const SYNCED_MAX: usize = 4096;

/// Folders whose names are durable. No lock is held while the disk works.
type Synced = Mutex<BTreeSet<PathBuf>>;

fn locked(synced: &Synced) -> MutexGuard<'_, BTreeSet<PathBuf>> {
    synced.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Creates a folder and its parents, unless they exist. The name of the folder and of each created
/// parent is durable then. `synced` has the folders whose names are durable already, and `sync` makes
/// the names in a folder durable.
fn create_folder(
    folder: &Path,
    synced: &Synced,
    sync: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let folder = folder_path(folder);
    let exists = folder.is_dir();
    if exists && locked(synced).contains(folder) {
        return Ok(());
    }
    let above = folder.parent().map(folder_path);
    if !exists {
        above.map_or(Ok(()), |above| create_folder(above, synced, sync))?;
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            created => created?,
        }
    }
    match above.map_or(Ok(()), sync) {
        // The parent cannot be opened for reading, so it cannot be synced. The folder is there
        // already, and this is not worth a failure.
        Err(error) if exists && error.kind() == io::ErrorKind::PermissionDenied => {}
        done => done?,
    }
    let mut synced = locked(synced);
    if synced.len() >= SYNCED_MAX {
        synced.pop_first();
    }
    synced.insert(folder.to_path_buf());
    Ok(())
}

/// Writes in pieces and yields between them, because a worker on this core must not wait for
/// megabytes.
fn write_all(mut file: File, bytes: &[u8]) -> io::Result<()> {
    for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        if i > 0 {
            yield_to_worker();
        }
        file.write_all(piece)?;
    }
    Ok(())
}

impl Storage for FileStorage {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        // An earlier run may have ended between the creation of a folder and the sync of its name.
        // Once per process that is made up for, because a sync of an unchanged folder costs time.
        static SYNCED: Synced = Mutex::new(BTreeSet::new());
        create_folder(folder, &SYNCED, &mut |folder| self.sync_folder(folder))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        write_all(File::create(path)?, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        write_all(OpenOptions::new().create(true).append(true).open(path)?, bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder_path(folder))?.sync_all()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn append_range(
        &self,
        path: &Path,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let from = out.len();
        out.resize(from + length, 0);
        file.read_exact(&mut out[from..]).inspect_err(|_| out.truncate(from))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        std::fs::metadata(path).map(|metadata| metadata.len())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder_path(folder))? {
            let path = entry?.path();
            if path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<StorageLock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::env::{Env, RealEnv, SimEnv};

    /// Checks the contract of [`Storage`], for the real and the simulated environment.
    fn keeps_promises(env: &dyn Env, folder: &Path) {
        let (storage, a, b) = (env.storage(), folder.join("a"), folder.join("b"));
        storage.create_folder(folder).unwrap();
        storage.create_folder(folder).unwrap();
        assert_eq!(storage.read(&a).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(storage.sync(&a).unwrap_err().kind(), io::ErrorKind::NotFound);
        storage.write_durable(&b, b"2").unwrap();
        storage.write_durable(&a, b"1").unwrap();
        storage.write_durable(&a, b"new").unwrap();
        storage.append(&a, b"er").unwrap();
        assert_eq!(storage.read(&a).unwrap(), b"newer");
        assert_eq!(storage.read_range(&a, 1, 3).unwrap(), b"ewe");
        assert_eq!(storage.read_range(&a, 4, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(storage.size(&a).unwrap(), 5);
        assert_eq!(storage.list(folder).unwrap(), [a.clone(), b.clone()]);
        storage.remove(&b).unwrap();
        assert_eq!(storage.list(folder).unwrap(), [a]);
        assert_eq!(storage.remove(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
        let held = storage.lock(&b).unwrap();
        assert!(held.is_some() && storage.lock(&b).unwrap().is_none(), "one at a time");
        drop(held);
        assert!(storage.lock(&b).unwrap().is_some(), "free again");
    }

    /// A crash came between the creation of the folder and the sync of its name.
    #[test]
    fn the_name_of_a_folder_that_exists_is_synced_once() {
        let scratch = format!("millstream-folder-{}", std::process::id());
        let above = std::env::temp_dir().join(scratch);
        let folder = above.join("a/b");
        std::fs::create_dir_all(&folder).unwrap();
        let (known, mut synced) = (Synced::default(), Vec::new());
        let create = |folder: &Path, synced: &mut Vec<PathBuf>| {
            let mut sync = |folder: &Path| {
                synced.push(folder.to_path_buf());
                assert!(known.try_lock().is_ok(), "others need not wait for the disk");
                Ok(())
            };
            create_folder(folder, &known, &mut sync).unwrap();
        };
        create(&folder, &mut synced);
        create(&folder, &mut synced);
        assert_eq!(synced, [above.join("a")]);
        create(&folder.join("c/d"), &mut synced);
        assert_eq!(synced[1..], [folder.clone(), folder.join("c")]);
        assert!(folder.join("c/d").is_dir());
        std::fs::remove_dir_all(&folder).unwrap();
        create(&folder, &mut synced);
        assert_eq!(synced[3..], [above.clone(), above.join("a")], "it was created again");
        std::fs::remove_dir_all(&above).unwrap();
    }

    #[test]
    fn files_and_simulation_behave_alike() {
        keeps_promises(&SimEnv::new(1), Path::new("/sim"));
        let folder =
            std::env::temp_dir().join(format!("millstream-storage-{}", std::process::id()));
        keeps_promises(&RealEnv::default(), &folder.join("x/y"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
