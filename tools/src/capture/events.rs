//! The events of capture files, filtered for the commands.

use crate::capture::import::DirectionArg;
use crate::capture::times;
use crate::failure::Failure;
use clap::Args as ClapArgs;
use millstream_engine::capture::{
    CaptureReader, Damage, Direction, FLAG_REPEATED, FileHeader, Head, Item, Kind, Place, Timeline,
    capture_files,
};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The events of a capture that a command reads.
#[derive(ClapArgs, Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Only events at or after this time, such as 2026-03-01T12:30:00Z
    #[arg(long, value_name = "TIME", value_parser = times::parse_wall_ns)]
    pub from: Option<i64>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = times::parse_wall_ns)]
    pub to_time: Option<i64>,
    /// Only data in this direction: `in` is towards the recorded service
    #[arg(long, value_enum)]
    pub direction: Option<DirectionArg>,
    /// Only this connection; may be repeated
    #[arg(long, value_name = "N")]
    pub connection: Vec<u32>,
}

impl std::fmt::Debug for DirectionArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.direction() == Direction::In { "in" } else { "out" })
    }
}

impl Selection {
    /// Whether the selection includes an event.
    pub(crate) fn takes(&self, head: &Head) -> bool {
        let is_whole = matches!(head.kind, Kind::Open | Kind::Close | Kind::Note);
        self.from.is_none_or(|from| head.wall_ns >= from)
            && self.to_time.is_none_or(|to| head.wall_ns < to)
            && (self.connection.is_empty()
                || head.kind == Kind::Note
                || self.connection.contains(&head.connection))
            && (is_whole || self.direction.is_none_or(|d| d.direction() == head.direction))
    }
}

/// The files of a path: the file itself, or the captures in a folder in the order of recording. An
/// error if a folder has none.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let files = capture_files(path)?;
    if files.is_empty() {
        let reason = format!(
            "NOT_A_CAPTURE: {} has no capture (.cap, .capture) and no checkpoint",
            path.display()
        );
        return Err(Failure::Wrong(reason));
    }
    Ok(files)
}

/// Opens a file. An invalid file is an error of the command line.
pub(crate) fn open(path: &Path) -> Result<CaptureReader<std::fs::File>, Failure> {
    CaptureReader::open(path).map_err(|error| Failure::Wrong(error.to_string()))
}

/// The recordings of a folder as one capture. Each recording counts its connections from 0, and has
/// a monotonic clock of its own; here the connections of all recordings are numbered on, and all
/// times are nanoseconds since 1970. The segments of a query's log are one recording: each start of
/// the query goes on with the numbers of the log.
#[derive(Default)]
struct Joined {
    /// The timeline of the current recording.
    timeline: Option<Timeline>,
    /// The number of connection 0 of the current recording.
    first_connection: u32,
    /// The number of connections so far.
    connections: u32,
    /// The connections whose events were taken and that are still open.
    known: BTreeSet<u32>,
    /// The monotonic and the wall-clock time of the last event that was taken.
    last_ns: (u64, i64),
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "cap")
}

impl Joined {
    /// Starts a file. Returns a close event for each connection that the previous recording has left
    /// open, if the file belongs to another one.
    fn begin(
        &mut self,
        files: &[PathBuf],
        index: usize,
        header: &FileHeader,
    ) -> Result<Vec<Head>, Failure> {
        if self.timeline.is_some_and(|timeline| timeline.includes(header)) {
            return Ok(Vec::new());
        }
        self.timeline = Some(Timeline::of_file(files, index)?);
        if index == 0 || (is_segment(&files[index]) && is_segment(&files[index - 1])) {
            return Ok(Vec::new());
        }
        self.first_connection = self.connections;
        let (mono_ns, wall_ns) = self.last_ns;
        let close = |connection| Head {
            position: 0,
            lines: 0,
            mono_ns,
            wall_ns,
            connection,
            direction: Direction::In,
            kind: Kind::Close,
            flags: 0,
        };
        Ok(std::mem::take(&mut self.known).into_iter().map(close).collect())
    }

    /// An event of the current file as one of the whole capture.
    fn event(&mut self, head: &Head) -> Head {
        let connection = self.first_connection.saturating_add(head.connection);
        if head.kind != Kind::Note {
            self.connections = self.connections.max(connection.saturating_add(1));
        }
        let mono_ns = self.timeline.map_or(head.mono_ns, |timeline| timeline.time_ns(head.mono_ns));
        Head { connection, mono_ns, ..*head }
    }

    /// Notes an event that is taken. Returns whether it is the first one of its connection.
    fn take(&mut self, head: &Head) -> bool {
        if head.kind == Kind::Note {
            return false;
        }
        self.last_ns = (head.mono_ns.max(self.last_ns.0), head.wall_ns);
        match head.kind {
            Kind::Close => !self.known.remove(&head.connection),
            _ => self.known.insert(head.connection),
        }
    }
}

