//! Reads JSON into rows and values of a schema, exactly as Spark does. The file reader, `from_json`
//! and all other functions with a schema use this module.
//!
//! Fields are written directly into the row's slots; maps, and arrays outside the fast path, are
//! first built as values. A field whose value does not have the field's type is NULL, or keeps the
//! value of an earlier field of the same name. Its record is bad, but the rest of the record is
//! still read (Spark's partial results). All fields of a record with malformed JSON are NULL,
//! unless the error is inside a string, an array or an object of a field and reading can continue
//! after it. If a nested struct or array fails in the middle, reading continues after the token at
//! which it failed, as in Spark. Names in the rest of the nested value may then be taken for fields
//! of the record.

mod fast_path;
mod fields;

use crate::table::datetime::{CalendarInterval, Tz, interval, parse_date, parse_timestamp, zone};
use crate::table::error::{PlanError, PlanResult};
use crate::table::row::{Bytes, Row, RowWriter, values};
use crate::table::text::json::path::copied;
use crate::table::text::json::record::fields::{Fields, Shape};
use crate::table::text::json::token::{Features, InvalidJson, Source, Token, Tokens};
use crate::table::text::json::variant::{VariantError, read_variant};
use crate::table::text::notation::{Notation, integer};
use crate::table::text::number;
use crate::table::text::utf8;
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use crate::table::variant::Builder;
use std::borrow::Cow;

/// The reason of a bad record: the value of a field does not have the field's type.
pub const NOT_ITS_TYPE: &str = "a field does not have the type of its column";
/// The reason of a bad record: malformed JSON.
pub const NOT_JSON: &str = "not JSON";
/// The reason of a bad record: the record, or an element of an array of records, is not an object.
pub const NOT_AN_OBJECT: &str = "not a JSON object";

/// The rules by which records are parsed.
#[derive(Clone, Debug)]
pub struct JsonReadOptions {
    /// The patterns of dates and timestamps, and the time zone.
    pub notation: Notation,
    /// The extensions of the JSON grammar that are accepted.
    pub features: Features,
    /// The JSON parser of Spark that is emulated.
    pub source: Source,
    /// Whether texts of DATE and TIMESTAMP that do not match the pattern are parsed by the rules of
    /// CAST. `None` means only if no pattern is set.
    pub fallback: Option<bool>,
}

impl Default for JsonReadOptions {
    fn default() -> Self {
        Self {
            notation: Notation::default(),
            features: Features::RECORDS,
            source: Source::Chars,
            fallback: None,
        }
    }
}

/// Fails if a type contains a map with non-string keys, which JSON cannot represent.
pub fn check_map_keys(data_type: &DataType) -> PlanResult<()> {
    match data_type {
        DataType::Map(key, _) if **key != DataType::String => Err(PlanError::new(
            "DATATYPE_MISMATCH.INVALID_JSON_MAP_KEY_TYPE",
            "the keys of JSON are texts, so a map has keys of STRING",
            "MAP<STRING, …>",
        )),
        DataType::Map(_, value) => check_map_keys(value),
        DataType::Array(element) => check_map_keys(element),
        DataType::Struct(fields) => {
            fields.iter().try_for_each(|field| check_map_keys(&field.data_type))
        }
        _ => Ok(()),
    }
}

/// The reason why a value could not be read: one of the texts in this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub &'static str);

impl From<InvalidJson> for Fault {
    fn from(_: InvalidJson) -> Self {
        Self(NOT_JSON)
    }
}

/// The reason why some fields of a value are NULL; `None` if all fields could be read.
type Partial = Option<&'static str>;

/// The outcome of reading a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The text was empty or only white space, so no row was written.
    Nothing,
    /// One row was written. If a reason is set, the record is bad.
    Row(Partial),
    /// The text is an array with one row per element, to be read by [`RecordReader::elements`].
    Array,
}

/// The result of reading an array or a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The value, or NULL if it could not be read.
    pub value: Value,
    /// Whether any part of the text did not match the schema.
    pub bad: bool,
}

/// Reads records of one type: a struct, an array or a map.
#[derive(Clone, Debug)]
pub struct RecordReader {
    shape: Shape,
    reading: JsonReadOptions,
}

