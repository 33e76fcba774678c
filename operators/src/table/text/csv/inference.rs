//! CSV schema inference by Spark's rules.

use crate::table::text::csv::dialect::LineEnd;
use crate::table::text::csv::options::ReadOptions;
use crate::table::text::csv::parser::{FieldText, Parsed, Parser, Stop};
use crate::table::text::csv::values::{Values, long};
use crate::table::text::utf8;
use crate::table::types::{DataType, Field, Schema};
use std::collections::HashMap;

/// The error of a record with more fields than `maxColumns`, or with a field longer than
/// `maxCharsPerColumn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit;

/// The date patterns for which a column of dates and timestamps becomes TIMESTAMP if no timestamp
/// pattern is given.
const ALSO_TIMES: [&str; 7] =
    ["yyyy-MM-dd", "yyyy-M-d", "yyyy-M-dd", "yyyy-MM-d", "yyyy-MM", "yyyy-M", "yyyy"];

/// Infers column names and types from records, which are passed one at a time.
pub struct Inference {
    parser: Parser,
    values: Values,
    prefers_date: bool,
    /// Whether a column of dates and timestamps becomes a timestamp column instead of STRING.
    dates_are_times: bool,
    /// Whether timestamps without a time zone are inferred as TIMESTAMP_NTZ.
    times_without_zone: bool,
    names: Vec<String>,
    types: Vec<DataType>,
}

impl Inference {
    /// Creates an inference without records. `date_format` is the option `dateFormat`.
    pub fn new(options: &ReadOptions, date_format: Option<&str>) -> Self {
        let known = ALSO_TIMES.contains(&date_format.unwrap_or(ALSO_TIMES[0]));
        Self {
            parser: Parser::new(options.dialect.clone()),
            prefers_date: options.prefers_date,
            dates_are_times: known && options.values.notation().timestamp.is_none(),
            times_without_zone: false,
            values: options.values.clone(),
            names: Vec::new(),
            types: Vec::new(),
        }
    }

    /// Sets whether timestamps without a time zone are TIMESTAMP_NTZ, as `spark.sql.timestampType`
    /// requires.
    #[must_use]
    pub fn with_times_without_zone(mut self, without: bool) -> Self {
        self.times_without_zone = without;
        self
    }

    /// Sets the line end of the next file.
    pub fn set_line_end(&mut self, line_end: LineEnd) {
        self.parser.set_line_end(line_end);
    }

    /// Whether the first record has been passed, so that the columns are known.
    pub fn has_columns(&self) -> bool {
        !self.names.is_empty()
    }

    /// Parses a record. Returns false for an empty line, a comment, and a record with an unescaped
    /// quote that `RAISE_ERROR` refuses.
    fn parse(&mut self, record: &[u8]) -> Result<bool, OverLimit> {
        match self.parser.parse(record, true) {
            Some((Parsed::Record, _)) => Ok(true),
            Some((Parsed::Malformed(Stop::Limit), _)) => Err(OverLimit),
            _ => Ok(false),
        }
    }

    /// Creates the columns from the first record. If `header`, the record contains their names.
    pub fn begin(&mut self, record: &[u8], header: bool) -> Result<(), OverLimit> {
        if !self.parse(record)? {
            return Ok(());
        }
        let text = |field: &FieldText| {
            let bytes = match field {
                FieldText::Input(range) => &record[range.clone()],
                FieldText::Copied(range) => &self.parser.copied()[range.clone()],
                _ => return String::new(),
            };
            let text = utf8::decode(bytes).into_owned();
            if text == self.values.null { String::new() } else { text }
        };
        let given: Vec<String> = self.parser.fields().iter().map(text).collect();
        let lower: Vec<String> = given.iter().map(|name| name.to_lowercase()).collect();
        let mut times: HashMap<&str, usize> = HashMap::new();
        lower.iter().for_each(|name| *times.entry(name).or_default() += 1);
        let named = |(i, name): (usize, String)| {
            let twice = times[lower[i].as_str()] > 1;
            match (header && !name.is_empty(), twice) {
                (false, _) => format!("_c{i}"),
                (true, true) => format!("{name}{i}"),
                (true, false) => name,
            }
        };
        self.names = given.into_iter().enumerate().map(named).collect();
        self.types = vec![DataType::Null; self.names.len()];
        Ok(())
    }

