//! The expression `extract(field FROM source)`: a field of a date, timestamp or interval.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::{Node, Resolved};
use crate::table::types::{DAY_TIME_UNITS, DataType, YEAR_MONTH_UNITS};
use crate::table::value::Value;

use DataType as T;

/// Resolves `extract(field FROM source)` to the function that computes the field. An unknown field
/// is an error.
pub fn extract(field: &str, source: Resolved) -> PlanResult<Resolved> {
    let name = match field.to_ascii_uppercase().as_str() {
        "YEAR" | "Y" | "YEARS" | "YR" | "YRS" => "year",
        "YEAROFWEEK" => "datetime_yearofweek",
        "QUARTER" | "QTR" => "quarter",
        "MONTH" | "MON" | "MONS" | "MONTHS" => "month",
        "WEEK" | "W" | "WEEKS" => "weekofyear",
        "DAY" | "D" | "DAYS" => "dayofmonth",
        "DAYOFWEEK" | "DOW" => "dayofweek",
        "DAYOFWEEK_ISO" | "DOW_ISO" => {
            let day = super::super::resolve("weekday", vec![source])?;
            let one = Resolved::literal(Value::Long(1), T::Int);
            return super::super::resolve("+", vec![day, one]);
        }
        "DOY" => "dayofyear",
        "HOUR" | "H" | "HOURS" | "HR" | "HRS" => "hour",
        "MINUTE" | "M" | "MIN" | "MINS" | "MINUTES" => "minute",
        "SECOND" | "S" | "SEC" | "SECONDS" | "SECS" => "second_fraction",
        _ => "",
    };
    if source.data_type.is_interval() || source.data_type == T::CalendarInterval {
        return extract_from_interval(field, name, source);
    }
    let of_time = matches!(name, "hour" | "minute" | "second_fraction");
    match name {
        _ if matches!(source.data_type, T::Time(_)) && !of_time => Err(no_field(field, &source)),
        "" => Err(no_field(field, &source)),
        name => super::super::resolve(name, vec![source]),
    }
}

fn extract_from_interval(field: &str, name: &str, source: Resolved) -> PlanResult<Resolved> {
    let (unit, to) = match name {
        "year" => ("YEAR", T::Int),
        "month" => ("MONTH", T::Byte),
        "dayofmonth" => ("DAY", T::Int),
        "hour" => ("HOUR", T::Byte),
        "minute" => ("MINUTE", T::Byte),
        "second_fraction" => ("SECOND", T::Decimal(8, 6)),
        _ => ("", T::Null),
    };
    let there = match source.data_type {
        T::YearMonthInterval(from, to) => YEAR_MONTH_UNITS[from.into()..=to.into()].contains(&unit),
        T::DayTimeInterval(from, to) => DAY_TIME_UNITS[from.into()..=to.into()].contains(&unit),
        T::CalendarInterval => !unit.is_empty(),
        _ => false,
    };
    if !there {
        return Err(no_field(field, &source));
    }
    let nullable = source.nullable;
    let unit = Resolved::literal(Value::String(unit.into()), T::String);
    let part = match source.data_type {
        T::CalendarInterval => "calendar_interval_part",
        _ => "interval_part",
    };
    Ok(Resolved { node: Node::Call(part, vec![source, unit]), data_type: to, nullable })
}

fn no_field(field: &str, source: &Resolved) -> PlanError {
    PlanError::new(
        "INVALID_EXTRACT_FIELD",
        format!("`{field}` cannot be extracted from {}", source.data_type),
        "Fields: YEAR, QUARTER, MONTH, WEEK, DAY, DOW, DOY, HOUR, MINUTE, SECOND",
    )
}
