//! Turning a snapshot and the deltas behind it into one new snapshot, some key groups at a time.
//!
//! *Cost.* A step reads and writes a few of 256 key groups: one, when they are large. A compaction begins when the deltas
//! have grown to the size of their snapshot, so that each byte of state is rewritten about once
//! per time that as many bytes have changed; or when they are so many that a restart would have
//! to open too many files.
//!
//! *Threads.* The driver's, between other work.

use super::entry::{damaged, write_failed};
use super::state_file::{Owner, StateFile, Writer, entries, put_entry};
use crate::cores::Breath;
use crate::error::EngineError;
use crate::key_group::{BuildFixed, KEY_GROUPS};
use crate::storage::{Storage, temporary};
use std::collections::HashMap;
use std::path::PathBuf;

/// Deltas behind a snapshot at most.
const MOST_DELTAS: usize = 64;
/// Bytes after which a step ends; the key group that it is in is finished.
const STEP_BYTES: usize = 64 << 10;
/// Bytes written between two syncs, so that none of them holds up a commit for long.
const SYNC_BYTES: u64 = 8 << 20;

/// Whether an operator's files should become one; below `least_bytes` it is not worth it.
pub fn is_due(files: &[StateFile], least_bytes: u64) -> bool {
    let (snapshot, deltas) = match files.split_first() {
        Some((first, rest)) if first.owner.snapshot => (first.bytes(), rest),
        _ => (0, files),
    };
    let bytes: u64 = deltas.iter().map(StateFile::bytes).sum();
    deltas.len() >= MOST_DELTAS || bytes >= snapshot.max(least_bytes)
}

/// A compaction under way.
#[derive(Debug)]
pub struct Compaction {
    files: Vec<StateFile>,
    path: PathBuf,
    writer: Option<Writer>,
    group: u64,
    since_sync: u64,
    started: bool,
}

impl Compaction {
    /// Begins to make `files`, oldest first, into a snapshot at `path`.
    pub fn new(files: Vec<StateFile>, path: PathBuf, owner: Owner) -> Self {
        let writer = Some(Writer::new(owner));
        Self { files, path, writer, group: 0, since_sync: 0, started: false }
    }

    /// The operator whose files these are.
    pub fn operator(&self) -> usize {
        self.files.first().map_or(0, |file| file.owner.operator as usize)
    }

    /// How many files it replaces.
    pub fn replaces(&self) -> usize {
        self.files.len()
    }

    /// Does some key groups. Returns the snapshot when it is whole and durable.
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
                let merged = merge(storage, &self.files, self.group)?;
                merged_bytes += merged.len();
                writer.group(self.group as u16, &merged);
                self.group += 1;
            }
            let bytes = writer.take();
            if !bytes.is_empty() {
                storage.append(&temporary, &bytes).map_err(failed)?;
            }
            self.since_sync += bytes.len() as u64;
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

/// A group's entries, the latest of each key, without those that are gone.
fn merge(storage: &dyn Storage, files: &[StateFile], group: u64) -> Result<Vec<u8>, EngineError> {
    let mut blocks = Vec::new();
    for file in files {
        for block in file.index.iter().filter(|block| u64::from(block.group) == group) {
            blocks.push((file, file.block(storage, block)?));
        }
    }
    let mut latest: HashMap<&[u8], Option<&[u8]>, BuildFixed> = HashMap::default();
    let mut breath = Breath::default();
    for (file, bytes) in &blocks {
        let whole = entries(bytes, |key, value| {
            latest.insert(key, value);
            breath.item();
            Ok(())
        })?;
        if whole.is_none() {
            return Err(damaged(&file.path, "an entry is longer than its block"));
        }
    }
    let mut out = Vec::new();
    for (key, value) in latest {
        if value.is_some() {
            put_entry(&mut out, key, value);
        }
    }
    Ok(out)
}
