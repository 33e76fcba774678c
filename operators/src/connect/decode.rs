//! Records of text, CSV and JSON files into rows.
//!
//! A record that does not fit its schema is handled as the option `mode` says, as in Spark:
//! `PERMISSIVE` gives a row with NULL for what could not be read, `DROPMALFORMED` gives none,
//! `FAILFAST` ends the query. The first two count the record and keep its bytes
//! ([`BadRecords`](super::bad_records::BadRecords)).

use super::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cast::{parse_date, parse_decimal, parse_timestamp};
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use serde_json::Value as Json;

/// What becomes of a record that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A row with NULLs.
    Permissive,
    /// No row.
    DropMalformed,
    /// The query fails.
    FailFast,
}

/// How the bytes of a file become records.
#[derive(Clone, Debug)]
pub enum Framing {
    /// A record per line.
    Text,
    /// A JSON object per line.
    Json,
    /// Comma-separated values.
    Csv {
        /// Between fields.
        separator: u8,
        /// Around fields.
        quote: u8,
        /// Before a quote in quotes.
        escape: u8,
        /// Begins a line that is none.
        comment: Option<u8>,
        /// The first line holds names.
        header: bool,
        /// What stands for NULL.
        null: String,
    },
}

/// Reads records of one format into rows of one schema.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// How records are found.
    pub framing: Framing,
    /// What becomes of those that do not fit.
    pub mode: Mode,
    schema: Schema,
}

fn byte(reader: &mut OptionReader<'_>, name: &'static str, default: u8) -> PlanResult<u8> {
    match reader.get(name).map(str::as_bytes) {
        None => Ok(default),
        Some(b"\\t") => Ok(b'\t'),
        Some([one]) => Ok(*one),
        Some(other) => Err(PlanError::new(
            "INVALID_OPTION_VALUE",
            format!("option '{name}' is '{}', but must be one byte", other.escape_ascii()),
            "",
        )),
    }
}

impl Decoder {
    /// Reads the format's own options.
    pub fn read(
        format: &str,
        schema: Option<Schema>,
        reader: &mut OptionReader<'_>,
    ) -> PlanResult<Self> {
        let framing = match format {
            "json" => Framing::Json,
            "csv" => {
                let separator = match reader.get("delimiter") {
                    Some(_) => byte(reader, "delimiter", b',')?,
                    None => byte(reader, "sep", b',')?,
                };
                Framing::Csv {
                    separator,
                    quote: byte(reader, "quote", b'"')?,
                    escape: byte(reader, "escape", b'\\')?,
                    comment: match reader.get("comment") {
                        None | Some("") => None,
                        Some(_) => Some(byte(reader, "comment", b'#')?),
                    },
                    header: reader.flag("header", false)?,
                    null: reader.get("nullValue").unwrap_or("").to_string(),
                }
            }
            _ => Framing::Text,
        };
        let mode = match framing {
            Framing::Text => Mode::Permissive,
            _ => match reader.choice("mode", &["PERMISSIVE", "DROPMALFORMED", "FAILFAST"])? {
                "DROPMALFORMED" => Mode::DropMalformed,
                "FAILFAST" => Mode::FailFast,
                _ => Mode::Permissive,
            },
        };
        let schema = match (schema, &framing) {
            (None, Framing::Text) => Schema::parse_ddl("value STRING")?,
            (Some(schema), Framing::Text) if schema == Schema::parse_ddl("value STRING")? => schema,
            (Some(_), Framing::Text) => {
                return Err(PlanError::new(
                    "UNSUPPORTED_USER_SPECIFIED_SCHEMA",
                    "a text file has one column, `value` of type STRING",
                    "Leave the schema out",
                ));
            }
            (Some(schema), _) => schema,
            (None, _) => {
                return Err(PlanError::new(
                    "STREAMING_FILE_SCHEMA_MISSING",
                    format!("source {format}: a schema must be given"),
                    "Write: CREATE TEMPORARY VIEW v (a INT, b STRING) USING csv OPTIONS (…)",
                ));
            }
        };
        let nested = |t: &DataType| matches!(t, DataType::Array(_) | DataType::Struct(_));
        if let (Framing::Csv { .. }, Some(field)) =
            (&framing, schema.fields.iter().find(|f| nested(&f.data_type)))
        {
            return Err(PlanError::new(
                "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
                format!("format 'csv' cannot hold `{}`, which is {}", field.name, field.data_type),
                "Use format 'json'",
            ));
        }
        Ok(Self { framing, mode, schema })
    }

