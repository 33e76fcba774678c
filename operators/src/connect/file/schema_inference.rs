//! Infers the schema of existing files by Spark's rules.

use crate::connect::file::listing::Listing;
use crate::connect::file::read_limits::Limits;
use crate::connect::file::source::decoder::{RawFormat, raw};
use crate::connect::file::source::json_records::reading;
use crate::connect::file::source::record_reader::Input;
use crate::connect::format_settings::FormatSettings;
use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::Options;
use crate::table::text::csv::Inference;
use crate::table::text::json::{
    FIELDS_MAX, Inference as JsonInference, InferredRecords, InvalidJson, Source,
};
use crate::table::text::notation::Notation;
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::env::storage::FileStorage;
use std::path::{Path, PathBuf};

fn unreadable(path: &Path, error: impl std::fmt::Display) -> PlanError {
    PlanError::new(
        "FILE_SOURCE_FAILED",
        format!("cannot read {}: {error}", path.display()),
        "Declare the schema, or make the files readable",
    )
}

/// Infers the columns of the files that the options select, without partition columns. Empty files
/// are ignored; JSON and CSV files that are all empty give a schema without columns. Fails if there
/// are no files, if all Parquet or ORC files are empty, if a file cannot be read and the options do
/// not ignore that, or if the content of the files gives no valid schema.
pub fn infer(format: &str, options: &Options, settings: &FormatSettings) -> PlanResult<Schema> {
    let what = format!("source {format}");
    let mut reader = OptionReader::with_settings(&what, options, settings);
    let listing = Listing::read(&mut reader)?;
    let files = listing.list(&FileStorage, &mut |_, _| {});
    let mut files = files.map_err(|error| unreadable(&listing.base(), error))?;
    if !files.is_empty() && matches!(format, "csv" | "json") && files.iter().all(|f| f.size == 0) {
        // As in Spark, empty files give a table without columns and rows.
        return Ok(Schema::new(Vec::new()));
    }
    // Spark ignores empty files for inference.
    files.retain(|file| file.size > 0);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let files: Vec<PathBuf> = files.into_iter().map(|file| file.path).collect();
    if files.is_empty() {
        return Err(PlanError::new(
            "UNABLE_TO_INFER_SCHEMA",
            format!("{} has no file from which a schema can be inferred", listing.name()),
            "Declare the schema: CREATE TEMPORARY VIEW v (a INT, b STRING) USING …",
        ));
    }
    match format {
        #[cfg(feature = "columnar")]
        "parquet" | "orc" => columns(format, &files, &mut reader),
        "csv" => csv(options, &files, settings),
        _ => json(options, &files, settings),
    }
}

#[cfg(feature = "columnar")]
fn columns(format: &str, files: &[PathBuf], reader: &mut OptionReader<'_>) -> PlanResult<Schema> {
    use crate::connect::columnar::{ColumnFormat, ReadOptions, merged, schema_of};
    let Some(format) = ColumnFormat::of(format) else { unreachable!("the caller looked") };
    let merges = reader.flag("mergeSchema", false)?;
    let limits = Limits::read(reader)?;
    let options = ReadOptions::read(format, reader)?;
    let mut all = Schema::default();
    for path in files {
        let found = match schema_of(&options, path) {
            Ok(schema) => schema,
            Err(error) if limits.ignores(&error) => continue,
            Err(error) => return Err(unreadable(path, error)),
        };
        all = merged(all, found).map_err(|reason| {
            PlanError::new(
                "CANNOT_MERGE_SCHEMAS",
                format!("{}: {reason}", path.display()),
                "Leave mergeSchema out, or declare the schema",
            )
        })?;
        if !merges {
            break;
        }
    }
    // Names that differ in case only are ambiguous.
    for (i, field) in all.fields.iter().enumerate() {
        let is_same = |other: &Field| other.name.to_lowercase() == field.name.to_lowercase();
        if all.fields[..i].iter().any(is_same) {
            return Err(PlanError::new(
                "COLUMN_ALREADY_EXISTS",
                format!("the column `{}` already exists", field.name.to_lowercase()),
                "Declare a schema without it, or write the file with other names",
            ));
        }
    }
    Ok(all)
}

/// A callback for each record. It gets the reader of the file, the record's bytes, and whether the
/// record is the first one of the file. It returns whether to continue.
type See<'s> = dyn FnMut(&Input, &[u8], bool) -> PlanResult<bool> + 's;

