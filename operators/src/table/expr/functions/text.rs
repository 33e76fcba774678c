//! Strings, the rarer functions: parts, positions, formats, codes.

use super::{
    Function, MANY, Typed, any_nullable, cells, made, nullable_cells, typed, typed_or_null,
    unexpected,
};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::types::DataType;
use crate::table::value::decimal_text;
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
    cells(
        "format_number",
        "format_number(n, digits): with commas and so many digits behind the point",
        (2, 2),
        |n, a| {
            if !a[0].data_type.is_numeric() && a[0].data_type != T::String {
                return Err(unexpected(n, "a number", &a[0]));
            }
            let to = match a[0].data_type {
                T::Float | T::Double | T::String => T::Double,
                ref t => t.clone(),
            };
            typed_or_null(n, a, &[to, T::Int], T::String)
        },
        |a, call, arena| {
            let digits = a[1].long();
            if digits < 0 {
                return Ok(Cell::Null);
            }
            let digits = digits.min(100) as usize;
            let plain = match a[0] {
                Cell::Long(n) => {
                    format!("{n}{}{}", if digits > 0 { "." } else { "" }, "0".repeat(digits))
                }
                Cell::Decimal(v) => {
                    let scale = call.data_type(0).as_decimal().map_or(0, |(_, s)| s);
                    fixed(&decimal_text(v, scale), digits)
                }
                other => fixed(&plain_double(other.double()), digits),
            };
            Ok(made(arena, &grouped(&plain)))
        },
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

fn bounded(bytes: usize) -> Result<(), Box<EvalError>> {
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

fn plain_double(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let text = format!("{value:?}");
    // Without an exponent, all its digits written out.
    if text.contains('e') { format!("{value}") } else { text }
}

/// Digits behind the point cut or filled, rounded half to even, as Java's DecimalFormat does.
fn fixed(text: &str, digits: usize) -> String {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        return text.to_string();
    }
    let mut all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let keep = whole.len() + digits;
    if all.len() > keep {
        let (first, beyond) = (all[keep], all[keep + 1..].iter().any(|b| *b != b'0'));
        let odd = keep > 0 && (all[keep - 1] - b'0') % 2 == 1;
        all.truncate(keep);
        if first > b'5' || first == b'5' && (beyond || odd) {
            let mut at = keep;
            loop {
                if at == 0 {
                    all.insert(0, b'1');
                    break;
                }
                at -= 1;
                if all[at] == b'9' {
                    all[at] = b'0';
                } else {
                    all[at] += 1;
                    break;
                }
            }
        }
    }
    let grown = all.len().saturating_sub(keep);
    let point = if all.len() >= keep { whole.len() + grown } else { whole.len() };
    let text: String = all.iter().map(|b| *b as char).collect();
    let (whole, fraction) = text.split_at(point.min(text.len()));
    let zero = all.iter().all(|b| *b == b'0');
    let sign = if zero { "" } else { sign };
    if digits == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{fraction:0<digits$}")
}

/// With a comma between groups of three digits.
fn grouped(text: &str) -> String {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (whole, fraction) = match rest.find('.') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let mut out = String::from(sign);
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out + fraction
}

fn type_name(data_type: &DataType) -> String {
    data_type.to_string().to_lowercase().replace(", ", ",").replace(": ", ":")
}

/// Java's format: `%[index$][flags][width][.precision]conversion`.
fn format_string(
    pattern: &str,
    args: &[Cell<'_>],
    types: &[&DataType],
    zone: crate::table::datetime::Tz,
) -> Result<String, Box<EvalError>> {
    let wrong = |what: String| {
        failed("INVALID_PARAMETER_VALUE.PATTERN", what, "Write %s, %d, %.2f, %x, %%")
    };
    let mut out = String::new();
    let mut next = 0;
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let mut index = None;
        if rest[digits_end..].starts_with('$') {
            index = rest[..digits_end].parse::<usize>().ok();
            rest = &rest[digits_end + 1..];
        }
        let flags_end = rest.find(|c: char| !"-+ 0,(#".contains(c)).unwrap_or(rest.len());
        let (flags, after) = rest.split_at(flags_end);
        let width_end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let width = after[..width_end].parse::<usize>().unwrap_or(0);
        rest = &after[width_end..];
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            precision = after[..end].parse::<usize>().ok();
            rest = &after[end..];
        }
        let Some(conversion) = rest.chars().next() else {
            return wrong("the pattern ends behind %".to_string());
        };
        rest = &rest[conversion.len_utf8()..];
        if width > 1 << 16 || precision.is_some_and(|p| p > 1 << 10) {
            return wrong("a width or precision is too large".to_string());
        }
        let body = match conversion {
            '%' => "%".to_string(),
            'n' => "\n".to_string(),
            _ => {
                let which = index.map_or(next, |index| index.saturating_sub(1));
                if index.is_none() {
                    next += 1;
                }
                let Some(arg) = args.get(which) else {
                    return wrong(format!("%{conversion} has no argument"));
                };
                match converted(conversion, flags, precision, *arg, types[which], zone) {
                    Some(text) => text,
                    None => {
                        return wrong(format!("%{conversion} cannot take {}", types[which]));
                    }
                }
            }
        };
        let length = body.chars().count();
        if length >= width {
            out.push_str(&body);
        } else if flags.contains('-') {
            out.push_str(&body);
            out.extend(std::iter::repeat_n(' ', width - length));
        } else if flags.contains('0') && matches!(conversion, 'd' | 'f' | 'e' | 'x' | 'X' | 'o') {
            let (sign, digits) = match body.strip_prefix(['-', '+']) {
                Some(digits) => (&body[..1], digits),
                None => ("", body.as_str()),
            };
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', width - length));
            out.push_str(digits);
        } else {
            out.extend(std::iter::repeat_n(' ', width - length));
            out.push_str(&body);
        }
        bounded(out.len())?;
    }
    out.push_str(rest);
    Ok(out)
}

