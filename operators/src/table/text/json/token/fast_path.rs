//! The fast path of the JSON tokenizer. It reads a member with the predicted name, whose value is a
//! string without escapes, a number without an exponent, a literal, or an array of such values.
//!
//! After each member the tokenizer is exactly where [`Tokens::next`] would leave it. If the fast
//! path cannot read a member, the general path can continue. The fast path applies only to valid
//! UTF-8.

use crate::table::text::json::token::strings::plain_end;
use crate::table::text::json::token::{DEPTH_MAX, InvalidJson, Kind, Name, Text, Token, Tokens};

/// The number of decimal digits that always fit in 64 bits without a sign.
const DIGITS_MAX: usize = 19;

/// The powers of ten that a double represents exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// A field name in quotes, directly followed by the colon. This is the most common form of a name.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    text: Box<[u8]>,
    /// The first 16 bytes of the text, as words. `masks` selects the bytes that the text has.
    words: [u64; 2],
    masks: [u64; 2],
}

impl Head {
    /// Prepares a name; `None` if the name contains characters that JSON must escape.
    pub fn new(name: &str) -> Option<Self> {
        if plain_end(name.as_bytes(), 0, b'"') < name.len() {
            return None;
        }
        let text = format!("\"{name}\":").into_bytes().into_boxed_slice();
        let (mut bytes, mut there) = ([0; 16], [0; 16]);
        for (at, byte) in text.iter().take(16).enumerate() {
            (bytes[at], there[at]) = (*byte, 0xFF);
        }
        Some(Self { text, words: words(&bytes), masks: words(&there) })
    }

    #[inline]
    fn begins(&self, bytes: &[u8]) -> bool {
        let Some(first) = bytes.first_chunk::<16>() else { return bytes.starts_with(&self.text) };
        let found = words(first);
        let same =
            (found[0] ^ self.words[0]) & self.masks[0] | (found[1] ^ self.words[1]) & self.masks[1];
        same == 0 && (self.text.len() <= 16 || bytes.starts_with(&self.text))
    }
}

#[inline]
fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let whole = u128::from_le_bytes(*bytes);
    [whole as u64, (whole >> 64) as u64]
}

/// A number of at most [`DIGITS_MAX`] digits without an exponent: `value / 10^behind`, and a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    negative: bool,
    value: u64,
    /// The number of digits after the decimal point.
    behind: usize,
    digits: usize,
    token: Token,
}

impl Plain {
    /// The value of an integer; `None` if the number has a decimal point, or if its absolute value
    /// is larger than `i64::MAX`. So the general path must read `i64::MIN`.
    #[inline]
    pub fn long(self) -> Option<i64> {
        let value = i64::try_from(self.value).ok().filter(|_| self.token == Token::Whole)?;
        Some(if self.negative { -value } else { value })
    }

    /// The value as a double; `None` if the digits or the power of ten are not exact as a double,
    /// or for the integer `-0`, which the general path reads as 0.
    #[inline]
    pub fn double(self) -> Option<f64> {
        // Both operands are exact, so the quotient is rounded only once.
        let exact = self.value < 1 << 53 && self.behind < EXACT_POWERS.len();
        if !exact || (self.negative && self.token == Token::Whole && self.value == 0) {
            return None;
        }
        let value = self.value as f64 / EXACT_POWERS[self.behind];
        Some(if self.negative { -value } else { value })
    }

    /// The unscaled value of a DECIMAL. `None` if the value might not fit the type or would have to
    /// be rounded.
    #[inline]
    pub fn decimal(self, precision: u8, scale: u8) -> Option<i128> {
        let missing = usize::from(scale).checked_sub(self.behind)?;
        // With at most this many digits, the value fits the type and 64 bits.
        if self.digits + missing > usize::from(precision).min(18) {
            return None;
        }
        let value = i128::from(self.value * 10u64.pow(missing as u32));
        Some(if self.negative { -value } else { value })
    }
}

/// A value that the fast path has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FastValue<'j> {
    /// The bytes of a string without escapes.
    Text(&'j [u8]),
    /// A number without an exponent.
    Number(Plain),
    /// `true` or `false`.
    Boolean(bool),
    /// `null`.
    Null,
}

impl FastValue<'_> {
    /// The token that [`Tokens::next`] returns for this value.
    pub fn token(self) -> Token {
        match self {
            Self::Text(_) => Token::Text,
            Self::Number(plain) => plain.token,
            Self::Boolean(true) => Token::True,
            Self::Boolean(false) => Token::False,
            Self::Null => Token::Null,
        }
    }
}

/// A position before the value of a member, to which the tokenizer can return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    at: usize,
    begin: usize,
}

