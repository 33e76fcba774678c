//! String functions. As in Spark, lengths and positions count characters of a STRING and bytes of a
//! BINARY, except that `octet_length` always counts bytes.

use super::registry::{Function, MANY, Typed, any_nullable, expect, function, take};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::compile::{
    BytesFn, Compiled, bool_fn, bounded_record, bytes_fn, failed, long_fn, text, text_in,
};
use crate::table::expr::functions::string_rare::bounded;
use crate::table::expr::type_rules::Rules;
use crate::table::row::Array;
use crate::table::text::utf8;
use crate::table::types::DataType;
use bumpalo::Bump;
use bumpalo::collections::{String as BumpString, Vec as BumpVec};
use std::collections::HashSet;

pub(super) static FUNCTIONS: &[Function] = &[
    function("upper", "upper(s): in capitals", (1, 1), text_to_text, |a, _, _| {
        map_text(a, |s, arena| {
            if s.is_ascii() {
                case(s, arena, u8::to_ascii_uppercase)
            } else {
                arena.alloc_str(&s.to_uppercase())
            }
        })
    })
    .usage("1.0.1", "upper('Millstream')", "MILLSTREAM"),
    function("lower", "lower(s): in small letters", (1, 1), text_to_text, |a, _, _| {
        map_text(a, |s, arena| {
            if s.is_ascii() {
                case(s, arena, u8::to_ascii_lowercase)
            } else {
                arena.alloc_str(&s.to_lowercase())
            }
        })
    })
    .usage("1.0.1", "lower('Millstream')", "millstream"),
    function("initcap", "initcap(s): each word with a capital", (1, 1), text_to_text, |a, _, _| {
        map_text(a, initcap)
    })
    .usage("1.5.0", "initcap('a mill stream')", "A Mill Stream"),
    function("reverse", "reverse(text or array): from end to start", (1, 1), reverse, |a, e, _| {
        if let DataType::Array(element) = &e[0].data_type {
            return super::array::reversed(a, (**element).clone());
        }
        reversed(a, Unit::of(&e[0].data_type))
    })
    .usage("1.5.0", "reverse('stream')", "maerts"),
    function(
        "trim",
        "trim([characters, ]s): without spaces, or those characters, at both ends",
        (1, 2),
        text_to_text,
        |a, _, _| trim(a, Ends::Both),
    )
    .usage("1.5.0", "trim('  a b ')", "a b"),
    function(
        "ltrim",
        "ltrim([characters, ]s): without them at the start",
        (1, 2),
        text_to_text,
        |a, _, _| trim(a, Ends::Start),
    )
    .usage("1.5.0", "ltrim('x', 'xxaxx')", "axx"),
    function(
        "rtrim",
        "rtrim([characters, ]s): without them at the end",
        (1, 2),
        text_to_text,
        |a, _, _| trim(a, Ends::End),
    )
    .usage("1.5.0", "rtrim('x', 'xxaxx')", "xxa"),
    function(
        "btrim",
        "btrim(s[, characters]): without them at both ends",
        (1, 2),
        text_to_text,
        |mut a, _, _| {
            a.reverse();
            trim(a, Ends::Both)
        },
    )
    .usage("3.2.0", "btrim('xxaxx', 'x')", "a"),
    function(
        "length",
        "length(s): characters, or bytes of a BINARY",
        (1, 1),
        text_to_int,
        |a, e, _| {
            measure(a, if e[0].data_type == DataType::Binary { <[u8]>::len } else { utf8::count })
        },
    )
    .usage("1.5.0", "length('stream')", "6"),
    function("octet_length", "octet_length(s): number of bytes", (1, 1), text_to_int, |a, _, _| {
        measure(a, <[u8]>::len)
    })
    .usage("2.3.0", "octet_length('é')", "2"),
    function(
        "concat",
        "concat(a, b, …) or a || b: the texts, bytes or arrays one after another",
        (0, MANY),
        concat,
        compile_concat,
    )
    .usage("1.5.0", "concat('mill', 'stream')", "millstream"),
    function(
        "concat_ws",
        "concat_ws(separator, a, …): joins what is not NULL",
        (1, MANY),
        concat_ws,
        compile_concat_ws,
    )
    .usage("1.5.0", "concat_ws('-', 'a', NULL, 'b')", "a-b"),
    function(
        "substring",
        "substring(s, start[, length]): from 1; negative starts count from the end",
        (2, 3),
        text_or_bytes,
        compile_substring,
    )
    .usage("1.5.0", "substring('Millstream', 5, 3)", "str"),
    function(
        "lpad",
        "lpad(s, length[, pad]): filled or cut on the left",
        (2, 3),
        pad,
        |a, _, to| compile_pad(a, Unit::of(to), Ends::Start),
    )
    .usage("1.5.0", "lpad('7', 3, '0')", "007"),
    function(
        "rpad",
        "rpad(s, length[, pad]): filled or cut on the right",
        (2, 3),
        pad,
        |a, _, to| compile_pad(a, Unit::of(to), Ends::End),
    )
    .usage("1.5.0", "rpad('7', 3, '0')", "700"),
    function(
        "startswith",
        "startswith(s, prefix): whether s begins with it",
        (2, 2),
        text_to_bool,
        |a, _, _| test(a, |s, p| s.starts_with(p)),
    )
    .usage("3.3.0", "startswith('Millstream', 'Mill')", "true"),
    function(
        "endswith",
        "endswith(s, suffix): whether s ends with it",
        (2, 2),
        text_to_bool,
        |a, _, _| test(a, |s, p| s.ends_with(p)),
    )
    .usage("3.3.0", "endswith('Millstream', 'stream')", "true"),
    function(
        "contains",
        "contains(s, part): whether the part is in s",
        (2, 2),
        text_to_bool,
        |a, _, _| test(a, |s, p| memchr::memmem::find(s, p).is_some()),
    )
    .usage("3.3.0", "contains('Millstream', 'ls')", "true"),
];

