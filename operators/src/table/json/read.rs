//! JSON objects into rows, in one pass over the text.
//!
//! Numbers, strings, booleans and structs of them go straight into their slots, fields that the schema
//! does not name are skipped, and nothing is allocated for either (but for a string with escapes);
//! arrays and maps go through a tree of their own. A field that is not of its type is NULL, and the rest
//! of the object is read all the same.

use crate::table::expr::parse;
use crate::table::row::{Bytes, RowWriter};
use crate::table::text::{Notation, integer};
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::fmt;

/// What [`ObjectReader::read`] says where the text is an object of JSON all the same.
pub const NOT_ITS_TYPE: &str = "a field is not of its type";

/// Reads objects of one schema.
#[derive(Clone, Debug)]
pub struct ObjectReader {
    fields: Vec<Field>,
    /// Whether anything reads the field.
    wanted: Vec<bool>,
    /// Of fields that are structs.
    nested: Vec<Option<Self>>,
    notation: Notation,
    /// Whether what [`RecordReader`](super::RecordReader) reads in another way is a fault.
    strict: bool,
}

impl ObjectReader {
    /// A reader of objects with these fields.
    pub fn new(fields: Vec<Field>, notation: Notation) -> Self {
        let wanted = vec![true; fields.len()];
        let nested = |field: &Field| match &field.data_type {
            DataType::Struct(fields) => Some(Self::new(fields.clone(), notation.clone())),
            _ => None,
        };
        let nested = fields.iter().map(nested).collect();
        Self { fields, wanted, nested, notation, strict: false }
    }

