//! The schema of files that are there, when none is given, by Spark's rules.

use super::decode::{Raw, raw};
use super::input::Input;
use super::limits::Limits;
use super::listing::Listing;
use crate::connect::options::OptionReader;
use crate::connect::settings::FormatSettings;
use crate::table::csv::Inference;
use crate::table::error::{PlanError, PlanResult};
#[cfg(feature = "columnar")]
use crate::table::expr::resolve::common_type;
use crate::table::plan::Options;
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::storage::FileStorage;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

fn unreadable(path: &Path, error: impl std::fmt::Display) -> PlanError {
    PlanError::new(
        "FILE_SOURCE_FAILED",
        format!("cannot read {}: {error}", path.display()),
        "Give the schema, or see that the files can be read",
    )
}

/// The columns of the files of a format that options name, without those of their folders.
pub fn infer(format: &str, options: &Options, settings: &FormatSettings) -> PlanResult<Schema> {
    let what = format!("source {format}");
    let mut reader = OptionReader::with_settings(&what, options, settings);
    let listing = Listing::read(&mut reader)?;
    let files = listing.list(&FileStorage, &mut |_, _| {});
    let mut files = files.map_err(|error| unreadable(&listing.base(), error))?;
    // Spark takes nothing from empty files.
    files.retain(|file| file.size > 0);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let files: Vec<PathBuf> = files.into_iter().map(|file| file.path).collect();
    if files.is_empty() {
        return Err(PlanError::new(
            "UNABLE_TO_INFER_SCHEMA",
            format!("there is no file in {} whose schema could be taken", listing.name()),
            "Give the schema: CREATE TEMPORARY VIEW v (a INT, b STRING) USING …",
        ));
    }
    match format {
        #[cfg(feature = "columnar")]
        "parquet" | "orc" => {
            columns(format, &files, reader.flag("mergeSchema", false)?, Limits::read(&mut reader)?)
        }
        "csv" => csv(options, &files, settings),
        _ => json(options, &files, settings),
    }
}

#[cfg(feature = "columnar")]
fn columns(format: &str, files: &[PathBuf], merge: bool, limits: Limits) -> PlanResult<Schema> {
    use crate::connect::columnar::{ColumnFormat, schema_of};
    let Some(format) = ColumnFormat::of(format) else { unreachable!("the caller looked") };
    let mut all: Vec<Field> = Vec::new();
    for path in files {
        let schema = match schema_of(format, path) {
            Ok(schema) => schema,
            Err(error) if limits.ignores(&error) => continue,
            Err(error) => return Err(unreadable(path, error)),
        };
        for field in schema.fields {
            match all.iter_mut().find(|f| f.name == field.name) {
                None => all.push(field),
                Some(known) => {
                    let both = common_type(&known.data_type, &field.data_type);
                    known.data_type = both.ok_or_else(|| {
                        PlanError::new(
                            "CANNOT_MERGE_SCHEMAS",
                            format!("`{}` has types that do not go together", field.name),
                            "Leave mergeSchema out, or give the schema",
                        )
                    })?;
                }
            }
        }
        if !merge {
            break;
        }
    }
    Ok(Schema::new(all))
}

