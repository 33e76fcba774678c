//! The types that a function accepts for an argument, and the implicit casts to them.

use super::{Rules, T};
use crate::table::types::DataType;
use std::fmt;

/// A set of types that a function accepts for an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Any type.
    Any,
    /// BOOLEAN.
    Boolean,
    /// INT.
    Int,
    /// BIGINT.
    Long,
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// A DECIMAL of any precision and scale.
    Decimal,
    /// TINYINT to BIGINT.
    Integral,
    /// Any number.
    Number,
    /// STRING.
    String,
    /// BINARY.
    Binary,
    /// DATE.
    Date,
    /// TIMESTAMP.
    Timestamp,
    /// TIMESTAMP_NTZ.
    TimestampNtz,
    /// TIMESTAMP or TIMESTAMP_NTZ.
    AnyTimestamp,
    /// A year-month interval with any units.
    YearMonthInterval,
    /// A day-time interval with any units.
    DayTimeInterval,
    /// An INTERVAL of months, days and microseconds.
    CalendarInterval,
    /// TINYINT.
    Byte,
    /// SMALLINT.
    Short,
    /// An array of any elements.
    Array,
    /// A map.
    Map,
    /// A struct.
    Struct,
    /// An array of STRING.
    Strings,
    /// An array of arrays.
    Arrays,
    /// Any of several sets.
    OneOf(&'static [Accepts]),
    /// Any of several sets, without implicit casts of other types. An untyped NULL is accepted.
    Only(&'static [Accepts]),
    /// An array index: INT, SMALLINT or TINYINT. An untyped NULL is not accepted.
    Index,
    /// A number of days: INT, SMALLINT or TINYINT, or a STRING.
    Days,
}

impl Accepts {
    /// Whether a type is in the set, without a cast.
    pub fn takes(self, data_type: &DataType) -> bool {
        match self {
            Self::Any => true,
            Self::Decimal => matches!(data_type, T::Decimal(..)),
            Self::Integral => data_type.is_integral(),
            Self::Number => data_type.is_numeric(),
            Self::AnyTimestamp => matches!(data_type, T::Timestamp | T::TimestampNtz),
            Self::YearMonthInterval => matches!(data_type, T::YearMonthInterval(..)),
            Self::DayTimeInterval => matches!(data_type, T::DayTimeInterval(..)),
            Self::Array => matches!(data_type, T::Array(_)),
            Self::Arrays => {
                matches!(data_type, T::Array(element) if matches!(**element, T::Array(_)))
            }
            Self::Map => matches!(data_type, T::Map(..)),
            Self::Struct => matches!(data_type, T::Struct(_)),
            Self::OneOf(kinds) | Self::Only(kinds) => {
                kinds.iter().any(|kind| kind.takes(data_type))
            }
            Self::Days | Self::Index => matches!(data_type, T::Int | T::Short | T::Byte),
            exact => exact.exact().is_some_and(|exact| exact == *data_type),
        }
    }

    /// The only type of the set; `None` if the set has several.
    fn exact(self) -> Option<DataType> {
        Some(match self {
            Self::Boolean => T::Boolean,
            Self::Byte => T::Byte,
            Self::Short => T::Short,
            Self::Int => T::Int,
            Self::Long => T::Long,
            Self::Float => T::Float,
            Self::Double => T::Double,
            Self::String => T::String,
            Self::Binary => T::Binary,
            Self::Date => T::Date,
            Self::Timestamp => T::Timestamp,
            Self::TimestampNtz => T::TimestampNtz,
            Self::CalendarInterval => T::CalendarInterval,
            Self::Strings => T::Array(Box::new(T::String)),
            _ => return None,
        })
    }

    /// The type that an untyped NULL is cast to.
    pub fn default_type(self) -> DataType {
        match self {
            Self::Any => T::Null,
            Self::Decimal => T::Decimal(38, 18),
            Self::Integral => T::Int,
            Self::Number => T::Double,
            Self::AnyTimestamp => T::Timestamp,
            Self::YearMonthInterval => T::YearMonthInterval(0, 1),
            Self::DayTimeInterval => T::DayTimeInterval(0, 3),
            Self::Array => T::Array(Box::new(T::Null)),
            Self::Arrays => T::Array(Box::new(T::Array(Box::new(T::Null)))),
            Self::Map => T::Map(Box::new(T::Null), Box::new(T::Null)),
            Self::Struct => T::Struct(Vec::new()),
            Self::OneOf(kinds) | Self::Only(kinds) => {
                kinds.first().map_or(T::Null, |kind| kind.default_type())
            }
            Self::Days | Self::Index => T::Int,
            exact => exact.exact().unwrap_or(T::Null),
        }
    }

    /// The type that an argument is implicitly cast to; `None` if the argument is not accepted.
    pub fn convert(self, from: &DataType) -> Option<DataType> {
        if self.takes(from) {
            return Some(from.clone());
        }
        let ansi = Rules::current().ansi;
        match (from, self) {
            (_, Self::Index) => None,
            (T::Null, _) => Some(self.default_type()),
            (T::String, Self::Days) => Some(T::Int),
            (_, Self::Only(_) | Self::Days) => None,
            (_, Self::OneOf(kinds)) => one_of(from, kinds, ansi),
            (from, Self::Decimal) if from.is_numeric() => Some(match from {
                T::Float => T::Decimal(14, 7),
                T::Double => T::Decimal(30, 15),
                whole => whole.as_decimal().map_or(T::Decimal(38, 18), |(p, s)| T::Decimal(p, s)),
            }),
            (T::String, Self::Decimal | Self::Number | Self::AnyTimestamp) => {
                Some(self.default_type())
            }
            (T::Date, Self::AnyTimestamp) => Some(T::Timestamp),
            (from, exact) => exact.exact().and_then(|to| to_type(from, &to)),
        }
    }
}

impl fmt::Display for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Any => "any type",
            Self::Decimal => "DECIMAL",
            Self::Integral => "a whole number",
            Self::Number => "a number",
            Self::AnyTimestamp => "a timestamp",
            Self::YearMonthInterval => "an interval of months",
            Self::DayTimeInterval => "an interval of days and times",
            Self::Array => "an array",
            Self::Arrays => "an array of arrays",
            Self::Map => "a map",
            Self::Struct => "a struct",
            Self::Days | Self::Index => "INT",
            Self::OneOf(kinds) | Self::Only(kinds) => {
                for (i, kind) in kinds.iter().enumerate() {
                    write!(f, "{}{kind}", if i > 0 { " or " } else { "" })?;
                }
                return Ok(());
            }
            exact => return exact.exact().map_or(Ok(()), |exact| write!(f, "{exact}")),
        };
        f.write_str(text)
    }
}

