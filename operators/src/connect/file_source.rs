//! Files that appear in a folder: text, CSV, JSON.
//!
//! A file is read once, when it is first listed; it must appear whole (written elsewhere and
//! renamed in) and is not looked at again. What was listed when is kept in the checkpoint
//! (`sources/I/N`, in Spark's layout) before any of it is read, so that a restart reads the same
//! files in the same order.
//!
//! *Offsets.* `{"logOffset":N}` stands behind all files of entries up to N;
//! `{"logOffset":N,"file":K,"byte":B}` behind the first K files of entry N + 1 and B bytes more.
//!
//! *Limits.* A line longer than 1 MiB is set aside; a CSV record has no such bound yet. Files
//! are not decompressed; the clean-up of files that were read happens when the commit after theirs has
//! come, on the worker.

use super::bad_records::KEPT_BYTES;
use super::decode::{Decoder, Framing, Mode};
use super::file_log::{Crc, FileLog};
use super::file_sink::{LOG_FOLDER, committed_files, path_of, uri};
use super::options::OptionReader;
use super::socket_source::SourceCounters;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::row::Row;
use crate::table::types::Schema;
use millstream_engine::checkpoint::entry;
use millstream_engine::driver::{Extent, Planned};
use millstream_engine::error::EngineError;
use millstream_engine::seam::Env;
use millstream_engine::stage::Push;
use millstream_engine::tasklet::{Offset, Polled, Source, StepCx};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Longest record.
const MOST_RECORD_BYTES: usize = 1 << 20;
/// From one listing to the next at least, in continuous mode.
const LIST_EVERY_NS: u64 = 10_000_000;
/// Folders below the path that are looked into, to stop at a link that leads in a circle.
const MOST_DEPTH: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Clean {
    Off,
    Delete,
    Archive(PathBuf),
}

/// The options, read.
#[derive(Clone, Debug)]
pub struct FileSourceConfig {
    format: String,
    path: PathBuf,
    /// A pattern in the last part of the path.
    pattern: Option<glob::Pattern>,
    filter: Option<glob::Pattern>,
    recursive: bool,
    most_files: Option<u64>,
    most_bytes: Option<u64>,
    latest_first: bool,
    name_only: bool,
    max_age_ms: u64,
    clean: Clean,
    decoder: Decoder,
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

fn pattern(name: &str, text: &str) -> PlanResult<glob::Pattern> {
    glob::Pattern::new(text).map_err(|error| invalid(name, text, &error.to_string()))
}

impl FileSourceConfig {
    /// Reads Spark's options of file sources and of the format.
    pub fn read(format: &str, options: &Options, schema: Option<Schema>) -> PlanResult<Self> {
        let what = format!("source {format}");
        let mut reader = OptionReader::new(&what, options);
        let path = reader.required("path", "/data/in")?;
        let decoder = Decoder::read(format, schema, &mut reader)?;
        let (mut folder, mut last) = (PathBuf::from(path), None);
        if path.contains(['*', '?', '[', '{']) {
            last = match folder.file_name() {
                Some(name) => Some(pattern("path", &name.to_string_lossy())?),
                None => None,
            };
            folder.pop();
            if folder.to_string_lossy().contains(['*', '?', '[', '{']) {
                return Err(PlanError::not_yet("a pattern in a path before its last part"));
            }
        } else if !folder.is_dir() {
            return Err(PlanError::new(
                "PATH_NOT_FOUND",
                format!("there is no folder {}", folder.display()),
                "A file source reads the files of a folder; make it first",
            ));
        }
        let path = std::path::absolute(&folder).unwrap_or(folder);
        let filter = match reader.get("pathGlobFilter") {
            Some(text) => Some(pattern("pathGlobFilter", text)?),
            None => None,
        };
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
            "delete" => Clean::Delete,
            "archive" => {
                Clean::Archive(PathBuf::from(reader.required("sourceArchiveDir", "/data/done")?))
            }
            _ => Clean::Off,
        };
        reader.get("sourceArchiveDir");
        let config = Self {
            format: format.to_string(),
            path,
            pattern: last,
            filter,
            recursive: reader.flag("recursiveFileLookup", false)?,
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
            decoder,
        };
        reader.finish()?;
        Ok(config)
    }

