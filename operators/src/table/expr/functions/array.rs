//! Functions on arrays and structs.

use super::array_types::{
    array, element_of_array, element_type, item, same_array, size, sortable, two_arrays,
    with_element,
};
use super::registry::{
    Function, MANY, Typed, any_nullable, called, cells, expect, function, nullable_cells, take,
};
use super::value_index::ValueIndex;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::{Cell, elements, field, order};
use crate::table::expr::coercion::widest_of;
use crate::table::expr::compile::{
    BytesFn, Compiled, EvalError, bytes_fn, element, failed, from_cells, write_field,
};
use crate::table::expr::functions::canonical_value::canonical;
use crate::table::expr::functions::string_rare::bounded;
use crate::table::expr::{Node, Resolved};
use crate::table::row::{Array, Row, RowWriter};
use crate::table::types::{DataType, Field, Physical};
use crate::table::value::Value;
use bumpalo::collections::Vec as BumpVec;

pub(super) static FUNCTIONS: &[Function] = &[
    function(
        "array",
        "array(a, b, …): an array of the arguments",
        (0, MANY),
        array,
        |args, _, _| build(args),
    )
    .usage("1.1.0", "array(1, 2, 3)", "[1, 2, 3]"),
    nullable_cells("size", "size(array or map): number of elements", (1, 1), size, |a, call, _| {
        if a[0].is_null() {
            // In Spark's legacy mode (ANSI mode off) the size of NULL is -1.
            return Ok(if call.semantics.ansi { Cell::Null } else { Cell::Long(-1) });
        }
        Ok(Cell::Long(match call.data_type(0) {
            DataType::Map(..) => a[0].map().map_or(0, |map| map.len) as i64,
            _ => a[0].array().len as i64,
        }))
    })
    .usage("1.5.0", "size(array('b', 'd', 'c'))", "3"),
    cells("array_size", "array_size(array): number of elements", (1, 1), size, |a, _, _| {
        Ok(Cell::Long(a[0].array().len as i64))
    })
    .usage("3.3.0", "array_size(array(10, 20))", "2"),
    function(
        "getitem",
        "array[index]: from 0; an error where there is none",
        (2, 2),
        item,
        |a, e, to| index(a, e, to, 0, Missing::Error),
    ),
    function(
        "get",
        "get(array, index): from 0; NULL where there is none",
        (2, 2),
        item,
        |a, e, to| index(a, e, to, 0, Missing::Null),
    )
    .usage("3.4.0", "get(array(10, 20, 30), 5)", "NULL"),
    function(
        "element_at",
        "element_at(array, n): from 1, negative from the end; an error where there is none",
        (2, 2),
        item,
        |a, e, to| index(a, e, to, 1, Missing::Error),
    )
    .usage("2.4.0", "element_at(array(10, 20, 30), -1)", "30"),
    function(
        "try_element_at",
        "try_element_at(array, n): as `element_at`, but NULL where there is none",
        (2, 2),
        item,
        |a, e, to| index(a, e, to, 1, Missing::Null),
    )
    .usage("3.3.0", "try_element_at(array(10, 20), 9)", "NULL"),
    function(
        "getfield",
        "struct.field",
        (2, 2),
        |_, _| Err(PlanError::new("UNRESOLVED_ROUTINE", "`getfield` is internal", "Write s.field")),
        compile_field,
    ),
    cells(
        "getfields",
        "array_of_structs.field: of each",
        (2, 2),
        |_, _| {
            Err(PlanError::new("UNRESOLVED_ROUTINE", "`getfields` is internal", "Write xs.field"))
        },
        |a, call, arena| {
            let DataType::Struct(fields) = call.element(0) else { return Ok(Cell::Null) };
            let (at, width) = (a[1].long() as usize, fields.len());
            let of = |e: Cell<'_>| match e {
                Cell::Bytes(bytes) => {
                    field(bytes, at, width, &fields[at].data_type).value(&fields[at].data_type)
                }
                _ => Value::Null,
            };
            let values: Vec<Value> = elements(a[0].array(), call.element(0)).map(of).collect();
            let mut out = Vec::new();
            Value::Array(values).write(&mut out);
            Ok(Cell::Bytes(arena.alloc_slice_copy(&out)))
        },
    ),
    cells(
        "array_contains",
        "array_contains(array, x): NULL if it is not there and a NULL is",
        (2, 2),
        |n, a| {
            let (args, _) = with_element(n, a)?;
            Ok(Typed::new(args, DataType::Boolean, true))
        },
        |a, call, _| {
            let t = call.element(0);
            let mut null = false;
            for cell in elements(a[0].array(), t) {
                null |= cell.is_null();
                if !cell.is_null() && order(cell, a[1], t).is_eq() {
                    return Ok(Cell::Bool(true));
                }
            }
            Ok(if null { Cell::Null } else { Cell::Bool(false) })
        },
    )
    .usage("1.5.0", "array_contains(array(1, 2, 3), 2)", "true"),
    cells(
        "array_position",
        "array_position(array, x): from 1; 0 where it is not there",
        (2, 2),
        |n, a| {
            let (args, nullable) = with_element(n, a)?;
            Ok(Typed::new(args, DataType::Long, nullable))
        },
        |a, call, _| {
            let t = call.element(0);
            let found =
                elements(a[0].array(), t).position(|c| !c.is_null() && order(c, a[1], t).is_eq());
            Ok(Cell::Long(found.map_or(0, |at| at as i64 + 1)))
        },
    )
    .usage("2.4.0", "array_position(array('a', 'b'), 'b')", "2"),
    cells(
        "array_remove",
        "array_remove(array, x): without it",
        (2, 2),
        same_array,
        |a, call, arena| {
            let t = call.element(0);
            let keep =
                elements(a[0].array(), t).filter(|c| c.is_null() || order(*c, a[1], t).is_ne());
            Ok(collected(keep, arena))
        },
    )
    .usage("2.4.0", "array_remove(array(1, 2, 1), 1)", "[2]"),
    nullable_cells(
        "array_append",
        "array_append(array, x): the array with x at its end",
        (2, 2),
        same_array,
        |a, call, arena| {
            if a[0].is_null() {
                return Ok(Cell::Null);
            }
            Ok(collected(elements(a[0].array(), call.element(0)).chain([a[1]]), arena))
        },
    )
    .usage("3.4.0", "array_append(array(1, 2), 3)", "[1, 2, 3]"),
    nullable_cells(
        "array_prepend",
        "array_prepend(array, x): the array with x before its start",
        (2, 2),
        same_array,
        |a, call, arena| {
            if a[0].is_null() {
                return Ok(Cell::Null);
            }
            Ok(collected([a[1]].into_iter().chain(elements(a[0].array(), call.element(0))), arena))
        },
    )
    .usage("3.5.0", "array_prepend(array(2, 3), 1)", "[1, 2, 3]"),
    nullable_cells(
        "array_insert",
        "array_insert(array, at, x): from 1, or from the end if negative",
        (3, 3),
        |n, a| {
            let [array, at, x] =
                <[Resolved; 3]>::try_from(a).unwrap_or_else(|_| unreachable!("counted"));
            let at = expect(n, vec![at], &[DataType::Int])?.remove(0);
            let (mut pair, _) = with_element(n, vec![array, x])?;
            pair.insert(1, at);
            let to = pair[0].data_type.clone();
            Ok(Typed::new(pair, to, true))
        },
        |a, call, arena| {
            if a[0].is_null() || a[1].is_null() {
                return Ok(Cell::Null);
            }
            let (mut all, at): (Vec<Cell<'_>>, _) =
                (elements(a[0].array(), call.element(0)).collect(), a[1].long());
            if at == 0 {
                return failed("INVALID_INDEX_OF_ZERO", "the first element is 1", "");
            }
            if at.unsigned_abs() > 1 << 24 {
                return failed("COLLECTION_SIZE_LIMIT_EXCEEDED", format!("an array of {at}"), "");
            }
            if at > 0 {
                let at = at as usize - 1;
                while all.len() < at {
                    all.push(Cell::Null);
                }
                all.insert(at, a[2]);
            } else {
                // By default, position -1 means after the last element. A position before the first
                // element fills the gap with NULLs.
                let legacy = usize::from(call.semantics.legacy_array_insert);
                let from_end = at.unsigned_abs() as usize - 1 + legacy;
                let lacking = from_end.saturating_sub(all.len());
                all.splice(0..0, std::iter::repeat_n(Cell::Null, lacking));
                all.insert(all.len() - from_end, a[2]);
            }
            Ok(collected(all.into_iter(), arena))
        },
    )
    .usage("3.4.0", "array_insert(array('a', 'c'), 2, 'b')", "[a, b, c]"),
    cells(
        "array_compact",
        "array_compact(array): without NULLs",
        (1, 1),
        same_array,
        |a, call, arena| {
            Ok(collected(elements(a[0].array(), call.element(0)).filter(|c| !c.is_null()), arena))
        },
    )
    .usage("3.4.0", "array_compact(array(1, NULL, 2))", "[1, 2]"),
    cells(
        "array_distinct",
        "array_distinct(array): each value once",
        (1, 1),
        same_array,
        |a, call, arena| {
            let t = call.element(0);
            Ok(distinct(elements(a[0].array(), t), t, arena))
        },
    )
    .usage("2.4.0", "array_distinct(array(1, 2, 1))", "[1, 2]"),
    cells(
        "array_union",
        "array_union(a, b): each value of either once",
        (2, 2),
        two_arrays,
        |a, call, arena| {
            let t = call.element(0);
            let all = elements(a[0].array(), t).chain(elements(a[1].array(), t));
            Ok(distinct(all, t, arena))
        },
    )
    .usage("2.4.0", "array_union(array(1, 2), array(2, 3))", "[1, 2, 3]"),
    cells(
        "array_intersect",
        "array_intersect(a, b): each value of both once",
        (2, 2),
        two_arrays,
        |a, call, arena| {
            let t = call.element(0);
            let mut others = ValueIndex::of(elements(a[1].array(), t), t);
            let both = elements(a[0].array(), t).filter(|c| others.contains(*c));
            Ok(distinct(both, t, arena))
        },
    )
    .usage("2.4.0", "array_intersect(array(1, 2), array(2, 3))", "[2]"),
    cells(
        "array_except",
        "array_except(a, b): each value of a that is not in b, once",
        (2, 2),
        two_arrays,
        |a, call, arena| {
            let t = call.element(0);
            let mut others = ValueIndex::of(elements(a[1].array(), t), t);
            let rest = elements(a[0].array(), t).filter(|c| !others.contains(*c));
            Ok(distinct(rest, t, arena))
        },
    )
    .usage("2.4.0", "array_except(array(1, 2), array(2, 3))", "[1]"),
    cells(
        "arrays_overlap",
        "arrays_overlap(a, b): whether they have a value in common",
        (2, 2),
        |n, a| {
            let Typed { args, .. } = two_arrays(n, a)?;
            Ok(Typed::new(args, DataType::Boolean, true))
        },
        |a, call, _| {
            let t = call.element(0);
            let (x, y) = (a[0].array(), a[1].array());
            let mut others = ValueIndex::of(elements(y, t), t);
            let common = elements(x, t).any(|c| !c.is_null() && others.contains(c));
            let null = x.len > 0
                && y.len > 0
                && (elements(x, t).any(Cell::is_null) || elements(y, t).any(Cell::is_null));
            Ok(if common {
                Cell::Bool(true)
            } else if null {
                Cell::Null
            } else {
                Cell::Bool(false)
            })
        },
    )
    .usage("2.4.0", "arrays_overlap(array(1, 2), array(2, 3))", "true"),
    cells(
        "array_max",
        "array_max(array): the largest element that is not NULL",
        (1, 1),
        element_of_array,
        |a, call, _| {
            let t = call.element(0);
            // `min_by` returns the first of equal elements; `max_by` would return the last.
            let found =
                elements(a[0].array(), t).filter(|c| !c.is_null()).min_by(|x, y| order(*y, *x, t));
            Ok(found.unwrap_or(Cell::Null))
        },
    )
    .usage("2.4.0", "array_max(array(3, 9, NULL))", "9"),
    cells(
        "array_min",
        "array_min(array): the smallest element that is not NULL",
        (1, 1),
        element_of_array,
        |a, call, _| {
            let t = call.element(0);
            let found =
                elements(a[0].array(), t).filter(|c| !c.is_null()).min_by(|x, y| order(*x, *y, t));
            Ok(found.unwrap_or(Cell::Null))
        },
    )
    .usage("2.4.0", "array_min(array(3, 9, NULL))", "3"),
    cells(
        "array_join",
        "array_join(array, separator[, for NULL]): the elements as one text",
        (2, 3),
        |n, mut a| {
            let rest = expect(n, a.split_off(1), &[DataType::String])?;
            let texts = DataType::Array(Box::new(DataType::String));
            let array = crate::table::expr::resolve::cast(a.remove(0), &texts, false)?;
            let args: Vec<_> = [array].into_iter().chain(rest).collect();
            let nullable = any_nullable(&args);
            Ok(Typed::new(args, DataType::String, nullable))
        },
        |a, call, arena| {
            let instead = a.get(2).map(|text| text.bytes());
            let mut out = Vec::new();
            let mut first = true;
            for cell in elements(a[0].array(), call.element(0)) {
                let Some(part) = (if cell.is_null() { instead } else { Some(cell.bytes()) }) else {
                    continue;
                };
                if !std::mem::take(&mut first) {
                    out.extend_from_slice(a[1].bytes());
                }
                out.extend_from_slice(part);
                bounded(out.len())?;
            }
            Ok(Cell::Bytes(arena.alloc_slice_copy(&out)))
        },
    )
    .usage("2.4.0", "array_join(array('a', NULL, 'c'), '-', '?')", "a-?-c"),
    called(
        "array_repeat",
        "array_repeat(x, n): an array of n times x",
        (2, 2),
        |n, mut a| {
            let count = expect(n, a.split_off(1), &[DataType::Int])?;
            let to = DataType::Array(Box::new(a[0].data_type.clone()));
            a.extend(count);
            let nullable = a[1].nullable;
            Ok(Typed::new(a, to, nullable))
        },
        |args, call| {
            let [value, count] = take(args);
            let count = count.long();
            from_cells(call.to.physical(), move |cx| {
                // If the count is NULL, the value is not evaluated.
                let Some(count) = count(cx)? else { return Ok(Cell::Null) };
                let value = value.cell(cx)?;
                let count = count.max(0) as usize;
                if count > 1 << 24 {
                    return failed(
                        "COLLECTION_SIZE_LIMIT_EXCEEDED",
                        format!("an array of {count}"),
                        "",
                    );
                }
                bounded_array(count, value.bytes().len().saturating_mul(count))?;
                Ok(collected_of(count, std::iter::repeat_n(value, count), cx.arena))
            })
        },
    )
    .usage("2.4.0", "array_repeat('x', 3)", "[x, x, x]"),
    cells(
        "flatten",
        "flatten(array of arrays): one array of all their elements",
        (1, 1),
        |n, a| {
            let DataType::Array(inner) = element_type(n, &a[0])? else {
                return Err(super::registry::unexpected(n, "an array of arrays", &a[0]));
            };
            Ok(Typed::new(a, DataType::Array(inner), true))
        },
        |a, call, arena| {
            let (outer, inner) = (call.element(0), super::registry::element_of(&call.to));
            let (mut count, mut bytes) = (0, 0usize);
            for array in elements(a[0].array(), outer) {
                if array.is_null() {
                    return Ok(Cell::Null);
                }
                count += array.array().len;
                bytes = bytes.saturating_add(array.bytes().len());
                bounded_array(count, bytes)?;
            }
            let arrays = elements(a[0].array(), outer);
            let all = arrays.flat_map(|array| elements(array.array(), inner));
            Ok(collected_of(count, all, arena))
        },
    )
    .usage("2.4.0", "flatten(array(array(1, 2), array(3)))", "[1, 2, 3]"),
    cells(
        "slice",
        "slice(array, start, length): from 1, or from the end if negative",
        (3, 3),
        |n, mut a| {
            let rest = expect(n, a.split_off(1), &[DataType::Int])?;
            element_type(n, &a[0])?;
            let to = a[0].data_type.clone();
            a.extend(rest);
            let nullable = any_nullable(&a);
            Ok(Typed::new(a, to, nullable))
        },
        |a, call, arena| {
            let (array, start, length) = (a[0].array(), a[1].long(), a[2].long());
            if start == 0 {
                return failed("INVALID_PARAMETER_VALUE.START", "the first element is 1", "");
            }
            if length < 0 {
                return failed(
                    "INVALID_PARAMETER_VALUE.LENGTH",
                    format!("a length of {length}"),
                    "",
                );
            }
            let from = if start > 0 { start - 1 } else { array.len as i64 + start };
            let Ok(from) = usize::try_from(from) else {
                return Ok(collected([].into_iter(), arena));
            };
            Ok(collected(elements(array, call.element(0)).skip(from).take(length as usize), arena))
        },
    )
    .usage("2.4.0", "slice(array(1, 2, 3, 4), 2, 2)", "[2, 3]"),
    cells(
        "sort_array",
        "sort_array(array[, ascending]): NULLs first, or last if descending",
        (1, 2),
        |n, mut a| {
            let rest = expect(n, a.split_off(1), &[DataType::Boolean])?;
            a.extend(rest);
            sortable(n, a)
        },
        |a, call, arena| {
            let t = call.element(0);
            let mut all: Vec<Cell<'_>> = elements(a[0].array(), t).collect();
            // The sort is stable in both directions.
            if a.get(1).is_some_and(|ascending| !ascending.bool()) {
                all.sort_by(|x, y| order(*y, *x, t));
            } else {
                all.sort_by(|x, y| order(*x, *y, t));
            }
            Ok(collected(all.into_iter(), arena))
        },
    )
    .usage("1.5.0", "sort_array(array(3, NULL, 1))", "[NULL, 1, 3]"),
    cells(
        "array_sort",
        "array_sort(array[, (a, b) -> …]): NULLs last",
        (1, 1),
        sortable,
        |a, call, arena| {
            let t = call.element(0);
            let mut all: Vec<Cell<'_>> = elements(a[0].array(), t).collect();
            all.sort_by(|x, y| x.is_null().cmp(&y.is_null()).then(order(*x, *y, t)));
            Ok(collected(all.into_iter(), arena))
        },
    )
    .usage("2.4.0", "array_sort(array(3, NULL, 1))", "[1, 3, NULL]"),
    nullable_cells(
        "arrays_zip",
        "arrays_zip(a, b, …): structs of their elements",
        (1, MANY),
        |n, a| {
            let mut fields = Vec::new();
            for (i, arg) in a.iter().enumerate() {
                let name = match &arg.node {
                    Node::Column(_, name) => name.clone(),
                    _ => i.to_string(),
                };
                fields.push(Field::new(name, element_type(n, arg)?, true));
            }
            let nullable = any_nullable(&a);
            Ok(Typed::new(a, DataType::Array(Box::new(DataType::Struct(fields))), nullable))
        },
        |a, call, arena| {
            if a.iter().any(|array| array.is_null()) {
                return Ok(Cell::Null);
            }
            let longest = a.iter().map(|array| array.array().len).max().unwrap_or(0);
            let mut out = BumpVec::new_in(arena);
            let mut writer = RowWriter::array(&mut out, longest);
            let arrays = a.iter().enumerate();
            let mut arrays: Vec<_> =
                arrays.map(|(at, array)| elements(array.array(), call.element(at))).collect();
            for i in 0..longest {
                let mut entry = BumpVec::new_in(arena);
                let mut fields = RowWriter::new(&mut entry, a.len());
                for (at, cells) in arrays.iter_mut().enumerate() {
                    cells.next().unwrap_or(Cell::Null).put(&mut fields, at);
                }
                writer.bytes(i, &entry);
            }
            Ok(Cell::Bytes(out.into_bump_slice()))
        },
    )
    .usage("2.4.0", "arrays_zip(array(1, 2), array('a', 'b'))", "[{1, a}, {2, b}]"),
    cells(
        "sequence",
        "sequence(start, stop[, step]): of whole numbers, dates or timestamps",
        (2, 3),
        sequence_types,
        sequence,
    )
    .usage("2.4.0", "sequence(1, 9, 4)", "[1, 5, 9]"),
];

