//! The dialect of a CSV text: the characters for separator, quote, escape, comment and line end.

const LF: u32 = b'\n' as u32;

/// How the parser handles an unescaped quote within a quoted field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnescapedQuote {
    /// The quoted text continues up to the next closing quote.
    StopAtClosingQuote,
    /// The text, opening quote included, continues up to the next separator or line end.
    StopAtDelimiter,
    /// The text read so far is split at every separator and line end within it.
    BackToDelimiter,
    /// The field is NULL.
    SkipValue,
    /// The record is malformed.
    RaiseError,
}

/// The character or the two characters that end a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineEnd {
    /// The first, or only, character.
    pub first: u32,
    /// The second character; `None` if one character ends a line.
    pub second: Option<u32>,
}

impl LineEnd {
    /// The line end `\n`.
    pub const LF: Self = Self { first: LF, second: None };

    /// Detects the line end of a file from its first line: `\n`, `\r\n` or `\r`. `last` tells
    /// whether `head` reaches the end of the file. Returns `None` if more bytes are needed. Returns
    /// `\n` if the text has no line end, or if its first line is longer than `head_bytes_max`
    /// bytes.
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

/// The characters that structure a CSV text, and the parser's limits. Characters are Unicode code
/// points. As in Spark, the code point 0 (NUL) disables a special character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The field separator: one character or several.
    pub separator: Vec<u32>,
    /// The character that encloses a quoted field.
    pub quote: u32,
    /// The character that escapes a quote inside a quoted field.
    pub escape: u32,
    /// The character that escapes the escape character inside a quoted field.
    pub escape_of_escape: u32,
    /// The character that marks a comment if it is the first of a line.
    pub comment: Option<u32>,
    /// Whether white space at the start of a field is dropped.
    pub trim_start: bool,
    /// Whether white space at the end of a field is dropped.
    pub trim_end: bool,
    /// How the parser handles an unescaped quote inside a quoted field.
    pub unescaped_quote: UnescapedQuote,
    /// The line end. If `None`, the parser uses the line end of the file's first line.
    pub line_end: Option<LineEnd>,
    /// The character to which a line end is normalised. This character also ends a record by
    /// itself.
    pub new_line: u32,
    /// Whether line ends inside quoted fields are normalised to `new_line`.
    pub normalize_in_quotes: bool,
    /// The maximum number of fields in a record (`maxColumns`).
    pub columns_max: usize,
    /// The maximum length of a field in UTF-16 code units (`maxCharsPerColumn`); `None` for no
    /// limit.
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
