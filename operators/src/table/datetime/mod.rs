//! Dates and times: the calendar, time zones, parsing, formatting and patterns.
//!
//! As in Spark, dates are days and timestamps are microseconds since 1970-01-01 (UTC), in the
//! proleptic Gregorian calendar. A local time that a zone skips is moved forward by the length of
//! the gap. For a local time that occurs twice, the earlier instant is used, unless a function says
//! otherwise.

pub mod calendar;
pub mod calendar_interval;
mod duration;
pub mod interval;
pub mod pattern;
mod text;
pub(crate) mod time_of_day;
mod zone;

use calendar::{Date, days_of_month};
pub use calendar_interval::CalendarInterval;
pub(crate) use duration::duration_ns;
pub use text::{
    Special, names_zone, parse_date, parse_timestamp, special, trimmed, write_date, write_timestamp,
};
pub use zone::{Tz, on_clock, to_local, to_utc, zone};

/// Microseconds per second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds per day.
pub const DAY_US: i64 = 86_400 * SECOND_US;

/// Adds months to a date in days since 1970. If the resulting month is too short for the day, the
/// day becomes the last of the month. `None` if the result is outside the range of DATE.
pub fn add_months(days: i64, months: i64) -> Option<i64> {
    let date = Date::of_days(days);
    let months = (date.year * 12 + i64::from(date.month) - 1).checked_add(months)?;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
    // Outside the range of DATE. Without the check, the day count could overflow.
    if year.abs() > 6_000_000 {
        return None;
    }
    let days = Date { year, month, day: date.day.min(days_of_month(year, month)) }.days();
    i32::try_from(days).ok().map(i64::from)
}

/// Adds an interval to a date in days since 1970: first the months, then the days. Its microseconds
/// are not added. `None` if the result is outside the range of DATE.
pub fn add_interval(days: i64, interval: CalendarInterval) -> Option<i64> {
    let sum = add_months(days, interval.months.into())?.checked_add(interval.days.into())?;
    i32::try_from(sum).ok().map(i64::from)
}

/// Adds an interval to an instant in microseconds. Months and days preserve the local time of day;
/// the microseconds are elapsed time. `None` if the result is out of range.
pub fn add_interval_us(at: i64, interval: CalendarInterval, zone: Tz) -> Option<i64> {
    let local_days = i64::from(interval.days) * DAY_US;
    on_clock(at, zone, |local| {
        add_months_us(local, interval.months.into())?.checked_add(local_days)
    })?
    .checked_add(interval.micros)
}

/// Adds months to a local time in microseconds; see [`add_months`].
pub fn add_months_us(local_us: i64, months: i64) -> Option<i64> {
    let (days, time) = (local_us.div_euclid(DAY_US), local_us.rem_euclid(DAY_US));
    add_months(days, months)?.checked_mul(DAY_US)?.checked_add(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_months_limits_the_day_to_the_length_of_the_month() {
        let days = |text| parse_date(text).unwrap();
        assert_eq!(add_months(days("2024-01-31"), 1), parse_date("2024-02-29"));
        assert_eq!(add_months(days("2024-01-31"), -11), parse_date("2023-02-28"));
        assert_eq!(add_months(days("5881580-07-11"), 1), None);
        assert_eq!(add_months(0, i64::MAX), None);
    }
}