impl RecordReader {
    /// Creates a reader for a type.
    pub fn new(data_type: &DataType, reading: JsonReadOptions) -> Self {
        Self { shape: Shape::new(data_type), reading }
    }

    /// Creates a reader for objects with these fields.
    pub fn of_fields(fields: &[Field], reading: JsonReadOptions) -> Self {
        Self { shape: Shape::Struct(Fields::new(fields)), reading }
    }

    /// Makes the fields for which `wanted` is false NULL, as if the schema did not contain them.
    pub fn only(&mut self, wanted: &[bool]) {
        if let Shape::Struct(fields) = &mut self.shape {
            for (member, wanted) in fields.list.iter_mut().zip(wanted) {
                member.wanted = *wanted;
            }
        }
    }

    /// The number of fields of the struct; 0 for other types.
    pub fn width(&self) -> usize {
        match &self.shape {
            Shape::Struct(fields) => fields.list.len(),
            _ => 0,
        }
    }

    fn pass<'r, 'j>(&'r self, text: &'j [u8], is_utf8: bool) -> Pass<'r, 'j> {
        let JsonReadOptions { features, source, .. } = self.reading;
        let tokens = Tokens::checked(text, features, source, is_utf8);
        Pass { reading: &self.reading, tokens, garbage: false }
    }

    /// Reads an object into a row whose fields are all NULL. They stay NULL if the record as a
    /// whole is malformed.
    pub fn read<B: Bytes>(
        &self,
        text: &[u8],
        is_utf8: bool,
        writer: &mut RowWriter<'_, B>,
    ) -> Found {
        let Shape::Struct(fields) = &self.shape else { return Found::Nothing };
        let mut pass = self.pass(text, is_utf8);
        let read = match pass.tokens.next() {
            Ok(None) => return Found::Nothing,
            Ok(Some(Token::Array)) => return Found::Array,
            Ok(Some(Token::Object)) => pass.object(fields, writer),
            Ok(Some(token)) => Err(pass.unfit(token, NOT_AN_OBJECT)),
            Err(InvalidJson) => Err(InvalidJson.into()),
        };
        Found::Row(match read {
            Ok(partial) => {
                if pass.garbage {
                    compact(fields, writer);
                }
                partial
            }
            Err(Fault(reason)) => {
                writer.restart();
                Some(reason)
            }
        })
    }

    /// Iterates over the elements of an array. With `after`, iteration continues after the element
    /// that ends at this byte offset.
    pub fn elements<'r, 'j>(
        &'r self,
        text: &'j [u8],
        is_utf8: bool,
        after: Option<usize>,
    ) -> Elements<'r, 'j> {
        let mut pass = self.pass(text, is_utf8);
        match after {
            Some(at) => pass.tokens = pass.tokens.within_array(at),
            // The caller has already read the opening bracket once, so the token is not checked.
            None => drop(pass.tokens.next()),
        }
        Elements {
            fields: if let Shape::Struct(fields) = &self.shape { Some(fields) } else { None },
            pass,
        }
    }

    /// Reads an array or a map; `None` if the text is empty or only white space.
    pub fn value(&self, text: &str) -> Option<Record> {
        let mut pass = self.pass(text.as_bytes(), true);
        let read = match (pass.tokens.next(), &self.shape) {
            (Ok(None), _) => return None,
            (Ok(Some(Token::Null)), _) => Err(Fault(NOT_ITS_TYPE)),
            // An object where the schema has an array of structs counts as the array's only
            // element.
            (Ok(Some(Token::Object)), Shape::Array(element))
                if matches!(**element, Shape::Struct(_)) =>
            {
                let read = pass.value(element, Token::Object);
                read.map(|(value, partial)| (Value::Array(vec![value]), partial))
            }
            (Ok(Some(token)), shape) => pass.value(shape, token),
            (Err(InvalidJson), _) => Err(InvalidJson.into()),
        };
        Some(match read {
            Ok((value, partial)) => Record { value, bad: partial.is_some() },
            Err(_) => Record { value: Value::Null, bad: true },
        })
    }
}

