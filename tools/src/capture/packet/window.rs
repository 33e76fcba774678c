//! A bounded window over a byte stream, for parsers that need a whole record.

use std::io::{self, Read};

/// Size of a read, in bytes. It is small enough for the bytes to be in the core's cache when they
/// are parsed.
const CHUNK_BYTES: usize = 128 << 10;

pub(crate) struct Window<R> {
    input: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Stream offset of `buffer[start]`.
    offset: u64,
    /// The error that ended the input early.
    error: Option<io::Error>,
}

impl<R: Read> Window<R> {
    /// `most` is the maximum number of bytes per request.
    pub(crate) fn new(input: R, most: usize) -> Self {
        let buffer = vec![0; CHUNK_BYTES + most].into_boxed_slice();
        Self { input, buffer, start: 0, end: 0, offset: 0, error: None }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// The next `bytes` bytes, or fewer at the end of the input or after a failed read.
    #[inline]
    pub(crate) fn peek(&mut self, bytes: usize) -> &[u8] {
        if self.end - self.start < bytes {
            self.fill(bytes);
        }
        &self.buffer[self.start..self.end.min(self.start + bytes)]
    }

    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.end - self.start);
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Consumes and returns bytes that [`Self::peek`] has returned.
    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) -> &[u8] {
        self.consume(bytes);
        &self.buffer[self.start - bytes..self.start]
    }

    /// Skips bytes. Returns whether there were enough.
    pub(crate) fn pass(&mut self, mut bytes: u64) -> bool {
        while bytes > 0 {
            let here = self.peek(1).len();
            if here == 0 {
                return false;
            }
            let step = ((self.end - self.start) as u64).min(bytes);
            self.consume(step as usize);
            bytes -= step;
        }
        true
    }

    #[cold]
    fn fill(&mut self, bytes: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let bytes = bytes.min(self.buffer.len());
        let most = bytes.max(CHUNK_BYTES);
        while self.end < bytes && self.error.is_none() {
            match self.input.read(&mut self.buffer[self.end..most]) {
                Ok(0) => return,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.error = Some(error),
            }
        }
    }
}
