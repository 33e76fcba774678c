//! The output rows of a join: a pair of rows, or one row with NULLs for the other side.

use super::super::stages::copy;
use super::side::JoinSide;
use crate::table::row::{Row, RowWriter, Slot};
use crate::table::types::Physical;

/// A column to copy to the output: its slot in the input, its index in the output, its physical
/// type.
pub(in super::super) type Copied = (Slot, usize, Physical);

/// Writes the output rows of a join. A row that is paired with several rows of the other side is
/// written only once.
pub(super) struct Pairs {
    copies: [Vec<Copied>; 2],
    width: usize,
    out: Vec<u8>,
    /// The length in bytes of the part that is common to all pairs of a row.
    common: usize,
}

impl Pairs {
    /// Creates a writer. `copies` has the columns to copy of each side; `width` is the number of
    /// output columns.
    pub fn new(copies: [Vec<Copied>; 2], width: usize) -> Self {
        Self { copies, width, out: Vec::new(), common: 0 }
    }

    /// Starts an output row with a row of one side, and NULLs for the other side.
    #[inline]
    pub fn begin(&mut self, side: JoinSide, row: Row<'_>) {
        self.out.clear();
        let mut writer = RowWriter::new(&mut self.out, self.width);
        for (slot, to, physical) in &self.copies[side.index()] {
            copy(&mut writer, *to, row, *slot, *physical);
        }
        self.common = self.out.len();
    }

    /// Completes the output row with a row of the other side. The row of an earlier call is
    /// overwritten.
    #[inline]
    pub fn complete(&mut self, side: JoinSide, row: Row<'_>) {
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

    /// The current output row.
    #[inline]
    pub fn row(&self) -> Row<'_> {
        Row(&self.out)
    }
}
