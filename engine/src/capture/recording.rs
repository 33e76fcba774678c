//! A recording that rotates its files by size and by time.
//!
//! Without rotation the recording is one file with the given name. With rotation a number is
//! inserted before the extension: `lines.capture` becomes `lines.00000.capture`, and so on. Each
//! file can be read alone, because it repeats the open events of open connections, with
//! [`FLAG_REPEATED`].
//!
//! *Durability.* A file and its name are durable when the recording has ended; those of a rotated
//! file at the next rotation. *Threads.* One, and a short-lived one for each rotated file, which
//! waits for the disk.

use super::event_buffer::EventBuffer;
use super::format::{FILE_HEADER_BYTES, FLAG_REPEATED, FileHeader, Head, Kind, Summary};
use super::writer::{CaptureWriter, Unwritten, WriterOptions};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The limits at which a recording starts its next file; `None` is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotation {
    /// Size of a file, in bytes, without the repeated open events at its start. It is checked before
    /// each event, so a file can exceed it by one event and the end of the file; a compressed file by
    /// one compressed block.
    pub bytes: Option<u64>,
    /// Recorded time of a file, in nanoseconds.
    pub ns: Option<u64>,
}

/// What happens to an existing file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and creating the file fails with [`io::ErrorKind::AlreadyExists`].
    #[default]
    Keep,
    /// It is overwritten.
    Overwrite,
}

impl Existing {
    /// Creates a file for writing. A device or a pipe is opened in any case, because nothing in it
    /// is lost.
    pub fn create(self, path: &Path) -> io::Result<File> {
        if self == Self::Overwrite {
            return File::create(path);
        }
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let created = File::create_new(path);
        match &created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_device(path) => {
                File::options().write(true).open(path)
            }
            _ => created,
        }
    }
}

fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir())
}

impl Rotation {
    fn is_on(&self) -> bool {
        self.bytes.is_some() || self.ns.is_some()
    }
}

/// A recording under construction.
pub struct Recording {
    path: PathBuf,
    options: WriterOptions,
    rotation: Rotation,
    existing: Existing,
    writer: CaptureWriter<File>,
    /// The size of the file after the repeated open events, in bytes. It does not count towards the
    /// limit. Otherwise a file whose repeated open events exceed the limit would end at its first
    /// event.
    repeated_bytes: u64,
    /// Monotonic time of the file's first event.
    first_mono_ns: Option<u64>,
    /// The open events of connections that are still open, if the recording rotates.
    open: BTreeMap<u32, (Head, Vec<u8>)>,
    /// Totals of the previous files.
    before: Summary,
    bytes_before: u64,
    /// The thread that makes the previous file durable.
    syncing: Option<JoinHandle<io::Result<()>>>,
}

/// Makes a closed file and its name durable.
fn sync(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(unix)]
    {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    #[cfg(test)]
    tests::synced(path);
    Ok(())
}

fn join(thread: Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let panicked = |_| Err(io::Error::other("the thread that syncs a capture has panicked"));
    thread.map_or(Ok(()), |thread| thread.join().unwrap_or_else(panicked))
}

