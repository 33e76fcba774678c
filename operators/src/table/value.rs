//! A value outside a row: literals, the memory source and sink, and printing. Never on the hot
//! path.

use super::datetime::{Tz, date_text, interval, timestamp_text};
use super::row::{Array, Map, Row, RowWriter};
use super::types::{DataType, Field};

/// A value; its exact type is known from the schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// Integers, days of a date, microseconds of a timestamp.
    Long(i64),
    /// FLOAT and DOUBLE.
    Double(f64),
    /// The unscaled value of a decimal.
    Decimal(i128),
    /// STRING.
    String(String),
    /// BINARY.
    Binary(Vec<u8>),
    /// ARRAY.
    Array(Vec<Value>),
    /// MAP, in its own order.
    Map(Vec<(Value, Value)>),
    /// STRUCT, in the order of its fields.
    Struct(Vec<Value>),
}

impl Value {
    /// Reads what [`write`](Self::write) wrote for a type that lies in the tail.
    pub fn from_bytes(bytes: &[u8], data_type: &DataType) -> Self {
        match data_type {
            DataType::Binary => Self::Binary(bytes.to_vec()),
            DataType::Array(element) => {
                let array = Array::new(bytes);
                let element = |i| array.row.value(i, array.len, element);
                Self::Array((0..array.len).map(element).collect())
            }
            DataType::Map(key, value) => {
                let map = Map::new(bytes);
                let entry = |i| {
                    (map.keys.row.value(i, map.len, key), map.values.row.value(i, map.len, value))
                };
                Self::Map((0..map.len).map(entry).collect())
            }
            DataType::Struct(fields) => {
                let field =
                    |(i, f): (usize, &Field)| Row(bytes).value(i, fields.len(), &f.data_type);
                Self::Struct(fields.iter().enumerate().map(field).collect())
            }
            _ => Self::String(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    /// Writes an array or struct as its bytes in a row's tail; nothing for other values.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (mut writer, values) = match self {
            Self::Array(values) => (RowWriter::array(out, values.len()), values),
            Self::Struct(values) => (RowWriter::new(out, values.len()), values),
            Self::Map(entries) => {
                let (keys, values) = entries.iter().cloned().unzip();
                let mut bytes = Vec::new();
                Self::Array(keys).write(&mut bytes);
                let mut of_values = Vec::new();
                Self::Array(values).write(&mut of_values);
                Map::write(&bytes, &of_values, out);
                return;
            }
            _ => return,
        };
        for (index, value) in values.iter().enumerate() {
            writer.value(index, value);
        }
    }

    /// The value as Spark casts it to a string, `None` for NULL.
    pub fn display(&self, data_type: &DataType, zone: Tz) -> Option<String> {
        self.text(data_type, zone, "null")
    }

    /// The value as Spark's `show` prints it, which differs in the NULLs inside.
    pub fn show(&self, data_type: &DataType, zone: Tz) -> String {
        self.text(data_type, zone, "NULL").unwrap_or_else(|| "NULL".to_string())
    }

    fn text(&self, data_type: &DataType, zone: Tz, null: &str) -> Option<String> {
        let shown = |value: &Self, data_type: &DataType| {
            value.text(data_type, zone, null).unwrap_or_else(|| null.to_string())
        };
        Some(match (self, data_type) {
            (Self::Null, _) => return None,
            (Self::Boolean(v), _) => v.to_string(),
            (Self::Long(v), DataType::Date) => date_text(*v),
            (Self::Long(v), DataType::Timestamp) => timestamp_text(*v, zone),
            (Self::Long(v), DataType::TimestampNtz) => timestamp_text(*v, Tz::UTC),
            (Self::Long(v), t) if t.is_interval() => interval::text(*v, t),
            (Self::Long(v), _) => v.to_string(),
            (Self::Double(v), DataType::Float) => float_text(*v as f32),
            (Self::Double(v), _) => double_text(*v),
            (Self::Decimal(v), DataType::Decimal(_, scale)) => decimal_text(*v, *scale),
            (Self::Decimal(v), _) => v.to_string(),
            (Self::String(v), _) => v.clone(),
            (Self::Binary(v), _) => {
                let hex: Vec<_> = v.iter().map(|b| format!("{b:02X}")).collect();
                format!("[{}]", hex.join(" "))
            }
            (Self::Array(values), DataType::Array(element)) => {
                let texts = values.iter().map(|v| shown(v, element));
                format!("[{}]", texts.collect::<Vec<_>>().join(", "))
            }
            (Self::Struct(values), DataType::Struct(fields)) => {
                let texts = values.iter().zip(fields).map(|(v, f)| shown(v, &f.data_type));
                format!("{{{}}}", texts.collect::<Vec<_>>().join(", "))
            }
            (Self::Map(entries), DataType::Map(key, value)) => {
                let texts = entries
                    .iter()
                    .map(|(k, v)| format!("{} -> {}", shown(k, key), shown(v, value)));
                format!("{{{}}}", texts.collect::<Vec<_>>().join(", "))
            }
            (Self::Array(_) | Self::Map(_) | Self::Struct(_), _) => String::new(),
        })
    }
}

/// The text of a decimal with all digits of its scale.
pub fn decimal_text(unscaled: i128, scale: u8) -> String {
    if scale == 0 {
        return unscaled.to_string();
    }
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    format!("{}{whole}.{fraction}", if unscaled < 0 { "-" } else { "" })
}

/// A double as Java prints it: plain from 1e-3 to 1e7, else with an exponent.
pub fn double_text(v: f64) -> String {
    java_text(
        v.is_nan(),
        v.is_infinite(),
        v < 0.0,
        v.abs(),
        || format!("{v:?}"),
        || format!("{v:E}"),
    )
}

/// A float as Java prints it.
pub fn float_text(v: f32) -> String {
    let (nan, infinite) = (v.is_nan(), v.is_infinite());
    let plain = || format!("{v:?}");
    java_text(nan, infinite, v < 0.0, f64::from(v.abs()), plain, || format!("{v:E}"))
}

fn java_text(
    nan: bool,
    infinite: bool,
    negative: bool,
    magnitude: f64,
    plain: impl Fn() -> String,
    exponent: impl Fn() -> String,
) -> String {
    if nan {
        "NaN".to_string()
    } else if infinite {
        if negative { "-Infinity".to_string() } else { "Infinity".to_string() }
    } else if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        plain()
    } else {
        let text = exponent();
        // Java always has a fraction: 1.0E10.
        match text.split_once('E') {
            Some((mantissa, power)) if !mantissa.contains('.') => format!("{mantissa}.0E{power}"),
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_sparks() {
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(double_text(1.0), "1.0");
        assert_eq!(double_text(1e10), "1.0E10");
        assert_eq!(double_text(1.5e-5), "1.5E-5");
        assert_eq!(double_text(-0.0), "-0.0");
        assert_eq!(float_text(0.1), "0.1");
    }
}
