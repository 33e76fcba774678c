//! The checkpoint of a query: everything that a restart needs, however the last run ended.
//!
//! ```text
//! metadata             the query's id, and the parts of it that its state depends on
//! lock                 held by the process that runs the query
//! offsets/N            where epoch N ends in each source
//! commits/N            that epoch N is committed, and which files hold the state at its end
//! state/OP/N.delta     what epoch N changed in operator OP
//! state/OP/N.snapshot  all state of operator OP at the end of epoch N
//! sources/I/…          files of source I itself
//! ```
//!
//! **Order of writes.** Micro-batch: `offsets/N`, the batch, state, sink, `commits/N`. An epoch
//! with offsets but no commit is run again over the same offsets. Continuous: the epoch, state,
//! `offsets/N` with everything that a commit needs, sink, `commits/N`. An epoch with offsets but no
//! commit has all its state, and the next start commits it. If the sink has lost what it staged,
//! the next start removes `offsets/N`, and the records of the epoch are processed again.
//!
//! The commit entry names the files that hold the state; the folder is never listed to find them. A
//! named file that is missing, damaged or foreign is an error. A state file that the last entry
//! does not name is a leftover and is removed.
//!
//! *Threads.* The driver's; the starting thread during [`Checkpoint::open`].

pub mod changes;
mod compaction;
pub mod key_group;
mod lock;
pub mod log_entry;
pub mod offset;
pub mod state_file;

use crate::checkpoint::changes::StateChanges;
use crate::checkpoint::key_group::{KEY_GROUPS, group_of, hash_bytes};
use crate::checkpoint::offset::Offset;
use crate::collections::high_water::{HighWater, shrink};
use crate::cores::{YieldBudget, yield_to_worker};
use crate::env::Env;
use crate::env::storage::{Storage, StorageLock, is_temporary};
use crate::error::EngineError;
use crate::event::Epoch;
use compaction::Compaction;
use serde::{Deserialize, Serialize};
use state_file::{FileOwner, StateFile, StateFileWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Epochs whose offsets and commits are kept, as in Spark.
const RETAINED_EPOCHS: u64 = 100;

/// The properties of a query on which its state depends. A restart with an incompatible description
/// is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryDescription {
    /// Each source: its format, and its location unless offsets stay valid elsewhere.
    pub sources: Vec<String>,
    /// Each stateful operator: its kind, keys and functions.
    pub operators: Vec<String>,
    /// The sink, if its own log is tied to this checkpoint.
    pub sink: Option<String>,
    /// How to show each operator's keys and values to a user. Not compared.
    #[serde(default)]
    pub layouts: Vec<StateLayout>,
}

/// How to show an operator's state to a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLayout {
    /// The columns of the key, as text.
    pub keys: String,
    /// The kind of each part of the value.
    pub values: Vec<String>,
    /// The operator in the words of the query; empty if its description serves as well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether the state contains rows that are emitted when the watermark has passed them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub releases_by_watermark: bool,
}

impl QueryDescription {
    /// Each stateful operator in the words of the query.
    pub fn operator_names(&self) -> Vec<String> {
        let named = self.operators.iter().enumerate().map(|(at, description)| {
            let name = self.layouts.get(at).map(|layout| &layout.name);
            name.filter(|name| !name.is_empty()).unwrap_or(description).clone()
        });
        named.collect()
    }

    /// Lists the incompatible differences between `self` and `now`. A sink that `self` has may be
    /// left out.
    fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, old: &[String], new: &[String]| {
            for index in 0..old.len().max(new.len()) {
                match (old.get(index), new.get(index)) {
                    (Some(old), Some(new)) if old == new => {}
                    (Some(old), Some(new)) => {
                        changes.push(format!("{what} {index} was [{old}] and is [{new}]"));
                    }
                    (Some(old), None) => {
                        changes.push(format!("{what} {index} [{old}] was removed"))
                    }
                    (None, Some(new)) => changes.push(format!("{what} {index} [{new}] was added")),
                    (None, None) => {}
                }
            }
        };
        compare("source", &self.sources, &now.sources);
        compare("stateful operator", &self.operators, &now.operators);
        match (&self.sink, &now.sink) {
            (Some(old), Some(new)) if old != new => {
                changes.push(format!("the sink was [{old}] and is [{new}]"));
            }
            (None, Some(new)) => changes.push(format!(
                "the sink is now [{new}], which does not have the results delivered before"
            )),
            _ => {}
        }
        changes
    }
}

