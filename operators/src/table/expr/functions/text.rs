//! Strings, the rarer functions: parts, positions, formats, codes.

use super::format::format_string;
use super::number_format::Pattern;
use super::{
    Call, Function, MANY, Typed, any_nullable, called, cells, made, nullable_cells, typed,
    typed_or_null, unexpected,
};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, bytes_fn, failed};
use crate::table::types::DataType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bumpalo::Bump;

use DataType as T;

/// Longest text that a function makes.
const TEXT_BYTES_MAX: usize = 1 << 26;

pub(super) static FUNCTIONS: &[Function] = &[
    cells(
        "ascii",
        "ascii(s): the code of the first character",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::Int),
        |a, _, _| Ok(Cell::Long(a[0].text().chars().next().map_or(0, |c| i64::from(u32::from(c))))),
    ),
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
    ),
    cells(
        "base64",
        "base64(bytes): as text",
        (1, 1),
        |n, a| typed(n, a, &[T::Binary], T::String),
        |a, _, arena| Ok(made(arena, &BASE64.encode(a[0].bytes()))),
    ),
    cells(
        "unbase64",
        "unbase64(text): its bytes",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::Binary),
        |a, _, arena| {
            let text: Vec<u8> =
                a[0].bytes().iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            match BASE64.decode(text) {
                Ok(bytes) => Ok(Cell::Bytes(arena.alloc_slice_copy(&bytes))),
                Err(_) => failed(
                    "CONVERSION_INVALID_INPUT",
                    format!("'{}' is not base64", a[0].text()),
                    "",
                ),
            }
        },
    ),
    cells(
        "unhex",
        "unhex(text): the bytes of its hexadecimal digits",
        (1, 1),
        |n, a| typed_or_null(n, a, &[T::String], T::Binary),
        |a, _, arena| {
            let digits: Option<Vec<u8>> =
                a[0].text().chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
            let Some(mut digits) = digits else { return Ok(Cell::Null) };
            if digits.len() % 2 == 1 {
                digits.insert(0, 0);
            }
            let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
            Ok(Cell::Bytes(arena.alloc_slice_fill_iter(bytes.collect::<Vec<_>>())))
        },
    ),
    cells(
        "encode",
        "encode(s, charset): its bytes",
        (2, 2),
        |n, a| typed(n, a, &[T::String, T::String], T::Binary),
        |a, _, arena| encode(a[0].text(), a[1].text(), arena),
    ),
    cells(
        "decode",
        "decode(bytes, charset): the text",
        (2, 2),
        |n, a| typed(n, a, &[T::Binary, T::String], T::String),
        |a, _, arena| decode(a[0].bytes(), a[1].text(), arena),
    ),
    cells(
        "bit_length",
        "bit_length(s): eight times its bytes",
        (1, 1),
        |n, a| typed(n, a, &[T::Binary], T::Int),
        |a, _, _| Ok(Cell::Long(a[0].bytes().len() as i64 * 8)),
    ),
    cells(
        "repeat",
        "repeat(s, n)",
        (2, 2),
        |n, a| typed(n, a, &[T::String, T::Int], T::String),
        |a, _, arena| {
            let count = a[1].long().max(0) as usize;
            bounded(a[0].bytes().len().saturating_mul(count))?;
            Ok(made(arena, &a[0].text().repeat(count)))
        },
    ),
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
    ),
    cells(
        "instr",
        "instr(s, part): its first place, from 1; 0 if there is none",
        (2, 2),
        |n, a| typed(n, a, &[T::String], T::Int),
        |a, _, _| Ok(Cell::Long(locate(a[1].text(), a[0].text(), 1))),
    ),
    cells(
        "locate",
        "locate(part, s[, from]): its first place, from 1; 0 if there is none",
        (2, 3),
        |n, a| typed(n, a, &[T::String, T::String, T::Int], T::Int),
        |a, _, _| {
            let from = a.get(2).map_or(1, |from| from.long());
            Ok(Cell::Long(locate(a[0].text(), a[1].text(), from)))
        },
    ),
    cells(
        "left",
        "left(s, n): its first characters",
        (2, 2),
        |n, a| typed(n, a, &[T::String, T::Int], T::String),
        |a, _, _| {
            let text = a[0].text();
            let end = text
                .char_indices()
                .nth(a[1].long().max(0) as usize)
                .map_or(text.len(), |(at, _)| at);
            Ok(Cell::Bytes(&a[0].bytes()[..end]))
        },
    ),
    cells(
        "right",
        "right(s, n): its last characters",
        (2, 2),
        |n, a| typed(n, a, &[T::String, T::Int], T::String),
        |a, _, _| {
            let (text, count) = (a[0].text(), a[1].long().max(0) as usize);
            let skip = text.chars().count().saturating_sub(count);
            let begin = text.char_indices().nth(skip).map_or(text.len(), |(at, _)| at);
            Ok(Cell::Bytes(&a[0].bytes()[begin..]))
        },
    ),
    cells(
        "overlay",
        "overlay(s, part, from[, length]): part instead of what stands there",
        (3, 4),
        |n, a| typed(n, a, &[T::String, T::String, T::Int, T::Int], T::String),
        |a, _, arena| {
            let (text, part) = (a[0].text(), a[1].text());
            let from = a[2].long();
            let given = a.get(3).map_or(-1, |length| length.long());
            let length = if given >= 0 { given } else { part.chars().count() as i64 };
            let head: String = text.chars().take((from - 1).max(0) as usize).collect();
            let tail: String = text.chars().skip((from - 1 + length).max(0) as usize).collect();
            Ok(made(arena, &format!("{head}{part}{tail}")))
        },
    ),
    cells(
        "replace",
        "replace(s, part[, by])",
        (2, 3),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, arena| {
            let (text, part) = (a[0].text(), a[1].text());
            if part.is_empty() {
                return Ok(a[0]);
            }
            let out = text.replace(part, a.get(2).map_or("", |by| by.text()));
            bounded(out.len())?;
            Ok(made(arena, &out))
        },
    ),
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
            Ok(made(arena, &a[0].text().chars().filter_map(change).collect::<String>()))
        },
    ),
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
                    "part 0 was asked for, but the first is 1",
                    "",
                );
            }
            let parts: Vec<&str> =
                if separator.is_empty() { vec![text] } else { text.split(separator).collect() };
            let at = if n > 0 { n - 1 } else { parts.len() as i64 + n };
            let part = usize::try_from(at).ok().and_then(|at| parts.get(at));
            Ok(made(arena, part.unwrap_or(&"")))
        },
    ),
    cells(
        "substring_index",
        "substring_index(s, separator, n): before the separator n, or behind it from the end",
        (3, 3),
        |n, a| typed(n, a, &[T::String, T::String, T::Int], T::String),
        |a, _, _| Ok(Cell::Bytes(substring_index(a[0].text(), a[1].text(), a[2].long()))),
    ),
    cells(
        "find_in_set",
        "find_in_set(s, 'a,b,c'): its place in the list, from 1; 0 if there is none",
        (2, 2),
        |n, a| typed(n, a, &[T::String], T::Int),
        |a, _, _| {
            let found = a[1].text().split(',').position(|part| part == a[0].text());
            let found = found.filter(|_| !a[0].text().contains(','));
            Ok(Cell::Long(found.map_or(0, |at| at as i64 + 1)))
        },
    ),
    nullable_cells(
        "elt",
        "elt(n, a, b, …): the argument n, from 1",
        (2, MANY),
        elt,
        |a, _, _| match (a[0].is_null(), a.get(a[0].long().max(0) as usize)) {
            (false, Some(found)) if a[0].long() > 0 => Ok(*found),
            (true, _) => Ok(Cell::Null),
            _ => failed(
                "INVALID_ARRAY_INDEX",
                format!("there is no argument {} of {}", a[0].long(), a.len() - 1),
                "",
            ),
        },
    ),
    cells(
        "levenshtein",
        "levenshtein(a, b[, most]): changes from one to the other; -1 for more than `most`",
        (2, 3),
        |n, a| typed(n, a, &[T::String, T::String, T::Int], T::Int),
        |a, _, _| {
            let found = levenshtein(a[0].text(), a[1].text());
            let most = a.get(2).map_or(i64::MAX, |most| most.long());
            Ok(Cell::Long(if found > most { -1 } else { found }))
        },
    ),
    cells(
        "soundex",
        "soundex(s): how it sounds in English",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, arena| Ok(made(arena, &soundex(a[0].text()))),
    ),
    cells(
        "btrim",
        "btrim(s[, characters]): without them at both ends",
        (1, 2),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, arena| {
            let set = a.get(1).map_or(" ", |set| set.text());
            Ok(made(arena, a[0].text().trim_matches(|c: char| set.contains(c))))
        },
    ),
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
    ),
    nullable_cells(
        "format_string",
        "format_string('%s: %5.2f', a, b): as Java's String.format",
        (1, MANY),
        |n, mut args| {
            let rest = args.split_off(1);
            let (mut args, to, nullable) = typed(n, args, &[T::String], T::String)?;
            args.extend(rest);
            Ok((args, to, nullable))
        },
        |a, call, arena| {
            if a[0].is_null() {
                return Ok(Cell::Null);
            }
            let types: Vec<&DataType> = (1..a.len()).map(|i| call.data_type(i)).collect();
            let out = format_string(a[0].text(), &a[1..], &types, call.semantics.zone)?;
            Ok(made(arena, &out))
        },
    ),
    cells(
        "typeof",
        "typeof(x): the name of its type",
        (1, 1),
        |_, a| Ok((a, T::String, false)),
        |_, call, arena| Ok(made(arena, &type_name(call.data_type(0)))),
    ),
    cells(
        "url_encode",
        "url_encode(s): for a form of the web",
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
    ),
    cells(
        "url_decode",
        "url_decode(s): of a form of the web",
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
    ),
];

