//! The rows that a join gives: of a pair, or of one side beside NULLs.

use super::super::stages::copy;
use super::side::LateRowOutput;
use crate::table::row::{Row, RowWriter, Slot};
use crate::table::types::Physical;

/// A column that goes from a row of one side into the row of both: its slot there, its place here.
pub(in super::super) type Copied = (Slot, usize, Physical);

/// Writes rows of both sides. The side that is the same for many pairs is written once.
pub(super) struct Pairs {
    copies: [Vec<Copied>; 2],
    width: usize,
    out: Vec<u8>,
    /// Where what belongs to the side that was written first ends.
    common: usize,
}

impl Pairs {
    /// `copies` of each side; the row has so many columns.
    pub fn new(copies: [Vec<Copied>; 2], width: usize) -> Self {
        Self { copies, width, out: Vec::new(), common: 0 }
    }

    /// Begins with a row of a side, beside NULLs.
    #[inline]
    pub fn begin(&mut self, side: LateRowOutput, row: Row<'_>) {
        self.out.clear();
        let mut writer = RowWriter::new(&mut self.out, self.width);
        for (slot, to, physical) in &self.copies[side.index()] {
            copy(&mut writer, *to, row, *slot, *physical);
        }
        self.common = self.out.len();
    }

    /// Puts a row of the other side in the place of the NULLs, or of the row before.
    #[inline]
    pub fn complete(&mut self, side: LateRowOutput, row: Row<'_>) {
        self.out.truncate(self.common);
        let mut writer = RowWriter::resume(&mut self.out, self.width);
        for (slot, to, physical) in &self.copies[side.index()] {
            if row.is_null(*slot) {
                writer.reset(*to);
            } else {
                copy(&mut writer, *to, row, *slot, *physical);
            }
        }
    }

    /// The row.
    #[inline]
    pub fn row(&self) -> Row<'_> {
        Row(&self.out)
    }
}