/// The changes of an operator in an epoch: encoded entries, one buffer per key group.
struct Groups {
    entries: Vec<Vec<u8>>,
    /// The recent maximum size of the largest group.
    largest: HighWater,
}

impl Default for Groups {
    fn default() -> Self {
        Self { entries: vec![Vec::new(); KEY_GROUPS as usize], largest: HighWater::default() }
    }
}

impl Groups {
    fn is_empty(&self) -> bool {
        self.entries.iter().all(Vec::is_empty)
    }

    /// Writes all groups and empties them. Memory that no recent epoch has needed is freed.
    fn write(&mut self, writer: &mut StateFileWriter) {
        self.entries.iter().for_each(|entries| self.largest.note(entries.len()));
        let needed = self.largest.end_epoch(0);
        for (group, entries) in self.entries.iter_mut().enumerate() {
            writer.group(group as u16, entries);
            entries.clear();
            shrink(entries, needed);
            yield_to_worker();
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    id: String,
    #[serde(flatten)]
    shape: QueryDescription,
}

/// The driver that wrote an offset log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EpochMode {
    /// The micro-batch driver, which writes the entry before the epoch is processed.
    MicroBatch,
    /// The continuous driver, which writes the entry when the epoch's state is durable.
    Continuous,
}

/// The header of an offset log entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffsetHeader {
    /// Watermark of the batch, or at the end of an epoch of continuous mode, in milliseconds since
    /// 1970; 0 before the first event time.
    pub batch_watermark_ms: i64,
    /// Wall-clock time at which the epoch was planned or ended, in milliseconds since 1970.
    pub batch_timestamp_ms: i64,
    /// The driver that wrote the entry.
    pub mode: EpochMode,
    /// Continuous mode: the state files of each operator.
    #[serde(default)]
    pub state: Vec<Vec<String>>,
    /// Continuous mode: the output that the sink has staged.
    #[serde(default)]
    pub sink: Vec<String>,
}

/// The header of a commit log entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitHeader {
    /// Watermark for the next epoch, in milliseconds since 1970.
    pub next_batch_watermark_ms: i64,
    /// The state files of each operator, oldest first.
    #[serde(default)]
    pub state: Vec<Vec<String>>,
}

/// An epoch that an earlier run began and did not commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnfinishedEpoch {
    /// Process the epoch again.
    Rerun(PlannedBatch),
    /// The state and offsets of the epoch are durable. The sink's staged output of this epoch is
    /// still to be committed.
    Commit(Vec<String>),
}

/// An epoch of continuous mode whose offsets and state are durable, and whose commit is missing.
#[derive(Clone, Copy, Debug)]
pub struct PreparedEpoch<'a> {
    /// The id of the query in the checkpoint.
    pub query_id: &'a str,
    /// The number of the epoch.
    pub epoch: Epoch,
    /// The output that the sink staged in the epoch.
    pub staged: &'a [String],
}

/// A function that returns whether a sink has committed, or can still commit, the output that it
/// staged in an epoch. Once the answer for an epoch is true, it must stay true: recovery then
/// removes the files of the epoch before it.
pub type CanCommit<'a> = dyn FnMut(PreparedEpoch<'_>) -> Result<bool, EngineError> + 'a;

/// The error of an epoch whose output was staged by another sink than the present one, which
/// cannot commit it. `sink` describes the present sink.
pub fn staged_by_another_sink(epoch: Epoch, folder: &Path, sink: &str) -> EngineError {
    EngineError::operator(
        "CHECKPOINT_QUERY_CHANGED",
        format!(
            "epoch {epoch} of the checkpoint {} is written, but not committed, and the present \
             sink ({sink}) cannot commit it",
            folder.display(),
        ),
        "Run the query with the sink that it had until it has committed an epoch, then change the \
         sink",
    )
}

/// A micro-batch that an earlier run planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBatch {
    /// End offset of the batch in each source.
    pub ends: Vec<Offset>,
    /// Wall-clock time of the batch, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Watermark of the batch, in milliseconds since 1970.
    pub watermark_ms: i64,
}

