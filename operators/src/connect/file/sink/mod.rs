//! The file sink: writes rows into files of a folder, with a checkpoint exactly once.
//!
//! The rows of an epoch are written to new files. Readers ignore these until an entry in the
//! folder's log, `_spark_metadata/N`, names them; the entry commits the epoch. Readers that know
//! the log (Spark, and this file source) see whole epochs exactly once. A file without an entry is
//! not committed yet, or left over from a crash.
//!
//! *Threads.* The worker writes the files. The driver's thread syncs them and writes the log, so a
//! slow sync delays commits but no record.

mod commit_log;
pub(in crate::connect::file) mod file_writer;

pub use commit_log::{FileSinkLog, LOG_FOLDER, committed_files, is_of_files};

use super::uri::{local_path, path_of};
use crate::connect::file::file_log::{Crc, FileLog};
use crate::connect::file::partition_values::{NULL_PARTITION, partition_of};
use crate::connect::file::sink::commit_log::SinkFile;
use crate::connect::file::sink::file_writer::{FileWriter, SinkFormat};
use crate::connect::format_settings::FormatSettings;
use crate::connect::options::OptionReader;
use crate::table::datetime::Tz;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::row::{Row, RowWriter};
use crate::table::types::{DataType, Field, Schema};
use crossbeam_channel::Sender;
use millstream_engine::checkpoint::{UnfinishedEpoch, log_entry, new_id};
use millstream_engine::env::Env;
use millstream_engine::env::storage::Storage;
use millstream_engine::epoch::protocol::Report;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes buffered before they are written.
const BUFFER_BYTES: usize = 1 << 20;
/// Maximum number of partitions in one epoch, each with an open file and a buffer.
const PARTITIONS_MAX: usize = 4096;

/// The parsed options of the file sink.
#[derive(Clone, Debug)]
pub struct FileSinkConfig {
    folder: PathBuf,
    format: SinkFormat,
    /// Columns whose values become folder names.
    partition_by: Vec<String>,
    /// The time zone of timestamps in folder names.
    zone: Tz,
}

impl FileSinkConfig {
    /// Reads `path`, `partitionBy` and the options of the format. A missing or empty path, a wrong
    /// value and an unknown option are errors.
    pub fn read(format: &str, options: &Options, settings: &FormatSettings) -> PlanResult<Self> {
        let name = format!("sink {format}");
        let mut reader = OptionReader::with_settings(&name, options, settings);
        let path = local_path("path", reader.required("path", "/data/out")?)?;
        if path.is_empty() {
            return Err(PlanError::new("MISSING_OPTION", format!("{name}: 'path' is empty"), ""));
        }
        let folder = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        let format = SinkFormat::read(format, &mut reader)?;
        let partition_by = reader.get("partitionBy").unwrap_or("").split(',');
        let partition_by = partition_by.map(|name| name.trim().to_string());
        let partition_by = partition_by.filter(|name| !name.is_empty()).collect();
        let zone = reader.zone()?;
        reader.finish()?;
        Ok(Self { folder, format, partition_by, zone })
    }

    /// The identity that a checkpoint compares at a restart.
    pub fn identity(&self) -> String {
        format!("{} files in {}", self.format.name(), self.folder.display())
    }

    /// Returns an error if the sink cannot write rows of this schema.
    pub fn check(&self, schema: &Schema) -> PlanResult<()> {
        let partitions = self.partitions(schema)?;
        if partitions.len() == schema.fields.len() && !partitions.is_empty() {
            return Err(PlanError::new(
                "ALL_PARTITION_COLUMNS_NOT_ALLOWED",
                "all columns are in partitionBy, so the files would have none",
                "Leave one out",
            ));
        }
        self.format.check(schema, &partitions)
    }

    /// The indices of the partition columns.
    fn partitions(&self, schema: &Schema) -> PlanResult<Vec<usize>> {
        let place = |name: &String| {
            let found = schema.fields.iter().position(|f| f.name.eq_ignore_ascii_case(name));
            let Some(at) = found else {
                let names: Vec<_> = schema.fields.iter().map(|f| f.name.as_str()).collect();
                return Err(PlanError::new(
                    "PARTITION_COLUMN_NOT_FOUND_IN_SCHEMA",
                    format!("partitionBy names `{name}`, which is no column"),
                    format!("Columns: {}", names.join(", ")),
                ));
            };
            let data_type = &schema.fields[at].data_type;
            if data_type.has_parts() || *data_type == DataType::CalendarInterval {
                return Err(PlanError::new(
                    "INVALID_PARTITION_COLUMN_DATA_TYPE",
                    format!(
                        "`{name}` is {} and cannot be a partition column",
                        schema.fields[at].data_type
                    ),
                    "Partition by a number, a date or a text",
                ));
            }
            Ok(at)
        };
        self.partition_by.iter().map(place).collect()
    }

