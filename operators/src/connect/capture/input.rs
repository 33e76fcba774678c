//! The files of a recording, read one after the other.

use super::config::CaptureConfig;
use super::offset::Mark;
use millstream_engine::capture::{CaptureReader, Damage, FileHeader, Head, Item, capture_files};
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
    /// The number of events and damaged stretches read so far.
    event: u64,
}

/// Converts the monotonic times of several recordings to one timeline. Monotonic clocks of
/// different processes start at different points. The header of a file relates its clock to the
/// wall clock.
#[derive(Clone, Copy, Debug)]
struct Timeline {
    recording: u64,
    /// Nanoseconds to add to a monotonic time.
    base_ns: i64,
}

impl Timeline {
    fn new(header: &FileHeader) -> Self {
        let base_ns = header.start_wall_ns.wrapping_sub_unsigned(header.start_mono_ns);
        Self { recording: header.recording, base_ns }
    }

    /// The timeline for the next file. All files of one recording use the same clock.
    fn next(self, header: &FileHeader) -> Self {
        if header.recording == self.recording { self } else { Self::new(header) }
    }

    /// Converts an event's monotonic time to nanoseconds since 1970. The result is approximate, but
    /// within a recording it never goes backwards. A time of 0 means unknown and stays 0.
    fn time_ns(self, mono_ns: u64) -> u64 {
        match mono_ns {
            0 => 0,
            known => known.saturating_add_signed(self.base_ns).max(1),
        }
    }
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

impl Input {
    /// Opens the recording at its beginning, or shortly before the option `from`.
    pub(super) fn open(config: &CaptureConfig) -> Result<Self, EngineError> {
        let files = files(&config.path)?;
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
        let timeline = Timeline::new(reader.header());
        Ok(Self { files, file: file as u32, reader, timeline, event: 0 })
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

    /// Seeks to a position that [`Self::mark`] returned.
    pub(super) fn go_to(&mut self, mark: Mark) -> Result<(), EngineError> {
        let Some(path) = self.files.get(mark.file as usize) else {
            let reason = format!("the capture has no file {} any more", mark.file);
            let fix = "Restore the files of the capture, or start with an empty checkpoint";
            return Err(EngineError::operator("CAPTURE_CHANGED", reason, fix));
        };
        self.reader = CaptureReader::open(path)?;
        self.reader.go_to_place(mark.place)?;
        self.timeline = Timeline::new(self.reader.header());
        (self.file, self.event) = (mark.file, mark.event);
        Ok(())
    }

    /// Reads the next event or damaged stretch and calls `visit` with an event. Its monotonic time
    /// is converted to the timeline of all files.
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
                    self.event += 1;
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
            self.timeline = self.timeline.next(self.reader.header());
            self.file += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_with_clocks_of_their_own_have_one_timeline() {
        let header = |recording, start_wall_ns, start_mono_ns| FileHeader {
            recording,
            start_wall_ns,
            start_mono_ns,
            ..FileHeader::default()
        };
        let first = Timeline::new(&header(1, 1_000_000, 500));
        assert_eq!((first.time_ns(500), first.time_ns(700)), (1_000_000, 1_000_200));
        // The next file of the recording, during which the wall clock was set back.
        let second = first.next(&header(1, 999_000, 800));
        assert_eq!(second.time_ns(800), 1_000_300);
        // Another recording, made after a restart: its process has a new monotonic clock.
        let third = second.next(&header(2, 1_002_000, 10));
        assert_eq!(third.time_ns(15), 1_002_005);
        // The time of the first event and the clock of the last header are unknown.
        assert_eq!((third.time_ns(0), Timeline::new(&header(3, 0, 0)).time_ns(7)), (0, 7));
    }
}