impl Recording {
    /// Starts a recording by creating its first file. With rotation the file's name is `path` with
    /// the number of the file. `existing` applies to each file of the recording. If it is
    /// [`Existing::Keep`], this fails if there is any file of an earlier recording of this name.
    pub fn create(
        path: &Path,
        options: &WriterOptions,
        rotation: Rotation,
        existing: Existing,
    ) -> io::Result<Self> {
        if existing == Existing::Keep
            && let Some(earlier) = rotation.is_on().then(|| existing_file(path, rotation)).flatten()
        {
            let reason = format!("there is a file {} already", earlier.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
        }
        let file = existing.create(&file_path(path, rotation, options.header.file))?;
        Ok(Self {
            path: path.to_path_buf(),
            options: *options,
            rotation,
            existing,
            writer: CaptureWriter::new(file, options)?,
            repeated_bytes: 0,
            first_mono_ns: None,
            open: BTreeMap::new(),
            before: Summary::default(),
            bytes_before: 0,
            syncing: None,
        })
    }

    /// Appends an event. If rotation is on and one of its limits is reached, starts the next file
    /// first.
    pub fn append(&mut self, head: &Head, payload: &[u8]) -> io::Result<()> {
        if self.rotation.is_on() {
            self.rotate_if_due(head)?;
            match head.kind {
                Kind::Open => {
                    self.open.insert(head.connection, (*head, payload.to_vec()));
                }
                Kind::Close => {
                    self.open.remove(&head.connection);
                }
                _ => {}
            }
        }
        self.writer.append(head, payload)
    }

    /// Appends the events of a buffer. If rotation is off and the recording is not compressed, they
    /// are then written to the operating system.
    pub fn append_buffer(&mut self, events: &mut EventBuffer) -> Result<(), Unwritten> {
        if !self.rotation.is_on() {
            return self.writer.append_buffer(events);
        }
        for (written, (head, payload)) in events.iter().enumerate() {
            self.append(&head, payload).map_err(|error| Unwritten { written, error })?;
        }
        Ok(())
    }

    fn rotate_if_due(&mut self, head: &Head) -> io::Result<()> {
        let first = *self.first_mono_ns.get_or_insert(head.mono_ns);
        let is_old =
            self.rotation.ns.is_some_and(|most| head.mono_ns.saturating_sub(first) >= most);
        let own_bytes = self.writer.bytes() - self.repeated_bytes;
        let is_large = self.rotation.bytes.is_some_and(|most| own_bytes >= most);
        if !(is_old || is_large) {
            return Ok(());
        }
        let closed = self.current_path();
        self.options.header = FileHeader {
            file: self.options.header.file + 1,
            start_wall_ns: head.wall_ns,
            start_mono_ns: head.mono_ns,
            ..self.options.header
        };
        let file = self.existing.create(&self.current_path())?;
        let next = CaptureWriter::new(file, &self.options)?;
        let last = std::mem::replace(&mut self.writer, next);
        self.before = add(&self.before, last.summary());
        self.bytes_before += last.bytes();
        let file = last.finish()?;
        // Data arrives while the disk is busy, so a thread waits for it. If the disk needs longer
        // than a file takes to fill, this waits too.
        join(self.syncing.take())?;
        let run = move || sync(&file, &closed);
        self.syncing = Some(std::thread::Builder::new().name("capture-sync".into()).spawn(run)?);
        self.first_mono_ns = Some(head.mono_ns);
        for (open, payload) in self.open.values() {
            let (mono_ns, wall_ns) = (head.mono_ns, head.wall_ns);
            let open = Head { mono_ns, wall_ns, flags: open.flags | FLAG_REPEATED, ..*open };
            self.writer.append(&open, payload)?;
        }
        self.repeated_bytes = self.writer.bytes();
        Ok(())
    }

    /// Whether events can be in memory after [`Self::append_buffer`] has returned.
    pub fn is_buffered(&self) -> bool {
        self.rotation.is_on() || self.options.compress
    }

    /// Writes all buffered bytes to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Totals of all files so far, with the repeated open events.
    pub fn summary(&self) -> Summary {
        add(&self.before, self.writer.summary())
    }

    /// Approximate size of all files so far, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes_before + self.writer.bytes()
    }

    fn current_path(&self) -> PathBuf {
        file_path(&self.path, self.rotation, self.options.header.file)
    }

    /// Ends the recording. When this returns, all files and their names are durable.
    pub fn finish(mut self) -> io::Result<()> {
        let before = join(self.syncing.take());
        let path = self.current_path();
        let file = self.writer.finish()?;
        sync(&file, &path)?;
        before
    }
}

/// The files of a path in the order in which they were recorded: the file itself, or all captures
/// (`.capture`, `.cap`) in a folder.
///
/// Recordings are ordered by their starts, the files of a recording by their numbers. The segments
/// of a durable source's log (`.cap`) are ordered by their names, which are their numbers.
pub fn capture_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let is_segment = file.extension().is_some_and(|end| end == "cap");
        if is_segment {
            found.push((FileHeader::default(), file));
        } else if file.extension().is_some_and(|end| end == "capture") {
            // A file with an unreadable header stays in the list. Opening it reports the error.
            found.push((read_header(&file).unwrap_or_default(), file));
        }
    }
    let mut starts = BTreeMap::new();
    for (header, _) in &found {
        let start = starts.entry(header.recording).or_insert(header.start_wall_ns);
        *start = header.start_wall_ns.min(*start);
    }
    found.sort_by(|(a, a_path), (b, b_path)| {
        let key = |header: &FileHeader| {
            (starts.get(&header.recording).copied(), header.recording, header.file)
        };
        key(a).cmp(&key(b)).then_with(|| a_path.cmp(b_path))
    });
    Ok(found.into_iter().map(|(_, file)| file).collect())
}

fn read_header(path: &Path) -> Option<FileHeader> {
    let mut first = Vec::with_capacity(FILE_HEADER_BYTES);
    File::open(path).ok()?.take(FILE_HEADER_BYTES as u64).read_to_end(&mut first).ok()?;
    FileHeader::decode(&first).ok()
}

