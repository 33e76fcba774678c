//! The number of rows of each value, for `percentile`, `median`, `percentile_disc` and `mode`.
//!
//! The values are ordered, so that a percentile is found in one pass. The memory grows with the
//! number of distinct values, not with that of rows.

use crate::table::expr::cell::Cell;
use crate::table::expr::functions::java_hash;
use crate::table::physical::accumulator::encoding::take;
use crate::table::physical::accumulator::growing::GrowingValue;
use crate::table::physical::accumulator::hash_order::iteration_order;
use crate::table::types::{DataType, Physical};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The maximum memory of the values of one group, in bytes.
const BYTES_MAX: usize = 1 << 30;
/// The memory of an entry of the tree in bytes, without the bytes of the value: an estimate.
const ENTRY_BYTES: usize = 40;

/// The values in ascending order, with their numbers of rows.
#[derive(Clone, Debug, PartialEq)]
enum Counts {
    /// Booleans, numbers, times and intervals, mapped to numbers of the same order.
    Numbers(BTreeMap<i128, u64>),
    /// Strings and binary values. Nested values are ordered by their encoding.
    Bytes(BTreeMap<Vec<u8>, u64>),
}

/// The number of rows of each value.
#[derive(Clone, Debug)]
pub struct ValueCounts {
    counts: Counts,
    /// The number of rows.
    total: u64,
    /// The bytes of the values that the tree owns.
    value_bytes: usize,
    /// The additions since the last write, encoded; `None` if additions are not tracked.
    added: Option<Vec<u8>>,
}

impl PartialEq for ValueCounts {
    fn eq(&self, other: &Self) -> bool {
        self.counts == other.counts
    }
}

/// Maps a value to a number, so that the order of numbers is that of the values. All NaNs have the
/// same number, the largest.
pub(super) fn number_of(cell: Cell<'_>) -> i128 {
    match cell {
        Cell::Bool(v) => i128::from(v),
        Cell::Long(v) => i128::from(v),
        Cell::Decimal(v) => v,
        Cell::Double(v) => {
            let bits = if v.is_nan() { f64::NAN } else { v }.to_bits() as i64;
            i128::from(if bits < 0 { !bits ^ i64::MIN } else { bits })
        }
        _ => 0,
    }
}

/// The inverse of [`number_of`].
pub(super) fn cell_of(number: i128, physical: Physical) -> Cell<'static> {
    match physical {
        Physical::Bool => Cell::Bool(number != 0),
        Physical::Decimal => Cell::Decimal(number),
        Physical::Double => {
            let key = number as i64;
            let bits = if key < 0 { !(key ^ i64::MIN) } else { key };
            Cell::Double(f64::from_bits(bits as u64))
        }
        _ => Cell::Long(number as i64),
    }
}

impl ValueCounts {
    /// Creates the counts of values of a type.
    pub fn new(data_type: &DataType) -> Self {
        let counts = match data_type.physical() {
            Physical::Bytes => Counts::Bytes(BTreeMap::new()),
            _ => Counts::Numbers(BTreeMap::new()),
        };
        Self { counts, total: 0, value_bytes: 0, added: None }
    }

    /// The number of rows.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether the memory is within the limit.
    pub fn is_within_limit(&self) -> bool {
        self.heap_bytes() <= BYTES_MAX
    }

    /// Adds rows of one value. Returns false if their number overflows.
    pub fn add(&mut self, cell: Cell<'_>, rows: u64) -> bool {
        let Some(total) = self.total.checked_add(rows) else { return false };
        match (&mut self.counts, cell) {
            (Counts::Bytes(counts), Cell::Bytes(bytes)) => {
                match counts.get_mut(bytes) {
                    Some(count) => *count += rows,
                    None => {
                        self.value_bytes += bytes.len();
                        counts.insert(bytes.to_vec(), rows);
                    }
                }
                if let Some(added) = &mut self.added {
                    put_bytes(bytes, rows, added);
                }
            }
            (Counts::Numbers(counts), cell) => {
                let number = number_of(cell);
                *counts.entry(number).or_default() += rows;
                if let Some(added) = &mut self.added {
                    put_number(number, rows, added);
                }
            }
            _ => unreachable!("the values of a group have one type"),
        }
        self.total = total;
        true
    }

    /// Adds the rows of other counts of the same type. Returns false if their number overflows.
    pub fn merge(&mut self, other: &Self) -> bool {
        match &other.counts {
            Counts::Bytes(counts) => {
                counts.iter().all(|(value, rows)| self.add(Cell::Bytes(value), *rows))
            }
            Counts::Numbers(counts) => {
                counts.iter().all(|(number, rows)| self.add_number(*number, *rows))
            }
        }
    }

