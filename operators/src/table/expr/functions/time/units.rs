//! Arithmetic in units of time: truncation, addition and differences.

use crate::table::datetime::calendar::{Date, days_of_month};
use crate::table::datetime::{DAY_US, SECOND_US, Tz, add_months_us, on_clock, to_local, to_utc};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::compile::{Compiled, long_fn, text};

/// The number of months between two timestamps. It is an integer if both are on the same day of
/// their months, or both on the last day. Otherwise a fraction is added, of months of 31 days. The
/// time of day is measured as elapsed time since midnight.
pub fn months_between(a: i64, b: i64, rounded: bool, zone: Tz) -> f64 {
    let parts = |at: i64| {
        let days = to_local(at, zone).div_euclid(DAY_US);
        let date = Date::of_days(days);
        let months = date.year * 12 + i64::from(date.month);
        let last = date.day == days_of_month(date.year, date.month);
        let midnight = to_utc(days.saturating_mul(DAY_US), zone);
        (months, i64::from(date.day), last, at.saturating_sub(midnight) / SECOND_US)
    };
    let ((m1, d1, last1, s1), (m2, d2, last2, s2)) = (parts(a), parts(b));
    let months = (m1 - m2) as f64;
    if d1 == d2 || (last1 && last2) {
        return months;
    }
    let seconds = (d1 - d2) * 86_400 + s1 - s2;
    let difference = months + seconds as f64 / (31.0 * 86_400.0);
    if rounded { (difference * 1e8).round() / 1e8 } else { difference }
}

/// Truncates a timestamp to a unit; `None` if the unit is unknown, and on overflow.
pub fn truncated(unit: &str, at: i64, zone: Tz) -> Option<i64> {
    let unit = unit.to_ascii_uppercase();
    let step = match unit.as_str() {
        "MICROSECOND" => return Some(at),
        "MILLISECOND" => 1000,
        "SECOND" => SECOND_US,
        _ => 0,
    };
    if step > 0 {
        return at.checked_sub(at.rem_euclid(step));
    }
    let local = to_local(at, zone);
    let within_hour = match unit.as_str() {
        "MINUTE" => 60 * SECOND_US,
        "HOUR" => 3600 * SECOND_US,
        _ => 0,
    };
    if within_hour > 0 {
        // Subtracts elapsed time, because in the hour that a clock change repeats, a local time is
        // ambiguous.
        return at.checked_sub(local.rem_euclid(within_hour));
    }
    let days = local.div_euclid(DAY_US);
    let days =
        if matches!(unit.as_str(), "DAY" | "DD") { days } else { truncated_date(&unit, days)? };
    Some(to_utc(days.checked_mul(DAY_US)?, zone))
}

pub fn truncated_date(unit: &str, days: i64) -> Option<i64> {
    let date = Date::of_days(days);
    let first = |month: u32| Some(Date { month, day: 1, ..date }.days());
    match unit.to_ascii_uppercase().as_str() {
        "WEEK" => Some(days - (days + 3).rem_euclid(7)),
        "MONTH" | "MON" | "MM" => first(date.month),
        "QUARTER" => first((date.month - 1) / 3 * 3 + 1),
        "YEAR" | "YYYY" | "YY" => first(1),
        _ => None,
    }
}

/// Compiles truncation to a unit. If the unit is unknown, the result is NULL, even if the
/// evaluation of the time would fail.
pub fn cut(
    unit: Compiled,
    time: Compiled,
    down: impl Fn(&str, i64) -> Option<i64> + Send + 'static,
) -> Compiled {
    let (unit, time) = (unit.bytes(), time.long());
    long_fn(move |cx| {
        let Some(unit) = unit(cx)? else { return Ok(None) };
        let unit = text(unit);
        match time(cx) {
            Ok(time) => Ok(time.and_then(|time| down(unit, time))),
            Err(_) if down(unit, 0).is_none() => Ok(None),
            Err(error) => Err(error),
        }
    })
}

const UNITS: [&str; 10] = [
    "MICROSECOND",
    "MILLISECOND",
    "SECOND",
    "MINUTE",
    "HOUR",
    "DAY",
    "WEEK",
    "MONTH",
    "QUARTER",
    "YEAR",
];

pub fn unit_of(name: &str, arg: &Resolved) -> PlanResult<()> {
    let known = arg.literal_text().is_some_and(|unit| {
        UNITS.iter().any(|known| known.eq_ignore_ascii_case(unit))
            || name == "timestampadd" && unit.eq_ignore_ascii_case("DAYOFYEAR")
    });
    if known {
        return Ok(());
    }
    Err(PlanError::new(
        "INVALID_PARAMETER_VALUE.DATETIME_UNIT",
        format!("`{arg}` is not a unit of time"),
        format!("Units: {}", UNITS.join(", ")),
    ))
}

fn fixed_unit_us(unit: &str) -> Option<i64> {
    Some(match unit.to_ascii_uppercase().as_str() {
        "MICROSECOND" => 1,
        "MILLISECOND" => 1000,
        "SECOND" => SECOND_US,
        "MINUTE" => 60 * SECOND_US,
        "HOUR" => 3600 * SECOND_US,
        _ => return None,
    })
}

fn months_of(unit: &str) -> Option<i64> {
    Some(match unit.to_ascii_uppercase().as_str() {
        "MONTH" => 1,
        "QUARTER" => 3,
        "YEAR" => 12,
        _ => return None,
    })
}

/// Adds units to a timestamp: days and months in local time, shorter units as elapsed time.
pub fn added(unit: &str, count: i64, at: i64, zone: Tz) -> Option<i64> {
    if let Some(length) = fixed_unit_us(unit) {
        return at.checked_add(count.checked_mul(length)?);
    }
    if let Some(months) = months_of(unit) {
        let months = count.checked_mul(months)?;
        return on_clock(at, zone, |local| add_months_us(local, months));
    }
    let days = if unit.eq_ignore_ascii_case("WEEK") { 7 } else { 1 };
    let length = count.checked_mul(days)?.checked_mul(DAY_US)?;
    on_clock(at, zone, |local| local.checked_add(length))
}

/// The number of whole units between two local times. Clock changes between them are ignored.
pub fn difference(unit: &str, start: i64, end: i64, zone: Tz) -> Option<i64> {
    let (start, end) = (to_local(start, zone), to_local(end, zone));
    let between = i128::from(end) - i128::from(start);
    let Some(months) = months_of(unit) else {
        let length = fixed_unit_us(unit).unwrap_or(if unit.eq_ignore_ascii_case("WEEK") {
            7 * DAY_US
        } else {
            DAY_US
        });
        return i64::try_from(between / i128::from(length)).ok();
    };
    // The last day counts only if its time of day is at or after that of the start.
    let (start_days, end_days) = (start.div_euclid(DAY_US), end.div_euclid(DAY_US));
    let (start_time, end_time) = (start.rem_euclid(DAY_US), end.rem_euclid(DAY_US));
    let end_days = if end_days > start_days && end_time < start_time {
        end_days - 1
    } else if end_days < start_days && end_time > start_time {
        end_days + 1
    } else {
        end_days
    };
    // A month counts as passed when the day of the month is reached again. The end of a shorter
    // month does not count.
    let packed = |days: i64| {
        let date = Date::of_days(days);
        (date.year * 12 + i64::from(date.month)) * 32 + i64::from(date.day)
    };
    Some((packed(end_days) - packed(start_days)) / 32 / months)
}
