//! Collected values: a list in order of arrival, or a set.
//!
//! The values lie behind each other in one buffer, as they are written to checkpoints, so that what
//! an epoch added is a range of it ([`Grows`]).

use super::parts::Grows;
use crate::table::expr::cell::{Cell, field};
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use hashbrown::HashTable;
use millstream_engine::key_group::hash_bytes;

/// The length in bytes before each value.
const LENGTH: usize = 4;

/// The values, each as a row.
#[derive(Clone, Debug)]
pub struct Values {
    /// Length and row of each value.
    bytes: Vec<u8>,
    count: usize,
    /// Of a set: where the length of each value stands, by the hash of its row.
    index: Option<HashTable<usize>>,
    /// Bytes that are in the checkpoint's parts already.
    written: usize,
    row: Vec<u8>,
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// The row whose length stands at a place.
fn row_at(bytes: &[u8], at: usize) -> &[u8] {
    let length = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    &bytes[at + LENGTH..at + LENGTH + length as usize]
}

/// The rows behind each other in a buffer.
fn rows(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let row = (!bytes.is_empty()).then(|| row_at(bytes, 0))?;
        bytes = &bytes[LENGTH + row.len()..];
        Some(row)
    })
}

impl Values {
    /// An empty list, or an empty set.
    pub fn new(set: bool) -> Self {
        let index = set.then(HashTable::new);
        Self { bytes: Vec::new(), count: 0, index, written: 0, row: Vec::new() }
    }

    /// Whether each value is kept once.
    pub fn is_set(&self) -> bool {
        self.index.is_some()
    }

    /// Adds the values of another list or set behind the own ones.
    pub fn merge(&mut self, other: &Self) {
        for row in rows(&other.bytes) {
            self.add_row(row);
        }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Adds a row. Returns false if a set has it already.
    fn add_row(&mut self, row: &[u8]) -> bool {
        let at = self.bytes.len();
        if let Some(index) = &mut self.index {
            let (bytes, hash) = (&self.bytes, hash_bytes(row));
            if index.find(hash, |at| row_at(bytes, *at) == row).is_some() {
                return false;
            }
            index.insert_unique(hash, at, |at| hash_bytes(row_at(bytes, *at)));
        }
        self.bytes.extend_from_slice(&(row.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(row);
        self.count += 1;
        true
    }

    /// Takes a value in.
    pub fn add(&mut self, cell: Cell<'_>) {
        self.add_row_of(&[cell]);
    }

    /// Takes several values in that belong together. Returns whether they are new to a set.
    pub fn add_row_of(&mut self, cells: &[Cell<'_>]) -> bool {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        let mut writer = RowWriter::new(&mut row, cells.len());
        for (i, cell) in cells.iter().enumerate() {
            let cell = match *cell {
                // 0.0 and -0.0 are one value in a set, and so are all that are no numbers.
                Cell::Double(v) if v.is_nan() => Cell::Double(f64::NAN),
                Cell::Double(v) => Cell::Double(v + 0.0),
                other => other,
            };
            cell.put(&mut writer, i);
        }
        let added = self.add_row(&row);
        self.row = row;
        added
    }

    /// The bytes of an array of the values.
    pub fn array(&self, element: &DataType) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = RowWriter::array(&mut out, self.count);
        for (i, row) in rows(&self.bytes).enumerate() {
            field(row, 0, 1, element).put(&mut writer, i);
        }
        out
    }

    /// The values, which are texts, with a separator between them; `None` if there are none.
    pub fn joined(&self, separator: &str) -> Option<Vec<u8>> {
        let texts = rows(&self.bytes).map(|row| field(row, 0, 1, &DataType::String).bytes());
        let texts: Vec<&[u8]> = texts.collect();
        (!texts.is_empty()).then(|| texts.join(separator.as_bytes()))
    }

    /// Appends the values in the checkpoint's encoding: their number, length and row of each.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.count as u32).to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }

    /// Replaces the values by what [`encode`](Self::encode) wrote; `None` if the bytes end too
    /// early.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let count = u32::from_le_bytes(super::encoded::take(bytes)?);
        *self = Self::new(self.is_set());
        (0..count).try_for_each(|_| self.decode_row(bytes))
    }

    fn decode_row(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let length = u32::from_le_bytes(super::encoded::take(bytes)?) as usize;
        let (row, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        self.add_row(row);
        Some(())
    }
}

impl Grows for Values {
    fn has_added(&self) -> bool {
        self.written < self.bytes.len()
    }

    fn write_added(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[self.written..]);
        self.written = self.bytes.len();
    }

    fn read_added(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            self.decode_row(&mut bytes)?;
        }
        self.written = self.bytes.len();
        Some(())
    }

    fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |index| index.capacity() * size_of::<usize>());
        self.bytes.capacity() + index
    }
}
