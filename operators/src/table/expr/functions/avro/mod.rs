//! The SQL functions `from_avro`, `to_avro` and `schema_of_avro`.

mod reading;
mod registered_decoders;

use super::bad_record::all_null;
use super::json::write_schema;
use super::registry::{Call, Function, Typed, called, cells, expect, made, unexpected};
use crate::table::avro::{Decoder, EncodeError, Encoder, Schema, schema_of};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, failed, from_cells};
use crate::table::expr::{Node, Resolved};
use crate::table::schema_registry::Header;
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
use reading::{Options, Reading, Writer, looked_up, parse_registered, parsed, unusable};
use registered_decoders::{NoDecoder, RegisteredDecoders};
use std::cell::RefCell;
use std::sync::Arc;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "from_avro",
        "from_avro(binary, 'schema as JSON'[, map('mode', 'PERMISSIVE', …)]) or from_avro(binary, 'subject', 'address of a schema registry'[, options]): the value that Avro's binary form holds",
        (2, 4),
        from_avro,
        compile_from_avro,
    )
        .usage("4.0.0", r#"from_avro(X'06', '"int"')"#, "3"),
    called(
        "to_avro",
        "to_avro(value[, 'schema as JSON']) or to_avro(value, 'subject', 'address of a schema registry'[, options]): the value in Avro's binary form",
        (1, 4),
        to_avro,
        compile_to_avro,
    )
        .usage("4.0.0", "hex(to_avro(3))", "06"),
    cells(
        "schema_of_avro",
        "schema_of_avro('schema as JSON'[, options]): the SQL type of an Avro schema",
        (1, 2),
        |name, args| {
            Reading::of(name, &args[0], args.get(1))?;
            Ok(Typed::new(args, T::String, false))
        },
        |_, call, arena| {
            let mut out = String::new();
            // This cannot fail: the same schema was parsed when the call was resolved.
            if let Ok(found) = Reading::of(call.name, &call.args[0], call.args.get(1)) {
                write_schema(&found.data_type, &mut out);
            }
            Ok(made(arena, &out))
        },
    )
        .usage("4.0.0", r#"schema_of_avro('{"type":"array","items":"string"}')"#, "ARRAY<STRING>"),
];

fn from_avro(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    reading::resolve_registry(name, &mut args)?;
    let found = Reading::of(name, &args[1], args.get(2))?;
    if let Writer::Given(writer) = &found.writer {
        Decoder::new(writer, &found.reader).map_err(|error| unusable(name, &error))?;
    }
    if !matches!(args[0].data_type, T::Binary | T::Null) {
        return Err(unexpected(name, "a BINARY", &args[0]));
    }
    args[0] = expect(name, vec![args[0].clone()], &[T::Binary])?.remove(0);
    Ok(Typed::new(args, found.data_type, true))
}

/// The decoders of a call.
enum Decoders {
    One(Decoder),
    Registered(RefCell<RegisteredDecoders>),
}

impl Decoders {
    /// Decodes a record. The inner error is the reason why the record is bad; the outer one ends the
    /// query.
    fn decode<'a>(
        &self,
        bytes: &[u8],
        arena: &'a Bump,
    ) -> Result<Result<Cell<'a>, String>, Box<EvalError>> {
        match self {
            Self::One(decoder) => Ok(decoder.decode(bytes, arena).map_err(|e| e.to_string())),
            Self::Registered(decoders) => match decoders.borrow_mut().of(bytes) {
                Ok((decoder, data)) => Ok(decoder.decode(data, arena).map_err(|e| e.to_string())),
                Err(NoDecoder::BadRecord(reason)) => Ok(Err(reason.to_string())),
                Err(NoDecoder::Fatal(error)) => Err(error),
            },
        }
    }
}

