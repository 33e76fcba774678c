//! Line framing: which bytes end a line of a socket.
//!
//! `\n`, `\r\n` and a lone `\r` end a line, as in Spark, whose source uses Java's `BufferedReader`.
//! A `\r` ends its line at once, even as the last byte received; a `\n` that follows it is dropped.
//! With the option `lineSep '\n'` only `\n` ends a line, for text in which `\r` has another
//! meaning.

/// The bytes that end a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// `\n`, `\r\n` and `\r` each end a line.
    Any,
    /// Only `\n` ends a line.
    Lf,
}

impl LineEnds {
    /// The offset of the first byte that ends a line; `None` if there is none.
    #[inline]
    pub fn first(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Any => memchr::memchr2(b'\n', b'\r', bytes),
            Self::Lf => memchr::memchr(b'\n', bytes),
        }
    }

    /// The number of bytes of the line end at `at`.
    #[inline]
    pub fn length(bytes: &[u8], at: usize) -> usize {
        1 + usize::from(bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n'))
    }

    /// The offset of the last byte that ends a line; `None` if there is none. Of a `\r\n`, it is the
    /// `\n`.
    pub fn last(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Any => memchr::memrchr2(b'\n', b'\r', bytes),
            Self::Lf => memchr::memrchr(b'\n', bytes),
        }
    }

    /// Replaces CRs at the end of complete lines by LFs, if a CR ends a line. Otherwise an LF at
    /// the start of the bytes that follow, which is a line end of its own, would be taken for a
    /// part of the CR's line end.
    pub fn close(self, lines: &mut [u8]) {
        if self == Self::Any {
            let lone = lines.iter_mut().rev().take_while(|byte| **byte == b'\r');
            lone.for_each(|byte| *byte = b'\n');
        }
    }

    /// The number of lines that end in some bytes. The bytes must not start within a line end.
    pub fn count(self, bytes: &[u8]) -> u64 {
        let (mut count, mut from) = (0, 0);
        while let Some(at) = self.first(&bytes[from..]) {
            count += 1;
            from += at + if self == Self::Any { Self::length(&bytes[from..], at) } else { 1 };
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_found() {
        assert_eq!(LineEnds::Any.count(b"a\rb\r\nc\n\n\r"), 5);
        assert_eq!(LineEnds::Lf.count(b"a\rb\r\nc\n\n\r"), 3);
        assert_eq!(LineEnds::Any.first(b"ab\r\n"), Some(2));
        assert_eq!(LineEnds::length(b"ab\r\n", 2), 2);
        assert_eq!(LineEnds::length(b"ab\r", 2), 1);
        assert_eq!(LineEnds::Any.last(b"a\nb\rc"), Some(3));
        assert_eq!(LineEnds::Lf.last(b"a\nb\rc"), Some(1));
        for (ends, lines, closed) in [
            (LineEnds::Any, *b"a\r\nb\r\r", *b"a\r\nb\n\n"),
            (LineEnds::Lf, *b"a\r\nb\r\r", *b"a\r\nb\r\r"),
        ] {
            let mut lines = lines;
            ends.close(&mut lines);
            assert_eq!(lines, closed, "{ends:?}");
        }
    }
}
