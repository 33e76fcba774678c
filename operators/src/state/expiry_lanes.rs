//! An expiry queue for the rows of one side of a join, ordered by expiry time and, for equal times,
//! by arrival.
//!
//! Event times are nearly ascending. So a row is appended to the first of a few ascending lanes
//! whose last row is not later. A row that fits no lane is put into a tree. The earliest row is the
//! smallest of the lanes' heads and the tree's first entry.

use crate::state::ordered_run::RowId;
use std::collections::{BTreeMap, VecDeque};

/// Maximum number of lanes.
const LANES: usize = 8;
/// Number of rows in a chunk of a lane.
const CHUNK: usize = 1024;

/// A buffered row with its expiry time and its arrival number.
// Without padding, because there is one per buffered row.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub time_us: i64,
    pub number: u64,
    pub row: RowId,
}

/// A queue of chunks. Growing never moves entries.
#[derive(Default)]
struct Lane {
    chunks: VecDeque<VecDeque<Expiry>>,
    spare: Option<VecDeque<Expiry>>,
}

impl Lane {
    fn first(&self) -> Option<&Expiry> {
        self.chunks.front()?.front()
    }

    fn last(&self) -> Option<&Expiry> {
        self.chunks.back()?.back()
    }

    fn push(&mut self, expiry: Expiry) {
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            let chunk = self.spare.take().unwrap_or_else(|| VecDeque::with_capacity(CHUNK));
            self.chunks.push_back(chunk);
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push_back(expiry);
        }
    }

    fn pop(&mut self) -> Option<Expiry> {
        let chunk = self.chunks.front_mut()?;
        let first = chunk.pop_front();
        if chunk.is_empty() {
            self.spare = self.chunks.pop_front();
        }
        first
    }
}

/// The expiry queue.
#[derive(Default)]
pub(crate) struct ExpiryLanes {
    lanes: Vec<Lane>,
    strays: BTreeMap<(i64, u64), RowId>,
}

impl ExpiryLanes {
    /// Adds a row.
    pub fn push(&mut self, expiry: Expiry) {
        let order = |e: &Expiry| (e.time_us, e.number);
        let continues =
            |lane: &&mut Lane| lane.last().is_none_or(|last| order(last) <= order(&expiry));
        if let Some(lane) = self.lanes.iter_mut().find(continues) {
            return lane.push(expiry);
        }
        if self.lanes.len() < LANES {
            let mut lane = Lane::default();
            lane.push(expiry);
            self.lanes.push(lane);
            return;
        }
        self.strays.insert(order(&expiry), expiry.row);
    }

    /// The time and number of the first row, and its lane; no lane if the row is in the tree.
    fn first(&self) -> Option<(Option<usize>, (i64, u64))> {
        let stray = self.strays.first_key_value().map(|(order, _)| (None, *order));
        let of_lane = |(i, lane): (usize, &Lane)| {
            lane.first().map(|first| (Some(i), (first.time_us, first.number)))
        };
        let lanes = self.lanes.iter().enumerate().filter_map(of_lane);
        lanes.chain(stray).min_by_key(|(_, order)| *order)
    }

    /// The earliest expiry time.
    pub fn first_us(&self) -> Option<i64> {
        self.first().map(|(_, (time_us, _))| time_us)
    }

    /// Removes and returns the first row if it has expired by `by_us`.
    pub fn pop(&mut self, by_us: i64) -> Option<Expiry> {
        let (lane, (time_us, number)) = self.first()?;
        if time_us > by_us {
            return None;
        }
        match lane {
            Some(lane) => self.lanes[lane].pop(),
            None => {
                let (_, row) = self.strays.pop_first()?;
                Some(Expiry { time_us, number, row })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_expire_by_time_and_arrival(steps in proptest::collection::vec((0i64..200, 0u8..5), 0..3000)) {
            let row = RowId(0);
            let (mut queue, mut model) = (ExpiryLanes::default(), BTreeMap::new());
            for (number, (time_us, what)) in steps.into_iter().enumerate() {
                if what == 0 {
                    let by = model.first_key_value().map(|((time, _), ())| *time);
                    prop_assert_eq!(queue.first_us(), by);
                    let due = model.first_entry().filter(|first| first.key().0 <= time_us);
                    let wanted = due.map(|first| first.remove_entry().0);
                    let got = queue.pop(time_us).map(|e| (e.time_us, e.number));
                    prop_assert_eq!(got, wanted);
                    continue;
                }
                queue.push(Expiry { time_us, number: number as u64, row });
                model.insert((time_us, number as u64), ());
            }
            let rest: Vec<_> = std::iter::from_fn(|| queue.pop(i64::MAX)).collect();
            let rest: Vec<_> = rest.into_iter().map(|e| (e.time_us, e.number)).collect();
            prop_assert_eq!(rest, model.into_keys().collect::<Vec<_>>());
        }
    }
}
