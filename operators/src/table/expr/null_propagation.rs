//! Replaces the operations in `STRICT` by NULL if an operand is a constant NULL. The other operands
//! are not evaluated, so `1/0 + NULL` is not an error.
//!
//! Rows of VALUES are excluded: Spark evaluates them before the replacement, so their errors are
//! reported.

use crate::table::expr::functions::is_null_of_null;
use crate::table::expr::{Node, Resolved};
use crate::table::value::Value;

/// Operators and functions that return NULL if an operand is NULL, and for which Spark makes this
/// replacement.
const STRICT: &[&str] = &[
    // Functions of numbers.
    "+",
    "-",
    "*",
    "/",
    "%",
    "div",
    "pmod",
    "negative",
    "abs",
    "sign",
    "sqrt",
    "round",
    "bround",
    "pow",
    "log",
    "atan2",
    "hypot",
    "shiftleft",
    "shiftright",
    "shiftrightunsigned",
    "&",
    "|",
    "^",
    "~",
    "conv",
    "format_number",
    // Comparisons and conditions.
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "not",
    "like",
    "ilike",
    "regexp_like",
    "contains",
    "startswith",
    "endswith",
    // Functions of texts.
    "upper",
    "lower",
    "reverse",
    "length",
    "substring",
    "substring_index",
    "repeat",
    "left",
    "right",
    "lpad",
    "rpad",
    "split",
    "split_part",
    "instr",
    "translate",
    "replace",
    "regexp_replace",
    "regexp_extract",
    "levenshtein",
    "find_in_set",
    "overlay",
    "encode",
    "sha2",
    // Functions of dates and timestamps.
    "date_add",
    "date_sub",
    "date_diff",
    "add_months",
    "months_between",
    "date_format",
    "next_day",
    "from_unixtime",
    "from_utc_timestamp",
    "to_utc_timestamp",
    "make_date",
    // Functions of arrays and maps.
    "getitem",
    "map_element",
    "element_at",
    "slice",
    "array_contains",
    "array_position",
    "array_remove",
    "arrays_overlap",
    "array_union",
];

/// Whether a function or operator is replaced by NULL if one of its operands is a constant NULL.
pub fn is_strict(name: &str) -> bool {
    STRICT.contains(&name)
}

/// Replaces casts of a constant NULL, and operations that are NULL because an operand is a constant
/// NULL, by NULL.
pub fn propagate(expr: Resolved) -> Resolved {
    let expr = expr.map_children(&mut propagate);
    if let Node::Chain(parts) = expr.node {
        return crate::table::expr::chain::collapsed(parts, &mut propagate);
    }
    let strict = match &expr.node {
        Node::Call(name, args) => {
            args.iter().any(Resolved::is_null_literal)
                && (is_strict(name)
                    || is_null_of_null(name) && args.iter().all(Resolved::is_constant))
        }
        Node::Cast(inner, _) => inner.is_null_literal(),
        _ => false,
    };
    if !strict {
        return expr;
    }
    Resolved { node: Node::Literal(Value::Null), nullable: true, ..expr }
}
