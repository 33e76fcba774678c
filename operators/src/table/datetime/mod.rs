//! Dates and times: texts to and from days and microseconds, time zones, and patterns.
//!
//! Dates are days, timestamps microseconds since 1970-01-01 (UTC), both in the proleptic
//! Gregorian calendar, as in Spark. A local time that a zone skips is moved on by the gap; one that
//! comes twice is the earlier of the two.

pub mod interval;
pub mod pattern;

use super::error::{PlanError, PlanResult};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Offset, TimeZone, Timelike};
pub use chrono_tz::Tz;
use std::fmt::{self, Write};

/// Microseconds of a second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds of a day.
pub const DAY_US: i64 = 86_400 * SECOND_US;

/// A time zone by name, or as an offset of whole hours.
pub fn zone(name: &str) -> PlanResult<Tz> {
    let trimmed = name.trim();
    let canonical = match trimmed.to_ascii_uppercase().as_str() {
        "Z" | "UTC" | "GMT" | "UT" | "+00:00" | "-00:00" | "UTC+0" => return Ok(Tz::UTC),
        _ => match whole_hours(trimmed) {
            // The zones of Etc count westward.
            Some(0) => "UTC".to_string(),
            Some(hours) if hours > 0 => format!("Etc/GMT-{hours}"),
            Some(hours) => format!("Etc/GMT+{}", -hours),
            None => trimmed.to_string(),
        },
    };
    Tz::from_str_insensitive(&canonical).map_err(|_| {
        PlanError::new(
            "INVALID_TIMEZONE",
            format!("'{name}' is not a time zone"),
            "Use a region such as 'Europe/Berlin', 'UTC', or an offset of whole hours such as '+02:00'",
        )
    })
}

fn whole_hours(text: &str) -> Option<i32> {
    let text = text.strip_prefix("UTC").or(text.strip_prefix("GMT")).unwrap_or(text);
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':').unwrap_or((&text[1..], "00"));
    let hours: i32 = hours.parse().ok().filter(|h| (0..=12).contains(h))?;
    (minutes == "00").then_some(sign * hours)
}

/// Microseconds of a local time, taken as if it were UTC.
pub fn local_us(at: NaiveDateTime) -> i64 {
    at.and_utc().timestamp_micros()
}

fn naive(local_us: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(local_us).map(|at| at.naive_utc())
}

/// From a local time of a zone to UTC.
pub fn to_utc(local_us: i64, zone: Tz) -> i64 {
    if zone == Tz::UTC {
        return local_us;
    }
    let Some(at) = naive(local_us) else { return local_us };
    let offset_s = match zone.offset_from_local_datetime(&at) {
        chrono::LocalResult::Single(offset) => offset.fix().local_minus_utc(),
        chrono::LocalResult::Ambiguous(first, _) => first.fix().local_minus_utc(),
        // In a gap: the offset from before it, which moves the time on by the gap's length.
        chrono::LocalResult::None => {
            let before = at - chrono::Duration::days(1);
            match zone.offset_from_local_datetime(&before) {
                chrono::LocalResult::Single(offset) => offset.fix().local_minus_utc(),
                chrono::LocalResult::Ambiguous(first, _) => first.fix().local_minus_utc(),
                chrono::LocalResult::None => 0,
            }
        }
    };
    // At the ends of time the clock stops.
    local_us.saturating_sub(i64::from(offset_s) * SECOND_US)
}

/// Seconds by which a zone is ahead of UTC at an instant.
pub fn offset_s(utc_us: i64, zone: Tz) -> i64 {
    if zone == Tz::UTC {
        return 0;
    }
    let Some(at) = naive(utc_us) else { return 0 };
    i64::from(zone.offset_from_utc_datetime(&at).fix().local_minus_utc())
}

/// From UTC to the local time of a zone.
pub fn to_local(utc_us: i64, zone: Tz) -> i64 {
    utc_us.saturating_add(offset_s(utc_us, zone) * SECOND_US)
}

/// The date of a day number.
pub fn date_of_days(days: i64) -> Option<NaiveDate> {
    i32::try_from(days).ok().and_then(NaiveDate::from_epoch_days)
}

/// The day number of a date.
pub fn days_of_date(date: NaiveDate) -> i64 {
    i64::from(date.to_epoch_days())
}

