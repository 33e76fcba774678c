//! Strings. Lengths and positions count characters, as in Spark.

use super::{Function, MANY, Typed, any_nullable, expect, function, take};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::compile::{BytesFn, Compiled, bool_fn, bytes_fn, failed, long_fn, text};
use crate::table::row::Array;
use crate::table::types::DataType;
use bumpalo::Bump;
use bumpalo::collections::{String as BumpString, Vec as BumpVec};

pub(super) static FUNCTIONS: &[Function] = &[
    function("upper", "upper(s): in capitals", (1, 1), text_to_text, |a, _, _| {
        map_text(a, |s, arena| {
            if s.is_ascii() {
                case(s, arena, u8::to_ascii_uppercase)
            } else {
                arena.alloc_str(&s.to_uppercase())
            }
        })
    }),
    function("lower", "lower(s): in small letters", (1, 1), text_to_text, |a, _, _| {
        map_text(a, |s, arena| {
            if s.is_ascii() {
                case(s, arena, u8::to_ascii_lowercase)
            } else {
                arena.alloc_str(&s.to_lowercase())
            }
        })
    }),
    function("initcap", "initcap(s): each word with a capital", (1, 1), text_to_text, |a, _, _| {
        map_text(a, initcap)
    }),
    function("reverse", "reverse(text or array): from end to start", (1, 1), reverse, |a, e, _| {
        if let DataType::Array(element) = &e[0].data_type {
            return super::array::reversed(a, (**element).clone());
        }
        map_text(a, |s, arena| BumpString::from_iter_in(s.chars().rev(), arena).into_bump_str())
    }),
    function("trim", "trim(s): without spaces at both ends", (1, 2), text_to_text, |a, _, _| {
        trim(a, true, true)
    }),
    function("ltrim", "ltrim(s): without spaces at the start", (1, 2), text_to_text, |a, _, _| {
        trim(a, true, false)
    }),
    function("rtrim", "rtrim(s): without spaces at the end", (1, 2), text_to_text, |a, _, _| {
        trim(a, false, true)
    }),
    function("length", "length(s): number of characters", (1, 1), text_to_int, |a, _, _| {
        measure(a, |s| text(s).chars().count())
    }),
    function("octet_length", "octet_length(s): number of bytes", (1, 1), text_to_int, |a, _, _| {
        measure(a, <[u8]>::len)
    }),
    function("concat", "concat(a, b, …) or a || b", (1, MANY), concat, compile_concat),
    function(
        "concat_ws",
        "concat_ws(separator, a, …): joins what is not NULL",
        (1, MANY),
        concat_ws,
        compile_concat_ws,
    ),
    function(
        "substring",
        "substring(s, start[, length]): from 1; negative starts count from the end",
        (2, 3),
        substring,
        compile_substring,
    ),
    function(
        "lpad",
        "lpad(s, length[, pad]): filled or cut on the left",
        (2, 3),
        pad,
        |a, _, _| compile_pad(a, true),
    ),
    function(
        "rpad",
        "rpad(s, length[, pad]): filled or cut on the right",
        (2, 3),
        pad,
        |a, _, _| compile_pad(a, false),
    ),
    function("startswith", "startswith(s, prefix)", (2, 2), text_to_bool, |a, _, _| {
        test(a, |s, p| s.starts_with(p))
    }),
    function("endswith", "endswith(s, suffix)", (2, 2), text_to_bool, |a, _, _| {
        test(a, |s, p| s.ends_with(p))
    }),
    function("contains", "contains(s, part)", (2, 2), text_to_bool, |a, _, _| {
        test(a, |s, p| memchr::memmem::find(s, p).is_some())
    }),
];

fn text_to_text(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok((expect(name, args, &[DataType::String])?, DataType::String, nullable))
}

fn reverse(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if matches!(args[0].data_type, DataType::Array(_)) {
        let (to, nullable) = (args[0].data_type.clone(), args[0].nullable);
        return Ok((args, to, nullable));
    }
    text_to_text(name, args)
}

fn text_to_int(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let args = if args[0].data_type == DataType::Binary && name == "octet_length" {
        args
    } else {
        expect(name, args, &[DataType::String])?
    };
    Ok((args, DataType::Int, nullable))
}

fn text_to_bool(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    Ok((expect(name, args, &[DataType::String])?, DataType::Boolean, nullable))
}

fn concat(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    if args.iter().any(|arg| matches!(arg.data_type, DataType::Array(_))) {
        let args = crate::table::expr::resolve::unify("`concat`", args)?;
        let data_type = args[0].data_type.clone();
        return Ok((args, data_type, nullable));
    }
    text_to_text(name, args)
}

fn concat_ws(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = args[0].nullable;
    let strings = DataType::Array(Box::new(DataType::String));
    let args = args.into_iter().map(|arg| {
        if arg.data_type == strings {
            Ok(arg)
        } else {
            Ok(expect(name, vec![arg], &[DataType::String])?.remove(0))
        }
    });
    Ok((args.collect::<PlanResult<_>>()?, DataType::String, nullable))
}

fn substring(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let types = [DataType::String, DataType::Int];
    Ok((expect(name, args, &types)?, DataType::String, nullable))
}

fn pad(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let types = [DataType::String, DataType::Int, DataType::String];
    Ok((expect(name, args, &types)?, DataType::String, nullable))
}

fn case<'a>(s: &str, arena: &'a Bump, change: fn(&u8) -> u8) -> &'a str {
    let bytes = arena.alloc_slice_fill_iter(s.bytes().map(|b| change(&b)));
    text(bytes)
}

