//! The file source: reads files that appear in a folder. Formats: text, CSV, JSON, and with the
//! feature `columnar` Parquet and ORC.
//!
//! Each file is read once, when it is first listed. It must appear whole (written elsewhere and
//! renamed into the folder) and is not read again. The checkpoint records which files were listed
//! when (`sources/I/N`, in Spark's layout) before any of them is read, so a restart reads the same
//! files in the same order.
//!
//! *Offsets.* `{"logOffset":N}` is the position after all files of entries up to N;
//! `{"logOffset":N,"file":K,"byte":B}` is the position after the first K files of entry N + 1 and B
//! more bytes (rows for Parquet and ORC).
//!
//! *Parts.* With `numPartitions` the files are distributed over that many sources by a hash of
//! their paths. Each has a log of its own and reads its files in order. `maxFilesPerTrigger` and
//! `maxBytesPerTrigger` apply to each part.
//!
//! *Limits.* A record longer than `maxRecordBytes` (128 MiB) is rejected. Files are decompressed
//! according to their extension (`gz`, `deflate`, `bz2`, `zst`); a restart in the middle of a
//! compressed file decompresses it from the start. Read files are cleaned up on the worker, at the
//! commit after theirs.

pub(in crate::connect::file) mod decoder;
pub(in crate::connect::file) mod json_records;
pub(in crate::connect::file) mod record_reader;
use super::listing::{FileInfo, Listing, special, unreadable};
use super::sink::LOG_FOLDER;
use super::uri::{local_path, path_of, uri};
use crate::connect::bad_records::KEPT_BYTES;
#[cfg(feature = "columnar")]
use crate::connect::columnar::{ColumnFormat, ColumnInput, ReadOptions};
#[cfg(feature = "columnar")]
use crate::connect::file::file_columns::FileColumns;
use crate::connect::file::file_columns::{SchemaOrigin, with_partitions};
use crate::connect::file::file_log::{Crc, FileLog};
use crate::connect::file::read_limits::Limits;
use crate::connect::file::source::decoder::{Decoder, Mode};
use crate::connect::file::source::record_reader::{FoundRecord, Input};
use crate::connect::format_settings::FormatSettings;
use crate::connect::options::OptionReader;
use crate::connect::socket::source::SourceCounters;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::row::Row;
#[cfg(feature = "columnar")]
use crate::table::row::RowWriter;
#[cfg(feature = "columnar")]
use crate::table::types::DataType;
use crate::table::types::{Field, Schema};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::checkpoint::log_entry;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::Env;
use millstream_engine::env::storage::FileStorage;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The number of skipped paths that are remembered, so that each is reported once.
const REPORTED_MAX: usize = 10_000;
/// Minimum time between two listings in continuous mode, in nanoseconds.
const LIST_EVERY_NS: u64 = 10_000_000;
#[derive(Clone, Debug, PartialEq, Eq)]
enum CleanSource {
    Off,
    Delete,
    Archive(PathBuf),
}

/// The parsed options of a file source.
#[derive(Clone, Debug)]
pub struct FileSourceConfig {
    format: String,
    listing: Listing,
    limits: Limits,
    most_files: Option<u64>,
    most_bytes: Option<u64>,
    latest_first: bool,
    name_only: bool,
    max_age_ms: u64,
    clean: CleanSource,
    parts: usize,
    contents: Contents,
}

/// The content of the files.
#[derive(Clone, Debug)]
enum Contents {
    Records(Box<Decoder>),
    #[cfg(feature = "columnar")]
    Columns(Columns),
}

/// The reader of columnar files.
#[cfg(feature = "columnar")]
#[derive(Clone, Debug)]
struct Columns {
    options: ReadOptions,
    schema: Schema,
    of_file: FileColumns,
    /// The columns that the query reads: index in the row, name, type.
    wanted: Vec<(usize, String, DataType)>,
}

/// An open file.
enum Opened {
    Records(Input),
    #[cfg(feature = "columnar")]
    Columns(ColumnInput),
    /// The file is empty, or it cannot be read and that is ignored.
    Nothing,
}

impl Opened {
    fn offset(&self) -> u64 {
        match self {
            Self::Records(input) => input.offset(),
            #[cfg(feature = "columnar")]
            Self::Columns(input) => input.offset(),
            Self::Nothing => 0,
        }
    }
}