fn elt(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let rest = args.split_off(1);
    let mut args = super::expect(name, args, &[T::Int])?;
    args.extend(super::expect(name, rest, &[T::String])?);
    let nullable = any_nullable(&args);
    Ok((args, T::String, nullable))
}

pub(super) fn bounded(bytes: usize) -> Result<(), Box<EvalError>> {
    if bytes <= TEXT_BYTES_MAX {
        return Ok(());
    }
    failed("COLLECTION_SIZE_LIMIT_EXCEEDED", format!("a text of {bytes} bytes"), "At most 64 MiB")
}

fn encode<'a>(text: &str, charset: &str, arena: &'a Bump) -> Result<Cell<'a>, Box<EvalError>> {
    let bytes: Vec<u8> = match charset.to_ascii_uppercase().as_str() {
        "UTF-8" => text.as_bytes().to_vec(),
        "US-ASCII" | "ASCII" => text
            .chars()
            .map(|c| u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(b'?'))
            .collect(),
        "ISO-8859-1" => text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect(),
        "UTF-16BE" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        "UTF-16LE" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "UTF-16" => {
            [0xFE, 0xFF].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect()
        }
        _ => return unknown_charset(charset),
    };
    Ok(Cell::Bytes(arena.alloc_slice_copy(&bytes)))
}