    /// The columns.
    pub fn schema(&self) -> Schema {
        self.decoder.schema()
    }

    /// What a checkpoint remembers of it.
    pub fn identity(&self) -> String {
        format!("{} files in {}", self.format, self.path.display())
    }

    /// The source; what it has seen is kept in `folder`.
    pub fn open(
        &self,
        env: Arc<dyn Env>,
        folder: Option<PathBuf>,
    ) -> Result<FileSource, EngineError> {
        if self.clean != Clean::Off && self.path.join(LOG_FOLDER).is_dir() {
            return Err(EngineError::operator(
                "FILE_SOURCE_CLEANS_A_SINK",
                format!("{} is the folder of a file sink", self.path.display()),
                "Leave cleanSource out: its log would name files that are gone",
            ));
        }
        Ok(FileSource {
            config: self.clone(),
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
            bound: None,
            pending: None,
            next_list_ns: 0,
            row: Vec::new(),
            to_clean: VecDeque::new(),
            counters: SourceCounters::default(),
        })
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

/// A listed file, as the log has it.
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
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

enum Records {
    Lines { file: BufReader<File>, line: Vec<u8> },
    Csv { reader: Box<csv::Reader<File>>, record: csv::ByteRecord },
}

/// The source.
pub struct FileSource {
    config: FileSourceConfig,
    env: Arc<dyn Env>,
    log: Option<FileLog>,
    /// Files that were listed, by path or name, with their times.
    seen: HashMap<String, u64>,
    newest_ms: u64,
    /// Listed files that are not all read, by log entry.
    batches: BTreeMap<u64, Vec<Listed>>,
    /// The last entry that was read whole.
    done: Option<u64>,
    /// The last entry of the log.
    listed: Option<u64>,
    /// Files of the present entry that were read whole.
    file: u64,
    reader: Option<(PathBuf, Records, u64)>,
    /// Where to begin in the next file that is opened.
    skip_to: u64,
    /// The last entry to be read.
    bound: Option<Position>,
    /// Trigger available-now: the files that were there at the start and are in no entry yet.
    pending: Option<VecDeque<(PathBuf, u64, u64)>>,
    next_list_ns: u64,
    row: Vec<u8>,
    /// Files read whole, with the entry that they were in.
    to_clean: VecDeque<(u64, PathBuf)>,
    counters: SourceCounters,
}

impl FileSource {
    /// The counters, to be read from other threads.
    pub fn counters(&self) -> SourceCounters {
        self.counters.clone()
    }

    fn fails(&self, path: &Path, error: &std::io::Error) -> EngineError {
        EngineError::operator(
            "FILE_SOURCE_FAILED",
            format!("cannot read {}: {error}", path.display()),
            "Check that it is there and may be read; a file must not be removed before it was read",
        )
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

    /// Below this time files are too old to be remembered, and so to be read.
    fn horizon_ms(&self) -> u64 {
        let limited = self.config.most_files.is_some() || self.config.most_bytes.is_some();
        if self.config.latest_first && limited {
            return 0;
        }
        self.newest_ms.saturating_sub(self.config.max_age_ms)
    }

    /// New files with time and size, in the order in which they are to be read.
    fn list(&self) -> Result<VecDeque<(PathBuf, u64, u64)>, EngineError> {
        let mut found = Vec::new();
        match committed_files(self.env.storage(), &self.config.path)? {
            Some(paths) => {
                for path in paths {
                    let metadata =
                        std::fs::metadata(&path).map_err(|error| self.fails(&path, &error))?;
                    self.consider(path, &metadata, &mut found);
                }
            }
            None => self.walk(&self.config.path, 0, &mut found)?,
        }
        let horizon_ms = if self.seen.is_empty() { 0 } else { self.horizon_ms() };
        found.retain(|(path, time_ms, _)| {
            *time_ms >= horizon_ms && !self.seen.contains_key(&self.key(path))
        });
        // Names break ties, so that the order is the same each time.
        found.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        if self.config.latest_first {
            found.reverse();
        }
        Ok(found.into())
    }

    fn walk(
        &self,
        folder: &Path,
        depth: usize,
        found: &mut Vec<(PathBuf, u64, u64)>,
    ) -> Result<(), EngineError> {
        let entries = std::fs::read_dir(folder).map_err(|error| self.fails(folder, &error))?;
        for entry in entries {
            let path = entry.map_err(|error| self.fails(folder, &error))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            if name.is_none_or(|name| name.starts_with(['_', '.'])) {
                continue;
            }
            // A file may go between its listing and this question.
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            if !metadata.is_dir() {
                self.consider(path, &metadata, found);
            } else if self.config.recursive && depth < MOST_DEPTH {
                self.walk(&path, depth + 1, found)?;
            }
        }
        Ok(())
    }

    fn consider(
        &self,
        path: PathBuf,
        metadata: &std::fs::Metadata,
        found: &mut Vec<(PathBuf, u64, u64)>,
    ) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let wanted = |pattern: &Option<glob::Pattern>| {
            pattern.as_ref().is_none_or(|pattern| pattern.matches(&name))
        };
        if wanted(&self.config.pattern) && wanted(&self.config.filter) {
            let since = metadata.modified().ok();
            let since = since.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let time_ms = since.map_or(0, |since| since.as_millis() as u64);
            found.push((path, time_ms, metadata.len()));
        }
    }

    /// Takes from the front of `files` what one batch may have.
    fn take(&self, files: &mut VecDeque<(PathBuf, u64, u64)>, all: bool) -> Vec<(PathBuf, u64)> {
        let mut taken = Vec::new();
        let mut bytes = 0u64;
        while let Some((_, _, size)) = files.front() {
            let full = self.config.most_files.is_some_and(|most| taken.len() as u64 >= most)
                || self.config.most_bytes.is_some_and(|most| {
                    // At least one, however large.
                    !taken.is_empty() && bytes + size > most
                });
            if full && !all {
                break;
            }
            if let Some((path, time_ms, size)) = files.pop_front() {
                bytes += size;
                taken.push((path, time_ms));
            }
        }
        taken
    }

    /// Makes a log entry of files, durably, before any of them is read.
    fn enter(&mut self, files: Vec<(PathBuf, u64)>) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let batch = self.listed.map_or(0, |listed| listed + 1);
        let listed: Vec<Listed> = files
            .iter()
            .map(|(path, time_ms)| Listed { path: uri(path), timestamp: *time_ms, batch_id: batch })
            .collect();
        for (path, time_ms) in &files {
            self.see(path, *time_ms);
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
        let byte = self.reader.as_ref().map_or(self.skip_to, |(_, _, at)| *at);
        Position { log_offset, file: self.file, byte }
    }

    /// Opens the next file. False if there is none before the bound.
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
            let records = self.open(&path, skip_to)?;
            self.reader = Some((path, records, skip_to));
            return Ok(true);
        }
    }

