//! The CSV parser: parses one record at a time, by the rules of Spark's parser.
//!
//! The parser is a state machine over characters with three fast paths. A record without quotes is
//! split at its separators (see `plain`). An unquoted field is found with one search for the
//! character that ends it. A quoted field without escapes is found with one search for its closing
//! quote. The text of a field found by a fast path is a range of the input; any other text is
//! copied into a reused buffer.
//!
//! Spark's parser also has a fast path, whose results differ from those of its slow path. This
//! parser reproduces the differences: if white space is trimmed, a field of only white space is
//! `nullValue` before a separator, but `emptyValue` at the end of the text.
//!
//! The parser sees a window of a longer text, which may end inside a record. In this case
//! [`Parser::parse`] returns `None`, and the caller parses the record again with a longer window.
//! So the result never depends on how the bytes arrive.

use crate::table::text::csv::dialect::{Dialect, LineEnd};
use crate::table::text::csv::plain::{Extent, PlainSplitter};
use memchr::{memchr2, memchr3};
use std::ops::Range;

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldText {
    /// A field without quotes and without characters, which is NULL.
    Null,
    /// Any other empty field, such as `""`: the value of the option `emptyValue`.
    Empty,
    /// A field that was not parsed, because its column is not needed or `SKIP_VALUE` dropped it.
    Skipped,
    /// A range of the input, whose bytes are the text.
    Input(Range<usize>),
    /// A range of [`Parser::copied`], for a text that differs from the bytes of the input.
    Copied(Range<usize>),
}

/// The reason why parsing stopped before the end of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The window ends inside the record, and more input may follow.
    More,
    /// The input has ended.
    End,
    /// The record has more fields than `maxColumns`, or a field longer than `maxCharsPerColumn`.
    /// Also a record at which Spark's parser fails.
    Limit,
    /// The record has an unescaped quote, and `unescapedQuoteHandling` is `RAISE_ERROR`.
    Quote,
}

/// The result of parsing at the start of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A record, in [`Parser::fields`].
    Record,
    /// An empty line, a comment, or, if `trim_start`, a line of only white space.
    Nothing,
    /// The end of the input, without a record.
    End,
    /// A malformed record, consumed up to the point of failure.
    Malformed(Stop),
}

/// The state of parsing one record, with buffers that are reused for the next record.
#[derive(Clone, Debug)]
pub struct Parser {
    pub(super) dialect: Dialect,
    pub(super) line_end: LineEnd,
    pub(super) new_line: u32,
    /// The separator if it is a single character, otherwise 0.
    pub(super) separator: u32,
    /// For each column, whether it is needed; empty if all are needed.
    wanted: Vec<bool>,
    /// The bytes that can end an unquoted field: separator and line end.
    plain_stops: [u8; 2],
    /// The bytes at which a search inside quotes stops.
    quoted_stops: [u8; 3],
    /// Whether the fast searches for the end of a field apply; see
    /// [`set_line_end`](Self::set_line_end).
    fast: bool,
    /// The byte that may follow a closing quote on the fast path.
    fast_separator: u8,
    /// Splits records that contain no quotes; `None` if the dialect does not allow it.
    pub(super) plain: Option<PlainSplitter>,

    pub(super) fields: Vec<FieldText>,
    pub(super) copied: Vec<u8>,
    /// White space after a closing quote. It is stored because it may turn out to be field text.
    pub(super) white: Vec<u8>,

    /// The byte offset of the next character.
    pub(super) at: usize,
    /// Whether the window reaches the end of the input.
    pub(super) last: bool,
    /// The current character.
    pub(super) ch: u32,
    /// The previous character, as far as quote handling needs it; 0 at the start of a field.
    pub(super) prev: u32,
    /// Whether line ends are currently normalised to `new_line`.
    pub(super) normalize: bool,
    /// Whether the current field contains an unescaped quote.
    pub(super) unescaped: bool,
    /// Whether trailing white space of the copied field is dropped.
    pub(super) trim: bool,
    /// Whether the column of the current field is not needed.
    pub(super) passed_over: bool,
    /// The start of the current field in `copied`.
    pub(super) begin: usize,
    /// The number of characters of a multi-character separator that have been matched.
    pub(super) matched: usize,
}

