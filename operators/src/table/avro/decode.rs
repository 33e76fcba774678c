//! Reads binary Avro into rows.
//!
//! The writer's schema and the reader's schema are compared once. The comparison gives a tree of
//! steps. A step reads one value and sets one field of a row. An array or a map is scanned once to
//! count its elements, because the row format stores the number before the elements.
//!
//! The data is untrusted. Every length is checked against the number of remaining bytes, and the
//! number of fields of one value is bounded. The recursion depth is bounded by the depth of the
//! schema.

use super::default_value;
use super::schema::{Field, Kind, Logical, Schema, SchemaError};
use super::sql_type::{UnionShape, sql_type};
use crate::table::expr::cell::Cell;
use crate::table::row::{Bytes, Row, RowWriter, Slot};
use crate::table::types::Physical;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;
use smallvec::SmallVec;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// The maximum number of fields and elements of one decoded value, fields of nested values
/// included: 128 MiB of slots. Without a limit, a few bytes could encode any number of values whose
/// binary form is empty.
const SLOTS_MAX: usize = 1 << 24;

/// The maximum number of steps that comparing a pair of schemas may produce.
const STEPS_MAX: usize = 1_000_000;

/// A decoding error: the bytes are not a valid value of the writer's schema, or the reader's schema
/// or the limit of slots does not allow the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The byte at which reading stopped.
    pub offset: usize,
    /// The problem at that byte.
    pub reason: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.reason)
    }
}

/// Decodes values that were written with one schema to rows of another schema.
#[derive(Debug)]
pub struct Decoder {
    step: Step,
    physical: Physical,
}

impl Decoder {
    /// Compares the writer's schema with the reader's. Fails if they do not match, if they are too
    /// large, or if the reader's has no SQL type. Of the branches of a writer's
    /// union, one must be readable.
    pub fn new(writer: &Arc<Schema>, reader: &Arc<Schema>) -> Result<Self, SchemaError> {
        let physical = sql_type(reader)?.data_type.physical();
        let step = Compiler { steps_left: STEPS_MAX }.step(writer, reader)?;
        Ok(Self { step, physical })
    }

    /// Adds NULL fields to the end of the decoded struct. Does nothing for a value that is not a
    /// struct.
    pub fn with_extra_fields(mut self, count: usize) -> Self {
        self.step.widen(count);
        self
    }

    /// Decodes one value. Bytes after the value are ignored.
    pub fn decode<'a>(&self, bytes: &[u8], arena: &'a Bump) -> Result<Cell<'a>, DecodeError> {
        let mut out = BumpVec::with_capacity_in(2 * bytes.len() + 64, arena);
        let mut writer = RowWriter::new(&mut out, 1);
        self.step.read(&mut Input::new(bytes), &mut writer, 0)?;
        Ok(Cell::of(Row(out.into_bump_slice()), Slot::new(0, 1), self.physical))
    }
}

/// The bytes of a value, the read position, and the remaining slot budget.
pub(super) struct Input<'d> {
    bytes: &'d [u8],
    at: usize,
    slots_left: usize,
}

impl<'d> Input<'d> {
    pub fn new(bytes: &'d [u8]) -> Self {
        Self { bytes, at: 0, slots_left: SLOTS_MAX }
    }

    fn failed<T>(&self, reason: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError { offset: self.at, reason })
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'d [u8], DecodeError> {
        match self.bytes[self.at..].get(..count) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => self.failed("the data ends within a value"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// Reads an unsigned variable-length integer of at most `bytes_max` bytes. The zigzag encoding
    /// is left to the caller.
    #[inline]
    fn varint(&mut self, bytes_max: usize) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (index, byte) in self.bytes[self.at..].iter().take(bytes_max).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        if self.bytes.len() - self.at < bytes_max {
            self.failed("the data ends within an integer")
        } else {
            self.failed("an integer has too many bytes")
        }
    }

    #[inline]
    fn long(&mut self) -> Result<i64, DecodeError> {
        let value = self.varint(10)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    #[inline]
    fn int(&mut self) -> Result<i32, DecodeError> {
        let value = self.varint(5)? as u32;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    #[inline]
    fn prefixed(&mut self) -> Result<&'d [u8], DecodeError> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => self.failed("a length is negative"),
        }
    }

