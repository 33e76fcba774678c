//! The SQL functions that change a VARIANT at a path.

use super::registry::{Call, Function, MANY, Typed, any_nullable, called, take, unexpected};
use super::variant::only;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cast::variant::too_large;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{
    BytesFn, Compiled, Cx, EvalError, Semantics, failed, fold, from_cells, text_in,
};
use crate::table::expr::resolve::cast;
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;
use crate::table::value::Value;
use crate::table::variant::{BuildError, Builder, Change, ChangeError, Path, Variant};
use bumpalo::collections::Vec as BumpVec;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "variant_insert",
        "variant_insert(variant, '$.a', value): with a new field, or an element before the index",
        (3, 3),
        resolve_change,
        compile_change,
    )
    .usage("4.3.0", r#"string(variant_insert(parse_json('[1,3]'), '$[1]', 2))"#, "[1,2,3]"),
    called(
        "try_variant_insert",
        "try_variant_insert(variant, '$.a', value): as `variant_insert`, but NULL where it fails",
        (3, 3),
        resolve_change,
        compile_change,
    )
    .usage("4.3.0", r#"try_variant_insert(parse_json('{"a":1}'), '$.a', 2)"#, "NULL"),
    called(
        "variant_set",
        "variant_set(variant, '$.a', value[, creates]): with the value at the path, which is added if it is missing",
        (3, 4),
        resolve_change,
        compile_change,
    )
    .usage("4.3.0", r#"string(variant_set(parse_json('{"a":1}'), '$.b', 2))"#, r#"{"a":1,"b":2}"#),
    called(
        "try_variant_set",
        "try_variant_set(variant, '$.a', value[, creates]): as `variant_set`, but NULL where it fails",
        (3, 4),
        resolve_change,
        compile_change,
    )
    .usage("4.3.0", r#"try_variant_set(parse_json('[1]'), '$.a', 2)"#, "NULL"),
    called(
        "variant_array_append",
        "variant_array_append(variant, '$.a', value): with one more element in an array",
        (3, 3),
        resolve_change,
        compile_change,
    )
    .usage("4.3.0", r#"string(variant_array_append(parse_json('[1]'), '$', 2))"#, "[1,2]"),
    called(
        "try_variant_array_append",
        "try_variant_array_append(variant, '$.a', value): as `variant_array_append`, but NULL where it fails",
        (3, 3),
        resolve_change,
        compile_change,
    )
    .usage("4.3.0", r#"try_variant_array_append(parse_json('1'), '$', 2)"#, "NULL"),
    called(
        "variant_delete",
        "variant_delete(variant, '$.a', …): without what the paths lead to, one path after the other",
        (2, MANY),
        resolve_delete,
        compile_delete,
    )
    .usage("4.3.0", r#"string(variant_delete(parse_json('{"a":1,"b":2}'), '$.a'))"#, r#"{"b":2}"#),
    called(
        "variant_strip_nulls",
        "variant_strip_nulls(variant[, in_arrays]): without fields, and elements, that are null",
        (1, 2),
        resolve_strip,
        compile_strip,
    )
    .usage("4.3.0", r#"string(variant_strip_nulls(parse_json('{"a":null}')))"#, "{}"),
];

/// A path that leads to the whole value is allowed for an array that gets an element.
fn path_of(name: &str, text: &str) -> Result<Path, String> {
    match Path::parse(text) {
        Ok(path) if !path.is_root() || name.ends_with("array_append") => Ok(path),
        Ok(_) => Err(format!("'{text}' is the whole value, which `{name}` cannot change")),
        Err(_) => Err(format!("'{text}' is not a path of `{name}`")),
    }
}

const INVALID_PATH: &str = "INVALID_VARIANT_PATH";
const PATH_FIX: &str = "Write $ and steps such as .name, ['name'] and [0]";

/// The path argument as a STRING. A path that is written in the call is checked.
fn path_argument(name: &str, arg: Resolved) -> PlanResult<Resolved> {
    let path = only(name, vec![arg], &T::String)?;
    if let Some(text) = path[0].literal_text() {
        path_of(name, text).map_err(|reason| PlanError::new(INVALID_PATH, reason, PATH_FIX))?;
    }
    let [path] = take(path);
    Ok(path)
}

fn variant_argument(name: &str, arg: Resolved) -> PlanResult<Resolved> {
    let [variant] = take(only(name, vec![arg], &T::Variant)?);
    Ok(variant)
}

/// A flag as a literal: it must be constant.
fn flag_argument(name: &str, arg: &Resolved) -> PlanResult<Resolved> {
    if !matches!(arg.data_type, T::Boolean | T::Null) {
        return Err(unexpected(name, "a constant BOOLEAN", arg));
    }
    match fold(arg.clone().coerce(&T::Boolean), Semantics::default()) {
        flag @ Resolved { node: Node::Literal(_), .. } => Ok(flag),
        _ => Err(PlanError::new(
            "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
            format!("`{name}` needs a constant flag, but has `{arg}`"),
            "Use true or false",
        )),
    }
}

fn resolve_change(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let mut given = args.into_iter();
    let (Some(variant), Some(path), Some(value)) = (given.next(), given.next(), given.next())
    else {
        unreachable!("resolution counted the arguments")
    };
    let mut args = vec![
        variant_argument(name, variant)?,
        path_argument(name, path)?,
        cast(value, &T::Variant, false)?,
    ];
    for flag in given {
        args.push(flag_argument(name, &flag)?);
    }
    let is_nullable = name.starts_with("try_") || any_nullable(&args);
    Ok(Typed::new(args, T::Variant, is_nullable))
}

/// A path that is parsed once if it is the same for all records.
struct PathArgument {
    name: &'static str,
    text: BytesFn,
    fixed: Option<Path>,
}

impl PathArgument {
    fn new(name: &'static str, text: Compiled, literal: Option<&str>) -> Self {
        let fixed = literal.and_then(|text| path_of(name, text).ok());
        Self { name, text: text.bytes(), fixed }
    }

    /// Calls `change` with the path of a record; the result is `None` if the path is NULL.
    fn with<T>(
        &self,
        cx: Cx<'_>,
        change: impl FnOnce(&Path) -> Result<T, Box<EvalError>>,
    ) -> Result<Option<T>, Box<EvalError>> {
        if let Some(path) = &self.fixed {
            return change(path).map(Some);
        }
        let Some(text) = (self.text)(cx)? else { return Ok(None) };
        match path_of(self.name, text_in(text, cx.arena)) {
            Ok(path) => change(&path).map(Some),
            Err(reason) => failed(INVALID_PATH, reason, PATH_FIX),
        }
    }
}

fn compile_change(args: Vec<Compiled>, call: Call) -> Compiled {
    let is_try = call.name.starts_with("try_");
    let (is_insert, is_append) =
        (call.name.ends_with("_insert"), call.name.ends_with("_array_append"));
    let creates = match call.args.get(3).map(|flag| &flag.node) {
        None => Some(true),
        Some(Node::Literal(Value::Boolean(creates))) => Some(*creates),
        Some(_) => None,
    };
    let mut args = args.into_iter();
    let (Some(value), Some(path), Some(added)) = (args.next(), args.next(), args.next()) else {
        unreachable!("resolution counted the arguments")
    };
    let path = PathArgument::new(call.name, path, call.text(1));
    let (value, added) = (value.bytes(), added.bytes());
    from_cells(T::Variant.physical(), move |cx| {
        let (Some(value), Some(creates)) = (value(cx)?, creates) else { return Ok(Cell::Null) };
        let changed = path.with(cx, |path| {
            let Some(added) = added(cx)? else { return Ok(Cell::Null) };
            let added = Variant::new(added);
            let change = match (is_insert, is_append) {
                (true, _) => Change::Insert(added),
                (_, true) => Change::Append(added),
                _ => Change::Set { value: added, creates },
            };
            let mut out = BumpVec::new_in(cx.arena);
            let build = |builder: &mut Builder| builder.changed(Variant::new(value), path, change);
            match Builder::with(&mut out, build) {
                Ok(()) => Ok(Cell::Bytes(out.into_bump_slice())),
                Err(ChangeError::Build(BuildError::TooLarge)) => too_large(),
                Err(_) if is_try => Ok(Cell::Null),
                Err(error) => cannot_change(call.name, &error),
            }
        })?;
        Ok(changed.unwrap_or(Cell::Null))
    })
}

#[cold]
fn cannot_change<'a>(name: &str, error: &ChangeError) -> Result<Cell<'a>, Box<EvalError>> {
    match error {
        ChangeError::FieldExists(field) | ChangeError::Build(BuildError::DuplicateName(field)) => {
            failed(
                "VARIANT_DUPLICATE_KEY",
                format!("`{name}` would add a field `{field}` that the object has already"),
                "Use variant_set, which replaces it, or try_variant_insert, which gives NULL",
            )
        }
        ChangeError::Build(BuildError::TooLarge) => too_large(),
        ChangeError::OtherKind => failed(
            "VARIANT_PATH_TYPE_MISMATCH",
            format!(
                "the path of `{name}` takes a field from what is no object, or an element from \
                 what is no array"
            ),
            "The functions with try_ before their names give NULL instead",
        ),
    }
}

fn resolve_delete(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let mut given = args.into_iter();
    let Some(variant) = given.next() else { unreachable!("resolution counted the arguments") };
    let variant = variant_argument(name, variant)?;
    let is_nullable = variant.nullable;
    let paths = given.map(|path| path_argument(name, path));
    let args = std::iter::once(Ok(variant)).chain(paths).collect::<PlanResult<Vec<_>>>()?;
    Ok(Typed::new(args, T::Variant, is_nullable))
}

fn compile_delete(args: Vec<Compiled>, call: Call) -> Compiled {
    let mut args = args.into_iter();
    let Some(value) = args.next() else { unreachable!("resolution counted the arguments") };
    let value = value.bytes();
    let paths = args.enumerate();
    let paths: Vec<_> =
        paths.map(|(at, path)| PathArgument::new(call.name, path, call.text(at + 1))).collect();
    from_cells(T::Variant.physical(), move |cx| {
        let Some(mut value) = value(cx)? else { return Ok(Cell::Null) };
        for path in &paths {
            let changed = path.with(cx, |path| {
                let mut out = BumpVec::new_in(cx.arena);
                let whole = Variant::new(value);
                let build = |builder: &mut Builder| builder.changed(whole, path, Change::Delete);
                match Builder::with(&mut out, build) {
                    Ok(()) => Ok(Some(out.into_bump_slice())),
                    Err(error) => cannot_change(call.name, &error).map(|_| None),
                }
            })?;
            // A path that is NULL is passed over.
            value = changed.flatten().map_or(value, |changed| changed);
        }
        Ok(Cell::Bytes(value))
    })
}

fn resolve_strip(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let mut given = args.into_iter();
    let Some(variant) = given.next() else { unreachable!("resolution counted the arguments") };
    let mut args = vec![variant_argument(name, variant)?];
    for flag in given {
        args.push(flag_argument(name, &flag)?);
    }
    let is_nullable = any_nullable(&args);
    Ok(Typed::new(args, T::Variant, is_nullable))
}

fn compile_strip(args: Vec<Compiled>, call: Call) -> Compiled {
    let in_arrays = match call.args.get(1).map(|flag| &flag.node) {
        None => Some(true),
        Some(Node::Literal(Value::Boolean(in_arrays))) => Some(*in_arrays),
        Some(_) => None,
    };
    let Some(value) = args.into_iter().next() else {
        unreachable!("resolution counted the arguments")
    };
    let value = value.bytes();
    from_cells(T::Variant.physical(), move |cx| {
        let (Some(value), Some(in_arrays)) = (value(cx)?, in_arrays) else {
            return Ok(Cell::Null);
        };
        let mut out = BumpVec::new_in(cx.arena);
        let value = Variant::new(value);
        match Builder::with(&mut out, |builder| builder.without_nulls(value, in_arrays)) {
            Ok(()) => Ok(Cell::Bytes(out.into_bump_slice())),
            Err(error) => cannot_change(call.name, &ChangeError::Build(error)),
        }
    })
}
