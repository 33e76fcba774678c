//! Writes values as binary Avro.
//!
//! A SQL type and a schema are compared once. The comparison gives a tree of steps. Types must
//! match as in Spark: numbers are not converted, and struct fields are matched by name, ignoring
//! case. A field that only the schema has must accept `null`.

use super::schema::{Field, Kind, Logical, Schema, SchemaError};
use super::sql_type::UnionShape;
use crate::table::expr::cell::{Cell, elements, field};
use crate::table::types::{DataType, Field as SqlField};
use std::fmt;
use std::sync::Arc;

/// The maximum size of a `fixed` that encodes a decimal, in bytes. A DECIMAL needs at most 16
/// bytes; further bytes are padding.
const FIXED_DECIMAL_MAX: usize = 256;

/// Encodes values of a SQL type by an Avro schema.
#[derive(Debug)]
pub struct Encoder {
    step: Step,
}

#[derive(Debug)]
enum Step {
    Null,
    Boolean,
    /// An integer of any width.
    Integer,
    /// Microseconds that are encoded as milliseconds, rounded down.
    Millis,
    Float,
    Double,
    Bytes,
    Fixed(usize),
    Decimal,
    FixedDecimal(usize),
    /// The symbols, in the order of their indices.
    Enum(Vec<String>),
    Array {
        element: Box<Step>,
        data_type: DataType,
    },
    Map {
        value: Box<Step>,
        key_type: DataType,
        value_type: DataType,
    },
    /// The fields of the schema, each with the step that encodes it. The index and type are those
    /// of the SQL field; `None` if the SQL type has no such field.
    Record {
        width: usize,
        fields: Vec<(Option<(usize, DataType)>, Step)>,
    },
    /// The index of a union's branch, and the index of its `null` branch for NULL.
    Branch {
        null: Option<i64>,
        branch: i64,
        value: Box<Step>,
    },
    /// A union that is a struct in SQL: one member per branch other than `null`. The first member
    /// that is not NULL is encoded.
    Members {
        null: Option<i64>,
        members: Vec<(i64, DataType, Step)>,
    },
}

impl Encoder {
    /// Compares a SQL type with a schema. The error names a part that does not match.
    pub fn new(data_type: &DataType, schema: &Arc<Schema>) -> Result<Self, SchemaError> {
        Ok(Self { step: step(data_type, schema)? })
    }

    /// Appends the binary form of a value. The error tells why the schema does not allow the value.
    /// On error, `out` may end with a partial value, which the caller must discard.
    pub fn encode(&self, value: Cell<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.step.write(value, out)
    }
}

/// Why a value cannot be encoded by a schema.
#[derive(Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The value or a part of it is NULL where the schema does not accept `null`.
    Null,
    /// The schema does not allow the value or a part of it, for the given reason.
    Unfit(String),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("a NULL in a type that does not accept null"),
            Self::Unfit(reason) => f.write_str(reason),
        }
    }
}

