//! The option `record`: a thread writes the bytes that a source reads to a capture file.
//!
//! The worker copies the bytes that it has read into a buffer, in the form that they have in the
//! file. It passes buffers that are full or [`HELD_NS`] old to a thread of the recorder, which adds the
//! CRCs and writes the buffer without another copy (with rotation or compression from a copy). The
//! thread sleeps until it gets a buffer. The number of buffers is limited. If the disk is too slow and
//! no buffer is free, received bytes are not recorded: they are counted, and the capture has a gap.
//!
//! *Threads.* [`Recorder`] belongs to the source's worker. *Durability.* A crash of the process
//! loses the events whose buffers are not written: those of the last [`HELD_NS`], and those that
//! wait for the disk. The file is synced when the recording ends, so a crash of the machine may lose
//! more.

use crate::connect::socket::connection_counts::ConnectionCounts;
use crate::connect::socket::durable_log::Ingest;
use crate::connect::socket::options::Record;
use crossbeam_channel::{Receiver, Sender, bounded};
use millstream_engine::capture::{
    Clock, ConnectionInfo, Direction, EventBuffer, Existing, FileHeader, Gap, GapCause, Head, Kind,
    MAX_EVENT_BYTES, Protocol, Recording, WriterOptions,
};
use millstream_engine::env::Env;
use millstream_engine::error::EngineError;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Maximum number of buffers. They are created when they are needed: while the disk keeps up, few
/// are used, and these stay in the processor's caches.
const BUFFERS: usize = 64;
/// Number of encoded bytes at which a buffer is handed over.
const BUFFER_BYTES: usize = 256 << 10;
/// Maximum time that recorded events stay in a buffer that is not full, in nanoseconds.
const HELD_NS: u64 = 50_000_000;
/// Number of connections with missing parts above which connections that are missing as a whole are
/// left out of the capture. It bounds the memory while the disk is stuck.
const MISSING_CONNECTIONS: usize = 4096;

/// The part of a connection that was not recorded.
struct Missing {
    /// Stream position of the first byte.
    position: u64,
    bytes: u64,
    /// The payload of its open event, if that was not recorded either.
    open: Option<Vec<u8>>,
    /// The events of its end that were not recorded, with their stream positions.
    end: Vec<(Kind, u64)>,
}

/// Records the bytes that a source reads, and their connections.
pub(super) struct Recorder {
    filling: EventBuffer,
    /// When the first event of `filling` was recorded.
    since_ns: u64,
    /// The time of the last event. The records of a read have the same time in the query as in the
    /// capture.
    last: Ingest,
    full: Option<Sender<EventBuffer>>,
    free: Receiver<EventBuffer>,
    /// Number of buffers that may still be created.
    uncreated: usize,
    /// Stream position of each open connection.
    positions: BTreeMap<u32, u64>,
    /// For each connection, the part that was not recorded since the last recorded event.
    missing: BTreeMap<u32, Missing>,
    next_connection: u32,
    env: Arc<dyn Env>,
    counts: Arc<ConnectionCounts>,
    writer: Option<JoinHandle<()>>,
}

/// Creates the file of a recording: its path or, if there is such a file, the path with a number from
/// 2 before its extension, so that an earlier recording is not overwritten. With rotation this is the
/// path from which the names of the files are formed.
fn create(record: &Record, header: FileHeader) -> Result<Recording, EngineError> {
    let options = WriterOptions { header, compress: record.compress };
    let path = &record.path;
    let extension = path.extension().map(|end| end.to_string_lossy().into_owned());
    let numbered = |number: u32| match &extension {
        Some(end) => path.with_extension(format!("{number}.{end}")),
        None => path.with_extension(number.to_string()),
    };
    let mut candidate = path.clone();
    let mut numbers = 2..;
    loop {
        match Recording::create(&candidate, &options, record.rotation, Existing::Keep) {
            Ok(recording) => return Ok(recording),
            Err(error) => match numbers.next() {
                Some(number) if error.kind() == io::ErrorKind::AlreadyExists => {
                    candidate = numbered(number);
                }
                _ => {
                    return Err(EngineError::operator(
                        "RECORDING_UNWRITABLE",
                        format!("cannot record to {}: {error}", candidate.display()),
                        "Check the path of option 'record', its rights and its disk",
                    ));
                }
            },
        }
    }
}

