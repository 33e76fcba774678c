//! Reads numbers and literals: the values that are not strings, objects or arrays.

use crate::table::text::json::token::strings::{is_name_part, is_name_start};
use crate::table::text::json::token::{InvalidJson, NUMBER_BYTES_MAX, Source, Token, Tokens};

impl Tokens<'_> {
    #[cold]
    pub(super) fn odd_value(&mut self, byte: u8) -> Result<Token, InvalidJson> {
        match byte {
            b'\'' if self.features.single_quotes => {
                self.finish(b'\'')?;
                Ok(Token::Text)
            }
            b'N' => self.non_number_word(b"aN"),
            b'I' => self.non_number_word(b"nfinity"),
            b'+' => {
                let next = self.take().ok_or(InvalidJson)?;
                self.infinity(next)
            }
            b'}' | b']' | b',' => Err(InvalidJson),
            other => {
                self.at -= 1;
                if is_name_start(self.char_here()) {
                    self.skip_word();
                } else {
                    self.at += 1;
                }
                let _ = other;
                Err(self.unexpected())
            }
        }
    }

    fn non_number_word(&mut self, rest: &[u8]) -> Result<Token, InvalidJson> {
        self.word(rest)?;
        if self.features.non_numbers { Ok(Token::NonNumber) } else { Err(InvalidJson) }
    }

    /// Reads an infinity after its sign. `first` is the byte that has been consumed last.
    pub(super) fn infinity(&mut self, first: u8) -> Result<Token, InvalidJson> {
        if first != b'I' {
            return Err(self.unexpected());
        }
        match self.take().ok_or(InvalidJson)? {
            b'N' => self.non_number_word(b"F"),
            b'n' => self.non_number_word(b"finity"),
            _ => Err(self.unexpected()),
        }
    }

    /// Reads the rest of a literal, whose first letter has been consumed.
    #[inline]
    pub(super) fn word(&mut self, rest: &[u8]) -> Result<(), InvalidJson> {
        if self.bytes[self.at..].starts_with(rest) {
            let end = self.at + rest.len();
            let follows = self.bytes.get(end).copied().unwrap_or(b' ');
            if follows < b'0' || matches!(follows, b']' | b'}') {
                self.at = end;
                return Ok(());
            }
        }
        self.odd_word(rest)
    }

    #[cold]
    fn odd_word(&mut self, rest: &[u8]) -> Result<(), InvalidJson> {
        let alike = rest.iter().zip(&self.bytes[self.at..]).take_while(|(a, b)| a == b).count();
        self.at += alike;
        if alike == rest.len() && !is_name_part(self.char_here()) {
            return Ok(());
        }
        self.skip_word();
        Err(InvalidJson)
    }

    /// Skips an invalid literal. Jackson consumes it for the error message, and Jackson's byte
    /// parser also consumes the character after it.
    fn skip_word(&mut self) {
        while self.at < self.bytes.len() {
            let here = self.char_here();
            let part = is_name_part(here);
            if part || self.source == Source::Bytes {
                self.at = (self.at + here.len_utf8()).min(self.bytes.len());
            }
            if !part {
                return;
            }
        }
    }

    /// The character at the current position; U+FFFD if it is not valid UTF-8, a space at the end.
    pub(super) fn char_here(&self) -> char {
        let head = &self.bytes[self.at..self.bytes.len().min(self.at + 4)];
        let valid = match std::str::from_utf8(head) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
        };
        valid.chars().next().unwrap_or(if head.is_empty() { ' ' } else { '\u{FFFD}' })
    }

    pub(super) fn signed(&mut self) -> Result<Token, InvalidJson> {
        match self.take().ok_or(InvalidJson)? {
            digit @ b'0'..=b'9' => self.number(digit),
            other => self.infinity(other),
        }
    }

    #[inline]
    fn skip_digits(&mut self) -> usize {
        let from = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - from
    }

    /// Reads the rest of a number, whose first digit has been consumed.
    #[inline]
    pub(super) fn number(&mut self, first: u8) -> Result<Token, InvalidJson> {
        if first == b'0'
            && !self.features.leading_zeros
            && self.peek().is_some_and(|b| b.is_ascii_digit())
        {
            return Err(InvalidJson);
        }
        self.skip_digits();
        let mut token = Token::Whole;
        if self.peek() == Some(b'.') {
            self.at += 1;
            token = Token::Real;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            token = Token::Real;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        if self.at - self.begin > NUMBER_BYTES_MAX {
            return Err(InvalidJson);
        }
        // A number at the top level must be followed by white space or the end of the input.
        if self.scopes.len() == 1
            && self.peek().is_some_and(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
        {
            return Err(InvalidJson);
        }
        Ok(token)
    }

    #[inline]
    fn some_digits(&mut self) -> Result<(), InvalidJson> {
        if self.skip_digits() > 0 {
            return Ok(());
        }
        self.take();
        Err(self.unexpected())
    }
}
