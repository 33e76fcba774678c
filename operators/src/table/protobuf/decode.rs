//! Reads Protobuf messages into rows.
//!
//! The fields of a message may come in any order and several times, and the row format stores the
//! number of elements before an array. So a message is scanned once to find its fields, which are
//! then read in the order of the row. What a scan finds is put on a stack that is kept for the next
//! record.
//!
//! The data is untrusted. Every length is checked against the number of remaining bytes, the number
//! of fields of one value is bounded, and the depth of the recursion is that of the type.

use super::shape::{Default, Enum, Field, Shape, Value};
use super::wire::{Cursor, DecodeError, FIXED32, FIXED64, LENGTH, VARINT, unzigzag32, unzigzag64};
use crate::table::expr::cell::Cell;
use crate::table::row::{Bytes, RowWriter};
use crate::table::text::utf8;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;
use smallvec::SmallVec;
use std::collections::HashSet;
use std::io::Write;

/// The maximum number of fields and elements of one decoded message, those of nested messages
/// included: 128 MiB of slots. Without a limit, a few bytes could be any number of empty messages.
/// Text that is not a part of the message, such as symbols and defaults, counts with its bytes.
const SLOTS_MAX: usize = 1 << 24;

/// The maximum number of occurrences of fields in a message and in those that enclose it: 128 MiB.
/// Most of them may be of one field, whose last value counts.
const FOUND_MAX: usize = 1 << 23;

/// The maximum size of a message, in bytes, as in other libraries. With [`SLOTS_MAX`] it bounds a row,
/// whose parts have offsets of 32 bits.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// The maximum number of entries of the stack that is kept from one record to the next.
const STACK_KEPT: usize = 1 << 16;

const NONE: u32 = u32::MAX;

/// Decodes messages of a type to rows.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
    stack: Stack,
}

/// What scans have found, for the message that is being read and those that enclose it.
#[derive(Debug, std::default::Default)]
struct Stack {
    heads: Vec<Head>,
    found: Vec<Found>,
}

/// The occurrences of a field: a list within [`Stack::found`].
#[derive(Clone, Copy, Debug)]
struct Head {
    first: u32,
    last: u32,
}

/// An occurrence of a field.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// A number as it is on the wire; for other values the range of the bytes.
    bits: u64,
    next: u32,
    /// Whether the bytes are a list of numbers.
    is_packed: bool,
}

impl Found {
    fn range(self) -> (usize, usize) {
        ((self.bits >> 32) as usize, self.bits as u32 as usize)
    }
}

/// The bytes of a message: one or several parts of the record, which are read as one sequence.
#[derive(Clone, Copy)]
enum Parts {
    One(usize, usize),
    /// The occurrences from this index of [`Stack::found`] on; `NONE` for an empty message.
    List(u32),
}

/// The key of a map entry: a number and no bytes, or 0 and the bytes of a text.
type Key<'d> = (u64, &'d [u8]);

impl Decoder {
    pub fn new(shape: Shape) -> Self {
        Self { shape, stack: Stack::default() }
    }

    /// Decodes one message.
    pub fn decode<'a>(&mut self, bytes: &[u8], arena: &'a Bump) -> Result<Cell<'a>, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError { offset: 0, reason: "the message has more than 2 GiB" });
        }
        let mut out = BumpVec::with_capacity_in(2 * bytes.len() + 64, arena);
        let mut writer = RowWriter::new(&mut out, self.shape.width);
        let mut reader = Reader { bytes, stack: &mut self.stack, slots_left: SLOTS_MAX };
        let decoded = reader.top_level(&self.shape, &mut writer);
        self.stack.heads.clear();
        self.stack.found.clear();
        self.stack.found.shrink_to(STACK_KEPT);
        self.stack.heads.shrink_to(STACK_KEPT);
        decoded?;
        Ok(Cell::Bytes(out.into_bump_slice()))
    }
}

struct Reader<'s, 'd> {
    bytes: &'d [u8],
    stack: &'s mut Stack,
    slots_left: usize,
}

type Read<T = ()> = Result<T, DecodeError>;

