//! Fields as Spark writes them to CSV.
//!
//! A field stands in quotes where it has the separator, a quote, or a line end; the first field
//! of a record also where it would look like a comment. In quotes the quote and the escape are
//! escaped.

use super::options::{Get, character, escape_of_escape, flag, line_end, locale, separator};
use super::parser::push_char;
use crate::table::error::PlanResult;
use memchr::memmem;

/// How CSV is written.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    separator: Vec<u8>,
    quote: Vec<u8>,
    escape: Vec<u8>,
    /// Before an escape in quotes; empty for nothing.
    escape_of_escape: Vec<u8>,
    /// At the start of a line that is no record.
    comment: Vec<u8>,
    null: String,
    empty: String,
    quote_all: bool,
    escape_quotes: bool,
    trim_start: bool,
    trim_end: bool,
    /// Behind each record.
    pub line_end: String,
    /// Whether the first line of a file names the columns.
    pub header: bool,
    /// Bytes of which one at least is in every field that needs a closer look.
    special: [bool; 256],
}

fn utf8(c: u32) -> Vec<u8> {
    let mut out = Vec::new();
    push_char(&mut out, c);
    out
}

fn trimmed(text: &[u8], start: bool, end: bool) -> &[u8] {
    let mut text = text;
    while let [b, rest @ ..] = text
        && start
        && *b <= b' '
    {
        text = rest;
    }
    while let [rest @ .., b] = text
        && end
        && *b <= b' '
    {
        text = rest;
    }
    text
}

impl Default for WriteOptions {
    fn default() -> Self {
        match Self::read(&mut |_| None) {
            Ok(options) => options,
            Err(error) => unreachable!("no option is wrong: {}", error.reason),
        }
    }
}

impl WriteOptions {
    /// Reads the options.
    pub fn read(get: &mut Get<'_>) -> PlanResult<Self> {
        locale(get)?;
        let quote = character(get, "quote", '"')?;
        let escape = character(get, "escape", '\\')?;
        let escape_of = escape_of_escape(get, quote, escape)?;
        let comment = match character(get, "comment", '#')? {
            0 => u32::from('#'),
            given => given,
        };
        let mut options = Self {
            separator: separator(get)?.into_iter().flat_map(utf8).collect(),
            quote: utf8(quote),
            escape: utf8(escape),
            escape_of_escape: if escape_of == 0 { Vec::new() } else { utf8(escape_of) },
            comment: utf8(comment),
            null: get("nullValue").unwrap_or_default(),
            empty: get("emptyValue").unwrap_or_else(|| "\"\"".to_string()),
            quote_all: flag(get, "quoteAll", false)?,
            escape_quotes: flag(get, "escapeQuotes", true)?,
            trim_start: flag(get, "ignoreLeadingWhiteSpace", true)?,
            trim_end: flag(get, "ignoreTrailingWhiteSpace", true)?,
            line_end: line_end(get)?.unwrap_or_else(|| "\n".to_string()),
            header: flag(get, "header", false)?,
            special: [false; 256],
        };
        let starts = [&options.separator, &options.quote, &options.escape, &options.comment];
        for first in starts.into_iter().filter_map(|text| text.first()) {
            options.special[usize::from(*first)] = true;
        }
        for b in options.line_end.bytes().chain(*b"\r\n").chain(0..=b' ') {
            options.special[usize::from(b)] = true;
        }
        Ok(options)
    }

    /// Appends what separates two fields.
    #[inline]
    pub fn separate(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.separator);
    }

    /// Whether a number needs no look at its digits.
    pub fn numbers_are_plain(&self) -> bool {
        let digit = |text: &[u8]| text.first().is_some_and(|b| b.is_ascii_digit() || *b == b'-');
        !self.quote_all
            && ![&self.separator, &self.quote, &self.escape, &self.comment].map(|t| digit(t))[..]
                .contains(&true)
            && !digit(self.line_end.as_bytes())
    }

    /// Appends a field that is NULL.
    pub fn null(&self, first: bool, out: &mut Vec<u8>) {
        self.replaced(self.null.as_bytes(), first, out);
    }

    /// Appends a field.
    #[inline]
    pub fn field(&self, text: &[u8], first: bool, out: &mut Vec<u8>) {
        let plain = !text.is_empty()
            && !self.quote_all
            && !text.iter().any(|b| self.special[usize::from(*b)]);
        if plain { out.extend_from_slice(text) } else { self.careful(text, first, out) }
    }

    fn careful(&self, text: &[u8], first: bool, out: &mut Vec<u8>) {
        let visible = trimmed(text, self.trim_start, self.trim_end);
        if visible.is_empty() {
            return self.replaced(self.empty.as_bytes(), first, out);
        }
        if self.quote_all || self.needs_quotes(visible, first) {
            self.quoted(visible, out);
        } else {
            out.extend_from_slice(visible);
        }
    }

    /// Appends what is written for NULL or for a text of no characters. In quotes of its own it
    /// stays as it is.
    fn replaced(&self, text: &[u8], first: bool, out: &mut Vec<u8>) {
        let own = text.len() >= 2 && text.starts_with(&self.quote) && text.ends_with(&self.quote);
        let text = trimmed(text, self.trim_start, self.trim_end);
        if own || !(self.quote_all || self.needs_quotes(text, first)) {
            out.extend_from_slice(text);
        } else {
            self.quoted(text, out);
        }
    }

    fn needs_quotes(&self, text: &[u8], first: bool) -> bool {
        let has = |what: &[u8]| !what.is_empty() && memmem::find(text, what).is_some();
        text.starts_with(&self.quote)
            || (first && text.starts_with(&self.comment))
            || has(&self.separator)
            || (self.escape_quotes && has(&self.quote))
            || text.iter().any(|b| matches!(b, b'\n' | b'\r'))
            || self.line_end.chars().any(|c| has(c.encode_utf8(&mut [0; 4]).as_bytes()))
    }

    fn quoted(&self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.quote);
        let mut rest = text;
        while let [b, behind @ ..] = rest {
            if rest.starts_with(&self.quote) {
                out.extend_from_slice(&self.escape);
            } else if rest.starts_with(&self.escape) {
                out.extend_from_slice(&self.escape_of_escape);
            }
            out.push(*b);
            rest = behind;
        }
        out.extend_from_slice(&self.quote);
    }
}