pub(super) type Step<T> = Result<T, Stop>;

/// An offset for bytes that are not valid UTF-8. A byte plus this offset is above every code point.
const BROKEN: u32 = 0x11_0000;

/// The byte of an ASCII character; `None` for any other character.
pub(super) fn ascii(c: u32) -> Option<u8> {
    u8::try_from(c).ok().filter(u8::is_ascii)
}

/// Whether the parser treats a character as white space: the space and all code points below it.
#[inline]
pub(super) fn is_white(c: u32) -> bool {
    c <= 0x20
}

impl Parser {
    /// Creates a parser for a dialect. The line end is `\n` if the dialect has none.
    pub fn new(dialect: Dialect) -> Self {
        let line_end = dialect.line_end.unwrap_or(LineEnd::LF);
        let new_line = dialect.new_line;
        let separator = match dialect.separator.as_slice() {
            [one] => *one,
            _ => 0,
        };
        let mut parser = Self {
            dialect,
            line_end,
            new_line,
            separator,
            wanted: Vec::new(),
            plain_stops: [0; 2],
            quoted_stops: [0; 3],
            fast: false,
            fast_separator: 0,
            plain: None,
            fields: Vec::new(),
            copied: Vec::new(),
            white: Vec::new(),
            at: 0,
            last: true,
            ch: 0,
            prev: 0,
            normalize: true,
            unescaped: false,
            trim: false,
            passed_over: false,
            begin: 0,
            matched: 0,
        };
        parser.set_line_end(line_end);
        parser
    }

    /// Sets the line end of the next file, for a dialect that detects it. The fast search for the
    /// end of a field is used only if separator, quote and escape are one ASCII character each, and
    /// the line end starts with one.
    pub fn set_line_end(&mut self, line_end: LineEnd) {
        self.line_end = line_end;
        self.plain = PlainSplitter::new(&self.dialect, line_end);
        let special = (ascii(self.separator), ascii(self.dialect.quote), ascii(line_end.first));
        self.fast = false;
        if let (Some(separator), Some(quote), Some(line)) = special
            && let Some(escape) = ascii(self.dialect.escape)
            && self.dialect.separator.len() == 1
        {
            self.fast = true;
            self.fast_separator = separator;
            self.plain_stops = [separator, line];
            // Inside quotes, a line end stops the search only if it must be rewritten to
            // `new_line`.
            let unchanged = LineEnd { first: self.new_line, second: None };
            let rewritten = self.dialect.normalize_in_quotes && line_end != unchanged;
            self.quoted_stops = [quote, escape, if rewritten { line } else { quote }];
        }
    }

    /// Restricts parsing to the columns marked in `wanted`. The text of other fields is skipped.
    pub fn set_wanted(&mut self, wanted: Vec<bool>) {
        self.wanted = if wanted.iter().all(|wanted| *wanted) { Vec::new() } else { wanted };
    }

