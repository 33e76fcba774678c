//! Text forms of dates, timestamps and numbers in CSV fields and JSON strings.

use crate::table::datetime::pattern::{Direction, PATTERN_FIX, Pattern};
use crate::table::datetime::time_of_day::{parse_time, write_time};
use crate::table::datetime::{Tz, names_zone, parse_date, parse_timestamp, write_date};
use crate::table::error::{PlanError, PlanResult};
use crate::table::row::{Bytes, RowWriter};
use crate::table::text::number;
use crate::table::types::DataType;
use crate::table::value::{BinaryStyle, Value, write_scientific};
use std::fmt::{self, Write};
use std::sync::LazyLock;

/// The default pattern for writing TIMESTAMP. As in Spark, fractions below a millisecond are lost.
static ISO: LazyLock<Pattern> = LazyLock::new(|| constant("yyyy-MM-dd'T'HH:mm:ss.SSSXXXXX"));
static ISO_LOCAL: LazyLock<Pattern> = LazyLock::new(|| constant("yyyy-MM-dd'T'HH:mm:ss.SSS"));

fn constant(pattern: &str) -> Pattern {
    match Pattern::new(pattern, Direction::Write) {
        Ok(pattern) => pattern,
        Err(error) => unreachable!("{pattern}: {}", error.reason),
    }
}

/// The rules by which dates and timestamps are written and parsed, and special floating-point
/// numbers in CSV are parsed.
#[derive(Clone, Debug)]
pub struct Notation {
    /// The time zone of written timestamps, and of parsed ones whose text names no zone.
    pub zone: Tz,
    /// The style of BINARY values in CSV.
    pub binary: BinaryStyle,
    /// The date pattern. If `None`, dates are parsed by the rules of CAST.
    pub date: Option<Pattern>,
    /// The pattern of TIMESTAMP. If `None`, timestamps are parsed by the rules of CAST.
    pub timestamp: Option<Pattern>,
    /// The pattern of TIMESTAMP_NTZ. If `None`, timestamps are parsed by the rules of CAST.
    pub timestamp_ntz: Option<Pattern>,
    /// The pattern of TIME. If `None`, times are parsed and written by the rules of CAST.
    pub time: Option<Pattern>,
    /// The text of NaN.
    pub nan: String,
    /// The text of positive infinity.
    pub positive_infinity: String,
    /// The text of negative infinity.
    pub negative_infinity: String,
}

impl Default for Notation {
    fn default() -> Self {
        Self {
            zone: Tz::UTC,
            binary: BinaryStyle::default(),
            date: None,
            timestamp: None,
            timestamp_ntz: None,
            time: None,
            nan: "NaN".to_string(),
            positive_infinity: "Inf".to_string(),
            negative_infinity: "-Inf".to_string(),
        }
    }
}

/// The options that are patterns of dates and times.
pub const PATTERN_OPTIONS: [&str; 4] =
    ["dateFormat", "timestampFormat", "timestampNTZFormat", "timeFormat"];

/// Compiles the value of one of [`PATTERN_OPTIONS`].
pub fn pattern(name: &str, text: &str, direction: Direction) -> PlanResult<Pattern> {
    let compiled = match name {
        "timeFormat" => Pattern::of_time(text, direction),
        _ => Pattern::new(text, direction),
    };
    compiled.map_err(|error| {
        PlanError::new(error.condition, format!("option '{name}': {}", error.reason), PATTERN_FIX)
    })
}