impl Recorder {
    /// Creates the file and starts the thread that writes it.
    pub(super) fn start(
        record: &Record,
        env: Arc<dyn Env>,
        counts: Arc<ConnectionCounts>,
    ) -> Result<Self, EngineError> {
        let header = FileHeader {
            clock: Clock::Read,
            precision_ns: 1000,
            start_wall_ns: env.wall_us().saturating_mul(1000),
            start_mono_ns: env.now_ns(),
            recording: env.random(),
            ..FileHeader::default()
        };
        let recording = create(record, header)?;
        let (full, written) = bounded(BUFFERS);
        let (returned, free) = bounded(BUFFERS);
        let counted = counts.clone();
        let run = move || write(recording, &written, &returned, &counted);
        let writer = env.spawn("socket-recorder".to_string(), Box::new(run))?;
        Ok(Self {
            filling: EventBuffer::default(),
            since_ns: 0,
            last: Ingest { ns: header.start_mono_ns, us: header.start_wall_ns / 1000 },
            full: Some(full),
            free,
            // One buffer is being filled; the others are free or at the writer.
            uncreated: BUFFERS - 1,
            positions: BTreeMap::new(),
            missing: BTreeMap::new(),
            next_connection: 0,
            env,
            counts,
            writer: Some(writer),
        })
    }

    /// The time of the last event.
    pub(super) fn last(&self) -> Ingest {
        self.last
    }

    fn read_clocks(&mut self) {
        self.last = Ingest { ns: self.env.now_ns(), us: self.env.wall_us() };
    }

    /// Records the start of a connection. Returns its number in the recording.
    pub(super) fn opened(&mut self, info: &ConnectionInfo) -> u32 {
        self.read_clocks();
        let connection = self.next_connection;
        self.next_connection += 1;
        self.positions.insert(connection, 0);
        self.event(Kind::Open, connection, 0, &info.encode());
        connection
    }

    /// Records bytes that were read.
    pub(super) fn read(&mut self, connection: u32, bytes: &[u8]) {
        self.read_clocks();
        let position = self.positions.entry(connection).or_default();
        let mut at = *position;
        *position += bytes.len() as u64;
        for piece in bytes.chunks(MAX_EVENT_BYTES) {
            self.event(Kind::Data, connection, at, piece);
            at += piece.len() as u64;
        }
    }

    /// Records a datagram. All datagrams of a source count as one connection.
    pub(super) fn datagram(&mut self, datagram: &[u8]) {
        if self.next_connection == 0 {
            // The connection has no address, because its datagrams come from many peers.
            self.opened(&ConnectionInfo { protocol: Protocol::Udp, ..ConnectionInfo::default() });
        }
        self.read_clocks();
        let position = self.positions.entry(0).or_default();
        let at = *position;
        *position += datagram.len() as u64;
        self.event(Kind::Data, 0, at, datagram);
    }

    /// Records the end of a connection.
    pub(super) fn ended(&mut self, connection: u32, was_reset: bool) {
        self.read_clocks();
        let position = self.positions.remove(&connection).unwrap_or_default();
        let kind = if was_reset { Kind::Reset } else { Kind::HalfClose };
        self.event(kind, connection, position, &[]);
        self.event(Kind::Close, connection, position, &[]);
    }

    /// Passes recorded events to the writer if they have waited long enough. Returns when to call
    /// this again if events wait. Call this when the source has read no bytes.
    pub(super) fn idle(&mut self, now_ns: u64) -> Option<u64> {
        if self.filling.is_empty() {
            if self.missing.is_empty() {
                return None;
            }
            if self.free.is_empty() && self.uncreated == 0 {
                return Some(now_ns + HELD_NS);
            }
            // The disk has caught up. The gaps do not wait for the next read.
            self.hand_over();
            return None;
        }
        let due_ns = self.since_ns + HELD_NS;
        if now_ns < due_ns {
            return Some(due_ns);
        }
        self.hand_over();
        None
    }

