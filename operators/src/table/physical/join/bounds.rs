//! The allowed difference between the event times of two streams, and the state watermarks that
//! follow from it.
//!
//! A condition such as `r.t >= l.t AND r.t <= l.t + INTERVAL 1 HOUR` bounds `r.t - l.t`. As the
//! watermark advances, the upper bound allows left rows to expire, and the lower bound right rows.

use super::super::super::datetime::DAY_US;
use super::side::JoinSide;
use crate::table::expr::compile::{Semantics, fold};
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;
use crate::table::value::Value;

/// The maximum difference between adding days in local time and adding multiples of 24 hours, in
/// microseconds.
const CLOCK_SHIFT_US: i64 = DAY_US;
const MS_US: i64 = 1000;

/// A bound on the difference `right - left` of two columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Bound {
    /// The indices of the left column and of the right column, each within its side.
    pub columns: [usize; 2],
    /// Whether this is an upper bound. If false, it is a lower bound.
    pub upper: bool,
    pub us: i64,
    /// Whether the difference must not equal the bound.
    pub strict: bool,
    /// Whether the bound depends on clock changes of a time zone. Then the bound is approximate,
    /// and each pair of rows must be tested.
    pub on_clock: bool,
}

/// A linear combination of timestamp columns and a constant duration.
#[derive(Default)]
struct Linear {
    /// Columns of both sides, each with the sign 1 or -1.
    columns: Vec<(usize, i64)>,
    us: i64,
    on_clock: bool,
}

impl Linear {
    fn plus(mut self, other: Self, sign: i64) -> Option<Self> {
        self.columns.extend(other.columns.into_iter().map(|(i, s)| (i, s * sign)));
        self.us = self.us.checked_add(other.us.checked_mul(sign)?)?;
        self.on_clock |= other.on_clock;
        Some(self)
    }
}

/// The value of a constant day-time interval, in microseconds. `None` for other expressions, and for
/// NULL.
fn length_us(expr: &Resolved) -> Option<i64> {
    if !expr.is_foldable() || !matches!(expr.data_type, DataType::DayTimeInterval(..)) {
        return None;
    }
    match fold(expr.clone(), Semantics::default()).node {
        Node::Literal(Value::Long(us)) => Some(us),
        _ => None,
    }
}

fn linear(expr: &Resolved) -> Option<Linear> {
    if let Some(us) = length_us(expr) {
        return Some(Linear { us, ..Linear::default() });
    }
    let zoned = expr.data_type == DataType::Timestamp;
    match &expr.node {
        Node::Column(index, _)
            if matches!(expr.data_type, DataType::Timestamp | DataType::TimestampNtz) =>
        {
            Some(Linear { columns: vec![(*index, 1)], ..Linear::default() })
        }
        Node::Cast(inner, _) if inner.data_type == expr.data_type => linear(inner),
        Node::Call(name @ ("datetime_add" | "datetime_subtract"), args) => {
            let us = length_us(args.get(1)?)?;
            let sign = if *name == "datetime_add" { 1 } else { -1 };
            let mut at = linear(args.first()?)?;
            at.us = at.us.checked_add(us.checked_mul(sign)?)?;
            // Whole days are added in local time, so the distance depends on clock changes.
            at.on_clock |= zoned && us / DAY_US != 0;
            Some(at)
        }
        Node::Call("datetime_between", args) => {
            let (a, b) = (args.first()?, args.get(1)?);
            let mut sum = linear(a)?.plus(linear(b)?, -1)?;
            sum.on_clock |= a.data_type == DataType::Timestamp;
            Some(sum)
        }
        Node::Call("interval_add", args) => linear(args.first()?)?.plus(linear(args.get(1)?)?, 1),
        Node::Call("interval_subtract", args) => {
            linear(args.first()?)?.plus(linear(args.get(1)?)?, -1)
        }
        Node::Call("interval_negative", args) => Linear::default().plus(linear(args.first()?)?, -1),
        _ => None,
    }
}

/// Derives the bound that a comparison implies for a column of each side; `None` if it implies no
/// bound. The first `width` columns are those of the left side.
pub(in super::super) fn bound(condition: &Resolved, width: usize) -> Option<Bound> {
    let Node::Call(op, args) = &condition.node else { return None };
    let [a, b] = args.as_slice() else { return None };
    // Swapped so that the operand that must be smaller comes first.
    let (less, more, strict) = match *op {
        "<" => (a, b, true),
        "<=" => (a, b, false),
        ">" => (b, a, true),
        ">=" => (b, a, false),
        _ => return None,
    };
    let difference = linear(less)?.plus(linear(more)?, -1)?;
    let [(i, sign_i), (j, sign_j)] = difference.columns.as_slice() else { return None };
    if sign_i + sign_j != 0 || (*i < width) == (*j < width) {
        return None;
    }
    let (left, right, sign) = if i < j { (*i, *j, *sign_j) } else { (*j, *i, *sign_i) };
    // The comparison is equivalent to: sign * (right - left) + us <= 0.
    let upper = sign > 0;
    let us = if upper { difference.us.checked_neg()? } else { difference.us };
    let columns = [left, right - width];
    Some(Bound { columns, upper, us, strict, on_clock: difference.on_clock })
}

