//! Decodes records of text, CSV and JSON files into rows.
//!
//! The option `mode` decides about a record that does not fit the schema, as in Spark. `PERMISSIVE`
//! gives a row with NULL for the fields that could not be read. `DROPMALFORMED` drops the record.
//! `FAILFAST` fails the query. The first two count the record and store its first bytes
//! ([`BadRecords`](crate::connect::bad_records::BadRecords)). In mode `PERMISSIVE` the STRING
//! column named by `columnNameOfCorruptRecord` contains the text of such a record, of a record
//! longer than `maxRecordBytes` its first bytes, and NULL for good records. A CSV record that the
//! parser cannot split into fields fails the query in every mode. Text files have no mode: a record
//! that is not UTF-8 or too long is rejected.

use crate::connect::file::charset::{Charset, Coding};
use crate::connect::file::file_columns::FileColumns;
use crate::connect::file::framing::{Framing, SEPARATOR_BYTES_MAX};
use crate::connect::file::source::json_records::{JsonRecords, reading};
use crate::connect::options::OptionReader;
use crate::table::datetime::pattern::Direction;
use crate::table::error::{PlanError, PlanResult};
use crate::table::plan::metadata_field;
use crate::table::row::RowWriter;
use crate::table::text::csv::{Column, Fault, LineEnd, ReadOptions, RecordReader};
use crate::table::text::json::{JsonReadOptions, Source, check_map_keys};
use crate::table::text::notation::Notation;
use crate::table::types::{DataType, Field, Schema};
use millstream_engine::error::EngineError;
use std::path::Path;

/// How a record that does not fit the schema is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The record gives a row with NULL for the fields that could not be read.
    Permissive,
    /// The record is dropped.
    DropMalformed,
    /// The query fails.
    FailFast,
}

#[derive(Clone, Debug)]
enum Format {
    Text,
    Json(Box<JsonRecords>),
    Csv(Box<Csv>),
}

impl Format {
    fn name(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json(_) => "json",
            Self::Csv(_) => "csv",
        }
    }
}

/// The CSV options and the parser.
#[derive(Clone, Debug)]
struct Csv {
    options: ReadOptions,
    records: RecordReader,
}

/// Decodes records of one format into rows of one schema.
#[derive(Clone, Debug)]
pub struct Decoder {
    format: Format,
    framing: Framing,
    coding: Coding,
    mode: Mode,
    schema: Schema,
    /// The index of the column for bad records. `None` in modes that do not fill it.
    corrupt: Option<usize>,
    /// The index of the column for bad records, whatever the mode.
    corrupt_column: Option<usize>,
    /// Partition columns and file metadata columns.
    of_file: FileColumns,
    /// Columns of the record.
    columns: Vec<Column>,
    notation: Notation,
    /// Whether the last record was so broken that the query fails in every mode.
    broken: bool,
    /// Whether a header that differs from the schema was reported.
    header_told: bool,
}

/// Options of schema inference for JSON.
const JSON_INFERENCE: [&str; 6] = [
    "inferSchema",
    "samplingRatio",
    "primitivesAsString",
    "prefersDecimal",
    "inferTimestamp",
    "dropFieldIfAllNull",
];

fn csv(reader: &mut OptionReader<'_>) -> PlanResult<ReadOptions> {
    let zone = reader.zone()?;
    ReadOptions::read(&mut |name| reader.get(name).map(str::to_string), zone)
}

/// Parses the options of date and timestamp formats.
fn notation(reader: &mut OptionReader<'_>) -> PlanResult<Notation> {
    let mut get = |name: &'static str| reader.get(name).map(str::to_string);
    let notation = Notation::with_patterns(&mut get, Direction::Read)?;
    Ok(Notation { zone: reader.zone()?, ..notation })
}

