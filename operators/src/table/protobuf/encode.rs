//! Writes rows as Protobuf messages.
//!
//! A SQL type and a message type are compared once. The comparison gives a tree of steps. Types must
//! match as in Spark: numbers are not converted, and fields are matched by name, ignoring case.

use super::descriptor::SchemaError;
use super::shape::{is_wrapper, seconds_type};
use super::wire::{
    FIXED32, FIXED64, GROUP, GROUP_END, LENGTH, VARINT, write_prefixed, write_varint, zigzag32,
    zigzag64,
};
use crate::table::expr::cell::{Cell, elements, field};
use crate::table::types::{DataType, Field as SqlField};
use prost_reflect::{Cardinality, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use std::collections::HashMap;
use std::fmt;

use DataType as T;

/// Encodes values of one SQL type as messages of one Protobuf type.
#[derive(Debug)]
pub struct Encoder {
    message: Message,
}

#[derive(Debug)]
struct Message {
    /// The number of fields of the struct.
    width: usize,
    fields: Vec<Field>,
}

/// A field of the message, and the field of the struct that it is written from.
#[derive(Debug)]
struct Field {
    name: String,
    index: usize,
    data_type: DataType,
    number: u32,
    step: Step,
    repetition: Repetition,
    /// Whether a value that equals the type's default is left out.
    omits_default: bool,
    /// Whether NULL is written as the type's default.
    is_required: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Repetition {
    Single,
    Repeated,
    Packed,
}

#[derive(Debug)]
enum Step {
    /// NULL in a field that is not required: nothing is written.
    Null,
    Bool,
    /// A signed integer as a variable-length integer.
    Int,
    /// The same, of which 32 bits are written.
    UInt32,
    /// A DECIMAL(20,0).
    UInt64,
    SInt32,
    SInt64,
    Fixed32,
    Fixed64,
    Float,
    Double,
    Bytes,
    /// The number of a symbol.
    Number {
        /// The number of the first symbol.
        first: i32,
    },
    Symbol {
        numbers: HashMap<String, i32>,
        /// The number of the first symbol.
        first: i32,
    },
    Message(Box<Message>),
    Group(Box<Message>),
    /// A wrapper message around a value.
    Wrapper(Box<Field>),
    /// Microseconds as seconds and nanoseconds, which have the given numbers.
    Seconds {
        numbers: [u32; 2],
        /// Whether the nanoseconds are never negative.
        is_timestamp: bool,
    },
    Map {
        key: Box<Field>,
        value: Box<Field>,
    },
}

/// Why a value cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub struct EncodeError {
    /// The error condition.
    pub condition: &'static str,
    /// The reason, with the name of the field.
    pub reason: String,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Encoder {
    /// Compares a struct with a message type. The error names a part that does not match.
    pub fn new(fields: &[SqlField], message: &MessageDescriptor) -> Result<Self, SchemaError> {
        Ok(Self { message: message_step(fields, message)? })
    }

    /// Appends a message. On error, `out` may end with a part of it, which the caller must discard.
    pub fn encode(&self, value: Cell<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.message.write(value, out)
    }
}

fn message_step(given: &[SqlField], message: &MessageDescriptor) -> Result<Message, SchemaError> {
    let mut fields = Vec::with_capacity(given.len());
    for (index, have) in given.iter().enumerate() {
        let same_letters = || {
            let mut found = message.fields().filter(|f| f.name().eq_ignore_ascii_case(&have.name));
            found.next().filter(|_| found.next().is_none())
        };
        let Some(found) = message.get_field_by_name(&have.name).or_else(same_letters) else {
            return Err(SchemaError::new(
                "NO_SQL_TYPE_IN_PROTOBUF_SCHEMA",
                format!("the message type `{}` has no field `{}`", message.full_name(), have.name),
            ));
        };
        fields.push(field_step(index, &have.data_type, &found)?);
    }
    let mut required = message.fields().filter(FieldDescriptor::is_required);
    if let Some(missing) = required.find(|r| !fields.iter().any(|f: &Field| f.number == r.number()))
    {
        return Err(SchemaError::new(
            "PROTOBUF_FIELD_MISSING_IN_SQL_SCHEMA",
            format!("the field `{}` is required and has no value", missing.full_name()),
        ));
    }
    Ok(Message { width: given.len(), fields })
}

fn field_step(
    index: usize,
    data_type: &DataType,
    found: &FieldDescriptor,
) -> Result<Field, SchemaError> {
    let is_repeated = found.cardinality() == Cardinality::Repeated && !found.is_map();
    let (element, repetition) = match (data_type, is_repeated) {
        (T::Array(element), true) if found.is_packed() => (&**element, Repetition::Packed),
        (T::Array(element), true) => (&**element, Repetition::Repeated),
        (T::Null, _) => (data_type, Repetition::Single),
        (_, true) => return Err(unfit(data_type, found)),
        (_, false) => (data_type, Repetition::Single),
    };
    Ok(Field {
        name: found.name().to_string(),
        index,
        data_type: data_type.clone(),
        number: found.number(),
        step: step(element, found)?,
        omits_default: !found.supports_presence() && repetition == Repetition::Single,
        repetition,
        is_required: found.is_required(),
    })
}

fn unfit(data_type: &DataType, found: &FieldDescriptor) -> SchemaError {
    SchemaError::new(
        "CANNOT_CONVERT_SQL_TYPE_TO_PROTOBUF_FIELD_TYPE",
        format!("{data_type} cannot be written to the field `{}`", found.full_name()),
    )
}

fn step(data_type: &DataType, found: &FieldDescriptor) -> Result<Step, SchemaError> {
    let is_small =
        matches!(data_type, T::Byte | T::Short | T::Int | T::Date | T::YearMonthInterval(..));
    let is_large = matches!(data_type, T::Long | T::DayTimeInterval(..));
    Ok(match (data_type, found.kind()) {
        (T::Null, kind) if found.is_required() => match default_step(&kind) {
            Some(step) => step,
            None => return Err(unfit(data_type, found)),
        },
        (T::Null, _) => Step::Null,
        (T::Boolean, Kind::Bool) => Step::Bool,
        (_, Kind::Int32) if is_small => Step::Int,
        (_, Kind::Uint32) if is_small || *data_type == T::Long => Step::UInt32,
        (_, Kind::Sint32) if is_small => Step::SInt32,
        (_, Kind::Fixed32 | Kind::Sfixed32) if is_small => Step::Fixed32,
        (_, Kind::Int64 | Kind::Uint64) if is_large => Step::Int,
        (T::Decimal(20, 0), Kind::Uint64) => Step::UInt64,
        (_, Kind::Sint64) if is_large => Step::SInt64,
        (_, Kind::Fixed64 | Kind::Sfixed64) if is_large => Step::Fixed64,
        (T::Float, Kind::Float) => Step::Float,
        (T::Double, Kind::Double) => Step::Double,
        (T::String, Kind::String) | (T::Binary, Kind::Bytes) => Step::Bytes,
        (T::Int, Kind::Enum(symbols)) => Step::Number { first: symbols.default_value().number() },
        (T::String, Kind::Enum(symbols)) => {
            let named = |symbol: EnumValueDescriptor| (symbol.name().to_string(), symbol.number());
            let numbers = symbols.values().map(named).collect();
            Step::Symbol { numbers, first: symbols.default_value().number() }
        }
        (T::Map(key, value), Kind::Message(entry)) if found.is_map() => Step::Map {
            key: Box::new(field_step(0, key, &entry.map_entry_key_field())?),
            value: Box::new(field_step(1, value, &entry.map_entry_value_field())?),
        },
        (_, Kind::Message(_)) if found.is_map() => return Err(unfit(data_type, found)),
        (T::Struct(fields), Kind::Message(message)) => {
            let step = Box::new(message_step(fields, &message)?);
            if found.is_group() { Step::Group(step) } else { Step::Message(step) }
        }
        (_, Kind::Message(message)) => match seconds_type(&message) {
            Some(own) if own == *data_type || is_duration(&own) && is_duration(data_type) => {
                let number = |at: usize| message.descriptor_proto().field[at].number() as u32;
                let is_timestamp = own == T::Timestamp;
                Step::Seconds { numbers: [number(0), number(1)], is_timestamp }
            }
            None if is_wrapper(&message) => {
                let Some(inner) = message.fields().next() else {
                    return Err(unfit(data_type, found));
                };
                Step::Wrapper(Box::new(field_step(0, data_type, &inner)?))
            }
            _ => return Err(unfit(data_type, found)),
        },
        _ => return Err(unfit(data_type, found)),
    })
}

/// The step of a required field that is always NULL: it writes the default of the field's type.
/// `None` for a message, which has no default.
fn default_step(kind: &Kind) -> Option<Step> {
    Some(match kind {
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Step::Fixed32,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Step::Fixed64,
        Kind::String | Kind::Bytes => Step::Bytes,
        Kind::Enum(symbols) => Step::Number { first: symbols.default_value().number() },
        Kind::Message(_) => return None,
        _ => Step::Int,
    })
}

impl Step {
    fn wire(&self) -> u8 {
        match self {
            Self::Fixed32 | Self::Float => FIXED32,
            Self::Fixed64 | Self::Double => FIXED64,
            Self::Group(_) => GROUP,
            Self::Null
            | Self::Bytes
            | Self::Message(_)
            | Self::Wrapper(_)
            | Self::Seconds { .. }
            | Self::Map { .. } => LENGTH,
            _ => VARINT,
        }
    }
}

impl Message {
    fn write(&self, value: Cell<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        for part in &self.fields {
            part.write(field(value.bytes(), part.index, self.width, &part.data_type), out)?;
        }
        Ok(())
    }
}

impl Field {
    #[cold]
    fn refused<T>(&self, problem: &str) -> Result<T, EncodeError> {
        Err(EncodeError {
            condition: "PROTOBUF_INCOMPATIBLE_WRITE",
            reason: format!("the field `{}` {problem}", self.name),
        })
    }

    fn tag(&self, wire: u8, out: &mut Vec<u8>) {
        write_varint(u64::from(self.number) << 3 | u64::from(wire), out);
    }

    /// Writes the field, unless its value is one that is left out.
    fn write(&self, value: Cell<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if value.is_null() {
            return self.write_null(out);
        }
        if let Step::Map { key, value: inner } = &self.step {
            return self.write_map(key, inner, value, out);
        }
        let element_type = match &self.data_type {
            T::Array(element) if self.repetition != Repetition::Single => element,
            _ => {
                if self.omits_default && self.is_default(value) {
                    return Ok(());
                }
                self.tag(self.step.wire(), out);
                return self.write_value(value, out);
            }
        };
        let values = elements(value.array(), element_type);
        if self.repetition == Repetition::Packed {
            if values.len() == 0 {
                return Ok(());
            }
            self.tag(LENGTH, out);
            return write_prefixed(out, |out| {
                values.into_iter().try_for_each(|value| self.write_value(value, out))
            });
        }
        for value in values {
            self.tag(self.step.wire(), out);
            self.write_value(value, out)?;
        }
        Ok(())
    }

    /// NULL is left out. In a required field it is the default, as in Spark.
    fn write_null(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !self.is_required {
            return Ok(());
        }
        self.tag(self.step.wire(), out);
        match &self.step {
            Step::Symbol { first, .. } | Step::Number { first } => {
                write_varint(i64::from(*first) as u64, out);
            }
            Step::Fixed32 | Step::Float => out.extend_from_slice(&[0; 4]),
            Step::Fixed64 | Step::Double => out.extend_from_slice(&[0; 8]),
            Step::Message(_) | Step::Group(_) | Step::Wrapper(_) | Step::Seconds { .. } => {
                return self.refused("is required and NULL");
            }
            _ => out.push(0),
        }
        Ok(())
    }

    fn write_map(
        &self,
        key: &Field,
        inner: &Field,
        value: Cell<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let Some(map) = value.map() else { return Ok(()) };
        let keys = elements(map.keys, &key.data_type);
        for (key_value, value) in keys.zip(elements(map.values, &inner.data_type)) {
            self.tag(LENGTH, out);
            write_prefixed(out, |out| {
                key.write(key_value, out)?;
                inner.write(value, out)
            })?;
        }
        Ok(())
    }

    fn is_default(&self, value: Cell<'_>) -> bool {
        match (&self.step, value) {
            (Step::Symbol { numbers, first }, text) => numbers.get(text.text()) == Some(first),
            (_, Cell::Bool(value)) => !value,
            (_, Cell::Long(value)) => value == 0,
            (_, Cell::Double(value)) => value.to_bits() == 0,
            (_, Cell::Decimal(value)) => value == 0,
            (_, Cell::Bytes(bytes)) => bytes.is_empty(),
            (_, Cell::Null) => true,
        }
    }

    /// Writes a value without its tag.
    fn write_value(&self, value: Cell<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if value.is_null() {
            return self.refused("has a NULL among its elements");
        }
        let long = value.long();
        match &self.step {
            Step::Null | Step::Map { .. } => {}
            Step::Bool => out.push(u8::from(value.bool())),
            Step::Int | Step::Number { .. } => write_varint(long as u64, out),
            Step::UInt32 => write_varint(u64::from(long as u32), out),
            Step::UInt64 => match u64::try_from(value.decimal()) {
                Ok(value) => write_varint(value, out),
                Err(_) => return self.refused("is no unsigned number of 64 bits"),
            },
            Step::SInt32 => write_varint(zigzag32(long as i32), out),
            Step::SInt64 => write_varint(zigzag64(long), out),
            Step::Fixed32 => out.extend_from_slice(&(long as i32).to_le_bytes()),
            Step::Fixed64 => out.extend_from_slice(&long.to_le_bytes()),
            Step::Float => out.extend_from_slice(&(value.double() as f32).to_le_bytes()),
            Step::Double => out.extend_from_slice(&value.double().to_le_bytes()),
            Step::Bytes => {
                write_varint(value.bytes().len() as u64, out);
                out.extend_from_slice(value.bytes());
            }
            Step::Symbol { numbers, .. } => match numbers.get(value.text()) {
                Some(number) => write_varint(i64::from(*number) as u64, out),
                None => {
                    let text = value.text();
                    return Err(EncodeError {
                        condition: "CANNOT_CONVERT_SQL_VALUE_TO_PROTOBUF_ENUM_TYPE",
                        reason: format!("`{text}` is no symbol of the field `{}`", self.name),
                    });
                }
            },
            Step::Message(message) => return write_prefixed(out, |out| message.write(value, out)),
            Step::Group(message) => {
                message.write(value, out)?;
                self.tag(GROUP_END, out);
            }
            Step::Wrapper(inner) => return write_prefixed(out, |out| inner.write(value, out)),
            Step::Seconds { numbers, is_timestamp } => {
                return write_prefixed(out, |out| {
                    write_seconds(long, *numbers, *is_timestamp, out);
                    Ok(())
                });
            }
        }
        Ok(())
    }
}

fn write_seconds(micros: i64, numbers: [u32; 2], is_timestamp: bool, out: &mut Vec<u8>) {
    const SECOND: i64 = 1_000_000;
    let (seconds, rest) = match is_timestamp {
        true => (micros.div_euclid(SECOND), micros.rem_euclid(SECOND)),
        // Both have the same sign.
        false => (micros / SECOND, micros % SECOND),
    };
    for (number, value) in numbers.into_iter().zip([seconds, rest * 1000]) {
        if value != 0 {
            write_varint(u64::from(number) << 3, out);
            write_varint(value as u64, out);
        }
    }
}

fn is_duration(data_type: &DataType) -> bool {
    matches!(data_type, T::DayTimeInterval(..))
}
