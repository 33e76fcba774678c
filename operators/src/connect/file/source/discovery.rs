//! Finds new files, and with a checkpoint logs them before any of them is read.

use crate::connect::file::file_log::{Crc, FileLog};
use crate::connect::file::listing::FileInfo;
use crate::connect::file::source::FileSource;
use crate::connect::file::uri::{path_of, uri};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::checkpoint::log_entry;
use millstream_engine::error::EngineError;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Maximum number of skipped paths that are reported, each once.
const REPORTED_MAX: usize = 10_000;

/// A listed file, as stored in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::connect::file::source) struct Listed {
    pub path: String,
    pub timestamp: u64,
    pub batch_id: u64,
}

impl FileSource {
    pub(in crate::connect::file::source) fn key(&self, path: &Path) -> String {
        if self.config.name_only {
            path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
        } else {
            uri(path)
        }
    }

    pub(in crate::connect::file::source) fn see(&mut self, path: &Path, time_ms: u64) {
        let key = self.key(path);
        self.seen.insert(key, time_ms);
        self.newest_ms = self.newest_ms.max(time_ms);
    }

    /// Whether this part reads a file: the parts share the files by a hash.
    fn owns(&self, path: &Path) -> bool {
        let parts = self.config.parts;
        parts == 1 || hash_bytes(self.key(path).as_bytes()) as usize % parts == self.part
    }

    /// Whether all parts choose the files of a batch together, so that it has the files that a
    /// source of one part would read.
    fn shares_batches(&self) -> bool {
        self.config.parts > 1 && self.config.is_limited()
    }

    /// Remembers the files that the other parts have read, from their logs. Call this before any
    /// part plans a batch.
    pub(in crate::connect::file::source) fn see_other_parts(
        &mut self,
        logs: &[PathBuf],
    ) -> Result<(), EngineError> {
        if !self.shares_batches() {
            return Ok(());
        }
        for folder in logs {
            let log = FileLog::new(folder.clone(), Crc::Inside);
            for (_, line) in log.read_all(self.env.storage())? {
                let listed: Listed = serde_json::from_str(&line)
                    .map_err(|error| log_entry::damaged(log.folder(), &error.to_string()))?;
                self.see(&path_of(&listed.path), listed.timestamp);
            }
        }
        Ok(())
    }

    /// Adds the files of a batch that this part reads to the log, and remembers the others.
    pub(in crate::connect::file::source) fn enter_own(
        &mut self,
        taken: Vec<FileInfo>,
    ) -> Result<(), EngineError> {
        let (own, others): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|file| self.owns(&file.path));
        others.iter().for_each(|file| self.see(&file.path, file.time_ms));
        self.enter(own)
    }

    /// Files modified before this time are neither remembered nor read, in milliseconds since 1970.
    fn horizon_ms(&self) -> u64 {
        if self.config.latest_first && self.config.is_limited() {
            return 0;
        }
        self.newest_ms.saturating_sub(self.config.max_age_ms)
    }

    /// New files, in reading order: those of this part, or with a limit those of all parts.
    pub(in crate::connect::file::source) fn list(
        &mut self,
    ) -> Result<VecDeque<FileInfo>, EngineError> {
        let Self { config, env, notice, reported, counters, .. } = self;
        let skipped_paths = &counters.skipped_paths;
        let mut found = config.listing.list(env.storage(), &mut |path, why| {
            if reported.len() < REPORTED_MAX && reported.insert(path.to_path_buf()) {
                notice(&format!("skipped {}: it is {why}", path.display()));
                // ORDERING: relaxed: a counter that nothing else depends on.
                skipped_paths.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        let horizon_ms = if self.seen.is_empty() { 0 } else { self.horizon_ms() };
        let of_all = self.shares_batches();
        found.retain(|file| {
            let is_new = !self.seen.contains_key(&self.key(&file.path));
            is_new && file.time_ms >= horizon_ms && (of_all || self.owns(&file.path))
        });
        // Paths break ties, so that the order is deterministic.
        found.sort_by(|a, b| (a.time_ms, &a.path).cmp(&(b.time_ms, &b.path)));
        if self.config.latest_first {
            found.reverse();
        }
        Ok(found.into())
    }

    /// Takes the files for one batch from the front of `files`; all of them, whatever the limits,
    /// if `all` is true.
    pub(in crate::connect::file::source) fn take(
        &self,
        files: &mut VecDeque<FileInfo>,
        all: bool,
    ) -> Vec<FileInfo> {
        let mut taken: Vec<FileInfo> = Vec::new();
        let mut bytes = 0u64;
        while let Some(next) = files.front() {
            let full = self.config.most_files.is_some_and(|most| taken.len() as u64 >= most)
                || self.config.most_bytes.is_some_and(|most| {
                    // A batch has at least one file, however large.
                    !taken.is_empty() && bytes + next.size > most
                });
            if full && !all {
                break;
            }
            bytes += next.size;
            taken.extend(files.pop_front());
        }
        taken
    }

    /// Adds a log entry for files, durably, before any of them is read. Without files nothing
    /// happens; without a checkpoint they are only remembered.
    pub(in crate::connect::file::source) fn enter(
        &mut self,
        files: Vec<FileInfo>,
    ) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let batch = self.listed.map_or(0, |listed| listed + 1);
        let listed: Vec<Listed> = files
            .iter()
            .map(|file| Listed { path: uri(&file.path), timestamp: file.time_ms, batch_id: batch })
            .collect();
        for file in &files {
            self.see(&file.path, file.time_ms);
        }
        let horizon_ms = self.horizon_ms();
        if let Some(log) = &self.log {
            let text = |l: &Listed| serde_json::to_string(l).unwrap_or_default();
            let lines: Vec<String> = listed.iter().map(text).collect();
            let keep = |line: &str| {
                serde_json::from_str::<Listed>(line).is_ok_and(|l| l.timestamp >= horizon_ms)
            };
            log.add(self.env.storage(), batch, &lines, keep)?;
        }
        self.seen.retain(|_, time_ms| *time_ms >= horizon_ms);
        self.batches.insert(batch, listed);
        self.listed = Some(batch);
        Ok(())
    }
}
