//! The events of capture files, filtered for the commands.

use crate::capture::import::DirectionArg;
use crate::capture::times;
use crate::failure::Failure;
use clap::Args as ClapArgs;
use millstream_engine::capture::{
    CaptureReader, Damage, Direction, FLAG_REPEATED, FileHeader, Head, Item, Kind, capture_files,
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
/// a monotonic clock of its own; here the connections of all recordings are numbered on, and their
/// times continue as the wall clock did.
#[derive(Default)]
pub(crate) struct Joined {
    /// The recording of the current file; 0 for a file of version 1, which is one of its own.
    recording: Option<u64>,
    /// The number of connection 0 of the current recording.
    first_connection: u32,
    /// The number of connections so far.
    connections: u32,
    /// The difference of the wall clock and the monotonic clock of the first recording, in
    /// nanoseconds.
    base_ns: Option<i64>,
    /// Nanoseconds that are added to the monotonic times of the current recording.
    shift_ns: i64,
    /// The connections whose events were taken and that are still open.
    known: BTreeSet<u32>,
    /// The monotonic and the wall-clock time of the last event.
    last_ns: (u64, i64),
}

impl Joined {
    /// Starts a file. Returns a close event for each connection that the previous recording has left
    /// open, if the file belongs to another one.
    fn begin(&mut self, header: &FileHeader) -> Vec<Head> {
        let is_same = self.recording == Some(header.recording) && header.recording != 0;
        let is_first = self.recording.replace(header.recording).is_none();
        if is_same {
            return Vec::new();
        }
        self.first_connection = self.connections;
        if header.start_wall_ns != 0 {
            let base_ns = header.start_wall_ns.wrapping_sub_unsigned(header.start_mono_ns);
            self.shift_ns = base_ns.wrapping_sub(*self.base_ns.get_or_insert(base_ns));
        }
        if is_first {
            return Vec::new();
        }
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
        std::mem::take(&mut self.known).into_iter().map(close).collect()
    }

    /// An event of the current file as one of the whole capture.
    fn event(&mut self, head: &Head) -> Head {
        let connection = self.first_connection.saturating_add(head.connection);
        let mono_ns = head.mono_ns.saturating_add_signed(self.shift_ns);
        if head.kind != Kind::Note {
            self.connections = self.connections.max(connection.saturating_add(1));
            self.last_ns = (mono_ns, head.wall_ns);
        }
        Head { connection, mono_ns, ..*head }
    }
}

/// Calls a function with the selected events of a file, in order. Returns the damaged parts that
/// were read; only the first ones if there are many. Reading begins at a mark before the
/// selection's start. `joined` is kept for all files of a capture.
pub(crate) fn read(
    path: &Path,
    selection: &Selection,
    joined: &mut Joined,
    mut take: impl FnMut(&Head, &[u8]) -> Result<(), Failure>,
) -> Result<Vec<Damage>, Failure> {
    const DAMAGE_MAX: usize = 1000;
    let mut reader = open(path)?;
    for close in joined.begin(reader.header()) {
        take(&close, &[])?;
    }
    if let Some(from) = selection.from {
        reader.seek_wall_ns(from)?;
    }
    let mut damage = Vec::new();
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(head, payload) => {
                let head = joined.event(&head);
                if selection.takes(&head) {
                    match head.kind {
                        Kind::Note => {}
                        Kind::Close => drop(joined.known.remove(&head.connection)),
                        _ => drop(joined.known.insert(head.connection)),
                    }
                    take(&head, payload)?;
                }
            }
            Item::Damage(what) if damage.len() < DAMAGE_MAX => damage.push(what),
            Item::Damage(_) => {}
        }
    }
    Ok(damage)
}

