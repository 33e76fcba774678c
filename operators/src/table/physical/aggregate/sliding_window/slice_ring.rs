//! A ring buffer of records that each consist of several units. The capacity grows by only a
//! quarter and four records: with very many rings, unused capacity would cost more than copying.

use crate::table::physical::aggregate::sliding_window::slice_unit::Unit;

/// A ring buffer of records.
pub(super) struct SliceRing<U> {
    units: Box<[U]>,
    /// The capacity in records, the index of the first record, and the number of records.
    capacity: u32,
    head: u32,
    len: u32,
}

impl<U> Default for SliceRing<U> {
    fn default() -> Self {
        Self { units: Box::default(), capacity: 0, head: 0, len: 0 }
    }
}

impl<U: Unit> SliceRing<U> {
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The memory in bytes, without the heap memory of units.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.units)
    }

    /// The index in `units` at which a record of `size` units starts.
    #[inline]
    fn at(&self, place: usize, size: usize) -> usize {
        debug_assert!(place < self.capacity as usize);
        let at = self.head as usize + place;
        let capacity = self.capacity as usize;
        (if at >= capacity { at - capacity } else { at }) * size
    }

    #[inline]
    pub fn get(&self, place: usize, size: usize) -> &[U] {
        let at = self.at(place, size);
        &self.units[at..at + size]
    }

    #[inline]
    pub fn get_mut(&mut self, place: usize, size: usize) -> &mut [U] {
        let at = self.at(place, size);
        &mut self.units[at..at + size]
    }

    /// Borrows two different records mutably.
    pub fn pair(&mut self, place: usize, other: usize, size: usize) -> (&mut [U], &mut [U]) {
        let (at, other) = (self.at(place, size), self.at(other, size));
        let (before, behind) = self.units.split_at_mut(at.max(other));
        if at < other {
            (&mut before[at..at + size], &mut behind[..size])
        } else {
            (&mut behind[..size], &mut before[other..other + size])
        }
    }

    pub fn push_back(&mut self, record: &[U]) {
        if self.len == self.capacity {
            self.grow(record.len());
        }
        self.len += 1;
        self.get_mut(self.len() - 1, record.len()).clone_from_slice(record);
    }

    #[cold]
    fn grow(&mut self, size: usize) {
        let capacity = self.capacity + self.capacity / 4 + 4;
        let mut units = Vec::with_capacity(capacity as usize * size);
        for place in 0..self.len() {
            units.extend(self.get_mut(place, size).iter_mut().map(std::mem::take));
        }
        units.resize(capacity as usize * size, U::default());
        (self.units, self.capacity, self.head) = (units.into_boxed_slice(), capacity, 0);
    }

    pub fn pop_front(&mut self, size: usize) {
        // The units are reset, which frees their heap memory at once.
        self.get_mut(0, size).fill(U::default());
        self.head = if self.head + 1 == self.capacity { 0 } else { self.head + 1 };
        self.len -= 1;
    }

    /// Inserts a record before the record with the index `place`.
    pub fn insert(&mut self, place: usize, record: &[U]) {
        self.push_back(record);
        for at in (place + 1..self.len()).rev() {
            let (one, other) = self.pair(at - 1, at, record.len());
            one.swap_with_slice(other);
        }
    }

    /// Removes the record with the index `place`.
    pub fn remove(&mut self, place: usize, size: usize) {
        for at in place + 1..self.len() {
            let (one, other) = self.pair(at - 1, at, size);
            one.swap_with_slice(other);
        }
        self.len -= 1;
        let at = self.at(self.len(), size);
        self.units[at..at + size].fill(U::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn a_ring_is_a_queue(steps: Vec<(u8, usize)>) {
            let (mut ring, mut model) = (SliceRing::<u64>::default(), VecDeque::new());
            for (i, (kind, place)) in steps.into_iter().enumerate() {
                let (record, len) = ([i as u64, !(i as u64)], model.len());
                match kind % 6 {
                    0 if len > 0 => {
                        ring.pop_front(2);
                        model.pop_front();
                    }
                    1 if len > 0 => {
                        ring.remove(place % len, 2);
                        model.remove(place % len);
                    }
                    2 => {
                        ring.insert(place % (len + 1), &record);
                        model.insert(place % (len + 1), record);
                    }
                    3 if len > 1 => {
                        let (a, b) = (place % len, (place + 1) % len);
                        let (one, other) = ring.pair(a, b, 2);
                        one.swap_with_slice(other);
                        model.swap(a, b);
                    }
                    _ => {
                        ring.push_back(&record);
                        model.push_back(record);
                    }
                }
                prop_assert_eq!(ring.len(), model.len());
                let all: Vec<_> = (0..ring.len()).map(|at| ring.get(at, 2).to_vec()).collect();
                prop_assert!(all.iter().zip(&model).all(|(a, b)| a == b));
            }
        }
    }
}
