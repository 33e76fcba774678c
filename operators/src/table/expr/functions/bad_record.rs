//! What `from_avro` and `from_protobuf` make of a record that cannot be decoded.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Field};
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use DataType as T;

/// The option that names the field with the reason why a record could not be decoded.
pub const ERROR_COLUMN: &str = "columnNameOfError";

/// Adds the field for the reason why a record could not be decoded.
pub fn add_error_column(
    name: &str,
    column: &str,
    is_fail_fast: bool,
    data_type: &mut DataType,
) -> PlanResult<()> {
    let refused = |problem: &str| {
        let reason = format!("`{name}`: the option '{ERROR_COLUMN}' {problem}");
        Err(PlanError::new("INVALID_OPTION_VALUE", reason, "map('mode', 'PERMISSIVE', …)"))
    };
    let T::Struct(fields) = data_type else { return refused("needs a schema that is a record") };
    if is_fail_fast {
        return refused("needs the mode PERMISSIVE");
    }
    if fields.iter().any(|field| field.name.eq_ignore_ascii_case(column)) {
        return refused("names a field of the record");
    }
    fields.push(Field::new(column, T::String, true));
    Ok(())
}

/// Makes all fields of all structs nullable. In mode PERMISSIVE a bad record gives NULL fields.
pub fn all_nullable(data_type: &mut DataType) {
    match data_type {
        T::Array(element) => all_nullable(element),
        T::Map(_, value) => all_nullable(value),
        T::Struct(fields) => {
            for field in fields {
                field.nullable = true;
                all_nullable(&mut field.data_type);
            }
        }
        _ => {}
    }
}

/// A struct whose fields are all NULL, except the last one if a reason is given.
pub fn all_null<'a>(width: usize, reason: Option<&str>, arena: &'a Bump) -> Cell<'a> {
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::new(&mut out, width);
    if let Some(reason) = reason {
        writer.bytes(width - 1, reason.as_bytes());
    }
    Cell::Bytes(out.into_bump_slice())
}
