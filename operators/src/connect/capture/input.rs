//! The files of a recording, read one after the other.

use super::config::CaptureConfig;
use super::offset::Mark;
use millstream_engine::capture::{
    CaptureReader, Damage, FileHeader, Head, Item, Summary, Timeline, capture_files,
};
use millstream_engine::error::EngineError;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The result of reading the next event.
pub(super) enum Next {
    Event,
    Damage(Damage, PathBuf),
    End,
}

/// The files of a recording and the reader of the current one.
pub(super) struct Input {
    files: Vec<PathBuf>,
    file: u32,
    reader: CaptureReader<File>,
    timeline: Timeline,
    /// The number of events before the next one, as the marks count them: also those that are
    /// missing or damaged.
    event: u64,
    /// Finds marks ahead of `reader`, in the file with this index.
    ahead: Option<(u32, CaptureReader<File>)>,
}

/// The files of a path: the file itself, or all captures in a folder in the order of recording.
fn files(path: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let files = capture_files(path).map_err(|error| {
        let reason = format!("cannot read {}: {error}", path.display());
        EngineError::operator("CAPTURE_UNREADABLE", reason, "Check the path and its permissions")
    })?;
    if files.is_empty() {
        let reason = format!("{} contains no capture (.cap, .capture)", path.display());
        return Err(EngineError::operator("NOT_A_CAPTURE", reason, "Check the path"));
    }
    Ok(files)
}

/// Fails if a recording goes on after the next one has begun: an offset names a place in one file, so
/// recordings are read one after the other.
fn refuse_overlaps(files: &[PathBuf]) -> Result<(), EngineError> {
    let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "cap");
    for (at, pair) in files.windows(2).enumerate() {
        let [path, next_path] = pair else { continue };
        let (mut reader, next) = (CaptureReader::open(path)?, CaptureReader::open(next_path)?);
        let (header, next) = (reader.header(), next.header());
        let is_log = is_segment(path) && is_segment(next_path);
        let is_same = header.recording != 0 && header.recording == next.recording;
        // A file of version 1 does not say when it begins.
        if is_log || is_same || next.start_wall_ns == 0 {
            continue;
        }
        let (start_ns, timeline) = (next.start_wall_ns, Timeline::of_file(files, at)?);
        reader.seek_wall_ns(start_ns)?;
        while let Some(item) = reader.next_item()? {
            let Item::Event(head, _) = item else { continue };
            // The wall clock may have been set in between. Then the clocks disagree, and nothing is
            // known.
            let time_ns = i64::try_from(timeline.time_ns(head.mono_ns)).unwrap_or(i64::MAX);
            if head.wall_ns > start_ns && time_ns > start_ns {
                let (path, next_path) = (path.display(), next_path.display());
                return Err(EngineError::operator(
                    "CAPTURES_OVERLAP",
                    format!(
                        "{path} goes on after {next_path} has begun: the source reads recordings one after the other"
                    ),
                    "Read each recording with a source of its own, or make one of them: `millstream \
                     export FOLDER --format pcapng`, then `millstream import-pcap`",
                ));
            }
        }
    }
    Ok(())
}

impl Input {
    /// Opens the recording at its beginning, or shortly before the option `from`.
    pub(super) fn open(config: &CaptureConfig) -> Result<Self, EngineError> {
        let files = files(&config.path)?;
        refuse_overlaps(&files)?;
        let mut file = 0;
        if let Some(from_ns) = config.from_ns {
            // With several files, starts at the last one that begins at or before the time.
            while let Some(next) = files.get(file + 1)
                && CaptureReader::open(next)?.header().start_wall_ns <= from_ns
                && CaptureReader::open(next)?.header().start_wall_ns != 0
            {
                file += 1;
            }
        }
        let mut reader = CaptureReader::open(&files[file])?;
        if let Some(from_ns) = config.from_ns {
            reader.seek_wall_ns(from_ns)?;
        }
        let timeline = Timeline::of_file(&files, file)?;
        Ok(Self { files, file: file as u32, reader, timeline, event: 0, ahead: None })
    }

    /// The header of the current file.
    pub(super) fn header(&self) -> &FileHeader {
        self.reader.header()
    }

    /// Whether reading started after the beginning of the recording.
    pub(super) fn started_late(&self) -> bool {
        let place = self.reader.place();
        place.events_before + place.index > 0
    }

    /// The path of the current file. A file repeats the open events of connections that are open at
    /// its start.
    pub(super) fn current_file(&self) -> &Path {
        &self.files[self.file as usize]
    }

