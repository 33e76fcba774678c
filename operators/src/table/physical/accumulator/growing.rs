//! Accumulators of growing size are written to the checkpoint of a hash aggregation in parts: each
//! part contains additions of one epoch, or the complete value. So the average cost of an epoch
//! depends on its additions, not on the size of the value.
//!
//! *In the checkpoint* the key of a part consists of the group's key row, the number of the part
//! (u32) and the number of the value in the group (u16). The value starts with a byte: [`ADDED`]
//! for additions to the earlier parts, or [`WHOLE`] for the complete value. A value of bounded
//! size, such as a sketch, is rewritten completely when its additions have become as long as the
//! value and at least [`ADDED_BYTES_MIN`] long, and once after it was restored without parts. The
//! earlier parts are then erased. Lists and sets are never rewritten.
//!
//! *Limits.* Each part takes at least the size of its key. A list that gets one value per epoch has
//! as many parts as values.

use crate::table::physical::accumulator::Accumulator;
use crate::table::row;
use crate::table::types::DataType;
use millstream_engine::runtime::state_log::{StateLog, StateSlot};
use std::collections::{BTreeMap, HashMap};

/// The mark of a part that contains additions.
const ADDED: u8 = 0;
/// The mark of a part that contains the complete value and replaces the parts before it.
const WHOLE: u8 = 1;
/// The minimum size of the additions at which a value is rewritten completely, in bytes.
const ADDED_BYTES_MIN: usize = 1024;
/// The number of bytes that a part's key has after the group's key.
const SUFFIX: usize = 4 + 2;

/// An accumulator whose size grows with its records.
pub(in crate::table::physical) trait GrowingValue {
    /// Starts tracking additions, for a value whose additions must be stored separately.
    fn track(&mut self) {}
    /// Whether there are additions that neither [`write_added`](Self::write_added) nor
    /// [`write_whole`](Self::write_whole) has written.
    fn has_added(&self) -> bool;
    /// Appends the additions since the last write.
    fn write_added(&mut self, out: &mut Vec<u8>);
    /// Adds additions that [`write_added`](Self::write_added) wrote; `None` if the bytes are
    /// damaged.
    fn read_added(&mut self, bytes: &[u8]) -> Option<()>;
    /// The encoded length of the complete value in bytes, or an upper bound; `None` for a value
    /// that is never rewritten completely.
    fn whole_bytes(&self) -> Option<usize> {
        None
    }
    /// Appends the complete value, including the additions.
    fn write_whole(&mut self, _out: &mut Vec<u8>) {}
    /// Replaces the value by one that [`write_whole`](Self::write_whole) wrote; `None` if the bytes
    /// are damaged.
    fn read_whole(&mut self, _bytes: &[u8]) -> Option<()> {
        None
    }
    /// The heap memory of the value, in bytes.
    fn heap_bytes(&self) -> usize;
}

/// The parts that one value has in the checkpoint.
#[derive(Clone, Debug, Default)]
pub(in crate::table::physical) struct PartSlots {
    /// The log position of the last part.
    slot: StateSlot,
    /// The valid parts have the numbers `first..next`.
    first: u32,
    next: u32,
    /// The size in bytes of the additions since the last complete part.
    added_bytes: usize,
    /// Whether the next part must be the complete value, because the value was restored without
    /// parts.
    owes_whole: bool,
}

/// Reusable buffers for the key and the value of a part.
#[derive(Default)]
pub(in crate::table::physical) struct Buffers {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// The group that owns the parts: its key and the hash of the key.
#[derive(Clone, Copy)]
pub(in crate::table::physical) struct Group<'k> {
    pub hash: u64,
    pub key: &'k [u8],
}

impl Group<'_> {
    fn part_key(self, part: u32, value: u16, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.key);
        out.extend_from_slice(&part.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
    }
}

impl PartSlots {
    /// Writes the additions since the last call, or the complete value if it must be rewritten.
    pub fn write(
        &mut self,
        group: Group<'_>,
        number: u16,
        value: &mut dyn GrowingValue,
        log: &mut StateLog,
        buffers: &mut Buffers,
    ) {
        if !value.has_added() && !self.owes_whole {
            return;
        }
        let Buffers { key, value: out } = buffers;
        let whole = value.whole_bytes().map(|bytes| bytes.max(ADDED_BYTES_MIN));
        if whole.is_some_and(|bytes| self.owes_whole || self.added_bytes >= bytes) {
            out.clear();
            out.push(WHOLE);
            value.write_whole(out);
            self.erase(group, number, log, key);
            group.part_key(self.next, number, key);
            log.begin_part(&mut self.slot, group.hash, key, out);
            // Later additions start a new part.
            *self = Self { first: self.next, next: self.next + 1, ..Self::default() };
            return;
        }
        out.clear();
        out.push(ADDED);
        value.write_added(out);
        self.added_bytes += out.len() - 1;
        if !log.extend_part(&self.slot, &out[1..]) {
            group.part_key(self.next, number, key);
            log.begin_part(&mut self.slot, group.hash, key, out);
            self.next += 1;
        }
    }

    /// Erases all parts of the value.
    pub fn erase(&mut self, group: Group<'_>, number: u16, log: &mut StateLog, key: &mut Vec<u8>) {
        for part in self.first..self.next {
            group.part_key(part, number, key);
            log.delete_uncounted(&mut StateSlot::default(), group.hash, key);
        }
        (self.first, self.slot) = (self.next, StateSlot::default());
    }

