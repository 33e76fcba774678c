//! JSON values in which numbers keep all their digits: a DECIMAL has more of them than a double.

use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// A row, by column name.
pub(super) type JsonRow = BTreeMap<String, JsonValue>;

/// A JSON value. Objects are equal regardless of the order of their fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JsonValue {
    Null,
    Boolean(bool),
    Number(Number),
    String(String),
    Array(Vec<JsonValue>),
    Object(JsonRow),
}

/// A number in the form `0.DIGITS · 10^exponent`, without zeros at the ends of its digits. Equal
/// numbers have equal parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Number {
    /// Parses a JSON number.
    fn parse(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let magnitude = mantissa.trim_start_matches('-');
        let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let leading = all.len() - digits.len();
        let digits = digits.trim_end_matches('0').to_string();
        if digits.is_empty() {
            return Self { is_negative: false, digits, exponent: 0 };
        }
        let exponent: i64 = exponent.trim_start_matches('+').parse().unwrap_or(i64::MAX / 2);
        let exponent = exponent.saturating_add(whole.len() as i64 - leading as i64);
        Self { is_negative: mantissa.starts_with('-'), digits, exponent }
    }

    /// The nearest double.
    pub fn as_f64(&self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative { "-" } else { "" };
        let digits = &self.digits;
        match self.exponent {
            _ if digits.is_empty() => write!(f, "0"),
            // A number that is short enough is written without an exponent.
            whole @ 1..=40 if digits.len() <= whole as usize => {
                write!(f, "{sign}{digits}{}", "0".repeat(whole as usize - digits.len()))
            }
            whole @ 1..=40 => {
                let (before, after) = digits.split_at(whole as usize);
                write!(f, "{sign}{before}.{after}")
            }
            small @ -5..=0 => write!(f, "{sign}0.{}{digits}", "0".repeat(-small as usize)),
            exponent => write!(f, "{sign}0.{digits}e{exponent}"),
        }
    }
}

impl JsonValue {
    /// Parses a row. A line that is not a JSON object, which the engine never writes, gives a row
    /// without columns.
    pub fn row(line: &str) -> JsonRow {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(line).unwrap_or_default();
        fields.into_iter().map(|(name, raw)| (name, Self::of(raw))).collect()
    }

    fn of(raw: &RawValue) -> Self {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'{') => Self::Object(Self::row(text)),
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
                Self::Array(elements.into_iter().map(Self::of).collect())
            }
            Some(b'"') => Self::String(serde_json::from_str(text).unwrap_or_default()),
            Some(b't') => Self::Boolean(true),
            Some(b'f') => Self::Boolean(false),
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number(Number::parse(text)),
        }
    }
}

impl Display for JsonValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Null => write!(f, "null"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::String(text) => write!(f, "{}", quoted(text)),
            Self::Array(elements) => {
                let elements: Vec<_> = elements.iter().map(Self::to_string).collect();
                write!(f, "[{}]", elements.join(","))
            }
            Self::Object(fields) => {
                let field = |(name, value): (&String, &Self)| format!("{}:{value}", quoted(name));
                let fields: Vec<_> = fields.iter().map(field).collect();
                write!(f, "{{{}}}", fields.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_equal_by_all_their_digits() {
        let number = |text: &str| Number::parse(text);
        assert_ne!(number("12345678901234567890.12"), number("12345678901234567890.13"));
        for (a, b) in [
            ("1.0", "1"),
            ("1e3", "1000.0"),
            ("-0.0", "0"),
            ("0.050", "5E-2"),
            ("12.30", "1.23e+1"),
        ] {
            assert_eq!(number(a), number(b), "{a} {b}");
        }
        for text in ["0", "-7", "1200", "12.5", "-0.05", "0.1e-9", "0.15e300"] {
            assert_eq!(number(text).to_string(), text);
            assert_eq!(number(text).as_f64(), text.parse::<f64>().unwrap());
        }
    }

    #[test]
    fn rows_are_equal_regardless_of_the_order_of_fields() {
        let row = JsonValue::row(r#"{"b":[1,{"x":null,"y":"\n"}],"a":true}"#);
        assert_eq!(row, JsonValue::row(r#"{"a":true, "b":[1.0, {"y":"\n","x":null}]}"#));
        assert_eq!(row["b"].to_string(), r#"[1,{"x":null,"y":"\n"}]"#);
        assert!(JsonValue::row("no row").is_empty());
    }
}