/// The maximum size in bytes of an array that functions such as `array_repeat` and `flatten` build.
const ARRAY_BYTES_MAX: usize = 1 << 30;

/// Fails if an array would be too large. Its size is `bytes` plus 8 bytes for each of `count`
/// elements.
pub(super) fn bounded_array(count: usize, bytes: usize) -> Result<(), Box<EvalError>> {
    if bytes.saturating_add(8 * count) <= ARRAY_BYTES_MAX {
        return Ok(());
    }
    failed(
        "COLLECTION_SIZE_LIMIT_EXCEEDED",
        format!("an array of {bytes} bytes"),
        "An array has at most 1 GiB",
    )
}

/// The maximum number of elements in the result of `sequence`.
pub(super) const MAX_SEQUENCE: usize = 1 << 20;

fn wrong_sequence(args: &[Resolved]) -> PlanError {
    let types: Vec<String> = args.iter().map(|arg| arg.data_type.to_string()).collect();
    PlanError::new(
        "DATATYPE_MISMATCH.SEQUENCE_WRONG_INPUT_TYPES",
        format!("`sequence` does not support {}", types.join(", ")),
        "Use two whole numbers, or two dates or timestamps with an interval as the step",
    )
}

fn sequence_types(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    if args.iter().take(2).any(|arg| arg.data_type.is_datetime()) {
        return super::time::sequence_types(name, args);
    }
    let to = match widest_of(args.iter().map(|arg| &arg.data_type)) {
        Some(to) if to.is_integral() => to,
        _ => return Err(wrong_sequence(&args)),
    };
    let args = args.into_iter().map(|arg| arg.coerce(&to)).collect();
    Ok(Typed::new(args, DataType::Array(Box::new(to)), nullable))
}

