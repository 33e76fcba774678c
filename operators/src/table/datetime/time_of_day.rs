//! Times of day, the values of the type TIME: nanoseconds since midnight.

use super::text::{fill, trimmed};
use std::fmt::{self, Write};

/// Nanoseconds per second.
pub const SECOND_NS: i64 = 1_000_000_000;
/// Nanoseconds per day. A time of day is less.
pub const DAY_NS: i64 = 86_400 * SECOND_NS;
/// The largest number of fractional digits of a TIME, and the default.
pub const TIME_DIGITS: u8 = 6;

/// The nanoseconds of the last of so many fractional digits.
pub fn digit_ns(digits: u8) -> i64 {
    10i64.pow(u32::from(9 - digits.min(9)))
}

/// The time of day of its fields; `None` if one is out of range.
pub fn time_of(hour: i64, minute: i64, nanos: i64) -> Option<i64> {
    let is_time = (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60 * SECOND_NS).contains(&nanos);
    is_time.then(|| (hour * 60 + minute) * 60 * SECOND_NS + nanos)
}

/// Splits one or two digits from the start of a text.
fn number(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    match digits {
        1 | 2 => Some((text[..digits].parse().ok()?, &text[digits..])),
        _ => None,
    }
}

/// Parses `12:30`, `12:30:45`, `12:30:45.123456` or `01:30 PM`. Digits after the sixth of the
/// fraction are dropped, as in Spark.
pub fn parse_time(text: &str) -> Option<i64> {
    let text = trimmed(text);
    let (text, half) = match text.len().checked_sub(2).and_then(|at| text.split_at_checked(at)) {
        Some((rest, half)) if half.eq_ignore_ascii_case("AM") => (rest.trim_end(), Some(0)),
        Some((rest, half)) if half.eq_ignore_ascii_case("PM") => (rest.trim_end(), Some(12)),
        _ => (text, None),
    };
    let text = text.strip_prefix('T').unwrap_or(text);
    let (hour, rest) = number(text)?;
    let hour = match half {
        None => hour,
        Some(half) if (1..=12).contains(&hour) => hour % 12 + half,
        Some(_) => return None,
    };
    let (minute, rest) = number(rest.strip_prefix(':')?)?;
    if rest.is_empty() {
        return time_of(hour, minute, 0);
    }
    let (second, rest) = number(rest.strip_prefix(':')?)?;
    let fraction = match rest.strip_prefix('.') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits,
        None if rest.is_empty() => "",
        _ => return None,
    };
    let kept = &fraction[..fraction.len().min(usize::from(TIME_DIGITS))];
    let micros = kept.bytes().fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0'));
    let nanos = micros * digit_ns(kept.len() as u8);
    (second < 60).then(|| time_of(hour, minute, second * SECOND_NS + nanos))?
}

/// Writes a time of day, with the digits of its fraction that are not trailing zeros.
pub fn write_time(nanos: i64, out: &mut dyn Write) -> fmt::Result {
    let (seconds, fraction) = (nanos / SECOND_NS, nanos % SECOND_NS);
    let mut text = *b"00:00:00.000000000";
    fill(&mut text[..2], (seconds / 3600) as u64);
    fill(&mut text[3..5], (seconds / 60 % 60) as u64);
    fill(&mut text[6..8], (seconds % 60) as u64);
    fill(&mut text[9..], fraction as u64);
    let zeros = text[9..].iter().rev().take_while(|digit| **digit == b'0').count();
    let length = if fraction == 0 { 8 } else { text.len() - zeros };
    // The buffer contains only ASCII, so the conversion cannot fail.
    out.write_str(std::str::from_utf8(&text[..length]).unwrap_or_default())
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
            ("23:59:59.9999999", "23:59:59.999999"),
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
