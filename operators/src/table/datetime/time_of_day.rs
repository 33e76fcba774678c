//! Times of day, the values of the type TIME: nanoseconds since midnight.

use super::SECOND_US;
use super::text::{fill, time_of_day, trimmed, write_fraction};
use std::fmt::{self, Write};

/// Nanoseconds per second.
pub const SECOND_NS: i64 = 1_000_000_000;
/// Nanoseconds per day. A time of day is less.
pub const DAY_NS: i64 = 86_400 * SECOND_NS;
const HOUR_US: i64 = 3600 * SECOND_US;
/// The number of fractional digits of a TIME that is written without one.
pub const TIME_DIGITS: u8 = 6;
/// The largest number of fractional digits of a TIME.
pub const TIME_DIGITS_MAX: u8 = 9;

/// The nanoseconds of the last of so many fractional digits.
pub fn digit_ns(digits: u8) -> i64 {
    10i64.pow(u32::from(TIME_DIGITS_MAX - digits.min(TIME_DIGITS_MAX)))
}

/// The time of day of its fields; `None` if one is out of range.
pub fn time_of(hour: i64, minute: i64, nanos: i64) -> Option<i64> {
    let is_time = (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60 * SECOND_NS).contains(&nanos);
    is_time.then(|| (hour * 60 + minute) * 60 * SECOND_NS + nanos)
}

/// A time without the digits of its fraction after the first `digits`.
pub fn truncated(nanos: i64, digits: u8) -> i64 {
    nanos - nanos % digit_ns(digits)
}

/// The number of digits of the fraction of a time that is written as text.
pub fn fraction_digits(text: &str) -> usize {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    fraction.bytes().take_while(u8::is_ascii_digit).count()
}

/// Parses `12:30`, `12:30:45`, `12:30:45.123456789` or `01:30 PM`. Digits after the ninth of the
/// fraction are dropped.
pub fn parse_time(text: &str) -> Option<i64> {
    let text = trimmed(text);
    let (text, half) = match text.len().checked_sub(2).and_then(|at| text.split_at_checked(at)) {
        Some((rest, half)) if half.eq_ignore_ascii_case("AM") => (rest.trim_end(), Some(0)),
        Some((rest, half)) if half.eq_ignore_ascii_case("PM") => (rest.trim_end(), Some(12)),
        _ => (text, None),
    };
    let text = text.strip_prefix('T').unwrap_or(text);
    // An hour alone is not a time.
    if !text.contains(':') {
        return None;
    }
    let (micros, rest) = time_of_day(text)?;
    let (hour, within) = (micros / HOUR_US, micros % HOUR_US);
    let hour = match half {
        None => hour,
        Some(half) if (1..=12).contains(&hour) => hour % 12 + half,
        Some(_) => return None,
    };
    // The microseconds have the first six digits.
    let digit = |at: usize| {
        let digit = text.split_once('.')?.1.as_bytes().get(at)?;
        digit.is_ascii_digit().then(|| i64::from(digit - b'0'))
    };
    let nanos = (6..9).fold(0, |nanos, at| nanos * 10 + digit(at).unwrap_or(0));
    rest.is_empty().then_some((hour * HOUR_US + within) * 1000 + nanos)
}

/// Writes a time of day, with the digits of its fraction that are not trailing zeros.
pub fn write_time(nanos: i64, out: &mut dyn Write) -> fmt::Result {
    let (seconds, fraction) = (nanos / SECOND_NS, nanos % SECOND_NS);
    let mut text = *b"00:00:00";
    fill(&mut text[..2], (seconds / 3600) as u64);
    fill(&mut text[3..5], (seconds / 60 % 60) as u64);
    fill(&mut text[6..], (seconds % 60) as u64);
    // The buffer contains only ASCII, so the conversion cannot fail.
    out.write_str(std::str::from_utf8(&text).unwrap_or_default())?;
    write_fraction(fraction as u64, 9, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_in_spark_and_written_without_trailing_zeros() {
        let shown = |text: &str| {
            let mut out = String::new();
            write_time(parse_time(text)?, &mut out).unwrap();
            Some(out)
        };
        for (text, time) in [
            ("12:30", "12:30:00"),
            ("1:2:3", "01:02:03"),
            (" T12:30:45.120 ", "12:30:45.12"),
            ("12:30:45.", "12:30:45"),
            ("23:59:59.9999999999", "23:59:59.999999999"),
            ("1:02:03.0000004 PM", "13:02:03.0000004"),
            ("12:30:45 AM", "00:30:45"),
            ("12:30:45 pm", "12:30:45"),
            ("1:05 PM", "13:05:00"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(time), "{text}");
        }
        for text in
            ["", "12", "24:00", "12:60", "12:30:60", "-1:00", "13:00 PM", "1:2:3Z", "123:00"]
        {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