fn map_text(args: Vec<Compiled>, f: for<'a> fn(&str, &'a Bump) -> &'a str) -> Compiled {
    let [a] = take(args);
    let a = a.bytes();
    bytes_fn(move |cx| Ok(a(cx)?.map(|s| f(text(s), cx.arena).as_bytes())))
}

fn initcap<'a>(s: &str, arena: &'a Bump) -> &'a str {
    let mut out = BumpString::with_capacity_in(s.len(), arena);
    let mut start = true;
    for c in s.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = c == ' ';
    }
    out.into_bump_str()
}

/// Trims spaces, or the characters of the second argument; only spaces, not all white space.
fn trim(args: Vec<Compiled>, left: bool, right: bool) -> Compiled {
    let mut args = args.into_iter().map(Compiled::bytes);
    let Some(s) = args.next() else { unreachable!("resolution counted") };
    let set = args.next();
    bytes_fn(move |cx| {
        let Some(bytes) = s(cx)? else { return Ok(None) };
        let set = match &set {
            Some(set) => match set(cx)? {
                Some(set) => text(set),
                None => return Ok(None),
            },
            None => " ",
        };
        let mut rest = text(bytes);
        let inside = |c: char| set.contains(c);
        if left {
            rest = rest.trim_start_matches(inside);
        }
        if right {
            rest = rest.trim_end_matches(inside);
        }
        Ok(Some(rest.as_bytes()))
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
        let (Some(x), Some(y)) = (a(cx)?, b(cx)?) else { return Ok(None) };
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
        for arg in &args {
            let Some(part) = arg(cx)? else { return Ok(None) };
            out.extend_from_slice_copy(part);
        }
        Ok(Some(out.into_bump_slice()))
    })
}

fn compile_concat_ws(args: Vec<Compiled>, exprs: &[Resolved], _: &DataType) -> Compiled {
    let arrays: Vec<bool> =
        exprs.iter().skip(1).map(|e| matches!(e.data_type, DataType::Array(_))).collect();
    let mut args = args.into_iter().map(Compiled::bytes);
    let Some(separator) = args.next() else { unreachable!("resolution counted") };
    let args: Vec<_> = args.zip(arrays).collect();
    bytes_fn(move |cx| {
        let Some(separator) = separator(cx)? else { return Ok(None) };
        let mut out = BumpVec::new_in(cx.arena);
        let mut first = true;
        let mut add = |part: &[u8]| {
            if !std::mem::take(&mut first) {
                out.extend_from_slice_copy(separator);
            }
            out.extend_from_slice_copy(part);
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
                    add(array.row.bytes(slot));
                }
            }
        }
        Ok(Some(out.into_bump_slice()))
    })
}

/// Spark's substring: positions from 1, 0 counts as 1, negative ones from the end.
fn slice(s: &str, start: i64, length: i64) -> &str {
    let count = if start < 0 { s.chars().count() as i64 } else { 0 };
    let from = match start {
        0 => 0,
        start if start > 0 => start - 1,
        start => count + start,
    };
    let until = from.saturating_add(length).max(0);
    let from = from.max(0);
    if until <= from {
        return "";
    }
    let mut ends = s.char_indices().map(|(at, _)| at);
    let begin = ends.nth(from as usize).unwrap_or(s.len());
    let wanted = usize::try_from(until - from - 1).unwrap_or(usize::MAX);
    let end = if begin == s.len() { s.len() } else { ends.nth(wanted).unwrap_or(s.len()) };
    &s[begin..end]
}

fn compile_substring(args: Vec<Compiled>, _: &[Resolved], _: &DataType) -> Compiled {
    let mut args = args.into_iter();
    let (Some(s), Some(start)) =
        (args.next().map(Compiled::bytes), args.next().map(Compiled::long))
    else {
        unreachable!("resolution counted")
    };
    let length = args.next().map(Compiled::long);
    bytes_fn(move |cx| {
        let (Some(bytes), Some(start)) = (s(cx)?, start(cx)?) else { return Ok(None) };
        let length = match &length {
            Some(length) => match length(cx)? {
                Some(length) => length,
                None => return Ok(None),
            },
            None => i64::MAX / 2,
        };
        Ok(Some(slice(text(bytes), start, length).as_bytes()))
    })
}

/// Longest string that padding makes.
const MAX_PADDED: i64 = 1 << 24;

fn compile_pad(args: Vec<Compiled>, left: bool) -> Compiled {
    let mut args = args.into_iter();
    let (Some(s), Some(length)) =
        (args.next().map(Compiled::bytes), args.next().map(Compiled::long))
    else {
        unreachable!("resolution counted")
    };
    let pad = args.next().map(Compiled::bytes);
    bytes_fn(move |cx| {
        let (Some(s), Some(length)) = (s(cx)?, length(cx)?) else { return Ok(None) };
        let pad = match &pad {
            Some(pad) => match pad(cx)? {
                Some(pad) => text(pad),
                None => return Ok(None),
            },
            None => " ",
        };
        if length > MAX_PADDED {
            return failed(
                "COLLECTION_SIZE_LIMIT_EXCEEDED",
                format!("padding to {length} characters"),
                "Pad to at most 16777216",
            );
        }
        let (s, wanted) = (text(s), length.max(0) as usize);
        let have = s.chars().count();
        if have >= wanted || pad.is_empty() {
            return Ok(Some(slice(s, 1, length.max(0)).as_bytes()));
        }
        let mut out = BumpString::new_in(cx.arena);
        let fill = pad.chars().cycle().take(wanted - have);
        if left {
            out.extend(fill);
            out.push_str(s);
        } else {
            out.push_str(s);
            out.extend(fill);
        }
        Ok(Some(out.into_bump_str().as_bytes()))
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
            assert_eq!(slice("héllo", start, length), expected, "{start}, {length}");
        }
    }
}