fn one_of(from: &DataType, kinds: &[Accepts], ansi: bool) -> Option<DataType> {
    let possible: Vec<_> = kinds.iter().filter_map(|kind| kind.convert(from)).collect();
    if !ansi {
        return possible.into_iter().next();
    }
    // Selects the first type that can be implicitly cast to all the others.
    let closest = possible.iter().find(|one| possible.iter().all(|to| to_type(one, to).is_some()));
    match closest {
        Some(T::Float) if possible.contains(&T::Double) => Some(T::Double),
        closest => closest.cloned(),
    }
}

/// Returns `to` if Spark implicitly casts a value of type `from` to it, else `None`. ANSI mode and
/// legacy mode differ.
pub fn to_type(from: &DataType, to: &DataType) -> Option<DataType> {
    let allowed = from == to
        || *from == T::Null
        || match Rules::current().ansi {
            true => ansi(from, to),
            false => lenient(from, to),
        };
    allowed.then(|| to.clone())
}

fn ansi(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (T::String, to) => !to.is_nested() && !matches!(to, T::Null | T::CalendarInterval),
        (from, T::String) => !from.is_nested(),
        (from, to) => store_assignable(from, to),
    }
}

fn store_assignable(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (from, to) if from == to || *from == T::Null => true,
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        (from, T::String) => !from.is_nested(),
        (from, to) if from.is_datetime() && to.is_datetime() => true,
        (T::Array(a), T::Array(b)) => store_assignable(a, b),
        (T::Map(ak, av), T::Map(bk, bv)) => store_assignable(ak, bk) && store_assignable(av, bv),
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| store_assignable(&a.data_type, &b.data_type))
        }
        (T::DayTimeInterval(..), T::DayTimeInterval(..)) => true,
        (T::YearMonthInterval(..), T::YearMonthInterval(..)) => true,
        _ => false,
    }
}

fn lenient(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        (from, to) if from.is_datetime() && to.is_datetime() => true,
        (T::String, to) => {
            to.is_numeric() || to.is_datetime() || matches!(to, T::Binary | T::Time(_))
        }
        (from, T::String) => !from.is_nested() && *from != T::CalendarInterval,
        (T::Array(a), T::Array(b)) => to_type(a, b).is_some(),
        (T::Map(ak, av), T::Map(bk, bv)) => to_type(ak, bk).is_some() && to_type(av, bv).is_some(),
        (T::DayTimeInterval(..), T::DayTimeInterval(..)) => true,
        (T::YearMonthInterval(..), T::YearMonthInterval(..)) => true,
        _ => false,
    }
}
