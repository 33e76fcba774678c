//! Infers the type of JSON by Spark's rules, when no schema is given.
//!
//! What was seen is kept as a tree into which each record is merged in place. So a record costs
//! time for its own fields, however many names were seen.

use crate::table::text::json::record::JsonReadOptions;
use crate::table::text::json::token::{InvalidJson, Token, Tokens};
use crate::table::types::{DataType, Field};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem::{replace, take};

/// Digits of a DECIMAL.
const DIGITS_MAX: usize = 38;

/// Fields, those of objects in objects among them, that a schema is made of at most: what is kept of
/// them is memory that the files would else decide.
pub const FIELDS_MAX: usize = 200_000;

/// The type of the values that were seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Inferred {
    /// NULL alone, and texts without characters.
    #[default]
    Null,
    /// Values without parts.
    Type(DataType),
    /// Arrays.
    Array(Box<Inferred>),
    /// Objects.
    Object(BTreeMap<String, Inferred>),
}

/// How types are found.
#[derive(Clone, Debug, Default)]
pub struct Inference {
    /// How texts are read.
    pub reading: JsonReadOptions,
    /// `primitivesAsString`: numbers and booleans are STRING.
    pub all_text: bool,
    /// `prefersDecimal`: numbers with a fraction are DECIMAL, in texts too.
    pub decimals: bool,
    /// `inferTimestamp`: texts may be TIMESTAMP.
    pub times: bool,
    /// Times that name no zone are TIMESTAMP_NTZ, as `spark.sql.timestampType` says.
    pub times_without_zone: bool,
    /// `dropFieldIfAllNull`: what was only ever NULL is left out.
    pub without_nulls: bool,
}

impl Inference {
    /// The type of a text's value, which is NULL if there is none in it.
    pub fn of(&self, text: &[u8]) -> Result<Inferred, InvalidJson> {
        let mut tokens = Tokens::new(text, self.reading.features, self.reading.source);
        match tokens.next()? {
            None => Ok(Inferred::Null),
            Some(token) => self.value(&mut tokens, token, &mut 0),
        }
    }

    /// Whether a record is an object that changes nothing in the types that were found, as most
    /// records are. Nothing is built to find out; a record that is broken is none of these.
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

    /// The type of a value; `names` counts those of all objects of the record.
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
                    let name = String::from_utf8_lossy(&name.unwrap_or_default()).into_owned();
                    let value = self.value(tokens, token, names)?;
                    match fields.entry(name) {
                        // One more than a schema has is enough for the error.
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
            // It is no DECIMAL, and Spark asks for nothing else then.
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

    /// The type of a text that is a time.
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

    /// The type as a column has it; `None` if it is left out, as an object without fields is.
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

    /// The fields of objects.
    pub fn fields(&self, found: BTreeMap<String, Inferred>) -> Vec<Field> {
        let named = found.into_iter().filter(|(name, _)| !name.is_empty());
        named
            .filter_map(|(name, found)| Some(Field::new(name, self.finish(found)?, true)))
            .collect()
    }
}

/// Digits of a number, and how many of them are behind its point, as Java's BigDecimal counts
/// them; `None` for a text that is no number, and for one whose last digits the exponent moves
/// before the point.
fn decimal_of(text: &str) -> Option<(usize, usize)> {
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
    /// Fields in it.
    fn fields(&self) -> usize {
        match self {
            Self::Null | Self::Type(_) => 0,
            Self::Array(element) => element.fields(),
            Self::Object(fields) => fields.values().map(|field| 1 + field.fields()).sum(),
        }
    }

    /// Makes it the type of other values too: what does not go together is STRING. How many fields
    /// it has more than before.
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

/// The fields of two objects whose names differ in their letters' case alone, where each field has
/// a type that holds the values of both as they are. Spark then takes the names for equal, and
/// keeps those of the first.
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

/// The narrowest type that holds the values of both as they are.
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

/// The type of values of both types.
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

/// The columns of records, and whether one of them was none.
#[derive(Clone, Debug, Default)]
pub struct InferredRecords {
    /// The columns.
    pub columns: BTreeMap<String, Inferred>,
    /// Whether a record was neither an object, nor an array of objects, nor NULL.
    pub bad: bool,
    fields: usize,
}

impl InferredRecords {
    /// Whether there are more fields than a schema may have.
    pub fn is_full(&self) -> bool {
        self.fields > FIELDS_MAX
    }

    /// Takes a record in.
    pub fn add(&mut self, record: Inferred) {
        match record {
            Inferred::Null => {}
            // An array is a record for each of its elements.
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

    /// Takes a record in, and sees that one that is known changes nothing.
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
    fn a_record_like_the_ones_before_is_known() {
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
        fn what_is_known_changes_nothing(
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
    fn many_names_cost_time_by_the_record() {
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
