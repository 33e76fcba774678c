//! Functions on maps and structs.

use super::registry::{
    Function, MANY, Typed, any_nullable, cells, element_of, function, nullable_cells, unexpected,
};
use super::value_index::ValueIndex;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::{Cell, elements, field, order};
use crate::table::expr::coercion::{
    check_order, tightest, unify, unify_as, units_differ, widest_of, widest_without_text,
};
use crate::table::expr::compile::{Compiled, EvalError, Semantics, bytes_fn, failed, write_field};
use crate::table::expr::{Node, Resolved};
use crate::table::row::{Map, RowWriter};
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    function(
        "named_struct",
        "named_struct('a', x, 'b', y, …): a struct with those field names",
        (0, MANY),
        named_struct,
        |args, _, _| {
            let values = args.into_iter().skip(1).step_by(2).collect();
            structure(values)
        },
    )
    .usage("1.5.0", "named_struct('a', 1, 'b', 'x')", "{1, x}"),
    function(
        "struct",
        "struct(a, b, …): a struct whose fields have the names of the columns",
        (0, MANY),
        unnamed,
        |args, _, _| structure(args),
    )
    .usage("1.4.0", "struct(1, 'x')", "{1, x}"),
    nullable_cells(
        "map",
        "map(key, value, …): a map of the entries",
        (0, MANY),
        map,
        |a, call, arena| {
            let (key_type, _) = types(&call.to);
            let keys: Vec<Cell<'_>> = a.iter().copied().step_by(2).collect();
            let values: Vec<Cell<'_>> = a.iter().copied().skip(1).step_by(2).collect();
            build(&keys, &values, key_type, (Keys::Normal, &call.semantics), arena)
        },
    )
    .usage("2.0.0", "map('a', 1, 'b', 2)", "{a -> 1, b -> 2}"),
    cells(
        "map_from_arrays",
        "map_from_arrays(keys, values): the map of each key to the value at its position",
        (2, 2),
        from_arrays,
        |a, call, arena| {
            let (key_type, value_type) = types(&call.to);
            let (keys, values) = (a[0].array(), a[1].array());
            if keys.len != values.len {
                return failed(
                    "MAP_FROM_ARRAYS_LENGTH_MISMATCH",
                    format!("there are {} keys and {} values", keys.len, values.len),
                    "",
                );
            }
            let keys: Vec<_> = elements(keys, key_type).collect();
            let values: Vec<_> = elements(values, value_type).collect();
            build(&keys, &values, key_type, (Keys::AsGiven, &call.semantics), arena)
        },
    )
    .usage("2.4.0", "map_from_arrays(array('a', 'b'), array(1, 2))", "{a -> 1, b -> 2}"),
    cells(
        "map_from_entries",
        "map_from_entries(array of structs of two): the map of each first field to the second",
        (1, 1),
        from_entries,
        |a, call, arena| {
            let (key_type, value_type) = types(&call.to);
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for entry in elements(a[0].array(), call.element(0)) {
                if entry.is_null() {
                    return Ok(Cell::Null);
                }
                keys.push(field(entry.bytes(), 0, 2, key_type));
                values.push(field(entry.bytes(), 1, 2, value_type));
            }
            build(&keys, &values, key_type, (Keys::Normal, &call.semantics), arena)
        },
    )
    .usage("2.4.0", "map_from_entries(array(struct('a', 1)))", "{a -> 1}"),
    cells(
        "map_keys",
        "map_keys(map): an array of its keys",
        (1, 1),
        |n, a| of_map(n, a, |k, _| array_of(k)),
        |a, _, _| Ok(a[0].map().map_or(Cell::Null, |map| parts(a[0].bytes(), &map).0)),
    )
    .usage("2.0.0", "map_keys(map('a', 1, 'b', 2))", "[a, b]"),
    cells(
        "map_values",
        "map_values(map): an array of its values",
        (1, 1),
        |n, a| of_map(n, a, |_, v| array_of(v)),
        |a, _, _| Ok(a[0].map().map_or(Cell::Null, |map| parts(a[0].bytes(), &map).1)),
    )
    .usage("2.0.0", "map_values(map('a', 1, 'b', 2))", "[1, 2]"),
    cells(
        "map_entries",
        "map_entries(map): an array of structs",
        (1, 1),
        |n, a| {
            of_map(n, a, |k, v| {
                let fields =
                    vec![Field::new("key", k.clone(), false), Field::new("value", v.clone(), true)];
                array_of(&T::Struct(fields))
            })
        },
        |a, call, arena| {
            let (key_type, value_type) = types(call.data_type(0));
            let Some(map) = a[0].map() else { return Ok(Cell::Null) };
            let mut out = BumpVec::new_in(arena);
            let mut writer = RowWriter::array(&mut out, map.len);
            let pairs = elements(map.keys, key_type).zip(elements(map.values, value_type));
            for (i, (key, value)) in pairs.enumerate() {
                let mut entry = BumpVec::new_in(arena);
                let mut fields = RowWriter::new(&mut entry, 2);
                key.put(&mut fields, 0);
                value.put(&mut fields, 1);
                writer.bytes(i, &entry);
            }
            Ok(Cell::Bytes(out.into_bump_slice()))
        },
    )
    .usage("3.0.0", "map_entries(map('a', 1))", "[{a, 1}]"),
    cells(
        "map_concat",
        "map_concat(a, b, …): one map of all entries",
        (0, MANY),
        concat,
        |a, call, arena| {
            let (key_type, value_type) = types(&call.to);
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for map in a.iter().filter_map(|map| map.map()) {
                keys.extend(elements(map.keys, key_type));
                values.extend(elements(map.values, value_type));
            }
            build(&keys, &values, key_type, (Keys::Normal, &call.semantics), arena)
        },
    )
    .usage("2.4.0", "map_concat(map('a', 1), map('b', 2))", "{a -> 1, b -> 2}"),
    cells(
        "map_contains_key",
        "map_contains_key(map, key): whether the map has the key",
        (2, 2),
        |n, a| {
            let Typed { args, is_nullable: nullable, .. } = with_key(n, a)?;
            Ok(Typed::new(args, T::Boolean, nullable))
        },
        |a, call, _| {
            let (key_type, value_type) = types(call.data_type(0));
            Ok(Cell::Bool(
                a[0].map().is_some_and(|map| find(&map, a[1], key_type, value_type).is_some()),
            ))
        },
    )
    .usage("3.3.0", "map_contains_key(map('a', 1), 'a')", "true"),
    cells(
        "map_element",
        "map[key]: NULL where there is none",
        (2, 2),
        |n, a| {
            let Typed { args, data_type: to, .. } = with_key(n, a)?;
            Ok(Typed::new(args, to, true))
        },
        |a, call, _| {
            let (key_type, value_type) = types(call.data_type(0));
            Ok(a[0]
                .map()
                .and_then(|map| find(&map, a[1], key_type, value_type))
                .unwrap_or(Cell::Null))
        },
    ),
    cells(
        "map_size",
        "size(map)",
        (1, 1),
        |n, a| of_map(n, a, |_, _| T::Int),
        |a, _, _| Ok(a[0].map().map_or(Cell::Null, |map| Cell::Long(map.len as i64))),
    ),
];

