//! Parses and formats dates and timestamps for casts.

use super::calendar::Date;
use super::{DAY_US, SECOND_US, Tz, to_local};
use std::fmt::{self, Write};

/// Formats a date, in days since 1970. The year has at least four digits, and a `+` above 9999.
pub fn write_date(days: i64, out: &mut dyn Write) -> fmt::Result {
    let date = Date::of_days(days);
    let sign = match date.year {
        ..0 => "-",
        0..=9999 => {
            let (year, month, day) = (date.year as u64, date.month.into(), date.day.into());
            let mut text = *b"0000-00-00";
            fill(&mut text[..4], year);
            fill(&mut text[5..7], month);
            fill(&mut text[8..], day);
            // The buffer contains only ASCII, so the conversion cannot fail.
            return out.write_str(std::str::from_utf8(&text).unwrap_or_default());
        }
        _ => "+",
    };
    write!(out, "{sign}{:04}-{:02}-{:02}", date.year.abs(), date.month, date.day)
}

/// Fills `room` with the last digits of a number, padded with leading zeros.
pub(super) fn fill(room: &mut [u8], value: u64) {
    let mut rest = value;
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Formats a timestamp in a zone, in microseconds since 1970. A fraction of zero is omitted.
pub fn write_timestamp(micros: i64, zone: Tz, out: &mut dyn Write) -> fmt::Result {
    // Computed in seconds, because the local time in microseconds may overflow.
    let offset_s = zone.offset_s(micros);
    let seconds = micros.div_euclid(SECOND_US) + offset_s;
    write_date(seconds.div_euclid(86_400), out)?;
    let clock = seconds.rem_euclid(86_400);
    let clock = clock as u64;
    let mut text = *b" 00:00:00";
    fill(&mut text[1..3], clock / 3600);
    fill(&mut text[4..6], clock / 60 % 60);
    fill(&mut text[7..], clock % 60);
    // The buffer contains only ASCII, so the conversion cannot fail.
    out.write_str(std::str::from_utf8(&text).unwrap_or_default())?;
    write_fraction(micros.rem_euclid(SECOND_US) as u64, 6, out)
}

/// Writes a fraction of a second, a number of `width` digits, after a point. Trailing zeros are left
/// out; so is a fraction of zero. `width` is at most 9.
pub(super) fn write_fraction(fraction: u64, width: usize, out: &mut dyn Write) -> fmt::Result {
    if fraction == 0 {
        return Ok(());
    }
    let mut text = *b".000000000";
    let digits = &mut text[1..=width.min(9)];
    fill(digits, fraction);
    let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
    let length = 1 + digits.len() - zeros;
    // The buffer contains only ASCII, so the conversion cannot fail.
    out.write_str(std::str::from_utf8(&text[..length]).unwrap_or_default())
}

/// Trims ASCII spaces and control characters, as Spark's casts do. Other Unicode white space is not
/// trimmed, so a number or date with it is invalid.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ' || c == '\u{7f}')
}

/// Parses a number of `least` to `most` digits, and returns the rest of the text.
fn digits(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(count);
    (least..=most).contains(&count).then(|| Some((number.parse().ok()?, rest)))?
}

fn signed(text: &str) -> (i64, &str, bool) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest, true),
        None => match text.strip_prefix('+') {
            Some(rest) => (1, rest, true),
            None => (1, text, false),
        },
    }
}

/// Parses `[+-]yyyy[-m[-d]]`. Returns the date, the rest of the text, and whether the text has a
/// day.
fn date_at_front(text: &str, year_digits: usize) -> Option<(Date, &str, bool)> {
    let (sign, text, _) = signed(text);
    let (year, mut rest) = digits(text, 4, year_digits)?;
    let (mut parts, mut found) = ([1; 2], 0);
    while found < 2
        && let Some(after) = rest.strip_prefix('-')
    {
        (parts[found], rest) = digits(after, 1, 2)?;
        found += 1;
    }
    let date = Date::new(sign * year, parts[0] as u32, parts[1] as u32)?;
    Some((date, rest, found == 2))
}

