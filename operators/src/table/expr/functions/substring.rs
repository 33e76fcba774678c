//! Prefixes, suffixes and substrings of texts and bytes, positions in them, and `elt`.

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, failed, from_cells, long_fn};
use crate::table::expr::functions::registry::{
    Function, MANY, Typed, any_nullable, called, cells, expect, typed,
};
use crate::table::expr::functions::string::{Unit, slice, text_or_bytes};
use crate::table::expr::functions::string_rare::STEPS_MAX;
use crate::table::expr::type_rules::Rules;
use crate::table::text::utf8;
use crate::table::types::DataType;
use memchr::memmem;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    cells(
        "left",
        "left(s, n): its first characters, or bytes of a BINARY",
        (2, 2),
        text_or_bytes,
        |a, call, _| {
            Ok(Cell::Bytes(slice(a[0].bytes(), 1, a[1].long().max(0), Unit::of(&call.to))))
        },
    )
    .usage("2.3.0", "left('Millstream', 4)", "Mill"),
    cells(
        "right",
        "right(s, n): its last characters",
        (2, 2),
        |n, a| typed(n, a, &[T::String, T::Int], T::String),
        |a, _, _| {
            let count = a[1].long().max(0);
            let part = slice(a[0].bytes(), -count, count, Unit::Char);
            Ok(Cell::Bytes(if count == 0 { b"" } else { part }))
        },
    )
    .usage("2.3.0", "right('Millstream', 6)", "stream"),
    cells(
        "overlay",
        "overlay(s, part, from[, length]): replaces the characters from a position by part",
        (3, 4),
        overlay,
        |a, call, arena| {
            let (text, part, from) = (a[0].bytes(), a[1].bytes(), a[2].long());
            let unit = Unit::of(&call.to);
            let given = a.get(3).map_or(-1, |length| length.long());
            let length = if given >= 0 { given } else { unit.count(part) as i64 };
            let head = slice(text, 1, from - 1, unit);
            let tail = slice(text, from + length, i64::from(i32::MAX), unit);
            Ok(Cell::Bytes(arena.alloc_slice_copy(&[head, part, tail].concat())))
        },
    )
    .usage("3.0.0", "overlay('Millstream', 'XX', 2)", "MXXlstream"),
    cells(
        "instr",
        "instr(s, part[, from[, nth]]): its position, from 1; 0 if there is none; backwards if `from` is negative",
        (2, 4),
        |n, a| typed(n, a, &[T::String, T::String, T::Int, T::Int], T::Int),
        |a, _, _| {
            let number = |index: usize| a.get(index).map_or(1, |number| number.long());
            let (from, nth) = (number(2), number(3));
            if nth < 1 {
                return failed(
                    "INVALID_PARAMETER_VALUE.OCCURRENCE",
                    format!("`instr` has no occurrence {nth}"),
                    "Occurrences are counted from 1",
                );
            }
            position(a[1].bytes(), a[0].bytes(), from, nth).map(Cell::Long)
        },
    )
    .usage("1.5.0", "instr('Millstream', 'st')", "5"),
    called(
        "locate",
        "locate(part, s[, from]): its first position, from 1; 0 if there is none or `from` is NULL",
        (2, 3),
        |n, a| typed(n, a, &[T::String, T::String, T::Int], T::Int),
        |args, _| {
            let mut args = args.into_iter();
            let (Some(part), Some(text)) = (args.next(), args.next()) else {
                unreachable!("resolution counted the arguments")
            };
            let (part, text, from) = (part.bytes(), text.bytes(), args.next().map(Compiled::long));
            long_fn(move |cx| {
                let from = match &from {
                    Some(from) => from(cx)?,
                    None => Some(1),
                };
                let Some(from) = from else { return Ok(Some(0)) };
                let Some(part) = part(cx)? else { return Ok(None) };
                Ok(text(cx)?.map(|text| locate(part, text, from)))
            })
        },
    )
    .usage("1.5.0", "locate('l', 'Millstream', 4)", "4"),
    cells(
        "substring_index",
        "substring_index(s, separator, n): before separator n, or after it if n counts from the \
        end",
        (3, 3),
        |n, a| typed(n, a, &[T::String, T::String, T::Int], T::String),
        |a, _, _| Ok(Cell::Bytes(substring_index(a[0].bytes(), a[1].bytes(), a[2].long()))),
    )
    .usage("1.5.0", "substring_index('www.example.org', '.', 2)", "www.example"),
    called("elt", "elt(n, a, b, …): the argument n, from 1", (2, MANY), elt, |mut args, call| {
        let index = args.remove(0).long();
        from_cells(call.to.physical(), move |cx| {
            let Some(index) = index(cx)? else { return Ok(Cell::Null) };
            // Only the selected argument is evaluated.
            match usize::try_from(index - 1).ok().and_then(|index| args.get(index)) {
                Some(found) => found.cell(cx),
                None => failed(
                    "INVALID_ARRAY_INDEX",
                    format!("there is no argument {index} of {}", args.len()),
                    "",
                ),
            }
        })
    })
    .usage("2.0.0", "elt(2, 'a', 'b')", "b"),
];

