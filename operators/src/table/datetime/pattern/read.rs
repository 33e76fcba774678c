//! Parses a date or time by a pattern, as Java does in its strict style. The fields are parsed
//! first. Then the day and the time of day are computed from the fields. Contradictory date
//! or time fields are an error, with the exception in [`time`].

use super::super::calendar::Date;
use super::super::zone::at_front;
use super::super::{DAY_US, SECOND_US, Tz, to_utc};
use super::compile::{Field, Item, Need, OffsetStyle, READ_FIELDS, Sign};
use super::write::{ERAS, JULIAN_EPOCH, MONTHS};

/// The fields parsed so far.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    values: [Option<i64>; READ_FIELDS],
    zone: Option<Tz>,
}

impl Fields {
    fn get(&self, field: Field) -> Option<i64> {
        self.values[field as usize]
    }

    /// Sets a field. Returns `None` if the field already has another value.
    fn set(&mut self, field: Field, value: i64) -> Option<()> {
        let slot = &mut self.values[field as usize];
        if slot.is_some_and(|before| before != value) {
            return None;
        }
        *slot = Some(value);
        Some(())
    }

    fn take(&mut self, field: Field) -> Option<i64> {
        self.values[field as usize].take()
    }
}

/// A parsed day and time of day, with the zone if the text has one.
pub(super) struct Parsed {
    days: i64,
    micros: i64,
    /// The nanoseconds that the time has in addition to its microseconds.
    nanos: i64,
    zone: Option<Tz>,
}

impl Parsed {
    pub fn days(&self) -> i64 {
        self.days
    }

    pub fn zone(&self) -> Option<Tz> {
        self.zone
    }

    /// The time of day in nanoseconds since midnight.
    pub fn time_ns(&self) -> i64 {
        self.micros * 1000 + self.nanos
    }

    /// Microseconds since 1970. The parsed time is local to `zone`, and the result is in UTC;
    /// without a zone the result is the local time.
    pub fn micros(&self, zone: Option<Tz>) -> Option<i64> {
        let local = self.days.checked_mul(DAY_US)?.checked_add(self.micros)?;
        Some(zone.map_or(local, |zone| to_utc(local, zone)))
    }
}

/// Parses a text. `None` if the items do not match the whole text, or if the fields do not make a
/// valid time.
pub(super) fn read(items: &[Item], text: &str) -> Option<Parsed> {
    let mut fields = Fields::default();
    let rest = sequence(items, text, &mut fields)?;
    if rest.is_empty() { resolved(fields) } else { None }
}

fn sequence<'t>(items: &[Item], text: &'t str, fields: &mut Fields) -> Option<&'t str> {
    items.iter().try_fold(text, |rest, item| one(item, rest, fields))
}

fn one<'t>(item: &Item, text: &'t str, fields: &mut Fields) -> Option<&'t str> {
    match item {
        Item::Text(expected) => prefix(text, expected),
        Item::Optional(part) => {
            let mut tried = *fields;
            match sequence(part, text, &mut tried) {
                Some(rest) => {
                    *fields = tried;
                    Some(rest)
                }
                None => Some(text),
            }
        }
        Item::Number { field, least, most, sign, following } => {
            let (value, rest) = number(text, *least, *most, *sign, *following)?;
            fields.set(*field, value)?;
            Some(rest)
        }
        Item::TwoDigitYear { field, following } => {
            let (value, rest) = number(text, 2, 2, Sign::Never, *following)?;
            fields.set(*field, value + 2000)?;
            Some(rest)
        }
        Item::Fraction { least, most } => {
            let count = text.bytes().take(*most).take_while(u8::is_ascii_digit).count();
            if count < *least {
                return None;
            }
            let (digits, rest) = text.split_at(count);
            let nanos = digits.parse::<i64>().ok()? * 10i64.pow(9 - count.min(9) as u32);
            fields.set(Field::Nano, nanos)?;
            Some(rest)
        }
        Item::Name { field, full } => {
            let (value, rest) = name(*field, *full, text)?;
            fields.set(*field, value)?;
            Some(rest)
        }
        Item::ZoneId => zone(text, None, fields),
        Item::ZoneName { full, .. } => zone(text, Some(*full), fields),
        Item::Offset(style) => {
            let (offset_s, rest) = offset(text, *style)?;
            fields.set(Field::Offset, offset_s)?;
            Some(rest)
        }
        Item::LocalizedOffset { full } => {
            let (offset_s, rest) = localized(prefix(text, "GMT")?, *full)?;
            fields.set(Field::Offset, offset_s)?;
            Some(rest)
        }
    }
}

/// Strips a prefix, ignoring case, and returns the rest.
fn prefix<'t>(text: &'t str, expected: &str) -> Option<&'t str> {
    let mut rest = text.chars();
    for c in expected.chars() {
        let found = rest.next()?;
        if c != found && !c.to_lowercase().eq(found.to_lowercase()) {
            return None;
        }
    }
    Some(rest.as_str())
}