/// The result of reading a record.
enum Emitted {
    Row,
    /// Not a record, or a rejected one.
    Nothing,
    End,
}

fn invalid(name: &str, value: &str, wanted: &str) -> PlanError {
    PlanError::new(
        "INVALID_OPTION_VALUE",
        format!("Invalid value '{value}' for option '{name}', must be {wanted}"),
        "",
    )
}

fn positive(reader: &mut OptionReader<'_>, name: &'static str) -> PlanResult<Option<u64>> {
    let Some(value) = reader.get(name) else { return Ok(None) };
    match value.parse() {
        Ok(n) if n > 0 => Ok(Some(n)),
        _ => Err(invalid(name, value, "a positive integer")),
    }
}

impl FileSourceConfig {
    /// Reads Spark's options of file sources and of the format.
    pub fn read(
        format: &str,
        options: &Options,
        schema: Option<(Schema, SchemaOrigin)>,
        settings: &FormatSettings,
    ) -> PlanResult<Self> {
        let what = format!("source {format}");
        let mut reader = OptionReader::with_settings(&what, options, settings);
        let mut listing = Listing::read(&mut reader)?;
        let partitions = listing.partition_columns(&FileStorage)?;
        if !partitions.is_empty() {
            listing.only_partitions();
        }
        let schema = match schema {
            None if format == "text" => {
                Some((Schema::parse_ddl("value STRING")?, SchemaOrigin::Files))
            }
            given => given,
        };
        let schema = schema.map(|(schema, origin)| with_partitions(schema, &partitions, origin));
        let contents = contents(format, schema, &partitions, &mut reader)?;
        let most_files = positive(&mut reader, "maxFilesPerTrigger")?;
        let most_bytes = positive(&mut reader, "maxBytesPerTrigger")?;
        if most_files.is_some() && most_bytes.is_some() {
            return Err(PlanError::new(
                "INVALID_OPTION_VALUE",
                "maxFilesPerTrigger and maxBytesPerTrigger cannot both be set",
                "Leave one out",
            ));
        }
        let clean = match reader.choice("cleanSource", &["off", "delete", "archive"])? {
            "delete" => CleanSource::Delete,
            "archive" => {
                let folder = reader.required("sourceArchiveDir", "/data/done")?;
                CleanSource::Archive(PathBuf::from(local_path("sourceArchiveDir", folder)?))
            }
            _ => CleanSource::Off,
        };
        reader.get("sourceArchiveDir");
        let config = Self {
            format: format.to_string(),
            listing,
            limits: Limits::read(&mut reader)?,
            most_files,
            most_bytes,
            latest_first: reader.flag("latestFirst", false)?,
            name_only: reader.flag("fileNameOnly", false)?,
            max_age_ms: match reader.get("maxFileAge") {
                None => 7 * 24 * 3_600_000,
                Some(text) => {
                    age_ms(text).ok_or_else(|| invalid("maxFileAge", text, "like '7d'"))?
                }
            },
            clean,
            parts: reader.number("numPartitions", 1, 1, 256)? as usize,
            contents,
        };
        reader.finish()?;
        Ok(config)
    }

    /// The schema of the source's rows.
    pub fn schema(&self) -> Schema {
        match &self.contents {
            Contents::Records(decoder) => decoder.schema(),
            #[cfg(feature = "columnar")]
            Contents::Columns(columns) => {
                let mut schema = columns.schema.clone();
                schema.fields.iter_mut().for_each(|field| field.nullable = true);
                schema
            }
        }
    }

    /// Whether bad records are kept in a column of the schema.
    pub fn keeps_bad_records(&self) -> bool {
        match &self.contents {
            Contents::Records(decoder) => decoder.keeps_bad_records(),
            #[cfg(feature = "columnar")]
            Contents::Columns(_) => false,
        }
    }

