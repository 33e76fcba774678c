//! The SQL functions on VARIANT.

use super::bad_record::all_nullable;
use super::registry::{
    Call, Function, Typed, called, cells, constant_text, made, nullable_cells, take, unexpected,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cast::OnError;
use crate::table::expr::cast::variant::{
    FromVariant, Nested, can_be_cast_to, is_convertible, to_variant, too_large,
};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, failed, from_cells, text_in};
use crate::table::row::RowWriter;
use crate::table::text::json::{VariantError, parse_variant};
use crate::table::types::{DataType, Field, Schema};
use crate::table::variant::{
    BuildError, Builder, Content, InvalidPath, Path, Shape, Variant, type_of,
};
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "parse_json",
        "parse_json(text): JSON as a VARIANT",
        (1, 1),
        |name, args| {
            let is_nullable = args[0].nullable;
            Ok(Typed::new(only(name, args, &T::String)?, T::Variant, is_nullable))
        },
        compile_parse,
    )
    .usage("4.0.0", r#"string(parse_json('{"b":1,"a":[true]}'))"#, r#"{"a":[true],"b":1}"#),
    called(
        "try_parse_json",
        "try_parse_json(text): JSON as a VARIANT, NULL for what is not JSON",
        (1, 1),
        |name, args| Ok(Typed::new(only(name, args, &T::String)?, T::Variant, true)),
        compile_parse,
    )
    .usage("4.0.0", "string(try_parse_json('{\"a\":'))", "NULL"),
    called(
        "variant_get",
        "variant_get(variant, '$.a[0]'[, 'type']): the part that a path leads to, cast to the type",
        (2, 3),
        resolve_get,
        compile_get,
    )
    .usage("4.0.0", r#"variant_get(parse_json('{"a":[1,"2"]}'), '$.a[1]', 'int')"#, "2"),
    called(
        "try_variant_get",
        "try_variant_get(variant, '$.a[0]'[, 'type']): as `variant_get`, but NULL for what is not of the type",
        (2, 3),
        resolve_get,
        compile_get,
    )
    .usage("4.0.0", r#"try_variant_get(parse_json('{"a":"x"}'), '$.a', 'int')"#, "NULL"),
    nullable_cells(
        "is_variant_null",
        "is_variant_null(variant): whether it is JSON's null",
        (1, 1),
        |name, args| Ok(Typed::new(only(name, args, &T::Variant)?, T::Boolean, false)),
        |a, _, _| {
            let is_null = match a[0] {
                Cell::Bytes(bytes) => matches!(Variant::new(bytes).content(), Content::Null),
                _ => false,
            };
            Ok(Cell::Bool(is_null))
        },
    )
    .usage("4.0.0", "is_variant_null(parse_json('null'))", "true"),
    cells(
        "is_valid_variant",
        "is_valid_variant(variant): true, because a malformed VARIANT cannot be made or read",
        (1, 1),
        |name, args| {
            let is_nullable = args[0].nullable;
            Ok(Typed::new(only(name, args, &T::Variant)?, T::Boolean, is_nullable))
        },
        |_, _, _| Ok(Cell::Bool(true)),
    )
    .usage("4.2.0", "is_valid_variant(parse_json('1'))", "true"),
    cells(
        "schema_of_variant",
        "schema_of_variant(variant): its type",
        (1, 1),
        |name, args| {
            let is_nullable = args[0].nullable;
            Ok(Typed::new(only(name, args, &T::Variant)?, T::String, is_nullable))
        },
        |a, _, arena| Ok(made(arena, &Shape(&type_of(Variant::new(a[0].bytes()))).to_string())),
    )
    .usage(
        "4.0.0",
        r#"schema_of_variant(parse_json('[{"b":true,"a":0}]'))"#,
        "ARRAY<OBJECT<a: BIGINT, b: BOOLEAN>>",
    ),
    called(
        "to_variant_object",
        "to_variant_object(struct, array or map): as a VARIANT",
        (1, 1),
        resolve_to_object,
        |args, call| {
            let from = call.data_type(0).clone();
            let [value] = take(args);
            to_variant(value, from)
        },
    )
    .usage("4.0.0", "string(to_variant_object(named_struct('b', 1, 'a', 2)))", r#"{"a":2,"b":1}"#),
    cells(
        "variant_entries",
        "variant_entries(variant)",
        (1, 1),
        |_, _| {
            Err(PlanError::new(
                "UNRESOLVED_ROUTINE",
                "`variant_entries` is internal",
                "Use variant_explode",
            ))
        },
        |a, _, arena| Ok(entries(Variant::new(a[0].bytes()), arena)),
    ),
];

/// Casts an untyped NULL to the only type that the function takes. Any other type is refused.
pub(super) fn only(name: &str, args: Vec<Resolved>, to: &DataType) -> PlanResult<Vec<Resolved>> {
    match args.iter().find(|arg| arg.data_type != *to && arg.data_type != T::Null) {
        Some(arg) => Err(unexpected(name, &format!("a {to}"), arg)),
        None => Ok(args.into_iter().map(|arg| arg.coerce(to)).collect()),
    }
}

fn compile_parse(args: Vec<Compiled>, call: Call) -> Compiled {
    let is_try = call.name == "try_parse_json";
    let [text] = take(args);
    let text = text.bytes();
    from_cells(T::Variant.physical(), move |cx| {
        let Some(bytes) = text(cx)? else { return Ok(Cell::Null) };
        let json = text_in(bytes, cx.arena);
        let mut out = BumpVec::new_in(cx.arena);
        match Builder::with(&mut out, |builder| parse_variant(json, builder)) {
            Ok(()) => Ok(Cell::Bytes(out.into_bump_slice())),
            Err(_) if is_try => Ok(Cell::Null),
            Err(VariantError::Build(BuildError::TooLarge)) => too_large(),
            Err(error) => not_json(json, &error),
        }
    })
}

#[cold]
fn not_json<'a>(json: &str, error: &VariantError) -> Result<Cell<'a>, Box<EvalError>> {
    let reason = match error {
        VariantError::Build(BuildError::DuplicateName(name)) => {
            format!("an object has two fields `{name}`: {json}")
        }
        _ => format!("'{json}' is not JSON"),
    };
    failed(
        "MALFORMED_RECORD_IN_PARSING.WITHOUT_SUGGESTION",
        reason,
        "Use try_parse_json to get NULL instead",
    )
}

fn resolve_to_object(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let from = &args[0].data_type;
    if !from.is_nested() || !is_convertible(from, Nested::All) {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.CAST_WITHOUT_SUGGESTION",
            format!("`{name}` does not take `{}`, which is {from}", args[0]),
            "Use a struct, an array, or a map with STRING keys; CAST(x AS VARIANT) takes scalars",
        ));
    }
    let is_nullable = args[0].nullable;
    Ok(Typed::new(args, T::Variant, is_nullable))
}

fn resolve_get(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let mut to = match args.get(2) {
        None => T::Variant,
        Some(arg) => target(name, arg)?,
    };
    all_nullable(&mut to);
    if !can_be_cast_to(&to) {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.CAST_WITHOUT_SUGGESTION",
            format!("`{name}` cannot cast a VARIANT to {to}"),
            "Use a number, a text, a date or timestamp, BINARY, or an array, struct or map of them",
        ));
    }
    args.truncate(2);
    let path = only(name, args.split_off(1), &T::String)?;
    let args: Vec<_> = only(name, args, &T::Variant)?.into_iter().chain(path).collect();
    if let Some(text) = args[1].literal_text()
        && Path::parse(text).is_err()
    {
        return Err(PlanError::new(
            "INVALID_VARIANT_GET_PATH",
            format!("'{text}' is not a path of `{name}`"),
            PATH_FIX,
        ));
    }
    Ok(Typed::new(args, to, true))
}

