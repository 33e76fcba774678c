//! Properties of functions by name, for the expression compiler and the optimiser.

use super::{all, registry::Build, seed_index};
use crate::table::expr::{Resolved, lower};

/// Whether a name is an infix operator.
pub fn is_operator(name: &str) -> bool {
    matches!(
        name,
        "+" | "-"
            | "*"
            | "/"
            | "%"
            | "div"
            | "="
            | "<>"
            | "<"
            | "<="
            | ">"
            | ">="
            | "<=>"
            | "and"
            | "or"
            | "&"
            | "|"
            | "^"
    )
}

/// The name of the expression node for `try_` functions that return NULL only for an error of the
/// operation itself. The node for those that return NULL for any error is named `try`.
pub const TRY_RESULT: &str = "try_result";

/// Whether an error of an operand of a `try_` function fails the query. As in Spark, this depends on
/// the types that the operands have before implicit casts.
pub(super) fn fails_of_operands(name: &str, args: &[Resolved]) -> bool {
    match name {
        "+" | "-" | "*" | "/" | "%" => args.iter().all(|arg| arg.data_type.is_numeric()),
        "parse_url" | "to_date" | "to_number" | "to_timestamp" | "url_decode" | "validate_utf8" => {
            true
        }
        _ => false,
    }
}

/// Whether a function that is evaluated on cells gets the raw bytes of its text arguments. Other
/// functions on cells get texts in which invalid UTF-8 has been replaced.
pub(super) fn keeps_bytes(name: &str) -> bool {
    matches!(
        name,
        "hex"
            | "hash"
            | "xxhash64"
            | "repeat"
            | "elt"
            | "left"
            | "right"
            | "overlay"
            | "locate"
            | "instr"
            | "bit_length"
            | "substring_index"
            | "map"
            | "array_contains"
            | "array_position"
            | "array_remove"
            | "array_append"
            | "array_prepend"
            | "array_repeat"
            | "map_contains_key"
            | "map_element"
            | "is_valid_utf8"
            | "validate_utf8"
            | "make_valid_utf8"
    )
}

/// Whether a function is known to return NULL if any of its arguments is NULL.
pub fn is_null_of_null(name: &str) -> bool {
    // For these functions Spark still evaluates the other arguments, unless all of them are
    // constants.
    const CONSTANTS_ALONE: [&str; 5] =
        ["regexp_extract_all", "regexp_count", "regexp_substr", "regexp_instr", "str_to_map"];
    crate::table::expr::null_propagation::is_strict(name)
        || CONSTANTS_ALONE.contains(&name)
        || name != "sequence" && all().any(|f| f.name == name && matches!(f.build, Build::Cells(_)))
}

/// Whether a function evaluates this argument only for some rows, as `if` and `coalesce` do.
/// Functions that skip an argument because another one is NULL do not count.
pub fn may_leave_out(name: &str, index: usize) -> bool {
    match &*lower(name) {
        "and" | "coalesce" | "decode" | "elt" | "if" | "ifnull" | "nvl" | "nvl2" | "or" => {
            index > 0
        }
        // If the unit is invalid, the result is NULL, even if the other argument fails.
        "date_trunc" => index == 1,
        "trunc" => index == 0,
        _ => false,
    }
}

/// Whether a function, by its canonical name, is deterministic: equal arguments always give equal
/// results.
pub fn is_deterministic(name: &str) -> bool {
    name != "current_timestamp" && !is_random(name)
}

/// Whether a function, by its canonical name, returns random values.
pub fn is_random(name: &str) -> bool {
    seed_index(name).is_some()
}