/// The position and the watermarks from which a restarted query resumes.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// The watermark of the epoch before `next_epoch`, in milliseconds since 1970.
    pub watermark_ms: i64,
    /// The watermark of `next_epoch`, in milliseconds since 1970.
    pub next_watermark_ms: i64,
    /// The first epoch that the next run processes.
    pub next_epoch: Epoch,
    /// Whether results that the watermark has released may still have to be emitted: the epoch
    /// before `next_epoch` was one of continuous mode, where results may be emitted after the
    /// marker.
    pub owes_late_emission: bool,
    /// Each source's position before `next_epoch`; empty if that is the first epoch.
    pub offsets: Vec<Offset>,
    /// An epoch to finish first: `next_epoch`, or the previous one if only its commit is missing.
    pub unfinished: Option<UnfinishedEpoch>,
}

/// The committed state of one operator, which its instances read at start.
#[derive(Clone)]
pub struct CommittedState {
    env: Arc<dyn Env>,
    files: Arc<Vec<StateFile>>,
}

impl CommittedState {
    /// Calls `apply` with every change to the keys of `groups`. The changes of a key come oldest
    /// first; `None` means that the key was deleted.
    pub fn read(
        &self,
        groups: std::ops::Range<u64>,
        mut apply: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        for file in &*self.files {
            file.read(self.env.storage(), groups.clone(), &mut apply)?;
        }
        Ok(())
    }
}

/// An open checkpoint. The lock is held until it is dropped.
pub struct Checkpoint {
    env: Arc<dyn Env>,
    folder: PathBuf,
    id: String,
    id_hash: u64,
    files: Vec<Vec<StateFile>>,
    /// Change buffers by key group, reused for the next delta of an operator.
    groups: Vec<Groups>,
    compaction: Option<Compaction>,
    /// Replaced state files, to remove after the next commit.
    garbage: Vec<PathBuf>,
    _lock: StorageLock,
}

/// A random id in the form of a version 4 UUID.
pub fn new_id(env: &dyn Env) -> String {
    let (a, b) = (env.random(), env.random());
    let (a, b) = ((a & !0xF000) | 0x4000, (b & !(0b11 << 62)) | (0b10 << 62));
    let (a, b) = (format!("{a:016x}"), format!("{b:016x}"));
    format!("{}-{}-{}-{}-{}", &a[..8], &a[8..12], &a[12..], &b[..4], &b[4..])
}

fn foreign(path: &Path) -> EngineError {
    EngineError::operator(
        "CHECKPOINT_FOREIGN_FILE",
        format!("{} is not a file of a checkpoint", path.display()),
        "Move it elsewhere; no file of a checkpoint has such a name",
    )
}

