//! The recordings of a capture, merged by time.
//!
//! Each recording counts its connections from 0, and has a monotonic clock of its own. Here the
//! connections of all recordings are numbered on, in the order of their starts, and all times are
//! nanoseconds since 1970. Recordings that overlap in time are interleaved.
//!
//! *Memory.* One reader for each recording that has begun and not ended at a time, and the next
//! event of each.

use super::events::{Opened, Selection, open};
use crate::failure::Failure;
use millstream_engine::capture::{
    CaptureReader, Damage, Direction, FLAG_CUT, FLAG_MORE, FLAG_REPEATED, Head, Item, Kind, Place,
    Timeline,
};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The maximum number of damaged parts of a file that are reported.
const DAMAGE_MAX: usize = 1000;

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "cap")
}

/// The files of each recording. The segments of a query's log are one recording: each start of the
/// query goes on with the numbers of the log.
fn recordings(files: &[PathBuf]) -> Result<Vec<Range<usize>>, Failure> {
    let (mut found, mut last) = (Vec::<Range<usize>>::new(), (0, false));
    for (index, path) in files.iter().enumerate() {
        let this = (open(path)?.header().recording, is_segment(path));
        let is_log = this.1 && last.1;
        match found.last_mut() {
            Some(recording) if is_log || (this.0 != 0 && this.0 == last.0) => {
                recording.end = index + 1;
            }
            _ => found.push(index..index + 1),
        }
        last = this;
    }
    Ok(found)
}

/// The number of connections of a recording.
fn connections_of(files: &[PathBuf]) -> Result<u32, Failure> {
    let mut connections = 0;
    for path in files {
        let mut reader = open(path)?;
        while let Some(item) = reader.next_item()? {
            if let Item::Event(head, _) = item
                && head.kind != Kind::Note
            {
                connections = connections.max(head.connection.saturating_add(1));
            }
        }
    }
    Ok(connections)
}

/// Receives the selected events.
struct Out<'a, F> {
    selection: &'a Selection,
    opened: Opened,
    take: F,
    damage: Vec<(PathBuf, Damage)>,
    /// The monotonic and the wall-clock time of the last event that was taken.
    last_ns: (u64, i64),
}

/// Converts the events of a recording to events of the whole capture.
struct Joined {
    timeline: Timeline,
    /// The number of connection 0.
    first_connection: u32,
    /// The number of connections so far.
    connections: u32,
    /// The connections whose events were taken and that are still open, by their numbers in the
    /// whole capture.
    known: BTreeSet<u32>,
    /// The open events of the current file that were not taken; `None` if it is not known yet which
    /// there are.
    earlier: Option<Opens>,
}

/// Open events and their payloads, by the number of the connection in its file.
type Opens = HashMap<u32, (Head, Vec<u8>)>;

impl Joined {
    /// Passes on an event of a file, if it is selected. `place` is its place in the file.
    fn event<F>(
        &mut self,
        (file, path): (usize, &Path),
        place: Place,
        (own, payload): (&Head, &[u8]),
        out: &mut Out<'_, F>,
    ) -> Result<(), Failure>
    where
        F: FnMut(usize, &Head, &[u8]) -> Result<(), Failure>,
    {
        let connection = self.first_connection.saturating_add(own.connection);
        if own.kind != Kind::Note {
            self.connections = self.connections.max(own.connection.saturating_add(1));
        }
        let head = Head { connection, mono_ns: self.timeline.time_ns(own.mono_ns), ..*own };
        if !out.selection.takes(&head) {
            if let Some(opens) = &mut self.earlier {
                match own.kind {
                    Kind::Open => drop(opens.insert(own.connection, (*own, payload.to_vec()))),
                    Kind::Close => drop(opens.remove(&own.connection)),
                    _ => {}
                }
            }
            return Ok(());
        }
        let is_first = self.note(&head, out);
        let repeats = out.opened == Opened::WithOpen && out.selection.from.is_some();
        if is_first && repeats && head.kind != Kind::Open {
            let opens = match &mut self.earlier {
                Some(opens) => opens,
                None => self.earlier.insert(opens_before(path, place)?),
            };
            if let Some((open, payload)) = opens.remove(&own.connection) {
                let (mono_ns, wall_ns, connection) = (head.mono_ns, head.wall_ns, head.connection);
                let flags = open.flags | FLAG_REPEATED;
                (out.take)(file, &Head { mono_ns, wall_ns, connection, flags, ..open }, &payload)?;
            }
        }
        (out.take)(file, &head, payload)
    }

