//! Casts to STRING.

use crate::table::datetime::Tz;
use crate::table::expr::compile::{Compiled, Eval, bytes_fn};
use crate::table::types::DataType;
use crate::table::value::{Value, write_scientific};
use bumpalo::Bump;

/// The notation of decimals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DecimalText {
    /// All digits.
    Plain,
    /// Scientific notation for small decimals, as Spark writes them with ANSI mode off.
    Scientific,
}

/// Compiles a cast to STRING.
pub(super) fn to_string(
    inner: Compiled,
    from: DataType,
    zone: Tz,
    decimals: DecimalText,
) -> Compiled {
    fn put<'a>(arena: &'a Bump, value: Value, from: &DataType, zone: Tz) -> Eval<&'a [u8]> {
        if value == Value::Null {
            return Ok(None);
        }
        let mut out = bumpalo::collections::String::new_in(arena);
        // Writing to memory does not fail.
        let _ = value.write_text(from, zone, "null", &mut out);
        Ok(Some(out.into_bump_str().as_bytes()))
    }
    match inner {
        Compiled::Bytes(f) if matches!(from, DataType::String | DataType::Binary) => {
            Compiled::Bytes(f)
        }
        Compiled::Bytes(f) => bytes_fn(move |cx| match f(cx)? {
            Some(bytes) => put(cx.arena, Value::from_bytes(bytes, &from), &from, zone),
            None => Ok(None),
        }),
        Compiled::Long(f) if from.is_integral() => bytes_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            Ok(Some(digits(value, cx.arena)))
        }),
        Compiled::Bool(f) => bytes_fn(move |cx| {
            Ok(f(cx)?.map(|v| -> &[u8] {
                if v { b"true" } else { b"false" }
            }))
        }),
        Compiled::Long(f) => {
            bytes_fn(move |cx| put(cx.arena, f(cx)?.map_or(Value::Null, Value::Long), &from, zone))
        }
        Compiled::Double(f) => bytes_fn(move |cx| {
            put(cx.arena, f(cx)?.map_or(Value::Null, Value::Double), &from, zone)
        }),
        Compiled::Decimal(f) if decimals == DecimalText::Scientific => bytes_fn(move |cx| {
            let Some(value) = f(cx)? else { return Ok(None) };
            let scale = from.as_decimal().map_or(0, |(_, scale)| scale);
            let mut out = bumpalo::collections::String::new_in(cx.arena);
            // Writing to memory does not fail.
            let _ = write_scientific(value, scale, &mut out);
            Ok(Some(out.into_bump_str().as_bytes()))
        }),
        Compiled::Decimal(f) => bytes_fn(move |cx| {
            put(cx.arena, f(cx)?.map_or(Value::Null, Value::Decimal), &from, zone)
        }),
    }
}

fn digits(value: i64, arena: &Bump) -> &[u8] {
    let (mut buffer, mut at) = ([0u8; 20], 20);
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    arena.alloc_slice_copy(&buffer[at..])
}