/// Days, with the day of the month cut to the month's length.
pub fn add_months(days: i64, months: i64) -> Option<i64> {
    let date = date_of_days(days)?;
    let months = i64::from(date.year()) * 12 + i64::from(date.month0()) + months;
    let (year, month) = (i32::try_from(months.div_euclid(12)).ok()?, months.rem_euclid(12) as u32);
    let day = date.day().min(days_of_month(year, month + 1)?);
    Some(days_of_date(NaiveDate::from_ymd_opt(year, month + 1, day)?))
}

/// A local time months later.
pub fn add_months_us(local_us: i64, months: i64) -> Option<i64> {
    let (days, time) = (local_us.div_euclid(DAY_US), local_us.rem_euclid(DAY_US));
    add_months(days, months)?.checked_mul(DAY_US)?.checked_add(time)
}

/// Days of a month, which is counted from 1.
pub fn days_of_month(year: i32, month: u32) -> Option<u32> {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let next = NaiveDate::from_ymd_opt(next_year, next, 1)?;
    Some((next - NaiveDate::from_ymd_opt(year, month, 1)?).num_days() as u32)
}

/// Writes a date.
pub fn write_date(days: i64, out: &mut dyn Write) -> fmt::Result {
    match date_of_days(days) {
        Some(date) => {
            let sign = if date.year() < 0 { "-" } else { "" };
            write!(out, "{sign}{:04}-{:02}-{:02}", date.year().abs(), date.month(), date.day())
        }
        None => write!(out, "{days} days since 1970-01-01"),
    }
}

/// Writes a timestamp in a zone; the fraction only where it is not zero.
pub fn write_timestamp(micros: i64, zone: Tz, out: &mut dyn Write) -> fmt::Result {
    let Some(local) = naive(to_local(micros, zone)) else {
        return write!(out, "{micros} us since 1970-01-01");
    };
    write_date(days_of_date(local.date()), out)?;
    write!(out, " {:02}:{:02}:{:02}", local.hour(), local.minute(), local.second())?;
    let (mut fraction, mut digits) = (micros.rem_euclid(SECOND_US), 6);
    if fraction == 0 {
        return Ok(());
    }
    while fraction % 10 == 0 {
        (fraction, digits) = (fraction / 10, digits - 1);
    }
    write!(out, ".{fraction:0digits$}")
}

/// Days of `[+-]yyyy[-m[-d]]`, with anything after a `T` or space behind a full date.
pub fn parse_date(value: &str) -> Option<i64> {
    let (date, _) = split_date(value.trim())?;
    Some(days_of_date(date))
}

fn split_date(value: &str) -> Option<(NaiveDate, &str)> {
    let (date, rest) = match value.find(['T', ' ']) {
        Some(at) => (&value[..at], &value[at + 1..]),
        None => (value, ""),
    };
    let (sign, digits) = match date.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, date.strip_prefix('+').unwrap_or(date)),
    };
    let mut parts = digits.splitn(3, '-');
    let number = |part: &str| {
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten()
    };
    let year = parts.next().filter(|y| (4..=6).contains(&y.len())).and_then(number)?;
    let mut two = || match parts.next() {
        Some(part) if (1..=2).contains(&part.len()) => number(part),
        Some(_) => None,
        None => Some(1),
    };
    let (month, day) = (two()?, two()?);
    Some((NaiveDate::from_ymd_opt(sign * year as i32, month, day)?, rest))
}

/// Microseconds of `date[ |T]h:m[:s[.fraction]][ zone]`. What has no zone of its own is in
/// `zone`; without one (TIMESTAMP_NTZ) a written zone is not looked at.
pub fn parse_timestamp(value: &str, zone: Option<Tz>) -> Option<i64> {
    let value = value.trim();
    // `T12:30` and `12:30` alone have no day that is not the clock's.
    let (date, rest) = split_date(value)?;
    let midnight = days_of_date(date).checked_mul(DAY_US)?;
    if rest.is_empty() {
        return Some(zone.map_or(midnight, |zone| to_utc(midnight, zone)));
    }
    let zone_at =
        rest.find(|c: char| c.is_ascii_alphabetic() || c == '+' || c == '-').unwrap_or(rest.len());
    let (clock, written) = rest.split_at(zone_at);
    let mut parts = clock.trim_end().splitn(3, ':');
    let field = |part: Option<&str>, below: i64| {
        let part = part.filter(|p| (1..=2).contains(&p.len()))?;
        let number = part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i64>());
        number?.ok().filter(|v| (0..below).contains(v))
    };
    let (hour, minute) = (field(parts.next(), 24)?, field(parts.next(), 60)?);
    let (second, micros) = match parts.next() {
        None => (0, 0),
        Some(text) => {
            let (second, fraction) = text.split_once('.').unwrap_or((text, ""));
            if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let mut micros = 0;
            for i in 0..6 {
                micros =
                    micros * 10 + i64::from(fraction.as_bytes().get(i).map_or(0, |b| b - b'0'));
            }
            (field(Some(second), 60)?, micros)
        }
    };
    let local = midnight + ((hour * 60 + minute) * 60 + second) * SECOND_US + micros;
    match (zone, written.trim()) {
        (None, _) => Some(local),
        (Some(zone), "") => Some(to_utc(local, zone)),
        (Some(_), written) => zoned(local, written),
    }
}

