//! Writes CSV fields as Spark does.
//!
//! By default, a field is trimmed, and quoted if it contains the separator, a quote or a line end.
//! The first field of a record is also quoted if it would look like a comment. Inside quotes, the
//! quote and the escape character are escaped.

use crate::table::error::PlanResult;
use crate::table::text::csv::options::{
    Get, character, escape_of_escape, flag, line_end, locale, separator,
};
use crate::table::text::csv::parser::push_char;

/// The options of a CSV writer.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    separator: Vec<u8>,
    quote: Vec<u8>,
    escape: Vec<u8>,
    /// The bytes that escape the escape character inside quotes; empty for none.
    escape_of_escape: Vec<u8>,
    /// The start of a comment line. A record's first field that begins with it is quoted.
    comment: Vec<u8>,
    null: String,
    empty: String,
    quote_all: bool,
    escape_quotes: bool,
    trim_start: bool,
    trim_end: bool,
    /// The text that is written after each record.
    pub line_end: String,
    /// Whether the first line of a file contains the column names.
    pub header: bool,
    /// The first bytes of all sequences that may need quotes or an escape.
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
    /// Reads the options. Fails if a value is invalid.
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
        for b in options.line_end.bytes().chain(*b"\r\n") {
            options.special[usize::from(b)] = true;
        }
        Ok(options)
    }

    /// Appends the separator.
    #[inline]
    pub fn separate(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.separator);
    }

    /// Whether integers can be written unquoted without inspecting their digits.
    pub fn numbers_are_plain(&self) -> bool {
        let digit = |text: &[u8]| text.first().is_some_and(|b| b.is_ascii_digit() || *b == b'-');
        !self.quote_all
            && ![&self.separator, &self.quote, &self.escape, &self.comment].map(|t| digit(t))[..]
                .contains(&true)
            && !digit(self.line_end.as_bytes())
    }

    /// Appends the text for NULL, quoted if necessary. `first` tells whether this is the first
    /// field of the record.
    pub fn null(&self, first: bool, out: &mut Vec<u8>) {
        self.replaced(self.null.as_bytes(), first, out);
    }

    /// Appends a field, trimmed as the options require, and quoted if necessary. `first` tells
    /// whether it is the first field of the record.
    #[inline]
    pub fn field(&self, text: &[u8], first: bool, out: &mut Vec<u8>) {
        let plain = match text {
            [] => false,
            [begin, ..] if *begin <= b' ' => false,
            [.., end] if *end <= b' ' => false,
            _ => !self.quote_all && !text.iter().any(|b| self.special[usize::from(*b)]),
        };
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

    /// Appends the text that stands for NULL or for an empty string. A text that already has quotes
    /// is not quoted again.
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
        let triggers = |at: usize| {
            let rest = &text[at..];
            rest.starts_with(&self.separator)
                || (self.escape_quotes && rest.starts_with(&self.quote))
                || matches!(text[at], b'\n' | b'\r')
                || self
                    .line_end
                    .chars()
                    .any(|c| rest.starts_with(c.encode_utf8(&mut [0; 4]).as_bytes()))
        };
        text.starts_with(&self.quote)
            || (first && text.starts_with(&self.comment))
            || (0..text.len()).any(|at| self.special[usize::from(text[at])] && triggers(at))
    }

    fn quoted(&self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.quote);
        let mut copied = 0;
        for at in 0..text.len() {
            if !self.special[usize::from(text[at])] {
                continue;
            }
            let before = match &text[at..] {
                rest if rest.starts_with(&self.quote) => &self.escape,
                rest if rest.starts_with(&self.escape) => &self.escape_of_escape,
                _ => continue,
            };
            out.extend_from_slice(&text[copied..at]);
            out.extend_from_slice(before);
            copied = at;
        }
        out.extend_from_slice(&text[copied..]);
        out.extend_from_slice(&self.quote);
    }
}