/// Rewrites a row without unused bytes in its tail, which fields have left that were repeated or
/// failed. Without this, equal rows could have different bytes.
#[cold]
fn compact<B: Bytes>(fields: &Fields, writer: &mut RowWriter<'_, B>) {
    let values: Vec<Value> = values(writer.row(), fields.types.iter()).collect();
    writer.restart();
    values.iter().enumerate().for_each(|(index, value)| writer.value(index, value));
}

/// Iterates over the elements of an array of objects, one row per element.
pub struct Elements<'r, 'j> {
    fields: Option<&'r Fields>,
    pass: Pass<'r, 'j>,
}

impl Elements<'_, '_> {
    /// Writes the fields of the next element into a row whose fields are all NULL. Returns `None`
    /// after the last element. An error makes the whole array malformed.
    pub fn next<B: Bytes>(
        &mut self,
        writer: &mut RowWriter<'_, B>,
    ) -> Result<Option<Partial>, Fault> {
        let Some(fields) = self.fields else { return Ok(None) };
        match self.pass.tokens.next()? {
            None | Some(Token::ArrayEnd) => Ok(None),
            Some(Token::Object) => {
                self.pass.garbage = false;
                let partial = self.pass.object(fields, writer)?;
                if self.pass.garbage {
                    compact(fields, writer);
                }
                Ok(Some(partial))
            }
            Some(token) => Err(self.pass.unfit(token, NOT_AN_OBJECT)),
        }
    }

    /// The byte offset after the last element that was read.
    pub fn at(&self) -> usize {
        self.pass.tokens.at()
    }
}

/// A scalar value in the form in which a slot stores it.
enum Scalar<'t> {
    Boolean(bool),
    Long(i64),
    Double(f64),
    Decimal(i128),
    Bytes(Cow<'t, [u8]>),
    /// NULL, for a text that is not an interval.
    Null,
}

/// The state of reading one record.
struct Pass<'r, 'j> {
    reading: &'r JsonReadOptions,
    tokens: Tokens<'j>,
    /// Whether the tail of the row contains bytes to which no slot refers.
    garbage: bool,
}

impl Pass<'_, '_> {
    /// Reads the fields of the current object, whose opening brace has been consumed.
    fn object<B: Bytes>(
        &mut self,
        fields: &Fields,
        writer: &mut RowWriter<'_, B>,
    ) -> Result<Partial, Fault> {
        let (mut partial, mut behind) = (None, 0);
        loop {
            let (found, token) = match fields.expected(behind) {
                Some((at, member)) if self.comes_next(member) => {
                    behind = at + 1;
                    match self.fast_member(member, at, writer)? {
                        None => continue,
                        Some(token) => (Some(at), token),
                    }
                }
                _ if self.tokens.skip_object_end() => return Ok(partial),
                _ => match self.any_member(fields, behind)? {
                    None => return Ok(partial),
                    Some(member) => member,
                },
            };
            if let Some(at) = found {
                behind = at + 1;
                let member = &fields.list[at];
                if member.wanted {
                    match self.field(&member.shape, at, token, writer) {
                        Ok(below) => partial = partial.or(below),
                        Err(Fault(reason)) => {
                            partial = partial.or(Some(reason));
                            self.tokens.skip_children()?;
                        }
                    }
                    continue;
                }
            }
            self.tokens.skip_children()?;
        }
    }

    /// Reads the next token of an object and finds the field to which the token belongs. Returns
    /// `None` at the end of the object.
    #[inline]
    fn any_member(
        &mut self,
        fields: &Fields,
        behind: usize,
    ) -> Result<Option<(Option<usize>, Token)>, Fault> {
        let token = match self.tokens.next()? {
            None | Some(Token::ObjectEnd) => return Ok(None),
            Some(token) => token,
        };
        // After a nested value failed, the names in the rest of it are looked up here too.
        let name = self.tokens.name_here();
        let found = name.and_then(|name| fields.find(&self.tokens.name_text(name), behind));
        if let Some(at) = found {
            fields.learn(behind, at);
        }
        Ok(Some((found, token)))
    }

