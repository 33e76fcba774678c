//! Compaction: merges a snapshot and the deltas after it into a new snapshot, some key groups at a
//! time.
//!
//! *Cost.* A step rewrites key groups until it has written [`STEP_BYTES`] bytes, at least one
//! group. Compaction starts when the deltas are as large as their snapshot and not tiny, so each
//! byte of state is rewritten about once for every byte that changes. It also starts at
//! [`MAX_DELTAS`] deltas, because a restart opens every file.
//!
//! *Threads.* The driver's, between its other work.

use super::state_file::{FileOwner, StateEntry, StateFile, StateFileWriter, entry_at, put_entry};
use crate::checkpoint::key_group::{KEY_GROUPS, hash_bytes};
use crate::checkpoint::log_entry::{damaged, write_failed};
use crate::cores::{YieldBudget, yield_to_worker};
use crate::env::storage::{Storage, temporary};
use crate::error::EngineError;
use hashbrown::HashTable;
use std::path::PathBuf;

/// Number of deltas after a snapshot at which compaction starts.
const MAX_DELTAS: usize = 64;
/// Bytes after which a step ends. The key group under way is completed first.
const STEP_BYTES: usize = 64 << 10;
/// Bytes written between two syncs. The bound is small, so that no sync delays a commit for long.
const SYNC_BYTES: u64 = 8 << 20;

/// Whether the files of an operator should be compacted: the deltas are as large as their snapshot,
/// if there is one, and have at least `least_bytes` bytes, or there are [`MAX_DELTAS`] of them.
pub fn is_due(files: &[StateFile], least_bytes: u64) -> bool {
    let (snapshot, deltas) = match files.split_first() {
        Some((first, rest)) if first.owner.snapshot => (first.bytes(), rest),
        _ => (0, files),
    };
    let bytes: u64 = deltas.iter().map(StateFile::bytes).sum();
    deltas.len() >= MAX_DELTAS || bytes >= snapshot.max(least_bytes)
}

/// A compaction in progress, which [`step`](Self::step) continues.
#[derive(Debug)]
pub struct Compaction {
    files: Vec<StateFile>,
    path: PathBuf,
    writer: Option<StateFileWriter>,
    group: u64,
    since_sync: u64,
    started: bool,
    merge: GroupMerge,
}

/// Buffers for merging a key group, reused for every group.
#[derive(Debug, Default)]
struct GroupMerge {
    /// All blocks of the group, oldest first.
    bytes: Vec<u8>,
    /// Offset of the latest entry of each key, with the hash of the key.
    latest: HashTable<(u64, usize)>,
    out: Vec<u8>,
}

impl Compaction {
    /// Starts compacting `files`, ordered oldest first, into a snapshot at `path`.
    pub fn new(files: Vec<StateFile>, path: PathBuf, owner: FileOwner) -> Self {
        let writer = Some(StateFileWriter::new(owner));
        let merge = GroupMerge::default();
        Self { files, path, writer, group: 0, since_sync: 0, started: false, merge }
    }

    /// The operator that owns the files.
    pub fn operator(&self) -> usize {
        self.files.first().map_or(0, |file| file.owner.operator as usize)
    }

    /// The number of files that the snapshot will replace.
    pub fn replaces(&self) -> usize {
        self.files.len()
    }

    /// Merges some key groups. Returns the snapshot once, when it is complete and durable,
    /// otherwise `None`.
    pub fn step(&mut self, storage: &dyn Storage) -> Result<Option<StateFile>, EngineError> {
        let Some(writer) = &mut self.writer else { return Ok(None) };
        let temporary = temporary(&self.path);
        let failed = |error: std::io::Error| write_failed(&temporary, &error);
        if !std::mem::replace(&mut self.started, true) {
            storage.write(&temporary, &[]).map_err(failed)?;
        }
        if self.group < KEY_GROUPS {
            let mut merged_bytes = 0;
            while self.group < KEY_GROUPS && merged_bytes < STEP_BYTES {
                let merged = self.merge.group(storage, &self.files, self.group)?;
                merged_bytes += merged.len();
                writer.group(self.group as u16, merged);
                self.group += 1;
            }
            if !writer.bytes().is_empty() {
                storage.append(&temporary, writer.bytes()).map_err(failed)?;
            }
            self.since_sync += writer.bytes().len() as u64;
            writer.clear();
            if self.since_sync >= SYNC_BYTES {
                self.since_sync = 0;
                storage.sync(&temporary).map_err(failed)?;
            }
            return Ok(None);
        }
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let (end, file) = writer.finish(self.path.clone());
        storage.append(&temporary, &end).map_err(failed)?;
        storage.put_in_place(&temporary, &self.path).map_err(failed)?;
        Ok(Some(file))
    }
}

impl GroupMerge {
    /// Merges a key group: the latest entry of each key, without deleted keys.
    fn group(
        &mut self,
        storage: &dyn Storage,
        files: &[StateFile],
        group: u64,
    ) -> Result<&[u8], EngineError> {
        let Self { bytes, latest, out } = self;
        bytes.clear();
        latest.clear();
        out.clear();
        let mut breath = YieldBudget::default();
        for file in files {
            for block in file.index.iter().filter(|block| u64::from(block.group) == group) {
                let mut at = bytes.len();
                file.read_block(storage, block, bytes)?;
                yield_to_worker();
                while at < bytes.len() {
                    let Some(StateEntry { key, next, .. }) = entry_at(bytes, at) else {
                        return Err(damaged(&file.path, "an entry is longer than its block"));
                    };
                    let hash = hash_bytes(key);
                    let is_key = |&(other, at): &(u64, usize)| {
                        other == hash && entry_at(bytes, at).is_some_and(|e| e.key == key)
                    };
                    match latest.find_mut(hash, is_key) {
                        Some((_, before)) => *before = at,
                        None => {
                            latest.insert_unique(hash, (hash, at), |(hash, _)| *hash);
                        }
                    }
                    at = next;
                    breath.spend();
                }
            }
        }
        for &(_, at) in &*latest {
            if let Some(StateEntry { key, value: Some(value), .. }) = entry_at(bytes, at) {
                put_entry(out, key, Some(value));
            }
            breath.spend();
        }
        Ok(out)
    }
}
