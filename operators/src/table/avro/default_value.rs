//! Encodes the default value of a field, which the schema states as JSON, as binary Avro.

use super::encode::{write_long, write_prefixed};
use super::schema::{Kind, Schema, SchemaError};
use serde_json::Value as Json;

fn unfit<T>(json: &Json, schema: &Schema) -> Result<T, SchemaError> {
    Err(SchemaError(format!("the default {json} is no `{}`", schema.word())))
}

/// Appends the binary form of a default. The default of a union is encoded for the first branch
/// that it fits.
pub fn write(json: &Json, schema: &Schema, out: &mut Vec<u8>) -> Result<(), SchemaError> {
    match (&schema.kind, json) {
        (Kind::Null, Json::Null) => {}
        (Kind::Boolean, Json::Bool(value)) => out.push(u8::from(*value)),
        (Kind::Int, Json::Number(number)) => match number.as_i64().map(i32::try_from) {
            Some(Ok(value)) => write_long(i64::from(value), out),
            _ => return unfit(json, schema),
        },
        (Kind::Long, Json::Number(number)) => match number.as_i64() {
            Some(value) => write_long(value, out),
            None => return unfit(json, schema),
        },
        (Kind::Float, Json::Number(number)) => match number.as_f64() {
            Some(value) => out.extend_from_slice(&(value as f32).to_le_bytes()),
            None => return unfit(json, schema),
        },
        (Kind::Double, Json::Number(number)) => match number.as_f64() {
            Some(value) => out.extend_from_slice(&value.to_le_bytes()),
            None => return unfit(json, schema),
        },
        (Kind::String, Json::String(text)) => write_prefixed(text.as_bytes(), out),
        (Kind::Bytes, Json::String(text)) => match latin_1(text) {
            Some(bytes) => write_prefixed(&bytes, out),
            None => return unfit(json, schema),
        },
        (Kind::Fixed { size, .. }, Json::String(text)) => match latin_1(text) {
            Some(bytes) if bytes.len() == *size => out.extend_from_slice(&bytes),
            _ => return unfit(json, schema),
        },
        (Kind::Enum { symbols, .. }, Json::String(text)) => {
            match symbols.iter().position(|symbol| symbol == text) {
                Some(index) => write_long(index as i64, out),
                None => return unfit(json, schema),
            }
        }
        (Kind::Array(items), Json::Array(elements)) => {
            if !elements.is_empty() {
                write_long(elements.len() as i64, out);
            }
            elements.iter().try_for_each(|element| write(element, items, out))?;
            write_long(0, out);
        }
        (Kind::Map(values), Json::Object(entries)) => {
            if !entries.is_empty() {
                write_long(entries.len() as i64, out);
            }
            for (key, value) in entries {
                write_prefixed(key.as_bytes(), out);
                write(value, values, out)?;
            }
            write_long(0, out);
        }
        (Kind::Record { fields, .. }, Json::Object(given)) => {
            for field in fields {
                match given.get(&field.name).or(field.default.as_ref()) {
                    Some(value) => write(value, &field.schema, out)?,
                    None => return unfit(json, schema),
                }
            }
        }
        (Kind::Union(branches), json) => {
            let start = out.len();
            for (index, branch) in branches.iter().enumerate() {
                write_long(index as i64, out);
                if write(json, branch, out).is_ok() {
                    return Ok(());
                }
                out.truncate(start);
            }
            return unfit(json, schema);
        }
        _ => return unfit(json, schema),
    }
    Ok(())
}

/// Encodes a text of characters from U+0000 to U+00FF as one byte per character; `None` if it has
/// other characters. The JSON form of `bytes` and `fixed` values uses this encoding.
fn latin_1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}
