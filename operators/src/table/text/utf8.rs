//! Functions on text that may not be valid UTF-8. As in Spark, casting BINARY to STRING does not
//! change the bytes.
//!
//! Characters are counted as in Spark's `UTF8String`, by the first byte of each character. For
//! functions that need valid text, [`decode`] replaces invalid bytes by U+FFFD, as Java does.

use std::borrow::Cow;

/// The length in bytes of the character that starts with this byte. A byte that cannot start a
/// character counts as one character.
#[inline]
fn width(first: u8) -> usize {
    match first {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    }
}

/// Iterates over the characters of a text. If the last character is truncated, its bytes are
/// returned.
#[inline]
pub fn chars(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (c, rest) = text.split_at(width(*text.first()?).min(text.len()));
        text = rest;
        Some(c)
    })
}

/// The number of characters of a text.
#[inline]
pub fn count(text: &[u8]) -> usize {
    if text.is_ascii() { text.len() } else { chars(text).count() }
}

/// The byte offset of the character with an index; the length of the text if the index is too
/// large.
#[inline]
pub fn offset(text: &[u8], index: usize) -> usize {
    if text.is_ascii() {
        return index.min(text.len());
    }
    chars(text).take(index).map(<[u8]>::len).sum()
}

/// Decodes a text like Java's `new String(bytes, UTF_8)`.
#[inline]
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(repaired(bytes)),
    }
}

#[cold]
fn repaired(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                break;
            }
            Err(error) => error.valid_up_to(),
        };
        out.push_str(std::str::from_utf8(&rest[..valid]).unwrap_or_default());
        out.push('\u{FFFD}');
        rest = &rest[valid..];
        rest = &rest[malformed(rest).min(rest.len())..];
    }
    out
}

/// The number of leading bytes that Java replaces by one U+FFFD. `bytes` starts with an invalid
/// character.
fn malformed(bytes: &[u8]) -> usize {
    let follows = |at: usize| bytes.get(at).map(|b| b & 0xC0 == 0x80);
    match bytes[0] {
        first @ 0xE0..=0xEF => match (bytes.get(1), follows(1), follows(2)) {
            // The start of an overlong form: one byte is replaced.
            (Some(0x80..=0x9F), ..) if first == 0xE0 => 1,
            (_, Some(false), _) => 1,
            (_, Some(true), Some(false)) => 2,
            // A surrogate, or a character that the end of the text cuts off.
            _ => 3,
        },
        first @ 0xF0..=0xF4 => match (bytes.get(1), follows(1), follows(2), follows(3)) {
            (Some(0x80..=0x8F), ..) if first == 0xF0 => 1,
            (Some(0x90..=0xBF), ..) if first == 0xF4 => 1,
            (_, Some(false), ..) => 1,
            (_, Some(true), Some(false), _) => 2,
            (_, Some(true), Some(true), Some(false)) => 3,
            _ => 4,
        },
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_text_is_decoded_as_java_decodes_it() {
        for (bytes, expected) in [
            (&b"a\x80b"[..], "a\u{FFFD}b"),
            (b"\xC3", "\u{FFFD}"),
            (b"\xC0\x80", "\u{FFFD}\u{FFFD}"),
            (b"\xE2\x82", "\u{FFFD}"),
            (b"\xE2\x82x", "\u{FFFD}x"),
            (b"\xE2x\x82", "\u{FFFD}x\u{FFFD}"),
            (b"\xE0\x80\x80", "\u{FFFD}\u{FFFD}\u{FFFD}"),
            // An encoded surrogate is replaced as a whole: one U+FFFD for three bytes.
            (b"\xED\xA0\x80", "\u{FFFD}"),
            (b"\xF0\x9F\x98", "\u{FFFD}"),
            (b"\xF0\x9F\x98x", "\u{FFFD}x"),
            (b"\xF0\x80\x80\x80", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
            (b"\xF4\x90\x80\x80", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
            (b"\xF8\x88\x80\x80\x80", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
            ("né😀".as_bytes(), "né😀"),
        ] {
            assert_eq!(decode(bytes), expected, "{bytes:X?}");
        }
    }

    #[test]
    fn characters_are_counted_by_their_first_bytes() {
        assert_eq!(count("né😀".as_bytes()), 3);
        assert_eq!(count(b"\x80\xC3\xA9\xE2"), 3);
        assert_eq!(offset("né😀x".as_bytes(), 3), 7);
        assert_eq!(offset(b"ab", 9), 2);
    }
}