    /// Restores a value from its parts, in order; `None` if a part is damaged, or missing between
    /// two others.
    fn read(&mut self, parts: &ValueParts, value: &mut dyn GrowingValue) -> Option<()> {
        for (number, bytes) in parts {
            let (kind, bytes) = bytes.split_first()?;
            match *kind {
                ADDED => {
                    value.read_added(bytes)?;
                    self.added_bytes += bytes.len();
                }
                WHOLE => {
                    value.read_whole(bytes)?;
                    self.added_bytes = 0;
                }
                _ => return None,
            }
            if self.first == self.next {
                self.first = *number;
            } else if self.next != *number {
                return None;
            }
            self.next = *number + 1;
        }
        Some(())
    }
}

/// The parts of all growing values of a group.
pub(in crate::table::physical) struct GroupParts {
    parts: Vec<PartSlots>,
}

impl GroupParts {
    /// Creates the parts of a new group, and starts tracking the additions to its values.
    pub fn new(accumulators: &mut [Accumulator]) -> Self {
        let mut parts = Vec::new();
        each_growing(accumulators, |_, value| {
            value.track();
            parts.push(PartSlots::default());
        });
        Self { parts }
    }

    /// The memory of this struct in bytes, without the values.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.parts.capacity() * size_of::<PartSlots>()
    }

    /// Writes the additions of all growing values.
    pub fn write(
        &mut self,
        group: Group<'_>,
        accumulators: &mut [Accumulator],
        log: &mut StateLog,
        buffers: &mut Buffers,
    ) {
        let mut parts = self.parts.iter_mut();
        each_growing(accumulators, |number, value| {
            if let Some(parts) = parts.next() {
                parts.write(group, number, value, log, buffers);
            }
        });
    }

    /// Erases all parts of all values.
    pub fn erase(&mut self, group: Group<'_>, log: &mut StateLog, buffers: &mut Buffers) {
        for (number, parts) in self.parts.iter_mut().enumerate() {
            parts.erase(group, number as u16, log, &mut buffers.key);
        }
    }
}

/// Calls `body` with each growing value and the value's index among them.
fn each_growing(
    accumulators: &mut [Accumulator],
    mut body: impl FnMut(u16, &mut dyn GrowingValue),
) {
    let growing = accumulators.iter_mut().filter_map(|accumulator| match accumulator {
        Accumulator::Values(values) => Some(&mut **values as &mut dyn GrowingValue),
        Accumulator::Distinct(sketch) => Some(&mut **sketch),
        Accumulator::Percentile(percentiles) => Some(&mut **percentiles),
        Accumulator::Counts(counts) => Some(&mut **counts),
        _ => None,
    });
    growing.enumerate().for_each(|(number, value)| body(number as u16, value));
}

/// Identifies a part of a growing value within its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartNumber {
    /// The number of the part, counted from the first part of the value.
    pub part: u32,
    /// The index of the value among the growing values of its group.
    pub value: u16,
}

/// Splits the key of a checkpoint entry into the group's key, of `group_bytes` bytes, and the
/// number of the part. The number is `None` if the entry is the group's own.
pub(in crate::table::physical) fn split_key(
    key: &[u8],
    group_bytes: usize,
) -> Option<(&[u8], Option<PartNumber>)> {
    let (group, rest) = key.split_at_checked(group_bytes)?;
    if rest.is_empty() {
        return Some((group, None));
    }
    let suffix: [u8; SUFFIX] = rest.try_into().ok()?;
    let [a, b, c, d, e, f] = suffix;
    let number =
        PartNumber { part: u32::from_le_bytes([a, b, c, d]), value: u16::from_le_bytes([e, f]) };
    Some((group, Some(number)))
}

/// The part that a checkpoint entry with this key contains. `columns` are the types of the group's
/// key. `None` if the entry is not a part, or if the key does not match the types.
pub fn part_number<'t>(
    key: &[u8],
    columns: impl ExactSizeIterator<Item = &'t DataType>,
) -> Option<PartNumber> {
    let group_bytes = row::length(key, columns.map(DataType::physical))?;
    split_key(key, group_bytes)?.1
}

/// The parts of one value, by their numbers.
type ValueParts = BTreeMap<u32, Vec<u8>>;

/// The parts read from a checkpoint, by group key and by the index of the value.
#[derive(Default)]
pub(in crate::table::physical) struct Restored(HashMap<Vec<u8>, BTreeMap<u16, ValueParts>>);

impl Restored {
    /// Adds a part of a growing value, or replaces it; removes it if `bytes` is `None`.
    pub fn put(&mut self, group: &[u8], number: PartNumber, bytes: Option<&[u8]>) {
        if !self.0.contains_key(group) {
            self.0.insert(group.to_vec(), BTreeMap::new());
        }
        let Some(of_group) = self.0.get_mut(group) else { return };
        let parts = of_group.entry(number.value).or_default();
        match bytes {
            Some(bytes) => drop(parts.insert(number.part, bytes.to_vec())),
            None => drop(parts.remove(&number.part)),
        }
    }

    /// Restores the growing values of a group, whose own entry has already been read. `None` if a
    /// part is damaged, or missing between two others.
    pub fn take(&mut self, group: &[u8], accumulators: &mut [Accumulator]) -> Option<GroupParts> {
        let of_group = self.0.remove(group).unwrap_or_default();
        let (mut out, mut damaged) = (Vec::new(), false);
        each_growing(accumulators, |number, value| {
            let mut parts = PartSlots::default();
            match of_group.get(&number).filter(|parts| !parts.is_empty()) {
                Some(read) => damaged |= parts.read(read, value).is_none(),
                // The value is empty, or the checkpoint was written without parts.
                None => parts.owes_whole = value.whole_bytes().is_some(),
            }
            value.track();
            out.push(parts);
        });
        (!damaged).then_some(GroupParts { parts: out })
    }
}