fn sequence<'a>(
    a: &[Cell<'a>],
    call: &super::registry::Call,
    arena: &'a bumpalo::Bump,
) -> Result<Cell<'a>, Box<EvalError>> {
    if super::registry::element_of(&call.to).is_datetime() {
        return super::time::sequence(a, call, arena);
    }
    let (start, stop) = (a[0].long(), a[1].long());
    let step = a.get(2).map_or(if start <= stop { 1 } else { -1 }, |step| step.long());
    if step == 0 && start != stop || step > 0 && start > stop || step < 0 && start < stop {
        return failed(
            "INVALID_PARAMETER_VALUE.SEQUENCE",
            format!("the step {step} does not lead from {start} to {stop}"),
            "",
        );
    }
    let mut out = Vec::new();
    for n in 0i64.. {
        let at = n.checked_mul(step).and_then(|by| start.checked_add(by));
        let Some(at) = at else { break };
        if step >= 0 && at > stop || step < 0 && at < stop {
            break;
        }
        out.push(Cell::Long(at));
        if out.len() > MAX_SEQUENCE {
            return failed("COLLECTION_SIZE_LIMIT_EXCEEDED", "a sequence of more than 1048576", "");
        }
        if step == 0 {
            break;
        }
    }
    Ok(collected(out.into_iter(), arena))
}

