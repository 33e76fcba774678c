//! Reads strings and names: finds their ends, and decodes escapes and base 64.

use crate::table::text::json::token::{InvalidJson, Name, Text, Tokens};

impl Tokens<'_> {
    /// Reads the rest of a name, whose first byte has been consumed. A name without double quotes
    /// is an error, unless a feature allows it.
    #[inline]
    pub(super) fn name(&mut self, byte: u8) -> Result<Name, InvalidJson> {
        if byte != b'"' {
            return self.odd_name(byte);
        }
        let begin = self.at;
        let end = plain_end(self.bytes, begin, b'"');
        if self.bytes.get(end) == Some(&b'"') && self.is_utf8 {
            self.at = end + 1;
            return Ok(Name { begin, end, escaped: false });
        }
        self.quoted_name(b'"')
    }

    /// Reads the rest of a quoted name, which may have escapes. An error if it is malformed.
    #[cold]
    fn quoted_name(&mut self, quote: u8) -> Result<Name, InvalidJson> {
        let begin = self.at;
        self.finish(quote)?;
        let escaped = matches!(self.text, Text::Unescaped);
        Ok(Name { begin, end: self.at - 1, escaped })
    }

    #[cold]
    fn odd_name(&mut self, byte: u8) -> Result<Name, InvalidJson> {
        if byte == b'\'' && self.features.single_quotes {
            return self.quoted_name(b'\'');
        }
        self.at -= 1;
        let begin = self.at;
        if self.features.plain_names {
            while self.at < self.bytes.len() && is_plain_name(self.char_here()) {
                self.at += self.char_here().len_utf8();
            }
        }
        if self.at == begin {
            self.at += 1;
            return Err(self.unexpected());
        }
        Ok(Name { begin, end: self.at, escaped: false })
    }

    #[inline]
    pub(super) fn read_text(&mut self) -> Result<(), InvalidJson> {
        self.unread = false;
        self.finish(b'"')
    }

    /// Reads the rest of a string, whose opening quote has been consumed.
    #[inline]
    pub(super) fn finish(&mut self, quote: u8) -> Result<(), InvalidJson> {
        let begin = self.at;
        let end = plain_end(self.bytes, begin, quote);
        if self.bytes.get(end) == Some(&quote) && self.is_utf8 {
            self.at = end + 1;
            self.text = Text::Input(begin, end);
            return Ok(());
        }
        self.finish_odd(quote)
    }

    /// Reads a string that may have escapes or be invalid UTF-8. The text is decoded into a buffer.
    #[cold]
    fn finish_odd(&mut self, quote: u8) -> Result<(), InvalidJson> {
        self.unescaped.clear();
        self.text = Text::Unescaped;
        // A high surrogate whose low surrogate has not been read yet.
        let mut high = None;
        loop {
            let byte = self.take().ok_or(InvalidJson)?;
            let unit = match byte {
                b'\\' => self.escaped()?,
                byte if byte == quote => {
                    flush_half(&mut high, &mut self.unescaped);
                    return Ok(());
                }
                0..0x20 if !self.features.control_characters => return Err(InvalidJson),
                0..0x80 => u32::from(byte),
                _ => self.multibyte(byte)?,
            };
            match (high.take(), unit) {
                (None, 0xD800..=0xDBFF) => high = Some(unit),
                (Some(first), 0xDC00..=0xDFFF) => {
                    push(0x10000 + ((first - 0xD800) << 10) + (unit - 0xDC00), &mut self.unescaped);
                }
                (Some(_), 0xD800..=0xDBFF) => {
                    self.unescaped.push(b'?');
                    high = Some(unit);
                }
                (before, unit) => {
                    if before.is_some() {
                        self.unescaped.push(b'?');
                    }
                    push(unit, &mut self.unescaped);
                }
            }
        }
    }

    /// Decodes the rest of a multi-byte character, whose first byte has been consumed. As in
    /// Jackson, overlong forms are accepted.
    fn multibyte(&mut self, first: u8) -> Result<u32, InvalidJson> {
        let (more, mut code) = match first {
            0xC0..=0xDF => (1, u32::from(first & 0x1F)),
            0xE0..=0xEF => (2, u32::from(first & 0x0F)),
            0xF0..=0xF7 => (3, u32::from(first & 0x07)),
            _ => return Err(InvalidJson),
        };
        for _ in 0..more {
            let next = self.take().ok_or(InvalidJson)?;
            if next & 0xC0 != 0x80 {
                return Err(InvalidJson);
            }
            code = code << 6 | u32::from(next & 0x3F);
        }
        Ok(code)
    }

    /// Reads the character, or the UTF-16 code unit, after a backslash.
    pub(super) fn escaped(&mut self) -> Result<u32, InvalidJson> {
        Ok(match self.take().ok_or(InvalidJson)? {
            c @ (b'"' | b'\\' | b'/') => u32::from(c),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'u' => {
                let mut unit = 0;
                for _ in 0..4 {
                    let digit = self.take().ok_or(InvalidJson)?;
                    match char::from(digit).to_digit(16) {
                        Some(digit) => unit = unit << 4 | digit,
                        None => return Err(self.unexpected()),
                    }
                }
                unit
            }
            b'\'' if self.features.single_quotes => u32::from(b'\''),
            other if self.features.any_escape => {
                if other < 0x80 {
                    u32::from(other)
                } else {
                    self.multibyte(other)?
                }
            }
            _ => return Err(self.unexpected()),
        })
    }

    /// Decodes the current string as base 64. After an error, the next read skips the rest of
    /// the string, starting at the character at which Jackson stops.
    pub fn base64(&mut self) -> Result<Vec<u8>, InvalidJson> {
        if !self.unread {
            // A string in single quotes has already been read.
            let mut quoted = self.finished().to_vec();
            quoted.push(b'"');
            let mut again = Tokens::checked(&quoted, self.features, self.source, self.is_utf8);
            (again.unread, again.at) = (true, 0);
            return again.base64();
        }
        let mut out = Vec::new();
        loop {
            let mut byte = self.take().ok_or(InvalidJson)?;
            while byte <= b' ' {
                byte = self.take().ok_or(InvalidJson)?;
            }
            if byte == b'"' {
                self.unread = false;
                return Ok(out);
            }
            let first = if byte == b'\\' { self.escaped()? } else { u32::from(byte) };
            if first <= u32::from(b' ') {
                continue;
            }
            let mut bits = base64_digit(first)?;
            let second = self.take().ok_or(InvalidJson)?;
            bits = bits << 6 | self.base64_digit(second)?;
            let third = self.take().ok_or(InvalidJson)?;
            if third == b'=' {
                if self.take() != Some(b'=') {
                    return Err(InvalidJson);
                }
                out.push((bits >> 4) as u8);
                continue;
            }
            if third == b'"' {
                // Padding is missing: Jackson reports an error at the end of the string.
                self.at -= 1;
                return Err(InvalidJson);
            }
            bits = bits << 6 | self.base64_digit(third)?;
            let fourth = self.take().ok_or(InvalidJson)?;
            match fourth {
                b'=' => out.extend_from_slice(&[(bits >> 10) as u8, (bits >> 2) as u8]),
                b'"' => {
                    self.at -= 1;
                    return Err(InvalidJson);
                }
                fourth => {
                    bits = bits << 6 | self.base64_digit(fourth)?;
                    out.extend_from_slice(&bits.to_be_bytes()[1..]);
                }
            }
        }
    }

    fn base64_digit(&mut self, byte: u8) -> Result<u32, InvalidJson> {
        base64_digit(if byte == b'\\' { self.escaped()? } else { u32::from(byte) })
    }
}