fn converted(
    conversion: char,
    flags: &str,
    precision: Option<usize>,
    arg: Cell<'_>,
    data_type: &DataType,
    zone: crate::table::datetime::Tz,
) -> Option<String> {
    let shown = || match arg {
        Cell::Null => "null".to_string(),
        other => {
            other.value(data_type).display(data_type, zone).unwrap_or_else(|| "null".to_string())
        }
    };
    if arg.is_null() && !matches!(conversion, 'b' | 'B') {
        return Some("null".to_string());
    }
    let signed = |text: String, negative: bool| {
        let text = if flags.contains(',') { grouped(&text) } else { text };
        if !negative && flags.contains('+') {
            format!("+{text}")
        } else if !negative && flags.contains(' ') {
            format!(" {text}")
        } else {
            text
        }
    };
    let real = |arg: Cell<'_>| match arg {
        Cell::Double(v) => Some(v),
        Cell::Decimal(v) => {
            let scale = data_type.as_decimal().map_or(0, |(_, s)| s);
            decimal_text(v, scale).parse().ok()
        }
        _ => None,
    };
    Some(match conversion {
        's' | 'S' => {
            let text = shown();
            let cut: String = match precision {
                Some(most) => text.chars().take(most).collect(),
                None => text,
            };
            if conversion == 'S' { cut.to_uppercase() } else { cut }
        }
        'd' => match arg {
            Cell::Long(v) if data_type.is_integral() => signed(v.to_string(), v < 0),
            _ => return None,
        },
        'x' | 'X' | 'o' => {
            let value = match arg {
                Cell::Long(v) if *data_type == T::Long => v as u64,
                Cell::Long(v) if data_type.is_integral() => u64::from(v as u32),
                _ => return None,
            };
            match conversion {
                'x' => format!("{value:x}"),
                'X' => format!("{value:X}"),
                _ => format!("{value:o}"),
            }
        }
        'f' => {
            let value = real(arg)?;
            let text = plain_half_up(value, precision.unwrap_or(6));
            signed(text, value < 0.0)
        }
        'e' | 'E' => {
            let value = real(arg)?;
            let text = format!("{value:.*e}", precision.unwrap_or(6));
            let (mantissa, exponent) = text.split_once('e')?;
            let exponent: i32 = exponent.parse().ok()?;
            let sign = if exponent < 0 { '-' } else { '+' };
            let text = format!("{mantissa}e{sign}{:02}", exponent.abs());
            signed(if conversion == 'E' { text.to_uppercase() } else { text }, value < 0.0)
        }
        'c' => match arg {
            Cell::Long(v) => char::from_u32(u32::try_from(v).ok()?)?.to_string(),
            Cell::Bytes(_) => arg.text().chars().next().map(String::from)?,
            _ => return None,
        },
        'b' | 'B' => match arg {
            Cell::Null => "false".to_string(),
            Cell::Bool(v) => v.to_string(),
            _ => "true".to_string(),
        },
        _ => return None,
    })
}

/// Rounded half up, as Java's formatter does.
fn plain_half_up(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        let text = if value.is_nan() { "NaN" } else { "Infinity" };
        return if value == f64::NEG_INFINITY { format!("-{text}") } else { text.to_string() };
    }
    let exact = plain_double(value);
    let behind = exact.split_once('.').map_or("", |(_, fraction)| fraction);
    // A five that is cut off goes up.
    let half = behind.len() > digits
        && behind.as_bytes()[digits] == b'5'
        && behind[digits + 1..].bytes().all(|b| b == b'0');
    if !half {
        return format!("{value:.digits$}");
    }
    let nudged = format!("{}1", exact);
    fixed(&nudged, digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_java_formats_them() {
        assert_eq!(grouped(&fixed("1234567.891", 2)), "1,234,567.89");
        assert_eq!(fixed("0.125", 2), "0.12");
        assert_eq!(fixed("0.375", 2), "0.38");
        assert_eq!(fixed("9.99", 1), "10.0");
        assert_eq!(fixed("-0.001", 2), "0.00");
        assert_eq!(plain_half_up(0.125, 2), "0.13");
        assert_eq!(plain_half_up(2.5, 0), "3");
        assert_eq!(soundex("Robert"), "R163");
        assert_eq!(soundex("Ashcraft"), "A261");
        assert_eq!(levenshtein("kitten", "sitting"), 3);
    }
}