/// The value of two ASCII digits; `None` if one is not a digit.
#[inline]
fn two(text: [u8; 2]) -> Option<u32> {
    let [tens, ones] = text.map(|byte| u32::from(byte.wrapping_sub(b'0')));
    (tens < 10 && ones < 10).then_some(tens * 10 + ones)
}

/// The fast path for `yyyy-mm-dd`, the most common form of dates.
#[inline]
fn plain_date(text: &[u8; 10]) -> Option<Date> {
    let [c, y, a, b, b'-', m, n, b'-', d, e] = *text else { return None };
    let year = two([c, y])? * 100 + two([a, b])?;
    Date::new(i64::from(year), two([m, n])?, two([d, e])?)
}

/// The fast path for `yyyy-mm-dd hh:mm:ss`, the most common form of timestamps; a `T` may replace
/// the space. Returns days since 1970 and the time of day in microseconds. `None` for other forms,
/// and for dates and times that do not exist.
#[inline]
fn plain_timestamp(text: &str) -> Option<(i64, i64)> {
    let text: &[u8; 19] = text.as_bytes().try_into().ok()?;
    let (date, clock) = text.split_first_chunk::<10>()?;
    let [b' ' | b'T', h, i, b':', m, n, b':', s, t] = *clock else { return None };
    let (hour, minute, second) = (two([h, i])?, two([m, n])?, two([s, t])?);
    let clock = i64::from(hour * 3600 + minute * 60 + second) * SECOND_US;
    (hour < 24 && minute < 60 && second < 60).then_some((plain_date(date)?.days(), clock))
}

/// Parses `[+-]yyyy[-m[-d]]` to days since 1970. Text after a full date is ignored if it starts
/// with a `T` or a space.
pub fn parse_date(value: &str) -> Option<i64> {
    if let Ok(text) = value.as_bytes().try_into()
        && let Some(date) = plain_date(text)
    {
        return Some(date.days());
    }
    let (date, rest, full) = date_at_front(trimmed(value), 7)?;
    let whole = rest.is_empty() || full && rest.starts_with([' ', 'T']);
    i32::try_from(date.days()).ok().filter(|_| whole).map(i64::from)
}

/// Parses `date[ |T]h[:m[:s[.fraction][ zone]]]` to microseconds since 1970. A date without a time
/// is its midnight. A time without a date is a time of the current day. A time without a zone is in
/// `zone`. If `zone` is `None` (TIMESTAMP_NTZ), a zone in the text must be valid but has no effect,
/// and a time without a date is invalid.
pub fn parse_timestamp(value: &str, zone: Option<Tz>) -> Option<i64> {
    let (days, micros, written) = match plain_timestamp(value) {
        Some((days, micros)) => (Some(days), micros, ""),
        None => timestamp_parts(value)?,
    };
    let own = if written.is_empty() { None } else { Some(Tz::named(trimmed(written))?) };
    match zone {
        Some(zone) => in_zone(days, micros, Some(own.unwrap_or(zone)), Some(zone)),
        None => in_zone(days, micros, None, None),
    }
}

/// Whether a text is a valid timestamp that ends with a zone.
pub fn names_zone(value: &str) -> bool {
    timestamp_parts(value).is_some_and(|(.., zone)| Tz::named(trimmed(zone)).is_some())
}

/// Splits a timestamp into the date in days since 1970, the time of day in microseconds, and the
/// text of the zone. The date is `None` for a time without a date.
fn timestamp_parts(value: &str) -> Option<(Option<i64>, i64, &str)> {
    let value = trimmed(value);
    let time_alone = value.starts_with('T') || {
        let hour = value.bytes().take_while(u8::is_ascii_digit).count();
        (1..=2).contains(&hour) && value[hour..].starts_with(':')
    };
    let (days, clock) = if time_alone {
        (None, value.strip_prefix('T').unwrap_or(value))
    } else {
        let (date, rest, full) = date_at_front(value, 6)?;
        let clock = match rest.strip_prefix([' ', 'T']) {
            Some(clock) if full => Some(clock),
            None if rest.is_empty() => None,
            _ => return None,
        };
        let Some(clock) = clock else {
            return Some((Some(date.days()), 0, ""));
        };
        (Some(date.days()), clock)
    };
    let (micros, zone) = time_of_day(clock)?;
    Some((days, micros, zone))
}