    /// The same, but text that stands for no string, numbers in strings and fields that come twice
    /// are faults: `from_json` reads them again, more slowly and to the letter.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self.nested = self.nested.into_iter().map(|below| below.map(Self::strict)).collect();
        self
    }

    /// Leaves the fields for which this is false NULL.
    pub fn only(&mut self, wanted: &[bool]) {
        self.wanted.copy_from_slice(wanted);
    }

    /// The fields.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Writes the fields of one object into a row that may have more than them. The error says
    /// what is wrong; what could be read is written.
    pub fn read<B: Bytes>(
        &self,
        text: &str,
        writer: &mut RowWriter<'_, B>,
    ) -> Result<(), &'static str> {
        let mut fault = None;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let object = Object::new(self, writer, &mut fault);
        match deserializer.deserialize_any(object) {
            Ok(repeated) => {
                if deserializer.end().is_err() {
                    return Err("more than one JSON value");
                }
                if repeated && self.strict {
                    return Err("a field comes twice");
                }
                if repeated {
                    return self.read_slowly(text, writer);
                }
            }
            Err(error) if error.is_data() => return Err("not a JSON object"),
            Err(_) => return Err("not JSON"),
        }
        fault.map_or(Ok(()), Err)
    }

    /// For objects that name a field twice: the last one counts.
    #[cold]
    fn read_slowly<B: Bytes>(
        &self,
        text: &str,
        writer: &mut RowWriter<'_, B>,
    ) -> Result<(), &'static str> {
        let Ok(Json::Object(object)) = serde_json::from_str(text) else { return Err("not JSON") };
        let mut fault = None;
        for (index, field) in self.fields.iter().enumerate().filter(|(i, _)| self.wanted[*i]) {
            let json = object.get(&field.name).unwrap_or(&Json::Null);
            let value = self.value(json, &field.data_type, &mut fault);
            writer.reset(index);
            writer.value(index, &value);
        }
        fault.map_or(Ok(()), Err)
    }

    /// Any JSON as a value of a type; what does not fit is NULL, and `fault` says so.
    pub fn value(
        &self,
        json: &Json,
        data_type: &DataType,
        fault: &mut Option<&'static str>,
    ) -> Value {
        let mut scalar = |text: &str| {
            let mut bytes = Vec::new();
            let mut writer = RowWriter::new(&mut bytes, 1);
            if !self.notation.put(text, data_type, &mut writer, 0) {
                *fault = Some(NOT_ITS_TYPE);
            }
            crate::table::row::Row(&bytes).value(0, 1, data_type)
        };
        match (json, data_type) {
            (Json::Null, _) => Value::Null,
            (Json::Bool(v), DataType::Boolean) => Value::Boolean(*v),
            (Json::String(v), DataType::String) => Value::String(v.clone()),
            (_, DataType::String | DataType::Map(..)) if self.strict => {
                *fault = Some(NOT_ITS_TYPE);
                Value::Null
            }
            (Json::String(_), t)
                if self.strict && (t.is_numeric() || *t == DataType::TimestampNtz) =>
            {
                *fault = Some(NOT_ITS_TYPE);
                Value::Null
            }
            // As in Spark, what is no string is given as it is written.
            (other, DataType::String) => Value::String(other.to_string()),
            (Json::Number(v), DataType::Timestamp) if v.is_i64() => {
                v.as_i64().and_then(|s| s.checked_mul(1_000_000)).map_or(Value::Null, Value::Long)
            }
            (Json::Number(v), t) if t.is_numeric() && !t.is_integral() => scalar(&v.to_string()),
            (Json::Number(v), t) if t.is_integral() && v.is_i64() => scalar(&v.to_string()),
            (Json::String(v), DataType::Float | DataType::Double)
                if v.bytes().last().is_some_and(|b| b.is_ascii_digit()) =>
            {
                *fault = Some(NOT_ITS_TYPE);
                Value::Null
            }
            (
                Json::String(v),
                DataType::Float
                | DataType::Double
                | DataType::Decimal(..)
                | DataType::Date
                | DataType::Timestamp
                | DataType::TimestampNtz,
            ) => scalar(v),
            (Json::String(v), DataType::Binary) => match base64_bytes(v) {
                Some(bytes) => Value::Binary(bytes),
                None => {
                    *fault = Some(NOT_ITS_TYPE);
                    Value::Null
                }
            },
            (Json::Array(items), DataType::Array(element)) => {
                Value::Array(items.iter().map(|item| self.value(item, element, fault)).collect())
            }
            (Json::Object(map), DataType::Struct(fields)) => {
                let field = |f: &Field| {
                    self.value(map.get(&f.name).unwrap_or(&Json::Null), &f.data_type, fault)
                };
                Value::Struct(fields.iter().map(field).collect())
            }
            (Json::Object(map), DataType::Map(key, value)) if **key == DataType::String => {
                let entries = map.iter().map(|(name, json)| {
                    (Value::String(name.clone()), self.value(json, value, fault))
                });
                Value::Map(entries.collect())
            }
            _ => {
                *fault = Some(NOT_ITS_TYPE);
                Value::Null
            }
        }
    }
}

fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

struct Object<'x, 'w, B> {
    reader: &'x ObjectReader,
    writer: &'x mut RowWriter<'w, B>,
    fault: &'x mut Option<&'static str>,
    /// Fields that have come, one bit each.
    seen: smallvec::SmallVec<[u64; 2]>,
    /// Where the next field's name is looked for first: most writers keep an order.
    next: usize,
    repeated: bool,
}

impl<'x, 'w, B> Object<'x, 'w, B> {
    fn new(
        reader: &'x ObjectReader,
        writer: &'x mut RowWriter<'w, B>,
        fault: &'x mut Option<&'static str>,
    ) -> Self {
        let seen = smallvec::smallvec![0; reader.fields.len().div_ceil(64)];
        Self { reader, writer, fault, seen, next: 0, repeated: false }
    }
}

/// Gives whether a field came twice, here or further down.
impl<'de, B: Bytes> Visitor<'de> for Object<'_, '_, B> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
        let fields = &self.reader.fields;
        while let Some(found) = map.next_key_seed(Name { fields, next: self.next })? {
            let Some(index) = found.filter(|index| self.reader.wanted[*index]) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.next = index + 1;
            let (word, bit) = (&mut self.seen[index / 64], 1u64 << (index % 64));
            self.repeated |= *word & bit != 0;
            *word |= bit;
            self.repeated |= map.next_value_seed(Slot {
                reader: self.reader,
                writer: self.writer,
                fault: self.fault,
                index,
            })?;
        }
        Ok(self.repeated)
    }
}

