//! Offsets of a capture source.
//!
//! The events of a recording are numbered from 0, across all files, including those that are
//! missing in a damaged file. An offset is the number of
//! fully consumed events, plus the number of consumed records of the next event. A restart begins
//! at an earlier position: before the first event of every line that is unfinished at the offset.
//! Records between that position and the offset are framed again but not emitted.

use millstream_engine::capture::Place;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::error::EngineError;

/// A position in the files, and its event number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// The number of events before the position.
    pub event: u64,
    /// The index of the file.
    pub file: u32,
    pub place: Place,
}

/// The number of consumed events, and of consumed records of the next event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Consumed {
    pub events: u64,
    pub records: u64,
}

/// An offset as stored in a checkpoint: the position, where a restart begins to read, and the
/// identity of the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CaptureOffset {
    pub consumed: Consumed,
    pub start: Mark,
    pub recording: u64,
    /// The recorded time that the schedule has reached, in nanoseconds, if its start was given.
    pub schedule_ns: Option<u64>,
}

impl CaptureOffset {
    pub(super) fn to_offset(self) -> Offset {
        let Self { consumed, start, recording, schedule_ns } = self;
        let Place { block, index, events_before } = start.place;
        let schedule = schedule_ns.map_or(String::new(), |ns| format!("\"schedule\":{ns},"));
        Offset(format!(
            "{{\"event\":{},\"record\":{},\"recording\":{recording},{schedule}\"start\":{{\
             \"event\":{},\"file\":{},\"block\":{block},\"index\":{index},\"eventsBefore\":{events_before}}}}}",
            consumed.events, consumed.records, start.event, start.file,
        ))
    }

    pub(super) fn parse(offset: &Offset) -> Result<Self, EngineError> {
        Self::of_text(&offset.0).ok_or_else(|| {
            EngineError::operator(
                "INVALID_OFFSET",
                format!("'{}' is not an offset of a capture", offset.0),
                "The checkpoint was written by another source: start over with an empty one",
            )
        })
    }

    fn of_text(text: &str) -> Option<Self> {
        let (own, start) = text.split_once("\"start\":")?;
        let number = |part: &str, name: &str| -> Option<u64> {
            let rest = part.split_once(&format!("\"{name}\":"))?.1;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().ok()
        };
        Some(Self {
            consumed: Consumed { events: number(own, "event")?, records: number(own, "record")? },
            recording: number(own, "recording")?,
            schedule_ns: number(own, "schedule"),
            start: Mark {
                event: number(start, "event")?,
                file: u32::try_from(number(start, "file")?).ok()?,
                place: Place {
                    block: number(start, "block")?,
                    index: number(start, "index")?,
                    events_before: number(start, "eventsBefore")?,
                },
            },
        })
    }
}