impl<'j> Tokens<'j> {
    /// Consumes the name and the colon of `head`, if the current object continues with exactly
    /// these bytes, after a comma (unless it is the first member) and at most one space. Returns
    /// whether it did. Returns false also if the input is not valid UTF-8, or if the current string
    /// or the value of the current name has not been read.
    #[inline]
    pub(crate) fn try_skip_head(&mut self, head: &Head) -> bool {
        if !self.is_utf8 || self.unread || self.current == Some(Token::Name) {
            return false;
        }
        let Some(scope) = self.scopes.last_mut() else { return false };
        if scope.kind != Kind::Object {
            return false;
        }
        let mut at = self.at;
        if scope.begun {
            if self.bytes.get(at) != Some(&b',') {
                return false;
            }
            at += 1;
        }
        at += usize::from(self.bytes.get(at) == Some(&b' '));
        if !head.begins(self.bytes.get(at..).unwrap_or_default()) {
            return false;
        }
        let end = at + head.text.len();
        scope.begun = true;
        scope.name = Some(Name { begin: at + 1, end: end - 2, escaped: false });
        self.current = Some(Token::Name);
        self.after_name = None;
        self.at = end + usize::from(self.bytes.get(end) == Some(&b' '));
        true
    }

    /// Reads the first token of the value after `try_skip_head`, so that the general path can
    /// continue. The general path starts after this token.
    pub fn finish_head(&mut self) -> Result<Token, InvalidJson> {
        let byte = self.skip_space()?.ok_or(InvalidJson)?;
        self.after_name = Some(self.value(byte)?);
        Ok(Token::Name)
    }

    /// Consumes the end of the current object if it is the next byte. Returns whether it did.
    #[inline]
    pub fn skip_object_end(&mut self) -> bool {
        let here = self.bytes.get(self.at) == Some(&b'}');
        if !here || self.unread || self.current == Some(Token::Name) {
            return false;
        }
        if self.scopes.last().is_none_or(|scope| scope.kind != Kind::Object) {
            return false;
        }
        self.scopes.pop();
        self.set_current(Token::ObjectEnd, self.at, self.at + 1);
        true
    }

    #[inline]
    fn set_current(&mut self, token: Token, begin: usize, end: usize) {
        self.current = Some(token);
        self.after_name = None;
        self.begin = begin;
        self.at = end;
    }

