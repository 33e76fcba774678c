//! Replaces the sources of a job by files, so that an unchanged production job can be tested.
//!
//! | source in the job | replacement | what is read |
//! |---|---|---|
//! | a socket | a capture | the records that the socket source would have read from the captured bytes |
//! | a socket | another file | the lines of the file |
//! | a capture | a capture | the replacement |
//! | files | a file or folder | those files, with the job's format and options |
//! | Kafka | another file | records as JSON lines with the columns of the source |

#[cfg(feature = "kafka")]
use crate::connect::kafka::options::KafkaSourceConfig;
use crate::connect::socket::options::SocketConfig;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::types::Schema;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The replacement of a source.
#[derive(Clone, Debug)]
pub struct ReplacedSource {
    /// Name of the source's view. `None` replaces every socket or capture source that has no
    /// replacement of its own.
    pub view: Option<String>,
    /// Path of a capture, of files in the job's format, or of a text file that replaces a socket or
    /// Kafka.
    pub path: PathBuf,
    /// Options of the capture source, such as `speed`.
    pub capture_options: Options,
}

/// A source named by a job, with its replacement.
#[derive(Clone, Debug)]
pub struct JobSource {
    /// Name of the source's view.
    pub view: String,
    /// The source's format in the job.
    pub format: String,
    /// Path of the replacement; `None` if the source is not replaced.
    pub replaced_by: Option<PathBuf>,
    /// Whether the source ends: whether a capture is read for it.
    pub ends: bool,
}

/// Options that socket sources and capture sources have in common.
const SHARED: [&str; 4] = ["lineSep", "datagram", "maxLineLength", "maxUnfinishedBytes"];

/// Whether a path is a capture: a file that starts with the magic bytes `MSCAPT`, or a folder with
/// a file whose extension is `capture` or `cap`. The content of a folder's files is not checked.
/// False if the file or the folder cannot be read.
pub fn is_capture(path: &Path) -> bool {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut ends = entries.filter_map(|entry| entry.path().extension().map(|e| e.to_owned()));
        return ends.any(|end| end == "capture" || end == "cap");
    }
    let mut magic = [0; 6];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"MSCAPT"
}

fn option<'o>(options: &'o Options, name: &str) -> Option<&'o str> {
    let found = options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// Refuses options that the job's own source would refuse when it is opened. Options of formats
/// other than `socket` and `kafka` are not checked.
fn check_own_options(format: &str, options: &Options) -> PlanResult<()> {
    match format.to_ascii_lowercase().as_str() {
        "socket" => SocketConfig::read(options).map(drop),
        #[cfg(feature = "kafka")]
        "kafka" => KafkaSourceConfig::read_view(options).map(drop),
        _ => Ok(()),
    }
}

/// The columns that a Kafka source and a file that replaces it have in common.
const KAFKA_COMMON: &str =
    "topic STRING, partition INT, offset BIGINT, timestamp TIMESTAMP, timestampType INT";

/// A file of JSON lines that replaces a Kafka source. Its key, value and headers are text.
#[derive(Clone, Debug)]
pub(super) struct KafkaFile {
    /// The columns of the source.
    pub source_schema: Schema,
    /// The columns of the file.
    pub file_schema: Schema,
    /// Expressions over the file's columns that make the source's columns.
    pub columns: Vec<&'static str>,
}

impl KafkaFile {
    /// The columns for these options of the source; `headers` is one of them only with the option
    /// `includeHeaders`.
    fn new(options: &Options) -> PlanResult<Self> {
        let with_headers = option(options, "includeHeaders")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let schema = |of_bytes: &str| {
            let mut ddl = format!("key {of_bytes}, value {of_bytes}, {KAFKA_COMMON}");
            if with_headers {
                ddl += &format!(", headers ARRAY<STRUCT<key: STRING, value: {of_bytes}>>");
            }
            Schema::parse_ddl(&ddl)
        };
        let mut columns = vec![
            "CAST(key AS BINARY) AS key",
            "CAST(value AS BINARY) AS value",
            "topic",
            "partition",
            "offset",
            "timestamp",
            "timestampType",
        ];
        if with_headers {
            columns.push("CAST(headers AS ARRAY<STRUCT<key: STRING, value: BINARY>>) AS headers");
        }
        Ok(Self { source_schema: schema("BINARY")?, file_schema: schema("STRING")?, columns })
    }
}

/// What is read for a source of the job: the source itself, or its replacement.
pub(super) struct ReadSource {
    pub format: String,
    pub options: Options,
    /// Set if a file replaces a Kafka source.
    pub kafka_file: Option<KafkaFile>,
}

impl ReadSource {
    pub(super) fn new(format: impl Into<String>, options: Options) -> Self {
        Self { format: format.into(), options, kafka_file: None }
    }
}

