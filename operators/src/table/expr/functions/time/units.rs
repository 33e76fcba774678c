//! Units of time: down to one, so many more, how many between.

use crate::table::datetime::{
    DAY_US, SECOND_US, Tz, add_months_us, date_of_days, days_of_date, days_of_month, to_local,
    to_utc,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use chrono::{Datelike, NaiveDate};

pub fn months_between(a: i64, b: i64, rounded: bool) -> Option<f64> {
    let parts = |at: i64| {
        let date = date_of_days(at.div_euclid(DAY_US))?;
        let months = i64::from(date.year()) * 12 + i64::from(date.month0());
        let last = date.day() == days_of_month(date.year(), date.month())?;
        Some((months, i64::from(date.day()), last, at.rem_euclid(DAY_US) / SECOND_US))
    };
    let ((m1, d1, last1, s1), (m2, d2, last2, s2)) = (parts(a)?, parts(b)?);
    let months = (m1 - m2) as f64;
    if d1 == d2 || (last1 && last2) {
        return Some(months);
    }
    let seconds = (d1 - d2) * 86_400 + s1 - s2;
    let difference = months + seconds as f64 / (31.0 * 86_400.0);
    Some(if rounded { (difference * 1e8).round() / 1e8 } else { difference })
}

/// Words for units that `date_trunc` and its like know.
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
    let within_day = match unit.as_str() {
        "MINUTE" => 60 * SECOND_US,
        "HOUR" => 3600 * SECOND_US,
        "DAY" | "DD" => DAY_US,
        _ => 0,
    };
    if within_day > 0 {
        return Some(to_utc(local.checked_sub(local.rem_euclid(within_day))?, zone));
    }
    let days = truncated_date(&unit, local.div_euclid(DAY_US))?;
    Some(to_utc(days.checked_mul(DAY_US)?, zone))
}

pub fn truncated_date(unit: &str, days: i64) -> Option<i64> {
    let date = date_of_days(days)?;
    let first = |year: i32, month: u32| NaiveDate::from_ymd_opt(year, month, 1).map(days_of_date);
    match unit.to_ascii_uppercase().as_str() {
        "WEEK" => Some(days - (days + 3).rem_euclid(7)),
        "MONTH" | "MON" | "MM" => first(date.year(), date.month()),
        "QUARTER" => first(date.year(), date.month0() / 3 * 3 + 1),
        "YEAR" | "YYYY" | "YY" => first(date.year(), 1),
        _ => None,
    }
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

pub fn unit_of(arg: &Resolved) -> PlanResult<()> {
    let known = arg.literal_text().is_some_and(|unit| {
        UNITS.iter().any(|known| known.eq_ignore_ascii_case(unit))
            || unit.eq_ignore_ascii_case("DAYOFYEAR")
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

pub fn added(unit: &str, count: i64, at: i64, zone: Tz) -> Option<i64> {
    if let Some(length) = fixed_unit_us(unit) {
        return at.checked_add(count.checked_mul(length)?);
    }
    let local = to_local(at, zone);
    if let Some(months) = months_of(unit) {
        return Some(to_utc(add_months_us(local, count.checked_mul(months)?)?, zone));
    }
    let days = if unit.eq_ignore_ascii_case("WEEK") { 7 } else { 1 };
    Some(to_utc(local.checked_add(count.checked_mul(days)?.checked_mul(DAY_US)?)?, zone))
}

pub fn difference(unit: &str, start: i64, end: i64, zone: Tz) -> Option<i64> {
    if let Some(length) = fixed_unit_us(unit) {
        return Some(end.checked_sub(start)? / length);
    }
    let (start, end) = (to_local(start, zone), to_local(end, zone));
    match months_of(unit) {
        None => {
            let days = if unit.eq_ignore_ascii_case("WEEK") { 7 } else { 1 };
            Some(end.checked_sub(start)? / (days * DAY_US))
        }
        Some(unit) => {
            let month = |at: i64| {
                let date = date_of_days(at.div_euclid(DAY_US))?;
                Some(i64::from(date.year()) * 12 + i64::from(date.month0()))
            };
            let mut months = month(end)? - month(start)?;
            // A month that has not passed whole does not count.
            let reached = add_months_us(start, months)?;
            if months > 0 && reached > end {
                months -= 1;
            } else if months < 0 && reached < end {
                months += 1;
            }
            Some(months / unit)
        }
    }
}
