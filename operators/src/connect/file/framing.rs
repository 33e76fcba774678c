//! Framing: where records start and end in the bytes of a file.
//!
//! A scanner looks at a window that starts after the last record and grows until it contains a
//! whole record. It resumes where it stopped, except for CSV: a CSV record is parsed again when the
//! window has doubled.

use crate::table::text::csv::{Dialect, LineEnd, Parsed, Parser};
use memchr::{memchr2, memmem};
use std::io::{self, Read};

/// The line end of a CSV file is detected at the end of its first line, if that is within this
/// number of bytes.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// The longest separator of records.
pub const SEPARATOR_BYTES_MAX: usize = 64;

/// How a file is split into records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Lines that end with `\n`, `\r\n` or `\r`.
    Lines,
    /// Records between separators.
    Separated(Vec<u8>),
    /// CSV records whose quoted fields may contain line ends. The dialect sets the line end, or
    /// leaves it to the file.
    Csv(Box<Dialect>),
    /// JSON objects, one after another or in an array, over any number of lines.
    Json,
    /// A JSON file as one record: an object or an array of objects. A file that is too long for one
    /// record is read as [`Framing::Json`].
    JsonFile,
    /// The whole file as one record.
    Whole,
}

impl Framing {
    /// Whether the start of a file determines its line end.
    pub fn needs_head(&self) -> bool {
        matches!(self, Self::Csv(dialect) if dialect.line_end.is_none())
    }

    /// Determines the line end of a file from its start.
    pub fn set_line_end(&mut self, mut file: impl Read) -> io::Result<()> {
        let Self::Csv(dialect) = self else { return Ok(()) };
        let (mut head, mut last) = (Vec::new(), false);
        while dialect.line_end.is_none() {
            let room = head.len().clamp(4096, HEAD_BYTES_MAX) as u64;
            last = last || file.by_ref().take(room).read_to_end(&mut head)? == 0;
            dialect.line_end = LineEnd::detect(&head, last, HEAD_BYTES_MAX);
        }
        Ok(())
    }

    /// The line end of CSV records; `None` for other framings, and before it is known.
    pub fn line_end(&self) -> Option<LineEnd> {
        match self {
            Self::Csv(dialect) => dialect.line_end,
            _ => None,
        }
    }
}

/// A record in a window: `begin..end`; the next record starts at `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The offset of the record's first byte.
    pub begin: usize,
    /// The offset after the record's last byte.
    pub end: usize,
    /// The offset after the separator, where the next record starts.
    pub next: usize,
}

/// Finds the next record.
#[derive(Clone, Debug)]
pub struct Scanner {
    framing: Framing,
    /// The number of scanned bytes in the window.
    at: usize,
    begin: usize,
    depth: usize,
    state: State,
    /// The parser for [`Framing::Csv`], which finds the end of a record.
    csv: Option<Box<Parser>>,
    /// The length of a window that did not contain a whole CSV record. A larger one is needed.
    too_few: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a record. Only JSON framing uses the state.
    Start,
    Inside,
    Quoted,
    /// After an escape character inside a string.
    Escaped,
}

impl Scanner {
    /// A scanner at the start of a record.
    pub fn new(framing: Framing) -> Self {
        let csv = match &framing {
            Framing::Csv(dialect) => Some(Box::new(Parser::new((**dialect).clone()))),
            _ => None,
        };
        Self { framing, at: 0, begin: 0, depth: 0, state: State::Start, csv, too_few: 0 }
    }

    /// Switches to reading a JSON file object by object, because it is too long for one record.
    /// Returns whether the framing allows that.
    pub fn splits(&mut self) -> bool {
        let splits = self.framing == Framing::JsonFile;
        if splits {
            self.framing = Framing::Json;
            self.reset();
        }
        splits
    }

    /// Restarts with a window that starts after the last record.
    pub fn reset(&mut self) {
        (self.at, self.begin, self.depth, self.state) = (0, 0, 0, State::Start);
        self.too_few = 0;
    }

    /// Adjusts to a window from which the first `bytes` bytes were removed. All of them must have
    /// been scanned.
    pub fn dropped(&mut self, bytes: usize) {
        self.at -= bytes;
        self.begin = self.begin.saturating_sub(bytes);
    }

    /// The line end of CSV records; `None` for other framings, and before it is known.
    pub fn line_end(&self) -> Option<LineEnd> {
        self.framing.line_end()
    }

    /// The number of bytes in the window before the current record.
    pub fn begin(&self) -> usize {
        self.begin
    }

    /// The number of scanned bytes in the window.
    pub fn scanned(&self) -> usize {
        self.at
    }