fn overlay(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let is_bytes = |arg: &Resolved| arg.data_type == T::Binary;
    if is_bytes(&args[0]) != is_bytes(&args[1])
        && !args[..2].iter().any(|arg| arg.data_type == T::Null)
    {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.DATA_DIFF_TYPES",
            format!(
                "`{name}` needs two texts or two of BINARY, but has {} and {}",
                args[0].data_type, args[1].data_type
            ),
            "Cast one of them",
        ));
    }
    let to = if is_bytes(&args[0]) || is_bytes(&args[1]) { T::Binary } else { T::String };
    Ok(Typed::new(expect(name, args, &[to.clone(), to.clone(), T::Int])?, to, nullable))
}

fn elt(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let rest = args.split_off(1);
    let as_text = Rules::current().naming.elt_as_text;
    let to = match !as_text && rest.iter().all(|arg| arg.data_type == T::Binary) {
        true => T::Binary,
        false => T::String,
    };
    let mut args = expect(name, args, &[T::Int])?;
    args.extend(expect(name, rest, std::slice::from_ref(&to))?);
    Ok(Typed::new(args, to, true))
}

/// The position of `part` in `text` at or after the position `from`; 0 if it is not found.
/// Positions count from 1, and a `from` below 1 gives 0. As in Spark, an empty part is found at 1.
fn locate(part: &[u8], text: &[u8], from: i64) -> i64 {
    if from < 1 {
        return 0;
    }
    if part.is_empty() {
        return 1;
    }
    let begin = utf8::offset(text, from as usize - 1);
    match memmem::find(&text[begin..], part) {
        Some(at) => utf8::count(&text[..begin + at]) as i64 + 1,
        None => 0,
    }
}

/// The position of an occurrence of `part`, counted from 1; 0 if there is none. A negative `from`
/// counts from the end, and the search goes backwards. Occurrences may overlap.
fn position(part: &[u8], text: &[u8], from: i64, nth: i64) -> Result<i64, Box<EvalError>> {
    // Overlapping occurrences are compared as a whole, each again.
    let most = (nth as usize).min(text.len());
    if part.len().saturating_mul(most) > STEPS_MAX && text.len() > STEPS_MAX / part.len() {
        return failed(
            "COLLECTION_SIZE_LIMIT_EXCEEDED",
            format!("`instr` of texts of {} and {} bytes", text.len(), part.len()),
            "Use shorter texts, or an earlier occurrence",
        );
    }
    if from > 0 && nth == 1 || part.is_empty() {
        return Ok(if part.is_empty() { 1 } else { locate(part, text, from) });
    }
    let at = if from > 0 {
        let finder = memmem::Finder::new(part);
        let mut begin = utf8::offset(text, from as usize - 1);
        (1..=nth).try_fold(0, |_, _| {
            let at = begin + finder.find(text.get(begin..)?)?;
            begin = at + 1;
            Some(at)
        })
    } else {
        let chars = utf8::count(text) as i64;
        let finder = memmem::FinderRev::new(part);
        let last = chars.checked_add(from).filter(|last| from != 0 && *last >= 0);
        last.and_then(|last| {
            // The last occurrence begins here or earlier.
            let begin = utf8::offset(text, last as usize);
            let mut end = (begin + part.len()).min(text.len());
            (1..=nth).try_fold(0, |_, _| {
                let at = finder.rfind(text.get(..end)?)?;
                end = (at + part.len()).checked_sub(1)?;
                Some(at)
            })
        })
    };
    Ok(at.map_or(0, |at| utf8::count(&text[..at]) as i64 + 1))
}

/// Computes `substring_index`. Each search starts one byte after the start of the previous match,
/// so matches of the separator may overlap.
fn substring_index<'a>(text: &'a [u8], separator: &[u8], count: i64) -> &'a [u8] {
    if separator.is_empty() || count == 0 {
        return b"";
    }
    let mut at = 0;
    if count > 0 {
        for n in 0..count {
            let from = if n == 0 { 0 } else { at + 1 };
            match text.get(from..).and_then(|rest| memmem::find(rest, separator)) {
                Some(found) => at = from + found,
                None => return text,
            }
        }
        return &text[..at];
    }
    // `at` is the start of the last separator found. The next separator must start before it.
    for n in 0..count.unsigned_abs() {
        let until = if n == 0 { text.len() } else { at + separator.len() - 1 };
        match memmem::rfind(&text[..until], separator) {
            Some(found) => at = found,
            None => return text,
        }
    }
    &text[at + separator.len()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_may_overlap() {
        let index = |text: &'static str, separator: &str, count| {
            std::str::from_utf8(substring_index(text.as_bytes(), separator.as_bytes(), count))
                .unwrap()
        };
        assert_eq!(index("a.b.c", ".", 2), "a.b");
        assert_eq!(index("a.b.c", ".", -2), "b.c");
        assert_eq!(index("a.b.c", ".", 9), "a.b.c");
        assert_eq!(index("a.b.c", ".", -9), "a.b.c");
        assert_eq!(index("aaaa", "aa", 2), "a");
        assert_eq!(index("aaaaa", "aa", -2), "a");
        assert_eq!(index("aaa", "aa", -1), "");
        assert_eq!(index(".a", ".", -1), "a");
        assert_eq!(index(".a", ".", -2), ".a");
        assert_eq!(index("", ".", -1), "");
    }

    #[test]
    fn an_empty_part_is_at_the_start() {
        assert_eq!(locate(b"", b"abc", 3), 1);
        assert_eq!(locate(b"c", b"abc", 9), 0);
        assert_eq!(locate("é".as_bytes(), "aé😀é".as_bytes(), 3), 4);
    }
}
