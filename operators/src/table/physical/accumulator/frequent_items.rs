//! The most frequent values, for `approx_top_k`: the frequent-items sketch of Apache DataSketches.
//!
//! A hash table counts up to three quarters of its slots. When it is full, the median of its counts
//! is subtracted from all counts, and values without a positive count are dropped. The sum of the
//! subtrahends is the error of an estimate. Hashes, probes and samples are those of DataSketches, so
//! the order of equally frequent values is Spark's.

use super::encoding::take;
use crate::table::expr::cell::Cell;
use crate::table::expr::functions::java_hash;
use crate::table::types::DataType;
use std::cmp::Reverse;

/// The size of a new table, as a power of two.
const LOG_SIZE_MIN: u8 = 3;
/// The largest distance of a key from the slot of its hash. Only keys that were chosen to have one
/// hash are so far away; each of them would slow down all others.
const DISTANCE_MAX: u32 = 4096;
/// The maximum memory of the values of one group, in bytes.
const BYTES_MAX: usize = 1 << 30;
/// The largest number of counts whose median is computed.
const SAMPLE_MAX: usize = 1024;

/// A counted value. The bits of a DOUBLE, so that NaN equals itself and 0.0 differs from -0.0.
#[derive(Clone, Debug, PartialEq)]
enum Key {
    Long(i64),
    Decimal(i128),
    Bytes(Box<[u8]>),
}

#[derive(Clone, Debug, PartialEq)]
struct Slot {
    key: Key,
    count: i64,
    /// The distance from the slot of the key's hash, from 1.
    distance: u32,
}

/// The sketch of the values of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequentItems {
    data_type: DataType,
    log_size_max: u8,
    slots: Vec<Option<Slot>>,
    active: usize,
    /// The sum of the medians that were subtracted.
    offset: i64,
    /// The number of NULLs, which are counted apart.
    nulls: i64,
    /// The bytes of the keys that are texts.
    key_bytes: usize,
}

impl FrequentItems {
    /// Creates a sketch that counts at least `items_max` values at a time.
    pub fn new(data_type: DataType, items_max: usize) -> Self {
        let size = (items_max * 4).div_ceil(3).next_power_of_two();
        let log_size_max = (size.trailing_zeros() as u8).max(LOG_SIZE_MIN);
        let slots = vec![None; 1 << LOG_SIZE_MIN];
        Self { data_type, log_size_max, slots, active: 0, offset: 0, nulls: 0, key_bytes: 0 }
    }

    /// Adds a value. False if the values take too much memory, or too many have one hash.
    #[must_use]
    pub fn add(&mut self, cell: Cell<'_>) -> bool {
        match key_of(cell) {
            Some(key) => self.add_key(key, 1),
            None => {
                self.nulls += 1;
                true
            }
        }
    }

    fn add_key(&mut self, key: Key, count: i64) -> bool {
        if !self.put(key, count) || self.heap_bytes() > BYTES_MAX {
            return false;
        }
        if self.active <= capacity(self.slots.len()) {
            return true;
        }
        if self.slots.len() < 1 << self.log_size_max {
            let larger = vec![None; self.slots.len() * 2];
            let held = std::mem::replace(&mut self.slots, larger);
            (self.active, self.key_bytes) = (0, 0);
            held.into_iter().flatten().all(|slot| self.put(slot.key, slot.count))
        } else {
            self.purge();
            true
        }
    }

    /// Adds to the count of a key, for which there is room. False if the key is too far from the
    /// slot of its hash.
    fn put(&mut self, key: Key, count: i64) -> bool {
        let mask = self.slots.len() - 1;
        let (mut at, mut distance) = (self.hash(&key) & mask, 1);
        while let Some(slot) = &mut self.slots[at] {
            if slot.key == key {
                slot.count += count;
                return true;
            }
            at = (at + 1) & mask;
            distance += 1;
        }
        if distance > DISTANCE_MAX {
            return false;
        }
        if let Key::Bytes(bytes) = &key {
            self.key_bytes += bytes.len();
        }
        self.slots[at] = Some(Slot { key, count, distance });
        self.active += 1;
        true
    }

