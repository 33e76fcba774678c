//! Conversions between text and bytes: character sets, base 64, base 16 and UTF-8 validation.

use super::registry::{Function, Typed, called, cells, made, typed, typed_or_null};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, bytes_fn, failed};
use crate::table::types::DataType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    cells(
        "base64",
        "base64(bytes): as text",
        (1, 1),
        |n, a| typed(n, a, &[T::Binary], T::String),
        |a, call, arena| {
            let text = BASE64.encode(a[0].bytes());
            if !call.semantics.base64_lines {
                return Ok(Cell::Bytes(arena.alloc_slice_copy(text.as_bytes())));
            }
            let lines: Vec<&[u8]> = text.as_bytes().chunks(76).collect();
            Ok(Cell::Bytes(arena.alloc_slice_copy(&lines.join(&b"\r\n"[..]))))
        },
    )
    .usage("1.5.0", "base64('Millstream')", "TWlsbHN0cmVhbQ=="),
    cells(
        "unbase64",
        "unbase64(text): its bytes; what is no digit of base 64 is skipped",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::Binary),
        |a, _, arena| match mime(a[0].bytes()) {
            Some(bytes) => Ok(Cell::Bytes(arena.alloc_slice_copy(&bytes))),
            None => not_of(a[0].text(), "base64"),
        },
    )
    .usage("1.5.0", "CAST(unbase64('TWlsbA==') AS STRING)", "Mill"),
    cells(
        "to_base32",
        "to_base32(bytes): as text",
        (1, 1),
        |n, a| typed(n, a, &[T::Binary], T::String),
        |a, _, arena| Ok(Cell::Bytes(to_base32(a[0].bytes(), arena))),
    )
    .usage("4.3.0", "to_base32('Mill')", "JVUWY3A="),
    cells(
        "from_base32",
        "from_base32(text): its bytes; what is no digit of base 32 is skipped",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::Binary),
        |a, _, arena| Ok(Cell::Bytes(from_base32(a[0].bytes(), arena))),
    )
    .usage("4.3.0", "CAST(from_base32('JVUWY3A=') AS STRING)", "Mill"),
    cells(
        "unhex",
        "unhex(text): the bytes of its hexadecimal digits",
        (1, 1),
        |n, a| typed_or_null(n, a, &[T::String], T::Binary),
        |a, _, arena| {
            Ok(unhex(a[0].text())
                .map_or(Cell::Null, |bytes| Cell::Bytes(arena.alloc_slice_copy(&bytes))))
        },
    )
    .usage("1.5.0", "CAST(unhex('6162') AS STRING)", "ab"),
    cells(
        "to_binary",
        "to_binary(text[, 'hex', 'base64' or 'utf-8']): its bytes",
        (1, 2),
        to_binary,
        |a, _, arena| {
            let text = a[0].text();
            let format = a.get(1).map_or("hex", |format| format.text()).to_ascii_lowercase();
            let bytes = match format.as_str() {
                "hex" => unhex(text),
                "base64" if is_base64(text) => mime(text.as_bytes()),
                "base64" => None,
                _ => Some(text.as_bytes().to_vec()),
            };
            match bytes {
                Some(bytes) => Ok(Cell::Bytes(arena.alloc_slice_copy(&bytes))),
                None => not_of(text, if format == "hex" { "hex" } else { "base64" }),
            }
        },
    )
    .usage("3.3.0", "to_binary('4D69', 'hex')", "[4D 69]"),
    cells(
        "encode",
        "encode(s, charset): its bytes",
        (2, 2),
        |n, a| typed(n, a, &[T::String, T::String], T::Binary),
        |a, _, arena| encode(a[0].text(), a[1].text(), arena),
    )
    .usage("1.5.0", "encode('é', 'UTF-8')", "[C3 A9]"),
    cells(
        "decode",
        "decode(bytes, charset): the text; decode(x, a, r, …[, otherwise]): the r that \
         follows the first a equal to x",
        (2, 2),
        |n, a| typed(n, a, &[T::Binary, T::String], T::String),
        |a, _, arena| decode(a[0].bytes(), a[1].text(), arena),
    )
    .usage("1.5.0", "decode(X'C3A9', 'UTF-8')", "é"),
    cells(
        "is_valid_utf8",
        "is_valid_utf8(s): whether its bytes are UTF-8",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::Boolean),
        |a, _, _| Ok(Cell::Bool(std::str::from_utf8(a[0].bytes()).is_ok())),
    )
    .usage("4.0.0", "is_valid_utf8(X'80')", "false"),
    cells(
        "make_valid_utf8",
        "make_valid_utf8(s): U+FFFD instead of what is not UTF-8",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, arena| Ok(made(arena, &String::from_utf8_lossy(a[0].bytes()))),
    )
    .usage("4.0.0", "make_valid_utf8(X'6180')", "a�"),
    cells(
        "validate_utf8",
        "validate_utf8(s): the text itself; an error if it is not UTF-8",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::String),
        |a, _, _| match std::str::from_utf8(a[0].bytes()) {
            Ok(_) => Ok(a[0]),
            Err(error) => failed(
                "INVALID_UTF8_STRING",
                format!("byte {} is not UTF-8", error.valid_up_to() + 1),
                "Use make_valid_utf8, or try_validate_utf8 to get NULL instead",
            ),
        },
    )
    .usage("4.0.0", "validate_utf8('abc')", "abc"),
    called(
        "typeof",
        "typeof(x): the name of its type",
        (1, 1),
        |_, a| Ok(Typed::new(a, T::String, false)),
        // The result depends only on the argument's type, so the argument is not evaluated.
        |_, call| {
            let mut name = String::new();
            type_name(call.data_type(0), &mut name);
            bytes_fn(move |cx| Ok(Some(cx.arena.alloc_str(&name).as_bytes())))
        },
    )
    .usage("3.0.0", "typeof(1.5)", "decimal(2,1)"),
];