/// Appends a zigzag variable-length integer.
#[inline]
pub(super) fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a length and the bytes.
#[inline]
pub(super) fn write_prefixed(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

fn unfit<T>(data_type: &DataType, schema: &Schema) -> Result<T, SchemaError> {
    Err(SchemaError(format!("{data_type} cannot be written as `{}`", schema.word())))
}

fn step(data_type: &DataType, schema: &Arc<Schema>) -> Result<Step, SchemaError> {
    use DataType as T;
    if let Kind::Union(branches) = &schema.kind {
        return union_step(data_type, schema, branches);
    }
    let decimal = match data_type {
        T::Decimal(precision, scale) => Some(Logical::Decimal(*precision, *scale)),
        _ => None,
    };
    Ok(match (data_type, &schema.kind) {
        (T::Null, Kind::Null) => Step::Null,
        (T::Boolean, Kind::Boolean) => Step::Boolean,
        (T::Byte | T::Short | T::Int | T::Date | T::YearMonthInterval(..), Kind::Int)
        | (T::Long | T::DayTimeInterval(..), Kind::Long) => Step::Integer,
        (T::Timestamp | T::TimestampNtz, Kind::Long) => match schema.logical {
            // Spark writes timestamps as milliseconds if the schema has no logical type.
            None | Some(Logical::TimestampMillis | Logical::LocalTimestampMillis) => Step::Millis,
            _ => Step::Integer,
        },
        (T::Float, Kind::Float) => Step::Float,
        (T::Double, Kind::Double) => Step::Double,
        (T::Decimal(..), Kind::Bytes) if schema.logical == decimal => Step::Decimal,
        (T::Decimal(..), Kind::Fixed { size, .. })
            if schema.logical == decimal && *size <= FIXED_DECIMAL_MAX =>
        {
            Step::FixedDecimal(*size)
        }
        (T::String, Kind::String) | (T::Binary, Kind::Bytes) => Step::Bytes,
        (T::String, Kind::Enum { symbols, .. }) => Step::Enum(symbols.clone()),
        (T::Binary, Kind::Fixed { size, .. }) => Step::Fixed(*size),
        (T::Array(element), Kind::Array(items)) => {
            Step::Array { element: Box::new(step(element, items)?), data_type: (**element).clone() }
        }
        (T::Map(key, value), Kind::Map(values)) if **key == T::String => Step::Map {
            value: Box::new(step(value, values)?),
            key_type: (**key).clone(),
            value_type: (**value).clone(),
        },
        (T::Struct(given), Kind::Record { fields, .. }) => record_step(given, fields, schema)?,
        _ => return unfit(data_type, schema),
    })
}

fn union_step(
    data_type: &DataType,
    schema: &Schema,
    branches: &[Arc<Schema>],
) -> Result<Step, SchemaError> {
    let index = |found: &Arc<Schema>| branches.iter().position(|branch| branch == found);
    let null = branches.iter().position(|branch| branch.kind == Kind::Null).map(|at| at as i64);
    let values = schema.value_branches().unwrap_or_default();
    if let DataType::Struct(fields) = data_type
        && UnionShape::of(&values) == UnionShape::Members
        && fields.len() == values.len()
        && fields.iter().enumerate().all(|(at, field)| field.name == format!("member{at}"))
    {
        let member = |(field, branch): (&SqlField, &&Arc<Schema>)| {
            let at = index(branch).unwrap_or_default() as i64;
            Ok((at, field.data_type.clone(), step(&field.data_type, branch)?))
        };
        let members = fields.iter().zip(&values).map(member).collect::<Result<_, _>>()?;
        return Ok(Step::Members { null, members });
    }
    if *data_type == DataType::Null && null.is_some() {
        return Ok(Step::Branch { null, branch: 0, value: Box::new(Step::Null) });
    }
    let found = values.iter().find_map(|branch| {
        let value = Box::new(step(data_type, branch).ok()?);
        Some(Step::Branch { null, branch: index(branch)? as i64, value })
    });
    match (found, values.as_slice()) {
        (Some(found), _) => Ok(found),
        // With a single branch, the error of that branch is the more precise one.
        (None, [only]) => step(data_type, only),
        (None, _) => unfit(data_type, schema),
    }
}

fn record_step(given: &[SqlField], fields: &[Field], schema: &Schema) -> Result<Step, SchemaError> {
    let by_name = |name: &str| given.iter().position(|f| f.name.eq_ignore_ascii_case(name));
    let extra = given
        .iter()
        .find(|have| !fields.iter().any(|field| field.name.eq_ignore_ascii_case(&have.name)));
    if let Some(extra) = extra {
        return Err(SchemaError(format!(
            "the record `{}` has no field `{}`",
            schema.word(),
            extra.name
        )));
    }
    let written = |field: &Field| match by_name(&field.name) {
        Some(index) => {
            let data_type = given[index].data_type.clone();
            let value = step(&data_type, &field.schema).map_err(|SchemaError(why)| {
                SchemaError(format!("field `{}`: {why}", field.name))
            })?;
            Ok((Some((index, data_type)), value))
        }
        None => match step(&DataType::Null, &field.schema) {
            Ok(null) => Ok((None, null)),
            Err(_) => Err(SchemaError(format!(
                "the field `{}` of `{}` has no value, and does not accept null",
                field.name,
                schema.word()
            ))),
        },
    };
    let fields = fields.iter().map(written).collect::<Result<_, _>>()?;
    Ok(Step::Record { width: given.len(), fields })
}

impl Step {
    fn write(&self, value: Cell<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Branch { null, branch, value: inner } => {
                return match (value.is_null(), null) {
                    (false, _) => {
                        write_long(*branch, out);
                        inner.write(value, out)
                    }
                    (true, Some(null)) => {
                        write_long(*null, out);
                        Ok(())
                    }
                    (true, None) => Err(EncodeError::Null),
                };
            }
            Self::Members { null, members } => return write_member(value, *null, members, out),
            Self::Null if value.is_null() => return Ok(()),
            _ if value.is_null() => return Err(EncodeError::Null),
            Self::Null => return unwritable("a value in a field that is always null".to_string()),
            Self::Boolean => out.push(u8::from(value.bool())),
            Self::Integer => write_long(value.long(), out),
            Self::Millis => write_long(value.long().div_euclid(1000), out),
            Self::Float => out.extend_from_slice(&(value.double() as f32).to_le_bytes()),
            Self::Double => out.extend_from_slice(&value.double().to_le_bytes()),
            Self::Bytes => write_prefixed(value.bytes(), out),
            Self::Fixed(size) if value.bytes().len() == *size => {
                out.extend_from_slice(value.bytes());
            }
            Self::Fixed(size) => {
                return unwritable(format!("{} bytes for a fixed of {size}", value.bytes().len()));
            }
            Self::Decimal => {
                let bytes = value.decimal().to_be_bytes();
                write_prefixed(shortest(&bytes), out);
            }
            Self::FixedDecimal(size) => write_fixed_decimal(value.decimal(), *size, out)?,
            Self::Enum(symbols) => {
                match symbols.iter().position(|symbol| symbol.as_bytes() == value.bytes()) {
                    Some(index) => write_long(index as i64, out),
                    None => {
                        return unwritable(format!("`{}` is no symbol of the enum", value.text()));
                    }
                }
            }
            Self::Array { element, data_type } => {
                let values = elements(value.array(), data_type);
                write_count(values.len(), out);
                for value in values {
                    element.write(value, out)?;
                }
                out.push(0); // a block without elements ends the array
            }
            Self::Map { value: inner, key_type, value_type } => {
                let Some(map) = value.map() else { return Err(EncodeError::Null) };
                write_count(map.len, out);
                let keys = elements(map.keys, key_type);
                for (key, value) in keys.zip(elements(map.values, value_type)) {
                    write_prefixed(key.bytes(), out);
                    inner.write(value, out)?;
                }
                out.push(0);
            }
            Self::Record { width, fields } => {
                for (source, step) in fields {
                    match source {
                        Some((index, data_type)) => {
                            let value = field(value.bytes(), *index, *width, data_type);
                            step.write(value, out)?;
                        }
                        None => step.write(Cell::Null, out)?,
                    }
                }
            }
        }
        Ok(())
    }
}

