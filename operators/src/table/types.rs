//! Spark's data types, and schemas.

use super::error::{Place, PlanError, PlanResult};
use crate::table::datetime::time_of_day::{TIME_DIGITS, TIME_DIGITS_MAX};
use crate::table::deep_recursion::on_stack;
use crate::table::expr::type_rules::Rules;
use crate::table::plan::limits::nested;
use std::borrow::Cow;
use std::fmt;

/// The maximum precision of a DECIMAL: its number of digits.
pub const DECIMAL_DIGITS_MAX: u8 = 38;

/// A data type of Spark SQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// The type of an untyped NULL (VOID).
    Null,
    /// BOOLEAN.
    Boolean,
    /// TINYINT, 8 bits.
    Byte,
    /// SMALLINT, 16 bits.
    Short,
    /// INT, 32 bits.
    Int,
    /// BIGINT, 64 bits.
    Long,
    /// FLOAT, 32 bits.
    Float,
    /// DOUBLE, 64 bits.
    Double,
    /// DECIMAL: precision (at most 38) and scale.
    Decimal(u8, u8),
    /// STRING, UTF-8 text.
    String,
    /// BINARY, any bytes.
    Binary,
    /// DATE: days since 1970-01-01.
    Date,
    /// TIMESTAMP: microseconds since 1970-01-01 UTC, shown in the session time zone.
    Timestamp,
    /// TIMESTAMP_NTZ: microseconds of a local time without a time zone.
    TimestampNtz,
    /// TIME: nanoseconds since midnight. The number is that of its fractional digits, at most 6.
    Time(u8),
    /// A duration in microseconds. The numbers are its largest and smallest unit: 0 day, 1 hour, 2
    /// minute, 3 second.
    DayTimeInterval(u8, u8),
    /// A duration in months. The numbers are its largest and smallest unit: 0 year, 1 month.
    YearMonthInterval(u8, u8),
    /// INTERVAL: months, days and microseconds, which are separate lengths.
    CalendarInterval,
    /// ARRAY: elements of one type.
    Array(Box<DataType>),
    /// MAP, with the types of keys and values.
    Map(Box<DataType>, Box<DataType>),
    /// STRUCT: named fields.
    Struct(Vec<Field>),
    /// VARIANT: a value whose type is only known at run time, such as parsed JSON.
    Variant,
}

/// The representation of values in the slots of a row and in compiled expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Physical {
    /// `bool`: BOOLEAN, and VOID, whose only value is NULL.
    Bool,
    /// `i64`: integers, dates, timestamps and intervals.
    Long,
    /// `f64`: FLOAT and DOUBLE.
    Double,
    /// `i128`: the unscaled value of a DECIMAL.
    Decimal,
    /// Bytes in the tail of the row: STRING, BINARY, INTERVAL, VARIANT and nested types.
    Bytes,
}

/// A named, typed column or struct field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// The name, as the user wrote it.
    pub name: String,
    /// The type of the values.
    pub data_type: DataType,
    /// Whether a value can be NULL.
    pub nullable: bool,
}

impl Field {
    /// Creates a field.
    pub fn new(name: impl Into<String>, data_type: DataType, nullable: bool) -> Self {
        Self { name: name.into(), data_type, nullable }
    }
}

impl DataType {
    /// How values of this type are represented.
    pub fn physical(&self) -> Physical {
        match self {
            Self::Null | Self::Boolean => Physical::Bool,
            Self::Byte | Self::Short | Self::Int | Self::Long => Physical::Long,
            Self::Date | Self::Timestamp | Self::TimestampNtz | Self::Time(_) => Physical::Long,
            Self::DayTimeInterval(..) | Self::YearMonthInterval(..) => Physical::Long,
            Self::Float | Self::Double => Physical::Double,
            Self::Decimal(..) => Physical::Decimal,
            Self::String | Self::Binary | Self::Variant => Physical::Bytes,
            Self::CalendarInterval => Physical::Bytes,
            Self::Array(_) | Self::Map(..) | Self::Struct(_) => Physical::Bytes,
        }
    }

