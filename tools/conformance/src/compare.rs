//! Converts JSON values of cases to values and back, and compares results.

use base64::prelude::{BASE64_STANDARD, Engine};
use millstream::table::datetime::{Tz, parse_date, parse_timestamp};
use millstream::table::text::number::decimal;
use millstream::table::types::DataType;
use millstream::table::value::{Value, decimal_text};
use serde_json::{Number, Value as Json};

/// Converts a case's value to a value of a type.
pub fn to_value(json: &Json, data_type: &DataType) -> Result<Value, String> {
    let wrong = || format!("{json} is not a {data_type}");
    let text = || json.as_str().ok_or_else(wrong);
    Ok(match (json, data_type) {
        (Json::Null, _) => Value::Null,
        (_, DataType::Boolean) => Value::Boolean(json.as_bool().ok_or_else(wrong)?),
        (_, t) if t.is_integral() => Value::Long(json.as_i64().ok_or_else(wrong)?),
        (Json::String(text), DataType::Double | DataType::Float) => {
            Value::Double(text.parse().map_err(|_| wrong())?)
        }
        (_, DataType::Double | DataType::Float) => Value::Double(json.as_f64().ok_or_else(wrong)?),
        (_, DataType::Decimal(..)) => {
            Value::Decimal(decimal(text()?, data_type).ok().flatten().ok_or_else(wrong)?)
        }
        (_, DataType::String) => Value::String(text()?.to_string()),
        (_, DataType::Binary) => {
            Value::Binary(BASE64_STANDARD.decode(text()?).map_err(|_| wrong())?)
        }
        (_, DataType::Date) => Value::Long(parse_date(text()?).ok_or_else(wrong)?),
        (_, DataType::Timestamp | DataType::TimestampNtz) => {
            Value::Long(parse_timestamp(text()?, Some(Tz::UTC)).ok_or_else(wrong)?)
        }
        (Json::Array(items), DataType::Array(element)) => Value::Array(
            items.iter().map(|item| to_value(item, element)).collect::<Result<_, _>>()?,
        ),
        (Json::Object(map), DataType::Struct(fields)) => {
            let field = |f: &millstream::table::types::Field| {
                to_value(map.get(&f.name).unwrap_or(&Json::Null), &f.data_type)
            };
            Value::Struct(fields.iter().map(field).collect::<Result<_, _>>()?)
        }
        (Json::Object(map), DataType::Map(key, value)) if **key == DataType::String => {
            let entry = |(name, json): (&String, &Json)| {
                Ok::<_, String>((Value::String(name.clone()), to_value(json, value)?))
            };
            Value::Map(map.iter().map(entry).collect::<Result<_, _>>()?)
        }
        _ => return Err(wrong()),
    })
}

/// Converts a result's value to the form used in cases.
pub fn value_json(value: &Value, data_type: &DataType) -> Json {
    match (value, data_type) {
        (Value::Null, _) => Json::Null,
        (Value::Boolean(v), _) => Json::from(*v),
        (Value::Long(_), DataType::Date) => Json::from(value.display(&DataType::Date, Tz::UTC)),
        (Value::Long(_), DataType::Timestamp | DataType::TimestampNtz) => {
            let text = value
                .display(&DataType::TimestampNtz, Tz::UTC)
                .unwrap_or_default()
                .replace(' ', "T");
            Json::from(format!("{text}Z"))
        }
        (Value::Long(v), _) => Json::from(*v),
        (Value::Double(v), _) => Number::from_f64(*v).map_or_else(
            || {
                let sign = if *v < 0.0 { "-Infinity" } else { "Infinity" };
                Json::from(if v.is_nan() { "NaN" } else { sign })
            },
            Json::Number,
        ),
        (Value::Decimal(v), DataType::Decimal(_, scale)) => Json::from(decimal_text(*v, *scale)),
        (Value::Decimal(v), _) => Json::from(v.to_string()),
        (Value::String(v), _) => Json::from(v.as_str()),
        (Value::Binary(v), _) => Json::from(BASE64_STANDARD.encode(v)),
        (Value::Array(items), DataType::Array(element)) => {
            Json::Array(items.iter().map(|item| value_json(item, element)).collect())
        }
        (Value::Struct(items), DataType::Struct(fields)) => {
            let pairs = fields.iter().zip(items);
            Json::Object(
                pairs.map(|(f, v)| (f.name.clone(), value_json(v, &f.data_type))).collect(),
            )
        }
        (Value::Map(entries), DataType::Map(key, of)) => {
            let pairs = entries
                .iter()
                .map(|(k, v)| (k.display(key, Tz::UTC).unwrap_or_default(), value_json(v, of)));
            Json::Object(pairs.collect())
        }
        (Value::Array(_) | Value::Map(_) | Value::Struct(_), _) => Json::Null,
    }
}

/// Whether two values are equal; doubles within a relative error of 1e-9.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            (a - b).abs() <= 1e-12 + 1e-9 * a.abs().max(b.abs())
        }
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Whether the list contains a row.
pub fn is_among(row: &Json, rows: &[Json]) -> bool {
    rows.iter().any(|other| same(row, other))
}

/// Compares results as lists or as multisets.
pub fn same_rows(expected: &[Json], got: &[Json], ordered: bool) -> bool {
    if expected.len() != got.len() {
        return false;
    }
    if ordered {
        return expected.iter().zip(got).all(|(a, b)| same(a, b));
    }
    let mut rest: Vec<&Json> = got.iter().collect();
    expected.iter().all(|wanted| {
        let at = rest.iter().position(|row| same(wanted, row));
        at.map(|at| rest.swap_remove(at)).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_comparison_finds_differences() {
        let rows = [json!({"a": 1, "x": 0.1}), json!({"a": 1, "x": 0.1})];
        assert!(same_rows(
            &rows,
            &[json!({"x": 0.1, "a": 1}), json!({"x": 0.100_000_000_000_01, "a": 1})],
            false
        ));
        assert!(!same_rows(&rows, &rows[..1], false), "repeated rows count");
        assert!(!same_rows(&[json!({"a": 1})], &[json!({"a": 1.0})], false), "1 is not 1.0");
        let (up, down) = ([json!(1), json!(2)], [json!(2), json!(1)]);
        assert!(same_rows(&up, &down, false) && !same_rows(&up, &down, true));
    }
}