/// Calls `see` with each readable record until it returns false or an error. Files that cannot be
/// opened, and the rest of files that cannot be read, are errors unless `limits` ignores them.
fn each_record(
    raw: &RawFormat,
    files: &[PathBuf],
    limits: Limits,
    see: &mut See<'_>,
) -> PlanResult<()> {
    let most = limits.record_bytes_max;
    for path in files {
        let opened = Input::open(path, 0, raw.framing().clone(), raw.coding(), most);
        let mut input = match opened {
            Ok(input) => input,
            Err(error) if limits.ignores(&error) => continue,
            Err(error) => return Err(unreadable(path, error)),
        };
        let mut first = true;
        loop {
            let found = match input.record() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(_) if limits.ignores_corrupt => break,
                Err(error) => return Err(unreadable(path, error)),
            };
            let record = input.bytes(&found);
            if found.fault.is_some() || raw.is_skipped(record) {
                continue;
            }
            let more = see(&input, record, std::mem::take(&mut first));
            if !more.map_err(|error| in_file(error, path, found.offset))? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads one record if all columns are STRING. Reads all records if types are inferred.
fn csv(options: &Options, files: &[PathBuf], settings: &FormatSettings) -> PlanResult<Schema> {
    let mut reader = OptionReader::with_settings("source csv", options, settings);
    let limits = Limits::read(&mut reader)?;
    let raw = raw("csv", &mut reader)?;
    let Some(csv) = raw.csv() else { return Ok(Schema::default()) };
    let mut inference = Inference::new(csv, reader.get("dateFormat"))
        .with_times_without_zone(settings.timestamps_without_zone);
    let mut header = Vec::new();
    each_record(&raw, files, limits, &mut |input, record, first| {
        if let (true, Some(line_end)) = (first, input.line_end()) {
            inference.set_line_end(line_end);
        }
        let names_columns = csv.header && first;
        if !inference.has_columns() {
            inference.begin(record, csv.header).map_err(|_| over_limit())?;
            header.extend_from_slice(record);
        }
        // Outside multi-line mode every line that equals the header is skipped, as in Spark.
        let is_header = match csv.multi_line {
            true => names_columns,
            false => csv.header && record == header.as_slice(),
        };
        if csv.infers && !is_header {
            inference.see(record).map_err(|_| over_limit())?;
        }
        Ok(csv.infers)
    })?;
    Ok(inference.finish())
}

/// The error for a CSV record with too many fields or a field that is too long.
fn over_limit() -> PlanError {
    PlanError::new(
        "MALFORMED_CSV_RECORD",
        "it has more fields than option 'maxColumns' allows, or a field of more characters than \
         'maxCharsPerColumn'",
        "Raise the option, or set another 'sep' or 'lineSep'",
    )
}

/// Adds the file and the record's offset to an error.
fn in_file(error: PlanError, path: &Path, offset: u64) -> PlanError {
    let reason = format!("{}: the record at byte {offset}: {}", path.display(), error.reason);
    PlanError { reason, ..error }
}

/// The error for records that together have more field names than a schema may have.
fn too_many_fields() -> PlanError {
    PlanError::new(
        "TOO_MANY_FIELDS_IN_SCHEMA_INFERENCE",
        format!("the records up to this one have more than {FIELDS_MAX} different fields"),
        "Declare the schema; use MAP<STRING, STRING> for an object whose names are data",
    )
}

fn json(options: &Options, files: &[PathBuf], settings: &FormatSettings) -> PlanResult<Schema> {
    let mut reader = OptionReader::with_settings("source json", options, settings);
    let limits = Limits::read(&mut reader)?;
    let raw = raw("json", &mut reader)?;
    let inference = inference(&mut reader, raw.notation().clone(), raw.source())?;
    let mode = reader.choice("mode", &["PERMISSIVE", "DROPMALFORMED", "FAILFAST"])?;
    let corrupt = reader.get("columnNameOfCorruptRecord").unwrap_or("_corrupt_record");
    let mut found = InferredRecords::default();
    for path in files {
        let most = limits.record_bytes_max;
        let opened = Input::open(path, 0, raw.framing().clone(), raw.coding(), most);
        let mut input = match opened {
            Ok(input) => input,
            Err(error) if limits.ignores(&error) => continue,
            Err(error) => return Err(unreadable(path, error)),
        };
        loop {
            let record = match input.record() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(_) if limits.ignores_corrupt => break,
                Err(error) => return Err(unreadable(path, error)),
            };
            let bytes = input.bytes(&record);
            if record.fault.is_none() && inference.knows(&found, bytes) {
                continue;
            }
            match inference.of(bytes) {
                _ if record.fault.is_some() => found.bad = true,
                Ok(inferred) => found.add(inferred),
                Err(InvalidJson) => found.bad = true,
            }
            if found.is_full() {
                return Err(in_file(too_many_fields(), path, record.offset));
            }
            if found.bad && mode == "FAILFAST" {
                return Err(PlanError::new(
                    "MALFORMED_RECORD_IN_SCHEMA_INFERENCE",
                    format!("{}: the record at byte {} is not JSON", path.display(), record.offset),
                    "Fix the record, declare the schema, or use mode 'PERMISSIVE'",
                ));
            }
        }
    }
    let mut fields = inference.fields(found.columns);
    let has_corrupt = fields.iter().any(|f| f.name == corrupt);
    if found.bad && mode == "PERMISSIVE" && !has_corrupt {
        fields.push(Field::new(corrupt, DataType::String, true));
        fields.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(Schema::new(fields))
}

/// Reads the options of inference. `samplingRatio` is checked, but all records are read.
fn inference(
    reader: &mut OptionReader<'_>,
    notation: Notation,
    source: Source,
) -> PlanResult<JsonInference> {
    if let Some(ratio) = reader.get("samplingRatio")
        && !ratio.trim().parse::<f64>().is_ok_and(|ratio| ratio > 0.0)
    {
        return Err(PlanError::new(
            "INVALID_OPTION_VALUE",
            format!("option 'samplingRatio' is '{ratio}', but must be a number above 0"),
            "Leave it out: all records are read",
        ));
    }
    Ok(JsonInference {
        reading: reading(reader, notation, source)?,
        all_text: reader.flag("primitivesAsString", false)?,
        decimals: reader.flag("prefersDecimal", false)?,
        times: reader.flag("inferTimestamp", false)?,
        times_without_zone: reader.settings().timestamps_without_zone,
        without_nulls: reader.flag("dropFieldIfAllNull", false)?,
    })
}
