//! The commit log of the file sink: an entry `_spark_metadata/N` names the files of epoch N, and
//! makes them visible. The format is Spark's.
//!
//! *Threads.* Only the driver's thread writes the log.

use crate::connect::file::file_log::{Crc, FileLog};
use crate::connect::file::uri::{path_of, uri};
use millstream_engine::checkpoint::log_entry;
use millstream_engine::env::storage::Storage;
use millstream_engine::epoch::sink_log::SinkLog;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folder of the log.
pub const LOG_FOLDER: &str = "_spark_metadata";

/// A file of an epoch, as stored in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkFile {
    /// The file's path as a URI.
    pub path: String,
    size: u64,
    is_dir: bool,
    modification_time: i64,
    block_replication: u32,
    block_size: u64,
    /// `add`; a log of another program may also contain `delete`.
    pub action: String,
}

impl SinkFile {
    /// The entry of a new file.
    pub fn added(path: &Path, size: u64, modification_time_ms: i64) -> Self {
        Self {
            path: uri(path),
            size,
            is_dir: false,
            modification_time: modification_time_ms,
            block_replication: 1,
            block_size: 32 << 20,
            action: "add".to_string(),
        }
    }
}

/// The log of committed epochs, used on the driver's thread.
pub struct FileSinkLog {
    folder: PathBuf,
    log: FileLog,
    /// The last committed epoch.
    latest: Option<u64>,
}

impl FileSinkLog {
    /// The log of a sink's folder, whose last entry is `latest`.
    pub(super) fn new(folder: PathBuf, log: FileLog, latest: Option<u64>) -> Self {
        Self { folder, log, latest }
    }
}

/// Whether a file sink has staged these lines.
pub fn is_of_files(staged: &[String]) -> bool {
    staged.iter().all(|line| serde_json::from_str::<SinkFile>(line).is_ok())
}

fn files(staged: &[String]) -> impl Iterator<Item = PathBuf> {
    let files = staged.iter().filter_map(|line| serde_json::from_str::<SinkFile>(line).ok());
    files.map(|file| path_of(&file.path))
}

impl SinkLog for FileSinkLog {
    fn sync(&mut self, storage: &dyn Storage, staged: &[String]) -> Result<(), EngineError> {
        for path in files(staged) {
            storage.sync(&path).map_err(|error| log_entry::write_failed(&path, &error))?;
        }
        // Collects the folders of the files and their parent folders, which must be synced.
        let mut folders = BTreeSet::new();
        for path in files(staged) {
            let mut folder = path.parent();
            while let Some(below) = folder.filter(|folder| folder.starts_with(&self.folder)) {
                folders.insert(below.to_path_buf());
                folder = below.parent();
            }
        }
        for folder in folders {
            let synced = storage.sync_folder(&folder);
            synced.map_err(|error| log_entry::write_failed(&folder, &error))?;
        }
        Ok(())
    }

    fn commit(
        &mut self,
        storage: &dyn Storage,
        epoch: Epoch,
        staged: &[String],
    ) -> Result<(), EngineError> {
        if self.latest.is_some_and(|latest| latest >= epoch) {
            // An earlier run has already committed this epoch. The staged files are either the same
            // ones or contain the same rows again.
            let lines = self.log.read_all(storage)?;
            for (path, line) in files(staged).zip(staged) {
                if !lines.iter().any(|(_, logged)| logged == line) {
                    drop(storage.remove(&path));
                }
            }
            return Ok(());
        }
        // Spark requires an entry for every epoch, without gaps.
        let next = self.latest.map_or(0, |latest| latest + 1);
        for missing in next..epoch {
            self.log.add(storage, missing, &[], |_| true)?;
        }
        self.log.add(storage, epoch, staged, |_| true)?;
        self.latest = Some(epoch);
        Ok(())
    }
}

/// The committed files of a folder, in order of commit, without deleted ones. `None` if the folder
/// has no log. An error if the log is damaged.
pub fn committed_files(
    storage: &dyn Storage,
    folder: &Path,
) -> Result<Option<Vec<PathBuf>>, EngineError> {
    let log = FileLog::new(folder.join(LOG_FOLDER), Crc::Beside);
    if log.latest(storage)?.is_none() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for (batch, line) in log.read_all(storage)? {
        let file: SinkFile = serde_json::from_str(&line).map_err(|error| {
            log_entry::damaged(&log.folder().join(batch.to_string()), &error.to_string())
        })?;
        let path = path_of(&file.path);
        match file.action.as_str() {
            "delete" => files.retain(|other| *other != path),
            _ => files.push(path),
        }
    }
    Ok(Some(files))
}
