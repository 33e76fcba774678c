//! Checks the results of a query in a soak test as they arrive. Memory is bounded by the number of
//! groups.

use super::operators::{Cover, Operator};
use std::collections::{BTreeMap, HashMap};

/// Number of latencies kept between two reports.
const SAMPLES: usize = 200_000;
/// Maximum number of tiles of a group that may arrive before a missing one.
const AHEAD: usize = 256;

/// A result, as the [operators](super::operators) describe it.
#[derive(Clone, Copy, Debug)]
pub struct Covered {
    pub group: i64,
    pub lo: i64,
    pub hi: i64,
    pub count: i64,
    /// Its intended time, in microseconds since 1970.
    pub at_us: i64,
    pub ok: bool,
}

#[derive(Debug, Default)]
struct Group {
    /// The number at which the next tile must start. For a running aggregate: the number after the
    /// last row.
    next: Option<i64>,
    /// Number of rows of its last result.
    count: i64,
    /// Tiles after a gap: start and end.
    ahead: BTreeMap<i64, i64>,
}

/// The state of the check.
#[derive(Debug)]
pub struct Checker {
    operator: Operator,
    groups: HashMap<i64, Group>,
    /// Number of rows in the tiles seen.
    tiled: u64,
    latencies_us: Vec<u64>,
    /// A description of the first wrong result.
    wrong: Option<String>,
}

impl Checker {
    pub fn new(operator: Operator) -> Self {
        let groups = HashMap::new();
        Self { operator, groups, tiled: 0, latencies_us: Vec::new(), wrong: None }
    }

    /// Checks a result that was emitted at `now_us`.
    pub fn add(&mut self, covered: Covered, now_us: i64) {
        if self.latencies_us.len() < SAMPLES {
            self.latencies_us.push(now_us.saturating_sub(covered.at_us).max(0) as u64);
        }
        if let Err(reason) = self.check(covered) {
            self.wrong.get_or_insert_with(|| format!("{reason}: {covered:?}"));
        }
    }

    fn check(&mut self, covered: Covered) -> Result<(), &'static str> {
        let stride = self.operator.stride as i64;
        if !covered.ok {
            return Err("the aggregate has a wrong value");
        }
        if covered.count != (covered.hi - covered.lo) / stride + 1 {
            return Err("a wrong number of rows");
        }
        let end = covered.hi + stride;
        let group = self.groups.entry(covered.group).or_default();
        if let Cover::Running = self.operator.cover {
            if group.next.is_some_and(|next| end < next) {
                return Err("a result that is older than the one before");
            }
            (group.next, group.count) = (Some(end), covered.count);
            return Ok(());
        }
        self.tiled += covered.count as u64;
        match group.next {
            None if covered.lo >= stride => return Err("the first rows are missing"),
            Some(next) if covered.lo < next => return Err("rows that were there before"),
            Some(next) if covered.lo > next => {
                group.ahead.insert(covered.lo, end);
                if group.ahead.len() > AHEAD {
                    return Err("rows before these are missing");
                }
                return Ok(());
            }
            _ => group.next = Some(end),
        }
        while let Some(end) = group.next.and_then(|next| group.ahead.remove(&next)) {
            group.next = Some(end);
        }
        Ok(())
    }

    /// The 99th percentile of the first [`SAMPLES`] latencies since the last call, in microseconds;
    /// `None` if there were none.
    pub fn take_p99_us(&mut self) -> Option<u64> {
        let mut latencies = std::mem::take(&mut self.latencies_us);
        if latencies.is_empty() {
            return None;
        }
        let at = (latencies.len() * 99 / 100).min(latencies.len() - 1);
        let (_, p99, _) = latencies.select_nth_unstable(at);
        let p99 = *p99;
        latencies.clear();
        self.latencies_us = latencies;
        Some(p99)
    }

    /// The first wrong result so far.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    /// Checks that the results of an ended query cover the rows that were sent at `rate` per
    /// second.
    pub fn finish(&self, sent: u64, rate: u64) -> Result<(), String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        if let Some((group, at)) = self.groups.iter().find_map(|(group, state)| {
            (!state.ahead.is_empty()).then_some((group, state.next.unwrap_or(0)))
        }) {
            return Err(format!("rows from number {at} of group {group} are missing"));
        }
        let (covered, least, most) = match self.operator.cover {
            Cover::Running => {
                (self.groups.values().map(|group| group.count as u64).sum(), sent, sent)
            }
            Cover::Tiles { times, behind_s } => {
                let of = |rows: u64| (rows as f64 * times) as u64;
                (self.tiled, of(sent.saturating_sub(behind_s * rate)), of(sent) + 1)
            }
            Cover::First(rows) => (self.tiled, sent.min(rows), sent.min(rows)),
        };
        if (least..=most).contains(&covered) {
            return Ok(());
        }
        Err(format!("{sent} rows were sent, the results cover {covered}, not {least} to {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::operators::named;
    use super::*;

    fn covered(group: i64, lo: i64, hi: i64, count: i64) -> Covered {
        Covered { group, lo, hi, count, at_us: 0, ok: true }
    }

    #[test]
    fn a_running_aggregate_covers_every_row_of_its_keys() {
        let mut checker = Checker::new(named("count").unwrap());
        for n in 0..1000 {
            checker.add(covered(n % 100, n % 100, n, n / 100 + 1), n);
        }
        checker.finish(1000, 100).unwrap();
        assert!(checker.finish(1001, 100).is_err());
        checker.add(covered(3, 3, 1003, 10), 0);
        assert!(checker.wrong().unwrap().contains("wrong number"));
    }

    #[test]
    fn windows_in_any_order_pass_and_missing_or_duplicate_ones_fail() {
        let tiles = |tiles: &[(i64, i64)]| {
            let mut checker = Checker::new(named("tumbling").unwrap());
            for (lo, hi) in tiles {
                checker.add(covered(7, 7 + lo * 1000, 7 + hi * 1000, hi - lo + 1), 0);
            }
            checker.finish(2000, 1000)
        };
        tiles(&[(0, 4), (10, 12), (5, 9), (13, 13)]).unwrap();
        assert!(tiles(&[(0, 4), (10, 12)]).unwrap_err().contains("are missing"));
        assert!(tiles(&[(1, 4)]).unwrap_err().contains("first rows"));
        assert!(tiles(&[(0, 4), (4, 5)]).unwrap_err().contains("before"));
    }

    #[test]
    fn the_first_rows_pass_a_deduplication_once() {
        let mut checker = Checker::new(named("dedup_keys").unwrap());
        (0..20_000).for_each(|n| checker.add(covered(0, n, n, 1), n));
        checker.finish(1_000_000, 100).unwrap();
        checker.add(covered(0, 5, 5, 1), 0);
        assert!(checker.finish(1_000_000, 100).is_err());
    }
}
