//! Splits the recorded bytes of each connection and direction into records.
//!
//! A line may span several events. Its beginning is buffered per connection, as in the [socket
//! source](crate::connect::socket). If all buffers together contain more than `maxUnfinishedBytes`
//! bytes after an unfinished line was added, the longest one is rejected.

use super::config::CaptureConfig;
use super::offset::Mark;
use super::staged::{Content, Staged, Stretch};
use crate::connect::bad_records::KEPT_BYTES;
use crate::connect::socket::framing::line::LineEnds;
use millstream_engine::capture::{
    ConnectionInfo, Direction, FLAG_CUT, FLAG_MORE, FLAG_REPEATED, Head, Kind, Protocol,
};
use millstream_engine::checkpoint::key_group::BuildStableHasher;
use std::collections::{HashMap, HashSet};

pub(super) const TOO_LONG: &str = "line longer than maxLineLength";
const CUT_OFF: &str = "connection ended within a line";
const NOT_WHOLE: &str = "the recording ended within a line";
const MISSING: &str = "bytes of the line are missing in the recording";
const CUT_DATAGRAM: &str = "the recorder cut the datagram";
const NO_ROOM: &str = "incomplete lines of all connections exceeded maxUnfinishedBytes";
/// Number of streams from which the state of streams without an unfinished line is dropped.
const STREAMS: usize = 1 << 16;

/// Maximum length of a datagram, in bytes; larger than UDP allows.
const DATAGRAM_BYTES: usize = 1 << 20;

/// Identifies a stream: a connection and a direction.
type StreamKey = (u32, Direction);
/// Connection numbers.
pub(super) type Connections = HashSet<u32, BuildStableHasher>;

/// The state of one direction of a connection.
#[derive(Default)]
struct Stream {
    /// The bytes of the unfinished record.
    partial: Vec<u8>,
    /// The length of an unfinished record that is rejected already, and the reason. `partial` then
    /// keeps only its first bytes.
    rejected: Option<(u64, &'static str)>,
    /// Whether the last byte was a CR that ended a line. An LF that follows is part of the same
    /// line end.
    after_cr: bool,
    /// The position before the event in which the unfinished record began. `None` if there is no
    /// unfinished record. Also set after a CR, because its LF may follow.
    begin: Option<Mark>,
    /// The stream position of the next byte, if none is missing.
    expected: u64,
}

impl Stream {
    /// Whether the last byte ended a line, so that the next event begins one.
    fn is_between_lines(&self) -> bool {
        self.begin.is_none() && self.rejected.is_none() && !self.after_cr && self.partial.is_empty()
    }
}

/// A stream that is between two lines: its key and the stream position of its next byte.
type BetweenLines = (StreamKey, u64);

/// The streams of a recording.
pub(super) struct Framer {
    streams: HashMap<StreamKey, Stream, BuildStableHasher>,
    /// The stream of the last event if it is between two lines. Its entry in `streams` has an older
    /// position.
    between: Option<BetweenLines>,
    datagrams: Connections,
    /// The total bytes of all unfinished records.
    unfinished: usize,
    /// Whether a damaged stretch of the file was skipped. From then on a jump in a stream's
    /// position means missing bytes.
    is_damaged: bool,
}

/// The position of the event that is being framed.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// The position before the event.
    pub mark: Mark,
    pub wall_us: i64,
    pub mono_ns: u64,
}

impl At {
    pub(super) fn stretch(&self, content: Content) -> Stretch {
        let Self { mark, wall_us, mono_ns } = *self;
        Stretch { content, end: 0, event: mark.event, wall_us, mono_ns }
    }
}

impl Framer {
    pub(super) fn new() -> Self {
        Self {
            streams: HashMap::default(),
            between: None,
            datagrams: Connections::default(),
            unfinished: 0,
            is_damaged: false,
        }
    }

    /// Marks these connections as connections of datagrams. Needed if reading starts after the
    /// events that opened them.
    pub(super) fn opened_before(&mut self, datagrams: Connections) {
        self.datagrams = datagrams;
    }

    /// The earliest position at which an unfinished record began. A restart must read from there.
    pub(super) fn earliest_begin(&self) -> Option<Mark> {
        self.streams.values().filter_map(|stream| stream.begin).min()
    }

