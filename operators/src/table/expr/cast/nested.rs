//! Casts of arrays, maps and structs, element by element.

use super::ansi::OnError;
use super::compile;
use crate::table::datetime::Tz;
use crate::table::expr::cell::{Cell, elements, field};
use crate::table::expr::compile::{Compiled, Cx, EvalError, bytes_fn, from_cells};
use crate::table::row::{Array, Map, RowWriter};
use crate::table::types::{DataType, Field};
use bumpalo::collections::Vec as BumpVec;

/// Compiles a cast of an array, map or struct, element by element.
pub(super) fn nested(
    inner: Compiled,
    from: &DataType,
    to: &DataType,
    on_error: OnError,
    zone: Tz,
) -> Compiled {
    let cast = NestedCast::new(from, to, on_error, zone);
    let inner = inner.bytes();
    bytes_fn(move |cx| {
        let Some(bytes) = inner(cx)? else { return Ok(None) };
        match cast.cell(Cell::Bytes(bytes), cx)? {
            Cell::Bytes(bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    })
}

/// The casts of a nested value's parts. A part is passed to [`Compiled`] as a lambda variable.
enum NestedCast {
    Same,
    Scalar(Compiled),
    Array(Box<NestedCast>, DataType),
    Map(Box<NestedCast>, Box<NestedCast>, DataType, DataType),
    Struct(Vec<(NestedCast, DataType)>),
}

impl NestedCast {
    fn new(from: &DataType, to: &DataType, on_error: OnError, zone: Tz) -> Self {
        let below = |from: &DataType, to: &DataType| Self::new(from, to, on_error, zone);
        match (from, to) {
            (from, to) if from == to => Self::Same,
            (DataType::Array(a), DataType::Array(b)) => {
                Self::Array(Box::new(below(a, b)), (**a).clone())
            }
            (DataType::Map(ak, av), DataType::Map(bk, bv)) => Self::Map(
                Box::new(below(ak, bk)),
                Box::new(below(av, bv)),
                (**ak).clone(),
                (**av).clone(),
            ),
            (DataType::Struct(a), DataType::Struct(b)) => {
                let fields = a.iter().zip(b);
                let one = |(a, b): (&Field, &Field)| {
                    (below(&a.data_type, &b.data_type), a.data_type.clone())
                };
                Self::Struct(fields.map(one).collect())
            }
            (from, to) => {
                let value = from_cells(from.physical(), |cx| {
                    Ok(cx.variables.last().copied().unwrap_or(Cell::Null))
                });
                Self::Scalar(compile(value, from, to, on_error, zone))
            }
        }
    }

    fn cell<'a>(&self, value: Cell<'a>, cx: Cx<'a>) -> Result<Cell<'a>, Box<EvalError>> {
        if value.is_null() {
            return Ok(Cell::Null);
        }
        let array = |cast: &Self, array: Array<'a>, element: &DataType| {
            let mut out = BumpVec::new_in(cx.arena);
            let mut writer = RowWriter::array(&mut out, array.len);
            for (i, value) in elements(array, element).enumerate() {
                cast.cell(value, cx)?.put(&mut writer, i);
            }
            Ok::<_, Box<EvalError>>(out.into_bump_slice() as &'a [u8])
        };
        Ok(match self {
            Self::Same => value,
            Self::Scalar(cast) => {
                let variables = cx.arena.alloc_slice_copy(&[value]);
                cast.cell(Cx { variables, ..cx })?
            }
            Self::Array(cast, element) => Cell::Bytes(array(cast, value.array(), element)?),
            Self::Map(key, of_value, key_type, value_type) => {
                let Some(map) = value.map() else { return Ok(Cell::Null) };
                let keys = array(key, map.keys, key_type)?;
                let values = array(of_value, map.values, value_type)?;
                let mut out = BumpVec::new_in(cx.arena);
                Map::write(keys, values, &mut out);
                Cell::Bytes(out.into_bump_slice())
            }
            Self::Struct(fields) => {
                let mut out = BumpVec::new_in(cx.arena);
                let mut writer = RowWriter::new(&mut out, fields.len());
                for (i, (cast, data_type)) in fields.iter().enumerate() {
                    let value = field(value.bytes(), i, fields.len(), data_type);
                    cast.cell(value, cx)?.put(&mut writer, i);
                }
                Cell::Bytes(out.into_bump_slice())
            }
        })
    }
}
