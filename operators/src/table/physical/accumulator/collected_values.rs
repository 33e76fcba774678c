//! The values of `collect_list`, `listagg`, `collect_set` and DISTINCT: a list in arrival order, or
//! a set.
//!
//! The values are stored one after another in a buffer, in the encoding of checkpoints. So the
//! additions of an epoch are a range of the buffer ([`GrowingValue`]). A value of fixed size takes
//! 8 bytes, as in an array. Any other value takes 4 bytes for its length, plus its own bytes.

use crate::table::expr::cell::{Cell, field};
use crate::table::physical::accumulator::encoding::take;
use crate::table::physical::accumulator::growing::GrowingValue;
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Physical};
use hashbrown::HashTable;
use millstream_engine::checkpoint::key_group::hash_bytes;

/// The size in bytes of the length prefix of a variable-length value.
const LENGTH: usize = 4;
/// The maximum size of one list or set in bytes. The set of a DISTINCT aggregate has no limit.
const BYTES_MAX: usize = 1 << 30;
/// In a checkpoint, the mark of this module's encoding. An older encoding has the number of values
/// at this position.
const PACKED: u32 = u32::MAX - 1;

/// The type of the collected values.
#[derive(Clone, Debug, PartialEq)]
enum Element {
    /// A single value, never NULL.
    One(DataType),
    /// A row of several values, for DISTINCT aggregates.
    Row,
}

impl Element {
    fn is_fixed(&self) -> bool {
        match self {
            Self::One(data_type) => {
                matches!(data_type.physical(), Physical::Bool | Physical::Long | Physical::Double)
            }
            Self::Row => false,
        }
    }
}

/// Whether duplicates are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    List,
    Set,
}

/// A list or set of values.
#[derive(Clone, Debug)]
pub struct Values {
    element: Element,
    bytes: Vec<u8>,
    count: usize,
    /// The offset of each value by its hash; only for sets.
    index: Option<HashTable<usize>>,
    /// The number of bytes of the buffer that the checkpoint's parts already contain.
    written: usize,
    row: Vec<u8>,
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// Splits the first value off a buffer; `None` at the end of the buffer.
fn split(bytes: &[u8], fixed: bool) -> Option<(&[u8], &[u8])> {
    if fixed {
        return bytes.split_at_checked(8);
    }
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// The bytes of the value at an offset.
fn value_at(bytes: &[u8], at: usize, fixed: bool) -> &[u8] {
    split(&bytes[at..], fixed).map_or(&[], |(value, _)| value)
}

/// Iterates over the values in a buffer.
fn values(mut bytes: &[u8], fixed: bool) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (value, rest) = split(bytes, fixed)?;
        bytes = rest;
        Some(value)
    })
}

impl Values {
    /// Creates an empty list or set of values of one type.
    pub fn new(collection: Collection, data_type: DataType) -> Self {
        Self::of(collection, Element::One(data_type))
    }

    /// Creates an empty set of rows.
    pub fn of_rows() -> Self {
        Self::of(Collection::Set, Element::Row)
    }

    fn of(collection: Collection, element: Element) -> Self {
        let index = (collection == Collection::Set).then(HashTable::new);
        Self { element, bytes: Vec::new(), count: 0, index, written: 0, row: Vec::new() }
    }

    /// Whether duplicates are dropped (`collect_set`, DISTINCT).
    pub fn is_set(&self) -> bool {
        self.index.is_some()
    }

    pub fn collection(&self) -> Collection {
        if self.is_set() { Collection::Set } else { Collection::List }
    }

    /// Adds the values of another list or set of the same type. A set ignores duplicates.
    pub fn merge(&mut self, other: &Self) {
        for value in values(&other.bytes, self.element.is_fixed()) {
            self.add_bytes(value);
        }
    }

    /// Whether a value of `length` bytes can be added: within the size limit, and with memory that
    /// can be allocated. If so, the memory is reserved.
    pub fn has_room(&mut self, length: usize) -> bool {
        self.bytes.len() + length <= BYTES_MAX
            && self.bytes.try_reserve(LENGTH.max(16) + length).is_ok()
    }

