//! The files of a capture, and the selection of its events.

use crate::capture::import::DirectionArg;
use crate::capture::times;
use crate::failure::Failure;
use clap::Args as ClapArgs;
use millstream_engine::capture::{CaptureReader, Damage, Direction, Head, Kind, capture_files};
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
    use crate::capture::merge::read;
    use millstream_engine::capture::{Existing, FileHeader, Recording, Rotation, WriterOptions};

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

    /// Three recordings with clocks of their own. The second one begins within the first one and ends
    /// after it; the third one follows.
    fn overlapping(name: &str) -> Folder {
        let folder = Folder::new(name);
        let at = |number, kind, ms: u64, clock: u64| {
            head(kind, number, clock + ms * 1_000_000, 1_000_000_000 + ms as i64 * 1_000_000)
        };
        let first = |number, kind, ms| at(number, kind, ms, 7);
        let second = |number, kind, ms| at(number, kind, ms, 5_000_000_000);
        folder.add(
            "a.capture",
            1,
            &[
                first(0, Kind::Open, 0),
                first(0, Kind::Data, 20),
                first(1, Kind::Open, 40),
                first(1, Kind::Data, 60),
                first(0, Kind::Close, 61),
            ],
        );
        folder.add(
            "b.capture",
            2,
            &[
                second(0, Kind::Open, 30),
                second(0, Kind::Data, 50),
                second(0, Kind::Data, 50),
                second(0, Kind::Data, 70),
            ],
        );
        folder.add("c.capture", 3, &[at(0, Kind::Open, 80, 0)]);
        folder
    }

    #[test]
    fn recordings_that_overlap_are_interleaved_by_time() {
        let at = |ms: u64| 1_000_000_000 + ms * 1_000_000;
        let all = [
            (Kind::Open, 0, at(0)),
            (Kind::Data, 0, at(20)),
            (Kind::Open, 2, at(30)),
            (Kind::Open, 1, at(40)),
            (Kind::Data, 2, at(50)),
            (Kind::Data, 2, at(50)),
            (Kind::Data, 1, at(60)),
            (Kind::Close, 0, at(61)),
            // The first recording has ended and has left its connection 1 open.
            (Kind::Close, 1, at(61)),
            (Kind::Data, 2, at(70)),
            (Kind::Close, 2, at(70)),
            (Kind::Open, 3, at(80)),
        ];
        let folder = overlapping("overlapping");
        assert_eq!(folder.read(&Selection::default()), all);
        // The numbers do not depend on the selection.
        let selection = Selection { connection: vec![2], ..Selection::default() };
        let second = all.iter().copied().filter(|(_, connection, _)| *connection == 2);
        assert_eq!(folder.read(&selection), second.collect::<Vec<_>>());
        let selection = Selection { from: Some(at(65) as i64), ..Selection::default() };
        let later = [
            (Kind::Open, 2, at(70)),
            (Kind::Data, 2, at(70)),
            (Kind::Close, 2, at(70)),
            (Kind::Open, 3, at(80)),
        ];
        assert_eq!(folder.read(&selection), later);
    }

    #[test]
    fn a_datagram_of_several_events_is_not_interleaved() {
        use millstream_engine::capture::FLAG_MORE;
        let folder = Folder::new("datagrams");
        let event = |number, at: u64, flags| Head {
            flags,
            ..head(Kind::Data, number, at, 1_000 + at as i64)
        };
        folder.add("a.capture", 1, &[event(0, 1, 0), event(0, 10, FLAG_MORE), event(0, 30, 0)]);
        folder.add("b.capture", 2, &[event(0, 20, 0), event(0, 40, 0)]);
        let times = folder.read(&Selection::default()).into_iter();
        let times: Vec<(u32, u64)> = times.map(|(_, number, at)| (number, at - 1_000)).collect();
        assert_eq!(times, [(0, 1), (0, 10), (0, 30), (0, 30), (1, 20), (1, 40)]);
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
