//! The arguments of `from_protobuf` and `to_protobuf`: message type, descriptors and options.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::{Semantics, fold};
use crate::table::expr::functions::bad_record::{BadRecords, ERROR_COLUMN};
use crate::table::expr::functions::record_options::Options;
use crate::table::expr::functions::registry::constant_text;
use crate::table::expr::{Node, Resolved};
use crate::table::protobuf::{MessageIndex, ReadOptions, SchemaError, Shape, message_type};
use crate::table::types::DataType;
use crate::table::value::Value;
use prost_reflect::MessageDescriptor;
use std::fs::File;
use std::io::Read;

use DataType as T;

/// The maximum size of a descriptor set, in bytes.
const DESCRIPTORS_MAX: u64 = 64 << 20;

/// Whether each record begins with the header of a schema registry.
const HEADER: &str = "schema.registry.header";

/// The option names of Spark. In `to_protobuf` they have no effect, as in Spark, so that both calls may
/// have the same map.
pub const SPARK_OPTIONS: [&str; 8] = [
    "mode",
    "emit.default.values",
    "enums.as.ints",
    "upcast.unsigned.ints",
    "unwrap.primitive.wrapper.types",
    "convert.any.fields.to.json",
    "retain.empty.message.types",
    "recursive.fields.max.depth",
];

/// The further option names of `from_protobuf`.
const READER_OPTIONS: [&str; 2] = [ERROR_COLUMN, HEADER];

/// Replaces the path of a descriptor set by its bytes, so that a file that changes later does not
/// change the type of the running query.
pub fn resolve_descriptors(name: &str, args: &mut [Resolved]) -> PlanResult<()> {
    let Some(third) = args.get_mut(2).filter(|arg| !matches!(arg.data_type, T::Map(..))) else {
        return Err(PlanError::not_yet(format_args!(
            "`{name}` with a Java class, instead of a file of descriptors"
        )));
    };
    if third.data_type != T::String {
        return Ok(());
    }
    let Some(path) = constant_text(name, third)? else { return Ok(()) };
    let unreadable = |why: String| {
        PlanError::new(
            "PROTOBUF_DESCRIPTOR_FILE_NOT_FOUND",
            format!("`{name}`: cannot read the descriptors in '{path}': {why}"),
            "Write the file with protoc --include_imports --descriptor_set_out=FILE",
        )
    };
    let failed = |error: std::io::Error| unreadable(error.to_string());
    // To open a pipe waits for its writer, and a device may have no end.
    if !std::fs::metadata(&path).map_err(failed)?.is_file() {
        return Err(unreadable("it is not a regular file".to_string()));
    }
    let mut bytes = Vec::new();
    // The file may grow meanwhile.
    let read = File::open(&path)
        .and_then(|file| file.take(DESCRIPTORS_MAX + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if read as u64 > DESCRIPTORS_MAX {
        return Err(unreadable(format!("it has more than {DESCRIPTORS_MAX} bytes")));
    }
    *third = Resolved::literal(Value::Binary(bytes), T::Binary);
    Ok(())
}

/// The message type of a call whose descriptors are bytes.
pub fn message_of(name: &str, args: &[Resolved]) -> PlanResult<MessageDescriptor> {
    let hint = |which: &str, arg: &Resolved| {
        PlanError::new(
            "DATATYPE_MISMATCH.TYPE_CHECK_FAILURE_WITH_HINT",
            format!("{which} of `{name}` must be a constant, but is `{arg}`"),
            "from_protobuf(value, 'Order', '/path/of/orders.desc')",
        )
    };
    let message = constant_text(name, &args[1]).ok().flatten();
    let message = message.ok_or_else(|| hint("the message type", &args[1]))?;
    match fold(args[2].clone(), Semantics::default()).node {
        Node::Literal(Value::Binary(bytes)) => {
            message_type(&bytes, &message).map_err(|error| unusable(name, error))
        }
        _ => Err(hint("the descriptors", &args[2])),
    }
}

#[cold]
pub fn unusable(name: &str, error: SchemaError) -> PlanError {
    let fix = match error.condition {
        "RECURSIVE_PROTOBUF_SCHEMA" => "Set the option 'recursive.fields.max.depth' to 1 to 10",
        "PROTOBUF_DEPENDENCY_NOT_FOUND" => "Write the descriptors with protoc --include_imports",
        _ => "Correct the message type or its descriptors",
    };
    PlanError::new(error.condition, format!("`{name}`: {}", error.reason), fix)
}

/// The arguments of `from_protobuf`.
pub struct Reading {
    pub shape: Shape,
    pub data_type: DataType,
    pub bad_records: BadRecords,
    /// The position of the message type that the header of each record must state.
    pub header: Option<MessageIndex>,
}

impl Reading {
    pub fn of(name: &str, args: &[Resolved]) -> PlanResult<Self> {
        let message = message_of(name, args)?;
        let options = Options::read(name, args.get(3), &[&SPARK_OPTIONS, &READER_OPTIONS])?;
        let shape = Shape::of(&message, &of_types(&options)?);
        let shape = shape.map_err(|error| unusable(name, error))?;
        let mut data_type = shape.data_type();
        let bad_records = BadRecords::read(&options, &mut data_type)?;
        let shape = shape.with_extra_fields(bad_records.has_error_column.into());
        let header = is_on(&options, HEADER)?.then(|| MessageIndex::of(&message));
        Ok(Self { shape, data_type, bad_records, header })
    }
}

/// Whether an option is `true`.
fn is_on(options: &Options<'_>, option: &str) -> PlanResult<bool> {
    match options.get(option) {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
        Some(value) => Err(invalid(options, option, value, "true or false")),
    }
}

fn invalid(options: &Options<'_>, option: &str, value: &str, fix: &str) -> PlanError {
    let reason = format!("`{}`: the option '{option}' is '{value}'", options.name);
    PlanError::new("INVALID_OPTION_VALUE", reason, fix)
}

fn of_types(options: &Options<'_>) -> PlanResult<ReadOptions> {
    const DEPTH: &str = "recursive.fields.max.depth";
    let depth = options.get(DEPTH).map(|text| {
        text.trim().parse().map_err(|_| invalid(options, DEPTH, text, "a number from 1 to 10"))
    });
    Ok(ReadOptions {
        emits_defaults: is_on(options, "emit.default.values")?,
        enums_as_ints: is_on(options, "enums.as.ints")?,
        upcasts_unsigned: is_on(options, "upcast.unsigned.ints")?,
        unwraps: is_on(options, "unwrap.primitive.wrapper.types")?,
        any_as_json: is_on(options, "convert.any.fields.to.json")?,
        retains_empty: is_on(options, "retain.empty.message.types")?,
        recursion_max: depth.transpose()?,
    })
}
