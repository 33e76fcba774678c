//! Writes values as JSON text, like Spark's `to_json`.

use crate::table::datetime::Tz;
use crate::table::row::{Array, Row, Slot};
use crate::table::text::json::token::plain_end;
use crate::table::text::json::variant::write_variant;
use crate::table::text::notation::{Notation, write_integer};
use crate::table::text::utf8;
use crate::table::types::{DataType, Field};
use crate::table::value::{Value, write_scientific};
use crate::table::variant::Variant;
use base64::Engine;
use std::fmt;

/// The style of JSON text. The patterns of dates and timestamps are not part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether NULL fields of structs are written.
    pub nulls: bool,
    /// Whether struct fields and map entries are sorted by name.
    pub sorted: bool,
    /// Whether non-ASCII characters are written as escapes.
    pub ascii: bool,
    /// Whether each field is on a separate line (the option `pretty`).
    pub pretty: bool,
}

impl Style {
    /// Applies the style to the value that starts at offset `from`: escapes non-ASCII characters
    /// and indents, if required.
    #[inline]
    pub fn finish(self, out: &mut Vec<u8>, from: usize) {
        if self.ascii {
            let text = out.split_off(from);
            write_ascii(&text, out);
        }
        if self.pretty {
            let text = out.split_off(from);
            write_pretty(&text, out);
        }
    }
}

/// Copies JSON and escapes non-ASCII characters, which occur only inside strings.
fn write_ascii(text: &[u8], out: &mut Vec<u8>) {
    for c in utf8::decode(text).chars() {
        if c.is_ascii() {
            out.push(c as u8);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to memory does not fail.
            let _ = fmt::Write::write_fmt(&mut Text(out), format_args!("\\u{unit:04X}"));
        }
    }
}

/// Copies compact JSON in the layout of Jackson's pretty printer: a new line for each field of
/// an object, but not for the elements of an array.
fn write_pretty(text: &[u8], out: &mut Vec<u8>) {
    let (mut depth, mut in_string, mut escaped, mut brackets) = (0, false, false, Vec::new());
    let line = |depth: usize, out: &mut Vec<u8>| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * depth));
    };
    for (at, byte) in text.iter().copied().enumerate() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        let is_empty = at > 0 && matches!((text[at - 1], byte), (b'{', b'}') | (b'[', b']'));
        match byte {
            b'{' => {
                brackets.push(byte);
                depth += 1;
                out.push(byte);
                if text.get(at + 1) != Some(&b'}') {
                    line(depth, out);
                }
            }
            b'[' => {
                brackets.push(byte);
                out.extend_from_slice(b"[ ");
            }
            b'}' => {
                brackets.pop();
                depth -= 1;
                if is_empty {
                    out.push(b' ');
                } else {
                    line(depth, out);
                }
                out.push(byte);
            }
            b']' => {
                brackets.pop();
                out.extend_from_slice(if is_empty { b"]" } else { b" ]" });
            }
            b',' if brackets.last() == Some(&b'{') => {
                out.push(byte);
                line(depth, out);
            }
            b',' => out.extend_from_slice(b", "),
            b':' => out.extend_from_slice(b" : "),
            other => {
                in_string = other == b'"';
                out.push(other);
            }
        }
    }
}

/// Appends a value as JSON in the default style, without NULL fields.
pub fn write_json(value: &Value, data_type: &DataType, zone: Tz, out: &mut Vec<u8>) {
    let notation = Notation { zone, ..Notation::default() };
    write_json_as(value, data_type, &notation, Style::default(), out);
}

