//! How long the batches of a source wait for `minOffsetsPerTrigger`.

use std::collections::BTreeSet;

/// Decides whether a batch waits for more records, once for all tasklets of a source: each asks once
/// per plan of the driver.
#[derive(Default)]
pub struct BatchDelay {
    /// The time of the last plan that did not wait, on the monotonic clock in nanoseconds.
    last_ns: Option<u64>,
    /// The tasklets that have asked since the decision.
    asked: BTreeSet<usize>,
    waits: bool,
}

impl BatchDelay {
    /// Whether the plan of a tasklet waits. `has_few` says that there are fewer records than the
    /// option asks for. As in Spark, a plan waits for `max_delay_ns` after the last one that did not,
    /// whether or not that one had records.
    pub fn delays(&mut self, part: usize, has_few: bool, max_delay_ns: u64, now_ns: u64) -> bool {
        if self.asked.is_empty() || !self.asked.insert(part) {
            self.asked.clear();
            self.asked.insert(part);
            let last_ns = self.last_ns.filter(|_| has_few);
            self.waits = last_ns.is_some_and(|last| now_ns - last.min(now_ns) < max_delay_ns);
            if !self.waits {
                self.last_ns = Some(now_ns);
            }
        }
        self.waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tasklets_of_a_source_wait_or_none_does() {
        let mut delay = BatchDelay::default();
        // The answers of a plan whose tasklets ask in this order, with few records or not.
        let mut plan = |now_ns: u64, parts: &[(usize, bool)]| -> Vec<bool> {
            parts.iter().map(|(part, has_few)| delay.delays(*part, *has_few, 100, now_ns)).collect()
        };
        assert_eq!(plan(1000, &[(0, true), (1, true)]), [false, false], "the first batch");
        assert_eq!(plan(1050, &[(1, true), (0, true)]), [true, true]);
        // The records that are missing arrive between the two requests: the next plan has them.
        assert_eq!(plan(1060, &[(0, true), (1, false)]), [true, true]);
        assert_eq!(plan(1070, &[(0, false), (1, false)]), [false, false]);
        // 100 ns after the last batch of the source, whichever tasklets had records in it.
        assert_eq!(plan(1169, &[(0, true), (1, true)]), [true, true]);
        assert_eq!(plan(1170, &[(0, true), (1, true)]), [false, false]);
        assert_eq!(plan(1180, &[(0, true), (1, true)]), [true, true]);
    }
}
