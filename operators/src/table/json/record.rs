//! JSON as values of a type, with Spark's partial results: what `from_json` does with a text that
//! [`ObjectReader`](super::ObjectReader) cannot read in one pass.
//!
//! A field that is not of its type is NULL, and so is an array or a map with such an element or
//! value in it; the record is bad all the same. A text that is broken gives NULLs alone. Where a
//! map is given up, reading goes on behind the value that it failed at, as in Spark.

use super::path::copied;
use super::token::{Broken, Features, Token, Tokens};
use crate::table::datetime::{Tz, interval, parse_timestamp, zone};
use crate::table::expr::parse;
use crate::table::row::{Row, RowWriter};
use crate::table::text::{Notation, integer};
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use base64::Engine;

/// Reads texts of one type: a struct, an array or a map.
#[derive(Clone, Debug)]
pub struct RecordReader {
    data_type: DataType,
    notation: Notation,
    features: Features,
    /// The field that gets the text of a bad record.
    corrupt: Option<usize>,
}

/// What became of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its value.
    pub value: Value,
    /// Whether any of it was not as it should be.
    pub bad: bool,
}

/// Why a value was not read.
enum Fault {
    /// It is not of its type.
    Type,
    /// The text is broken.
    Text,
}

impl From<Broken> for Fault {
    fn from(_: Broken) -> Self {
        Self::Text
    }
}

/// A value, and whether a part of it was left out.
type Read = Result<(Value, bool), Fault>;

impl RecordReader {
    /// A reader of a type.
    pub fn new(
        data_type: DataType,
        notation: Notation,
        features: Features,
        corrupt: Option<usize>,
    ) -> Self {
        Self { data_type, notation, features, corrupt }
    }

    /// Reads a text; `None` if there is nothing in it.
    pub fn read(&self, text: &str) -> Option<Record> {
        let mut tokens = Tokens::new(text, self.features);
        let read = match tokens.next() {
            Ok(None) => return None,
            Ok(Some(token)) => self.root(&mut tokens, &token),
            Err(Broken) => Err(Fault::Text),
        };
        let (mut value, bad) = match (read, &self.data_type) {
            (Ok((value, partial)), _) => (value, partial),
            (Err(_), DataType::Struct(fields)) => {
                (Value::Struct(vec![Value::Null; fields.len()]), true)
            }
            (Err(_), _) => (Value::Null, true),
        };
        if let (true, Some(at), Value::Struct(values)) = (bad, self.corrupt, &mut value) {
            values[at] = Value::String(text.to_string());
        }
        Some(Record { value, bad })
    }

    fn root(&self, tokens: &mut Tokens<'_>, token: &Token<'_>) -> Read {
        match (token, &self.data_type) {
            (Token::Null, _) => Err(Fault::Type),
            // An object stands for an array of it alone.
            (Token::Object, DataType::Array(element))
                if matches!(**element, DataType::Struct(_)) =>
            {
                let (value, partial) = self.value(tokens, token, element)?;
                Ok((Value::Array(vec![value]), partial))
            }
            (_, data_type) => self.value(tokens, token, data_type),
        }
    }

    /// A value, whose first token is given.
    fn value(&self, tokens: &mut Tokens<'_>, token: &Token<'_>, data_type: &DataType) -> Read {
        let value = match (token, data_type) {
            (Token::Null, _) => Value::Null,
            (Token::Object, DataType::Struct(fields)) => return self.object(tokens, fields),
            (Token::Object, DataType::Map(key, of)) if **key == DataType::String => {
                return self.map(tokens, of);
            }
            (Token::Array, DataType::Array(element)) => return self.array(tokens, element),
            (Token::Text(text), DataType::String) => Value::String(text.to_string()),
            (Token::Object | Token::Array, DataType::String) => {
                Value::String(copied(tokens, token)?)
            }
            (token, DataType::String) => Value::String(copied(tokens, token)?),
            (token, data_type) => match self.scalar(token, data_type) {
                Some(value) => value,
                None => {
                    tokens.skip(token)?;
                    return Err(Fault::Type);
                }
            },
        };
        Ok((value, false))
    }