    /// Reads the value of a field into its slot; null clears the slot. If the value does not have
    /// the field's type, the result is an error and the slot is unchanged. Returns the first error
    /// inside a nested value, if there is one.
    #[inline]
    fn field<B: Bytes>(
        &mut self,
        shape: &Shape,
        at: usize,
        token: Token,
        writer: &mut RowWriter<'_, B>,
    ) -> Result<Partial, Fault> {
        let token = match token {
            Token::Name => self.tokens.next()?.unwrap_or(Token::Null),
            other => other,
        };
        let repeated = !writer.is_null(at);
        self.garbage |= repeated;
        match (shape, token) {
            (shape, Token::Null) if !shape.is_variant() => {
                if repeated {
                    writer.reset(at);
                }
                Ok(None)
            }
            (Shape::Scalar(data_type), token) => {
                match scalar(self.reading, &mut self.tokens, token, data_type)? {
                    Scalar::Boolean(v) => writer.bool(at, v),
                    Scalar::Long(v) => writer.long(at, v),
                    Scalar::Double(v) => writer.double(at, v),
                    Scalar::Decimal(v) => writer.decimal(at, v),
                    Scalar::Bytes(v) => writer.bytes(at, &v),
                    Scalar::Null if repeated => writer.reset(at),
                    Scalar::Null => {}
                }
                Ok(None)
            }
            (Shape::Struct(fields), Token::Object) => {
                let width = fields.list.len();
                let read = writer.try_nested(at, width, |row| self.object(fields, row));
                self.garbage |= read.is_err();
                read
            }
            (shape, token) => {
                let (value, partial) = self.value(shape, token)?;
                writer.value(at, &value);
                Ok(partial)
            }
        }
    }

    /// Reads the value that starts with `token`.
    fn value(&mut self, shape: &Shape, token: Token) -> Result<(Value, Partial), Fault> {
        let token = match token {
            Token::Name => self.tokens.next()?.unwrap_or(Token::Null),
            other => other,
        };
        match (shape, token) {
            (shape, Token::Null) if !shape.is_variant() => Ok((Value::Null, None)),
            (Shape::Struct(fields), Token::Object) => {
                let mut bytes = Vec::new();
                let mut row = RowWriter::new(&mut bytes, fields.list.len());
                let partial = self.object(fields, &mut row)?;
                let values = values(Row(&bytes), fields.types.iter()).collect();
                Ok((Value::Struct(values), partial))
            }
            (Shape::Array(element), Token::Array) => self.array(element),
            (Shape::Map(of), Token::Object) => self.map(of),
            (Shape::Scalar(data_type), token) => {
                let scalar = scalar(self.reading, &mut self.tokens, token, data_type)?;
                let value = match scalar {
                    Scalar::Boolean(v) => Value::Boolean(v),
                    Scalar::Long(v) => Value::Long(v),
                    Scalar::Double(v) => Value::Double(v),
                    Scalar::Decimal(v) => Value::Decimal(v),
                    Scalar::Null => Value::Null,
                    Scalar::Bytes(v)
                        if matches!(
                            data_type,
                            DataType::Binary | DataType::Variant | DataType::CalendarInterval
                        ) =>
                    {
                        Value::Binary(v.into_owned())
                    }
                    Scalar::Bytes(v) => Value::String(utf8::decode(&v).into_owned()),
                };
                Ok((value, None))
            }
            (_, token) => Err(self.unfit(token, NOT_ITS_TYPE)),
        }
    }

    fn array(&mut self, element: &Shape) -> Result<(Value, Partial), Fault> {
        let (mut values, mut partial) = (Vec::new(), None);
        loop {
            match self.tokens.next()? {
                None | Some(Token::ArrayEnd) => return Ok((Value::Array(values), partial)),
                Some(token) => {
                    let (value, below) = self.value(element, token)?;
                    partial = partial.or(below);
                    values.push(value);
                }
            }
        }
    }

    /// Reads a map to its end, even if an entry's value does not have the value type. The result is
    /// then the first such error.
    fn map(&mut self, of: &Shape) -> Result<(Value, Partial), Fault> {
        let (mut entries, mut partial, mut given_up) = (Vec::new(), None, None);
        loop {
            match self.tokens.next()? {
                None | Some(Token::ObjectEnd) => {
                    return given_up.map_or(Ok((Value::Map(entries), partial)), Err);
                }
                Some(token) => {
                    let name = self.tokens.name_here().map(|name| self.tokens.name_text(name));
                    let name = name.unwrap_or_default();
                    let (value, below) = match self.value(of, token) {
                        Ok(read) => read,
                        Err(fault) => {
                            given_up = given_up.or(Some(fault));
                            self.tokens.skip_children()?;
                            continue;
                        }
                    };
                    partial = partial.or(below);
                    let name = utf8::decode(&name).into_owned();
                    entries.push((Value::String(name), value));
                }
            }
        }
    }

