//! The options of a file source.

#[cfg(feature = "columnar")]
use crate::connect::columnar::{ColumnFormat, ReadOptions};
#[cfg(feature = "columnar")]
use crate::connect::file::file_columns::FileColumns;
use crate::connect::file::file_columns::{SchemaOrigin, with_partitions};
use crate::connect::file::file_log::{Crc, FileLog};
use crate::connect::file::listing::Listing;
use crate::connect::file::read_limits::Limits;
use crate::connect::file::sink::LOG_FOLDER;
use crate::connect::file::source::FileSource;
use crate::connect::file::source::decoder::Decoder;
use crate::connect::file::uri::local_path;
use crate::connect::format_settings::FormatSettings;
use crate::connect::options::OptionReader;
use crate::connect::source_counters::SourceCounters;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
#[cfg(feature = "columnar")]
use crate::table::types::DataType;
use crate::table::types::{Field, Schema};
use millstream_engine::checkpoint::key_group::hash_bytes;
use millstream_engine::env::Env;
use millstream_engine::env::storage::FileStorage;
use millstream_engine::error::EngineError;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The parsed options of a file source.
#[derive(Clone, Debug)]
pub struct FileSourceConfig {
    pub(in crate::connect::file::source) format: String,
    pub(in crate::connect::file::source) listing: Listing,
    pub(in crate::connect::file::source) limits: Limits,
    pub(in crate::connect::file::source) most_files: Option<u64>,
    pub(in crate::connect::file::source) most_bytes: Option<u64>,
    pub(in crate::connect::file::source) latest_first: bool,
    pub(in crate::connect::file::source) name_only: bool,
    pub(in crate::connect::file::source) max_age_ms: u64,
    pub(in crate::connect::file::source) clean: CleanSource,
    pub(in crate::connect::file::source) parts: usize,
    pub(in crate::connect::file::source) contents: Contents,
}

/// The content of the files.
#[derive(Clone, Debug)]
pub(in crate::connect::file::source) enum Contents {
    Records(Box<Decoder>),
    #[cfg(feature = "columnar")]
    Columns(Columns),
}

/// How columnar files are read.
#[cfg(feature = "columnar")]
#[derive(Clone, Debug)]
pub(in crate::connect::file::source) struct Columns {
    pub options: ReadOptions,
    pub schema: Schema,
    pub of_file: FileColumns,
    /// The columns that the query reads: index in the row, name, type.
    pub wanted: Vec<(usize, String, DataType)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::connect::file::source) enum CleanSource {
    Off,
    Delete,
    Archive(PathBuf),
}

pub(in crate::connect::file::source) fn invalid(
    name: &str,
    value: &str,
    wanted: &str,
) -> PlanError {
    PlanError::new(
        "INVALID_OPTION_VALUE",
        format!("Invalid value '{value}' for option '{name}', must be {wanted}"),
        "",
    )
}

pub(in crate::connect::file::source) fn positive(
    reader: &mut OptionReader<'_>,
    name: &'static str,
) -> PlanResult<Option<u64>> {
    let Some(value) = reader.get(name) else { return Ok(None) };
    match value.parse() {
        Ok(n) if n > 0 => Ok(Some(n)),
        _ => Err(invalid(name, value, "a positive integer")),
    }
}

impl FileSourceConfig {
    /// Reads the options of file sources and of the format.
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
                let archive = PathBuf::from(local_path("sourceArchiveDir", folder)?);
                if listing.descends_into(&archive) {
                    return Err(PlanError::new(
                        "INVALID_OPTION_VALUE",
                        format!(
                            "sourceArchiveDir '{folder}' lies in or above the folder that is \
                             read, so archived files could be read again"
                        ),
                        "Archive into a folder outside",
                    ));
                }
                CleanSource::Archive(archive)
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

    /// Whether the schema has a column for bad records. Never for Parquet and ORC.
    pub fn keeps_bad_records(&self) -> bool {
        match &self.contents {
            Contents::Records(decoder) => decoder.keeps_bad_records(),
            #[cfg(feature = "columnar")]
            Contents::Columns(_) => false,
        }
    }

    /// Sets the columns that the query reads. As in Spark, the column for bad records cannot be
    /// read alone: which records are bad depends on the columns that are read.
    pub fn set_needed_columns(&mut self, needed: &[bool]) -> PlanResult<()> {
        match &mut self.contents {
            Contents::Records(decoder)
                if decoder.has_only_bad_records() && decoder.reads_only_bad_records(needed) =>
            {
                return Err(PlanError::new(
                    "UNSUPPORTED_FEATURE.QUERY_ONLY_CORRUPT_RECORD_COLUMN",
                    "the files have no record of their format, so the inferred schema has only \
                    the column of bad records",
                    "Check that the first line is a record of this format. Records of several \
                    lines need option multiLine 'true'",
                ));
            }
            Contents::Records(decoder) if decoder.reads_only_bad_records(needed) => {
                return Err(PlanError::new(
                    "UNSUPPORTED_FEATURE.QUERY_ONLY_CORRUPT_RECORD_COLUMN",
                    "the query reads only the column of bad records, but which records are bad \
                    depends on the columns that are read",
                    "Read other columns too, for example SELECT *, and filter the result",
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
            "Check the pattern; a '\\' makes the next character literal",
        ))
    }

    /// A hash of all files with their sizes and modification times, on Unix also their inode
    /// numbers and change times. It changes when a file is added, removed, replaced or written to;
    /// elsewhere not if size and modification time stay the same.
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

    /// Whether a batch has a limit.
    pub(in crate::connect::file::source) fn is_limited(&self) -> bool {
        self.most_files.is_some() || self.most_bytes.is_some()
    }

    /// Opens one part of the source. Its list of seen files is stored in `folder`, if there is one;
    /// the lists of the other parts are stored in the folders with the numbers before and after.
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
                "Leave cleanSource out: the sink's log would name deleted files",
            ));
        }
        let number = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<usize>().ok();
        let logs = folder.as_ref().and_then(|folder| {
            let first = number(folder)?.checked_sub(part)?;
            let others = (0..self.parts).filter(|other| *other != part);
            Some(others.map(|other| folder.with_file_name((first + other).to_string())).collect())
        });
        let logs: Vec<PathBuf> = logs.unwrap_or_default();
        let mut source = FileSource {
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
        };
        source.see_other_parts(&logs)?;
        Ok(source)
    }
}

/// Numbers that distinguish a replaced file from the old one, even if path, size and modification
/// time are equal. Empty on systems without such numbers.
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

pub(in crate::connect::file::source) fn contents(
    format: &str,
    schema: Option<Schema>,
    partitions: &[Field],
    reader: &mut OptionReader<'_>,
) -> PlanResult<Contents> {
    check_types(format, schema.as_ref())?;
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
                    "SET spark.sql.streaming.schemaInference = true, or declare the schema",
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
            format!("this program was built without format '{format}'"),
            "Build it with the feature `columnar`",
        )),
        _ => Ok(Contents::Records(Box::new(Decoder::read(format, schema, partitions, reader)?))),
    }
}

/// Fails for a column whose type no file has.
fn check_types(format: &str, schema: Option<&Schema>) -> PlanResult<()> {
    let mut fields = schema.into_iter().flat_map(|schema| &schema.fields);
    match fields.find(|field| field.data_type.has_calendar_interval()) {
        None => Ok(()),
        Some(field) => Err(PlanError::new(
            "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
            format!("format '{format}' cannot hold `{}`, which is {}", field.name, field.data_type),
            "Read a STRING, and cast it to INTERVAL",
        )),
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
