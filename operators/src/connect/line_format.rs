//! Formats rows as lines of text, JSON or CSV, directly from their bytes.

use crate::table::error::{PlanError, PlanResult};
use crate::table::row::{Row, Slot};
use crate::table::text::csv::WriteOptions;
use crate::table::text::json::{Style, write_field};
use crate::table::text::notation::{Notation, write_integer};
use crate::table::types::{DataType, Schema};
use std::sync::Arc;

/// The format of output lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// The single column, which must be a string. NULL is an empty line.
    Text,
    /// A JSON object from column name to value. NULL fields are omitted, as in Spark, unless an
    /// option says otherwise.
    Json,
    /// Values, quoted if necessary. Unless options say otherwise, commas separate them and NULL is
    /// empty.
    Csv,
}

impl LineFormat {
    /// The name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    /// The extension of its files, as in Spark.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }
}

/// Write options of lines.
#[derive(Clone, Debug)]
pub struct LineOptions {
    /// Options of CSV fields.
    pub csv: WriteOptions,
    /// The line end after each row.
    pub line_end: String,
    /// Options of JSON.
    pub json: Style,
    /// The formats of dates and timestamps.
    pub notation: Notation,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self {
            csv: WriteOptions::default(),
            line_end: "\n".to_string(),
            json: Style::default(),
            notation: Notation::default(),
        }
    }
}

/// Writes rows of one schema as lines.
#[derive(Clone)]
pub struct LineWriter {
    format: LineFormat,
    options: Arc<LineOptions>,
    /// The number of columns in a row, including those that are not written.
    width: usize,
    columns: Vec<Column>,
    /// Whether integers in CSV need no quoting, because no option makes digits or signs special.
    plain_numbers: bool,
    scratch: String,
}

/// A column that is written.
#[derive(Clone)]
struct Column {
    index: usize,
    slot: Slot,
    data_type: DataType,
    /// The column's name as a quoted JSON string.
    name: String,
}

impl LineWriter {
    /// Creates a writer of all columns. Fails if the format does not support a column.
    pub fn new(format: LineFormat, schema: &Schema) -> PlanResult<Self> {
        Self::without(format, LineOptions::default(), schema, &[])
    }

    /// Creates a writer of all columns except those at the indices `left_out`. Fails if text is not
    /// one column of type STRING, or if CSV has a nested column.
    pub fn without(
        format: LineFormat,
        options: LineOptions,
        schema: &Schema,
        left_out: &[usize],
    ) -> PlanResult<Self> {
        let written = |(i, _): &(usize, &crate::table::types::Field)| !left_out.contains(i);
        let mut kept: Vec<_> = schema.fields.iter().enumerate().filter(written).collect();
        let fields: Vec<_> = kept.iter().map(|(_, field)| *field).collect();
        let text = matches!(fields.as_slice(), [one] if one.data_type == DataType::String);
        if format == LineFormat::Text && !text {
            return Err(PlanError::new(
                "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
                "format 'text' writes one column of type STRING",
                "Select one string, for example concat_ws(',', a, b) AS value, or use format 'json' or 'csv'",
            ));
        }
        let is_refused = |data_type: &DataType| {
            format == LineFormat::Csv && data_type.has_parts() || data_type.has_calendar_interval()
        };
        if let Some(field) = fields.iter().find(|f| is_refused(&f.data_type)) {
            let fix = match field.data_type.has_calendar_interval() {
                true => "Cast the INTERVAL to STRING",
                false => "Use format 'json'",
            };
            let (name, to) = (&field.name, &field.data_type);
            return Err(PlanError::new(
                "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
                format!("format '{}' cannot hold `{name}`, which is {to}", format.name()),
                fix,
            ));
        }
        let width = schema.fields.len();
        let column = |(i, f): (usize, &crate::table::types::Field)| {
            let name = serde_json::Value::from(f.name.as_str()).to_string();
            Column { index: i, slot: Slot::new(i, width), data_type: f.data_type.clone(), name }
        };
        let plain_numbers = options.csv.numbers_are_plain();
        if format == LineFormat::Json && options.json.sorted {
            kept.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        }
        let columns = kept.into_iter().map(column).collect();
        let options = Arc::new(options);
        Ok(Self { format, options, width, columns, plain_numbers, scratch: String::new() })
    }

