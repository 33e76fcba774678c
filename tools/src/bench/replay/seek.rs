//! The search for a time in a large capture, from opening the file to reading its first event at
//! that time. It is measured with the file's pages in memory and, on Linux, with none of them. The
//! floor is a binary search over the file that decodes nothing.

use crate::bench::figure::{Figure, Goal, Value};
use crate::bench::scratch::Scratch;
use crate::failure::Failure;
use crate::latency_format::median;
use millstream_engine::capture::{
    CaptureReader, CaptureWriter, Direction, Head, Item, Kind, MAX_EVENT_BYTES, STRIDE_BYTES,
    WriterOptions,
};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

/// Number of searches per kind.
const SEARCHES: u64 = 101;
/// Time between two events, in nanoseconds.
const EVENT_NS: u64 = 1_000_000;
const BASE_NS: i64 = 1_700_000_000_000_000_000;

pub(super) fn run(scratch: &Scratch, bytes: u64, figures: &mut Vec<Figure>) -> Result<(), Failure> {
    let path = scratch.path("seek.capture");
    let events = write(&path, bytes)?;
    let (mut warm, mut cold, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..SEARCHES {
        let event = (at * 7_919 * 7_907) % events;
        cold.push(search(&path, event, Pages::Dropped)?);
        warm.push(search(&path, event, Pages::Kept)?);
        bare.push(bare_search(&path, event, events)?);
    }
    std::fs::remove_file(&path)?;
    let size = crate::capture::times::show_bytes(bytes);
    let most = |values: &[u64]| values.iter().copied().max().unwrap_or(0) as f64;
    let goal = Goal::AtMost(Value::Ns(10e6));
    for (what, values) in [("in memory", &warm), ("on disk", &cold)] {
        let name = |which: &str| format!("seek to a time in {size}, file {what}: {which}");
        let middle = Figure::new(name("median"), Value::Ns(median(values.clone()) as f64));
        let middle = match what {
            "in memory" => middle.floor(Value::Ns(median(bare.clone()) as f64)),
            _ => middle,
        };
        figures.push(middle.goal(goal));
        figures.push(Figure::new(name("slowest"), Value::Ns(most(values))));
    }
    Ok(())
}

/// Writes a capture of about `bytes` bytes. Returns the number of events.
fn write(path: &Path, bytes: u64) -> Result<u64, Failure> {
    let mut writer = CaptureWriter::new(File::create(path)?, &WriterOptions::default())?;
    let mut head = Head {
        position: 0,
        lines: 0,
        mono_ns: 0,
        wall_ns: BASE_NS,
        connection: 0,
        direction: Direction::In,
        kind: Kind::Data,
        flags: 0,
    };
    let (payload, mut events) = (vec![b'x'; MAX_EVENT_BYTES], 0);
    while writer.bytes() < bytes {
        writer.append(&head, &payload)?;
        head.position += payload.len() as u64;
        (head.mono_ns, head.wall_ns) = (head.mono_ns + EVENT_NS, head.wall_ns + EVENT_NS as i64);
        events += 1;
    }
    writer.finish()?.sync_all()?;
    Ok(events)
}

/// Whether the file's pages stay in memory before a search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    Kept,
    Dropped,
}

/// Searches for the time of an event. Returns the duration of the search, in nanoseconds.
fn search(path: &Path, event: u64, pages: Pages) -> Result<u64, Failure> {
    if pages == Pages::Dropped {
        drop_pages(path)?;
    }
    let (wall_ns, start) = (BASE_NS + (event * EVENT_NS) as i64, Instant::now());
    let mut reader = CaptureReader::open(path)?;
    reader.seek_wall_ns(wall_ns)?;
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(head, _) if head.wall_ns == wall_ns => {
                return Ok(start.elapsed().as_nanos() as u64);
            }
            Item::Event(head, _) if head.wall_ns < wall_ns => {}
            other => return Err(Failure::Failed(format!("event {event}: {other:?} is found"))),
        }
    }
    Err(Failure::Failed(format!("event {event} is not found")))
}

/// Searches for the stride of an event without decoding events. Reads one page at each step of a
/// binary search over the strides, and then the whole stride. Returns the duration in nanoseconds.
fn bare_search(path: &Path, event: u64, events: u64) -> Result<u64, Failure> {
    let start = Instant::now();
    let mut file = File::open(path)?;
    let strides = file.metadata()?.len() / STRIDE_BYTES;
    // All events have the same size, so the event is in this stride or next to it.
    let wanted = strides * event / events;
    let (mut page, mut least, mut most) = ([0; 4096], 0, strides.saturating_sub(1));
    while least < most {
        let middle = (least + most).div_ceil(2);
        file.seek(SeekFrom::Start(middle * STRIDE_BYTES))?;
        file.read_exact(&mut page)?;
        std::hint::black_box(&page);
        (least, most) = if middle <= wanted { (middle, most) } else { (least, middle - 1) };
    }
    file.seek(SeekFrom::Start(least * STRIDE_BYTES))?;
    file.by_ref().take(STRIDE_BYTES).read_to_end(&mut Vec::with_capacity(STRIDE_BYTES as usize))?;
    Ok(start.elapsed().as_nanos() as u64)
}

#[cfg(target_os = "linux")]
fn drop_pages(path: &Path) -> Result<(), Failure> {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let file = File::open(path)?;
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

#[cfg(not(target_os = "linux"))]
fn drop_pages(_: &Path) -> Result<(), Failure> {
    Ok(())
}