/// What is taken of a connection that was opened before the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Its selected events.
    AsSelected,
    /// Its open event too: it is repeated, as at the start of a rotated file, before the
    /// connection's first selected event. Without it the protocol and the addresses of the
    /// connection would be unknown.
    WithOpen,
}

/// Calls a function with the selected events of the files of a capture, in order, and with the index
/// of the file of each. Returns the damaged parts that were read; only the first ones of a file if
/// it has many.
pub(crate) fn read(
    files: &[PathBuf],
    selection: &Selection,
    opened: Opened,
    mut take: impl FnMut(usize, &Head, &[u8]) -> Result<(), Failure>,
) -> Result<Vec<(PathBuf, Damage)>, Failure> {
    let (mut joined, mut damage) = (Joined::default(), Vec::new());
    let last_recording = match selection.from {
        Some(_) => begin_of_last_recording(files)?,
        None => files.len(),
    };
    for (index, path) in files.iter().enumerate() {
        let mut reader = open(path)?;
        for close in joined.begin(files, index, reader.header())? {
            take(index, &close, &[])?;
        }
        // The numbers of connections depend on how many the earlier recordings have, so these are
        // read in full.
        if let Some(from) = selection.from.filter(|_| index >= last_recording) {
            reader.seek_wall_ns(from)?;
        }
        let take = |head: &Head, payload: &[u8]| take(index, head, payload);
        let found = read_file(path, &mut reader, selection, opened, &mut joined, take)?;
        damage.extend(found.into_iter().map(|damage| (path.clone(), damage)));
    }
    Ok(damage)
}

/// The index of the first file of the last recording.
fn begin_of_last_recording(files: &[PathBuf]) -> Result<usize, Failure> {
    let Some(mut begin) = files.len().checked_sub(1) else { return Ok(0) };
    let recording = open(&files[begin])?.header().recording;
    while begin > 0 {
        let before = &files[begin - 1];
        let is_log = is_segment(before) && is_segment(&files[begin]);
        if !is_log && (recording == 0 || open(before)?.header().recording != recording) {
            break;
        }
        begin -= 1;
    }
    Ok(begin)
}

/// Reads the events of a file from the reader's place on. Returns the damaged parts.
fn read_file(
    path: &Path,
    reader: &mut CaptureReader<std::fs::File>,
    selection: &Selection,
    opened: Opened,
    joined: &mut Joined,
    mut take: impl FnMut(&Head, &[u8]) -> Result<(), Failure>,
) -> Result<Vec<Damage>, Failure> {
    const DAMAGE_MAX: usize = 1000;
    let (mut damage, mut earlier) = (Vec::new(), None::<Opens>);
    loop {
        let place = reader.place();
        let Some(item) = reader.next_item()? else { return Ok(damage) };
        let (own, payload) = match item {
            Item::Event(own, payload) => (own, payload),
            Item::Damage(what) => {
                if damage.len() < DAMAGE_MAX {
                    damage.push(what);
                }
                continue;
            }
        };
        let head = joined.event(&own);
        if !selection.takes(&head) {
            if let Some(opens) = earlier.as_mut().filter(|_| own.kind == Kind::Open) {
                opens.insert(own.connection, (own, payload.to_vec()));
            }
            continue;
        }
        let is_first = joined.take(&head);
        let repeats = opened == Opened::WithOpen && selection.from.is_some();
        if is_first && repeats && head.kind != Kind::Open {
            let opens = match &mut earlier {
                Some(opens) => opens,
                None => earlier.insert(opens_before(path, place)?),
            };
            if let Some((open, payload)) = opens.remove(&own.connection) {
                let (mono_ns, wall_ns, connection) = (head.mono_ns, head.wall_ns, head.connection);
                let flags = open.flags | FLAG_REPEATED;
                take(&Head { mono_ns, wall_ns, connection, flags, ..open }, &payload)?;
            }
        }
        take(&head, payload)?;
    }
}

/// Open events and their payloads, by the number of the connection in its file.
type Opens = HashMap<u32, (Head, Vec<u8>)>;

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

