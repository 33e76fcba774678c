//! A connection and its unfinished line.
//!
//! A read appends to the staged bytes. Complete lines stay there. An unfinished line is copied to
//! the connection's buffer, and copied back when its end arrives.

use super::super::bad_records::{BadRecords, KEPT_BYTES};
use super::framing::FrameBuffer;
use super::transport::Stream;
use crate::connect::socket::framing::line::LineEnds;
use crate::connect::socket::recorder::Recorder;
use millstream_engine::mio::Interest;
use std::collections::VecDeque;
use std::io::{self, Write};

/// Reason for rejecting a line that is too long.
pub(super) const TOO_LONG: &str = "line longer than maxLineLength";
/// Reason for rejecting the unfinished line of a connection that has ended.
pub(super) const CUT_OFF: &str = "connection ended within a line";
/// Reason for rejecting the longest unfinished line when all of them together exceed the limit.
const NO_ROOM: &str = "incomplete lines of all connections exceeded maxUnfinishedBytes";
/// Maximum number of rejected lines that wait to be reported.
const DEFERRED: usize = 1_024;
/// Maximum number of spare buffers for unfinished lines.
const SPARES: usize = 16;
/// Maximum size of a spare buffer, in bytes.
const SPARE_BYTES: usize = 64 * 1024;

/// A rejected line whose end has not arrived; its bytes are dropped.
struct Skipped {
    length: u64,
    first: Vec<u8>,
    reason: &'static str,
}

/// Rejected lines. Each is reported when everything staged before it has been emitted, or earlier
/// if too many of them wait.
pub struct RejectedLines {
    bad: BadRecords,
    deferred: VecDeque<Deferred>,
}

struct Deferred {
    offset: u64,
    length: u64,
    reason: &'static str,
    first: Vec<u8>,
}

impl RejectedLines {
    /// Adds a rejected line. `offset` is where the staged bytes ended when it was rejected.
    pub(super) fn add(&mut self, offset: u64, length: u64, reason: &'static str, first: &[u8]) {
        if self.deferred.len() == DEFERRED {
            self.tell_up_to(u64::MAX);
        }
        let first = first[..first.len().min(KEPT_BYTES)].to_vec();
        self.deferred.push_back(Deferred { offset, length, reason, first });
    }

    /// Reports the rejected lines up to a position.
    #[inline]
    pub(super) fn tell_up_to(&mut self, position: u64) {
        while self.deferred.front().is_some_and(|bad| bad.offset <= position) {
            let Some(bad) = self.deferred.pop_front() else { return };
            self.bad.add(None, (bad.offset, bad.length), bad.reason, &bad.first);
        }
    }
}

/// State that the connections of a source share while reading.
pub struct ReadState {
    /// Writes the received bytes to a capture. `None` without the option `record`.
    pub(super) recorder: Option<Recorder>,
    pub(super) ends: LineEnds,
    pub(super) max_line: usize,
    pub(super) aside: RejectedLines,
    /// Bytes of unfinished lines on all connections.
    pub(super) unfinished: usize,
    /// Free buffers for unfinished lines.
    spares: Vec<Vec<u8>>,
}

impl ReadState {
    pub(super) fn new(ends: LineEnds, max_line: usize, bad: BadRecords) -> Self {
        let aside = RejectedLines { bad, deferred: VecDeque::new() };
        Self { recorder: None, ends, max_line, aside, unfinished: 0, spares: Vec::new() }
    }

    fn recycle_buffer(&mut self, mut buffer: Vec<u8>) {
        self.unfinished -= buffer.len();
        if self.spares.len() < SPARES && (1..=SPARE_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            self.spares.push(buffer);
        }
    }

    fn extend(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) {
        if buffer.capacity() == 0
            && let Some(spare) = self.spares.pop()
        {
            *buffer = spare;
        }
        buffer.extend_from_slice(bytes);
        self.unfinished += bytes.len();
    }
}

/// The result of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Number of bytes that were read.
    pub bytes: usize,
    /// Bytes of complete lines that were staged.
    pub staged: usize,
    /// Number of lines that had been rejected by an earlier read and have ended now.
    pub skipped: u64,
}

