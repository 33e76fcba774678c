//! Resolution and compilation of `from_protobuf` and `to_protobuf`.

use super::options::{Reading, SPARK_OPTIONS, message_of, resolve_descriptors, unusable};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, failed, from_cells};
use crate::table::expr::functions::record_encoding::compile_encoding;
use crate::table::expr::functions::record_options::Options;
use crate::table::expr::functions::registry::{Call, Typed, expect, unexpected};
use crate::table::protobuf::{Decoder, Encoder, MessageIndex};
use crate::table::schema_registry::Header;
use crate::table::types::DataType;
use std::cell::RefCell;
use std::fmt::Display;

use DataType as T;

pub fn from_protobuf(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    resolve_descriptors(name, &mut args)?;
    let found = Reading::of(name, &args)?;
    if !matches!(args[0].data_type, T::Binary | T::Null) {
        return Err(unexpected(name, "a BINARY", &args[0]));
    }
    args[0] = expect(name, vec![args[0].clone()], &[T::Binary])?.remove(0);
    Ok(Typed::new(args, found.data_type, true))
}

pub fn compile_from_protobuf(args: Vec<Compiled>, call: Call) -> Compiled {
    let Ok(found) = Reading::of(call.name, &call.args) else {
        unreachable!("resolution has read the arguments")
    };
    let Some(binary) = args.into_iter().next() else { unreachable!("counted") };
    let (binary, header, width) = (binary.bytes(), found.header, found.shape.width());
    let decoder = RefCell::new(Decoder::new(found.shape));
    let bad_records = found.bad_records;
    from_cells(call.to.physical(), move |cx| {
        let Some(bytes) = binary(cx)? else { return Ok(Cell::Null) };
        let bad = |reason: &dyn Display| {
            let condition = "MALFORMED_PROTOBUF_MESSAGE";
            bad_records.result(condition, bytes.len(), reason, Some(width), cx.arena)
        };
        let message = match header.as_ref().map_or(Ok(bytes), |index| after_header(bytes, index)) {
            Ok(message) => message,
            Err(reason) => return bad(&reason),
        };
        match decoder.borrow_mut().decode(message, cx.arena) {
            Ok(value) => Ok(value),
            Err(error) => bad(&error),
        }
    })
}

/// The message after the header of a schema registry. Fails if it is of another type.
fn after_header<'d>(bytes: &'d [u8], wanted: &MessageIndex) -> Result<&'d [u8], &'static str> {
    let (_, rest) = Header::split(bytes)?;
    let (index, message) = MessageIndex::split(rest).map_err(|error| error.reason)?;
    match index == *wanted {
        true => Ok(message),
        false => Err("the header states another message type of the schema"),
    }
}

pub fn to_protobuf(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let fields = match &args[0].data_type {
        T::Struct(fields) => Some(fields.clone()),
        T::Null => None,
        other => {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.NON_STRUCT_TYPE",
                format!("`{name}` needs a struct, but `{}` is {other}", args[0]),
                "to_protobuf(struct(id, note), 'Order', '/path/of/orders.desc')",
            ));
        }
    };
    resolve_descriptors(name, &mut args)?;
    Options::read(name, args.get(3), &[&SPARK_OPTIONS])?;
    let message = message_of(name, &args)?;
    if let Some(fields) = fields {
        Encoder::new(&fields, &message).map_err(|error| unusable(name, error))?;
    }
    let is_nullable = args[0].nullable;
    Ok(Typed::new(args, T::Binary, is_nullable))
}

pub fn compile_to_protobuf(args: Vec<Compiled>, call: Call) -> Compiled {
    let T::Struct(fields) = &call.args[0].data_type else {
        return from_cells(T::Binary.physical(), |_| Ok(Cell::Null));
    };
    let message = message_of(call.name, &call.args).ok();
    let Some(encoder) = message.and_then(|message| Encoder::new(fields, &message).ok()) else {
        unreachable!("resolution has compared the types")
    };
    compile_encoding(args, None, move |value, out| {
        encoder.encode(value, out).or_else(|error| {
            failed(
                error.condition,
                format!("a value does not fit the message type: {error}"),
                "Correct the value or the message type",
            )
        })
    })
}