    fn unfit(&mut self, token: Token, reason: &'static str) -> Fault {
        unfit(&mut self.tokens, token, reason)
    }
}

/// The error of a value that does not have the expected type: `reason`, or [`NOT_JSON`] for a
/// malformed string. A string is consumed first, because Spark also reads it.
#[cold]
fn unfit(tokens: &mut Tokens<'_>, token: Token, reason: &'static str) -> Fault {
    match token {
        Token::Text if tokens.text().is_err() => Fault(NOT_JSON),
        _ => Fault(reason),
    }
}

/// Reads the scalar that starts with `token`.
#[inline]
fn scalar<'t>(
    reading: &JsonReadOptions,
    tokens: &'t mut Tokens<'_>,
    token: Token,
    data_type: &DataType,
) -> Result<Scalar<'t>, Fault> {
    use DataType as T;
    let long = |value: Option<i64>| value.map(Scalar::Long).ok_or(Fault(NOT_ITS_TYPE));
    match (token, data_type) {
        (Token::Text, T::String) => Ok(Scalar::Bytes(Cow::Borrowed(tokens.text()?))),
        (Token::Whole, T::Byte) => long(match whole(tokens.raw()) {
            // As in Jackson, a byte may be written as a signed or as an unsigned number.
            Some(v @ -128..=255) => Some(i64::from(v as i8)),
            _ => None,
        }),
        (Token::Whole, t) if t.is_integral() => {
            long(whole(tokens.raw()).and_then(|v| integer(v, t)))
        }
        (Token::Whole | Token::Real, T::Float | T::Double) => {
            double(tokens.digits(), token, data_type).map(Scalar::Double).ok_or(Fault(NOT_ITS_TYPE))
        }
        (Token::NonNumber, T::Float | T::Double) => Ok(Scalar::Double(tokens.non_number())),
        (Token::True, T::Boolean) => Ok(Scalar::Boolean(true)),
        (Token::False, T::Boolean) => Ok(Scalar::Boolean(false)),
        (Token::Whole | Token::Real, T::Decimal(..)) => decimal(tokens.digits(), data_type),
        // The number is in seconds. Values out of range wrap around, as in Spark.
        (Token::Whole, T::Timestamp) => {
            long(whole(tokens.raw()).map(|seconds| seconds.wrapping_mul(1_000_000)))
        }
        (token, T::Variant) => variant(tokens, token),
        (_, T::String) => Ok(Scalar::Bytes(match (reading.source, token) {
            (Source::Bytes, Token::Object | Token::Array) => Cow::Borrowed(tokens.whole()?),
            (Source::Bytes, _) => Cow::Borrowed(tokens.raw()),
            (Source::Chars, _) => Cow::Owned(copied(tokens, token)?.into_bytes()),
        })),
        (Token::Text, T::Binary) => Ok(Scalar::Bytes(Cow::Owned(tokens.base64()?))),
        (Token::Text, data_type) => {
            let text = tokens.text_str()?;
            text_scalar(reading, &text, data_type).ok_or(Fault(NOT_ITS_TYPE))
        }
        (token, _) => Err(unfit(tokens, token, NOT_ITS_TYPE)),
    }
}

