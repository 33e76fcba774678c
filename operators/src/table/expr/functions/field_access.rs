//! Access to the fields of structs by name, and to entries of maps.

use super::resolve;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::coercion;
use crate::table::expr::functions::registry::unexpected;
use crate::table::expr::{Node, Resolved, lower};
use crate::table::types::DataType;
use crate::table::value::Value;

/// Resolves `x[…]` of a map or a struct, and `element_at` of a map. `element_at` of an untyped NULL
/// is an error. `None` for other types of `x`.
pub(super) fn indexed(name: &str, args: &[Resolved]) -> Option<PlanResult<Resolved>> {
    let [of, key] = args else { return None };
    let name = lower(name);
    let by_key = matches!(&*name, "getitem" | "element_at" | "try_element_at");
    match (&of.data_type, key.literal_text()) {
        // In brackets the key is cast to the map's key type. In `element_at`, both are cast to a
        // common type.
        (DataType::Map(of_key, _), _) if name == "getitem" => Some(
            coercion::expect_type(key.clone(), of_key, "a key")
                .and_then(|key| resolve("map_element", vec![of.clone(), key])),
        ),
        (DataType::Null, _) if by_key && name != "getitem" && key.data_type != DataType::Null => {
            Some(Err(unexpected(&name, "an array or a map", of)))
        }
        (DataType::Map(..), _) if by_key => Some(resolve("map_element", args.to_vec())),
        (DataType::Variant, _) if name == "getitem" => Some(Err(no_fields(of))),
        (DataType::Struct(_), Some(field)) if name == "getitem" => {
            Some(field_of(of.clone(), field))
        }
        _ => None,
    }
}

/// Resolves `x.field` on a struct, on an array of structs, or as a key of a map.
pub fn field_of(of: Resolved, field: &str) -> PlanResult<Resolved> {
    if let DataType::Map(..) = &of.data_type {
        let key = Resolved::literal(Value::String(field.to_string()), DataType::String);
        return resolve("getitem", vec![of, key]);
    }
    let (fields, in_array) = match &of.data_type {
        DataType::Struct(fields) => (fields, false),
        DataType::Array(element) => match &**element {
            DataType::Struct(fields) => (fields, true),
            _ => return Err(no_fields(&of)),
        },
        _ => return Err(no_fields(&of)),
    };
    let Some(index) = fields.iter().position(|f| f.name.eq_ignore_ascii_case(field)) else {
        let names: Vec<_> = fields.iter().map(|f| format!("`{}`", f.name)).collect();
        return Err(PlanError::new(
            "FIELD_NOT_FOUND",
            format!("`{of}` has no field `{field}`"),
            format!("Its fields: {}", names.join(", ")),
        ));
    };
    let (data_type, nullable) =
        (fields[index].data_type.clone(), of.nullable || fields[index].nullable);
    let index = Resolved::literal(Value::Long(index as i64), DataType::Int);
    let (name, data_type) = if in_array {
        ("getfields", DataType::Array(Box::new(data_type)))
    } else {
        ("getfield", data_type)
    };
    Ok(Resolved { node: Node::Call(name, vec![of, index]), data_type, nullable })
}

fn no_fields(of: &Resolved) -> PlanError {
    PlanError::new(
        "INVALID_EXTRACT_BASE_FIELD_TYPE",
        format!("`{of}` is {}, which has no fields", of.data_type),
        "",
    )
}