pub(super) fn collected<'a, 'c>(
    cells: impl Iterator<Item = Cell<'c>>,
    arena: &'a bumpalo::Bump,
) -> Cell<'a> {
    let cells: Vec<Cell<'c>> = cells.collect();
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::array(&mut out, cells.len());
    cells.iter().enumerate().for_each(|(i, cell)| cell.put(&mut writer, i));
    Cell::Bytes(out.into_bump_slice())
}

/// Like [`collected`], for a known number of cells, so that the cells are not buffered.
fn collected_of<'a, 'c>(
    count: usize,
    cells: impl Iterator<Item = Cell<'c>>,
    arena: &'a bumpalo::Bump,
) -> Cell<'a> {
    let mut out = BumpVec::new_in(arena);
    let mut writer = RowWriter::array(&mut out, count);
    cells.take(count).enumerate().for_each(|(i, cell)| cell.put(&mut writer, i));
    Cell::Bytes(out.into_bump_slice())
}

/// The distinct values in order of first occurrence, in [canonical form](super::canonical_value):
/// for example, -0.0 becomes 0.0.
fn distinct<'a>(
    cells: impl Iterator<Item = Cell<'a>>,
    data_type: &DataType,
    arena: &'a bumpalo::Bump,
) -> Cell<'a> {
    let found = ValueIndex::of(cells, data_type).into_values();
    collected(found.into_iter().map(|cell| canonical(cell, data_type, arena)), arena)
}

