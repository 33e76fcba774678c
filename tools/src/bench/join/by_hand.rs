//! A hand-written symmetric hash join, the floor of most measurements: over numbers only, without
//! expressions, late rows, checkpoints or bounded steps.

use millstream_engine::checkpoint::key_group::BuildStableHasher;
use std::collections::{HashMap, VecDeque};

/// The rows of a key by time: time and number.
type Rows = VecDeque<(i64, i64)>;

/// The join of `l` and `r` by key, with `r.t` from `l.t - before_us` to `l.t + after_us`.
pub(super) struct HashJoin {
    before_us: i64,
    after_us: i64,
    sides: [HashMap<i64, Rows, BuildStableHasher>; 2],
    /// Times and keys of each side's rows, oldest first.
    expiry: [VecDeque<(i64, i64)>; 2],
}

impl HashJoin {
    pub fn new(before_us: i64, after_us: i64) -> Self {
        Self { before_us, after_us, sides: Default::default(), expiry: Default::default() }
    }

    /// Processes a row and calls `pair` with the numbers of both rows of each match.
    #[inline]
    pub fn push(
        &mut self,
        is_left: bool,
        [key, time, number]: [i64; 3],
        mut pair: impl FnMut(i64, i64),
    ) {
        let side = usize::from(!is_left);
        let (least, most) = match is_left {
            true => (time - self.before_us, time + self.after_us),
            false => (time - self.after_us, time + self.before_us),
        };
        if let Some(rows) = self.sides[1 - side].get(&key) {
            let first = rows.partition_point(|(time, _)| *time < least);
            for (_, other) in rows.range(first..).take_while(|(time, _)| *time <= most) {
                if is_left { pair(number, *other) } else { pair(*other, number) }
            }
        }
        self.sides[side].entry(key).or_default().push_back((time, number));
        self.expiry[side].push_back((time, key));
    }

    /// Removes the rows that can no longer match at a watermark.
    #[inline]
    pub fn expire(&mut self, watermark: i64) {
        for (side, keep_us) in [self.after_us, self.before_us].into_iter().enumerate() {
            let by = watermark.saturating_sub(keep_us);
            while let Some((time, key)) = self.expiry[side].front().copied()
                && time < by
            {
                self.expiry[side].pop_front();
                let Some(rows) = self.sides[side].get_mut(&key) else { continue };
                rows.pop_front();
                if rows.is_empty() {
                    self.sides[side].remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_match_within_the_range_until_they_expire() {
        let mut join = HashJoin::new(10, 20);
        let mut pairs = Vec::new();
        let mut push = |join: &mut HashJoin, is_left, row| {
            join.push(is_left, row, |l, r| pairs.push((l, r)));
            std::mem::take(&mut pairs)
        };
        assert_eq!(push(&mut join, true, [1, 100, 0]), []);
        assert_eq!(push(&mut join, false, [1, 89, 0]), [], "too early");
        assert_eq!(push(&mut join, false, [1, 90, 1]), [(0, 1)]);
        assert_eq!(push(&mut join, false, [1, 121, 2]), [], "too late");
        assert_eq!(push(&mut join, true, [1, 101, 1]), [(1, 2)]);
        join.expire(121);
        assert_eq!(push(&mut join, false, [1, 110, 3]), [(1, 3)], "the first row is gone");
        join.expire(1000);
        assert!(join.sides.iter().all(HashMap::is_empty));
    }
}
