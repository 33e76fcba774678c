//! The SQL functions `from_avro`, `to_avro` and `schema_of_avro`.

mod reading;
mod registered_decoders;

use super::json::write_schema;
use super::record_encoding::compile_encoding;
use super::record_options::Options;
use super::registry::{Call, Function, Typed, called, cells, expect, made, unexpected};
use crate::table::avro::{DecodeError, Decoder, EncodeError, Encoder, Schema, schema_of};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, failed, from_cells};
use crate::table::expr::{Node, Resolved};
use crate::table::schema_registry::{Failure, OPTIONS as REGISTRY_OPTIONS};
use crate::table::types::DataType;
use crate::table::value::Value;
use bumpalo::Bump;
use reading::{
    CORRECT_THE_SCHEMA, OPTIONS, REGISTRY_FAILED, Reading, WRITER_OPTIONS, Writer, looked_up,
    parse_registered, parsed, resolve_registry, unusable,
};
use registered_decoders::{NoDecoder, RegisteredDecoders};
use std::cell::RefCell;
use std::fmt::Display;
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
    resolve_registry(name, &mut args, &OPTIONS)?;
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
    Registered(Box<RefCell<RegisteredDecoders>>),
}

impl Decoders {
    /// Decodes a record. For a bad one, `bad` makes the result from the reason. The error ends the
    /// query.
    fn decode<'a>(
        &self,
        bytes: &[u8],
        arena: &'a Bump,
        bad: impl Fn(&dyn Display) -> Result<Cell<'a>, Box<EvalError>>,
    ) -> Result<Cell<'a>, Box<EvalError>> {
        let or_bad = |decoded: Result<Cell<'a>, DecodeError>| match decoded {
            Ok(value) => Ok(value),
            Err(error) => bad(&error),
        };
        match self {
            Self::One(decoder) => or_bad(decoder.decode(bytes, arena)),
            Self::Registered(decoders) => match decoders.borrow_mut().of(bytes) {
                Ok((decoder, data)) => or_bad(decoder.decode(data, arena)),
                Err(NoDecoder::BadRecord(reason)) => bad(&reason),
                Err(NoDecoder::Fatal(error)) => Err(error),
            },
        }
    }
}

/// An expression that fails for every record. A schema of the registry that was there when the call
/// was resolved may be gone from the cache, and the registry with it.
fn compile_failure(error: PlanError, call: &Call) -> Compiled {
    let (condition, fix) = condition_and_fix(&error);
    from_cells(call.to.physical(), move |_| failed(condition, error.reason.clone(), fix))
}

/// The condition and the fix of an error of resolution, which are those of a [`Failure`] or of a
/// schema.
fn condition_and_fix(error: &PlanError) -> (&'static str, &'static str) {
    let failures = [Failure::Unknown, Failure::Unavailable, Failure::Refused, Failure::Canceled];
    let known = failures.map(|failure| {
        let failure = failure(String::new());
        (failure.condition().unwrap_or(REGISTRY_FAILED), failure.fix())
    });
    let known = known.into_iter().chain([("INVALID_SCHEMA", CORRECT_THE_SCHEMA)]);
    let mut same =
        known.filter(|(condition, fix)| (*condition, *fix) == (&error.condition, &error.fix));
    same.next().unwrap_or((REGISTRY_FAILED, "Restart the query"))
}

fn compile_from_avro(args: Vec<Compiled>, call: Call) -> Compiled {
    let found = match Reading::of(call.name, &call.args[1], call.args.get(2)) {
        Ok(found) => found,
        Err(error) => return compile_failure(error, &call),
    };
    let bad_records = found.bad_records;
    let extra_fields = bad_records.has_error_column.into();
    let decoders = match found.writer {
        Writer::Given(writer) => match Decoder::new(&writer, &found.reader) {
            Ok(decoder) => Decoders::One(decoder.with_extra_fields(extra_fields)),
            Err(error) => return compile_failure(unusable(call.name, &error), &call),
        },
        Writer::Registered { registry, restarts_for } => {
            let decoders =
                RegisteredDecoders::new(registry, found.reader, restarts_for, extra_fields);
            Decoders::Registered(Box::new(RefCell::new(decoders)))
        }
    };
    let width = match &found.data_type {
        T::Struct(fields) => Some(fields.len()),
        _ => None,
    };
    let Some(binary) = args.into_iter().next() else { unreachable!("counted") };
    let binary = binary.bytes();
    from_cells(call.to.physical(), move |cx| {
        let Some(bytes) = binary(cx)? else { return Ok(Cell::Null) };
        decoders.decode(bytes, cx.arena, |reason| {
            bad_records.result("MALFORMED_AVRO_MESSAGE", bytes.len(), reason, width, cx.arena)
        })
    })
}

/// The schema of `to_avro`'s output, and its id if the output has a header. It is that of the
/// registry or of the argument. Without both it is the schema that Spark derives from the type.
fn written_schema(name: &str, args: &[Resolved]) -> PlanResult<(Arc<Schema>, Option<u32>)> {
    let options = Options::read(name, args.get(2), &[&WRITER_OPTIONS, &REGISTRY_OPTIONS])?;
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
    resolve_registry(name, &mut args, &WRITER_OPTIONS)?;
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
    compile_encoding(args, id, move |value, out| {
        encoder.encode(value, out).or_else(|error| {
            failed(
                match error {
                    EncodeError::Null => "AVRO_CANNOT_WRITE_NULL_FIELD",
                    EncodeError::Unfit(_) => "AVRO_INCOMPATIBLE_WRITE",
                },
                format!("a value does not fit the Avro schema: {error}"),
                "Correct the value or the schema",
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_compilation_keeps_its_condition_and_fix() {
        let failures =
            [Failure::Unknown, Failure::Unavailable, Failure::Refused, Failure::Canceled];
        let failures =
            failures.map(|failure| reading::refused("f", &failure("reason".to_string())));
        let schema = crate::table::avro::Schema::parse("nothing").expect_err("no schema");
        for error in failures.into_iter().chain([unusable("f", &schema)]) {
            let (condition, fix) = condition_and_fix(&error);
            assert_eq!((condition, fix), (error.condition.as_str(), error.fix.as_str()));
        }
    }
}