    /// The position of the next event.
    pub(super) fn mark(&self) -> Mark {
        Mark { event: self.event, file: self.file, place: self.reader.place() }
    }

    /// The number of the event at a mark that follows in the current file within so many bytes, and
    /// the largest wall-clock time before it. It is computed from the counts of the marks, so that
    /// no event has to be read. `None` if there is no such mark.
    pub(super) fn event_at_mark(&mut self, bytes: u64) -> Result<Option<(u64, i64)>, EngineError> {
        if self.header().stride_bytes == 0 {
            return Ok(None);
        }
        let place = self.reader.place();
        let mut ahead = match self.ahead.take() {
            Some((file, reader)) if file == self.file => reader,
            _ => CaptureReader::open(self.current_file())?,
        };
        let totals = ahead.totals_between(place.block, place.block.saturating_add(bytes));
        self.ahead = Some((self.file, ahead));
        let unread = |totals: &Summary| totals.events.saturating_sub(place.events_before);
        let found = totals?.filter(|totals| unread(totals) > 0);
        Ok(found.map(|found| (self.event.saturating_add(unread(&found)), found.wall_ns_max)))
    }

    /// Seeks to a position that [`Self::mark`] returned.
    pub(super) fn go_to(&mut self, mark: Mark) -> Result<(), EngineError> {
        let Some(path) = self.files.get(mark.file as usize) else {
            let reason = format!("the capture has no file {} any more", mark.file);
            let fix = "Restore the files of the capture, or start with an empty checkpoint";
            return Err(EngineError::operator("CAPTURE_CHANGED", reason, fix));
        };
        self.reader = CaptureReader::open(path)?;
        self.reader.go_to_place(mark.place)?;
        self.timeline = Timeline::of_file(&self.files, mark.file as usize)?;
        (self.file, self.event) = (mark.file, mark.event);
        self.ahead = None;
        Ok(())
    }