    /// Whether the type is an array, a map or a struct.
    pub fn is_nested(&self) -> bool {
        matches!(self, Self::Array(_) | Self::Map(..) | Self::Struct(_))
    }

    /// Whether the type is an array, a map, a struct or a VARIANT. CSV files and partition folders
    /// cannot hold such values.
    pub(crate) fn has_parts(&self) -> bool {
        self.is_nested() || *self == Self::Variant
    }

    /// Whether values of this type can be ordered. This is true for types that contain neither a
    /// map nor a VARIANT nor an INTERVAL of months, days and microseconds.
    pub fn is_orderable(&self) -> bool {
        self.is_hashable() && !self.contains(&|part| *part == Self::CalendarInterval)
    }

    /// Whether values of this type can be hashed and grouped. This is true for types that contain
    /// neither a map nor a VARIANT.
    pub fn is_hashable(&self) -> bool {
        !self.contains(&|part| matches!(part, Self::Map(..) | Self::Variant))
    }

    /// Whether the type is an INTERVAL of months, days and microseconds, or contains one. No file
    /// format has such values.
    pub(crate) fn has_calendar_interval(&self) -> bool {
        self.contains(&|part| *part == Self::CalendarInterval)
    }

    /// Whether the type, or a type that it contains, satisfies a condition.
    pub(crate) fn contains(&self, condition: &dyn Fn(&Self) -> bool) -> bool {
        condition(self)
            || match self {
                Self::Array(element) => element.contains(condition),
                Self::Map(key, value) => key.contains(condition) || value.contains(condition),
                Self::Struct(fields) => {
                    fields.iter().any(|field| field.data_type.contains(condition))
                }
                _ => false,
            }
    }

    /// Whether the type is VARIANT, or contains one.
    pub(crate) fn has_variant(&self) -> bool {
        self.contains(&|part| *part == Self::Variant)
    }

    /// Whether the type is a day-time or a year-month interval.
    pub fn is_interval(&self) -> bool {
        matches!(self, Self::DayTimeInterval(..) | Self::YearMonthInterval(..))
    }

    /// Whether the type is TIME, or contains one.
    #[cfg(feature = "columnar")]
    pub(crate) fn has_time(&self) -> bool {
        self.contains(&|part| matches!(part, Self::Time(_)))
    }

    /// Whether the type is a date, or a timestamp with or without a time zone.
    pub fn is_datetime(&self) -> bool {
        matches!(self, Self::Date | Self::Timestamp | Self::TimestampNtz)
    }

    /// Whether the type is TINYINT, SMALLINT, INT or BIGINT.
    pub fn is_integral(&self) -> bool {
        matches!(self, Self::Byte | Self::Short | Self::Int | Self::Long)
    }

    /// Whether the type is an integer, float or decimal type.
    pub fn is_numeric(&self) -> bool {
        self.is_integral() || matches!(self, Self::Float | Self::Double | Self::Decimal(..))
    }

    /// The smallest and largest value of an integral type; those of BIGINT for any other type.
    pub fn integral_range(&self) -> (i64, i64) {
        match self {
            Self::Byte => (i64::from(i8::MIN), i64::from(i8::MAX)),
            Self::Short => (i64::from(i16::MIN), i64::from(i16::MAX)),
            Self::Int => (i64::from(i32::MIN), i64::from(i32::MAX)),
            _ => (i64::MIN, i64::MAX),
        }
    }

    /// The precision and scale of a DECIMAL that represents every value of this type. `None` for
    /// types other than integers and decimals.
    pub fn as_decimal(&self) -> Option<(u8, u8)> {
        match self {
            Self::Byte => Some((3, 0)),
            Self::Short => Some((5, 0)),
            Self::Int => Some((10, 0)),
            Self::Long => Some((20, 0)),
            Self::Decimal(p, s) => Some((*p, *s)),
            _ => None,
        }
    }