    /// The position at which the unfinished record of an event's stream began.
    pub(super) fn begin_of(&self, head: &Head) -> Option<Mark> {
        self.streams.get(&(head.connection, head.direction))?.begin
    }

    /// Records that a stretch of the file was unreadable.
    pub(super) fn damaged(&mut self) {
        self.is_damaged = true;
    }

    /// If true, an event consists of whole lines of UTF-8 text that all end with LF or CR LF, or
    /// with CR before the last one, and none is too long. Then these lines are its records, and the
    /// event must not be passed to [`Self::event`]. False also for an event that is longer than a
    /// line may be, and for the first one of a stream.
    #[inline]
    pub(super) fn is_whole_lines(
        &mut self,
        head: &Head,
        payload: &[u8],
        config: &CaptureConfig,
    ) -> bool {
        let key = (head.connection, head.direction);
        if head.kind != Kind::Data
            || payload.last() != Some(&b'\n')
            || payload.len() > config.max_line
            || (self.between.is_none_or(|(last, _)| last != key) && !self.is_between(key))
        {
            return false;
        }
        let Some((_, expected)) = &mut self.between else { return false };
        if (self.is_damaged && head.position > *expected) || std::str::from_utf8(payload).is_err() {
            return false;
        }
        *expected = head.position + payload.len() as u64;
        true
    }

    /// Whether a stream, other than the last event's, is between two lines. It becomes the last
    /// one.
    fn is_between(&mut self, key: StreamKey) -> bool {
        self.store_expected();
        let stream = self.streams.get(&key).filter(|stream| stream.is_between_lines());
        let is_stream = self.datagrams.is_empty() || !self.datagrams.contains(&key.0);
        self.between = stream.filter(|_| is_stream).map(|stream| (key, stream.expected));
        self.between.is_some()
    }

    /// Stores the position of the last event's stream with the stream.
    fn store_expected(&mut self) {
        if let Some((key, expected)) = self.between.take()
            && let Some(stream) = self.streams.get_mut(&key)
        {
            stream.expected = expected;
        }
    }

    /// Stages the records that an event completes.
    pub(super) fn event(
        &mut self,
        head: &Head,
        payload: &[u8],
        at: At,
        (config, staged): (&CaptureConfig, &mut Staged),
    ) {
        self.store_expected();
        let key = (head.connection, head.direction);
        match head.kind {
            Kind::Open => {
                if head.flags & FLAG_REPEATED == 0 {
                    for direction in [Direction::In, Direction::Out] {
                        self.reject((head.connection, direction), CUT_OFF, at, staged);
                        self.streams.remove(&(head.connection, direction));
                    }
                }
                let info = ConnectionInfo::decode(payload).unwrap_or_default();
                match info.protocol {
                    Protocol::Udp => self.datagrams.insert(head.connection),
                    _ => self.datagrams.remove(&head.connection),
                };
            }
            Kind::Data if config.has_direction(head) => {
                if self.datagrams.contains(&head.connection) {
                    self.datagram(head, payload, at, (config, staged));
                } else {
                    self.bytes(head, payload, at, (config, staged));
                }
            }
            Kind::HalfClose if config.has_direction(head) => {
                self.finish(key, at, (config, staged));
            }
            Kind::Reset => {
                for direction in [Direction::In, Direction::Out] {
                    self.reject((head.connection, direction), CUT_OFF, at, staged);
                }
            }
            Kind::Close => {
                for direction in [Direction::In, Direction::Out] {
                    self.finish((head.connection, direction), at, (config, staged));
                    self.streams.remove(&(head.connection, direction));
                }
                self.datagrams.remove(&head.connection);
            }
            Kind::Gap if config.has_direction(head) => {
                self.reject(key, MISSING, at, staged);
                self.skip_to_line_end(key, at);
            }
            _ => {}
        }
    }

    /// Rejects all unfinished records. Called at the end of the recording.
    pub(super) fn end(&mut self, at: At, staged: &mut Staged) {
        self.between = None;
        let mut keys: Vec<StreamKey> = self.streams.keys().copied().collect();
        keys.sort_by_key(|(connection, direction)| (*connection, *direction as u8));
        for key in keys {
            self.reject(key, NOT_WHOLE, at, staged);
        }
        self.streams.clear();
    }