    /// The columns, all of which may be NULL.
    pub fn schema(&self) -> Schema {
        let mut schema = self.schema.clone();
        schema.fields.iter_mut().for_each(|field| field.nullable = true);
        schema
    }

    /// Writes a line's row. The error says what is wrong; what could be read is written.
    pub fn line(&self, line: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        out.clear();
        let mut writer = RowWriter::new(out, self.schema.fields.len());
        let Ok(text) = std::str::from_utf8(line) else { return Err("not UTF-8") };
        if let Framing::Text = self.framing {
            writer.bytes(0, line);
            return Ok(());
        }
        let object = match serde_json::from_str(text) {
            Ok(Json::Object(object)) => object,
            Ok(_) => return Err("not a JSON object"),
            Err(_) => return Err("not JSON"),
        };
        let mut outcome = Ok(());
        for (index, field) in self.schema.fields.iter().enumerate() {
            let Some(json) = object.get(&field.name) else { continue };
            match from_json(json, &field.data_type) {
                Some(value) => writer.value(index, &value),
                None => outcome = Err("a field is not of its type"),
            }
        }
        outcome
    }

    /// Writes the row of a CSV record's fields.
    pub fn fields<'f>(
        &self,
        mut fields: impl ExactSizeIterator<Item = &'f [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let Framing::Csv { null, .. } = &self.framing else { return Err("not CSV") };
        out.clear();
        let mut writer = RowWriter::new(out, self.schema.fields.len());
        let mut outcome = if fields.len() == self.schema.fields.len() {
            Ok(())
        } else {
            Err("not as many fields as the schema has")
        };
        for (index, field) in self.schema.fields.iter().enumerate() {
            let Some(bytes) = fields.next() else { break };
            let Ok(text) = std::str::from_utf8(bytes) else {
                outcome = Err("not UTF-8");
                continue;
            };
            if text == null {
                continue;
            }
            match from_text(text, &field.data_type) {
                Some(value) => writer.value(index, &value),
                None => outcome = Err("a field is not of its type"),
            }
        }
        outcome
    }
}

/// An integer that fits its type.
fn integer(value: i64, data_type: &DataType) -> Option<Value> {
    let fits = match data_type {
        DataType::Byte => i8::try_from(value).is_ok(),
        DataType::Short => i16::try_from(value).is_ok(),
        DataType::Int => i32::try_from(value).is_ok(),
        _ => true,
    };
    fits.then_some(Value::Long(value))
}

fn double(value: f64, data_type: &DataType) -> Value {
    Value::Double(if *data_type == DataType::Float { f64::from(value as f32) } else { value })
}

fn from_text(text: &str, data_type: &DataType) -> Option<Value> {
    Some(match data_type {
        DataType::String => Value::String(text.to_string()),
        DataType::Binary => Value::Binary(text.as_bytes().to_vec()),
        DataType::Boolean if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
        DataType::Boolean if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
        t if t.is_integral() => integer(text.trim().parse().ok()?, t)?,
        DataType::Float | DataType::Double => match text {
            "NaN" => Value::Double(f64::NAN),
            "Inf" | "Infinity" => Value::Double(f64::INFINITY),
            "-Inf" | "-Infinity" => Value::Double(f64::NEG_INFINITY),
            _ => double(text.trim().parse().ok()?, data_type),
        },
        DataType::Decimal(..) => Value::Decimal(parse_decimal(text, data_type).ok()??),
        DataType::Date => Value::Long(parse_date(text)?),
        DataType::Timestamp | DataType::TimestampNtz => Value::Long(parse_timestamp(text)?),
        _ => return None,
    })
}