impl<'d> Reader<'_, 'd> {
    #[cold]
    fn failed<T>(&self, offset: usize, reason: &'static str) -> Read<T> {
        Err(DecodeError { offset, reason })
    }

    fn charge(&mut self, slots: usize) -> Read {
        match self.slots_left.checked_sub(slots) {
            Some(left) => {
                self.slots_left = left;
                Ok(())
            }
            None => self.failed(0, "the message has too many fields, or too long values"),
        }
    }

    /// Charges text that is not a part of the message.
    fn charge_text(&mut self, bytes: usize) -> Read {
        self.charge(bytes.div_ceil(size_of::<u64>()))
    }

    /// Reads the whole record. A field whose number is known, but whose wire type is another, is an
    /// error, as in Spark. In nested messages it is skipped.
    fn top_level<B: Bytes>(&mut self, shape: &Shape, row: &mut RowWriter<'_, B>) -> Read {
        self.charge(shape.width + 1)?;
        let (base, mismatch) = self.scan(shape, Parts::One(0, self.bytes.len()))?;
        if let Some(offset) = mismatch {
            return self.failed(
                offset,
                "a field has another type than in the schema, or a number that its enum lacks",
            );
        }
        self.fields(shape, base, row)
    }

    fn message<B: Bytes>(
        &mut self,
        shape: &Shape,
        parts: Parts,
        row: &mut RowWriter<'_, B>,
    ) -> Read {
        let marks = self.marks();
        let (base, _) = self.scan(shape, parts)?;
        self.fields(shape, base, row)?;
        self.release(marks);
        Ok(())
    }

    fn marks(&self) -> (usize, usize) {
        (self.stack.heads.len(), self.stack.found.len())
    }

    fn release(&mut self, (heads, found): (usize, usize)) {
        self.stack.heads.truncate(heads);
        self.stack.found.truncate(found);
    }

    /// Finds the fields of a message. Returns the index of the first field's head, and the offset of
    /// a field with another type than in the schema.
    fn scan(&mut self, shape: &Shape, parts: Parts) -> Read<(usize, Option<usize>)> {
        let base = self.stack.heads.len();
        let empty = Head { first: NONE, last: NONE };
        self.stack.heads.resize(base + shape.fields.len(), empty);
        let mut mismatch = None;
        match parts {
            Parts::One(start, end) => self.scan_part(shape, base, (start, end), &mut mismatch)?,
            Parts::List(first) => {
                let mut at = first;
                while at != NONE {
                    let found = self.stack.found[at as usize];
                    self.scan_part(shape, base, found.range(), &mut mismatch)?;
                    at = found.next;
                }
            }
        }
        let is_missing = |index: &&usize| self.stack.heads[base + **index].first == NONE;
        if shape.required.iter().any(|index| is_missing(&index)) {
            let end = self.bytes.len();
            return self.failed(end, "a field is missing that the schema requires");
        }
        Ok((base, mismatch))
    }

    fn scan_part(
        &mut self,
        shape: &Shape,
        base: usize,
        (start, end): (usize, usize),
        mismatch: &mut Option<usize>,
    ) -> Read {
        let mut cursor = Cursor::new(self.bytes, start, end);
        while !cursor.is_at_end() {
            let offset = cursor.at;
            let (number, wire) = cursor.tag()?;
            let Some(known) = shape.lookup.find(number) else {
                cursor.skip(number, wire)?;
                continue;
            };
            let field = known.index.map(|index| &shape.fields[index as usize]);
            let found = match field {
                Some(field) => occurrence(field, number, wire, &mut cursor)?,
                None => {
                    cursor.skip(number, wire)?;
                    None
                }
            };
            if field.is_some() && found.is_none() {
                mismatch.get_or_insert(offset);
                continue;
            }
            if let (Some(field), Some(found)) = (field, found)
                && mismatch.is_none()
                && found.is_packed
                && self.lacks_a_symbol(&field.value, found)?
            {
                *mismatch = Some(offset);
            }
            if let Some(oneof) = known.oneof {
                let others = shape.lookup.oneofs.get(oneof as usize).into_iter().flatten();
                for other in others.filter(|other| Some(**other) != known.index) {
                    let empty = Head { first: NONE, last: NONE };
                    self.stack.heads[base + *other as usize] = empty;
                }
            }
            if let (Some(found), Some(index)) = (found, known.index) {
                self.push(base + index as usize, found)?;
            }
        }
        Ok(())
    }

    /// Whether a list has a number that its closed enum does not have.
    fn lacks_a_symbol(&self, value: &Value, found: Found) -> Read<bool> {
        let Value::Enum(symbols) = value else { return Ok(false) };
        let (start, end) = found.range();
        let mut cursor = Cursor::new(self.bytes, start, end);
        while symbols.is_closed && !cursor.is_at_end() {
            if !symbols.allows(cursor.varint()? as i32) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn push(&mut self, head: usize, found: Found) -> Read {
        if self.stack.found.len() >= FOUND_MAX {
            return self.failed(0, "the message has too many fields");
        }
        let at = self.stack.found.len() as u32;
        self.stack.found.push(found);
        let head = &mut self.stack.heads[head];
        match head.last {
            NONE => head.first = at,
            last => self.stack.found[last as usize].next = at,
        }
        head.last = at;
        Ok(())
    }

    /// Reads the fields that a scan has found.
    fn fields<B: Bytes>(&mut self, shape: &Shape, base: usize, row: &mut RowWriter<'_, B>) -> Read {
        for (index, field) in shape.fields.iter().enumerate() {
            self.field(field, self.stack.heads[base + index], row, index)?;
        }
        Ok(())
    }

    fn field<B: Bytes>(
        &mut self,
        field: &Field,
        head: Head,
        row: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Read {
        match (&field.value, head.last) {
            (Value::Map(entry), _) => self.map(entry, head.first, row, index),
            _ if field.is_repeated => self.array(&field.value, head.first, row, index),
            (_, NONE) => self.absent(field, row, index),
            (value, _) if value.is_message() => {
                self.of_parts(value, Parts::List(head.first), row, index)
            }
            (value, last) => {
                let bits = self.stack.found[last as usize].bits;
                if field.hides_default && is_default(value, bits) {
                    return Ok(());
                }
                self.scalar(value, bits, row, index)
            }
        }
    }

    fn absent<B: Bytes>(
        &mut self,
        field: &Field,
        row: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Read {
        match &field.absent {
            None => Ok(()),
            Some(Default::Bytes(bytes)) => {
                self.charge_text(bytes.len())?;
                row.bytes(index, bytes);
                Ok(())
            }
            Some(Default::Bits(bits)) => self.scalar(&field.value, *bits, row, index),
            Some(Default::OfType) => self.default(&field.value, row, index),
        }
    }

    /// Writes the default of a type.
    fn default<B: Bytes>(
        &mut self,
        value: &Value,
        row: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Read {
        match value {
            Value::Enum(symbols) => self.scalar(value, symbols.first as u64, row, index),
            value if value.is_message() => self.of_parts(value, Parts::List(NONE), row, index),
            // An empty range for bytes.
            value => self.scalar(value, 0, row, index),
        }
    }

    /// Reads a message of any kind.
    fn of_parts<B: Bytes>(
        &mut self,
        value: &Value,
        parts: Parts,
        row: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Read {
        match value {
            Value::Message { shape, .. } => {
                self.charge(shape.width + 1)?;
                row.try_nested(index, shape.width, |row| self.message(shape, parts, row))
            }
            Value::Wrapper(shape) => {
                let marks = self.marks();
                let (base, _) = self.scan(shape, parts)?;
                self.field(&shape.fields[0], self.stack.heads[base], row, index)?;
                self.release(marks);
                Ok(())
            }
            Value::Seconds(shape) => {
                let marks = self.marks();
                let (base, _) = self.scan(shape, parts)?;
                let number = |at: usize| match self.stack.heads[base + at].last {
                    NONE => 0,
                    last => self.stack.found[last as usize].bits as i64,
                };
                let (seconds, nanos) = (number(0), i64::from(number(1) as i32));
                self.release(marks);
                let micros = seconds.checked_mul(1_000_000);
                match micros.and_then(|micros| micros.checked_add(nanos / 1000)) {
                    Some(micros) => row.long(index, micros),
                    None => return self.failed(0, "a time is out of range"),
                }
                Ok(())
            }
            Value::Any(any) => {
                let mut whole: SmallVec<[u8; 256]> = SmallVec::new();
                let mut next = match parts {
                    Parts::List(first) => first,
                    Parts::One(start, end) => {
                        whole.extend_from_slice(&self.bytes[start..end]);
                        NONE
                    }
                };
                while next != NONE {
                    let found = self.stack.found[next as usize];
                    let (start, end) = found.range();
                    whole.extend_from_slice(&self.bytes[start..end]);
                    next = found.next;
                }
                match any.convert(&whole) {
                    Ok(json) => {
                        self.charge_text(json.len())?;
                        row.bytes(index, &json);
                    }
                    Err(reason) => return self.failed(0, reason),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes a value that is not a message. `bits` is a number in wire format, or the range
    /// of the bytes of a text or BINARY (start and end, 32 bits each).
    fn scalar<B: Bytes>(
        &mut self,
        value: &Value,
        bits: u64,
        row: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Read {
        let range = || ((bits >> 32) as usize, bits as u32 as usize);
        match value {
            Value::Bool => row.bool(index, bits != 0),
            Value::Int32 | Value::Fixed32 => row.long(index, i64::from(bits as i32)),
            Value::Int64 | Value::Fixed64 => row.long(index, bits as i64),
            Value::UInt32 => row.long(index, i64::from(bits as u32)),
            Value::UInt64 => row.decimal(index, i128::from(bits)),
            Value::SInt32 => row.long(index, i64::from(unzigzag32(bits))),
            Value::SInt64 => row.long(index, unzigzag64(bits)),
            Value::Float => row.double(index, f64::from(f32::from_bits(bits as u32))),
            Value::Double => row.double(index, f64::from_bits(bits)),
            Value::Bytes => {
                let (start, end) = range();
                row.bytes(index, &self.bytes[start..end]);
            }
            Value::Text { is_strict } => {
                let (start, end) = range();
                let bytes = &self.bytes[start..end];
                match std::str::from_utf8(bytes) {
                    Ok(_) => row.bytes(index, bytes),
                    Err(_) if *is_strict => return self.failed(start, "a text is not UTF-8"),
                    Err(_) => {
                        let text = utf8::decode(bytes);
                        // A byte that is not valid is replaced by three.
                        self.charge_text(text.len().saturating_sub(bytes.len()))?;
                        row.bytes(index, text.as_bytes());
                    }
                }
            }
            Value::Enum(symbols) => return self.symbol(symbols, bits as i32, row, index),
            _ => {}
        }
        Ok(())
    }

    /// Writes a symbol of an enum. One that is not known is named as by Java's library.
    fn symbol<B: Bytes>(
        &mut self,
        symbols: &Enum,
        number: i32,
        row: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Read {
        if symbols.is_int {
            row.long(index, i64::from(number));
            return Ok(());
        }
        if let Some(symbol) = symbols.symbol(number) {
            self.charge_text(symbol.len())?;
            row.bytes(index, symbol.as_bytes());
            return Ok(());
        }
        let mut name: SmallVec<[u8; 64]> = SmallVec::from_slice(symbols.unknown.as_bytes());
        // "-2147483648" has 11 letters, so writing cannot fail.
        let mut digits = [0; 11];
        let mut free = &mut digits[..];
        drop(write!(free, "{number}"));
        let unused = free.len();
        name.extend_from_slice(&digits[..digits.len() - unused]);
        self.charge_text(name.len())?;
        row.bytes(index, &name);
        Ok(())
    }

    /// The number of elements in the occurrences from `first` on.
    fn count(&self, value: &Value, first: u32) -> Read<usize> {
        let (mut count, mut at) = (0, first);
        while at != NONE {
            let found = self.stack.found[at as usize];
            count += match found.is_packed {
                true => self.count_packed(value, found)?,
                false => 1,
            };
            at = found.next;
        }
        Ok(count)
    }

    fn count_packed(&self, value: &Value, found: Found) -> Read<usize> {
        let (start, end) = found.range();
        let size = match value.wire() {
            FIXED32 => 4,
            FIXED64 => 8,
            _ => {
                let ends = self.bytes[start..end].iter().filter(|byte| **byte < 0x80).count();
                return match value {
                    // In a nested message, numbers without a symbol are left out.
                    Value::Enum(symbols) if symbols.is_closed => {
                        let (mut cursor, mut known) = (Cursor::new(self.bytes, start, end), 0);
                        while !cursor.is_at_end() {
                            known += usize::from(symbols.allows(cursor.varint()? as i32));
                        }
                        Ok(known)
                    }
                    _ => Ok(ends),
                };
            }
        };
        match (end - start) % size {
            0 => Ok((end - start) / size),
            _ => self.failed(end, "the data ends within a value"),
        }
    }

    fn array<B: Bytes>(
        &mut self,
        value: &Value,
        first: u32,
        row: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Read {
        let count = self.count(value, first)?;
        self.charge(count + 1)?;
        let mut read = Ok(());
        row.nested_array(index, count, |elements| {
            read = self.elements(value, first, elements);
        });
        read
    }

    fn elements<B: Bytes>(
        &mut self,
        value: &Value,
        first: u32,
        elements: &mut RowWriter<'_, B>,
    ) -> Read {
        let (mut slot, mut at) = (0, first);
        while at != NONE {
            let found = self.stack.found[at as usize];
            at = found.next;
            let (start, end) = found.range();
            if found.is_packed {
                let mut cursor = Cursor::new(self.bytes, start, end);
                while !cursor.is_at_end() {
                    let bits = number(value, &mut cursor)?;
                    if is_known(value, bits) {
                        self.scalar(value, bits, elements, slot)?;
                        slot += 1;
                    }
                }
                continue;
            }
            match value.is_message() {
                true => self.of_parts(value, Parts::One(start, end), elements, slot)?,
                false => self.scalar(value, found.bits, elements, slot)?,
            }
            slot += 1;
        }
        Ok(())
    }

    /// Reads a map. If several entries have the same key, the last entry wins.
    fn map<B: Bytes>(
        &mut self,
        entry: &Shape,
        first: u32,
        row: &mut RowWriter<'_, B>,
        index: usize,
    ) -> Read {
        let [key, value] = entry.fields.as_slice() else { return Ok(()) };
        let mut entries: SmallVec<[(u32, Key<'d>); 16]> = SmallVec::new();
        let mut at = first;
        while at != NONE {
            let found = self.stack.found[at as usize];
            entries.push((at, self.key(entry, &key.value, found)?));
            at = found.next;
        }
        drop_replaced(&mut entries);
        let count = entries.len();
        self.charge(2 * count + 2)?;
        let mut read = Ok(());
        row.tail(index, |out| {
            let head = out.as_ref().len();
            out.zeros(8);
            let mut keys = RowWriter::array(out, count);
            read = self.entries(entry, (key, 0), &entries, &mut keys);
            let keys_bytes = (out.as_ref().len() - head - 8) as u64;
            out.as_mut()[head..head + 8].copy_from_slice(&keys_bytes.to_le_bytes());
            let mut values = RowWriter::array(out, count);
            if read.is_ok() {
                read = self.entries(entry, (value, 1), &entries, &mut values);
            }
        });
        read
    }

    /// Reads the keys or the values of a map's entries.
    fn entries<B: Bytes>(
        &mut self,
        entry: &Shape,
        (field, at): (&Field, usize),
        entries: &[(u32, Key<'d>)],
        row: &mut RowWriter<'_, B>,
    ) -> Read {
        for (slot, (found, _)) in entries.iter().enumerate() {
            let marks = self.marks();
            let (start, end) = self.stack.found[*found as usize].range();
            let (base, _) = self.scan(entry, Parts::One(start, end))?;
            self.field(field, self.stack.heads[base + at], row, slot)?;
            self.release(marks);
        }
        Ok(())
    }

    fn key(&mut self, entry: &Shape, key: &Value, found: Found) -> Read<Key<'d>> {
        let marks = self.marks();
        let (start, end) = found.range();
        let (base, _) = self.scan(entry, Parts::One(start, end))?;
        let last = self.stack.heads[base].last;
        let bits = if last == NONE { 0 } else { self.stack.found[last as usize].bits };
        self.release(marks);
        Ok(match key {
            Value::Text { .. } => (0, &self.bytes[(bits >> 32) as usize..bits as u32 as usize]),
            Value::Bool => (u64::from(bits != 0), &[]),
            Value::Int32 | Value::UInt32 | Value::SInt32 | Value::Fixed32 => {
                (bits & 0xFFFF_FFFF, &[])
            }
            _ => (bits, &[]),
        })
    }
}

/// Drops the entries whose key occurs again later.
fn drop_replaced(entries: &mut SmallVec<[(u32, Key<'_>); 16]>) {
    /// Up to this number of keys, comparing all pairs is faster than hashing.
    const PAIRS_MAX: usize = 16;
    if entries.len() <= PAIRS_MAX {
        for at in (0..entries.len()).rev() {
            let key = entries[at].1;
            if entries[at + 1..].iter().any(|(_, later)| *later == key) {
                entries.remove(at);
            }
        }
        return;
    }
    let mut later = HashSet::with_capacity(entries.len());
    let kept: Vec<bool> = entries.iter().rev().map(|(_, key)| later.insert(*key)).collect();
    let mut kept = kept.into_iter().rev();
    entries.retain(|_| kept.next().unwrap_or(true));
}

/// Reads an occurrence of a known field. Returns `None`, and skips the value, if its wire type is
/// another than the field's, or if it is a number that its closed enum does not have.
fn occurrence(
    field: &Field,
    number_of_field: u32,
    wire: u8,
    cursor: &mut Cursor<'_>,
) -> Read<Option<Found>> {
    let own = field.value.wire();
    let of_range = |(start, end): (usize, usize), is_packed| Found {
        bits: (start as u64) << 32 | end as u64,
        next: NONE,
        is_packed,
    };
    if wire == own {
        return Ok(match wire {
            VARINT | FIXED32 | FIXED64 => {
                let bits = number(&field.value, cursor)?;
                let found = Found { bits, next: NONE, is_packed: false };
                is_known(&field.value, bits).then_some(found)
            }
            LENGTH => Some(of_range(cursor.prefixed()?, false)),
            _ => Some(of_range(cursor.group(number_of_field)?, false)),
        });
    }
    let is_number = matches!(own, VARINT | FIXED32 | FIXED64);
    if wire == LENGTH && field.is_repeated && is_number {
        return Ok(Some(of_range(cursor.prefixed()?, true)));
    }
    cursor.skip(number_of_field, wire)?;
    Ok(None)
}

/// Reads a number.
#[inline]
fn number(value: &Value, cursor: &mut Cursor<'_>) -> Read<u64> {
    match value.wire() {
        FIXED32 => cursor.fixed32().map(u64::from),
        FIXED64 => cursor.fixed64(),
        _ => cursor.varint(),
    }
}

/// Whether a number can be a value: a closed enum allows only the numbers of its symbols.
fn is_known(value: &Value, bits: u64) -> bool {
    match value {
        Value::Enum(symbols) => symbols.allows(bits as i32),
        _ => true,
    }
}

/// Whether a value equals the default of its type. A negative zero does not.
fn is_default(value: &Value, bits: u64) -> bool {
    match value {
        Value::Text { .. } | Value::Bytes => bits >> 32 == bits & 0xFFFF_FFFF,
        Value::Enum(symbols) => bits as i32 == symbols.first,
        Value::Int32 | Value::UInt32 | Value::SInt32 => bits as u32 == 0,
        _ => bits == 0,
    }
}
