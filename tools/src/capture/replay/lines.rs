//! Reassembles the lines of events that are about to be replayed, so that a line can be changed
//! even if several events contain parts of it.
//!
//! Events keep their order. An event whose last line is incomplete is buffered until an event
//! completes the line, and all later events are buffered after it. This rarely delays the replay,
//! which reads ahead. An event keeps its number and its time. Its bytes keep their positions unless
//! a change alters the length of a line.

use super::shift::{Replacement, Shifter};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// Maximum length of a line in which a time is searched, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Maximum number of buffered bytes. Beyond it, the incomplete line of the oldest event is replayed
/// unchanged, without waiting for its end.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Maximum number of buffered events. Has the same effect as `WAITING_BYTES_MAX`.
const WAITING_EVENTS_MAX: usize = 1 << 16;

/// The part of an event that belongs to an incomplete line.
struct Piece {
    /// The event's number.
    event: u64,
    range: Range<usize>,
}

/// An incomplete line: its newline has not been read yet.
#[derive(Default)]
struct Partial {
    pieces: Vec<Piece>,
    bytes: usize,
    /// Whether the line is too long, bytes of it are missing, or too much is buffered. It is then
    /// replayed unchanged.
    is_passed: bool,
}

/// A buffered event and its bytes.
pub(super) struct Waiting<E> {
    pub event: E,
    pub bytes: Vec<u8>,
    connection: u64,
    is_complete: bool,
}

pub(super) struct Lines<E> {
    shifter: Shifter,
    queue: VecDeque<Waiting<E>>,
    /// Number of the event at the front of the queue.
    front: u64,
    partial: HashMap<u64, Partial>,
    waiting_bytes: usize,
    line: Vec<u8>,
}

impl<E> Lines<E> {
    pub(super) fn new(shifter: Shifter) -> Self {
        Self {
            shifter,
            queue: VecDeque::new(),
            front: 0,
            partial: HashMap::new(),
            waiting_bytes: 0,
            line: Vec::new(),
        }
    }

    pub(super) fn shifter(&mut self) -> &mut Shifter {
        &mut self.shifter
    }

    /// Adds an event with its bytes. `played_ns` is the wall-clock time at which the event is
    /// replayed.
    pub(super) fn push(&mut self, event: E, connection: u64, bytes: &[u8], played_ns: i64) {
        let number = self.front + self.queue.len() as u64;
        let bytes = bytes.to_vec();
        self.waiting_bytes += bytes.len();
        self.queue.push_back(Waiting { event, bytes, connection, is_complete: true });
        let mut from = 0;
        while let Some(end) = self.line_end(number, from) {
            let range = from..end;
            from = self.complete(connection, Piece { event: number, range }, played_ns) + 1;
        }
        let rest = from..self.bytes_of(number).len();
        if !rest.is_empty() {
            self.begin(connection, Piece { event: number, range: rest });
        }
        // If too much is buffered, the incomplete line of the oldest event is no longer waited for.
        let are_too_many =
            self.waiting_bytes > WAITING_BYTES_MAX || self.queue.len() > WAITING_EVENTS_MAX;
        let oldest = self.queue.front().filter(|oldest| are_too_many && !oldest.is_complete);
        if let Some(connection) = oldest.map(|oldest| oldest.connection) {
            self.pass_line(connection);
        }
    }

    /// Ends a connection's incomplete line: its stream or datagram has ended, and the last line
    /// needs no newline.
    pub(super) fn end(&mut self, connection: u64, played_ns: i64) {
        let Some(partial) = self.partial.get_mut(&connection) else { return };
        match partial.pieces.pop() {
            Some(last) => drop(self.complete(connection, last, played_ns)),
            None => self.cut(connection),
        }
    }

    /// Replays a connection's incomplete line unchanged, up to its next newline: bytes of it are
    /// missing, or it cannot be waited for. A time must not be read from a part of a line.
    pub(super) fn pass_line(&mut self, connection: u64) {
        let partial = self.partial.entry(connection).or_default();
        partial.is_passed = true;
        for piece in std::mem::take(&mut partial.pieces) {
            self.set_complete(piece.event, true);
        }
    }

    /// Ends a connection's stream. A line that is incomplete is replayed unchanged, and counts as a
    /// line without a time.
    pub(super) fn cut(&mut self, connection: u64) {
        self.pass_line(connection);
        let bytes = self.partial.remove(&connection).map_or(0, |partial| partial.bytes);
        self.shifter.counts.without_time += u64::from(bytes > 0);
    }

    /// Removes and returns the oldest event. Returns `None` if there is none, or if a line in it is
    /// incomplete.
    pub(super) fn pop(&mut self) -> Option<Waiting<E>> {
        if !self.queue.front()?.is_complete {
            return None;
        }
        self.front += 1;
        let waiting = self.queue.pop_front()?;
        self.waiting_bytes -= waiting.bytes.len();
        Some(waiting)
    }

