//! The operators on intervals, and those of dates and timestamps with intervals.

use super::arithmetic::shifted;
use super::{internal, or_overflow};
use crate::table::datetime::{DAY_US, SECOND_US, to_local};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::expr::functions::registry::{Function, called, cells};
use crate::table::types::{DataType, DataType as T};

pub(in crate::table::expr::functions) static FUNCTIONS: &[Function] = &[
    called("datetime_add", "a + interval", (2, 2), internal, |a, c| shifted(a, &c, 1)),
    called("datetime_subtract", "a - interval", (2, 2), internal, |a, c| shifted(a, &c, -1)),
    cells("datetime_between", "a - b", (2, 2), internal, |a, call, _| {
        let unit = if call.to == T::DayTimeInterval(0, 0) { DAY_US } else { 1 };
        let zone = call.semantics.zone;
        let local = |i: usize| match call.data_type(i) {
            T::Timestamp => to_local(a[i].long(), zone),
            _ => a[i].long(),
        };
        or_overflow(local(0).checked_sub(local(1)).and_then(|n| n.checked_mul(unit)))
    }),
    cells("interval_add", "interval + interval", (2, 2), internal, |a, call, _| {
        let sum = a[0].long().checked_add(a[1].long());
        interval_or_overflow(sum, &call.to, WITH_SUGGESTION)
    }),
    cells("interval_subtract", "interval - interval", (2, 2), internal, |a, call, _| {
        let difference = a[0].long().checked_sub(a[1].long());
        interval_or_overflow(difference, &call.to, WITH_SUGGESTION)
    }),
    cells("interval_negative", "- interval", (1, 1), internal, |a, call, _| {
        interval_or_overflow(a[0].long().checked_neg(), &call.to, WITHOUT_SUGGESTION)
    }),
    cells("interval_abs", "abs(interval)", (1, 1), internal, |a, call, _| {
        interval_or_overflow(a[0].long().checked_abs(), &call.to, WITHOUT_SUGGESTION)
    }),
    cells("interval_sign", "sign(interval)", (1, 1), internal, |a, _, _| {
        Ok(Cell::Double(a[0].long().signum() as f64))
    }),
    cells("interval_part", "a field of an interval", (2, 2), internal, |a, call, _| {
        Ok(part_of_interval(a[0].long(), a[1].text(), &call.to))
    }),
    cells("interval_ratio", "interval DIV interval", (2, 2), internal, |a, _, _| {
        match a[1].long() {
            0 => failed("INTERVAL_DIVIDED_BY_ZERO", "division by zero", "Use nullif"),
            by => or_overflow(a[0].long().checked_div(by)),
        }
    }),
    cells("interval_multiply", "interval * n", (2, 2), internal, |a, call, _| {
        let product = match a[1] {
            Cell::Long(n) => a[0].long().checked_mul(n),
            other => whole_number(a[0].long() as f64 * other.double()),
        };
        interval_or_overflow(product, &call.to, WITH_SUGGESTION)
    }),
    cells("interval_divide", "interval / n", (2, 2), internal, |a, call, _| {
        let by = match a[1] {
            Cell::Long(n) => n as f64,
            other => other.double(),
        };
        if by == 0.0 {
            return failed("INTERVAL_DIVIDED_BY_ZERO", "division by zero", "Use nullif(n, 0)");
        }
        let quotient = match a[1] {
            // Computed in integers, so that rounding half away from zero is exact.
            Cell::Long(n) => {
                let (a, n) = (i128::from(a[0].long()), i128::from(n));
                let (whole, rest) = (a / n, a % n);
                let up = rest.abs() * 2 >= n.abs();
                i64::try_from(whole + if up { a.signum() * n.signum() } else { 0 }).ok()
            }
            _ => whole_number(a[0].long() as f64 / by),
        };
        interval_or_overflow(quotient, &call.to, WITH_SUGGESTION)
    }),
];

/// Rounds half away from zero; `None` if the result does not fit in 64 bits.
fn whole_number(value: f64) -> Option<i64> {
    let whole = value.round();
    (whole.abs() < i64::MAX as f64).then_some(whole as i64)
}

/// A field of an interval. YEAR and DAY are the whole interval in that unit. Every other field is
/// the remainder below the next larger unit.
fn part_of_interval<'a>(value: i64, field: &str, to: &DataType) -> Cell<'a> {
    if let T::Decimal(..) = to {
        return Cell::Decimal(i128::from(value % (60 * SECOND_US)));
    }
    Cell::Long(match field {
        "YEAR" => value / 12,
        "MONTH" => value % 12,
        "DAY" => value / DAY_US,
        "HOUR" => value % DAY_US / (3600 * SECOND_US),
        _ => value % (3600 * SECOND_US) / (60 * SECOND_US),
    })
}

/// Returns an interval; an error if it overflows. A year-month interval has 32 bits.
pub(super) fn interval_or_overflow<'a>(
    value: Option<i64>,
    to: &DataType,
    condition: &'static str,
) -> Result<Cell<'a>, Box<EvalError>> {
    let fits =
        |value: &i64| !matches!(to, T::YearMonthInterval(..)) || i32::try_from(*value).is_ok();
    match value.filter(fits) {
        Some(value) => Ok(Cell::Long(value)),
        None => failed(condition, "the interval is out of the range of its type", INTERVAL_FIX),
    }
}

const INTERVAL_FIX: &str = "Use try_add, try_subtract or try_multiply to get NULL instead";

const WITH_SUGGESTION: &str = "INTERVAL_ARITHMETIC_OVERFLOW.WITH_SUGGESTION";

pub(super) const WITHOUT_SUGGESTION: &str = "INTERVAL_ARITHMETIC_OVERFLOW.WITHOUT_SUGGESTION";
