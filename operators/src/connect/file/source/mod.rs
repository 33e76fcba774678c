//! The file source: reads a single file, or the existing and new files of a folder or a glob
//! pattern. Formats: text, CSV, JSON, and with the feature `columnar` Parquet and ORC.
//!
//! Each file is read once, when it is first listed. It must appear whole (written elsewhere and
//! renamed into the folder) and is not read again. A query with a checkpoint logs each group of new
//! files (`sources/I/N`, in Spark's layout) before any of them is read, so a restart reads the same
//! files in the same order.
//!
//! *Offsets.* `{"logOffset":N}` is the position after all files of entries up to N;
//! `{"logOffset":N,"file":K,"byte":B}` is the position after the first K files of entry N + 1 and B
//! more bytes (rows for Parquet and ORC). `"row":R` is added if R rows of the JSON array at that
//! byte were emitted.
//!
//! *Parts.* With `numPartitions` the files are distributed over that many sources by a hash of
//! their paths, or of their names with `fileNameOnly`. Each has a log of its own and reads its
//! files in order. `maxFilesPerTrigger` and `maxBytesPerTrigger` apply to all parts together: each
//! part chooses the files of a batch among those of all parts, and reads its own ones. So a batch
//! has the files that a source of one part would read, and its watermark does not depend on the
//! number of parts. Only files that appear while the parts list the folder may differ.
//!
//! *Limits.* A record of text, CSV or JSON that is longer than `maxRecordBytes` (128 MiB by
//! default) is a bad record. Such files are decompressed according to their extension (`gz`,
//! `deflate`, `bz2`, `zst`); a restart in the middle of a compressed file decompresses it from the
//! start. The worker moves or deletes a read file (`cleanSource`) after its batch is committed.

mod config;
pub(in crate::connect::file) mod decoder;
mod discovery;
pub(in crate::connect::file) mod json_records;
mod opened_file;
mod position;
pub(in crate::connect::file) mod record_reader;

pub use crate::connect::file::source::config::FileSourceConfig;

#[cfg(feature = "columnar")]
use crate::connect::columnar::ColumnInput;
use crate::connect::file::file_log::FileLog;
use crate::connect::file::listing::{FileInfo, special, unreadable};
use crate::connect::file::source::config::{CleanSource, Contents};
use crate::connect::file::source::discovery::Listed;
use crate::connect::file::source::opened_file::{
    Emitted, Opened, decoded, next_row, open_records, skip_rows,
};
use crate::connect::file::source::position::Position;
use crate::connect::file::source::record_reader::FoundRecord;
use crate::connect::file::uri::path_of;
use crate::connect::source_counters::SourceCounters;
use crate::table::row::Row;
#[cfg(feature = "columnar")]
use crate::table::row::RowWriter;
use millstream_engine::checkpoint::log_entry;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::Env;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Minimum time between two listings in continuous mode, in nanoseconds.
const LIST_EVERY_NS: u64 = 10_000_000;
/// Reads a single file, or the existing and new files of a folder or a glob pattern.
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

    /// Sets a callback for notices, such as skipped paths.
    pub fn on_notice(&mut self, notice: fn(&str)) {
        self.notice = notice;
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
                    (self.notice)(&format!("skipped {}: {error}", path.display()));
                    Opened::Nothing
                }
                Err(error) => return Err(unreadable(&path, &error)),
            };
            self.reader = Some((path, opened));
            return Ok(true);
        }
    }

    /// Reads one record, or the next row of an array, and emits its row if it has one. Returns
    /// false at the end of the file.
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
                notice(&format!("skipped the rest of {}: {error}", path.display()));
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
        let (taken, before) = (self.take(&mut files, true), self.listed);
        self.enter_own(taken)?;
        let any = self.listed > before;
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
        let (mut limited, mut is_begun) = (unread, false);
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
            is_begun = !taken.is_empty();
            self.enter_own(taken)?;
        } else if extent == ReadLimit::AvailableAtStart && self.pending.is_none() {
            self.pending = Some(self.list()?);
        }
        let to = end(self);
        Ok(EndOffset {
            end: Self::offset(to),
            // The files of the batch may all belong to other parts.
            has_new: is_begun || to.log_offset > here.log_offset,
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