fn number(
    text: &str,
    least: usize,
    most: usize,
    sign: Sign,
    following: usize,
) -> Option<(i64, &str)> {
    let (negative, positive) = (text.starts_with('-'), text.starts_with('+'));
    let allowed = match sign {
        Sign::Never => !negative && !positive,
        Sign::Normal => !positive,
        Sign::ExceedsPad => true,
    };
    if !allowed {
        return None;
    }
    let digits = if negative || positive { &text[1..] } else { text };
    let there = digits.bytes().take(most + following).take_while(u8::is_ascii_digit).count();
    if there < least {
        return None;
    }
    let count = if following == 0 { there } else { there.saturating_sub(following).max(least) };
    let (number, rest) = digits.split_at(count);
    let value: i64 = number.parse().ok()?;
    if negative {
        // A negative zero is rejected.
        return (value != 0).then_some((-value, rest));
    }
    if sign == Sign::ExceedsPad && positive != (count > least) {
        return None;
    }
    Some((value, rest))
}

fn name(field: Field, full: bool, text: &str) -> Option<(i64, &str)> {
    let found = |names: &mut dyn Iterator<Item = &'static str>| {
        names.zip(0i64..).find_map(|(name, value)| Some((value, prefix(text, name)?)))
    };
    match field {
        Field::Month => {
            let mut names = MONTHS.iter().map(|name| if full { name } else { &name[..3] });
            found(&mut names).map(|(value, rest)| (value + 1, rest))
        }
        Field::Era => found(&mut ERAS.iter().map(|era| era[usize::from(full)])),
        Field::AmPm => found(&mut ["AM", "PM"].into_iter()),
        _ => None,
    }
}

fn two_digits(text: &str) -> Option<(i64, &str)> {
    let digits = text.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_digit()))?;
    Some((digits.parse().ok()?, &text[2..]))
}

fn offset(text: &str, style: OffsetStyle) -> Option<(i64, &str)> {
    if let Some(rest) = prefix(text, style.zero) {
        return Some((0, rest));
    }
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, mut rest) = two_digits(&text[1..])?;
    let mut part = |need: Need| {
        if need == Need::Never {
            return Some(None);
        }
        let digits = if style.colon { rest.strip_prefix(':') } else { Some(rest) };
        match digits.and_then(two_digits).filter(|(value, _)| *value <= 59) {
            Some((value, after)) => {
                rest = after;
                Some(Some(value))
            }
            None => (need == Need::Optional).then_some(None),
        }
    };
    let minutes = part(style.minutes)?;
    let seconds = if minutes.is_some() { part(style.seconds)? } else { None };
    if hours > 23 {
        return None;
    }
    let offset_s = (hours * 60 + minutes.unwrap_or(0)) * 60 + seconds.unwrap_or(0);
    Some((sign * offset_s, rest))
}

/// Parses the offset after `GMT`: its seconds, and the rest of the text.
fn localized(text: &str, full: bool) -> Option<(i64, &str)> {
    let sign = match text.bytes().next() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return Some((0, text)),
    };
    let text = &text[1..];
    let part = |text: &'_ str| -> Option<(i64, usize)> {
        two_digits(text.strip_prefix(':')?).map(|(value, _)| (value, 3))
    };
    let (hours, mut rest) = match two_digits(text) {
        Some(found) => found,
        None if full => return None,
        None => {
            let digit = text.bytes().next().filter(u8::is_ascii_digit)?;
            (i64::from(digit - b'0'), &text[1..])
        }
    };
    let mut offset_s = hours * 3600;
    match part(rest) {
        Some((minutes, length)) => {
            (offset_s, rest) = (offset_s + minutes * 60, &rest[length..]);
            if let Some((seconds, length)) = part(rest) {
                (offset_s, rest) = (offset_s + seconds, &rest[length..]);
            }
        }
        None if full => return None,
        None => {}
    }
    Some((sign * offset_s, rest))
}

const ID_OFFSET: OffsetStyle =
    OffsetStyle { colon: true, minutes: Need::Always, seconds: Need::Optional, zero: "Z" };

/// Parses a zone ID or an offset. With `names`, English zone names are allowed too: full names if
/// `Some(true)`, short names if `Some(false)`.
fn zone<'t>(text: &'t str, names: Option<bool>, fields: &mut Fields) -> Option<&'t str> {
    if text.starts_with(['+', '-']) {
        let (offset_s, rest) = offset(text, ID_OFFSET)?;
        fields.zone = Some(Tz::fixed(i32::try_from(offset_s).ok()?)?);
        return Some(rest);
    }
    for id in ["UTC", "UT", "GMT0", "GMT"] {
        let Some(rest) = prefix(text, id) else { continue };
        let alone = rest.is_empty() || rest.starts_with(['0', 'Z', 'z']) || id == "GMT0";
        let behind =
            if alone { None } else { offset(rest, OffsetStyle { zero: "0", ..ID_OFFSET }) };
        let Some((offset_s, after)) = behind else {
            fields.zone = Tz::named(id);
            return Some(rest);
        };
        fields.zone = Some(Tz::of_offset(id, i32::try_from(offset_s).ok()?)?);
        return Some(after);
    }
    if let Some((zone, length)) = at_front(text, names) {
        fields.zone = Some(zone);
        return Some(&text[length..]);
    }
    let rest = prefix(text, "Z")?;
    fields.zone = Tz::fixed(0);
    Some(rest)
}

