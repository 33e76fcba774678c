//! JSON schema inference by Spark's rules.
//!
//! The inferred type is a tree into which each record is merged in place. So the cost of a record
//! depends on its own fields, not on the number of names seen so far.

use crate::table::text::json::record::JsonReadOptions;
use crate::table::text::json::token::{InvalidJson, Token, Tokens};
use crate::table::text::utf8;
use crate::table::types::{DataType, Field};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem::{replace, take};

/// The maximum precision of a DECIMAL.
const DIGITS_MAX: usize = 38;

/// The maximum number of fields in an inferred schema, nested fields included. It limits the memory
/// that untrusted input can make the inference use.
pub const FIELDS_MAX: usize = 200_000;

/// The inferred type of the values processed so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Inferred {
    /// All values were NULLs or empty strings.
    #[default]
    Null,
    /// The common type of scalars, or STRING for values of different structures.
    Type(DataType),
    /// The values were arrays. Their elements have the inner type.
    Array(Box<Inferred>),
    /// The values were objects. Their fields have the inner types.
    Object(BTreeMap<String, Inferred>),
}

/// Infers types from JSON records, with the options of schema inference.
#[derive(Clone, Debug, Default)]
pub struct Inference {
    /// The rules by which records are parsed.
    pub reading: JsonReadOptions,
    /// `primitivesAsString`: numbers and booleans are inferred as STRING.
    pub all_text: bool,
    /// `prefersDecimal`: numbers with a fraction or an exponent, and strings that are numbers, are
    /// inferred as DECIMAL if they have at most 38 digits.
    pub decimals: bool,
    /// `inferTimestamp`: strings may be inferred as TIMESTAMP.
    pub times: bool,
    /// Whether timestamps without a time zone are TIMESTAMP_NTZ, as `spark.sql.timestampType`
    /// requires.
    pub times_without_zone: bool,
    /// `dropFieldIfAllNull`: a field whose values were all NULL or empty strings is left out of the
    /// schema.
    pub without_nulls: bool,
}

impl Inference {
    /// Infers the type of one record. An empty text is NULL.
    pub fn of(&self, text: &[u8]) -> Result<Inferred, InvalidJson> {
        let mut tokens = Tokens::new(text, self.reading.features, self.reading.source);
        match tokens.next()? {
            None => Ok(Inferred::Null),
            Some(token) => self.value(&mut tokens, token, &mut 0),
        }
    }

    /// Whether a record is an object that would not change the inferred types, which is the usual
    /// case. Returns false for a malformed record.
    pub fn knows(&self, found: &InferredRecords, text: &[u8]) -> bool {
        let mut tokens = Tokens::new(text, self.reading.features, self.reading.source);
        tokens.next() == Ok(Some(Token::Object))
            && self.knows_fields(&found.columns, &mut tokens) == Ok(true)
    }

    fn knows_fields(
        &self,
        found: &BTreeMap<String, Inferred>,
        tokens: &mut Tokens<'_>,
    ) -> Result<bool, InvalidJson> {
        loop {
            let token = match tokens.next()? {
                None | Some(Token::ObjectEnd) => return Ok(true),
                Some(token) => token,
            };
            let name = tokens.name_here().map(|name| tokens.name_text(name)).unwrap_or_default();
            let found = std::str::from_utf8(&name).ok().and_then(|name| found.get(name));
            match found {
                Some(found) if self.knows_value(found, tokens, token)? => {}
                _ => return Ok(false),
            }
        }
    }

    fn knows_value(
        &self,
        found: &Inferred,
        tokens: &mut Tokens<'_>,
        token: Token,
    ) -> Result<bool, InvalidJson> {
        let token = match token {
            Token::Name => tokens.next()?.unwrap_or(Token::Null),
            other => other,
        };
        match (token, found) {
            (Token::Object, Inferred::Object(fields)) => self.knows_fields(fields, tokens),
            (Token::Array, Inferred::Array(element)) => loop {
                match tokens.next()? {
                    None | Some(Token::ArrayEnd) => return Ok(true),
                    Some(token) if self.knows_value(element, tokens, token)? => {}
                    Some(_) => return Ok(false),
                }
            },
            (Token::Object | Token::Array, _) => Ok(false),
            (token, found) => Ok(match (found, self.value(tokens, token, &mut 0)?) {
                (_, Inferred::Null) => true,
                (Inferred::Type(found), Inferred::Type(new)) => {
                    *found == new || together(found.clone(), new) == *found
                }
                _ => false,
            }),
        }
    }