/// Reads a value of any kind as a VARIANT.
fn variant(tokens: &mut Tokens<'_>, token: Token) -> Result<Scalar<'static>, Fault> {
    let mut out = Vec::new();
    let built = Builder::with(&mut out, |builder| match token {
        // An object or array is consumed before it is converted, so that the record can be read on
        // if the conversion fails.
        Token::Object | Token::Array => {
            let whole = tokens.whole()?;
            let mut inner = tokens.of_part(whole);
            match inner.next()? {
                Some(token) => read_variant(&mut inner, token, builder),
                None => Err(VariantError::Invalid),
            }
        }
        token => read_variant(tokens, token, builder),
    });
    match built {
        Ok(()) => Ok(Scalar::Bytes(Cow::Owned(out))),
        Err(VariantError::Invalid) => Err(Fault(NOT_JSON)),
        Err(VariantError::Build(_)) => Err(Fault(NOT_ITS_TYPE)),
    }
}

/// Parses the text of a string as a value of a type. `None` if the text is not valid for the type.
fn text_scalar(
    reading: &JsonReadOptions,
    text: &str,
    data_type: &DataType,
) -> Option<Scalar<'static>> {
    use DataType as T;
    if text.is_empty() {
        return None;
    }
    let notation = &reading.notation;
    match data_type {
        T::Float | T::Double if reading.features.non_numbers => Some(Scalar::Double(match text {
            "NaN" => f64::NAN,
            "+INF" | "+Infinity" | "Infinity" => f64::INFINITY,
            "-INF" | "-Infinity" => f64::NEG_INFINITY,
            _ => return None,
        })),
        T::Decimal(..) if !text.contains(char::is_whitespace) => {
            decimal(&text.replace(',', ""), data_type).ok()
        }
        T::Date => {
            let fallback = reading.fallback.unwrap_or(notation.date.is_none());
            // Old versions of Spark wrote a date as the number of days since 1970-01-01.
            let days = notation.long(text, data_type).or_else(|| {
                let text = without_gmt(text);
                fallback.then(|| {
                    parse_date(&text).or_else(|| text.parse::<i32>().ok().map(i64::from))
                })?
            });
            days.map(Scalar::Long)
        }
        T::Timestamp => {
            let fallback = reading.fallback.unwrap_or(notation.timestamp.is_none());
            let time = notation.long(text, data_type).or_else(|| {
                fallback.then(|| parse_timestamp(&without_gmt(text), Some(notation.zone)))?
            });
            time.map(Scalar::Long)
        }
        // A text with a time zone denotes the same instant in every session time zone. Such a text
        // is not a valid TIMESTAMP_NTZ.
        T::TimestampNtz
            if notation.timestamp_ntz.is_none()
                && parse_timestamp(text, Some(Tz::UTC))
                    == parse_timestamp(text, zone("+09:00").ok()) =>
        {
            None
        }
        T::TimestampNtz | T::Time(_) => notation.long(text, data_type).map(Scalar::Long),
        t if t.is_interval() => {
            let value = interval::parse_shown(text, t).or_else(|| interval::parse(text, t));
            value.map(Scalar::Long)
        }
        T::CalendarInterval => {
            let encoded = |of: CalendarInterval| Scalar::Bytes(Cow::Owned(of.to_bytes().to_vec()));
            Some(CalendarInterval::parse(text).map_or(Scalar::Null, encoded))
        }
        _ => None,
    }
}

/// Removes `GMT` from a zone such as `2000-01-01T00:00GMT+01:00`. Old versions of Spark wrote this
/// form.
fn without_gmt(text: &str) -> Cow<'_, str> {
    match text.find("GMT") {
        Some(at) => Cow::Owned(format!("{}{}", &text[..at], &text[at + 3..])),
        None => Cow::Borrowed(text),
    }
}

#[inline]
fn double(digits: &str, token: Token, data_type: &DataType) -> Option<f64> {
    if token == Token::Whole && digits == "-0" {
        return Some(0.0);
    }
    if *data_type == DataType::Float {
        return digits.parse::<f32>().ok().map(f64::from);
    }
    digits.parse().ok()
}

fn decimal(digits: &str, data_type: &DataType) -> Result<Scalar<'static>, Fault> {
    match number::decimal(digits, data_type) {
        Ok(Some(value)) => Ok(Scalar::Decimal(value)),
        _ => Err(Fault(NOT_ITS_TYPE)),
    }
}

