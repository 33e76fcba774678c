//! Patterns of dates and times: the letters of Java's `DateTimeFormatter` that Spark allows.
//!
//! | letters | field |
//! |---|---|
//! | `y` | year; of its era where the pattern has `G` |
//! | `M`, `L` | month, by number or (three, four letters) by English name |
//! | `d`, `D`, `g` | day of month, of year, modified Julian day |
//! | `E`, `F` | English day of week, its count within the month; only written |
//! | `a` | AM or PM |
//! | `H`, `k`, `K`, `h` | hour: 0-23, 1-24, 0-11, 1-12 |
//! | `m`, `s`, `S` | minute, second, fraction |
//! | `V`, `z`, `v` | zone by its own name, by an English name, by one for all seasons |
//! | `X`, `x`, `Z`, `O` | offset |
//! | `Q`, `q` | quarter; only written |
//! | `G` | era |
//! | `'…'`, `[…]` | text, an optional part |
//!
//! A pattern is refused under Spark's conditions. Which one depends on Spark 2.4: what its
//! `SimpleDateFormat` took, but Spark no longer takes, has a condition of its own.

mod compile;
mod read;
mod write;

use super::Tz;
use compile::Item;
use std::fmt::Write;

/// What a pattern is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Text is read by it: a fraction may have fewer digits than letters, some letters are refused.
    Read,
    /// Text is written by it.
    Write,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// Spark's condition.
    pub condition: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// The fix that goes with a refused pattern.
pub const PATTERN_FIX: &str =
    "Write a pattern like yyyy-MM-dd HH:mm:ss; text stands in single quotes";

/// A pattern, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Vec<Item>);

impl Pattern {
    /// Compiles a pattern for one direction.
    pub fn new(text: &str, direction: Direction) -> Result<Self, PatternError> {
        compile::compile(text, direction).map(Self)
    }

    /// Microseconds since 1970 of a text; in `zone` unless the text names another.
    pub fn timestamp(&self, text: &str, zone: Tz) -> Option<i64> {
        let parsed = read::read(&self.0, text)?;
        parsed.micros(Some(parsed.zone().unwrap_or(zone)))
    }

    /// Microseconds of a wall clock without a zone. A zone in the text has no effect.
    pub fn timestamp_ntz(&self, text: &str) -> Option<i64> {
        read::read(&self.0, text)?.micros(None)
    }

    /// Days since 1970 of a text. A zone in the text has no effect.
    pub fn date(&self, text: &str) -> Option<i64> {
        i32::try_from(read::read(&self.0, text)?.days()).ok().map(i64::from)
    }

    /// A timestamp as text in a zone.
    pub fn text(&self, micros: i64, zone: Tz, out: &mut dyn Write) {
        write::write(&self.0, &write::Moment::new(micros, zone), out);
    }

    /// A date as text.
    pub fn date_text(&self, days: i64, zone: Tz, out: &mut dyn Write) {
        write::write(&self.0, &write::Moment::of_days(days, zone), out);
    }
}

#[cfg(test)]
mod tests;