    fn datagram(
        &mut self,
        head: &Head,
        payload: &[u8],
        at: At,
        (config, staged): (&CaptureConfig, &mut Staged),
    ) {
        let key = (head.connection, head.direction);
        let is_part = head.flags & FLAG_MORE != 0;
        let stream = self.streams.get_mut(&key);
        if let Some((length, _)) = stream.and_then(|stream| stream.rejected.as_mut()) {
            // Parts of this datagram were dropped to bound the memory of unfinished records.
            *length += payload.len() as u64;
            if !is_part {
                self.reject(key, NO_ROOM, at, staged);
                self.streams.remove(&key);
            }
            return;
        }
        if head.flags & FLAG_CUT != 0 {
            // The end is missing in the recording, so the parts before it are no record either.
            let parts = self.streams.remove(&key).unwrap_or_default().partial;
            self.unfinished -= parts.len();
            staged.bytes.extend(parts.iter().chain(payload).take(KEPT_BYTES));
            let (length, reason) = ((parts.len() + payload.len()) as u64, CUT_DATAGRAM);
            staged.push(at.stretch(Content::Rejected { length, reason }));
            return;
        }
        // Guards against a damaged file: no datagram is longer than this. A part that does not fit
        // counts as the last one.
        let has_room = |stream: &Stream| stream.partial.len() + payload.len() <= DATAGRAM_BYTES;
        if is_part && self.streams.get(&key).is_none_or(has_room) {
            let stream = self.streams.entry(key).or_default();
            stream.begin.get_or_insert(at.mark);
            stream.partial.extend_from_slice(payload);
            self.unfinished += payload.len();
            self.limit_all(config);
            return;
        }
        let start = staged.bytes.len();
        if let Some(stream) = self.streams.remove(&key) {
            self.unfinished -= stream.partial.len();
            staged.bytes.extend_from_slice(&stream.partial);
        }
        staged.bytes.extend_from_slice(payload);
        if !config.datagram_lines {
            let whole = without_end(&staged.bytes[start..]);
            staged.bytes.truncate(start + whole);
            staged.push(at.stretch(Content::Record));
            return;
        }
        config.ends.close(&mut staged.bytes[start..]);
        match staged.bytes[start..].last() {
            None => return,
            Some(b'\n') => {}
            Some(_) => staged.bytes.push(b'\n'),
        }
        let is_text = std::str::from_utf8(&staged.bytes[start..]).is_ok();
        staged.push(at.stretch(Content::Lines { is_text }));
    }

    fn bytes(
        &mut self,
        head: &Head,
        payload: &[u8],
        at: At,
        (config, staged): (&CaptureConfig, &mut Staged),
    ) {
        let key = (head.connection, head.direction);
        if self.is_damaged {
            let expected = self.streams.get(&key).map_or(0, |stream| stream.expected);
            if head.position > expected {
                self.reject(key, MISSING, at, staged);
                self.skip_to_line_end(key, at);
            }
        }
        if self.streams.len() >= STREAMS && !self.streams.contains_key(&key) {
            self.streams.retain(|_, stream| stream.begin.is_some());
        }
        let stream = self.streams.entry(key).or_default();
        stream.expected = head.position + payload.len() as u64;
        let mut bytes = payload;
        if config.ends == LineEnds::Any {
            if stream.after_cr && bytes.first() == Some(&b'\n') {
                bytes = &bytes[1..];
                stream.begin = None;
            }
            let Some(last) = payload.last() else { return };
            stream.after_cr = *last == b'\r';
        }
        let Some(last) = config.ends.last(bytes) else {
            if let Some((length, _)) = &mut stream.rejected {
                *length += bytes.len() as u64;
            } else if !bytes.is_empty() {
                stream.begin.get_or_insert(at.mark);
                stream.partial.extend_from_slice(bytes);
                self.unfinished += bytes.len();
                self.limit(key, config);
            }
            return;
        };
        let (mut whole, rest) = bytes.split_at(last + 1);
        if let Some((length, reason)) = stream.rejected.take() {
            let first = config.ends.first(whole).unwrap_or(last);
            let length = length + first as u64;
            staged.bytes.extend_from_slice(&stream.partial);
            staged.push(at.stretch(Content::Rejected { length, reason }));
            self.unfinished -= stream.partial.len();
            stream.partial.clear();
            let end = match config.ends {
                LineEnds::Any => LineEnds::length(whole, first),
                LineEnds::Lf => 1,
            };
            whole = &whole[first + end..];
        }
        let start = staged.bytes.len();
        staged.bytes.extend_from_slice(&stream.partial);
        self.unfinished -= stream.partial.len();
        stream.partial.clear();
        stream.begin = None;
        staged.bytes.extend_from_slice(whole);
        if staged.bytes.len() > start {
            config.ends.close(&mut staged.bytes[start..]);
            let is_text = std::str::from_utf8(&staged.bytes[start..]).is_ok();
            staged.push(at.stretch(Content::Lines { is_text }));
        }
        if !rest.is_empty() {
            stream.partial.extend_from_slice(rest);
            self.unfinished += rest.len();
        }
        // A line feed that follows a carriage return belongs to it, so a restart must see both.
        if !rest.is_empty() || stream.after_cr {
            stream.begin = Some(at.mark);
        }
        if self.unfinished > config.max_unfinished || stream.partial.len() > config.max_line {
            self.limit(key, config);
        }
    }

