//! JSON as a sequence of tokens, read the way Spark's parser (Jackson) reads it.
//!
//! Nothing behind a value's end is looked at, so `{"a":1} x` is an object. Single quotes stand for
//! double ones. Numbers keep their text. A reader that failed fails again.
//!
//! Limit: a value may be nested 1000 deep, as in Jackson.

use smallvec::SmallVec;
use std::borrow::Cow;

/// Deepest nesting.
const DEPTH_MAX: usize = 1000;

/// What is allowed beyond JSON.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// `'a'`.
    pub single_quotes: bool,
    /// Line ends and other control characters in strings.
    pub control_characters: bool,
    /// `NaN`, `Infinity`, `-INF`.
    pub non_numbers: bool,
    /// Names without quotes.
    pub plain_names: bool,
    /// `007`.
    pub leading_zeros: bool,
    /// `/* … */` and `// …`.
    pub comments: bool,
    /// A backslash before any character.
    pub any_escape: bool,
}

impl Features {
    /// Of `get_json_object`, `json_tuple` and their like.
    pub const PATHS: Self = Self {
        single_quotes: true,
        control_characters: true,
        non_numbers: false,
        plain_names: false,
        leading_zeros: false,
        comments: false,
        any_escape: false,
    };
    /// Of `from_json` without options.
    pub const RECORDS: Self = Self { control_characters: false, non_numbers: true, ..Self::PATHS };
}

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token<'j> {
    /// `{`.
    Object,
    /// `}`.
    ObjectEnd,
    /// `[`.
    Array,
    /// `]`.
    ArrayEnd,
    /// A name in an object.
    Name(Cow<'j, str>),
    /// A string.
    Text(Cow<'j, str>),
    /// A number without a fraction or an exponent, as it is written.
    Whole(&'j str),
    /// Another number, as it is written.
    Real(&'j str),
    /// Not a number, or an infinity.
    NonNumber(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// `null`.
    Null,
}

/// The text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// An array, and whether an element has come.
    Array(bool),
    /// An object, and whether a name has come.
    Object(bool),
    /// Behind a name.
    Name,
}

/// Reads tokens.
#[derive(Clone, Debug)]
pub struct Tokens<'j> {
    text: &'j str,
    at: usize,
    features: Features,
    // Few texts are nested deeper, so that reading one allocates nothing.
    stack: SmallVec<[Inside; 32]>,
    broken: bool,
}

impl<'j> Tokens<'j> {
    /// Of a text.
    pub fn new(text: &'j str, features: Features) -> Self {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        Self { text, at: 0, features, stack: SmallVec::new(), broken: false }
    }

    /// The next token; `None` at the end of the text, outside of any value.
    pub fn next(&mut self) -> Result<Option<Token<'j>>, Broken> {
        if self.broken {
            return Err(Broken);
        }
        let token = self.token();
        self.broken = token.is_err();
        token
    }

    /// Skips what is in an object or an array that has just begun.
    pub fn skip(&mut self, token: &Token<'_>) -> Result<(), Broken> {
        if !matches!(token, Token::Object | Token::Array) {
            return Ok(());
        }
        let depth = self.stack.len();
        while self.stack.len() >= depth {
            self.next()?;
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) -> Result<(), Broken> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(b'/') if self.features.comments => {
                    let rest = &self.text[self.at..];
                    let length = match rest.as_bytes().get(1) {
                        Some(b'*') => rest.find("*/").map(|at| at + 2).ok_or(Broken)?,
                        Some(b'/') => rest.find(['\n', '\r']).unwrap_or(rest.len()),
                        _ => return Err(Broken),
                    };
                    self.at += length;
                }
                _ => return Ok(()),
            }
        }
    }

    fn token(&mut self) -> Result<Option<Token<'j>>, Broken> {
        self.space()?;
        let Some(next) = self.peek() else {
            return if self.stack.is_empty() { Ok(None) } else { Err(Broken) };
        };
        let comma = |tokens: &mut Self| {
            if tokens.peek() != Some(b',') {
                return Err(Broken);
            }
            tokens.at += 1;
            tokens.space()
        };
        match self.stack.last_mut() {
            Some(Inside::Array(_)) if next == b']' => return Ok(Some(self.end(Token::ArrayEnd))),
            Some(Inside::Array(begun @ false)) => *begun = true,
            Some(Inside::Array(true)) => comma(self)?,
            Some(Inside::Object(_)) if next == b'}' => {
                return Ok(Some(self.end(Token::ObjectEnd)));
            }
            Some(Inside::Object(begun)) => {
                if std::mem::replace(begun, true) {
                    comma(self)?;
                }
                let name = self.name()?;
                self.space()?;
                if self.peek() != Some(b':') {
                    return Err(Broken);
                }
                self.at += 1;
                self.stack.push(Inside::Name);
                return Ok(Some(Token::Name(name)));
            }
            Some(Inside::Name) => {
                self.stack.pop();
            }
            None => {}
        }
        self.value().map(Some)
    }

    fn end(&mut self, token: Token<'j>) -> Token<'j> {
        self.at += 1;
        self.stack.pop();
        token
    }

    fn begin(&mut self, inside: Inside, token: Token<'j>) -> Result<Token<'j>, Broken> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(Broken);
        }
        self.at += 1;
        self.stack.push(inside);
        Ok(token)
    }

    fn value(&mut self) -> Result<Token<'j>, Broken> {
        match self.peek() {
            Some(b'{') => self.begin(Inside::Object(false), Token::Object),
            Some(b'[') => self.begin(Inside::Array(false), Token::Array),
            Some(quote @ (b'"' | b'\'')) => self.string(quote).map(Token::Text),
            Some(b'-' | b'+' | b'.' | b'0'..=b'9') => self.number(),
            _ => {
                let rest = &self.text[self.at..];
                let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
                self.at += word.len();
                Ok(match word {
                    "true" => Token::Boolean(true),
                    "false" => Token::Boolean(false),
                    "null" => Token::Null,
                    "NaN" if self.features.non_numbers => Token::NonNumber(f64::NAN),
                    "Infinity" | "INF" if self.features.non_numbers => {
                        Token::NonNumber(f64::INFINITY)
                    }
                    _ => return Err(Broken),
                })
            }
        }
    }

    fn name(&mut self) -> Result<Cow<'j, str>, Broken> {
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.string(quote),
            _ if self.features.plain_names => {
                let rest = &self.text[self.at..];
                let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-' | '@');
                let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                if length == 0 {
                    return Err(Broken);
                }
                self.at += length;
                Ok(Cow::Borrowed(&rest[..length]))
            }
            _ => Err(Broken),
        }
    }

    fn digits(&mut self) -> usize {
        let begin = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - begin
    }

    fn number(&mut self) -> Result<Token<'j>, Broken> {
        let begin = self.at;
        let signed = matches!(self.peek(), Some(b'-' | b'+'));
        self.at += usize::from(signed);
        if signed && self.features.non_numbers && self.peek() == Some(b'I') {
            for word in ["Infinity", "INF"] {
                if self.text[self.at..].starts_with(word) {
                    self.at += word.len();
                    let minus = self.text.as_bytes()[begin] == b'-';
                    let value = if minus { f64::NEG_INFINITY } else { f64::INFINITY };
                    return Ok(Token::NonNumber(value));
                }
            }
        }
        if self.text.as_bytes()[begin] == b'+' {
            return Err(Broken);
        }
        let first = self.at;
        let whole = self.digits();
        let zeros = whole > 1 && self.text.as_bytes()[first] == b'0';
        if whole == 0 || zeros && !self.features.leading_zeros {
            return Err(Broken);
        }
        let mut real = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            real = true;
            if self.digits() == 0 {
                return Err(Broken);
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            real = true;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(Broken);
            }
        }
        // Outside of any value a number ends where white space begins.
        let follows = self.peek();
        if self.stack.is_empty() && follows.is_some_and(|b| !b.is_ascii_whitespace()) {
            return Err(Broken);
        }
        let text = &self.text[begin..self.at];
        Ok(if real { Token::Real(text) } else { Token::Whole(text) })
    }

    fn string(&mut self, quote: u8) -> Result<Cow<'j, str>, Broken> {
        if quote == b'\'' && !self.features.single_quotes {
            return Err(Broken);
        }
        self.at += 1;
        let begin = self.at;
        let bytes = self.text.as_bytes();
        let mut made: Option<String> = None;
        let mut from = begin;
        loop {
            let b = *bytes.get(self.at).ok_or(Broken)?;
            if b == quote {
                let rest = &self.text[from..self.at];
                self.at += 1;
                return Ok(match made {
                    Some(made) => Cow::Owned(made + rest),
                    None => Cow::Borrowed(rest),
                });
            }
            if b == b'\\' {
                let made = made.get_or_insert_default();
                made.push_str(&self.text[from..self.at]);
                self.at += 1;
                let c = self.escaped()?;
                made.push(c);
                from = self.at;
            } else if b < 0x20 && !self.features.control_characters {
                return Err(Broken);
            } else {
                self.at += 1;
            }
        }
    }

    /// The character that is written behind a backslash.
    fn escaped(&mut self) -> Result<char, Broken> {
        let c = self.text[self.at..].chars().next().ok_or(Broken)?;
        self.at += c.len_utf8();
        Ok(match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{C}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.unit()?;
                match first {
                    0xD800..=0xDBFF if self.text[self.at..].starts_with("\\u") => {
                        let before = self.at;
                        self.at += 2;
                        let second = self.unit()?;
                        match char::decode_utf16([first, second]).next() {
                            Some(Ok(c)) => c,
                            _ => {
                                self.at = before;
                                '?'
                            }
                        }
                    }
                    // Half a pair is no character.
                    unit => char::from_u32(u32::from(unit)).unwrap_or('?'),
                }
            }
            '\'' if self.features.single_quotes => c,
            c if self.features.any_escape => c,
            _ => return Err(Broken),
        })
    }

    fn unit(&mut self) -> Result<u16, Broken> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(Broken)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Broken);
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, features: Features) -> Result<Vec<String>, Broken> {
        let mut tokens = Tokens::new(text, features);
        let mut out = Vec::new();
        while let Some(token) = tokens.next()? {
            out.push(format!("{token:?}"));
        }
        Ok(out)
    }

    #[test]
    fn what_is_json_here() {
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
        ] {
            assert!(!read(text), "{text}");
        }
        let records = |text| all(text, Features::RECORDS).is_ok();
        assert!(records("[NaN,-Infinity,+INF]") && !records("[\"a\tb\"]") && !records("[nan]"));
    }

    #[test]
    fn numbers_keep_their_text_and_pairs_become_one_character() {
        let read =
            all(r#"{"a":[1.10,12345678901234567890,"\uD83D\uDE00\uD83D"]}"#, Features::PATHS);
        let expected = [
            "Object",
            "Name(\"a\")",
            "Array",
            "Real(\"1.10\")",
            "Whole(\"12345678901234567890\")",
            "Text(\"😀?\")",
            "ArrayEnd",
            "ObjectEnd",
        ];
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(all(&"[".repeat(100_000), Features::PATHS).is_err());
    }
}