    /// Cuts the incomplete lines of all connections: the recording has ended before their streams.
    pub(super) fn cut_all(&mut self) {
        let connections: Vec<u64> = self.partial.keys().copied().collect();
        for connection in connections {
            self.cut(connection);
        }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Waiting<E>> {
        self.queue.get_mut(number.checked_sub(self.front)? as usize)
    }

    fn bytes_of(&mut self, number: u64) -> &[u8] {
        self.slot(number).map_or(&[], |waiting| &waiting.bytes)
    }

    fn line_end(&mut self, number: u64, from: usize) -> Option<usize> {
        let bytes = self.bytes_of(number).get(from..)?;
        bytes.iter().position(|byte| *byte == b'\n').map(|at| from + at)
    }

    fn begin(&mut self, connection: u64, piece: Piece) {
        let event = piece.event;
        let partial = self.partial.entry(connection).or_default();
        partial.bytes += piece.range.len();
        partial.is_passed |= partial.bytes > LINE_BYTES_MAX;
        let is_passed = partial.is_passed;
        let pieces = match is_passed {
            true => std::mem::take(&mut partial.pieces),
            false => {
                partial.pieces.push(piece);
                Vec::new()
            }
        };
        for piece in pieces {
            self.set_complete(piece.event, true);
        }
        self.set_complete(event, is_passed);
    }

    fn set_complete(&mut self, number: u64, is_complete: bool) {
        if let Some(waiting) = self.slot(number) {
            waiting.is_complete = is_complete;
        }
    }

    /// Completes the line that ends with the piece `last`. Returns the end of that piece after the
    /// change.
    fn complete(&mut self, connection: u64, last: Piece, played_ns: i64) -> usize {
        let mut end = last.range.end;
        let mut pieces = match self.partial.remove(&connection) {
            None => Vec::new(),
            Some(partial) if partial.is_passed => {
                self.shifter.counts.without_time += 1;
                return end;
            }
            Some(partial) => partial.pieces,
        };
        pieces.push(last);
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        for piece in &pieces {
            line.extend_from_slice(&self.bytes_of(piece.event)[piece.range.clone()]);
        }
        if let Some(replacement) = self.shifter.line(connection, &line, played_ns) {
            let grown = self.replace(&pieces, replacement);
            end = end.saturating_add_signed(grown);
        }
        self.line = line;
        for piece in &pieces {
            self.set_complete(piece.event, true);
        }
        end
    }

    /// Replaces bytes of a line in the pieces that contain them. Returns by how many bytes the last
    /// piece has grown.
    fn replace(&mut self, pieces: &[Piece], replacement: Replacement) -> isize {
        let Replacement { range, bytes } = replacement;
        let is_same_length = bytes.len() == range.len();
        let (mut line_at, mut written, mut grown) = (0, 0, 0);
        for (n, piece) in pieces.iter().enumerate() {
            let piece_end = line_at + piece.range.len();
            let (from, to) = (range.start.max(line_at), range.end.min(piece_end));
            if from < to {
                // If the length changes, the first of these pieces gets all new bytes.
                let count = match (is_same_length, written) {
                    (true, _) => to - from,
                    (false, 0) => bytes.len(),
                    (false, _) => 0,
                };
                let new = &bytes[written..written + count];
                written += count;
                let here = piece.range.start + from - line_at..piece.range.start + to - line_at;
                let change = count as isize - here.len() as isize;
                if let Some(waiting) = self.slot(piece.event) {
                    waiting.bytes.splice(here, new.iter().copied());
                }
                self.waiting_bytes = self.waiting_bytes.saturating_add_signed(change);
                if n + 1 == pieces.len() {
                    grown = change;
                }
            }
            line_at = piece_end;
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::super::shift::TimeField;
    use super::*;

    const NOW_NS: i64 = 1_800_000_000_000_000_000;

    fn lines(field: &str) -> Lines<usize> {
        Lines::new(Shifter::new(TimeField::parse(field).unwrap()))
    }

    fn popped(lines: &mut Lines<usize>) -> Vec<(usize, String)> {
        let text =
            |waiting: Waiting<usize>| (waiting.event, String::from_utf8(waiting.bytes).unwrap());
        std::iter::from_fn(|| lines.pop().map(text)).collect()
    }

    fn owned(events: &[(usize, &str)]) -> Vec<(usize, String)> {
        events.iter().map(|(n, text)| (*n, text.to_string())).collect()
    }

    #[test]
    fn a_line_is_changed_however_events_split_it() {
        let text = "a,1700000000,b\nc,1700000001,d\n";
        let wanted = "a,1800000000,b\nc,1800000001,d\n";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut lines = lines("2");
                let parts = [&text[..first], &text[first..second], &text[second..]];
                for (n, part) in parts.iter().enumerate() {
                    lines.push(n, 0, part.as_bytes(), NOW_NS);
                }
                let found = popped(&mut lines);
                let lengths: Vec<usize> = found.iter().map(|(_, text)| text.len()).collect();
                assert_eq!(lengths, parts.map(str::len), "write boundaries stay");
                assert_eq!(found.iter().map(|(_, text)| text.as_str()).collect::<String>(), wanted);
                assert_eq!(lines.waiting_bytes, 0);
            }
        }
    }

    #[test]
    fn a_resized_line_does_not_change_its_neighbours() {
        // Nine digits become ten.
        let text = "a,999999999\nb,1000000000\nc,1000000001\n";
        for cut in 0..text.len() {
            let mut lines = lines("2");
            lines.push(0, 0, &text.as_bytes()[..cut], NOW_NS);
            lines.push(1, 0, &text.as_bytes()[cut..], NOW_NS);
            let found: String = popped(&mut lines).into_iter().map(|(_, text)| text).collect();
            assert_eq!(found, "a,1800000000\nb,1800000001\nc,1800000002\n", "{cut}");
            assert_eq!((lines.waiting_bytes, lines.shifter.counts.resized), (0, 1));
        }
    }

    #[test]
    fn events_keep_their_order_and_wait_until_their_lines_are_complete() {
        let mut lines = lines("1");
        lines.push(0, 7, b"17000", NOW_NS);
        lines.push(1, 8, b"1700000005\n", NOW_NS);
        assert_eq!(popped(&mut lines), [], "the first line is not complete");
        lines.push(2, 7, b"00009\n", NOW_NS);
        let wanted = [(0, "18000"), (1, "1800000000\n"), (2, "00004\n")];
        assert_eq!(popped(&mut lines), owned(&wanted));
        lines.push(3, 7, b"1700000006", NOW_NS);
        assert_eq!(popped(&mut lines), []);
        lines.end(7, NOW_NS);
        assert_eq!(popped(&mut lines), owned(&[(3, "1800000001")]));
    }

    #[test]
    fn a_line_without_an_end_is_replayed_unchanged_at_the_buffer_limit() {
        let mut lines = lines("1");
        let piece = vec![b'x'; 64 << 10];
        for n in 0..100 {
            lines.push(n, n as u64 % 2, &piece, NOW_NS);
            assert!(lines.waiting_bytes <= WAITING_BYTES_MAX);
            while lines.pop().is_some() {}
        }
        for connection in [0, 1] {
            lines.push(100, connection, b"\n1700000000\n", NOW_NS);
        }
        lines.cut_all();
        let last = popped(&mut lines).pop().unwrap();
        assert_eq!(last.1, "\n1800000000\n");
        assert_eq!((lines.shifter.counts.without_time, lines.shifter.counts.moved), (2, 2));
    }

    #[test]
    fn many_unfinished_lines_do_not_grow_without_bound() {
        let mut lines = lines("1");
        for n in 0..WAITING_EVENTS_MAX * 2 {
            lines.push(n, n as u64, b"1700000000", NOW_NS);
            while let Some(waiting) = lines.pop() {
                assert_eq!(waiting.bytes, b"1700000000", "a part of a line is not moved");
            }
            assert!(lines.queue.len() <= WAITING_EVENTS_MAX);
        }
        // A line that is replayed unchanged still ends at its newline.
        lines.push(0, 0, b"17\n1700000000\n", NOW_NS);
        lines.cut_all();
        let last = popped(&mut lines).pop().unwrap();
        assert_eq!(last.1, "17\n1800000000\n");
        assert_eq!(lines.shifter.counts.moved, 1);
    }

    #[test]
    fn a_line_with_a_gap_is_replayed_unchanged() {
        let mut lines = lines("1");
        lines.push(0, 7, b"1700000000\n1700000001", NOW_NS);
        lines.pass_line(7);
        // The event begins with the rest of another line, which looks like a time.
        lines.push(1, 7, b"1700000002\n1700000003\n", NOW_NS);
        // No line was incomplete, but the missing bytes may contain the beginning of one.
        lines.pass_line(7);
        lines.push(2, 7, b"1700000004\n1700000005\n1700000006", NOW_NS);
        lines.cut(7);
        let wanted = [
            (0, "1800000000\n1700000001"),
            (1, "1700000002\n1800000003\n"),
            (2, "1700000004\n1800000005\n1700000006"),
        ];
        assert_eq!(popped(&mut lines), owned(&wanted));
        let counts = lines.shifter.counts;
        assert_eq!((counts.moved, counts.without_time), (3, 3));
        // No line is incomplete before this gap.
        lines.pass_line(7);
        lines.cut(7);
        assert_eq!(lines.shifter.counts, counts);
    }
}