    /// Rejects a stream's unfinished line if it is too long, and then applies the limit of all
    /// streams.
    fn limit(&mut self, key: StreamKey, config: &CaptureConfig) {
        if let Some(stream) = self.streams.get_mut(&key)
            && stream.partial.len() > config.max_line
        {
            self.unfinished -= give_up(stream, TOO_LONG);
        }
        self.limit_all(config);
    }

    /// Rejects the longest unfinished records of all streams while their sum exceeds the limit.
    fn limit_all(&mut self, config: &CaptureConfig) {
        while self.unfinished > config.max_unfinished {
            let open = self.streams.values_mut().filter(|stream| stream.rejected.is_none());
            let Some(stream) = open.max_by_key(|stream| stream.partial.len()) else { return };
            self.unfinished -= give_up(stream, NO_ROOM);
        }
    }

    /// Handles the end of a stream. Its unfinished line, if there is one, becomes a record or is
    /// rejected, depending on the options. A line that is rejected already stays so.
    fn finish(&mut self, key: StreamKey, at: At, (config, staged): (&CaptureConfig, &mut Staged)) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let is_whole = stream.rejected.is_none() && !stream.partial.is_empty();
        if !is_whole || !config.keeps_last_line {
            return self.reject(key, CUT_OFF, at, staged);
        }
        self.unfinished -= stream.partial.len();
        let start = staged.bytes.len();
        staged.bytes.append(&mut stream.partial);
        staged.bytes.push(b'\n');
        (stream.begin, stream.after_cr) = (None, false);
        let is_text = std::str::from_utf8(&staged.bytes[start..]).is_ok();
        staged.push(at.stretch(Content::Lines { is_text }));
    }

    /// Rejects the unfinished record of a stream.
    fn reject(&mut self, key: StreamKey, reason: &'static str, at: At, staged: &mut Staged) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        self.unfinished -= stream.partial.len();
        let partial = std::mem::take(&mut stream.partial);
        let rejected = stream.rejected.take();
        (stream.begin, stream.after_cr) = (None, false);
        if rejected.is_none() && partial.is_empty() {
            return;
        }
        let (length, reason) = rejected.unwrap_or((partial.len() as u64, reason));
        staged.bytes.extend_from_slice(&partial[..partial.len().min(KEPT_BYTES)]);
        staged.push(at.stretch(Content::Rejected { length, reason }));
    }

    /// Skips the bytes up to the next line end, because the beginning of their line is missing.
    fn skip_to_line_end(&mut self, key: StreamKey, at: At) {
        if self.datagrams.contains(&key.0) {
            return;
        }
        let stream = self.streams.entry(key).or_default();
        stream.rejected = Some((0, MISSING));
        stream.begin = Some(at.mark);
    }
}

/// Drops a rejected record's bytes except the first ones, which the report shows. Returns the
/// number of bytes released.
fn give_up(stream: &mut Stream, reason: &'static str) -> usize {
    let length = stream.partial.len();
    stream.rejected = Some((length as u64, reason));
    stream.partial.truncate(KEPT_BYTES);
    stream.partial.shrink_to_fit();
    length - stream.partial.len()
}

/// The length of a datagram without one trailing `\n` or `\r\n`. Many senders append one.
fn without_end(datagram: &[u8]) -> usize {
    let rest = datagram.strip_suffix(b"\n").unwrap_or(datagram);
    rest.strip_suffix(b"\r").filter(|_| rest.len() < datagram.len()).unwrap_or(rest).len()
}
