//! How long rows may be held back that are put together before they go to another worker: only
//! while more of them are there at once, and only so many. No clock has a say in it.
//!
//! A drain that brings nothing lets go what is held, so under a load that a worker can carry a row
//! waits for the rows that came with it and for no others. Where a worker has no rest at all, rows go
//! when each of their groups stands for [`FOLD`] of them on average.

/// Rows that are held at most, if they have few groups.
const LEAST_ROWS: usize = 8 * 1024;
/// Rows of a group, on average, from which on it costs next to nothing to pass the group on.
const FOLD: usize = 128;
/// Rows that are held at most: milliseconds of the fastest that there is.
const MOST_ROWS: usize = 1 << 20;
/// Groups that are held at most.
const MOST_GROUPS: usize = 32 * 1024;
/// Rows that are passed on singly once it was seen that they have too many groups.
const SINGLY: usize = 1 << 20;
/// Drains without a row after which no more are there. A tasklet drains at the end of a step and at the
/// beginning of the next: behind a row come these two, and the third ends a step that took none.
const QUIET: u8 = 3;

pub(crate) struct Hold {
    /// Rows until it must be looked at whether more may be held.
    left: usize,
    /// Rows that there will have been by then.
    allowed: usize,
    full: bool,
    /// Rows pass singly for now.
    singly: bool,
    /// Drains without a row, and what was left at the last one.
    quiet: u8,
    left_before: usize,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            left: LEAST_ROWS,
            allowed: LEAST_ROWS,
            full: false,
            singly: false,
            quiet: 0,
            left_before: LEAST_ROWS,
        }
    }
}

impl Hold {
    /// Whether rows are better passed on by themselves.
    #[inline]
    pub fn is_singly(&self) -> bool {
        self.singly
    }

    /// Whether no more rows may be held before some have gone.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Counts a row, of one of so many groups that are held.
    #[inline]
    pub fn add(&mut self, groups: usize) {
        self.left -= 1;
        if self.left == 0 {
            self.look(groups);
        }
    }

    #[cold]
    fn look(&mut self, groups: usize) {
        if self.singly {
            // The next ones show whether it is still so.
            *self = Self::default();
            return;
        }
        let more = (FOLD * groups).min(MOST_ROWS).saturating_sub(self.allowed);
        self.full = more == 0;
        // What is full goes before another row comes; if one does come, it is looked at again.
        self.left = more.max(1);
        self.allowed += self.left;
        self.left_before = self.left + 1;
    }

    /// There is a new group; with it there are so many.
    #[cold]
    pub fn grow(&mut self, groups: usize) {
        self.full |= groups >= MOST_GROUPS;
    }

    /// A drain has come to its end. Returns whether none has brought a row for so long that what is
    /// held must go.
    #[inline]
    pub fn is_dry(&mut self) -> bool {
        if std::mem::replace(&mut self.left_before, self.left) != self.left {
            self.quiet = 0;
        }
        self.quiet = (self.quiet + 1).min(QUIET);
        self.quiet == QUIET
    }

    /// What is held, so many groups, goes.
    pub fn let_go(&mut self, groups: usize) {
        let rows = self.allowed - self.left;
        *self = Self::default();
        // Groups of little more than a row each: what was put together is not worth the table.
        if groups >= MOST_GROUPS && rows < 2 * groups {
            (self.singly, self.left) = (true, SINGLY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_held_while_more_are_there_and_no_longer() {
        let mut hold = Hold::default();
        for _ in 0..10 {
            hold.add(1);
            assert!(!hold.is_dry(), "the end of the step that took it");
            assert!(!hold.is_dry(), "the beginning of the next");
        }
        assert!(hold.is_dry(), "the end of a step that took none");
        assert!(hold.is_dry(), "until a row comes");
        hold.add(1);
        assert!(!hold.is_dry());
    }

    /// How many rows of so many groups are held before they must go.
    fn held(groups: usize) -> usize {
        let mut hold = Hold::default();
        let full = (1..).find(|_| {
            hold.add(groups);
            hold.is_full()
        });
        full.unwrap()
    }

    #[test]
    fn a_worker_without_rest_lets_go_when_groups_stand_for_many_rows() {
        assert_eq!(held(1), LEAST_ROWS);
        assert_eq!(held(LEAST_ROWS / FOLD), LEAST_ROWS);
        assert_eq!(held(1000), 1000 * FOLD);
        assert_eq!(held(MOST_GROUPS - 1), MOST_ROWS);
        let mut hold = Hold::default();
        hold.grow(MOST_GROUPS - 1);
        assert!(!hold.is_full());
        hold.grow(MOST_GROUPS);
        assert!(hold.is_full());
        hold.let_go(MOST_GROUPS);
        assert!(!hold.is_full());
    }

    #[test]
    fn rows_that_come_between_drains_are_seen_even_when_it_is_looked_at_anew() {
        let mut hold = Hold::default();
        for row in 0..4 * LEAST_ROWS {
            hold.add(LEAST_ROWS);
            assert!(!hold.is_dry(), "row {row}");
        }
    }

    #[test]
    fn groups_of_one_row_are_not_put_together_for_a_while() {
        let mut hold = Hold::default();
        (1..=MOST_GROUPS).for_each(|groups| hold.add(groups));
        hold.let_go(MOST_GROUPS);
        assert!(hold.is_singly());
        (1..SINGLY).for_each(|_| hold.add(0));
        assert!(hold.is_singly());
        hold.add(0);
        assert!(!hold.is_singly());
        (0..2 * MOST_GROUPS).for_each(|_| hold.add(MOST_GROUPS));
        hold.let_go(MOST_GROUPS);
        assert!(!hold.is_singly(), "two rows a group are worth it");
    }
}
