//! A log of files with one entry per batch, in Spark's layout: `N` contains a line `v1` and a JSON
//! object per file. Every 10th entry, `N.compact`, also contains the lines of earlier entries that
//! are still needed.
//!
//! There are two such logs: the commit log of a file sink, `_spark_metadata`, and a file source's
//! list of seen files. Only Millstream reads the source's log, whose entries end with a CRC, like
//! other checkpoint files. The CRC of a sink's entry is in `.N.crc`, where Hadoop's local file
//! system expects it.

use millstream_engine::checkpoint::log_entry;
use millstream_engine::env::storage::{Storage, is_temporary};
use millstream_engine::error::EngineError;
use std::path::{Path, PathBuf};

/// Number of entries from one compacted entry to the next.
const COMPACT_EVERY: u64 = 10;
/// Bytes that one CRC of a `.crc` file covers.
const CRC_CHUNK: usize = 512;

/// Where the CRC of an entry is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crc {
    /// In the last line of the entry.
    Inside,
    /// In a separate file. An entry without one is accepted, since Spark may have written it.
    Beside,
}

/// A log of files.
#[derive(Clone, Debug)]
pub struct FileLog {
    folder: PathBuf,
    crc: Crc,
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    path.with_file_name(format!(".{}.crc", name.unwrap_or_default()))
}

/// The content of a `.crc` file, in Hadoop's format.
fn hadoop_crc(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"crc\0".to_vec();
    out.extend_from_slice(&(CRC_CHUNK as u32).to_be_bytes());
    for chunk in bytes.chunks(CRC_CHUNK) {
        out.extend_from_slice(&crc32fast::hash(chunk).to_be_bytes());
    }
    out
}

fn is_compaction(batch: u64) -> bool {
    (batch + 1).is_multiple_of(COMPACT_EVERY)
}

impl FileLog {
    /// The log in a folder, which is created with the first entry.
    pub fn new(folder: PathBuf, crc: Crc) -> Self {
        Self { folder, crc }
    }

