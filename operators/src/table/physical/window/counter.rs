//! Differences of a counter that only grows until it is reset: `counter_diff`.

use super::{Expression, HeldRow};
use crate::table::expr::functions::order_doubles;
use crate::table::physical::stages::Scratch;
use crate::table::types::DataType;
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::cmp::Ordering;

/// The increase of the counter since the previous row that has a value, for the rows of a
/// partition. It is NULL for the first row, and where the counter was reset: its value is less, or
/// its start time is later.
pub(super) fn differences(
    value: &Expression,
    start: Option<&Expression>,
    rows: &[HeldRow],
    scratch: &mut Scratch,
) -> Result<Vec<Value>, EngineError> {
    let mut previous: Option<(Value, Value)> = None;
    let mut results = Vec::with_capacity(rows.len());
    for held in rows {
        let counter = value.value(scratch, &held.row)?;
        let start = start.map_or(Ok(Value::Null), |start| start.value(scratch, &held.row))?;
        scratch.reset();
        if counter == Value::Null {
            results.push(Value::Null);
            continue;
        }
        if is_negative(&counter) {
            return Err(EngineError::operator(
                "COUNTER_DIFF_NEGATIVE_COUNTER_VALUE",
                "a value of `counter_diff` is negative".to_string(),
                "A counter starts at 0: filter the rows, or use lag(x) for other values",
            ));
        }
        results.push(match &previous {
            Some((before, started)) if !is_reset((started, &start))? => {
                difference(before, &counter, &value.data_type)
            }
            _ => Value::Null,
        });
        previous = Some((counter, start));
    }
    Ok(results)
}

/// Whether the counter was started again. A start time that is NULL does not count.
fn is_reset((before, now): (&Value, &Value)) -> Result<bool, EngineError> {
    let (Value::Long(before), Value::Long(now)) = (before, now) else { return Ok(false) };
    if now < before {
        return Err(EngineError::operator(
            "COUNTER_DIFF_START_TIME_DECREASED",
            "a start time of `counter_diff` is earlier than that of the row before".to_string(),
            "Order the rows by time, and write each counter into its own partition",
        ));
    }
    Ok(now > before)
}

fn is_negative(counter: &Value) -> bool {
    match counter {
        Value::Long(v) => *v < 0,
        Value::Double(v) => *v < 0.0,
        Value::Decimal(v) => *v < 0,
        _ => false,
    }
}

/// The increase; NULL if the value is less.
fn difference(before: &Value, now: &Value, data_type: &DataType) -> Value {
    match (before, now) {
        (Value::Long(before), Value::Long(now)) if now >= before => Value::Long(now - before),
        (Value::Decimal(before), Value::Decimal(now)) if now >= before => {
            Value::Decimal(now - before)
        }
        (Value::Double(before), Value::Double(now))
            if order_doubles(*now, *before) != Ordering::Less =>
        {
            Value::Double(match data_type {
                DataType::Float => f64::from(*now as f32 - *before as f32),
                _ => now - before,
            })
        }
        _ => Value::Null,
    }
}