const PATH_FIX: &str = "Write $ and steps such as .name, ['name'] and [0]";

/// The type in an argument.
fn target(name: &str, arg: &Resolved) -> PlanResult<DataType> {
    let text = constant_text(name, arg).ok().flatten().ok_or_else(|| {
        PlanError::new(
            "INVALID_SCHEMA.NON_STRING_LITERAL",
            format!("the type of `{name}` must be a constant text, but is `{arg}`"),
            "variant_get(value, '$.a', 'int')",
        )
    })?;
    let mut fields = Schema::parse_ddl(&format!("t {text}"))?.fields;
    match (fields.pop(), fields.is_empty()) {
        (Some(field), true) => Ok(field.data_type),
        _ => Err(PlanError::new(
            "PARSE_SYNTAX_ERROR",
            format!("'{text}' is not a type"),
            "variant_get(value, '$.a', 'int')",
        )),
    }
}

fn compile_get(args: Vec<Compiled>, call: Call) -> Compiled {
    let on_error = if call.name == "variant_get" { OnError::Fail } else { OnError::Null };
    let cast = FromVariant::new(&call.to, on_error, call.semantics.zone);
    let fixed = call.text(1).and_then(|text| Path::parse(text).ok());
    let [value, path] = take(args);
    let (value, path) = (value.bytes(), path.bytes());
    from_cells(call.to.physical(), move |cx| {
        let (Some(value), Some(path)) = (value(cx)?, path(cx)?) else { return Ok(Cell::Null) };
        let value = Variant::new(value);
        if let Some(path) = &fixed {
            return cast.cast_at(value, path, cx);
        }
        let text = text_in(path, cx.arena);
        match Path::parse(text) {
            Ok(path) => cast.cast_at(value, &path, cx),
            Err(InvalidPath) => failed(
                "INVALID_VARIANT_GET_PATH",
                format!("'{text}' is not a path of `{}`", call.name),
                PATH_FIX,
            ),
        }
    })
}