/// Writes a type like Spark's catalog: in lower case, except for field names.
pub(crate) fn type_name(data_type: &DataType, out: &mut String) {
    match data_type {
        T::Array(element) => {
            out.push_str("array<");
            type_name(element, out);
        }
        T::Map(key, value) => {
            out.push_str("map<");
            type_name(key, out);
            out.push(',');
            type_name(value, out);
        }
        T::Struct(fields) => {
            out.push_str("struct<");
            for (i, field) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&field.name);
                out.push(':');
                type_name(&field.data_type, out);
            }
        }
        plain => return out.push_str(&plain.to_string().to_lowercase()),
    }
    out.push('>');
}

fn not_of<'a>(text: &str, what: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed(
        "CONVERSION_INVALID_INPUT",
        format!("'{text}' is not {what}"),
        "Use try_to_binary to get NULL instead",
    )
}

fn to_binary(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    if let Some(format) = args.get(1) {
        if !format.is_foldable() {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
                format!("the format of `{name}` must be a constant, but is `{format}`"),
                "'hex', 'base64' or 'utf-8'",
            ));
        }
        let known = |format: &str| {
            matches!(format.to_ascii_lowercase().as_str(), "hex" | "base64" | "utf-8" | "utf8")
        };
        let unknown = match format.literal_text() {
            Some(format) => !known(format),
            None => !matches!(format.data_type, T::String | T::Null),
        };
        if unknown {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.INVALID_ARG_VALUE",
                format!("`{name}` has no format `{format}`"),
                "'hex', 'base64' or 'utf-8'",
            ));
        }
    }
    typed_or_null(name, args, &[T::String], T::Binary)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let mut digits = digits?;
    if digits.len() % 2 == 1 {
        digits.insert(0, 0);
    }
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The value of a base 64 digit; `None` for any other byte.
fn digit(b: u8) -> Option<u32> {
    Some(u32::from(match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Encodes base 32: eight digits for five bytes, with padding.
fn to_base32<'a>(bytes: &[u8], arena: &'a Bump) -> &'a [u8] {
    let mut out = BumpVec::with_capacity_in(bytes.len().div_ceil(5) * 8, arena);
    for group in bytes.chunks(5) {
        let mut word = [0; 8];
        word[3..3 + group.len()].copy_from_slice(group);
        let word = u64::from_be_bytes(word);
        let digits = (group.len() * 8).div_ceil(5);
        out.extend((0..8).map(|at| match at < digits {
            true => BASE32[(word >> (35 - 5 * at) & 31) as usize],
            false => b'=',
        }));
    }
    out.into_bump_slice()
}

/// Decodes base 32 in either case. What is not a digit is skipped, and padding ends the text. As in
/// Spark, a single digit at the end is a byte.
fn from_base32<'a>(text: &[u8], arena: &'a Bump) -> &'a [u8] {
    let mut out = BumpVec::with_capacity_in(text.len() / 8 * 5 + 5, arena);
    let (mut word, mut digits) = (0u64, 0);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let value = match byte.to_ascii_uppercase() {
            letter @ b'A'..=b'Z' => letter - b'A',
            digit @ b'2'..=b'7' => digit - b'2' + 26,
            _ => continue,
        };
        word = word << 5 | u64::from(value);
        digits += 1;
        if digits == 8 {
            out.extend_from_slice(&word.to_be_bytes()[3..]);
            (word, digits) = (0, 0);
        }
    }
    let (dropped_bits, bytes) = match digits {
        0 => return out.into_bump_slice(),
        1 => (2, 1),
        more => (more * 5 % 8, more * 5 / 8),
    };
    out.extend_from_slice(&(word >> dropped_bits).to_be_bytes()[8 - bytes..]);
    out.into_bump_slice()
}