    /// Sets the columns that the query reads. As in Spark, bad records cannot be read alone: which
    /// records are bad depends on the columns that are read.
    pub fn set_needed_columns(&mut self, needed: &[bool]) -> PlanResult<()> {
        match &mut self.contents {
            Contents::Records(decoder)
                if decoder.has_only_bad_records() && decoder.reads_only_bad_records(needed) =>
            {
                return Err(PlanError::new(
                    "UNSUPPORTED_FEATURE.QUERY_ONLY_CORRUPT_RECORD_COLUMN",
                    "the files hold no record of their format, so that their schema has no column \
                     but that of bad records",
                    "Look at the first line: is it of this format, one record a line? Records of \
                     several lines need option multiLine 'true'",
                ));
            }
            Contents::Records(decoder) if decoder.reads_only_bad_records(needed) => {
                return Err(PlanError::new(
                    "UNSUPPORTED_FEATURE.QUERY_ONLY_CORRUPT_RECORD_COLUMN",
                    "the column of bad records is the only column that the query reads, and which \
                     records are bad depends on the columns that are read",
                    "Read other columns too, for example SELECT *, and filter what that gives",
                ));
            }
            Contents::Records(decoder) => decoder.set_needed_columns(needed),
            #[cfg(feature = "columnar")]
            Contents::Columns(columns) => columns.wanted.retain(|(place, ..)| needed[*place]),
        }
        Ok(())
    }

    /// Returns an error for options that only a table may have: in a stream, a file that is skipped
    /// because of its time would never be read.
    pub fn check_stream(&self) -> PlanResult<()> {
        if !self.listing.goes_by_time() {
            return Ok(());
        }
        Err(PlanError::new(
            "INVALID_OPTION_VALUE",
            "options 'modifiedBefore' and 'modifiedAfter' are not allowed for a stream of files",
            "Use maxFileAge, or read the files as a table",
        ))
    }

    /// Returns an error if a table's pattern matches nothing.
    pub fn check_exists(&self) -> PlanResult<()> {
        if self.listing.exists() {
            return Ok(());
        }
        Err(PlanError::new(
            "PATH_NOT_FOUND",
            format!("nothing matches {}", self.listing.name()),
            "Check the pattern; a '\\' takes the meaning of the character behind it",
        ))
    }

    /// A hash of all files with their sizes and times. It changes when a file is added, removed,
    /// replaced or written to.
    pub fn version(&self) -> Result<u64, EngineError> {
        let mut files = self.listing.list(&FileStorage, &mut |_, _| {})?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let (mut version, mut entry) = (0u64, Vec::new());
        for file in files {
            entry.clear();
            entry.extend_from_slice(&version.to_le_bytes());
            entry.extend_from_slice(file.path.as_os_str().as_encoded_bytes());
            for number in [file.size, file.time_ms].into_iter().chain(file_id(&file.path)) {
                entry.extend_from_slice(&number.to_le_bytes());
            }
            version = hash_bytes(&entry);
        }
        Ok(version)
    }

    /// The identity that a checkpoint compares at a restart.
    pub fn identity(&self) -> String {
        format!("{} files in {}", self.format, self.listing.name())
    }

    /// Opens one part of the source; its list of seen files is kept in `folder`.
    pub fn open(
        &self,
        part: usize,
        env: Arc<dyn Env>,
        folder: Option<PathBuf>,
    ) -> Result<FileSource, EngineError> {
        if self.clean != CleanSource::Off && self.listing.base().join(LOG_FOLDER).is_dir() {
            return Err(EngineError::operator(
                "FILE_SOURCE_CLEANS_A_SINK",
                format!("{} is the folder of a file sink", self.listing.name()),
                "Leave cleanSource out: its log would name files that are gone",
            ));
        }
        Ok(FileSource {
            config: self.clone(),
            part,
            env,
            log: folder.map(|folder| FileLog::new(folder, Crc::Inside)),
            seen: HashMap::new(),
            newest_ms: 0,
            batches: BTreeMap::new(),
            done: None,
            listed: None,
            file: 0,
            reader: None,
            skip_to: 0,
            skip_rows: 0,
            present: None,
            bound: None,
            pending: None,
            next_list_ns: 0,
            row: Vec::new(),
            to_clean: VecDeque::new(),
            counters: SourceCounters::default(),
            notice: |_| {},
            reported: HashSet::new(),
        })
    }
}

