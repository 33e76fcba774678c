//! Rows into files of a folder, exactly once.
//!
//! The rows of an epoch go to a file of their own, which nobody counts before the epoch is
//! committed: an entry of the folder's log, `_spark_metadata/N`, names it. Readers that know the
//! log (Spark, and our file source) see whole epochs, each once. A file that no entry names is
//! what a crash has left.
//!
//! *Threads.* The worker writes; syncs and the log are the driver's, so that a slow disk holds up
//! commits and no record.

use super::log::{Crc, FileLog};
use super::uri::{path_of, uri};
use crate::connect::format::{LineFormat, LineWriter};
use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::row::Row;
use crate::table::types::Schema;
use crossbeam_channel::Sender;
use millstream_engine::checkpoint::{Unfinished, entry, new_id};
use millstream_engine::driver::{Report, SinkLog};
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::latency::LatencyRecorder;
use millstream_engine::seam::Env;
use millstream_engine::stage::{Push, Settled, Stage};
use millstream_engine::storage::Storage;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes held before they are written.
const BUFFER_BYTES: usize = 1 << 20;
/// The folder of the log.
pub const LOG_FOLDER: &str = "_spark_metadata";

/// The options, read.
#[derive(Clone, Debug)]
pub struct FileSinkConfig {
    folder: PathBuf,
    format: LineFormat,
    header: bool,
}

/// A file of an epoch, as the log has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkFile {
    /// As a URI.
    pub path: String,
    size: u64,
    is_dir: bool,
    modification_time: i64,
    block_replication: u32,
    block_size: u64,
    /// `add`.
    pub action: String,
}

impl FileSinkConfig {
    /// Reads `path`, and for csv `header`.
    pub fn read(format: LineFormat, options: &Options) -> PlanResult<Self> {
        let name = format!("sink {}", format.name());
        let mut reader = OptionReader::new(&name, options);
        let path = reader.required("path", "/data/out")?;
        if path.is_empty() {
            return Err(PlanError::new("MISSING_OPTION", format!("{name}: 'path' is empty"), ""));
        }
        let folder = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        let header = format == LineFormat::Csv && reader.flag("header", false)?;
        reader.finish()?;
        Ok(Self { folder, format, header })
    }

    /// What a checkpoint remembers of it.
    pub fn identity(&self) -> String {
        format!("{} files in {}", self.format.name(), self.folder.display())
    }

    /// A writer for this schema, or why there is none.
    pub fn writer(&self, schema: &Schema) -> PlanResult<LineWriter> {
        LineWriter::new(self.format, schema)
    }

    /// The log, after a check that it is this checkpoint's: `next_epoch` is the first epoch that
    /// the checkpoint has not committed.
    pub fn open_log(
        &self,
        env: &Arc<dyn Env>,
        next_epoch: Epoch,
        unfinished: Option<&Unfinished>,
    ) -> Result<FileSinkLog, EngineError> {
        let storage = env.storage();
        let made = storage.create_folder(&self.folder);
        made.map_err(|error| entry::write_failed(&self.folder, &error))?;
        let log = FileLog::new(self.folder.join(LOG_FOLDER), Crc::Beside);
        let latest = log.settled(storage)?;
        let known = next_epoch + u64::from(unfinished.is_some());
        // Reads all of it, so that damage shows now and not when it is too late.
        log.read_all(storage)?;
        let pending = u64::from(matches!(unfinished, Some(Unfinished::Commit(_))));
        let written = latest.map_or(0, |latest| latest + 1);
        if written + pending < next_epoch {
            let missing = log.folder().join(written.to_string());
            let error = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(entry::unreadable(&missing, &error));
        }
        if let Some(latest) = latest.filter(|latest| *latest >= known) {
            return Err(EngineError::operator(
                "FILE_SINK_LOG_AHEAD",
                format!(
                    "the log {} goes on to epoch {latest}, but the checkpoint only to {}",
                    log.folder().display(),
                    known.checked_sub(1).map_or("none".to_string(), |last| last.to_string()),
                ),
                "Another query wrote there: take another path, or the checkpoint that belongs to it",
            ));
        }
        Ok(FileSinkLog { folder: self.folder.clone(), log, latest })
    }