    /// The folder of the log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, batch: u64, compact: bool) -> PathBuf {
        self.folder.join(if compact { format!("{batch}.compact") } else { batch.to_string() })
    }

    /// The batches that have an entry, in order, and whether the entry is compacted.
    fn batches(&self, storage: &dyn Storage) -> Result<Vec<(u64, bool)>, EngineError> {
        let paths = match storage.list(&self.folder) {
            Ok(paths) => paths,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(log_entry::unreadable(&self.folder, &error)),
        };
        let mut batches = Vec::new();
        for path in paths.iter().filter(|path| !is_temporary(path)) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            let (number, compact) = match name.strip_suffix(".compact") {
                Some(number) => (number, true),
                None => (name.as_str(), false),
            };
            match number.parse() {
                Ok(batch) => batches.push((batch, compact)),
                // Skips CRC files, and hidden files that other tools create next to Spark's logs.
                Err(_) if name.starts_with('.') => {}
                Err(_) => {
                    return Err(EngineError::operator(
                        "CHECKPOINT_FOREIGN_FILE",
                        format!("{} is not a file of a file log", path.display()),
                        "Move it away",
                    ));
                }
            }
        }
        batches.sort_unstable();
        Ok(batches)
    }

    /// The last batch, after syncing the folder: an earlier run may have crashed between the
    /// entry's rename and the sync of the folder. `None` if the log is empty.
    pub fn settled(&self, storage: &dyn Storage) -> Result<Option<u64>, EngineError> {
        let latest = self.latest(storage)?;
        if latest.is_some() {
            let synced = storage.sync_folder(&self.folder);
            synced.map_err(|error| log_entry::write_failed(&self.folder, &error))?;
        }
        Ok(latest)
    }

    /// The last batch with an entry. `None` if the log is empty.
    pub fn latest(&self, storage: &dyn Storage) -> Result<Option<u64>, EngineError> {
        Ok(self.batches(storage)?.last().map(|(batch, _)| *batch))
    }

    fn read(&self, storage: &dyn Storage, path: &Path) -> Result<Vec<String>, EngineError> {
        if self.crc == Crc::Inside {
            return log_entry::read(storage, path);
        }
        let bytes = storage.read(path).map_err(|error| log_entry::unreadable(path, &error))?;
        if let Ok(crc) = storage.read(&beside(path))
            && crc != hadoop_crc(&bytes)
        {
            return Err(log_entry::damaged(path, "its content does not match its .crc file"));
        }
        let text =
            std::str::from_utf8(&bytes).map_err(|_| log_entry::damaged(path, "it is not text"))?;
        let mut lines = text.lines();
        match lines.next() {
            Some("v1") => Ok(lines.filter(|line| !line.is_empty()).map(str::to_string).collect()),
            Some(line) if line.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok()) => {
                Err(log_entry::Fault::OtherVersion.error(path))
            }
            _ => Err(log_entry::damaged(path, "its first line is not 'v1'")),
        }
    }

    /// All lines with their batch. Lines from before the last compaction get the batch number of
    /// the compacted entry.
    pub fn read_all(&self, storage: &dyn Storage) -> Result<Vec<(u64, String)>, EngineError> {
        let batches = self.batches(storage)?;
        let Some(&(last, _)) = batches.last() else { return Ok(Vec::new()) };
        self.read_up_to(storage, &batches, last)
    }

    fn read_up_to(
        &self,
        storage: &dyn Storage,
        batches: &[(u64, bool)],
        last: u64,
    ) -> Result<Vec<(u64, String)>, EngineError> {
        let compact = batches.iter().rfind(|(batch, compact)| *compact && *batch <= last);
        let mut all = Vec::new();
        let mut next = 0;
        if let Some((batch, _)) = compact {
            let lines = self.read(storage, &self.path(*batch, true))?;
            all.extend(lines.into_iter().map(|line| (*batch, line)));
            next = batch + 1;
        }
        for batch in next..=last {
            let lines = self.read(storage, &self.path(batch, false))?;
            all.extend(lines.into_iter().map(|line| (batch, line)));
        }
        Ok(all)
    }

    /// Writes a batch's entry, durably. `keep` decides which older lines a compaction keeps.
    pub fn add(
        &self,
        storage: &dyn Storage,
        batch: u64,
        lines: &[String],
        keep: impl Fn(&str) -> bool,
    ) -> Result<(), EngineError> {
        let failed = |path: &Path, error: std::io::Error| log_entry::write_failed(path, &error);
        storage.create_folder(&self.folder).map_err(|error| failed(&self.folder, error))?;
        let batches = if is_compaction(batch) { self.batches(storage)? } else { Vec::new() };
        let compact = is_compaction(batch);
        let mut all = Vec::new();
        if compact && batch > 0 {
            let older = self.read_up_to(storage, &batches, batch - 1)?;
            all.extend(older.into_iter().map(|(_, line)| line).filter(|line| keep(line)));
        }
        all.extend_from_slice(lines);
        let path = self.path(batch, compact);
        match self.crc {
            Crc::Inside => log_entry::write(storage, &path, all.iter().map(String::as_str))?,
            Crc::Beside => {
                let mut text = String::from("v1");
                for line in &all {
                    text.push('\n');
                    text.push_str(line);
                }
                let crc = beside(&path);
                storage
                    .write_durable(&crc, &hadoop_crc(text.as_bytes()))
                    .map_err(|error| failed(&crc, error))?;
                storage
                    .write_durable(&path, text.as_bytes())
                    .map_err(|error| failed(&path, error))?;
            }
        }
        // A reader may still be using the previous compaction; older entries can be removed.
        for (old, was_compact) in batches {
            if old + COMPACT_EVERY < batch {
                let path = self.path(old, was_compact);
                drop(storage.remove(&path));
                if self.crc == Crc::Beside {
                    drop(storage.remove(&beside(&path)));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::env::simulated_storage::SimStorage;

    #[test]
    fn compactions_contain_all_files_and_old_entries_are_deleted() {
        for crc in [Crc::Inside, Crc::Beside] {
            let storage = SimStorage::new(1);
            let log = FileLog::new(PathBuf::from("/log"), crc);
            for batch in 0..35 {
                log.add(&storage, batch, &[format!("{{\"n\":{batch}}}")], |_| true).unwrap();
                let lines = log.read_all(&storage).unwrap();
                assert_eq!(lines.len() as u64, batch + 1, "{crc:?}");
            }
            assert_eq!(log.latest(&storage).unwrap(), Some(34));
            let names = storage.files().into_iter().filter(|path| {
                !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
            });
            assert!(names.count() <= 26, "old entries are removed");
            let path = Path::new("/log/34");
            for at in 0..storage.size(path).unwrap() as usize {
                storage.damage(path, |bytes| bytes[at] ^= 1).unwrap();
                let error = log.read_all(&storage).unwrap_err();
                assert!(error.to_string().contains("/log/34"), "{error}");
                storage.damage(path, |bytes| bytes[at] ^= 1).unwrap();
            }
            storage.remove(Path::new("/log/33")).unwrap();
            let error = log.read_all(&storage).unwrap_err();
            assert!(error.to_string().contains("/log/33"), "{error}");
        }
    }
}
