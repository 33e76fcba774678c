//! Splits records without quotes, the most common kind.
//!
//! One pass over the record tests eight bytes at a time. The splitter leaves a record to the exact
//! parser if the separators alone do not determine the fields. There are five cases: a field opens
//! with a quote, a line end is inside the record, the line is a comment, a limit may be exceeded,
//! or the record is empty. For all other records, the exact parser would give the same fields.

use crate::table::text::csv::dialect::{Dialect, LineEnd, UnescapedQuote};
use crate::table::text::csv::parser::{FieldText, ascii};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The part of a record that is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The whole record, because its end is not known yet.
    Whole,
    /// Up to the last needed column.
    ToLastWanted,
}

/// The special characters of a dialect, for records without quotes.
#[derive(Clone, Debug)]
pub(super) struct PlainSplitter {
    separator: u8,
    quote: u8,
    /// Bytes that may end a record: the first of the file's line end, and `new_line`.
    line_ends: [u8; 2],
    comment: Option<u32>,
    columns_max: usize,
    bytes_max: usize,
    /// Whether text after the last needed column can make the record malformed. Such text must be
    /// scanned too.
    looks_at_all: bool,
}

impl PlainSplitter {
    /// Creates a splitter. Returns `None` if the dialect needs the exact parser for all records:
    /// the separator has several characters; the separator, the quote, the first character of the
    /// file's line end or `new_line` is not ASCII; the separator equals the quote or one of the
    /// line ends; or white space is trimmed.
    pub(super) fn new(dialect: &Dialect, line_end: LineEnd) -> Option<Self> {
        let [separator] = dialect.separator[..] else { return None };
        let separator = ascii(separator)?;
        let quote = ascii(dialect.quote)?;
        let line_ends = [ascii(line_end.first)?, ascii(dialect.new_line)?];
        let trims = dialect.trim_start || dialect.trim_end;
        let distinct = separator != quote && !line_ends.contains(&separator);
        (distinct && !trims).then(|| Self {
            separator,
            quote,
            line_ends,
            comment: dialect.comment,
            columns_max: dialect.columns_max,
            bytes_max: dialect.chars_max.unwrap_or(usize::MAX),
            looks_at_all: dialect.unescaped_quote == UnescapedQuote::RaiseError,
        })
    }

    /// Splits one record into `fields`. `wanted` marks the needed columns; it is empty if all are
    /// needed. With `Extent::ToLastWanted`, scanning stops after the last needed column, unless
    /// `looks_at_all`. Returns false if the exact parser must read the record; `fields` is then
    /// incomplete.
    #[inline]
    pub(super) fn split(
        &self,
        record: &[u8],
        wanted: &[bool],
        extent: Extent,
        fields: &mut Vec<FieldText>,
    ) -> bool {
        let Some(first) = record.first() else { return false };
        // A record that is long enough to exceed a limit is left to the exact parser.
        if Some(u32::from(*first)) == self.comment
            || record.len() >= self.columns_max
            || record.len() > self.bytes_max
        {
            return false;
        }
        let last_wanted = match extent {
            Extent::Whole => usize::MAX,
            Extent::ToLastWanted if self.looks_at_all => usize::MAX,
            Extent::ToLastWanted => wanted.iter().rposition(|wanted| *wanted).unwrap_or(usize::MAX),
        };
        let mut begin = 0;
        let mut word_at = 0;
        while word_at < record.len() {
            let word = word_of(&record[word_at..], self.separator);
            if has(word, self.line_ends[0]) || has(word, self.line_ends[1]) {
                return false;
            }
            let mut found = positions(word, self.separator);
            while found != 0 {
                let end = word_at + found.trailing_zeros() as usize / 8;
                found &= found - 1;
                // These bytes are the padding of the last word, which consists of separators.
                if end >= record.len() {
                    break;
                }
                if !self.push(record, begin..end, wanted, fields) {
                    return false;
                }
                if fields.len() > last_wanted {
                    return true;
                }
                begin = end + 1;
            }
            word_at += 8;
        }
        self.push(record, begin..record.len(), wanted, fields)
    }

    #[inline]
    fn push(
        &self,
        record: &[u8],
        range: std::ops::Range<usize>,
        wanted: &[bool],
        fields: &mut Vec<FieldText>,
    ) -> bool {
        let passed_over = !wanted.is_empty() && !wanted.get(fields.len()).copied().unwrap_or(false);
        fields.push(match range.is_empty() {
            true => FieldText::Null,
            false if record[range.start] == self.quote => return false,
            false if passed_over => FieldText::Skipped,
            false => FieldText::Input(range),
        });
        true
    }
}

/// The first eight bytes as a word. A shorter slice is padded with `filler`.
#[inline]
fn word_of(bytes: &[u8], filler: u8) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let mut word = [filler; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        }
    }
}

/// Whether one of the word's eight bytes equals `byte`.
#[inline]
fn has(word: u64, byte: u8) -> bool {
    let differs = word ^ (ONES * u64::from(byte));
    differs.wrapping_sub(ONES) & !differs & HIGH != 0
}

/// Sets the high bit of each byte of the word that equals `byte`. No carry crosses from byte to
/// byte.
#[inline]
fn positions(word: u64, byte: u8) -> u64 {
    let differs = word ^ (ONES * u64::from(byte));
    !(((differs & !HIGH) + !HIGH) | differs | !HIGH)
}
