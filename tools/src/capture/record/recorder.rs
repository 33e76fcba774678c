//! Writes the events of a running recording, shows its progress, and decides when it ends.

use super::Args;
use super::receive::Stamp;
use crate::capture::output::not_created;
use crate::capture::times;
use crate::failure::Failure;
use millstream_engine::capture::{
    Clock, ConnectionInfo, Direction, FileHeader, Head, Kind, Recording, Rotation, Summary,
    WriterOptions,
};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the limits are checked while waiting for sockets.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// When a recording ends: its end time, its maximum size, and a flag that stops it.
pub(super) struct Limit {
    pub end: Option<Instant>,
    pub bytes: Option<u64>,
    pub stop: Arc<AtomicBool>,
}

pub(super) struct Recorder {
    recording: Recording,
    path: PathBuf,
    limit: Limit,
    start: Instant,
    /// Time of the last event: monotonic times never decrease.
    mono_ns: u64,
    next_connection: u32,
    last_flush: Instant,
    is_shown: bool,
    last_shown: Instant,
    /// Datagrams that the kernel dropped, because its buffer was full.
    pub(super) dropped_datagrams: u64,
}

impl Recorder {
    pub(super) fn begin(args: &Args, limit: Limit) -> Result<Self, Failure> {
        let now = Stamp::now();
        let header = FileHeader {
            clock: if cfg!(target_os = "linux") { Clock::Kernel } else { Clock::Read },
            precision_ns: 1,
            start_wall_ns: now.wall_ns,
            start_mono_ns: now.mono_ns,
            recording: now.wall_ns as u64 ^ u64::from(std::process::id()).rotate_right(16),
            ..FileHeader::default()
        };
        let options = WriterOptions { header, compress: args.compress };
        let rotation = Rotation { bytes: args.rotate_bytes, ns: args.rotate_time };
        let path = args.output.clone();
        args.force.check(&path, rotation)?;
        // The header is written at once, so that the file is a capture from its beginning.
        let created = Recording::create(&path, &options, rotation, args.force.existing())
            .and_then(|mut recording| recording.flush().map(|()| recording));
        let recording =
            created.map_err(|error| not_created("CAPTURE_WRITE_FAILED", &path, &error))?;
        let start = Instant::now();
        Ok(Self {
            recording,
            path,
            limit,
            start,
            mono_ns: 0,
            next_connection: 0,
            last_flush: start,
            is_shown: io::stderr().is_terminal(),
            last_shown: start,
            dropped_datagrams: 0,
        })
    }

    /// Whether the recording must end. Also shows the progress, and flushes buffered events if the
    /// last flush is a tenth of a second ago. Call this after every wait.
    pub(super) fn is_over(&mut self) -> Result<bool, Failure> {
        let now = Instant::now();
        if now - self.last_flush >= TICK {
            self.last_flush = now;
            self.recording.flush().map_err(|error| self.failed(&error))?;
        }
        if self.is_shown && now - self.last_shown > Duration::from_millis(500) {
            self.last_shown = now;
            let summary = self.recording.summary();
            let rate = summary.data_bytes as f64 / (now - self.start).as_secs_f64();
            eprint!(
                "\r\x1b[K{} connections, {} events, {}, {}/s",
                summary.connections,
                summary.events,
                times::show_bytes(summary.data_bytes),
                times::show_bytes(rate as u64)
            );
        }
        let is_full =
            self.limit.bytes.is_some_and(|most| self.recording.summary().data_bytes >= most);
        Ok(is_full
            || self.limit.stop.load(Ordering::Relaxed)
            || self.limit.end.is_some_and(|end| now >= end))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let fix = "The data recorded so far is readable. Check the disk";
        Failure::Failed(format!("CAPTURE_WRITE_FAILED: {}: {error}. {fix}", self.path.display()))
    }

    /// Records the start of a connection. Returns its number.
    pub(super) fn open(&mut self, info: &ConnectionInfo, at: Stamp) -> Result<u32, Failure> {
        let number = self.next_connection;
        self.next_connection += 1;
        let lane = (number, Direction::In);
        self.event(Kind::Open, lane, 0, at, &info.encode())?;
        Ok(number)
    }

    pub(super) fn event(
        &mut self,
        kind: Kind,
        (connection, direction): (u32, Direction),
        position: u64,
        at: Stamp,
        payload: &[u8],
    ) -> Result<(), Failure> {
        self.mono_ns = self.mono_ns.max(at.mono_ns);
        let head = Head {
            position,
            lines: 0,
            mono_ns: self.mono_ns,
            wall_ns: at.wall_ns,
            connection,
            direction,
            kind,
            flags: 0,
        };
        self.recording.append(&head, payload).map_err(|error| self.failed(&error))
    }

    pub(super) fn finish(self) -> Result<Summary, Failure> {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
        let (summary, path) = (self.recording.summary(), self.path);
        self.recording.finish().map_err(|error| {
            Failure::Failed(format!("CAPTURE_WRITE_FAILED: {}: {error}", path.display()))
        })?;
        Ok(summary)
    }
}
