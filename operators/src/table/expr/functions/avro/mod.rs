//! The SQL functions `from_avro`, `to_avro` and `schema_of_avro`.

use super::json::{check_mode, options_of, write_schema};
use super::registry::{
    Call, Function, Typed, called, cells, constant_text, expect, made, unexpected,
};
use crate::table::avro::{Decoder, EncodeError, Encoder, Schema, SchemaError, schema_of, sql_type};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, failed, from_cells};
use crate::table::expr::{Node, Resolved};
use crate::table::row::RowWriter;
use crate::table::types::DataType;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;
use std::cell::RefCell;
use std::sync::Arc;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "from_avro",
        "from_avro(binary, 'schema as JSON'[, map('mode', 'PERMISSIVE', 'avroSchema', 'schema of the reader')]): the value that Avro's binary form holds",
        (2, 3),
        from_avro,
        compile_from_avro,
    )
        .usage("4.0.0", r#"from_avro(X'06', '"int"')"#, "3"),
    called(
        "to_avro",
        "to_avro(value[, 'schema as JSON']): the value in Avro's binary form",
        (1, 2),
        to_avro,
        compile_to_avro,
    )
        .usage("4.0.0", "hex(to_avro(3))", "06"),
    cells(
        "schema_of_avro",
        "schema_of_avro('schema as JSON'[, options]): the SQL type of an Avro schema",
        (1, 2),
        |name, args| {
            reading(name, &args[0], args.get(1))?;
            Ok(Typed::new(args, T::String, false))
        },
        |_, call, arena| {
            let mut out = String::new();
            // This cannot fail: the same schema was parsed when the call was resolved.
            if let Ok(found) = reading(call.name, &call.args[0], call.args.get(1)) {
                write_schema(&found.data_type, &mut out);
            }
            Ok(made(arena, &out))
        },
    )
        .usage("4.0.0", r#"schema_of_avro('{"type":"array","items":"string"}')"#, "ARRAY<STRING>"),
];

/// The parsed arguments of `from_avro`: schemas, result type and mode.
struct Reading {
    writer: Arc<Schema>,
    reader: Arc<Schema>,
    /// The SQL type of the reader's schema.
    data_type: DataType,
    is_fail_fast: bool,
}

/// The option names of `from_avro`, as Spark spells them. `avroSchemaUrl` is refused; those other
/// than `mode` and `avroSchema` have no effect.
const OPTIONS: [&str; 9] = [
    "mode",
    "avroSchema",
    "avroSchemaUrl",
    "recordName",
    "recordNamespace",
    "ignoreExtension",
    "compression",
    "datetimeRebaseMode",
    "positionalFieldMatching",
];

fn reading(name: &str, schema: &Resolved, options: Option<&Resolved>) -> PlanResult<Reading> {
    let writer = parsed(name, schema)?;
    let options = options_of(options)?;
    let get = |wanted: &str| {
        let found = options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    };
    let is_known = |key: &str| OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(key));
    let unknown = options.iter().find(|(key, _)| !is_known(key));
    let refused = ["avroSchemaUrl"].into_iter().find(|key| get(key).is_some());
    if let Some(key) = unknown.map(|(key, _)| key.as_str()).or(refused) {
        return Err(PlanError::not_yet(format_args!("the option '{key}' of `{name}`")));
    }
    let mode = get("mode");
    check_mode(name, mode)?;
    let reader = match get("avroSchema") {
        Some(text) => Schema::parse(text).map_err(|error| unusable(name, &error))?,
        None => writer.clone(),
    };
    let data_type = sql_type(&reader).map_err(|error| unusable(name, &error))?.data_type;
    let is_fail_fast = mode.is_none_or(|mode| !mode.eq_ignore_ascii_case("PERMISSIVE"));
    Ok(Reading { writer, reader, data_type, is_fail_fast })
}

/// Parses the schema in an argument. Fails unless it is a constant text that is a schema.
fn parsed(name: &str, arg: &Resolved) -> PlanResult<Arc<Schema>> {
    let is_text = matches!(arg.data_type, T::String);
    let text = if is_text { constant_text(name, arg).ok().flatten() } else { None };
    let Some(text) = text else {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.TYPE_CHECK_FAILURE_WITH_HINT",
            format!("the schema of `{name}` must be a constant text, but is `{arg}`"),
            "Write the schema as JSON",
        ));
    };
    Schema::parse(&text).map_err(|error| unusable(name, &error))
}