/// The allowed range of `right - left`, the difference between the event times of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct TimeRange {
    /// The indices of the left and of the right event time, each within its side.
    pub columns: [usize; 2],
    /// The inclusive bounds of `right - left`, in microseconds.
    pub least_us: i64,
    pub most_us: i64,
    /// For the left and the right side: the difference between state watermark and watermark, in
    /// microseconds. Rows at or before the state watermark expire. `None` if the side's rows never
    /// expire.
    pub shifts_us: [Option<i64>; 2],
}

impl TimeRange {
    /// Intersects all bounds on one pair of columns. `tagged` tells for each of the two columns
    /// whether it has a watermark.
    pub fn new(columns: [usize; 2], bounds: &[Bound], tagged: [bool; 2]) -> Self {
        let (mut least_us, mut most_us) = (i64::MIN, i64::MAX);
        let mut shifts_us = [None::<i64>; 2];
        for bound in bounds {
            let slack_us = if bound.on_clock { CLOCK_SHIFT_US } else { 0 };
            let step = i64::from(bound.strict);
            if bound.upper {
                let most = bound.us.saturating_sub(step).saturating_add(slack_us);
                most_us = most_us.min(most);
            } else {
                let least = bound.us.saturating_add(step).saturating_sub(slack_us);
                least_us = least_us.max(least);
            }
            // The rows of a side expire by the watermark of the other side, which bounds their
            // partners.
            let (side, us) = match bound.upper {
                true => (JoinSide::Left, bound.us.saturating_neg()),
                false => (JoinSide::Right, bound.us),
            };
            if !tagged[side.other().index()] {
                continue;
            }
            // Watermarks are in whole milliseconds, so the shift is rounded down. A row exactly at
            // the bound may still match.
            let whole = us.saturating_sub(slack_us).div_euclid(MS_US).saturating_mul(MS_US);
            let shift = whole.saturating_sub(if bound.strict { 0 } else { MS_US });
            let least = &mut shifts_us[side.index()];
            *least = Some(least.map_or(shift, |other| other.min(shift)));
        }
        Self { columns, least_us, most_us, shifts_us }
    }

    /// The inclusive range of the other side's times that a row of one side may match.
    pub fn around(&self, side: JoinSide, time_us: i64) -> (i64, i64) {
        let unless = |bound: i64, none: i64, other: i64, add: bool| {
            if bound == none {
                other
            } else if add {
                time_us.saturating_add(bound)
            } else {
                time_us.saturating_sub(bound)
            }
        };
        match side {
            JoinSide::Left => (
                unless(self.least_us, i64::MIN, i64::MIN, true),
                unless(self.most_us, i64::MAX, i64::MAX, true),
            ),
            JoinSide::Right => (
                unless(self.most_us, i64::MAX, i64::MIN, false),
                unless(self.least_us, i64::MIN, i64::MAX, false),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn bound(upper: bool, us: i64, strict: bool) -> Bound {
        Bound { columns: [0, 0], upper, us, strict, on_clock: false }
    }

    #[test]
    fn a_range_bounds_both_sides() {
        let bounds = [bound(false, 0, false), bound(true, 30 * MINUTE, false)];
        let range = TimeRange::new([0, 0], &bounds, [true, true]);
        assert_eq!(range.shifts_us, [Some(-30 * MINUTE - 1000), Some(-1000)]);
        assert_eq!(range.around(JoinSide::Left, 5), (5, 5 + 30 * MINUTE));
        assert_eq!(range.around(JoinSide::Right, 30 * MINUTE), (0, 30 * MINUTE));
        let range = TimeRange::new([0, 0], &bounds, [true, false]);
        assert_eq!(range.shifts_us, [None, Some(-1000)], "the right side has no watermark");
    }

    #[test]
    fn exclusive_and_extreme_bounds_do_not_overflow() {
        let bounds = [bound(false, 5, true), bound(true, i64::MAX - 1, true)];
        let range = TimeRange::new([0, 0], &bounds, [true, true]);
        assert_eq!((range.least_us, range.most_us), (6, i64::MAX - 2));
        assert_eq!(range.around(JoinSide::Left, i64::MAX - 3), (i64::MAX, i64::MAX));
        assert_eq!(range.around(JoinSide::Right, i64::MIN + 3).0, i64::MIN);
        assert_eq!(range.shifts_us[1], Some(0));
        let one_sided = TimeRange::new([0, 0], &bounds[..1], [true, true]);
        assert_eq!(one_sided.around(JoinSide::Left, 10), (16, i64::MAX));
        assert_eq!(one_sided.around(JoinSide::Right, 10), (i64::MIN, 4));
    }

    /// An expired row could only match rows that are late.
    #[test]
    fn a_row_expires_when_no_later_row_can_match_it() {
        for us in [-7_500_500, -1, 0, 1, 999, 1000, 2_000_001] {
            for strict in [false, true] {
                for upper in [false, true] {
                    let range = TimeRange::new([0, 0], &[bound(upper, us, strict)], [true, true]);
                    let side = if upper { JoinSide::Left } else { JoinSide::Right };
                    let Some(shift) = range.shifts_us[side.index()] else { panic!() };
                    for watermark in [0, 5_000, 60_000_000] {
                        let last = range.around(side, watermark + shift).1;
                        assert!(last <= watermark, "{us} {strict} {upper}: {last} {watermark}");
                    }
                }
            }
        }
    }
}
