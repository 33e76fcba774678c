//! Date and time patterns: the letters of Java's `DateTimeFormatter` that Spark allows.
//!
//! | letters | field |
//! |---|---|
//! | `y` | year, or year of era if the pattern has `G` |
//! | `M`, `L` | month: a number, or its English name with three or four letters |
//! | `d`, `D`, `g` | day of month, day of year, modified Julian day |
//! | `E` | English day of week; formatting only |
//! | `F` | day of the week if weeks start on the first of the month, 1 to 7; formatting only |
//! | `a` | AM or PM |
//! | `H`, `k`, `K`, `h` | hour: 0-23, 1-24, 0-11, 1-12 |
//! | `m`, `s`, `S` | minute, second, fraction |
//! | `V`, `z`, `v` | zone ID, English zone name, English zone name without a season |
//! | `X`, `x`, `Z`, `O` | offset |
//! | `Q`, `q` | quarter; formatting only |
//! | `G` | era |
//! | `'…'`, `[…]` | literal text, an optional section |
//!
//! An invalid pattern is refused with Spark's error condition. There is a separate condition for a
//! pattern that Spark 2.4 accepted because it used `SimpleDateFormat`.

mod compile;
mod read;
mod write;

use super::Tz;
use compile::Item;
use std::fmt::Write;

/// Whether a pattern is for parsing or for formatting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Parsing: a fraction may have fewer digits than letters, and letters that are for formatting
    /// only are refused.
    Read,
    /// Formatting.
    Write,
}

/// Why a pattern is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// Spark's error condition.
    pub condition: &'static str,
    /// The problem with the pattern.
    pub reason: String,
}

/// The suggested fix for an invalid pattern.
pub const PATTERN_FIX: &str = "Write a pattern like yyyy-MM-dd HH:mm:ss; text is in single quotes";

/// A compiled pattern, which parses or formats dates and timestamps.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Vec<Item>);

/// Why a text could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The text does not match the pattern.
    NoMatch,
    /// The timestamp does not fit in 64 bits of microseconds.
    Overflow,
}

impl Pattern {
    /// Compiles a pattern for parsing or for formatting.
    pub fn new(text: &str, direction: Direction) -> Result<Self, PatternError> {
        compile::compile(text, direction).map(Self)
    }

    /// Parses a timestamp to microseconds since 1970. The time is in `zone` unless the text names a
    /// zone.
    pub fn timestamp(&self, text: &str, zone: Tz) -> Option<i64> {
        self.read_timestamp(text, zone).ok()
    }

    /// Like [`Self::timestamp`], but the error tells why the text could not be parsed.
    pub fn read_timestamp(&self, text: &str, zone: Tz) -> Result<i64, Unread> {
        let parsed = read::read(&self.0, text).ok_or(Unread::NoMatch)?;
        parsed.micros(Some(parsed.zone().unwrap_or(zone))).ok_or(Unread::Overflow)
    }

    /// Parses a local timestamp to microseconds since 1970. A zone in the text has no effect.
    pub fn timestamp_ntz(&self, text: &str) -> Option<i64> {
        self.read_timestamp_ntz(text).ok()
    }

    /// Like [`Self::timestamp_ntz`], but the error tells why the text could not be parsed.
    pub fn read_timestamp_ntz(&self, text: &str) -> Result<i64, Unread> {
        let parsed = read::read(&self.0, text).ok_or(Unread::NoMatch)?;
        parsed.micros(None).ok_or(Unread::Overflow)
    }

    /// Parses a time of day to nanoseconds since midnight. The error tells why the text could not be
    /// parsed.
    pub(crate) fn read_time(&self, text: &str) -> Result<i64, Unread> {
        Ok(read::read(&self.0, text).ok_or(Unread::NoMatch)?.time_ns())
    }

    /// Parses a date to days since 1970. A zone in the text has no effect.
    pub fn date(&self, text: &str) -> Option<i64> {
        i32::try_from(read::read(&self.0, text)?.days()).ok().map(i64::from)
    }

    /// Formats a timestamp, in microseconds since 1970, as the local time of a zone.
    pub fn text(&self, micros: i64, zone: Tz, out: &mut dyn Write) {
        write::write(&self.0, &write::Moment::new(micros, zone), out);
    }

    /// Compiles a pattern of a TIME. A pattern for formatting must have only fields of a TIME: no
    /// year and no zone.
    pub fn of_time(text: &str, direction: Direction) -> Result<Self, PatternError> {
        let condition = "INVALID_DATETIME_PATTERN.WITH_SUGGESTION";
        let wrong = |reason| PatternError { condition, reason };
        let pattern = Self::new(text, direction).map_err(|error| wrong(error.reason))?;
        if direction == Direction::Write && !compile::is_of_time(&pattern.0) {
            return Err(wrong(format!("'{text}' has a field that a TIME lacks: a date or a zone")));
        }
        Ok(pattern)
    }

    /// Formats a time of day, in nanoseconds since midnight.
    pub fn time_text(&self, nanos: i64, out: &mut dyn Write) {
        write::write(&self.0, &write::Moment::of_time(nanos), out);
    }

    /// Formats a date, in days since 1970. `zone` only gives the names of the zone; an offset is 0.
    pub fn date_text(&self, days: i64, zone: Tz, out: &mut dyn Write) {
        write::write(&self.0, &write::Moment::of_days(days, zone), out);
    }
}

#[cfg(test)]
mod tests;
