//! Casts. [`OnError`] selects the result for a value that does not fit the target type.

pub mod ansi;
mod from_text;
mod nested;
mod numeric;
mod time;
mod to_string;
pub mod variant;

pub(in crate::table) use ansi::{FIX, invalid};
pub use ansi::{OnError, arithmetic_overflow, is_allowed, is_allowed_without_ansi, wrapped};
pub(in crate::table::expr) use numeric::TWO_63;
pub use numeric::rescale;

use from_text::from_text;
use nested::nested;
pub(in crate::table) use numeric::decimal_of_double;
use numeric::{from_bool, from_decimal, from_double, from_long, whole_bytes};
use time::to_timestamp;
use to_string::{DecimalText, to_string};
use variant::{from_variant, to_variant};

use super::cell::Cell;
use super::compile::{Compiled, bytes_fn, decimal_fn, from_cells};
use crate::table::datetime::Tz;
use crate::table::types::{DataType, Physical};

/// Compiles a cast of `inner` from one type to another. The types must pass [`is_allowed`] or
/// [`is_allowed_without_ansi`].
pub fn compile(
    inner: Compiled,
    from: &DataType,
    to: &DataType,
    on_error: OnError,
    zone: Tz,
) -> Compiled {
    if *from == DataType::Null {
        // The value is always NULL, but evaluating it may fail.
        return from_cells(to.physical(), move |cx| inner.cell(cx).map(|_| Cell::Null));
    }
    if *to == DataType::Variant {
        return to_variant(inner, from.clone());
    }
    if *from == DataType::Variant {
        return from_variant(inner, to, on_error, zone);
    }
    if *to == DataType::String {
        let decimals = match on_error {
            OnError::Wrap => DecimalText::Scientific,
            OnError::Fail | OnError::Null => DecimalText::Plain,
        };
        return to_string(inner, from.clone(), zone, decimals);
    }
    if let (true, DataType::Binary) = (from.is_integral(), to) {
        let (from, value) = (from.clone(), inner.long());
        return bytes_fn(move |cx| Ok(value(cx)?.map(|v| whole_bytes(v, &from, cx.arena))));
    }
    if from.is_nested() && from != to {
        return nested(inner, from, to, on_error, zone);
    }
    if let (DataType::Timestamp, Physical::Double | Physical::Decimal) = (from, to.physical()) {
        // As a number, a timestamp is in seconds, with a fraction.
        let micros = DataType::Decimal(20, 6);
        let seconds = match inner {
            Compiled::Long(f) => decimal_fn(move |cx| Ok(f(cx)?.map(i128::from))),
            other => other,
        };
        return compile(seconds, &micros, to, on_error, zone);
    }
    if let (DataType::Time(_), Physical::Decimal) = (from, to.physical()) {
        // As a number, a time is in seconds since midnight, with a fraction.
        let nanos = DataType::Decimal(14, 9);
        let seconds = match inner {
            Compiled::Long(f) => decimal_fn(move |cx| Ok(f(cx)?.map(i128::from))),
            other => other,
        };
        return compile(seconds, &nanos, to, on_error, zone);
    }
    if *to == DataType::Timestamp && matches!(from.physical(), Physical::Double | Physical::Decimal)
    {
        return to_timestamp(inner, from, on_error);
    }
    // In casts between intervals and numbers, an overflow is an error also with ANSI mode off.
    let number_of = |a: &DataType, b: &DataType| a.is_interval() && b.is_numeric();
    let on_error = match on_error {
        OnError::Wrap if number_of(from, to) || number_of(to, from) => OnError::Fail,
        // A time that does not fit a number is NULL.
        OnError::Wrap if matches!(from, DataType::Time(_)) => OnError::Null,
        other => other,
    };
    let (from, to) = (from.clone(), to.clone());
    match inner {
        Compiled::Bytes(f) => from_text(f, to, on_error, zone),
        Compiled::Bool(f) => from_bool(f, to, on_error),
        Compiled::Long(f) => from_long(f, from, to, on_error, zone),
        Compiled::Double(f) => from_double(f, to, on_error),
        Compiled::Decimal(f) => {
            let physical = to.physical();
            from_decimal(f, &from, to, physical, on_error)
        }
    }
}
