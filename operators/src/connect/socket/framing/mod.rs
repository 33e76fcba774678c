//! Framing: splits received bytes into records, and buffers complete records until the chain takes
//! them.
//!
//! An unfinished line stays in the buffer of its connection, so lines of different connections are
//! never mixed. Only the replay of a log may stage the beginning of a record.

pub mod line;
use crate::connect::socket::framing::line::LineEnds;

/// Size of the length field before a datagram, in bytes.
const PREFIX: usize = 4;
/// Initial size of the buffer, in bytes. An idle source shrinks its buffer to this size.
const IDLE_BYTES: usize = 256 * 1024;

/// How records are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each record is a line.
    Lines(LineEnds),
    /// Each record is preceded by its length: a datagram, which may contain line ends.
    Sized,
}

/// The location of a record at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Offset of the record's content.
    pub at: usize,
    /// Length of the content, in bytes.
    pub length: usize,
    /// Length of the record with its delimiters, in bytes.
    pub whole: usize,
}

impl Framing {
    /// The location of the first record in `bytes`, whose first `scanned` bytes contain no line
    /// end. `None` if the record is incomplete.
    #[inline]
    fn first(self, bytes: &[u8], scanned: usize) -> Option<Frame> {
        match self {
            Self::Lines(ends) => {
                let length = scanned + ends.first(&bytes[scanned..])?;
                // With `lineSep '\n'` the byte at the end is always a line feed.
                let whole = length + LineEnds::length(bytes, length);
                Some(Frame { at: 0, length, whole })
            }
            Self::Sized => {
                let prefix = bytes.get(..PREFIX)?.try_into().ok()?;
                let length = u32::from_le_bytes(prefix) as usize;
                let whole = PREFIX + length;
                (bytes.len() >= whole).then_some(Frame { at: PREFIX, length, whole })
            }
        }
    }

    /// The number of complete records in bytes that start with a record.
    pub fn count(self, bytes: &[u8]) -> u64 {
        match self {
            Self::Lines(ends) => ends.count(bytes),
            Self::Sized => {
                let (mut count, mut rest) = (0, bytes);
                while let Some(frame) = self.first(rest, 0) {
                    count += 1;
                    rest = &rest[frame.whole..];
                }
                count
            }
        }
    }

    /// The length of the complete records at the beginning, in bytes.
    fn whole(self, bytes: &[u8]) -> usize {
        match self {
            Self::Lines(ends) => ends.last(bytes).map_or(0, |at| at + 1),
            Self::Sized => {
                let mut whole = 0;
                while let Some(frame) = self.first(&bytes[whole..], 0) {
                    whole += frame.whole;
                }
                whole
            }
        }
    }
}

/// Buffered records in the order of arrival, with their offset in the stream.
pub struct FrameBuffer {
    framing: Framing,
    buffer: Vec<u8>,
    start: usize,
    /// With line framing, `buffer[start..scanned]` contains no line end.
    scanned: usize,
    end: usize,
    /// Offset of `buffer[start]` in the stream.
    pub position: u64,
}

impl FrameBuffer {
    /// An empty buffer at the start of the stream.
    pub fn new(framing: Framing) -> Self {
        Self { framing, buffer: vec![0; IDLE_BYTES], start: 0, scanned: 0, end: 0, position: 0 }
    }

    /// Number of staged bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is staged.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Offset in the stream after all staged bytes.
    pub fn end_position(&self) -> u64 {
        self.position + self.len() as u64
    }

    /// Offset in the stream after the last complete record.
    pub fn whole_position(&self) -> u64 {
        self.position + self.framing.whole(&self.buffer[self.start..self.end]) as u64
    }