/// The entry numbers of a log, in order; none if the folder does not exist. Temporary files are
/// ignored, and any other file name that is not a number is an error.
pub fn numbered_entries(storage: &dyn Storage, folder: &Path) -> Result<Vec<u64>, EngineError> {
    let paths = match storage.list(folder) {
        Ok(paths) => paths,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(log_entry::unreadable(folder, &error)),
    };
    let mut numbers = Vec::new();
    for path in paths.iter().filter(|path| !is_temporary(path)) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        match name.and_then(|name| name.parse().ok()) {
            Some(number) => numbers.push(number),
            None => return Err(foreign(path)),
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn json<T: for<'d> Deserialize<'d>>(path: &Path, line: Option<&String>) -> Result<T, EngineError> {
    let line = line.ok_or_else(|| log_entry::damaged(path, "it has too few lines"))?;
    serde_json::from_str(line).map_err(|error| log_entry::damaged(path, &error.to_string()))
}

fn to_json<T: Serialize>(value: &T) -> String {
    // The values are structs of numbers, strings and lists, so serialisation cannot fail.
    serde_json::to_string(value).unwrap_or_else(|_| unreachable!("plain data is always JSON"))
}

/// Reads an offset log entry: its header and the position of each source. An error if the file is
/// missing or damaged.
pub fn read_offsets(
    storage: &dyn Storage,
    path: &Path,
) -> Result<(OffsetHeader, Vec<Offset>), EngineError> {
    let lines = log_entry::read(storage, path)?;
    let header = json(path, lines.first())?;
    Ok((header, lines.into_iter().skip(1).map(Offset).collect()))
}

/// Reads a commit log entry.
pub fn read_commit(storage: &dyn Storage, path: &Path) -> Result<CommitHeader, EngineError> {
    json(path, log_entry::read(storage, path)?.first())
}

/// Reads a checkpoint's id and query description. An error if the file is missing or damaged.
pub fn read_metadata(
    storage: &dyn Storage,
    folder: &Path,
) -> Result<(String, QueryDescription), EngineError> {
    let path = folder.join("metadata");
    let metadata: Metadata = json(&path, log_entry::read(storage, &path)?.first())?;
    Ok((metadata.id, metadata.shape))
}

/// Opens the state files of an operator that a commit names. An error if a file is missing, damaged
/// or belongs to another checkpoint, operator or epoch.
pub fn open_state(
    storage: &dyn Storage,
    folder: &Path,
    id: &str,
    operator: usize,
    names: &[String],
) -> Result<Vec<StateFile>, EngineError> {
    let folder = folder.join("state").join(operator.to_string());
    let open = |name: &String| {
        let path = folder.join(name);
        let (epoch, snapshot) = match name.split_once('.') {
            Some((epoch, "snapshot")) => (epoch.parse().ok(), true),
            Some((epoch, "delta")) => (epoch.parse().ok(), false),
            _ => (None, false),
        };
        let epoch = epoch.ok_or_else(|| foreign(&path))?;
        let checkpoint = hash_bytes(id.as_bytes());
        let owner = FileOwner { checkpoint, operator: operator as u32, snapshot, epoch };
        StateFile::open(storage, &path, owner)
    };
    names.iter().map(open).collect()
}

impl Checkpoint {
    /// Opens the checkpoint of a query, or creates it. `can_commit` is asked about an epoch of
    /// continuous mode that has staged output and whose commit is missing; if the answer is no,
    /// recovery goes back to the epoch before it.
    pub fn open(
        env: Arc<dyn Env>,
        folder: &Path,
        shape: &QueryDescription,
        can_commit: &mut CanCommit<'_>,
    ) -> Result<(Self, Recovery), EngineError> {
        let shared = env.clone();
        let storage = env.storage();
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error: std::io::Error| log_entry::write_failed(&path, &error)
        };
        storage.create_folder(folder).map_err(failed(folder))?;
        let lock = lock::acquire(storage, folder)?;
        let id = match read_metadata(storage, folder) {
            Ok((id, before)) => {
                check_shape(folder, &before, shape)?;
                id
            }
            Err(error) if error.condition() == "CHECKPOINT_FILE_MISSING" => {
                let id = new_id(&*shared);
                create(storage, folder, &id, shape)?;
                id
            }
            Err(error) => return Err(error),
        };
        let mut folders = vec![folder.join("offsets"), folder.join("commits")];
        let state = folder.join("state");
        folders.extend((0..shape.operators.len()).map(|operator| state.join(operator.to_string())));
        for path in &folders {
            storage.create_folder(path).map_err(failed(path))?;
        }
        folders.push(folder.to_path_buf());
        for path in &folders {
            // The last run may have ended between a rename and the sync of its folder. The next
            // writes rely on the renamed files, so the names must survive a power failure.
            storage.sync_folder(path).map_err(failed(path))?;
        }
        let id_hash = hash_bytes(id.as_bytes());
        let operators = shape.operators.len();
        let mut checkpoint = Self {
            env: shared,
            folder: folder.to_path_buf(),
            id,
            id_hash,
            files: vec![Vec::new(); operators],
            groups: (0..operators).map(|_| Groups::default()).collect(),
            compaction: None,
            garbage: Vec::new(),
            _lock: lock,
        };
        let recovery = checkpoint.recover(shape, can_commit)?;
        checkpoint.remove_leftovers(&recovery)?;
        Ok((checkpoint, recovery))
    }

    /// The query's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder in which a source keeps files of its own.
    pub fn source_folder(&self, source: usize) -> PathBuf {
        self.folder.join("sources").join(source.to_string())
    }

    /// An operator's committed state.
    pub fn snapshot(&self, operator: usize) -> CommittedState {
        let files = self.files.get(operator).cloned().unwrap_or_default();
        CommittedState { env: self.env.clone(), files: Arc::new(files) }
    }

    fn path(&self, log: &str, epoch: Epoch) -> PathBuf {
        self.folder.join(log).join(epoch.to_string())
    }

    fn recover(
        &mut self,
        shape: &QueryDescription,
        can_commit: &mut CanCommit<'_>,
    ) -> Result<Recovery, EngineError> {
        let (env, folder) = (self.env.clone(), self.folder.clone());
        let storage = env.storage();
        let offsets = numbered_entries(storage, &folder.join("offsets"))?;
        let commits = numbered_entries(storage, &folder.join("commits"))?;
        let (last_offsets, last_commit) = (offsets.last().copied(), commits.last().copied());
        let mut recovery = Recovery::default();
        let mut state = Vec::new();
        if let Some(epoch) = last_commit {
            let commit = read_commit(storage, &self.path("commits", epoch))?;
            state = commit.state;
            let (header, offsets) = self.read_positions(epoch, shape)?;
            recovery.offsets = offsets;
            recovery.owes_late_emission = header.mode == EpochMode::Continuous;
            recovery.watermark_ms = header.batch_watermark_ms;
            recovery.next_watermark_ms = commit.next_batch_watermark_ms;
            recovery.next_epoch = epoch + 1;
        }
        if let Some(epoch) = last_offsets.filter(|last| Some(*last) > last_commit) {
            if epoch != recovery.next_epoch {
                let missing = self.path("commits", epoch - 1);
                let error = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(log_entry::unreadable(&missing, &error));
            }
            let (header, ends) = self.read_positions(epoch, shape)?;
            match header.mode {
                EpochMode::MicroBatch => {
                    recovery.unfinished = Some(UnfinishedEpoch::Rerun(PlannedBatch {
                        ends,
                        timestamp_ms: header.batch_timestamp_ms,
                        watermark_ms: header.batch_watermark_ms,
                    }));
                }
                EpochMode::Continuous if !self.can_commit(epoch, &header.sink, can_commit)? => {
                    // Recovery can return to the last commit. Its files are removed only after the
                    // next commit, or after a recovery in which the sink could commit this epoch.
                    let path = self.path("offsets", epoch);
                    let removed = storage.remove(&path);
                    removed.map_err(|error| log_entry::write_failed(&path, &error))?;
                }
                EpochMode::Continuous => {
                    // The offset log entry names the state files. Files that only the previous
                    // commit names are not needed: an earlier recovery may have removed them.
                    state = header.state;
                    recovery.offsets = ends;
                    recovery.owes_late_emission = true;
                    recovery.watermark_ms = header.batch_watermark_ms;
                    recovery.next_watermark_ms = header.batch_watermark_ms;
                    recovery.next_epoch = epoch + 1;
                    recovery.unfinished = Some(UnfinishedEpoch::Commit(header.sink));
                }
            }
        }
        self.open_files(&state)?;
        Ok(recovery)
    }

    fn can_commit(
        &self,
        epoch: Epoch,
        staged: &[String],
        can_commit: &mut CanCommit<'_>,
    ) -> Result<bool, EngineError> {
        if staged.is_empty() {
            return Ok(true);
        }
        can_commit(PreparedEpoch { query_id: &self.id, epoch, staged })
    }

    fn read_positions(
        &self,
        epoch: Epoch,
        shape: &QueryDescription,
    ) -> Result<(OffsetHeader, Vec<Offset>), EngineError> {
        let path = self.path("offsets", epoch);
        let (header, offsets) = read_offsets(self.env.storage(), &path)?;
        if offsets.len() != shape.sources.len() {
            return Err(log_entry::damaged(&path, "it does not have one line per source"));
        }
        Ok((header, offsets))
    }

    fn open_files(&mut self, manifest: &[Vec<String>]) -> Result<(), EngineError> {
        let storage = self.env.storage();
        for (operator, files) in self.files.iter_mut().enumerate() {
            let names = manifest.get(operator).map_or(&[][..], Vec::as_slice);
            *files = open_state(storage, &self.folder, &self.id, operator, names)?;
        }
        Ok(())
    }

    /// Removes files that a crash left, or that reappeared because their removal was not durable.
    /// An error if a state folder cannot be listed or contains a file of another kind.
    fn remove_leftovers(&self, recovery: &Recovery) -> Result<(), EngineError> {
        let storage = self.env.storage();
        // A leftover that cannot be removed does no harm.
        let remove = |path: &Path| drop(storage.remove(path));
        for (operator, files) in self.files.iter().enumerate() {
            let folder = self.folder.join("state").join(operator.to_string());
            let paths = storage.list(&folder).map_err(|e| log_entry::unreadable(&folder, &e))?;
            for path in paths {
                let kind = path.extension().map(|kind| kind.to_string_lossy().into_owned());
                match kind.as_deref() {
                    _ if files.iter().any(|file| file.path == path) => {}
                    Some("tmp" | "delta" | "snapshot") => remove(&path),
                    _ => return Err(foreign(&path)),
                }
            }
        }
        for log in ["offsets", "commits"] {
            let folder = self.folder.join(log);
            let paths = storage.list(&folder).unwrap_or_default();
            paths.iter().filter(|path| is_temporary(path)).for_each(|path| remove(path));
            for epoch in numbered_entries(storage, &folder)? {
                if epoch + RETAINED_EPOCHS < recovery.next_epoch {
                    remove(&self.path(log, epoch));
                }
            }
        }
        Ok(())
    }

    /// Adds an operator instance's changes to the current epoch.
    pub fn add_changes(&mut self, changes: StateChanges) {
        let (groups, mut breath) = (&mut self.groups[changes.operator], YieldBudget::default());
        changes.drain(|hash, key, value| {
            state_file::put_entry(&mut groups.entries[group_of(hash) as usize], key, value);
            breath.spend();
        });
    }

    /// Memory of the buffers that are kept for the changes of the next epochs, in bytes.
    pub fn buffer_bytes(&self) -> u64 {
        let groups = self.groups.iter().flat_map(|groups| &groups.entries);
        groups.map(|entries| entries.capacity() as u64).sum()
    }

    /// Writes the changes of an epoch to the operators' deltas, durably. An operator without
    /// changes has no delta.
    pub fn write_state(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        for operator in 0..self.files.len() {
            if self.groups[operator].is_empty() {
                continue;
            }
            let owner = FileOwner {
                checkpoint: self.id_hash,
                operator: operator as u32,
                snapshot: false,
                epoch,
            };
            let mut writer = StateFileWriter::new(owner);
            self.groups[operator].write(&mut writer);
            let folder = self.folder.join("state").join(operator.to_string());
            let (bytes, file) = writer.finish(folder.join(format!("{epoch}.delta")));
            let storage = self.env.storage();
            storage
                .write_durable(&file.path, &bytes)
                .map_err(|error| log_entry::write_failed(&file.path, &error))?;
            self.files[operator].push(file);
        }
        Ok(())
    }

    fn manifest(&self) -> Vec<Vec<String>> {
        let name = |file: &StateFile| {
            file.path.file_name().map(|name| name.to_string_lossy().into_owned())
        };
        self.files.iter().map(|files| files.iter().filter_map(name).collect()).collect()
    }

    /// Writes `offsets/N`. In micro-batch mode this fixes the batch before it runs. In continuous
    /// mode a restart can commit the epoch from then on.
    pub fn write_offsets(
        &self,
        epoch: Epoch,
        offsets: &[Offset],
        mode: EpochMode,
        (batch_timestamp_ms, batch_watermark_ms): (i64, i64),
        sink: Vec<String>,
    ) -> Result<(), EngineError> {
        let state = if mode == EpochMode::Continuous { self.manifest() } else { Vec::new() };
        let header = OffsetHeader { batch_watermark_ms, batch_timestamp_ms, mode, state, sink };
        let header = to_json(&header);
        let lines = std::iter::once(header.as_str()).chain(offsets.iter().map(|o| o.0.as_str()));
        log_entry::write(self.env.storage(), &self.path("offsets", epoch), lines)
    }

    /// Writes `commits/N`. Then removes the state files that compaction has replaced since the last
    /// commit, and the offsets and the commit of the epoch `RETAINED_EPOCHS` before. A removal may
    /// fail: the next start repeats it.
    pub fn write_commit(
        &mut self,
        epoch: Epoch,
        next_batch_watermark_ms: i64,
    ) -> Result<(), EngineError> {
        let header = CommitHeader { next_batch_watermark_ms, state: self.manifest() };
        let storage = self.env.storage();
        log_entry::write(storage, &self.path("commits", epoch), [to_json(&header).as_str()])?;
        for path in self.garbage.drain(..) {
            drop(storage.remove(&path));
        }
        if let Some(old) = epoch.checked_sub(RETAINED_EPOCHS) {
            drop(storage.remove(&self.path("offsets", old)));
            drop(storage.remove(&self.path("commits", old)));
        }
        Ok(())
    }

    /// The first operator whose files should be compacted.
    fn due(&self) -> Option<usize> {
        let least_bytes = self.env.min_compaction_bytes();
        self.files.iter().position(|files| compaction::is_due(files, least_bytes))
    }

    /// Whether a compaction step is due.
    pub fn has_background_work(&self) -> bool {
        self.compaction.is_some() || self.due().is_some()
    }

    fn begin_compaction(&mut self, operator: usize, committed: Epoch) {
        let owner = FileOwner {
            checkpoint: self.id_hash,
            operator: operator as u32,
            snapshot: true,
            epoch: committed,
        };
        let files = self.files[operator].iter().filter(|file| file.owner.epoch <= committed);
        let files = files.cloned().collect();
        let folder = self.folder.join("state").join(operator.to_string());
        let path = folder.join(format!("{committed}.snapshot"));
        self.compaction = Some(Compaction::new(files, path, owner));
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn compact_now(&mut self, committed: Epoch) -> Result<(), EngineError> {
        for operator in 0..self.files.len() {
            if self.files[operator].iter().any(|file| !file.owner.snapshot) {
                self.begin_compaction(operator, committed);
                while self.compaction.is_some() {
                    self.background_step(committed)?;
                }
            }
        }
        Ok(())
    }

    /// Runs one bounded step of compaction. Call this between a commit and the next
    /// [`write_state`](Self::write_state): only files that a commit names are merged.
    pub fn background_step(&mut self, committed: Epoch) -> Result<(), EngineError> {
        let storage = self.env.storage();
        let Some(compaction) = &mut self.compaction else {
            if let Some(operator) = self.due() {
                self.begin_compaction(operator, committed);
            }
            return Ok(());
        };
        let Some(snapshot) = compaction.step(storage)? else { return Ok(()) };
        let (operator, replaced) = (compaction.operator(), compaction.replaces());
        self.compaction = None;
        let old = self.files[operator].splice(..replaced, [snapshot]);
        // The old files are needed until the commit that names the new one.
        self.garbage.extend(old.map(|file| file.path));
        Ok(())
    }
}

fn check_shape(
    folder: &Path,
    before: &QueryDescription,
    now: &QueryDescription,
) -> Result<(), EngineError> {
    let changes = before.changes(now);
    if changes.is_empty() {
        return Ok(());
    }
    Err(EngineError::operator(
        "CHECKPOINT_QUERY_CHANGED",
        format!(
            "the query is not the one of the checkpoint {}: {}",
            folder.display(),
            changes.join("; ")
        ),
        "Allowed changes: filters, projections, trigger, output mode, parallelism, rate limits, \
         connection options, the sink unless it is a folder of files. Undo the others, or start \
         over with an empty checkpointLocation",
    ))
}

/// Writes the metadata of a new checkpoint. An error if the folder already has offsets or commits.
fn create(
    storage: &dyn Storage,
    folder: &Path,
    id: &str,
    shape: &QueryDescription,
) -> Result<(), EngineError> {
    let mut used = Vec::new();
    for part in ["offsets", "commits"] {
        used.extend(storage.list(&folder.join(part)).unwrap_or_default());
    }
    if let Some(path) = used.iter().find(|path| !is_temporary(path)) {
        return Err(EngineError::operator(
            "STREAMING_CHECKPOINT_MISSING_METADATA_FILE",
            format!(
                "{} exists, but {} is missing",
                path.display(),
                folder.join("metadata").display()
            ),
            "Restore the file from a backup, or start over with an empty checkpointLocation",
        ));
    }
    let metadata = Metadata { id: id.to_string(), shape: shape.clone() };
    log_entry::write(storage, &folder.join("metadata"), [to_json(&metadata).as_str()])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_whose_staged_output_is_lost_is_discarded_at_restart() {
        let env = Arc::new(crate::env::SimEnv::new(1));
        let shape = QueryDescription { sources: vec!["s".into()], ..QueryDescription::default() };
        let open = |answer: bool| {
            let mut asked = Vec::new();
            let mut can_commit = |prepared: PreparedEpoch<'_>| {
                asked.push((prepared.epoch, prepared.staged.to_vec()));
                Ok(answer)
            };
            let opened = Checkpoint::open(env.clone(), Path::new("/c"), &shape, &mut can_commit);
            let (checkpoint, recovery) = opened.unwrap();
            (checkpoint, recovery, asked)
        };
        let write = |checkpoint: &mut Checkpoint, epoch, at: &str, staged: &[&str]| {
            let staged = staged.iter().map(|line| (*line).to_string()).collect();
            let at = [Offset(at.to_string())];
            let mode = EpochMode::Continuous;
            checkpoint.write_offsets(epoch, &at, mode, (0, 0), staged).unwrap();
        };
        let (mut checkpoint, ..) = open(true);
        write(&mut checkpoint, 0, "10", &["a"]);
        checkpoint.write_commit(0, 0).unwrap();
        write(&mut checkpoint, 1, "20", &["b"]);
        drop(checkpoint);

        let (checkpoint, recovery, asked) = open(false);
        assert_eq!(asked, [(1, vec!["b".to_string()])]);
        assert_eq!((recovery.next_epoch, recovery.unfinished), (1, None));
        assert_eq!(recovery.offsets, [Offset("10".into())]);
        drop(checkpoint);
        let (mut checkpoint, recovery, asked) = open(true);
        assert_eq!((recovery.next_epoch, asked.len()), (1, 0), "the entry is gone");

        write(&mut checkpoint, 1, "30", &["c"]);
        drop(checkpoint);
        let (_, recovery, _) = open(true);
        assert_eq!(recovery.next_epoch, 2);
        assert_eq!(recovery.unfinished, Some(UnfinishedEpoch::Commit(vec!["c".into()])));
    }

    /// A job whose sink stages nothing must not drop what another sink has staged.
    #[test]
    fn staged_output_is_refused_by_a_job_without_a_transactional_sink() {
        use crate::runtime::job::{Config, Job};
        let env = Arc::new(crate::env::SimEnv::new(1));
        let shape = QueryDescription { sources: vec!["s".into()], ..QueryDescription::default() };
        let opened = Checkpoint::open(env.clone(), Path::new("/c"), &shape, &mut |_| Ok(true));
        let (checkpoint, _) = opened.unwrap();
        let at = [Offset("10".to_string())];
        let staged = vec!["a".to_string()];
        checkpoint.write_offsets(0, &at, EpochMode::Continuous, (0, 0), staged).unwrap();
        drop(checkpoint);
        let open = || {
            let config = Config { pin: false, ..Config::default() };
            let mut job = Job::in_env("other sink", config, env.clone()).unwrap();
            job.open_checkpoint(Path::new("/c"), &shape)
        };
        for _ in 0..2 {
            assert_eq!(open().unwrap_err().condition(), "CHECKPOINT_QUERY_CHANGED");
        }
    }

    #[test]
    fn the_memory_of_an_unusually_large_epoch_is_freed() {
        let owner = FileOwner { checkpoint: 0, operator: 0, snapshot: false, epoch: 0 };
        let mut groups = Groups { entries: vec![Vec::new(); 4], ..Groups::default() };
        let mut capacity_after = |bytes: usize| {
            groups.entries.iter_mut().for_each(|entries| entries.resize(bytes, 0));
            groups.write(&mut StateFileWriter::new(owner));
            assert!(groups.is_empty());
            groups.entries.iter().map(Vec::capacity).max().unwrap()
        };
        assert!(capacity_after(100_000) >= 100_000, "the next one may come soon");
        let after: Vec<_> = (0..300).map(|_| capacity_after(500)).collect();
        assert!(after[299] <= 4096, "{}", after[299]);
        let steady: Vec<_> = (0..300).map(|_| capacity_after(2000)).collect();
        assert!(steady[1..].windows(2).all(|two| two[0] == two[1]));
    }
}
