//! Collations: the rules by which texts are compared. The only one here is `UTF8_BINARY`, Spark's
//! default, which compares bytes.

use super::registry::{Function, Typed, constant_text, function, take, text_or_null};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::types::DataType;
use crate::table::value::Value;

use DataType as T;

/// The qualified name of the only collation.
const QUALIFIED: &str = "SYSTEM.BUILTIN.UTF8_BINARY";

pub(super) static FUNCTIONS: &[Function] = &[
    function(
        "collate",
        "collate(s, 'UTF8_BINARY') or s COLLATE UTF8_BINARY: the text, compared by this collation",
        (2, 2),
        resolve_collate,
        |args, _, _| {
            let [text] = take(args);
            text
        },
    )
    .usage("4.0.0", "collate('a', 'UTF8_BINARY')", "a"),
    function(
        "collation",
        "collation(s): the name of the collation of a text",
        (1, 1),
        resolve_collation,
        |args, _, _| {
            let [name] = take(args);
            name
        },
    )
    .usage("4.0.0", "collation('a')", QUALIFIED),
];

fn resolve_collate(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let wanted = match args[1].data_type {
        T::String => constant_text(name, &args[1])?,
        _ => None,
    };
    let Some(wanted) = wanted else {
        return Err(PlanError::new(
            "UNEXPECTED_INPUT_TYPE",
            format!("`collate` needs the name of a collation, not `{}`", args[1]),
            "collate(s, 'UTF8_BINARY')",
        ));
    };
    let is = |name: &str| wanted.eq_ignore_ascii_case(name);
    if !is("UTF8_BINARY") && !is(QUALIFIED) {
        return Err(PlanError::not_yet(format_args!("the collation `{wanted}`")));
    }
    let text = text_or_null(name, args[0].clone())?;
    let nullable = text.nullable;
    Ok(Typed::new(vec![text], T::String, nullable))
}

fn resolve_collation(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    text_or_null(name, args[0].clone())?;
    let of_all = Resolved::literal(Value::String(QUALIFIED.to_string()), T::String);
    Ok(Typed::new(vec![of_all], T::String, false))
}