    /// Whether the size is within the limit.
    pub fn is_within_limit(&self) -> bool {
        self.bytes.len() <= BYTES_MAX
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Adds a value. Returns false if a set already has the value.
    fn add_bytes(&mut self, value: &[u8]) -> bool {
        let (at, fixed) = (self.bytes.len(), self.element.is_fixed());
        if let Some(index) = &mut self.index {
            let (bytes, hash) = (&self.bytes, hash_bytes(value));
            if index.find(hash, |at| value_at(bytes, *at, fixed) == value).is_some() {
                return false;
            }
            index.insert_unique(hash, at, |at| hash_bytes(value_at(bytes, *at, fixed)));
        }
        if !fixed {
            self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        }
        self.bytes.extend_from_slice(value);
        self.count += 1;
        true
    }

    /// Adds a value. NULL is ignored, and in a set a duplicate.
    pub fn add(&mut self, cell: Cell<'_>) {
        let cell = if self.is_set() { canonical_cell(cell) } else { cell };
        match cell {
            Cell::Null => false,
            Cell::Bool(v) => self.add_bytes(&u64::from(v).to_le_bytes()),
            Cell::Long(v) => self.add_bytes(&v.to_le_bytes()),
            Cell::Double(v) => self.add_bytes(&v.to_bits().to_le_bytes()),
            Cell::Decimal(v) => self.add_bytes(&v.to_le_bytes()),
            Cell::Bytes(v) => self.add_bytes(v),
        };
    }

    /// Adds a row of values. Returns false if the set already has the row.
    pub fn add_row_of(&mut self, cells: &[Cell<'_>]) -> bool {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        let mut writer = RowWriter::new(&mut row, cells.len());
        for (i, cell) in cells.iter().enumerate() {
            canonical_cell(*cell).put(&mut writer, i);
        }
        let added = self.add_bytes(&row);
        self.row = row;
        added
    }

    /// The rows of a set of rows.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        values(&self.bytes, false)
    }

    /// Adds an encoded row. Returns false if the set already has the row.
    pub fn add_row(&mut self, row: &[u8]) -> bool {
        self.add_bytes(row)
    }

    /// Writes the values as an array into a field of a row.
    pub fn write(&self, writer: &mut RowWriter<'_, Vec<u8>>, index: usize) {
        let fixed = self.element.is_fixed();
        writer.nested_array(index, self.count, |array| {
            if fixed {
                return array.words(&self.bytes);
            }
            let decimals = matches!(&self.element, Element::One(DataType::Decimal(..)));
            for (i, value) in values(&self.bytes, false).enumerate() {
                match <[u8; 16]>::try_from(value) {
                    Ok(value) if decimals => array.decimal(i, i128::from_le_bytes(value)),
                    _ => array.bytes(i, value),
                }
            }
        });
    }

    /// The values, which must be strings, joined by a separator; `None` if there are none.
    pub fn joined(&self, separator: &[u8]) -> Option<Vec<u8>> {
        let texts: Vec<&[u8]> = values(&self.bytes, false).collect();
        (!texts.is_empty()).then(|| texts.join(separator))
    }

    /// Appends the values in the encoding of checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&PACKED.to_le_bytes());
        out.extend_from_slice(&(self.count as u32).to_le_bytes());
        out.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }

    /// Replaces the values by decoded ones; `None` if the bytes are damaged. Also decodes an older
    /// encoding: the number of values, then length and row of each value.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        *self = Self::of(self.collection(), self.element.clone());
        let count = u32::from_le_bytes(take(bytes)?);
        if count == PACKED {
            let _count: [u8; 4] = take(bytes)?;
            let length = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
            let (packed, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            return self.read(packed);
        }
        for _ in 0..count {
            let length = u32::from_le_bytes(take(bytes)?) as usize;
            let (row, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            match self.element.clone() {
                Element::Row => drop(self.add_bytes(row)),
                Element::One(data_type) => {
                    crate::table::row::length(row, std::iter::once(data_type.physical()))?;
                    self.add(field(row, 0, 1, &data_type));
                }
            }
        }
        Some(())
    }

    /// Skips an encoded list or set and returns its number of values, for `inspect`; `None` if the
    /// bytes are truncated.
    pub fn take_count(bytes: &mut &[u8]) -> Option<u32> {
        let count = u32::from_le_bytes(take(bytes)?);
        if count == PACKED {
            let count = u32::from_le_bytes(take(bytes)?);
            let length = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
            *bytes = bytes.get(length..)?;
            return Some(count);
        }
        for _ in 0..count {
            let length = u32::from_le_bytes(take(bytes)?) as usize;
            *bytes = bytes.get(length..)?;
        }
        Some(count)
    }

    fn read(&mut self, mut bytes: &[u8]) -> Option<()> {
        let fixed = self.element.is_fixed();
        while !bytes.is_empty() {
            let (value, rest) = split(bytes, fixed)?;
            self.add_bytes(value);
            bytes = rest;
        }
        Some(())
    }
}

/// Normalises a number: -0.0 becomes 0.0, and all NaNs get the same bits. Other values are returned
/// unchanged, so numbers inside arrays and structs are not normalised here.
fn canonical_cell(cell: Cell<'_>) -> Cell<'_> {
    match cell {
        Cell::Double(v) if v.is_nan() => Cell::Double(f64::NAN),
        Cell::Double(v) => Cell::Double(v + 0.0),
        other => other,
    }
}

impl GrowingValue for Values {
    fn has_added(&self) -> bool {
        self.written < self.bytes.len()
    }

    fn write_added(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[self.written..]);
        self.written = self.bytes.len();
    }

    fn read_added(&mut self, bytes: &[u8]) -> Option<()> {
        self.read(bytes)?;
        self.written = self.bytes.len();
        Some(())
    }

    fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |index| index.capacity() * size_of::<usize>());
        self.bytes.capacity() + index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::row::Row;
    use crate::table::value::Value;
    use proptest::prelude::*;