fn text_to_text(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok(Typed::new(expect(name, args, &[DataType::String])?, DataType::String, nullable))
}

fn reverse(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if matches!(args[0].data_type, DataType::Array(_)) {
        let (to, nullable) = (args[0].data_type.clone(), args[0].nullable);
        return Ok(Typed::new(args, to, nullable));
    }
    text_or_bytes(name, args)
}

/// Resolves a function of a STRING or BINARY, followed by integers.
pub(super) fn text_or_bytes(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let to = match args[0].data_type {
        DataType::Binary => DataType::Binary,
        _ => DataType::String,
    };
    Ok(Typed::new(expect(name, args, &[to.clone(), DataType::Int])?, to, nullable))
}

fn text_to_int(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let args = if args[0].data_type == DataType::Binary {
        args
    } else {
        expect(name, args, &[DataType::String])?
    };
    Ok(Typed::new(args, DataType::Int, nullable))
}

fn text_to_bool(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok(Typed::new(expect(name, args, &[DataType::String])?, DataType::Boolean, nullable))
}

fn concat(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    if args.iter().any(|arg| matches!(arg.data_type, DataType::Array(_))) {
        // If one argument is an array, all arguments must be arrays. An untyped NULL is not
        // accepted as an array.
        let others = args.iter().filter(|arg| !matches!(arg.data_type, DataType::Array(_)));
        if let Some(other) = others.clone().find(|arg| arg.data_type.is_nested()) {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE",
                format!("`concat` joins arrays, but `{other}` is {}", other.data_type),
                "Leave it out, or put it into an array: array(…)",
            ));
        }
        if let Some(other) = others.into_iter().next() {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.DATA_DIFF_TYPES",
                format!("`concat` joins arrays, but `{other}` is {}", other.data_type),
                "Give a NULL the type of an array, and put a value into one: array(…)",
            ));
        }
        let args = crate::table::expr::resolve::unify("`concat`", args)?;
        let data_type = args[0].data_type.clone();
        return Ok(Typed::new(args, data_type, nullable));
    }
    let as_text = Rules::current().naming.concat_as_text;
    if !as_text && !args.is_empty() && args.iter().all(|arg| arg.data_type == DataType::Binary) {
        return Ok(Typed::new(args, DataType::Binary, nullable));
    }
    text_to_text(name, args)
}

