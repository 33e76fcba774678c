//! The evaluation of `to_avro` and `to_protobuf`.

use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, from_cells};
use crate::table::schema_registry::Header;
use crate::table::types::DataType;
use std::cell::RefCell;

/// Compiles a call that encodes its first argument. `id` is that of the schema if the output has the
/// header of a registry.
pub fn compile_encoding(
    args: Vec<Compiled>,
    id: Option<u32>,
    encode: impl Fn(Cell<'_>, &mut Vec<u8>) -> Result<(), Box<EvalError>> + Send + 'static,
) -> Compiled {
    let Some(value) = args.into_iter().next() else { unreachable!("counted") };
    let value = value.cells();
    let scratch = RefCell::new(Vec::new());
    from_cells(DataType::Binary.physical(), move |cx| {
        let value = value(cx)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        let mut out = scratch.borrow_mut();
        out.clear();
        if let Some(id) = id {
            Header::write(id, &mut out);
        }
        encode(value, &mut out)?;
        Ok(Cell::Bytes(cx.arena.alloc_slice_copy(&out)))
    })
}