    /// Infers the type of a value. `names` counts the fields of all objects in the record so far.
    fn value(
        &self,
        tokens: &mut Tokens<'_>,
        token: Token,
        names: &mut usize,
    ) -> Result<Inferred, InvalidJson> {
        Ok(match token {
            Token::Name => match tokens.next()? {
                None => Inferred::Null,
                Some(token) => self.value(tokens, token, names)?,
            },
            Token::Object => {
                let mut fields = BTreeMap::new();
                loop {
                    let token = match tokens.next()? {
                        None | Some(Token::ObjectEnd) => break,
                        Some(token) => token,
                    };
                    let name = tokens.name_here().map(|name| tokens.name_text(name));
                    let name = utf8::decode(&name.unwrap_or_default()).into_owned();
                    let value = self.value(tokens, token, names)?;
                    match fields.entry(name) {
                        // The record exceeds the limit already, so its further fields need not be
                        // stored.
                        Entry::Vacant(_) if *names > FIELDS_MAX && value.fields() == 0 => {}
                        Entry::Vacant(new) => {
                            *names += 1;
                            new.insert(value);
                        }
                        Entry::Occupied(mut seen) => {
                            seen.get_mut().merge(value);
                        }
                    }
                }
                Inferred::Object(fields)
            }
            Token::Array => {
                let mut element = Inferred::Null;
                loop {
                    match tokens.next()? {
                        None | Some(Token::ArrayEnd) => break,
                        Some(token) => {
                            element.merge(self.value(tokens, token, names)?);
                        }
                    }
                }
                Inferred::Array(Box::new(element))
            }
            Token::Text => self.text(&tokens.text_str()?),
            Token::Null | Token::ObjectEnd | Token::ArrayEnd => Inferred::Null,
            _ if self.all_text => Inferred::Type(DataType::String),
            Token::True | Token::False => Inferred::Type(DataType::Boolean),
            // With `prefersDecimal` Spark tries only DECIMAL, which has no NaN or infinity.
            Token::NonNumber if self.decimals => return Err(InvalidJson),
            Token::NonNumber => Inferred::Type(DataType::Double),
            Token::Whole | Token::Real => Inferred::Type(self.number(token, tokens.digits())),
        })
    }

    fn number(&self, token: Token, digits: &str) -> DataType {
        if token == Token::Whole && digits.parse::<i64>().is_ok() {
            return DataType::Long;
        }
        if token == Token::Real && !self.decimals {
            return DataType::Double;
        }
        match decimal_of(digits) {
            Some((precision, scale)) => {
                let precision = precision.max(scale);
                if precision <= DIGITS_MAX {
                    DataType::Decimal(precision as u8, scale as u8)
                } else {
                    DataType::Double
                }
            }
            None => DataType::Double,
        }
    }

    fn text(&self, text: &str) -> Inferred {
        if text.is_empty() {
            return Inferred::Null;
        }
        if self.decimals
            && let Some((precision, scale)) = decimal_of(&text.replace(',', ""))
            && scale <= precision
            && precision <= DIGITS_MAX
        {
            return Inferred::Type(DataType::Decimal(precision as u8, scale as u8));
        }
        Inferred::Type(self.time(text).unwrap_or(DataType::String))
    }

    /// The timestamp type of a string. `None` if the string is not a timestamp, or if timestamps
    /// are not inferred.
    fn time(&self, text: &str) -> Option<DataType> {
        if !self.times {
            return None;
        }
        let notation = &self.reading.notation;
        if self.times_without_zone && notation.is_timestamp_ntz(text) {
            return Some(DataType::TimestampNtz);
        }
        notation.long(text, &DataType::Timestamp).map(|_| DataType::Timestamp)
    }

    /// Converts an inferred type to the type of a column: STRING if all values were null. `None` if
    /// the schema leaves the column out: for an object without fields, with `dropFieldIfAllNull`
    /// for nulls, and for arrays of these.
    pub fn finish(&self, found: Inferred) -> Option<DataType> {
        match found {
            Inferred::Null => (!self.without_nulls).then_some(DataType::String),
            Inferred::Type(data_type) => Some(data_type),
            Inferred::Array(element) => {
                self.finish(*element).map(|element| DataType::Array(Box::new(element)))
            }
            Inferred::Object(fields) => {
                let fields = self.fields(fields);
                (!fields.is_empty()).then_some(DataType::Struct(fields))
            }
        }
    }

