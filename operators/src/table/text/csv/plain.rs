//! Splits a record without quotes, which is what most records are.
//!
//! One pass over the record looks at eight bytes at a time. What a separator alone does not decide
//! (a field that opens with a quote, a line end inside the record, a comment, a limit) is left to
//! the exact parser, which gives the same fields for what is decided here.

use crate::table::text::csv::dialect::{Dialect, LineEnd, UnescapedQuote};
use crate::table::text::csv::parser::{FieldText, ascii};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// How far a record is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: where it ends is not known yet.
    Whole,
    /// Up to the last column that is wanted.
    ToLastWanted,
}

/// The characters that decide in a plain record.
#[derive(Clone, Debug)]
pub(super) struct PlainSplitter {
    separator: u8,
    quote: u8,
    /// Bytes that end a record: what ends lines in the file, and what a line end becomes.
    line_ends: [u8; 2],
    comment: Option<u32>,
    columns_max: usize,
    bytes_max: usize,
    /// Whether what stands behind the last wanted column can make the record malformed.
    looks_at_all: bool,
}

impl PlainSplitter {
    /// The splitter of a dialect; none where a field depends on more than the separator.
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

    /// Splits a whole record. `wanted` is empty where all columns are read. With
    /// `Extent::ToLastWanted` nothing behind the last of them is looked at. The fields are incomplete
    /// if the result is false.
    #[inline]
    pub(super) fn split(
        &self,
        record: &[u8],
        wanted: &[bool],
        extent: Extent,
        fields: &mut Vec<FieldText>,
    ) -> bool {
        let Some(first) = record.first() else { return false };
        // A record of so few bytes cannot have too many fields or too long ones.
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
                // The separators behind the record's end are those that fill its last word.
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

/// The first eight bytes; fewer are filled up with a byte.
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

/// Whether one of eight bytes is `byte`.
#[inline]
fn has(word: u64, byte: u8) -> bool {
    let differs = word ^ (ONES * u64::from(byte));
    differs.wrapping_sub(ONES) & !differs & HIGH != 0
}

/// The high bit of each of eight bytes that is `byte`. No carry runs from one byte into the next.
#[inline]
fn positions(word: u64, byte: u8) -> u64 {
    let differs = word ^ (ONES * u64::from(byte));
    !(((differs & !HIGH) + !HIGH) | differs | !HIGH)
}