fn add(a: &Summary, b: &Summary) -> Summary {
    Summary {
        events: a.events + b.events,
        data_bytes: a.data_bytes + b.data_bytes,
        connections: a.connections + b.connections,
        wall_ns_max: if a.events == 0 { b.wall_ns_max } else { a.wall_ns_max.max(b.wall_ns_max) },
        mono_ns_max: a.mono_ns_max.max(b.mono_ns_max),
    }
}

fn file_path(path: &Path, rotation: Rotation, number: u32) -> PathBuf {
    if !rotation.is_on() {
        return path.to_path_buf();
    }
    let number = format!("{number:05}");
    match path.extension() {
        Some(extension) => path.with_extension(format!("{number}.{}", extension.to_string_lossy())),
        None => path.with_extension(number),
    }
}

/// A file that a recording would overwrite; with rotation any file of an earlier recording of this
/// name, because the number of files is not known.
pub fn existing_file(path: &Path, rotation: Rotation) -> Option<PathBuf> {
    if !rotation.is_on() {
        return path.is_file().then(|| path.to_path_buf());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let mut files = entries.flatten().map(|entry| entry.path());
    files.find(|file| {
        let number = file_number(file, path);
        number
            .is_some_and(|number| file_path(path, rotation, number).file_name() == file.file_name())
    })
}

/// The number in the name of a rotated file, which is what [`file_path`] inserts.
fn file_number(file: &Path, path: &Path) -> Option<u32> {
    let numbered = match path.extension() {
        Some(_) => file.file_stem().map(Path::new)?,
        None => file,
    };
    numbered.extension()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    static SYNCED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

    pub(super) fn synced(path: &Path) {
        SYNCED.lock().unwrap().push(path.to_path_buf());
    }

    #[test]
    fn every_file_is_durable_when_the_recording_has_ended() {
        let name = format!("millstream-synced-{}.capture", std::process::id());
        let path = std::env::temp_dir().join(name);
        let rotation = Rotation { bytes: None, ns: Some(10) };
        let mut recording =
            Recording::create(&path, &WriterOptions::default(), rotation, Existing::Keep).unwrap();
        for mono_ns in [0, 10, 20] {
            let head = Head {
                position: 0,
                lines: 0,
                mono_ns,
                wall_ns: 0,
                connection: 0,
                direction: super::super::format::Direction::In,
                kind: Kind::Data,
                flags: 0,
            };
            recording.append(&head, b"x").unwrap();
        }
        recording.finish().unwrap();
        let files = (0..3).map(|number| file_path(&path, rotation, number));
        for file in files {
            assert!(SYNCED.lock().unwrap().contains(&file), "{}", file.display());
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn an_earlier_recording_without_its_oldest_file_is_kept() {
        let name = format!("millstream-oldest-deleted-{}.capture", std::process::id());
        let path = std::env::temp_dir().join(name);
        let rotation = Rotation { bytes: Some(10_000), ns: None };
        let create =
            || Recording::create(&path, &WriterOptions::default(), rotation, Existing::Keep);
        let later = file_path(&path, rotation, 7);
        std::fs::write(&later, b"").unwrap();
        assert_eq!(create().err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
        assert!(!file_path(&path, rotation, 0).exists());
        std::fs::remove_file(&later).unwrap();
        create().unwrap().finish().unwrap();
        std::fs::remove_file(file_path(&path, rotation, 0)).unwrap();
    }

    #[test]
    fn many_open_connections_do_not_start_a_file_at_each_event() {
        let name = format!("millstream-many-open-{}.capture", std::process::id());
        let path = std::env::temp_dir().join(name);
        let rotation = Rotation { bytes: Some(10_000), ns: None };
        let mut recording =
            Recording::create(&path, &WriterOptions::default(), rotation, Existing::Keep).unwrap();
        let head = |kind, connection| Head {
            position: 0,
            lines: 0,
            mono_ns: 1,
            wall_ns: 1,
            connection,
            direction: super::super::format::Direction::In,
            kind,
            flags: 0,
        };
        // The open events alone are longer than a file.
        for connection in 0..1_000 {
            recording.append(&head(Kind::Open, connection), &[0; 40]).unwrap();
        }
        let opened = recording.options.header.file;
        for connection in 0..1_000 {
            recording.append(&head(Kind::Data, connection), &[0; 40]).unwrap();
        }
        let last = recording.options.header.file;
        recording.finish().unwrap();
        (0..=last).for_each(|n| std::fs::remove_file(file_path(&path, rotation, n)).unwrap());
        assert!((1..20).contains(&(last - opened)), "{} files for 1,000 events", last - opened);
    }
}