fn concat_ws(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = args[0].nullable;
    let strings = DataType::Array(Box::new(DataType::String));
    let args = args.into_iter().enumerate().map(|(i, arg)| match &arg.data_type {
        DataType::Array(element) if i > 0 && !element.is_nested() => {
            crate::table::expr::resolve::cast(arg, &strings, false)
        }
        _ => Ok(expect(name, vec![arg], &[DataType::String])?.remove(0)),
    });
    Ok(Typed::new(args.collect::<PlanResult<_>>()?, DataType::String, nullable))
}

fn pad(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    // The result is BINARY only if the text and the padding, if there is one, are BINARY.
    let bytes = args.iter().step_by(2).all(|arg| arg.data_type == DataType::Binary);
    let to = if bytes { DataType::Binary } else { DataType::String };
    let types = [to.clone(), DataType::Int, to.clone()];
    Ok(Typed::new(expect(name, args, &types)?, to, nullable))
}

fn case<'a>(s: &str, arena: &'a Bump, change: fn(&u8) -> u8) -> &'a str {
    let bytes = arena.alloc_slice_fill_iter(s.bytes().map(|b| change(&b)));
    text(bytes)
}

fn map_text(args: Vec<Compiled>, f: for<'a> fn(&str, &'a Bump) -> &'a str) -> Compiled {
    let [a] = take(args);
    let a = a.bytes();
    bytes_fn(move |cx| Ok(a(cx)?.map(|s| f(text_in(s, cx.arena), cx.arena).as_bytes())))
}

/// The unit in which positions and lengths are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Characters, for STRING.
    Char,
    /// Bytes, for BINARY.
    Byte,
}

impl Unit {
    /// Bytes for BINARY, characters for every other type.
    pub(super) fn of(data_type: &DataType) -> Self {
        if *data_type == DataType::Binary { Self::Byte } else { Self::Char }
    }

    /// The length of a value in this unit.
    pub(super) fn count(self, text: &[u8]) -> usize {
        if self == Self::Byte { text.len() } else { utf8::count(text) }
    }

    /// The byte offset of the unit with the given index; the length of the text if the index is
    /// beyond its end.
    pub(super) fn offset(self, text: &[u8], index: usize) -> usize {
        if self == Self::Byte { index.min(text.len()) } else { utf8::offset(text, index) }
    }
}

fn reversed(args: Vec<Compiled>, unit: Unit) -> Compiled {
    let [a] = take(args);
    let a = a.bytes();
    bytes_fn(move |cx| {
        let Some(text) = a(cx)? else { return Ok(None) };
        let out = cx.arena.alloc_slice_copy(text);
        if unit == Unit::Byte || text.is_ascii() {
            out.reverse();
            return Ok(Some(out));
        }
        let mut end = out.len();
        for c in utf8::chars(text) {
            out[end - c.len()..end].copy_from_slice(c);
            end -= c.len();
        }
        Ok(Some(out))
    })
}

/// Converts to lower case, with the first letter of each word in title case: `ǆ` becomes `ǅ`, and
/// `ß` becomes `Ss`.
fn initcap<'a>(s: &str, arena: &'a Bump) -> &'a str {
    let mut out = BumpString::with_capacity_in(s.len(), arena);
    for word in s.split_inclusive(' ') {
        let Some(first) = word.chars().next() else { continue };
        match first {
            'Ǆ'..='ǆ' => out.push('ǅ'),
            'Ǉ'..='ǉ' => out.push('ǈ'),
            'Ǌ'..='ǌ' => out.push('ǋ'),
            'Ǳ'..='ǳ' => out.push('ǲ'),
            // `ŉ` decomposes to two characters, of which the second is capitalised.
            'ŉ' => out.push_str("ʼN"),
            first => {
                let mut upper = first.to_uppercase();
                out.extend(upper.next());
                out.extend(upper.flat_map(char::to_lowercase));
            }
        }
        // The whole word is converted, because the lower case of sigma is different at a word's
        // end.
        out.extend(word.to_lowercase().chars().skip(first.to_lowercase().count()));
    }
    out.into_bump_str()
}

/// The end or ends of a text to which a function applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Start,
    End,
    Both,
}

