//! An expiry queue for the rows of one side of a join. The row with the earliest expiry time is
//! first; rows with the same time keep their order of arrival.
//!
//! Event times arrive in order except for a bounded disorder. So there are a few lanes with
//! ascending times, and a row is appended to the first lane that it continues. A row that continues
//! no lane is inserted into a tree. The first row of the queue is the smallest of the lane heads
//! and the first row of the tree.
//!
//! A lane is an encoded sequence of bytes. Each row is the difference of its time and number from
//! the row before, which is small, followed by the caller's slot of the row.

use std::collections::{BTreeMap, VecDeque};

/// Maximum number of lanes.
const LANES: usize = 8;
/// Size of a chunk of a lane, in bytes.
const CHUNK: usize = 16 << 10;
/// Maximum size of an encoded row, in bytes: two 64-bit numbers with 7 bits to a byte, and one
/// 32-bit number.
const ROW_MAX: usize = 24;

/// A row's expiry time and its number, which is the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub time_us: i64,
    pub number: u64,
    /// The slot by which the caller finds the row.
    pub slot: u32,
}

impl Expiry {
    #[inline]
    fn order(&self) -> (i64, u64) {
        (self.time_us, self.number)
    }
}

/// Writes a number in groups of 7 bits, the lowest group first. All bytes except the last have the
/// highest bit set (LEB128).
#[inline]
fn write_number(mut number: u64, out: &mut [u8; ROW_MAX], at: &mut usize) {
    while number >= 0x80 {
        out[*at] = number as u8 | 0x80;
        number >>= 7;
        *at += 1;
    }
    out[*at] = number as u8;
    *at += 1;
}