    fn add_number(&mut self, number: i128, rows: u64) -> bool {
        let Counts::Numbers(counts) = &mut self.counts else { return false };
        let Some(total) = self.total.checked_add(rows) else { return false };
        self.total = total;
        *counts.entry(number).or_default() += rows;
        if let Some(added) = &mut self.added {
            put_number(number, rows, added);
        }
        true
    }

    /// The numbers of values (see [`number_of`]) at ascending positions of all rows, which count
    /// from 0. Positions beyond the last row are those of the last.
    pub fn numbers_at(&self, positions: &[u64]) -> Vec<i128> {
        let Counts::Numbers(counts) = &self.counts else { return Vec::new() };
        let mut out = Vec::with_capacity(positions.len());
        let (mut entries, mut end, mut last) = (counts.iter(), 0, 0);
        for position in positions {
            while end <= *position {
                let Some((number, rows)) = entries.next() else { break };
                (end, last) = (end + rows, *number);
            }
            out.push(last);
        }
        out
    }

    /// Visits the values with their numbers of rows, in ascending order.
    fn each<'c>(&'c self, physical: Physical, see: &mut dyn FnMut(Cell<'c>, u64)) {
        match &self.counts {
            Counts::Bytes(counts) => {
                counts.iter().for_each(|(value, rows)| see(Cell::Bytes(value), *rows));
            }
            Counts::Numbers(counts) => {
                counts.iter().for_each(|(number, rows)| see(cell_of(*number, physical), *rows));
            }
        }
    }

    /// The most frequent value; `None` if there are no rows. `replaces` decides between two values
    /// that are equally frequent: it returns whether the second replaces the first.
    pub fn most_frequent(
        &self,
        physical: Physical,
        replaces: impl Fn(Cell<'_>, Cell<'_>) -> bool,
    ) -> Option<Cell<'_>> {
        let mut best: Option<(u64, Cell<'_>)> = None;
        self.each(physical, &mut |cell, rows| {
            let wins = best.as_ref().is_none_or(|(most, so_far)| {
                rows > *most || rows == *most && replaces(*so_far, cell)
            });
            if wins {
                best = Some((rows, cell));
            }
        });
        best.map(|(_, cell)| cell)
    }

    /// The most frequent value; of several, the one that comes first in Spark's hash table. `None`
    /// if there are no rows, if Spark's order of these values is unknown, or if too many of them
    /// have the same hash.
    pub fn first_most_frequent(&self, data_type: &DataType) -> Option<Cell<'_>> {
        let physical = data_type.physical();
        let (mut most, mut first, mut several) = (0, None, false);
        self.each(physical, &mut |cell, rows| match rows.cmp(&most) {
            Ordering::Greater => (most, first, several) = (rows, Some(cell), false),
            Ordering::Equal => several = true,
            Ordering::Less => {}
        });
        if !several {
            return first;
        }
        let (mut hashes, mut is_most) = (Vec::new(), Vec::new());
        self.each(physical, &mut |cell, rows| {
            hashes.extend(java_hash(cell, data_type));
            is_most.push(rows == most);
        });
        if hashes.len() < is_most.len() {
            return None;
        }
        let order = iteration_order(&hashes)?;
        let wanted = order.into_iter().find(|index| is_most[*index as usize])?;
        match &self.counts {
            Counts::Bytes(counts) => {
                counts.keys().nth(wanted as usize).map(|value| Cell::Bytes(value))
            }
            Counts::Numbers(counts) => {
                counts.keys().nth(wanted as usize).map(|number| cell_of(*number, physical))
            }
        }
    }

    /// Appends the counts in the encoding of checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut entries = Vec::new();
        match &self.counts {
            Counts::Bytes(counts) => {
                counts.iter().for_each(|(value, rows)| put_bytes(value, *rows, &mut entries));
            }
            Counts::Numbers(counts) => {
                counts.iter().for_each(|(number, rows)| put_number(*number, *rows, &mut entries));
            }
        }
        out.extend_from_slice(&self.total.to_le_bytes());
        out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
        out.extend_from_slice(&entries);
    }

    /// Replaces the counts by decoded ones; `None` if the bytes are damaged.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let total = u64::from_le_bytes(take(bytes)?);
        let length = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
        let (entries, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        self.clear();
        self.read_entries(entries)?;
        (self.total == total).then_some(())
    }

    /// Skips encoded counts and returns their number of rows, for `inspect`; `None` if the bytes
    /// are truncated.
    pub fn take_total(bytes: &mut &[u8]) -> Option<u64> {
        let total = u64::from_le_bytes(take(bytes)?);
        let length = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
        *bytes = bytes.get(length..)?;
        Some(total)
    }

    fn clear(&mut self) {
        match &mut self.counts {
            Counts::Bytes(counts) => counts.clear(),
            Counts::Numbers(counts) => counts.clear(),
        }
        (self.total, self.value_bytes) = (0, 0);
    }

    /// Adds encoded entries, which are not tracked as additions.
    fn read_entries(&mut self, mut bytes: &[u8]) -> Option<()> {
        let added = self.added.take();
        while !bytes.is_empty() {
            let rows = u64::from_le_bytes(take(&mut bytes)?);
            let is_read = match &self.counts {
                Counts::Numbers(_) => self.add_number(i128::from_le_bytes(take(&mut bytes)?), rows),
                Counts::Bytes(_) => {
                    let length = u32::from_le_bytes(take(&mut bytes)?) as usize;
                    let (value, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    self.add(Cell::Bytes(value), rows)
                }
            };
            is_read.then_some(())?;
        }
        self.added = added;
        Some(())
    }
}

