//! An INTERVAL of months, days and microseconds, which Spark calls a calendar interval. Its parts
//! are separate because neither a month nor a day has a fixed length.

use super::{DAY_US, SECOND_US, trimmed};
use std::fmt;

const HOUR_US: i64 = 3600 * SECOND_US;
const MINUTE_US: i64 = 60 * SECOND_US;

/// A calendar interval. Intervals are equal if their parts are: a day is not 24 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CalendarInterval {
    /// Whole months.
    pub months: i32,
    /// Whole days.
    pub days: i32,
    /// The rest, in microseconds.
    pub micros: i64,
}

/// The units of a text, with the prefixes that name them. MONTH and MILLISECOND start alike, so
/// the order matters for neither.
const UNITS: [(&str, Unit); 9] = [
    ("year", Unit::Months(12)),
    ("month", Unit::Months(1)),
    ("week", Unit::Days(7)),
    ("day", Unit::Days(1)),
    ("hour", Unit::Micros(HOUR_US)),
    ("minute", Unit::Micros(MINUTE_US)),
    ("second", Unit::Micros(SECOND_US)),
    ("millisecond", Unit::Micros(1000)),
    ("microsecond", Unit::Micros(1)),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Months(i64),
    Days(i64),
    Micros(i64),
}

impl CalendarInterval {
    /// The length of an encoded interval in bytes.
    pub const SIZE: usize = 16;

    /// The encoding in a row.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.months.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.days.to_le_bytes());
        bytes[8..].copy_from_slice(&self.micros.to_le_bytes());
        bytes
    }

    /// Decodes [`to_bytes`](Self::to_bytes). Bytes of another length are the interval of no length.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let Ok(bytes) = <[u8; Self::SIZE]>::try_from(bytes) else { return Self::default() };
        let all = u128::from_le_bytes(bytes);
        Self { months: all as i32, days: (all >> 32) as i32, micros: (all >> 64) as i64 }
    }

    /// The sum of two intervals, part by part; `None` if a part overflows.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    /// The difference of two intervals, part by part; `None` if a part overflows.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_sub(other.months)?,
            days: self.days.checked_sub(other.days)?,
            micros: self.micros.checked_sub(other.micros)?,
        })
    }

    /// The sum of two intervals, whose parts wrap around.
    pub fn wrapping_add(self, other: Self) -> Self {
        Self {
            months: self.months.wrapping_add(other.months),
            days: self.days.wrapping_add(other.days),
            micros: self.micros.wrapping_add(other.micros),
        }
    }

    /// The interval with negated parts; `None` if a part overflows.
    pub fn checked_neg(self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_neg()?,
            days: self.days.checked_neg()?,
            micros: self.micros.checked_neg()?,
        })
    }

    /// The interval with negated parts, which wrap around.
    pub fn wrapping_neg(self) -> Self {
        Self {
            months: self.months.wrapping_neg(),
            days: self.days.wrapping_neg(),
            micros: self.micros.wrapping_neg(),
        }
    }

    /// The interval with each part replaced by a number. The fraction of a month is dropped, and
    /// that of a day becomes microseconds. Numbers out of range are limited to it.
    pub fn map(self, number: impl Fn(f64) -> f64) -> Self {
        let (months, days) = (number(self.months.into()), number(self.days.into()));
        let micros = number(self.micros as f64);
        Self::of_numbers(months as i32, days as i32, days, micros)
    }

    /// Like [`map`](Self::map), but `None` if months or days are out of range.
    pub fn checked_map(self, number: impl Fn(f64) -> f64) -> Option<Self> {
        let (months, days) = (number(self.months.into()), number(self.days.into()));
        let micros = number(self.micros as f64);
        let whole = |number: f64| i32::try_from(number as i64).ok();
        Some(Self::of_numbers(whole(months)?, whole(days)?, days, micros))
    }

    fn of_numbers(months: i32, whole_days: i32, days: f64, micros: f64) -> Self {
        let micros = micros + DAY_US as f64 * (days - f64::from(whole_days));
        // Java's rounding: halves go up, NaN becomes 0, and numbers out of range are limited.
        Self { months, days: whole_days, micros: (micros + 0.5).floor() as i64 }
    }

    /// Parses a text such as `1 year -2 days`, which may start with the word INTERVAL. Numbers and
    /// units are separated by white space. Only seconds have a fraction. `None` if the text is
    /// malformed or out of range.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = trimmed(text).to_lowercase();
        let mut rest = match lower.strip_prefix("interval") {
            Some(rest) if rest.starts_with(is_space) => rest,
            Some(_) => return None,
            None => &lower,
        };
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return None;
        }
        let mut sum = Self::default();
        while !rest.is_empty() {
            rest = sum.add_part(rest)?.trim_start_matches(is_space);
        }
        Some(sum)
    }

    /// Adds the number and unit at the start of a text. Returns the text behind them.
    fn add_part<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        let (is_negative, number) = match text.strip_prefix(['-', '+']) {
            Some(rest) => (text.starts_with('-'), rest.trim_start_matches(is_space)),
            None => (false, text),
        };
        let (number, unit) = number.split_at(number.find(is_space)?);
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (number, None),
        };
        // A point alone is a number only behind a sign, as in Spark.
        let is_point = number == "." && text.starts_with('.');
        let is_number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        let digits = fraction.unwrap_or_default();
        if number.is_empty() || is_point || !is_number(whole) || !is_number(digits) {
            return None;
        }
        if digits.len() > 9 {
            return None;
        }
        let sign = if is_negative { -1 } else { 1 };
        let count: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let fraction_us: i64 = format!("{digits:0<6}").get(..6)?.parse().ok()?;
        let unit = unit.trim_start_matches(is_space);
        let (word, unit_length) = UNITS.into_iter().find(|(word, _)| unit.starts_with(word))?;
        if fraction.is_some() && word != "second" {
            return None;
        }
        self.add(sign * count, unit_length, sign * fraction_us)?;
        let rest = &unit[word.len()..];
        let rest = rest.strip_prefix('s').unwrap_or(rest);
        (rest.is_empty() || rest.starts_with(is_space)).then_some(rest)
    }

    fn add(&mut self, count: i64, unit: Unit, fraction_us: i64) -> Option<()> {
        let add = |part: i32, length: i64| {
            let sum = count.checked_mul(length)?.checked_add(part.into())?;
            i32::try_from(sum).ok()
        };
        match unit {
            Unit::Months(length) => self.months = add(self.months, length)?,
            Unit::Days(length) => self.days = add(self.days, length)?,
            Unit::Micros(length) => {
                let sum = self.micros.checked_add(count.checked_mul(length)?)?;
                self.micros = sum.checked_add(fraction_us)?;
            }
        }
        Some(())
    }
}

