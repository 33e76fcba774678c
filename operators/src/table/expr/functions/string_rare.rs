//! Less common string functions: extraction, positions, formats and codes.

use crate::table::error::PlanError;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, bytes_fn, failed};
use crate::table::expr::functions::levenshtein::levenshtein;
use crate::table::expr::functions::number_format::Pattern;
use crate::table::expr::functions::printf::format_string;
use crate::table::expr::functions::registry::{
    Call, Function, MANY, Typed, called, cells, made, nullable_cells, typed, typed_or_null,
    unexpected,
};
use crate::table::types::DataType;
use std::collections::HashMap;

use DataType as T;

/// The maximum length in bytes of a text that functions such as `repeat` create.
const TEXT_BYTES_MAX: usize = 1 << 26;
/// The largest set of characters that is scanned linearly; for larger ones an index is built.
const FEW_CHARS: usize = 16;

/// The maximum number of steps of one call of `jaro_winkler_similarity` or `instr`.
pub(super) const STEPS_MAX: usize = 1 << 27;

pub(super) static FUNCTIONS: &[Function] = &[
    cells(
        "ascii",
        "ascii(s): the code of the first character",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::Int),
        |a, _, _| Ok(Cell::Long(a[0].text().chars().next().map_or(0, |c| i64::from(u32::from(c))))),
    )
    .usage("1.5.0", "ascii('A')", "65"),
    cells(
        "chr",
        "chr(n): the character with that code, of 256",
        (1, 1),
        |n, a| typed(n, a, &[T::Long], T::String),
        |a, _, arena| {
            let code = a[0].long();
            if code < 0 {
                return Ok(made(arena, ""));
            }
            Ok(made(arena, &char::from((code % 256) as u8).to_string()))
        },
    )
    .usage("2.3.0", "chr(65)", "A"),
    cells(
        "quote",
        "quote(s): the text in single quotes, with a backslash before each single quote in it",
        (1, 1),
        |n, a| typed_or_null(n, a, &[T::String], T::String),
        |a, _, arena| {
            let text = a[0].text();
            let mut out = bumpalo::collections::String::with_capacity_in(text.len() + 2, arena);
            out.push('\'');
            for c in text.chars() {
                if c == '\'' {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('\'');
            Ok(Cell::Bytes(out.into_bump_str().as_bytes()))
        },
    )
    .usage("4.1.0", "quote('it is')", "'it is'"),
    cells(
        "bit_length",
        "bit_length(s): eight times its bytes",
        (1, 1),
        |n, a| match a[0].data_type {
            T::Binary => typed(n, a, &[T::Binary], T::Int),
            _ => typed(n, a, &[T::String], T::Int),
        },
        |a, _, _| Ok(Cell::Long(a[0].bytes().len() as i64 * 8)),
    )
    .usage("2.3.0", "bit_length('abc')", "24"),
    cells(
        "repeat",
        "repeat(s, n): n times the text",
        (2, 2),
        |n, a| typed(n, a, &[T::String, T::Int], T::String),
        |a, _, arena| {
            let count = a[1].long().max(0) as usize;
            bounded(a[0].bytes().len().saturating_mul(count))?;
            let times = std::iter::repeat_n(a[0].bytes(), count).flatten().copied();
            Ok(Cell::Bytes(arena.alloc_slice_fill_iter(times.collect::<Vec<u8>>())))
        },
    )
    .usage("1.5.0", "repeat('ab', 3)", "ababab"),
    cells(
        "space",
        "space(n): so many spaces",
        (1, 1),
        |n, a| typed(n, a, &[T::Int], T::String),
        |a, _, arena| {
            let count = a[0].long().max(0) as usize;
            bounded(count)?;
            Ok(made(arena, &" ".repeat(count)))
        },
    )
    .usage("1.5.0", "concat('[', space(3), ']')", "[   ]"),
    cells(
        "replace",
        "replace(s, part[, by]): each occurrence of the part replaced",
        (2, 3),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, arena| {
            let (text, part) = (a[0].text(), a[1].text());
            if part.is_empty() {
                return Ok(a[0]);
            }
            let by = a.get(2).map_or("", |by| by.text());
            let most = (text.len() / part.len().max(1) + 1).saturating_mul(by.len());
            if text.len().saturating_add(most) > TEXT_BYTES_MAX {
                let count = text.matches(part).count();
                let kept = text.len() - count.saturating_mul(part.len()).min(text.len());
                bounded(kept.saturating_add(count.saturating_mul(by.len())))?;
            }
            let out = text.replace(part, by);
            Ok(made(arena, &out))
        },
    )
    .usage("2.3.0", "replace('aXbX', 'X', '-')", "a-b-"),
    cells(
        "translate",
        "translate(s, from, to): each character of `from` by the one of `to`, or by none",
        (3, 3),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, arena| {
            let (from, to): (Vec<char>, Vec<char>) =
                (a[1].text().chars().collect(), a[2].text().chars().collect());
            let change = |c: char| match from.iter().position(|f| *f == c) {
                Some(at) => to.get(at).copied(),
                None => Some(c),
            };
            if from.len() <= FEW_CHARS {
                return Ok(made(
                    arena,
                    &a[0].text().chars().filter_map(change).collect::<String>(),
                ));
            }
            let mut by = HashMap::new();
            for (at, c) in from.iter().enumerate() {
                by.entry(*c).or_insert_with(|| to.get(at).copied());
            }
            let change = |c: char| by.get(&c).copied().unwrap_or(Some(c));
            Ok(made(arena, &a[0].text().chars().filter_map(change).collect::<String>()))
        },
    )
    .usage("1.5.0", "translate('AaBbCc', 'abc', '123')", "A1B2C3"),
    cells(
        "split_part",
        "split_part(s, separator, n): the part n, from 1, or from the end if negative",
        (3, 3),
        |n, a| typed(n, a, &[T::String, T::String, T::Int], T::String),
        |a, _, arena| {
            let (text, separator, n) = (a[0].text(), a[1].text(), a[2].long());
            if n == 0 {
                return failed(
                    "INVALID_INDEX_OF_ZERO",
                    "index 0 is invalid: the first part has index 1",
                    "",
                );
            }
            let parts: Vec<&str> =
                if separator.is_empty() { vec![text] } else { text.split(separator).collect() };
            let at = if n > 0 { n - 1 } else { parts.len() as i64 + n };
            let part = usize::try_from(at).ok().and_then(|at| parts.get(at));
            Ok(made(arena, part.unwrap_or(&"")))
        },
    )
    .usage("3.3.0", "split_part('a.b.c', '.', 2)", "b"),
    cells(
        "find_in_set",
        "find_in_set(s, 'a,b,c'): its position in the list, from 1; 0 if there is none",
        (2, 2),
        |n, a| typed(n, a, &[T::String], T::Int),
        |a, _, _| {
            let found = a[1].text().split(',').position(|part| part == a[0].text());
            let found = found.filter(|_| !a[0].text().contains(','));
            Ok(Cell::Long(found.map_or(0, |at| at as i64 + 1)))
        },
    )
    .usage("1.5.0", "find_in_set('b', 'a,b,c')", "2"),
    cells(
        "levenshtein",
        "levenshtein(a, b[, most]): changes from one to the other; -1 for more than `most`",
        (2, 3),
        |n, a| typed(n, a, &[T::String, T::String, T::Int], T::Int),
        |a, _, _| {
            let most = a.get(2).map_or(i64::MAX, |most| most.long());
            let found = levenshtein(a[0].text(), a[1].text(), most)?;
            Ok(Cell::Long(found.unwrap_or(-1)))
        },
    )
    .usage("1.5.0", "levenshtein('kitten', 'sitting')", "3"),
    cells(
        "jaro_winkler_similarity",
        "jaro_winkler_similarity(a, b): from 0.0 to 1.0, which is for equal texts",
        (2, 2),
        |n, a| typed(n, a, &[T::String], T::Double),
        |a, _, _| Ok(Cell::Double(jaro_winkler(a[0].text(), a[1].text())?)),
    )
    .usage("4.3.0", "jaro_winkler_similarity('ABC', 'XYZ')", "0.0"),
    cells(
        "soundex",
        "soundex(s): how it sounds in English",
        (1, 1),
        |n, a| match a[0].data_type {
            T::Binary => Err(unexpected(n, "a STRING", &a[0])),
            _ => typed(n, a, &[T::String], T::String),
        },
        |a, _, arena| Ok(made(arena, &soundex(a[0].text()))),
    )
    .usage("1.5.0", "soundex('Miller')", "M460"),
    called(
        "format_number",
        "format_number(n, digits or pattern): with commas and so many digits behind the point",
        (2, 2),
        |n, a| {
            let number = &a[0].data_type;
            if !number.is_numeric() && *number != T::Null {
                return Err(unexpected(n, "a number", &a[0]));
            }
            if !matches!(a[1].data_type, T::Int | T::String | T::Null) {
                return Err(unexpected(n, "an INT or a pattern", &a[1]));
            }
            let number = if *number == T::Null { T::Double } else { number.clone() };
            let how = if a[1].data_type == T::String { T::String } else { T::Int };
            typed_or_null(n, a, &[number, how], T::String)
        },
        format_number,
    )
    .usage("1.5.0", "format_number(12345.678, 2)", "12,345.68"),
    nullable_cells(
        "format_string",
        "format_string(pattern, a, …): the arguments by a pattern, as Java's String.format",
        (1, MANY),
        |n, mut args| {
            if args[0].literal_text().is_some_and(|pattern| pattern.contains("%0$")) {
                return Err(PlanError::new(
                    "INVALID_PARAMETER_VALUE.ZERO_INDEX",
                    "the first argument of a pattern is %1$, not %0$",
                    "",
                ));
            }
            let rest = args.split_off(1);
            let Typed { mut args, data_type: to, is_nullable: nullable } =
                typed(n, args, &[T::String], T::String)?;
            args.extend(rest);
            Ok(Typed::new(args, to, nullable))
        },
        |a, call, arena| {
            if a[0].is_null() {
                return Ok(Cell::Null);
            }
            let types: Vec<&DataType> = (1..a.len()).map(|i| call.data_type(i)).collect();
            let out = format_string(a[0].text(), &a[1..], &types, call.semantics.zone)?;
            Ok(made(arena, &out))
        },
    )
    .usage("1.5.0", "format_string('%s: %5.2f', 'pi', pi())", "pi:  3.14"),
    cells(
        "url_encode",
        "url_encode(s): as application/x-www-form-urlencoded",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, arena| {
            let mut out = String::new();
            for b in a[0].bytes() {
                match b {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => {
                        out.push(*b as char)
                    }
                    b' ' => out.push('+'),
                    other => out.push_str(&format!("%{other:02X}")),
                }
            }
            Ok(made(arena, &out))
        },
    )
    .usage("3.4.0", "url_encode('a b&c')", "a+b%26c"),
    cells(
        "url_decode",
        "url_decode(s): from application/x-www-form-urlencoded",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, arena| {
            let mut out = Vec::new();
            let mut bytes = a[0].bytes().iter();
            while let Some(b) = bytes.next() {
                let mut hex = || bytes.next().and_then(|b| (*b as char).to_digit(16));
                match b {
                    b'+' => out.push(b' '),
                    b'%' => match (hex(), hex()) {
                        (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
                        _ => {
                            return failed(
                                "CANNOT_DECODE_URL",
                                format!("'{}' is not encoded", a[0].text()),
                                "",
                            );
                        }
                    },
                    other => out.push(*other),
                }
            }
            Ok(made(arena, &String::from_utf8_lossy(&out)))
        },
    )
    .usage("3.4.0", "url_decode('a+b%26c')", "a b&c"),
];

fn jaro_winkler(a: &str, b: &str) -> Result<f64, Box<EvalError>> {
    // As in Spark, a character is a unit of UTF-16.
    let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
    let (units_a, units_b) = (units(a), units(b));
    let (chars_a, chars_b) = (units_a.len(), units_b.len());
    if chars_a.saturating_mul(chars_b) > STEPS_MAX {
        return failed(
            "COLLECTION_SIZE_LIMIT_EXCEEDED",
            format!("`jaro_winkler_similarity` of texts of {chars_a} and {chars_b} characters"),
            "Compare shorter texts",
        );
    }
    Ok(strsim::generic_jaro_winkler(&units_a, &units_b))
}

pub(super) fn bounded(bytes: usize) -> Result<(), Box<EvalError>> {
    if bytes <= TEXT_BYTES_MAX {
        return Ok(());
    }
    failed("COLLECTION_SIZE_LIMIT_EXCEEDED", format!("a text of {bytes} bytes"), "At most 64 MiB")
}

fn soundex(text: &str) -> String {
    let code = |c: char| match c.to_ascii_uppercase() {
        'B' | 'F' | 'P' | 'V' => Some('1'),
        'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => Some('2'),
        'D' | 'T' => Some('3'),
        'L' => Some('4'),
        'M' | 'N' => Some('5'),
        'R' => Some('6'),
        _ => None,
    };
    let Some(first) = text.chars().next().filter(char::is_ascii_alphabetic) else {
        return text.to_string();
    };
    let mut out = first.to_ascii_uppercase().to_string();
    let mut last = code(first);
    for c in text.chars().skip(1) {
        let found = code(c);
        if let Some(digit) = found.filter(|_| found != last) {
            out.push(digit);
        }
        // Two letters with the same code count once if only H or W is between them, but twice if a
        // vowel is between them.
        if !matches!(c.to_ascii_uppercase(), 'H' | 'W') {
            last = found;
        }
        if out.len() == 4 {
            break;
        }
    }
    format!("{out:0<4}")
}

/// Compiles `format_number`, with a number of digits or a pattern. A constant pattern is parsed
/// once. NULL for a NULL argument and a negative number of digits; a wrong pattern is an error.
fn format_number(args: Vec<Compiled>, call: Call) -> Compiled {
    let scale = call.data_type(0).as_decimal().map_or(0, |(_, scale)| scale);
    let constant = call.text(1).map(Pattern::new);
    let mut args = args.into_iter().map(Compiled::cells);
    let (Some(number), Some(how)) = (args.next(), args.next()) else {
        unreachable!("resolution counted the arguments")
    };
    bytes_fn(move |cx| {
        let number = number(cx)?;
        if number.is_null() {
            return Ok(None);
        }
        let how = how(cx)?;
        if how.is_null() {
            return Ok(None);
        }
        let made;
        let pattern = match (&constant, how) {
            (Some(pattern), _) => pattern,
            (None, Cell::Long(digits)) => match usize::try_from(digits) {
                Ok(digits) => {
                    made = Ok(Pattern::of_digits(digits));
                    &made
                }
                Err(_) => return Ok(None),
            },
            (None, how) => {
                made = Pattern::new(how.text());
                &made
            }
        };
        match pattern {
            Ok(pattern) => {
                Ok(pattern.format(number, scale).map(|text| cx.arena.alloc_str(&text).as_bytes()))
            }
            Err(reason) => failed(
                "INVALID_PARAMETER_VALUE.PATTERN",
                format!("the pattern '{}' of format_number: {reason}", how.text()),
                "Write a pattern like #,##0.00",
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_and_distances() {
        assert_eq!(soundex("Robert"), "R163");
        assert_eq!(soundex("Ashcraft"), "A261");
    }
}
