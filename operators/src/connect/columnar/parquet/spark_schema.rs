//! The schema that Spark stores in a file's footer, as JSON. It has types that Parquet lacks, such
//! as intervals.

use crate::table::types::{DataType, Field, Schema};
use parquet::file::metadata::KeyValue;
use serde_json::{Value as Json, json};

/// The key of the schema in the footer's metadata.
const KEY: &str = "org.apache.spark.sql.parquet.row.metadata";

/// Decodes Spark's schema from the footer's metadata. Returns `None` if it is missing or malformed,
/// has no columns, or has a type that is not supported.
pub fn spark_schema(notes: &[KeyValue]) -> Option<Schema> {
    let text = notes.iter().find(|note| note.key == KEY)?.value.as_ref()?;
    match data_type(&serde_json::from_str(text).ok()?)? {
        DataType::Struct(fields) if !fields.is_empty() => Some(Schema::new(fields)),
        _ => None,
    }
}

/// The metadata entry for the schema of a file that is written.
pub fn note(fields: &[Field]) -> KeyValue {
    KeyValue::new(KEY.to_string(), of_fields(&mut fields.iter()).to_string())
}

fn data_type(json: &Json) -> Option<DataType> {
    let inner = |key: &str| data_type(json.get(key)?).map(Box::new);
    if let Json::String(name) = json {
        return scalar(name);
    }
    Some(match json.get("type")?.as_str()? {
        "array" => DataType::Array(inner("elementType")?),
        "map" => DataType::Map(inner("keyType")?, inner("valueType")?),
        "struct" => {
            let field = |field: &Json| {
                let name = field.get("name")?.as_str()?;
                Some(Field::new(name, data_type(field.get("type")?)?, true))
            };
            let fields = json.get("fields")?.as_array()?;
            DataType::Struct(fields.iter().map(field).collect::<Option<_>>()?)
        }
        "udt" => *inner("sqlType")?,
        _ => return None,
    })
}

fn scalar(name: &str) -> Option<DataType> {
    Some(match name {
        "void" | "null" => DataType::Null,
        "boolean" => DataType::Boolean,
        "byte" => DataType::Byte,
        "short" => DataType::Short,
        "integer" => DataType::Int,
        "long" => DataType::Long,
        "float" => DataType::Float,
        "double" => DataType::Double,
        "string" => DataType::String,
        "binary" => DataType::Binary,
        "date" => DataType::Date,
        "timestamp" => DataType::Timestamp,
        "timestamp_ntz" => DataType::TimestampNtz,
        _ => return interval(name).or_else(|| sized(name)),
    })
}

fn interval(name: &str) -> Option<DataType> {
    let units = name.strip_prefix("interval ")?;
    let (from, to) = units.split_once(" to ").unwrap_or((units, units));
    let of = |all: &[&str], unit: &str| {
        all.iter().position(|name| name.eq_ignore_ascii_case(unit)).map(|at| at as u8)
    };
    let range = |all: &[&str]| Some((of(all, from)?, of(all, to)?));
    use crate::table::types::{DAY_TIME_UNITS, YEAR_MONTH_UNITS};
    match range(&DAY_TIME_UNITS) {
        Some((from, to)) => Some(DataType::DayTimeInterval(from, to)),
        None => range(&YEAR_MONTH_UNITS).map(|(from, to)| DataType::YearMonthInterval(from, to)),
    }
}

/// Parses a type with parameters: `decimal(10,2)`, `varchar(5)`.
fn sized(name: &str) -> Option<DataType> {
    let (name, numbers) = name.strip_suffix(')')?.split_once('(')?;
    match name {
        "decimal" => {
            let (precision, scale) = numbers.split_once(',')?;
            let precision = precision.trim().parse().ok().filter(|p| (1..=38).contains(p))?;
            let scale = scale.trim().parse().ok().filter(|s| *s <= precision)?;
            Some(DataType::Decimal(precision, scale))
        }
        "char" | "varchar" => Some(DataType::String),
        _ => None,
    }
}

fn of_fields(fields: &mut dyn Iterator<Item = &Field>) -> Json {
    let field = |field: &Field| {
        json!({
            "name": field.name,
            "type": of_type(&field.data_type),
            "nullable": true,
            "metadata": {},
        })
    };
    json!({"type": "struct", "fields": fields.map(field).collect::<Vec<_>>()})
}

fn of_type(data_type: &DataType) -> Json {
    match data_type {
        DataType::Struct(fields) => of_fields(&mut fields.iter()),
        DataType::Array(element) => {
            json!({"type": "array", "elementType": of_type(element), "containsNull": true})
        }
        DataType::Map(key, value) => json!({
            "type": "map",
            "keyType": of_type(key),
            "valueType": of_type(value),
            "valueContainsNull": true,
        }),
        DataType::Byte => "byte".into(),
        DataType::Short => "short".into(),
        DataType::Int => "integer".into(),
        DataType::Long => "long".into(),
        other => other.to_string().to_lowercase().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spark_schema_in_the_metadata_is_read_back() {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let fields = [
            field("i", DataType::Int),
            field("d", DataType::Decimal(10, 2)),
            field("v", DataType::Null),
            field("n", DataType::TimestampNtz),
            field("t", DataType::DayTimeInterval(0, 3)),
            field("s", DataType::DayTimeInterval(3, 3)),
            field("y", DataType::YearMonthInterval(0, 1)),
            field(
                "m",
                DataType::Map(
                    Box::new(DataType::String),
                    Box::new(DataType::Array(Box::new(DataType::Struct(vec![
                        field("a", DataType::Long),
                        field("b", DataType::Byte),
                    ])))),
                ),
            ),
        ];
        let note = note(&fields);
        assert_eq!(spark_schema(&[note]), Some(Schema::new(fields.to_vec())));
    }

    #[test]
    fn unreadable_schema_metadata_is_ignored() {
        for text in [
            "",
            "{}",
            r#"{"type":"struct","fields":[{"name":"a","type":"variant"}]}"#,
            r#"{"type":"struct","fields":[{"name":"a","type":"decimal(50,2)"}]}"#,
        ] {
            assert_eq!(spark_schema(&[KeyValue::new(KEY.to_string(), text.to_string())]), None);
        }
        let varchar = r#"{"type":"struct","fields":[{"name":"a","type":"varchar(5)",
            "nullable":true,"metadata":{}}]}"#;
        let read = spark_schema(&[KeyValue::new(KEY.to_string(), varchar.to_string())]);
        assert_eq!(read.unwrap().fields[0].data_type, DataType::String);
    }
}