fn from_json(json: &Json, data_type: &DataType) -> Option<Value> {
    Some(match (json, data_type) {
        (Json::Null, _) => Value::Null,
        (Json::Bool(v), DataType::Boolean) => Value::Boolean(*v),
        (Json::String(v), DataType::String) => Value::String(v.clone()),
        // As in Spark, what is no string is given as it is written.
        (other, DataType::String) => Value::String(other.to_string()),
        (Json::Number(v), t) if t.is_integral() => integer(v.as_i64()?, t)?,
        (Json::Number(v), DataType::Float | DataType::Double) => double(v.as_f64()?, data_type),
        (Json::String(v), DataType::Float | DataType::Double) => match v.as_str() {
            "NaN" | "Infinity" | "-Infinity" | "Inf" | "-Inf" => from_text(v, data_type)?,
            _ => return None,
        },
        (Json::Number(v), DataType::Decimal(..)) => from_text(&v.to_string(), data_type)?,
        (Json::String(v), DataType::Decimal(..) | DataType::Date) => from_text(v, data_type)?,
        (Json::String(v), DataType::Timestamp | DataType::TimestampNtz) => from_text(v, data_type)?,
        (Json::Array(items), DataType::Array(element)) => {
            Value::Array(items.iter().map(|item| from_json(item, element)).collect::<Option<_>>()?)
        }
        (Json::Object(map), DataType::Struct(fields)) => {
            let field = |f: &crate::table::types::Field| {
                from_json(map.get(&f.name).unwrap_or(&Json::Null), &f.data_type)
            };
            Value::Struct(fields.iter().map(field).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::{Row, decode};
    use proptest::prelude::*;

    fn decoder(format: &str, ddl: &str, options: &[(String, String)]) -> Decoder {
        let mut reader = OptionReader::new("test", options);
        Decoder::read(format, Some(Schema::parse_ddl(ddl).unwrap()), &mut reader).unwrap()
    }

    const DDL: &str = "s STRING, n INT, x DOUBLE, d DECIMAL(6,2), t TIMESTAMP, a ARRAY<INT>";

    fn row(decoder: &Decoder, bytes: &[u8]) -> Vec<Value> {
        let schema = decoder.schema();
        decode(Row(bytes), schema.fields.iter().map(|f| &f.data_type))
    }

    #[test]
    fn json_fields_by_name_and_type() {
        let (decoder, mut out) = (decoder("json", DDL, &[]), Vec::new());
        let line =
            br#"{"n":7,"s":{"k":1},"x":1e3,"d":1.5,"t":"2024-01-01T00:00:00Z","a":[1,null],"z":0}"#;
        decoder.line(line, &mut out).unwrap();
        let expected = [
            Value::String("{\"k\":1}".into()),
            Value::Long(7),
            Value::Double(1000.0),
            Value::Decimal(150),
            Value::Long(1_704_067_200_000_000),
            Value::Array(vec![Value::Long(1), Value::Null]),
        ];
        assert_eq!(row(&decoder, &out), expected);
        for (bad, why) in [
            (&br#"{"n":3000000000}"#[..], "a field is not of its type"),
            (b"[1]", "not a JSON object"),
            (b"{", "not JSON"),
            (b"\xff", "not UTF-8"),
        ] {
            assert_eq!(decoder.line(bad, &mut out), Err(why));
            assert_eq!(row(&decoder, &out)[1], Value::Null);
        }
    }

    #[test]
    fn csv_fields_by_position() {
        let options = [("nullValue".to_string(), "-".to_string())];
        let (decoder, mut out) = (decoder("csv", "s STRING, n INT", &options), Vec::new());
        decoder.fields([&b""[..], b"5"].into_iter(), &mut out).unwrap();
        assert_eq!(row(&decoder, &out), [Value::String(String::new()), Value::Long(5)]);
        decoder.fields([&b"-"[..], b"-"].into_iter(), &mut out).unwrap();
        assert_eq!(row(&decoder, &out), [Value::Null, Value::Null]);
        assert!(decoder.fields([&b"a"[..]].into_iter(), &mut out).is_err());
        assert_eq!(row(&decoder, &out)[0], Value::String("a".into()), "what could be read");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut out = Vec::new();
            let _ = decoder("json", DDL, &[]).line(&bytes, &mut out);
            let csv = decoder("csv", "s STRING, n INT, t TIMESTAMP", &[]);
            let _ = csv.fields(bytes.split(|b| *b == b',').collect::<Vec<_>>().into_iter(), &mut out);
        }
    }
}