    fn tree(&self, out: &mut String, depth: usize) {
        let indent = " |   ".repeat(depth);
        match self {
            Self::Struct(fields) => tree(fields, out, depth),
            Self::Array(element) => {
                out.push_str(&format!(
                    "{indent} |-- element: {} (containsNull = true)\n",
                    element.tree_name()
                ));
                element.tree(out, depth + 1);
            }
            Self::Map(key, value) => {
                out.push_str(&format!("{indent} |-- key: {}\n", key.tree_name()));
                key.tree(out, depth + 1);
                out.push_str(&format!(
                    "{indent} |-- value: {} (valueContainsNull = true)\n",
                    value.tree_name()
                ));
                value.tree(out, depth + 1);
            }
            _ => {}
        }
    }

    fn tree_name(&self) -> String {
        match self {
            Self::Array(_) => "array".to_string(),
            Self::Map(..) => "map".to_string(),
            Self::Struct(_) => "struct".to_string(),
            Self::Byte => "byte".to_string(),
            Self::Short => "short".to_string(),
            Self::Int => "integer".to_string(),
            Self::Long => "long".to_string(),
            other => other.to_string().to_lowercase(),
        }
    }
}

impl fmt::Display for DataType {
    /// Formats the SQL name of the type, as in a DDL schema.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => write!(f, "VOID"),
            Self::Boolean => write!(f, "BOOLEAN"),
            Self::Byte => write!(f, "TINYINT"),
            Self::Short => write!(f, "SMALLINT"),
            Self::Int => write!(f, "INT"),
            Self::Long => write!(f, "BIGINT"),
            Self::Float => write!(f, "FLOAT"),
            Self::Double => write!(f, "DOUBLE"),
            Self::Decimal(p, s) => write!(f, "DECIMAL({p},{s})"),
            Self::String => write!(f, "STRING"),
            Self::Binary => write!(f, "BINARY"),
            Self::Date => write!(f, "DATE"),
            Self::Timestamp => write!(f, "TIMESTAMP"),
            Self::TimestampNtz => write!(f, "TIMESTAMP_NTZ"),
            Self::Time(digits) => write!(f, "TIME({digits})"),
            Self::DayTimeInterval(from, to) => interval_name(f, &DAY_TIME_UNITS, *from, *to),
            Self::YearMonthInterval(from, to) => interval_name(f, &YEAR_MONTH_UNITS, *from, *to),
            Self::CalendarInterval => write!(f, "INTERVAL"),
            Self::Variant => write!(f, "VARIANT"),
            Self::Array(element) => write!(f, "ARRAY<{element}>"),
            Self::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            Self::Struct(fields) => {
                write!(f, "STRUCT<")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    let name = quoted_if_needed(&field.name);
                    write!(f, "{comma}{name}: {}", field.data_type)?;
                }
                write!(f, ">")
            }
        }
    }
}

/// A name as it is written in SQL: in backquotes unless it is a plain identifier.
pub fn quoted_if_needed(name: &str) -> Cow<'_, str> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_start = |b: &u8| is_word(*b) && !b.is_ascii_digit();
    if name.bytes().all(is_word) && name.as_bytes().first().is_some_and(is_start) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("`{}`", name.replace('`', "``")))
}

/// The units of a [`DataType::DayTimeInterval`].
pub const DAY_TIME_UNITS: [&str; 4] = ["DAY", "HOUR", "MINUTE", "SECOND"];
/// The units of a [`DataType::YearMonthInterval`].
pub const YEAR_MONTH_UNITS: [&str; 2] = ["YEAR", "MONTH"];

fn interval_name(f: &mut fmt::Formatter<'_>, units: &[&str], from: u8, to: u8) -> fmt::Result {
    write!(f, "INTERVAL {}", units[usize::from(from)])?;
    if from == to { Ok(()) } else { write!(f, " TO {}", units[usize::from(to)]) }
}

fn tree(fields: &[Field], out: &mut String, depth: usize) {
    let indent = " |   ".repeat(depth);
    for field in fields {
        out.push_str(&format!(
            "{indent} |-- {}: {} (nullable = {})\n",
            field.name,
            field.data_type.tree_name(),
            field.nullable
        ));
        field.data_type.tree(out, depth + 1);
    }
}

/// The columns of a table, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// The columns.
    pub fields: Vec<Field>,
}