/// Decodes base 64 like Java's MIME decoder. Characters that are not base 64 are skipped, padding
/// may be missing, and leftover bits are ignored. `None` if padding is incomplete, if digits follow
/// it, or if the last group has a single digit.
fn mime(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut have, mut at) = (0u32, 0, 0);
    while let Some(b) = text.get(at) {
        at += 1;
        if *b == b'=' {
            let second = if have == 2 { text.get(at) } else { Some(&b'=') };
            if have == 0 || second != Some(&b'=') {
                return None;
            }
            at += usize::from(have == 2);
            break;
        }
        let Some(value) = digit(*b) else { continue };
        bits = bits << 6 | value;
        have += 1;
        if have == 4 {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
            (bits, have) = (0, 0);
        }
    }
    match have {
        2 => out.push((bits >> 4) as u8),
        3 => out.extend_from_slice(&[(bits >> 10) as u8, (bits >> 2) as u8]),
        1 => return None,
        _ => {}
    }
    text[at..].iter().all(|b| digit(*b).is_none()).then_some(out)
}

/// Whether `to_binary` accepts a text as base 64: digits and white space, then at most two padding
/// characters, and no group of a single digit.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let is_space = |c: char| c.is_whitespace() && !matches!(c, '\u{A0}' | '\u{2007}' | '\u{202F}');
    let mut count = 0;
    for c in digits.chars() {
        match u8::try_from(c).ok().and_then(digit) {
            Some(_) => count += 1,
            None if is_space(c) => {}
            None => return false,
        }
    }
    match padding {
        0 => count % 4 != 1,
        1 | 2 => (count + padding).is_multiple_of(4),
        _ => false,
    }
}

/// The supported character sets.
#[derive(Clone, Copy)]
enum Charset {
    Utf8,
    Ascii,
    Latin1,
    Utf16Be,
    Utf16Le,
    Utf16,
    Utf32,
}

impl Charset {
    /// Finds a character set by its name, ignoring case.
    fn of(name: &str) -> Option<Self> {
        let known = [
            ("UTF-8", Self::Utf8),
            ("US-ASCII", Self::Ascii),
            ("ISO-8859-1", Self::Latin1),
            ("UTF-16BE", Self::Utf16Be),
            ("UTF-16LE", Self::Utf16Le),
            ("UTF-16", Self::Utf16),
            ("UTF-32", Self::Utf32),
        ];
        let found = known.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        found.map(|(_, charset)| charset)
    }
}

