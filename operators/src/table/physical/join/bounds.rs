//! The allowed difference between the event times of two streams, and the state watermarks that
//! follow from it.
//!
//! A condition such as `r.t >= l.t AND r.t <= l.t + INTERVAL 1 HOUR` bounds `r.t - l.t`. As the
//! watermark advances, the upper bound allows left rows to expire, and the lower bound right rows.

use super::super::super::datetime::Tz;
use super::super::super::datetime::{DAY_US, SECOND_US};
use super::side::JoinSide;
use crate::table::expr::compile::{Semantics, fold};
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;
use crate::table::value::Value;

/// The maximum difference between adding days in local time and adding multiples of 24 hours, in
/// microseconds.
const CLOCK_SHIFT_US: i64 = DAY_US;
const MS_US: i64 = 1000;
/// Above this number of microseconds, seconds as DOUBLE are not exact to a microsecond.
const MAX_EXACT_US: f64 = (1u64 << 52) as f64;

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
    /// Whether the bound is wider than the condition, because of rounding or of clock changes. Then
    /// each pair of rows must be tested.
    pub is_wide: bool,
}

/// One end of the range of an error, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    us: i64,
    /// Whether the error is never equal to the end.
    open: bool,
}

impl End {
    fn plus(self, other: Self) -> Option<Self> {
        Some(Self { us: self.us.checked_add(other.us)?, open: self.open || other.open })
    }

    fn negated(self) -> Self {
        Self { us: self.us.saturating_neg(), ..self }
    }
}

/// A linear combination of timestamp columns and a constant duration.
#[derive(Default)]
struct Linear {
    /// Columns of both sides, each with the sign 1 or -1.
    columns: Vec<(usize, i64)>,
    us: i64,
    /// The value of the expression minus that of the combination is between these ends.
    error: [End; 2],
}

impl Linear {
    fn constant(us: i64) -> Self {
        Self { us, ..Self::default() }
    }

    fn plus(mut self, other: Self, sign: i64) -> Option<Self> {
        self.columns.extend(other.columns.into_iter().map(|(i, s)| (i, s * sign)));
        self.us = self.us.checked_add(other.us.checked_mul(sign)?)?;
        let [low, high] = match sign {
            1 => other.error,
            _ => [other.error[1].negated(), other.error[0].negated()],
        };
        self.error = [self.error[0].plus(low)?, self.error[1].plus(high)?];
        Some(self)
    }

    /// The combination for an expression whose value may differ by up to `us` in both directions.
    fn within(self, us: i64) -> Option<Self> {
        let closed = |us| End { us, open: false };
        self.plus(Self { error: [closed(-us), closed(us)], ..Self::default() }, 1)
    }

    /// The combination for an expression that is rounded down to whole seconds.
    fn rounded_down(self) -> Option<Self> {
        let low = End { us: -SECOND_US, open: true };
        self.plus(Self { error: [low, End::default()], ..Self::default() }, 1)
    }
}

/// The value of a constant, in microseconds: a day-time interval, or a number of seconds. `None`
/// for other expressions, and for NULL.
fn constant_us(expr: &Resolved) -> Option<i64> {
    let is_interval = matches!(expr.data_type, DataType::DayTimeInterval(..));
    if !expr.is_foldable() || !is_interval && !expr.data_type.is_numeric() {
        return None;
    }
    match (fold(expr.clone(), Semantics::default()).node, &expr.data_type) {
        (Node::Literal(Value::Long(us)), _) if is_interval => Some(us),
        (Node::Literal(Value::Long(seconds)), _) => seconds.checked_mul(SECOND_US),
        (Node::Literal(Value::Double(seconds)), _) => {
            let us = (seconds * SECOND_US as f64).round();
            (us.abs() < MAX_EXACT_US).then_some(us as i64)
        }
        (Node::Literal(Value::Decimal(unscaled)), DataType::Decimal(_, scale)) => {
            let us = unscaled.checked_mul(i128::from(SECOND_US))?;
            let unit = 10i128.checked_pow(u32::from(*scale))?;
            (us % unit == 0).then(|| i64::try_from(us / unit).ok())?
        }
        _ => None,
    }
}

/// Whether days of a zone may have more or less than 24 hours.
fn shifts_clock(data_type: &DataType, zone: Tz) -> bool {
    *data_type == DataType::Timestamp && !zone.is_fixed()
}