/// A local time in a zone that is written as an offset or a name.
fn zoned(local_us: i64, written: &str) -> Option<i64> {
    match parse_offset(written) {
        Some(offset_s) => Some(local_us - offset_s * SECOND_US),
        None => Some(to_utc(local_us, zone(written).ok()?)),
    }
}

/// Seconds of `Z`, `+h`, `+hh:mm[:ss]`, `+hhmm`, perhaps behind `UTC` or `GMT`.
fn parse_offset(text: &str) -> Option<i64> {
    let upper = text.to_ascii_uppercase();
    let text = ["UTC", "GMT", "UT"]
        .iter()
        .find_map(|prefix| upper.strip_prefix(prefix))
        .unwrap_or(upper.as_str());
    if text.is_empty() || text == "Z" {
        return Some(0);
    }
    let sign = match text.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = &text[1..];
    let part = |text: &str, most: i64| {
        let fits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| text.parse::<i64>().ok()).flatten().filter(|v| *v <= most)
    };
    let seconds = if digits.contains(':') {
        let mut parts = digits.splitn(3, ':');
        let (hours, minutes) = (part(parts.next()?, 18)?, part(parts.next()?, 59)?);
        (hours * 60 + minutes) * 60 + parts.next().map_or(Some(0), |s| part(s, 59))?
    } else if digits.len() == 4 {
        (part(digits.get(..2)?, 18)? * 60 + part(digits.get(2..)?, 59)?) * 60
    } else {
        part(digits, 18)? * 3600
    };
    Some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp_text(micros: i64, zone: Tz) -> String {
        let mut out = String::new();
        write_timestamp(micros, zone, &mut out).unwrap();
        out
    }

    fn date_text(days: i64) -> String {
        let mut out = String::new();
        write_date(days, &mut out).unwrap();
        out
    }

    #[test]
    fn timestamps_as_spark_reads_them() {
        let read = |text| parse_timestamp(text, Some(Tz::UTC));
        assert_eq!(read("1970-01-01"), Some(0));
        assert_eq!(read("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(read("1970-1-1 1:00:00+01:00"), Some(0));
        assert_eq!(read("1970-01-01 00:00:00 America/New_York"), Some(5 * 3600 * SECOND_US));
        assert_eq!(read("1969-12-31 23:59:59"), Some(-1_000_000));
        assert_eq!(parse_date("2024-02-30"), None);
        assert_eq!(read("2024-01-01 24:00:00"), None);
        assert_eq!(parse_timestamp("1970-01-01 01:00:00+09:00", None), Some(3600 * SECOND_US));
        for bad in ["", "-", "+", "2024-01-01 +", "2024-01-01 10:00 x", "10:00", "２０２４-01-01"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn zones_gaps_and_overlaps() {
        let new_york = zone("America/New_York").unwrap();
        let at = |text| parse_timestamp(text, Some(new_york)).unwrap();
        assert_eq!(timestamp_text(at("2024-03-10 02:30:00"), new_york), "2024-03-10 03:30:00");
        let first = at("2024-11-03 01:30:00");
        assert_eq!(offset_s(first, new_york), -4 * 3600, "the earlier of the two");
        assert_eq!(zone("+02:00").unwrap(), Tz::Etc__GMTMinus2);
        assert!(zone("Mars/Olympus").is_err());
        assert_eq!(add_months(parse_date("2024-01-31").unwrap(), 1), parse_date("2024-02-29"));
        assert_eq!(add_months(parse_date("2024-01-31").unwrap(), -11), parse_date("2023-02-28"));
    }

    #[test]
    fn texts() {
        assert_eq!(timestamp_text(-1, Tz::UTC), "1969-12-31 23:59:59.999999");
        assert_eq!(timestamp_text(50_000, Tz::UTC), "1970-01-01 00:00:00.05");
        assert_eq!(timestamp_text(0, Tz::America__New_York), "1969-12-31 19:00:00");
        assert_eq!(date_text(-1), "1969-12-31");
    }
}