impl Schema {
    /// Creates a schema with these columns.
    pub fn new(fields: Vec<Field>) -> Self {
        Self { fields }
    }

    /// Parses a DDL schema: `a INT, b ARRAY<STRING>, c STRUCT<d: INT>`.
    pub fn parse_ddl(ddl: &str) -> PlanResult<Self> {
        let mut parser = Ddl { rest: ddl.trim() };
        let fields = parser.fields(None)?;
        Ok(Self { fields })
    }

    /// Formats the schema like Spark's `printSchema`.
    pub fn tree(&self) -> String {
        let mut out = "root\n".to_string();
        tree(&self.fields, &mut out, 0);
        out
    }
}

/// The index of the quote that ends a quoted text. A doubled quote does not end it and, if
/// `escapes`, neither does a quote after a backslash. `None` if the text does not end.
fn closing(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' || c == quote && chars.next_if(|(_, c)| *c == quote).is_some() {
            if c != quote {
                chars.next();
            }
        } else if c == quote {
            return Some(at);
        }
    }
    None
}

/// The text behind words, in any case; `None` if it does not start with them.
fn behind<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    words.iter().try_fold(text, |text, word| {
        let (start, rest) = text.split_at_checked(word.len())?;
        let ends = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        (ends && start.eq_ignore_ascii_case(word)).then(|| rest.trim_start())
    })
}

struct Ddl<'a> {
    rest: &'a str,
}

impl<'a> Ddl<'a> {
    fn error(&self, expected: &str) -> PlanError {
        PlanError::new(
            "PARSE_SYNTAX_ERROR",
            format!("the schema has '{}' where {expected} is expected", self.rest),
            "Write a schema like: id INT, tags ARRAY<STRING>, at TIMESTAMP",
        )
    }

    fn skip(&mut self, prefix: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    /// Skips words if all of them are there. Returns whether they are.
    fn skip_words(&mut self, words: &[&str]) -> bool {
        let rest = behind(self.rest, words);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self) -> PlanResult<Cow<'a, str>> {
        if let Some(quoted) = self.rest.strip_prefix('`') {
            let end = closing(quoted, '`', false).ok_or_else(|| self.error("a closing `"))?;
            self.rest = quoted[end + 1..].trim_start();
            // A doubled backquote denotes one.
            return Ok(match quoted[..end].contains('`') {
                true => Cow::Owned(quoted[..end].replace("``", "`")),
                false => Cow::Borrowed(&quoted[..end]),
            });
        }
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if word.is_empty() {
            return Err(self.error("a name"));
        }
        self.rest = rest.trim_start();
        Ok(Cow::Borrowed(word))
    }