    /// The header line of CSV with the column names.
    pub fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, column) in self.columns.iter().enumerate() {
            if at > 0 {
                self.options.csv.separate(&mut out);
            }
            let name = serde_json::from_str::<String>(&column.name).unwrap_or_default();
            self.options.csv.field(name.as_bytes(), at == 0, &mut out);
        }
        out.extend_from_slice(self.options.line_end.as_bytes());
        out
    }

    /// Appends a row and a line end.
    pub fn write(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let Self { format, options, width, columns, plain_numbers, scratch } = self;
        let width = *width;
        match format {
            LineFormat::Text => {
                let slot = columns[0].slot;
                if !row.is_null(slot) {
                    out.extend_from_slice(row.bytes(slot));
                }
            }
            LineFormat::Json => {
                let from = out.len();
                out.push(b'{');
                let mut first = true;
                for Column { index, slot, data_type, name } in columns.iter() {
                    if row.is_null(*slot) && !options.json.nulls {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    out.extend_from_slice(name.as_bytes());
                    out.push(b':');
                    if row.is_null(*slot) {
                        out.extend_from_slice(b"null");
                        continue;
                    }
                    write_field(
                        row,
                        *index,
                        width,
                        data_type,
                        &options.notation,
                        options.json,
                        out,
                    );
                }
                out.push(b'}');
                options.json.finish(out, from);
            }
            LineFormat::Csv => {
                let csv = &options.csv;
                for (at, Column { index, slot, data_type, .. }) in columns.iter().enumerate() {
                    if at > 0 {
                        csv.separate(out);
                    }
                    if row.is_null(*slot) {
                        csv.null(at == 0, out);
                    } else if data_type.is_integral() && *plain_numbers {
                        write_integer(row.long(*slot), out);
                    } else if *data_type == DataType::String {
                        csv.field(row.bytes(*slot), at == 0, out);
                    } else {
                        scratch.clear();
                        let value = row.value(*index, width, data_type);
                        // Writing to a string does not fail.
                        let _ = options.notation.write_csv(&value, data_type, scratch);
                        csv.field(scratch.as_bytes(), at == 0, out);
                    }
                }
            }
        }
        out.extend_from_slice(options.line_end.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::encode;
    use crate::table::value::Value;

    fn line(format: LineFormat, ddl: &str, values: &[Value]) -> String {
        let schema = Schema::parse_ddl(ddl).unwrap();
        let (bytes, mut out) = (encode(values), Vec::new());
        LineWriter::new(format, &schema).unwrap().write(Row(&bytes), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_as_spark_writes_them() {
        let ddl = "s STRING, n BIGINT, d DECIMAL(4,2), t TIMESTAMP, x DOUBLE";
        let values = [
            Value::String("a \"b\",\n".into()),
            Value::Long(i64::MIN),
            Value::Decimal(-5),
            Value::Long(1_500_000),
            Value::Null,
        ];
        assert_eq!(
            line(LineFormat::Json, ddl, &values),
            "{\"s\":\"a \\\"b\\\",\\n\",\"n\":-9223372036854775808,\"d\":-0.05,\"t\":\"1970-01-01T00:00:01.500Z\"}\n"
        );
        assert_eq!(
            line(LineFormat::Csv, ddl, &values),
            "\"a \\\"b\\\",\",-9223372036854775808,-0.05,1970-01-01T00:00:01.500Z,\n"
        );
        assert_eq!(line(LineFormat::Text, "s STRING", &[Value::String("é".into())]), "é\n");
        assert!(LineWriter::new(LineFormat::Text, &Schema::parse_ddl("n INT").unwrap()).is_err());
    }

    /// In the encoded form `"a"` is larger than `"a b"`, because the quote is larger than the space.
    #[test]
    fn sorted_fields_of_json_are_ordered_by_their_names() {
        let schema = Schema::parse_ddl("ab INT, `a b` INT, a INT").unwrap();
        let mut options = LineOptions::default();
        options.json.sorted = true;
        let mut writer = LineWriter::without(LineFormat::Json, options, &schema, &[]).unwrap();
        let (bytes, mut out) = (encode(&[3, 2, 1].map(Value::Long)), Vec::new());
        writer.write(Row(&bytes), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "{\"a\":1,\"a b\":2,\"ab\":3}\n");
    }
}
