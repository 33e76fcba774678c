//! The files of a recording, read one after the other.

use super::config::CaptureConfig;
use super::offset::Mark;
use millstream_engine::capture::{CaptureReader, Damage, FileHeader, Head, Item};
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
    /// The number of events and damaged stretches read so far.
    event: u64,
}

/// The files of a path: the file itself, or all captures in a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, EngineError> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let unreadable = |error: std::io::Error| {
        let reason = format!("cannot read {}: {error}", path.display());
        EngineError::operator("CAPTURE_UNREADABLE", reason, "Check the path and its rights")
    };
    let entries = std::fs::read_dir(path).map_err(unreadable)?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|end| end == "cap" || end == "capture") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let reason = format!("{} holds no capture (.cap, .capture)", path.display());
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
        Ok(Self { files, file: file as u32, reader, event: 0 })
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
            let reason = format!("the recording has no file {} any more", mark.file);
            let fix = "Bring the files of the recording back, or begin with an empty checkpoint";
            return Err(EngineError::operator("CAPTURE_CHANGED", reason, fix));
        };
        self.reader = CaptureReader::open(path)?;
        self.reader.go_to_place(mark.place)?;
        (self.file, self.event) = (mark.file, mark.event);
        Ok(())
    }

    /// Reads the next event or damaged stretch and calls `visit` with an event.
    pub(super) fn next(
        &mut self,
        visit: impl FnOnce(&Head, &[u8]) -> Result<(), EngineError>,
    ) -> Result<Next, EngineError> {
        loop {
            match self.reader.next_item()? {
                Some(Item::Event(head, payload)) => {
                    self.event += 1;
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
            self.file += 1;
        }
    }
}
