//! Converts CSV fields to values of a type.

use crate::table::datetime::pattern::Direction;
use crate::table::datetime::{CalendarInterval, interval, names_zone, parse_date, parse_timestamp};
use crate::table::error::PlanResult;
use crate::table::row::{Bytes, RowWriter};
use crate::table::text::notation::{Notation, integer, pattern};
use crate::table::text::number;
use crate::table::types::DataType;
use std::borrow::Cow;

/// The date pattern that applies if the option `dateFormat` is not set.
const DATE_PATTERN: &str = "yyyy-MM-dd";

/// The rules by which fields are converted to values.
#[derive(Clone, Debug)]
pub struct Values {
    notation: Notation,
    /// Whether a date that does not match the pattern is parsed by the rules of CAST.
    date_fallback: bool,
    timestamp_fallback: bool,
    /// The text that is read as NULL. An empty field without quotes is NULL too.
    pub null: String,
    /// The text of an empty quoted field, which may be the text of NULL.
    pub empty: String,
}

impl Values {
    /// Creates the rules. `fallback` tells whether dates and timestamps that do not match their
    /// patterns are parsed by the rules of CAST. `None` means only for a type without a pattern.
    pub fn new(
        mut notation: Notation,
        fallback: Option<bool>,
        null: String,
        empty: String,
    ) -> PlanResult<Self> {
        let date_fallback = fallback.unwrap_or(notation.date.is_none());
        let timestamp_fallback = fallback.unwrap_or(notation.timestamp.is_none());
        if notation.date.is_none() && !date_fallback {
            notation.date = Some(pattern("dateFormat", DATE_PATTERN, Direction::Read)?);
        }
        Ok(Self { notation, date_fallback, timestamp_fallback, null, empty })
    }

    /// The patterns of dates and timestamps and the texts of special numbers.
    pub fn notation(&self) -> &Notation {
        &self.notation
    }

    /// Converts a field and writes its value into a row. Returns false, with nothing written, if
    /// the text is not valid for the type.
    #[inline]
    pub fn put<B: Bytes>(
        &self,
        text: &str,
        data_type: &DataType,
        writer: &mut RowWriter<'_, B>,
        index: usize,
    ) -> bool {
        use DataType as T;
        match data_type {
            T::String | T::Binary => writer.bytes(index, text.as_bytes()),
            T::Boolean if text.eq_ignore_ascii_case("true") => writer.bool(index, true),
            T::Boolean if text.eq_ignore_ascii_case("false") => writer.bool(index, false),
            T::Float | T::Double => match self.double(text, data_type) {
                Some(value) => writer.double(index, value),
                None => return false,
            },
            T::Decimal(..) => match decimal(text, data_type) {
                Some(value) => writer.decimal(index, value),
                None => return false,
            },
            // A text that is not an interval is NULL, not a malformed record.
            T::CalendarInterval => {
                if let Some(interval) = CalendarInterval::parse(text) {
                    writer.bytes(index, &interval.to_bytes());
                }
            }
            _ => match self.long(text, data_type) {
                Some(value) => writer.long(index, value),
                None => return false,
            },
        }
        true
    }

    /// Parses an integer, date, timestamp or interval.
    pub(in crate::table::text) fn long(&self, text: &str, data_type: &DataType) -> Option<i64> {
        use DataType as T;
        match data_type {
            T::Date => self.date(text),
            T::Timestamp => self.timestamp(text),
            T::TimestampNtz => self.timestamp_ntz(text),
            T::Time(_) => self.notation.time(text),
            t if t.is_interval() => {
                interval::parse_shown(text, t).or_else(|| interval::parse(text, t))
            }
            t if t.is_integral() => integer(long(text)?, t),
            _ => None,
        }
    }

    fn date(&self, text: &str) -> Option<i64> {
        let by_pattern = self.notation.date.as_ref().map(|pattern| pattern.date(text));
        match by_pattern {
            Some(Some(days)) => Some(days),
            _ if self.date_fallback => parse_date(text),
            _ => None,
        }
    }

    fn timestamp(&self, text: &str) -> Option<i64> {
        let zone = self.notation.zone;
        match &self.notation.timestamp {
            None => parse_timestamp(text, Some(zone)),
            Some(pattern) => pattern.timestamp(text, zone).or_else(|| {
                self.timestamp_fallback.then(|| parse_timestamp(text, Some(zone))).flatten()
            }),
        }
    }

    fn timestamp_ntz(&self, text: &str) -> Option<i64> {
        match &self.notation.timestamp_ntz {
            Some(pattern) => pattern.timestamp_ntz(text),
            None if names_zone(text) => None,
            None => parse_timestamp(text, None),
        }
    }

    fn double(&self, text: &str, data_type: &DataType) -> Option<f64> {
        if text == self.notation.nan {
            return Some(f64::NAN);
        }
        if text == self.notation.negative_infinity {
            return Some(f64::NEG_INFINITY);
        }
        if text == self.notation.positive_infinity {
            return Some(f64::INFINITY);
        }
        java_double(text, data_type)
    }

    /// Whether a field is a valid DOUBLE. Used by schema inference.
    pub(super) fn is_double(&self, text: &str) -> bool {
        self.double(text, &DataType::Double).is_some()
    }

    /// Whether a field matches the date pattern, or the default pattern if none is set. Used by
    /// schema inference.
    pub(in crate::table::text) fn is_date(&self, text: &str) -> bool {
        match &self.notation.date {
            Some(pattern) => pattern.date(text).is_some(),
            None => is_plain_date(text) && parse_date(text).is_some(),
        }
    }

    pub(in crate::table::text) fn is_timestamp(&self, text: &str) -> bool {
        match &self.notation.timestamp {
            Some(pattern) => pattern.timestamp(text, self.notation.zone).is_some(),
            None => parse_timestamp(text, Some(self.notation.zone)).is_some(),
        }
    }
}

/// Whether a text has the form `yyyy-MM-dd`, with any digits. It may be no date.
fn is_plain_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(i, b)| match i {
            4 | 7 => *b == b'-',
            _ => b.is_ascii_digit(),
        })
}

/// Parses an integer like Java's `Long.parseLong`: a sign and digits, without white space.
pub(in crate::table::text) fn long(text: &str) -> Option<i64> {
    if text.is_ascii() {
        return text.parse().ok();
    }
    number::ascii_digits(text)?.parse().ok()
}

/// Parses a number like Java's `Double.parseDouble`.
pub(in crate::table::text) fn java_double(text: &str, data_type: &DataType) -> Option<f64> {
    let signless = text.trim_matches(|c: char| c <= ' ');
    let signless = signless.strip_prefix(['+', '-']).unwrap_or(signless);
    let word = signless.starts_with(|c: char| c.is_ascii_alphabetic());
    if word && signless != "NaN" && signless != "Infinity" {
        return None;
    }
    number::double(text, data_type)
}

/// Parses a decimal number. Commas are ignored. `None` if the text has white space, is not a number
/// or does not fit the type.
pub(in crate::table::text) fn decimal(text: &str, data_type: &DataType) -> Option<i128> {
    if let Some(unscaled) = number::short_decimal(text, data_type) {
        return Some(unscaled);
    }
    if text.contains(|c: char| c.is_whitespace() || c < ' ') {
        return None;
    }
    let plain = match text.contains(',') {
        true => Cow::Owned(text.replace(',', "")),
        false => Cow::Borrowed(text),
    };
    number::decimal(&plain, data_type).ok().flatten()
}