fn array_of(element: &DataType) -> DataType {
    T::Array(Box::new(element.clone()))
}

/// The key and value types of a map.
pub(super) fn types(data_type: &DataType) -> (&DataType, &DataType) {
    match data_type {
        T::Map(key, value) => (key, value),
        other => (other, other),
    }
}

fn of_map(
    name: &str,
    args: Vec<Resolved>,
    to: fn(&DataType, &DataType) -> DataType,
) -> PlanResult<Typed> {
    let T::Map(key, value) = &args[0].data_type else {
        return Err(unexpected(name, "a map", &args[0]));
    };
    let (to, nullable) = (to(key, value), args[0].nullable);
    Ok(Typed::new(args, to, nullable))
}

/// Rejects a key type that contains a map.
pub(super) fn check_key(key: &DataType) -> PlanResult<()> {
    if key.is_hashable() {
        return Ok(());
    }
    Err(PlanError::new(
        "DATATYPE_MISMATCH.INVALID_MAP_KEY_TYPE",
        format!("the keys of a map are {key}, but keys must not be or contain maps"),
        "Use the map's entries: map_entries gives them as an array",
    ))
}

/// Resolves access to a map by key. The map's keys and the key are cast to a common type, and the
/// result has the map's value type. Fails without a common type, and if the first argument is not a
/// map.
fn with_key(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let differ = |args: &[Resolved]| {
        PlanError::new(
            "DATATYPE_MISMATCH.MAP_FUNCTION_DIFF_TYPES",
            format!("`{name}` does not take {} and {}", args[0].data_type, args[1].data_type),
            "Cast one of them: a map, and a value of its keys' type",
        )
    };
    let T::Map(key, value) = args[0].data_type.clone() else { return Err(differ(&args)) };
    if name == "map_contains_key" && args[1].data_type == T::Null {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.NULL_TYPE",
            format!("`{name}` cannot search for an untyped NULL"),
            "Give the NULL a type: CAST(NULL AS INT)",
        ));
    }
    let widen = if name == "map_contains_key" { widest_without_text } else { tightest };
    if units_differ(&key, &args[1].data_type) {
        return Err(differ(&args));
    }
    let Some(common) = widen(&key, &args[1].data_type) else { return Err(differ(&args)) };
    check_order(&format!("`{name}`"), &Resolved::literal(Value::Null, common.clone()))?;
    let nullable = any_nullable(&args);
    let wanted = args.pop().map(|wanted| wanted.coerce(&common));
    let map = args.pop().map(|map| map.coerce(&T::Map(Box::new(common), value.clone())));
    Ok(Typed::new(map.into_iter().chain(wanted).collect(), *value, nullable))
}