fn refused(view: &str, reason: impl std::fmt::Display, fix: &str) -> PlanError {
    PlanError::new("SOURCE_CANNOT_BE_REPLACED", format!("source `{view}`: {reason}"), fix)
}

impl ReplacedSource {
    /// Whether this replaces the source of a view. A replacement without a view replaces every
    /// socket and every capture.
    pub(super) fn is_of(&self, view: &str, format: &str) -> bool {
        match &self.view {
            Some(name) => name.eq_ignore_ascii_case(view),
            None => ["socket", "capture"].iter().any(|name| name.eq_ignore_ascii_case(format)),
        }
    }

    /// The format and the options of the replacement. The options of the job's own source are also
    /// checked if it is a socket or Kafka, because production reads with them.
    pub(super) fn apply(
        &self,
        view: &str,
        format: &str,
        options: &Options,
    ) -> PlanResult<ReadSource> {
        if !self.path.exists() {
            let reason = format!("{} does not exist", self.path.display());
            return Err(refused(view, reason, "Check the path"));
        }
        check_own_options(format, options)?;
        let is_capture = is_capture(&self.path);
        let path = ("path".to_string(), self.path.display().to_string());
        match format.to_ascii_lowercase().as_str() {
            "socket" if is_capture => Ok(ReadSource::new("capture", self.of_socket(options, path))),
            "capture" if is_capture => {
                let own = |(key, _): &&(String, String)| !key.eq_ignore_ascii_case("path");
                let mut all: Options = options.iter().filter(own).cloned().collect();
                all.push(path);
                all.extend(self.capture_options.iter().cloned());
                Ok(ReadSource::new("capture", all))
            }
            "socket" => self.lines_of_socket(view, options, path),
            files if super::is_files(files) => {
                if is_capture {
                    let reason =
                        format!("the job reads {files} files, but the replacement is a capture");
                    return Err(refused(view, reason, "Replace it with a file of its format"));
                }
                let own = |(key, _): &&(String, String)| !key.eq_ignore_ascii_case("path");
                let mut all: Options = options.iter().filter(own).cloned().collect();
                all.push(path);
                Ok(ReadSource::new(format, all))
            }
            "kafka" if is_capture => {
                let reason = "the job reads Kafka, and it is given a capture";
                Err(refused(view, reason, "Give it JSON lines with the columns of the source"))
            }
            "kafka" => {
                let kafka_file = Some(KafkaFile::new(options)?);
                Ok(ReadSource { kafka_file, ..ReadSource::new("json", vec![path]) })
            }
            other => {
                let reason = format!("a source of format {other} cannot be read from a file");
                Err(refused(view, reason, "Sockets, captures, files and Kafka can be replaced"))
            }
        }
    }

    /// The options of a capture that replaces a socket. Records are split, and incomplete records
    /// handled, as in the socket source. The user's own options for captures come last, so they take
    /// precedence.
    fn of_socket(&self, options: &Options, path: (String, String)) -> Options {
        let mut all = vec![path];
        let timestamp = option(options, "includeTimestamp").unwrap_or("false");
        all.push(("includeTimestamp".to_string(), timestamp.to_string()));
        for name in SHARED {
            if let Some(value) = option(options, name) {
                all.push((name.to_string(), value.to_string()));
            }
        }
        let is = |name, value: &str| {
            option(options, name).is_some_and(|given| given.eq_ignore_ascii_case(value))
        };
        if is("mode", "listen") || is("atEnd", "reconnect") {
            all.push(("lastLine".to_string(), "reject".to_string()));
        }
        all.extend(self.capture_options.iter().cloned());
        all
    }

    fn lines_of_socket(
        &self,
        view: &str,
        options: &Options,
        path: (String, String),
    ) -> PlanResult<ReadSource> {
        let has_timestamp = option(options, "includeTimestamp")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if has_timestamp {
            let reason = format!("{} has no arrival times (includeTimestamp)", path.1);
            return Err(refused(view, reason, "Replace it with a capture"));
        }
        let mut all = vec![path];
        if let Some(value) = option(options, "lineSep") {
            all.push(("lineSep".to_string(), value.to_string()));
        }
        Ok(ReadSource::new("text", all))
    }
}

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaces_the_columns_of_a_kafka_source() {
        for with_headers in [false, true] {
            let options: Options = [
                ("kafka.bootstrap.servers", "localhost:1"),
                ("subscribe", "words"),
                ("includeHeaders", if with_headers { "true" } else { "false" }),
            ]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .to_vec();
            let source = KafkaSourceConfig::read_view(&options).unwrap();
            let file = KafkaFile::new(&options).unwrap();
            assert_eq!(file.source_schema, source.schema());
            assert_eq!(file.file_schema.fields.len(), file.columns.len());
        }
    }
}