/// Calls `see` with each record that can be read, until it gives false.
fn each_record(
    raw: &Raw,
    files: &[PathBuf],
    limits: Limits,
    see: &mut dyn FnMut(&Input, &[u8], bool) -> bool,
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
            if found.fault.is_some() || raw.passes_over(record) {
                continue;
            }
            if !see(&input, record, std::mem::take(&mut first)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Without types, reads one record. With types, reads each record once.
fn csv(options: &Options, files: &[PathBuf], settings: &FormatSettings) -> PlanResult<Schema> {
    let mut reader = OptionReader::with_settings("source csv", options, settings);
    let limits = Limits::read(&mut reader)?;
    let raw = raw("csv", &mut reader)?;
    let Some(csv) = raw.csv() else { return Ok(Schema::default()) };
    let mut inference = Inference::new(csv, reader.get("dateFormat"));
    let mut header = Vec::new();
    each_record(&raw, files, limits, &mut |input, record, first| {
        if let (true, Some(line_end)) = (first, input.line_end()) {
            inference.set_line_end(line_end);
        }
        let names_columns = csv.header && first;
        if !inference.has_columns() {
            inference.begin(record, csv.header);
            header.extend_from_slice(record);
        }
        // A header of lines is left out wherever it stands, as in Spark.
        let is_header = match csv.multi_line {
            true => names_columns,
            false => csv.header && record == header.as_slice(),
        };
        if csv.infers && !is_header {
            inference.see(record);
        }
        csv.infers
    })?;
    Ok(inference.finish())
}

fn json(options: &Options, files: &[PathBuf], settings: &FormatSettings) -> PlanResult<Schema> {
    let mut reader = OptionReader::with_settings("source json", options, settings);
    let limits = Limits::read(&mut reader)?;
    let raw = raw("json", &mut reader)?;
    let rules = Rules {
        all_text: reader.flag("primitivesAsString", false)?,
        decimals: reader.flag("prefersDecimal", false)?,
        times: reader.flag("inferTimestamp", false)?,
    };
    let corrupt = reader.get("columnNameOfCorruptRecord").unwrap_or("_corrupt_record");
    let (mut found, mut bad) = (DataType::Struct(Vec::new()), false);
    each_record(&raw, files, limits, &mut |_, record, _| {
        let Ok(text) = std::str::from_utf8(record) else { return true };
        let raw = &raw;
        let mut take = |value: &Json| match value {
            Json::Object(_) => {
                found =
                    together(std::mem::replace(&mut found, DataType::Null), rules.of(value, raw));
            }
            Json::Null => {}
            _ => bad = true,
        };
        match serde_json::from_str(text) {
            // An array stands for the objects in it.
            Ok(Json::Array(values)) => values.iter().for_each(take),
            Ok(value) => take(&value),
            Err(_) => bad = true,
        }
        true
    })?;
    let DataType::Struct(mut fields) = finished(found) else { return Ok(Schema::default()) };
    if bad && !fields.iter().any(|f| f.name == corrupt) {
        fields.push(Field::new(corrupt, DataType::String, true));
        fields.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(Schema::new(fields))
}

struct Rules {
    all_text: bool,
    decimals: bool,
    times: bool,
}

impl Rules {
    fn of(&self, value: &Json, raw: &Raw) -> DataType {
        match value {
            Json::Null => DataType::Null,
            Json::Array(values) => {
                let of = values.iter().map(|value| self.of(value, raw));
                DataType::Array(Box::new(of.fold(DataType::Null, together)))
            }
            Json::Object(entries) => {
                let mut fields: Vec<Field> = Vec::new();
                for (name, value) in entries {
                    fields.push(Field::new(name.clone(), self.of(value, raw), true));
                }
                fields.sort_by(|a, b| a.name.cmp(&b.name));
                DataType::Struct(fields)
            }
            _ if self.all_text => DataType::String,
            Json::Bool(_) => DataType::Boolean,
            Json::Number(number) if number.is_i64() => DataType::Long,
            Json::Number(number) => {
                let text = number.to_string();
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                let whole = whole.trim_start_matches('-').trim_start_matches('0').len();
                let digits = (whole + fraction.len()).max(1);
                let exact = digits <= 38 && !text.contains(['e', 'E']);
                if exact && (number.is_u64() || self.decimals) {
                    DataType::Decimal(digits as u8, fraction.len() as u8)
                } else {
                    DataType::Double
                }
            }
            Json::String(text) => {
                let mut row = Vec::new();
                let mut writer = RowWriter::new(&mut row, 1);
                let is_time =
                    self.times && raw.notation().put(text, &DataType::Timestamp, &mut writer, 0);
                if is_time { DataType::Timestamp } else { DataType::String }
            }
        }
    }
}

/// The type of values of both types: what does not go together is text.
fn together(a: DataType, b: DataType) -> DataType {
    match (a, b) {
        (DataType::Null, other) | (other, DataType::Null) => other,
        (a, b) if a == b => a,
        (DataType::Struct(mut a), DataType::Struct(b)) => {
            for field in b {
                match a.iter_mut().find(|f| f.name == field.name) {
                    Some(known) => {
                        let before = std::mem::replace(&mut known.data_type, DataType::Null);
                        known.data_type = together(before, field.data_type);
                    }
                    None => a.push(field),
                }
            }
            a.sort_by(|a, b| a.name.cmp(&b.name));
            DataType::Struct(a)
        }
        (DataType::Array(a), DataType::Array(b)) => DataType::Array(Box::new(together(*a, *b))),
        (a, b) if a.is_numeric() && b.is_numeric() => {
            let decimal = |t: &DataType| match t {
                DataType::Long => Some((20, 0)),
                DataType::Decimal(p, s) => Some((*p, *s)),
                _ => None,
            };
            match (decimal(&a), decimal(&b)) {
                (Some((p, s)), Some((q, t))) => {
                    let (scale, whole) = (s.max(t), (p - s).max(q - t));
                    if whole + scale > 38 {
                        DataType::Double
                    } else {
                        DataType::Decimal(whole + scale, scale)
                    }
                }
                _ => DataType::Double,
            }
        }
        _ => DataType::String,
    }
}

/// What was only ever NULL is text, and an object without fields is left out.
fn finished(found: DataType) -> DataType {
    match found {
        DataType::Null => DataType::String,
        DataType::Array(element) => DataType::Array(Box::new(finished(*element))),
        DataType::Struct(fields) => {
            let kept = fields.into_iter().filter(|f| f.data_type != DataType::Struct(Vec::new()));
            DataType::Struct(
                kept.map(|f| Field::new(f.name, finished(f.data_type), f.nullable)).collect(),
            )
        }
        other => other,
    }
}