    fn charge(&mut self, slots: usize) -> Result<(), DecodeError> {
        match self.slots_left.checked_sub(slots) {
            Some(left) => {
                self.slots_left = left;
                Ok(())
            }
            None => self.failed("the value has too many fields"),
        }
    }

    /// Reads all blocks of an array or a map. Calls `each` for every element or entry, with its
    /// index, and returns the number of calls.
    fn blocks(
        &mut self,
        is_empty_on_wire: bool,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), DecodeError>,
    ) -> Result<usize, DecodeError> {
        let mut total = 0;
        loop {
            let stated = self.long()?;
            if stated == 0 {
                return Ok(total);
            }
            if stated < 0 {
                self.long()?; // the block's length in bytes, for readers that skip it
            }
            let count = stated.unsigned_abs() as usize;
            if is_empty_on_wire {
                self.charge(count)?;
            } else if count > self.bytes.len() - self.at {
                return self.failed("a block has more elements than bytes are left");
            }
            for _ in 0..count {
                each(self, total)?;
                total += 1;
            }
        }
    }

    /// Counts the elements of the array or map at the current position, without advancing.
    fn count(&self, step: &Elements) -> Result<usize, DecodeError> {
        let mut ahead = Input { bytes: self.bytes, at: self.at, slots_left: self.slots_left };
        ahead.blocks(step.is_empty_on_wire, |input, _| {
            if step.has_keys {
                input.prefixed()?;
            }
            step.value.skip(input)
        })
    }
}

/// The target of an integer: the type or unit to which it is converted.
#[derive(Clone, Copy, Debug)]
enum IntegerTo {
    Long,
    /// Converts milliseconds to microseconds.
    Micros,
    Float,
    Double,
}

impl IntegerTo {
    fn write<B: Bytes>(
        self,
        value: i64,
        writer: &mut RowWriter<'_, B>,
        index: usize,
        input: &Input<'_>,
    ) -> Result<(), DecodeError> {
        match self {
            Self::Long => writer.long(index, value),
            Self::Micros => match value.checked_mul(1000) {
                Some(micros) => writer.long(index, micros),
                None => return input.failed("a time in milliseconds is out of range"),
            },
            Self::Float => writer.double(index, f64::from(value as f32)),
            Self::Double => writer.double(index, value as f64),
        }
        Ok(())
    }
}

/// Reads one value and sets one field of a row. For a NULL the field is not written, because fields
/// of a new row are NULL.
#[derive(Debug)]
enum Step {
    Null,
    Boolean,
    Int(IntegerTo),
    Long(IntegerTo),
    Float,
    Double,
    Bytes,
    Decimal {
        precision: u8,
    },
    Fixed(usize),
    FixedDecimal {
        size: usize,
        precision: u8,
    },
    /// The symbol of each index of the writer; `None` if the reader's enum has
    /// neither the symbol nor a default.
    Enum(Vec<Option<Box<[u8]>>>),
    Array(Box<Elements>),
    Map(Box<Elements>),
    Record(Box<Record>),
    /// One step for each branch of the writer's union.
    Union(Vec<Step>),
    /// A branch of the reader's union. In SQL the union is a struct, and the value becomes its
    /// member at `index`.
    Member {
        index: usize,
        width: usize,
        value: Box<Step>,
    },
    /// A branch of the writer's union that the reader cannot read. A value of the branch is an
    /// error where it is read; `skip` skips such a value in data that the reader ignores.
    Unreadable {
        skip: Box<Step>,
    },
}

/// How to read the elements of an array, or the values of a map.
#[derive(Debug)]
struct Elements {
    value: Step,
    has_keys: bool,
    is_empty_on_wire: bool,
}

#[derive(Debug)]
struct Record {
    width: usize,
    /// The writer's fields in their order. The index is that of the reader's field, or `None` if
    /// the reader does not have the field.
    fields: Vec<(Option<usize>, Step)>,
    /// The defaults of the reader's fields that the writer does not have.
    defaults: Vec<FieldDefault>,
}

/// A field's default value, in binary Avro.
#[derive(Debug)]
struct FieldDefault {
    index: usize,
    bytes: Vec<u8>,
    step: Step,
}

