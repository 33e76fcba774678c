//! The range between the event times of the two records of a match.

use crate::stream::operator::sided_records::Side;
use std::time::Duration;

/// A signed difference of two event times.
///
/// ```
/// use millstream::stream::TimeOffset;
/// use std::time::Duration;
///
/// let minute = Duration::from_secs(60);
/// assert_eq!(TimeOffset::after(minute), minute.into());
/// assert!(TimeOffset::before(minute) < TimeOffset::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOffset(i64);

impl TimeOffset {
    /// No difference.
    pub const ZERO: Self = Self(0);

    /// The difference in microseconds.
    pub(in crate::stream) fn micros(self) -> i64 {
        self.0
    }

    /// An offset to an earlier time, by `time`.
    pub fn before(time: Duration) -> Self {
        Self(-Self::after(time).0)
    }

    /// An offset to a later time, by `time`.
    pub fn after(time: Duration) -> Self {
        Self(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Converts to an offset to a later time.
impl From<Duration> for TimeOffset {
    fn from(time: Duration) -> Self {
        Self::after(time)
    }
}

/// The range of the right record's time minus the left record's. Both bounds are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stream) struct IntervalRange {
    pub lower_us: i64,
    pub upper_us: i64,
}

impl IntervalRange {
    pub fn new(lower: TimeOffset, upper: TimeOffset) -> Self {
        Self { lower_us: lower.0, upper_us: upper.0 }
    }

    /// Whether the range contains no value.
    pub fn is_empty(self) -> bool {
        self.lower_us > self.upper_us
    }

    /// The times of the other side that a record may match. Both bounds are included. If there are
    /// none, the first bound is greater than the second.
    #[inline]
    pub fn around(self, side: Side, time_us: i64) -> (i64, i64) {
        let (lower, upper) = (i128::from(self.lower_us), i128::from(self.upper_us));
        let (least, most) = match side {
            Side::Left => (lower, upper),
            Side::Right => (-upper, -lower),
        };
        let (least, most) = (i128::from(time_us) + least, i128::from(time_us) + most);
        if least > i128::from(i64::MAX) || most < i128::from(i64::MIN) {
            return (i64::MAX, i64::MIN);
        }
        let clamp = |us: i128| us.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        (clamp(least), clamp(most))
    }

    /// The state watermark of a side: a record at or before it can match no future record. `None`
    /// if there is no such time.
    #[inline]
    pub fn state_watermark(self, side: Side, watermark_us: i64) -> Option<i64> {
        let (us, shift_us) = match side {
            Side::Left => (watermark_us.checked_sub(self.upper_us), -i128::from(self.upper_us)),
            Side::Right => (watermark_us.checked_add(self.lower_us), i128::from(self.lower_us)),
        };
        us.or_else(|| (shift_us > 0).then_some(i64::MAX))
    }

    /// How far the event time of a result may be behind the watermark, in microseconds.
    pub fn lag_us(self) -> i64 {
        self.upper_us.max(self.lower_us.saturating_neg()).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_at_the_end_of_time_do_not_overflow() {
        let range = IntervalRange { lower_us: -5, upper_us: i64::MAX };
        assert_eq!(range.around(Side::Left, 10), (5, i64::MAX));
        assert_eq!(range.around(Side::Right, -10), (i64::MIN, -5));
        assert_eq!(range.around(Side::Left, i64::MIN), (i64::MIN, -1));
        assert_eq!(range.state_watermark(Side::Left, -2), None);
        let ahead = IntervalRange { lower_us: i64::MAX, upper_us: i64::MAX };
        assert_eq!(ahead.around(Side::Left, 10), (i64::MAX, i64::MIN), "no such time");
        assert_eq!(ahead.state_watermark(Side::Right, 10), Some(i64::MAX));
    }

    /// A record expires as soon as it can match no future record of the other side.
    #[test]
    fn a_record_expires_when_no_later_record_can_match_it() {
        for (lower_us, upper_us) in [(-3, 5), (2, 7), (-9, -4), (0, 0)] {
            let range = IntervalRange { lower_us, upper_us };
            for side in Side::BOTH {
                for watermark in [-10, 0, 100] {
                    let state = range.state_watermark(side, watermark).unwrap();
                    assert!(range.around(side, state).1 <= watermark);
                    assert!(range.around(side, state + 1).1 > watermark);
                }
            }
        }
    }
}
