//! VARIANT values from JSON text and as JSON text.

use crate::table::datetime::{SECOND_US, Tz, to_local, write_date, write_timestamp};
use crate::table::deep_recursion::on_stack;
use crate::table::text::java_double::{write_double, write_float};
use crate::table::text::json::token::{Features, InvalidJson, Token, Tokens};
use crate::table::text::json::write::{Text, write_string, write_text};
use crate::table::types::DECIMAL_DIGITS_MAX;
use crate::table::value::write_decimal;
use crate::table::variant::{BuildError, Builder, Content, Variant};
use base64::Engine;
use std::fmt::{self, Write};

/// The grammar of `parse_json`: that of JSON, without extensions.
const STRICT: Features = Features {
    single_quotes: false,
    control_characters: false,
    non_numbers: false,
    plain_names: false,
    leading_zeros: false,
    comments: false,
    any_escape: false,
};

/// Why a text is not parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariantError {
    /// The text is not JSON.
    Invalid,
    /// The value cannot be built.
    Build(BuildError),
}

impl From<InvalidJson> for VariantError {
    fn from(InvalidJson: InvalidJson) -> Self {
        Self::Invalid
    }
}

impl From<BuildError> for VariantError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

/// Appends the value of a JSON text to a builder. What follows the value is ignored, as in Spark.
pub fn parse_variant(text: &str, builder: &mut Builder) -> Result<(), VariantError> {
    let mut tokens = Tokens::of_text(text, STRICT);
    let first = tokens.next()?.ok_or(VariantError::Invalid)?;
    read_variant(&mut tokens, first, builder)
}

/// Appends the value that starts with the current token.
pub fn read_variant(
    tokens: &mut Tokens<'_>,
    token: Token,
    builder: &mut Builder,
) -> Result<(), VariantError> {
    match token {
        Token::Null => builder.null(),
        Token::True | Token::False => builder.boolean(token == Token::True),
        Token::Text => builder.text(tokens.text()?),
        Token::Whole => match tokens.digits().parse() {
            Ok(whole) => builder.long(whole),
            Err(_) => number(tokens.digits(), builder),
        },
        Token::Real => number(tokens.digits(), builder),
        Token::NonNumber => builder.double(tokens.non_number()),
        Token::Array => {
            let start = builder.start();
            loop {
                let next = tokens.next()?.ok_or(VariantError::Invalid)?;
                if next == Token::ArrayEnd {
                    break;
                }
                builder.element(start);
                on_stack(|| read_variant(tokens, next, builder))?;
            }
            builder.end_array(start)?;
        }
        Token::Object => {
            let start = builder.start();
            while let Token::Name = tokens.next()?.ok_or(VariantError::Invalid)? {
                let name = tokens.name_here().ok_or(VariantError::Invalid)?;
                builder.field(start, &tokens.name_text(name));
                let next = tokens.next()?.ok_or(VariantError::Invalid)?;
                on_stack(|| read_variant(tokens, next, builder))?;
            }
            builder.end_object(start)?;
        }
        Token::ObjectEnd | Token::ArrayEnd | Token::Name => return Err(VariantError::Invalid),
    }
    Ok(())
}

/// Appends a number that is not a BIGINT: a decimal if it has no exponent and fits one, else a
/// double.
fn number(text: &str, builder: &mut Builder) {
    match decimal(text) {
        Some((unscaled, scale)) => builder.decimal(unscaled, scale),
        // A JSON number is a number of Rust.
        None => builder.double(text.parse().unwrap_or(f64::NAN)),
    }
}

/// The unscaled value and the scale of a number without an exponent; `None` if it has too many
/// digits.
fn decimal(text: &str) -> Option<(i128, u8)> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > usize::from(DECIMAL_DIGITS_MAX) {
        return None;
    }
    let significant = whole.trim_start_matches('0').bytes().chain(fraction.bytes());
    let mut unscaled = 0i128;
    for digit in significant {
        if !digit.is_ascii_digit() || unscaled >= 10i128.pow(u32::from(DECIMAL_DIGITS_MAX) - 1) {
            return None;
        }
        unscaled = unscaled * 10 + i128::from(digit - b'0');
    }
    let is_negative = digits.len() < text.len();
    Some((if is_negative { -unscaled } else { unscaled }, fraction.len() as u8))
}

