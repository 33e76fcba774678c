//! The types of the arguments and results of functions on arrays.

use super::registry::{Typed, any_nullable, expect};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::coercion::{
    check_order, tightest, unify, unify_as, units_differ, widest_without_text,
};
use crate::table::expr::type_rules::Rules;
use crate::table::types::DataType;
use crate::table::value::Value;

/// Coerces an array and a value to a common element type, by the rules of the function. Returns the
/// arguments, and whether one of them can be NULL. Fails for types without a common type, and where
/// the function does not take an untyped NULL or needs an order.
pub(super) fn with_element(name: &str, args: Vec<Resolved>) -> PlanResult<(Vec<Resolved>, bool)> {
    let searches = matches!(name, "array_contains" | "array_position");
    let of_nulls = matches!(&args[0].data_type, DataType::Array(of) if **of == DataType::Null);
    let differ = || {
        PlanError::new(
            "DATATYPE_MISMATCH.ARRAY_FUNCTION_DIFF_TYPES",
            format!("`{name}` does not take {} and {}", args[0].data_type, args[1].data_type),
            "Cast one of them: an array, and a value of its elements' type",
        )
    };
    if name == "array_contains" && args[1].data_type == DataType::Null
        || searches && args[0].data_type == DataType::Null
        || name == "array_position" && of_nulls && args[1].data_type == DataType::Null
    {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.NULL_TYPE",
            format!("`{name}` cannot search for an untyped NULL, or in one"),
            "Give the NULL a type: CAST(NULL AS INT)",
        ));
    }
    let element = match &args[0].data_type {
        DataType::Array(element) => (**element).clone(),
        _ if matches!(name, "array_remove" | "array_insert") => return Err(differ()),
        _ => element_type(name, &args[0])?,
    };
    let other = &args[1].data_type;
    if units_differ(&element, other) {
        return Err(differ());
    }
    let common = match name {
        "array_contains" => widest_without_text(&element, other),
        "array_position" => tightest(&element, other),
        // Functions that change an array use the legacy rules, by which FLOAT and an integer give
        // FLOAT.
        _ => Rules { ansi: false, ..Rules::current() }.apply(|| tightest(&element, other)),
    };
    let common = common.ok_or_else(differ)?;
    if searches || name == "array_remove" {
        check_order(&format!("`{name}`"), &Resolved::literal(Value::Null, common.clone()))?;
    }
    let nullable = any_nullable(&args);
    let mut args = args.into_iter();
    let (Some(array), Some(x)) = (args.next(), args.next()) else { unreachable!("counted") };
    let array = array.coerce(&DataType::Array(Box::new(common.clone())));
    Ok((vec![array, x.coerce(&common)], nullable))
}

pub(super) fn same_array(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() == 1 {
        element_type(name, &args[0])?;
        if name == "array_distinct" {
            check_order("`array_distinct`", &args[0])?;
        }
        let (to, nullable) = (args[0].data_type.clone(), args[0].nullable);
        return Ok(Typed::new(args, to, nullable));
    }
    let (args, nullable) = with_element(name, args)?;
    let to = args[0].data_type.clone();
    Ok(Typed::new(args, to, nullable))
}

pub(super) fn sortable(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let element = element_type(name, &args[0])?;
    if !element.is_orderable() {
        check_order(&format!("`{name}`"), &args[0])?;
    }
    let (to, nullable) = (args[0].data_type.clone(), any_nullable(&args));
    Ok(Typed::new(args, to, nullable))
}

pub(super) fn two_arrays(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let is_array = |arg: &Resolved| matches!(arg.data_type, DataType::Array(_));
    let condition = "DATATYPE_MISMATCH.BINARY_ARRAY_DIFF_TYPES";
    let args = unify_as(condition, &format!("`{name}`"), args, |args| match args {
        [a, b] if units_differ(&a.data_type, &b.data_type) => None,
        [a, b] if is_array(a) && is_array(b) => widest_without_text(&a.data_type, &b.data_type),
        _ => None,
    })?;
    check_order(&format!("`{name}`"), &args[0])?;
    let to = args[0].data_type.clone();
    Ok(Typed::new(args, to, nullable))
}

pub(super) fn element_of_array(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let element = element_type(name, &args[0])?;
    if !element.is_orderable() {
        check_order(&format!("`{name}`"), &args[0])?;
    }
    Ok(Typed::new(args, element, true))
}

pub(super) fn array(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let args = unify("`array`", args)?;
    let element = args.first().map_or(DataType::Null, |a| a.data_type.clone());
    Ok(Typed::new(args, DataType::Array(Box::new(element)), false))
}

pub(super) fn element_type(name: &str, of: &Resolved) -> PlanResult<DataType> {
    match &of.data_type {
        DataType::Array(element) => Ok((**element).clone()),
        other => Err(PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            format!("`{name}` needs an array, but `{of}` is {other}"),
            "",
        )),
    }
}

pub(super) fn size(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let is_map = matches!(args[0].data_type, DataType::Map(..)) && name == "size";
    if !is_map && args[0].data_type != DataType::Null {
        element_type(name, &args[0])?;
    }
    let nullable = any_nullable(&args);
    Ok(Typed::new(args, DataType::Int, nullable))
}

pub(super) fn item(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let of_position = matches!(name, "element_at" | "try_element_at");
    let element = element_type(name, &args[0])?;
    let index = args.split_off(1);
    let is_small = matches!(index[0].data_type, DataType::Byte | DataType::Short | DataType::Int);
    if of_position && !is_small {
        return Err(super::registry::unexpected(name, "an INT as its index", &index[0]));
    }
    args.extend(expect(name, index, &[DataType::Int])?);
    Ok(Typed::new(args, element, true))
}
