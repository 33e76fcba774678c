//! Which casts are allowed, and the result for a value that does not fit the type: an error in ANSI
//! mode, NULL for `try_cast`, and with ANSI mode off the result of [`OnError::Wrap`].

use super::variant;
use crate::table::expr::compile::{Eval, EvalError, failed};
use crate::table::types::DataType;

pub(in crate::table) const FIX: &str = "Use try_cast to get NULL instead";

/// Whether Spark allows this explicit cast under ANSI rules. Returns false for casts that are not
/// implemented.
pub fn is_allowed(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (a, b) if a == b => true,
        (T::Null, _) => true,
        (from, T::Variant) => variant::is_convertible(from, variant::Nested::Arrays),
        (T::Variant, to) => variant::can_be_cast_to(to),
        (_, T::String) => true,
        (T::String, T::Array(_) | T::Map(..) | T::Struct(_) | T::Null) => false,
        (T::String, _) => true,
        (T::Array(a), T::Array(b)) => is_allowed(a, b),
        (T::Map(ak, av), T::Map(bk, bv)) => is_allowed(ak, bk) && is_allowed(av, bv),
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| is_allowed(&a.data_type, &b.data_type))
        }
        (T::DayTimeInterval(..), T::DayTimeInterval(..)) => true,
        (T::YearMonthInterval(..), T::YearMonthInterval(..)) => true,
        (T::CalendarInterval, _) | (_, T::CalendarInterval) => false,
        (T::Time(_), to) => to.is_integral() || matches!(to, T::Time(_) | T::Decimal(..)),
        (from, to) if from.is_interval() => to.is_integral(),
        (from, to) if to.is_interval() => from.is_integral(),
        (T::Boolean, to) => to.is_numeric(),
        (from, T::Boolean) => from.is_numeric(),
        (T::Date | T::TimestampNtz, T::Timestamp) | (T::Timestamp | T::TimestampNtz, T::Date) => {
            true
        }
        (T::Date | T::Timestamp, T::TimestampNtz) => true,
        (T::Timestamp | T::TimestampNtz, T::Time(_)) => true,
        (T::Timestamp, to) if to.is_numeric() => true,
        (from, T::Timestamp) if from.is_numeric() => true,
        (from, to) => from.is_numeric() && to.is_numeric(),
    }
}

/// Whether a value of a type can be stored in a column of another type, as Spark's ANSI policy of
/// store assignment allows it.
pub fn is_storable(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (a, b) if a == b => true,
        (T::Null, _) => true,
        (T::Array(a), T::Array(b)) => is_storable(a, b),
        (T::Map(ak, av), T::Map(bk, bv)) => is_storable(ak, bk) && is_storable(av, bv),
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| is_storable(&a.data_type, &b.data_type))
        }
        (T::Array(_) | T::Map(..) | T::Struct(_), _) => false,
        (_, T::String) => true,
        (T::DayTimeInterval(..), T::DayTimeInterval(..)) => true,
        (T::YearMonthInterval(..), T::YearMonthInterval(..)) => true,
        (T::Time(_), T::Time(_)) => true,
        (T::Date | T::Timestamp | T::TimestampNtz, T::Date | T::Timestamp | T::TimestampNtz) => {
            true
        }
        (from, to) => from.is_numeric() && to.is_numeric(),
    }
}

/// Whether Spark allows this explicit cast only with ANSI mode off.
pub fn is_allowed_without_ansi(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (from, T::Binary) => from.is_integral(),
        (T::Boolean, T::Timestamp) | (T::Timestamp, T::Boolean) => true,
        (T::Date, to) => to.is_numeric() || *to == T::Boolean,
        _ => false,
    }
}

/// The result of a failed cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// An error that ends the query.
    Fail,
    /// NULL: `TRY_CAST`.
    Null,
    /// With ANSI mode off: a number that is cast to an integer type keeps the lower bits that fit.
    /// A floating-point number is first limited to the range of BIGINT, or of INT for a narrower
    /// type. Most other values become NULL.
    Wrap,
}

/// Replaces an error by NULL, unless the cast must fail.
pub(super) fn soften<T>(result: Eval<T>, on_error: OnError) -> Eval<T> {
    if on_error == OnError::Fail { result } else { Ok(result.unwrap_or(None)) }
}

/// Truncates an integer to the width of a type, as with ANSI mode off.
pub fn wrapped(value: i64, to: &DataType) -> i64 {
    match to {
        DataType::Byte => i64::from(value as i8),
        DataType::Short => i64::from(value as i16),
        DataType::Int => i64::from(value as i32),
        _ => value,
    }
}

pub(in crate::table) fn invalid<T>(value: &str, to: &DataType) -> Eval<T> {
    failed(
        "CAST_INVALID_INPUT",
        format!("the value '{value}' of type STRING cannot be cast to {to}"),
        FIX,
    )
}

pub(super) fn overflow<T>(value: impl std::fmt::Display, to: &DataType) -> Eval<T> {
    failed("CAST_OVERFLOW", format!("the value {value} does not fit {to}"), FIX)
}

/// The error of an arithmetic overflow; `what` names the result.
pub fn arithmetic_overflow<T>(what: &str) -> Result<T, Box<EvalError>> {
    failed("ARITHMETIC_OVERFLOW", format!("{what} overflows"), "Cast to a wider type")
}