    /// Whether only some columns are parsed.
    pub fn selects(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The dialect that the parser was created with.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// The fields of the last parsed record.
    pub fn fields(&self) -> &[FieldText] {
        &self.fields
    }

    /// The text of fields that differ from the input's bytes; see [`FieldText::Copied`].
    pub fn copied(&self) -> &[u8] {
        &self.copied
    }

    /// Parses the record at the start of a window. Returns the result and the offset after it.
    /// Returns `None` if the window ends inside the record and is not the `last` one; then call
    /// again with a longer window.
    #[inline]
    pub fn parse(&mut self, window: &[u8], last: bool) -> Option<(Parsed, usize)> {
        if last && self.split_plain(window, Extent::Whole) {
            return Some((Parsed::Record, window.len()));
        }
        self.parse_exactly(window, last)
    }

    /// Parses bytes that are exactly one record. Fields after the last needed column may be missing
    /// from the result.
    #[inline]
    pub fn parse_record(&mut self, record: &[u8]) -> Parsed {
        if self.split_plain(record, Extent::ToLastWanted) {
            return Parsed::Record;
        }
        self.parse_exactly(record, true).map_or(Parsed::End, |(parsed, _)| parsed)
    }

    #[inline]
    fn split_plain(&mut self, record: &[u8], extent: Extent) -> bool {
        self.fields.clear();
        self.copied.clear();
        let plain = self.plain.as_ref();
        plain.is_some_and(|plain| plain.split(record, &self.wanted, extent, &mut self.fields))
    }

    fn parse_exactly(&mut self, window: &[u8], last: bool) -> Option<(Parsed, usize)> {
        self.fields.clear();
        self.copied.clear();
        (self.at, self.last, self.ch, self.prev, self.begin) = (0, last, 0, 0, 0);
        (self.normalize, self.unescaped, self.trim, self.matched) = (true, false, false, 0);
        self.passed_over = self.passes(0);
        let parsed = match self.record(window) {
            Ok(parsed) => parsed,
            Err(Stop::More) => return None,
            Err(Stop::End) => match self.at_end(window) {
                Ok(parsed) => parsed,
                Err(stop) => Parsed::Malformed(stop),
            },
            Err(stop) => Parsed::Malformed(stop),
        };
        Some((parsed, self.at))
    }

    fn record(&mut self, input: &[u8]) -> Step<Parsed> {
        self.next(input)?;
        if Some(self.ch) == self.dialect.comment {
            self.pass_over_line(input)?;
            return Ok(Parsed::Nothing);
        }
        if self.dialect.separator.len() == 1 {
            self.fields_by_one(input)?;
        } else {
            self.fields_by_many(input)?;
        }
        Ok(if self.fields.is_empty() { Parsed::Nothing } else { Parsed::Record })
    }

    fn pass_over_line(&mut self, input: &[u8]) -> Step<()> {
        loop {
            match self.next_raw(input) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // The input ends with a comment.
                Err(Stop::End) => return Ok(()),
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Completes a record at the end of the input. Text after the last separator is a last field.
    fn at_end(&mut self, input: &[u8]) -> Step<Parsed> {
        let begun = self.field_at_end();
        let has_text = !self.passed_over && self.copied_len() > 0;
        if !self.fields.is_empty() || begun {
            if has_text || begun {
                self.end_copied()?;
            } else if !input.is_empty() {
                self.end_as(FieldText::Null)?;
            }
        } else if has_text {
            self.end_copied()?;
        } else if !input.is_empty() {
            self.end_as(FieldText::Null)?;
        } else {
            return Ok(Parsed::End);
        }
        Ok(Parsed::Record)
    }

    fn field_at_end(&mut self) -> bool {
        if self.ch == self.dialect.quote {
            if self.prev == self.dialect.quote {
                return true;
            }
            if !self.unescaped {
                self.push(self.ch);
            }
        }
        // As in Spark, `#` is tested even if comments are disabled.
        let comment = self.dialect.comment.unwrap_or(u32::from(b'#'));
        let begun = self.prev != 0
            && self.ch != self.separator
            && self.ch != self.new_line
            && self.ch != comment;
        (self.ch, self.prev) = (0, 0);
        if self.matched > 0 {
            self.unmatch();
            return true;
        }
        begun
    }

    fn fields_by_one(&mut self, input: &[u8]) -> Step<()> {
        let separator = self.separator;
        // Leading white space is skipped first, so that a line of only white space has no fields.
        if is_white(self.ch) && self.dialect.trim_start {
            self.skip_white(input)?;
        }
        while self.ch != self.new_line {
            if is_white(self.ch) && self.dialect.trim_start {
                self.skip_white(input)?;
            }
            if self.ch == separator || self.ch == self.new_line {
                self.end_as(FieldText::Null)?;
            } else {
                (self.unescaped, self.prev) = (false, 0);
                if self.ch == self.dialect.quote {
                    self.normalize = self.dialect.normalize_in_quotes;
                    if self.fast_quoted(input)? {
                        self.normalize = true;
                        match self.next(input) {
                            // The end of the input ends the record like a line end.
                            Err(Stop::End) => return Ok(()),
                            other => other?,
                        }
                        if self.ch == separator {
                            match self.next(input) {
                                Err(Stop::End) => {
                                    self.end_as(FieldText::Null)?;
                                    return Ok(());
                                }
                                other => other?,
                            }
                            if self.ch == self.new_line {
                                self.end_as(FieldText::Null)?;
                            }
                        }
                        continue;
                    }
                    self.trim = false;
                    self.quoted(input, separator)?;
                    self.normalize = true;
                    self.end_quoted()?;
                } else {
                    self.unquoted(input)?;
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

    /// Parses a field without an opening quote, up to the separator or the line end.
    #[inline]
    fn unquoted(&mut self, input: &[u8]) -> Step<()> {
        let begin = self.at - self.present_len(input);
        if self.fast {
            let [separator, line] = self.plain_stops;
            let mut from = begin;
            let end = loop {
                match memchr2(separator, line, &input[from..]) {
                    None => break None,
                    Some(skip) => {
                        let at = from + skip;
                        if input[at] == separator && self.separator != self.new_line {
                            break Some(at);
                        }
                        match self.line_end_at(input, at)? {
                            true => break Some(at),
                            false => from = at + 1,
                        }
                    }
                }
            };
            if end.is_none() && !self.last {
                return Err(Stop::More);
            }
            // At the end of the input, `new_line` ends the field too. Elsewhere only a line end
            // does.
            let stop = end.unwrap_or(input.len());
            let other = end.is_none()
                && self.line_end.first != self.new_line
                && input[begin..].iter().any(|b| u32::from(*b) == self.new_line);
            if !other {
                self.check_chars(&input[begin..stop])?;
                let mut text = begin..stop;
                if self.dialect.trim_end {
                    while text.end > text.start && is_white(u32::from(input[text.end - 1])) {
                        text.end -= 1;
                    }
                }
                let field = match (text.is_empty(), end) {
                    (false, _) => FieldText::Input(text),
                    (true, Some(_)) => FieldText::Null,
                    (true, None) => FieldText::Empty,
                };
                let passed = if self.passed_over { FieldText::Skipped } else { field };
                self.end_as(passed)?;
                self.at = stop;
                return match end {
                    Some(_) => self.next(input),
                    None => {
                        // The end of the input completes the field.
                        self.ch = self.new_line;
                        Ok(())
                    }
                };
            }
        }
        self.trim = self.dialect.trim_end;
        self.copy_until(input, [self.separator, self.new_line, self.new_line])?;
        self.end_copied()
    }

    /// Whether a line end starts at an offset. Stops with [`Stop::More`] if the window ends within
    /// a possible line end and more input follows.
    #[inline]
    fn line_end_at(&self, input: &[u8], at: usize) -> Step<bool> {
        if u32::from(input[at]) != self.line_end.first {
            return Ok(false);
        }
        match self.line_end.second {
            None => Ok(true),
            Some(second) => match input.get(at + 1) {
                Some(byte) => Ok(u32::from(*byte) == second),
                None if self.last => Ok(false),
                None => Err(Stop::More),
            },
        }
    }

    /// Parses a quoted field as a range of the input. Returns false without consuming anything if
    /// the field must be copied, for example because it has an escape, or because text follows its
    /// closing quote.
    #[inline]
    fn fast_quoted(&mut self, input: &[u8]) -> Step<bool> {
        if !self.fast {
            return Ok(false);
        }
        let [quote, escape, line] = self.quoted_stops;
        let begin = self.at;
        let mut from = begin;
        let end = loop {
            let Some(skip) = memchr3(quote, escape, line, &input[from..]) else {
                return if self.last { Ok(false) } else { Err(Stop::More) };
            };
            let at = from + skip;
            let byte = input[at];
            let next = input.get(at + 1).copied();
            if next.is_none() && !self.last {
                return Err(Stop::More);
            }
            if byte == quote {
                if u32::from(input[at - 1]) == self.dialect.escape {
                    if self.passed_over {
                        from = at + 1;
                        continue;
                    }
                    return Ok(false);
                }
                match next {
                    Some(next)
                        if next == self.fast_separator || u32::from(next) == self.new_line =>
                    {
                        break at;
                    }
                    // The last quote ends the input, so no later character can change the field.
                    None if self.is_plain_at_end(&input[begin..at]) => break at,
                    _ => return Ok(false),
                }
            } else if byte == escape && !self.passed_over {
                let escaped = next.map(u32::from);
                if escaped == Some(self.dialect.quote)
                    || escaped == Some(self.dialect.escape_of_escape)
                {
                    return Ok(false);
                }
            } else if byte == line && self.line_end_at(input, at)? {
                return Ok(false);
            }
            from = at + 1;
        };
        if !self.is_plain_over_lines(&input[begin..end]) {
            return Ok(false);
        }
        self.check_chars(&input[begin..end])?;
        let field = match begin == end {
            _ if self.passed_over => FieldText::Skipped,
            true => FieldText::Empty,
            false => FieldText::Input(begin..end),
        };
        self.end_as(field)?;
        self.at = end + 1;
        Ok(true)
    }

    /// Whether the last quoted field of the input is the text between its quotes. It may not be if
    /// it contains the escape of the escape, because Spark's parser drops the character before it.
    /// It is not if quotes are disabled, because Spark's parser confuses NUL with its marker for
    /// the start of a field.
    fn is_plain_at_end(&self, text: &[u8]) -> bool {
        let Dialect { quote, escape, escape_of_escape, .. } = self.dialect;
        let lost = || text.iter().any(|b| u32::from(*b) == escape_of_escape);
        !self.passed_over && quote != 0 && (escape == escape_of_escape || !lost())
    }

    /// Whether a quoted field that spans lines is the text between its quotes. It may not be if it
    /// contains the escape of the escape, because Spark's parser drops the character before it.
    fn is_plain_over_lines(&self, text: &[u8]) -> bool {
        let Dialect { escape, escape_of_escape, .. } = self.dialect;
        let has = |c: u32| text.iter().any(|b| u32::from(*b) == c);
        escape == escape_of_escape
            || escape_of_escape == 0
            || self.passed_over
            || !has(escape_of_escape)
            || !has(self.new_line)
    }

    fn skip_white(&mut self, input: &[u8]) -> Step<()> {
        while is_white(self.ch)
            && self.ch != self.separator
            && self.ch != self.new_line
            && self.ch != self.dialect.quote
        {
            self.next(input)?;
        }
        Ok(())
    }

    /// Copies the current field up to the first of three stop characters, which becomes the current
    /// character.
    pub(super) fn copy_until(&mut self, input: &[u8], stops: [u32; 3]) -> Step<()> {
        let first = self.ch;
        while !stops.contains(&self.ch) {
            self.push(self.ch);
            self.copy_run(input, stops);
            // As in Spark, if the input ends here, its last character does not count as a quote.
            self.next(input).inspect_err(|_| self.ch = first)?;
        }
        self.check_copied()
    }

    /// Copies a run of ASCII characters that contains neither a stop character nor a line end.
    #[inline]
    fn copy_run(&mut self, input: &[u8], stops: [u32; 3]) {
        let rest = &input[self.at..];
        let line = self.line_end.first;
        let stop = |b: &u8| {
            let c = u32::from(*b);
            c >= 0x80 || stops.contains(&c) || c == line
        };
        let run = rest.iter().position(stop).unwrap_or(rest.len());
        if !self.passed_over {
            self.copied.extend_from_slice(&rest[..run]);
        }
        if run > 0 {
            self.ch = u32::from(rest[run - 1]);
        }
        self.at += run;
    }

    /// Reads the next character into `ch`. A line end is normalised to `new_line`.
    #[inline]
    pub(super) fn next(&mut self, input: &[u8]) -> Step<()> {
        self.next_raw(input).map(|_| ())
    }

    /// Reads the next character into `ch` without normalising it. Returns whether it is a line end.
    #[inline]
    fn next_raw(&mut self, input: &[u8]) -> Step<bool> {
        let Some(byte) = input.get(self.at) else {
            return Err(if self.last { Stop::End } else { Stop::More });
        };
        let (c, length) = match byte.is_ascii() {
            true => (u32::from(*byte), 1),
            false => char_at(&input[self.at..], self.last).ok_or(Stop::More)?,
        };
        let behind = self.at + length;
        if c == self.line_end.first {
            let whole = match self.line_end.second {
                None => true,
                Some(second) => match input.get(behind) {
                    Some(next) => u32::from(*next) == second,
                    None if self.last => false,
                    None => return Err(Stop::More),
                },
            };
            if whole {
                if self.normalize {
                    self.ch = self.new_line;
                    self.at = behind + usize::from(self.line_end.second.is_some());
                } else {
                    self.ch = c;
                    self.at = behind;
                }
                return Ok(true);
            }
        }
        (self.ch, self.at) = (c, behind);
        Ok(false)
    }

    /// The length of the current character in bytes, on the assumption that it was not normalised.
    fn present_len(&self, input: &[u8]) -> usize {
        match self.ch {
            c if !(0x80..BROKEN).contains(&c) => 1,
            c if c < 0x800 => 2,
            c if c < 0x1_0000 => 3,
            _ => 4,
        }
        .min(input.len())
    }

    pub(super) fn copied_len(&self) -> usize {
        self.copied.len() - self.begin
    }

    #[inline]
    pub(super) fn push(&mut self, c: u32) {
        if !self.passed_over {
            push_char(&mut self.copied, c);
        }
    }

    /// Appends the matched part of a separator to the field text.
    pub(super) fn unmatch(&mut self) {
        if self.matched < self.dialect.separator.len() {
            for i in 0..self.matched {
                self.push(self.dialect.separator[i]);
            }
        }
        self.matched = 0;
    }

    /// Appends a field to the record. Fails if the record already has `columns_max` fields.
    #[inline]
    pub(super) fn end_as(&mut self, field: FieldText) -> Step<()> {
        if self.fields.len() >= self.dialect.columns_max {
            return Err(Stop::Limit);
        }
        self.fields.push(field);
        self.begin = self.copied.len();
        self.passed_over = self.passes(self.fields.len());
        Ok(())
    }

    #[inline]
    fn passes(&self, column: usize) -> bool {
        !self.wanted.is_empty() && !self.wanted.get(column).copied().unwrap_or(false)
    }

    /// Appends the field whose text is in `copied`, trimmed if that is set. A field that the query
    /// does not need is skipped, and an empty one is `Empty`. Fails if the field is too long.
    pub(super) fn end_copied(&mut self) -> Step<()> {
        self.check_copied()?;
        if self.passed_over {
            return self.end_as(FieldText::Skipped);
        }
        if self.trim {
            self.trim_copied();
        }
        let range = self.begin..self.copied.len();
        let field = if range.is_empty() { FieldText::Empty } else { FieldText::Copied(range) };
        self.end_as(field)
    }

    pub(super) fn trim_copied(&mut self) {
        while self.copied_len() > 0 && self.copied.last().is_some_and(|b| *b <= b' ') {
            self.copied.pop();
        }
    }

    #[inline]
    fn check_chars(&self, text: &[u8]) -> Step<()> {
        match self.dialect.chars_max {
            Some(most) if !self.passed_over && utf16_len(text) > most => Err(Stop::Limit),
            _ => Ok(()),
        }
    }

    pub(super) fn check_copied(&self) -> Step<()> {
        self.check_chars(&self.copied[self.begin..])
    }
}

/// The length of a text, in UTF-16 code units.
fn utf16_len(text: &[u8]) -> usize {
    text.iter().map(|b| usize::from((*b as i8) >= -0x40) + usize::from(*b >= 0xF0)).sum()
}

/// Decodes the character at the start of `bytes`. Returns it with its length in bytes, or `None` if
/// more bytes are needed.
fn char_at(bytes: &[u8], last: bool) -> Option<(u32, usize)> {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) if error.error_len().is_none() && !last => return None,
        Err(_) => "",
    };
    Some(match valid.chars().next() {
        Some(c) => (u32::from(c), c.len_utf8()),
        None => (BROKEN + u32::from(bytes[0]), 1),
    })
}

/// Appends a character. A number from [`BROKEN`] is appended as the original invalid byte.
pub(super) fn push_char(out: &mut Vec<u8>, c: u32) {
    match char::from_u32(c) {
        Some(c) if c.is_ascii() => out.push(c as u8),
        Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.push((c & 0xFF) as u8),
    }
}
