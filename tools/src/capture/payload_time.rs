//! A time in a payload: parses it, and formats another time in the same format.

use millstream::table::datetime::calendar::Date;

const DAY_S: i64 = 86_400;
const SECOND_NS: i64 = 1_000_000_000;

/// A time and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PayloadTime {
    /// Nanoseconds since 1970, in UTC. A time without a zone counts as UTC.
    pub ns: i64,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// `2026-03-01T12:30:00.250+01:00`. Seconds, fraction and zone are optional.
    Date {
        /// The character between date and time: `T`, `t` or a space.
        separator: u8,
        has_seconds: bool,
        fraction: Option<Fraction>,
        /// The zone as in the payload: nothing, or a text such as `Z`, `+01:00`, `+0100` or `-01`.
        zone: Vec<u8>,
        zone_s: i64,
    },
    /// A number of seconds, milliseconds, microseconds or nanoseconds since 1970.
    Number { unit_ns: i64, digits: usize, fraction: Option<Fraction> },
}

/// The fractional digits of a second or of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fraction {
    separator: u8,
    digits: usize,
}

impl Fraction {
    const DIGITS_MAX: usize = 18;

    /// Parses a separator and digits. Returns the format, the value in nanoseconds if the whole
    /// number counts units of `unit_ns`, and the remaining text.
    fn read(text: &[u8], unit_ns: i64) -> Option<(Option<Self>, i64, &[u8])> {
        let Some((separator @ (b'.' | b','), digits)) = text.split_first() else {
            return Some((None, 0, text));
        };
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || count > Self::DIGITS_MAX {
            return None;
        }
        let value = number(&digits[..count])?;
        let ns = i128::from(value) * i128::from(unit_ns) / 10i128.pow(count as u32);
        let fraction = Self { separator: *separator, digits: count };
        Some((Some(fraction), ns as i64, &digits[count..]))
    }