/// Parses an optional minus sign and digits; `None` on overflow.
#[inline]
fn whole(digits: &[u8]) -> Option<i64> {
    let (minus, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let mut value = 0i64;
    for digit in digits {
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if minus { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::types::Schema;
    use proptest::prelude::*;

    pub(super) fn reader(ddl: &str, source: Source) -> (DataType, RecordReader) {
        let data_type = DataType::Struct(Schema::parse_ddl(ddl).unwrap().fields);
        let reader =
            RecordReader::new(&data_type, JsonReadOptions { source, ..JsonReadOptions::default() });
        (data_type, reader)
    }

    fn read_from(ddl: &str, text: &[u8], source: Source) -> (String, Found) {
        let (data_type, reader) = reader(ddl, source);
        let DataType::Struct(fields) = &data_type else { unreachable!() };
        let mut out = Vec::new();
        let is_utf8 = std::str::from_utf8(text).is_ok();
        let found = reader.read(text, is_utf8, &mut RowWriter::new(&mut out, fields.len()));
        let values: Vec<Value> =
            values(Row(&out), fields.iter().map(|field| &field.data_type)).collect();
        assert_eq!(out, crate::table::row::encode(&values), "no bytes that no slot names");
        (Value::Struct(values).show(&data_type, Tz::UTC), found)
    }

    fn read(ddl: &str, text: &str) -> (String, Found) {
        read_from(ddl, text.as_bytes(), Source::Chars)
    }

    #[test]
    fn the_readable_fields_of_a_bad_record_are_kept() {
        for (ddl, text, expected, reason) in [
            ("a INT, b INT", r#"{"a":"x","b":2}"#, "{NULL, 2}", NOT_ITS_TYPE),
            ("a ARRAY<INT>, b INT", r#"{"a":[1,"x",{"b":9}],"b":2}"#, "{NULL, 2}", NOT_ITS_TYPE),
            (
                "a STRUCT<c: INT, d: INT>, b INT",
                r#"{"a":{"c":"x","d":1},"b":2}"#,
                "{{NULL, 1}, 2}",
                NOT_ITS_TYPE,
            ),
            // A map is read to its end before its error is reported.
            (
                "a MAP<STRING, INT>, b INT",
                r#"{"a":{"x":"y","b":1},"b":2}"#,
                "{NULL, 2}",
                NOT_ITS_TYPE,
            ),
            // If a field is repeated, the last valid value counts.
            ("a INT, b STRING", r#"{"a":1,"b":"x","a":"y","b":"z"}"#, "{1, z}", NOT_ITS_TYPE),
            ("a INT, b INT", r#"{"b":1,"a":2,"b":null"#, "{NULL, NULL}", NOT_JSON),
            ("a INT", "[]", "{NULL}", ""),
            ("a INT", "null", "{NULL}", NOT_AN_OBJECT),
            ("a INT", "\"\"", "{NULL}", NOT_AN_OBJECT),
            // A malformed value ends the object. The fields before it are preserved.
            (
                "a INT, s STRUCT<b: INT>, c INT",
                r#"{"a":5,"s":{"b":01},"c":7}"#,
                "{5, NULL, NULL}",
                NOT_JSON,
            ),
            (
                "a INT, s ARRAY<INT>, c INT",
                r#"{"a":5,"s":[1,tru],"c":7}"#,
                "{5, NULL, 7}",
                NOT_JSON,
            ),
        ] {
            let found = match text {
                "[]" => Found::Array,
                _ => Found::Row(Some(reason)),
            };
            assert_eq!(read(ddl, text), (expected.to_string(), found), "{text}");
        }
        assert_eq!(read("a INT", " \n").1, Found::Nothing);
        assert_eq!(read("a INT", r#"{"a":1} x"#), ("{1}".to_string(), Found::Row(None)));
    }

    #[test]
    fn the_last_field_of_a_repeated_schema_name_gets_the_value() {
        let others = ", b INT, c INT, d INT, e INT, f INT, g INT, h INT";
        let nulls = ", NULL".repeat(7);
        for (others, nulls) in [("", ""), (others, nulls.as_str())] {
            let ddl = format!("a INT{others}, a INT");
            for text in [r#"{"a":1}"#, r#"{"a":2,"a":1}"#] {
                let expected = format!("{{NULL{nulls}, 1}}");
                assert_eq!(read(&ddl, text), (expected, Found::Row(None)), "{ddl} {text}");
            }
        }
    }

    #[test]
    fn the_last_value_of_a_repeated_field_counts() {
        for (ddl, text, expected) in [
            (
                "s STRUCT<a: INT, b: INT>, n INT",
                r#"{"s":{"a":1,"b":2,"a":3},"n":4}"#,
                "{{3, 2}, 4}",
            ),
            ("s STRING, n INT", r#"{"s":"long","n":1,"s":"x"}"#, "{x, 1}"),
            ("s STRING, n INT", r#"{"s":"long","n":1,"s":null}"#, "{NULL, 1}"),
            ("s STRUCT<a: INT>", r#"{"s":{"a":1},"s":{}}"#, "{{NULL}}"),
        ] {
            assert_eq!(read(ddl, text), (expected.to_string(), Found::Row(None)), "{text}");
        }
    }

    #[test]
    fn a_string_takes_any_value() {
        let text = r#"{"a": {"x" : [1.10, 1e10]},"b":true,"c": -0.0 , "d":[ 1E5 ,"x"]}"#;
        let ddl = "a STRING, b STRING, c STRING, d STRING";
        assert_eq!(
            read(ddl, text).0,
            r#"{{"x":[1.1,1.0E10]}, true, -0.0, [100000.0,"x"]}"#,
            "functions of SQL write the value anew"
        );
        assert_eq!(
            read_from(ddl, text.as_bytes(), Source::Bytes).0,
            r#"{{"x" : [1.10, 1e10]}, true, -0.0, [ 1E5 ,"x"]}"#,
            "files keep its text"
        );
        assert_eq!(read("a STRING", r#"{"a":007}"#).1, Found::Row(Some(NOT_JSON)));
    }

    #[test]
    fn base64_fails_where_spark_fails() {
        for (text, expected) in [
            (r#"{"b":"YQ==","n":1}"#, "{[61], 1}"),
            (r#"{"b":" YWI=","n":1}"#, "{[61 62], 1}"),
            (r#"{"b":"YWI","n":1}"#, "{NULL, 1}"),
            (r#"{"b":"","n":1}"#, "{[], 1}"),
            (r#"{"b":"\n","n":1}"#, "{[], 1}"),
            // The base 64 decoder has consumed the closing quote, so the string continues up to the
            // next quote.
            (r#"{"b":"Y","n":1}"#, "{NULL, NULL}"),
        ] {
            assert_eq!(read("b BINARY, n INT", text).0, expected, "{text}");
        }
    }

    #[test]
    fn the_elements_of_an_array_are_rows() {
        let (_, reader) = reader("a INT", Source::Bytes);
        let rows = |text: &str, after: Option<usize>| {
            let mut elements = reader.elements(text.as_bytes(), true, after);
            let (mut rows, mut out) = (Vec::new(), Vec::new());
            loop {
                out.clear();
                match elements.next(&mut RowWriter::new(&mut out, 1)) {
                    Ok(None) => return Ok(rows),
                    Ok(Some(partial)) => {
                        let value = Row(&out).value(0, 1, &DataType::Int);
                        rows.push((value, partial.is_some(), elements.at()));
                    }
                    Err(fault) => return Err(fault),
                }
            }
        };
        let text = r#"[{"a":1}, {"a":"x"}, {"b":[]} ]"#;
        let all = rows(text, None).unwrap();
        let expected =
            [(Value::Long(1), false, 8), (Value::Null, true, 19), (Value::Null, false, 29)];
        assert_eq!(all, expected);
        assert_eq!(rows(text, Some(8)).unwrap(), expected[1..]);
        for bad in [r#"[{"a":1},5]"#, r#"[{"a":1},null]"#, r#"[{"a":1}"#, r#"[{"a":1},{"a":]"#] {
            assert!(rows(bad, None).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(
            bytes in proptest::collection::vec(
                proptest::sample::select(b"{}[]:,\"'\\abst10-.eNtruIn/* \xC3\xA9\n".to_vec()), 0..60),
            chars: bool,
        ) {
            let source = if chars { Source::Chars } else { Source::Bytes };
            let ddl = "a INT, b BINARY, s STRUCT<a: STRING, t: ARRAY<INT>>, t MAP<STRING, DOUBLE>";
            read_from(ddl, &bytes, source);
            let (_, reader) = reader(ddl, source);
            let mut elements = reader.elements(&bytes, false, None);
            let mut out = Vec::new();
            while let Ok(Some(_)) = elements.next(&mut RowWriter::new(&mut out, 4)) {
                out.clear();
            }
        }
    }
}
