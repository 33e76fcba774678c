//! Formats a date or time by a pattern.

use super::super::calendar::Date;
use super::super::text::fill;
use super::super::{DAY_US, SECOND_US, Tz};
use super::compile::{Field, Item, Need, OffsetStyle, Sign};
use std::fmt::{self, Write};

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// The short and full names of the era before year 1 and of the current one.
pub(super) const ERAS: [[&str; 2]; 2] = [["BC", "Before Christ"], ["AD", "Anno Domini"]];
/// The modified Julian day 0, in days since 1970.
pub(super) const JULIAN_EPOCH: i64 = -40_587;

/// An instant with its local date and time, from which all fields are formatted.
pub(super) struct Moment {
    utc_us: i64,
    zone: Tz,
    offset_s: i64,
    days: i64,
    date: Date,
    /// The local time of day, in microseconds.
    time: i64,
    /// The nanoseconds that the time has in addition to its microseconds.
    nanos: i64,
}

impl Moment {
    pub fn new(utc_us: i64, zone: Tz) -> Self {
        let offset_s = zone.offset_s(utc_us);
        // Computed in seconds, because the local time in microseconds may overflow.
        let seconds = utc_us.div_euclid(SECOND_US) + offset_s;
        let days = seconds.div_euclid(86_400);
        let time = seconds.rem_euclid(86_400) * SECOND_US + utc_us.rem_euclid(SECOND_US);
        Self { utc_us, zone, offset_s, days, date: Date::of_days(days), time, nanos: 0 }
    }

    /// A time of day in nanoseconds since midnight, on 1970-01-01.
    pub fn of_time(nanos: i64) -> Self {
        Self { nanos: nanos % 1000, ..Self::new(nanos / 1000, Tz::UTC) }
    }

    /// The start of a day, in local time. `days` counts from 1970.
    pub fn of_days(days: i64, zone: Tz) -> Self {
        let utc_us = days.saturating_mul(DAY_US);
        Self { utc_us, zone, offset_s: 0, days, date: Date::of_days(days), time: 0, nanos: 0 }
    }

    fn field(&self, field: Field) -> i64 {
        let hour = self.time / (3600 * SECOND_US);
        match field {
            Field::Era => i64::from(self.date.year > 0),
            Field::YearOfEra if self.date.year > 0 => self.date.year,
            Field::YearOfEra => 1 - self.date.year,
            Field::Year => self.date.year,
            Field::Month => i64::from(self.date.month),
            Field::Day => i64::from(self.date.day),
            Field::DayOfYear => self.date.ordinal(),
            Field::ModifiedJulianDay => self.days - JULIAN_EPOCH,
            Field::AmPm => hour / 12,
            Field::HourOfDay => hour,
            Field::ClockHourOfDay => (hour + 23) % 24 + 1,
            Field::HourOfAmPm => hour % 12,
            Field::ClockHourOfAmPm => (hour + 11) % 12 + 1,
            Field::Minute => self.time / (60 * SECOND_US) % 60,
            Field::Second => self.time / SECOND_US % 60,
            Field::Nano => self.time % SECOND_US * 1000 + self.nanos,
            Field::Offset => self.offset_s,
            Field::Quarter => self.date.quarter(),
            Field::Weekday => self.date.weekday(),
            Field::WeekdayInMonth => i64::from((self.date.day - 1) % 7 + 1),
        }
    }
}

/// Formats items to `out`. Write errors are ignored, because `out` is in memory.
pub(super) fn write(items: &[Item], at: &Moment, out: &mut dyn Write) {
    for item in items {
        let _ = one(item, at, out);
    }
}