/// An expression that fails for every record. A schema of the registry that was there when the call
/// was resolved may be gone from the cache, and the registry with it.
fn compile_failure(error: PlanError, call: &Call) -> Compiled {
    from_cells(call.to.physical(), move |_| {
        failed("SCHEMA_REGISTRY_FAILED", error.reason.clone(), "Restart the query")
    })
}

fn compile_from_avro(args: Vec<Compiled>, call: Call) -> Compiled {
    let found = match Reading::of(call.name, &call.args[1], call.args.get(2)) {
        Ok(found) => found,
        Err(error) => return compile_failure(error, &call),
    };
    let has_error_column = found.has_error_column;
    let decoders = match found.writer {
        Writer::Given(writer) => match Decoder::new(&writer, &found.reader) {
            Ok(decoder) => Decoders::One(decoder.with_extra_fields(has_error_column.into())),
            Err(error) => return compile_failure(unusable(call.name, &error), &call),
        },
        Writer::Registered { registry, restarts_for } => Decoders::Registered(RefCell::new(
            RegisteredDecoders::new(registry, found.reader, restarts_for, has_error_column.into()),
        )),
    };
    let width = match &found.data_type {
        T::Struct(fields) => Some(fields.len()),
        _ => None,
    };
    let Some(binary) = args.into_iter().next() else { unreachable!("counted") };
    let binary = binary.bytes();
    from_cells(call.to.physical(), move |cx| {
        let Some(bytes) = binary(cx)? else { return Ok(Cell::Null) };
        match decoders.decode(bytes, cx.arena)? {
            Ok(value) => Ok(value),
            Err(error) if found.is_fail_fast => failed(
                "MALFORMED_AVRO_MESSAGE",
                format!("a message of {} bytes is not of its schema: {error}", bytes.len()),
                "Use the mode PERMISSIVE to get NULL instead",
            ),
            Err(error) => {
                let reason = has_error_column.then_some(error.as_str());
                Ok(width.map_or(Cell::Null, |width| all_null(width, reason, cx.arena)))
            }
        }
    })
}

/// The schema of `to_avro`'s output, and its id if the output has a header. It is that of the
/// registry or of the argument. Without both it is the schema that Spark derives from the type.
fn written_schema(name: &str, args: &[Resolved]) -> PlanResult<(Arc<Schema>, Option<u32>)> {
    let options = Options::read(name, args.get(2), &reading::OPTIONS)?;
    if let Some((_, found)) = looked_up(name, &options)? {
        let schema = parse_registered(&found).map_err(|error| unusable(name, &error))?;
        return Ok((schema, Some(found.id)));
    }
    let schema = match args.get(1) {
        Some(Resolved { node: Node::Literal(Value::Null), .. }) | None => {
            schema_of(&args[0].data_type, args[0].nullable)
        }
        Some(schema) => parsed(name, schema)?,
    };
    Ok((schema, None))
}

fn to_avro(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    reading::resolve_registry(name, &mut args)?;
    let (schema, id) = written_schema(name, &args)?;
    if args.len() > 2 && id.is_none() {
        return Err(PlanError::new(
            "MISSING_OPTION",
            format!("`{name}` has options, but no subject of a schema registry"),
            "to_avro(value, 'subject', 'http://localhost:8081')",
        ));
    }
    Encoder::new(&args[0].data_type, &schema).map_err(|error| unusable(name, &error))?;
    let is_nullable = args[0].nullable;
    Ok(Typed::new(args, T::Binary, is_nullable))
}

fn compile_to_avro(args: Vec<Compiled>, call: Call) -> Compiled {
    let encoder = written_schema(call.name, &call.args).and_then(|(schema, id)| {
        let encoder = Encoder::new(&call.args[0].data_type, &schema);
        Ok((encoder.map_err(|error| unusable(call.name, &error))?, id))
    });
    let (encoder, id) = match encoder {
        Ok(found) => found,
        Err(error) => return compile_failure(error, &call),
    };
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
        if let Some(id) = id {
            Header::write(id, &mut out);
        }
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