    /// Appends `ns`, which is less than a unit, as a fraction of the unit. Excess precision is
    /// truncated.
    fn write(self, ns: i64, unit_ns: i64, out: &mut Vec<u8>) {
        let value = i128::from(ns) * 10i128.pow(self.digits as u32) / i128::from(unit_ns);
        out.push(self.separator);
        pad(value as i64, self.digits, out);
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_number {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn pad(value: i64, digits: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{value:0digits$}").as_bytes());
}

impl PayloadTime {
    /// Parses a time. Returns `None` if the text is not one.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        Self::parse_date(text).or_else(|| Self::parse_number(text))
    }

    pub(crate) fn parse_date(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(16)?;
        let at = |from: usize, to: usize| number(&head[from..to]);
        let marks = (head[4], head[7], head[10], head[13]);
        let (b'-', b'-', separator @ (b'T' | b't' | b' '), b':') = marks else { return None };
        let (year, month, day) = (at(0, 4)?, at(5, 7)?, at(8, 10)?);
        let (hour, minute) = (at(11, 13)?, at(14, 16)?);
        let (has_seconds, second, rest) = match rest.split_at_checked(3) {
            Some(([b':', tens, ones], rest)) => (true, number(&[*tens, *ones])?, rest),
            _ => (false, 0, rest),
        };
        let (fraction, fraction_ns, zone) = match has_seconds {
            true => Fraction::read(rest, SECOND_NS)?,
            false => (None, 0, rest),
        };
        let date = Date::new(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?)?;
        let is_time = hour < 24 && minute < 60 && second <= 60;
        let zone_s = zone_seconds(zone).filter(|_| is_time)?;
        let seconds = date.days() * DAY_S + hour * 3600 + minute * 60 + second - zone_s;
        let ns = seconds.checked_mul(SECOND_NS)?.checked_add(fraction_ns)?;
        let zone = zone.to_vec();
        Some(Self { ns, form: Form::Date { separator, has_seconds, fraction, zone, zone_s } })
    }

    /// Parses a number of units since 1970. The number of digits determines the unit: 9 to 11 for
    /// seconds, 12 to 14 for milliseconds, 15 to 17 for microseconds, 18 or 19 for nanoseconds.
    /// Returns `None` for other numbers of digits.
    fn parse_number(text: &[u8]) -> Option<Self> {
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let unit_ns = match digits {
            9..=11 => SECOND_NS,
            12..=14 => 1_000_000,
            15..=17 => 1_000,
            18..=19 => 1,
            _ => return None,
        };
        let whole = number(&text[..digits])?;
        let (fraction, fraction_ns, rest) = Fraction::read(&text[digits..], unit_ns)?;
        let ns = whole.checked_mul(unit_ns)?.checked_add(fraction_ns)?;
        rest.is_empty().then_some(Self { ns, form: Form::Number { unit_ns, digits, fraction } })
    }

    /// Appends the time `ns` in the format of this one. Returns false, and appends nothing, if the
    /// format cannot represent that time.
    pub(crate) fn write(&self, ns: i64, out: &mut Vec<u8>) -> bool {
        match &self.form {
            Form::Number { unit_ns, digits, fraction } => {
                if ns < 0 {
                    return false;
                }
                pad(ns / unit_ns, *digits, out);
                if let Some(fraction) = fraction {
                    fraction.write(ns % unit_ns, *unit_ns, out);
                }
            }
            Form::Date { separator, has_seconds, fraction, zone, zone_s } => {
                let seconds = ns.div_euclid(SECOND_NS).saturating_add(*zone_s);
                let Date { year, month, day } = Date::of_days(seconds.div_euclid(DAY_S));
                if !(0..10_000).contains(&year) {
                    return false;
                }
                let second = seconds.rem_euclid(DAY_S);
                for (value, digits, mark) in [
                    (year, 4, b'-'),
                    (i64::from(month), 2, b'-'),
                    (i64::from(day), 2, *separator),
                    (second / 3600, 2, b':'),
                ] {
                    pad(value, digits, out);
                    out.push(mark);
                }
                pad(second / 60 % 60, 2, out);
                if *has_seconds {
                    out.push(b':');
                    pad(second % 60, 2, out);
                }
                if let Some(fraction) = fraction {
                    fraction.write(ns.rem_euclid(SECOND_NS), SECOND_NS, out);
                }
                out.extend_from_slice(zone);
            }
        }
        true
    }
}

/// The offset of a zone from UTC, in seconds.
fn zone_seconds(zone: &[u8]) -> Option<i64> {
    let (sign, rest) = match zone.split_first() {
        None => return Some(0),
        Some((b'Z' | b'z', [])) => return Some(0),
        Some((b'+', rest)) => (1, rest),
        Some((b'-', rest)) => (-1, rest),
        Some(_) => return None,
    };
    let (hours, minutes) = match rest {
        [h1, h2] => ([*h1, *h2], [b'0', b'0']),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => ([*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    let (hours, minutes) = (number(&hours)?, number(&minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(text: &str, by_ns: i64) -> Option<String> {
        let time = PayloadTime::parse(text.as_bytes())?;
        let mut out = Vec::new();
        time.write(time.ns + by_ns, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_moved_time_keeps_its_format_and_width() {
        let day_ns = DAY_S * SECOND_NS;
        for (text, after) in [
            ("2024-02-28T23:59:59Z", "2024-02-29T23:59:59Z"),
            ("2024-02-28 23:59:59.25", "2024-02-29 23:59:59.25"),
            ("2024-12-31T23:59:59.999999999+05:30", "2025-01-01T23:59:59.999999999+05:30"),
            ("2024-02-28T00:10:00,123-0800", "2024-02-29T00:10:00,123-0800"),
            ("2024-02-28T00:10+01", "2024-02-29T00:10+01"),
            ("1700000000", "1700086400"),
            ("1700000000.123456", "1700086400.123456"),
            ("1700000000123", "1700086400123"),
            ("1700000000123456", "1700086400123456"),
            ("1700000000123456789", "1700086400123456789"),
            ("01700000000", "01700086400"),
        ] {
            assert_eq!(moved(text, day_ns).as_deref(), Some(after), "{text}");
            assert_eq!(moved(text, 0).as_deref(), Some(text));
        }
        // Precision that the format lacks is truncated.
        assert_eq!(moved("1700000000", 999_999_999).as_deref(), Some("1700000000"));
        assert_eq!(
            moved("2024-01-01T00:00:00.0Z", 199_999_999).as_deref(),
            Some("2024-01-01T00:00:00.1Z")
        );
    }

    #[test]
    fn zone_offsets_are_applied() {
        let ns = |text: &str| PayloadTime::parse(text.as_bytes()).unwrap().ns;
        assert_eq!(ns("2024-01-01T01:30:00+01:30"), ns("2024-01-01T00:00:00Z"));
        assert_eq!(ns("2023-12-31T16:00:00-0800"), ns("2024-01-01 00:00"));
    }

    #[test]
    fn texts_that_are_not_times_are_refused() {
        for text in [
            "",
            "12",
            "12345678",
            "1.5",
            "-1700000000",
            "1700000000x",
            "1700000000.",
            "17e8",
            "2024-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00Q",
            "2024-01-01T25:00:00Z",
            "2024-01-01T00:00:00+1",
            "99999999999999999999",
            "2024-01-01T00:00:0",
            "yesterday, or so",
        ] {
            assert_eq!(PayloadTime::parse(text.as_bytes()), None, "{text}");
        }
        // The time does not fit into 64 bits of nanoseconds.
        assert_eq!(moved("9000-01-01T00:00:00Z", 0), None);
        // A number is not a time before 1970.
        assert_eq!(moved("1700000000", i64::MIN + 2_000_000_000 * SECOND_NS), None);
    }
}