fn base64_digit(code: u32) -> Result<u32, InvalidJson> {
    Ok(match u8::try_from(code).map_err(|_| InvalidJson)? {
        b @ b'A'..=b'Z' => u32::from(b - b'A'),
        b @ b'a'..=b'z' => u32::from(b - b'a') + 26,
        b @ b'0'..=b'9' => u32::from(b - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return Err(InvalidJson),
    })
}

/// Writes `?` for a pending high surrogate, which has no low surrogate. Does nothing if there is
/// none.
fn flush_half(high: &mut Option<u32>, out: &mut Vec<u8>) {
    if high.take().is_some() {
        out.push(b'?');
    }
}

pub(super) fn push(code: u32, out: &mut Vec<u8>) {
    let c = char::from_u32(code).unwrap_or('?');
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn is_ignorable(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{E}'..='\u{1B}' | '\u{7F}'..='\u{9F}')
}

pub(super) fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$')
}

pub(super) fn is_name_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$') || is_ignorable(c)
}

/// Whether a character may be part of a name without quotes.
fn is_plain_name(c: char) -> bool {
    c > ' ' && (is_name_part(c) || matches!(c, '@' | '#' | '*' | '-' | '+'))
}

/// The offset of the first quote, backslash or control character at or after `at`; the length of
/// `bytes` if there is none.
#[inline]
pub(in crate::table::text::json) fn plain_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (quotes, slashes) = (ONES * u64::from(quote), ONES * u64::from(b'\\'));
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = zeros(word ^ quotes) | zeros(word ^ slashes) | controls;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if *byte == quote || *byte == b'\\' || *byte < 0x20 {
            break;
        }
        at += 1;
    }
    at
}
