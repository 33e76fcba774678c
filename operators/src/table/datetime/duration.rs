//! Parses the durations in options and triggers.

/// Parses a duration such as `5 seconds`, `500ms` or `1 minute` to nanoseconds; `None` if it is
/// malformed or too long.
pub fn duration_ns(text: &str) -> Option<u64> {
    let text = text.trim();
    let cut = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(cut);
    let unit_ns: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "us" | "microsecond" | "microseconds" => 1_000,
        "ms" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit_ns)
}
