//! Offsets of a capture source.
//!
//! Events that the source reads are numbered from 0, over all files. An offset is the number of
//! events that were consumed wholly, and the number of records of the next event that were consumed
//! too. To find it again, reading starts at an earlier place: before the beginning of each line that
//! is unfinished at the offset. What lies between is read again without being emitted.

use millstream_engine::capture::Place;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::error::EngineError;

/// A place in the files, and the number of events before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// Number of events that the source reads before it.
    pub event: u64,
    /// Number of the file.
    pub file: u32,
    pub place: Place,
}

/// Number of consumed events, and of consumed records of the event after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Consumed {
    pub events: u64,
    pub records: u64,
}

/// An offset: where it is, where to start reading, and in which recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CaptureOffset {
    pub consumed: Consumed,
    pub start: Mark,
    pub recording: u64,
}

impl CaptureOffset {
    pub(super) fn to_offset(self) -> Offset {
        let Self { consumed, start, recording } = self;
        let Place { block, index, events_before } = start.place;
        Offset(format!(
            "{{\"event\":{},\"record\":{},\"recording\":{recording},\"start\":{{\"event\":{},\
             \"file\":{},\"block\":{block},\"index\":{index},\"eventsBefore\":{events_before}}}}}",
            consumed.events, consumed.records, start.event, start.file,
        ))
    }

    pub(super) fn parse(offset: &Offset) -> Result<Self, EngineError> {
        Self::of_text(&offset.0).ok_or_else(|| {
            EngineError::operator(
                "INVALID_OFFSET",
                format!("'{}' is no position in a capture", offset.0),
                "The checkpoint was written by another source: begin anew with an empty one",
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