fn unwritable(reason: String) -> Result<(), EncodeError> {
    Err(EncodeError::Unfit(reason))
}

/// Writes the element count that starts a block. An empty block is not written: a count of 0 ends
/// the array or map.
fn write_count(count: usize, out: &mut Vec<u8>) {
    if count > 0 {
        write_long(count as i64, out);
    }
}

fn write_member(
    value: Cell<'_>,
    null: Option<i64>,
    members: &[(i64, DataType, Step)],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if !value.is_null() {
        for (at, (branch, data_type, step)) in members.iter().enumerate() {
            let member = field(value.bytes(), at, members.len(), data_type);
            if !member.is_null() {
                write_long(*branch, out);
                return step.write(member, out);
            }
        }
    }
    match null {
        Some(null) => {
            write_long(null, out);
            Ok(())
        }
        None => Err(EncodeError::Null),
    }
}

/// The shortest big-endian two's complement form of a number: without redundant leading sign bytes.
fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let repeats = |at: &usize| {
        let sign = if bytes[at + 1] >= 0x80 { 0xFF } else { 0 };
        bytes[*at] == sign
    };
    let from = (0..15).take_while(repeats).count();
    &bytes[from..]
}

fn write_fixed_decimal(value: i128, size: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let bytes = value.to_be_bytes();
    let short = shortest(&bytes);
    if short.len() > size {
        return unwritable(format!("a decimal of {} bytes for a fixed of {size}", short.len()));
    }
    let fill = if value < 0 { 0xFF } else { 0 };
    out.resize(out.len() + size - short.len(), fill);
    out.extend_from_slice(short);
    Ok(())
}