    fn hash(&self, key: &Key) -> usize {
        let hash = match (key, &self.data_type) {
            // As in Spark, the item of a text is a Java string.
            (Key::Bytes(bytes), DataType::String) => java_string_hash(bytes),
            _ => java_hash(cell_of(key, &self.data_type), &self.data_type).unwrap_or(0),
        };
        let mut hash = i64::from(hash as i32) as u64;
        hash = (hash ^ hash >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        (hash ^ hash >> 33) as usize
    }

    /// Subtracts the median of the counts from all, and drops the values without a positive count.
    fn purge(&mut self) {
        let counts = self.slots.iter().flatten().map(|slot| slot.count);
        let mut sample: Vec<i64> = counts.take(SAMPLE_MAX).collect();
        let middle = sample.len() / 2;
        let (_, median, _) = sample.select_nth_unstable(middle);
        let median = *median;
        self.slots.iter_mut().flatten().for_each(|slot| slot.count -= median);
        // From the back, beginning behind an empty slot, so that no probe is interrupted.
        let first = self.slots.iter().rposition(Option::is_none).unwrap_or(0);
        for at in (0..first).rev().chain((first..self.slots.len()).rev()) {
            if self.slots[at].as_ref().is_some_and(|slot| slot.count <= 0) {
                self.delete(at);
            }
        }
        self.offset += median;
    }

    /// Empties a slot and moves later slots, whose keys would not be found otherwise.
    fn delete(&mut self, mut at: usize) {
        let mask = self.slots.len() - 1;
        if let Some(Slot { key: Key::Bytes(bytes), .. }) = &self.slots[at] {
            self.key_bytes -= bytes.len();
        }
        self.slots[at] = None;
        self.active -= 1;
        let (mut next, mut distance) = ((at + 1) & mask, 1);
        while let Some(slot) = &mut self.slots[next] {
            if slot.distance > distance {
                slot.distance -= distance;
                self.slots.swap(at, next);
                (at, distance) = (next, 0);
            }
            next = (next + 1) & mask;
            distance += 1;
        }
    }

    /// The active slots in the order of DataSketches: in strides of the golden ratio.
    fn in_strides(&self) -> impl Iterator<Item = &Slot> {
        let size = self.slots.len();
        let stride = (size as f64 * ((5f64.sqrt() - 1.0) / 2.0)) as usize | 1;
        (0..size).filter_map(move |step| self.slots[(step * stride) & (size - 1)].as_ref())
    }

    /// Adds the values of another sketch. False as for [`Self::add`].
    #[must_use]
    pub fn merge(&mut self, other: &Self) -> bool {
        let is_merged = other.in_strides().all(|slot| self.add_key(slot.key.clone(), slot.count));
        self.offset += other.offset;
        self.nulls += other.nulls;
        is_merged
    }

    /// The sketch as Spark has it at the end of a batch: it is read from its bytes, and merged into
    /// an empty one. This changes the order of equally frequent values.
    pub fn merged(&self) -> Self {
        let mut again = Self { slots: vec![None; self.slots.len()], ..self.clone() };
        (again.active, again.key_bytes) = (0, 0);
        for slot in self.slots.iter().flatten() {
            // The keys fit as they are, so they do in another order.
            let _ = again.put(slot.key.clone(), slot.count);
        }
        let slots = vec![None; 1 << LOG_SIZE_MIN];
        let mut merged =
            Self { slots, active: 0, key_bytes: 0, offset: 0, nulls: 0, ..self.clone() };
        let _ = merged.merge(&again);
        merged
    }

    /// The `k` most frequent values with their estimated counts; NULL if it is one of them. Those
    /// whose count may be less than the error are left out.
    pub fn top(&self, k: usize) -> Vec<(Cell<'_>, i64)> {
        let slots = self.in_strides().filter(|slot| slot.count >= self.offset);
        let mut found: Vec<_> = slots
            .map(|slot| (cell_of(&slot.key, &self.data_type), slot.count + self.offset))
            .collect();
        if self.nulls > 0 {
            found.push((Cell::Null, self.nulls));
        }
        found.sort_by_key(|(_, count)| Reverse(*count));
        found.truncate(k);
        found
    }

    /// The number of values that are counted.
    pub fn len(&self) -> usize {
        self.active
    }

    /// The heap memory in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Slot>>() + self.key_bytes
    }

