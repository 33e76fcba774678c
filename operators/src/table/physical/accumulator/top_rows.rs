//! The rows of `max_by(x, y, n)` and `min_by(x, y, n)`: the n best, in order.

use crate::table::expr::cell::{Cell, field, order};
use crate::table::physical::accumulator::encoding::take;
use crate::table::types::DataType;
use std::cmp::Ordering;

/// The n best rows of a group, the best first. Each row has the value and the ordering key. Of rows
/// with equal keys, earlier ones come first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopRows {
    rows: Vec<Box<[u8]>>,
    /// The bytes of the rows.
    bytes: usize,
}

/// Whether a row comes before a later one with the key `new`.
fn precedes(row: &[u8], new: Cell<'_>, key: &DataType, better: Ordering) -> bool {
    order(field(row, 1, 2, key), new, key) != better.reverse()
}

impl TopRows {
    /// The rows, the best first.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|row| &**row)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The heap memory in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Box<[u8]>>() + self.bytes
    }

    /// Whether a row with this key is among the `most` best. `better` is the order of a key that is
    /// better than another.
    pub fn takes(&self, new: Cell<'_>, most: usize, key: &DataType, better: Ordering) -> bool {
        let is_full = self.rows.len() >= most;
        !is_full || self.rows.last().is_some_and(|last| !precedes(last, new, key, better))
    }

    /// Adds a row if it is among the `most` best.
    pub fn add(&mut self, row: &[u8], most: usize, key: &DataType, better: Ordering) {
        let new = field(row, 1, 2, key);
        let at = self.rows.partition_point(|other| precedes(other, new, key, better));
        if at >= most {
            return;
        }
        self.rows.insert(at, row.into());
        self.bytes += row.len();
        while self.rows.len() > most {
            self.bytes -= self.rows.pop().map_or(0, |row| row.len());
        }
    }

    /// Appends the rows in the encoding of checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        for row in &self.rows {
            out.extend_from_slice(&(row.len() as u32).to_le_bytes());
            out.extend_from_slice(row);
        }
    }

    /// Decodes rows; `None` if the bytes are damaged.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        *self = Self::default();
        let count = u32::from_le_bytes(take(bytes)?);
        for _ in 0..count {
            let length = u32::from_le_bytes(take(bytes)?) as usize;
            let (row, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            self.bytes += row.len();
            self.rows.push(row.into());
        }
        Some(())
    }
}
