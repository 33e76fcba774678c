//! Values as JSON, by Spark's `to_json`.

use crate::table::datetime::Tz;
use crate::table::datetime::pattern::Pattern;
use crate::table::types::DataType;
use crate::table::value::Value;
use serde_json::Value as Json;

/// A value as JSON; NULL fields of structs are left out.
pub fn to_json(value: &Value, data_type: &DataType, zone: Tz) -> Json {
    match (value, data_type) {
        (Value::Null, _) => Json::Null,
        (Value::Boolean(v), _) => Json::from(*v),
        (Value::Long(v), t) if t.is_integral() => Json::from(*v),
        (Value::Double(v), _) if v.is_finite() => Json::from(*v),
        (Value::Decimal(_), _) => {
            let text = value.display(data_type, zone).unwrap_or_default();
            text.parse::<serde_json::Number>().map_or(Json::from(text), Json::Number)
        }
        (Value::Long(v), DataType::Timestamp) => Json::from(timestamp(*v, zone, true)),
        (Value::Long(v), DataType::TimestampNtz) => Json::from(timestamp(*v, Tz::UTC, false)),
        (Value::Binary(v), _) => {
            use base64::Engine;
            Json::from(base64::engine::general_purpose::STANDARD.encode(v))
        }
        (Value::Array(values), DataType::Array(element)) => {
            Json::Array(values.iter().map(|v| to_json(v, element, zone)).collect())
        }
        (Value::Struct(values), DataType::Struct(fields)) => {
            let pairs = fields.iter().zip(values).filter(|(_, v)| **v != Value::Null);
            let pairs = pairs.map(|(f, v)| (f.name.clone(), to_json(v, &f.data_type, zone)));
            Json::Object(pairs.collect())
        }
        (other, t) => Json::from(other.display(t, zone).unwrap_or_default()),
    }
}

/// `yyyy-MM-dd'T'HH:mm:ss[.SSS][XXX]`, as Spark writes it; the fraction of a millisecond is lost.
fn timestamp(micros: i64, zone: Tz, with_zone: bool) -> String {
    let pattern =
        if with_zone { "yyyy-MM-dd'T'HH:mm:ss.SSSXXX" } else { "yyyy-MM-dd'T'HH:mm:ss.SSS" };
    let mut out = String::new();
    if let Ok(pattern) = Pattern::new(pattern) {
        pattern.text(micros, zone, &mut out);
    }
    out
}

/// Appends a string in quotes.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    if text.iter().all(|b| *b >= 0x20 && *b != b'"' && *b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    // Writing JSON into memory does not fail.
    let _ = serde_json::to_writer(out, &String::from_utf8_lossy(text));
}
