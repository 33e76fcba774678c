//! JSON objects into rows, in one pass over the text.
//!
//! Numbers, strings and booleans at the top go straight into their slots, fields that the schema
//! does not name are skipped, and nothing is allocated for either; arrays and structs go through a
//! tree of their own. A field that is not of its type is NULL, and the rest of the object is read
//! all the same.

use crate::table::expr::cast::parse_decimal;
use crate::table::row::{Bytes, RowWriter};
use crate::table::text::{Notation, integer};
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::fmt;

const NOT_ITS_TYPE: &str = "a field is not of its type";

/// Reads objects of one schema.
#[derive(Clone, Debug)]
pub struct ObjectReader {
    fields: Vec<Field>,
    /// Whether anything reads the field.
    wanted: Vec<bool>,
    notation: Notation,
}

impl ObjectReader {
    /// A reader of objects with these fields.
    pub fn new(fields: Vec<Field>, notation: Notation) -> Self {
        let wanted = vec![true; fields.len()];
        Self { fields, wanted, notation }
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
        let seen = smallvec::smallvec![0; self.fields.len().div_ceil(64)];
        let object =
            Object { reader: self, writer, fault: &mut fault, seen, next: 0, repeated: false };
        match deserializer.deserialize_any(object) {
            Ok(repeated) => {
                if deserializer.end().is_err() {
                    return Err("more than one JSON value");
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
            map.next_value_seed(Slot {
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

/// Reads one field's value into its slot.
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
    type Value = ();
    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        use serde::Deserialize;
        match self.data_type() {
            // All digits count, so the text is read and not a double.
            DataType::Decimal(..) => {
                let raw = <&RawValue>::deserialize(deserializer)?.get();
                let text = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).unwrap_or(raw);
                if text == "null" {
                    return Ok(());
                }
                match parse_decimal(text, self.data_type()) {
                    Ok(Some(value)) => self.writer.decimal(self.index, value),
                    _ => self.wrong(),
                }
                Ok(())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de, B: Bytes> Visitor<'de> for Slot<'_, '_, B> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        match self.data_type() {
            DataType::Boolean => self.writer.bool(self.index, v),
            DataType::String => {
                self.writer.bytes(self.index, if v { b"true" } else { b"false" });
            }
            _ => self.wrong(),
        }
        Ok(())
    }

    #[inline]
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<(), E> {
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
        Ok(())
    }

    #[inline]
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<(), E> {
        match i64::try_from(v) {
            Ok(v) => self.visit_i64(v),
            Err(_) => {
                match self.data_type() {
                    DataType::Double | DataType::Float => self.writer.double(self.index, v as f64),
                    DataType::String => self.tree(&Json::from(v)),
                    _ => self.wrong(),
                }
                Ok(())
            }
        }
    }

    #[inline]
    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        match self.data_type() {
            DataType::Double => self.writer.double(self.index, v),
            DataType::Float => self.writer.double(self.index, f64::from(v as f32)),
            DataType::String => self.tree(&Json::from(v)),
            _ => self.wrong(),
        }
        Ok(())
    }

    #[inline]
    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        match self.data_type() {
            DataType::String => self.writer.bytes(self.index, v.as_bytes()),
            DataType::Date | DataType::Timestamp | DataType::TimestampNtz => {
                let data_type = &self.reader.fields[self.index].data_type;
                if !self.reader.notation.put(v, data_type, self.writer, self.index) {
                    self.wrong();
                }
            }
            _ => self.tree(&Json::from(v)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        use serde::Deserialize;
        let json = Json::deserialize(serde::de::value::SeqAccessDeserializer::new(seq))?;
        self.tree(&json);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        use serde::Deserialize;
        let json = Json::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        self.tree(&json);
        Ok(())
    }
}