/// An open connection.
pub struct Connection {
    pub(super) stream: Stream,
    /// The connection's number over the life of the capture log.
    pub(super) number: u32,
    /// The connection's number in the recording of its source.
    pub(super) recorded: u32,
    /// Time of the last received bytes, or of the start of the connection, in nanoseconds.
    pub(super) last_ns: u64,
    /// Whether the connection is in the queue of readable connections.
    pub(super) queued: bool,
    /// Whether a poll has reported that the peer closed its sending side, or an error.
    pub(super) read_closed: bool,
    /// Number of lines that were stored in the durable log, rejected ones included.
    pub(super) lines: u64,
    /// Number of bytes received on the connection.
    pub(super) bytes: u64,
    /// Whether the peer gets acknowledgements, so that the poll must also watch for room in its
    /// socket.
    pub(super) acknowledges: bool,
    /// The rest of an acknowledgement that did not fit into the peer's socket.
    unsent: Vec<u8>,
    /// The buffered bytes of the unfinished line.
    partial: Vec<u8>,
    skipped: Option<Skipped>,
    /// Whether the last byte was a CR, which has ended its line.
    after_cr: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream, number: u32, now_ns: u64) -> Self {
        Self {
            stream,
            number,
            recorded: 0,
            last_ns: now_ns,
            queued: false,
            read_closed: false,
            lines: 0,
            bytes: 0,
            acknowledges: false,
            unsent: Vec::new(),
            partial: Vec::new(),
            skipped: None,
            after_cr: false,
        }
    }

    /// Number of buffered bytes of the unfinished line.
    pub(super) fn unfinished(&self) -> usize {
        self.partial.len()
    }

    /// Reads once, at most `most` bytes, and stages the complete lines. Returns `None` at the end
    /// of the stream.
    pub(super) fn read(
        &mut self,
        staged: &mut FrameBuffer,
        most: usize,
        reading: &mut ReadState,
    ) -> io::Result<Option<Received>> {
        let (gap, position) = (self.partial.len(), staged.end_position());
        let room = staged.room(gap + most);
        let bytes = self.stream.read(&mut room[gap..])?;
        if bytes == 0 {
            return Ok(None);
        }
        self.bytes += bytes as u64;
        if let Some(recorder) = &mut reading.recorder {
            recorder.read(self.recorded, &room[gap..gap + bytes]);
        }
        let kept = self.without_split_end(&mut room[gap..gap + bytes], reading.ends);
        let received = self.frame(&mut room[..gap + kept], gap, reading, position);
        staged.add(received.staged);
        Ok(Some(Received { bytes, ..received }))
    }

    /// Drops an LF that follows a CR of an earlier read, if a CR ends a line. Returns the number of
    /// remaining bytes.
    #[inline]
    fn without_split_end(&mut self, read: &mut [u8], ends: LineEnds) -> usize {
        let Some(last) = read.last().copied().filter(|_| ends == LineEnds::Any) else {
            return read.len();
        };
        let is_rest = self.after_cr && read[0] == b'\n';
        self.after_cr = last == b'\r';
        if is_rest {
            read.copy_within(1.., 0);
        }
        read.len() - usize::from(is_rest)
    }

    /// Moves the complete lines to the front of `room`. The bytes that were read start at `gap`.
    fn frame(
        &mut self,
        room: &mut [u8],
        gap: usize,
        reading: &mut ReadState,
        position: u64,
    ) -> Received {
        let ends = reading.ends;
        let mut received = Received::default();
        let Some(first) = ends.first(&room[gap..]) else {
            self.keep_partial(&room[gap..], reading);
            return received;
        };
        let mut from = 0;
        if let Some(skipped) = self.skipped.take() {
            // No bytes of a rejected line are buffered, so `gap` is 0.
            let Skipped { length, first: bytes, reason } = skipped;
            reading.aside.add(position, length + first as u64, reason, &bytes);
            received.skipped = 1;
            from = first + LineEnds::length(room, first);
        } else if gap > 0 {
            room[..gap].copy_from_slice(&self.partial);
            reading.recycle_buffer(std::mem::take(&mut self.partial));
        }
        let last = ends.last(room).map_or(0, |at| at + 1).max(from);
        self.keep_partial(&room[last..], reading);
        room.copy_within(from..last, 0);
        received.staged = last - from;
        ends.close(&mut room[..received.staged]);
        received
    }

    /// Buffers bytes of an unfinished line. A line that becomes too long is rejected; further bytes
    /// of a rejected line are only counted.
    fn keep_partial(&mut self, bytes: &[u8], reading: &mut ReadState) {
        if bytes.is_empty() {
            return;
        }
        if let Some(skipped) = &mut self.skipped {
            skipped.length += bytes.len() as u64;
            return;
        }
        reading.extend(&mut self.partial, bytes);
        if self.partial.len() > reading.max_line {
            self.skip(TOO_LONG, reading);
        }
    }

    fn skip(&mut self, reason: &'static str, reading: &mut ReadState) {
        let length = self.partial.len() as u64;
        let first = self.partial[..self.partial.len().min(KEPT_BYTES)].to_vec();
        self.skipped = Some(Skipped { length, first, reason });
        reading.recycle_buffer(std::mem::take(&mut self.partial));
    }

    /// Rejects the unfinished line because the unfinished lines of all connections exceed their
    /// limit.
    pub(super) fn give_up(&mut self, reading: &mut ReadState) {
        self.skip(NO_ROOM, reading);
    }

    /// Handles the end of a connection whose peer may return: rejects the unfinished line, unless
    /// the peer will send it again. A line that is rejected already for another reason, such as its
    /// length, is counted in either case.
    pub(super) fn reject_partial(
        &mut self,
        position: u64,
        sent_again: bool,
        reading: &mut ReadState,
    ) {
        if let Some(Skipped { length, first, reason }) = self.skipped.take() {
            reading.aside.add(position, length, reason, &first);
        } else if !self.partial.is_empty() {
            if !sent_again {
                reading.aside.add(position, self.partial.len() as u64, CUT_OFF, &self.partial);
            }
            reading.recycle_buffer(std::mem::take(&mut self.partial));
        }
    }

    /// Handles the end of the stream: stages the unfinished line with a line end, unless the line
    /// is rejected already. Returns the number of staged bytes.
    pub(super) fn finish(&mut self, staged: &mut FrameBuffer, reading: &mut ReadState) -> usize {
        if self.skipped.is_some() || self.partial.is_empty() {
            self.reject_partial(staged.end_position(), false, reading);
            return 0;
        }
        let length = self.partial.len() + 1;
        let room = staged.room(length);
        room[..length - 1].copy_from_slice(&self.partial);
        room[length - 1] = b'\n';
        staged.add(length);
        reading.recycle_buffer(std::mem::take(&mut self.partial));
        length
    }

    /// The events that the poll must watch for.
    pub(super) fn interest(&self) -> Interest {
        if self.acknowledges { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
    }

    /// Whether the peer has not got the last acknowledgement because its socket was full. The caller
    /// must acknowledge again when the socket has room.
    pub(super) fn owes_acknowledgement(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Acknowledges lines: sends the peer their number. Bytes that do not fit into the socket are
    /// sent by the next call. While the peer does not read and the socket is full, later numbers
    /// are left out.
    pub(super) fn acknowledge(&mut self, lines: u64) {
        if !self.unsent.is_empty() {
            self.send_unsent();
        }
        if self.unsent.is_empty() {
            // Writing into memory does not fail.
            let _ = writeln!(self.unsent, "{lines}");
            self.send_unsent();
        }
    }

    fn send_unsent(&mut self) {
        // If the peer has disconnected, the next read reports it.
        let written = self.stream.write(&self.unsent).unwrap_or(0);
        self.unsent.drain(..written);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::bad_records::BadRecord;
    use super::super::framing::Framing;
    use super::*;
    use millstream_engine::mio::net::UnixStream;
    use std::io::Read;

    impl ReadState {
        fn told(&mut self) -> Vec<BadRecord> {
            self.aside.tell_up_to(u64::MAX);
            self.aside.bad.last()
        }
    }

    /// Passes pieces of bytes to a connection and returns the staged lines.
    fn lines_of(pieces: &[&[u8]], ends: LineEnds, max_line: usize) -> (Vec<String>, ReadState) {
        let (mine, mut peer) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(Stream::Unix(mine), 0, 0);
        let mut reading = ReadState::new(ends, max_line, BadRecords::default());
        let mut staged = FrameBuffer::new(Framing::Lines(ends));
        let mut lines = Vec::new();
        for piece in pieces {
            peer.write_all(piece).unwrap();
            let received = connection.read(&mut staged, 4096, &mut reading).unwrap().unwrap();
            assert_eq!(received.bytes, piece.len());
            assert_eq!(reading.unfinished, connection.unfinished());
        }
        connection.finish(&mut staged, &mut reading);
        while let Some(frame) = staged.first() {
            let line = &staged.bytes()[frame.at..frame.at + frame.length];
            lines.push(String::from_utf8_lossy(line).into_owned());
            staged.consume(frame.whole);
        }
        assert_eq!((reading.unfinished, staged.len()), (0, 0));
        (lines, reading)
    }

    #[test]
    fn a_peer_that_reads_late_gets_the_latest_acknowledgement() {
        let (mine, mut peer) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(Stream::Unix(mine), 0, 0);
        let mut lines = 0;
        while connection.unsent.is_empty() {
            lines += 1;
            connection.acknowledge(lines);
        }
        let mut read = |text: &mut Vec<u8>| {
            let mut buffer = [0; 1 << 16];
            while let Ok(bytes) = peer.read(&mut buffer) {
                text.extend_from_slice(&buffer[..bytes]);
            }
        };
        let mut text = Vec::new();
        read(&mut text);
        connection.acknowledge(lines + 1);
        read(&mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with(&format!("\n{lines}\n{}\n", lines + 1)), "{lines}");
        assert!(!connection.owes_acknowledgement());
    }

    #[test]
    fn lines_are_whole_however_reads_split_them() {
        let text = b"one\r\n\r\rtwo\n\nthree\r\nfour";
        let whole = ["one", "", "", "two", "", "three", "four"];
        for size in 1..text.len() {
            let pieces: Vec<_> = text.chunks(size).collect();
            assert_eq!(lines_of(&pieces, LineEnds::Any, 100).0, whole, "pieces of {size}");
        }
        let (lines, _) = lines_of(&[b"a\r", b"\n", b"\n", b"b\r\nc"], LineEnds::Lf, 100);
        assert_eq!(lines, ["a\r", "", "b\r", "c"]);
    }

    #[test]
    fn an_empty_line_after_a_lone_carriage_return_is_kept() {
        let (lines, _) = lines_of(&[b"a\r", b"\n\nb\r", b"c\n"], LineEnds::Any, 100);
        assert_eq!(lines, ["a", "", "b", "c"]);
    }

    #[test]
    fn only_the_beginning_of_an_overlong_line_is_kept() {
        let long = [b'x'; 300];
        let pieces = [&b"a\n"[..], &long, &long, &long, b"x\nb\n"];
        let (lines, mut reading) = lines_of(&pieces, LineEnds::Any, 500);
        assert_eq!(lines, ["a", "b"]);
        let bad = reading.told();
        assert_eq!((bad.len(), bad[0].length, bad[0].reason), (1, 901, TOO_LONG));
        assert_eq!(bad[0].bytes.len(), KEPT_BYTES);
    }

    #[test]
    fn a_rejected_line_does_not_affect_other_lines() {
        let (mine, mut peer) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(Stream::Unix(mine), 0, 0);
        let mut reading = ReadState::new(LineEnds::Any, 100, BadRecords::default());
        let mut staged = FrameBuffer::new(Framing::Lines(LineEnds::Any));
        peer.write_all(b"begun").unwrap();
        connection.read(&mut staged, 100, &mut reading).unwrap();
        connection.give_up(&mut reading);
        peer.write_all(b" ended\nnext\n").unwrap();
        let received = connection.read(&mut staged, 100, &mut reading).unwrap().unwrap();
        assert_eq!((received.skipped, staged.bytes()), (1, &b"next\n"[..]));
        let bad = reading.told();
        assert_eq!((bad[0].length, bad[0].reason), (11, NO_ROOM));
    }
}
