//! Rows as lines of text, JSON or CSV, written straight from their bytes.

use crate::table::datetime::Tz;
use crate::table::error::{PlanError, PlanResult};
use crate::table::json::{write_json, write_string};
use crate::table::row::{Row, Slot};
use crate::table::types::{DataType, Schema};

/// How a row becomes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// The one column, which must be a string.
    Text,
    /// An object from column name to value; NULL fields are left out, as Spark does.
    Json,
    /// Comma-separated, quoted where needed; NULL is empty.
    Csv,
}

impl LineFormat {
    /// Its name as a format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    /// The end of its files' names, as Spark has it.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }
}

/// Writes rows of one schema as lines.
pub struct LineWriter {
    format: LineFormat,
    /// Columns of the rows, of which those below are written.
    width: usize,
    columns: Vec<Column>,
    scratch: Vec<u8>,
}

/// A column that is written.
struct Column {
    index: usize,
    slot: Slot,
    data_type: DataType,
    /// Its name in quotes.
    name: String,
}

impl LineWriter {
    /// A writer of all columns; refused where the format cannot hold them.
    pub fn new(format: LineFormat, schema: &Schema) -> PlanResult<Self> {
        Self::without(format, schema, &[])
    }

    /// A writer of all columns but some.
    pub fn without(format: LineFormat, schema: &Schema, left_out: &[usize]) -> PlanResult<Self> {
        let written = |(i, _): &(usize, &crate::table::types::Field)| !left_out.contains(i);
        let kept = schema.fields.iter().enumerate().filter(written);
        let fields: Vec<_> = kept.clone().map(|(_, field)| field).collect();
        let text = matches!(fields.as_slice(), [one] if one.data_type == DataType::String);
        if format == LineFormat::Text && !text {
            return Err(PlanError::new(
                "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
                "format 'text' writes one column of type STRING",
                "Select one string, for example concat_ws(',', a, b) AS value, or use format 'json' or 'csv'",
            ));
        }
        let nested = fields.iter().find(|f| f.data_type.is_nested());
        if let (LineFormat::Csv, Some(field)) = (format, nested) {
            return Err(PlanError::new(
                "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
                format!("format 'csv' cannot hold `{}`, which is {}", field.name, field.data_type),
                "Use format 'json'",
            ));
        }
        let width = schema.fields.len();
        let column = |(i, f): (usize, &crate::table::types::Field)| {
            let name = serde_json::Value::from(f.name.as_str()).to_string();
            Column { index: i, slot: Slot::new(i, width), data_type: f.data_type.clone(), name }
        };
        Ok(Self { format, width, columns: kept.map(column).collect(), scratch: Vec::new() })
    }

    /// Appends a row and a line end.
    pub fn write(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let width = self.width;
        match self.format {
            LineFormat::Text => {
                let slot = self.columns[0].slot;
                if !row.is_null(slot) {
                    out.extend_from_slice(row.bytes(slot));
                }
            }
            LineFormat::Json => {
                out.push(b'{');
                let mut first = true;
                for Column { index, slot, data_type, name } in &self.columns {
                    if row.is_null(*slot) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    out.extend_from_slice(name.as_bytes());
                    out.push(b':');
                    match data_type {
                        DataType::Long | DataType::Int | DataType::Short | DataType::Byte => {
                            integer(row.long(*slot), out);
                        }
                        DataType::String => write_string(row.bytes(*slot), out),
                        other => write_json(&row.value(*index, width, other), other, Tz::UTC, out),
                    }
                }
                out.push(b'}');
            }
            LineFormat::Csv => {
                for (at, Column { index, slot, data_type, .. }) in self.columns.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    if row.is_null(*slot) {
                        continue;
                    }
                    if data_type.is_integral() {
                        integer(row.long(*slot), out);
                        continue;
                    }
                    self.scratch.clear();
                    if *data_type == DataType::String {
                        self.scratch.extend_from_slice(row.bytes(*slot));
                    } else if let Some(text) =
                        row.value(*index, width, data_type).display(data_type, Tz::UTC)
                    {
                        self.scratch.extend_from_slice(text.as_bytes());
                    }
                    quoted(&self.scratch, out);
                }
            }
        }
        out.push(b'\n');
    }
}

fn integer(value: i64, out: &mut Vec<u8>) {
    let (mut digits, mut at, mut rest) = ([0u8; 20], 20, value.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// A field with a separator, quote or line end, or empty, stands in quotes; quotes and
/// backslashes inside are escaped with a backslash, as Spark writes them.
fn quoted(text: &[u8], out: &mut Vec<u8>) {
    let special = |b: &u8| matches!(b, b',' | b'"' | b'\n' | b'\r');
    if !text.is_empty() && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for b in text {
        if matches!(b, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*b);
    }
    out.push(b'"');
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
            "\"a \\\"b\\\",\n\",-9223372036854775808,-0.05,1970-01-01 00:00:01.5,\n"
        );
        assert_eq!(line(LineFormat::Text, "s STRING", &[Value::String("é".into())]), "é\n");
        assert!(LineWriter::new(LineFormat::Text, &Schema::parse_ddl("n INT").unwrap()).is_err());
    }
}