fn unusable(name: &str, error: &SchemaError) -> PlanError {
    PlanError::new("INVALID_SCHEMA", format!("`{name}`: {error}"), "Correct the Avro schema")
}

fn from_avro(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let mut found = reading(name, &args[1], args.get(2))?;
    Decoder::new(&found.writer, &found.reader).map_err(|error| unusable(name, &error))?;
    if !found.is_fail_fast {
        all_nullable(&mut found.data_type);
    }
    if !matches!(args[0].data_type, T::Binary | T::Null) {
        return Err(unexpected(name, "a BINARY", &args[0]));
    }
    args[0] = expect(name, vec![args[0].clone()], &[T::Binary])?.remove(0);
    Ok(Typed::new(args, found.data_type, true))
}

/// Makes all fields of all structs nullable, because in mode PERMISSIVE a bad record gives NULL
/// fields.
fn all_nullable(data_type: &mut DataType) {
    match data_type {
        T::Array(element) => all_nullable(element),
        T::Map(_, value) => all_nullable(value),
        T::Struct(fields) => {
            for field in fields {
                field.nullable = true;
                all_nullable(&mut field.data_type);
            }
        }
        _ => {}
    }
}

fn compile_from_avro(args: Vec<Compiled>, call: Call) -> Compiled {
    let Ok(found) = reading(call.name, &call.args[1], call.args.get(2)) else {
        unreachable!("resolution has read the arguments")
    };
    let Ok(decoder) = Decoder::new(&found.writer, &found.reader) else {
        unreachable!("resolution has compared the schemas")
    };
    let width = match &found.data_type {
        T::Struct(fields) => Some(fields.len()),
        _ => None,
    };
    let Some(binary) = args.into_iter().next() else { unreachable!("counted") };
    let binary = binary.bytes();
    from_cells(call.to.physical(), move |cx| {
        let Some(bytes) = binary(cx)? else { return Ok(Cell::Null) };
        match decoder.decode(bytes, cx.arena) {
            Ok(value) => Ok(value),
            Err(error) if found.is_fail_fast => failed(
                "MALFORMED_AVRO_MESSAGE",
                format!("a message of {} bytes is not of its schema: {error}", bytes.len()),
                "Use the mode PERMISSIVE to get NULL instead",
            ),
            Err(_) => Ok(width.map_or(Cell::Null, |width| all_null(width, cx.arena))),
        }
    })
}

/// A struct whose fields are all NULL.
fn all_null(width: usize, arena: &Bump) -> Cell<'_> {
    let mut out = BumpVec::new_in(arena);
    RowWriter::new(&mut out, width);
    Cell::Bytes(out.into_bump_slice())
}

/// The schema of `to_avro`'s output: the argument, or the schema that Spark derives from the type
/// if the argument is NULL or not given. Fails if it is not a schema.
fn written_schema(name: &str, args: &[Resolved]) -> PlanResult<Arc<Schema>> {
    match args.get(1) {
        Some(Resolved { node: Node::Literal(crate::table::value::Value::Null), .. }) | None => {
            Ok(schema_of(&args[0].data_type, args[0].nullable))
        }
        Some(schema) => parsed(name, schema),
    }
}

fn to_avro(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let schema = written_schema(name, &args)?;
    Encoder::new(&args[0].data_type, &schema).map_err(|error| unusable(name, &error))?;
    let is_nullable = args[0].nullable;
    Ok(Typed::new(args, T::Binary, is_nullable))
}

fn compile_to_avro(args: Vec<Compiled>, call: Call) -> Compiled {
    let encoder = written_schema(call.name, &call.args)
        .ok()
        .and_then(|schema| Encoder::new(&call.args[0].data_type, &schema).ok());
    let Some(encoder) = encoder else { unreachable!("resolution has compared the types") };
    let Some(value) = args.into_iter().next() else { unreachable!("counted") };
    let value = value.cells();
    let scratch = RefCell::new(Vec::new());
    from_cells(T::Binary.physical(), move |cx| {
        let value = value(cx)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        let mut out = scratch.borrow_mut();
        out.clear();
        match encoder.encode(value, &mut out) {
            Ok(()) => Ok(Cell::Bytes(cx.arena.alloc_slice_copy(&out))),
            Err(error) => failed(
                match error {
                    EncodeError::Null => "AVRO_CANNOT_WRITE_NULL_FIELD",
                    EncodeError::Unfit(_) => "AVRO_INCOMPATIBLE_WRITE",
                },
                format!("a value does not fit the Avro schema: {error}"),
                "Correct the value or the schema",
            ),
        }
    })
}
