//! Parses records whose field separator has several characters.

use crate::table::text::csv::dialect::UnescapedQuote;
use crate::table::text::csv::parser::{FieldText, Parser, Step, Stop, is_white, push_char};

impl Parser {
    pub(super) fn fields_by_many(&mut self, input: &[u8]) -> Step<()> {
        if is_white(self.ch) && self.dialect.trim_start {
            self.skip_white_of_many(input)?;
        }
        while self.ch != self.new_line {
            if is_white(self.ch) && self.dialect.trim_start {
                self.skip_white_of_many(input)?;
            }
            if self.ch == self.new_line || self.at_separator(input)? {
                self.end_as(FieldText::Null)?;
            } else {
                (self.unescaped, self.prev) = (false, 0);
                if self.ch == self.dialect.quote && self.copied_len() == 0 && !self.passed_over {
                    self.normalize = self.dialect.normalize_in_quotes;
                    self.trim = false;
                    self.quoted_of_many(input)?;
                    self.normalize = true;
                    self.end_quoted()?;
                } else {
                    self.unquoted_of_many(input)?;
                    if self.dialect.trim_end {
                        self.trim_copied();
                    }
                    self.end_copied()?;
                }
            }
            if self.ch != self.new_line {
                self.next(input)?;
                if self.ch == self.new_line {
                    self.end_as(FieldText::Null)?;
                }
            }
        }
        Ok(())
    }

    /// The next separator character to match. Fails if all characters have already been matched.
    fn awaited(&self) -> Step<u32> {
        // Spark's parser fails here too, because skipping a value can consume a complete separator.
        self.dialect.separator.get(self.matched).copied().ok_or(Stop::Limit)
    }

    fn match_on(&mut self, input: &[u8]) -> Step<bool> {
        while self.ch == self.awaited()? {
            self.matched += 1;
            if self.matched == self.dialect.separator.len() {
                break;
            }
            self.next(input)?;
        }
        if self.matched == self.dialect.separator.len() {
            self.matched = 0;
            return Ok(true);
        }
        Ok(false)
    }

    /// Consumes a separator and returns true. Otherwise the characters of a partial match become
    /// field text, and the result is false.
    fn at_separator(&mut self, input: &[u8]) -> Step<bool> {
        if self.match_on(input)? {
            return Ok(true);
        }
        self.unmatch();
        Ok(false)
    }

    fn skip_white_of_many(&mut self, input: &[u8]) -> Step<()> {
        while is_white(self.ch)
            && self.matched < self.dialect.separator.len()
            && self.ch != self.new_line
            && self.ch != self.dialect.quote
        {
            self.next(input)?;
            if self.awaited()? == self.ch && self.at_separator(input)? {
                self.end_as(FieldText::Null)?;
                self.next(input)?;
            }
        }
        self.unmatch();
        Ok(())
    }

    fn unquoted_of_many(&mut self, input: &[u8]) -> Step<()> {
        while self.matched < self.dialect.separator.len() && self.ch != self.new_line {
            if self.awaited()? == self.ch {
                self.matched += 1;
                if self.matched == self.dialect.separator.len() {
                    break;
                }
            } else {
                if self.matched > 0 {
                    self.unmatch();
                    continue;
                }
                self.push(self.ch);
            }
            self.next(input)?;
        }
        self.unmatch();
        Ok(())
    }

    fn quoted_of_many(&mut self, input: &[u8]) -> Step<()> {
        let (quote, escape) = (self.dialect.quote, self.dialect.escape);
        'again: loop {
            if self.prev != 0 && self.goes_on_to_separator() {
                if self.dialect.unescaped_quote == UnescapedQuote::SkipValue {
                    return self.skip_value(input);
                }
                self.open_copied();
                self.next(input)?;
                self.trim = self.dialect.trim_end;
                // A separator that ends in white space does not end the text, because of the test
                // of `is_white` below.
                self.unquoted_of_many(input)?;
            } else {
                self.next(input)?;
                loop {
                    let behind = self.prev == quote;
                    if behind && (is_white(self.ch) || self.ch == self.new_line) {
                        break;
                    }
                    if behind && self.at_separator(input)? {
                        return Ok(());
                    }
                    if self.ch != quote && self.ch != escape {
                        if self.prev == quote {
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
                        let ends = self.unescaped
                            && (self.ch == self.new_line || self.at_separator(input)?);
                        if ends {
                            return Ok(());
                        }
                    }
                }
            }
            if self.ch == self.new_line || !is_white(self.ch) || self.match_on(input)? {
                return Ok(());
            }
            self.white.clear();
            loop {
                push_char(&mut self.white, self.ch);
                self.next(input)?;
                if self.ch == self.new_line || self.match_on(input)? {
                    return Ok(());
                }
                if !is_white(self.ch) {
                    break;
                }
            }
            if self.dialect.unescaped_quote == UnescapedQuote::RaiseError || self.match_on(input)? {
                return Ok(());
            }
            self.text_behind_white()?;
            // Spark's parser continues as if the separator were the character NUL.
            return self.quoted(input, 0);
        }
    }
}
