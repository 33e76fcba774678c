//! Values as JSON text, by Spark's `to_json`.

use crate::table::datetime::Tz;
use crate::table::text::Notation;
use crate::table::types::DataType;
use crate::table::value::{Value, write_scientific};
use base64::Engine;
use std::fmt;

/// Appends a value; NULL fields of structs are left out.
pub fn write_json(value: &Value, data_type: &DataType, zone: Tz, out: &mut Vec<u8>) {
    let notation = Notation { zone, ..Notation::default() };
    write_json_as(value, data_type, &notation, false, out);
}

/// Appends a value in a notation, with or without the fields of structs that are NULL.
pub fn write_json_as(
    value: &Value,
    data_type: &DataType,
    notation: &Notation,
    nulls: bool,
    out: &mut Vec<u8>,
) {
    let zone = notation.zone;
    match (value, data_type) {
        (Value::Null, _) => out.extend_from_slice(b"null"),
        (Value::Boolean(v), _) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        (Value::Double(v), _) if !v.is_finite() => {
            quoted(out, |out| value.write_text(data_type, zone, "", out));
        }
        (Value::Decimal(v), DataType::Decimal(_, scale)) => {
            // Writing to memory does not fail.
            let _ = write_scientific(*v, *scale, &mut Text(out));
        }
        (Value::Double(_) | Value::Long(_), t) if t.is_numeric() => {
            // Writing to memory does not fail.
            let _ = value.write_text(data_type, zone, "", &mut Text(out));
        }
        (Value::Long(_), DataType::Date | DataType::Timestamp | DataType::TimestampNtz) => {
            quoted(out, |out| notation.write(value, data_type, out));
        }
        (Value::Binary(v), _) => {
            write_string(base64::engine::general_purpose::STANDARD.encode(v).as_bytes(), out);
        }
        (Value::Array(values), DataType::Array(element)) => {
            list(b"[]", values.iter(), out, |v, out| {
                write_json_as(v, element, notation, nulls, out);
            });
        }
        (Value::Map(entries), DataType::Map(key, of)) => {
            list(b"{}", entries.iter(), out, |(k, v), out| {
                quoted(out, |out| write_key(k, key, out));
                out.push(b':');
                write_json_as(v, of, notation, nulls, out);
            });
        }
        (Value::Struct(values), DataType::Struct(fields)) => {
            let there = fields.iter().zip(values).filter(|(_, v)| nulls || **v != Value::Null);
            list(b"{}", there, out, |(field, v), out| {
                write_string(field.name.as_bytes(), out);
                out.push(b':');
                write_json_as(v, &field.data_type, notation, nulls, out);
            });
        }
        (Value::String(text), _) => write_string(text.as_bytes(), out),
        (other, t) => quoted(out, |out| other.write_text(t, zone, "", out)),
    }
}

/// Writes the key of a map as Spark holds it: dates as days, times as microseconds, structs and
/// arrays in brackets.
fn write_key(key: &Value, data_type: &DataType, out: &mut dyn fmt::Write) -> fmt::Result {
    let parts = |parts: &mut dyn Iterator<Item = (&Value, &DataType)>, out: &mut dyn fmt::Write| {
        out.write_char('[')?;
        for (i, (part, data_type)) in parts.enumerate() {
            if i > 0 {
                out.write_char(',')?;
            }
            write_key(part, data_type, out)?;
        }
        out.write_char(']')
    };
    match (key, data_type) {
        (Value::Long(v), _) => write!(out, "{v}"),
        (Value::Decimal(v), DataType::Decimal(_, scale)) => write_scientific(*v, *scale, out),
        (Value::Struct(values), DataType::Struct(fields)) => {
            parts(&mut values.iter().zip(fields.iter().map(|field| &field.data_type)), out)
        }
        (Value::Array(values), DataType::Array(element)) => {
            parts(&mut values.iter().map(|value| (value, &**element)), out)
        }
        (key, data_type) => key.write_text(data_type, Tz::UTC, "null", out),
    }
}

/// Bytes that texts are appended to.
struct Text<'o>(&'o mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Appends in quotes what is written.
fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Text<'_>) -> fmt::Result) {
    out.push(b'"');
    let from = out.len();
    // Writing to memory does not fail.
    let _ = write(&mut Text(out));
    if out[from..].iter().any(must_be_escaped) {
        let text = out.split_off(from);
        out.pop();
        return write_string(&text, out);
    }
    out.push(b'"');
}

fn must_be_escaped(b: &u8) -> bool {
    *b < 0x20 || *b == b'"' || *b == b'\\'
}

fn list<T>(
    brackets: &[u8; 2],
    items: impl Iterator<Item = T>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(brackets[0]);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

/// Appends a string in quotes.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    if !text.iter().any(must_be_escaped) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    // Writing JSON into memory does not fail.
    let _ = serde_json::to_writer(out, &String::from_utf8_lossy(text));
}