/// Parses `h[:m[:s[.fraction]]]` to microseconds, and returns the rest of the text.
pub(super) fn time_of_day(text: &str) -> Option<(i64, &str)> {
    let below = |number: i64, limit: i64| (number < limit).then_some(number);
    let (hour, rest) = digits(text, 1, 2)?;
    let mut micros = below(hour, 24)? * 3600 * SECOND_US;
    if rest.is_empty() {
        return Some((micros, rest));
    }
    let (minute, rest) = digits(rest.strip_prefix(':')?, 1, 2)?;
    micros += below(minute, 60)? * 60 * SECOND_US;
    if rest.is_empty() {
        return Some((micros, rest));
    }
    let (second, mut rest) = digits(rest.strip_prefix(':')?, 1, 2)?;
    micros += below(second, 60)? * SECOND_US;
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let mut unit = SECOND_US;
        // Digits beyond the microsecond are dropped.
        for digit in fraction.bytes().take(count.min(6)) {
            unit /= 10;
            micros += i64::from(digit - b'0') * unit;
        }
        rest = &fraction[count..];
    }
    Some((micros, rest))
}

/// Converts a local time in the zone `own` to microseconds since 1970; without `own` the time is
/// not shifted. Without `days`, the day is the current day in `own`, or else in `session`.
fn in_zone(days: Option<i64>, micros: i64, own: Option<Tz>, session: Option<Tz>) -> Option<i64> {
    let days = match (days, own.or(session)) {
        (Some(days), _) => days,
        (None, Some(zone)) => to_local(now_us(), zone).div_euclid(DAY_US),
        (None, None) => return None,
    };
    // Computed in 128 bits, because the local time may overflow even if the result does not.
    let local = i128::from(days) * i128::from(DAY_US) + i128::from(micros);
    let nearest = local.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
    let offset_s = own.map_or(0, |zone| zone.local_offset_s(nearest));
    i64::try_from(local - i128::from(offset_s) * i128::from(SECOND_US)).ok()
}

/// The current time in microseconds since 1970. Only a time without a date depends on it.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or(0)
}

/// A special value of a date or timestamp literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// 1970-01-01 00:00:00 UTC.
    Epoch,
    /// The current time of the batch.
    Now,
    /// The current day of the batch plus this number of days: 0 is today, 1 tomorrow, -1 yesterday.
    Day(i64),
}