/// Reads a number that [`write_number`] has written.
#[inline]
fn read_number(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

/// Encodes a signed difference as an unsigned number that is small if the absolute value is small.
#[inline]
fn zigzag(difference: i64) -> u64 {
    ((difference << 1) ^ (difference >> 63)) as u64
}

#[inline]
fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// A queue in chunks, so that growing never moves queued rows.
#[derive(Default)]
struct Lane {
    /// The first and the last row; `None` if the lane is empty.
    ends: Option<(Expiry, Expiry)>,
    /// The encoded rows after the first one.
    chunks: VecDeque<Vec<u8>>,
    /// Number of bytes of the first chunk that have been read.
    read: usize,
    spare: Option<Vec<u8>>,
}

impl Lane {
    #[inline]
    fn first(&self) -> Option<&Expiry> {
        self.ends.as_ref().map(|(first, _)| first)
    }

    #[inline]
    fn continues(&self, expiry: &Expiry) -> bool {
        self.ends.as_ref().is_none_or(|(_, last)| last.order() <= expiry.order())
    }

    #[inline]
    fn push(&mut self, expiry: Expiry) {
        let Some((_, last)) = &mut self.ends else {
            self.ends = Some((expiry, expiry));
            return;
        };
        let (mut row, mut at) = ([0; ROW_MAX], 0);
        write_number(expiry.time_us.wrapping_sub(last.time_us) as u64, &mut row, &mut at);
        let numbers = expiry.number.wrapping_sub(last.number);
        write_number(zigzag(numbers as i64), &mut row, &mut at);
        row[at..at + 4].copy_from_slice(&expiry.slot.to_le_bytes());
        *last = expiry;
        if self.chunks.back().is_none_or(|chunk| chunk.len() + ROW_MAX > CHUNK) {
            let chunk = self.spare.take().unwrap_or_else(|| Vec::with_capacity(CHUNK));
            self.chunks.push_back(chunk);
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.extend_from_slice(&row[..at + 4]);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Expiry> {
        let (first, _) = self.ends.as_mut()?;
        let popped = *first;
        let Some(chunk) = self.chunks.front() else {
            self.ends = None;
            return Some(popped);
        };
        let mut at = self.read;
        let time_us = popped.time_us.wrapping_add(read_number(chunk, &mut at) as i64);
        let numbers = unzigzag(read_number(chunk, &mut at));
        let slot = [chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]];
        *first = Expiry {
            time_us,
            number: popped.number.wrapping_add(numbers as u64),
            slot: u32::from_le_bytes(slot),
        };
        self.read = at + 4;
        if self.read == chunk.len() {
            self.read = 0;
            self.spare = self.chunks.pop_front().map(|mut chunk| {
                chunk.clear();
                chunk
            });
        }
        Some(popped)
    }

    fn memory(&self) -> usize {
        (self.chunks.len() + usize::from(self.spare.is_some())) * CHUNK
    }
}

/// An expiry queue of rows in lanes; see the module.
#[derive(Default)]
pub(crate) struct ExpiryLanes {
    lanes: Vec<Lane>,
    strays: BTreeMap<(i64, u64), u32>,
}

impl ExpiryLanes {
    /// Adds a row.
    #[inline]
    pub fn push(&mut self, expiry: Expiry) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.continues(&expiry)) {
            return lane.push(expiry);
        }
        if self.lanes.len() < LANES {
            let mut lane = Lane::default();
            lane.push(expiry);
            self.lanes.push(lane);
            return;
        }
        self.strays.insert(expiry.order(), expiry.slot);
    }

    /// The lane of the first row, with the row's time and number. The lane is `None` if the row is
    /// in the tree.
    #[inline]
    fn first(&self) -> Option<(Option<usize>, (i64, u64))> {
        let mut found = self.strays.first_key_value().map(|(order, _)| (None, *order));
        for (i, lane) in self.lanes.iter().enumerate() {
            if let Some(first) = lane.first()
                && found.is_none_or(|(_, order)| first.order() < order)
            {
                found = Some((Some(i), first.order()));
            }
        }
        found
    }

    /// The expiry time of the first row.
    #[inline]
    pub fn first_us(&self) -> Option<i64> {
        self.first().map(|(_, (time_us, _))| time_us)
    }

    /// Drops up to `most` rows at the front for which `is_removed` is true.
    pub fn skip(&mut self, most: usize, is_removed: impl Fn(Expiry) -> bool) {
        for _ in 0..most {
            let Some((lane, (time_us, number))) = self.first() else { return };
            let slot = match lane {
                Some(lane) => self.lanes[lane].first().map(|first| first.slot),
                None => self.strays.get(&(time_us, number)).copied(),
            };
            match slot {
                Some(slot) if is_removed(Expiry { time_us, number, slot }) => {
                    self.pop(time_us);
                }
                _ => return,
            }
        }
    }

    /// Removes and returns the first row if its expiry time is at most `by_us`.
    #[inline]
    pub fn pop(&mut self, by_us: i64) -> Option<Expiry> {
        let (lane, (time_us, number)) = self.first()?;
        if time_us > by_us {
            return None;
        }
        match lane {
            Some(lane) => self.lanes[lane].pop(),
            None => {
                let (_, slot) = self.strays.pop_first()?;
                Some(Expiry { time_us, number, slot })
            }
        }
    }

    /// Approximate memory of the queue, in bytes.
    pub fn memory(&self) -> usize {
        // The nodes of a B-tree are two thirds full on average.
        let stray = size_of::<(i64, u64, u32)>() * 3 / 2;
        self.lanes.iter().map(Lane::memory).sum::<usize>() + self.strays.len() * stray
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_any_size_are_read_as_written() {
        let numbers = (0..64).flat_map(|bit| [1u64 << bit, (1 << bit) - 1, u64::MAX - (1 << bit)]);
        for number in numbers.chain([u64::MAX]) {
            let (mut bytes, mut end, mut at) = ([0; ROW_MAX], 0, 0);
            write_number(number, &mut bytes, &mut end);
            assert!(end <= 10);
            assert_eq!((read_number(&bytes, &mut at), at), (number, end));
            assert_eq!(zigzag(unzigzag(number)), number);
        }
    }

    #[test]
    fn a_row_in_order_takes_six_bytes() {
        let mut queue = ExpiryLanes::default();
        for i in 0..100_000 {
            queue.push(Expiry { time_us: i * 10, number: 2 * i as u64, slot: i as u32 });
        }
        assert!(queue.memory() < 6 * 100_000 + 2 * CHUNK, "{}", queue.memory());
        for i in 0..100_000 {
            let slot = i as u32;
            let first = Expiry { time_us: i * 10, number: 2 * i as u64, slot };
            assert_eq!(queue.pop(i * 10), Some(first));
            assert_eq!(queue.pop(i * 10), None);
        }
        assert!(queue.memory() <= CHUNK);
    }

    /// Returns times that are far apart for some values of `what`, otherwise close times.
    fn time(small: i64, what: u8) -> i64 {
        match what {
            1 => i64::MIN + small,
            2 => i64::MAX - small,
            3 => small << 40,
            _ => small,
        }
    }

    proptest! {
        #[test]
        fn rows_expire_by_time_and_arrival(steps in proptest::collection::vec((0i64..200, 0u8..9), 0..3000)) {
            let (mut queue, mut model) = (ExpiryLanes::default(), BTreeMap::new());
            for (number, (small, what)) in steps.into_iter().enumerate() {
                let time_us = time(small, what);
                if what == 0 {
                    let by = model.first_key_value().map(|((time, _), _)| *time);
                    prop_assert_eq!(queue.first_us(), by);
                    let due = model.first_entry().filter(|first| first.key().0 <= time_us);
                    let wanted = due.map(|first| first.remove_entry());
                    let got = queue.pop(time_us).map(|e| (e.order(), e.slot));
                    prop_assert_eq!(got, wanted);
                    continue;
                }
                let slot = (number as u32).wrapping_mul(0x9E37_79B9);
                queue.push(Expiry { time_us, number: number as u64, slot });
                model.insert((time_us, number as u64), slot);
            }
            let rest: Vec<_> = std::iter::from_fn(|| queue.pop(i64::MAX)).collect();
            let rest: Vec<_> = rest.into_iter().map(|e| (e.order(), e.slot)).collect();
            prop_assert_eq!(rest, model.into_iter().collect::<Vec<_>>());
        }
    }
}
