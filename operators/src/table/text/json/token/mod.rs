//! A JSON tokenizer that behaves like Spark's parser, Jackson.
//!
//! The tokenizer stops at the end of a value, so `{"a":1} x` is a valid object. It reads a name
//! together with the first token of the name's value. It reads a value in double quotes only when
//! the caller requests its text or the next token, so an error inside it is not reported before.
//!
//! A caller may continue after an error, as Spark does to recover the rest of a record. [`Tokens`]
//! then continues at the character where Jackson would.
//!
//! Limits, as in Jackson: 1000 levels of nesting, and 1000 characters per number.

mod fast_path;
mod scalars;
mod strings;

pub(crate) use crate::table::text::json::token::fast_path::{FastValue, Head};
pub(super) use strings::plain_end;

use crate::table::text::utf8;
use smallvec::SmallVec;
use std::borrow::Cow;

/// The maximum nesting depth.
const DEPTH_MAX: usize = 1000;
/// The maximum length of a number, in bytes.
const NUMBER_BYTES_MAX: usize = 1000;
/// The byte order mark (BOM) of UTF-8.
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// Extensions of the JSON grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Strings in single quotes: `'a'`.
    pub single_quotes: bool,
    /// Unescaped line ends and other control characters in strings.
    pub control_characters: bool,
    /// NaN and infinities, such as `NaN`, `Infinity` and `-INF`.
    pub non_numbers: bool,
    /// Names without quotes.
    pub plain_names: bool,
    /// Numbers with leading zeros: `007`.
    pub leading_zeros: bool,
    /// Comments: `/* … */` and `// …`.
    pub comments: bool,
    /// A backslash before any character.
    pub any_escape: bool,
}

impl Features {
    /// The extensions that `get_json_object`, `json_tuple` and similar functions accept.
    pub const PATHS: Self = Self {
        single_quotes: true,
        control_characters: true,
        non_numbers: false,
        plain_names: false,
        leading_zeros: false,
        comments: false,
        any_escape: false,
    };
    /// The extensions that `from_json` and the file reader accept by default.
    pub const RECORDS: Self = Self { control_characters: false, non_numbers: true, ..Self::PATHS };
}

/// Selects the flag of an extension.
type Switch = fn(&mut Features) -> &mut bool;

/// The options that enable or disable an extension.
pub const SWITCHES: [(&str, Switch); 7] = [
    ("allowSingleQuotes", |features| &mut features.single_quotes),
    ("allowUnquotedControlChars", |features| &mut features.control_characters),
    ("allowNonNumericNumbers", |features| &mut features.non_numbers),
    ("allowUnquotedFieldNames", |features| &mut features.plain_names),
    ("allowNumericLeadingZeros", |features| &mut features.leading_zeros),
    ("allowComments", |features| &mut features.comments),
    ("allowBackslashEscapingAnyCharacter", |features| &mut features.any_escape),
];

/// The parser of Jackson that is emulated. After some errors the two parsers continue at different
/// characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The byte parser, for files in UTF-8.
    Bytes,
    /// The character parser, for functions and for files with the option `encoding`.
    Chars,
}

/// A token. [`Tokens`] has its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// `{`.
    Object,
    /// `}`.
    ObjectEnd,
    /// `[`.
    Array,
    /// `]`.
    ArrayEnd,
    /// A name in an object.
    Name,
    /// A string.
    Text,
    /// A number without a fraction or an exponent.
    Whole,
    /// A number with a fraction or an exponent.
    Real,
    /// `NaN`, or an infinity.
    NonNumber,
    /// `true`.
    True,
    /// `false`.
    False,
    /// `null`.
    Null,
}

/// The error of a text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidJson;

/// The byte range of a name in the input, without the quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    begin: usize,
    end: usize,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Root,
    Array,
    Object,
}

/// An array or object whose end has not been reached.
#[derive(Clone, Copy, Debug)]
struct Scope {
    kind: Kind,
    /// Whether the array or object already has an element or a name. If so, a comma must come
    /// before the next one.
    begun: bool,
    /// The last name read in this object.
    name: Option<Name>,
}