    fn object(&self, tokens: &mut Tokens<'_>, fields: &[Field]) -> Read {
        let mut values = vec![Value::Null; fields.len()];
        let (mut bad, mut name) = (false, None);
        loop {
            let token = match tokens.next()?.ok_or(Fault::Text)? {
                Token::ObjectEnd => return Ok((Value::Struct(values), bad)),
                Token::Name(found) => {
                    name = fields.iter().position(|field| field.name == *found);
                    continue;
                }
                value => value,
            };
            // What is left of an array that was given up has no name.
            let Some(at) = name.take().filter(|at| Some(*at) != self.corrupt_of(fields)) else {
                tokens.skip(&token)?;
                continue;
            };
            match self.value(tokens, &token, &fields[at].data_type) {
                Ok((value, partial)) => {
                    bad |= partial;
                    values[at] = value;
                }
                // A broken text fails again at the next token.
                Err(_) => bad = true,
            }
        }
    }

    /// The field of the record itself that no JSON fills.
    fn corrupt_of(&self, fields: &[Field]) -> Option<usize> {
        match &self.data_type {
            DataType::Struct(own) if std::ptr::eq(own.as_slice(), fields) => self.corrupt,
            _ => None,
        }
    }

    fn array(&self, tokens: &mut Tokens<'_>, element: &DataType) -> Read {
        let (mut values, mut bad) = (Vec::new(), false);
        loop {
            match tokens.next()?.ok_or(Fault::Text)? {
                Token::ArrayEnd => return Ok((Value::Array(values), bad)),
                token => {
                    let (value, partial) = self.value(tokens, &token, element)?;
                    bad |= partial;
                    values.push(value);
                }
            }
        }
    }

    fn map(&self, tokens: &mut Tokens<'_>, of: &DataType) -> Read {
        let (mut entries, mut bad) = (Vec::new(), false);
        loop {
            match tokens.next()?.ok_or(Fault::Text)? {
                Token::Name(name) => {
                    let token = tokens.next()?.ok_or(Fault::Text)?;
                    let (value, partial) = self.value(tokens, &token, of)?;
                    bad |= partial;
                    entries.push((Value::String(name.into_owned()), value));
                }
                _ => return Ok((Value::Map(entries), bad)),
            }
        }
    }