    /// Skips `COMMENT 'text'`, which has no effect.
    fn comment(&mut self) -> PlanResult<()> {
        let Some(text) = behind(self.rest, &["COMMENT"]) else { return Ok(()) };
        let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return Ok(());
        };
        let end = closing(&text[1..], quote, true).ok_or_else(|| self.error("a closing quote"))?;
        self.rest = text[end + 2..].trim_start();
        Ok(())
    }

    /// Skips `NOT NULL`. Returns whether it is there.
    fn not_null(&mut self) -> bool {
        self.skip_words(&["NOT", "NULL"])
    }

    fn fields(&mut self, close: Option<char>) -> PlanResult<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            let name = self.word()?.into_owned();
            // Only the fields of a STRUCT may have a colon.
            if close.is_some() {
                self.skip(':');
            }
            let data_type = self.data_type()?;
            let mut nullable = !self.not_null();
            self.comment()?;
            // In Spark the two may have any order in a column of CREATE TABLE.
            nullable &= !(close.is_none() && self.not_null());
            fields.push(Field { name, data_type, nullable });
            if self.skip(',') {
                continue;
            }
            let closed = match close {
                Some(close) => self.skip(close),
                None => self.rest.is_empty(),
            };
            return if closed { Ok(fields) } else { Err(self.error("a comma or the end")) };
        }
    }

    fn data_type(&mut self) -> PlanResult<DataType> {
        let level = || nested(Place::default(), || self.one_type());
        on_stack(level)
    }

    fn one_type(&mut self) -> PlanResult<DataType> {
        let before = self.rest;
        let word = self.word()?.to_ascii_uppercase();
        Ok(match word.as_str() {
            "BOOLEAN" => DataType::Boolean,
            "TINYINT" | "BYTE" => DataType::Byte,
            "SMALLINT" | "SHORT" => DataType::Short,
            "INT" | "INTEGER" => DataType::Int,
            "BIGINT" | "LONG" => DataType::Long,
            "FLOAT" | "REAL" => DataType::Float,
            "DOUBLE" => DataType::Double,
            "STRING" => DataType::String,
            "BINARY" => DataType::Binary,
            "DATE" => DataType::Date,
            "TIMESTAMP" if Rules::current().timestamps_without_zone => DataType::TimestampNtz,
            "TIMESTAMP" | "TIMESTAMP_LTZ" => DataType::Timestamp,
            "TIMESTAMP_NTZ" => DataType::TimestampNtz,
            "TIME" => self.time()?,
            "DECIMAL" | "DEC" | "NUMERIC" => self.decimal()?,
            "ARRAY" if self.skip('<') => {
                let element = self.data_type()?;
                if !self.skip('>') {
                    return Err(self.error("'>'"));
                }
                DataType::Array(Box::new(element))
            }
            "STRUCT" if self.skip('<') => match self.skip('>') {
                true => DataType::Struct(Vec::new()),
                false => DataType::Struct(self.fields(Some('>'))?),
            },
            "MAP" if self.skip('<') => {
                let key = self.data_type()?;
                if !self.skip(',') {
                    return Err(self.error("','"));
                }
                let value = self.data_type()?;
                if !self.skip('>') {
                    return Err(self.error("'>'"));
                }
                DataType::Map(Box::new(key), Box::new(value))
            }
            "VARCHAR" | "CHAR" if self.skip('(') => {
                self.word()?;
                if !self.skip(')') {
                    return Err(self.error("')'"));
                }
                DataType::String
            }
            "VARIANT" => DataType::Variant,
            "VOID" => DataType::Null,
            "INTERVAL" => self.interval()?,
            _ => {
                self.rest = before;
                return Err(PlanError::new(
                    "UNSUPPORTED_DATATYPE",
                    format!("'{word}' is not a data type"),
                    "Types: BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p,s), \
                     STRING, BINARY, DATE, TIMESTAMP, TIMESTAMP_NTZ, TIME, INTERVAL, \
                     INTERVAL DAY TO SECOND, INTERVAL YEAR TO MONTH, ARRAY<..>, MAP<.., ..>, STRUCT<..>, VARIANT",
                ));
            }
        })
    }

    fn interval(&mut self) -> PlanResult<DataType> {
        let unit = |word: &str| {
            let at = |units: &[&str]| units.iter().position(|unit| unit.eq_ignore_ascii_case(word));
            let day_time = at(&DAY_TIME_UNITS).map(|at| (true, at as u8));
            day_time.or(at(&YEAR_MONTH_UNITS).map(|at| (false, at as u8)))
        };
        let wrong = self.error("DAY TO SECOND, YEAR TO MONTH or one of their units");
        let is_unit = self.rest.starts_with(|c: char| c.is_alphabetic());
        let before = self.rest;
        let first = if is_unit { unit(&self.word()?) } else { None };
        let Some((day_time, from)) = first else {
            // What follows is not a unit but, for example, COMMENT.
            self.rest = before;
            return Ok(DataType::CalendarInterval);
        };
        let mut to = from;
        if self.skip_words(&["TO"]) {
            match unit(&self.word()?) {
                Some((kind, unit)) if kind == day_time && unit > from => to = unit,
                _ => return Err(wrong),
            }
        }
        Ok(if day_time {
            DataType::DayTimeInterval(from, to)
        } else {
            DataType::YearMonthInterval(from, to)
        })
    }

    /// Parses what follows TIME: `(digits)` and `WITHOUT TIME ZONE`, which both may be left out.
    fn time(&mut self) -> PlanResult<DataType> {
        let mut digits = TIME_DIGITS;
        if self.skip('(') {
            let written = self.word()?;
            digits = written.parse().unwrap_or(u8::MAX);
            if digits > TIME_DIGITS_MAX {
                return Err(PlanError::new(
                    "UNSUPPORTED_TIME_PRECISION",
                    format!("TIME has no {written} fractional digits"),
                    "Use 0 to 9",
                ));
            }
            if !self.skip(')') {
                return Err(self.error("')'"));
            }
        }
        self.skip_words(&["WITHOUT", "TIME", "ZONE"]);
        Ok(DataType::Time(digits))
    }

    fn decimal(&mut self) -> PlanResult<DataType> {
        if !self.skip('(') {
            return Ok(DataType::Decimal(10, 0));
        }
        let number = |word: &str| word.parse::<u8>().ok();
        let precision = number(&self.word()?);
        let scale = if self.skip(',') { number(&self.word()?) } else { Some(0) };
        match (precision, scale, self.skip(')')) {
            (Some(p), Some(s), true) if (1..=38).contains(&p) && s <= p => {
                Ok(DataType::Decimal(p, s))
            }
            _ => Err(self.error("DECIMAL(precision, scale) with 1 <= precision <= 38")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ddl_and_tree_as_spark_writes_them() {
        let schema = Schema::parse_ddl(
            "id INT NOT NULL, xs ARRAY<STRUCT<k: STRING, v: DECIMAL(10, 2)>>, `a b` BIGINT",
        )
        .unwrap();
        assert_eq!(
            schema.fields[1].data_type.to_string(),
            "ARRAY<STRUCT<k: STRING, v: DECIMAL(10,2)>>"
        );
        assert_eq!(
            schema.tree(),
            "root\n |-- id: integer (nullable = false)\n |-- xs: array (nullable = true)\n \
             |    |-- element: struct (containsNull = true)\n |    |    |-- k: string (nullable = true)\n \
             |    |    |-- v: decimal(10,2) (nullable = true)\n |-- a b: long (nullable = true)\n"
        );
        let quoted = "t STRUCT<`a``b`: INT, `c d`: INT, `1`: INT, e: INT>";
        let fields = Schema::parse_ddl(quoted).unwrap().fields;
        assert_eq!(format!("t {}", fields[0].data_type), quoted);
        let commented = "a INT COMMENT 'it''s, \\'one\\'', s STRUCT<x: INT NOT NULL COMMENT \"y\">, \
                         comment INT";
        let fields = Schema::parse_ddl(commented).unwrap().fields;
        let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["a", "s", "comment"]);
        let any_order = "a INT COMMENT 'x' NOT NULL, b INT not\n null, c INT COMMENT 'y'";
        let fields = Schema::parse_ddl(any_order).unwrap().fields;
        assert_eq!(fields.iter().map(|f| f.nullable).collect::<Vec<_>>(), [false, false, true]);
        let other = "m MAP<STRING, ARRAY<INT>>, i INTERVAL DAY TO SECOND, j INTERVAL MONTH, \
                     k INTERVAL NOT NULL, l ARRAY<INTERVAL>, o INTERVAL";
        let types: Vec<_> = Schema::parse_ddl(other)
            .unwrap()
            .fields
            .iter()
            .map(|field| field.data_type.to_string())
            .collect();
        let expected = "MAP<STRING, ARRAY<INT>>; INTERVAL DAY TO SECOND; INTERVAL MONTH; INTERVAL; \
                        ARRAY<INTERVAL>; INTERVAL";
        assert_eq!(types.join("; "), expected);
        for bad in [
            "",
            "a",
            "a INT,",
            "a INTERVAL DAY TO MONTH",
            "a MAP<INT>",
            "a NUMBER",
            "a DECIMAL(40,2)",
            "a ARRAY<INT",
            "a INT b INT",
            "a INT COMMENT 'x",
            "`a INT",
            "a INT NOT NULLS",
            "s STRUCT<x: INT COMMENT 'y' NOT NULL>",
        ] {
            assert!(Schema::parse_ddl(bad).is_err(), "{bad}");
        }
    }
}