    /// Converts the fields of an object to those of a STRUCT. Fields with an empty name are
    /// dropped.
    pub fn fields(&self, found: BTreeMap<String, Inferred>) -> Vec<Field> {
        let named = found.into_iter().filter(|(name, _)| !name.is_empty());
        named
            .filter_map(|(name, found)| Some(Field::new(name, self.finish(found)?, true)))
            .collect()
    }
}

/// The precision and scale of a number, as Java's `BigDecimal` counts them. `None` if the text is
/// not a number, or if its exponent makes the scale negative.
pub(in crate::table::text) fn decimal_of(text: &str) -> Option<(usize, usize)> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (digits, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = whole.bytes().chain(fraction.bytes());
    if !all.clone().all(|b| b.is_ascii_digit()) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let significant = all.skip_while(|b| *b == b'0').count().max(1);
    let scale = i64::try_from(fraction.len()).ok()? - i64::from(exponent);
    Some((significant, usize::try_from(scale).ok()?))
}

impl Inferred {
    /// The number of fields in this type, nested fields included.
    fn fields(&self) -> usize {
        match self {
            Self::Null | Self::Type(_) => 0,
            Self::Array(element) => element.fields(),
            Self::Object(fields) => fields.values().map(|field| 1 + field.fields()).sum(),
        }
    }

    /// Widens this type so that it can represent values of `other` too. Incompatible types become
    /// STRING. Returns the number of fields added.
    pub fn merge(&mut self, other: Self) -> usize {
        match (&mut *self, other) {
            (_, Self::Null) => 0,
            (Self::Null, other) => {
                *self = other;
                self.fields()
            }
            (Self::Object(fields), Self::Object(others)) => {
                let count = |fields: &BTreeMap<String, Self>| {
                    fields.values().map(Self::fields).sum::<usize>()
                };
                if let Some(fields_of_both) = tightest_fields(fields, &others) {
                    let more = count(&fields_of_both).saturating_sub(count(fields));
                    *fields = fields_of_both;
                    return more;
                }
                let mut more = 0;
                for (name, other) in others {
                    more += match fields.entry(name) {
                        Entry::Vacant(new) => 1 + new.insert(other).fields(),
                        Entry::Occupied(mut seen) => seen.get_mut().merge(other),
                    };
                }
                more
            }
            (Self::Array(element), Self::Array(other)) => element.merge(*other),
            (Self::Type(a), Self::Type(b)) => {
                let before = replace(a, DataType::Null);
                *a = together(before, b);
                0
            }
            (mixed, _) => {
                *mixed = Self::Type(DataType::String);
                0
            }
        }
    }
}

/// Merges two objects whose field names differ only in case. Spark treats such names as equal and
/// uses the names of the first object. `None` if the names are the same or differ otherwise, or if
/// a pair of fields has no common type without loss.
fn tightest_fields(
    a: &BTreeMap<String, Inferred>,
    b: &BTreeMap<String, Inferred>,
) -> Option<BTreeMap<String, Inferred>> {
    let same_names = || a.keys().zip(b.keys()).all(|(a, b)| a.to_lowercase() == b.to_lowercase());
    if a.len() != b.len() || a.keys().eq(b.keys()) || !same_names() {
        return None;
    }
    let both = a.iter().zip(b.values());
    both.map(|((name, a), b)| Some((name.clone(), tightest(a, b)?))).collect()
}

/// The narrowest type that represents values of both types without loss; `None` if there is none.
fn tightest(a: &Inferred, b: &Inferred) -> Option<Inferred> {
    use DataType::{Decimal, Double, Long};
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (Inferred::Null, other) | (other, Inferred::Null) => other.clone(),
        (Inferred::Array(a), Inferred::Array(b)) => Inferred::Array(Box::new(tightest(a, b)?)),
        (Inferred::Object(a), Inferred::Object(b)) if a.keys().eq(b.keys()) => {
            let both = a.iter().zip(b.values());
            let fields = both.map(|((name, a), b)| Some((name.clone(), tightest(a, b)?)));
            Inferred::Object(fields.collect::<Option<_>>()?)
        }
        (Inferred::Object(a), Inferred::Object(b)) => Inferred::Object(tightest_fields(a, b)?),
        (Inferred::Type(Long), Inferred::Type(Double))
        | (Inferred::Type(Double), Inferred::Type(Long)) => Inferred::Type(Double),
        (Inferred::Type(Long), Inferred::Type(wide @ Decimal(precision, scale)))
        | (Inferred::Type(wide @ Decimal(precision, scale)), Inferred::Type(Long))
            if precision - scale >= 20 =>
        {
            Inferred::Type(wide.clone())
        }
        _ => return None,
    })
}