/// Compiles a trim. One argument trims spaces (not other white space); with two, the first is the
/// set of characters to trim.
fn trim(args: Vec<Compiled>, ends: Ends) -> Compiled {
    let (left, right) = (ends != Ends::End, ends != Ends::Start);
    let mut args = args.into_iter().map(Compiled::bytes);
    let (first, second) = (args.next(), args.next());
    let (set, s) = match (first, second) {
        (Some(set), Some(s)) => (Some(set), s),
        (Some(s), _) => (None, s),
        _ => unreachable!("resolution counted"),
    };
    bytes_fn(move |cx| {
        let Some(mut rest) = s(cx)? else { return Ok(None) };
        let Some(set) = &set else {
            while let (true, [b' ', after @ ..]) = (left, rest) {
                rest = after;
            }
            while let (true, [before @ .., b' ']) = (right, rest) {
                rest = before;
            }
            return Ok(Some(rest));
        };
        let Some(set) = set(cx)? else { return Ok(None) };
        let many: HashSet<&[u8]> = match set.len() > FEW_BYTES {
            true => utf8::chars(set).collect(),
            false => HashSet::new(),
        };
        let inside = |c: &&[u8]| match many.is_empty() {
            true => utf8::chars(set).any(|other| other == *c),
            false => many.contains(*c),
        };
        if left {
            rest = &rest[utf8::chars(rest).take_while(inside).map(<[u8]>::len).sum()..];
        }
        if right {
            let kept = utf8::chars(rest).map(|c| (inside(&c), c.len()));
            let cut = |at: (usize, usize), (inside, length): (bool, usize)| {
                let end = at.1 + length;
                if inside { (at.0, end) } else { (end, end) }
            };
            rest = &rest[..kept.fold((0, 0), cut).0];
        }
        Ok(Some(rest))
    })
}

fn measure(args: Vec<Compiled>, f: fn(&[u8]) -> usize) -> Compiled {
    let [a] = take(args);
    let a = a.bytes();
    long_fn(move |cx| Ok(a(cx)?.map(|s| f(s) as i64)))
}

fn test(args: Vec<Compiled>, f: fn(&[u8], &[u8]) -> bool) -> Compiled {
    let [a, b] = take(args);
    let (a, b) = (a.bytes(), b.bytes());
    bool_fn(move |cx| {
        let Some(x) = a(cx)? else { return Ok(None) };
        let Some(y) = b(cx)? else { return Ok(None) };
        Ok(Some(f(x, y)))
    })
}

fn compile_concat(args: Vec<Compiled>, _: &[Resolved], to: &DataType) -> Compiled {
    let args: Vec<BytesFn> = args.into_iter().map(Compiled::bytes).collect();
    if let DataType::Array(element) = to {
        return super::array::concat(args, (**element).clone());
    }
    bytes_fn(move |cx| {
        let mut out = BumpVec::new_in(cx.arena);
        let mut null = false;
        // Arguments after a NULL are still evaluated, so their errors are reported.
        for arg in &args {
            match arg(cx)? {
                Some(part) => out.extend_from_slice_copy(part),
                None => null = true,
            }
            bounded_record(cx.arena)?;
        }
        Ok((!null).then(|| out.into_bump_slice()))
    })
}

fn compile_concat_ws(args: Vec<Compiled>, exprs: &[Resolved], _: &DataType) -> Compiled {
    let arrays: Vec<bool> =
        exprs.iter().skip(1).map(|e| matches!(e.data_type, DataType::Array(_))).collect();
    let mut args = args.into_iter().map(Compiled::bytes);
    let Some(separator) = args.next() else { unreachable!("resolution counted") };
    let args: Vec<_> = args.zip(arrays).collect();
    bytes_fn(move |cx| {
        let Some(separator) = separator(cx)? else {
            args.iter().try_for_each(|(arg, _)| arg(cx).map(drop))?;
            return Ok(None);
        };
        let mut out = BumpVec::new_in(cx.arena);
        let mut first = true;
        let mut add = |part: &[u8]| {
            if !std::mem::take(&mut first) {
                out.extend_from_slice_copy(separator);
            }
            out.extend_from_slice_copy(part);
            out.len()
        };
        for (arg, is_array) in &args {
            let Some(value) = arg(cx)? else { continue };
            if !is_array {
                add(value);
                continue;
            }
            let array = Array::new(value);
            for slot in (0..array.len).map(|i| array.slot(i)) {
                if !array.row.is_null(slot) {
                    bounded(add(array.row.bytes(slot)))?;
                }
            }
        }
        Ok(Some(out.into_bump_slice()))
    })
}

