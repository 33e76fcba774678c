//! Arrays and structs.

use super::{Function, MANY, Typed, any_nullable, expect, function, take};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::{
    BytesFn, Compiled, bytes_fn, element, failed, long_fn, write_field,
};
use crate::table::expr::resolve::unify;
use crate::table::expr::{Node, Resolved};
use crate::table::row::{Array, Row, RowWriter};
use crate::table::types::{DataType, Physical};
use crate::table::value::Value;
use bumpalo::collections::Vec as BumpVec;

pub(super) static FUNCTIONS: &[Function] = &[
    function("array", "array(a, b, …)", (0, MANY), array, |args, _, _| build(args)),
    function("size", "size(array): number of elements", (1, 1), size, |args, _, _| {
        let [a] = take(args);
        let a = a.bytes();
        long_fn(move |cx| Ok(a(cx)?.map(|bytes| Array::new(bytes).len as i64)))
    }),
    function(
        "getitem",
        "array[index]: from 0; an error where there is none",
        (2, 2),
        item,
        |a, e, to| index(a, e, to, 0, true),
    ),
    function(
        "get",
        "get(array, index): from 0; NULL where there is none",
        (2, 2),
        item,
        |a, e, to| index(a, e, to, 0, false),
    ),
    function(
        "element_at",
        "element_at(array, n): from 1, negative from the end; an error where there is none",
        (2, 2),
        item,
        |a, e, to| index(a, e, to, 1, true),
    ),
    function(
        "try_element_at",
        "try_element_at(array, n): element_at, NULL where there is none",
        (2, 2),
        item,
        |a, e, to| index(a, e, to, 1, false),
    ),
    function(
        "getfield",
        "struct.field",
        (2, 2),
        |_, _| Err(PlanError::new("UNRESOLVED_ROUTINE", "`getfield` is internal", "Write s.field")),
        compile_field,
    ),
];

fn array(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let args = unify("`array`", args)?;
    let element = args.first().map_or(DataType::Null, |a| a.data_type.clone());
    Ok((args, DataType::Array(Box::new(element)), false))
}

fn element_type(name: &str, of: &Resolved) -> PlanResult<DataType> {
    match &of.data_type {
        DataType::Array(element) => Ok((**element).clone()),
        other => Err(PlanError::new(
            "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
            format!("`{name}` needs an array, but `{of}` is {other}"),
            "",
        )),
    }
}

fn size(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    element_type(name, &args[0])?;
    let nullable = any_nullable(&args);
    Ok((args, DataType::Int, nullable))
}

fn item(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let element = element_type(name, &args[0])?;
    let index = args.split_off(1);
    args.extend(expect(name, index, &[DataType::Int])?);
    Ok((args, element, true))
}

/// An array from its elements.
fn build(args: Vec<Compiled>) -> Compiled {
    bytes_fn(move |cx| {
        let mut out = BumpVec::new_in(cx.arena);
        let mut writer = RowWriter::array(&mut out, args.len());
        for (i, arg) in args.iter().enumerate() {
            write_field(arg, cx, &mut writer, i)?;
        }
        Ok(Some(out.into_bump_slice()))
    })
}

/// An element by index, counted from `base`; from base 1, negative ones count from the end.
fn index(
    args: Vec<Compiled>,
    exprs: &[Resolved],
    to: &DataType,
    base: i64,
    strict: bool,
) -> Compiled {
    let [array, index] = take(args);
    let (array, index): (BytesFn, _) = (array.bytes(), index.long());
    debug_assert!(matches!(exprs[0].data_type, DataType::Array(_)));
    element(
        move |cx| {
            let (Some(bytes), Some(index)) = (array(cx)?, index(cx)?) else { return Ok(None) };
            let array = Array::new(bytes);
            if base == 1 && index == 0 {
                return failed(
                    "INVALID_INDEX_OF_ZERO",
                    "element 0 was asked for, but the first is 1",
                    "",
                );
            }
            let at = if base == 1 && index < 0 { array.len as i64 + index } else { index - base };
            match usize::try_from(at).ok().filter(|at| *at < array.len) {
                Some(at) => Ok(Some((array, at))),
                None if strict => failed(
                    if base == 0 {
                        "INVALID_ARRAY_INDEX"
                    } else {
                        "INVALID_ARRAY_INDEX_IN_ELEMENT_AT"
                    },
                    format!("there is no element {index} in an array of {}", array.len),
                    "Use get or try_element_at to get NULL instead",
                ),
                None => Ok(None),
            }
        },
        to,
    )
}

fn compile_field(args: Vec<Compiled>, exprs: &[Resolved], to: &DataType) -> Compiled {
    let width = match &exprs[0].data_type {
        DataType::Struct(fields) => fields.len(),
        _ => unreachable!("resolved from a struct"),
    };
    let at = match exprs[1].node {
        Node::Literal(Value::Long(at)) => at as usize,
        _ => unreachable!("resolved to an index"),
    };
    let [of, _] = take(args);
    let of = of.bytes();
    // A struct is a row, and so is what follows an array's length.
    element(move |cx| Ok(of(cx)?.map(|bytes| (Array { len: width, row: Row(bytes) }, at))), to)
}

/// Arrays one behind the other; NULL if any is NULL.
pub(super) fn concat(args: Vec<BytesFn>, element: DataType) -> Compiled {
    let physical = element.physical();
    bytes_fn(move |cx| {
        let mut arrays = BumpVec::new_in(cx.arena);
        for arg in &args {
            let Some(bytes) = arg(cx)? else { return Ok(None) };
            arrays.push(Array::new(bytes));
        }
        let total = arrays.iter().map(|a| a.len).sum();
        let mut out = BumpVec::new_in(cx.arena);
        let mut writer = RowWriter::array(&mut out, total);
        let mut at = 0;
        for array in &arrays {
            for slot in (0..array.len).map(|i| array.slot(i)) {
                if !array.row.is_null(slot) {
                    match physical {
                        Physical::Bool | Physical::Long => writer.long(at, array.row.long(slot)),
                        Physical::Double => writer.double(at, array.row.double(slot)),
                        Physical::Decimal | Physical::Bytes => {
                            writer.bytes(at, array.row.bytes(slot))
                        }
                    }
                }
                at += 1;
            }
        }
        Ok(Some(out.into_bump_slice()))
    })
}