/// Compiles `array(a, b, …)`.
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

/// The result if the array has no element at the index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Error,
    Null,
}

/// Compiles access to an element by index. `base` is the index of the first element. With base 1,
/// negative indices count from the end.
fn index(
    args: Vec<Compiled>,
    exprs: &[Resolved],
    to: &DataType,
    base: i64,
    missing: Missing,
) -> Compiled {
    let [array, index] = take(args);
    let (array, index): (BytesFn, _) = (array.bytes(), index.long());
    debug_assert!(matches!(exprs[0].data_type, DataType::Array(_)));
    element(
        move |cx| {
            let Some(bytes) = array(cx)? else { return Ok(None) };
            let Some(index) = index(cx)? else { return Ok(None) };
            let array = Array::new(bytes);
            if base == 1 && index == 0 {
                return failed(
                    "INVALID_INDEX_OF_ZERO",
                    "index 0 is invalid: the first element has index 1",
                    "",
                );
            }
            let at = if base == 1 && index < 0 { array.len as i64 + index } else { index - base };
            match usize::try_from(at).ok().filter(|at| *at < array.len) {
                Some(at) => Ok(Some((array, at))),
                None if missing == Missing::Error => failed(
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
    // A struct has the layout of an array of its fields, so the field is read as an array element.
    element(move |cx| Ok(of(cx)?.map(|bytes| (Array { len: width, row: Row(bytes) }, at))), to)
}

/// Compiles the reversal of an array.
pub(super) fn reversed(args: Vec<Compiled>, element: DataType) -> Compiled {
    let [array] = take(args);
    let array = array.bytes();
    bytes_fn(move |cx| {
        let Some(bytes) = array(cx)? else { return Ok(None) };
        Ok(Some(collected(elements(Array::new(bytes), &element).rev(), cx.arena).bytes()))
    })
}

/// Compiles the concatenation of arrays; NULL if any array is NULL.
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
