//! The arguments of `from_protobuf` and `to_protobuf`: message type, descriptors and options.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::{Semantics, fold};
use crate::table::expr::functions::bad_record::{ERROR_COLUMN, add_error_column, all_nullable};
use crate::table::expr::functions::json::{check_mode, options_of};
use crate::table::expr::functions::registry::constant_text;
use crate::table::expr::{Node, Resolved};
use crate::table::protobuf::{MessageIndex, ReadOptions, SchemaError, Shape, message_type};
use crate::table::types::DataType;
use crate::table::value::Value;
use prost_reflect::MessageDescriptor;

use DataType as T;

/// The maximum size of a descriptor set, in bytes.
const DESCRIPTORS_MAX: u64 = 64 << 20;

/// Whether each record begins with the header of a schema registry.
const HEADER: &str = "schema.registry.header";

/// The option names, as Spark spells them, and those of Millstream.
const OPTIONS: [&str; 10] = [
    "mode",
    "emit.default.values",
    "enums.as.ints",
    "upcast.unsigned.ints",
    "unwrap.primitive.wrapper.types",
    "convert.any.fields.to.json",
    "retain.empty.message.types",
    "recursive.fields.max.depth",
    ERROR_COLUMN,
    HEADER,
];

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
    let length = std::fs::metadata(&path).map_err(|error| unreadable(error.to_string()))?.len();
    if length > DESCRIPTORS_MAX {
        return Err(unreadable(format!("it has more than {DESCRIPTORS_MAX} bytes")));
    }
    let bytes = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
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
    pub is_fail_fast: bool,
    pub has_error_column: bool,
    /// The position of the message type that the header of each record must state.
    pub header: Option<MessageIndex>,
}

impl Reading {
    pub fn of(name: &str, args: &[Resolved]) -> PlanResult<Self> {
        let message = message_of(name, args)?;
        let options = Options::read(name, args.get(3))?;
        let mode = options.get("mode");
        check_mode(name, mode)?;
        let is_fail_fast = mode.is_none_or(|mode| !mode.eq_ignore_ascii_case("PERMISSIVE"));
        let shape = Shape::of(&message, &options.of_types()?);
        let shape = shape.map_err(|error| unusable(name, error))?;
        let mut data_type = shape.data_type();
        if !is_fail_fast {
            all_nullable(&mut data_type);
        }
        let has_error_column = match options.get(ERROR_COLUMN) {
            Some(column) => {
                add_error_column(name, column, is_fail_fast, &mut data_type)?;
                true
            }
            None => false,
        };
        let shape = shape.with_extra_fields(has_error_column.into());
        let header = options.is_on(HEADER)?.then(|| MessageIndex::of(&message));
        Ok(Self { shape, data_type, is_fail_fast, has_error_column, header })
    }
}

/// The options of a call, by their names in any case.
pub struct Options<'n> {
    name: &'n str,
    entries: Vec<(String, String)>,
}

impl<'n> Options<'n> {
    /// Reads the constant map of a call. NULL stands for none.
    pub fn read(name: &'n str, arg: Option<&Resolved>) -> PlanResult<Self> {
        let arg = arg.filter(|arg| !matches!(arg.node, Node::Literal(Value::Null)));
        let entries = options_of(arg)?;
        let is_known = |key: &str| OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(key));
        match entries.iter().find(|(key, _)| !is_known(key)) {
            Some((key, _)) => {
                Err(PlanError::not_yet(format_args!("the option '{key}' of `{name}`")))
            }
            None => Ok(Self { name, entries }),
        }
    }

    fn get(&self, wanted: &str) -> Option<&str> {
        let found = self.entries.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    fn is_on(&self, option: &str) -> PlanResult<bool> {
        match self.get(option) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(self.invalid(option, value, "true or false")),
        }
    }

    fn invalid(&self, option: &str, value: &str, fix: &str) -> PlanError {
        let reason = format!("`{}`: the option '{option}' is '{value}'", self.name);
        PlanError::new("INVALID_OPTION_VALUE", reason, fix)
    }

    fn of_types(&self) -> PlanResult<ReadOptions> {
        const DEPTH: &str = "recursive.fields.max.depth";
        let depth = self.get(DEPTH).map(|text| {
            text.trim().parse().map_err(|_| self.invalid(DEPTH, text, "a number from 1 to 10"))
        });
        Ok(ReadOptions {
            emits_defaults: self.is_on("emit.default.values")?,
            enums_as_ints: self.is_on("enums.as.ints")?,
            upcasts_unsigned: self.is_on("upcast.unsigned.ints")?,
            unwraps: self.is_on("unwrap.primitive.wrapper.types")?,
            any_as_json: self.is_on("convert.any.fields.to.json")?,
            retains_empty: self.is_on("retain.empty.message.types")?,
            recursion_max: depth.transpose()?,
        })
    }
}
