//! Resolution and compilation of `from_protobuf` and `to_protobuf`.

use super::options::{Options, Reading, message_of, resolve_descriptors, unusable};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, failed, from_cells};
use crate::table::expr::functions::bad_record::all_null;
use crate::table::expr::functions::registry::{Call, Typed, expect, unexpected};
use crate::table::protobuf::{Decoder, Encoder, MessageIndex};
use crate::table::schema_registry::Header;
use crate::table::types::DataType;
use std::cell::RefCell;

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
    from_cells(call.to.physical(), move |cx| {
        let Some(bytes) = binary(cx)? else { return Ok(Cell::Null) };
        let message = match &header {
            Some(index) => after_header(bytes, index),
            None => Ok(bytes),
        };
        let mut decoder = decoder.borrow_mut();
        let decoded = message.and_then(|message| {
            decoder.decode(message, cx.arena).map_err(|error| error.to_string())
        });
        match decoded {
            Ok(value) => Ok(value),
            Err(error) if found.is_fail_fast => failed(
                "MALFORMED_PROTOBUF_MESSAGE",
                format!("a message of {} bytes is not of its type: {error}", bytes.len()),
                "Use the mode PERMISSIVE to get NULL instead",
            ),
            Err(error) => {
                let reason = found.has_error_column.then_some(error.as_str());
                Ok(all_null(width, reason, cx.arena))
            }
        }
    })
}

/// The message after the header of a schema registry. Fails if it is of another type.
fn after_header<'d>(bytes: &'d [u8], wanted: &MessageIndex) -> Result<&'d [u8], String> {
    let (_, rest) = Header::split(bytes)?;
    let (index, message) = MessageIndex::split(rest).map_err(|error| error.to_string())?;
    match index == *wanted {
        true => Ok(message),
        false => Err("the header states another message type of the schema".to_string()),
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
    Options::read(name, args.get(3))?;
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
                error.condition,
                format!("a value does not fit the message type: {error}"),
                "Correct the value or the message type",
            ),
        }
    })
}