/// Finds a field by its name.
struct Name<'x> {
    fields: &'x [Field],
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    #[inline]
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        if self.fields.get(self.next).is_some_and(|field| field.name == name) {
            return Ok(Some(self.next));
        }
        Ok(self.fields.iter().position(|field| field.name == name))
    }
}

/// Reads one field's value into its slot. Gives whether a field in it came twice.
struct Slot<'x, 'w, B> {
    reader: &'x ObjectReader,
    writer: &'x mut RowWriter<'w, B>,
    fault: &'x mut Option<&'static str>,
    index: usize,
}

impl<B: Bytes> Slot<'_, '_, B> {
    fn data_type(&self) -> &DataType {
        &self.reader.fields[self.index].data_type
    }

    fn wrong(self) {
        *self.fault = Some(NOT_ITS_TYPE);
    }

    fn tree(self, json: &Json) {
        let reader = self.reader;
        let value = reader.value(json, &reader.fields[self.index].data_type, self.fault);
        self.writer.value(self.index, &value);
    }
}

impl<'de, B: Bytes> DeserializeSeed<'de> for Slot<'_, '_, B> {
    type Value = bool;
    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        use serde::Deserialize;
        match self.data_type() {
            // All digits count, so the text is read and not a double.
            DataType::Decimal(..) => {
                let raw = <&RawValue>::deserialize(deserializer)?.get();
                if self.reader.strict && raw.starts_with('"') {
                    self.wrong();
                    return Ok(false);
                }
                let text = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).unwrap_or(raw);
                if text == "null" {
                    return Ok(false);
                }
                match parse::decimal(text, self.data_type()) {
                    Ok(Some(value)) => self.writer.decimal(self.index, value),
                    _ => self.wrong(),
                }
                Ok(false)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de, B: Bytes> Visitor<'de> for Slot<'_, '_, B> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, v: bool) -> Result<bool, E> {
        match self.data_type() {
            DataType::Boolean => self.writer.bool(self.index, v),
            DataType::String if !self.reader.strict => {
                self.writer.bytes(self.index, if v { b"true" } else { b"false" });
            }
            _ => self.wrong(),
        }
        Ok(false)
    }

    #[inline]
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<bool, E> {
        match self.data_type() {
            DataType::Double => self.writer.double(self.index, v as f64),
            DataType::Float => self.writer.double(self.index, f64::from(v as f32)),
            DataType::Timestamp => match v.checked_mul(1_000_000) {
                Some(micros) => self.writer.long(self.index, micros),
                None => self.wrong(),
            },
            t if t.is_integral() => match integer(v, t) {
                Some(v) => self.writer.long(self.index, v),
                None => self.wrong(),
            },
            DataType::String => self.tree(&Json::from(v)),
            _ => self.wrong(),
        }
        Ok(false)
    }

    #[inline]
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<bool, E> {
        match i64::try_from(v) {
            Ok(v) => self.visit_i64(v),
            Err(_) => {
                match self.data_type() {
                    DataType::Double | DataType::Float => self.writer.double(self.index, v as f64),
                    DataType::String => self.tree(&Json::from(v)),
                    _ => self.wrong(),
                }
                Ok(false)
            }
        }
    }

    #[inline]
    fn visit_f64<E>(self, v: f64) -> Result<bool, E> {
        match self.data_type() {
            // `-0` is a whole number here, and 0.
            _ if v == 0.0 && self.reader.strict => self.wrong(),
            DataType::Double => self.writer.double(self.index, v),
            DataType::Float => self.writer.double(self.index, f64::from(v as f32)),
            DataType::String => self.tree(&Json::from(v)),
            _ => self.wrong(),
        }
        Ok(false)
    }