    /// Appends the encoding in checkpoints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.slots.len().trailing_zeros() as u8);
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.nulls.to_le_bytes());
        out.extend_from_slice(&(self.active as u32).to_le_bytes());
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            out.extend_from_slice(&(at as u32).to_le_bytes());
            out.extend_from_slice(&slot.distance.to_le_bytes());
            out.extend_from_slice(&slot.count.to_le_bytes());
            match &slot.key {
                Key::Long(v) => out.extend_from_slice(&v.to_le_bytes()),
                Key::Decimal(v) => out.extend_from_slice(&v.to_le_bytes()),
                Key::Bytes(bytes) => {
                    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    out.extend_from_slice(bytes);
                }
            }
        }
    }

    /// Decodes a sketch of the same type from the front of `bytes`; `None` if they are damaged.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let [log_size] = take(bytes)?;
        if !(LOG_SIZE_MIN..=self.log_size_max).contains(&log_size) {
            return None;
        }
        let size = 1usize << log_size;
        let mut restored =
            Self { slots: vec![None; size], active: 0, key_bytes: 0, ..self.clone() };
        restored.offset = i64::from_le_bytes(take(bytes)?);
        restored.nulls = i64::from_le_bytes(take(bytes)?);
        let active = u32::from_le_bytes(take(bytes)?) as usize;
        if active > capacity(size) {
            return None;
        }
        for _ in 0..active {
            let at = u32::from_le_bytes(take(bytes)?) as usize;
            let distance = u32::from_le_bytes(take(bytes)?);
            let count = i64::from_le_bytes(take(bytes)?);
            let key = match &self.data_type {
                DataType::String => {
                    let length = u32::from_le_bytes(take(bytes)?) as usize;
                    let (text, rest) = bytes.split_at_checked(length)?;
                    *bytes = rest;
                    restored.key_bytes += length;
                    Key::Bytes(text.into())
                }
                DataType::Decimal(..) => Key::Decimal(i128::from_le_bytes(take(bytes)?)),
                _ => Key::Long(i64::from_le_bytes(take(bytes)?)),
            };
            let slot = restored.slots.get_mut(at).filter(|slot| slot.is_none())?;
            *slot = Some(Slot { key, count, distance });
            restored.active += 1;
        }
        *self = restored;
        Some(())
    }
}

/// The number of values in a table of this size.
fn capacity(size: usize) -> usize {
    size / 4 * 3
}

fn key_of(cell: Cell<'_>) -> Option<Key> {
    Some(match cell {
        Cell::Null => return None,
        Cell::Bool(v) => Key::Long(i64::from(v)),
        Cell::Long(v) => Key::Long(v),
        Cell::Double(v) => Key::Long(if v.is_nan() { f64::NAN } else { v }.to_bits() as i64),
        Cell::Decimal(v) => Key::Decimal(v),
        Cell::Bytes(bytes) => Key::Bytes(bytes.into()),
    })
}

fn cell_of<'k>(key: &'k Key, data_type: &DataType) -> Cell<'k> {
    match (key, data_type) {
        (Key::Long(v), DataType::Boolean) => Cell::Bool(*v != 0),
        (Key::Long(v), DataType::Float | DataType::Double) => {
            Cell::Double(f64::from_bits(*v as u64))
        }
        (Key::Long(v), _) => Cell::Long(*v),
        (Key::Decimal(v), _) => Cell::Decimal(*v),
        (Key::Bytes(bytes), _) => Cell::Bytes(bytes),
    }
}

/// Java's `String.hashCode`.
fn java_string_hash(text: &[u8]) -> u32 {
    let units = String::from_utf8_lossy(text);
    units.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_are_within_the_error_and_a_checkpoint_keeps_them(
            values in prop::collection::vec(0i64..60, 0..400),
            items_max in 1usize..40,
            cut in 0usize..400,
        ) {
            let cut = cut.min(values.len());
            let empty = || FrequentItems::new(DataType::Long, items_max);
            let (mut sketch, mut other) = (empty(), empty());
            values[..cut].iter().for_each(|v| assert!(sketch.add(Cell::Long(*v))));
            let (mut bytes, mut restored) = (Vec::new(), empty());
            sketch.encode(&mut bytes);
            restored.decode(&mut bytes.as_slice()).unwrap();
            prop_assert_eq!(&restored, &sketch);
            prop_assert!(bytes.is_empty() || empty().decode(&mut &bytes[..bytes.len() - 1]).is_none());
            values[cut..].iter().for_each(|v| assert!(other.add(Cell::Long(*v))));
            prop_assert!(restored.merge(&other));
            prop_assert!(restored.active <= capacity(restored.slots.len()));
            for slot in restored.slots.iter().flatten() {
                let Key::Long(value) = slot.key else { unreachable!() };
                let exact = values.iter().filter(|v| **v == value).count() as i64;
                prop_assert!((slot.count..=slot.count + restored.offset).contains(&exact));
                // It is found from the slot of its hash on.
                let first = restored.hash(&slot.key) & (restored.slots.len() - 1);
                let mut at = first;
                while restored.slots[at].as_ref().is_some_and(|held| held.key != slot.key) {
                    at = (at + 1) & (restored.slots.len() - 1);
                }
                prop_assert!(restored.slots[at].is_some());
            }
        }
    }

    #[test]
    fn values_of_one_hash_are_refused_before_they_slow_down_all_others() {
        let mut sketch = FrequentItems::new(DataType::Long, 100_000);
        // The halves of each number cancel each other out in Java's hash.
        let added = (0..100_000).take_while(|k| sketch.add(Cell::Long(k << 32 | k))).count();
        assert!((4_000..6_000).contains(&added), "{added}");
    }
}