    /// Notes an event that is taken. Returns whether it is the first one of its connection.
    fn note<F>(&mut self, head: &Head, out: &mut Out<'_, F>) -> bool {
        if head.kind == Kind::Note {
            return false;
        }
        out.last_ns = (head.mono_ns.max(out.last_ns.0), head.wall_ns);
        match head.kind {
            Kind::Close => !self.known.remove(&head.connection),
            _ => self.known.insert(head.connection),
        }
    }
}

/// The open events of a file before an event, without those of connections that are closed by then.
fn opens_before(path: &Path, place: Place) -> Result<Opens, Failure> {
    let (mut reader, mut opens) = (open(path)?, Opens::new());
    let is_before = |at: Place| (at.block, at.index) < (place.block, place.index);
    while is_before(reader.place())
        && let Some(item) = reader.next_item()?
    {
        let Item::Event(head, payload) = item else { continue };
        match head.kind {
            Kind::Open => drop(opens.insert(head.connection, (head, payload.to_vec()))),
            Kind::Close => drop(opens.remove(&head.connection)),
            _ => {}
        }
    }
    Ok(opens)
}

/// A recording that is being read.
struct Stream<'f> {
    files: &'f [PathBuf],
    /// The indices of the recording's files, from the current one on.
    range: Range<usize>,
    reader: CaptureReader<File>,
    /// Reading starts at this time, if earlier events are not needed for the numbers of connections.
    from: Option<i64>,
    joined: Joined,
    /// The next event, if it was read and is later than those of other recordings.
    ahead: Option<(Head, Vec<u8>, Place)>,
    /// The time of the next event, or a time before it.
    time_ns: u64,
    /// The number of damaged parts of the current file.
    damaged: usize,
}

impl<'f> Stream<'f> {
    fn open(files: &'f [PathBuf], range: Range<usize>, from: Option<i64>) -> Result<Self, Failure> {
        let mut reader = open(&files[range.start])?;
        let time_ns = u64::try_from(reader.header().start_wall_ns).unwrap_or(0);
        if let Some(from) = from {
            reader.seek_wall_ns(from)?;
        }
        let joined = Joined {
            timeline: Timeline::of_file(files, range.start)?,
            first_connection: 0,
            connections: 0,
            known: BTreeSet::new(),
            earlier: None,
        };
        Ok(Self { files, range, reader, from, joined, ahead: None, time_ns, damaged: 0 })
    }

    /// Moves to the next file. Returns false if there is none.
    fn next_file(&mut self) -> Result<bool, Failure> {
        if self.range.len() <= 1 {
            return Ok(false);
        }
        self.range.start += 1;
        self.reader = open(&self.files[self.range.start])?;
        if !self.joined.timeline.includes(self.reader.header()) {
            self.joined.timeline = Timeline::of_file(self.files, self.range.start)?;
        }
        if let Some(from) = self.from {
            self.reader.seek_wall_ns(from)?;
        }
        (self.joined.earlier, self.damaged) = (None, 0);
        Ok(true)
    }