/// Returns an error that describes the damage, if there is any.
pub(crate) fn complain(damage: &[(PathBuf, Damage)]) -> Result<(), Failure> {
    if damage.is_empty() {
        return Ok(());
    }
    let lines = damage.iter().map(|(path, damage)| {
        let events = match damage.events {
            Some(1) => "; 1 event is missing".to_string(),
            Some(events) => format!("; {events} events are missing"),
            None => String::new(),
        };
        let (at, until, what) = (damage.at, damage.until, damage.what);
        format!("CAPTURE_DAMAGED: {} (at bytes {at} to {until}): {what}{events}", path.display())
    });
    Err(Failure::Failed(lines.collect::<Vec<_>>().join("\nerror: ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::capture::{Existing, Recording, Rotation, WriterOptions};

    fn head(kind: Kind, connection: u32, mono_ns: u64, wall_ns: i64) -> Head {
        Head {
            position: 0,
            lines: 0,
            mono_ns,
            wall_ns,
            connection,
            direction: Direction::In,
            kind,
            flags: 0,
        }
    }

    /// A folder of captures, deleted on drop.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("millstream-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        /// Adds a file whose recording begins with its first event.
        fn add(&self, name: &str, recording: u64, events: &[Head]) {
            let header = FileHeader {
                recording,
                start_wall_ns: events[0].wall_ns,
                start_mono_ns: events[0].mono_ns,
                ..FileHeader::default()
            };
            let (options, path) = (WriterOptions { header, compress: false }, self.0.join(name));
            let mut file =
                Recording::create(&path, &options, Rotation::default(), Existing::Keep).unwrap();
            events.iter().for_each(|event| file.append(event, &[]).unwrap());
            file.finish().unwrap();
        }

        /// The kinds, connections and times of the selected events.
        fn read(&self, selection: &Selection) -> Vec<(Kind, u32, u64)> {
            let mut found = Vec::new();
            let take = |_, head: &Head, _: &[u8]| {
                found.push((head.kind, head.connection, head.mono_ns));
                Ok(())
            };
            read(&files(&self.0).unwrap(), selection, Opened::WithOpen, take).unwrap();
            found
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    const LATER: i64 = 10_000_001_000;

    /// Two recordings. The second program started 10 s later, and its monotonic clock is another
    /// one. Neither has closed its connection.
    fn two_recordings(name: &str) -> Folder {
        let folder = Folder::new(name);
        for (recording, wall_ns, mono_ns) in [(7, 1_000, 500), (8, LATER, 40)] {
            let open = head(Kind::Open, 0, mono_ns, wall_ns);
            let data = head(Kind::Data, 0, mono_ns + 5, wall_ns + 5);
            folder.add(&format!("{recording}.capture"), recording, &[open, data]);
        }
        folder
    }

    #[test]
    fn the_recordings_of_a_folder_follow_each_other() {
        let folder = two_recordings("joined");
        let second = [(Kind::Open, 1, LATER as u64), (Kind::Data, 1, LATER as u64 + 5)];
        let first = [(Kind::Open, 0, 1_000), (Kind::Data, 0, 1_005), (Kind::Close, 0, 1_005)];
        assert_eq!(folder.read(&Selection::default()), [&first[..], &second].concat());
    }

    #[test]
    fn the_number_of_a_connection_does_not_depend_on_the_selection() {
        let folder = two_recordings("joined-from");
        let from = Selection { from: Some(LATER + 5), ..Selection::default() };
        // Its open event is repeated.
        let later = LATER as u64 + 5;
        assert_eq!(folder.read(&from), [(Kind::Open, 1, later), (Kind::Data, 1, later)]);
        // The recording has marks behind its first part, so a search can skip that.
        let folder = Folder::new("joined-marks");
        let mut events = Vec::new();
        for number in 0..50_000 {
            events.push(head(Kind::Open, number, 500 + u64::from(number), 1_000));
            events.push(head(Kind::Close, number, 500 + u64::from(number), 1_000));
        }
        folder.add("7.capture", 7, &events);
        folder.add("8.capture", 8, &[head(Kind::Open, 0, 40, LATER)]);
        let from = Selection { from: Some(LATER), ..Selection::default() };
        assert_eq!(folder.read(&from), [(Kind::Open, 50_000, LATER as u64)]);
    }

    #[test]
    fn a_connection_that_was_left_open_ends_with_its_last_selected_event() {
        let folder = Folder::new("joined-ends");
        let open = |number, mono_ns| head(Kind::Open, number, mono_ns, 1_000 + mono_ns as i64);
        folder.add("7.capture", 7, &[open(0, 500), open(1, 900)]);
        folder.add("8.capture", 8, &[head(Kind::Open, 0, 40, LATER)]);
        let selection = Selection { connection: vec![0], ..Selection::default() };
        let selected = [(Kind::Open, 0, 1_500), (Kind::Close, 0, 1_500)];
        assert_eq!(folder.read(&selection), selected);
        let selection = Selection { to_time: Some(1_900), ..Selection::default() };
        assert_eq!(folder.read(&selection), selected);
    }

    #[test]
    fn a_log_goes_on_with_its_numbers_after_a_restart() {
        let folder = Folder::new("joined-log");
        let open = head(Kind::Open, 0, 500, 1_000);
        folder.add("0000000000.cap", 7, &[open]);
        folder.add(
            "0000000001.cap",
            8,
            &[head(Kind::Open, 1, 40, LATER), head(Kind::Data, 1, 0, LATER)],
        );
        let later = LATER as u64;
        // A time of 0 is unknown.
        let all = [(Kind::Open, 0, 1_000), (Kind::Open, 1, later), (Kind::Data, 1, 0)];
        assert_eq!(folder.read(&Selection::default()), all);
        let from = Selection { from: Some(LATER), ..Selection::default() };
        assert_eq!(folder.read(&from), all[1..]);
    }
}