/// Appends a value as JSON. For `ascii` and `pretty`, [`Style::finish`] must be called after the
/// whole value.
pub fn write_json_as(
    value: &Value,
    data_type: &DataType,
    notation: &Notation,
    style: Style,
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
        (
            Value::Long(_),
            DataType::Date | DataType::Timestamp | DataType::TimestampNtz | DataType::Time(_),
        ) => {
            quoted(out, |out| notation.write(value, data_type, out));
        }
        (Value::Binary(v), DataType::Variant) => write_variant(Variant::new(v), zone, out),
        (Value::Binary(_), DataType::CalendarInterval) => {
            quoted(out, |out| value.write_text(data_type, zone, "", out));
        }
        (Value::Binary(v), _) => {
            write_text(&base64::engine::general_purpose::STANDARD.encode(v), out);
        }
        (Value::Array(values), DataType::Array(element)) => {
            list(b"[]", values.iter(), out, |v, out| {
                write_json_as(v, element, notation, style, out);
            });
        }
        (Value::Map(entries), DataType::Map(key, of)) if style.sorted => {
            let mut sorted: Vec<(String, &Value)> = entries
                .iter()
                .map(|(k, v)| {
                    let mut name = String::new();
                    // Writing to memory does not fail.
                    let _ = write_key(k, key, &mut name);
                    (name, v)
                })
                .collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            list(b"{}", sorted.into_iter(), out, |(name, v), out| {
                write_text(&name, out);
                out.push(b':');
                write_json_as(v, of, notation, style, out);
            });
        }
        (Value::Map(entries), DataType::Map(key, of)) => {
            list(b"{}", entries.iter(), out, |(k, v), out| {
                quoted(out, |out| write_key(k, key, out));
                out.push(b':');
                write_json_as(v, of, notation, style, out);
            });
        }
        (Value::Struct(values), DataType::Struct(fields)) => {
            let there =
                fields.iter().zip(values).filter(|(_, v)| style.nulls || **v != Value::Null);
            let mut write = |(field, v): (&Field, &Value), out: &mut Vec<u8>| {
                write_text(&field.name, out);
                out.push(b':');
                write_json_as(v, &field.data_type, notation, style, out);
            };
            if style.sorted {
                let mut sorted: Vec<(&Field, &Value)> = there.collect();
                sorted.sort_by(|a, b| a.0.name.cmp(&b.0.name));
                list(b"{}", sorted.into_iter(), out, &mut write);
            } else {
                list(b"{}", there, out, &mut write);
            }
        }
        (Value::String(text), _) => write_text(text, out),
        (other, t) => quoted(out, |out| other.write_text(t, zone, "", out)),
    }
}

/// Appends a non-NULL field of a row. Where possible, the row's bytes are copied without creating a
/// value.
pub fn write_field(
    row: Row<'_>,
    index: usize,
    width: usize,
    data_type: &DataType,
    notation: &Notation,
    style: Style,
    out: &mut Vec<u8>,
) {
    let slot = Slot::new(index, width);
    // Appends one part of a nested value.
    let part = |row: Row<'_>, index, width, data_type: &DataType, out: &mut Vec<u8>| {
        let slot = Slot::new(index, width);
        match data_type {
            _ if row.is_null(slot) => out.extend_from_slice(b"null"),
            other => write_field(row, index, width, other, notation, style, out),
        }
    };
    match data_type {
        DataType::Long | DataType::Int | DataType::Short | DataType::Byte => {
            write_integer(row.long(slot), out);
        }
        DataType::String => write_string(row.bytes(slot), out),
        DataType::Struct(fields) if !style.sorted => {
            let (row, width) = (Row(row.bytes(slot)), fields.len());
            let there = |index: &usize| style.nulls || !row.is_null(Slot::new(*index, width));
            list(b"{}", (0..width).filter(there), out, |index, out| {
                let Field { name, data_type, .. } = &fields[index];
                write_text(name, out);
                out.push(b':');
                part(row, index, width, data_type, out);
            });
        }
        DataType::Array(element) => {
            let array = Array::new(row.bytes(slot));
            list(b"[]", 0..array.len, out, |index, out| {
                part(array.row, index, array.len, element, out);
            });
        }
        other => write_json_as(&row.value(index, width, other), other, notation, style, out),
    }
}

/// Writes a map key in Spark's internal form: dates as days, timestamps as microseconds, and
/// structs and arrays in brackets.
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

/// Implements `fmt::Write` for a byte buffer.
pub(super) struct Text<'o>(pub &'o mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Appends the text that `write` produces, in quotes and with escapes.
fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Text<'_>) -> fmt::Result) {
    out.push(b'"');
    let from = out.len();
    // Writing to memory does not fail.
    let _ = write(&mut Text(out));
    // What `fmt::Write` has written is valid UTF-8.
    if !needs_no_escape(&out[from..]) {
        let text = out.split_off(from);
        out.pop();
        return write_string(&text, out);
    }
    out.push(b'"');
}

/// Whether a text contains no characters that JSON must escape.
#[inline]
fn needs_no_escape(text: &[u8]) -> bool {
    plain_end(text, 0, b'"') == text.len()
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

/// Appends a string in quotes, with escapes. Invalid UTF-8 is replaced, as in Java.
#[inline]
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(text) {
        Ok(text) => write_text(text, out),
        Err(_) => write_text(&utf8::decode(text), out),
    }
}