impl Step {
    fn read<B: Bytes>(
        &self,
        input: &mut Input<'_>,
        writer: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Result<(), DecodeError> {
        match self {
            Self::Null => {}
            Self::Boolean => writer.bool(index, input.take(1)? == [1]),
            Self::Int(to) => to.write(i64::from(input.int()?), writer, index, input)?,
            Self::Long(to) => to.write(input.long()?, writer, index, input)?,
            Self::Float => writer.double(index, f64::from(f32::from_le_bytes(input.array()?))),
            Self::Double => writer.double(index, f64::from_le_bytes(input.array()?)),
            Self::Bytes => writer.bytes(index, input.prefixed()?),
            Self::Fixed(size) => writer.bytes(index, input.take(*size)?),
            Self::Decimal { precision } => {
                let bytes = input.prefixed()?;
                writer.decimal(index, decimal(input, bytes, *precision)?);
            }
            Self::FixedDecimal { size, precision } => {
                let bytes = input.take(*size)?;
                writer.decimal(index, decimal(input, bytes, *precision)?);
            }
            Self::Enum(symbols) => {
                let found = usize::try_from(input.int()?).ok().and_then(|at| symbols.get(at));
                match found {
                    Some(Some(symbol)) => writer.bytes(index, symbol),
                    Some(None) => return input.failed("the reader's enum lacks the symbol"),
                    None => return input.failed("the enum has no symbol of that index"),
                }
            }
            Self::Array(elements) => elements.array(input, writer, index)?,
            Self::Map(elements) => elements.map(input, writer, index)?,
            Self::Record(record) => {
                input.charge(record.width + 1)?;
                writer.try_nested(index, record.width, |fields| record.read(input, fields))?;
            }
            Self::Union(branches) => {
                let at = input.long()?;
                match usize::try_from(at).ok().and_then(|at| branches.get(at)) {
                    Some(branch) => branch.read(input, writer, index)?,
                    None => return input.failed("the union has no branch of that index"),
                }
            }
            Self::Member { index: member, width, value } => {
                input.charge(width + 1)?;
                writer.try_nested(index, *width, |fields| value.read(input, fields, *member))?;
            }
            Self::Unreadable { .. } => {
                return input.failed("the reader has no type for this branch of the union");
            }
        }
        Ok(())
    }

    fn widen(&mut self, count: usize) {
        match self {
            Self::Record(record) => record.width += count,
            Self::Member { width, .. } => *width += count,
            Self::Union(branches) => branches.iter_mut().for_each(|branch| branch.widen(count)),
            _ => {}
        }
    }

    /// Advances past a value without decoding it.
    fn skip(&self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        match self {
            Self::Null => Ok(()),
            Self::Boolean => input.take(1).map(drop),
            Self::Int(_) | Self::Enum(_) => input.int().map(drop),
            Self::Long(_) => input.long().map(drop),
            Self::Float => input.take(4).map(drop),
            Self::Double => input.take(8).map(drop),
            Self::Bytes | Self::Decimal { .. } => input.prefixed().map(drop),
            Self::Fixed(size) | Self::FixedDecimal { size, .. } => input.take(*size).map(drop),
            Self::Array(elements) | Self::Map(elements) => elements.skip(input),
            Self::Record(record) => record.fields.iter().try_for_each(|(_, step)| step.skip(input)),
            Self::Union(branches) => {
                let at = input.long()?;
                match usize::try_from(at).ok().and_then(|at| branches.get(at)) {
                    Some(branch) => branch.skip(input),
                    None => input.failed("the union has no branch of that index"),
                }
            }
            Self::Member { value, .. } => value.skip(input),
            Self::Unreadable { skip } => skip.skip(input),
        }
    }
}

impl Record {
    fn read<B: Bytes>(
        &self,
        input: &mut Input<'_>,
        writer: &mut RowWriter<'_, B>,
    ) -> Result<(), DecodeError> {
        for (index, step) in &self.fields {
            match index {
                Some(index) => step.read(input, writer, *index)?,
                None => step.skip(input)?,
            }
        }
        for default in &self.defaults {
            input.charge(default.bytes.len())?;
            // The slots of the default count towards the slot budget of the enclosing value.
            let slots_left = input.slots_left;
            let mut bytes = Input { bytes: &default.bytes, at: 0, slots_left };
            default.step.read(&mut bytes, writer, default.index)?;
            input.slots_left = bytes.slots_left;
        }
        Ok(())
    }
}

impl Elements {
    fn skip(&self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        input
            .blocks(self.is_empty_on_wire, |input, _| {
                if self.has_keys {
                    input.prefixed()?;
                }
                self.value.skip(input)
            })
            .map(drop)
    }

