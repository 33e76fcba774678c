//! Parses the durations in options, settings and triggers.

use crate::table::datetime::interval::{self, Length};

/// Parses a duration to nanoseconds: a number with a short or long unit such as `500ms`, `1s`, `2m`,
/// `5 seconds` or `1 day`, or an interval such as `1 hour 30 minutes`. `None` if it is malformed,
/// negative or too long, or if it has months.
pub fn duration_ns(text: &str) -> Option<u64> {
    let text = text.trim();
    short_ns(text).or_else(|| match interval::length(text) {
        Ok(Length { months: 0, micros }) => u64::try_from(micros).ok()?.checked_mul(1000),
        _ => None,
    })
}

/// Parses a number and a unit.
fn short_ns(text: &str) -> Option<u64> {
    let cut = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(cut);
    let unit_ns: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "us" | "microsecond" | "microseconds" => 1_000,
        "ms" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "d" | "day" | "days" => 86_400_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit_ns)
}

#[cfg(test)]
mod tests {
    use super::duration_ns;

    #[test]
    fn short_and_long_forms_are_durations() {
        const S: u64 = 1_000_000_000;
        for (text, expected) in [
            ("500ms", Some(S / 2)),
            ("1s", Some(S)),
            (" 2m ", Some(120 * S)),
            ("5 Seconds", Some(5 * S)),
            ("1d", Some(86_400 * S)),
            ("1 hour 30 minutes", Some(5_400 * S)),
            ("interval 2 days", Some(2 * 86_400 * S)),
            ("0.5 seconds", Some(S / 2)),
            ("1 month", None),
            ("-1s", None),
            ("-1 second", None),
            ("1", None),
            ("", None),
            ("soon", None),
            ("99999999999999 days", None),
        ] {
            assert_eq!(duration_ns(text), expected, "{text}");
        }
    }
}