fn one(item: &Item, at: &Moment, out: &mut dyn Write) -> fmt::Result {
    match item {
        Item::Text(text) => out.write_str(text),
        Item::Optional(part) => {
            write(part, at, out);
            Ok(())
        }
        Item::Number { field, least, sign, .. } => number(at.field(*field), *least, *sign, out),
        Item::TwoDigitYear { field, .. } => write!(out, "{:02}", at.field(*field).abs() % 100),
        Item::Fraction { most, .. } => {
            let shown = at.field(Field::Nano) / 10i64.pow(9 - (*most).min(9) as u32);
            padded(shown.unsigned_abs(), *most, out)
        }
        Item::Name { field, full } => name(*field, *full, at, out),
        Item::ZoneId => out.write_str(&at.zone.name()),
        Item::ZoneName { full, generic: true } => out.write_str(&at.zone.generic_text(*full)),
        Item::ZoneName { full, .. } => out.write_str(&at.zone.text(at.utc_us, *full)),
        Item::Offset(style) => offset(at.offset_s, *style, out),
        Item::LocalizedOffset { full } => localized(at.offset_s, *full, out),
    }
}

fn number(value: i64, least: usize, sign: Sign, out: &mut dyn Write) -> fmt::Result {
    let digits = value.unsigned_abs();
    if value < 0 {
        out.write_str("-")?;
    } else if sign == Sign::ExceedsPad && digits.checked_ilog10().unwrap_or(0) as usize >= least {
        out.write_str("+")?;
    }
    padded(digits, least, out)
}

/// Writes a number, padded with leading zeros to a width. A longer number is written completely.
fn padded(value: u64, width: usize, out: &mut dyn Write) -> fmt::Result {
    let digits = value.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut text = [0; 24];
    match text.get_mut(..digits.max(width)) {
        Some(room) => {
            fill(room, value);
            // The buffer contains only ASCII, so the conversion cannot fail.
            out.write_str(std::str::from_utf8(room).unwrap_or_default())
        }
        None => write!(out, "{value:0width$}"),
    }
}

fn name(field: Field, full: bool, at: &Moment, out: &mut dyn Write) -> fmt::Result {
    let value = at.field(field);
    let cut = |name: &'static str| if full { name } else { &name[..3] };
    match field {
        Field::Month => out.write_str(cut(MONTHS[(value - 1) as usize])),
        Field::Weekday => out.write_str(cut(DAYS[value as usize])),
        Field::Era => out.write_str(ERAS[value as usize][usize::from(full)]),
        Field::AmPm => out.write_str(["AM", "PM"][value as usize]),
        Field::Quarter if full => {
            let ending = ["st", "nd", "rd", "th"][(value - 1) as usize];
            write!(out, "{value}{ending} quarter")
        }
        _ => write!(out, "Q{value}"),
    }
}

fn offset(offset_s: i64, style: OffsetStyle, out: &mut dyn Write) -> fmt::Result {
    let (hours, minutes) = (offset_s.abs() / 3600, offset_s.abs() / 60 % 60);
    let seconds = offset_s.abs() % 60;
    let has = |need: Need, value: i64| need == Need::Always || need == Need::Optional && value > 0;
    let with_minutes = has(style.minutes, minutes);
    let with_seconds = with_minutes && has(style.seconds, seconds);
    let shown =
        hours + if with_minutes { minutes } else { 0 } + if with_seconds { seconds } else { 0 };
    // If every part that the style shows is zero, the style's text for zero is written.
    if shown == 0 {
        return out.write_str(style.zero);
    }
    let colon = if style.colon { ":" } else { "" };
    write!(out, "{}{hours:02}", if offset_s < 0 { '-' } else { '+' })?;
    if with_minutes {
        write!(out, "{colon}{minutes:02}")?;
    }
    if with_seconds {
        write!(out, "{colon}{seconds:02}")?;
    }
    Ok(())
}

fn localized(offset_s: i64, full: bool, out: &mut dyn Write) -> fmt::Result {
    out.write_str("GMT")?;
    if offset_s == 0 {
        return Ok(());
    }
    let (hours, minutes) = (offset_s.abs() / 3600, offset_s.abs() / 60 % 60);
    let seconds = offset_s.abs() % 60;
    out.write_str(if offset_s < 0 { "-" } else { "+" })?;
    if full {
        write!(out, "{hours:02}:{minutes:02}")?;
    } else {
        write!(out, "{hours}")?;
        if minutes != 0 || seconds != 0 {
            write!(out, ":{minutes:02}")?;
        }
    }
    if seconds != 0 {
        write!(out, ":{seconds:02}")?;
    }
    Ok(())
}