fn decode<'a>(bytes: &'a [u8], charset: &str, arena: &'a Bump) -> Result<Cell<'a>, Box<EvalError>> {
    let wide = |read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| read([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    let text = match charset.to_ascii_uppercase().as_str() {
        "UTF-8" | "US-ASCII" | "ASCII" => String::from_utf8_lossy(bytes).into_owned(),
        "ISO-8859-1" => bytes.iter().map(|b| char::from(*b)).collect(),
        "UTF-16BE" | "UTF-16" => {
            wide(u16::from_be_bytes).trim_start_matches('\u{FEFF}').to_string()
        }
        "UTF-16LE" => wide(u16::from_le_bytes),
        _ => return unknown_charset(charset),
    };
    Ok(made(arena, &text))
}

fn unknown_charset<'a>(charset: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed(
        "INVALID_PARAMETER_VALUE.CHARSET",
        format!("'{charset}' is not a character set"),
        "UTF-8, US-ASCII, ISO-8859-1, UTF-16, UTF-16BE, UTF-16LE",
    )
}

fn locate(part: &str, text: &str, from: i64) -> i64 {
    if from < 1 {
        return 0;
    }
    let skip = from as usize - 1;
    let Some(begin) = text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(skip) else {
        return 0;
    };
    match text[begin..].find(part) {
        Some(at) => text[..begin + at].chars().count() as i64 + 1,
        None => 0,
    }
}

fn substring_index<'a>(text: &'a str, separator: &str, count: i64) -> &'a [u8] {
    if separator.is_empty() || count == 0 {
        return b"";
    }
    if count > 0 {
        let found = text.match_indices(separator).nth(count as usize - 1);
        return found.map_or(text, |(at, _)| &text[..at]).as_bytes();
    }
    let found = text.rmatch_indices(separator).nth(count.unsigned_abs() as usize - 1);
    found.map_or(text, |(at, _)| &text[at + separator.len()..]).as_bytes()
}

fn levenshtein(a: &str, b: &str) -> i64 {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<i64> = (0..=b.len() as i64).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i as i64 + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + i64::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
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
        // H and W do not part two letters of one sound; vowels do.
        if !matches!(c.to_ascii_uppercase(), 'H' | 'W') {
            last = found;
        }
        if out.len() == 4 {
            break;
        }
    }
    format!("{out:0<4}")
}

fn type_name(data_type: &DataType) -> String {
    data_type.to_string().to_lowercase().replace(", ", ",").replace(": ", ":")
}

/// Patterns that are constants are read once.
fn format_number(args: Vec<Compiled>, call: Call) -> Compiled {
    let scale = call.data_type(0).as_decimal().map_or(0, |(_, scale)| scale);
    let constant = call.text(1).map(Pattern::new);
    let mut args = args.into_iter().map(Compiled::cells);
    let (Some(number), Some(how)) = (args.next(), args.next()) else {
        unreachable!("resolution counted the arguments")
    };
    bytes_fn(move |cx| {
        let (number, how) = (number(cx)?, how(cx)?);
        if number.is_null() || how.is_null() {
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
        assert_eq!(levenshtein("kitten", "sitting"), 3);
    }
}