/// Spark's substring. Positions count from 1; 0 means 1, and negative positions count from the end.
pub(super) fn slice(s: &[u8], start: i64, length: i64, unit: Unit) -> &[u8] {
    let from = match start {
        0 => 0,
        start if start > 0 => start - 1,
        start => unit.count(s) as i64 + start,
    };
    let until = from.saturating_add(length).max(0);
    let from = from.max(0);
    if until <= from {
        return &[];
    }
    let rest = &s[unit.offset(s, from as usize)..];
    &rest[..unit.offset(rest, (until - from) as usize)]
}

fn compile_substring(args: Vec<Compiled>, _: &[Resolved], to: &DataType) -> Compiled {
    let unit = Unit::of(to);
    let mut args = args.into_iter();
    let (Some(s), Some(start)) =
        (args.next().map(Compiled::bytes), args.next().map(Compiled::long))
    else {
        unreachable!("resolution counted")
    };
    let length = args.next().map(Compiled::long);
    bytes_fn(move |cx| {
        let Some(bytes) = s(cx)? else { return Ok(None) };
        let Some(start) = start(cx)? else { return Ok(None) };
        let length = match &length {
            Some(length) => match length(cx)? {
                Some(length) => length,
                None => return Ok(None),
            },
            None => i64::MAX / 2,
        };
        Ok(Some(slice(bytes, start, length, unit)))
    })
}

/// The largest set of bytes that is scanned linearly; for larger ones an index is built.
const FEW_BYTES: usize = 16;
/// The maximum length of a padded string, in characters or bytes.
const MAX_PADDED: i64 = 1 << 24;

/// Compiles `lpad` and `rpad`. `end` selects the side that is padded.
fn compile_pad(args: Vec<Compiled>, unit: Unit, end: Ends) -> Compiled {
    let left = end == Ends::Start;
    let mut args = args.into_iter();
    let (Some(s), Some(length)) =
        (args.next().map(Compiled::bytes), args.next().map(Compiled::long))
    else {
        unreachable!("resolution counted")
    };
    let pad = args.next().map(Compiled::bytes);
    bytes_fn(move |cx| {
        let Some(s) = s(cx)? else { return Ok(None) };
        let Some(length) = length(cx)? else { return Ok(None) };
        let pad: &[u8] = match &pad {
            Some(pad) => match pad(cx)? {
                Some(pad) => pad,
                None => return Ok(None),
            },
            None if unit == Unit::Byte => b"\0",
            None => b" ",
        };
        if length > MAX_PADDED {
            return failed(
                "COLLECTION_SIZE_LIMIT_EXCEEDED",
                format!("padding to {length} characters"),
                "Pad to at most 16777216",
            );
        }
        let (have, wanted) = (unit.count(s), length.max(0) as usize);
        if have >= wanted || pad.is_empty() {
            return Ok(Some(slice(s, 1, length.max(0), unit)));
        }
        let mut out = BumpVec::new_in(cx.arena);
        if !left {
            out.extend_from_slice_copy(s);
        }
        let (whole, rest) = ((wanted - have) / unit.count(pad), (wanted - have) % unit.count(pad));
        for _ in 0..whole {
            out.extend_from_slice_copy(pad);
        }
        out.extend_from_slice_copy(&pad[..unit.offset(pad, rest)]);
        if left {
            out.extend_from_slice_copy(s);
        }
        Ok(Some(out.into_bump_slice()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substrings_as_spark_cuts_them() {
        for (start, length, expected) in [
            (1, 3, "hél"),
            (0, 3, "hél"),
            (2, 2, "él"),
            (-3, 2, "ll"),
            (-9, 6, "hé"),
            (4, 99, "lo"),
            (9, 1, ""),
            (2, -1, ""),
        ] {
            let cut = slice("héllo".as_bytes(), start, length, Unit::Char);
            assert_eq!(cut, expected.as_bytes(), "{start}, {length}");
        }
    }
}
