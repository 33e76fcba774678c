//! Limits of local pre-aggregation: partial aggregates are kept only while input is available, and
//! only up to a bound. There is no timer.
//!
//! A step that takes no row flushes the partial aggregates. So while a worker keeps up with its
//! input, a row waits only for rows that arrived together with it. If input never pauses, partial
//! aggregates are flushed when there are [`FOLD`] rows per group, within the limits below.

/// Maximum number of buffered rows if they have few groups.
const MIN_ROWS: usize = 8 * 1024;
/// Average number of rows per group above which sending a group costs almost nothing per row.
const FOLD: usize = 128;
/// Maximum number of buffered rows.
const MAX_ROWS: usize = 1 << 20;
/// Maximum number of buffered groups.
const MAX_GROUPS: usize = 32 * 1024;
/// Number of rows that bypass pre-aggregation after it turned out that there are too many groups.
const BYPASS_ROWS: usize = 1 << 20;
/// Number of flush calls without a row after which input counts as idle. A tasklet flushes at the
/// end of a step and at the start of the next: two calls follow every row, and the third ends a
/// step that took no row.
const QUIET: u8 = 3;

pub(crate) struct PreaggregationLimit {
    /// Rows until the next check whether more may be buffered.
    left: usize,
    /// Total number of rows that may be buffered until the next check.
    allowed: usize,
    full: bool,
    /// Whether rows bypass pre-aggregation for now.
    bypassed: bool,
    /// Number of flush calls without a row, and the value of `left` at the last call.
    quiet: u8,
    left_before: usize,
}

impl Default for PreaggregationLimit {
    fn default() -> Self {
        Self {
            left: MIN_ROWS,
            allowed: MIN_ROWS,
            full: false,
            bypassed: false,
            quiet: 0,
            left_before: MIN_ROWS,
        }
    }
}

impl PreaggregationLimit {
    /// Whether rows should bypass pre-aggregation.
    #[inline]
    pub fn is_bypassed(&self) -> bool {
        self.bypassed
    }

    /// Whether the buffer is full: no row may be added before a flush.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Counts a row that was added to one of `groups` groups.
    #[inline]
    pub fn add(&mut self, groups: usize) {
        self.left -= 1;
        if self.left == 0 {
            self.check(groups);
        }
    }

    #[cold]
    fn check(&mut self, groups: usize) {
        if self.bypassed {
            // The following rows show whether there are still too many groups.
            *self = Self::default();
            return;
        }
        let more = (FOLD * groups).min(MAX_ROWS).saturating_sub(self.allowed);
        self.full = more == 0;
        // A full buffer is flushed before the next row. If a row is added anyway, this check runs
        // again.
        self.left = more.max(1);
        self.allowed += self.left;
        self.left_before = self.left + 1;
    }

    /// Counts a new group. `groups` includes it.
    #[cold]
    pub fn add_group(&mut self, groups: usize) {
        self.full |= groups >= MAX_GROUPS;
    }

    /// Counts a flush call. Returns whether input has been idle long enough to send the groups.
    #[inline]
    pub fn is_input_idle(&mut self) -> bool {
        if std::mem::replace(&mut self.left_before, self.left) != self.left {
            self.quiet = 0;
        }
        self.quiet = (self.quiet + 1).min(QUIET);
        self.quiet == QUIET
    }

    /// Records that `groups` groups were flushed. Does nothing while rows bypass pre-aggregation,
    /// when a flush only passes on a watermark or a marker.
    pub fn flushed(&mut self, groups: usize) {
        if self.bypassed {
            return;
        }
        let rows = self.allowed - self.left;
        *self = Self::default();
        // With fewer than two rows per group, pre-aggregation did not pay off.
        if groups >= MAX_GROUPS && rows < 2 * groups {
            (self.bypassed, self.left) = (true, BYPASS_ROWS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_aggregates_are_kept_only_while_input_is_available() {
        let mut hold = PreaggregationLimit::default();
        for _ in 0..10 {
            hold.add(1);
            assert!(!hold.is_input_idle(), "the end of the step that took it");
            assert!(!hold.is_input_idle(), "the beginning of the next");
        }
        assert!(hold.is_input_idle(), "the end of a step that took none");
        assert!(hold.is_input_idle(), "until a row comes");
        hold.add(1);
        assert!(!hold.is_input_idle());
    }

    /// The number of rows after which the buffer is full, for this number of groups.
    fn held(groups: usize) -> usize {
        let mut hold = PreaggregationLimit::default();
        let full = (1..).find(|_| {
            hold.add(groups);
            hold.is_full()
        });
        full.unwrap()
    }

    #[test]
    fn without_a_pause_groups_are_flushed_after_many_rows_each() {
        assert_eq!(held(1), MIN_ROWS);
        assert_eq!(held(MIN_ROWS / FOLD), MIN_ROWS);
        assert_eq!(held(1000), 1000 * FOLD);
        assert_eq!(held(MAX_GROUPS - 1), MAX_ROWS);
        let mut hold = PreaggregationLimit::default();
        hold.add_group(MAX_GROUPS - 1);
        assert!(!hold.is_full());
        hold.add_group(MAX_GROUPS);
        assert!(hold.is_full());
        hold.flushed(MAX_GROUPS);
        assert!(!hold.is_full());
    }

    #[test]
    fn input_is_not_idle_while_rows_arrive_between_checks() {
        let mut hold = PreaggregationLimit::default();
        for row in 0..4 * MIN_ROWS {
            hold.add(MIN_ROWS);
            assert!(!hold.is_input_idle(), "row {row}");
        }
    }

    #[test]
    fn preaggregation_pauses_if_each_group_has_one_row() {
        let mut hold = PreaggregationLimit::default();
        (1..=MAX_GROUPS).for_each(|groups| hold.add(groups));
        hold.flushed(MAX_GROUPS);
        assert!(hold.is_bypassed());
        (1..BYPASS_ROWS).for_each(|_| hold.add(0));
        hold.flushed(0);
        assert!(hold.is_bypassed(), "a watermark does not end it");
        hold.add(0);
        assert!(!hold.is_bypassed());
        (0..2 * MAX_GROUPS).for_each(|_| hold.add(MAX_GROUPS));
        hold.flushed(MAX_GROUPS);
        assert!(!hold.is_bypassed(), "two rows a group are worth it");
    }
}