    /// Returns a slice of `bytes` bytes after the staged bytes, to be written by the caller.
    /// [`add`](Self::add) stages the written bytes.
    #[inline]
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.scanned, self.end) = (0, 0, 0);
        } else if self.buffer.len() - self.end < bytes && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.scanned -= self.start;
            self.start = 0;
        }
        let wanted = self.end + bytes;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted.max(self.buffer.len() * 2), 0);
        }
        &mut self.buffer[self.end..wanted]
    }

    /// Stages the first `bytes` bytes of the slice that [`room`](Self::room) returned.
    #[inline]
    pub fn add(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// The last `bytes` staged bytes.
    pub fn last(&self, bytes: usize) -> &[u8] {
        &self.buffer[self.end - bytes..self.end]
    }

    /// Releases the memory that a long line or a batch needed, if nothing is staged. Call this when
    /// idle.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.buffer.len() > IDLE_BYTES {
            (self.start, self.scanned, self.end) = (0, 0, 0);
            self.buffer.truncate(IDLE_BYTES);
            self.buffer.shrink_to_fit();
        }
    }

    /// The location of the first record in [`bytes`](Self::bytes); `None` if it is incomplete.
    #[inline]
    pub fn first(&mut self) -> Option<Frame> {
        let bytes = &self.buffer[self.start..self.end];
        let found = self.framing.first(bytes, self.scanned - self.start);
        if found.is_none() {
            self.scanned = self.end;
        }
        found
    }

    /// The staged bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Drops the first `bytes` staged bytes.
    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.position += bytes as u64;
        self.scanned = self.start;
    }

    /// Removes the bytes after the last complete record. Returns them with their offset, or `None`
    /// if there are none.
    pub fn cut_partial(&mut self) -> Option<(u64, &[u8])> {
        let whole = self.framing.whole(self.bytes());
        let (from, to) = (self.start + whole, self.end);
        (self.end, self.scanned) = (from, self.scanned.min(from));
        (from < to).then(|| (self.position + whole as u64, &self.buffer[from..to]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(staged: &mut FrameBuffer, bytes: &[u8]) {
        staged.room(bytes.len()).copy_from_slice(bytes);
        staged.add(bytes.len());
    }

    #[test]
    fn records_are_drained_as_they_were_staged() {
        let mut staged = FrameBuffer::new(Framing::Lines(LineEnds::Any));
        stage(&mut staged, b"ab\r\nc\n");
        assert_eq!(staged.first(), Some(Frame { at: 0, length: 2, whole: 4 }));
        staged.consume(4);
        assert_eq!(staged.first(), Some(Frame { at: 0, length: 1, whole: 2 }));
        stage(&mut staged, b"half");
        assert_eq!((staged.end_position(), staged.whole_position()), (10, 6));
        assert_eq!(staged.cut_partial(), Some((6, &b"half"[..])));
        staged.consume(2);
        assert_eq!((staged.first(), staged.position), (None, 6));
    }

    #[test]
    fn a_datagram_may_hold_line_ends() {
        let mut staged = FrameBuffer::new(Framing::Sized);
        for content in [&b"a\nb"[..], b""] {
            stage(&mut staged, &(content.len() as u32).to_le_bytes());
            stage(&mut staged, content);
        }
        assert_eq!(Framing::Sized.count(staged.bytes()), 2);
        assert_eq!(staged.first(), Some(Frame { at: 4, length: 3, whole: 7 }));
        stage(&mut staged, &[9, 0, 0, 0, b'x']);
        assert_eq!(staged.cut_partial(), Some((11, &[9, 0, 0, 0, b'x'][..])));
    }

    #[test]
    fn an_idle_buffer_is_freed() {
        let mut staged = FrameBuffer::new(Framing::Lines(LineEnds::Lf));
        stage(&mut staged, &vec![b'x'; 4 << 20]);
        staged.shrink();
        assert!(staged.buffer.len() >= 4 << 20, "it is in use");
        staged.consume(4 << 20);
        staged.shrink();
        assert_eq!(staged.buffer.capacity(), IDLE_BYTES);
    }
}