    fn event(&mut self, kind: Kind, connection: u32, position: u64, payload: &[u8]) {
        let at = self.last;
        if self.filling.is_empty() {
            self.since_ns = at.ns;
        }
        self.filling.push(&head(kind, connection, position, at), payload);
        let is_full =
            self.filling.bytes() >= BUFFER_BYTES || at.ns.saturating_sub(self.since_ns) >= HELD_NS;
        if is_full {
            self.hand_over();
        }
    }

    /// Records gaps for the bytes that were not recorded, and the starts and ends of connections
    /// that were not. They precede the events of `filling`, which are later. Call this when a
    /// buffer is free: otherwise these events would only be dropped again.
    fn note_missing(&mut self) {
        if self.missing.is_empty() {
            return;
        }
        let later = std::mem::take(&mut self.filling);
        let at = later.iter().next().map_or(self.last, |(first, _)| Ingest {
            ns: first.mono_ns,
            us: first.wall_ns.div_euclid(1000),
        });
        for (connection, missing) in std::mem::take(&mut self.missing) {
            let Missing { position, bytes, open, end } = missing;
            if let Some(open) = open {
                self.filling.push(&head(Kind::Open, connection, 0, at), &open);
            }
            if bytes > 0 {
                let gap = Gap::of_bytes(bytes, GapCause::Dropped).encode();
                self.filling.push(&head(Kind::Gap, connection, position, at), &gap);
            }
            for (kind, position) in end {
                self.filling.push(&head(kind, connection, position, at), &[]);
            }
        }
        self.filling.extend(&later);
    }

    /// A buffer that can be filled; `None` if all of them are at the writer.
    fn free_buffer(&mut self) -> Option<EventBuffer> {
        let returned = self.free.try_recv().ok();
        returned.or_else(|| {
            self.uncreated = self.uncreated.checked_sub(1)?;
            Some(EventBuffer::default())
        })
    }

    /// Hands the buffer to the writer and takes a free one. If none is free, the events are dropped
    /// and counted, and a gap is recorded later. If the writer has ended, they are only counted.
    fn hand_over(&mut self) {
        let next = self.full.is_some().then(|| self.free_buffer()).flatten();
        match (&self.full, next) {
            (Some(full), Some(next)) => {
                let full = full.clone();
                self.note_missing();
                // The channel has room for every buffer, so this fails only if the writer has
                // panicked.
                if let Err(error) = full.try_send(std::mem::replace(&mut self.filling, next)) {
                    // Nothing can be recorded any more, so nothing waits to be.
                    self.full = None;
                    self.dropped(&error.into_inner());
                    self.missing.clear();
                }
            }
            _ => {
                let mut events = std::mem::take(&mut self.filling);
                self.dropped(&events);
                if self.full.is_none() {
                    self.missing.clear();
                }
                events.clear();
                self.filling = events;
            }
        }
    }

    /// Counts events that are not recorded, and notes what must be recorded in their place.
    fn dropped(&mut self, events: &EventBuffer) {
        count_lost(events.iter(), &self.counts);
        for (head, payload) in events.iter() {
            let position = head.position;
            let nothing = || Missing { position, bytes: 0, open: None, end: Vec::new() };
            let missing = self.missing.entry(head.connection).or_insert_with(nothing);
            match head.kind {
                Kind::Data => missing.bytes += payload.len() as u64,
                Kind::Gap => missing.bytes += Gap::decode(payload).map_or(0, |gap| gap.bytes),
                Kind::Open => missing.open = Some(payload.to_vec()),
                Kind::HalfClose | Kind::Reset | Kind::Close => {
                    missing.end.push((head.kind, position));
                }
                _ => {}
            }
            let is_whole = head.kind == Kind::Close && missing.open.is_some();
            if is_whole && self.missing.len() > MISSING_CONNECTIONS {
                self.missing.remove(&head.connection);
            }
        }
    }
}