fn encode<'a>(text: &'a str, name: &str, arena: &'a Bump) -> Result<Cell<'a>, Box<EvalError>> {
    let Some(charset) = Charset::of(name) else { return unknown_charset(name) };
    let mut out = BumpVec::new_in(arena);
    match charset {
        Charset::Utf8 => return Ok(Cell::Bytes(text.as_bytes())),
        Charset::Ascii if text.is_ascii() => return Ok(Cell::Bytes(text.as_bytes())),
        Charset::Ascii => return malformed(name),
        Charset::Latin1 => {
            for c in text.chars() {
                let Ok(byte) = u8::try_from(c) else { return malformed(name) };
                out.push(byte);
            }
        }
        Charset::Utf16Le => out.extend(text.encode_utf16().flat_map(u16::to_le_bytes)),
        Charset::Utf16Be => out.extend(text.encode_utf16().flat_map(u16::to_be_bytes)),
        Charset::Utf16 => {
            // Java writes a byte order mark only if the text is not empty.
            if !text.is_empty() {
                out.extend_from_slice(&[0xFE, 0xFF]);
            }
            out.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
        }
        Charset::Utf32 => out.extend(text.chars().flat_map(|c| u32::from(c).to_be_bytes())),
    }
    Ok(Cell::Bytes(out.into_bump_slice()))
}

fn decode<'a>(bytes: &'a [u8], name: &str, arena: &'a Bump) -> Result<Cell<'a>, Box<EvalError>> {
    let Some(charset) = Charset::of(name) else { return unknown_charset(name) };
    let text = match charset {
        Charset::Ascii if !bytes.is_ascii() => return malformed(name),
        Charset::Utf8 | Charset::Ascii => match std::str::from_utf8(bytes) {
            Ok(text) => return Ok(Cell::Bytes(text.as_bytes())),
            Err(_) => return malformed(name),
        },
        Charset::Latin1 => Some(bytes.iter().map(|b| char::from(*b)).collect()),
        Charset::Utf16Be => utf16(bytes, u16::from_be_bytes),
        Charset::Utf16Le => utf16(bytes, u16::from_le_bytes),
        // The byte order mark is not part of the text.
        Charset::Utf16 => match bytes {
            [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
            [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
            all => utf16(all, u16::from_be_bytes),
        },
        Charset::Utf32 => match bytes {
            [0, 0, 0xFE, 0xFF, rest @ ..] => utf32(rest, u32::from_be_bytes),
            [0xFF, 0xFE, 0, 0, rest @ ..] => utf32(rest, u32::from_le_bytes),
            all => utf32(all, u32::from_be_bytes),
        },
    };
    match text {
        Some(text) => Ok(made(arena, &text)),
        None => malformed(name),
    }
}

fn utf16(bytes: &[u8], read: fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, []) = bytes.as_chunks::<2>() else { return None };
    char::decode_utf16(pairs.iter().map(|pair| read(*pair))).collect::<Result<_, _>>().ok()
}

fn utf32(bytes: &[u8], read: fn([u8; 4]) -> u32) -> Option<String> {
    let (words, []) = bytes.as_chunks::<4>() else { return None };
    let one = |word: &[u8; 4]| match read(*word) {
        // Java accepts the code of an unpaired surrogate and encodes it as `?`.
        0xD800..=0xDFFF => Some('?'),
        code => char::from_u32(code),
    };
    words.iter().map(one).collect()
}

fn malformed<'a>(charset: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed(
        "MALFORMED_CHARACTER_CODING",
        format!("it has a character that {charset} lacks"),
        "Use another character set",
    )
}

fn unknown_charset<'a>(charset: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed(
        "INVALID_PARAMETER_VALUE.CHARSET",
        format!("'{charset}' is not a character set"),
        "UTF-8, US-ASCII, ISO-8859-1, UTF-16, UTF-16BE, UTF-16LE, UTF-32",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_java_reads_mime() {
        for (text, expected) in [
            ("YQ==", Some(&b"a"[..])),
            ("YQ", Some(b"a")),
            ("YWI", Some(b"ab")),
            ("Y*Q\r\n==", Some(b"a")),
            ("YR==", Some(b"a")),
            ("-_", Some(b"")),
            ("YQ=", None),
            ("YQ= =", None),
            ("=", None),
            ("Y", None),
            ("YQ==YQ==", None),
        ] {
            assert_eq!(mime(text.as_bytes()).as_deref(), expected, "{text}");
        }
        for (text, valid) in [("YQ", true), ("Y Q==", true), ("YQ=", false), ("YQ= =", false)] {
            assert_eq!(is_base64(text), valid, "{text}");
        }
    }
}