    /// Finds a whole record. `last` says that the window contains the rest of the file.
    pub fn find(&mut self, window: &[u8], last: bool) -> Option<Frame> {
        match &self.framing {
            Framing::Lines => self.line(window, last),
            Framing::Separated(separator) => {
                // A separator may have started in the scanned bytes.
                let from = self.at.saturating_sub(separator.len() - 1);
                let length = separator.len();
                let found = memmem::find(&window[from..], separator).map(|at| from + at);
                self.at = window.len();
                found.map(|at| Frame { begin: 0, end: at, next: at + length })
            }
            Framing::Csv(_) => return self.csv(window, last),
            Framing::Json => self.json(window),
            Framing::Whole | Framing::JsonFile => {
                self.at = window.len();
                None
            }
        }
        .or_else(|| {
            // The last record may end with the file instead of a separator.
            (last && self.rest(window) > 0).then(|| {
                let begin = self.begin;
                Frame { begin, end: window.len(), next: window.len() }
            })
        })
    }

    /// The number of bytes of a last record without a separator; 0 if there is none. In JSON
    /// framing, white space, commas and brackets between records do not count.
    fn rest(&self, window: &[u8]) -> usize {
        match self.framing {
            Framing::Json if self.state == State::Start => 0,
            _ => window.len() - self.begin.min(window.len()),
        }
    }

    #[inline]
    fn line(&mut self, window: &[u8], last: bool) -> Option<Frame> {
        match memchr2(b'\n', b'\r', &window[self.at..]).map(|at| self.at + at) {
            None => {
                self.at = window.len();
                None
            }
            Some(at) if window[at] == b'\n' => Some(Frame { begin: 0, end: at, next: at + 1 }),
            Some(at) => match window.get(at + 1) {
                Some(b'\n') => Some(Frame { begin: 0, end: at, next: at + 2 }),
                Some(_) => Some(Frame { begin: 0, end: at, next: at + 1 }),
                None if last => Some(Frame { begin: 0, end: at, next: at + 1 }),
                None => {
                    self.at = at;
                    None
                }
            },
        }
    }

    /// Finds the next CSV record; `None` if the window ends before the record does. A malformed
    /// record extends to the end of the window. A record is parsed again only when the window has
    /// doubled, so all attempts together take time linear in its length.
    fn csv(&mut self, window: &[u8], last: bool) -> Option<Frame> {
        let parser = self.csv.as_mut()?;
        if window.len() < self.too_few.saturating_mul(2) && !last {
            return None;
        }
        loop {
            let begin = self.begin;
            let Some((parsed, length)) = parser.parse(&window[begin..], last) else {
                self.too_few = window.len();
                return None;
            };
            let end = begin + length;
            match parsed {
                Parsed::Record => return Some(Frame { begin, end, next: end }),
                Parsed::Nothing if length > 0 => self.begin = end,
                Parsed::Nothing | Parsed::End => return None,
                // The decoder reports the error when it decodes the record.
                Parsed::Malformed(_) => {
                    return Some(Frame { begin, end: window.len(), next: window.len() });
                }
            }
        }
    }

    /// Parses the next window even if it has not doubled.
    pub fn try_now(&mut self) {
        self.too_few = 0;
    }

    fn json(&mut self, window: &[u8]) -> Option<Frame> {
        while let Some(byte) = window.get(self.at).copied() {
            match self.state {
                State::Start => {
                    // Brackets and commas of an array of objects are skipped like white space.
                    let between = matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b'[' | b']');
                    if between {
                        self.at += 1;
                        self.begin = self.at;
                    } else {
                        self.state = State::Inside;
                    }
                    continue;
                }
                State::Quoted => match memchr2(b'"', b'\\', &window[self.at..]) {
                    None => {
                        self.at = window.len();
                        return None;
                    }
                    Some(skip) => {
                        self.at += skip;
                        let quote = window[self.at] == b'"';
                        self.state = if quote { State::Inside } else { State::Escaped };
                    }
                },
                State::Escaped => self.state = State::Quoted,
                State::Inside => match byte {
                    b'"' => self.state = State::Quoted,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            self.at += 1;
                            let (begin, end) = (self.begin, self.at);
                            return Some(Frame { begin, end, next: end });
                        }
                    }
                    // A value without brackets ends at a comma or with its line.
                    b'\n' | b',' if self.depth == 0 => {
                        let (begin, end) = (self.begin, self.at);
                        return Some(Frame { begin, end, next: end + 1 });
                    }
                    _ => {}
                },
            }
            self.at += 1;
        }
        None
    }

    /// Whether only the first line of a record that is too long is skipped, so that the rest of the
    /// file is not lost.
    pub fn skips_first_line_only(&self) -> bool {
        matches!(self.framing, Framing::Csv(_))
    }
}