    /// A value without parts.
    fn scalar(&self, token: &Token<'_>, data_type: &DataType) -> Option<Value> {
        use DataType as T;
        let put = |text: &str| {
            let mut bytes = Vec::new();
            let fits = self.notation.put(text, data_type, &mut RowWriter::new(&mut bytes, 1), 0);
            fits.then(|| Row(&bytes).value(0, 1, data_type))
        };
        let single = |v: f64| if *data_type == T::Float { f64::from(v as f32) } else { v };
        Some(match (token, data_type) {
            (Token::Boolean(v), T::Boolean) => Value::Boolean(*v),
            // Jackson takes a byte with or without a sign.
            (Token::Whole(digits), T::Byte) => match digits.parse::<i64>().ok()? {
                v @ -128..=255 => Value::Long(i64::from(v as i8)),
                _ => return None,
            },
            (Token::Whole(digits), t) if t.is_integral() => {
                Value::Long(integer(digits.parse().ok()?, t)?)
            }
            (Token::Whole(digits), T::Timestamp) => {
                Value::Long(digits.parse::<i64>().ok()?.checked_mul(1_000_000)?)
            }
            (Token::Whole("-0"), T::Float | T::Double) => Value::Double(0.0),
            (Token::Whole(digits) | Token::Real(digits), T::Float | T::Double) => {
                let v: f64 = if *data_type == T::Float {
                    f64::from(digits.parse::<f32>().ok()?)
                } else {
                    digits.parse().ok()?
                };
                Value::Double(v)
            }
            (Token::NonNumber(v), T::Float | T::Double) => Value::Double(*v),
            (Token::Text(text), T::Float | T::Double) if self.features.non_numbers => {
                Value::Double(single(match &**text {
                    "NaN" => f64::NAN,
                    "+INF" | "+Infinity" | "INF" | "Infinity" => f64::INFINITY,
                    "-INF" | "-Infinity" => f64::NEG_INFINITY,
                    _ => return None,
                }))
            }
            (Token::Whole(digits) | Token::Real(digits), T::Decimal(..)) => {
                match parse::decimal(digits, data_type) {
                    Ok(Some(value)) => Value::Decimal(value),
                    _ => return None,
                }
            }
            (Token::Text(text), T::Decimal(..)) if !text.contains(char::is_whitespace) => {
                match parse::decimal(&text.replace(',', ""), data_type) {
                    Ok(Some(value)) => Value::Decimal(value),
                    _ => return None,
                }
            }
            // Older writers gave the days since 1970.
            (Token::Text(text), T::Date) if self.notation.date.is_none() => {
                put(text).or_else(|| Some(Value::Long(i64::from(text.parse::<i32>().ok()?))))?
            }
            // A time without a zone names none.
            (Token::Text(text), T::TimestampNtz)
                if self.notation.timestamp_ntz.is_none()
                    && parse_timestamp(text, Some(Tz::UTC))
                        == parse_timestamp(text, zone("Asia/Tokyo").ok()) =>
            {
                return None;
            }
            (Token::Text(text), T::Date | T::Timestamp | T::TimestampNtz) if !text.is_empty() => {
                put(text)?
            }
            (Token::Text(text), T::Binary) => {
                let engine = base64::engine::general_purpose::STANDARD;
                Value::Binary(engine.decode(text.as_bytes()).ok()?)
            }
            (Token::Text(text), t) if t.is_interval() && !text.is_empty() => {
                Value::Long(interval::parse_shown(text, t).or_else(|| interval::parse(text, t))?)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::types::Schema;

    fn read(ddl: &str, text: &str) -> (String, bool) {
        let schema = Schema::parse_ddl(ddl).unwrap();
        let corrupt = schema.fields.iter().position(|field| field.name == "_corrupt_record");
        let data_type = DataType::Struct(schema.fields);
        let reader =
            RecordReader::new(data_type.clone(), Notation::default(), Features::RECORDS, corrupt);
        let record = reader.read(text).unwrap();
        (record.value.show(&data_type, Tz::UTC), record.bad)
    }

    #[test]
    fn what_can_be_read_of_a_bad_record_is() {
        for (ddl, text, expected) in [
            ("a INT, b INT", r#"{"a":"x","b":2}"#, "{NULL, 2}"),
            ("a ARRAY<INT>, b INT", r#"{"a":[1,"x",{"b":9}],"b":2}"#, "{NULL, 2}"),
            ("a STRUCT<c: INT, d: INT>, b INT", r#"{"a":{"c":"x","d":1},"b":2}"#, "{{NULL, 1}, 2}"),
            // A map that is given up: reading goes on inside of it, and ends with it.
            ("a MAP<STRING, INT>, b INT", r#"{"a":{"x":"y","b":1},"b":2}"#, "{NULL, 1}"),
            ("a INT, _corrupt_record STRING", r#"{"a":1"#, r#"{NULL, {"a":1}"#),
        ] {
            assert_eq!(read(ddl, text), (expected.to_string(), true), "{text}");
        }
    }

    #[test]
    fn a_string_takes_any_value() {
        let (shown, bad) = read("a STRING, b STRING", r#"{"a": {"x" : [1.10, 1e10]},"b":007}"#);
        assert_eq!((shown.as_str(), bad), ("{NULL, NULL}", true));
        let (shown, bad) = read("a STRING, b STRING", r#"{"a": {"x" : [1.10, 1e10]},"b":true}"#);
        assert_eq!((shown.as_str(), bad), (r#"{{"x":[1.1,1.0E10]}, true}"#, false));
    }
}