const fn scope(kind: Kind) -> Scope {
    Scope { kind, begun: false, name: None }
}

/// The place where the text of the current string is stored.
#[derive(Clone, Copy, Debug)]
enum Text {
    /// A byte range of the input, if the string has no escapes and the input is valid UTF-8.
    Input(usize, usize),
    /// The buffer `unescaped`.
    Unescaped,
}

/// Splits JSON text into tokens.
#[derive(Clone, Debug)]
pub struct Tokens<'j> {
    bytes: &'j [u8],
    at: usize,
    features: Features,
    source: Source,
    /// Whether the input is known to be valid UTF-8, so that strings need no validation.
    is_utf8: bool,
    // Deeper nesting is rare, so reading a text usually allocates no memory.
    scopes: SmallVec<[Scope; 8]>,
    current: Option<Token>,
    /// The first token of the value of the current name, which is read together with the name.
    after_name: Option<Token>,
    /// Whether the current string, or the string after the current name, has not been read yet.
    unread: bool,
    /// The byte offset at which the current value starts.
    begin: usize,
    text: Text,
    unescaped: Vec<u8>,
}

impl<'j> Tokens<'j> {
    /// Creates a tokenizer for bytes, which need not be valid UTF-8.
    pub fn new(bytes: &'j [u8], features: Features, source: Source) -> Self {
        let is_utf8 = bytes.is_ascii() || std::str::from_utf8(bytes).is_ok();
        Self::checked(bytes, features, source, is_utf8)
    }

    /// Creates a tokenizer for bytes. `is_utf8` tells whether they are valid UTF-8.
    pub fn checked(bytes: &'j [u8], features: Features, source: Source, is_utf8: bool) -> Self {
        let mut scopes = SmallVec::new();
        scopes.push(scope(Kind::Root));
        Self {
            bytes,
            // The character parser does not skip a byte order mark.
            at: if source == Source::Bytes && bytes.starts_with(MARK) { MARK.len() } else { 0 },
            features,
            source,
            is_utf8,
            scopes,
            current: None,
            after_name: None,
            unread: false,
            begin: 0,
            text: Text::Input(0, 0),
            unescaped: Vec::new(),
        }
    }

    /// Creates a tokenizer for a part of the input, with the same grammar.
    pub fn of_part(&self, part: &'j [u8]) -> Self {
        // A part may begin with what is a byte order mark at the start of the input.
        let mut tokens = Self::checked(part, self.features, self.source, self.is_utf8);
        tokens.at = 0;
        tokens
    }

    /// Creates a tokenizer for a string, for SQL functions.
    pub fn of_text(text: &'j str, features: Features) -> Self {
        Self::checked(text.as_bytes(), features, Source::Chars, true)
    }

    /// Continues inside the top-level array, after an element that ends at the offset `at`.
    pub fn within_array(mut self, at: usize) -> Self {
        self.scopes[0].begun = true;
        self.scopes.push(Scope { begun: true, ..scope(Kind::Array) });
        self.at = at;
        self
    }

    /// The offset after the last byte that was consumed.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The last token that was read.
    pub fn current(&self) -> Option<Token> {
        self.current
    }