/// The combination that an expression is equal to, but for an error. A number stands for seconds,
/// because a cast of a timestamp to a number gives seconds.
fn linear(expr: &Resolved, zone: Tz) -> Option<Linear> {
    if let Some(us) = constant_us(expr) {
        let constant = Linear::constant(us);
        return if expr.data_type == DataType::Double {
            constant.within(1)
        } else {
            Some(constant)
        };
    }
    match &expr.node {
        Node::Column(index, _)
            if matches!(expr.data_type, DataType::Timestamp | DataType::TimestampNtz) =>
        {
            Some(Linear { columns: vec![(*index, 1)], ..Linear::default() })
        }
        Node::Cast(inner, _) => cast(linear(inner, zone)?, &inner.data_type, &expr.data_type),
        Node::Call(name @ ("datetime_add" | "datetime_subtract"), args) => {
            let us = constant_us(args.get(1)?)?;
            let sign = if *name == "datetime_add" { 1 } else { -1 };
            let at = linear(args.first()?, zone)?.plus(Linear::constant(us), sign)?;
            // Whole days are added in local time, so the distance depends on clock changes.
            match shifts_clock(&expr.data_type, zone) && us / DAY_US != 0 {
                true => at.within(CLOCK_SHIFT_US),
                false => Some(at),
            }
        }
        Node::Call("datetime_between", args) => {
            let (a, b) = (args.first()?, args.get(1)?);
            let sum = linear(a, zone)?.plus(linear(b, zone)?, -1)?;
            match shifts_clock(&a.data_type, zone) {
                true => sum.within(CLOCK_SHIFT_US),
                false => Some(sum),
            }
        }
        Node::Call(name @ ("interval_add" | "interval_subtract" | "+" | "-"), args) => {
            let sign = if matches!(*name, "interval_add" | "+") { 1 } else { -1 };
            // A sum of DECIMALs with fewer decimal places than its operands is rounded.
            if decimal_places(expr) < args.iter().map(decimal_places).max().unwrap_or(0) {
                return None;
            }
            linear(args.first()?, zone)?.plus(linear(args.get(1)?, zone)?, sign)
        }
        Node::Call("interval_negative", args) => {
            Linear::default().plus(linear(args.first()?, zone)?, -1)
        }
        _ => None,
    }
}

/// The number of decimal places of a DECIMAL; 0 for other types.
fn decimal_places(expr: &Resolved) -> u8 {
    match expr.data_type {
        DataType::Decimal(_, scale) => scale,
        _ => 0,
    }
}

/// The combination for a cast of an expression. `None` if the cast may change the value by more
/// than rounding.
fn cast(of: Linear, from: &DataType, to: &DataType) -> Option<Linear> {
    match (from, to) {
        _ if from == to => Some(of),
        (DataType::Timestamp, DataType::Long) => of.rounded_down(),
        (DataType::Timestamp, DataType::Double) => of.within(1),
        (_, DataType::Timestamp) if *from == DataType::Long => Some(of),
        (_, DataType::Timestamp) if *from == DataType::Double => of.within(1),
        (_, DataType::Double) if from.is_integral() => of.within(1),
        (DataType::Decimal(..), DataType::Double) => of.within(1),
        (_, DataType::Long | DataType::Decimal(..)) if from.is_integral() => Some(of),
        (DataType::Decimal(_, scale), DataType::Decimal(_, to)) if to >= scale => Some(of),
        _ => None,
    }
}

/// Derives the bound that a comparison implies for a column of each side; `None` if it implies no
/// bound. The first `width` columns are those of the left side. `zone` is the session's time zone.
pub(in super::super) fn bound(condition: &Resolved, width: usize, zone: Tz) -> Option<Bound> {
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
    let mut difference = linear(less, zone)?.plus(linear(more, zone)?, -1)?;
    let mut strict = strict;
    if strict && less.data_type.is_integral() {
        // Of two whole numbers, the smaller one is smaller by at least 1.
        difference = difference.plus(Linear::constant(SECOND_US), 1)?;
        strict = false;
    }
    let is_wide = difference.error != [End::default(); 2];
    let [low, _] = difference.error;
    let [(i, sign_i), (j, sign_j)] = difference.columns.as_slice() else { return None };
    if sign_i + sign_j != 0 || (*i < width) == (*j < width) {
        return None;
    }
    let (left, right, sign) = if i < j { (*i, *j, *sign_j) } else { (*j, *i, *sign_i) };
    // The comparison implies: sign * (right - left) + us <= 0.
    let us = difference.us.checked_add(low.us)?;
    let upper = sign > 0;
    let us = if upper { us.checked_neg()? } else { us };
    let columns = [left, right - width];
    Some(Bound { columns, upper, us, strict: strict || low.open, is_wide })
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
            let step = i64::from(bound.strict);
            if bound.upper {
                most_us = most_us.min(bound.us.saturating_sub(step));
            } else {
                least_us = least_us.max(bound.us.saturating_add(step));
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
            let whole = us.div_euclid(MS_US).saturating_mul(MS_US);
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
        Bound { columns: [0, 0], upper, us, strict, is_wide: false }
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