fn head(kind: Kind, connection: u32, position: u64, at: Ingest) -> Head {
    Head {
        position,
        lines: 0,
        mono_ns: at.ns,
        wall_ns: at.us.saturating_mul(1000),
        connection,
        direction: Direction::In,
        kind,
        flags: 0,
    }
}

/// Counts the reads and datagrams among events that are lost. The bytes of a gap are counted
/// already.
fn count_lost<'e>(events: impl Iterator<Item = (Head, &'e [u8])>, counts: &ConnectionCounts) {
    let lost = events.filter(|(head, _)| head.kind == Kind::Data);
    let (events, bytes) =
        lost.fold((0, 0), |(events, bytes), (_, data)| (events + 1, bytes + data.len() as u64));
    counts.record_dropped(events, bytes);
}

impl Drop for Recorder {
    /// Hands over the last events and waits until they are written. Called at the end of the query.
    fn drop(&mut self) {
        if let Some(full) = self.full.take() {
            self.note_missing();
            drop(full.send(std::mem::take(&mut self.filling)));
        }
        if let Some(writer) = self.writer.take() {
            // The runtime has printed the panic.
            drop(writer.join());
        }
    }
}

/// Writes buffers until the source has ended. After a write error nothing more is written: the
/// events that are not in the file are counted as lost, and so are all later ones.
fn write(
    mut recording: Recording,
    full: &Receiver<EventBuffer>,
    returned: &Sender<EventBuffer>,
    counts: &ConnectionCounts,
) {
    // The header is written at once, so that the file is a capture from its beginning.
    let mut has_failed = recording.flush().is_err();
    let is_buffered = recording.is_buffered();
    for mut events in full {
        let mut written = 0;
        if !has_failed {
            let outcome = recording.append_buffer(&mut events);
            has_failed = outcome.is_err();
            written = outcome.map_or_else(|unwritten| unwritten.written, |()| events.len());
            // With rotation or compression the events may still be in memory.
            if is_buffered && recording.flush().is_err() {
                (has_failed, written) = (true, 0);
            }
        }
        counts.recorded(written as u64);
        if written < events.len() {
            count_lost(events.iter().skip(written), counts);
        }
        events.clear();
        drop(returned.try_send(events));
    }
    if !has_failed {
        // All events are in the file. Without its end the file is read as after a crash.
        drop(recording.finish());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::capture::Rotation;
    use millstream_engine::env::RealEnv;
    use std::path::Path;

    /// A recorder whose writer is the test.
    fn recorder() -> (Recorder, Receiver<EventBuffer>, Sender<EventBuffer>) {
        let (full, written) = bounded(BUFFERS);
        let (returned, free) = bounded(BUFFERS);
        let recorder = Recorder {
            filling: EventBuffer::default(),
            since_ns: 0,
            full: Some(full),
            free,
            uncreated: 0,
            positions: BTreeMap::new(),
            missing: BTreeMap::new(),
            next_connection: 0,
            last: Ingest { ns: 0, us: 0 },
            env: Arc::new(RealEnv::default()),
            counts: Arc::default(),
            writer: None,
        };
        (recorder, written, returned)
    }

    #[test]
    fn bytes_that_could_not_be_written_are_recorded_as_a_gap() {
        let (mut recorder, written, returned) = recorder();
        let lost = vec![b'x'; BUFFER_BYTES];
        for connection in [0, 1] {
            assert_eq!(recorder.opened(&ConnectionInfo::default()), connection);
        }
        // No buffer is free: both starts and these bytes are not recorded.
        recorder.read(1, &lost);
        assert_eq!(recorder.counts.totals().record_dropped_bytes, lost.len() as u64);
        returned.send(EventBuffer::default()).unwrap();
        recorder.read(1, b"abc");
        recorder.hand_over();
        let events = written.recv().unwrap();
        let wanted = [
            (Kind::Open, 0, 0),
            (Kind::Open, 1, 0),
            (Kind::Gap, 1, 0),
            (Kind::Data, 1, lost.len() as u64),
        ];
        assert_eq!(heads(&events), wanted);
        let gap = Gap::decode(events.iter().nth(2).unwrap().1).unwrap();
        assert_eq!(gap, Gap::of_bytes(lost.len() as u64, GapCause::Dropped));
    }

    #[test]
    fn missing_connections_are_bounded_while_no_buffer_is_free() {
        let (mut recorder, _written, _returned) = recorder();
        for _ in 0..3 * MISSING_CONNECTIONS {
            let connection = recorder.opened(&ConnectionInfo::default());
            recorder.read(connection, b"abc");
            recorder.ended(connection, false);
        }
        recorder.hand_over();
        assert!(recorder.missing.len() <= MISSING_CONNECTIONS, "{}", recorder.missing.len());
        let counted = recorder.counts.totals();
        let connections = 3 * MISSING_CONNECTIONS as u64;
        assert_eq!(counted.record_dropped, connections);
        assert_eq!(counted.record_dropped_bytes, 3 * connections);
    }

    #[test]
    fn a_gap_is_recorded_when_a_buffer_is_free_though_nothing_more_is_read() {
        let (mut recorder, written, returned) = recorder();
        recorder.opened(&ConnectionInfo::default());
        recorder.read(0, b"abc");
        recorder.hand_over();
        assert_eq!(recorder.idle(0), Some(HELD_NS), "no buffer is free");
        returned.send(EventBuffer::default()).unwrap();
        assert_eq!(recorder.idle(HELD_NS), None);
        assert_eq!(heads(&written.recv().unwrap()), [(Kind::Open, 0, 0), (Kind::Gap, 0, 0)]);
        assert_eq!(recorder.idle(HELD_NS), None);
    }

    fn heads(events: &EventBuffer) -> Vec<(Kind, u32, u64)> {
        events.iter().map(|(head, _)| (head.kind, head.connection, head.position)).collect()
    }

    #[test]
    fn events_that_the_disk_does_not_take_are_counted_one_by_one() {
        let recording = Recording::create(
            Path::new("/dev/full"),
            &WriterOptions::default(),
            Rotation::default(),
            Existing::Keep,
        );
        // Only some systems have this file.
        let Ok(recording) = recording else { return };
        let (mut recorder, written, returned) = recorder();
        (0..3).for_each(|_| returned.send(EventBuffer::default()).unwrap());
        for _ in 0..2 {
            let connection = recorder.opened(&ConnectionInfo::default());
            recorder.read(connection, b"abc");
            recorder.read(connection, b"de");
            recorder.ended(connection, false);
            recorder.hand_over();
        }
        recorder.read(9, b"fghi");
        let counts = recorder.counts.clone();
        drop(recorder);
        write(recording, &written, &returned, &counts);
        let totals = counts.totals();
        let found = (totals.recorded, totals.record_dropped, totals.record_dropped_bytes);
        assert_eq!(found, (0, 5, 14));
    }

    #[test]
    fn a_close_that_could_not_be_written_is_recorded_later() {
        let (mut recorder, written, returned) = recorder();
        recorder.opened(&ConnectionInfo::default());
        recorder.opened(&ConnectionInfo::default());
        returned.send(EventBuffer::default()).unwrap();
        recorder.hand_over();
        drop(written.recv().unwrap());
        // No buffer is free.
        recorder.read(0, b"abc");
        recorder.ended(0, false);
        recorder.ended(1, true);
        recorder.hand_over();
        // The query ends, and nothing is read before.
        drop(recorder);
        let wanted = [
            (Kind::Gap, 0, 0),
            (Kind::HalfClose, 0, 3),
            (Kind::Close, 0, 3),
            (Kind::Reset, 1, 0),
            (Kind::Close, 1, 0),
        ];
        assert_eq!(heads(&written.recv().unwrap()), wanted);
    }
}
