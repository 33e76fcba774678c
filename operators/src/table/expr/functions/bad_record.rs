//! What `from_avro` and `from_protobuf` make of a record that cannot be decoded.

use super::json::check_mode;
use super::record_options::Options;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Field};
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;
use std::fmt::Display;

use DataType as T;

/// The option that names the field with the reason why a record could not be decoded.
pub const ERROR_COLUMN: &str = "columnNameOfError";

/// What a bad record gives, by the options `mode` and `columnNameOfError`.
#[derive(Clone, Copy, Debug)]
pub struct BadRecords {
    is_fail_fast: bool,
    /// Whether the last field of the result is the reason why the record could not be decoded.
    pub has_error_column: bool,
}

impl BadRecords {
    /// Reads the options, and changes the type of the result accordingly.
    pub fn read(options: &Options<'_>, data_type: &mut DataType) -> PlanResult<Self> {
        let mode = options.get("mode");
        check_mode(options.name, mode)?;
        let is_fail_fast = mode.is_none_or(|mode| !mode.eq_ignore_ascii_case("PERMISSIVE"));
        if !is_fail_fast {
            all_nullable(data_type);
        }
        let column = options.get(ERROR_COLUMN);
        if let Some(column) = column {
            add_error_column(options.name, column, is_fail_fast, data_type)?;
        }
        Ok(Self { is_fail_fast, has_error_column: column.is_some() })
    }

    /// The result for a bad record of this length: an error with the given condition, or NULL. `width`
    /// is the number of fields of a result that is a struct. The reason is formatted only if it is
    /// part of the result.
    #[cold]
    pub fn result<'a>(
        self,
        condition: &'static str,
        length: usize,
        reason: &dyn Display,
        width: Option<usize>,
        arena: &'a Bump,
    ) -> Result<Cell<'a>, Box<EvalError>> {
        if self.is_fail_fast {
            return failed(
                condition,
                format!("a message of {length} bytes cannot be decoded: {reason}"),
                "Use the mode PERMISSIVE to get NULL instead",
            );
        }
        let reason = self.has_error_column.then(|| reason.to_string());
        Ok(width.map_or(Cell::Null, |width| all_null(width, reason.as_deref(), arena)))
    }
}

/// Adds the field for the reason why a record could not be decoded.
fn add_error_column(
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
fn all_null<'a>(width: usize, reason: Option<&str>, arena: &'a Bump) -> Cell<'a> {
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::new(&mut out, width);
    if let Some(reason) = reason {
        writer.bytes(width - 1, reason.as_bytes());
    }
    Cell::Bytes(out.into_bump_slice())
}