/// Like [`read`], but a selection that starts within connections includes their open events: each is
/// repeated, as at the start of a rotated file, before the connection's first selected event.
/// Without them the protocols and the addresses of the connections would be unknown.
pub(crate) fn read_opened(
    path: &Path,
    selection: &Selection,
    joined: &mut Joined,
    mut take: impl FnMut(&Head, &[u8]) -> Result<(), Failure>,
) -> Result<Vec<Damage>, Failure> {
    let mut known = joined.known.clone();
    let mut earlier = None;
    // The numbers and times of this file, which begins below.
    let mut this_file = Joined { known: BTreeSet::new(), ..*joined };
    this_file.begin(open(path)?.header());
    read(path, selection, joined, |head, payload| {
        let is_new = match head.kind {
            Kind::Note => false,
            Kind::Close => !known.remove(&head.connection),
            _ => known.insert(head.connection),
        };
        if is_new && head.kind != Kind::Open && selection.from.is_some() {
            let opens = match &mut earlier {
                Some(opens) => opens,
                None => {
                    let mono_ns = head.mono_ns.saturating_add_signed(-this_file.shift_ns);
                    earlier.insert(opens_until(path, mono_ns)?)
                }
            };
            let number = head.connection.checked_sub(this_file.first_connection);
            if let Some((open, payload)) = number.and_then(|number| opens.remove(&number)) {
                let (mono_ns, wall_ns, connection) = (head.mono_ns, head.wall_ns, head.connection);
                let flags = open.flags | FLAG_REPEATED;
                take(&Head { mono_ns, wall_ns, connection, flags, ..open }, &payload)?;
            }
        }
        take(head, payload)
    })
}

/// The open events of a file up to a monotonic time, without those of connections that are closed
/// by then.
fn opens_until(path: &Path, mono_ns: u64) -> Result<HashMap<u32, (Head, Vec<u8>)>, Failure> {
    let (mut reader, mut opens) = (open(path)?, HashMap::new());
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(head, _) if head.mono_ns > mono_ns => break,
            Item::Event(head, payload) if head.kind == Kind::Open => {
                opens.insert(head.connection, (head, payload.to_vec()));
            }
            Item::Event(head, _) if head.kind == Kind::Close && head.mono_ns < mono_ns => {
                opens.remove(&head.connection);
            }
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

    fn head(kind: Kind, mono_ns: u64, wall_ns: i64) -> Head {
        Head {
            position: 0,
            lines: 0,
            mono_ns,
            wall_ns,
            connection: 0,
            direction: Direction::In,
            kind,
            flags: 0,
        }
    }

    #[test]
    fn the_recordings_of_a_folder_follow_each_other() {
        let folder = std::env::temp_dir().join(format!("millstream-joined-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // The second program started 10 s later, and its monotonic clock is another one. The first
        // one has not closed its connection.
        for (recording, wall_ns, mono_ns) in [(7, 1_000, 500), (8, 10_000_001_000, 40)] {
            let path = folder.join(format!("{recording}.capture"));
            let header = FileHeader {
                recording,
                start_wall_ns: wall_ns,
                start_mono_ns: mono_ns,
                ..FileHeader::default()
            };
            let options = WriterOptions { header, compress: false };
            let mut file =
                Recording::create(&path, &options, Rotation::default(), Existing::Keep).unwrap();
            file.append(&head(Kind::Open, mono_ns, wall_ns), &[]).unwrap();
            file.append(&head(Kind::Data, mono_ns + 5, wall_ns + 5), b"half").unwrap();
            file.finish().unwrap();
        }
        let read_all = |selection: &Selection| {
            let (mut joined, mut found) = (Joined::default(), Vec::new());
            for file in files(&folder).unwrap() {
                let take = |head: &Head, _: &[u8]| {
                    found.push((head.kind, head.connection, head.mono_ns));
                    Ok(())
                };
                read_opened(&file, selection, &mut joined, take).unwrap();
            }
            found
        };
        let second = [(Kind::Open, 1, 10_000_000_500), (Kind::Data, 1, 10_000_000_505)];
        let first = [(Kind::Open, 0, 500), (Kind::Data, 0, 505), (Kind::Close, 0, 505)];
        assert_eq!(read_all(&Selection::default()), [&first[..], &second].concat());
        let from = Selection { from: Some(10_000_001_005), ..Selection::default() };
        assert_eq!(read_all(&from)[1..], second[1..], "its open event is repeated before");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