/// Appends a value as JSON text.
pub fn write_variant(value: Variant<'_>, zone: Tz, out: &mut Vec<u8>) {
    match value.content() {
        Content::Text(text) => write_string(text, out),
        Content::Object(fields) => {
            out.push(b'{');
            for (index, (name, value)) in fields.fields().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                on_stack(|| write_variant(value, zone, out));
            }
            out.push(b'}');
        }
        Content::Array(elements) => {
            out.push(b'[');
            for (index, value) in elements.values().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                on_stack(|| write_variant(value, zone, out));
            }
            out.push(b']');
        }
        scalar => {
            // Writing to memory does not fail.
            let _ = write_scalar(scalar, zone, out);
        }
    }
}

fn write_scalar(content: Content<'_>, zone: Tz, out: &mut Vec<u8>) -> fmt::Result {
    let mut text = Text(out);
    match content {
        Content::Null => text.write_str("null"),
        Content::Boolean(value) => text.write_str(if value { "true" } else { "false" }),
        Content::Long(value) => write!(text, "{value}"),
        Content::Double(value) if value.is_finite() => write_double(value, &mut text),
        Content::Float(value) if value.is_finite() => write_float(value, &mut text),
        Content::Decimal(unscaled, scale) => write_decimal(unscaled, scale, &mut text),
        Content::Binary(bytes) => {
            write_text(&base64::engine::general_purpose::STANDARD.encode(bytes), out);
            Ok(())
        }
        quoted => {
            text.write_char('"')?;
            match quoted {
                Content::Double(value) => write_double(value, &mut text)?,
                Content::Float(value) => write_float(value, &mut text)?,
                Content::Date(days) => write_date(days, &mut text)?,
                Content::Timestamp(micros) => {
                    write_timestamp(micros, zone, &mut text)?;
                    write_offset(micros, zone, &mut text)?;
                }
                Content::TimestampNtz(micros) => write_timestamp(micros, Tz::UTC, &mut text)?,
                // The others are written above.
                _ => {}
            }
            text.write_char('"')
        }
    }
}

/// Writes the offset of the time zone at a moment: `+01:00`.
fn write_offset(micros: i64, zone: Tz, out: &mut Text<'_>) -> fmt::Result {
    let minutes = to_local(micros, zone).saturating_sub(micros) / (60 * SECOND_US);
    let sign = if minutes < 0 { '-' } else { '+' };
    write!(out, "{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The JSON text of the value that a JSON text denotes.
    fn written(json: &str) -> Result<String, VariantError> {
        let (mut cell, mut text) = (Vec::new(), Vec::new());
        Builder::with(&mut cell, |builder| parse_variant(json, builder))?;
        write_variant(Variant::new(&cell), Tz::UTC, &mut text);
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn only_json_is_parsed() {
        for text in [
            "",
            " ",
            "1x",
            "{'a':1}",
            "NaN",
            "[1,2",
            "[000]",
            "[01]",
            "[.5]",
            "[1.]",
            "[+1]",
            "{\"a\":1,}",
            "[1,]",
            "{a:1}",
            "tru",
            "nul",
            "[true false]",
            "{\"a\" 1}",
            "\"abc",
            "\"\\x\"",
            "\"a\tb\"",
        ] {
            assert_eq!(written(text), Err(VariantError::Invalid), "{text}");
        }
        let duplicate = BuildError::DuplicateName("a".to_string());
        assert_eq!(written(r#"[{"b":{"a":1,"a":1}}]"#), Err(VariantError::Build(duplicate)));
    }

    #[test]
    fn tables_of_parts_are_as_wide_as_they_must_be() {
        for count in [0, 1, 0xFF, 0x100, 0x1_0001] {
            let elements: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            let array = format!("[{}]", elements.join(","));
            assert_eq!(written(&array), Ok(array));
            let mut fields: Vec<String> = (0..count).map(|n| format!("\"{n}\":{n}")).collect();
            let object = format!("{{{}}}", fields.join(","));
            fields.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
            // A shorter name comes before one that it begins.
            let name =
                |field: &String| field.split(':').next().map(|n| n.trim_matches('"').to_string());
            fields.sort_by_key(name);
            assert_eq!(written(&object), Ok(format!("{{{}}}", fields.join(","))));
        }
        let deep = format!("{}{}", "[".repeat(999), "]".repeat(999));
        assert_eq!(written(&deep), Ok(deep));
        assert_eq!(written(&"[".repeat(100_000)), Err(VariantError::Invalid));
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,80}".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 200, 12, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..12).prop_map(Into::into),
                proptest::collection::hash_map(".{0,5}", inner, 0..12)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_written_as_it_was_read(json in any_json()) {
            let text = written(&json.to_string()).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), json);
        }
    }
}
