//! Parses quoted fields that must be copied, because they have escapes, normalised line ends or
//! unescaped quotes.

use crate::table::text::csv::dialect::UnescapedQuote;
use crate::table::text::csv::parser::{FieldText, Parser, Step, Stop, is_white, push_char};
use memchr::memmem;

impl Parser {
    /// Parses a quoted field, starting after its opening quote.
    pub(super) fn quoted(&mut self, input: &[u8], separator: u32) -> Step<()> {
        let (quote, escape) = (self.dialect.quote, self.dialect.escape);
        'again: loop {
            if self.prev != 0 && self.goes_on_to_separator() {
                return self.unescaped_to_separator(input, separator);
            }
            self.next(input)?;
            loop {
                let behind = self.prev == quote;
                if behind && (is_white(self.ch) || self.ch == separator || self.ch == self.new_line)
                {
                    break;
                }
                if self.ch != quote && self.ch != escape {
                    if behind {
                        if self.unescaped_quote(input)? {
                            continue 'again;
                        }
                        return Ok(());
                    }
                    self.text_in_quotes(input)?;
                } else {
                    self.escape_in_quotes(input)?;
                    self.prev = self.ch;
                    self.next(input)?;
                    if self.unescaped && (self.ch == separator || self.ch == self.new_line) {
                        return Ok(());
                    }
                }
            }
            if self.ch == separator || self.ch == self.new_line {
                return Ok(());
            }
            self.white.clear();
            loop {
                push_char(&mut self.white, self.ch);
                self.next(input)?;
                if self.ch == self.new_line {
                    return Ok(());
                }
                if !is_white(self.ch) || self.ch == separator {
                    break;
                }
            }
            if self.ch == separator {
                return Ok(());
            }
            if self.dialect.unescaped_quote == UnescapedQuote::RaiseError {
                return Err(Stop::Quote);
            }
            self.text_behind_white()?;
        }
    }

    /// Handles text after a closing quote and white space. Quote, white space and text all become
    /// field text.
    pub(super) fn text_behind_white(&mut self) -> Step<()> {
        let (quote, escape) = (self.dialect.quote, self.dialect.escape);
        self.push(quote);
        if !self.passed_over {
            self.copied.extend_from_slice(&self.white);
        }
        if self.goes_on_to_separator() || (self.ch != quote && self.ch != escape) {
            self.push(self.ch);
        }
        self.prev = self.ch;
        self.check_copied()
    }

    /// Copies a run of quoted text. A preceding escape character that escapes nothing becomes field
    /// text.
    pub(super) fn text_in_quotes(&mut self, input: &[u8]) -> Step<()> {
        let (quote, escape) = (self.dialect.quote, self.dialect.escape);
        if self.prev == escape && escape != 0 {
            self.push(escape);
        }
        self.copy_until(input, [quote, escape, self.dialect.escape_of_escape])?;
        self.prev = self.ch;
        self.next(input)
    }

    pub(super) fn goes_on_to_separator(&self) -> bool {
        use UnescapedQuote::*;
        matches!(self.dialect.unescaped_quote, StopAtDelimiter | BackToDelimiter | SkipValue)
    }

    fn unescaped_to_separator(&mut self, input: &[u8], separator: u32) -> Step<()> {
        if self.dialect.unescaped_quote == UnescapedQuote::SkipValue {
            return self.skip_value(input);
        }
        self.open_copied();
        self.next(input)?;
        self.trim = self.dialect.trim_end;
        self.copy_until(input, [separator, self.new_line, self.new_line])
    }

    /// Inserts the opening quote before the copied text.
    pub(super) fn open_copied(&mut self) {
        if !self.passed_over {
            let end = self.copied.len();
            push_char(&mut self.copied, self.dialect.quote);
            let quote_len = self.copied.len() - end;
            self.copied[self.begin..].rotate_right(quote_len);
        }
    }

    /// Handles an unescaped quote before the current character in a quoted field. Returns whether
    /// the quoted text continues.
    pub(super) fn unescaped_quote(&mut self, input: &[u8]) -> Step<bool> {
        self.unescaped = true;
        match self.dialect.unescaped_quote {
            UnescapedQuote::BackToDelimiter => {
                self.cut_at_separators()?;
                self.push(self.ch);
                self.prev = 0;
                Ok(true)
            }
            UnescapedQuote::StopAtClosingQuote | UnescapedQuote::StopAtDelimiter => {
                self.push(self.dialect.quote);
                self.push(self.ch);
                self.prev = self.ch;
                Ok(true)
            }
            UnescapedQuote::SkipValue => self.skip_value(input).map(|()| false),
            UnescapedQuote::RaiseError => Err(Stop::Quote),
        }
    }

    /// Splits the copied text, which was one quoted field up to here, into fields at its separators
    /// and line ends.
    fn cut_at_separators(&mut self) -> Step<()> {
        if self.passed_over {
            return Ok(());
        }
        let mut separator = Vec::new();
        self.dialect.separator.iter().for_each(|c| push_char(&mut separator, *c));
        loop {
            let text = &self.copied[self.begin..];
            let line = text.iter().position(|b| u32::from(*b) == self.new_line);
            let found = memmem::find(text, &separator);
            let (end, length) = match (line, found) {
                (Some(line), Some(found)) if line < found => (line, 1),
                (Some(line), None) if separator.len() == 1 => (line, 1),
                (_, Some(found)) => (found, separator.len()),
                (_, None) => return Ok(()),
            };
            let (begin, end) = (self.begin, self.begin + end);
            self.end_as(FieldText::Copied(begin..end))?;
            self.begin = end + length;
        }
    }

    /// Discards the current field and skips to its end.
    pub(super) fn skip_value(&mut self, input: &[u8]) -> Step<()> {
        self.copied.truncate(self.begin);
        self.passed_over = true;
        if self.dialect.separator.len() == 1 {
            return self.copy_until(input, [self.separator, self.new_line, self.new_line]);
        }
        while self.matched < self.dialect.separator.len() && self.ch != self.new_line {
            let hit = self.dialect.separator[self.matched] == self.ch;
            self.matched = if hit { self.matched + 1 } else { 0 };
            self.next(input)?;
        }
        Ok(())
    }

    /// Handles a quote or an escape inside a quoted field.
    pub(super) fn escape_in_quotes(&mut self, input: &[u8]) -> Step<()> {
        if self.quote_or_escape() {
            return Ok(());
        }
        match self.dialect.unescaped_quote {
            UnescapedQuote::SkipValue => self.skip_value(input),
            UnescapedQuote::RaiseError => Err(Stop::Quote),
            _ => {
                self.push(self.dialect.quote);
                self.prev = self.ch;
                self.text_with_escapes(input)
            }
        }
    }

    /// Handles the current character if it, or the one before it, is a quote or an escape. Returns
    /// false if it follows an unescaped quote.
    fn quote_or_escape(&mut self) -> bool {
        let (quote, escape) = (self.dialect.quote, self.dialect.escape);
        let escape_of_escape = self.dialect.escape_of_escape;
        if self.ch == escape && self.prev == escape_of_escape && escape_of_escape != 0 {
            self.push(escape);
            self.ch = 0;
        } else if self.prev == escape {
            if self.ch == quote {
                self.push(quote);
                self.ch = 0;
            } else {
                self.push(self.prev);
            }
        } else if self.ch == quote && self.prev == quote {
            self.push(quote);
        } else if self.prev == quote {
            return false;
        }
        true
    }

    /// Copies text after an unescaped quote that is followed by an escape. `depth` counts further
    /// such quotes. As in Spark, each of them extends the field past one more separator.
    fn text_with_escapes(&mut self, input: &[u8]) -> Step<()> {
        let (quote, escape, separator) = (self.dialect.quote, self.dialect.escape, self.separator);
        let handling = self.dialect.unescaped_quote;
        let mut depth = 0usize;
        loop {
            if self.ch == separator || self.ch == self.new_line {
                if depth == 0 {
                    return self.check_copied();
                }
                depth -= 1;
            } else if self.ch != quote && self.ch != escape {
                if self.prev == quote {
                    if handling == UnescapedQuote::SkipValue {
                        self.skip_value(input)?;
                        continue;
                    }
                    self.push(quote);
                    self.prev = self.ch;
                    continue;
                }
                self.push(self.ch);
            } else if !self.quote_or_escape() {
                if handling == UnescapedQuote::SkipValue {
                    self.skip_value(input)?;
                } else {
                    self.push(quote);
                    self.prev = self.ch;
                    depth += 1;
                    continue;
                }
            }
            self.prev = self.ch;
            self.next(input)?;
        }
    }

    /// Appends a quoted field whose text was copied, unless `BackToDelimiter` has split it and left
    /// no text.
    pub(super) fn end_quoted(&mut self) -> Step<()> {
        let cut = self.unescaped
            && self.dialect.unescaped_quote == UnescapedQuote::BackToDelimiter
            && !self.passed_over
            && self.copied_len() == 0;
        if cut { Ok(()) } else { self.end_copied() }
    }
}