    fn open(&self, path: &Path, skip_to: u64) -> Result<Records, EngineError> {
        if path
            .extension()
            .is_some_and(|e| ["gz", "bz2", "zst", "lz4", "snappy"].iter().any(|x| e == *x))
        {
            return Err(EngineError::operator(
                "NOT_YET_SUPPORTED",
                format!("{} is compressed", path.display()),
                "Decompress it, or leave such files out with pathGlobFilter",
            ));
        }
        let fails = |error: std::io::Error| self.fails(path, &error);
        let mut file = File::open(path).map_err(fails)?;
        let Framing::Csv { separator, quote, escape, comment, header, .. } =
            &self.config.decoder.framing
        else {
            file.seek(SeekFrom::Start(skip_to)).map_err(fails)?;
            return Ok(Records::Lines {
                file: BufReader::with_capacity(256 << 10, file),
                line: Vec::new(),
            });
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(*separator)
            .quote(*quote)
            .escape((escape != quote).then_some(*escape))
            .comment(*comment)
            .has_headers(*header && skip_to == 0)
            .flexible(true)
            .buffer_capacity(256 << 10)
            .from_reader(file);
        if skip_to > 0 {
            let mut position = csv::Position::new();
            position.set_byte(skip_to);
            reader.seek(position).map_err(|error| self.csv_fails(path, &error))?;
        }
        Ok(Records::Csv { reader: Box::new(reader), record: csv::ByteRecord::new() })
    }

    fn csv_fails(&self, path: &Path, error: &csv::Error) -> EngineError {
        self.fails(path, &std::io::Error::other(error.to_string()))
    }

    /// Reads one record and emits its row. False at the end of the file.
    fn emit<D>(&mut self, down: &mut D, now_ns: u64) -> Result<bool, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let Some((path, records, at)) = &mut self.reader else { return Ok(false) };
        let begin = *at;
        let (decoder, row) = (&self.config.decoder, &mut self.row);
        let (outcome, length, raw) = match records {
            Records::Lines { file, line } => {
                let taken = read_line(file, line).map_err(|error| {
                    EngineError::operator(
                        "FILE_SOURCE_FAILED",
                        format!("cannot read {}: {error}", path.display()),
                        "",
                    )
                })?;
                if taken == 0 {
                    return Ok(false);
                }
                *at += taken;
                let text = trim_end(line);
                if taken as usize > MOST_RECORD_BYTES {
                    row.clear();
                    self.counters.bad.add(begin, taken, "line longer than 1 MiB", text);
                    return Ok(true);
                }
                if text.is_empty() && !matches!(decoder.framing, Framing::Text) {
                    return Ok(true);
                }
                (decoder.line(text, row), taken, text)
            }
            Records::Csv { reader, record } => {
                let more = reader.read_byte_record(record).map_err(|error| {
                    EngineError::operator(
                        "FILE_SOURCE_FAILED",
                        format!("cannot read {}: {error}", path.display()),
                        "",
                    )
                })?;
                *at = reader.position().byte();
                if !more {
                    return Ok(false);
                }
                (decoder.fields(record.iter(), row), *at - begin, record.as_slice())
            }
        };
        if let Err(reason) = outcome {
            match decoder.mode {
                Mode::FailFast => {
                    return Err(EngineError::operator(
                        "MALFORMED_RECORD_IN_PARSING",
                        format!("{reason}: {}", raw[..raw.len().min(KEPT_BYTES)].escape_ascii()),
                        "Mend the record, or use mode 'PERMISSIVE' or 'DROPMALFORMED'",
                    )
                    .at(format!("{}, byte {begin}", path.display())));
                }
                Mode::Permissive | Mode::DropMalformed => {
                    self.counters.bad.add(begin, length, reason, raw);
                }
            }
            // Text that is not UTF-8 has no row to be permissive with.
            if decoder.mode == Mode::DropMalformed || matches!(decoder.framing, Framing::Text) {
                return Ok(true);
            }
        }
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.fetch_add(1, Ordering::Relaxed);
        down.push(Row(&self.row), now_ns)?;
        Ok(true)
    }

