//! Collected values: a list in order of arrival, or a set.
//!
//! The whole collection is written to the checkpoint with each change: its size is the cost of a
//! record.

use crate::table::expr::cell::{Cell, field};
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use hashbrown::HashTable;
use millstream_engine::key_group::hash_bytes;

/// The values, each as a row of one field.
#[derive(Debug)]
pub struct Values {
    rows: Vec<Box<[u8]>>,
    /// Of a set, where a row stands, by its hash.
    index: Option<HashTable<u32>>,
    row: Vec<u8>,
}

impl Clone for Values {
    fn clone(&self) -> Self {
        let mut clone = Self::new(self.index.is_some());
        for row in &self.rows {
            clone.add_row(row);
        }
        clone
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl Values {
    /// None yet.
    pub fn new(set: bool) -> Self {
        Self { rows: Vec::new(), index: set.then(HashTable::new), row: Vec::new() }
    }

    /// Whether each value is kept once.
    pub fn is_set(&self) -> bool {
        self.index.is_some()
    }

    /// Takes in what another one has, behind its own.
    pub fn merge(&mut self, other: &Self) {
        for row in &other.rows {
            self.add_row(row);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether it was added: a set has each value once.
    fn add_row(&mut self, row: &[u8]) -> bool {
        if let Some(index) = &mut self.index {
            let (rows, hash) = (&self.rows, hash_bytes(row));
            if index.find(hash, |at| *rows[*at as usize] == *row).is_some() {
                return false;
            }
            let at = rows.len() as u32;
            index.insert_unique(hash, at, |at| hash_bytes(&rows[*at as usize]));
        }
        self.rows.push(row.into());
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

    /// The bytes of an array of them.
    pub fn array(&self, element: &DataType) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = RowWriter::array(&mut out, self.rows.len());
        for (i, row) in self.rows.iter().enumerate() {
            field(row, 0, 1, element).put(&mut writer, i);
        }
        out
    }

    /// Texts, with a separator between them; `None` if there is none.
    pub fn joined(&self, separator: &str) -> Option<Vec<u8>> {
        let texts = self.rows.iter().map(|row| field(row, 0, 1, &DataType::String).bytes());
        let texts: Vec<&[u8]> = texts.collect();
        (!texts.is_empty()).then(|| texts.join(separator.as_bytes()))
    }

    /// Appends them as they stand in a checkpoint.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        for row in &self.rows {
            out.extend_from_slice(&(row.len() as u32).to_le_bytes());
            out.extend_from_slice(row);
        }
    }

    /// The inverse of [`encode`](Self::encode); `None` if the bytes end too early.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let count = u32::from_le_bytes(super::encoded::take(bytes)?);
        *self = Self::new(self.is_set());
        for _ in 0..count {
            let length = u32::from_le_bytes(super::encoded::take(bytes)?) as usize;
            let (row, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            self.add_row(row);
        }
        Some(())
    }
}