/// Parses `epoch`, `now`, `today`, `tomorrow` or `yesterday`. A zone after the word is allowed and
/// has no effect.
pub fn special(text: &str) -> Option<Special> {
    let text = trimmed(text);
    let word = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (word, rest) = text.split_at(word);
    let zone = rest.trim_start();
    if !zone.is_empty() && Tz::named(zone).is_none() {
        return None;
    }
    Some(match word.to_ascii_lowercase().as_str() {
        "epoch" => Special::Epoch,
        "now" => Special::Now,
        "today" => Special::Day(0),
        "tomorrow" => Special::Day(1),
        "yesterday" => Special::Day(-1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timestamp_text(micros: i64, zone: Tz) -> String {
        let mut out = String::new();
        write_timestamp(micros, zone, &mut out).unwrap();
        out
    }

    fn date_text(text: &str) -> Option<String> {
        let mut out = String::new();
        write_date(parse_date(text)?, &mut out).unwrap();
        Some(out)
    }

    #[test]
    fn timestamps_as_spark_reads_them() {
        let shown =
            |text: &str| parse_timestamp(text, Some(Tz::UTC)).map(|at| timestamp_text(at, Tz::UTC));
        for (written, expected) in [
            ("2024-01-01 00:00:00 PST", "2024-01-01 08:00:00"),
            ("2024-01-01 00:00:00 +5:3", "2023-12-31 18:57:00"),
            ("2024-01-01 00:00:00 +053015", "2023-12-31 18:29:45"),
            ("2024-01-01 00:00:00 UTC+5", "2023-12-31 19:00:00"),
            ("2024-01-01T00:00:00.5GMT-03:00", "2024-01-01 03:00:00.5"),
            ("2024-01-01 00:00:00.1234567890123 Z", "2024-01-01 00:00:00.123456"),
            ("2024-01-01 00:00:00.", "2024-01-01 00:00:00"),
            ("2024-01-01 ", "2024-01-01 00:00:00"),
            ("2024-1-1 7", "2024-01-01 07:00:00"),
            ("-2024-01", "-2024-01-01 00:00:00"),
            ("294247-01-10 04:00:54.775807", "+294247-01-10 04:00:54.775807"),
            ("-290308-12-21 19:59:05.224192", "-290308-12-21 19:59:05.224192"),
        ] {
            assert_eq!(shown(written).as_deref(), Some(expected), "{written}");
        }
        for bad in [
            "",
            "-",
            "2024-01-01T",
            "2024-01-01 00:00 UTC",
            "2024-01-01 00:00:00 utc",
            "2024-01-01 00:00:0 .5",
            "2024-01-01 24:00:00",
            "2024-02-30",
            "2024-01x",
            "+10:11",
            "294247-01-10 04:00:54.775808",
            "-290308-12-21 19:59:05.224191",
            "２０２４-01-01",
        ] {
            assert_eq!(shown(bad), None, "{bad}");
        }
        let ntz = |text| parse_timestamp(text, None);
        assert_eq!(ntz("1970-01-01 01:00:00+09:00"), Some(3600 * SECOND_US));
        assert_eq!(ntz("1970-01-01 01:00:00 nowhere"), None);
        assert_eq!(ntz("10:11"), None, "there is no today");
        assert!(parse_timestamp("10:11", Some(Tz::UTC)).is_some());
    }

    #[test]
    fn dates_as_spark_reads_them() {
        for (written, expected) in [
            ("2024-1-1 anything", "2024-01-01"),
            ("2024-01-01T", "2024-01-01"),
            ("12024", "+12024-01-01"),
            ("-0001-01", "-0001-01-01"),
            ("5881580-07-11", "+5881580-07-11"),
            ("-5877641-06-23", "-5877641-06-23"),
        ] {
            assert_eq!(date_text(written).as_deref(), Some(expected), "{written}");
        }
        for bad in ["2024T", "2024-01 x", "5881580-07-12", "1999 01 08", "T10:11", "999-01-01"] {
            assert_eq!(date_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn special_words_for_times_are_parsed() {
        assert_eq!(special(" Today "), Some(Special::Day(0)));
        assert_eq!(special("epoch PST"), Some(Special::Epoch));
        assert_eq!(special("epoch xx"), None);
        assert_eq!(special("2024"), None);
    }

    #[test]
    fn timestamps_are_written_in_the_zone_without_trailing_zeros() {
        let new_york = Tz::named("America/New_York").unwrap();
        assert_eq!(timestamp_text(-1, Tz::UTC), "1969-12-31 23:59:59.999999");
        assert_eq!(timestamp_text(50_000, Tz::UTC), "1970-01-01 00:00:00.05");
        assert_eq!(timestamp_text(0, new_york), "1969-12-31 19:00:00");
    }

    proptest! {
        /// The fast path for plain timestamps agrees with the general parser.
        #[test]
        fn the_fast_parser_of_plain_times_agrees_with_the_general_one(text in "[0-9]{4}-[0-3][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-6][0-9]:[0-6][0-9]") {
            let parts = timestamp_parts(&text);
            prop_assert_eq!(
                plain_timestamp(&text),
                parts.map(|(days, micros, _)| (days.unwrap(), micros)),
            );
            let date = date_at_front(&text[..10], 7).map(|(date, ..)| date);
            prop_assert_eq!(plain_date(text.as_bytes()[..10].try_into().unwrap()), date);
        }

        #[test]
        fn every_timestamp_is_read_as_it_was_written(at: i64) {
            prop_assert_eq!(parse_timestamp(&timestamp_text(at, Tz::UTC), Some(Tz::UTC)), Some(at));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9: TZé.]{0,24}") {
            let _ = (parse_date(&text), parse_timestamp(&text, Tz::named("Europe/Paris")));
        }
    }
}