    /// Returns an error if the file of a log line has other partition columns than the sink, so
    /// that all files of the folder have the same columns.
    fn check_partitions(&self, line: &str) -> Result<(), EngineError> {
        let Ok(file) = serde_json::from_str::<SinkFile>(line) else { return Ok(()) };
        let path = path_of(&file.path);
        let Ok(below) = path.strip_prefix(&self.folder) else { return Ok(()) };
        let folders = below.parent().into_iter().flat_map(Path::components);
        let names =
            folders.filter_map(|folder| partition_of(&folder.as_os_str().to_string_lossy()));
        let before: Vec<String> = names.map(|(name, _)| name).collect();
        let same = before.len() == self.partition_by.len()
            && before.iter().zip(&self.partition_by).all(|(a, b)| a.eq_ignore_ascii_case(b));
        if same {
            return Ok(());
        }
        let shown = |names: &[String]| match names {
            [] => "no column".to_string(),
            names => names.join(", "),
        };
        Err(EngineError::operator(
            "CHECKPOINT_QUERY_CHANGED",
            format!(
                "the files in {} are partitioned by {}, and the sink by {}",
                self.folder.display(),
                shown(&before),
                shown(&self.partition_by)
            ),
            "Keep the partition columns, or use another path and another checkpoint",
        ))
    }

    /// Opens the log after checking that it belongs to this checkpoint. `next_epoch` is the first
    /// epoch that the checkpoint has not committed. Fails if the log is damaged or lacks a committed
    /// epoch, with `FILE_SINK_LOG_AHEAD` if it has epochs that the checkpoint does not know, and if
    /// the partition columns differ.
    pub fn open_log(
        &self,
        env: &Arc<dyn Env>,
        next_epoch: Epoch,
        unfinished: Option<&UnfinishedEpoch>,
    ) -> Result<FileSinkLog, EngineError> {
        let storage = env.storage();
        let made = storage.create_folder(&self.folder);
        made.map_err(|error| log_entry::write_failed(&self.folder, &error))?;
        let log = FileLog::new(self.folder.join(LOG_FOLDER), Crc::Beside);
        let latest = log.settled(storage)?;
        let known = next_epoch + u64::from(unfinished.is_some());
        // Reads the whole log, so that damage is found at the start.
        let written = log.read_all(storage)?;
        if let Some((_, line)) = written.last() {
            self.check_partitions(line)?;
        }
        let pending = u64::from(matches!(unfinished, Some(UnfinishedEpoch::Commit(_))));
        let written = latest.map_or(0, |latest| latest + 1);
        if written + pending < next_epoch {
            let missing = log.folder().join(written.to_string());
            let error = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(log_entry::unreadable(&missing, &error));
        }
        if let Some(latest) = latest.filter(|latest| *latest >= known) {
            let checkpoint = match known.checked_sub(1) {
                Some(last) => format!("the checkpoint only to {last}"),
                None => "the checkpoint has none".to_string(),
            };
            return Err(EngineError::operator(
                "FILE_SINK_LOG_AHEAD",
                format!(
                    "the log {} goes up to epoch {latest}, but {checkpoint}",
                    log.folder().display(),
                ),
                "Another query has written there: use another path, or the checkpoint that \
                belongs to this one",
            ));
        }
        Ok(FileSinkLog::new(self.folder.clone(), log, latest))
    }

    /// Opens the sink. Fails if a partition column is missing, or if the format cannot write a
    /// column. No file is created yet.
    pub fn open(
        &self,
        schema: &Schema,
        env: Arc<dyn Env>,
        reports: Sender<Report>,
        latency: LatencyRecorder,
    ) -> PlanResult<FileSink> {
        let partitions = self.partitions(schema)?;
        self.check(schema)?;
        let partition = |at: &usize| (*at, schema.fields[*at].clone());
        Ok(FileSink {
            folder: self.folder.clone(),
            format: self.format.clone(),
            schema: schema.clone(),
            zone: self.zone,
            left_out: partitions.clone(),
            partitions: partitions.iter().map(partition).collect(),
            width: schema.fields.len(),
            env,
            reports,
            present: None,
            files: HashMap::new(),
            key: Vec::new(),
            latency,
        })
    }
}

/// The sink's stage: writes rows to files and stages them at markers.
pub struct FileSink {
    folder: PathBuf,
    format: SinkFormat,
    schema: Schema,
    zone: Tz,
    left_out: Vec<usize>,
    env: Arc<dyn Env>,
    reports: Sender<Report>,
    partitions: Vec<(usize, Field)>,
    width: usize,
    /// The file of the last row, with the row of its partition values. Rows of one partition
    /// usually arrive together.
    present: Option<(Vec<u8>, OpenFile)>,
    /// The other files of this epoch, by the row of their partition values.
    files: HashMap<Vec<u8>, OpenFile>,
    key: Vec<u8>,
    latency: LatencyRecorder,
}

/// An open file of the current epoch.
struct OpenFile {
    path: PathBuf,
    size: u64,
    contents: Box<dyn FileWriter>,
    buffer: Vec<u8>,
}

