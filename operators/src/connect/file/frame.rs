//! Where records begin and end in the bytes of a file.
//!
//! A scanner looks at a window that begins where the last record ended and grows until a record
//! is whole; it goes on where it left off, so that every byte is looked at once.

use memchr::{memchr, memchr2, memmem};

/// The longest separator of records.
pub const SEPARATOR_BYTES_MAX: usize = 64;

/// How the bytes of a file become records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Lines that end with `\n`, `\r\n` or `\r`.
    Lines,
    /// Parts between a separator.
    Separated(Vec<u8>),
    /// CSV records whose quoted fields may hold line ends.
    Csv {
        /// Between fields.
        separator: u8,
        /// Around fields.
        quote: u8,
        /// Before a quote in quotes.
        escape: u8,
    },
    /// JSON objects, one after the other or in an array, over as many lines as they like.
    Json,
    /// The file.
    Whole,
}

/// A record in a window: `begin..end`, and what follows begins at `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its first byte.
    pub begin: usize,
    /// Behind its last.
    pub end: usize,
    /// Behind what separates it from the next.
    pub next: usize,
}

/// Finds the next record.
#[derive(Clone, Debug)]
pub struct Scanner {
    framing: Framing,
    /// Bytes of the window that were looked at.
    at: usize,
    begin: usize,
    depth: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a record, or at the start of a field.
    Start,
    Inside,
    Quoted,
    /// Behind a byte that takes the next one's meaning.
    Escaped,
    /// Behind a quote in quotes: the end of it, or the first half of a quote.
    Closing,
}

impl Scanner {
    /// A scanner at the start of a record.
    pub fn new(framing: Framing) -> Self {
        Self { framing, at: 0, begin: 0, depth: 0, state: State::Start }
    }

    /// Begins anew with a window that begins behind the record found last.
    pub fn reset(&mut self) {
        (self.at, self.begin, self.depth, self.state) = (0, 0, 0, State::Start);
    }

    /// The window has lost its first `bytes`, all of which were looked at.
    pub fn dropped(&mut self, bytes: usize) {
        self.at -= bytes;
        self.begin = self.begin.saturating_sub(bytes);
    }

    /// Bytes of the window before the record that has begun.
    pub fn begin(&self) -> usize {
        self.begin
    }

    /// Bytes of the window that were looked at.
    pub fn scanned(&self) -> usize {
        self.at
    }

    /// Finds a record that is whole; with `last`, the window is all that is left.
    pub fn find(&mut self, window: &[u8], last: bool) -> Option<Frame> {
        match &self.framing {
            Framing::Lines => self.line(window, last),
            Framing::Separated(separator) => {
                // The separator may have begun in what was looked at.
                let from = self.at.saturating_sub(separator.len() - 1);
                let length = separator.len();
                let found = memmem::find(&window[from..], separator).map(|at| from + at);
                self.at = window.len();
                found.map(|at| Frame { begin: 0, end: at, next: at + length })
            }
            Framing::Csv { separator, quote, escape } => {
                let (separator, quote, escape) = (*separator, *quote, *escape);
                self.csv(window, separator, quote, escape)
            }
            Framing::Json => self.json(window),
            Framing::Whole => {
                self.at = window.len();
                None
            }
        }
        .or_else(|| {
            // What has no end of its own ends with the file.
            (last && self.rest(window) > 0).then(|| {
                let begin = self.begin;
                Frame { begin, end: window.len(), next: window.len() }
            })
        })
    }

    /// Bytes at the end of the file that are a record without an end.
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

    fn csv(&mut self, window: &[u8], separator: u8, quote: u8, escape: u8) -> Option<Frame> {
        while let Some(byte) = window.get(self.at).copied() {
            if self.state == State::Quoted {
                // Nothing but these two matters in quotes.
                match memchr2(quote, escape, &window[self.at..]) {
                    None => {
                        self.at = window.len();
                        return None;
                    }
                    Some(skip) => {
                        self.at += skip + 1;
                        let quote_found = window[self.at - 1] == quote;
                        self.state = if quote_found { State::Closing } else { State::Escaped };
                        continue;
                    }
                }
            }
            self.at += 1;
            self.state = match (self.state, byte) {
                (State::Escaped, _) => State::Quoted,
                (State::Closing, byte) if byte == quote => State::Quoted,
                (State::Start, byte) if byte == quote => State::Quoted,
                (_, byte) if byte == separator => State::Start,
                (_, b'\n') => {
                    let end = self.at - 1;
                    let end = end - usize::from(end > 0 && window[end - 1] == b'\r');
                    return Some(Frame { begin: 0, end, next: self.at });
                }
                (_, _) => State::Inside,
            };
        }
        None
    }

    fn json(&mut self, window: &[u8]) -> Option<Frame> {
        while let Some(byte) = window.get(self.at).copied() {
            match self.state {
                State::Start => {
                    // An array of objects is the objects in it.
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
                State::Inside | State::Closing => match byte {
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
                    // A value that is no object ends where the next begins, or its line.
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

    /// Whether a record that does not end may be given up at its first line, so that the rest is
    /// not lost with it.
    pub fn gives_up_a_line(&self) -> bool {
        matches!(self.framing, Framing::Csv { .. })
    }

    /// Whether the window ends inside quotes.
    pub fn in_quotes(&self) -> bool {
        matches!(self.state, State::Quoted | State::Escaped)
    }
}

/// The first line of a window, with its end.
pub fn first_line(window: &[u8]) -> Frame {
    match memchr(b'\n', window) {
        Some(at) => Frame { begin: 0, end: at, next: at + 1 },
        None => Frame { begin: 0, end: window.len(), next: window.len() },
    }
}