    fn array(values: &Values, data_type: &DataType) -> Value {
        let mut out = Vec::new();
        values.write(&mut RowWriter::new(&mut out, 1), 0);
        Row(&out).value(0, 1, &DataType::Array(Box::new(data_type.clone())))
    }

    fn value() -> impl Strategy<Value = (DataType, Vec<Value>)> {
        use proptest::collection::vec;
        prop_oneof![
            vec(-3i64..3, 0..9)
                .prop_map(|v| (DataType::Long, v.into_iter().map(Value::Long).collect())),
            vec(any::<bool>(), 0..9)
                .prop_map(|v| (DataType::Boolean, v.into_iter().map(Value::Boolean).collect())),
            vec(1i32..4, 0..9).prop_map(|v| {
                (DataType::Double, v.into_iter().map(|v| Value::Double(f64::from(v))).collect())
            }),
            vec(-3i128..3, 0..9).prop_map(|v| {
                (DataType::Decimal(20, 2), v.into_iter().map(Value::Decimal).collect())
            }),
            vec("[ab]{0,3}", 0..9)
                .prop_map(|v| (DataType::String, v.into_iter().map(Value::String).collect())),
        ]
    }

    #[test]
    fn a_list_has_a_limit() {
        let mut values = Values::new(Collection::List, DataType::String);
        assert!(values.has_room(1000));
        assert!(!values.has_room(BYTES_MAX + 1));
        values.add(Cell::Bytes(b"a"));
        assert!(!values.has_room(BYTES_MAX) && values.is_within_limit());
    }

    proptest! {
        /// The values of lists and sets are restored in order from parts, from complete encodings
        /// and from the older encoding.
        #[test]
        fn every_encoding_gives_the_values_back((data_type, added) in value(), set: bool, cut in 0usize..9) {
            let collection = if set { Collection::Set } else { Collection::List };
            let mut expected = Vec::new();
            for value in &added {
                if !set || !expected.contains(value) {
                    expected.push(value.clone());
                }
            }
            let (mut values, mut parts) = (Values::new(collection, data_type.clone()), Vec::new());
            let mut earlier = (expected.len() as u32).to_le_bytes().to_vec();
            for value in &expected {
                let row = crate::table::row::encode(std::slice::from_ref(value));
                earlier.extend_from_slice(&(row.len() as u32).to_le_bytes());
                earlier.extend_from_slice(&row);
            }
            for (i, value) in added.iter().enumerate() {
                let row = crate::table::row::encode(std::slice::from_ref(value));
                values.add(field(&row, 0, 1, &data_type));
                if i == cut && values.has_added() {
                    let mut part = Vec::new();
                    values.write_added(&mut part);
                    parts.push(part);
                }
            }
            prop_assert_eq!(array(&values, &data_type), Value::Array(expected.clone()));
            let mut last = Vec::new();
            values.write_added(&mut last);
            parts.push(last);
            let mut again = Values::new(collection, data_type.clone());
            for part in &parts {
                again.read_added(part).unwrap();
            }
            prop_assert!(!again.has_added());
            prop_assert_eq!(array(&again, &data_type), Value::Array(expected.clone()));
            let mut whole = Vec::new();
            values.encode(&mut whole);
            for bytes in [&whole, &earlier] {
                let (mut again, mut rest) = (Values::new(collection, data_type.clone()), bytes.as_slice());
                again.decode(&mut rest).unwrap();
                prop_assert!(rest.is_empty());
                prop_assert_eq!(array(&again, &data_type), Value::Array(expected.clone()));
                let mut rest = bytes.as_slice();
                prop_assert_eq!(Values::take_count(&mut rest), Some(expected.len() as u32));
                prop_assert!(rest.is_empty());
            }
        }
    }
}