    #[inline]
    fn visit_str<E>(self, v: &str) -> Result<bool, E> {
        match self.data_type() {
            DataType::String => self.writer.bytes(self.index, v.as_bytes()),
            DataType::TimestampNtz if self.reader.strict => self.wrong(),
            DataType::Date | DataType::Timestamp | DataType::TimestampNtz => {
                let data_type = &self.reader.fields[self.index].data_type;
                if !self.reader.notation.put(v, data_type, self.writer, self.index) {
                    self.wrong();
                }
            }
            _ => self.tree(&Json::from(v)),
        }
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<bool, A::Error> {
        use serde::Deserialize;
        let json = Json::deserialize(serde::de::value::SeqAccessDeserializer::new(seq))?;
        self.tree(&json);
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        use serde::Deserialize;
        let Self { reader, writer, fault, index } = self;
        if let Some(nested) = &reader.nested[index] {
            let fill =
                |writer: &mut RowWriter<'_, B>| Object::new(nested, writer, fault).visit_map(map);
            return writer.nested(index, nested.fields.len(), fill);
        }
        let json = Json::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        Slot { reader, writer, fault, index }.tree(&json);
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::Row;
    use crate::table::types::Schema;
    use proptest::prelude::*;

    const DDL: &str = "a BIGINT, b STRING, c STRUCT<d: DOUBLE, a: BOOLEAN, e: STRUCT<b: STRING, t: \
                       TIMESTAMP>>, xs ARRAY<STRUCT<d: INT>>, m MAP<STRING, INT>";

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            (-1000i64..1000).prop_map(Json::from),
            (-1e6f64..1e6).prop_map(Json::from),
            "[a-z\"\\\\é0-9]{0,6}".prop_map(Json::from),
            Just(Json::from("2024-05-01 12:00:00")),
        ];
        let name = || {
            prop_oneof![
                Just("a"),
                Just("b"),
                Just("c"),
                Just("d"),
                Just("e"),
                Just("t"),
                Just("xs"),
                Just("m"),
                Just("other"),
            ]
        };
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let object = proptest::collection::vec((name(), inner.clone()), 0..7).prop_map(|fields| {
                Json::Object(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
            });
            prop_oneof![3 => object, 1 => proptest::collection::vec(inner, 0..3).prop_map(Json::Array)]
        })
    }

    proptest! {
        /// Straight from the text comes what comes of the tree.
        #[test]
        fn a_row_is_what_the_tree_says(mut fields in proptest::collection::vec(json(), 5)) {
            let schema = Schema::parse_ddl(DDL).unwrap();
            let names = schema.fields.iter().map(|field| field.name.clone());
            let object = Json::Object(names.zip(fields.drain(..)).collect());
            let reader = ObjectReader::new(schema.fields.clone(), Notation::default());
            let to = DataType::Struct(schema.fields);
            let mut fault = None;
            let expected = reader.value(&object, &to, &mut fault);
            let mut out = Vec::new();
            let read = reader.read(&object.to_string(), &mut RowWriter::new(&mut out, 5));
            prop_assert_eq!(read.err(), fault);
            let mut row = Vec::new();
            RowWriter::new(&mut row, 1).bytes(0, &out);
            prop_assert_eq!(Row(&row).value(0, 1, &to), expected);
        }
    }

    #[test]
    fn of_a_field_that_comes_twice_further_down_the_last_counts() {
        let schema = Schema::parse_ddl("s STRUCT<a: INT, b: INT>, n INT").unwrap();
        let reader = ObjectReader::new(schema.fields.clone(), Notation::default());
        let mut out = Vec::new();
        let text = r#"{"s": {"a": 1, "b": 2, "a": 3}, "n": 4}"#;
        reader.read(text, &mut RowWriter::new(&mut out, 2)).unwrap();
        let values =
            crate::table::row::decode(Row(&out), schema.fields.iter().map(|f| &f.data_type));
        let s = Value::Struct(vec![Value::Long(3), Value::Long(2)]);
        assert_eq!(values, [s, Value::Long(4)]);
    }
}