    /// Reads the next event or damaged stretch, also from the next file, and calls `visit` with an
    /// event. Its monotonic time is converted to nanoseconds since 1970, on the timeline of its
    /// recording. `End` after the last file.
    pub(super) fn next(
        &mut self,
        visit: impl FnOnce(&Head, &[u8]) -> Result<(), EngineError>,
    ) -> Result<Next, EngineError> {
        loop {
            match self.reader.next_item()? {
                Some(Item::Event(mut head, payload)) => {
                    self.event += 1;
                    head.mono_ns = self.timeline.time_ns(head.mono_ns);
                    return visit(&head, payload).map(|()| Next::Event);
                }
                Some(Item::Damage(damage)) => {
                    // The count in a damaged file may have any value.
                    self.event = self.event.saturating_add(damage.events.unwrap_or(1));
                    let path = self.files[self.file as usize].clone();
                    return Ok(Next::Damage(damage, path));
                }
                None => {}
            }
            let next = self.file as usize + 1;
            let Some(path) = self.files.get(next) else {
                self.event += 1;
                return Ok(Next::End);
            };
            self.reader = CaptureReader::open(path)?;
            if !self.timeline.includes(self.reader.header()) {
                self.timeline = Timeline::of_file(&self.files, next)?;
            }
            self.file += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::capture::{CaptureWriter, Direction, Kind, WriterOptions};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A folder of captures, deleted on drop.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("millstream-capture-input-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// Adds a file with events of these wall and monotonic times.
        fn add(&self, header: FileHeader, events: &[(i64, u64)]) {
            let number = std::fs::read_dir(&self.0).unwrap().count();
            let file = File::create(self.0.join(format!("{number}.capture"))).unwrap();
            let options = WriterOptions { header, compress: false };
            let mut writer = CaptureWriter::new(file, &options).unwrap();
            for (wall_ns, mono_ns) in events.iter().copied() {
                let (direction, kind) = (Direction::In, Kind::Data);
                let (position, lines, connection, flags) = (0, 0, 0, 0);
                #[rustfmt::skip]
                let head = Head {
                    position, lines, mono_ns, wall_ns, connection, direction, kind, flags,
                };
                writer.append(&head, b"line\n").unwrap();
            }
            writer.finish().unwrap();
        }

        fn open(&self) -> Input {
            let path = vec![("path".to_string(), self.0.display().to_string())];
            Input::open(&CaptureConfig::read(&path).unwrap()).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn header(recording: u64, file: u32, start_wall_ns: i64, start_mono_ns: u64) -> FileHeader {
        FileHeader { recording, file, start_wall_ns, start_mono_ns, ..FileHeader::default() }
    }

    /// The positions and times of all events from the present position on.
    fn times(input: &mut Input) -> Vec<(Mark, u64)> {
        let mut times = Vec::new();
        loop {
            let mark = input.mark();
            let next = input.next(|head, _| {
                times.push((mark, head.mono_ns));
                Ok(())
            });
            if matches!(next.unwrap(), Next::End) {
                return times;
            }
        }
    }

    #[test]
    fn recordings_with_clocks_of_their_own_have_one_timeline_wherever_reading_starts() {
        let folder = Folder::new();
        folder.add(header(1, 0, 1_000_000, 500), &[(1_000_000, 500), (1_000_200, 700)]);
        // The second file belongs to the same recording. The wall clock was set back before it.
        folder.add(header(1, 1, 999_000, 800), &[(999_000, 800), (0, 0)]);
        // The third file is another recording, made after a restart with a new monotonic clock.
        folder.add(header(2, 0, 1_002_000, 10), &[(1_002_005, 15)]);
        let mut input = folder.open();
        let all = times(&mut input);
        let found: Vec<u64> = all.iter().map(|(_, time_ns)| *time_ns).collect();
        assert_eq!(found, [1_000_000, 1_000_200, 1_000_300, 0, 1_002_005]);
        for at in 0..all.len() {
            input.go_to(all[at].0).unwrap();
            assert_eq!(times(&mut input), all[at..], "from event {at}");
        }
    }

    #[test]
    fn recordings_are_read_in_the_order_of_their_starts_whatever_their_names_are() {
        let folder = Folder::new();
        // The names are 0 to 3.
        folder.add(header(9, 1, 5_000, 0), &[(5_000, 0)]);
        folder.add(header(3, 0, 6_000, 0), &[(6_000, 0), (7_000, 1_000)]);
        folder.add(header(9, 0, 1_000, 0), &[(1_000, 0)]);
        folder.add(header(4, 0, 7_000, 0), &[(7_500, 500)]);
        let (mut input, mut walls) = (folder.open(), Vec::new());
        loop {
            let next = input.next(|head, _| {
                walls.push(head.wall_ns);
                Ok(())
            });
            if matches!(next.unwrap(), Next::End) {
                break;
            }
        }
        assert_eq!(walls, [1_000, 5_000, 6_000, 7_000, 7_500]);
    }

    #[test]
    fn recordings_that_overlap_are_refused() {
        let open = |folder: &Folder| {
            let path = vec![("path".to_string(), folder.0.display().to_string())];
            Input::open(&CaptureConfig::read(&path).unwrap()).map(drop)
        };
        let folder = Folder::new();
        folder.add(header(3, 0, 2_000, 40), &[(2_000, 40), (7_000, 5_040)]);
        folder.add(header(4, 0, 6_000, 0), &[(6_000, 0)]);
        let error = open(&folder).unwrap_err();
        assert_eq!(error.condition(), "CAPTURES_OVERLAP");
        let (first, second) = (folder.0.join("0.capture"), folder.0.join("1.capture"));
        let text = error.to_string();
        let at = |path: &Path| text.find(&path.display().to_string()).unwrap();
        assert!(at(&first) < at(&second), "{text}");
        // The wall clock was set by 5 s during the first recording: it has ended before 4 began.
        let folder = Folder::new();
        folder.add(header(3, 0, 2_000, 40), &[(2_000, 40), (7_000, 50)]);
        folder.add(header(4, 0, 6_000, 0), &[(6_000, 0)]);
        open(&folder).unwrap();
        // The first events are at the same time.
        let folder = Folder::new();
        folder.add(header(3, 0, 2_000, 40), &[(2_000, 40)]);
        folder.add(header(4, 0, 2_000, 0), &[(2_000, 0)]);
        open(&folder).unwrap();
    }

    #[test]
    fn the_first_event_relates_the_clocks_of_a_file_without_a_start_time() {
        let folder = Folder::new();
        folder.add(header(0, 0, 0, 0), &[(7_000_000, 0), (7_000_100, 100), (9_000_000, 300)]);
        // A file without an id is a recording of its own.
        folder.add(header(0, 0, 0, 0), &[(7_000_500, 20)]);
        let found: Vec<u64> = times(&mut folder.open()).iter().map(|(_, ns)| *ns).collect();
        assert_eq!(found, [0, 7_000_100, 7_000_300, 7_000_500]);
    }
}