/// What Java calls white space, of the characters of one byte.
fn is_space(c: char) -> bool {
    matches!(c, '\t'..='\r' | '\x1c'..=' ')
}

impl fmt::Display for CalendarInterval {
    /// Formats the interval as a cast to STRING: `1 years 2 months 3 days 4.5 seconds`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { months, days, micros } = *self;
        let of_months = [(i64::from(months / 12), "years"), (i64::from(months % 12), "months")];
        let of_time = [
            (i64::from(days), "days"),
            (micros / HOUR_US, "hours"),
            (micros % HOUR_US / MINUTE_US, "minutes"),
        ];
        let mut separator = "";
        for (count, unit) in of_months.into_iter().chain(of_time) {
            if count != 0 {
                write!(f, "{separator}{count} {unit}")?;
                separator = " ";
            }
        }
        let rest = micros % MINUTE_US;
        if rest == 0 {
            return if separator.is_empty() { f.write_str("0 seconds") } else { Ok(()) };
        }
        let sign = if rest < 0 { "-" } else { "" };
        let (whole, fraction) = (rest.abs() / SECOND_US, rest.abs() % SECOND_US);
        write!(f, "{separator}{sign}{whole}")?;
        if fraction != 0 {
            let digits = format!("{fraction:06}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str(" seconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_survives_formatting_and_parsing() {
        for interval in [
            CalendarInterval::default(),
            CalendarInterval { months: 14, days: 25, micros: 18_367_008_009 },
            CalendarInterval { months: -13, days: 0, micros: -1_500_000 },
            CalendarInterval { months: i32::MIN, days: i32::MIN, micros: i64::MIN + 1 },
            CalendarInterval { months: i32::MAX, days: i32::MAX, micros: i64::MAX },
        ] {
            let text = interval.to_string();
            assert_eq!(CalendarInterval::parse(&text), Some(interval), "{text}");
            assert_eq!(CalendarInterval::from_bytes(&interval.to_bytes()), interval);
        }
    }

    #[test]
    fn malformed_texts_are_no_intervals() {
        let parsed = |text| CalendarInterval::parse(text).map(|interval| interval.to_string());
        assert_eq!(parsed(" INTERVAL -1 years +2.5 seconds - 3 hours"), {
            Some("-1 years -2 hours -59 minutes -57.5 seconds".to_string())
        });
        assert_eq!(parsed("-. seconds"), Some("0 seconds".to_string()));
        for bad in [
            "",
            "interval",
            "intervals 1 day",
            "1",
            "1 ",
            "day",
            "1day",
            "1 day,2 days",
            "1 dayss",
            ". seconds",
            "1.5 hours",
            "1.1234567891 seconds",
            "9999999999 days",
            "1-2",
            "- day",
            "300000000 years",
            "99999999999999999999 seconds",
            "1 nanosecond",
            "1.2.3 seconds",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