    /// Ends the present file.
    fn close(&mut self) {
        if let Some((path, ..)) = self.reader.take() {
            let entry = self.done.map_or(0, |done| done + 1);
            if self.config.clean != Clean::Off {
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

    /// The log must go as far as a position says: without an entry, files that were read would be
    /// taken for new ones.
    fn check_listed(&self, log_offset: i64) -> Result<(), EngineError> {
        match &self.log {
            Some(log) if self.listed.map_or(-1, |listed| listed as i64) < log_offset => {
                let error = std::io::Error::from(std::io::ErrorKind::NotFound);
                Err(entry::unreadable(&log.folder().join(log_offset.to_string()), &error))
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

/// Reads up to and with a line end; what is beyond the limit is read and not kept. Returns the
/// bytes read.
fn read_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<u64> {
    line.clear();
    let kept = file.by_ref().take(MOST_RECORD_BYTES as u64 + 1).read_until(b'\n', line)?;
    let mut read = kept as u64;
    if kept > MOST_RECORD_BYTES && line.last() != Some(&b'\n') {
        read += file.skip_until(b'\n')? as u64;
    }
    Ok(read)
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for FileSource {
    fn name(&self) -> &str {
        &self.config.format
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let now_ns = cx.env.now_ns();
        let mut emitted = 0;
        while emitted < cx.budget && down.ready() {
            if self.bound.is_some() && self.at_bound() {
                self.bound = None;
                return Ok(Polled::AtBound);
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
            return Ok(Polled::Some);
        }
        if self.bound.is_some() {
            let reached = self.at_bound();
            if reached {
                self.bound = None;
            }
            return Ok(if reached { Polled::AtBound } else { Polled::Some });
        }
        if !down.ready() {
            return Ok(Polled::Idle);
        }
        if now_ns < self.next_list_ns {
            cx.wake_at(self.next_list_ns);
            return Ok(Polled::Idle);
        }
        let mut files = self.list()?;
        // A listing takes at most a tenth of the time.
        let end_ns = cx.env.now_ns();
        self.next_list_ns = end_ns + LIST_EVERY_NS.max((end_ns - now_ns) * 9);
        let taken = self.take(&mut files, true);
        let any = !taken.is_empty();
        self.enter(taken)?;
        if !any {
            cx.wake_at(self.next_list_ns);
        }
        Ok(if any { Polled::Some } else { Polled::Idle })
    }

    fn position(&self) -> Offset {
        Self::offset(self.here())
    }

    fn records(&self) -> u64 {
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.load(Ordering::Relaxed)
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        let position = Self::parse(at)?;
        self.done = u64::try_from(position.log_offset).ok();
        (self.file, self.skip_to) = (position.file, position.byte);
        Ok(())
    }

    fn attach(&mut self, _io: &mut millstream_engine::stage::Io<'_>) -> Result<(), EngineError> {
        let Some(log) = self.log.clone() else { return Ok(()) };
        let storage = self.env.storage();
        self.listed = log.settled(storage)?;
        self.check_listed(self.done.map_or(-1, |done| done as i64))?;
        for (_, line) in log.read_all(storage)? {
            let listed: Listed = serde_json::from_str(&line)
                .map_err(|error| entry::damaged(log.folder(), &error.to_string()))?;
            self.see(&path_of(&listed.path), listed.timestamp);
            if self.done.is_none_or(|done| listed.batch_id > done) {
                self.batches.entry(listed.batch_id).or_default().push(listed);
            }
        }
        Ok(())
    }

    fn plan(&mut self, extent: Extent, _cx: &mut StepCx<'_>) -> Result<Planned, EngineError> {
        let here = self.here();
        let end = |source: &Self| Position {
            log_offset: source.listed.map_or(-1, |listed| listed as i64),
            ..Position::default()
        };
        let unread = end(self).log_offset > here.log_offset;
        let mut limited = unread;
        if !unread || extent == Extent::All {
            let all = extent == Extent::All;
            let mut files = match self.pending.take() {
                Some(files) => files,
                None => self.list()?,
            };
            let taken = self.take(&mut files, all);
            limited = !files.is_empty();
            if extent == Extent::AsOfStart {
                self.pending = Some(files);
            }
            self.enter(taken)?;
        } else if extent == Extent::AsOfStart && self.pending.is_none() {
            self.pending = Some(self.list()?);
        }
        let to = end(self);
        Ok(Planned {
            end: Self::offset(to),
            has_new: to.log_offset > here.log_offset,
            exhausted: false,
            limited,
        })
    }

    fn bound(&mut self, end: &Offset) -> Result<(), EngineError> {
        let end = Self::parse(end)?;
        self.check_listed(end.log_offset)?;
        self.bound = Some(end);
        Ok(())
    }

    fn committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        let end = Self::parse(end)?;
        while let Some((entry, _)) = self.to_clean.front() {
            if *entry as i64 > end.log_offset {
                break;
            }
            let Some((_, path)) = self.to_clean.pop_front() else { break };
            // Best effort, as in Spark: a file that stays is in the log of what was seen.
            match &self.config.clean {
                Clean::Off => {}
                Clean::Delete => drop(std::fs::remove_file(&path)),
                Clean::Archive(folder) => {
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