/// The rows of `variant_explode`: position, name and value of each part. Empty for a scalar.
fn entries<'a>(value: Variant<'a>, arena: &'a Bump) -> Cell<'a> {
    let (parts, is_object) = match value.content() {
        Content::Object(parts) => (Some(parts), true),
        Content::Array(parts) => (Some(parts), false),
        _ => (None, false),
    };
    let mut out = BumpVec::new_in(arena);
    let mut rows = RowWriter::array(&mut out, parts.map_or(0, |parts| parts.len));
    for (index, part) in parts.iter().flat_map(|parts| parts.values()).enumerate() {
        let mut bytes = BumpVec::new_in(arena);
        // A part is not longer than its whole, whose length was checked.
        let _ = Builder::with(&mut bytes, |builder| builder.variant(part));
        let mut row = BumpVec::new_in(arena);
        let mut writer = RowWriter::new(&mut row, 3);
        writer.long(0, index as i64);
        if let Some(parts) = parts.filter(|_| is_object) {
            writer.bytes(1, parts.name(index));
        }
        writer.bytes(2, &bytes);
        rows.bytes(index, &row);
    }
    Cell::Bytes(out.into_bump_slice())
}

/// Resolves the argument of `variant_explode` to the array for whose elements rows are emitted.
pub fn variant_entries(name: &str, arg: Resolved) -> PlanResult<Resolved> {
    let args = only(name, vec![arg], &T::Variant)?;
    let fields = vec![
        Field::new("pos", T::Int, false),
        Field::new("key", T::String, true),
        Field::new("value", T::Variant, false),
    ];
    let nullable = args[0].nullable;
    let data_type = T::Array(Box::new(T::Struct(fields)));
    Ok(Resolved {
        node: crate::table::expr::Node::Call("variant_entries", args),
        data_type,
        nullable,
    })
}