fn put_number(number: i128, rows: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(value: &[u8], rows: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

impl GrowingValue for ValueCounts {
    fn track(&mut self) {
        self.added.get_or_insert_default();
    }

    fn has_added(&self) -> bool {
        self.added.as_ref().is_some_and(|added| !added.is_empty())
    }

    fn write_added(&mut self, out: &mut Vec<u8>) {
        if let Some(added) = &mut self.added {
            out.append(added);
        }
    }

    fn read_added(&mut self, bytes: &[u8]) -> Option<()> {
        self.read_entries(bytes)
    }

    fn whole_bytes(&self) -> Option<usize> {
        Some(match &self.counts {
            Counts::Numbers(counts) => 16 + counts.len() * 24,
            Counts::Bytes(counts) => 16 + counts.len() * 12 + self.value_bytes,
        })
    }

    fn write_whole(&mut self, out: &mut Vec<u8>) {
        self.encode(out);
        self.added.iter_mut().for_each(Vec::clear);
    }

    fn read_whole(&mut self, mut bytes: &[u8]) -> Option<()> {
        self.decode(&mut bytes)
    }

    fn heap_bytes(&self) -> usize {
        let entries = match &self.counts {
            Counts::Numbers(counts) => counts.len(),
            Counts::Bytes(counts) => counts.len(),
        };
        entries * ENTRY_BYTES + self.value_bytes + self.added.as_ref().map_or(0, Vec::capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Counts are restored from their parts and from the complete encoding.
        #[test]
        fn every_encoding_gives_the_counts_back(
            texts in proptest::collection::vec("[ab]{0,2}", 0..20),
            numbers in proptest::collection::vec(-3i64..3, 0..20),
            cut in 0usize..20,
        ) {
            let texts: Vec<Cell<'_>> = texts.iter().map(|v| Cell::Bytes(v.as_bytes())).collect();
            let numbers: Vec<Cell<'_>> = numbers.iter().map(|v| Cell::Long(*v)).collect();
            for (values, data_type) in [(texts, DataType::String), (numbers, DataType::Long)] {
                let (mut counts, mut again) = (ValueCounts::new(&data_type), ValueCounts::new(&data_type));
                counts.track();
                let mut parts = [Vec::new(), Vec::new()];
                for (i, cell) in values.iter().enumerate() {
                    prop_assert!(counts.add(*cell, 2));
                    if i == cut {
                        counts.write_added(&mut parts[0]);
                    }
                }
                counts.write_added(&mut parts[1]);
                prop_assert!(!counts.has_added());
                parts.iter().for_each(|part| again.read_added(part).unwrap());
                prop_assert_eq!((&again, again.total()), (&counts, values.len() as u64 * 2));
                let mut whole = Vec::new();
                counts.write_whole(&mut whole);
                let mut decoded = ValueCounts::new(&data_type);
                decoded.read_whole(&whole).unwrap();
                prop_assert_eq!((&decoded, decoded.total()), (&counts, counts.total()));
                prop_assert_eq!(ValueCounts::take_total(&mut whole.as_slice()), Some(counts.total()));
                prop_assert!(whole.len() <= counts.whole_bytes().unwrap());
                if !whole.is_empty() {
                    let damaged = &whole[..whole.len() - 1];
                    prop_assert!(ValueCounts::new(&data_type).read_whole(damaged).is_none());
                }
            }
        }
    }
}