/// The common type of two scalar types by Spark's rules; STRING if they are incompatible.
fn together(a: DataType, b: DataType) -> DataType {
    if a == b {
        return a;
    }
    let decimal = |t: &DataType| match t {
        DataType::Long => Some((20, 0)),
        DataType::Decimal(precision, scale) => Some((*precision, *scale)),
        _ => None,
    };
    match (decimal(&a), decimal(&b)) {
        (Some((p, s)), Some((q, t))) => {
            let (scale, whole) = (s.max(t), (p - s).max(q - t));
            if usize::from(whole + scale) > DIGITS_MAX {
                DataType::Double
            } else {
                DataType::Decimal(whole + scale, scale)
            }
        }
        _ if a.is_numeric() && b.is_numeric() => DataType::Double,
        _ if matches!(
            (&a, &b),
            (DataType::Timestamp, DataType::TimestampNtz)
                | (DataType::TimestampNtz, DataType::Timestamp)
        ) =>
        {
            DataType::Timestamp
        }
        _ => DataType::String,
    }
}

/// The columns inferred from all records processed so far.
#[derive(Clone, Debug, Default)]
pub struct InferredRecords {
    /// The columns and their types.
    pub columns: BTreeMap<String, Inferred>,
    /// Whether any record was neither an object, nor an array of objects, nor NULL.
    pub bad: bool,
    fields: usize,
}

impl InferredRecords {
    /// Whether the number of fields exceeds the maximum of a schema.
    pub fn is_full(&self) -> bool {
        self.fields > FIELDS_MAX
    }