/// Numbers that tell a replaced file from the old one, even if the path, the size and the
/// millisecond are the same. Empty on systems without such numbers.
#[cfg(unix)]
fn file_id(path: &Path) -> Vec<u64> {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::metadata(path) else { return Vec::new() };
    let nanoseconds = [metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    let mut id: Vec<u64> = nanoseconds.into_iter().map(i64::cast_unsigned).collect();
    id.push(metadata.ino());
    id
}

#[cfg(not(unix))]
fn file_id(_path: &Path) -> Vec<u64> {
    Vec::new()
}

fn contents(
    format: &str,
    schema: Option<Schema>,
    partitions: &[Field],
    reader: &mut OptionReader<'_>,
) -> PlanResult<Contents> {
    match format {
        #[cfg(feature = "columnar")]
        "parquet" | "orc" => {
            let Some(column_format) = ColumnFormat::of(format) else { unreachable!("it is one") };
            let options = ReadOptions::read(column_format, reader)?;
            reader.get("mergeSchema");
            let Some(mut schema) = schema else {
                return Err(PlanError::new(
                    "STREAMING_FILE_SCHEMA_MISSING",
                    format!("source {format}: a schema must be given"),
                    "SET spark.sql.streaming.schemaInference = true, or give the schema",
                ));
            };
            for partition in partitions {
                if !schema.fields.iter().any(|f| f.name.eq_ignore_ascii_case(&partition.name)) {
                    schema.fields.push(partition.clone());
                }
            }
            let of_file = FileColumns::new(&schema, partitions, reader.zone()?);
            let of_columns = schema.fields.iter().enumerate().filter(|(i, _)| !of_file.has(*i));
            let wanted = of_columns.map(|(i, f)| (i, f.name.clone(), f.data_type.clone()));
            let wanted = wanted.collect();
            Ok(Contents::Columns(Columns { options, schema, of_file, wanted }))
        }
        #[cfg(not(feature = "columnar"))]
        "parquet" | "orc" => Err(PlanError::new(
            "FEATURE_NOT_ENABLED",
            format!("format '{format}' is not in this program"),
            "Build it with the feature `columnar`",
        )),
        _ => Ok(Contents::Records(Box::new(Decoder::read(format, schema, partitions, reader)?))),
    }
}

fn age_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    let cut = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..cut].parse().ok()?;
    let unit = match text[cut..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A listed file, as stored in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    path: String,
    timestamp: u64,
    batch_id: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    log_offset: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    file: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    byte: u64,
    /// The number of emitted rows of the record at `byte`. Only a JSON array has several rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    row: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Reads files that appear in a folder.
pub struct FileSource {
    config: FileSourceConfig,
    part: usize,
    env: Arc<dyn Env>,
    log: Option<FileLog>,
    /// Listed files by path or name, with their modification times.
    seen: HashMap<String, u64>,
    newest_ms: u64,
    /// Log entries that are not fully read, with their files.
    batches: BTreeMap<u64, Vec<Listed>>,
    /// The last log entry that is fully read.
    done: Option<u64>,
    /// The last log entry.
    listed: Option<u64>,
    /// The number of files of the current entry that are fully read.
    file: u64,
    reader: Option<(PathBuf, Opened)>,
    /// The offset at which reading starts in the next file that is opened.
    skip_to: u64,
    /// The number of rows to skip in the record at `skip_to`.
    skip_rows: u64,
    /// The current record if it has several rows, and the number of rows emitted.
    present: Option<(FoundRecord, u64)>,
    /// The end of the current batch.
    bound: Option<Position>,
    /// Trigger available-now: files that existed at the start and are in no entry yet.
    pending: Option<VecDeque<FileInfo>>,
    next_list_ns: u64,
    row: Vec<u8>,
    /// Fully read files that the option `cleanSource` will move or delete, with their log entry.
    to_clean: VecDeque<(u64, PathBuf)>,
    counters: SourceCounters,
    notice: fn(&str),
    /// Paths that were skipped and reported.
    reported: HashSet<PathBuf>,
}

impl FileSource {
    /// The counters, to be read from other threads.
    pub fn counters(&self) -> SourceCounters {
        self.counters.clone()
    }

    /// Sets a callback for notices about skipped paths.
    pub fn on_notice(&mut self, notice: fn(&str)) {
        self.notice = notice;
    }

    fn key(&self, path: &Path) -> String {
        if self.config.name_only {
            path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
        } else {
            uri(path)
        }
    }

    fn see(&mut self, path: &Path, time_ms: u64) {
        let key = self.key(path);
        self.seen.insert(key, time_ms);
        self.newest_ms = self.newest_ms.max(time_ms);
    }

    /// Files modified before this time are neither remembered nor read, in milliseconds since 1970.
    fn horizon_ms(&self) -> u64 {
        let limited = self.config.most_files.is_some() || self.config.most_bytes.is_some();
        if self.config.latest_first && limited {
            return 0;
        }
        self.newest_ms.saturating_sub(self.config.max_age_ms)
    }

    /// New files, in reading order.
    fn list(&mut self) -> Result<VecDeque<FileInfo>, EngineError> {
        let Self { config, env, notice, reported, counters, .. } = self;
        let skipped_paths = &counters.skipped_paths;
        let mut found = config.listing.list(env.storage(), &mut |path, why| {
            if reported.len() < REPORTED_MAX && reported.insert(path.to_path_buf()) {
                notice(&format!("passed over {}: it is {why}", path.display()));
                // ORDERING: relaxed: a counter that nothing else depends on.
                skipped_paths.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        let horizon_ms = if self.seen.is_empty() { 0 } else { self.horizon_ms() };
        let parts = self.config.parts;
        found.retain(|file| {
            let key = self.key(&file.path);
            let ours = parts == 1 || hash_bytes(key.as_bytes()) as usize % parts == self.part;
            ours && file.time_ms >= horizon_ms && !self.seen.contains_key(&key)
        });
        // Paths break ties, so that the order is deterministic.
        found.sort_by(|a, b| (a.time_ms, &a.path).cmp(&(b.time_ms, &b.path)));
        if self.config.latest_first {
            found.reverse();
        }
        Ok(found.into())
    }

    /// Takes the files for one batch from the front of `files`.
    fn take(&self, files: &mut VecDeque<FileInfo>, all: bool) -> Vec<FileInfo> {
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

    /// Adds a log entry for files, durably, before any of them is read.
    fn enter(&mut self, files: Vec<FileInfo>) -> Result<(), EngineError> {
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

    fn here(&self) -> Position {
        let log_offset = self.done.map_or(-1, |done| done as i64);
        let (byte, row) = match (&self.present, &self.reader) {
            (Some((found, rows)), _) => (found.offset, *rows),
            (None, Some((_, input))) => (input.offset(), 0),
            (None, None) => (self.skip_to, self.skip_rows),
        };
        Position { log_offset, file: self.file, byte, row }
    }

    /// Opens the next file. Returns false if there is none before the bound.
    fn open_next(&mut self) -> Result<bool, EngineError> {
        loop {
            let next = self.done.map_or(0, |done| done + 1);
            if self.bound.is_some_and(|bound| {
                bound.log_offset < next as i64
                    && (bound.file, bound.byte) <= (self.file, self.skip_to)
            }) {
                return Ok(false);
            }
            let Some(files) = self.batches.get(&next) else { return Ok(false) };
            let Some(listed) = files.get(self.file as usize) else {
                self.batches.remove(&next);
                (self.done, self.file) = (Some(next), 0);
                continue;
            };
            let path = path_of(&listed.path);
            let skip_to = std::mem::take(&mut self.skip_to);
            let partitions = self.config.listing.partitions(&path);
            let about = std::fs::metadata(&path);
            // The path may have been replaced since it was listed.
            let special = about.as_ref().ok().and_then(special);
            let is_empty = about.is_ok_and(|about| about.len() == 0);
            let opened = match &mut self.config.contents {
                _ if special.is_some() => {
                    let kind = format!("it is {}", special.unwrap_or_default());
                    Err(std::io::Error::other(kind))
                }
                _ if is_empty => Ok(Opened::Nothing),
                Contents::Records(decoder) => {
                    decoder.begin_file(&path, &partitions)?;
                    let most = self.config.limits.record_bytes_max;
                    open_records(decoder, &path, skip_to, most, self.notice).map(Opened::Records)
                }
                #[cfg(feature = "columnar")]
                Contents::Columns(columns) => {
                    columns.of_file.begin(&path, &partitions)?;
                    ColumnInput::open(&columns.options, &path, &columns.wanted, skip_to)
                        .map(Opened::Columns)
                }
            };
            let opened = match opened {
                Ok(opened) => opened,
                Err(error) if self.config.limits.ignores(&error) => {
                    (self.notice)(&format!("passed over {}: {error}", path.display()));
                    Opened::Nothing
                }
                Err(error) => return Err(unreadable(&path, &error)),
            };
            self.reader = Some((path, opened));
            return Ok(true);
        }
    }

    /// Reads one record and emits its row. Returns false at the end of the file.
    #[inline]
    fn emit<D>(&mut self, down: &mut D, now_ns: u64) -> Result<bool, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let Self { reader, config, row, counters, notice, present, .. } = self;
        let Some((path, opened)) = reader else { return Ok(false) };
        let limits = config.limits;
        let read = match (&mut config.contents, opened) {
            (Contents::Records(decoder), Opened::Records(input)) if present.is_some() => {
                Ok(next_row(decoder, input, present, row))
            }
            (Contents::Records(decoder), Opened::Records(input)) => match input.record() {
                Ok(Some(found)) => {
                    let emitted = decoded(decoder, path, input, &found, counters, row)?;
                    if self.skip_rows > 0 {
                        let rows = std::mem::take(&mut self.skip_rows);
                        skip_rows(decoder, input, found, rows, present, row);
                        return Ok(true);
                    }
                    if matches!(emitted, Emitted::Row) && decoder.has_more_rows() {
                        *present = Some((found, 1));
                    }
                    Ok(emitted)
                }
                Ok(None) => Ok(Emitted::End),
                Err(error) => Err(error),
            },
            #[cfg(feature = "columnar")]
            (Contents::Columns(columns), Opened::Columns(input)) => {
                row.clear();
                let width = columns.schema.fields.len();
                match input.row(|| RowWriter::new(row, width)) {
                    Ok(true) => {
                        columns.of_file.put(&mut RowWriter::resume(row, width));
                        Ok(Emitted::Row)
                    }
                    Ok(false) => Ok(Emitted::End),
                    Err(error) => Err(error),
                }
            }
            (_, Opened::Nothing) => Ok(Emitted::End),
            #[cfg(feature = "columnar")]
            _ => unreachable!("a file is opened as what is in it"),
        };
        let emitted = match read {
            Ok(emitted) => emitted,
            Err(error) if limits.ignores_corrupt => {
                notice(&format!("passed over the rest of {}: {error}", path.display()));
                Emitted::End
            }
            Err(error) => return Err(unreadable(path, &error)),
        };
        match emitted {
            Emitted::End => return Ok(false),
            Emitted::Nothing => return Ok(true),
            Emitted::Row => {}
        }
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.fetch_add(1, Ordering::Relaxed);
        down.push(Row(&self.row), now_ns)?;
        Ok(true)
    }

    /// Closes the current file.
    fn close(&mut self) {
        if let Some((path, _)) = self.reader.take() {
            let entry = self.done.map_or(0, |done| done + 1);
            if self.config.clean != CleanSource::Off {
                self.to_clean.push_back((entry, path));
            }
            self.file += 1;
            let whole = self.batches.get(&entry).is_some_and(|f| f.len() as u64 == self.file);
            if whole {
                self.batches.remove(&entry);
                (self.done, self.file) = (Some(entry), 0);
            }
        }
    }

    /// Fails if the log ends before the position of a checkpoint. Without the missing entries,
    /// files that were already read would be read again.
    fn check_listed(&self, log_offset: i64) -> Result<(), EngineError> {
        match &self.log {
            Some(log) if self.listed.map_or(-1, |listed| listed as i64) < log_offset => {
                let error = std::io::Error::from(std::io::ErrorKind::NotFound);
                Err(log_entry::unreadable(&log.folder().join(log_offset.to_string()), &error))
            }
            _ => Ok(()),
        }
    }

    fn at_bound(&self) -> bool {
        let here = self.here();
        self.bound.is_some_and(|bound| {
            (here.log_offset, here.file, here.byte) >= (bound.log_offset, bound.file, bound.byte)
        })
    }

    fn parse(at: &Offset) -> Result<Position, EngineError> {
        serde_json::from_str(&at.0).map_err(|_| {
            at.number().err().unwrap_or_else(|| {
                EngineError::operator("INVALID_OFFSET", "a file source's offset is an object", "")
            })
        })
    }

    fn offset(position: Position) -> Offset {
        Offset(serde_json::to_string(&position).unwrap_or_default())
    }
}

fn open_records(
    decoder: &mut Decoder,
    path: &Path,
    skip_to: u64,
    record_bytes_max: usize,
    notice: fn(&str),
) -> std::io::Result<Input> {
    let mut input =
        Input::open(path, skip_to, decoder.framing().clone(), decoder.coding(), record_bytes_max)?;
    decoder.set_line_end(input.line_end());
    if skip_to == 0 && decoder.has_header() {
        // The header is not a record.
        while let Some(found) = input.record()? {
            let record = input.bytes(&found);
            if !decoder.is_skipped(record) {
                if let Some(difference) =
                    decoder.check_header(record).map_err(std::io::Error::other)?
                {
                    notice(&format!(
                        "{}: {difference}; columns are read by their position. Option \
                         enforceSchema 'false' makes this an error",
                        path.display()
                    ));
                }
                break;
            }
        }
    }
    Ok(input)
}

/// Decodes a record into a row.
#[inline]
fn decoded(
    decoder: &mut Decoder,
    path: &Path,
    input: &Input,
    found: &FoundRecord,
    counters: &SourceCounters,
    row: &mut Vec<u8>,
) -> Result<Emitted, EngineError> {
    let record = input.bytes(found);
    if found.fault.is_none() && decoder.is_skipped(record) {
        return Ok(Emitted::Nothing);
    }
    let outcome = match found.fault {
        None => decoder.decode(record, row),
        Some(fault) => {
            decoder.undecoded(record, row);
            Err(fault)
        }
    };
    if let Err(reason) = outcome {
        if decoder.mode() == Mode::FailFast || decoder.is_broken() {
            return Err(malformed(path, found.offset, reason, record));
        }
        let at = (found.offset, found.length);
        if !decoder.has_row_for_bad() {
            counters.bad.add(Some(path), at, reason, record);
            return Ok(Emitted::Nothing);
        }
        counters.bad.add_permissive(Some(path), at, reason, record);
    }
    Ok(if row.is_empty() { Emitted::Nothing } else { Emitted::Row })
}

/// Writes the next row of a record that has several.
fn next_row(
    decoder: &mut Decoder,
    input: &Input,
    present: &mut Option<(FoundRecord, u64)>,
    row: &mut Vec<u8>,
) -> Emitted {
    if let Some((found, rows)) = present
        && decoder.next_row(input.bytes(found), row)
    {
        *rows += 1;
        return Emitted::Row;
    }
    *present = None;
    Emitted::Nothing
}

/// Skips the rows of a decoded record that were emitted before a restart.
fn skip_rows(
    decoder: &mut Decoder,
    input: &Input,
    found: FoundRecord,
    rows: u64,
    present: &mut Option<(FoundRecord, u64)>,
    row: &mut Vec<u8>,
) {
    *present = Some((found, 1));
    for _ in 1..rows {
        if matches!(next_row(decoder, input, present, row), Emitted::Nothing) {
            return;
        }
    }
}

fn malformed(path: &Path, offset: u64, reason: &str, record: &[u8]) -> EngineError {
    EngineError::operator(
        "MALFORMED_RECORD_IN_PARSING",
        format!("{reason}: {}", record[..record.len().min(KEPT_BYTES)].escape_ascii()),
        "Mend the record, or use mode 'PERMISSIVE' or 'DROPMALFORMED'",
    )
    .at(format!("{}, byte {offset}", path.display()))
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for FileSource {
    fn name(&self) -> &str {
        &self.config.format
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let now_ns = cx.env.now_ns();
        let mut emitted = 0;
        while emitted < cx.budget && down.is_ready() {
            if self.bound.is_some() && self.at_bound() {
                self.bound = None;
                return Ok(Polled::AtEndOffset);
            }
            if self.reader.is_none() && !self.open_next()? {
                break;
            }
            emitted += 1;
            if !self.emit(down, now_ns)? {
                self.close();
            }
        }
        if emitted > 0 {
            return Ok(Polled::Emitted);
        }
        if self.bound.is_some() {
            let reached = self.at_bound();
            if reached {
                self.bound = None;
            }
            return Ok(if reached { Polled::AtEndOffset } else { Polled::Emitted });
        }
        if !down.is_ready() {
            return Ok(Polled::Idle);
        }
        if now_ns < self.next_list_ns {
            cx.wake_at(self.next_list_ns);
            return Ok(Polled::Idle);
        }
        let mut files = self.list()?;
        // Listing takes at most a tenth of the time.
        let end_ns = cx.env.now_ns();
        self.next_list_ns = end_ns + LIST_EVERY_NS.max((end_ns - now_ns) * 9);
        let taken = self.take(&mut files, true);
        let any = !taken.is_empty();
        self.enter(taken)?;
        if !any {
            cx.wake_at(self.next_list_ns);
        }
        Ok(if any { Polled::Emitted } else { Polled::Idle })
    }

    fn position(&self) -> Offset {
        Self::offset(self.here())
    }

    fn records_emitted(&self) -> u64 {
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.load(Ordering::Relaxed)
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        let position = Self::parse(at)?;
        self.done = u64::try_from(position.log_offset).ok();
        (self.file, self.skip_to) = (position.file, position.byte);
        self.skip_rows = position.row;
        Ok(())
    }

    fn attach(
        &mut self,
        _io: &mut millstream_engine::runtime::stage::Io<'_>,
    ) -> Result<(), EngineError> {
        let Some(log) = self.log.clone() else { return Ok(()) };
        let storage = self.env.storage();
        self.listed = log.settled(storage)?;
        self.check_listed(self.done.map_or(-1, |done| done as i64))?;
        for (_, line) in log.read_all(storage)? {
            let listed: Listed = serde_json::from_str(&line)
                .map_err(|error| log_entry::damaged(log.folder(), &error.to_string()))?;
            self.see(&path_of(&listed.path), listed.timestamp);
            if self.done.is_none_or(|done| listed.batch_id > done) {
                self.batches.entry(listed.batch_id).or_default().push(listed);
            }
        }
        Ok(())
    }

    fn plan(&mut self, extent: ReadLimit, _cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        let here = self.here();
        let end = |source: &Self| Position {
            log_offset: source.listed.map_or(-1, |listed| listed as i64),
            ..Position::default()
        };
        let unread = end(self).log_offset > here.log_offset;
        let mut limited = unread;
        if !unread || extent == ReadLimit::All {
            let all = extent == ReadLimit::All;
            let mut files = match self.pending.take() {
                Some(files) => files,
                None => self.list()?,
            };
            let taken = self.take(&mut files, all);
            limited = !files.is_empty();
            if extent == ReadLimit::AvailableAtStart {
                self.pending = Some(files);
            }
            self.enter(taken)?;
        } else if extent == ReadLimit::AvailableAtStart && self.pending.is_none() {
            self.pending = Some(self.list()?);
        }
        let to = end(self);
        Ok(EndOffset {
            end: Self::offset(to),
            has_new: to.log_offset > here.log_offset,
            exhausted: false,
            limited,
        })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        let end = Self::parse(end)?;
        self.check_listed(end.log_offset)?;
        self.bound = Some(end);
        Ok(())
    }

    fn on_committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        let end = Self::parse(end)?;
        while let Some((entry, _)) = self.to_clean.front() {
            if *entry as i64 > end.log_offset {
                break;
            }
            let Some((_, path)) = self.to_clean.pop_front() else { break };
            // Best effort, as in Spark: a file that cannot be moved or deleted is still remembered
            // as read.
            match &self.config.clean {
                CleanSource::Off => {}
                CleanSource::Delete => drop(std::fs::remove_file(&path)),
                CleanSource::Archive(folder) => {
                    let below = path.strip_prefix("/").unwrap_or(&path);
                    let to = folder.join(below);
                    if let Some(parent) = to.parent() {
                        drop(std::fs::create_dir_all(parent));
                    }
                    drop(std::fs::rename(&path, &to));
                }
            }
        }
        Ok(())
    }
}