    /// Widens the types of the columns, so that they can represent the fields of a record.
    pub fn see(&mut self, record: &[u8]) -> Result<(), OverLimit> {
        if !self.parse(record)? {
            return Ok(());
        }
        for (i, field) in self.parser.fields().iter().enumerate().take(self.types.len()) {
            let bytes = match field {
                FieldText::Null | FieldText::Skipped => continue,
                FieldText::Empty => self.values.empty.as_bytes(),
                FieldText::Input(range) => &record[range.clone()],
                FieldText::Copied(range) => &self.parser.copied()[range.clone()],
            };
            if bytes.is_empty()
                || bytes == self.values.null.as_bytes()
                || self.types[i] == DataType::String
            {
                continue;
            }
            let found = self.found(&self.types[i], &utf8::decode(bytes));
            if found != self.types[i] {
                let before = std::mem::replace(&mut self.types[i], DataType::Null);
                self.types[i] = self.together(before, found);
            }
        }
        Ok(())
    }

    /// Returns the inferred schema. A column whose fields were all NULL or empty is STRING.
    pub fn finish(self) -> Schema {
        let fields = self.names.into_iter().zip(self.types).map(|(name, data_type)| {
            let data_type = if data_type == DataType::Null { DataType::String } else { data_type };
            Field::new(name, data_type, true)
        });
        Schema::new(fields.collect())
    }

    /// The type of a field. Only `so_far` and the types after it in Spark's order are tried; STRING
    /// takes every text.
    fn found(&self, so_far: &DataType, text: &str) -> DataType {
        use DataType as T;
        let order = match so_far {
            T::Null | T::Int => 0,
            T::Long => 1,
            T::Decimal(..) => 2,
            T::Double => 3,
            T::Date => 4,
            T::TimestampNtz => 5,
            T::Timestamp => 6,
            T::Boolean => 7,
            _ => 8,
        };
        if order <= 1
            && let Some(value) = long(text)
        {
            return if order == 0 && i32::try_from(value).is_ok() { T::Int } else { T::Long };
        }
        if order <= 2
            && let Some(precision) = whole_digits(text)
        {
            return T::Decimal(precision, 0);
        }
        if order <= 3 && self.values.is_double(text) {
            return T::Double;
        }
        if order <= 4 && self.prefers_date && self.values.is_date(text) {
            return T::Date;
        }
        if order <= 5 && self.times_without_zone && self.values.notation().is_timestamp_ntz(text) {
            return T::TimestampNtz;
        }
        if order <= 6 && self.values.is_timestamp(text) {
            return T::Timestamp;
        }
        if order <= 7 && (text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")) {
            return T::Boolean;
        }
        T::String
    }

    /// The common type of two types by Spark's rules.
    fn together(&self, a: DataType, b: DataType) -> DataType {
        use DataType as T;
        let whole = |t: &DataType| match t {
            T::Int => Some(10u8),
            T::Long => Some(20),
            T::Decimal(precision, 0) => Some(*precision),
            _ => None,
        };
        match (a, b) {
            (T::Null, other) | (other, T::Null) => other,
            (a, b) if a == b => a,
            (T::Int, T::Long) | (T::Long, T::Int) => T::Long,
            (T::TimestampNtz, T::Timestamp) | (T::Timestamp, T::TimestampNtz) => T::Timestamp,
            (T::Date, time @ (T::Timestamp | T::TimestampNtz))
            | (time @ (T::Timestamp | T::TimestampNtz), T::Date)
                if self.dates_are_times =>
            {
                time
            }
            (a, b) => match (whole(&a), whole(&b)) {
                (Some(a), Some(b)) => T::Decimal(a.max(b), 0),
                (Some(_), None) if b == T::Double => T::Double,
                (None, Some(_)) if a == T::Double => T::Double,
                _ => T::String,
            },
        }
    }
}

/// The number of digits of an integer (`5` or `5.`, without an exponent), if a DECIMAL can
/// represent it.
fn whole_digits(text: &str) -> Option<u8> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = digits.strip_suffix('.').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0').len().max(1);
    (digits <= 38).then_some(digits as u8)
}