    /// Merges the inferred type of a record into the columns. Of an array each element counts as a
    /// record. A record that is neither an object nor null is noted as bad.
    pub fn add(&mut self, record: Inferred) {
        match record {
            Inferred::Null => {}
            Inferred::Array(element) => self.add(*element),
            Inferred::Object(fields) => {
                let mut all = Inferred::Object(take(&mut self.columns));
                self.fields += all.merge(Inferred::Object(fields));
                if let Inferred::Object(columns) = all {
                    self.columns = columns;
                }
            }
            Inferred::Type(_) => self.bad = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::text::json::Source;

    fn columns(inference: &Inference, records: &[&str]) -> String {
        let mut all = InferredRecords::default();
        for record in records {
            see(inference, &mut all, record);
            see(inference, &mut all, record);
        }
        let data_type = DataType::Struct(inference.fields(all.columns));
        format!("{data_type}{}", if all.bad { " bad" } else { "" })
    }

    /// Adds a record. Checks that the record changes nothing if `knows` returned true for it.
    fn see(inference: &Inference, all: &mut InferredRecords, record: &str) -> bool {
        let (known, before) = (inference.knows(all, record.as_bytes()), all.clone());
        match inference.of(record.as_bytes()) {
            Ok(found) => all.add(found),
            Err(InvalidJson) => all.bad = true,
        }
        assert!(!known || (&before.columns, before.bad) == (&all.columns, all.bad), "{record}");
        known
    }

    #[test]
    fn a_record_that_adds_no_type_is_recognised() {
        let (inference, mut all) = (Inference::default(), InferredRecords::default());
        let record = r#"{"a":1,"b":"x","c":[1.5,null],"d":{"e":true,"f":[{}]},"g":null}"#;
        assert!(!see(&inference, &mut all, record));
        assert!(see(&inference, &mut all, record));
        assert!(see(&inference, &mut all, r#"{"d":{"f":[]},"c":[2],"b":""}"#));
        for new in [r#"{"h":null}"#, r#"{"a":1.5}"#, r#"{"b":[]}"#, r#"{"a":1"#, "[]", r#"{"g":0}"#]
        {
            assert!(!see(&inference, &mut all, new), "{new}");
        }
    }

    proptest::proptest! {
        #[test]
        fn skipping_recognised_records_does_not_change_the_schema(
            records in proptest::collection::vec(
                r#"\{("a":(1|2\.5|"x"|null|\[[12"]?\]|\{"a":(1|"")\}),?)?("b":(12345678901234567890|0\.01|true|NaN))?\}"#,
                1..12),
            decimals: bool,
        ) {
            let inference = Inference { decimals, ..Inference::default() };
            let mut all = InferredRecords::default();
            for record in &records {
                see(&inference, &mut all, record);
            }
        }
    }

    #[test]
    fn types_as_spark_infers_them() {
        let plain = Inference::default();
        let decimals = Inference { decimals: true, ..Inference::default() };
        let text = Inference { all_text: true, ..Inference::default() };
        let dropped = Inference { without_nulls: true, ..Inference::default() };
        let times = Inference { times: true, ..Inference::default() };
        for (inference, records, expected) in [
            (&plain, &[r#"{"a":1,"b":"x"}"#][..], "STRUCT<a: BIGINT, b: STRING>"),
            (&plain, &[r#"{"a":1}"#, r#"{"a":1.5}"#], "STRUCT<a: DOUBLE>"),
            (&plain, &[r#"{"a":18446744073709551615}"#], "STRUCT<a: DECIMAL(20,0)>"),
            (&plain, &[r#"{"a":1}"#, r#"{"a":true}"#], "STRUCT<a: STRING>"),
            (
                &plain,
                &[r#"{"a":[]}"#, r#"{"a":[{"b":null}]}"#],
                "STRUCT<a: ARRAY<STRUCT<b: STRING>>>",
            ),
            (&plain, &[r#"{"a":{}, "b":""}"#], "STRUCT<b: STRING>"),
            (&plain, &[r#"[{"a":1},{"b":NaN}]"#, "null", "5"], "STRUCT<a: BIGINT, b: DOUBLE> bad"),
            (&plain, &["{"], "STRUCT<> bad"),
            (
                &decimals,
                &[r#"{"a":1.50,"b":"2.5","c":"x","d":0.05}"#],
                "STRUCT<a: DECIMAL(3,2), b: DECIMAL(2,1), c: STRING, d: DECIMAL(2,2)>",
            ),
            (&decimals, &[r#"{"a":1}"#, r#"{"a":1.5}"#], "STRUCT<a: DECIMAL(21,1)>"),
            (&decimals, &[r#"{"a":NaN}"#], "STRUCT<> bad"),
            (&text, &[r#"{"a":1,"b":[true]}"#], "STRUCT<a: STRING, b: ARRAY<STRING>>"),
            (&dropped, &[r#"{"a":null,"b":1,"c":[null]}"#], "STRUCT<b: BIGINT>"),
            (&plain, &[r#"{"l":[{"a":1},{"A":2.5}]}"#], "STRUCT<l: ARRAY<STRUCT<a: DOUBLE>>>"),
            (
                &plain,
                &[r#"{"l":[{"o":{"A":1}},{"o":{"a":null}}]}"#],
                "STRUCT<l: ARRAY<STRUCT<o: STRUCT<A: BIGINT>>>>",
            ),
            (
                &plain,
                &[r#"{"l":[{"a":1},{"A":"x"}]}"#],
                "STRUCT<l: ARRAY<STRUCT<A: STRING, a: BIGINT>>>",
            ),
            (&plain, &[r#"{"a":1}"#, r#"{"A":2}"#, r#"{"a":3}"#], "STRUCT<a: BIGINT>"),
            (
                &times,
                &[r#"{"a":"2024-01-01 00:00:00","b":"x"}"#],
                "STRUCT<a: TIMESTAMP, b: STRING>",
            ),
        ] {
            assert_eq!(columns(inference, records), expected, "{records:?}");
        }
    }

    #[test]
    fn the_time_of_many_names_is_linear_in_the_records() {
        let inference = Inference {
            reading: JsonReadOptions { source: Source::Bytes, ..JsonReadOptions::default() },
            ..Inference::default()
        };
        let mut all = InferredRecords::default();
        for i in 0..20_000 {
            all.add(inference.of(format!("{{\"k{i}\":1}}").as_bytes()).unwrap());
        }
        assert_eq!(all.columns.len(), 20_000);
    }
}