/// Like [`write_string`], for a text that is known to be UTF-8.
#[inline]
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    match needs_no_escape(text.as_bytes()) {
        true => out.extend_from_slice(text.as_bytes()),
        false => write_escaped(text, out),
    }
    out.push(b'"');
}

fn write_escaped(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0x08 => out.extend(b"\\b"),
            b'\t' => out.extend(b"\\t"),
            b'\n' => out.extend(b"\\n"),
            0x0C => out.extend(b"\\f"),
            b'\r' => out.extend(b"\\r"),
            0x00..0x20 => {
                let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
                out.extend([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::types::Schema;

    #[test]
    fn control_characters_are_escaped_as_jackson_does() {
        let mut out = Vec::new();
        write_string("\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}\"\\/é".as_bytes(), &mut out);
        let expected = "\"\\b\\t\\n\\u000B\\f\\r\\u001F\u{7f}\\\"\\\\/é\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn invalid_utf_8_is_replaced() {
        for (text, expected) in [
            (&b"a\xFF"[..], "\"a\u{FFFD}\""),
            (b"\xED\xA0\x80", "\"\u{FFFD}\""),
            (b"\n\xFF", "\"\\n\u{FFFD}\""),
        ] {
            let mut out = Vec::new();
            write_string(text, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_row_is_written_like_its_values() {
        let ddl = "n INT, a ARRAY<STRUCT<s: STRING, d: DOUBLE>>, e ARRAY<ARRAY<BIGINT>>, \
            m MAP<STRING, INT>, t TIMESTAMP, o STRUCT<x: STRUCT<y: DATE>, z: DECIMAL(9,2)>";
        let data_type = DataType::Struct(Schema::parse_ddl(ddl).unwrap().fields);
        let text = |text: &str| Value::String(text.to_string());
        let (null, long) = (Value::Null, Value::Long);
        let values = [
            long(-7),
            Value::Array(vec![
                Value::Struct(vec![text("a\"\u{1}é"), Value::Double(0.1)]),
                null.clone(),
                Value::Struct(vec![null.clone(), Value::Double(f64::NAN)]),
            ]),
            Value::Array(vec![Value::Array(vec![]), Value::Array(vec![long(1), null.clone()])]),
            Value::Map(vec![(text("k"), null.clone())]),
            long(1_000_000),
            Value::Struct(vec![Value::Struct(vec![null.clone()]), Value::Decimal(-5)]),
        ];
        let bytes = crate::table::row::encode(&[Value::Struct(values.to_vec())]);
        let value = Value::Struct(values.to_vec());
        for style in [
            Style::default(),
            Style { nulls: true, ..Style::default() },
            Style { sorted: true, ..Style::default() },
        ] {
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            write_json_as(&value, &data_type, &Notation::default(), style, &mut expected);
            write_field(Row(&bytes), 0, 1, &data_type, &Notation::default(), style, &mut found);
            assert_eq!(String::from_utf8(found), String::from_utf8(expected));
        }
    }

    #[test]
    fn styles_as_spark_writes_them() {
        let schema =
            Schema::parse_ddl("b INT, a MAP<STRING, INT>, l ARRAY<INT>, s STRING").unwrap();
        let text = |text: &str| Value::String(text.to_string());
        let entries = vec![(text("z"), Value::Long(1)), (text("y"), Value::Null)];
        let value = Value::Struct(vec![
            Value::Null,
            Value::Map(entries),
            Value::Array(vec![Value::Long(1), Value::Long(2)]),
            text("{é😀\\\","),
        ]);
        let data_type = DataType::Struct(schema.fields);
        let plain = Style::default();
        for (style, expected) in [
            (plain, r#"{"a":{"z":1,"y":null},"l":[1,2],"s":"{é😀\\\","}"#),
            (
                Style { nulls: true, sorted: true, ascii: true, ..plain },
                r#"{"a":{"y":null,"z":1},"b":null,"l":[1,2],"s":"{\u00E9\uD83D\uDE00\\\","}"#,
            ),
            (
                Style { pretty: true, ..plain },
                "{\n  \"a\" : {\n    \"z\" : 1,\n    \"y\" : null\n  },\n  \"l\" : [ 1, 2 ],\n  \
                 \"s\" : \"{é😀\\\\\\\",\"\n}",
            ),
        ] {
            let mut out = Vec::new();
            write_json_as(&value, &data_type, &Notation::default(), style, &mut out);
            style.finish(&mut out, 0);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        let mut out = Vec::new();
        write_pretty(br#"[[],{},{"a":{}}]"#, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "[ [ ], { }, {\n  \"a\" : { }\n} ]");
    }
}