    /// The sink.
    pub fn open(
        &self,
        schema: &Schema,
        env: Arc<dyn Env>,
        reports: Sender<Report>,
        latency: LatencyRecorder,
    ) -> PlanResult<FileSink> {
        let header = if self.header {
            let names: Vec<_> = schema.fields.iter().map(|f| f.name.as_str()).collect();
            format!("{}\n", names.join(","))
        } else {
            String::new()
        };
        Ok(FileSink {
            folder: self.folder.clone(),
            extension: self.format.extension(),
            writer: self.writer(schema)?,
            header,
            env,
            reports,
            file: None,
            buffer: Vec::new(),
            latency,
        })
    }
}

/// The stage.
pub struct FileSink {
    folder: PathBuf,
    extension: &'static str,
    writer: LineWriter,
    header: String,
    env: Arc<dyn Env>,
    reports: Sender<Report>,
    /// The file of this epoch, and its size so far.
    file: Option<(PathBuf, u64)>,
    buffer: Vec<u8>,
    latency: LatencyRecorder,
}

impl FileSink {
    fn write_out(&mut self) -> Result<(), EngineError> {
        if let Some((path, size)) = &mut self.file
            && !self.buffer.is_empty()
        {
            let written = self.env.storage().append(path, &self.buffer);
            written.map_err(|error| entry::write_failed(path, &error))?;
            *size += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Stage for FileSink {
    fn ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.write_out()?;
        if let Some((path, size)) = self.file.take() {
            let file = SinkFile {
                path: uri(&path),
                size,
                is_dir: false,
                modification_time: self.env.wall_us() / 1000,
                block_replication: 1,
                block_size: 32 << 20,
                action: "add".to_string(),
            };
            let line = serde_json::to_string(&file).unwrap_or_else(|_| unreachable!("plain data"));
            // The driver is gone only when the query is being torn down.
            drop(self.reports.send(Report::Staged { epoch, staged: vec![line] }));
        }
        self.latency.stamp();
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn settle(&mut self) -> Result<Settled, EngineError> {
        Ok(Settled::Clear)
    }
}

impl<'a> Push<Row<'a>> for FileSink {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        if self.file.is_none() {
            let name = format!("part-00000-{}-c000.{}", new_id(&*self.env), self.extension);
            self.file = Some((self.folder.join(name), 0));
            self.buffer.extend_from_slice(self.header.as_bytes());
        }
        self.writer.write(row, &mut self.buffer);
        self.latency.note_out(ingest_ns);
        if self.buffer.len() >= BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }
}

/// The log of committed epochs.
pub struct FileSinkLog {
    folder: PathBuf,
    log: FileLog,
    latest: Option<u64>,
}

fn files(staged: &[String]) -> impl Iterator<Item = PathBuf> {
    let files = staged.iter().filter_map(|line| serde_json::from_str::<SinkFile>(line).ok());
    files.map(|file| path_of(&file.path))
}

impl SinkLog for FileSinkLog {
    fn sync(&mut self, storage: &dyn Storage, staged: &[String]) -> Result<(), EngineError> {
        for path in files(staged) {
            storage.sync(&path).map_err(|error| entry::write_failed(&path, &error))?;
        }
        if staged.is_empty() {
            return Ok(());
        }
        let synced = storage.sync_folder(&self.folder);
        synced.map_err(|error| entry::write_failed(&self.folder, &error))
    }

    fn commit(
        &mut self,
        storage: &dyn Storage,
        epoch: Epoch,
        staged: &[String],
    ) -> Result<(), EngineError> {
        if self.latest.is_some_and(|latest| latest >= epoch) {
            // An earlier run has committed this epoch. What is staged is it again, or its own.
            let lines = self.log.read_all(storage)?;
            for (path, line) in files(staged).zip(staged) {
                if !lines.iter().any(|(_, logged)| logged == line) {
                    drop(storage.remove(&path));
                }
            }
            return Ok(());
        }
        // Spark wants an entry for every epoch: none may be missing in between.
        let next = self.latest.map_or(0, |latest| latest + 1);
        for missing in next..epoch {
            self.log.add(storage, missing, &[], |_| true)?;
        }
        self.log.add(storage, epoch, staged, |_| true)?;
        self.latest = Some(epoch);
        Ok(())
    }
}

/// The files that a folder's log names; `None` if it has no log.
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
            entry::damaged(&log.folder().join(batch.to_string()), &error.to_string())
        })?;
        let path = path_of(&file.path);
        match file.action.as_str() {
            "delete" => files.retain(|other| *other != path),
            _ => files.push(path),
        }
    }
    Ok(Some(files))
}