fn named_struct(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() % 2 == 1 {
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{name}` takes names and values in pairs"),
            "named_struct('a', 1, 'b', 2)",
        ));
    }
    let mut fields = Vec::new();
    for pair in args.chunks(2) {
        let Some(name) = pair[0].literal_text() else {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.CREATE_NAMED_STRUCT_WITHOUT_FOLDABLE_STRING",
                format!("the name of a field must be a constant, but is `{}`", pair[0]),
                "",
            ));
        };
        fields.push(Field::new(name, pair[1].data_type.clone(), pair[1].nullable));
    }
    Ok(Typed::new(args, T::Struct(fields), false))
}

fn unnamed(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let field = |(i, arg): (usize, &Resolved)| {
        let name = match &arg.node {
            Node::Column(_, name) | Node::Variable(_, name) => name.clone(),
            _ => format!("col{}", i + 1),
        };
        Field::new(name, arg.data_type.clone(), arg.nullable)
    };
    let fields = args.iter().enumerate().map(field).collect();
    Ok(Typed::new(args, T::Struct(fields), false))
}

fn structure(values: Vec<Compiled>) -> Compiled {
    bytes_fn(move |cx| {
        let mut out = BumpVec::new_in(cx.arena);
        let mut writer = RowWriter::new(&mut out, values.len());
        for (i, value) in values.iter().enumerate() {
            write_field(value, cx, &mut writer, i)?;
        }
        Ok(Some(out.into_bump_slice()))
    })
}

fn map(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if args.len() % 2 == 1 {
        return Err(PlanError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            format!("`{name}` takes keys and values in pairs"),
            "map('a', 1, 'b', 2)",
        ));
    }
    let mut args = args;
    let mut keys = Vec::new();
    let mut values = Vec::new();
    while !args.is_empty() {
        let rest = args.split_off(2);
        values.extend(args.pop());
        keys.extend(args.pop());
        args = rest;
    }
    let of = |side: &str, all: Vec<Resolved>| {
        let condition = format!("DATATYPE_MISMATCH.CREATE_MAP_{side}_DIFF_TYPES");
        unify_as(&condition, "`map`", all, |all| widest_of(all.iter().map(|arg| &arg.data_type)))
    };
    let (keys, values) = (of("KEY", keys)?, of("VALUE", values)?);
    keys.first().map_or(Ok(()), |key| check_key(&key.data_type))?;
    let type_of = |all: &[Resolved]| all.first().map_or(T::Null, |first| first.data_type.clone());
    let to = T::Map(Box::new(type_of(&keys)), Box::new(type_of(&values)));
    let args = keys.into_iter().zip(values).flat_map(|(key, value)| [key, value]).collect();
    Ok(Typed::new(args, to, false))
}

fn from_arrays(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let (T::Array(key), T::Array(value)) = (&args[0].data_type, &args[1].data_type) else {
        return Err(unexpected(name, "two arrays", &args[0]));
    };
    let (to, nullable) = (T::Map(key.clone(), value.clone()), any_nullable(&args));
    Ok(Typed::new(args, to, nullable))
}

fn from_entries(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    match element_of(&args[0].data_type) {
        T::Struct(fields) if fields.len() == 2 && matches!(args[0].data_type, T::Array(_)) => {
            let (key, value) = (fields[0].data_type.clone(), fields[1].data_type.clone());
            Ok(Typed::new(args, T::Map(Box::new(key), Box::new(value)), true))
        }
        _ => Err(unexpected(name, "an array of structs with two fields", &args[0])),
    }
}

fn concat(_: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    if args.is_empty() {
        return Ok(Typed::new(args, T::Map(Box::new(T::String), Box::new(T::String)), false));
    }
    if let Some(other) = args.iter().find(|arg| !matches!(arg.data_type, T::Map(..))) {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.MAP_CONCAT_DIFF_TYPES",
            format!("`map_concat` takes maps, but `{other}` is {}", other.data_type),
            "",
        ));
    }
    let args = unify("`map_concat`", args)?;
    let to = args[0].data_type.clone();
    Ok(Typed::new(args, to, nullable))
}

/// The encoded key array and value array of a map.
fn parts<'a>(bytes: &'a [u8], map: &Map<'a>) -> (Cell<'a>, Cell<'a>) {
    // An array is encoded as its length in 8 bytes, followed by its row.
    let keys_bytes = map.keys.row.0.len() + 8;
    (Cell::Bytes(&bytes[8..8 + keys_bytes]), Cell::Bytes(&bytes[8 + keys_bytes..]))
}

/// Builds a map from its encoded key array and value array.
pub(super) fn assembled<'a>(keys: &[u8], values: &[u8], arena: &'a Bump) -> Cell<'a> {
    let mut out = BumpVec::with_capacity_in(8 + keys.len() + values.len(), arena);
    Map::write(keys, values, &mut out);
    Cell::Bytes(out.into_bump_slice())
}

/// The error DUPLICATED_MAP_KEY, with the key in its reason.
pub(super) fn duplicate_key<'a>(key: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed("DUPLICATED_MAP_KEY", format!("the key {key} occurs twice"), "Drop one of them")
}

/// How a map's keys are normalised when it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// A key -0.0 becomes 0.0. Nested keys are not changed.
    Normal,
    /// Keys are not changed, unless a duplicate key is dropped.
    AsGiven,
}

/// Builds a map from cells. A NULL key is an error. A duplicate key is an error too, unless
/// `spark.sql.mapKeyDedupPolicy` is LAST_WIN.
pub(super) fn build<'a>(
    keys: &[Cell<'_>],
    values: &[Cell<'_>],
    key_type: &DataType,
    (keep, semantics): (Keys, &Semantics),
    arena: &'a Bump,
) -> Result<Cell<'a>, Box<EvalError>> {
    if keys.iter().any(|key| key.is_null()) {
        return failed("NULL_MAP_KEY", "a key of a map is NULL", "Filter such entries before");
    }
    let mut index = ValueIndex::new(key_type);
    let twice = keys.iter().position(|key| index.insert(*key).is_err());
    if let Some(at) = twice {
        if semantics.last_key_wins {
            let (keys, values) = last_of_each(keys, values, key_type);
            return build(&keys, &values, key_type, (Keys::Normal, semantics), arena);
        }
        let shown = keys[at].value(key_type).display(key_type, semantics.zone);
        return duplicate_key(&shown.unwrap_or_default());
    }
    let array = |cells: &[Cell<'_>], change: fn(Cell<'_>) -> Cell<'_>| {
        let mut out = BumpVec::new_in(arena);
        let mut writer = RowWriter::array(&mut out, cells.len());
        cells.iter().enumerate().for_each(|(i, cell)| change(*cell).put(&mut writer, i));
        out
    };
    let change: fn(Cell<'_>) -> Cell<'_> = match keep {
        Keys::Normal => normal_key,
        Keys::AsGiven => |key| key,
    };
    Ok(assembled(&array(keys, change), &array(values, |value| value), arena))
}

/// Removes duplicate keys. Each key stays at its first position and gets its last value.
fn last_of_each<'c>(
    keys: &[Cell<'c>],
    values: &[Cell<'c>],
    key_type: &DataType,
) -> (Vec<Cell<'c>>, Vec<Cell<'c>>) {
    let (mut found, mut of) = (ValueIndex::new(key_type), Vec::new());
    for (key, value) in keys.iter().zip(values) {
        match found.insert(*key) {
            Ok(()) => of.push(*value),
            Err(at) => of[at] = *value,
        }
    }
    (found.into_values(), of)
}

/// Normalises a map key: -0.0 becomes 0.0.
fn normal_key(key: Cell<'_>) -> Cell<'_> {
    match key {
        // Adding 0.0 turns -0.0 into 0.0 and changes no other value.
        Cell::Double(x) => Cell::Double(x + 0.0),
        other => other,
    }
}

fn find<'a>(
    map: &Map<'a>,
    key: Cell<'_>,
    key_type: &DataType,
    value_type: &DataType,
) -> Option<Cell<'a>> {
    let mut keys = elements(map.keys, key_type);
    let at = keys.position(|other| order(other, key, key_type).is_eq())?;
    elements(map.values, value_type).nth(at)
}
