//! An index of the distinct values of an array or of a map's keys, with their positions.
//!
//! Up to [`FEW`] values are compared one by one, without an allocation. Larger sets are hashed, so
//! that the cost is linear in the number of values.

use crate::table::expr::cell::{Cell, order};
use crate::table::expr::functions::canonical_value::canonical;
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use bumpalo::Bump;
use smallvec::SmallVec;
use std::collections::HashMap;

/// The largest number of values that are compared one by one.
const FEW: usize = 16;

/// Distinct values in insertion order, with an index by value.
pub(super) struct ValueIndex<'a, 't> {
    data_type: &'t DataType,
    /// The values in the form in which they were inserted.
    values: SmallVec<[Cell<'a>; FEW]>,
    /// The position of each value by its canonical bytes; empty for up to [`FEW`] values.
    positions: HashMap<Box<[u8]>, usize>,
    key: Vec<u8>,
    /// Temporary memory for canonical forms, reset after each value.
    scratch: Bump,
}

impl<'a, 't> ValueIndex<'a, 't> {
    /// Creates an empty index.
    pub fn new(data_type: &'t DataType) -> Self {
        let (values, positions, key) = (SmallVec::new(), HashMap::new(), Vec::new());
        Self { data_type, values, positions, key, scratch: Bump::new() }
    }

    /// Creates an index of the distinct values.
    pub fn of(values: impl Iterator<Item = Cell<'a>>, data_type: &'t DataType) -> Self {
        let mut index = Self::new(data_type);
        for value in values {
            // A duplicate is ignored; the first of the equal values is kept.
            let _ = index.insert(value);
        }
        index
    }

    /// Adds a value. If the index has an equal value, the value is not added, and the position of
    /// the equal value is returned as the error.
    pub fn insert(&mut self, value: Cell<'a>) -> Result<(), usize> {
        if let Some(at) = self.position(value) {
            return Err(at);
        }
        self.values.push(value);
        if self.values.len() == FEW + 1 {
            for at in 0..=FEW {
                self.write_key(self.values[at]);
                self.positions.insert(self.key.as_slice().into(), at);
            }
        } else if self.values.len() > FEW {
            // `self.key` contains the canonical bytes, which `position` has written.
            self.positions.insert(self.key.as_slice().into(), self.values.len() - 1);
        }
        Ok(())
    }

    /// Whether the index has an equal value.
    pub fn contains(&mut self, value: Cell<'_>) -> bool {
        self.position(value).is_some()
    }

    /// The values, in the order of their insertion.
    pub fn into_values(self) -> Vec<Cell<'a>> {
        self.values.into_vec()
    }

    fn position(&mut self, value: Cell<'_>) -> Option<usize> {
        if self.values.len() <= FEW {
            let is_equal = |other: &Cell<'_>| order(*other, value, self.data_type).is_eq();
            return self.values.iter().position(is_equal);
        }
        self.write_key(value);
        self.positions.get(self.key.as_slice()).copied()
    }

    /// Writes the canonical bytes of a value to `self.key`. Equal values have the same canonical
    /// bytes.
    fn write_key(&mut self, value: Cell<'_>) {
        self.key.clear();
        let mut writer = RowWriter::new(&mut self.key, 1);
        canonical(value, self.data_type, &self.scratch).put(&mut writer, 0);
        self.scratch.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_and_linear_lookup_agree() {
        for count in [3, FEW as i64, FEW as i64 + 1, 1000] {
            let mut index = ValueIndex::new(&DataType::Double);
            for n in 0..count {
                assert_eq!(index.insert(Cell::Double(n as f64)), Ok(()));
            }
            assert_eq!(index.insert(Cell::Double(-0.0)), Err(0), "-0.0 equals 0.0");
            assert_eq!(index.insert(Cell::Double(count as f64 - 1.0)), Err(count as usize - 1));
            assert!(!index.contains(Cell::Null) && !index.contains(Cell::Double(f64::NAN)));
            assert_eq!(index.insert(Cell::Null), Ok(()));
            assert_eq!(index.insert(Cell::Double(f64::NAN)), Ok(()));
            assert_eq!(index.insert(Cell::Null), Err(count as usize));
            assert_eq!(index.insert(Cell::Double(-f64::NAN)), Err(count as usize + 1));
            assert_eq!(index.into_values().len(), count as usize + 2);
        }
    }
}
