//! Schema merging: files with different schemas are read as the union of their columns, matched by
//! name.

use crate::table::types::{DataType, Field, Schema};

/// Merges two schemas. A column that both schemas have gets a type for the values of both. Fails if
/// there is no such type.
pub fn merged(left: Schema, right: Schema) -> Result<Schema, String> {
    Ok(Schema::new(fields(left.fields, right.fields)?))
}

fn fields(mut left: Vec<Field>, right: Vec<Field>) -> Result<Vec<Field>, String> {
    // Columns of one schema whose names differ only in case stay separate.
    let known = left.len();
    for field in right {
        let lower = field.name.to_lowercase();
        match left[..known].iter_mut().find(|known| known.name.to_lowercase() == lower) {
            None => left.push(field),
            Some(known) => {
                let before = std::mem::replace(&mut known.data_type, DataType::Null);
                known.data_type = types(before, field.data_type)
                    .map_err(|reason| format!("column `{}`: {reason}", field.name))?;
            }
        }
    }
    Ok(left)
}

fn types(left: DataType, right: DataType) -> Result<DataType, String> {
    Ok(match (left, right) {
        (left, right) if left == right => left,
        (DataType::Struct(left), DataType::Struct(right)) => DataType::Struct(fields(left, right)?),
        (DataType::Array(left), DataType::Array(right)) => {
            DataType::Array(Box::new(types(*left, *right)?))
        }
        (DataType::Map(key, value), DataType::Map(other_key, other_value)) => {
            let key = types(*key, *other_key)?;
            DataType::Map(Box::new(key), Box::new(types(*value, *other_value)?))
        }
        (DataType::Decimal(p, s), DataType::Decimal(q, t)) if s == t => {
            DataType::Decimal(p.max(q), s)
        }
        (left, right) => return Err(format!("{left} and {right} cannot be merged")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(left: &str, right: &str) -> Result<String, String> {
        let of = |ddl| Schema::parse_ddl(ddl).unwrap();
        let merged = merged(of(left), of(right))?;
        let field = |f: &Field| format!("{} {}", f.name, f.data_type);
        Ok(merged.fields.iter().map(field).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn columns_are_merged_by_name_at_every_depth() {
        assert_eq!(both("a INT, b STRING", "c DATE, A INT").unwrap(), "a INT, b STRING, c DATE");
        assert_eq!(
            both("s ARRAY<STRUCT<x: INT>>", "s ARRAY<STRUCT<y: INT, x: INT>>").unwrap(),
            "s ARRAY<STRUCT<x: INT, y: INT>>"
        );
        assert_eq!(both("a DECIMAL(5,2)", "a DECIMAL(9,2)").unwrap(), "a DECIMAL(9,2)");
        let error = both("s STRUCT<x: INT>", "s STRUCT<x: STRING>").unwrap_err();
        assert_eq!(error, "column `s`: column `x`: INT and STRING cannot be merged");
        assert!(both("a DECIMAL(5,2)", "a DECIMAL(9,3)").is_err());
    }
}
