//! Parses and formats times and durations for users.

use super::payload_time::PayloadTime;
use millstream::table::datetime::calendar::Date;

/// Parses a wall-clock time: nanoseconds since 1970, a date, or a date and time. Without a zone it
/// is in UTC.
pub(crate) fn parse_wall_ns(text: &str) -> Result<i64, String> {
    if let Ok(ns) = text.parse() {
        return Ok(ns);
    }
    let text = text.trim();
    let parsed = match text.trim_end_matches('Z') {
        date if date.len() == 10 => PayloadTime::parse_date(format!("{date}T00:00").as_bytes()),
        _ => PayloadTime::parse_date(text.as_bytes()),
    };
    parsed.map(|time| time.ns).ok_or_else(|| {
        format!("{text} is not a time: write 2026-03-01T12:30:00.25Z, or nanoseconds since 1970")
    })
}

/// Formats a wall-clock time in UTC.
pub(crate) fn show_wall_ns(ns: i64) -> String {
    let (seconds, fraction) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let Date { year, month, day } = Date::of_days(day);
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{fraction:09}").trim_end_matches('0').to_string(),
    };
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// A wall-clock time as an argument of a command: without a space.
pub(crate) fn show_wall_arg(ns: i64) -> String {
    show_wall_ns(ns).replace(' ', "T")
}

/// Formats a duration with a suitable unit.
pub(crate) fn show_ns(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

/// Parses a duration: a number and `ns`, `us`, `ms`, `s`, `m` (or `min`) or `h`; seconds without a
/// unit.
pub(crate) fn parse_ns(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit_ns = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" | "" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => return Err(format!("{text}: the unit is one of ns, us, ms, s, m, h")),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number >= 0.0 && number * unit_ns < 9e18 => Ok((number * unit_ns) as u64),
        _ => Err(format!("{text} is not a duration: write 1500ms, 2s, 10m")),
    }
}

/// Parses a size: a whole number, optionally with `k`, `m` or `g` (powers of 1024), in any case.
/// `b` or `ib` may follow.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match lower.char_indices().last() {
        Some((at, 'k')) => (&lower[..at], 10),
        Some((at, 'm')) => (&lower[..at], 20),
        Some((at, 'g')) => (&lower[..at], 30),
        _ => (lower, 0),
    };
    let number: Option<u64> = number.trim().parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text} is not a size: write 500000, 64M, 2G"))
}

/// Formats a size with a suitable unit.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (64 - bytes.leading_zeros() as usize).saturating_sub(1) / 10;
    let unit = unit.min(UNITS.len() - 1);
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_as_they_are_written() {
        for (text, ns) in [
            ("1970-01-01", Some(0)),
            ("1970-01-02Z", Some(86_400_000_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000_000_000)),
            ("2023-11-14 22:13:20.000000001", Some(1_700_000_000_000_000_001)),
            ("2024-02-29T00:00", Some(1_709_164_800_000_000_000)),
            ("17", Some(17)),
            ("2023-11-14T23:13:20+01:00", Some(1_700_000_000_000_000_000)),
            ("2024-13-01", None),
            ("2023-02-29", None),
            ("2024-02-01T25:00", None),
            ("tomorrow", None),
        ] {
            assert_eq!(parse_wall_ns(text).ok(), ns, "{text}");
        }
        assert_eq!(show_wall_ns(1_700_000_000_000_000_000), "2023-11-14 22:13:20Z");
        assert_eq!(show_wall_ns(1_700_000_000_500_000_001), "2023-11-14 22:13:20.500000001Z");
        assert_eq!(show_wall_ns(1_709_164_799_900_000_000), "2024-02-28 23:59:59.9Z");
        let ns = 1_700_000_000_500_000_001;
        assert_eq!(parse_wall_ns(&show_wall_arg(ns)), Ok(ns));
        assert_eq!(show_wall_ns(-1), "1969-12-31 23:59:59.999999999Z");
        for (text, ns) in [("2s", Some(2_000_000_000)), ("1.5ms", Some(1_500_000)), ("3x", None)] {
            assert_eq!(parse_ns(text).ok(), ns, "{text}");
        }
        for (text, bytes) in [("64M", Some(64 << 20)), ("10", Some(10)), ("1GiB", Some(1 << 30))] {
            assert_eq!(parse_bytes(text).ok(), bytes, "{text}");
        }
        assert_eq!((show_bytes(1023), show_bytes(1 << 20)), ("1023 B".into(), "1.0 MiB".into()));
    }
}
