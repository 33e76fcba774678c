//! What a CSV text is written in: separator, quote, escape, comment, line end.

const LF: u32 = b'\n' as u32;

/// What the parser does at an unescaped quote within a quoted field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnescapedQuote {
    /// The text goes on until a closing quote.
    StopAtClosingQuote,
    /// The text, opening quote included, goes on until the next separator.
    StopAtDelimiter,
    /// The text is cut at every separator that it holds.
    BackToDelimiter,
    /// The field is NULL.
    SkipValue,
    /// The record is malformed.
    RaiseError,
}

/// The one or two characters that end a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineEnd {
    /// The first one, or the only one.
    pub first: u32,
    /// The second one.
    pub second: Option<u32>,
}

impl LineEnd {
    /// `\n`
    pub const LF: Self = Self { first: LF, second: None };

    /// The end of the first line: `\n`, `\r\n` or `\r`. `None` as long as bytes are missing to
    /// tell. A text without a line end has `\n`, and so has one whose first line is longer than
    /// `head_bytes_max`.
    pub fn detect(head: &[u8], last: bool, head_bytes_max: usize) -> Option<Self> {
        let looked_at = &head[..head.len().min(head_bytes_max)];
        match memchr::memchr2(b'\n', b'\r', looked_at) {
            Some(at) if head[at] == b'\n' => Some(Self::LF),
            Some(at) => match head.get(at + 1) {
                Some(b'\n') => Some(Self { first: u32::from(b'\r'), second: Some(LF) }),
                Some(_) => Some(Self { first: u32::from(b'\r'), second: None }),
                None if last => Some(Self { first: u32::from(b'\r'), second: None }),
                None => None,
            },
            None => (last || head.len() >= head_bytes_max).then_some(Self::LF),
        }
    }
}

/// How records are written. Characters are code points; 0 is a character that is switched off,
/// as in Spark, where it is the character NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Between fields: one character or several.
    pub separator: Vec<u32>,
    /// Around fields.
    pub quote: u32,
    /// Before a quote inside quotes.
    pub escape: u32,
    /// Before the escape inside quotes.
    pub escape_of_escape: u32,
    /// At the start of a line that is no record.
    pub comment: Option<u32>,
    /// Whether fields lose white space at their start.
    pub trim_start: bool,
    /// Whether fields lose white space at their end.
    pub trim_end: bool,
    /// What becomes of a quote inside quotes that nothing escapes.
    pub unescaped_quote: UnescapedQuote,
    /// What ends lines; `None`: what ends the first line of the file.
    pub line_end: Option<LineEnd>,
    /// The character that a line end becomes. By itself it ends a record too.
    pub new_line: u32,
    /// Whether line ends inside quotes become `new_line`.
    pub normalize_in_quotes: bool,
    /// Most fields of a record.
    pub columns_max: usize,
    /// Most characters of a field, in UTF-16 units.
    pub chars_max: Option<usize>,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            separator: vec![u32::from(b',')],
            quote: u32::from(b'"'),
            escape: u32::from(b'\\'),
            escape_of_escape: u32::from(b'\\'),
            comment: None,
            trim_start: false,
            trim_end: false,
            unescaped_quote: UnescapedQuote::StopAtDelimiter,
            line_end: Some(LineEnd::LF),
            new_line: LF,
            normalize_in_quotes: true,
            columns_max: 20480,
            chars_max: None,
        }
    }
}