fn resolved(mut fields: Fields) -> Option<Parsed> {
    let (micros, nanos) = time(&mut fields)?;
    let days = date(&mut fields)?;
    let offset = match fields.get(Field::Offset) {
        Some(offset_s) => Some(Tz::fixed(i32::try_from(offset_s).ok()?)?),
        None => None,
    };
    Some(Parsed { days, micros, nanos, zone: fields.zone.or(offset) })
}

/// Computes the time of day from its fields: microseconds, and further nanoseconds. `None` if the fields contradict each
/// other, or if one is out of range.
fn time(fields: &mut Fields) -> Option<(i64, i64)> {
    let within = |value: Option<i64>, range: std::ops::RangeInclusive<i64>| match value {
        Some(value) => range.contains(&value).then_some(Some(value)),
        None => Some(None),
    };
    if let Some(hour) = within(fields.take(Field::ClockHourOfDay), 1..=24)? {
        fields.set(Field::HourOfDay, hour % 24)?;
    }
    if let Some(hour) = within(fields.take(Field::ClockHourOfAmPm), 1..=12)? {
        fields.set(Field::HourOfAmPm, hour % 12)?;
    }
    let mut half = within(fields.get(Field::AmPm), 0..=1)?;
    let mut half_hour = within(fields.get(Field::HourOfAmPm), 0..=11)?;
    if let (Some(of_day), Some(hour)) = (half, half_hour) {
        fields.set(Field::HourOfDay, of_day * 12 + hour)?;
        (half, half_hour) = (None, None);
    }
    let hour = within(fields.get(Field::HourOfDay), 0..=23)?;
    let minute = within(fields.get(Field::Minute), 0..=59)?;
    let second = within(fields.get(Field::Second), 0..=59)?;
    let nano = fields.get(Field::Nano);
    // If a unit between two given fields is missing, Java does not check AM/PM and the hour of
    // AM/PM against the hour of day.
    let gap = minute.is_none() && (second.is_some() || nano.is_some())
        || second.is_none() && nano.is_some();
    if let Some(hour) = hour
        && !gap
        && (half.is_some_and(|half| half != hour / 12)
            || half_hour.is_some_and(|half_hour| half_hour != hour % 12))
    {
        return None;
    }
    let hour = hour.or(half_hour).unwrap_or(if half == Some(1) { 12 } else { 0 });
    let seconds = (hour * 60 + minute.unwrap_or(0)) * 60 + second.unwrap_or(0);
    let nano = nano.unwrap_or(0);
    Some((seconds * SECOND_US + nano / 1000, nano % 1000))
}

/// Computes the day from the date fields, in days since 1970. A missing field has its value on
/// 1970-01-01.
fn date(fields: &mut Fields) -> Option<i64> {
    let era = fields.get(Field::Era);
    if let (Some(year), Some(era)) = (fields.get(Field::YearOfEra), era) {
        let year = (year >= 1).then_some(if era == 1 { year } else { 1 - year })?;
        fields.set(Field::Year, year)?;
    }
    let year = fields.get(Field::Year);
    if year.is_some_and(|year| year.abs() > 999_999_999) {
        return None;
    }
    let number = |field: Field| match fields.get(field) {
        Some(value) => u32::try_from(value).ok().map(Some),
        None => Some(None),
    };
    let (month, day) = (number(Field::Month)?, number(Field::Day)?);
    let of_year = number(Field::DayOfYear)?;
    let date = if let Some(days) = fields.get(Field::ModifiedJulianDay) {
        // The limit is the range of Java's calendar.
        (days.abs() < 365_250_000_000).then(|| Date::of_days(days + JULIAN_EPOCH))?
    } else if let Some(of_year) = of_year.filter(|_| {
        // A complete year, month and day take precedence over the day of year.
        year.is_none() || month.is_none() || day.is_none()
    }) {
        Date::of_ordinal(year.unwrap_or(1970), of_year)?
    } else {
        Date::new(year.unwrap_or(1970), month.unwrap_or(1), day.unwrap_or(1))?
    };
    let agrees = year.is_none_or(|year| year == date.year)
        && month.is_none_or(|month| month == date.month)
        && day.is_none_or(|day| day == date.day)
        && of_year.is_none_or(|of_year| i64::from(of_year) == date.ordinal());
    agrees.then(|| date.days())
}