impl Notation {
    /// The notation with the patterns of [`PATTERN_OPTIONS`]. `get` returns the value of an option,
    /// `None` if it is not set.
    pub fn with_patterns(
        get: &mut dyn FnMut(&'static str) -> Option<String>,
        direction: Direction,
    ) -> PlanResult<Self> {
        let mut compile = |name| get(name).map(|text| pattern(name, &text, direction)).transpose();
        let [date, timestamp, timestamp_ntz, time] = PATTERN_OPTIONS;
        Ok(Self {
            date: compile(date)?,
            timestamp: compile(timestamp)?,
            timestamp_ntz: compile(timestamp_ntz)?,
            time: compile(time)?,
            ..Self::default()
        })
    }

    /// Like [`with_patterns`](Self::with_patterns), with the zone of the option `timeZone`, or of the
    /// session.
    pub fn with_options(
        get: &mut dyn FnMut(&'static str) -> Option<String>,
        direction: Direction,
        session_zone: Tz,
    ) -> PlanResult<Self> {
        let notation = Self::with_patterns(get, direction)?;
        let zone = get("timeZone").map(|name| crate::table::datetime::zone(&name)).transpose()?;
        Ok(Self { zone: zone.unwrap_or(session_zone), ..notation })
    }

    /// Parses a TIME to nanoseconds since midnight.
    pub fn time(&self, text: &str) -> Option<i64> {
        match &self.time {
            Some(pattern) => pattern.read_time(text).ok(),
            None => parse_time(text),
        }
    }

    /// Whether a text matches the pattern of TIMESTAMP_NTZ or, without one, is a timestamp that
    /// names no time zone.
    pub fn is_timestamp_ntz(&self, text: &str) -> bool {
        match &self.timestamp_ntz {
            Some(pattern) => pattern.timestamp_ntz(text).is_some(),
            None => !names_zone(text) && parse_timestamp(text, None).is_some(),
        }
    }

    /// Parses an integer, date or timestamp. Returns the value that a row's slot stores.
    pub fn long(&self, text: &str, data_type: &DataType) -> Option<i64> {
        Some(match data_type {
            DataType::Date => match &self.date {
                Some(pattern) => pattern.date(text)?,
                None => parse_date(text)?,
            },
            DataType::Timestamp => match &self.timestamp {
                Some(pattern) => pattern.timestamp(text, self.zone)?,
                None => parse_timestamp(text, Some(self.zone))?,
            },
            DataType::TimestampNtz => match &self.timestamp_ntz {
                Some(pattern) => pattern.timestamp_ntz(text)?,
                None => parse_timestamp(text, None)?,
            },
            DataType::Time(_) => self.time(text)?,
            _ => integer(text.trim().parse().ok()?, data_type)?,
        })
    }

    fn double(&self, text: &str, data_type: &DataType) -> Option<f64> {
        let special = [
            (self.nan.as_str(), f64::NAN),
            (self.positive_infinity.as_str(), f64::INFINITY),
            (self.negative_infinity.as_str(), f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ];
        if let Some((_, value)) = special.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let trimmed = text.trim();
        // Rust also parses words such as "inf" and "nan", which are not numbers here.
        let last = trimmed.bytes().last()?;
        if !last.is_ascii_digit() && last != b'.' {
            return None;
        }
        if *data_type == DataType::Float {
            trimmed.parse::<f32>().ok().map(f64::from)
        } else {
            trimmed.parse().ok()
        }
    }

    /// Writes a non-NULL scalar value as text.
    pub fn write(&self, value: &Value, data_type: &DataType, out: &mut dyn Write) -> fmt::Result {
        match (value, data_type) {
            (Value::Long(days), DataType::Date) => match &self.date {
                Some(pattern) => pattern.date_text(*days, Tz::UTC, out),
                None => return write_date(*days, out),
            },
            (Value::Long(v), DataType::Timestamp) => match &self.timestamp {
                Some(pattern) => pattern.text(*v, self.zone, out),
                None => ISO.text(*v, self.zone, out),
            },
            (Value::Long(v), DataType::TimestampNtz) => match &self.timestamp_ntz {
                Some(pattern) => pattern.text(*v, Tz::UTC, out),
                None => ISO_LOCAL.text(*v, Tz::UTC, out),
            },
            (Value::Long(nanos), DataType::Time(_)) => match &self.time {
                Some(pattern) => pattern.time_text(*nanos, out),
                None => return write_time(*nanos, out),
            },
            (Value::Decimal(v), DataType::Decimal(_, scale)) => {
                return write_scientific(*v, *scale, out);
            }
            _ => return value.write_text(data_type, self.zone, "", out),
        }
        Ok(())
    }

    /// Writes a value as a CSV field. BINARY is written as `show` prints it. Nested values are
    /// written in the brackets of `show`; their elements are written by this function, and NULL as
    /// an empty text.
    pub fn write_csv(
        &self,
        value: &Value,
        data_type: &DataType,
        out: &mut dyn Write,
    ) -> fmt::Result {
        let part = |first: bool, value: &Value, data_type: &DataType, out: &mut dyn Write| {
            out.write_str(if first { "" } else { "," })?;
            if *value == Value::Null {
                return Ok(());
            }
            out.write_str(if first { "" } else { " " })?;
            self.write_csv(value, data_type, out)
        };
        match (value, data_type) {
            (Value::Binary(_), DataType::CalendarInterval) => self.write(value, data_type, out),
            (Value::Binary(bytes), _) => self.binary.write(bytes, out),
            (Value::Array(values), DataType::Array(element)) => {
                out.write_str("[")?;
                for (i, value) in values.iter().enumerate() {
                    part(i == 0, value, element, out)?;
                }
                out.write_str("]")
            }
            (Value::Struct(values), DataType::Struct(fields)) => {
                out.write_str("{")?;
                for (i, (value, field)) in values.iter().zip(fields).enumerate() {
                    part(i == 0, value, &field.data_type, out)?;
                }
                out.write_str("}")
            }
            (Value::Map(entries), DataType::Map(key, of)) => {
                out.write_str("{")?;
                for (i, (k, v)) in entries.iter().enumerate() {
                    part(i == 0, k, key, out)?;
                    out.write_str(" ->")?;
                    if *v != Value::Null {
                        out.write_str(" ")?;
                        self.write_csv(v, of, out)?;
                    }
                }
                out.write_str("}")
            }
            (Value::Boolean(_) | Value::String(_), _) => {
                value.write_text(data_type, self.zone, "", out)
            }
            _ => self.write(value, data_type, out),
        }
    }

    /// Parses a text and writes the value into a row. Returns false if the text is not valid for
    /// the type, or for an interval or a nested type.
    #[inline]
    pub fn put<B: Bytes>(
        &self,
        text: &str,
        data_type: &DataType,
        writer: &mut RowWriter<'_, B>,
        index: usize,
    ) -> bool {
        match data_type {
            DataType::String | DataType::Binary => writer.bytes(index, text.as_bytes()),
            DataType::Boolean if text.eq_ignore_ascii_case("true") => writer.bool(index, true),
            DataType::Boolean if text.eq_ignore_ascii_case("false") => writer.bool(index, false),
            DataType::Float | DataType::Double => match self.double(text, data_type) {
                Some(value) => writer.double(index, value),
                None => return false,
            },
            DataType::Decimal(..) => match number::decimal(text, data_type) {
                Ok(Some(value)) => writer.decimal(index, value),
                _ => return false,
            },
            DataType::Date | DataType::Timestamp | DataType::TimestampNtz | DataType::Time(_) => {
                match self.long(text, data_type) {
                    Some(value) => writer.long(index, value),
                    None => return false,
                }
            }
            t if t.is_integral() => match self.long(text, data_type) {
                Some(value) => writer.long(index, value),
                None => return false,
            },
            _ => return false,
        }
        true
    }
}

/// Returns an integer if it is in the range of the type, otherwise `None`.
#[inline]
pub fn integer(value: i64, data_type: &DataType) -> Option<i64> {
    let fits = match data_type {
        DataType::Byte => i8::try_from(value).is_ok(),
        DataType::Short => i16::try_from(value).is_ok(),
        DataType::Int => i32::try_from(value).is_ok(),
        _ => true,
    };
    fits.then_some(value)
}

/// Appends the decimal digits of an integer.
pub fn write_integer(value: i64, out: &mut Vec<u8>) {
    let (mut digits, mut at, mut rest) = ([0u8; 20], 20, value.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}