    /// Reads the next token. Returns `None` at the end of the input, which is an error inside an
    /// array or object.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Token>, InvalidJson> {
        if self.current == Some(Token::Name) {
            return self.value_of_name();
        }
        if self.unread {
            self.read_text()?;
        }
        let Some(mut byte) = self.skip_space()? else {
            if self.scopes.len() > 1 {
                return Err(InvalidJson);
            }
            self.current = None;
            return Ok(None);
        };
        if byte == b']' || byte == b'}' {
            return self.close(byte).map(Some);
        }
        let depth = self.scopes.len();
        let scope = &mut self.scopes[depth - 1];
        let kind = scope.kind;
        if std::mem::replace(&mut scope.begun, true) && kind != Kind::Root {
            if byte != b',' {
                return Err(self.unexpected());
            }
            byte = self.skip_space()?.ok_or(InvalidJson)?;
        }
        if kind == Kind::Object {
            let name = self.name(byte)?;
            self.scopes[depth - 1].name = Some(name);
            self.current = Some(Token::Name);
            self.after_name = None;
            byte = self.skip_colon()?;
            self.after_name = Some(self.value(byte)?);
            return Ok(self.current);
        }
        let token = self.value(byte)?;
        self.enter(token)?;
        self.current = Some(token);
        Ok(self.current)
    }

    fn value_of_name(&mut self) -> Result<Option<Token>, InvalidJson> {
        let token = self.after_name.take();
        if let Some(token) = token {
            self.enter(token)?;
        }
        self.current = token;
        Ok(token)
    }

    /// If the current token starts an object or an array, skips to its end. Otherwise does nothing.
    pub fn skip_children(&mut self) -> Result<(), InvalidJson> {
        if !matches!(self.current, Some(Token::Object | Token::Array)) {
            return Ok(());
        }
        let depth = self.scopes.len();
        while self.scopes.len() >= depth {
            if self.next()?.is_none() && self.scopes.len() > 1 {
                return Err(InvalidJson);
            }
        }
        Ok(())
    }

    /// The name of the field to which the current token belongs.
    pub fn name_here(&self) -> Option<Name> {
        let up = usize::from(matches!(self.current, Some(Token::Object | Token::Array)));
        self.scopes[self.scopes.len() - 1 - up].name
    }

    /// The text of a name, in which escapes are resolved.
    #[inline]
    pub fn name_text(&self, name: Name) -> Cow<'j, [u8]> {
        match name.escaped {
            true => self.unescaped_name(name),
            false => Cow::Borrowed(&self.bytes[name.begin..name.end]),
        }
    }

    #[cold]
    fn unescaped_name(&self, name: Name) -> Cow<'j, [u8]> {
        let raw = &self.bytes[name.begin..name.end];
        // Only a name in quotes has escapes, so the byte behind it is its quote.
        let (quoted, quote) = (&self.bytes[name.begin..=name.end], self.bytes[name.end]);
        let mut name = Tokens::checked(quoted, self.features, self.source, self.is_utf8);
        name.at = 0;
        // This cannot fail: the same name was read without an error.
        match name.finish(quote) {
            Ok(()) => Cow::Owned(name.finished().to_vec()),
            Err(InvalidJson) => Cow::Borrowed(raw),
        }
    }

    /// The text of the current string, in which escapes are resolved. An error if the string is
    /// malformed.
    #[inline]
    pub fn text(&mut self) -> Result<&[u8], InvalidJson> {
        if self.unread {
            self.read_text()?;
        }
        Ok(self.finished())
    }

    /// The text of the current string, in which U+FFFD replaces invalid UTF-8.
    pub fn text_str(&mut self) -> Result<Cow<'_, str>, InvalidJson> {
        let text = self.text()?;
        Ok(utf8::decode(text))
    }

    /// The text of the current number, literal or end bracket in the input.
    #[inline]
    pub fn raw(&self) -> &'j [u8] {
        &self.bytes[self.begin..self.at]
    }

    /// The text of the current number in the input.
    pub fn digits(&self) -> &'j str {
        // A number consists of ASCII characters.
        std::str::from_utf8(self.raw()).unwrap_or_default()
    }

    /// The value of the current token if it is NaN or an infinity.
    pub fn non_number(&self) -> f64 {
        match self.raw() {
            b"NaN" => f64::NAN,
            [b'-', ..] => f64::NEG_INFINITY,
            _ => f64::INFINITY,
        }
    }

    /// Consumes the current object or array. Returns its text in the input, with the white space
    /// between its parts. An error if it is malformed.
    pub fn whole(&mut self) -> Result<&'j [u8], InvalidJson> {
        let begin = self.begin;
        self.skip_children()?;
        Ok(&self.bytes[begin..self.at])
    }

    fn finished(&self) -> &[u8] {
        match self.text {
            Text::Input(begin, end) => &self.bytes[begin..end],
            Text::Unescaped => &self.unescaped,
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Handles an unexpected byte, which is already consumed. The character parser consumes the
    /// rest of its character too.
    fn unexpected(&mut self) -> InvalidJson {
        if self.source == Source::Chars {
            while self.peek().is_some_and(|b| b & 0xC0 == 0x80) {
                self.at += 1;
            }
        }
        InvalidJson
    }

    /// Consumes white space, comments and the next byte, and returns that byte; `None` at the end
    /// of the input.
    #[inline]
    fn skip_space(&mut self) -> Result<Option<u8>, InvalidJson> {
        while let Some(byte) = self.take() {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => {}
                b'/' => self.skip_comment()?,
                0..=0x20 => return Err(InvalidJson),
                other => return Ok(Some(other)),
            }
        }
        Ok(None)
    }

    fn skip_comment(&mut self) -> Result<(), InvalidJson> {
        if !self.features.comments {
            return Err(InvalidJson);
        }
        match self.take() {
            Some(b'/') => {
                while self.peek().is_some_and(|b| b != b'\n' && b != b'\r') {
                    self.at += 1;
                }
                Ok(())
            }
            Some(b'*') => {
                let rest = &self.bytes[self.at..];
                match rest.windows(2).position(|two| two == b"*/") {
                    Some(end) => {
                        self.at += end + 2;
                        Ok(())
                    }
                    None => {
                        self.at = self.bytes.len();
                        Err(InvalidJson)
                    }
                }
            }
            Some(_) => Err(self.unexpected()),
            None => Err(InvalidJson),
        }
    }

    #[inline]
    fn skip_colon(&mut self) -> Result<u8, InvalidJson> {
        match self.skip_space()? {
            Some(b':') => self.skip_space()?.ok_or(InvalidJson),
            Some(_) => Err(self.unexpected()),
            None => Err(InvalidJson),
        }
    }

    fn close(&mut self, byte: u8) -> Result<Token, InvalidJson> {
        self.begin = self.at - 1;
        let (kind, token) = match byte {
            b']' => (Kind::Array, Token::ArrayEnd),
            _ => (Kind::Object, Token::ObjectEnd),
        };
        if self.scopes.last().is_none_or(|scope| scope.kind != kind) {
            return Err(InvalidJson);
        }
        self.scopes.pop();
        self.current = Some(token);
        Ok(token)
    }

    #[inline]
    fn enter(&mut self, token: Token) -> Result<(), InvalidJson> {
        let kind = match token {
            Token::Object => Kind::Object,
            Token::Array => Kind::Array,
            _ => return Ok(()),
        };
        if self.scopes.len() > DEPTH_MAX {
            return Err(InvalidJson);
        }
        self.scopes.push(scope(kind));
        Ok(())
    }

    /// Reads the value whose first byte has been consumed.
    #[inline]
    fn value(&mut self, byte: u8) -> Result<Token, InvalidJson> {
        self.begin = self.at - 1;
        match byte {
            b'"' => {
                self.unread = true;
                Ok(Token::Text)
            }
            b'{' => Ok(Token::Object),
            b'[' => Ok(Token::Array),
            b'0'..=b'9' => self.number(byte),
            b'-' => self.signed(),
            b't' => self.word(b"rue").map(|()| Token::True),
            b'f' => self.word(b"alse").map(|()| Token::False),
            b'n' => self.word(b"ull").map(|()| Token::Null),
            other => self.odd_value(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str, features: Features) -> Result<Vec<String>, InvalidJson> {
        let mut tokens = Tokens::of_text(text, features);
        let mut out = Vec::new();
        while let Some(token) = tokens.next()? {
            out.push(match token {
                Token::Name => {
                    let name = tokens.name_here().map(|name| tokens.name_text(name));
                    format!("{}:", String::from_utf8_lossy(&name.unwrap()))
                }
                Token::Text => format!("{:?}", tokens.text_str()?),
                Token::Whole | Token::Real => tokens.digits().to_string(),
                other => format!("{other:?}"),
            });
        }
        Ok(out)
    }

    #[test]
    fn relaxed_json_is_accepted_and_other_text_is_refused() {
        let read = |text| all(text, Features::PATHS).is_ok();
        for text in [
            "",
            "{}",
            "[1, -0.5e+3, true, null]",
            "{'a':\"it's\"}",
            r#"{"a":"\u00e9\/\'"}"#,
            "{\"a\":\"two\nlines\"}",
            "1 2",
            "[[],{}]",
        ] {
            assert!(read(text), "{text}");
        }
        for text in [
            "{",
            "[1,]",
            "{\"a\":1,}",
            "[1 2]",
            "{a:1}",
            "01",
            "+1",
            ".5",
            "1.",
            "-",
            "tru",
            "nullx",
            "NaN",
            r#""\x""#,
            r#""\u12""#,
            "\"open",
            "1x",
            "{\"a\"}",
            "]",
            "\u{FEFF}{}",
        ] {
            assert!(!read(text), "{text}");
        }
        let records = |text| all(text, Features::RECORDS).is_ok();
        assert!(records("[NaN,-Infinity,+INF]") && !records("[\"a\tb\"]") && !records("[nan]"));
        let loose = Features {
            plain_names: true,
            leading_zeros: true,
            comments: true,
            any_escape: true,
            ..Features::RECORDS
        };
        assert!(all("{a-b: 007, /* c */ 'd': \"\\q\"} // e", loose).is_ok());
    }

    #[test]
    fn numbers_keep_their_text_and_surrogate_pairs_become_one_character() {
        let read =
            all(r#"{"a\u0062":[1.10,12345678901234567890,"\uD83D\uDE00\uD83D"]}"#, Features::PATHS);
        let expected = [
            "Object",
            "ab:",
            "Array",
            "1.10",
            "12345678901234567890",
            "\"😀?\"",
            "ArrayEnd",
            "ObjectEnd",
        ];
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(all(&"[".repeat(100_000), Features::PATHS).is_err());
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(all(&deep, Features::PATHS).is_ok());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_an_error_of_their_string() {
        let mut tokens = Tokens::new(b"[\"\xE9\",\"a\xC3\xA9\"]", Features::RECORDS, Source::Bytes);
        assert_eq!(tokens.next(), Ok(Some(Token::Array)));
        assert_eq!(tokens.next(), Ok(Some(Token::Text)));
        assert!(tokens.text().is_err(), "the closing quote is taken for a byte of the character");
        assert_eq!(tokens.next(), Ok(Some(Token::Text)));
        assert_eq!(tokens.text(), Ok("aé".as_bytes()));
    }

    proptest! {
        /// Searching eight bytes at a time finds the same position as searching one byte at a time.
        #[test]
        fn the_end_of_plain_text(
            bytes in proptest::collection::vec(
                proptest::sample::select(b"ab\x7F\x80\xFF\x1F !\"'\\".to_vec()), 0..40),
            quote in proptest::sample::select(b"\"'".to_vec()),
        ) {
            let special = |b: &u8| *b == quote || *b == b'\\' || *b < 0x20;
            let expected = bytes.iter().position(special).unwrap_or(bytes.len());
            prop_assert_eq!(plain_end(&bytes, 0, quote), expected);
        }

        /// After any error a caller may continue and reaches the end of the input.
        #[test]
        fn the_tokenizer_terminates_on_any_bytes(
            bytes in proptest::collection::vec(
                proptest::sample::select(b"{}[]:,\"'\\ab10-.eNtruIn/* \xC3\xA9\n".to_vec()), 0..60),
            chars: bool,
        ) {
            let source = if chars { Source::Chars } else { Source::Bytes };
            let mut tokens = Tokens::new(&bytes, Features::RECORDS, source);
            let mut errors = 0;
            loop {
                match tokens.next() {
                    Ok(None) if tokens.at() >= bytes.len() => break,
                    Ok(_) => {}
                    Err(InvalidJson) if errors > bytes.len() => break,
                    Err(InvalidJson) => errors += 1,
                }
            }
        }
    }
}