    fn array<B: Bytes>(
        &self,
        input: &mut Input<'_>,
        writer: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Result<(), DecodeError> {
        let count = input.count(self)?;
        input.charge(count + 1)?;
        let mut read = Ok(0);
        writer.nested_array(index, count, |elements| {
            read = input
                .blocks(self.is_empty_on_wire, |input, at| self.value.read(input, elements, at));
        });
        read.map(drop)
    }

    /// Reads a map. If several entries have the same key, the last entry wins.
    fn map<B: Bytes>(
        &self,
        input: &mut Input<'_>,
        writer: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Result<(), DecodeError> {
        let start = input.at;
        let mut keys: SmallVec<[&[u8]; 16]> = SmallVec::new();
        input.blocks(false, |input, _| {
            keys.push(input.prefixed()?);
            self.value.skip(input)
        })?;
        let end = input.at;
        let replaced = replaced_keys(&keys);
        let count = keys.len() - replaced.len();
        input.charge(2 * count + 2)?;
        let is_kept = |at: &usize| replaced.is_empty() || !replaced.contains(at);
        let mut read = Ok(0);
        writer.tail(index, |out| {
            let head = out.as_ref().len();
            out.zeros(8);
            let mut writer = RowWriter::array(out, count);
            let kept = keys.iter().enumerate().filter(|(at, _)| is_kept(at));
            kept.enumerate().for_each(|(slot, (_, key))| writer.bytes(slot, key));
            let keys_bytes = (out.as_ref().len() - head - 8) as u64;
            out.as_mut()[head..head + 8].copy_from_slice(&keys_bytes.to_le_bytes());
            let mut writer = RowWriter::array(out, count);
            let mut slot = 0;
            input.at = start;
            read = input.blocks(false, |input, at| {
                input.prefixed()?;
                if !is_kept(&at) {
                    return self.value.skip(input);
                }
                slot += 1;
                self.value.read(input, &mut writer, slot - 1)
            });
        });
        debug_assert!(read.is_err() || input.at == end);
        read.map(drop)
    }
}

/// The indices of the keys that occur again later in the list.
fn replaced_keys(keys: &[&[u8]]) -> HashSet<usize> {
    /// Up to this number of keys, comparing all pairs is faster than hashing.
    const PAIRS_MAX: usize = 16;
    let mut replaced = HashSet::new();
    if keys.len() <= PAIRS_MAX {
        for (at, key) in keys.iter().enumerate() {
            if keys[at + 1..].contains(key) {
                replaced.insert(at);
            }
        }
        return replaced;
    }
    let mut later = HashSet::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate().rev() {
        if !later.insert(*key) {
            replaced.insert(at);
        }
    }
    replaced
}

/// Decodes the unscaled value of a decimal: two's complement, big endian. Fails if the value has
/// more digits than `precision`.
fn decimal(input: &Input<'_>, bytes: &[u8], precision: u8) -> Result<i128, DecodeError> {
    let is_negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let fill = if is_negative { 0xFF } else { 0 };
    let (extra, low) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut whole = [fill; 16];
    whole[16 - low.len()..].copy_from_slice(low);
    let value = i128::from_be_bytes(whole);
    let fits = extra.iter().all(|byte| *byte == fill)
        && (value < 0) == is_negative
        && value.unsigned_abs() < 10u128.pow(u32::from(precision));
    if fits { Ok(value) } else { input.failed("a decimal has more digits than its type") }
}

/// Compares two schemas and builds the decoding steps.
struct Compiler {
    steps_left: usize,
}

impl Compiler {
    fn step(&mut self, writer: &Arc<Schema>, reader: &Arc<Schema>) -> Result<Step, SchemaError> {
        self.steps_left = match self.steps_left.checked_sub(1) {
            Some(left) => left,
            None => return Err(SchemaError("the two schemas are too large".to_string())),
        };
        if let Kind::Union(branches) = &writer.kind {
            let mut steps = Vec::with_capacity(branches.len());
            for branch in branches {
                steps.push(match self.step(branch, reader) {
                    Err(_) if self.steps_left > 0 => {
                        Step::Unreadable { skip: Box::new(self.step(branch, branch)?) }
                    }
                    step => step?,
                });
            }
            if steps.iter().all(|step| matches!(step, Step::Unreadable { .. })) {
                return Err(unreadable(writer, reader));
            }
            return Ok(Step::Union(steps));
        }
        if let Kind::Union(branches) = &reader.kind {
            return self.as_union(writer, reader, branches);
        }
        self.as_value(writer, reader)
    }

    /// Selects the branch of the reader's union for a value. It is the first branch of the same
    /// type, or else the first one to which the value can be converted.
    fn as_union(
        &mut self,
        writer: &Arc<Schema>,
        reader: &Schema,
        branches: &[Arc<Schema>],
    ) -> Result<Step, SchemaError> {
        let found = branches
            .iter()
            .find(|branch| is_same_type(writer, branch))
            .or_else(|| branches.iter().find(|branch| is_convertible(writer, branch)));
        let Some(branch) = found else { return Err(unreadable(writer, reader)) };
        let step = self.step(writer, branch)?;
        let values = reader.value_branches().unwrap_or_default();
        if branch.kind == Kind::Null {
            return Ok(Step::Null);
        }
        match (UnionShape::of(&values), values.iter().position(|value| *value == branch)) {
            (UnionShape::Members, Some(index)) => {
                Ok(Step::Member { index, width: values.len(), value: Box::new(step) })
            }
            // In SQL a union of two numeric types is a number, so the logical types of its branches
            // are ignored.
            (UnionShape::Plain, _) if values.len() == 2 => Ok(match step {
                Step::Int(IntegerTo::Micros) => Step::Int(IntegerTo::Long),
                Step::Long(IntegerTo::Micros) => Step::Long(IntegerTo::Long),
                step => step,
            }),
            _ => Ok(step),
        }
    }

    fn as_value(
        &mut self,
        writer: &Arc<Schema>,
        reader: &Arc<Schema>,
    ) -> Result<Step, SchemaError> {
        let integer = match reader.logical {
            Some(Logical::TimestampMillis | Logical::LocalTimestampMillis) => IntegerTo::Micros,
            _ => IntegerTo::Long,
        };
        Ok(match (&writer.kind, &reader.kind) {
            (Kind::Null, Kind::Null) => Step::Null,
            (Kind::Boolean, Kind::Boolean) => Step::Boolean,
            (Kind::Int, Kind::Int | Kind::Long) => Step::Int(integer),
            (Kind::Int, Kind::Float) => Step::Int(IntegerTo::Float),
            (Kind::Int, Kind::Double) => Step::Int(IntegerTo::Double),
            (Kind::Long, Kind::Long) => Step::Long(integer),
            (Kind::Long, Kind::Float) => Step::Long(IntegerTo::Float),
            (Kind::Long, Kind::Double) => Step::Long(IntegerTo::Double),
            (Kind::Float, Kind::Float | Kind::Double) => Step::Float,
            (Kind::Double, Kind::Double) => Step::Double,
            (Kind::Bytes | Kind::String, Kind::Bytes | Kind::String) => match reader.logical {
                Some(Logical::Decimal(precision, _)) => Step::Decimal { precision },
                _ => Step::Bytes,
            },
            (Kind::Fixed { size, .. }, Kind::Fixed { size: wanted, .. }) if size == wanted => {
                match reader.logical {
                    Some(Logical::Decimal(precision, _)) => {
                        Step::FixedDecimal { size: *size, precision }
                    }
                    _ => Step::Fixed(*size),
                }
            }
            (Kind::Enum { symbols, .. }, Kind::Enum { symbols: wanted, default, .. }) => {
                let symbol = |symbol: &String| {
                    let known = wanted.contains(symbol).then_some(symbol);
                    known.or(default.as_ref()).map(|text| Box::from(text.as_bytes()))
                };
                Step::Enum(symbols.iter().map(symbol).collect())
            }
            (Kind::Array(items), Kind::Array(wanted)) => Step::Array(Box::new(Elements {
                value: self.step(items, wanted)?,
                has_keys: false,
                is_empty_on_wire: items.is_empty_on_wire(),
            })),
            (Kind::Map(values), Kind::Map(wanted)) => Step::Map(Box::new(Elements {
                value: self.step(values, wanted)?,
                has_keys: true,
                is_empty_on_wire: false,
            })),
            (Kind::Record { fields, .. }, Kind::Record { fields: wanted, .. }) => {
                Step::Record(Box::new(self.record(reader, fields, wanted)?))
            }
            _ => return Err(unreadable(writer, reader)),
        })
    }

    fn record(
        &mut self,
        reader: &Schema,
        written: &[Field],
        wanted: &[Field],
    ) -> Result<Record, SchemaError> {
        // The reader's name for a field of the data. As in Avro's own implementation, an alias
        // takes precedence: if the field's name is an alias of one reader field and the name of
        // another, the alias decides.
        let name_of = |from: &Field| {
            let mut aliased = wanted.iter().rev();
            let found = aliased.find(|to| to.aliases.contains(&from.name));
            found.map_or(&*from.name, |to| &*to.name).to_string()
        };
        let names: Vec<String> = written.iter().map(name_of).collect();
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                return Err(SchemaError(format!(
                    "two fields of the data are field `{name}` of `{}`, one by an alias",
                    reader.word()
                )));
            }
        }
        // For each of the reader's fields: the index of the writer's field.
        let source = |field: &Field| names.iter().position(|name| *name == field.name);
        let sources: Vec<Option<usize>> = wanted.iter().map(source).collect();
        let mut fields = Vec::with_capacity(written.len());
        for (at, from) in written.iter().enumerate() {
            let index = sources.iter().position(|source| *source == Some(at));
            let to = index.map_or(&from.schema, |index| &wanted[index].schema);
            fields.push((index, self.step(&from.schema, to)?));
        }
        let mut defaults = Vec::new();
        for (index, field) in wanted.iter().enumerate() {
            if sources[index].is_some() {
                continue;
            }
            let Some(json) = &field.default else {
                return Err(SchemaError(format!(
                    "the data has no field `{}` of `{}`, and the field has no default",
                    field.name,
                    reader.word()
                )));
            };
            let mut bytes = Vec::new();
            default_value::write(json, &field.schema, &mut bytes).map_err(|SchemaError(why)| {
                SchemaError(format!("field `{}`: {why}", field.name))
            })?;
            let step = self.step(&field.schema, &field.schema)?;
            defaults.push(FieldDefault { index, bytes, step });
        }
        Ok(Record { width: wanted.len(), fields, defaults })
    }
}

fn unreadable(writer: &Schema, reader: &Schema) -> SchemaError {
    SchemaError(format!("data of type `{}` cannot be read as `{}`", writer.word(), reader.word()))
}

/// Whether two types are of the same kind and, if they are named types, have matching names.
fn is_same_type(writer: &Schema, reader: &Schema) -> bool {
    match (&writer.kind, &reader.kind) {
        (Kind::Record { name, .. }, Kind::Record { name: wanted, .. })
        | (Kind::Enum { name, .. }, Kind::Enum { name: wanted, .. })
        | (Kind::Fixed { name, .. }, Kind::Fixed { name: wanted, .. }) => wanted.reads(name),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// Whether Avro's type promotion converts values of the writer's type to the reader's, or both are
/// records, also of different names.
fn is_convertible(writer: &Schema, reader: &Schema) -> bool {
    matches!(
        (&writer.kind, &reader.kind),
        (Kind::Int, Kind::Long | Kind::Float | Kind::Double)
            | (Kind::Long, Kind::Float | Kind::Double)
            | (Kind::Float, Kind::Double)
            | (Kind::String, Kind::Bytes)
            | (Kind::Bytes, Kind::String)
            | (Kind::Record { .. }, Kind::Record { .. })
    )
}
