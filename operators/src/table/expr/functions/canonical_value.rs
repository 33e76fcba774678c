//! The canonical form of equal values, used before values are compared as bytes in groups, sets and
//! joins. -0.0 becomes 0.0, all NaNs get the same bits, and the entries of a map are ordered by
//! key. This applies at any nesting depth.

use crate::table::expr::Node;
use crate::table::expr::Resolved;
use crate::table::expr::cell::{self, Cell, elements, field};
use crate::table::expr::functions::registry::{Function, Typed, any_nullable, cells};
use crate::table::row::{Array, Map};
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
use std::cmp::Ordering;

pub(super) static FUNCTIONS: &[Function] = &[cells(
    NAME,
    "one_of_equals(a): the one value that stands for all that are equal to it",
    (1, 1),
    |_, args| {
        let (data_type, nullable) = (args[0].data_type.clone(), any_nullable(&args));
        Ok(Typed::new(args, data_type, nullable))
    },
    |args, call, arena| Ok(canonical(args[0], &call.to, arena)),
)];

const NAME: &str = "one_of_equals";

/// Normalises a double: -0.0 becomes 0.0, and all NaNs get the same bits.
#[inline]
pub fn canonical_double(v: f64) -> f64 {
    if v.is_nan() { f64::NAN } else { v + 0.0 }
}

/// Whether equal values of this type can have different byte representations.
fn varies(data_type: &DataType) -> bool {
    data_type
        .contains(&|part| matches!(part, DataType::Float | DataType::Double | DataType::Map(..)))
}

/// Wraps a nested expression so that its values are in canonical form and can be compared as bytes.
/// Expressions of other types are returned unchanged: their values are normalised when they are
/// written to a row.
pub fn as_grouping_key(expr: Resolved) -> Resolved {
    let is_done = matches!(&expr.node, Node::Call(name, _) if *name == NAME);
    if is_done || !expr.data_type.is_nested() {
        return expr;
    }
    canonicalized(expr)
}

/// Like [`as_grouping_key`], but also wraps plain floating-point numbers.
pub fn canonicalized(expr: Resolved) -> Resolved {
    if !varies(&expr.data_type) {
        return expr;
    }
    let (data_type, nullable) = (expr.data_type.clone(), expr.nullable);
    Resolved { node: Node::Call(NAME, vec![expr]), data_type, nullable }
}

/// Whether a value is already in canonical form.
fn is_canonical(cell: Cell<'_>, data_type: &DataType) -> bool {
    match (cell, data_type) {
        (Cell::Double(v), _) => v.to_bits() == canonical_double(v).to_bits(),
        (Cell::Bytes(bytes), DataType::Array(element)) => {
            !varies(element)
                || elements(Array::new(bytes), element).all(|e| is_canonical(e, element))
        }
        (Cell::Bytes(bytes), DataType::Struct(fields)) => {
            let width = fields.len();
            fields.iter().enumerate().all(|(i, f)| {
                !varies(&f.data_type)
                    || is_canonical(field(bytes, i, width, &f.data_type), &f.data_type)
            })
        }
        (Cell::Bytes(bytes), DataType::Map(key, value)) => {
            let map = Map::new(bytes);
            let mut before = None;
            let in_order = elements(map.keys, key).all(|this| {
                let above = before.is_none_or(|before| cell::order(before, this, key).is_lt());
                before = Some(this);
                above && is_canonical(this, key)
            });
            in_order && elements(map.values, value).all(|v| is_canonical(v, value))
        }
        _ => true,
    }
}

/// Returns the canonical form of a value.
pub(super) fn canonical<'a>(cell: Cell<'a>, data_type: &DataType, arena: &'a Bump) -> Cell<'a> {
    match cell {
        Cell::Double(v) => Cell::Double(canonical_double(v)),
        Cell::Bytes(bytes) if !is_canonical(cell, data_type) => {
            let mut out = Vec::new();
            normalized(Value::from_bytes(bytes, data_type), data_type).write(&mut out);
            Cell::Bytes(arena.alloc_slice_copy(&out))
        }
        other => other,
    }
}

fn normalized(value: Value, data_type: &DataType) -> Value {
    match (value, data_type) {
        (Value::Double(v), _) => Value::Double(canonical_double(v)),
        (Value::Array(values), DataType::Array(element)) => {
            Value::Array(values.into_iter().map(|v| normalized(v, element)).collect())
        }
        (Value::Struct(values), DataType::Struct(fields)) => {
            let values = values.into_iter().zip(fields);
            Value::Struct(values.map(|(v, f)| normalized(v, &f.data_type)).collect())
        }
        (Value::Map(entries), DataType::Map(key, value)) => {
            let entry = |(k, v)| (normalized(k, key), normalized(v, value));
            let mut entries: Vec<_> = entries.into_iter().map(entry).collect();
            entries.sort_by(|(a, _), (b, _)| order(a, b));
            Value::Map(entries)
        }
        (value, _) => value,
    }
}

/// Compares values in Spark's order, NULL first.
pub fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::Long(a), Value::Long(b)) => a.cmp(b),
        (Value::Double(a), Value::Double(b)) => {
            crate::table::expr::functions::order_doubles(*a, *b)
        }
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Binary(a), Value::Binary(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) | (Value::Struct(a), Value::Struct(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| order(a, b));
            pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        (a, b) => (*a != Value::Null).cmp(&(*b != Value::Null)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_put_in_order_at_any_depth() {
        let map = |pairs: &[(f64, i64)]| {
            let entry = |(k, v): &(f64, i64)| (Value::Double(*k), Value::Long(*v));
            Value::Array(vec![Value::Map(pairs.iter().map(entry).collect())])
        };
        let of_map = DataType::Map(Box::new(DataType::Double), Box::new(DataType::Int));
        let data_type = DataType::Array(Box::new(of_map));
        let mut bytes = Vec::new();
        map(&[(2.0, 1), (-0.0, 5)]).write(&mut bytes);
        assert!(!is_canonical(Cell::Bytes(&bytes), &data_type));
        let one = normalized(map(&[(2.0, 1), (-0.0, 5)]), &data_type);
        assert_eq!(one, map(&[(0.0, 5), (2.0, 1)]));
        bytes.clear();
        one.write(&mut bytes);
        assert!(is_canonical(Cell::Bytes(&bytes), &data_type));
    }
}