    /// Passes on the events up to a time. Returns false at the end of the recording.
    fn run<F>(&mut self, until_ns: u64, out: &mut Out<'_, F>) -> Result<bool, Failure>
    where
        F: FnMut(usize, &Head, &[u8]) -> Result<(), Failure>,
    {
        let mut is_whole = true;
        if let Some((head, payload, place)) = self.ahead.take() {
            is_whole = ends_a_write(&head);
            let file = (self.range.start, self.files[self.range.start].as_path());
            self.joined.event(file, place, (&head, &payload), out)?;
        }
        loop {
            let (place, index) = (self.reader.place(), self.range.start);
            let path = self.files[index].as_path();
            let Some(item) = self.reader.next_item()? else {
                match self.next_file()? {
                    true => continue,
                    false => return Ok(false),
                }
            };
            let (head, payload) = match item {
                Item::Event(head, payload) => (head, payload),
                Item::Damage(damage) => {
                    self.damaged += 1;
                    if self.damaged <= DAMAGE_MAX {
                        out.damage.push((path.to_path_buf(), damage));
                    }
                    continue;
                }
            };
            // An event without a time follows the one before it.
            let time_ns = self.joined.timeline.time_ns(head.mono_ns).max(self.time_ns);
            if time_ns > until_ns && is_whole {
                self.time_ns = time_ns;
                self.ahead = Some((head, payload.to_vec(), place));
                return Ok(true);
            }
            (self.time_ns, is_whole) = (time_ns, ends_a_write(&head));
            self.joined.event((index, path), place, (&head, payload), out)?;
        }
    }
}

/// Whether the next event of the connection is not a part of the same write or datagram.
fn ends_a_write(head: &Head) -> bool {
    head.kind != Kind::Data || head.flags & (FLAG_MORE | FLAG_CUT) == 0
}

/// Calls a function with the selected events of the files of a capture, ordered by time, and with the
/// index of the file of each. The events of a recording keep their order. Returns the damaged parts
/// that were read; only the first ones of a file if it has many.
pub(super) fn read(
    files: &[PathBuf],
    selection: &Selection,
    opened: Opened,
    take: impl FnMut(usize, &Head, &[u8]) -> Result<(), Failure>,
) -> Result<Vec<(PathBuf, Damage)>, Failure> {
    let mut out = Out { selection, opened, take, damage: Vec::new(), last_ns: (0, 0) };
    let recordings = recordings(files)?;
    let begin = |at: usize| -> Result<Option<Stream<'_>>, Failure> {
        let Some(range) = recordings.get(at) else { return Ok(None) };
        // The numbers of connections depend on how many the earlier recordings have, so these are
        // read in full.
        let from = selection.from.filter(|_| at + 1 == recordings.len());
        Stream::open(files, range.clone(), from).map(Some)
    };
    let mut counts = vec![None; recordings.len()];
    let (mut active, mut next) = (Vec::<(usize, Stream<'_>)>::new(), begin(0)?);
    let mut begun = 0;
    loop {
        let earliest = (0..active.len()).min_by_key(|at| active[*at].1.time_ns);
        let begins =
            |next: &mut Stream<'_>| earliest.is_none_or(|at| next.time_ns < active[at].1.time_ns);
        if let Some(mut stream) = next.take_if(begins) {
            stream.joined.first_connection =
                connections_before(&mut counts[..begun], files, &recordings)?;
            active.push((begun, stream));
            begun += 1;
            next = begin(begun)?;
            continue;
        }
        let Some(at) = earliest else { break };
        let others = active.iter().enumerate().filter(|(other, _)| *other != at);
        let others = others.map(|(_, (_, other))| other.time_ns);
        let until_ns = others.chain(next.as_ref().map(|next| next.time_ns)).min();
        if active[at].1.run(until_ns.unwrap_or(u64::MAX), &mut out)? {
            continue;
        }
        let (index, ended) = active.remove(at);
        counts[index] = Some(ended.joined.connections);
        if !active.is_empty() || next.is_some() {
            close_all(&ended, &mut out)?;
        }
    }
    Ok(out.damage)
}

/// The number of connections of the first recordings. One that has not ended is counted by reading
/// it.
fn connections_before(
    counts: &mut [Option<u32>],
    files: &[PathBuf],
    recordings: &[Range<usize>],
) -> Result<u32, Failure> {
    let mut connections = 0u32;
    for (count, range) in counts.iter_mut().zip(recordings) {
        let known = match *count {
            Some(known) => known,
            None => *count.insert(connections_of(&files[range.clone()])?),
        };
        connections = connections.saturating_add(known);
    }
    Ok(connections)
}

/// Closes the connections that a recording has left open, because another recording goes on.
fn close_all<F>(ended: &Stream<'_>, out: &mut Out<'_, F>) -> Result<(), Failure>
where
    F: FnMut(usize, &Head, &[u8]) -> Result<(), Failure>,
{
    let (mono_ns, wall_ns) = out.last_ns;
    for connection in ended.joined.known.iter().copied() {
        let head = Head {
            position: 0,
            lines: 0,
            mono_ns,
            wall_ns,
            connection,
            direction: Direction::In,
            kind: Kind::Close,
            flags: 0,
        };
        (out.take)(ended.range.start, &head, &[])?;
    }
    Ok(())
}