impl OpenFile {
    /// Ends the file. Returns its path and size.
    fn end(mut self, storage: &dyn Storage) -> Result<(PathBuf, u64), EngineError> {
        let ended = self.contents.finish(&mut self.buffer);
        ended.map_err(|error| log_entry::write_failed(&self.path, &error))?;
        self.write_out(storage)?;
        Ok((self.path, self.size))
    }

    fn write_out(&mut self, storage: &dyn Storage) -> Result<(), EngineError> {
        if !self.buffer.is_empty() {
            storage.append(&self.path, &self.buffer).map_err(|error| {
                // The incomplete file is removed, because a reader that ignores the log would take
                // it for a complete one.
                drop(storage.remove(&self.path));
                log_entry::write_failed(&self.path, &error)
            })?;
            self.size += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// The folder name of a partition value. Control characters and characters with a meaning in paths
/// are written as `%XX`, as in Spark. NULL and the empty text have the name [`NULL_PARTITION`].
fn folder_name(name: &str, value: Option<&str>) -> String {
    let escaped = |text: &str| {
        let mut out = String::new();
        for c in text.chars() {
            let special = c.is_control() || "\"#%'*/:=?\\{[]^".contains(c);
            if special {
                out.push_str(&format!("%{:02X}", u32::from(c)));
            } else {
                out.push(c);
            }
        }
        out
    };
    let value = value.filter(|value| !value.is_empty());
    format!("{}={}", escaped(name), value.map_or(NULL_PARTITION.to_string(), escaped))
}

impl FileSink {
    /// The open file of a row's partition. It is created for the first row of the epoch.
    fn file(&mut self, row: Row<'_>) -> Result<&mut OpenFile, EngineError> {
        self.key.clear();
        if !self.partitions.is_empty() {
            let mut writer = RowWriter::new(&mut self.key, self.partitions.len());
            for (to, (at, field)) in self.partitions.iter().enumerate() {
                writer.value(to, &row.value(*at, self.width, &field.data_type));
            }
        }
        let is_present = |(key, _): &(Vec<u8>, OpenFile)| self.key.is_empty() || *key == self.key;
        if !self.present.as_ref().is_some_and(is_present) {
            self.change_file(row)?;
        }
        match &mut self.present {
            Some((_, file)) => Ok(file),
            None => unreachable!("it was changed to one"),
        }
    }

    /// Switches to the file of the row's partition.
    fn change_file(&mut self, row: Row<'_>) -> Result<(), EngineError> {
        if let Some((key, file)) = self.present.take() {
            self.files.insert(key, file);
        }
        let file = match self.files.remove(&self.key) {
            Some(file) => file,
            None => self.begin_file(row)?,
        };
        self.present = Some((self.key.clone(), file));
        Ok(())
    }

    fn begin_file(&self, row: Row<'_>) -> Result<OpenFile, EngineError> {
        if self.files.len() >= PARTITIONS_MAX {
            return Err(EngineError::operator(
                "FILE_SINK_TOO_MANY_PARTITIONS",
                format!("one epoch has rows of more than {PARTITIONS_MAX} partitions"),
                "Partition by a column with fewer values",
            ));
        }
        let mut folder = self.folder.clone();
        for (at, field) in &self.partitions {
            let value = row.value(*at, self.width, &field.data_type);
            let text = value.display(&field.data_type, self.zone);
            folder.push(folder_name(&field.name, text.as_deref()));
            let made = self.env.storage().create_folder(&folder);
            made.map_err(|error| log_entry::write_failed(&folder, &error))?;
        }
        let extension = self.format.extension();
        let name = format!("part-00000-{}-c000.{extension}", new_id(&*self.env));
        let path = folder.join(name);
        let contents = self.format.begin(&self.schema, &self.left_out);
        let contents = contents.map_err(|error| log_entry::write_failed(&path, &error))?;
        Ok(OpenFile { path, size: 0, contents, buffer: Vec::new() })
    }
}

impl Stage for FileSink {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        let mut staged = Vec::new();
        for (_, open) in self.files.drain().chain(self.present.take()) {
            let (path, size) = open.end(self.env.storage())?;
            let file = SinkFile::added(&path, size, self.env.wall_us() / 1000);
            staged
                .push(serde_json::to_string(&file).unwrap_or_else(|_| unreachable!("plain data")));
        }
        if !staged.is_empty() {
            staged.sort();
            // Sending fails only if the driver has ended, because the query is being torn down.
            drop(self.reports.send(Report::Staged { epoch, staged }));
        }
        self.latency.record_pending();
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(FlushStatus::Flushed)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for FileSink {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        let file = self.file(row)?;
        let written = file.contents.write(row, &mut file.buffer);
        written.map_err(|error| log_entry::write_failed(&file.path, &error))?;
        if file.buffer.len() >= BUFFER_BYTES {
            let env = self.env.clone();
            self.file(row)?.write_out(env.storage())?;
        }
        self.latency.record(ingest_ns);
        Ok(())
    }
}