    /// Reads the value at the current position, after a name's colon or in an array. `None` if the
    /// general path must read it.
    #[inline]
    pub(crate) fn fast_value(&mut self) -> Option<FastValue<'j>> {
        let begin = self.at;
        match self.bytes.get(begin)? {
            b'"' => {
                let end = plain_end(self.bytes, begin + 1, b'"');
                if self.bytes.get(end) != Some(&b'"') {
                    return None;
                }
                self.set_current(Token::Text, begin, end + 1);
                self.text = Text::Input(begin + 1, end);
                Some(FastValue::Text(&self.bytes[begin + 1..end]))
            }
            b'0'..=b'9' | b'-' => self.plain_number().map(FastValue::Number),
            b't' => self.quick_word(b"true", FastValue::Boolean(true)),
            b'f' => self.quick_word(b"false", FastValue::Boolean(false)),
            b'n' => self.quick_word(b"null", FastValue::Null),
            _ => None,
        }
    }

    #[inline]
    fn quick_word(&mut self, word: &[u8], value: FastValue<'j>) -> Option<FastValue<'j>> {
        let (begin, end) = (self.at, self.at + word.len());
        let there = self.bytes.get(begin..end) == Some(word)
            && matches!(self.bytes.get(end), Some(b',' | b'}' | b']'));
        there.then(|| {
            self.set_current(value.token(), begin, end);
            value
        })
    }

    #[inline]
    fn plain_number(&mut self) -> Option<Plain> {
        let bytes = self.bytes;
        let digit = |at: usize| bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10);
        let negative = bytes.get(self.at) == Some(&b'-');
        let first = self.at + usize::from(negative);
        let (mut at, mut value) = (first, 0u64);
        while let Some(digit) = digit(at) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        let mut digits = at - first;
        if digits == 0 || (digits > 1 && bytes[first] == b'0') {
            return None;
        }
        let (mut behind, mut token) = (0, Token::Whole);
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            let point = at;
            while let Some(digit) = digit(at) {
                value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
                at += 1;
            }
            (behind, token) = (at - point, Token::Real);
            if behind == 0 {
                return None;
            }
            digits += behind;
        }
        if digits > DIGITS_MAX || matches!(bytes.get(at), Some(b'e' | b'E' | b'.')) {
            return None;
        }
        self.set_current(token, self.at, at);
        Some(Plain { negative, value, behind, digits, token })
    }

    /// Enters the array at the current position, after a name's colon. Returns the position for
    /// [`Self::rewind`], or `None` if the general path must read the array.
    #[inline]
    pub(crate) fn open_array(&mut self) -> Option<Place> {
        if self.bytes.get(self.at) != Some(&b'[') || self.scopes.len() > DEPTH_MAX {
            return None;
        }
        let place = Place { at: self.at, begin: self.begin };
        self.at += 1;
        Some(place)
    }

    /// Consumes a comma between array elements and a space after it. Returns false if the next
    /// character is not a comma.
    #[inline]
    pub fn skip_comma(&mut self) -> bool {
        if self.bytes.get(self.at) != Some(&b',') {
            return false;
        }
        self.at += 1 + usize::from(self.bytes.get(self.at + 1) == Some(&b' '));
        true
    }

    /// Consumes the end of an array that `open_array` entered. Returns false if the end is not
    /// next.
    #[inline]
    pub fn close_array(&mut self) -> bool {
        if self.bytes.get(self.at) != Some(&b']') {
            return false;
        }
        self.set_current(Token::ArrayEnd, self.at, self.at + 1);
        true
    }

    /// Returns to the start of an array that `open_array` entered, so that the general path can
    /// read it.
    #[cold]
    pub(crate) fn rewind(&mut self, place: Place) {
        self.set_current(Token::Name, place.begin, place.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::text::json::token::{Features, Source};

    fn at_value(text: &str) -> Tokens<'_> {
        let mut tokens = Tokens::new(text.as_bytes(), Features::RECORDS, Source::Bytes);
        assert_eq!(tokens.next(), Ok(Some(Token::Object)));
        assert!(tokens.try_skip_head(&Head::new("a").unwrap()), "{text}");
        tokens
    }

    #[test]
    fn an_expected_name_is_skipped_only_in_its_plain_form() {
        let long = "a name that is longer than sixteen bytes";
        for (name, text, there) in [
            ("a", "{\"a\":1}", true),
            ("a", "{ \"a\":1}", true),
            ("a", "{\"a\" :1}", false),
            ("a", "{\"ab\":1}", false),
            ("ab", "{\"a\":1}", false),
            ("é", "{\"é\":1}", true),
            (long, &format!("{{\"{long}\":1}}"), true),
            (long, &format!("{{\"{long}s\":1}}"), false),
        ] {
            let mut tokens = Tokens::new(text.as_bytes(), Features::RECORDS, Source::Bytes);
            assert_eq!(tokens.next(), Ok(Some(Token::Object)));
            assert_eq!(tokens.try_skip_head(&Head::new(name).unwrap()), there, "{name} in {text}");
            let first =
                if there { tokens.finish_head() } else { tokens.next().map(Option::unwrap) };
            assert_eq!(first, Ok(Token::Name));
        }
        for name in ["a\"b", "a\\b", "a\nb"] {
            assert!(Head::new(name).is_none(), "{name} is written with an escape");
        }
    }

    #[test]
    fn plain_numbers_are_read_and_others_are_not() {
        let number = |text: &str| match at_value(&format!("{{\"a\":{text}}}")).fast_value() {
            Some(FastValue::Number(plain)) => Some(plain),
            _ => None,
        };
        for text in ["0", "-1", "12.50", "9223372036854775807", "0.001", "123456789012345678.9"] {
            let plain = number(text).unwrap();
            if let Some(double) = plain.double() {
                assert_eq!(double, text.parse::<f64>().unwrap());
            }
            assert_eq!(plain.long(), text.parse().ok(), "{text}");
        }
        for text in ["01", "1.", "1e5", "1.5E3", "-", ".5", "12345678901234567890", "1.2.3"] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(number("-0").unwrap().double(), None);
        assert!(number("-0.0").unwrap().double().unwrap().is_sign_negative());
        let decimal = |text: &str| number(text).unwrap().decimal(6, 2);
        assert_eq!(decimal("1.5"), Some(150));
        assert_eq!(decimal("-9999.99"), Some(-999_999));
        assert_eq!(decimal("10000"), None);
        assert_eq!(decimal("1.005"), None);
    }

    #[test]
    fn a_value_that_the_fast_path_cannot_read_is_not_consumed() {
        for text in ["\"a\\n\"", "\"open", "tru", "nullx", "{}", "[1]", "'a'", "NaN"] {
            let text = format!("{{\"a\":{text}");
            let mut tokens = at_value(&text);
            let at = tokens.at();
            assert_eq!(tokens.fast_value(), None, "{text}");
            assert_eq!((tokens.at(), tokens.current()), (at, Some(Token::Name)), "{text}");
        }
    }
}