fn framing(format: &Format, reader: &mut OptionReader<'_>) -> PlanResult<Framing> {
    if let Format::Csv(csv) = format {
        return Ok(match (csv.options.multi_line, &csv.options.line_end) {
            (true, _) => Framing::Csv(Box::new(csv.options.dialect.clone())),
            (false, Some(separator)) => Framing::Separated(separator.as_bytes().to_vec()),
            (false, None) => Framing::Lines,
        });
    }
    let whole = match format {
        Format::Text => reader.flag("wholetext", false)?,
        _ => reader.flag("multiLine", false)?,
    };
    let separator = match reader.get("lineSep") {
        None => None,
        Some(text) if (1..=SEPARATOR_BYTES_MAX).contains(&text.len()) => {
            Some(text.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t"))
        }
        Some(_) => {
            return Err(PlanError::new(
                "INVALID_OPTION_VALUE",
                format!("option 'lineSep' must have 1 to {SEPARATOR_BYTES_MAX} bytes"),
                "Leave it out for lines that end with \\n, \\r\\n or \\r",
            ));
        }
    };
    Ok(match (format, whole, separator) {
        (Format::Text, true, _) => Framing::Whole,
        (_, true, _) => Framing::JsonFile,
        (_, false, Some(separator)) => Framing::Separated(separator.into_bytes()),
        (_, false, None) => Framing::Lines,
    })
}

/// A field name that occurs twice in a struct, ignoring case.
fn repeated_name(fields: &[Field]) -> Option<&str> {
    fn below(data_type: &DataType) -> Option<&str> {
        match data_type {
            DataType::Struct(fields) => repeated_name(fields),
            DataType::Array(element) => below(element),
            DataType::Map(key, value) => below(key).or_else(|| below(value)),
            _ => None,
        }
    }
    let mut names = std::collections::HashSet::new();
    let repeated = fields.iter().find(|field| !names.insert(field.name.to_lowercase()));
    let here = repeated.map(|field| field.name.as_str());
    here.or_else(|| fields.iter().find_map(|field| below(&field.data_type)))
}

/// Parses the character set of the files.
fn coding(format: &Format, reader: &mut OptionReader<'_>) -> PlanResult<Coding> {
    Ok(match (Charset::read(reader)?, format) {
        (Some(charset), _) => Coding::Known(charset),
        (None, Format::Json(_)) => Coding::Json,
        (None, _) => Coding::Known(Charset::Utf8),
    })
}

/// Returns the format with this name, with the options of CSV.
fn named_format(name: &str, reader: &mut OptionReader<'_>) -> PlanResult<Format> {
    Ok(match name {
        "json" => Format::Json(Box::new(JsonRecords::new(&[], JsonReadOptions::default()))),
        "csv" => {
            let options = csv(reader)?;
            let records = RecordReader::new(&options, Vec::new());
            Format::Csv(Box::new(Csv { options, records }))
        }
        _ => Format::Text,
    })
}

/// Which of Spark's JSON parsers to imitate. Spark reads JSON through a character reader if an
/// option names the character set.
fn source(coding: Coding) -> Source {
    match coding {
        Coding::Json => Source::Bytes,
        Coding::Known(_) => Source::Chars,
    }
}

/// The parts of a format that are known before the schema: framing, character set and notation.
pub struct RawFormat {
    format: Format,
    framing: Framing,
    coding: Coding,
    notation: Notation,
}

/// Parses the options that do not depend on the schema.
pub fn raw(format: &str, reader: &mut OptionReader<'_>) -> PlanResult<RawFormat> {
    let format = named_format(format, reader)?;
    let framing = framing(&format, reader)?;
    let coding = coding(&format, reader)?;
    Ok(RawFormat { format, framing, coding, notation: notation(reader)? })
}

impl RawFormat {
    /// How files are split into records.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// How the bytes of files are decoded.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Which of Spark's JSON parsers to imitate.
    pub fn source(&self) -> Source {
        source(self.coding)
    }

    /// The formats of dates, timestamps and numbers.
    pub fn notation(&self) -> &Notation {
        &self.notation
    }

    /// The CSV options. `None` for other formats.
    pub fn csv(&self) -> Option<&ReadOptions> {
        match &self.format {
            Format::Csv(csv) => Some(&csv.options),
            _ => None,
        }
    }

    /// Whether a line is not a record: an empty line or a comment.
    pub fn is_skipped(&self, record: &[u8]) -> bool {
        is_skipped(&self.format, record)
    }
}

fn is_skipped(format: &Format, record: &[u8]) -> bool {
    match format {
        Format::Text => false,
        Format::Json(_) => record.trim_ascii().is_empty(),
        Format::Csv(csv) => csv.options.is_skipped(record),
    }
}

/// Returns an error if the schema of text files has more than one column of its own, or one that is
/// not STRING.
fn check_text(schema: &Schema, partitions: &[Field]) -> PlanResult<()> {
    let is_partition = |field: &Field| {
        partitions.iter().any(|partition| partition.name.eq_ignore_ascii_case(&field.name))
    };
    let own = |field: &&Field| !is_partition(field) && **field != metadata_field();
    let own: Vec<_> = schema.fields.iter().filter(own).collect();
    match own.as_slice() {
        [] => Ok(()),
        [one] if one.data_type == DataType::String => Ok(()),
        [one] => Err(PlanError::new(
            "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
            format!("format 'text' cannot hold `{}`, which is {}", one.name, one.data_type),
            "Make it STRING, and cast it in the query",
        )),
        columns => Err(PlanError::new(
            "UNSUPPORTED_USER_SPECIFIED_SCHEMA",
            format!("a text file has one column, but the schema has {}", columns.len()),
            "Leave the schema out: the column is `value` of type STRING",
        )),
    }
}

/// Accepts the options of schema inference, which are ignored if a schema is given.
fn accept_inference_options(format: &Format, reader: &mut OptionReader<'_>) {
    let options: &[&str] = match format {
        Format::Text => &[],
        Format::Csv(_) => &["inferSchema", "samplingRatio", "preferDate", "inferTimestamp"],
        Format::Json(_) => &JSON_INFERENCE,
    };
    for option in options {
        reader.get(option);
    }
}

/// Returns the schema of the files; for text without a schema `value STRING`. An error if JSON or
/// CSV has no schema, if a name is repeated, or if the format does not support a type.
fn checked_schema(
    format: &Format,
    schema: Option<Schema>,
    partitions: &[Field],
) -> PlanResult<Schema> {
    let schema = match (schema, format) {
        (None, Format::Text) => Schema::parse_ddl("value STRING")?,
        (Some(schema), Format::Text) => {
            check_text(&schema, partitions)?;
            schema
        }
        (Some(schema), _) => schema,
        (None, Format::Json(_) | Format::Csv(_)) => {
            return Err(PlanError::new(
                "STREAMING_FILE_SCHEMA_MISSING",
                format!("source {}: a schema must be given", format.name()),
                "Write: CREATE TEMPORARY VIEW v (a INT, b STRING) USING csv OPTIONS (…)",
            ));
        }
    };
    if let Some(name) = repeated_name(&schema.fields) {
        return Err(PlanError::new(
            "COLUMN_ALREADY_EXISTS",
            format!("the schema of the files names `{name}` twice"),
            "Rename one; column names are case-insensitive",
        ));
    }
    if matches!(format, Format::Json(_)) {
        schema.fields.iter().try_for_each(|field| check_map_keys(&field.data_type))?;
    }
    let mut fields = schema.fields.iter();
    let nested = fields.find(|f| f.data_type.has_parts() && **f != metadata_field());
    if let (Format::Csv(_), Some(field)) = (format, nested) {
        return Err(PlanError::new(
            "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
            format!("format 'csv' cannot hold `{}`, which is {}", field.name, field.data_type),
            "Use format 'json'",
        ));
    }
    Ok(schema)
}

/// Returns the index of the column for bad records.
fn corrupt_column(schema: &Schema, name: &str) -> PlanResult<Option<usize>> {
    let corrupt = schema.fields.iter().position(|field| field.name == name);
    if corrupt.is_some_and(|at| schema.fields[at].data_type != DataType::String) {
        return Err(PlanError::new(
            "INVALID_CORRUPT_RECORD_TYPE",
            format!("`{name}` holds bad records and must be STRING"),
            "",
        ));
    }
    Ok(corrupt)
}

/// Parses how bad records are handled.
fn mode(reader: &mut OptionReader<'_>) -> PlanResult<Mode> {
    Ok(match reader.choice("mode", &["PERMISSIVE", "DROPMALFORMED", "FAILFAST"])? {
        "DROPMALFORMED" => Mode::DropMalformed,
        "FAILFAST" => Mode::FailFast,
        _ => Mode::Permissive,
    })
}

impl Decoder {
    /// Parses the options of a format, including those that depend on the schema.
    pub fn read(
        format: &str,
        schema: Option<Schema>,
        partitions: &[Field],
        reader: &mut OptionReader<'_>,
    ) -> PlanResult<Self> {
        let format = named_format(format, reader)?;
        let framing = framing(&format, reader)?;
        let is_text = matches!(format, Format::Text);
        let mode = if is_text { Mode::Permissive } else { mode(reader)? };
        let notation = match format {
            Format::Json(_) => notation(reader)?,
            Format::Text | Format::Csv(_) => Notation::default(),
        };
        let corrupt_name = match is_text {
            true => None,
            false => Some(reader.get("columnNameOfCorruptRecord").unwrap_or("_corrupt_record")),
        };
        accept_inference_options(&format, reader);
        let coding = coding(&format, reader)?;
        let mut schema = checked_schema(&format, schema, partitions)?;
        for partition in partitions {
            if !schema.fields.iter().any(|f| f.name.eq_ignore_ascii_case(&partition.name)) {
                schema.fields.push(partition.clone());
            }
        }
        let corrupt = match corrupt_name {
            Some(name) => corrupt_column(&schema, name)?,
            None => None,
        };
        let mut decoder = Self {
            format,
            framing,
            coding,
            mode,
            corrupt: corrupt.filter(|_| mode == Mode::Permissive),
            corrupt_column: corrupt,
            of_file: FileColumns::new(&schema, partitions, reader.zone()?),
            columns: Vec::new(),
            notation,
            broken: false,
            header_told: false,
            schema,
        };
        for (i, field) in decoder.schema.fields.iter().enumerate() {
            if !decoder.of_file.has(i) && corrupt != Some(i) {
                let data_type = field.data_type.clone();
                decoder.columns.push(Column { index: i, data_type, wanted: true });
            }
        }
        if let Format::Json(records) = &mut decoder.format {
            let reading = reading(reader, decoder.notation.clone(), source(coding))?;
            **records = JsonRecords::new(&decoder.schema.fields, reading);
        }
        if let Format::Csv(csv) = &mut decoder.format {
            csv.records = RecordReader::new(&csv.options, decoder.columns.clone());
        }
        decoder.read_only_wanted();
        Ok(decoder)
    }

    /// Whether all columns are partition columns, metadata columns or the column for bad records.
    /// False without a column for bad records.
    pub fn has_only_bad_records(&self) -> bool {
        let of_records = (0..self.schema.fields.len()).filter(|at| !self.of_file.has(*at));
        self.corrupt_column.is_some_and(|corrupt| of_records.into_iter().all(|at| at == corrupt))
    }

    /// Whether the schema has a column for bad records.
    pub fn keeps_bad_records(&self) -> bool {
        self.corrupt_column.is_some()
    }

    /// Whether the column for bad records is the only column of the record that the query reads.
    pub fn reads_only_bad_records(&self, needed: &[bool]) -> bool {
        let read = |i: usize| needed[i] && !self.of_file.has(i);
        self.corrupt_column.is_some_and(|corrupt| {
            needed[corrupt] && (0..needed.len()).all(|i| i == corrupt || !read(i))
        })
    }

    /// Sets the columns that the query reads; the others stay NULL. A field that does not fit the
    /// type of an unread column does not make a record bad.
    pub fn set_needed_columns(&mut self, needed: &[bool]) {
        if let Format::Csv(csv) = &mut self.format {
            return csv.records.set_needed_columns(needed);
        }
        for column in &mut self.columns {
            column.wanted = needed[column.index];
        }
        self.read_only_wanted();
    }

    fn read_only_wanted(&mut self) {
        if let Format::Json(records) = &mut self.format {
            let mut in_object = vec![false; self.schema.fields.len()];
            for column in &self.columns {
                in_object[column.index] = column.wanted;
            }
            records.only(&in_object);
        }
    }

    /// The schema of decoded rows. All columns are nullable.
    pub fn schema(&self) -> Schema {
        let mut schema = self.schema.clone();
        schema.fields.iter_mut().for_each(|field| field.nullable = true);
        schema
    }

    /// How files are split into records.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// How the bytes of files are decoded.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// How records that do not fit the schema are handled.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the first record of a file contains the column names.
    pub fn has_header(&self) -> bool {
        matches!(&self.format, Format::Csv(csv) if csv.options.header)
    }

    /// Compares a header of CSV with the schema. With `enforceSchema` the first mismatch that this
    /// decoder sees is returned, to be reported, and later ones are ignored. Without it a mismatch
    /// is an error.
    pub fn check_header(&mut self, record: &[u8]) -> Result<Option<String>, String> {
        let Format::Csv(csv) = &mut self.format else { return Ok(None) };
        if csv.options.enforce_schema && self.header_told {
            return Ok(None);
        }
        let names: Vec<&str> = self.schema.fields.iter().map(|f| f.name.as_str()).collect();
        match csv.records.check_header(record, &names) {
            Ok(()) => Ok(None),
            Err(difference) if csv.options.enforce_schema => {
                self.header_told = true;
                Ok(Some(difference))
            }
            Err(difference) => Err(difference),
        }
    }

    /// Whether the last record was so broken that the query fails in every mode.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Sets the line end of the current file.
    pub fn set_line_end(&mut self, line_end: Option<LineEnd>) {
        if let (Format::Csv(csv), Some(line_end)) = (&mut self.format, line_end) {
            csv.records.set_line_end(line_end);
        }
    }

    /// Whether an unreadable record gives a row. It does in mode PERMISSIVE, except for text files,
    /// which have no column besides the text.
    pub fn has_row_for_bad(&self) -> bool {
        self.mode == Mode::Permissive && !matches!(self.format, Format::Text)
    }

    /// Whether a line is not a record: an empty line or a comment.
    pub fn is_skipped(&self, record: &[u8]) -> bool {
        is_skipped(&self.format, record)
    }

    /// Whether the last decoded record has more rows.
    #[inline]
    pub fn has_more_rows(&self) -> bool {
        matches!(&self.format, Format::Json(records) if records.has_more())
    }

    /// Writes the next row of the last decoded record. Returns false if there is none.
    pub fn next_row(&mut self, record: &[u8], out: &mut Vec<u8>) -> bool {
        let Format::Json(records) = &mut self.format else { return false };
        if !records.next(record, out) {
            return false;
        }
        let mut writer = RowWriter::resume(out, self.schema.fields.len());
        if let (Some(_), Some(at)) = (records.fault(), self.corrupt) {
            writer.bytes(at, String::from_utf8_lossy(record).as_bytes());
        }
        self.of_file.put(&mut writer);
        true
    }

    /// Decodes a record into `out`: its row, or the first of several ([`Self::has_more_rows`]).
    /// `out` is empty if the record has no row. After an error `out` contains the fields that could
    /// be read.
    #[inline]
    pub fn decode(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        if let Format::Json(records) = &mut self.format {
            let given = records.first(record, out);
            if !given.row {
                out.clear();
                return Ok(());
            }
            let mut writer = RowWriter::resume(out, self.schema.fields.len());
            if let (Some(_), Some(at)) = (given.fault, self.corrupt) {
                writer.bytes(at, String::from_utf8_lossy(record).as_bytes());
            }
            self.of_file.put(&mut writer);
            return given.fault.map_or(Ok(()), Err);
        }
        out.clear();
        let mut writer = RowWriter::new(out, self.schema.fields.len());
        let outcome = match &mut self.format {
            Format::Csv(csv) => csv.records.read(record, &mut writer).map_err(|fault| {
                self.broken = matches!(fault, Fault::Broken(_));
                let (Fault::Misfit(reason) | Fault::Broken(reason)) = fault;
                reason
            }),
            _ => match std::str::from_utf8(record) {
                Err(_) => Err("not UTF-8"),
                Ok(_) => {
                    if let Some(column) = self.columns.first().filter(|column| column.wanted) {
                        writer.bytes(column.index, record);
                    }
                    Ok(())
                }
            },
        };
        if let (Err(_), Some(at)) = (outcome, self.corrupt) {
            let text = match self.format {
                Format::Csv(_) => without_line_end(record),
                _ => record,
            };
            writer.bytes(at, String::from_utf8_lossy(text).as_bytes());
        }
        self.of_file.put(&mut writer);
        outcome
    }

    /// Starts a file. Its folders determine the values of partition columns.
    pub fn begin_file(
        &mut self,
        path: &Path,
        partitions: &[(String, String)],
    ) -> Result<(), EngineError> {
        self.of_file.begin(path, partitions)
    }

    /// Writes the row of a record that is too long to decode. `head` has its first bytes.
    pub fn undecoded(&self, head: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let mut writer = RowWriter::new(out, self.schema.fields.len());
        if let Some(at) = self.corrupt {
            writer.bytes(at, String::from_utf8_lossy(head).as_bytes());
        }
        self.of_file.put(&mut writer);
    }
}

/// The text for the column for bad records: the record without its line end.
fn without_line_end(record: &[u8]) -> &[u8] {
    match record {
        [text @ .., b'\r', b'\n'] | [text @ .., b'\n' | b'\r'] => text,
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::{Row, decode};
    use crate::table::value::Value;
    use proptest::prelude::*;

    fn decoder(format: &str, ddl: &str, options: &[(&str, &str)]) -> Decoder {
        let options: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut reader = OptionReader::new("test", &options);
        let decoder =
            Decoder::read(format, Some(Schema::parse_ddl(ddl).unwrap()), &[], &mut reader);
        reader.finish().unwrap();
        decoder.unwrap()
    }

    const DDL: &str = "s STRING, n INT, x DOUBLE, d DECIMAL(6,2), t TIMESTAMP, a ARRAY<INT>";

    fn row(decoder: &mut Decoder, record: &str) -> (Vec<Value>, Result<(), &'static str>) {
        let mut out = Vec::new();
        let outcome = decoder.decode(record.as_bytes(), &mut out);
        let schema = decoder.schema();
        (decode(Row(&out), schema.fields.iter().map(|f| &f.data_type)), outcome)
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_string())
    }

    #[test]
    fn json_fields_by_name_and_type() {
        let mut decoder = decoder("json", DDL, &[]);
        let line =
            r#"{"n":7,"s":{"k": 1},"x":1e3,"d":1.5,"t":"2024-01-01T00:00:00Z","a":[1,null],"z":0}"#;
        let expected = [
            text("{\"k\": 1}"),
            Value::Long(7),
            Value::Double(1000.0),
            Value::Decimal(150),
            Value::Long(1_704_067_200_000_000),
            Value::Array(vec![Value::Long(1), Value::Null]),
        ];
        assert_eq!(row(&mut decoder, line), (expected.to_vec(), Ok(())));
        for (bad, why) in [
            (r#"{"n":3000000000}"#, "a field does not have the type of its column"),
            ("5", "not a JSON object"),
            ("{", "not JSON"),
        ] {
            let (row, outcome) = row(&mut decoder, bad);
            assert_eq!((outcome, &row[1]), (Err(why), &Value::Null), "{bad}");
        }
        assert_eq!(row(&mut decoder, "{} {}").1, Ok(()), "nothing after the object is read");
        let (row, outcome) = row(&mut decoder, r#"{"n":1,"s":"a","n":"x","s":"b","x":2}"#);
        assert_eq!(outcome, Err("a field does not have the type of its column"));
        assert_eq!(row[..3], [text("b"), Value::Long(1), Value::Double(2.0)]);
    }

    #[test]
    fn maps_of_json_have_keys_of_string() {
        for (ddl, good) in [
            ("m MAP<STRING, INT>", true),
            ("m MAP<INT, STRING>", false),
            ("n INT, a ARRAY<STRUCT<m: MAP<DATE, INT>>>", false),
            ("m MAP<STRING, MAP<BIGINT, INT>>", false),
        ] {
            let mut reader = OptionReader::new("test", &[]);
            let schema = Schema::parse_ddl(ddl).unwrap();
            let read = Decoder::read("json", Some(schema), &[], &mut reader);
            let condition = read.map_err(|error| error.condition).err();
            let expected = (!good).then_some("DATATYPE_MISMATCH.INVALID_JSON_MAP_KEY_TYPE");
            assert_eq!(condition.as_deref(), expected, "{ddl}");
        }
    }

    #[test]
    fn a_bad_json_record_is_kept_as_a_whole_or_not_at_all() {
        let ddl = "n INT, s STRING, _corrupt_record STRING";
        let mut decoder = decoder("json", ddl, &[]);
        for (record, expected) in [
            (r#"{"n":1,"s":"ok"}"#, [Value::Long(1), text("ok"), Value::Null]),
            (r#"{"n":2,"s":"cut"#, [Value::Null, Value::Null, text(r#"{"n":2,"s":"cut"#)]),
            (r#"{"n":"x","s":1.10}"#, [Value::Null, text("1.10"), text(r#"{"n":"x","s":1.10}"#)]),
        ] {
            assert_eq!(row(&mut decoder, record).0, expected, "{record}");
        }
    }

    #[test]
    fn csv_fields_by_position() {
        let mut decoder = decoder("csv", "s STRING, n INT", &[("nullValue", "-")]);
        assert_eq!(row(&mut decoder, ",5").0, [Value::Null, Value::Long(5)]);
        assert_eq!(row(&mut decoder, "\"\",5").0, [text(""), Value::Long(5)]);
        assert_eq!(row(&mut decoder, "-,-"), (vec![Value::Null, Value::Null], Ok(())));
        assert_eq!(
            row(&mut decoder, r#""a \"b\", \c",7"#).0,
            [text("a \"b\", \\c"), Value::Long(7)]
        );
        for (few, row_of) in
            [("a", [text("a"), Value::Null]), ("a,1,2", [text("a"), Value::Long(1)])]
        {
            let (row, outcome) = row(&mut decoder, few);
            assert_eq!((&row[..], outcome.is_err()), (&row_of[..], true), "what could be read");
        }
    }

    #[test]
    fn options_of_notation_and_of_bad_records() {
        let options = [
            ("sep", "|"),
            ("dateFormat", "dd.MM.yyyy"),
            ("timestampFormat", "dd.MM.yyyy HH:mm"),
            ("timeZone", "Europe/Berlin"),
            ("ignoreLeadingWhiteSpace", "true"),
            ("nanValue", "nix"),
            ("columnNameOfCorruptRecord", "bad"),
        ];
        let mut decoder = decoder("csv", "d DATE, bad STRING, t TIMESTAMP, x DOUBLE", &options);
        let (row_of, outcome) = row(&mut decoder, "31.01.2024| 01.01.1970 01:00|nix");
        assert_eq!(outcome, Ok(()));
        assert_eq!(row_of[..3], [Value::Long(19753), Value::Null, Value::Long(0)]);
        let bad = "2024-01-31|01.01.1970 01:00|1";
        let (row_of, outcome) = row(&mut decoder, bad);
        assert!(outcome.is_err());
        assert_eq!(row_of, [Value::Null, text(bad), Value::Long(0), Value::Double(1.0)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut out = Vec::new();
            let _ = decoder("json", DDL, &[]).decode(&bytes, &mut out);
            let _ = decoder("csv", "s STRING, n INT, t TIMESTAMP", &[]).decode(&bytes, &mut out);
        }

        /// Fields that were quoted on writing are read back unchanged.
        #[test]
        fn quoted_fields_come_back(fields in proptest::collection::vec("[a\"\\\\,é ]{1,6}", 3)) {
            let quoted: Vec<_> = fields.iter()
                .map(|f| format!("\"{}\"", f.replace('\\', "\\\\").replace('"', "\\\""))).collect();
            let mut decoder = decoder("csv", "a STRING, b STRING, c STRING", &[]);
            let (row, outcome) = row(&mut decoder, &quoted.join(","));
            prop_assert_eq!(outcome, Ok(()));
            prop_assert_eq!(row, fields.iter().map(|f| text(f)).collect::<Vec<_>>());
        }
    }
}
