//! The times of several recordings on one timeline.

use super::format::FileHeader;
use super::reader::{CaptureReader, Item};
use crate::error::EngineError;
use std::fs::File;
use std::path::PathBuf;

/// Converts the monotonic times of several recordings to one timeline. Monotonic clocks of
/// different processes start at different points. The first file of a recording relates its clock
/// to the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    recording: u64,
    /// Nanoseconds to add to a monotonic time, to get nanoseconds since 1970. 0 for a file of
    /// version 1 without an event that has both times.
    base_ns: i64,
}

impl Timeline {
    /// The timeline of the recording that the file `at` belongs to. It comes from the recording's
    /// first file, so that it is the same wherever reading starts.
    pub fn of_file(files: &[PathBuf], at: usize) -> Result<Self, EngineError> {
        let mut first = CaptureReader::open(&files[at])?;
        let recording = first.header().recording;
        for path in files[..at].iter().rev() {
            match CaptureReader::open(path) {
                Ok(earlier) if is_same(earlier.header().recording, recording) => first = earlier,
                _ => break,
            }
        }
        Ok(Self { recording, base_ns: base_ns(&mut first)? })
    }

    /// Whether a file belongs to the recording.
    pub fn includes(&self, header: &FileHeader) -> bool {
        is_same(header.recording, self.recording)
    }

    /// Converts an event's monotonic time to nanoseconds since 1970. The result is approximate, but
    /// within a recording it never goes backwards. A time of 0 means unknown and stays 0.
    pub fn time_ns(self, mono_ns: u64) -> u64 {
        match mono_ns {
            0 => 0,
            known => known.saturating_add_signed(self.base_ns).max(1),
        }
    }
}

/// Whether two files belong to the same recording. Files of version 1 do not name their recording
/// (0), so each is a recording of its own.
fn is_same(recording: u64, other: u64) -> bool {
    recording == other && recording != 0
}

/// The difference of the wall clock and the monotonic clock of a recording, from its first file.
fn base_ns(first: &mut CaptureReader<File>) -> Result<i64, EngineError> {
    let FileHeader { start_wall_ns, start_mono_ns, .. } = *first.header();
    if start_wall_ns != 0 {
        return Ok(start_wall_ns.wrapping_sub_unsigned(start_mono_ns));
    }
    // A header of version 1 has no times. The first event with both times relates the clocks.
    while let Some(item) = first.next_item()? {
        if let Item::Event(head, _) = item
            && head.mono_ns > 0
        {
            return Ok(head.wall_ns.wrapping_sub_unsigned(head.mono_ns));
        }
    }
    Ok(0)
}
